//! A file that has no name any more, read through its mapping.

use std::io;

use crate::storage::{Mapping, StorageFile};

#[derive(Debug)]
pub(super) struct Removed(pub(super) Mapping);

impl Removed {
    fn refuse<T>() -> io::Result<T> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "it can only be read"))
    }
}

impl StorageFile for Removed {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.reach())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let left = self.0.reach().saturating_sub(offset);
        let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some(bytes) = self.0.bytes(offset, wanted) else { return Ok(0) };
        for (to, from) in buffer.iter_mut().zip(bytes.iter()) {
            *to = *from;
        }
        Ok(wanted)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
        Self::refuse()
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Self::refuse()
    }

    fn sync(&self) -> io::Result<()> {
        Self::refuse()
    }

    fn map(&self, _: u64) -> io::Result<Mapping> {
        Ok(self.0.clone())
    }
}
