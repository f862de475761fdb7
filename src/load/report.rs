//! What came of a run: plain arithmetic over tallies and connections, and its text form.
//!
//! Rates are over the served time: from the first unchoke to the last block, so that a target's choker
//! rounds at the beginning do not count as slow transfer; the waiting is told separately.

use super::requester::{Milestones, Requester, TargetFault};
use super::tally::Tally;
use super::{Options, Target};
use crate::time::{Duration, Instant};
use crate::units::{ByteRate, ByteSize, Counted};
use hdrhistogram::Histogram;
use rustix::io::Errno;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// Why a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The run was over.
    Finished,
    /// The target closed it.
    ClosedByTarget,
    /// The target never completed a handshake.
    NoHandshake,
    /// The target broke the protocol.
    Fault(TargetFault),
    /// The kernel says so.
    Io(Errno),
}

impl Ending {
    pub(super) const fn of_io(error: Errno) -> Self {
        Self::Io(error)
    }
}

impl From<TargetFault> for Ending {
    fn from(fault: TargetFault) -> Self {
        Self::Fault(fault)
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finished => f.write_str("finished"),
            Self::ClosedByTarget => f.write_str("the target closed the connection"),
            Self::NoHandshake => f.write_str("the target did not answer the handshake"),
            Self::Fault(fault) => fault.fmt(f),
            Self::Io(Errno::CONNREFUSED) => f.write_str("nothing listens there (connection refused)"),
            Self::Io(Errno::CONNRESET) => f.write_str("the target reset the connection"),
            Self::Io(error) => std::io::Error::from(*error).fmt(f),
        }
    }
}

/// One connection's life.
#[derive(Clone, Debug)]
pub(super) struct ConnectionOutcome {
    milestones: Milestones,
    bytes: u64,
    choked: Duration,
    ending: Ending,
}

impl ConnectionOutcome {
    pub(super) fn new(requester: &Requester, now: Instant, ending: Ending) -> Self {
        Self {
            milestones: requester.milestones(),
            bytes: requester.bytes(),
            choked: requester.choked_total(now),
            ending,
        }
    }
}

/// The report of one run. Its serialised form is the `--json` output; fields are only ever added.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Where the seeder listens.
    pub target: String,
    /// The torrent's info-hash.
    pub info_hash: String,
    /// Connections asked for.
    pub connections: usize,
    /// Requests kept in flight on each.
    pub depth: usize,
    /// Connections that reached each stage.
    pub reached: Reached,
    /// Seconds from the first connection attempt to the end.
    pub elapsed_seconds: f64,
    /// Seconds from the first unchoke to the last block.
    pub served_seconds: f64,
    /// Bytes of blocks received.
    pub bytes: u64,
    /// Blocks received.
    pub blocks: u64,
    /// Bytes a second over the served time.
    pub bytes_per_second: f64,
    /// Blocks a second over the served time.
    pub blocks_per_second: f64,
    /// From sending a request to the last byte of its block.
    pub latency: Latency,
    /// From the connection attempt to TCP being connected, in milliseconds.
    pub connect_ms: Spread,
    /// From TCP being connected to the target's handshake, in milliseconds.
    pub handshake_ms: Spread,
    /// From the target's handshake to the first unchoke, in milliseconds.
    pub unchoke_ms: Spread,
    /// Bytes of each connection.
    pub per_connection: ConnectionSpread,
    /// Seconds of being choked after the handshake, all connections together.
    pub choked_seconds: f64,
    /// Chokes after an unchoke.
    pub chokes: u64,
    /// Requests rejected.
    pub rejects: u64,
    /// Blocks that nobody had asked for.
    pub unrequested_blocks: u64,
    /// Whether pieces were hashed.
    pub verified: bool,
    /// Pieces with the right hash.
    pub pieces_right: u64,
    /// Pieces with a wrong hash.
    pub pieces_wrong: u64,
    /// The first piece that had a wrong hash.
    pub first_wrong_piece: Option<u32>,
    /// CPU seconds of the load generator itself, user and system.
    pub own_cpu_seconds: f64,
    /// The same for each GiB received.
    pub own_cpu_seconds_per_gib: f64,
    /// Why connections were lost, most frequent first.
    pub errors: Vec<ErrorCount>,
    /// Bytes asked for with `--bytes`.
    pub bytes_wanted: Option<u64>,
    /// The run was ended by its user before its time.
    pub interrupted: bool,
    /// What the figures may hide, as one sentence.
    pub note: Option<String>,
    /// Why a run with `--bytes` that came to fewer was over, unless the target ended it.
    #[serde(skip)]
    ended_early: Option<&'static str>,
}

