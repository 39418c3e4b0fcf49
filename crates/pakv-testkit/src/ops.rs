//! Operations on a store as data, and strategies that generate lists of them.
//!
//! Keys are few, short and made of bytes that sort at the edges, so that operations meet on the
//! same key; values are now and then larger than a tiny segment. Opening again, compacting and the
//! passing of time are operations like any other.

use std::fmt;
use std::ops::{Bound, Deref};

use proptest::collection::vec;
use proptest::prelude::*;

use crate::script::text;
use crate::store::Reopen;

/// A key or value that shows itself as scripts write it, so that a list of operations can be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Bytes(Vec<u8>);

/// One operation on a [`TestStore`](crate::TestStore).
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named after the methods of Db, with their arguments")]
pub enum Op {
    Get(Bytes),
    Set { key: Bytes, value: Bytes, expires: Expires },
    Delete(Bytes),
    CompareAndSet { key: Bytes, expects: Expects, value: Bytes, expires: Expires },
    CompareAndDelete { key: Bytes, expects: Expects },
    Update { key: Bytes, change: Change },
    Batch(Vec<Write>),
    Transaction { writes: Vec<Write>, commit: bool },
    Expire { key: Bytes, expires: Expires },
    Persist(Bytes),
    Scan { range: Range, from_front: Vec<bool> },
    TakeSnapshot,
    CheckSnapshot(usize),
    DropSnapshot(usize),
    Advance { ms: u64 },
    Sync,
    Compact,
    Maintain,
    OpenReadOnly,
    Reopen(Reopen),
}

/// A write of a batch or transaction.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "named after the methods of WriteBatch")]
pub enum Write {
    Set { key: Bytes, value: Bytes, expires: Expires },
    Delete { key: Bytes },
}

/// An expiry, relative to the time at which the operation is applied. All in milliseconds.
#[derive(Debug, Clone, Copy)]
pub enum Expires {
    /// Not at all.
    Never,
    /// This long after the operation, given as a duration.
    After(u64),
    /// This long after the operation or, if negative, before it, but not before 1970; given as an
    /// instant.
    At(i64),
}

/// What a conditional write expects.
#[derive(Debug, Clone)]
pub enum Expects {
    /// That the key is not there.
    Absent,
    /// That it is there.
    Present,
    /// The value that it has when the operation is applied; absent if it has none.
    Current,
    /// This value.
    Value(Bytes),
}

/// What the function given to `update` does.
#[derive(Debug, Clone)]
pub enum Change {
    /// Adds bytes to the value, or to an empty one.
    Append(Bytes),
    /// Returns what it was given.
    Same,
    /// Returns `None`.
    Remove,
}

/// What a scan covers.
#[derive(Debug, Clone)]
pub enum Range {
    /// Everything.
    All,
    /// The keys that begin with these bytes.
    Prefix(Bytes),
    /// The keys between two bounds, which may be the wrong way round.
    Between(Bound<Bytes>, Bound<Bytes>),
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(self))
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<T: Into<Vec<u8>>> From<T> for Bytes {
    fn from(bytes: T) -> Self {
        Self(bytes.into())
    }
}

/// A list of at most `len` operations.
pub fn ops(len: usize) -> impl Strategy<Value = Vec<Op>> {
    vec(op(), 1..=len)
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => key().prop_map(Op::Get),
        20 => (key(), value(), expires())
            .prop_map(|(key, value, expires)| Op::Set { key, value, expires }),
        10 => key().prop_map(Op::Delete),
        4 => (key(), expects(), value(), expires()).prop_map(|(key, expects, value, expires)| {
            Op::CompareAndSet { key, expects, value, expires }
        }),
        2 => (key(), expects()).prop_map(|(key, expects)| Op::CompareAndDelete { key, expects }),
        4 => (key(), change()).prop_map(|(key, change)| Op::Update { key, change }),
        5 => vec(write(), 0..6).prop_map(Op::Batch),
        3 => (vec(write(), 0..6), any::<bool>())
            .prop_map(|(writes, commit)| Op::Transaction { writes, commit }),
        3 => (key(), expires()).prop_map(|(key, expires)| Op::Expire { key, expires }),
        2 => key().prop_map(Op::Persist),
        4 => (range(), vec(any::<bool>(), 0..6))
            .prop_map(|(range, from_front)| Op::Scan { range, from_front }),
        2 => Just(Op::TakeSnapshot),
        3 => (0..4_usize).prop_map(Op::CheckSnapshot),
        1 => (0..4_usize).prop_map(Op::DropSnapshot),
        4 => (0..30_u64).prop_map(|ms| Op::Advance { ms }),
        1 => Just(Op::Sync),
        2 => Just(Op::Compact),
        4 => Just(Op::Maintain),
        1 => Just(Op::OpenReadOnly),
        3 => reopen().prop_map(Op::Reopen),
    ]
}

fn key() -> impl Strategy<Value = Bytes> {
    let byte = prop::sample::select(vec![0x00, b'a', b'b', 0xff]);
    prop_oneof![
        12 => vec(byte, 1..=2).prop_map(Bytes),
        1 => (250..300_usize).prop_map(|len| Bytes(vec![b'k'; len])),
    ]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        10 => vec(any::<u8>(), 0..12).prop_map(Bytes),
        3 => (any::<u8>(), 60..200_usize).prop_map(|(byte, len)| Bytes(vec![byte; len])),
        1 => (any::<u8>(), 500..1_500_usize).prop_map(|(byte, len)| Bytes(vec![byte; len])),
    ]
}

fn expires() -> impl Strategy<Value = Expires> {
    prop_oneof![
        6 => Just(Expires::Never),
        2 => (0..60_u64).prop_map(Expires::After),
        1 => (-20..60_i64).prop_map(Expires::At),
        1 => Just(Expires::At(i64::MIN)),
    ]
}

fn expects() -> impl Strategy<Value = Expects> {
    prop_oneof![
        Just(Expects::Absent),
        Just(Expects::Present),
        Just(Expects::Current),
        vec(any::<u8>(), 0..2).prop_map(|bytes| Expects::Value(Bytes(bytes))),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        4 => value().prop_map(Change::Append),
        1 => Just(Change::Same),
        1 => Just(Change::Remove),
    ]
}

fn write() -> impl Strategy<Value = Write> {
    prop_oneof![
        3 => (key(), value(), expires())
            .prop_map(|(key, value, expires)| Write::Set { key, value, expires }),
        1 => key().prop_map(|key| Write::Delete { key }),
    ]
}

fn range() -> impl Strategy<Value = Range> {
    // Any bytes, the empty string too: a bound or a prefix need not be a possible key.
    let bytes = || vec(prop::sample::select(vec![0x00, b'a', b'b', 0xff]), 0..3).prop_map(Bytes);
    let bound = move || {
        prop_oneof![
            2 => bytes().prop_map(Bound::Included),
            2 => bytes().prop_map(Bound::Excluded),
            1 => Just(Bound::Unbounded),
        ]
    };
    prop_oneof![
        1 => Just(Range::All),
        2 => bytes().prop_map(Range::Prefix),
        3 => (bound(), bound()).prop_map(|(start, end)| Range::Between(start, end)),
    ]
}

fn reopen() -> impl Strategy<Value = Reopen> {
    prop::sample::select(vec![Reopen::Close, Reopen::Drop, Reopen::Kill, Reopen::LoseHints])
}
