//! What Tab offers: verbs, options and values as the command line's own definitions have them, dot
//! commands, keys of the store and file names.
//!
//! Reads only: neither a store nor a file is opened or created for the sake of a completion, and
//! what fails offers nothing.

use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use clap::{Arg, Command, ValueHint};
use pakv::Db;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;
use rustyline::{Context, Helper};

use super::dot;
use super::words::{self, Style, Word};
use crate::args::Cli;

/// The most candidates that are offered.
const MAX_CANDIDATES: usize = 100;
/// A candidate is listed with at most this many characters; it is inserted whole.
const MAX_LISTED_CHARS: usize = 60;

/// What the line editor asks.
pub(crate) struct ShellHelper {
    pub(crate) vocabulary: Vocabulary,
    /// The open store, if there is one.
    pub(crate) db: Option<Db>,
}

impl Completer for ShellHelper {
    type Candidate = Pair;

    fn complete(
        &self,
        line: &str,
        cursor: usize,
        _: &Context<'_>,
    ) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = line.get(..cursor).unwrap_or_default();
        let keys = |prefix: &[u8]| self.db.as_ref().map_or_else(Vec::new, |db| keys(db, prefix));
        Ok(self.vocabulary.complete(line, keys).unwrap_or_default())
    }
}

impl Helper for ShellHelper {}
impl Highlighter for ShellHelper {}
impl Hinter for ShellHelper {
    type Hint = String;
}
impl Validator for ShellHelper {}

/// The keys that begin with a prefix. Of more than can be offered these are the first ones and the
/// very last, so that what all offered keys have in common is what all keys have in common.
fn keys(db: &Db, prefix: &[u8]) -> Vec<Vec<u8>> {
    let Ok(mut scan) = db.scan_prefix(prefix) else {
        return Vec::new();
    };
    let mut keys: Vec<_> =
        scan.by_ref().take(MAX_CANDIDATES - 1).map(|entry| entry.key().to_vec()).collect();
    keys.extend(scan.next_back().map(|entry| entry.key().to_vec()));
    keys
}

/// A word that can stand at the cursor.
struct Candidate {
    bytes: Vec<u8>,
    /// Whether more may follow without a blank, as after a directory.
    unfinished: bool,
}

impl Candidate {
    fn word(word: impl Into<Vec<u8>>) -> Self {
        Self { bytes: word.into(), unfinished: false }
    }
}

/// The definitions that lines are made of.
pub(crate) struct Vocabulary {
    /// One subcommand a verb.
    pub(crate) verbs: Command,
    /// One subcommand a dot command.
    pub(crate) dots: Command,
}

impl Vocabulary {
    pub(crate) fn new() -> Self {
        Self { verbs: Cli::shell_command(), dots: dot::commands() }
    }

    /// What can stand at the end of `line`, and the offset from which it replaces the line.
    pub(crate) fn complete(
        &self,
        line: &str,
        keys: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) -> Option<(usize, Vec<Pair>)> {
        let mut words = words::split_open(line.as_bytes()).ok()?;
        if line.trim_start().starts_with('#') {
            return None;
        }
        let at_new_word = line.ends_with([' ', '\t']);
        let current = words
            .pop_if(|last| !last.closed || !at_new_word)
            .unwrap_or_else(|| Word::empty(line.len()));
        if current.closed && current.style != Style::Bare {
            return None;
        }
        let candidates = match words.split_first() {
            None => names(self.commands(&current)),
            Some((first, before)) => {
                let name = OsStr::from_bytes(&first.bytes);
                let command = self.commands(first).find_subcommand(name)?;
                self.arguments(command, before, &current, keys)
            }
        };
        let text = current.bytes.get(current.option_len..).unwrap_or_default();
        let matching: Vec<_> =
            candidates.into_iter().filter(|candidate| candidate.bytes.starts_with(text)).collect();
        let mut pairs = pairs(&matching, current.style);
        if matching.len() > 1 && common_len(&matching) == text.len() {
            // Nothing can be inserted, so nothing is, not even a quote: the candidates are only
            // listed.
            let typed = line.get(current.text_offset..)?;
            pairs.iter_mut().for_each(|pair| pair.replacement = typed.to_owned());
        }
        Some((current.text_offset, pairs))
    }

