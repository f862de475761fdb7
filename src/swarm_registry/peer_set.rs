//! The peers of one swarm and one address family, keyed by their compact address.
//!
//! Records stand densely in one vector, those that want pieces before those that do not (seeds, and partial seeds of
//! BEP 21), so that a random selection is a few random indices and "only who wants pieces" is a prefix. A small set is searched from end to end; above
//! [`LINEAR_LEN_MAX`] records an ordered index from address to place stands beside it. The key is the wire
//! form (BEP 23, BEP 7): a selection is copied, never formatted.
//!
//! Invariant: `peers[..wanting]` are those that want pieces, no address occurs twice, the index is either empty or
//! names every record's place, and every record is counted in the shares that all calls are given.

use super::shares::Shares;
use crate::id::Site;
use crate::limits::{EVICTION_LOOKS, PEERS_PER_ADDRESS_MAX, PEERS_PER_SITE_MAX, PEERS_PER_SWARM_MAX};
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
    wanting: u32,
    partial_seeds: u32,
    /// Records below this place are still to be looked at in the sweep under way; zero between sweeps.
    sweep_place: u32,
    #[expect(clippy::box_collection, reason = "most sets have none, and the place for it costs them memory")]
    index: Option<Box<BTreeMap<[u8; N], u32>>>,
}

/// What the set keeps of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer<const N: usize> {
    address: [u8; N],
    role: Role,
    completed: bool,
    announced_secs: u32,
}

/// What a peer wants of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Pieces.
    Leech,
    /// Nothing, although pieces are missing (BEP 21).
    PartialSeed,
    /// Nothing, since it has all.
    Seed,
}

impl Role {
    pub(super) fn wants(self) -> bool {
        self == Self::Leech
    }
}

/// What an announce says about its peer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Visit {
    pub(super) role: Role,
    /// A download has come to its end.
    pub(super) completed: bool,
    pub(super) now_secs: u32,
    /// A newcomer may be kept.
    pub(super) room: bool,
}

const _: () = assert!(size_of::<Peer<6>>() == 12 && size_of::<Peer<18>>() == 24);
const _: () = assert!(size_of::<PeerSet<6>>() == 48 && size_of::<PeerSet<18>>() == 48);

/// What an announce did to the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    /// The peer stands at this place; `completed_now` when its download has just come to its end.
    At { place: usize, completed_now: bool },
    /// There is no room and the peer was not in it.
    Full,
}

impl<const N: usize> PeerSet<N> {
    /// A set of nobody.
    pub(super) const fn new() -> Self {
        Self { peers: Vec::new(), wanting: 0, partial_seeds: 0, sweep_place: 0, index: None }
    }

    /// Enters a peer or renews its record; a newcomer only when there is `room`. Where its address, its site or the whole
    /// swarm has as many peers as may be, it takes another's place: the oldest of that address or site, or the poorest
    /// claim among a few of the swarm.
    pub(super) fn enter(
        &mut self,
        address: [u8; N],
        visit: Visit,
        shares: &mut Shares,
        rng: &mut Rng,
    ) -> Entered {
        let known = self.place_of(&address);
        let had_completed = known.is_some_and(|place| self.peers[place].completed);
        let Visit { role, completed, now_secs, room } = visit;
        let still_completed = completed || had_completed && !role.wants();
        let peer = Peer { address, role, completed: still_completed, announced_secs: now_secs };
        let completed_now = completed && !had_completed;
        if let Some(place) = known {
            let old = self.peers[place].role;
            if old.wants() == role.wants() {
                self.partial_seeds -= u32::from(old == Role::PartialSeed);
                self.partial_seeds += u32::from(role == Role::PartialSeed);
                self.peers[place] = peer;
                return Entered::At { place, completed_now };
            }
            self.remove_at(place, shares);
        } else if let Some(oldest) = self.oldest_of_crowd(&address, shares) {
            self.remove_at(oldest, shares);
        } else if !room {
            return Entered::Full;
        } else if self.len() >= PEERS_PER_SWARM_MAX
            && let Some((place, _)) = self.poorest_of(EVICTION_LOOKS, shares, rng)
        {
            self.remove_at(place, shares);
        }
        Entered::At { place: self.insert(peer, shares), completed_now }
    }

    /// Looks at `looks` random records. Returns the place of the one whose site holds most of all swarms' peers, the
    /// oldest of such, with what that site holds; `None` without records.
    pub(super) fn poorest_of(&self, looks: usize, shares: &Shares, rng: &mut Rng) -> Option<(usize, usize)> {
        let looked_at = (0..looks.min(self.len())).map(|_| rng.index(self.len()));
        let claims = looked_at.map(|place| (place, shares.held(Site::of_bytes(&self.peers[place].address))));
        claims.min_by_key(|&(place, held)| (std::cmp::Reverse(held), self.peers[place].announced_secs))
    }

