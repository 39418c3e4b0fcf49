//! Files of a store written by somebody else than the engine: every checksum is right, and what
//! they say is whatever a test wants. Made from `docs/format.md` alone, so it also holds the page
//! against the engine.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::files;

const PREAMBLE_BYTES: usize = 16;
const FRAME_HEADER_BYTES: usize = 8;

/// What tells one store from another.
pub type StoreId = [u8; 16];

/// Which file a preamble opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A segment.
    Log,
    /// The hint of one.
    Hint,
    /// The manifest.
    Manifest,
}

impl Kind {
    fn magic(self) -> &'static [u8; 8] {
        match self {
            Kind::Log => b"pakv-log",
            Kind::Hint => b"pakv-hnt",
            Kind::Manifest => b"pakv-man",
        }
    }
}

/// The content of the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct Manifest {
    pub store: StoreId,
    pub next_segment: u32,
    pub next_seqno: u64,
    pub sealed: Vec<Sealed>,
    pub active: Option<Active>,
}

/// A sealed segment in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct Sealed {
    pub segment: u32,
    pub bytes: u32,
    pub records: u32,
    pub min_seqno: u64,
    pub max_seqno: u64,
}

/// The active segment in the manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct Active {
    pub segment: u32,
    pub synced_bytes: u32,
}

impl Manifest {
    /// That of a store.
    pub fn of(dir: &Path) -> Self {
        let bytes = files::read(&dir.join("MANIFEST"));
        decode(&bytes[PREAMBLE_BYTES + FRAME_HEADER_BYTES..]).0
    }

    /// Puts it in the place of a store's own.
    pub fn put(&self, dir: &Path) {
        let bytes = file(Kind::Manifest, self.store, 0, [encode(self)]);
        files::write(&dir.join("MANIFEST"), bytes);
    }
}

/// A hint, whole.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct Hint {
    pub store: StoreId,
    pub segment: u32,
    pub entries: Vec<HintEntry>,
    pub records: u32,
    pub segment_bytes: u32,
}

/// One record in a hint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct HintEntry {
    pub offset: u32,
    pub length: u32,
    pub seqno: u64,
    pub kind: HintKind,
    pub key: Vec<u8>,
}

/// What a record in a hint does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub enum HintKind {
    Set,
    SetExpiring { at_ms: u64 },
    Tombstone,
}

#[derive(Debug, Serialize, Deserialize)]
enum Part {
    Header { store: StoreId, segment: u32 },
    Block,
    End { records: u32, segment_bytes: u32 },
    Packed { offset: u32 },
}

/// One record in a packed block, by its difference from the one before.
#[derive(Debug, Serialize, Deserialize)]
struct PackedEntry {
    shape: u64,
    seqno_step: i64,
    key: Vec<u8>,
}

impl Hint {
    /// That of a segment.
    pub fn of(dir: &Path, segment: u32) -> Self {
        let bytes = files::read(&hint_path(dir, segment));
        let mut hint =
            Hint { store: [0; 16], segment, entries: Vec::new(), records: 0, segment_bytes: 0 };
        for body in bodies(&bytes) {
            let (part, mut rest) = decode::<Part>(body);
            match part {
                Part::Header { store, .. } => hint.store = store,
                Part::Block => {
                    while !rest.is_empty() {
                        let (entry, after) = decode(rest);
                        hint.entries.push(entry);
                        rest = after;
                    }
                }
                Part::Packed { offset } => hint.entries.extend(unpack(offset, rest)),
                Part::End { records, segment_bytes } => {
                    (hint.records, hint.segment_bytes) = (records, segment_bytes);
                }
            }
        }
        hint
    }

    /// Puts it in the place of the segment's own: packed, or, where its entries say what cannot be
    /// packed, whole.
    pub fn put(&self, dir: &Path) {
        let header = Part::Header { store: self.store, segment: self.segment };
        let end = Part::End { records: self.records, segment_bytes: self.segment_bytes };
        let block = pack(&self.entries).unwrap_or_else(|| {
            let mut block = encode(&Part::Block);
            block.extend(self.entries.iter().flat_map(encode));
            block
        });
        let bodies = [encode(&header), block, encode(&end)];
        let bytes = file(Kind::Hint, self.store, self.segment, bodies);
        files::write(&hint_path(dir, self.segment), bytes);
    }
}

/// A packed block of these entries, if they stand one behind the other.
fn pack(entries: &[HintEntry]) -> Option<Vec<u8>> {
    let first = entries.first()?.offset;
    let mut block = encode(&Part::Packed { offset: first });
    let (mut offset, mut length, mut seqno) = (first, 0, 0);
    for entry in entries {
        if entry.offset != offset {
            return None;
        }
        let step = i64::from(entry.length) - length;
        let zigzag = if step < 0 { -step * 2 - 1 } else { step * 2 };
        let (kind, at_ms) = match entry.kind {
            HintKind::Set => (0, None),
            HintKind::SetExpiring { at_ms } => (1, Some(at_ms)),
            HintKind::Tombstone => (2, None),
        };
        block.extend(encode(&PackedEntry {
            shape: u64::try_from(zigzag).ok()? * 4 + kind,
            seqno_step: entry.seqno.wrapping_sub(seqno).cast_signed(),
            key: entry.key.clone(),
        }));
        block.extend(at_ms.iter().flat_map(encode));
        (length, seqno) = (i64::from(entry.length), entry.seqno);
        offset = offset.checked_add(entry.length)?;
    }
    Some(block)
}

