//! What may be left of the steps of [`crate::kill`] after a crash, whatever they were acknowledged
//! by: of each thread a prefix of its order, whole steps, and of all threads together a prefix of
//! the order of writes, as far as it can be told; nothing that was known durable is missing.
//!
//! Durable is a step that was acknowledged under `Durability::Sync`, and whatever was acknowledged
//! before the begin of a sync that was. The order of writes is told by times: a step that was
//! acknowledged before another began stands before it in the log.

use std::sync::Arc;

use pakv::{Db, ManualClock};

use crate::kill::ledger::{Contents, contents, contents_of, differences};
use crate::{Model, kill};

/// What makes a step durable, besides an acknowledged sync after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promise {
    /// Its acknowledgement: `Durability::Sync`.
    Acknowledged,
    /// Nothing: `Interval`.
    Synced,
    /// Nothing, and an append is a copy in memory, which no file system that is gone refuses:
    /// `Buffered`.
    Copied,
}

/// What a thread of writes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// A step was acknowledged.
    Step {
        /// By this thread.
        thread: usize,
        /// Its number.
        number: u64,
        /// When.
        span: Span,
    },
    /// A call of `sync` was.
    Sync(Span),
}

/// The times just before a call and just after it, by any clock that all threads share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// Before it.
    pub begin: u64,
    /// After it.
    pub end: u64,
}

/// The times just before and just after a crash. In one of a simulated disk there is nothing in
/// between.
pub(crate) type Crash = Span;

/// What a check has found besides that all is well.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Found {
    /// Steps that must have been there.
    pub(crate) certain: u64,
    /// Steps that were acknowledged after the crash had begun, and how many of them are gone.
    pub(crate) late: u64,
    pub(crate) late_and_gone: u64,
    /// Steps that were acknowledged before it, were not promised to be there, and are gone.
    pub(crate) gone: u64,
    /// How long before the crash the first of these was acknowledged.
    pub(crate) gone_age: u64,
}

/// The steps since the last check.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    seed: u64,
    promise: Promise,
    threads: Vec<Account>,
    syncs: Vec<Span>,
}

#[derive(Debug, Clone)]
struct Account {
    /// What its keys held after the last check.
    model: Model,
    first_step: u64,
    steps: Vec<Span>,
}

/// How many steps of a thread can have been done, by what is there.
struct Possible {
    least: usize,
    most: usize,
}

impl Order {
    /// Of a store to which nothing was written yet.
    pub(crate) fn new(seed: u64, promise: Promise) -> Self {
        let empty = || Account {
            model: Model::new(Arc::new(ManualClock::new(2))),
            first_step: 0,
            steps: Vec::new(),
        };
        let threads = std::iter::repeat_with(empty).take(kill::THREADS).collect();
        Self { seed, promise, threads, syncs: Vec::new() }
    }

    /// The number of each thread's next step.
    pub(crate) fn next_steps(&self) -> impl Iterator<Item = u64> {
        self.threads.iter().map(|account| account.first_step + account.steps.len() as u64)
    }

    /// # Errors
    /// Where a thread says its steps out of order.
    pub(crate) fn take(&mut self, said: Said) -> Result<(), String> {
        match said {
            Said::Sync(span) => self.syncs.push(span),
            Said::Step { thread, number, span } => {
                let account = &mut self.threads[thread];
                let next = account.first_step + account.steps.len() as u64;
                if number != next {
                    return Err(format!("thread {thread} acknowledges {number} instead of {next}"));
                }
                account.steps.push(span);
            }
        }
        Ok(())
    }

