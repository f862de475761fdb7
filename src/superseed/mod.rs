//! Super-seeding (BEP 16): a seed that is alone with its torrent shows each peer one piece at a time, so that the
//! first copy goes out with hardly any piece sent twice.
//!
//! - A peer is shown a piece that nobody else has and that is out at nobody else. The next one it is shown when
//!   another peer says it has that piece: then the peer has passed it on. So who shares well is fed well.
//! - Alone with the seed nobody can pass anything on: then having the piece is enough. Those who are under suspicion are
//!   no company.
//! - A showing lapses, and the piece may be shown to others, when its peer does not ask for it within seconds, or when it
//!   took the piece and nobody else has it after a few times as long as pieces take to spread here. The peer is then under
//!   suspicion: it is shown something when nobody else waits, and after `SUPERSEED_PATIENCE`. It may still ask for
//!   what it was shown, and with that or with the piece seen elsewhere the suspicion ends.
//! - Pieces never shown go first, then those whose last showing is oldest. When all are out, a peer that has passed on what
//!   it got does not wait for those that have not: it is shown what has been out at such peers alone for a second.
//! - Patience ends every wait, so that nobody who hides what he has, does not share, or is given to by nobody, is
//!   stuck: after `SUPERSEED_PATIENCE` a peer is shown another piece, and if all are out, one that is out at fewest.
//! - An address prefix has no more than its share of pieces out at a time, unless all peers are of it.
//! - A piece seen at any peer is never shown again: it is for the peers to spread. Should its last holder leave, it
//!   counts as not out.
//! - When every piece has been seen at somebody, super-seeding is over for good: peers are to be told all pieces.
//!
//! Invariant: a peer waits on one shown piece at most, and no wait is longer than the patience while anything is left
//! to show and its prefix has room. No piece is shown to the same connection twice.
//!
//! Deliberately absent: rarest-first. What is shown is rare by definition, as nobody has it. And trust: a peer that
//! lies about what it has only feeds its friends, and ends the mode early at worst.

#[cfg(test)]
mod tests;

use crate::bitfield::Bitfield;
use crate::id::{AddressPrefix, ConnId};
use crate::limits::{
    SUPERSEED_ASK_TIME, SUPERSEED_DOUBT_TIME, SUPERSEED_PATIENCE, SUPERSEED_PREFIX_PIECES_MIN,
    SUPERSEED_PREFIX_SHARE, SUPERSEED_SPREAD_TIME, SUPERSEED_SPREAD_TIME_MIN, SUPERSEED_SPREAD_TIMES,
};
use crate::time::{Duration, Instant};
use crate::units::PieceIndex;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Peers that are looked at for a piece out at others, each time that anything happens.
const LOOKED_AT_MAX: usize = 8;

/// The policy of one torrent that super-seeds. Three numbers and a time a piece, one bit a piece and peer.
#[derive(Clone, Debug)]
pub struct SuperSeed {
    pieces: Vec<Piece>,
    /// Pieces that no peer has.
    unseen: u32,
    /// Pieces before this one were shown, or passed over because somebody had them.
    cursor: u32,
    /// Those before the cursor that nobody has and that are out at nobody, by their last showing.
    again: BTreeSet<(Instant, PieceIndex)>,
    /// Those that nobody has and that are out only at peers that have not passed anything on, by their last showing.
    doubtful: BTreeSet<(Instant, PieceIndex)>,
    /// When the next of the doubtful has been out for long enough, if somebody waits for that.
    doubt_at: Option<Instant>,
    peers: BTreeMap<ConnId, Peer>,
    /// Peers that are not under suspicion.
    company: BTreeSet<ConnId>,
    /// Peers that passed on what they were shown last.
    proven: u32,
    prefixes: BTreeMap<AddressPrefix, Prefix>,
    /// Who waits for which shown piece to be seen elsewhere.
    waiting: BTreeSet<(PieceIndex, ConnId)>,
    /// When the peers that were shown something, or everything, are to be looked at.
    due: BTreeSet<(Instant, ConnId)>,
    /// Who is to be shown a piece, and since when.
    ready: BTreeSet<(Standing, Instant, ConnId)>,
    /// Time from having a piece until another has it, as it is here.
    spread_time: Option<Duration>,
    over: bool,
}

