//! The runs of power cuts: one image, many cuts, a new store after each dozen.
//!
//! A run is a seed, but only its workload and its delays are: at which call the cut falls is the
//! scheduler's. So the store as the cut left it is kept when a check fails.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;

use super::child::heard;
use super::mount::{Filesystem, Image, Mounted, Refusal};
use super::order::{Crash, Found, Order, Promise, Said};
use super::writer::Writer;
use crate::{files, kill};

/// So many rounds in a row hit the same store, each after a recovery from the one before.
const ROUNDS_PER_STORE: u64 = 12;

/// What was looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Tally {
    /// Power cuts. Each is followed by a check of the whole store or by the cut in the recovery
    /// from it, and that by the check.
    pub cuts: u64,
    /// Of these, how many fell into an open: of a new store, of a closed one, or into the recovery
    /// from another cut.
    pub in_open: u64,
    /// Steps that were acknowledged before the power went.
    pub acknowledged: u64,
    /// Those of them that had to be there: each was looked for.
    pub certain: u64,
    /// Steps that were acknowledged while the power went, or after.
    pub late: u64,
    /// How many of those were gone: the head of `control.rs` says why they may be.
    pub late_and_gone: u64,
    /// Steps acknowledged before the power went that were not promised to survive, and have not.
    pub gone: u64,
    /// The oldest of those was acknowledged so many microseconds before the cut.
    pub gone_age_us: u64,
    /// Children that SIGBUS ended, after the cut.
    pub bus_errors: u64,
}

/// How the steps of a run are acknowledged: which seed of `kill::options` that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// `Durability::Sync`.
    Sync,
    /// `Durability::Interval` of 2 ms.
    Interval,
    /// `Durability::Buffered`.
    Buffered,
}

impl Level {
    /// The seed next to this one whose runs are with this durability.
    pub fn seed(self, near: u64) -> u64 {
        near / 3 * 3
            + match self {
                Level::Sync => 0,
                Level::Interval => 1,
                Level::Buffered => 2,
            }
    }

    /// What its acknowledgements promise.
    pub fn promise(self) -> Promise {
        match self {
            Level::Sync => Promise::Acknowledged,
            Level::Interval => Promise::Synced,
            Level::Buffered => Promise::Copied,
        }
    }
}

/// A run of cuts.
#[derive(Debug)]
pub struct Cuts {
    image: Image,
    /// The program that writes: `power_cut`, whose first argument is the verb.
    program: PathBuf,
    seed: u64,
    promise: Promise,
    delays: Rng,
    store: Store,
    round: u64,
    tally: Tally,
}

/// The store that is being hit.
#[derive(Debug)]
struct Store {
    seed: u64,
    name: String,
    order: Order,
    /// When the power went, for the first time since the last check.
    crash: Option<Crash>,
}

impl Store {
    fn new(seed: u64, promise: Promise) -> Self {
        let name = format!("store-{seed}");
        Self { seed, name, order: Order::new(seed, promise), crash: None }
    }
}

/// When the power goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Moment {
    Opening,
    Any,
}

impl Cuts {
    /// A run of the workload of `seed`, which [`Level::seed`] makes that of a durability, held to
    /// a promise.
    ///
    /// Makes the image, mounts it once to see that this works, and cuts its power once to see that
    /// the cut cuts: what was synced must be there and what was not must be gone.
    ///
    /// # Errors
    /// Why this machine cannot.
    pub fn new(
        filesystem: Filesystem,
        program: &Path,
        seed: u64,
        promise: Promise,
    ) -> Result<Self, Refusal> {
        let image = Image::new(filesystem)?;
        prove_that_a_cut_cuts(&image)?;
        Ok(Self {
            image,
            program: program.to_path_buf(),
            seed,
            promise,
            delays: Rng::with_seed(seed),
            store: Store::new(seed, promise),
            round: 0,
            tally: Tally::default(),
        })
    }

