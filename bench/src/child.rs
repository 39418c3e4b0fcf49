//! One work of one engine in a process of its own: started, watched, and what came of it.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cage::{self, Cage};
use crate::figures::Figures;
use crate::work::{Job, Work};

/// Whoever takes longer does not end.
const PATIENCE: Duration = Duration::from_secs(45 * 60);
const LOOK: Duration = Duration::from_millis(20);

/// Runs it. That it failed is a figure too: a run goes on, and the table says so.
pub(crate) fn measure(job: &Job) -> Figures {
    settle_disk(&job.dir);
    let figures = match attempt(job) {
        Ok(figures) => figures,
        Err(error) => {
            let mut figures = Figures::new(job);
            figures.failed = Some(format!("{error:#}"));
            figures
        }
    };
    say(&figures);
    figures
}

/// What the one before left to be written is not this one's to wait for.
fn settle_disk(dir: &Path) {
    // The store may not be there yet; where its directory lies is on the same disk.
    let synced = [Some(dir), dir.parent()].into_iter().flatten().find_map(|dir| {
        let opened = File::open(dir).ok()?;
        rustix::fs::syncfs(opened).ok()
    });
    if synced.is_none() {
        eprintln!("what was written before cannot be waited for");
    }
}

fn attempt(job: &Job) -> Result<Figures> {
    if job.work == Work::OpenKilled {
        let dirty = Job { work: Work::Dirty, ..job.clone() };
        kill_when_dirty(&mut command(&dirty))?;
    }
    let limit = cage::limit(job.keys, job.value_bytes);
    let cage = match (job.work == Work::Cold).then(|| Cage::new(limit)).transpose() {
        Ok(cage) => cage,
        // The machine's fault, not the engine's: nothing is measured, nobody has failed.
        Err(error) => {
            eprintln!("**** SKIPPED: {} {}: {error:#} ****", job.work.arg(), job.engine.name());
            return Ok(Figures::new(job));
        }
    };
    let mut command = command(job);
    if let Some(cage) = &cage {
        command.arg("--cage").arg(cage.path());
    }
    let (status, stdout, stderr) = watch(&mut command)?;
    if status.success() {
        return serde_json::from_slice(&stdout).context("the child's figures cannot be read");
    }
    let said = stderr.lines().find_map(|line| line.strip_prefix("Error: "));
    match (said, &cage) {
        (Some(said), _) => bail!("{said}"),
        (None, Some(_)) => bail!("cannot live in {} MiB ({status})", limit >> 20),
        (None, None) => bail!("the child ended with {status}"),
    }
}

/// What starts the child, with every option of the job.
pub(crate) fn command(job: &Job) -> Command {
    let program = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
    let mut command = Command::new(program);
    command.arg("child");
    command.args(arguments(job));
    command
}

pub(crate) fn arguments(job: &Job) -> Vec<std::ffi::OsString> {
    let (keys, bytes) = (job.keys.to_string(), job.value_bytes.to_string());
    let mut all = vec![job.engine.arg(), job.work.arg(), keys, bytes];
    all.push(format!("--cache-mib={}", job.cache_mib));
    all.push(format!("--seconds={}", job.seconds));
    all.push(format!("--pace={}", job.pace));
    all.push(format!("--run={}", job.run));
    let dir = [job.dir.clone().into_os_string()];
    all.into_iter().map(Into::into).chain(dir).collect()
}

fn watch(command: &mut Command) -> Result<(ExitStatus, Vec<u8>, String)> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdout = child.stdout.take().context("stdout is piped")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    // Both are read while it runs: it must not wait for room in a pipe.
    let figures = thread::spawn(move || {
        let mut all = Vec::new();
        stdout.read_to_end(&mut all).map(|_| all)
    });
    let said = thread::spawn(move || {
        let mut all = String::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            eprintln!("    {line}");
            all.push_str(&line);
            all.push('\n');
        }
        all
    });
    let status = ended(&mut child)?;
    let figures = figures.join().expect("reading does not panic")?;
    Ok((status, figures, said.join().expect("reading does not panic")))
}

fn ended(child: &mut Child) -> Result<ExitStatus> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if start.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            bail!("not done after {} minutes", PATIENCE.as_secs() / 60);
        }
        thread::sleep(LOOK);
    }
}

/// Waits for the line that says that enough is written, then kills with SIGKILL.
fn kill_when_dirty(command: &mut Command) -> Result<()> {
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    let stdout = child.stdout.take().context("stdout is piped")?;
    let read = BufReader::new(stdout).read_line(&mut line);
    child.kill()?;
    child.wait()?;
    read?;
    if line.trim() != "dirty" {
        bail!("the child that was to be killed ended by itself");
    }
    Ok(())
}

fn say(figures: &Figures) {
    let (engine, work, run) = (figures.engine.name(), figures.work.arg(), figures.run);
    if let Some(why) = &figures.failed {
        eprintln!("**** run {run} {work} {engine} FAILED: {why} ****");
        return;
    }
    let values: Vec<_> =
        figures.values.iter().map(|(name, value)| format!("{name}={value:.2}")).collect();
    eprintln!("run {run} {work} {engine}: {}", values.join(" "));
}
