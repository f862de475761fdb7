//! Super-seeding (BEP 16): a seed that is alone with its torrent shows each peer one piece at a time, so that the
//! first copy goes out with hardly any piece sent twice.
//!
//! - A peer is shown a piece that nobody else has and that was shown to nobody else. The next one it is shown when
//!   another peer says it has that piece: then the peer has passed it on. So who shares well is fed well.
//! - Alone with the seed nobody can pass anything on: then having the piece is enough.
//! - Patience ends every wait, so that nobody who hides what he has, does not share, or is given to by nobody, is
//!   stuck: after `SUPERSEED_PATIENCE` a peer is shown another piece, and if all are shown already, one that was
//!   shown to fewest but has not been seen anywhere.
//! - A piece seen at any peer is never shown again: it is for the peers to spread. Should its last holder leave, it
//!   counts as never shown.
//! - When every piece has been seen at somebody, super-seeding is over for good: peers are to be told all pieces.
//!
//! Invariant: a peer waits on one shown piece at most, and no wait is longer than the patience while anything is left
//! to show. No piece is shown to the same connection twice.
//!
//! Deliberately absent: rarest-first. What is shown is rare by definition, as nobody has it. And trust: a peer that
//! lies about what it has only feeds its friends, and ends the mode early at worst.

#[cfg(test)]
mod tests;

use crate::bitfield::Bitfield;
use crate::id::ConnId;
use crate::limits::SUPERSEED_PATIENCE;
use crate::time::Instant;
use crate::units::PieceIndex;
use std::collections::{BTreeMap, BTreeSet};

/// The policy of one torrent that super-seeds. Two numbers a piece, one bit a piece and peer.
#[derive(Clone, Debug)]
pub struct SuperSeed {
    /// Peers that have the piece, by piece.
    holders: Vec<u32>,
    /// Peers that were shown the piece, by piece.
    shown_to: Vec<u32>,
    /// Pieces that no peer has.
    unseen: u32,
    /// Pieces that no peer has and none was shown.
    fresh: u32,
    /// Where the search for a fresh piece goes on.
    cursor: u32,
    peers: BTreeMap<ConnId, Peer>,
    /// Who waits for which shown piece to be seen elsewhere.
    waiting: BTreeSet<(PieceIndex, ConnId)>,
    /// The same peers by the begin of their wait.
    waiting_since: BTreeSet<(Instant, ConnId)>,
    /// Who is to be shown a piece, and since when.
    ready: BTreeSet<(Instant, ConnId)>,
    over: bool,
}

#[derive(Clone, Debug)]
struct Peer {
    has: Bitfield,
    shown: BTreeSet<PieceIndex>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be shown a piece, since then.
    Ready(Instant),
    /// Shown a piece; the wait for its spreading began then.
    Shown(PieceIndex, Instant),
}

impl SuperSeed {
    /// A torrent of `pieces` pieces without peers.
    pub fn new(pieces: u32) -> Self {
        Self {
            holders: vec![0; pieces as usize],
            shown_to: vec![0; pieces as usize],
            unseen: pieces,
            fresh: pieces,
            cursor: 0,
            peers: BTreeMap::new(),
            waiting: BTreeSet::new(),
            waiting_since: BTreeSet::new(),
            ready: BTreeSet::new(),
            over: pieces == 0,
        }
    }

    /// A peer finished its handshake and was told that we have nothing.
    pub fn handle_joined(&mut self, now: Instant, conn: ConnId) {
        self.handle_left(conn);
        if self.over {
            return;
        }
        let pieces = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        let peer = Peer { has: Bitfield::none(pieces), shown: BTreeSet::new(), state: State::Ready(now) };
        self.peers.insert(conn, peer);
        self.ready.insert((now, conn));
    }

