//! The long checks, each one command: `cargo xtask soak`, `planted` and `coverage`; and what is made
//! from the sources: `assets` and `book`.

mod assets;
mod book;
mod coverage;
mod layers;
mod planted;
mod process;
mod soak;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The long checks of pakv, its manual pages, its book")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every layer of the tests for long, and writes the figures to target/soak/report.md
    Soak(soak::Args),
    /// Plants one bug at a time in the engine and sees which layers catch it
    Planted(planted::Args),
    /// Measures which lines and branches of the engine the whole suite reaches
    Coverage(coverage::Args),
    /// Writes manual pages, completions and the book's command reference
    Assets,
    /// Builds the book with mdBook (target/book) and follows its links
    Book,
}

/// What came of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Passed,
    Failed,
    /// Nothing was wrong, and not everything could be run on this machine.
    Incomplete,
}

type Outcome = Result<Verdict, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Soak(args) => soak::run(&args),
        Task::Planted(args) => planted::run(&args),
        Task::Coverage(args) => coverage::run(&args),
        Task::Assets => assets::run(),
        Task::Book => book::run(),
    };
    match outcome {
        Ok(Verdict::Passed) => ExitCode::SUCCESS,
        Ok(Verdict::Failed) => ExitCode::FAILURE,
        Ok(Verdict::Incomplete) => ExitCode::from(3),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
