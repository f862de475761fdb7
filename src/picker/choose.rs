//! Which piece next for a peer: one of those in flight, or one to begin.
//!
//! Among the pieces in flight, the one that the peer leads comes first, then those that nobody works on or a peer of
//! like speed does; only then is one begun, and other peers' pieces are joined last, so that a slow peer's blocks do
//! not keep a fast peer's piece from its hash. Within a rank: higher priority, then nearest to its end. A seed's line
//! is for what nobody else can give: while there are pieces that only seeds have, a seed's connection begins those
//! rather than finish what other peers can finish, too.
//!
//! A piece to begin is found by walking the shelves from the rarest run on, each run from a random place, until the
//! peer has the piece. The walk is bounded. Behind the bound the peer has few of the rare pieces, and its own pieces
//! are gone through instead, 64 at a time from a random place; of more than a sample of them the best of the sample
//! is taken, which is rare, if not the rarest.

use super::peers::{Peer, PeerNumber};
use super::rarity::ShelfIndex;
use super::words::{self, ones};
use super::{Allowed, Order, Picker, Priority};
use crate::limits::{BLOCK_OWED_MAX, ENDGAME_SAMPLE_MAX, PICK_SAMPLE_MAX, PICK_WALK_MAX};
use crate::rng::Rng;
use crate::units::PieceIndex;
use std::cmp::Reverse;

/// A block that a peer could be asked for although another owes it. The smallest is the most worth it: of the
/// slowest peer, then asked longest ago, then any.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rescue {
    rate: u64,
    asked_at: u32,
    chance: u64,
    /// The piece's number among those in flight.
    pub(super) number: u32,
    /// The block.
    pub(super) block: u32,
}

/// How well a piece in flight fits a peer; the smallest fits best.
type Fit = (Rank, Reverse<Priority>, u32, u32, u64);

/// Whose a piece in flight is, as a peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Its own.
    Own,
    /// Nobody's, or that of a peer of like speed.
    Shared,
    /// A faster or slower peer's.
    Foreign,
}

impl Picker {
    /// The piece in flight that suits the peer best, and whose it is.
    pub(super) fn choose_partial(&self, peer: PeerNumber, allowed: Allowed<'_>) -> Option<(u32, Rank)> {
        let current = self.peers.peer(peer).current;
        if self.fit(current, peer, allowed).is_some_and(|fit| fit.0 == Rank::Own) {
            return Some((current, Rank::Own));
        }
        self.in_flight
            .open()
            .iter()
            .filter_map(|&number| Some((self.fit(number, peer, allowed)?, number)))
            .min()
            .map(|(fit, number)| (number, fit.0))
    }

    /// A piece that may be begun and that the peer has, by the order of the settings.
    pub(super) fn choose_new(&self, peer: PeerNumber, allowed: Allowed<'_>, rng: &mut Rng) -> Option<u32> {
        if self.peers.peer(peer).startable == 0 || self.is_full() {
            return None;
        }
        match allowed {
            Allowed::Fast(pieces) => return self.best_of(peer, pieces),
            Allowed::Suggested(pieces) => {
                if let Some(piece) = self.best_of(peer, pieces) {
                    return Some(piece);
                }
            }
            Allowed::Unchoked => {}
        }
        match self.settings.order {
            Order::Sequential => self.lowest(peer),
            Order::RarestFirst if self.verified >= self.settings.random_first => self.rarest_of(peer, rng),
            Order::RarestFirst | Order::Random => self.any_of(peer, rng),
        }
    }

    /// Whether every wanted block that any peer has is in flight.
    pub(super) fn is_endgame(&self) -> bool {
        let shelved = self.rarity.shelves().any(|shelf| match self.seeds {
            0 => shelf.pieces().len() > shelf.run(0).len(),
            _ => !shelf.pieces().is_empty(),
        });
        !shelved
            && self.in_flight.open().iter().filter_map(|&number| self.in_flight.partial(number)).all(
                |partial| {
                    partial.free == 0
                        || (partial.exclusive && !partial.is_orphan())
                        || self.availability(PieceIndex(partial.piece)) == 0
                },
            )
    }