/// Connections that reached a stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Reached {
    /// TCP was connected.
    pub connected: usize,
    /// The handshake was exchanged.
    pub handshaken: usize,
    /// At least one unchoke.
    pub unchoked: usize,
    /// At least one block.
    pub served: usize,
    /// Ended before the run did.
    pub lost: usize,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// Half of the blocks were faster.
    pub p50_us: f64,
    /// 90 in 100.
    pub p90_us: f64,
    /// 99 in 100.
    pub p99_us: f64,
    /// 999 in 1000.
    pub p999_us: f64,
    /// The slowest.
    pub max_us: f64,
    /// The mean.
    pub mean_us: f64,
}

/// Least, middle and most of something; zeros when there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The least.
    pub min: f64,
    /// The one in the middle.
    pub median: f64,
    /// The most.
    pub max: f64,
}

/// How evenly the bytes went to the connections that had a handshake.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct ConnectionSpread {
    /// The least.
    pub min: u64,
    /// The one in the middle.
    pub median: u64,
    /// The most.
    pub max: u64,
    /// Jain's fairness index: 1 when all got the same, 1/n when one got everything.
    pub jain: f64,
}

/// A reason and how many connections it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ErrorCount {
    /// The reason as a sentence.
    pub reason: String,
    /// Connections.
    pub connections: usize,
}

/// What [`Report::new`] is made of, beside the run's own arguments.
pub(super) struct Measured<'a> {
    pub started: Instant,
    pub finished: Instant,
    pub tally: &'a Tally,
    pub outcomes: &'a [ConnectionOutcome],
    pub cpu: Duration,
    pub interrupted: bool,
}

impl Report {
    pub(super) fn new(target: &Target, options: &Options, measured: &Measured<'_>) -> Self {
        let Measured { started, finished, tally, outcomes, cpu, interrupted } = *measured;
        let first_unchoke = outcomes.iter().filter_map(|outcome| outcome.milestones.unchoked).min();
        let served = match (first_unchoke, tally.last_block) {
            (Some(first), Some(last)) => last.since(first).as_secs_f64(),
            _ => 0.0,
        };
        let per_second = |amount: u64| if served > 0.0 { amount as f64 / served } else { 0.0 };
        let own_cpu_seconds = cpu.as_secs_f64();
        let gibibytes = tally.bytes as f64 / f64::from(1 << 30);
        let stage = |from: fn(&Milestones) -> Option<Instant>, to: fn(&Milestones) -> Option<Instant>| {
            let time = |outcome: &ConnectionOutcome| {
                Some(to(&outcome.milestones)?.since(from(&outcome.milestones)?).as_secs_f64() * 1e3)
            };
            Spread::of(outcomes.iter().filter_map(time).collect())
        };
        Self {
            target: target.address.to_string(),
            info_hash: target.info_hash.to_string(),
            connections: options.connections,
            depth: options.depth,
            reached: Reached::of(outcomes),
            elapsed_seconds: finished.since(started).as_secs_f64(),
            served_seconds: served,
            bytes: tally.bytes,
            blocks: tally.blocks,
            bytes_per_second: per_second(tally.bytes),
            blocks_per_second: per_second(tally.blocks),
            latency: Latency::of(&tally.latency),
            connect_ms: stage(|m| Some(m.started), |m| m.connected),
            handshake_ms: stage(|m| m.connected, |m| m.handshaken),
            unchoke_ms: stage(|m| m.handshaken, |m| m.unchoked),
            per_connection: ConnectionSpread::of(
                outcomes.iter().filter(|o| o.milestones.handshaken.is_some()).map(|o| o.bytes).collect(),
            ),
            choked_seconds: outcomes.iter().map(|outcome| outcome.choked.as_secs_f64()).sum(),
            chokes: tally.chokes,
            rejects: tally.rejects,
            unrequested_blocks: tally.unrequested,
            verified: options.verify,
            pieces_right: tally.pieces_right,
            pieces_wrong: tally.pieces_wrong,
            first_wrong_piece: tally.first_wrong.map(|piece| piece.0),
            own_cpu_seconds,
            own_cpu_seconds_per_gib: if tally.bytes > 0 { own_cpu_seconds / gibibytes } else { 0.0 },
            errors: count_errors(outcomes),
            bytes_wanted: options.until.bytes,
            interrupted,
            note: takes_one_of_an_address(options, outcomes),
            ended_early: match first_unchoke {
                _ if interrupted => Some("the run was ended before"),
                Some(first) if finished.since(first) >= options.until.elapsed => {
                    Some("its time was up; --duration gives it more")
                }
                _ => None,
            },
        }
    }

