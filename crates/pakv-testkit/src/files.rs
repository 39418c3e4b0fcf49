//! What tests do to the files of a store behind its back. Everything here works on a directory,
//! none of it through the engine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

/// A fresh directory that goes when the value is dropped.
///
/// It is in memory where the machine offers that (`/dev/shm`), since these tests are about what is
/// written and not about the disk, and a sync costs nothing there. `PAKV_TEST_DIR` names another
/// place.
pub fn scratch() -> TempDir {
    let shared_memory = Path::new("/dev/shm");
    let parent = std::env::var_os("PAKV_TEST_DIR").map_or_else(
        || if shared_memory.is_dir() { shared_memory.to_path_buf() } else { std::env::temp_dir() },
        PathBuf::from,
    );
    tempfile::Builder::new().prefix("pakv-test-").tempdir_in(&parent).unwrap_or_else(|error| {
        panic!("cannot create a directory in {}: {error}", parent.display())
    })
}

/// Copies the files of a store, open or not, into the empty directory `to`: what a process that is
/// killed at this moment leaves behind. Only right while nothing writes to the store.
pub fn copy_store(from: &Path, to: &Path) {
    for path in paths(from) {
        let name = path.file_name().expect("a directory entry has a name");
        fs::copy(&path, to.join(name))
            .unwrap_or_else(|error| panic!("cannot copy {}: {error}", path.display()));
    }
}

/// A copy of the files of a store in a directory of its own.
pub fn copied(from: &Path) -> TempDir {
    let dir = scratch();
    copy_store(from, dir.path());
    dir
}

/// The regular files of a directory, by name.
pub fn paths(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(dir)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", dir.display()))
        .map(|entry| entry.expect("a directory entry can be read").path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
}

/// The names of the regular files of a directory that end with `suffix`, sorted.
pub fn names(dir: &Path, suffix: &str) -> Vec<String> {
    paths(dir)
        .iter()
        .filter_map(|path| path.file_name()?.to_str().map(str::to_owned))
        .filter(|name| name.ends_with(suffix))
        .collect()
}

/// Everything that can be told about the files of a directory: names, bytes and times of change.
/// Two that are equal mean that nobody wrote in between.
pub fn state(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, SystemTime)> {
    paths(dir)
        .into_iter()
        .map(|path| {
            let bytes = read(&path);
            let modified = fs::metadata(&path)
                .and_then(|meta| meta.modified())
                .expect("a file has a time of change");
            (path, (bytes, modified))
        })
        .collect()
}

/// The bytes of a file.
pub fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Replaces the bytes of a file, or creates it.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) {
    fs::write(path, bytes)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Where `bytes` first occur in a file.
pub fn position(path: &Path, bytes: &[u8]) -> Option<usize> {
    read(path).windows(bytes.len()).position(|window| window == bytes)
}

/// Inverts the bits of `mask` in the byte at `offset`.
pub fn flip(path: &Path, offset: usize, mask: u8) {
    let mut bytes = read(path);
    bytes[offset] ^= mask;
    write(path, bytes);
}

/// Cuts a file to its first `len` bytes.
pub fn cut(path: &Path, len: usize) {
    let bytes = read(path);
    assert!(len <= bytes.len(), "{} has only {} bytes", path.display(), bytes.len());
    write(path, &bytes[..len]);
}

/// Removes a file that must be there.
pub fn remove(path: &Path) {
    fs::remove_file(path)
        .unwrap_or_else(|error| panic!("cannot remove {}: {error}", path.display()));
}

/// Removes every hint of a store.
pub fn remove_hints(dir: &Path) {
    for name in names(dir, ".hint") {
        remove(&dir.join(name));
    }
}
