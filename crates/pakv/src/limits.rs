//! Every limit, in one place, and the checks of what a caller gives.

use crate::error::{Error, Result};
use crate::format::KEY_BYTES_MAX;
use crate::format::manifest::SEALED_MAX;
use crate::format::record::Op;

/// The longest key: 64 KiB.
pub const MAX_KEY_BYTES: usize = KEY_BYTES_MAX;
/// The longest value: 512 MiB.
pub const MAX_VALUE_BYTES: usize = 512 * 1024 * 1024;
/// The largest batch or transaction, as it is laid out on disk: 1 GiB.
pub const MAX_BATCH_BYTES: u64 = 1024 * 1024 * 1024;
/// The smallest segment size that can be asked for: 512 bytes, which only tests want.
pub const MIN_SEGMENT_BYTES: u64 = 512;
/// The largest segment size that can be asked for: 2 GiB. With one batch on top an offset still
/// fits 32 bits.
pub const MAX_SEGMENT_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// A store of so many sealed segments seals the active one at [`MAX_SEGMENT_BYTES`] only, whatever
/// size was asked for: they become larger, not more.
const SEALED_FEW: usize = 24_000;
/// A run of compaction has about so many outputs at most: of more bytes they are larger.
const OUTPUTS_MAX: u64 = 4096;

const _: () = assert!(SEALED_FEW + 2 * OUTPUTS_MAX as usize <= SEALED_MAX);
const _: () = assert!(MAX_SEGMENT_BYTES + MAX_BATCH_BYTES < u32::MAX as u64);
const _: () = assert!((MAX_VALUE_BYTES + MAX_KEY_BYTES) as u64 + 1024 < MAX_BATCH_BYTES);

/// Whether the active segment may be sealed, beside so many `sealed` ones, before it has `bytes`.
pub(crate) fn may_seal(sealed: usize, bytes: u64) -> bool {
    sealed < SEALED_FEW || bytes > MAX_SEGMENT_BYTES
}

/// The size that the outputs of a compaction of `bytes`, beside so many `sealed` segments, have at
/// least.
pub(crate) fn output_bytes_min(sealed: usize, bytes: u64) -> u64 {
    if sealed < SEALED_FEW {
        (bytes / OUTPUTS_MAX).min(MAX_SEGMENT_BYTES)
    } else {
        MAX_SEGMENT_BYTES
    }
}

/// The limits of a key.
pub(crate) fn check_key(key: &[u8]) -> Result<&[u8]> {
    match key.len() {
        0 => Err(Error::KeyEmpty),
        len if len > MAX_KEY_BYTES => Err(Error::KeyTooLong { len, limit: MAX_KEY_BYTES }),
        _ => Ok(key),
    }
}

/// The limits of a write.
pub(crate) fn check_op(op: &Op<'_>) -> Result<()> {
    check_key(op.key())?;
    match op {
        Op::Set { value, .. } if value.len() > MAX_VALUE_BYTES => {
            Err(Error::ValueTooLong { len: value.len(), limit: MAX_VALUE_BYTES })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_become_larger_where_they_are_many() {
        assert!(may_seal(0, 1) && may_seal(SEALED_FEW - 1, 1));
        assert!(!may_seal(SEALED_FEW, 1) && !may_seal(SEALED_FEW, MAX_SEGMENT_BYTES));
        assert!(may_seal(SEALED_FEW, MAX_SEGMENT_BYTES + 1));
        assert_eq!(output_bytes_min(3, 8192), 2);
        assert_eq!(output_bytes_min(SEALED_FEW - 1, u64::MAX), MAX_SEGMENT_BYTES);
        assert_eq!(output_bytes_min(SEALED_FEW, 1), MAX_SEGMENT_BYTES);
    }
}
