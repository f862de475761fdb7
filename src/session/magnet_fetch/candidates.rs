//! Whom to dial for an info dictionary, and when again. Pure; bounded in number.
//!
//! Addresses that strangers name are dialled with some care: never what is no single host, and inside the machine and
//! its own network only above the ports of well-known services, so that a link or a tracker cannot aim us at those.

use super::talk::Ended;
use crate::limits::{MAGNET_CANDIDATES_MAX, MAGNET_DIALS_PER_PEER_MAX, MAGNET_REDIAL_INTERVAL};
use crate::time::Instant;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// Who named an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    /// The user, who may name what he likes.
    User,
    /// The link or a tracker.
    Stranger,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    source: Source,
    /// The place among all, for the order of dialling.
    number: u32,
    dials: u32,
    is_talking: bool,
    has_answered: bool,
    banned: bool,
    ready_at: Instant,
}

/// All addresses.
#[derive(Debug)]
pub(super) struct Candidates {
    since: Instant,
    all: BTreeMap<SocketAddr, Candidate>,
    dials: u32,
}

impl Candidates {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, all: BTreeMap::new(), dials: 0 }
    }

    pub(super) fn add(&mut self, source: Source, addresses: impl IntoIterator<Item = SocketAddr>) {
        for address in addresses {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            if !is_dialable(source, address) || self.all.len() >= MAGNET_CANDIDATES_MAX {
                continue;
            }
            let number = self.all.len() as u32;
            let candidate = Candidate {
                source,
                number,
                dials: 0,
                is_talking: false,
                has_answered: false,
                banned: false,
                ready_at: self.since,
            };
            self.all.entry(address).or_insert(candidate);
        }
    }

    /// The address to dial now, which counts as dialled then: first those never tried, in the order of their coming.
    pub(super) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        let ready = self.all.iter_mut().filter(|(_, candidate)| {
            !candidate.is_talking
                && !candidate.banned
                && candidate.dials < MAGNET_DIALS_PER_PEER_MAX
                && now >= candidate.ready_at
        });
        let best = ready.min_by_key(|(_, candidate)| (candidate.dials, candidate.source, candidate.number));
        let (&address, candidate) = best?;
        candidate.dials += 1;
        candidate.is_talking = true;
        self.dials += 1;
        Some(address)
    }

    /// A connection is over.
    pub(super) fn handle_end(&mut self, now: Instant, address: SocketAddr, ended: Ended) {
        let Some(candidate) = self.all.get_mut(&address) else { return };
        candidate.is_talking = false;
        candidate.ready_at = now + MAGNET_REDIAL_INTERVAL;
        match ended {
            Ended::Unreachable => {}
            Ended::Liar | Ended::Useless => candidate.banned = true,
            Ended::Left | Ended::Idle => {
                candidate.has_answered = true;
                // Who has been heard may be heard again: a peer that fetches like us has it later.
                candidate.dials = candidate.dials.min(1);
            }
        }
    }

    pub(super) fn known(&self) -> usize {
        self.all.len()
    }

    /// Addresses dialled at least once.
    pub(super) fn tried(&self) -> usize {
        self.all.values().filter(|candidate| candidate.dials > 0).count()
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
            (!(candidate.is_talking || candidate.has_answered), candidate.source, candidate.number)
        });
        rest.into_iter().map(|(address, _)| address).collect()
    }
}

/// Below it stand the services that a stranger must not aim us at in our own network.
const WELL_KNOWN_PORTS: u16 = 1024;

fn is_dialable(source: Source, address: SocketAddr) -> bool {
    let (single, ours) = match address.ip() {
        IpAddr::V4(ip) => (
            !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast(),
            ip.is_private() || ip.is_loopback() || ip.is_link_local(),
        ),
        IpAddr::V6(ip) => (
            !ip.is_unspecified() && !ip.is_multicast(),
            ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
        ),
    };
    address.port() != 0 && single && (source == Source::User || !ours || address.port() >= WELL_KNOWN_PORTS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    // HOSTILE 16
    #[test]
    fn strangers_cannot_aim_us_at_services_of_our_own_network() {
        for (text, by_stranger) in [
            ("192.0.2.1:80", true),
            ("10.0.0.1:80", false),
            ("10.0.0.1:6881", true),
            ("127.0.0.1:22", false),
            ("[::1]:443", false),
            ("[::ffff:10.0.0.1]:80", false),
            ("[fd00::1]:25", false),
        ] {
            let mut candidates = Candidates::new(Instant::ZERO);
            candidates.add(Source::Stranger, [address(text)]);
            assert_eq!(candidates.known() == 1, by_stranger, "{text}");
            candidates.add(Source::User, [address(text)]);
            assert_eq!(candidates.known(), 1, "{text}");
        }
        for text in
            ["0.0.0.0:6881", "224.0.0.1:6881", "255.255.255.255:6881", "[ff02::1]:6881", "192.0.2.1:0"]
        {
            assert!(!is_dialable(Source::User, address(text)), "{text}");
        }
    }

    #[test]
    fn the_untried_come_first_and_liars_never_again() {
        let mut candidates = Candidates::new(Instant::ZERO);
        let [one, two, three] = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].map(address);
        candidates.add(Source::Stranger, [one, two, one]);
        candidates.add(Source::User, [three]);
        let order: Vec<_> = std::iter::from_fn(|| candidates.next(Instant::ZERO)).collect();
        assert_eq!(order, [three, one, two]);
        candidates.handle_end(Instant::ZERO, one, Ended::Liar);
        candidates.handle_end(Instant::ZERO, two, Ended::Idle);
        candidates.handle_end(Instant::ZERO, three, Ended::Unreachable);
        assert_eq!(candidates.next(Instant::ZERO), None);
        let later = Instant::ZERO + MAGNET_REDIAL_INTERVAL;
        assert_eq!(
            [candidates.next(later), candidates.next(later), candidates.next(later)],
            [Some(three), Some(two), None]
        );
        assert_eq!(candidates.into_best_first(), [three, two]);
    }

    #[test]
    fn who_is_never_reached_is_given_up_and_the_list_is_bounded() {
        let mut candidates = Candidates::new(Instant::ZERO);
        candidates.add(Source::User, (0..5_000).map(|port| SocketAddr::from(([192, 0, 2, 1], port))));
        assert_eq!(candidates.known(), MAGNET_CANDIDATES_MAX);
        let mut candidates = Candidates::new(Instant::ZERO);
        candidates.add(Source::User, [address("192.0.2.1:1")]);
        let mut now = Instant::ZERO;
        let mut dials = 0;
        for _ in 0..1_000 {
            now += Duration::from_secs(10);
            if let Some(dialled) = candidates.next(now) {
                dials += 1;
                candidates.handle_end(now, dialled, Ended::Unreachable);
            }
        }
        assert_eq!((dials, candidates.tried()), (MAGNET_DIALS_PER_PEER_MAX, 1));
    }
}
