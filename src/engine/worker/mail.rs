//! Messages to other workers, and connections that are not read until their home has heard what they said.
//!
//! Posting never waits. A message that finds a full mailbox stays in the [`Outbox`] for that worker. While that outbox holds
//! anything, this worker acts on no byte of the connections whose torrents have their home there. It ends their receives. What
//! had already come waits in the ring's receive buffers, which bounds it: an ended receive brings nothing more, and TCP holds
//! the peer back. So a connection can be ahead of its home by what one of its events leads to, and by its end.
//!
//! A worker always reads its own mailbox, whatever waits here. So two workers whose mailboxes are both full read each other's
//! messages in their next turns, and both come free. Connections go on in the order in which they came to wait.
//!
//! A connection whose peer says more in a second than `WORDS_PER_SECOND_MAX` waits in the same way until the next second: reading
//! it takes processor time that other connections need.

use super::super::message::ToWorker;
use super::super::ring::{Op, OpKind, Ring, Tag};
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::Worker;
use super::connection::Closing;
use crate::limits::WORDS_PER_SECOND_MAX;
use crate::peer::PeerEvent;

/// What came from a peer and has to wait.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// Acted on before the bytes.
    pub event: Option<PeerEvent>,
    /// As the peer wire has them, or as they came from the socket, if `raw`.
    pub bytes: Vec<u8>,
    pub raw: bool,
    /// The peer has ended the connection behind them.
    pub ended: Option<Closing>,
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Posts to a worker, in order; keeps what does not fit. A message to ourselves is handled at once.
    pub(super) fn post(&mut self, worker: u16, message: ToWorker<S>) {
        if worker == self.index {
            return self.handle_message(message);
        }
        let Some(outbox) = self.outboxes.get_mut(usize::from(worker)) else { return };
        self.posted += 1;
        if !outbox.is_empty() {
            return outbox.keep(message);
        }
        if let Err(message) = self.workers[usize::from(worker)].post(message) {
            outbox.keep(message);
            self.behind += 1;
        }
    }

    /// Tries again what has found no room, and lets those go on who have waited for that.
    pub(super) fn repost(&mut self) {
        if self.behind > 0 {
            for (outbox, address) in self.outboxes.iter_mut().zip(&self.workers) {
                outbox.post(address);
            }
            self.behind = self.outboxes.iter().filter(|outbox| !outbox.is_empty()).count();
            for home in 0..self.paused.len() {
                self.go_on(home);
            }
        }
        self.unsent_events.send(&self.events);
    }

    /// The home of this connection's torrent, or of the one that its handshake names, if that has not heard yet what there
    /// was to say.
    pub(super) fn home_behind(&self, key: Key, event: Option<&PeerEvent>) -> Option<u16> {
        if self.behind == 0 {
            return None;
        }
        let torrent = match event {
            Some(PeerEvent::Handshake(handshake)) => handshake.info_hash,
            _ => self.connections.get(key)?.torrent?,
        };
        let home = self.torrents.get(&torrent)?.home;
        self.outboxes.get(usize::from(home)).is_some_and(|outbox| !outbox.is_empty()).then_some(home)
    }

    /// Acts on nothing more of this connection before its home has heard what there was to say; `event` and `bytes` come
    /// first then.
    pub(super) fn wait_for_home(&mut self, key: Key, home: u16, event: Option<PeerEvent>, bytes: &[u8]) {
        let Some(connection) = self.connections.get_mut(key).filter(|it| it.closing.is_none()) else {
            return;
        };
        if let Some(backlog) = &mut connection.backlog {
            return backlog.bytes.extend_from_slice(bytes);
        }
        let backlog = Backlog { event, bytes: bytes.to_vec(), ..Backlog::default() };
        connection.backlog = Some(Box::new(backlog));
        self.stop_receiving(key);
        let line = &mut self.paused[usize::from(home)];
        line.push_back(key);
        if line.len() > 2 * self.connections.len() {
            // Most of them have gone meanwhile.
            line.retain(|&key| self.connections.get(key).is_some_and(|it| it.backlog.is_some()));
        }
    }

    /// A peer that has said more in this second than anybody has to say is not read until the next, nor one that holds memory
    /// while there is too little of it.
    pub(super) fn listen_less(&mut self, key: Key) {
        let ticks = self.ticks;
        let Some(connection) = self.connections.get_mut(key).filter(|it| it.closing.is_none()) else {
            return;
        };
        let words = connection.machine.words();
        if connection.spoke_in != ticks {
            (connection.spoke_in, connection.words_before) = (ticks, connection.words_heard);
        }
        connection.words_heard = words;
        let says_too_much = words.wrapping_sub(connection.words_before) > WORDS_PER_SECOND_MAX;
        if connection.backlog.is_some() || !says_too_much && !self.holds_too_much(key) {
            return;
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.backlog = Some(Box::default());
            self.stop_receiving(key);
            self.talkative.push(key);
        }
    }

    /// A second is over: those who had said too much are heard again.
    pub(super) fn listen_again(&mut self) {
        for key in std::mem::take(&mut self.talkative) {
            self.resume(key);
        }
    }

    pub(super) fn stop_receiving(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.receiving) {
            let target = Self::tag(OpKind::Receive, key);
            self.ring.push(Op::Cancel { target }, Tag { kind: OpKind::Cancel, ..target });
        }
    }

    /// Those who wait for this home go on, until it is behind again.
    fn go_on(&mut self, home: usize) {
        for _ in 0..self.paused[home].len() {
            if !self.outboxes[home].is_empty() {
                return;
            }
            let Some(key) = self.paused[home].pop_front() else { return };
            self.resume(key);
        }
    }

    /// Acts on what has waited.
    pub(super) fn resume(&mut self, key: Key) {
        let connection = self.connections.get_mut(key).filter(|connection| connection.closing.is_none());
        let Some(backlog) = connection.and_then(|connection| connection.backlog.take()) else { return };
        let Backlog { event, mut bytes, raw, ended } = *backlog;
        if raw {
            self.handle_raw_bytes(key, Ok(event), &mut bytes);
        } else {
            self.handle_bytes(key, Ok(event), &bytes);
            self.tell_served(key);
        }
        let Some(connection) = self.connections.get_mut(key).filter(|it| it.closing.is_none()) else {
            return;
        };
        match (&mut connection.backlog, ended) {
            (Some(backlog), _) => backlog.ended = ended,
            (None, Some(how)) => self.close(key, how),
            (None, None) if !connection.receiving => self.arm_receive(key),
            (None, None) => {}
        }
    }
}
