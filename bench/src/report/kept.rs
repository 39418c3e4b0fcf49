//! What is measured, as it is kept beside the report.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::figures::Figures;
use crate::machine::Setting;
use crate::work::Job;

const RESULTS: &str = "results.jsonl";
const OLD: &str = "results.old.jsonl";
const SETTINGS: &str = "settings.json";

pub(crate) struct Kept {
    pub(crate) all: Vec<Figures>,
    pub(crate) settings: Vec<Setting>,
    /// What is there was measured with other settings, and is not to be written over.
    aside: bool,
}

impl Kept {
    /// What was measured with these settings; what was measured with others is set aside.
    pub(crate) fn of(out: &Path, settings: Vec<Setting>) -> Result<Self> {
        if !out.join(RESULTS).exists() {
            return Ok(Self { all: Vec::new(), settings, aside: false });
        }
        // Not to be written over, whatever keeps this build from reading it.
        let old = Self::read(out).with_context(|| {
            let file = out.join(RESULTS);
            format!(
                "{} cannot be read (was it made with --features rocksdb?); move it away or use another --out",
                file.display()
            )
        })?;
        let same = |new: &Setting| new.may_differ() || old.settings.contains(new);
        let Some(other) = settings.iter().find(|new| !same(new)) else {
            return Ok(Self { all: old.all, settings, aside: false });
        };
        eprintln!(
            "what is in {} was not measured with this: {}: {}",
            out.display(),
            other.label,
            other.text
        );
        eprintln!("it will be set aside as {OLD}, and all is measured again");
        Ok(Self { all: Vec::new(), settings, aside: true })
    }

    pub(crate) fn read(out: &Path) -> Result<Self> {
        let text = fs::read_to_string(out.join(RESULTS)).context("no results: `run` makes them")?;
        let all = text.lines().map(serde_json::from_str).collect::<Result<Vec<Figures>, _>>()?;
        let settings = serde_json::from_str(&fs::read_to_string(out.join(SETTINGS))?)?;
        Ok(Self { all, settings, aside: false })
    }

    pub(crate) fn has(&self, job: &Job) -> bool {
        let like = Figures::new(job);
        self.all.iter().any(|figures| figures.is_of(&like))
    }

    /// In place of what was there of the same.
    pub(crate) fn add(&mut self, round: Vec<Figures>) {
        self.all.retain(|old| !round.iter().any(|new| new.is_of(old)));
        self.all.extend(round);
    }

    /// One line for each child, so that two runs can be compared by diff.
    pub(crate) fn write(&mut self, out: &Path) -> Result<()> {
        if std::mem::take(&mut self.aside) {
            fs::rename(out.join(RESULTS), out.join(OLD))?;
        }
        let mut text = String::new();
        for figures in &self.all {
            text.push_str(&serde_json::to_string(figures)?);
            text.push('\n');
        }
        fs::write(out.join(SETTINGS), serde_json::to_string_pretty(&self.settings)? + "\n")?;
        // Never half: hours are in it.
        let next = out.join(format!("{RESULTS}.next"));
        fs::write(&next, text)?;
        fs::rename(next, out.join(RESULTS)).context("the results cannot be kept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Kind;
    use crate::work::Work;

    fn figures(engine: Kind, run: u32, ops: f64) -> Figures {
        let values = [("ops".to_string(), ops)].into();
        Figures {
            engine,
            work: Work::Get,
            keys: 1,
            value_bytes: 1,
            run,
            values,
            series: Default::default(),
            failed: None,
        }
    }

    #[test]
    fn a_round_replaces_what_was_there_of_the_same() {
        let mut kept = Kept { all: Vec::new(), settings: Vec::new(), aside: false };
        kept.add(vec![figures(Kind::Pakv, 0, 1.0), figures(Kind::Lmdb, 0, 2.0)]);
        kept.add(vec![figures(Kind::Pakv, 0, 3.0), figures(Kind::Pakv, 1, 4.0)]);
        let ops: Vec<_> = kept.all.iter().map(|figures| figures.values["ops"]).collect();
        assert_eq!(ops, [2.0, 3.0, 4.0]);
    }
}
