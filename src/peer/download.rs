//! What we want of a peer and what it owes us: the downloading half of a connection's state.
//!
//! It says how many blocks there is room for, the torrent's home says which, and here they become requests. A block
//! that was asked for leaves by one of three doors: it arrives, it comes back to the home to be asked of somebody
//! else (`returned`), or the connection ends with it. Nothing is asked twice.
//!
//! A choke throws requests away, but a peer of the fast extension answers each one all the same, by a block or by
//! a reject (BEP 6); what it forgets to answer comes back after `CHOKED_REQUEST_TIMEOUT`.

use super::event::PeerError;
use crate::limits::{
    ALLOWED_FAST_TAKEN_MAX, CANCELS_REMEMBERED_MAX, CHOKED_REQUEST_TIMEOUT, REJECTS_IN_A_ROW_MAX,
    REQUESTS_UNTOLD_MAX, WASTE_FREE_LEN,
};
use crate::pipeline::{RequestPipeline, Verdict};
use crate::prefetch::prefetch;
use crate::time::Instant;
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use std::collections::VecDeque;

/// The blocks a connection could use now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// How many.
    pub count: u32,
    /// What the peer gave lately.
    pub rate: ByteRate,
    /// Which blocks.
    pub terms: WishTerms,
}

/// What a peer serves now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WishTerms {
    /// Everything it has.
    Unchoked,
    /// Everything it has, and it suggests these pieces (BEP 6).
    Suggested(Box<[PieceIndex]>),
    /// It chokes us, but these pieces it serves all the same (BEP 6).
    Fast(Box<[PieceIndex]>),
}

#[derive(Debug)]
pub(super) struct Download {
    pipeline: RequestPipeline,
    interested: bool,
    choked: bool,
    fast_agreed: bool,
    /// Requests under way, in the order in which they were sent.
    asked: VecDeque<BlockSpan>,
    returned: Vec<BlockSpan>,
    /// Requests that were cancelled and whose blocks may be on their way, the latest last.
    cancelled: VecDeque<BlockSpan>,
    /// A wish was told and not yet answered with a block.
    wishing: bool,
    /// Pieces served to us while choked.
    fast_pieces: Vec<PieceIndex>,
    suggested: Vec<PieceIndex>,
    /// When it choked us, or was last asked for something since.
    choked_at: Instant,
    rejects_in_a_row: u32,
    received: u64,
    wasted: u64,
}

impl Download {
    /// Asks for the memory of the request that is likely to be answered next.
    pub fn prefetch(&self) {
        prefetch(self.asked.front());
    }

    pub fn new(now: Instant, choked: bool, fast_agreed: bool) -> Self {
        let mut pipeline = RequestPipeline::new(now, REQUESTS_UNTOLD_MAX);
        if !choked {
            pipeline.handle_unchoked(now);
        }
        Self {
            pipeline,
            interested: false,
            choked,
            fast_agreed,
            asked: VecDeque::new(),
            returned: Vec::new(),
            cancelled: VecDeque::new(),
            wishing: false,
            fast_pieces: Vec::new(),
            suggested: Vec::new(),
            choked_at: now,
            rejects_in_a_row: 0,
            received: 0,
            wasted: 0,
        }
    }

    /// The torrent's home has found that the peer has something for us, or no longer; true when that is to be told.
    pub fn handle_interest(&mut self, interested: bool) -> bool {
        if !interested {
            self.wishing = false;
        }
        std::mem::replace(&mut self.interested, interested) != interested
    }

    pub fn handle_reqq(&mut self, reqq: u32) {
        // Said again it changes nothing.
        self.wishing &= !self.pipeline.handle_reqq(reqq);
    }

    pub fn handle_choke(&mut self, now: Instant, choked: bool) {
        self.choked = choked;
        self.wishing = false;
        self.rejects_in_a_row = 0;
        if !choked {
            return self.pipeline.handle_unchoked(now);
        }
        self.choked_at = now;
        self.pipeline.handle_choked();
        if !self.fast_agreed {
            self.return_all();
        }
    }

    fn return_all(&mut self) {
        self.pipeline.handle_lost(u32::try_from(self.asked.len()).unwrap_or(u32::MAX));
        self.returned.extend(self.asked.drain(..));
    }

    pub fn handle_allowed_fast(&mut self, piece: PieceIndex) {
        if self.fast_pieces.len() < ALLOWED_FAST_TAKEN_MAX && !self.fast_pieces.contains(&piece) {
            self.fast_pieces.push(piece);
            self.wishing = false;
        }
    }

    pub fn handle_suggest(&mut self, piece: PieceIndex) {
        if self.suggested.len() < ALLOWED_FAST_TAKEN_MAX && !self.suggested.contains(&piece) {
            self.suggested.push(piece);
        }
    }

