//! What the corpora began with: inputs made from a table of real rows, and from stores that the
//! library wrote with them.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pakv::{Db, Durability, Expiry, Options, WriteBatch};
use pakv_testkit::sim::SimStorage;

use crate::recovery;

/// An input: its target, a name, and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// A key and the rest of its row.
pub type Row = (Vec<u8>, Vec<u8>);

/// What a step of it gives.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
/// Files with their names.
type Folder = Vec<(String, Vec<u8>)>;

/// Inputs for every target, from rows of a table.
///
/// # Errors
/// Those of the store, or of its files.
pub fn seeds(rows: &[Row]) -> Outcome<Vec<Seed>> {
    let mut seeds: Vec<Seed> = Vec::new();
    let mut add = |target, name: String, mode: u8, bytes: &[u8]| {
        seeds.push((target, name, [&[mode], bytes].concat()));
    };
    for (index, rows) in rows.chunks(8).take(6).enumerate() {
        let dir = pakv_testkit::files::scratch();
        let files = store(dir.path(), rows, index)?;
        add("recovery", format!("store-{index}"), 0, &recovery::archive(&files));
        add("recovery", format!("store-{index}-sealed"), 1, &recovery::archive(&files));
        for (name, file) in &files {
            let mode = index as u8;
            match name.rsplit('.').next() {
                Some("log") => {
                    // Salt, then an offset of zero: the frames stand where they stood.
                    let place = [&file[12..16], &[0; 4]].concat();
                    let record = [&place, &file[..]].concat();
                    add("record", format!("{index}-{name}"), mode % 3, &record);
                }
                Some("hint") => add("hint", format!("{index}-{name}"), mode % 5, file),
                Some("MANIFEST") => add("manifest", format!("{index}-{name}"), mode % 3, file),
                _ => {}
            }
        }
        for (format, mode) in [("jsonl", 0), ("tsv", 1), ("csv", 2)] {
            let file = exported(rows, format)?;
            add("import", format!("{index}.{format}"), mode, &file);
            add("import", format!("{index}-skip.{format}"), mode + 3, &file);
        }
        for (number, (key, value)) in rows.iter().enumerate() {
            for (mode, line) in lines(key, value).into_iter().enumerate() {
                let name = format!("{index}-{number}-{mode}");
                add("shell_line", name, if mode < 4 { 0 } else { 2 }, &line);
            }
        }
        // The bytes of the rows are as good a plan as any.
        for (number, (key, value)) in rows.iter().enumerate() {
            let bytes = [&value[..], key].concat().repeat(4);
            add("operations", format!("{index}-{number}"), index as u8, &bytes);
            add("recovery", format!("plan-{index}-{number}"), 2, &bytes);
        }
    }
    Ok(seeds)
}

/// Lines of the shell about a row: four to be read, two to be completed.
fn lines(key: &[u8], value: &[u8]) -> [Vec<u8>; 6] {
    let (key_word, value_word) = (pakv_cli::fuzzing::quote(key), pakv_cli::fuzzing::quote(value));
    let half = &key_word[..key_word.len() / 2];
    [
        format!("set {key_word} {value_word} --ttl 90s").into_bytes(),
        format!("scan --prefix=\"{half}\" --limit 3 --keys").into_bytes(),
        [b"get ", key].concat(),
        format!("# {value_word}").into_bytes(),
        [format!("get {half}\n").as_bytes(), key, b"\n", value].concat(),
        [format!("scan --prefix=\"{half}\n").as_bytes(), key, b"\n", value].concat(),
    ]
}

/// A store of the rows: overwritten, deleted, expiring; compacted or not, closed or killed.
fn store(dir: &Path, rows: &[Row], index: usize) -> Outcome<Folder> {
    let options = Options::new()
        .segment_bytes(512)
        .background_compaction(false)
        .durability(Durability::Buffered);
    let db = options.open(dir)?;
    for (key, value) in rows {
        db.set(key, &value[..value.len() / 2])?;
    }
    let mut batch = WriteBatch::new();
    for (number, (key, value)) in rows.iter().enumerate() {
        let (key, value) = (key.clone(), value.clone());
        match number % 4 {
            0 => batch.delete(key),
            1 => batch.set_with_expiry(key, value, Expiry::After(Duration::from_secs(1 << 30))),
            _ => batch.set(key, value),
        };
    }
    db.write(&batch)?;
    if index % 2 == 1 {
        db.compact()?;
    }
    if index.is_multiple_of(3) {
        db.close()?;
        return files(dir);
    }
    let found = files(dir);
    drop(db);
    found
}

fn files(dir: &Path) -> Outcome<Folder> {
    let mut files = Vec::new();
    for path in pakv_testkit::files::paths(dir) {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        files.push((name.to_string(), pakv_testkit::files::read(&path)));
    }
    Ok(files)
}

fn exported(rows: &[Row], format: &str) -> Outcome<Vec<u8>> {
    use pakv_cli::fuzzing::{Format, export};
    let db: Db = Options::new()
        .background_compaction(false)
        .durability(Durability::Buffered)
        .open_storage(Arc::new(SimStorage::new(0)))?;
    for (number, (key, value)) in rows.iter().enumerate() {
        let far = UNIX_EPOCH + Duration::from_secs(1 << 34);
        let expiry = if number % 3 == 0 { Expiry::At(far) } else { Expiry::Never };
        db.set_with_expiry(key, value, expiry)?;
    }
    let format = match format {
        "tsv" => Format::Tsv,
        "csv" => {
            db.set("quoted, \"and\"\nbroken", b"\xff\0")?;
            Format::Csv
        }
        _ => {
            db.set(b"\xff\0", "größe")?;
            Format::Jsonl
        }
    };
    Ok(export(&db, format)?)
}
