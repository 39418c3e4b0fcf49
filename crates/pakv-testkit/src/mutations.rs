//! Random damage to a small store, a million times: the truth or a typed error. What
//! `pakv/tests/it/damage.rs` does to every byte alone is done here several times at once, with
//! blocks that move within a file and between files, and with checksums that are right again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fastrand::Rng;
use pakv::{Db, Durability, Error, FileAccess, Options, WriteBatch};
use tempfile::TempDir;

use crate::{TestStore, files, forge};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store as files, and what it may hold.
#[derive(Debug)]
struct Base {
    files: Vec<(String, Vec<u8>)>,
    /// Every state that it was in since the last seal; the newest last. After a clean close it can
    /// only be that one.
    states: Vec<Contents>,
}

/// What was done and found.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Damaged stores.
    pub mutations: u64,
    /// So many of them were refused.
    pub refused: u64,
    /// So many were opened, and some values said that they are damaged.
    pub damaged: u64,
    /// So many had checksums that were right again.
    pub forged: u64,
}

/// Damages one store after the other.
#[derive(Debug)]
pub struct Mutations {
    bases: Vec<Base>,
    dir: TempDir,
    tally: Tally,
}

impl Default for Mutations {
    fn default() -> Self {
        Self::new()
    }
}

impl Mutations {
    /// Makes the stores: one closed cleanly, and two as a kill leaves them.
    pub fn new() -> Self {
        let kinds = [
            (Durability::Buffered, true),
            (Durability::Buffered, false),
            (Durability::Sync, false),
        ];
        let bases = kinds.map(|(durability, close)| Base::new(durability, close)).into();
        Self { bases, dir: files::scratch(), tally: Tally::default() }
    }

    /// What was done so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Damages a store as `seed` says, and uses it.
    ///
    /// # Errors
    /// What was wrong with the answers; a panic is one.
    pub fn mutate(&mut self, seed: u64) -> Result<(), String> {
        let mut rng = Rng::with_seed(seed);
        let base = &self.bases[rng.usize(..self.bases.len())];
        let mut damaged = base.files.clone();
        let forged = rng.u8(..3) == 0;
        for _ in 0..1 + rng.usize(..3) {
            damage(&mut damaged, &base.files, forged, &mut rng);
        }
        let dir = self.dir.path();
        for path in files::paths(dir) {
            files::remove(&path);
        }
        for (name, bytes) in &damaged {
            files::write(&dir.join(name), bytes);
        }
        self.tally.mutations += 1;
        self.tally.forged += u64::from(forged);
        let tally = &mut self.tally;
        // With right checksums a lie may be told; then all that is asked is that nothing breaks.
        let states = if forged { &[][..] } else { &base.states };
        let used = catch_unwind(AssertUnwindSafe(|| use_it(dir, states, &mut rng, tally)));
        used.unwrap_or_else(|_| Err("it panicked".to_string()))
            .map_err(|wrong| format!("mutations 1 {seed}: {wrong}"))
    }
}

impl Base {
    fn new(durability: Durability, close: bool) -> Self {
        let dir = files::scratch();
        let options = TestStore::options().segment_bytes(600).durability(durability);
        let db = options.open(dir.path()).expect("an empty directory becomes a store");
        let mut states = vec![Contents::new()];
        let mut segments = 0;
        for round in 0..40_u32 {
            write(&db, round).expect("a write succeeds");
            if round == 20 {
                db.compact().expect("compact succeeds");
            }
            let now = db.stats().expect("figures").segments.len();
            if now != segments {
                // What was sealed is durable: no state before it is one.
                segments = now;
                states.clear();
                states.push(before_active(dir.path()));
            }
            states.push(contents(&db).expect("a scan succeeds"));
        }
        let left = files::scratch();
        let files_of = if close {
            db.close().expect("close succeeds");
            states = states.split_off(states.len() - 1);
            dir.path()
        } else {
            files::copy_store(dir.path(), left.path());
            left.path()
        };
        let files = files::names(files_of, "");
        let files = files.into_iter().map(|name| {
            let bytes = files::read(&files_of.join(&name));
            (name, bytes)
        });
        Self { files: files.collect(), states }
    }
}

/// What a store holds without its active segment.
fn before_active(dir: &Path) -> Contents {
    let copy = files::copied(dir);
    let mut manifest = forge::Manifest::of(copy.path());
    let active = manifest.active.as_mut().expect("there is an active segment");
    let path = forge::log_path(copy.path(), active.segment);
    let start = forge::segment(manifest.store, active.segment, &[]);
    files::write(&path, &start);
    active.synced_bytes = u32::try_from(start.len()).expect("it is short");
    manifest.put(copy.path());
    let db = TestStore::options().open(copy.path()).expect("the store before the last segment");
    contents(&db).expect("a scan succeeds")
}

fn write(db: &Db, round: u32) -> pakv::Result<()> {
    let key = format!("key{}", round * 7 % 13);
    match round % 5 {
        0 => db.delete(&key).map(drop),
        1 => {
            let mut batch = WriteBatch::new();
            for part in ["a", "b", "c"] {
                batch.set(format!("batch/{part}"), format!("round {round}"));
            }
            batch.delete("key0");
            db.write(&batch)
        }
        _ => db.set(&key, format!("value of round {round} {}", ".".repeat(round as usize))),
    }
}

fn contents(db: &Db) -> pakv::Result<Contents> {
    db.scan()?.map(|entry| entry.into_pair()).collect()
}

