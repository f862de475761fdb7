//! What a worker counts: one writer, any reader, a cache line apart from its neighbours.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counters and gauges of one worker. Counters only grow.
        #[derive(Debug, Default)]
        pub struct WorkerStatistics(CachePadded<Counters>);

        #[derive(Debug, Default)]
        struct Counters {
            $($name: AtomicU64,)*
        }

        /// The counters at one moment, of one worker or added up.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
        pub struct StatisticsSnapshot {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl WorkerStatistics {
            /// All counters now, each by itself: they are not one instant's.
            pub fn snapshot(&self) -> StatisticsSnapshot {
                StatisticsSnapshot { $($name: self.0.$name.load(Relaxed),)* }
            }

            $(
                $(#[$doc])*
                pub(super) fn $name(&self) -> Counter<'_> {
                    Counter(&self.0.$name)
                }
            )*
        }

        impl std::ops::AddAssign for StatisticsSnapshot {
            fn add_assign(&mut self, other: Self) {
                $(self.$name += other.$name;)*
            }
        }
    };
}

counters! {
    /// Connections open, handshaking ones included.
    connections,
    /// Connections that have not finished their handshake.
    half_open,
    /// Connections accepted so far.
    accepted,
    /// Connections refused at a bound.
    refused,
    /// Connections that ended because the peer broke the protocol.
    peer_faults,
    /// Bytes of blocks sent.
    payload_sent,
    /// Bytes sent, headers and control messages included.
    bytes_sent,
    /// Blocks sent.
    blocks_sent,
    /// Sends that have completed.
    sends,
    /// Bytes of sends that asked for zero copy.
    zero_copy_bytes,
    /// Zero-copy sends.
    zero_copy_sends,
    /// Zero-copy sends that the kernel copied all the same.
    zero_copy_copied,
    /// Zero-copy sends that the kernel refused.
    zero_copy_refused,
    /// Ranges that had to be read from disk before a send.
    cold_fetches,
    /// Bytes of those.
    cold_bytes,
    /// Sends that waited for a rate limit.
    throttled,
    /// Nanoseconds of processor time.
    busy_nanos,
    /// Page faults of this worker that waited for a disk; stays zero while sends touch resident pages only.
    major_faults,
}

/// One counter, for its one writer.
pub(super) struct Counter<'a>(&'a AtomicU64);

impl Counter<'_> {
    /// Adds. A load and a store suffice for a single writer, and cost no locked instruction.
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Subtracts, for gauges.
    pub fn subtract(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// The value its writer has given it.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    /// Sets.
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_add_up() {
        let (one, two) = (WorkerStatistics::default(), WorkerStatistics::default());
        one.sends().add(2);
        two.sends().add(3);
        two.connections().add(5);
        two.connections().subtract(1);
        let mut sum = one.snapshot();
        sum += two.snapshot();
        assert_eq!((sum.sends, sum.connections, sum.accepted), (5, 4, 0));
    }
}
