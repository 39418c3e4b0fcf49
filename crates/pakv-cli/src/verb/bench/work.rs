//! The parts of a measurement: threads that do one thing over and over, and a look at what they have
//! done ten times a second.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use pakv::Db;

use super::Figures;
use crate::args::BenchArgs;
use crate::failure::Failure;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Entries of one operation of the scan.
const SCAN_ENTRIES: usize = 100;
/// Latencies are kept to this many digits; one is at most a minute.
const DIGITS: u8 = 3;
const LATENCY_MAX_NS: u64 = 60_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Fill,
    Overwrite,
    Read,
    Scan,
    ReadBesideWrites,
}

impl Part {
    pub(super) fn name(self) -> &'static str {
        match self {
            Part::Fill => "fill",
            Part::Overwrite => "overwrite",
            Part::Read => "read",
            Part::Scan => "scan",
            Part::ReadBesideWrites => "read+write",
        }
    }
}

/// What was seen at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// Since the bench began.
    pub(super) at: Duration,
    /// Nanoseconds, of the operations since the sample before; `None` where there were none.
    pub(super) latency: Option<(u64, u64)>,
    pub(super) disk_bytes: u64,
    pub(super) live_bytes: u64,
}

pub(super) struct Bench<'a> {
    db: &'a Db,
    args: &'a BenchArgs,
    began: Instant,
    /// How many keys the fill has set, the first of them all.
    keys: u64,
}

/// What the threads of a part share.
struct Shared {
    stop: AtomicBool,
    /// The next key of the fill.
    next: AtomicU64,
    beside: AtomicU64,
    /// Of each thread, since it was last looked at.
    windows: Vec<Mutex<Histogram<u64>>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(db: &'a Db, args: &'a BenchArgs) -> Self {
        Self { db, args, began: Instant::now(), keys: 0 }
    }

    /// Runs one part to its end, and tells `progress` how many thousandths of it are done.
    pub(super) fn run(&mut self, part: Part, progress: &dyn Fn(u64)) -> Result<Figures, Failure> {
        let threads = usize::from(self.args.threads);
        let shared = Shared {
            stop: AtomicBool::new(false),
            next: AtomicU64::new(0),
            beside: AtomicU64::new(0),
            windows: (0..threads).map(|_| Mutex::new(histogram())).collect(),
        };
        let started = Instant::now();
        let mut total = histogram();
        let mut samples = Vec::new();
        let (ended, end_of_one) = mpsc::channel();
        let result = thread::scope(|scope| {
            let (shared, this) = (&shared, &*self);
            let spawn = |number: Option<usize>| {
                let ended = ended.clone();
                scope.spawn(move || {
                    let result = match number {
                        Some(number) => this.work(part, number, shared),
                        None => this.write_beside(shared),
                    };
                    // Nobody waits for it any more where time is over.
                    let _ = ended.send(());
                    result
                })
            };
            let mut workers: Vec<_> = (0..threads).map(|number| spawn(Some(number))).collect();
            if part == Part::ReadBesideWrites {
                workers.push(spawn(None));
            }
            let end = started + Duration::from_secs(self.args.seconds);
            let mut looked = Ok(());
            // A thread ends early where the fill is done, or at an error.
            for next_sample in (1..).map(|number| started + number * SAMPLE_EVERY) {
                let now = Instant::now();
                let wait = next_sample.min(end).saturating_duration_since(now);
                if looked.is_err() || now >= end || end_of_one.recv_timeout(wait).is_ok() {
                    break;
                }
                looked = self.sample(shared, &mut total).map(|sample| samples.push(sample));
                let of_time = started.elapsed().as_millis() / u128::from(self.args.seconds.max(1));
                let of_time = u64::try_from(of_time).unwrap_or(u64::MAX);
                let of_keys = match part {
                    Part::Fill => total.len().saturating_mul(1000) / self.args.keys.max(1),
                    _ => 0,
                };
                progress(of_time.max(of_keys));
            }
            shared.stop.store(true, Ordering::Relaxed);
            let joined = workers.into_iter().try_for_each(|worker| match worker.join() {
                Ok(result) => result.map_err(Failure::from),
                Err(panic) => std::panic::resume_unwind(panic),
            });
            joined.and(looked)
        });
        let took = started.elapsed();
        result?;
        samples.push(self.sample(&shared, &mut total)?);
        if part == Part::Fill {
            self.keys = total.len();
        }
        let stats = self.db.stats()?;
        Ok(Figures {
            part,
            operations: total.len(),
            took,
            p50: total.value_at_quantile(0.5),
            p99: total.value_at_quantile(0.99),
            p999: total.value_at_quantile(0.999),
            max: total.max(),
            disk_bytes: stats.disk_bytes(),
            live_bytes: stats.live_bytes,
            writes_beside: (part == Part::ReadBesideWrites)
                .then(|| shared.beside.load(Ordering::Relaxed)),
            samples,
        })
    }

