//! What is seen of a simulated crowd: how many copies there are of pieces, what lines were used for, who gave to whom, and
//! when peers had everything.
//!
//! The swarm is looked at in even intervals of its own time; looking changes nothing, so a trace does not depend on it.
//!
//! A run ends when everybody has everything; or when a piece has no copy left that could come back, and nobody gets any
//! further, which is no fault of the peers; or after long patience, which is one.

use super::scenario::{Crowd, Drawn, Group};
use super::{middle, middle_and_last};
use crate::sim::swarm::{Departure, Ledger, Outcome, PeerTerms, Policies, Swarm};
use crate::time::{Duration, Instant};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Looks at a swarm that are kept; with more every second one is forgotten.
const SAMPLES_MAX: usize = 400;
/// A swarm in which a piece is lost is given up when nobody got a piece for so long.
const GRIEF: Duration = Duration::from_secs(120);
/// A run is given up after so many times what a server alone would need, and an hour.
const PATIENCE: u32 = 4;
/// Diversity is judged while peers have this part of the content on average: before, there is little to compare, and
/// after it nothing is rare.
const JUDGED: std::ops::Range<f64> = 0.25..0.9;

/// The swarm at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// When, in seconds.
    pub at: f64,
    /// Peers that are here and lack something.
    pub leeches: u32,
    /// Peers that are here and have everything.
    pub seeds: u32,
    /// Copies of the rarest piece among those that are here.
    pub rarest: u32,
    /// Mean copies of a piece.
    pub mean: f64,
    /// Part of the honest leeches' uplinks that carried payload since the last look; `None` when there were none.
    pub uplinks: Option<f64>,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everybody has everything.
    Complete,
    /// So many pieces have no copy left.
    Lost(u32),
    /// Somebody who could have everything has not after long patience.
    Late,
    /// It was stopped.
    Stopped,
}

/// What became of one leech.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PeerReport {
    /// Its group, an index of the observation's.
    pub group: u8,
    /// Seconds from its arrival until it had everything.
    pub took: Option<f64>,
    /// Copies of the content that it gave.
    pub given: f64,
    /// Copies that it took, useless blocks included.
    pub taken: f64,
}

/// What became of the peers of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupReport {
    /// Its name.
    pub name: String,
    /// Its peers.
    pub peers: u32,
    /// Those that have everything.
    pub completed: u32,
    /// The median of the seconds from arrival to completion; `None` when half of them have not everything.
    pub median: Option<f64>,
    /// Copies given by each on average.
    pub given: f64,
    /// Copies taken by each on average.
    pub taken: f64,
    /// Of the bytes that came from leeches, the part from this very group.
    pub from_own: Option<f64>,
    /// What this would be if everybody gave what it gave to anybody.
    pub from_own_at_random: Option<f64>,
}

/// What was seen of one run.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// The seed of its chance.
    pub seed: u64,
    /// How it ended.
    pub end: End,
    /// Leeches that have everything.
    pub completed: u32,
    /// The median of the seconds from arrival to completion; `None` when half of the leeches have not everything.
    pub median: Option<f64>,
    /// The same of the slowest leech.
    pub slowest: Option<f64>,
    /// Copies of the rarest piece against the mean, over time, while peers have some but not all.
    pub rarest_to_mean: Option<f64>,
    /// Seconds until every piece was there twice.
    pub twice_at: Option<f64>,
    /// Part of the honest leeches' uplinks that carried payload while they leeched.
    pub uplinks: Option<f64>,
    /// Part of the time that they carried anything.
    pub busy: Option<f64>,
    /// Copies that the seed gave.
    pub seed_copies: f64,
    /// The part of all payload that came from it.
    pub seed_share: f64,
    /// Given against taken, of honest leeches: the tenth and the ninetieth of a hundred.
    pub fairness: Option<(f64, f64)>,
    /// Groups, the seed's left out.
    pub groups: Vec<GroupReport>,
    /// Leeches.
    pub peers: Vec<PeerReport>,
    /// Looks.
    pub samples: Vec<Sample>,
    /// A hash of all that happened.
    pub trace: u64,
    /// Events that happened.
    pub events: u64,
}

