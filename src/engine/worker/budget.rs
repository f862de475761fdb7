//! Work that peers make for nothing, as much as a worker does in a second, and of that a share for each address prefix.

use crate::id::AddressPrefix;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// What may still be done in this second.
#[derive(Debug)]
pub(super) struct Budget {
    most: u64,
    most_of_prefix: u64,
    spent: u64,
    /// No more than there were takes in this second.
    by_prefix: BTreeMap<AddressPrefix, u64>,
}

impl Budget {
    pub fn new(most: u64, most_of_prefix: u64) -> Self {
        Self { most, most_of_prefix, spent: 0, by_prefix: BTreeMap::new() }
    }

    /// Whether work for a peer at `address` may be done now. What is more than a whole share by itself goes alone.
    pub fn take(&mut self, address: IpAddr, cost: u64) -> bool {
        let fits = |spent: u64, most: u64| spent == 0 || spent.saturating_add(cost) <= most;
        let prefix = AddressPrefix::of(address);
        let of_prefix = self.by_prefix.get(&prefix).copied().unwrap_or(0);
        // All of this machine is one prefix there.
        let has_share = address.to_canonical().is_loopback() || fits(of_prefix, self.most_of_prefix);
        if cost > 0 && (!has_share || !fits(self.spent, self.most)) {
            return false;
        }
        if cost > 0 {
            self.spent += cost;
            *self.by_prefix.entry(prefix).or_default() += cost;
        }
        true
    }

    /// A second is over.
    pub fn renew(&mut self) {
        self.spent = 0;
        self.by_prefix.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(network: u8, number: u8) -> IpAddr {
        [198, 51, network, number].into()
    }

    #[test]
    fn one_network_has_its_share_and_all_have_no_more_than_the_whole() {
        let mut budget = Budget::new(10, 3);
        for _ in 0..3 {
            let taken = (0..250).filter(|&number| budget.take(address(1, number), 1)).count();
            assert_eq!(taken, 3);
            let taken = (2..250).filter(|&network| budget.take(address(network, 1), 1)).count();
            assert_eq!(taken, 7);
            assert!(!budget.take(address(251, 1), 1) && budget.take(address(1, 1), 0));
            budget.renew();
        }
    }

    #[test]
    fn what_is_more_than_a_share_goes_alone() {
        let mut budget = Budget::new(10, 3);
        assert!(budget.take(address(1, 1), 50) && !budget.take(address(2, 1), 1));
        budget.renew();
        assert!(
            budget.take(address(1, 1), 4) && !budget.take(address(1, 2), 1) && budget.take(address(2, 1), 1)
        );
    }

    #[test]
    fn this_machine_is_no_single_network() {
        let mut budget = Budget::new(10, 3);
        assert_eq!((0..20).filter(|_| budget.take([127, 0, 0, 1].into(), 1)).count(), 10);
    }
}
