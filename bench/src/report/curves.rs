//! How cost grows: every row over the number of keys, and over the size of values.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use super::medians::Section;
use super::picture::{self, Area, TEXT, colour, wrong};
use super::rows::{ROWS, Row, Unit};
use super::summary;
use crate::engine::Kind;
use crate::work::Work;

const WIDTH: u32 = 1000;
const PANEL: u32 = 230;
const COLUMNS: usize = 2;
/// Curves over keys are of values of this size, those over values of about this many keys.
const VALUE_BYTES: usize = 100;
const KEYS: u64 = 1_000_000;

/// Curves of one kind.
struct Curves<'s, 'f> {
    title: &'static str,
    file: &'static str,
    axis: fn(f64) -> String,
    /// Of the axis' scale.
    base: f64,
    /// Where on the axis, and what was measured there; in order.
    points: Vec<(f64, &'s Section<'f>)>,
}

/// Title and file name of each.
pub(super) fn draw(sections: &[Section<'_>], out: &Path) -> Result<Vec<(String, String)>> {
    let mut drawn = Vec::new();
    for curves in [over_keys(sections), over_values(sections)] {
        if curves.points.len() < 2 {
            continue;
        }
        picture(&curves, out)?;
        drawn.push((curves.title.to_string(), curves.file.to_string()));
    }
    Ok(drawn)
}

fn over_keys<'s, 'f>(sections: &'s [Section<'f>]) -> Curves<'s, 'f> {
    let same = sections.iter().filter(|section| section.value_bytes == VALUE_BYTES);
    let points = same.map(|section| (section.keys as f64, section)).collect();
    let (title, file) =
        ("How cost grows with the number of keys, values of 100 bytes", "curves-keys.svg");
    Curves { title, file, axis: |keys| summary::count(keys as u64), base: 10.0, points }
}

fn over_values<'s, 'f>(sections: &'s [Section<'f>]) -> Curves<'s, 'f> {
    let mut points: Vec<(f64, &Section<'_>)> = Vec::new();
    // Sections come in order of keys: of each size the one with the most that is not above.
    for section in sections.iter().filter(|section| section.keys <= KEYS) {
        points.retain(|(_, other)| other.value_bytes != section.value_bytes);
        points.push((section.value_bytes as f64, section));
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (title, file) =
        ("How cost grows with the size of values, about a GiB at most", "curves-values.svg");
    Curves { title, file, axis: |bytes| summary::bytes(bytes as usize), base: 4.0, points }
}

fn picture(curves: &Curves<'_, '_>, out: &Path) -> Result<()> {
    let path = out.join(curves.file);
    // A row that has no two points has no panel.
    let alive = |row: &&Row| engines(curves, row).iter().any(|(_, line)| line.len() > 1);
    let rows: Vec<_> = ROWS.iter().filter(|row| row.work != Work::Build).filter(alive).collect();
    let lines = rows.len().div_ceil(COLUMNS);
    let size = (WIDTH, picture::HEAD + PANEL * lines as u32);
    let area = SVGBackend::new(&path, size).into_drawing_area();
    area.fill(&WHITE).map_err(wrong)?;
    let kinds = curves.points.iter().flat_map(|(_, section)| section.engines());
    let body = picture::head(curves.title, kinds.collect(), &area)?;
    for (row, panel) in rows.iter().zip(body.split_evenly((lines.max(1), COLUMNS))) {
        chart(curves, row, &panel)?;
    }
    area.present().map_err(wrong)
}

fn engines(curves: &Curves<'_, '_>, row: &Row) -> Vec<(Kind, Vec<(f64, f64)>)> {
    let mut kinds: Vec<_> =
        curves.points.iter().flat_map(|(_, section)| section.engines()).collect();
    kinds.sort();
    kinds.dedup();
    let line = |kind| {
        let values =
            curves.points.iter().filter_map(|(x, section)| Some((*x, section.value(row, kind)?)));
        // Zero has no place on a scale of logarithms.
        (kind, values.filter(|point| point.1 > 0.0).collect::<Vec<_>>())
    };
    kinds.into_iter().map(line).filter(|(_, line)| !line.is_empty()).collect()
}

fn chart(curves: &Curves<'_, '_>, row: &Row, area: &Area<'_>) -> Result<()> {
    let lines = engines(curves, row);
    let values = || lines.iter().flat_map(|(_, line)| line).map(|point| point.1);
    let low = values().fold(f64::INFINITY, f64::min) / 1.5;
    let high = values().fold(0.0, f64::max) * 1.5;
    let (Some(first), Some(last)) = (curves.points.first(), curves.points.last()) else {
        return Ok(());
    };
    let better = if row.unit == Unit::Rate { "more is better" } else { "less is better" };
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{} ({better})", row.title), TEXT)
        .margin(8)
        .x_label_area_size(26)
        .y_label_area_size(78)
        .build_cartesian_2d(
            (first.0 / 1.2..last.0 * 1.2).log_scale().base(curves.base),
            (low..high).log_scale().base(if high / low < 100.0 { 2.0 } else { 10.0 }),
        )
        .map_err(wrong)?;
    let unit = row.unit;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_labels(8)
        .y_labels(6)
        .x_label_formatter(&|x| (curves.axis)(*x))
        .y_label_formatter(&|y| unit.show(*y))
        .label_style(picture::LABEL)
        .draw()
        .map_err(wrong)?;
    for (kind, line) in lines {
        let style = colour(kind).stroke_width(if kind == Kind::Pakv { 3 } else { 2 });
        chart.draw_series(LineSeries::new(line.iter().copied(), style)).map_err(wrong)?;
        let dots = line.iter().map(|&point| Circle::new(point, 3, colour(kind).filled()));
        chart.draw_series(dots).map_err(wrong)?;
    }
    Ok(())
}
