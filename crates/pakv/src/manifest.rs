//! Loading the manifest, and replacing it: the one commit point of the set of files.

use std::io;
use std::path::PathBuf;

use crate::error::{Error, Result};
use crate::format::manifest::Manifest;
use crate::format::{BadPreamble, FORMAT_VERSION, FileKind, MANIFEST_NAME, decode_preamble};
use crate::segment::encode_error;
use crate::storage::{Storage, StorageFile, read_all, replace_file};

/// A manifest of as many segments as there can be is a tenth of this.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Reads the manifest; `None` where there is no such file.
///
/// # Errors
/// [`Error::UnknownFormat`], [`Error::Corrupt`], [`Error::Io`].
pub(crate) fn load(storage: &dyn Storage) -> Result<Option<Manifest>> {
    let path: PathBuf = storage.path().join(MANIFEST_NAME);
    let file = match storage.open(MANIFEST_NAME, false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("open", path.as_path())(error)),
    };
    let bytes = read(&*file).map_err(Error::io("read", path.as_path()))?;
    if let Err(BadPreamble::UnknownVersion(found)) = decode_preamble(FileKind::Manifest, &bytes) {
        return Err(Error::UnknownFormat { path, found, supported: FORMAT_VERSION });
    }
    let manifest = Manifest::decode(&bytes)
        .map_err(|(offset, reason)| Error::corrupt(&path, offset, reason))?;
    Ok(Some(manifest))
}

/// The bytes of a manifest's file.
pub(crate) fn read(file: &dyn StorageFile) -> io::Result<Vec<u8>> {
    read_all(file, MANIFEST_BYTES_MAX)
}

/// Replaces the manifest atomically and durably.
///
/// # Errors
/// After an error it is not known which of the two is in force: the store must be poisoned.
pub(crate) fn replace(storage: &dyn Storage, manifest: &Manifest) -> Result<()> {
    // No open would take it. `limits::may_seal` sees to it that nobody comes this far.
    manifest.check_count().map_err(|reason| {
        let path = storage.path().join(MANIFEST_NAME);
        Error::Io { action: "replace", path, source: io::Error::other(reason) }
    })?;
    let mut bytes = Some(manifest.encode().map_err(encode_error)?);
    replace_file(storage, MANIFEST_NAME, || Ok(bytes.take()))?;
    Ok(())
}
