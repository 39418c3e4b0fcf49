//! Stores made without the engine: from a plan, with the format's own encoders, so that every
//! checksum is right and every number is known. And how such a store, or any files, are opened in
//! all ways there are and what must hold whatever they are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use pakv::storage::Storage;
use pakv::{Clock, Db, Error, FileAccess, ManualClock, Options};
use pakv_testkit::sim::SimStorage;

use crate::format::hint::{HintEncoder, HintEntry, HintKind};
use crate::format::manifest::{ActiveSegment, Manifest, SealedSegment};
use crate::format::record::{Op, Record, encode_segment_start};
use crate::format::{FileKind, MANIFEST_NAME, SegmentId, SeqNoRange, StoreId, frame, salt};
use crate::memory::peak;

/// What the clock of every store here shows.
const NOW_MS: u64 = 1_000_000;
pub(crate) const STORE: StoreId = StoreId([7; 16]);
/// What opening at most 1 MiB may take.
const OPEN_BYTES_MAX: usize = 64 << 20;

/// Files by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;
/// What a store shows: values by key.
pub(crate) type State = BTreeMap<Vec<u8>, Vec<u8>>;
/// The same where values may be damaged: `None`.
pub(crate) type Answers = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// A record, but for its place.
#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) struct RecordPlan {
    pub(crate) key: u8,
    /// The length of the value; `None`: a tombstone.
    pub(crate) value: Option<u8>,
    pub(crate) expires: Expires,
    /// Whether the next record is of the same batch.
    pub(crate) batched: bool,
    /// Whether the segment was synced after it.
    pub(crate) synced: bool,
}

#[derive(Debug, Clone, Copy, Arbitrary)]
pub(crate) enum Expires {
    Never,
    Never2,
    Past,
    Future,
}

impl Expires {
    fn at_ms(self) -> Option<u64> {
        match self {
            Expires::Never | Expires::Never2 => None,
            Expires::Past => Some(NOW_MS),
            Expires::Future => Some(NOW_MS + 1),
        }
    }
}

/// A store, but for its bytes.
#[derive(Debug, Clone, Arbitrary)]
pub(crate) struct Plan {
    pub(crate) sealed: Vec<Vec<RecordPlan>>,
    pub(crate) active: Vec<RecordPlan>,
    /// How many records at the end of the last batch never arrived.
    pub(crate) lost: u8,
    /// Whether the manifest knows that the active segment is durable.
    pub(crate) closed: bool,
    /// Whether later segments have smaller numbers.
    pub(crate) backwards: bool,
    /// Numbers between that of one segment and the next.
    pub(crate) gap: u8,
}

/// A store that was made, and what it holds.
pub(crate) struct Forged {
    pub(crate) files: Files,
    pub(crate) manifest: Manifest,
    /// What the store shows after each batch of the active segment, the one before the first
    /// included.
    pub(crate) states: Vec<State>,
    /// Every value that a key ever had.
    pub(crate) ever: BTreeSet<(Vec<u8>, Vec<u8>)>,
}

const SEGMENTS_MAX: usize = 5;
const RECORDS_MAX: usize = 40;

impl Plan {
    pub(crate) fn forge(&self) -> Forged {
        let mut forge = Forge { seqno: 0, state: State::new(), ever: BTreeSet::new() };
        let mut files = Files::new();
        let count = self.sealed.len().min(SEGMENTS_MAX);
        let id_of = |index: usize| {
            let place = if self.backwards { count - index } else { index };
            SegmentId(1 + place as u32 * (1 + u32::from(self.gap)))
        };
        let mut sealed = Vec::new();
        for (index, records) in self.sealed.iter().take(SEGMENTS_MAX).enumerate() {
            let id = id_of(index);
            let segment = forge.segment(id, records, 0);
            files.insert(id.hint_name(), segment.hint());
            sealed.push(SealedSegment {
                segment: id,
                bytes: segment.bytes.len() as u32,
                records: segment.entries.len() as u32,
                min_seqno: segment.seqnos.min,
                max_seqno: segment.seqnos.max,
            });
            files.insert(id.log_name(), segment.bytes);
        }
        let first = forge.state.clone();
        let active_id = id_of(count);
        let active = forge.segment(active_id, &self.active, usize::from(self.lost));
        let synced_bytes = if self.closed { active.whole_bytes } else { active.first_record };
        files.insert(active_id.log_name(), active.bytes);
        let manifest = Manifest {
            store: STORE,
            next_segment: SegmentId(2 + count as u32 * (1 + u32::from(self.gap))),
            next_seqno: forge.seqno + 1,
            sealed,
            active: Some(ActiveSegment { segment: active_id, synced_bytes }),
        };
        files.insert(MANIFEST_NAME.to_string(), manifest.encode().expect("it encodes"));
        let states = std::iter::once(first).chain(active.states).collect();
        Forged { files, manifest, states, ever: forge.ever }
    }
}

