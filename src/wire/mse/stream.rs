//! What stands between a socket's bytes and the peer wire of one connection: nothing yet decided, an encrypted
//! handshake, RC4, or nothing at all.
//!
//! Received bytes are decrypted where they lie. The owner drops a stream that is [`transparent`](MseStream::transparent):
//! from then on there is nothing between socket and wire, and nothing is paid for it.

use super::cipher::Rc4;
use super::dh::KEY_LEN;
use super::error::MseError;
use super::handshake::{MseHandshake, Progress, looks_encrypted};
use super::policy::{CryptoMethods, Encryption};
use super::skey::SkeyLookup;
use crate::id::InfoHash;
use crate::rng::Rng;
use crate::wire::HANDSHAKE_LEN;
use std::mem;

/// The bytes that stand between a socket and the peer wire.
#[derive(Debug)]
pub struct MseStream {
    state: State,
    /// Of the handshake, still to be sent.
    output: Vec<u8>,
}

#[derive(Debug)]
enum State {
    /// A peer has come; its first bytes, fewer than twenty, are those of a plaintext handshake.
    Undecided {
        policy: Encryption,
        first: Vec<u8>,
    },
    Handshake(Box<MseHandshake>),
    /// The peer wire, in RC4 or as it is.
    Open(Option<Box<Ciphers>>),
}

#[derive(Debug)]
struct Ciphers {
    encrypt: Rc4,
    decrypt: Rc4,
}

/// What the side that was dialled needs once a peer turns out to come encrypted.
pub struct Answering<'a> {
    /// Secrets from the kernel's generator.
    pub secret: fn() -> [u8; 20],
    /// Lengths and bytes of pads.
    pub pads: &'a mut Rng,
    /// The torrents a peer may ask for.
    pub skeys: &'a dyn SkeyLookup,
}

/// What some received bytes come to, as the peer wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Goes before the rest.
    pub first: Vec<u8>,
    /// Where the rest begins in the received bytes; what stands before was the handshake's.
    pub start: usize,
}

impl MseStream {
    /// For a peer that has come. With [`Encryption::Off`] there is no stream: the peer wire refuses what is not its own.
    pub fn incoming(policy: Encryption) -> Self {
        Self { state: State::Undecided { policy, first: Vec::new() }, output: Vec::new() }
    }

    /// For a peer that we dial, with our own handshake as initial payload.
    pub fn outgoing(
        secret: [u8; 20],
        pads: &mut Rng,
        info_hash: InfoHash,
        offered: CryptoMethods,
        handshake: &[u8; HANDSHAKE_LEN],
    ) -> Self {
        let mut handshake = MseHandshake::outgoing(secret, pads, info_hash, offered, Some(handshake));
        let mut output = Vec::new();
        handshake.poll_output(&mut output);
        Self { state: State::Handshake(Box::new(handshake)), output }
    }

    /// Whether these bytes bring a peer's public key to its end, so that to [`receive`](Self::receive) them takes two powers
    /// of 768 bits. Keys that answer our own are not counted: we have asked for them.
    pub fn answers_key(&self, bytes: &[u8]) -> bool {
        match &self.state {
            State::Undecided { first, .. } => {
                let mut beginning = first.clone();
                beginning.extend(bytes.iter().take(20));
                first.len() + bytes.len() >= KEY_LEN && looks_encrypted(&beginning) == Some(true)
            }
            State::Handshake(handshake) => handshake.key_left().is_some_and(|left| left <= bytes.len()),
            State::Open(_) => false,
        }
    }

