//! The simulated disk by itself: it keeps what it must and loses what it may.

use std::collections::BTreeSet;
use std::sync::Arc;

use pakv::storage::{Lock, Storage, StorageFile};
use pakv_testkit::sim::{CallKind, CrashMode, Effect, Fault, FaultError, SimStorage};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const SEEDS: u64 = 300;

fn machine() -> Result<SimStorage, std::io::Error> {
    let machine = SimStorage::new(1);
    machine.create_dir()?;
    Ok(machine)
}

fn write(file: &Arc<dyn StorageFile>, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    assert_eq!(file.write_at(bytes, offset)?, bytes.len());
    Ok(())
}

fn read(machine: &SimStorage, name: &str) -> Option<Vec<u8>> {
    let file = machine.open(name, false).ok()?;
    let mut bytes = vec![0; usize::try_from(file.len().ok()?).ok()?];
    let count = file.read_at(&mut bytes, 0).ok()?;
    bytes.truncate(count);
    Some(bytes)
}

/// The different contents of a file over many crashes.
fn found(machine: &SimStorage, name: &str, mode: CrashMode) -> BTreeSet<Option<Vec<u8>>> {
    (0..SEEDS).map(|seed| read(&machine.crash(seed, mode), name)).collect()
}

#[test]
fn what_is_synced_survives_and_a_synced_file_may_still_lose_its_name() -> Outcome {
    let machine = machine()?;
    let file = machine.create("a")?;
    write(&file, b"first", 0)?;
    file.sync()?;
    for mode in [CrashMode::Ext4, CrashMode::Posix] {
        let expected = BTreeSet::from([None, Some(b"first".to_vec())]);
        assert_eq!(found(&machine, "a", mode), expected);
    }
    machine.sync_dir()?;
    for mode in [CrashMode::Ext4, CrashMode::Posix] {
        assert_eq!(found(&machine, "a", mode), BTreeSet::from([Some(b"first".to_vec())]));
    }
    Ok(())
}

#[test]
fn what_is_not_synced_is_lost_kept_torn_at_sectors_or_out_of_order() -> Outcome {
    let machine = machine()?;
    let file = machine.create("a")?;
    machine.sync_dir()?;
    write(&file, &[1; 1000], 0)?;
    write(&file, &[2; 1000], 1000)?;
    let states = found(&machine, "a", CrashMode::Ext4);
    let states: BTreeSet<Vec<u8>> = states.into_iter().flatten().collect();
    let full = [vec![1; 1000], vec![2; 1000]].concat();
    assert!(states.contains(&Vec::new()), "nothing");
    assert!(states.contains(&full), "everything");
    assert!(states.contains(&full[..1000]), "a prefix");
    assert!(states.contains(&[vec![0; 1000], vec![2; 1000]].concat()), "only the later");
    assert!(states.contains(&[vec![1; 512], vec![0; 488]].concat()), "torn, zeros behind");
    assert!(states.iter().all(|state| state.len() <= 2000), "never longer than it was");
    Ok(())
}

#[test]
fn directory_operations_survive_in_order_or_in_any_subset() -> Outcome {
    let machine = machine()?;
    for name in ["a", "b", "c"] {
        machine.create(name)?;
    }
    let names = |mode| -> BTreeSet<String> {
        (0..SEEDS).map(|seed| machine.crash(seed, mode).names().concat()).collect()
    };
    let prefixes = ["", "a", "ab", "abc"].map(String::from);
    assert_eq!(names(CrashMode::Ext4), BTreeSet::from(prefixes));
    let subsets = ["", "a", "b", "c", "ab", "ac", "bc", "abc"].map(String::from);
    assert_eq!(names(CrashMode::Posix), BTreeSet::from(subsets));
    assert_eq!(names(CrashMode::Kill), BTreeSet::from(["abc".to_string()]));
    Ok(())
}

#[test]
fn a_rename_gives_the_old_or_the_new_file_and_never_none() -> Outcome {
    let machine = machine()?;
    write(&machine.create("m")?, b"old", 0)?;
    machine.open("m", true)?.sync()?;
    machine.sync_dir()?;
    let new = machine.create("m.tmp")?;
    write(&new, b"new", 0)?;
    new.sync()?;
    machine.rename("m.tmp", "m")?;
    for mode in [CrashMode::Ext4, CrashMode::Posix] {
        let expected = BTreeSet::from([Some(b"old".to_vec()), Some(b"new".to_vec())]);
        assert_eq!(found(&machine, "m", mode), expected);
    }
    Ok(())
}

