//! The frame around everything structured: checksum (4), body length (4), body. Laid out by hand
//! because it is read before a byte can be trusted.
//!
//! The checksum is CRC-32C over length and body, begun at the file's salt plus the frame's offset.
//! The same bytes in another file, or elsewhere in this one, are therefore not a frame: stale
//! blocks, misplaced writes and frames inside a user's value never pass.

use crate::planted::{Bug, planted};

/// Checksum and length.
pub(crate) const FRAME_HEADER_BYTES: usize = 8;
const LENGTH_AT: usize = 4;

/// Why bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadFrame {
    /// The bytes end before the frame does.
    CutShort,
    /// A body has at least one byte.
    Empty,
    WrongChecksum,
}

impl std::fmt::Display for BadFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            BadFrame::CutShort => "the bytes end in the middle of a frame",
            BadFrame::Empty => "there is no frame here",
            BadFrame::WrongChecksum => "the checksum is wrong",
        })
    }
}

/// Where the checksum of a frame begins: a bijection of the start value, so any difference shows.
fn seed(salt: u32, offset: u32) -> u32 {
    salt.wrapping_add(offset)
}

/// Appends a frame to `buffer` with a body that `body` appends, its checksum still to be
/// [`seal`]ed. Returns the frame's length.
///
/// # Errors
/// Those of `body`; the buffer is then as before.
pub(crate) fn append_unsealed(
    buffer: &mut Vec<u8>,
    body: impl FnOnce(&mut Vec<u8>) -> postcard::Result<()>,
) -> postcard::Result<u32> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    let result = body(buffer).and_then(|()| {
        let length = buffer.len() - start - FRAME_HEADER_BYTES;
        u32::try_from(length).map_err(|_| postcard::Error::SerializeBufferFull)
    });
    match (result, buffer.get_mut(start + LENGTH_AT..start + FRAME_HEADER_BYTES)) {
        (Ok(length), Some(field)) => {
            field.copy_from_slice(&length.to_le_bytes());
            Ok(length + FRAME_HEADER_BYTES as u32)
        }
        (result, _) => {
            buffer.truncate(start);
            result.and(Err(postcard::Error::SerializeBufferFull))
        }
    }
}

/// Writes the checksum of a frame that will stand at `offset`.
pub(crate) fn seal(frame: &mut [u8], salt: u32, offset: u32) {
    if let Some((checksum, rest)) = frame.split_at_mut_checked(LENGTH_AT) {
        let crc = crc32c::crc32c_append(seed(salt, offset), rest);
        checksum.copy_from_slice(&crc.to_le_bytes());
    }
}

/// Appends a finished frame that will stand at `offset`.
pub(crate) fn append(
    buffer: &mut Vec<u8>,
    salt: u32,
    offset: u32,
    body: impl FnOnce(&mut Vec<u8>) -> postcard::Result<()>,
) -> postcard::Result<u32> {
    let start = buffer.len();
    let length = append_unsealed(buffer, body)?;
    if let Some(frame) = buffer.get_mut(start..) {
        seal(frame, salt, offset);
    }
    Ok(length)
}

/// Appends the beginning of a finished frame that will stand at `offset`, up to where `rest`
/// follows, which is the end of its body and too large to be copied. Returns the whole frame's
/// length.
///
/// # Errors
/// Those of `head`, and a frame that is too long; the buffer is then not to be used.
pub(crate) fn append_head(
    buffer: &mut Vec<u8>,
    salt: u32,
    offset: u32,
    head: impl FnOnce(&mut Vec<u8>) -> postcard::Result<()>,
    rest: &[u8],
) -> postcard::Result<u32> {
    let start = buffer.len();
    let head_length = append_unsealed(buffer, head)?;
    let too_long = |_| postcard::Error::SerializeBufferFull;
    let rest_length = u32::try_from(rest.len()).map_err(too_long)?;
    let length =
        head_length.checked_add(rest_length).ok_or(postcard::Error::SerializeBufferFull)?;
    let frame = buffer.get_mut(start..).unwrap_or_default();
    if let Some((checksum, checked)) = frame.split_at_mut_checked(LENGTH_AT) {
        if let Some(field) = checked.first_chunk_mut() {
            *field = (length - FRAME_HEADER_BYTES as u32).to_le_bytes();
        }
        let crc = crc32c::crc32c_append(seed(salt, offset), checked);
        checksum.copy_from_slice(&crc32c::crc32c_append(crc, rest).to_le_bytes());
    }
    Ok(length)
}

/// The checksum and body length that `bytes` claim to start with.
fn header(bytes: &[u8]) -> Option<(u32, u32)> {
    let [c0, c1, c2, c3, l0, l1, l2, l3] = *bytes.first_chunk::<FRAME_HEADER_BYTES>()?;
    Some((u32::from_le_bytes([c0, c1, c2, c3]), u32::from_le_bytes([l0, l1, l2, l3])))
}

/// The length of the frame that `bytes` claim to start with, header included; not to be believed.
pub(crate) fn claimed_len(bytes: &[u8]) -> Option<u64> {
    header(bytes).map(|(_, length)| u64::from(length) + FRAME_HEADER_BYTES as u64)
}

