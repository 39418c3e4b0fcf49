//! Bugs on purpose, one at a time, to see that the tests catch them. Only in a build with the
//! feature `planted`, which no build that anybody uses has: everywhere else [`planted`] is a
//! constant `false`. The environment variable `PAKV_PLANT` names the bug.

/// What can be made wrong. What it breaks, and which tests must notice, is said in
/// `docs/testing.md`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing says which names are durable.
    NoDirectorySync,
    /// A file is put in place before its content is durable.
    NoSyncBeforeRename,
    /// A commit does not wait for its sync.
    AcknowledgeBeforeSync,
    /// A sync that failed is tried again, and believed.
    RetryFailedSync,
    /// After a failure writes go on.
    NoPoison,
    /// What a short write left out is taken for written.
    IgnoreShortWrite,
    /// Whatever is read is right.
    SkipChecksum,
    /// The last record of a key wins that is loaded last, whatever its sequence number.
    ReplayByFileOrder,
    /// A batch of which only the beginning is there counts as whole.
    KeepTornBatch,
    /// What recovery found in the page cache is taken for durable.
    TrustPageCache,
    /// Compaction's outputs are not synced.
    NoSyncOfOutputs,
    /// Compaction leaves a record behind for a newer one that is not durable.
    PublishWithoutActiveSync,
    /// Compaction's inputs are unlinked before the manifest is replaced.
    UnlinkInputsEarly,
    /// Compaction moves a key whatever was written to it meanwhile.
    MoveWithoutCompare,
    /// A tombstone is dropped that an older record still needs.
    DropTombstoneEarly,
    /// An expired set is dropped that still shadows an older record.
    DropExpiredEarly,
    /// The wait for a commit group's leader is never ended.
    LoseWakeUp,
}

/// Whether `bug` is to be made.
#[cfg(feature = "planted")]
pub(crate) fn planted(bug: Bug) -> bool {
    static PLANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let planted = PLANTED.get_or_init(|| std::env::var("PAKV_PLANT").ok());
    planted.as_ref().is_some_and(|name| *name == format!("{bug:?}"))
}

/// Whether `bug` is to be made: never.
#[cfg(not(feature = "planted"))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}
