//! Putting together an info dictionary that only its hash is known of (BEP 9), from peers of which any may lie.
//!
//! Peers tell how long the dictionary is, and a lie about that would mix what does not belong together: so there is one
//! [`Heap`] of pieces for each length told, and a peer gives to its own only. The heaps share one bound of memory,
//! those that are soonest done or refuted first: a heap that nobody feeds, or that has been wrong before, or that is
//! long, waits for the others, and one that gains hardly anything gives way to who waits. Nothing is ever allocated for a length told, only for bytes that came.
//!
//! A whole heap is hashed. When the hash is wrong, all of it is thrown away, and from then on each peer feeds a heap of its
//! own, as many at once as [`METADATA_FED_LEN_MAX`] has room for: the next wrong hash has exactly one culprit, who is
//! convicted and not asked again. So an honest peer that stays is heard, however slowly others lie, and never are wrong
//! bytes returned. At most one request is under way to each peer. A piece that was asked of others is asked of one more after
//! two seconds, and at once of who has given pieces when none of the others has; so those who say much and give nothing hold
//! no piece. After ten seconds without an answer a peer is asked for something again.
//!
//! Sans-IO. Connections are named by the shell, which tells their coming, their going and what they say.

use crate::id::{ConnId, InfoHash};
use crate::limits::{
    METADATA_FED_LEN_MAX, METADATA_HELD_LEN_MAX, METADATA_LATE, METADATA_LEN_MAX, METADATA_PEERS_MAX,
    METADATA_REJECT_PATIENCE_MAX, METADATA_REJECT_PATIENCE_MIN, METADATA_REQUEST_TIMEOUT, METADATA_SIZES_MAX,
    METADATA_TURN,
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
    /// It has given a piece.
    gave: bool,
    /// Since when there has been nothing to ask it for.
    waits_since: Option<Instant>,
    convicted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Asked {
    piece: u32,
    at: Instant,
    /// One more may be asked for the piece.
    late: bool,
    /// The time for an answer is over.
    lapsed: bool,
}

/// The pieces of a dictionary of one length.
#[derive(Debug)]
struct Heap {
    len: u32,
    pieces: BTreeMap<u32, (ConnId, Box<[u8]>)>,
    /// Wrong hashes so far; after the first one each peer feeds what is its own.
    failures: u32,
    /// What each of them has given then.
    fed: BTreeMap<ConnId, BTreeMap<u32, Box<[u8]>>>,
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
        let mut all = 0..metadata_piece_count(len);
        let piece = if self.heaps.get(place)?.failures > 0 {
            if !self.may_feed(now, conn, place) {
                return None;
            }
            let given = self.heaps.get(place)?.fed.get(&conn)?;
            all.find(|piece| !given.contains_key(piece))?
        } else {
            let of_len = self.peers.values().filter(|other| other.len == len);
            let elsewhere =
                of_len.filter_map(|other| Some((other.asked.filter(|it| !it.lapsed)?, other.gave)));
            let elsewhere: Vec<(Asked, bool)> = elsewhere.collect();
            let (heap, gave) = (self.heaps.get(place)?, self.peers.get(&conn)?.gave);
            let is_asked = |piece: u32| elsewhere.iter().any(|(asked, _)| asked.piece == piece);
            let has_its_time = |&(asked, owner_gave): &(Asked, bool)| !asked.late && (owner_gave || !gave);
            let waits = |piece: u32| elsewhere.iter().any(|it| it.0.piece == piece && has_its_time(it));
            let missing = || all.clone().filter(|piece| !heap.pieces.contains_key(piece));
            let free = missing().find(|&piece| !is_asked(piece));
            // Who has waited longest comes first, so that newcomers take no turn of others.
            let since = self.peers.get(&conn)?.waits_since;
            let waits_longer = |other: &Peer| {
                let is_idle = !other.convicted && !other.is_asked() && now >= other.ready_at;
                let is_before = other.waits_since.is_some_and(|at| since.is_none_or(|since| at < since));
                other.len == len && is_idle && is_before
            };
            let is_first = !self.peers.values().any(waits_longer);
            let piece = free.or_else(|| missing().find(|&piece| !waits(piece)));
            let Some(piece) = piece.filter(|_| is_first || gave) else {
                let waits_since = &mut self.peers.get_mut(&conn)?.waits_since;
                *waits_since = waits_since.or(Some(now));
                return None;
            };
            piece
        };
        let peer = self.peers.get_mut(&conn)?;
        peer.waits_since = None;
        peer.asked = Some(Asked { piece, at: now, late: false, lapsed: false });
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
        let Some(heap) = heap else { return Outcome::Useless };
        if bytes.len() != wanted || total_len.is_some_and(|told| told != len) {
            peer.misses = peer.misses.saturating_add(1);
            return Outcome::Useless;
        }
        (peer.misses, peer.gave) = (0, true);
        if heap.failures > 0 {
            let Some(given) = heap.fed.get_mut(&conn) else { return Outcome::Useless };
            given.insert(piece, bytes.into());
            if given.len() < metadata_piece_count(len) as usize {
                return Outcome::Kept;
            }
            let whole = heap.fed.remove(&conn).unwrap_or_default();
            let whole = whole.into_iter().map(|(piece, bytes)| (piece, (conn, bytes))).collect();
            return self.judge(len, whole);
        }
        if heap.pieces.contains_key(&piece) {
            return Outcome::Useless;
        }
        heap.pieces.insert(piece, (conn, bytes.into()));
        if heap.pieces.len() < metadata_piece_count(len) as usize {
            return Outcome::Kept;
        }
        let whole = std::mem::take(&mut heap.pieces);
        self.judge(len, whole)
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
            Some(Asked { at, late: false, .. }) => Some(at + METADATA_LATE),
            Some(Asked { at, lapsed: false, .. }) => Some(at + METADATA_REQUEST_TIMEOUT),
            _ => (peer.ready_at > Instant::ZERO).then_some(peer.ready_at),
        });
        times.min()
    }

    /// How far the work is.
    pub fn progress(&self) -> AssemblyProgress {
        let nearest = self.heaps.iter().max_by_key(|heap| (heap.is_fed(&self.peers), heap.furthest()));
        AssemblyProgress {
            peers: self.peers.values().filter(|peer| !peer.convicted).count(),
            pieces: nearest.map_or(0, |heap| heap.furthest() as u32),
            piece_count: nearest.map_or(0, |heap| metadata_piece_count(heap.len)),
        }
    }

    /// Bytes of pieces held: at most [`METADATA_HELD_LEN_MAX`].
    pub fn held_len(&self) -> usize {
        let fed = self.heaps.iter().flat_map(|heap| heap.fed.values()).flat_map(BTreeMap::values);
        let shared = self.heaps.iter().flat_map(|heap| heap.pieces.values()).map(|(_, bytes)| bytes);
        fed.chain(shared).map(|bytes| bytes.len()).sum()
    }

    /// Hashes all pieces of a dictionary.
    fn judge(&mut self, len: u32, pieces: BTreeMap<u32, (ConnId, Box<[u8]>)>) -> Outcome {
        let whole: Vec<u8> = pieces.values().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        if InfoHash::of(&whole) == self.info_hash {
            return Outcome::Complete(whole.into());
        }
        if let Some(heap) = self.heaps.iter_mut().find(|heap| heap.len == len) {
            heap.failures = heap.failures.saturating_add(1);
        }
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
            if let Some(asked) = &mut peer.asked {
                asked.late = now >= asked.at + METADATA_LATE;
            }
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
            let gained = heap.held().saturating_sub(heap.pieces_then) as u64;
            if someone_waits && gained < METADATA_TURN.as_secs() {
                heap.slow_turns = heap.slow_turns.saturating_add(1);
                changed = true;
            }
            heap.begin_turn(now);
        }
        if changed {
            self.admit();
            // A turn begins when a heap has memory.
            self.heaps.iter_mut().filter(|heap| heap.held() == 0).for_each(|heap| heap.begin_turn(now));
        }
    }

    /// Whether `conn` feeds a heap that was wrong once. Lets it where there is room, or in the place of one that gives no
    /// longer, unless others should come first.
    fn may_feed(&mut self, now: Instant, conn: ConnId, place: usize) -> bool {
        let Some(heap) = self.heaps.get_mut(place) else { return false };
        if heap.fed.contains_key(&conn) {
            return true;
        }
        let peers = &self.peers;
        let has_stopped = |feeder: &ConnId| peers.get(feeder).is_none_or(Peer::has_stopped);
        if heap.fed.len() >= heap.feeders_max() && !heap.fed.keys().any(has_stopped) {
            return false;
        }
        let candidates = peers.iter().filter(|(conn, peer)| {
            peer.len == heap.len
                && !peer.convicted
                && now >= peer.ready_at
                && peer.asked.is_none_or(|asked| asked.lapsed)
                && !heap.fed.contains_key(conn)
        });
        // Who gives, before who has stopped to; who was not there when it went wrong, before who was.
        let mut candidates: Vec<_> =
            candidates.map(|(&conn, peer)| (peer.has_stopped(), peer.suspicions, conn)).collect();
        candidates.sort_unstable();
        let stopped: Vec<ConnId> = heap.fed.keys().copied().filter(has_stopped).collect();
        let room = heap.feeders_max().saturating_sub(heap.fed.len());
        let is_among = |count: usize| candidates.iter().take(count).any(|&(.., one)| one == conn);
        if !is_among(room + stopped.len()) {
            return false;
        }
        if heap.fed.len() >= heap.feeders_max()
            && let Some(gone) = stopped.first()
        {
            heap.fed.remove(gone);
        }
        heap.fed.insert(conn, BTreeMap::new());
        true
    }

    /// What a peer gave that was to give everything is of no use any more.
    fn dismiss_feeder(&mut self, conn: ConnId) {
        self.heaps.iter_mut().for_each(|heap| drop(heap.fed.remove(&conn)));
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
            reserved += heap.len as usize * if heap.failures > 0 { heap.feeders_max() } else { 1 };
            heap.admitted = place < METADATA_SIZES_MAX && reserved <= METADATA_HELD_LEN_MAX;
            if !heap.admitted {
                heap.pieces = BTreeMap::new();
                heap.fed = BTreeMap::new();
            }
        }
        // What was wrong is remembered for as long as someone says so; peers are few, and so are lengths.
        self.heaps.retain(|heap| heap.held() > 0 || heap.is_told(peers));
    }
}

impl Peer {
    fn new(len: u32) -> Self {
        Self {
            len,
            asked: None,
            ready_at: Instant::ZERO,
            misses: 0,
            suspicions: 0,
            gave: false,
            waits_since: None,
            convicted: false,
        }
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
            fed: BTreeMap::new(),
            admitted: false,
            turn_began: Instant::ZERO,
            pieces_then: 0,
            slow_turns: 0,
        }
    }

    fn begin_turn(&mut self, now: Instant) {
        (self.turn_began, self.pieces_then) = (now, self.held());
    }

    /// Pieces held, those of all who feed it together.
    fn held(&self) -> usize {
        self.pieces.len() + self.fed.values().map(BTreeMap::len).sum::<usize>()
    }

    /// Pieces of what is nearest to being whole.
    fn furthest(&self) -> usize {
        self.fed.values().map(BTreeMap::len).max().unwrap_or(0).max(self.pieces.len())
    }

    /// Peers that may feed it side by side after it was wrong.
    fn feeders_max(&self) -> usize {
        (METADATA_FED_LEN_MAX / (self.len as usize).max(1)).clamp(1, METADATA_PEERS_MAX)
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
