//! One run of the command line: its arguments, and every state that the store may be in while it
//! goes on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use fastrand::Rng;

use crate::files;

/// What is run, one after the other. Verbs that write come twice.
pub(super) const KINDS: [&str; 29] = [
    "set",
    "import",
    "rm",
    "compact",
    "incr",
    "shell",
    "expire",
    "rm_prefix",
    "persist",
    "set",
    "import",
    "rm",
    "compact",
    "incr",
    "shell",
    "expire",
    "rm_prefix",
    "persist",
    "backup",
    "restore",
    "backup",
    "repair",
    "check",
    "export",
    "scan",
    "get",
    "exists",
    "ttl",
    "stats",
];

/// The contents of a store, by key.
pub(super) type Rows = BTreeMap<Vec<u8>, Row>;

/// A value, and between which milliseconds it expires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) value: Vec<u8>,
    pub(super) expiry: Option<(u64, u64)>,
}

/// What will be run.
pub(super) struct Plan {
    pub(super) kind: &'static str,
    pub(super) args: Vec<OsString>,
    pub(super) stdin: Option<PathBuf>,
    /// The state before, and that after each step.
    pub(super) states: Vec<Rows>,
    /// The exit code, if it is not killed.
    code: i32,
    /// What it prints, and how many steps are done once that is there; `None` if nobody knows.
    says: Option<Vec<(Vec<u8>, usize)>>,
    pub(super) exports_to: Option<PathBuf>,
    pub(super) makes: Option<Made>,
}

/// Another store that a run makes, beside the one that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    Backup,
    Restored,
    Repaired,
}

impl Made {
    /// Its directory, beside the store.
    pub(super) fn name(self) -> &'static str {
        match self {
            Made::Backup => "backup",
            Made::Restored => "restored",
            Made::Repaired => "repaired",
        }
    }
}

const HOUR_MS: u64 = 3_600_000;
/// No run takes longer.
const RUN_MS: u64 = 600_000;
/// `import` writes so many rows, or so many bytes, together.
const GROUP_ROWS: usize = 1000;
const GROUP_BYTES: usize = 1 << 20;

impl Plan {
    /// A run of this kind on a store that holds `rows`; its files go to `dir`.
    pub(super) fn new(kind: &'static str, rows: &Rows, dir: &Path, rng: &mut Rng) -> Self {
        let mut plan = Self {
            kind,
            args: Vec::new(),
            stdin: None,
            states: vec![rows.clone()],
            code: 0,
            says: Some(Vec::new()),
            exports_to: None,
            makes: None,
        };
        match kind {
            "set" => plan.set(dir, rng),
            "rm" => plan.remove(rng),
            "rm_prefix" => plan.remove_prefix(rng),
            "incr" => plan.increment(rng),
            "expire" => plan.expire(rng),
            "persist" => plan.persist(rng),
            "import" => plan.import(dir, rng),
            "compact" | "check" | "stats" => plan.silent(&[kind]),
            // There may be no backup yet.
            "restore" if dir.join(Made::Backup.name()).join("MANIFEST").is_file() => {
                plan.silent(&["restore", Made::Backup.name(), Made::Restored.name()]);
                plan.makes = Some(Made::Restored);
            }
            "backup" | "restore" => {
                plan.silent(&["backup", Made::Backup.name()]);
                plan.makes = Some(Made::Backup);
            }
            "repair" => {
                plan.silent(&["repair", "store", Made::Repaired.name()]);
                plan.makes = Some(Made::Repaired);
            }
            "shell" => plan.shell(dir, rng),
            "export" => {
                plan.args(["export", "--format", "tsv", "exported"]);
                plan.exports_to = Some(dir.join("exported"));
            }
            "scan" => {
                plan.args(["scan"]);
                plan.says(rows_as_tsv(rows), 0);
            }
            "get" | "exists" | "ttl" => plan.read(kind, rng),
            other => panic!("no run of the kind {other}"),
        }
        plan
    }

    /// How many steps must be done, by what it printed and how it ended.
    pub(super) fn least(&self, stdout: &[u8], code: Option<i32>) -> Result<usize, String> {
        if let Some(code) = code.filter(|code| *code != self.code) {
            return Err(format!("the exit code is {code} and not {}", self.code));
        }
        let mut least = 0;
        if let Some(says) = &self.says {
            let whole = says.iter().map(|(text, _)| text.as_slice()).collect::<Vec<_>>().concat();
            if !whole.starts_with(stdout) || (code.is_some() && whole != stdout) {
                let stdout = String::from_utf8_lossy(stdout);
                return Err(format!("it printed {stdout:?}"));
            }
            let mut printed = 0;
            for (text, steps) in says {
                printed += text.len();
                if printed <= stdout.len() {
                    least = *steps;
                }
            }
        }
        Ok(if code.is_some() { self.states.len() - 1 } else { least })
    }

    fn args<A: Into<OsString>>(&mut self, args: impl IntoIterator<Item = A>) {
        self.args.extend(args.into_iter().map(Into::into));
    }

