//! `completions` and `man`: what is generated from the definitions in `args`.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::CommandFactory as _;
use clap_mangen::Man;

use crate::args::{Cli, CompletionsArgs, ManArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::failure::Failure;

pub(super) fn completions(cx: &mut Context, args: &CompletionsArgs) -> Result<Exit, Failure> {
    // To memory first: clap_complete panics where a write fails, and a pipe may.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pakv", &mut script);
    cx.out.write_all(&script)?;
    Ok(Exit::Done)
}

pub(super) fn man(_cx: &mut Context, args: &ManArgs) -> Result<Exit, Failure> {
    write_pages(&args.dir)
        .map_err(|error| Failure::file("write the manual pages to", &args.dir, &error))?;
    Ok(Exit::Done)
}

fn write_pages(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    for command in std::iter::once(&program).chain(program.get_subcommands()) {
        let name = command.get_display_name().unwrap_or("pakv").to_string();
        let mut page = Vec::new();
        write_page(command, &name, &mut page)?;
        fs::write(directory.join(format!("{name}.1")), page)?;
    }
    Ok(())
}

/// One page. The text after the options is laid out in sections here: clap_mangen would put it all
/// under "EXTRA" and fill its lines.
fn write_page(command: &clap::Command, name: &str, page: &mut impl Write) -> io::Result<()> {
    let man = Man::new(command.clone())
        .title(name.to_uppercase())
        .source(concat!("pakv ", env!("CARGO_PKG_VERSION")))
        .manual("pakv manual");
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    for line in after.lines() {
        match line.strip_suffix(':').filter(|title| !title.starts_with(' ')) {
            Some(title) => writeln!(page, ".SH \"{}\"\n.nf", roff(&title.to_uppercase()))?,
            None if line.is_empty() => writeln!(page, ".fi")?,
            None => writeln!(page, "{}", roff(line))?,
        }
    }
    Ok(())
}

/// A line of text as it is: none of these is one that roff takes for a request, as all are indented
/// or titles.
fn roff(line: &str) -> String {
    line.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq")
}
