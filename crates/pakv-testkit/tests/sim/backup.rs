//! Power cuts and failures in the middle of a backup: the store does not notice, and the backup is
//! the one before, the new one, or says that it is not finished.

use std::sync::Arc;

use pakv::backup::BackupReport;
use pakv::storage::Storage;
use pakv::{Db, Durability, Error, Options};
use pakv_testkit::sim::{CallKind, CrashMode, Effect, Fault, FaultError, SimStorage};

type Outcome = Result<(), Box<dyn std::error::Error>>;
type Contents = Vec<(Vec<u8>, Vec<u8>)>;

fn options() -> Options {
    Options::new()
        .background_compaction(false)
        .segment_bytes(512)
        .hintless_segments_from(0)
        .durability(Durability::Buffered)
}

fn storage(machine: &SimStorage) -> Arc<dyn Storage> {
    Arc::new(machine.clone())
}

fn contents(db: &Db) -> pakv::Result<Contents> {
    db.scan()?.map(|entry| entry.into_pair()).collect()
}

/// What a backup shows; `None` where there is none to be seen yet.
fn shown(machine: &SimStorage) -> pakv::Result<Option<Contents>> {
    match options().create(false).read_only(true).open_storage(storage(machine)) {
        Ok(db) => {
            assert_eq!(db.check()?.findings, []);
            contents(&db).map(Some)
        }
        Err(Error::NoStore { .. } | Error::BackupUnfinished { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A store, and what it held at each of its backups.
struct Source {
    machine: SimStorage,
    db: Db,
    states: Vec<Contents>,
    how: How,
}

/// How a backup gets its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// From another file system.
    Copies,
    /// From the same one.
    Links,
}

/// The call kinds that change something.
const CHANGES: [CallKind; 7] = [
    CallKind::CreateDir,
    CallKind::Create,
    CallKind::Rename,
    CallKind::Remove,
    CallKind::Write,
    CallKind::SetLen,
    CallKind::Lock,
];

impl Source {
    fn new(how: How) -> pakv::Result<Self> {
        let machine = SimStorage::new(7);
        let db = options().open_storage(storage(&machine))?;
        Ok(Self { machine, db, states: Vec::new(), how })
    }

    /// Overwrites most of what there is: segments go and others come.
    fn write(&mut self, round: usize) -> pakv::Result<()> {
        for number in 0..30 {
            self.db.set(format!("key{}", number % 11), format!("{round} {number:0>30}"))?;
        }
        if round % 2 == 1 {
            self.db.compact()?;
            self.db.set("after", round.to_string())?;
        }
        self.states.push(contents(&self.db)?);
        Ok(())
    }

    fn backup(&self, target: &SimStorage) -> pakv::Result<BackupReport> {
        if self.how == How::Links {
            self.machine.link_into(target);
        }
        let calls = self.machine.calls();
        let result = self.db.backup_storage(storage(target), |_| ());
        let changes = |call: &&pakv_testkit::sim::Call| CHANGES.contains(&call.kind);
        let log = self.machine.log();
        let changed = log.iter().skip(calls as usize).find(changes);
        assert!(changed.is_none(), "the store was changed: {changed:?}");
        result
    }
}

#[test]
fn a_backup_cut_off_at_any_call_is_the_old_one_or_the_new_one() -> Outcome {
    cut_off_at_any_call(How::Copies)
}

#[test]
fn a_backup_of_links_cut_off_at_any_call_is_the_old_one_or_the_new_one() -> Outcome {
    cut_off_at_any_call(How::Links)
}

fn cut_off_at_any_call(how: How) -> Outcome {
    let mut source = Source::new(how)?;
    let mut target = SimStorage::new(1);
    let mut cuts = 0;
    for round in 0..4 {
        source.write(round)?;
        let allowed: Vec<Option<&Contents>> = match source.states.as_slice() {
            [new] => vec![None, Some(new)],
            [.., old, new] => vec![Some(old), Some(new)],
            [] => vec![],
        };
        for calls in 0.. {
            let machine = target.copy(calls);
            machine.power_off_after(calls);
            let result = source.backup(&machine);
            if !machine.is_off() {
                result?;
                break;
            }
            assert!(result.is_err(), "power went off and the backup was told whole");
            for (seed, mode) in [
                (1, CrashMode::Ext4),
                (2, CrashMode::Posix),
                (3, CrashMode::Posix),
                (4, CrashMode::Kill),
            ] {
                let context = format!("round {round}, call {calls}, {mode:?}");
                let crashed = machine.crash(seed * 1000 + calls, mode);
                let found = shown(&crashed).map_err(|error| format!("{context}: {error}"))?;
                assert!(allowed.contains(&found.as_ref()), "{context}: {found:?}");
                // And the next one brings it to its end.
                source.backup(&crashed).map_err(|error| format!("{context}: {error}"))?;
                assert_eq!(shown(&crashed)?.as_ref(), source.states.last(), "{context}");
                cuts += 1;
            }
        }
        let report = source.backup(&target)?;
        assert_eq!(report.segments_linked > 0, how == How::Links, "{report:?}");
        // What it says is there is there after a power cut.
        target = target.crash(round as u64, CrashMode::Posix);
        assert_eq!(shown(&target)?.as_ref(), source.states.last());
    }
    assert!(cuts > 500, "{cuts} cuts");
    Ok(())
}

#[test]
fn any_call_of_a_backup_may_fail() -> Outcome {
    any_call_may_fail(How::Copies)
}

#[test]
fn any_call_of_a_backup_of_links_may_fail() -> Outcome {
    any_call_may_fail(How::Links)
}

fn any_call_may_fail(how: How) -> Outcome {
    let mut source = Source::new(how)?;
    let first = SimStorage::new(1);
    source.write(0)?;
    source.backup(&first)?;
    source.write(1)?;
    for error in [FaultError::Io, FaultError::NoSpace] {
        for after in 0.. {
            let machine = first.copy(after);
            let fault = Fault { kind: None, after, forever: false, effect: Effect::Error(error) };
            machine.set_fault(Some(fault));
            let result = source.backup(&machine);
            let fired = machine.fired();
            if fired.is_empty() {
                result?;
                break;
            }
            let found = shown(&machine)?;
            let states: Vec<_> = source.states.iter().map(Some).collect();
            assert!(states.contains(&found.as_ref()), "{fired:?}: {found:?}");
            if result.is_ok() {
                assert_eq!(found.as_ref(), source.states.last(), "{fired:?}");
            }
            source.backup(&machine)?;
            assert_eq!(shown(&machine)?.as_ref(), source.states.last(), "{fired:?}");
        }
    }
    // The store did not mind.
    source.db.set("on", "it goes")?;
    assert_eq!(source.db.stats()?.poisoned, None);
    Ok(())
}
