//! What the peer asks of us: its requests, the pieces that it may have while it is choked, and the blocks that are due to it.

use super::*;

impl PeerMachine {
    pub(super) fn handle_request(&mut self, facts: &TorrentFacts, span: BlockSpan) -> Result<(), PeerError> {
        match facts.check(span) {
            Ok(()) if self.hidden.as_ref().is_some_and(|hidden| hidden.hides(span.piece)) => {
                return self.reject(span);
            }
            Ok(()) => {}
            Err(SpanFault::PieceMissing) => return self.reject(span),
            Err(fault) if !self.fast => return Err(PeerError::BadRequest(span, fault)),
            Err(_) => {
                self.rejects += 1;
                return self.reject(span);
            }
        }
        if self.choked_by_us && !self.take_fast_budget(span) {
            // Requests on their way while our choke was on its way, too, are nobody's fault.
            self.requests_while_choked += 1;
            self.refused = self.refused.wrapping_add(1);
            if self.requests_while_choked > REQUESTS_WHILE_CHOKED_MAX {
                return Err(PeerError::RequestFlood);
            }
            return self.reject(span);
        }
        // Who knows no rejects waits long for what was dropped, and most likely has not read `reqq` either.
        let over = self.fast && self.queue.len() >= REQUESTS_QUEUED_MAX;
        match if over { Pushed::Full } else { self.queue.push(span) } {
            Pushed::Accepted => Ok(()),
            Pushed::Full => {
                self.rejects += 1;
                self.reject(span)
            }
        }
    }

    /// Answers with a reject where the peer understands one, otherwise with silence (BEP 3).
    pub(super) fn reject(&mut self, span: BlockSpan) -> Result<(), PeerError> {
        if self.rejects > REJECTS_MAX {
            return Err(PeerError::RequestFlood);
        }
        if self.fast {
            encode(&Message::Reject(span), &mut self.control);
        }
        Ok(())
    }

    pub(super) fn take_fast_budget(&mut self, span: BlockSpan) -> bool {
        let len = u64::from(span.len);
        if !self.fast_pieces.contains(&span.piece) || self.fast_budget < len {
            return false;
        }
        self.fast_budget -= len;
        true
    }

    pub(super) fn grant_fast_pieces(&mut self, facts: &TorrentFacts, remote: IpAddr) {
        self.fast_pieces = allowed_fast_set(remote, facts.info_hash, facts.piece_count(), ALLOWED_FAST_MAX);
        self.fast_pieces.retain(|&piece| facts.have.contains(piece));
        for &piece in &self.fast_pieces {
            encode(&Message::AllowedFast(piece), &mut self.control);
            self.fast_budget += u64::from(facts.piece_len(piece));
        }
        self.fast_budget = self.fast_budget.min(ALLOWED_FAST_LEN_MAX);
    }

    /// Requests that were refused because we choked the peer.
    pub fn refused(&self) -> u32 {
        self.refused
    }

    /// The choker has decided.
    pub fn handle_choke(&mut self, choke: bool) {
        if !matches!(self.phase, Phase::Open(_)) || self.choked_by_us == choke {
            return;
        }
        self.choked_by_us = choke;
        self.requests_while_choked = 0;
        encode(if choke { &Message::Choke } else { &Message::Unchoke }, &mut self.control);
        if choke {
            let waiting = self.queue.clear();
            if self.fast {
                let queued = self.control.len();
                waiting.for_each(|span| encode(&Message::Reject(span), &mut self.control));
                self.answers_len += self.control.len() - queued;
            }
        }
    }

    /// The block to send next.
    pub fn next_block(&self) -> Option<BlockSpan> {
        self.queue.front()
    }

    /// What waits to be sent, in order, in parts of one piece and `len` bytes at most, or a block where that is longer.
    pub fn next_parts(&self, len: u32) -> impl Iterator<Item = BlockSpan> {
        self.queue.parts(len)
    }

    /// Takes the block that [`next_block`](Self::next_block) named.
    pub fn poll_block(&mut self) -> Option<BlockSpan> {
        let span = self.queue.pop()?;
        if let Some(hidden) = &mut self.hidden {
            hidden.handle_sent(span);
        }
        Some(span)
    }

    /// Blocks that wait to be taken, and their bytes.
    pub fn queued(&self) -> (usize, u64) {
        (self.queue.len(), self.queue.queued_bytes())
    }

    /// Blocks that wait to be taken.
    pub fn queued_blocks(&self) -> usize {
        self.queue.len()
    }

    /// Those that the peer makes us hold: what it has asked for, what we have to say to it, what it has said in part.
    pub fn upload_bytes(&self) -> usize {
        let metadata = self.metadata.as_ref().map_or(0, |service| service.buffered_bytes());
        let untold = self.untold.as_ref().map_or(0, |untold| untold.as_bytes().len());
        let heard = if let Phase::Open(open) = &self.phase { open.decoder.buffered_bytes() } else { 0 };
        self.control.capacity() + self.queue.allocated_bytes() + metadata + untold + heard
    }
}
