//! Import, export and the shell's lines as plain functions, for the fuzzers in `fuzz/`. Errors are
//! text.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;

use pakv::Db;
use rustyline::completion::longest_common_prefix;

use crate::args::{Cli, FileFormat};
use crate::context::Store;
use crate::failure::Failure;
use crate::shell::{Vocabulary, words};
use crate::verb::{export, import};

/// A file format of import and export.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names of the formats")]
pub enum Format {
    Jsonl,
    Tsv,
    Csv,
}

impl From<Format> for FileFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Jsonl => FileFormat::Jsonl,
            Format::Tsv => FileFormat::Tsv,
            Format::Csv => FileFormat::Csv,
        }
    }
}

/// Imports a file into a store; the numbers of entries imported and of lines skipped.
///
/// # Errors
/// What `pakv import` says. What stands before a bad line is in the store.
pub fn import(db: &Db, format: Format, file: &[u8], skip_bad: bool) -> Result<(u64, u64), String> {
    import::into_store(db, format.into(), file, skip_bad).map_err(text)
}

/// Exports all of a store.
///
/// # Errors
/// What `pakv export` says.
pub fn export(db: &Db, format: Format) -> Result<Vec<u8>, String> {
    let store = Store::Shells(db.clone());
    export::whole_store(&store, format.into()).map_err(text)
}

fn text(failure: Failure) -> String {
    format!("{failure:?}")
}

/// The words of a line of the shell.
///
/// # Errors
/// What the shell says of a line that has none.
pub fn split(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let words = words::split(line).map_err(|error| format!("{error}; {}", error.hint()))?;
    Ok(words.into_iter().map(|word| word.bytes).collect())
}

/// The words of a line that is still being typed: its last quote may be open.
///
/// # Errors
/// What the shell says of a line that has none.
pub fn split_open(line: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let words = words::split_open(line).map_err(|error| error.to_string())?;
    Ok(words.into_iter().map(|word| word.bytes).collect())
}

/// A word as a line has it.
pub fn quote(word: &[u8]) -> String {
    words::quote(word)
}

/// The definitions of the shell's lines.
pub struct Shell {
    verbs: clap::Command,
    vocabulary: Vocabulary,
}

/// What Tab does to a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Completion {
    /// From which byte on the line is replaced.
    pub offset: usize,
    /// What each candidate would put there.
    pub replacements: Vec<String>,
    /// What they all begin with, which is what the editor inserts.
    pub common: String,
}

impl Default for Shell {
    fn default() -> Self {
        Self { verbs: Cli::shell_command(), vocabulary: Vocabulary::new() }
    }
}

impl Shell {
    /// Parses the words of a line as the shell does; what they mean, for comparison.
    ///
    /// # Errors
    /// What the shell says: help that was asked for too.
    pub fn parse(&mut self, words: Vec<Vec<u8>>) -> Result<String, String> {
        let words = words.into_iter().map(OsString::from_vec).collect();
        Cli::parse_shell_line(&mut self.verbs, words)
            .map(|verb| format!("{verb:?}"))
            .map_err(|error| text(Failure::of_clap(&error, ".help tells more")))
    }

    /// What Tab at the end of a line does, in a store of these keys.
    pub fn complete(&self, line: &str, keys: &[Vec<u8>]) -> Option<Completion> {
        let matching = |prefix: &[u8]| {
            keys.iter().filter(|key| key.starts_with(prefix)).cloned().collect::<Vec<_>>()
        };
        let (offset, pairs) = self.vocabulary.complete(line, matching)?;
        let common = longest_common_prefix(&pairs).unwrap_or_default().to_string();
        let replacements = pairs.into_iter().map(|pair| pair.replacement).collect();
        Some(Completion { offset, replacements, common })
    }
}
