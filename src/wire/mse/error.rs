//! What a peer can do wrong in an encrypted handshake. Each variant is the remote side's doing, or a torrent and a
//! method that we do not have for it, and each ends the connection.

use super::policy::CryptoMethods;
use crate::limits::{MSE_INITIAL_PAYLOAD_LEN_MAX, MSE_PAD_LEN_MAX};

/// Why an encrypted handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MseError {
    /// A plaintext handshake, and our policy takes encrypted ones only.
    #[error("the peer speaks plaintext, and encryption is required here")]
    PlaintextRefused,
    /// An encrypted handshake, and our policy takes none.
    #[error("the peer opens with an encrypted handshake, and encryption is off here")]
    EncryptionRefused,
    /// A public key that would make the shared secret one that everybody knows; also any other protocol's bytes by a
    /// very small chance.
    #[error("the peer sent a public key outside 2 to p-2, which gives no secret")]
    WeakPublicKey,
    /// The mark that ends the first pad did not come: another protocol, or a peer that takes us for another torrent.
    #[error("the peer sent more than {MSE_PAD_LEN_MAX} bytes without the mark that ends its pad")]
    NoMark,
    /// The peer asks for a torrent that we do not have.
    #[error("the peer asks for a torrent that is not here")]
    UnknownTorrent,
    /// The verification constant is not zero: bytes were lost, or the peer guesses.
    #[error("the peer's verification constant is not zero")]
    WrongConstant,
    /// None of the methods the peer provides is accepted here.
    #[error("the peer provides {provided} for the payload, and {accepted} is accepted here")]
    NoCommonMethod {
        /// What the peer provides.
        provided: CryptoMethods,
        /// What our policy accepts.
        accepted: CryptoMethods,
    },
    /// The peer selected what we had not offered, or not exactly one method.
    #[error("the peer selected {selected} for the payload; one of {offered} was offered")]
    NotOffered {
        /// What the peer selected.
        selected: CryptoMethods,
        /// What we had offered.
        offered: CryptoMethods,
    },
    /// A later pad with more bytes than any has.
    #[error("the peer announced a pad of {len} bytes; none has more than {MSE_PAD_LEN_MAX}")]
    PadLength {
        /// Bytes of the pad.
        len: u16,
    },
    /// More initial payload than we hold.
    #[error(
        "the peer announced {len} bytes of initial payload; no more than {MSE_INITIAL_PAYLOAD_LEN_MAX} are taken"
    )]
    InitialPayloadLength {
        /// Bytes of the initial payload.
        len: u16,
    },
}
