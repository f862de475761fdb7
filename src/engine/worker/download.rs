//! The downloading side of connections: payload into the buffers of pieces in flight, and what the torrent's home has
//! to hear and decides.

use super::super::message::{Fact, Order};
use super::super::piece_buffer::BlockClaim;
use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::connection::{Arriving, Closing, Connection, HeldBlock};
use super::{TimerOwner, Worker};
use crate::id::{ConnId, InfoHash};
use crate::limits::{BLOCKS_HELD_MAX, HELD_RETRY_INTERVAL};
use crate::peer::{PeerError, PeerEvent, Stock, Wish};
use crate::peer_list::Closed;
use crate::pipeline::Verdict;
use crate::time::Instant;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::ExtensionIds;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What became of a block that has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BlockEnd {
    /// It is in its piece's buffer.
    Written,
    /// It was asked for, and somebody else was quicker.
    Late,
    /// It waits for somebody else to give it up.
    Held,
    /// Nobody had asked for it.
    Unwanted,
}

impl Connection {
    pub fn is_downloading(&self) -> bool {
        !self.buffers.is_empty() || self.arriving.is_some()
    }

    /// Moves payload from the front of `input` into pieces' buffers, up to the next event that is no block. Blocks that
    /// have ended are added to `arrived`.
    pub fn take_blocks(
        &mut self,
        now: Instant,
        input: &mut &[u8],
        arrived: &mut Vec<(BlockSpan, BlockEnd)>,
    ) -> Result<Option<PeerEvent>, PeerError> {
        loop {
            if let Some(arriving) = &mut self.arriving {
                let payload = self.machine.take_payload(now, input);
                if arriving.claim.as_ref().is_some_and(BlockClaim::is_contested) {
                    arriving.claim = None;
                }
                if let Some(claim) = &mut arriving.claim {
                    claim.write(payload);
                } else if let Some(aside) = &mut arriving.aside {
                    aside.extend_from_slice(payload);
                }
                if self.machine.payload_remaining() > 0 {
                    return Ok(None);
                }
                if let Some(arriving) = self.arriving.take() {
                    arrived.push((arriving.span, self.end_block(arriving)));
                }
            }
            match self.machine.handle_bytes(now, input)? {
                Some(PeerEvent::Block { span, asked }) => {
                    let buffer = self.buffers.iter().find(|(buffer, _)| buffer.piece() == span.piece);
                    let buffer = buffer.filter(|_| asked).map(|(buffer, _)| buffer);
                    let claim = buffer.and_then(|buffer| buffer.claim(span));
                    let aside = buffer.filter(|buffer| claim.is_none() && !buffer.is_done(span));
                    let aside = aside.map(|_| Vec::new());
                    self.arriving = Some(Arriving { span, asked, claim, aside });
                }
                other => return Ok(other),
            }
        }
    }

    fn end_block(&mut self, arriving: Arriving) -> BlockEnd {
        let Arriving { span, asked, claim, aside } = arriving;
        if !asked {
            return BlockEnd::Unwanted;
        }
        let buffer = self.buffers.iter().find(|(buffer, _)| buffer.piece() == span.piece);
        let held = aside.zip(buffer).filter(|(bytes, _)| bytes.len() == span.len as usize);
        let held = held.map(|(bytes, (buffer, _))| HeldBlock { span, buffer: Arc::clone(buffer), bytes });
        self.release_buffer(span.piece);
        match held {
            Some(held) => self.hold(held),
            None if claim.is_some_and(|claim| claim.finish()) => BlockEnd::Written,
            None => BlockEnd::Late,
        }
    }

    /// Writes a whole block where it belongs, as soon as nobody else is at it.
    fn hold(&mut self, held: HeldBlock) -> BlockEnd {
        let HeldBlock { span, buffer, bytes } = &held;
        if let Some(mut claim) = buffer.claim(*span) {
            claim.write(bytes);
            return if claim.finish() { BlockEnd::Written } else { BlockEnd::Late };
        }
        if buffer.is_done(*span) || self.held.len() >= BLOCKS_HELD_MAX {
            return BlockEnd::Late;
        }
        buffer.contest(*span);
        self.held.push(held);
        BlockEnd::Held
    }

