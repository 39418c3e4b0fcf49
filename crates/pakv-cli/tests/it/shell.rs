//! Scripts through the shell: what a line does, where a script stops, and what is said about it.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::kit::{Run, Sandbox};

impl Sandbox {
    fn shell(&self, script: impl AsRef<[u8]>) -> Run {
        self.run_with_stdin(&["shell"], script.as_ref())
    }
}

impl Run {
    #[track_caller]
    fn is(&self, code: i32, stdout: impl AsRef<[u8]>, stderr: &str) {
        let wanted = (Some(code), stdout.as_ref(), stderr);
        let stdout = String::from_utf8_lossy(&self.stdout);
        assert_eq!((self.code, &self.stdout[..], &self.stderr[..]), wanted, "{stdout}");
    }
}

#[test]
fn a_script_runs_line_by_line() {
    let sandbox = Sandbox::new();
    let script =
        "# a comment\n\nset a 1\nset 'b c' \"x\\ty\"\r\n  incr a\nget a\nget 'b c'\nscan --keys";
    sandbox.shell(script).is(0, "2\n2\nx\ty\na\nb c\n", "");
    sandbox.shell("").is(0, "", "");
}

#[test]
fn keys_and_values_are_any_bytes() {
    let sandbox = Sandbox::new();
    let run = sandbox.shell(
        b"set \"\\xff\\0\" \"\\n\"\nset raw\xfe \xfd\nget \"\\xff\\x00\"\nget \"raw\\xfe\"\n",
    );
    run.is(0, b"\n\n\xfd\n", "");
}

#[test]
fn the_first_error_stops_a_script_and_gives_its_line_and_exit_code() {
    let sandbox = Sandbox::new();
    sandbox.shell("set a 1\nget a\nget b\nset c 3\n").is(1, "1\n", "line 3: Key not found\n");
    sandbox.shell("get c\n").is(1, "", "line 1: Key not found\n");
    let run = sandbox.shell("get a\n\nset b 'open\nset c 3\n");
    run.is(
        2,
        "1\n",
        "error: line 3: the quote ' is not closed (column 7)\n\
         hint: a quoted word ends on its own line; inside \"...\" a newline is \\n\n",
    );
    let run = sandbox.shell("frobnicate\nset c 3\n");
    assert!(run.code == Some(2) && run.stderr.starts_with("error: line 1: "), "{run:?}");
    let run = sandbox.shell("set a 2 --if-absent\nset c 3\n");
    assert!(run.code == Some(1) && run.stderr.starts_with("line 1: "), "{run:?}");
    sandbox.shell("exists c\nexists a\n").is(0, "false\ntrue\n", "");
}

#[test]
fn keep_going_goes_on_and_counts() {
    let sandbox = Sandbox::new();
    let script = b"set a 1\nget b\nset b 'open\nget a\n";
    let run = sandbox.run_with_stdin(&["shell", "--keep-going"], script);
    assert_eq!((run.code, &run.stdout[..]), (Some(1), &b"1\n"[..]));
    assert!(run.stderr.starts_with("line 2: Key not found\nerror: line 3: "), "{run:?}");
    assert!(run.stderr.ends_with("2 lines failed\n"), "{run:?}");
    sandbox.run_with_stdin(&["shell", "--keep-going"], b"get a\n").is(0, "1\n", "");
}

#[test]
fn errors_are_json_where_results_are() {
    let sandbox = Sandbox::new();
    let run = sandbox.run_with_stdin(&["--output", "json", "shell"], b"get a\n");
    assert_eq!(run.code, Some(3));
    assert!(
        run.stderr.starts_with("{\"error\":{\"code\":\"no_store\",\"message\":\"line 1: "),
        "{run:?}"
    );
    let run = sandbox.shell("set a 1\n.mode json\nget b\n");
    run.is(
        1,
        "",
        "{\"error\":{\"code\":\"key_not_found\",\"message\":\"line 3: Key not found\"}}\n",
    );
}

