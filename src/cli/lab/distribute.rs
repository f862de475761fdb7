//! `seedring lab distribute`: how long it takes to give a file to N peers.

mod real;

use super::super::escape::json;
use super::super::progress::Progress;
use super::super::{CommandError, UsageError};
use crate::choker::Slots;
use crate::lab::distribute::{PeerClass, Question, Run};
use crate::lab::plot::{self, Figure, Ground, Mark, Series};
use crate::lab::{middle, run_all};
use crate::service;
use crate::sim::swarm::Policies;
use crate::time::Duration;
use crate::units::{ByteRate, ByteSize, Counted};
use real::{Measured, Plan, Predicted, RealArgs};
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Numbers of peers that are simulated of a range.
const POINTS: u32 = 12;
/// Peers of a simulation at most.
pub(super) const PEERS_MAX: u32 = 10_000;
/// Nothing is simulated for which a server alone needs longer: a swarm's clock ends after centuries, and a run may take
/// many times as long as it should.
const SIMULATED_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// How long does it take to give a file to N peers, from one server or from each other?
///
/// For each N: the time of a server that sends every copy itself (formula), the least time in which peers
/// that pass on what they have can do it (formula: no scheme is faster), and the time of a simulated swarm
/// of this program. With --real the same is done on this machine, by processes that keep these limits, and by
/// an HTTP server with the same limit for the first; the simulated rates then have a burst as these limits do.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    seedring lab distribute --preset textbook --plot figure.svg\n  \
    seedring lab distribute --size 1GiB --server-up 10MB/s --peer-up 1MB/s --peer-down 10MB/s --peers 1..100\n  \
    seedring lab distribute --size 64MB --server-up 8MB/s --peer-up 8MB/s --real 1,2,4,8\n  \
    seedring lab distribute --size 700MB --server-up 5MB/s --class dsl:3:100kB/s:2MB/s --class fibre:1:5MB/s:0 --peers 40")]
pub struct DistributeArgs {
    /// Bytes of the file
    #[arg(long, value_name = "SIZE", required_unless_present = "preset", value_parser = size)]
    size: Option<ByteSize>,
    /// What the server, or the seed, can send
    #[arg(long, value_name = "RATE", required_unless_present = "preset", value_parser = rate)]
    server_up: Option<ByteRate>,
    /// What each peer can send
    #[arg(long, value_name = "RATE", required_unless_present_any = ["preset", "class"], value_parser = rate)]
    peer_up: Option<ByteRate>,
    /// What each peer can receive [default: no bound]
    #[arg(long, value_name = "RATE", value_parser = rate)]
    peer_down: Option<ByteRate>,
    /// Peers of several kinds, in proportion to COUNT; DOWN of 0 is no bound; repeatable
    #[arg(long, value_name = "NAME:COUNT:UP:DOWN", value_parser = class, conflicts_with_all = ["peer_up", "peer_down"])]
    class: Vec<PeerClass>,
    /// How many peers: 8, or 1,10,100, or 1..1000 (of a range a dozen are simulated) [default: those of --real, the sum
    /// of the classes' counts, or 1..35]
    #[arg(long, value_name = "N", value_parser = peers)]
    peers: Option<Peers>,
    /// All of a known question: textbook is F/u of one hour, us = 10 u, 1..35 peers (Kurose and Ross)
    #[arg(long, value_enum, conflicts_with_all = ["size", "server_up", "peer_up", "peer_down", "class"])]
    preset: Option<Preset>,
    /// Simulated runs for each N, with seeds from --seed on; 0 prints the formulas alone
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=1000))]
    runs: u32,
    /// Seed of the first run
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Time of a byte from a peer's line into the net, in milliseconds; two peers are apart by twice that [default: 10,
    /// with --real 0]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(0..=10_000))]
    delay: Option<u64>,
    #[command(flatten)]
    real: RealArgs,
    /// Draw a figure: FILE.svg or FILE.png; only an older figure is replaced
    #[arg(long, value_name = "FILE", value_parser = figure_file)]
    plot: Option<PathBuf>,
    /// Draw it on a dark ground
    #[arg(long, requires = "plot")]
    dark: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// F/u = 1 hour, us = 10 u, dmin at least us, up to 35 peers
    Textbook,
}