    /// Tries again what is held; what has found its end is added to `arrived`.
    fn retry_held(&mut self, arrived: &mut Vec<(BlockSpan, BlockEnd)>) {
        for held in std::mem::take(&mut self.held) {
            let span = held.span;
            let end = self.hold(held);
            if end != BlockEnd::Held {
                arrived.push((span, end));
            }
        }
    }

    /// One block fewer of this piece is owed.
    fn release_buffer(&mut self, piece: PieceIndex) {
        if let Some(place) = self.buffers.iter().position(|(buffer, _)| buffer.piece() == piece) {
            self.buffers[place].1 -= 1;
            if self.buffers[place].1 == 0 {
                self.buffers.swap_remove(place);
            }
        }
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Counts the blocks that have just arrived, and tells them.
    pub(super) fn tell_arrived(&mut self, key: Key) {
        if self.arrived.is_empty() {
            return;
        }
        let (mut written, mut late) = (Vec::with_capacity(self.arrived.len()), Vec::new());
        let (mut useful, mut wasted) = (0, 0);
        let mut is_held = false;
        for (span, end) in self.arrived.drain(..) {
            match end {
                BlockEnd::Written => written.push(span),
                BlockEnd::Late => late.push(span),
                BlockEnd::Unwanted => {}
                // Counted when it has found its end.
                BlockEnd::Held => {
                    is_held = true;
                    continue;
                }
            }
            *(if end == BlockEnd::Written { &mut useful } else { &mut wasted }) += u64::from(span.len);
        }
        if is_held {
            self.set_download_timer(key);
        }
        let Some(connection) = self.connections.get(key) else { return };
        if let Some(counters) = &connection.counters {
            counters.add_downloaded(useful);
        }
        if let Some(shared) = connection.torrent.and_then(|torrent| self.torrents.get(&torrent)) {
            shared.counts.downloaded.fetch_add(useful, Relaxed);
            shared.counts.wasted.fetch_add(wasted, Relaxed);
        }
        self.statistics().payload_received().add(useful);
        self.statistics().payload_wasted().add(wasted);
        if !written.is_empty() {
            self.tell_home(key, Fact::Blocks(written));
        }
        if !late.is_empty() {
            self.tell_home(key, Fact::Returned(late));
        }
        if let Some(connection) = self.connections.get_mut(key)
            && std::mem::take(&mut connection.late)
        {
            self.tell_home(key, Fact::Late(false));
        }
    }

    /// After anything that may have changed what the connection wants: tells its home what came back, what is late, and
    /// how many blocks there is room for.
    pub(super) fn settle_download(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() || connection.torrent.is_none() {
            return;
        }
        // What is told now would have to wait; it is told when the home has heard the rest.
        if let Some(home) = self.home_behind(key, None) {
            return self.wait_for_home(key, home, None, &[]);
        }
        let Some(connection) = self.connections.get_mut(key) else { return };
        let returned = connection.machine.take_returned();
        returned.iter().for_each(|span| connection.release_buffer(span.piece));
        let verdicts: [Option<Verdict>; 2] = std::array::from_fn(|_| connection.machine.poll_verdict());
        connection.late |= verdicts.contains(&Some(Verdict::Late));
        if !returned.is_empty() {
            // What comes back was paid for, and is asked for again only so often.
            let count = u32::try_from(returned.len()).unwrap_or(u32::MAX);
            connection.prepaid = connection.prepaid.saturating_add(count);
            connection.told.handle_returned();
            self.tell_home(key, Fact::Returned(returned));
        }
        for verdict in verdicts.into_iter().flatten() {
            self.tell_home(
                key,
                match verdict {
                    Verdict::Snubbed(snubbed) => Fact::Snubbed(snubbed),
                    Verdict::Late => Fact::Late(true),
                },
            );
        }
        self.tell_wish(key);
    }

    /// As much of a wish as the download limit allows now; nothing when it has to wait for its turn. What is paid for and
    /// not asked for is kept for the next wish: the limit is on blocks, not on wishes.
    pub(super) fn afford(&mut self, key: Key, mut wish: Wish) -> Option<Wish> {
        if self.download_gate.limit().is_none() {
            return Some(wish);
        }
        let block_len = self.charged_block_len(key);
        let connection = self.connections.get_mut(key)?;
        while connection.prepaid < wish.count {
            match self.download_gate.try_take(self.now, block_len) {
                Ok(()) => connection.prepaid += 1,
                Err(_) if connection.prepaid > 0 => break,
                Err(retry_at) => {
                    self.hold_wish(key, wish, retry_at);
                    return None;
                }
            }
        }
        wish.count = wish.count.min(connection.prepaid);
        Some(wish)
    }

    /// Bytes that a block is charged with before it is known which it will be: where pieces are short, so are they.
    fn charged_block_len(&self, key: Key) -> u32 {
        let torrent = self.connections.get(key).and_then(|connection| connection.torrent);
        let shared = torrent.and_then(|torrent| self.torrents.get(&torrent));
        shared.map_or(BLOCK_LEN, |shared| shared.facts.shape().mean_block_len())
    }

    /// What was paid for and will not be asked for soon is there for others.
    pub(super) fn give_back_prepaid(&mut self, key: Key) {
        let connection = self.connections.get_mut(key).filter(|connection| connection.prepaid > 0);
        if let Some(blocks) = connection.map(|connection| std::mem::take(&mut connection.prepaid)) {
            let block_len = self.charged_block_len(key);
            self.download_gate.give_back(u64::from(blocks) * u64::from(block_len));
        }
    }

    /// A peer that falls silent in the middle of a block does not keep it from connections that have it whole.
    pub(super) fn give_up_contested(&mut self) {
        for connection in self.connections.values_mut() {
            if let Some(arriving) = &mut connection.arriving {
                arriving.claim = arriving.claim.take().filter(|claim| !claim.is_contested());
            }
        }
    }

    /// The home of a connection's torrent has decided.
    pub(super) fn handle_order(&mut self, conn: ConnId, order: Order) {
        let key = Key { slot: conn.slot, generation: conn.generation };
        let Some(connection) =
            self.connections.get_mut(key).filter(|connection| connection.closing.is_none())
        else {
            return;
        };
        match order {
            Order::Choke(choke) => connection.machine.handle_choke(choke),
            Order::Interest(interested) => {
                connection.told.handle_answer();
                connection.machine.handle_our_interest(self.now, interested);
            }
            Order::Ask(blocks) => self.ask_for(key, blocks),
            Order::Cancel(span) => {
                let owed = connection.machine.outstanding();
                connection.machine.handle_brought(span);
                if connection.machine.outstanding() < owed {
                    connection.release_buffer(span.piece);
                }
            }
            Order::Exchange(payload) => connection.machine.send_extended(|ids| ids.pex, &payload),
            Order::Reveal(piece) => connection.machine.reveal(piece),
            Order::CloseFlooder => return self.close_at_fault(key, &PeerError::ExchangeFlood),
            Order::Close => return self.close(key, Closing::Abruptly),
        }
        self.settle_download(key);
        self.schedule(key);
    }

    /// Orders that had to wait for room, one after the other.
    pub(super) fn handle_orders(&mut self, conn: ConnId, orders: Vec<Order>) {
        orders.into_iter().for_each(|order| self.handle_order(conn, order));
    }

    fn ask_for(&mut self, key: Key, blocks: Vec<(BlockSpan, Arc<super::super::piece_buffer::PieceBuffer>)>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let mut spans = Vec::with_capacity(blocks.len());
        for (span, buffer) in blocks {
            spans.push(span);
            match connection.buffers.iter_mut().find(|(known, _)| Arc::ptr_eq(known, &buffer)) {
                Some((_, owed)) => *owed += 1,
                None => {
                    // An older buffer of the same piece is of no use to anybody any more.
                    connection.buffers.retain(|(known, _)| known.piece() != span.piece);
                    connection.buffers.push((buffer, 1));
                }
            }
        }
        connection.told.handle_answer();
        // An answer to a wish that was given up meanwhile is paid for now.
        let count = u32::try_from(spans.len()).unwrap_or(u32::MAX);
        let unpaid = count.saturating_sub(connection.prepaid);
        connection.prepaid = connection.prepaid.saturating_sub(count);
        connection.machine.handle_assigned(self.now, &spans);
        if !std::mem::replace(&mut connection.bulk, true) {
            self.stop_receiving(key);
        }
        if unpaid > 0 && self.download_gate.limit().is_some() {
            let block_len = self.charged_block_len(key);
            self.download_gate.charge(self.now, u64::from(unpaid) * u64::from(block_len));
        }
        self.set_download_timer(key);
    }

    pub(super) fn set_download_timer(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let retry_at = (!connection.held.is_empty()).then(|| self.now + HELD_RETRY_INTERVAL);
        let due = connection.machine.poll_download_timeout().into_iter().chain(retry_at).min();
        let Some(due) = due else { return };
        if connection.download_timer.is_none_or(|timer| due < timer) {
            connection.download_timer = Some(due);
            self.timers.set(due, TimerOwner::Download(key));
        }
    }

    pub(super) fn handle_download_timeout(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() || connection.download_timer.is_none_or(|timer| timer > self.now) {
            return;
        }
        connection.download_timer = None;
        connection.machine.handle_download_timeout(self.now);
        connection.retry_held(&mut self.arrived);
        self.tell_arrived(key);
        self.settle_download(key);
        self.schedule(key);
        self.set_download_timer(key);
    }

    /// We have one more piece: every peer of the torrent hears it.
    pub(super) fn handle_have_ours(&mut self, torrent: InfoHash, piece: PieceIndex) {
        if let Some(passed_on) = self.passed_on.get_mut(&torrent) {
            passed_on.insert(piece);
        }
        let Some(members) = self.members.get(&torrent) else { return };
        let keys: Vec<Key> = members.iter().copied().collect();
        for key in keys {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.machine.handle_have_ours(piece);
                self.schedule(key);
            }
        }
    }

