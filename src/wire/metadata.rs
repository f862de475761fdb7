//! The messages of `ut_metadata` (BEP 9): an info dictionary in pieces of 16 KiB, asked for, given or denied.
//!
//! A message is a bencoded dictionary; behind that of a data message stand the piece's own bytes. Nothing here
//! knows a torrent: whether a piece exists, and whether its bytes are right, others decide. A message of an
//! unknown type, or one that makes no sense, is none, since BEP 9 wants the former ignored and the latter does
//! no harm either.

use crate::bencode::{self, Value};
use crate::limits::METADATA_LEN_MAX;

/// Bytes of each piece of an info dictionary but the last. These pieces have nothing to do with the torrent's.
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// One message of `ut_metadata`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetadataMessage<'a> {
    /// The sender wants this piece.
    Request {
        /// The piece's number, from zero; any number at all.
        piece: u32,
    },
    /// A piece.
    Data {
        /// The piece's number, from zero; any number at all.
        piece: u32,
        /// Bytes of the whole info dictionary, 1 to [`METADATA_LEN_MAX`]; `None` where the sender leaves it out.
        total_len: Option<u32>,
        /// The piece's bytes, at most [`METADATA_PIECE_LEN`].
        bytes: &'a [u8],
    },
    /// The sender does not have this piece, or does not give it.
    Reject {
        /// The piece's number, from zero; any number at all.
        piece: u32,
    },
}

impl<'a> MetadataMessage<'a> {
    /// Reads an extended message's payload. `None` when it is none of the three, or one that cannot be meant.
    pub fn decode(payload: &'a [u8]) -> Option<Self> {
        let (document, rest) = bencode::parse_prefix(payload).ok()?;
        let root = document.root();
        let number = |key: &str| root.lookup(key.as_bytes()).map(Value::as_uint);
        let piece = u32::try_from(number("piece")??).ok()?;
        match number("msg_type")?? {
            0 => Some(Self::Request { piece }),
            1 => {
                let total_len = match number("total_size") {
                    None => None,
                    Some(told) => {
                        Some(u32::try_from(told?).ok().filter(|len| (1..=METADATA_LEN_MAX).contains(len))?)
                    }
                };
                (rest.len() <= METADATA_PIECE_LEN as usize).then_some(Self::Data {
                    piece,
                    total_len,
                    bytes: rest,
                })
            }
            2 => Some(Self::Reject { piece }),
            _ => None,
        }
    }

    /// The payload to send.
    pub fn encode(&self) -> Vec<u8> {
        let dict = |kind: i64, piece: u32, total_len: Option<u32>| {
            bencode::dict(|out| {
                out.int("msg_type", kind);
                out.int("piece", i64::from(piece));
                if let Some(len) = total_len {
                    out.int("total_size", i64::from(len));
                }
            })
        };
        match *self {
            Self::Request { piece } => dict(0, piece, None),
            Self::Data { piece, total_len, bytes } => {
                let mut out = dict(1, piece, total_len);
                out.extend_from_slice(bytes);
                out
            }
            Self::Reject { piece } => dict(2, piece, None),
        }
    }
}

/// Pieces of an info dictionary of `len` bytes.
pub const fn metadata_piece_count(len: u32) -> u32 {
    len.div_ceil(METADATA_PIECE_LEN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::EXTENDED_LEN_MAX;
    use proptest::prelude::*;

    #[test]
    fn messages_have_the_bytes_of_the_bep() {
        for (bytes, message) in [
            (b"d8:msg_typei0e5:piecei0ee".as_slice(), MetadataMessage::Request { piece: 0 }),
            (
                b"d8:msg_typei1e5:piecei0e10:total_sizei34256eexxx",
                MetadataMessage::Data { piece: 0, total_len: Some(34_256), bytes: b"xxx" },
            ),
            (b"d8:msg_typei2e5:piecei7ee", MetadataMessage::Reject { piece: 7 }),
        ] {
            assert_eq!(message.encode(), bytes);
            assert_eq!(MetadataMessage::decode(bytes), Some(message));
        }
        let without_size = MetadataMessage::Data { piece: 1, total_len: None, bytes: b"de" };
        assert_eq!(MetadataMessage::decode(b"d8:msg_typei1e5:piecei1eede"), Some(without_size));
    }

    #[test]
    fn what_cannot_be_meant_is_no_message() {
        let long = [b"d8:msg_typei1e5:piecei0ee".as_slice(), &[0; METADATA_PIECE_LEN as usize + 1]].concat();
        for payload in [
            b"".as_slice(),
            b"i0e",
            b"de",
            b"d8:msg_typei0ee",
            b"d5:piecei0ee",
            b"d8:msg_typei3e5:piecei0ee",
            b"d8:msg_typei-1e5:piecei0ee",
            b"d8:msg_typei0e5:piecei-1ee",
            b"d8:msg_typei0e5:piecei4294967296ee",
            b"d8:msg_type1:05:piecei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei0ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei-1ee",
            b"d8:msg_typei1e5:piecei0e10:total_sizei2147483648ee",
            b"d8:msg_typei1e5:piecei0e10:total_size1:1e",
            &long,
        ] {
            assert_eq!(
                MetadataMessage::decode(payload),
                None,
                "{}",
                payload[..payload.len().min(60)].escape_ascii()
            );
        }
    }

    #[test]
    fn the_longest_message_is_one_that_the_decoder_delivers() {
        let bytes = [b'x'; METADATA_PIECE_LEN as usize];
        let longest =
            MetadataMessage::Data { piece: u32::MAX, total_len: Some(METADATA_LEN_MAX), bytes: &bytes };
        assert!(longest.encode().len() <= EXTENDED_LEN_MAX);
    }

    proptest! {
        #[test]
        fn messages_round_trip(
            kind in 0..3,
            piece: u32,
            total_len in prop::option::of(1..=METADATA_LEN_MAX),
            bytes in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let message = match kind {
                0 => MetadataMessage::Request { piece },
                1 => MetadataMessage::Data { piece, total_len, bytes: &bytes },
                _ => MetadataMessage::Reject { piece },
            };
            let payload = message.encode();
            prop_assert_eq!(MetadataMessage::decode(&payload), Some(message));
        }

        #[test]
        fn any_bytes_are_survived(payload in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = MetadataMessage::decode(&payload);
        }
    }
}