/// Numbers of peers, as the user wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Peers {
    These(Vec<u32>),
    Range(u32, u32),
}

impl Peers {
    /// Each N for the formulas.
    fn all(&self) -> Vec<u32> {
        match self {
            Self::These(numbers) => numbers.clone(),
            Self::Range(first, last) => (*first..=*last).collect(),
        }
    }

    /// Those that are simulated: of a long range the ends and others between, in even proportions.
    fn simulated(&self) -> Vec<u32> {
        match *self {
            Self::Range(first, last) if last - first >= POINTS => {
                let ratio = f64::from(last) / f64::from(first);
                let point = |step: u32| {
                    let exact = f64::from(first) * ratio.powf(f64::from(step) / f64::from(POINTS - 1));
                    (exact.round() as u32).clamp(first, last)
                };
                let mut numbers: Vec<u32> = (0..POINTS).map(point).collect();
                numbers.dedup();
                numbers
            }
            _ => self.all(),
        }
    }
}

pub fn run(args: DistributeArgs) -> Result<(), CommandError> {
    let (question, peers) = asked(&args)?;
    let plan = Plan::of(&args.real, &question, args.seed)?;
    let with_real = |mut numbers: Vec<u32>| {
        numbers.extend(args.real.numbers());
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let simulated = if args.runs == 0 { Vec::new() } else { with_real(peers.simulated()) };
    if let Some(&most) = simulated.last()
        && question.fluid(most).client_server().is_none_or(|time| time > SIMULATED_MAX)
    {
        return Err(UsageError(format!(
            "a server alone would need more than ten years for {most} peers, which is more than is simulated; give a smaller \
             size, higher rates, fewer peers, or --runs 0 for the formulas alone"
        ))
        .into());
    }
    // The first run of every N before the second of any, the small ones first: somebody who stops it early sees most.
    let jobs: Vec<(u32, u64)> = (0..args.runs)
        .map(|run| args.seed.wrapping_add(u64::from(run)))
        .flat_map(|seed| simulated.iter().map(move |&count| (count, seed)))
        .collect();
    let cancel = service::shutdown_flag()?;
    let runs = simulate(&question, &jobs, &cancel);
    let row = |count| Row::new(&question, count, &runs);
    let mut rows: Vec<Row> = with_real(peers.all()).into_iter().map(row).collect();
    let mut measured = BTreeMap::new();
    if let Some(plan) = plan {
        measured = plan.measure(&question, |peers| row(peers).middle(|run| run.slowest), &cancel);
    }
    let problem =
        measured.iter().find_map(|(peers, measured)| Some((*peers, measured.problems().into_iter().next()?)));
    let mut text = if args.json { String::new() } else { table(&question, &rows, &simulated) };
    if !args.json && !measured.is_empty() {
        text += &real::table(question.size, &measured, |peers| row(peers).predicted());
    }
    rows.iter_mut().for_each(|row| row.measured = measured.remove(&row.peers));
    if args.json {
        text = report(&question, &rows)?;
    }
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    let drawn =
        args.plot.as_ref().map_or(Ok(()), |path| figure(&question, &rows).write(path, ground(args.dark)));
    if let Some((peers, problem)) = problem {
        return Err(format!("the real run with {}: {problem}", Counted(peers, "peer")).into());
    }
    if cancel.load(Relaxed) {
        return Err("stopped; what was known by then stands above".into());
    }
    Ok(drawn?)
}

fn asked(args: &DistributeArgs) -> Result<(Question, Peers), UsageError> {
    let is_real = !args.real.numbers().is_empty();
    let delay = Duration::from_millis(args.delay.unwrap_or(if is_real { 0 } else { 10 }));
    let textbook = || {
        let up = ByteRate(1 << 20);
        let down = Some(ByteRate(10 << 20));
        let classes = vec![PeerClass { name: "peers".into(), share: 1, up, down }];
        Question { size: 3600 << 20, server_up: ByteRate(10 << 20), classes, delay, bursts: is_real }
    };
    let question = match (args.preset, args.size, args.server_up) {
        (None, Some(size), Some(server_up)) => {
            let classes = match args.peer_up {
                Some(up) => vec![PeerClass { name: "peers".into(), share: 1, up, down: args.peer_down }],
                None => args.class.clone(),
            };
            Question { size: size.0, server_up, classes, delay, bursts: is_real }
        }
        // The options' own rules leave nothing else.
        _ => textbook(),
    };
    let counted = args.class.iter().map(|class| class.share).fold(0, u32::saturating_add);
    let peers = match (&args.peers, args.real.numbers()) {
        (Some(peers), _) => peers.clone(),
        (None, []) if counted > PEERS_MAX => {
            return Err(UsageError(format!(
                "the classes have {counted} peers, and {PEERS_MAX} are simulated at most; give --peers, of which the counts \
                 are shares then"
            )));
        }
        (None, []) if counted > 0 => Peers::These(vec![counted]),
        (None, []) => Peers::Range(1, 35),
        (None, numbers) => Peers::These(numbers.to_vec()),
    };
    Ok((question, peers))
}

/// Runs all jobs on all cores; those that `cancel` cut short are left out.
fn simulate(question: &Question, jobs: &[(u32, u64)], cancel: &AtomicBool) -> BTreeMap<u32, Vec<Run>> {
    let counter = Progress::start_peers("simulating", jobs.iter().map(|&(count, _)| u64::from(count)).sum());
    let runs = run_all(jobs, |&(count, seed)| {
        let run = question.simulate(count, seed, policies(), cancel)?;
        counter.add(u64::from(count));
        Some((count, run))
    });
    let mut found = BTreeMap::<u32, Vec<Run>>::new();
    runs.into_iter().flatten().for_each(|(count, run)| found.entry(count).or_default().push(run));
    found
}

fn policies() -> Policies {
    Policies { seed_slots: Slots::Auto, ..Policies::default() }
}

/// What is known of one N; times in seconds.
struct Row {
    peers: u32,
    client_server: Option<f64>,
    bound: Option<f64>,
    runs: Vec<Run>,
    measured: Option<Measured>,
}

impl Row {
    fn new(question: &Question, peers: u32, runs: &BTreeMap<u32, Vec<Run>>) -> Self {
        let fluid = question.fluid(peers);
        Self {
            peers,
            client_server: fluid.client_server().map(|time| time.as_secs_f64()),
            bound: fluid.peer_to_peer().map(|time| time.as_secs_f64()),
            runs: runs.get(&peers).cloned().unwrap_or_default(),
            measured: None,
        }
    }

    fn predicted(&self) -> Predicted {
        let simulated = self.middle(|run| run.slowest);
        Predicted { client_server: self.client_server, bound: self.bound, simulated }
    }

    /// The median of the runs; `None` when half of them did not end.
    fn middle(&self, of: fn(&Run) -> Option<f64>) -> Option<f64> {
        middle(self.runs.iter().map(of))
    }
}

fn table(question: &Question, rows: &[Row], simulated: &[u32]) -> String {
    let mut text = String::new();
    let scale = simulated.iter().map(|&peers| question.scale(peers)).max().unwrap_or(1);
    if scale > 1 {
        text += &format!(
            "simulated with size and rates divided by up to {scale}, which leaves times as they are\n"
        );
    }
    text += "peers   client-server   peer-to-peer least   simulated median   slowest   of the least\n";
    let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), clock_time);
    for row in rows.iter().filter(|row| simulated.is_empty() || simulated.contains(&row.peers)) {
        let slowest = row.middle(|run| run.slowest);
        let ratio =
            slowest.zip(row.bound).map_or("-".to_owned(), |(time, bound)| format!("{:.2}", time / bound));
        text += &format!(
            "{:>5}   {:>13}   {:>18}   {:>16}   {:>7}   {:>12}\n",
            row.peers,
            time(row.client_server),
            time(row.bound),
            time(row.middle(|run| run.median)),
            time(slowest),
            ratio,
        );
        if !row.runs.is_empty() && slowest.is_none() {
            text += "        not everybody had everything after twenty times what a server alone needs\n";
        }
    }
    if rows.iter().any(|row| row.client_server.is_none() || row.bound.is_none()) {
        text += "-: more than five hundred years\n";
    }
    text
}

