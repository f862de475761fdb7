//! One peer of many: a TCP connection and a leech's side of the peer wire, reduced to what keeps a seeder sending.
//!
//! Handshake, interested, wait for unchoke, then requests for whole blocks and acknowledgements of whatever has come. What
//! comes after the unchoke is never seen, only how long it is; the bytes of other messages in between (keep-alives)
//! are taken for blocks', and they are few.

use super::Outcome;
use super::segment::{ACK, Ends, HEADERS_LEN, PAYLOAD_LEN_MAX, PUSH, RST, SYN, Segment, encode};
use seedring::metainfo::Info;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{self, Decoder, HANDSHAKE_LEN, Message, PIECE_HEADER_LEN, REQUEST_MESSAGE_LEN};

/// Bytes of a block on the wire.
const FRAME_LEN: u64 = (PIECE_HEADER_LEN + BLOCK_LEN as usize) as u64;
const FIN: u8 = 1;

/// The order in which one peer asks: every whole block of every piece, over and over.
pub struct Walk {
    blocks_per_piece: u32,
    blocks: u32,
    next: u32,
}

impl Walk {
    /// Begins at the `part`th of `parts` equal parts of the content.
    pub fn new(info: &Info, part: u32, parts: u32) -> Outcome<Self> {
        let blocks_per_piece = info.piece_length() / BLOCK_LEN;
        let blocks = u32::try_from(info.total_len() / u64::from(info.piece_length()))? * blocks_per_piece;
        if blocks == 0 {
            return Err("the torrent has no whole piece".into());
        }
        Ok(Self { blocks_per_piece, blocks, next: blocks / parts.max(1) * part })
    }

    fn next_block(&mut self) -> BlockSpan {
        let block = self.next;
        self.next = (self.next + 1) % self.blocks;
        let (piece, within) = (block / self.blocks_per_piece, block % self.blocks_per_piece);
        BlockSpan { piece: PieceIndex(piece), begin: within * BLOCK_LEN, len: BLOCK_LEN }
    }
}

/// A peer.
pub struct Peer {
    ends: Ends,
    /// Number of the next byte that we send.
    sequence: u32,
    /// Number of the next byte that we expect; known once the seeder has answered.
    expected: Option<u32>,
    opening: Vec<u8>,
    decoder: Decoder,
    walk: Walk,
    /// Blocks asked for.
    asked: u64,
    /// Bytes that came since the requests began.
    pub received: u64,
    /// Whether the seeder serves it.
    pub unchoked: bool,
    /// Acknowledgements sent.
    pub acknowledgements: u64,
}

impl Peer {
    /// A peer that has not sent anything. `opening` is its handshake with the first messages behind it.
    pub const fn new(ends: Ends, opening: Vec<u8>, decoder: Decoder, walk: Walk) -> Self {
        Self {
            ends,
            sequence: 1,
            expected: None,
            opening,
            decoder,
            walk,
            asked: 0,
            received: 0,
            unchoked: false,
            acknowledgements: 0,
        }
    }

    /// Number of the next byte that we expect.
    pub fn expected(&self) -> u32 {
        self.expected.unwrap_or(0)
    }

    /// The frame that begins the connection.
    pub fn connect(&self, frame: &mut Vec<u8>) {
        encode(&self.ends, self.sequence.wrapping_sub(1), 0, SYN, &[], frame);
    }

    /// The frame that ends it.
    pub fn abort(&self, frame: &mut Vec<u8>) {
        encode(&self.ends, self.sequence, self.expected(), RST | ACK, &[], frame);
    }

    /// Takes a segment that came before the requests began, and writes the answer over `frame`, if there is one.
    pub fn handle(&mut self, segment: &Segment<'_>, frame: &mut Vec<u8>) -> Outcome<()> {
        frame.clear();
        if segment.flags & (RST | FIN) != 0 {
            return Err("the seeder has closed a connection: it may have reached a bound".into());
        }
        let Some(expected) = self.expected else {
            if segment.flags & SYN != 0 {
                self.expected = Some(segment.sequence.wrapping_add(1));
                let opening = self.opening.clone();
                self.send(&opening, frame);
                self.opening.clear();
            }
            return Ok(());
        };
        if segment.payload.is_empty() || segment.sequence != expected {
            return Ok(());
        }
        self.expected = Some(expected.wrapping_add(segment.payload.len() as u32));
        self.read(segment.payload)?;
        self.acknowledge(frame);
        Ok(())
    }

    fn read(&mut self, payload: &[u8]) -> Outcome<()> {
        let mut input = payload;
        // The handshake is as long as ours, and nobody asks what it says.
        let missing = HANDSHAKE_LEN - self.opening.len();
        let (head, rest) = input.split_at(missing.min(input.len()));
        self.opening.extend_from_slice(head);
        input = rest;
        while self.opening.len() == HANDSHAKE_LEN
            && let Some(message) = self.decoder.decode(&mut input)?
        {
            self.unchoked |= message == Message::Unchoke;
        }
        Ok(())
    }

    /// Learns how far the seeder's bytes have come; whether they have come further.
    pub fn handle_progress(&mut self, next: u32) -> bool {
        let fresh = next.wrapping_sub(self.expected());
        self.expected = Some(next);
        self.received += u64::from(fresh);
        fresh > 0
    }

    /// Blocks that may be asked for, so that `depth` are on their way.
    pub fn room(&self, depth: u64) -> u64 {
        (self.received / FRAME_LEN + depth).saturating_sub(self.asked)
    }

    /// The frame that asks for blocks, `count` or as many as fit; returns how many. It acknowledges, too.
    pub fn request(&mut self, count: u64, frame: &mut Vec<u8>) -> u64 {
        let count = count.min((PAYLOAD_LEN_MAX / REQUEST_MESSAGE_LEN) as u64);
        let mut payload = Vec::with_capacity(PAYLOAD_LEN_MAX);
        for _ in 0..count {
            wire::encode(&Message::Request(self.walk.next_block()), &mut payload);
        }
        self.send(&payload, frame);
        self.asked += count;
        count
    }

    /// The frame that acknowledges all that came.
    pub fn acknowledge(&mut self, frame: &mut Vec<u8>) {
        self.acknowledgements += 1;
        encode(&self.ends, self.sequence, self.expected(), ACK, &[], frame);
    }

    fn send(&mut self, payload: &[u8], frame: &mut Vec<u8>) {
        encode(&self.ends, self.sequence, self.expected(), ACK | PUSH, payload, frame);
        debug_assert_eq!(frame.len(), HEADERS_LEN + payload.len());
        self.sequence = self.sequence.wrapping_add(payload.len() as u32);
    }
}
