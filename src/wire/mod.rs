//! The peer wire as bytes and values: handshake, messages, extension handshake (BEP 3, 6, 10, 21),
//! metadata exchange (BEP 9), and the encrypted handshake that may stand before them (`mse`).
//!
//! Nothing here knows a connection's state: whether a message is allowed *now* is for `peer` to decide;
//! whether its bytes can be a message at all is decided here, before anything of it is kept.
//! Deliberately absent: the payload of piece messages. The decoder stops after their header, so that the
//! shell can receive the payload straight to where it belongs.

mod decoder;
mod error;
mod extension;
mod handshake;
mod message;
mod pex;
mod metadata;
mod mse;

pub use decoder::{BitfieldLen, Decoder, DecoderLimits};
pub use error::WireError;
pub use extension::{EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds};
pub use handshake::{HANDSHAKE_LEN, Handshake, Reserved, check_prefix};
pub use message::{Message, PIECE_HEADER_LEN, REQUEST_MESSAGE_LEN, encode, piece_header};
pub use metadata::{METADATA_PIECE_LEN, MetadataMessage, metadata_piece_count};
pub use mse::{
    Answering, CryptoChoice, CryptoMethod, CryptoMethods, Encryption, Established, MseError, MseHandshake,
    MseStream, Progress, Rc4, Received, SkeyHash, SkeyLookup, UnknownEncryption, looks_encrypted,
};
pub use pex::{PexError, PexFlags, PexMessage, PexPeer};
