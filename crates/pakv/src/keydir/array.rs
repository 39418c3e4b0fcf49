//! Keys one after the other in memory, by number.

use std::ops::Range;

/// Five bytes for the start of each key: 1 TiB of keys.
const START_BYTES: usize = 5;

/// Only ever grows.
#[derive(Debug, Default)]
pub(super) struct KeyArray {
    len: usize,
    bytes: Vec<u8>,
    /// Of the first key, and of all others as long as `starts` is empty.
    length: usize,
    /// Where each key starts, once they are not all of one length.
    starts: Vec<u8>,
}

impl KeyArray {
    pub(super) fn with_room_for(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, key: &[u8]) {
        if self.len == 0 {
            self.length = key.len();
        } else if self.starts.is_empty() && key.len() != self.length {
            for number in 0..self.len {
                self.push_start(number * self.length);
            }
        }
        if !self.starts.is_empty() {
            self.push_start(self.bytes.len());
        }
        self.bytes.extend_from_slice(key);
        self.len += 1;
    }

    fn push_start(&mut self, start: usize) {
        self.starts.extend((start as u64).to_le_bytes().iter().take(START_BYTES));
    }

    /// The key of that number, counted from 0; an empty one where there is none.
    pub(super) fn key(&self, number: u32) -> &[u8] {
        self.bytes.get(self.range(number as usize)).unwrap_or_default()
    }

    fn range(&self, number: usize) -> Range<usize> {
        if self.starts.is_empty() {
            return number * self.length..(number + 1) * self.length;
        }
        self.start(number)..self.start(number + 1)
    }

    /// Behind the last key, their end.
    fn start(&self, number: usize) -> usize {
        let Some(start) = self.starts.get(number * START_BYTES..).filter(|rest| !rest.is_empty())
        else {
            return self.bytes.len();
        };
        // Eight bytes at once, but for the last starts.
        if let Some(bytes) = start.first_chunk() {
            return (u64::from_le_bytes(*bytes) & ((1 << (8 * START_BYTES)) - 1)) as usize;
        }
        let bytes = start.iter().take(START_BYTES).rev();
        bytes.fold(0, |start, byte| start << 8 | usize::from(*byte))
    }

    /// Bytes of all keys.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes.capacity() + self.starts.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_as_they_went() {
        let alike: Vec<Vec<u8>> = (0..300).map(|n: u16| n.to_le_bytes().to_vec()).collect();
        let mut other = alike.clone();
        other.insert(200, b"longer".to_vec());
        let empty = vec![Vec::new(); 5];
        let mut from_empty = empty.clone();
        from_empty.push(b"a".to_vec());
        for keys in [alike, other, empty, from_empty] {
            let mut array = KeyArray::default();
            for (number, key) in keys.iter().enumerate() {
                array.push(key);
                assert_eq!(array.key(number as u32), key, "the last one");
            }
            let found: Vec<&[u8]> = (0..array.len() as u32).map(|n| array.key(n)).collect();
            assert_eq!(found, keys);
            assert_eq!(array.key(array.len() as u32), b"", "behind the last");
        }
    }
}
