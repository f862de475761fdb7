//! What the picker knows of each peer: its pieces, how many of them are useful, and how fast it gives.
//!
//! Peers have numbers that blocks in flight remember them by; a number is used again once its peer is gone and owes
//! nothing any more. Interest is a counter, never a scan; changes of interest wait in a queue of at most one entry
//! for each peer, so that a flip back before the queue is drained is no news.

use crate::bitfield::Bitfield;
use crate::id::ConnId;
use crate::limits::{BLOCK_SILENCE_MAX, SPEED_CLASS_FACTOR};
use crate::prefetch::{Distance, prefetch};
use crate::units::{BLOCK_LEN, PieceIndex};
use std::collections::VecDeque;

/// A peer's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PeerNumber(pub(super) u32);

/// The pieces of a peer.
#[derive(Debug, Default)]
pub(super) enum Stock {
    /// None yet.
    #[default]
    Nothing,
    /// These.
    Some(Bitfield),
    /// All of them.
    All,
}

impl Stock {
    /// Whether the piece is among them.
    pub(super) fn contains(&self, piece: u32) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(pieces) => pieces.contains(PieceIndex(piece)),
            Self::All => true,
        }
    }

    /// Whether these are all pieces.
    pub(super) fn is_full(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Some(pieces) => pieces.is_full(),
            Self::All => true,
        }
    }

    /// The pieces that are counted one by one.
    pub(super) fn counted(&self) -> &[u8] {
        match self {
            Self::Some(pieces) => pieces.as_bytes(),
            Self::Nothing | Self::All => &[],
        }
    }
}

/// A peer.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) conn: ConnId,
    pub(super) stock: Stock,
    /// Its pieces that we want and lack.
    pub(super) wanted: u32,
    /// Those of them that nobody was asked for yet.
    pub(super) startable: u32,
    /// Blocks it owes us.
    pub(super) owed: u32,
    /// Bytes a second that it gives lately.
    pub(super) rate: u64,
    pub(super) snubbed: bool,
    /// Whether it has given a block.
    pub(super) gave: bool,
    /// When it gave the last one, in tenths of a second.
    gave_at: u32,
    /// The piece in flight that it worked on last.
    pub(super) current: u32,
    told: bool,
    queued: bool,
}

/// The numbers of connections, in a table with open addressing: asked for with every have and block, and mostly found
/// at the first look. Nobody goes through it.
#[derive(Debug, Default)]
struct Numbers {
    /// None, or two to some power, of which half at most are taken.
    places: Vec<Option<(ConnId, u32)>>,
    len: usize,
}

impl Numbers {
    /// Where the search for a connection begins. Slots of one worker are small numbers, mostly side by side, so each
    /// has a place of its own; workers begin far from each other.
    fn first(&self, conn: ConnId) -> usize {
        (conn.slot as usize).wrapping_add((conn.worker as usize).wrapping_mul(0x9e37_79b1)) & self.mask()
    }

    fn mask(&self) -> usize {
        self.places.len().wrapping_sub(1)
    }

    /// The place that holds the connection, or the free one where it belongs; `None` without any places.
    fn place(&self, conn: ConnId) -> Option<usize> {
        let mut at = self.first(conn);
        while let Some((other, _)) = self.places.get(at)? {
            if *other == conn {
                break;
            }
            at = (at + 1) & self.mask();
        }
        Some(at)
    }

    fn number_of(&self, conn: ConnId) -> Option<u32> {
        self.places[self.place(conn)?].map(|(_, number)| number)
    }

    /// Takes in a connection that is not here.
    fn insert(&mut self, conn: ConnId, number: u32) {
        if 2 * (self.len + 1) > self.places.len() {
            let more = (2 * self.places.len()).max(8);
            let before = std::mem::replace(&mut self.places, vec![None; more]);
            self.len = 0;
            before.into_iter().flatten().for_each(|(conn, number)| self.insert(conn, number));
        }
        if let Some(at) = self.place(conn) {
            self.places[at] = Some((conn, number));
            self.len += 1;
        }
    }

    fn remove(&mut self, conn: ConnId) {
        let Some(mut hole) = self.place(conn).filter(|&at| self.places[at].is_some()) else { return };
        self.places[hole] = None;
        self.len -= 1;
        // What was put further on because the place was taken moves back.
        let mut at = (hole + 1) & self.mask();
        while let Some((other, _)) = self.places[at] {
            let from_first = |place: usize| place.wrapping_sub(self.first(other)) & self.mask();
            if from_first(hole) < from_first(at) {
                self.places[hole] = self.places[at].take();
                hole = at;
            }
            at = (at + 1) & self.mask();
        }
        if self.len == 0 {
            self.places = Vec::new();
        }
    }
}

/// All peers of the torrent.
#[derive(Debug, Default)]
pub(super) struct Peers {
    numbers: Numbers,
    peers: Vec<Option<Peer>>,
    spare: Vec<u32>,
    news: VecDeque<u32>,
    /// The latest time that anybody told, in tenths of a second.
    clock: u32,
}

impl Peers {
    /// Adds a peer without pieces, unless it is here already.
    pub(super) fn join(&mut self, conn: ConnId) {
        if self.numbers.number_of(conn).is_some() {
            return;
        }
        let peer = Peer {
            conn,
            stock: Stock::Nothing,
            wanted: 0,
            startable: 0,
            owed: 0,
            rate: 0,
            snubbed: false,
            gave: false,
            gave_at: 0,
            current: u32::MAX,
            told: false,
            queued: false,
        };
        let number = match self.spare.pop() {
            Some(number) => {
                self.peers[number as usize] = Some(peer);
                number
            }
            None => {
                self.peers.push(Some(peer));
                self.peers.len() as u32 - 1
            }
        };
        self.numbers.insert(conn, number);
    }

