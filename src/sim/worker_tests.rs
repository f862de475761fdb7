//! The production worker through bad days, by seed: every byte that arrives is right and was asked for, nothing
//! is reused before the kernel has let go of it, and when the faults end everybody honest is served.

use super::ring::{Faults, SimRing};
use super::store::SimStore;
use crate::bitfield::Bitfield;
use crate::choker::{Role, Slots};
use crate::engine::listener::listen;
use crate::engine::mailbox::{Address, mailbox};
use crate::engine::message::{EngineEvent, SharedTorrent, ToWorker};
use crate::engine::prefix_table::PrefixTable;
use crate::engine::ring::Ring;
use crate::engine::statistics::WorkerStatistics;
use crate::engine::worker::{Worker, WorkerParts};
use crate::engine::zero_copy::{ZeroCopyMode, ZeroCopyPolicy};
use crate::id::{InfoHash, PeerId};
use crate::limits::HANDSHAKE_TIMEOUT;
use crate::peer::TorrentFacts;
use crate::pipeline::{RateGate, burst_for};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::torrent::TorrentParameters;
use crate::units::{BLOCK_LEN, BlockSpan, ByteRate, PieceIndex};
use crate::wire::{Decoder, DecoderLimits, HANDSHAKE_LEN, Handshake, Message, Reserved, encode};
use std::net::Ipv4Addr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

const PIECE: u32 = 4 * BLOCK_LEN;
const TOTAL: usize = 40 * PIECE as usize + 5000;
const INFO_HASH: InfoHash = InfoHash([7; 20]);

struct Rig {
    worker: Worker<SimRing, SimStore>,
    address: Address<ToWorker<SimStore>>,
    torrent: Arc<SharedTorrent<SimStore>>,
    statistics: Arc<[WorkerStatistics]>,
    events: Receiver<EngineEvent>,
}

impl Rig {
    fn new(seed: u64, faults: Faults, zero_copy: ZeroCopyMode, limit: Option<ByteRate>) -> Self {
        let store = SimStore::new(seed, TOTAL, PIECE);
        let piece_count = TOTAL.div_ceil(PIECE as usize) as u32;
        let facts = TorrentFacts {
            info_hash: INFO_HASH,
            piece_length: PIECE,
            total_len: TOTAL as u64,
            have: Bitfield::all(piece_count),
        };
        let parameters = TorrentParameters {
            role: Role::Seeding,
            slots: Slots::Fixed(50),
            piece_len: PIECE,
            total_len: TOTAL as u64,
        };
        let torrent = Arc::new(SharedTorrent {
            facts: Arc::new(facts),
            content: Arc::new(store),
            home: 0,
            parameters,
            peer_id: PeerId([9; 20]),
            gate: RateGate::new(None, 0),
            uploaded: 0.into(),
            connections: 0.into(),
        });
        let (mailbox, address) = mailbox(16).unwrap();
        let statistics: Arc<[WorkerStatistics]> = Arc::new([WorkerStatistics::default()]);
        let (sender, events) = channel();
        let listeners = listen(Some(Ipv4Addr::LOCALHOST.into()), 0, 1).unwrap().sockets.remove(0);
        let worker = Worker::new(WorkerParts {
            index: 0,
            ring: SimRing::new(seed, faults),
            listeners,
            port: 6881,
            bind: None,
            mailbox,
            workers: vec![address.clone()],
            events: Box::new(move |event| sender.send(event).map_err(|unsent| unsent.0)),
            statistics: Arc::clone(&statistics),
            gate: Arc::new(RateGate::new(limit, burst_for(limit))),
            prefixes: Arc::new(PrefixTable::new(4)),
            zero_copy: ZeroCopyPolicy::new(zero_copy, 8 << 20),
            rng: Rng::from_seed(seed ^ 1),
        });
        address.post(ToWorker::Add(Arc::clone(&torrent))).unwrap();
        let mut rig = Self { worker, address, torrent, statistics, events };
        rig.run(3);
        rig
    }

    fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            assert!(self.worker.turn().unwrap(), "the worker ended by itself");
        }
    }

    fn ring(&mut self) -> &mut SimRing {
        self.worker.ring_mut()
    }

    fn now(&mut self) -> Instant {
        self.ring().now()
    }

    /// Ends the worker; nothing may be left in anybody's hands.
    fn stop(mut self) {
        self.ring().faults = Faults::default();
        self.address.post(ToWorker::Stop).unwrap();
        for _ in 0..10_000 {
            if !self.worker.turn().unwrap() {
                break;
            }
        }
        assert_eq!((self.worker.connection_count(), self.worker.in_flight_count()), (0, 0));
        assert_eq!((self.ring().open_sockets(), self.ring().lent_buffers()), (0, 0));
    }
}

/// A peer that checks everything it is told.
struct SimPeer {
    socket: RawFd,
    decoder: Decoder,
    handshake: Vec<u8>,
    choked: bool,
    asked: Vec<BlockSpan>,
    reading: Option<(BlockSpan, usize)>,
    blocks: usize,
    rejects: usize,
    messages: Vec<u8>,
}

impl SimPeer {
    fn new(rig: &mut Rig) -> Self {
        let socket = rig.ring().dial();
        let decoder = Decoder::new(DecoderLimits::for_pieces(rig.torrent.facts.piece_count()));
        Self {
            socket,
            decoder,
            handshake: Vec::new(),
            choked: true,
            asked: Vec::new(),
            reading: None,
            blocks: 0,
            rejects: 0,
            messages: Vec::new(),
        }
    }

    fn introduce(&self, rig: &mut Rig) {
        let peer_id = PeerId([self.socket as u8; 20]);
        let handshake = Handshake { reserved: Reserved::OURS, info_hash: INFO_HASH, peer_id };
        rig.ring().peer_sends(self.socket, &handshake.encode());
        self.say(rig, &[Message::HaveNone, Message::Interested]);
    }

    fn joined(rig: &mut Rig) -> Self {
        let peer = Self::new(rig);
        peer.introduce(rig);
        peer
    }

    fn say(&self, rig: &mut Rig, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        rig.ring().peer_sends(self.socket, &bytes);
    }

    fn ask(&mut self, rig: &mut Rig, rng: &mut Rng) {
        let piece = PieceIndex(rng.below(u64::from(rig.torrent.facts.piece_count())) as u32);
        let len = rig.torrent.facts.piece_len(piece);
        let begin = rng.below(u64::from(len.div_ceil(BLOCK_LEN))) as u32 * BLOCK_LEN;
        let span = BlockSpan { piece, begin, len: BLOCK_LEN.min(len - begin) };
        self.say(rig, &[Message::Request(span)]);
        self.asked.push(span);
    }

