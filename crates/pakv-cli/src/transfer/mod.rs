//! The file formats of `import` and `export`: rows in, rows out. Streams bytes and knows no store.
//!
//! jsonl and csv carry any bytes and expiries exactly. tsv carries what fits a line, exactly too:
//! nothing is escaped, so that a table from elsewhere comes in as it is and goes out as it came.

use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use pakv::{MAX_KEY_BYTES, MAX_VALUE_BYTES};

use crate::args::FileFormat;

mod csv;
mod lines;
mod meter;

use meter::Metered;

pub(crate) use meter::Meter;

/// A key and its value on their way in or out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    /// Milliseconds since 1970.
    pub(crate) expires_at_ms: Option<u64>,
}

/// Why there is no next row.
#[derive(Debug)]
pub(crate) enum ReadError {
    /// This line is no row; the next may be one.
    BadLine { line: u64, reason: String },
    /// No line can be told from the next any more.
    Unreadable { line: u64, reason: String },
    /// The operating system refused to go on.
    Io(io::Error),
}

/// Why a row was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The format cannot carry it.
    NotCarried(&'static str),
    /// The operating system refused.
    Io(io::Error),
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        WriteError::Io(error)
    }
}

/// Reads the rows of one format. `None`: the end.
pub(crate) trait ReadRows {
    fn next_row(&mut self) -> Option<Result<Row, ReadError>>;
}

/// Writes the rows of one format.
pub(crate) trait WriteRows {
    fn write_row(&mut self, row: &Row) -> Result<(), WriteError>;
    /// Hands what is buffered to the stream below. Must come last: nothing is flushed otherwise.
    fn finish(self: Box<Self>) -> io::Result<()>;
}

/// A reader of `format` over `source`, and what tells how far it has read.
pub(crate) fn reader<'a, R: Read + 'a>(
    format: FileFormat,
    source: R,
) -> (Box<dyn ReadRows + 'a>, Meter) {
    reader_with_limit(format, source, row_limit(format))
}

fn reader_with_limit<'a, R: Read + 'a>(
    format: FileFormat,
    source: R,
    limit: u64,
) -> (Box<dyn ReadRows + 'a>, Meter) {
    let source = Metered::new(source, limit);
    let meter = source.meter();
    let lines = |source, parse| lines::Reader::new(BufReader::new(source), meter.clone(), parse);
    let rows: Box<dyn ReadRows + 'a> = match format {
        FileFormat::Jsonl => Box::new(lines(source, lines::parse_json)),
        FileFormat::Tsv => Box::new(lines(source, lines::parse_tsv)),
        FileFormat::Csv => Box::new(csv::Reader::new(source, meter.clone())),
    };
    (rows, meter)
}

/// The most bytes that a row may take in a file: the longest key and value in the longest way to
/// write them, and room for names and buffers.
fn row_limit(format: FileFormat) -> u64 {
    const BYTES: u64 = MAX_KEY_BYTES as u64 + MAX_VALUE_BYTES as u64;
    const ROOM: u64 = 1 << 20;
    let written_as = match format {
        FileFormat::Tsv => 1,
        // Every byte a quote, which is doubled.
        FileFormat::Csv => 2,
        // Every byte as \u0000.
        FileFormat::Jsonl => 6,
    };
    written_as * BYTES + ROOM
}

/// A writer of `format` onto `sink`, which should be buffered.
pub(crate) fn writer<'a>(
    format: FileFormat,
    sink: impl Write + 'a,
) -> io::Result<Box<dyn WriteRows + 'a>> {
    Ok(match format {
        FileFormat::Jsonl => Box::new(lines::Writer::new(sink, lines::write_json)),
        FileFormat::Tsv => Box::new(lines::Writer::new(sink, lines::write_tsv)),
        FileFormat::Csv => Box::new(csv::Writer::new(sink)?),
    })
}

