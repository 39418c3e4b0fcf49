//! The layers of the soak: how each is built, and what it runs for a share of the time. The figures
//! are those of sixty minutes.

use std::process::Command;

use crate::process::{cargo, root, target};

/// How much of everything is to be done.
pub(crate) struct Share {
    pub(crate) minutes: u64,
}

impl Share {
    /// Of a figure that belongs to sixty minutes, as much as the minutes allow; at least one.
    fn of(&self, figure: u64) -> u64 {
        (figure * self.minutes / 60).max(1)
    }

    fn count(&self, figure: u64) -> String {
        self.of(figure).to_string()
    }

    fn seconds(&self, figure: u64) -> String {
        format!("{}s", self.of(figure))
    }
}

pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) command: Command,
}

/// What must have been built before the time begins.
pub(crate) fn builds() -> Vec<Command> {
    let mut fuzz_all = fuzz_cargo(&["build", "--locked", "--example", "fuzz_all"]);
    fuzz_all.arg("--manifest-path").arg(root().join("fuzz/Cargo.toml"));
    let mut builds = Vec::new();
    // Without it ThreadSanitizer says SKIPPED.
    let mut rust_src = Command::new("rustup");
    rust_src.args(["component", "add", "rust-src"]);
    if Command::new("rustup").arg("--version").output().is_ok() {
        builds.push(rust_src);
    }
    if !cargo(&["fuzz", "--version"]).output().is_ok_and(|output| output.status.success()) {
        builds.push(cargo(&["install", "cargo-fuzz", "--locked"]));
    }
    builds.extend([
        cargo(&[
            "build",
            "--release",
            "--locked",
            "-p",
            "pakv-testkit",
            "-p",
            "pakv-cli",
            "--bins",
        ]),
        // With checks for overflows.
        cargo(&["build", "--locked", "-p", "pakv-testkit", "--bin", "mutations"]),
        cargo(&["test", "--release", "--locked", "-p", "pakv", "-p", "pakv-testkit", "--no-run"]),
        fuzz_all,
    ]);
    builds
}

pub(crate) fn layers(share: &Share) -> Vec<Layer> {
    let count = |figure| share.count(figure);
    let states = format!("{}states", share.of(1_200_000));
    let mut layers = vec![
        layer("simulated disk", tool("crash_soak", &[&states])),
        layer("simulated disk, threads", tool("crash_soak", &["threads", &share.seconds(120)])),
        layer("every call fails", tool("fault_sweep", &["0"])),
        layer("power cuts, ext4", tool("power_cut", &[&count(2_200), "3", "ext4", "sync"])),
        layer("power cuts, XFS", tool("power_cut", &[&count(550), "3", "xfs", "sync"])),
        layer(
            "power cuts, ext4, buffered",
            tool("power_cut", &[&count(150), "4", "ext4", "buffered"]),
        ),
        layer(
            "power cuts, XFS, interval",
            tool("power_cut", &[&count(100), "5", "xfs", "interval"]),
        ),
        layer(
            "power cuts, ext4, no store",
            tool("power_cut", &["control", &count(100), "6", "ext4"]),
        ),
        layer(
            "power cuts, XFS, no store",
            tool("power_cut", &["control", &count(100), "7", "xfs"]),
        ),
        layer("kills", tool("kill_runs", &[&count(1_000)])),
        layer("random damage", {
            let mut command = Command::new(target().join("debug/mutations"));
            command.arg(count(300_000));
            command
        }),
        layer("every bit flipped", {
            let mut command = tests(&["-p", "pakv", "--test", "it", "--", "damage"]);
            command.env("PAKV_FLIP_ALL_BITS", "1");
            command
        }),
        layer("hostile directory", {
            let mut command = tests(&["-p", "pakv-testkit", "--test", "hostile"]);
            command.env("PAKV_HOSTILE_FILES", count(1_000_000));
            command
        }),
        layer("system calls", {
            let mut command = tests(&["-p", "pakv-testkit", "--test", "syscalls"]);
            command.env("PAKV_SYNC_STEPS", count(120));
            command
        }),
        layer("linearizability", tool("linear", &[&count(2_000)])),
        layer("schedules", tool("schedules", &[&count(500_000)])),
        layer("ThreadSanitizer", tool("tsan", &[&count(100)])),
    ];
    // Those that are slow get more of the hour, in seconds.
    let fuzzed = [
        ("record", 360),
        ("hint", 360),
        ("manifest", 360),
        ("recovery", 720),
        ("operations", 1_080),
        ("import", 360),
        ("shell_line", 360),
    ];
    for (name, seconds) in fuzzed {
        let mut command = Command::new(fuzz_target().join("debug/examples/fuzz_all"));
        command.args([&share.seconds(seconds), name]).env("CARGO_TARGET_DIR", fuzz_target());
        layers.push(layer(&format!("fuzzer: {name}"), command));
    }
    // Those that need the longest first, so that nothing is left to one core in the end.
    layers.sort_by_key(|layer| !layer.name.starts_with("fuzzer: operations"));
    layers
}

fn layer(name: &str, command: Command) -> Layer {
    Layer { name: name.to_string(), command }
}

fn tool(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(target().join("release").join(name));
    command.args(args);
    command
}

fn tests(args: &[&str]) -> Command {
    let mut command = cargo(&["test", "--release", "--locked"]);
    command.args(args);
    command
}

fn fuzz_target() -> std::path::PathBuf {
    target().join("fuzz")
}

fn fuzz_cargo(args: &[&str]) -> Command {
    let mut command = cargo(args);
    command.env("CARGO_TARGET_DIR", fuzz_target());
    command
}
