//! What must be shown: a row for each promise, with the figure that decides it.

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
    pub(crate) goal: Goal,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Operations a second: more is better.
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
            Self::Bytes => format!("{value:.1} B"),
            Self::Times => format!("{value:.2} ×"),
            Self::Mebibytes => format!("{:.1} MiB", value / f64::from(1 << 20)),
        }
    }
}

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
}

const fn rate(title: &'static str, work: Work, goal: Goal) -> Row {
    Row { title, work, figure: "ops", over: None, unit: Unit::Rate, goal }
}

const fn at_most(
    title: &'static str,
    work: Work,
    figure: &'static str,
    unit: Unit,
    limit: f64,
) -> Row {
    Row { title, work, figure, over: None, unit, goal: Goal::AtMost(limit) }
}

pub(crate) const ROWS: [Row; 21] = [
    rate("set, one at a time, buffered", Work::Fill, Goal::TimesBest(3.0)),
    rate("overwrite, one at a time, buffered", Work::Overwrite, Goal::TimesBest(3.0)),
    rate("set, batches of 100, buffered", Work::Batch, Goal::TimesBest(4.0)),
    rate("get, random", Work::Get, Goal::TimesBest(2.5)),
    rate("get, key absent", Work::Absent, Goal::TimesBest(5.0)),
    rate("set, synced, 1 thread", Work::Sync1, Goal::TimesBest(1.3)),
    rate("set, synced, 1 thread, against the floor", Work::Sync1, Goal::TimesOf("bare", 0.9)),
    rate("set, synced, 16 threads", Work::Sync16, Goal::TimesBest(4.0)),
    rate("scan in key order, keys only", Work::ScanKeys, Goal::TimesBest(1.0)),
    rate("scan in key order, with values", Work::ScanValues, Goal::TimesOf("rocksdb", 1.0)),
    at_most("open, closed cleanly", Work::OpenClean, "open_ms", Unit::Milliseconds, 500.0),
    at_most("open, after kill -9", Work::OpenKilled, "open_ms", Unit::Milliseconds, 500.0),
    at_most("anonymous memory per key", Work::OpenClean, "anonymous_per_key", Unit::Bytes, 45.0),
    at_most("space under overwrite, largest", Work::Space, "space_max", Unit::Times, 1.5),
    at_most("space 8 s after it ends", Work::Space, "space_rested", Unit::Times, 1.35),
    at_most("bytes written per byte set", Work::Space, "bytes_per_byte", Unit::Times, 2.3),
    at_most(
        "memory grown under overwrite",
        Work::Space,
        "anonymous_grown",
        Unit::Mebibytes,
        33_554_432.0,
    ),
    Row {
        title: "get, cold, data 4 × the memory allowed, p50",
        work: Work::Cold,
        figure: "get_p50_us",
        over: None,
        unit: Unit::Microseconds,
        goal: Goal::AtMostTimesOf("bare", 1.2),
    },
    Row {
        title: "p99 of gets, compacting ÷ idle",
        work: Work::Latency,
        figure: "get_busy_p99_us",
        over: Some("get_idle_p99_us"),
        unit: Unit::Times,
        goal: Goal::AtMost(2.0),
    },
    Row {
        title: "p99 of sets, compacting ÷ idle",
        work: Work::Latency,
        figure: "set_busy_p99_us",
        over: Some("set_idle_p99_us"),
        unit: Unit::Times,
        goal: Goal::AtMost(2.0),
    },
    Row {
        title: "build of the library alone",
        work: Work::Build,
        figure: "build_s",
        over: None,
        unit: Unit::Seconds,
        goal: Goal::AtMostTimesOf("fjall", 1.0),
    },
];

impl Row {
    /// Whether an engine counts as a peer in this row: who returns before the disk has it is shown,
    /// and does not compete.
    pub(crate) fn competes(&self, kind: Kind) -> bool {
        let synced = matches!(self.work, Work::Sync1 | Work::Sync16);
        match kind {
            Kind::Pakv | Kind::Bare => false,
            Kind::Sled => !synced,
            _ => true,
        }
    }
}
