//! The peers of one swarm and one address family, keyed by their compact address.
//!
//! Records stand densely in one vector, leeches before seeds, so that a random selection is a few random
//! indices and "leeches only" is a prefix. A small set is searched from end to end; above
//! [`LINEAR_LEN_MAX`] records an ordered index from address to place stands beside it. The key is the wire
//! form (BEP 23, BEP 7): a selection is copied, never formatted.
//!
//! Invariant: `peers[..leeches]` are the leeches, no address occurs twice, and the index is either empty or
//! names every record's place.

use crate::limits::{PEERS_PER_ADDRESS_MAX, PEERS_PER_SWARM_MAX};
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::mem::size_of;

/// Records up to which a search from end to end is quicker than an index, and needs no memory.
const LINEAR_LEN_MAX: usize = 32;
/// Records below which the index is given up again.
const INDEX_LEN_MIN: usize = 16;

/// The peers of one swarm whose compact form has `N` bytes: 6 or 18.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerSet<const N: usize> {
    peers: Vec<Peer<N>>,
    leeches: u32,
    /// Records below this place are still to be looked at in the sweep under way; zero between sweeps.
    sweep_place: u32,
    index: BTreeMap<[u8; N], u32>,
}

/// What the set keeps of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer<const N: usize> {
    address: [u8; N],
    completed: bool,
    announced_secs: u32,
}

const _: () = assert!(size_of::<Peer<6>>() == 12 && size_of::<Peer<18>>() == 24);

/// What an announce did to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The peer stands at this place; `completed_now` when its download has just come to its end.
    At { place: usize, completed_now: bool },
    /// There is no room and the peer was not in it.
    Full,
}

impl<const N: usize> PeerSet<N> {
    /// Enters a peer or renews its record; a newcomer only when there is `room`. A new peer of an address that already has
    /// [`PEERS_PER_ADDRESS_MAX`] takes the place of that address's oldest.
    pub(super) fn enter(
        &mut self,
        address: [u8; N],
        is_seed: bool,
        completed: bool,
        now_secs: u32,
        room: bool,
    ) -> Entered {
        let known = self.place_of(&address);
        let had_completed = known.is_some_and(|place| self.peers[place].completed);
        let peer =
            Peer { address, completed: completed || had_completed && is_seed, announced_secs: now_secs };
        let completed_now = completed && !had_completed;
        if let Some(place) = known {
            if (place >= self.leeches()) == is_seed {
                self.peers[place] = peer;
                return Entered::At { place, completed_now };
            }
            self.remove_at(place);
        } else if let Some(oldest) = self.oldest_of_crowded_address(&address) {
            self.remove_at(oldest);
        } else if !room {
            return Entered::Full;
        }
        Entered::At { place: self.insert(peer, is_seed), completed_now }
    }

    /// Removes a peer; whether it was there.
    pub(super) fn leave(&mut self, address: &[u8; N]) -> bool {
        let place = self.place_of(address);
        if let Some(place) = place {
            self.remove_at(place);
        }
        place.is_some()
    }

    /// Looks at up to `work` records and removes those last heard of before `alive_since_secs`. Returns the
    /// number looked at; the pass is through when that is less than `work`, or [`Self::is_swept`].
    pub(super) fn sweep(&mut self, alive_since_secs: u32, work: usize) -> usize {
        if self.sweep_place == 0 {
            self.sweep_place = self.len() as u32; // bounded by PEERS_PER_SWARM_MAX
        }
        // From the end down: a record moved into a gap comes from a place already looked at.
        let start = (self.sweep_place as usize).min(self.len());
        let end = start.saturating_sub(work);
        for place in (end..start).rev() {
            if self.peers.get(place).is_some_and(|peer| peer.announced_secs < alive_since_secs) {
                self.remove_at(place);
            }
        }
        self.sweep_place = end as u32;
        start - end
    }

    /// Whether no sweep is under way.
    pub(super) fn is_swept(&self) -> bool {
        self.sweep_place == 0
    }

    /// Appends up to `wanted` peers heard of since `alive_since_secs`, in compact form: leeches, and seeds
    /// too when `with_seeds`; never the one at `asker`. Every peer is as likely as every other. Returns their
    /// number, which falls short of what there is only by the expired ones it met.
    pub(super) fn select(
        &self,
        rng: &mut Rng,
        wanted: usize,
        asker: Option<usize>,
        with_seeds: bool,
        alive_since_secs: u32,
        out: &mut Vec<u8>,
    ) -> usize {
        let len = if with_seeds { self.len() } else { self.leeches() };
        let asker = asker.filter(|&place| place < len);
        // One from each of as many equal strata, which begin at a random place: distinct without a record of
        // what was taken. One stratum more makes up for the asker.
        let strata = len.min(wanted + usize::from(asker.is_some()));
        let start = rng.index(len);
        let mut chosen = 0;
        for stratum in 0..strata {
            if chosen == wanted {
                break;
            }
            let (low, high) = (stratum * len / strata, (stratum + 1) * len / strata);
            let within = if high - low == 1 { low } else { low + rng.index(high - low) };
            let place = if start + within >= len { start + within - len } else { start + within };
            let peer = &self.peers[place];
            if Some(place) != asker && peer.announced_secs >= alive_since_secs {
                out.extend_from_slice(&peer.address);
                chosen += 1;
            }
        }
        chosen
    }

