//! The parent: every section, every work of it, every engine in turn.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use clap::ValueEnum as _;

use crate::child;
use crate::engine::Kind;
use crate::figures::Figures;
use crate::machine::{self, Setting};
use crate::plan::{self, Section};
use crate::process;
use crate::report::{self, Kept};
use crate::work::{Job, Work};

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Numbers of keys, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000000,10000000")]
    keys: Vec<u64>,
    /// Sizes of values in bytes, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "100,1024")]
    values: Vec<usize>,
    /// How often everything is run; the tables show medians.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Only these engines; pakv is always among them.
    #[arg(long, value_delimiter = ',')]
    engines: Vec<Kind>,
    /// Only these works; `fill` goes before those that need a full store.
    #[arg(long, value_delimiter = ',')]
    works: Vec<Work>,
    /// The budget of engines that keep a cache of their own, in MiB.
    #[arg(long, default_value_t = 1024)]
    cache_mib: u64,
    /// For how long a work that has no end of its own goes on.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Sets, and gets, a second of the latency work.
    #[arg(long, default_value_t = 50_000)]
    pace: u64,
    /// Without the further sections that the curves need.
    #[arg(long)]
    no_curves: bool,
    /// Everything in little, once: whether it is alive. Its figures mean nothing.
    #[arg(long)]
    quick: bool,
    /// Only says what would be done, and about how long that takes.
    #[arg(long)]
    dry: bool,
    /// Where the stores are made, on the disk that is measured. What is made is removed.
    #[arg(long, default_value = "target/bench-stores")]
    dir: PathBuf,
    /// Where the report goes, and what is done already is found: docs/benchmarks, or
    /// target/bench-quick with --quick.
    #[arg(long)]
    out: Option<PathBuf>,
}

impl Run {
    pub(crate) fn run(mut self) -> Result<()> {
        if self.quick {
            (self.keys, self.values) = (vec![100_000], vec![100]);
            (self.runs, self.seconds) = (1, 0.3);
        }
        let sections = plan::sections(&self.keys, &self.values, !self.no_curves, self.quick);
        let usual = if self.quick { "target/bench-quick" } else { report::OUT };
        let out = self.out.clone().unwrap_or_else(|| usual.into());
        fs::create_dir_all(&out)?;
        fs::create_dir_all(&self.dir)?;
        let mut kept = Kept::of(&out, self.settings())?;
        let rounds = sections.iter().flat_map(|at| (0..self.runs).map(move |run| (run, at)));
        let missing = |(run, section): &(u32, &Section)| !self.is_done(section, *run, &kept);
        let rounds: Vec<_> = rounds.filter(missing).collect();
        let estimate: f64 = rounds.iter().map(|(run, at)| self.estimate(at, *run)).sum();
        let (hours, minutes) = ((estimate / 3600.0) as u64, (estimate / 60.0) as u64 % 60);
        eprintln!("{} rounds, about {hours} h {minutes} min", rounds.len());
        if self.dry {
            return Ok(());
        }
        let start = Instant::now();
        for (at, (run, section)) in rounds.iter().enumerate() {
            let (keys, bytes) = (section.keys, section.value_bytes);
            let minutes = start.elapsed().as_secs() / 60;
            eprintln!(
                "== round {} of {}: run {run}, {keys} keys of {bytes} bytes; {minutes} min so far",
                at + 1,
                rounds.len()
            );
            kept.add(self.round(section, *run)?);
            // Kept after every round: a run that is cut short has measured something too.
            kept.write(&out)?;
            report::write(&out)?;
        }
        report::write(&out)
    }

    fn settings(&self) -> Vec<Setting> {
        let (cache, seconds, pace) = (self.cache_mib, self.seconds, self.pace);
        let mut settings = machine::describe(&self.dir);
        let text = format!(
            "cache {cache} MiB, {seconds} s a work, {pace} paced sets and gets a second (at most 16 MiB of sets)"
        );
        settings.push(Setting { label: "asked for".into(), text });
        settings
    }

