//! The requester against a seeder made of the same codec, without sockets.

use super::*;
use crate::load::content::Order;
use crate::wire::{REQUEST_MESSAGE_LEN, encode};
use sha1::{Digest, Sha1};

const PIECE_LEN: u32 = 40_000;
const TOTAL_LEN: u32 = 100_000;

struct Rig {
    data: Vec<u8>,
    content: Content,
    requester: Requester,
    tally: Tally,
    out: Vec<u8>,
    now: Instant,
}

impl Rig {
    fn new(depth: usize, verify: bool) -> Self {
        let data: Vec<u8> = (0..TOTAL_LEN).map(|byte| (byte % 251) as u8).collect();
        let hashes = data.chunks(PIECE_LEN as usize).map(|piece| Sha1::digest(piece).into()).collect();
        let content = Content::new(PIECE_LEN, u64::from(TOTAL_LEN), hashes).unwrap();
        let plan = RequestPlan { pieces: content.pieces(), depth, verify };
        let walk = Walk::new(plan.pieces, Order::Sequential, 1);
        let now = Instant::ZERO + Duration::from_secs(1);
        let requester = Requester::new(now, InfoHash([7; 20]), PeerId([1; 20]), walk, &plan);
        Self { data, content, requester, tally: Tally::default(), out: Vec::new(), now }
    }

    /// Past handshake and unchoke, with the first window of requests sent.
    fn unchoked(depth: usize, verify: bool, reserved: Reserved) -> (Self, Vec<BlockSpan>) {
        let mut rig = Self::new(depth, verify);
        rig.requester.handle_connected(rig.now, &mut rig.out);
        rig.receive(&rig.handshake(reserved)).unwrap();
        rig.out.clear();
        rig.hear(&[Message::Unchoke]);
        let requests = rig.requests();
        (rig, requests)
    }

    fn handshake(&self, reserved: Reserved) -> Vec<u8> {
        Handshake { reserved, info_hash: InfoHash([7; 20]), peer_id: PeerId([2; 20]) }.encode().to_vec()
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), TargetFault> {
        let Self { requester, content, tally, out, now, .. } = self;
        requester.handle_bytes(*now, bytes, content, tally, out)
    }

    fn hear(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.receive(&bytes).unwrap();
    }

    fn block(&self, span: BlockSpan) -> Vec<u8> {
        let start = (span.piece.0 * PIECE_LEN + span.begin) as usize;
        let mut bytes = wire::piece_header(span).to_vec();
        bytes.extend_from_slice(&self.data[start..start + span.len as usize]);
        bytes
    }

    fn deliver(&mut self, spans: &[BlockSpan]) {
        for &span in spans {
            let bytes = self.block(span);
            self.receive(&bytes).unwrap();
        }
    }

    /// The requests that the requester now makes.
    fn requests(&mut self) -> Vec<BlockSpan> {
        let mut bytes = Vec::new();
        let count = self.requester.poll_requests(self.now, &self.content, usize::MAX, &mut bytes);
        assert_eq!(bytes.len(), count * REQUEST_MESSAGE_LEN);
        let mut decoder = Decoder::new(DecoderLimits::for_pieces(3));
        let mut input = bytes.as_slice();
        let mut spans = Vec::new();
        while let Some(message) = decoder.decode(&mut input).unwrap() {
            let Message::Request(span) = message else { panic!("{message:?} is no request") };
            spans.push(span);
        }
        spans
    }
}

#[test]
fn it_says_what_a_newcomer_says_once_the_handshake_is_there() {
    let mut rig = Rig::new(4, false);
    rig.requester.handle_connected(rig.now, &mut rig.out);
    assert_eq!(rig.out.len(), HANDSHAKE_LEN);
    rig.out.clear();
    let handshake = rig.handshake(Reserved::OURS);
    for byte in &handshake[..67] {
        rig.receive(&[*byte]).unwrap();
        assert!(rig.out.is_empty());
    }
    rig.receive(&handshake[67..]).unwrap();
    let mut decoder = Decoder::new(DecoderLimits::for_pieces(3));
    let (out, mut said) = (std::mem::take(&mut rig.out), Vec::new());
    let mut input = out.as_slice();
    while let Some(message) = decoder.decode(&mut input).unwrap() {
        said.push(format!("{message:?}"));
    }
    assert_eq!(said.len(), 3);
    assert_eq!((said[0].as_str(), said[2].as_str()), ("HaveNone", "Interested"));
    assert!(said[1].starts_with("Extended { id: 0"));
    assert_eq!(rig.requests(), [], "nothing is asked for while choked");
}

