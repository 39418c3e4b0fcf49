//! A simulated disk behind the engine's `Storage` trait, and a checker that crashes stores on it.
//!
//! - [`SimStorage`]: one directory on one simulated machine. It knows what is durable and what is
//!   only in the page cache, fails any call it is told to, and turns into what a power cut would
//!   have left.
//! - [`Lie`]: storages that break their promises on purpose, to test the checker.
//! - [`check_seed`]: one seeded run of a store through writes, compactions, faults and crashes,
//!   crashes of the recovery from a crash included; every state is compared with a model.
//! - [`sweep`]: an open, a compaction or a long script, with every single call failing in turn.
//! - [`check_threads`]: a store with all its threads, up to a crash.
//! - [`check_plan`]: the same with every choice given, for a fuzzer.
//!
//! Everything follows from a seed, but for runs with threads. The one thing that does not is the
//! identity that a store draws when it is created: it changes checksums, never a length, a call or
//! an order.

mod checker;
mod crash;
mod disk;
mod fault;
mod history;
mod liar;
mod plan;
mod session;
mod storage;
mod sweep;
mod threads;
mod workload;

pub use checker::{Config, Failure, Tally, check_seed};
pub use crash::CrashMode;
pub use fault::{CallKind, Effect, Fault, FaultError};
pub use liar::Lie;
pub use plan::{Life, Plan, check_plan};
pub use storage::{Call, Outcome, SimStorage};
pub use sweep::{Depth, Scenario, SweepTally, sweep};
pub use threads::{ThreadsTally, check_threads};
pub use workload::{Guess, Level, Op, Value};
