//! Figures: curves over one axis, written as SVG or PNG by the file's name.
//!
//! The ground is opaque, so that a figure reads the same on any page: light, or dark for those who ask for it.
//! An axis is logarithmic when the longest curve would flatten the others.
//! Each bears a mark, and only what bears it is replaced by another: a photograph of that name stays.

use crate::storage::{FileKind, Permit, Place, WriteError, look_at_place, replace_file};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::FontStyle;
use rustix::fs::Access;
use std::fs::{self, File};
use std::io;
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

/// The same for a dark ground.
const COLOURS_ON_DARK: [RGBColor; 12] = [
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(0, 190, 140),
    RGBColor(224, 150, 195),
    RGBColor(240, 228, 66),
    RGBColor(160, 160, 160),
    RGBColor(240, 120, 60),
    RGBColor(245, 245, 245),
    RGBColor(204, 102, 119),
    RGBColor(102, 204, 187),
    RGBColor(187, 187, 85),
    RGBColor(150, 140, 230),
];

/// Height of a line of the legend, and the room of a curve's sample before its name, in pixels.
const LEGEND_LINE: i32 = 22;
const LEGEND_SAMPLE: i32 = 32;
/// A curve that ends so many times as far out as another takes the whole axis from it.
const FLATTENED: f64 = 6.0;

/// What a figure is drawn on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ground {
    /// White.
    #[default]
    Light,
    /// Nearly black.
    Dark,
}

impl Ground {
    const fn colour(self) -> RGBColor {
        match self {
            Self::Light => WHITE,
            Self::Dark => RGBColor(13, 17, 23),
        }
    }

    const fn ink(self) -> RGBColor {
        match self {
            Self::Light => BLACK,
            Self::Dark => RGBColor(230, 237, 243),
        }
    }

    const fn colours(self) -> &'static [RGBColor; 12] {
        match self {
            Self::Light => &COLOURS,
            Self::Dark => &COLOURS_ON_DARK,
        }
    }
}

/// Why a figure was not drawn.
#[derive(Debug, thiserror::Error)]
pub enum PlotError {
    /// The file's name says neither.
    #[error("{} is neither .svg nor .png; give the figure one of these names", .0.display())]
    UnknownKind(PathBuf),
    /// What lies there is not ours to replace.
    #[error(transparent)]
    NotOurs(#[from] WriteError),
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
    /// What goes to the right is counted: ticks stand at whole numbers only.
    pub whole_x: bool,
    /// Its curves.
    pub series: Vec<Series>,
}

/// Whether a figure can be written under this name: the kind is known, what lies there is an older figure or nothing, and the
/// file can be made. One that was made to try is gone again.
pub fn check(path: &Path) -> Result<(), PlotError> {
    kind(path)?;
    let tried = match look_at_place(place(path)).map_err(|error| told(path, error))? {
        Permit::Make => File::create_new(path).and_then(|_| fs::remove_file(path)),
        _ => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let wanted = Access::WRITE_OK | Access::EXEC_OK;
            rustix::fs::access(folder.unwrap_or(Path::new(".")), wanted).map_err(io::Error::from)
        }
    };
    tried.map_err(|error| unwritable(path, &error))
}

fn place(path: &Path) -> Place<'_> {
    Place { path, kind: FileKind::Figure, content: None }
}

