//! Every state of the files that a crash in compaction, rotation or an open can leave, made by
//! copying files at the right moment and by mixing those of before and after.

use std::path::Path;

use pakv::RecoveryReport;
use pakv_testkit::{TestStore, files};
use tempfile::TempDir;

use crate::history::{Contents, History, assert_recovers, contents};

/// A store before a compaction, at many moments of it, and after it.
struct Compacted {
    before: TempDir,
    during: Vec<TempDir>,
    after: TempDir,
    contents: Contents,
}

impl Compacted {
    fn new() -> Self {
        let options = TestStore::options();
        let mut history = History::new(&options);
        history.write(0..4);
        // Tombstones and expired records whose older values lie in other segments.
        for round in 0..3 {
            history.delete(&format!("key{round}"));
            history.set(&format!("filler{round}"), &"f".repeat(300));
        }
        history.batch(&[("key3", None), ("filler0", None)]);
        let before = files::copied(history.dir.path());
        let mut during = Vec::new();
        let report = history.db.compact_with(|_| during.push(files::copied(history.dir.path())));
        let report = report.expect("compact succeeds");
        assert!(report.segments_in > 3, "several segments were compacted: {report:?}");
        assert!(report.segments_out > 1, "the output took several segments: {report:?}");
        assert!(report.tombstones_dropped > 0, "deleted keys were in the inputs: {report:?}");
        let after = files::copied(history.dir.path());
        assert_eq!(
            &contents(&history.db),
            history.contents(),
            "compaction changes nothing that can be seen"
        );
        Self { before, during, after, contents: history.contents().clone() }
    }

    /// Names that are in `after` and not in `before`: what the compaction wrote.
    fn outputs(&self) -> Vec<String> {
        let before = files::names(self.before.path(), "");
        files::names(self.after.path(), "")
            .into_iter()
            .filter(|name| !before.contains(name))
            .collect()
    }

    /// Names that are in `before` and not in `after`: what the compaction read and removed.
    fn inputs(&self) -> Vec<String> {
        let after = files::names(self.after.path(), "");
        files::names(self.before.path(), "")
            .into_iter()
            .filter(|name| !after.contains(name))
            .collect()
    }

    #[track_caller]
    fn recovers(&self, dir: &Path, context: &str) -> RecoveryReport {
        let report = assert_recovers(dir, &self.contents, context);
        assert_eq!(report.bytes_cut, 0, "{context}: every write was whole");
        report
    }
}

fn copy_file(from: &Path, to: &Path, name: &str) {
    files::write(&to.join(name), files::read(&from.join(name)));
}

#[test]
fn a_crash_at_any_moment_of_the_copying_costs_nothing() {
    let compacted = Compacted::new();
    assert!(compacted.during.len() > 20, "there are many moments");
    let mut with_orphans = 0;
    for (index, during) in compacted.during.iter().enumerate() {
        let report = compacted.recovers(during.path(), &format!("moment {index}"));
        with_orphans += u64::from(report.orphans_removed > 0);
    }
    assert!(with_orphans > 0, "at some moments there were outputs to remove");
}

/// The outputs were begun or finished and the manifest knows nothing of them.
#[test]
fn outputs_without_the_manifest_are_removed() {
    let compacted = Compacted::new();
    let outputs = compacted.outputs();
    let longest =
        outputs.iter().map(|name| files::read(&compacted.after.path().join(name)).len()).max();
    for len in (0..=longest.expect("there are outputs")).step_by(23) {
        let copy = files::copied(compacted.before.path());
        for name in &outputs {
            let bytes = files::read(&compacted.after.path().join(name));
            files::write(&copy.path().join(name), &bytes[..len.min(bytes.len())]);
        }
        let report = compacted.recovers(copy.path(), &format!("outputs of {len} bytes"));
        assert_eq!(
            report.orphans_removed,
            outputs.len() as u64,
            "outputs of {len} bytes: the report counts them"
        );
    }
}

/// The manifest lists the outputs; of the inputs any subset is gone.
#[test]
fn inputs_behind_the_manifest_are_removed_in_whatever_order_they_go() {
    let compacted = Compacted::new();
    let inputs = compacted.inputs();
    assert!((6..=20).contains(&inputs.len()), "a number of subsets that can be tried: {inputs:?}");
    let all: u32 = (1 << inputs.len()) - 1;
    // None to two are left, none or one is gone, or they went in order.
    let subsets = (0..=all).filter(|subset| {
        let few = subset.count_ones() <= 2 || (all & !subset).count_ones() <= 1;
        few || (subset + 1).is_power_of_two()
    });
    for subset in subsets {
        let copy = files::copied(compacted.after.path());
        for (_, name) in inputs.iter().enumerate().filter(|(index, _)| subset & (1 << index) != 0) {
            copy_file(compacted.before.path(), copy.path(), name);
        }
        let report = compacted.recovers(copy.path(), &format!("inputs {subset:b} are left"));
        assert_eq!(
            report.orphans_removed,
            u64::from(subset.count_ones()),
            "inputs {subset:b} are left"
        );
    }
}

#[test]
fn after_the_manifest_hints_of_outputs_can_be_lost() {
    let compacted = Compacted::new();
    let hints: Vec<_> =
        compacted.outputs().into_iter().filter(|name| name.ends_with(".hint")).collect();
    assert!(!hints.is_empty(), "outputs have hints");
    for lost in &hints {
        let copy = files::copied(compacted.after.path());
        files::remove(&copy.path().join(lost));
        let report = compacted.recovers(copy.path(), &format!("{lost} is lost"));
        assert_eq!(report.hints_rebuilt, 1, "{lost}: the report tells of it");
    }
}