#[test]
fn a_target_without_extensions_hears_interested_alone() {
    let mut rig = Rig::new(4, false);
    rig.receive(&rig.handshake(Reserved::NONE)).unwrap();
    assert_eq!(rig.out, [0, 0, 0, 1, 2]);
}

#[test]
fn another_protocol_or_torrent_is_a_fault() {
    let mut rig = Rig::new(4, false);
    assert!(matches!(rig.receive(b"HTTP/1.1 400"), Err(TargetFault::Wire(WireError::WrongProtocol { .. }))));
    let mut rig = Rig::new(4, false);
    let other =
        Handshake { reserved: Reserved::NONE, info_hash: InfoHash([8; 20]), peer_id: PeerId([2; 20]) };
    assert_eq!(rig.receive(&other.encode()), Err(TargetFault::OtherTorrent(InfoHash([8; 20]))));
}

#[test]
fn depth_requests_stay_in_flight_and_every_pass_covers_everything() {
    let (mut rig, mut in_flight) = Rig::unchoked(4, true, Reserved::OURS);
    assert_eq!(in_flight.len(), 4);
    let mut received = 0;
    while received < 2 * TOTAL_LEN {
        let span = in_flight.remove(0);
        received += span.len;
        rig.deliver(&[span]);
        in_flight.extend(rig.requests());
        assert_eq!(in_flight.len(), 4);
    }
    assert_eq!((rig.tally.bytes, rig.tally.pieces_right, rig.tally.pieces_wrong), (200_000, 6, 0));
    assert_eq!(rig.requester.bytes(), 200_000);
}

#[test]
fn blocks_out_of_order_and_across_passes_verify() {
    let (mut rig, mut in_flight) = Rig::unchoked(20, true, Reserved::OURS);
    for _ in 0..30 {
        in_flight.reverse();
        rig.deliver(&in_flight);
        in_flight = rig.requests();
        assert_eq!(in_flight.len(), 20);
    }
    assert_eq!((rig.tally.blocks, rig.tally.pieces_wrong, rig.tally.unrequested), (600, 0, 0));
    assert!(rig.tally.pieces_right > 150);
}

#[test]
fn a_flipped_bit_fails_its_piece() {
    let (mut rig, in_flight) = Rig::unchoked(3, true, Reserved::OURS);
    rig.data[20_000] ^= 1;
    rig.deliver(&in_flight);
    assert_eq!((rig.tally.pieces_right, rig.tally.pieces_wrong), (0, 1));
    assert_eq!(rig.tally.first_wrong, Some(PieceIndex(0)));
}

#[test]
fn latency_runs_from_the_request_to_the_last_byte() {
    let (mut rig, in_flight) = Rig::unchoked(1, false, Reserved::OURS);
    let bytes = rig.block(in_flight[0]);
    rig.now += Duration::from_millis(3);
    rig.receive(&bytes[..9_000]).unwrap();
    assert_eq!(rig.tally.latency.len(), 0);
    rig.now += Duration::from_millis(4);
    rig.receive(&bytes[9_000..]).unwrap();
    let nanos = rig.tally.latency.max();
    assert!((6_990_000..7_010_000).contains(&nanos), "{nanos}");
}

#[test]
fn payload_may_be_discarded_unseen_unless_it_is_verified() {
    let (mut rig, in_flight) = Rig::unchoked(2, false, Reserved::OURS);
    let bytes = rig.block(in_flight[0]);
    rig.receive(&bytes[..100]).unwrap();
    let rest = rig.requester.discardable();
    assert_eq!(rest as usize, bytes.len() - 100);
    rig.requester.handle_discarded(rig.now, 1_000, &mut rig.tally);
    rig.requester.handle_discarded(rig.now, rest - 1_000, &mut rig.tally);
    assert_eq!((rig.tally.blocks, rig.requester.discardable()), (1, 0));
    rig.deliver(&in_flight[1..]);
    assert_eq!(rig.tally.blocks, 2);

    let (mut rig, in_flight) = Rig::unchoked(2, true, Reserved::OURS);
    let bytes = rig.block(in_flight[0]);
    rig.receive(&bytes[..100]).unwrap();
    assert_eq!(rig.requester.discardable(), 0);
}