    /// What is wrong with the target, as one sentence; `None` when it served as it should.
    pub fn complaint(&self) -> Option<String> {
        if self.blocks == 0 {
            return Some(format!("{} served nothing: {}", self.target, self.why_nothing()));
        }
        if let Some(piece) = self.first_wrong_piece {
            let (wrong, all) = (self.pieces_wrong, self.pieces_wrong + self.pieces_right);
            return Some(format!(
                "{} served wrong data: {wrong} of {} failed the hash, first of all piece {piece}; \
                 check the seeder's files",
                self.target,
                Counted(all, "piece")
            ));
        }
        let most = self.errors.first().map(|error| error.reason.as_str());
        let most = self.ended_early.or(most).unwrap_or("it stopped serving");
        if let Some(wanted) = self.bytes_wanted
            && self.bytes < wanted
        {
            let (served, wanted) = (ByteSize(self.bytes), ByteSize(wanted));
            return Some(format!("{} served {served} of {wanted}: {most}", self.target));
        }
        (self.reached.lost == self.connections)
            .then(|| format!("{} ended all {}: {most}", self.target, Counted(self.connections, "connection")))
    }

    fn why_nothing(&self) -> String {
        let Reached { handshaken, unchoked, .. } = self.reached;
        match self.errors.first() {
            Some(error) if error.connections == self.connections || handshaken == 0 => error.reason.clone(),
            _ if handshaken == 0 => "it accepted no handshake".into(),
            _ if unchoked == 0 => {
                let waited = self.elapsed_seconds;
                format!("it kept all {} choked for {waited:.0} s", Counted(handshaken, "connection"))
            }
            _ => format!("it unchoked {} but sent no block", Counted(unchoked, "connection")),
        }
    }
}

impl Reached {
    fn of(outcomes: &[ConnectionOutcome]) -> Self {
        let count = |which: fn(&ConnectionOutcome) -> bool| outcomes.iter().filter(|o| which(o)).count();
        Self {
            connected: count(|o| o.milestones.connected.is_some()),
            handshaken: count(|o| o.milestones.handshaken.is_some()),
            unchoked: count(|o| o.milestones.unchoked.is_some()),
            served: count(|o| o.bytes > 0),
            lost: count(|o| o.ending != Ending::Finished),
        }
    }
}

impl Latency {
    fn of(nanos: &Histogram<u64>) -> Self {
        let micros = |quantile: f64| nanos.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50_us: micros(0.5),
            p90_us: micros(0.9),
            p99_us: micros(0.99),
            p999_us: micros(0.999),
            max_us: nanos.max() as f64 / 1e3,
            mean_us: if nanos.is_empty() { 0.0 } else { nanos.mean() / 1e3 },
        }
    }
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        match (values.first(), values.get(values.len() / 2), values.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { min, median, max },
            _ => Self::default(),
        }
    }
}

