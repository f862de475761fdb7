//! Which blocks to ask of which peer. Events in, one question out: `pick`.
//!
//! - What is begun is finished first, a peer's own pieces before those of others; only a seed is first asked for what
//!   nobody else has (`choose`).
//! - Then the piece of the highest priority and, within it, the one that fewest peers have is begun, ties at random
//!   (`rarity`); before the first few pieces are verified a random one, so that there is soon something to give.
//! - In the endgame, when every wanted block that any peer has is in flight, a peer is asked for blocks that one
//!   other owes, those of the slowest peer first. Blocks that only snubbed peers owe are asked of others at any time.
//! - Never are more pieces in flight than the bound says. What waits for its verification counts.
//! - Who gives waits for nobody who does not: in the endgame, or when no piece more may be begun, a peer that has given
//!   blocks is asked for those of *dormant* peers, too, which were asked and have given nothing ever, or lately. Where
//!   two owe a block already, a dormant one is given up for it. So however many come, take blocks and never give, one
//!   that gives has something to do until the end.
//!
//! Invariants: outside endgame, snubs and that bound a block is owed by one peer at most, and never by more than two; no block is
//! asked that the peer lacks, or that we have or do not want; counters of interest equal what a recount would give
//! (`model_tests` recounts after every event).
//!
//! A piece in flight that failed goes back to the shelves, and a peer that leaves, chokes or times out frees its
//! blocks. A failed piece may be marked exclusive: one connection at a time contributes to it then, and what comes
//! from others is `Unwanted`.
//!
//! Cost: a have moves one piece; beginning, verifying and failing a piece looks at each peer once; nothing is
//! allocated for a block. A piece takes about 14 bytes, a peer one bitfield unless it has nothing or everything.
//!
//! Deliberately absent: time limits and bans, which the caller decides on; the bytes themselves; partial blocks.
//!
//! Sources: BEP 3, BEP 6, BEP 54; Cohen, "Incentives Build Robustness in BitTorrent" (2003), for rarest first, random
//! first piece and endgame.

mod choose;
mod in_flight;
#[cfg(test)]
mod model_tests;
mod peers;
mod rarity;
mod terms;
#[cfg(test)]
mod tests;
mod words;

pub use crate::shape::PieceShape;
pub use terms::{Allowed, Order, Others, PickerSettings, Priority, Received};

use crate::bitfield::Bitfield;
use crate::id::ConnId;
use crate::prefetch::Distance;
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use choose::{Rank, Rescue};
use in_flight::InFlight;
use peers::{PeerNumber, Peers, Stock};
use rarity::{Rarity, ShelfIndex};

/// The picker of one torrent.
#[derive(Debug)]
pub struct Picker {
    shape: PieceShape,
    settings: PickerSettings,
    /// Two bits of priority and three flags for each piece.
    pieces: Vec<u8>,
    /// Pieces that are wanted and not verified.
    wanted: Bitfield,
    /// Those of them that are not in flight: exactly these stand on a shelf.
    startable: Bitfield,
    rarity: Rarity,
    in_flight: InFlight,
    peers: Peers,
    /// Peers that have everything, which `rarity` does not count.
    seeds: u32,
    /// Pieces verified.
    verified: u32,
    bytes_left: u64,
    /// Kept for its memory between questions.
    rescues: Vec<Rescue>,
}

const PRIORITY: u8 = 0b11;
const VERIFIED: u8 = 1 << 2;
const IN_FLIGHT: u8 = 1 << 3;
const EXCLUSIVE: u8 = 1 << 4;

/// The shelf that pieces of this priority stand on while they may be begun.
fn shelf(priority: Priority) -> Option<ShelfIndex> {
    match priority {
        Priority::Skip => None,
        Priority::Low => Some(ShelfIndex(0)),
        Priority::Normal => Some(ShelfIndex(1)),
        Priority::High => Some(ShelfIndex(2)),
    }
}

fn bits(priority: Priority) -> u8 {
    match priority {
        Priority::Skip => 0,
        Priority::Low => 1,
        Priority::Normal => 2,
        Priority::High => 3,
    }
}