#[test]
fn without_the_fast_extension_a_choke_drops_requests_and_an_unchoke_asks_them_again() {
    let (mut rig, first) = Rig::unchoked(4, false, Reserved::NONE);
    rig.hear(&[Message::Choke]);
    assert_eq!(rig.requests(), []);
    // A block that was under way all the same is taken.
    rig.deliver(&first[..1]);
    assert_eq!((rig.tally.blocks, rig.tally.unrequested), (1, 0));
    rig.now += Duration::from_secs(2);
    rig.hear(&[Message::Unchoke]);
    assert_eq!(rig.requests()[..3], first[1..]);
    assert_eq!(rig.requester.choked_total(rig.now), Duration::from_secs(2));
    assert_eq!(rig.tally.chokes, 1);
}

#[test]
fn with_the_fast_extension_only_rejected_requests_are_asked_again() {
    let (mut rig, first) = Rig::unchoked(4, false, Reserved::OURS);
    rig.hear(&[Message::Choke, Message::Reject(first[2]), Message::Reject(first[3])]);
    rig.deliver(&first[..2]);
    rig.hear(&[Message::Unchoke]);
    assert_eq!(rig.requests()[..2], first[2..]);
    assert_eq!((rig.tally.blocks, rig.tally.rejects, rig.tally.unrequested), (2, 2, 0));
}

#[test]
fn a_full_queue_at_the_target_narrows_the_window() {
    let (mut rig, first) = Rig::unchoked(8, false, Reserved::OURS);
    rig.hear(&[Message::Reject(first[6]), Message::Reject(first[7])]);
    assert_eq!(rig.requests(), []);
    rig.deliver(&first[..1]);
    assert_eq!(rig.requests(), [first[6]]);
    let (mut rig, _) = Rig::unchoked(8, false, Reserved::OURS);
    rig.hear(&[Message::Extended { id: 0, payload: b"d4:reqqi3ee" }]);
    assert_eq!(rig.requester.window, 3);
}

#[test]
fn a_target_that_only_rejects_is_given_up() {
    let (mut rig, mut requests) = Rig::unchoked(1, false, Reserved::OURS);
    let fault = loop {
        let mut bytes = Vec::new();
        encode(&Message::Reject(requests[0]), &mut bytes);
        if let Err(fault) = rig.receive(&bytes) {
            break fault;
        }
        requests = rig.requests();
    };
    assert_eq!(fault, TargetFault::RejectsAll(REJECTS_IN_A_ROW_MAX + 1));
}

#[test]
fn blocks_that_nobody_asked_for_are_counted_and_skipped() {
    let (mut rig, first) = Rig::unchoked(1, true, Reserved::OURS);
    let stray = BlockSpan { piece: PieceIndex(2), begin: 0, len: BLOCK_LEN };
    rig.deliver(&[stray]);
    rig.hear(&[Message::Piece(BlockSpan { len: 0, ..stray })]);
    rig.deliver(&first);
    assert_eq!((rig.tally.unrequested, rig.tally.blocks), (2, 1));
}

#[test]
fn a_quiet_connection_is_kept_alive() {
    let mut rig = Rig::new(1, false);
    rig.receive(&rig.handshake(Reserved::OURS)).unwrap();
    rig.out.clear();
    rig.requester.poll_keep_alive(rig.now + KEEP_ALIVE_INTERVAL - Duration::from_secs(1), &mut rig.out);
    assert!(rig.out.is_empty());
    rig.requester.poll_keep_alive(rig.now + KEEP_ALIVE_INTERVAL, &mut rig.out);
    assert_eq!(rig.out, [0; 4]);
}

#[test]
fn the_budget_bounds_what_is_asked_for() {
    let (mut rig, _) = Rig::unchoked(4, false, Reserved::OURS);
    let mut out = Vec::new();
    assert_eq!(rig.requester.poll_requests(rig.now, &rig.content, 9, &mut out), 0);
    let mut rig = Rig::new(4, false);
    rig.receive(&rig.handshake(Reserved::OURS)).unwrap();
    rig.hear(&[Message::Unchoke]);
    assert_eq!(rig.requester.poll_requests(rig.now, &rig.content, 3, &mut out), 3);
    assert_eq!(rig.requester.requests_wanted(), 1);
}
