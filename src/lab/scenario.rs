//! Scenarios: who comes to a swarm when, with which line, how it behaves, and when it goes.
//!
//! A [`Crowd`] says it in a few numbers; [`Crowd::draw`] draws every peer's terms from them and a seed, by chance of
//! its own, so that all policies that are compared meet the same peers. A [`Scenario`] is a crowd with usual numbers.
//! Arrivals that are spread over time are a Poisson process: independent people come so.
//!
//! A crowd with much content is simulated at a smaller scale, as in `distribute`: size and rates are divided by the same
//! number, so that times stay what they are.

use super::bounds::Fluid;
use super::distribute::PeerClass;
use crate::bitfield::Bitfield;
use crate::rng::Rng;
use crate::sim::swarm::{ContentShape, Departure, Manner, PeerTerms};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, ByteRate};

/// Blocks of the content that are simulated at most.
const BLOCKS_MAX: u64 = 16_384;
/// Pieces of it, unless the question says otherwise.
pub const PIECES_USUAL: u32 = 1024;
/// A flash crowd comes within this time.
const FLASH: Duration = Duration::from_secs(10);
/// Makes the chance of the terms another than the swarm's.
const TERMS_SALT: u64 = 0x7e12_5a17;
/// Of a thousand blocks of a liar so many are wrong.
const LIES: u16 = 500;

/// What kind of crowd comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// Everybody at once.
    FlashCrowd,
    /// One by one.
    Steady,
    /// Some leave and come back.
    Churn,
    /// Some give nothing.
    FreeRiders,
    /// Slow and fast lines.
    Classes,
    /// The seed goes early.
    SeedLeaves,
    /// Some send wrong bytes.
    Liars,
}

/// When a peer that has everything goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// Never.
    ForEver,
    /// After that time.
    For(Duration),
}

/// A crowd in numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct Crowd {
    /// Bytes of the content.
    pub size: u64,
    /// Pieces at most that it has, at least one.
    pub pieces: u32,
    /// Bytes a second that the seed can send.
    pub seed_up: ByteRate,
    /// The seed goes after so many thousandths of a copy; `None` for never.
    pub seed_goes_after: Option<u32>,
    /// Who comes; at least one class, and shares that are not all zero.
    pub classes: Vec<PeerClass>,
    /// How many come.
    pub peers: u32,
    /// Mean time between two arrivals; `None` for a flash crowd.
    pub arrival_gap: Option<Duration>,
    /// When those that have everything go.
    pub stay: Stay,
    /// So many of a thousand leave with what they have, and come back.
    pub leavers: u32,
    /// So many of a thousand give nothing.
    pub free_riders: u32,
    /// So many of a thousand send wrong bytes.
    pub liars: u32,
    /// Time of a byte from a peer's line into the net.
    pub delay: Duration,
}

/// Peers that are looked at together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// How many peers are of it.
    pub count: u32,
    /// Whether they do what the product does.
    pub honest: bool,
}

/// A crowd as drawn: content, groups by the class of the peers, and peers, the seed first.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// What is shared, at the scale of the simulation.
    pub shape: ContentShape,
    /// The groups; a peer's class is an index of these.
    pub groups: Vec<Group>,
    /// All peers.
    pub peers: Vec<PeerTerms>,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::FlashCrowd,
        Self::Steady,
        Self::Churn,
        Self::FreeRiders,
        Self::Classes,
        Self::SeedLeaves,
        Self::Liars,
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::FlashCrowd => "flash-crowd",
            Self::Steady => "steady",
            Self::Churn => "churn",
            Self::FreeRiders => "free-riders",
            Self::Classes => "classes",
            Self::SeedLeaves => "seed-leaves",
            Self::Liars => "liars",
        }
    }

    /// What happens in it, in a line.
    pub fn description(self) -> &'static str {
        match self {
            Self::FlashCrowd => "everybody comes within ten seconds and gives on for ever",
            Self::Steady => "peers come one by one, at random, and go some time after they have everything",
            Self::Churn => "half of a flash crowd leaves with what it has by then, and comes back later",
            Self::FreeRiders => "a fifth of a flash crowd gives nothing; whoever has everything goes",
            Self::Classes => {
                "half of a flash crowd sends four times as fast as the others; whoever has everything goes"
            }
            Self::SeedLeaves => "the seed goes when it has given 1.05 copies",
            Self::Liars => "a tenth of a flash crowd sends wrong bytes in half of its blocks",
        }
    }

    /// This kind of crowd with usual numbers: of so many peers, whose lines have the rate of `peer_up`.
    pub fn crowd(self, size: u64, seed_up: ByteRate, peer_up: ByteRate, peers: u32) -> Crowd {
        let class =
            |name: &str, up: u64| PeerClass { name: name.into(), share: 1, up: ByteRate(up), down: None };
        let mut crowd = Crowd {
            size,
            pieces: PIECES_USUAL,
            seed_up,
            seed_goes_after: None,
            classes: vec![class("peers", peer_up.0)],
            peers,
            arrival_gap: None,
            stay: Stay::ForEver,
            leavers: 0,
            free_riders: 0,
            liars: 0,
            delay: Duration::from_millis(10),
        };
        // What a peer needs when it gets as much as it gives.
        let transfer = Duration::from_secs_f64((size as f64 / peer_up.0.max(1) as f64).min(1e9));
        match self {
            Self::FlashCrowd => {}
            Self::Steady => {
                crowd.arrival_gap = Some(transfer / 20);
                crowd.stay = Stay::For(transfer / 10);
            }
            Self::Churn => crowd.leavers = 500,
            Self::FreeRiders => {
                crowd.free_riders = 200;
                crowd.stay = Stay::For(Duration::ZERO);
            }
            Self::Classes => {
                crowd.classes =
                    vec![class("slow", (peer_up.0 / 2).max(1)), class("fast", peer_up.0.saturating_mul(2))];
                crowd.stay = Stay::For(Duration::ZERO);
            }
            Self::SeedLeaves => crowd.seed_goes_after = Some(1050),
            Self::Liars => crowd.liars = 100,
        }
        crowd
    }
}

