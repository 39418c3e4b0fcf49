//! The active segment after a crash: cut at every byte, with all kinds of tails, and with holes.
//! What was not known durable may go, whole batches at a time from the end, and is reported; what
//! was known durable is never given up.

use pakv::{Durability, Error, FileAccess, Options};
use pakv_testkit::{TestStore, files};

use crate::history::{Contents, History, Step, assert_recovers, contents, log};

/// A few segments, and plenty of records in the active one, which ends with the last of them: nothing
/// is mapped ahead.
fn options() -> Options {
    TestStore::options().segment_bytes(1_200).file_access(FileAccess::Positional)
}

/// What a store holds whose active segment ends at `len`, and where the last whole batch ends.
fn cut_to(before: &Contents, header_bytes: usize, steps: &[Step], len: usize) -> (Contents, usize) {
    let last = steps.iter().rev().find(|step| step.end <= len);
    last.map_or_else(|| (before.clone(), header_bytes), |step| (step.contents.clone(), step.end))
}

#[test]
fn a_cut_at_every_byte_leaves_exactly_the_whole_batches_before_it() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    assert!(
        segment > 1 && steps.len() > 5,
        "the history has sealed segments and an active one with batches"
    );
    let before = history.contents_before_active();
    let bytes = files::read(&log(history.dir.path(), segment));
    assert_eq!(bytes.len(), steps.last().expect("there are steps").end, "the writes are all there");
    for len in 0..=bytes.len() {
        let copy = files::copied(history.dir.path());
        files::cut(&log(copy.path(), segment), len);
        if len < history.header_bytes {
            // The header was durable before the manifest listed the segment: no crash cuts it.
            let error = TestStore::options().open(copy.path()).expect_err("the header is cut");
            assert!(error.is_corruption(), "cut to {len} bytes: {error:?}");
            continue;
        }
        let (expected, whole) = cut_to(&before, history.header_bytes, &steps, len);
        let report = assert_recovers(copy.path(), &expected, &format!("cut to {len} bytes"));
        // Zeros at the end may be space that was prepared; the first bytes of a checksum can be
        // some.
        let zeros = bytes[whole..len].iter().rev().take_while(|byte| **byte == 0).count();
        let told = (len - whole - zeros) as u64..=(len - whole) as u64;
        let cut = report.bytes_cut;
        assert!(told.contains(&cut), "cut to {len} bytes, {whole} are whole, and {cut} reported");
    }
}

#[test]
fn a_torn_tail_is_cut_whatever_follows_it() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    let before = history.contents_before_active();
    let bytes = files::read(&log(history.dir.path(), segment));
    let first = &steps[0];
    let last = steps.last().expect("there are steps");
    let earlier = log(history.dir.path(), segment - 1);
    let tails: [(&str, Vec<u8>); 7] = [
        ("zeros", vec![0; 300]),
        ("ones", vec![0xff; 300]),
        ("text", b"pakv-log".repeat(20)),
        ("a length of 4 GiB", [[0xff; 4], [0xff; 4], [0; 4]].concat()),
        ("this segment's first record", bytes[first.start..first.end].to_vec()),
        ("this segment from its start", bytes.clone()),
        ("an earlier segment's records", files::read(&earlier)),
    ];
    // In the middle of a record, at the end of one and at the end of all.
    for len in [first.end + 5, first.end, last.end - 1, last.end] {
        let (expected, whole) = cut_to(&before, history.header_bytes, &steps, len);
        for (name, tail) in &tails {
            let copy = files::copied(history.dir.path());
            files::write(&log(copy.path(), segment), [&bytes[..len], tail].concat());
            let report =
                assert_recovers(copy.path(), &expected, &format!("{name} after {len} bytes"));
            if len > whole || *name != "zeros" {
                assert!(
                    report.bytes_cut > 0,
                    "{name} after {len} bytes: the report tells that something was cut"
                );
            }
        }
    }
}

/// The file system kept its promise of nothing: it wrote the last bytes of the segment and not some
/// before them. Nothing here was synced, so a good record behind a hole proves nothing.
#[test]
fn a_hole_in_what_was_never_synced_is_cut_there() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    let before = history.contents_before_active();
    let bytes = files::read(&log(history.dir.path(), segment));
    for hole in &steps {
        let copy = files::copied(history.dir.path());
        let mut torn = bytes.clone();
        torn[hole.start..hole.end].fill(0);
        files::write(&log(copy.path(), segment), torn);
        let (expected, whole) = cut_to(&before, history.header_bytes, &steps, hole.start);
        let report = assert_recovers(copy.path(), &expected, &format!("a hole at {}", hole.start));
        let last = steps.last().expect("there are steps").end == hole.end;
        if !last {
            let cut = (bytes.len() - whole) as u64;
            assert_eq!(
                report.bytes_cut, cut,
                "everything from the hole at {} on was cut",
                hole.start
            );
        }
    }
}

