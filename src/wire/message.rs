//! The messages after the handshake, as values and as bytes to send (BEP 3, 5, 6, 10).
//!
//! Reading them is the decoder's work. Encoding appends to a buffer that the caller keeps, so the steady
//! path allocates nothing.

use crate::units::{BlockSpan, PieceIndex};

/// Bytes in front of a piece message's payload: length prefix, type, piece, begin.
pub const PIECE_HEADER_LEN: usize = 13;
/// Bytes of a request, with its length prefix.
pub const REQUEST_MESSAGE_LEN: usize = 17;

/// Message types, as BEP 3, 5, 6 and 10 number them.
pub(super) mod id {
    pub const CHOKE: u8 = 0;
    pub const UNCHOKE: u8 = 1;
    pub const INTERESTED: u8 = 2;
    pub const NOT_INTERESTED: u8 = 3;
    pub const HAVE: u8 = 4;
    pub const BITFIELD: u8 = 5;
    pub const REQUEST: u8 = 6;
    pub const PIECE: u8 = 7;
    pub const CANCEL: u8 = 8;
    pub const PORT: u8 = 9;
    pub const SUGGEST: u8 = 13;
    pub const HAVE_ALL: u8 = 14;
    pub const HAVE_NONE: u8 = 15;
    pub const REJECT: u8 = 16;
    pub const ALLOWED_FAST: u8 = 17;
    pub const EXTENDED: u8 = 20;
}

/// One message. Indices and spans are as the peer wrote them, not yet checked against any torrent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Nothing: the connection is alive.
    KeepAlive,
    /// Requests will not be served from now on.
    Choke,
    /// Requests will be served.
    Unchoke,
    /// The sender wants pieces that the receiver has.
    Interested,
    /// The sender wants nothing.
    NotInterested,
    /// The sender has one more piece.
    Have(PieceIndex),
    /// The pieces the sender has, first piece in the first byte's highest bit.
    Bitfield(&'a [u8]),
    /// A block, please.
    Request(BlockSpan),
    /// A block. Only its header: the payload's `len` bytes follow on the connection.
    Piece(BlockSpan),
    /// The block is not wanted any more.
    Cancel(BlockSpan),
    /// The sender's DHT node listens on this UDP port (BEP 5).
    Port(u16),
    /// The receiver would do well to ask for this piece (BEP 6).
    Suggest(PieceIndex),
    /// The sender has every piece (BEP 6).
    HaveAll,
    /// The sender has no piece (BEP 6).
    HaveNone,
    /// The request will not be served (BEP 6).
    Reject(BlockSpan),
    /// Requests of this piece are served even while choked (BEP 6).
    AllowedFast(PieceIndex),
    /// A message of an extension (BEP 10).
    Extended {
        /// 0 for the extension handshake, else as the receiver of the message numbered it there.
        id: u8,
        /// The message's own bytes.
        payload: &'a [u8],
    },
    /// A message of an unknown type, or an extended one beyond the bound. The decoder skips its body.
    Unknown {
        /// The type.
        id: u8,
        /// Bytes after the type.
        len: u32,
    },
}

/// Appends a message. Of [`Message::Piece`] and [`Message::Unknown`] only the header: their body is the
/// caller's to send.
///
/// # Panics
/// When a bitfield or extended payload has more than 4 GiB, which no caller can hold in bounds.
pub fn encode(message: &Message<'_>, out: &mut Vec<u8>) {
    match *message {
        Message::KeepAlive => out.extend_from_slice(&[0; 4]),
        Message::Choke => bare(id::CHOKE, out),
        Message::Unchoke => bare(id::UNCHOKE, out),
        Message::Interested => bare(id::INTERESTED, out),
        Message::NotInterested => bare(id::NOT_INTERESTED, out),
        Message::HaveAll => bare(id::HAVE_ALL, out),
        Message::HaveNone => bare(id::HAVE_NONE, out),
        Message::Have(piece) => indexed(id::HAVE, piece, out),
        Message::Suggest(piece) => indexed(id::SUGGEST, piece, out),
        Message::AllowedFast(piece) => indexed(id::ALLOWED_FAST, piece, out),
        Message::Request(span) => spanned(id::REQUEST, span, out),
        Message::Cancel(span) => spanned(id::CANCEL, span, out),
        Message::Reject(span) => spanned(id::REJECT, span, out),
        Message::Piece(span) => out.extend_from_slice(&piece_header(span)),
        Message::Port(port) => {
            header(3, id::PORT, out);
            out.extend_from_slice(&port.to_be_bytes());
        }
        Message::Bitfield(bytes) => {
            header(1 + wire_len(bytes), id::BITFIELD, out);
            out.extend_from_slice(bytes);
        }
        Message::Extended { id: extension, payload } => {
            header(2 + wire_len(payload), id::EXTENDED, out);
            out.push(extension);
            out.extend_from_slice(payload);
        }
        Message::Unknown { id, len } => header(len.saturating_add(1), id, out),
    }
}

