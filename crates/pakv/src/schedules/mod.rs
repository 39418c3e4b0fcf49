//! Schedules of the engine's threads, explored: the whole engine runs on shuttle's locks, atomics
//! and threads (`sync`) and on a disk in memory (`disk`), and each test is run under many orders of
//! their steps, half of them drawn at random, half by probabilistic concurrency testing. A thread
//! that waits for ever is found as a deadlock.
//!
//! ```text
//! RUSTFLAGS="--cfg shuttle" cargo test -p pakv --lib schedules
//! ```
//!
//! `PAKV_SCHEDULES` sets how many schedules each test is given (200 unless told), `PAKV_SEED` where
//! they begin. A failure prints its schedule; `PAKV_SCHEDULE` set to that repeats it.

mod commit;
mod disk;
mod planted;
mod retire;

use std::collections::BTreeSet;
use std::sync::Arc;

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::{Config, Runner};

use self::disk::Disk;
use crate::format::record::Record;
use crate::format::{OwnFile, own_file};
use crate::segment::{FrameReader, Next, Segment};
use crate::storage::Storage;
use crate::{Db, Options};

/// How many preemptions the bugs that are looked for may need.
const DEPTH: usize = 3;

/// Runs `body` under the schedules that the environment asks for.
fn explore(body: impl Fn() + Send + Sync + Clone + 'static) {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let schedules = number("PAKV_SCHEDULES").unwrap_or(200);
    let seed = number("PAKV_SEED").unwrap_or(0);
    if let Ok(schedule) = std::env::var("PAKV_SCHEDULE") {
        shuttle::replay(body, &schedule);
        return;
    }
    let explored = run(body, usize::try_from(schedules).unwrap_or(usize::MAX), seed);
    println!("schedules={explored}");
}

/// The same, as many as are given; says how many there were.
fn run(body: impl Fn() + Send + Sync + Clone + 'static, schedules: usize, seed: u64) -> usize {
    let mut config = Config::new();
    config.stack_size = 512 * 1024;
    let random = RandomScheduler::new_from_seed(seed, schedules / 2);
    let mut explored = Runner::new(random, config.clone()).run(body.clone());
    let pct = PctScheduler::new_from_seed(seed, DEPTH, schedules - schedules / 2);
    explored += Runner::new(pct, config).run(body);
    explored
}

/// Tiny segments, and no thread but the test's.
fn options() -> Options {
    Options::new()
        .segment_bytes(512)
        .background_compaction(false)
        .compaction_space_amplification(1.05)
        .compaction_segment_garbage_ratio(0.05)
        .compaction_min_garbage(0)
        .keydir_merge_keys(3)
        .compaction_rate(None)
}

fn open(disk: &Disk, options: Options) -> Db {
    options.open_storage(Arc::new(disk.clone())).expect("it opens")
}

/// Closes the store, whose last reader has gone, and looks at what is left behind: the listed files
/// and no other, and in each segment sequence numbers in the order of its bytes.
fn close_and_check(db: Db, disk: &Disk) {
    let closed = db.clone();
    db.close().expect("close succeeds");
    let listed: BTreeSet<_> = {
        let catalog = closed.core().catalog.lock();
        let sealed = catalog.sealed.iter().map(|sealed| sealed.segment);
        sealed.chain(catalog.active.iter().map(|active| active.segment)).collect()
    };
    drop(closed);
    assert_eq!(disk.violations(), Vec::<String>::new());
    let mut logs = BTreeSet::new();
    for name in disk.names() {
        match own_file(&name) {
            Some(OwnFile::Log(id)) => assert!(logs.insert(id)),
            Some(OwnFile::Hint(id)) => assert!(listed.contains(&id), "{name} is nobody's"),
            _ => {}
        }
    }
    assert_eq!(logs, listed, "the files and the listed segments are the same");
    let storage: Arc<dyn Storage> = Arc::new(disk.clone());
    for id in logs {
        let (segment, _, first_record) = Segment::open_any(&storage, id, false).expect("it opens");
        let end = segment.file().map(|file| file.len().expect("it has a length"));
        let end = u32::try_from(end.expect("it opens")).expect("it is small");
        let mut reader = FrameReader::new(&segment, first_record, end).expect("it opens");
        let mut last = 0;
        loop {
            match reader.next().expect("it can be read") {
                Next::End => break,
                Next::Bad { offset, reason } => panic!("{id} at {offset}: {reason}"),
                Next::Frame(frame) => {
                    let seqno = Record::decode(frame.body).expect("it decodes").seqno;
                    // Compaction copies segment after segment, so only what it did not write has
                    // one order from end to end; a number twice is wrong anywhere.
                    assert_ne!(seqno, last, "{id} has a sequence number twice");
                    last = seqno;
                }
            }
        }
    }
}
