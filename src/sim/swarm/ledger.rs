//! Who gave how much to whom, by class, and what peers did with their uplinks while they leeched.
//!
//! Payload is entered when it is handed to the line. A peer that has everything gives as a seed, of whatever class it is.

use super::Swarm;
use super::terms::PeerNumber;
use crate::time::{Duration, Instant};

/// Bytes of payload, by the class of who gave and of who took them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    classes: usize,
    /// A row for each class of givers, then one for seeds.
    bytes: Vec<u64>,
}

impl Ledger {
    pub(super) fn new(classes: usize) -> Self {
        Self { classes, bytes: vec![0; (classes + 1) * classes] }
    }

    fn enter(&mut self, row: usize, taker: u8, len: u64) {
        if let Some(bytes) = self.bytes.get_mut(row * self.classes + usize::from(taker)) {
            *bytes += len;
        }
    }

    fn at(&self, row: usize, taker: u8) -> u64 {
        let column = Some(usize::from(taker)).filter(|&column| column < self.classes);
        column.and_then(|column| self.bytes.get(row * self.classes + column)).copied().unwrap_or(0)
    }

    /// Bytes that leeches of one class gave to peers of another.
    pub fn between(&self, giver: u8, taker: u8) -> u64 {
        if usize::from(giver) < self.classes { self.at(giver.into(), taker) } else { 0 }
    }

    /// Bytes that seeds gave to peers of a class.
    pub fn from_seeds(&self, taker: u8) -> u64 {
        self.at(self.classes, taker)
    }
}

/// A peer's time without having everything.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leeching {
    /// Earlier stays.
    before: Duration,
    since: Option<Instant>,
    /// How long the uplink was busy.
    pub busy: Duration,
    /// Bytes of payload given.
    pub given: u64,
}

impl Leeching {
    pub fn begin(&mut self, now: Instant) {
        self.since = Some(now);
    }

    pub fn end(&mut self, now: Instant) {
        if let Some(since) = self.since.take() {
            self.before += now.since(since);
        }
    }

    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// The uplink takes a packet.
    pub fn send(&mut self, took: Duration, payload: u64) {
        if self.since.is_some() {
            self.busy += took;
            self.given += payload;
        }
    }

    pub fn time(&self, now: Instant) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.since(since))
    }
}

impl Swarm {
    /// Payload goes from a peer to another.
    pub(super) fn enter(&mut self, from: PeerNumber, to: PeerNumber, len: u64) {
        let (giver, taker) = (&self.nodes[from.0 as usize], &self.nodes[to.0 as usize]);
        let row = if giver.leeching.is_on() { giver.terms.class.into() } else { self.ledger.classes };
        self.ledger.enter(row, taker.terms.class, len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_where_they_were_entered_and_nowhere_else() {
        let mut ledger = Ledger::new(3);
        ledger.enter(0, 1, 5);
        ledger.enter(3, 2, 7);
        assert_eq!((ledger.between(0, 1), ledger.from_seeds(2)), (5, 7));
        assert_eq!((ledger.between(1, 0), ledger.between(3, 2), ledger.between(0, 4)), (0, 0, 0));
        ledger.enter(9, 9, 1);
        assert_eq!(ledger.from_seeds(200), 0);
    }

    #[test]
    fn only_time_without_everything_counts() {
        let at = |secs| Instant::ZERO + Duration::from_secs(secs);
        let mut leeching = Leeching::default();
        leeching.send(Duration::from_secs(1), 10);
        leeching.begin(at(5));
        leeching.send(Duration::from_secs(1), 10);
        assert_eq!(leeching.time(at(7)), Duration::from_secs(2));
        leeching.end(at(8));
        leeching.end(at(9));
        leeching.begin(at(10));
        assert_eq!(leeching.time(at(11)), Duration::from_secs(4));
        assert_eq!((leeching.busy, leeching.given), (Duration::from_secs(1), 10));
    }
}
