//! csv: the first line names the columns, fields are quoted where they need it, and may then hold
//! anything.

use std::io::{self, Read, Write};

use csv::{ByteRecord, Terminator};

use super::meter::Meter;
use super::{ReadError, ReadRows, Row, WriteError, WriteRows, checked};

const COLUMNS: [&str; 3] = ["key", "value", "expires_at_ms"];

/// Reads records under a header.
pub(super) struct Reader<R> {
    records: csv::Reader<R>,
    meter: Meter,
    /// `None` until the header is read.
    columns: Option<Columns>,
    record: ByteRecord,
    /// After a bad header or an unreadable record nothing that follows means anything.
    ended: bool,
}

/// Where the columns are.
#[derive(Clone, Copy)]
struct Columns {
    key: usize,
    value: usize,
    expires_at_ms: Option<usize>,
    count: usize,
}

impl<R: Read> Reader<R> {
    pub(super) fn new(source: R, meter: Meter) -> Self {
        let records =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(source);
        Self { records, meter, columns: None, record: ByteRecord::new(), ended: false }
    }

    /// Reads the next record into `self.record`; false at the end.
    fn advance(&mut self) -> Result<bool, ReadError> {
        let read = self.records.read_byte_record(&mut self.record);
        let line = self.records.position().line();
        if read.is_ok() {
            self.meter.row_ended();
        }
        read.map_err(|error| {
            let over_limit = self.meter.is_over_limit();
            match error.into_kind() {
                csv::ErrorKind::Io(_) if over_limit => {
                    let reason = "it is longer than any key and value can be".to_string();
                    ReadError::Unreadable { line, reason }
                }
                csv::ErrorKind::Io(error) => ReadError::Io(error),
                other => ReadError::Unreadable { line, reason: format!("{other:?}") },
            }
        })
    }

    fn line(&self) -> u64 {
        self.record.position().map_or(0, csv::Position::line)
    }

    fn row(&mut self) -> Result<Option<Row>, ReadError> {
        let columns = match self.columns {
            Some(columns) => columns,
            None => {
                if !self.advance()? {
                    return Ok(None);
                }
                let columns = columns_of(&self.record)
                    .map_err(|reason| ReadError::Unreadable { line: 1, reason })?;
                *self.columns.insert(columns)
            }
        };
        if !self.advance()? {
            return Ok(None);
        }
        let line = self.line();
        row_of(&self.record, columns)
            .and_then(checked)
            .map(Some)
            .map_err(|reason| ReadError::BadLine { line, reason })
    }
}

impl<R: Read> ReadRows for Reader<R> {
    fn next_row(&mut self) -> Option<Result<Row, ReadError>> {
        if self.ended {
            return None;
        }
        let row = self.row();
        self.ended = matches!(row, Err(ReadError::Unreadable { .. } | ReadError::Io(_)));
        row.transpose()
    }
}

fn columns_of(header: &ByteRecord) -> Result<Columns, String> {
    let mut places = [None; COLUMNS.len()];
    for (place, name) in header.iter().enumerate() {
        let known = COLUMNS.iter().position(|column| column.as_bytes() == name);
        let slot = known.and_then(|column| places.get_mut(column)).ok_or_else(|| {
            let name = crate::failure::key_name(name);
            format!("it should name the columns {}; it names {name}", COLUMNS.join(", "))
        })?;
        if slot.replace(place).is_some() {
            return Err("it names a column twice".to_string());
        }
    }
    match places {
        [Some(key), Some(value), expires_at_ms] => {
            Ok(Columns { key, value, expires_at_ms, count: header.len() })
        }
        _ => Err("it should name the columns key and value".to_string()),
    }
}

fn row_of(record: &ByteRecord, columns: Columns) -> Result<Row, String> {
    if record.len() != columns.count {
        return Err(format!("it has {} fields, the header has {}", record.len(), columns.count));
    }
    let field = |place: usize| record.get(place).unwrap_or_default();
    let expires_at_ms = match columns.expires_at_ms.map(field) {
        None | Some(b"") => None,
        Some(digits) => {
            let parsed = str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            Some(parsed.ok_or("its expires_at_ms is not a whole number of milliseconds")?)
        }
    };
    Ok(Row {
        key: field(columns.key).to_vec(),
        value: field(columns.value).to_vec(),
        expires_at_ms,
    })
}

/// Writes records under a header.
pub(super) struct Writer<W: Write>(csv::Writer<W>);

impl<W: Write> Writer<W> {
    pub(super) fn new(sink: W) -> io::Result<Self> {
        let mut records =
            csv::WriterBuilder::new().terminator(Terminator::Any(b'\n')).from_writer(sink);
        records.write_record(COLUMNS).map_err(io_error)?;
        Ok(Self(records))
    }
}

impl<W: Write> WriteRows for Writer<W> {
    fn write_row(&mut self, row: &Row) -> Result<(), WriteError> {
        let expires_at_ms = row.expires_at_ms.map(|at| at.to_string()).unwrap_or_default();
        let fields = [&row.key[..], &row.value[..], expires_at_ms.as_bytes()];
        Ok(self.0.write_byte_record(&ByteRecord::from(&fields[..])).map_err(io_error)?)
    }

    fn finish(mut self: Box<Self>) -> io::Result<()> {
        self.0.flush()
    }
}

/// A record of three fields under a header of three: only the stream can fail, which keeps its
/// kind.
fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    }
}
