//! Links, pipes, sockets, devices and directories where files of the store should be, and the
//! store's directory itself.

use std::fs::File;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use pakv::{Error, Options};
use pakv_testkit::{files, forge, power, within};

use super::{Outside, Store, options};

/// What stands in the place of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Thing {
    Link,
    LinkToNothing,
    LinkToItself,
    Pipe,
    Socket,
    Directory,
    Zeros,
    Terminal,
    Disk,
}

const THINGS: [Thing; 9] = [
    Thing::Link,
    Thing::LinkToNothing,
    Thing::LinkToItself,
    Thing::Pipe,
    Thing::Socket,
    Thing::Directory,
    Thing::Zeros,
    Thing::Terminal,
    Thing::Disk,
];

impl Thing {
    /// Makes it at `path`; false where this machine cannot.
    fn make(self, path: &Path, outside: &Outside) -> bool {
        let link = |target: &Path| symlink(target, path).expect("a link can be made");
        let node = |args: &[&str]| {
            let made = Command::new("mknod").arg(path).args(args).output();
            made.is_ok_and(|output| output.status.success())
        };
        match self {
            Thing::Link => link(&outside.file()),
            Thing::LinkToNothing => link(&outside.nothing()),
            Thing::LinkToItself => link(path),
            Thing::Pipe => {
                let made = Command::new("mkfifo").arg(path).status().expect("mkfifo runs");
                assert!(made.success(), "a pipe can be made");
            }
            // The path of a socket has a short limit, so it is made elsewhere and moved.
            Thing::Socket => {
                let dir = files::scratch();
                let short = dir.path().join("s");
                drop(UnixListener::bind(&short).expect("a socket can be made"));
                std::fs::rename(&short, path).expect("a socket can be moved");
            }
            Thing::Directory => {
                std::fs::create_dir(path).expect("a directory can be made");
                files::write(&path.join("file"), "somebody's");
            }
            Thing::Zeros => return node(&["c", "1", "5"]),
            Thing::Terminal => return node(&["c", "5", "0"]),
            // The first loop device, which nothing may write to.
            Thing::Disk => return node(&["b", "7", "0"]),
        }
        true
    }
}

/// Each of them as each kind of file, listed in the manifest or not.
#[test]
fn what_is_no_file_is_an_error_that_names_it() {
    let store = Store::new();
    let (sealed, active) = (store.sealed()[0], store.active());
    let names = [
        format!("{sealed:010}.log"),
        format!("{active:010}.log"),
        format!("{sealed:010}.hint"),
        format!("{active:010}.hint"),
        "MANIFEST".to_string(),
        "LOCK".to_string(),
        "MANIFEST.tmp".to_string(),
        format!("{sealed:010}.hint.tmp"),
        "0000000090.log".to_string(),
        "0000000090.hint".to_string(),
        "0000000090.log.tmp".to_string(),
    ];
    for thing in THINGS {
        for name in &names {
            let copy = store.copy();
            let path = copy.path().join(name);
            let bytes = if path.exists() { files::read(&path) } else { b"somebody's".to_vec() };
            let outside = Outside::new(&bytes);
            let _ = std::fs::remove_file(&path);
            if !thing.make(&path, &outside) {
                let why = power::Refusal::new("mknod is refused");
                power::skipped(&format!("{thing:?} in a store"), &why);
                break;
            }
            let context = format!("{thing:?} as {name}");
            let error = store.use_it(copy.path(), &context);
            outside.check(&context);
            let is_directory = thing == Thing::Directory;
            if is_directory && path.is_dir() {
                assert_eq!(files::read(&path.join("file")), b"somebody's", "{context}");
            }
            assert!(!is_directory || path.is_dir(), "{context}: the directory is gone");
            // What is not needed, or can be made anew, is in nobody's way.
            let is_needed = name == "MANIFEST" || name == "LOCK" || {
                [sealed, active].iter().any(|id| *name == format!("{id:010}.log"))
            };
            match error {
                Some(Error::Io { path: named, .. }) if is_needed => {
                    assert_eq!(named, path, "{context}: the error names it");
                }
                None if !is_needed => {}
                other => panic!("{context}: {other:?}"),
            }
        }
    }
}

