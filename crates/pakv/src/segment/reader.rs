//! Reading a segment from one end to the other, frame by frame, with memory for one buffer (or one
//! record, where that is larger). By positional reads always: a scan through a mapping would fill
//! memory with pages nobody asks for again, and turn a failing disk into a signal.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::Segment;
use crate::error::{Error, Result};
use crate::format::frame::{self, FRAME_HEADER_BYTES};
use crate::storage::{StorageFile, read_up_to};

const BUFFER_BYTES: usize = 256 * 1024;
/// The first piece that is read; each next one is twice as large, up to the buffer. Who follows a
/// writer often finds a record or none, and zeros behind it.
const FIRST_BYTES: usize = 4 * 1024;
const DOUBLINGS: u32 = 6;

pub(crate) struct FrameReader<'a> {
    path: &'a Path,
    salt: u32,
    file: Arc<dyn StorageFile>,
    /// Where reading ends.
    end: u32,
    /// Where `buffer` stands in the file.
    buffer_offset: u32,
    buffer: Vec<u8>,
    /// The next frame in `buffer`.
    at: usize,
    /// How often the file was read.
    reads: u32,
}

/// A frame whose checksum was right.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) offset: u32,
    /// Header included.
    pub(crate) length: u32,
    pub(crate) body: &'a [u8],
}

/// What stands next.
#[derive(Debug)]
pub(crate) enum Next<'a> {
    Frame(Frame<'a>),
    End,
    /// Not a frame, from this offset on.
    Bad {
        offset: u32,
        reason: String,
    },
}

impl<'a> FrameReader<'a> {
    /// Reads the frames from `start` up to `end`.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be opened again.
    pub(crate) fn new(segment: &'a Segment, start: u32, end: u32) -> Result<Self> {
        Ok(Self::over(segment.file()?, &segment.path, segment.salt, start, end))
    }

    /// The same for a file that need not be a segment's, nor a whole one. `path` is for messages.
    pub(crate) fn over(
        file: Arc<dyn StorageFile>,
        path: &'a Path,
        salt: u32,
        start: u32,
        end: u32,
    ) -> Self {
        Self { path, salt, file, end, buffer_offset: start, buffer: Vec::new(), at: 0, reads: 0 }
    }

    /// The next frame.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read; what is wrong with its bytes is [`Next::Bad`].
    pub(crate) fn next(&mut self) -> Result<Next<'_>> {
        let offset = self.offset();
        if offset >= self.end {
            return Ok(Next::End);
        }
        self.fill(FRAME_HEADER_BYTES)?;
        let remaining = u64::from(self.end - offset);
        let length = match frame::claimed_len(self.rest()) {
            Some(length) if length <= remaining => length,
            _ => {
                let reason = frame::BadFrame::CutShort.to_string();
                return Ok(Next::Bad { offset, reason });
            }
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        self.fill(length)?;
        let start = self.at;
        self.at = (start + length).min(self.buffer.len());
        let bytes = self.buffer.get(start..self.at).unwrap_or_default();
        match frame::body(bytes, self.salt, offset) {
            Ok(body) => Ok(Next::Frame(Frame { offset, length: bytes.len() as u32, body })),
            Err(bad) => Ok(Next::Bad { offset, reason: bad.to_string() }),
        }
    }

    /// Tells what was read in one piece from what was read at different times.
    pub(crate) fn reads(&self) -> u32 {
        self.reads
    }

    /// Where the next frame begins.
    pub(crate) fn offset(&self) -> u32 {
        self.buffer_offset + self.at as u32
    }

    fn rest(&self) -> &[u8] {
        self.buffer.get(self.at..).unwrap_or_default()
    }

    /// Has at least `needed` bytes ready, or all that the file has up to the end.
    fn fill(&mut self, needed: usize) -> Result<()> {
        if self.rest().len() >= needed {
            return Ok(());
        }
        let piece = (FIRST_BYTES << self.reads.min(DOUBLINGS)).min(BUFFER_BYTES);
        self.reads += 1;
        self.buffer_offset = self.offset();
        self.buffer.drain(..self.at);
        self.at = 0;
        let left = (self.end - self.buffer_offset) as usize;
        let old_len = self.buffer.len();
        let wanted = needed.max(piece).min(left);
        self.buffer.resize(wanted.max(old_len), 0);
        let read = read_up_to(
            &*self.file,
            self.buffer.get_mut(old_len..).unwrap_or_default(),
            u64::from(self.buffer_offset) + old_len as u64,
        )
        .map_err(Error::io("read", self.path))?;
        self.buffer.truncate(old_len + read);
        // A giant record's memory is not kept for the small ones after it.
        if self.buffer.capacity() > 4 * BUFFER_BYTES && wanted <= BUFFER_BYTES {
            self.buffer.shrink_to(BUFFER_BYTES);
        }
        Ok(())
    }
}

impl Segment {
    /// Whether all bytes from `from` up to `end`, or to the end of the file, are zero: space that
    /// was prepared for records to come.
    ///
    /// # Errors
    /// [`Error::Io`] where the file cannot be read.
    pub(crate) fn is_zero(&self, from: u32, end: u32) -> Result<bool> {
        is_zero(&*self.file()?, from, end).map_err(Error::io("read", self.path.as_path()))
    }
}

/// Whether all bytes of a file from `from` up to `end`, or to its end, are zero.
pub(crate) fn is_zero(file: &dyn StorageFile, from: u32, end: u32) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_BYTES.min(end.saturating_sub(from) as usize)];
    let mut offset = u64::from(from);
    while offset < u64::from(end) {
        let wanted = usize::try_from(u64::from(end) - offset).unwrap_or(BUFFER_BYTES);
        let piece = buffer.len().min(wanted);
        let piece = buffer.get_mut(..piece).unwrap_or_default();
        let read = read_up_to(file, piece, offset)?;
        let piece = piece.get(..read).unwrap_or_default();
        if piece.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        if piece.is_empty() {
            break;
        }
        offset += read as u64;
    }
    Ok(true)
}
