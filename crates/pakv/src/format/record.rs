//! The record: the framed bytes of one operation. A get reads one; a batch is several in a row.

use serde::{Deserialize, Serialize};

use super::frame::{self, FRAME_HEADER_BYTES};
use super::{FileKind, SegmentId, SeqNo, StoreId, as_bytes, check_key, decode_exact, encode_into};

/// The first frame of a segment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SegmentHeader {
    pub(crate) store: StoreId,
    pub(crate) segment: SegmentId,
}

/// One operation on one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record<'a> {
    /// How many bytes before this frame were not known to be durable when it was written: the frame
    /// vouches for all that lies further back. Recovery tells a torn tail from damage by it.
    pub(crate) unsynced: u32,
    pub(crate) seqno: SeqNo,
    /// How many records of the same batch follow; a batch counts from its 0 on.
    pub(crate) batch_rest: u32,
    #[serde(borrow)]
    pub(crate) op: Op<'a>,
}

/// What a record does to its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Op<'a> {
    Set {
        /// Milliseconds since the epoch.
        expires_at_ms: Option<u64>,
        #[serde(borrow, serialize_with = "as_bytes")]
        key: &'a [u8],
        #[serde(borrow, serialize_with = "as_bytes")]
        value: &'a [u8],
    },
    Tombstone {
        #[serde(borrow, serialize_with = "as_bytes")]
        key: &'a [u8],
    },
}

impl<'a> Op<'a> {
    pub(crate) fn key(&self) -> &'a [u8] {
        match self {
            Op::Set { key, .. } | Op::Tombstone { key } => key,
        }
    }

    /// An upper bound of what a record of this operation takes on disk: every number at its
    /// longest.
    pub(crate) fn bytes_max(&self) -> u64 {
        let user_bytes = match self {
            Op::Set { key, value, .. } => key.len() + value.len(),
            Op::Tombstone { key } => key.len(),
        };
        user_bytes as u64 + RECORD_OVERHEAD_MAX
    }
}

/// Frame header, unsynced, seqno, batch_rest, kind, expiry (tag and number), two lengths.
pub(crate) const RECORD_OVERHEAD_MAX: u64 = FRAME_HEADER_BYTES as u64 + 5 + 10 + 5 + 1 + 11 + 5 + 5;

impl<'a> Record<'a> {
    /// Appends the record to `buffer` as a frame whose checksum is still to be sealed; returns its
    /// length.
    pub(crate) fn append_unsealed(&self, buffer: &mut Vec<u8>) -> postcard::Result<u32> {
        // Room for all of it at once: postcard appends byte by byte.
        buffer.reserve(usize::try_from(self.op.bytes_max()).unwrap_or(0));
        frame::append_unsealed(buffer, |buffer| encode_into(self, buffer))
    }

    /// Appends the record to `buffer` as a finished frame that will stand at `offset`, but for its
    /// value, which is to follow; returns the frame's length and the value.
    pub(crate) fn append_without_value(
        &self,
        buffer: &mut Vec<u8>,
        salt: u32,
        offset: u32,
    ) -> postcard::Result<(u32, &'a [u8])> {
        let (op, value) = match self.op {
            Op::Set { expires_at_ms, key, value } => {
                (Op::Set { expires_at_ms, key, value: &[] }, value)
            }
            Op::Tombstone { .. } => (self.op, &[][..]),
        };
        let head = |buffer: &mut Vec<u8>| {
            encode_into(&Self { op, ..*self }, buffer)?;
            if !value.is_empty() {
                // The value comes last: a length of none, in one byte, and nothing.
                buffer.pop();
                encode_into(&(value.len() as u64), buffer)?;
            }
            Ok(())
        };
        Ok((frame::append_head(buffer, salt, offset, head, value)?, value))
    }

    /// Whether a body can be decoded: for bodies by the million, most of which cannot.
    pub(crate) fn is_record(body: &[u8]) -> bool {
        postcard::take_from_bytes::<Record<'_>>(body)
            .is_ok_and(|(record, rest)| rest.is_empty() && check_key(record.op.key()).is_ok())
    }

    /// Decodes the body of a frame whose checksum was right.
    pub(crate) fn decode(body: &'a [u8]) -> Result<Self, String> {
        let record: Self = decode_exact(body)
            .map_err(|reason| format!("the record cannot be decoded: {reason}"))?;
        check_key(record.op.key())?;
        Ok(record)
    }
}

/// Everything in front of a segment's first record.
pub(crate) fn encode_segment_start(
    store: StoreId,
    segment: SegmentId,
    salt: u32,
) -> postcard::Result<Vec<u8>> {
    super::encode_file_start(FileKind::Log, salt, &SegmentHeader { store, segment })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_went_and_keeps_its_bound() {
        let key = vec![b'k'; 300];
        let value = vec![b'v'; 70_000];
        let ops = [
            Op::Set { expires_at_ms: None, key: b"k", value: b"" },
            Op::Set { expires_at_ms: Some(u64::MAX), key: &key, value: &value },
            Op::Tombstone { key: &key },
        ];
        for op in ops {
            for (unsynced, seqno, batch_rest) in [(0, 1, 0), (u32::MAX, u64::MAX, u32::MAX)] {
                let record = Record { unsynced, seqno, batch_rest, op };
                let mut buffer = Vec::new();
                let length = record.append_unsealed(&mut buffer).expect("it encodes");
                assert_eq!(length as usize, buffer.len());
                assert!(u64::from(length) <= op.bytes_max(), "{length} for {op:?}");
                frame::seal(&mut buffer, 1, 2);
                let mut parts = Vec::new();
                let (of_parts, rest) =
                    record.append_without_value(&mut parts, 1, 2).expect("it encodes");
                parts.extend_from_slice(rest);
                assert_eq!((of_parts, &parts), (length, &buffer), "in two parts it is the same");
                let body = frame::body(&buffer, 1, 2).expect("its checksum is right");
                assert_eq!(Record::decode(body), Ok(record));
            }
        }
    }

    #[test]
    fn a_body_with_bytes_too_many_is_refused() {
        let record =
            Record { unsynced: 0, seqno: 1, batch_rest: 0, op: Op::Tombstone { key: b"k" } };
        let mut body = Vec::new();
        encode_into(&record, &mut body).expect("it encodes");
        body.push(0);
        assert!(Record::decode(&body).is_err());
    }
}