fn priority_of(piece: u8) -> Priority {
    match piece & PRIORITY {
        0 => Priority::Skip,
        1 => Priority::Low,
        2 => Priority::Normal,
        _ => Priority::High,
    }
}

impl Picker {
    /// A picker for a torrent of which `have` is verified. `priority` is asked once for each piece.
    pub fn new(
        shape: PieceShape,
        have: &Bitfield,
        priority: impl Fn(PieceIndex) -> Priority,
        settings: PickerSettings,
        rng: &mut Rng,
    ) -> Self {
        let count = shape.piece_count;
        let mut picker = Self {
            shape,
            settings,
            pieces: Vec::with_capacity(count as usize),
            wanted: Bitfield::none(count),
            startable: Bitfield::none(count),
            rarity: Rarity::new(count),
            in_flight: InFlight::default(),
            peers: Peers::default(),
            seeds: 0,
            verified: 0,
            bytes_left: 0,
            rescues: Vec::new(),
        };
        for piece in (0..count).map(PieceIndex) {
            let has = have.contains(piece);
            picker.pieces.push(bits(priority(piece)) | if has { VERIFIED } else { 0 });
            picker.verified += u32::from(has);
            if picker.is_to_be_wanted(piece) {
                picker.wanted.insert(piece);
                picker.bytes_left += u64::from(shape.piece_len(piece));
            }
        }
        picker.startable = picker.wanted.clone();
        // Shuffled, so that even the pieces behind a walk's random beginning stand in no common order.
        let mut order: Vec<u32> = (0..count).collect();
        rng.shuffle(&mut order);
        for piece in order {
            if let Some(shelf) = picker.shelf_of(piece) {
                picker.rarity.shelve(piece, shelf);
            }
        }
        picker
    }

    /// A connection with a peer that has nothing, as far as we know.
    pub fn handle_joined(&mut self, conn: ConnId) {
        self.peers.join(conn);
    }

    /// The connection is gone; its blocks in flight are free again. Nothing is told about it any more.
    pub fn handle_left(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.number(conn) else { return };
        self.in_flight.leave(peer, &mut self.peers);
        self.replace_stock(peer, Stock::Nothing);
        self.peers.leave(peer);
    }

    /// The peer has exactly these pieces. A bitfield of another length is ignored.
    pub fn handle_stock(&mut self, conn: ConnId, stock: &Bitfield) {
        let Some(peer) = self.peers.number(conn) else { return };
        if stock.len() != self.shape.piece_count {
            return;
        }
        let stock = match stock.count() {
            0 => Stock::Nothing,
            _ if stock.is_full() => Stock::All,
            _ => Stock::Some(stock.clone()),
        };
        self.replace_stock(peer, stock);
    }

    /// The peer has every piece (BEP 6 have all).
    pub fn handle_all(&mut self, conn: ConnId) {
        if let Some(peer) = self.peers.number(conn) {
            self.replace_stock(peer, Stock::All);
        }
    }

    /// Asks for the memory that news from a peer will need.
    pub fn prefetch(&self, conn: ConnId, distance: Distance) {
        self.peers.prefetch(conn, distance);
    }

    /// The peer has one more piece; true when that is news.
    pub fn handle_have(&mut self, conn: ConnId, piece: PieceIndex) -> bool {
        self.peers.number(conn).is_some_and(|number| self.add_to_stock(number, piece))
    }

    /// The peer has these pieces, too; true when that is news of a piece that is wanted.
    pub fn handle_haves(&mut self, conn: ConnId, pieces: &[PieceIndex]) -> bool {
        let Some(number) = self.peers.number(conn) else { return false };
        let mut is_of_use = false;
        for &piece in pieces {
            is_of_use |= self.add_to_stock(number, piece) && self.wanted.contains(piece);
        }
        is_of_use
    }