    fn says(&mut self, text: impl Into<Vec<u8>>, steps: usize) {
        self.says.get_or_insert_default().push((text.into(), steps));
    }

    fn silent(&mut self, args: &[&str]) {
        self.args(args.iter().map(OsString::from));
        self.says = None;
    }

    fn last(&self) -> &Rows {
        self.states.last().expect("there is the one before")
    }

    /// A step: what is there after it.
    fn step(&mut self, change: impl FnOnce(&mut Rows)) {
        let mut rows = self.last().clone();
        change(&mut rows);
        self.states.push(rows);
    }

    fn set(&mut self, dir: &Path, rng: &mut Rng) {
        let (key, value) = (key(rng), value(rng));
        self.args(["set".to_string(), key.clone()]);
        if rng.bool() {
            let path = dir.join("value");
            files::write(&path, &value);
            self.args(["--file".into(), path.into_os_string()]);
        } else {
            self.args([String::from_utf8(value.clone()).expect("it is text")]);
        }
        let expiry = (rng.u8(..4) == 0).then(|| {
            self.args(["--ttl", "1h"]);
            in_an_hour()
        });
        let if_absent = rng.u8(..4) == 0;
        if if_absent {
            self.args(["--if-absent"]);
        }
        if if_absent && self.last().contains_key(key.as_bytes()) {
            self.code = 1;
        } else {
            self.step(|rows| drop(rows.insert(key.into_bytes(), Row { value, expiry })));
        }
    }

    fn remove(&mut self, rng: &mut Rng) {
        self.args(["rm"]);
        let keys: Vec<String> = (0..rng.usize(1..5)).map(|_| key(rng)).collect();
        self.args(keys.clone());
        let all_there = keys.iter().all(|key| self.last().contains_key(key.as_bytes()));
        self.code = i32::from(!all_there);
        self.step(|rows| rows.retain(|key, _| !keys.iter().any(|gone| gone.as_bytes() == key)));
    }

    fn remove_prefix(&mut self, rng: &mut Rng) {
        let prefix = ["k0", "k1", "k", "i1", "i02", "f"][rng.usize(..6)];
        self.args(["rm", "--yes", "--prefix", prefix]);
        self.step(|rows| rows.retain(|key, _| !key.starts_with(prefix.as_bytes())));
    }

    fn increment(&mut self, rng: &mut Rng) {
        let (key, by) = (format!("n{}", rng.u8(..4)), rng.i32(-1000..1000));
        self.args(["incr", &key, "--by", &by.to_string()]);
        let sum = self.add(&key, by);
        self.says(format!("{sum}\n"), 1);
    }

    fn add(&mut self, key: &str, by: i32) -> i64 {
        let row = self.last().get(key.as_bytes()).cloned();
        let old = row.as_ref().map_or(0, |row| {
            String::from_utf8_lossy(&row.value).parse::<i64>().expect("only incr writes these")
        });
        let sum = old + i64::from(by);
        let row = Row { value: sum.to_string().into_bytes(), expiry: row.and_then(|r| r.expiry) };
        self.step(|rows| drop(rows.insert(key.as_bytes().to_vec(), row)));
        sum
    }

    fn expire(&mut self, rng: &mut Rng) {
        let key = key(rng);
        self.args(["expire", &key]);
        let at = rng.u8(..4) == 0;
        self.args(if at { &["--at", "4102444800000"][..] } else { &["1h"][..] }.iter().copied());
        if !self.last().contains_key(key.as_bytes()) {
            self.code = 1;
            return;
        }
        let expiry = if at { (4_102_444_800_000, 4_102_444_800_000) } else { in_an_hour() };
        self.change(&key, |row| row.expiry = Some(expiry));
    }

    fn persist(&mut self, rng: &mut Rng) {
        let key = key(rng);
        self.args(["persist", &key]);
        if self.last().contains_key(key.as_bytes()) {
            self.change(&key, |row| row.expiry = None);
        } else {
            self.code = 1;
        }
    }

    /// A step that changes a row that is there.
    fn change(&mut self, key: &str, change: impl FnOnce(&mut Row)) {
        self.step(|rows| change(rows.get_mut(key.as_bytes()).expect("it was looked for")));
    }

