//! What only a real file system can show: power cuts on loop-mounted ext4 and XFS, failed syncs,
//! full disks, and the order of system calls.
//!
//! A cut is the file system's own shutdown call, which stops it on the spot and throws away what
//! it has not written, its journal included; then the writing child is killed, the image mounted
//! again and the store compared with what the child had acknowledged through a pipe. What this
//! cannot show is a disk that loses what it was not told to flush: the image behind the loop device
//! keeps every block that it was given. The simulated disk ([`crate::sim`]) covers that.
//!
//! All of it needs root and loop mounts. [`Refusal`] says why a machine cannot; whoever asks must
//! say so loudly and not pass in silence.

use std::io::Write as _;

pub mod child;
mod control;
mod cuts;
use crate::kill::ledger;
mod mount;
pub(crate) mod order;
mod writer;

pub mod trace;

pub use control::Control;
pub use cuts::{Cuts, Level, Tally};
pub use ledger::{Ledger, Said};
pub use mount::{Filesystem, Image, Mounted, Refusal, Tmpfs, private_mounts};
pub use order::Promise;
pub use writer::{Ended, Writer};

/// Prints why something was not tested, in a line that stands out of any log. Past the macros, whose
/// output the test harness keeps to itself where a test passes.
pub fn skipped(what: &str, why: &Refusal) {
    let line = format!("\n**** SKIPPED, NOT TESTED: {what}: {why} ****\n\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}