/// One piece of damage to one of the files.
fn damage(
    damaged: &mut Vec<(String, Vec<u8>)>,
    whole: &[(String, Vec<u8>)],
    forged: bool,
    rng: &mut Rng,
) {
    if damaged.is_empty() {
        return;
    }
    let target = rng.usize(..damaged.len());
    let other = &whole[rng.usize(..whole.len())].1;
    let bytes = &mut damaged[target].1;
    // Where checksums are to be right again, frames stay frames.
    let kinds = if forged { 3 } else { 12 };
    let at = rng.usize(..bytes.len().max(1));
    match rng.u8(..kinds) {
        _ if bytes.is_empty() => bytes.push(rng.u8(..)),
        0 => bytes[at] ^= 1 << rng.u8(..8),
        1 => bytes[at] = rng.u8(..),
        2 => {
            // A length or number becomes a giant.
            let end = (at + rng.usize(1..10)).min(bytes.len());
            bytes[at..end].fill([0, 0x7f, 0x80, 0xff][rng.usize(..4)]);
        }
        3 => bytes.truncate(at),
        4 => {
            let len = rng.usize(1..300);
            bytes.extend(std::iter::repeat_with(|| rng.u8(..)).take(len));
        }
        5 => bytes.extend(std::iter::repeat_n(0, rng.usize(1..9000))),
        6 => {
            let (from, to) = (rng.usize(..bytes.len()), rng.usize(..bytes.len()));
            let len = rng.usize(1..200).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + len, to);
        }
        7 if !other.is_empty() => {
            let from = rng.usize(..other.len());
            let to = rng.usize(..bytes.len());
            let len = rng.usize(1..200).min(other.len() - from).min(bytes.len() - to);
            bytes[to..to + len].copy_from_slice(&other[from..from + len]);
        }
        8 => *bytes = other.clone(),
        9 => drop(damaged.remove(target)),
        10 => {
            let suffix = ["log", "hint", "log.tmp", "hint.tmp"][rng.usize(..4)];
            let name = format!("{:010}.{suffix}", rng.u32(..40));
            if damaged.iter().all(|(other, _)| *other != name) {
                damaged.push((name, other.clone()));
            }
        }
        _ => drop(bytes.remove(at)),
    }
    if forged && let Some((_, bytes)) = damaged.get_mut(target) {
        forge::reseal(bytes);
    }
}

/// Opens the store and reads it; now and then it is written to, compacted and opened again.
fn use_it(dir: &Path, states: &[Contents], rng: &mut Rng, tally: &mut Tally) -> Result<(), String> {
    let method = if rng.bool() { FileAccess::Mapped } else { FileAccess::Positional };
    let options = TestStore::options().segment_bytes(600).file_access(method);
    if rng.u8(..4) == 0 {
        read(&options.clone().read_only(true), dir, states)?;
    }
    match read(&options, dir, states)? {
        Found::Refused => tally.refused += 1,
        Found::Damaged => tally.damaged += 1,
        Found::Whole => {}
    }
    if rng.u8(..4) == 0 {
        write_on(&options, dir)?;
        read(&options, dir, &[])?;
    }
    Ok(())
}

enum Found {
    Refused,
    Damaged,
    Whole,
}

fn read(options: &Options, dir: &Path, states: &[Contents]) -> Result<Found, String> {
    let db = match options.clone().open(dir) {
        Ok(db) => db,
        Err(error) => return typed(error).map(|()| Found::Refused),
    };
    let mut found: BTreeMap<Vec<u8>, Option<Vec<u8>>> = BTreeMap::new();
    for entry in db.scan().map_err(|error| error.to_string())? {
        let value = match (entry.value(), db.get(entry.key())) {
            (Ok(value), Ok(got)) if got.as_ref() == Some(&value) => Some(value),
            // A forged key may be one that nobody may ask for.
            (Ok(value), Err(Error::KeyEmpty | Error::KeyTooLong { .. })) => Some(value),
            (Err(error), _) if error.is_corruption() => None,
            other => return Err(format!("{}: {other:?}", entry.key().escape_ascii())),
        };
        found.insert(entry.key().to_vec(), value);
    }
    let is = |state: &Contents| {
        state.len() == found.len()
            && state.iter().zip(&found).all(|((key, value), (found_key, found))| {
                key == found_key && found.as_ref().is_none_or(|found| found == value)
            })
    };
    if !states.is_empty() && !states.iter().rev().any(is) {
        return Err(format!("it was never in this state: {found:?}"));
    }
    db.stats().map_err(|error| error.to_string())?;
    db.close().or_else(typed)?;
    Ok(if found.values().any(Option::is_none) { Found::Damaged } else { Found::Whole })
}

/// Any of it may be refused.
fn write_on(options: &Options, dir: &Path) -> Result<(), String> {
    let db = match options.clone().open(dir) {
        Ok(db) => db,
        Err(error) => return typed(error),
    };
    for round in 0..12 {
        write(&db, round).or_else(typed)?;
    }
    db.compact().map(drop).or_else(typed)?;
    db.maintain().map(drop).or_else(typed)?;
    db.close().or_else(typed)
}

fn typed(error: Error) -> Result<(), String> {
    match error {
        Error::Io { .. }
        | Error::Corrupt { .. }
        | Error::UnknownFormat { .. }
        | Error::ManifestMissing { .. }
        | Error::Poisoned { .. } => Ok(()),
        other => Err(format!("{other:?}")),
    }
}