impl Observation {
    /// Runs a crowd. `progress` hears of peers that have completed; `cancel` ends the run early.
    pub fn of(
        crowd: &Crowd,
        policies: Policies,
        seed: u64,
        cancel: &AtomicBool,
        progress: impl FnMut(u32),
    ) -> Self {
        Observer::new(crowd, crowd.draw(seed), policies, seed).run(cancel, progress)
    }
}

struct Observer {
    swarm: Swarm,
    seed: u64,
    groups: Vec<Group>,
    terms: Vec<Seen>,
    total_len: u64,
    interval: Duration,
    limit: Instant,
    samples: Vec<Sample>,
    twice_at: Option<f64>,
    /// Payload and room of the honest leeches' uplinks at the last look.
    uplinks: (f64, f64),
    /// Pieces of all peers, and when they were fewer.
    pieces: (u64, Instant),
}

/// What of a peer's terms matters here.
struct Seen {
    class: u8,
    up: f64,
    comes_back: bool,
}

impl Observer {
    fn new(crowd: &Crowd, drawn: Drawn, policies: Policies, seed: u64) -> Self {
        let seen = |peer: &PeerTerms| Seen {
            class: peer.class,
            up: peer.up.0 as f64,
            comes_back: matches!(peer.departs, Departure::At { away: Some(_), .. }),
        };
        let terms = drawn.peers.iter().map(seen).collect();
        let comes = |peer: &PeerTerms| match peer.departs {
            Departure::At { at, away: Some(away) } => at + away,
            _ => peer.arrives,
        };
        let last = drawn.peers.iter().map(comes).max().unwrap_or(Instant::ZERO);
        let fluid = crowd.fluid();
        let alone = fluid.client_server().unwrap_or(Duration::MAX / PATIENCE);
        let together = fluid.peer_to_peer().unwrap_or(Duration::from_secs(1));
        let interval = (together / 100).clamp(Duration::from_millis(100), Duration::from_secs(600));
        Self {
            swarm: Swarm::new(seed, drawn.shape, policies, drawn.peers),
            seed,
            groups: drawn.groups,
            terms,
            total_len: drawn.shape.total_len,
            interval,
            limit: last + alone.saturating_mul(PATIENCE) + Duration::from_secs(3600),
            samples: Vec::new(),
            twice_at: None,
            uplinks: (0.0, 0.0),
            pieces: (0, Instant::ZERO),
        }
    }

    fn run(mut self, cancel: &AtomicBool, mut progress: impl FnMut(u32)) -> Observation {
        let mut told = 0;
        let end = loop {
            let until = (self.swarm.now() + self.interval).min(self.limit);
            let is_complete = self.swarm.run_until(until);
            let outcomes: Vec<Outcome> = self.swarm.outcomes().collect();
            let completed = count(outcomes.iter().skip(1).filter(|peer| peer.completed_at.is_some()));
            progress(completed - told);
            told = completed;
            self.look(&outcomes);
            if is_complete {
                break End::Complete;
            }
            if let Some(lost) = self.lost(&outcomes) {
                break End::Lost(lost);
            }
            if self.swarm.now() >= self.limit {
                break End::Late;
            }
            if cancel.load(Relaxed) {
                break End::Stopped;
            }
        };
        self.report(end)
    }

