//! What several targets do with bytes.

use crate::format::frame::{self, FRAME_HEADER_BYTES};
use crate::format::{FORMAT_VERSION, PREAMBLE_BYTES};

/// Splits off a number.
pub(crate) fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((u32::from_le_bytes(*number), rest))
}

/// Makes the frames of a file valid from its preamble to its end, whatever is in them: without
/// this no fuzzer gets past a checksum. A length that leads out of the file is cut to it.
pub(crate) fn reseal(file: &mut [u8]) {
    let Some((preamble, frames)) = file.split_at_mut_checked(PREAMBLE_BYTES) else { return };
    preamble[8..12].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
    let salt = u32::from_le_bytes([preamble[12], preamble[13], preamble[14], preamble[15]]);
    let mut at = 0;
    while let Some(rest) = frames.get_mut(at..).filter(|rest| rest.len() > FRAME_HEADER_BYTES) {
        let most = rest.len() - FRAME_HEADER_BYTES;
        let claimed = u32::from_le_bytes([rest[4], rest[5], rest[6], rest[7]]) as usize;
        let length = if claimed == 0 || claimed > most { most } else { claimed };
        rest[4..8].copy_from_slice(&(length as u32).to_le_bytes());
        let end = FRAME_HEADER_BYTES + length;
        frame::seal(&mut rest[..end], salt, (PREAMBLE_BYTES + at) as u32);
        at += end;
    }
}

/// Calls `check` with copies of `bytes` in each of which one bit is flipped: every bit of short
/// ones, of long ones every bit of the first bytes and some of the rest.
pub(crate) fn each_flip(bytes: &[u8], mut check: impl FnMut(usize, &[u8])) {
    const ALL_UP_TO: usize = 32 * 8;
    const OTHERS: usize = 64;
    let bits = bytes.len() * 8;
    let step = (bits.saturating_sub(ALL_UP_TO) / OTHERS).max(1) | 1;
    let mut flipped = bytes.to_vec();
    let mut bit = 0;
    while bit < bits {
        flipped[bit / 8] ^= 1 << (bit % 8);
        check(bit, &flipped);
        flipped[bit / 8] ^= 1 << (bit % 8);
        bit += if bit < ALL_UP_TO { 1 } else { step };
    }
}
