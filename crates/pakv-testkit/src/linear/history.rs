//! Recording calls as they begin and end, and asking the checker about them.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::{Mutex, MutexGuard};
use todc_utils::linearizability::WGLChecker;
use todc_utils::linearizability::history::{Action, History};

use super::spec::{Answer, Call, KeySpec, Step};

/// A call that has ended.
#[derive(Debug, Clone)]
struct Event {
    thread: usize,
    /// `None`: every key takes part, as when the clock moves.
    key: Option<usize>,
    begun: u64,
    ended: u64,
    step: Step,
}

/// The calls of all threads.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    stamps: AtomicU64,
    events: Mutex<Vec<Event>>,
}

/// What was wrong, and how to see it again.
#[derive(Debug)]
pub struct Failure {
    /// The seed of the run.
    pub seed: u64,
    /// What was wrong, with the calls that show it.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, what } = self;
        writeln!(f, "{what}")?;
        write!(
            f,
            "seed {seed}; the schedule is the machine's, so it may take many runs: \
             cargo run --release -p pakv-testkit --bin linear -- 1000 {seed} same"
        )
    }
}

impl Recorder {
    /// Makes a call and records it, unless it says that it was not carried out.
    pub(super) fn record<E>(
        &self,
        (thread, key): (usize, Option<usize>),
        call: Call,
        work: impl FnOnce() -> Result<Answer, E>,
    ) -> Result<Answer, E> {
        // One counter for both ends: if a call ended before another began, its number is smaller.
        let begun = self.stamps.fetch_add(1, Ordering::SeqCst);
        let answer = work()?;
        let ended = self.stamps.fetch_add(1, Ordering::SeqCst);
        let step = Step { call, answer: answer.clone() };
        self.events().push(Event { thread, key, begun, ended, step });
        Ok(answer)
    }

    fn events(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock()
    }

    /// How many calls on keys were recorded, and how many of them another began in.
    pub(super) fn counts(&self) -> (u64, u64) {
        let events = self.events();
        let on_keys = events.iter().filter(|event| event.key.is_some());
        let overlapped = on_keys.clone().filter(|event| event.ended > event.begun + 1);
        (on_keys.count() as u64, overlapped.count() as u64)
    }

    /// Checks every key; at the first that is not linearizable, its calls.
    pub(super) fn check(&self, keys: usize) -> Result<(), String> {
        let events = self.events();
        for key in 0..keys {
            let of_key: Vec<&Event> =
                events.iter().filter(|event| event.key.is_none_or(|found| found == key)).collect();
            if of_key.is_empty() {
                continue;
            }
            let mut actions: Vec<(u64, usize, Action<Step>)> = Vec::new();
            for event in &of_key {
                actions.push((event.begun, event.thread, Action::Call(event.step.clone())));
                actions.push((event.ended, event.thread, Action::Response(event.step.clone())));
            }
            actions.sort_by_key(|(stamp, _, _)| *stamp);
            let actions = actions.into_iter().map(|(_, thread, action)| (thread, action)).collect();
            if !WGLChecker::<KeySpec>::is_linearizable(History::from_actions(actions)) {
                return Err(told(key, of_key));
            }
        }
        Ok(())
    }
}

/// The calls on one key, in order of their beginning.
fn told(key: usize, mut events: Vec<&Event>) -> String {
    events.sort_by_key(|event| event.begun);
    let lines: Vec<String> = events
        .iter()
        .map(|Event { thread, begun, ended, step: Step { call, answer }, .. }| {
            format!("  {begun:5}..{ended:<5} thread {thread}: {call:?} -> {answer:?}")
        })
        .collect();
    format!("no order of these calls on key {key} explains their answers:\n{}", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linear::Wanted;

    fn is_linearizable(events: &[(usize, u64, u64, Call, Answer)]) -> bool {
        let recorder = Recorder::default();
        for (thread, begun, ended, call, answer) in events.iter().cloned() {
            let step = Step { call, answer };
            recorder.events().push(Event { thread, key: Some(0), begun, ended, step });
        }
        recorder.check(1).is_ok()
    }

    #[test]
    fn what_happened_before_counts_and_what_overlaps_may_be_either_way() {
        let (one, two) = (Answer::Value(Some(1)), Answer::Value(Some(2)));
        let set_one = (0, 0, 1, Call::Set(1, None), Answer::Done);
        let set_two = (0, 2, 5, Call::Set(2, None), Answer::Done);
        let during = |answer: &Answer| (1, 3, 4, Call::Get, answer.clone());
        let after = |answer: &Answer| (1, 6, 7, Call::Get, answer.clone());
        let history = |get| [set_one.clone(), set_two.clone(), get];
        assert!(is_linearizable(&history(during(&one))), "the old value while the new one is set");
        assert!(is_linearizable(&history(during(&two))), "the new one already");
        assert!(is_linearizable(&history(after(&two))));
        assert!(!is_linearizable(&history(after(&one))), "the old one once the new one is set");
        assert!(!is_linearizable(&history(after(&Answer::Value(None)))));
        assert!(!is_linearizable(&history(after(&Answer::Garbage(b"1".to_vec())))));
    }

    #[test]
    fn expiry_and_conditions_are_understood() {
        let ms = super::super::spec::START_MS;
        let history = |found: Option<u64>, was| {
            [
                (0, 0, 1, Call::Set(1, Some(ms + 5)), Answer::Done),
                (0, 2, 3, Call::Tick(ms + 5), Answer::Done),
                (0, 4, 5, Call::Get, Answer::Value(found)),
                (0, 6, 7, Call::CompareAndSet(Wanted::Absent, 2), Answer::Was(was)),
                (0, 8, 9, Call::Add(9), Answer::Value(Some(3))),
            ]
        };
        assert!(is_linearizable(&history(None, true)));
        assert!(!is_linearizable(&history(Some(1), true)), "it had expired");
        assert!(!is_linearizable(&history(None, false)), "nothing was there");
    }
}
