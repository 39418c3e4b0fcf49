//! The model: every state that a store went through, and which of them a crash may show.
//!
//! States are numbered by the writes that made them. `floor` is the newest state that is known
//! durable; the last one may belong to a write that was never answered. What a crash leaves must be
//! one of the states from there to there: so writes survive in order, batches whole, and nothing
//! older than what was acknowledged as durable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

/// A value and when it expires, in milliseconds since the epoch.
pub(crate) type Slot = (Arc<[u8]>, Option<u64>);
/// The contents of a store, expired entries included.
pub(crate) type State = BTreeMap<Vec<u8>, Slot>;

/// What is there at `now_ms`.
pub(crate) fn visible(state: &State, now_ms: u64) -> State {
    let is_there = |slot: &Slot| slot.1.is_none_or(|at| now_ms < at);
    state.iter().filter(|(_, slot)| is_there(slot)).map(|(k, s)| (k.clone(), s.clone())).collect()
}

#[derive(Debug, Clone)]
pub(crate) struct History {
    states: Vec<State>,
    floor: usize,
    /// The state that reads see; later ones were not acknowledged.
    acknowledged: usize,
}

impl History {
    pub(crate) fn new() -> Self {
        Self { states: vec![State::new()], floor: 0, acknowledged: 0 }
    }

    /// The acknowledged state, expired entries included.
    pub(crate) fn now(&self) -> &State {
        &self.states[self.acknowledged]
    }

    /// A write begins that leads to `state`.
    pub(crate) fn begin(&mut self, state: State) {
        self.states.push(state);
    }

    /// It is acknowledged.
    pub(crate) fn acknowledge(&mut self) {
        self.acknowledged = self.states.len() - 1;
    }

    /// Everything acknowledged is durable.
    pub(crate) fn settle(&mut self) {
        self.floor = self.acknowledged;
    }

    /// Whether a crash may have left this.
    pub(crate) fn allows(&self, found: &State, now_ms: u64) -> bool {
        self.states[self.floor..].iter().any(|state| visible(state, now_ms) == *found)
    }

    /// An open has shown `found`, and made it durable.
    pub(crate) fn restart_from(&mut self, found: State) {
        *self = Self { states: vec![found], floor: 0, acknowledged: 0 };
    }

    /// What is wrong with a state that is not allowed: a key that every allowed state has is
    /// `lost`; one that was there before and that no allowed state has is `revived`.
    pub(crate) fn kind_of(&self, found: &State, now_ms: u64) -> &'static str {
        let (before, allowed) = self.states.split_at(self.floor);
        let allowed: Vec<State> = allowed.iter().map(|state| visible(state, now_ms)).collect();
        let in_all = |key: &Vec<u8>| allowed.iter().all(|state| state.contains_key(key));
        let keys = || allowed.iter().flat_map(BTreeMap::keys);
        if keys().any(|key| in_all(key) && !found.contains_key(key)) {
            return "lost";
        }
        let is_allowed = |(key, slot): (&Vec<u8>, &Slot)| {
            allowed.iter().any(|state| state.get(key) == Some(slot))
        };
        let was_there = |(key, slot): (&Vec<u8>, &Slot)| {
            before.iter().any(|state| state.get(key) == Some(slot))
        };
        if found.iter().any(|entry| !is_allowed(entry) && was_there(entry)) {
            return "revived";
        }
        "wrong"
    }

    /// The states that `allows` looks at, for a message.
    pub(crate) fn explain(&self, found: &State, now_ms: u64) -> String {
        let mut text = format!("found {}\nallowed, oldest first:\n", show(found));
        for state in &self.states[self.floor..] {
            let _ = writeln!(text, "  {}", show(&visible(state, now_ms)));
        }
        let _ = writeln!(text, "not allowed any more, newest first:");
        for state in self.states[..self.floor].iter().rev().take(5) {
            let _ = writeln!(text, "  {}", show(&visible(state, now_ms)));
        }
        text
    }
}

/// A state on one line; values are told apart by their beginning.
pub(crate) fn show(state: &State) -> String {
    let mut text = String::from("{");
    for (key, (value, expires_at_ms)) in state {
        let start = value.get(..value.len().min(6)).unwrap_or_default();
        let _ = write!(text, " {}={}", key.escape_ascii(), start.escape_ascii());
        let _ = write!(text, "[{}]", value.len());
        if let Some(at) = expires_at_ms {
            let _ = write!(text, "@{at}");
        }
    }
    text + " }"
}
