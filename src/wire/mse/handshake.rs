//! The handshake of either side, as whoever owns the connection sees it: bytes in, bytes out, and at the end the
//! method, the ciphers and the beginning of the peer's stream.

use super::dh::Secret;
use super::error::MseError;
use super::incoming::Incoming;
use super::outgoing::Outgoing;
use super::policy::{CryptoChoice, CryptoMethods};
use super::session::{Established, Pads};
use super::skey::SkeyLookup;
use crate::id::InfoHash;
use crate::rng::Rng;
use crate::wire::{HANDSHAKE_LEN, check_prefix};

/// Bytes that tell a plaintext handshake from everything else.
const PLAINTEXT_PREFIX_LEN: usize = 20;

/// One side of an encrypted handshake.
///
/// Give it what was received with [`handle_bytes`](Self::handle_bytes), and send what
/// [`poll_output`](Self::poll_output) has after each call, and once at the beginning. It has no clock: the owner ends
/// a handshake that takes too long.
#[derive(Debug)]
pub struct MseHandshake {
    side: Side,
    output: Vec<u8>,
}

#[derive(Debug)]
enum Side {
    Outgoing(Outgoing),
    Incoming(Incoming),
}

/// How far a handshake is.
#[derive(Debug)]
pub enum Progress {
    /// More input is needed; also the answer of a handshake that has ended before, which takes no more of it.
    Pending,
    /// Both sides agree. Output may still be waiting, and goes before anything else.
    Established(Box<Established>),
}

impl MseHandshake {
    /// The side that dials, for a peer of the torrent `info_hash`. `secret` has to come from the kernel's generator,
    /// `pads` may be any. Our own handshake goes along as initial payload, which spares a round trip; without it, it
    /// is the first thing to send once the handshake is established.
    pub fn outgoing(
        secret: [u8; 20],
        pads: &mut Rng,
        info_hash: InfoHash,
        offered: CryptoMethods,
        initial_payload: Option<&[u8; HANDSHAKE_LEN]>,
    ) -> Self {
        Self::outgoing_with(secret, Pads::draw(pads), info_hash, offered, initial_payload)
    }

    /// The side that was dialled. `secret` has to come from the kernel's generator, `pads` may be any.
    pub fn incoming(secret: [u8; 20], pads: &mut Rng, choice: CryptoChoice) -> Self {
        Self::incoming_with(secret, Pads::draw(pads), choice)
    }

    /// Takes what belongs to the handshake off the front of `input`. What is left of it once the handshake is
    /// established is the peer's stream, still to be decrypted. After an error nothing more is taken: close.
    pub fn handle_bytes(&mut self, input: &mut &[u8], skeys: &dyn SkeyLookup) -> Result<Progress, MseError> {
        match &mut self.side {
            Side::Outgoing(side) => side.handle_bytes(input, &mut self.output),
            Side::Incoming(side) => side.handle_bytes(input, &mut self.output, skeys),
        }
    }

    /// Bytes of the dialling peer's public key that are still to come; `None` when it is here, or when we dial.
    pub(super) fn key_left(&self) -> Option<usize> {
        match &self.side {
            Side::Outgoing(_) => None,
            Side::Incoming(side) => side.key_left(),
        }
    }

    /// Appends what has to be sent; less than 1.5 kB in all.
    pub fn poll_output(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.output);
    }

    /// Something has to be sent.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    pub(super) fn outgoing_with(
        secret: [u8; 20],
        pads: Pads,
        info_hash: InfoHash,
        offered: CryptoMethods,
        initial_payload: Option<&[u8; HANDSHAKE_LEN]>,
    ) -> Self {
        let payload = initial_payload.map_or_else(Vec::new, |payload| payload.to_vec());
        let mut output = Vec::new();
        let secret = Secret::new(&secret);
        let side = Outgoing::new(secret, pads, info_hash, offered, payload, &mut output);
        Self { side: Side::Outgoing(side), output }
    }

    pub(super) fn incoming_with(secret: [u8; 20], pads: Pads, choice: CryptoChoice) -> Self {
        let side = Side::Incoming(Incoming::new(Secret::new(&secret), pads, choice));
        Self { side, output: Vec::new() }
    }

    /// Bytes held, waiting output included.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.output.capacity()
            + match &self.side {
                Side::Outgoing(side) => side.held(),
                Side::Incoming(side) => side.held(),
            }
    }
}

/// Whether a connection that begins with `first` opens with an encrypted handshake; `None` while it may still become
/// a plaintext one. Twenty bytes always suffice. A public key begins like a plaintext handshake once in 2^160 times.
pub fn looks_encrypted(first: &[u8]) -> Option<bool> {
    let first = &first[..first.len().min(PLAINTEXT_PREFIX_LEN)];
    match check_prefix(first) {
        Err(_) => Some(true),
        Ok(()) => (first.len() == PLAINTEXT_PREFIX_LEN).then_some(false),
    }
}
