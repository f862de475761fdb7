//! The candidates of one torrent, each in exactly one place, in the orders that the questions need.
//!
//! Invariant: a candidate is taken out of everything before anything about it changes, and put back after, so that
//! the ordered sets always agree with it. Every operation costs logarithms.

use super::Source;
use super::address::{Scope, party};
use crate::id::{ConnId, PeerId};
use crate::limits::{CANDIDATES_PER_ADDRESS_MAX, DIAL_RETRY_MAX, DIAL_RETRY_MIN, DIAL_RETRY_QUICK};
use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What we know of one address.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Who named it; of several the most trusted.
    pub(super) source: Source,
    pub(super) place: Place,
    /// Attempts in a row that came to nothing.
    pub(super) failures: u16,
    /// There has been a connection.
    pub(super) proven: bool,
    /// The name it had when last connected.
    pub(super) peer_id: Option<PeerId>,
    /// Stretches its patience, 0 to 255 for nothing to a quarter.
    pub(super) jitter: u8,
    /// Rises from candidate to candidate.
    age: u64,
}

/// Where a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Not to be dialled before this.
    Waiting(Instant),
    /// To be dialled as soon as there is room.
    Ready(Rank),
    /// Of no use while we are a seed.
    Shelved,
    /// Being dialled.
    Dialling,
    /// Leads to this connection.
    Connected(ConnId),
}

/// The order of dialling, the best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) not_from_user: bool,
    pub(super) failures: u16,
    pub(super) priority: Reverse<u32>,
    pub(super) tie: u32,
}

/// The order of eviction, the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Worth {
    not_shelved: bool,
    proven: bool,
    failures: Reverse<u16>,
    source: Source,
    age: u64,
}

impl Candidate {
    /// Patience before the next attempt, by the failures so far.
    pub(super) fn patience(&self) -> Duration {
        let patience = match self.failures {
            0 | 1 => DIAL_RETRY_QUICK,
            more => (DIAL_RETRY_MIN * (1 << (more - 2).min(16))).min(DIAL_RETRY_MAX),
        };
        patience + patience * u32::from(self.jitter) / 1024
    }

    /// `None` for what is never evicted: the user's own word, and what is in use.
    fn worth(&self) -> Option<Worth> {
        let in_use = matches!(self.place, Place::Dialling | Place::Connected(_));
        (!in_use && self.source != Source::User).then_some(Worth {
            not_shelved: self.place != Place::Shelved,
            proven: self.proven,
            failures: Reverse(self.failures),
            source: self.source,
            age: self.age,
        })
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    by_address: BTreeMap<SocketAddr, Candidate>,
    waiting: BTreeSet<(Instant, SocketAddr)>,
    ready: BTreeSet<(Rank, SocketAddr)>,
    shelved: BTreeSet<SocketAddr>,
    evictable: BTreeSet<(Worth, SocketAddr)>,
    dialling: usize,
    age_next: u64,
}

impl Candidates {
    /// A candidate that nothing is known of, not yet put anywhere.
    pub(super) fn fresh(&mut self, source: Source, place: Place) -> Candidate {
        self.age_next += 1;
        let jitter = 128;
        Candidate { source, place, failures: 0, proven: false, peer_id: None, jitter, age: self.age_next }
    }

    /// Makes room for `newcomer` at `address` among `most`, at the cost of a worse one; false when there is none.
    pub(super) fn make_room(&mut self, address: SocketAddr, newcomer: &Candidate, most: usize) -> bool {
        if newcomer.source != Source::User && Scope::of(address.ip()) == Scope::Global {
            let (first, last) = party(address.ip());
            let of_party = self.by_address.range(first..=last).take(CANDIDATES_PER_ADDRESS_MAX).count();
            if of_party >= CANDIDATES_PER_ADDRESS_MAX {
                return false;
            }
        }
        if self.by_address.len() < most {
            return true;
        }
        let Some(&(worst, victim)) = self.evictable.first() else { return false };
        let evict = newcomer.worth().is_none_or(|worth| worst < worth);
        if evict {
            self.take(victim);
        }
        evict
    }

    pub(super) fn take(&mut self, address: SocketAddr) -> Option<Candidate> {
        let candidate = self.by_address.remove(&address)?;
        match candidate.place {
            Place::Waiting(until) => drop(self.waiting.remove(&(until, address))),
            Place::Ready(rank) => drop(self.ready.remove(&(rank, address))),
            Place::Shelved => drop(self.shelved.remove(&address)),
            Place::Dialling => self.dialling -= 1,
            Place::Connected(_) => {}
        }
        if let Some(worth) = candidate.worth() {
            self.evictable.remove(&(worth, address));
        }
        Some(candidate)
    }

    /// Puts a candidate where its `place` says. It must have been taken, or be fresh with room made for it.
    pub(super) fn put(&mut self, address: SocketAddr, candidate: Candidate) {
        match candidate.place {
            Place::Waiting(until) => drop(self.waiting.insert((until, address))),
            Place::Ready(rank) => drop(self.ready.insert((rank, address))),
            Place::Shelved => drop(self.shelved.insert(address)),
            Place::Dialling => self.dialling += 1,
            Place::Connected(_) => {}
        }
        if let Some(worth) = candidate.worth() {
            self.evictable.insert((worth, address));
        }
        let earlier = self.by_address.insert(address, candidate);
        debug_assert!(earlier.is_none(), "a candidate is taken before it is put");
    }

    /// The candidate that has waited long enough by `now` and longest.
    pub(super) fn first_waiting(&self, now: Instant) -> Option<SocketAddr> {
        self.waiting.first().filter(|(until, _)| *until <= now).map(|&(_, address)| address)
    }

    /// When the next one has waited long enough; the origin of time when one already stands ready.
    pub(super) fn next_at(&self) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(Instant::ZERO);
        }
        self.waiting.first().map(|&(until, _)| until)
    }

    /// The best one to dial.
    pub(super) fn best(&self) -> Option<SocketAddr> {
        self.ready.first().map(|&(_, address)| address)
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = SocketAddr> {
        self.ready.iter().map(|&(_, address)| address)
    }

    pub(super) fn shelved(&self) -> impl Iterator<Item = SocketAddr> {
        self.shelved.iter().copied()
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<&Candidate> {
        self.by_address.get(&address)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Candidate)> {
        self.by_address.iter().map(|(&address, candidate)| (address, candidate))
    }

    pub(super) fn len(&self) -> usize {
        self.by_address.len()
    }

    pub(super) fn dialling(&self) -> usize {
        self.dialling
    }

    /// That every set agrees with every candidate.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let mut again = Self { age_next: self.age_next, ..Self::default() };
        self.iter().for_each(|(address, candidate)| again.put(address, *candidate));
        assert_eq!(again.waiting, self.waiting);
        assert_eq!(again.ready, self.ready);
        assert_eq!(again.shelved, self.shelved);
        assert_eq!(again.evictable, self.evictable);
        assert_eq!(again.dialling, self.dialling);
    }
}
