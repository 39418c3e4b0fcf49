//! What verbs do at a terminal and not elsewhere: end lines, escape, ask, colour.

use std::io::{Read as _, Write as _};

use pty_process::blocking::Command;

use crate::kit::{Sandbox, measured};

/// Runs pakv on a pseudo-terminal, types the input, and gives what the screen shows and the exit
/// code.
fn at_a_terminal(sandbox: &Sandbox, args: &[&str], input: &str) -> (String, Option<i32>) {
    let (mut pty, pts) = pty_process::blocking::open().unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_pakv"))
        .args(args)
        .current_dir(sandbox.path(""))
        .env_clear()
        .envs(measured())
        .env("TERM", "xterm")
        .env("NO_COLOR", if args.contains(&"--color") { "" } else { "1" })
        .spawn(pts)
        .unwrap();
    // What is typed before it is asked for waits in the terminal.
    pty.write_all(input.as_bytes()).unwrap();
    let mut screen = Vec::new();
    // Reading fails once the program has left the terminal.
    let _ = pty.read_to_end(&mut screen);
    let code = child.wait().unwrap().code();
    (String::from_utf8(screen).unwrap().replace("\r\n", "\n"), code)
}

#[test]
fn get_ends_the_line_and_shows_bytes_that_would_garble_it() {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "text", "C:\\dir"]).prints("");
    sandbox.run_with_stdin(&["set", "bytes", "-"], b"red \x1b[31m\nand \xff").prints("");
    let show = |args: &[&str]| at_a_terminal(&sandbox, args, "").0;
    assert_eq!(show(&["get", "text"]), "C:\\dir\n");
    assert_eq!(show(&["get", "bytes"]), "red \\x1b[31m\nand \\xff\n");
    assert_eq!(show(&["--output", "raw", "get", "text"]), "C:\\dir");
    assert_eq!(show(&["scan"]), "bytes\tred \\x1b[31m\\nand \\xff\ntext\tC:\\\\dir\n");
    assert_eq!(show(&["--output", "raw", "scan", "--keys"]), "bytes\ntext\n");
    let coloured = show(&["--color", "auto", "scan", "--keys"]);
    assert_eq!(coloured, "\x1b[36mbytes\x1b[0m\n\x1b[36mtext\x1b[0m\n");
}

#[test]
fn rm_asks_before_a_prefix_goes() {
    let sandbox = Sandbox::new();
    for key in ["user:1", "user:2", "other"] {
        sandbox.run(["set", key, "v"]).prints("");
    }
    let question = "Remove 2 keys, those that begin with user:? [y/N] ";
    for no in ["n\n", "\n", "yellow\n", "\x04"] {
        let (screen, code) = at_a_terminal(&sandbox, &["rm", "--prefix", "user:"], no);
        assert!(screen.contains(question), "{screen:?}");
        assert!(screen.ends_with("Nothing removed\n"), "{screen:?}");
        assert_eq!(code, Some(1));
    }
    sandbox.run(["scan", "--count"]).prints("3\n");
    let (screen, code) = at_a_terminal(&sandbox, &["rm", "--prefix", "user:"], "y\n");
    assert!(screen.contains(question), "{screen:?}");
    assert_eq!(code, Some(0));
    sandbox.run(["scan", "--keys"]).prints("other\n");
    let (screen, code) = at_a_terminal(&sandbox, &["rm", "--prefix", "user:"], "");
    assert_eq!((screen.as_str(), code), ("", Some(0)), "no question about nothing");
    at_a_terminal(&sandbox, &["rm", "--prefix", "", "--yes"], "");
    sandbox.run(["scan", "--count"]).prints("0\n");
}