struct Forge {
    seqno: u64,
    state: State,
    ever: BTreeSet<(Vec<u8>, Vec<u8>)>,
}

struct SegmentMade {
    id: SegmentId,
    bytes: Vec<u8>,
    entries: Vec<(u32, u32, u64, HintKind, Vec<u8>)>,
    seqnos: SeqNoRange,
    /// After each batch.
    states: Vec<State>,
    first_record: u32,
    /// Where the last whole batch ends.
    whole_bytes: u32,
}

impl Forge {
    fn segment(&mut self, id: SegmentId, plans: &[RecordPlan], lost: usize) -> SegmentMade {
        let salt = salt(STORE, FileKind::Log, id);
        let bytes = encode_segment_start(STORE, id, salt).expect("it encodes");
        let first_record = bytes.len() as u32;
        let mut made = SegmentMade {
            id,
            bytes,
            entries: Vec::new(),
            seqnos: SeqNoRange::EMPTY,
            states: Vec::new(),
            first_record,
            whole_bytes: first_record,
        };
        let plans = &plans[..plans.len().min(RECORDS_MAX)];
        let mut synced = first_record;
        let batches: Vec<_> = plans.chunk_by(|plan, _| plan.batched).collect();
        for (index, batch) in batches.iter().enumerate() {
            let arrived = if index + 1 == batches.len() {
                batch.len().saturating_sub(lost)
            } else {
                batch.len()
            };
            for (plan, batch_rest) in batch.iter().zip((0..batch.len() as u32).rev()).take(arrived)
            {
                self.seqno += 1;
                let offset = made.bytes.len() as u32;
                let (key, value) = (key(plan.key), plan.value.map(|len| value(self.seqno, len)));
                let expires_at_ms = plan.expires.at_ms();
                let (op, kind) = match &value {
                    Some(value) => {
                        (Op::Set { expires_at_ms, key: &key, value }, HintKind::set(expires_at_ms))
                    }
                    None => (Op::Tombstone { key: &key }, HintKind::Tombstone),
                };
                let record =
                    Record { unsynced: offset - synced, seqno: self.seqno, batch_rest, op };
                let length = record.append_unsealed(&mut made.bytes).expect("it encodes");
                frame::seal(&mut made.bytes[offset as usize..], salt, offset);
                made.seqnos.add(self.seqno);
                made.entries.push((offset, length, self.seqno, kind, key.clone()));
                if let Some(value) = &value {
                    self.ever.insert((key.clone(), value.clone()));
                }
                if arrived < batch.len() {
                    continue;
                }
                match value.filter(|_| expires_at_ms.is_none_or(|at| NOW_MS < at)) {
                    Some(value) => self.state.insert(key, value),
                    None => self.state.remove(&key),
                };
            }
            if arrived == batch.len() {
                made.whole_bytes = made.bytes.len() as u32;
                made.states.push(self.state.clone());
                if batch.last().is_some_and(|last| last.synced) {
                    synced = made.whole_bytes;
                }
            }
        }
        made
    }
}

impl SegmentMade {
    fn hint(&self) -> Vec<u8> {
        let mut encoder = HintEncoder::new(STORE, self.id).expect("it encodes");
        for (offset, length, seqno, kind, key) in &self.entries {
            let (offset, length, seqno, kind) = (*offset, *length, *seqno, *kind);
            encoder.push(&HintEntry { offset, length, seqno, kind, key }).expect("it encodes");
        }
        encoder.finish(self.bytes.len() as u32).expect("it encodes");
        encoder.take().1
    }
}

fn key(number: u8) -> Vec<u8> {
    format!("k{}", number % 8).into_bytes()
}

fn value(seqno: u64, len: u8) -> Vec<u8> {
    let mut value = format!("{seqno}.").into_bytes();
    value.resize(value.len() + usize::from(len), b'v');
    value
}

/// A machine with these files on its disk, and nothing else.
pub(crate) fn machine(files: &Files) -> SimStorage {
    let machine = SimStorage::new(0);
    machine.create_dir().expect("there is no fault");
    for (name, bytes) in files {
        let file = machine.create(name).expect("names differ");
        let written = file.write_at(bytes, 0).expect("there is room");
        assert_eq!(written, bytes.len());
        file.sync().expect("there is no fault");
    }
    machine.sync_dir().expect("there is no fault");
    machine
}

fn options(method: FileAccess) -> Options {
    Options::new()
        .background_compaction(false)
        .segment_bytes(512)
        .compaction_min_garbage(1)
        .file_access(method)
        .lock_wait(Duration::ZERO)
        .clock(Arc::new(ManualClock::new(NOW_MS)) as Arc<dyn Clock>)
}

