//! Pipes that break, bytes that are not text, processes side by side.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::process::{Child, Stdio};

use crate::kit::Sandbox;

fn all_bytes() -> Vec<u8> {
    (0..=u8::MAX).collect()
}

/// A store with this many entries.
fn filled(entries: usize) -> Sandbox {
    let sandbox = Sandbox::new();
    let rows: String = (0..entries).map(|row| format!("key{row:06}\tvalue of {row}\n")).collect();
    let run = sandbox.run_with_stdin(&["import", "--format", "tsv"], rows.as_bytes());
    assert_eq!(run.code, Some(0), "{run:?}");
    sandbox
}

#[test]
fn get_gives_the_exact_bytes() {
    let sandbox = Sandbox::new();
    sandbox.run_with_stdin(&["set", "k", "-"], &all_bytes()).prints("");
    sandbox.run(["get", "k"]).prints(all_bytes());
    sandbox.run(["--output", "raw", "get", "k"]).prints(all_bytes());
    sandbox.run_with_stdin(&["set", "k", "-"], b"").prints("");
    sandbox.run(["get", "k"]).prints("");
}

#[test]
fn arguments_are_any_bytes() {
    let sandbox = Sandbox::new();
    // An argument holds any byte but NUL.
    let bytes = &all_bytes()[1..];
    let arg = OsStr::from_bytes(bytes);
    let db = OsStr::from_bytes(b"st\xffre");
    let pakv = |args: &[&OsStr]| sandbox.run([&[OsStr::new("--db"), db], args].concat());
    pakv(&["set".as_ref(), arg, arg]).prints("");
    pakv(&["get".as_ref(), arg]).prints(bytes);
    pakv(&["scan".as_ref(), "--keys".as_ref(), "--prefix".as_ref(), arg])
        .prints([bytes, b"\n"].concat());
    let key_base64 = pakv(&["--output".as_ref(), "json".as_ref(), "get".as_ref(), arg]);
    assert!(key_base64.stdout.starts_with(b"{\"key_base64\":\"AQIDBAUG"), "{key_base64:?}");
    pakv(&["rm".as_ref(), arg]).prints("");
    pakv(&["get".as_ref(), arg]).fails(1, "Key not found");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let sandbox = filled(20_000);
    for verb in ["scan", "scan --keys", "--output json scan", "export", "export --format csv"] {
        let run = sandbox.sh(&format!("{{ pakv {verb}; echo $? >&2; }} | head -n 1"));
        assert_eq!(run.stderr, "0\n", "{verb}");
        assert_eq!(run.stdout.iter().filter(|byte| **byte == b'\n').count(), 1, "{verb}");
    }
    let run = sandbox.sh("{ printf 'scan\\nscan\\n' | pakv shell; echo $? >&2; } | head -n 1");
    assert_eq!(run.stderr, "0\n");
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "k", "v"]).prints("");
    for line in [
        "get k",
        "exists k",
        "ttl k",
        "incr n",
        "scan",
        "scan --count",
        "export",
        "stats",
        "compact",
        "completions bash",
        "--help",
        "--version",
    ] {
        sandbox.sh(&format!("pakv {line} > /dev/full")).fails(3, "cannot write the output");
    }
    sandbox.sh("pakv export /dev/full").fails(3, "cannot write to /dev/full");
    // The device is still one: a file was not put in its place.
    assert!(!std::fs::metadata("/dev/full").unwrap().is_file());
}

/// A shell that has the store open for writing until its input ends.
struct Holder(Child);

