//! What a crash leaves of a disk: the choice among everything that could legally be left.
//!
//! **A file** keeps its durable bytes, and of its pending operations any prefix, any subset, or of
//! each sector any version it had: disks write sectors of 512 bytes whole and in any order. The
//! length is metadata of its own: any length that the file had since its last sync, whatever of its
//! bytes arrived. Bytes within the length that did not arrive are zeros, or what the blocks held
//! before: bytes of other files, or noise. A file's own former bytes never come back past a cut
//! that was synced: file systems zero the rest of a cut block and hand out no block unwritten
//! within one file; the engine relies on it.
//!
//! **The directory**, by [`CrashMode`]:
//! - `Ext4`: its operations reach the disk in their order; a prefix survives.
//! - `Posix`: any subset survives, applied in order. Every such state gives each name something
//!   that it led to since the last sync, and a rename is atomic: it happened for both of its names
//!   or for neither. A rename whose create was lost still leads to its file: then the create cannot
//!   have been lost.
//! - `Kill`: only the process died. The page cache lives on, pending operations stay pending, and a
//!   later power cut may yet take them. What a failed sync dropped may go from the page cache at
//!   any time, and does in half of the files.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::disk::{Disk, Entries, FileOp, Inode};

const SECTOR: usize = 512;

/// How a machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashMode {
    /// Power is cut; the directory's operations survive in order.
    Ext4,
    /// Power is cut; any of the directory's operations survive.
    Posix,
    /// The process is killed; the machine runs on.
    Kill,
}

/// One of the disks that could be found after a crash.
pub(crate) fn crash(disk: &Disk, mode: CrashMode, rng: &mut Rng) -> Disk {
    if mode == CrashMode::Kill {
        let mut disk = disk.clone();
        for inode in disk.inodes.values_mut() {
            if rng.bool() {
                inode.evict();
            }
        }
        return disk;
    }
    let entries = surviving_entries(disk, mode, rng);
    let mut inodes = BTreeMap::new();
    for id in entries.values() {
        if let Some(inode) = disk.inodes.get(id) {
            inodes.insert(*id, Inode::settled(surviving_bytes(disk, inode, rng)));
        }
    }
    disk.restarted(entries, inodes)
}

fn surviving_entries(disk: &Disk, mode: CrashMode, rng: &mut Rng) -> Entries {
    let mut entries = disk.durable.clone();
    let count = disk.pending.len();
    let style = rng.u8(0..6);
    // A prefix, or the one operation that is lost or kept alone.
    let chosen = rng.usize(0..=count);
    for (index, op) in disk.pending.iter().enumerate() {
        let survives = match (style, mode) {
            (0, _) => false,
            (1, _) => true,
            (_, CrashMode::Ext4) => index < chosen,
            (2, _) => index == chosen,
            (3, _) => index != chosen,
            (4, _) => index >= chosen,
            _ => rng.bool(),
        };
        if survives {
            op.apply(&mut entries);
        }
    }
    entries
}

fn surviving_bytes(disk: &Disk, inode: &Inode, rng: &mut Rng) -> Vec<u8> {
    let pending = &inode.pending;
    if pending.is_empty() {
        return inode.durable.clone();
    }
    let lens: Vec<usize> = std::iter::once(inode.durable.len())
        .chain(pending.iter().scan(inode.durable.len(), |len, op| {
            *len = op.len_after(*len);
            Some(*len)
        }))
        .collect();
    let len_max = lens.iter().copied().max().unwrap_or(0);
    let mut bytes = inode.durable.clone();
    let fill_from = bytes.len();
    bytes.resize(len_max, 0);
    if rng.u8(0..4) == 0 {
        fill_with_stale(disk, &mut bytes, fill_from, rng);
    }
    let style = rng.u8(0..7);
    let chosen = rng.usize(0..pending.len());
    let mut len = inode.durable.len();
    if style == 6 {
        sectors_of_any_time(inode, &mut bytes, rng);
        len = lens[rng.usize(0..lens.len())];
    } else {
        for (index, op) in pending.iter().enumerate() {
            let (survives, torn) = match style {
                0 => (false, false),
                1 => (true, false),
                2 => (index <= chosen, index == chosen),
                3 => (index != chosen, false),
                4 => (true, index == chosen),
                _ => (rng.bool(), rng.bool()),
            };
            if survives {
                keep(op, torn, &mut bytes, rng);
                len = op.len_after(len);
            }
        }
        if rng.u8(0..4) == 0 {
            len = lens[rng.usize(0..lens.len())];
        }
    }
    bytes.truncate(len);
    bytes
}

/// Lays what survives of one operation into bytes that are long enough for every operation.
fn keep(op: &FileOp, torn: bool, bytes: &mut [u8], rng: &mut Rng) {
    match op {
        // A cut that is followed by an extension leaves zeros.
        FileOp::SetLen(len) => bytes[*len..].fill(0),
        FileOp::Write { offset, bytes: written } if !torn => {
            bytes[*offset..offset + written.len()].copy_from_slice(written);
        }
        FileOp::Write { offset, bytes: written } => {
            let (first, last) = (offset / SECTOR, (offset + written.len()) / SECTOR);
            let (style, cut) = (rng.u8(0..3), rng.usize(first..=last));
            for sector in first..=last {
                let survives = match style {
                    0 => sector < cut,
                    1 => sector >= cut,
                    _ => rng.bool(),
                };
                let start = (sector * SECTOR).max(*offset);
                let end = ((sector + 1) * SECTOR).min(offset + written.len());
                if survives && start < end {
                    bytes[start..end].copy_from_slice(&written[start - offset..end - offset]);
                }
            }
        }
    }
}

/// Each sector as it was after some number of the pending operations, one not knowing of the other.
fn sectors_of_any_time(inode: &Inode, bytes: &mut [u8], rng: &mut Rng) {
    let count = inode.pending.len();
    let times: Vec<usize> = bytes
        .chunks(SECTOR)
        .map(|_| if rng.bool() { count } else { rng.usize(0..=count) })
        .collect();
    for (index, op) in inode.pending.iter().enumerate() {
        for (sector, time) in times.iter().enumerate() {
            if index >= *time {
                continue;
            }
            let (start, end) = (sector * SECTOR, ((sector + 1) * SECTOR).min(bytes.len()));
            match op {
                FileOp::SetLen(len) => bytes[(*len).clamp(start, end)..end].fill(0),
                FileOp::Write { offset, bytes: written } => {
                    let from = start.max(*offset);
                    let to = end.min(offset + written.len());
                    if from < to {
                        bytes[from..to].copy_from_slice(&written[from - offset..to - offset]);
                    }
                }
            }
        }
    }
}

/// What blocks held before they were this file's: another file's bytes of the same place, or noise.
fn fill_with_stale(disk: &Disk, bytes: &mut [u8], from: usize, rng: &mut Rng) {
    let files = disk.inodes.values().map(|inode| inode.durable.as_slice());
    let others: Vec<&[u8]> = files.chain(disk.ghosts.iter().map(|ghost| &**ghost)).collect();
    let other = others[rng.usize(0..others.len())];
    let noise = rng.bool();
    for (offset, byte) in bytes.iter_mut().enumerate().skip(from) {
        // Its own bytes are not past `from`: `durable` ends there.
        *byte = if noise { rng.u8(..) } else { other.get(offset).copied().unwrap_or(0) };
    }
}
