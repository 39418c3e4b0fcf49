//! What one child measured: one line of JSON.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::engine::Kind;
use crate::work::{Job, Work};

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) engine: Kind,
    pub(crate) work: Work,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    /// Which of the runs, from 0.
    pub(crate) run: u32,
    pub(crate) values: BTreeMap<String, f64>,
    /// Name to (seconds, figure).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) series: BTreeMap<String, Vec<(f64, f64)>>,
    /// Why there are no values, if there are none: what a table says in their place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failed: Option<String>,
}

impl Figures {
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            engine: job.engine,
            work: job.work,
            keys: job.keys,
            value_bytes: job.value_bytes,
            run: job.run,
            values: BTreeMap::new(),
            series: BTreeMap::new(),
            failed: None,
        }
    }

    /// Whether both are of the same work of the same engine, in the same run.
    pub(crate) fn is_of(&self, other: &Self) -> bool {
        let name = |figures: &Self| {
            (figures.engine, figures.work, figures.keys, figures.value_bytes, figures.run)
        };
        name(self) == name(other)
    }

    pub(crate) fn put(&mut self, name: &str, value: f64) {
        self.values.insert(name.to_string(), value);
    }

    pub(crate) fn point(&mut self, name: &str, at: f64, value: f64) {
        // A picture shows no more digits, and the results are kept in the repository.
        let round = |value: f64| (value * 1000.0).round() / 1000.0;
        self.series.entry(name.to_string()).or_default().push((round(at), round(value)));
    }

    /// Percentiles in microseconds.
    pub(crate) fn latency(&mut self, name: &str, nanoseconds: &Histogram<u64>) {
        if nanoseconds.is_empty() {
            return;
        }
        for (suffix, quantile) in [("p50", 0.5), ("p99", 0.99), ("p999", 0.999)] {
            let value = nanoseconds.value_at_quantile(quantile) as f64 / 1000.0;
            self.put(&format!("{name}_{suffix}_us"), value);
        }
        self.put(&format!("{name}_max_us"), nanoseconds.max() as f64 / 1000.0);
    }
}

/// The longest latency that is told from longer ones, in nanoseconds.
pub(crate) const LONGEST: u64 = 100_000_000_000;

/// Latencies in nanoseconds, up to [`LONGEST`], to three digits.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are valid")
}
