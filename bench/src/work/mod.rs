//! The works. Each runs in a process of its own, on a directory that an earlier work filled or on an
//! empty one.

mod build;
mod cold;
mod floor;
mod latency;
mod open;
mod read;
pub(crate) mod space;
mod write;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::data::Values;
use crate::engine::{Durability, Engine, Kind, Settings};
use crate::figures::Figures;
use crate::process;

/// Bytes of the disk that no work takes.
const DISK_LEFT: u64 = 4 << 30;

#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Work {
    /// Sets every key once, one at a time, buffered, into an empty store. The works that follow
    /// use what it leaves.
    Fill,
    /// Gets keys at random.
    Get,
    /// Gets keys that are not there.
    Absent,
    ScanKeys,
    ScanValues,
    /// Opens what was closed in good order, and gets one key.
    OpenClean,
    /// Gets at random from a store that was dropped from the page cache, in a quarter of its memory.
    Cold,
    /// Gets and sets at a fixed pace from a store without garbage on, through its compactions.
    Latency,
    /// Overwrites keys at random, one at a time, buffered.
    Overwrite,
    /// Overwrites for as long as told and watches the disk, then rests and watches.
    Space,
    /// Opens what a kill -9 left, and gets one key. Its parent makes a child overwrite until killed.
    OpenKilled,
    /// Not a row: what is killed.
    #[value(hide = true)]
    Dirty,
    /// Sets in atomic batches of 100, buffered, into an empty store.
    Batch,
    /// Sets, synced, by one thread.
    #[value(name = "sync-1")]
    #[serde(rename = "sync-1")]
    Sync1,
    /// Builds a program that uses nothing but the engine, from an empty target directory.
    Build,
    /// Sets, synced, by 16 threads.
    #[value(name = "sync-16")]
    #[serde(rename = "sync-16")]
    Sync16,
}

impl Work {
    /// In the order in which a run does them.
    pub(crate) const ALL: [Self; 15] = [
        Self::Fill,
        Self::Get,
        Self::Absent,
        Self::ScanKeys,
        Self::ScanValues,
        Self::OpenClean,
        Self::Cold,
        Self::Latency,
        Self::Overwrite,
        Self::Space,
        Self::OpenKilled,
        Self::Batch,
        Self::Sync1,
        Self::Sync16,
        Self::Build,
    ];

    pub(crate) fn arg(self) -> String {
        self.to_possible_value().expect("none is skipped").get_name().to_string()
    }

    /// Whether it begins with an empty directory that nothing else uses.
    pub(crate) fn alone(self) -> bool {
        matches!(self, Self::Batch | Self::Sync1 | Self::Sync16 | Self::Build)
    }
}

/// What a child was asked to do.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Job {
    pub(crate) engine: Kind,
    pub(crate) work: Work,
    pub(crate) keys: u64,
    pub(crate) value_bytes: usize,
    pub(crate) dir: PathBuf,
    /// The budget of engines that keep a cache of their own, in MiB.
    #[arg(long, default_value_t = 1024)]
    pub(crate) cache_mib: u64,
    /// For how long a work that has no end of its own goes on.
    #[arg(long, default_value_t = 10.0)]
    pub(crate) seconds: f64,
    /// Sets, and gets, a second of the latency work.
    #[arg(long, default_value_t = 50_000)]
    pub(crate) pace: u64,
    /// The control group that limits the memory of this process, which joins it.
    #[arg(long)]
    pub(crate) cage: Option<PathBuf>,
    /// Which of the runs: the seed of what is random.
    #[arg(long, default_value_t = 0)]
    pub(crate) run: u32,
}

impl Job {
    fn values(&self) -> Values {
        Values::new(self.value_bytes)
    }

    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }

    /// Bytes of keys and values that are there once all are set, as a user counts them.
    fn live_bytes(&self) -> u64 {
        self.keys * self.pair_bytes()
    }

    /// Of one key and its value.
    fn pair_bytes(&self) -> u64 {
        (crate::data::KEY_BYTES + self.value_bytes) as u64
    }

    /// A work that may write for long ends when little is left for anybody else.
    fn disk_is_full(&self) -> bool {
        process::disk_free(&self.dir).is_some_and(|free| free < DISK_LEFT)
    }

    fn open(&self, durability: Durability) -> Result<Box<dyn Engine>> {
        let (cache_bytes, value_bytes) = (self.cache_mib << 20, self.value_bytes);
        let larger_than_memory = false;
        let settings = Settings { durability, cache_bytes, value_bytes, larger_than_memory };
        self.engine.open(&self.dir, settings)
    }
}

/// Waits for what an engine still does in the background, so that reads are not measured beside it:
/// some open with the compactions that they left.
fn settle(engine: &dyn Engine, patience: Duration) {
    let (start, mut quiet) = (Instant::now(), 0);
    while quiet < 50 && start.elapsed() < patience {
        std::thread::sleep(Duration::from_millis(10));
        quiet = match engine.compacting() {
            Some(true) => 0,
            Some(false) => quiet + 1,
            None => break,
        };
    }
}

/// What the child does.
pub(crate) fn run(job: &Job) -> Result<Figures> {
    let mut figures = Figures::new(job);
    let out = &mut figures;
    match job.work {
        Work::Build => build::run(job, out)?,
        Work::Cold => cold::run(job, out)?,
        _ if job.engine == Kind::Bare => floor::run(job, out)?,
        Work::Fill => write::fill(job, out)?,
        Work::Overwrite => write::overwrite(job, out)?,
        Work::Batch => write::batches(job, out)?,
        Work::Sync1 => write::synced(job, 1, out)?,
        Work::Sync16 => write::synced(job, 16, out)?,
        Work::Get => read::get(job, 0, out)?,
        Work::Absent => read::get(job, crate::data::ABSENT, out)?,
        Work::ScanKeys => read::scan(job, false, out)?,
        Work::ScanValues => read::scan(job, true, out)?,
        Work::OpenClean | Work::OpenKilled => open::run(job, out)?,
        Work::Dirty => open::dirty(job)?,
        Work::Space => space::run(job, out)?,
        Work::Latency => latency::run(job, out)?,
    }
    Ok(figures)
}
