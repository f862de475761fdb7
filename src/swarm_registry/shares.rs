//! How many records of a table each site holds, in memory that does not grow with the number of sites.
//!
//! Counts stand in two rows of counters, and a site's count is the smaller of its two. Which sites share a counter follows
//! from a key that strangers do not know. A count is never too small; it is too large only for a site that shares both its
//! counters.

use crate::id::Site;
use siphasher::sip::SipHasher13;

/// Counters of one row: 1 MiB.
const ROW_LEN: usize = 1 << 18;

/// Counts of records by site.
#[derive(Clone, Debug)]
pub(super) struct Shares {
    /// Both rows, one behind the other. Untouched pages cost nothing.
    counters: Box<[u32]>,
    keyed: SipHasher13,
}

impl Shares {
    /// No records. `key` decides which sites share counters.
    pub(super) fn new(key: &[u8; 16]) -> Self {
        Self { counters: vec![0; 2 * ROW_LEN].into(), keyed: SipHasher13::new_with_key(key) }
    }

    /// Records that `site` holds together with all others of its provider, or somewhat more.
    pub(super) fn held(&self, site: Site) -> usize {
        let together = site.provider().map_or(0, |provider| self.held_alone(provider));
        together.max(self.held_alone(site))
    }

    /// Records that `site` itself holds, or somewhat more.
    pub(super) fn held_alone(&self, site: Site) -> usize {
        self.places(site).iter().map(|&place| self.counters[place]).min().unwrap_or(0) as usize
    }

    /// One more.
    pub(super) fn enter(&mut self, site: Site) {
        for site in std::iter::once(site).chain(site.provider()) {
            for place in self.places(site) {
                self.counters[place] = self.counters[place].saturating_add(1);
            }
        }
    }

    /// One less; only after [`Self::enter`] for the same site.
    pub(super) fn leave(&mut self, site: Site) {
        for site in std::iter::once(site).chain(site.provider()) {
            for place in self.places(site) {
                self.counters[place] = self.counters[place].saturating_sub(1);
            }
        }
    }

    fn places(&self, site: Site) -> [usize; 2] {
        let hash = self.keyed.hash(&site.number().to_le_bytes()) as usize;
        [hash % ROW_LEN, ROW_LEN + hash / ROW_LEN % ROW_LEN]
    }

    /// Panics unless all counters are zero.
    #[cfg(test)]
    pub(super) fn check_empty(&self) {
        assert!(self.counters.iter().all(|&counter| counter == 0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::net::IpAddr;

    #[test]
    fn sites_of_one_provider_count_together_and_each_alone() {
        let mut shares = Shares::new(&[8; 16]);
        let site = |text: &str| Site::of(text.parse().expect("an address"));
        (0..5).for_each(|_| shares.enter(site("2001:db8:1::1")));
        shares.enter(site("2001:db8:2::1"));
        shares.enter(site("192.0.2.1"));
        let counts = |text| (shares.held(site(text)), shares.held_alone(site(text)));
        assert_eq!((counts("2001:db8:1::2"), counts("2001:db8:2::2")), ((6, 5), (6, 1)));
        assert_eq!((counts("2001:db8:3::1"), counts("2001:db9::1")), ((6, 0), (0, 0)));
        assert_eq!((counts("192.0.2.9"), counts("192.0.3.9")), ((1, 1), (0, 0)));
        (0..5).for_each(|_| shares.leave(site("2001:db8:1::1")));
        shares.leave(site("2001:db8:2::1"));
        shares.leave(site("192.0.2.1"));
        shares.check_empty();
    }

    #[test]
    fn no_count_is_too_small_and_all_are_zero_when_everybody_has_left() {
        let mut shares = Shares::new(&[7; 16]);
        let mut rng = crate::rng::Rng::from_seed(1);
        let mut entered = BTreeMap::new();
        let site = |number: u32| Site::of(IpAddr::V4(number.into()));
        for _ in 0..100_000 {
            let number = (rng.below(50_000) as u32) << 8;
            shares.enter(site(number));
            *entered.entry(number).or_insert(0_usize) += 1;
        }
        let exact = entered.iter().filter(|&(&number, &count)| shares.held(site(number)) == count).count();
        assert!(entered.iter().all(|(&number, &count)| shares.held(site(number)) >= count));
        assert!(exact * 100 > entered.len() * 95, "{exact} of {}", entered.len());
        for (number, count) in entered {
            (0..count).for_each(|_| shares.leave(site(number)));
        }
        shares.check_empty();
    }
}