#[test]
fn a_script_can_be_a_file_and_read_another() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("outer"), "set a 1\n.read inner\nset a 3\n").unwrap();
    fs::write(sandbox.path("inner"), "set a 2\nget b\n").unwrap();
    let run = sandbox.run_with_stdin(&["shell", "outer"], b"");
    run.is(1, "", "outer, line 2: inner, line 2: Key not found\n");
    fs::write(sandbox.path("inner"), "set a 2\n.quit\n").unwrap();
    sandbox.run_with_stdin(&["shell", "outer"], b"").is(0, "", "");
    sandbox.shell("get a").is(0, "2\n", "");
    sandbox.run_with_stdin(&["shell", "-"], b"get a").is(0, "2\n", "");

    fs::write(sandbox.path("loop"), ".read loop\n").unwrap();
    let run = sandbox.run_with_stdin(&["shell", "loop"], b"");
    assert!(run.code == Some(2) && run.stderr.contains("nested"), "{run:?}");
    let run = sandbox.run_with_stdin(&["shell", "missing"], b"");
    assert!(run.code == Some(3) && run.stderr.contains("cannot open missing"), "{run:?}");
}

#[test]
fn a_line_that_reads_creates_no_store() {
    let sandbox = Sandbox::new();
    let run = sandbox.shell("get a\n");
    assert!(
        run.code == Some(3) && run.stderr.starts_with("error: line 1: there is no store"),
        "{run:?}"
    );
    sandbox.shell(".help\n.timer on\n.quit\nset a 1\n");
    assert!(!sandbox.path("pakv-data").exists());
}

#[test]
fn standard_input_is_the_shells_own() {
    let sandbox = Sandbox::new();
    for line in ["set a -", "import", "import -"] {
        let run = sandbox.shell(format!("{line}\nset b 2\n"));
        assert!(run.code == Some(2) && run.stderr.contains("standard input"), "{line}: {run:?}");
    }
    assert!(!sandbox.path("pakv-data").exists());
}

#[test]
fn help_names_verbs_dot_commands_and_quoting() {
    let sandbox = Sandbox::new();
    let run = sandbox.shell(".help\n");
    let help = String::from_utf8(run.stdout).unwrap();
    assert!(
        run.code == Some(0) && ["scan", ".timer", "\\xNN"].iter().all(|text| help.contains(text))
    );
    assert!(!help.contains("completions"), "{help}");
    for line in [".help get", "get --help", "help get"] {
        let run = sandbox.shell(line);
        let help = String::from_utf8(run.stdout).unwrap();
        assert!(run.code == Some(0) && help.contains("--default"), "{line}: {help}{}", run.stderr);
    }
    assert_eq!(sandbox.shell(".frob\n").code, Some(2));
    assert_eq!(sandbox.shell(".timer maybe\n").code, Some(2));
}

#[test]
fn a_line_begins_with_a_verb_and_nothing_like_it() {
    let sandbox = Sandbox::new();
    sandbox.shell("set a 1");
    for line in
        ["bin/get a", "get.exe a", "--help", "--db x get a", "'' a", "'get a'", "pakv get a"]
    {
        let run = sandbox.shell(line);
        run.fails(2, "line 1: ");
    }
    sandbox.shell("'get' a").is(0, "1\n", "");
}

#[test]
fn a_program_can_talk_to_the_shell_line_by_line() {
    let sandbox = Sandbox::new();
    let mut child = sandbox.pakv(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = child.stdin.take().unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap()).lines();
    lines.write_all(b"incr a\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "1");
    lines.write_all(b"incr a\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "2");
    drop(lines);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new();
    sandbox.shell("set a 1");
    let mut child = sandbox.pakv(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"get a\nget missing\n").unwrap();
    Run::of(child.wait_with_output().unwrap()).is(0, "", "");
}

#[test]
fn beside_a_writer_lines_can_read_and_not_write() {
    let sandbox = Sandbox::new();
    sandbox.shell("set a 1");
    let mut holder = sandbox.pakv(["shell"]).stdin(Stdio::piped()).spawn().unwrap();
    let mut lines = holder.stdin.take().unwrap();
    let mut answers = BufReader::new(holder.stdout.take().unwrap()).lines();
    lines.write_all(b"incr a\n").unwrap();
    assert_eq!(answers.next().unwrap().unwrap(), "2");

    let run = sandbox.run_with_stdin(&["shell", "--wait", "0"], b"get a\nset a 9\n");
    assert_eq!((run.code, &run.stdout[..]), (Some(5), &b"2\n"[..]), "{run:?}");
    let pid = format!("process {} has it open", holder.id());
    assert!(run.stderr.starts_with("error: line 2: ") && run.stderr.contains(&pid), "{run:?}");

    drop(lines);
    assert!(holder.wait().unwrap().success());
    sandbox.shell("incr a").is(0, "3\n", "");
}
