//! The machine against peers that keep the rules and peers that break each single one of them.

mod allowed_fast;
mod super_seeding;

use super::*;
use crate::bitfield::{Bitfield, BitfieldError};
use crate::id::{InfoHash, PeerId};
use crate::limits::{
    ALLOWED_FAST_LEN_MAX, ALLOWED_FAST_MAX, CONTROL_QUEUED_LEN_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT,
    KEEP_ALIVE_INTERVAL, PEX_INTERVAL, PEX_MESSAGES_FREE, PEX_OFFENCES_MAX, REJECTS_MAX, REQUEST_LEN_MAX,
    REQUEST_RUNS_MAX, REQUESTS_QUEUED_MAX, REQUESTS_WHILE_CHOKED_MAX, UNKNOWN_MESSAGE_LEN_MAX,
};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{Decoder, DecoderLimits, HANDSHAKE_LEN, Handshake, Message, Reserved, WireError, encode};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

#[path = "metadata_tests.rs"]
mod metadata;

const PIECES: u32 = 21;
const PIECE: u32 = 4 * BLOCK_LEN;
const MISSING: PieceIndex = PieceIndex(20);
const FAST_ONLY: Reserved = Reserved([0, 0, 0, 0, 0, 0, 0, 0x04]);
const PLAIN: Reserved = Reserved::NONE;

/// 21 pieces, of which the last is short and not here.
fn facts() -> TorrentFacts {
    let mut have = Bitfield::all(PIECES);
    have.remove(MISSING);
    let total_len = u64::from(PIECES - 1) * u64::from(PIECE) + 20_000;
    TorrentFacts {
        info_hash: InfoHash([1; 20]),
        piece_length: PIECE,
        total_len,
        have: have.into(),
        info: None,
        satisfied: true.into(),
        private: false,
        hides_stock: false.into(),
    }
}

fn identity() -> Identity {
    Identity { peer_id: PeerId([2; 20]), port: 6881, remote: IpAddr::V4(Ipv4Addr::new(80, 4, 4, 200)) }
}

fn handshake(reserved: Reserved) -> Handshake {
    Handshake { reserved, info_hash: InfoHash([1; 20]), peer_id: PeerId([3; 20]) }
}

fn block(piece: u32, number: u32) -> BlockSpan {
    BlockSpan { piece: PieceIndex(piece), begin: number * BLOCK_LEN, len: BLOCK_LEN }
}

/// A machine and the peer that talks to it.
struct Talk {
    machine: PeerMachine,
    now: Instant,
}

impl Talk {
    /// A connection whose handshakes are done and whose first words have been read.
    fn open(reserved: Reserved) -> Self {
        let mut talk = Self::accepted(reserved, facts());
        talk.heard();
        talk
    }

