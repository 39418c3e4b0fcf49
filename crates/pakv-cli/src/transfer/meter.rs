//! Counts the bytes that a reader has taken, and bounds how many it may take for one row: whatever
//! is fed to an import, it does not fill the memory.

use std::cell::Cell;
use std::io::{self, Read};
use std::rc::Rc;

/// A source of bytes under a meter.
pub(super) struct Metered<R> {
    inner: R,
    meter: Meter,
}

/// What has been read, shared between the source and whoever watches it.
#[derive(Debug, Clone)]
pub(crate) struct Meter(Rc<Counts>);

#[derive(Debug)]
struct Counts {
    total: Cell<u64>,
    since_row: Cell<u64>,
    limit: u64,
}

impl<R: Read> Metered<R> {
    /// No row may take more than `limit` bytes, give or take a buffer.
    pub(super) fn new(inner: R, limit: u64) -> Self {
        let counts = Counts { total: Cell::new(0), since_row: Cell::new(0), limit };
        Self { inner, meter: Meter(Rc::new(counts)) }
    }

    pub(super) fn meter(&self) -> Meter {
        self.meter.clone()
    }
}

impl Meter {
    /// Bytes read so far.
    pub(crate) fn total(&self) -> u64 {
        self.0.total.get()
    }

    /// A row has ended; the next may be as long again.
    pub(super) fn row_ended(&self) {
        self.0.since_row.set(0);
    }

    /// Whether reading stopped because the row is longer than any can be.
    pub(super) fn is_over_limit(&self) -> bool {
        self.0.since_row.get() > self.0.limit
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.meter.is_over_limit() {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let count = self.inner.read(buffer)?;
        let bytes = u64::try_from(count).unwrap_or(u64::MAX);
        let counts = &self.meter.0;
        counts.total.set(counts.total.get().saturating_add(bytes));
        counts.since_row.set(counts.since_row.get().saturating_add(bytes));
        Ok(count)
    }
}
