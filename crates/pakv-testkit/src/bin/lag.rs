//! How far a reader in another process is behind a writer at full speed, and what a refresh and a
//! watch cost. A measurement, not a test.
//!
//! `lag [SECONDS [KEYS [PAUSE_MS]]]`: a child process overwrites random ones of KEYS keys (1,000,000
//! unless told) with values of 100 bytes; this one opens the store for reading only and refreshes it,
//! with a pause of so many milliseconds (0 unless told) between two refreshes, for SECONDS (10).
//! Every 64th write of the child is of a key that says when it was written: what a reader sees of
//! that, against the clock, is how far it is behind.

use std::error::Error;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pakv::{Db, Durability, Options};
use pakv_testkit::timing::{age, now_ns, spread};

type Outcome<T> = Result<T, Box<dyn Error>>;

const STAMP: &str = "stamp";
const STAMP_EVERY: u64 = 64;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [verb, dir, keys] = arguments.as_slice()
        && verb == "write"
    {
        return write(Path::new(dir), keys.parse()?);
    }
    let number = |index: usize, default: u64| {
        arguments.get(index).map_or(Ok(default), |argument| argument.parse())
    };
    let (seconds, keys, pause_ms) = (number(0, 10)?, number(1, 1_000_000)?, number(2, 0)?);
    let dir = tempfile::tempdir_in(".")?;
    let child = || -> Outcome<_> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["write".as_ref(), dir.path().as_os_str(), keys.to_string().as_ref()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // It says when the store is full.
        child.stdout.take().ok_or("a pipe")?.read_exact(&mut [0])?;
        Ok(child)
    };
    let mut writer = child()?;
    let begun = Instant::now();
    let reader = Options::new().read_only(true).open(dir.path())?;
    println!("open beside the writer: {} keys in {:.3} s", reader.len()?, since(begun));
    follow(&reader, Duration::from_secs(seconds), Duration::from_millis(pause_ms))?;
    watch(&reader, Duration::from_secs(seconds))?;
    drop(writer.stdin.take());
    if !writer.wait()?.success() {
        return Err("the writer failed".into());
    }
    Ok(())
}

/// Refreshes again and again, and says how far behind each time.
fn follow(reader: &Db, time: Duration, pause: Duration) -> Outcome<()> {
    let (mut behind, mut took) = (Vec::new(), Vec::new());
    let (begun, first) = (Instant::now(), reader.refresh()?);
    let (mut newest, mut last_stamp) = (first, None);
    while begun.elapsed() < time {
        std::thread::sleep(pause);
        let refresh = Instant::now();
        newest = reader.refresh()?;
        took.push(since(refresh));
        let stamp = reader.get(STAMP)?;
        // Where there is no new one, it is the writer who waits for something.
        if stamp != last_stamp {
            behind.extend(stamp.as_deref().and_then(age));
            last_stamp = stamp;
        }
    }
    let rate = (newest - first) as f64 / since(begun);
    println!("refresh: {} times, the writer at {rate:.0} writes/s", took.len());
    println!("  one took            {}", spread(&mut took));
    println!("  a write was seen after {}", spread(&mut behind));
    Ok(())
}

/// Watches, and says how far behind each stamp is when it comes.
fn watch(reader: &Db, time: Duration) -> Outcome<()> {
    let (mut behind, mut changes, mut gone) = (Vec::new(), 0_u64, 0_u64);
    let (begun, first) = (Instant::now(), reader.refresh()?);
    let mut watch = reader.watch(first + 1)?;
    while begun.elapsed() < time {
        match watch.next() {
            Some(Ok(change)) => {
                changes += 1;
                if change.key == STAMP.as_bytes() {
                    behind.extend(change.value.and_then(|stamp| age(&stamp)));
                }
            }
            Some(Err(pakv::Error::HistoryGone { .. })) => {
                gone += 1;
                watch = reader.watch(reader.refresh()? + 1)?;
            }
            Some(Err(error)) => return Err(error.into()),
            None => drop(watch.wait(Duration::from_millis(100))?),
        }
    }
    let time = since(begun);
    let (changes, writes) = (changes as f64 / time, (reader.refresh()? - first) as f64 / time);
    println!("watch: {changes:.0} changes/s of {writes:.0} writes/s, overtaken {gone} times");
    println!("  a change came after    {}", spread(&mut behind));
    Ok(())
}

/// Fills the store, says so, and overwrites until standard input ends.
fn write(dir: &Path, keys: u64) -> Outcome<()> {
    let db = Options::new().durability(Durability::Buffered).open(dir)?;
    let mut random = fastrand::Rng::with_seed(2026);
    let key = |number: u64| format!("key{number:021}");
    (0..keys).try_for_each(|number| db.set(key(number), [7; 100]))?;
    db.set(STAMP, now_ns().to_string())?;
    println!(".");
    let end = std::thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let mut written = 0_u64;
    while !end.is_finished() {
        db.set(key(random.u64(..keys)), [8; 100])?;
        written += 1;
        if written.is_multiple_of(STAMP_EVERY) {
            db.set(STAMP, now_ns().to_string())?;
        }
    }
    db.close()?;
    Ok(())
}

fn since(begun: Instant) -> f64 {
    begun.elapsed().as_secs_f64()
}
