//! Putting together an info dictionary that only its hash is known of (BEP 9), from peers of which any may lie.
//!
//! Peers tell how long the dictionary is, and a lie about that would mix what does not belong together: so there is one
//! [`Heap`] of pieces for each length told, and a peer gives to its own only. The heaps share one bound of memory,
//! those that are soonest done or refuted first: a heap that nobody feeds, or that has been wrong before, or that is
//! long, waits for the others, and one that gains hardly anything gives way to who waits. Nothing is ever allocated for a length told, only for bytes that came.
//!
//! A whole heap is hashed. When the hash is wrong, all of it is thrown away, and from then on the heap is fed by one
//! peer at a time: the next wrong hash has exactly one culprit, who is convicted and not asked again. So an honest
//! peer that stays is heard in the end, and never are wrong bytes returned. At most one request is under way to each
//! peer; one without an answer for ten seconds is asked elsewhere too.
//!
//! Sans-IO. Connections are named by the shell, which tells their coming, their going and what they say.

use crate::id::{ConnId, InfoHash};
use crate::limits::{
    METADATA_HELD_LEN_MAX, METADATA_LEN_MAX, METADATA_PEERS_MAX, METADATA_REJECT_PATIENCE_MAX,
    METADATA_REJECT_PATIENCE_MIN, METADATA_REQUEST_TIMEOUT, METADATA_SIZES_MAX, METADATA_TURN,
};
use crate::time::Instant;
use crate::wire::{METADATA_PIECE_LEN, metadata_piece_count};
use std::collections::BTreeMap;

/// Requests in a row without a piece after which others are preferred.
const MISSES_MAX: u32 = 3;

/// What a piece has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is kept.
    Kept,
    /// It was not asked for, is here already or has the wrong length: thrown away.
    Useless,
    /// The info dictionary: its hash is right.
    Complete(Box<[u8]>),
    /// With it the dictionary was whole, and its hash wrong. All of it is thrown away.
    Wrong {
        /// The one peer that gave every piece: it lies, and is not asked again.
        convicted: Option<ConnId>,
        /// Otherwise those that gave pieces, one of which at least lies.
        suspects: Vec<ConnId>,
    },
}

/// How far the work is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AssemblyProgress {
    /// Peers that told a length and have not been convicted.
    pub peers: usize,
    /// Pieces here, of the dictionary that is nearest to being whole.
    pub pieces: u32,
    /// Pieces of that dictionary; zero while no peer has told a length.
    pub piece_count: u32,
}

/// The work on one info dictionary.
#[derive(Debug)]
pub struct MetadataAssembly {
    info_hash: InfoHash,
    peers: BTreeMap<ConnId, Peer>,
    heaps: Vec<Heap>,
}

#[derive(Debug)]
struct Peer {
    /// Bytes of the info dictionary, as the peer says.
    len: u32,
    asked: Option<Asked>,
    /// Not asked before.
    ready_at: Instant,
    /// Requests in a row that gave nothing.
    misses: u32,
    /// Wrong dictionaries that it gave a part of.
    suspicions: u32,
    convicted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    piece: u32,
    at: Instant,
    /// The time for an answer is over.
    lapsed: bool,
}

/// The pieces of a dictionary of one length.
#[derive(Debug)]
struct Heap {
    len: u32,
    pieces: BTreeMap<u32, (ConnId, Box<[u8]>)>,
    /// Wrong hashes so far; after the first one only one peer feeds the heap.
    failures: u32,
    feeder: Option<ConnId>,
    /// Within the bound of memory. Others get no piece.
    admitted: bool,
    /// When its present turn began, and the pieces that it had then.
    turn_began: Instant,
    pieces_then: usize,
    /// Turns in which it gained too little while others waited.
    slow_turns: u32,
}

impl MetadataAssembly {
    /// The work on the dictionary of this hash, with no peer yet.
    pub fn new(info_hash: InfoHash) -> Self {
        Self { info_hash, peers: BTreeMap::new(), heaps: Vec::new() }
    }

