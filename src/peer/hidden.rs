//! What a peer of a super-seed knows of our pieces (BEP 16): nothing at first, then those that were revealed to it one
//! by one, and in the end, in portions, all of them.
//!
//! Invariant: a piece that was not revealed to the peer is not served to it. Which one is revealed when is decided at
//! the torrent's home.

use crate::bitfield::{Bitfield, SharedBitfield};
use crate::limits::HAVES_PER_SEND_MAX;
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::{Message, encode};

#[derive(Debug)]
pub(super) struct HiddenStock {
    revealed: Bitfield,
    /// The piece revealed last, and its bytes that have not been sent yet.
    last: Option<(PieceIndex, u32)>,
    served: Option<PieceIndex>,
    /// Everything is being revealed, from this piece on.
    rest_from: Option<u32>,
}

impl HiddenStock {
    pub fn new(piece_count: u32) -> Self {
        Self { revealed: Bitfield::none(piece_count), last: None, served: None, rest_from: None }
    }

    pub fn hides(&self, piece: PieceIndex) -> bool {
        self.rest_from.is_none() && !self.revealed.contains(piece)
    }

    /// True when that is news.
    pub fn reveal(&mut self, piece: PieceIndex, piece_len: u32) -> bool {
        if piece_len == 0 || self.rest_from.is_some() || !self.revealed.insert(piece) {
            return false;
        }
        self.last = Some((piece, piece_len));
        true
    }

    pub fn reveal_all(&mut self) {
        self.rest_from.get_or_insert(0);
    }

    /// A block goes out. One that is asked for twice counts twice: then the piece is taken to be served too early,
    /// which costs nothing but a piece more.
    pub fn handle_sent(&mut self, span: BlockSpan) {
        let Some((piece, left)) = &mut self.last else { return };
        if *piece == span.piece {
            *left = left.saturating_sub(span.len);
            if *left == 0 {
                self.served = Some(span.piece);
                self.last = None;
            }
        }
    }

    pub fn take_served(&mut self) -> Option<PieceIndex> {
        self.served.take()
    }

    pub fn has_haves(&self) -> bool {
        self.rest_from.is_some()
    }

    /// Appends the next portion of haves, if all is being revealed; true when that was the last.
    pub fn poll_haves(&mut self, have: &SharedBitfield, out: &mut Vec<u8>) -> bool {
        let Some(from) = &mut self.rest_from else { return false };
        let mut count = 0;
        while *from < have.len() && count < HAVES_PER_SEND_MAX {
            let piece = PieceIndex(*from);
            *from += 1;
            if have.contains(piece) && !self.revealed.contains(piece) {
                encode(&Message::Have(piece), out);
                count += 1;
            }
        }
        *from >= have.len()
    }
}
