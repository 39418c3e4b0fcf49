//! The plain verbs, any bytes as key and value, and typed values.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use pakv::{Db, Error, Options};
use pakv_testkit::files;
use serde::{Deserialize, Serialize};

#[test]
fn what_was_set_is_there_after_an_open_and_what_was_deleted_is_not() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    assert_eq!(db.path(), dir.path());
    assert!(db.is_empty().expect("is_empty succeeds"), "a new store has no keys");
    db.set("kept", "1").expect("set succeeds");
    db.set("kept", "2").expect("set succeeds");
    db.set("deleted", "3").expect("set succeeds");
    assert!(db.delete("deleted").expect("delete succeeds"), "the key was there");
    assert!(!db.delete("deleted").expect("delete succeeds"), "the key was not there any more");
    db.close().expect("close succeeds");

    let db = Db::open(dir.path()).expect("the store opens again");
    assert_eq!(db.get("kept").expect("get succeeds"), Some(b"2".to_vec()));
    assert_eq!(db.get("deleted").expect("get succeeds"), None);
    assert_eq!(db.len().expect("len succeeds"), 1);
    assert!(!db.is_empty().expect("is_empty succeeds"), "one key is there");
    assert!(!db.recovery().created, "the store was there before");
}

#[test]
fn a_missing_directory_is_created_with_its_parents() {
    let dir = files::scratch();
    let path = dir.path().join("not/there/yet");
    Db::open(&path).and_then(|db| db.set("key", "value")).expect("parents are created");
    assert_eq!(
        Db::open(&path).and_then(|db| db.get("key")).expect("it opens"),
        Some(b"value".to_vec())
    );
}

#[test]
fn a_directory_may_have_any_name_and_be_a_link() {
    let dir = files::scratch();
    let odd = dir.path().join(OsStr::from_bytes(b"not \xff UTF-8\n"));
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&odd, &link).expect("a link can be made");
    Db::open(&odd).and_then(|db| db.set("key", "value")).expect("any name will do");
    let db = Db::open(&link).expect("a link to a store is followed");
    assert_eq!(db.get("key").expect("get succeeds"), Some(b"value".to_vec()));
    let error = Options::new().open(&odd).expect_err("the store is in use by either name");
    assert!(error.to_string().contains("in use"), "the name does not hinder the message: {error}");
}

#[test]
fn a_place_where_no_store_can_be_is_an_error() {
    let dir = files::scratch();
    let dangling = dir.path().join("dangling");
    std::os::unix::fs::symlink(dir.path().join("nowhere"), &dangling).expect("a link can be made");
    let places = [Path::new(""), Path::new("a\0b"), &dir.path().join("x".repeat(5_000)), &dangling];
    for place in places {
        let error = Db::open(place).map(drop).expect_err("nothing can be created there");
        assert!(matches!(error, Error::Io { .. }), "{place:?}: {error:?}");
    }
    assert_eq!(files::names(dir.path(), ""), [""; 0], "nothing was created");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let dir = files::scratch();
    let every_byte: Vec<u8> = (0..=255).collect();
    let mut pairs: Vec<(Vec<u8>, Vec<u8>)> =
        (0..=255).map(|byte| (vec![byte], vec![byte; 3])).collect();
    pairs.push((every_byte.clone(), every_byte));
    pairs.push((b"line\nand\0nul".to_vec(), Vec::new()));
    // Bytes that look like the store's own must not be taken for them.
    pairs.push((b"pakv-log".to_vec(), b"pakv-log\x01\0\0\0".repeat(20)));
    pairs.push((b"bitcask_tombstone".to_vec(), b"bitcask_tombstone".to_vec()));
    pairs.sort();
    let options = Options::new().segment_bytes(512);
    let db = options.clone().open(dir.path()).expect("an empty directory becomes a store");
    for (key, value) in &pairs {
        db.set(key, value).expect("set succeeds");
    }
    for opened_again in [false, true] {
        let db = match opened_again {
            false => db.clone(),
            true => {
                db.clone().close().expect("close succeeds");
                options.clone().open(dir.path()).expect("the store opens again")
            }
        };
        for (key, value) in &pairs {
            assert_eq!(
                db.get(key).expect("get succeeds").as_ref(),
                Some(value),
                "the value of {key:?}"
            );
        }
        let scanned: Vec<_> = db
            .scan()
            .expect("scan succeeds")
            .map(|entry| entry.into_pair().expect("a value can be read"))
            .collect();
        assert_eq!(scanned, pairs, "a scan gives the keys in the order of their bytes");
    }
}

/// A value that a segment of the store's own would look like: the whole file of one segment, stored
/// as a value and then torn, must not be replayed as records.
#[test]
fn a_segment_stored_as_a_value_is_only_a_value() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("key", "value").expect("set succeeds");
    let segment = files::read(&dir.path().join("0000000001.log"));
    db.set("segment", &segment).expect("set succeeds");
    db.set("key", "newer").expect("set succeeds");
    let copy = files::copied(dir.path());
    let db = Db::open(copy.path()).expect("the copy opens");
    assert_eq!(db.get("key").expect("get succeeds"), Some(b"newer".to_vec()));
    assert_eq!(db.get("segment").expect("get succeeds"), Some(segment));
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Account {
    owner: String,
    cents: i64,
    tags: Vec<String>,
}

#[test]
fn any_serde_type_goes_in_and_comes_out() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    let account = Account { owner: "ann".into(), cents: -5, tags: vec!["a".into(), "b".into()] };
    db.set_as("account", &account).expect("set_as succeeds");
    db.set_as("name", "ann").expect("set_as takes what is not Sized");
    assert_eq!(db.get_as::<Account>("account").expect("get_as succeeds"), Some(account));
    assert_eq!(db.get_as::<String>("name").expect("get_as succeeds"), Some("ann".to_string()));
    assert_eq!(
        db.get_as::<Account>("missing").expect("get_as succeeds"),
        None,
        "absence is no error"
    );
}

#[test]
fn a_value_of_another_type_is_an_error_and_not_an_absence() {
    let dir = files::scratch();
    let db = Db::open(dir.path()).expect("an empty directory becomes a store");
    db.set("text", "no account").expect("set succeeds");
    let error = db.get_as::<Account>("text").expect_err("text is no account");
    assert!(
        matches!(error, Error::Decode { .. }),
        "the error says that decoding failed: {error:?}"
    );
    assert!(!error.is_corruption(), "the bytes on disk are right: {error:?}");
}
