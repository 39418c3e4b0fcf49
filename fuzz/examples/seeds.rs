//! Writes the inputs that the corpora begin with.
//!
//! ```text
//! seeds TABLE FOLDER      TABLE: rows of a key, a tab and a value; FOLDER: gets one for each target
//! ```
//!
//! README.md says what to do with them.

use std::path::Path;
use std::process::ExitCode;

use pakv_fuzz::seeds::{Row, seeds};

/// Rows that are used, spread over the table.
const ROWS: usize = 48;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [table, folder] = &arguments[..] else {
        eprintln!("usage: seeds TABLE FOLDER");
        return ExitCode::from(2);
    };
    match write(Path::new(table), Path::new(folder)) {
        Ok(count) => {
            println!("{count} inputs");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("seeds: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(table: &Path, folder: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let table = std::fs::read(table)?;
    let lines: Vec<&[u8]> = table.split(|byte| *byte == b'\n').collect();
    let step = (lines.len() / ROWS).max(1);
    let rows: Vec<Row> = lines.iter().step_by(step).filter_map(|line| row(line)).collect();
    let seeds = seeds(&rows)?;
    for (target, name, bytes) in &seeds {
        let folder = folder.join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(seeds.len())
}

fn row(line: &[u8]) -> Option<Row> {
    let tab = line.iter().position(|byte| *byte == b'\t')?;
    Some((line[..tab].to_vec(), line[tab + 1..].to_vec()))
}