    /// A peer said what it has on joining. A stock of another length than the torrent's is not believed.
    pub fn handle_stock(&mut self, now: Instant, conn: ConnId, stock: &Bitfield) {
        if stock.len() as usize != self.holders.len() {
            return;
        }
        for piece in stock.iter() {
            self.handle_have(now, conn, piece);
        }
    }

    /// A peer said it has a piece.
    pub fn handle_have(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        if self.over || piece.0 as usize >= self.holders.len() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !peer.has.insert(piece) {
            return;
        }
        self.change(piece, |holders, _| *holders += 1);
        if self.unseen == 0 {
            self.end();
            return;
        }
        let others: Vec<ConnId> = self
            .waiting
            .range((piece, FIRST_CONN)..=(piece, LAST_CONN))
            .map(|&(_, other)| other)
            .filter(|&other| other != conn)
            .collect();
        others.into_iter().for_each(|other| self.make_ready(now, other));
        self.note_owned(now, conn, piece);
    }

    /// A peer took the whole of a piece from us. It may never say so: some keep silent about what we have already.
    pub fn handle_served(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        self.note_owned(now, conn, piece);
    }

    /// A peer's connection is gone.
    pub fn handle_left(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        match peer.state {
            State::Ready(since) => self.ready.remove(&(since, conn)),
            State::Shown(piece, since) => {
                self.waiting_since.remove(&(since, conn));
                self.waiting.remove(&(piece, conn))
            }
        };
        if self.over {
            return;
        }
        for piece in peer.has.iter() {
            self.change(piece, |holders, _| *holders -= 1);
        }
        for &piece in &peer.shown {
            self.change(piece, |_, shown_to| *shown_to -= 1);
        }
    }

    /// The next peer to tell that we have a piece, and the piece; `None` when all is said for now. To be asked after
    /// every `handle_*`. Nothing is said any more once `is_over`.
    pub fn poll_reveal(&mut self, now: Instant) -> Option<(ConnId, PieceIndex)> {
        let &(since, conn) = self.ready.first()?;
        if self.fresh > 0 {
            let piece = self.next_fresh()?;
            return Some(self.show(now, since, conn, piece));
        }
        let mut impatient = self.ready.range(..=(now - SUPERSEED_PATIENCE, LAST_CONN));
        let found = impatient.find_map(|&(since, conn)| Some((since, conn, self.least_shown(conn)?)));
        if let Some((since, conn, piece)) = found {
            return Some(self.show(now, since, conn, piece));
        }
        self.calm(now);
        None
    }

