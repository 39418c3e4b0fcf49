//! The rows of the tables: what a figure is called, and which work's it is.

use crate::engine::Kind;
use crate::work::Work;

#[derive(Clone, Copy)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) work: Work,
    pub(crate) figure: &'static str,
    /// The figure is divided by this one of the same child, if any.
    pub(crate) over: Option<&'static str>,
    pub(crate) unit: Unit,
    /// What counts is the largest of all runs, not their median: it is a bound.
    pub(crate) is_bound: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations a second: more is better. Of all others, less.
    Rate,
    Seconds,
    Milliseconds,
    Microseconds,
    Bytes,
    /// Times something.
    Times,
    Mebibytes,
}

impl Unit {
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::Rate if value >= 1e6 => format!("{:.2} M/s", value / 1e6),
            Self::Rate if value >= 1e3 => format!("{:.1} k/s", value / 1e3),
            Self::Rate => format!("{value:.0} /s"),
            Self::Seconds => format!("{value:.1} s"),
            Self::Milliseconds => format!("{value:.1} ms"),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Bytes if value >= 1024.0 => format!("{:.1} KiB", value / 1024.0),
            Self::Bytes => format!("{value:.1} B"),
            Self::Times => format!("{value:.2} ×"),
            Self::Mebibytes => format!("{:.1} MiB", value / MEBIBYTE),
        }
    }
}

pub(super) const MEBIBYTE: f64 = 1_048_576.0;

const fn row(title: &'static str, work: Work, figure: &'static str, unit: Unit) -> Row {
    Row { title, work, figure, over: None, unit, is_bound: false }
}

const fn rate(title: &'static str, work: Work) -> Row {
    row(title, work, "ops", Unit::Rate)
}

pub(super) const FILL: Row = rate("set, one at a time, buffered", Work::Fill);
pub(super) const OVERWRITE: Row = rate("overwrite, one at a time, buffered", Work::Overwrite);
pub(super) const BATCH: Row = rate("set, batches of 100, buffered", Work::Batch);
pub(super) const GET: Row = rate("get, random", Work::Get);
pub(super) const ABSENT: Row = rate("get, key absent", Work::Absent);
pub(super) const SYNC_1: Row = rate("set, synced, 1 thread", Work::Sync1);
pub(super) const SYNC_16: Row = rate("set, synced, 16 threads", Work::Sync16);
pub(super) const SCAN_KEYS: Row = rate("scan in key order, keys only", Work::ScanKeys);
pub(super) const SCAN_VALUES: Row = rate("scan in key order, with values", Work::ScanValues);
pub(super) const OPEN_CLEAN: Row =
    row("open, closed cleanly", Work::OpenClean, "open_ms", Unit::Milliseconds);
pub(super) const OPEN_KILLED: Row =
    row("open, after kill -9", Work::OpenKilled, "open_ms", Unit::Milliseconds);
pub(super) const MEMORY_OPENED: Row =
    row("anonymous memory per key, opened", Work::OpenClean, "anonymous_per_key", Unit::Bytes);
pub(super) const MEMORY_FILLED: Row = row(
    "anonymous memory per key, after setting all",
    Work::Fill,
    "anonymous_per_key",
    Unit::Bytes,
);
pub(super) const SPACE: Row = Row {
    is_bound: true,
    ..row("space under overwrite, largest", Work::Space, "space_max", Unit::Times)
};
pub(super) const SPACE_RESTED: Row =
    row("space some seconds after it ends", Work::Space, "space_rested", Unit::Times);
pub(super) const WRITTEN: Row =
    row("bytes written per byte set", Work::Space, "bytes_per_byte", Unit::Times);
const SPACE_OPS: Row = rate("overwrite while that is watched", Work::Space);
pub(super) const GROWN: Row = Row {
    is_bound: true,
    ..row("memory grown under overwrite", Work::Space, "anonymous_grown", Unit::Mebibytes)
};
pub(super) const COLD: Row = row(
    "get, cold, data 4 × the memory allowed, p50",
    Work::Cold,
    "get_p50_us",
    Unit::Microseconds,
);
pub(super) const COLD_BYTES: Row =
    row("bytes read from the disk per cold get", Work::Cold, "read_bytes_per_get", Unit::Bytes);
pub(super) const GET_BUSY: Row = Row {
    over: Some("get_idle_p99_us"),
    ..row("p99 of gets, compacting ÷ idle", Work::Latency, "get_busy_p99_us", Unit::Times)
};
pub(super) const SET_BUSY: Row = Row {
    over: Some("set_idle_p99_us"),
    ..row("p99 of sets, compacting ÷ idle", Work::Latency, "set_busy_p99_us", Unit::Times)
};
pub(super) const GET_WAIT: Row = Row {
    over: Some("get_wait_idle_p99_us"),
    ..row(
        "p99 of gets with those held up, compacting ÷ idle",
        Work::Latency,
        "get_wait_busy_p99_us",
        Unit::Times,
    )
};
pub(super) const SET_WAIT: Row = Row {
    over: Some("set_wait_idle_p99_us"),
    ..row(
        "p99 of sets with those held up, compacting ÷ idle",
        Work::Latency,
        "set_wait_busy_p99_us",
        Unit::Times,
    )
};
pub(super) const BUILD: Row =
    row("build of the library alone", Work::Build, "build_s", Unit::Seconds);

/// Of each section.
pub(crate) const ROWS: [Row; 25] = [
    FILL,
    OVERWRITE,
    BATCH,
    GET,
    ABSENT,
    SYNC_1,
    SYNC_16,
    SCAN_KEYS,
    SCAN_VALUES,
    OPEN_CLEAN,
    OPEN_KILLED,
    MEMORY_OPENED,
    MEMORY_FILLED,
    SPACE,
    SPACE_RESTED,
    WRITTEN,
    SPACE_OPS,
    GROWN,
    GET_BUSY,
    SET_BUSY,
    GET_WAIT,
    SET_WAIT,
    COLD,
    COLD_BYTES,
    BUILD,
];

impl Row {
    /// With a digit more where a bound may be missed by as little.
    pub(crate) fn show(&self, value: f64) -> String {
        match self.unit {
            Unit::Times if self.is_bound => format!("{value:.3} ×"),
            unit => unit.show(value),
        }
    }

    /// Whether an engine counts as a peer in this row. Who returns before the disk has it is shown and
    /// does not compete, and neither do writes to mapped pages that are dirty already, which nobody
    /// counts: LMDB's.
    pub(crate) fn competes(&self, kind: Kind) -> bool {
        let synced = matches!(self.work, Work::Sync1 | Work::Sync16);
        match kind {
            Kind::Pakv | Kind::Bare => false,
            Kind::Sled => !synced,
            Kind::Lmdb => self.figure != WRITTEN.figure || self.work != WRITTEN.work,
            _ => true,
        }
    }
}
