//! What must be shown: a goal for rows of certain sections, which the summary judges.

use super::rows::{
    ABSENT, BATCH, BUILD, COLD, COLD_BYTES, FILL, GET, GET_BUSY, GET_WAIT, GROWN, MEBIBYTE,
    MEMORY_FILLED, MEMORY_OPENED, OPEN_CLEAN, OPEN_KILLED, OVERWRITE, Row, SCAN_KEYS, SCAN_VALUES,
    SET_BUSY, SET_WAIT, SPACE, SPACE_RESTED, SYNC_1, SYNC_16, WRITTEN,
};

#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// At least so many times the best peer's figure, pair by pair.
    TimesBest(f64),
    /// At least so many times that one's.
    TimesOf(&'static str, f64),
    /// At most so many times that one's.
    AtMostTimesOf(&'static str, f64),
    /// pakv's figure alone: at most this.
    AtMost(f64),
    /// The same, and further on a figure that is aimed at.
    AtMostAim(f64, f64),
}

/// A row of what is promised.
pub(crate) struct Promise {
    pub(crate) title: &'static str,
    pub(crate) row: Row,
    /// The section that decides: keys, bytes of a value.
    pub(crate) at: (u64, usize),
    pub(crate) goal: Goal,
    /// A bar of the picture that stands in the README, by this name.
    pub(crate) bar: Option<&'static str>,
}

const SMALL: (u64, usize) = (1_000_000, 100);
const LARGE: (u64, usize) = (10_000_000, 100);
/// With values of 100 bytes a quarter of the data is less than what any keydir needs.
const COLD_AT: (u64, usize) = (1_000_000, 1024);

const fn promise(title: &'static str, row: Row, at: (u64, usize), goal: Goal) -> Promise {
    Promise { title, row, at, goal, bar: None }
}

const fn bar(name: &'static str, promise: Promise) -> Promise {
    Promise { bar: Some(name), ..promise }
}

pub(crate) const PROMISES: [Promise; 27] = [
    bar(
        "set",
        promise(
            "set, one at a time, handed to the OS on return",
            FILL,
            SMALL,
            Goal::TimesBest(3.0),
        ),
    ),
    bar("overwrite", promise("overwrite, one at a time", OVERWRITE, SMALL, Goal::TimesBest(3.0))),
    bar("set, batches of 100", promise("batches of 100", BATCH, SMALL, Goal::TimesBest(4.0))),
    bar("get, 1 M keys", promise("get, random, 1 M keys", GET, SMALL, Goal::TimesBest(2.5))),
    bar("get, 10 M keys", promise("get, random, 10 M keys", GET, LARGE, Goal::TimesBest(2.5))),
    bar("get, key absent", promise("get, key absent", ABSENT, SMALL, Goal::TimesBest(5.0))),
    bar("set, synced", promise("set, synced, 1 thread", SYNC_1, SMALL, Goal::TimesBest(1.3))),
    promise(
        "set, synced, against a bare write + fdatasync",
        SYNC_1,
        SMALL,
        Goal::TimesOf("bare", 0.9),
    ),
    bar(
        "set, synced, 16 threads",
        promise("set, synced, 16 threads", SYNC_16, SMALL, Goal::TimesBest(4.0)),
    ),
    bar(
        "scan, keys only",
        promise("scan of all in key order, keys only", SCAN_KEYS, SMALL, Goal::TimesBest(1.0)),
    ),
    bar(
        "scan, values ÷ RocksDB",
        promise(
            "scan of all in key order, with values",
            SCAN_VALUES,
            SMALL,
            Goal::TimesOf("rocksdb", 1.0),
        ),
    ),
    promise("open, 10 M keys, clean", OPEN_CLEAN, LARGE, Goal::AtMostAim(500.0, 50.0)),
    promise("open, 10 M keys, after kill -9", OPEN_KILLED, LARGE, Goal::AtMostAim(500.0, 50.0)),
    promise(
        "anonymous memory per 24-byte key, opened",
        MEMORY_OPENED,
        LARGE,
        Goal::AtMostAim(45.0, 16.0),
    ),
    promise(
        "anonymous memory per 24-byte key, after setting all",
        MEMORY_FILLED,
        LARGE,
        Goal::AtMostAim(45.0, 16.0),
    ),
    promise("space under endless uniform overwrite", SPACE, SMALL, Goal::AtMost(1.5)),
    promise("space some seconds after it ends", SPACE_RESTED, SMALL, Goal::AtMost(1.35)),
    promise("bytes written per byte set", WRITTEN, SMALL, Goal::AtMost(2.3)),
    promise("p99 of gets while compaction runs, against idle", GET_BUSY, SMALL, Goal::AtMost(2.0)),
    promise("p99 of sets while compaction runs, against idle", SET_BUSY, SMALL, Goal::AtMost(2.0)),
    promise("the same of gets, with those held up", GET_WAIT, SMALL, Goal::AtMost(2.0)),
    promise("the same of sets, with those held up", SET_WAIT, SMALL, Goal::AtMost(2.0)),
    promise(
        "memory of compaction (grown under overwrite), 1 M keys",
        GROWN,
        SMALL,
        Goal::AtMost(32.0 * MEBIBYTE),
    ),
    promise(
        "memory of compaction (grown under overwrite), 10 M keys",
        GROWN,
        LARGE,
        Goal::AtMost(32.0 * MEBIBYTE),
    ),
    promise(
        "cold get, data four times the memory allowed, p50",
        COLD,
        COLD_AT,
        Goal::AtMostTimesOf("bare", 1.2),
    ),
    promise(
        "bytes read from the disk per cold get",
        COLD_BYTES,
        COLD_AT,
        Goal::AtMostTimesOf("bare", 1.2),
    ),
    promise(
        "build: the library alone from an empty target",
        BUILD,
        SMALL,
        Goal::AtMostTimesOf("fjall", 1.0),
    ),
];
