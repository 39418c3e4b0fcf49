//! Errors that a recorded session cannot make: full disks, damaged files, odd directories, limits.
//! Each is told in a line, has its exit code, and leaves nothing behind.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;

use crate::kit::{Run, Sandbox};

/// A store with one key.
fn with_a_store() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "key", "a value that can be found"]).prints("");
    sandbox
}

#[test]
fn keys_have_limits() {
    let sandbox = Sandbox::new();
    let longest = "k".repeat(64 * 1024);
    let too_long = format!("{longest}k");
    sandbox.run(["set", "", "v"]).fails(2, "the key is empty");
    sandbox.run(["set", &too_long, "v"]).fails(2, "the key has 65537 bytes; the limit is 65536");
    sandbox.run(["incr", &too_long]).fails(2, "the limit is 65536");
    assert_eq!(sandbox.names(), [""; 0], "nothing was created");

    sandbox.run(["set", &longest, "v"]).prints("");
    for verb in ["get", "exists", "ttl", "persist", "rm"] {
        sandbox.run([verb, &too_long]).fails(2, "the limit is 65536");
        sandbox.run([verb, ""]).fails(2, "the key is empty");
    }
    sandbox.run(["get", &longest]).prints("v");
    // A message names no key in full.
    let run = sandbox.run(["set", &longest, "text"]);
    run.prints("");
    let run = sandbox.run(["incr", &longest]);
    run.fails(3, "is not an integer");
    assert!(run.stderr.len() < 300, "{}", run.stderr.len());
}

#[test]
fn values_have_limits() {
    let sandbox = Sandbox::new();
    File::create(sandbox.path("huge")).unwrap().set_len(512 * 1024 * 1024 + 1).unwrap();
    sandbox.run(["set", "k", "--file", "huge"]).fails(2, "more than 536870912 bytes");
    assert_eq!(sandbox.names(), ["huge"]);
}

#[test]
fn files_that_are_not_what_they_should_be() {
    let sandbox = Sandbox::new();
    fs::create_dir(sandbox.path("directory")).unwrap();
    sandbox.run(["set", "k", "--file", "absent"]).fails(3, "cannot open absent: No such file");
    sandbox.run(["set", "k", "--file", "directory"]).fails(3, "Is a directory");
    sandbox.run(["import", "absent.tsv"]).fails(3, "cannot open absent.tsv");
    sandbox.run(["import", "directory"]).fails(3, "Is a directory");
    assert_eq!(sandbox.names(), ["directory"], "no store was created for them");

    sandbox.run(["set", "k", "v"]).prints("");
    sandbox.run(["export", "directory"]).fails(3, "directory");
    sandbox.run(["export", "absent/file"]).fails(3, "cannot create absent/file");
    fs::write(sandbox.path("file"), "").unwrap();
    sandbox.run(["man", "file"]).fails(3, "file");
}

#[test]
fn a_path_that_is_no_store() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "text").unwrap();
    for args in [&["get", "k"][..], &["set", "k", "v"], &["scan"], &["rm", "k"], &["compact"]] {
        sandbox.run([&["--db", "file"], args].concat()).fails(3, "file is not a directory");
        if args[0] != "set" {
            sandbox
                .run([&["--db", "absent"], args].concat())
                .fails(3, "there is no store at absent");
        }
    }
    sandbox.run(["set", "k", "v", "--if-present"]).fails(3, "there is no store at pakv-data");
    assert_eq!(sandbox.names(), ["file"]);
    assert_eq!(fs::read(sandbox.path("file")).unwrap(), b"text");
}