    /// Honest leeches and their terms; the seed is the first peer.
    fn honest<'a>(&'a self, outcomes: &'a [Outcome]) -> impl Iterator<Item = (&'a Seen, &'a Outcome)> {
        let is_honest = |class: u8| self.groups.get(usize::from(class)).is_some_and(|group| group.honest);
        self.terms.iter().zip(outcomes).skip(1).filter(move |(terms, _)| is_honest(terms.class))
    }

    fn look(&mut self, outcomes: &[Outcome]) {
        let here = |peer: &&Outcome| peer.arrived_at.is_some() && peer.left_at.is_none();
        let piece_count = self.swarm.copies().len().max(1) as u64;
        let seeds = outcomes.iter().filter(here).filter(|peer| u64::from(peer.pieces) == piece_count);
        let (seeds, online) = (count(seeds), count(outcomes.iter().filter(here)));
        let room = self.honest(outcomes).map(|(terms, peer)| terms.up * peer.leeched.as_secs_f64()).sum();
        let given = self.honest(outcomes).map(|(_, peer)| peer.given_leeching as f64).sum();
        let (given_before, room_before) = std::mem::replace(&mut self.uplinks, (given, room));
        let copies = self.swarm.copies();
        let sample = Sample {
            at: seconds(self.swarm.now()),
            leeches: online - seeds,
            seeds,
            rarest: copies.iter().copied().min().unwrap_or(0),
            mean: copies.iter().map(|&copies| u64::from(copies)).sum::<u64>() as f64 / piece_count as f64,
            uplinks: part(given - given_before, room - room_before),
        };
        if sample.rarest > 1 {
            self.twice_at = self.twice_at.or(Some(sample.at));
        }
        let pieces = outcomes.iter().map(|peer| u64::from(peer.pieces)).sum();
        if pieces > self.pieces.0 {
            self.pieces = (pieces, self.swarm.now());
        }
        self.samples.push(sample);
        if self.samples.len() > SAMPLES_MAX {
            let mut place = 0;
            self.samples.retain(|_| {
                place += 1;
                place % 2 == 0
            });
            self.interval *= 2;
        }
    }

    /// How many pieces nobody has who is here or will come, when this has stopped everybody.
    fn lost(&self, outcomes: &[Outcome]) -> Option<u32> {
        let lost = count(self.swarm.copies().iter().filter(|&&copies| copies == 0));
        let will_come = |(terms, peer): (&Seen, &Outcome)| {
            peer.arrived_at.is_none() || (peer.left_at.is_some() && terms.comes_back)
        };
        let is_final = !self.terms.iter().zip(outcomes).any(will_come);
        (lost > 0 && is_final && self.swarm.now().since(self.pieces.1) > GRIEF).then_some(lost)
    }

    fn report(self, end: End) -> Observation {
        let outcomes: Vec<Outcome> = self.swarm.outcomes().collect();
        let copies = |bytes: u64| bytes as f64 / self.total_len as f64;
        let report = |(terms, peer): (&Seen, &Outcome)| PeerReport {
            group: terms.class,
            took: peer.completed_at.zip(peer.arrived_at).map(|(end, begin)| end.since(begin).as_secs_f64()),
            given: copies(peer.given),
            taken: copies(peer.taken),
        };
        let peers: Vec<PeerReport> = self.terms.iter().zip(&outcomes).skip(1).map(report).collect();
        let (median, slowest) = middle_and_last(peers.iter().map(|peer| peer.took));
        let mut ratios: Vec<f64> = self
            .honest(&outcomes)
            .filter(|(_, peer)| peer.taken > 0)
            .map(|(_, peer)| peer.given as f64 / peer.taken as f64)
            .collect();
        ratios.sort_by(f64::total_cmp);
        let room: f64 =
            self.honest(&outcomes).map(|(terms, peer)| terms.up * peer.leeched.as_secs_f64()).sum();
        let given: f64 = self.honest(&outcomes).map(|(_, peer)| peer.given_leeching as f64).sum();
        let busy: f64 = self.honest(&outcomes).map(|(_, peer)| peer.busy.as_secs_f64()).sum();
        let leeched: f64 = self.honest(&outcomes).map(|(_, peer)| peer.leeched.as_secs_f64()).sum();
        let seed_given = outcomes.first().map_or(0, |seed| seed.given);
        let everything: u64 = outcomes.iter().map(|peer| peer.given).sum();
        Observation {
            seed: self.seed,
            end,
            completed: count(peers.iter().filter_map(|peer| peer.took)),
            median,
            slowest,
            rarest_to_mean: rarest_to_mean(&self.samples),
            twice_at: self.twice_at,
            uplinks: part(given, room),
            busy: part(busy, leeched),
            seed_copies: copies(seed_given),
            seed_share: part(seed_given as f64, everything as f64).unwrap_or(0.0),
            fairness: place(&ratios, 0.1).zip(place(&ratios, 0.9)),
            groups: group_reports(&self.groups, &peers, self.swarm.ledger()),
            peers,
            samples: self.samples,
            trace: self.swarm.trace(),
            events: self.swarm.happened(),
        }
    }
}

