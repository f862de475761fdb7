//! One file, one seed, N peers that come at once: how long until everybody has it.
//!
//! A swarm of many blocks is simulated at a smaller scale: size and rates are divided by the same number, so that times
//! stay what they are, while rounds, delays and the number of pieces remain those of the whole, as far as pieces still have
//! a block. Few peers are simulated as they are.

use super::bounds::Fluid;
use super::middle_and_last;
use crate::bitfield::Bitfield;
use crate::metainfo::builder::default_piece_length;
use crate::pipeline::burst_for;
use crate::sim::swarm::{ContentShape, PeerTerms, Policies, Swarm};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, ByteRate};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Blocks that all peers together receive in a simulation, as far as each may have a content of `BLOCKS_LEAST`.
const BLOCKS_OF_ALL: u64 = 1 << 18;
/// Blocks of the content that are simulated in any case.
const BLOCKS_LEAST: u64 = 8192;
/// Blocks of the content that are simulated at most.
const BLOCKS_MAX: u64 = 32_768;
/// Pieces of it.
const PIECES_MAX: u64 = 1024;
/// A run is given up after so many times the bound, and an hour.
const PATIENCE: u32 = 20;

/// Peers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerClass {
    /// What it is called.
    pub name: String,
    /// Its share of all peers, relative to the other classes' shares.
    pub share: u32,
    /// Bytes a second that each can send.
    pub up: ByteRate,
    /// Bytes a second that each can receive; `None` for no bound.
    pub down: Option<ByteRate>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Bytes of the file.
    pub size: u64,
    /// Bytes a second that the seed can send.
    pub server_up: ByteRate,
    /// Who wants the file; at least one class, and shares that are not all zero.
    pub classes: Vec<PeerClass>,
    /// Time of a byte from a peer's line into the net.
    pub delay: Duration,
    /// The rates are limits that programs keep, which let a burst pass after a pause, rather than lines.
    pub bursts: bool,
}

/// What a simulated run came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The seed of its chance.
    pub seed: u64,
    /// The median of the times when peers had everything, in seconds; `None` when half of them never did.
    pub median: Option<f64>,
    /// When the last peer had everything.
    pub slowest: Option<f64>,
    /// Copies that the seed gave away.
    pub seed_copies: f64,
    /// A hash of all that happened.
    pub trace: u64,
    /// Events that happened.
    pub events: u64,
}

impl Question {
    /// How many of `peers` are of each class: shares, and what they leave goes to the first classes.
    pub fn counts(&self, peers: u32) -> Vec<u32> {
        counts(&self.classes, peers)
    }

    /// What the formulas say of so many peers.
    pub fn fluid(&self, peers: u32) -> Fluid {
        fluid(self.size, self.server_up, &self.classes, peers)
    }

    /// By what size and rates are divided in a simulation of so many peers.
    pub fn scale(&self, peers: u32) -> u64 {
        let blocks_max = (BLOCKS_OF_ALL / u64::from(peers.max(1))).clamp(BLOCKS_LEAST, BLOCKS_MAX);
        self.size.div_ceil(u64::from(BLOCK_LEN)).div_ceil(blocks_max).max(1)
    }

    /// The content as it is simulated: pieces as the product makes them, divided like the rest, and not too many.
    fn shape(&self, scale: u64) -> ContentShape {
        let total_len = (self.size / scale).max(1);
        let blocks = total_len.div_ceil(u64::from(BLOCK_LEN));
        let usual = u64::from(default_piece_length(self.size)) / scale / u64::from(BLOCK_LEN);
        let blocks_each = usual.max(blocks.div_ceil(PIECES_MAX)).max(1);
        ContentShape { piece_length: blocks_each as u32 * BLOCK_LEN, total_len }
    }

    /// Simulates it. `None` when `cancel` became true before the end.
    pub fn simulate(&self, peers: u32, seed: u64, policies: Policies, cancel: &AtomicBool) -> Option<Run> {
        let scale = self.scale(peers);
        let shape = self.shape(scale);
        let scaled = |rate: ByteRate| ByteRate((rate.0 / scale).max(1));
        let burst_of = |rate: ByteRate| {
            let seconds = burst_for(Some(rate)) as f64 / rate.0.max(1) as f64;
            if self.bursts { Duration::from_secs_f64(seconds) } else { Duration::ZERO }
        };
        let terms = |up: ByteRate, down: Option<ByteRate>, have: Bitfield| PeerTerms {
            down: down.map(scaled),
            burst: burst_of(up),
            delay: self.delay,
            ..PeerTerms::new(scaled(up), have)
        };
        let mut everybody = vec![terms(self.server_up, None, Bitfield::all(shape.piece_count()))];
        for (class, count) in self.classes.iter().zip(self.counts(peers)) {
            let peer = terms(class.up, class.down, Bitfield::none(shape.piece_count()));
            everybody.extend((0..count).map(|_| peer.clone()));
        }
        let mut swarm = Swarm::new(seed, shape, policies, everybody);
        let bound = self.fluid(peers).client_server().unwrap_or(Duration::MAX / PATIENCE);
        let limit = Instant::ZERO + (bound.saturating_mul(PATIENCE) + Duration::from_secs(3600));
        let least = self.fluid(peers).peer_to_peer().unwrap_or(bound);
        let step = (least / 100).clamp(Duration::from_millis(100), Duration::from_secs(600));
        let mut is_over = false;
        while !is_over {
            if cancel.load(Relaxed) {
                return None;
            }
            is_over = swarm.run_until((swarm.now() + step).min(limit)) || swarm.now() >= limit;
        }
        let completed_at = swarm.outcomes().skip(1).map(|peer| peer.completed_at);
        let (median, slowest) =
            middle_and_last(completed_at.map(|at| Some(at?.since(Instant::ZERO).as_secs_f64())));
        let given = swarm.outcomes().next().map_or(0, |seed| seed.given);
        Some(Run {
            seed,
            median,
            slowest,
            seed_copies: given as f64 / shape.total_len as f64,
            trace: swarm.trace(),
            events: swarm.happened(),
        })
    }
}

