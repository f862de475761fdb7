//! One downloading connection without its socket: what to say to any seeder, and what its answers mean.
//!
//! The requester plays a peer that has nothing and wants everything: handshake, have none, interested, then
//! `depth` requests in flight whenever it is unchoked (BEP 3, 6, 10). It keeps nothing of what it receives
//! unless pieces are verified. Per block it does a constant amount of work as long as the seeder answers in
//! order; out of order it looks through the requests in flight.
//!
//! Contract: `handle_connected` once, then `handle_bytes` with whatever arrives and [`Requester::poll_requests`]
//! after it; both append to the bytes to send. Payload that nobody wants to see need not be received into
//! memory: see [`Requester::discardable`].

use super::content::{Content, Walk};
use super::tally::Tally;
use crate::id::{InfoHash, PeerId};
use crate::limits::KEEP_ALIVE_INTERVAL;
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, BlockSpan, Counted, PieceIndex};
use crate::wire::{
    self, Decoder, DecoderLimits, EXTENSION_HANDSHAKE_ID, ExtensionHandshake, HANDSHAKE_LEN, Handshake,
    Message, MseError, Reserved, WireError,
};
use std::collections::VecDeque;

/// What the target did that ends a connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetFault {
    /// It does not take an encrypted handshake, or breaks one.
    #[error(transparent)]
    Encryption(#[from] MseError),
    /// It broke the peer wire.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It answered with another torrent.
    #[error("the target answered for another torrent, {0}")]
    OtherTorrent(InfoHash),
    /// It rejects everything.
    #[error("the target rejected {} in a row", Counted(*.0, "request"))]
    RejectsAll(u32),
}

/// Rejected requests without a block between them after which the target is hopeless.
const REJECTS_IN_A_ROW_MAX: u32 = 10_000;

/// When the parts of a connection's beginning were done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Milestones {
    /// The connection attempt began.
    pub started: Instant,
    /// TCP was connected.
    pub connected: Option<Instant>,
    /// The target's handshake was complete.
    pub handshaken: Option<Instant>,
    /// The first unchoke arrived.
    pub unchoked: Option<Instant>,
}

/// The state machine of one connection.
#[derive(Debug)]
pub struct Requester {
    handshake: Handshake,
    /// The target's handshake as far as it has arrived; `None` after it.
    opening: Option<Vec<u8>>,
    decoder: Decoder,
    walk: Walk,
    cursor: Option<(PieceIndex, u32)>,
    /// Requests allowed in flight: what the user wants, less when the target says so.
    window: usize,
    choked: bool,
    choked_since: Instant,
    choked_total: Duration,
    fast: bool,
    in_flight: VecDeque<Outstanding>,
    /// Requests that were dropped by a choke or rejected, to be asked again.
    again: VecDeque<BlockSpan>,
    incoming: Option<Incoming>,
    rejects_in_a_row: u32,
    verifier: Option<Verifier>,
    spoke_at: Instant,
    milestones: Milestones,
    blocks: u64,
    bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    span: BlockSpan,
    sent_at: Instant,
}

/// The block whose payload is arriving.
#[derive(Clone, Copy, Debug)]
struct Incoming {
    span: BlockSpan,
    /// When it was asked for; `None` when it was not, or has been dropped by a choke since.
    sent_at: Option<Instant>,
    wanted: bool,
}

impl Requester {
    /// A requester that starts at `now`, for the torrent and under the name given in `handshake`.
    pub fn new(now: Instant, info_hash: InfoHash, peer_id: PeerId, walk: Walk, plan: &RequestPlan) -> Self {
        Self {
            handshake: Handshake { reserved: Reserved::OURS, info_hash, peer_id },
            opening: Some(Vec::new()),
            decoder: Decoder::new(DecoderLimits::for_pieces(plan.pieces)),
            walk,
            cursor: None,
            window: plan.depth.max(1),
            choked: true,
            choked_since: now,
            choked_total: Duration::ZERO,
            fast: false,
            in_flight: VecDeque::new(),
            again: VecDeque::new(),
            incoming: None,
            rejects_in_a_row: 0,
            verifier: plan.verify.then(Verifier::default),
            spoke_at: now,
            milestones: Milestones { started: now, ..Milestones::default() },
            blocks: 0,
            bytes: 0,
        }
    }

    /// TCP is connected: appends our handshake.
    pub fn handle_connected(&mut self, now: Instant, out: &mut Vec<u8>) {
        self.milestones.connected = Some(now);
        self.spoke_at = now;
        out.extend_from_slice(&self.handshake.encode());
    }

