//! The table that decides: a line for each promise, and whether it is kept.

use std::fmt::Write as _;

use anyhow::Result;
use clap::ValueEnum as _;

use super::medians::{Section, Verdict};
use super::promises::{Goal, PROMISES, Promise};
use crate::engine::Kind;

pub(super) fn find<'s, 'f>(
    sections: &'s [Section<'f>],
    promise: &Promise,
) -> Option<&'s Section<'f>> {
    sections.iter().find(|section| (section.keys, section.value_bytes) == promise.at)
}

pub(super) fn write(page: &mut String, sections: &[Section<'_>]) -> Result<()> {
    page.push_str("\n## What was promised\n\n");
    page.push_str("| work | keys, value | pakv | compared with | goal | shown | |\n");
    page.push_str("| --- | --- | ---: | ---: | ---: | ---: | --- |\n");
    for promise in &PROMISES {
        let section = find(sections, promise);
        let verdict = section.map_or(Verdict::Unknown, |section| section.verdict(promise));
        let (shown, mark) = match verdict {
            Verdict::Reached(text) => (text, "reached"),
            Verdict::Short(text) => (text, "**short**"),
            Verdict::Unknown => ("–".into(), "**not measured**"),
        };
        let own = section.and_then(|section| section.value(&promise.row, Kind::Pakv));
        let own = own.map_or("–".into(), |value| promise.row.show(value));
        let peer = section.and_then(|section| peer(section, promise)).unwrap_or("–".into());
        let at = format!("{}, {}", count(promise.at.0), bytes(promise.at.1));
        let (title, goal) = (promise.title, goal(promise));
        // Who is short of the goal need not be told of the aim.
        let aim = aim(promise, section).filter(|_| mark == "reached").unwrap_or_default();
        writeln!(page, "| {title} | {at} | {own} | {peer} | {goal} | {shown} | {mark}{aim} |")?;
    }
    Ok(())
}

/// The figure of whoever pakv's is compared with.
fn peer(section: &Section<'_>, promise: &Promise) -> Option<String> {
    let (_, kind) = section.compared(promise)?;
    let value = section.value(&promise.row, kind)?;
    Some(format!("{} {}", kind.name(), promise.row.show(value)))
}

fn goal(promise: &Promise) -> String {
    let show = |limit| promise.row.show(limit);
    match promise.goal {
        Goal::TimesBest(goal) => format!("≥ {goal} × the best"),
        Goal::TimesOf(name, goal) => format!("≥ {goal} × {}", name_of(name)),
        Goal::AtMostTimesOf(name, goal) => format!("≤ {goal} × {}", name_of(name)),
        Goal::AtMost(limit) => format!("≤ {}", show(limit)),
        Goal::AtMostAim(limit, aim) => format!("≤ {}, aim {}", show(limit), show(aim)),
    }
}

/// As tables spell it; as it is given where this build does not have the engine.
fn name_of(arg: &'static str) -> &'static str {
    Kind::from_str(arg, false).map_or(arg, Kind::name)
}

fn aim(promise: &Promise, section: Option<&Section<'_>>) -> Option<&'static str> {
    let Goal::AtMostAim(_, aim) = promise.goal else { return None };
    let value = section?.value(&promise.row, Kind::Pakv)?;
    Some(if value <= aim { ", the aim too" } else { ", the aim not" })
}

pub(super) fn count(keys: u64) -> String {
    if keys >= 100_000 { format!("{} M", keys as f64 / 1e6) } else { keys.to_string() }
}

pub(super) fn bytes(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes >> 20),
    }
}
