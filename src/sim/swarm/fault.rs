//! What goes wrong in a swarm: lines that break or stall, peers that die, a tracker that is silent, disks that refuse.
//!
//! A fault happens at a moment that was planned ([`Swarm::plan`]), to a peer that is here then; otherwise it does not.
//! Which of a peer's lines breaks, and which of its pieces a dead peer has lost, is drawn from the swarm's seed.

use super::node::{Node, Seat};
use super::terms::PeerNumber;
use super::{Event, Swarm, delay_between};
use crate::time::{Duration, Instant};
use crate::units::PieceIndex;
use std::fmt;

/// Something that goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One of the peer's connections is reset: what was on its way in both directions is lost, and both ends hear of it.
    Break(PeerNumber),
    /// The peer's uplink carries nothing for so long.
    Stall(PeerNumber, Duration),
    /// The tracker answers nobody for so long.
    TrackerSilent(Duration),
    /// The peer is gone without a word, and its ends of connections with it: the others hear nothing any more. It
    /// comes back with some of its pieces.
    Death {
        /// Who.
        peer: PeerNumber,
        /// How long it is away.
        away: Duration,
        /// How many of a thousand pieces its resume state still has.
        keeps: u16,
    },
    /// The peer's disk takes no piece for so long.
    StorageRefuses(PeerNumber, Duration),
    /// The peer's disk is slow.
    StorageSlow {
        /// Whose.
        peer: PeerNumber,
        /// Time that each piece takes.
        takes: Duration,
        /// How long that lasts.
        lasts: Duration,
    },
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Break(peer) => write!(out, "a line of peer {} breaks", peer.0),
            Self::Stall(peer, time) => {
                write!(out, "the uplink of peer {} stalls for {:.1} s", peer.0, time.as_secs_f64())
            }
            Self::TrackerSilent(time) => write!(out, "the tracker is silent for {:.1} s", time.as_secs_f64()),
            Self::Death { peer, away, keeps } => write!(
                out,
                "peer {} dies and is back after {:.1} s with {keeps} of a thousand pieces",
                peer.0,
                away.as_secs_f64()
            ),
            Self::StorageRefuses(peer, time) => {
                write!(out, "the disk of peer {} refuses pieces for {:.1} s", peer.0, time.as_secs_f64())
            }
            Self::StorageSlow { peer, takes, lasts } => write!(
                out,
                "the disk of peer {} takes {:.1} s for a piece, for {:.1} s",
                peer.0,
                takes.as_secs_f64(),
                lasts.as_secs_f64()
            ),
        }
    }
}

/// What is wrong with one peer, and until when.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// Its uplink carries nothing.
    pub stalled_until: Instant,
    /// Its disk takes nothing.
    pub refuses_until: Instant,
    slow_until: Instant,
    storage_takes: Duration,
}

impl Trouble {
    /// Time that a piece takes longer than usual.
    pub fn storage_delay(&self, now: Instant) -> Duration {
        if now < self.slow_until { self.storage_takes } else { Duration::ZERO }
    }
}

impl Swarm {
    /// Has something go wrong at a moment that lies ahead.
    pub fn plan(&mut self, at: Instant, fault: Fault) {
        let number = u32::try_from(self.faults.len()).unwrap_or(u32::MAX);
        self.faults.push(fault);
        self.events.put(at, Event::Fault(number));
    }

    pub(super) fn handle_fault(&mut self, number: u32) {
        let Some(&fault) = self.faults.get(number as usize) else { return };
        self.tell(|| fault.to_string());
        self.note(u64::from(number) << 8 | 3);
        let now = self.now;
        match fault {
            Fault::Break(peer) => self.break_line(peer),
            Fault::Death { peer, away, keeps } => self.die(peer, away, keeps),
            Fault::TrackerSilent(time) => self.tracker_silent_until = now + time,
            Fault::Stall(peer, time) => self.trouble(peer, |trouble| trouble.stalled_until = now + time),
            Fault::StorageRefuses(peer, time) => {
                self.trouble(peer, |trouble| trouble.refuses_until = now + time);
            }
            Fault::StorageSlow { peer, takes, lasts } => self.trouble(peer, |trouble| {
                (trouble.slow_until, trouble.storage_takes) = (now + lasts, takes);
            }),
        }
    }

    fn trouble(&mut self, number: PeerNumber, change: impl FnOnce(&mut Trouble)) {
        if let Some(node) = self.nodes.get_mut(number.0 as usize).filter(|node| node.online) {
            change(&mut node.trouble);
        }
    }

    fn break_line(&mut self, number: PeerNumber) {
        let Some(node) = self.nodes.get_mut(number.0 as usize) else { return };
        let mut lines = Vec::new();
        for slot in node.open_slots() {
            let seat = node.seat(slot);
            let other = node.connection(seat.slot, seat.generation).and_then(|connection| connection.other);
            lines.extend(other.map(|other| (seat, other)));
        }
        let Some(&(seat, other)) = lines.get(self.rng.index(lines.len())) else { return };
        let delay = delay_between(&self.nodes, seat.node, other.node);
        for end in [seat, other] {
            // What arrives at an end that leads nowhere is lost.
            let node = &mut self.nodes[end.node.0 as usize];
            if let Some(connection) = node.connection(end.slot, end.generation) {
                connection.other = None;
                self.events.put(self.now + delay, Event::Gone(end));
            }
        }
    }

    fn die(&mut self, number: PeerNumber, away: Duration, keeps: u16) {
        let Some(node) = self.nodes.get_mut(number.0 as usize).filter(|node| node.online) else { return };
        let have = node.facts.have.snapshot();
        node.leeching.end(self.now);
        node.left_at = Some(self.now);
        let seats: Vec<Seat> = node.open_slots().into_iter().map(|slot| node.seat(slot)).collect();
        node.lie_down();
        have.iter().for_each(|piece| self.copies[piece.0 as usize] -= 1);
        for seat in seats {
            self.nodes[number.0 as usize].remove(seat);
        }
        let node = &mut self.nodes[number.0 as usize];
        let lost: Vec<PieceIndex> =
            have.iter().filter(|_| self.rng.below(1000) >= u64::from(keeps)).collect();
        for &piece in &lost {
            node.facts.have.remove(piece);
        }
        // Who came with everything waits from now on, too.
        self.waiting += usize::from(have.is_full() && !lost.is_empty() && node.completed_at.is_none());
        if let Some(checks) = &mut self.checks {
            checks.lose(number, &lost);
        }
        self.events.put(self.now + away, Event::Arrive(number));
    }
}

impl Node {
    /// Nothing of this stay goes on.
    pub fn lie_down(&mut self) {
        self.online = false;
        self.announcer = None;
        self.ready.clear();
        self.scheduled.clear();
        self.gained = Vec::new();
        self.pieces.clear();
        self.fast_grants.clear();
        (self.timer, self.announce_timer) = (None, None);
    }
}