/// Another name for a file of the store, outside of it, keeps its content whatever the store does:
/// a backup made with `cp -al` stays what it was, and a stranger's file that was linked into the
/// directory is not written. The active segment alone is written in place, so an open gives the
/// store one of its own.
///
/// The active segment was appended to and its torn tail cut under its other name, and a `LOCK` that
/// was a link to somebody's file was emptied.
#[test]
fn a_hard_link_to_the_outside_is_not_written_through() {
    let store = Store::new();
    let names: Vec<_> = files::paths(store.dir.path());
    for torn in [false, true] {
        for path in &names {
            let copy = store.copy();
            let name = path.file_name().expect("a file has a name").to_str().expect("in ASCII");
            let file = copy.path().join(name);
            if torn {
                let mut bytes = files::read(&file);
                bytes.extend(b"a tail that is no record");
                files::write(&file, bytes);
            }
            let outside = Outside::new(&files::read(&file));
            files::remove(&file);
            std::fs::hard_link(outside.file(), &file).expect("a link can be made");
            let context = format!("{name} with another name, torn: {torn}");
            let error = store.use_it(copy.path(), &context);
            outside.check(&context);
            if !torn || name != "MANIFEST" {
                assert!(error.is_none(), "{context}: {error:?}");
                store.works(copy.path(), &context);
            }
            outside.check(&context);
        }
    }
}

/// A copy made of hard links alone, used beside its original: neither sees the other's writes.
#[test]
fn a_copy_of_hard_links_is_a_store_of_its_own() {
    let store = Store::new();
    let copy = files::scratch();
    for path in files::paths(store.dir.path()) {
        let name = path.file_name().expect("a file has a name");
        std::fs::hard_link(&path, copy.path().join(name)).expect("a link can be made");
    }
    store.works(copy.path(), "the copy, written to and compacted");
    let original = options().open(store.dir.path()).expect("the original opens");
    assert!(crate::history::contents(&original) == store.contents, "the original is what it was");
    drop(original);
    store.works(store.dir.path(), "the original, after the copy");
}

#[test]
fn the_directory_of_a_store_may_be_a_link_and_nothing_else() {
    let store = Store::new();
    let place = files::scratch();
    let link = place.path().join("link");
    symlink(store.dir.path(), &link).expect("a link can be made");
    store.works(&link, "a link to a store");

    let outside = Outside::new(b"somebody's");
    let things = [Thing::Link, Thing::LinkToNothing, Thing::LinkToItself, Thing::Pipe];
    for thing in things.into_iter().chain([Thing::Socket, Thing::Zeros]) {
        let path = place.path().join(format!("{thing:?}"));
        if !thing.make(&path, &outside) {
            power::skipped(&format!("{thing:?} as a store"), &power::Refusal::new("mknod"));
            continue;
        }
        for read_only in [false, true] {
            let context = format!("{thing:?} as the store, reading only: {read_only}");
            let at = path.clone();
            let opened = within(&context, move || Options::new().read_only(read_only).open(&at));
            let error = opened.map(drop).expect_err(&context);
            let named = match &error {
                Error::Io { path, .. } | Error::NotADirectory { path } => path,
                Error::NoStore { path } if read_only => path,
                other => panic!("{context}: {other:?}"),
            };
            assert_eq!(*named, path, "{context}");
        }
        outside.check(&format!("{thing:?} as the store"));
    }
    let below = place.path().join("Link/store");
    let error = Options::new().open(&below).map(drop).expect_err("there is a file in the way");
    assert!(matches!(error, Error::NotADirectory { .. }), "{error:?}");
    outside.check("a store below a file");
}

/// A terabyte without a block on the disk, as each kind of file, and sizes that a file of the store
/// could just have.
#[test]
fn enormous_files_are_refused_or_read_no_further_than_they_count() {
    let store = Store::new();
    let (sealed, active) = (store.sealed()[0], store.active());
    let sizes = [1_u64 << 40, 1 << 32, 256 << 20];
    let sealed_name = forge::log_path(Path::new(""), sealed).display().to_string();
    let cases = [
        // Behind its last record a sealed segment does not count.
        (sealed_name, true),
        (format!("{active:010}.log"), false),
        (format!("{sealed:010}.hint"), true),
        ("MANIFEST".to_string(), false),
        ("LOCK".to_string(), true),
        ("MANIFEST.tmp".to_string(), true),
        ("0000000090.log".to_string(), true),
        ("notes".to_string(), true),
    ];
    for len in sizes {
        for (name, harmless) in &cases {
            let copy = store.copy();
            let path = copy.path().join(name);
            let file = File::options().append(true).create(true).open(&path);
            let file = file.expect("the file can be opened");
            if let Err(error) = file.set_len(len) {
                let why = power::Refusal::new(error.to_string());
                power::skipped(&format!("{name} of {len} bytes"), &why);
                continue;
            }
            drop(file);
            let context = format!("{name} of {len} bytes");
            let error = store.use_it(copy.path(), &context);
            // A tail of zeros is what a disk leaves of writes that it never got.
            let is_zero_tail = name.starts_with(&format!("{active:010}")) && len < 1 << 32;
            if *harmless || is_zero_tail {
                assert!(error.is_none(), "{context}: {error:?}");
            } else {
                assert!(error.is_some(), "{context} was taken");
            }
        }
    }
}
