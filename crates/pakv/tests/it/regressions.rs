//! Bugs that were, each with its story.

use pakv::Db;

/// Two threads built the hint of one segment: `compact` had just sealed it, which woke the
/// background thread, and both wrote and renamed the same temporary file. Half of the compactions
/// right after an open failed with "No such file or directory" or "File exists". Hints are now
/// built by one thread at a time.
#[test]
fn a_forced_compaction_does_not_race_the_background_thread_for_a_hint() {
    for _ in 0..40 {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let db = Db::open(dir.path()).expect("it opens");
        for value in ["1", "2"] {
            db.set("a", value).expect("it sets");
        }
        let report = db.compact().expect("nobody is in its way");
        assert_eq!(report.segments_in, 1);
        assert_eq!(db.stats().expect("figures").compaction.last_error, None);
        db.close().expect("it closes");
    }
}