/// A temporary file that was never renamed, whole or not, is removed.
#[test]
fn leftover_temporary_files_are_removed() {
    let compacted = Compacted::new();
    let newer = files::read(&compacted.after.path().join("MANIFEST"));
    let hint_name = &files::names(compacted.before.path(), ".hint")[0];
    let hint = files::read(&compacted.before.path().join(hint_name));
    for (name, bytes) in [("MANIFEST".to_string(), newer), (hint_name.clone(), hint)] {
        for len in [0, 1, bytes.len() / 2, bytes.len()] {
            let copy = files::copied(compacted.before.path());
            files::write(&copy.path().join(format!("{name}.tmp")), &bytes[..len]);
            let report = compacted.recovers(copy.path(), &format!("{name}.tmp of {len} bytes"));
            assert_eq!(
                report.orphans_removed, 1,
                "{name}.tmp of {len} bytes: the report counts it"
            );
        }
    }
}

/// The orphans of a crashed compaction have numbers that are given out again. Should the removal of
/// one be lost with the power, the new segment of that number must not be read by the old hint.
#[test]
fn a_hint_of_an_earlier_life_of_the_number_is_not_believed() {
    let compacted = Compacted::new();
    let old_hints: Vec<_> =
        compacted.outputs().into_iter().filter(|name| name.ends_with(".hint")).collect();
    let db = TestStore::options().open(compacted.before.path()).expect("the state opens");
    for index in 0..30 {
        db.set(format!("new{index:02}"), "n".repeat(50)).expect("set succeeds");
    }
    let expected = contents(&db);
    let copy = files::copied(compacted.before.path());
    let mut replaced = 0;
    for name in &old_hints {
        if copy.path().join(name).exists() {
            copy_file(compacted.after.path(), copy.path(), name);
            replaced += 1;
        }
    }
    assert!(replaced > 0, "numbers were given out again");
    let report = assert_recovers(copy.path(), &expected, "old hints");
    assert_eq!(report.hints_rebuilt, replaced, "the report tells of them");
}

/// A rotation creates the next segment, then lists it; its hint for the sealed one comes later
/// still.
#[test]
fn a_crash_at_any_moment_of_a_rotation_costs_nothing() {
    let mut history = History::new(&TestStore::options());
    history.write(0..2);
    let (first, _) = history.active_steps();
    let before = loop {
        let before = files::copied(history.dir.path());
        let contents = history.contents().clone();
        history.set("rotating", "r");
        if history.active_steps().0 > first {
            break (before, contents);
        }
    };
    let (before, contents) = before;
    let after = history.dir.path();
    let next = format!("{:010}.log", first + 1);
    let next_bytes = files::read(&after.join(&next));

    // Created, not listed; its header torn or whole.
    for len in [0, 1, history.header_bytes / 2, history.header_bytes] {
        let copy = files::copied(before.path());
        files::write(&copy.path().join(&next), &next_bytes[..len]);
        let report =
            assert_recovers(copy.path(), &contents, &format!("{len} bytes of the next segment"));
        assert_eq!(
            report.orphans_removed, 1,
            "{len} bytes of the next segment: the report counts it"
        );
    }
    // Listed, nothing written to it, with and without the hint of the segment that was sealed.
    for hint in [false, true] {
        let copy = files::copied(after);
        files::cut(&copy.path().join(&next), history.header_bytes);
        if !hint {
            files::remove(&copy.path().join(format!("{first:010}.hint")));
        }
        let report = assert_recovers(copy.path(), &contents, &format!("listed, hint: {hint}"));
        assert_eq!(report.hints_rebuilt, u64::from(!hint), "listed, hint: {hint}");
    }
    assert_recovers(files::copied(after).path(), history.contents(), "written to");
}

/// What an open that created the store can leave behind, up to the first segment.
#[test]
fn a_creation_that_was_interrupted_is_finished_by_the_next_open() {
    let whole = files::scratch();
    TestStore::options()
        .open(whole.path())
        .and_then(|db| db.close())
        .expect("an empty directory becomes a store");
    let manifest = files::read(&whole.path().join("MANIFEST"));
    let states: [&[(&str, &[u8])]; 5] = [
        &[],
        &[("LOCK", b"")],
        &[("LOCK", b"1"), ("MANIFEST.tmp", b"")],
        &[("LOCK", b"1"), ("MANIFEST.tmp", &manifest[..manifest.len() / 2])],
        &[("LOCK", b"1"), ("MANIFEST.tmp", &manifest)],
    ];
    for state in states {
        let dir = files::scratch();
        for (name, bytes) in state {
            files::write(&dir.path().join(name), bytes);
        }
        let names: Vec<&str> = state.iter().map(|(name, _)| *name).collect();
        let report = assert_recovers(dir.path(), &Vec::new(), &format!("with {names:?}"));
        assert!(report.created, "with {names:?}: the report says that the store was created");
    }
}

/// A crash during the open that cleans up after a crash: any subset of the orphans is gone already.
#[test]
fn a_crash_during_recovery_costs_nothing() {
    let compacted = Compacted::new();
    let outputs = compacted.outputs();
    for gone in 0..outputs.len() {
        let copy = files::copied(compacted.before.path());
        for name in &outputs[gone..] {
            copy_file(compacted.after.path(), copy.path(), name);
        }
        let hint = &files::names(copy.path(), ".hint")[0];
        files::write(&copy.path().join(format!("{hint}.tmp")), "half");
        files::remove(&copy.path().join(hint));
        compacted.recovers(copy.path(), &format!("{gone} of the orphans are gone"));
    }
}
