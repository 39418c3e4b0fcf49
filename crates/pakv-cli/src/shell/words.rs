//! Lines to words and words to lines: the quoting rules of docs/shell.md, and their one home.
//!
//! Pure: bytes in, bytes out. A line is never read as something else than it says: whatever has no
//! meaning here (a quote in the middle of a word, a backslash outside quotes, an unknown escape) is
//! an error, never a guess. And what [`quote`] writes, [`split`] reads back, byte for byte.

use std::fmt;

use crate::output;

/// How a word is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// As it is.
    Bare,
    /// Between `'`, as it is.
    Single,
    /// Between `"`, with escapes: any bytes at all.
    Double,
}

/// A word of a line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Word {
    /// What the word says, quotes and escapes resolved.
    pub(crate) bytes: Vec<u8>,
    /// The offset in the line at which its text begins: its quote, where it has one, past the `=`
    /// of `--option=`.
    pub(crate) text_offset: usize,
    /// How many of `bytes` stand before `text_offset`: `--option=`, or none.
    pub(crate) option_len: usize,
    /// How it was written.
    pub(crate) style: Style,
    /// False where the line ended before the quote did; only the last word can be open.
    pub(crate) closed: bool,
}

impl Word {
    /// A word that begins at `offset` and says nothing yet.
    pub(crate) fn empty(offset: usize) -> Self {
        Self {
            bytes: Vec::new(),
            text_offset: offset,
            option_len: 0,
            style: Style::Bare,
            closed: true,
        }
    }
}

/// Why a line has no words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Which character of the line is at fault, counted from 1.
    pub(crate) column: usize,
    pub(crate) fault: Fault,
}

/// What is wrong at that column.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    UnclosedQuote(u8),
    QuoteInsideWord(u8),
    TextAfterQuote,
    BackslashOutsideQuotes,
    UnknownEscape,
    HexDigits,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.fault {
            Fault::UnclosedQuote(quote) => {
                write!(f, "the quote {} is not closed", quote as char)?;
            }
            Fault::QuoteInsideWord(quote) => {
                write!(f, "there is a quote {} inside a word", quote as char)?;
            }
            Fault::TextAfterQuote => f.write_str("a blank is missing after a closing quote")?,
            Fault::BackslashOutsideQuotes => f.write_str("there is a backslash outside quotes")?,
            Fault::UnknownEscape => f.write_str("there is no such escape")?,
            Fault::HexDigits => f.write_str("\\x is not followed by two hex digits")?,
        }
        write!(f, " (column {})", self.column)
    }
}

impl SyntaxError {
    /// The next step, for whoever wrote the line.
    pub(crate) fn hint(&self) -> &'static str {
        match self.fault {
            Fault::UnclosedQuote(_) => {
                "a quoted word ends on its own line; inside \"...\" a newline is \\n"
            }
            Fault::QuoteInsideWord(_) | Fault::TextAfterQuote => {
                "put the whole word in quotes: 'he said \"hi\"' or \"it's\""
            }
            Fault::BackslashOutsideQuotes => {
                "write 'a\\b' for the backslash itself, \"a\\nb\" for an escape"
            }
            Fault::UnknownEscape | Fault::HexDigits => {
                "the escapes are \\n \\t \\r \\0 \\\\ \\\" and \\x with two hex digits"
            }
        }
    }
}

/// The words of a line. A line of blanks, and one whose first word begins with `#`, has none.
pub(crate) fn split(line: &[u8]) -> Result<Vec<Word>, SyntaxError> {
    let words = split_open(line)?;
    match words.last() {
        Some(last) if !last.closed => {
            Err(error(line, last.text_offset, Fault::UnclosedQuote(line[last.text_offset])))
        }
        _ => Ok(words),
    }
}

/// As [`split`], for a line that is still being typed: its last quote may be open.
pub(crate) fn split_open(line: &[u8]) -> Result<Vec<Word>, SyntaxError> {
    let mut lexer = Lexer { line, offset: 0 };
    let mut words = Vec::new();
    while lexer.skip_blanks() {
        if words.is_empty() && lexer.peek() == Some(b'#') {
            break;
        }
        words.push(lexer.word()?);
    }
    Ok(words)
}

/// Writes a word so that [`split`] reads these bytes: bare if it can, else in the quotes that read
/// best.
pub(crate) fn quote(bytes: &[u8]) -> String {
    let style = [Style::Bare, Style::Single].into_iter().find(|style| fits(*style, bytes));
    write_as(style.unwrap_or(Style::Double), bytes)
}

/// Whether these bytes can be written so. Everything fits [`Style::Double`].
pub(crate) fn fits(style: Style, bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return style == Style::Double;
    };
    match style {
        Style::Bare => {
            let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"\"'\\".contains(c);
            !text.is_empty() && !text.starts_with('#') && text.chars().all(plain)
        }
        Style::Single => text.chars().all(|c| !c.is_control() && c != '\''),
        Style::Double => true,
    }
}

