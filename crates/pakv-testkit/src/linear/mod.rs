//! Is a store linearizable? Threads work on a few keys of one store, every call and its answer are
//! recorded, and a checker asks whether some order of all calls, each between its beginning and its
//! end, explains every answer. A stale read, a lost update or a key that comes back has no such
//! order.
//!
//! - [`check_seed`]: one history of eight threads on ten keys, with compaction all the while, a
//!   clock that moves keys past their expiry, a close under the threads and two reopens.
//! - [`Lie`]: stores that are not linearizable, to test the checker.
//!
//! Operations on one key are checked by [`WGLChecker`](todc_utils::linearizability::WGLChecker),
//! key by key: a history is linearizable if that of every key is. What spans keys has invariants
//! of its own (`bank`). A seed decides what is done, not how the machine schedules it: a failure
//! prints the history that it was found in.

mod bank;
mod history;
mod liar;
mod run;
mod slow;
mod spec;

pub use history::Failure;
pub use liar::Lie;
pub use run::{Tally, check_seed};
pub use spec::{Answer, Call, Wanted};
