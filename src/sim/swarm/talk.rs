//! What the machines say to each other: a connection's events become facts of its torrent, and what the torrent's
//! machine wants becomes messages. In production the workers do this, across cores and with real buffers.

use super::node::{GOOD, MISSING, NONSENSE, Node, Packet, Seat, SimBlock, SimPiece};
use super::terms::{Departure, Manner, PeerNumber};
use super::{Event, Swarm};
use crate::id::AddressPrefix;
use crate::peer::{Identity, OurExtension, PeerEvent, Stock};
use crate::peer_list::Closed;
use crate::pipeline::Verdict;
use crate::time::Duration;
use crate::torrent::{Newcomer, PieceResult, TorrentAction};
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{Handshake, piece_header};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// Time from a piece's last block until it is hashed and stored.
const STORAGE_TIME: Duration = Duration::from_millis(2);
/// Payload of whatever block.
const PAYLOAD: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];

impl Swarm {
    /// A peer hears a packet.
    pub(super) fn hear(&mut self, seat: Seat, packet: &Packet) {
        self.found.clear();
        self.heard = packet.control.len() as u64;
        if !self.hear_bytes(seat, &packet.control, None) {
            return;
        }
        if let Some(block) = packet.block
            && !self.hear_bytes(seat, &piece_header(block.span), Some(block))
        {
            return;
        }
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        connection.sample.reported_pieces = connection.machine.piece_count();
        connection.sample.upload_only = connection.machine.upload_only();
        connection.sample.heard_at = now;
        connection.sample.refused = connection.machine.refused();
        connection.sample.follow_requests(now, connection.machine.queued_blocks() > 0);
        if !self.found.is_empty() && node.facts.follows_stocks() {
            node.machine.handle_haves(now, seat.conn(), &self.found, &mut node.rng);
        }
        self.settle_download(seat);
        self.drain(seat.node);
        self.nodes[seat.node.0 as usize].schedule(seat.slot);
    }

    /// Bytes from a peer, with a block behind them or not; false when the connection has ended.
    fn hear_bytes(&mut self, seat: Seat, mut bytes: &[u8], block: Option<SimBlock>) -> bool {
        loop {
            let now = self.now;
            let node = &mut self.nodes[seat.node.0 as usize];
            let Some(connection) = node.connection(seat.slot, seat.generation) else { return false };
            match connection.machine.handle_bytes(now, &mut bytes) {
                Ok(Some(PeerEvent::Block { span, asked })) => {
                    let mut payload = PAYLOAD.get(..span.len as usize).unwrap_or(&PAYLOAD);
                    connection.machine.take_payload(now, &mut payload);
                    let content = block.map_or(NONSENSE, |block| block.content);
                    self.handle_block(seat, span, asked, content);
                }
                Ok(Some(event)) => self.handle_peer_event(seat, event),
                Ok(None) => return true,
                Err(error) => {
                    self.find_fault(seat, &error);
                    self.close(seat, Closed::ProtocolError);
                    return false;
                }
            }
        }
    }

    fn handle_block(&mut self, seat: Seat, span: BlockSpan, asked: bool, content: u32) {
        let (now, len) = (self.now, u64::from(span.len));
        let node = &mut self.nodes[seat.node.0 as usize];
        node.taken += len;
        let block = (span.begin / BLOCK_LEN) as usize;
        let place = node.pieces.get_mut(&span.piece).and_then(|piece| piece.blocks.get_mut(block));
        let is_new = asked && place.as_ref().is_some_and(|place| **place == MISSING);
        if let Some(place) = place.filter(|_| is_new) {
            *place = content;
        }
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if is_new {
            connection.sample.downloaded += len;
            connection.gave_at = now;
            node.machine.handle_block(now, seat.conn(), span, &mut node.rng);
        } else {
            node.wasted += len;
            if asked {
                node.machine.handle_returned(now, seat.conn(), &[span], &mut node.rng);
            }
        }
        // Each fact is settled before the next is told.
        self.drain(seat.node);
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if std::mem::take(&mut connection.late) {
            node.machine.handle_late(now, seat.conn(), false, &mut node.rng);
            self.drain(seat.node);
        }
    }

