//! `SimStorage`: the engine's `Storage` on a simulated machine.
//!
//! Every call passes one gate. There it is counted and logged, and there power goes off, a fault
//! strikes or a signal interrupts. The call at which power goes off still leaves its operation
//! pending, so that a crash may find it done or not. After that every call fails and changes
//! nothing.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use fastrand::Rng;
use pakv::storage::{Lock, LockGuard, Mapped, Mapping, PathKind, Storage, StorageFile};
use parking_lot::{Mutex, MutexGuard};

use super::crash::{CrashMode, crash};
use super::disk::{DirOp, Disk, FileOp, Inode, InodeId};
use super::fault::{CallKind, Effect, Fault, FaultError};

/// One call, as the log has it.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its place among all calls to the machine.
    pub index: u64,
    /// What was called.
    pub kind: CallKind,
    /// On which file; empty for the directory.
    pub name: String,
    /// Offset and length in bytes, where the call has them.
    pub range: (u64, usize),
    /// What was done to it.
    pub outcome: Outcome,
}

/// What was done to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// Power went off in it.
    PowerOff,
    /// A fault struck.
    Fault(Effect),
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { index, kind, name, range: (offset, len), outcome } = self;
        write!(f, "{index:5} {kind:?} {name} {offset}+{len}")?;
        if *outcome != Outcome::Done { write!(f, " {outcome:?}") } else { Ok(()) }
    }
}

/// A directory on a simulated machine. Its clones are the same directory.
#[derive(Debug, Clone)]
pub struct SimStorage {
    machine: Arc<Mutex<Machine>>,
}

#[derive(Debug)]
struct Machine {
    disk: Disk,
    rng: Rng,
    calls: u64,
    log: Vec<Call>,
    power_off_at: Option<u64>,
    is_off: bool,
    fault: Option<Fault>,
    fired: Vec<(CallKind, Effect)>,
    hiccups: bool,
    /// How many bytes all files together may have.
    space: usize,
    locked: bool,
    /// The other directory of the same file system.
    linked: Option<SimStorage>,
    maps: Vec<Weak<SimMap>>,
    violations: Vec<String>,
}

/// What the gate lets a call do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Go,
    /// Do it, but it is the last thing that is done.
    Last,
    Short,
    Fail(FaultError),
}

/// A mapping: a view of the page cache, like reads, but without a call that could fail. What is
/// settled must not change and must be there, which the machine watches.
struct SimMap {
    machine: Arc<Mutex<Machine>>,
    inode: InodeId,
    name: String,
    reach: u64,
    settled: AtomicU64,
}

impl fmt::Debug for SimMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimMap({})", self.name)
    }
}

impl SimMap {
    fn note(&self, machine: &mut Machine, what: &str, end: u64) {
        machine.violations.push(format!("{} is {what} {end}, where it does not reach", self.name));
    }
}

impl Mapped for SimMap {
    fn reach(&self) -> u64 {
        self.reach
    }

    fn settle(&self, end: u64) {
        let mut machine = lock(&self.machine);
        if end > machine.disk.inode_mut(self.inode).live.len() as u64 {
            self.note(&mut machine, "settled up to", end);
        }
        self.settled.fetch_max(end, Ordering::Relaxed);
    }

    fn bytes(&self, offset: u64, len: usize) -> Option<Cow<'_, [u8]>> {
        let end = offset.checked_add(len as u64)?;
        if end > self.reach.min(self.settled.load(Ordering::Relaxed)) {
            return None;
        }
        let mut machine = lock(&self.machine);
        let range = to_usize(offset).ok()?..to_usize(end).ok()?;
        let bytes = machine.disk.inode_mut(self.inode).live.get(range).map(<[u8]>::to_vec);
        if bytes.is_none() {
            // On a real machine that is SIGBUS.
            self.note(&mut machine, "touched up to", end);
        }
        bytes.map(Cow::Owned)
    }
}

/// The message of an error after the power went off.
const POWER_OFF: &str = "the simulated machine is off";

impl SimStorage {
    /// A machine whose disk is empty. `seed` decides what faults do.
    pub fn new(seed: u64) -> Self {
        Self::from_disk(Disk::default(), seed)
    }