    fn engines(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        let asked = |kind: &Kind| self.engines.is_empty() || self.engines.contains(kind);
        all.filter(|kind| *kind == Kind::Pakv || asked(kind)).collect()
    }

    fn works(&self, section: &Section) -> Vec<Work> {
        let asked = |work: &Work| {
            section.has(*work) && (self.works.is_empty() || self.works.contains(work))
        };
        let full = Work::ALL.iter().any(|work| !work.alone() && asked(work));
        let needed = |work: &Work| asked(work) || (*work == Work::Fill && full);
        Work::ALL.into_iter().filter(needed).collect()
    }

    /// What a round is made of, in the order in which it is done.
    fn children(&self, section: &Section, run: u32) -> Vec<(Work, Kind)> {
        let first = (self.keys.first(), self.values.first())
            == (Some(&section.keys), Some(&section.value_bytes));
        let mut engines = self.engines();
        // Nobody is always the one that runs after the others have warmed or worn the machine.
        let turn = run as usize % engines.len();
        engines.rotate_left(turn);
        let works = self.works(section);
        let does = |&(work, engine): &(Work, Kind)| section.does(work, engine, first);
        if self.has_room_for_all(section) {
            let all = works.iter().flat_map(|&work| engines.iter().map(move |&kind| (work, kind)));
            return all.filter(does).collect();
        }
        // One store at a time is on the disk.
        let all = engines.iter().flat_map(|&kind| works.iter().map(move |&work| (work, kind)));
        all.filter(does).collect()
    }

    fn has_room_for_all(&self, section: &Section) -> bool {
        let worst: u64 = self.engines().iter().map(|&kind| section.worst_bytes(kind)).sum();
        process::disk_free(&self.dir).is_none_or(|free| worst < free)
    }

    fn estimate(&self, section: &Section, run: u32) -> f64 {
        let children = self.children(section, run).into_iter();
        children.map(|(work, kind)| section.estimate(work, kind, self.seconds)).sum()
    }

    fn is_done(&self, section: &Section, run: u32, kept: &Kept) -> bool {
        let done = |&(work, kind): &(Work, Kind)| kept.has(&self.job(section, work, kind, run));
        self.children(section, run).iter().all(done)
    }

    fn job(&self, section: &Section, work: Work, engine: Kind, run: u32) -> Job {
        Job {
            engine,
            work,
            keys: section.keys,
            value_bytes: section.value_bytes,
            dir: self.dir.join(engine.arg()),
            cache_mib: self.cache_mib,
            seconds: section.seconds(self.seconds),
            pace: self.pace,
            cage: None,
            run,
        }
    }

    fn round(&self, section: &Section, run: u32) -> Result<Vec<Figures>> {
        let mut all: Vec<Figures> = Vec::new();
        let one_by_one = !self.has_room_for_all(section);
        if one_by_one {
            eprintln!("little room on the disk: engine by engine, not work by work");
        }
        for (work, engine) in self.children(section, run) {
            let job = self.job(section, work, engine, run);
            if work.alone() || work == Work::Fill {
                remove(&job.dir)?;
            }
            let other = |kind: &Kind| one_by_one && *kind != engine;
            for kind in self.engines().into_iter().filter(other) {
                remove(&self.dir.join(kind.arg()))?;
            }
            let unfilled = all.iter().any(|done| {
                (done.engine, done.work) == (engine, Work::Fill) && done.failed.is_some()
            });
            let mut figures = if unfilled && !work.alone() {
                let mut figures = Figures::new(&job);
                figures.failed = Some("there is no full store".into());
                figures
            } else {
                child::measure(&job)
            };
            // Pictures are of the first run of what the tables show.
            if run > 0 || !section.main {
                figures.series.clear();
            }
            all.push(figures);
        }
        for engine in self.engines() {
            remove(&self.dir.join(engine.arg()))?;
        }
        Ok(all)
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
