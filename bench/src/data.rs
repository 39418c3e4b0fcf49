//! Keys and values: the same for every engine, computed from a number, so that no table of them takes memory.

pub(crate) const KEY_BYTES: usize = 24;
pub(crate) type Key = [u8; KEY_BYTES];

/// Numbers with this bit name keys that are never set.
pub(crate) const ABSENT: u64 = 1 << 63;

/// The finalizer of splitmix64: a bijection, so that keys of different numbers differ, and in an
/// order that has nothing to do with that of the numbers.
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// A seeded sequence of numbers (splitmix64): cheap enough to vanish beside a get.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(mix(seed ^ 0x5EED))
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        ((u128::from(mix(self.0)) * u128::from(n)) >> 64) as u64
    }
}

/// Key number `id`: its order is random; its last eight bytes are the number, for whoever checks.
pub(crate) fn key(id: u64) -> Key {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&mix(id).to_be_bytes());
    key[8..16].copy_from_slice(&mix(id ^ 0xA5A5).to_be_bytes());
    key[16..].copy_from_slice(&id.to_be_bytes());
    key
}

/// The number of a key, and whether the rest of the key is what it should be.
pub(crate) fn id(bytes: &[u8]) -> Option<u64> {
    let id = u64::from_be_bytes(bytes.get(16..24)?.try_into().ok()?);
    (bytes == key(id)).then_some(id)
}

/// Bytes that values are cut from; they cannot be compressed. Small enough for the caches of a
/// processor, so that checking a value does not cost more than reading it.
const POOL_BYTES: usize = 64 * 1024;
/// Version, and a number drawn from key and version.
const STAMP_BYTES: usize = 16;

pub(crate) struct Values {
    pool: Vec<u8>,
    bytes: usize,
}

impl Values {
    pub(crate) fn new(bytes: usize) -> Self {
        let mut random = Random::new(7);
        let pool = (0..POOL_BYTES + bytes).map(|_| random.below(256) as u8).collect();
        Self { pool, bytes }
    }

    fn stamp(id: u64, version: u64) -> u64 {
        mix(id.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ version)
    }

    /// Writes into `out` the value that key number `id` has after its write number `version`.
    pub(crate) fn put(&self, id: u64, version: u64, out: &mut Vec<u8>) {
        out.clear();
        let stamp = Self::stamp(id, version);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&stamp.to_le_bytes());
        let from = stamp as usize % POOL_BYTES;
        out.extend_from_slice(&self.pool[from..from + self.bytes.saturating_sub(STAMP_BYTES)]);
        out.truncate(self.bytes);
    }

    /// Whether `value` is, to its last byte, one that was set for key number `id`. (Which version
    /// is the newest is for the tests of the engine to say, not for its benchmark.)
    pub(crate) fn check(&self, id: u64, value: &[u8]) -> bool {
        if value.len() != self.bytes {
            return false;
        }
        let Some((version, rest)) = value.split_first_chunk::<8>() else { return true };
        let stamp = Self::stamp(id, u64::from_le_bytes(*version));
        let (head, tail) = rest.split_at(rest.len().min(8));
        let from = stamp as usize % POOL_BYTES;
        head == &stamp.to_le_bytes()[..head.len()] && tail == &self.pool[from..from + tail.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_checked_to_its_last_byte() {
        for bytes in [1, 8, 12, 16, 100, 1024] {
            let values = Values::new(bytes);
            let mut value = Vec::new();
            values.put(5, 3, &mut value);
            assert_eq!(value.len(), bytes);
            assert!(values.check(5, &value));
            assert!(!values.check(5, &value[1..]));
            if bytes > 8 {
                assert!(!values.check(6, &value));
                *value.last_mut().unwrap() ^= 1;
                assert!(!values.check(5, &value));
            }
        }
    }

    #[test]
    fn keys_name_their_numbers() {
        assert_eq!(id(&key(42)), Some(42));
        let mut other = key(42);
        other[0] ^= 1;
        assert_eq!(id(&other), None);
        assert_ne!(key(42), key(42 | ABSENT));
    }
}
