//! Waiting in line for rate limits, so that all who wait share a limit, however many they are.
//!
//! A connection that finds a limit used up draws a ticket and waits. All connections that wait are woken together, and try again
//! in the order of their tickets. One that gets something gives its ticket back; one that gets nothing keeps it. A newcomer
//! goes to the end of the line without a try: otherwise the quick would take everything between two wakes.
//!
//! A block is charged to the torrent's own limit first and to the process's limit then. When it has to wait for the second, what
//! it paid to the first pays for the connection's next block, or is given back.

use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::{SharedTorrent, TimerOwner, Worker};
use crate::id::InfoHash;
use crate::time::{Duration, Instant};
use crate::units::BlockSpan;
use std::collections::BTreeMap;

/// Time between two wakes: each costs a try of everybody. A small part of the limits' burst, so nothing is lost.
const WAKE_INTERVAL_MIN: Duration = Duration::from_millis(5);

/// Those who wait.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    /// By what they wait for (a torrent's limit, or the process's), by ticket.
    lines: BTreeMap<Option<InfoHash>, BTreeMap<u64, Key>>,
    next_ticket: u64,
    /// When they are woken.
    wake_at: Option<Instant>,
}

impl Throttle {
    fn has_line(&self, of: Option<InfoHash>) -> bool {
        self.lines.contains_key(&of)
    }

    fn wait(&mut self, of: Option<InfoHash>, ticket: Option<u64>, key: Key) -> u64 {
        let ticket = ticket.unwrap_or_else(|| {
            self.next_ticket += 1;
            self.next_ticket
        });
        self.lines.entry(of).or_default().insert(ticket, key);
        ticket
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Charges a block to the torrent's limit and to the process's; false when the connection has to wait.
    pub(super) fn pay(&mut self, key: Key, torrent: &SharedTorrent<S>, span: BlockSpan) -> bool {
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let own = Some(torrent.facts.info_hash);
        let limits = [(own, torrent.gate.limit()), (None, self.gate.limit())];
        if limits.iter().all(|(_, limit)| limit.is_none()) {
            return true;
        }
        let line_ahead = limits.iter().find(|(of, limit)| limit.is_some() && self.throttle.has_line(*of));
        if let (None, Some(&(of, _))) = (connection.ticket, line_ahead) {
            self.wait_in_line(key, of, self.now);
            return false;
        }
        // What was charged for a block that was cancelled since pays for this one.
        let owed = span.len.saturating_sub(connection.charged);
        if let Err(retry_at) = torrent.gate.try_take(self.now, owed) {
            self.wait_in_line(key, own, retry_at);
            return false;
        }
        connection.charged = connection.charged.max(span.len);
        if let Err(retry_at) = self.gate.try_take(self.now, span.len) {
            self.wait_in_line(key, None, retry_at);
            return false;
        }
        connection.charged -= span.len;
        connection.ticket = None;
        true
    }

    fn wait_in_line(&mut self, key: Key, of: Option<InfoHash>, retry_at: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.throttled = true;
        connection.ticket = Some(self.throttle.wait(of, connection.ticket, key));
        self.statistics().throttled().add(1);
        let at = retry_at.max(self.now + WAKE_INTERVAL_MIN);
        if self.throttle.wake_at.is_none_or(|wake_at| at < wake_at) {
            self.throttle.wake_at = Some(at);
            self.timers.set(at, TimerOwner::Throttled);
        }
    }

    /// Everybody who waits may try again.
    pub(super) fn handle_unthrottled(&mut self) {
        if self.throttle.wake_at.is_none_or(|wake_at| self.now < wake_at) {
            return;
        }
        self.throttle.wake_at = None;
        for (_, key) in std::mem::take(&mut self.throttle.lines).into_values().flatten() {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.throttled = false;
                if connection.machine.next_block().is_none() {
                    connection.ticket = None;
                    self.give_back_charged(key);
                }
                self.schedule(key);
            }
        }
    }

    /// What was charged to the torrent's own limit for a block that will not leave pays for others.
    pub(super) fn give_back_charged(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let charged = std::mem::take(&mut connection.charged);
        if let Some(torrent) = connection.torrent.and_then(|torrent| self.torrents.get(&torrent)) {
            torrent.gate.give_back(u64::from(charged));
        }
    }
}