    fn add_to_stock(&mut self, number: PeerNumber, piece: PieceIndex) -> bool {
        let piece_count = self.shape.piece_count;
        if piece.0 >= piece_count {
            return false;
        }
        let shelf = self.shelf_of(piece.0);
        let peer = self.peers.peer_mut(number);
        match &mut peer.stock {
            Stock::All => return false,
            Stock::Some(pieces) => {
                if !pieces.insert(piece) {
                    return false;
                }
            }
            Stock::Nothing => {
                let mut pieces = Bitfield::none(piece_count);
                pieces.insert(piece);
                peer.stock = Stock::Some(pieces);
            }
        }
        self.rarity.raise(piece.0, shelf);
        peer.wanted += u32::from(self.wanted.contains(piece));
        peer.startable += u32::from(shelf.is_some());
        self.peers.note_interest(number);
        true
    }

    /// The peer lost a piece (BEP 54); true when it had it. The blocks of it that it owes are for the caller to
    /// return, as they are rejected.
    pub fn handle_dont_have(&mut self, conn: ConnId, piece: PieceIndex) -> bool {
        let Some(number) = self.peers.number(conn) else { return false };
        if !self.peers.peer(number).stock.contains(piece.0) || piece.0 >= self.shape.piece_count {
            return false;
        }
        if matches!(self.peers.peer(number).stock, Stock::All) {
            let mut pieces = Bitfield::all(self.shape.piece_count);
            pieces.remove(piece);
            self.replace_stock(number, Stock::Some(pieces));
            return true;
        }
        let shelf = self.shelf_of(piece.0);
        let peer = self.peers.peer_mut(number);
        if let Stock::Some(pieces) = &mut peer.stock {
            pieces.remove(piece);
        }
        self.rarity.lower(piece.0, shelf);
        peer.wanted -= u32::from(self.wanted.contains(piece));
        peer.startable -= u32::from(shelf.is_some());
        self.peers.note_interest(number);
        true
    }

    /// How fast the peer gives lately. Peers of like speed share pieces, others get pieces of their own.
    pub fn handle_rate(&mut self, conn: ConnId, rate: ByteRate) {
        if let Some(peer) = self.peers.number(conn) {
            self.peers.peer_mut(peer).rate = rate.0;
        }
    }

    /// Whether the peer owes us blocks for too long. While it does, they may be asked of others, too.
    pub fn handle_snubbed(&mut self, conn: ConnId, snubbed: bool) {
        let Some(peer) = self.peers.number(conn) else { return };
        if self.peers.peer(peer).snubbed != snubbed {
            self.in_flight.snub(peer, snubbed, &mut self.peers);
        }
    }

    /// Appends up to `count` blocks to ask of the peer; they count as asked from now on. None for a connection that
    /// never joined.
    pub fn pick(
        &mut self,
        now: Instant,
        conn: ConnId,
        count: usize,
        allowed: Allowed<'_>,
        rng: &mut Rng,
        out: &mut Vec<BlockSpan>,
    ) {
        let Some(peer) = self.peers.number(conn) else { return };
        if self.peers.peer(peer).wanted == 0 {
            return;
        }
        let now = u32::try_from(now.as_nanos() / 100_000_000).unwrap_or(u32::MAX);
        self.peers.note_time(now);
        let goal = out.len().saturating_add(count);
        while out.len() < goal {
            let partial = self.choose_partial(peer, allowed);
            let number = match partial {
                Some((number, Rank::Own | Rank::Shared)) => number,
                _ => match (self.choose_new(peer, allowed, rng), partial) {
                    (Some(piece), _) => self.begin(piece),
                    (None, Some((number, _))) => number,
                    (None, None) => break,
                },
            };
            let Some(piece) = self.in_flight.partial(number).map(|partial| PieceIndex(partial.piece)) else {
                break;
            };
            let shape = self.shape;
            let asked_before = out.len();
            self.in_flight.ask(number, peer, goal - out.len(), now, &mut self.peers, |block| {
                out.extend(shape.span(piece, block));
            });
            self.peers.peer_mut(peer).current = number;
            debug_assert!(out.len() > asked_before, "a piece chosen for a peer holds a block to ask it for");
            if out.len() == asked_before {
                break;
            }
        }
        let left = goal - out.len();
        if left == 0 || matches!(allowed, Allowed::Fast(_)) || self.peers.peer(peer).snubbed {
            return;
        }
        let in_endgame = self.is_endgame();
        if in_endgame || self.peers.peer(peer).gave && self.is_full() {
            self.choose_rescues(peer, left, in_endgame, rng);
            for at in 0..self.rescues.len() {
                let Rescue { number, block, .. } = self.rescues[at];
                self.in_flight.ask_block(number, block, peer, now, &mut self.peers);
                let piece = self.in_flight.partial(number).map(|partial| PieceIndex(partial.piece));
                out.extend(piece.and_then(|piece| self.shape.span(piece, block)));
            }
        }
    }

