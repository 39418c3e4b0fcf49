//! The shell: the verbs of the command line as lines, on a store that is opened once. Lines come
//! from a person at a terminal, where an error is told and the session goes on, or from a script,
//! where it is the end.

use std::io::{self, IsTerminal as _};

use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use crate::args::ShellArgs;
use crate::context::{Context, Creates};
use crate::exit::Exit;
use crate::failure::Failure;

use complete::ShellHelper;
pub(crate) use complete::Vocabulary;
use session::{Next, Session};

mod complete;
mod dot;
mod history;
mod script;
mod session;
pub(crate) mod words;

const PROMPT: &str = "pakv> ";

/// Runs the shell to its end and closes the store.
pub(crate) fn run(cx: &mut Context, args: &ShellArgs) -> Result<Exit, Failure> {
    cx.enter_shell();
    let mut session = Session::new(cx, args.keep_going);
    let result = match &args.file {
        Some(file) if file.as_os_str() != "-" => session.file(file),
        _ if io::stdin().is_terminal() => interactive(&mut session),
        _ => session.script(io::stdin().lock(), None),
    };
    let result = result.and_then(|_| session.verdict());
    match (result, cx.leave_shell()) {
        (Ok(()), closed) => closed.map(|()| Exit::Done),
        (Err(failure), closed) => {
            if let Err(failure) = closed {
                cx.report(&failure);
            }
            Err(failure)
        }
    }
}

/// Reads lines from a terminal until its user leaves.
fn interactive(session: &mut Session<'_>) -> Result<Next, Failure> {
    greet(session.cx)?;
    let mut editor = editor().map_err(terminal_failure)?;
    let mut history = history::path(|name| std::env::var_os(name));
    if let Some(path) = &history {
        let loaded = history::create(path)
            .map_err(ReadlineError::Io)
            .and_then(|()| editor.load_history(path));
        if let Err(error) = loaded {
            session.cx.note(&format!("no history is kept: {}: {error}", path.display()));
            history = None;
        }
    }
    loop {
        if let Some(helper) = editor.helper_mut() {
            helper.db = session.cx.open_db().cloned();
        }
        let line = match editor.readline(PROMPT) {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Next::Leave),
            Err(error) => return Err(terminal_failure(error)),
        };
        // Written line by line: whatever ends the session, what was typed is kept.
        let kept = editor.add_history_entry(&line).unwrap_or(false);
        if let (true, Some(path)) = (kept, &history) {
            // A history that cannot be written is no reason to disturb.
            let _ = editor.append_history(path);
        }
        let result = session.line(line.as_bytes());
        session.cx.out.end_line()?;
        match result {
            Ok(Next::Line) => {}
            Ok(Next::Leave) => return Ok(Next::Leave),
            Err(failure) if failure.is_broken_pipe() => return Err(failure),
            Err(failure) => session.cx.report(&failure),
        }
    }
}

/// Says where the session is and opens the store, so that completion has its keys and damage shows
/// at once. A store that is not there yet, or that can only be read, as one that another process
/// holds, is no reason not to begin.
fn greet(cx: &mut Context) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    cx.note(&format!("pakv {version}, store {}; .help tells more", cx.db.display()));
    match cx.writer(Creates::No) {
        Ok(_) => {}
        Err(failure) if failure.is_no_store() => {
            cx.note("there is no store there yet; the first line that writes creates it");
        }
        Err(failure) => {
            cx.reader()?.close()?;
            cx.report(&failure);
        }
    }
    Ok(())
}

fn editor() -> rustyline::Result<Editor<ShellHelper, FileHistory>> {
    let config = Config::builder()
        .max_history_size(history::MAX_ENTRIES)?
        .history_ignore_dups(true)?
        .history_ignore_space(true)
        .completion_type(CompletionType::List)
        .build();
    let mut editor = Editor::with_config(config)?;
    let vocabulary = Vocabulary::new();
    editor.set_helper(Some(ShellHelper { vocabulary, db: None }));
    Ok(editor)
}

fn terminal_failure(error: ReadlineError) -> Failure {
    Failure::failed("terminal", format!("cannot read from the terminal: {error}"))
}
