//! What goes wrong and how it is said: one line, then a hint where there is a next step, and an
//! exit code. A key that is not there is said the same way, without the word "error".

use std::io::{self, Write as _};
use std::path::Path;

use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use clap::CommandFactory as _;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::args::{Cli, OutputForm};
use crate::exit::Exit;
use crate::output::{JsonLine, directory_of, escape_line, quoted};

/// Why a verb did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    exit: Exit,
    /// One word for programs, as JSON gives it.
    code: &'static str,
    message: String,
    hint: Option<String>,
}

const ERROR: Style = AnsiColor::Red.on_default().bold();
const HINT: Style = AnsiColor::Cyan.on_default().bold();
const BROKEN_PIPE: &str = "broken_pipe";
const NO_STORE: &str = "no_store";

impl Failure {
    /// An answer that is "no": exit code 1.
    pub(crate) fn negative(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Negative, code, message)
    }

    /// Arguments that make no sense: exit code 2.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// Another failure: exit code 3.
    pub(crate) fn failed(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, code, message)
    }

    /// A usage error as clap says it, in one line: its first paragraph. The hint is clap's tip, or
    /// the usage where something is missing, or `otherwise` where there is no such verb.
    pub(crate) fn of_clap(error: &clap::Error, otherwise: &str) -> Self {
        let text = error.to_string();
        let first = text.lines().map(str::trim).take_while(|line| !line.is_empty());
        let message = in_our_words(&first.collect::<Vec<_>>().join(" "));
        let find = |label| text.lines().find_map(|line| line.trim().strip_prefix(label));
        let hint = match (find("tip: "), error.kind()) {
            (Some(tip), _) => Some(in_our_words(tip)),
            (None, ErrorKind::InvalidSubcommand) => {
                let near = verb_near(error).map(|verb| format!("a similar verb exists: '{verb}'"));
                Some(near.unwrap_or_else(|| otherwise.to_string()))
            }
            (None, ErrorKind::MissingRequiredArgument | ErrorKind::UnknownArgument) => {
                find("Usage: ").map(|usage| format!("usage: {usage}; --help tells more"))
            }
            // What is wrong with a value, or with two options together, the message has said.
            (None, _) => None,
        };
        Self { hint, ..Self::usage(message.trim_start_matches("error: ")) }
    }

    /// The key that the verb is about is not there.
    pub(crate) fn key_not_found() -> Self {
        Self::negative("key_not_found", "Key not found")
    }

    /// The operating system refused something on a file. `action` is a verb phrase.
    pub(crate) fn file(action: &str, path: &Path, error: &io::Error) -> Self {
        let message = format!("cannot {action} {}: {}", path.display(), io_reason(error));
        Self::new(Exit::Failed, "io", message).with_hint_if(io_hint(error.kind()))
    }

    pub(crate) fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code, message: message.into(), hint: None }
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn with_hint_if(mut self, hint: Option<&str>) -> Self {
        self.hint = hint.map(str::to_string);
        self
    }

    /// Says where it went wrong: a line of a script.
    pub(crate) fn at(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// Where the store was named by an argument, `--db` is no help.
    pub(crate) fn of_argument(self) -> Self {
        if self.is_no_store() { self.with_hint("check the path") } else { self }
    }

    /// Whether there is no store where one was to be opened.
    pub(crate) fn is_no_store(&self) -> bool {
        self.code == NO_STORE
    }

    /// Whether whoever read the output has gone: no reason to complain.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        self.code == BROKEN_PIPE
    }

    /// Says it on standard error, unless nobody reads any more.
    pub(crate) fn print(&self, form: OutputForm) {
        if !self.is_broken_pipe() {
            let stderr = io::stderr();
            let color = AutoStream::choice(&stderr) != ColorChoice::Never;
            // Where this fails there is nobody left to tell; the exit code still does.
            let _ = stderr.lock().write_all(self.render(form, color).as_bytes());
        }
    }

    /// The text for standard error, newline included.
    pub(crate) fn render(&self, form: OutputForm, color: bool) -> String {
        if form == OutputForm::Json {
            return self.render_json();
        }
        let label = |word: &str, style: Style| {
            if color { format!("{style}{word}:{style:#} ") } else { format!("{word}: ") }
        };
        // "Key not found" is an answer and stands alone.
        let prefix =
            if self.exit == Exit::Negative { String::new() } else { label("error", ERROR) };
        let mut text = format!("{prefix}{}\n", self.message);
        if let Some(hint) = &self.hint {
            text.push_str(&format!("{}{hint}\n", label("hint", HINT)));
        }
        text
    }

    fn render_json(&self) -> String {
        let mut error = JsonLine::new().field("code", self.code).field("message", &self.message);
        if let Some(hint) = &self.hint {
            error = error.field("hint", hint);
        }
        format!("{{\"error\":{}}}\n", error.into_string())
    }
}