    /// We have more pieces than were told here, since there was no room for a word about each.
    pub(super) fn handle_catch_up(&mut self, torrent: InfoHash) {
        let Some(shared) = self.torrents.get(&torrent) else { return };
        let Some(passed_on) = self.passed_on.get(&torrent) else { return };
        let have = shared.facts.have.snapshot();
        let news: Vec<PieceIndex> = have.iter().filter(|&piece| !passed_on.contains(piece)).collect();
        news.into_iter().for_each(|piece| self.handle_have_ours(torrent, piece));
    }

    /// Closes a connection that is to end, once the peer has been told all: it shall hear of our last piece.
    pub(super) fn part(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key).filter(|connection| connection.parting) else {
            return;
        };
        if connection.sending.is_none() && !connection.machine.has_output() {
            self.close(key, Closing::Gracefully);
        } else {
            self.schedule(key);
        }
    }

    /// Nothing more is wanted of this torrent: seeds have nothing to say to each other any more, the others hear that
    /// we only upload (BEP 21).
    pub(super) fn handle_satisfied(&mut self, torrent: InfoHash) {
        let Some(members) = self.members.get(&torrent) else { return };
        let keys: Vec<Key> = members.iter().copied().collect();
        for key in keys {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            connection.buffers = Vec::new();
            if connection.machine.stock() == Stock::All {
                connection.why = Closed::Useless;
                connection.parting = true;
                self.part(key);
            } else {
                connection.machine.send_extended(|ids: &ExtensionIds| ids.upload_only, &[1]);
                self.schedule(key);
            }
        }
    }
}