    /// A peer says that it has a dictionary of `len` bytes, for the first time or anew. False when it is not taken
    /// in, because the length is out of range or there are [`METADATA_PEERS_MAX`] others.
    pub fn handle_peer(&mut self, conn: ConnId, len: u32) -> bool {
        if !(1..=METADATA_LEN_MAX).contains(&len) {
            return false;
        }
        let is_full = self.peers.len() >= METADATA_PEERS_MAX;
        match self.peers.get_mut(&conn) {
            Some(peer) if peer.len == len => return true,
            Some(peer) => (peer.len, peer.asked) = (len, None),
            None if is_full => return false,
            None => {
                self.peers.insert(conn, Peer::new(len));
            }
        }
        self.dismiss_feeder(conn);
        self.admit();
        true
    }

    /// The peer is gone. What it gave stays, unless it was to be the only giver.
    pub fn handle_left(&mut self, conn: ConnId) {
        self.peers.remove(&conn);
        self.dismiss_feeder(conn);
        self.admit();
    }

    /// The piece to ask this peer for now, if any.
    pub fn pick(&mut self, now: Instant, conn: ConnId) -> Option<u32> {
        self.lapse(now);
        self.end_turns(now);
        let peer = self.peers.get(&conn)?;
        if peer.convicted || now < peer.ready_at || peer.is_asked() {
            return None;
        }
        let len = peer.len;
        let place = self.heaps.iter().position(|heap| heap.len == len && heap.admitted)?;
        if self.heaps.get(place)?.failures > 0 && !self.may_feed_alone(now, conn, place) {
            return None;
        }
        let elsewhere: Vec<u32> = self
            .peers
            .values()
            .filter(|other| other.len == len)
            .filter_map(|other| other.asked.filter(|asked| !asked.lapsed))
            .map(|asked| asked.piece)
            .collect();
        let heap = self.heaps.get(place)?;
        let piece = (0..metadata_piece_count(len))
            .find(|piece| !heap.pieces.contains_key(piece) && !elsewhere.contains(piece))?;
        self.peers.get_mut(&conn)?.asked = Some(Asked { piece, at: now, lapsed: false });
        Some(piece)
    }

    /// A peer gives a piece; `total_len` is what it says there of the dictionary's length.
    pub fn handle_data(&mut self, conn: ConnId, piece: u32, total_len: Option<u32>, bytes: &[u8]) -> Outcome {
        let Some(peer) = self.peers.get_mut(&conn) else { return Outcome::Useless };
        if peer.convicted || peer.asked.is_none_or(|asked| asked.piece != piece) {
            return Outcome::Useless;
        }
        peer.asked = None;
        let len = peer.len;
        let wanted = piece_len(len, piece);
        let heap = self.heaps.iter_mut().find(|heap| heap.len == len && heap.admitted);
        let Some(heap) = heap.filter(|heap| heap.feeder.is_none_or(|feeder| feeder == conn)) else {
            return Outcome::Useless;
        };
        if bytes.len() != wanted || total_len.is_some_and(|told| told != len) {
            peer.misses = peer.misses.saturating_add(1);
            return Outcome::Useless;
        }
        peer.misses = 0;
        if heap.failures > 0 && heap.feeder.is_none() || heap.pieces.contains_key(&piece) {
            return Outcome::Useless;
        }
        heap.pieces.insert(piece, (conn, bytes.into()));
        if heap.pieces.len() < metadata_piece_count(len) as usize {
            return Outcome::Kept;
        }
        self.judge(len)
    }

