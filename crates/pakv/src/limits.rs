//! Every limit, in one place, and the checks of what a caller gives.

use crate::error::{Error, Result};
use crate::format::KEY_BYTES_MAX;
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

const _: () = assert!(MAX_SEGMENT_BYTES + MAX_BATCH_BYTES < u32::MAX as u64);
const _: () = assert!((MAX_VALUE_BYTES + MAX_KEY_BYTES) as u64 + 1024 < MAX_BATCH_BYTES);

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
