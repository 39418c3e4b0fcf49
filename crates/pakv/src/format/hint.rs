//! The hint file: key, sequence number, kind, expiry and location of every record of one sealed
//! segment, tombstones too, so that an open reads keys and not values. It can always be built again
//! from its segment.

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
    Block,
    /// How many entries there were, and how long the segment is that they are all of.
    End {
        records: u32,
        segment_bytes: u32,
    },
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

/// Writes a hint file piece by piece: memory is one block, whatever the segment's size.
pub(crate) struct HintEncoder {
    salt: u32,
    /// Bytes handed out before those in `ready`.
    written: u64,
    ready: Vec<u8>,
    block: Vec<u8>,
    records: u32,
}

impl HintEncoder {
    pub(crate) fn new(store: StoreId, segment: SegmentId) -> postcard::Result<Self> {
        let salt = salt(store, FileKind::Hint, segment);
        let ready = encode_preamble(FileKind::Hint, salt).to_vec();
        let mut encoder = Self { salt, written: 0, ready, block: Vec::new(), records: 0 };
        encoder.frame(&Part::Header { store, segment })?;
        Ok(encoder)
    }

    pub(crate) fn push(&mut self, entry: &HintEntry<'_>) -> postcard::Result<()> {
        encode_into(entry, &mut self.block)?;
        self.records += 1;
        if self.block.len() >= BLOCK_BYTES { self.frame_block() } else { Ok(()) }
    }

    /// Frames that are complete and not yet handed out, and where in the file they go.
    pub(crate) fn take(&mut self) -> (u64, Vec<u8>) {
        let at = self.written;
        self.written += self.ready.len() as u64;
        (at, std::mem::take(&mut self.ready))
    }

    /// Completes the file; what [`HintEncoder::take`] gives then is its end.
    pub(crate) fn finish(&mut self, segment_bytes: u32) -> postcard::Result<()> {
        if !self.block.is_empty() {
            self.frame_block()?;
        }
        self.frame(&Part::End { records: self.records, segment_bytes })
    }

    fn frame_block(&mut self) -> postcard::Result<()> {
        self.frame(&Part::Block)?;
        self.block.clear();
        Ok(())
    }

    /// Frames a part, and after it the block, which is empty except for `Part::Block`.
    fn frame(&mut self, part: &Part) -> postcard::Result<()> {
        let offset = u32::try_from(self.written + self.ready.len() as u64)
            .map_err(|_| postcard::Error::SerializeBufferFull)?;
        let block = &self.block;
        frame::append(&mut self.ready, self.salt, offset, |buffer| {
            encode_into(part, buffer)?;
            if *part == Part::Block {
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
pub(crate) fn decode_hint(
    bytes: &[u8],
    store: StoreId,
    segment: SegmentId,
    segment_bytes: u32,
    mut visit: impl FnMut(&HintEntry<'_>),
) -> Result<u32, String> {
    let salt = decode_preamble(FileKind::Hint, bytes).map_err(|bad| bad.to_string())?;
    let mut at = PREAMBLE_BYTES;
    let mut started = false;
    let mut records: u32 = 0;
    loop {
        let framed = bytes.get(at..).unwrap_or_default();
        let offset = u32::try_from(at).map_err(|_| "it is too long".to_string())?;
        let body = frame::body(framed, salt, offset).map_err(|bad| format!("byte {at}: {bad}"))?;
        at += FRAME_HEADER_BYTES + body.len();
        let (part, mut rest) = postcard::take_from_bytes::<Part>(body)
            .map_err(|error| format!("byte {at}: {error}"))?;
        match part {
            Part::Header { store: of_store, segment: of_segment } => {
                if (of_store, of_segment) != (store, segment) {
                    return Err("it belongs to another segment".to_string());
                }
                started = true;
            }
            Part::Block if started => {
                while !rest.is_empty() {
                    let (entry, after) = postcard::take_from_bytes::<HintEntry<'_>>(rest)
                        .map_err(|error| format!("byte {at}: {error}"))?;
                    let end = u64::from(entry.offset) + u64::from(entry.length);
                    if end > u64::from(segment_bytes) {
                        return Err("it points past the end of its segment".to_string());
                    }
                    check_key(entry.key)?;
                    visit(&entry);
                    records += 1;
                    rest = after;
                }
            }
            Part::End { records: count, segment_bytes: of_bytes } if started => {
                if (count, of_bytes) != (records, segment_bytes) || at != bytes.len() {
                    return Err("it is not complete".to_string());
                }
                return Ok(records);
            }
            Part::Block | Part::End { .. } => return Err("it has no header".to_string()),
        }
    }
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
