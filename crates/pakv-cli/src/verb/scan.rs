//! `scan`: entries in key order, a line each.

use std::io::Write as _;

use pakv::Entry;

use super::range::key_range;
use crate::args::{OutputForm, ScanArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, escape_line};

const KEY: anstyle::Style = anstyle::AnsiColor::Cyan.on_default();

pub(super) fn run(cx: &mut Context, args: &ScanArgs) -> Result<Exit, Failure> {
    let range = key_range(&args.range)?;
    let store = cx.reader()?;
    let scan = store.scan_range(range)?;
    let limit = args.limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    if args.count {
        let count = scan.take(limit).count();
        match cx.form {
            OutputForm::Json => {
                writeln!(cx.out, "{}", JsonLine::new().field("count", count).into_string())?;
            }
            OutputForm::Text | OutputForm::Raw => writeln!(cx.out, "{count}")?,
        }
    } else {
        let entries: Box<dyn Iterator<Item = Entry>> =
            if args.reverse { Box::new(scan.rev()) } else { Box::new(scan) };
        for entry in entries.take(limit) {
            print_entry(cx, &entry, args.keys)?;
        }
    }
    store.close()?;
    Ok(Exit::Done)
}

fn print_entry(cx: &mut Context, entry: &Entry, keys_only: bool) -> Result<(), Failure> {
    let key = entry.key();
    let value = if keys_only { None } else { Some(entry.value()?) };
    match (cx.form, value) {
        (OutputForm::Json, value) => {
            let line = JsonLine::new().bytes("key", key);
            let line = match value {
                Some(value) => line.bytes("value", &value),
                None => line,
            };
            cx.out.write_all(&line.expiry(entry.expires_at_ms()).into_bytes())?;
        }
        (OutputForm::Text, value) if cx.out.terminal => {
            let style = if cx.out.color { KEY } else { anstyle::Style::new() };
            write!(cx.out, "{style}{}{style:#}", escape_line(key))?;
            if let Some(value) = value {
                write!(cx.out, "\t{}", escape_line(&value))?;
            }
        }
        (_, value) => {
            cx.out.write_all(key)?;
            if let Some(value) = value {
                cx.out.write_all(b"\t")?;
                cx.out.write_all(&value)?;
            }
        }
    }
    cx.out.write_all(b"\n")?;
    Ok(())
}
