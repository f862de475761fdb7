//! Swarms drawn from a seed: content, peers, lines, manners, policies, departures and faults, all of them by chance.
//!
//! A run has two phases. In the first everything may go wrong, and what must hold at every moment is checked
//! ([`Property`]). In the second nothing goes wrong any more, an honest seed is there, and everybody who can complete has
//! to, in bounded time.
//!
//! What a seed means changes whenever this file does: a test that wants to keep a swarm describes it.

use super::check::{Property, Violation};
use super::fault::Fault;
use super::terms::{ContentShape, Departure, Hostility, Manner, PeerNumber, PeerTerms, Policies};
use super::{Outcome, Swarm};
use crate::bitfield::Bitfield;
use crate::choker::Slots;
use crate::picker::Order;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, ByteRate, ByteSize, PieceIndex};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Blocks of the content, times peers that want it, so that a run takes a fraction of a second.
const BLOCKS_MOVED_MAX: u64 = 3000;
/// Time that everybody who can complete has for it beyond what the lines take: bans end, and so does the longest patience
/// with an address that did not answer.
const PATIENCE: Duration = Duration::from_secs(6 * 60 * 60);
/// A run is looked at in steps of so long.
const STEP: Duration = Duration::from_secs(10);

/// A swarm that was drawn.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// From this.
    pub seed: u64,
    /// What is shared.
    pub shape: ContentShape,
    /// What all do alike.
    pub policies: Policies,
    /// The participants; the first is an honest seed.
    pub peers: Vec<PeerTerms>,
    /// What goes wrong, and when.
    pub faults: Vec<(Instant, Fault)>,
    /// Everything is counted anew after so many events.
    pub check_every: u32,
    /// Nothing goes wrong from then on.
    pub calm_at: Instant,
    /// By then everybody who can has completed.
    pub limit: Instant,
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// What did not hold, if anything.
    pub violation: Option<Violation>,
    /// When the run ended.
    pub ended: Instant,
    /// Events that happened.
    pub events: u64,
    /// How often everything was counted anew.
    pub recounts: u64,
    /// A hash of all that happened.
    pub trace: u64,
    /// What happened, in words, if that was wanted: the last of it.
    pub story: Vec<(Instant, String)>,
    /// What became of each peer.
    pub outcomes: Vec<Outcome>,
}

/// A number from `least` to `most`, those of each power of two alike. By integers, which are the same on every machine.
fn magnitude(rng: &mut Rng, least: u64, most: u64) -> u64 {
    let (lowest, highest) = (least.max(1).ilog2(), most.max(1).ilog2());
    let power = lowest + rng.below(u64::from(highest - lowest) + 1) as u32;
    let (from, to) = ((1 << power).max(least), (u64::MAX >> (63 - power)).min(most));
    from + rng.below(to - from + 1)
}

fn one_in(rng: &mut Rng, count: u64) -> bool {
    rng.below(count) == 0
}

fn seconds(rng: &mut Rng, least: u64, most: u64) -> Duration {
    Duration::from_millis(magnitude(rng, least * 1000, most * 1000))
}

fn moment(rng: &mut Rng, before: Instant) -> Instant {
    Instant::from_nanos(rng.below(before.as_nanos().max(1)))
}

fn shape(rng: &mut Rng, leeches: u64) -> ContentShape {
    let blocks_most = (BLOCKS_MOVED_MAX / leeches.max(1)).max(8);
    let blocks_each = 1_u64 << rng.below(5);
    let pieces_most = (blocks_most / blocks_each).clamp(1, 400);
    let pieces = if one_in(rng, 8) { 1 } else { magnitude(rng, 1, pieces_most) };
    // Of three one has pieces that are no whole number of blocks; some of them have less than a block.
    let short = if one_in(rng, 3) { 1 + rng.below(u64::from(BLOCK_LEN) - 1) as u32 } else { 0 };
    let piece_length = blocks_each as u32 * BLOCK_LEN - short;
    // The last piece has at least a byte.
    let cut = match rng.below(3) {
        0 => 0,
        1 => rng.below(u64::from(BLOCK_LEN.min(piece_length))),
        _ => rng.below(u64::from(piece_length)),
    };
    ContentShape { piece_length, total_len: pieces * u64::from(piece_length) - cut }
}