    /// The blocks that are most worth asking of the peer, too, although others owe each; at most `count`. For a peer that gives,
    /// owners that are dormant do not count. Outside of the endgame no other owner may be left. In the endgame one may, and where
    /// there are two, one that gives much more slowly than the peer is replaced.
    pub(super) fn choose_rescues(&mut self, peer: PeerNumber, count: usize, in_endgame: bool, rng: &mut Rng) {
        const { assert!(BLOCK_OWED_MAX == 2, "one owner leaves room for one more") };
        self.rescues.clear();
        let Peer { stock, gave, .. } = self.peers.peer(peer);
        for (number, partial) in self.in_flight.round_from(rng.index(self.in_flight.numbers())) {
            if partial.is_whole() || !stock.contains(partial.piece) {
                continue;
            }
            for (at, block) in partial.blocks.iter().enumerate() {
                let Some((owner, asked_at)) = block.asked().next() else { continue };
                let is_awake = |&(other, asked_at): &(PeerNumber, u32)| {
                    !gave || !self.peers.is_dormant(other, asked_at, peer)
                };
                let awake = block.asked().filter(is_awake).count();
                let is_shared = in_endgame && !partial.exclusive;
                // A slow owner is replaced at once: slow peers share each other's blocks, and two of them would fill a block's places.
                let is_slow = |other| self.peers.is_much_faster(peer, other);
                let are_too_many =
                    awake > usize::from(is_shared) && !(is_shared && block.owners().any(is_slow));
                if are_too_many || block.owners().any(|other| other == peer) {
                    continue;
                }
                let rate = self.peers.peer(owner).rate;
                let chance = rng.next_u64();
                self.rescues.push(Rescue { rate, asked_at, chance, number, block: at as u32 });
            }
            if self.rescues.len() >= ENDGAME_SAMPLE_MAX {
                break;
            }
        }
        if self.rescues.len() > count {
            self.rescues.select_nth_unstable(count);
            self.rescues.truncate(count);
        }
        self.rescues.sort_unstable();
    }

    fn fit(&self, number: u32, peer: PeerNumber, allowed: Allowed<'_>) -> Option<Fit> {
        let partial = self.in_flight.partial(number)?;
        let is_allowed = match allowed {
            Allowed::Fast(pieces) => pieces.contains(&PieceIndex(partial.piece)),
            Allowed::Unchoked | Allowed::Suggested(_) => true,
        };
        let has = is_allowed
            && partial.has_work_for(peer, &self.peers)
            && self.peers.peer(peer).stock.contains(partial.piece);
        if !has {
            return None;
        }
        let in_sequence = self.settings.order == Order::Sequential;
        let rank = match partial.lead() {
            Some(lead) if lead == peer => Rank::Own,
            Some(lead) if !in_sequence && !partial.is_orphan() && !self.peers.are_alike(lead, peer) => {
                Rank::Foreign
            }
            _ if self.is_for_others(peer, partial.piece) => Rank::Foreign,
            _ => Rank::Shared,
        };
        let missing = partial.blocks.len() as u32 - partial.received;
        let index = if in_sequence { partial.piece } else { 0 };
        Some((rank, Reverse(self.priority(partial.piece)), index, missing, partial.begun))
    }

    /// Whether the peer has everything and should rather give what nobody else can, while others can give this piece.
    fn is_for_others(&self, peer: PeerNumber, piece: u32) -> bool {
        let is_seed_with_a_choice = self.settings.order == Order::RarestFirst
            && self.verified >= self.settings.random_first
            && matches!(self.peers.peer(peer).stock, super::peers::Stock::All)
            && self.rarity.count(piece) > 0;
        let Some(own) = super::shelf(self.priority(piece)).filter(|_| is_seed_with_a_choice) else {
            return false;
        };
        // What would be begun in its place: of no lower priority, and a piece that only seeds have.
        let shelves = self.rarity.shelves().count();
        let mut worthy = self.rarity.shelves().take(shelves - own.0);
        worthy.find(|shelf| !shelf.pieces().is_empty()).is_some_and(|shelf| !shelf.run(0).is_empty())
    }

