//! What else may lie in a store's directory, and what the directory may be called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use pakv_testkit::files;

use super::{Store, options};

fn strange_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        &b"a\nb"[..],
        b"\xff\xfe",
        b"0000000001.log\n",
        b"\n0000000001.log",
        b"0000000001.log\xff",
        b"..0000000001.log",
        b"...",
        b" ",
        b"MANIFEST ",
        b"MANIFEST.tmp.tmp2",
        b"LOCK.tmp",
        b"-rf",
        b"\x1b[2J",
        "０００００００００１.log".as_bytes(),
        "٠٠٠٠٠٠٠٠٠١.log".as_bytes(),
    ]
    .map(<[u8]>::to_vec)
    .into();
    names.push(vec![b'x'; 255]);
    names.push([&b"0000000001.log"[..], &[b'.'; 241]].concat());
    names.push([&[b'9'; 251][..], b".log"].concat());
    names
}

#[test]
fn files_of_strange_names_are_left_alone() {
    let store = Store::new();
    let copy = store.copy();
    for name in strange_names() {
        files::write(&copy.path().join(OsStr::from_bytes(&name)), "somebody's");
    }
    store.works(copy.path(), "beside strange names");
    for name in strange_names() {
        let path = copy.path().join(OsStr::from_bytes(&name));
        assert_eq!(files::read(&path), b"somebody's", "{}", name.escape_ascii());
    }
}

#[test]
fn a_store_may_have_any_name() {
    let store = Store::new();
    let place = files::scratch();
    for name in strange_names() {
        let dir = place.path().join(OsStr::from_bytes(&name));
        std::fs::create_dir(&dir).expect("a directory can be made");
        files::copy_store(store.dir.path(), &dir);
        store.works(&dir, &format!("in {}", name.escape_ascii()));
        std::fs::remove_dir_all(&dir).expect("it can be removed");
    }
}

/// More files than anybody looks through: those of other names are passed over, those that look
/// like the store's own are orphans and go.
#[test]
fn many_files_beside_the_stores_own() {
    let store = Store::new();
    let copy = store.copy();
    for index in 0..20_000 {
        let path = copy.path().join(format!("{index} is somebody's"));
        std::fs::File::create(path).expect("a file can be made");
    }
    for index in 0..2_000 {
        let path = copy.path().join(format!("{:010}.log", 1_000 + index));
        std::fs::File::create(path).expect("a file can be made");
    }
    store.works(copy.path(), "beside many files");
    let left = std::fs::read_dir(copy.path()).expect("it can be listed");
    let foreign = left
        .filter(|entry| {
            let name = entry.as_ref().expect("an entry can be read").file_name();
            name.to_string_lossy().ends_with("somebody's")
        })
        .count();
    assert_eq!(foreign, 20_000, "nobody's files are touched");
}

/// A directory that is called like a segment is left alone, and the numbers of new segments pass
/// it by. One with the highest number of all made the store count on from there: the next manifest
/// claimed numbers beyond what any store has, and no open took it any more. Everything was lost to
/// a `mkdir`.
#[test]
fn a_directory_with_the_highest_number_does_not_use_up_the_numbers() {
    let store = Store::new();
    for number in [u32::MAX, u32::MAX - 1, u32::MAX - (1 << 20), u32::MAX - (1 << 20) - 1, 1 << 31]
    {
        for suffix in ["log", "hint"] {
            let copy = store.copy();
            let path = copy.path().join(format!("{number:010}.{suffix}"));
            std::fs::create_dir(&path).expect("a directory can be made");
            let context = format!("a directory {number}.{suffix}");
            store.works(copy.path(), &context);
            assert!(path.is_dir(), "{context} stays");
        }
    }
    // And those that come next are passed by one after the other.
    let copy = store.copy();
    let next = super::Manifest::of(copy.path()).next_segment;
    for number in next..next + 40 {
        let suffix = if number.is_multiple_of(2) { "log" } else { "hint" };
        let path = copy.path().join(format!("{number:010}.{suffix}"));
        std::fs::create_dir(path).expect("a directory can be made");
    }
    store.works(copy.path(), "directories where the next segments would be");
    let db = options().open(copy.path()).expect("it opens");
    assert!(db.stats().expect("figures").segments.len() > 1);
}
