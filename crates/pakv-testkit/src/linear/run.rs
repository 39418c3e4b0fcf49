//! One history: what the threads do, and the store under them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use pakv::storage::{OsStorage, Storage};
use pakv::{Db, Durability, Error, FileAccess, ManualClock, Options};
use parking_lot::{Mutex, RwLock};
use tempfile::TempDir;

use super::bank;
use super::history::{Failure, Recorder};
use super::liar::{Liar, LiarState, Lie};
use super::slow::Slow;
use super::spec::{Answer, Call, START_MS, Subject, Wanted};
use crate::files;
use crate::sim::SimStorage;

const THREADS: usize = 8;
const KEYS: usize = 10;
/// How many calls on keys a history has.
const CALLS: u64 = 200;

/// What was done, added up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Histories.
    pub histories: u64,
    /// Calls on keys.
    pub calls: u64,
    /// Those of them in which another began.
    pub overlapped: u64,
    /// Times the store was opened again, after a close under its threads or a quiet one.
    pub reopens: u64,
    /// Calls that a close refused.
    pub refused: u64,
    /// Compactions that ended.
    pub compactions: u64,
    /// Looks at all accounts at once.
    pub audits: u64,
}

impl Tally {
    /// Adds another's.
    pub fn add(&mut self, other: &Tally) {
        let Tally { histories, calls, overlapped, reopens, refused, compactions, audits } = other;
        self.histories += histories;
        self.calls += calls;
        self.overlapped += overlapped;
        self.reopens += reopens;
        self.refused += refused;
        self.compactions += compactions;
        self.audits += audits;
    }
}

/// Makes one history and checks it; with a [`Lie`], of a store that tells it.
///
/// # Errors
/// What no linearizable store would have answered.
pub fn check_seed(seed: u64, lie: Option<Lie>) -> Result<Tally, Failure> {
    let mut run = Run::new(seed, lie);
    run.phases().and_then(|()| run.recorder.check(KEYS)).map_err(|what| Failure { seed, what })?;
    let (calls, overlapped) = run.recorder.counts();
    Ok(Tally {
        histories: 1,
        calls,
        overlapped,
        refused: run.refused.load(Ordering::SeqCst),
        audits: run.audits.load(Ordering::SeqCst),
        ..run.tally
    })
}

/// Where the store lives.
enum Place {
    Dir(TempDir),
    Sim(SimStorage),
}

struct Run {
    seed: u64,
    lie: Option<Lie>,
    liar: LiarState,
    place: Place,
    options: Options,
    clock: Arc<ManualClock>,
    now_ms: AtomicU64,
    /// Held shared by the calls that the clock must not pass: whether a key is there is decided
    /// when they are queued, and shows when they are written. A key that expires between the two
    /// is one that they found there, and one that they may give a new expiry.
    deciding: RwLock<()>,
    recorder: Recorder,
    /// Calls begun, over all threads and phases.
    begun: AtomicU64,
    refused: AtomicU64,
    audits: AtomicU64,
    tally: Tally,
    failed: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// When the threads of a phase stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// So many calls have begun.
    Begun(u64),
    /// The store is closed under them, at about so many.
    Closed(u64),
}

