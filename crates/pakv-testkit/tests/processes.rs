//! What takes a second process: `kill -9` at a random moment, readers beside a writer, a store held
//! by somebody else, and limits that the operating system sets.
//!
//! `PAKV_KILL_RUNS` sets how many kills there are (20 unless told), `PAKV_SEED` repeats a failed
//! run's workload; the moment of the kill stays the scheduler's.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use pakv::{Db, Error, Options};
use pakv_testkit::files;
use pakv_testkit::kill::{self, LibraryKills};
use pakv_testkit::power::Writer;

const CHILD: &str = env!("CARGO_BIN_EXE_kill_child");

#[test]
fn a_killed_writer_loses_nothing_and_revives_nothing() {
    let runs = env_number("PAKV_KILL_RUNS").unwrap_or(20);
    let seed = env_number("PAKV_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("PAKV_SEED={seed}");
    let mut kills = LibraryKills::new(CHILD.as_ref(), seed);
    for _ in 0..runs {
        kills.kill().unwrap_or_else(|problem| panic!("{problem}"));
    }
    println!("{}", kills.tally());
    assert!(
        kills.tally().acknowledged > 0,
        "no child came far enough to acknowledge a step: nothing was tested"
    );
}

#[test]
fn a_store_held_by_another_process_names_it_and_is_free_once_that_is_killed() {
    let dir = files::scratch();
    Db::open(dir.path())
        .and_then(|db| db.set("key", "value").and_then(|()| db.close()))
        .expect("a store is made");
    let mut holder = Writer::start(Command::new(CHILD).arg("hold").arg(dir.path()));
    assert_eq!(holder.line().as_deref(), Some("open"), "the child says that it has the store open");

    match Options::new().lock_wait(Duration::ZERO).open(dir.path()) {
        Err(Error::InUse { path, pid, .. }) => {
            assert_eq!(path, dir.path(), "the error names the store");
            assert_eq!(pid, Some(holder.id()), "the error names the process");
        }
        other => panic!("a second open should say that the store is in use: {other:?}"),
    }
    let reader = Options::new().read_only(true).open(dir.path()).expect("a reader needs no lock");
    assert_eq!(reader.get("key").expect("a reader reads"), Some(b"value".to_vec()));

    holder.kill();
    let db = Options::new()
        .lock_wait(Duration::ZERO)
        .open(dir.path())
        .expect("a killed process holds no lock");
    assert_eq!(db.get("key").expect("get succeeds"), Some(b"value".to_vec()));
}

/// A file that may not grow past a limit, in the middle of a record or of a manifest: a typed
/// error, then no write is taken any more; reads go on; what was acknowledged is there afterwards
/// and the store can be written again.
#[test]
fn a_write_that_the_system_refuses_poisons_the_store_and_loses_nothing() {
    // With large segments it is the segment that grows too long, with small ones the manifest that
    // lists them.
    for (blocks, segment_bytes) in [(1, 4_096), (3, 4_096), (1, 512), (2, 512)] {
        let context = format!("files of {blocks} blocks, segments of {segment_bytes} bytes");
        let dir = files::scratch();
        Db::open(dir.path()).and_then(|db| db.close()).expect("a store is made");
        // The signal that would end the process is ignored, so that the call fails instead.
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let output = Command::new("sh")
            .args(["-c", &limited, "sh", CHILD, "fill"])
            .arg(dir.path())
            .arg(segment_bytes.to_string())
            .output()
            .expect("the child runs");
        let said = String::from_utf8(output.stdout).expect("the child prints text");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{context}: {said}{errors}");
        let lines: Vec<&str> = said.lines().collect();
        let acknowledged = lines.iter().filter(|line| line.starts_with("ok ")).count() as u64;
        assert!(acknowledged > 1, "{context}: some writes fit: {said}");
        let failed = lines.iter().find(|line| line.starts_with("failed "));
        assert!(
            failed.is_some_and(|line| line.contains("Io {")),
            "{context}: the failure is typed: {said}"
        );
        let poisoned = lines.iter().find(|line| line.starts_with("poisoned "));
        assert!(
            poisoned.is_some_and(|line| line.contains("Poisoned {")),
            "{context}: the next is refused: {said}"
        );

        let db = Db::open(dir.path()).unwrap_or_else(|error| panic!("{context}: {error}"));
        for number in 0..acknowledged {
            let value =
                db.get(number.to_string()).unwrap_or_else(|error| panic!("{context}: {error}"));
            assert_eq!(value, Some(kill::fill_value(number)), "{context}: the value of {number}");
        }
        let len = db.len().expect("len succeeds");
        assert!(
            len == acknowledged || len == acknowledged + 1,
            "{context}: {len} keys of {acknowledged}"
        );
        db.set("another", "write").unwrap_or_else(|error| panic!("{context}: {error}"));
    }
}

/// Segments that are read through a mapping are not kept open, so a store has more of them than a
/// process may have files; with positional reads there is a limit, and passing it is an error like
/// any other.
#[test]
fn segments_beyond_the_limit_on_open_files() {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(512).background_compaction(false);
    let db = options.open(dir.path()).expect("an empty directory becomes a store");
    for number in 0..300_u64 {
        db.set(number.to_string(), kill::fill_value(number).repeat(8)).expect("set succeeds");
    }
    db.close().expect("close succeeds");
    let segments = files::names(dir.path(), ".log").len();
    assert!(segments > 250, "there are many segments: {segments}");
    for (reads, done) in [("mapped", "300 values"), ("positional", "Too many open files")] {
        let output = Command::new("sh")
            .args(["-c", "ulimit -n 64; exec \"$@\"", "sh", CHILD, "read", reads])
            .arg(dir.path())
            .output()
            .expect("the child runs");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains(done), "{reads}: {said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// A run of the child under a limit, which `sh` sets after it has itself started.
fn limited(limit: &str, args: &[&str], dir: &Path) -> Output {
    let line = format!("{limit}; exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &line, "sh", CHILD, args[0]]);
    // `read` takes the directory last, the others first.
    match args {
        ["read", method] => command.arg(method).arg(dir),
        [_, rest @ ..] => command.arg(dir).args(rest),
        [] => &mut command,
    };
    command.output().expect("the child runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Out of file descriptors at every point that there is: in the start of the process, in an open,
/// in mid-run when a segment is begun or its manifest replaced, and, as sealed segments are read
/// through their files here, after any number of them. A typed error each time; what was
/// acknowledged is there afterwards, and the store can be written again.
#[test]
fn a_store_that_runs_out_of_file_descriptors_while_it_writes() {
    let (mut in_open, mut in_run) = (0, 0);
    for limit in 3..=24 {
        let context = format!("{limit} file descriptors");
        let dir = files::scratch();
        Db::open(dir.path()).and_then(|db| db.close()).expect("a store is made");
        let args = ["fill", "4096", "positional"];
        let output = limited(&format!("ulimit -n {limit}"), &args, dir.path());
        let text = said(&output);
        let lines: Vec<&str> = text.lines().collect();
        let acknowledged = lines.iter().filter(|line| line.starts_with("ok ")).count() as u64;
        if let Some(refused) = lines.iter().find(|line| line.starts_with("refused ")) {
            assert!(refused.contains("Io {") && refused.contains("Too many open"), "{text}");
            in_open += 1;
        } else if let Some(failed) = lines.iter().find(|line| line.starts_with("failed ")) {
            assert!(failed.contains("Io {") && failed.contains("Too many open"), "{text}");
            assert!(
                lines.iter().any(|line| line.starts_with("poisoned Poisoned {")),
                "{context}: the next is refused: {text}"
            );
            assert!(lines.contains(&"read"), "{context}: reads go on: {text}");
            in_run += 1;
        } else {
            // Not enough for the process to start.
            assert!(!output.status.success() && acknowledged == 0, "{context}: {text}");
        }
        holds_what_was_acknowledged(dir.path(), acknowledged, &context);
    }
    assert!(in_open > 1 && in_run > 5, "{in_open} failed in the open, {in_run} later");
}

/// The same in a compaction, which is given up; what it was to compact is as it was. A failure
/// before anything was published leaves the store as it is, one after that poisons it.
#[test]
fn a_compaction_that_runs_out_of_file_descriptors() {
    let full = files::scratch();
    let options = Options::new().segment_bytes(4_096).background_compaction(false);
    let db = options.open(full.path()).expect("an empty directory becomes a store");
    for _ in 0..2 {
        for number in 0..40 {
            db.set(number.to_string(), kill::fill_value(number)).expect("set succeeds");
        }
    }
    db.close().expect("close succeeds");
    let (mut refused, mut failed, mut compacted) = (0, 0, 0);
    for method in ["mapped", "positional"] {
        for limit in 3..=24 {
            let context = format!("{limit} file descriptors, {method}");
            let dir = files::copied(full.path());
            let args = ["compact", method];
            let text = said(&limited(&format!("ulimit -n {limit}"), &args, dir.path()));
            if text.contains("refused ") {
                refused += 1;
            } else if text.contains("failed ") {
                assert!(text.contains("failed Io {"), "{context}: {text}");
                assert!(text.contains("wrote") || text.contains("poisoned "), "{context}: {text}");
                failed += 1;
            } else if text.contains("compacted") {
                compacted += 1;
            }
            holds_what_was_acknowledged(dir.path(), 40, &context);
        }
    }
    assert!(
        refused > 1 && failed > 1 && compacted > 1,
        "{refused} refused, {failed} failed, {compacted} compacted"
    );
}

/// What cannot be mapped for want of address space is read through the file. Less memory than a
/// process needs ends it, as it ends any; nothing acknowledged is lost by it.
#[test]
fn a_limit_on_memory() {
    let dir = files::scratch();
    let options = Options::new().segment_bytes(64 << 20).background_compaction(false);
    let db = options.open(dir.path()).expect("an empty directory becomes a store");
    for number in 0..200_u64 {
        let value = [kill::fill_value(number), vec![b'.'; 1 << 20]].concat();
        db.set(number.to_string(), value).expect("set succeeds");
    }
    db.close().expect("close succeeds");
    // Three segments of 64 MiB do not fit into the second.
    for limit in ["ulimit -v 1000000", "ulimit -v 100000"] {
        let output = limited(limit, &["read", "mapped"], dir.path());
        assert!(said(&output).contains("200 values"), "{limit}: {}", said(&output));
    }
    for limit_kib in [4_000, 6_000, 8_000, 12_000, 20_000, 70_000] {
        let dir = files::scratch();
        Db::open(dir.path()).and_then(|db| db.close()).expect("a store is made");
        let limit = format!("ulimit -f 64; trap '' XFSZ; ulimit -v {limit_kib}");
        let output = limited(&limit, &["fill", "4096"], dir.path());
        let acknowledged = said(&output).lines().filter(|line| line.starts_with("ok ")).count();
        holds_what_was_acknowledged(dir.path(), acknowledged as u64, &limit);
    }
}

/// The next open works, finds every acknowledged value and perhaps one more, and writes.
fn holds_what_was_acknowledged(dir: &Path, acknowledged: u64, context: &str) {
    let db = Db::open(dir).unwrap_or_else(|error| panic!("{context}: {error}"));
    for number in 0..acknowledged {
        let value = db.get(number.to_string()).unwrap_or_else(|error| panic!("{context}: {error}"));
        assert_eq!(value, Some(kill::fill_value(number)), "{context}: the value of {number}");
    }
    let mut others = db.scan().expect("scan succeeds").filter(|entry| {
        let number = std::str::from_utf8(entry.key()).ok().and_then(|key| key.parse::<u64>().ok());
        number.is_none_or(|number| number > acknowledged) && entry.key() != b"another"
    });
    assert!(others.next().is_none(), "{context}: a key that nobody wrote");
    drop(others);
    db.set("another", "write").unwrap_or_else(|error| panic!("{context}: {error}"));
    db.close().unwrap_or_else(|error| panic!("{context}: {error}"));
}

fn env_number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name} should be a number, not {value:?}")))
}
