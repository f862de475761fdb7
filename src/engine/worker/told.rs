//! What a connection tells its torrent's home of its peer, and how often.
//!
//! Only changes cross to another core. What a peer can change back and forth crosses at a bounded rate, and the last state
//! counts: interest, the peer's address and the whole of what it has once a second, a wish that replaces another five times a
//! second. A lost piece is one step and no recount. Recounts have a budget of their own, of which each address prefix has a
//! share. Everything else comes no faster than the home answers, or than the peer finishes pieces.

use super::super::message::{Fact, OwnedStock};
use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::{TimerOwner, ToWorker, Worker};
use crate::limits::{FILL_INTERVAL, NEWS_INTERVAL, WISH_CHANGE_INTERVAL};
use crate::peer::{Stock, Wish};
use crate::time::Instant;
use crate::units::PieceIndex;
use std::net::IpAddr;

/// What a connection's home has heard last.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// What its peer wants, and whether that was told within the last second.
    interest: bool,
    interest_held: bool,
    addresses: Option<Addresses>,
    addresses_held: bool,
    stock: Known,
    /// All that the peer has is to be told anew.
    stock_waits: bool,
    stock_held: bool,
    /// Not before this.
    stock_at: Instant,
    /// A lost piece is told as such not before this.
    lost_at: Instant,
    /// A wish was told that the home has not answered.
    wish: bool,
    /// The home has answered the one before: nothing but its own answers can make more of them.
    wish_is_free: bool,
    /// Another one not before this, unless it is free.
    wish_at: Instant,
    /// That the peer has become complete.
    pub complete: bool,
}

/// How the home counts what a peer has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Known {
    /// Not at all: it has nothing.
    #[default]
    Nothing,
    /// Piece by piece.
    Some,
    /// As one.
    All,
}

/// What a peer says of itself on extensions, as far as its home has to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    port: Option<u16>,
    ours: Option<IpAddr>,
    exchanges: bool,
}

impl Told {
    /// The home has answered a wish, or has voided it by its own decision.
    pub fn handle_answer(&mut self) {
        self.wish = false;
        self.wish_is_free = true;
    }

    /// The peer does not give what it was asked for.
    pub fn handle_returned(&mut self) {
        self.wish_is_free = false;
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn tell_home(&mut self, key: Key, fact: Fact) {
        let Some(torrent) = self.connections.get(key).and_then(|connection| connection.torrent) else {
            return;
        };
        let Some(home) = self.torrents.get(&torrent).map(|shared| shared.home) else { return };
        let conn = self.conn_id(key);
        self.post(home, ToWorker::Fact { torrent, conn, fact });
    }

    /// Whether the home of this connection's torrent has to hear who has what.
    pub(super) fn is_followed(&self, key: Key) -> bool {
        let torrent = self.connections.get(key).and_then(|connection| connection.torrent);
        let shared = torrent.and_then(|torrent| self.torrents.get(&torrent));
        shared.is_some_and(|shared| shared.facts.follows_stocks())
    }

    /// Tells what the peer wants, at most once a second: whoever flips its interest faster costs another core no more
    /// than that, and its mailbox no room.
    pub(super) fn tell_interest(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let interested = connection.machine.interested();
        let told = &mut connection.told;
        if told.interest_held || told.interest == interested || connection.closing.is_some() {
            return;
        }
        told.interest = interested;
        told.interest_held = true;
        if let Some(counters) = &connection.counters {
            counters.set_interested(interested);
        }
        self.timers.set(self.now + FILL_INTERVAL, TimerOwner::Interest(key));
        self.tell_home(key, Fact::Interest(interested));
    }

    pub(super) fn handle_interest_timeout(&mut self, key: Key) {
        if self.home_behind(key, None).is_some() {
            return self.timers.set(self.now + FILL_INTERVAL, TimerOwner::Interest(key));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.told.interest_held = false;
            self.tell_interest(key);
        }
    }

    /// Tells where the peer listens and where it sees us, when that has changed, at most once a second.
    pub(super) fn tell_addresses(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(theirs) = connection.machine.theirs() else { return };
        let (port, ours, exchanges) = (theirs.port, theirs.your_address, theirs.ids.pex.is_some());
        let addresses = Some(Addresses { port, ours, exchanges });
        let told = &mut connection.told;
        if told.addresses_held || told.addresses == addresses || connection.closing.is_some() {
            return;
        }
        told.addresses = addresses;
        told.addresses_held = true;
        let remote = connection.ends.remote.ip().to_canonical();
        self.timers.set(self.now + NEWS_INTERVAL, TimerOwner::Addresses(key));
        self.tell_home(key, Fact::Addresses { remote, port, ours, exchanges });
    }

    pub(super) fn handle_addresses_timeout(&mut self, key: Key) {
        if self.home_behind(key, None).is_some() {
            return self.timers.set(self.now + NEWS_INTERVAL, TimerOwner::Addresses(key));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.told.addresses_held = false;
            self.tell_addresses(key);
        }
    }

    /// Tells all that the peer has, at once or as soon as a recount may be asked for.
    pub(super) fn tell_stock(&mut self, key: Key) {
        // What was found before is part of it.
        self.found.clear();
        if self.is_followed(key)
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.told.stock_waits = true;
            self.tell_waiting_stock(key);
        }
    }