impl ConnectionSpread {
    fn of(mut bytes: Vec<u64>) -> Self {
        bytes.sort_unstable();
        match (bytes.first(), bytes.get(bytes.len() / 2), bytes.last()) {
            (Some(&min), Some(&median), Some(&max)) => Self { min, median, max, jain: jain(&bytes) },
            _ => Self::default(),
        }
    }
}

/// (Σx)² / (n Σx²), from Jain, Chiu, Hawe, "A Quantitative Measure of Fairness" (1984). Nothing for nobody
/// is fair: 1.
fn jain(shares: &[u64]) -> f64 {
    let sum: f64 = shares.iter().map(|&share| share as f64).sum();
    let squares: f64 = shares.iter().map(|&share| share as f64 * share as f64).sum();
    if squares > 0.0 { sum * sum / (shares.len() as f64 * squares) } else { 1.0 }
}

/// Transmission takes one connection of an address and closes the others without a word.
fn takes_one_of_an_address(options: &Options, outcomes: &[ConnectionOutcome]) -> Option<String> {
    let addresses = usize::from(options.source_addresses.max(1));
    let handshaken = outcomes.iter().filter(|outcome| outcome.milestones.handshaken.is_some()).count();
    let turned_away = |outcome: &&ConnectionOutcome| {
        let is_closed = matches!(outcome.ending, Ending::ClosedByTarget | Ending::Io(Errno::CONNRESET));
        is_closed && outcome.milestones.connected.is_some() && outcome.milestones.handshaken.is_none()
    };
    let turned_away = outcomes.iter().filter(turned_away).count();
    (turned_away > 0 && handshaken > 0 && handshaken <= addresses && handshaken + turned_away == outcomes.len()).then(|| {
        format!(
            "the target took {handshaken} of {} and closed the others before their handshake: it may take one \
             of an address, as Transmission does; --source-addresses N gives them more on loopback",
            Counted(outcomes.len(), "connection")
        )
    })
}

fn count_errors(outcomes: &[ConnectionOutcome]) -> Vec<ErrorCount> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.ending != Ending::Finished) {
        *counts.entry(outcome.ending.to_string()).or_default() += 1;
    }
    let mut errors: Vec<_> =
        counts.into_iter().map(|(reason, connections)| ErrorCount { reason, connections }).collect();
    errors.sort_by_key(|error| std::cmp::Reverse(error.connections));
    errors
}

impl fmt::Display for Report {
    /// A table, one fact a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rate = ByteRate(self.bytes_per_second as u64);
        let (reached, latency, share) = (&self.reached, &self.latency, &self.per_connection);
        writeln!(f, "target        {} ({})", self.target, self.info_hash)?;
        write!(f, "connections   {} asked, {} connected, ", self.connections, reached.connected)?;
        writeln!(f, "{} unchoked, {} served, {} lost", reached.unchoked, reached.served, reached.lost)?;
        writeln!(f, "received      {} in {:.3} s", ByteSize(self.bytes), self.served_seconds)?;
        writeln!(f, "throughput    {rate}, {:.0} blocks/s", self.blocks_per_second)?;
        write!(f, "latency       p50 {}, p90 {}, ", Micros(latency.p50_us), Micros(latency.p90_us))?;
        write!(f, "p99 {}, p99.9 {}, ", Micros(latency.p99_us), Micros(latency.p999_us))?;
        writeln!(f, "max {}", Micros(latency.max_us))?;
        for (name, spread) in
            [("connect", self.connect_ms), ("handshake", self.handshake_ms), ("unchoke", self.unchoke_ms)]
        {
            let [min, median, max] = [spread.min, spread.median, spread.max].map(|ms| Micros(ms * 1e3));
            writeln!(f, "{name:<13} min {min}, median {median}, max {max}")?;
        }
        let [min, median, max] = [share.min, share.median, share.max].map(ByteSize);
        writeln!(f, "each got      min {min}, median {median}, max {max}, Jain {:.4}", share.jain)?;
        write!(f, "choked        {:.1} s in all, {}, ", self.choked_seconds, Counted(self.chokes, "choke"))?;
        writeln!(
            f,
            "{}, {} not asked for",
            Counted(self.rejects, "reject"),
            Counted(self.unrequested_blocks, "block")
        )?;
        if self.verified {
            writeln!(
                f,
                "verified      {} right, {} wrong",
                Counted(self.pieces_right, "piece"),
                self.pieces_wrong
            )?;
        }
        let (cpu, per_gib) = (self.own_cpu_seconds, self.own_cpu_seconds_per_gib);
        write!(f, "own CPU       {cpu:.3} s, {per_gib:.3} s for each GiB")?;
        for error in &self.errors {
            write!(f, "\nlost          {}: {}", error.connections, error.reason)?;
        }
        if self.interrupted {
            write!(f, "\nended         by its user, before its time")?;
        }
        match &self.note {
            Some(note) => write!(f, "\nnote          {note}"),
            None => Ok(()),
        }
    }
}

