//! What each verb does, a file for each or for a small family. A verb gets its parsed arguments and
//! a [`Context`], writes results to `cx.out`, and answers with an exit code or a [`Failure`]; it
//! never prints to standard output itself and never ends the process, because the shell runs the
//! same code.

use std::ffi::OsStr;

use pakv::{Error, MAX_KEY_BYTES};

use crate::args::Verb;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{parse, shell};

mod backup;
mod bench;
mod check;
mod compact;
mod dump;
mod expiry;
pub(crate) mod export;
mod generate;
mod get;
pub(crate) mod import;
mod incr;
mod range;
mod repair;
mod rm;
mod scan;
mod set;
mod stats;
mod watch;

/// Runs one verb. A key that is not there and a condition that does not hold are [`Failure`]s with
/// [`Exit::Negative`], except where the answer itself is the result (`exists`).
pub(crate) fn run(verb: &Verb, cx: &mut Context) -> Result<Exit, Failure> {
    match verb {
        Verb::Set(args) => set::run(cx, args),
        Verb::Get(args) => get::run(cx, args),
        Verb::Rm(args) => rm::run(cx, args),
        Verb::Exists(args) => get::exists(cx, args),
        Verb::Ttl(args) => expiry::ttl(cx, args),
        Verb::Expire(args) => expiry::expire(cx, args),
        Verb::Persist(args) => expiry::persist(cx, args),
        Verb::Incr(args) => incr::run(cx, args),
        Verb::Scan(args) => scan::run(cx, args),
        Verb::Import(args) => import::run(cx, args),
        Verb::Export(args) => export::run(cx, args),
        Verb::Watch(args) => watch::run(cx, args),
        Verb::Stats(args) => stats::run(cx, args),
        Verb::Compact(args) => compact::run(cx, args),
        Verb::Check(args) => check::run(cx, args),
        Verb::Repair(args) => repair::run(cx, args),
        Verb::Dump(args) => dump::run(cx, args),
        Verb::Backup(args) => backup::run(cx, args),
        Verb::Restore(args) => backup::restore(cx, args),
        Verb::Bench(args) => bench::run(cx, args),
        Verb::Shell(args) => shell::run(cx, args),
        Verb::Completions(args) => generate::completions(cx, args),
        Verb::Man(args) => generate::man(cx, args),
    }
}

/// The key that an argument names, checked before a store is opened, or created, for it.
fn key_of(argument: &OsStr) -> Result<&[u8], Failure> {
    let key = parse::bytes(argument);
    match key.len() {
        0 => Err(Error::KeyEmpty.into()),
        len if len > MAX_KEY_BYTES => Err(Error::KeyTooLong { len, limit: MAX_KEY_BYTES }.into()),
        _ => Ok(key),
    }
}
