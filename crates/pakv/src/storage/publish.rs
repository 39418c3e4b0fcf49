//! The one way to put a complete file in place: temporary name, write, sync, rename, sync the
//! directory.

use std::io;

use super::{Storage, write_all_at};
use crate::error::{Error, Result};
use crate::format::TEMPORARY_SUFFIX;
use crate::planted::{Bug, planted};

/// Replaces or creates the file `name` atomically and durably: at every moment, a crash included,
/// it has its old content or all of its new one. Returns the new length.
///
/// `content` is called until it gives nothing more; each piece goes behind the one before.
///
/// # Errors
/// After an error it is not known which of the two contents is durable.
pub(crate) fn replace_file(
    storage: &dyn Storage,
    name: &str,
    content: impl FnMut() -> Result<Option<Vec<u8>>>,
) -> Result<u64> {
    let temporary = format!("{name}{TEMPORARY_SUFFIX}");
    let path = storage.path().join(&temporary);
    remove_if_there(storage, &temporary).map_err(Error::io("remove", path.as_path()))?;
    let len = write(storage, &temporary, content).inspect_err(|_| {
        // A disk that was too full for it is fuller by what there is of it.
        let _ = storage.remove(&temporary);
    })?;
    storage.rename(&temporary, name).map_err(Error::io("rename", path.as_path()))?;
    storage.sync_dir().map_err(Error::io("sync", storage.path()))?;
    Ok(len)
}

/// Writes a new file, synced; returns its length.
fn write(
    storage: &dyn Storage,
    name: &str,
    mut content: impl FnMut() -> Result<Option<Vec<u8>>>,
) -> Result<u64> {
    let path = storage.path().join(name);
    let file = storage.create(name).map_err(Error::io("create", path.as_path()))?;
    let mut len = 0;
    while let Some(piece) = content()? {
        write_all_at(&*file, &piece, len).map_err(Error::io("write to", path.as_path()))?;
        len += piece.len() as u64;
    }
    if !planted(Bug::NoSyncBeforeRename) {
        file.sync().map_err(Error::io("sync", path.as_path()))?;
    }
    Ok(len)
}

/// Removes a file; one that is not there is what was wanted.
pub(crate) fn remove_if_there(storage: &dyn Storage, name: &str) -> io::Result<()> {
    match storage.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
