//! Giving the info dictionary to one peer: everything once asked for, but not over and over (BEP 9).
//!
//! A token bucket for each peer: the whole dictionary twice at once, then a piece a second. Beyond it pieces are
//! rejected, as BEP 9 suggests, and after many rejects not even that. Of the pieces promised only numbers are kept;
//! the shell takes one at a time when it can send it, so that a peer that does not read costs a few bytes.

use crate::limits::{METADATA_PIECE_INTERVAL, METADATA_REJECTS_MAX, METADATA_REQUESTS_QUEUED_MAX};
use crate::time::Instant;
use crate::wire::{METADATA_PIECE_LEN, metadata_piece_count};
use std::collections::VecDeque;
use std::ops::Range;

/// How often a peer may have the whole dictionary before the bucket's slow filling counts.
const WHOLE_TIMES: u32 = 2;

/// What a request for a piece of the info dictionary is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The piece will be given: [`MetadataService::poll_data`] names it when its turn comes.
    Queued,
    /// There is no such piece, or the peer has had enough: say so.
    Reject,
    /// The piece is on its way already, or the peer has been told often enough.
    Ignore,
}

/// A piece to send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PieceToSend {
    /// Its number.
    pub piece: u32,
    /// Its bytes within the info dictionary, never behind the dictionary's end.
    pub range: Range<usize>,
}

/// What one peer has had of an info dictionary, and what it is still to get.
#[derive(Debug)]
pub struct MetadataService {
    /// Bytes of the info dictionary.
    info_len: u32,
    /// Pieces that may still be given.
    tokens: u32,
    /// Up to when the bucket's filling has been counted.
    filled_at: Instant,
    /// Pieces promised, first asked first.
    queue: VecDeque<u32>,
    rejects: u32,
}

impl MetadataService {
    /// The service of an info dictionary of `info_len` bytes to a peer that has had nothing of it yet.
    pub fn new(now: Instant, info_len: u32) -> Self {
        Self {
            info_len,
            tokens: Self::bucket_size(info_len),
            filled_at: now,
            queue: VecDeque::new(),
            rejects: 0,
        }
    }

    /// The peer asks for a piece.
    pub fn handle_request(&mut self, now: Instant, piece: u32) -> Answer {
        if self.queue.contains(&piece) {
            return Answer::Ignore;
        }
        self.fill(now);
        if piece < metadata_piece_count(self.info_len)
            && self.tokens > 0
            && self.queue.len() < METADATA_REQUESTS_QUEUED_MAX
        {
            self.tokens -= 1;
            self.queue.push_back(piece);
            return Answer::Queued;
        }
        self.rejects = self.rejects.saturating_add(1);
        if self.rejects > METADATA_REJECTS_MAX { Answer::Ignore } else { Answer::Reject }
    }

    /// Takes the next piece to send.
    pub fn poll_data(&mut self) -> Option<PieceToSend> {
        let piece = self.queue.pop_front()?;
        // A piece in the queue lies inside the dictionary, so that nothing overflows.
        let start = piece * METADATA_PIECE_LEN;
        let end = self.info_len.min(start + METADATA_PIECE_LEN);
        Some(PieceToSend { piece, range: start as usize..end as usize })
    }

    /// The peer understands no data any more: what was promised is off, what it has had still counts.
    pub fn withdraw(&mut self) {
        self.queue = VecDeque::new();
    }

