//! The parent: every work on every engine in turn, each in a process of its own.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum as _;

use crate::cage::{self, Cage};
use crate::engine::Kind;
use crate::figures::Figures;
use crate::machine::{self, Setting};
use crate::report;
use crate::work::Work;

#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Numbers of keys, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000000")]
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
    #[arg(long, default_value_t = 10.0)]
    seconds: f64,
    /// Sets, and gets, a second of the latency work.
    #[arg(long, default_value_t = 50_000)]
    pace: u64,
    /// Where the stores are made, on the disk that is measured. What is made is removed.
    #[arg(long, default_value = "target/bench-stores")]
    dir: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "docs/benchmarks")]
    out: PathBuf,
}

impl Run {
    pub(crate) fn run(&self) -> Result<()> {
        fs::create_dir_all(&self.out)?;
        fs::create_dir_all(&self.dir)?;
        let mut settings = machine::describe(&self.dir);
        settings.push(Setting { label: "asked for".into(), text: self.asked() });
        let mut all = Vec::new();
        for &keys in &self.keys {
            for &value_bytes in &self.values {
                for run in 0..self.runs {
                    self.once(keys, value_bytes, run, &mut all)?;
                    // Kept after every run: a run that is cut short has measured something too.
                    report::keep(&self.out, &all, &settings)?;
                    report::write(&self.out)?;
                }
            }
        }
        Ok(())
    }

    fn asked(&self) -> String {
        let (cache, seconds, pace) = (self.cache_mib, self.seconds, self.pace);
        format!("cache {cache} MiB, {seconds} s a work, {pace} paced sets and gets a second")
    }

    fn engines(&self) -> Vec<Kind> {
        let all = Kind::value_variants().iter().copied();
        let asked = |kind: &Kind| self.engines.is_empty() || self.engines.contains(kind);
        all.filter(|kind| *kind == Kind::Pakv || asked(kind)).collect()
    }

    fn works(&self) -> Vec<Work> {
        let asked = |work: &Work| self.works.is_empty() || self.works.contains(work);
        let full = Work::ALL.iter().any(|work| !work.alone() && asked(work));
        let needed = |work: &Work| asked(work) || (*work == Work::Fill && full);
        Work::ALL.into_iter().filter(needed).collect()
    }

    fn once(&self, keys: u64, value_bytes: usize, run: u32, all: &mut Vec<Figures>) -> Result<()> {
        for work in self.works() {
            let mut engines = self.engines();
            // Nobody is always the one that runs after the others have warmed or worn the machine.
            let turn = run as usize % engines.len();
            engines.rotate_left(turn);
            for engine in engines {
                if engine == Kind::Bare && !matches!(work, Work::Sync1 | Work::Cold) {
                    continue;
                }
                // It depends neither on keys nor on values.
                let first =
                    (self.keys.first(), self.values.first()) == (Some(&keys), Some(&value_bytes));
                if work == Work::Build && !first {
                    continue;
                }
                let dir = self.dir.join(engine.arg());
                if work.alone() || work == Work::Fill {
                    remove(&dir)?;
                }
                if work == Work::OpenKilled {
                    let mut dirty = self.child(engine, Work::Dirty, keys, value_bytes, run, &dir);
                    kill_when_dirty(dirty.stdout(Stdio::piped()))?;
                }
                let mut command = self.child(engine, work, keys, value_bytes, run, &dir);
                if work == Work::Cold {
                    all.extend(cold(&mut command, engine, cage::limit(keys, value_bytes))?);
                    continue;
                }
                let figures = measure(&mut command)
                    .with_context(|| format!("{} {}", engine.name(), work.arg()))?;
                say(&figures);
                all.push(figures);
            }
        }
        for engine in self.engines() {
            remove(&self.dir.join(engine.arg()))?;
        }
        Ok(())
    }

    fn child(
        &self,
        engine: Kind,
        work: Work,
        keys: u64,
        value_bytes: usize,
        run: u32,
        dir: &Path,
    ) -> Command {
        let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let mut command = Command::new(program);
        command.args(["child", &engine.arg(), &work.arg()]);
        command.args([keys.to_string(), value_bytes.to_string()]).arg(dir);
        command.arg(format!("--cache-mib={}", self.cache_mib));
        command.arg(format!("--seconds={}", self.seconds));
        command.arg(format!("--pace={}", self.pace)).arg(format!("--run={run}"));
        command
    }
}

fn remove(dir: &Path) -> Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn measure(command: &mut Command) -> Result<Figures> {
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        bail!("the child ended with {}", output.status);
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A work in a limited memory. That an engine cannot live in it, or that the machine cannot limit it,
/// is said and leaves a gap in the table.
fn cold(command: &mut Command, engine: Kind, limit: u64) -> Result<Option<Figures>> {
    let cage = match Cage::new(limit) {
        Ok(cage) => cage,
        Err(error) => {
            eprintln!("**** SKIPPED: cold {}: {error:#} ****", engine.name());
            return Ok(None);
        }
    };
    match measure(command.arg("--cage").arg(cage.path())) {
        Ok(figures) => {
            say(&figures);
            Ok(Some(figures))
        }
        Err(error) => {
            eprintln!("**** FAILED: cold {} in {} MiB: {error:#} ****", engine.name(), limit >> 20);
            Ok(None)
        }
    }
}

/// Waits for the line that says that enough is written, then kills with SIGKILL.
fn kill_when_dirty(command: &mut Command) -> Result<()> {
    let mut child = command.spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("stdout is piped")?;
    let read = BufReader::new(stdout).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    if line.trim() != "dirty" {
        bail!("the child that was to be killed ended by itself");
    }
    Ok(())
}

fn say(figures: &Figures) {
    let values: Vec<_> =
        figures.values.iter().map(|(name, value)| format!("{name}={value:.2}")).collect();
    let (engine, work) = (figures.engine.name(), figures.work.arg());
    eprintln!("run {} {work} {engine}: {}", figures.run, values.join(" "));
}
