//! Which keys `scan` and `export` are about: `--prefix`, `--from` and `--to` as one pair of bounds.
//! Pure.

use std::ops::Bound;

use crate::args::RangeArgs;
use crate::failure::{Failure, key_name};
use crate::parse;

/// Bounds as the library takes them.
pub(super) type KeyRange = (Bound<Vec<u8>>, Bound<Vec<u8>>);

/// The keys at or after `--from`, before `--to`, that begin with `--prefix`.
pub(super) fn key_range(args: &RangeArgs) -> Result<KeyRange, Failure> {
    let from = args.from.as_deref().map(parse::bytes);
    let to = args.to.as_deref().map(parse::bytes);
    let prefix = args.prefix.as_deref().map(parse::bytes);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        let message = format!("--from {} comes after --to {}", key_name(from), key_name(to));
        return Err(Failure::usage(message).with_hint("the other order is `--reverse`"));
    }
    let from = from.into_iter().chain(prefix).max().map(<[u8]>::to_vec);
    let to = to.map(<[u8]>::to_vec).into_iter().chain(prefix.and_then(after_prefix)).min();
    Ok(match (from, to) {
        // The prefix and the range have no key in common. An inverted range is an error elsewhere;
        // this is not.
        (Some(from), Some(to)) if from > to => (Bound::Included(to.clone()), Bound::Excluded(to)),
        (from, to) => (
            from.map_or(Bound::Unbounded, Bound::Included),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        ),
    })
}

/// The first key after all that begin with `prefix`; none if they go to the end.
fn after_prefix(prefix: &[u8]) -> Option<Vec<u8>> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(end)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::ops::RangeBounds as _;
    use std::os::unix::ffi::OsStringExt as _;

    use super::*;

    fn args(prefix: Option<&[u8]>, from: Option<&[u8]>, to: Option<&[u8]>) -> RangeArgs {
        let owned = |bytes: Option<&[u8]>| bytes.map(|bytes| OsString::from_vec(bytes.to_vec()));
        RangeArgs { prefix: owned(prefix), from: owned(from), to: owned(to) }
    }

    /// Every combination of bounds over short keys of the bytes that matter, against the
    /// definition.
    #[test]
    fn bounds_are_what_the_flags_say() {
        let bytes = [0x00, b'a', 0xfe, 0xff];
        let mut keys: Vec<Vec<u8>> = vec![vec![]];
        keys.extend(bytes.iter().map(|a| vec![*a]));
        keys.extend(bytes.iter().flat_map(|a| bytes.iter().map(move |b| vec![*a, *b])));
        let options: Vec<Option<&[u8]>> =
            std::iter::once(None).chain(keys.iter().map(|key| Some(key.as_slice()))).collect();
        for prefix in &options {
            for from in &options {
                for to in &options {
                    let Ok(range) = key_range(&args(*prefix, *from, *to)) else {
                        assert!(from > to);
                        continue;
                    };
                    for key in &keys {
                        let wanted = prefix.is_none_or(|prefix| key.starts_with(prefix))
                            && from.is_none_or(|from| key.as_slice() >= from)
                            && to.is_none_or(|to| key.as_slice() < to);
                        assert_eq!(
                            range.contains(key),
                            wanted,
                            "{prefix:?} {from:?} {to:?} {key:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn from_past_to_is_a_usage_error() {
        let failure = key_range(&args(None, Some(b"z"), Some(b"a"))).unwrap_err();
        assert_eq!(failure.exit(), crate::exit::Exit::Usage);
    }
}
