//! Cuts a peer's byte stream into messages, with every length checked before a byte is kept (BEP 3, 6, 10).
//!
//! A message that lies whole in the input is borrowed from it: the hot path, requests of 17 bytes, copies
//! and allocates nothing. A message cut by the input's end is gathered: up to 17 bytes inside the decoder
//! itself, a longer body (bitfield, extended) in a buffer that grows with what has really arrived and is
//! given back with the next call, so that an idle connection holds none.
//!
//! After [`Message::Piece`] the decoder stops: the payload's bytes are the shell's, who takes them out of
//! the input ([`Decoder::take_payload`]) or receives them elsewhere ([`Decoder::advance_payload`]).
//! Skipped messages (unknown types, extended ones beyond the bound) are told once and pass unbuffered.

use super::WireError;
use super::message::{Message, REQUEST_MESSAGE_LEN, id};
use crate::limits::{EXTENDED_LEN_MAX, PIECES_MAX, REQUEST_LEN_MAX, UNKNOWN_MESSAGE_LEN_MAX};
use crate::units::{BlockSpan, PieceIndex};

/// How long a bitfield may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BitfieldLen {
    /// Exactly so many bytes: the torrent is known.
    Exactly(usize),
    /// At most so many bytes: the torrent's metadata is still to come.
    AtMost(usize),
}

/// Lengths that depend on the torrent and on the program's bounds, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecoderLimits {
    /// Bytes of a bitfield.
    pub bitfield_len: BitfieldLen,
    /// Bytes of an extended message's payload that is delivered; a longer one is skipped.
    pub extended_len_max: usize,
    /// Bytes of a message that is skipped; a longer one is an error.
    pub unknown_len_max: usize,
}

impl DecoderLimits {
    /// The program's bounds, for a torrent of `pieces` pieces.
    pub const fn for_pieces(pieces: u32) -> Self {
        Self { bitfield_len: BitfieldLen::Exactly(pieces.div_ceil(8) as usize), ..Self::without_metadata() }
    }

    /// The program's bounds while nobody knows how many pieces the torrent has.
    pub const fn without_metadata() -> Self {
        Self {
            bitfield_len: BitfieldLen::AtMost(PIECES_MAX.div_ceil(8) as usize),
            extended_len_max: EXTENDED_LEN_MAX,
            unknown_len_max: UNKNOWN_MESSAGE_LEN_MAX,
        }
    }
}

/// The state between two inputs of one connection.
///
/// Contract: feed each input until [`Decoder::decode`] returns `None`; when [`Decoder::payload_remaining`]
/// is not zero then, move the payload on before the next call. After an error the stream has no further
/// meaning, and the connection ends.
#[derive(Debug)]
pub struct Decoder {
    limits: DecoderLimits,
    /// The first bytes of a message that the last input cut.
    head: [u8; REQUEST_MESSAGE_LEN],
    head_len: u8,
    gathering: Option<Gathering>,
    body: Vec<u8>,
    /// Bytes of a skipped message still to come.
    skip: u32,
    /// Payload of the current piece message still to come.
    payload: u32,
}

/// A body that did not lie whole in one input.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    body: Body,
    len: usize,
}

#[derive(Clone, Copy, Debug)]
enum Body {
    Bitfield,
    Extended(u8),
}

impl Body {
    fn message(self, bytes: &[u8]) -> Message<'_> {
        match self {
            Self::Bitfield => Message::Bitfield(bytes),
            Self::Extended(id) => Message::Extended { id, payload: bytes },
        }
    }
}

/// What a message's first bytes say.
enum Frame {
    /// The message is complete with its head.
    Whole(Message<'static>),
    /// A body follows.
    Body(Body, usize),
    /// A body follows that nobody wants.
    Skip { id: u8, len: u32 },
}

impl Decoder {
    /// A decoder at the first byte after the handshake.
    pub const fn new(limits: DecoderLimits) -> Self {
        Self {
            limits,
            head: [0; REQUEST_MESSAGE_LEN],
            head_len: 0,
            gathering: None,
            body: Vec::new(),
            skip: 0,
            payload: 0,
        }
    }

    /// Sets new limits, for when the torrent's metadata has arrived. Holds for messages that begin later.
    pub const fn set_limits(&mut self, limits: DecoderLimits) {
        self.limits = limits;
    }

