//! What a peer can say that is no peer wire. Every variant is the remote side's fault, and ends its
//! connection; none of them is worth more than one line in a log.

use crate::units::Counted;
/// Bytes from a peer that cannot be what the peer wire allows at that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The first bytes are not the plain BitTorrent handshake: another protocol, or an encrypted one.
    #[error(
        "the peer speaks another protocol: byte {at} of its handshake is {found:#04x}, not {expected:#04x}"
    )]
    WrongProtocol {
        /// Offset of the first byte that differs.
        at: usize,
        /// What the peer sent there.
        found: u8,
        /// What BEP 3 has there.
        expected: u8,
    },
    /// A message of a fixed length with another one.
    #[error("the peer sent a {name} message of {}; it always has {expected}", Counted(*.len, "byte"))]
    FixedLength {
        /// The message's name in BEP 3, 5 or 6.
        name: &'static str,
        /// The length prefix.
        len: u32,
        /// The only right length prefix.
        expected: u32,
    },
    /// A piece message too short for its header or with more than a block may have.
    #[error("the peer sent a piece message of {}; they have 9 to {max}", Counted(*.len, "byte"))]
    PieceLength {
        /// The length prefix.
        len: u32,
        /// The largest length prefix accepted.
        max: u32,
    },
    /// A bitfield that does not fit the torrent.
    #[error("the peer sent a bitfield of {} for a torrent whose bitfield has {expected}", Counted(*.len, "byte"))]
    BitfieldLength {
        /// Bytes of the bitfield.
        len: u32,
        /// Bytes that it should have (or at most may have while the torrent's size is unknown).
        expected: usize,
    },
    /// An extended message without even its own type.
    #[error("the peer sent an extended message without a type")]
    ExtendedEmpty,
    /// A message that is too large to skip.
    #[error("the peer sent a message of type {id} with {}; more than {max} are not skipped", Counted(*.len, "byte"))]
    TooLong {
        /// The message's type.
        id: u8,
        /// The length prefix.
        len: u32,
        /// The largest length prefix accepted.
        max: usize,
    },
}