/// The 13 bytes in front of a block.
pub fn piece_header(span: BlockSpan) -> [u8; PIECE_HEADER_LEN] {
    let mut bytes = [0; PIECE_HEADER_LEN];
    bytes[..4].copy_from_slice(&span.len.saturating_add(9).to_be_bytes());
    bytes[4] = id::PIECE;
    bytes[5..9].copy_from_slice(&span.piece.0.to_be_bytes());
    bytes[9..].copy_from_slice(&span.begin.to_be_bytes());
    bytes
}

fn wire_len(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).expect("our own messages have some KiB")
}

fn header(len: u32, id: u8, out: &mut Vec<u8>) {
    let [a, b, c, d] = len.to_be_bytes();
    out.extend_from_slice(&[a, b, c, d, id]);
}

fn bare(id: u8, out: &mut Vec<u8>) {
    header(1, id, out);
}

/// One append for the whole message: of haves a swarm has more than of all others together.
fn indexed(id: u8, piece: PieceIndex, out: &mut Vec<u8>) {
    let [a, b, c, d] = piece.0.to_be_bytes();
    out.extend_from_slice(&[0, 0, 0, 5, id, a, b, c, d]);
}

/// One append for the whole message: requests are what a busy downloader mostly writes.
fn spanned(id: u8, span: BlockSpan, out: &mut Vec<u8>) {
    let mut bytes = [0; REQUEST_MESSAGE_LEN];
    bytes[..4].copy_from_slice(&13u32.to_be_bytes());
    bytes[4] = id;
    bytes[5..9].copy_from_slice(&span.piece.0.to_be_bytes());
    bytes[9..13].copy_from_slice(&span.begin.to_be_bytes());
    bytes[13..].copy_from_slice(&span.len.to_be_bytes());
    out.extend_from_slice(&bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_the_bytes_of_the_beps() {
        let span = BlockSpan { piece: PieceIndex(0x0102), begin: 0x4000, len: 0x4000 };
        let encoded = |message| {
            let mut out = Vec::new();
            encode(&message, &mut out);
            out
        };
        assert_eq!(encoded(Message::KeepAlive), [0, 0, 0, 0]);
        assert_eq!(encoded(Message::Unchoke), [0, 0, 0, 1, 1]);
        assert_eq!(encoded(Message::Have(PieceIndex(5))), [0, 0, 0, 5, 4, 0, 0, 0, 5]);
        assert_eq!(
            encoded(Message::Request(span)),
            [0, 0, 0, 13, 6, 0, 0, 1, 2, 0, 0, 0x40, 0, 0, 0, 0x40, 0]
        );
        assert_eq!(encoded(Message::Piece(span)), [0, 0, 0x40, 9, 7, 0, 0, 1, 2, 0, 0, 0x40, 0]);
        assert_eq!(encoded(Message::Port(0x1AE1)), [0, 0, 0, 3, 9, 0x1A, 0xE1]);
        assert_eq!(encoded(Message::Bitfield(&[0x80])), [0, 0, 0, 2, 5, 0x80]);
        assert_eq!(encoded(Message::Extended { id: 0, payload: b"de" }), *b"\0\0\0\x04\x14\0de");
    }
}
