//! `stats --top N`: which values are the largest and which prefixes weigh most.
//!
//! A prefix of a key ends with `/`, `:` or `.`. It weighs what the records of all keys that begin
//! with it take on the disk. One that says no more than another is left out: a longer one of the
//! same keys is shown instead, and one of a single key not at all.
//!
//! Keys come in order, so all keys of a prefix come one after the other: what is in memory is the
//! prefixes of one key, and what is shown.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::Write as _;

use pakv::Entry;

use super::Form;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, count, escape_line, size};
use crate::progress::Progress;

/// What ends a prefix.
const SEPARATORS: &[u8] = b"/:.";

/// To show how far it has come takes longer than to look at an entry.
const TOLD_EVERY: u64 = 1024;

pub(super) fn run(cx: &mut Context, form: Form, limit: usize) -> Result<Exit, Failure> {
    let store = cx.reader()?;
    let mut top = Top::new(limit);
    let progress = Progress::entries("weighing", Some(store.stats()?.keys));
    for (done, entry) in (0..).zip(store.scan()?) {
        top.add(&entry);
        if done % TOLD_EVERY == 0 {
            progress.set(done);
        }
    }
    drop(progress);
    store.close()?;
    let (values, prefixes) = top.finish();
    if form == Form::Json {
        for (what, heaviest) in [("value", &values), ("prefix", &prefixes)] {
            for Weighed { bytes, keys, key } in heaviest {
                let line = JsonLine::new().field("top", what).bytes("key", key);
                let line = line.field("bytes", bytes).field("keys", keys);
                writeln!(cx.out, "{}", line.into_string())?;
            }
        }
        return Ok(Exit::Done);
    }
    writeln!(cx.out, "largest values (with their keys, on the disk)")?;
    for Weighed { bytes, key, .. } in &values {
        writeln!(cx.out, "{:>12}  {}", size(*bytes), escape_line(key))?;
    }
    writeln!(cx.out, "\nheaviest prefixes (up to a '/', ':' or '.')")?;
    for Weighed { bytes, keys, key } in &prefixes {
        writeln!(cx.out, "{:>12}  {} ({} keys)", size(*bytes), escape_line(key), count(*keys))?;
    }
    Ok(Exit::Done)
}

/// A key or a prefix, the keys that begin with it and what their records take.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Weighed {
    bytes: u64,
    keys: u64,
    key: Vec<u8>,
}

/// The heaviest so far, at most so many.
struct Heaviest {
    limit: usize,
    heap: BinaryHeap<Reverse<Weighed>>,
}

impl Heaviest {
    fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::new() }
    }

    /// The key is asked for only where it has a place.
    fn offer(&mut self, bytes: u64, keys: u64, key: &[u8]) {
        let least = self.heap.peek().filter(|_| self.heap.len() >= self.limit);
        if self.limit > 0 && least.is_none_or(|Reverse(least)| least.bytes < bytes) {
            self.heap.push(Reverse(Weighed { bytes, keys, key: key.to_vec() }));
            if self.heap.len() > self.limit {
                self.heap.pop();
            }
        }
    }

    fn finish(self) -> Vec<Weighed> {
        // Ascending by what is reversed: the heaviest first.
        self.heap.into_sorted_vec().into_iter().map(|Reverse(weighed)| weighed).collect()
    }
}

/// A prefix of the key before, and what has come of it.
struct Open {
    len: usize,
    bytes: u64,
    keys: u64,
    /// The most keys that one longer prefix has.
    longer_keys: u64,
}

struct Top {
    values: Heaviest,
    prefixes: Heaviest,
    last: Vec<u8>,
    /// The prefixes of `last`, the longest last.
    open: Vec<Open>,
}

impl Top {
    fn new(limit: usize) -> Self {
        let (values, prefixes) = (Heaviest::new(limit), Heaviest::new(limit));
        Self { values, prefixes, last: Vec::new(), open: Vec::new() }
    }

    fn add(&mut self, entry: &Entry) {
        self.add_key(entry.key(), entry.record_bytes());
    }

    fn add_key(&mut self, key: &[u8], bytes: u64) {
        self.values.offer(bytes, 1, key);
        let shared = key.iter().zip(&self.last).take_while(|(a, b)| a == b).count();
        while self.open.last().is_some_and(|open| open.len > shared) {
            self.close();
        }
        let known = self.open.last().map_or(0, |open| open.len);
        let ends = key.iter().enumerate().skip(known);
        for (index, _) in ends.filter(|(_, byte)| SEPARATORS.contains(byte)) {
            self.open.push(Open { len: index + 1, bytes: 0, keys: 0, longer_keys: 0 });
        }
        if let Some(open) = self.open.last_mut() {
            open.bytes += bytes;
            open.keys += 1;
        }
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    /// The longest open prefix has had all of its keys.
    fn close(&mut self) {
        let Some(closed) = self.open.pop() else { return };
        if closed.keys > 1 && closed.keys > closed.longer_keys {
            let prefix = self.last.get(..closed.len).unwrap_or_default();
            self.prefixes.offer(closed.bytes, closed.keys, prefix);
        }
        if let Some(around) = self.open.last_mut() {
            around.longer_keys = around.longer_keys.max(closed.keys);
            around.bytes += closed.bytes;
            around.keys += closed.keys;
        }
    }

    fn finish(mut self) -> (Vec<Weighed>, Vec<Weighed>) {
        while !self.open.is_empty() {
            self.close();
        }
        (self.values.finish(), self.prefixes.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The prefixes of some keys of 10 bytes each.
    fn prefixes(keys: &[&str], limit: usize) -> Vec<String> {
        let mut top = Top::new(limit);
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        for key in keys {
            top.add_key(key.as_bytes(), 10);
        }
        let (_, prefixes) = top.finish();
        let text = |weighed: &Weighed| {
            format!("{} {} {}", String::from_utf8_lossy(&weighed.key), weighed.keys, weighed.bytes)
        };
        prefixes.iter().map(text).collect()
    }

    #[test]
    fn prefixes_weigh_all_that_begins_with_them() {
        let keys = ["a/b/1", "a/b/2", "a/b/c/3", "a/d", "e:1", "e:2", "f", "g/1"];
        assert_eq!(prefixes(&keys, 9), ["a/ 4 40", "a/b/ 3 30", "e: 2 20"]);
        assert_eq!(prefixes(&keys, 1), ["a/ 4 40"]);
        assert_eq!(prefixes(&[], 3), [""; 0]);
    }

    #[test]
    fn of_prefixes_of_the_same_keys_the_longest_is_shown() {
        assert_eq!(prefixes(&["usr/share/x", "usr/share/y"], 9), ["usr/share/ 2 20"]);
        let nested = ["usr/share/x", "usr/share/y", "usr/z"];
        assert_eq!(prefixes(&nested, 9), ["usr/ 3 30", "usr/share/ 2 20"]);
    }
}
