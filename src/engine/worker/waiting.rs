//! What each connection waits for, noted when it changes and told once a second.
//!
//! The accounts are plain memory of this worker, one for each torrent that has connections here; a change costs four
//! additions in one of them. Only the tick goes through them and adds what is new to the figures that others read.
//! A send counts as waiting for the peer's window until it turns out to have gone through with the entry that handed
//! it over: then the kernel was copying for this worker, which is processor time.

use super::super::ring::Ring;
use super::super::slab::{Key, Slab};
use super::super::store::BlockStore;
use super::connection::Connection;
use super::{SharedTorrent, Worker};
use crate::attribution::{Cause, Conditions, WaitAccount};
use crate::id::InfoHash;
use crate::time::{Duration, Instant};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A turn or an entry longer than this is told in the log: everybody else waits for it.
const STALL_TIME: Duration = Duration::from_millis(100);

/// The accounts of the torrents that have connections here.
#[derive(Debug)]
pub(super) struct Waiting<S> {
    accounts: Slab<Account<S>>,
    by_torrent: BTreeMap<InfoHash, Key>,
    /// When the turn before this one was sampled.
    turn_before: Instant,
}

#[derive(Debug)]
struct Account<S> {
    waits: WaitAccount,
    torrent: Arc<SharedTorrent<S>>,
    connections: u32,
}

/// One connection's part.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waits {
    account: Option<Key>,
    cause: Option<Cause>,
    probe: Option<Probe>,
    /// When the fetch of cold blocks began that is under way.
    fetch_began: Option<Instant>,
}

/// A request that is followed until its block has been handed over.
#[derive(Clone, Copy, Debug)]
struct Probe {
    at: Instant,
    /// Blocks up to its own that are in no send yet.
    left: usize,
}

impl<S> Default for Waiting<S> {
    fn default() -> Self {
        Self { accounts: Slab::default(), by_torrent: BTreeMap::new(), turn_before: Instant::ZERO }
    }
}

impl Waits {
    /// Follows the newest of the `queued` requests, unless one is being followed.
    pub fn follow(&mut self, now: Instant, queued: usize) {
        if queued > 0 && self.probe.is_none() {
            self.probe = Some(Probe { at: now, left: queued });
        }
    }

    /// A send with so many blocks is under way, and so many requests are left; some may have been cancelled.
    pub fn handle_submitted(&mut self, blocks: usize, queued: usize) {
        let Some(probe) = &mut self.probe else { return };
        probe.left = probe.left.saturating_sub(blocks).min(queued);
        if probe.left == 0 && blocks == 0 {
            self.probe = None;
        }
    }

    /// That send has gone through: the time of the request that was followed, if its block was in it.
    fn handle_sent(&mut self, now: Instant) -> Option<Duration> {
        let probe = self.probe.take_if(|probe| probe.left == 0)?;
        Some(now.since(probe.at))
    }

    /// A fetch of cold blocks begins.
    pub fn handle_fetch(&mut self, now: Instant) {
        self.fetch_began = Some(now);
    }
}