/// Only for writing results: reading and other files say which file with [`Failure::file`].
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, BROKEN_PIPE, "the reader of the output has gone");
        }
        Self::new(Exit::Failed, "io", format!("cannot write the output: {}", io_reason(&error)))
            .with_hint_if(io_hint(error.kind()))
    }
}

impl From<pakv::Error> for Failure {
    fn from(error: pakv::Error) -> Self {
        use pakv::Error;
        let (exit, code, hint): (_, _, Option<String>) = match &error {
            Error::Io { action, path, source } => {
                return Self::file(action, path, source);
            }
            Error::Corrupt { path, .. } => (Exit::Corrupt, "corrupt", Some(damage_hint(path))),
            Error::ManifestMissing { path } => {
                (Exit::Corrupt, "manifest_missing", Some(damage_hint(path)))
            }
            Error::NoStore { .. } => (Exit::Failed, NO_STORE, Some(NO_STORE_HINT.to_string())),
            Error::NotADirectory { .. } => {
                (Exit::Failed, "not_a_directory", Some(NAME_STORE_HINT.to_string()))
            }
            Error::UnknownFormat { found, supported, .. } if found > supported => (
                Exit::Failed,
                "unknown_format",
                Some("a newer pakv wrote it: use that one, nothing was changed".to_string()),
            ),
            Error::UnknownFormat { .. } => (Exit::Failed, "unknown_format", None),
            Error::InUse { .. } => (
                Exit::InUse,
                "in_use",
                Some(
                    "wait for it with --wait 10s; verbs that only read work meanwhile".to_string(),
                ),
            ),
            Error::Poisoned { .. } => (
                Exit::Failed,
                "poisoned",
                Some("open the store again once the cause is gone".to_string()),
            ),
            Error::HistoryGone { .. } => {
                (Exit::Negative, "history_gone", Some(HISTORY_HINT.to_string()))
            }
            Error::NotWrittenYet { .. } => {
                let hint = "is it the store whose changes were followed, and not an older copy?";
                (Exit::Negative, "not_written_yet", Some(hint.to_string()))
            }
            Error::Replaced { .. } => {
                let hint = "run it again, and it opens what is there now";
                (Exit::Failed, "replaced", Some(hint.to_string()))
            }
            Error::BackupUnfinished { .. } => (
                Exit::Failed,
                "backup_unfinished",
                Some(
                    "run it again, into the same directory; what it copies from was not changed"
                        .to_string(),
                ),
            ),
            Error::TargetRefused { .. } => (Exit::Failed, "target_refused", None),
            Error::KeyEmpty | Error::KeyTooLong { .. } => (Exit::Usage, "bad_key", None),
            Error::ValueTooLong { .. } => (Exit::Usage, "value_too_long", None),
            Error::InvalidOption { .. } => (Exit::Usage, "usage", None),
            _ => (Exit::Failed, "failed", None),
        };
        Self { exit, code, message: error.to_string(), hint }
    }
}

/// A key as messages name it: escaped, and cut where it is longer than a line.
pub(crate) fn key_name(key: &[u8]) -> String {
    const SHOWN_BYTES: usize = 80;
    if key.len() <= SHOWN_BYTES {
        escape_line(key)
    } else {
        format!("{}… ({} bytes)", escape_line(&key[..SHOWN_BYTES]), key.len())
    }
}