    /// A connection whose peer owes the block no more, since another was asked in its place. Drain it after
    /// [`pick`](Self::pick).
    pub fn poll_given_up(&mut self) -> Option<(ConnId, BlockSpan)> {
        let (conn, piece, block) = self.in_flight.poll_given_up()?;
        Some((conn, self.shape.span(PieceIndex(piece), block)?))
    }

    /// A block came.
    pub fn handle_received(&mut self, conn: ConnId, span: BlockSpan) -> Received {
        let (Some(peer), Some(block)) = (self.peers.number(conn), self.shape.block_of(span)) else {
            return Received::Unwanted;
        };
        if self.pieces[span.piece.0 as usize] & VERIFIED != 0 {
            return Received::Duplicate;
        }
        let Some(number) = self.number_of(span.piece) else { return Received::Unwanted };
        let Some(partial) = self.in_flight.partial(number) else { return Received::Unwanted };
        if partial.blocks[block as usize].is_received() {
            return Received::Duplicate;
        }
        if !partial.admits_block(peer, block) {
            return Received::Unwanted;
        }
        self.peers.note_gave(peer);
        let cancel = self.in_flight.receive(number, block, peer, &mut self.peers);
        let completes = self.in_flight.partial(number).is_some_and(|partial| partial.is_whole());
        Received::Block { completes, cancel }
    }

    /// A block that was asked will not come: rejected, choked away or timed out. Ignored when the peer does not owe it.
    pub fn handle_returned(&mut self, conn: ConnId, span: BlockSpan) {
        if let (Some(peer), Some(block)) = (self.peers.number(conn), self.shape.block_of(span))
            && let Some(number) = self.number_of(span.piece)
        {
            self.in_flight.unask(number, block, peer, &mut self.peers);
        }
    }

    /// The piece is ours: its hash is right, and it is stored. Whether it was in flight does not matter.
    pub fn handle_verified(&mut self, piece: PieceIndex) {
        let Some(&flags) = self.pieces.get(piece.0 as usize) else { return };
        if flags & VERIFIED == 0 {
            self.unwant(piece.0);
            self.stop(piece.0);
            self.pieces[piece.0 as usize] = (flags & PRIORITY) | VERIFIED;
            self.verified += 1;
        }
    }

    /// The piece in flight has to be fetched again: its hash is wrong, or it could not be stored. When `exclusive`,
    /// one connection at a time contributes to it until it is verified, so that a liar is known.
    pub fn handle_failed(&mut self, piece: PieceIndex, exclusive: bool) {
        if self.number_of(piece).is_some() {
            self.pieces[piece.0 as usize] |= if exclusive { EXCLUSIVE } else { 0 };
            self.stop(piece.0);
        }
    }

    /// A piece that was ours is no more, for example after a disk error: it is wanted again.
    pub fn handle_lost(&mut self, piece: PieceIndex) {
        if let Some(flags) = self.pieces.get_mut(piece.0 as usize).filter(|flags| **flags & VERIFIED != 0) {
            *flags &= !VERIFIED;
            self.verified -= 1;
            self.want(piece.0);
        }
    }

    /// Changes a piece's priority. True when that gave up a piece in flight (`Skip` before its last block came): its
    /// buffer can be dropped, and its blocks in flight will be `Unwanted`. A piece that only waits for its
    /// verification stays in flight.
    pub fn set_priority(&mut self, piece: PieceIndex, priority: Priority) -> bool {
        let Some(&flags) = self.pieces.get(piece.0 as usize) else { return false };
        if priority_of(flags) == priority {
            return false;
        }
        self.unwant(piece.0);
        self.pieces[piece.0 as usize] = (flags & !PRIORITY) | bits(priority);
        let number = self.number_of(piece).and_then(|number| self.in_flight.partial(number));
        let given_up = priority == Priority::Skip && number.is_some_and(|partial| !partial.is_whole());
        if given_up {
            self.stop(piece.0);
        }
        self.want(piece.0);
        given_up
    }

