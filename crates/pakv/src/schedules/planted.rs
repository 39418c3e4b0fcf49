//! Planted bugs, each of which some schedule must show. Bugs in the engine itself are planted by
//! hand: `docs/testing.md` has the table.

use std::panic::{AssertUnwindSafe, catch_unwind};

use shuttle::thread;

use super::disk::Disk;
use super::{commit, open, options, retire, run};
use crate::sync::lose_wakes;

/// So many schedules are enough for every bug here.
const PATIENCE: usize = 200;

fn is_caught(body: fn()) -> bool {
    catch_unwind(AssertUnwindSafe(|| run(body, PATIENCE, 0))).is_err()
}

#[test]
fn the_bodies_pass_without_a_bug() {
    assert!(!is_caught(commit::writers));
    assert!(!is_caught(retire::readers));
    assert!(!is_caught(reader_of_an_honest_disk));
}

#[test]
fn a_lost_wake_up_is_caught() {
    lose_wakes(true);
    let caught = is_caught(commit::writers);
    lose_wakes(false);
    assert!(caught);
}

/// What publishing before the append has ended would look like.
#[test]
fn bytes_that_come_after_their_publishing_are_caught() {
    assert!(is_caught(reader_of_a_late_disk));
}

fn reader_of_an_honest_disk() {
    read_beside_a_writer(&Disk::default());
}

fn reader_of_a_late_disk() {
    let disk = Disk::default();
    disk.append_late();
    read_beside_a_writer(&disk);
}

fn read_beside_a_writer(disk: &Disk) {
    let db = open(disk, options().segment_bytes(1 << 20));
    let reader = {
        let db = db.clone();
        thread::spawn(move || {
            for _ in 0..2 {
                if let Some(value) = db.get("key").expect("get succeeds") {
                    assert_eq!(value, b"value");
                }
            }
        })
    };
    db.set("key", "value").expect("set succeeds");
    reader.join().expect("no panic");
}
