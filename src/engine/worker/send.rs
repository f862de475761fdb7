//! Blocks to a peer: queued requests become few large messages, straight from the mapping.
//!
//! At most one message per connection is in flight. The next one is built when it completes, from what has
//! been asked meanwhile, as long as the connection's quota, the rate limits and the turn's bound allow. A
//! block whose pages are not in memory is fetched first ([`fetch`](super::fetch)); no send ever waits for
//! a disk here. A short send ends its connection: it stopped in the middle of a message.

use super::super::ring::{Completion, Op, OpKind, Ring, ZeroCopyUse};
use super::super::send_slot::SendSlot;
use super::super::slab::Key;
use super::super::store::{BlockStore, ColdRange, Readiness};
use super::connection::{Closing, Connection};
use super::holdings::encrypted_len;
use super::{SharedTorrent, Worker};
use crate::id::AddressPrefix;
use crate::limits::MESSAGE_LEN_UNCOUNTED;
use crate::pipeline::{SLOW_SEND, turn_len};
use crate::units::BlockSpan;
use crate::wire::piece_header;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Empty slots kept for the next sends, as many as a turn has short ones; each has some 3 KiB once it was used in full,
/// and 20 KiB when its blocks lay in a thousand files.
const IDLE_SLOTS_MAX: usize = 256;

/// A message in the kernel's hands.
#[derive(Debug)]
pub(super) struct InFlight<S: BlockStore> {
    slot: Box<SendSlot<S>>,
    pub(super) connection: Key,
    pub(super) prefix: AddressPrefix,
    /// Bytes of it in the worker's budget of copies.
    pub(super) counted: u64,
    torrent: Option<Arc<SharedTorrent<S>>>,
    local: IpAddr,
    zero_copy: bool,
    /// The kernel refused to send without a copy; send again when it has let go.
    refused: bool,
}