    /// When `handle_timeout` is due; `None` when nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let first = [self.ready.first(), self.waiting_since.first()].into_iter().flatten().min();
        first.map(|&(since, _)| since + SUPERSEED_PATIENCE)
    }

    /// Ends the waits that have lasted too long. Then ask `poll_reveal`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late = self.waiting_since.range(..=(now - SUPERSEED_PATIENCE, LAST_CONN));
        let late: Vec<ConnId> = late.map(|&(_, conn)| conn).collect();
        // A patience was waited already: nobody waits for another because no fresh piece is left.
        late.into_iter().for_each(|conn| self.make_ready(now - SUPERSEED_PATIENCE, conn));
    }

    /// Whether a peer may request from a piece: it was shown to it, or super-seeding is over.
    pub fn may_request(&self, conn: ConnId, piece: PieceIndex) -> bool {
        self.over || self.peers.get(&conn).is_some_and(|peer| peer.shown.contains(&piece))
    }

    /// Whether every piece has been seen at a peer: from now on tell everybody every piece and seed as usual. Stays
    /// true.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Pieces that no peer is known to have.
    pub fn unseen(&self) -> u32 {
        self.unseen
    }

    fn end(&mut self) {
        self.over = true;
        self.ready = BTreeSet::new();
        self.waiting = BTreeSet::new();
        self.waiting_since = BTreeSet::new();
        self.peers = BTreeMap::new();
    }

    fn show(
        &mut self,
        now: Instant,
        since: Instant,
        conn: ConnId,
        piece: PieceIndex,
    ) -> (ConnId, PieceIndex) {
        self.ready.remove(&(since, conn));
        self.change(piece, |_, shown_to| *shown_to += 1);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.shown.insert(piece);
            peer.state = State::Shown(piece, now);
            self.waiting.insert((piece, conn));
            self.waiting_since.insert((now, conn));
        }
        (conn, piece)
    }

    /// The peer has the piece. Alone it is shown the next; otherwise the wait for another to have it begins.
    fn note_owned(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        let alone = self.peers.len() == 1;
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let State::Shown(shown, since) = peer.state else { return };
        if shown != piece {
            return;
        }
        if alone {
            self.make_ready(now, conn);
        } else {
            peer.state = State::Shown(piece, now);
            self.waiting_since.remove(&(since, conn));
            self.waiting_since.insert((now, conn));
        }
    }

    fn make_ready(&mut self, since: Instant, conn: ConnId) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if let State::Shown(piece, began) = peer.state {
            self.waiting.remove(&(piece, conn));
            self.waiting_since.remove(&(began, conn));
            peer.state = State::Ready(since);
            self.ready.insert((since, conn));
        }
    }

    /// Lets those whose patience ended in vain, as they were shown all there is, be patient anew.
    fn calm(&mut self, now: Instant) {
        let vain: Vec<(Instant, ConnId)> =
            self.ready.range(..=(now - SUPERSEED_PATIENCE, LAST_CONN)).copied().collect();
        for (since, conn) in vain {
            self.ready.remove(&(since, conn));
            self.ready.insert((now, conn));
            if let Some(peer) = self.peers.get_mut(&conn) {
                peer.state = State::Ready(now);
            }
        }
    }

    /// Changes a piece's numbers and keeps the sums over all pieces true.
    fn change(&mut self, piece: PieceIndex, change: impl FnOnce(&mut u32, &mut u32)) {
        let index = piece.0 as usize;
        let (Some(holders), Some(shown_to)) = (self.holders.get_mut(index), self.shown_to.get_mut(index))
        else {
            return;
        };
        let was = (*holders == 0, *holders == 0 && *shown_to == 0);
        change(holders, shown_to);
        let is = (*holders == 0, *holders == 0 && *shown_to == 0);
        self.unseen = self.unseen - u32::from(was.0) + u32::from(is.0);
        self.fresh = self.fresh - u32::from(was.1) + u32::from(is.1);
    }

    /// A piece that nobody has and nobody was shown, going round. Cheap on the whole, for what is passed over stays
    /// passed until the next time round.
    fn next_fresh(&mut self) -> Option<PieceIndex> {
        let pieces = u32::try_from(self.holders.len()).unwrap_or(u32::MAX);
        let is_fresh = |piece: &u32| {
            let index = *piece as usize;
            self.holders.get(index) == Some(&0) && self.shown_to.get(index) == Some(&0)
        };
        let piece = (self.cursor..pieces).chain(0..self.cursor).find(is_fresh)?;
        self.cursor = piece + 1;
        Some(PieceIndex(piece))
    }

    /// Of the pieces that nobody has and that were not shown to this peer the one that was shown to fewest. Walks
    /// all pieces; happens once in a patience and peer at most.
    fn least_shown(&self, conn: ConnId) -> Option<PieceIndex> {
        let peer = self.peers.get(&conn)?;
        let numbers = self.holders.iter().zip(&self.shown_to).enumerate();
        numbers
            .filter(|(_, (holders, _))| **holders == 0)
            .filter_map(|(index, (_, &shown_to))| Some((shown_to, PieceIndex(u32::try_from(index).ok()?))))
            .filter(|(_, piece)| !peer.shown.contains(piece))
            .min()
            .map(|(_, piece)| piece)
    }
}

const FIRST_CONN: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };
const LAST_CONN: ConnId = ConnId { worker: u16::MAX, slot: u32::MAX, generation: u32::MAX };
