//! The machine itself. Its rules stand at the messages they belong to.

mod downloading;
mod extensions;
mod foresight;
mod ours;
mod uploading;

use super::allowed_fast::allowed_fast_set;
use super::download::Download;
use super::event::{OurExtension, PeerError, PeerEvent, Stock};
use super::facts::{SpanFault, TorrentFacts};
use super::hidden::HiddenStock;
use super::words::words_of;
use crate::bitfield::Bitfield;
use crate::id::{InfoHash, PeerId};
use crate::limits::{
    ALLOWED_FAST_LEN_MAX, ALLOWED_FAST_MAX, CONTROL_QUEUED_LEN_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT,
    KEEP_ALIVE_INTERVAL, PEX_INTERVAL_MIN, PEX_MESSAGES_FREE, PEX_OFFENCES_MAX, PEX_PAYLOAD_LEN_MAX,
    REJECTS_MAX, REQUESTS_QUEUED_MAX, REQUESTS_WHILE_CHOKED_MAX,
};
use crate::metadata::{Answer, MetadataService};
use crate::pipeline::{Pushed, RequestQueue};
use crate::time::Instant;
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::{
    Decoder, DecoderLimits, EXTENSION_HANDSHAKE_ID, ExtensionHandshake, ExtensionIds, HANDSHAKE_LEN,
    Handshake, Message, MetadataMessage, Reserved, check_prefix, encode,
};
use std::net::IpAddr;
use std::sync::Arc;

/// What we call ourselves (BEP 10 `v`).
const CLIENT_NAME: &str = concat!("Seedring/", env!("CARGO_PKG_VERSION"));

/// Our numbers for the extended messages that we understand (BEP 10).
pub(crate) const OUR_PEX_ID: u8 = 1;
const METADATA_ID: u8 = 2;
const OUR_UPLOAD_ONLY_ID: u8 = 3;
pub(crate) const OUR_DONT_HAVE_ID: u8 = 4;

/// Who we are to this peer.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Our peer id in this swarm.
    pub peer_id: PeerId,
    /// The port we listen on; zero when we do not.
    pub port: u16,
    /// The peer's address, for allowed-fast pieces and to tell it (`yourip`).
    pub remote: IpAddr,
}

/// One connection's state.
#[derive(Debug)]
pub struct PeerMachine {
    phase: Phase,
    /// Our own handshake has gone: the connection is one that we opened.
    introduced: bool,
    opened_at: Instant,
    received_at: Instant,
    sent_at: Instant,
    control: Vec<u8>,
    /// Bytes of `control` that the peer itself made us say. What we queue of our own is not its fault.
    answers_len: usize,
    /// See [`words`](Self::words).
    words: u64,
    /// Pieces of ours that it is to be told of as it reads.
    untold: Option<Box<Bitfield>>,
    queue: RequestQueue,
    fast: bool,
    said_what_it_has: bool,
    pieces: Pieces,
    interested: bool,
    choked_by_us: bool,
    choked_by_them: bool,
    upload_only: bool,
    rejects: u32,
    requests_while_choked: u32,
    /// All of them that were refused.
    refused: u32,
    /// Pieces served although choked, and the bytes of them still to be had.
    fast_pieces: Vec<PieceIndex>,
    fast_budget: u64,
    fast_withheld: bool,
    /// The peer's share of our info dictionary; most peers never ask for it.
    metadata: Option<Box<MetadataService>>,
    /// What the peer said of its extensions, if it did.
    theirs: Option<Box<ExtensionHandshake>>,
    /// Exists from the moment on in which the torrent's home found the peer interesting.
    download: Option<Box<Download>>,
    /// Something may have changed in it since this was asked last.
    download_touched: bool,
    /// The block that is arriving and was asked for.
    arriving: Option<BlockSpan>,
    extended: Vec<u8>,
    /// Pieces it said it has lost.
    lost: u32,
    /// While the peer does not know all that we have (BEP 16).
    hidden: Option<Box<HiddenStock>>,
    /// When the messages of peer exchange have begun to be counted, and how many there were.
    exchange_window: (Instant, u32),
}

