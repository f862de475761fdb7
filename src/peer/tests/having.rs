//! Who says what he has: our words, and those of peers that say it wrong or twice.

use super::*;

#[test]
fn says_what_it_has_in_the_words_the_peer_understands() {
    let with = |have: Bitfield| TorrentFacts { have: have.into(), ..facts() };
    let first_words = |reserved, have| Talk::accepted(reserved, with(have)).heard();
    let bitfield = Message::Unknown { id: 5, len: 3 };
    assert_eq!(first_words(FAST_ONLY, Bitfield::all(PIECES)), [Message::HaveAll]);
    assert_eq!(first_words(FAST_ONLY, Bitfield::none(PIECES)), [Message::HaveNone]);
    assert_eq!(first_words(FAST_ONLY, facts().have.snapshot()), [bitfield]);
    assert_eq!(first_words(PLAIN, Bitfield::all(PIECES)), [bitfield]);
    assert_eq!(first_words(PLAIN, Bitfield::none(PIECES)), []);
    assert!(matches!(
        first_words(Reserved::OURS, facts().have.snapshot())[..],
        [_, Message::Unknown { id: 20, .. }]
    ));
}

#[test]
fn a_bitfield_of_the_wrong_size_ends_the_connection() {
    for len in [0, 2, 4, 300_000] {
        let error = Talk::open(PLAIN).say(&[Message::Bitfield(&vec![0; len])]).unwrap_err();
        assert!(matches!(error, PeerError::Wire(WireError::BitfieldLength { expected: 3, .. })), "{error}");
    }
}

#[test]
fn a_bitfield_with_spare_bits_ends_the_connection() {
    let error = Talk::open(PLAIN).say(&[Message::Bitfield(&[0, 0, 0x04])]);
    assert_eq!(error, Err(PeerError::Bitfield(BitfieldError::SpareBits)));
}

#[test]
fn saying_twice_what_one_has_ends_the_connection() {
    let bitfield = Message::Bitfield(&[0, 0, 0]);
    let have = Message::Have(PieceIndex(1));
    for words in [
        [bitfield, bitfield],
        [have, bitfield],
        [have, Message::HaveNone],
        [Message::HaveAll, Message::HaveAll],
        [Message::HaveAll, bitfield],
        [bitfield, Message::HaveNone],
    ] {
        assert_eq!(Talk::open(FAST_ONLY).say(&words), Err(PeerError::SecondBitfield), "{words:?}");
    }
}

#[test]
fn a_later_bitfield_that_only_adds_stands_for_many_haves() {
    let mut talk = Talk::open(FAST_ONLY);
    talk.tell(Message::HaveNone);
    talk.tell(Message::Have(PieceIndex(0)));
    talk.tell(Message::Bitfield(&[0xc0, 0, 0]));
    assert_eq!(talk.machine.piece_count(), 2);
    let takes_one_back = Message::Bitfield(&[0x70, 0, 0]);
    assert_eq!(talk.say(&[takes_one_back]), Err(PeerError::SecondBitfield));
}

#[test]
fn a_piece_number_out_of_range_ends_the_connection() {
    for number in [PIECES, u32::MAX] {
        let piece = PieceIndex(number);
        for message in [Message::Have(piece), Message::Suggest(piece), Message::AllowedFast(piece)] {
            assert_eq!(Talk::open(FAST_ONLY).say(&[message]), Err(PeerError::PieceOutOfRange(piece)));
        }
    }
    let mut talk = Talk::open(FAST_ONLY);
    for message in [Message::Have(MISSING), Message::Suggest(MISSING), Message::AllowedFast(MISSING)] {
        talk.tell(message);
    }
}

#[test]
fn a_peer_is_complete_once_and_counts_what_it_says_once() {
    let mut talk = Talk::open(PLAIN);
    for piece in 0..PIECES - 1 {
        talk.tell(Message::Have(PieceIndex(piece)));
        talk.tell(Message::Have(PieceIndex(piece)));
        assert_eq!(talk.machine.piece_count(), piece + 1);
    }
    let last = Message::Have(PieceIndex(PIECES - 1));
    assert_eq!(talk.say(&[last, last]), Ok(vec![PeerEvent::Complete { arrived: false }]));
    assert_eq!(talk.machine.piece_count(), PIECES);

    for words in [Message::HaveAll, Message::Bitfield(&[0xff, 0xff, 0xf8])] {
        let mut talk = Talk::open(FAST_ONLY);
        assert_eq!(talk.say(&[words]), Ok(vec![PeerEvent::Complete { arrived: true }]));
        talk.tell(Message::Have(PieceIndex(0)));
        assert_eq!(talk.machine.piece_count(), PIECES);
    }
}
