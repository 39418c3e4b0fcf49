//! `incr`: adds to an integer, without another writer in between.

use std::io::Write as _;

use super::key_of;
use crate::args::{IncrArgs, OutputForm};
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::{Failure, key_name};
use crate::output::JsonLine;

pub(super) fn run(cx: &mut Context, args: &IncrArgs) -> Result<Exit, Failure> {
    let key = key_of(&args.key)?;
    let store = cx.writer(Creates::Yes)?;
    let mut sum = Ok(0);
    store.update(key, |current| {
        sum = add(key, current, args.by);
        match &sum {
            Ok(sum) => Some(sum.to_string().into_bytes()),
            // The value as it was: nothing is written.
            Err(_) => current.map(<[u8]>::to_vec),
        }
    })?;
    store.close()?;
    let sum = sum?;
    match cx.form {
        OutputForm::Json => {
            let line = JsonLine::new().bytes("key", key).field("value", sum);
            writeln!(cx.out, "{}", line.into_string())?;
        }
        OutputForm::Text | OutputForm::Raw => writeln!(cx.out, "{sum}")?,
    }
    Ok(Exit::Done)
}

fn add(key: &[u8], current: Option<&[u8]>, by: i64) -> Result<i64, Failure> {
    let number = match current {
        None => 0,
        Some(value) => str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse::<i64>().ok())
            .ok_or_else(|| {
                let message =
                    format!("the value of {} is not an integer of 64 bits", key_name(key));
                Failure::failed("not_an_integer", message).with_hint("look at it with `get`")
            })?,
    };
    number
        .checked_add(by)
        .ok_or_else(|| Failure::failed("overflow", format!("{number} + {by} does not fit 64 bits")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addition_and_its_limits() {
        assert_eq!(add(b"k", None, -3), Ok(-3));
        assert_eq!(add(b"k", Some(b"41"), 1), Ok(42));
        assert_eq!(add(b"k", Some(b"9223372036854775806"), 1), Ok(i64::MAX));
        for (value, by) in [(&b"9223372036854775807"[..], 1), (b"-9223372036854775808", -1)] {
            assert!(add(b"k", Some(value), by).is_err());
        }
        for value in [&b""[..], b"1.5", b"7\n", b" 7", b"\xff", b"9223372036854775808"] {
            assert!(add(b"k", Some(value), 1).is_err(), "{value:?}");
        }
    }
}
