//! One or two production workers on simulated rings, and peers that check everything they are told.

use super::crew::{Crew, Terms};
use super::ring::{Faults, SimRing};
use super::store::SimStore;
use crate::bitfield::Bitfield;
use crate::choker::{Role, Slots};
use crate::engine::mailbox::Address;
use crate::engine::message::{EngineEvent, SharedTorrent, ToWorker, TorrentCounts};
use crate::engine::ring::Ring;
use crate::engine::statistics::WorkerStatistics;
use crate::engine::worker::Worker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::{InfoHash, PeerId};
use crate::peer::TorrentFacts;
use crate::pipeline::RateGate;
use crate::rng::Rng;
use crate::time::Instant;
use crate::torrent::TorrentParameters;
use crate::units::{BLOCK_LEN, BlockSpan, ByteRate, PieceIndex};
use crate::wire::{
    Answering, CryptoMethods, Decoder, DecoderLimits, Encryption, HANDSHAKE_LEN, Handshake, Message,
    MseStream, Reserved, SkeyHash, encode,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

pub const PIECE: u32 = 4 * BLOCK_LEN;
pub const TOTAL: usize = 40 * PIECE as usize + 5000;
pub const INFO_HASH: InfoHash = InfoHash([7; 20]);

pub struct Rig {
    /// Where the peers are.
    pub worker: Worker<SimRing, SimStore>,
    /// Where the torrent is at home, when that is another worker.
    pub home: Option<Worker<SimRing, SimStore>>,
    /// The other worker does not come to its turn.
    pub home_sleeps: bool,
    pub address: Address<ToWorker<SimStore>>,
    home_address: Option<Address<ToWorker<SimStore>>>,
    pub torrent: Arc<SharedTorrent<SimStore>>,
    pub statistics: Arc<[WorkerStatistics]>,
    pub events: Receiver<EngineEvent>,
}

/// A torrent that has everything, as workers share it.
pub fn seeded(
    info_hash: InfoHash,
    content: Arc<SimStore>,
    home: u16,
    slots: Slots,
) -> Arc<SharedTorrent<SimStore>> {
    let facts = TorrentFacts {
        info_hash,
        piece_length: PIECE,
        total_len: TOTAL as u64,
        have: Bitfield::all(TOTAL.div_ceil(PIECE as usize) as u32).into(),
        info: None,
        satisfied: true.into(),
        private: false,
        hides_stock: false.into(),
    };
    let parameters =
        TorrentParameters { role: Role::Seeding, slots, piece_len: PIECE, total_len: TOTAL as u64 };
    Arc::new(SharedTorrent {
        facts: Arc::new(facts),
        content: content.into(),
        home,
        parameters,
        peer_id: PeerId([9; 20]),
        gate: RateGate::new(None, 0),
        download: None,
        counts: TorrentCounts::default(),
    })
}

impl Rig {
    pub fn new(seed: u64, faults: Faults, zero_copy: ZeroCopyMode, limit: Option<ByteRate>) -> Self {
        Self::with_home(seed, faults, zero_copy, limit, None)
    }

    /// With a second worker as the torrent's home, whose mailbox holds so many messages.
    pub fn with_home(
        seed: u64,
        faults: Faults,
        zero_copy: ZeroCopyMode,
        limit: Option<ByteRate>,
        home_mailbox_len: Option<usize>,
    ) -> Self {
        Self::build(seed, faults, zero_copy, limit, home_mailbox_len, (Encryption::Allow, 50))
    }

    /// With another policy of encryption than the usual one, and a slot for everybody.
    pub fn encrypting(seed: u64, faults: Faults, zero_copy: ZeroCopyMode, encryption: Encryption) -> Self {
        Self::build(seed, faults, zero_copy, None, None, (encryption, 1000))
    }

    fn build(
        seed: u64,
        faults: Faults,
        zero_copy: ZeroCopyMode,
        limit: Option<ByteRate>,
        home_mailbox_len: Option<usize>,
        (encryption, slots): (Encryption, usize),
    ) -> Self {
        let store = SimStore::new(seed, TOTAL, PIECE);
        let home = u16::from(home_mailbox_len.is_some());
        let torrent = seeded(INFO_HASH, Arc::new(store), home, Slots::Fixed(slots));
        let mailbox_lens: Vec<_> = std::iter::once(16).chain(home_mailbox_len).collect();
        let terms = Terms {
            seed,
            faults,
            mailbox_lens: &mailbox_lens,
            zero_copy,
            upload_limit: limit,
            download_limit: None,
            encryption,
        };
        let Crew { workers, addresses, statistics, events } = Crew::gather(terms, &torrent);
        let mut workers = workers.into_iter();
        let (worker, home) = (workers.next().unwrap(), workers.next());
        let (address, home_address) = (addresses[0].clone(), addresses.get(1).cloned());
        let mut rig =
            Self { worker, home, home_sleeps: false, address, home_address, torrent, statistics, events };
        rig.run(3);
        rig
    }

    /// What the torrent is served from.
    pub fn content(&self) -> &Arc<SimStore> {
        self.torrent.content.always_open().expect("the rig opens it once and for all")
    }

    pub fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            assert!(self.worker.turn().unwrap(), "the worker ended by itself");
            if let Some(home) = self.home.as_mut().filter(|_| !self.home_sleeps) {
                assert!(home.turn().unwrap(), "the home ended by itself");
            }
        }
    }

    /// Tells all workers, the home first, and lets it sink in.
    pub fn tell(&mut self, message: impl Fn(&Arc<SharedTorrent<SimStore>>) -> ToWorker<SimStore>) {
        for address in self.home_address.iter().chain([&self.address]) {
            address.post(message(&self.torrent)).expect("there is room in the mailbox");
        }
        self.run(20);
    }

    pub fn ring(&mut self) -> &mut SimRing {
        self.worker.ring_mut()
    }

    pub fn now(&mut self) -> Instant {
        self.ring().now()
    }

    /// Ends the worker; nothing may be left in anybody's hands.
    pub fn stop(mut self) {
        self.ring().faults = Faults::default();
        self.home_sleeps = false;
        self.run(20);
        self.address.post(ToWorker::Stop).unwrap();
        for _ in 0..10_000 {
            let ended = !self.worker.turn().unwrap();
            if let Some(home) = &mut self.home {
                home.turn().unwrap();
            }
            if ended {
                break;
            }
        }
        if let Some(mut home) = self.home.take() {
            if let Some(address) = &self.home_address {
                address.post(ToWorker::Stop).unwrap();
            }
            while home.turn().unwrap() {}
        }
        assert_eq!((self.worker.connection_count(), self.worker.in_flight_count()), (0, 0));
        assert_eq!((self.ring().open_sockets(), self.ring().lent_buffers()), (0, 0));
        assert_eq!(self.worker.pinned_bytes(), 0);
        assert_eq!(self.torrent.counts.connections.load(Relaxed), 0);
    }
}

