//! What both sides of an encrypted handshake have in common: pads, the two ciphers, and what is left at the end.

use super::cipher::Rc4;
use super::dh::KEY_LEN;
use super::policy::CryptoMethod;
use super::skey::hash;
use crate::id::InfoHash;
use crate::limits::MSE_PAD_LEN_MAX;
use crate::rng::Rng;
use std::fmt;

/// The verification constant.
pub(super) const CONSTANT: [u8; 8] = [0; 8];

/// An encrypted handshake that has succeeded.
#[derive(Debug)]
pub struct Established {
    /// How the payload goes from here on.
    pub method: CryptoMethod,
    /// The torrent that the handshake was about. A peer's own handshake may still name another one.
    pub info_hash: InfoHash,
    /// For everything sent behind the handshake's own output; `None` with plaintext payload.
    pub encrypt: Option<Rc4>,
    /// For everything received behind the handshake's own bytes, what is left of the input included; `None` with
    /// plaintext payload.
    pub decrypt: Option<Rc4>,
    /// The beginning of the peer's stream, already decrypted. Empty for the side that dialled.
    pub initial_payload: Vec<u8>,
}

/// Both ciphers, and what they are for.
pub(super) struct Session {
    pub(super) encrypt: Rc4,
    pub(super) decrypt: Rc4,
    info_hash: InfoHash,
}

impl Session {
    /// The session of the side that dialled, or of the other one.
    pub(super) fn new(outgoing: bool, shared: &[u8; KEY_LEN], info_hash: InfoHash) -> Box<Self> {
        let cipher = |label| Rc4::new(&hash(label, &[shared, &info_hash.0]));
        let (one, other) = (cipher(b"keyA"), cipher(b"keyB"));
        let (encrypt, decrypt) = if outgoing { (one, other) } else { (other, one) };
        Box::new(Self { encrypt, decrypt, info_hash })
    }

    /// Appends `bytes` to `output`, encrypted.
    pub(super) fn encrypt_to(&mut self, bytes: &[u8], output: &mut Vec<u8>) {
        let start = output.len();
        output.extend_from_slice(bytes);
        self.encrypt.apply(&mut output[start..]);
    }

    /// The field in plaintext.
    pub(super) fn decrypted<const N: usize>(&mut self, mut field: [u8; N]) -> [u8; N] {
        self.decrypt.apply(&mut field);
        field
    }

    pub(super) fn establish(self, method: CryptoMethod, initial_payload: Vec<u8>) -> Box<Established> {
        let (encrypt, decrypt) = match method {
            CryptoMethod::Plaintext => (None, None),
            CryptoMethod::Rc4 => (Some(self.encrypt), Some(self.decrypt)),
        };
        Box::new(Established { method, info_hash: self.info_hash, encrypt, decrypt, initial_payload })
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Session({})", self.info_hash)
    }
}

/// The lengths of a side's two pads, and what fills the first. The second has zeros, as MSE asks for.
#[derive(Debug)]
pub(super) struct Pads {
    pub(super) first_len: usize,
    pub(super) second_len: usize,
    pub(super) rng: Rng,
}

impl Pads {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        let [first_len, second_len] = [(); 2].map(|()| rng.index(MSE_PAD_LEN_MAX + 1));
        Self { first_len, second_len, rng: Rng::from_seed(rng.next_u64()) }
    }

    pub(super) fn append_first(&mut self, output: &mut Vec<u8>) {
        let start = output.len();
        output.resize(start + self.first_len, 0);
        self.rng.fill(&mut output[start..]);
    }

    /// Appends the second pad with its length before it.
    pub(super) fn append_second(&self, output: &mut Vec<u8>) {
        let len = u16::try_from(self.second_len).expect("a pad has 512 bytes at most");
        output.extend_from_slice(&len.to_be_bytes());
        output.resize(output.len() + self.second_len, 0);
    }
}

/// `HASH('req1', S)`: what ends the first pad of the side that dialled.
pub(super) fn request_mark(shared: &[u8; KEY_LEN]) -> [u8; 20] {
    hash(b"req1", &[shared])
}

/// Lays `HASH('req3', S)` over a torrent's name, or takes it away.
pub(super) fn masked(mut name: [u8; 20], shared: &[u8; KEY_LEN]) -> [u8; 20] {
    for (byte, mask) in name.iter_mut().zip(hash(b"req3", &[shared])) {
        *byte ^= mask;
    }
    name
}