    fn from_disk(disk: Disk, seed: u64) -> Self {
        let machine = Machine {
            disk,
            rng: Rng::with_seed(seed),
            calls: 0,
            log: Vec::new(),
            power_off_at: None,
            is_off: false,
            fault: None,
            fired: Vec::new(),
            hiccups: false,
            space: usize::MAX,
            locked: false,
            linked: None,
            maps: Vec::new(),
            violations: Vec::new(),
        };
        Self { machine: Arc::new(Mutex::new(machine)) }
    }

    /// The machine after a crash, restarted: one of the states that could be found, chosen by
    /// `seed`. This one stays as it is; it should be off.
    #[must_use]
    pub fn crash(&self, seed: u64, mode: CrashMode) -> Self {
        let disk = crash(&self.machine().disk, mode, &mut Rng::with_seed(seed));
        Self::from_disk(disk, seed)
    }

    /// Another machine with the same disk, restarted. No lock is held there.
    #[must_use]
    pub fn copy(&self, seed: u64) -> Self {
        Self::from_disk(self.machine().disk.clone(), seed)
    }

    /// How many calls there were.
    pub fn calls(&self) -> u64 {
        self.machine().calls
    }

    /// The log of all calls.
    pub fn log(&self) -> Vec<Call> {
        self.machine().log.clone()
    }

    /// Power goes off in the call after `calls` more.
    pub fn power_off_after(&self, calls: u64) {
        let mut machine = self.machine();
        machine.power_off_at = Some(machine.calls + calls);
    }

    /// Power goes off now.
    pub fn power_off(&self) {
        self.machine().is_off = true;
    }

    /// Whether it has.
    pub fn is_off(&self) -> bool {
        self.machine().is_off
    }

    /// Sets the fault, or takes it away.
    pub fn set_fault(&self, fault: Option<Fault>) {
        self.machine().fault = fault;
    }

    /// The calls that a fault struck, hiccups aside.
    pub fn fired(&self) -> Vec<(CallKind, Effect)> {
        self.machine().fired.clone()
    }

    /// Whether reads and writes are sometimes short or interrupted, as an operating system may have
    /// it.
    pub fn set_hiccups(&self, on: bool) {
        self.machine().hiccups = on;
    }

    /// The size of the disk in bytes.
    pub fn set_space(&self, bytes: usize) {
        self.machine().space = bytes;
    }

    /// Files here can be given names there, as on one file system.
    pub fn link_into(&self, other: &SimStorage) {
        self.machine().linked = Some(other.clone());
    }

    /// The bytes that all files together have.
    pub fn used_bytes(&self) -> usize {
        self.machine().disk.used_bytes()
    }

    /// What the engine did that no user of a storage may do.
    pub fn violations(&self) -> Vec<String> {
        self.machine().violations.clone()
    }

    /// The names in the directory, without a call.
    pub fn names(&self) -> Vec<String> {
        self.machine().disk.live.keys().cloned().collect()
    }

    /// The length of a file, without a call.
    pub fn file_len(&self, name: &str) -> Option<usize> {
        self.machine().disk.file(name).map(|inode| inode.live.len())
    }

    /// Flips a bit of a file on the disk, as a failing disk does. Says whether there was such a
    /// byte.
    pub fn flip(&self, name: &str, offset: usize, bit: u8) -> bool {
        let mut machine = self.machine();
        let Some(id) = machine.disk.live.get(name).copied() else { return false };
        let inode = machine.disk.inode_mut(id);
        for bytes in [&mut inode.live, &mut inode.durable] {
            match bytes.get_mut(offset) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => return false,
            }
        }
        true
    }

    /// Removes files from the disk behind everybody's back.
    pub fn erase(&self, mut which: impl FnMut(&str) -> bool) {
        let mut machine = self.machine();
        machine.disk.live.retain(|name, _| !which(name));
        machine.disk.durable = machine.disk.live.clone();
    }

    /// Makes one removal durable at once, ahead of everything that is pending. For storages that
    /// lie.
    pub(crate) fn remove_durably(&self, name: &str) {
        self.machine().disk.durable.remove(name);
    }

    /// Tells states of the disk apart.
    pub fn fingerprint(&self) -> u64 {
        self.machine().disk.fingerprint()
    }

    fn machine(&self) -> MutexGuard<'_, Machine> {
        lock(&self.machine)
    }

    fn handle(&self, name: &str, inode: InodeId, writable: bool) -> Arc<dyn StorageFile> {
        let machine = self.machine.clone();
        Arc::new(SimFile { machine, inode, name: name.to_string(), writable })
    }

    /// A call on the directory that is carried out whole or not at all.
    fn simple(&self, kind: CallKind, name: &str) -> io::Result<(MutexGuard<'_, Machine>, Gate)> {
        let mut machine = self.machine();
        match machine.gate(kind, name, (0, 0))? {
            Gate::Fail(error) => Err(error.to_error()),
            gate => Ok((machine, gate)),
        }
    }
}