enum Next {
    Taken,
    Stop,
    Fetch(ColdRange),
    Failed,
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Puts a connection into the ready queue when it has something to send and may.
    pub(super) fn schedule(&mut self, key: Key) {
        if self.connections.get(key).is_some_and(|connection| connection.machine.wants_info()) {
            self.ask_for_info(key);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let blocked = connection.sending.is_some()
            || connection.scheduled
            || connection.connecting.is_some()
            || connection.closing.is_some();
        let waiting = connection.holds_blocks_back();
        let machine = &connection.machine;
        let has_output = connection.has_handshake_output()
            || connection.may_speak() && if waiting { machine.has_control() } else { machine.has_output() };
        if !blocked && has_output {
            connection.scheduled = true;
            self.ready.push_back(key);
        }
        self.weigh(key);
        self.attribute(key);
    }

    pub(super) fn send_ready(&mut self) {
        let (mut sent, most) = (0, turn_len(self.active_count()));
        while sent < most {
            let Some(key) = self.ready.pop_front() else { return };
            sent += self.send(key);
            self.attribute(key);
        }
    }

    /// Builds and submits one message; returns its length.
    fn send(&mut self, key: Key) -> u64 {
        let Some(connection) = self.connections.get_mut(key) else { return 0 };
        connection.scheduled = false;
        if connection.closing.is_some() {
            return 0;
        }
        let mut slot = self.idle_slots.pop().unwrap_or_else(SendSlot::new);
        if let Some(stream) = &mut connection.stream {
            stream.poll_output(slot.control());
        }
        let clear_from = slot.control().len();
        if !connection.may_speak() {
            return if slot.is_empty() { self.retire_empty(slot) } else { self.submit(key, None, slot) };
        }
        if !self.may_say(key) {
            // What the encrypted handshake had to say goes; the rest waits.
            return if slot.is_empty() { self.retire_empty(slot) } else { self.submit(key, None, slot) };
        }
        let Some(connection) = self.connections.get_mut(key) else { return 0 };
        connection.machine.poll_control(slot.control());
        let torrent = connection.torrent.and_then(|torrent| self.torrents.get(&torrent)).map(Arc::clone);
        if let Some(torrent) = &torrent
            && !self.add_blocks(key, torrent, &mut slot)
        {
            let info_hash = torrent.facts.info_hash;
            self.retire(slot);
            self.fail_torrent(info_hash);
            return 0;
        }
        self.encrypt(key, &mut slot.control()[clear_from..]);
        let sent = if slot.is_empty() { self.retire_empty(slot) } else { self.submit(key, torrent, slot) };
        // Not before the send is under way: the answer may be here at once, and wait for its end.
        self.tell_served(key);
        sent
    }

    /// Fills a slot with blocks up to the connection's quota; false when the content has failed.
    fn add_blocks(&mut self, key: Key, torrent: &Arc<SharedTorrent<S>>, slot: &mut SendSlot<S>) -> bool {
        let limit = match (self.gate.limit(), torrent.gate.limit()) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        let Some(connection) = self.connections.get(key) else { return true };
        let mut quota = u64::from(connection.batch.batch_len(self.sharing(), limit));
        if connection.encrypts() {
            let waits = connection.holds_blocks_back() || connection.machine.next_block().is_none();
            let wanted = quota.min(encrypted_len(connection.taken_encrypted));
            let granted = if waits { None } else { self.copied_len(key, wanted) };
            let Some(granted) = granted else { return true };
            quota = granted;
        }
        let mut content = None;
        let is_whole = self.add_blocks_up_to(quota, key, torrent, slot, &mut content);
        if let Some((_, content)) = &content {
            self.read_ahead(key, torrent, content, quota);
        }
        is_whole
    }

    fn add_blocks_up_to(
        &mut self,
        quota: u64,
        key: Key,
        torrent: &Arc<SharedTorrent<S>>,
        slot: &mut SendSlot<S>,
        content: &mut Option<(u32, Arc<S>)>,
    ) -> bool {
        loop {
            let Some(connection) = self.connections.get(key) else { return true };
            if connection.holds_blocks_back() {
                return true;
            }
            let Some(span) = connection.machine.next_block() else { return true };
            if slot.blocks() > 0 && slot.payload_len() + u64::from(span.len) > quota {
                return true;
            }
            let part = torrent.content.part_of(span);
            if content.as_ref().is_none_or(|(open, _)| *open != part) {
                // A message holds one part's files; the next one has what lies in others.
                if slot.blocks() > 0 {
                    return true;
                }
                *content = self.content_for(key, torrent, part).map(|content| (part, content));
            }
            let Some((_, content)) = content else { return true };
            match self.add_block(quota, key, torrent, content, slot, span) {
                Next::Taken => {}
                Next::Stop => return true,
                Next::Failed => return false,
                Next::Fetch(range) => {
                    self.fetch(key, torrent, content, range);
                    return true;
                }
            }
        }
    }

    /// Connections that share the worker: those that have sent blocks lately, or those that are ready to send at this
    /// very moment, when a crowd has just come. Sends that wait for slow readers do not count: they cost nobody.
    fn sharing(&self) -> usize {
        self.active_count().max(self.ready.len() + 1)
    }

    fn add_block(
        &mut self,
        quota: u64,
        key: Key,
        torrent: &Arc<SharedTorrent<S>>,
        content: &Arc<S>,
        slot: &mut SendSlot<S>,
        span: BlockSpan,
    ) -> Next {
        self.extents.clear();
        match content.gather(self.now, span, &mut self.extents) {
            Readiness::Ready => {}
            Readiness::Cold(range) => return Next::Fetch(range),
            Readiness::Failed => return Next::Failed,
        }
        let encrypts = self.connections.get(key).is_some_and(Connection::encrypts);
        let scattered = !encrypts && !slot.has_room(self.extents.len());
        if scattered && slot.blocks() > 0 {
            return Next::Stop;
        }
        if scattered && self.copied_len(key, span.len.into()).is_none() {
            return Next::Stop;
        }
        if !self.pay(key, torrent, span) {
            return Next::Stop;
        }
        if encrypts {
            if let Some(connection) = self.connections.get(key).filter(|_| slot.blocks() == 0) {
                let (blocks, len) = connection.machine.queued();
                slot.reserve(quota.min(len), blocks);
            }
            let read = |bytes: &mut Vec<u8>| content.read(span, bytes);
            if !matches!(slot.push_copied(piece_header(span), read), Readiness::Ready) {
                return Next::Failed;
            }
        } else if scattered {
            let mut bytes = Vec::with_capacity(span.len as usize);
            if !matches!(content.read(span, &mut bytes), Readiness::Ready) {
                return Next::Failed;
            }
            slot.push_gathered(piece_header(span), bytes);
        } else {
            slot.push_block(piece_header(span), &self.extents, content);
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.machine.poll_block();
        }
        Next::Taken
    }

    fn submit(
        &mut self,
        key: Key,
        torrent: Option<Arc<SharedTorrent<S>>>,
        mut slot: Box<SendSlot<S>>,
    ) -> u64 {
        let message = slot.seal();
        let Some(connection) = self.connections.get_mut(key) else { return 0 };
        let (socket, local, len) = (connection.socket, connection.ends.local.ip(), slot.len());
        let encrypts = connection.encrypts();
        let zero_copy = slot.blocks() > 0
            && !encrypts
            && self.zero_copy.decide(self.now, &mut connection.zero_copy, local, len);
        connection.sending = Some(self.now);
        connection.sending_blocks = slot.blocks() > 0;
        connection.waits.handle_submitted(slot.blocks(), connection.machine.queued_blocks());
        if slot.blocks() > 0 {
            self.all_statistics[usize::from(self.index)].send_batch_bytes().record(slot.payload_len());
        }
        connection.machine.handle_sent(self.now);
        let prefix = connection.prefix();
        let copied = slot.copied_len();
        let counted = if copied > MESSAGE_LEN_UNCOUNTED { copied as u64 } else { 0 };
        if counted > 0 {
            self.copies.take(prefix, counted);
        }
        let in_flight =
            InFlight { slot, connection: key, prefix, counted, torrent, local, zero_copy, refused: false };
        let send = self.in_flight.insert_with(|_| in_flight);
        self.ring.push(Op::Send { socket, message, zero_copy }, Self::tag(OpKind::Send, send));
        if zero_copy {
            self.statistics().zero_copy_sends().add(1);
            self.statistics().zero_copy_bytes().add(len);
        }
        len
    }

    pub(super) fn handle_send(&mut self, completion: &Completion) {
        let send = Self::key_of(completion.tag);
        match completion.released {
            Some(usage) => self.handle_released(send, usage),
            None => self.handle_sent(send, completion),
        }
        if completion.more {
            return;
        }
        if self.in_flight.get(send).is_some_and(|in_flight| in_flight.refused) {
            return self.send_again_by_copy(send);
        }
        self.let_go(send);
    }

    /// The kernel reads nothing of a message any more.
    fn let_go(&mut self, send: Key) {
        if let Some(in_flight) = self.in_flight.remove(send) {
            self.retire(in_flight.slot);
            self.give_back_copies(in_flight.prefix, in_flight.counted);
        }
    }

    fn handle_released(&mut self, send: Key, usage: ZeroCopyUse) {
        let Some(in_flight) = self.in_flight.get(send) else { return };
        let (len, local, key) = (in_flight.slot.len(), in_flight.local, in_flight.connection);
        let mut gone = super::super::zero_copy::ZeroCopyState::default();
        let state = self.connections.get_mut(key).map_or(&mut gone, |connection| &mut connection.zero_copy);
        self.zero_copy.handle_released(self.now, state, local, len, usage);
        if usage == ZeroCopyUse::Copied {
            self.statistics().zero_copy_copied().add(1);
            self.statistics().zero_copy_copied_bytes().add(len);
        }
    }

    fn handle_sent(&mut self, send: Key, completion: &Completion) {
        let Some(in_flight) = self.in_flight.get_mut(send) else { return };
        let key = in_flight.connection;
        let (len, payload, blocks) =
            (in_flight.slot.len(), in_flight.slot.payload_len(), in_flight.slot.blocks() as u64);
        let refused = in_flight.zero_copy && matches!(-completion.result, libc::ENOMEM | libc::EOPNOTSUPP);
        if refused {
            in_flight.refused = true;
            in_flight.zero_copy = false;
            self.statistics().zero_copy_refused().add(1);
            if let Some(connection) = self.connections.get_mut(key) {
                self.zero_copy.handle_refused(&mut connection.zero_copy);
            }
            if !completion.more {
                // Refused before it began: no notification will say that nothing is pinned.
                self.handle_released(send, ZeroCopyUse::Sent);
            }
            return;
        }
        let began = self.connections.get_mut(key).and_then(|connection| connection.sending.take());
        if let Some(began) = began {
            self.attribute_send(key, began);
        }
        if completion.result == -libc::EFAULT {
            let in_flight = self.in_flight.get(send);
            let content = in_flight.and_then(|in_flight| in_flight.slot.content());
            let torrent = in_flight.and_then(|in_flight| in_flight.torrent.as_ref());
            if let (Some(content), Some(torrent)) = (content, torrent) {
                content.handle_unreadable(None, libc::EFAULT, self.when_unreadable(torrent));
            }
        } else if u64::try_from(completion.result) == Ok(len) {
            let torrent = self.in_flight.get(send).and_then(|in_flight| in_flight.torrent.as_deref());
            self.count_sent(torrent, len, payload, blocks);
            if let Some(connection) = self.connections.get_mut(key) {
                if let Some(counters) = &connection.counters {
                    counters.add_uploaded(payload);
                    counters.follow_requests(self.now, connection.machine.queued_blocks() > 0);
                }
                let took = self.now.since(began.unwrap_or(self.now));
                connection.moved_at = self.now;
                if connection.encrypts() {
                    let taken = connection.taken_encrypted;
                    connection.taken_encrypted = if took > SLOW_SEND { taken / 2 } else { taken + payload };
                }
                connection.batch.handle_sent(u32::try_from(payload).unwrap_or(u32::MAX), took);
                connection.machine.handle_sent(self.now);
                if payload > 0 && std::mem::replace(&mut connection.active_in, self.ticks) != self.ticks {
                    self.active += 1;
                }
            }
            self.remove_if_quiet(key);
            self.part(key);
            return self.schedule(key);
        }
        self.close(key, Closing::Abruptly);
        self.remove_if_quiet(key);
    }

    fn count_sent(&self, torrent: Option<&SharedTorrent<S>>, len: u64, payload: u64, blocks: u64) {
        let statistics = self.statistics();
        statistics.sends().add(1);
        statistics.bytes_sent().add(len);
        statistics.payload_sent().add(payload);
        statistics.blocks_sent().add(blocks);
        if let Some(torrent) = torrent.filter(|_| payload > 0) {
            torrent.counts.uploaded.fetch_add(payload, Relaxed);
        }
    }

    fn send_again_by_copy(&mut self, send: Key) {
        let Some(in_flight) = self.in_flight.get_mut(send) else { return };
        in_flight.refused = false;
        let message = in_flight.slot.message();
        let key = in_flight.connection;
        match self.connections.get(key).map(|connection| connection.socket) {
            Some(socket) => {
                let op = Op::Send { socket, message, zero_copy: false };
                self.ring.push(op, Self::tag(OpKind::Send, send));
            }
            None => self.let_go(send),
        }
    }

    fn retire_empty(&mut self, slot: Box<SendSlot<S>>) -> u64 {
        self.retire(slot);
        0
    }

    fn retire(&mut self, mut slot: Box<SendSlot<S>>) {
        if self.idle_slots.len() < IDLE_SLOTS_MAX {
            slot.clear();
            self.idle_slots.push(slot);
        }
    }
}
