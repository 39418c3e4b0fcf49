//! `stats --watch`: the figures again each second, and what has changed since.

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, Instant};

use pakv::Stats;

use super::{Form, json, summary};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{count, size};

const EVERY: Duration = Duration::from_secs(1);

/// A line in a pipe repeats its head after so many.
const HEAD_EVERY: u64 = 20;

/// Goes on until the process is ended or the reader of its output has gone.
pub(super) fn run(cx: &mut Context, form: Form) -> Result<Exit, Failure> {
    if cx.is_shell() {
        return Err(Failure::usage("a line of the shell cannot go on for ever")
            .with_hint("run `pakv stats --watch` beside the shell"));
    }
    let store = cx.reader()?;
    let mut last: Option<(Instant, u64)> = None;
    // How many lines of a terminal are to be written over.
    let mut drawn = 0;
    for round in 0_u64.. {
        let started = Instant::now();
        // What another process has written since; a shell's own store is as it is.
        store.refresh()?;
        let stats = store.stats()?;
        let writes = last.map(|(at, seqno)| per_second(stats.seqno - seqno.min(stats.seqno), at));
        last = Some((started, stats.seqno));
        match form {
            Form::Json => writeln!(cx.out, "{}", json(&stats)?)?,
            Form::Text if cx.out.terminal => {
                let mut text = summary(&stats);
                let writes = writes.map_or("…".to_string(), count);
                let _ = writeln!(text, "{:<14}{writes} a second; Ctrl-C ends", "writes");
                if drawn > 0 {
                    write!(cx.out, "\x1b[{drawn}F\x1b[J")?;
                }
                drawn = text.lines().count();
                write!(cx.out, "{text}")?;
            }
            Form::Text => {
                if round % HEAD_EVERY == 0 {
                    writeln!(cx.out, "{HEAD}")?;
                }
                writeln!(cx.out, "{}", line(&stats, writes))?;
            }
        }
        cx.out.flush()?;
        std::thread::sleep(EVERY.saturating_sub(started.elapsed()));
    }
    Ok(Exit::Done)
}

const HEAD: &str = "        keys       live    garbage    on disk  ratio  segments    writes/s";

fn line(stats: &Stats, writes: Option<u64>) -> String {
    format!(
        "{:>12} {:>10} {:>10} {:>10} {:>6.2} {:>9} {:>11}",
        count(stats.keys),
        size(stats.live_bytes),
        size(stats.garbage_bytes()),
        size(stats.disk_bytes()),
        stats.space_amplification(),
        count(stats.segments.len() as u64),
        writes.map_or_else(|| "-".to_string(), count),
    )
}

/// How many a second, of those since `at`.
fn per_second(number: u64, at: Instant) -> u64 {
    let ms = at.elapsed().as_millis().max(1);
    u64::try_from(u128::from(number) * 1000 / ms).unwrap_or(u64::MAX)
}