fn lock(machine: &Mutex<Machine>) -> MutexGuard<'_, Machine> {
    machine.lock()
}

fn off() -> io::Error {
    io::Error::other(POWER_OFF)
}

/// The result of a call that went well, unless power went off in it.
fn unless_last<T>(gate: Gate, value: T) -> io::Result<T> {
    if gate == Gate::Last { Err(off()) } else { Ok(value) }
}

impl Machine {
    fn gate(&mut self, kind: CallKind, name: &str, range: (u64, usize)) -> io::Result<Gate> {
        if self.is_off {
            return Err(off());
        }
        let index = self.calls;
        self.calls += 1;
        let mut outcome = Outcome::Done;
        let mut gate = Gate::Go;
        if self.power_off_at == Some(index) {
            self.is_off = true;
            outcome = Outcome::PowerOff;
            gate = Gate::Last;
        } else if let Some(effect) = self.fault_for(kind) {
            outcome = Outcome::Fault(effect);
            gate = match effect {
                Effect::Error(error) => Gate::Fail(error),
                Effect::Short => Gate::Short,
            };
        } else if self.hiccups
            && matches!(kind, CallKind::Read | CallKind::Write)
            && self.rng.u8(0..8) == 0
        {
            gate = if self.rng.bool() { Gate::Short } else { Gate::Fail(FaultError::Interrupted) };
        }
        self.log.push(Call { index, kind, name: name.to_string(), range, outcome });
        Ok(gate)
    }

    fn fault_for(&mut self, kind: CallKind) -> Option<Effect> {
        let fault = self.fault.as_mut()?;
        let is_due = fault.after == 0 && fault.kind.is_none_or(|wanted| wanted == kind);
        let effect = fault.meets(kind);
        if is_due && !fault.forever {
            self.fault = None;
        }
        self.fired.extend(effect.map(|effect| (kind, effect)));
        effect
    }

    fn change_file(&mut self, inode: InodeId, name: &str, op: FileOp) {
        let changed_from = match &op {
            FileOp::Write { offset, .. } => *offset as u64,
            FileOp::SetLen(len) => *len as u64,
        };
        self.maps.retain(|map| map.strong_count() > 0);
        let shows = |map: Arc<SimMap>| {
            map.inode == inode && changed_from < map.settled.load(Ordering::Relaxed)
        };
        if self.maps.iter().filter_map(Weak::upgrade).any(shows) {
            self.violations.push(format!("{name} is changed at {changed_from} while it is mapped"));
        }
        self.disk.inode_mut(inode).change(op);
    }
}

impl Storage for SimStorage {
    fn path(&self) -> &Path {
        Path::new("/sim")
    }

    fn kind(&self) -> io::Result<PathKind> {
        let (machine, gate) = self.simple(CallKind::Kind, "")?;
        let exists = machine.disk.exists;
        unless_last(gate, if exists { PathKind::Directory } else { PathKind::Absent })
    }

    fn create_dir(&self) -> io::Result<()> {
        let (mut machine, gate) = self.simple(CallKind::CreateDir, "")?;
        // Durable when it returns, says the trait; in a crash it is there or not.
        machine.disk.exists |= gate == Gate::Go || machine.rng.bool();
        unless_last(gate, ())
    }

