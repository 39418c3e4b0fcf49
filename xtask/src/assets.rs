//! `cargo xtask assets`: what is made from the command line's definitions, by the program itself. The
//! Debian package installs the manual pages and completions, the book has the reference.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::process::{cargo, root, target};
use crate::{Outcome, Verdict};

/// Builds the program, and writes manual pages and completions to `crates/pakv-cli/assets`, where the
/// package's metadata looks for them, and the reference to `book/src/commands.md`.
pub(crate) fn run() -> Outcome {
    let build = ["build", "--release", "--locked", "--package", "pakv-cli"];
    if !cargo(&build).current_dir(root()).status()?.success() {
        return Ok(Verdict::Failed);
    }
    let pakv = target().join("release/pakv");
    let assets = root().join("crates/pakv-cli/assets");
    let _ = fs::remove_dir_all(&assets);
    let pages = assets.join("man");
    fs::create_dir_all(&pages)?;
    output(Command::new(&pakv).arg("man").arg(&pages))?;
    for (shell, file) in [("bash", "pakv"), ("zsh", "_pakv"), ("fish", "pakv.fish")] {
        let script = output(Command::new(&pakv).args(["completions", shell]))?;
        let directory = assets.join(shell);
        fs::create_dir_all(&directory)?;
        fs::write(directory.join(file), script)?;
    }
    fs::write(root().join("book/src/commands.md"), reference(&pakv, &pages)?)?;
    Ok(Verdict::Passed)
}

/// The help of the program and of every verb that has a manual page.
fn reference(pakv: &Path, pages: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let mut verbs = Vec::new();
    for page in fs::read_dir(pages)? {
        let name = page?.file_name().to_string_lossy().into_owned();
        let verb = name.strip_prefix("pakv-").and_then(|name| name.strip_suffix(".1"));
        verbs.extend(verb.map(str::to_string));
    }
    verbs.sort();
    let mut text =
        "# Command reference\n\nWhat `pakv help` and `pakv help VERB` print.\n".to_string();
    for verb in [""].into_iter().chain(verbs.iter().map(String::as_str)) {
        let mut help = Command::new(pakv);
        help.arg("help").args(Some(verb).filter(|verb| !verb.is_empty()));
        let title = if verb.is_empty() { "pakv" } else { verb };
        let shown = output(&mut help)?;
        // The options of every verb are told once, with those of the program.
        let shown = if verb.is_empty() { shown } else { without_global_options(&shown) };
        write!(text, "\n## {title}\n\n```text\n{}\n```\n", shown.trim_end())?;
    }
    Ok(text)
}

/// Without the section of that name: all lines until one that is neither indented nor empty.
fn without_global_options(help: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in help.lines() {
        inside = line == "Global options:" || inside && (line.is_empty() || line.starts_with(' '));
        if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

fn output(command: &mut Command) -> Result<String, Box<dyn std::error::Error>> {
    let output = command.env_remove("PAKV_DB").env_remove("COLUMNS").output()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}
