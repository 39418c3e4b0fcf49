//! What the child processes do, each verb of them a main function.

use std::io::{Read as _, Write as _};
use std::path::Path;

use pakv::{FileAccess, Options, Result};

use super::{options, step};

/// Runs a child's verb, if `args` are one:
///
/// ```text
/// write DIR SEED STEP...            until it is killed, from these steps of each thread on
/// hold DIR [SEED]                   opens it and waits for the end of standard input
/// fill DIR SEGMENT_BYTES [METHOD]   until a write fails
/// compact DIR [METHOD]              once
/// read METHOD DIR                   every value
/// ```
///
/// # Errors
/// Those of the store and of the arguments.
pub fn child(args: &[&str]) -> Option<Result<(), Box<dyn std::error::Error>>> {
    let run = || -> Result<(), Box<dyn std::error::Error>> {
        match args {
            ["write", dir, seed, first_steps @ ..] => {
                let steps: Vec<u64> =
                    first_steps.iter().map(|step| step.parse()).collect::<Result<_, _>>()?;
                write_until_killed(Path::new(dir), seed.parse()?, &steps)?;
            }
            ["hold", dir] => hold(Path::new(dir), Options::new())?,
            ["hold", dir, seed] => hold(Path::new(dir), options(seed.parse()?))?,
            ["fill", dir, segment_bytes] => {
                fill_until_it_fails(Path::new(dir), segment_bytes.parse()?)?;
            }
            ["fill", dir, segment_bytes, reads] => {
                let options = small(segment_bytes.parse()?).file_access(method(reads)?);
                fill(Path::new(dir), &options)?;
            }
            ["compact", dir] => compact(Path::new(dir), FileAccess::Mapped),
            ["compact", dir, reads] => compact(Path::new(dir), method(reads)?),
            ["read", reads, dir] => read_all(Path::new(dir), *reads == "positional")?,
            _ => {
                return Err(format!(
                    "a child knows how to write, hold, fill, compact and read, \
                 not {args:?}"
                )
                .into());
            }
        }
        Ok(())
    };
    let verbs = ["write", "hold", "fill", "compact", "read"];
    args.first().filter(|verb| verbs.contains(verb)).map(|_| run())
}

fn method(name: &str) -> Result<FileAccess, String> {
    match name {
        "mapped" => Ok(FileAccess::Mapped),
        "positional" => Ok(FileAccess::Positional),
        other => Err(format!("values are read mapped or positional, not {other}")),
    }
}

fn small(segment_bytes: u64) -> Options {
    Options::new().segment_bytes(segment_bytes).background_compaction(false)
}

/// Writes until it is killed: the child's main function. Prints `opening`, `open` and then `THREAD
/// STEP` for each acknowledged step.
///
/// # Errors
/// Those of the store: there should be none.
pub fn write_until_killed(dir: &Path, seed: u64, first_steps: &[u64]) -> Result<()> {
    say("opening");
    let db = options(seed).open(dir)?;
    say("open");
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (thread, first_step) in first_steps.iter().enumerate() {
            let db = db.clone();
            writers.push(scope.spawn(move || -> Result<()> {
                for number in *first_step.. {
                    step(seed, thread, number).apply(&db)?;
                    say(&format!("{thread} {number}"));
                }
                Ok(())
            }));
        }
        // A reader holds on to retired segments for a while, and a compaction now and then comes by
        // call.
        loop {
            let snapshot = db.snapshot()?;
            for entry in snapshot.scan() {
                entry.value()?;
            }
            db.compact()?;
            if let Some(ended) = writers.iter().position(std::thread::ScopedJoinHandle::is_finished)
            {
                return writers.swap_remove(ended).join().expect("a writer does not panic");
            }
        }
    })
}

/// Opens a store, prints `open` and holds it until standard input ends.
///
/// # Errors
/// Those of the open.
pub fn hold(dir: &Path, options: Options) -> Result<()> {
    let db = options.open(dir)?;
    say("open");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    db.close()
}

/// What [`fill_until_it_fails`] writes under a key, which is a number.
pub fn fill_value(number: u64) -> Vec<u8> {
    format!("{number} ").repeat(20).into_bytes()
}

/// Writes numbered keys until a write fails, as it does under a limit on the size of files. Prints
/// `ok NUMBER` for each acknowledged write, `failed ERROR` for the first that is not, and `poisoned
/// ERROR` for the one after it.
///
/// # Errors
/// Those of reading what was acknowledged, which must go on.
pub fn fill_until_it_fails(dir: &Path, segment_bytes: u64) -> Result<()> {
    fill(dir, &small(segment_bytes))
}

fn fill(dir: &Path, options: &Options) -> Result<()> {
    let db = match options.clone().open(dir) {
        Ok(db) => db,
        Err(error) => {
            say(&format!("refused {error:?}"));
            return Ok(());
        }
    };
    let mut number = 0;
    let failure = loop {
        match db.set(number.to_string(), fill_value(number)) {
            Ok(()) => say(&format!("ok {number}")),
            Err(error) => break error,
        }
        number += 1;
    };
    say(&format!("failed {failure:?}"));
    if let Err(error) = db.set("another", "write") {
        say(&format!("poisoned {error:?}"));
    }
    for number in 0..number {
        assert_eq!(db.get(number.to_string())?, Some(fill_value(number)), "reads go on");
    }
    say("read");
    Ok(())
}

/// Compacts once and prints `compacted`, or `failed ERROR`; then `wrote`, or `poisoned ERROR`, of a
/// write after it. `refused ERROR` if the store cannot be opened.
fn compact(dir: &Path, reads: FileAccess) {
    let db = match small(4096).file_access(reads).open(dir) {
        Ok(db) => db,
        Err(error) => return say(&format!("refused {error:?}")),
    };
    match db.compact() {
        Ok(_) => say("compacted"),
        Err(error) => say(&format!("failed {error:?}")),
    }
    match db.set("another", "write") {
        Ok(()) => say("wrote"),
        Err(error) => say(&format!("poisoned {error:?}")),
    }
}

/// Reads every value and prints how many there are, or the error; then `peak NUMBER`, the most KiB
/// of memory that the process had.
///
/// # Errors
/// None: they are printed.
pub fn read_all(dir: &Path, positional: bool) -> Result<()> {
    let method = if positional { FileAccess::Positional } else { FileAccess::Mapped };
    let count = || -> Result<usize> {
        let db = Options::new().file_access(method).background_compaction(false).open(dir)?;
        let mut values = 0;
        for entry in db.scan()? {
            entry.value()?;
            values += 1;
        }
        Ok(values)
    };
    match count() {
        Ok(values) => say(&format!("{values} values")),
        Err(error) => say(&format!("error: {error}")),
    }
    if let Some(peak) = peak_kib() {
        say(&format!("peak {peak}"));
    }
    Ok(())
}

/// The most memory that this process has had at once, as Linux counts it.
fn peak_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

/// One line in one write, so that lines of several threads do not mix and none is left in a buffer.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush());
    written.expect("the parent reads until this process ends");
}