/// A file, its server, and `peers` peers of these classes.
pub(super) fn fluid(size: u64, server_up: ByteRate, classes: &[PeerClass], peers: u32) -> Fluid {
    let counts = counts(classes, peers);
    let present = || classes.iter().zip(&counts).filter(|(_, count)| **count > 0);
    let up = present().map(|(class, &count)| class.up.0.saturating_mul(u64::from(count)));
    Fluid {
        size,
        server_up,
        peers: u64::from(peers),
        peers_up: ByteRate(up.fold(0, u64::saturating_add)),
        slowest_down: present().filter_map(|(class, _)| class.down).min(),
    }
}

/// How many of `peers` are of each class: shares, and what they leave goes to the first classes.
pub(super) fn counts(classes: &[PeerClass], peers: u32) -> Vec<u32> {
    let shares: u64 = classes.iter().map(|class| u64::from(class.share)).sum();
    let part = |class: &PeerClass| u64::from(peers) * u64::from(class.share) / shares.max(1);
    let mut counts: Vec<u32> = classes.iter().map(|class| part(class) as u32).collect();
    let mut left = peers - counts.iter().sum::<u32>();
    for (count, class) in counts.iter_mut().zip(classes) {
        if left > 0 && class.share > 0 {
            *count += 1;
            left -= 1;
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn class(name: &str, share: u32, up: u64, down: Option<u64>) -> PeerClass {
        PeerClass { name: name.into(), share, up: ByteRate(up), down: down.map(ByteRate) }
    }

    fn question(classes: Vec<PeerClass>) -> Question {
        let delay = Duration::from_millis(5);
        Question { size: 64 << 20, server_up: ByteRate(8_000_000), classes, delay, bursts: false }
    }

    #[test]
    fn a_swarm_stays_above_its_bound_and_not_far() {
        let question = question(vec![class("peers", 1, 1_000_000, None)]);
        let run = question.simulate(10, 1, Policies::default(), &AtomicBool::new(false)).unwrap();
        let bound = question.fluid(10).peer_to_peer().unwrap().as_secs_f64();
        let slowest = run.slowest.unwrap();
        assert!(slowest >= bound && slowest < bound * 1.5, "{slowest} against {bound}");
        assert!(run.median.unwrap() <= slowest);
        let again = question.simulate(10, 1, Policies::default(), &AtomicBool::new(false)).unwrap();
        assert_eq!(run, again);
        assert_eq!(question.simulate(10, 1, Policies::default(), &AtomicBool::new(true)), None);
    }

    #[test]
    fn limits_with_a_burst_are_done_sooner_by_its_time_and_no_more() {
        let lines = question(vec![class("peers", 1, 8_000_000, Some(8_000_000))]);
        let limits = Question { bursts: true, ..lines.clone() };
        let slowest = |question: &Question| {
            let run = question.simulate(1, 1, Policies::default(), &AtomicBool::new(false)).unwrap();
            run.slowest.unwrap()
        };
        // A quarter of a second on either side, one of which hides behind the other.
        let sooner = slowest(&lines) - slowest(&limits);
        assert!((0.2..0.3).contains(&sooner), "{sooner}");
    }

    #[test]
    fn the_slowest_class_that_is_there_bounds_the_reception() {
        let question = question(vec![class("fast", 3, 10, Some(100)), class("slow", 1, 1, Some(5))]);
        assert_eq!(question.counts(8), [6, 2]);
        assert_eq!(question.fluid(8).peers_up, ByteRate(62));
        assert_eq!(question.fluid(8).slowest_down, Some(ByteRate(5)));
        assert_eq!(question.fluid(1).slowest_down, Some(ByteRate(100)));
    }

    proptest! {
        #[test]
        fn everybody_is_of_some_class(
            shares in prop::collection::vec(0_u32..1000, 1..6), peers in 0_u32..100_000,
        ) {
            prop_assume!(shares.iter().any(|&share| share > 0));
            let classes: Vec<_> = shares.iter().map(|&share| class("x", share, 1, None)).collect();
            let counts = question(classes).counts(peers);
            prop_assert_eq!(counts.iter().sum::<u32>(), peers);
            prop_assert!(shares.iter().zip(&counts).all(|(&share, &count)| share > 0 || count == 0));
        }
    }
}
