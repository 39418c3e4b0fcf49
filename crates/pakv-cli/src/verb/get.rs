//! `get` and `exists`: about one key, without changing it.

use std::io::Write as _;

use super::key_of;
use crate::args::{ExistsArgs, GetArgs, OutputForm};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{JsonLine, escape_text};
use crate::parse;

pub(super) fn run(cx: &mut Context, args: &GetArgs) -> Result<Exit, Failure> {
    let key = key_of(&args.key)?;
    let store = cx.reader()?;
    let found = store.get(key)?;
    store.close()?;
    let default = || args.default.as_deref().map(|value| parse::bytes(value).to_vec());
    let value = found.or_else(default).ok_or_else(Failure::key_not_found)?;
    print_value(cx, key, &value)?;
    Ok(Exit::Done)
}

fn print_value(cx: &mut Context, key: &[u8], value: &[u8]) -> Result<(), Failure> {
    match cx.form {
        OutputForm::Json => {
            let line = JsonLine::new().entry(key, value, None);
            writeln!(cx.out, "{}", line.into_string())?;
        }
        OutputForm::Raw => cx.out.write_all(value)?,
        OutputForm::Text if cx.out.terminal => writeln!(cx.out, "{}", escape_text(value))?,
        OutputForm::Text => {
            cx.out.write_all(value)?;
            // The lines of a shell each end theirs, or the next result would stand behind this one.
            if cx.is_shell() {
                cx.out.write_all(b"\n")?;
            }
        }
    }
    Ok(())
}

pub(super) fn exists(cx: &mut Context, args: &ExistsArgs) -> Result<Exit, Failure> {
    let key = key_of(&args.key)?;
    let store = cx.reader()?;
    let there = store.contains(key)?;
    store.close()?;
    match cx.form {
        OutputForm::Json => {
            let line = JsonLine::new().bytes("key", key).field("exists", there);
            writeln!(cx.out, "{}", line.into_string())?;
        }
        OutputForm::Text | OutputForm::Raw => writeln!(cx.out, "{there}")?,
    }
    Ok(if there { Exit::Done } else { Exit::Negative })
}
