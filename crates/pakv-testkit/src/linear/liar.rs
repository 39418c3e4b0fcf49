//! Stores that are not linearizable: each lies now and then, as a bug would, and must be caught.

use std::collections::HashMap;

use pakv::{Db, Result};
use parking_lot::Mutex;

use super::spec::{Answer, Call, Subject, Wanted};

/// A way not to be linearizable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// A get answers what the get of the key before it did.
    StaleRead,
    /// A set is acknowledged and not done.
    LostWrite,
    /// An update reads, and writes later whatever came between.
    LostUpdate,
    /// A compare-and-set compares, and writes later whatever came between.
    LateSet,
    /// A delete answers that the key was there and leaves it.
    UndoneDelete,
}

/// A store that tells one kind of lie, in one of so many calls.
const ONE_IN: u32 = 8;

/// A store with a habit.
pub(super) struct Liar<'a> {
    pub(super) db: &'a Db,
    pub(super) lie: Lie,
    pub(super) state: &'a LiarState,
}

/// What a liar remembers, across reopens.
#[derive(Debug, Default)]
pub(super) struct LiarState(Mutex<(u32, HashMap<String, Answer>)>);

impl Liar<'_> {
    fn is_time(&self) -> bool {
        let mut state = self.state.0.lock();
        state.0 += 1;
        state.0.is_multiple_of(ONE_IN)
    }

    /// What the key was found to be before, if that is known, and remembers what it is now.
    fn before(&self, key: &str, now: &Answer) -> Option<Answer> {
        let mut state = self.state.0.lock();
        state.1.insert(key.to_string(), now.clone())
    }
}

impl Subject for Liar<'_> {
    fn call(&self, key: &str, call: Call) -> Result<Answer> {
        match (self.lie, call) {
            (Lie::StaleRead, Call::Get) => {
                let answer = self.db.call(key, call)?;
                let before = self.before(key, &answer).unwrap_or_else(|| answer.clone());
                Ok(if self.is_time() { before } else { answer })
            }
            (Lie::LostWrite, Call::Set(..)) if self.is_time() => Ok(Answer::Done),
            (Lie::UndoneDelete, Call::Delete) if self.is_time() => {
                Ok(Answer::Was(self.db.contains(key)?))
            }
            (Lie::LostUpdate, Call::Add(first)) => {
                let Answer::Value(old) = self.db.call(key, Call::Get)? else {
                    return self.db.call(key, call);
                };
                std::thread::yield_now();
                let new = old.map_or(first, |number| number + 1);
                self.db.call(key, Call::Set(new, None))?;
                Ok(Answer::Value(Some(new)))
            }
            (Lie::LateSet, Call::CompareAndSet(wanted, new)) => {
                let Answer::Value(old) = self.db.call(key, Call::Get)? else {
                    return self.db.call(key, call);
                };
                let holds = match wanted {
                    Wanted::Absent => old.is_none(),
                    Wanted::Present => old.is_some(),
                    Wanted::Value(value) => old == Some(value),
                };
                std::thread::yield_now();
                if holds {
                    self.db.call(key, Call::Set(new, None))?;
                }
                Ok(Answer::Was(holds))
            }
            _ => self.db.call(key, call),
        }
    }
}
