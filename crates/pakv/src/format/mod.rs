//! Bytes to structs and back: the on-disk format's one home, specified in `docs/format.md`. Pure:
//! no I/O, no clock, no threads. What is structured is a serde type in postcard's wire format; only
//! the frame around it and the preamble of a file are laid out by hand, little-endian.
//!
//! A length read from a file is compared with the bytes that are there before anything is allocated
//! or sliced.

pub(crate) mod frame;
pub(crate) mod hint;
pub(crate) mod manifest;
pub(crate) mod record;

use std::fmt;

use serde::{Deserialize, Serialize};

/// The format that this build writes, and the only one that it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Magic (8), format version (4), salt (4).
pub(crate) const PREAMBLE_BYTES: usize = 16;

pub(crate) const LOCK_NAME: &str = "LOCK";
pub(crate) const MANIFEST_NAME: &str = "MANIFEST";
/// Says that a first backup into the directory has not come to its manifest.
pub(crate) const BACKUP_UNFINISHED_NAME: &str = "BACKUP-UNFINISHED";
/// What a file is called until it is complete and renamed.
pub(crate) const TEMPORARY_SUFFIX: &str = ".tmp";

/// The place of a record in the order of all writes. Starts at 1; 0 is before everything.
pub(crate) type SeqNo = u64;

/// No store gets this far (a million writes a second for thirty years); a file that claims to is
/// refused, so that no sum overflows and the keydir's fifty bits are enough.
pub(crate) const SEQNO_MAX: SeqNo = (1 << 50) - 1;
/// The same for the numbers of segments.
pub(crate) const SEGMENT_ID_MAX: SegmentId = SegmentId(u32::MAX - (1 << 20));

/// The number of a segment: its name in the directory, and nothing else. It says nothing of age or
/// order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct SegmentId(pub(crate) u32);

impl SegmentId {
    pub(crate) fn log_name(self) -> String {
        format!("{self}.log")
    }

    pub(crate) fn hint_name(self) -> String {
        format!("{self}.hint")
    }
}

impl fmt::Display for SegmentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:010}", self.0)
    }
}

/// Where a record stands: segment, offset of its frame, length of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) segment: SegmentId,
    pub(crate) offset: u32,
    pub(crate) length: u32,
}

/// The smallest and largest sequence number among the records of a segment, as they go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeqNoRange {
    pub(crate) min: SeqNo,
    pub(crate) max: SeqNo,
}

impl SeqNoRange {
    /// The range of no record: any record makes it its own.
    pub(crate) const EMPTY: Self = Self { min: SeqNo::MAX, max: 0 };

    pub(crate) fn add(&mut self, seqno: SeqNo) {
        self.min = self.min.min(seqno);
        self.max = self.max.max(seqno);
    }

    pub(crate) fn add_all(&mut self, other: Self) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

/// A file of the store's own naming, other than the manifest and the lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnFile {
    Log(SegmentId),
    Hint(SegmentId),
    Temporary,
}

/// What a name in the directory means; `None` for names that are nobody's business.
pub(crate) fn own_file(name: &str) -> Option<OwnFile> {
    if let Some(final_name) = name.strip_suffix(TEMPORARY_SUFFIX) {
        let ours = final_name == MANIFEST_NAME || own_file(final_name).is_some();
        return ours.then_some(OwnFile::Temporary);
    }
    let (number, kind) = name.split_once('.')?;
    if number.len() != 10 || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let id = SegmentId(number.parse().ok()?);
    match kind {
        "log" => Some(OwnFile::Log(id)),
        "hint" => Some(OwnFile::Hint(id)),
        _ => None,
    }
}

/// The identity of a store, drawn at random when it is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoreId(pub(crate) [u8; 16]);

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Which kind of file a preamble opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Log,
    Hint,
    Manifest,
}

impl FileKind {
    pub(crate) fn magic(self) -> [u8; 8] {
        match self {
            FileKind::Log => *b"pakv-log",
            FileKind::Hint => *b"pakv-hnt",
            FileKind::Manifest => *b"pakv-man",
        }
    }
}

/// Why the start of a file was refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadPreamble {
    TooShort,
    WrongMagic,
    UnknownVersion(u32),
}

impl fmt::Display for BadPreamble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadPreamble::TooShort => write!(f, "it is too short to be a file of a store"),
            BadPreamble::WrongMagic => write!(f, "it does not start as such a file does"),
            BadPreamble::UnknownVersion(version) => write!(f, "unknown format version {version}"),
        }
    }
}

/// The first bytes of every file. The salt goes into every checksum of the file, so that a frame of
/// another file, or one that a user stored as a value, is never taken for one of this file's.
pub(crate) fn encode_preamble(kind: FileKind, salt: u32) -> [u8; PREAMBLE_BYTES] {
    let mut bytes = [0; PREAMBLE_BYTES];
    let (magic, rest) = bytes.split_at_mut(8);
    let (version, salt_bytes) = rest.split_at_mut(4);
    magic.copy_from_slice(&kind.magic());
    version.copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    salt_bytes.copy_from_slice(&salt.to_le_bytes());
    bytes
}

