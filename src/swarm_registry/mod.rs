//! A tracker's memory: which peers are in which swarm (BEP 3), as pure state.
//!
//! An announce enters, renews or removes a peer and is answered with a random, bounded selection of the
//! others. A peer is its address and port, and IPv4 and IPv6 stand apart, since who has one family may not
//! reach the other. Seeds, and partial seeds that announce themselves as paused (BEP 21), are given only peers that want
//! pieces. A peer that was silent for the registry's lifetime is given
//! to nobody, and removed by sweeps whose work each caller bounds.
//!
//! Bounds on swarms and peers stand in `limits`, and are shared out by site (`shares`): a site may hold as many records as
//! are left free and no more than a fixed number, so that one alone takes little memory; the sites of a /32 of IPv6 together
//! may hold as many as are left free, which is half of a table for one of them alone, and there is always room for who holds little. For more it has to
//! push out a record of a site that holds at least as many, the poorest of a few that are looked at: the emptiest swarm,
//! the peer not heard of for longest. Who finds none is answered but not kept.
//!
//! Maps are ordered, so that no choice of info-hashes makes a lookup slow. Peer ids and claimed addresses are
//! deliberately not kept; allow and deny lists are the shell's.

mod family;
mod peer_set;
mod shares;
mod snapshot;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod tests;

pub use snapshot::DamagedPiece;

use crate::id::{InfoHash, Site};
use crate::limits::{
    ANNOUNCE_SWEEP_PEERS, EVICTION_LOOKS, REGISTRY_PEERS_MAX, REGISTRY_PEERS_PER_SITE_MAX, SWARM_LINGER,
    SWARMS_MAX, SWARMS_PER_SITE_MAX,
};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::tracker_wire::{AnnounceEvent, ScrapeEntry};
use family::Family;
use peer_set::{Entered, PeerSet, Role, Visit};
use shares::Shares;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;

/// All swarms of one tracker.
#[derive(Clone, Debug)]
pub struct SwarmRegistry {
    swarms: BTreeMap<InfoHash, Swarm>,
    peer_lifetime_secs: u32,
    secret: [u8; 16],
    figures: RegistryFigures,
    /// Where the sweep over all swarms goes on: at this swarm, and whether at its IPv6 peers.
    sweep_next: Option<(InfoHash, bool)>,
    /// Swarms by the site that founded them.
    founded: Shares,
    /// Peers by their site.
    present: Shares,
    /// The swarm behind which the next look for a poor claim begins.
    looked_at: InfoHash,
    bounds: Bounds,
}

/// What a registry holds at most.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    swarms: usize,
    peers: usize,
    swarms_of_site: usize,
    peers_of_site: usize,
}

impl Bounds {
    /// So many swarms and peers, of which a site may have all that are left free.
    #[cfg(test)]
    fn of(swarms: usize, peers: usize) -> Self {
        Self { swarms, peers, swarms_of_site: swarms, peers_of_site: peers }
    }
}

/// Sums over all swarms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegistryFigures {
    /// Torrents known.
    pub swarms: u64,
    /// Seeds with IPv4 addresses.
    pub seeds_v4: u64,
    /// Seeds with IPv6 addresses.
    pub seeds_v6: u64,
    /// Leeches with IPv4 addresses.
    pub leeches_v4: u64,
    /// Leeches with IPv6 addresses.
    pub leeches_v6: u64,
    /// Downloads completed since the start.
    pub completed: u64,
}

/// An announce as the registry needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announce {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The source address with the port the client accepts peers on. With port zero the client is answered
    /// but not entered.
    pub address: SocketAddr,
    /// Nothing is left to download.
    pub is_seed: bool,
    /// Why it announces.
    pub event: AnnounceEvent,
    /// Peers to give at most.
    pub wanted: usize,
    /// Fill up with peers of the other address family when its own has too few; only HTTP can carry both.
    pub both_families: bool,
}

/// Selected peers in compact form; the caller's to reuse.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectedPeers {
    /// Six bytes a peer.
    pub v4: Vec<u8>,
    /// Eighteen bytes a peer.
    pub v6: Vec<u8>,
}

/// What came of an announce, beside the peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Announced {
    /// The swarm's figures, the asker included.
    pub figures: ScrapeEntry,
    /// The announce counted as a completed download.
    pub completed_now: bool,
}

