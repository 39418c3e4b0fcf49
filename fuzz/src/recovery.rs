//! An open of any directory: the store or a typed error, no panic, no more than 64 MiB; a second
//! open and a reader agree with it; what opened takes a write. A store that was damaged without
//! forging a checksum shows the truth, or says what is damaged, or a state before what was cut.
//!
//! The first byte chooses: files given one after the other, or a plan of a store and of what is done
//! to its files.

use arbitrary::{Arbitrary, Unstructured};
use pakv::FileAccess;

use crate::bytes::reseal;
use crate::forge::{self, Answers, Files, Forged, Plan, STORE, State, open_in_all_ways};
use crate::format::hint::{HintEncoder, HintEntry, HintKind};
use crate::format::manifest::{ActiveSegment, Manifest, SealedSegment};
use crate::format::record::{Op, Record, encode_segment_start};
use crate::format::{FileKind, LOCK_NAME, MANIFEST_NAME, SegmentId, frame, salt};

/// A larger input is cut here: memory is promised for so much.
const INPUT_BYTES_MAX: usize = 1 << 20;
const FILES_MAX: usize = 24;

/// A directory: a store, and what became of it.
#[derive(Debug, Arbitrary)]
struct Spec {
    plan: Plan,
    positional: bool,
    lies: Vec<Lie>,
    edits: Vec<Edit>,
    /// Whether checksums are made right after the edits.
    reseal: bool,
}

/// A field of the manifest that says something else, under a right checksum.
#[derive(Debug, Clone, Arbitrary)]
enum Lie {
    NextSegment(u32),
    NextSeqno(u64),
    NoActive,
    Active { segment: u8, synced_bytes: u16 },
    Sealed { index: u8, segment: u8, bytes: u16, records: u8, min_seqno: u8, max_seqno: u8 },
    Records { index: u8, records: u32 },
    Bytes { index: u8, bytes: u32 },
    Unlisted { index: u8 },
}

/// Something done to a file; files are chosen by their place in the order of names.
#[derive(Debug, Clone, Arbitrary)]
enum Edit {
    Flip { file: u8, offset: u16, bit: u8 },
    Cut { file: u8, len: u16 },
    Zeros { file: u8, count: u16 },
    RemoveHint { file: u8 },
    Set { file: u8, offset: u16, value: u32 },
    Append { file: u8, bytes: Vec<u8> },
    Splice { file: u8, from: u8, at: u16, source: u16, len: u16 },
    Remove { file: u8 },
    Rename { file: u8, name: Name },
    Copy { file: u8, name: Name },
    Add { name: Name, content: Content },
}

#[derive(Debug, Clone, Arbitrary)]
enum Name {
    Log(u8),
    Hint(u8),
    Manifest,
    Lock,
    LogTmp(u8),
    HintTmp(u8),
    ManifestTmp,
    LastLog,
    Foreign(String),
}

#[derive(Debug, Clone, Arbitrary)]
enum Content {
    Bytes(Vec<u8>),
    /// Of the segment, whatever its file is called.
    Records {
        segment: u8,
        records: Vec<AnyRecord>,
    },
    Hint {
        segment: u8,
        entries: Vec<AnyEntry>,
        bytes: u16,
    },
}

#[derive(Debug, Clone, Arbitrary)]
struct AnyRecord {
    unsynced: u32,
    seqno: u64,
    batch_rest: u32,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    expires_at_ms: Option<u64>,
}

#[derive(Debug, Clone, Arbitrary)]
struct AnyEntry {
    offset: u16,
    length: u16,
    seqno: u64,
    tombstone: bool,
    expires_at_ms: Option<u64>,
    key: Vec<u8>,
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data[..data.len().min(INPUT_BYTES_MAX)].split_first() else { return };
    match mode % 4 {
        0 => check_any(&files(rest, false), FileAccess::Mapped),
        1 => check_any(&files(rest, true), FileAccess::Positional),
        _ => {
            if let Ok(spec) = Spec::arbitrary(&mut Unstructured::new(rest)) {
                check_spec(&spec);
            }
        }
    }
}

/// Files one after the other: a byte for the name, another for the number, the length in four, the
/// bytes.
fn files(mut bytes: &[u8], sealed: bool) -> Files {
    let mut files = Files::new();
    while let [kind, number, a, b, c, d, rest @ ..] = bytes {
        if files.len() == FILES_MAX {
            break;
        }
        let len = (u32::from_le_bytes([*a, *b, *c, *d]) as usize).min(rest.len());
        let mut file = rest[..len].to_vec();
        if sealed {
            reseal(&mut file);
        }
        let name = match kind % 8 {
            0 => Name::Log(*number),
            1 => Name::Hint(*number),
            2 => Name::Manifest,
            3 => Name::Lock,
            4 => Name::LogTmp(*number),
            5 => Name::HintTmp(*number),
            6 => Name::ManifestTmp,
            _ => Name::Foreign(format!("notes-{number}.txt")),
        };
        files.insert(name.text(), file);
        bytes = &rest[len..];
    }
    files
}

