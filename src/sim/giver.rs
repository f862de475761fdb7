//! Peers that have pieces and give them, each in its own manner, and that check what is asked of them and told to them.

use super::ring::SimRing;
use super::sink::SimSink;
use super::store::SimStore;
use crate::bitfield::Bitfield;
use crate::id::{InfoHash, PeerId};
use crate::limits::REQUESTS_UNTOLD_MAX;
use crate::peer::TorrentFacts;
use crate::rng::Rng;
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::{
    Decoder, DecoderLimits, ExtensionHandshake, HANDSHAKE_LEN, Handshake, Message, Reserved, check_prefix,
    encode,
};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;

/// How a peer behaves; chances are in thousandths.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// It answers something in this turn.
    pub answers: u64,
    /// A block that it sends is wrong.
    pub lies: u64,
    /// It rejects a request instead of answering.
    pub rejects: u64,
    /// It chokes in this turn, when it does not; and lets go of it, when it does.
    pub chokes: u64,
    pub unchokes: u64,
    /// It goes in this turn.
    pub leaves: u64,
    /// It sends a block that nobody asked for instead of one.
    pub unasked: u64,
    /// It asks for a block of ours in this turn.
    pub asks: u64,
    /// It speaks the fast extension.
    pub fast: bool,
    /// The requests that it says it takes.
    pub reqq: Option<u32>,
}

impl Default for Manner {
    /// Honest and quick.
    fn default() -> Self {
        Self {
            answers: 1000,
            lies: 0,
            rejects: 0,
            chokes: 0,
            unchokes: 1000,
            leaves: 0,
            unasked: 0,
            asks: 0,
            fast: true,
            reqq: None,
        }
    }
}

/// What every peer knows of the torrent.
pub struct Truth {
    pub info_hash: InfoHash,
    pub store: Arc<SimStore>,
    pub facts: Arc<TorrentFacts>,
    pub sink: Arc<SimSink>,
    /// Pieces that were here from the start.
    pub at_first: Bitfield,
}

impl Truth {
    fn is_verified(&self, piece: PieceIndex) -> bool {
        self.at_first.contains(piece) || self.sink.has(piece)
    }
}

pub struct Giver {
    /// Where it listens.
    pub address: SocketAddr,
    pub peer_id: PeerId,
    pub manner: Manner,
    pub has: Bitfield,
    /// Our end of its connection, and on which worker.
    pub connection: Option<(usize, RawFd)>,
    /// Blocks that were asked of it and that it has not answered.
    pub asked: Vec<BlockSpan>,
    /// How often a block was asked of it, and cancelled.
    pub requests: usize,
    pub cancels: usize,
    /// Blocks sent that had been asked for.
    pub given: usize,
    pub lied: usize,
    /// It has been told that we are interested.
    pub wanted: bool,
    pub choking: bool,
    /// Pieces that it lets be asked for while it chokes.
    pub fast_pieces: Vec<PieceIndex>,
    /// Blocks that it asked for and got.
    pub got: usize,
    pub unchoked: bool,
    /// Pieces that we said we have.
    pub told: Bitfield,
    /// It keeps its tongue even when it is asked.
    pub silent: bool,
    was_silent: bool,
    decoder: Decoder,
    handshake: Vec<u8>,
    reading: Option<(BlockSpan, usize)>,
    asking: Vec<BlockSpan>,
}

impl Giver {
    pub fn new(number: usize, manner: Manner, has: Bitfield) -> Self {
        let mut peer_id = PeerId(*b"-XX0001-000000000000");
        peer_id.0[16..].copy_from_slice(&(number as u32).to_be_bytes());
        Self {
            address: SocketAddr::from((Ipv4Addr::new(198, 18, number as u8, 1), 7000 + number as u16)),
            peer_id,
            manner,
            told: Bitfield::none(has.len()),
            decoder: Decoder::new(DecoderLimits::for_pieces(has.len())),
            has,
            connection: None,
            asked: Vec::new(),
            requests: 0,
            cancels: 0,
            given: 0,
            lied: 0,
            wanted: false,
            choking: true,
            fast_pieces: Vec::new(),
            got: 0,
            unchoked: false,
            silent: false,
            was_silent: false,
            handshake: Vec::new(),
            reading: None,
            asking: Vec::new(),
        }
    }