    pub fn handle_reject(&mut self, span: BlockSpan) -> Result<(), PeerError> {
        let Some(place) = self.asked.iter().position(|&asked| asked == span) else {
            // The answer to a cancel (BEP 6).
            self.cancelled.retain(|&cancelled| cancelled != span);
            return Ok(());
        };
        self.asked.remove(place);
        self.returned.push(span);
        self.pipeline.handle_lost(1);
        self.wishing = false;
        if !self.choked {
            self.rejects_in_a_row += 1;
        } else {
            // It may serve a fast piece no more; asking for ever would be a loop.
            self.fast_pieces.retain(|&piece| piece != span.piece);
        }
        if self.rejects_in_a_row > REJECTS_IN_A_ROW_MAX { Err(PeerError::OnlyRejects) } else { Ok(()) }
    }

    /// A block begins to arrive; whether it was asked for. Blocks that cross our cancels are nobody's fault; who sends
    /// much more that was not asked for ends the connection.
    pub fn handle_block(&mut self, span: BlockSpan) -> Result<bool, PeerError> {
        // Nearly always the first: peers answer in order.
        if let Some(place) = self.asked.iter().position(|&asked| asked == span) {
            self.asked.remove(place);
            self.received += u64::from(span.len);
            self.rejects_in_a_row = 0;
            return Ok(true);
        }
        if let Some(place) = self.cancelled.iter().position(|&cancelled| cancelled == span) {
            self.cancelled.remove(place);
            return Ok(false);
        }
        self.wasted += u64::from(span.len);
        if self.wasted > WASTE_FREE_LEN + self.received / 4 {
            return Err(PeerError::UnwantedBlock(span));
        }
        Ok(false)
    }

    /// The block that was asked for has arrived.
    pub fn handle_block_end(&mut self, now: Instant, len: u32) {
        self.pipeline.handle_block(now, len);
    }

    /// Takes on what the home has chosen; what cannot be asked any more comes back at once, all of it when there is no
    /// room for requests. Returns what to ask.
    pub fn handle_assigned<'a>(
        &mut self,
        now: Instant,
        spans: &'a [BlockSpan],
        has_room: bool,
    ) -> impl Iterator<Item = BlockSpan> + use<'a> {
        self.wishing &= spans.is_empty();
        let may_ask = |span: &BlockSpan| has_room && (!self.choked || self.fast_pieces.contains(&span.piece));
        let count = spans.iter().filter(|span| may_ask(span)).count();
        // All of one answer were chosen for one state of the choke, so all can be asked or none. Two answers may meet
        // here when the peer choked and unchoked in between: the peer takes no more for that.
        let most = if count == spans.len() { self.pipeline.acceptable() } else { 0 };
        let (kept, surplus) = spans.split_at(spans.len().min(most as usize));
        self.returned.extend_from_slice(surplus);
        if self.choked && !kept.is_empty() {
            self.choked_at = now;
        }
        self.asked.extend(kept);
        self.pipeline.handle_requested(now, u32::try_from(kept.len()).unwrap_or(u32::MAX));
        kept.iter().copied()
    }

    /// Somebody else has brought the block; true when it was still owed and a cancel is to be sent.
    pub fn handle_cancel(&mut self, span: BlockSpan) -> bool {
        let Some(place) = self.asked.iter().position(|&asked| asked == span) else { return false };
        self.asked.remove(place);
        self.cancelled.push_back(span);
        if self.cancelled.len() > CANCELS_REMEMBERED_MAX {
            self.cancelled.pop_front();
        }
        self.pipeline.handle_lost(1);
        self.wishing = false;
        true
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.pipeline.handle_timeout(now);
        if self.choked && !self.asked.is_empty() && now >= self.choked_at + CHOKED_REQUEST_TIMEOUT {
            // Pieces that it does not give although it offered them are not asked for again.
            let asked = &self.asked;
            self.fast_pieces.retain(|&piece| asked.iter().all(|span| span.piece != piece));
            self.return_all();
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let forgotten =
            (self.choked && !self.asked.is_empty()).then(|| self.choked_at + CHOKED_REQUEST_TIMEOUT);
        self.pipeline.poll_timeout().into_iter().chain(forgotten).min()
    }

    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        self.pipeline.poll_verdict()
    }

    /// The blocks there is room for, told once until it is answered.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        if !self.interested || self.wishing || (self.choked && self.fast_pieces.is_empty()) {
            return None;
        }
        let count = self.pipeline.room();
        if count == 0 {
            return None;
        }
        self.wishing = true;
        let terms = match (self.choked, self.suggested.as_slice()) {
            (true, _) => WishTerms::Fast(self.fast_pieces.as_slice().into()),
            (false, []) => WishTerms::Unchoked,
            (false, suggested) => WishTerms::Suggested(suggested.into()),
        };
        Some(Wish { count, rate: self.pipeline.rate(), terms })
    }

    pub fn take_returned(&mut self) -> Vec<BlockSpan> {
        std::mem::take(&mut self.returned)
    }

    pub fn asked(&self) -> impl Iterator<Item = BlockSpan> {
        self.asked.iter().copied()
    }

    pub fn outstanding(&self) -> usize {
        self.asked.len()
    }

    pub fn buffered_bytes(&self) -> usize {
        (self.asked.capacity() + self.returned.capacity() + self.cancelled.capacity())
            * size_of::<BlockSpan>()
    }
}
