//! Connections that have not introduced themselves, by the site that they are with, and which of them goes when there are
//! too many: the oldest of the site that has most. So who comes alone stays, however many others come.

use super::super::slab::Key;
use crate::id::Site;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

#[derive(Debug, Default)]
pub(super) struct HalfOpen {
    /// Number of the next, and so the order in which they came.
    next: u64,
    by_site: BTreeMap<Site, BTreeMap<u64, Key>>,
    /// The sites by how many they have, and among equals the one last whose oldest came first.
    order: BTreeSet<(usize, Reverse<u64>, Site)>,
}

impl HalfOpen {
    /// Takes in a connection with `remote`, and gives it a number.
    pub fn enter(&mut self, remote: IpAddr, key: Key) -> u64 {
        let number = self.next;
        self.next += 1;
        self.change(Site::of(remote), |of_site| of_site.insert(number, key));
        number
    }

    /// The connection with `remote` that was given this number is not half open any more.
    pub fn leave(&mut self, remote: IpAddr, number: u64) {
        self.change(Site::of(remote), |of_site| of_site.remove(&number));
    }

    /// Those of the site of `remote`.
    pub fn of_site(&self, remote: IpAddr) -> usize {
        self.by_site.get(&Site::of(remote)).map_or(0, BTreeMap::len)
    }

    /// Which of them has to make room.
    pub fn first_to_go(&self) -> Option<Key> {
        let (_, _, site) = self.order.last()?;
        self.by_site.get(site)?.values().next().copied()
    }

    fn change(&mut self, site: Site, change: impl FnOnce(&mut BTreeMap<u64, Key>) -> Option<Key>) {
        let of_site = self.by_site.entry(site).or_default();
        let place = |of_site: &BTreeMap<u64, Key>| {
            of_site.first_key_value().map(|(&oldest, _)| (of_site.len(), Reverse(oldest), site))
        };
        let was = place(of_site);
        change(of_site);
        let is = place(of_site);
        if is.is_none() {
            self.by_site.remove(&site);
        }
        if was != is {
            was.iter().for_each(|was| _ = self.order.remove(was));
            self.order.extend(is);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    fn address(network: u8, number: u8) -> IpAddr {
        [198, 51, network, number].into()
    }

    #[test]
    fn the_oldest_of_the_site_with_most_goes_and_among_equals_the_oldest() {
        let mut half_open = HalfOpen::default();
        assert_eq!(half_open.first_to_go(), None);
        half_open.enter(address(1, 1), key(0));
        let numbers: Vec<u64> =
            (1..4).map(|slot| half_open.enter(address(2, slot as u8), key(slot))).collect();
        for (slot, number) in (1..).zip(&numbers[..2]) {
            assert_eq!(half_open.first_to_go(), Some(key(slot)));
            half_open.leave(address(2, slot as u8), *number);
        }
        assert_eq!(half_open.first_to_go(), Some(key(0)), "one of each");
        assert_eq!((half_open.of_site(address(1, 9)), half_open.of_site(address(3, 1))), (1, 0));
        half_open.leave(address(1, 1), 0);
        half_open.leave(address(2, 3), numbers[2]);
        assert!(half_open.first_to_go().is_none() && half_open.order.is_empty());
    }

    #[test]
    fn a_network_of_version_six_is_one_site_however_many_of_its_addresses_come() {
        let mut half_open = HalfOpen::default();
        half_open.enter("2001:db8:7::1".parse().unwrap(), key(0));
        for network in 0..50u16 {
            half_open
                .enter(format!("2001:db8:1:{network:x}::1").parse().unwrap(), key(1 + u32::from(network)));
        }
        assert_eq!(half_open.first_to_go(), Some(key(1)));
    }
}