/// Microseconds with a unit that suits.
struct Micros(f64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            micros if micros < 1e3 => write!(f, "{micros:.0} µs"),
            micros if micros < 1e6 => write!(f, "{:.2} ms", micros / 1e3),
            micros => write!(f, "{:.2} s", micros / 1e6),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::InfoHash;
    use crate::load::{Content, Order, Until};

    fn outcome(bytes: u64, ending: Ending) -> ConnectionOutcome {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        ConnectionOutcome {
            milestones: Milestones {
                started: at(1000),
                connected: Some(at(1001)),
                handshaken: Some(at(1003)),
                unchoked: Some(at(2003)),
            },
            bytes,
            choked: Duration::from_secs(1),
            ending,
        }
    }

    fn refused() -> ConnectionOutcome {
        ConnectionOutcome {
            milestones: Milestones::default(),
            bytes: 0,
            choked: Duration::ZERO,
            ending: Ending::Io(Errno::CONNREFUSED),
        }
    }

    fn report(tally: &Tally, outcomes: &[ConnectionOutcome], until: Until) -> Report {
        let target = Target {
            address: ([127, 0, 0, 1], 6881).into(),
            info_hash: InfoHash([1; 20]),
            content: Content::new(4, 4, vec![[0; 20]].into()).unwrap(),
        };
        let options = Options {
            connections: outcomes.len(),
            depth: 8,
            until,
            verify: false,
            order: Order::Random,
            rate: None,
            threads: 1,
            pin: Vec::new(),
            seed: 0,
            source_addresses: 1,
            burst: 4,
            discard: false,
            encryption: None,
            receive_buffer: None,
        };
        let finished = Instant::ZERO + Duration::from_secs(9);
        let started = Instant::ZERO + Duration::from_secs(1);
        let cpu = Duration::from_secs(2);
        Report::new(
            &target,
            &options,
            &Measured { started, finished, tally, outcomes, cpu, interrupted: false },
        )
    }

    const TEN_SECONDS: Until = Until { elapsed: Duration::from_secs(10), bytes: None };

    #[test]
    fn rates_are_over_the_time_from_the_first_unchoke_to_the_last_block() {
        let mut tally = Tally::default();
        for millis in [3000, 4003] {
            let at = Instant::ZERO + Duration::from_millis(millis);
            tally.record_block(at, 1 << 29, Some(at - Duration::from_millis(5)));
        }
        let report = report(&tally, &[outcome(1 << 30, Ending::Finished)], TEN_SECONDS);
        assert_eq!((report.served_seconds, report.elapsed_seconds), (2.0, 8.0));
        assert_eq!((report.bytes_per_second, report.blocks_per_second), (f64::from(1 << 29), 1.0));
        assert_eq!(report.own_cpu_seconds_per_gib, 2.0);
        assert_eq!(report.handshake_ms, Spread { min: 2.0, median: 2.0, max: 2.0 });
        assert_eq!(report.unchoke_ms.median, 1000.0);
        assert!((4990.0..5010.0).contains(&report.latency.p50_us), "{}", report.latency.p50_us);
        assert_eq!(report.complaint(), None);
    }

    #[test]
    fn jains_index_is_one_for_equal_shares_and_one_nth_for_a_single_winner() {
        assert_eq!(jain(&[5, 5, 5, 5]), 1.0);
        assert_eq!(jain(&[8, 0, 0, 0]), 0.25);
        assert_eq!((jain(&[]), jain(&[0, 0])), (1.0, 1.0));
        assert_eq!(jain(&[1, 3]), 0.8);
    }

    #[test]
    fn a_target_that_refuses_is_said_to_refuse() {
        let report = report(&Tally::default(), &[refused(), refused()], TEN_SECONDS);
        assert_eq!(report.errors[0].connections, 2);
        let complaint = report.complaint().unwrap();
        assert_eq!(complaint, "127.0.0.1:6881 served nothing: nothing listens there (connection refused)");
    }

    #[test]
    fn wrong_data_and_too_little_of_it_are_complaints() {
        let mut tally = Tally::default();
        tally.record_block(Instant::from_nanos(7), 100, None);
        let outcomes = [outcome(100, Ending::ClosedByTarget)];
        let short =
            report(&tally, &outcomes, Until { bytes: Some(2048), ..TEN_SECONDS }).complaint().unwrap();
        assert!(short.contains("served 100 B of 2.0 KiB: the target closed the connection"), "{short}");
        let lost = report(&tally, &outcomes, TEN_SECONDS).complaint().unwrap();
        assert!(lost.contains("ended all 1 connection:"), "{lost}");
        tally.record_piece(crate::units::PieceIndex(3), false);
        let wrong = report(&tally, &outcomes, TEN_SECONDS).complaint().unwrap();
        assert!(wrong.contains("1 of 1 piece failed the hash, first of all piece 3"), "{wrong}");
    }

    #[test]
    fn a_run_for_bytes_that_its_time_ended_says_so() {
        let mut tally = Tally::default();
        tally.record_block(Instant::from_nanos(7), 100, None);
        let until = Until { elapsed: Duration::from_secs(5), bytes: Some(2048) };
        let slow = report(&tally, &[outcome(100, Ending::Finished)], until).complaint().unwrap();
        assert!(slow.contains("served 100 B of 2.0 KiB: its time was up; --duration"), "{slow}");
    }

    #[test]
    fn a_target_that_takes_one_connection_of_an_address_is_recognised() {
        let turned_away = || {
            let mut outcome = outcome(0, Ending::ClosedByTarget);
            (outcome.milestones.handshaken, outcome.milestones.unchoked) = (None, None);
            outcome
        };
        let served = || outcome(100, Ending::Finished);
        let note = |outcomes: &[ConnectionOutcome]| report(&Tally::default(), outcomes, TEN_SECONDS).note;
        let said = note(&[served(), turned_away(), turned_away()]).unwrap();
        assert!(said.contains("took 1 of 3 connections") && said.contains("--source-addresses"), "{said}");
        assert_eq!(note(&[served()]), None);
        assert_eq!(note(&[served(), served(), turned_away()]), None);
        assert_eq!(note(&[turned_away(), turned_away()]), None);
        assert_eq!(note(&[served(), refused()]), None);
    }

    #[test]
    fn the_table_names_every_figure() {
        let mut tally = Tally::default();
        tally.record_block(Instant::ZERO + Duration::from_secs(4), 1 << 20, Some(Instant::ZERO));
        let text = report(&tally, &[outcome(1 << 20, Ending::Finished), refused()], TEN_SECONDS).to_string();
        for line in
            ["received      1.0 MiB in 1.997 s", "max 4.00 s", "Jain 1.0000", "lost          1: nothing"]
        {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
    }
}
