//! Who is banned, and until when.
//!
//! A ban holds for a peer id at an address, since others may share the address: everybody behind a router, or a whole
//! house. Names cost nothing, so the third that is banned at one address bans the address, for everybody who does not
//! have a connection already that has given right pieces. An address is here an IPv4 address, a /64 of public IPv6, or
//! one address of a local IPv6 network. On loopback all clients of this machine have the same, so that it is never
//! banned whole. The first ban lasts an hour and each further one twice as long, up to a day; as long as a ban lasted
//! it is remembered after its end. The number of bans is bounded, one address has four of them at most; above it the
//! one that would be forgotten first goes.

use super::address::Scope;
use crate::id::PeerId;
use crate::limits::{BAN_TIME_MAX, BAN_TIME_MIN, BANNED_NAMES_PER_ADDRESS_MAX, BANS_MAX};
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
    /// Nobody's for the whole address.
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
        let address = banned_address(ip);
        self.put(now, Key { address, peer_id: Some(peer_id) }, reason);
        let names = Key { address, peer_id: None }..=Key { address, peer_id: Some(PeerId([u8::MAX; 20])) };
        let names = self.bans.range(names).filter(|(key, _)| key.peer_id.is_some()).count();
        if names >= BANNED_NAMES_PER_ADDRESS_MAX && Scope::of(address) != Scope::Loopback {
            self.put(now, Key { address, peer_id: None }, reason);
        }
    }

    fn put(&mut self, now: Instant, key: Key, reason: BanReason) {
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
        let address = banned_address(ip);
        let of = |peer_id| self.bans.get(&Key { address, peer_id });
        let bans = [of(None), peer_id.and_then(|peer_id| of(Some(peer_id)))];
        bans.into_iter().flatten().map(|ban| ban.until).filter(|&until| now < until).max()
    }

    /// The bans that hold now: address, name unless it is the whole address, end and reason.
    pub(super) fn holding(
        &self,
        now: Instant,
    ) -> impl Iterator<Item = (IpAddr, Option<PeerId>, Instant, BanReason)> {
        let holding = self.bans.iter().filter(move |(_, ban)| now < ban.until);
        holding.map(|(key, ban)| (key.address, key.peer_id, ban.until, ban.reason))
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

/// What of an address its holder cannot change at will.
fn banned_address(ip: IpAddr) -> IpAddr {
    let ip = ip.to_canonical();
    match (ip, Scope::of(ip)) {
        (IpAddr::V6(v6), Scope::Global) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        _ => ip,
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
    fn a_ban_holds_for_a_name_at_an_address_and_for_nobody_beside_it() {
        let holds = |bans: &Bans, address: &str, peer_id| {
            bans.until(Instant::ZERO, ip(address), Some(peer_id)).is_some()
        };
        let bans = banned("::ffff:192.0.2.1", ONE);
        assert!(holds(&bans, "192.0.2.1", ONE) && !holds(&bans, "192.0.2.1", OTHER));
        assert!(!holds(&bans, "192.0.2.2", ONE), "a name of somebody else's at another address");
        let bans = banned("2001:db8::1", ONE);
        assert!(holds(&bans, "2001:db8::2", ONE) && !holds(&bans, "2001:db8::2", OTHER));
        assert!(!holds(&bans, "2001:db8:0:1::1", ONE));
        let bans = banned("fd00::1", ONE);
        assert!(holds(&bans, "fd00::1", ONE) && !holds(&bans, "fd00::2", ONE));
        assert_eq!(bans.until(Instant::ZERO, ip("fd00::1"), None), None);
    }

    #[test]
    fn the_third_name_that_is_banned_at_an_address_bans_the_address_and_loopback_never() {
        for (address, neighbour, whole) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("127.0.0.1", "127.0.0.1", false),
        ] {
            let mut bans = Bans::default();
            for name in 1..=BANNED_NAMES_PER_ADDRESS_MAX as u8 {
                assert_eq!(bans.until(Instant::ZERO, ip(neighbour), None), None, "before name {name}");
                // The same name again is no further one.
                for _ in 0..5 {
                    bans.ban(Instant::ZERO, ip(address), PeerId([name; 20]), BanReason::WrongData);
                }
            }
            let until = bans.until(Instant::ZERO, ip(neighbour), Some(PeerId([99; 20])));
            assert_eq!(until.is_some(), whole, "{address}");
            assert_eq!(bans.bans.len(), BANNED_NAMES_PER_ADDRESS_MAX + usize::from(whole));
        }
    }

    #[test]
    fn each_ban_lasts_twice_as_long_as_the_last_and_a_quiet_time_wipes_it_out() {
        let mut bans = Bans::default();
        let mut now = Instant::ZERO;
        for hours in [1, 2, 4, 8, 16, 24, 24] {
            bans.ban(now, ip("192.0.2.1"), ONE, BanReason::Abuse);
            let until = bans.until(now, ip("192.0.2.1"), Some(ONE)).expect("just banned");
            assert_eq!(until, now + Duration::from_secs(hours * 3600));
            let shown = (ip("192.0.2.1"), Some(ONE), until, BanReason::Abuse);
            assert_eq!(bans.holding(now).next(), Some(shown));
            now = until;
            assert_eq!(bans.until(now, ip("192.0.2.1"), Some(ONE)), None);
        }
        now += BAN_TIME_MAX;
        bans.ban(now, ip("192.0.2.1"), ONE, BanReason::Abuse);
        assert_eq!(bans.until(now, ip("192.0.2.1"), Some(ONE)), Some(now + BAN_TIME_MIN));
    }

    #[test]
    fn a_second_verdict_during_a_ban_does_not_double_it() {
        let mut bans = banned("192.0.2.1", ONE);
        bans.ban(Instant::ZERO, ip("192.0.2.1"), ONE, BanReason::WrongData);
        let until = bans.until(Instant::ZERO, ip("192.0.2.1"), Some(ONE));
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
        assert_eq!(bans.until(Instant::ZERO, ip("11.0.0.9"), Some(ONE)), None);
        assert!(bans.until(Instant::ZERO, ip("11.0.0.10"), Some(ONE)).is_some());
    }
}