/// The same in the other direction, for seeds.
pub fn archive(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, file) in files {
        let number = name.get(..10).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        let kind = match name.rsplit('.').next() {
            Some("log") => 0,
            Some("hint") => 1,
            Some("MANIFEST") => 2,
            Some("LOCK") => 3,
            _ => 7,
        };
        bytes.extend([kind, number]);
        bytes.extend((file.len() as u32).to_le_bytes());
        bytes.extend(file);
    }
    bytes
}

impl Name {
    fn text(&self) -> String {
        let id = |number: &u8| SegmentId(u32::from(*number));
        match self {
            Name::Log(number) => id(number).log_name(),
            Name::Hint(number) => id(number).hint_name(),
            Name::Manifest => MANIFEST_NAME.to_string(),
            Name::Lock => LOCK_NAME.to_string(),
            Name::LogTmp(number) => format!("{}.tmp", id(number).log_name()),
            Name::HintTmp(number) => format!("{}.tmp", id(number).hint_name()),
            Name::ManifestTmp => format!("{MANIFEST_NAME}.tmp"),
            Name::LastLog => SegmentId(u32::MAX).log_name(),
            Name::Foreign(name) => format!("f{}", name.replace(['/', '\0'], "_")),
        }
    }
}

fn check_any(files: &Files, method: FileAccess) {
    // What is wrong with it, if anything, is asked by the function itself.
    let _ = open_in_all_ways(files, method);
}

fn check_spec(spec: &Spec) {
    let forged = spec.plan.forge();
    let mut files = forged.files.clone();
    if !spec.lies.is_empty() {
        let manifest = lied(&forged.manifest, &spec.lies);
        files.insert(MANIFEST_NAME.to_string(), manifest.encode().expect("it encodes"));
    }
    for edit in &spec.edits {
        edit.apply(&mut files);
    }
    if spec.reseal {
        files.values_mut().for_each(|file| reseal(file));
    }
    let method = if spec.positional { FileAccess::Positional } else { FileAccess::Mapped };
    let opened = open_in_all_ways(&files, method);
    if spec.reseal || !spec.lies.is_empty() || !are_accidents(&spec.edits) {
        return;
    }
    match opened {
        Ok(answers) => {
            check_truth(&answers, &forged);
            assert_eq!(forge::compacted(&files, method, !spec.edits.is_empty()), answers);
        }
        Err(reason) => assert!(!spec.edits.is_empty(), "nothing was done to it: {reason}"),
    }
}

/// Whether nobody could have forged a checksum: one flipped bit never makes one right, and neither
/// do cuts, zeros and hints that are gone.
fn are_accidents(edits: &[Edit]) -> bool {
    let flips = edits.iter().filter(|edit| matches!(edit, Edit::Flip { .. })).count();
    let others = |edit: &Edit| {
        use Edit::{Cut, Flip, RemoveHint, Zeros};
        matches!(edit, Flip { .. } | Cut { .. } | Zeros { .. } | RemoveHint { .. })
    };
    flips <= 1 && edits.iter().all(others)
}

/// Every key has its value or is damaged, in one of the states that whole batches have led to.
fn check_truth(answers: &Answers, forged: &Forged) {
    let shows = |state: &State| {
        answers.keys().eq(state.keys())
            && answers
                .iter()
                .zip(state)
                .all(|((_, found), (_, value))| found.as_ref().is_none_or(|found| found == value))
    };
    assert!(forged.states.iter().any(shows), "found {answers:?} of {:?}", forged.states);
}

fn lied(manifest: &Manifest, lies: &[Lie]) -> Manifest {
    let mut manifest = manifest.clone();
    for lie in lies {
        let count = manifest.sealed.len().max(1);
        let of = |index: &u8| usize::from(*index) % count;
        match lie {
            Lie::NextSegment(next) => manifest.next_segment = SegmentId(*next),
            Lie::NextSeqno(next) => manifest.next_seqno = *next,
            Lie::NoActive => manifest.active = None,
            Lie::Active { segment, synced_bytes } => {
                let segment = SegmentId(u32::from(*segment));
                let synced_bytes = u32::from(*synced_bytes);
                manifest.active = Some(ActiveSegment { segment, synced_bytes });
            }
            Lie::Sealed { index, segment, bytes, records, min_seqno, max_seqno } => {
                let sealed = SealedSegment {
                    segment: SegmentId(u32::from(*segment)),
                    bytes: u32::from(*bytes),
                    records: u32::from(*records),
                    min_seqno: u64::from(*min_seqno),
                    max_seqno: u64::from(*max_seqno),
                };
                match manifest.sealed.get_mut(usize::from(*index)) {
                    Some(slot) => *slot = sealed,
                    None => manifest.sealed.push(sealed),
                }
            }
            Lie::Records { index, records } => {
                if let Some(sealed) = manifest.sealed.get_mut(of(index)) {
                    sealed.records = *records;
                }
            }
            Lie::Bytes { index, bytes } => {
                if let Some(sealed) = manifest.sealed.get_mut(of(index)) {
                    sealed.bytes = *bytes;
                }
            }
            Lie::Unlisted { index } => {
                if !manifest.sealed.is_empty() {
                    manifest.sealed.remove(of(index));
                }
            }
        }
    }
    manifest
}