    fn accepted(reserved: Reserved, facts: TorrentFacts) -> Self {
        let mut talk = Self { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
        let event = PeerEvent::Handshake(handshake(reserved));
        assert_eq!(talk.feed(&handshake(reserved).encode()), Ok(vec![event]));
        talk.machine.accept(Arc::new(facts), identity());
        talk
    }

    fn unchoked(reserved: Reserved) -> Self {
        let mut talk = Self::open(reserved);
        talk.machine.handle_choke(false);
        assert_eq!(talk.heard(), [Message::Unchoke]);
        talk
    }

    fn feed(&mut self, mut bytes: &[u8]) -> Result<Vec<PeerEvent>, PeerError> {
        let mut events = Vec::new();
        while let Some(event) = self.machine.handle_bytes(self.now, &mut bytes)? {
            // What it has is asserted by its count; download_tests.rs has the events.
            if !matches!(event, PeerEvent::Stock | PeerEvent::Have(_) | PeerEvent::Extensions) {
                events.push(event);
            }
        }
        assert!(bytes.is_empty(), "{} bytes left", bytes.len());
        Ok(events)
    }

    fn say(&mut self, messages: &[Message<'_>]) -> Result<Vec<PeerEvent>, PeerError> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.feed(&bytes)
    }

    /// Says something that leads to no event.
    fn tell(&mut self, message: Message<'_>) {
        assert_eq!(self.say(&[message]), Ok(vec![]), "{message:?}");
    }

    /// What the machine wants told; bodies are reduced to their lengths.
    fn heard(&mut self) -> Vec<Message<'static>> {
        let mut bytes = Vec::new();
        self.machine.poll_control(&mut bytes);
        let mut input = &bytes[..];
        if input.starts_with(b"\x13BitTorrent protocol") {
            input = &input[HANDSHAKE_LEN..];
        }
        let mut decoder = Decoder::new(DecoderLimits::for_pieces(PIECES));
        let mut heard = Vec::new();
        while let Some(message) = decoder.decode(&mut input).expect("the machine speaks the protocol") {
            heard.push(match message {
                Message::Bitfield(bytes) => Message::Unknown { id: 5, len: bytes.len() as u32 },
                Message::Have(piece) => Message::Have(piece),
                Message::Extended { payload, .. } => Message::Unknown { id: 20, len: payload.len() as u32 },
                Message::Choke => Message::Choke,
                Message::Unchoke => Message::Unchoke,
                Message::KeepAlive => Message::KeepAlive,
                Message::HaveAll => Message::HaveAll,
                Message::HaveNone => Message::HaveNone,
                Message::Reject(span) => Message::Reject(span),
                Message::AllowedFast(piece) => Message::AllowedFast(piece),
                other => panic!("the machine never says {other:?}"),
            });
        }
        assert!(decoder.is_between_messages());
        heard
    }

    fn blocks(&mut self) -> Vec<BlockSpan> {
        std::iter::from_fn(|| self.machine.poll_block()).collect()
    }
}

#[test]
fn a_handshake_in_single_bytes_is_a_handshake() {
    let mut talk = Talk { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
    let bytes = handshake(Reserved::OURS).encode();
    for byte in &bytes[..HANDSHAKE_LEN - 1] {
        assert_eq!(talk.feed(&[*byte]), Ok(vec![]));
    }
    assert!(!talk.machine.has_output(), "nothing is said to who has not introduced itself");
    let event = PeerEvent::Handshake(handshake(Reserved::OURS));
    assert_eq!(talk.feed(&bytes[HANDSHAKE_LEN - 1..]), Ok(vec![event]));
    assert!(!talk.machine.is_open());
    talk.machine.accept(Arc::new(facts()), identity());
    assert!(talk.machine.is_open());
}

#[test]
fn what_follows_a_handshake_in_the_same_bytes_is_not_lost() {
    let mut machine = PeerMachine::incoming(Instant::ZERO);
    let mut bytes = handshake(Reserved::OURS).encode().to_vec();
    encode(&Message::HaveNone, &mut bytes);
    encode(&Message::Interested, &mut bytes);
    let mut input = &bytes[..];
    let event = PeerEvent::Handshake(handshake(Reserved::OURS));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(event)));
    machine.accept(Arc::new(facts()), identity());
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(PeerEvent::Stock)));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(PeerEvent::Interested(true))));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn another_protocol_is_refused_at_its_first_wrong_byte() {
    for (bytes, at) in [(&b"GET / HTTP/1.1\r\n"[..], 0), (b"\x13BitTorrent protocoL", 19), (&[0x16, 3, 1], 0)]
    {
        let mut talk = Talk { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
        let error = talk.feed(bytes).unwrap_err();
        assert!(matches!(error, PeerError::Wire(WireError::WrongProtocol { at: found, .. }) if found == at));
    }
}

#[test]
fn an_outgoing_connection_introduces_itself_first_and_once() {
    let machine = PeerMachine::outgoing(Instant::ZERO, InfoHash([1; 20]), PeerId([2; 20]));
    let mut talk = Talk { machine, now: Instant::ZERO };
    let ours = Handshake { reserved: Reserved::OURS, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
    let mut said = Vec::new();
    talk.machine.poll_control(&mut said);
    assert_eq!(said, ours.encode());
    assert_eq!(talk.feed(&handshake(FAST_ONLY).encode()).unwrap().len(), 1);
    talk.machine.accept(Arc::new(facts()), identity());
    assert_eq!(talk.heard(), [Message::Unknown { id: 5, len: 3 }]);
}

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
fn the_fast_extension_without_agreement_ends_the_connection() {
    let (piece, span) = (PieceIndex(0), block(0, 0));
    for message in [
        Message::HaveAll,
        Message::HaveNone,
        Message::Suggest(piece),
        Message::AllowedFast(piece),
        Message::Reject(span),
    ] {
        assert_eq!(Talk::open(PLAIN).say(&[message]), Err(PeerError::FastNotAgreed), "{message:?}");
    }
    Talk::open(FAST_ONLY).tell(Message::Reject(span));
}

fn bad_requests() -> Vec<(BlockSpan, SpanFault)> {
    let request = |piece, begin, len| BlockSpan { piece: PieceIndex(piece), begin, len };
    vec![
        (request(PIECES, 0, BLOCK_LEN), SpanFault::PieceOutOfRange),
        (request(u32::MAX, 0, BLOCK_LEN), SpanFault::PieceOutOfRange),
        (request(0, PIECE - BLOCK_LEN, BLOCK_LEN + 1), SpanFault::BehindPiece),
        (request(0, PIECE, BLOCK_LEN), SpanFault::BehindPiece),
        (request(20, BLOCK_LEN, BLOCK_LEN), SpanFault::BehindPiece),
        (request(0, 0, 0), SpanFault::Length),
        (request(0, 0, REQUEST_LEN_MAX + 1), SpanFault::Length),
        (request(0, 0, u32::MAX), SpanFault::Length),
        (request(0, 1, BLOCK_LEN), SpanFault::Unaligned),
        (request(0, BLOCK_LEN - 1, 1), SpanFault::Unaligned),
        (request(0, !(BLOCK_LEN - 1), BLOCK_LEN), SpanFault::BehindPiece),
        (request(u32::MAX, !(BLOCK_LEN - 1), u32::MAX), SpanFault::PieceOutOfRange),
    ]
}

#[test]
fn a_bad_request_is_rejected_where_rejects_are_understood_and_never_queued() {
    for (span, _) in bad_requests() {
        let mut talk = Talk::unchoked(FAST_ONLY);
        talk.tell(Message::Request(span));
        assert_eq!(talk.heard(), [Message::Reject(span)]);
        assert_eq!(talk.blocks(), []);
        assert_eq!(talk.say(&[Message::Request(block(0, 0))]), Ok(vec![]));
        assert_eq!(talk.blocks(), [block(0, 0)], "one bad request does not spoil the next");
    }
}

#[test]
fn a_bad_request_ends_the_connection_where_rejects_are_not_understood() {
    for (span, fault) in bad_requests() {
        let mut talk = Talk::unchoked(PLAIN);
        assert_eq!(talk.say(&[Message::Request(span)]), Err(PeerError::BadRequest(span, fault)));
        assert_eq!(talk.blocks(), []);
    }
}

#[test]
fn bad_requests_without_end_end_the_connection() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    let bad = Message::Request(block(PIECES, 0));
    for _ in 0..REJECTS_MAX {
        talk.tell(bad);
    }
    assert_eq!(talk.heard().len(), REJECTS_MAX as usize);
    assert_eq!(talk.say(&[bad]), Err(PeerError::RequestFlood));
}

#[test]
fn a_request_for_a_piece_that_is_not_here_is_no_fault() {
    let span = BlockSpan { piece: MISSING, begin: 0, len: BLOCK_LEN };
    let mut talk = Talk::unchoked(FAST_ONLY);
    for _ in 0..REJECTS_MAX * 2 {
        talk.tell(Message::Request(span));
        assert_eq!(talk.heard(), [Message::Reject(span)]);
    }
    let mut talk = Talk::unchoked(PLAIN);
    talk.tell(Message::Request(span));
    assert!(!talk.machine.has_output());
}

#[test]
fn requests_are_offered_in_the_order_they_came() {
    let mut talk = Talk::unchoked(PLAIN);
    let spans = [block(3, 1), block(0, 0), block(3, 0)];
    talk.say(&spans.map(Message::Request)).unwrap();
    assert_eq!(talk.machine.next_block(), Some(spans[0]));
    assert_eq!(talk.blocks(), spans);
    assert!(!talk.machine.has_output());
}

#[test]
fn a_queue_that_runs_over_is_answered_with_rejects_and_then_with_the_end() {
    for (reserved, queued) in [(FAST_ONLY, REQUESTS_QUEUED_MAX), (PLAIN, REQUEST_RUNS_MAX)] {
        let rejects = if reserved == PLAIN { 0 } else { REJECTS_MAX as usize };
        let mut talk = Talk::unchoked(reserved);
        for _ in 0..queued {
            talk.tell(Message::Request(block(0, 0)));
        }
        assert_eq!(talk.heard(), []);
        for _ in 0..REJECTS_MAX {
            talk.tell(Message::Request(block(1, 1)));
        }
        assert_eq!(talk.heard(), vec![Message::Reject(block(1, 1)); rejects]);
        assert_eq!(talk.say(&[Message::Request(block(1, 1))]), Err(PeerError::RequestFlood));
        assert_eq!(talk.blocks(), vec![block(0, 0); queued]);
    }
}

#[test]
fn requests_from_a_choked_peer_are_turned_down_and_a_flood_of_them_ends_the_connection() {
    for (reserved, rejects) in [(FAST_ONLY, 1), (PLAIN, 0)] {
        let mut talk = Talk::open(reserved);
        for _ in 0..REQUESTS_WHILE_CHOKED_MAX {
            talk.tell(Message::Request(block(0, 0)));
            assert_eq!(talk.heard(), vec![Message::Reject(block(0, 0)); rejects]);
            assert!(!talk.machine.has_output());
        }
        assert_eq!(talk.say(&[Message::Request(block(0, 0))]), Err(PeerError::RequestFlood));
    }
}

#[test]
fn a_full_pipeline_that_crosses_each_choke_is_no_flood() {
    let mut talk = Talk::open(FAST_ONLY);
    for _ in 0..10 {
        talk.machine.handle_choke(false);
        talk.machine.handle_choke(true);
        for _ in 0..REQUESTS_QUEUED_MAX {
            talk.tell(Message::Request(block(0, 0)));
        }
        talk.heard();
    }
}

#[test]
fn a_choke_clears_the_queue_and_rejects_what_waited_where_that_is_understood() {
    for reserved in [FAST_ONLY, PLAIN] {
        let mut talk = Talk::unchoked(reserved);
        let spans = [block(0, 0), block(0, 1), block(0, 1)];
        talk.say(&spans.map(Message::Request)).unwrap();
        talk.machine.handle_choke(true);
        let mut expected = vec![Message::Choke];
        if reserved == FAST_ONLY {
            expected.extend(spans.map(Message::Reject));
        }
        assert_eq!((talk.heard(), talk.blocks()), (expected, vec![]));
        talk.machine.handle_choke(true);
        assert!(!talk.machine.has_output(), "a second choke says nothing new");
    }
}

#[test]
fn a_cancel_is_answered_once_by_a_reject_or_by_silence() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    talk.tell(Message::Cancel(block(0, 0)));
    assert!(!talk.machine.has_output(), "nothing was asked");
    talk.say(&[Message::Request(block(0, 0)), Message::Request(block(0, 1))]).unwrap();
    talk.tell(Message::Cancel(block(0, 0)));
    assert_eq!(talk.heard(), [Message::Reject(block(0, 0))]);
    talk.tell(Message::Cancel(block(0, 0)));
    assert_eq!(talk.heard(), [], "it has been answered");
    assert_eq!(talk.blocks(), [block(0, 1)]);
    talk.tell(Message::Cancel(block(0, 1)));
    assert_eq!(talk.heard(), [], "its block is on its way");

    let mut talk = Talk::unchoked(PLAIN);
    talk.tell(Message::Request(block(0, 0)));
    talk.tell(Message::Cancel(block(0, 0)));
    assert!(!talk.machine.has_output());
}