#[test]
fn a_directory_without_permission() {
    const NOBODY: u32 = 65_534;
    let sandbox = with_a_store();
    let all =
        |path: PathBuf, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    all(sandbox.path(""), 0o755);
    all(sandbox.path("pakv-data"), 0o000);
    // Permissions do not bind root, so there pakv is run as nobody.
    let is_root =
        std::os::unix::fs::MetadataExt::uid(&fs::metadata(sandbox.path("")).unwrap()) == 0;
    let run = |args: &[&str]| {
        let mut command = sandbox.pakv(args);
        if is_root {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.output().map(Run::of)
    };
    if let Err(error) = run(&["--version"]) {
        eprintln!(
            "SKIPPED, NOT TESTED: what pakv says without permission; nobody cannot run it here: {error}"
        );
        return;
    }
    run(&["get", "key"]).unwrap().fails(3, "ermission denied");
    run(&["set", "key", "v"]).unwrap().fails(3, "ermission denied");
    run(&["--db", "new", "set", "key", "v"])
        .map(|run| {
            if is_root {
                run.fails(3, "ermission denied");
            }
        })
        .unwrap();
    all(sandbox.path("pakv-data"), 0o755);
    sandbox.run(["get", "key"]).prints("a value that can be found");
}

/// The one segment of a small store.
fn segment(sandbox: &Sandbox) -> PathBuf {
    let files = fs::read_dir(sandbox.path("pakv-data")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    assert_eq!(logs.len(), 1);
    logs.remove(0)
}

#[test]
fn damage_is_told_and_changes_nothing() {
    let sandbox = with_a_store();
    sandbox.run(["set", "other", "more"]).prints("");
    let segment = segment(&sandbox);
    let whole = fs::read(&segment).unwrap();
    let place = whole.windows(7).position(|window| window == b"a value").unwrap();

    let mut flipped = whole.clone();
    flipped[place] ^= 1;
    fs::write(&segment, &flipped).unwrap();
    let run = sandbox.run(["get", "key"]);
    run.fails(4, "is damaged at byte");
    assert!(run.stderr.contains("hint: "), "{run:?}");
    let json = sandbox.run(["--output", "json", "get", "key"]);
    assert_eq!(json.code, Some(4));
    assert!(json.stderr.starts_with("{\"error\":{\"code\":\"corrupt\""), "{json:?}");
    assert_eq!(fs::read(&segment).unwrap(), flipped, "a reader repairs nothing");

    fs::write(&segment, &whole).unwrap();
    sandbox.run(["get", "key"]).prints("a value that can be found");
}

#[test]
fn a_store_without_its_manifest() {
    let sandbox = with_a_store();
    fs::remove_file(sandbox.path("pakv-data/MANIFEST")).unwrap();
    let before = fs::read_dir(sandbox.path("pakv-data")).unwrap().count();
    sandbox.run(["get", "key"]).fails(4, "MANIFEST is missing");
    sandbox.run(["set", "key", "v"]).fails(4, "MANIFEST is missing");
    assert_eq!(fs::read_dir(sandbox.path("pakv-data")).unwrap().count(), before);
}

#[test]
fn a_store_of_a_newer_format() {
    const VERSION_OFFSET: usize = 8;
    let sandbox = with_a_store();
    let manifest = sandbox.path("pakv-data/MANIFEST");
    let mut bytes = fs::read(&manifest).unwrap();
    sandbox.will_be_damaged();
    bytes[VERSION_OFFSET] += 1;
    fs::write(&manifest, &bytes).unwrap();
    for args in [&["get", "key"][..], &["set", "key", "v"], &["compact"]] {
        let run = sandbox.run(args);
        run.fails(3, "MANIFEST has format version 2; this build reads version 1");
        assert!(run.stderr.contains("hint: a newer pakv wrote it"), "{run:?}");
    }
    assert_eq!(fs::read(&manifest).unwrap(), bytes);
}

/// A limit on the size of files stands in for a disk that is full: a write past it is refused
/// half-way.
#[test]
fn a_write_that_the_disk_refuses() {
    let sandbox = with_a_store();
    let value = "x".repeat(8 << 20);
    fs::write(sandbox.path("value"), &value).unwrap();
    let limited = |line: &str| sandbox.sh(&format!("trap '' XFSZ; ulimit -f 8192; {line}"));
    limited("pakv set big --file value").fails(3, "File too large");
    let rows = format!("{{\"key\":\"r\",\"value\":\"{value}\"}}\n");
    fs::write(sandbox.path("rows.jsonl"), rows).unwrap();
    limited("pakv import rows.jsonl").fails(3, "File too large");
    assert_eq!(limited("pakv export copy.jsonl").stderr, "1 entry exported\n");
}

#[test]
fn an_export_that_fails_leaves_the_old_file() {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "a\tb", "v"]).prints("");
    fs::write(sandbox.path("out.tsv"), "old").unwrap();
    sandbox
        .run(["export", "out.tsv"])
        .fails(3, "tsv cannot carry the entry a\\tb: its key holds a tab");
    assert_eq!(fs::read(sandbox.path("out.tsv")).unwrap(), b"old");
    assert_eq!(sandbox.names(), ["out.tsv", "pakv-data"], "and no half of a new one");

    std::os::unix::fs::symlink("out.tsv", sandbox.path("link.jsonl")).unwrap();
    assert_eq!(sandbox.run(["export", "link.jsonl"]).code, Some(0));
    assert!(fs::symlink_metadata(sandbox.path("link.jsonl")).unwrap().is_symlink());
    assert!(fs::read(sandbox.path("out.tsv")).unwrap().starts_with(b"{\"key\":"));
}