#[derive(Clone, Debug, Default)]
struct Swarm {
    v4: Family<6>,
    v6: Family<18>,
    completed: u32,
    announced_secs: u32,
    founder: Site,
}

const _: () = assert!(size_of::<Swarm>() == 32);

impl SwarmRegistry {
    /// An empty registry that forgets a peer `peer_lifetime` after its last announce; a tracker takes a
    /// little more than twice its interval, so that one lost announce does no harm.
    pub fn new(peer_lifetime: Duration) -> Self {
        Self::keyed(peer_lifetime, [0; 16])
    }

    /// The same with a secret from the kernel's generator, without which strangers could find out which sites are counted
    /// together.
    pub fn keyed(peer_lifetime: Duration, secret: [u8; 16]) -> Self {
        Self {
            swarms: BTreeMap::new(),
            peer_lifetime_secs: u32::try_from(peer_lifetime.as_secs()).unwrap_or(u32::MAX),
            secret,
            figures: RegistryFigures::default(),
            sweep_next: None,
            founded: Shares::new(&secret),
            present: Shares::new(&secret),
            looked_at: InfoHash([0; 20]),
            bounds: Bounds {
                swarms: SWARMS_MAX,
                peers: REGISTRY_PEERS_MAX,
                swarms_of_site: SWARMS_PER_SITE_MAX,
                peers_of_site: REGISTRY_PEERS_PER_SITE_MAX,
            },
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        let lifetime = Duration::from_secs(u64::from(self.peer_lifetime_secs));
        *self = Self::keyed(lifetime, self.secret);
    }

    /// Takes an announce and replaces the content of `peers` by what to answer.
    ///
    /// Costs a lookup among swarms and one among the swarm's peers, the copying of the selection, and a
    /// bounded piece of sweeping.
    pub fn announce(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        announce: &Announce,
        peers: &mut SelectedPeers,
    ) -> Announced {
        peers.v4.clear();
        peers.v6.clear();
        let now_secs = seconds(now);
        let alive_since_secs = self.alive_since_secs(now);
        let address = SocketAddr::new(announce.address.ip().to_canonical(), announce.address.port());
        let enters = announce.event != AnnounceEvent::Stopped && announce.address.port() != 0;
        let room = enters && self.find_room_for_peer(announce.info_hash, address, rng);
        let may_be_new = room && self.find_room_for_swarm(announce.info_hash, address);
        let swarm = match self.swarms.entry(announce.info_hash) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) if may_be_new => {
                let founder = Site::of(address.ip());
                self.figures.swarms += 1;
                self.founded.enter(founder);
                unknown.insert(Swarm { founder, ..Swarm::default() })
            }
            Entry::Vacant(_) => return Announced::default(),
        };
        swarm.announced_secs = now_secs;
        let before = swarm.counts();
        let mut turn = Turn { announce, enters, room, alive_since_secs, now_secs, shares: &mut self.present };
        let (v4, v6) = (&mut swarm.v4, &mut swarm.v6);
        let completed_now = match address.ip() {
            IpAddr::V4(ip) => {
                let key = compact(&ip.octets(), address.port());
                let (completed_now, chosen) = turn.take(v4, key, rng, &mut peers.v4);
                turn.fill_up(v6, chosen, rng, &mut peers.v6);
                completed_now
            }
            IpAddr::V6(ip) => {
                let key = compact(&ip.octets(), address.port());
                let (completed_now, chosen) = turn.take(v6, key, rng, &mut peers.v6);
                turn.fill_up(v4, chosen, rng, &mut peers.v4);
                completed_now
            }
        };
        swarm.v4.settle();
        swarm.v6.settle();
        swarm.completed = swarm.completed.saturating_add(u32::from(completed_now));
        let figures = swarm.figures();
        let (after, is_dead) = (swarm.counts(), swarm.is_dead(now_secs));
        self.figures.completed += u64::from(completed_now);
        self.figures.exchange(before, after);
        if is_dead {
            self.forget(announce.info_hash);
        }
        Announced { figures, completed_now }
    }

    /// Removes silent peers and forgotten swarms, looking at no more than `work` records and swarms and going
    /// on where the last call stopped. Returns the number looked at: less than `work` when all swarms
    /// have been gone through.
    pub fn expire(&mut self, now: Instant, work: usize) -> usize {
        let alive_since_secs = self.alive_since_secs(now);
        let now_secs = seconds(now);
        let mut done = 0;
        while done < work {
            let (from, at_v6) = self.sweep_next.unwrap_or((InfoHash([0; 20]), false));
            let Some((&info_hash, swarm)) = self.swarms.range_mut(from..).next() else {
                self.sweep_next = None;
                break;
            };
            let at_v6 = at_v6 && info_hash == from;
            let before = swarm.counts();
            let (examined, is_swept) = if at_v6 {
                (swarm.v6.sweep(alive_since_secs, work - done, &mut self.present), swarm.v6.is_swept())
            } else {
                (swarm.v4.sweep(alive_since_secs, work - done, &mut self.present), swarm.v4.is_swept())
            };
            done += examined + 1;
            let (after, is_dead) = (swarm.counts(), swarm.is_dead(now_secs));
            self.figures.exchange(before, after);
            if is_dead {
                self.forget(info_hash);
            }
            self.sweep_next = match (is_swept, at_v6) {
                (false, _) => Some((info_hash, at_v6)),
                (true, false) => Some((info_hash, true)),
                (true, true) => successor(info_hash).map(|next| (next, false)),
            };
            if self.sweep_next.is_none() {
                break;
            }
        }
        done
    }

    /// A torrent's figures; zeroes for one that is not known.
    pub fn scrape(&self, info_hash: InfoHash) -> ScrapeEntry {
        self.swarms.get(&info_hash).map(Swarm::figures).unwrap_or_default()
    }

    /// Sums over all swarms.
    pub fn figures(&self) -> RegistryFigures {
        self.figures
    }

    /// Records and swarms that a whole pass of [`Self::expire`] looks at.
    pub fn expiry_work(&self) -> usize {
        // Two visits a swarm, one of each family.
        usize::try_from(self.figures.peers() + 2 * self.figures.swarms).unwrap_or(usize::MAX)
    }

    /// Removes a swarm, its peers included.
    fn forget(&mut self, info_hash: InfoHash) {
        if let Some(mut swarm) = self.swarms.remove(&info_hash) {
            self.figures.exchange(swarm.counts(), [0; 4]);
            swarm.v4.clear(&mut self.present);
            swarm.v6.clear(&mut self.present);
            self.founded.leave(swarm.founder);
            self.figures.swarms -= 1;
        }
    }

    /// Whether a swarm founded from `address` may be kept, if `info_hash` is new; pushes a poorer claim out if need be.
    fn find_room_for_swarm(&mut self, info_hash: InfoHash, address: SocketAddr) -> bool {
        let free = self.bounds.swarms.saturating_sub(self.swarms.len());
        // No site holds more than there are.
        if free > self.swarms.len() && self.swarms.len() < self.bounds.swarms_of_site {
            return true;
        }
        let site = Site::of(address.ip());
        let (held, has_all) =
            (self.founded.held(site), self.founded.held_alone(site) >= self.bounds.swarms_of_site);
        if held < free && !has_all || self.swarms.contains_key(&info_hash) {
            return true;
        }
        let poorest = if has_all {
            self.poorest_swarm(0, |founder| founder == site)
        } else {
            self.poorest_swarm(held.max(free), |_| true)
        };
        poorest.inspect(|&poorest| self.forget(poorest)).is_some()
    }

    /// Of a few swarms, in turn, the poorest claim among those of these founders whose site holds `held_min`: that of the site that holds
    /// most, with the fewest peers, not heard of for longest. A swarm stands for the poorest site that is in it.
    fn poorest_swarm(&mut self, held_min: usize, founded_by: impl Fn(Site) -> bool) -> Option<InfoHash> {
        let from = self.looked_at;
        let behind = self.swarms.range((Bound::Excluded(from), Bound::Unbounded));
        let before = self.swarms.range(..=from);
        let (mut last, mut poorest) = (from, None);
        for (&info_hash, swarm) in behind.chain(before).take(EVICTION_LOOKS) {
            last = info_hash;
            let held_by = |site| self.founded.held(site);
            let founder = held_by(swarm.founder);
            if founder < held_min || !founded_by(swarm.founder) {
                continue;
            }
            let (v4, v6) = (swarm.v4.poorest_site(4, held_by), swarm.v6.poorest_site(4, held_by));
            let held = founder.min(v4.unwrap_or(founder)).min(v6.unwrap_or(founder));
            let alone = self.founded.held_alone(swarm.founder);
            let peers = swarm.v4.len() + swarm.v6.len();
            let claim = (Reverse(held), Reverse(alone), peers, swarm.announced_secs, info_hash);
            if held >= held_min && poorest.is_none_or(|poorest| claim < poorest) {
                poorest = Some(claim);
            }
        }
        self.looked_at = last;
        poorest.map(|(.., info_hash)| info_hash)
    }

    /// Whether a peer at `address` may be kept, if it is new; pushes a poorer claim out if need be.
    fn find_room_for_peer(&mut self, info_hash: InfoHash, address: SocketAddr, rng: &mut Rng) -> bool {
        let count = usize::try_from(self.figures.peers()).unwrap_or(usize::MAX);
        let free = self.bounds.peers.saturating_sub(count);
        // No site holds more than there are.
        if free > count && count < self.bounds.peers_of_site {
            return true;
        }
        let site = Site::of(address.ip());
        let (held, has_all) =
            (self.present.held(site), self.present.held_alone(site) >= self.bounds.peers_of_site);
        held < free && !has_all
            || self.swarms.get(&info_hash).is_some_and(|swarm| swarm.knows(address))
            || !has_all && self.push_out_poorest_peer(held.max(free), rng)
    }

    /// Looks at a few peers of a few swarms, in turn, for the poorest claim among those whose site holds `held_min`, and
    /// removes it. Returns whether there was one.
    fn push_out_poorest_peer(&mut self, held_min: usize, rng: &mut Rng) -> bool {
        const LOOKS_PER_SWARM: usize = 2;
        let from = self.looked_at;
        let behind = self.swarms.range((Bound::Excluded(from), Bound::Unbounded));
        let before = self.swarms.range(..=from);
        let (mut last, mut poorest) = (from, None::<(usize, InfoHash, bool, usize)>);
        for (&info_hash, swarm) in behind.chain(before).take(EVICTION_LOOKS) {
            last = info_hash;
            let v4 = swarm.v4.poorest_of(LOOKS_PER_SWARM, &self.present, rng).map(|claim| (false, claim));
            let v6 = swarm.v6.poorest_of(LOOKS_PER_SWARM, &self.present, rng).map(|claim| (true, claim));
            for (is_v6, (place, held)) in v4.into_iter().chain(v6) {
                if held >= held_min && poorest.is_none_or(|(most, ..)| held > most) {
                    poorest = Some((held, info_hash, is_v6, place));
                }
            }
        }
        self.looked_at = last;
        let Some((_, info_hash, is_v6, place)) = poorest else { return false };
        let Some(swarm) = self.swarms.get_mut(&info_hash) else { return false };
        let before = swarm.counts();
        if is_v6 {
            swarm.v6.remove_at(place, &mut self.present);
            swarm.v6.settle();
        } else {
            swarm.v4.remove_at(place, &mut self.present);
            swarm.v4.settle();
        }
        self.figures.exchange(before, swarm.counts());
        if swarm.completed == 0 && swarm.v4.len() + swarm.v6.len() == 0 {
            self.forget(info_hash);
        }
        true
    }

    /// The second in which a peer still alive `now` was heard of, or a later one.
    fn alive_since_secs(&self, now: Instant) -> u32 {
        seconds(now).saturating_sub(self.peer_lifetime_secs)
    }
}

