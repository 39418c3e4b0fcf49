//! The hint file: key, sequence number, kind, expiry and location of every record of one sealed
//! segment, tombstones too, so that an open reads keys and not values. It can always be built again
//! from its segment.
//!
//! An entry is written as what the one before it does not tell. Blocks of whole entries, which the
//! first stores have, are read and no longer written.

use serde::{Deserialize, Serialize};

use super::frame::{self, FRAME_HEADER_BYTES};
use super::{
    FileKind, PREAMBLE_BYTES, SegmentId, SeqNo, StoreId, as_bytes, check_key, decode_preamble,
    encode_into, encode_preamble, salt,
};

/// What a frame of a hint file is; the entries of a block follow it in the same body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Part {
    Header {
        store: StoreId,
        segment: SegmentId,
    },
    /// Followed by a [`HintEntry`] for each record.
    Block,
    /// How many entries there were, and how long the segment is that they are all of.
    End {
        records: u32,
        segment_bytes: u32,
    },
    /// Followed by a [`PackedEntry`] for each record; the records stand one behind the other from
    /// `offset` on.
    Packed {
        offset: u32,
    },
}

/// One record of the segment, but for what follows from the entry before it in its block. Before
/// the first one stands a record of length 0 and sequence number 0.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct PackedEntry<'a> {
    /// Four times the zigzag of the difference in length, and the kind: 0 a set, 1 a set that
    /// expires, 2 a tombstone.
    shape: u64,
    /// The difference in sequence number, modulo 2^64.
    seqno_step: i64,
    #[serde(borrow, serialize_with = "as_bytes")]
    key: &'a [u8],
}

/// One record of the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HintEntry<'a> {
    pub(crate) offset: u32,
    pub(crate) length: u32,
    pub(crate) seqno: SeqNo,
    pub(crate) kind: HintKind,
    #[serde(borrow, serialize_with = "as_bytes")]
    pub(crate) key: &'a [u8],
}

/// What the record does, without the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HintKind {
    Set,
    SetExpiring { at_ms: u64 },
    Tombstone,
}

impl HintKind {
    pub(crate) fn set(expires_at_ms: Option<u64>) -> Self {
        expires_at_ms.map_or(HintKind::Set, |at_ms| HintKind::SetExpiring { at_ms })
    }

    pub(crate) fn expires_at_ms(self) -> Option<u64> {
        match self {
            HintKind::SetExpiring { at_ms } => Some(at_ms),
            HintKind::Set | HintKind::Tombstone => None,
        }
    }
}

/// A block is framed once it has this many bytes.
const BLOCK_BYTES: usize = 64 * 1024;

/// What the next entry of a packed block is told by its difference from.
#[derive(Debug, Clone, Copy, Default)]
struct Before {
    length: u32,
    seqno: SeqNo,
}

/// Writes a hint file piece by piece: memory is one block, whatever the segment's size.
pub(crate) struct HintEncoder {
    salt: u32,
    /// Bytes handed out before those in `ready`.
    written: u64,
    ready: Vec<u8>,
    block: Vec<u8>,
    /// Where the first record of `block` stands.
    block_offset: u32,
    /// Where the next one must stand to be told by those before it.
    next_offset: Option<u32>,
    before: Before,
    records: u32,
}

impl HintEncoder {
    pub(crate) fn new(store: StoreId, segment: SegmentId) -> postcard::Result<Self> {
        let salt = salt(store, FileKind::Hint, segment);
        let ready = encode_preamble(FileKind::Hint, salt).to_vec();
        let mut encoder = Self {
            salt,
            written: 0,
            ready,
            block: Vec::new(),
            block_offset: 0,
            next_offset: None,
            before: Before::default(),
            records: 0,
        };
        encoder.frame(&Part::Header { store, segment })?;
        Ok(encoder)
    }

