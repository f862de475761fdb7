//! How many connections each address prefix holds, counted over all workers without a lock.
//!
//! A table of counters, one for many prefixes: which ones share a counter follows from a key that nobody outside
//! knows, so nobody can crowd a stranger out on purpose. Two prefixes on one counter are counted as one, which can
//! only refuse too early, and seldom: the table has far more counters than a machine has connections.
//! Loopback is exempt, since all of this machine is one prefix there.

use crate::id::AddressPrefix;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Counters; 256 KiB of memory for the whole process.
const COUNTERS: usize = 1 << 16;

/// Connections by prefix, shared by all workers.
#[derive(Debug)]
pub struct PrefixTable {
    counters: Box<[AtomicU32]>,
    key: RandomState,
    connections_max: u32,
}

impl PrefixTable {
    /// An empty table that admits `connections_max` connections of each prefix.
    pub fn new(connections_max: u32) -> Self {
        let counters = (0..COUNTERS).map(|_| AtomicU32::new(0)).collect();
        Self { counters, key: RandomState::new(), connections_max }
    }

    /// Counts a connection from `address`; false, and nothing counted, when its prefix holds enough already.
    pub fn enter(&self, address: IpAddr) -> bool {
        let Some(counter) = self.counter(address) else { return true };
        // Relaxed: the number itself is all that is shared.
        if counter.fetch_add(1, Relaxed) < self.connections_max {
            return true;
        }
        counter.fetch_sub(1, Relaxed);
        false
    }

    /// A connection that was counted is gone.
    pub fn leave(&self, address: IpAddr) {
        if let Some(counter) = self.counter(address) {
            counter.fetch_sub(1, Relaxed);
        }
    }

    fn counter(&self, address: IpAddr) -> Option<&AtomicU32> {
        if address.to_canonical().is_loopback() {
            return None;
        }
        let hash = self.key.hash_one(AddressPrefix::of(address));
        self.counters.get(hash as usize % COUNTERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn a_prefix_is_full_at_its_bound_and_others_are_not() {
        let table = PrefixTable::new(2);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(table.enter(of("192.0.2.1")) && table.enter(of("192.0.2.2")));
        assert!(!table.enter(of("192.0.2.3")) && !table.enter(of("::ffff:192.0.2.4")));
        assert!((0..10).all(|_| table.enter(of("127.0.0.1")) && table.enter(of("::1"))));
        table.leave(of("192.0.2.1"));
        assert!(table.enter(of("192.0.2.3")));
    }

    #[test]
    fn many_workers_never_admit_more_than_the_bound_together() {
        let (table, together) = (PrefixTable::new(10), Barrier::new(4));
        let address: IpAddr = "2001:db8::1".parse().unwrap();
        let admitted: usize = std::thread::scope(|scope| {
            let work = || {
                together.wait();
                (0..100).filter(|_| table.enter(address)).count()
            };
            let workers: Vec<_> = (0..4).map(|_| scope.spawn(work)).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert!(admitted <= 10, "{admitted}");
    }
}
