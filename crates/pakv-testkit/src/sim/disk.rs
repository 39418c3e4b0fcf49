//! What is on a simulated disk and what is only in the page cache above it. Pure data.
//!
//! A file is an inode: it lives as long as a name or a handle leads to it. Its `live` bytes are
//! what reads see; its `durable` bytes are what a power cut leaves at least; `pending` is what was
//! done to it since its last sync, in order. The directory has the same three: entries that are
//! seen, entries that are durable, operations since the last sync of the directory.
//!
//! Invariant: `durable` with all of `pending` applied is `live`, except where a failed sync dropped
//! pending writes: those are in `live` alone, as on Linux, and reach the disk only if they are
//! written again.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

pub(crate) type InodeId = u64;
pub(crate) type Entries = BTreeMap<String, InodeId>;

/// Something done to a file's bytes.
#[derive(Debug, Clone)]
pub(crate) enum FileOp {
    Write { offset: usize, bytes: Arc<[u8]> },
    SetLen(usize),
}

impl FileOp {
    pub(crate) fn apply(&self, file: &mut Vec<u8>) {
        match self {
            FileOp::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if file.len() < end {
                    file.resize(end, 0);
                }
                file[*offset..end].copy_from_slice(bytes);
            }
            FileOp::SetLen(len) => file.resize(*len, 0),
        }
    }

    /// The length of a file of `len` bytes after this.
    pub(crate) fn len_after(&self, len: usize) -> usize {
        match self {
            FileOp::Write { offset, bytes } => len.max(offset + bytes.len()),
            FileOp::SetLen(new_len) => *new_len,
        }
    }
}

/// Something done to the directory.
#[derive(Debug, Clone)]
pub(crate) enum DirOp {
    Link { name: String, inode: InodeId },
    Unlink { name: String },
    Rename { from: String, to: String, inode: InodeId },
}

impl DirOp {
    pub(crate) fn apply(&self, entries: &mut Entries) {
        match self {
            DirOp::Link { name, inode } => {
                entries.insert(name.clone(), *inode);
            }
            DirOp::Unlink { name } => {
                entries.remove(name);
            }
            DirOp::Rename { from, to, inode } => {
                if entries.get(from) == Some(inode) {
                    entries.remove(from);
                }
                entries.insert(to.clone(), *inode);
            }
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Inode {
    pub(crate) live: Vec<u8>,
    pub(crate) durable: Vec<u8>,
    pub(crate) pending: Vec<FileOp>,
}

impl Inode {
    /// A file that is on the disk as it is.
    pub(crate) fn settled(bytes: Vec<u8>) -> Self {
        Self { live: bytes.clone(), durable: bytes, pending: Vec::new() }
    }

    pub(crate) fn change(&mut self, op: FileOp) {
        op.apply(&mut self.live);
        self.pending.push(op);
    }

    pub(crate) fn sync(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    /// A sync that failed: what `keep` does not choose is forgotten by the operating system, which
    /// believes it written. Reads go on seeing it.
    pub(crate) fn sync_and_drop(&mut self, mut keep: impl FnMut() -> bool) {
        for op in self.pending.drain(..) {
            if keep() {
                op.apply(&mut self.durable);
            }
        }
    }

    /// The page cache gives up its clean pages: what a failed sync dropped is gone from reads too.
    pub(crate) fn evict(&mut self) {
        self.live = self.durable.clone();
        for op in &self.pending {
            op.apply(&mut self.live);
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) exists: bool,
    pub(crate) inodes: BTreeMap<InodeId, Inode>,
    pub(crate) live: Entries,
    pub(crate) durable: Entries,
    pub(crate) pending: Vec<DirOp>,
    /// What removed files held, oldest first: their blocks are free, and not wiped.
    pub(crate) ghosts: Vec<Arc<[u8]>>,
    next_inode: InodeId,
}

/// So many removed files leave blocks that are not yet used again.
const GHOSTS_MAX: usize = 12;

impl Disk {
    pub(crate) fn create(&mut self, name: &str) -> InodeId {
        let inode = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        self.change(DirOp::Link { name: name.to_string(), inode });
        inode
    }

    /// Gives a file of another directory a name here. It is as durable as it was there.
    pub(crate) fn adopt(&mut self, name: &str, file: Inode) {
        let inode = self.create(name);
        self.inodes.insert(inode, file);
    }

    pub(crate) fn change(&mut self, op: DirOp) {
        if let DirOp::Unlink { name } = &op
            && let Some(file) = self.file(name)
        {
            let ghost = Arc::from(file.live.as_slice());
            self.ghosts.push(ghost);
            let extra = self.ghosts.len().saturating_sub(GHOSTS_MAX);
            self.ghosts.drain(..extra);
        }
        op.apply(&mut self.live);
        self.pending.push(op);
    }

    pub(crate) fn sync_dir(&mut self) {
        for op in self.pending.drain(..) {
            op.apply(&mut self.durable);
        }
    }

    pub(crate) fn inode_mut(&mut self, inode: InodeId) -> &mut Inode {
        self.inodes.entry(inode).or_default()
    }

    pub(crate) fn file(&self, name: &str) -> Option<&Inode> {
        self.inodes.get(self.live.get(name)?)
    }

    /// The bytes of all files that have a name.
    pub(crate) fn used_bytes(&self) -> usize {
        self.live.values().filter_map(|id| self.inodes.get(id)).map(|inode| inode.live.len()).sum()
    }

    /// The disk of a machine that starts with these files, all of them durable.
    pub(crate) fn restarted(&self, entries: Entries, inodes: BTreeMap<InodeId, Inode>) -> Self {
        let next_inode = self.next_inode;
        let durable = entries.clone();
        Self {
            exists: self.exists,
            inodes,
            live: entries,
            durable,
            pending: Vec::new(),
            ghosts: self.ghosts.clone(),
            next_inode,
        }
    }

    /// Tells states apart. Made of live names and bytes.
    pub(crate) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for (name, id) in &self.live {
            name.hash(&mut hasher);
            self.inodes.get(id).map(|inode| &inode.live).hash(&mut hasher);
        }
        hasher.finish()
    }
}