    /// A few rows in one group, many in several, or a few large ones.
    fn import(&mut self, dir: &Path, rng: &mut Rng) {
        let (count, value_bytes) = match rng.u8(..6) {
            0 => (2_500, 0..20),
            1 => (30, 60_000..90_000),
            _ => (rng.usize(1..40), 0..300),
        };
        let format = ["jsonl", "tsv", "csv"][rng.usize(..3)];
        let mut text = if format == "csv" { "key,value\n".to_string() } else { String::new() };
        let mut group: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        let mut group_bytes = 0;
        for line in 0..count {
            let key = format!("i{:04}", rng.u16(..3000));
            let len = rng.usize(value_bytes.clone());
            let value = format!("{line}{}", "v".repeat(len));
            // An entry that has expired meanwhile removes its key.
            let expired = format == "jsonl" && rng.u8(..10) == 0;
            let end = if expired { ",\"expires_at_ms\":1000" } else { "" };
            text += &match format {
                "jsonl" => format!("{{\"key\":\"{key}\",\"value\":\"{value}\"{end}}}\n"),
                "tsv" => format!("{key}\t{value}\n"),
                _ => format!("{key},{value}\n"),
            };
            group_bytes += key.len() + value.len();
            group.push((key.into_bytes(), (!expired).then(|| value.into_bytes())));
            if group.len() == GROUP_ROWS || group_bytes >= GROUP_BYTES || line + 1 == count {
                group_bytes = 0;
                let group = std::mem::take(&mut group);
                self.step(|rows| {
                    for (key, value) in group {
                        match value {
                            Some(value) => drop(rows.insert(key, Row { value, expiry: None })),
                            None => drop(rows.remove(&key)),
                        }
                    }
                });
            }
        }
        let path = dir.join("rows");
        files::write(&path, text);
        self.args(["import", "--format", format]);
        if rng.bool() {
            self.args([path.into_os_string()]);
        } else {
            self.stdin = Some(path);
        }
    }

    /// A script: each line is a step.
    fn shell(&mut self, dir: &Path, rng: &mut Rng) {
        let mut script = String::new();
        for _ in 0..rng.usize(1..20) {
            let steps = self.states.len();
            let key = key(rng);
            let there = self.last().get(key.as_bytes()).cloned();
            match (rng.u8(..6), there) {
                (0, Some(_)) => {
                    script += &format!("rm {key}\n");
                    self.step(|rows| drop(rows.remove(key.as_bytes())));
                }
                (1, Some(row)) => {
                    script += &format!("get {key}\n");
                    self.says([&row.value[..], b"\n"].concat(), steps - 1);
                }
                (2, _) => {
                    let (key, by) = (format!("n{}", rng.u8(..4)), rng.i32(-9..9));
                    script += &format!("incr {key} --by {by}\n");
                    let sum = self.add(&key, by);
                    self.says(format!("{sum}\n"), steps);
                }
                (3, Some(row)) => {
                    script += &format!("expire {key} 1h\n");
                    let expiry = Some(in_an_hour());
                    let row = Row { expiry, ..row };
                    self.step(|rows| drop(rows.insert(key.into_bytes(), row)));
                }
                _ => {
                    let value = value(rng);
                    script += &format!("set {key} '{}'\n", String::from_utf8_lossy(&value));
                    let row = Row { value, expiry: None };
                    self.step(|rows| drop(rows.insert(key.into_bytes(), row)));
                }
            }
        }
        let path = dir.join("script");
        files::write(&path, script);
        self.args(["shell"]);
        if rng.bool() {
            self.args([path.into_os_string()]);
        } else {
            self.stdin = Some(path);
        }
    }

    fn read(&mut self, verb: &str, rng: &mut Rng) {
        let key = key(rng);
        self.args([verb, &key]);
        let row = self.last().get(key.as_bytes()).cloned();
        self.code = i32::from(row.is_none());
        match (verb, row) {
            ("exists", row) => self.says(format!("{}\n", row.is_some()), 0),
            ("get", Some(row)) => self.says(row.value, 0),
            ("ttl", Some(Row { expiry: None, .. })) => self.says("never\n", 0),
            ("ttl", Some(_)) => self.says = None,
            _ => {}
        }
    }
}

/// As `scan` and `export --format tsv` print them.
pub(super) fn rows_as_tsv(rows: &Rows) -> Vec<u8> {
    let line = |(key, row): (&Vec<u8>, &Row)| [key, &b"\t"[..], &row.value, b"\n"].concat();
    rows.iter().flat_map(line).collect()
}

/// Whether what was found is this state.
pub(super) fn fits(found: &Rows, state: &Rows) -> bool {
    found.len() == state.len()
        && found
            .iter()
            .zip(state)
            .all(|((found_key, found), (key, row))| found_key == key && fits_row(found, row))
}

pub(super) fn fits_row(found: &Row, row: &Row) -> bool {
    found.value == row.value
        && match (found.expiry, row.expiry) {
            (None, None) => true,
            (Some((at, _)), Some((from, to))) => (from..=to).contains(&at),
            _ => false,
        }
}

/// Printable, without quotes, tabs and newlines: it goes through arguments, scripts and tsv.
pub(super) fn value(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.u8(..12) == 0 { 30_000 } else { rng.usize(1..300) };
    std::iter::repeat_with(|| rng.alphanumeric() as u8).take(len).collect()
}

fn key(rng: &mut Rng) -> String {
    format!("k{:02}", rng.u8(..24))
}

/// The command will be run in a moment.
fn in_an_hour() -> (u64, u64) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let at = u64::try_from(now.as_millis()).expect("and not much") + HOUR_MS;
    (at, at + RUN_MS)
}
