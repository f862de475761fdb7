//! What one end of a connection has said, read off the line by a decoder of its own.
//!
//! The checks compare with it what is sent next. It knows nothing of the machines at the ends.

use super::check::Property;
use super::node::{Packet, Seat};
use crate::bitfield::Bitfield;
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::{Decoder, DecoderLimits, HANDSHAKE_LEN, Message};

/// One direction of a connection.
#[derive(Debug)]
pub(super) struct Tap {
    /// Bytes of the handshake that are still to come.
    handshake: usize,
    decoder: Decoder,
    pieces: u32,
    unchoked: bool,
    told: Bitfield,
    pub fast: Vec<PieceIndex>,
    /// Requests that have not been answered.
    asked: Vec<BlockSpan>,
    /// The bytes are no messages (any more).
    lost: bool,
    /// The other end.
    pub partner: Seat,
}

/// What a packet has answered or offered, for those who know more.
#[derive(Debug, Default)]
pub(super) struct Said {
    /// Pieces offered.
    pub offered: Vec<PieceIndex>,
    /// Requests of the other end that were answered, by a block or a reject.
    pub answered: Vec<BlockSpan>,
    /// What must not have been said.
    pub fault: Option<(Property, String)>,
}

impl Tap {
    pub fn new(pieces: u32, partner: Seat) -> Self {
        Self {
            handshake: HANDSHAKE_LEN,
            decoder: Decoder::new(DecoderLimits::for_pieces(pieces)),
            pieces,
            unchoked: false,
            told: Bitfield::none(pieces),
            fast: Vec::new(),
            asked: Vec::new(),
            lost: false,
            partner,
        }
    }

    /// Whether its bytes can be read.
    pub fn is_readable(&self) -> bool {
        !self.lost
    }

    /// Reads a packet that is sent.
    pub fn read(&mut self, packet: &Packet) -> Said {
        let mut said = Said::default();
        let in_handshake = self.handshake.min(packet.control.len());
        self.handshake -= in_handshake;
        let mut bytes = &packet.control[in_handshake..];
        while !self.lost {
            // Taken out, since the message borrows from it.
            let mut decoder =
                std::mem::replace(&mut self.decoder, Decoder::new(DecoderLimits::without_metadata()));
            let going_on = match decoder.decode(&mut bytes) {
                Ok(Some(message)) => {
                    self.take(message, &mut said);
                    true
                }
                Ok(None) => false,
                Err(error) => {
                    self.lost = true;
                    said.fault = Some((Property::Readable, error.to_string()));
                    false
                }
            };
            self.decoder = decoder;
            if !going_on {
                break;
            }
        }
        if let Some(block) = packet.block
            && !self.lost
        {
            self.give(block.span, &mut said);
        }
        said
    }

    fn take(&mut self, message: Message<'_>, said: &mut Said) {
        match message {
            Message::Choke => self.unchoked = false,
            Message::Unchoke => self.unchoked = true,
            Message::Have(piece) => self.offer(piece, said),
            Message::Bitfield(bytes) => match Bitfield::from_wire(bytes, self.pieces) {
                Ok(pieces) => pieces.iter().for_each(|piece| self.offer(piece, said)),
                Err(error) => said.fault = Some((Property::Readable, error.to_string())),
            },
            Message::HaveAll => (0..self.pieces).for_each(|piece| self.offer(PieceIndex(piece), said)),
            Message::AllowedFast(piece) => self.fast.push(piece),
            Message::Request(span) => self.asked.push(span),
            Message::Reject(span) => said.answered.push(span),
            Message::Piece(_) => {
                // The decoder waits for payload now.
                self.lost = true;
                said.fault = Some((Property::Readable, "a block's header without its block".into()));
            }
            _ => {}
        }
    }

    fn offer(&mut self, piece: PieceIndex, said: &mut Said) {
        self.told.insert(piece);
        said.offered.push(piece);
    }

    fn give(&mut self, span: BlockSpan, said: &mut Said) {
        if !self.unchoked && !self.fast.contains(&span.piece) {
            said.fault = Some((Property::NoBlockWhileChoked, format!("{span:?}")));
        } else if !self.told.contains(span.piece) {
            said.fault = Some((Property::OnlyStoredOffered, format!("{span:?} of a piece it did not offer")));
        }
        said.answered.push(span);
    }

    /// The other end has answered; false when there was no such request.
    pub fn is_answered(&mut self, span: BlockSpan) -> bool {
        match self.asked.iter().position(|&asked| asked == span) {
            Some(place) => {
                self.asked.remove(place);
                true
            }
            None => false,
        }
    }
}
