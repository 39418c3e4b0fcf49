//! When a process is killed, and what came of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The calls before which a process is killed: all that change something, and those that an open
/// begins with.
pub(super) const CALLS: [&str; 14] = [
    "flock",
    "getdents64",
    "pwrite64",
    "write",
    "fdatasync",
    "fsync",
    "rename",
    "linkat",
    "unlink",
    "ftruncate",
    "openat",
    "pread64",
    "mmap",
    "munmap",
];

/// Only an open makes these.
pub(super) fn is_of_an_open(call: &str) -> bool {
    call == "flock" || call == "getdents64"
}

/// When it is killed.
#[derive(Debug, Clone, Copy)]
pub(super) enum Moment {
    /// This long after its start.
    After(Duration),
    /// Before it makes a call for the n-th time in one of its threads.
    Call { name: &'static str, nth: u32 },
}

/// Starts `program` so that it will be killed, if it comes that far; the caller kills it
/// [`Moment::After`] a while.
pub(super) fn doomed(program: &Path, moment: Moment) -> Command {
    let Moment::Call { name, nth } = moment else { return Command::new(program) };
    let mut command = Command::new("strace");
    // -D: the tracer is the grandchild, so what is started, waited for and killed is the program.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={name}"));
    command.arg("-e").arg(format!("inject={name}:signal=SIGKILL:when={nth}"));
    command.arg("--").arg(program);
    command
}

/// Whether there is an `strace` that may trace, which killing before the n-th call needs.
pub fn can_kill_at_calls() -> bool {
    let mut command = doomed("true".as_ref(), Moment::Call { name: "execve", nth: 9 });
    let tried = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    tried.is_ok_and(|status| status.success())
}

/// Goes through the calls of each kind of run: the first of a name, the second, and so on until a
/// run makes no more of them.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    next: HashMap<(&'static str, &'static str), u32>,
}

impl Sweep {
    pub(super) fn next(&self, kind: &'static str, call: &'static str) -> Moment {
        let nth = self.next.get(&(kind, call)).copied().unwrap_or(1);
        Moment::Call { name: call, nth }
    }

    /// The run ended by a kill, or without one.
    pub(super) fn ended(&mut self, kind: &'static str, moment: Moment, killed: bool) {
        if let Moment::Call { name, nth } = moment {
            self.next.insert((kind, name), if killed { nth + 1 } else { 1 });
        }
    }
}

/// What was done and found.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Processes that were killed.
    pub kills: u64,
    /// So many of them before their store was open.
    pub kills_in_open: u64,
    /// Processes that ended before the moment came; what they did was checked all the same.
    pub survived: u64,
    /// Writes that were acknowledged and looked for afterwards.
    pub acknowledged: u64,
    /// Acknowledged writes that were not there: the run stops at the first.
    pub lost: u64,
    /// What was there and should not have been.
    pub revived: u64,
    /// Runs after which anything was wrong.
    pub failures: u64,
    /// Kills of each kind.
    pub by_kind: BTreeMap<String, u64>,
}

impl Tally {
    pub(super) fn killed(&mut self, kind: &str, in_open: bool) {
        self.kills += 1;
        self.kills_in_open += u64::from(in_open);
        *self.by_kind.entry(kind.to_string()).or_default() += 1;
    }

    /// Both together.
    pub fn add(&mut self, other: &Tally) {
        self.kills += other.kills;
        self.kills_in_open += other.kills_in_open;
        self.survived += other.survived;
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.revived += other.revived;
        self.failures += other.failures;
        for (kind, kills) in &other.by_kind {
            *self.by_kind.entry(kind.clone()).or_default() += kills;
        }
    }
}

/// As the command that collects figures wants them.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "kills={} kills_in_open={} survived={} acknowledged={} lost={} revived={} \
             failures={}",
            self.kills,
            self.kills_in_open,
            self.survived,
            self.acknowledged,
            self.lost,
            self.revived,
            self.failures
        )?;
        self.by_kind.iter().try_for_each(|(kind, kills)| write!(f, " kills_{kind}={kills}"))
    }
}