    pub(crate) fn push(&mut self, entry: &HintEntry<'_>) -> postcard::Result<()> {
        if self.next_offset != Some(entry.offset) {
            self.frame_block()?;
        }
        if self.block.is_empty() {
            self.block_offset = entry.offset;
            self.before = Before::default();
        }
        let (kind, expires_at_ms) = match entry.kind {
            HintKind::Set => (KIND_SET, None),
            HintKind::SetExpiring { at_ms } => (KIND_SET_EXPIRING, Some(at_ms)),
            HintKind::Tombstone => (KIND_TOMBSTONE, None),
        };
        let step = i64::from(entry.length) - i64::from(self.before.length);
        let packed = PackedEntry {
            shape: zigzag(step) << KIND_BITS | kind,
            seqno_step: entry.seqno.wrapping_sub(self.before.seqno).cast_signed(),
            key: entry.key,
        };
        encode_into(&packed, &mut self.block)?;
        if let Some(at_ms) = expires_at_ms {
            encode_into(&at_ms, &mut self.block)?;
        }
        self.before = Before { length: entry.length, seqno: entry.seqno };
        self.next_offset = entry.offset.checked_add(entry.length);
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES { self.frame_block() } else { Ok(()) }
    }

    /// Frames that are complete and not yet handed out, and where in the file they go.
    pub(crate) fn take(&mut self) -> (u64, Vec<u8>) {
        let at = self.written;
        self.written += self.ready.len() as u64;
        (at, std::mem::take(&mut self.ready))
    }

    /// How many bytes were handed out.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Completes the file; what [`HintEncoder::take`] gives then is its end.
    pub(crate) fn finish(&mut self, segment_bytes: u32) -> postcard::Result<()> {
        self.frame_block()?;
        self.frame(&Part::End { records: self.records, segment_bytes })
    }

    fn frame_block(&mut self) -> postcard::Result<()> {
        if !self.block.is_empty() {
            self.frame(&Part::Packed { offset: self.block_offset })?;
            self.block.clear();
        }
        Ok(())
    }

    /// Frames a part, and after it the block where it is one.
    fn frame(&mut self, part: &Part) -> postcard::Result<()> {
        let offset = u32::try_from(self.written + self.ready.len() as u64)
            .map_err(|_| postcard::Error::SerializeBufferFull)?;
        let block = &self.block;
        frame::append(&mut self.ready, self.salt, offset, |buffer| {
            encode_into(part, buffer)?;
            if matches!(part, Part::Packed { .. }) {
                buffer.extend_from_slice(block);
            }
            Ok(())
        })?;
        Ok(())
    }
}

/// Reads a hint file that was read whole, for the segment that it must belong to. Every entry is
/// given to `visit` with its frame's checksum verified and its location inside the segment; nothing
/// counts unless the result is `Ok`.
pub(crate) fn decode_hint<'a>(
    bytes: &'a [u8],
    store: StoreId,
    segment: SegmentId,
    segment_bytes: u32,
    mut visit: impl FnMut(&HintEntry<'a>),
) -> Result<u32, String> {
    let salt = decode_preamble(FileKind::Hint, bytes).map_err(|bad| bad.to_string())?;
    let mut at = PREAMBLE_BYTES;
    let mut started = false;
    let mut records: u32 = 0;
    let mut take_in = |entry: &HintEntry<'a>| {
        let end = u64::from(entry.offset) + u64::from(entry.length);
        if end > u64::from(segment_bytes) {
            return Err("it points past the end of its segment".to_string());
        }
        visit(entry);
        Ok(())
    };
    loop {
        let framed = bytes.get(at..).unwrap_or_default();
        let offset = u32::try_from(at).map_err(|_| "it is too long".to_string())?;
        let body = frame::body(framed, salt, offset).map_err(|bad| format!("byte {at}: {bad}"))?;
        at += FRAME_HEADER_BYTES + body.len();
        match decode_part(body, &mut take_in).map_err(|bad| format!("byte {at}: {bad}"))? {
            HintPart::Header { store: of_store, segment: of_segment } => {
                if (of_store, of_segment) != (store, segment) {
                    return Err("it belongs to another segment".to_string());
                }
                started = true;
            }
            HintPart::Entries(count) if started => records += count,
            HintPart::End { records: count, segment_bytes: of_bytes } if started => {
                if (count, of_bytes) != (records, segment_bytes) || at != bytes.len() {
                    return Err("it is not complete".to_string());
                }
                return Ok(records);
            }
            HintPart::Entries(_) | HintPart::End { .. } => {
                return Err("it has no header".to_string());
            }
        }
    }
}