/// Checks the frame at the start of `bytes`, which stand at `offset`, and returns its body.
pub(crate) fn body(bytes: &[u8], salt: u32, offset: u32) -> Result<&[u8], BadFrame> {
    let (checksum, length) = header(bytes).ok_or(BadFrame::CutShort)?;
    if length == 0 {
        return Err(BadFrame::Empty);
    }
    let length = usize::try_from(length).map_err(|_| BadFrame::CutShort)?;
    let checked = bytes
        .get(LENGTH_AT..)
        .and_then(|rest| rest.get(..LENGTH_AT + length))
        .ok_or(BadFrame::CutShort)?;
    let is_right = crc32c::crc32c_append(seed(salt, offset), checked) == checksum;
    if !is_right && !planted(Bug::SkipChecksum) {
        return Err(BadFrame::WrongChecksum);
    }
    checked.get(LENGTH_AT..).ok_or(BadFrame::CutShort)
}

/// Finds frames in `bytes`, at any byte, in time that nearly does not depend on what lengths the
/// bytes claim: checksums of ranges are computed from checksums of prefixes. Used where recovery has
/// lost the thread.
pub(crate) struct FrameFinder<'a> {
    bytes: &'a [u8],
    salt: u32,
    /// Where `bytes` stand in the file.
    base_offset: u32,
    /// CRC-32C of the first `index * STRIDE` bytes.
    prefixes: Vec<u32>,
}

const STRIDE: usize = 256;

impl<'a> FrameFinder<'a> {
    pub(crate) fn new(bytes: &'a [u8], salt: u32, base_offset: u32) -> Self {
        let mut crc = crc32c::crc32c(&[]);
        let mut prefixes = vec![crc];
        for chunk in bytes.chunks_exact(STRIDE) {
            crc = crc32c::crc32c_append(crc, chunk);
            prefixes.push(crc);
        }
        Self { bytes, salt, base_offset, prefixes }
    }

    /// The first frame that starts at or after `index` and whose body is `plausible`: its index and
    /// body. Asked first, because a checksum costs far more than a look at the body: small numbers
    /// in a row, which are nothing rare, look like the length of a frame at every byte.
    pub(crate) fn next_from(
        &self,
        index: usize,
        plausible: impl Fn(&[u8]) -> bool,
    ) -> Option<(usize, &'a [u8])> {
        (index..self.bytes.len())
            .find_map(|at| self.frame_at(at, &plausible).map(|body| (at, body)))
    }

    fn frame_at(&self, at: usize, plausible: impl Fn(&[u8]) -> bool) -> Option<&'a [u8]> {
        let frame = self.bytes.get(at..)?;
        let (checksum, length) = header(frame)?;
        let body = frame.get(FRAME_HEADER_BYTES..)?.get(..usize::try_from(length).ok()?)?;
        if body.is_empty() || !plausible(body) {
            return None;
        }
        let from = at + LENGTH_AT;
        let to = at + FRAME_HEADER_BYTES + body.len();
        let offset = self.base_offset.checked_add(u32::try_from(at).ok()?)?;
        // The checksum is linear: what the prefix and the start value bring goes through in one.
        let before = self.prefix_crc(from) ^ seed(self.salt, offset);
        let expected = self.prefix_crc(to) ^ behind_zeros(before, u32::try_from(to - from).ok()?);
        (expected == checksum).then_some(body)
    }

    /// With which salt the bytes at `at` would be a frame, and its body: for a file whose own salt
    /// is damaged. By itself that proves nothing, for some salt fits any bytes.
    pub(crate) fn salt_at(&self, at: usize) -> Option<(u32, &'a [u8])> {
        let frame = self.bytes.get(at..)?;
        let (checksum, length) = header(frame)?;
        let body = frame.get(FRAME_HEADER_BYTES..)?.get(..usize::try_from(length).ok()?)?;
        let from = at + LENGTH_AT;
        let to = at + FRAME_HEADER_BYTES + body.len();
        let bytes = u32::try_from(to - from).ok()?;
        let offset = self.base_offset.checked_add(u32::try_from(at).ok()?)?;
        // What `frame_at` computes, solved for the start value.
        let seed_behind =
            checksum ^ self.prefix_crc(to) ^ behind_zeros(self.prefix_crc(from), bytes);
        let seed = scaled(seed_behind, bytes, &INVERSE_POWERS);
        Some((seed.wrapping_sub(offset), body))
    }

    fn prefix_crc(&self, end: usize) -> u32 {
        let whole = end / STRIDE;
        let known = self.prefixes.get(whole).copied().unwrap_or_default();
        let rest = self.bytes.get(whole * STRIDE..end).unwrap_or_default();
        crc32c::crc32c_append(known, rest)
    }
}

/// CRC-32C's polynomial; the highest bit is the coefficient of 1, as in the checksum itself.
const POLYNOMIAL: u32 = 0x82f6_3b78;

/// x to the power of 8, 16, 32...: what 1, 2, 4... zero bytes multiply a checksum by.
const POWERS: [u32; 32] = powers(1 << (31 - 8));