    /// The next change of our interest in a peer. Drain it after events.
    pub fn poll_interest(&mut self) -> Option<(ConnId, bool)> {
        self.peers.poll_interest()
    }

    /// Whether the peer has a wanted piece that we lack.
    pub fn is_interesting(&self, conn: ConnId) -> bool {
        self.peers.number(conn).is_some_and(|peer| self.peers.peer(peer).wanted > 0)
    }

    /// Whether every wanted block that any peer has is in flight, so that blocks are asked of two.
    pub fn is_in_endgame(&self) -> bool {
        self.is_endgame()
    }

    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        self.wanted.count() == 0
    }

    /// Wanted pieces that are not verified.
    pub fn wanted_left(&self) -> u32 {
        self.wanted.count()
    }

    /// Bytes of those pieces.
    pub fn bytes_left(&self) -> u64 {
        self.bytes_left
    }

    /// Peers that have the piece.
    pub fn availability(&self, piece: PieceIndex) -> u32 {
        if piece.0 < self.shape.piece_count { self.rarity.count(piece.0) + self.seeds } else { 0 }
    }

    /// Peers that have the rarest piece of the torrent, and how many pieces are that rare. We do not count.
    pub fn rarest(&self) -> (u32, u32) {
        let (count, pieces) = self.rarity.rarest();
        (count + self.seeds, pieces)
    }

    /// Copies of the torrent among the peers, ours apart: those of the rarest piece, and after the point the share
    /// of pieces of which there are more.
    pub fn distributed_copies(&self) -> f64 {
        let (count, pieces) = self.rarest();
        let more = self.shape.piece_count.saturating_sub(pieces);
        f64::from(count) + f64::from(more) / f64::from(self.shape.piece_count.max(1))
    }

    /// Connections.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Connections with peers that have everything.
    pub fn seeds(&self) -> usize {
        self.peers.iter().filter(|peer| peer.stock.is_full()).count()
    }

    /// Pieces begun and not verified.
    pub fn pieces_in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// How the torrent is cut.
    pub fn shape(&self) -> PieceShape {
        self.shape
    }

    /// Whether the piece is begun and not verified.
    pub fn is_in_flight(&self, piece: PieceIndex) -> bool {
        self.number_of(piece).is_some()
    }

    /// Blocks that the peer owes us.
    pub fn owed_by(&self, conn: ConnId) -> u32 {
        self.peers.number(conn).map_or(0, |peer| self.peers.peer(peer).owed)
    }

    /// Whether the peer has given a block that was wanted.
    pub fn has_given(&self, conn: ConnId) -> bool {
        self.peers.number(conn).is_some_and(|peer| self.peers.peer(peer).gave)
    }

    /// Whether any of the connected peers has.
    pub fn has_giver(&self) -> bool {
        self.peers.iter().any(|peer| peer.gave)
    }

    /// Whether the peer owes us this block.
    pub fn is_owed(&self, conn: ConnId, span: BlockSpan) -> bool {
        let (Some(peer), Some(block)) = (self.peers.number(conn), self.shape.block_of(span)) else {
            return false;
        };
        let partial = self.number_of(span.piece).and_then(|number| self.in_flight.partial(number));
        partial.is_some_and(|partial| partial.is_owed(peer, block))
    }

    /// Pieces that may be begun and not verified at once.
    pub fn pieces_in_flight_max(&self) -> usize {
        self.settings.pieces_in_flight_max
    }

    /// Whether as many pieces are in flight as may be.
    fn is_full(&self) -> bool {
        self.in_flight.len() >= self.settings.pieces_in_flight_max.max(1)
    }

    fn begin(&mut self, piece: u32) -> u32 {
        self.unshelve(piece);
        let flags = &mut self.pieces[piece as usize];
        *flags |= IN_FLIGHT;
        let exclusive = *flags & EXCLUSIVE != 0;
        let number = self.in_flight.begin(piece, self.shape.blocks_of(PieceIndex(piece)), exclusive);
        self.rarity.note(piece, number);
        number
    }

    /// Takes a piece out of flight, if it is in flight, and puts it on its shelf, if it is wanted.
    fn stop(&mut self, piece: u32) {
        if let Some(number) = self.number_of(PieceIndex(piece)) {
            self.in_flight.end(number, &mut self.peers);
            self.pieces[piece as usize] &= !IN_FLIGHT;
            if self.wanted.contains(PieceIndex(piece)) {
                self.enshelve(piece);
            }
        }
    }

    /// Whether the piece's flags say that it is wanted. A piece without bytes, as only a shape that contradicts
    /// itself has them, never is.
    fn is_to_be_wanted(&self, piece: PieceIndex) -> bool {
        let flags = self.pieces[piece.0 as usize];
        flags & VERIFIED == 0 && priority_of(flags) != Priority::Skip && self.shape.blocks_of(piece) > 0
    }

    /// Counts the piece as wanted, if its flags say so.
    fn want(&mut self, piece: u32) {
        if !self.is_to_be_wanted(PieceIndex(piece)) || !self.wanted.insert(PieceIndex(piece)) {
            return;
        }
        self.bytes_left += u64::from(self.shape.piece_len(PieceIndex(piece)));
        self.peers.change_wanted(piece, true);
        if self.pieces[piece as usize] & IN_FLIGHT == 0 {
            self.enshelve(piece);
        }
    }

    /// Counts the piece as wanted no more. Its flags are still the old ones.
    fn unwant(&mut self, piece: u32) {
        if self.wanted.remove(PieceIndex(piece)) {
            self.bytes_left -= u64::from(self.shape.piece_len(PieceIndex(piece)));
            self.peers.change_wanted(piece, false);
            if self.startable.contains(PieceIndex(piece)) {
                self.unshelve(piece);
            }
        }
    }

    fn enshelve(&mut self, piece: u32) {
        if let Some(shelf) = shelf(self.priority(piece)) {
            self.rarity.shelve(piece, shelf);
            self.startable.insert(PieceIndex(piece));
            self.peers.change_startable(piece, true);
        }
    }

    fn unshelve(&mut self, piece: u32) {
        if let Some(shelf) = shelf(self.priority(piece)) {
            self.rarity.take(piece, shelf);
            self.startable.remove(PieceIndex(piece));
            self.peers.change_startable(piece, false);
        }
    }

    fn replace_stock(&mut self, number: PeerNumber, stock: Stock) {
        let peer = self.peers.peer_mut(number);
        let (pieces, startable) = (&self.pieces, &self.startable);
        self.rarity.change(peer.stock.counted(), stock.counted(), |piece| {
            startable
                .contains(PieceIndex(piece))
                .then(|| shelf(priority_of(pieces[piece as usize])))
                .flatten()
        });
        self.seeds -= u32::from(matches!(peer.stock, Stock::All));
        self.seeds += u32::from(matches!(stock, Stock::All));
        (peer.wanted, peer.startable) = match &stock {
            Stock::All => (self.wanted.count(), self.startable.count()),
            counted => (
                words::common(self.wanted.as_bytes(), counted.counted()),
                words::common(self.startable.as_bytes(), counted.counted()),
            ),
        };
        peer.stock = stock;
        self.peers.note_interest(number);
    }

    fn number_of(&self, piece: PieceIndex) -> Option<u32> {
        let flags = self.pieces.get(piece.0 as usize)?;
        (flags & IN_FLIGHT != 0).then(|| self.rarity.noted(piece.0))
    }

    fn shelf_of(&self, piece: u32) -> Option<ShelfIndex> {
        self.startable.contains(PieceIndex(piece)).then(|| shelf(self.priority(piece))).flatten()
    }

    fn priority(&self, piece: u32) -> Priority {
        priority_of(self.pieces[piece as usize])
    }
}
