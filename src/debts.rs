//! Whose network owes us something: a bounded memory of address prefixes that outlives their connections.
//!
//! A peer that takes a turn, or blocks to send, and makes nothing of it costs others who wait. While it stays, its connection
//! knows that. When it leaves, its prefix takes the debt over, so that coming back is no new beginning. A debt holds for a
//! time, each further one twice as long, up to a maximum. After its end it is remembered for as long again. An indebted
//! prefix is never shut out: it waits behind others.
//!
//! Invariants: a prefix has one debt at most. There are no more debts than the bound says; above it the debt goes that would
//! be forgotten first.

use crate::id::AddressPrefix;
use crate::limits::PREFIX_DEBTS_MAX;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet};

/// How long debts hold.
#[derive(Clone, Copy, Debug)]
pub struct DebtTerms {
    /// The first one.
    pub first: Duration,
    /// Any.
    pub most: Duration,
}

impl DebtTerms {
    /// How long a debt holds that comes after `earlier` others.
    pub fn after(self, earlier: u32) -> Duration {
        (self.first * 2_u32.saturating_pow(earlier.min(16))).min(self.most)
    }
}

#[derive(Clone, Copy, Debug)]
struct Debt {
    until: Instant,
    lasts: Duration,
}

impl Debt {
    fn forgotten_at(&self) -> Instant {
        self.until + self.lasts
    }
}

/// The debts of one kind towards one torrent.
#[derive(Clone, Debug)]
pub struct Debts {
    terms: DebtTerms,
    by_prefix: BTreeMap<AddressPrefix, Debt>,
    by_end: BTreeSet<(Instant, AddressPrefix)>,
}

impl Debts {
    /// None yet.
    pub fn new(terms: DebtTerms) -> Self {
        Self { terms, by_prefix: BTreeMap::new(), by_end: BTreeSet::new() }
    }

    /// Somebody of that prefix has left with a debt. While one holds, another only begins its time
    /// anew.
    pub fn charge(&mut self, now: Instant, prefix: AddressPrefix) {
        self.forget(now);
        let earlier = self.by_prefix.remove(&prefix);
        if let Some(debt) = &earlier {
            self.by_end.remove(&(debt.forgotten_at(), prefix));
        } else if self.by_prefix.len() >= PREFIX_DEBTS_MAX
            && let Some((_, first)) = self.by_end.pop_first()
        {
            self.by_prefix.remove(&first);
        }
        let lasts = match earlier {
            Some(debt) if now < debt.until => debt.lasts,
            Some(debt) => (debt.lasts * 2).min(self.terms.most),
            None => self.terms.first,
        };
        let debt = Debt { until: now + lasts, lasts };
        self.by_end.insert((debt.forgotten_at(), prefix));
        self.by_prefix.insert(prefix, debt);
    }

    /// Until when the prefix's debt holds, if it has one now.
    pub fn until(&self, now: Instant, prefix: AddressPrefix) -> Option<Instant> {
        self.by_prefix.get(&prefix).map(|debt| debt.until).filter(|&until| now < until)
    }

    /// How many are remembered.
    pub fn len(&self) -> usize {
        self.by_prefix.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.by_prefix.is_empty()
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(end, prefix)) = self.by_end.first()
            && end <= now
        {
            self.by_end.pop_first();
            self.by_prefix.remove(&prefix);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: DebtTerms = DebtTerms { first: Duration::from_secs(30), most: Duration::from_secs(100) };

    fn prefix(number: u32) -> AddressPrefix {
        let [_, a, b, c] = number.to_be_bytes();
        AddressPrefix::V4([a, b, c])
    }

    #[test]
    fn a_debt_ends_and_the_next_one_of_the_same_prefix_holds_twice_as_long() {
        let (mut debts, mut now) = (Debts::new(TERMS), Instant::ZERO);
        for secs in [30, 60, 100, 100] {
            debts.charge(now, prefix(1));
            let until = debts.until(now, prefix(1)).expect("just charged");
            assert_eq!(until, now + Duration::from_secs(secs));
            // Ten connections that leave together are one debt.
            (0..10).for_each(|_| debts.charge(now, prefix(1)));
            assert_eq!((debts.until(now, prefix(1)), debts.until(now, prefix(2))), (Some(until), None));
            now = until;
            assert_eq!(debts.until(now, prefix(1)), None);
        }
        now += TERMS.most;
        debts.charge(now, prefix(1));
        assert_eq!(debts.until(now, prefix(1)), Some(now + TERMS.first), "a quiet time wipes it out");
        assert_eq!(
            (0..4).map(|earlier| TERMS.after(earlier).as_secs()).collect::<Vec<_>>(),
            [30, 60, 100, 100]
        );
    }

    #[test]
    fn debts_are_bounded_and_the_first_to_be_forgotten_goes() {
        let mut debts = Debts::new(TERMS);
        for number in 0..PREFIX_DEBTS_MAX as u32 + 10 {
            debts.charge(Instant::from_nanos(u64::from(number)), prefix(number));
        }
        assert_eq!((debts.len(), debts.by_end.len()), (PREFIX_DEBTS_MAX, PREFIX_DEBTS_MAX));
        let now = Instant::from_nanos(PREFIX_DEBTS_MAX as u64 + 10);
        assert_eq!((debts.until(now, prefix(9)), debts.until(now, prefix(10)).is_some()), (None, true));
        debts.charge(now + TERMS.most * 3, prefix(1));
        assert_eq!(debts.len(), 1, "what is over takes no room");
        assert!(!debts.is_empty());
    }
}