impl Holder {
    fn new(sandbox: &Sandbox) -> Self {
        let mut child = sandbox.pakv(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
        let mut holder = {
            let stdin = child.stdin.as_mut().unwrap();
            stdin.write_all(b"set held yes\nget held\n").unwrap();
            Self(child)
        };
        let mut answer = String::new();
        let stdout = holder.0.stdout.as_mut().unwrap();
        BufReader::new(stdout).read_line(&mut answer).unwrap();
        assert_eq!(answer, "yes\n");
        holder
    }

    fn leave(mut self) {
        drop(self.0.stdin.take());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn a_store_in_use_can_be_read_and_names_its_holder() {
    let sandbox = Sandbox::new();
    let holder = Holder::new(&sandbox);
    let pid = holder.0.id().to_string();
    let writing = [
        &["set", "k", "v"][..],
        &["rm", "held"],
        &["expire", "held", "1s"],
        &["persist", "held"],
        &["incr", "n"],
        &["compact"],
    ];
    for args in writing {
        let run = sandbox.run([&["--wait", "0"], args].concat());
        run.fails(5, &format!("process {pid} has it open"));
    }
    let run =
        sandbox.run_with_stdin(&["import", "--wait=0s"], b"{\"key\":\"a\",\"value\":\"b\"}\n");
    run.fails(5, &pid);

    sandbox.run(["get", "held"]).prints("yes");
    sandbox.run(["exists", "held"]).prints("true\n");
    sandbox.run(["ttl", "held"]).prints("never\n");
    sandbox.run(["scan"]).prints("held\tyes\n");
    sandbox.run(["export"]).prints("{\"key\":\"held\",\"value\":\"yes\"}\n");
    assert_eq!(sandbox.run(["stats"]).code, Some(0));
    // Beside a shell, another one reads.
    sandbox.run_with_stdin(&["shell"], b"get held\n").prints("yes\n");

    holder.leave();
    sandbox.run(["set", "held", "no", "--wait", "0"]).prints("");
    sandbox.run(["get", "held"]).prints("no");
}

#[test]
fn a_writer_waits_for_a_store_in_use() {
    let sandbox = Sandbox::new();
    let holder = Holder::new(&sandbox);
    let waiting = sandbox.pakv(["--wait", "30s", "set", "k", "v"]).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(200));
    holder.leave();
    assert!(waiting.wait_with_output().unwrap().status.success());
    sandbox.run(["get", "k"]).prints("v");
}

/// A person presses Ctrl-C in the middle of an import: what is in the store is the first lines,
/// without a gap.
#[test]
fn an_interrupted_import_leaves_the_first_lines() {
    let sandbox = Sandbox::new();
    let mut child =
        sandbox.interruptible(["import", "--format", "tsv"]).stdin(Stdio::piped()).spawn().unwrap();
    let stdin = child.stdin.as_mut().unwrap();
    let rows: String = (0..5_000).map(|row| format!("key{row:06}\tvalue\n")).collect();
    stdin.write_all(rows.as_bytes()).unwrap();
    stdin.flush().unwrap();
    // It has what it was given once a batch of it can be seen; the rest of the file never comes.
    while sandbox.run(["exists", "key000000"]).code != Some(0) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(
        sandbox.command("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success()
    );
    assert_eq!(child.wait().unwrap().code(), None, "ended by the signal");

    let keys = String::from_utf8(sandbox.run(["scan", "--keys"]).stdout).unwrap();
    let wanted: String = (0..keys.lines().count()).map(|row| format!("key{row:06}\n")).collect();
    assert!(!keys.is_empty());
    assert_eq!(keys, wanted);
    sandbox.run(["set", "after", "all"]).prints("");
}

#[test]
fn what_comes_slowly_is_imported_too() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.pakv(["import"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    for part in ["{\"key\":\"a\",", "\"value\":\"1\"}\n{\"key\":", "\"b\",\"value\":\"2\"}"] {
        stdin.write_all(part.as_bytes()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    drop(stdin);
    let mut note = String::new();
    child.stderr.take().unwrap().read_to_string(&mut note).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(note, "2 entries imported\n");
    sandbox.run(["scan"]).prints("a\t1\nb\t2\n");
}

/// Real rows: what goes in comes out, in every format, and in key order.
#[test]
fn export_equals_import() {
    let sandbox = Sandbox::new();
    let rows: Vec<String> = (0..3_000u32)
        .map(|row| {
            format!(
                "k{}\ttab\tand \\n backslash, \"quotes\" {row}\n",
                row.wrapping_mul(2_654_435_761)
            )
        })
        .collect();
    std::fs::write(sandbox.path("rows.tsv"), rows.concat()).unwrap();
    assert_eq!(sandbox.run(["import", "rows.tsv"]).stderr, "3,000 entries imported\n");
    let mut sorted = rows.clone();
    sorted.sort();
    sandbox.run(["export", "--format", "tsv"]).prints(sorted.concat());
    for name in ["copy.jsonl", "copy.csv", "copy.tsv"] {
        assert_eq!(sandbox.run(["export", name]).stderr, "3,000 entries exported\n");
        assert_eq!(
            sandbox.run(["--db", name.trim_start_matches("copy."), "import", name]).code,
            Some(0)
        );
        sandbox
            .run(["--db", name.trim_start_matches("copy."), "export", "-", "--format", "tsv"])
            .prints(sorted.concat());
    }
}

/// No process stays to compact in the background, and the store keeps within its bound all the
/// same.
#[test]
fn short_processes_leave_no_more_garbage_than_is_promised() {
    let sandbox = Sandbox::new();
    std::fs::write(sandbox.path("value"), vec![b'x'; 3 << 20]).unwrap();
    for _ in 0..4 {
        sandbox.run(["set", "key", "--file", "value"]).prints("");
    }
    sandbox.run(["set", "key", "small"]).prints("");
    let bytes: u64 = std::fs::read_dir(sandbox.path("pakv-data"))
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes < 1 << 20, "{bytes} bytes for one small value");
    sandbox.run(["get", "key"]).prints("small");
}
