//! `set`: stores one value, under a condition if one is given.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use pakv::{Expected, Expiry, MAX_VALUE_BYTES};

use super::key_of;
use crate::args::SetArgs;
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::parse;

pub(super) fn run(cx: &mut Context, args: &SetArgs) -> Result<Exit, Failure> {
    // Everything that can be wrong with the arguments is found before a store is created for them.
    let key = key_of(&args.key)?;
    let value = value_of(cx, args)?;
    let expected = if args.condition.if_absent {
        Some(Expected::Absent)
    } else if args.condition.if_present {
        Some(Expected::Present)
    } else {
        args.condition.if_value.as_deref().map(|old| Expected::Value(parse::bytes(old)))
    };
    // In a store that is not there yet no key is present.
    let creates = match expected {
        None | Some(Expected::Absent) => Creates::Yes,
        Some(Expected::Present | Expected::Value(_)) => Creates::No,
    };
    let store = cx.writer(creates)?;
    let expiry = args.ttl.map_or(Expiry::Never, Expiry::After);
    let held = match expected {
        None => store.set_with_expiry(key, value, expiry).map(|()| true)?,
        Some(expected) => store.compare_and_set_with_expiry(key, expected, value, expiry)?,
    };
    let there = held || store.contains(key)?;
    store.close()?;
    match (held, expected) {
        (true, _) => Ok(Exit::Done),
        (false, Some(Expected::Absent)) => {
            Err(Failure::negative("condition_failed", "Key already exists"))
        }
        (false, _) if there => {
            Err(Failure::negative("condition_failed", "The key holds another value"))
        }
        (false, _) => Err(Failure::key_not_found()),
    }
}

fn value_of(cx: &Context, args: &SetArgs) -> Result<Vec<u8>, Failure> {
    match (&args.file, &args.value) {
        (Some(path), _) => read_file(path),
        (None, Some(value)) if value == "-" => read_value(cx.stdin()?, Path::new("standard input")),
        (None, Some(value)) => Ok(parse::bytes(value).to_vec()),
        (None, None) => Err(Failure::usage("a value is missing")),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Failure> {
    let failure = |error| Failure::file("open", path, &error);
    let file = File::open(path).map_err(failure)?;
    let len = file.metadata().map_err(failure)?.len();
    if usize::try_from(len).is_ok_and(|len| len <= MAX_VALUE_BYTES) {
        read_value(file, path)
    } else {
        Err(too_long(path))
    }
}

/// Reads no further than the limit: a value that is too long is known by its first byte too many.
fn read_value(source: impl Read, path: &Path) -> Result<Vec<u8>, Failure> {
    let limit = u64::try_from(MAX_VALUE_BYTES).unwrap_or(u64::MAX);
    let mut value = Vec::new();
    source
        .take(limit.saturating_add(1))
        .read_to_end(&mut value)
        .map_err(|error| Failure::file("read", path, &error))?;
    if value.len() > MAX_VALUE_BYTES { Err(too_long(path)) } else { Ok(value) }
}

fn too_long(path: &Path) -> Failure {
    let source = path.display();
    Failure::usage(format!(
        "{source} holds more than {MAX_VALUE_BYTES} bytes, the limit of a value"
    ))
}
