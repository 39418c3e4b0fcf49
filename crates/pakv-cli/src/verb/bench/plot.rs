//! The picture of a measurement: latency over time, and below it space over time.

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use super::Figures;
use super::work::Sample;

const SIZE: (u32, u32) = (1000, 640);
const TEXT: (&str, u32) = ("sans-serif", 14);
const TITLE: (&str, u32) = ("sans-serif", 18);
/// Colours that people who see fewer colours can tell apart (Okabe and Ito).
const FIRST: RGBColor = RGBColor(0, 114, 178);
const SECOND: RGBColor = RGBColor(213, 94, 0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<T = ()> = Result<T, Box<dyn Error>>;
type Line = Vec<(f64, f64)>;

/// Draws what the parts have sampled into the file.
pub(super) fn draw(path: &Path, all: &[Figures]) -> Drawn {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (above, below) = root.split_vertically(SIZE.1 / 2);
        latency(&above, all)?;
        space(&below, all)?;
        root.present()?;
    }
    // Only now: a picture that could not be drawn replaces none.
    Ok(std::fs::write(path, svg)?)
}

fn latency(area: &Area<'_>, all: &[Figures]) -> Drawn {
    let us = |pick: fn((u64, u64)) -> u64| {
        line(all, |sample| sample.latency.map(|latency| as_f64(pick(latency)) / 1e3))
    };
    let lines = [("p50", FIRST, us(|(p50, _)| p50)), ("p99", SECOND, us(|(_, p99)| p99))];
    let values = || lines.iter().flat_map(|(_, _, line)| line.iter().map(|(_, y)| *y));
    let low = values().fold(f64::MAX, f64::min).clamp(0.1, 1e6);
    let high = values().fold(low * 10.0, f64::max) * 1.5;
    let mut chart = ChartBuilder::on(area)
        .caption("Latency (µs)", TITLE)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end(all), (low..high).log_scale())?;
    chart.configure_mesh().label_style(TEXT).x_desc("seconds").draw()?;
    // Where the parts begin.
    let starts = all.iter().scan(0.0, |from, figures| {
        let start = *from;
        *from = figures.samples.last().map_or(start, |sample| sample.at.as_secs_f64());
        Some((start, figures.part.name()))
    });
    for (start, name) in starts {
        let edge = [(start, low), (start, high)];
        chart.draw_series(LineSeries::new(edge, BLACK.mix(0.3)))?;
        let text = Text::new(name, (start, high * 0.8), TEXT.into_font());
        chart.draw_series([text])?;
    }
    for (name, colour, line) in lines {
        chart
            .draw_series(LineSeries::new(line, &colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().label_font(TEXT).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}

fn space(area: &Area<'_>, all: &[Figures]) -> Drawn {
    const MIB: f64 = 1024.0 * 1024.0;
    let disk = line(all, |sample| Some(as_f64(sample.disk_bytes) / MIB));
    let live = line(all, |sample| Some(as_f64(sample.live_bytes) / MIB));
    let high = disk.iter().fold(0.001, |high: f64, (_, y)| high.max(*y)) * 1.15;
    let mut chart = ChartBuilder::on(area)
        .caption("Space (MiB)", TITLE)
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..end(all), 0.0..high)?;
    chart.configure_mesh().label_style(TEXT).x_desc("seconds").draw()?;
    for (name, colour, line) in [("live", FIRST, live), ("on disk", SECOND, disk)] {
        chart
            .draw_series(LineSeries::new(line, &colour))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
    }
    chart.configure_series_labels().label_font(TEXT).background_style(WHITE.mix(0.8)).draw()?;
    Ok(())
}

/// One figure of every sample that has it, over seconds.
fn line(all: &[Figures], figure: impl Fn(&Sample) -> Option<f64>) -> Line {
    let samples = all.iter().flat_map(|figures| &figures.samples);
    samples.filter_map(|sample| Some((sample.at.as_secs_f64(), figure(sample)?))).collect()
}

fn end(all: &[Figures]) -> f64 {
    let last = all.last().and_then(|figures| figures.samples.last());
    last.map_or(1.0, |sample| sample.at.as_secs_f64())
}

#[expect(clippy::cast_precision_loss, reason = "a picture: 52 bits are plenty")]
fn as_f64(number: u64) -> f64 {
    number as f64
}