    fn list(&self) -> io::Result<Vec<OsString>> {
        let (machine, gate) = self.simple(CallKind::List, "")?;
        unless_last(gate, machine.disk.live.keys().map(OsString::from).collect())
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn StorageFile>> {
        let (mut machine, gate) = self.simple(CallKind::Create, name)?;
        if !machine.disk.exists {
            return Err(io::ErrorKind::NotFound.into());
        }
        if machine.disk.live.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = machine.disk.create(name);
        drop(machine);
        unless_last(gate, self.handle(name, inode, true))
    }

    fn open(&self, name: &str, writable: bool) -> io::Result<Arc<dyn StorageFile>> {
        let (machine, gate) = self.simple(CallKind::Open, name)?;
        let inode = machine.disk.live.get(name).copied();
        drop(machine);
        let inode = inode.ok_or(io::ErrorKind::NotFound)?;
        unless_last(gate, self.handle(name, inode, writable))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let (mut machine, gate) = self.simple(CallKind::Rename, from)?;
        let inode = machine.disk.live.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        let (from, to) = (from.to_string(), to.to_string());
        machine.disk.change(DirOp::Rename { from, to, inode });
        unless_last(gate, ())
    }

    /// Both have what the file held now: whoever links does not change it any more.
    fn link(&self, name: &str, _: &Path, to: &str) -> io::Result<()> {
        let Some(other) = self.machine().linked.clone() else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let (machine, gate) = self.simple(CallKind::Link, name)?;
        let file = machine.disk.file(name).cloned();
        drop(machine);
        unless_last(gate, ())?;
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let (mut there, gate) = other.simple(CallKind::Link, to)?;
        if there.disk.live.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        there.disk.adopt(to, file);
        unless_last(gate, ())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let (mut machine, gate) = self.simple(CallKind::Remove, name)?;
        if !machine.disk.live.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        machine.disk.change(DirOp::Unlink { name: name.to_string() });
        unless_last(gate, ())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let (mut machine, gate) = self.simple(CallKind::SyncDir, "")?;
        // In a crash some of it may have arrived: it stays pending, which says just that.
        if gate == Gate::Go {
            machine.disk.sync_dir();
        }
        unless_last(gate, ())
    }

    fn lock(&self, name: &str) -> io::Result<Lock> {
        let (mut machine, gate) = self.simple(CallKind::Lock, name)?;
        if machine.locked {
            return unless_last(gate, Lock::Held(Some(1)));
        }
        let inode = match machine.disk.live.get(name) {
            Some(inode) => *inode,
            None => machine.disk.create(name),
        };
        let pid: Arc<[u8]> = Arc::from(*b"1\n");
        machine.change_file(inode, name, FileOp::SetLen(0));
        machine.change_file(inode, name, FileOp::Write { offset: 0, bytes: pid });
        machine.locked = gate == Gate::Go;
        drop(machine);
        let held = Held { machine: self.machine.clone() };
        unless_last(gate, ()).map(|()| Lock::Acquired(LockGuard::new(held)))
    }
}

/// The lock of a machine while it is held.
#[derive(Debug)]
struct Held {
    machine: Arc<Mutex<Machine>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        lock(&self.machine).locked = false;
    }
}

struct SimFile {
    machine: Arc<Mutex<Machine>>,
    inode: InodeId,
    name: String,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({})", self.name)
    }
}

impl SimFile {
    fn gate(
        &self,
        kind: CallKind,
        range: (u64, usize),
    ) -> io::Result<(MutexGuard<'_, Machine>, Gate)> {
        let mut machine = lock(&self.machine);
        if kind.is_write() && !self.writable {
            machine.violations.push(format!("{kind:?} of {}, open for reading", self.name));
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let gate = machine.gate(kind, &self.name, range)?;
        Ok((machine, gate))
    }

    fn inode<'a>(&self, machine: &'a mut Machine) -> &'a mut Inode {
        machine.disk.inode_mut(self.inode)
    }
}

