//! A seed that shows its pieces one by one (BEP 16).

use super::*;

#[test]
fn a_super_seed_says_it_has_nothing_serves_what_it_reveals_and_tells_all_in_the_end() {
    let hiding = || TorrentFacts { hides_stock: true.into(), ..facts() };
    let mut plain = Talk::accepted(PLAIN, hiding());
    assert_eq!(plain.heard(), []);
    let mut talk = Talk::accepted(FAST_ONLY, hiding());
    assert_eq!(talk.heard(), [Message::HaveNone]);
    talk.tell(Message::HaveNone);
    talk.machine.handle_choke(false);
    assert_eq!(talk.heard(), [Message::Unchoke], "and no piece for free");

    talk.tell(Message::Request(block(3, 0)));
    assert_eq!(talk.heard(), [Message::Reject(block(3, 0))]);
    talk.machine.reveal(PieceIndex(3));
    talk.machine.reveal(PieceIndex(3));
    assert_eq!(talk.heard(), [Message::Have(PieceIndex(3))]);
    for number in 0..4 {
        assert_eq!(talk.machine.take_served(), None);
        talk.tell(Message::Request(block(3, number)));
        assert_eq!(talk.machine.poll_block(), Some(block(3, number)));
    }
    assert_eq!(talk.machine.take_served(), Some(PieceIndex(3)));
    assert_eq!(talk.machine.take_served(), None);
    talk.tell(Message::Request(block(4, 0)));
    assert_eq!(talk.heard(), [Message::Reject(block(4, 0))]);

    talk.machine.reveal_all();
    let others = (0..PIECES - 1).filter(|&piece| piece != 3);
    let haves: Vec<_> = others.map(|piece| Message::Have(PieceIndex(piece))).collect();
    assert_eq!(talk.heard(), haves);
    assert!(!talk.machine.has_output());
    talk.tell(Message::Request(block(4, 0)));
    assert_eq!(talk.machine.poll_block(), Some(block(4, 0)));
}

#[test]
fn the_haves_at_the_end_of_super_seeding_go_out_in_portions() {
    let (pieces, len) = (2500, BLOCK_LEN);
    let facts = TorrentFacts {
        piece_length: len,
        total_len: u64::from(pieces) * u64::from(len),
        have: Bitfield::all(pieces).into(),
        hides_stock: true.into(),
        ..facts()
    };
    let mut talk = Talk::accepted(FAST_ONLY, facts);
    talk.heard();
    talk.machine.reveal_all();
    let portions: Vec<usize> =
        std::iter::from_fn(|| talk.machine.has_control().then(|| talk.heard().len())).collect();
    assert_eq!(portions, [1000, 1000, 500]);
}