impl Connection {
    fn conditions(&self) -> Conditions {
        Conditions {
            interested: self.machine.interested(),
            choked: self.machine.choked_by_us(),
            asked: self.machine.next_block().is_some(),
            sending: self.sending.is_some(),
            sending_blocks: self.sending_blocks,
            fetching: self.fetching.is_some(),
            throttled: self.throttled,
        }
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// A connection has joined a torrent.
    pub(super) fn open_account(&mut self, key: Key, torrent: &Arc<SharedTorrent<S>>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Waiting { accounts, by_torrent, .. } = &mut self.waiting;
        let account = *by_torrent.entry(torrent.facts.info_hash).or_insert_with(|| {
            let torrent = Arc::clone(torrent);
            accounts.insert_with(|_| Account { waits: WaitAccount::default(), torrent, connections: 0 })
        });
        if let Some(account) = accounts.get_mut(account) {
            account.connections += 1;
        }
        connection.waits.account = Some(account);
        self.kernel_limits.join(key);
    }

    /// A connection ends: it waits for nothing any more.
    pub(super) fn close_account(&mut self, key: Key) {
        self.ask_kernel_finally(key);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Waits { account, cause, .. } = std::mem::take(&mut connection.waits);
        let Some((at, account)) = account.and_then(|at| Some((at, self.waiting.accounts.get_mut(at)?)))
        else {
            return;
        };
        account.waits.change(self.now, cause, None);
        account.connections -= 1;
        if account.connections == 0
            && let Some(mut account) = self.waiting.accounts.remove(at)
        {
            self.waiting.by_torrent.remove(&account.torrent.facts.info_hash);
            let new = account.waits.take_new(self.now);
            account.torrent.counts.waited.add(&new);
            self.statistics().add_waited(&new);
        }
    }

    /// Notes what a connection waits for from now on.
    pub(super) fn attribute(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(account) = connection.waits.account else { return };
        let cause = connection.conditions().cause();
        let before = std::mem::replace(&mut connection.waits.cause, cause);
        if before != cause
            && let Some(account) = self.waiting.accounts.get_mut(account)
        {
            account.waits.change(self.now, before, cause);
        }
    }

    /// The send that began at `began` has gone through: was it the peer that it waited for, or this core?
    pub(super) fn attribute_send(&mut self, key: Key, began: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.sending_blocks = false;
        let followed = connection.waits.handle_sent(self.now);
        let waited_for_peer = connection.waits.cause == Some(Cause::Window);
        let account = connection.waits.account;
        let at_once = began == self.waiting.turn_before && !self.ring.last_entry().waited;
        if at_once
            && waited_for_peer
            && let Some(account) = account.and_then(|account| self.waiting.accounts.get_mut(account))
        {
            // Nothing of this time has been told: the tick comes before the sends of a turn.
            account.waits.reassign(self.now.since(began), Cause::Window, Cause::Cpu);
        }
        if let Some(time) = followed {
            self.statistics().request_nanos().record(nanos(time));
        }
    }

    /// Cold blocks are there.
    pub(super) fn count_fetched(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if let Some(began) = connection.waits.fetch_began.take() {
            self.statistics().cold_fetch_nanos().record(nanos(self.now.since(began)));
        }
    }

    /// An entry into the kernel has ended, and with it the turn before.
    pub(super) fn count_turn(&mut self, sampled_before: Instant) {
        self.waiting.turn_before = sampled_before;
        let entry = self.ring.last_entry();
        let turn = entry.began.since(sampled_before);
        self.statistics().turn_nanos().record(nanos(turn));
        let entered = (!entry.waited).then(|| self.now.since(entry.began));
        if let Some(entered) = entered {
            self.statistics().entry_nanos().record(nanos(entered));
        }
        if turn > STALL_TIME || entered.is_some_and(|entered| entered > STALL_TIME) {
            tracing::debug!(?turn, ?entered, worker = self.index, "a turn took long");
        }
    }

    /// Tells what connections have waited for since the last time.
    pub(super) fn tell_waits(&mut self) {
        let Waiting { accounts, by_torrent, .. } = &mut self.waiting;
        for at in by_torrent.values() {
            let Some(account) = accounts.get_mut(*at) else { continue };
            let new = account.waits.take_new(self.now);
            account.torrent.counts.waited.add(&new);
            self.all_statistics[usize::from(self.index)].add_waited(&new);
        }
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_request_at_a_time_is_followed_to_its_end() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut waits = Waits::default();
        waits.handle_submitted(1, 0);
        assert_eq!(waits.handle_sent(at(0)), None);
        waits.follow(at(1), 0);
        waits.handle_submitted(1, 0);
        // These come while a send is under way.
        waits.follow(at(2), 3);
        waits.follow(at(3), 9);
        assert_eq!(waits.handle_sent(at(4)), None);
        waits.handle_submitted(2, 7);
        assert_eq!(waits.handle_sent(at(5)), None);
        waits.handle_submitted(2, 5);
        assert_eq!(waits.handle_sent(at(6)), Some(Duration::from_millis(4)));
        assert_eq!(waits.handle_sent(at(7)), None);
    }

    #[test]
    fn a_cancelled_request_is_followed_no_longer() {
        let at = |millis| Instant::ZERO + Duration::from_millis(millis);
        let mut waits = Waits::default();
        waits.follow(at(1), 5);
        waits.handle_submitted(0, 0);
        assert_eq!(waits.handle_sent(at(2)), None);
        waits.follow(at(3), 1);
        waits.handle_submitted(1, 0);
        assert_eq!(waits.handle_sent(at(4)), Some(Duration::from_millis(1)));
    }
}