    /// Takes everything that has arrived. Appends what has to be said at once (not requests).
    pub fn handle_bytes(
        &mut self,
        now: Instant,
        mut input: &[u8],
        content: &Content,
        tally: &mut Tally,
        out: &mut Vec<u8>,
    ) -> Result<(), TargetFault> {
        if self.opening.is_some() && !self.read_handshake(now, &mut input, out)? {
            return Ok(());
        }
        loop {
            self.take_payload(now, &mut input, content, tally);
            match self.decoder.decode(&mut input)? {
                None => return Ok(()),
                Some(Message::Piece(span)) => self.begin_block(span, content, tally),
                Some(Message::Unchoke) => self.handle_unchoke(now),
                Some(Message::Choke) => self.handle_choke(now, tally),
                Some(Message::Reject(span)) => self.handle_reject(span, tally)?,
                Some(Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload }) => {
                    let told = ExtensionHandshake::decode(payload).and_then(|told| told.requests_queued_max);
                    self.window = told.map_or(self.window, |told| self.window.min(told as usize)).max(1);
                }
                // A seeder's pieces are taken for granted, grants and hints ignored, requests unanswered:
                // we have told that we have nothing.
                Some(_) => {}
            }
        }
    }

    /// Bytes of payload that may be thrown away unseen as soon as they arrive; zero when the next byte has
    /// to be looked at. [`Requester::handle_discarded`] tells how many were.
    pub fn discardable(&self) -> u32 {
        if self.verifier.is_some() { 0 } else { self.decoder.payload_remaining() }
    }

    /// `len` bytes of payload, at most [`Requester::discardable`], were received and thrown away.
    pub fn handle_discarded(&mut self, now: Instant, len: u32, tally: &mut Tally) {
        self.decoder.advance_payload(len.min(self.decoder.payload_remaining()));
        if self.decoder.payload_remaining() == 0 {
            self.finish_block(now, tally);
        }
    }

    /// Appends requests until the window is full or `budget` blocks are asked for; returns how many.
    pub fn poll_requests(
        &mut self,
        now: Instant,
        content: &Content,
        budget: usize,
        out: &mut Vec<u8>,
    ) -> usize {
        let count = self.requests_wanted().min(budget);
        for _ in 0..count {
            let span = self.again.pop_front().unwrap_or_else(|| self.next_block(content));
            wire::encode(&Message::Request(span), out);
            self.in_flight.push_back(Outstanding { span, sent_at: now });
        }
        if count > 0 {
            self.spoke_at = now;
        }
        count
    }

    /// How many requests the window has room for now.
    pub fn requests_wanted(&self) -> usize {
        if self.choked { 0 } else { self.window.saturating_sub(self.in_flight.len()) }
    }

    /// Appends a keep-alive when nothing was said for so long that the target might close.
    pub fn poll_keep_alive(&mut self, now: Instant, out: &mut Vec<u8>) {
        if self.opening.is_none() && now.since(self.spoke_at) >= KEEP_ALIVE_INTERVAL {
            wire::encode(&Message::KeepAlive, out);
            self.spoke_at = now;
        }
    }

    /// When the connection's beginning was done.
    pub const fn milestones(&self) -> Milestones {
        self.milestones
    }

    /// Bytes of requested blocks received so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Time choked after the handshake, up to `now`.
    pub fn choked_total(&self, now: Instant) -> Duration {
        let current = self.choked && self.milestones.handshaken.is_some();
        self.choked_total + if current { now.since(self.choked_since) } else { Duration::ZERO }
    }

    fn read_handshake(
        &mut self,
        now: Instant,
        input: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<bool, TargetFault> {
        let Some(opening) = &mut self.opening else { return Ok(true) };
        let (head, rest) = input.split_at(input.len().min(HANDSHAKE_LEN - opening.len()));
        opening.extend_from_slice(head);
        *input = rest;
        wire::check_prefix(opening)?;
        let Ok(bytes) = <&[u8; HANDSHAKE_LEN]>::try_from(opening.as_slice()) else { return Ok(false) };
        let theirs = Handshake::decode(bytes)?;
        if theirs.info_hash != self.handshake.info_hash {
            return Err(TargetFault::OtherTorrent(theirs.info_hash));
        }
        self.opening = None;
        self.fast = theirs.reserved.fast();
        self.milestones.handshaken = Some(now);
        self.choked_since = now;
        if self.fast {
            wire::encode(&Message::HaveNone, out);
        }
        if theirs.reserved.extended() {
            let ours = ExtensionHandshake {
                client: Some(concat!("Seedring bench ", env!("CARGO_PKG_VERSION")).into()),
                ..ExtensionHandshake::default()
            };
            wire::encode(&Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &ours.encode() }, out);
        }
        wire::encode(&Message::Interested, out);
        self.spoke_at = now;
        Ok(true)
    }

    fn handle_unchoke(&mut self, now: Instant) {
        if self.choked {
            self.choked = false;
            self.choked_total += now.since(self.choked_since);
            self.milestones.unchoked.get_or_insert(now);
        }
    }

    fn handle_choke(&mut self, now: Instant, tally: &mut Tally) {
        if self.choked {
            return;
        }
        self.choked = true;
        self.choked_since = now;
        tally.chokes += 1;
        // Without BEP 6 a choke drops every request silently; with it each one is rejected or served.
        if !self.fast {
            self.again.extend(self.in_flight.drain(..).map(|outstanding| outstanding.span));
        }
    }

    fn handle_reject(&mut self, span: BlockSpan, tally: &mut Tally) -> Result<(), TargetFault> {
        let Some(at) = self.in_flight.iter().position(|outstanding| outstanding.span == span) else {
            return Ok(());
        };
        self.in_flight.remove(at);
        self.again.push_back(span);
        tally.rejects += 1;
        self.rejects_in_a_row += 1;
        if self.rejects_in_a_row > REJECTS_IN_A_ROW_MAX {
            return Err(TargetFault::RejectsAll(self.rejects_in_a_row));
        }
        // A reject to an unchoked peer says that its queue there is full: ask less from now on.
        if !self.choked {
            self.window = self.window.min(self.in_flight.len()).max(1);
        }
        Ok(())
    }

    fn begin_block(&mut self, span: BlockSpan, content: &Content, tally: &mut Tally) {
        let in_order = self.in_flight.front().is_some_and(|first| first.span == span);
        let at = if in_order { Some(0) } else { self.in_flight.iter().position(|o| o.span == span) };
        let sent_at = at.and_then(|at| self.in_flight.remove(at)).map(|outstanding| outstanding.sent_at);
        let mut wanted = sent_at.is_some();
        if !wanted && let Some(at) = self.again.iter().position(|again| *again == span) {
            // It was under way when the choke came.
            self.again.remove(at);
            wanted = true;
        }
        if wanted && let Some(verifier) = &mut self.verifier {
            verifier.open(span.piece, content);
        }
        if !wanted {
            tally.unrequested += 1;
        }
        self.incoming = Some(Incoming { span, sent_at, wanted });
        if span.len == 0 {
            self.incoming = None;
        }
    }

    fn take_payload(&mut self, now: Instant, input: &mut &[u8], content: &Content, tally: &mut Tally) {
        let Some(incoming) = self.incoming else { return };
        let offset = incoming.span.len - self.decoder.payload_remaining();
        let payload = self.decoder.take_payload(input);
        if incoming.wanted
            && let Some(verifier) = &mut self.verifier
        {
            verifier.write(incoming.span, offset, payload, content, tally);
        }
        if self.decoder.payload_remaining() == 0 {
            self.finish_block(now, tally);
        }
    }

    fn finish_block(&mut self, now: Instant, tally: &mut Tally) {
        let Some(incoming) = self.incoming.take() else { return };
        if incoming.wanted {
            self.rejects_in_a_row = 0;
            self.blocks += 1;
            self.bytes += u64::from(incoming.span.len);
            tally.record_block(now, incoming.span.len, incoming.sent_at);
        }
    }

    fn next_block(&mut self, content: &Content) -> BlockSpan {
        loop {
            let (piece, begin) = *self.cursor.get_or_insert_with(|| (self.walk.next_piece(), 0));
            if let Some(span) = content.block(piece, begin) {
                self.cursor = Some((piece, begin + span.len));
                return span;
            }
            self.cursor = None;
        }
    }
}

