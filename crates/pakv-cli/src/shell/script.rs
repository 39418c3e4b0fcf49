//! The lines of a script, counted. They are bytes: a value in a script need not be UTF-8.

use std::io::{self, BufRead, Read};

/// The longest line: 64 MiB. What is larger comes from a file, by `set --file` or `import`.
const MAX_LINE_BYTES: u64 = 64 * 1024 * 1024;

/// Reads a script line by line.
pub(crate) struct Lines<R> {
    reader: R,
    /// The number of the line that was read last, counted from 1.
    pub(crate) number: u64,
    line_bytes_max: u64,
}

impl<R: BufRead> Lines<R> {
    pub(crate) fn new(reader: R) -> Self {
        Self { reader, number: 0, line_bytes_max: MAX_LINE_BYTES }
    }

    /// The next line without its end, `\n` or `\r\n`; `None` after the last.
    pub(crate) fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        self.number += 1;
        // The end of the line does not count towards the limit: two bytes more tell whether it is
        // exceeded.
        self.reader.by_ref().take(self.line_bytes_max + 2).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop_if(|last| *last == b'\n').is_some() {
            line.pop_if(|last| *last == b'\r');
        }
        if line.len() as u64 > self.line_bytes_max {
            let limit = self.line_bytes_max;
            let message =
                format!("the line has more than {limit} bytes, the limit of a script's line");
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        Ok(Some(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(script: &[u8]) -> Vec<Vec<u8>> {
        let mut lines = Lines::new(script);
        std::iter::from_fn(|| lines.next().unwrap()).collect()
    }

    #[test]
    fn lines_are_bytes_and_lose_their_ends() {
        assert_eq!(lines(b""), [&b""[..]; 0]);
        assert_eq!(lines(b"a\n\r\n\nb\r\n\xff"), [&b"a"[..], b"", b"", b"b", b"\xff"]);
        assert_eq!(lines(b"a\n"), [b"a"]);
    }

    #[test]
    fn a_line_has_a_limit() {
        let read = |script: &[u8]| {
            let mut lines = Lines { reader: script, number: 0, line_bytes_max: 3 };
            lines.next().map(|line| (line, lines.number))
        };
        assert_eq!(read(b"ab\r\n").unwrap(), (Some(b"ab".to_vec()), 1));
        assert_eq!(read(b"abc\r\n").unwrap(), (Some(b"abc".to_vec()), 1));
        assert_eq!(read(b"abc").unwrap(), (Some(b"abc".to_vec()), 1));
        assert!(read(b"abcd\n").is_err());
        assert!(read(b"abcde\r\n").is_err());
    }
}