impl RegistryFigures {
    /// Peers of all kinds.
    pub fn peers(&self) -> u64 {
        self.seeds_v4 + self.seeds_v6 + self.leeches_v4 + self.leeches_v6
    }

    /// Seeds of both families.
    pub fn seeds(&self) -> u64 {
        self.seeds_v4 + self.seeds_v6
    }

    /// Leeches of both families.
    pub fn leeches(&self) -> u64 {
        self.leeches_v4 + self.leeches_v6
    }

    /// Takes one swarm's old counts out and its new ones in.
    fn exchange(&mut self, before: [u64; 4], after: [u64; 4]) {
        let sums = [&mut self.seeds_v4, &mut self.leeches_v4, &mut self.seeds_v6, &mut self.leeches_v6];
        for ((sum, before), after) in sums.into_iter().zip(before).zip(after) {
            *sum = *sum + after - before;
        }
    }
}

impl Swarm {
    fn figures(&self) -> ScrapeEntry {
        ScrapeEntry {
            // Each set is bounded by PEERS_PER_SWARM_MAX, far below 32 bits.
            seeds: (self.v4.seeds() + self.v6.seeds()) as u32,
            completed: self.completed,
            leeches: (self.v4.leeches() + self.v6.leeches()) as u32,
            partial_seeds: (self.v4.partial_seeds() + self.v6.partial_seeds()) as u32,
        }
    }

