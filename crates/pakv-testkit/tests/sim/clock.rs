//! The clock jumps, forward and back, under a store with expiries, compactions and crashes.
//!
//! Which keys are there is then no longer a question of the time alone: a key whose expiry had
//! passed may be gone for good, or be there again once the clock is before it. What holds whatever
//! the clock does: a key shows its newest value or nothing; it is not there once its expiry has
//! passed; a value that was overwritten or deleted while it was there never comes back; a key
//! whose expiry no clock has reached yet is there. `PAKV_CLOCK_SEEDS` sets how many runs there are.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use pakv::storage::Storage;
use pakv::{Clock, Db, Durability, Expiry, ManualClock, Options, WriteBatch};
use pakv_testkit::sim::{CrashMode, SimStorage};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const KEYS: usize = 10;

/// The newest value of a key and when it expires.
type Newest = BTreeMap<String, (String, Option<u64>)>;

struct Run {
    rng: Rng,
    clock: Arc<ManualClock>,
    options: Options,
    newest: Newest,
    /// The latest time that any clock has shown.
    latest_ms: u64,
    values: u64,
    forced: bool,
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let clock = Arc::new(ManualClock::new(10_000));
        let options = Options::new()
            .background_compaction(false)
            .segment_bytes([512, 1024, 2048][rng.usize(0..3)])
            .compaction_min_garbage(1)
            .compaction_segment_garbage_ratio([0.05, 0.6, 0.8][rng.usize(0..3)])
            .compaction_space_amplification([1.1, 100.0][rng.usize(0..2)])
            .durability(Durability::Sync)
            .lock_wait(Duration::ZERO)
            .clock(clock.clone() as Arc<dyn Clock>);
        let forced = rng.bool();
        Self { rng, clock, options, newest: Newest::new(), latest_ms: 10_000, values: 0, forced }
    }

    fn open(&self, machine: &SimStorage) -> pakv::Result<Db> {
        self.options.clone().open_storage(Arc::new(machine.clone()) as Arc<dyn Storage>)
    }

    fn jump(&mut self) {
        let now_ms = match self.rng.u8(0..4) {
            0 => self.clock.now_ms() + self.rng.u64(0..40),
            1 => self.clock.now_ms().saturating_sub(self.rng.u64(0..40)),
            2 => self.rng.u64(9_900..10_300),
            _ => self.latest_ms + 1,
        };
        self.clock.set_ms(now_ms);
        self.latest_ms = self.latest_ms.max(now_ms);
    }

    fn value(&mut self) -> (String, Option<u64>) {
        self.values += 1;
        let filler = "v".repeat(self.rng.usize(0..120));
        let ttl_ms = self.rng.u64(0..60);
        let expires_at_ms = (self.rng.u8(0..3) > 0).then(|| self.clock.now_ms() + ttl_ms);
        (format!("{} {filler}", self.values), expires_at_ms)
    }

    fn step(&mut self, db: &Db) -> pakv::Result<()> {
        let key = format!("k{}", self.rng.usize(0..KEYS));
        match self.rng.u8(0..20) {
            0..6 => {
                let (value, expires_at_ms) = self.value();
                db.set_with_expiry(&key, &value, expiry(expires_at_ms))?;
                self.newest.insert(key, (value, expires_at_ms));
            }
            6..9 => {
                // What was not there is not deleted, and may come back.
                if db.delete(&key)? {
                    self.newest.remove(&key);
                }
            }
            9..11 => {
                let mut batch = WriteBatch::new();
                let other = format!("k{}", self.rng.usize(0..KEYS));
                let (value, expires_at_ms) = self.value();
                batch.delete(other.as_str());
                batch.set_with_expiry(key.as_str(), value.as_str(), expiry(expires_at_ms));
                db.write(&batch)?;
                self.newest.remove(&other);
                self.newest.insert(key, (value, expires_at_ms));
            }
            11..16 => self.jump(),
            // Forced compactions leave no segment out that something could come back from.
            16..18 if self.forced => {
                db.compact()?;
            }
            _ => db.maintain()?,
        }
        Ok(())
    }

    fn check(&self, db: &Db) -> Result<(), String> {
        let now_ms = self.clock.now_ms();
        let failed = |error: pakv::Error| error.to_string();
        let mut found = BTreeMap::new();
        for entry in db.scan().map_err(failed)? {
            let expires_at_ms = entry.expires_at_ms();
            let (key, value) = entry.into_pair().map_err(failed)?;
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            found.insert(text(&key), (text(&value), expires_at_ms));
        }
        for (key, slot) in &found {
            if self.newest.get(key) != Some(slot) {
                return Err(format!("{key} shows {slot:?}, not {:?}", self.newest.get(key)));
            }
            if slot.1.is_some_and(|at| at <= now_ms) {
                return Err(format!("{key} is there at {now_ms}: {slot:?}"));
            }
        }
        let never_expired =
            |slot: &&(String, Option<u64>)| slot.1.is_none_or(|at| at > self.latest_ms);
        for (key, slot) in &self.newest {
            if never_expired(&slot) && !found.contains_key(key) {
                return Err(format!("{key} is gone at {now_ms}: {slot:?}"));
            }
            let got = db.get(key).map_err(failed)?;
            let scanned = found.get(key).map(|slot| slot.0.as_bytes());
            if got.as_deref() != scanned {
                return Err(format!("get and scan differ on {key}"));
            }
        }
        Ok(())
    }
}

fn expiry(expires_at_ms: Option<u64>) -> Expiry {
    let instant = |ms| Expiry::At(UNIX_EPOCH + Duration::from_millis(ms));
    expires_at_ms.map_or(Expiry::Never, instant)
}

#[test]
fn whatever_the_clock_does_no_older_value_comes_back() -> Outcome {
    let seeds = std::env::var("PAKV_CLOCK_SEEDS").ok().map_or(Ok(2_500), |seeds| seeds.parse())?;
    for seed in 0..seeds {
        let mut run = Run::new(seed);
        let mut machine = SimStorage::new(seed);
        for life in 0..4 {
            let context = |wrong| format!("seed {seed}, life {life}: {wrong}");
            let db = run.open(&machine).map_err(|error| context(error.to_string()))?;
            run.check(&db).map_err(context)?;
            for _ in 0..run.rng.usize(0..60) {
                run.step(&db).map_err(|error| context(error.to_string()))?;
                run.check(&db).map_err(context)?;
            }
            if run.rng.bool() {
                db.close()?;
            } else {
                machine.power_off();
                drop(db);
            }
            let mode = [CrashMode::Kill, CrashMode::Ext4, CrashMode::Posix][run.rng.usize(0..3)];
            machine.power_off();
            machine = machine.crash(run.rng.u64(..), mode);
            if run.rng.bool() {
                run.jump();
            }
        }
    }
    Ok(())
}