/// The reports of all groups but the last, which is the seed's.
fn group_reports(groups: &[Group], peers: &[PeerReport], ledger: &Ledger) -> Vec<GroupReport> {
    let classes = groups.len().saturating_sub(1) as u8;
    let report = |(class, group): (u8, &Group)| {
        let members: Vec<&PeerReport> = peers.iter().filter(|peer| peer.group == class).collect();
        let mean = |of: fn(&PeerReport) -> f64| {
            members.iter().map(|peer| of(peer)).sum::<f64>() / members.len().max(1) as f64
        };
        let (from_own, from_own_at_random) = matching(class, classes, group.count, ledger);
        GroupReport {
            name: group.name.clone(),
            peers: group.count,
            completed: count(members.iter().filter_map(|peer| peer.took)),
            median: middle(members.iter().map(|peer| peer.took)),
            given: mean(|peer| peer.given),
            taken: mean(|peer| peer.taken),
            from_own,
            from_own_at_random,
        }
    };
    (0..classes).zip(groups).map(report).collect()
}

/// The part of what a class got from leeches that came from itself, and what that were if every leech had given its bytes
/// to all others alike.
fn matching(class: u8, classes: u8, count: u32, ledger: &Ledger) -> (Option<f64>, Option<f64>) {
    if classes < 2 {
        return (None, None);
    }
    let taken: u64 = (0..classes).map(|giver| ledger.between(giver, class)).sum();
    let given = |giver: u8| (0..classes).map(|taker| ledger.between(giver, taker)).sum::<u64>() as f64;
    // Nobody gives to itself.
    let own = given(class) * f64::from(count.saturating_sub(1));
    let others: f64 =
        (0..classes).filter(|&giver| giver != class).map(|giver| given(giver) * f64::from(count)).sum();
    (part(ledger.between(class, class) as f64, taken as f64), part(own, own + others))
}

/// The mean of rarest against mean over the looks at which it is judged.
fn rarest_to_mean(samples: &[Sample]) -> Option<f64> {
    let is_judged = |sample: &&Sample| {
        let online = f64::from(sample.leeches + sample.seeds);
        online > 0.0 && JUDGED.contains(&(sample.mean / online))
    };
    let (sum, number) = samples.iter().filter(is_judged).fold((0.0, 0.0), |(sum, number), sample| {
        (sum + f64::from(sample.rarest) / sample.mean, number + 1.0)
    });
    part(sum, number)
}

/// A quotient, if there is something to divide by.
fn part(of: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| of / whole)
}

fn count<T>(items: impl Iterator<Item = T>) -> u32 {
    u32::try_from(items.count()).unwrap_or(u32::MAX)
}

fn seconds(at: Instant) -> f64 {
    at.as_nanos() as f64 / 1e9
}

/// The value at a part of the sorted values.
fn place(sorted: &[f64], at: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last as f64 * at).round() as usize).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diversity_is_judged_while_there_is_something_to_tell() {
        let sample = |rarest, mean| Sample { leeches: 9, seeds: 1, rarest, mean, ..Sample::default() };
        assert_eq!(
            rarest_to_mean(&[sample(1, 1.0), sample(2, 4.0), sample(3, 4.0), sample(10, 10.0)]),
            Some(0.625)
        );
        assert_eq!(rarest_to_mean(&[sample(1, 1.0)]), None);
    }
}