/// The entries of a packed block whose first record stands at `offset`.
fn unpack(mut offset: u32, mut rest: &[u8]) -> Vec<HintEntry> {
    let mut entries = Vec::new();
    let (mut length, mut seqno) = (0_i64, 0_u64);
    while !rest.is_empty() {
        let (PackedEntry { shape, seqno_step, key }, after) = decode(rest);
        rest = after;
        let kind = match shape % 4 {
            0 => HintKind::Set,
            1 => {
                let (at_ms, after) = decode(rest);
                rest = after;
                HintKind::SetExpiring { at_ms }
            }
            _ => HintKind::Tombstone,
        };
        let zigzag = i64::try_from(shape / 4).expect("a difference of two lengths");
        length += if zigzag % 2 == 0 { zigzag / 2 } else { -(zigzag / 2) - 1 };
        seqno = seqno.wrapping_add_signed(seqno_step);
        let length = u32::try_from(length).expect("the engine wrote a length");
        entries.push(HintEntry { offset, length, seqno, kind, key });
        offset += length;
    }
    entries
}

/// A record of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub struct Record {
    pub unsynced: u32,
    pub seqno: u64,
    pub batch_rest: u32,
    pub op: Op,
}

/// What a record does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "docs/format.md has the fields")]
pub enum Op {
    Set { expires_at_ms: Option<u64>, key: Vec<u8>, value: Vec<u8> },
    Tombstone { key: Vec<u8> },
}

#[derive(Debug, Serialize, Deserialize)]
struct SegmentHeader {
    store: StoreId,
    segment: u32,
}

/// Appends records to a segment. What the manifest says of it stays as it is.
pub fn append_records(dir: &Path, segment: u32, records: &[Record]) {
    let mut bytes = files::read(&log_path(dir, segment));
    let salt = salt_of(&bytes);
    for record in records {
        push_frame(&mut bytes, salt, &encode(record));
    }
    files::write(&log_path(dir, segment), bytes);
}

/// The records of a segment.
pub fn records(dir: &Path, segment: u32) -> Vec<Record> {
    let bytes = files::read(&log_path(dir, segment));
    bodies(&bytes).into_iter().skip(1).map(|body| decode(body).0).collect()
}

/// The bytes of a segment.
pub fn segment(store: StoreId, segment: u32, records: &[Record]) -> Vec<u8> {
    let header = encode(&SegmentHeader { store, segment });
    let records = records.iter().map(encode);
    file(Kind::Log, store, segment, std::iter::once(header).chain(records))
}

/// A file of preamble and frames.
pub fn file(
    kind: Kind,
    store: StoreId,
    segment: u32,
    bodies: impl IntoIterator<Item = Vec<u8>>,
) -> Vec<u8> {
    let mut crc = crc32c::crc32c(&store);
    crc = crc32c::crc32c_append(crc, kind.magic());
    let salt = crc32c::crc32c_append(crc, &segment.to_le_bytes());
    let mut bytes = kind.magic().to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(salt.to_le_bytes());
    for body in bodies {
        push_frame(&mut bytes, salt, &body);
    }
    bytes
}

/// Makes the checksum of every frame right again, as far as the lengths lead.
pub fn reseal(bytes: &mut [u8]) {
    if bytes.len() < PREAMBLE_BYTES {
        return;
    }
    let salt = salt_of(bytes);
    let mut at = PREAMBLE_BYTES;
    while let Some(length) = body_len(bytes, at) {
        let end = at + FRAME_HEADER_BYTES + length;
        if end > bytes.len() {
            return;
        }
        let crc = checksum(salt, at, &bytes[at + 4..end]);
        bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
}

/// The path of a segment.
pub fn log_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:010}.log"))
}

/// The path of a hint.
pub fn hint_path(dir: &Path, segment: u32) -> PathBuf {
    dir.join(format!("{segment:010}.hint"))
}

fn push_frame(bytes: &mut Vec<u8>, salt: u32, body: &[u8]) {
    let at = bytes.len();
    let length = u32::try_from(body.len()).expect("a frame has a length of 32 bits");
    let mut checked = length.to_le_bytes().to_vec();
    checked.extend_from_slice(body);
    bytes.extend(checksum(salt, at, &checked).to_le_bytes());
    bytes.extend(checked);
}

fn checksum(salt: u32, at: usize, checked: &[u8]) -> u32 {
    let offset = u32::try_from(at).expect("a file of a store ends below 4 GiB");
    crc32c::crc32c_append(salt.wrapping_add(offset), checked)
}

fn salt_of(bytes: &[u8]) -> u32 {
    u32::from_le_bytes(bytes[12..PREAMBLE_BYTES].try_into().expect("four bytes"))
}

fn body_len(bytes: &[u8], at: usize) -> Option<usize> {
    let field = bytes.get(at + 4..at + FRAME_HEADER_BYTES)?;
    usize::try_from(u32::from_le_bytes(field.try_into().ok()?)).ok()
}

fn bodies(bytes: &[u8]) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    let mut at = PREAMBLE_BYTES;
    while let Some(length) = body_len(bytes, at) {
        let start = at + FRAME_HEADER_BYTES;
        bodies.push(&bytes[start..start + length]);
        at = start + length;
    }
    bodies
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, Vec::new()).expect("what a test forges can be encoded")
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> (T, &[u8]) {
    postcard::take_from_bytes(bytes).expect("the engine wrote what the page says")
}
