//! pakv against the stores that a user would otherwise pick: one command runs everything and writes
//! the tables and pictures. See README.md here.

mod cage;
mod child;
mod data;
mod engine;
mod figures;
mod machine;
mod plan;
mod process;
mod profile;
mod report;
mod run;
mod work;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs every work on every engine, in turn, and writes the report.
    Run(run::Run),
    /// Writes the tables and pictures again from the results that are kept.
    Report(report::Report),
    /// Says in which functions a work spends its time.
    Profile(profile::Profile),
    /// One work on one engine, in this process; prints one line of JSON. What `run` starts.
    Child(work::Job),
}

fn main() -> Result<()> {
    match Arguments::parse().command {
        Command::Run(run) => run.run(),
        Command::Report(report) => report.run(),
        Command::Profile(profile) => profile.run(),
        Command::Child(job) => {
            println!("{}", serde_json::to_string(&work::run(&job)?)?);
            Ok(())
        }
    }
}