    /// What the site holds that holds least, of those of a few records spread over the set; `None` without records.
    pub(super) fn poorest_site(&self, looks: usize, held: impl Fn(Site) -> usize) -> Option<usize> {
        let step = self.len().div_ceil(looks.max(1)).max(1);
        self.peers.iter().step_by(step).map(|peer| held(Site::of_bytes(&peer.address))).min()
    }

    /// Whether the peer has a record.
    pub(super) fn knows(&self, address: &[u8; N]) -> bool {
        self.place_of(address).is_some()
    }

    /// Every record: address, role, whether its download came to its end here, and when it was heard of.
    pub(super) fn records(&self) -> impl Iterator<Item = ([u8; N], Role, bool, u32)> + '_ {
        self.peers.iter().map(|peer| (peer.address, peer.role, peer.completed, peer.announced_secs))
    }

    /// Enters a record of earlier as it was, if its address has none, and room for one.
    pub(super) fn restore(
        &mut self,
        address: [u8; N],
        role: Role,
        completed: bool,
        announced_secs: u32,
        shares: &mut Shares,
    ) {
        let is_full = self.len() >= PEERS_PER_SWARM_MAX || self.oldest_of_crowd(&address, shares).is_some();
        if !is_full && !self.knows(&address) {
            self.insert(Peer { address, role, completed, announced_secs }, shares);
        }
    }

    /// Removes every record.
    pub(super) fn clear(&mut self, shares: &mut Shares) {
        for peer in &self.peers {
            shares.leave(Site::of_bytes(&peer.address));
        }
        *self = Self::default();
    }

    /// Removes a peer; whether it was there.
    pub(super) fn leave(&mut self, address: &[u8; N], shares: &mut Shares) -> bool {
        let place = self.place_of(address);
        if let Some(place) = place {
            self.remove_at(place, shares);
        }
        place.is_some()
    }

    /// Looks at up to `work` records and removes those last heard of before `alive_since_secs`. Returns the
    /// number looked at; the pass is through when that is less than `work`, or [`Self::is_swept`].
    pub(super) fn sweep(&mut self, alive_since_secs: u32, work: usize, shares: &mut Shares) -> usize {
        if self.sweep_place == 0 {
            self.sweep_place = self.len() as u32; // bounded by PEERS_PER_SWARM_MAX
        }
        // From the end down: a record moved into a gap comes from a place already looked at.
        let start = (self.sweep_place as usize).min(self.len());
        let end = start.saturating_sub(work);
        for place in (end..start).rev() {
            if self.peers.get(place).is_some_and(|peer| peer.announced_secs < alive_since_secs) {
                self.remove_at(place, shares);
            }
        }
        self.sweep_place = end as u32;
        start - end
    }

    /// Whether no sweep is under way.
    pub(super) fn is_swept(&self) -> bool {
        self.sweep_place == 0
    }

    /// Appends up to `wanted` peers heard of since `alive_since_secs`, in compact form: those that want pieces, and the
    /// others too when `with_seeds`; never the one at `asker`. Every peer is as likely as every other. Returns their
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
        let len = if with_seeds { self.len() } else { self.wanting as usize };
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

    /// Leeches, partial seeds among them.
    pub(super) fn leeches(&self) -> usize {
        (self.wanting + self.partial_seeds) as usize
    }

    /// Partial seeds.
    pub(super) fn partial_seeds(&self) -> usize {
        self.partial_seeds as usize
    }

    /// Seeds.
    pub(super) fn seeds(&self) -> usize {
        self.len() - self.leeches()
    }

    fn place_of(&self, address: &[u8; N]) -> Option<usize> {
        match &self.index {
            None => self.peers.iter().position(|peer| peer.address == *address),
            Some(index) => index.get(address).map(|&place| place as usize),
        }
    }

    fn insert(&mut self, peer: Peer<N>, shares: &mut Shares) -> usize {
        shares.enter(Site::of_bytes(&peer.address));
        self.partial_seeds += u32::from(peer.role == Role::PartialSeed);
        let mut place = self.len();
        if place == 0 {
            // Most swarms have one peer.
            self.peers.reserve_exact(1);
        }
        self.peers.push(peer);
        if peer.role.wants() {
            self.peers.swap(place, self.wanting as usize);
            self.renumber(place);
            place = self.wanting as usize;
            self.wanting += 1;
        }
        if let Some(index) = &mut self.index {
            index.insert(peer.address, place as u32);
        } else if self.len() > LINEAR_LEN_MAX {
            let places = (0..).zip(&self.peers).map(|(place, peer)| (peer.address, place)).collect();
            self.index = Some(Box::new(places));
        }
        place
    }

    /// Removes the record at `place`, which must be one.
    pub(super) fn remove_at(&mut self, place: usize, shares: &mut Shares) {
        let mut gap = place;
        let Peer { address, role, .. } = self.peers[place];
        shares.leave(Site::of_bytes(&address));
        self.partial_seeds -= u32::from(role == Role::PartialSeed);
        if role.wants() {
            self.wanting -= 1;
            gap = self.wanting as usize;
            self.peers.swap(place, gap);
        }
        self.peers.swap_remove(gap);
        if self.len() < INDEX_LEN_MIN {
            self.index = None;
        } else if let Some(index) = &mut self.index {
            index.remove(&address);
            self.renumber(place);
            self.renumber(gap);
        }
        if self.peers.capacity() > 4 * self.len().max(4) {
            self.peers.shrink_to(2 * self.len());
        }
    }

    /// Writes down where the record at `place`, if any, now stands.
    fn renumber(&mut self, place: usize) {
        if let (Some(peer), Some(index)) = (self.peers.get(place), &mut self.index) {
            index.insert(peer.address, place as u32);
        }
    }

    /// The place of the oldest peer with the address (IPv4) or network (the /64 of IPv6) of `address`, when there are as
    /// many as may be, or else that of its site. Loopback is exempt, since every local swarm lives there.
    fn oldest_of_crowd(&self, address: &[u8; N], shares: &Shares) -> Option<usize> {
        let is_loopback = if N == 6 { address[0] == 127 } else { address.starts_with(&LOOPBACK_V6) };
        if is_loopback || self.len() < PEERS_PER_ADDRESS_MAX {
            return None;
        }
        // A site has no more peers here than in all swarms, which is little for most newcomers.
        let held = shares.held_alone(Site::of_bytes(address));
        let owner_len = if N == 6 { 4 } else { 8 };
        let crowd = [(owner_len, PEERS_PER_ADDRESS_MAX), (Site::bytes_of(N), PEERS_PER_SITE_MAX)];
        let is_crowd = |&(len, count): &(usize, usize)| held >= count && self.has_alike(address, len, count);
        let (len, _) = crowd.into_iter().find(is_crowd)?;
        self.alike(address, len).min_by_key(|&place| self.peers[place].announced_secs)
    }

    /// Whether there are `count` peers that share the first `len` bytes of `address`.
    fn has_alike(&self, address: &[u8; N], len: usize, count: usize) -> bool {
        self.len() >= count && self.alike(address, len).take(count).count() == count
    }

    /// The places of peers that share the first `len` bytes of `address`, in sets that have an index.
    fn alike(&self, address: &[u8; N], len: usize) -> impl Iterator<Item = usize> + '_ {
        let (mut low, mut high) = (*address, *address);
        low[len..].fill(0);
        high[len..].fill(0xff);
        // The index exists where there are as many as PEERS_PER_ADDRESS_MAX, which lies above LINEAR_LEN_MAX.
        let places = self.index.iter().flat_map(move |index| index.range(low..=high));
        places.map(|(_, &place)| place as usize)
    }

    /// Panics when the set's invariant does not hold.
    #[cfg(test)]
    pub(super) fn check(&self) {
        let (wanting, others) = self.peers.split_at(self.wanting as usize);
        assert!(wanting.iter().all(|peer| peer.role.wants()));
        assert!(!others.iter().any(|peer| peer.role.wants()));
        let partial_seeds = others.iter().filter(|peer| peer.role == Role::PartialSeed).count();
        assert_eq!(partial_seeds, self.partial_seeds());
        let Some(index) = &self.index else { return assert!(self.len() <= LINEAR_LEN_MAX) };
        assert_eq!(index.len(), self.len());
        for (&address, &place) in index.iter() {
            assert_eq!(self.peers[place as usize].address, address);
        }
    }

    /// Every address with whether it is a seed's.
    #[cfg(test)]
    pub(super) fn addresses(&self) -> Vec<([u8; N], bool)> {
        self.peers.iter().map(|peer| (peer.address, peer.role == Role::Seed)).collect()
    }
}

const LOOPBACK_V6: [u8; 16] = std::net::Ipv6Addr::LOCALHOST.octets();
const _: () = assert!(PEERS_PER_SITE_MAX >= PEERS_PER_ADDRESS_MAX);
const _: () = assert!(PEERS_PER_ADDRESS_MAX > LINEAR_LEN_MAX && INDEX_LEN_MIN <= LINEAR_LEN_MAX);
const _: () = assert!(PEERS_PER_SWARM_MAX <= u32::MAX as usize);
