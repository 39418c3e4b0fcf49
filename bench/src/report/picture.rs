//! Pictures in SVG, without fonts or libraries of the system.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::medians::Section;
use super::rows::{ROWS, Row, Unit};
use super::summary;
use crate::engine::Kind;
use crate::figures::Figures;
use crate::work::Work;

/// What title and legend take.
pub(super) const HEAD: u32 = 60;
const SIZE: (u32, u32) = (1000, 520);
pub(super) const TEXT: (&str, u32) = ("sans-serif", 15);
pub(super) const LABEL: (&str, u32) = ("sans-serif", 12);
const SMALL: (&str, u32) = ("sans-serif", 10);
pub(super) const TITLE: (&str, u32) = ("sans-serif", 19);

pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Line = (Kind, Vec<(f64, f64)>);

/// Colours that people who see fewer colours can tell apart (Okabe and Ito).
pub(super) fn colour(kind: Kind) -> RGBColor {
    match kind {
        Kind::Pakv => RGBColor(213, 94, 0),
        Kind::Lmdb => RGBColor(0, 114, 178),
        Kind::Redb => RGBColor(204, 121, 167),
        Kind::Fjall => RGBColor(0, 158, 115),
        Kind::Sled => RGBColor(230, 159, 0),
        #[cfg(feature = "rocksdb")]
        Kind::Rocksdb => RGBColor(86, 180, 233),
        Kind::Bare => RGBColor(120, 120, 120),
    }
}

/// Draws all pictures of a section; title and file name of each.
pub(super) fn draw(section: &Section<'_>, out: &Path) -> Result<Vec<(String, String)>> {
    let size = format!("{}-{}", section.keys, section.value_bytes);
    let (keys, value) = (summary::count(section.keys), summary::bytes(section.value_bytes));
    let about = format!("{keys} keys, values of {value}");
    let mut drawn = Vec::new();
    let mut one = |name: &str, title: &str, draw: &dyn Fn(&Area<'_>, &str) -> Result<()>| {
        let (file, title) = (format!("{name}-{size}.svg"), format!("{title} ({about})"));
        let path = out.join(&file);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(wrong)?;
        draw(&area, &title)?;
        area.present().map_err(wrong)?;
        drawn.push((title, file));
        Ok::<_, anyhow::Error>(())
    };
    let bars = bars(section);
    if !bars.is_empty() {
        one("ratios", "Operations a second: pakv ÷ peer", &|area, title| {
            ratios(&bars, area, title)
        })?;
    }
    for (name, work, series, title, unit) in [
        ("space", Work::Space, "space", "Bytes on disk ÷ live bytes under overwrite", "×"),
        ("gets", Work::Latency, "get_p99_us", "p99 of gets beside paced sets", "µs"),
        ("sets", Work::Latency, "set_p99_us", "p99 of paced sets", "µs"),
    ] {
        let lines = lines(section, work, series);
        if !lines.is_empty() {
            one(name, title, &|area, title| over_time(&lines, area, title, unit))?;
        }
    }
    Ok(drawn)
}

/// The drawing library's errors borrow from its backend.
pub(super) fn wrong(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
}

/// Of the first run: medians of lines would be of moments that have nothing in common.
fn lines(section: &Section<'_>, work: Work, series: &str) -> Vec<Line> {
    let children = section.all.iter().filter(|child| child.work == work && child.run == 0);
    let line = |child: &Figures| {
        // On a scale of logarithms: what is zero (a window without operations) has no place.
        let points = child.series.get(series)?.iter().copied().filter(|point| point.1 > 0.0);
        Some((child.engine, points.collect::<Vec<_>>()))
    };
    children.filter_map(|child| line(child)).filter(|(_, points)| points.len() > 1).collect()
}

/// A title, and whose colour is whose; what remains of the area is returned.
pub(super) fn head<'a>(title: &str, mut kinds: Vec<Kind>, area: &Area<'a>) -> Result<Area<'a>> {
    kinds.sort();
    kinds.dedup();
    let (head, body) = area.split_vertically(HEAD);
    head.draw(&Text::new(title, (16, 10), TITLE.into_font())).map_err(wrong)?;
    for (slot, kind) in kinds.into_iter().enumerate() {
        let x = 16 + slot as i32 * 120;
        let mark = Rectangle::new([(x, 40), (x + 16, 48)], colour(kind).filled());
        head.draw(&mark).map_err(wrong)?;
        head.draw(&Text::new(kind.name(), (x + 22, 36), TEXT.into_font())).map_err(wrong)?;
    }
    Ok(body)
}

