//! The candidates of one torrent, each in exactly one place, in the orders that the questions need.
//!
//! Invariant: a candidate is taken out of everything before anything about it changes, and put back after, so that
//! the ordered sets always agree with it. Every operation costs logarithms.
//!
//! There are thousands of them for each torrent, so addresses are packed, and of the order of eviction only the worst
//! few are kept (`Worst`), from the moment on in which the list is full.

use super::Source;
use super::address::{PackedAddress, Scope, party};
use crate::id::{ConnId, PeerId};
use crate::limits::{CANDIDATES_PER_ADDRESS_MAX, DIAL_RETRY_MAX, DIAL_RETRY_MIN, DIAL_RETRY_QUICK};
use crate::time::{Duration, Instant};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

/// What we know of one address.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// Who named it; of several the most trusted.
    pub(super) source: Source,
    pub(super) place: Place,
    /// Attempts in a row that came to nothing.
    pub(super) failures: u16,
    /// There has been a connection.
    pub(super) proven: bool,
    /// The name it had when last connected.
    pub(super) peer_id: Option<Box<PeerId>>,
    /// Stretches its patience, 0 to 255 for nothing to a quarter.
    pub(super) jitter: u8,
    /// Rises from candidate to candidate.
    age: u32,
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
    age: u32,
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
    by_address: BTreeMap<PackedAddress, Candidate>,
    waiting: BTreeSet<(Instant, PackedAddress)>,
    ready: BTreeSet<(Rank, PackedAddress)>,
    shelved: BTreeSet<PackedAddress>,
    worst: Worst,
    dialling: usize,
    age_next: u32,
}

/// The candidates that go first. Invariant: these are exactly those of all evictable ones that are within the bound.
#[derive(Clone, Debug, Default)]
struct Worst {
    /// The very worst last.
    list: Vec<(Worth, PackedAddress)>,
    bound: Bound,
}

#[derive(Clone, Copy, Debug, Default)]
enum Bound {
    /// Nobody has looked yet.
    #[default]
    Nothing,
    /// Up to this one.
    UpTo(Worth),
    Everything,
}

impl Worst {
    /// As many are looked for at once; twice as many are kept at most.
    const COUNT: usize = 32;

    fn is_within(&self, worth: Worth) -> bool {
        match self.bound {
            Bound::Nothing => false,
            Bound::UpTo(last) => worth <= last,
            Bound::Everything => true,
        }
    }

    fn put(&mut self, worth: Worth, address: PackedAddress) {
        if !self.is_within(worth) {
            return;
        }
        let place = self.list.partition_point(|&entry| entry > (worth, address));
        self.list.insert(place, (worth, address));
        if self.list.len() > 2 * Self::COUNT {
            self.list.drain(..Self::COUNT);
            self.bound = self.list.first().map_or(Bound::Nothing, |&(worth, _)| Bound::UpTo(worth));
        }
    }

    fn take(&mut self, worth: Worth, address: PackedAddress) {
        if self.is_within(worth)
            && let Ok(place) = self.list.binary_search_by(|entry| (worth, address).cmp(entry))
        {
            self.list.remove(place);
        }
    }

    /// Looks at all candidates, if the worst is not known.
    fn look<'a>(&mut self, all: impl Iterator<Item = (&'a PackedAddress, &'a Candidate)>) {
        if !self.list.is_empty() || matches!(self.bound, Bound::Everything) {
            return;
        }
        self.list.extend(all.filter_map(|(&address, candidate)| Some((candidate.worth()?, address))));
        self.bound = Bound::Everything;
        if self.list.len() > Self::COUNT {
            let (_, &mut (worth, _), _) = self.list.select_nth_unstable(Self::COUNT - 1);
            self.bound = Bound::UpTo(worth);
            self.list.truncate(Self::COUNT);
            self.list.shrink_to(2 * Self::COUNT + 1);
        }
        self.list.sort_unstable_by(|one, other| other.cmp(one));
    }
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
            let party = PackedAddress::from(first)..=PackedAddress::from(last);
            let of_party = self.by_address.range(party).take(CANDIDATES_PER_ADDRESS_MAX).count();
            if of_party >= CANDIDATES_PER_ADDRESS_MAX {
                return false;
            }
        }
        if self.by_address.len() < most {
            return true;
        }
        self.worst.look(self.by_address.iter());
        let Some(&(worst, victim)) = self.worst.list.last() else { return false };
        let evict = newcomer.worth().is_none_or(|worth| worst < worth);
        if evict {
            self.take(victim.into());
        }
        evict
    }

    pub(super) fn take(&mut self, address: SocketAddr) -> Option<Candidate> {
        let address = address.into();
        let candidate = self.by_address.remove(&address)?;
        match candidate.place {
            Place::Waiting(until) => drop(self.waiting.remove(&(until, address))),
            Place::Ready(rank) => drop(self.ready.remove(&(rank, address))),
            Place::Shelved => drop(self.shelved.remove(&address)),
            Place::Dialling => self.dialling -= 1,
            Place::Connected(_) => {}
        }
        if let Some(worth) = candidate.worth() {
            self.worst.take(worth, address);
        }
        Some(candidate)
    }

    /// Puts a candidate where its `place` says. It must have been taken, or be fresh with room made for it.
    pub(super) fn put(&mut self, address: SocketAddr, candidate: Candidate) {
        let address = address.into();
        match candidate.place {
            Place::Waiting(until) => drop(self.waiting.insert((until, address))),
            Place::Ready(rank) => drop(self.ready.insert((rank, address))),
            Place::Shelved => drop(self.shelved.insert(address)),
            Place::Dialling => self.dialling += 1,
            Place::Connected(_) => {}
        }
        if let Some(worth) = candidate.worth() {
            self.worst.put(worth, address);
        }
        let earlier = self.by_address.insert(address, candidate);
        debug_assert!(earlier.is_none(), "a candidate is taken before it is put");
    }

    /// The candidate that has waited long enough by `now` and longest.
    pub(super) fn first_waiting(&self, now: Instant) -> Option<SocketAddr> {
        self.waiting.first().filter(|(until, _)| *until <= now).map(|&(_, address)| address.into())
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
        self.ready.first().map(|&(_, address)| address.into())
    }

    pub(super) fn ready(&self) -> impl Iterator<Item = SocketAddr> {
        self.ready.iter().map(|&(_, address)| address.into())
    }

    pub(super) fn shelved(&self) -> impl Iterator<Item = SocketAddr> {
        self.shelved.iter().map(|&address| address.into())
    }

    pub(super) fn get(&self, address: SocketAddr) -> Option<&Candidate> {
        self.by_address.get(&address.into())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SocketAddr, &Candidate)> {
        self.by_address.iter().map(|(&address, candidate)| (address.into(), candidate))
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
        self.iter().for_each(|(address, candidate)| again.put(address, candidate.clone()));
        assert_eq!(again.waiting, self.waiting);
        assert_eq!(again.ready, self.ready);
        assert_eq!(again.shelved, self.shelved);
        let evictable = self.by_address.iter();
        let evictable = evictable.filter_map(|(&address, candidate)| Some((candidate.worth()?, address)));
        let mut within: Vec<_> = evictable.filter(|&(worth, _)| self.worst.is_within(worth)).collect();
        within.sort_unstable_by(|one, other| other.cmp(one));
        assert_eq!(within, self.worst.list);
        assert_eq!(again.dialling, self.dialling);
    }
}
