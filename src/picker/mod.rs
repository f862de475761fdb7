//! Which blocks to ask of which peer. Events in, one question out: `pick`.

mod terms;

pub use terms::{Allowed, Order, Others, PickerSettings, PieceShape, Priority, Received};

use crate::bitfield::Bitfield;
use crate::id::ConnId;
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::{BlockSpan, ByteRate, PieceIndex};

/// The picker of one torrent.
#[derive(Debug)]
pub struct Picker {
    shape: PieceShape,
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
        let _ = (have, priority(PieceIndex(0)), settings, rng);
        Self { shape }
    }

    /// A connection with a peer that has nothing, as far as we know.
    pub fn handle_joined(&mut self, _conn: ConnId) {}

    /// The connection is gone; its blocks in flight are free again.
    pub fn handle_left(&mut self, _conn: ConnId) {}

    /// The peer has exactly these pieces. A bitfield of another length is ignored.
    pub fn handle_stock(&mut self, _conn: ConnId, _stock: &Bitfield) {}

    /// The peer has every piece (BEP 6 have all).
    pub fn handle_all(&mut self, _conn: ConnId) {}

    /// The peer has one more piece; true when that is news.
    pub fn handle_have(&mut self, _conn: ConnId, _piece: PieceIndex) -> bool {
        false
    }

    /// The peer lost a piece (BEP 54); true when it had it.
    pub fn handle_dont_have(&mut self, _conn: ConnId, _piece: PieceIndex) -> bool {
        false
    }

    /// How fast the peer gives lately. Peers of like speed share pieces, others get pieces of their own.
    pub fn handle_rate(&mut self, _conn: ConnId, _rate: ByteRate) {}

    /// Whether the peer owes us blocks for too long. While it does, they may be asked of others, too.
    pub fn handle_snubbed(&mut self, _conn: ConnId, _snubbed: bool) {}

    /// Appends up to `count` blocks to ask of the peer; they count as asked from now on.
    pub fn pick(
        &mut self,
        _now: Instant,
        _conn: ConnId,
        _count: usize,
        _allowed: Allowed<'_>,
        _rng: &mut Rng,
        _out: &mut Vec<BlockSpan>,
    ) {
    }

    /// A block came.
    pub fn handle_received(&mut self, _conn: ConnId, _span: BlockSpan) -> Received {
        Received::Unwanted
    }

    /// A block that was asked will not come: rejected, choked away or timed out.
    pub fn handle_returned(&mut self, _conn: ConnId, _span: BlockSpan) {}

    /// The piece is ours: its hash is right, and it is stored.
    pub fn handle_verified(&mut self, _piece: PieceIndex) {}

    /// The piece in flight has to be fetched again: its hash is wrong, or it could not be stored. When `exclusive`,
    /// one connection at a time contributes to it until it is verified, so that a liar is known.
    pub fn handle_failed(&mut self, _piece: PieceIndex, _exclusive: bool) {}

    /// A piece that was ours is no more, for example after a disk error: it is wanted again.
    pub fn handle_lost(&mut self, _piece: PieceIndex) {}

    /// Changes a piece's priority. True when that gave up a piece in flight (`Skip` before its last block came): its
    /// buffer can be dropped, and its blocks in flight will be `Unwanted`.
    pub fn set_priority(&mut self, _piece: PieceIndex, _priority: Priority) -> bool {
        false
    }

    /// The next change of our interest in a peer. Drain it after events.
    pub fn poll_interest(&mut self) -> Option<(ConnId, bool)> {
        None
    }

    /// Whether the peer has a wanted piece that we lack.
    pub fn is_interesting(&self, _conn: ConnId) -> bool {
        false
    }

    /// Whether every wanted piece is verified.
    pub fn is_complete(&self) -> bool {
        true
    }

    /// Wanted pieces that are not verified.
    pub fn wanted_left(&self) -> u32 {
        0
    }

    /// Bytes of those pieces.
    pub fn bytes_left(&self) -> u64 {
        0
    }

    /// Peers that have the piece.
    pub fn availability(&self, _piece: PieceIndex) -> u32 {
        0
    }

    /// Peers that have the rarest piece of the torrent, and how many pieces are that rare. We do not count.
    pub fn rarest(&self) -> (u32, u32) {
        (0, 0)
    }

    /// Copies of the torrent among the peers, ours apart: those of the rarest piece, and after the point the share
    /// of pieces of which there are more.
    pub fn distributed_copies(&self) -> f64 {
        0.0
    }

    /// Connections.
    pub fn peers(&self) -> usize {
        0
    }

    /// Connections with peers that have everything.
    pub fn seeds(&self) -> usize {
        0
    }

    /// Pieces begun and not verified.
    pub fn pieces_in_flight(&self) -> usize {
        0
    }

    /// How the torrent is cut.
    pub fn shape(&self) -> PieceShape {
        self.shape
    }
}
