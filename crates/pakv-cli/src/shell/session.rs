//! Lines one after the other, on one store: what a line does, wherever it comes from, and when a
//! script ends.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::time::Instant;

use super::dot::{self, Dot, Switch};
use super::script::Lines;
use super::words::{self, SyntaxError};
use crate::args::Cli;
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::{Failure, key_name};
use crate::verb;

/// How deep `.read` may be nested: a file that reads itself ends here.
const MAX_DEPTH: usize = 16;

/// Whether there is a next line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Line,
    Leave,
}

/// The state of a shell besides its store.
pub(crate) struct Session<'a> {
    pub(crate) cx: &'a mut Context,
    /// The definitions of lines.
    verbs: clap::Command,
    keep_going: bool,
    timer: bool,
    /// How many scripts are being read, one inside the other.
    depth: usize,
    /// How many lines failed and did not end their script.
    failure_count: u64,
    /// How the first of them ended.
    first_failure: Option<Exit>,
}

impl<'a> Session<'a> {
    pub(crate) fn new(cx: &'a mut Context, keep_going: bool) -> Self {
        Self {
            cx,
            verbs: Cli::shell_command(),
            keep_going,
            timer: false,
            depth: 0,
            failure_count: 0,
            first_failure: None,
        }
    }

    /// Runs the lines of a script to its end, or to the first that fails. `file` is `None` for
    /// standard input.
    pub(crate) fn script(
        &mut self,
        script: impl BufRead,
        file: Option<&Path>,
    ) -> Result<Next, Failure> {
        let mut lines = Lines::new(script);
        loop {
            let line = lines.next();
            let place = match file {
                Some(file) => format!("{}, line {}", file.display(), lines.number),
                None => format!("line {}", lines.number),
            };
            let line = line.map_err(|error| {
                let script = file.unwrap_or(Path::new("standard input"));
                Failure::file("read", script, &error).at(&place)
            })?;
            let Some(line) = line else {
                return Ok(Next::Line);
            };
            match self.line(&line) {
                Ok(Next::Line) => {}
                Ok(Next::Leave) => return Ok(Next::Leave),
                Err(failure) if self.keep_going && !failure.is_broken_pipe() => {
                    self.failure_count += 1;
                    self.first_failure.get_or_insert(failure.exit());
                    self.cx.report(&failure.at(&place));
                }
                Err(failure) => return Err(failure.at(&place)),
            }
        }
    }

    /// Runs the script in a file.
    pub(crate) fn file(&mut self, path: &Path) -> Result<Next, Failure> {
        if self.depth == MAX_DEPTH {
            return Err(Failure::usage(format!(".read is nested more than {MAX_DEPTH} deep")));
        }
        let file = File::open(path).map_err(|error| Failure::file("open", path, &error))?;
        self.depth += 1;
        let result = self.script(BufReader::new(file), Some(path));
        self.depth -= 1;
        result
    }

    /// Runs one line, and brings its results to their reader.
    pub(crate) fn line(&mut self, line: &[u8]) -> Result<Next, Failure> {
        let words: Vec<_> =
            words::split(line)?.into_iter().map(|word| OsString::from_vec(word.bytes)).collect();
        let Some(first) = words.first() else {
            return Ok(Next::Line);
        };
        if dot::is_dot(first.as_encoded_bytes()) {
            return self.dot(words);
        }
        let started = Instant::now();
        let result = self.verb(words);
        self.cx.out.flush()?;
        if self.timer {
            let ms = started.elapsed().as_secs_f64() * 1e3;
            self.cx.note(&format!("took {ms:.3} ms"));
        }
        result
    }

    fn verb(&mut self, words: Vec<OsString>) -> Result<Next, Failure> {
        check_verb_word(words.first().map_or(OsStr::new(""), OsString::as_os_str))?;
        match Cli::parse_shell_line(&mut self.verbs, words) {
            // An answer that is "no" and is the result, as of `exists`, is no failure.
            Ok(verb) => verb::run(&verb, self.cx).map(|_| Next::Line),
            Err(error) => self.unparsed(&error),
        }
    }

    fn dot(&mut self, words: Vec<OsString>) -> Result<Next, Failure> {
        let dot = match dot::parse(words) {
            Ok(dot) => dot,
            Err(error) => return self.unparsed(&error),
        };
        match dot {
            Dot::Help { verb: None } => {
                write!(self.cx.out, "{}", dot::help(self.verbs.clone()))?;
                self.cx.out.flush()?;
            }
            Dot::Help { verb: Some(verb) } => return self.verb(vec![verb.into(), "--help".into()]),
            Dot::Timer { switch } => self.timer = switch == Switch::On,
            Dot::Mode { form } => self.cx.form = form,
            Dot::Read { file } => return self.file(&file),
            Dot::Quit => return Ok(Next::Leave),
        }
        Ok(Next::Line)
    }

    /// What clap says instead of arguments: the help that was asked for, or what is wrong with the
    /// line.
    fn unparsed(&mut self, error: &clap::Error) -> Result<Next, Failure> {
        if error.use_stderr() {
            return Err(Failure::of_clap(error, ".help tells more"));
        }
        write!(self.cx.out, "{}", error.render())?;
        self.cx.out.flush()?;
        Ok(Next::Line)
    }

    /// Where failing lines did not end their script: how many they were, with the first one's exit
    /// code.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let Some(exit) = self.first_failure else {
            return Ok(());
        };
        let lines = if self.failure_count == 1 { "line" } else { "lines" };
        Err(Failure::new(exit, "lines_failed", format!("{} {lines} failed", self.failure_count)))
    }
}

/// Refuses a first word that clap would read as something else than it says: it looks for options
/// there, and for the path of a program, of which it takes the name.
fn check_verb_word(word: &OsStr) -> Result<(), Failure> {
    let is_option = word.as_encoded_bytes().starts_with(b"-");
    if !is_option && Path::new(word).file_stem() == Some(word) {
        return Ok(());
    }
    let hint = if is_option {
        "--db, --output and --wait are given when the shell starts"
    } else {
        ".help tells more"
    };
    let word = key_name(word.as_encoded_bytes());
    Err(Failure::usage(format!("a line begins with a verb, not with '{word}'")).with_hint(hint))
}

impl From<SyntaxError> for Failure {
    fn from(error: SyntaxError) -> Self {
        Failure::usage(error.to_string()).with_hint(error.hint())
    }
}
