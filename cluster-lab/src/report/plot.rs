//! Plots of a report, as SVG.

use anyhow::anyhow;
use plotters::prelude::*;

/// Size of a plot, in pixels.
const SIZE: (u32, u32) = (760, 340);
/// Told apart on a screen and, by their lightness, on paper.
const COLOURS: [RGBColor; 8] = [
    RGBColor(34, 34, 34),
    RGBColor(213, 94, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(150, 150, 60),
];

/// One line of a plot.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// A place for the names of the lines.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Legend {
    #[default]
    Above,
    Below,
}

/// What a plot shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Plot {
    pub(super) x: String,
    pub(super) y: String,
    pub(super) lines: Vec<Line>,
    /// Whether the horizontal axis is logarithmic.
    pub(super) log_x: bool,
    /// Whether the vertical axis is logarithmic.
    pub(super) log_y: bool,
    /// A part of the horizontal axis in which something happened.
    pub(super) mark: Option<(f64, f64)>,
    /// Whether each point has a dot.
    pub(super) dots: bool,
    /// Where there is room for the names of the lines.
    pub(super) legend: Legend,
}

impl Plot {
    /// Draws it; `None` when it has nothing to show.
    pub(super) fn svg(&self) -> Option<anyhow::Result<String>> {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let xs = bounds(all().map(|point| point.0), self.log_x)?;
        let ys = bounds(all().map(|point| point.1), self.log_y)?;
        let mut svg = String::new();
        let drawn = match (self.log_x, self.log_y) {
            (false, false) => self.draw(&mut svg, xs.0..xs.1, ys.0..ys.1),
            (false, true) => self.draw(&mut svg, xs.0..xs.1, (ys.0..ys.1).log_scale()),
            (true, false) => self.draw(&mut svg, (xs.0..xs.1).log_scale(), ys.0..ys.1),
            (true, true) => self.draw(&mut svg, (xs.0..xs.1).log_scale(), (ys.0..ys.1).log_scale()),
        };
        Some(drawn.map(|()| svg))
    }

    fn draw<X, Y, IntoX, IntoY>(&self, svg: &mut String, x: IntoX, y: IntoY) -> anyhow::Result<()>
    where
        X: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + plotters::coord::ranged1d::ValueFormatter<f64>,
        IntoX: plotters::coord::ranged1d::AsRangedCoord<CoordDescType = X, Value = f64>,
        IntoY: plotters::coord::ranged1d::AsRangedCoord<CoordDescType = Y, Value = f64>,
    {
        let failed = |error: &dyn std::fmt::Display| anyhow!("failed to draw: {error}");
        let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        root.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .set_label_area_size(LabelAreaPosition::Left, 58)
            .set_label_area_size(LabelAreaPosition::Bottom, 40)
            .build_cartesian_2d(x, y)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .label_style(("sans-serif", 12))
            .axis_desc_style(("sans-serif", 13))
            .light_line_style(RGBColor(244, 244, 244))
            .bold_line_style(RGBColor(225, 225, 225))
            .x_label_formatter(&|value| short(*value))
            .y_label_formatter(&|value| short(*value))
            .draw()
            .map_err(|error| failed(&error))?;
        if let Some((from, to)) = self.mark {
            let ys = bounds(
                self.lines.iter().flat_map(|line| &line.points).map(|point| point.1),
                self.log_y,
            );
            let (low, high) = ys.unwrap_or((0.0, 1.0));
            let area =
                Rectangle::new([(from, low), (to, high)], RGBColor(213, 94, 0).mix(0.1).filled());
            chart.draw_series([area]).map_err(|error| failed(&error))?;
        }
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let colour = *colour;
            let style = colour.stroke_width(2);
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), style))
                .map_err(|error| failed(&error))?
                .label(line.name.as_str())
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
            if self.dots {
                let dots = line.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
                chart.draw_series(dots).map_err(|error| failed(&error))?;
            }
        }
        chart
            .configure_series_labels()
            .position(match self.legend {
                Legend::Above => SeriesLabelPosition::UpperLeft,
                Legend::Below => SeriesLabelPosition::LowerLeft,
            })
            .label_font(("sans-serif", 12))
            .background_style(WHITE.mix(0.85))
            .border_style(RGBColor(200, 200, 200))
            .draw()
            .map_err(|error| failed(&error))?;
        root.present().map_err(|error| failed(&error))
    }
}

/// From the least to the most, with some room; `None` when there is nothing.
fn bounds(values: impl Iterator<Item = f64>, is_log: bool) -> Option<(f64, f64)> {
    let values = values.filter(|value| value.is_finite() && (!is_log || *value > 0.0));
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
        (low.min(value), high.max(value))
    });
    if low > high {
        return None;
    }
    Some(if is_log {
        (low / 1.2, (high * 1.2).max(low * 2.0))
    } else {
        (low.min(0.0), if high > low.min(0.0) { high * 1.05 } else { low.min(0.0) + 1.0 })
    })
}

/// A number on an axis.
fn short(value: f64) -> String {
    let size = value.abs();
    if size >= 10_000.0 {
        format!("{:.0}k", value / 1e3)
    } else if size >= 10.0 || value == 0.0 {
        format!("{value:.0}")
    } else if size >= 0.1 {
        format!("{value:.1}")
    } else {
        format!("{value}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plot_names_its_lines_and_axes_on_every_kind_of_axis() {
        for (log_x, log_y) in [(false, false), (false, true), (true, false), (true, true)] {
            let lines = vec![
                Line { name: "least-conn".to_owned(), points: vec![(0.3, 2.0), (0.9, 40.0)] },
                Line { name: "none".to_owned(), points: vec![(0.3, 4.0), (0.9, 900.0)] },
            ];
            let (x, y) = ("load".to_owned(), "p99, ms".to_owned());
            let mark = Some((0.4, 0.5));
            let plot = Plot { x, y, lines, log_x, log_y, mark, dots: true, legend: Legend::Below };
            let svg = plot.svg().unwrap().unwrap();
            for text in ["<svg", "least-conn", "none", "load", "p99, ms"] {
                assert!(svg.contains(text), "{text}");
            }
        }
    }

    #[test]
    fn nothing_is_no_plot() {
        assert!(Plot::default().svg().is_none());
        let lines = vec![Line { name: String::new(), points: vec![(1.0, f64::NAN)] }];
        assert!(Plot { lines, ..Plot::default() }.svg().is_none());
    }
}
