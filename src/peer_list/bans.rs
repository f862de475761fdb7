//! Who is banned, and until when.
//!
//! A ban holds for an IPv4 address, or a /64 of public IPv6, since addresses inside one cost nothing. In local IPv6
//! networks it holds for one address. On loopback every local client has the same address, so there it holds for the
//! peer id at that address alone. The first ban lasts an hour and each further one twice as long, up to a day; as
//! long as a ban lasted it is remembered after its end. The number of bans is bounded; above it the one that would
//! be forgotten first goes.

use super::address::Scope;
use crate::id::PeerId;
use crate::limits::{BAN_TIME_MAX, BAN_TIME_MIN, BANS_MAX};
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

/// Why a peer is banned; for show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum BanReason {
    /// It sent blocks that were proven to be wrong.
    WrongData,
    /// It abused the protocol over and over.
    Abuse,
    /// The user said so.
    User,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    address: IpAddr,
    /// On loopback alone.
    peer_id: Option<PeerId>,
}

#[derive(Clone, Copy, Debug)]
struct Ban {
    until: Instant,
    lasts: Duration,
    reason: BanReason,
}

impl Ban {
    fn forgotten_at(&self) -> Instant {
        self.until + self.lasts
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Bans {
    bans: BTreeMap<Key, Ban>,
    by_end: BTreeSet<(Instant, Key)>,
}

impl Bans {
    pub(super) fn ban(&mut self, now: Instant, ip: IpAddr, peer_id: PeerId, reason: BanReason) {
        self.forget(now);
        let key = key(ip, Some(peer_id));
        let earlier = self.bans.remove(&key);
        if let Some(ban) = &earlier {
            self.by_end.remove(&(ban.forgotten_at(), key));
        } else if self.bans.len() >= BANS_MAX
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.bans.remove(&first);
        }
        let lasts = match earlier {
            // Several connections of one peer may be convicted of the same thing.
            Some(ban) if now < ban.until => ban.lasts,
            Some(ban) => (ban.lasts * 2).min(BAN_TIME_MAX),
            None => BAN_TIME_MIN,
        };
        let ban = Ban { until: now + lasts, lasts, reason };
        self.by_end.insert((ban.forgotten_at(), key));
        self.bans.insert(key, ban);
    }

    /// The end of the ban that holds now. Without a peer id only bans of whole addresses are seen.
    pub(super) fn until(&self, now: Instant, ip: IpAddr, peer_id: Option<PeerId>) -> Option<Instant> {
        self.bans.get(&key(ip, peer_id)).map(|ban| ban.until).filter(|&until| now < until)
    }

    /// The bans that hold now, with address, end and reason.
    pub(super) fn holding(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Instant, BanReason)> {
        let holding = self.bans.iter().filter(move |(_, ban)| now < ban.until);
        holding.map(|(key, ban)| (key.address, ban.until, ban.reason))
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(end, key)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            self.bans.remove(&key);
        }
    }
}

fn key(ip: IpAddr, peer_id: Option<PeerId>) -> Key {
    let ip = ip.to_canonical();
    match (ip, Scope::of(ip)) {
        (_, Scope::Loopback) => Key { address: ip, peer_id },
        (IpAddr::V6(v6), Scope::Global) => {
            let network = Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX));
            Key { address: network.into(), peer_id: None }
        }
        _ => Key { address: ip, peer_id: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: PeerId = PeerId([1; 20]);
    const OTHER: PeerId = PeerId([2; 20]);

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    fn banned(address: &str, peer_id: PeerId) -> Bans {
        let mut bans = Bans::default();
        bans.ban(Instant::ZERO, ip(address), peer_id, BanReason::WrongData);
        bans
    }

    #[test]
    fn a_ban_holds_for_an_address_a_network_or_a_local_peer_id() {
        let holds = |bans: &Bans, address: &str, peer_id| {
            bans.until(Instant::ZERO, ip(address), Some(peer_id)).is_some()
        };
        let bans = banned("::ffff:192.0.2.1", ONE);
        assert!(holds(&bans, "192.0.2.1", OTHER) && !holds(&bans, "192.0.2.2", ONE));
        let bans = banned("2001:db8::1", ONE);
        assert!(holds(&bans, "2001:db8::2", OTHER) && !holds(&bans, "2001:db8:0:1::1", ONE));
        let bans = banned("fd00::1", ONE);
        assert!(holds(&bans, "fd00::1", OTHER) && !holds(&bans, "fd00::2", ONE));
        let bans = banned("127.0.0.1", ONE);
        assert!(holds(&bans, "127.0.0.1", ONE) && !holds(&bans, "127.0.0.1", OTHER));
        assert_eq!(bans.until(Instant::ZERO, ip("127.0.0.1"), None), None);
    }

    #[test]
    fn each_ban_lasts_twice_as_long_as_the_last_and_a_quiet_time_wipes_it_out() {
        let mut bans = Bans::default();
        let mut now = Instant::ZERO;
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            bans.ban(now, ip("192.0.2.1"), ONE, BanReason::Abuse);
            let until = bans.until(now, ip("192.0.2.1"), None).expect("just banned");
            assert_eq!(until, now + Duration::from_secs(hours * 3600));
            assert_eq!(bans.holding(now).next(), Some((ip("192.0.2.1"), until, BanReason::Abuse)));
            now = until;
            assert_eq!(bans.until(now, ip("192.0.2.1"), None), None);
        }
        now += BAN_TIME_MAX;
        bans.ban(now, ip("192.0.2.1"), ONE, BanReason::Abuse);
        assert_eq!(bans.until(now, ip("192.0.2.1"), None), Some(now + BAN_TIME_MIN));
    }

    #[test]
    fn a_second_verdict_during_a_ban_does_not_double_it() {
        let mut bans = banned("192.0.2.1", ONE);
        bans.ban(Instant::ZERO, ip("192.0.2.1"), OTHER, BanReason::WrongData);
        let until = bans.until(Instant::ZERO, ip("192.0.2.1"), None);
        assert_eq!(until, Some(Instant::ZERO + BAN_TIME_MIN));
    }

    #[test]
    fn bans_are_bounded_and_the_first_to_end_goes() {
        let mut bans = Bans::default();
        for number in 0..u32::try_from(BANS_MAX).expect("small") + 10 {
            let now = Instant::from_nanos(u64::from(number));
            bans.ban(now, IpAddr::from((0x0b00_0000 + number).to_be_bytes()), ONE, BanReason::Abuse);
        }
        assert_eq!((bans.bans.len(), bans.by_end.len()), (BANS_MAX, BANS_MAX));
        assert_eq!(bans.until(Instant::ZERO, ip("11.0.0.9"), None), None);
        assert!(bans.until(Instant::ZERO, ip("11.0.0.10"), None).is_some());
    }
}