fn policies(rng: &mut Rng, connections_max: usize) -> Policies {
    let slots = |rng: &mut Rng| match rng.below(3) {
        0 => Slots::Auto,
        _ => Slots::Fixed(magnitude(rng, 1, 10) as usize),
    };
    Policies {
        order: [Order::RarestFirst, Order::RarestFirst, Order::Sequential, Order::Random][rng.index(4)],
        slots: slots(rng),
        seed_slots: slots(rng),
        super_seed: one_in(rng, 4),
        connections_max,
        optimistic: !one_in(rng, 8),
    }
}

fn manner(rng: &mut Rng) -> Manner {
    match rng.below(9) {
        0 => Manner::FreeRider,
        1 => Manner::Staller,
        8 => Manner::Deserter,
        2 => Manner::Liar(magnitude(rng, 1, 1000) as u16),
        3 => Manner::Garbler,
        _ => Manner::Hostile(Hostility::ALL[rng.index(Hostility::ALL.len())]),
    }
}

fn some_pieces(rng: &mut Rng, count: u32) -> Bitfield {
    let share = rng.below(1000);
    let mut pieces = Bitfield::none(count);
    for piece in (0..count).map(PieceIndex) {
        if rng.below(1000) < share {
            pieces.insert(piece);
        }
    }
    pieces
}

fn departure(rng: &mut Rng, calm_at: Instant) -> Departure {
    match rng.below(6) {
        0 => Departure::AfterCompletion(seconds(rng, 1, 600)),
        1 => Departure::At { at: moment(rng, calm_at), away: Some(seconds(rng, 1, 600)) },
        2 if one_in(rng, 2) => Departure::At { at: moment(rng, calm_at), away: None },
        3 if one_in(rng, 3) => Departure::AfterCopies(magnitude(rng, 100, 3000) as u32),
        _ => Departure::Never,
    }
}

fn fault(rng: &mut Rng, peers: u64, calm_at: Instant) -> (Instant, Fault) {
    let at = moment(rng, calm_at);
    let left = calm_at.since(at);
    let lasts = seconds(rng, 1, 400).min(left);
    let peer = PeerNumber(rng.below(peers) as u32);
    // The first peer's pieces are what completes all others.
    let keeps = if peer.0 == 0 || one_in(rng, 3) { 1000 } else { rng.below(1001) as u16 };
    let fault = match rng.below(8) {
        0..=2 => Fault::Break(peer),
        3 => Fault::Stall(peer, lasts),
        4 => Fault::TrackerSilent(lasts),
        5 => Fault::Death { peer, away: lasts, keeps },
        6 => Fault::StorageRefuses(peer, lasts),
        _ => Fault::StorageSlow { peer, takes: seconds(rng, 1, 30), lasts },
    };
    (at, fault)
}

