//! Pieces for nothing (BEP 6): who gets them, and how many.

use super::*;

fn granted(heard: &[Message<'_>]) -> Vec<PieceIndex> {
    let piece = |message: &Message<'_>| match message {
        Message::AllowedFast(piece) => Some(*piece),
        _ => None,
    };
    heard.iter().filter_map(piece).collect()
}

#[test]
fn newcomers_are_granted_a_few_pieces_that_we_have_and_get_them_while_choked() {
    let mut talk = Talk::open(FAST_ONLY);
    talk.tell(Message::HaveNone);
    let pieces = granted(&talk.heard());
    assert!((ALLOWED_FAST_MAX - 1..=ALLOWED_FAST_MAX).contains(&pieces.len()), "{pieces:?}");
    assert!(!pieces.contains(&MISSING));
    let other = (0..PIECES - 1).map(PieceIndex).find(|piece| !pieces.contains(piece)).unwrap();
    let wanted = [block(pieces[0].0, 0), block(pieces[1].0, 1)];
    talk.say(&wanted.map(Message::Request)).unwrap();
    talk.tell(Message::Request(block(other.0, 0)));
    assert_eq!((talk.blocks(), talk.heard()), (wanted.to_vec(), vec![Message::Reject(block(other.0, 0))]));
}

#[test]
fn nobody_gets_free_pieces_twice_over() {
    let mut talk = Talk::open(FAST_ONLY);
    talk.tell(Message::HaveNone);
    let pieces = granted(&talk.heard());
    let budget = pieces.len() as u64 * u64::from(PIECE);
    let mut served = 0;
    for number in 0..2 * budget / u64::from(BLOCK_LEN) {
        talk.tell(Message::Request(block(pieces[0].0, number as u32 % 4)));
        served += talk.blocks().iter().map(|span| u64::from(span.len)).sum::<u64>();
    }
    assert_eq!(served, budget);
}

#[test]
fn free_bytes_are_bounded_however_long_the_pieces_are() {
    let piece_length = 16 * 1024 * 1024;
    let total_len = u64::from(PIECES) * u64::from(piece_length);
    let facts = TorrentFacts { piece_length, total_len, have: Bitfield::all(PIECES).into(), ..facts() };
    let mut talk = Talk::accepted(FAST_ONLY, facts);
    talk.heard();
    talk.tell(Message::HaveNone);
    let piece = granted(&talk.heard())[0];
    let mut served = 0;
    for _ in 0..2 * ALLOWED_FAST_LEN_MAX / u64::from(BLOCK_LEN) {
        talk.tell(Message::Request(BlockSpan { piece, begin: 0, len: BLOCK_LEN }));
        served += talk.blocks().len() as u64 * u64::from(BLOCK_LEN);
    }
    assert_eq!(served, ALLOWED_FAST_LEN_MAX);
}

#[test]
fn peers_with_enough_pieces_without_the_extension_or_turned_down_get_none_for_free() {
    let mut talk = Talk::open(FAST_ONLY);
    talk.tell(Message::Bitfield(&[0xff, 0xc0, 0]));
    assert_eq!(talk.heard(), []);
    let mut talk = Talk::open(PLAIN);
    talk.tell(Message::Bitfield(&[0, 0, 0]));
    assert_eq!(talk.heard(), []);
    let mut talk = Talk::open(FAST_ONLY);
    talk.machine.withhold_fast_pieces();
    talk.tell(Message::HaveNone);
    assert_eq!(talk.heard(), []);
}