struct Bar {
    row: &'static Row,
    kind: Kind,
    ratio: f64,
}

fn bars(section: &Section<'_>) -> Vec<Bar> {
    let rows = ROWS.iter().filter(|row| row.unit == Unit::Rate);
    let peers: Vec<_> = section.engines().into_iter().filter(|kind| *kind != Kind::Pakv).collect();
    let bar = |row: &'static Row, kind| Some(Bar { row, kind, ratio: section.ratio(row, kind)? });
    rows.flat_map(|row| peers.iter().filter_map(move |&kind| bar(row, kind))).collect()
}

fn ratios(bars: &[Bar], area: &Area<'_>, title: &str) -> Result<()> {
    let mut peers: Vec<_> = bars.iter().map(|bar| bar.kind).collect();
    let area = &head(title, peers.clone(), area)?;
    peers.sort();
    peers.dedup();
    let mut works: Vec<_> = bars.iter().map(|bar| bar.row.work).collect();
    works.dedup();
    let place = |bar: &Bar| {
        let group = works.iter().position(|work| *work == bar.row.work).unwrap_or(0);
        let slot = peers.iter().position(|kind| *kind == bar.kind).unwrap_or(0);
        group as f64 + 0.07 + slot as f64 * 0.86 / peers.len() as f64
    };
    let low = bars.iter().map(|bar| bar.ratio).fold(0.5, f64::min) / 1.5;
    let high = bars.iter().map(|bar| bar.ratio).fold(2.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..works.len() as f64, (low..high).log_scale())
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .disable_x_mesh()
        .disable_x_axis()
        .y_desc("times; above 1 pakv is faster")
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(TEXT)
        .draw()
        .map_err(wrong)?;
    let width = 0.86 / peers.len() as f64;
    let boxes = bars.iter().map(|bar| {
        let left = place(bar);
        Rectangle::new([(left, 1.0), (left + width * 0.92, bar.ratio)], colour(bar.kind).filled())
    });
    chart.draw_series(boxes).map_err(wrong)?;
    for bar in bars {
        let at = chart.backend_coord(&(place(bar), bar.ratio));
        // Above a bar that goes up, below one that goes down.
        let y = if bar.ratio < 1.0 { at.1 + 3 } else { at.1 - 13 };
        let digits = if bar.ratio < 1.0 { 2 } else { usize::from(bar.ratio < 10.0) };
        let text = format!("{:.digits$}", bar.ratio);
        write(area, text, (at.0, y), SMALL)?;
    }
    let one = LineSeries::new([(0.0, 1.0), (works.len() as f64, 1.0)], BLACK);
    chart.draw_series(one).map_err(wrong)?;
    for (group, work) in works.iter().enumerate() {
        let at = chart.backend_coord(&(group as f64 + 0.07, low));
        write(area, work.arg(), (at.0, at.1 + 8), TEXT)?;
    }
    Ok(())
}

/// At a place that the chart named, which counts from the corner of the whole picture.
fn write(area: &Area<'_>, text: String, at: (i32, i32), style: (&str, u32)) -> Result<()> {
    let (left, top) = area.get_base_pixel();
    let at = (at.0 - left, at.1 - top);
    area.draw(&Text::new(text, at, style.into_font())).map_err(wrong)
}

fn over_time(lines: &[Line], area: &Area<'_>, title: &str, unit: &str) -> Result<()> {
    let area = &head(title, lines.iter().map(|line| line.0).collect(), area)?;
    let points = || lines.iter().flat_map(|(_, points)| points);
    let end = points().map(|point| point.0).fold(0.0, f64::max);
    let low = points().map(|point| point.1).fold(1.0, f64::min) / 1.3;
    let high = points().map(|point| point.1).fold(2.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end, (low..high).log_scale())
        .map_err(wrong)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("seconds")
        .y_desc(unit)
        .y_label_formatter(&|value| format!("{value}"))
        .label_style(TEXT)
        .draw()
        .map_err(wrong)?;
    for (kind, points) in lines {
        let style = colour(*kind).stroke_width(if *kind == Kind::Pakv { 3 } else { 2 });
        let points = points.iter().copied();
        chart.draw_series(LineSeries::new(points, style)).map_err(wrong)?;
    }
    Ok(())
}