    /// Takes the next message off the input's front. `None`: the input is used up and the message not
    /// complete, or a payload has to be moved on first.
    pub fn decode<'a, 'i: 'a>(&'a mut self, input: &mut &'i [u8]) -> Result<Option<Message<'a>>, WireError> {
        if self.payload > 0 {
            return Ok(None);
        }
        if self.skip > 0 {
            self.skip -= take(input, self.skip as usize).len() as u32;
            if self.skip > 0 {
                return Ok(None);
            }
        }
        if self.gathering.is_none() {
            if self.body.capacity() > 0 {
                self.body = Vec::new();
            }
            let Some(frame) = self.next_frame(input)? else { return Ok(None) };
            match frame {
                Frame::Whole(message) => {
                    if let Message::Piece(span) = message {
                        self.payload = span.len;
                    }
                    return Ok(Some(message));
                }
                Frame::Skip { id, len } => {
                    self.skip = len;
                    return Ok(Some(Message::Unknown { id, len }));
                }
                Frame::Body(body, len) if input.len() >= len => {
                    return Ok(Some(body.message(take(input, len))));
                }
                Frame::Body(body, len) => self.gathering = Some(Gathering { body, len }),
            }
        }
        Ok(self.gather(input))
    }

    /// Payload of the current piece message still to come, in bytes.
    pub const fn payload_remaining(&self) -> u32 {
        self.payload
    }

    /// Takes what the input has of the payload off its front; empty when none is due or none is there.
    pub fn take_payload<'i>(&mut self, input: &mut &'i [u8]) -> &'i [u8] {
        let part = take(input, self.payload as usize);
        self.payload -= part.len() as u32;
        part
    }

    /// Tells that `len` bytes of the payload were received elsewhere.
    ///
    /// # Panics
    /// When that is more than [`Decoder::payload_remaining`]: the caller has then lost its place.
    pub fn advance_payload(&mut self, len: u32) {
        assert!(len <= self.payload, "{len} bytes of payload received where {} were due", self.payload);
        self.payload -= len;
    }

    /// Bytes of memory that a message cut by the input's end holds.
    pub const fn buffered_bytes(&self) -> usize {
        self.body.capacity()
    }

    /// Whether the stream stands between two messages, holding nothing.
    pub const fn is_between_messages(&self) -> bool {
        self.head_len == 0 && self.gathering.is_none() && self.skip == 0 && self.payload == 0
    }

    fn next_frame(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, WireError> {
        if self.head_len == 0 {
            if let Some((frame, used)) = read_frame(input, &self.limits)? {
                take(input, used);
                return Ok(Some(frame));
            }
            if input.is_empty() {
                return Ok(None);
            }
        }
        // A head across two inputs is rare and has 17 bytes at most: one byte at a time is fine.
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            self.head[usize::from(self.head_len)] = byte;
            self.head_len += 1;
            if let Some((frame, _)) = read_frame(&self.head[..usize::from(self.head_len)], &self.limits)? {
                self.head_len = 0;
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    fn gather(&mut self, input: &mut &[u8]) -> Option<Message<'_>> {
        let Gathering { body, len } = self.gathering?;
        self.body.extend_from_slice(take(input, len - self.body.len()));
        if self.body.len() < len {
            return None;
        }
        self.gathering = None;
        Some(body.message(&self.body))
    }
}

/// Up to `len` bytes off the input's front.
fn take<'i>(input: &mut &'i [u8], len: usize) -> &'i [u8] {
    let (taken, rest) = input.split_at(len.min(input.len()));
    *input = rest;
    taken
}