    /// Whether the peer has a record.
    fn knows(&self, address: SocketAddr) -> bool {
        match address.ip() {
            IpAddr::V4(ip) => self.v4.knows(&compact(&ip.octets(), address.port())),
            IpAddr::V6(ip) => self.v6.knows(&compact(&ip.octets(), address.port())),
        }
    }

    /// In the order of [`RegistryFigures::exchange`].
    fn counts(&self) -> [u64; 4] {
        [self.v4.seeds(), self.v4.leeches(), self.v6.seeds(), self.v6.leeches()].map(|count| count as u64)
    }

    /// Nobody is in it; the count of completed downloads keeps it for a while.
    fn is_dead(&self, now_secs: u32) -> bool {
        let lingers = self.completed > 0
            && u64::from(now_secs.saturating_sub(self.announced_secs)) < SWARM_LINGER.as_secs();
        self.v4.len() + self.v6.len() == 0 && !lingers
    }
}

/// One announce on its way through the two sets of its swarm.
struct Turn<'a> {
    announce: &'a Announce,
    enters: bool,
    /// A newcomer may be kept.
    room: bool,
    alive_since_secs: u32,
    now_secs: u32,
    shares: &'a mut Shares,
}

impl Turn<'_> {
    /// Brings the asker into, or out of, the set of its family and selects from it. Returns whether a
    /// download came to its end, and the number selected.
    fn take<const N: usize>(
        &mut self,
        set: &mut PeerSet<N>,
        key: [u8; N],
        rng: &mut Rng,
        out: &mut Vec<u8>,
    ) -> (bool, usize) {
        set.sweep(self.alive_since_secs, ANNOUNCE_SWEEP_PEERS, self.shares);
        if self.announce.event == AnnounceEvent::Stopped {
            set.leave(&key, self.shares);
            return (false, 0);
        }
        let (asker, completed_now) = if self.enters {
            let completed = self.announce.event == AnnounceEvent::Completed;
            let (role, now_secs, room) = (self.role(), self.now_secs, self.room);
            match set.enter(key, Visit { role, completed, now_secs, room }, self.shares, rng) {
                Entered::At { place, completed_now } => (Some(place), completed_now),
                Entered::Full => (None, false),
            }
        } else {
            (None, false)
        };
        let with_seeds = self.role().wants();
        let wanted = self.announce.wanted;
        (completed_now, set.select(rng, wanted, asker, with_seeds, self.alive_since_secs, out))
    }

    /// Selects from the set of the other family what is still wanted.
    fn fill_up<const N: usize>(&self, set: &PeerSet<N>, chosen: usize, rng: &mut Rng, out: &mut Vec<u8>) {
        if self.announce.both_families && self.announce.event != AnnounceEvent::Stopped {
            let wanted = self.announce.wanted.saturating_sub(chosen);
            set.select(rng, wanted, None, self.role().wants(), self.alive_since_secs, out);
        }
    }

    fn role(&self) -> Role {
        match self.announce.event {
            _ if self.announce.is_seed => Role::Seed,
            AnnounceEvent::Paused => Role::PartialSeed,
            _ => Role::Leech,
        }
    }
}

fn compact<const N: usize>(ip: &[u8], port: u16) -> [u8; N] {
    let mut key = [0; N];
    for (place, byte) in key.iter_mut().zip(ip.iter().copied().chain(port.to_be_bytes())) {
        *place = byte;
    }
    key
}

fn seconds(now: Instant) -> u32 {
    u32::try_from(now.as_secs()).unwrap_or(u32::MAX)
}

/// The next info-hash in order; `None` behind the last.
fn successor(info_hash: InfoHash) -> Option<InfoHash> {
    let mut bytes = info_hash.0;
    for byte in bytes.iter_mut().rev() {
        let (next, overflowed) = byte.overflowing_add(1);
        *byte = next;
        if !overflowed {
            return Some(InfoHash(bytes));
        }
    }
    None
}
