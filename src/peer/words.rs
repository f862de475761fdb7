//! How much a peer says, so that nobody need be heard more than there is to say.

use crate::wire::Message;

/// Bytes carried by a message that count as one word more.
const BYTES_PER_WORD: u64 = 64;

/// What a message counts: one, and one for every 64 bytes that it carries. What asks for a block, brings one or refuses one
/// counts nothing: that is bounded by what is served, by what was asked for, and by counts of its own.
pub(super) fn words_of(message: &Message<'_>) -> u64 {
    let carried = match message {
        Message::Request(_) | Message::Piece(_) | Message::Reject(_) => return 0,
        Message::Bitfield(bytes) => bytes.len() as u64,
        Message::Extended { payload, .. } => payload.len() as u64,
        Message::Unknown { len, .. } => u64::from(*len),
        _ => 0,
    };
    1 + carried / BYTES_PER_WORD
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BlockSpan, PieceIndex};

    #[test]
    fn only_what_is_about_blocks_counts_nothing_and_long_words_count_more() {
        let span = BlockSpan { piece: PieceIndex(0), begin: 0, len: 1 };
        for free in [Message::Request(span), Message::Piece(span), Message::Reject(span)] {
            assert_eq!(words_of(&free), 0);
        }
        for one in
            [Message::Interested, Message::Have(PieceIndex(1)), Message::Cancel(span), Message::KeepAlive]
        {
            assert_eq!(words_of(&one), 1);
        }
        assert_eq!(words_of(&Message::Extended { id: 0, payload: &[0; 6400] }), 101);
        assert_eq!(words_of(&Message::Bitfield(&[0; 64])), 2);
    }
}