impl Edit {
    fn apply(&self, files: &mut Files) {
        let name_of = |files: &Files, file: &u8| {
            let place = usize::from(*file) % files.len().max(1);
            files.keys().nth(place).cloned()
        };
        let (Edit::Flip { file, .. }
        | Edit::Cut { file, .. }
        | Edit::Zeros { file, .. }
        | Edit::RemoveHint { file }
        | Edit::Set { file, .. }
        | Edit::Append { file, .. }
        | Edit::Splice { file, .. }
        | Edit::Remove { file }
        | Edit::Rename { file, .. }
        | Edit::Copy { file, .. }) = self
        else {
            if let (Edit::Add { name, content }, true) = (self, files.len() < FILES_MAX) {
                files.insert(name.text(), content.bytes());
            }
            return;
        };
        let Some(name) = name_of(files, file) else { return };
        let other = match self {
            Edit::Splice { from, .. } => {
                name_of(files, from).and_then(|from| files.get(&from).cloned())
            }
            _ => None,
        };
        let Some(bytes) = files.get_mut(&name) else { return };
        let at = |offset: &u16| usize::from(*offset) % bytes.len().max(1);
        match self {
            Edit::Flip { offset, bit, .. } => {
                let at = at(offset);
                bytes.get_mut(at).into_iter().for_each(|byte| *byte ^= 1 << (bit % 8));
            }
            Edit::Cut { len, .. } => {
                let at = at(len);
                bytes.truncate(at);
            }
            Edit::Zeros { count, .. } => bytes.resize(bytes.len() + usize::from(*count), 0),
            Edit::RemoveHint { .. } if name.ends_with(".hint") => drop(files.remove(&name)),
            Edit::Set { offset, value, .. } => {
                let at = at(offset);
                let value = value.to_le_bytes();
                bytes.iter_mut().skip(at).zip(value).for_each(|(byte, new)| *byte = new);
            }
            Edit::Append { bytes: more, .. } => bytes.extend(more),
            Edit::Splice { at: to, source, len, .. } => {
                let other = other.unwrap_or_default();
                let start = usize::from(*source) % other.len().max(1);
                let end = (start + usize::from(*len)).min(other.len());
                let at = at(to);
                bytes.splice(at..at, other[start..end].iter().copied());
            }
            Edit::Remove { .. } => drop(files.remove(&name)),
            Edit::Rename { name: new, .. } => {
                let bytes = files.remove(&name).unwrap_or_default();
                files.insert(new.text(), bytes);
            }
            Edit::Copy { name: new, .. } if files.len() < FILES_MAX => {
                let bytes = files.get(&name).cloned().unwrap_or_default();
                files.insert(new.text(), bytes);
            }
            Edit::RemoveHint { .. } | Edit::Copy { .. } | Edit::Add { .. } => {}
        }
    }
}

impl Content {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Content::Bytes(bytes) => bytes.clone(),
            Content::Records { segment, records } => {
                let id = SegmentId(u32::from(*segment));
                let salt = salt(STORE, FileKind::Log, id);
                let mut bytes = encode_segment_start(STORE, id, salt).expect("it encodes");
                for record in records {
                    let AnyRecord { unsynced, seqno, batch_rest, key, value, expires_at_ms } =
                        record;
                    let op = match value {
                        Some(value) => Op::Set { expires_at_ms: *expires_at_ms, key, value },
                        None => Op::Tombstone { key },
                    };
                    let record =
                        Record { unsynced: *unsynced, seqno: *seqno, batch_rest: *batch_rest, op };
                    let offset = bytes.len();
                    record.append_unsealed(&mut bytes).expect("it encodes");
                    frame::seal(&mut bytes[offset..], salt, offset as u32);
                }
                bytes
            }
            Content::Hint { segment, entries, bytes } => {
                let id = SegmentId(u32::from(*segment));
                let mut encoder = HintEncoder::new(STORE, id).expect("it encodes");
                for entry in entries {
                    let kind = match entry.tombstone {
                        true => HintKind::Tombstone,
                        false => HintKind::set(entry.expires_at_ms),
                    };
                    let (offset, length) = (u32::from(entry.offset), u32::from(entry.length));
                    let (seqno, key) = (entry.seqno, &entry.key[..]);
                    let entry = HintEntry { offset, length, seqno, kind, key };
                    encoder.push(&entry).expect("it encodes");
                }
                encoder.finish(u32::from(*bytes)).expect("it encodes");
                encoder.take().1
            }
        }
    }
}