/// The same hole where every write was synced before the next began is damage, and nothing is cut:
/// the records behind it say that it was durable.
#[test]
fn a_hole_in_what_was_synced_is_corruption() {
    let history = History::of_five_rounds(&options().durability(Durability::Sync));
    let (segment, steps) = history.active_steps();
    let path = log(history.dir.path(), segment);
    let bytes = files::read(&path);
    let (last, vouched_for) = steps.split_last().expect("there are steps");
    for hole in vouched_for {
        let copy = files::copied(history.dir.path());
        let mut damaged = bytes.clone();
        damaged[hole.start..hole.end].fill(0);
        let path = log(copy.path(), segment);
        files::write(&path, &damaged);
        match TestStore::options().open(copy.path()) {
            Err(Error::Corrupt { path: named, offset, .. }) => {
                assert_eq!(named, path, "the error names the segment");
                assert_eq!(offset, hole.start as u64, "the error names the record");
            }
            other => panic!("a hole at {} in synced bytes: {other:?}", hole.start),
        }
        assert_eq!(files::read(&path), damaged, "nothing was cut");
    }
    // Nothing vouches for the last write but the acknowledgement, which is not on the disk.
    let copy = files::copied(history.dir.path());
    files::flip(&log(copy.path(), segment), last.start, 1);
    let expected = &vouched_for.last().expect("there are more steps").contents;
    let report = assert_recovers(copy.path(), expected, "the last record torn");
    assert_eq!(report.bytes_cut, (last.end - last.start) as u64);
}

/// A clean close tells the manifest how far the segment was synced, so even its last byte is
/// accounted for.
#[test]
fn after_a_clean_close_nothing_is_cut() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    let header_bytes = history.header_bytes;
    history.db.close().expect("close succeeds");
    let end = steps.last().expect("there are steps").end;
    let length = files::read(&log(history.dir.path(), segment)).len();
    assert_eq!(length, end, "a closed segment ends with its last record");
    for len in [0, header_bytes, steps[0].end, end - 1] {
        let copy = files::copied(history.dir.path());
        files::cut(&log(copy.path(), segment), len);
        let error =
            TestStore::options().open(copy.path()).expect_err("bytes known durable are missing");
        assert!(error.is_corruption(), "cut to {len} bytes after a close: {error:?}");
    }
}

/// Two crashes in a row: the second one hits what was written after the first recovery.
#[test]
fn a_second_crash_finds_the_first_one_mended() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    let before = history.contents_before_active();
    for (index, step) in steps.iter().enumerate() {
        let first = files::copied(history.dir.path());
        files::cut(&log(first.path(), segment), step.end - 3);
        let db = options()
            .open(first.path())
            .unwrap_or_else(|error| panic!("crash in step {index}: {error}"));
        let (mut expected, _) = cut_to(&before, history.header_bytes, &steps, step.end - 3);
        // Shorter than what was cut, so that remains of it would stand behind.
        db.set("z", "").expect("set succeeds");
        expected.push((b"z".to_vec(), Vec::new()));
        let second = files::copied(first.path());
        assert_recovers(
            second.path(),
            &expected,
            &format!("second crash after one in step {index}"),
        );
    }
}

#[test]
fn a_reader_shows_the_whole_batches_of_a_torn_segment_and_leaves_it_torn() {
    let history = History::of_five_rounds(&options());
    let (segment, steps) = history.active_steps();
    let before = history.contents_before_active();
    for step in &steps {
        let copy = files::copied(history.dir.path());
        files::cut(&log(copy.path(), segment), step.end - 1);
        let state = files::state(copy.path());
        let reader = TestStore::options()
            .read_only(true)
            .open(copy.path())
            .expect("a reader opens a torn store");
        let (expected, _) = cut_to(&before, history.header_bytes, &steps, step.end - 1);
        assert_eq!(contents(&reader), expected, "cut before {}", step.end);
        drop(reader);
        assert!(files::state(copy.path()) == state, "a reader changed a file");
    }
}
