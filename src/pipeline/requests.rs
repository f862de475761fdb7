//! The requests of one peer that wait for their send, in the order in which they came.
//!
//! Invariant: never more than `REQUESTS_QUEUED_MAX` of them, whatever the peer sends. A block asked for twice is
//! queued twice and sent twice: looking for doubles would cost every honest request a walk through the queue, and
//! the peer pays for what it asks with its own share of the line.

use crate::limits::REQUESTS_QUEUED_MAX;
use crate::units::BlockSpan;
use std::collections::VecDeque;

/// Bounded queue of requests, first in first out. Without allocation until the first request.
#[derive(Clone, Debug, Default)]
pub struct RequestQueue {
    spans: VecDeque<BlockSpan>,
    bytes: u64,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits for its turn.
    Accepted,
    /// The queue holds `REQUESTS_QUEUED_MAX`; the request was not taken and is to be rejected or dropped.
    Full,
}

impl RequestQueue {
    /// An empty queue, which holds no memory.
    pub const fn new() -> Self {
        Self { spans: VecDeque::new(), bytes: 0 }
    }

    /// Adds a request at the end.
    pub fn push(&mut self, span: BlockSpan) -> Pushed {
        if self.spans.len() >= REQUESTS_QUEUED_MAX {
            return Pushed::Full;
        }
        self.spans.push_back(span);
        self.bytes += u64::from(span.len);
        Pushed::Accepted
    }

    /// Takes the oldest request.
    pub fn pop(&mut self) -> Option<BlockSpan> {
        let span = self.spans.pop_front()?;
        self.bytes -= u64::from(span.len);
        Some(span)
    }

    /// Takes the oldest request if at most `room` bytes; `None` when there is none or it is longer.
    pub fn pop_within(&mut self, room: u32) -> Option<BlockSpan> {
        if self.front()?.len <= room { self.pop() } else { None }
    }

    /// Takes the oldest request equal to `span` out; false when there is none, as when it is already being sent.
    /// Walks the queue: at most 1000 spans of 12 bytes.
    pub fn cancel(&mut self, span: BlockSpan) -> bool {
        let Some(index) = self.spans.iter().position(|&queued| queued == span) else { return false };
        self.spans.remove(index);
        self.bytes -= u64::from(span.len);
        true
    }

    /// Empties the queue and releases its memory; what waited comes back in order, to be rejected (BEP 6) or
    /// forgotten.
    pub fn clear(&mut self) -> VecDeque<BlockSpan> {
        self.bytes = 0;
        std::mem::take(&mut self.spans)
    }

    /// Releases memory that the waiting requests do not need; all of it when there are none. For connections that
    /// have gone idle: a busy one would only allocate again.
    pub fn compact(&mut self) {
        self.spans.shrink_to_fit();
    }

    /// The oldest request, left in its place.
    pub fn front(&self) -> Option<BlockSpan> {
        self.spans.front().copied()
    }

    /// Requests waiting.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Requests there is memory for.
    pub fn capacity(&self) -> usize {
        self.spans.capacity()
    }

    /// Bytes of all blocks that wait.
    pub fn queued_bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::{BLOCK_LEN, PieceIndex};
    use proptest::prelude::*;

    fn span(piece: u32) -> BlockSpan {
        BlockSpan { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN + piece }
    }

    #[test]
    fn an_emptied_queue_holds_no_memory() {
        let mut queue = RequestQueue::new();
        for piece in 0..100 {
            assert_eq!(queue.push(span(piece)), Pushed::Accepted);
        }
        while queue.pop().is_some() {}
        queue.compact();
        assert_eq!(queue.spans.capacity(), 0);
    }

    #[test]
    fn the_request_above_the_bound_is_not_taken() {
        let mut queue = RequestQueue::new();
        for _ in 0..REQUESTS_QUEUED_MAX {
            assert_eq!(queue.push(span(1)), Pushed::Accepted);
        }
        assert_eq!(queue.push(span(2)), Pushed::Full);
        assert_eq!(queue.len(), REQUESTS_QUEUED_MAX);
        assert!(queue.cancel(span(1)));
        assert_eq!(queue.push(span(2)), Pushed::Accepted);
    }

    #[test]
    fn a_batch_stops_before_the_request_that_does_not_fit() {
        let mut queue = RequestQueue::new();
        let _ = queue.push(span(5));
        assert_eq!(queue.pop_within(BLOCK_LEN), None);
        assert_eq!(queue.pop_within(BLOCK_LEN + 5), Some(span(5)));
        assert_eq!(queue.pop_within(u32::MAX), None);
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_list_would(steps in prop::collection::vec((0u8..12, 0u32..8), 0..3_000)) {
            let (mut queue, mut list) = (RequestQueue::new(), Vec::new());
            for (step, piece) in steps {
                match step {
                    0..=7 => {
                        let full = list.len() == REQUESTS_QUEUED_MAX;
                        prop_assert_eq!(queue.push(span(piece)) == Pushed::Full, full);
                        if !full {
                            list.push(span(piece));
                        }
                    }
                    8 | 9 => {
                        let first = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(queue.pop(), first);
                    }
                    10 => {
                        let index = list.iter().position(|&queued| queued == span(piece));
                        prop_assert_eq!(queue.cancel(span(piece)), index.is_some());
                        index.map(|index| list.remove(index));
                    }
                    _ if piece == 0 => prop_assert!(queue.clear().into_iter().eq(list.drain(..))),
                    _ => queue.compact(),
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.front(), list.first().copied());
                prop_assert_eq!(queue.queued_bytes(), list.iter().map(|span| u64::from(span.len)).sum::<u64>());
            }
        }
    }
}