    /// Peers of both kinds, expired ones included until a sweep meets them.
    pub(super) fn len(&self) -> usize {
        self.peers.len()
    }

    /// Leeches.
    pub(super) fn leeches(&self) -> usize {
        self.leeches as usize
    }

    /// Seeds.
    pub(super) fn seeds(&self) -> usize {
        self.len() - self.leeches()
    }

    fn place_of(&self, address: &[u8; N]) -> Option<usize> {
        if self.index.is_empty() {
            self.peers.iter().position(|peer| peer.address == *address)
        } else {
            self.index.get(address).map(|&place| place as usize)
        }
    }

    fn insert(&mut self, peer: Peer<N>, is_seed: bool) -> usize {
        let mut place = self.len();
        self.peers.push(peer);
        if !is_seed {
            self.peers.swap(place, self.leeches as usize);
            self.renumber(place);
            place = self.leeches as usize;
            self.leeches += 1;
        }
        if !self.index.is_empty() {
            self.index.insert(peer.address, place as u32);
        } else if self.len() > LINEAR_LEN_MAX {
            self.index = (0..).zip(&self.peers).map(|(place, peer)| (peer.address, place)).collect();
        }
        place
    }

    fn remove_at(&mut self, place: usize) {
        let mut gap = place;
        let address = self.peers[place].address;
        if place < self.leeches() {
            self.leeches -= 1;
            gap = self.leeches as usize;
            self.peers.swap(place, gap);
        }
        self.peers.swap_remove(gap);
        if self.len() < INDEX_LEN_MIN {
            self.index = BTreeMap::new();
        } else if !self.index.is_empty() {
            self.index.remove(&address);
            self.renumber(place);
            self.renumber(gap);
        }
        if self.peers.capacity() > 4 * self.len().max(4) {
            self.peers.shrink_to(2 * self.len());
        }
    }

    /// Writes down where the record at `place`, if any, now stands.
    fn renumber(&mut self, place: usize) {
        if let Some(peer) = self.peers.get(place)
            && !self.index.is_empty()
        {
            self.index.insert(peer.address, place as u32);
        }
    }

    /// The place of the oldest peer with the address (IPv4) or network (the /64 of IPv6) of `address`, when
    /// there are as many as may be. Loopback is exempt, since every local swarm lives there.
    fn oldest_of_crowded_address(&self, address: &[u8; N]) -> Option<usize> {
        let owner = if N == 6 { 4 } else { 8 };
        let is_loopback = if N == 6 { address[0] == 127 } else { address.starts_with(&LOOPBACK_V6) };
        if is_loopback || self.len() < PEERS_PER_ADDRESS_MAX {
            return None;
        }
        let (mut low, mut high) = (*address, *address);
        low[owner..].fill(0);
        high[owner..].fill(0xff);
        let older = |oldest: Option<usize>, place: usize| match oldest {
            Some(oldest) if self.peers[oldest].announced_secs <= self.peers[place].announced_secs => {
                Some(oldest)
            }
            _ => Some(place),
        };
        // The index exists: PEERS_PER_ADDRESS_MAX lies above LINEAR_LEN_MAX.
        let same_owner = self.index.range(low..=high).map(|(_, &place)| place as usize);
        let (count, oldest) =
            same_owner.fold((0, None), |(count, oldest), place| (count + 1, older(oldest, place)));
        oldest.filter(|_| count >= PEERS_PER_ADDRESS_MAX)
    }

    /// Panics when the set's invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        assert!(self.leeches() <= self.len());
        if !self.index.is_empty() {
            assert_eq!(self.index.len(), self.len());
        } else {
            assert!(self.len() <= LINEAR_LEN_MAX);
        }
        for (&address, &place) in &self.index {
            assert_eq!(self.peers[place as usize].address, address);
        }
    }

    /// Every address with whether it is a seed's.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<([u8; N], bool)> {
        self.peers.iter().enumerate().map(|(place, peer)| (peer.address, place >= self.leeches())).collect()
    }
}

const LOOPBACK_V6: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();
const _: () = assert!(PEERS_PER_ADDRESS_MAX > LINEAR_LEN_MAX && INDEX_LEN_MIN <= LINEAR_LEN_MAX);
const _: () = assert!(PEERS_PER_SWARM_MAX <= u32::MAX as usize);
