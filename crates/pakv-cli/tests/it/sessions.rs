//! Recorded terminal sessions, run again. A session is a `console` block of a Markdown file:
//!
//! ```console
//! $ pakv set name Ann
//! $ pakv get nobody
//! ? 1
//! Key not found
//! ```
//!
//! A line after `$ ` is run by `sh`, one that begins with `> ` continues it; `? N` is the exit
//! code, 0 if it is absent (or `$ echo $?` follows, which works as at a terminal); the rest is what
//! standard output and standard error show together. `[..]` stands for any text in a line, a line
//! `...` for any lines. All blocks of a file run in one directory, empty at first.
//!
//! With `PAKV_SESSIONS=overwrite` in the environment a file that differs is written anew instead.

use std::fs;
use std::path::{Path, PathBuf};

use crate::kit::Sandbox;

/// The exit code where a store is damaged: a session that has it shows what is done about it.
const CORRUPT: i32 = 4;

macro_rules! sessions {
    ($($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            replay(&sessions_directory().join(concat!(stringify!($name), ".md")));
        })*

        #[test]
        fn every_recorded_session_is_run() {
            let mut recorded: Vec<String> = markdown_in(&sessions_directory())
                .iter()
                .map(|path| path.file_stem().unwrap().to_str().unwrap().to_string())
                .collect();
            recorded.sort();
            assert_eq!(recorded, [$(stringify!($name)),*]);
        }
    };
}

sessions! {
    backup,
    bench,
    check,
    exit_codes,
    expiry,
    export,
    generated,
    get_set,
    help,
    import,
    incr,
    json,
    rm,
    scan,
    stats_compact,
    stats_watch_top,
    verbose,
    watch,
}

#[test]
fn readme_and_documentation() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let directories = [root.clone(), root.join("docs"), root.join("book/src")];
    for file in directories.iter().flat_map(|directory| markdown_in(directory)) {
        replay(&file);
    }
}

fn sessions_directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sessions")
}

fn markdown_in(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_some_and(|extension| extension == "md")).collect()
}

/// Runs every `console` block of a file and compares, or overwrites.
fn replay(file: &Path) {
    let sandbox = Sandbox::new();
    let text = fs::read_to_string(file).unwrap();
    let mut lines = text.lines().peekable();
    let mut actual = String::new();
    let mut failures = String::new();
    let mut in_console = false;
    let mut last_code = 0;
    while let Some(line) = lines.next() {
        push_line(&mut actual, line);
        if let Some(info) = line.trim_start().strip_prefix("```") {
            in_console = !in_console && info.trim() == "console";
            continue;
        }
        let Some(command) = line.strip_prefix("$ ").filter(|_| in_console) else { continue };
        let mut command = command.to_string();
        while let Some(more) = lines.next_if(|line| line.starts_with("> ")) {
            push_line(&mut actual, more);
            command.push('\n');
            command.push_str(&more[2..]);
        }
        let mut wanted = String::new();
        while let Some(line) =
            lines.next_if(|line| !line.starts_with("$ ") && !line.starts_with("```"))
        {
            push_line(&mut wanted, line);
        }
        let asks_for_code = lines.peek() == Some(&"$ echo $?");
        let shown = run(&sandbox, &command, &mut last_code, asks_for_code);
        if matches(wanted.trim_end(), shown.trim_end()) {
            actual.push_str(&wanted);
        } else {
            actual.push_str(&shown);
            failures.push_str(&format!("$ {command}\n--- wanted\n{wanted}--- got\n{shown}\n"));
        }
    }
    if failures.is_empty() {
        return;
    }
    if std::env::var("PAKV_SESSIONS").is_ok_and(|value| value == "overwrite") {
        fs::write(file, actual).unwrap();
    } else {
        panic!("{}:\n{failures}", file.display());
    }
}

/// What a terminal would show, the exit code first unless it is 0 or asked for next.
fn run(sandbox: &Sandbox, command: &str, last_code: &mut i32, asks_for_code: bool) -> String {
    let run = sandbox.sh(&format!("exec 2>&1\n(exit {last_code})\n{command}"));
    *last_code = run.code.unwrap_or(-1);
    if *last_code == CORRUPT {
        sandbox.will_be_damaged();
    }
    let mut shown = String::new();
    if *last_code != 0 && !asks_for_code {
        push_line(&mut shown, &format!("? {last_code}"));
    }
    for line in String::from_utf8_lossy(&run.stdout).lines() {
        push_line(&mut shown, line);
    }
    shown
}

fn push_line(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}

/// Whether the text has the form of the pattern, line by line.
fn matches(pattern: &str, text: &str) -> bool {
    let pattern: Vec<&str> = pattern.lines().collect();
    let text: Vec<&str> = text.lines().collect();
    lines_match(&pattern, &text)
}

fn lines_match(pattern: &[&str], text: &[&str]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ["...", rest @ ..] => (0..=text.len()).any(|skipped| lines_match(rest, &text[skipped..])),
        [first, rest @ ..] => {
            text.first().is_some_and(|line| line_matches(first, line))
                && lines_match(rest, &text[1..])
        }
    }
}

fn line_matches(pattern: &str, line: &str) -> bool {
    match pattern.split_once("[..]") {
        None => pattern == line,
        Some((before, after)) => line.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(index, _)| index).chain([rest.len()]);
            ends.into_iter().any(|end| line_matches(after, &rest[end..]))
        }),
    }
}

#[test]
fn patterns() {
    assert!(matches("a [..] c\n...\nz", "a b c\nx\ny\nz"));
    assert!(matches("a[..]\n...", "a"));
    assert!(!matches("a", "a\nb"));
    assert!(!matches("[..]b", "ac"));
    assert!(matches("", ""));
}
