//! The layers of the soak: how each is built, and what it runs for a share of the time.

use std::process::Command;

use crate::process::{cargo, target};

/// Layers of one lane run one after the other, the lanes beside each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    Fuzzers,
    Others,
}

/// How much a layer is to do.
pub(crate) struct Share {
    pub(crate) minutes: u64,
    /// How many layers there are in the lane.
    pub(crate) layers: u64,
}

impl Share {
    /// Of a figure that belongs to sixty minutes, as much as the minutes allow; at least one.
    fn of(&self, figure: u64) -> String {
        (figure * self.minutes / 60).max(1).to_string()
    }

    /// An even part of the lane's time, in seconds.
    fn seconds(&self) -> u64 {
        self.minutes * 60 / self.layers.max(1)
    }
}

pub(crate) struct Layer {
    pub(crate) name: &'static str,
    pub(crate) lane: Lane,
    /// What must have succeeded before the time begins.
    pub(crate) prepare: fn() -> Vec<Command>,
    pub(crate) command: fn(&Share) -> Command,
}

pub(crate) fn layers() -> Vec<Layer> {
    vec![
        other("simulated disk", tools, |share| tool("crash_soak", &[&share.of(2_000_000)])),
        other("power cuts ext4", tools, |share| {
            tool("power_cut", &[&share.of(2_500), "3", "ext4"])
        }),
        other("power cuts XFS", tools, |share| tool("power_cut", &[&share.of(600), "3", "xfs"])),
    ]
}

fn other(
    name: &'static str,
    prepare: fn() -> Vec<Command>,
    command: fn(&Share) -> Command,
) -> Layer {
    Layer { name, lane: Lane::Others, prepare, command }
}

fn tools() -> Vec<Command> {
    vec![cargo(&["build", "--release", "--locked", "-p", "pakv-testkit", "--bins"])]
}

fn tool(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(target().join("release").join(name));
    command.args(args);
    command
}