/// Reads a head and how many bytes it has; `None` when more bytes are needed, never more than 17.
/// The length is judged as soon as the type is known.
fn read_frame(input: &[u8], limits: &DecoderLimits) -> Result<Option<(Frame, usize)>, WireError> {
    let Some(len) = word(input, 0) else { return Ok(None) };
    if len == 0 {
        return Ok(Some((Frame::Whole(Message::KeepAlive), 4)));
    }
    let Some(&kind) = input.get(4) else { return Ok(None) };
    let whole = |message: Option<Message<'static>>| message.map(|m| (Frame::Whole(m), 4 + len as usize));
    Ok(match kind {
        id::CHOKE => whole(bare(Message::Choke, "choke", len)?),
        id::UNCHOKE => whole(bare(Message::Unchoke, "unchoke", len)?),
        id::INTERESTED => whole(bare(Message::Interested, "interested", len)?),
        id::NOT_INTERESTED => whole(bare(Message::NotInterested, "not interested", len)?),
        id::HAVE_ALL => whole(bare(Message::HaveAll, "have all", len)?),
        id::HAVE_NONE => whole(bare(Message::HaveNone, "have none", len)?),
        id::HAVE => whole(indexed(input, "have", len)?.map(Message::Have)),
        id::SUGGEST => whole(indexed(input, "suggest", len)?.map(Message::Suggest)),
        id::ALLOWED_FAST => whole(indexed(input, "allowed fast", len)?.map(Message::AllowedFast)),
        id::REQUEST => whole(spanned(input, "request", len)?.map(Message::Request)),
        id::CANCEL => whole(spanned(input, "cancel", len)?.map(Message::Cancel)),
        id::REJECT => whole(spanned(input, "reject", len)?.map(Message::Reject)),
        id::PORT => {
            fixed("port", len, 3)?;
            whole(input.get(5..7).map(|port| Message::Port(u16::from_be_bytes([port[0], port[1]]))))
        }
        id::PIECE => piece(input, len)?.map(|span| (Frame::Whole(Message::Piece(span)), 13)),
        id::BITFIELD => Some((Frame::Body(Body::Bitfield, bitfield_len(len - 1, limits)?), 5)),
        id::EXTENDED => extended(input, len, limits)?,
        _ => Some((skip(kind, len, limits)?, 5)),
    })
}

fn fixed(name: &'static str, len: u32, expected: u32) -> Result<(), WireError> {
    if len == expected { Ok(()) } else { Err(WireError::FixedLength { name, len, expected }) }
}

fn bare(
    message: Message<'static>,
    name: &'static str,
    len: u32,
) -> Result<Option<Message<'static>>, WireError> {
    fixed(name, len, 1)?;
    Ok(Some(message))
}

fn indexed(input: &[u8], name: &'static str, len: u32) -> Result<Option<PieceIndex>, WireError> {
    fixed(name, len, 5)?;
    Ok(word(input, 5).map(PieceIndex))
}

fn spanned(input: &[u8], name: &'static str, len: u32) -> Result<Option<BlockSpan>, WireError> {
    fixed(name, len, 13)?;
    let (Some(piece), Some(begin), Some(len)) = (word(input, 5), word(input, 9), word(input, 13)) else {
        return Ok(None);
    };
    Ok(Some(BlockSpan { piece: PieceIndex(piece), begin, len }))
}

fn piece(input: &[u8], len: u32) -> Result<Option<BlockSpan>, WireError> {
    let max = 9 + REQUEST_LEN_MAX;
    if !(9..=max).contains(&len) {
        return Err(WireError::PieceLength { len, max });
    }
    let (Some(piece), Some(begin)) = (word(input, 5), word(input, 9)) else { return Ok(None) };
    Ok(Some(BlockSpan { piece: PieceIndex(piece), begin, len: len - 9 }))
}

fn bitfield_len(len: u32, limits: &DecoderLimits) -> Result<usize, WireError> {
    let (expected, right) = match limits.bitfield_len {
        BitfieldLen::Exactly(exact) => (exact, len as usize == exact),
        BitfieldLen::AtMost(max) => (max, len as usize <= max),
    };
    if right { Ok(len as usize) } else { Err(WireError::BitfieldLength { len, expected }) }
}

fn extended(input: &[u8], len: u32, limits: &DecoderLimits) -> Result<Option<(Frame, usize)>, WireError> {
    if len < 2 {
        return Err(WireError::ExtendedEmpty);
    }
    let payload_len = (len - 2) as usize;
    if payload_len > limits.extended_len_max {
        return Ok(Some((skip(id::EXTENDED, len, limits)?, 5)));
    }
    Ok(input.get(5).map(|&extension| (Frame::Body(Body::Extended(extension), payload_len), 6)))
}

fn skip(id: u8, len: u32, limits: &DecoderLimits) -> Result<Frame, WireError> {
    if len as usize > limits.unknown_len_max {
        return Err(WireError::TooLong { id, len, max: limits.unknown_len_max });
    }
    Ok(Frame::Skip { id, len: len - 1 })
}

fn word(input: &[u8], at: usize) -> Option<u32> {
    let bytes = input.get(at..at + 4)?;
    Some(u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
}

#[cfg(test)]
#[path = "decoder_tests.rs"]
mod tests;