/// What one frame of a hint file was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HintPart {
    Header {
        store: StoreId,
        segment: SegmentId,
    },
    /// So many entries.
    Entries(u32),
    End {
        records: u32,
        segment_bytes: u32,
    },
}

/// Decodes the body of one frame whose checksum was right, and gives its entries to `visit`.
pub(crate) fn decode_part<'a>(
    body: &'a [u8],
    mut visit: impl FnMut(&HintEntry<'a>) -> Result<(), String>,
) -> Result<HintPart, String> {
    let (part, mut rest) =
        postcard::take_from_bytes::<Part>(body).map_err(|error| error.to_string())?;
    let mut count = 0;
    match part {
        Part::Header { store, segment } => return Ok(HintPart::Header { store, segment }),
        Part::End { records, segment_bytes } => {
            return Ok(HintPart::End { records, segment_bytes });
        }
        Part::Block => {
            while !rest.is_empty() {
                let (entry, after) =
                    postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
                take_in(&entry, &mut visit)?;
                count += 1;
                rest = after;
            }
        }
        Part::Packed { offset } => {
            let mut block = PackedBlock { rest, offset, before: Before::default() };
            while let Some(entry) = block.next()? {
                take_in(&entry, &mut visit)?;
                count += 1;
            }
        }
    }
    Ok(HintPart::Entries(count))
}

fn take_in<'a>(
    entry: &HintEntry<'a>,
    visit: &mut impl FnMut(&HintEntry<'a>) -> Result<(), String>,
) -> Result<(), String> {
    check_key(entry.key)?;
    visit(entry)
}

/// The entries of a packed block that are still to be read.
struct PackedBlock<'a> {
    rest: &'a [u8],
    offset: u32,
    before: Before,
}

impl<'a> PackedBlock<'a> {
    fn next(&mut self) -> Result<Option<HintEntry<'a>>, String> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let (PackedEntry { shape, seqno_step, key }, mut rest) =
            postcard::take_from_bytes(self.rest).map_err(|error| error.to_string())?;
        let kind = match shape & KIND_MASK {
            KIND_SET => HintKind::Set,
            KIND_SET_EXPIRING => {
                let (at_ms, after) =
                    postcard::take_from_bytes(rest).map_err(|error| error.to_string())?;
                rest = after;
                HintKind::SetExpiring { at_ms }
            }
            KIND_TOMBSTONE => HintKind::Tombstone,
            _ => return Err("a record is of no kind".to_string()),
        };
        let length = i64::from(self.before.length)
            .checked_add(unzigzag(shape >> KIND_BITS))
            .and_then(|length| u32::try_from(length).ok())
            .ok_or("a length is none")?;
        let seqno = self.before.seqno.wrapping_add(seqno_step.cast_unsigned());
        let entry = HintEntry { offset: self.offset, length, seqno, kind, key };
        // Past the last offset nothing can follow: what does is found to lie outside its segment.
        self.offset = self.offset.saturating_add(length);
        self.before = Before { length, seqno };
        self.rest = rest;
        Ok(Some(entry))
    }
}

const KIND_BITS: u32 = 2;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
const KIND_SET: u64 = 0;
const KIND_SET_EXPIRING: u64 = 1;
const KIND_TOMBSTONE: u64 = 2;