    /// What was looked at so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// One round: a cut, perhaps another in the recovery from it, and the check.
    ///
    /// # Errors
    /// What the check found, with the seed.
    pub fn cut(&mut self) -> Result<(), String> {
        let number = self.round;
        self.round += 1;
        if number > 0 && number.is_multiple_of(ROUNDS_PER_STORE) {
            // The next with the same durability: see `kill::options`.
            self.store = Store::new(self.store.seed.wrapping_add(3), self.promise);
        }
        let before = files::scratch();
        self.cut_and_check(number, before.path()).map_err(|problem| {
            let kept = before.keep();
            format!(
                "seed {}, round {number}: {problem}\nthe store as the cut left it: {}",
                self.seed,
                kept.display()
            )
        })
    }

    fn cut_and_check(&mut self, number: u64, copy: &Path) -> Result<(), String> {
        // One in five falls into the open.
        let moment = if number % 5 == 4 { Moment::Opening } else { Moment::Any };
        self.run_and_cut(moment)?;
        // And after one in four, another into the recovery from it.
        if number % 4 == 3 {
            self.open_and_cut()?;
        }
        let mounted = self.image.mount_again();
        let dir = mounted.path().join(&self.store.name);
        if dir.is_dir() {
            files::copy_store(&dir, copy);
        }
        let checked = check_witness(mounted.path(), number)
            .and_then(|()| self.check(number, &dir))
            .and_then(|()| leave_witness(mounted.path(), number));
        if checked.is_ok() && (number + 1).is_multiple_of(ROUNDS_PER_STORE) {
            std::fs::remove_dir_all(&dir).map_err(|error| format!("removing a store: {error}"))?;
        }
        mounted.unmount();
        checked.map_err(|wrong| format!("{wrong}\n({moment:?})"))
    }

    /// Opens the store twice, the second time without its hints in one round of three.
    fn check(&mut self, number: u64, dir: &Path) -> Result<(), String> {
        let options = kill::options(self.store.seed).background_compaction(false);
        let open = || options.clone().open(dir).map_err(|error| format!("wrong: open: {error}"));
        let close = |db: pakv::Db| db.close().map_err(|error| format!("wrong: close: {error}"));
        let crash = self.store.crash.take().unwrap_or(Crash { begin: u64::MAX, end: u64::MAX });
        kill::check_files(dir).map_err(|wrong| format!("wrong: as the cut left it: {wrong}"))?;
        let db = open()?;
        let found = self.store.order.check(&db, crash)?;
        close(db)?;
        if number.is_multiple_of(3) {
            files::remove_hints(dir);
        }
        let db = open()?;
        self.store.order.check_again(&db).map_err(|wrong| format!("{wrong} (second open)"))?;
        close(db)?;
        kill::check_files(dir).map_err(|wrong| format!("wrong: closed: {wrong}"))?;
        let Found { certain, late, late_and_gone, gone, gone_age } = found;
        self.tally.certain += certain;
        self.tally.late += late;
        self.tally.late_and_gone += late_and_gone;
        self.tally.acknowledged -= late;
        self.tally.gone += gone;
        self.tally.gone_age_us = self.tally.gone_age_us.max(gone_age / 1_000);
        Ok(())
    }

    /// Lets a child write, and cuts the power under it.
    fn run_and_cut(&mut self, moment: Moment) -> Result<(), String> {
        let mounted = self.image.mount_again();
        let mut command = self.child("write", mounted.path());
        command.args(self.store.order.next_steps().map(|step| step.to_string()));
        let mut writer = Writer::start(&mut command);
        // The child says `opening`, then `open`; XFS takes a while to set up a store.
        if moment == Moment::Any {
            writer.line();
        }
        writer.line();
        let longest_us = if moment == Moment::Opening { 3_000 } else { 60_000 };
        std::thread::sleep(Duration::from_micros(self.delays.u64(..longest_us)));
        self.cut_under(mounted, writer, moment)
    }