/// Writes a word in a style that it [`fits`].
pub(crate) fn write_as(style: Style, bytes: &[u8]) -> String {
    match style {
        Style::Bare => String::from_utf8_lossy(bytes).into_owned(),
        Style::Single => format!("'{}'", String::from_utf8_lossy(bytes)),
        Style::Double => double_quoted(bytes),
    }
}

fn double_quoted(bytes: &[u8]) -> String {
    let escaped = output::escape(bytes, |char| match char {
        '\n' => Some("\\n"),
        '\t' => Some("\\t"),
        '\r' => Some("\\r"),
        '\0' => Some("\\0"),
        '\\' => Some("\\\\"),
        '"' => Some("\\\""),
        _ => None,
    });
    format!("\"{escaped}\"")
}

struct Lexer<'a> {
    line: &'a [u8],
    offset: usize,
}

impl Lexer<'_> {
    fn peek(&self) -> Option<u8> {
        self.line.get(self.offset).copied()
    }

    /// Whether anything follows the blanks.
    fn skip_blanks(&mut self) -> bool {
        while self.peek().is_some_and(is_blank) {
            self.offset += 1;
        }
        self.offset < self.line.len()
    }

    /// Reads the word that begins here.
    fn word(&mut self) -> Result<Word, SyntaxError> {
        let mut word = Word::empty(self.offset);
        while let Some(byte) = self.peek().filter(|byte| !is_blank(*byte)) {
            match byte {
                b'\'' | b'"' if word.bytes.len() == word.option_len => {
                    return self.quoted(word, byte);
                }
                b'\'' | b'"' => return Err(self.error(Fault::QuoteInsideWord(byte))),
                b'\\' => return Err(self.error(Fault::BackslashOutsideQuotes)),
                byte => word.bytes.push(byte),
            }
            self.offset += 1;
            if byte == b'=' && word.option_len == 0 && word.bytes.starts_with(b"--") {
                word.option_len = word.bytes.len();
                word.text_offset = self.offset;
            }
        }
        Ok(word)
    }

    /// Reads the rest of a word from its opening quote on.
    fn quoted(&mut self, mut word: Word, quote: u8) -> Result<Word, SyntaxError> {
        word.style = if quote == b'"' { Style::Double } else { Style::Single };
        word.closed = false;
        self.offset += 1;
        while let Some(byte) = self.peek() {
            match byte {
                b'\\' if quote == b'"' => match self.escape()? {
                    Some(byte) => word.bytes.push(byte),
                    None => break,
                },
                byte if byte == quote => {
                    self.offset += 1;
                    word.closed = true;
                    break;
                }
                byte => {
                    word.bytes.push(byte);
                    self.offset += 1;
                }
            }
        }
        if word.closed && self.peek().is_some_and(|byte| !is_blank(byte)) {
            return Err(self.error(Fault::TextAfterQuote));
        }
        Ok(word)
    }

    /// Reads an escape from its backslash on; `None` where the line ends in the middle of it.
    fn escape(&mut self) -> Result<Option<u8>, SyntaxError> {
        let rest = &self.line[self.offset + 1..];
        let (byte, len) = match rest {
            [] | [b'x'] => (None, rest.len()),
            [b'x', high] if high.is_ascii_hexdigit() => (None, rest.len()),
            [b'x', high, low, ..] => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => (Some(high << 4 | low), 3),
                _ => return Err(self.error(Fault::HexDigits)),
            },
            [b'x', ..] => return Err(self.error(Fault::HexDigits)),
            [b'n', ..] => (Some(b'\n'), 1),
            [b't', ..] => (Some(b'\t'), 1),
            [b'r', ..] => (Some(b'\r'), 1),
            [b'0', ..] => (Some(0), 1),
            [byte @ (b'\\' | b'"'), ..] => (Some(*byte), 1),
            _ => return Err(self.error(Fault::UnknownEscape)),
        };
        self.offset += 1 + len;
        Ok(byte)
    }

    fn error(&self, fault: Fault) -> SyntaxError {
        error(self.line, self.offset, fault)
    }
}