#[derive(Debug)]
enum Phase {
    /// Gathering the peer's handshake.
    Handshake { bytes: Box<[u8; HANDSHAKE_LEN]>, len: usize },
    /// The shell has the handshake and has to decide.
    Introduced(Reserved),
    /// Talking.
    Open(Box<Open>),
}

#[derive(Debug)]
struct Open {
    facts: Arc<TorrentFacts>,
    decoder: Decoder,
    identity: Identity,
}

/// What the peer has, in no more memory than it takes.
#[derive(Debug)]
enum Pieces {
    None,
    Some(Bitfield),
    All,
}

impl Pieces {
    /// Whether this is `earlier` and more.
    fn extends(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::None, _) | (_, Self::All) => false,
            (Self::All, _) => true,
            (Self::Some(now), Self::None) => now.count() > 0,
            (Self::Some(now), Self::Some(before)) => now.count() > before.count() && now.contains_all(before),
        }
    }
}

impl PeerMachine {
    /// The machine of a connection that a peer has opened.
    pub fn incoming(now: Instant) -> Self {
        Self {
            phase: Phase::Handshake { bytes: Box::new([0; HANDSHAKE_LEN]), len: 0 },
            introduced: false,
            opened_at: now,
            received_at: now,
            sent_at: now,
            control: Vec::new(),
            answers_len: 0,
            words: 0,
            untold: None,
            queue: RequestQueue::new(),
            fast: false,
            said_what_it_has: false,
            pieces: Pieces::None,
            interested: false,
            choked_by_us: true,
            choked_by_them: true,
            upload_only: false,
            rejects: 0,
            requests_while_choked: 0,
            refused: 0,
            fast_pieces: Vec::new(),
            fast_budget: 0,
            fast_withheld: false,
            metadata: None,
            theirs: None,
            download: None,
            download_touched: false,
            arriving: None,
            extended: Vec::new(),
            lost: 0,
            hidden: None,
            exchange_window: (now, 0),
        }
    }

    /// The machine of a connection that we open: we introduce ourselves first. The peer's handshake comes as an
    /// event as with [`incoming`](Self::incoming).
    pub fn outgoing(now: Instant, info_hash: InfoHash, peer_id: PeerId) -> Self {
        let mut machine = Self::incoming(now);
        machine.introduce(info_hash, peer_id);
        machine
    }

    fn introduce(&mut self, info_hash: InfoHash, peer_id: PeerId) {
        self.introduced = true;
        let ours = Handshake { reserved: Reserved::OURS, info_hash, peer_id };
        self.control.extend_from_slice(&ours.encode());
    }

    /// This peer is to get no allowed-fast pieces, as when others from its address have just had theirs.
    pub fn withhold_fast_pieces(&mut self) {
        self.fast_withheld = true;
    }

