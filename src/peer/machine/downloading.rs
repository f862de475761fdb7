//! What the torrent's home decides about downloading from this peer, and what it has to hear of it.

use super::{PeerMachine, Phase};
use crate::limits::CONTROL_QUEUED_LEN_MAX;
use crate::peer::download::{Download, Wish};
use crate::peer::facts::TorrentFacts;
use crate::pipeline::Verdict;
use crate::time::Instant;
use crate::units::BlockSpan;
use crate::wire::{Message, encode};
use std::sync::Arc;

impl PeerMachine {
    /// The downloading half, made when it is first of use: a seed has none.
    pub(super) fn download_for(&mut self, now: Instant, facts: &TorrentFacts) -> Option<&mut Download> {
        if self.download.is_none() {
            if facts.wants_nothing() {
                return None;
            }
            let mut download = Download::new(now, self.choked_by_them, self.fast);
            if let Some(reqq) = self.theirs.as_ref().and_then(|theirs| theirs.requests_queued_max) {
                download.handle_reqq(reqq);
            }
            self.download = Some(Box::new(download));
        }
        self.download_mut()
    }

    pub(super) fn download_mut(&mut self) -> Option<&mut Download> {
        self.download_touched |= self.download.is_some();
        self.download.as_deref_mut()
    }

    /// Whether there may be something new to hear of [`take_returned`](Self::take_returned),
    /// [`poll_verdict`](Self::poll_verdict) and [`poll_wish`](Self::poll_wish) since this was asked last. Most of what
    /// comes from a peer is about others.
    pub fn take_download_touched(&mut self) -> bool {
        std::mem::take(&mut self.download_touched)
    }

    /// The torrent's home has found that the peer has something for us, or no longer.
    pub fn handle_our_interest(&mut self, now: Instant, interested: bool) {
        let Phase::Open(open) = &self.phase else { return };
        let facts = Arc::clone(&open.facts);
        if !interested && self.download.is_none() {
            return;
        }
        let Some(download) = self.download_for(now, &facts) else { return };
        if download.handle_interest(interested) {
            let message = if interested { Message::Interested } else { Message::NotInterested };
            encode(&message, &mut self.control);
        }
    }

    /// The home has chosen blocks to ask for. Those that cannot be asked any more come back with
    /// [`take_returned`](Self::take_returned).
    pub fn handle_assigned(&mut self, now: Instant, spans: &[BlockSpan]) {
        // Who does not read what it was asked is not asked for more.
        let may_ask = self.control.len() <= CONTROL_QUEUED_LEN_MAX;
        let Some(download) = self.download_mut() else { return };
        for span in download.handle_assigned(now, spans, may_ask) {
            encode(&Message::Request(span), &mut self.control);
        }
    }

    /// Somebody else has brought this block.
    pub fn handle_brought(&mut self, span: BlockSpan) {
        if self.download_mut().is_some_and(|download| download.handle_cancel(span)) {
            encode(&Message::Cancel(span), &mut self.control);
        }
    }

    /// Payload bytes of the arriving block that have not been taken yet.
    pub fn payload_remaining(&self) -> u32 {
        match &self.phase {
            Phase::Open(open) => open.decoder.payload_remaining(),
            _ => 0,
        }
    }

    /// Takes what `input` has of the arriving block's payload off its front.
    pub fn take_payload<'i>(&mut self, now: Instant, input: &mut &'i [u8]) -> &'i [u8] {
        let Phase::Open(open) = &mut self.phase else { return &[] };
        self.received_at = now;
        let taken = open.decoder.take_payload(input);
        if open.decoder.payload_remaining() == 0
            && let Some(span) = self.arriving.take()
            && let Some(download) = self.download_mut()
        {
            download.handle_block_end(now, span.len);
        }
        taken
    }

    /// The blocks there is room for in the request pipeline; told once, until blocks are assigned or what may be
    /// asked changes.
    pub fn poll_wish(&mut self) -> Option<Wish> {
        self.download.as_mut()?.poll_wish()
    }

    /// Blocks that were asked for and will not come: rejected or choked away.
    pub fn take_returned(&mut self) -> Vec<BlockSpan> {
        self.download.as_mut().map(|download| download.take_returned()).unwrap_or_default()
    }

    /// The next change in how the peer keeps up with what it owes.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        self.download.as_mut()?.poll_verdict()
    }

    /// When the peer will be late with what it owes; to be asked whenever something was assigned.
    pub fn poll_download_timeout(&self) -> Option<Instant> {
        self.download.as_ref()?.poll_timeout()
    }

    /// What it owes is late at `now`, perhaps.
    pub fn handle_download_timeout(&mut self, now: Instant) {
        if let Some(download) = self.download_mut() {
            download.handle_timeout(now);
        }
    }

    /// The blocks that were asked for and have not come, in the order of their requests.
    pub fn asked(&self) -> impl Iterator<Item = BlockSpan> {
        self.download.iter().flat_map(|download| download.asked())
    }

    /// Requests under way.
    pub fn outstanding(&self) -> usize {
        self.download.as_ref().map_or(0, |download| download.outstanding())
    }
}