/// `59.4 s`, `3:07 min`, `1:02:03 h`
pub(super) fn clock_time(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=59 => format!("{seconds:.1} s"),
        60..=3599 => format!("{}:{:02} min", whole / 60, whole % 60),
        _ => format!("{}:{:02}:{:02} h", whole / 3600, whole / 60 % 60, whole % 60),
    }
}

fn report(question: &Question, rows: &[Row]) -> Result<String, CommandError> {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let runs: Vec<Value> = row
                .runs
                .iter()
                .map(|run| {
                    object!({
                        "seed": run.seed, "median_seconds": run.median, "slowest_seconds": run.slowest,
                        "seed_copies": run.seed_copies, "trace": format!("{:016x}", run.trace), "events": run.events,
                    })
                })
                .collect();
            object!({
                "peers": row.peers, "scale": question.scale(row.peers), "client_server_seconds": row.client_server,
                "peer_to_peer_bound_seconds": row.bound,
                "simulated_median_seconds": row.middle(|run| run.median),
                "simulated_slowest_seconds": row.middle(|run| run.slowest), "runs": runs,
                "measured": row.measured.as_ref().map(|measured| measured.report(question.size)),
            })
        })
        .collect();
    let report = object!({
        "size": question.size, "server_up": question.server_up.0, "classes": classes(&question.classes),
        "delay_seconds": question.delay.as_secs_f64(), "rows": rows,
    });
    Ok(json(&report)? + "\n")
}

