//! What one key of a store should answer, in the checker's terms.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pakv::{Db, Expected, Expiry, Result};
use todc_utils::specifications::Specification;

/// The time at which every history begins, in milliseconds since the epoch.
pub(super) const START_MS: u64 = 1_000_000;

/// A call on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// Its value.
    Get,
    /// Whether it is there.
    Contains,
    /// Set it, perhaps with an expiry in milliseconds since the epoch.
    Set(u64, Option<u64>),
    /// Delete it; whether it was there.
    Delete,
    /// Set it if it is as wanted; whether it was.
    CompareAndSet(Wanted, u64),
    /// Delete it if it has this value; whether it had.
    CompareAndDelete(u64),
    /// Add one, or begin with this number; the new value.
    Add(u64),
    /// Give it another expiry; whether it was there.
    Expire(Option<u64>),
    /// Not a call on a key: the clock is moved to this time.
    Tick(u64),
}

/// What a conditional call wants of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// It is not there.
    Absent,
    /// It is there.
    Present,
    /// It has this value.
    Value(u64),
}

/// What a call answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Nothing but that it is done.
    Done,
    /// Yes or no.
    Was(bool),
    /// A value.
    Value(Option<u64>),
    /// Bytes that nobody wrote.
    Garbage(Vec<u8>),
}

/// A call with its answer: what the checker calls an operation.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) call: Call,
    pub(super) answer: Answer,
}

/// What one key holds, and the time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    value: Option<(u64, Option<u64>)>,
    now_ms: u64,
}

/// The specification of one key.
pub(super) struct KeySpec;

impl Specification for KeySpec {
    type State = Key;
    type Operation = Step;

    fn init() -> Key {
        Key { value: None, now_ms: START_MS }
    }

    fn apply(step: &Step, key: &Key) -> (bool, Key) {
        let mut after = key.clone();
        let answer = after.apply(step.call);
        (answer == step.answer, after)
    }
}

impl Key {
    fn apply(&mut self, call: Call) -> Answer {
        self.value = self.value.filter(|(_, expires)| expires.is_none_or(|at| self.now_ms < at));
        let number = self.value.map(|(number, _)| number);
        match call {
            Call::Get => Answer::Value(number),
            Call::Contains => Answer::Was(number.is_some()),
            Call::Set(number, expires) => {
                self.value = Some((number, expires));
                Answer::Done
            }
            Call::Delete => Answer::Was(self.value.take().is_some()),
            Call::CompareAndSet(wanted, new) => {
                let holds = match wanted {
                    Wanted::Absent => number.is_none(),
                    Wanted::Present => number.is_some(),
                    Wanted::Value(value) => number == Some(value),
                };
                if holds {
                    self.value = Some((new, None));
                }
                Answer::Was(holds)
            }
            Call::CompareAndDelete(value) => {
                let holds = number == Some(value);
                if holds {
                    self.value = None;
                }
                Answer::Was(holds)
            }
            Call::Add(first) => {
                let (sum, expires) =
                    self.value.map_or((first, None), |(number, expires)| (number + 1, expires));
                self.value = Some((sum, expires));
                Answer::Value(Some(sum))
            }
            Call::Expire(expires) => {
                self.value = self.value.map(|(number, _)| (number, expires));
                Answer::Was(self.value.is_some())
            }
            Call::Tick(now_ms) => {
                self.now_ms = now_ms;
                Answer::Done
            }
        }
    }
}

/// Something that calls can be made on.
pub(super) trait Subject: Sync {
    /// Makes a call on a key.
    fn call(&self, key: &str, call: Call) -> Result<Answer>;
}

impl Subject for Db {
    fn call(&self, key: &str, call: Call) -> Result<Answer> {
        Ok(match call {
            Call::Get => answer_of(self.get(key)?),
            Call::Contains => Answer::Was(self.contains(key)?),
            Call::Set(number, None) => {
                self.set(key, bytes_of(number))?;
                Answer::Done
            }
            Call::Set(number, expires) => {
                self.set_with_expiry(key, bytes_of(number), expiry_of(expires))?;
                Answer::Done
            }
            Call::Delete => Answer::Was(self.delete(key)?),
            Call::CompareAndSet(wanted, new) => {
                let value;
                let expected = match wanted {
                    Wanted::Absent => Expected::Absent,
                    Wanted::Present => Expected::Present,
                    Wanted::Value(number) => {
                        value = bytes_of(number);
                        Expected::Value(&value)
                    }
                };
                Answer::Was(self.compare_and_set(key, expected, bytes_of(new))?)
            }
            Call::CompareAndDelete(number) => {
                let value = bytes_of(number);
                Answer::Was(self.compare_and_delete(key, Expected::Value(&value))?)
            }
            Call::Add(first) => answer_of(self.update(key, |old| match old.map(number_of) {
                None => Some(bytes_of(first)),
                Some(Some(number)) => Some(bytes_of(number + 1)),
                // It comes back as it is, and as an answer that nothing explains.
                Some(None) => old.map(<[u8]>::to_vec),
            })?),
            Call::Expire(expires) => Answer::Was(self.expire(key, expiry_of(expires))?),
            Call::Tick(_) => Answer::Done,
        })
    }
}

fn expiry_of(expires: Option<u64>) -> Expiry {
    expires.map_or(Expiry::Never, |at| Expiry::At(time_of(at)))
}

fn time_of(ms: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(ms)
}

/// A value that shows if it is not whole: of many lengths, and the number says which.
fn bytes_of(number: u64) -> Vec<u8> {
    let mut bytes = format!("{number}:").into_bytes();
    bytes.resize(bytes.len() + (number % 89) as usize, b'.');
    bytes
}

fn number_of(bytes: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.split_once(':')?.0.parse().ok()?;
    (bytes_of(number) == bytes).then_some(number)
}

fn answer_of(value: Option<Vec<u8>>) -> Answer {
    match value.as_deref().map(number_of) {
        None => Answer::Value(None),
        Some(Some(number)) => Answer::Value(Some(number)),
        Some(None) => Answer::Garbage(value.unwrap_or_default()),
    }
}
