//! The shell's own commands, those that begin with a dot, defined as the verbs are: help, errors
//! and completion come from these definitions.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, Command, CommandFactory, Parser, Subcommand, ValueEnum, ValueHint};

use crate::args::OutputForm;

/// A line that is a dot command.
#[derive(Debug, Parser)]
#[command(
    name = "pakv shell",
    no_binary_name = true,
    disable_help_subcommand = true,
    subcommand_value_name = ".COMMAND"
)]
struct DotLine {
    #[command(subcommand)]
    dot: Dot,
}

/// What the shell does besides verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Dot {
    /// Tell what can be written here, or how a verb is used
    #[command(name = ".help", alias = "help")]
    Help { verb: Option<String> },
    /// Tell after each line how long it took
    #[command(name = ".timer")]
    Timer { switch: Switch },
    /// Set the form of results and errors
    #[command(name = ".mode")]
    Mode { form: OutputForm },
    /// Run the lines of a file
    #[command(name = ".read")]
    Read {
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Leave the shell
    #[command(name = ".quit", visible_alias = ".exit", aliases = ["quit", "exit"])]
    Quit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    On,
    Off,
}

/// The definitions, one subcommand a dot command.
pub(crate) fn commands() -> Command {
    DotLine::command()
}

/// Whether a line with this first word is a dot command. Some work without their dot: it is what
/// people try first.
pub(crate) fn is_dot(first: &[u8]) -> bool {
    first.starts_with(b".") || matches!(first, b"help" | b"quit" | b"exit")
}

/// The dot command that the words of a line are.
pub(crate) fn parse(words: Vec<OsString>) -> Result<Dot, clap::Error> {
    DotLine::try_parse_from(words).map(|line| line.dot)
}

/// What can be written on a line.
pub(crate) fn help(verbs: Command) -> String {
    let verbs = verbs.disable_help_subcommand(true).help_template("{subcommands}").render_help();
    let mut help =
        format!("Verbs, of which `.help VERB` tells more:\n{verbs}\nCommands of the shell:\n");
    for dot in commands().get_subcommands() {
        let mut usage = dot.get_name().to_owned();
        for argument in dot.get_positionals() {
            usage.push(' ');
            usage.push_str(&argument_name(argument));
        }
        let about = dot.get_about().map(ToString::to_string).unwrap_or_default();
        help.push_str(&format!("  {usage:<20}  {about}\n"));
    }
    help + QUOTING
}

/// How help writes an argument: the values that it can have, or its name.
fn argument_name(argument: &Arg) -> String {
    let values = argument.get_possible_values();
    if !values.is_empty() {
        return values.iter().map(|value| value.get_name()).collect::<Vec<_>>().join("|");
    }
    let name = argument.get_id().as_str().to_uppercase();
    if argument.is_required_set() { name } else { format!("[{name}]") }
}

const QUOTING: &str = r#"
Quoting:
  Words are split at blanks. 'Single quotes' take everything as it is. "Double quotes" know
  \n \t \r \0 \\ \" and \xNN, a byte in hex. Quotes go around a whole word, or around the
  value in --option="...". A line that begins with # is a comment.

Keys: Tab completes, Up recalls, Ctrl-C abandons the line, Ctrl-D leaves. A line that
begins with a space is not kept in the history.
"#;
