//! Pictures in SVG, without fonts or libraries of the system.

use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

use super::medians::Section;
use super::rows::{ROWS, Row, Unit};
use crate::engine::Kind;
use crate::work::Work;

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
    let about = format!("{} keys, values of {} bytes", section.keys, section.value_bytes);
    let mut drawn = Vec::new();
    let mut one = |name: &str, title: &str, draw: &dyn Fn(&Area<'_>, &str) -> Result<bool>| {
        let (file, title) = (format!("{name}-{size}.svg"), format!("{title} ({about})"));
        let path = out.join(&file);
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE).map_err(wrong)?;
        if draw(&area, &title)? {
            area.present().map_err(wrong)?;
            drawn.push((title, file));
        }
        Ok::<_, anyhow::Error>(())
    };
    one("ratios", "Operations a second: pakv ÷ peer", &|area, title| {
        ratios(section, area, title)
    })?;
    for (name, work, series, title, unit) in [
        ("space", Work::Space, "space", "Bytes on disk ÷ live bytes under overwrite", "×"),
        ("gets", Work::Latency, "get_p99_us", "p99 of gets beside paced sets", "µs"),
        ("sets", Work::Latency, "set_p99_us", "p99 of paced sets", "µs"),
    ] {
        let lines = lines(section, work, series);
        one(name, title, &|area, title| over_time(&lines, area, title, unit))?;
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
    children.filter_map(|child| Some((child.engine, child.series.get(series)?.clone()))).collect()
}

fn ratios(section: &Section<'_>, area: &Area<'_>, title: &str) -> Result<bool> {
    let peers: Vec<_> = section.engines().into_iter().filter(|kind| *kind != Kind::Pakv).collect();
    let mut rows: Vec<&Row> = ROWS.iter().filter(|row| row.unit == Unit::Rate).collect();
    rows.dedup_by_key(|row| row.work);
    let mut bars = Vec::new();
    for (group, row) in rows.iter().enumerate() {
        for (slot, &kind) in peers.iter().enumerate() {
            if let Some(ratio) = section.ratio(row, kind) {
                bars.push((group, slot, kind, ratio));
            }
        }
    }
    if bars.is_empty() {
        return Ok(false);
    }
    let low = bars.iter().map(|bar| bar.3).fold(0.5, f64::min) / 1.5;
    let high = bars.iter().map(|bar| bar.3).fold(2.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..rows.len() as f64, (low..high).log_scale())
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
    for &kind in &peers {
        let own = bars.iter().filter(|bar| bar.2 == kind).map(|&(group, slot, _, ratio)| {
            let left = group as f64 + 0.07 + slot as f64 * width;
            let corners = [(left, 1.0), (left + width * 0.92, ratio)];
            Rectangle::new(corners, colour(kind).filled())
        });
        chart.draw_series(own).map_err(wrong)?.label(kind.name()).legend(move |(x, y)| {
            Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour(kind).filled())
        });
    }
    for &(group, slot, _, ratio) in &bars {
        let left = group as f64 + 0.07 + slot as f64 * width;
        let at = chart.backend_coord(&(left, ratio));
        // Above a bar that goes up, below one that goes down.
        let y = if ratio < 1.0 { at.1 + 3 } else { at.1 - 13 };
        let digits = if ratio < 1.0 { 2 } else { usize::from(ratio < 10.0) };
        let text = format!("{ratio:.digits$}");
        area.draw(&Text::new(text, (at.0, y), SMALL.into_font())).map_err(wrong)?;
    }
    chart
        .draw_series(LineSeries::new([(0.0, 1.0), (rows.len() as f64, 1.0)], BLACK))
        .map_err(wrong)?;
    for (group, row) in rows.iter().enumerate() {
        let at = chart.backend_coord(&(group as f64 + 0.07, low));
        let label = Text::new(row.work.arg(), (at.0, at.1 + 8), TEXT.into_font());
        area.draw(&label).map_err(wrong)?;
    }
    legend(&mut chart)?;
    Ok(true)
}

fn over_time(lines: &[Line], area: &Area<'_>, title: &str, unit: &str) -> Result<bool> {
    // On a scale of logarithms: what is zero (a window without operations) has no place.
    let points = || lines.iter().flat_map(|(_, points)| points).filter(|point| point.1 > 0.0);
    let end = points().map(|point| point.0).fold(0.0, f64::max);
    if end == 0.0 {
        return Ok(false);
    }
    let low = points().map(|point| point.1).fold(1.0, f64::min) / 1.3;
    let high = points().map(|point| point.1).fold(2.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption(title, TITLE)
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
        let (points, kind) = (points.iter().copied().filter(|point| point.1 > 0.0), *kind);
        let style = colour(kind).stroke_width(if kind == Kind::Pakv { 3 } else { 2 });
        chart
            .draw_series(LineSeries::new(points, style))
            .map_err(wrong)?
            .label(kind.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], style));
    }
    legend(&mut chart)?;
    Ok(true)
}

fn legend<'a, X, Y>(chart: &mut ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>) -> Result<()>
where
    X: Ranged + ValueFormatter<X::ValueType>,
    Y: Ranged + ValueFormatter<Y::ValueType>,
{
    let mut labels = chart.configure_series_labels();
    let labels = labels.position(SeriesLabelPosition::UpperRight).label_font(TEXT);
    labels.background_style(WHITE.mix(0.85)).border_style(BLACK.mix(0.3)).draw().map_err(wrong)
}