/// How much of its piece a peer has taken, as its counters say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taking {
    /// Bytes since it joined.
    pub taken: u64,
    /// Whether it has asked for something that was not sent yet.
    pub asks: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    /// Peers that have it.
    holders: u32,
    /// Peers that were shown it and for whom it is kept.
    out: u32,
    /// Those of them that have passed pieces on.
    out_proven: u32,
    /// Zero when it was never shown.
    last_shown: Instant,
}

#[derive(Clone, Debug, Default)]
struct Prefix {
    peers: u32,
    /// Pieces that are out at them.
    out: u32,
    /// Peers that wait because these are as many as may be.
    parked: BTreeSet<(Standing, Instant, ConnId)>,
}

/// What a peer made of what it was shown last; better ones are served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Standing {
    Proven,
    New,
    Suspect,
}

#[derive(Clone, Debug)]
struct Peer {
    prefix: AddressPrefix,
    standing: Standing,
    has: Bitfield,
    shown: BTreeSet<PieceIndex>,
    /// Bytes that it had taken when it was last looked at.
    taken: u64,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be shown a piece, since then.
    Ready(Instant),
    /// The same, when its prefix has room.
    Parked(Instant),
    /// Shown a piece.
    Shown(Showing),
    /// Was shown all that might be shown to it; looked at again then.
    Sated(Instant),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Showing {
    piece: PieceIndex,
    at: Instant,
    /// The wait for its spreading began then.
    since: Instant,
    /// The peer has the piece.
    owned: bool,
    /// The piece is not kept for it any more.
    lapsed: bool,
    due: Instant,
}

impl SuperSeed {
    /// A torrent of `pieces` pieces without peers.
    pub fn new(pieces: u32) -> Self {
        Self {
            pieces: vec![Piece::default(); pieces as usize],
            unseen: pieces,
            cursor: 0,
            again: BTreeSet::new(),
            doubtful: BTreeSet::new(),
            doubt_at: None,
            peers: BTreeMap::new(),
            company: BTreeSet::new(),
            proven: 0,
            prefixes: BTreeMap::new(),
            waiting: BTreeSet::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
            spread_time: None,
            over: pieces == 0,
        }
    }

    /// A peer finished its handshake and was told that we have nothing.
    pub fn handle_joined(&mut self, now: Instant, conn: ConnId, prefix: AddressPrefix) {
        self.handle_left(now, conn);
        if self.over {
            return;
        }
        let state = State::Ready(now);
        let has = Bitfield::none(self.piece_count());
        let standing = Standing::New;
        let peer = Peer { prefix, standing, has, shown: BTreeSet::new(), taken: 0, state };
        self.peers.insert(conn, peer);
        self.company.insert(conn);
        self.prefixes.entry(prefix).or_default().peers += 1;
        self.ready.insert((standing, now, conn));
    }

    /// A peer said what it has on joining. A stock of another length than the torrent's is not believed.
    pub fn handle_stock(&mut self, now: Instant, conn: ConnId, stock: &Bitfield) {
        if stock.len() as usize != self.pieces.len() {
            return;
        }
        for piece in stock.iter() {
            self.handle_have(now, conn, piece);
        }
    }

    /// A peer said it has a piece.
    pub fn handle_have(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        if self.over || piece.0 as usize >= self.pieces.len() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if !peer.has.insert(piece) {
            return;
        }
        self.change(piece, |piece| piece.holders += 1);
        if self.unseen == 0 {
            *self = Self { over: true, ..Self::new(0) };
            return;
        }
        let others: Vec<ConnId> = self
            .waiting
            .range((piece, FIRST_CONN)..=(piece, LAST_CONN))
            .map(|&(_, other)| other)
            .filter(|&other| other != conn)
            .collect();
        let out = self.pieces.get(piece.0 as usize).map_or(0, |piece| piece.out);
        for other in others {
            self.note_spread(now, other, out);
            self.make_ready(now, other);
        }
        self.note_owned(now, conn, piece);
    }