fn told(path: &Path, error: WriteError) -> PlotError {
    match error {
        WriteError::Io { source, .. } => unwritable(path, &source),
        refused => refused.into(),
    }
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
    /// Draws it into a file, in place of an older figure or of nothing.
    pub fn write(&self, path: &Path, ground: Ground) -> Result<(), PlotError> {
        let font = epaint_default_fonts::UBUNTU_LIGHT;
        // Registered again it is the same.
        let _ = plotters::style::register_font("sans-serif", FontStyle::Normal, font);
        let drawn = match kind(path)? {
            Kind::Svg => self.svg(ground),
            Kind::Png => self.png(ground),
        };
        let bytes = drawn.map_err(|error| unwritable(path, &error))?;
        replace_file(place(path), &bytes, false).map_err(|error| told(path, error))?;
        Ok(())
    }

    fn svg(&self, ground: Ground) -> Result<Vec<u8>, String> {
        let mut text = String::new();
        self.draw(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area(), ground)?;
        let head = text.find('\n').map_or(0, |line| line + 1);
        text.insert_str(head, &format!("<!-- {} -->\n", FileKind::FIGURE_MARK));
        Ok(text.into_bytes())
    }

    fn png(&self, ground: Ground) -> Result<Vec<u8>, String> {
        let mut pixels = vec![0; (SIZE.0 * SIZE.1 * 3) as usize];
        self.draw(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), ground)?;
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, SIZE.0, SIZE.1);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_depth(png::BitDepth::Eight);
        let marked = encoder.add_text_chunk("Comment".to_owned(), FileKind::FIGURE_MARK.to_owned());
        let written = marked.and_then(|()| encoder.write_header()?.write_image_data(&pixels));
        written.map_err(|error| error.to_string())?;
        Ok(bytes)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>, ground: Ground) -> Result<(), String> {
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        area.fill(&ground.colour()).map_err(failed)?;
        let title = ("sans-serif", 24).into_font().color(&ground.ink());
        let area = area.margin(10, 0, 0, 0).titled(&self.title, title).map_err(failed)?;
        let (legend, area) = area.split_vertically(LEGEND_LINE * self.legend_rows(&area)?.len() as i32 + 8);
        self.draw_legend(&legend, ground)?;
        // Logarithmic from a little below the first point that has a place there.
        match (self.axis(|point| point.0), self.axis(|point| point.1)) {
            (Axis::Linear(x), Axis::Linear(y)) => {
                self.draw_curves(&area, ground, 0.0..x * 1.02, 0.0..y * 1.05)
            }
            (Axis::Log(least, x), Axis::Linear(y)) => {
                self.draw_curves(&area, ground, (least..x * 1.1).log_scale(), 0.0..y * 1.05)
            }
            (Axis::Linear(x), Axis::Log(least, y)) => {
                self.draw_curves(&area, ground, 0.0..x * 1.02, (least..y * 1.2).log_scale())
            }
            (Axis::Log(left, x), Axis::Log(bottom, y)) => {
                let (x, y) = ((left..x * 1.1).log_scale(), (bottom..y * 1.2).log_scale());
                self.draw_curves(&area, ground, x, y)
            }
        }
    }

    fn axis(&self, of: fn(&(f64, f64)) -> f64) -> Axis {
        let values = |series: &Series| series.points.iter().map(of).collect::<Vec<f64>>();
        let ends: Vec<f64> = self
            .series
            .iter()
            .filter_map(|series| values(series).into_iter().reduce(f64::max))
            .filter(|end| *end > 0.0)
            .collect();
        let (least, most) =
            (ends.iter().copied().fold(f64::MAX, f64::min), ends.iter().copied().fold(0.0, f64::max));
        let above_zero = self.series.iter().flat_map(values).filter(|value| *value > 0.0);
        let first = above_zero.fold(f64::MAX, f64::min);
        // Of what is counted each number has its place.
        if most > least * FLATTENED && !self.whole_x && first < most {
            // A curve that begins at next to nothing would take all the room for it.
            return Axis::Log(first.max(least / 100.0), most);
        }
        Axis::Linear(most.max(f64::MIN_POSITIVE))
    }

    fn draw_curves<B, X, Y>(
        &self,
        area: &DrawingArea<B, Shift>,
        ground: Ground,
        x: X,
        y: Y,
    ) -> Result<(), String>
    where
        B: DrawingBackend,
        X: AsRangedCoord<Value = f64>,
        Y: AsRangedCoord<Value = f64>,
        X::CoordDescType: ValueFormatter<f64>,
        Y::CoordDescType: ValueFormatter<f64>,
    {
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        let mut chart = ChartBuilder::on(area)
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(72)
            .build_cartesian_2d(x, y)
            .map_err(failed)?;
        let (right, top) = (chart.x_range(), chart.y_range());
        let ink = ground.ink();
        let style = ("sans-serif", 16).into_font().color(&ink);
        let whole = self.whole_x;
        let across =
            move |value: &f64| if whole && value.fract() != 0.0 { String::new() } else { number(value) };
        let mut mesh = chart.configure_mesh();
        mesh.x_label_formatter(&across).y_label_formatter(&number).x_desc(&self.x).y_desc(&self.y);
        mesh.label_style(style).axis_style(ink.mix(0.6)).bold_line_style(ink.mix(0.15));
        mesh.light_line_style(ground.colour()).draw().map_err(failed)?;
        let inside = |&(x, y): &(f64, f64)| (x.max(right.start), y.max(top.start));
        for (series, colour) in self.series.iter().zip(ground.colours().iter().cycle()) {
            let points: Vec<(f64, f64)> = series.points.iter().map(inside).collect();
            if series.mark != Mark::Points {
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
                chart.draw_series(line).map_err(failed)?;
            }
            // A line of one point would not be seen.
            if series.mark != Mark::Line || points.len() == 1 {
                let dots = points.iter().map(|&point| Circle::new(point, 4, colour.filled()));
                chart.draw_series(dots).map_err(failed)?;
            }
        }
        area.present().map_err(failed)
    }

    /// Where each curve's name stands in the legend: as many in a row as fit.
    fn legend_rows<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<Vec<Vec<i32>>, String> {
        let width = area.dim_in_pixel().0 as i32 - 88 - 16;
        let style = ("sans-serif", 16).into_text_style(area);
        let mut rows: Vec<Vec<i32>> = vec![Vec::new()];
        let mut left = 0;
        for series in &self.series {
            let (text, _) =
                area.estimate_text_size(&series.name, &style).map_err(|error| error.to_string())?;
            let len = LEGEND_SAMPLE + text as i32 + 24;
            if left > 0 && left + len > width {
                rows.push(Vec::new());
                left = 0;
            }
            rows.last_mut().expect("there is always a row").push(left);
            left += len;
        }
        Ok(rows)
    }

    /// The names of the curves, above them, where they cover nothing.
    fn draw_legend<B: DrawingBackend>(
        &self,
        area: &DrawingArea<B, Shift>,
        ground: Ground,
    ) -> Result<(), String> {
        let failed = |error: DrawingAreaErrorKind<B::ErrorType>| error.to_string();
        let style = ("sans-serif", 16).into_font().color(&ground.ink());
        let rows = self.legend_rows(area)?;
        let places =
            (0..).zip(rows).flat_map(|(row, lefts)| lefts.into_iter().map(move |left| (88 + left, row)));
        let curves = self.series.iter().zip(ground.colours().iter().cycle());
        for ((series, colour), (left, row)) in curves.zip(places) {
            let middle = LEGEND_LINE * row + LEGEND_LINE / 2;
            if series.mark != Mark::Points {
                let ends = [(left, middle), (left + LEGEND_SAMPLE - 8, middle)];
                area.draw(&PathElement::new(ends, colour.stroke_width(3))).map_err(failed)?;
            }
            if series.mark != Mark::Line {
                let centre = (left + (LEGEND_SAMPLE - 8) / 2, middle);
                area.draw(&Circle::new(centre, 4, colour.filled())).map_err(failed)?;
            }
            let text = Text::new(series.name.as_str(), (left + LEGEND_SAMPLE, middle - 8), style.clone());
            area.draw(&text).map_err(failed)?;
        }
        Ok(())
    }
}

