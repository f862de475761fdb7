//! Whom to dial for an info dictionary, and when again. Pure; bounded in number.
//!
//! Addresses cost a stranger nothing, so everything is shared out by address prefix (/24, /64), and inside a prefix by
//! address (/64 of IPv6): whose prefix has the fewest connections is dialled first, then whose dials have come to nothing
//! least often, and a wrong dictionary counts like many of these. So one honest peer is dialled among the first, however
//! many others a hostile network has named before. When the table is full, a newcomer takes the place of one of the
//! prefix that has most.
//!
//! Who may name an address says [`Scope`]: a tracker names nobody nearer than it is itself, so that it cannot aim us at
//! this machine and its network. A link may, since users pass such links on inside their networks, but only above the
//! ports of well-known services.
//!
//! Deliberately absent: how long a connection may last; see [`super::stay`].

use super::talk::Ended;
use crate::id::AddressPrefix;
use crate::limits::{
    CANDIDATES_PER_ADDRESS_MAX, MAGNET_CANDIDATES_MAX, MAGNET_DIALLED_MAX, MAGNET_DIALLED_PER_ADDRESS_MAX,
    MAGNET_DIALLED_PER_PREFIX_MAX, MAGNET_DIALS_PER_PEER_MAX, MAGNET_LIE_WEIGHT, MAGNET_NAMED_AT_ONCE_MAX,
    MAGNET_REDIAL_INTERVAL,
};
use crate::peer_list::{Scope, dialable, party};
use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Who named an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The user, who may name what he likes.
    User,
    /// The link.
    Link,
    /// A tracker whose address carries so far.
    Tracker(Scope),
}

impl Source {
    fn may_name(self, ip: IpAddr, port: u16) -> bool {
        match self {
            Self::User => true,
            Self::Link => Scope::Global.may_name(ip) || port >= WELL_KNOWN_PORTS,
            Self::Tracker(scope) => scope.may_name(ip),
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    of_user: bool,
    prefix: AddressPrefix,
    /// The place among all, for the order of dialling.
    number: u32,
    dials: u32,
    is_talking: bool,
    has_answered: bool,
    banned: bool,
    ready_at: Instant,
}

impl Candidate {
    fn is_ready(&self, now: Instant) -> bool {
        !self.is_talking && !self.banned && self.dials < MAGNET_DIALS_PER_PEER_MAX && now >= self.ready_at
    }

    /// Whether it may go for a newcomer.
    fn is_evictable(&self) -> bool {
        !self.of_user && !self.is_talking
    }

    /// How well it can be done without.
    fn worthlessness(&self) -> u32 {
        match (self.banned, self.dials > 0, self.has_answered) {
            (true, ..) => 3,
            (_, true, false) => 2,
            (_, true, true) => 1,
            (_, false, _) => 0,
        }
    }
}

/// What the candidates of a prefix, or those at an address, have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Common {
    known: usize,
    talking: usize,
    /// Dials that came to nothing; a wrong dictionary counts as [`MAGNET_LIE_WEIGHT`].
    fruitless: u32,
}

/// All addresses.
#[derive(Debug)]
pub(super) struct Candidates {
    since: Instant,
    all: BTreeMap<SocketAddr, Candidate>,
    prefixes: BTreeMap<AddressPrefix, Common>,
    parties: BTreeMap<SocketAddr, Common>,
    number_next: u32,
    talking: usize,
    dials: u32,
    tried: usize,
}

/// The first and the last address.
const EVERYBODY: (SocketAddr, SocketAddr) = (
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from_bits(u128::MAX)), u16::MAX),
);

/// The first address of those that one party usually holds: the IPv4 address, the /64 of IPv6.
fn party_of(address: SocketAddr) -> SocketAddr {
    party(address.ip()).0
}

