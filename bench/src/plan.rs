//! What a whole run consists of, and about how long it takes.
//!
//! A *section* is a number of keys and a size of values. A *round* is one run of one section: every
//! work of every engine. Rounds are what is kept and what is skipped when a run is taken up again: a
//! ratio is never taken between figures of two different moments.

use crate::data::KEY_BYTES;
use crate::engine::Kind;
use crate::work::Work;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Section {
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    /// Of the tables; others are only points of the curves, with fewer works and less time.
    pub(crate) main: bool,
}

/// Points of the curves that are not in the tables: keys, bytes of a value. Long values are fewer, so
/// that all sections hold about a GiB at most.
const CURVES: [(u64, usize); 5] =
    [(100_000, 100), (1_000_000, 16), (131_072, 8 << 10), (16_384, 64 << 10), (1024, 1 << 20)];
/// The same in little: whether everything is alive, not how fast it is.
const QUICK_CURVES: [(u64, usize); 3] = [(10_000, 100), (10_000, 16), (256, 64 << 10)];

/// Sections of more keys than this are about what grows with them.
pub(crate) const LARGE_FROM: u64 = 1_000_000;
/// Stores of more live bytes are not overwritten without end: it takes too long, and too much disk.
const SPACE_BYTES_MAX: u64 = 4 << 30;

/// What part of the usual time works of the curves have.
const CURVE_SECONDS: f64 = 0.3;

pub(crate) fn sections(keys: &[u64], values: &[usize], curves: bool, quick: bool) -> Vec<Section> {
    let pairs = keys.iter().flat_map(|&keys| values.iter().map(move |&bytes| (keys, bytes)));
    let section = |main| move |(keys, value_bytes)| Section { keys, value_bytes, main };
    let mut all: Vec<_> = pairs.map(section(true)).collect();
    let more = if quick { &QUICK_CURVES[..] } else { &CURVES };
    for point in more.iter().copied().filter(|_| curves).map(section(false)) {
        if !all
            .iter()
            .any(|other| (other.keys, other.value_bytes) == (point.keys, point.value_bytes))
        {
            all.push(point);
        }
    }
    // A run that is cut short lacks the largest.
    all.sort_by_key(Section::live_bytes);
    all
}

impl Section {
    pub(crate) fn live_bytes(&self) -> u64 {
        self.keys * (KEY_BYTES + self.value_bytes) as u64
    }

    pub(crate) fn seconds(&self, seconds: f64) -> f64 {
        if self.main { seconds } else { seconds * CURVE_SECONDS }
    }

    /// Whether the work is a part of this section at all.
    pub(crate) fn has(&self, work: Work) -> bool {
        let is_large = self.keys > LARGE_FROM;
        match work {
            // Into an empty store: the same whatever the section's number of keys is.
            Work::Batch | Work::Sync1 | Work::Sync16 => !is_large,
            Work::Cold | Work::Latency => self.main && !is_large,
            Work::Build => self.main,
            // As long as some times the data takes to be overwritten.
            Work::Space => self.live_bytes() < SPACE_BYTES_MAX,
            _ => true,
        }
    }

    /// Whether the engine does the work, in this section; `first` is the first section.
    pub(crate) fn does(&self, work: Work, engine: Kind, first: bool) -> bool {
        match engine {
            // Not a store.
            Kind::Bare => matches!(work, Work::Sync1 | Work::Cold),
            // A quarter of an hour and more, to be compared with nothing.
            _ if work == Work::Build && engine.builds_for_long() => false,
            // It depends neither on keys nor on values.
            _ => work != Work::Build || first,
        }
    }

    /// Seconds that a child takes, about; `seconds` is what works without an end of their own get.
    pub(crate) fn estimate(&self, work: Work, engine: Kind, seconds: f64) -> f64 {
        let (keys, seconds) = (self.keys as f64, self.seconds(seconds));
        let (bytes, rest) = (self.live_bytes() as f64, 9.0_f64.min(seconds * 4.0));
        match work {
            Work::Fill => {
                let all = keys / 150e3 + bytes / 200e6;
                all.min(seconds * 12.0) + (all - seconds * 12.0).max(0.0) / 5.0 + 0.5
            }
            Work::Get | Work::Absent => keys / 3e6 + seconds * 1.3 + 1.0,
            Work::ScanKeys | Work::ScanValues => keys / 1e6 + 0.5,
            Work::OpenClean => 0.5,
            Work::OpenKilled | Work::Dirty => keys / 1e6 + seconds * 0.5 + 1.0,
            Work::Cold => seconds + bytes / 500e6 + 1.0,
            Work::Latency => seconds * 6.0,
            Work::Overwrite => (keys / 100e3).clamp(seconds, seconds * 12.0) + seconds * 0.3,
            Work::Space if self.keys > LARGE_FROM => seconds * 9.0 + rest,
            Work::Space => seconds * 8.0 + rest,
            Work::Batch => (keys / 300e3).min(seconds * 4.0) + 0.5,
            Work::Sync1 | Work::Sync16 => seconds * 2.0 + 0.5,
            Work::Build if engine == Kind::Bare => 0.0,
            Work::Build => 12.0,
        }
    }

    /// Bytes of the disk that an engine may take at its worst, about.
    pub(crate) fn worst_bytes(&self, engine: Kind) -> u64 {
        self.live_bytes()
            * match engine {
                Kind::Redb => 6,
                Kind::Pakv | Kind::Lmdb => 2,
                Kind::Bare => 1,
                _ => 4,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_section_is_measured_twice() {
        let sections = sections(&[100_000, 1_000_000], &[100, 16], true, false);
        let main = sections.iter().filter(|section| section.main).count();
        assert_eq!((main, sections.len()), (4, 7));
    }

    #[test]
    fn the_build_is_of_the_first_section_alone() {
        let section = Section { keys: 1, value_bytes: 1, main: true };
        assert!(section.does(Work::Build, Kind::Pakv, true));
        assert!(!section.does(Work::Build, Kind::Pakv, false));
        assert!(!section.does(Work::Build, Kind::Bare, true));
    }
}