#[test]
fn a_cancel_of_a_span_that_could_never_be_asked_for_is_ignored() {
    let mut talk = Talk::unchoked(PLAIN);
    for (span, _) in bad_requests() {
        talk.tell(Message::Cancel(span));
    }
    assert!(!talk.machine.has_output());
}

#[test]
fn a_block_nobody_asked_for_ends_the_connection() {
    let span = block(0, 0);
    assert_eq!(Talk::open(PLAIN).say(&[Message::Piece(span)]), Err(PeerError::UnwantedBlock(span)));
    let empty = BlockSpan { len: 0, ..span };
    assert_eq!(Talk::open(PLAIN).say(&[Message::Piece(empty)]), Err(PeerError::UnwantedBlock(empty)));
}

#[test]
fn lengths_beyond_a_messages_bound_end_the_connection_before_a_byte_is_kept() {
    for (len, id) in [(u32::MAX, 6), (u32::MAX, 20), (u32::MAX, 5), (u32::MAX, 7), (u32::MAX, 99), (14, 6)] {
        let [a, b, c, d] = u32::to_be_bytes(len);
        let error = Talk::open(FAST_ONLY).feed(&[a, b, c, d, id]).unwrap_err();
        assert!(matches!(error, PeerError::Wire(_)), "{error}");
    }
    let tolerated = Message::Unknown { id: 99, len: UNKNOWN_MESSAGE_LEN_MAX as u32 - 1 };
    Talk::open(FAST_ONLY).tell(tolerated);
}