    fn sample(&self, shared: &Shared, total: &mut Histogram<u64>) -> Result<Sample, Failure> {
        let mut window = histogram();
        for of_thread in &shared.windows {
            let mut of_thread = of_thread.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut window, &of_thread);
            of_thread.reset();
        }
        add(total, &window);
        let stats = self.db.stats()?;
        let quantile = |quantile| window.value_at_quantile(quantile);
        Ok(Sample {
            at: self.began.elapsed(),
            latency: (!window.is_empty()).then(|| (quantile(0.5), quantile(0.99))),
            disk_bytes: stats.disk_bytes(),
            live_bytes: stats.live_bytes,
        })
    }

    fn work(&self, part: Part, number: usize, shared: &Shared) -> pakv::Result<()> {
        let Some(window) = shared.windows.get(number) else { return Ok(()) };
        let mut random = Random(number as u64 + 1);
        let mut value = self.value();
        while !shared.stop.load(Ordering::Relaxed) {
            let key = match part {
                Part::Fill => match shared.next.fetch_add(1, Ordering::Relaxed) {
                    next if next < self.args.keys => next,
                    _ => break,
                },
                _ => random.below(self.keys),
            };
            let key = key_bytes(key);
            let started = Instant::now();
            match part {
                Part::Fill | Part::Overwrite => {
                    random.fill(&mut value);
                    self.db.set(key, &value)?;
                }
                Part::Read | Part::ReadBesideWrites => {
                    std::hint::black_box(self.db.get(key)?);
                }
                Part::Scan => {
                    for entry in self.db.scan_range(key..)?.take(SCAN_ENTRIES) {
                        std::hint::black_box(entry.value()?);
                    }
                }
            }
            let took = u64::try_from(started.elapsed().as_nanos()).unwrap_or(LATENCY_MAX_NS);
            let mut window = window.lock().unwrap_or_else(PoisonError::into_inner);
            window.saturating_record(took);
        }
        Ok(())
    }

    /// Overwrites without a pause.
    fn write_beside(&self, shared: &Shared) -> pakv::Result<()> {
        let mut random = Random(0);
        let mut value = self.value();
        while !shared.stop.load(Ordering::Relaxed) {
            random.fill(&mut value);
            self.db.set(key_bytes(random.below(self.keys)), &value)?;
            shared.beside.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    fn value(&self) -> Vec<u8> {
        vec![0; usize::try_from(self.args.value_bytes).unwrap_or(0)]
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_MAX_NS, DIGITS)
        .unwrap_or_else(|_| unreachable!("the bounds are constants that the crate accepts"))
}

/// Both have the same bounds, so that there is nothing to refuse.
fn add(to: &mut Histogram<u64>, other: &Histogram<u64>) {
    let added = to.add(other);
    debug_assert!(added.is_ok());
}

/// The key of a number: 16 hexadecimal digits, in an order that is not that of the numbers.
fn key_bytes(number: u64) -> [u8; 16] {
    // An odd factor: no two numbers have the same key.
    let mut rest = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    std::array::from_fn(|_| {
        let digit = b"0123456789abcdef".get((rest >> 60) as usize).copied().unwrap_or(b'0');
        rest <<= 4;
        digit
    })
}

/// The sequence of splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }

    /// Changes the beginning of a value: no two writes are alike, and to make them takes no time.
    fn fill(&mut self, value: &mut [u8]) {
        for (byte, random) in value.iter_mut().zip(self.next().to_le_bytes()) {
            *byte = random;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_one_length_and_differ() {
        let keys: std::collections::BTreeSet<_> = (0..10_000).map(key_bytes).collect();
        assert_eq!(keys.len(), 10_000);
        assert_eq!(&key_bytes(1), b"9e3779b97f4a7c15");
    }
}