    /// Reads what has arrived and checks it.
    fn read(&mut self, rig: &mut Rig) {
        let bytes = rig.ring().peer_reads(self.socket);
        let mut input = &bytes[..];
        if self.handshake.len() < HANDSHAKE_LEN {
            let taken = input.len().min(HANDSHAKE_LEN - self.handshake.len());
            self.handshake.extend_from_slice(&input[..taken]);
            input = &input[taken..];
        }
        while !input.is_empty() {
            if let Some((span, done)) = self.reading {
                let payload = self.decoder.take_payload(&mut input);
                let expected = &rig.torrent.content.expected(span)[done..done + payload.len()];
                assert!(payload == expected, "wrong bytes in {span} at {done}");
                let done = done + payload.len();
                self.reading = (self.decoder.payload_remaining() > 0).then_some((span, done));
                self.blocks += usize::from(self.reading.is_none());
                continue;
            }
            let Some(message) = self.decoder.decode(&mut input).expect("the worker speaks the protocol")
            else {
                break;
            };
            match message {
                Message::Piece(span) => {
                    let place = self.asked.iter().position(|asked| *asked == span);
                    self.asked.remove(place.unwrap_or_else(|| panic!("{span} was not asked for")));
                    self.reading = Some((span, 0));
                }
                Message::Reject(span) => {
                    let place = self.asked.iter().position(|asked| *asked == span);
                    self.asked.remove(place.unwrap_or_else(|| panic!("{span} was not asked for")));
                    self.rejects += 1;
                }
                Message::Choke => self.choked = true,
                Message::Unchoke => self.choked = false,
                Message::HaveAll => self.messages.push(14),
                Message::Extended { id: 0, .. } => self.messages.push(20),
                Message::AllowedFast(_) | Message::KeepAlive => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn is_open(&self, rig: &mut Rig) -> bool {
        rig.ring().is_open(self.socket)
    }
}

/// Turns until `done`, with a generous bound.
fn until(rig: &mut Rig, peers: &mut [SimPeer], mut done: impl FnMut(&mut Rig, &[SimPeer]) -> bool) {
    for _ in 0..20_000 {
        rig.run(1);
        for peer in peers.iter_mut() {
            peer.read(rig);
        }
        if done(rig, peers) {
            return;
        }
    }
    panic!("it never came to that");
}

fn bad_day(rng: &mut Rng) -> Faults {
    Faults {
        no_buffers: rng.below(200),
        resets: rng.below(10),
        short_sends: rng.below(10),
        refused_zero_copy: rng.below(100),
        copied_zero_copy: rng.below(1000),
        busy_disk: rng.below(300),
        delay_max: Duration::from_micros(rng.below(5000)),
    }
}

/// One run: peers come, ask, cancel, stall and go while everything that can go wrong does; then the faults end.
fn run_by_seed(seed: u64) {
    let mut rng = Rng::from_seed(seed);
    let faults = bad_day(&mut rng);
    let mode = [ZeroCopyMode::Auto, ZeroCopyMode::Always, ZeroCopyMode::Never][rng.index(3)];
    let limit = (rng.below(3) == 0).then_some(ByteRate(20_000_000));
    let mut rig = Rig::new(seed, faults, mode, limit);
    if rng.below(2) == 0 {
        rig.torrent.content.evict();
    }
    let mut peers: Vec<SimPeer> = Vec::new();
    for _ in 0..300 {
        if peers.len() < 12 {
            peers.push(SimPeer::joined(&mut rig));
        }
        for _ in 0..rng.below(6) {
            let peer = rng.index(peers.len());
            match rng.below(20) {
                0 => rig.ring().peer_closes(peers[peer].socket),
                1 => rig.ring().set_window(peers[peer].socket, 0),
                2 => rig.ring().set_window(peers[peer].socket, usize::MAX),
                3 => peers[peer].say(&mut rig, &[Message::NotInterested, Message::Interested]),
                4 => {
                    if let Some(span) = peers[peer].asked.last().copied() {
                        peers[peer].say(&mut rig, &[Message::Cancel(span)]);
                    }
                }
                _ if !peers[peer].choked && peers[peer].asked.len() < 500 => {
                    (0..rng.below(30)).for_each(|_| peers[peer].ask(&mut rig, &mut rng));
                }
                _ => {}
            }
        }
        let turns = rng.index(4) + 1;
        rig.run(turns);
        peers.iter_mut().for_each(|peer| peer.read(&mut rig));
        let keep: Vec<bool> = peers.iter().map(|peer| peer.is_open(&mut rig)).collect();
        let mut keep = keep.iter();
        peers.retain(|_| keep.next() == Some(&true));
    }
    rig.ring().faults = Faults::default();
    for peer in &mut peers {
        rig.ring().set_window(peer.socket, usize::MAX);
    }
    peers.push(SimPeer::joined(&mut rig));
    until(&mut rig, &mut peers, |_, peers| peers.last().is_some_and(|peer| !peer.choked));
    let last = peers.len() - 1;
    (0..100).for_each(|_| peers[last].ask(&mut rig, &mut rng));
    until(&mut rig, &mut peers, |rig, peers| {
        peers.iter().all(|peer| peer.asked.is_empty() || !peer.is_open(rig))
    });
    assert_eq!((peers[last].blocks, peers[last].rejects), (100, 0));
    rig.stop();
}

#[test]
fn bad_days_by_seed_send_no_wrong_byte_and_leave_nothing_behind() {
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| run_by_seed(seed));
        assert!(result.is_ok(), "failing seed: {seed}");
    }
}

#[test]
fn a_peer_is_told_everything_and_then_served() {
    let mut rig = Rig::new(1, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    assert_eq!(peers[0].messages, [14, 20]);
    let mut rng = Rng::from_seed(1);
    (0..200).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    until(&mut rig, &mut peers, |_, peers| peers[0].asked.is_empty());
    assert_eq!(peers[0].blocks, 200);
    let sends = rig.statistics[0].snapshot().sends;
    assert!(sends < 30, "200 requests became {sends} sends");
    rig.stop();
}

#[test]
fn an_upload_limit_is_kept_and_used() {
    let limit = ByteRate(5_000_000);
    let mut rig = Rig::new(2, Faults::default(), ZeroCopyMode::Never, Some(limit));
    let mut peers = [SimPeer::joined(&mut rig), SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let (mut rng, began) = (Rng::from_seed(2), rig.now());
    for peer in &mut peers {
        (0..800).for_each(|_| peer.ask(&mut rig, &mut rng));
    }
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| peer.asked.is_empty()));
    let (taken, seconds) =
        (rig.statistics[0].snapshot().payload_sent as f64, rig.now().since(began).as_secs_f64());
    let rate = taken / seconds;
    assert!(rate < 5_000_000.0 * 1.1 + burst_for(Some(limit)) as f64 / seconds, "{rate}");
    assert!(rate > 5_000_000.0 * 0.8, "{rate}");
    rig.stop();
}

#[test]
fn half_open_connections_end_in_time_and_leave_no_slot_behind() {
    let mut rig = Rig::new(3, Faults::default(), ZeroCopyMode::Auto, None);
    let silent: Vec<RawFd> = (0..2000).map(|_| rig.ring().dial()).collect();
    rig.run(2100);
    assert_eq!(rig.worker.connection_count(), 2000);
    let mut good = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut good, |_, peers| !peers[0].choked);
    let started = rig.now();
    let mut rng = Rng::from_seed(3);
    until(&mut rig, &mut good, |rig, _| rig.now() > started + HANDSHAKE_TIMEOUT);
    rig.run(10);
    assert_eq!(rig.worker.connection_count(), 1);
    assert!(silent.iter().all(|&socket| !rig.ring().is_open(socket)));
    good[0].ask(&mut rig, &mut rng);
    until(&mut rig, &mut good, |_, peers| peers[0].blocks == 1);
    rig.stop();
}