/// Classes for programs.
pub(super) fn classes(classes: &[PeerClass]) -> Value {
    let class = |class: &PeerClass| {
        let down = class.down.map(|rate| rate.0);
        object!({ "name": class.name, "share": class.share, "up": class.up.0, "down": down })
    };
    classes.iter().map(class).collect()
}

fn figure(question: &Question, rows: &[Row]) -> Figure {
    let longest = rows.iter().filter_map(|row| row.client_server).fold(0.0, f64::max);
    let (unit, name) = match longest {
        ..120.0 => (1.0, "seconds"),
        ..7200.0 => (60.0, "minutes"),
        _ => (3600.0, "hours"),
    };
    let series = |name: &str, mark, of: &dyn Fn(&Row) -> Option<f64>| Series {
        name: name.into(),
        mark,
        points: rows.iter().filter_map(|row| Some((f64::from(row.peers), of(row)? / unit))).collect(),
    };
    let all = [
        series("client-server (formula)", Mark::Line, &|row| row.client_server),
        series("peer-to-peer, least possible (formula)", Mark::Line, &|row| row.bound),
        series("Seedring, slowest peer (simulated)", Mark::Dots, &|row| row.middle(|run| run.slowest)),
        series("Seedring, median peer (simulated)", Mark::Dots, &|row| row.middle(|run| run.median)),
        series("HTTP server (measured)", Mark::Dots, &|row| row.measured.as_ref()?.server()),
        series("swarm, slowest peer (measured)", Mark::Dots, &|row| row.measured.as_ref()?.slowest()),
    ];
    Figure {
        title: format!("Time to give {} to N peers", ByteSize(question.size)),
        x: "number of peers N".into(),
        y: format!("time until all have it ({name})"),
        whole_x: true,
        series: all.into_iter().filter(|series| !series.points.is_empty()).collect(),
    }
}

pub(super) fn ground(dark: bool) -> Ground {
    if dark { Ground::Dark } else { Ground::Light }
}