impl Drawn {
    /// The swarm of that seed.
    pub fn from_seed(seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed ^ 0x5eed_0f5e_ed5e_ed00);
        let rng = &mut rng;
        let leeches = magnitude(rng, 1, 24);
        let shape = shape(rng, leeches);
        let pieces = shape.piece_count();
        let calm_at = Instant::ZERO + seconds(rng, 5, 900);
        let all_honest = one_in(rng, 3);
        // With fewer places than peers, those of bad manners could keep others out for ever.
        let least = if all_honest { 6 } else { leeches + 4 };
        let connections_max = if one_in(rng, 2) { 80 } else { magnitude(rng, least, 80) as usize };
        let policies = policies(rng, connections_max);
        let line = |rng: &mut Rng, have: Bitfield, least: u64| {
            let up = magnitude(rng, least, 4_000_000);
            let down = (!one_in(rng, 3)).then(|| ByteRate(up.saturating_mul(magnitude(rng, 1, 20))));
            let delay = Duration::from_millis(rng.below(200));
            PeerTerms { down, delay, ..PeerTerms::new(ByteRate(up), have) }
        };
        let arrives = |rng: &mut Rng| if one_in(rng, 2) { Instant::ZERO } else { moment(rng, calm_at) };
        let late = Some(calm_at).filter(|_| one_in(rng, 6));
        let first = line(rng, Bitfield::all(pieces), 100_000);
        let mut peers = vec![PeerTerms { arrives: late.unwrap_or(Instant::ZERO), ..first }];
        for _ in 0..leeches {
            let have = match rng.below(12) {
                0 => Bitfield::all(pieces),
                1 | 2 => some_pieces(rng, pieces),
                _ => Bitfield::none(pieces),
            };
            let mut peer = line(rng, have, 10_000);
            peer.manner = if all_honest || !one_in(rng, 3) { Manner::Honest } else { manner(rng) };
            peer.arrives = arrives(rng);
            peer.departs = departure(rng, calm_at);
            peers.push(peer);
        }
        let count = if one_in(rng, 4) { 0 } else { magnitude(rng, 1, 16) };
        let mut faults: Vec<_> = (0..count).map(|_| fault(rng, leeches + 1, calm_at)).collect();
        faults.sort_by_key(|(at, _)| *at);
        let moved = shape.total_len.saturating_mul(leeches);
        let slowest = peers.iter().map(|peer| peer.up.0).min().unwrap_or(1).max(1);
        let limit = calm_at + PATIENCE + Duration::from_secs(20 * moved / slowest);
        // A recount looks at every piece of every connection.
        let cost = u64::from(pieces) * leeches * leeches;
        let check_every = (1 + cost / 400 + rng.below(1 + cost / 100)).min(2000) as u32;
        Self { seed, shape, policies, peers, faults, check_every, calm_at, limit }
    }

    /// The swarm before anything has happened.
    pub fn swarm(&self) -> Swarm {
        let mut swarm = Swarm::new(self.seed, self.shape, self.policies, self.peers.clone());
        swarm.check_every(self.check_every);
        self.faults.iter().for_each(|&(at, fault)| swarm.plan(at, fault));
        swarm
    }

    /// Runs it to its end; `None` when `cancel` became true before.
    pub fn run(&self, story: bool, cancel: &AtomicBool) -> Option<Report> {
        let mut swarm = self.swarm();
        if story {
            swarm.keep_story();
        }
        let mut violation = None;
        loop {
            let until = swarm.now() + STEP;
            let is_calm = swarm.now() >= self.calm_at;
            swarm.run_on(if is_calm { until } else { until.min(self.calm_at) });
            if cancel.load(Relaxed) {
                return None;
            }
            violation = violation.or_else(|| swarm.violation().cloned());
            let lacking = swarm.lacking().find(|&peer| self.can_complete(peer));
            if violation.is_some() || (is_calm && lacking.is_none()) {
                // The last of what happened is looked at, too.
                swarm.recount();
                violation = violation.or_else(|| swarm.violation().cloned());
                break;
            }
            if let Some(peer) = lacking.filter(|_| swarm.now() >= self.limit) {
                let has = self.pieces_of(&swarm, peer);
                let what = format!("it has {has} of {} pieces", self.shape.piece_count());
                let (property, at) = (Property::EverybodyCompletes, swarm.now());
                violation = Some(Violation { property, at, peer, what });
                break;
            }
        }
        Some(Report {
            violation,
            ended: swarm.now(),
            events: swarm.happened(),
            recounts: swarm.recounts(),
            trace: swarm.trace(),
            story: swarm.story().to_vec(),
            outcomes: swarm.outcomes().collect(),
        })
    }

    /// Whether nobody has a reason to keep that peer from completing.
    fn can_complete(&self, peer: PeerNumber) -> bool {
        let manner = self.peers.get(peer.0 as usize).map(|peer| peer.manner);
        matches!(manner, Some(Manner::Honest | Manner::FreeRider | Manner::Staller))
    }

    fn pieces_of(&self, swarm: &Swarm, peer: PeerNumber) -> u32 {
        swarm.outcomes().nth(peer.0 as usize).map_or(0, |outcome| outcome.pieces)
    }
}