    /// A peer says that it does not give a piece. It is left alone for a while, longer each time.
    pub fn handle_reject(&mut self, now: Instant, conn: ConnId, piece: u32) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.asked.is_none_or(|asked| asked.piece != piece) {
            return;
        }
        peer.asked = None;
        let patience = METADATA_REJECT_PATIENCE_MIN.saturating_mul(1 << peer.misses.min(16));
        peer.ready_at = now + patience.min(METADATA_REJECT_PATIENCE_MAX);
        peer.misses = peer.misses.saturating_add(1);
        self.dismiss_feeder(conn);
        self.admit();
    }

    /// When [`pick`](Self::pick) may have something that it has not now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let times = self.peers.values().filter(|peer| !peer.convicted).filter_map(|peer| match peer.asked {
            Some(Asked { at, lapsed: false, .. }) => Some(at + METADATA_REQUEST_TIMEOUT),
            _ => (peer.ready_at > Instant::ZERO).then_some(peer.ready_at),
        });
        times.min()
    }

    /// How far the work is.
    pub fn progress(&self) -> AssemblyProgress {
        let nearest = self.heaps.iter().max_by_key(|heap| (heap.is_fed(&self.peers), heap.pieces.len()));
        AssemblyProgress {
            peers: self.peers.values().filter(|peer| !peer.convicted).count(),
            pieces: nearest.map_or(0, |heap| heap.pieces.len() as u32),
            piece_count: nearest.map_or(0, |heap| metadata_piece_count(heap.len)),
        }
    }

    /// Bytes of pieces held: at most [`METADATA_HELD_LEN_MAX`].
    pub fn held_len(&self) -> usize {
        self.heaps.iter().flat_map(|heap| heap.pieces.values()).map(|(_, bytes)| bytes.len()).sum()
    }

    /// Hashes a heap that is whole.
    fn judge(&mut self, len: u32) -> Outcome {
        let Some(heap) = self.heaps.iter_mut().find(|heap| heap.len == len) else { return Outcome::Useless };
        let pieces = std::mem::take(&mut heap.pieces);
        let whole: Vec<u8> = pieces.values().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        if InfoHash::of(&whole) == self.info_hash {
            return Outcome::Complete(whole.into());
        }
        heap.failures = heap.failures.saturating_add(1);
        heap.feeder = None;
        let mut suspects: Vec<ConnId> = pieces.values().map(|&(conn, _)| conn).collect();
        suspects.sort_unstable();
        suspects.dedup();
        let convicted = match suspects[..] {
            [alone] => Some(alone),
            _ => None,
        };
        for suspect in &suspects {
            if let Some(peer) = self.peers.get_mut(suspect) {
                peer.suspicions = peer.suspicions.saturating_add(1);
                peer.convicted |= convicted.is_some();
            }
        }
        self.admit();
        Outcome::Wrong { convicted, suspects: if convicted.is_some() { Vec::new() } else { suspects } }
    }

    /// Requests that have waited too long for an answer no longer hold their piece.
    fn lapse(&mut self, now: Instant) {
        let mut changed = false;
        for peer in self.peers.values_mut() {
            if let Some(asked) = &mut peer.asked
                && !asked.lapsed
                && now >= asked.at + METADATA_REQUEST_TIMEOUT
            {
                asked.lapsed = true;
                peer.misses = peer.misses.saturating_add(1);
                changed = true;
            }
        }
        if changed {
            self.admit();
        }
    }

    /// Heaps that gained less than a piece a second in their turn go behind those that wait for memory.
    fn end_turns(&mut self, now: Instant) {
        let peers = &self.peers;
        let someone_waits = self.heaps.iter().any(|heap| !heap.admitted && heap.is_fed(peers));
        let mut changed = false;
        for heap in self.heaps.iter_mut().filter(|heap| heap.admitted) {
            if now < heap.turn_began + METADATA_TURN {
                continue;
            }
            let gained = heap.pieces.len().saturating_sub(heap.pieces_then) as u64;
            if someone_waits && gained < METADATA_TURN.as_secs() {
                heap.slow_turns = heap.slow_turns.saturating_add(1);
                changed = true;
            }
            heap.begin_turn(now);
        }
        if changed {
            self.admit();
            // A turn begins when a heap has memory.
            self.heaps.iter_mut().filter(|heap| heap.pieces.is_empty()).for_each(|heap| heap.begin_turn(now));
        }
    }

    /// Whether `conn` is the one peer that feeds a heap that was wrong once; chooses it where there is none, or none
    /// that still gives.
    fn may_feed_alone(&mut self, now: Instant, conn: ConnId, place: usize) -> bool {
        let Some(heap) = self.heaps.get_mut(place) else { return false };
        let candidates = self.peers.iter().filter(|(_, peer)| {
            peer.len == heap.len
                && !peer.convicted
                && now >= peer.ready_at
                && peer.asked.is_none_or(|a| a.lapsed)
        });
        // Who gives, before who has stopped to; who was not there when it went wrong, before who was.
        let best = candidates.min_by_key(|&(&conn, peer)| (peer.has_stopped(), peer.suspicions, conn));
        let best = best.map(|(&best, _)| best);
        let feeds =
            heap.feeder.and_then(|feeder| self.peers.get(&feeder)).is_some_and(|peer| !peer.has_stopped());
        if !feeds && best != heap.feeder && best == Some(conn) {
            heap.feeder = best;
            heap.pieces = BTreeMap::new();
        }
        heap.feeder == Some(conn)
    }

    /// A peer that is to feed a heap alone does so no longer: what it gave is of no use.
    fn dismiss_feeder(&mut self, conn: ConnId) {
        for heap in self.heaps.iter_mut().filter(|heap| heap.feeder == Some(conn)) {
            heap.feeder = None;
            heap.pieces = BTreeMap::new();
        }
    }

    /// Makes a heap for each length told, and decides which of them share the memory.
    fn admit(&mut self) {
        for peer in self.peers.values().filter(|peer| !peer.convicted) {
            if !self.heaps.iter().any(|heap| heap.len == peer.len) {
                self.heaps.push(Heap::new(peer.len));
            }
        }
        let peers = &self.peers;
        self.heaps.sort_by_key(|heap| (!heap.is_fed(peers), heap.failures, heap.slow_turns, heap.len));
        let mut reserved = 0;
        for (place, heap) in self.heaps.iter_mut().enumerate() {
            reserved += heap.len as usize;
            heap.admitted = place < METADATA_SIZES_MAX && reserved <= METADATA_HELD_LEN_MAX;
            if !heap.admitted {
                heap.pieces = BTreeMap::new();
                heap.feeder = None;
            }
        }
        // What was wrong is remembered for as long as someone says so; peers are few, and so are lengths.
        self.heaps.retain(|heap| !heap.pieces.is_empty() || heap.is_told(peers));
    }
}

