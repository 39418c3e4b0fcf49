//! From the lines of `strace -f -y` to calls, each with the lines at which it began and ended.

use std::collections::HashMap;

/// One system call.
#[derive(Debug)]
pub struct Call {
    /// The thread that made it.
    pub thread: String,
    /// Its name.
    pub name: String,
    /// What stands between its parentheses.
    pub args: String,
    /// The index of the line at which it began.
    pub begin: usize,
    /// The index of the line at which it ended, which is `begin` where nothing came between.
    /// `usize::MAX` if it never did.
    pub end: usize,
    /// What it returned; `None` if it never did.
    pub result: Option<i64>,
}

/// The calls of a run, in the order in which they began.
#[derive(Debug)]
pub struct Trace(pub Vec<Call>);

impl Trace {
    /// Reads what `strace` wrote.
    ///
    /// # Errors
    /// A line that is not understood: a rule that overlooks calls is worth nothing.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut calls: Vec<Call> = Vec::new();
        let mut unfinished: HashMap<&str, usize> = HashMap::new();
        for (index, line) in text.lines().enumerate() {
            let not_understood = || format!("line {index} of the trace: {line}");
            let (pid, rest) = line.split_once(' ').ok_or_else(not_understood)?;
            let rest = rest.trim_start();
            // Signals and ends of processes.
            if rest.starts_with("---") || rest.starts_with("+++") {
                continue;
            }
            if let Some(resumed) = rest.strip_prefix("<... ") {
                let call = unfinished.remove(pid).ok_or_else(not_understood)?;
                let (_, tail) = resumed.split_once(" resumed>").ok_or_else(not_understood)?;
                let (args, result) = split_result(tail).ok_or_else(not_understood)?;
                calls[call].args.push_str(args);
                (calls[call].end, calls[call].result) = (index, result);
                continue;
            }
            let (name, tail) = rest.split_once('(').ok_or_else(not_understood)?;
            let name = name.to_string();
            let (thread, begin) = (pid.to_string(), index);
            if let Some(args) = tail.strip_suffix("<unfinished ...>") {
                unfinished.insert(pid, calls.len());
                let args = args.trim_end().to_string();
                calls.push(Call { thread, name, args, begin, end: usize::MAX, result: None });
            } else {
                let (args, result) = split_result(tail).ok_or_else(not_understood)?;
                let args = args.to_string();
                calls.push(Call { thread, name, args, begin, end: index, result });
            }
        }
        Ok(Self(calls))
    }
}

/// Splits `ARGUMENTS) = RESULT …`, which `strace -a 1` does not pad; the result is `?` where the
/// process ended in the call.
fn split_result(tail: &str) -> Option<(&str, Option<i64>)> {
    let at = tail.rfind(") = ")?;
    let result = &tail[at + 4..];
    let number: String =
        result.chars().take_while(|char| char.is_ascii_digit() || *char == '-').collect();
    Some((&tail[..at], number.parse().ok()))
}

impl Call {
    /// Whether it returned, and not with an error.
    pub fn succeeded(&self) -> bool {
        self.result.is_some_and(|result| result >= 0)
    }

    /// Whether it returned an error.
    pub fn failed(&self) -> bool {
        self.result.is_some_and(|result| result < 0)
    }

    /// The path of the file descriptor that is its first argument.
    pub fn fd_path(&self) -> Option<&str> {
        let (fd, rest) = self.args.split_once('<')?;
        fd.bytes().all(|byte| byte.is_ascii_digit()).then_some(())?;
        let path = rest.split_once('>')?.0;
        Some(path.trim_end_matches(" (deleted)"))
    }

    /// Its arguments that are strings, as bytes: paths, or what is written.
    pub fn strings(&self) -> Vec<Vec<u8>> {
        let mut strings = Vec::new();
        let bytes = self.args.as_bytes();
        let mut at = 0;
        while let Some(quote) = bytes[at..].iter().position(|byte| *byte == b'"') {
            let (string, len) = unescape(&bytes[at + quote + 1..]);
            strings.push(string);
            at += quote + 1 + len;
        }
        strings
    }

    /// Its paths.
    pub fn paths(&self) -> Vec<String> {
        let text = |string: Vec<u8>| String::from_utf8_lossy(&string).into_owned();
        self.strings().into_iter().map(text).collect()
    }
}

/// A string in C's notation up to its closing quote, and how long it was with that.
fn unescape(bytes: &[u8]) -> (Vec<u8>, usize) {
    let mut string = Vec::new();
    let mut at = 0;
    while at < bytes.len() && bytes[at] != b'"' {
        if bytes[at] != b'\\' {
            string.push(bytes[at]);
            at += 1;
            continue;
        }
        let rest = &bytes[at + 1..];
        let digits = rest.iter().take(3).take_while(|byte| (b'0'..b'8').contains(byte)).count();
        if digits > 0 {
            let number =
                rest[..digits].iter().fold(0, |sum, byte| sum * 8 + u32::from(byte - b'0'));
            string.push(u8::try_from(number).unwrap_or(0));
            at += 1 + digits;
        } else {
            let escaped = rest.first().copied().unwrap_or_default();
            string.push(match escaped {
                b'n' => b'\n',
                b't' => b'\t',
                b'r' => b'\r',
                b'v' => 0x0b,
                b'f' => 0x0c,
                other => other,
            });
            at += 2;
        }
    }
    (string, at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_calls() {
        let text = concat!(
            "10 openat(AT_FDCWD</tmp>, \"/s/a.log\", O_RDWR|O_CREAT|O_EXCL, 0600) = 3</s/a.log>\n",
            "10 pwrite64(3</s/a.log>, \"a\\0012\\n\\\"x) = 7\", 9, 0 <unfinished ...>\n",
            "11 rename(\"/s/m.tmp\", \"/s/m\") = -1 ENOENT (No such file or directory)\n",
            "10 <... pwrite64 resumed>) = 9\n",
            "10 fdatasync(3</s/a.log>) = ?\n",
            "10 +++ killed by SIGKILL +++\n",
        );
        let calls = Trace::parse(text).expect("every line is understood").0;
        assert_eq!(calls.len(), 4);
        assert_eq!(calls[1].fd_path(), Some("/s/a.log"));
        assert_eq!(calls[1].strings(), [b"a\x012\n\"x) = 7".to_vec()]);
        assert_eq!((calls[1].begin, calls[1].end, calls[1].result), (1, 3, Some(9)));
        assert_eq!(calls[2].paths(), ["/s/m.tmp", "/s/m"]);
        assert!(calls[2].failed() && !calls[3].succeeded() && !calls[3].failed());
    }
}