    /// Lets a child open the store, and cuts the power while it does. It writes nothing of its own,
    /// so what may be in flight stays what it was.
    fn open_and_cut(&mut self) -> Result<(), String> {
        let mounted = self.image.mount_again();
        let writer = Writer::start(&mut self.child("hold", mounted.path()));
        // From the start of the process on, which itself takes about a millisecond.
        std::thread::sleep(Duration::from_micros(self.delays.u64(500..6_000)));
        self.cut_under(mounted, writer, Moment::Opening)
    }

    fn cut_under(
        &mut self,
        mounted: Mounted,
        mut writer: Writer,
        moment: Moment,
    ) -> Result<(), String> {
        let ended_before = writer.has_ended();
        let crash = mounted.cut_power();
        self.store.crash.get_or_insert(crash);
        // Half of them may go on for a while on a file system that is gone.
        if self.delays.bool() {
            std::thread::sleep(Duration::from_micros(self.delays.u64(..5_000)));
        }
        let ended = writer.kill();
        mounted.unmount();
        self.tally.cuts += 1;
        self.tally.in_open += u64::from(moment == Moment::Opening);
        self.tally.bus_errors += u64::from(ended.signal() == Some(libc::SIGBUS));
        for said in ended.lines.iter().filter_map(|line| heard(line)) {
            self.tally.acknowledged += u64::from(matches!(said, Said::Step { .. }));
            self.store.order.take(said)?;
        }
        ended.is_legal(self.promise == Promise::Copied)?;
        if ended_before {
            return Err(format!("the child ended before the cut: {}", ended.errors));
        }
        Ok(())
    }

    fn child(&self, verb: &str, mount_point: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).arg(mount_point.join(&self.store.name));
        command.arg(self.store.seed.to_string());
        command
    }
}

const WITNESS: &str = "witness";

/// Writes and syncs a file beside the store, by none of its code, at the end of a round.
fn leave_witness(mount_point: &Path, round: u64) -> Result<(), String> {
    let temporary = mount_point.join("witness.new");
    let write = || {
        std::fs::write(&temporary, round.to_string())?;
        File::open(&temporary)?.sync_all()?;
        std::fs::rename(&temporary, mount_point.join(WITNESS))?;
        File::open(mount_point)?.sync_all()
    };
    write().map_err(|error: std::io::Error| format!("the witness: {error}"))
}

/// The file must be as the round before left it. Where it is not, the file system has lost what was
/// durable, and what the store has lost says nothing about it.
fn check_witness(mount_point: &Path, round: u64) -> Result<(), String> {
    let expected = round.checked_sub(1).map(|last| last.to_string());
    let found = std::fs::read_to_string(mount_point.join(WITNESS)).ok();
    match found == expected {
        true => Ok(()),
        false => Err(format!(
            "no fault of the store: the file system has gone back behind the last round, whose \
             synced file is {found:?} and was {expected:?}"
        )),
    }
}

/// What was synced must be there after a cut and what was not must be gone.
pub(super) fn prove_that_a_cut_cuts(image: &Image) -> Result<(), Refusal> {
    use std::io::Write as _;
    let written = |path: PathBuf| -> std::io::Result<std::fs::File> {
        let mut file = std::fs::File::create(path)?;
        file.write_all(b"content")?;
        Ok(file)
    };
    let mounted = image.mount("")?;
    let root = std::fs::File::open(mounted.path()).map_err(|error| Refusal::new(error.to_string()));
    written(mounted.path().join("synced"))
        .and_then(|file| file.sync_all())
        .and_then(|()| root.map_err(|why| std::io::Error::other(why.to_string()))?.sync_all())
        .and_then(|()| written(mounted.path().join("unsynced")).map(drop))
        .map_err(|error| Refusal::new(format!("a new file system cannot be written: {error}")))?;
    mounted.cut_power();
    mounted.unmount();
    let mounted = image.mount("")?;
    let synced = std::fs::read(mounted.path().join("synced"));
    assert_eq!(synced.ok().as_deref(), Some(&b"content"[..]), "a cut keeps what was synced");
    assert!(!mounted.path().join("unsynced").exists(), "a cut takes what was not synced");
    mounted.unmount();
    Ok(())
}