    /// A connection has come about: introduces itself and says what it has.
    pub fn greet(&mut self, worker: usize, socket: RawFd, ring: &mut SimRing, truth: &Truth) {
        let fresh = Self::new(0, self.manner, self.has.clone());
        (self.decoder, self.handshake, self.reading) = (fresh.decoder, fresh.handshake, None);
        (self.asked, self.asking, self.told) = (Vec::new(), Vec::new(), fresh.told);
        (self.wanted, self.choking, self.unchoked) = (false, true, false);
        self.connection = Some((worker, socket));
        let mut reserved = Reserved::OURS;
        if !self.manner.fast {
            reserved.0[7] = 0;
        }
        let ours = Handshake { reserved, info_hash: truth.info_hash, peer_id: self.peer_id };
        ring.peer_sends(socket, &ours.encode());
        let stock = self.has.as_bytes().to_vec();
        match (self.manner.fast, self.has.count()) {
            (true, 0) => self.say(ring, &[Message::HaveNone]),
            (true, _) if self.has.is_full() => self.say(ring, &[Message::HaveAll]),
            (false, 0) => {}
            _ => self.say(ring, &[Message::Bitfield(&stock)]),
        }
        if let Some(reqq) = self.manner.reqq {
            let handshake =
                ExtensionHandshake { requests_queued_max: Some(reqq), ..ExtensionHandshake::default() };
            self.say(ring, &[Message::Extended { id: 0, payload: &handshake.encode() }]);
        }
        for piece in self.fast_pieces.clone() {
            self.say(ring, &[Message::AllowedFast(piece)]);
        }
        if self.manner.asks > 0 {
            self.say(ring, &[Message::Interested]);
        }
    }

    pub fn say(&self, ring: &mut SimRing, messages: &[Message<'_>]) {
        let Some((_, socket)) = self.connection else { return };
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        ring.peer_sends(socket, &bytes);
    }

    /// Gets one more piece, and says so.
    pub fn gain(&mut self, ring: &mut SimRing, piece: PieceIndex) {
        if self.has.insert(piece) {
            self.say(ring, &[Message::Have(piece)]);
        }
    }

    pub fn choke(&mut self, ring: &mut SimRing) {
        self.choking = true;
        self.say(ring, &[Message::Choke]);
        // Who speaks the fast extension answers each request all the same.
        let fast_pieces = self.fast_pieces.clone();
        let (kept, dropped): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.asked).into_iter().partition(|span| fast_pieces.contains(&span.piece));
        self.asked = kept;
        if self.manner.fast {
            dropped.into_iter().for_each(|span| self.say(ring, &[Message::Reject(span)]));
        }
    }

    pub fn unchoke(&mut self, ring: &mut SimRing) {
        self.choking = false;
        self.say(ring, &[Message::Unchoke]);
    }

    /// Sends a block, right or wrong.
    pub fn send(&mut self, ring: &mut SimRing, truth: &Truth, span: BlockSpan, right: bool) {
        let Some((_, socket)) = self.connection else { return };
        let mut bytes = Vec::new();
        encode(&Message::Piece(span), &mut bytes);
        let payload = bytes.len();
        bytes.extend_from_slice(truth.store.expected(span));
        if !right {
            bytes[payload + span.len as usize / 2] ^= 1;
            self.lied += 1;
        }
        ring.peer_sends(socket, &bytes);
    }

    /// One turn: reads, and does what its manner has it do. It gives up its connection when that has ended.
    pub fn act(&mut self, ring: &mut SimRing, truth: &Truth, rng: &mut Rng) {
        let Some((_, socket)) = self.connection else { return };
        let bytes = ring.peer_reads(socket);
        self.was_silent |= self.silent;
        self.read(ring, truth, &bytes);
        if !ring.is_open(socket) {
            self.connection = None;
            return;
        }
        let happens = |rng: &mut Rng, chance| rng.below(1000) < chance;
        if happens(rng, self.manner.leaves) {
            ring.peer_closes(socket);
        }
        if self.handshake.len() < HANDSHAKE_LEN || self.silent {
            return;
        }
        if self.choking && self.wanted && happens(rng, self.manner.unchokes) {
            self.unchoke(ring);
        } else if !self.choking && happens(rng, self.manner.chokes) {
            self.choke(ring);
        }
        if self.manner.asks > 0 && happens(rng, self.manner.asks) {
            self.ask(ring, truth, rng);
        }
        if self.asked.is_empty() || !happens(rng, self.manner.answers) {
            return;
        }
        if happens(rng, self.manner.unasked) {
            let span = BlockSpan { piece: PieceIndex(0), begin: 0, len: 100 };
            return self.send(ring, truth, span, true);
        }
        let chosen = if rng.below(4) == 0 { rng.index(self.asked.len()) } else { 0 };
        let span = self.asked.remove(chosen);
        if happens(rng, self.manner.rejects) && self.manner.fast {
            return self.say(ring, &[Message::Reject(span)]);
        }
        let right = !happens(rng, self.manner.lies);
        self.given += 1;
        self.send(ring, truth, span, right);
    }

