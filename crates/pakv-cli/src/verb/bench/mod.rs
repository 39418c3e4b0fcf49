//! `bench`: pakv measured on the machine of whoever asks, in a store that is made for it.

mod plot;
mod work;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use pakv::{Durability, Options};

use crate::args::{BenchArgs, OutputForm};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, count, counted, size, whole_ms};
use crate::progress::Progress;
use work::{Bench, Part, Part::*, Sample};

const PARTS: [Part; 5] = [Fill, Overwrite, Read, Scan, ReadBesideWrites];

/// What a part came to. Latencies are nanoseconds.
struct Figures {
    part: Part,
    operations: u64,
    took: Duration,
    p50: u64,
    p99: u64,
    p999: u64,
    max: u64,
    disk_bytes: u64,
    live_bytes: u64,
    /// How many writes the thread beside the reads made.
    writes_beside: Option<u64>,
    /// Over time, for the picture.
    samples: Vec<Sample>,
}

impl Figures {
    fn per_second(&self, number: u64) -> u64 {
        let ms = self.took.as_millis().max(1);
        u64::try_from(u128::from(number) * 1000 / ms).unwrap_or(u64::MAX)
    }
}

pub(super) fn run(cx: &mut Context, args: &BenchArgs) -> Result<Exit, Failure> {
    let is_json = args.json || cx.form == OutputForm::Json;
    let scratch = Scratch::new(&args.dir)?;
    let db = Options::new().durability(args.durability).open(&scratch.path)?;
    if !is_json {
        head(cx, args)?;
    }
    let mut bench = Bench::new(&db, args);
    let mut all = Vec::new();
    for part in PARTS {
        let bar = Progress::thousandths(part.name());
        let figures = bench.run(part, &|done| bar.set(done))?;
        drop(bar);
        let line = if is_json { json(&figures) } else { line(&figures) };
        writeln!(cx.out, "{line}")?;
        cx.out.flush()?;
        all.push(figures);
    }
    db.close()?;
    if let Some(path) = &args.plot {
        plot::draw(path, &all).map_err(|error| {
            Failure::failed("io", format!("cannot write {}: {error}", path.display()))
        })?;
    }
    Ok(Exit::Done)
}

fn head(cx: &mut Context, args: &BenchArgs) -> Result<(), Failure> {
    let BenchArgs { keys, value_bytes, threads, .. } = args;
    let durability = match args.durability {
        Durability::Sync => "each write synced".to_string(),
        Durability::Interval(every) => format!("synced every {every:?}"),
        Durability::Buffered => "not synced".to_string(),
    };
    writeln!(
        cx.out,
        "{}, values of {}, {}, {durability}\n",
        counted(*keys, "key"),
        size(*value_bytes),
        counted((*threads).into(), "thread")
    )?;
    writeln!(
        cx.out,
        "{:<12} {:>10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>10}",
        "", "operations", "a second", "p50", "p99", "p99.9", "max", "on disk"
    )?;
    Ok(())
}

fn line(figures: &Figures) -> String {
    let time = |ns| format!("{:.1?}", Duration::from_nanos(ns));
    let mut line = format!(
        "{:<12} {:>10} {:>11} {:>9} {:>9} {:>9} {:>9} {:>10}",
        figures.part.name(),
        count(figures.operations),
        count(figures.per_second(figures.operations)),
        time(figures.p50),
        time(figures.p99),
        time(figures.p999),
        time(figures.max),
        size(figures.disk_bytes),
    );
    if let Some(writes) = figures.writes_beside {
        line += &format!(
            "\n{:<12} {:>10} {:>11}",
            "  written",
            count(writes),
            count(figures.per_second(writes))
        );
    }
    line
}

fn json(figures: &Figures) -> String {
    let mut line = JsonLine::new()
        .field("part", figures.part.name())
        .field("operations", figures.operations)
        .field("duration_ms", whole_ms(figures.took))
        .field("operations_per_second", figures.per_second(figures.operations))
        .field("p50_ns", figures.p50)
        .field("p99_ns", figures.p99)
        .field("p999_ns", figures.p999)
        .field("max_ns", figures.max)
        .field("disk_bytes", figures.disk_bytes)
        .field("live_bytes", figures.live_bytes);
    if let Some(writes) = figures.writes_beside {
        line = line.field("writes_beside", writes);
    }
    line.into_string()
}

/// A directory that is removed with all that is in it.
struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a new one inside `dir`.
    fn new(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join(format!("pakv-bench-{}", std::process::id()));
        // One that is there is somebody else's, or what an interrupted run has left.
        fs::create_dir(&path).map_err(|error| Failure::file("create", &path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It is named in the help; whoever cannot remove it now finds it there.
        let _ = fs::remove_dir_all(&self.path);
    }
}
