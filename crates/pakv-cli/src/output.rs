//! How bytes become text: escaping for terminals, JSON for programs, sizes for people. Pure.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Serialize;

/// Escapes bytes so that they fit one line of a terminal: newline, tab, carriage return and
/// backslash as `\n`, `\t`, `\r`, `\\`; other control characters and bytes that are not UTF-8 as
/// `\xNN`.
pub(crate) fn escape_line(bytes: &[u8]) -> String {
    escape(bytes, |char| match char {
        '\n' => Some("\\n"),
        '\t' => Some("\\t"),
        '\r' => Some("\\r"),
        '\\' => Some("\\\\"),
        _ => None,
    })
}

/// The directory that a file is in, `.` for one that is named alone.
pub(crate) fn directory_of(file: &Path) -> &Path {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// A path as it is typed in a shell.
pub(crate) fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+,:@%=".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Escapes what would garble a terminal and leaves text as it is: newlines, tabs and backslashes
/// stay.
pub(crate) fn escape_text(bytes: &[u8]) -> String {
    escape(bytes, |char| match char {
        '\n' => Some("\n"),
        '\t' => Some("\t"),
        _ => None,
    })
}

/// Control characters and bytes that are not UTF-8 as `\xNN`; `instead` names what is written for a
/// character that is neither itself nor `\xNN`.
pub(crate) fn escape(bytes: &[u8], instead: impl Fn(char) -> Option<&'static str>) -> String {
    fn push_hex(text: &mut String, bytes: &[u8]) {
        for byte in bytes {
            // Writing to a String cannot fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            match instead(char) {
                Some(escaped) => text.push_str(escaped),
                None if char.is_control() => {
                    push_hex(&mut text, char.encode_utf8(&mut [0; 4]).as_bytes());
                }
                None => text.push(char),
            }
        }
        push_hex(&mut text, chunk.invalid());
    }
    text
}

/// One JSON object on one line, its fields in the order they are added.
#[derive(Debug)]
pub(crate) struct JsonLine(Vec<u8>);

impl JsonLine {
    pub(crate) fn new() -> Self {
        Self(vec![b'{'])
    }

    /// Adds a field.
    pub(crate) fn field(mut self, name: &str, value: impl Serialize) -> Self {
        if self.0.len() > 1 {
            self.0.push(b',');
        }
        self.push_json(name);
        self.0.push(b':');
        self.push_json(value);
        self
    }

    /// Adds bytes: as a string under `name` if they are UTF-8, else in base64 under `name_base64`.
    pub(crate) fn bytes(self, name: &str, bytes: &[u8]) -> Self {
        match str::from_utf8(bytes) {
            Ok(text) => self.field(name, text),
            Err(_) => self.field(&format!("{name}_base64"), BASE64.encode(bytes)),
        }
    }

    /// Adds key and value, and the expiry if there is one: the shape of an entry everywhere.
    pub(crate) fn entry(self, key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Self {
        self.bytes("key", key).bytes("value", value).expiry(expires_at_ms)
    }

    /// Adds the expiry if there is one.
    pub(crate) fn expiry(self, expires_at_ms: Option<u64>) -> Self {
        match expires_at_ms {
            Some(at) => self.field("expires_at_ms", at),
            None => self,
        }
    }

    /// Adds a list of bytes, as [`bytes`](Self::bytes) adds one: those that are UTF-8 under `name`,
    /// the others under `name_base64`; nothing where there are none.
    pub(crate) fn list<'a>(self, name: &str, list: impl Iterator<Item = &'a [u8]>) -> Self {
        let (mut texts, mut others) = (Vec::new(), Vec::new());
        for bytes in list {
            match str::from_utf8(bytes) {
                Ok(text) => texts.push(text),
                Err(_) => others.push(BASE64.encode(bytes)),
            }
        }
        let line = if texts.is_empty() { self } else { self.field(name, texts) };
        if others.is_empty() { line } else { line.field(&format!("{name}_base64"), others) }
    }

    /// The object, without a newline.
    pub(crate) fn into_bytes(mut self) -> Vec<u8> {
        self.0.push(b'}');
        self.0
    }

    /// The object, without a newline.
    pub(crate) fn into_string(self) -> String {
        String::from_utf8_lossy(&self.into_bytes()).into_owned()
    }

    fn push_json(&mut self, value: impl Serialize) {
        // Strings, numbers, lists and plain structs, written to memory: there is nothing that could
        // fail.
        let written = serde_json::to_writer(&mut self.0, &value);
        debug_assert!(written.is_ok(), "{written:?}");
    }
}

/// A size for people: 999 B, 1.0 KiB, 64.0 MiB.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // The unit by the bits, the digits by tenths in integers: no rounding up to 1024.0.
    let unit = (bytes.ilog2() / 10).max(1);
    let tenths = u128::from(bytes) * 10 / (1u128 << (10 * unit));
    let name = UNITS.get(unit as usize - 1).copied().unwrap_or("");
    format!("{}.{} {name}", tenths / 10, tenths % 10)
}

/// A count for people: 1,234,567.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration as machines are told it: whole milliseconds, rounded down.
pub(crate) fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A count with its noun: 1 key, 2,000 keys. Nouns whose plural is not an added s are not used.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    let plural = match noun.strip_suffix("entry") {
        Some(stem) => format!("{stem}entries"),
        None => format!("{noun}s"),
    };
    format!("{} {}", count(number), if number == 1 { noun } else { &plural })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_blanks_is_quoted() {
        assert_eq!(quoted(Path::new("/srv/a-b_1.2/x")), "/srv/a-b_1.2/x");
        assert_eq!(quoted(Path::new("my store's")), r"'my store'\''s'");
        assert_eq!(quoted(Path::new("")), "''");
    }

    #[test]
    fn escaping_for_one_line() {
        assert_eq!(escape_line("grün \u{1f511}".as_bytes()), "grün \u{1f511}");
        assert_eq!(escape_line(b"a\nb\tc\rd\\e"), "a\\nb\\tc\\rd\\\\e");
        assert_eq!(escape_line(b"\0\x1b[31m\x7f"), "\\x00\\x1b[31m\\x7f");
        assert_eq!(escape_line(b"\xff\xc3"), "\\xff\\xc3");
        assert_eq!(escape_line("\u{85}".as_bytes()), "\\xc2\\x85");
    }

    #[test]
    fn escaping_of_text_keeps_its_lines() {
        assert_eq!(escape_text(b"a\tb\nc:\\d"), "a\tb\nc:\\d");
        assert_eq!(escape_text(b"\x1b]0;title\x07\xfe"), "\\x1b]0;title\\x07\\xfe");
    }

    #[test]
    fn json_is_text_or_base64() {
        let line = JsonLine::new().entry("k\"é".as_bytes(), b"\xff\0", Some(5)).into_string();
        assert_eq!(line, r#"{"key":"k\"é","value_base64":"/wA=","expires_at_ms":5}"#);
        assert_eq!(JsonLine::new().into_string(), "{}");
        assert_eq!(JsonLine::new().bytes("key", b"\0\n").into_string(), r#"{"key":"\u0000\n"}"#);
    }

    #[test]
    fn sizes_and_counts() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1024), "1.0 KiB");
        assert_eq!(size(1024 * 1024 - 1), "1023.9 KiB");
        assert_eq!(size(64 << 20), "64.0 MiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
        assert_eq!(count(7), "7");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(counted(1, "entry"), "1 entry");
        assert_eq!(counted(2000, "key"), "2,000 keys");
        assert_eq!(counted(2, "entry"), "2 entries");
    }
}