/// Refuses what the store would, so that the line it is on can be named.
fn checked(row: Row) -> Result<Row, String> {
    match (row.key.len(), row.value.len()) {
        (0, _) => Err("its key is empty".to_string()),
        (len, _) if len > MAX_KEY_BYTES => {
            Err(format!("its key has {len} bytes; the limit is {MAX_KEY_BYTES}"))
        }
        (_, len) if len > MAX_VALUE_BYTES => {
            Err(format!("its value has {len} bytes; the limit is {MAX_VALUE_BYTES}"))
        }
        _ => Ok(row),
    }
}

/// The format that a file's name promises.
pub(crate) fn format_of(path: &Path) -> Option<FileFormat> {
    let extension = path.extension()?.to_str()?.to_ascii_lowercase();
    match extension.as_str() {
        "jsonl" | "ndjson" | "json" => Some(FileFormat::Jsonl),
        "tsv" | "tab" => Some(FileFormat::Tsv),
        "csv" => Some(FileFormat::Csv),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(format: FileFormat, text: &[u8]) -> Vec<Result<Row, (u64, String)>> {
        let (mut reader, _) = reader(format, text);
        let mut rows = Vec::new();
        while let Some(row) = reader.next_row() {
            rows.push(row.map_err(|error| match error {
                ReadError::BadLine { line, reason } | ReadError::Unreadable { line, reason } => {
                    (line, reason)
                }
                ReadError::Io(error) => panic!("{error}"),
            }));
        }
        rows
    }

    fn row(key: &[u8], value: &[u8], expires_at_ms: Option<u64>) -> Row {
        Row { key: key.to_vec(), value: value.to_vec(), expires_at_ms }
    }

    /// Every byte, and the pairs of bytes that formats trip over, in key and value.
    fn awkward_rows() -> Vec<Row> {
        let mut rows = Vec::new();
        let mut add = |bytes: &[u8]| {
            rows.push(row(bytes, b"", None));
            rows.push(row(b"k", bytes, Some(u64::MAX)));
            rows.push(row(bytes, bytes, Some(0)));
        };
        for byte in 0..=u8::MAX {
            add(&[byte]);
        }
        let special = b"\r\n\t\"\\,\0 #\xff{";
        for a in special {
            for b in special {
                add(&[*a, *b]);
                add(&[b'x', *a, *b, b'y']);
            }
        }
        add(&(0..=u8::MAX).collect::<Vec<_>>());
        add("\u{feff}byte order mark, \u{10ffff}\u{2028}".as_bytes());
        rows
    }

    #[test]
    fn jsonl_and_csv_carry_any_bytes_and_expiries() {
        for format in [FileFormat::Jsonl, FileFormat::Csv] {
            let rows = awkward_rows();
            let mut file = Vec::new();
            let mut writer = writer(format, &mut file).unwrap();
            for row in &rows {
                writer.write_row(row).unwrap();
            }
            writer.finish().unwrap();
            let back: Vec<Row> = read_all(format, &file).into_iter().map(Result::unwrap).collect();
            assert_eq!(back.len(), rows.len(), "{format:?}");
            for (back, row) in back.iter().zip(&rows) {
                assert_eq!(back, row, "{format:?}");
            }
        }
    }

    #[test]
    fn tsv_carries_a_row_exactly_or_refuses_it() {
        for wanted in awkward_rows() {
            let mut file = Vec::new();
            let mut writer = writer(FileFormat::Tsv, &mut file).unwrap();
            let written = writer.write_row(&wanted);
            writer.finish().unwrap();
            if written.is_err() {
                let fits = !wanted.key.contains(&b'\t')
                    && !wanted.key.contains(&b'\n')
                    && !wanted.value.contains(&b'\n');
                assert!(!fits, "{wanted:?}");
                assert_eq!(file, b"");
                continue;
            }
            let back = read_all(FileFormat::Tsv, &file);
            assert_eq!(back, [Ok(row(&wanted.key, &wanted.value, None))]);
        }
    }

    #[test]
    fn tsv_values_go_to_the_end_of_the_line() {
        let rows = read_all(FileFormat::Tsv, b"a\t1\t2\\n\r\nb\t\nc\tlast");
        let wanted =
            [row(b"a", b"1\t2\\n\r", None), row(b"b", b"", None), row(b"c", b"last", None)];
        assert_eq!(rows, wanted.map(Ok));
    }

    #[test]
    fn bad_lines_have_their_number_and_do_not_stop_the_reader() {
        let tsv = read_all(FileFormat::Tsv, b"a\t1\nno tab\n\tno key\n\nb\t2\n");
        let bad: Vec<u64> =
            tsv.iter().filter_map(|row| row.as_ref().err()).map(|bad| bad.0).collect();
        assert_eq!((tsv.len(), bad), (5, vec![2, 3, 4]));

        let lines = [
            r#"{"key":"a","value":"1"}"#,
            r#"{"key":"a"}"#,
            r#"{"value":"1"}"#,
            r#"{"key":"a","value":1}"#,
            r#"{"key":"a","value":"1","expires":5}"#,
            r#"{"key":"a","key_base64":"YQ==","value":"1"}"#,
            r#"{"key_base64":"?","value":"1"}"#,
            r#"{"key":"","value":"1"}"#,
            r#"{"key":"a","value":"1","expires_at_ms":-1}"#,
            r#"{"key":"a","value":"\ud800"}"#,
            r#"["a","1"]"#,
            "",
            "{\"key\":\"a\",\"value\":\"\u{1}\"}",
            r#"{"key":"a","value":"1"} x"#,
            r#"{"key_base64":"YQ==","value_base64":"","expires_at_ms":null}"#,
        ];
        let jsonl = read_all(FileFormat::Jsonl, lines.join("\n").as_bytes());
        assert_eq!(jsonl.len(), lines.len());
        assert_eq!(jsonl[0], Ok(row(b"a", b"1", None)));
        assert_eq!(jsonl[14], Ok(row(b"a", b"", None)));
        for (index, bad) in jsonl[1..14].iter().enumerate() {
            let (line, reason) = bad.as_ref().unwrap_err();
            assert_eq!(*line, index as u64 + 2, "{reason}");
        }
    }

    #[test]
    fn csv_columns_are_found_by_name() {
        let rows =
            read_all(FileFormat::Csv, b"value,key\n\"1,\n2\",a\nshort\n3,b,extra\n4,\n5,c\n");
        assert_eq!(rows.len(), 5);
        assert_eq!(rows[0], Ok(row(b"a", b"1,\n2", None)));
        let bad: Vec<u64> =
            rows.iter().filter_map(|row| row.as_ref().err()).map(|bad| bad.0).collect();
        assert_eq!(bad, [4, 5, 6]);
        assert_eq!(rows[4], Ok(row(b"c", b"5", None)));

        let expiring =
            read_all(FileFormat::Csv, b"key,value,expires_at_ms\na,1,7\nb,2,\nc,3,soon\n");
        assert_eq!(expiring[0], Ok(row(b"a", b"1", Some(7))));
        assert_eq!(expiring[1], Ok(row(b"b", b"2", None)));
        assert!(expiring[2].is_err());

        for headless in [&b"a,1\nb,2\n"[..], b"key,value,key\n", b"key,value,colour\n"] {
            let rows = read_all(FileFormat::Csv, headless);
            assert!(matches!(&rows[..], [Err((1, _))]), "{rows:?}");
        }
        assert!(read_all(FileFormat::Csv, b"").is_empty());
    }

    #[test]
    fn an_endless_line_is_refused_not_read() {
        for format in [FileFormat::Tsv, FileFormat::Jsonl, FileFormat::Csv] {
            let endless = io::repeat(b'x').take(1 << 30);
            let (mut reader, _) = reader_with_limit(format, endless, 1 << 16);
            let error = reader.next_row().unwrap().unwrap_err();
            assert!(matches!(error, ReadError::Unreadable { line: 1, .. }), "{error:?}");
        }
    }

    #[test]
    fn formats_by_name() {
        assert_eq!(format_of(Path::new("a/b.JSONL")), Some(FileFormat::Jsonl));
        assert_eq!(format_of(Path::new("b.tsv")), Some(FileFormat::Tsv));
        assert_eq!(format_of(Path::new("b.csv")), Some(FileFormat::Csv));
        assert_eq!(format_of(Path::new("csv")), None);
        assert_eq!(format_of(Path::new("b.txt")), None);
    }
}