fn open(machine: &SimStorage, options: Options) -> Result<Db, Error> {
    let (result, allocated) = peak(|| options.open_storage(Arc::new(machine.clone())));
    assert!(allocated <= OPEN_BYTES_MAX, "an open takes {allocated} bytes");
    result.inspect_err(|error| {
        let typed = matches!(
            error,
            Error::Corrupt { .. }
                | Error::UnknownFormat { .. }
                | Error::ManifestMissing { .. }
                | Error::NoStore { .. }
        );
        assert!(typed, "damage, on a disk that does what it is asked: {error}");
    })
}

/// Everything that a store shows, asked for in two ways.
pub(crate) fn answers(db: &Db) -> Answers {
    let mut answers = Answers::new();
    for entry in db.scan().expect("a scan begins") {
        let key = entry.key().to_vec();
        let found = match db.get(&key) {
            Ok(value) => Some(value.expect("what a scan shows, get has")),
            Err(error) => {
                assert!(error.is_corruption(), "damage was reported as: {error}");
                None
            }
        };
        assert_eq!(entry.value().ok(), found, "get and scan agree");
        assert_eq!(answers.insert(key, found), None, "a scan shows a key once");
    }
    assert_eq!(db.len().ok(), Some(answers.len() as u64));
    answers
}

/// Opens the files for reading only, for writing, and again: whatever they are, all three say the
/// same, in the store's own words. Gives what the store shows, or what is wrong with it.
pub(crate) fn open_in_all_ways(files: &Files, method: FileAccess) -> Result<Answers, String> {
    let found = machine(files);
    let reading = found.copy(1);
    let read = open(&reading, options(method).read_only(true)).map(|db| answers(&db));
    let written = reading.log().into_iter().find(|call| call.kind.is_write());
    assert!(written.is_none(), "a store open for reading only was written to: {written:?}");

    let writing = found.copy(2);
    let first = open(&writing, options(method));
    let second = match &first {
        Err(error) => {
            let again = open(&writing, options(method)).err().map(|error| error.to_string());
            assert_eq!(again, Some(error.to_string()), "a second open fails like the first");
            match read {
                // A store whose numbers are used up is refused to writers, and to them first.
                _ if are_numbers_used_up(error) => {}
                Ok(_) => panic!("it opens for reading only, and for writing it says: {error}"),
                Err(read) => assert_eq!(read.to_string(), error.to_string()),
            }
            return Err(error.to_string());
        }
        Ok(db) => {
            let answers = answers(db);
            match read {
                Ok(read) => assert_eq!(read, answers, "as a reader and as a writer sees it"),
                Err(error) => {
                    assert!(db.recovery().created, "for reading only it says: {error}");
                }
            }
            answers
        }
    };
    assert!(first.map(Db::close).is_ok_and(|closed| closed.is_ok()), "it closes");
    check_goes_on(&writing, method, &second);
    Ok(second)
}

/// A store that was open once opens again with nothing left to mend, shows the same, and takes a
/// write; or that took the last numbers there are.
fn check_goes_on(machine: &SimStorage, method: FileAccess, expected: &Answers) {
    let Some(db) = open_again(machine, method) else { return };
    let report = db.recovery();
    let mended = (report.bytes_cut, report.orphans_removed, report.hints_rebuilt, report.created);
    assert_eq!(mended, (0, 0, 0, false), "a second open has nothing to mend");
    assert_eq!(answers(&db), *expected, "a second open shows the same");
    db.set("new", "written").expect("a store that opens takes a write");
    db.close().expect("it closes");
    let Some(db) = open_again(machine, method) else { return };
    assert_eq!(db.get("new").ok().flatten().as_deref(), Some(&b"written"[..]));
    assert!(machine.violations().is_empty(), "{:?}", machine.violations());
}

/// What opened once, or nothing where that used up the numbers that opens may give away.
fn open_again(machine: &SimStorage, method: FileAccess) -> Option<Db> {
    match open(machine, options(method)) {
        Err(error) if are_numbers_used_up(&error) => None,
        opened => Some(opened.expect("what opened once opens again")),
    }
}

fn are_numbers_used_up(error: &Error) -> bool {
    error.to_string().contains("numbers are used up")
}

/// A compaction comes to its end or finds damage, and shows what was there before. What it shows,
/// opened anew, is returned.
pub(crate) fn compacted(files: &Files, method: FileAccess, damaged: bool) -> Answers {
    let machine = machine(files);
    let db = open(&machine, options(method)).expect("it has opened before");
    let before = answers(&db);
    match db.compact() {
        Ok(_) => {}
        Err(error) => {
            assert!(error.is_corruption(), "damage was reported as: {error}");
            // It reads records that no get can reach, too.
            assert!(damaged, "nothing was done to it: {error}");
        }
    }
    assert_eq!(answers(&db), before, "a compaction changed what is there");
    drop(db);
    let db = open(&machine, options(method)).expect("what was compacted opens");
    let after = answers(&db);
    assert_eq!(after, before, "a compaction changed what is there when it is opened again");
    after
}
