//! Renders the worked example of `docs/format.md` from the real encoders, so that the page cannot
//! be wrong.

use crate::format::hint::{HintEncoder, HintEntry, HintKind};
use crate::format::manifest::{ActiveSegment, Manifest, SealedSegment};
use crate::format::record::{Op, Record, encode_segment_start};
use crate::format::{FileKind, PREAMBLE_BYTES, SegmentId, StoreId, frame, salt};
use crate::inspect::{self, Part};

const STORE: StoreId = StoreId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);
const SEGMENT: SegmentId = SegmentId(1);

#[test]
fn the_worked_example_is_right() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/format.md");
    let page = std::fs::read_to_string(path).expect("the page is in the package");
    let mut rendered = page.clone();
    for (name, text) in [("dump", dumped()), ("bytes", bytes())] {
        let start = format!("<!-- example {name}:");
        let (before, rest) = rendered.split_once(&start).expect("the example begins");
        let (comment, rest) = rest.split_once("```text\n").expect("it is a block of text");
        let (_, after) = rest.split_once("```\n<!-- end of example").expect("the example ends");
        rendered =
            format!("{before}{start}{comment}```text\n{text}```\n<!-- end of example{after}");
    }
    if std::env::var_os("PAKV_REGENERATE").is_some() {
        std::fs::write(path, rendered).expect("the page can be written");
    } else {
        assert_eq!(page, rendered, "docs/format.md is out of date: run with PAKV_REGENERATE=1");
    }
}

/// The files of the example, with their names.
fn files() -> [(&'static str, Vec<u8>); 3] {
    let (segment, locations) = segment();
    let bytes = segment.len() as u32;
    [
        ("0000000001.log", segment),
        ("0000000001.hint", hint(&locations, bytes)),
        ("MANIFEST", manifest(bytes)),
    ]
}

/// What `pakv dump` shows of them.
fn dumped() -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut text = String::new();
    for (name, bytes) in files() {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        text.push_str(&format!("$ pakv dump {name}\n{}\n", Part::HEADING));
        inspect::dump(&path, |part| {
            text.push_str(&format!("{part}\n"));
            Ok::<(), crate::Error>(())
        })
        .expect("it can be dumped");
    }
    text
}

/// The same byte by byte.
fn bytes() -> String {
    let files = files().map(|(name, bytes)| {
        let mut text = format!("{name}\n");
        dump(&mut text, &bytes);
        text
    });
    files.join("\n")
}

const RECORDS: [(Op<'static>, u32); 3] = [
    (Op::Set { expires_at_ms: None, key: b"a", value: b"1" }, 0),
    (Op::Set { expires_at_ms: Some(1000), key: b"b", value: b"22" }, 1),
    (Op::Tombstone { key: b"a" }, 0),
];

fn segment() -> (Vec<u8>, Vec<(u32, u32)>) {
    let salt = salt(STORE, FileKind::Log, SEGMENT);
    let mut bytes = encode_segment_start(STORE, SEGMENT, salt).expect("it encodes");
    let mut locations = Vec::new();
    let mut batch_start = bytes.len();
    for ((op, batch_rest), seqno) in RECORDS.into_iter().zip(1..) {
        let offset = bytes.len() as u32;
        let unsynced = (bytes.len() - batch_start) as u32;
        let record = Record { unsynced, seqno, batch_rest, op };
        let length = record.append_unsealed(&mut bytes).expect("it encodes");
        frame::seal(&mut bytes[offset as usize..], salt, offset);
        locations.push((offset, length));
        if batch_rest == 0 {
            batch_start = bytes.len();
        }
    }
    (bytes, locations)
}

fn hint(locations: &[(u32, u32)], segment_bytes: u32) -> Vec<u8> {
    let mut encoder = HintEncoder::new(STORE, SEGMENT).expect("it encodes");
    for (((op, _), (offset, length)), seqno) in RECORDS.iter().zip(locations).zip(1..) {
        let kind = match op {
            Op::Set { expires_at_ms, .. } => HintKind::set(*expires_at_ms),
            Op::Tombstone { .. } => HintKind::Tombstone,
        };
        let entry = HintEntry { offset: *offset, length: *length, seqno, kind, key: op.key() };
        encoder.push(&entry).expect("it encodes");
    }
    encoder.finish(segment_bytes).expect("it encodes");
    encoder.take().1
}

fn manifest(segment_bytes: u32) -> Vec<u8> {
    let sealed = SealedSegment {
        segment: SEGMENT,
        bytes: segment_bytes,
        records: 3,
        min_seqno: 1,
        max_seqno: 3,
    };
    let manifest = Manifest {
        store: STORE,
        next_segment: SegmentId(3),
        next_seqno: 4,
        sealed: vec![sealed],
        active: Some(ActiveSegment { segment: SegmentId(2), synced_bytes: 41 }),
    };
    manifest.encode().expect("it encodes")
}

/// Preamble and frames, a line each: offset, then the bytes of the parts that the page's tables
/// name.
fn dump(text: &mut String, bytes: &[u8]) {
    let mut line = |offset: usize, what: &str, bytes: &[u8]| {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        for (index, row) in hex.chunks(20).enumerate() {
            let (offset, what) =
                if index == 0 { (offset.to_string(), what) } else { (String::new(), "") };
            text.push_str(&format!("{offset:>5}  {what:<9} {}\n", row.join(" ")));
        }
    };
    line(0, "magic", &bytes[..8]);
    line(8, "version", &bytes[8..12]);
    line(12, "salt", &bytes[12..16]);
    let mut at = PREAMBLE_BYTES;
    while at < bytes.len() {
        let length = frame::claimed_len(&bytes[at..]).expect("a whole frame") as usize;
        line(at, "checksum", &bytes[at..at + 4]);
        line(at + 4, "length", &bytes[at + 4..at + 8]);
        line(at + 8, "body", &bytes[at + 8..at + length]);
        at += length;
    }
}