fn error(line: &[u8], offset: usize, fault: Fault) -> SyntaxError {
    let before = String::from_utf8_lossy(&line[..offset]);
    SyntaxError { column: before.chars().count() + 1, fault }
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<Vec<u8>> {
        split(line.as_bytes()).unwrap().into_iter().map(|word| word.bytes).collect()
    }

    fn fault(line: &str) -> (usize, Fault) {
        let error = split(line.as_bytes()).unwrap_err();
        (error.column, error.fault)
    }

    #[test]
    fn words_are_split_at_blanks() {
        assert_eq!(words("  set \t key  value "), [&b"set"[..], b"key", b"value"]);
        assert_eq!(words(""), [&b""[..]; 0]);
        assert_eq!(words(" \t "), [&b""[..]; 0]);
        assert_eq!(words("a\u{a0}b"), ["a\u{a0}b".as_bytes()]);
    }

    #[test]
    fn a_comment_begins_a_line_and_nothing_else() {
        assert_eq!(words("# set a 'unclosed"), [&b""[..]; 0]);
        assert_eq!(words("  #"), [&b""[..]; 0]);
        assert_eq!(words("get #a"), [&b"get"[..], b"#a"]);
        assert_eq!(words("'#a'"), [&b"#a"[..]]);
    }

    #[test]
    fn double_quotes_have_escapes_and_single_quotes_none() {
        assert_eq!(words(r#""a b" 'c d'"#), [&b"a b"[..], b"c d"]);
        assert_eq!(words(r#""\n\t\r\0\\\"\x00\xfF'""#), [&b"\n\t\r\0\\\"\x00\xff'"[..]]);
        assert_eq!(words(r"'\n'"), [&b"\\n"[..]]);
        assert_eq!(words(r#""" ''"#), [&b""[..], b""]);
    }

    #[test]
    fn the_value_of_an_option_can_be_quoted() {
        assert_eq!(words(r#"--prefix="a b" --from='"'"#), [&b"--prefix=a b"[..], b"--from=\""]);
        assert_eq!(words("--a=b=c"), [&b"--a=b=c"[..]]);
        assert_eq!(fault(r#"--a=b="c""#), (7, Fault::QuoteInsideWord(b'"')));
        assert_eq!(fault(r#"a="b""#), (3, Fault::QuoteInsideWord(b'"')));
    }

    #[test]
    fn what_has_no_meaning_is_an_error_at_its_column() {
        assert_eq!(fault("get 'a b"), (5, Fault::UnclosedQuote(b'\'')));
        assert_eq!(fault("get \"a b\\"), (5, Fault::UnclosedQuote(b'"')));
        assert_eq!(fault("get \"a\\x4"), (5, Fault::UnclosedQuote(b'"')));
        assert_eq!(fault("set k {\"a\":1}"), (8, Fault::QuoteInsideWord(b'"')));
        assert_eq!(fault("set é it's"), (9, Fault::QuoteInsideWord(b'\'')));
        assert_eq!(fault("set 'a'b"), (8, Fault::TextAfterQuote));
        assert_eq!(fault("set 'a''b'"), (8, Fault::TextAfterQuote));
        assert_eq!(fault(r"set a\nb"), (6, Fault::BackslashOutsideQuotes));
        assert_eq!(fault(r#"set "a\qb""#), (7, Fault::UnknownEscape));
        assert_eq!(fault(r#"set "a\x4gb""#), (7, Fault::HexDigits));
        assert_eq!(fault(r#"set "a\x""#), (7, Fault::HexDigits));
    }

    #[test]
    fn a_line_may_hold_any_bytes() {
        let line = b"set \xff \"\xfe \x00\"";
        let words: Vec<_> = split(line).unwrap().into_iter().map(|word| word.bytes).collect();
        assert_eq!(words, [&b"set"[..], b"\xff", b"\xfe \x00"]);
    }

    #[test]
    fn an_open_word_says_where_it_began() {
        let words = split_open(br#"scan --prefix="us er\x0"#).unwrap();
        let last = words.last().unwrap();
        assert_eq!(last.bytes, b"--prefix=us er");
        assert_eq!((last.text_offset, last.option_len), (14, 9));
        assert_eq!((last.style, last.closed), (Style::Double, false));
    }

    #[test]
    fn a_word_is_written_as_it_reads_best() {
        assert_eq!(quote(b"user:1"), "user:1");
        assert_eq!(quote("größe".as_bytes()), "größe");
        assert_eq!(quote(b""), "''");
        assert_eq!(quote(b"#1"), "'#1'");
        assert_eq!(quote(b"a b"), "'a b'");
        assert_eq!(quote(br#"{"a":1}"#), r#"'{"a":1}'"#);
        assert_eq!(quote(b"it's"), r#""it's""#);
        assert_eq!(quote(b"a\n\"\xff\x01\0"), r#""a\n\"\xff\x01\0""#);
        assert_eq!(quote("\u{85}".as_bytes()), r#""\xc2\x85""#);
    }

    fn assert_round_trip(bytes: &[u8]) {
        for style in [Style::Bare, Style::Single, Style::Double] {
            if fits(style, bytes) {
                let line = format!("x {} y", write_as(style, bytes));
                let words = split(line.as_bytes()).unwrap();
                assert_eq!(words.len(), 3, "{line}");
                assert_eq!(words[1].bytes, bytes, "{line}");
            }
        }
    }

    #[test]
    fn every_pair_of_bytes_round_trips() {
        for first in 0..=255 {
            assert_round_trip(&[first]);
            for second in 0..=255 {
                assert_round_trip(&[first, second]);
            }
        }
    }

    #[test]
    fn every_character_round_trips_between_others() {
        for c in '\0'..='\u{3000}' {
            let mut word = [b'a'; 6];
            let len = c.encode_utf8(&mut word[1..]).len();
            assert_round_trip(&word[..len + 2]);
        }
    }
}
