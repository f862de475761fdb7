//! The picker's words: what the user wants first, and what answers mean.

use crate::id::ConnId;
use crate::limits::{BLOCK_OWED_MAX, PIECES_IN_FLIGHT_MAX, RANDOM_FIRST_PIECES};
use crate::units::PieceIndex;

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
