//! Space prepared behind the records of the active segment: zeros that were written ahead.
//!
//! A sync of bytes that lie in blocks which the file has had before writes those bytes and nothing
//! else. Where the file grows, the file system writes its books too, which takes half as long
//! again or more.
//!
//! Invariants: only zeros stand behind the last record, and none of it counts: every account is of
//! records. Nothing fails because there is no space to prepare. What is left of it goes when the
//! segment is sealed and when the store is closed; what a killed process leaves, the next open
//! cuts.

use std::io;

use crate::storage::{StorageFile, write_all_at};

/// So many groups are synced, one after the other, before anything is prepared: whoever opens a
/// store to set one key has nothing of it, nor has who syncs now and then.
const GROUPS_BEFORE: u32 = 4;
/// The first piece that is prepared, in bytes. Each next one is as large as all of these
/// groups, up to the maximum: a small store stays small.
const PIECE_BYTES_MIN: u32 = 16 * 1024;
const PIECE_BYTES_MAX: u32 = 1024 * 1024;
/// For groups of more bytes than this the books are not what takes the time.
const GROUP_BYTES_MAX: u32 = 128 * 1024;
/// Pieces end where pages do, so that no page is written in part.
const PAGE_BYTES: u32 = 4096;

static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// How much is prepared in the active segment.
#[derive(Debug, Default)]
pub(crate) struct Prepared {
    /// Where the prepared space ends; at most the end of the records if there is none.
    end: u32,
    /// Groups that were synced each by itself, the last ones in a row, and their bytes.
    groups: u32,
    synced_bytes: u32,
    /// The disk was full.
    refused: bool,
}

impl Prepared {
    /// For the next segment: whoever syncs goes on to do so.
    pub(crate) fn in_next_segment(&self) -> Self {
        Self { end: 0, refused: false, ..*self }
    }

    /// A group of `bytes` has been written, up to `end`, and will be synced now, together with
    /// others if it is not `alone`. Prepares more if there is no room left for the next one: the
    /// same sync will take care of it. `limit` is where the segment will be sealed.
    ///
    /// # Errors
    /// Where the disk failed; a full one is no error.
    pub(crate) fn before_sync(
        &mut self,
        file: &dyn StorageFile,
        (bytes, alone): (u32, bool),
        end: u32,
        limit: u64,
    ) -> io::Result<()> {
        if bytes == 0 || !alone {
            (self.groups, self.synced_bytes) = (0, 0);
            return Ok(());
        }
        self.groups = self.groups.saturating_add(1);
        self.synced_bytes = self.synced_bytes.saturating_add(bytes);
        let has_room = end < self.end;
        if has_room || self.refused || self.groups <= GROUPS_BEFORE || bytes > GROUP_BYTES_MAX {
            return Ok(());
        }
        let piece = self.synced_bytes.clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let up_to = (u64::from(end) + u64::from(piece)).next_multiple_of(u64::from(PAGE_BYTES));
        let Ok(up_to) = u32::try_from(up_to.min(limit)) else { return Ok(()) };
        let mut at = end;
        while at < up_to {
            let zeros = ZEROS.get(..(up_to - at) as usize).unwrap_or(&ZEROS);
            match write_all_at(file, zeros, u64::from(at)) {
                Ok(()) => at += zeros.len() as u32,
                Err(error) if is_full(&error) => {
                    // What is left of it is for records.
                    self.refused = true;
                    return file.set_len(u64::from(end));
                }
                Err(error) => return Err(error),
            }
        }
        self.end = self.end.max(up_to);
        Ok(())
    }

    /// Cuts off what is left behind the records, which end at `bytes`. Says whether there was
    /// anything: the new length is to be synced.
    pub(crate) fn cut(&mut self, file: &dyn StorageFile, bytes: u32) -> io::Result<bool> {
        if self.end <= bytes {
            return Ok(false);
        }
        file.set_len(u64::from(bytes))?;
        self.end = 0;
        Ok(true)
    }
}

/// Whether a write was refused because no space is left, for this user or in this file.
fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
