//! Loads a store, overwrites a random half of it again and again, lets it rest, and says what is on
//! the disk then and whether every value is right, before and after a reopen. The figures of the
//! project's promises on space.
//!
//! `rounds FILE.tsv [ROUNDS]` takes keys and values from lines of key TAB value; `rounds COUNT
//! [ROUNDS]` makes up COUNT keys of 24 bytes with values of 100.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use pakv::{Db, Durability, Options, WriteBatch};

type Outcome<T> = Result<T, Box<dyn Error>>;

const SEED: u64 = 2026;
/// How long the store may take to come to rest after the last write.
const REST: Duration = Duration::from_secs(5);

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let source = arguments.next().ok_or("usage: rounds FILE.tsv|COUNT [ROUNDS]")?;
    let rounds: u64 = arguments.next().map_or(Ok(20), |rounds| rounds.parse())?;
    let mut random = fastrand::Rng::with_seed(SEED);
    let mut rows = match source.parse() {
        Ok(count) => made_up(count, &mut random),
        Err(_) => from_file(Path::new(&source))?,
    };
    let dir = tempfile::tempdir_in(".")?;
    let db = Options::new().durability(Durability::Buffered).open(dir.path())?;

    let started = Instant::now();
    write_all(&db, rows.iter())?;
    db.sync()?;
    report("load", started, rows.len());

    let started = Instant::now();
    verify(&db, &rows)?;
    report("read back every key, scan in order", started, rows.len());

    let keys: Vec<Vec<u8>> = rows.keys().cloned().collect();
    let started = Instant::now();
    let mut written = 0;
    for round in 0..rounds {
        for _ in 0..keys.len() / 2 {
            let key = &keys[random.usize(..keys.len())];
            let value = rows.get_mut(key).ok_or("a key went missing here")?;
            change(value, round);
            db.set(key, value)?;
            written += 1;
        }
    }
    report("overwrite", started, written);
    print_space("right after", &db, dir.path())?;

    std::thread::sleep(REST);
    let live = print_space("after five seconds", &db, dir.path())?;
    let stats = db.stats()?;
    println!(
        "compaction: {} runs wrote {} MiB; keydir {} MiB; peak memory of the process {}",
        stats.compaction.runs,
        stats.compaction.bytes_written >> 20,
        stats.keydir_bytes >> 20,
        peak_memory(),
    );
    db.close()?;

    let started = Instant::now();
    let db = Db::open(dir.path())?;
    report("reopen", started, rows.len());
    let started = Instant::now();
    verify(&db, &rows)?;
    report("read back every key, scan in order", started, rows.len());
    db.close()?;
    let disk = directory_bytes(dir.path())?;
    if disk * 2 > live * 3 {
        return Err(format!("{disk} bytes on disk are more than 1.5 x {live} live bytes").into());
    }
    Ok(())
}

fn from_file(path: &Path) -> Outcome<BTreeMap<Vec<u8>, Vec<u8>>> {
    let bytes = std::fs::read(path)?;
    let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let tab = line.iter().position(|byte| *byte == b'\t').ok_or("a line without a tab")?;
            Ok((line[..tab].to_vec(), line[tab + 1..].to_vec()))
        })
        .collect()
}

fn made_up(count: usize, random: &mut fastrand::Rng) -> BTreeMap<Vec<u8>, Vec<u8>> {
    std::iter::repeat_with(|| {
        let key = format!("{:016x}{:08x}", random.u64(..), random.u32(..)).into_bytes();
        (key, std::iter::repeat_with(|| random.u8(..)).take(100).collect())
    })
    .take(count)
    .collect()
}

/// Another value of the same length, unless it is empty.
fn change(value: &mut [u8], round: u64) {
    for byte in value.iter_mut().take(8) {
        *byte = byte.wrapping_add(round as u8 + 1);
    }
}

fn write_all<'a>(db: &Db, rows: impl Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)>) -> Outcome<()> {
    let mut batch = WriteBatch::new();
    for (key, value) in rows {
        batch.set(key.as_slice(), value.as_slice());
        if batch.len() == 1000 {
            db.write(&batch)?;
            batch.clear();
        }
    }
    Ok(db.write(&batch)?)
}

fn verify(db: &Db, rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> Outcome<()> {
    for (key, value) in rows {
        if db.get(key)?.as_ref() != Some(value) {
            return Err(format!("{} has a wrong value", key.escape_ascii()).into());
        }
    }
    let mut expected = rows.keys();
    for entry in db.scan()? {
        if expected.next().map(Vec::as_slice) != Some(entry.key()) {
            return Err(format!("{} is out of place", entry.key().escape_ascii()).into());
        }
    }
    match expected.next() {
        Some(_) => Err("the scan ended early".into()),
        None => Ok(()),
    }
}

/// Returns the live bytes.
fn print_space(when: &str, db: &Db, path: &Path) -> Outcome<u64> {
    let live = db.stats()?.live_bytes;
    let disk = directory_bytes(path)?;
    println!(
        "{when}: {disk} bytes in the directory, {live} live, {:.3} times",
        disk as f64 / live as f64
    );
    Ok(live)
}

fn directory_bytes(path: &Path) -> Outcome<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(path)? {
        bytes += entry?.metadata()?.len();
    }
    Ok(bytes)
}

fn report(what: &str, started: Instant, count: usize) {
    let seconds = started.elapsed().as_secs_f64();
    println!("{what}: {count} in {seconds:.2} s, {:.0} a second", count as f64 / seconds);
}

fn peak_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.unwrap_or("unknown").trim().to_string()
}