pub(super) fn figure_file(text: &str) -> Result<PathBuf, plot::PlotError> {
    let path = PathBuf::from(text);
    plot::check(&path).map(|()| path)
}

pub(super) fn size(text: &str) -> Result<ByteSize, String> {
    let size: ByteSize = text.parse().map_err(|error: crate::units::UnitError| error.to_string())?;
    if size.0 == 0 { Err("a file without bytes takes no time; give a size above 0".into()) } else { Ok(size) }
}

pub(super) fn rate(text: &str) -> Result<ByteRate, String> {
    let rate: ByteRate = text.parse().map_err(|error: crate::units::UnitError| error.to_string())?;
    if rate.0 == 0 { Err("nothing passes at a rate of 0; give one above 0".into()) } else { Ok(rate) }
}

pub(super) fn class(text: &str) -> Result<PeerClass, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [name, count, up, down] = parts.as_slice() else {
        return Err("write NAME:COUNT:UP:DOWN, as dsl:30:100kB/s:2MB/s".into());
    };
    let share = count.parse().ok().filter(|share| (1..=PEERS_MAX).contains(share));
    let share = share.ok_or(format!("{count:?} is no number of peers from 1 to {PEERS_MAX}"))?;
    let down: ByteRate = down.parse().map_err(|error: crate::units::UnitError| error.to_string())?;
    let down = Some(down).filter(|down| down.0 > 0);
    if name.trim().is_empty() {
        return Err("the class has no name; write NAME:COUNT:UP:DOWN".into());
    }
    Ok(PeerClass { name: (*name).to_owned(), share, up: rate(up)?, down })
}

fn peers(text: &str) -> Result<Peers, String> {
    let number = |text: &str| {
        let number = text.trim().parse().ok().filter(|number| (1..=PEERS_MAX).contains(number));
        number.ok_or(format!("{text:?} is no number of peers from 1 to {PEERS_MAX}"))
    };
    match text.split_once("..") {
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first <= last {
                Ok(Peers::Range(first, last))
            } else {
                Err("write the smaller number first".into())
            }
        }
        None => {
            let mut numbers = text.split(',').map(number).collect::<Result<Vec<u32>, _>>()?;
            numbers.sort_unstable();
            numbers.dedup();
            Ok(Peers::These(numbers))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_peers_are_read_as_people_write_them() {
        assert_eq!(peers("8"), Ok(Peers::These(vec![8])));
        assert_eq!(peers("100, 1,10,10"), Ok(Peers::These(vec![1, 10, 100])));
        assert_eq!(peers("1..35"), Ok(Peers::Range(1, 35)));
        for bad in ["", "0", "5..1", "x", "1..", "99999999999", "1..20000", "-1"] {
            assert!(peers(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn of_a_range_the_ends_and_some_between_are_simulated() {
        let numbers = Peers::Range(1, 1000).simulated();
        assert!(
            numbers.len() <= POINTS as usize && numbers.first() == Some(&1) && numbers.last() == Some(&1000)
        );
        assert!(numbers.is_sorted());
        assert_eq!(Peers::Range(3, 6).simulated(), [3, 4, 5, 6]);
    }

    #[test]
    fn classes_are_read_and_nonsense_is_refused() {
        let class_of = |text: &str| class(text);
        let dsl = class_of("dsl:30:100kB/s:2MB/s").unwrap();
        assert_eq!(
            (dsl.name.as_str(), dsl.share, dsl.up, dsl.down),
            ("dsl", 30, ByteRate(100_000), Some(ByteRate(2_000_000)))
        );
        assert_eq!(class_of("x:1:5MB/s:0").unwrap().down, None);
        for bad in ["", ":1:1:1", "x:1:1", "x:0:1:1", "x:1:0:1", "x:1:1:1:1", "x:1:1furlong:1"] {
            assert!(class_of(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn times_are_written_as_people_read_them() {
        assert_eq!(
            [clock_time(3.04), clock_time(187.0), clock_time(3723.4)],
            ["3.0 s", "3:07 min", "1:02:03 h"]
        );
    }
}