    /// Whether a piece waits to be sent.
    pub fn has_data(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of memory that the queue holds.
    pub fn buffered_bytes(&self) -> usize {
        self.queue.capacity() * size_of::<u32>()
    }

    fn bucket_size(info_len: u32) -> u32 {
        WHOLE_TIMES * metadata_piece_count(info_len)
    }

    fn fill(&mut self, now: Instant) {
        let pieces = now.since(self.filled_at).as_nanos() / METADATA_PIECE_INTERVAL.as_nanos();
        let pieces = u32::try_from(pieces).unwrap_or(u32::MAX);
        let full = Self::bucket_size(self.info_len);
        self.tokens = self.tokens.saturating_add(pieces).min(full);
        // What is left of an interval counts towards the next piece, unless nothing more fits.
        let counted = self.filled_at + METADATA_PIECE_INTERVAL.saturating_mul(pieces);
        self.filled_at = if self.tokens == full { now } else { counted };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    const LEN: u32 = 2 * METADATA_PIECE_LEN + 5;

    fn take_all(service: &mut MetadataService) -> Vec<u32> {
        std::iter::from_fn(|| service.poll_data()).map(|data| data.piece).collect()
    }

    #[test]
    fn pieces_come_in_the_order_asked_and_the_last_is_short() {
        let mut service = MetadataService::new(Instant::ZERO, LEN);
        for piece in [2, 0, 1] {
            assert_eq!(service.handle_request(Instant::ZERO, piece), Answer::Queued);
        }
        assert_eq!(service.handle_request(Instant::ZERO, 0), Answer::Ignore);
        assert_eq!(service.poll_data(), Some(PieceToSend { piece: 2, range: 32_768..32_773 }));
        assert_eq!(service.poll_data(), Some(PieceToSend { piece: 0, range: 0..16_384 }));
        assert!(service.has_data());
        assert_eq!(take_all(&mut service), [1]);
        assert!(!service.has_data());
    }

    #[test]
    fn pieces_that_do_not_exist_are_rejected_and_then_ignored() {
        let mut service = MetadataService::new(Instant::ZERO, LEN);
        for _ in 0..METADATA_REJECTS_MAX / 2 {
            assert_eq!(service.handle_request(Instant::ZERO, 3), Answer::Reject);
            assert_eq!(service.handle_request(Instant::ZERO, u32::MAX), Answer::Reject);
        }
        assert_eq!(service.handle_request(Instant::ZERO, 3), Answer::Ignore);
        assert_eq!(service.handle_request(Instant::ZERO, 0), Answer::Queued);
    }

    #[test]
    fn the_whole_comes_twice_at_once_and_then_a_piece_an_interval() {
        let mut service = MetadataService::new(Instant::ZERO, LEN);
        for _ in 0..2 {
            for piece in 0..3 {
                assert_eq!(service.handle_request(Instant::ZERO, piece), Answer::Queued);
            }
            assert_eq!(take_all(&mut service), [0, 1, 2]);
        }
        assert_eq!(service.handle_request(Instant::ZERO, 0), Answer::Reject);
        let almost = Instant::ZERO + METADATA_PIECE_INTERVAL - Duration::from_nanos(1);
        assert_eq!(service.handle_request(almost, 0), Answer::Reject);
        assert_eq!(service.handle_request(Instant::ZERO + METADATA_PIECE_INTERVAL, 0), Answer::Queued);
        assert_eq!(service.handle_request(Instant::ZERO + METADATA_PIECE_INTERVAL, 1), Answer::Reject);
    }

    proptest! {
        // HOSTILE 33
        #[test]
        fn a_flood_gets_what_the_bucket_holds_and_every_range_lies_inside(
            info_len in 1..200_000u32,
            steps in prop::collection::vec((0..20u32, 0..3_000u64, any::<bool>()), 0..300),
        ) {
            let mut service = MetadataService::new(Instant::ZERO, info_len);
            let (mut now, mut given, mut rejected) = (Instant::ZERO, 0, 0);
            for (piece, millis, read) in steps {
                now += Duration::from_millis(millis);
                match service.handle_request(now, piece) {
                    Answer::Queued => given += 1,
                    Answer::Reject => rejected += 1,
                    Answer::Ignore => {}
                }
                if read && let Some(data) = service.poll_data() {
                    prop_assert_eq!(data.range.start, (data.piece * METADATA_PIECE_LEN) as usize);
                    prop_assert!(!data.range.is_empty() && data.range.end <= info_len as usize);
                }
                let allowed = 2 * metadata_piece_count(info_len) + now.as_secs() as u32;
                prop_assert!(given <= allowed && rejected <= METADATA_REJECTS_MAX);
                prop_assert!(service.buffered_bytes() <= 8 * METADATA_REQUESTS_QUEUED_MAX);
            }
        }
    }
}
