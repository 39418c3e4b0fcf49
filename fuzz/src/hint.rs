//! The hint: nothing makes its decoder panic or allocate; an entry that it gives lies inside its
//! segment; what was encoded comes back; a flipped bit is noticed. And a store whose hint is
//! replaced answers as it does without that hint.
//!
//! The first byte chooses: a file as it is, a file whose checksums are made right, entries made of
//! the bytes, or the hint of a store.

use std::sync::OnceLock;

use arbitrary::{Arbitrary, Unstructured};
use pakv::FileAccess;

use crate::bytes::{each_flip, reseal};
use crate::forge::{Expires, Files, Forged, Plan, RecordPlan, STORE, open_in_all_ways};
use crate::format::SegmentId;
use crate::format::hint::{HintEncoder, HintEntry, HintKind, decode_hint};
use crate::memory::peak;

/// The text of an error is all that the decoder may allocate.
const ERROR_BYTES_MAX: usize = 1024;
const SEGMENT: SegmentId = SegmentId(1);

/// An entry that owns its key.
#[derive(Debug, Clone, PartialEq, Eq, Arbitrary)]
struct Entry {
    offset: u32,
    length: u32,
    seqno: u64,
    kind: Kind,
    key: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
enum Kind {
    Set,
    SetExpiring(u64),
    Tombstone,
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let segment_bytes = segment_bytes();
    match mode % 5 {
        0 => check_file(rest, segment_bytes),
        1 => check_file(&resealed(rest), segment_bytes),
        2 => {
            if let Ok((bytes, entries)) =
                <(u32, Vec<Entry>)>::arbitrary(&mut Unstructured::new(rest))
            {
                check_entries(&entries, bytes);
            }
        }
        3 => check_in_store(rest),
        _ => check_in_store(&resealed(rest)),
    }
}

fn resealed(bytes: &[u8]) -> Vec<u8> {
    let mut file = bytes.to_vec();
    reseal(&mut file);
    file
}

fn check_file(file: &[u8], segment_bytes: u32) {
    let mut count = 0;
    let (decoded, allocated) = peak(|| {
        decode_hint(file, STORE, SEGMENT, segment_bytes, |entry| {
            count += 1;
            let end = u64::from(entry.offset) + u64::from(entry.length);
            assert!(end <= u64::from(segment_bytes), "{entry:?} leads out of its segment");
        })
    });
    assert!(allocated <= ERROR_BYTES_MAX, "{allocated} bytes for a file of {}", file.len());
    if let Ok(records) = decoded {
        assert_eq!(records, count);
        check_entries(&entries(file, segment_bytes), segment_bytes);
    }
}

fn entries(file: &[u8], segment_bytes: u32) -> Vec<Entry> {
    let mut entries = Vec::new();
    let decoded = decode_hint(file, STORE, SEGMENT, segment_bytes, |entry| {
        let kind = match entry.kind {
            HintKind::Set => Kind::Set,
            HintKind::SetExpiring { at_ms } => Kind::SetExpiring(at_ms),
            HintKind::Tombstone => Kind::Tombstone,
        };
        let HintEntry { offset, length, seqno, .. } = *entry;
        entries.push(Entry { offset, length, seqno, kind, key: entry.key.to_vec() });
    });
    assert_eq!(decoded, Ok(entries.len() as u32));
    entries
}

/// Entries are encoded and come back, if they lie inside the segment and have a key.
fn check_entries(list: &[Entry], segment_bytes: u32) {
    let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
    let mut file = Vec::new();
    for Entry { offset, length, seqno, kind, key } in list {
        let kind = match kind {
            Kind::Set => HintKind::Set,
            Kind::SetExpiring(at_ms) => HintKind::SetExpiring { at_ms: *at_ms },
            Kind::Tombstone => HintKind::Tombstone,
        };
        let entry = HintEntry { offset: *offset, length: *length, seqno: *seqno, kind, key };
        encoder.push(&entry).expect("it encodes");
        let (at, piece) = encoder.take();
        assert_eq!(at, file.len() as u64);
        file.extend(piece);
    }
    encoder.finish(segment_bytes).expect("it encodes");
    file.extend(encoder.take().1);
    let is_sound = |entry: &Entry| {
        let end = entry.offset.checked_add(entry.length);
        end.is_some_and(|end| end <= segment_bytes) && !entry.key.is_empty()
    };
    if !list.iter().all(is_sound) {
        assert!(decode_hint(&file, STORE, SEGMENT, segment_bytes, |_| ()).is_err());
        return;
    }
    assert_eq!(entries(&file, segment_bytes), list);
    let refused = |file: &[u8]| decode_hint(file, STORE, SEGMENT, segment_bytes, |_| ()).is_err();
    for len in 0..file.len().min(64) {
        assert!(refused(&file[..len]), "cut at {len}");
    }
    assert!(refused(&[&file[..], &[0]].concat()), "a byte too many");
    each_flip(&file, |bit, flipped| assert!(refused(flipped), "bit {bit} flipped unnoticed"));
}

/// The store whose hint is replaced: keys that are overwritten, deleted and expired in it, before it
/// and after it.
fn store() -> &'static Forged {
    static STORE: OnceLock<Forged> = OnceLock::new();
    STORE.get_or_init(|| {
        let record =
            |key, value, expires| RecordPlan { key, value, expires, batched: false, synced: true };
        let plan = Plan {
            sealed: vec![
                vec![
                    record(0, Some(3), Expires::Never),
                    record(1, Some(40), Expires::Never),
                    record(2, Some(3), Expires::Past),
                    record(3, Some(0), Expires::Future),
                    record(4, None, Expires::Never),
                    record(0, Some(5), Expires::Never),
                    record(5, Some(9), Expires::Never),
                ],
                vec![record(1, Some(2), Expires::Never), record(5, None, Expires::Never)],
            ],
            active: vec![record(6, Some(1), Expires::Never)],
            lost: 0,
            closed: true,
            backwards: false,
            gap: 0,
        };
        plan.forge()
    })
}

/// How long the segment is whose hint is replaced.
fn segment_bytes() -> u32 {
    store().files[&SEGMENT.log_name()].len() as u32
}

fn check_in_store(hint: &[u8]) {
    let Forged { files, ever, states, .. } = store();
    let mut files: Files = files.clone();
    let right = files.insert(SEGMENT.hint_name(), hint.to_vec()).expect("it had a hint");
    let found = open_in_all_ways(&files, FileAccess::Mapped).expect("a hint keeps no store closed");
    let without = states.last().expect("there is a state");
    let taken = decode_hint(hint, STORE, SEGMENT, segment_bytes(), |_| ()).is_ok() && hint != right;
    if taken {
        // It was forged, with right checksums: that no hint can be proof against. What it can do is
        // hide a key or bring a former value back, never make one up.
        for (key, value) in found {
            let known = value.is_none_or(|value| ever.contains(&(key.clone(), value)));
            assert!(known, "key {} has a value that nobody gave it", key.escape_ascii());
        }
        return;
    }
    let found: Vec<_> = found.iter().map(|(key, value)| (key, value.as_ref())).collect();
    let without: Vec<_> = without.iter().map(|(key, value)| (key, Some(value))).collect();
    assert_eq!(found, without, "a wrong hint changed an answer");
}
