//! What the kernel says limits the connections, asked once a second, only when the user wants to know.
//!
//! TCP counts for each connection the time in which it had something to send, and the parts of it in which the peer's
//! window or the send buffer was full (`tcp_info` in linux/tcp.h); what remains is the network's. To ask costs a system
//! call, so only connections that send blocks are asked, a bounded number of them a second.

use super::super::ring::{Ring, TcpTimes};
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::Worker;
use crate::limits::TCP_INFO_LOOKS_MAX;
use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Unbounded};

/// The connections to ask about, and what was told last.
#[derive(Debug, Default)]
pub(super) struct KernelLimits {
    wanted: bool,
    told: BTreeMap<Key, TcpTimes>,
    /// Who was looked at last.
    last: Option<Key>,
}

impl KernelLimits {
    pub fn new(wanted: bool) -> Self {
        Self { wanted, ..Self::default() }
    }

    /// A connection has joined a torrent.
    pub fn join(&mut self, key: Key) {
        if self.wanted {
            self.told.insert(key, TcpTimes::default());
        }
    }

    /// Those whose turn it is, beginning behind the one that was last; each at most once.
    fn take_turn(&mut self, count: usize) -> Vec<Key> {
        let behind = self.last.map_or(Unbounded, Excluded);
        let others = self.told.range((behind, Unbounded)).chain(&self.told);
        let turn: Vec<Key> = others.take(count.min(self.told.len())).map(|(key, _)| *key).collect();
        self.last = turn.last().copied().or(self.last);
        turn
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Asks about some of the connections that have sent blocks lately.
    pub(super) fn ask_kernel(&mut self) {
        for key in self.kernel_limits.take_turn(TCP_INFO_LOOKS_MAX) {
            let Some(connection) = self.connections.get(key) else { continue };
            if connection.sending_blocks || connection.active_in + 2 >= self.ticks {
                self.ask_kernel_about(key);
            }
        }
    }

    /// Asks about a connection that ends.
    pub(super) fn ask_kernel_finally(&mut self, key: Key) {
        if self.kernel_limits.told.contains_key(&key) {
            self.ask_kernel_about(key);
            self.kernel_limits.told.remove(&key);
        }
    }

    fn ask_kernel_about(&mut self, key: Key) {
        let Some(told) = self.kernel_limits.told.get_mut(&key) else { return };
        let socket = self.connections.get(key).map(|connection| connection.socket);
        let Some(now) = socket.and_then(|socket| self.ring.tcp_times(socket)) else { return };
        let before = std::mem::replace(told, now);
        let nanos = |now: u64, before: u64| now.saturating_sub(before).saturating_mul(1000);
        let statistics = self.statistics();
        statistics.tcp_busy_nanos().add(nanos(now.busy_micros, before.busy_micros));
        statistics.tcp_peer_window_nanos().add(nanos(now.peer_window_micros, before.peer_window_micros));
        statistics.tcp_send_buffer_nanos().add(nanos(now.send_buffer_micros, before.send_buffer_micros));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_a_turn_and_nobody_two_in_one() {
        let key = |slot| Key { slot, generation: 1 };
        let mut limits = KernelLimits::new(true);
        assert!(limits.take_turn(2).is_empty());
        (0..3).for_each(|slot| limits.join(key(slot)));
        assert_eq!(limits.take_turn(2), [key(0), key(1)]);
        assert_eq!(limits.take_turn(2), [key(2), key(0)]);
        limits.told.remove(&key(0));
        assert_eq!(limits.take_turn(9), [key(1), key(2)]);
    }

    #[test]
    fn nobody_is_asked_unless_that_is_wanted() {
        let mut limits = KernelLimits::new(false);
        limits.join(Key { slot: 0, generation: 0 });
        assert!(limits.take_turn(9).is_empty());
    }
}