    fn handle_peer_event(&mut self, seat: Seat, event: PeerEvent) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let conn = seat.conn();
        match event {
            PeerEvent::Handshake(handshake) => return self.handle_handshake(seat, &handshake),
            PeerEvent::Interested(interested) => {
                if let Some(connection) = node.connection(seat.slot, seat.generation) {
                    connection.sample.interested = interested;
                }
                node.machine.handle_interest(now, conn, interested);
            }
            PeerEvent::Complete { arrived } => {
                self.tell_stock(seat);
                if arrived && self.nodes[seat.node.0 as usize].facts.wants_nothing() {
                    return self.close(seat, Closed::Useless);
                }
            }
            PeerEvent::Stock => self.tell_stock(seat),
            PeerEvent::Lost(piece) => {
                if node.facts.follows_stocks() {
                    let found = std::mem::take(&mut self.found);
                    node.machine.handle_haves(now, conn, &found, &mut node.rng);
                    node.machine.handle_lost(now, conn, piece, &mut node.rng);
                }
            }
            PeerEvent::ChokedByThem(choked) => {
                if choked && node.facts.follows_stocks() {
                    node.machine.handle_wish(now, conn, None, &mut node.rng);
                    self.set_connection_timer(seat);
                }
            }
            // All that the packet tells of go to the torrent's machine at once, as in production.
            PeerEvent::Have(piece) => return self.found.push(piece),
            PeerEvent::Extensions => {
                let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
                let remote = connection.remote;
                if let Some(theirs) = connection.machine.theirs() {
                    let (port, ours, exchanges) =
                        (theirs.port, theirs.your_address, theirs.ids.pex.is_some());
                    node.machine.handle_told_address(now, conn, remote, port, ours, exchanges);
                }
            }
            PeerEvent::Extended(OurExtension::Pex) => {
                let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
                let payload = connection.machine.take_extended();
                node.machine.handle_exchange(now, conn, &payload, &mut node.rng);
            }
            PeerEvent::Block { .. } => {}
        }
        self.drain(seat.node);
    }

    fn tell_stock(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        if !node.facts.follows_stocks() {
            return;
        }
        let Node { machine, connections, rng, .. } = node;
        if let Some(Some(connection)) = connections.get_mut(seat.slot as usize) {
            self.found.clear();
            machine.handle_stock(now, seat.conn(), connection.machine.stock(), rng);
        }
    }

    fn handle_handshake(&mut self, seat: Seat, handshake: &Handshake) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        if handshake.peer_id == node.peer_id {
            return self.close(seat, Closed::Ourselves);
        }
        let facts = Arc::clone(&node.facts);
        let peer_id = node.peer_id;
        let Some(remote) = node.connection(seat.slot, seat.generation).map(|connection| connection.remote)
        else {
            return;
        };
        // Allowed-fast pieces once for each prefix.
        let may_have_fast_pieces = node.fast_grants.insert(AddressPrefix::of(remote));
        let gained = node.gained.len();
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if !may_have_fast_pieces {
            connection.machine.withhold_fast_pieces();
        }
        let identity = Identity { peer_id, port: super::node::PORT, remote };
        connection.machine.accept(facts, identity);
        connection.told = gained;
        let newcomer = Newcomer { remote, peer_id: handshake.peer_id, dialled: connection.dialled };
        connection.joined = true;
        node.machine.handle_newcomer(now, seat.conn(), newcomer, &mut node.rng);
        self.drain(seat.node);
    }

    /// After anything that may have changed what a connection wants: its torrent hears what came back, what is late,
    /// and how many blocks there is room for.
    fn settle_download(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if !connection.machine.take_download_touched() {
            return;
        }
        let returned = connection.machine.take_returned();
        let verdicts: [Option<Verdict>; 2] = std::array::from_fn(|_| connection.machine.poll_verdict());
        connection.late |= verdicts.contains(&Some(Verdict::Late));
        let wish = connection.machine.poll_wish();
        let conn = seat.conn();
        if !returned.is_empty() {
            node.machine.handle_returned(now, conn, &returned, &mut node.rng);
        }
        for verdict in verdicts.into_iter().flatten() {
            match verdict {
                Verdict::Snubbed(snubbed) => node.machine.handle_snubbed(conn, snubbed),
                Verdict::Late => node.machine.handle_late(now, conn, true, &mut node.rng),
            }
        }
        if wish.is_some() {
            node.machine.handle_wish(now, conn, wish, &mut node.rng);
        }
    }

    /// A connection that was only to say what it had to say has said it.
    pub(super) fn part(&mut self, seat: Seat) {
        let node = &mut self.nodes[seat.node.0 as usize];
        let gained = node.gained.len();
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if connection.parting && !connection.has_output(gained) {
            self.close(seat, Closed::Useless);
        }
    }

    /// A block of a piece that only this peer was shown has gone to it (BEP 16).
    pub(super) fn tell_served(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if let Some(piece) = connection.machine.take_served() {
            node.machine.handle_served(now, seat.conn(), piece);
            self.drain(seat.node);
        }
    }

    pub(super) fn set_connection_timer(&mut self, seat: Seat) {
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        let machine = &connection.machine;
        let due = machine.poll_download_timeout().into_iter().chain([machine.poll_timeout()]).min();
        if let Some(due) = due
            && connection.timer.is_none_or(|timer| due < timer)
        {
            connection.timer = Some(due);
            self.events.put(due, Event::ConnectionTimer(seat));
        }
    }

    pub(super) fn handle_connection_timer(&mut self, seat: Seat) {
        let now = self.now;
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        if connection.timer.is_none_or(|timer| timer > now) {
            return;
        }
        connection.timer = None;
        if connection.machine.poll_timeout() <= now && connection.machine.handle_timeout(now).is_err() {
            return self.close(seat, Closed::Normal);
        }
        connection.machine.handle_download_timeout(now);
        self.settle_download(seat);
        self.drain(seat.node);
        self.set_connection_timer(seat);
        self.nodes[seat.node.0 as usize].schedule(seat.slot);
        self.start_uplink(seat.node);
    }

    pub(super) fn handle_timer(&mut self, number: PeerNumber, stay: u32) {
        let now = self.now;
        let node = &mut self.nodes[number.0 as usize];
        if !node.online || node.stay != stay || node.timer.is_none_or(|timer| timer > now) {
            return;
        }
        node.timer = None;
        if node.machine.poll_timeout().is_some_and(|due| due <= now) {
            let Node { machine, connections, rng, .. } = node;
            let sample = |conn: crate::id::ConnId| {
                let connection = connections.get(conn.slot as usize).and_then(Option::as_deref);
                let connection = connection.filter(|connection| connection.is(conn));
                connection.map(|connection| connection.sample).unwrap_or_default()
            };
            machine.handle_timeout(now, sample, rng);
        }
        self.drain(number);
    }

    /// Carries out what a torrent's machine wants, and sets its timer.
    pub(super) fn drain(&mut self, number: PeerNumber) {
        let node = &mut self.nodes[number.0 as usize];
        if std::mem::replace(&mut node.draining, true) {
            return;
        }
        let mut is_first = true;
        while let Some(action) = self.nodes[number.0 as usize].machine.poll_action() {
            if let Some(checks) = &mut self.checks {
                checks.choosing(&self.nodes[number.0 as usize], std::mem::take(&mut is_first));
            }
            self.acted += 1;
            self.carry_out(number, action);
        }
        let node = &mut self.nodes[number.0 as usize];
        node.draining = false;
        if let Some(due) = node.machine.poll_timeout().filter(|_| node.online)
            && node.timer.is_none_or(|timer| due < timer)
        {
            node.timer = Some(due);
            let stay = node.stay;
            self.events.put(due, Event::Timer(number, stay));
        }
        self.start_uplink(number);
    }

    fn carry_out(&mut self, number: PeerNumber, action: TorrentAction) {
        let (now, shape) = (self.now, self.shape);
        let node = &mut self.nodes[number.0 as usize];
        let seat_of = |conn| Seat::of(number, conn);
        match action {
            TorrentAction::Unchoke(conn) => {
                if !matches!(node.terms.manner, Manner::FreeRider | Manner::Mute) {
                    self.with(seat_of(conn), |connection| connection.machine.handle_choke(false));
                }
            }
            TorrentAction::Choke(conn) => {
                self.with(seat_of(conn), |connection| connection.machine.handle_choke(true));
            }
            TorrentAction::Interest(conn, interested) => {
                self.with(seat_of(conn), |connection| {
                    connection.machine.handle_our_interest(now, interested)
                });
                self.settle_download(seat_of(conn));
            }
            TorrentAction::Ask(..) if node.terms.manner == Manner::Idler => {}
            TorrentAction::Ask(conn, spans) => {
                if let Some(checks) = &mut self.checks {
                    checks.asked(now, node, seat_of(conn), &spans);
                }
                for span in &spans {
                    let blocks = node.facts.shape().blocks_of(span.piece) as usize;
                    let make = || SimPiece { blocks: vec![MISSING; blocks] };
                    node.pieces.entry(span.piece).or_insert_with(make);
                }
                self.with(seat_of(conn), |connection| connection.machine.handle_assigned(now, &spans));
                self.settle_download(seat_of(conn));
                self.set_connection_timer(seat_of(conn));
            }
            TorrentAction::Cancel(conn, span) => {
                self.with(seat_of(conn), |connection| connection.machine.handle_brought(span));
                self.settle_download(seat_of(conn));
            }
            TorrentAction::Exchange(conn, payload) => {
                self.with(seat_of(conn), |connection| {
                    connection.machine.send_extended(|ids| ids.pex, &payload)
                });
            }
            TorrentAction::Reveal(conn, piece) => {
                self.with(seat_of(conn), |connection| connection.machine.reveal(piece));
            }
            TorrentAction::RevealAll => {
                node.facts.hides_stock.store(false, Relaxed);
                self.with_all(number, |connection| connection.machine.reveal_all());
            }
            TorrentAction::Close(conn) => self.close(seat_of(conn), Closed::Normal),
            TorrentAction::CloseFlooder(conn) => {
                self.find_fault(seat_of(conn), &"floods with peer exchange");
                self.close(seat_of(conn), Closed::ProtocolError);
            }
            TorrentAction::Verify { piece, .. } => {
                let is_good = |piece: &SimPiece| piece.blocks.iter().all(|&block| block == GOOD);
                let good = node.pieces.get(&piece).is_some_and(is_good);
                let stay = node.stay;
                let stored_at = now + STORAGE_TIME + node.trouble.storage_delay(now);
                self.events.put(stored_at, Event::Stored(number, stay, piece, good));
            }
            TorrentAction::Forget(piece) => {
                let blocks = node.pieces.remove(&piece).unwrap_or_default().blocks;
                let shape = node.facts.shape();
                let came = (0..).zip(blocks).filter(|&(_, content)| content != MISSING);
                let spans = came.filter_map(|(block, _)| shape.span(piece, block));
                node.wasted += spans.map(|span| u64::from(span.len)).sum::<u64>();
            }
            TorrentAction::Have(piece) => {
                self.copies[piece.0 as usize] += 1;
                let node = &mut self.nodes[number.0 as usize];
                node.gained.push(piece);
                node.schedule_idle();
            }
            TorrentAction::Dial(address) => self.dial(number, address),
            TorrentAction::Banned { ip, .. } => {
                node.banned += 1;
                self.tell(|| format!("peer {} bans {ip}", number.0));
            }
            TorrentAction::StorageRefused(_) | TorrentAction::StorageRecovered => {
                self.tell(|| format!("peer {}: {action:?}", number.0));
            }
            TorrentAction::Satisfied => {
                debug_assert_eq!(node.facts.have.count(), shape.piece_count());
                self.satisfy(number);
            }
        }
    }

    fn with<T>(&mut self, seat: Seat, act: impl FnOnce(&mut super::node::Connection) -> T) {
        let node = &mut self.nodes[seat.node.0 as usize];
        if let Some(connection) = node.connection(seat.slot, seat.generation) {
            act(connection);
            node.schedule(seat.slot);
        }
    }

    fn with_all(&mut self, number: PeerNumber, act: impl Fn(&mut super::node::Connection)) {
        let node = &mut self.nodes[number.0 as usize];
        for slot in 0..node.connections.len() {
            if let Some(connection) = node.connections[slot].as_mut() {
                act(connection);
                node.schedule(slot as u32);
            }
        }
    }

    pub(super) fn handle_stored(&mut self, number: PeerNumber, stay: u32, piece: PieceIndex, good: bool) {
        let now = self.now;
        let node = &mut self.nodes[number.0 as usize];
        if !node.online || node.stay != stay {
            return;
        }
        let Some(stored) = node.pieces.get(&piece) else { return };
        if good && now < node.trouble.refuses_until {
            let reason = "the disk refuses".to_owned();
            node.machine.handle_piece(now, piece, PieceResult::Unwritable { reason }, &mut node.rng);
            return self.drain(number);
        }
        let hash = |(block, &content): (usize, &u32)| block_hash(piece, block, content);
        let block_hashes: Vec<_> = stored.blocks.iter().enumerate().map(hash).collect();
        let result = if good {
            node.pieces.remove(&piece);
            // First of all: whoever hears of the piece finds that it may be served.
            node.facts.have.insert(piece);
            if let Some(checks) = &mut self.checks {
                checks.store(number, piece);
            }
            PieceResult::Verified { block_hashes: Some(block_hashes) }
        } else {
            PieceResult::Failed { block_hashes }
        };
        node.machine.handle_piece(now, piece, result, &mut node.rng);
        self.note(u64::from(number.0) << 32 | u64::from(piece.0));
        self.drain(number);
    }

    /// A peer has everything: it says goodbye to seeds and tells the others and the tracker.
    fn satisfy(&mut self, number: PeerNumber) {
        let now = self.now;
        let node = &mut self.nodes[number.0 as usize];
        node.facts.satisfied.store(true, Relaxed);
        node.pieces.clear();
        node.leeching.end(now);
        if node.completed_at.is_none() {
            node.completed_at = Some(now);
            self.waiting -= 1;
        }
        if let Some(announcer) = &mut node.announcer {
            announcer.completed();
        }
        self.tell(|| format!("peer {} has everything", number.0));
        let node = &mut self.nodes[number.0 as usize];
        if let Departure::AfterCompletion(time) = node.terms.departs {
            let stay = node.stay;
            self.events.put(now + time, Event::Leave(number, stay));
        }
        self.announce(number);
        let node = &mut self.nodes[number.0 as usize];
        let (mut seats, gained) = (Vec::new(), node.gained.len());
        for slot in node.open_slots() {
            let seat = node.seat(slot);
            let Some(connection) = node.connection(seat.slot, seat.generation) else { continue };
            if connection.machine.stock() != Stock::All {
                connection.machine.send_extended(|ids| ids.upload_only, &[1]);
            } else if connection.has_output(gained) {
                connection.parting = true;
            } else {
                seats.push(seat);
            }
            node.schedule(slot);
        }
        for seat in seats {
            self.close(seat, Closed::Useless);
        }
    }

    /// A peer has broken the protocol.
    fn find_fault(&mut self, seat: Seat, why: &dyn std::fmt::Display) {
        self.tell(|| format!("peer {} closes a connection: {why}", seat.node.0));
        let node = &mut self.nodes[seat.node.0 as usize];
        let remote = node.connection(seat.slot, seat.generation).map(|connection| connection.remote);
        let number = remote.and_then(|ip| Node::number_of(SocketAddr::new(ip, super::node::PORT)));
        if let Some(checks) = &mut self.checks {
            let whose = number.and_then(|number| self.nodes.get(number.0 as usize));
            checks.closed_at_fault(self.now, &self.nodes[seat.node.0 as usize], whose, &why.to_string());
        }
    }
}

/// The hash of a block's bytes, which do not exist.
fn block_hash(piece: PieceIndex, block: usize, content: u32) -> [u8; 20] {
    let mut hash = [0; 20];
    hash[..4].copy_from_slice(&piece.0.to_be_bytes());
    hash[4..12].copy_from_slice(&(block as u64).to_be_bytes());
    hash[12..16].copy_from_slice(&content.to_be_bytes());
    hash
}
