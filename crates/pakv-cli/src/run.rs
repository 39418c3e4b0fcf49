//! From arguments to exit code: parses, runs the verb, reports what went wrong. What clap prints
//! itself (help, version, usage errors) is given its exit code and, if asked for, its JSON here.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _, Write as _};

use clap::{CommandFactory as _, Parser as _};

use crate::args::{Cli, OutputForm, ShellArgs, Verb};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{trace, verb};

/// Runs the program with its arguments, the program's name first.
pub(crate) fn run(argv: Vec<OsString>) -> Exit {
    let form = match option_value(&argv, "--output") {
        Some("json") => OutputForm::Json,
        _ => OutputForm::Text,
    };
    match option_value(&argv, "--color") {
        Some("always") => anstream::ColorChoice::Always,
        Some("never") => anstream::ColorChoice::Never,
        _ => anstream::ColorChoice::Auto,
    }
    .write_global();
    let cli = match Cli::try_parse_from(argv) {
        Ok(cli) => cli,
        Err(error) => return answer_of_clap(&error, form),
    };
    let Some(verb) = cli.verb.or_else(shell_on_a_terminal) else {
        let _ = write!(anstream::stderr(), "{}", Cli::command().render_help().ansi());
        return Exit::Usage;
    };
    if cli.global.verbose {
        trace::show();
    }
    let mut cx = Context::new(&cli.global);
    let result = verb::run(&verb, &mut cx);
    finish(result, &mut cx)
}

/// `pakv` alone opens the shell where a person can type.
fn shell_on_a_terminal() -> Option<Verb> {
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    interactive.then_some(Verb::Shell(ShellArgs { file: None, keep_going: false }))
}

/// Writes out what is buffered, reports a failure, and says how it ended.
fn finish(result: Result<Exit, Failure>, cx: &mut Context) -> Exit {
    let result = result.and_then(|exit| {
        cx.out.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit,
        Err(failure) => {
            cx.report(&failure);
            failure.exit()
        }
    }
}

/// Help and version are results; the rest are usage errors.
fn answer_of_clap(answer: &clap::Error, form: OutputForm) -> Exit {
    let failure = if answer.use_stderr() {
        Failure::of_clap(answer, "pakv --help lists the verbs")
    } else {
        match answer.print().and_then(|()| io::stdout().flush()) {
            Ok(()) => return Exit::Done,
            Err(error) => Failure::from(error),
        }
    };
    failure.print(form);
    failure.exit()
}

/// The value of a global option, read before clap has parsed it: a parse error must be reported in
/// the form and colour that were asked for, and clap does not say what it had understood until
/// then.
fn option_value<'a>(argv: &'a [OsString], name: &str) -> Option<&'a str> {
    let words = || argv.iter().map(|word| word.to_str().unwrap_or(""));
    let mut value = None;
    for (index, word) in words().enumerate().take_while(|(_, word)| *word != "--") {
        if word == name {
            value = words().nth(index + 1);
        } else if let Some(joined) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='))
        {
            value = Some(joined);
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn global_options_are_found_before_parsing() {
        let argv: Vec<OsString> =
            ["pakv", "--output", "json", "--color=never", "nonsense", "--", "--color=always"]
                .map(OsString::from)
                .into();
        assert_eq!(option_value(&argv, "--output"), Some("json"));
        assert_eq!(option_value(&argv, "--color"), Some("never"));
        assert_eq!(option_value(&argv, "--db"), None);
    }
}
