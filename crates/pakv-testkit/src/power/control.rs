//! The control of the power cuts: the same cuts under three threads that append to a file each and
//! sync it, with no store in between.
//!
//! A real cut stops everything at one moment. A file system that is shut down goes on answering for
//! some microseconds, and an `fdatasync` that is under way may return success although nothing was
//! written. This measures on which file systems that is so, and shows that it is not the store.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use fastrand::Rng;

use super::child::{APPENDERS, LINE_BYTES, appended, heard};
use super::cuts::{Tally, prove_that_a_cut_cuts};
use super::mount::{Filesystem, Image, Refusal};
use super::order::Said;
use super::writer::Writer;

/// A run of cuts under bare files.
#[derive(Debug)]
pub struct Control {
    image: Image,
    program: PathBuf,
    delays: Rng,
    tally: Tally,
}

impl Control {
    /// Makes the image, and sees that a cut of its power cuts.
    ///
    /// # Errors
    /// Why this machine cannot.
    pub fn new(filesystem: Filesystem, program: &Path, seed: u64) -> Result<Self, Refusal> {
        let image = Image::new(filesystem)?;
        prove_that_a_cut_cuts(&image)?;
        let delays = Rng::with_seed(seed);
        Ok(Self { image, program: program.to_path_buf(), delays, tally: Tally::default() })
    }

    /// What was looked at so far.
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// One cut, and the check.
    ///
    /// # Errors
    /// What was acknowledged before the cut and is gone: the file system's fault, or the harness's.
    pub fn cut(&mut self) -> Result<(), String> {
        let mounted = self.image.mount_again();
        let name = format!("files-{}", self.tally.cuts);
        let mut command = Command::new(&self.program);
        let mut writer = Writer::start(command.arg("append").arg(mounted.path().join(&name)));
        writer.line();
        std::thread::sleep(Duration::from_micros(self.delays.u64(..30_000)));
        let crash = mounted.cut_power();
        std::thread::sleep(Duration::from_micros(self.delays.u64(..3_000)));
        let ended = writer.kill();
        mounted.unmount();
        self.tally.cuts += 1;

        let mounted = self.image.mount_again();
        let dir = mounted.path().join(&name);
        let result = (0..APPENDERS).try_for_each(|thread| {
            let there = lines_in(&dir.join(thread.to_string()));
            let said = ended.lines.iter().filter_map(|line| heard(line));
            for said in said {
                let Said::Step { thread: by, number, span } = said else { continue };
                if by != thread {
                    continue;
                }
                let is_late = span.end >= crash.begin;
                let is_gone = number >= there;
                self.tally.acknowledged += u64::from(!is_late);
                self.tally.late += u64::from(is_late);
                self.tally.late_and_gone += u64::from(is_late && is_gone);
                if is_gone && !is_late {
                    return Err(format!(
                        "line {number} was acknowledged {} ns before the cut, and {there} are there",
                        crash.begin - span.end
                    ));
                }
                if span.begin > crash.end {
                    return Err(format!("line {number} began after the cut: {span:?}, {crash:?}"));
                }
            }
            Ok(())
        });
        std::fs::remove_dir_all(&dir).map_err(|error| format!("removing the files: {error}"))?;
        mounted.unmount();
        result
    }
}

/// How many of the lines at the beginning of a file are right.
fn lines_in(path: &Path) -> u64 {
    let bytes = std::fs::read(path).unwrap_or_default();
    let lines = bytes.chunks(LINE_BYTES).zip(0..);
    lines.take_while(|(line, number)| *line == appended(*number)).count() as u64
}