    /// A peer took the whole of a piece from us. It may never say so: some keep silent about what we have already.
    pub fn handle_served(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        self.note_owned(now, conn, piece);
    }

    /// A peer's connection is gone.
    pub fn handle_left(&mut self, now: Instant, conn: ConnId) {
        if !self.peers.contains_key(&conn) {
            return;
        }
        self.leave_state(conn);
        self.set_standing(conn, Standing::Suspect);
        let Some(peer) = self.peers.remove(&conn) else { return };
        for piece in peer.has.iter() {
            self.change(piece, |piece| piece.holders -= 1);
        }
        if let Some(prefix) = self.prefixes.get_mut(&peer.prefix) {
            prefix.peers -= 1;
            if prefix.peers == 0 {
                self.prefixes.remove(&peer.prefix);
            }
        }
        if self.prefixes.len() == 1
            && let Some(&last) = self.prefixes.keys().next()
        {
            while self.unpark(last) {}
        }
        self.look_for_the_lonely(now);
    }

    /// The next peer to tell that we have a piece, and the piece; `None` when all is said for now. To be asked after
    /// every `handle_*`. Nothing is said any more once `is_over`.
    pub fn poll_reveal(&mut self, now: Instant) -> Option<(ConnId, PieceIndex)> {
        self.doubt_at = None;
        while let Some(&(_, _, conn)) = self.ready.first() {
            if !self.has_share(conn) {
                self.park(conn);
                continue;
            }
            if !self.has_fresh() {
                break;
            }
            if let Some(piece) = self.fresh_for(conn) {
                return Some(self.show(now, conn, piece));
            }
            if let Some(piece) = self.doubtful_for(now, conn) {
                return Some(self.show(now, conn, piece));
            }
            // It was shown all of these.
            self.leave_state(conn);
            self.enter(conn, State::Sated(now + SUPERSEED_PATIENCE));
        }
        let proven = self.ready.range(..(Standing::New, Instant::ZERO, FIRST_CONN)).take(LOOKED_AT_MAX);
        let found = proven.filter(|(_, _, conn)| self.has_share(*conn));
        let found = found.map(|&(_, _, conn)| conn).collect::<Vec<_>>();
        if !found.is_empty() {
            let young = self.doubtful.range((now - SUPERSEED_DOUBT_TIME, PieceIndex(u32::MAX))..);
            self.doubt_at = young.map(|&(shown, _)| shown + SUPERSEED_DOUBT_TIME).next();
        }
        let found = found.into_iter().find_map(|conn| Some((conn, self.doubtful_for(now, conn)?)));
        let (conn, piece) = found.or_else(|| self.impatient(now))?;
        Some(self.show(now, conn, piece))
    }

