//! The bodies of the fuzz targets: each takes bytes and panics where a promise is broken. They live
//! in a library so that an ordinary test replays the corpora, without the fuzzing engine.
//!
//! Invariants: a target looks at nothing but its bytes (no clock, no file, no randomness), so that
//! an input that fails fails again; it checks promises, not the code as it is.

pub mod hint;
pub mod import;
pub mod manifest;
pub mod memory;
pub mod operations;
pub mod record;
pub mod recovery;
pub mod seeds;
pub mod shell_line;

mod bytes;
mod forge;

/// The format of the library, compiled here as it stands: the fuzzers reach the decoders, and forge
/// files with right checksums, and the library has no door for them. It is pure and names nothing
/// outside of itself but the planted bugs, which this keeps true.
#[path = "../../crates/pakv/src/format/mod.rs"]
#[allow(dead_code, reason = "a target uses what it checks")]
mod format;

#[path = "../../crates/pakv/src/planted.rs"]
#[allow(dead_code, unexpected_cfgs, reason = "the format's own, and never planted here")]
mod planted;

/// A target: its name, and what it does with an input.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 7] = [
    ("record", record::run),
    ("hint", hint::run),
    ("manifest", manifest::run),
    ("recovery", recovery::run),
    ("operations", operations::run),
    ("import", import::run),
    ("shell_line", shell_line::run),
];

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;
