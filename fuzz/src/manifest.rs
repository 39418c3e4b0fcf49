//! The manifest: nothing makes its decoder panic or take much more memory than the file; what was
//! decoded is sound; what was encoded comes back; a flipped bit is noticed.
//!
//! The first byte chooses: a file as it is, a file whose checksum is made right, or a manifest made
//! of the bytes.

use arbitrary::{Arbitrary, Unstructured};

use crate::bytes::{each_flip, reseal};
use crate::format::manifest::{ActiveSegment, Manifest, SealedSegment};
use crate::format::{SegmentId, StoreId};
use crate::memory::peak;

/// A list is reserved for the segments that it claims, though never for more than bytes follow, and
/// a segment takes 32 bytes in memory. And there is the text of an error.
const MEMORY_FACTOR: usize = 32;
const ERROR_BYTES_MAX: usize = 1024;

/// A manifest as a fuzzer makes one.
#[derive(Debug, Arbitrary)]
struct Spec {
    store: [u8; 16],
    next_segment: u32,
    next_seqno: u64,
    sealed: Vec<(u32, u32, u32, u64, u64)>,
    active: Option<(u32, u32)>,
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 3 {
        0 => check_file(rest),
        1 => {
            let mut file = rest.to_vec();
            reseal(&mut file);
            check_file(&file);
        }
        _ => {
            if let Ok(spec) = Spec::arbitrary(&mut Unstructured::new(rest)) {
                check_spec(&spec);
            }
        }
    }
}

fn check_file(file: &[u8]) {
    let (decoded, allocated) = peak(|| Manifest::decode(file));
    let limit = MEMORY_FACTOR * file.len() + ERROR_BYTES_MAX;
    assert!(allocated <= limit, "{allocated} bytes for a file of {}", file.len());
    let Ok(manifest) = decoded else { return };
    check_sound(&manifest);
    let again = manifest.encode().expect("it encodes");
    assert!(again.len() <= file.len(), "the encoder writes the shortest form");
    check_valid(&again, &manifest);
}

/// What everything that comes after relies on.
fn check_sound(manifest: &Manifest) {
    let Manifest { next_segment, next_seqno, sealed, active, .. } = manifest;
    let ids = || sealed.iter().map(|one| one.segment).chain(active.map(|one| one.segment));
    assert!(ids().all(|id| id < *next_segment), "a number is free");
    assert!(next_segment.0.checked_add(1 << 20).is_some(), "many are");
    assert!(next_seqno.checked_mul(2).is_some(), "and sequence numbers");
    assert!(sealed.iter().all(|one| one.max_seqno < *next_seqno));
    let different: std::collections::BTreeSet<_> = ids().collect();
    assert_eq!(different.len(), ids().count(), "no segment is listed twice");
}

fn check_valid(file: &[u8], manifest: &Manifest) {
    assert_eq!(Manifest::decode(file).as_ref(), Ok(manifest));
    assert_eq!(manifest.encode().as_deref(), Ok(file));
    assert!(Manifest::decode(&[file, &[0]].concat()).is_err(), "a byte too many");
    for len in 0..file.len().min(64) {
        assert!(Manifest::decode(&file[..len]).is_err(), "cut at {len}");
    }
    each_flip(file, |bit, flipped| {
        assert!(Manifest::decode(flipped).is_err(), "bit {bit} flipped unnoticed");
    });
}

fn check_spec(spec: &Spec) {
    let sealed = |(segment, bytes, records, min_seqno, max_seqno): &(u32, u32, u32, u64, u64)| {
        SealedSegment {
            segment: SegmentId(*segment),
            bytes: *bytes,
            records: *records,
            min_seqno: *min_seqno,
            max_seqno: *max_seqno,
        }
    };
    let active =
        |(segment, synced_bytes)| ActiveSegment { segment: SegmentId(segment), synced_bytes };
    let manifest = Manifest {
        store: StoreId(spec.store),
        next_segment: SegmentId(spec.next_segment),
        next_seqno: spec.next_seqno,
        sealed: spec.sealed.iter().map(sealed).collect(),
        active: spec.active.map(active),
    };
    let file = manifest.encode().expect("it encodes");
    match Manifest::decode(&file) {
        Ok(decoded) => {
            assert_eq!(decoded, manifest);
            check_sound(&manifest);
            check_valid(&file, &manifest);
        }
        Err((_, reason)) => assert!(reason.starts_with("it"), "refused as unsound: {reason}"),
    }
}