    /// When `handle_timeout` is due; `None` when nobody waits.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let ready = STANDINGS.into_iter().filter_map(|standing| {
            let first = self.ready.range((standing, Instant::ZERO, FIRST_CONN)..).next();
            first.map(|&(_, since, _)| since + SUPERSEED_PATIENCE)
        });
        ready.chain(self.due.first().map(|&(due, _)| due)).chain(self.doubt_at).min()
    }

    /// Looks at what has lasted long enough. `taking` reads a peer's counters. Then ask `poll_reveal`.
    pub fn handle_timeout(&mut self, now: Instant, mut taking: impl FnMut(ConnId) -> Taking) {
        while let Some(&(_, conn)) = self.due.first().filter(|(due, _)| *due <= now) {
            let Some(peer) = self.peers.get_mut(&conn) else { return };
            let State::Shown(showing) = peer.state else {
                self.make_ready(now - SUPERSEED_PATIENCE, conn);
                continue;
            };
            if now >= showing.since + SUPERSEED_PATIENCE {
                // A patience was waited already: nobody waits for another because no fresh piece is left.
                self.make_ready(now - SUPERSEED_PATIENCE, conn);
            } else if showing.owned && self.proven == 0 {
                // Nobody here has passed anything on; that is not this one's fault.
                self.make_ready(now, conn);
            } else if showing.owned {
                self.lapse(now, conn);
            } else {
                let seen = taking(conn);
                let is_young = now < showing.at + SUPERSEED_SPREAD_TIME;
                let moves = seen.taken > peer.taken || (seen.asks && is_young);
                peer.taken = seen.taken;
                if moves {
                    self.set_due(conn, now + SUPERSEED_ASK_TIME);
                } else {
                    self.lapse(now, conn);
                }
            }
        }
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

    fn piece_count(&self) -> u32 {
        u32::try_from(self.pieces.len()).unwrap_or(u32::MAX)
    }

    fn show(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) -> (ConnId, PieceIndex) {
        self.leave_state(conn);
        self.change(piece, |piece| piece.last_shown = now);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.shown.insert(piece);
        }
        let due = now + SUPERSEED_ASK_TIME;
        let showing = Showing { piece, at: now, since: now, owned: false, lapsed: false, due };
        self.enter(conn, State::Shown(showing));
        (conn, piece)
    }

    /// A piece that was shown to the peer has been seen at another. `out` peers are waited for with it.
    fn note_spread(&mut self, now: Instant, conn: ConnId, out: u32) {
        let Some(State::Shown(showing)) = self.peers.get(&conn).map(|peer| peer.state) else { return };
        // With others it may be their merit.
        if !showing.owned || out > u32::from(!showing.lapsed) {
            return;
        }
        let took = now.since(showing.since);
        self.spread_time = Some(self.spread_time.map_or(took, |before| (before * 7 + took) / 8));
        self.set_standing(conn, Standing::Proven);
    }

    /// The peer has the piece. Alone it is shown the next; otherwise the wait for another to have it begins.
    fn note_owned(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        let alone = self.company.iter().all(|&other| other == conn);
        let Some(State::Shown(showing)) = self.peers.get(&conn).map(|peer| peer.state) else { return };
        if showing.piece != piece {
            return;
        }
        if !showing.owned && showing.lapsed {
            // It had waited for a slot, not we for it.
            self.set_standing(conn, Standing::New);
        }
        if alone {
            return self.make_ready(now, conn);
        }
        let patience = self.spread_time.map_or(SUPERSEED_SPREAD_TIME, |time| {
            (time * SUPERSEED_SPREAD_TIMES).clamp(SUPERSEED_SPREAD_TIME_MIN, SUPERSEED_PATIENCE)
        });
        let lapsed = showing.owned && showing.lapsed;
        let due = if lapsed { now + SUPERSEED_PATIENCE } else { now + patience };
        self.leave_state(conn);
        self.enter(conn, State::Shown(Showing { since: now, owned: true, lapsed, due, ..showing }));
    }

    /// The piece that was shown to the peer is not kept for it any longer.
    fn lapse(&mut self, now: Instant, conn: ConnId) {
        let Some(State::Shown(showing)) = self.peers.get(&conn).map(|peer| peer.state) else { return };
        self.leave_state(conn);
        self.set_standing(conn, Standing::Suspect);
        let due = showing.since + SUPERSEED_PATIENCE;
        self.enter(conn, State::Shown(Showing { lapsed: true, due, ..showing }));
        self.look_for_the_lonely(now);
    }

    /// A peer need not wait for others when all others are under suspicion.
    fn look_for_the_lonely(&mut self, now: Instant) {
        let mut company = self.company.iter();
        if let (Some(&conn), None) = (company.next(), company.next())
            && let Some(State::Shown(showing)) = self.peers.get(&conn).map(|peer| peer.state)
            && showing.owned
        {
            self.make_ready(now, conn);
        }
    }

    fn make_ready(&mut self, since: Instant, conn: ConnId) {
        self.leave_state(conn);
        self.enter(conn, State::Ready(since));
    }

    fn park(&mut self, conn: ConnId) {
        if let Some(State::Ready(since)) = self.peers.get(&conn).map(|peer| peer.state) {
            self.leave_state(conn);
            self.enter(conn, State::Parked(since));
        }
    }

    /// Lets the first of a prefix's peers that wait for its share try again; false when there is none.
    fn unpark(&mut self, prefix: AddressPrefix) -> bool {
        let first = self.prefixes.get(&prefix).and_then(|prefix| prefix.parked.first().copied());
        if let Some((_, since, conn)) = first {
            self.make_ready(since, conn);
        }
        first.is_some()
    }

    fn set_due(&mut self, conn: ConnId, due: Instant) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if let State::Shown(showing) = &mut peer.state {
            self.due.remove(&(showing.due, conn));
            showing.due = due.min(showing.since + SUPERSEED_PATIENCE);
            self.due.insert((showing.due, conn));
        }
    }

    /// Takes a peer out of all tables that its state has it in.
    fn leave_state(&mut self, conn: ConnId) {
        let Some(peer) = self.peers.get(&conn) else { return };
        let (state, standing, prefix) = (peer.state, peer.standing, peer.prefix);
        match state {
            State::Ready(since) => {
                self.ready.remove(&(standing, since, conn));
            }
            State::Parked(since) => {
                if let Some(prefix) = self.prefixes.get_mut(&prefix) {
                    prefix.parked.remove(&(standing, since, conn));
                }
            }
            State::Sated(until) => {
                self.due.remove(&(until, conn));
            }
            State::Shown(showing) => {
                self.due.remove(&(showing.due, conn));
                self.waiting.remove(&(showing.piece, conn));
                // Not twice, when it leaves for good what it has left already.
                if let Some(peer) = self.peers.get_mut(&conn) {
                    peer.state = State::Shown(Showing { lapsed: true, ..showing });
                }
                if !showing.lapsed {
                    let proven = u32::from(standing == Standing::Proven);
                    self.change(showing.piece, |piece| {
                        piece.out -= 1;
                        piece.out_proven -= proven;
                    });
                    if let Some(prefix) = self.prefixes.get_mut(&prefix) {
                        prefix.out -= 1;
                    }
                    self.unpark(prefix);
                }
            }
        }
    }

    /// Enters a peer, which has left the state before, into all tables that the new one has it in.
    fn enter(&mut self, conn: ConnId, state: State) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        peer.state = state;
        let (standing, prefix) = (peer.standing, peer.prefix);
        match state {
            State::Ready(since) => {
                self.ready.insert((standing, since, conn));
            }
            State::Parked(since) => {
                let prefix = self.prefixes.entry(prefix).or_default();
                prefix.parked.insert((standing, since, conn));
            }
            State::Sated(until) => {
                self.due.insert((until, conn));
            }
            State::Shown(showing) => {
                self.due.insert((showing.due, conn));
                self.waiting.insert((showing.piece, conn));
                if !showing.lapsed {
                    let proven = u32::from(standing == Standing::Proven);
                    self.change(showing.piece, |piece| {
                        piece.out += 1;
                        piece.out_proven += proven;
                    });
                    self.prefixes.entry(prefix).or_default().out += 1;
                }
            }
        }
    }

    fn set_standing(&mut self, conn: ConnId, standing: Standing) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        let before = std::mem::replace(&mut peer.standing, standing);
        self.proven -= u32::from(before == Standing::Proven);
        self.proven += u32::from(standing == Standing::Proven);
        if standing == Standing::Suspect {
            self.company.remove(&conn);
        } else {
            self.company.insert(conn);
        }
        if let State::Shown(showing) = peer.state
            && !showing.lapsed
        {
            self.change(showing.piece, |piece| {
                piece.out_proven -= u32::from(before == Standing::Proven);
                piece.out_proven += u32::from(standing == Standing::Proven);
            });
        }
    }

    /// Whether another piece may be out at the peer's prefix. All of this machine is one there, and a network by itself
    /// has nobody to keep from anything.
    fn has_share(&self, conn: ConnId) -> bool {
        let Some(peer) = self.peers.get(&conn) else { return false };
        let share = (self.piece_count() / SUPERSEED_PREFIX_SHARE).max(SUPERSEED_PREFIX_PIECES_MIN);
        let local = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(AddressPrefix::of);
        self.prefixes.len() == 1
            || local.contains(&peer.prefix)
            || self.prefixes.get(&peer.prefix).is_none_or(|prefix| prefix.out < share)
    }

    /// Whom a patience has been waited by, and what to show it; the others whose patience ended in vain, as they were
    /// shown all there is, are patient anew.
    fn impatient(&mut self, now: Instant) -> Option<(ConnId, PieceIndex)> {
        for standing in STANDINGS {
            let late =
                (standing, Instant::ZERO, FIRST_CONN)..=(standing, now - SUPERSEED_PATIENCE, LAST_CONN);
            while let Some(&(_, _, conn)) = self.ready.range(late.clone()).next() {
                match self.least_shown(conn) {
                    _ if !self.has_share(conn) => self.park(conn),
                    Some(piece) => return Some((conn, piece)),
                    None => self.make_ready(now, conn),
                }
            }
        }
        None
    }

    /// Changes a piece's numbers and keeps true what is known of all pieces.
    fn change(&mut self, index: PieceIndex, change: impl FnOnce(&mut Piece)) {
        let Some(piece) = self.pieces.get_mut(index.0 as usize) else { return };
        let was = *piece;
        change(piece);
        let is = *piece;
        self.unseen = self.unseen - u32::from(was.holders == 0) + u32::from(is.holders == 0);
        for (piece, is_now) in [(was, false), (is, true)] {
            let key = (piece.last_shown, index);
            let table = match piece {
                Piece { holders: 1.., .. } | Piece { out_proven: 1.., .. } => continue,
                Piece { out: 1.., .. } => &mut self.doubtful,
                // The cursor has yet to come to it.
                Piece { last_shown: Instant::ZERO, .. } if index.0 >= self.cursor => continue,
                _ => &mut self.again,
            };
            if is_now {
                table.insert(key);
            } else {
                table.remove(&key);
            }
        }
    }

    /// Whether there is a piece that nobody has and that is out at nobody.
    fn has_fresh(&mut self) -> bool {
        // Cheap on the whole, for what is passed over stays passed.
        while let Some(piece) = self.pieces.get(self.cursor as usize)
            && (piece.holders > 0 || piece.last_shown > Instant::ZERO)
        {
            self.cursor += 1;
        }
        (self.cursor as usize) < self.pieces.len() || !self.again.is_empty()
    }

    /// Such a piece that was not shown to the peer yet.
    fn fresh_for(&self, conn: ConnId) -> Option<PieceIndex> {
        let peer = self.peers.get(&conn)?;
        let never_shown = self.pieces.get(self.cursor as usize).map(|_| PieceIndex(self.cursor));
        never_shown.or_else(|| first_not_in(&peer.shown, self.again.iter()))
    }

    /// A piece that has been out at doubtful peers alone for a while, if this one has passed on what it got.
    fn doubtful_for(&self, now: Instant, conn: ConnId) -> Option<PieceIndex> {
        let peer = self.peers.get(&conn).filter(|peer| peer.standing == Standing::Proven)?;
        let old = ..=(now - SUPERSEED_DOUBT_TIME, PieceIndex(u32::MAX));
        first_not_in(&peer.shown, self.doubtful.range(old))
    }

    /// Of the pieces that nobody has and that were not shown to this peer the one that is out at fewest, the oldest
    /// showing first. Walks all pieces; happens once in a patience and peer at most.
    fn least_shown(&self, conn: ConnId) -> Option<PieceIndex> {
        let peer = self.peers.get(&conn)?;
        let unseen = self.pieces.iter().enumerate().filter(|(_, piece)| piece.holders == 0);
        unseen
            .filter_map(|(index, piece)| {
                Some((piece.out, piece.last_shown, PieceIndex(u32::try_from(index).ok()?)))
            })
            .filter(|(_, _, piece)| !peer.shown.contains(piece))
            .min()
            .map(|(_, _, piece)| piece)
    }
}

fn first_not_in<'a>(
    shown: &BTreeSet<PieceIndex>,
    pieces: impl Iterator<Item = &'a (Instant, PieceIndex)>,
) -> Option<PieceIndex> {
    pieces.map(|&(_, piece)| piece).find(|piece| !shown.contains(piece))
}

const STANDINGS: [Standing; 3] = [Standing::Proven, Standing::New, Standing::Suspect];
const FIRST_CONN: ConnId = ConnId { worker: 0, slot: 0, generation: 0 };
const LAST_CONN: ConnId = ConnId { worker: u16::MAX, slot: u32::MAX, generation: u32::MAX };
