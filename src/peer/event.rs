//! What a connection's machine tells its shell: events, and why a connection ends.

use super::facts::SpanFault;
use crate::bitfield::{Bitfield, BitfieldError};
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::{Handshake, WireError};

/// What the shell has to know at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The peer has introduced itself. Answer with [`PeerMachine::accept`], or close.
    Handshake(Handshake),
    /// The peer wants blocks of us, or no longer does.
    Interested(bool),
    /// The peer has every piece; `arrived` when it came so, not when it became so.
    Complete {
        /// It was complete from its first message on.
        arrived: bool,
    },
    /// The peer chokes us, or no longer does.
    ChokedByThem(bool),
    /// The peer said all in all what it has; see [`PeerMachine::stock`].
    Stock,
    /// The peer has one more piece.
    Have(PieceIndex),
    /// The peer has lost a piece that it had (BEP 54).
    Lost(PieceIndex),
    /// A block begins to arrive. Take its payload with [`PeerMachine::take_payload`] before anything else.
    Block {
        /// Which.
        span: BlockSpan,
        /// We asked for it; otherwise it is to be thrown away.
        asked: bool,
    },
    /// The peer told its extensions, or told them anew: see [`PeerMachine::theirs`].
    Extensions,
    /// A message of an extension that we said we understand: our number for it, and its payload in
    /// [`PeerMachine::take_extended`].
    Extended(OurExtension),
}

/// The extended messages we understand, by the numbers that we gave them (BEP 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OurExtension {
    /// `ut_pex` (BEP 11).
    Pex,
}

/// What a peer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stock<'a> {
    /// Nothing.
    None,
    /// These pieces.
    Some(&'a Bitfield),
    /// Every piece.
    All,
}

/// Why a connection ends. All of them are the peer's doing.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// Bytes that are no message.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// A bitfield that is none of this torrent.
    #[error(transparent)]
    Bitfield(#[from] BitfieldError),
    /// A bitfield, have-all or have-none after the peer has said what it has, and it adds nothing or takes something
    /// back.
    #[error("says twice what it has")]
    SecondBitfield,
    /// A message of the fast extension that both sides had not agreed on.
    #[error("speaks the fast extension without having agreed on it")]
    FastNotAgreed,
    /// A piece number behind the last piece.
    #[error("names piece {0} of a torrent with fewer")]
    PieceOutOfRange(PieceIndex),
    /// A request that cannot be answered, from a peer that knows no rejects.
    #[error("requests {0}: {1}")]
    BadRequest(BlockSpan, SpanFault),
    /// More requests than the queue we announced, many times over.
    #[error("floods requests beyond the announced queue")]
    RequestFlood,
    /// Rejects, although it does not choke us.
    #[error("unchokes us and rejects whatever is asked")]
    OnlyRejects,
    /// It loses pieces over and over (BEP 54).
    #[error("loses pieces over and over")]
    LosesPieces,
    /// A block that was never asked for.
    #[error("sends {0}, which was not asked for")]
    UnwantedBlock(BlockSpan),
    /// More peer exchange than BEP 11 allows, or nonsense in its place, many times over.
    #[error("floods peer exchange")]
    ExchangeFlood,
    /// It makes us answer without reading the answers.
    #[error("does not read what it asks for")]
    NotReading,
    /// No handshake in time.
    #[error("did not finish its handshake in time")]
    HandshakeTimeout,
    /// Silent for too long.
    #[error("was silent for too long")]
    Idle,
}