    /// Takes received bytes, and decrypts in place what of them is the peer wire.
    pub fn receive(&mut self, bytes: &mut [u8], answering: &mut Answering<'_>) -> Result<Received, MseError> {
        if let State::Undecided { policy, first } = &mut self.state {
            let mut beginning = first.clone();
            beginning.extend(bytes.iter().take(20));
            match looks_encrypted(&beginning) {
                None => {
                    *first = beginning;
                    return Ok(Received { first: Vec::new(), start: bytes.len() });
                }
                Some(false) if !policy.accepts_plaintext() => return Err(MseError::PlaintextRefused),
                Some(false) => {
                    let first = mem::take(first);
                    self.state = State::Open(None);
                    return Ok(Received { first, start: 0 });
                }
                Some(true) => {
                    let choice = policy.accepts().ok_or(MseError::EncryptionRefused)?;
                    let mut handshake = MseHandshake::incoming((answering.secret)(), answering.pads, choice);
                    // Fewer than twenty bytes, so they are of the public key.
                    handshake.handle_bytes(&mut first.as_slice(), answering.skeys)?;
                    self.state = State::Handshake(Box::new(handshake));
                }
            }
        }
        let mut received = Received::default();
        if let State::Handshake(handshake) = &mut self.state {
            let mut rest: &[u8] = bytes;
            let progress = handshake.handle_bytes(&mut rest, answering.skeys)?;
            received.start = bytes.len() - rest.len();
            handshake.poll_output(&mut self.output);
            if let Progress::Established(established) = progress {
                let established = *established;
                received.first = established.initial_payload;
                let ciphers = established.encrypt.zip(established.decrypt);
                let ciphers = ciphers.map(|(encrypt, decrypt)| Box::new(Ciphers { encrypt, decrypt }));
                self.state = State::Open(ciphers);
            }
        }
        if let State::Open(Some(ciphers)) = &mut self.state {
            ciphers.decrypt.apply(&mut bytes[received.start..]);
        }
        Ok(received)
    }

    /// Appends what the handshake has to say; it goes as it is, before anything else.
    pub fn poll_output(&mut self, output: &mut Vec<u8>) {
        output.append(&mut self.output);
    }

    /// The handshake has something to say.
    pub fn has_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// The peer wire may be sent: there is no handshake any more.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    /// What is sent has to be encrypted.
    pub fn encrypts(&self) -> bool {
        matches!(self.state, State::Open(Some(_)))
    }

    /// Encrypts the next bytes to be sent, when that was agreed on.
    pub fn encrypt(&mut self, bytes: &mut [u8]) {
        if let State::Open(Some(ciphers)) = &mut self.state {
            ciphers.encrypt.apply(bytes);
        }
    }

    /// Bytes pass as they are from here on, both ways, and nothing waits to be sent.
    pub fn transparent(&self) -> bool {
        matches!(self.state, State::Open(None)) && self.output.is_empty()
    }
}

