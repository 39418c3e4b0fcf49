//! What the binary `pakv` is made of. Not a public API: it is a library only so that the fuzzers
//! in `fuzz/` can reach [`fuzzing`], and anything in it may change in any release.
//!
//! What a verb does is in `verb`, what it prints in `output`, what an argument may be in `args`.

#![doc(hidden)]

use std::process::ExitCode;

mod args;
mod context;
mod exit;
mod failure;
pub mod fuzzing;
mod output;
mod parse;
mod progress;
mod run;
mod shell;
mod trace;
mod transfer;
mod verb;

/// Runs the program with the arguments of this process.
pub fn main() -> ExitCode {
    run::run(std::env::args_os().collect()).into()
}
