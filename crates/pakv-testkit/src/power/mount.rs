//! File systems that a test makes for itself: images behind loop devices, and tmpfs. A mount ends
//! with its value, panics included, and is seen by nobody else where [`private_mounts`] was called
//! first: then even a killed test leaves none behind.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::child::now_ns;
use super::order::Crash;
use crate::files;

/// Why this machine cannot run a test.
#[derive(Debug)]
pub struct Refusal(String);

impl Refusal {
    /// With the reason as a sentence part.
    pub fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Gives the calling thread, and the processes and threads it starts, mounts of their own, which go
/// when the last of them ends.
///
/// # Errors
/// Where this takes rights that the process does not have.
pub fn private_mounts() -> Result<(), Refusal> {
    #[expect(unsafe_code, reason = "there is no safe wrapper for this call among our dependencies")]
    // SAFETY: the call takes no pointer; it changes what paths mean to this thread alone.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS) };
    if result != 0 {
        let error = io::Error::last_os_error();
        return Err(Refusal::new(format!("no mounts of its own, which takes root: {error}")));
    }
    // Without this a mount made here would show, and stay, outside as well.
    run("mount", ["--make-rprivate", "/"])
}

/// What an image is formatted with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filesystem {
    /// With its defaults: a journal, ordered data, delayed allocation.
    Ext4,
    /// With its defaults.
    Xfs,
}

impl Filesystem {
    /// As `mount -t` calls it.
    pub fn name(self) -> &'static str {
        match self {
            Filesystem::Ext4 => "ext4",
            Filesystem::Xfs => "xfs",
        }
    }

    /// Sparse; XFS takes no less.
    fn image_bytes(self) -> u64 {
        match self {
            Filesystem::Ext4 => 64 << 20,
            Filesystem::Xfs => 320 << 20,
        }
    }
}

/// A file that holds a file system, and where it is mounted.
#[derive(Debug)]
pub struct Image {
    filesystem: Filesystem,
    file: PathBuf,
    mount_point: TempDir,
    /// Where `file` is, unless that was the caller's choice.
    _scratch: Option<TempDir>,
}

impl Image {
    /// A freshly formatted one, in memory where the machine offers that.
    ///
    /// # Errors
    /// Where the program that formats it is missing.
    pub fn new(filesystem: Filesystem) -> Result<Self, Refusal> {
        let scratch = files::scratch();
        let file = scratch.path().join("image");
        let image = Self::at(filesystem, file, filesystem.image_bytes(), &[])?;
        Ok(Self { _scratch: Some(scratch), ..image })
    }

    /// One in a file of the caller's choice, formatted with these options as well.
    ///
    /// # Errors
    /// As of [`Image::new`].
    pub fn at(
        filesystem: Filesystem,
        file: PathBuf,
        bytes: u64,
        options: &[&str],
    ) -> Result<Self, Refusal> {
        File::create(&file)
            .and_then(|created| created.set_len(bytes))
            .unwrap_or_else(|error| panic!("cannot create {}: {error}", file.display()));
        let program = format!("mkfs.{}", filesystem.name());
        run(&program, ["-q"].iter().chain(options).map(Path::new).chain([file.as_path()]))?;
        Ok(Self { filesystem, file, mount_point: files::scratch(), _scratch: None })
    }

    /// Mounts it, which also recovers it after a cut.
    ///
    /// # Errors
    /// Where the machine has no loop devices or not this file system.
    pub fn mount(&self, options: &str) -> Result<Mounted, Refusal> {
        let options = format!("loop,{options}");
        let kind = self.filesystem.name();
        let how = ["-t", kind, "-o", options.trim_end_matches(',')].map(Path::new);
        run("mount", how.into_iter().chain([self.file.as_path(), self.mount_point.path()]))?;
        Ok(Mounted { path: self.mount_point.path().to_path_buf(), unmounted: false })
    }

    /// Mounts it once more, as it was mounted before.
    pub(super) fn mount_again(&self) -> Mounted {
        self.mount("")
            .unwrap_or_else(|refusal| panic!("the image mounted before, and now: {refusal}"))
    }
}