impl Crowd {
    /// By what size and rates are divided in a simulation.
    pub fn scale(&self) -> u64 {
        self.size.div_ceil(u64::from(BLOCK_LEN)).div_ceil(BLOCKS_MAX).max(1)
    }

    /// Draws everybody's terms. Equal seeds give equal terms, whatever policies meet them.
    pub fn draw(&self, seed: u64) -> Drawn {
        let mut rng = Rng::from_seed(seed ^ TERMS_SALT);
        let total_len = (self.size / self.scale()).max(1);
        let blocks = total_len.div_ceil(u64::from(BLOCK_LEN));
        let blocks_each = blocks.div_ceil(u64::from(self.pieces.max(1)));
        let shape = ContentShape { piece_length: blocks_each as u32 * BLOCK_LEN, total_len };
        let (mut groups, members) = self.members(&mut rng);
        let seed_class = groups.len() as u8;
        groups.push(Group { name: "seed".into(), count: 1, honest: true });
        let mut peers = vec![PeerTerms {
            delay: self.delay,
            class: seed_class,
            departs: self.seed_goes_after.map_or(Departure::Never, Departure::AfterCopies),
            ..PeerTerms::new(self.scaled(self.seed_up), Bitfield::all(shape.piece_count()))
        }];
        let mut arrives = Instant::ZERO;
        for (line, group, manner) in members {
            arrives = match self.arrival_gap {
                Some(gap) => arrives + exponential(gap, &mut rng),
                None => Instant::ZERO + FLASH.mul_f64(unit(&mut rng)),
            };
            let departs = self.departure(arrives, line, &mut rng);
            peers.push(PeerTerms {
                down: line.down.map(|rate| self.scaled(rate)),
                delay: self.delay,
                manner,
                class: group,
                arrives,
                departs,
                ..PeerTerms::new(self.scaled(line.up), Bitfield::none(shape.piece_count()))
            });
        }
        Drawn { shape, groups, peers }
    }

    /// The fluid bounds for all who come, as if they came at once and all of them gave.
    pub fn fluid(&self) -> Fluid {
        super::distribute::fluid(self.size, self.seed_up, &self.classes, self.peers)
    }

    fn scaled(&self, rate: ByteRate) -> ByteRate {
        ByteRate((rate.0 / self.scale()).max(1))
    }

    /// Every leech's line, group and manner, in random order; and the groups.
    fn members(&self, rng: &mut Rng) -> (Vec<Group>, Vec<(&PeerClass, u8, Manner)>) {
        let counts = super::distribute::counts(&self.classes, self.peers);
        let mut lines: Vec<(usize, &PeerClass)> = Vec::new();
        for (class, (line, &count)) in self.classes.iter().zip(&counts).enumerate() {
            lines.extend((0..count).map(|_| (class, line)));
        }
        rng.shuffle(&mut lines);
        let part = |share: u32| (u64::from(self.peers) * u64::from(share)).div_ceil(1000) as usize;
        let (riders, liars) = (part(self.free_riders), part(self.liars));
        let mut groups: Vec<Group> = self
            .classes
            .iter()
            .map(|class| Group { name: class.name.clone(), count: 0, honest: true })
            .collect();
        for (name, count) in [("free-riders", riders), ("liars", liars)] {
            if count > 0 {
                groups.push(Group { name: name.into(), count: 0, honest: false });
            }
        }
        let (last, first) = (groups.len() - 1, self.classes.len());
        let mut members: Vec<(&PeerClass, u8, Manner)> = (0..)
            .zip(lines)
            .map(|(place, (class, line))| match place {
                _ if place < riders => (line, first as u8, Manner::FreeRider),
                _ if place < riders + liars => (line, last as u8, Manner::Liar(LIES)),
                _ => (line, class as u8, Manner::Honest),
            })
            .collect();
        for (_, group, _) in &members {
            if let Some(group) = groups.get_mut(usize::from(*group)) {
                group.count += 1;
            }
        }
        // Those that misbehave stood first; they come whenever.
        rng.shuffle(&mut members);
        (groups, members)
    }

