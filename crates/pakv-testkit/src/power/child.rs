//! What the children of the power cuts do, and what they say: a line for each acknowledgement, with
//! the times just before the call and just after it, so that the parent knows which of them came
//! before it cut the power, however late it reads them.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::order::{Said, Span, steps};
use crate::kill;

/// The clock that all processes of a machine share, in nanoseconds. It never goes back.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    #[expect(
        unsafe_code,
        reason = "the standard library's clock cannot be compared across processes"
    )]
    // SAFETY: the call writes one timespec, which outlives it.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    assert_eq!(result, 0, "every Linux has this clock");
    let part = |number: i64| u64::try_from(number).expect("time since the start is not negative");
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Writes until it is killed or an error ends it, in the workload of `kill::step`, with a reader and
/// compactions beside. Prints `opening`, `open`, and what is acknowledged.
///
/// # Errors
/// Those of the store.
pub fn write(dir: &Path, seed: u64, first_steps: &[u64]) -> pakv::Result<()> {
    say("opening");
    // A rotation syncs: half of the stores have segments so long that much is never synced.
    let (segment_bytes, busy) =
        if seed.is_multiple_of(2) { (2_048, true) } else { (65_536, false) };
    let db = kill::options(seed).segment_bytes(segment_bytes).open(dir)?;
    say("open");
    std::thread::scope(|scope| {
        let mut writers = Vec::new();
        for (thread, first_step) in first_steps.iter().enumerate() {
            let db = &db;
            let write =
                move || steps(db, seed, thread, *first_step, now_ns, |said| say(&line(said)));
            writers.push(scope.spawn(write));
        }
        loop {
            let snapshot = db.snapshot()?;
            for entry in snapshot.scan() {
                entry.value()?;
            }
            if busy {
                db.compact()?;
            }
            if let Some(ended) = writers.iter().position(std::thread::ScopedJoinHandle::is_finished)
            {
                return writers.swap_remove(ended).join().expect("a writer does not panic");
            }
        }
    })
}

/// So many steps, on this thread alone, with compactions in between and a close; so the n-th sync of
/// a run is the same call in every run. Prints `opening`, `open`, `0 STEP` for each acknowledged
/// step, `failed ERROR` for the first failure, `acknowledged CALL` if anything is after it, and
/// `closed` if nothing failed.
///
/// # Errors
/// Those of the open, and of reading after a failure, which must go on.
pub fn run(dir: &Path, seed: u64, steps: u64) -> pakv::Result<()> {
    const STEPS_PER_COMPACTION: u64 = 7;
    say("opening");
    let options = kill::options(seed).background_compaction(false).segment_bytes(1_024);
    let db = options.open(dir)?;
    say("open");
    let work = || -> pakv::Result<()> {
        for number in 0..steps {
            kill::step(seed, 0, number).apply(&db)?;
            say(&format!("0 {number}"));
            if number % STEPS_PER_COMPACTION == STEPS_PER_COMPACTION - 1 {
                db.compact()?;
            }
        }
        Ok(())
    };
    let result = work().and_then(|()| db.clone().close());
    let Err(error) = result else {
        say("closed");
        return Ok(());
    };
    say(&format!("failed {error:?}"));
    let is_refused = |result: pakv::Result<()>| {
        matches!(result, Err(pakv::Error::Poisoned { .. } | pakv::Error::Closed))
    };
    for (call, result) in [
        ("set", db.set("another", "write")),
        ("sync", db.sync()),
        ("maintain", db.maintain()),
        ("compact", db.compact().map(|_| ())),
        ("transaction", db.transaction().map(|_| ())),
    ] {
        if !is_refused(result) {
            say(&format!("acknowledged {call}"));
        }
    }
    // Unless it was the close that failed, which closes all the same.
    if let Ok(scan) = db.scan() {
        scan.map(|entry| entry.into_pair()).collect::<pakv::Result<Vec<_>>>()?;
    }
    Ok(())
}

/// How many threads [`append`] has.
pub(crate) const APPENDERS: usize = 3;
/// The length of what it appends, in bytes.
pub(crate) const LINE_BYTES: usize = 64;

/// What [`append`] writes as its line `number`.
pub(crate) fn appended(number: u64) -> Vec<u8> {
    let mut bytes = format!("{number} ").into_bytes();
    bytes.resize(LINE_BYTES - 1, b'.');
    bytes.push(b'\n');
    bytes
}

/// The control, without any store: threads that append to a file each and sync it, and say so.
///
/// # Errors
/// Those of the file system.
pub fn append(dir: &Path) -> io::Result<()> {
    std::fs::create_dir(dir)?;
    let files = (0..APPENDERS).map(|thread| File::create_new(dir.join(thread.to_string())));
    let files = files.collect::<io::Result<Vec<File>>>()?;
    files.iter().try_for_each(File::sync_all)?;
    File::open(dir)?.sync_all()?;
    File::open(dir.parent().expect("it lies in a directory"))?.sync_all()?;
    say("open");
    std::thread::scope(|scope| {
        let append = |thread: usize, file: &File| -> io::Result<()> {
            for number in 0.. {
                let begin = now_ns();
                file.write_all_at(&appended(number), number * LINE_BYTES as u64)?;
                file.sync_data()?;
                let span = Span { begin, end: now_ns() };
                say(&line(Said::Step { thread, number, span }));
            }
            Ok(())
        };
        let threads: Vec<_> = files
            .iter()
            .enumerate()
            .map(|(thread, file)| scope.spawn(move || append(thread, file)))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().expect("it does not panic"))
    })
}

fn line(said: Said) -> String {
    match said {
        Said::Step { thread, number, span: Span { begin, end } } => {
            format!("step {thread} {number} {begin} {end}")
        }
        Said::Sync(Span { begin, end }) => format!("sync {begin} {end}"),
    }
}

/// What a line says, if it says an acknowledgement.
pub(crate) fn heard(line: &str) -> Option<Said> {
    let (verb, rest) = line.split_once(' ')?;
    let numbers: Vec<u64> = rest.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    match (verb, &numbers[..]) {
        ("step", [thread, number, begin, end]) => Some(Said::Step {
            thread: usize::try_from(*thread).ok()?,
            number: *number,
            span: Span { begin: *begin, end: *end },
        }),
        ("sync", [begin, end]) => Some(Said::Sync(Span { begin: *begin, end: *end })),
        _ => None,
    }
}

/// One line in one write, so that lines of several threads do not mix and none is left in a buffer.
fn say(line: &str) {
    let mut stdout = io::stdout().lock();
    let written = stdout.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdout.flush());
    written.expect("the parent reads until this process ends");
}
