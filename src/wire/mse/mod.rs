//! Message stream encryption (MSE, also protocol encryption or PE): a handshake that looks like random bytes, in front
//! of the peer wire, and RC4 behind it when both sides want that.
//!
//! Source: "Message Stream Encryption" of the Azureus wiki, as libtorrent, Transmission and µTorrent speak it. It hides
//! the protocol from a line that slows BitTorrent down. It is no protection against anybody who knows the info-hash,
//! or who can change bytes under way: nothing here authenticates.
//!
//! ```text
//! 1  A -> B   public key of A (96 bytes), PadA
//! 2  B -> A   public key of B (96 bytes), PadB
//! 3  A -> B   HASH('req1', S), HASH('req2', SKEY) ^ HASH('req3', S),
//!             RC4(VC, crypto_provide, len(PadC), PadC, len(IA), IA)
//! 4  B -> A   RC4(VC, crypto_select, len(PadD), PadD)
//! 5  both     the peer wire, in plaintext or in RC4, as crypto_select says
//! ```
//!
//! S is the Diffie-Hellman secret, SKEY the info-hash, VC eight zero bytes, IA the first bytes of A's peer wire. Pads
//! have 0 to 512 random bytes; each side finds the end of the other's first pad by what has to follow it.
//!
//! Invariants: the handshake takes no byte that is not its own; it holds a bounded number of bytes whatever is sent to
//! it; the incoming side says nothing before it has a whole public key that is worth an answer.
//! Deliberately absent: sockets, timeouts, a second attempt in plaintext, and obfuscation of any other kind.

mod cipher;
mod dh;
mod error;
mod gather;
mod handshake;
mod incoming;
mod outgoing;
mod policy;
mod session;
mod skey;
mod stream;

#[cfg(test)]
mod tests;

pub use cipher::Rc4;
pub use error::MseError;
pub use handshake::{MseHandshake, Progress, looks_encrypted};
pub use policy::{CryptoChoice, CryptoMethod, CryptoMethods, Encryption, UnknownEncryption};
pub use session::Established;
pub use skey::{SkeyHash, SkeyLookup};
pub use stream::{Answering, MseStream, Received};