    /// The best of a few pieces that may be begun.
    fn best_of(&self, peer: PeerNumber, pieces: &[PieceIndex]) -> Option<u32> {
        let stock = &self.peers.peer(peer).stock;
        pieces
            .iter()
            .filter(|&&piece| self.startable.contains(piece) && stock.contains(piece.0))
            .min_by_key(|piece| {
                let order = match self.settings.order {
                    Order::Sequential => piece.0,
                    Order::RarestFirst => self.rarity.count(piece.0),
                    Order::Random => 0,
                };
                (Reverse(self.priority(piece.0)), order)
            })
            .map(|piece| piece.0)
    }

    fn rarest_of(&self, peer: PeerNumber, rng: &mut Rng) -> Option<u32> {
        let peer_stock = &self.peers.peer(peer).stock;
        // What such a peer has was counted at least once.
        let least = usize::from(!peer_stock.counted().is_empty());
        let mut steps = PICK_WALK_MAX;
        for shelf in self.rarity.shelves() {
            for count in least..shelf.runs() {
                let run = shelf.run(count);
                let (before, from) = run.split_at(rng.index(run.len()));
                for &piece in from.iter().chain(before) {
                    if peer_stock.contains(piece) {
                        return Some(piece);
                    }
                    steps -= 1;
                    if steps == 0 {
                        return self.sample(peer, rng, |piece| self.rarity.count(piece));
                    }
                }
            }
        }
        None
    }

    fn any_of(&self, peer: PeerNumber, rng: &mut Rng) -> Option<u32> {
        let peer_stock = &self.peers.peer(peer).stock;
        let mut steps = PICK_WALK_MAX;
        for shelf in self.rarity.shelves() {
            let (before, from) = shelf.pieces().split_at(rng.index(shelf.pieces().len()));
            for &piece in from.iter().chain(before) {
                if peer_stock.contains(piece) {
                    return Some(piece);
                }
                steps -= 1;
                if steps == 0 {
                    return self.sample(peer, rng, |_| 0);
                }
            }
        }
        None
    }

    fn lowest(&self, peer: PeerNumber) -> Option<u32> {
        let peer_stock = &self.peers.peer(peer).stock;
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let Some(ShelfIndex(shelf)) = super::shelf(priority) else { continue };
            let pieces = self.rarity.shelf(ShelfIndex(shelf)).pieces();
            let lowest = if pieces.len() <= PICK_WALK_MAX {
                pieces.iter().copied().filter(|&piece| peer_stock.contains(piece)).min()
            } else {
                // Pieces of one priority mostly lie together, so few of another stand before the first of them.
                self.own(peer, 0).find(|&piece| self.priority(piece) == priority)
            };
            if lowest.is_some() {
                return lowest;
            }
        }
        None
    }

    /// The best by priority and `order` of the peer's pieces that may be begun, or of a random stretch of them.
    fn sample(&self, peer: PeerNumber, rng: &mut Rng, order: impl Fn(u32) -> u32) -> Option<u32> {
        let words = self.startable.as_bytes().len().div_ceil(8);
        let mut best = None;
        let mut equals = 0;
        for piece in self.own(peer, rng.index(words)).take(PICK_SAMPLE_MAX) {
            let key = (Reverse(self.priority(piece)), order(piece));
            match best {
                Some((least, _)) if least < key => continue,
                Some((least, _)) if least == key => equals += 1,
                _ => equals = 1,
            }
            if rng.below(equals) == 0 {
                best = Some((key, piece));
            }
        }
        best.map(|(_, piece)| piece)
    }

    /// The peer's pieces that may be begun, ascending from the word `first` on and round.
    fn own(&self, peer: PeerNumber, first: usize) -> impl Iterator<Item = u32> + '_ {
        let startable = self.startable.as_bytes();
        let count = startable.len().div_ceil(8);
        let peer = self.peers.peer(peer);
        let counted = peer.stock.counted();
        let all = matches!(peer.stock, super::peers::Stock::All);
        (0..count).flat_map(move |step| {
            let at = (first + step) % count;
            let own = if all { u64::MAX } else { words::word(counted, at) };
            ones(words::word(startable, at) & own, at)
        })
    }
}
