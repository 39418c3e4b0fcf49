//! What the steps of [`super::step`] have made of a store, by the acknowledgements alone, and the
//! comparison of a store with it: each thread's keys show every acknowledged step, and perhaps the
//! one that was in flight, whole.
//!
//! What is acknowledged while the power goes is a case of its own. A real cut has no such thing: at
//! one moment everything stops. A file system that is shut down goes on answering for some
//! microseconds, and an `fdatasync` that began before may return success although nothing was
//! written: three bare threads that append and sync show it on ext4, without any store. So what is
//! read after the shutdown call began is [`Said::While`]: it may be there or not, in order.

use std::path::Path;
use std::sync::Arc;

use pakv::{Db, ManualClock};

use super::step;
use crate::Model;

/// The contents that a store must have.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    threads: Vec<Account>,
}

/// What is known of one thread.
#[derive(Debug)]
struct Account {
    /// What its keys hold at the least.
    model: Model,
    /// The number of the first step that is not in `model`.
    next_step: u64,
    /// So many steps from there on were acknowledged while the power went.
    uncertain: u64,
}

/// When an acknowledgement was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// Before the power went: the step must be there.
    Before,
    /// Perhaps after that.
    While,
}

/// Keys and values, in order.
pub(crate) type Contents = Vec<(Vec<u8>, Vec<u8>)>;

impl Ledger {
    /// Of a store to which nothing was written yet.
    pub fn new(seed: u64) -> Self {
        let empty = || Account {
            model: Model::new(Arc::new(ManualClock::new(2))),
            next_step: 0,
            uncertain: 0,
        };
        Self { seed, threads: std::iter::repeat_with(empty).take(super::THREADS).collect() }
    }

    /// The number of each thread's next step: what the next child begins with.
    pub fn next_steps(&self) -> impl Iterator<Item = u64> {
        self.threads.iter().map(|account| account.next_step)
    }

    /// Takes a line of the child; returns whether it acknowledged a step.
    ///
    /// # Errors
    /// Where a thread acknowledges its steps out of order.
    pub fn take(&mut self, line: &str, said: Said) -> Result<bool, String> {
        let parsed = line
            .split_once(' ')
            .and_then(|(thread, step)| Some((thread.parse().ok()?, step.parse().ok()?)));
        let Some((thread, step)): Option<(usize, u64)> = parsed else {
            return Ok(false);
        };
        let account = &mut self.threads[thread];
        let next = account.next_step + account.uncertain;
        if step != next {
            return Err(format!("thread {thread} acknowledges {step} instead of {next}"));
        }
        match said {
            Said::Before => account.advance(self.seed, thread),
            Said::While => account.uncertain += 1,
        }
        Ok(true)
    }

    /// Opens the store, compares, and closes it. One more step of each thread may be there than was
    /// acknowledged; what is there is then taken as done. Returns how many of the steps that were
    /// acknowledged while the power went are not there.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub fn check_after_cut(&mut self, dir: &Path) -> Result<u64, String> {
        let seed = self.seed;
        let mut gone = 0;
        self.look(dir, |thread, account, found| {
            let first = account.next_step;
            let said = std::mem::take(&mut account.uncertain);
            let certain = account.model.clone();
            for done in 0..=said + 1 {
                if *found == contents_of(&account.model) {
                    gone += said.saturating_sub(done);
                    return Ok(());
                }
                account.advance(seed, thread);
            }
            Err(format!(
                "thread {thread} acknowledged the steps before {first}, and {said} more while the \
                 power went; it does not hold what is there after any of them, nor after the one \
                 in flight.\nThe first of them: {:?}\nThe least that must be there: {}",
                step(seed, thread, first),
                differences(found, &contents_of(&certain)),
            ))
        })?;
        Ok(gone)
    }

    /// Opens the store once more, and finds exactly what was there before.
    ///
    /// # Errors
    /// What is wrong with the store.
    pub fn check_again(&mut self, dir: &Path) -> Result<(), String> {
        self.look(dir, |thread, account, found| {
            let expected = contents_of(&account.model);
            if *found == expected {
                return Ok(());
            }
            Err(format!("thread {thread} changed: {}", differences(found, &expected)))
        })
    }

    /// Takes out of `seen`, threads and what a reader saw of their keys, what is there now.
    pub(super) fn forget(&self, seen: &mut Vec<(usize, Contents)>) {
        if seen.is_empty() {
            return;
        }
        let now: Vec<Contents> =
            self.threads.iter().map(|account| contents_of(&account.model)).collect();
        seen.retain(|(thread, contents)| *contents != now[*thread]);
    }

    fn look(
        &mut self,
        dir: &Path,
        mut compare: impl FnMut(usize, &mut Account, &Contents) -> Result<(), String>,
    ) -> Result<(), String> {
        let db = super::options(self.seed)
            .background_compaction(false)
            .open(dir)
            .map_err(|error| format!("open: {error}"))?;
        for (thread, account) in self.threads.iter_mut().enumerate() {
            let found = contents(&db, thread).map_err(|error| format!("scan: {error}"))?;
            compare(thread, account, &found)?;
        }
        db.close().map_err(|error| format!("close: {error}"))
    }
}

impl Account {
    fn advance(&mut self, seed: u64, thread: usize) {
        step(seed, thread, self.next_step).apply_to(&mut self.model);
        self.next_step += 1;
    }
}

/// What a thread's keys hold.
pub(crate) fn contents(db: &Db, thread: usize) -> pakv::Result<Contents> {
    db.scan_prefix(super::key_prefix(thread))?.map(|entry| entry.into_pair()).collect()
}

pub(crate) fn contents_of(model: &Model) -> Contents {
    model.rows().into_iter().map(|(key, value, _)| (key, value)).collect()
}

pub(crate) fn differences(found: &Contents, expected: &Contents) -> String {
    let show = |(key, value): &(Vec<u8>, Vec<u8>)| {
        format!("{} = {}", key.escape_ascii(), value[..value.len().min(30)].escape_ascii())
    };
    let only = |these: &Contents, others: &Contents| -> Vec<String> {
        these.iter().filter(|pair| !others.contains(pair)).map(show).collect()
    };
    format!("found {:#?} instead of {:#?}", only(found, expected), only(expected, found))
}