/// One over those.
const INVERSE_POWERS: [u32; 32] = powers(inverse_of_byte());

/// One over x to the power of 8.
const fn inverse_of_byte() -> u32 {
    let mut inverse: u32 = 1 << 31;
    let mut bit = 0;
    while bit < 8 {
        // To multiply by x is to shift right, and to add the polynomial, whose highest bit is set,
        // where a bit falls out.
        let fell_out = inverse >> 31;
        inverse = (inverse ^ if fell_out == 1 { POLYNOMIAL } else { 0 }) << 1 | fell_out;
        bit += 1;
    }
    inverse
}

#[allow(clippy::indexing_slicing, reason = "done by the compiler, which would say so")]
const fn powers(first: u32) -> [u32; 32] {
    let mut powers = [first; 32];
    let mut index = 1;
    while index < powers.len() {
        powers[index] = product(powers[index - 1], powers[index - 1]);
        index += 1;
    }
    powers
}

/// The product of two polynomials modulo CRC-32C's.
const fn product(left: u32, mut right: u32) -> u32 {
    let mut sum = 0;
    let mut bit = 1 << 31;
    while bit != 0 {
        if left & bit != 0 {
            sum ^= right;
        }
        bit >>= 1;
        right = (right >> 1) ^ if right & 1 == 1 { POLYNOMIAL } else { 0 };
    }
    sum
}

/// What a checksum, of no bytes but a start value, becomes behind so many zero bytes. The checksum
/// crate has this only as a part of `crc32c_combine`, which takes ten times as long.
fn behind_zeros(crc: u32, bytes: u32) -> u32 {
    scaled(crc, bytes, &POWERS)
}

fn scaled(crc: u32, bytes: u32, powers: &[u32; 32]) -> u32 {
    let powers = powers.iter().enumerate().filter(|(bit, _)| (bytes >> bit) & 1 == 1);
    powers.fold(crc, |crc, (_, power)| product(*power, crc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_behind_a_checksum_are_what_the_checksum_crate_says() {
        for crc in [0, 1, 0x8000_0000, 0xdead_beef, u32::MAX] {
            for bytes in (0..2_000).chain((0..32).map(|bit| 1 << bit)).chain([u32::MAX]) {
                let expected = crc32c::crc32c_combine(crc, 0, bytes as usize);
                assert_eq!(behind_zeros(crc, bytes), expected, "{crc:x} behind {bytes} zeros");
            }
        }
    }

    fn framed(salt: u32, offset: u32, body: &[u8]) -> Vec<u8> {
        let mut buffer = Vec::new();
        append(&mut buffer, salt, offset, |buffer| {
            buffer.extend_from_slice(body);
            Ok(())
        })
        .expect("a short body fits");
        buffer
    }

    #[test]
    fn a_frame_is_valid_at_its_own_place_only() {
        let frame = framed(7, 100, b"hello");
        assert_eq!(body(&frame, 7, 100), Ok(&b"hello"[..]));
        assert_eq!(body(&frame, 7, 101), Err(BadFrame::WrongChecksum));
        assert_eq!(body(&frame, 8, 100), Err(BadFrame::WrongChecksum));
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_noticed() {
        let frame = framed(7, 100, b"hello");
        for bit in 0..frame.len() * 8 {
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(body(&flipped, 7, 100).is_err(), "bit {bit} flipped unnoticed");
        }
        for len in 0..frame.len() {
            assert!(body(&frame[..len], 7, 100).is_err(), "cut at {len} unnoticed");
        }
    }

    #[test]
    fn zeros_are_no_frame() {
        assert_eq!(body(&[0; 64], 0, 0), Err(BadFrame::Empty));
    }

    #[test]
    fn a_lost_salt_is_told_by_a_frame() {
        let salt = 0xfeed_f00d;
        let mut bytes = vec![7; 40];
        let offset = 16 + bytes.len() as u32;
        for length in [1, 3, 255, 256, 100_000] {
            bytes.truncate(40);
            append(&mut bytes, salt, offset, |buffer| {
                buffer.resize(buffer.len() + length, 9);
                Ok(())
            })
            .expect("it encodes");
            let (found, body) = FrameFinder::new(&bytes, 0, 16).salt_at(40).expect("a frame");
            assert_eq!((found, body.len()), (salt, length));
        }
    }

    #[test]
    fn the_finder_agrees_with_the_checksum_at_every_offset() {
        let mut bytes = vec![0xa5; 300];
        let mut expected = Vec::new();
        for len in [1, 5, 255, 256, 257, 700] {
            let at = bytes.len();
            expected.push(at);
            let offset = 16 + u32::try_from(at).expect("small");
            bytes.extend(framed(9, offset, &vec![len as u8; len]));
            bytes.extend_from_slice(&[0xff, 0, 3, 0, 0, 0]);
        }
        let finder = FrameFinder::new(&bytes, 9, 16);
        let mut found = Vec::new();
        let mut from = 0;
        while let Some((at, body)) = finder.next_from(from, |_| true) {
            found.push(at);
            from = at + body.len();
        }
        assert_eq!(found, expected);
    }
}