#[test]
fn a_failed_sync_drops_what_was_pending_and_the_next_one_does_not_bring_it_back() -> Outcome {
    let fault = Fault {
        kind: Some(CallKind::Sync),
        after: 0,
        forever: false,
        effect: Effect::Error(FaultError::Io),
    };
    let mut lost = 0;
    for seed in 0..20 {
        let machine = SimStorage::new(seed);
        machine.create_dir()?;
        let file = machine.create("a")?;
        machine.sync_dir()?;
        write(&file, b"pending", 0)?;
        machine.set_fault(Some(fault));
        assert!(file.sync().is_err());
        file.sync()?;
        assert_eq!(read(&machine, "a"), Some(b"pending".to_vec()), "the page cache has it");
        lost += u32::from(read(&machine.crash(seed, CrashMode::Ext4), "a") == Some(Vec::new()));
        write(&file, b"pending", 0)?;
        file.sync()?;
        let states = found(&machine, "a", CrashMode::Posix);
        assert_eq!(states, BTreeSet::from([Some(b"pending".to_vec())]), "written again");
    }
    assert!(lost > 5, "lost in {lost} of 20");
    Ok(())
}

#[test]
fn a_killed_process_loses_nothing_but_its_lock_and_a_later_power_cut_may() -> Outcome {
    let machine = machine()?;
    let file = machine.create("a")?;
    machine.sync_dir()?;
    write(&file, b"pending", 0)?;
    let held = machine.lock("LOCK")?;
    assert!(matches!(machine.lock("LOCK")?, Lock::Held(_)));
    let killed = machine.crash(1, CrashMode::Kill);
    assert!(matches!(killed.lock("LOCK")?, Lock::Acquired(_)));
    assert_eq!(read(&killed, "a"), Some(b"pending".to_vec()));
    assert!(found(&killed, "a", CrashMode::Ext4).contains(&Some(Vec::new())));
    drop(held);
    assert!(matches!(machine.lock("LOCK")?, Lock::Acquired(_)));
    Ok(())
}

#[test]
fn a_removed_file_stays_readable_and_what_is_settled_must_not_change() -> Outcome {
    let machine = machine()?;
    let file = machine.create("a")?;
    write(&file, b"bytes", 0)?;
    let map = file.map(100)?;
    assert_eq!(map.bytes(0, 1), None, "nothing is settled yet");
    map.settle(5);
    machine.remove("a")?;
    let mut bytes = [0; 5];
    assert_eq!(file.read_at(&mut bytes, 0)?, 5);
    assert_eq!((&bytes, map.bytes(0, 5).as_deref()), (b"bytes", Some(&b"bytes"[..])));
    write(&file, b"more", 5)?;
    assert_eq!(map.bytes(0, 9), None, "written and not settled");
    map.settle(9);
    assert_eq!(map.bytes(4, 3).as_deref(), Some(&b"smo"[..]));
    assert_eq!(machine.violations(), Vec::<String>::new());
    map.settle(10);
    assert_eq!(machine.violations().len(), 1, "there is no tenth byte");
    assert_eq!(map.bytes(0, 10), None);
    assert_eq!(machine.violations().len(), 2, "which would have been SIGBUS");
    file.set_len(3)?;
    write(&file, b"x", 0)?;
    assert_eq!(machine.violations().len(), 4);
    Ok(())
}

#[test]
fn the_call_in_which_power_goes_off_is_done_or_not_and_nothing_is_after_it() -> Outcome {
    let machine = machine()?;
    machine.power_off_after(0);
    assert!(machine.create("a").is_err());
    assert!(machine.create("b").is_err());
    let names: BTreeSet<String> =
        (0..SEEDS).map(|seed| machine.crash(seed, CrashMode::Ext4).names().concat()).collect();
    assert_eq!(names, BTreeSet::from([String::new(), "a".to_string()]));
    Ok(())
}

#[test]
fn a_full_disk_writes_what_fits_and_then_refuses() -> Outcome {
    let machine = machine()?;
    let file = machine.create("a")?;
    machine.set_space(7);
    assert_eq!(file.write_at(b"0123456789", 0)?, 7);
    let full = file.write_at(b"789", 7).map_err(|error| error.kind());
    assert_eq!(full, Err(std::io::ErrorKind::StorageFull));
    assert_eq!(file.write_at(b"ab", 0)?, 2, "what is there can be written over");
    Ok(())
}