impl fmt::Display for Drawn {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (shape, policies) = (self.shape, &self.policies);
        writeln!(
            out,
            "seed {}: {} pieces of {}, {} bytes in all; {} peers",
            self.seed,
            shape.piece_count(),
            ByteSize(u64::from(shape.piece_length)),
            shape.total_len,
            self.peers.len()
        )?;
        writeln!(out, "all do alike: {policies:?}")?;
        for (number, peer) in self.peers.iter().enumerate() {
            write!(
                out,
                "peer {number}: {:?}, {} pieces, up {} B/s",
                peer.manner,
                peer.have.count(),
                peer.up.0
            )?;
            if let Some(down) = peer.down {
                write!(out, ", down {} B/s", down.0)?;
            }
            let arrives = peer.arrives.as_nanos() as f64 / 1e9;
            write!(out, ", delay {} ms, comes at {arrives:.1} s", peer.delay.as_millis())?;
            match peer.departs {
                Departure::Never => writeln!(out)?,
                Departure::AfterCompletion(time) => {
                    writeln!(out, ", leaves {:.1} s after completion", time.as_secs_f64())?;
                }
                Departure::AfterCopies(copies) => writeln!(out, ", leaves after {copies}/1000 copies")?,
                Departure::At { at, away } => {
                    let (at, away) = (at.as_nanos() as f64 / 1e9, away.map(|away| away.as_secs_f64()));
                    writeln!(out, ", leaves at {at:.1} s for {away:?} s")?;
                }
            }
        }
        for (at, fault) in &self.faults {
            writeln!(out, "at {:.1} s: {fault}", at.as_nanos() as f64 / 1e9)?;
        }
        let calm_at = self.calm_at.as_nanos() as f64 / 1e9;
        writeln!(out, "calm from {calm_at:.1} s on; counted anew every {} events", self.check_every)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_swarms_and_runs() {
        let run =
            |seed| Drawn::from_seed(seed).run(false, &AtomicBool::new(false)).map(|report| report.trace);
        assert_eq!(Drawn::from_seed(3).to_string(), Drawn::from_seed(3).to_string());
        assert_eq!(run(3), run(3));
        assert_ne!(run(3), run(4));
    }

    #[test]
    fn pieces_of_every_kind_are_drawn() {
        let mut rng = Rng::from_seed(1);
        let lengths: Vec<u32> = (0..200).map(|_| shape(&mut rng, 4).piece_length).collect();
        assert!(lengths.iter().any(|len| len.is_multiple_of(BLOCK_LEN)), "whole blocks");
        assert!(lengths.iter().any(|&len| len < BLOCK_LEN), "less than a block");
        let ends_short = |&len: &u32| len > BLOCK_LEN && !len.is_multiple_of(BLOCK_LEN);
        assert!(lengths.iter().any(ends_short), "a short last block");
    }

    #[test]
    fn whatever_is_drawn_makes_sense() {
        for seed in 0..2000 {
            let drawn = Drawn::from_seed(seed);
            assert!(drawn.shape.piece_count() > 0 && drawn.shape.total_len > 0, "{drawn}");
            assert!(drawn.peers[0].have.is_full() && drawn.peers[0].manner == Manner::Honest, "{drawn}");
            assert!(drawn.faults.iter().all(|(at, _)| *at < drawn.calm_at), "{drawn}");
        }
    }

    /// A few seeds of the many that `tools/soak` runs.
    #[test]
    fn what_must_hold_holds_in_swarms_drawn_by_chance() {
        for seed in 0..24 {
            let report = Drawn::from_seed(seed).run(false, &AtomicBool::new(false)).expect("nobody cancels");
            let replay = format!("seedring lab check --seed {seed}");
            assert!(report.violation.is_none(), "{}\n{replay}", report.violation.expect("there is one"));
        }
    }
}
