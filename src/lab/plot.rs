//! Figures: curves over one axis, written as SVG or PNG by the file's name.
//!
//! The ground is always light and opaque, so that a figure reads the same on a dark page.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::FontStyle;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// Width and height, in pixels.
const SIZE: (u32, u32) = (960, 600);
/// Colours that those who see few of them tell apart (Okabe and Ito, and after them Tol).
const COLOURS: [RGBColor; 12] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(120, 120, 120),
    RGBColor(230, 159, 0),
    RGBColor(0, 0, 0),
    RGBColor(136, 34, 85),
    RGBColor(68, 170, 153),
    RGBColor(153, 153, 51),
    RGBColor(51, 34, 136),
];

/// Height of a legend's line, as a part of what is drawn above the axis.
const LEGEND_LINE: f64 = 0.06;

/// Why a figure was not drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The file's name says neither.
    #[error("{} is neither .svg nor .png; give the figure one of these names", .0.display())]
    UnknownKind(PathBuf),
    /// The file cannot be written.
    #[error("cannot write {}: {reason}", .path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A line.
    Line,
    /// A line with a dot at each point.
    Dots,
    /// Dots alone.
    Points,
}

/// One curve.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its name in the legend.
    pub name: String,
    /// How it is drawn.
    pub mark: Mark,
    /// Where it goes.
    pub points: Vec<(f64, f64)>,
}

/// A figure.
#[derive(Clone, Debug)]
pub struct Figure {
    /// Above it.
    pub title: String,
    /// What goes to the right, with its unit.
    pub x: String,
    /// What goes up, with its unit.
    pub y: String,
    /// Its curves.
    pub series: Vec<Series>,
}

/// Whether a figure can be written under this name: the kind is known, and the file can be opened, or made. One that was
/// made is gone again.
pub fn check(path: &Path) -> Result<(), PlotError> {
    kind(path)?;
    let is_new = path.symlink_metadata().is_err();
    let opened = File::options().write(true).create_new(is_new).open(path);
    opened
        .and_then(|_| if is_new { fs::remove_file(path) } else { Ok(()) })
        .map_err(|error| unwritable(path, &error))
}

enum Kind {
    Svg,
    Png,
}

fn kind(path: &Path) -> Result<Kind, PlotError> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("svg") => Ok(Kind::Svg),
        Some("png") => Ok(Kind::Png),
        _ => Err(PlotError::UnknownKind(path.into())),
    }
}

fn unwritable(path: &Path, reason: &dyn std::fmt::Display) -> PlotError {
    PlotError::Unwritable { path: path.into(), reason: reason.to_string() }
}

impl Figure {
    /// Draws it into a file, which is replaced.
    pub fn write(&self, path: &Path) -> Result<(), PlotError> {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // Registered again it is the same.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, font);
        let drawn = match kind(path)? {
            Kind::Svg => self.draw(&SVGBackend::new(path, SIZE).into_drawing_area()),
            Kind::Png => self.draw(&BitMapBackend::new(path, SIZE).into_drawing_area()),
        };
        drawn.map_err(|error| unwritable(path, &error))
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let end = |of: fn(&(f64, f64)) -> f64| {
            let values = self.series.iter().flat_map(|series| series.points.iter().map(of));
            values.fold(0.0_f64, f64::max).max(f64::MIN_POSITIVE)
        };
        // Clouds of points leave no corner free, so the legend gets room above them.
        let is_cloud = self.series.iter().any(|series| series.mark == Mark::Points);
        let legend = if is_cloud { LEGEND_LINE * self.series.len() as f64 } else { 0.0 };
        let (right, top) = (end(|point| point.0) * 1.02, end(|point| point.1) * (1.05 + legend));
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&WHITE).map_err(failed)?;
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, ("sans-serif", 24))
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..right, 0.0..top)
            .map_err(failed)?;
        let mut mesh = chart.configure_mesh();
        // `5` rather than `5.0`.
        let number = |value: &f64| ((value * 1000.0).round() / 1000.0).to_string();
        mesh.x_label_formatter(&number).y_label_formatter(&number);
        mesh.x_desc(&self.x).y_desc(&self.y).label_style(("sans-serif", 16)).light_line_style(WHITE);
        mesh.draw().map_err(failed)?;
        for (series, colour) in self.series.iter().zip(COLOURS.iter().cycle()) {
            let points = series.points.iter().copied().filter(|_| series.mark != Mark::Points);
            let line = LineSeries::new(points, colour.stroke_width(2));
            let drawn = chart.draw_series(line).map_err(failed)?;
            let sample = |(x, y)| PathElement::new([(x, y), (x + 24, y)], colour.stroke_width(3));
            drawn.label(&series.name).legend(sample);
            if series.mark != Mark::Line {
                let dots = series.points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
                chart.draw_series(dots).map_err(failed)?;
            }
        }
        let mut labels = chart.configure_series_labels();
        labels.position(SeriesLabelPosition::UpperLeft).background_style(WHITE).border_style(BLACK.mix(0.3));
        labels.label_font(("sans-serif", 16)).draw().map_err(failed)?;
        area.present().map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let points = vec![(1.0, 2.0), (2.0, 3.0), (35.0, 3.5)];
        let series = vec![Series { name: "client-server".into(), mark: Mark::Dots, points }];
        Figure { title: "Time".into(), x: "peers".into(), y: "hours".into(), series }
    }

    #[test]
    fn both_kinds_are_written_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (svg, png) = (dir.path().join("a.svg"), dir.path().join("a.png"));
        figure().write(&svg).unwrap();
        let text = std::fs::read_to_string(&svg).unwrap();
        assert!(text.starts_with("<svg") && text.contains("client-server") && text.contains("hours"));
        figure().write(&png).unwrap();
        assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        assert!(matches!(check(&dir.path().join("a.pdf")), Err(PlotError::UnknownKind(_))));
        for path in [Path::new("/nowhere/a.svg"), Path::new("/proc/a.svg"), &dir.path().join("folder.svg")] {
            let _ = fs::create_dir(path);
            assert!(matches!(check(path), Err(PlotError::Unwritable { .. })), "{}", path.display());
        }
    }

    #[test]
    fn asking_whether_a_figure_can_be_written_leaves_nothing_and_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("new.svg"), dir.path().join("old.svg"));
        fs::write(&old, "a figure").unwrap();
        check(&new).unwrap();
        check(&old).unwrap();
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&old).unwrap(), "a figure");
    }

    #[test]
    fn nothing_to_draw_is_drawn_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let figure = Figure { series: Vec::new(), ..figure() };
        figure.write(&dir.path().join("empty.svg")).unwrap();
    }
}
