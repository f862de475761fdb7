//! The machine against peers that keep the rules and peers that break each single one of them.

mod allowed_fast;
mod any_talk;
mod handshake;
mod having;
mod requests;
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
