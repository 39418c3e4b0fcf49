//! What a program that takes the engine waits for: a release build from an empty target directory.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};

use super::Job;
use crate::engine::Kind;
use crate::figures::Figures;
use crate::machine;

pub(super) fn run(job: &Job, out: &mut Figures) -> Result<()> {
    let package = match job.engine {
        Kind::Lmdb => "heed".to_string(),
        other => other.arg(),
    };
    let dependency = if job.engine == Kind::Pakv {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/pakv");
        format!("pakv = {{ path = {path:?} }}")
    } else {
        // The version that is measured, with the features that its makers chose.
        let version = machine::version(&package).context("the lock file names the package")?;
        format!("{package} = \"={version}\"")
    };
    fs::create_dir_all(job.dir.join("src"))?;
    fs::write(
        job.dir.join("Cargo.toml"),
        format!(
            "[workspace]\n[package]\nname = \"one\"\nedition = \"2024\"\n[dependencies]\n{dependency}\n"
        ),
    )?;
    fs::write(job.dir.join("src/main.rs"), "fn main() {}\n")?;
    // The same releases of everything; what the program does not need, cargo takes out.
    fs::write(job.dir.join("Cargo.lock"), machine::LOCK)?;
    cargo(job, &["fetch"])?;
    let start = Instant::now();
    cargo(job, &["build", "--release", "--offline"])?;
    out.put("build_s", start.elapsed().as_secs_f64());
    Ok(())
}

fn cargo(job: &Job, arguments: &[&str]) -> Result<()> {
    let mut cargo = Command::new("cargo");
    cargo.args(arguments).arg("--quiet").current_dir(&job.dir).stdout(Stdio::null());
    // Neither the target directory of whoever runs this nor what a wrapper keeps.
    cargo.env("CARGO_TARGET_DIR", "target");
    for name in ["RUSTC_WRAPPER", "RUSTFLAGS", "CC", "CXX"] {
        cargo.env_remove(name);
    }
    let status = cargo.status()?;
    ensure!(status.success(), "cargo {} ended with {status}", arguments.join(" "));
    Ok(())
}
