//! A session: one process that has the store open, with the model in step. It carries out
//! operations, compares every answer, and stops when the machine goes off or a fault has struck.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pakv::storage::Storage;
use pakv::{
    Clock, Db, Durability, Expected, Expiry, ManualClock, Options, Scan, Snapshot, WriteBatch,
};

use super::history::{History, Slot, State, show, visible};
use super::storage::SimStorage;
use super::workload::{Guess, Level, Op, Value, Write, key};

/// Why a session does not go on.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The machine is off, or a fault struck: the store is to be opened again.
    Down,
    /// The store is wrong.
    Wrong(String),
}

pub(crate) type Step<T = ()> = Result<T, Stop>;

pub(crate) fn wrong<T>(what: impl Into<String>) -> Step<T> {
    Err(Stop::Wrong(what.into()))
}

/// A store's options and the storage it is to be opened on.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) options: Options,
    pub(crate) clock: Arc<ManualClock>,
    /// The number of the last key that can be there.
    pub(crate) last_key: u8,
    pub(crate) machine: SimStorage,
    /// The machine as the store sees it.
    pub(crate) storage: Arc<dyn Storage>,
}

pub(crate) struct Session {
    pub(crate) setup: Setup,
    db: Option<Db>,
    snapshot: Option<(Snapshot, State)>,
    /// Makes every value unlike every other.
    values: u64,
    /// How many calls faults had struck before the operation that is under way.
    struck_before: usize,
}

/// Makes the values of one session unlike those of the one before.
const VALUES_PER_SESSION: u64 = 1_000_000;

impl Session {
    /// Opens the store, which must show a state that `history` allows; goes on from that.
    pub(crate) fn open(setup: Setup, history: &mut History, number: u64) -> Step<Self> {
        let values = number * VALUES_PER_SESSION;
        let mut session = Self { setup, db: None, snapshot: None, values, struck_before: 0 };
        session.reopen(history)?;
        Ok(session)
    }

    /// A session around a store that is open already.
    pub(crate) fn around(setup: Setup, db: Db) -> Self {
        Self { setup, db: Some(db), snapshot: None, values: 0, struck_before: 0 }
    }

    fn reopen(&mut self, history: &mut History) -> Step {
        let Setup { options, storage, .. } = &self.setup;
        match options.clone().open_storage(storage.clone()) {
            Ok(db) => self.db = Some(db),
            Err(error) => return self.failed("open", &error),
        }
        let found = self.contents()?;
        if !history.allows(&found, self.now_ms()) {
            let explanation = history.explain(&found, self.now_ms());
            let kind = history.kind_of(&found, self.now_ms());
            return wrong(format!(
                "{kind}: the store opened with what cannot be there: {explanation}"
            ));
        }
        history.restart_from(found);
        self.check_names()
    }

    fn db(&self) -> Step<&Db> {
        self.db.as_ref().map_or_else(|| wrong("no store is open"), Ok)
    }

    fn now_ms(&self) -> u64 {
        self.setup.clock.now_ms()
    }

    /// An error is right if the power went off or a fault struck meanwhile, or if the store says
    /// that one had poisoned it; and wrong otherwise.
    fn failed<T>(&self, what: &str, error: &pakv::Error) -> Step<T> {
        let machine = &self.setup.machine;
        let struck = machine.fired().len();
        let poisoned = matches!(error, pakv::Error::Poisoned { .. }) && struck > 0;
        // A call that failed and is taken for damage is a wrong alarm.
        let excused = poisoned || struck > self.struck_before && !error.is_corruption();
        if machine.is_off() || excused {
            return Err(Stop::Down);
        }
        wrong(format!("{what} failed: {error}"))
    }