/// Small numbers of either sign to small numbers: 0, -1, 1, -2 to 0, 1, 2, 3.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = StoreId([3; 16]);
    const SEGMENT: SegmentId = SegmentId(9);

    fn hint(records: u32) -> Vec<u8> {
        let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
        let mut bytes = Vec::new();
        for index in 0..records {
            let key = format!("key-{index}");
            let kind = match index % 3 {
                0 => HintKind::Set,
                1 => HintKind::SetExpiring { at_ms: u64::from(index) },
                _ => HintKind::Tombstone,
            };
            let entry = HintEntry {
                offset: index * 100,
                length: 100,
                seqno: u64::from(index) + 1,
                kind,
                key: key.as_bytes(),
            };
            encoder.push(&entry).expect("it encodes");
            let (at, piece) = encoder.take();
            assert_eq!(at, bytes.len() as u64);
            bytes.extend(piece);
        }
        encoder.finish(1 << 30).expect("it encodes");
        bytes.extend(encoder.take().1);
        bytes
    }

    fn decode(bytes: &[u8]) -> Result<Vec<(Vec<u8>, SeqNo)>, String> {
        let mut entries = Vec::new();
        decode_hint(bytes, STORE, SEGMENT, 1 << 30, |entry| {
            entries.push((entry.key.to_vec(), entry.seqno));
        })?;
        Ok(entries)
    }

    #[test]
    fn a_hint_of_many_blocks_comes_back_as_it_went() {
        for records in [0, 1, 20_000] {
            let entries = decode(&hint(records)).expect("it decodes");
            assert_eq!(entries.len() as u32, records);
            assert!(entries.iter().zip(1..).all(|((_, seqno), expected)| *seqno == expected));
        }
    }

    #[test]
    fn entries_with_gaps_between_their_records_come_back_too() {
        let entries = [
            (10, 5, 7, HintKind::Set),
            (15, 0, u64::MAX, HintKind::Tombstone),
            (15, 90, 0, HintKind::SetExpiring { at_ms: u64::MAX }),
            (200, 3, 9, HintKind::Set),
            (100, u32::MAX - 100, 8, HintKind::Set),
            (0, 1, 10, HintKind::SetExpiring { at_ms: 0 }),
        ]
        .map(|(offset, length, seqno, kind)| HintEntry {
            offset,
            length,
            seqno,
            kind,
            key: b"k",
        });
        let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
        entries.iter().for_each(|entry| encoder.push(entry).expect("it encodes"));
        encoder.finish(u32::MAX).expect("it encodes");
        let bytes = encoder.take().1;
        let mut found = Vec::new();
        decode_hint(&bytes, STORE, SEGMENT, u32::MAX, |entry| found.push(*entry))
            .expect("it decodes");
        assert_eq!(found, entries);
    }

    /// What the first stores have.
    #[test]
    fn blocks_of_whole_entries_are_read() {
        let entry = HintEntry { offset: 41, length: 17, seqno: 1, kind: HintKind::Set, key: b"a" };
        let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
        encode_into(&entry, &mut encoder.block).expect("it encodes");
        let (ready, block) = (encoder.ready.len() as u32, std::mem::take(&mut encoder.block));
        frame::append(&mut encoder.ready, encoder.salt, ready, |buffer| {
            encode_into(&Part::Block, buffer)?;
            buffer.extend_from_slice(&block);
            Ok(())
        })
        .expect("it encodes");
        encoder.records = 1;
        encoder.finish(1 << 30).expect("it encodes");
        assert_eq!(decode(&encoder.take().1), Ok(vec![(b"a".to_vec(), 1)]));
    }

    #[test]
    fn an_entry_of_like_records_takes_three_bytes_and_its_key() {
        let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
        for index in 0..1000 {
            let (offset, key) = (41 + 143 * index, [7; 24]);
            let seqno = 1_000_000 + 2 * u64::from(index);
            let entry = HintEntry { offset, length: 143, seqno, kind: HintKind::Set, key: &key };
            encoder.push(&entry).expect("it encodes");
        }
        encoder.finish(1 << 30).expect("it encodes");
        let bytes = encoder.take().1.len();
        assert!(bytes < 1000 * 27 + 100, "{bytes} bytes for a thousand entries");
    }

    #[test]
    fn any_damage_shows() {
        let bytes = hint(5);
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&flipped).is_err(), "bit {bit} flipped unnoticed");
        }
        for len in 0..bytes.len() {
            assert!(decode(&bytes[..len]).is_err(), "cut at {len} unnoticed");
        }
        assert!(decode_hint(&bytes, STORE, SegmentId(8), 1 << 30, |_| ()).is_err());
        assert!(decode_hint(&bytes, STORE, SEGMENT, 300, |_| ()).is_err());
    }
}
