//! Faults: which call fails, how often and how.

use std::io;

/// The kinds of call that a storage gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names of the calls, in the words of the trait")]
pub enum CallKind {
    Kind,
    CreateDir,
    List,
    Create,
    Open,
    Len,
    Read,
    Write,
    SetLen,
    Prepare,
    Sync,
    Map,
    Link,
    Rename,
    Remove,
    SyncDir,
    Lock,
}

impl CallKind {
    /// All that an open store makes; a backup alone links.
    pub const ALL: [Self; 16] = [
        Self::Kind,
        Self::CreateDir,
        Self::List,
        Self::Create,
        Self::Open,
        Self::Len,
        Self::Read,
        Self::Write,
        Self::SetLen,
        Self::Prepare,
        Self::Sync,
        Self::Map,
        Self::Rename,
        Self::Remove,
        Self::SyncDir,
        Self::Lock,
    ];

    /// Whether the call changes what is on the disk or says that it is there.
    pub fn is_write(self) -> bool {
        matches!(
            self,
            Self::CreateDir
                | Self::Create
                | Self::Write
                | Self::SetLen
                | Self::Prepare
                | Self::Sync
                | Self::Link
                | Self::Rename
                | Self::Remove
                | Self::SyncDir
                | Self::Lock
        )
    }

    /// Whether the call can find the disk full.
    fn needs_space(self) -> bool {
        self.is_write() && self != Self::Remove
    }
}

/// What a failing call answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// EIO: the disk has failed.
    Io,
    /// ENOSPC: it is full. Only calls that need space meet it.
    NoSpace,
    /// EINTR: a signal came. Only reads and writes meet it.
    Interrupted,
}

impl FaultError {
    pub(crate) fn to_error(self) -> io::Error {
        io::Error::from_raw_os_error(match self {
            FaultError::Io => 5,
            FaultError::NoSpace => 28,
            FaultError::Interrupted => 4,
        })
    }
}

/// What happens to the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It fails. A write may have written some of its bytes, a sync drops what was pending.
    Error(FaultError),
    /// A read or write moves fewer bytes than it was asked to, and says so.
    Short,
}

/// A call that will fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Calls of this kind are counted; `None`: all calls.
    pub kind: Option<CallKind>,
    /// How many of them go well first, from the moment the fault is set.
    pub after: u64,
    /// Whether all later ones fail too.
    pub forever: bool,
    /// How it fails.
    pub effect: Effect,
}

impl Fault {
    /// Counts a call; the effect on it, if it is this one's turn.
    pub(crate) fn meets(&mut self, kind: CallKind) -> Option<Effect> {
        if self.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        let possible = match self.effect {
            Effect::Error(FaultError::Io) => true,
            Effect::Error(FaultError::NoSpace) => kind.needs_space(),
            Effect::Error(FaultError::Interrupted) | Effect::Short => {
                matches!(kind, CallKind::Read | CallKind::Write)
            }
        };
        // A fault that happens once and cannot happen to this call happens to none.
        possible.then_some(self.effect)
    }
}