/// A peer that checks everything it is told.
pub struct SimPeer {
    pub socket: RawFd,
    info_hash: InfoHash,
    pub decoder: Decoder,
    pub handshake: Vec<u8>,
    pub choked: bool,
    pub asked: Vec<BlockSpan>,
    pub reading: Option<(BlockSpan, usize)>,
    pub blocks: usize,
    pub rejects: usize,
    pub messages: Vec<u8>,
    pub fast_pieces: usize,
    encryption: RefCell<Option<PeerEncryption>>,
}

/// An encrypted peer's part.
struct PeerEncryption {
    stream: MseStream,
    /// Waits for the end of the encrypted handshake.
    unsaid: Vec<u8>,
    rng: Rng,
}

impl PeerEncryption {
    fn new(stream: MseStream) -> Self {
        Self { stream, unsaid: Vec::new(), rng: Rng::from_seed(1) }
    }

    /// What goes over the line now.
    fn said(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.stream.poll_output(&mut bytes);
        if self.stream.is_open() {
            let start = bytes.len();
            bytes.append(&mut self.unsaid);
            self.stream.encrypt(&mut bytes[start..]);
        }
        bytes
    }

    fn received(&mut self, mut bytes: Vec<u8>) -> Vec<u8> {
        let skeys = BTreeMap::from([(SkeyHash::of(&INFO_HASH), INFO_HASH)]);
        let mut answering = Answering { secret: || [6; 20], pads: &mut self.rng, skeys: &skeys };
        let mut received = self.stream.receive(&mut bytes, &mut answering).expect("the worker speaks MSE");
        received.first.extend_from_slice(&bytes[received.start..]);
        received.first
    }
}

impl SimPeer {
    pub fn new(rig: &mut Rig) -> Self {
        let socket = rig.ring().dial();
        Self::on(rig, socket)
    }

    /// A peer that calls from this address.
    pub fn joined_from(rig: &mut Rig, address: SocketAddr) -> Self {
        let socket = rig.ring().dial_from(address);
        let peer = Self::on(rig, socket);
        peer.introduce(rig);
        peer
    }

    /// The peer at the other end of this socket.
    pub fn on(rig: &Rig, socket: RawFd) -> Self {
        let decoder = Decoder::new(DecoderLimits::for_pieces(rig.torrent.facts.piece_count()));
        Self {
            socket,
            info_hash: INFO_HASH,
            decoder,
            handshake: Vec::new(),
            choked: true,
            asked: Vec::new(),
            reading: None,
            blocks: 0,
            rejects: 0,
            messages: Vec::new(),
            fast_pieces: 0,
            encryption: RefCell::new(None),
        }
    }

    /// A peer that opens with an encrypted handshake and offers these methods.
    pub fn joined_encrypted(rig: &mut Rig, offered: CryptoMethods) -> Self {
        let socket = rig.ring().dial();
        Self::encrypted_on(rig, socket, offered)
    }

