//! Ctrl-C and a polite kill in the middle of what takes its time. Nothing catches them: the process
//! ends at once by the signal, which a shell tells as 130 and 143, and what it leaves is what any
//! kill leaves. What it printed until then is right, though its last line may be cut, as that of
//! any filter that is stopped.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::kit::Sandbox;

const SIGINT: i32 = 2;
const SIGTERM: i32 = 15;
const SIGNALS: [(i32, &str); 2] = [(SIGINT, "-INT"), (SIGTERM, "-TERM")];

/// Far beyond what a slow machine needs.
const LIMIT: Duration = Duration::from_secs(30);

/// Rows that take more than the buffer of a pipe.
fn rows() -> String {
    (0..20_000).map(|row| format!("key{row:06}\tvalue of {row}\n")).collect()
}

fn filled() -> Sandbox {
    let sandbox = Sandbox::new();
    let run = sandbox.run_with_stdin(&["import", "--format", "tsv"], rows().as_bytes());
    assert_eq!(run.code, Some(0), "{run:?}");
    sandbox
}

fn send(sandbox: &Sandbox, child: &Child, signal: &str) {
    let id = child.id().to_string();
    assert!(sandbox.command("kill").args([signal, &id]).status().unwrap().success());
}

fn ended(child: &mut Child) -> ExitStatus {
    let started = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if started.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the signal did not end it");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The store is whole, is not in use, and holds these rows.
#[track_caller]
fn holds(sandbox: &Sandbox, rows: &str) {
    sandbox.run(["--wait", "0", "set", "zz", "after"]).prints("");
    let run = sandbox.run(["export", "--format", "tsv"]);
    let found = String::from_utf8(run.stdout).unwrap();
    assert!(found == format!("{rows}zz\tafter\n"), "{} lines", found.lines().count());
    sandbox.run(["rm", "zz"]).prints("");
    let names: Vec<String> = std::fs::read_dir(sandbox.path("pakv-data"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert!(!names.iter().any(|name| name.ends_with(".tmp")), "{names:?}");
}

/// Whoever reads is slow, so the verb is in the middle of its output when the signal comes.
#[test]
fn a_stopped_listing_has_printed_the_first_lines() {
    let sandbox = filled();
    let rows = rows();
    for (number, signal) in SIGNALS {
        for args in [&["scan"][..], &["export", "--format", "tsv"], &["scan", "--keys"]] {
            let mut child = sandbox.interruptible(args).spawn().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let mut printed = vec![0; 10];
            stdout.read_exact(&mut printed).unwrap();
            send(&sandbox, &child, signal);
            let status = ended(&mut child);
            assert_eq!(status.signal(), Some(number), "{args:?}: {status}");
            stdout.read_to_end(&mut printed).unwrap();
            let printed = String::from_utf8(printed).unwrap();
            let mut said = String::new();
            child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
            assert_eq!(said, "", "{args:?}: nothing is left of a progress bar");
            let keys: String = rows.lines().map(|row| row[..9].to_string() + "\n").collect();
            let whole = if args.contains(&"--keys") { &keys } else { &rows };
            assert!(printed.len() < whole.len(), "{args:?}: it was over before the signal");
            assert!(whole.starts_with(&printed), "{args:?}: not the first lines");
        }
    }
    holds(&sandbox, &rows);
}

/// The file that was there stays, or the new one is there: never a part of it under its name.
#[test]
fn a_stopped_export_leaves_the_old_file() {
    let sandbox = filled();
    let rows = rows();
    for (number, signal) in SIGNALS {
        for delay_ms in [0, 2, 5, 10, 20] {
            std::fs::write(sandbox.path("out.tsv"), "the old one").unwrap();
            let mut child = sandbox.interruptible(["export", "out.tsv"]).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay_ms));
            send(&sandbox, &child, signal);
            let status = ended(&mut child);
            assert!(status.success() || status.signal() == Some(number), "{status}");
            let found = std::fs::read_to_string(sandbox.path("out.tsv")).unwrap();
            let is_whole = found == rows || (!status.success() && found == "the old one");
            assert!(is_whole, "after {delay_ms} ms: {} bytes", found.len());
        }
    }
    // A new file has a name of its own for the moment before it gets that of the old one.
    let left = sandbox.names().into_iter().filter(|name| name.ends_with(".partial"));
    assert!(left.count() <= 1, "{:?}", sandbox.names());
    holds(&sandbox, &rows);
}

#[test]
fn a_stopped_compaction_has_changed_nothing() {
    let sandbox = filled();
    let rows = rows();
    for (number, signal) in SIGNALS {
        for delay_ms in [0, 2, 5, 10, 20, 40] {
            let garbage = sandbox.run_with_stdin(&["import", "--format", "tsv"], rows.as_bytes());
            assert_eq!(garbage.code, Some(0), "{garbage:?}");
            let mut child = sandbox.interruptible(["compact"]).spawn().unwrap();
            std::thread::sleep(Duration::from_millis(delay_ms));
            send(&sandbox, &child, signal);
            let status = ended(&mut child);
            assert!(status.success() || status.signal() == Some(number), "{status}");
            holds(&sandbox, &rows);
        }
    }
}

/// A shell that reads lines, and an import whose rows still come: what was taken is there.
#[test]
fn a_stopped_shell_and_a_stopped_import_keep_what_they_took() {
    for (number, signal) in SIGNALS {
        let sandbox = Sandbox::new();
        let mut child = sandbox.interruptible(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.as_mut().unwrap().write_all(b"set a 1\nset b 2\nincr n\n").unwrap();
        let mut sum = [0; 2];
        child.stdout.as_mut().unwrap().read_exact(&mut sum).unwrap();
        assert_eq!(&sum, b"1\n");
        send(&sandbox, &child, signal);
        assert_eq!(ended(&mut child).signal(), Some(number));
        holds(&sandbox, "a\t1\nb\t2\nn\t1\n");

        let mut child = sandbox
            .interruptible(["import", "--format", "tsv"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let rows: String = (0..1_500).map(|row| format!("row{row:06}\tvalue\n")).collect();
        child.stdin.as_mut().unwrap().write_all(rows.as_bytes()).unwrap();
        // The first thousand are written together; the rest waits for more.
        let started = Instant::now();
        while sandbox.run(["exists", "row000999"]).code != Some(0) {
            assert!(started.elapsed() < LIMIT, "the first rows do not come");
            std::thread::sleep(Duration::from_millis(5));
        }
        send(&sandbox, &child, signal);
        assert_eq!(ended(&mut child).signal(), Some(number));
        let first: String = rows.lines().take(1_000).map(|row| format!("{row}\n")).collect();
        holds(&sandbox, &format!("a\t1\nb\t2\nn\t1\n{first}"));
    }
}
