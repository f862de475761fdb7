//! What we know of our own addresses: those never to dial, and the one that the world sees, for BEP 40.
//!
//! `yourip` (BEP 10) is hearsay. It counts once three networks say the same and more say it than anything else; one
//! network has one vote, its latest.

use super::address::{Scope, dialable};
use super::priority::canonical_priority;
use crate::id::AddressPrefix;
use crate::limits::{OWN_ADDRESS_VOTES_MAX, OWN_ADDRESS_VOTES_MIN, OWN_ADDRESSES_MAX};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};

#[derive(Clone, Debug, Default)]
pub(super) struct OwnAddresses {
    /// Oldest first.
    known: VecDeque<SocketAddr>,
    /// As others see us, by family: IPv4, IPv6.
    external: [Option<SocketAddr>; 2],
    /// Who said what; oldest first.
    votes: VecDeque<(AddressPrefix, IpAddr)>,
}

impl OwnAddresses {
    /// Whether dialling `address` would lead to ourselves, as far as known.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.known.contains(&address)
    }

    /// Takes an address that is certainly ours; true when priorities have changed with it. One on
    /// loopback says nothing of how others see us.
    pub(super) fn learn(&mut self, address: SocketAddr) -> bool {
        let Some(address) = dialable(address) else { return false };
        if !self.known.contains(&address) {
            if self.known.len() >= OWN_ADDRESSES_MAX {
                self.known.pop_front();
            }
            self.known.push_back(address);
        }
        if Scope::of(address.ip()) == Scope::Loopback {
            return false;
        }
        let external = &mut self.external[usize::from(address.is_ipv6())];
        // A local address says nothing of how the world sees us once that is known.
        let nearer = external.is_some_and(|known| Scope::of(known.ip()) < Scope::of(address.ip()));
        if nearer || *external == Some(address) {
            return false;
        }
        *external = Some(address);
        true
    }

    /// Takes the word of a peer at `voter`, that it sees us as `seen`; gives the address that is taken for ours from
    /// now on, if that was the decisive voice.
    pub(super) fn vote(&mut self, voter: IpAddr, seen: IpAddr) -> Option<IpAddr> {
        let (voter, seen) = (AddressPrefix::of(voter), seen.to_canonical());
        self.votes.retain(|&(earlier, said)| earlier != voter || said.is_ipv4() != seen.is_ipv4());
        if self.votes.len() >= OWN_ADDRESS_VOTES_MAX {
            self.votes.pop_front();
        }
        self.votes.push_back((voter, seen));
        let of_family = self.votes.iter().filter(|(_, said)| said.is_ipv4() == seen.is_ipv4()).count();
        let votes = self.votes.iter().filter(|&&(_, said)| said == seen).count();
        (votes >= OWN_ADDRESS_VOTES_MIN && votes * 2 > of_family).then_some(seen)
    }

    /// The canonical priority of a connection to `address`; zero while our own address of its family is unknown.
    pub(super) fn priority_of(&self, address: SocketAddr) -> u32 {
        let external = self.external[usize::from(address.is_ipv6())];
        external.and_then(|own| canonical_priority(own, address)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn three_networks_that_agree_are_believed_and_one_is_not() {
        let mut own = OwnAddresses::default();
        for host in 1..100 {
            assert_eq!(own.vote(IpAddr::from([198, 51, 100, host]), ip("8.8.8.8")), None);
        }
        assert_eq!(own.vote(ip("1.1.1.1"), ip("9.9.9.9")), None);
        assert_eq!(own.vote(ip("1.1.2.1"), ip("9.9.9.9")), None);
        assert_eq!(own.vote(ip("1.1.3.1"), ip("::ffff:9.9.9.9")), Some(ip("9.9.9.9")));
    }

    #[test]
    fn a_local_address_does_not_displace_the_one_that_the_world_sees() {
        let mut own = OwnAddresses::default();
        let address = |text: &str| text.parse::<SocketAddr>().expect("a literal address");
        assert!(own.learn(address("192.168.0.2:6881")));
        assert!(own.learn(address("123.213.32.10:6881")));
        assert!(!own.learn(address("127.0.0.1:6881")));
        assert_eq!(own.priority_of(address("98.76.54.32:1")), 0xec2d_7224);
        assert_eq!(own.priority_of(address("[2001:db8::1]:1")), 0);
        assert!(own.contains(address("127.0.0.1:6881")) && own.contains(address("192.168.0.2:6881")));
        for port in 1..100 {
            own.learn(SocketAddr::new(ip("127.0.0.1"), port));
        }
        assert_eq!(own.known.len(), OWN_ADDRESSES_MAX);
    }
}