impl Run {
    fn new(seed: u64, lie: Option<Lie>) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(ManualClock::new(START_MS));
        let options = Options::new()
            .segment_bytes(rng.u64(512..2048))
            .file_access(if rng.bool() { FileAccess::Mapped } else { FileAccess::Positional })
            .compaction_space_amplification(1.05)
            .compaction_segment_garbage_ratio(0.05)
            .compaction_min_garbage(0)
            .keydir_merge_keys(3)
            .compaction_rate(None)
            .lock_wait(Duration::from_secs(60))
            .clock(clock.clone());
        let place = if rng.bool() {
            Place::Dir(files::scratch())
        } else {
            Place::Sim(SimStorage::new(seed))
        };
        Self {
            seed,
            lie,
            liar: LiarState::default(),
            place,
            options,
            clock,
            now_ms: AtomicU64::new(START_MS),
            deciding: RwLock::new(()),
            recorder: Recorder::default(),
            begun: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            audits: AtomicU64::new(0),
            tally: Tally::default(),
            failed: AtomicBool::new(false),
            failure: Mutex::new(None),
        }
    }

    fn open(&self) -> Result<Db, String> {
        let inner: Arc<dyn Storage> = match &self.place {
            Place::Dir(dir) => Arc::new(OsStorage::new(dir.path())),
            Place::Sim(sim) => Arc::new(sim.clone()),
        };
        let storage = Arc::new(Slow::new(inner, self.seed));
        self.options.clone().open_storage(storage).map_err(told("an open"))
    }

    /// Three phases with a reopen after each, the second of which the store is closed under, and a
    /// last look at every key.
    fn phases(&mut self) -> Result<(), String> {
        let db = self.open()?;
        bank::open(&db).map_err(told("the first batch"))?;
        db.close().map_err(told("the first close"))?;
        let phases =
            [Until::Begun(CALLS / 3), Until::Closed(CALLS / 2), Until::Begun(CALLS - KEYS as u64)];
        for (number, until) in phases.into_iter().enumerate() {
            let db = self.open()?;
            self.tally.reopens += 1;
            self.phase(number, &db, until);
            let found = self.failure.lock().take();
            if let Some(found) = found {
                return Err(found);
            }
            if !matches!(until, Until::Closed(_)) {
                self.tally.compactions += db.stats().map_err(told("stats"))?.compaction.runs;
                db.close().map_err(told("a close"))?;
            }
            if number == 1 {
                self.lose_hints();
            }
        }
        let db = self.open()?;
        self.tally.reopens += 1;
        for key in 0..KEYS {
            self.call_on(&db, 0, key, Call::Get).map_err(told("the last get"))?;
        }
        bank::audit(&db).map_err(told("the last audit"))??;
        db.close().map_err(told("the last close"))
    }

    fn phase(&self, number: usize, db: &Db, until: Until) {
        let start = Barrier::new(THREADS);
        let closer = Mutex::new(Some(db.clone()));
        std::thread::scope(|scope| {
            let threads = (0..THREADS).map(|thread| {
                let (start, closer) = (&start, &closer);
                scope.spawn(move || {
                    let salt = ((number * THREADS + thread + 1) as u64) << 32;
                    let rng = Rng::with_seed(self.seed ^ salt);
                    start.wait();
                    let worker = Worker { run: self, thread, rng, number: 0, seen: [0; KEYS] };
                    if let Err(what) = worker.work(db, until, closer) {
                        self.failed.store(true, Ordering::SeqCst);
                        self.failure.lock().get_or_insert(what);
                    }
                })
            });
            // Joined one by one: how a scope waits for its threads the sanitizer does not see.
            for thread in threads.collect::<Vec<_>>() {
                if let Err(panic) = thread.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    /// Without its hints a store is the same.
    fn lose_hints(&self) {
        match &self.place {
            Place::Dir(dir) => files::remove_hints(dir.path()),
            Place::Sim(sim) => sim.erase(|name| name.ends_with(".hint")),
        }
    }

    fn call_on(&self, db: &Db, thread: usize, key: usize, call: Call) -> pakv::Result<Answer> {
        let name = format!("key{key}");
        let _deciding =
            matches!(call, Call::CompareAndSet(..) | Call::Expire(_)).then(|| self.deciding.read());
        self.recorder.record((thread, Some(key)), call, || match self.lie {
            None => db.call(&name, call),
            Some(lie) => Liar { db, lie, state: &self.liar }.call(&name, call),
        })
    }
}

fn told(what: &str) -> impl Fn(Error) -> String {
    move |error| format!("{what} failed: {error:?}")
}

/// One thread in one phase.
struct Worker<'a> {
    run: &'a Run,
    thread: usize,
    rng: Rng,
    number: u64,
    /// The last value of each key that this thread knows of.
    seen: [u64; KEYS],
}

impl Worker<'_> {
    fn work(mut self, db: &Db, until: Until, closer: &Mutex<Option<Db>>) -> Result<(), String> {
        let durability = match self.thread % 4 {
            0 | 1 => Durability::Sync,
            2 => Durability::Interval(Duration::from_millis(1)),
            _ => Durability::Buffered,
        };
        let db = match db.with_durability(durability) {
            Ok(db) => db,
            Err(error) => return Err(format!("a handle of another durability: {error:?}")),
        };
        while !self.run.failed.load(Ordering::SeqCst) {
            let begun = self.run.begun.fetch_add(1, Ordering::SeqCst);
            match until {
                Until::Begun(count) if begun >= count => {
                    self.run.begun.fetch_sub(1, Ordering::SeqCst);
                    return Ok(());
                }
                Until::Closed(count) if begun >= count => {
                    let closing = closer.lock().take();
                    if let Some(db) = closing {
                        db.close().map_err(told("a close under the threads"))?;
                    }
                    // The close may have to wait for a compaction, and reads go on until then.
                    std::thread::sleep(Duration::from_micros(100));
                }
                Until::Begun(_) | Until::Closed(_) => {}
            }
            match self.step(&db) {
                Ok(Ok(())) => {}
                Ok(Err(found)) => return Err(found),
                Err(Error::Closed) if matches!(until, Until::Closed(_)) => {
                    // It says that it was not carried out: nothing is recorded, and anything that
                    // it did all the same nothing explains.
                    self.run.begun.fetch_sub(1, Ordering::SeqCst);
                    self.run.refused.fetch_add(1, Ordering::SeqCst);
                    return Ok(());
                }
                Err(error) => return Err(format!("an error nobody asked for: {error:?}")),
            }
        }
        Ok(())
    }

    /// One call on a key, and now and then something else.
    fn step(&mut self, db: &Db) -> pakv::Result<Result<(), String>> {
        match self.rng.u8(..32) {
            0 => {
                db.compact()?;
            }
            1 | 2 => bank::transfer(db, &mut self.rng)?,
            3 => bank::stamp(db, self.fresh())?,
            4 | 5 => {
                self.run.audits.fetch_add(1, Ordering::SeqCst);
                if let Err(found) = bank::audit(db)? {
                    return Ok(Err(found));
                }
            }
            6 => self.tick(),
            _ => {}
        }
        // Two keys get half of the calls, so that there is something to fight for.
        let key = if self.rng.bool() { self.rng.usize(..2) } else { self.rng.usize(..KEYS) };
        let call = self.any_call(key);
        match (self.run.call_on(db, self.thread, key, call)?, call) {
            (Answer::Value(Some(number)), _) | (_, Call::Set(number, _)) => self.seen[key] = number,
            _ => {}
        }
        Ok(Ok(()))
    }

    /// Moves the clock, for every key. One thread does, or it would go back.
    fn tick(&mut self) {
        if self.thread > 0 {
            return;
        }
        let _nobody_decides = self.run.deciding.write();
        let by = self.rng.u64(1..20);
        let now_ms = self.run.now_ms.fetch_add(by, Ordering::SeqCst) + by;
        let Ok(_) = self.run.recorder.record((self.thread, None), Call::Tick(now_ms), || {
            self.run.clock.set_ms(now_ms);
            Ok::<_, Infallible>(Answer::Done)
        });
    }

    /// A number that nobody else sets; the numbers after it belong to it too, for those who add.
    fn fresh(&mut self) -> u64 {
        self.number += 1;
        let begun = self.run.begun.load(Ordering::SeqCst);
        (begun * THREADS as u64 + self.thread as u64) * 1_000_000 + self.number * 1_000
    }

    fn any_call(&mut self, key: usize) -> Call {
        let (fresh, seen) = (self.fresh(), self.seen[key]);
        match self.rng.u8(..20) {
            0..=4 => Call::Get,
            5 => Call::Contains,
            6..=9 => Call::Set(fresh, self.expires()),
            10..=12 => Call::Delete,
            13 => Call::CompareAndSet(Wanted::Absent, fresh),
            14 => Call::CompareAndSet(Wanted::Present, fresh),
            15 => Call::CompareAndDelete(seen),
            16 | 17 => Call::Add(fresh),
            18 => Call::Expire(self.expires()),
            _ => Call::CompareAndSet(Wanted::Value(seen), fresh),
        }
    }

    fn expires(&mut self) -> Option<u64> {
        let now_ms = self.run.now_ms.load(Ordering::SeqCst);
        (self.rng.u8(..3) == 0).then(|| now_ms + self.rng.u64(..30))
    }
}
