//! From children to figures of a row: ratios within a run, pair by pair, then medians over runs.

use std::collections::BTreeMap;

use super::promises::{Goal, Promise};
use super::rows::{Row, Unit};
use crate::engine::Kind;
use crate::figures::Figures;
use crate::plan::LARGE_FROM;
use crate::work::Work;
use crate::work::space::ENOUGH_AFTER;

/// The runs of one number of keys and one size of values.
pub(crate) struct Section<'f> {
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) all: Vec<&'f Figures>,
}

/// What a promise comes to, and the figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Verdict {
    Reached(String),
    Short(String),
    Unknown,
}

impl Verdict {
    fn but(self, doubts: &str) -> Self {
        match self {
            Self::Reached(text) => Self::Reached(text + doubts),
            Self::Short(text) => Self::Short(text + doubts),
            Self::Unknown => Self::Unknown,
        }
    }
}

pub(crate) fn sections(all: &[Figures]) -> Vec<Section<'_>> {
    let mut by_size: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for figures in all {
        by_size.entry((figures.keys, figures.value_bytes)).or_default().push(figures);
    }
    let section = |((keys, value_bytes), all)| Section { keys, value_bytes, all };
    by_size.into_iter().map(section).collect()
}

pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let (at, odd) = (values.len() / 2, values.len() % 2 == 1);
    let upper = *values.get(at)?;
    Some(if odd { upper } else { (values[at - 1] + upper) / 2.0 })
}

pub(crate) fn show_ratio(ratio: f64) -> String {
    let digits = if ratio < 100.0 { 2 } else { 0 };
    format!("{ratio:.digits$}")
}

/// So many times somebody's figure.
pub(crate) fn times(ratio: f64, kind: Kind) -> String {
    format!("{} × {}", show_ratio(ratio), kind.name())
}

impl Section<'_> {
    pub(crate) fn runs(&self) -> u32 {
        self.all.iter().map(|figures| figures.run + 1).max().unwrap_or(0)
    }

    /// Whether it stands for itself, and not only as a point of a curve: those have no more keys than
    /// this, and lack a work.
    pub(crate) fn is_main(&self) -> bool {
        self.keys > LARGE_FROM || self.all.iter().any(|figures| figures.work == Work::Latency)
    }

    /// Engines that were measured, pakv first.
    pub(crate) fn engines(&self) -> Vec<Kind> {
        let mut kinds: Vec<_> = self.all.iter().map(|figures| figures.engine).collect();
        kinds.sort();
        kinds.dedup();
        kinds
    }

    pub(crate) fn child(&self, row: &Row, kind: Kind, run: u32) -> Option<&Figures> {
        let mut children = self.all.iter().copied();
        children.find(|child| (child.work, child.engine, child.run) == (row.work, kind, run))
    }

    fn figure(&self, row: &Row, kind: Kind, run: u32) -> Option<f64> {
        let values = &self.child(row, kind, run)?.values;
        let value = *values.get(row.figure)?;
        Some(match row.over {
            Some(over) => value / values.get(over)?,
            None => value,
        })
    }

    pub(crate) fn value(&self, row: &Row, kind: Kind) -> Option<f64> {
        let values = (0..self.runs()).filter_map(|run| self.figure(row, kind, run));
        if row.is_bound { values.max_by(f64::total_cmp) } else { median(values.collect()) }
    }

    /// How often an engine had overwritten its data when it was out of time, in a row of a work that
    /// goes on until that is enough to say what the steady state is like: nothing where it was.
    pub(crate) fn let_off_after(&self, row: &Row, kind: Kind) -> Option<f64> {
        let volumes = |run| self.child(row, kind, run)?.values.get("volumes").copied();
        let least = (0..self.runs()).filter_map(volumes).min_by(f64::total_cmp)?;
        Some(least).filter(|volumes| *volumes < ENOUGH_AFTER)
    }

    /// pakv's figure over that of `kind`: of each run, then the median of them.
    pub(crate) fn ratio(&self, row: &Row, kind: Kind) -> Option<f64> {
        let pair = |run| Some(self.figure(row, Kind::Pakv, run)? / self.figure(row, kind, run)?);
        median((0..self.runs()).filter_map(pair).collect())
    }

    /// Whoever does best in a row beside pakv, and pakv's figure over its.
    pub(crate) fn best(&self, row: &Row) -> Option<(f64, Kind)> {
        let is_steady = |kind: &Kind| self.let_off_after(row, *kind).is_none();
        let competes = |kind: &Kind| row.competes(*kind) && is_steady(kind);
        let kinds = self.engines().into_iter().filter(competes);
        let ratios = kinds.filter_map(|kind| Some((self.ratio(row, kind)?, kind)));
        let order = |a: &(f64, Kind), b: &(f64, Kind)| a.0.total_cmp(&b.0);
        if row.unit == Unit::Rate { ratios.min_by(order) } else { ratios.max_by(order) }
    }

    /// Why an engine has no figure in a row, if it tried.
    pub(crate) fn failure(&self, row: &Row, kind: Kind) -> Option<&str> {
        let mut children =
            self.all.iter().filter(|child| (child.work, child.engine) == (row.work, kind));
        children.find_map(|child| child.failed.as_deref())
    }

    /// Whom a promise compares pakv with, and pakv's figure over theirs.
    pub(crate) fn compared(&self, promise: &Promise) -> Option<(f64, Kind)> {
        match promise.goal {
            Goal::TimesOf(name, _) | Goal::AtMostTimesOf(name, _) => {
                let kind = self.engines().into_iter().find(|kind| kind.arg() == name)?;
                Some((self.ratio(&promise.row, kind)?, kind))
            }
            _ => self.best(&promise.row),
        }
    }

    pub(crate) fn verdict(&self, promise: &Promise) -> Verdict {
        let row = &promise.row;
        let judge = |reached: bool, text: String| {
            if reached { Verdict::Reached(text) } else { Verdict::Short(text) }
        };
        let measured = match promise.goal {
            Goal::TimesBest(goal) | Goal::TimesOf(_, goal) => {
                self.compared(promise).map(|(ratio, kind)| judge(ratio >= goal, times(ratio, kind)))
            }
            Goal::AtMostTimesOf(_, goal) => {
                self.compared(promise).map(|(ratio, kind)| judge(ratio <= goal, times(ratio, kind)))
            }
            Goal::AtMost(limit) | Goal::AtMostAim(limit, _) => {
                self.value(row, Kind::Pakv).map(|value| judge(value <= limit, row.show(value)))
            }
        };
        match (measured, self.failure(row, Kind::Pakv)) {
            (_, Some(why)) => Verdict::Short(why.to_string()),
            (Some(verdict), None) => verdict.but(&self.doubts(row)),
            (None, None) => Verdict::Unknown,
        }
    }

    /// What a reader should know about pakv's figure in a row.
    fn doubts(&self, row: &Row) -> String {
        let mut doubts = String::new();
        let runs = (0..self.runs()).filter(|run| self.figure(row, Kind::Pakv, *run).is_some());
        match runs.count() {
            1 => doubts.push_str(", 1 run"),
            2 => doubts.push_str(", 2 runs"),
            _ => {}
        }
        if let Some(volumes) = self.let_off_after(row, Kind::Pakv) {
            doubts.push_str(&format!(", overwritten {volumes:.1} times"));
        }
        doubts
    }
}