/// A tmpfs with limits.
#[derive(Debug)]
pub struct Tmpfs {
    mounted: Mounted,
    // After the mount, since fields are dropped in this order.
    _mount_point: TempDir,
}

impl Tmpfs {
    /// Mounts one with these options, such as `size=1m`.
    ///
    /// # Errors
    /// Where the process may not mount.
    pub fn new(options: &str) -> Result<Self, Refusal> {
        let mount_point = files::scratch();
        let how = ["-t", "tmpfs", "-o", options, "tmpfs"].map(Path::new);
        run("mount", how.into_iter().chain([mount_point.path()]))?;
        let mounted = Mounted { path: mount_point.path().to_path_buf(), unmounted: false };
        Ok(Self { mounted, _mount_point: mount_point })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.mounted.path()
    }

    /// Changes its limits.
    ///
    /// # Errors
    /// As of [`Tmpfs::new`].
    pub fn remount(&self, options: &str) -> Result<(), Refusal> {
        let options = format!("remount,{options}");
        run("mount", [Path::new("-o"), Path::new(&options), self.path()])
    }
}

/// A mount that ends with this value.
#[derive(Debug)]
pub struct Mounted {
    path: PathBuf,
    unmounted: bool,
}

impl Mounted {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Cuts the power: the file system writes nothing any more, not even its journal, and answers
    /// every call with an error until it is mounted anew. Returns the times just before that and
    /// just after it.
    pub(super) fn cut_power(&self) -> Crash {
        // EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number, and so is the flag of both that
        // says to leave the journal as it is.
        const SHUTDOWN: libc::c_ulong = 0x8004_587d;
        const NO_LOG_FLUSH: u32 = 2;
        let root = File::open(&self.path)
            .unwrap_or_else(|error| panic!("cannot open {}: {error}", self.path.display()));
        let begin = now_ns();
        #[expect(unsafe_code, reason = "no safe wrapper knows this call")]
        // SAFETY: the file is open and the call reads one u32, which outlives it.
        let result = unsafe { libc::ioctl(root.as_raw_fd(), SHUTDOWN as _, &NO_LOG_FLUSH) };
        assert_eq!(result, 0, "the shutdown call: {}", io::Error::last_os_error());
        Crash { begin, end: now_ns() }
    }

    /// Makes ext4 find an error in itself, upon which `errors=remount-ro` makes it read-only, open
    /// files included. (No ordinary remount does that while a file is open for writing.)
    ///
    /// # Errors
    /// Where the kernel does not offer it.
    pub fn fail(&self) -> Result<(), Refusal> {
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts")
            .map_err(|error| Refusal::new(format!("the list of mounts: {error}")))?;
        let mut devices = mounts.lines().filter_map(|line| line.split_once(' '));
        let device = devices
            .find(|(_, rest)| rest.split(' ').next().is_some_and(|at| Path::new(at) == self.path))
            .and_then(|(device, _)| Path::new(device).file_name())
            .ok_or_else(|| Refusal::new("the mount's device is not known"))?;
        let trigger = Path::new("/sys/fs/ext4").join(device).join("trigger_fs_error");
        std::fs::write(&trigger, "1")
            .map_err(|error| Refusal::new(format!("{}: {error}", trigger.display())))
    }

    /// Ends the mount.
    pub fn unmount(mut self) {
        self.unmounted = true;
        // What a killed process had open is let go of a moment after it is gone.
        for _ in 0..200 {
            if run("umount", [&self.path]).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.unmounted = false;
        panic!("{} is still in use", self.path.display());
    }
}

impl Drop for Mounted {
    /// Lazily: a failed test must not leave a mount because a child of it is still alive.
    fn drop(&mut self) {
        if !self.unmounted && run("umount", [Path::new("-l"), &self.path]).is_err() {
            eprintln!("{} could not be unmounted", self.path.display());
        }
    }
}

fn run<A: AsRef<std::ffi::OsStr>>(
    program: &str,
    args: impl IntoIterator<Item = A>,
) -> Result<(), Refusal> {
    // Where a user's search path ends before these programs.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(program)
        .args(args)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Refusal::new(format!("{program} cannot be run: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Refusal::new(format!("{program}: {} {}", output.status, said.trim())))
}
