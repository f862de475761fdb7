//! The figures of `seedring lab swarm`.

use super::report::Row;
use crate::lab::observe::{Observation, Sample};
use crate::lab::plot::{Figure, Mark, Series};
use crate::lab::scenario::Crowd;
use crate::units::{ByteSize, Counted};

/// Combinations of policies of which the mean copies are drawn, too; of more it would be a thicket.
const MEANS_MAX: usize = 3;

/// What a figure shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FigureKind {
    /// Copies of the rarest piece and of pieces on average, over time (first run)
    Diversity,
    /// Part of the peers that have everything, over the time since they came (all runs)
    Completion,
    /// Time that each peer needed, over what it gave for each byte that it took (first run)
    Fairness,
    /// Part of the leeches' uplinks that carried payload, over time (first run)
    Uplinks,
}

impl FigureKind {
    pub fn draw(self, crowd: &Crowd, rows: &[Row]) -> Figure {
        let longest = rows.iter().flat_map(|row| &row.runs).map(|run| self.last(run)).fold(0.0, f64::max);
        let unit = match longest {
            ..300.0 => Unit { seconds: 1.0, name: "seconds" },
            ..18_000.0 => Unit { seconds: 60.0, name: "minutes" },
            _ => Unit { seconds: 3600.0, name: "hours" },
        };
        let (what, x, y, series) = match self {
            Self::Diversity => (
                "Copies of pieces",
                format!("time ({})", unit.name),
                "copies among peers that are here".to_owned(),
                diversity(rows, &unit),
            ),
            Self::Completion => (
                "Who has everything",
                format!("time since arrival ({})", unit.name),
                "part of all peers (%)".to_owned(),
                rows.iter().map(|row| completion(row, &unit)).collect(),
            ),
            Self::Fairness => (
                "Giving and waiting",
                "bytes given for each byte taken".to_owned(),
                format!("time until a peer had everything ({})", unit.name),
                fairness(rows, &unit),
            ),
            Self::Uplinks => (
                "Use of the leeches' uplinks",
                format!("time ({})", unit.name),
                "part that carries payload (%)".to_owned(),
                curves(rows, &unit, "", |sample| sample.uplinks.map(|part| part * 100.0)),
            ),
        };
        let title = format!("{what}: {}, {}", Counted(crowd.peers, "peer"), ByteSize(crowd.size));
        Figure { title, x, y, whole_x: false, series }
    }

    /// The longest time of a run that it shows, in seconds.
    fn last(self, run: &Observation) -> f64 {
        match self {
            Self::Diversity | Self::Uplinks => run.samples.last().map_or(0.0, |sample| sample.at),
            Self::Completion | Self::Fairness => {
                run.peers.iter().filter_map(|peer| peer.took).fold(0.0, f64::max)
            }
        }
    }
}

struct Unit {
    seconds: f64,
    name: &'static str,
}

/// A curve over time for each row, of its first run.
fn curves(rows: &[Row], unit: &Unit, what: &str, of: impl Fn(&Sample) -> Option<f64>) -> Vec<Series> {
    let curve = |row: &Row| {
        let samples = row.runs.first().map_or(&[][..], |run| &run.samples[..]);
        let point = |sample: &Sample| Some((sample.at / unit.seconds, of(sample)?));
        Series {
            name: format!("{}{what}", row.label),
            mark: Mark::Line,
            points: samples.iter().filter_map(point).collect(),
        }
    };
    rows.iter().map(curve).collect()
}

fn diversity(rows: &[Row], unit: &Unit) -> Vec<Series> {
    let rarest = |sample: &Sample| Some(f64::from(sample.rarest));
    if rows.len() > MEANS_MAX {
        return curves(rows, unit, ": rarest piece", rarest);
    }
    let means = curves(rows, unit, ": mean", |sample| Some(sample.mean));
    curves(rows, unit, ": rarest piece", rarest).into_iter().chain(means).collect()
}

/// Steps of the share that has everything.
fn completion(row: &Row, unit: &Unit) -> Series {
    let peers = row.runs.iter().flat_map(|run| &run.peers);
    let mut times: Vec<f64> = peers.clone().filter_map(|peer| peer.took).collect();
    times.sort_by(f64::total_cmp);
    let all = peers.count().max(1) as f64;
    let step = |(place, time): (usize, f64)| {
        [place, place + 1].map(|done| (time / unit.seconds, done as f64 * 100.0 / all))
    };
    let points = times.into_iter().enumerate().flat_map(step).collect();
    Series { name: row.label.clone(), mark: Mark::Line, points }
}

/// A dot for each peer, a colour for each group of each combination.
fn fairness(rows: &[Row], unit: &Unit) -> Vec<Series> {
    let mut series = Vec::new();
    for row in rows {
        let Some(run) = row.runs.first() else { continue };
        for (number, group) in (0_u8..).zip(&run.groups) {
            let members = run.peers.iter().filter(|peer| peer.group == number && peer.taken > 0.0);
            let points = members
                .filter_map(|peer| Some((peer.given / peer.taken, peer.took? / unit.seconds)))
                .collect();
            let name =
                if rows.len() > 1 { format!("{}: {}", row.label, group.name) } else { group.name.clone() };
            series.push(Series { name, mark: Mark::Points, points });
        }
    }
    series
}
