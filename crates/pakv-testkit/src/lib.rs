//! The test tools of pakv. Unpublished: only the tests of this workspace use it.
//!
//! - [`Model`]: what a store should answer, in a few lines over a `BTreeMap`.
//! - [`Op`] and [`ops`]: everything that can be done to a store, as data, and random lists of it
//!   that shrink.
//! - [`TestStore`]: a store and its model in step; what one answers is compared with the other, and
//!   when it is dropped it is closed, opened again and compared once more.
//! - [`script`]: plain-text scripts of commands with the expected output beside each.
//! - [`files`]: what tests do to the files of a store behind its back: copy, cut, flip, list.
//! - [`cargo`]: tests of this workspace built in another way.
//! - [`counting`]: what something asks of the storage, counted.
//! - [`dump`]: what the files of a store hold, as text.
//! - [`forge`]: files of a store with right checksums and whatever content.
//! - [`kill`]: what child processes do, first of all the workload of the `kill -9` runs, known to
//!   the child that writes and to the parent that checks.
//! - [`mutations`]: a small store damaged at random, again and again.
//! - [`linear`]: histories of many threads, checked for linearizability.
//! - [`power`]: power cuts, failed syncs and full disks of real file systems; the order of system
//!   calls.
//! - [`sim`]: a simulated disk that loses, tears, reorders and fails, and a checker that crashes
//!   stores on it.
//!
//! A tool here panics when a check fails: it runs in tests only.

pub mod cargo;
pub mod counting;
pub mod dump;
pub mod files;
pub mod forge;
pub mod kill;
pub mod linear;
mod model;
pub mod mutations;
pub mod ops;
pub mod power;
pub mod script;
pub mod sim;
mod store;
pub mod timing;
mod watch;

pub use model::Model;
pub use ops::Op;
pub use store::{Reopen, TestStore};
pub use watch::{HANG, within};