    /// Compares a store that a crash has left. What is there is then taken as done.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn check(&mut self, db: &Db, crash: Crash) -> Result<Found, String> {
        let synced = self.syncs.iter().filter(|sync| sync.end < crash.begin);
        let synced = synced.map(|sync| sync.begin).max().unwrap_or(0);
        let mut found = Found::default();
        let mut possible = Vec::new();
        for thread in 0..self.threads.len() {
            let certain = self.certain(thread, synced, crash);
            found.certain += certain as u64;
            possible.push(self.compare(thread, db, certain, crash)?);
        }
        self.check_common_order(&possible)?;
        for (thread, Possible { least, most }) in possible.into_iter().enumerate() {
            self.threads[thread].settle(self.seed, thread, least, most, crash, &mut found);
        }
        self.syncs.clear();
        Ok(found)
    }

    /// How many steps of a thread must be there.
    fn certain(&self, thread: usize, synced: u64, crash: Crash) -> usize {
        let promised = |span: &Span| match self.promise {
            Promise::Acknowledged => span.end < crash.begin,
            Promise::Synced | Promise::Copied => span.end < synced,
        };
        self.threads[thread].steps.iter().take_while(|span| promised(span)).count()
    }

    /// After which of its steps a thread's keys would be as they are. One more may have been in
    /// flight than was acknowledged.
    fn compare(
        &self,
        thread: usize,
        db: &Db,
        certain: usize,
        crash: Crash,
    ) -> Result<Possible, String> {
        let account = &self.threads[thread];
        let found = contents(db, thread).map_err(|error| format!("lost: a scan: {error}"))?;
        let mut model = account.model.clone();
        let mut possible: Option<Possible> = None;
        let mut least_allowed = Contents::new();
        let mut before = contents_of(&model);
        for done in 0..=account.steps.len() + 1 {
            if done == certain {
                least_allowed = before.clone();
            }
            if done >= certain && found == before {
                possible.get_or_insert(Possible { least: done, most: done }).most = done;
            }
            let number = account.first_step + done as u64;
            kill::step(self.seed, thread, number).apply_to(&mut model);
            let after = contents_of(&model);
            let span = account.steps.get(done);
            let refused = self.promise != Promise::Copied && before != after;
            if span.is_some_and(|span| span.begin > crash.end) && refused {
                return Err(format!(
                    "wrong: thread {thread} acknowledges step {number}, which writes and began \
                     after the crash: {span:?}, {crash:?}"
                ));
            }
            before = after;
        }
        let first = account.first_step;
        possible.ok_or_else(|| {
            let lost = least_allowed.iter().any(|(key, _)| !found.iter().any(|(k, _)| k == key));
            format!(
                "{}: thread {thread} must show the steps from {first} on up to {certain} of them, \
                 and may show {}; it shows what is there after none of these.\nThe least that must \
                 be there: {}",
                if lost { "lost" } else { "wrong" },
                account.steps.len() + 1,
                differences(&found, &least_allowed),
            )
        })
    }

    /// Where a step is there, every other thread's steps are that were acknowledged before it
    /// began.
    fn check_common_order(&self, possible: &[Possible]) -> Result<(), String> {
        for (thread, account) in self.threads.iter().enumerate() {
            let Some(last) = possible[thread].least.checked_sub(1) else { continue };
            // Of one that was in flight only the end of the one before it is known.
            let begin = match account.steps.get(last) {
                Some(span) => span.begin,
                None => account.steps.last().map_or(0, |span| span.end),
            };
            for (other, steps) in self.threads.iter().map(|account| &account.steps).enumerate() {
                let needed = steps.iter().take_while(|span| span.end < begin).count();
                if possible[other].most < needed {
                    let most = possible[other].most;
                    let of = |thread: usize| {
                        let Account { first_step, steps, .. } = &self.threads[thread];
                        format!("thread {thread} from its step {first_step} on: {steps:?}")
                    };
                    return Err(format!(
                        "lost: step {last} of thread {thread} is there, and of thread {other} only \
                         {most} steps, where {needed} were acknowledged before that one began: {}; \
                         {}",
                        of(thread),
                        of(other)
                    ));
                }
            }
        }
        Ok(())
    }

    /// A second look finds what the first had found.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub(crate) fn check_again(&self, db: &Db) -> Result<(), String> {
        for (thread, account) in self.threads.iter().enumerate() {
            let found = contents(db, thread).map_err(|error| format!("lost: a scan: {error}"))?;
            let expected = contents_of(&account.model);
            if found != expected {
                return Err(format!(
                    "wrong: thread {thread} has changed: {}",
                    differences(&found, &expected)
                ));
            }
        }
        Ok(())
    }
}

impl Account {
    fn settle(
        &mut self,
        seed: u64,
        thread: usize,
        least: usize,
        most: usize,
        crash: Crash,
        found: &mut Found,
    ) {
        let is_late = |span: &&Span| span.end >= crash.begin;
        found.late += self.steps.iter().filter(is_late).count() as u64;
        for span in self.steps.iter().skip(most) {
            if is_late(&span) {
                found.late_and_gone += 1;
            } else {
                found.gone += 1;
                found.gone_age = found.gone_age.max(crash.begin - span.end);
            }
        }
        for number in 0..least as u64 {
            kill::step(seed, thread, self.first_step + number).apply_to(&mut self.model);
        }
        self.first_step += least as u64;
        self.steps.clear();
    }
}

/// Carries out a thread's steps until one fails, and says what was acknowledged. Now and then it
/// syncs.
///
/// # Errors
/// Those of the store.
pub(crate) fn steps(
    db: &Db,
    seed: u64,
    thread: usize,
    first_step: u64,
    now: impl Fn() -> u64,
    mut say: impl FnMut(Said),
) -> pakv::Result<()> {
    const STEPS_PER_SYNC: u64 = 24;
    for number in first_step.. {
        let begin = now();
        kill::step(seed, thread, number).apply(db)?;
        say(Said::Step { thread, number, span: Span { begin, end: now() } });
        if (number + thread as u64).is_multiple_of(STEPS_PER_SYNC) {
            let begin = now();
            db.sync()?;
            say(Said::Sync(Span { begin, end: now() }));
        }
    }
    Ok(())
}