impl std::fmt::Debug for Answering<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answering")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::rng::Rng;
    use crate::wire::{Handshake, Reserved, SkeyHash};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    const TORRENT: InfoHash = InfoHash([9; 20]);

    fn our_handshake() -> [u8; HANDSHAKE_LEN] {
        Handshake { reserved: Reserved::OURS, info_hash: TORRENT, peer_id: PeerId([b'p'; 20]) }.encode()
    }

    /// What `stream` makes of `bytes`, as one stream of the peer wire.
    fn receive(stream: &mut MseStream, bytes: &[u8]) -> Result<Vec<u8>, MseError> {
        let skeys = BTreeMap::from([(SkeyHash::of(&TORRENT), TORRENT)]);
        let mut bytes = bytes.to_vec();
        let mut rng = Rng::from_seed(2);
        let mut answering = Answering { secret: || [4; 20], pads: &mut rng, skeys: &skeys };
        let mut received = stream.receive(&mut bytes, &mut answering)?;
        received.first.extend_from_slice(&bytes[received.start..]);
        Ok(received.first)
    }

    fn said(stream: &mut MseStream, wire: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        stream.poll_output(&mut output);
        if stream.is_open() {
            let start = output.len();
            output.extend_from_slice(wire);
            stream.encrypt(&mut output[start..]);
        }
        output
    }

    fn dialling(offered: CryptoMethods) -> MseStream {
        MseStream::outgoing([3; 20], &mut Rng::from_seed(1), TORRENT, offered, &our_handshake())
    }

    proptest! {
        #[test]
        fn a_plaintext_peer_is_heard_however_its_bytes_come(cuts in prop::collection::vec(1..70usize, 1..20)) {
            for policy in [Encryption::Allow, Encryption::Prefer, Encryption::Require] {
                let mut wire = our_handshake().to_vec();
                wire.extend_from_slice(b"and more");
                let (mut stream, mut heard, mut rest) = (MseStream::incoming(policy), Vec::new(), wire.as_slice());
                let mut refused = None;
                for cut in cuts.iter().chain([&wire.len()]) {
                    let (part, behind) = rest.split_at(rest.len().min(*cut));
                    match receive(&mut stream, part) {
                        Ok(mut bytes) => heard.append(&mut bytes),
                        Err(error) => { refused = Some(error); break }
                    }
                    rest = behind;
                }
                if policy == Encryption::Require {
                    prop_assert_eq!((refused, heard.len()), (Some(MseError::PlaintextRefused), 0));
                } else {
                    prop_assert_eq!(&heard, &wire);
                    prop_assert!(stream.transparent() && !stream.encrypts());
                }
            }
        }

        #[test]
        fn an_encrypted_peer_is_heard_however_its_bytes_come(
            cuts in prop::collection::vec(1..400usize, 0..12),
            offered in 1..=3u32,
            prefers: bool,
        ) {
            let policy = if prefers { Encryption::Prefer } else { Encryption::Allow };
            let (mut dials, mut listens) = (dialling(CryptoMethods(offered)), MseStream::incoming(policy));
            let (mut there, mut back) = (said(&mut dials, b""), Vec::new());
            let (mut heard_there, mut heard_back) = (Vec::new(), Vec::new());
            let mut spoken = [false; 2];
            let mut cuts = cuts.into_iter().chain(std::iter::repeat(1000));
            while !(there.is_empty() && back.is_empty()) {
                let mut part = |bytes: &mut Vec<u8>| {
                    let len = cuts.next().expect("the cuts have no end").min(bytes.len());
                    bytes.drain(..len).collect::<Vec<u8>>()
                };
                heard_there.append(&mut receive(&mut listens, &part(&mut there)).expect("an honest peer"));
                let wire: &[u8] = if listens.is_open() && !spoken[0] { b"back" } else { b"" };
                spoken[0] |= !wire.is_empty();
                back.append(&mut said(&mut listens, wire));
                heard_back.append(&mut receive(&mut dials, &part(&mut back)).expect("an honest peer"));
                let wire: &[u8] = if dials.is_open() && !spoken[1] { b"there" } else { b"" };
                spoken[1] |= !wire.is_empty();
                there.append(&mut said(&mut dials, wire));
            }
            prop_assert_eq!(heard_there, [&our_handshake()[..], b"there"].concat());
            prop_assert_eq!(heard_back, b"back");
            let encrypts = offered == 2 || (offered == 3 && prefers);
            prop_assert_eq!((dials.encrypts(), listens.encrypts()), (encrypts, encrypts));
            prop_assert_eq!((dials.transparent(), listens.transparent()), (!encrypts, !encrypts));
        }
    }

    #[test]
    fn the_bytes_that_end_a_public_key_are_told_from_all_others() {
        for cut in [1, 19, 20, 50, 95] {
            let key = [0x55; KEY_LEN];
            let mut stream = MseStream::incoming(Encryption::Allow);
            assert!(stream.answers_key(&key) && !stream.answers_key(&key[..95]));
            receive(&mut stream, &key[..cut]).unwrap();
            assert!(!stream.answers_key(&key[cut..95]) && stream.answers_key(&key[cut..]));
            receive(&mut stream, &key[cut..]).unwrap();
            assert!(!stream.answers_key(&key));
        }
        let mut plain = MseStream::incoming(Encryption::Allow);
        let long = [&our_handshake()[..], &[0; 200]].concat();
        assert!(!plain.answers_key(&long));
        receive(&mut plain, &long).unwrap();
        assert!(!plain.answers_key(&long));
        // The answer to a key of ours.
        assert!(!dialling(CryptoMethods(3)).answers_key(&[0x55; 200]));
    }

    #[test]
    fn a_public_key_that_begins_like_a_plaintext_handshake_is_none() {
        for same in 0..20 {
            let mut key = [0x55; 96];
            key[..20].copy_from_slice(&our_handshake()[..20]);
            key[same] ^= 1;
            let mut stream = MseStream::incoming(Encryption::Allow);
            for byte in key {
                assert!(!stream.has_output());
                assert_eq!(receive(&mut stream, &[byte]), Ok(Vec::new()));
            }
            assert!(stream.has_output() && !stream.is_open(), "it is answered as a public key");
        }
    }
}