/// What all requesters of a run have in common.
#[derive(Clone, Copy, Debug)]
pub struct RequestPlan {
    /// Pieces of the torrent.
    pub pieces: u32,
    /// Requests to keep in flight.
    pub depth: usize,
    /// Whether pieces are hashed.
    pub verify: bool,
}

/// Pieces that are being put together to be hashed: as many as requests in flight span.
#[derive(Debug, Default)]
struct Verifier {
    open: Vec<OpenPiece>,
    spare: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct OpenPiece {
    piece: PieceIndex,
    bytes: Vec<u8>,
    /// Blocks that are complete. The next pass may ask for a piece again while this one is open.
    complete: Vec<bool>,
    missing: usize,
}

impl Verifier {
    fn open(&mut self, piece: PieceIndex, content: &Content) {
        if self.open.iter().any(|open| open.piece == piece) {
            return;
        }
        let mut bytes = self.spare.pop().unwrap_or_default();
        bytes.resize(content.piece_len(piece) as usize, 0);
        let missing = bytes.len().div_ceil(BLOCK_LEN as usize);
        self.open.push(OpenPiece { piece, bytes, complete: vec![false; missing], missing });
    }

    /// Keeps `payload`, which belongs `offset` bytes into the block `span`. Only blocks that were asked for
    /// come here, and those lie inside their piece.
    fn write(&mut self, span: BlockSpan, offset: u32, payload: &[u8], content: &Content, tally: &mut Tally) {
        let Some(at) = self.open.iter().position(|open| open.piece == span.piece) else { return };
        let open = &mut self.open[at];
        let begin = (span.begin + offset) as usize;
        let Some(complete) = open.complete.get_mut((span.begin / BLOCK_LEN) as usize) else { return };
        let Some(place) = open.bytes.get_mut(begin..begin + payload.len()) else { return };
        if *complete {
            return;
        }
        place.copy_from_slice(payload);
        if offset as usize + payload.len() == span.len as usize {
            *complete = true;
            open.missing -= 1;
        }
        if open.missing == 0 {
            let done = self.open.swap_remove(at);
            tally.record_piece(done.piece, content.verify(done.piece, &done.bytes));
            self.spare.push(done.bytes);
        }
    }
}

#[cfg(test)]
#[path = "requester_tests.rs"]
mod tests;
