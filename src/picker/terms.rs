//! The picker's words: how a torrent is cut into pieces and blocks, what the user wants first, and what answers mean.

use crate::id::ConnId;
use crate::limits::{BLOCK_OWED_MAX, PIECES_IN_FLIGHT_MAX, RANDOM_FIRST_PIECES};
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};

/// How a torrent is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceShape {
    /// Number of pieces.
    pub piece_count: u32,
    /// Bytes of every piece but the last.
    pub piece_length: u32,
    /// Bytes of all pieces together.
    pub total_len: u64,
}

impl PieceShape {
    /// Bytes of `piece`: shorter for the last one, zero for one out of range.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        if piece.0 >= self.piece_count {
            return 0;
        }
        let begin = u64::from(piece.0) * u64::from(self.piece_length);
        let rest = self.total_len.saturating_sub(begin);
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// Blocks of `piece`, the last of which may be short.
    pub fn blocks_of(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// The bytes of a piece's block number `block`; `None` out of range.
    pub fn span(&self, piece: PieceIndex, block: u32) -> Option<BlockSpan> {
        let begin = block.checked_mul(BLOCK_LEN)?;
        let rest = self.piece_len(piece).checked_sub(begin)?;
        (rest > 0).then(|| BlockSpan { piece, begin, len: rest.min(BLOCK_LEN) })
    }

    /// The number of the block that `span` is, within its piece; `None` when it is not exactly one of our blocks.
    pub fn block_of(&self, span: BlockSpan) -> Option<u32> {
        let block = span.begin / BLOCK_LEN;
        (self.span(span.piece, block) == Some(span)).then_some(block)
    }
}

/// How much a piece is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Not wanted at all.
    Skip,
    /// Begun when nothing better can be had.
    Low,
    /// As most pieces.
    #[default]
    Normal,
    /// Begun before all others.
    High,
}

/// Which piece of equal priority is begun first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order {
    /// The one that fewest peers have; ties are broken at random.
    #[default]
    RarestFirst,
    /// The one with the lowest index, for playing while downloading.
    Sequential,
    /// Any. For comparison in the laboratory.
    Random,
}

/// What a user may set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PickerSettings {
    /// Which piece is begun first.
    pub order: Order,
    /// Pieces begun and not yet verified, which is the bound on memory: each has a buffer. At least one is begun.
    pub pieces_in_flight_max: usize,
    /// Pieces to verify before rarest first begins; until then a random piece is begun, since something to give
    /// is worth more than something rare. Counts for `Order::RarestFirst` alone; zero switches it off.
    pub random_first: u32,
}

impl Default for PickerSettings {
    fn default() -> Self {
        Self {
            order: Order::RarestFirst,
            pieces_in_flight_max: PIECES_IN_FLIGHT_MAX,
            random_first: RANDOM_FIRST_PIECES,
        }
    }
}

/// What may be asked of a peer now.
#[derive(Clone, Copy, Debug)]
pub enum Allowed<'a> {
    /// Everything: it does not choke us.
    Unchoked,
    /// Everything, and it suggests these pieces (BEP 6), which are begun before others.
    Suggested(&'a [PieceIndex]),
    /// It chokes us, but these pieces may be asked all the same (allowed-fast, BEP 6).
    Fast(&'a [PieceIndex]),
}

/// What a block that arrived is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// We have it already: from somebody else in the endgame, or from this peer.
    Duplicate,
    /// Not a block of a piece in flight, or of one that only somebody else may contribute to now: drop it.
    Unwanted,
    /// A block that was missing.
    Block {
        /// It was the last one: the piece can be verified.
        completes: bool,
        /// Connections that were asked for it, too, and can be told to cancel.
        cancel: Others,
    },
}

/// A few connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Others(pub(super) [Option<ConnId>; BLOCK_OWED_MAX]);

impl Others {
    /// The connections.
    pub fn iter(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.0.iter().flatten().copied()
    }
}