    /// Everything that the store shows, asked for in all the ways there are.
    pub(crate) fn contents(&self) -> Step<State> {
        let db = self.db()?;
        let state = self.read_all(db.scan().or_else(|error| self.failed("scan", &error))?)?;
        for number in 0..=self.setup.last_key {
            let key = key(number);
            let found = db.get(&key).or_else(|error| self.failed("get", &error))?;
            if found.as_deref() != state.get(&key).map(|slot| &*slot.0) {
                return wrong(format!("get and scan differ on key {number}"));
            }
        }
        match db.len() {
            Ok(len) if len == state.len() as u64 => Ok(state),
            Ok(len) => wrong(format!("len is {len}, a scan has {}", state.len())),
            Err(error) => self.failed("len", &error),
        }
    }

    /// `check` finds nothing: the files agree with each other and with what the store believes.
    pub(crate) fn check_files(&self) -> Step {
        match self.db()?.check() {
            Ok(report) if report.is_sound() => Ok(()),
            Ok(report) => wrong(format!("check finds {:?}", report.findings)),
            Err(error) => self.failed("check", &error),
        }
    }

    fn read_all(&self, scan: Scan) -> Step<State> {
        scan.map(|entry| {
            let value = entry.value().or_else(|error| self.failed("a scan", &error))?;
            Ok((entry.key().to_vec(), (Arc::from(value), entry.expires_at_ms())))
        })
        .collect()
    }

    /// The store shows what was acknowledged, no less and no more.
    pub(crate) fn check_contents(&self, history: &History) -> Step {
        let found = self.contents()?;
        let expected = visible(history.now(), self.now_ms());
        if found == expected {
            return Ok(());
        }
        wrong(format!("the store shows {}, not {}", show(&found), show(&expected)))
    }

