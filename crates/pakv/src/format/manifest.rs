//! The manifest: the list of live segments. Its atomic replacement is the only commit point of the
//! set of files; a file that it does not list is an orphan.

use serde::{Deserialize, Serialize};

use super::frame;
use super::{
    FileKind, PREAMBLE_BYTES, SEGMENT_ID_MAX, SEQNO_MAX, SegmentId, SeqNo, StoreId, decode_exact,
    decode_preamble, encode_file_start, salt,
};

/// A manifest lists at most so many sealed segments. The keydir gives each live segment 16 bits, and
/// a reader that moves on has those of two manifests for a moment.
pub(crate) const SEALED_MAX: usize = (1 << 15) - 1;

/// The whole content of the file, in one frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) store: StoreId,
    /// Larger than the number of every segment that is or was live.
    pub(crate) next_segment: SegmentId,
    /// Larger than every sequence number that was given out when this was written, dropped
    /// tombstones' included.
    pub(crate) next_seqno: SeqNo,
    pub(crate) sealed: Vec<SealedSegment>,
    /// `None` in a store whose creation was interrupted, and in a backup.
    pub(crate) active: Option<ActiveSegment>,
}

/// What recovery and compaction must know of a sealed segment even if its hint is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct SealedSegment {
    pub(crate) segment: SegmentId,
    /// Its length; every byte was durable before the manifest that says so.
    pub(crate) bytes: u32,
    pub(crate) records: u32,
    /// The smallest and largest sequence number in it. A tombstone may be dropped only where no
    /// other segment begins before it.
    pub(crate) min_seqno: SeqNo,
    pub(crate) max_seqno: SeqNo,
}

/// The segment that writes are appended to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ActiveSegment {
    pub(crate) segment: SegmentId,
    /// How many of its bytes were durable when the manifest was written: all, after a clean close.
    pub(crate) synced_bytes: u32,
}

impl Manifest {
    pub(crate) fn encode(&self) -> postcard::Result<Vec<u8>> {
        let salt = salt(self.store, FileKind::Manifest, SegmentId(0));
        encode_file_start(FileKind::Manifest, salt, self)
    }

    /// Decodes a whole file. Its version has been looked at before: see [`decode_preamble`].
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, (u64, String)> {
        let salt =
            decode_preamble(FileKind::Manifest, bytes).map_err(|bad| (0, bad.to_string()))?;
        let at = PREAMBLE_BYTES as u64;
        let framed = bytes.get(PREAMBLE_BYTES..).unwrap_or_default();
        let body = frame::body(framed, salt, PREAMBLE_BYTES as u32)
            .map_err(|bad| (at, bad.to_string()))?;
        if frame::claimed_len(framed) != Some(framed.len() as u64) {
            return Err((at, "bytes follow the end".to_string()));
        }
        let manifest: Manifest = decode_exact(body).map_err(|reason| (at, reason))?;
        manifest.validate().map_err(|reason| (at, reason))?;
        Ok(manifest)
    }

    /// Whether it lists no more segments than a store can have.
    pub(crate) fn check_count(&self) -> Result<(), String> {
        match self.sealed.len() {
            0..=SEALED_MAX => Ok(()),
            len => Err(format!("it lists {len} segments; the limit is {SEALED_MAX}")),
        }
    }

    /// What a right checksum does not prove.
    fn validate(&self) -> Result<(), String> {
        self.check_count()?;
        let mut ids: Vec<SegmentId> = self.sealed.iter().map(|sealed| sealed.segment).collect();
        ids.extend(self.active.map(|active| active.segment));
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err("it lists a segment twice".to_string());
        }
        if self.next_segment > SEGMENT_ID_MAX || self.next_seqno > SEQNO_MAX {
            return Err("its numbers are larger than any store's".to_string());
        }
        if ids.last().is_some_and(|last| *last >= self.next_segment) {
            return Err("it lists a segment that was never given a number".to_string());
        }
        if self.sealed.iter().any(|sealed| sealed.max_seqno >= self.next_seqno) {
            return Err("it lists a sequence number that was never given out".to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEALED: SealedSegment = SealedSegment {
        segment: SegmentId(1),
        bytes: 4096,
        records: 40,
        min_seqno: 1,
        max_seqno: 40,
    };

    fn manifest() -> Manifest {
        Manifest {
            store: StoreId([7; 16]),
            next_segment: SegmentId(4),
            next_seqno: 900,
            sealed: vec![SEALED],
            active: Some(ActiveSegment { segment: SegmentId(3), synced_bytes: 50 }),
        }
    }

    #[test]
    fn it_lists_no_more_segments_than_a_store_may_have() {
        for (count, is_right) in
            [(SEALED_MAX - 1, true), (SEALED_MAX, true), (SEALED_MAX + 1, false)]
        {
            let numbers = 1..=u32::try_from(count).expect("they are few");
            let sealed = |segment| SealedSegment { segment: SegmentId(segment), ..SEALED };
            let sealed: Vec<_> = numbers.map(sealed).collect();
            let next_segment = SegmentId(1 << 16);
            let manifest = Manifest { sealed, next_segment, active: None, ..manifest() };
            let bytes = manifest.encode().expect("it encodes");
            assert_eq!(Manifest::decode(&bytes).is_ok(), is_right, "{count}");
        }
    }

    #[test]
    fn a_manifest_comes_back_as_it_went_and_any_damage_shows() {
        let bytes = manifest().encode().expect("it encodes");
        assert_eq!(Manifest::decode(&bytes), Ok(manifest()));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Manifest::decode(&flipped).is_err(), "bit {bit} flipped unnoticed");
        }
        for len in 0..bytes.len() {
            assert!(Manifest::decode(&bytes[..len]).is_err(), "cut at {len} unnoticed");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(Manifest::decode(&longer).is_err());
    }

    #[test]
    fn a_manifest_that_contradicts_itself_is_refused() {
        let twice = Manifest {
            active: Some(ActiveSegment { segment: SegmentId(1), synced_bytes: 0 }),
            ..manifest()
        };
        let unnumbered = Manifest { next_segment: SegmentId(3), ..manifest() };
        let unordered = Manifest { next_seqno: 40, ..manifest() };
        let endless = Manifest { next_seqno: u64::MAX, ..manifest() };
        let crowded = Manifest { next_segment: SegmentId(u32::MAX), ..manifest() };
        for wrong in [twice, unnumbered, unordered, endless, crowded] {
            let bytes = wrong.encode().expect("it encodes");
            assert!(Manifest::decode(&bytes).is_err(), "{wrong:?} was taken");
        }
    }
}
