//! What we have, as the peer hears of it after its first word: haves, and pieces that a super-seed shows one by one.
//!
//! However slowly a peer reads, our own news end no connection: those that find much waiting are merged into one set of
//! pieces, from which each send takes some.

use super::*;
use crate::limits::HAVES_PER_SEND_MAX;

/// Bytes of a have.
const HAVE_MESSAGE_LEN: usize = 9;

impl PeerMachine {
    /// We have one more piece: it is told.
    pub fn handle_have_ours(&mut self, piece: PieceIndex) {
        self.handle_haves_ours(&[piece]);
    }

    /// We have these pieces, too: they are told, as soon as the peer reads.
    pub fn handle_haves_ours(&mut self, pieces: &[PieceIndex]) {
        let Phase::Open(open) = &self.phase else { return };
        let room = (HAVES_PER_SEND_MAX * HAVE_MESSAGE_LEN).saturating_sub(self.control.len());
        let now = if self.untold.is_some() { 0 } else { pieces.len().min(room / HAVE_MESSAGE_LEN) };
        let (now, later) = pieces.split_at(now);
        self.control.reserve(now.len() * HAVE_MESSAGE_LEN);
        now.iter().for_each(|&piece| encode(&Message::Have(piece), &mut self.control));
        if !later.is_empty() {
            let none = || Box::new(Bitfield::none(open.facts.piece_count()));
            let untold = self.untold.get_or_insert_with(none);
            for &piece in later {
                untold.insert(piece);
            }
        }
    }

    /// Appends the next portion of haves that have waited until the peer reads.
    pub(super) fn poll_untold(&mut self, out: &mut Vec<u8>) {
        let Some(untold) = &mut self.untold else { return };
        let portion: Vec<PieceIndex> = untold.iter().take(HAVES_PER_SEND_MAX).collect();
        for piece in portion {
            untold.remove(piece);
            encode(&Message::Have(piece), out);
        }
        if untold.count() == 0 {
            self.untold = None;
        }
    }

    /// Tells a peer that does not know all that we have of one more piece (BEP 16).
    pub fn reveal(&mut self, piece: PieceIndex) {
        if let (Some(hidden), Phase::Open(open)) = (&mut self.hidden, &self.phase)
            && hidden.reveal(piece, open.facts.piece_len(piece))
        {
            encode(&Message::Have(piece), &mut self.control);
        }
    }

    /// From now on the peer may know all that we have: it is told, some pieces with each send, and served.
    pub fn reveal_all(&mut self) {
        if let Some(hidden) = &mut self.hidden {
            hidden.reveal_all();
        }
    }

    /// The piece revealed last, once all of it has been sent.
    pub fn take_served(&mut self) -> Option<PieceIndex> {
        self.hidden.as_mut()?.take_served()
    }
}