    /// Every key has its value or an error that says that it is damaged; so too after a compaction.
    pub(crate) fn check_damaged(&self, history: &History) -> Step {
        let expected = visible(history.now(), self.now_ms());
        let db = self.db()?;
        for _ in 0..2 {
            for number in 0..=self.setup.last_key {
                let found = match db.get(key(number)) {
                    Err(error) if error.is_corruption() => continue,
                    Err(error) => return wrong(format!("damage was reported as: {error}")),
                    Ok(found) => found,
                };
                if found.as_deref() != expected.get(&key(number)).map(|slot| &*slot.0) {
                    return wrong(format!("key {number} has a wrong value in a damaged store"));
                }
            }
            match db.compact() {
                Err(error) if !error.is_corruption() => {
                    return wrong(format!("damage was reported as: {error}"));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An open leaves no file but those of live segments.
    fn check_names(&self) -> Step {
        let stats = self.db()?.stats().or_else(|error| self.failed("stats", &error))?;
        let mut allowed = vec!["LOCK".to_string(), "MANIFEST".to_string()];
        for segment in &stats.segments {
            allowed.push(format!("{:010}.log", segment.segment));
            if !segment.active {
                allowed.push(format!("{:010}.hint", segment.segment));
            }
        }
        let machine = &self.setup.machine;
        match machine.names().into_iter().find(|name| !allowed.contains(name)) {
            Some(name) if machine.fired().is_empty() => {
                wrong(format!("{name} was left behind by an open"))
            }
            _ => Ok(()),
        }
    }

    /// Carries out one operation.
    pub(crate) fn apply(&mut self, op: &Op, history: &mut History) -> Step {
        self.struck_before = self.setup.machine.fired().len();
        match op {
            Op::Set(..) | Op::Delete(..) | Op::Batch(..) | Op::Transaction(..) => {
                self.write(op, history)
            }
            Op::CompareAndSet(..) | Op::CompareAndDelete(..) | Op::Expire(..) => {
                self.write(op, history)
            }
            Op::Sync => {
                let synced = self.db()?.sync();
                self.after_write("sync", synced, history, true)
            }
            Op::Compact => {
                let compacted = self.db()?.compact().map(|_| ());
                self.after_upkeep("compact", compacted, history)
            }
            Op::CompactMeanwhile(ops) => self.compact_meanwhile(ops, history),
            Op::Maintain => {
                let maintained = self.db()?.maintain();
                self.after_upkeep("maintain", maintained, history)
            }
            Op::Wait(ms) => {
                self.setup.clock.advance(Duration::from_millis(*ms));
                Ok(())
            }
            Op::Read => self.check_contents(history),
            Op::Snapshot => self.take_snapshot(history),
            Op::Reopen => self.close_and_open(history),
        }
    }

    /// A compaction with other things going on in the middle of it, on the same thread: what a
    /// second thread could do, and the same in every run.
    fn compact_meanwhile(&mut self, ops: &[(u64, Op)], history: &mut History) -> Step {
        let db = self.db()?.clone();
        let struck_before = self.struck_before;
        let mut records = 0;
        let mut result = Ok(());
        let compacted = db.compact_with(|_| {
            for (_, op) in ops.iter().filter(|(at, _)| *at == records) {
                if result.is_ok() {
                    result = self.apply(op, history);
                }
            }
            records += 1;
        });
        self.struck_before = struck_before;
        result?;
        self.after_upkeep("compact", compacted.map(|_| ()), history)
    }

    /// A write, whatever its kind: what it leads to is known before, its answer is compared after.
    fn write(&mut self, op: &Op, history: &mut History) -> Step {
        let mut next = history.now().clone();
        let plan = self.plan(op, &mut next);
        let Plan { level, writes, answer } = plan;
        if writes {
            history.begin(next);
        }
        let given = self.call(op, level)?;
        match given {
            Ok(given) if given != answer => wrong(format!("{op:?} answered {given}, not {answer}")),
            Ok(_) if !writes => Ok(()),
            Ok(_) => self.after_write("a write", Ok(()), history, level == Level::Sync),
            Err(error) => self.after_write("a write", Err(error), history, false),
        }
    }

    /// What an operation should do to the state and answer.
    fn plan(&mut self, op: &Op, next: &mut State) -> Plan {
        let now_ms = self.now_ms();
        let there = |state: &State, number: &u8| {
            state.get(&key(*number)).filter(|slot| slot.1.is_none_or(|at| now_ms < at)).cloned()
        };
        match op {
            Op::Set(number, value, level) => {
                let slot = self.slot(*value);
                next.insert(key(*number), slot);
                Plan { level: *level, writes: true, answer: true }
            }
            Op::Delete(number, level) => {
                let existed = there(next, number).is_some();
                next.remove(&key(*number));
                Plan { level: *level, writes: existed, answer: existed }
            }
            Op::Batch(writes, level) | Op::Transaction(writes, level) => {
                for (number, value) in writes {
                    match value {
                        Some(value) => next.insert(key(*number), self.slot(*value)),
                        None => next.remove(&key(*number)),
                    };
                }
                Plan { level: *level, writes: true, answer: true }
            }
            Op::CompareAndSet(number, guess, value, level) => {
                let holds = guess.holds(there(next, number).is_some());
                // Its number is used up whether it is written or not: `call` must agree.
                let slot = self.slot(*value);
                if holds {
                    next.insert(key(*number), slot);
                }
                Plan { level: *level, writes: holds, answer: holds }
            }
            Op::CompareAndDelete(number, guess, level) => {
                let existed = there(next, number).is_some();
                let holds = guess.holds(existed);
                if holds {
                    next.remove(&key(*number));
                }
                Plan { level: *level, writes: holds && existed, answer: holds }
            }
            Op::Expire(number, ttl_ms, level) => {
                let old = there(next, number);
                let expires_at_ms = ttl_ms.map(|ttl| now_ms + ttl);
                let writes = old.as_ref().is_some_and(|slot| slot.1 != expires_at_ms);
                if let Some((value, _)) = &old {
                    next.insert(key(*number), (value.clone(), expires_at_ms));
                }
                Plan { level: *level, writes, answer: old.is_some() }
            }
            _ => Plan { level: Level::Buffered, writes: false, answer: true },
        }
    }

    /// A new value and its expiry.
    fn slot(&mut self, value: Value) -> Slot {
        self.values += 1;
        (bytes_of(self.values, value.len), value.ttl_ms.map(|ttl| self.now_ms() + ttl))
    }

    /// Makes the call; the values are those that `plan` has just made.
    fn call(&self, op: &Op, level: Level) -> Step<pakv::Result<bool>> {
        let durability = match level {
            Level::Sync => Durability::Sync,
            Level::Interval => Durability::Interval(Duration::from_secs(3600)),
            Level::Buffered => Durability::Buffered,
        };
        let db = self.db()?.with_durability(durability);
        let db = db.or_else(|error| self.failed("with_durability", &error))?;
        let newest = |value: &Value| bytes_of(self.values, value.len);
        Ok(match op {
            Op::Set(number, value, _) => {
                let ttl = self.expiry(*value);
                db.set_with_expiry(key(*number), newest(value), ttl).map(|()| true)
            }
            Op::Delete(number, _) => db.delete(key(*number)),
            Op::Batch(writes, _) => {
                let mut batch = WriteBatch::new();
                for (number, value) in self.values_of(writes) {
                    match value {
                        Some((bytes, expiry)) => {
                            batch.set_with_expiry(key(number), &*bytes, expiry);
                        }
                        None => {
                            batch.delete(key(number));
                        }
                    }
                }
                db.write(&batch).map(|()| true)
            }
            Op::Transaction(writes, _) => db.transaction().and_then(|mut transaction| {
                for (number, value) in self.values_of(writes) {
                    match value {
                        Some((bytes, expiry)) => {
                            transaction.set_with_expiry(key(number), &*bytes, expiry);
                        }
                        None => transaction.delete(key(number)),
                    }
                }
                transaction.commit().map(|()| true)
            }),
            Op::CompareAndSet(number, guess, value, _) => {
                let old = self.guessed(db.get(key(*number)), *guess)?;
                let (expected, expiry) = (guess.expected(old.as_deref()), self.expiry(*value));
                db.compare_and_set_with_expiry(key(*number), expected, newest(value), expiry)
            }
            Op::CompareAndDelete(number, guess, _) => {
                let old = self.guessed(db.get(key(*number)), *guess)?;
                db.compare_and_delete(key(*number), guess.expected(old.as_deref()))
            }
            Op::Expire(number, ttl_ms, _) => {
                let expiry = self.expiry(Value { len: 0, ttl_ms: *ttl_ms });
                db.expire(key(*number), expiry)
            }
            _ => Ok(true),
        })
    }

    fn expiry(&self, value: Value) -> Expiry {
        let instant = |ttl| Expiry::At(UNIX_EPOCH + Duration::from_millis(self.now_ms() + ttl));
        value.ttl_ms.map_or(Expiry::Never, instant)
    }

    /// The values that `plan` made for a batch, in the same order.
    fn values_of(&self, writes: &[Write]) -> Vec<(u8, Option<Made>)> {
        let sets = writes.iter().filter(|(_, value)| value.is_some()).count() as u64;
        let mut made = self.values - sets;
        let mut next = |value: &Value| {
            made += 1;
            (bytes_of(made, value.len), self.expiry(*value))
        };
        writes.iter().map(|(number, value)| (*number, value.as_ref().map(&mut next))).collect()
    }

    /// The value that a guess is about.
    fn guessed(&self, got: pakv::Result<Option<Vec<u8>>>, guess: Guess) -> Step<Option<Vec<u8>>> {
        let got = got.or_else(|error| self.failed("get", &error))?;
        Ok(if guess == (Guess::Value { right: false }) { Some(b"a guess".to_vec()) } else { got })
    }

    /// A write was answered: an acknowledgement is noted, an error must have poisoned the store.
    fn after_write(
        &mut self,
        what: &str,
        answer: pakv::Result<()>,
        history: &mut History,
        durable: bool,
    ) -> Step {
        match answer {
            Ok(()) => {
                history.acknowledge();
                if durable {
                    history.settle();
                }
                Ok(())
            }
            Err(error) => {
                let stop = self.failed::<()>(what, &error);
                self.check_poisoned(history)?;
                stop
            }
        }
    }

    /// After a write failed for anything but reading, nothing is acknowledged; and what failed is
    /// not to be seen.
    fn check_poisoned(&self, history: &History) -> Step {
        let fired = self.setup.machine.fired();
        let read_failed = fired.iter().any(|(kind, _)| !kind.is_write());
        if self.setup.machine.is_off() || read_failed || fired.is_empty() {
            return Ok(());
        }
        let db = self.db()?;
        if db.set("after", "a failure").is_ok() || db.sync().is_ok() {
            return wrong("a write was acknowledged after another had failed");
        }
        if fired.len() == 1 { self.check_contents(history) } else { Ok(()) }
    }

    /// Compaction never changes what is there, whether it comes to an end or not.
    fn after_upkeep(
        &mut self,
        what: &str,
        answer: pakv::Result<()>,
        history: &mut History,
    ) -> Step {
        if let Err(error) = answer {
            self.failed::<()>(what, &error).or_else(|stop| match stop {
                Stop::Down if !self.setup.machine.is_off() => Ok(()),
                stop => Err(stop),
            })?;
        }
        self.check_contents(history)
    }

    fn take_snapshot(&mut self, history: &History) -> Step {
        if let Some((snapshot, state)) = self.snapshot.take() {
            let expected = visible(&state, self.now_ms());
            let found = self.read_all(snapshot.scan())?;
            if found != expected {
                let (found, expected) = (show(&found), show(&expected));
                return wrong(format!("a snapshot shows {found}, not {expected}"));
            }
        }
        let snapshot = self.db()?.snapshot().or_else(|error| self.failed("snapshot", &error))?;
        self.snapshot = Some((snapshot, visible(history.now(), self.now_ms())));
        Ok(())
    }

    fn close_and_open(&mut self, history: &mut History) -> Step {
        self.snapshot = None;
        if let Some(Err(error)) = self.db.take().map(Db::close) {
            return self.failed("close", &error);
        }
        history.settle();
        self.reopen(history)
    }

    /// A clean end of the process.
    pub(crate) fn close(mut self) -> Step {
        self.snapshot = None;
        match self.db.take().map(Db::close) {
            Some(Err(error)) => self.failed("close", &error),
            _ => Ok(()),
        }
    }

    /// Ends the process: nothing that its destructors do reaches the disk.
    pub(crate) fn kill(self) -> Step<SimStorage> {
        let machine = self.setup.machine.clone();
        machine.power_off();
        drop(self);
        match machine.violations().first() {
            Some(violation) => wrong(violation),
            None => Ok(machine),
        }
    }
}

/// The bytes and the expiry of a new value.
type Made = (Arc<[u8]>, Expiry);

/// What an operation should lead to.
struct Plan {
    level: Level,
    /// Whether a record is written at all.
    writes: bool,
    answer: bool,
}

impl Guess {
    fn holds(self, is_there: bool) -> bool {
        match self {
            Guess::Absent => !is_there,
            Guess::Present => is_there,
            Guess::Value { right } => is_there && right,
        }
    }

    fn expected(self, value: Option<&[u8]>) -> Expected<'_> {
        match (self, value) {
            (Guess::Absent, _) => Expected::Absent,
            (Guess::Present, _) => Expected::Present,
            (Guess::Value { .. }, value) => Expected::Value(value.unwrap_or(b"nothing")),
        }
    }
}

/// The bytes of the `number`-th value.
fn bytes_of(number: u64, len: usize) -> Arc<[u8]> {
    let mut bytes = format!("{number}.").into_bytes();
    let filler = b'a' + (number % 26) as u8;
    bytes.resize(bytes.len().max(len), filler);
    bytes.into()
}