#[test]
fn interest_is_an_event_only_when_it_changes() {
    let mut talk = Talk::open(PLAIN);
    talk.tell(Message::NotInterested);
    let words = [Message::Interested, Message::Interested, Message::NotInterested, Message::Interested];
    let events = [true, false, true].map(PeerEvent::Interested);
    assert_eq!(talk.say(&words), Ok(events.to_vec()));
    assert!(talk.machine.interested());
    talk.tell(Message::Choke);
    let events = [false, true].map(PeerEvent::ChokedByThem);
    assert_eq!(talk.say(&[Message::Unchoke, Message::Unchoke, Message::Choke]), Ok(events.to_vec()));
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

#[test]
fn a_handshake_has_its_time_however_slowly_it_drips() {
    let mut talk = Talk { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
    assert_eq!(talk.machine.poll_timeout(), Instant::ZERO + HANDSHAKE_TIMEOUT);
    for byte in &handshake(PLAIN).encode()[..9] {
        talk.now += Duration::from_secs(1);
        talk.feed(&[*byte]).unwrap();
        assert_eq!(talk.machine.handle_timeout(talk.now), Ok(()));
    }
    assert_eq!(talk.machine.poll_timeout(), Instant::ZERO + HANDSHAKE_TIMEOUT);
    let late = Instant::ZERO + HANDSHAKE_TIMEOUT;
    assert_eq!(talk.machine.handle_timeout(late), Err(PeerError::HandshakeTimeout));
}

#[test]
fn silence_of_ours_is_broken_by_keep_alives_and_silence_of_theirs_by_the_end() {
    let mut talk = Talk::open(PLAIN);
    talk.now = Instant::ZERO + KEEP_ALIVE_INTERVAL;
    assert_eq!(talk.machine.poll_timeout(), talk.now);
    assert_eq!(talk.machine.handle_timeout(talk.now), Ok(()));
    assert_eq!(talk.heard(), [Message::KeepAlive]);
    talk.machine.handle_sent(talk.now + Duration::from_secs(5));
    talk.tell(Message::KeepAlive);
    assert_eq!(talk.machine.poll_timeout(), talk.now + Duration::from_secs(5) + KEEP_ALIVE_INTERVAL);
    let end = talk.now + IDLE_TIMEOUT;
    assert_eq!(talk.machine.handle_timeout(end - Duration::from_nanos(1)), Ok(()));
    assert_eq!(talk.machine.poll_timeout(), end);
    assert_eq!(talk.machine.handle_timeout(end), Err(PeerError::Idle));
}

#[test]
fn a_peer_whose_blocks_wait_for_a_rate_limit_hears_that_we_are_alive() {
    let mut talk = Talk::unchoked(PLAIN);
    talk.tell(Message::Request(block(0, 0)));
    assert_eq!(talk.machine.handle_timeout(Instant::ZERO + KEEP_ALIVE_INTERVAL), Ok(()));
    assert_eq!(talk.heard(), [Message::KeepAlive]);
}

#[test]
fn garbage_in_the_extension_handshake_is_as_if_it_were_absent() {
    let long_name = [b"d1:v1000:".as_slice(), &[b'x'; 1000], b"e"].concat();
    let payloads: [&[u8]; 12] = [
        b"",
        b"i0e",
        b"d",
        b"d1:md11:ut_metadatai0eee",
        b"d1:md6:ut_pexi256e11:ut_metadatai-1eee",
        b"d4:reqqi-1ee",
        b"d4:reqqi2147483648ee",
        b"d13:metadata_sizei-1ee",
        b"d1:v4:\xff\xfe\x1b[e6:yourip3:abce",
        b"d99999999999:",
        b"d1:mi1e1:vle11:upload_only3:yese",
        &long_name,
    ];
    let mut talk = Talk::open(Reserved::OURS);
    for payload in payloads {
        talk.tell(Message::Extended { id: 0, payload });
        let name = talk.machine.client().unwrap_or_default();
        assert!(name.len() <= crate::limits::CLIENT_NAME_LEN_MAX && !name.contains(char::is_control));
        assert!(!talk.machine.upload_only());
    }
    talk.tell(Message::Extended { id: 0, payload: b"d11:upload_onlyi1ee" });
    assert!(talk.machine.upload_only());
    talk.tell(Message::Extended { id: 77, payload: b"whatever" });
}

#[test]
fn a_flood_of_peer_exchange_ends_the_connection_and_a_private_torrent_does_not_even_hear_it() {
    let message = Message::Extended { id: 1, payload: b"de" };
    let told = Ok(vec![PeerEvent::Extended(OurExtension::Pex)]);
    let mut talk = Talk::open(Reserved::OURS);
    for minute in 0..100 {
        talk.now = Instant::ZERO + PEX_INTERVAL * minute;
        assert_eq!(talk.say(&[message]), told);
        assert_eq!(talk.machine.take_extended(), b"de");
    }
    let flood = (0..100).position(|_| talk.say(&[message]) == Err(PeerError::ExchangeFlood));
    assert_eq!(flood, Some((PEX_MESSAGES_FREE + PEX_OFFENCES_MAX) as usize - 1));

    let mut private = Talk::accepted(Reserved::OURS, TorrentFacts { private: true, ..facts() });
    (0..100).for_each(|_| private.tell(message));
}

#[test]
fn who_makes_us_answer_without_reading_is_left() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    let span = BlockSpan { piece: MISSING, begin: 0, len: BLOCK_LEN };
    let mut answers = 0;
    while answers <= CONTROL_QUEUED_LEN_MAX && talk.say(&[Message::Request(span)]).is_ok() {
        answers += 1;
    }
    assert_eq!(answers, CONTROL_QUEUED_LEN_MAX / 17);
    assert_eq!(talk.say(&[Message::Request(span)]), Err(PeerError::NotReading));
}

#[test]
fn an_idle_connection_holds_neither_queue_nor_control_bytes() {
    let mut talk = Talk::unchoked(FAST_ONLY);
    for _ in 0..REQUESTS_QUEUED_MAX {
        talk.tell(Message::Request(block(0, 0)));
    }
    talk.tell(Message::Request(block(0, 0)));
    talk.blocks();
    talk.heard();
    talk.machine.handle_timeout(Instant::ZERO + KEEP_ALIVE_INTERVAL).unwrap();
    talk.heard();
    assert_eq!(talk.machine.buffered_bytes(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Say(Message<'static>),
    Choke(bool),
    Send,
    Wait(u64),
}

fn any_span() -> impl Strategy<Value = BlockSpan> {
    let begin = prop_oneof![(0..6u32).prop_map(|number| number * BLOCK_LEN), any::<u32>()];
    let len = prop_oneof![4 => Just(BLOCK_LEN), 1 => any::<u32>()];
    let piece = prop_oneof![9 => 0..PIECES + 2, 1 => any::<u32>()];
    (piece, begin, len).prop_map(|(piece, begin, len)| BlockSpan { piece: PieceIndex(piece), begin, len })
}

fn any_step() -> impl Strategy<Value = Step> {
    let piece = (0..PIECES).prop_map(PieceIndex);
    let message = prop_oneof![
        8 => (0..3u32, 0..4u32).prop_map(|(piece, number)| Message::Request(block(piece, number))),
        2 => any_span().prop_map(Message::Request),
        2 => (0..3u32, 0..4u32).prop_map(|(piece, number)| Message::Cancel(block(piece, number))),
        1 => any_span().prop_map(Message::Cancel),
        1 => Just(Message::Interested),
        1 => Just(Message::NotInterested),
        1 => Just(Message::Choke),
        1 => Just(Message::Unchoke),
        1 => Just(Message::KeepAlive),
        1 => Just(Message::HaveNone),
        1 => piece.clone().prop_map(Message::Have),
        1 => piece.clone().prop_map(Message::Suggest),
        1 => piece.prop_map(Message::AllowedFast),
        1 => any::<u16>().prop_map(Message::Port),
        1 => Just(Message::Extended { id: 0, payload: b"d1:v1:xe" }),
        1 => Just(Message::Unknown { id: 200, len: 0 }),
    ];
    prop_oneof![
        20 => message.prop_map(Step::Say),
        2 => any::<bool>().prop_map(Step::Choke),
        4 => Just(Step::Send),
        1 => (0..200u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_request_has_at_most_one_answer_and_the_choked_get_nothing_but_fast_pieces(
        fast: bool,
        steps in prop::collection::vec(any_step(), 0..400),
    ) {
        let mut talk = Talk::open(if fast { FAST_ONLY } else { PLAIN });
        let (mut unanswered, mut fast_pieces) = (Vec::new(), Vec::new());
        let answer = |unanswered: &mut Vec<BlockSpan>, span| {
            let place = unanswered.iter().position(|asked| *asked == span);
            place.map(|place| unanswered.swap_remove(place)).is_some()
        };
        for step in steps {
            match step {
                Step::Say(message) => {
                    if let Message::Request(span) = message {
                        unanswered.push(span);
                    }
                    if talk.say(&[message]).is_err() {
                        return Ok(());
                    }
                }
                Step::Choke(choke) => talk.machine.handle_choke(choke),
                Step::Send => {
                    if let Some(span) = talk.machine.next_block() {
                        prop_assert!(facts().check(span).is_ok());
                        prop_assert!(!talk.machine.choked_by_us() || fast_pieces.contains(&span.piece));
                        prop_assert_eq!(talk.machine.poll_block(), Some(span));
                        prop_assert!(answer(&mut unanswered, span), "{} was not asked for", span);
                    }
                }
                Step::Wait(seconds) => {
                    talk.now += Duration::from_secs(seconds);
                    if talk.machine.handle_timeout(talk.now).is_err() {
                        return Ok(());
                    }
                    prop_assert!(talk.machine.poll_timeout() > talk.now);
                }
            }
            prop_assert!(talk.machine.buffered_bytes() <= CONTROL_QUEUED_LEN_MAX + 2 * 17 * REQUESTS_QUEUED_MAX);
            for message in talk.heard() {
                match message {
                    Message::Reject(span) => {
                        prop_assert!(fast && answer(&mut unanswered, span), "{} was not asked for", span);
                    }
                    Message::AllowedFast(piece) => fast_pieces.push(piece),
                    _ => {}
                }
            }
        }
        // With the fast extension no request stays without an answer.
        while let Some(span) = talk.machine.poll_block() {
            prop_assert!(answer(&mut unanswered, span));
        }
        prop_assert!(!fast || unanswered.is_empty(), "{:?}", unanswered);
    }

    #[test]
    fn arbitrary_bytes_in_arbitrary_parts_never_panic(parts in prop::collection::vec(
        prop::collection::vec(prop_oneof![3 => Just(0u8), 2 => 0..21u8, 1 => any::<u8>()], 0..60), 0..30)) {
        let mut talk = Talk::unchoked(Reserved::OURS);
        for part in parts {
            if talk.feed(&part).is_err() {
                break;
            }
            prop_assert!(talk.machine.next_block().is_none_or(|span| facts().check(span).is_ok()));
        }
    }
}