impl StorageFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        let (mut machine, gate) = self.gate(CallKind::Len, (0, 0))?;
        match gate {
            Gate::Fail(error) => Err(error.to_error()),
            gate => unless_last(gate, self.inode(&mut machine).live.len() as u64),
        }
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let (mut machine, gate) = self.gate(CallKind::Read, (offset, buffer.len()))?;
        let live = &self.inode(&mut machine).live;
        let start = to_usize(offset)?.min(live.len());
        let mut count = buffer.len().min(live.len() - start);
        match gate {
            Gate::Fail(error) => return Err(error.to_error()),
            Gate::Last => return Err(off()),
            Gate::Short if count > 1 => count = 1 + machine.rng.usize(0..count - 1),
            Gate::Short | Gate::Go => {}
        }
        buffer[..count].copy_from_slice(&self.inode(&mut machine).live[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        let (mut machine, gate) = self.gate(CallKind::Write, (offset, buffer.len()))?;
        let offset = to_usize(offset)?;
        let mut count = buffer.len();
        match gate {
            // A signal comes before anything is written, or else the write is short.
            Gate::Fail(FaultError::Interrupted) => count = 0,
            Gate::Fail(_) => count = machine.rng.usize(0..=count),
            Gate::Short if count > 1 => count = 1 + machine.rng.usize(0..count - 1),
            Gate::Short | Gate::Go | Gate::Last => {}
        }
        let growth = (offset + count).saturating_sub(self.inode(&mut machine).live.len());
        let free = machine.space.saturating_sub(machine.disk.used_bytes());
        let missing = growth.saturating_sub(free).min(count);
        count -= missing;
        if missing > 0 {
            machine.fired.push((CallKind::Write, Effect::Error(FaultError::NoSpace)));
        }
        if count > 0 {
            let bytes = Arc::from(&buffer[..count]);
            machine.change_file(self.inode, &self.name, FileOp::Write { offset, bytes });
        }
        match gate {
            Gate::Fail(error) => Err(error.to_error()),
            _ if count == 0 && !buffer.is_empty() => Err(FaultError::NoSpace.to_error()),
            gate => unless_last(gate, count),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let (mut machine, gate) = self.gate(CallKind::SetLen, (len, 0))?;
        if let Gate::Fail(error) = gate {
            return Err(error.to_error());
        }
        machine.change_file(self.inode, &self.name, FileOp::SetLen(to_usize(len)?));
        unless_last(gate, ())
    }

    fn sync(&self) -> io::Result<()> {
        let (mut machine, gate) = self.gate(CallKind::Sync, (0, 0))?;
        match gate {
            Gate::Fail(error) => {
                // Everything is dropped, or whatever was in the pages that failed.
                let all = machine.rng.bool();
                let mut rng = machine.rng.fork();
                self.inode(&mut machine).sync_and_drop(|| !all && rng.bool());
                // As on a real machine, nothing is read through a mapping of it any more.
                let maps = machine.maps.iter().filter_map(Weak::upgrade);
                let of_it: Vec<_> = maps.filter(|map| map.inode == self.inode).collect();
                of_it.iter().for_each(|map| map.settled.store(0, Ordering::Relaxed));
                Err(error.to_error())
            }
            // In a crash some of it may have arrived: it stays pending, which says just that.
            Gate::Last => Err(off()),
            Gate::Go | Gate::Short => {
                self.inode(&mut machine).sync();
                Ok(())
            }
        }
    }

    /// Grows the file, where there is space; now and then it does that and says no.
    fn prepare(&self, offset: u64, len: u64) -> bool {
        let Ok((mut machine, gate)) = self.gate(CallKind::Prepare, (offset + len, 0)) else {
            return false;
        };
        let Ok(end) = to_usize(offset + len) else { return false };
        let growth = end.saturating_sub(self.inode(&mut machine).live.len());
        let has_space = growth <= machine.space.saturating_sub(machine.disk.used_bytes());
        if growth == 0 || !has_space || !matches!(gate, Gate::Go | Gate::Last) {
            return false;
        }
        machine.change_file(self.inode, &self.name, FileOp::SetLen(end));
        gate == Gate::Go && machine.rng.u8(0..8) > 0
    }

    fn map(&self, len: u64) -> io::Result<Mapping> {
        let (mut machine, gate) = self.gate(CallKind::Map, (0, to_usize(len)?))?;
        if let Gate::Fail(error) = gate {
            return Err(error.to_error());
        }
        let map = Arc::new(SimMap {
            machine: self.machine.clone(),
            inode: self.inode,
            name: self.name.clone(),
            reach: len,
            settled: AtomicU64::new(0),
        });
        machine.maps.push(Arc::downgrade(&map));
        unless_last(gate, map as Mapping)
    }
}

fn to_usize(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge.into())
}