    /// Those among which the first word of a line is looked up.
    fn commands(&self, first: &Word) -> &Command {
        if first.bytes.starts_with(b".") { &self.dots } else { &self.verbs }
    }

    /// What can follow a command and the words after it.
    fn arguments(
        &self,
        command: &Command,
        before: &[Word],
        current: &Word,
        keys: impl Fn(&[u8]) -> Vec<Vec<u8>>,
    ) -> Vec<Candidate> {
        let (option, text) = current.bytes.split_at(current.option_len);
        let seen = Seen::read(command, before);
        let argument = if seen.awaiting.is_some() {
            seen.awaiting
        } else if let (Some(name), false) = (option.strip_suffix(b"="), seen.options_ended) {
            find_option(command, name)
        } else if text.starts_with(b"-") && !seen.options_ended {
            return option_names(command, before);
        } else {
            let last = command.get_positionals().last().filter(|last| takes_many(last));
            command.get_positionals().nth(seen.positional_count).or(last)
        };
        let Some(argument) = argument else {
            return Vec::new();
        };
        let possible = argument.get_possible_values();
        if !possible.is_empty() {
            let visible = possible.iter().filter(|value| !value.is_hide_set());
            visible.map(|value| Candidate::word(value.get_name())).collect()
        } else if value_is_named(argument, &["KEY", "PREFIX"]) {
            keys(text).into_iter().map(Candidate::word).collect()
        } else if value_is_named(argument, &["VERB"]) {
            names(&self.verbs)
        } else if matches!(argument.get_value_hint(), ValueHint::FilePath | ValueHint::DirPath) {
            files(text)
        } else {
            Vec::new()
        }
    }
}

/// The names under which the subcommands of `commands` are called.
fn names(commands: &Command) -> Vec<Candidate> {
    let visible = commands.get_subcommands().filter(|command| !command.is_hide_set());
    visible
        .flat_map(|command| {
            std::iter::once(command.get_name()).chain(command.get_visible_aliases())
        })
        .map(Candidate::word)
        .collect()
}

/// What the words between a verb and the cursor have settled.
struct Seen<'a> {
    /// The option whose value comes next.
    awaiting: Option<&'a Arg>,
    positional_count: usize,
    /// Whether `--` was among them.
    options_ended: bool,
}

impl<'a> Seen<'a> {
    fn read(verb: &'a Command, before: &[Word]) -> Self {
        let mut seen = Self { awaiting: None, positional_count: 0, options_ended: false };
        for word in before {
            if seen.awaiting.take().is_some() {
                continue;
            } else if seen.options_ended || !word.bytes.starts_with(b"-") || word.bytes == b"-" {
                seen.positional_count += 1;
            } else if word.bytes == b"--" {
                seen.options_ended = true;
            } else if word.option_len == 0 {
                seen.awaiting =
                    find_option(verb, &word.bytes).filter(|arg| arg.get_action().takes_values());
            }
        }
        seen
    }
}

/// The option that a word such as `--limit` or `-n` names.
fn find_option<'a>(verb: &'a Command, word: &[u8]) -> Option<&'a Arg> {
    let word = std::str::from_utf8(word).ok()?;
    verb.get_arguments().find(|arg| match word.strip_prefix("--") {
        Some(long) => arg.get_long_and_visible_aliases().unwrap_or_default().contains(&long),
        None => word.chars().nth(1).is_some_and(|short| arg.get_short() == Some(short)),
    })
}

/// The options of a verb that its line does not have yet.
fn option_names(verb: &Command, before: &[Word]) -> Vec<Candidate> {
    let options = verb.get_arguments().filter(|arg| !arg.is_hide_set());
    options
        .filter_map(|arg| arg.get_long())
        .map(|long| format!("--{long}"))
        .filter(|name| !before.iter().any(|word| option_name(word) == name.as_bytes()))
        .map(Candidate::word)
        .collect()
}