    fn tell_waiting_stock(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (machine, told) = (&connection.machine, &mut connection.told);
        if !told.stock_waits || told.stock_held || connection.closing.is_some() {
            return;
        }
        let (now_known, pieces) = match machine.stock() {
            Stock::None => (Known::Nothing, 0),
            Stock::Some(stock) => (Known::Some, stock.len()),
            Stock::All => (Known::All, machine.piece_count()),
        };
        let is_recount = now_known == Known::Some || told.stock == Known::Some;
        let cost = if is_recount { u64::from(pieces) } else { 0 };
        if self.now < told.stock_at || !self.recounts.take(connection.ends.remote.ip(), cost) {
            told.stock_held = true;
            let at = told.stock_at.max(self.now + NEWS_INTERVAL / 4);
            return self.timers.set(at, TimerOwner::Stock(key));
        }
        (told.stock, told.stock_waits, told.stock_at) = (now_known, false, self.now + NEWS_INTERVAL);
        let stock = OwnedStock::from(machine.stock());
        self.tell_home(key, Fact::Stock(stock));
    }

    pub(super) fn handle_stock_timeout(&mut self, key: Key) {
        if self.home_behind(key, None).is_some() {
            return self.timers.set(self.now + NEWS_INTERVAL, TimerOwner::Stock(key));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.told.stock_held = false;
            self.tell_waiting_stock(key);
        }
    }

    /// Tells what the peer was found to have in addition.
    pub(super) fn tell_haves(&mut self, key: Key) {
        if self.found.is_empty() {
            return;
        }
        let found = std::mem::take(&mut self.found);
        if self.is_followed(key)
            && let Some(connection) = self.connections.get_mut(key)
            && !connection.told.stock_waits
        {
            connection.told.stock = Known::Some;
            self.tell_home(key, Fact::Have(found));
        }
    }

    /// Tells that the peer has lost a piece. Several within a second, or one of somebody whom the home has counted among those
    /// that have everything, are told as what it has all in all.
    pub(super) fn tell_lost(&mut self, key: Key, piece: PieceIndex) {
        self.tell_haves(key);
        let Some(told) = self.connections.get_mut(key).map(|connection| &mut connection.told) else { return };
        if told.stock_waits {
            // It is without the piece already.
            return;
        }
        if told.stock == Known::All || self.now < told.lost_at {
            return self.tell_stock(key);
        }
        told.lost_at = self.now + NEWS_INTERVAL;
        if self.is_followed(key) {
            self.tell_home(key, Fact::Lost(piece));
        }
    }

    pub(super) fn tell_exchange(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            let payload = connection.machine.take_extended();
            self.tell_home(key, Fact::Exchange(payload));
        }
    }

    /// The peer chokes us, or no longer does: what was wished for before is void.
    pub(super) fn handle_choked(&mut self, key: Key, choked: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.held_wish = None;
        connection.told.wish_is_free = false;
        let wished = choked && std::mem::take(&mut connection.told.wish);
        if wished {
            self.tell_home(key, Fact::Wish(None));
        }
        if choked {
            self.give_back_prepaid(key);
            // What it owes comes back sooner than it would have been late.
            self.set_download_timer(key);
        }
    }

    /// Tells how many blocks there is room for, at once or when it may.
    pub(super) fn tell_wish(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let wish = connection.machine.poll_wish().or_else(|| connection.held_wish.take());
        let Some(wish) = wish else { return };
        let told = &connection.told;
        if !told.wish_is_free && self.now < told.wish_at {
            let at = told.wish_at;
            return self.hold_wish(key, wish, at);
        }
        let Some(wish) = self.afford(key, wish) else { return };
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !std::mem::take(&mut connection.told.wish_is_free) {
            connection.told.wish_at = self.now + WISH_CHANGE_INTERVAL;
        }
        connection.told.wish = true;
        self.tell_home(key, Fact::Wish(Some(wish)));
    }

    pub(super) fn hold_wish(&mut self, key: Key, wish: Wish, until: Instant) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.held_wish = Some(wish);
        if connection.download_timer.is_none_or(|timer| until < timer) {
            connection.download_timer = Some(until);
            self.timers.set(until, TimerOwner::Download(key));
        }
    }
}