    /// The shell serves the torrent of the peer's handshake: introduce ourselves and say what we have.
    pub fn accept(&mut self, facts: Arc<TorrentFacts>, identity: Identity) {
        let Phase::Introduced(theirs) = self.phase else { return };
        if !self.introduced {
            self.introduce(facts.info_hash, identity.peer_id);
        }
        self.fast = theirs.fast();
        // One look: the next piece may be verified while we speak.
        let have = facts.have.snapshot();
        if facts.hides_stock() {
            self.hidden = Some(Box::new(HiddenStock::new(facts.piece_count())));
            if self.fast {
                encode(&Message::HaveNone, &mut self.control);
            }
        } else if self.fast && have.is_full() {
            encode(&Message::HaveAll, &mut self.control);
        } else if self.fast && have.count() == 0 {
            encode(&Message::HaveNone, &mut self.control);
        } else if have.count() > 0 {
            encode(&Message::Bitfield(have.as_bytes()), &mut self.control);
        }
        if theirs.extended() {
            let handshake = ExtensionHandshake {
                ids: ExtensionIds {
                    dont_have: Some(OUR_DONT_HAVE_ID),
                    upload_only: Some(OUR_UPLOAD_ONLY_ID),
                    metadata: facts.info_len().map(|_| METADATA_ID),
                    pex: facts.may_exchange_peers().then_some(OUR_PEX_ID),
                },
                requests_queued_max: Some(REQUESTS_QUEUED_MAX as u32),
                client: Some(CLIENT_NAME.to_owned()),
                your_address: Some(identity.remote.to_canonical()),
                port: Some(identity.port).filter(|&port| port != 0),
                // A peer that has nothing and only uploads would be of no use to anybody.
                upload_only: facts.wants_nothing() && self.hidden.is_none(),
                metadata_len: facts.info_len(),
            };
            let payload = handshake.encode();
            encode(&Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &payload }, &mut self.control);
        }
        let decoder = Decoder::new(DecoderLimits::for_pieces(facts.piece_count()));
        self.phase = Phase::Open(Box::new(Open { facts, decoder, identity }));
    }

    /// Words that the peer has said, in all: its messages that neither ask for a block nor bring one, and every 64 bytes of
    /// what they carry.
    pub fn words(&self) -> u64 {
        self.words
    }

    /// Takes bytes from the front of `input`, up to the next event. `Ok(None)` means that `input` is used up.
    pub fn handle_bytes(&mut self, now: Instant, input: &mut &[u8]) -> Result<Option<PeerEvent>, PeerError> {
        self.received_at = now;
        if let Phase::Handshake { bytes, len } = &mut self.phase {
            let taken = input.len().min(HANDSHAKE_LEN - *len);
            let (head, rest) = input.split_at(taken);
            bytes[*len..*len + taken].copy_from_slice(head);
            *len += taken;
            *input = rest;
            check_prefix(&bytes[..*len])?;
            if *len < HANDSHAKE_LEN {
                return Ok(None);
            }
            let handshake = Handshake::decode(bytes)?;
            self.phase = Phase::Introduced(handshake.reserved);
            return Ok(Some(PeerEvent::Handshake(handshake)));
        }
        if !self.is_open() {
            // The shell has not answered the handshake yet.
            return Ok(None);
        }
        // The phase is taken out while its decoder lends messages, and put back on every path.
        let Phase::Open(mut open) = std::mem::replace(&mut self.phase, Phase::Introduced(Reserved::NONE))
        else {
            return Ok(None);
        };
        let result = self.handle_messages(now, &mut open, input);
        self.phase = Phase::Open(open);
        result
    }

    fn handle_messages(
        &mut self,
        now: Instant,
        open: &mut Open,
        input: &mut &[u8],
    ) -> Result<Option<PeerEvent>, PeerError> {
        while let Some(message) = open.decoder.decode(input)? {
            self.words = self.words.wrapping_add(words_of(&message));
            let queued = self.control.len();
            let event = self.handle_message(now, &open.facts, open.identity.remote, message)?;
            self.answers_len += self.control.len() - queued;
            if self.answers_len > CONTROL_QUEUED_LEN_MAX {
                return Err(PeerError::NotReading);
            }
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn handle_message(
        &mut self,
        now: Instant,
        facts: &TorrentFacts,
        remote: IpAddr,
        message: Message<'_>,
    ) -> Result<Option<PeerEvent>, PeerError> {
        match message {
            Message::Request(span) => self.handle_request(facts, span)?,
            Message::Cancel(span) => {
                // BEP 6: every request is answered, by the block or by a reject. A cancel that comes after
                // the block has left finds nothing.
                if self.queue.cancel(span) && self.fast {
                    encode(&Message::Reject(span), &mut self.control);
                }
            }
            Message::Interested | Message::NotInterested => {
                let interested = message == Message::Interested;
                if self.interested != interested {
                    self.interested = interested;
                    return Ok(Some(PeerEvent::Interested(interested)));
                }
            }
            Message::Have(piece) => return self.handle_have(facts, piece),
            Message::Bitfield(bytes) => {
                let bitfield = Bitfield::from_wire(bytes, facts.piece_count())?;
                let pieces = if bitfield.is_full() { Pieces::All } else { Pieces::Some(bitfield) };
                return self.handle_stock(facts, remote, pieces);
            }
            Message::HaveAll => {
                self.require_fast()?;
                return self.handle_stock(facts, remote, Pieces::All);
            }
            Message::HaveNone => {
                self.require_fast()?;
                return self.handle_stock(facts, remote, Pieces::None);
            }
            Message::Choke | Message::Unchoke => {
                let choked = message == Message::Choke;
                if self.choked_by_them != choked {
                    self.choked_by_them = choked;
                    if let Some(download) = self.download_mut() {
                        download.handle_choke(now, choked);
                    }
                    return Ok(Some(PeerEvent::ChokedByThem(choked)));
                }
            }
            Message::Suggest(piece) | Message::AllowedFast(piece) => {
                self.require_fast()?;
                require_piece(facts, piece)?;
                let is_offer = matches!(message, Message::AllowedFast(_));
                let Some(download) = self.download_for(now, facts) else { return Ok(None) };
                if is_offer {
                    download.handle_allowed_fast(piece);
                } else {
                    download.handle_suggest(piece);
                }
            }
            // A reject of something never asked for says nothing.
            Message::Reject(span) => {
                self.require_fast()?;
                if let Some(download) = self.download_mut() {
                    download.handle_reject(span)?;
                }
            }
            Message::Piece(span) => {
                let Some(download) = self.download_mut() else { return Err(PeerError::UnwantedBlock(span)) };
                let asked = download.handle_block(span)?;
                self.arriving = asked.then_some(span);
                return Ok(Some(PeerEvent::Block { span, asked }));
            }
            Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => {
                if self.handle_extended_handshake(payload) {
                    return Ok(Some(PeerEvent::Extensions));
                }
            }
            Message::Extended { id: OUR_PEX_ID, payload } if facts.may_exchange_peers() => {
                self.count_exchange(now)?;
                if payload.len() > PEX_PAYLOAD_LEN_MAX {
                    return Ok(None);
                }
                self.extended = payload.to_vec();
                return Ok(Some(PeerEvent::Extended(OurExtension::Pex)));
            }
            Message::Extended { id: OUR_UPLOAD_ONLY_ID, payload } => {
                self.upload_only = payload.first().is_some_and(|&flag| flag != 0);
            }
            Message::Extended { id: OUR_DONT_HAVE_ID, payload } => {
                return self.handle_dont_have(facts, payload);
            }
            Message::Extended { id: METADATA_ID, payload } => self.handle_metadata_message(facts, payload),
            Message::KeepAlive | Message::Port(_) | Message::Extended { .. } | Message::Unknown { .. } => {}
        }
        Ok(None)
    }

    fn handle_have(
        &mut self,
        facts: &TorrentFacts,
        piece: PieceIndex,
    ) -> Result<Option<PeerEvent>, PeerError> {
        require_piece(facts, piece)?;
        self.said_what_it_has = true;
        if matches!(self.pieces, Pieces::None) {
            self.pieces = Pieces::Some(Bitfield::none(facts.piece_count()));
        }
        let Pieces::Some(bitfield) = &mut self.pieces else { return Ok(None) };
        if !bitfield.insert(piece) {
            return Ok(None);
        }
        if bitfield.is_full() {
            self.pieces = Pieces::All;
            return Ok(Some(PeerEvent::Complete { arrived: false }));
        }
        Ok(Some(PeerEvent::Have(piece)))
    }

    /// The peer says what it has all in all: in its first message, or later in place of many haves, as aria2
    /// does. Each time after the first it must add a piece and take none back, which bounds their number.
    fn handle_stock(
        &mut self,
        facts: &TorrentFacts,
        remote: IpAddr,
        pieces: Pieces,
    ) -> Result<Option<PeerEvent>, PeerError> {
        let first = !std::mem::replace(&mut self.said_what_it_has, true);
        if !first && !pieces.extends(&self.pieces) {
            return Err(PeerError::SecondBitfield);
        }
        self.pieces = pieces;
        if matches!(self.pieces, Pieces::All) {
            return Ok(Some(PeerEvent::Complete { arrived: first }));
        }
        let newcomer = first && self.fast && !self.fast_withheld && self.hidden.is_none();
        if newcomer && (self.piece_count() as usize) < ALLOWED_FAST_MAX {
            self.grant_fast_pieces(facts, remote);
        }
        Ok(Some(PeerEvent::Stock))
    }

    fn require_fast(&self) -> Result<(), PeerError> {
        if self.fast { Ok(()) } else { Err(PeerError::FastNotAgreed) }
    }

    /// What the peer has.
    pub fn stock(&self) -> Stock<'_> {
        match &self.pieces {
            Pieces::None => Stock::None,
            Pieces::Some(bitfield) => Stock::Some(bitfield),
            Pieces::All => Stock::All,
        }
    }

    /// What is due at `now`: a keep-alive, or the end.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), PeerError> {
        if !matches!(self.phase, Phase::Open(_)) {
            let late = now >= self.opened_at + HANDSHAKE_TIMEOUT;
            return if late { Err(PeerError::HandshakeTimeout) } else { Ok(()) };
        }
        if now >= self.received_at + IDLE_TIMEOUT {
            return Err(PeerError::Idle);
        }
        if now >= self.sent_at + KEEP_ALIVE_INTERVAL {
            self.sent_at = now;
            if self.queue.is_empty() {
                self.queue.compact();
            }
            // Blocks may wait behind a rate limit for longer than the peer waits for us.
            if self.control.is_empty() {
                encode(&Message::KeepAlive, &mut self.control);
            }
        }
        Ok(())
    }

    /// The shell has sent something.
    pub fn handle_sent(&mut self, now: Instant) {
        self.sent_at = now;
    }

    /// When [`handle_timeout`](Self::handle_timeout) is due.
    pub fn poll_timeout(&self) -> Instant {
        if matches!(self.phase, Phase::Open(_)) {
            (self.received_at + IDLE_TIMEOUT).min(self.sent_at + KEEP_ALIVE_INTERVAL)
        } else {
            self.opened_at + HANDSHAKE_TIMEOUT
        }
    }

    /// Moves the control bytes that wait to the end of `out`, and one piece of the info dictionary when some were
    /// asked for: there may be more of them then ([`has_control`](Self::has_control)).
    pub fn poll_control(&mut self, out: &mut Vec<u8>) {
        // An idle connection keeps no buffer.
        let control = std::mem::take(&mut self.control);
        self.answers_len = 0;
        if out.capacity() == 0 {
            *out = control;
        } else {
            out.extend_from_slice(&control);
        }
        self.poll_untold(out);
        self.poll_metadata(out);
        if let (Some(hidden), Phase::Open(open)) = (&mut self.hidden, &self.phase)
            && hidden.poll_haves(&open.facts.have, out)
        {
            self.hidden = None;
            self.send_extended(|ids| ids.upload_only, &[1]);
            out.append(&mut self.control);
        }
    }

    /// Whether there is anything to send.
    pub fn has_output(&self) -> bool {
        self.has_control() || !self.queue.is_empty()
    }

    /// Whether control bytes wait, which no rate limit holds back.
    pub fn has_control(&self) -> bool {
        !self.control.is_empty()
            || self.untold.is_some()
            || self.metadata.as_ref().is_some_and(|service| service.has_data()) && self.has_info()
            || self.hidden.as_ref().is_some_and(|hidden| hidden.has_haves())
    }

    /// Control bytes that wait to be taken.
    pub fn control_queued_len(&self) -> usize {
        self.control.len()
    }

    /// Bytes of memory that queues and control bytes hold.
    pub fn buffered_bytes(&self) -> usize {
        self.upload_bytes() + self.download.as_ref().map_or(0, |download| download.buffered_bytes())
    }

    /// The peer wants blocks of us.
    pub fn interested(&self) -> bool {
        self.interested
    }

    /// We choke the peer.
    pub fn choked_by_us(&self) -> bool {
        self.choked_by_us
    }

    /// The peer chokes us.
    pub fn choked_by_them(&self) -> bool {
        self.choked_by_them
    }

    /// The peer says it only uploads (BEP 21).
    pub fn upload_only(&self) -> bool {
        self.upload_only
    }

    /// The peer has had its handshake answered.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open(_))
    }

    /// Pieces the peer says it has.
    pub fn piece_count(&self) -> u32 {
        match (&self.pieces, &self.phase) {
            (Pieces::None, _) => 0,
            (Pieces::Some(bitfield), _) => bitfield.count(),
            (Pieces::All, Phase::Open(open)) => open.facts.piece_count(),
            (Pieces::All, _) => u32::MAX,
        }
    }
}

fn require_piece(facts: &TorrentFacts, piece: PieceIndex) -> Result<(), PeerError> {
    if piece.0 < facts.piece_count() { Ok(()) } else { Err(PeerError::PieceOutOfRange(piece)) }
}
