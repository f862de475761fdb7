//! The downloading half: what is asked, what comes back, and who is at fault.

use super::*;
use crate::bitfield::Bitfield;
use crate::id::{InfoHash, PeerId};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{
    Decoder, DecoderLimits, ExtensionHandshake, HANDSHAKE_LEN, Handshake, Message, Reserved, encode,
};
use std::net::Ipv4Addr;
use std::sync::Arc;

const PIECES: u32 = 10;

struct Talk {
    machine: PeerMachine,
    now: Instant,
    sent: Vec<u8>,
}

impl Talk {
    /// A leech's connection to a peer that has everything and has unchoked us; we are interested.
    fn ready() -> Self {
        let now = Instant::ZERO + Duration::from_secs(1);
        let mut talk = Self { machine: PeerMachine::incoming(now), now, sent: Vec::new() };
        let theirs =
            Handshake { reserved: Reserved::OURS, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
        assert!(matches!(talk.hear(&theirs.encode())[..], [PeerEvent::Handshake(_)]));
        let facts = TorrentFacts {
            info_hash: InfoHash([1; 20]),
            piece_length: 4 * BLOCK_LEN,
            total_len: u64::from(PIECES) * 4 * u64::from(BLOCK_LEN),
            have: Bitfield::none(PIECES).into(),
            satisfied: false.into(),
            info: None,
            private: false,
            hides_stock: false.into(),
        };
        let identity = Identity { peer_id: PeerId([3; 20]), port: 1, remote: Ipv4Addr::LOCALHOST.into() };
        talk.machine.accept(Arc::new(facts), identity);
        assert_eq!(talk.say(&[Message::HaveAll]), [PeerEvent::Complete { arrived: true }]);
        talk.machine.handle_our_interest(now, true);
        assert_eq!(talk.say(&[Message::Unchoke]), [PeerEvent::ChokedByThem(false)]);
        talk.requests();
        talk
    }

    fn hear(&mut self, mut bytes: &[u8]) -> Vec<PeerEvent> {
        self.try_hear(&mut bytes).expect("the peer is honest")
    }

    fn try_hear(&mut self, bytes: &mut &[u8]) -> Result<Vec<PeerEvent>, PeerError> {
        let mut events = Vec::new();
        loop {
            self.machine.take_payload(self.now, bytes);
            match self.machine.handle_bytes(self.now, bytes)? {
                Some(event) => events.push(event),
                None => return Ok(events),
            }
        }
    }

    fn say(&mut self, messages: &[Message<'_>]) -> Vec<PeerEvent> {
        self.try_say(messages).expect("the peer is honest")
    }

    fn try_say(&mut self, messages: &[Message<'_>]) -> Result<Vec<PeerEvent>, PeerError> {
        let mut bytes = Vec::new();
        for message in messages {
            encode(message, &mut bytes);
            if let Message::Piece(span) = message {
                bytes.resize(bytes.len() + span.len as usize, 7);
            }
        }
        self.try_hear(&mut &bytes[..])
    }

    /// The blocks that were asked for, and cancelled, since the last look.
    fn requests(&mut self) -> (Vec<BlockSpan>, Vec<BlockSpan>) {
        self.machine.poll_control(&mut self.sent);
        let mut input = &self.sent[..];
        if input.starts_with(b"\x13BitTorrent protocol") {
            input = &input[HANDSHAKE_LEN..];
        }
        let (mut asked, mut cancelled) = (Vec::new(), Vec::new());
        let mut decoder = Decoder::new(DecoderLimits::for_pieces(PIECES));
        while let Some(message) = decoder.decode(&mut input).expect("we speak the protocol") {
            match message {
                Message::Request(span) => asked.push(span),
                Message::Cancel(span) => cancelled.push(span),
                _ => {}
            }
        }
        self.sent.clear();
        (asked, cancelled)
    }

    /// The pieces that were told since the last look.
    fn haves(&mut self) -> Vec<PieceIndex> {
        self.machine.poll_control(&mut self.sent);
        let mut input = &self.sent[..];
        if input.starts_with(b"\x13BitTorrent protocol") {
            input = &input[HANDSHAKE_LEN..];
        }
        let mut told = Vec::new();
        let mut decoder = Decoder::new(DecoderLimits::for_pieces(crate::limits::PIECES_MAX));
        while let Some(message) = decoder.decode(&mut input).expect("we speak the protocol") {
            if let Message::Have(piece) = message {
                told.push(piece);
            }
        }
        self.sent.clear();
        told
    }

    fn assign(&mut self, spans: &[BlockSpan]) {
        self.machine.handle_assigned(self.now, spans);
        assert_eq!(self.requests().0, spans);
    }
}

fn span(piece: u32, block: u32) -> BlockSpan {
    BlockSpan { piece: PieceIndex(piece), begin: block * BLOCK_LEN, len: BLOCK_LEN }
}

#[test]
fn a_wish_is_told_once_and_again_after_its_answer() {
    let mut talk = Talk::ready();
    let wish = talk.machine.poll_wish().expect("there is room");
    assert!(wish.count >= 2 && wish.terms == WishTerms::Unchoked);
    assert_eq!(talk.machine.poll_wish(), None);
    talk.assign(&[span(0, 0)]);
    assert!(talk.machine.poll_wish().is_none_or(|again| again.count < wish.count));
}

#[test]
fn a_block_that_was_asked_for_arrives_once() {
    let mut talk = Talk::ready();
    talk.assign(&[span(0, 0), span(0, 1)]);
    assert_eq!(talk.say(&[Message::Piece(span(0, 1))]), [PeerEvent::Block { span: span(0, 1), asked: true }]);
    assert_eq!(
        talk.say(&[Message::Piece(span(0, 1))]),
        [PeerEvent::Block { span: span(0, 1), asked: false }]
    );
    assert_eq!(talk.machine.outstanding(), 1);
}

#[test]
fn who_floods_blocks_that_nobody_asked_for_is_left() {
    let mut talk = Talk::ready();
    let flood = (0..).map(|_| talk.try_say(&[Message::Piece(span(1, 1))])).take(1000).find(Result::is_err);
    assert_eq!(flood, Some(Err(PeerError::UnwantedBlock(span(1, 1)))));
}

/// Found by simulated swarms: between two quick super-seeds every piece is an endgame, and the slower of them was left
/// for what had crossed our cancels.
#[test]
fn blocks_that_cross_our_cancels_are_nobodys_fault() {
    let mut talk = Talk::ready();
    for _ in 0..1000 {
        talk.assign(&[span(0, 0)]);
        talk.machine.handle_brought(span(0, 0));
        assert_eq!(talk.requests().1, [span(0, 0)]);
        let events = talk.say(&[Message::Piece(span(0, 0))]);
        assert_eq!(events, [PeerEvent::Block { span: span(0, 0), asked: false }]);
    }
}

#[test]
fn rejected_blocks_come_back_and_whoever_only_rejects_is_left() {
    let mut talk = Talk::ready();
    talk.assign(&[span(0, 0)]);
    assert_eq!(talk.say(&[Message::Reject(span(0, 0)), Message::Reject(span(3, 0))]), []);
    assert_eq!(talk.machine.take_returned(), [span(0, 0)]);
    let failed = (0..5000).find_map(|_| {
        talk.assign(&[span(0, 0)]);
        talk.try_say(&[Message::Reject(span(0, 0))]).err()
    });
    assert_eq!(failed, Some(PeerError::OnlyRejects));
}

#[test]
fn a_choking_peer_answers_or_its_blocks_come_back() {
    let mut talk = Talk::ready();
    talk.assign(&[span(0, 0), span(0, 1)]);
    assert_eq!(talk.say(&[Message::Choke]), [PeerEvent::ChokedByThem(true)]);
    assert_eq!((talk.machine.take_returned(), talk.machine.poll_wish()), (vec![], None));
    assert_eq!(talk.say(&[Message::Piece(span(0, 0))]).len(), 1);
    talk.now += crate::limits::CHOKED_REQUEST_TIMEOUT;
    assert!(talk.machine.poll_download_timeout().is_some_and(|at| at <= talk.now));
    talk.machine.handle_download_timeout(talk.now);
    assert_eq!(talk.machine.take_returned(), [span(0, 1)]);
}

#[test]
fn blocks_assigned_across_a_choke_come_back_unasked() {
    let mut talk = Talk::ready();
    talk.say(&[Message::Choke]);
    talk.machine.handle_assigned(talk.now, &[span(0, 0)]);
    assert_eq!((talk.requests().0, talk.machine.take_returned()), (vec![], vec![span(0, 0)]));
}

#[test]
fn allowed_fast_pieces_are_wished_for_while_choked() {
    let mut talk = Talk::ready();
    talk.say(&[Message::Choke, Message::AllowedFast(PieceIndex(4)), Message::AllowedFast(PieceIndex(4))]);
    let wish = talk.machine.poll_wish().expect("a piece is served all the same");
    assert_eq!(wish.terms, WishTerms::Fast([PieceIndex(4)].into()));
    talk.assign(&[span(4, 0)]);
    talk.say(&[Message::Reject(span(4, 0))]);
    assert_eq!(talk.machine.poll_wish(), None, "what it rejects it serves no more");
}

#[test]
fn what_another_brought_is_cancelled_once() {
    let mut talk = Talk::ready();
    talk.assign(&[span(0, 0)]);
    talk.machine.handle_brought(span(0, 0));
    talk.machine.handle_brought(span(0, 0));
    assert_eq!(talk.requests(), (vec![], vec![span(0, 0)]));
    assert_eq!(
        talk.say(&[Message::Piece(span(0, 0))]),
        [PeerEvent::Block { span: span(0, 0), asked: false }]
    );
}

#[test]
fn a_lost_piece_is_told_and_haves_of_ours_are_said() {
    let mut talk = Talk::ready();
    let lost = |id| Message::Extended { id, payload: &[0, 0, 0, 3] };
    assert_eq!(talk.say(&[lost(4)]), [PeerEvent::Lost(PieceIndex(3))]);
    assert!(matches!(talk.machine.stock(), Stock::Some(stock) if stock.count() == PIECES - 1));
    assert_eq!(talk.say(&[lost(4), Message::Have(PieceIndex(3))]), [PeerEvent::Complete { arrived: false }]);
    let tired = (0..100).find_map(|_| talk.try_say(&[lost(4), Message::Have(PieceIndex(3))]).err());
    assert_eq!(tired, Some(PeerError::LosesPieces));
    talk.machine.handle_have_ours(PieceIndex(1));
    assert_eq!(talk.haves(), [PieceIndex(1)]);
}

/// A torrent of so many pieces of a block each, of which we have some, and a peer that has just come.
fn arrived(pieces: u32, have: impl Fn(u32) -> bool, reserved: Reserved) -> Talk {
    let now = Instant::ZERO + Duration::from_secs(1);
    let mut talk = Talk { machine: PeerMachine::incoming(now), now, sent: Vec::new() };
    let theirs = Handshake { reserved, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
    talk.hear(&theirs.encode());
    let mut ours = Bitfield::none(pieces);
    for piece in (0..pieces).filter(|&piece| have(piece)) {
        ours.insert(PieceIndex(piece));
    }
    let facts = TorrentFacts {
        info_hash: InfoHash([1; 20]),
        piece_length: BLOCK_LEN,
        total_len: u64::from(pieces) * u64::from(BLOCK_LEN),
        have: ours.into(),
        info: None,
        satisfied: false.into(),
        private: false,
        hides_stock: false.into(),
    };
    let identity = Identity { peer_id: PeerId([3; 20]), port: 1, remote: Ipv4Addr::LOCALHOST.into() };
    talk.machine.accept(Arc::new(facts), identity);
    talk
}

#[test]
fn our_own_bitfield_is_not_the_peers_fault_however_long_it_is() {
    for pieces in [525_000, 600_000, crate::limits::PIECES_MAX] {
        // In part, and as a whole to a peer that knows no other word for it.
        for (have, reserved) in [(1, Reserved::OURS), (pieces, Reserved::NONE)] {
            let mut talk = arrived(pieces, |piece| piece < have, reserved);
            assert!(talk.machine.control_queued_len() > crate::limits::CONTROL_QUEUED_LEN_MAX);
            assert_eq!(talk.say(&[Message::Interested]), [PeerEvent::Interested(true)]);
        }
    }
}

#[test]
fn haves_that_a_slow_peer_has_not_read_are_merged_and_told_as_it_reads() {
    const MANY: u32 = 200_000;
    let mut talk = arrived(MANY, |_| false, Reserved::OURS);
    for piece in 0..MANY {
        talk.machine.handle_have_ours(PieceIndex(piece));
    }
    assert!(talk.machine.buffered_bytes() <= 2 * 9 * crate::limits::HAVES_PER_SEND_MAX + MANY as usize / 8);
    assert_eq!(talk.say(&[Message::Interested]), [PeerEvent::Interested(true)]);
    // It reads one send after the other; meanwhile there is more.
    let mut told = Bitfield::none(MANY);
    while talk.machine.has_control() {
        let portion = talk.haves();
        assert!(!portion.is_empty() && portion.len() <= 2 * crate::limits::HAVES_PER_SEND_MAX);
        portion.into_iter().for_each(|piece| assert!(told.insert(piece), "{piece} is told twice"));
    }
    assert!(told.is_full());
    talk.machine.handle_have_ours(PieceIndex(1));
    assert_eq!(talk.haves(), [PieceIndex(1)]);
    assert!(!talk.machine.has_control() && talk.machine.buffered_bytes() < 4096);
}

#[test]
fn who_does_not_read_what_it_was_asked_is_not_asked_for_more() {
    let mut talk = Talk::ready();
    let limit = crate::limits::CONTROL_QUEUED_LEN_MAX;
    // It never reads, and takes requests back by choking to and fro: neither ends the connection, nor grows.
    talk.machine.handle_haves_ours(&vec![PieceIndex(1); 1000]);
    let mut asked = 0;
    for round in 0..100_000 {
        let before = talk.machine.control_queued_len();
        talk.machine.handle_assigned(talk.now, &[span(0, 0)]);
        asked += usize::from(talk.machine.control_queued_len() > before);
        talk.machine.handle_brought(span(0, 0));
        let returned = talk.machine.take_returned();
        assert_eq!(returned.len(), usize::from(talk.machine.control_queued_len() == before), "round {round}");
        assert!(talk.machine.control_queued_len() <= limit + 100);
    }
    assert!(asked > 1000);
    talk.requests();
    talk.machine.handle_assigned(talk.now, &[span(0, 1)]);
    assert_eq!(talk.requests().0, [span(0, 1)]);
}

#[test]
fn how_many_requests_it_takes_is_news_only_when_it_has_changed() {
    let mut talk = Talk::ready();
    let told = |talk: &mut Talk, reqq| {
        let reqq = ExtensionHandshake { requests_queued_max: Some(reqq), ..ExtensionHandshake::default() };
        talk.say(&[Message::Extended { id: 0, payload: &reqq.encode() }]);
        talk.machine.poll_wish().is_some()
    };
    assert!(talk.machine.poll_wish().is_some());
    assert_eq!(
        [300, 300, 300, 301, 301].map(|reqq| told(&mut talk, reqq)),
        [true, false, false, true, false]
    );
}

#[test]
fn two_answers_to_wishes_on_both_sides_of_a_choke_do_not_ask_more_than_the_peer_takes() {
    let mut talk = Talk::ready();
    let reqq = ExtensionHandshake { requests_queued_max: Some(3), ..ExtensionHandshake::default() };
    talk.say(&[Message::Extended { id: 0, payload: &reqq.encode() }]);
    talk.say(&[Message::Choke, Message::Unchoke]);
    talk.assign(&[span(0, 0), span(0, 1)]);
    talk.machine.handle_assigned(talk.now, &[span(1, 0), span(1, 1)]);
    assert_eq!((talk.requests().0, talk.machine.take_returned()), (vec![span(1, 0)], vec![span(1, 1)]));
}

#[test]
fn a_fast_piece_asked_for_long_after_the_choke_has_its_time_to_come() {
    let mut talk = Talk::ready();
    talk.say(&[Message::Choke, Message::AllowedFast(PieceIndex(4))]);
    talk.now += crate::limits::CHOKED_REQUEST_TIMEOUT * 2;
    assert!(talk.machine.poll_wish().is_some());
    talk.assign(&[span(4, 0)]);
    assert!(talk.machine.poll_download_timeout().is_some_and(|at| at > talk.now));
    talk.now += crate::limits::CHOKED_REQUEST_TIMEOUT;
    talk.machine.handle_download_timeout(talk.now);
    assert_eq!(talk.machine.take_returned(), [span(4, 0)]);
    assert_eq!(talk.machine.poll_wish(), None, "what it does not give is not asked for again");
}
