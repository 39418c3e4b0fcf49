//! `watch` beside processes that write: it follows them, and ends with Ctrl-C or its reader.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;

use crate::kit::Sandbox;

#[test]
fn a_watch_follows_other_processes_until_it_is_stopped() {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "a", "1"]).prints("");
    let mut child = sandbox.interruptible(["watch", "--from", "1"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut line = move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        (line, lines.buffer().is_empty())
    };
    assert_eq!(line().0, "{\"seqno\":1,\"op\":\"set\",\"key\":\"a\",\"value\":\"1\"}\n");
    for number in 2..5 {
        // Each in a process of its own, one after the other.
        sandbox.run(["set", "a", &number.to_string()]).prints("");
        let expected =
            format!("{{\"seqno\":{number},\"op\":\"set\",\"key\":\"a\",\"value\":\"{number}\"}}\n");
        assert_eq!(line(), (expected, true), "nothing else");
    }
    let id = child.id().to_string();
    assert!(sandbox.command("kill").args(["-INT", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().signal(), Some(2));
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((line().0.as_str(), said.as_str()), ("", ""));
}

/// Nothing changes any more: it is not by writing that it learns that nobody reads.
#[test]
fn a_watch_ends_when_its_reader_leaves() {
    let sandbox = Sandbox::new();
    sandbox.run(["set", "a", "1"]).prints("");
    let run = sandbox.sh("{ timeout 60 pakv watch --from 1; echo $? >&2; } | head -n 1");
    assert_eq!(run.stderr, "0\n");
    assert_eq!(run.stdout, b"{\"seqno\":1,\"op\":\"set\",\"key\":\"a\",\"value\":\"1\"}\n");
}