    /// The same from this address.
    pub fn joined_encrypted_from(rig: &mut Rig, address: SocketAddr, offered: CryptoMethods) -> Self {
        let socket = rig.ring().dial_from(address);
        Self::encrypted_on(rig, socket, offered)
    }

    fn encrypted_on(rig: &mut Rig, socket: RawFd, offered: CryptoMethods) -> Self {
        let peer = Self::on(rig, socket);
        let (handshake, mut rng) = (peer.handshake().encode(), Rng::from_seed(peer.socket as u64));
        let stream = MseStream::outgoing([8; 20], &mut rng, INFO_HASH, offered, &handshake);
        peer.encryption.replace(Some(PeerEncryption::new(stream)));
        peer.say(rig, &[Message::HaveNone, Message::Interested]);
        peer
    }

    /// Takes an encrypted handshake from the worker that has called it.
    pub fn takes_encryption(&self, policy: Encryption) {
        self.encryption.replace(Some(PeerEncryption::new(MseStream::incoming(policy))));
    }

    /// Whether what it sends and gets is RC4.
    pub fn encrypts(&self) -> bool {
        self.encryption.borrow().as_ref().is_some_and(|encryption| encryption.stream.encrypts())
    }

    /// A peer that has joined the swarm of this torrent, whose content is the rig's.
    pub fn joined_to(rig: &mut Rig, info_hash: InfoHash) -> Self {
        let peer = Self { info_hash, ..Self::new(rig) };
        peer.introduce(rig);
        peer
    }

    fn handshake(&self) -> Handshake {
        let mut peer_id = PeerId(*b"-XX0001-000000000000");
        peer_id.0[16..].copy_from_slice(&self.socket.to_be_bytes());
        Handshake { reserved: Reserved::OURS, info_hash: self.info_hash, peer_id }
    }

    fn send(&self, rig: &mut Rig, bytes: &[u8]) {
        match &mut *self.encryption.borrow_mut() {
            None => rig.ring().peer_sends(self.socket, bytes),
            Some(encryption) => {
                encryption.unsaid.extend_from_slice(bytes);
                rig.ring().peer_sends(self.socket, &encryption.said());
            }
        }
    }

    pub fn introduce(&self, rig: &mut Rig) {
        self.send(rig, &self.handshake().encode());
        self.say(rig, &[Message::HaveNone, Message::Interested]);
    }

    pub fn joined(rig: &mut Rig) -> Self {
        let peer = Self::new(rig);
        peer.introduce(rig);
        peer
    }

    pub fn say(&self, rig: &mut Rig, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.send(rig, &bytes);
    }

    pub fn ask(&mut self, rig: &mut Rig, rng: &mut Rng) {
        let piece = PieceIndex(rng.below(u64::from(rig.torrent.facts.piece_count())) as u32);
        let len = rig.torrent.facts.piece_len(piece);
        let begin = rng.below(u64::from(len.div_ceil(BLOCK_LEN))) as u32 * BLOCK_LEN;
        let span = BlockSpan { piece, begin, len: BLOCK_LEN.min(len - begin) };
        self.say(rig, &[Message::Request(span)]);
        self.asked.push(span);
    }

    /// Asks for every block, in order.
    pub fn ask_for_all(&mut self, rig: &mut Rig) {
        for piece in (0..rig.torrent.facts.piece_count()).map(PieceIndex) {
            let piece_len = rig.torrent.facts.piece_len(piece);
            for begin in (0..piece_len).step_by(BLOCK_LEN as usize) {
                let span = BlockSpan { piece, begin, len: BLOCK_LEN.min(piece_len - begin) };
                self.say(rig, &[Message::Request(span)]);
                self.asked.push(span);
            }
        }
    }

    /// Reads what has arrived and checks it.
    pub fn read(&mut self, rig: &mut Rig) {
        let mut bytes = rig.ring().peer_reads(self.socket);
        if let Some(encryption) = &mut *self.encryption.borrow_mut() {
            bytes = encryption.received(bytes);
            rig.ring().peer_sends(self.socket, &encryption.said());
        }
        let mut input = &bytes[..];
        if self.handshake.len() < HANDSHAKE_LEN {
            let taken = input.len().min(HANDSHAKE_LEN - self.handshake.len());
            self.handshake.extend_from_slice(&input[..taken]);
            input = &input[taken..];
        }
        while !input.is_empty() {
            if let Some((span, done)) = self.reading {
                let payload = self.decoder.take_payload(&mut input);
                let expected = &rig.content().expected(span)[done..done + payload.len()];
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
                Message::AllowedFast(_) => self.fast_pieces += 1,
                Message::KeepAlive => {}
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    pub fn is_open(&self, rig: &mut Rig) -> bool {
        rig.ring().is_open(self.socket)
    }
}

/// Turns until `done`, with a generous bound.
pub fn until(rig: &mut Rig, peers: &mut [SimPeer], mut done: impl FnMut(&mut Rig, &[SimPeer]) -> bool) {
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