const NAME_STORE_HINT: &str = "name the directory of a store with --db DIR or PAKV_DB";
const NO_STORE_HINT: &str =
    "name one with --db DIR or PAKV_DB, or create one: `set`, `incr` and `import` do";
const HISTORY_HINT: &str =
    "start `watch` without --from, then take the state of the moment with `export`";

/// What to do about damage in a store, or in a file of one.
fn damage_hint(path: &Path) -> String {
    let store = quoted(if path.is_dir() { path } else { directory_of(path) });
    format!(
        "`pakv --db {store} check` tells what is damaged; `pakv repair {store} NEW` makes a new store \
         of the rest"
    )
}

/// What the operating system said, without the number that std appends.
fn io_reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.rfind(" (os error ") {
        Some(end) => text[..end].to_string(),
        None => text,
    }
}

fn io_hint(kind: io::ErrorKind) -> Option<&'static str> {
    match kind {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some("make room on the disk; what was stored before is safe")
        }
        io::ErrorKind::PermissionDenied => Some("check who owns it and its permissions"),
        io::ErrorKind::ReadOnlyFilesystem => Some("the file system is mounted read-only"),
        _ => None,
    }
}

/// What clap calls a subcommand is a verb everywhere else.
fn in_our_words(text: &str) -> String {
    text.replace("subcommand", "verb")
}

/// The verb that was meant, by one slip of the fingers: clap, which goes by how many letters are in
/// their places, knows none for `gte`.
fn verb_near(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidSubcommand) else {
        return None;
    };
    let verbs = Cli::command();
    let mut verbs = verbs.get_subcommands().map(clap::Command::get_name);
    verbs.find(|verb| strsim::damerau_levenshtein(given, verb) == 1).map(str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_one_line_and_a_hint() {
        let failure = Failure::failed("io", "no luck").with_hint("try again");
        assert_eq!(failure.render(OutputForm::Text, false), "error: no luck\nhint: try again\n");
        assert_eq!(
            failure.render(OutputForm::Json, true),
            "{\"error\":{\"code\":\"io\",\"message\":\"no luck\",\"hint\":\"try again\"}}\n"
        );
    }

    #[test]
    fn usage_errors_are_one_line_too() {
        let hint = |line: &[&str]| {
            let words = line.iter().map(std::ffi::OsString::from).collect();
            let error = Cli::parse_shell_line(&mut Cli::shell_command(), words).unwrap_err();
            let failure = Failure::of_clap(&error, "otherwise");
            assert_eq!(failure.exit, Exit::Usage);
            assert!(!failure.message.contains('\n') && !failure.message.starts_with("error"));
            failure.hint.unwrap()
        };
        assert_eq!(hint(&["expotr"]), "some similar verbs exist: 'expire', 'export'");
        assert_eq!(hint(&["get"]), "usage: get <KEY>; --help tells more");
        assert_eq!(hint(&["gte"]), "a similar verb exists: 'get'");
        assert_eq!(hint(&["nonsense"]), "otherwise");
    }

    #[test]
    fn an_answer_is_not_called_an_error() {
        let failure = Failure::key_not_found();
        assert_eq!(failure.render(OutputForm::Text, true), "Key not found\n");
        assert_eq!(failure.exit(), Exit::Negative);
    }

    #[test]
    fn every_class_of_store_error_has_its_exit_code() {
        let path = std::path::PathBuf::from("s");
        let cases = [
            (pakv::Error::KeyEmpty, Exit::Usage),
            (pakv::Error::NoStore { path: path.clone() }, Exit::Failed),
            (pakv::Error::ManifestMissing { path: path.clone() }, Exit::Corrupt),
            (
                pakv::Error::Corrupt { path: path.clone(), offset: 7, reason: "x".to_string() },
                Exit::Corrupt,
            ),
            (
                pakv::Error::InUse { path, pid: Some(1), waited: std::time::Duration::ZERO },
                Exit::InUse,
            ),
        ];
        for (error, exit) in cases {
            assert_eq!(Failure::from(error).exit(), exit);
        }
    }

    #[test]
    fn long_keys_are_cut_in_messages() {
        assert_eq!(key_name(b"a\nb"), "a\\nb");
        assert!(key_name(&[b'k'; 65_536]).len() < 120);
    }
}