/// A word without the value in `--option=value`.
fn option_name(word: &Word) -> &[u8] {
    let end = word.option_len.checked_sub(1).unwrap_or(word.bytes.len());
    word.bytes.get(..end).unwrap_or_default()
}

fn takes_many(argument: &Arg) -> bool {
    argument.get_num_args().is_some_and(|range| range.max_values() > 1)
}

/// Whether the definitions call the value of an argument by one of these names.
fn value_is_named(argument: &Arg, names: &[&str]) -> bool {
    let own = argument.get_value_names().unwrap_or_default();
    own.iter().any(|name| names.contains(&name.as_str()))
}

/// The names of files that begin as `text` does, hidden ones only where it asks for them.
fn files(text: &[u8]) -> Vec<Candidate> {
    let name_offset = text.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (directory, name) = text.split_at(name_offset);
    let path =
        if directory.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(directory)) };
    let Ok(entries) = path.read_dir() else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let is_directory = entry.path().is_dir();
        let file_name = entry.file_name().into_vec();
        if !file_name.starts_with(name) || (file_name.starts_with(b".") && name.is_empty()) {
            continue;
        }
        let mut bytes = [directory, &file_name].concat();
        if is_directory {
            bytes.push(b'/');
        }
        files.push(Candidate { bytes, unfinished: is_directory });
    }
    files.sort_by(|a, b| a.bytes.cmp(&b.bytes));
    files.truncate(MAX_CANDIDATES);
    files
}

/// How many bytes all candidates begin with.
fn common_len(candidates: &[Candidate]) -> usize {
    let Some((first, others)) = candidates.split_first() else {
        return 0;
    };
    let common = |other: &Candidate| {
        first.bytes.iter().zip(&other.bytes).take_while(|(a, b)| a == b).count()
    };
    others.iter().map(common).min().unwrap_or(first.bytes.len())
}

/// Writes the candidates in one style, so that what they have in common can be inserted.
fn pairs(candidates: &[Candidate], typed: Style) -> Vec<Pair> {
    let fit = |style: &Style| candidates.iter().all(|one| words::fits(*style, &one.bytes));
    let style = match typed {
        Style::Bare => [Style::Bare, Style::Single].into_iter().find(fit),
        typed => Some(typed).filter(fit),
    };
    let style = style.unwrap_or(Style::Double);
    candidates.iter().map(|candidate| pair(candidate, style)).collect()
}

fn pair(candidate: &Candidate, style: Style) -> Pair {
    let mut replacement = words::write_as(style, &candidate.bytes);
    let mut display = words::quote(&candidate.bytes);
    if let Some((cut, _)) = display.char_indices().nth(MAX_LISTED_CHARS) {
        display.truncate(cut);
        display.push('…');
    }
    match (candidate.unfinished, style) {
        (false, _) => replacement.push(' '),
        (true, Style::Bare) => {}
        (true, _) => drop(replacement.pop()),
    }
    Pair { display, replacement }
}

#[cfg(test)]
mod tests {
    use rustyline::completion::longest_common_prefix;

    use super::*;

    /// The line after Tab, and what Tab lists.
    fn tab(line: &str, keys: &[&[u8]]) -> (String, Vec<String>) {
        let vocabulary = Vocabulary::new();
        let all = |prefix: &[u8]| {
            let matching = keys.iter().filter(|key| key.starts_with(prefix));
            matching.map(|key| key.to_vec()).collect()
        };
        let (offset, pairs) = vocabulary.complete(line, all).unwrap_or_default();
        // As the line editor does it: what all have in common is inserted where that is more than
        // was typed.
        let common = longest_common_prefix(&pairs).unwrap_or_default();
        let longer = common.len() > line.len() - offset || pairs.len() == 1;
        let line = if longer { format!("{}{common}", &line[..offset]) } else { line.to_owned() };
        (line, pairs.into_iter().map(|pair| pair.display).collect())
    }

    fn line(line: &str) -> String {
        tab(line, &[]).0
    }

    fn list(line: &str) -> Vec<String> {
        tab(line, &[]).1
    }