    fn ask(&mut self, ring: &mut SimRing, truth: &Truth, rng: &mut Rng) {
        let pieces: Vec<PieceIndex> = self.told.iter().collect();
        if pieces.is_empty() || !self.unchoked || self.asking.len() > 5 {
            return;
        }
        let piece = pieces[rng.index(pieces.len())];
        let span =
            BlockSpan { piece, begin: 0, len: truth.facts.piece_len(piece).min(crate::units::BLOCK_LEN) };
        self.asking.push(span);
        self.say(ring, &[Message::Request(span)]);
    }

    fn read(&mut self, ring: &mut SimRing, truth: &Truth, bytes: &[u8]) {
        let mut input = bytes;
        if self.handshake.len() < HANDSHAKE_LEN {
            let taken = input.len().min(HANDSHAKE_LEN - self.handshake.len());
            self.handshake.extend_from_slice(&input[..taken]);
            input = &input[taken..];
        }
        // The side that a giver leaves tries encryption, which givers do not take.
        if check_prefix(&self.handshake).is_err() {
            if let Some((_, socket)) = self.connection {
                ring.peer_closes(socket);
            }
            return;
        }
        // What belongs to another connection's decoder does not come here: each greeting makes a new one.
        let mut decoder =
            std::mem::replace(&mut self.decoder, Decoder::new(DecoderLimits::for_pieces(self.has.len())));
        while !input.is_empty() {
            if let Some((span, done)) = self.reading {
                let payload = decoder.take_payload(&mut input);
                assert_eq!(payload, &truth.store.expected(span)[done..done + payload.len()], "{span}");
                let done = done + payload.len();
                self.reading = (decoder.payload_remaining() > 0).then_some((span, done));
                self.got += usize::from(self.reading.is_none());
                continue;
            }
            match decoder.decode(&mut input).expect("the worker speaks the protocol") {
                Some(message) => self.hear(ring, truth, message),
                None => break,
            }
        }
        self.decoder = decoder;
    }

    fn hear(&mut self, ring: &mut SimRing, truth: &Truth, message: Message<'_>) {
        match message {
            Message::Request(span) => {
                self.requests += 1;
                let len = truth.facts.piece_len(span.piece);
                assert!(self.has.contains(span.piece), "{span} was asked of a peer without it");
                assert!(span.begin + span.len <= len && span.len > 0, "{span} lies outside of its piece");
                if self.choking && !self.fast_pieces.contains(&span.piece) {
                    // On its way while the choke was.
                    if self.manner.fast {
                        self.say(ring, &[Message::Reject(span)]);
                    }
                    return;
                }
                if self.asked.contains(&span) {
                    // What crosses a choke without a word from us, or long silence, may be asked again; and our
                    // reject of what was cancelled may be taken for one of what was asked again after that.
                    let excused = !self.manner.fast
                        || !self.fast_pieces.is_empty()
                        || self.was_silent
                        || self.cancels > 0;
                    assert!(excused, "{span} was asked twice of {}", self.address);
                    return;
                }
                self.asked.push(span);
                let most = self.manner.reqq.unwrap_or(REQUESTS_UNTOLD_MAX) as usize;
                // What was on its way to a peer that chokes and unchokes without a reject is not counted twice by us.
                let excused = !self.manner.fast && self.manner.chokes > 0;
                assert!(self.asked.len() <= most || excused, "{} requests, {most} allowed", self.asked.len());
            }
            Message::Cancel(span) => {
                self.cancels += 1;
                if let Some(place) = self.asked.iter().position(|&asked| asked == span) {
                    self.asked.remove(place);
                    if self.manner.fast {
                        self.say(ring, &[Message::Reject(span)]);
                    }
                }
            }
            Message::Have(piece) => self.be_told(truth, piece),
            Message::Bitfield(bytes) => {
                let pieces = Bitfield::from_wire(bytes, self.has.len()).expect("a bitfield of the torrent");
                pieces.iter().for_each(|piece| self.be_told(truth, piece));
            }
            Message::HaveAll => {
                (0..self.has.len()).for_each(|piece| self.be_told(truth, PieceIndex(piece)));
            }
            Message::Interested => self.wanted = true,
            Message::NotInterested => self.wanted = false,
            Message::Choke => {
                self.unchoked = false;
                if !self.manner.fast {
                    self.asking.clear();
                }
            }
            Message::Unchoke => self.unchoked = true,
            Message::Reject(span) => self.asking.retain(|&asked| asked != span),
            Message::Piece(span) => {
                assert!(truth.is_verified(span.piece), "{span} is sent before it was verified");
                self.asking.retain(|&asked| asked != span);
                self.reading = Some((span, 0));
            }
            _ => {}
        }
    }

    fn be_told(&mut self, truth: &Truth, piece: PieceIndex) {
        assert!(truth.is_verified(piece), "piece {piece} is told before it was verified");
        // Twice when it was verified on another core while we were being greeted.
        self.told.insert(piece);
    }
}