/// How the values of one direction are laid out.
enum Axis {
    /// From zero to this.
    Linear(f64),
    /// Logarithmic, between these.
    Log(f64, f64),
}

/// `5` rather than `5.0`.
fn number(value: &f64) -> String {
    ((value * 1000.0).round() / 1000.0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let points = vec![(1.0, 2.0), (2.0, 3.0), (35.0, 3.5)];
        let series = vec![Series { name: "client-server".into(), mark: Mark::Dots, points }];
        Figure { title: "Time".into(), x: "peers".into(), y: "hours".into(), whole_x: true, series }
    }

    #[test]
    fn both_kinds_are_written_and_written_anew_and_others_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (svg, png) = (dir.path().join("a.svg"), dir.path().join("a.png"));
        for ground in [Ground::Light, Ground::Dark] {
            check(&svg).unwrap();
            figure().write(&svg, ground).unwrap();
            let text = std::fs::read_to_string(&svg).unwrap();
            assert!(text.starts_with("<svg") && text.contains("client-server") && text.contains("hours"));
            check(&png).unwrap();
            figure().write(&png, ground).unwrap();
            assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
        }
        let decoder = png::Decoder::new(File::open(&png).unwrap());
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size()];
        assert_eq!(reader.next_frame(&mut pixels).unwrap().buffer_size(), 960 * 600 * 3);
        assert!(pixels.contains(&13) && pixels.contains(&230), "something light is drawn on dark");
        assert!(matches!(check(&dir.path().join("a.pdf")), Err(PlotError::UnknownKind(_))));
        for path in [Path::new("/nowhere/a.svg"), Path::new("/proc/a.svg")] {
            assert!(matches!(check(path), Err(PlotError::Unwritable { .. })), "{}", path.display());
        }
    }

    #[test]
    fn pictures_of_others_links_and_folders_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("holiday.png"), b"\x89PNG\r\n\x1a\n a beach").unwrap();
        fs::write(at("logo.svg"), "<svg/>").unwrap();
        std::os::unix::fs::symlink("logo.svg", at("link.svg")).unwrap();
        fs::create_dir(at("folder.svg")).unwrap();
        for name in ["holiday.png", "logo.svg", "link.svg", "folder.svg"] {
            assert!(matches!(check(&at(name)), Err(PlotError::NotOurs(_))), "{name}");
            assert!(matches!(figure().write(&at(name), Ground::Light), Err(PlotError::NotOurs(_))), "{name}");
        }
        assert_eq!(fs::read(at("logo.svg")).unwrap(), b"<svg/>");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn asking_whether_a_figure_can_be_written_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        check(&dir.path().join("new.svg")).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn nothing_to_draw_is_drawn_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let figure = Figure { series: Vec::new(), ..figure() };
        figure.write(&dir.path().join("empty.svg"), Ground::Light).unwrap();
    }

    /// The text of a figure as SVG.
    fn drawn(figure: &Figure, ground: Ground) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.svg");
        figure.write(&path, ground).unwrap();
        std::fs::read_to_string(&path).unwrap()
    }

    #[test]
    fn a_curve_of_one_point_is_seen() {
        let series = vec![Series { name: "formula".into(), mark: Mark::Line, points: vec![(40.0, 3.0)] }];
        assert!(drawn(&Figure { series, ..figure() }, Ground::Light).contains("<circle"));
    }

    #[test]
    fn what_is_counted_has_ticks_at_whole_numbers_only() {
        let series =
            vec![Series { name: "n".into(), mark: Mark::Dots, points: vec![(1.0, 2.0), (3.0, 2.0)] }];
        let labels = |whole_x| {
            let text = drawn(
                &Figure { series: series.clone(), whole_x, y: String::new(), ..figure() },
                Ground::Light,
            );
            let lines: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
            lines
                .into_iter()
                .filter(|line| line.parse::<f64>().is_ok_and(|value| value.fract() != 0.0))
                .count()
        };
        assert!(labels(true) < labels(false), "{} and {}", labels(true), labels(false));
    }

    #[test]
    fn a_curve_that_goes_far_beyond_the_others_does_not_flatten_them() {
        let curve = |name: &str, end: f64| {
            let points = (1..=100).map(|step| (end * f64::from(step) / 100.0, f64::from(step))).collect();
            Series { name: name.into(), mark: Mark::Line, points }
        };
        let figure = Figure { whole_x: false, series: vec![curve("a", 4.0), curve("b", 54.0)], ..figure() };
        assert!(matches!(figure.axis(|point| point.0), Axis::Log(_, 54.0)));
        assert!(matches!(figure.axis(|point| point.1), Axis::Linear(100.0)));
        // The first curve takes a good part of the width.
        let (least, most) = (0.04_f64, 54.0_f64);
        assert!((4.0_f64 / least).ln() / (most / least).ln() > 0.5);
        drawn(&figure, Ground::Light);
    }

    #[test]
    fn a_dark_figure_has_a_dark_ground_and_light_letters() {
        let (light, dark) = (drawn(&figure(), Ground::Light), drawn(&figure(), Ground::Dark));
        assert!(light.contains("#FFFFFF") && !light.contains("#0D1117"));
        assert!(dark.contains("#0D1117") && dark.contains("#E6EDF3"));
    }
}