/// Checks the first bytes of a file and returns its salt.
pub(crate) fn decode_preamble(kind: FileKind, bytes: &[u8]) -> Result<u32, BadPreamble> {
    let preamble: &[u8; PREAMBLE_BYTES] = bytes.first_chunk().ok_or(BadPreamble::TooShort)?;
    let [m0, m1, m2, m3, m4, m5, m6, m7, v0, v1, v2, v3, s0, s1, s2, s3] = *preamble;
    if [m0, m1, m2, m3, m4, m5, m6, m7] != kind.magic() {
        return Err(BadPreamble::WrongMagic);
    }
    match u32::from_le_bytes([v0, v1, v2, v3]) {
        FORMAT_VERSION => Ok(u32::from_le_bytes([s0, s1, s2, s3])),
        version => Err(BadPreamble::UnknownVersion(version)),
    }
}

/// The format version that the first bytes of a file give, whatever else they are.
pub(crate) fn preamble_version(bytes: &[u8]) -> Option<u32> {
    let version = bytes.get(8..12)?.first_chunk()?;
    Some(u32::from_le_bytes(*version))
}

/// The salt that the first bytes of a file give, whatever else they are.
pub(crate) fn preamble_salt(bytes: &[u8]) -> Option<u32> {
    let preamble: &[u8; PREAMBLE_BYTES] = bytes.first_chunk()?;
    preamble.last_chunk().map(|salt| u32::from_le_bytes(*salt))
}

/// The salt of one file of one store: told by nothing that a user stores.
pub(crate) fn salt(store: StoreId, kind: FileKind, segment: SegmentId) -> u32 {
    let mut crc = crc32c::crc32c(&store.0);
    crc = crc32c::crc32c_append(crc, &kind.magic());
    crc32c::crc32c_append(crc, &segment.0.to_le_bytes())
}

/// A key on the disk is never longer than this, nor empty.
pub(crate) const KEY_BYTES_MAX: usize = 64 * 1024;

/// A right checksum does not prove that a key is one that a caller could ask for.
fn check_key(key: &[u8]) -> Result<(), String> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        len => Err(format!("a key has {len} bytes")),
    }
}

/// Preamble and first frame of a file.
fn encode_file_start<T: Serialize>(
    kind: FileKind,
    salt: u32,
    first: &T,
) -> postcard::Result<Vec<u8>> {
    let mut bytes = encode_preamble(kind, salt).to_vec();
    frame::append(&mut bytes, salt, PREAMBLE_BYTES as u32, |buffer| encode_into(first, buffer))?;
    Ok(bytes)
}

/// Appends the postcard form of `value` to `buffer`. Our types contain nothing that postcard cannot
/// encode, and a `Vec` takes any length, so an error here could only be a bug; it is passed on all
/// the same.
pub(crate) fn encode_into<T: Serialize>(value: &T, buffer: &mut Vec<u8>) -> postcard::Result<()> {
    postcard::serialize_with_flavor(value, Append(buffer))
}

/// Postcard's way to write to the end of a `Vec` that already holds something.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Decodes a value that must fill `bytes` to the end.
pub(crate) fn decode_exact<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, String> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} bytes too many", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// `serialize_with` for byte strings: serde would write a slice element by element.
fn as_bytes<S: serde::Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_recognised_exactly() {
        assert_eq!(own_file("0000000007.log"), Some(OwnFile::Log(SegmentId(7))));
        assert_eq!(own_file("4294967295.hint"), Some(OwnFile::Hint(SegmentId(u32::MAX))));
        assert_eq!(own_file("0000000007.hint.tmp"), Some(OwnFile::Temporary));
        assert_eq!(own_file("MANIFEST.tmp"), Some(OwnFile::Temporary));
        let foreign = [
            "7.log",
            "00000000007.log",
            "+000000007.log",
            "9999999999.log",
            "notes.tmp",
            "LOCK",
            "a",
        ];
        for name in foreign {
            assert_eq!(own_file(name), None, "{name} is not a store's file");
        }
    }

    #[test]
    fn a_preamble_is_checked_from_the_first_byte_to_the_last() {
        let bytes = encode_preamble(FileKind::Log, 0xdead_beef);
        assert_eq!(decode_preamble(FileKind::Log, &bytes), Ok(0xdead_beef));
        assert_eq!(decode_preamble(FileKind::Hint, &bytes), Err(BadPreamble::WrongMagic));
        assert_eq!(decode_preamble(FileKind::Log, &bytes[..15]), Err(BadPreamble::TooShort));
        let mut newer = bytes;
        newer[8] = 2;
        assert_eq!(decode_preamble(FileKind::Log, &newer), Err(BadPreamble::UnknownVersion(2)));
    }
}
