//! Plots as SVG text, to stand in a page.

use plotters::prelude::*;

use crate::failure::{Result, Tried};

const SIZE: (u32, u32) = (560, 340);
/// Ours first, then the peers in their order.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0xd6, 0x27, 0x28),
    RGBColor(0x1f, 0x77, 0xb4),
    RGBColor(0x2c, 0xa0, 0x2c),
    RGBColor(0x94, 0x67, 0xbd),
    RGBColor(0x8c, 0x56, 0x4b),
];

/// What one contender contributes to a plot: its name and points.
pub(crate) type Line<'l> = (&'l str, Vec<(f64, f64)>);

/// The words on a plot.
pub(crate) struct Labels<'l> {
    pub(crate) title: &'l str,
    pub(crate) x: &'l str,
    pub(crate) y: &'l str,
}

fn colour(at: usize) -> RGBColor {
    COLOURS[at % COLOURS.len()]
}

/// How much of the sorted times is at most how long; time runs logarithmically.
pub(crate) fn distribution(labels: &Labels<'_>, lines: &[Line<'_>]) -> Result<String> {
    let times = || {
        lines
            .iter()
            .flat_map(|(_, points)| points.iter().map(|(x, _)| *x))
    };
    let low = times().fold(f64::INFINITY, f64::min).max(0.01) * 0.9;
    let high = times().fold(low, f64::max) * 1.1;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).tried(labels.title)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(labels.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(46)
            .build_cartesian_2d((low..high).log_scale(), 0.0..1.0)
            .tried(labels.title)?;
        chart
            .configure_mesh()
            .x_desc(labels.x)
            .y_desc(labels.y)
            .draw()
            .tried(labels.title)?;
        for (at, (name, points)) in lines.iter().enumerate() {
            let series = LineSeries::new(points.iter().copied(), colour(at).stroke_width(2));
            chart
                .draw_series(series)
                .tried(name)?
                .label(*name)
                .legend(move |(x, y)| legend(x, y, at));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .tried(labels.title)?;
        area.present().tried(labels.title)?;
    }
    Ok(svg)
}

/// Points joined by lines, from zero on.
pub(crate) fn curve(labels: &Labels<'_>, lines: &[Line<'_>]) -> Result<String> {
    let points = || lines.iter().flat_map(|(_, points)| points.iter().copied());
    let right = points().map(|(x, _)| x).fold(1.0, f64::max) * 1.02;
    let top = points()
        .map(|(_, y)| y)
        .fold(0.0, f64::max)
        .max(f64::MIN_POSITIVE)
        * 1.1;
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).tried(labels.title)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(labels.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(36)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..right, 0.0..top)
            .tried(labels.title)?;
        chart
            .configure_mesh()
            .x_desc(labels.x)
            .y_desc(labels.y)
            .draw()
            .tried(labels.title)?;
        for (at, (name, points)) in lines.iter().enumerate() {
            let style = colour(at).stroke_width(2);
            let series = LineSeries::new(points.iter().copied(), style).point_size(3);
            chart
                .draw_series(series)
                .tried(name)?
                .label(*name)
                .legend(move |(x, y)| legend(x, y, at));
        }
        chart
            .configure_series_labels()
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()
            .tried(labels.title)?;
        area.present().tried(labels.title)?;
    }
    Ok(svg)
}

fn legend(x: i32, y: i32, at: usize) -> PathElement<(i32, i32)> {
    PathElement::new(vec![(x, y), (x + 18, y)], colour(at).stroke_width(2))
}

/// One bar for each contender.
pub(crate) fn bars(labels: &Labels<'_>, values: &[(&str, f64)]) -> Result<String> {
    let top = values.iter().map(|(_, value)| *value).fold(0.0, f64::max);
    let top = top.max(f64::MIN_POSITIVE) * 1.15;
    let count = values.len();
    let names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    let name_at = |x: &f64| {
        let at = x.floor();
        let middle = (x - at - 0.5).abs() < 0.01;
        let name = names.get(at as usize).filter(|_| middle && at >= 0.0);
        name.map_or_else(String::new, |name| (*name).to_owned())
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE).tried(labels.title)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(labels.title, ("sans-serif", 16))
            .margin(10)
            .x_label_area_size(28)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..count as f64, 0.0..top)
            .tried(labels.title)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(2 * count + 1)
            .x_label_formatter(&name_at)
            .y_desc(labels.y)
            .draw()
            .tried(labels.title)?;
        let bars = values.iter().enumerate().map(|(at, (_, value))| {
            let left = at as f64;
            Rectangle::new(
                [(left + 0.2, 0.0), (left + 0.8, *value)],
                colour(at).filled(),
            )
        });
        chart.draw_series(bars).tried(labels.title)?;
        area.present().tried(labels.title)?;
    }
    Ok(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_plot_names_everyone_and_is_drawn_without_fonts_of_the_machine() {
        let labels = Labels {
            title: "A title",
            x: "µs",
            y: "share",
        };
        let lines = [
            ("ours", vec![(1.0, 0.1), (2.0, 0.9)]),
            ("theirs", vec![(3.0, 0.2), (40.0, 1.0)]),
        ];
        let plots = [
            distribution(&labels, &lines).expect("a plot"),
            curve(&labels, &lines).expect("a plot"),
            bars(&labels, &[("ours", 1.0), ("theirs", 2.0)]).expect("a plot"),
        ];
        for svg in plots {
            assert!(svg.starts_with("<svg") && svg.contains("A title"), "{svg}");
            assert!(svg.contains("ours") && svg.contains("theirs"), "{svg}");
        }
    }
}
