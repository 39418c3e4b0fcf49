//! Frames and records: nothing that is given makes the decoders panic or allocate; what was encoded
//! comes back; a flipped bit never yields another record.
//!
//! The first byte chooses: bytes as they are, bytes as the body of a valid frame, or a record made
//! of them.

use arbitrary::{Arbitrary, Unstructured};

use crate::bytes::{each_flip, take_u32};
use crate::format::frame::{self, FRAME_HEADER_BYTES, FrameFinder};
use crate::format::record::{Op, Record};
use crate::memory::peak;

/// The text of an error is all that a decoder may allocate.
const ERROR_BYTES_MAX: usize = 1024;

/// A record between other bytes.
#[derive(Debug, Arbitrary)]
struct Spec {
    salt: u32,
    base_offset: u16,
    before: Vec<u8>,
    unsynced: u32,
    seqno: u64,
    batch_rest: u32,
    key: Vec<u8>,
    value: Option<Vec<u8>>,
    expires_at_ms: Option<u64>,
    after: Vec<u8>,
}

/// One input.
pub fn run(data: &[u8]) {
    let Some((mode, rest)) = data.split_first() else { return };
    let Some(((salt, offset), bytes)) = place(rest) else { return };
    match mode % 3 {
        0 => {
            check_frame(bytes, salt, offset);
            check_finder(bytes, salt, offset);
        }
        1 => {
            let framed = framed(bytes, salt, offset);
            let body = frame::body(&framed, salt, offset);
            assert_eq!(body.ok(), Some(bytes).filter(|body| !body.is_empty()));
            check_frame(&framed, salt, offset);
        }
        _ => {
            if let Ok(spec) = Spec::arbitrary(&mut Unstructured::new(rest)) {
                check_record(&spec);
            }
        }
    }
}

fn place(bytes: &[u8]) -> Option<((u32, u32), &[u8])> {
    let (salt, bytes) = take_u32(bytes)?;
    let (offset, bytes) = take_u32(bytes)?;
    Some(((salt, offset), bytes))
}

fn framed(body: &[u8], salt: u32, offset: u32) -> Vec<u8> {
    let mut framed = Vec::new();
    let result = frame::append(&mut framed, salt, offset, |buffer| {
        buffer.extend_from_slice(body);
        Ok(())
    });
    assert_eq!(result, Ok(framed.len() as u32));
    framed
}

/// What a reader does with bytes at a place of a file.
fn check_frame(bytes: &[u8], salt: u32, offset: u32) {
    let (body, allocated) = peak(|| frame::body(bytes, salt, offset));
    assert_eq!(allocated, 0, "a frame is checked where it stands");
    let Ok(body) = body else { return };
    let length = FRAME_HEADER_BYTES + body.len();
    assert_eq!(frame::claimed_len(bytes), Some(length as u64));
    assert_eq!(body, &bytes[FRAME_HEADER_BYTES..length]);
    let (decoded, allocated) = peak(|| Record::decode(body));
    assert!(allocated <= ERROR_BYTES_MAX, "{allocated} bytes for a body of {}", body.len());
    assert_eq!(Record::is_record(body), decoded.is_ok());
    if let Ok(record) = decoded {
        let again = encoded(&record, salt, offset);
        assert!(again.len() <= length, "the encoder writes the shortest form");
        check_valid(&again, &record, salt, offset);
    }
}

fn encoded(record: &Record<'_>, salt: u32, offset: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let length = record.append_unsealed(&mut bytes);
    assert_eq!(length, Ok(bytes.len() as u32));
    assert!(bytes.len() as u64 <= record.op.bytes_max(), "{record:?} takes {}", bytes.len());
    frame::seal(&mut bytes, salt, offset);
    bytes
}

/// A frame as the encoder writes it is its record, the same bytes again, and no other record when
/// it is damaged or stands elsewhere.
fn check_valid(bytes: &[u8], record: &Record<'_>, salt: u32, offset: u32) {
    let body = frame::body(bytes, salt, offset).expect("its checksum is right");
    if record.op.key().is_empty() {
        assert!(Record::decode(body).is_err(), "no caller can ask for such a key");
        return;
    }
    assert_eq!(Record::decode(body).as_ref(), Ok(record));
    assert_eq!(encoded(record, salt, offset), bytes);
    for len in 0..bytes.len().min(64) {
        assert!(frame::body(&bytes[..len], salt, offset).is_err(), "cut at {len}");
    }
    assert!(frame::body(bytes, salt.wrapping_add(1), offset).is_err(), "another file's");
    assert!(frame::body(bytes, salt, offset.wrapping_add(1)).is_err(), "another place's");
    each_flip(bytes, |bit, flipped| {
        // A length that is cut short may, once in four thousand million, have a right checksum;
        // then the record does not end with its body.
        let found = frame::body(flipped, salt, offset).ok().and_then(|body| {
            assert!((32..64).contains(&bit), "bit {bit} flipped unnoticed");
            Record::decode(body).ok()
        });
        assert_eq!(found, None, "bit {bit} flipped yields another record");
    });
}

fn check_record(spec: &Spec) {
    let Spec { salt, base_offset, before, unsynced, seqno, batch_rest, key, value, .. } = spec;
    let op = match value {
        Some(value) => Op::Set { expires_at_ms: spec.expires_at_ms, key, value },
        None => Op::Tombstone { key },
    };
    let record = Record { unsynced: *unsynced, seqno: *seqno, batch_rest: *batch_rest, op };
    let base_offset = u32::from(*base_offset);
    let bytes = encoded(&record, *salt, base_offset + before.len() as u32);
    check_valid(&bytes, &record, *salt, base_offset + before.len() as u32);
    let file = [&before[..], &bytes, &spec.after].concat();
    check_finder(&file, *salt, base_offset);
    let finder = FrameFinder::new(&file, *salt, base_offset);
    let next = |from| finder.next_from(from, Record::is_record);
    let found = std::iter::successors(next(0), |(at, _)| next(at + 1));
    let count = found.filter(|(at, _)| *at == before.len()).count();
    let expected = usize::from(!record.op.key().is_empty());
    assert_eq!(count, expected, "the record is found between other bytes");
}

/// The quick search for frames finds what the plain one does.
fn check_finder(bytes: &[u8], salt: u32, base_offset: u32) {
    const SEARCHED_MAX: usize = 2048;
    let bytes = &bytes[..bytes.len().min(SEARCHED_MAX)];
    let finder = FrameFinder::new(bytes, salt, base_offset);
    let mut from = 0;
    loop {
        let plain = (from..bytes.len()).find_map(|at| {
            let offset = base_offset.checked_add(at as u32)?;
            frame::body(&bytes[at..], salt, offset).ok().map(|body| (at, body))
        });
        let found = finder.next_from(from, |_| true);
        assert_eq!(found, plain, "from {from} on");
        let Some((at, _)) = found else { return };
        from = at + 1;
    }
}
