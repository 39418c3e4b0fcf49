//! What is done to a store, as data, and random lists of it.

use fastrand::Rng;

/// How a write is to be acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of the levels")]
pub enum Level {
    Sync,
    /// With an interval that never comes due in a run: the thread that syncs must not make two runs
    /// of one seed differ.
    Interval,
    Buffered,
}

/// A new value: its length in bytes and after how many milliseconds it expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "said above")]
pub struct Value {
    pub len: usize,
    pub ttl_ms: Option<u64>,
}

/// What a conditional write expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "what it says of the key")]
pub enum Guess {
    Absent,
    Present,
    /// The value that is there, or one that is not.
    Value {
        right: bool,
    },
}

/// One write of a batch: `None` deletes.
pub(crate) type Write = (u8, Option<Value>);

/// One thing that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "named after the methods of Db, with their arguments")]
pub enum Op {
    Set(u8, Value, Level),
    Delete(u8, Level),
    Batch(Vec<Write>, Level),
    Transaction(Vec<Write>, Level),
    CompareAndSet(u8, Guess, Value, Level),
    CompareAndDelete(u8, Guess, Level),
    Expire(u8, Option<u64>, Level),
    Sync,
    Compact,
    /// Each of these is done after so many records were copied or left behind.
    CompactMeanwhile(Vec<(u64, Op)>),
    Maintain,
    /// Time passes, in milliseconds.
    Wait(u64),
    /// Everything is read and compared.
    Read,
    /// A snapshot is taken, and an older one compared and dropped.
    Snapshot,
    /// A clean close and an open.
    Reopen,
}

/// What a workload is made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mix {
    pub(crate) keys: u8,
    /// Of ten writes, how many ask for a sync.
    pub(crate) sync_in_ten: u8,
    pub(crate) value_len_max: usize,
    pub(crate) with_expiry: bool,
    /// Whether compactions are forced. If not, the store's own plan decides, which leaves segments
    /// out: only then can something dropped come back from one of them.
    pub(crate) forced: bool,
    /// Operations of a life, at most.
    pub(crate) ops_max: usize,
}

impl Mix {
    pub(crate) fn random(rng: &mut Rng) -> Self {
        Self {
            keys: if rng.u8(0..3) > 0 { rng.u8(2..9) } else { rng.u8(9..40) },
            sync_in_ten: [0, 1, 3, 5, 9, 10][rng.usize(0..6)],
            value_len_max: [20, 100, 300, 1500][rng.usize(0..4)],
            with_expiry: rng.bool(),
            forced: rng.bool(),
            ops_max: [20, 60, 60, 200][rng.usize(0..4)],
        }
    }

    pub(crate) fn op(&self, rng: &mut Rng) -> Op {
        let key = rng.u8(0..self.keys);
        let level = self.level(rng);
        match rng.u8(0..100) {
            0..35 => Op::Set(key, self.value(rng), level),
            35..52 => Op::Delete(key, level),
            52..62 => Op::Batch(self.writes(rng), level),
            62..65 => Op::Transaction(self.writes(rng), level),
            65..71 => Op::CompareAndSet(key, guess(rng), self.value(rng), level),
            71..74 => Op::CompareAndDelete(key, guess(rng), level),
            74..77 => Op::Expire(key, self.ttl_ms(rng), level),
            77..81 => Op::Sync,
            81..83 if self.forced => Op::Compact,
            83..85 if self.forced => Op::CompactMeanwhile(self.meanwhile(rng)),
            81..89 => Op::Maintain,
            89..94 if self.with_expiry => Op::Wait(rng.u64(1..60)),
            89..95 => Op::Read,
            95..98 => Op::Snapshot,
            _ => Op::Reopen,
        }
    }

    /// Writes, and time that passes, in the middle of a compaction.
    fn meanwhile(&self, rng: &mut Rng) -> Vec<(u64, Op)> {
        let mut ops = Vec::new();
        for _ in 0..rng.usize(1..6) {
            let op = self.op(rng);
            let fits =
                !matches!(op, Op::Compact | Op::CompactMeanwhile(_) | Op::Maintain | Op::Reopen);
            ops.extend(fits.then(|| (rng.u64(0..12), op)));
        }
        ops
    }

    fn level(&self, rng: &mut Rng) -> Level {
        match rng.u8(0..10) {
            roll if roll < self.sync_in_ten => Level::Sync,
            9 if rng.u8(0..8) == 0 => Level::Interval,
            _ => Level::Buffered,
        }
    }

    fn writes(&self, rng: &mut Rng) -> Vec<Write> {
        let count = rng.usize(1..6);
        (0..count)
            .map(|_| {
                let value = (rng.u8(0..3) > 0).then(|| self.value(rng));
                (rng.u8(0..self.keys), value)
            })
            .collect()
    }

    fn value(&self, rng: &mut Rng) -> Value {
        Value { len: rng.usize(0..self.value_len_max), ttl_ms: self.ttl_ms(rng) }
    }

    fn ttl_ms(&self, rng: &mut Rng) -> Option<u64> {
        (self.with_expiry && rng.u8(0..3) == 0).then(|| rng.u64(0..80))
    }
}

fn guess(rng: &mut Rng) -> Guess {
    match rng.u8(0..5) {
        0 => Guess::Absent,
        1 => Guess::Present,
        roll => Guess::Value { right: roll > 2 },
    }
}

/// The bytes of the key of that number.
pub(crate) fn key(number: u8) -> Vec<u8> {
    format!("k{number}").into_bytes()
}