#[cfg(test)]
mod tests {
    use super::super::promises::PROMISES;
    use super::super::rows::ROWS;
    use super::*;

    fn ops(engine: Kind, run: u32, ops: f64) -> Figures {
        let values = [("ops".to_string(), ops)].into();
        let series = Default::default();
        let (keys, value_bytes) = (1, 1);
        Figures { engine, work: Work::Fill, keys, value_bytes, run, values, series, failed: None }
    }

    #[test]
    fn medians_are_of_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(vec![]), None);
    }

    /// The machine slows down by ten in run 1: medians taken apart from each other would pair pakv's
    /// good run with a peer's bad one.
    #[test]
    fn ratios_are_taken_within_a_run() {
        let all = [
            ops(Kind::Pakv, 0, 400.0),
            ops(Kind::Lmdb, 0, 100.0),
            ops(Kind::Pakv, 1, 20.0),
            ops(Kind::Lmdb, 1, 10.0),
            ops(Kind::Pakv, 2, 300.0),
            ops(Kind::Lmdb, 2, 100.0),
        ];
        let section = &sections(&all)[0];
        assert_eq!(section.ratio(&ROWS[0], Kind::Lmdb), Some(3.0));
        assert_eq!(section.verdict(&PROMISES[0]), Verdict::Reached("3.00 × LMDB".into()));
        assert_eq!(section.verdict(&PROMISES[1]), Verdict::Unknown);
    }

    #[test]
    fn a_failure_of_pakv_is_short_of_any_goal() {
        let mut failed = ops(Kind::Pakv, 1, 0.0);
        (failed.failed, failed.values) = (Some("out of memory".into()), Default::default());
        let all = [ops(Kind::Pakv, 0, 400.0), ops(Kind::Lmdb, 0, 1.0), failed];
        let verdict = sections(&all)[0].verdict(&PROMISES[0]);
        assert_eq!(verdict, Verdict::Short("out of memory".into()));
    }

    #[test]
    fn the_best_peer_decides() {
        let all =
            [ops(Kind::Pakv, 0, 400.0), ops(Kind::Lmdb, 0, 100.0), ops(Kind::Fjall, 0, 200.0)];
        let verdict = sections(&all)[0].verdict(&PROMISES[0]);
        assert_eq!(verdict, Verdict::Short("2.00 × fjall, 1 run".into()));
    }
}
