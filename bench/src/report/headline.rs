//! The picture that stands in the README: how many times the best peer's speed pakv has.
//!
//! Written by hand, because it is to be readable on a light page and on a dark one: its background is
//! the page's.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Result;

use super::medians::{Section, Verdict};
use super::promises::{Goal, PROMISES, Promise};
use super::summary;

const FILE: &str = "headline.svg";
const WIDTH: f64 = 820.0;
const LINE: f64 = 30.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 40.0;
/// Where bars begin, and how long the longest may be.
const LEFT: f64 = 190.0;
const LONGEST: f64 = 400.0;
/// Longer bars are cut there, and say so by their figure.
const MOST: f64 = 12.0;

struct Bar {
    name: &'static str,
    goal: f64,
    /// Nothing where it was not measured.
    shown: Option<Shown>,
}

#[derive(Clone, Copy)]
struct Shown {
    ratio: f64,
    peer: &'static str,
    reached: bool,
}

/// Whether there was anything to draw.
pub(super) fn draw(sections: &[Section<'_>], out: &Path) -> Result<Option<&'static str>> {
    let bars: Vec<_> = PROMISES.iter().filter_map(|promise| bar(sections, promise)).collect();
    if bars.iter().all(|bar| bar.shown.is_none()) {
        return Ok(None);
    }
    fs::write(out.join(FILE), svg(&bars)?)?;
    Ok(Some(FILE))
}

fn bar(sections: &[Section<'_>], promise: &Promise) -> Option<Bar> {
    let (Goal::TimesBest(goal) | Goal::TimesOf(_, goal)) = promise.goal else { return None };
    Some(Bar { name: promise.bar?, goal, shown: shown(sections, promise) })
}

fn shown(sections: &[Section<'_>], promise: &Promise) -> Option<Shown> {
    let section = summary::find(sections, promise)?;
    let (ratio, kind) = section.compared(promise)?;
    let reached = matches!(section.verdict(promise), Verdict::Reached(_));
    Some(Shown { ratio, peer: kind.name(), reached })
}

fn svg(bars: &[Bar]) -> Result<String> {
    let longest = |bar: &Bar| bar.shown.map_or(0.0, |shown| shown.ratio).max(bar.goal);
    let most = bars.iter().map(longest).fold(2.0, f64::max).min(MOST);
    let x = |times: f64| LEFT + times.min(most) / most * LONGEST;
    let height = TOP + bars.len() as f64 * LINE + BOTTOM;
    let bottom = height - BOTTOM;
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Speed of pakv against the best peer, work by work">"#
    )?;
    svg.push_str(STYLE);
    writeln!(svg, r#"<text class="title" x="16" y="26">pakv ÷ the best peer in each work</text>"#)?;
    writeln!(
        svg,
        r#"<text class="less" x="16" y="46">values of 100 bytes, keys of 24, in random order; 1 M keys where nothing else is said; longer is faster</text>"#
    )?;
    for (index, bar) in bars.iter().enumerate() {
        let y = TOP + index as f64 * LINE;
        let (name, goal, middle) = (bar.name, bar.goal, y + LINE * 0.62);
        writeln!(
            svg,
            r#"<text x="{}" y="{middle:.1}" text-anchor="end">{name}</text>"#,
            LEFT - 10.0
        )?;
        let Some(Shown { ratio, peer, reached }) = bar.shown else {
            let at = LEFT + 8.0;
            writeln!(svg, r#"<text class="less" x="{at}" y="{middle:.1}">not measured</text>"#)?;
            continue;
        };
        let end = x(ratio);
        let class = if reached { "reached" } else { "short" };
        let (top, tall) = (y + 5.0, LINE - 10.0);
        let length = end - LEFT;
        writeln!(
            svg,
            r#"<rect class="{class}" x="{LEFT}" y="{top}" width="{length:.1}" height="{tall}" rx="2"/>"#
        )?;
        let at = x(goal);
        writeln!(
            svg,
            r#"<line class="goal" x1="{at:.1}" x2="{at:.1}" y1="{}" y2="{}"/>"#,
            y + 2.0,
            y + LINE - 2.0
        )?;
        let note = if reached { String::new() } else { format!(", short of {goal} ×") };
        let text = end.max(at) + 8.0;
        writeln!(
            svg,
            r#"<text x="{text:.1}" y="{middle:.1}"><tspan class="ratio">{ratio:.1} ×</tspan> {peer}{note}</text>"#
        )?;
    }
    let one = x(1.0);
    writeln!(svg, r#"<line class="one" x1="{one:.1}" x2="{one:.1}" y1="{TOP}" y2="{bottom}"/>"#)?;
    writeln!(
        svg,
        r#"<text class="less" x="{one:.1}" y="{}" text-anchor="middle">as fast</text>"#,
        bottom + 18.0
    )?;
    writeln!(
        svg,
        r#"<text class="less" x="{}" y="{}" text-anchor="end">a thin line marks the goal; a grey bar is short of it</text>"#,
        WIDTH - 16.0,
        bottom + 18.0
    )?;
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// Colours that are readable on white and on black; a reader who prefers the dark gets lighter ones.
const STYLE: &str = "<style>
text { font: 14px system-ui, sans-serif; fill: #57606a }
.title { font-size: 18px; font-weight: 600 }
.less { font-size: 12px; fill: #6e7781 }
.ratio { font-weight: 600 }
.reached { fill: #d55e00 }
.short { fill: #8c959f }
.goal { stroke: #57606a; stroke-width: 1.5 }
.one { stroke: #6e7781; stroke-width: 1; stroke-dasharray: 3 3 }
@media (prefers-color-scheme: dark) {
text { fill: #c9d1d9 }
.less { fill: #8b949e }
.goal { stroke: #c9d1d9 }
.reached { fill: #e8853a }
}
</style>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_that_is_short_says_so() {
        let bar = |shown| Bar { name: "set", goal: 3.0, shown };
        let shown = |ratio, reached| Some(Shown { ratio, peer: "fjall", reached });
        let bars = [bar(shown(20.0, true)), bar(shown(2.0, false)), bar(None)];
        let svg = svg(&bars).unwrap();
        assert!(svg.contains("not measured"));
        assert!(svg.contains("20.0 ×</tspan> fjall<"));
        assert!(svg.contains("2.0 ×</tspan> fjall, short of 3 ×<"));
        assert!(!svg.contains("NaN"));
    }
}
