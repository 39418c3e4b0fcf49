//! Where the time of a work goes: the same child that is measured, under a profiler.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;

use crate::child;
use crate::engine::Kind;
use crate::figures::Figures;
use crate::work::{Job, Work};

#[derive(Debug, clap::Args)]
pub(crate) struct Profile {
    work: Work,
    #[arg(long, default_value = "pakv")]
    engine: Kind,
    #[arg(long, value_enum, default_value_t = With::Perf)]
    with: With,
    #[arg(long, default_value_t = 1_000_000)]
    keys: u64,
    #[arg(long, default_value_t = 100)]
    value_bytes: usize,
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// How many functions are named.
    #[arg(long, default_value_t = 25)]
    top: usize,
    /// Where the store is made; what the profiler wrote stays beside it.
    #[arg(long, default_value = "target/bench-profile")]
    dir: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum With {
    /// Samples all threads and the kernel by the clock. Needs Linux's perf.
    Perf,
    /// Counts instructions inside the engine's calls, the same in every run; slow, so that fewer keys
    /// will do. Needs valgrind. The kernel and what waits are not seen.
    Callgrind,
}

impl Profile {
    pub(crate) fn run(&self) -> Result<()> {
        fs::create_dir_all(&self.dir)?;
        let store = self.dir.join(self.engine.arg());
        match fs::remove_dir_all(&store) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => (),
        }
        if !self.work.alone() && self.work != Work::Fill {
            let figures = child::measure(&self.job(Work::Fill, &store));
            ensure!(figures.failed.is_none(), "the store cannot be filled");
        }
        let job = self.job(self.work, &store);
        match self.with {
            With::Perf => self.perf(&job),
            With::Callgrind => self.callgrind(&job),
        }
    }

    fn job(&self, work: Work, store: &Path) -> Job {
        Job {
            engine: self.engine,
            work,
            keys: self.keys,
            value_bytes: self.value_bytes,
            dir: store.to_path_buf(),
            cache_mib: 1024,
            seconds: self.seconds,
            pace: 50_000,
            cage: None,
            run: 0,
        }
    }

    fn out(&self, extension: &str) -> PathBuf {
        self.dir.join(format!("{}-{}.{extension}", self.engine.arg(), self.work.arg()))
    }

    fn perf(&self, job: &Job) -> Result<()> {
        let out = self.out("perf");
        let mut command = Command::new("perf");
        // By the clock: virtual machines often have no other event.
        command.args(["record", "--quiet", "--event=cpu-clock", "--freq=1999", "--output"]);
        let figures = measured(command.arg(&out).arg("--"), job)?;
        let mut report = Command::new("perf");
        report.args(["report", "--stdio", "--no-children", "--sort=symbol", "--input"]);
        let text = output(report.arg(&out))?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        self.say(&figures, lines);
        Ok(())
    }

    fn callgrind(&self, job: &Job) -> Result<()> {
        let out = self.out("callgrind");
        let mut command = Command::new("valgrind");
        command.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", out.display()));
        let inside = calls(self.work);
        command.args(inside.map(|name| format!("--toggle-collect={name}")));
        let figures = measured(&mut command, job)?;
        let mut annotate = Command::new("callgrind_annotate");
        let text = output(annotate.args(["--auto=no", "--show-percs=yes"]).arg(&out))?;
        let lines: Vec<_> = text.lines().skip_while(|line| !line.starts_with("Ir")).collect();
        let total = lines.iter().find(|line| line.contains("PROGRAM TOTALS"));
        let total = total.and_then(|line| line.split_whitespace().next());
        let total: Option<f64> = total.and_then(|text| text.replace(',', "").parse().ok());
        if let (Some(total), Some(calls)) = (total, figures.values.get("calls")) {
            println!("{:.0} instructions a call, of {calls} calls\n", total / calls);
        }
        let functions = lines.into_iter().filter(|line| line.contains(':'));
        self.say(&figures, functions);
        Ok(())
    }

    fn say<'t>(&self, figures: &Figures, lines: impl Iterator<Item = &'t str>) {
        if let Some(ops) = figures.values.get("ops") {
            println!("{ops:.0} a second, while watched\n");
        }
        for line in lines.take(self.top) {
            println!("{}", line.trim_end());
        }
        println!("\nmore: in {}", self.dir.display());
    }
}

/// The engine's functions whose inside is counted; the work's own code around them is not. None where
/// the work is as a whole the engine's.
fn calls(work: Work) -> Option<&'static str> {
    match work {
        Work::Get | Work::Absent => Some("*engine::Reader>::get"),
        Work::Fill | Work::Overwrite | Work::Sync1 | Work::Sync16 => Some("*engine::Engine>::set"),
        Work::Batch => Some("*engine::Engine>::set_all"),
        Work::ScanKeys | Work::ScanValues => Some("*engine::Engine>::scan"),
        _ => None,
    }
}

/// Runs the child under the profiler that `command` begins.
fn measured(command: &mut Command, job: &Job) -> Result<Figures> {
    let program = command.get_program().to_string_lossy().into_owned();
    command.arg(std::env::current_exe()?).arg("child").args(child::arguments(job));
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("{program} cannot be started"))?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with('{')).context("the child said nothing")?;
    Ok(serde_json::from_str(line)?)
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.stderr(Stdio::null()).output()?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