    #[test]
    fn the_first_word_is_a_verb_or_a_dot_command() {
        assert_eq!(line("exi"), "exists ");
        assert_eq!(line("  de"), "  del ");
        assert!(list("").contains(&"scan".to_string()));
        assert_eq!(list("ex"), ["exists", "expire", "export"]);
        assert_eq!(line("ex"), "ex");
        assert!(list("sh").is_empty() && list("# g").is_empty());
        assert_eq!(line(".t"), ".timer ");
        assert_eq!(line(".e"), ".exit ");
        assert_eq!(list(".timer "), ["on", "off"]);
        assert_eq!(line(".timer "), ".timer o");
        assert_eq!(line(".help ge"), ".help get ");
        assert_eq!(line(".mode j"), ".mode json ");
    }

    #[test]
    fn options_come_from_the_verb() {
        assert_eq!(line("scan --rev"), "scan --reverse ");
        assert!(list("scan --reverse --rev").is_empty());
        assert_eq!(line("set --if-a"), "set --if-absent ");
        assert!(list("get -- --d").is_empty());
        assert!(list("frobnicate --").is_empty());
        assert_eq!(line("import --format js"), "import --format jsonl ");
        assert_eq!(line("import --format=js"), "import --format=jsonl ");
    }

    #[test]
    fn keys_stand_where_the_definitions_say_key() {
        let keys: &[&[u8]] = &[b"user:1", b"user:2"];
        for before in [
            "get ",
            "get -- ",
            "rm user:1 ",
            "scan --prefix ",
            "scan --from=",
            "scan --limit 3 --to ",
            "scan -n 3 --to ",
            "set --ttl 3s ",
        ] {
            let (line, list) = tab(&format!("{before}u"), keys);
            assert_eq!((line, list.len()), (format!("{before}user:"), 2));
        }
        for before in ["set user:1 ", "scan --limit ", "get user:1 ", "frobnicate "] {
            assert!(tab(&format!("{before}u"), keys).1.is_empty(), "{before}");
        }
    }

    #[test]
    fn keys_are_quoted_where_one_needs_it() {
        let keys: &[&[u8]] = &[b"ab c", b"abcd", b"x"];
        assert_eq!(tab("get a", keys), ("get 'ab".into(), vec!["'ab c'".into(), "abcd".into()]));
        assert_eq!(tab("get abc", keys).0, "get abcd ");
        assert_eq!(tab("get \"a", keys).0, "get \"ab");
        assert_eq!(tab("get 'ab ", keys).0, "get 'ab c' ");
        assert_eq!(tab("get a", &[b"a\xff"]).0, "get \"a\\xff\" ");
        assert_eq!(tab("get \"\\xff\\x0", &[b"\xff\x00\x01"]).0, "get \"\\xff\\0\\x01\" ");
        assert_eq!(tab("scan --prefix='a", keys).0, "scan --prefix='ab");
        assert!(tab("get 'ab c'", keys).1.is_empty());
        // Where there is nothing to insert, no quote is.
        assert_eq!(tab("get ", keys).0, "get ");
        assert_eq!(tab("get ab", keys).0, "get ab");
    }

    #[test]
    fn files_stand_where_the_definitions_say_file() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub dir")).unwrap();
        std::fs::write(directory.path().join("sum.txt"), "").unwrap();
        std::fs::write(directory.path().join(".hidden"), "").unwrap();
        let base = directory.path().to_str().unwrap();
        let tab = |line: &str| {
            let (line, list) = tab(&line.replace('~', base), &[]);
            (line.replace(base, "~"), list.len())
        };
        assert_eq!(tab(".read ~/s"), (".read '~/su".into(), 2));
        assert_eq!(tab(".read ~/sub"), (".read '~/sub dir/".into(), 1));
        assert_eq!(tab("import ~/sum"), ("import ~/sum.txt ".into(), 1));
        assert_eq!(tab("set k --file ~/.h"), ("set k --file ~/.hidden ".into(), 1));
        assert_eq!(tab(".read ~/"), (".read '~/su".into(), 2));
        assert_eq!(tab(".read ~/none/").1, 0);
    }
}