impl Peer {
    fn new(len: u32) -> Self {
        Self { len, asked: None, ready_at: Instant::ZERO, misses: 0, suspicions: 0, convicted: false }
    }

    fn is_asked(&self) -> bool {
        self.asked.is_some_and(|asked| !asked.lapsed)
    }

    fn has_stopped(&self) -> bool {
        self.convicted || self.misses >= MISSES_MAX
    }
}

impl Heap {
    fn new(len: u32) -> Self {
        Self {
            len,
            pieces: BTreeMap::new(),
            failures: 0,
            feeder: None,
            admitted: false,
            turn_began: Instant::ZERO,
            pieces_then: 0,
            slow_turns: 0,
        }
    }

    fn begin_turn(&mut self, now: Instant) {
        (self.turn_began, self.pieces_then) = (now, self.pieces.len());
    }

    fn is_told(&self, peers: &BTreeMap<ConnId, Peer>) -> bool {
        peers.values().any(|peer| peer.len == self.len)
    }

    fn is_fed(&self, peers: &BTreeMap<ConnId, Peer>) -> bool {
        peers.values().any(|peer| peer.len == self.len && !peer.has_stopped())
    }
}

/// Bytes of one piece of a dictionary of `len` bytes; zero behind the last.
fn piece_len(len: u32, piece: u32) -> usize {
    let rest = u64::from(len).saturating_sub(u64::from(piece) * u64::from(METADATA_PIECE_LEN));
    rest.min(u64::from(METADATA_PIECE_LEN)) as usize
}

#[cfg(test)]
#[path = "assembly_tests.rs"]
mod tests;