    /// Removes a peer that owes nothing.
    pub(super) fn leave(&mut self, number: PeerNumber) {
        if let Some(peer) = self.peers[number.0 as usize].take() {
            self.numbers.remove(peer.conn);
            if peer.queued {
                self.news.retain(|&queued| queued != number.0);
            }
            self.spare.push(number.0);
        }
    }

    /// Counts a piece among, or no more among, those that we want and lack, for each peer that has it.
    pub(super) fn change_wanted(&mut self, piece: u32, wanted: bool) {
        for number in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[number] else { continue };
            if peer.stock.contains(piece) {
                peer.wanted = if wanted { peer.wanted + 1 } else { peer.wanted - 1 };
                self.note_interest(PeerNumber(number as u32));
            }
        }
    }

    /// Counts a piece among, or no more among, those that may be begun, for each peer that has it.
    pub(super) fn change_startable(&mut self, piece: u32, startable: bool) {
        for peer in self.peers.iter_mut().flatten() {
            if peer.stock.contains(piece) {
                peer.startable = if startable { peer.startable + 1 } else { peer.startable - 1 };
            }
        }
    }

    /// Queues the peer when our interest in it is not what was told last.
    pub(super) fn note_interest(&mut self, number: PeerNumber) {
        let peer = self.peer_mut(number);
        if !peer.queued && (peer.wanted > 0) != peer.told {
            peer.queued = true;
            self.news.push_back(number.0);
        }
    }

    /// The next change of interest.
    pub(super) fn poll_interest(&mut self) -> Option<(ConnId, bool)> {
        while let Some(number) = self.news.pop_front() {
            let peer = self.peer_mut(PeerNumber(number));
            peer.queued = false;
            let interesting = peer.wanted > 0;
            if interesting != peer.told {
                peer.told = interesting;
                return Some((peer.conn, interesting));
            }
        }
        None
    }

    /// The peer of that number.
    pub(super) fn peer_mut(&mut self, number: PeerNumber) -> &mut Peer {
        self.peers[number.0 as usize].as_mut().expect("a number in use belongs to a peer until it left")
    }

    /// The peer of that number.
    pub(super) fn peer(&self, number: PeerNumber) -> &Peer {
        self.peers[number.0 as usize].as_ref().expect("a number in use belongs to a peer until it left")
    }

    /// All peers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.peers.iter().flatten()
    }

    /// The number of the connection's peer.
    pub(super) fn number(&self, conn: ConnId) -> Option<PeerNumber> {
        self.numbers.number_of(conn).map(PeerNumber)
    }

    /// Asks for the memory that news from a peer will need.
    pub(super) fn prefetch(&self, conn: ConnId, distance: Distance) {
        if distance == Distance::Far {
            prefetch(self.numbers.places.get(self.numbers.first(conn)));
        } else if let Some(number) = self.numbers.number_of(conn) {
            prefetch(self.peers.get(number as usize));
        }
    }

    /// It is so late, in tenths of a second.
    pub(super) fn note_time(&mut self, now: u32) {
        self.clock = self.clock.max(now);
    }

    /// The peer has given a block.
    pub(super) fn note_gave(&mut self, number: PeerNumber) {
        let clock = self.clock;
        let peer = self.peer_mut(number);
        (peer.gave, peer.gave_at) = (true, clock);
    }

    /// Whether `peer`, which gives, need not wait for what `owner` was asked for at `asked_at`: the owner is snubbed, has never
    /// given anything, or has had its time (`BLOCK_SILENCE_MAX`) and has given nothing since, or gives much more slowly than
    /// `peer`. A block now and then would otherwise hold all that was asked with it.
    pub(super) fn is_dormant(&self, owner: PeerNumber, asked_at: u32, peer: PeerNumber) -> bool {
        let tenths = (BLOCK_SILENCE_MAX.as_millis() / 100) as u32;
        let had_its_time = self.clock >= asked_at.saturating_add(tenths);
        let is_slow = || self.is_much_faster(peer, owner);
        let owner = self.peer(owner);
        owner.snubbed || !owner.gave || had_its_time && (owner.gave_at < asked_at || is_slow())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len
    }

    /// Whether two peers are about as fast. Below a block a second there is no difference.
    pub(super) fn are_alike(&self, one: PeerNumber, other: PeerNumber) -> bool {
        !self.is_much_faster(one, other) && !self.is_much_faster(other, one)
    }

    /// Whether the first gives much faster than the other.
    pub(super) fn is_much_faster(&self, one: PeerNumber, other: PeerNumber) -> bool {
        let (one, other) = (self.peer(one).rate, self.peer(other).rate);
        one > other.saturating_mul(SPEED_CLASS_FACTOR).saturating_add(u64::from(BLOCK_LEN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn numbers_are_kept_as_by_an_ordered_map(
            steps in prop::collection::vec((any::<bool>(), 0_u16..3, 0_u32..20, 0_u32..2), 0..300),
        ) {
            let (mut numbers, mut oracle) = (Numbers::default(), BTreeMap::new());
            for (number, (puts, worker, slot, generation)) in (0_u32..).zip(steps) {
                let conn = ConnId { worker, slot: slot * 7, generation };
                if !puts {
                    numbers.remove(conn);
                    oracle.remove(&conn);
                } else if let std::collections::btree_map::Entry::Vacant(place) = oracle.entry(conn) {
                    place.insert(number);
                    numbers.insert(conn, number);
                }
                prop_assert_eq!(numbers.len, oracle.len());
                prop_assert_eq!(numbers.number_of(conn), oracle.get(&conn).copied());
            }
            prop_assert!(oracle.iter().all(|(&conn, &number)| numbers.number_of(conn) == Some(number)));
        }
    }
}
