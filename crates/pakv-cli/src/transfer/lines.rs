//! jsonl and tsv: a row is a line, and a line ends at a newline and nothing else.

use std::io::{self, BufRead, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;

use super::meter::Meter;
use super::{ReadError, ReadRows, Row, WriteError, WriteRows, checked};
use crate::output::JsonLine;

/// Reads lines and has each parsed.
pub(super) struct Reader<R> {
    source: R,
    meter: Meter,
    parse: fn(&[u8]) -> Result<Row, String>,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Reader<R> {
    pub(super) fn new(source: R, meter: Meter, parse: fn(&[u8]) -> Result<Row, String>) -> Self {
        Self { source, meter, parse, line: 0, buffer: Vec::new() }
    }
}

impl<R: BufRead> ReadRows for Reader<R> {
    fn next_row(&mut self) -> Option<Result<Row, ReadError>> {
        self.buffer.clear();
        self.line += 1;
        let line = self.line;
        match self.source.read_until(b'\n', &mut self.buffer) {
            Ok(0) => return None,
            Ok(_) => {}
            Err(_) if self.meter.is_over_limit() => {
                let reason = "it is longer than any key and value can be".to_string();
                return Some(Err(ReadError::Unreadable { line, reason }));
            }
            Err(error) => return Some(Err(ReadError::Io(error))),
        }
        self.meter.row_ended();
        let text = self.buffer.strip_suffix(b"\n").unwrap_or(&self.buffer);
        let row = (self.parse)(text).and_then(checked);
        Some(row.map_err(|reason| ReadError::BadLine { line, reason }))
    }
}

/// Writes rows as lines.
pub(super) struct Writer<W> {
    sink: W,
    write: fn(&Row, &mut W) -> Result<(), WriteError>,
}

impl<W: Write> Writer<W> {
    pub(super) fn new(sink: W, write: fn(&Row, &mut W) -> Result<(), WriteError>) -> Self {
        Self { sink, write }
    }
}

impl<W: Write> WriteRows for Writer<W> {
    fn write_row(&mut self, row: &Row) -> Result<(), WriteError> {
        (self.write)(row, &mut self.sink)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.sink.flush()
    }
}

/// The fields of a line. A field that is not among them is an error: a misspelt expiry must not be
/// lost silently.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRow {
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    expires_at_ms: Option<u64>,
}

pub(super) fn parse_json(line: &[u8]) -> Result<Row, String> {
    if line.iter().all(u8::is_ascii_whitespace) {
        return Err("it is empty".to_string());
    }
    // An array of the fields' values is an object too, for serde.
    if line.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object; each line is to be one".to_string());
    }
    let json: JsonRow = serde_json::from_slice(line).map_err(|error| json_reason(&error))?;
    Ok(Row {
        key: bytes("key", json.key, json.key_base64)?,
        value: bytes("value", json.value, json.value_base64)?,
        expires_at_ms: json.expires_at_ms,
    })
}

/// serde_json counts lines within what it is given, which is always line 1 here.
fn json_reason(error: &serde_json::Error) -> String {
    error.to_string().replace(" at line 1 column ", " at column ")
}

fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => {
            BASE64.decode(base64).map_err(|error| format!("{name}_base64 is not base64: {error}"))
        }
        (None, None) => Err(format!("it has no {name}")),
        (Some(_), Some(_)) => Err(format!("it has both {name} and {name}_base64")),
    }
}

pub(super) fn write_json<W: Write>(row: &Row, sink: &mut W) -> Result<(), WriteError> {
    let mut line = JsonLine::new().entry(&row.key, &row.value, row.expires_at_ms).into_bytes();
    line.push(b'\n');
    Ok(sink.write_all(&line)?)
}

pub(super) fn parse_tsv(line: &[u8]) -> Result<Row, String> {
    let tab =
        line.iter().position(|byte| *byte == b'\t').ok_or("it has no tab between key and value")?;
    let (key, value) = (&line[..tab], &line[tab + 1..]);
    Ok(Row { key: key.to_vec(), value: value.to_vec(), expires_at_ms: None })
}

pub(super) fn write_tsv<W: Write>(row: &Row, sink: &mut W) -> Result<(), WriteError> {
    if row.key.contains(&b'\t') {
        return Err(WriteError::NotCarried("its key holds a tab"));
    }
    if row.key.contains(&b'\n') {
        return Err(WriteError::NotCarried("its key holds a newline"));
    }
    if row.value.contains(&b'\n') {
        return Err(WriteError::NotCarried("its value holds a newline"));
    }
    sink.write_all(&row.key)?;
    sink.write_all(b"\t")?;
    sink.write_all(&row.value)?;
    Ok(sink.write_all(b"\n")?)
}