impl Candidates {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            since: now,
            all: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            parties: BTreeMap::new(),
            number_next: 0,
            talking: 0,
            dials: 0,
            tried: 0,
        }
    }

    pub(super) fn add(&mut self, source: Source, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses.into_iter().take(MAGNET_NAMED_AT_ONCE_MAX) {
            let Some(address) = dialable(address) else { continue };
            if source.may_name(address.ip(), address.port()) && !self.all.contains_key(&address) {
                self.add_one(source == Source::User, address);
            }
        }
    }

    fn add_one(&mut self, of_user: bool, address: SocketAddr) {
        let (prefix, its_party) = (AddressPrefix::of(address.ip()), party_of(address));
        let of_party = self.parties.get(&its_party).map_or(0, |party| party.known);
        let is_full = self.all.len() >= MAGNET_CANDIDATES_MAX;
        let of_address = Scope::of(address.ip()) == Scope::Global && of_party >= CANDIDATES_PER_ADDRESS_MAX;
        if !of_user && of_address {
            // Who was tried in vain may go for somebody else at the same address.
            let Some(victim) = self.worst_among(party(address.ip())) else { return };
            if self.all.get(&victim).is_none_or(|victim| victim.dials == 0) {
                return;
            }
            self.forget(victim);
        } else if is_full {
            let Some(victim) = self.worst_among(EVERYBODY) else { return };
            if !self.gives_way(victim, prefix, of_user) {
                return;
            }
            self.forget(victim);
        }
        let candidate = Candidate {
            of_user,
            prefix,
            number: self.number_next,
            dials: 0,
            is_talking: false,
            has_answered: false,
            banned: false,
            ready_at: self.since,
        };
        self.number_next += 1;
        self.all.insert(address, candidate);
        self.prefixes.entry(prefix).or_default().known += 1;
        self.parties.entry(its_party).or_default().known += 1;
    }

    /// Of those between two addresses that may go, one of the prefix and of the address with most; who was tried in vain
    /// first, then the oldest.
    fn worst_among(&self, (first, last): (SocketAddr, SocketAddr)) -> Option<SocketAddr> {
        let evictable = self.walk(first, last).filter(|(_, one, ..)| one.is_evictable());
        let worst = evictable.max_by_key(|(_, one, of_prefix, of_party)| {
            (of_prefix.known, of_party.known, one.worthlessness(), Reverse(one.number))
        });
        worst.map(|(address, ..)| address)
    }

    /// Those between two addresses in their order, each with what its prefix and its party have in common: neighbours have
    /// the same.
    fn walk(
        &self,
        first: SocketAddr,
        last: SocketAddr,
    ) -> impl Iterator<Item = (SocketAddr, &Candidate, Common, Common)> {
        let (mut prefix, mut its_party) = (None, None);
        self.all.range(first..=last).map(move |(&address, one)| {
            if prefix.is_none_or(|(of, _)| of != one.prefix) {
                prefix = Some((one.prefix, self.prefixes.get(&one.prefix).copied().unwrap_or_default()));
            }
            let of_prefix = prefix.map(|(_, common)| common).unwrap_or_default();
            if its_party.is_none_or(|((_, end), _)| address > end) {
                let common = self.parties.get(&party_of(address)).copied().unwrap_or_default();
                its_party = Some((party(address.ip()), common));
            }
            (address, one, of_prefix, its_party.map(|(_, common)| common).unwrap_or_default())
        })
    }

    /// Whether `victim` goes for a newcomer of `prefix`: its prefix has still as many afterwards, or it was tried in vain.
    fn gives_way(&self, victim: SocketAddr, prefix: AddressPrefix, of_user: bool) -> bool {
        let Some(candidate) = self.all.get(&victim) else { return false };
        let (theirs, newcomers) = (self.prefix(candidate.prefix).known, self.prefix(prefix).known);
        of_user || theirs > newcomers + 1 || candidate.dials > 0 && theirs >= newcomers
    }

    fn forget(&mut self, address: SocketAddr) {
        let Some(candidate) = self.all.remove(&address) else { return };
        self.tried -= usize::from(candidate.dials > 0);
        let party = party_of(address);
        if let Some(of_prefix) = self.prefixes.get_mut(&candidate.prefix) {
            of_prefix.known -= 1;
            if of_prefix.known == 0 {
                self.prefixes.remove(&candidate.prefix);
            }
        }
        if let Some(of_party) = self.parties.get_mut(&party) {
            of_party.known -= 1;
            if of_party.known == 0 {
                self.parties.remove(&party);
            }
        }
    }

    fn prefix(&self, prefix: AddressPrefix) -> Common {
        self.prefixes.get(&prefix).copied().unwrap_or_default()
    }

    /// The address to dial now, which counts as dialled then; see the module for the order.
    pub(super) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        if self.talking >= MAGNET_DIALLED_MAX {
            return None;
        }
        let ready = self.walk(EVERYBODY.0, EVERYBODY.1).filter(|(address, one, of_prefix, of_party)| {
            let has_share = of_prefix.talking < MAGNET_DIALLED_PER_PREFIX_MAX
                && of_party.talking < MAGNET_DIALLED_PER_ADDRESS_MAX;
            // All of this machine's clients have the same address.
            one.is_ready(now) && (has_share || one.of_user || Scope::of(address.ip()) == Scope::Loopback)
        });
        let best = ready.min_by_key(|(_, one, of_prefix, of_party)| {
            let is_wish = one.of_user && one.dials == 0;
            let common = |common: &Common| (common.talking, common.fruitless);
            (!is_wish, common(of_prefix), common(of_party), one.dials, one.number)
        });
        let address = best?.0;
        let candidate = self.all.get_mut(&address)?;
        self.tried += usize::from(candidate.dials == 0);
        candidate.dials += 1;
        candidate.is_talking = true;
        self.dials += 1;
        self.count(address, |common| common.talking += 1);
        self.talking += 1;
        Some(address)
    }

    /// Whether somebody could be dialled, were there room.
    pub(super) fn has_waiting(&self, now: Instant) -> bool {
        self.all.values().any(|candidate| candidate.is_ready(now))
    }

    /// Changes what the candidates of this address's prefix, and those at it, have in common.
    fn count(&mut self, address: SocketAddr, change: impl Fn(&mut Common)) {
        let (prefix, party) = (AddressPrefix::of(address.ip()), party_of(address));
        self.prefixes.get_mut(&prefix).map(&change);
        self.parties.get_mut(&party).map(&change);
    }

    /// A connection is over.
    pub(super) fn handle_end(&mut self, now: Instant, address: SocketAddr, ended: Ended) {
        let Some(candidate) = self.all.get_mut(&address).filter(|candidate| candidate.is_talking) else {
            return;
        };
        candidate.is_talking = false;
        candidate.ready_at = now + MAGNET_REDIAL_INTERVAL;
        let weight = match ended {
            Ended::Unreachable => 1,
            Ended::Liar | Ended::Useless => {
                candidate.banned = true;
                if ended == Ended::Liar { MAGNET_LIE_WEIGHT } else { 1 }
            }
            Ended::Left | Ended::Idle => {
                candidate.has_answered = true;
                // Who has been heard may be heard again: a peer that fetches like us has it later.
                candidate.dials = candidate.dials.min(1);
                1
            }
        };
        self.talking -= 1;
        self.count(address, |common| {
            common.talking -= 1;
            common.fruitless = common.fruitless.saturating_add(weight);
        });
    }

    pub(super) fn known(&self) -> usize {
        self.all.len()
    }

    /// Addresses dialled at least once and still known.
    pub(super) fn tried(&self) -> usize {
        self.tried
    }

    /// Dials so far.
    pub(super) fn dials(&self) -> u32 {
        self.dials
    }

    /// Peers that have answered and are gone.
    pub(super) fn reached(&self) -> usize {
        self.all.values().filter(|candidate| candidate.has_answered && !candidate.is_talking).count()
    }

    /// Everybody that may be dialled for the content: those that talk or have talked first.
    pub(super) fn into_best_first(self) -> Vec<SocketAddr> {
        let mut rest: Vec<_> = self.all.into_iter().filter(|(_, candidate)| !candidate.banned).collect();
        rest.sort_by_key(|(_, candidate)| {
            (!(candidate.is_talking || candidate.has_answered), !candidate.of_user, candidate.number)
        });
        rest.into_iter().map(|(address, _)| address).collect()
    }
}

/// Below it stand the services that a link must not aim us at in our own network.
const WELL_KNOWN_PORTS: u16 = 1024;

#[cfg(test)]
#[path = "candidates_tests.rs"]
mod tests;
