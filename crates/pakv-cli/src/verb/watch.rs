//! `watch`: changes as they are committed, an object a line.

use std::io::Write as _;
use std::os::fd::AsFd as _;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use pakv::Change;

use crate::args::WatchArgs;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::JsonLine;
use crate::parse;

/// How often it looks for changes, in milliseconds.
const POLL_MS: u16 = 50;

pub(super) fn run(cx: &mut Context, args: &WatchArgs) -> Result<Exit, Failure> {
    if cx.is_shell() && !args.no_follow {
        return Err(Failure::usage("a line of the shell cannot wait for changes")
            .with_hint("add --no-follow, or run `pakv watch` beside the shell"));
    }
    let prefix = args.prefix.as_deref().map(parse::bytes).unwrap_or_default();
    let store = cx.reader()?;
    let from = match args.from {
        Some(from) => from,
        None => store.refresh()?.saturating_add(1),
    };
    let mut watch = store.watch(from)?;
    loop {
        for change in watch.by_ref() {
            let change = match change {
                Ok(change) => change,
                Err(error) => {
                    // What came before it is right.
                    cx.out.flush()?;
                    return Err(error.into());
                }
            };
            if change.key.starts_with(prefix) {
                cx.out.write_all(&line_of(&change))?;
            }
        }
        cx.out.flush()?;
        if args.no_follow || pause_for_reader() {
            break;
        }
    }
    drop(watch);
    store.close()?;
    Ok(Exit::Done)
}

fn line_of(change: &Change) -> Vec<u8> {
    let line = JsonLine::new().field("seqno", change.seqno);
    let line = match &change.value {
        Some(value) => {
            let line = line.field("op", "set").bytes("key", &change.key).bytes("value", value);
            line.expiry(change.expires_at_ms)
        }
        None => line.field("op", "delete").bytes("key", &change.key),
    };
    let line =
        if change.batch_rest > 0 { line.field("batch_rest", change.batch_rest) } else { line };
    let mut line = line.into_bytes();
    line.push(b'\n');
    line
}

/// Sleeps until it is time to look again, or until whoever reads the output has gone, which would
/// else be noticed only at the next change; says whether they have.
fn pause_for_reader() -> bool {
    let stdout = std::io::stdout();
    // No event is asked for: that nobody reads any more is told all the same.
    let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
    let told = poll(&mut fds, PollTimeout::from(POLL_MS)).unwrap_or(0);
    told > 0
}
