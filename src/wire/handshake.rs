//! The 68 bytes that open every connection (BEP 3), and the reserved bits in them (BEP 5, 6, 10).
//!
//! A wrong protocol string is refused as soon as the first wrong byte is there, not after 68 of them.
//! Deliberately absent: encrypted handshakes, which look like random bytes and are refused here; `mse` has them.

use super::WireError;
use crate::id::{InfoHash, PeerId};

/// Bytes of a handshake.
pub const HANDSHAKE_LEN: usize = 68;

/// The string's length and the string itself.
const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";

/// A handshake, ours or theirs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What the sender can do.
    pub reserved: Reserved,
    /// The torrent.
    pub info_hash: InfoHash,
    /// The sender's name for itself.
    pub peer_id: PeerId,
}

impl Handshake {
    /// The bytes to send.
    pub fn encode(&self) -> [u8; HANDSHAKE_LEN] {
        let mut bytes = [0; HANDSHAKE_LEN];
        bytes[..20].copy_from_slice(PROTOCOL);
        bytes[20..28].copy_from_slice(&self.reserved.0);
        bytes[28..48].copy_from_slice(&self.info_hash.0);
        bytes[48..].copy_from_slice(&self.peer_id.0);
        bytes
    }

    /// Reads a whole handshake. Any reserved bits, info-hash and peer id are accepted.
    pub fn decode(bytes: &[u8; HANDSHAKE_LEN]) -> Result<Self, WireError> {
        check_prefix(bytes)?;
        let (mut reserved, mut info_hash, mut peer_id) = ([0; 8], [0; 20], [0; 20]);
        reserved.copy_from_slice(&bytes[20..28]);
        info_hash.copy_from_slice(&bytes[28..48]);
        peer_id.copy_from_slice(&bytes[48..]);
        Ok(Self { reserved: Reserved(reserved), info_hash: InfoHash(info_hash), peer_id: PeerId(peer_id) })
    }
}

/// Refuses the beginning of a handshake, of any length, when it cannot become a right one. An empty
/// beginning is fine.
pub fn check_prefix(bytes: &[u8]) -> Result<(), WireError> {
    match bytes.iter().zip(PROTOCOL).position(|(found, expected)| found != expected) {
        None => Ok(()),
        Some(at) => Err(WireError::WrongProtocol { at, found: bytes[at], expected: PROTOCOL[at] }),
    }
}

/// The eight bytes in which each side says what it can do beyond BEP 3. Unknown bits are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// No extension at all, as the oldest clients say.
    pub const NONE: Self = Self([0; 8]);
    /// What Seedring speaks: the fast extension and the extension protocol.
    pub const OURS: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0x04]);

    /// Have all, have none, suggest, reject and allowed fast (BEP 6).
    pub const fn fast(self) -> bool {
        self.0[7] & 0x04 != 0
    }

    /// Extended messages and their handshake (BEP 10).
    pub const fn extended(self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// The sender runs a DHT node and may tell its port (BEP 5).
    pub const fn dht(self) -> bool {
        self.0[7] & 0x01 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn example() -> Handshake {
        Handshake { reserved: Reserved::OURS, info_hash: InfoHash([7; 20]), peer_id: PeerId([b'x'; 20]) }
    }

    #[test]
    fn the_bits_stand_where_the_beps_have_them() {
        assert!(Reserved::OURS.fast() && Reserved::OURS.extended() && !Reserved::OURS.dht());
        assert!(!Reserved::NONE.fast() && !Reserved::NONE.extended() && !Reserved::NONE.dht());
        assert!(Reserved([0, 0, 0, 0, 0, 0, 0, 1]).dht());
        let bytes = example().encode();
        assert_eq!((bytes[0], &bytes[1..20]), (19, b"BitTorrent protocol".as_slice()));
        assert_eq!((bytes[25], bytes[27]), (0x10, 0x04));
    }

    #[test]
    fn every_right_beginning_is_accepted_and_the_first_wrong_byte_refused() {
        let bytes = example().encode();
        for len in 0..=HANDSHAKE_LEN {
            assert_eq!(check_prefix(&bytes[..len]), Ok(()));
        }
        assert_eq!(
            check_prefix(b"GET / HTTP/1.1"),
            Err(WireError::WrongProtocol { at: 0, found: b'G', expected: 19 })
        );
        let mut wrong = bytes;
        wrong[19] = b'L';
        let error = WireError::WrongProtocol { at: 19, found: b'L', expected: b'l' };
        assert_eq!(Handshake::decode(&wrong), Err(error));
        assert_eq!(check_prefix(&wrong[..19]), Ok(()));
    }

    proptest! {
        #[test]
        fn handshakes_round_trip(reserved: [u8; 8], info_hash: [u8; 20], peer_id: [u8; 20]) {
            let handshake = Handshake {
                reserved: Reserved(reserved),
                info_hash: InfoHash(info_hash),
                peer_id: PeerId(peer_id),
            };
            prop_assert_eq!(Handshake::decode(&handshake.encode()), Ok(handshake));
        }
    }
}