    fn departure(&self, arrives: Instant, line: &PeerClass, rng: &mut Rng) -> Departure {
        let is_leaver = rng.below(1000) < u64::from(self.leavers);
        if is_leaver {
            // While it needs about that time when it gets as much as it gives.
            let transfer = Duration::from_secs_f64((self.size as f64 / line.up.0.max(1) as f64).min(1e9));
            let at = arrives + transfer.mul_f64(0.2 + 0.6 * unit(rng));
            return Departure::At { at, away: Some(transfer.mul_f64(0.2 + 0.8 * unit(rng))) };
        }
        match self.stay {
            Stay::ForEver => Departure::Never,
            Stay::For(time) => Departure::AfterCompletion(time),
        }
    }
}

/// A number from 0 to below 1.
fn unit(rng: &mut Rng) -> f64 {
    rng.below(1 << 53) as f64 / (1_u64 << 53) as f64
}

/// The time between two arrivals of a Poisson process, by comparisons alone (von Neumann 1951): logarithms differ
/// between machines, traces must not.
fn exponential(mean: Duration, rng: &mut Rng) -> Duration {
    let mut whole = 0_u32;
    loop {
        let first = unit(rng);
        let (mut last, mut falling) = (first, 1);
        loop {
            let next = unit(rng);
            if next >= last {
                break;
            }
            (last, falling) = (next, falling + 1);
        }
        if falling % 2 == 1 {
            return mean.mul_f64(f64::from(whole) + first);
        }
        whole += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(scenario: Scenario, peers: u32) -> Crowd {
        scenario.crowd(64 << 20, ByteRate(4_000_000), ByteRate(1_000_000), peers)
    }

    #[test]
    fn equal_seeds_draw_equal_terms_and_others_others() {
        for scenario in Scenario::ALL {
            let crowd = crowd(scenario, 40);
            let text = |seed| format!("{:?}", crowd.draw(seed).peers);
            assert_eq!(text(1), text(1), "{scenario:?}");
            assert_ne!(text(1), text(2), "{scenario:?}");
            assert_eq!(crowd.draw(1).peers.len(), 41);
            assert_eq!(crowd.draw(1).groups.iter().map(|group| group.count).sum::<u32>(), 41);
        }
    }

    #[test]
    fn arrivals_of_a_steady_crowd_come_as_often_as_asked() {
        let steady = Crowd { arrival_gap: Some(Duration::from_secs(10)), ..crowd(Scenario::Steady, 2000) };
        let peers = steady.draw(7).peers;
        assert!(peers.is_sorted_by_key(|peer| peer.arrives));
        let mean = peers.last().unwrap().arrives.as_nanos() as f64 / 2000.0 / 1e9;
        assert!((9.0..11.0).contains(&mean), "{mean}");
        // Of exponential gaps a part of 1/e is longer than the mean.
        let gaps = peers[1..].windows(2).map(|pair| pair[1].arrives.since(pair[0].arrives));
        let long = gaps.filter(|gap| gap.as_secs() >= 10).count();
        assert!((660..810).contains(&long), "{long}");
    }

    #[test]
    fn shares_of_those_that_misbehave_are_kept_exactly() {
        let mut mixed = crowd(Scenario::Classes, 60);
        (mixed.free_riders, mixed.liars) = (250, 100);
        let drawn = mixed.draw(3);
        let count =
            |wanted: fn(Manner) -> bool| drawn.peers.iter().filter(|peer| wanted(peer.manner)).count();
        assert_eq!(count(|manner| manner == Manner::FreeRider), 15);
        assert_eq!(count(|manner| matches!(manner, Manner::Liar(_))), 6);
        let names: Vec<&str> = drawn.groups.iter().map(|group| group.name.as_str()).collect();
        assert_eq!(names, ["slow", "fast", "free-riders", "liars", "seed"]);
        assert!(drawn.peers.iter().all(|peer| usize::from(peer.class) < names.len()));
    }

    #[test]
    fn much_content_is_scaled_and_times_stay() {
        let big = Scenario::FlashCrowd.crowd(1 << 30, ByteRate(4_000_000), ByteRate(1_000_000), 3);
        assert_eq!(big.scale(), 4);
        let drawn = big.draw(1);
        assert_eq!((drawn.shape.total_len, drawn.shape.piece_count()), (256 << 20, 1024));
        assert_eq!(drawn.peers[1].up, ByteRate(250_000));
    }
}