#[test]
fn one_byte_at_a_time_is_a_handshake_too() {
    let mut rig = Rig::new(4, Faults::default(), ZeroCopyMode::Auto, None);
    let peer = SimPeer::new(&mut rig);
    let handshake = Handshake { reserved: Reserved::OURS, info_hash: INFO_HASH, peer_id: PeerId([1; 20]) };
    for byte in handshake.encode() {
        rig.ring().peer_sends(peer.socket, &[byte]);
        rig.run(2);
    }
    let mut peers = [peer];
    peers[0].say(&mut rig, &[Message::HaveNone, Message::Interested]);
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.stop();
}

#[test]
fn a_failing_content_ends_its_connections_and_tells_why() {
    let mut rig = Rig::new(5, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.torrent.content.fail("the disk is gone");
    let mut rng = Rng::from_seed(5);
    peers[0].ask(&mut rig, &mut rng);
    until(&mut rig, &mut peers, |rig, peers| !peers[0].is_open(rig));
    rig.run(2);
    let expected = EngineEvent::TorrentFailed { torrent: INFO_HASH, reason: "the disk is gone".to_owned() };
    assert_eq!(rig.events.try_recv(), Ok(expected));
    rig.stop();
}

#[test]
fn a_flood_of_requests_ends_the_connection_within_bounded_memory() {
    let mut rig = Rig::new(6, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.ring().set_window(peers[0].socket, 0);
    let mut rng = Rng::from_seed(6);
    (0..3000).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    for _ in 0..20_000 {
        rig.run(1);
        if !rig.ring().is_open(peers[0].socket) {
            return rig.stop();
        }
    }
    panic!("the flood was tolerated");
}
