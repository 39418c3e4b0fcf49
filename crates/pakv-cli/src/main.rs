//! The binary `pakv`: arguments in, exit code out. What a verb does is in `verb`, what it prints in
//! `output`, what an argument may be in `args`.

use std::process::ExitCode;

mod args;
mod context;
mod exit;
mod failure;
mod output;
mod parse;
mod progress;
mod run;
mod shell;
mod transfer;
mod verb;

fn main() -> ExitCode {
    run::run(std::env::args_os().collect()).into()
}
