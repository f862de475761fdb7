//! The requests of one peer that wait for their send, in the order in which they came.
//!
//! Invariant: never more than `REQUEST_RUNS_MAX` runs of them, whatever the peer sends. A run is what clients ask
//! for: blocks of one piece, one behind the other. Written as runs, some seconds' worth of blocks take some dozen
//! KiB; clients that know no `reqq` (BEP 10) ask for that much, and a request that we drop stalls them.
//!
//! A block asked for twice is queued twice and sent twice: looking for doubles would cost every honest request a
//! walk through the queue, and the peer pays for what it asks with its own share of the line.

use crate::limits::{REQUEST_RUNS_CANCELLED_MAX, REQUEST_RUNS_MAX};
use crate::prefetch::prefetch;
use crate::units::BlockSpan;
use std::collections::VecDeque;

/// Bounded queue of requests, first in first out. Without allocation until the first request.
#[derive(Clone, Debug, Default)]
pub struct RequestQueue {
    runs: VecDeque<Run>,
    len: usize,
    bytes: u64,
}

/// Blocks of one piece and of one length, one behind the other.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: BlockSpan,
    /// At least 1.
    count: u32,
}

impl Run {
    fn of(span: BlockSpan) -> Self {
        Self { first: span, count: 1 }
    }

    /// The block at `index`, when there can be one.
    fn block(&self, index: u32) -> Option<BlockSpan> {
        let begin = self.first.begin.checked_add(index.checked_mul(self.first.len)?)?;
        Some(BlockSpan { begin, ..self.first })
    }

    /// Takes `span` in where it lies right behind the last block.
    fn extend(&mut self, span: BlockSpan) -> bool {
        let fits = self.block(self.count) == Some(span) && self.count < u32::MAX;
        self.count += u32::from(fits);
        fits
    }

    fn position(&self, span: BlockSpan) -> Option<u32> {
        if (span.piece, span.len) != (self.first.piece, self.first.len) {
            return None;
        }
        // Blocks without length all lie in one place; the first is as good as any.
        let index = span.begin.checked_sub(self.first.begin)?.checked_div(span.len).unwrap_or(0);
        (index < self.count && self.block(index) == Some(span)).then_some(index)
    }

    /// What lies before and behind the block at `index`.
    fn without(&self, index: u32) -> [Option<Self>; 2] {
        let before = (index > 0).then_some(Self { count: index, ..*self });
        let rest = self.count - index - 1;
        let behind = self.block(index + 1).filter(|_| rest > 0).map(|first| Self { first, count: rest });
        [before, behind]
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Pushed {
    /// It waits for its turn.
    Accepted,
    /// The queue holds `REQUEST_RUNS_MAX` runs; the request was not taken and is to be rejected or dropped.
    Full,
}

impl RequestQueue {
    /// An empty queue, which holds no memory.
    pub const fn new() -> Self {
        Self { runs: VecDeque::new(), len: 0, bytes: 0 }
    }

    /// Asks for the memory of what is taken next.
    pub fn prefetch(&self) {
        prefetch(self.runs.front());
    }

    /// Adds a request at the end.
    pub fn push(&mut self, span: BlockSpan) -> Pushed {
        if !self.runs.back_mut().is_some_and(|run| run.extend(span)) {
            if self.runs.len() >= REQUEST_RUNS_MAX {
                return Pushed::Full;
            }
            self.runs.push_back(Run::of(span));
        }
        self.len += 1;
        self.bytes += u64::from(span.len);
        Pushed::Accepted
    }

    /// Takes the oldest request.
    pub fn pop(&mut self) -> Option<BlockSpan> {
        let run = self.runs.front_mut()?;
        let span = run.first;
        match run.without(0) {
            [_, Some(rest)] => *run = rest,
            [_, None] => drop(self.runs.pop_front()),
        }
        self.len -= 1;
        self.bytes -= u64::from(span.len);
        Some(span)
    }

    /// Takes the oldest request if at most `room` bytes; `None` when there is none or it is longer.
    pub fn pop_within(&mut self, room: u32) -> Option<BlockSpan> {
        if self.front()?.len <= room { self.pop() } else { None }
    }

    /// Takes the oldest request equal to `span` out; false when there is none, as when it is already being sent, or
    /// when it stands behind the first `REQUEST_RUNS_CANCELLED_MAX` runs: it is sent then, as one whose cancel
    /// comes late. Walks these runs, and moves what lies behind when a run falls in two.
    pub fn cancel(&mut self, span: BlockSpan) -> bool {
        let within = self.runs.iter().take(REQUEST_RUNS_CANCELLED_MAX).enumerate();
        let found = within.filter_map(|(at, run)| Some((at, *run, run.position(span)?))).next();
        let Some((at, run, index)) = found else { return false };
        match run.without(index) {
            [None, None] => drop(self.runs.remove(at)),
            [Some(left), None] | [None, Some(left)] => self.runs[at] = left,
            // A full queue cannot hold two where there was one: the block is sent.
            [Some(_), Some(_)] if self.runs.len() >= REQUEST_RUNS_MAX => return false,
            [Some(before), Some(behind)] => {
                self.runs[at] = behind;
                self.runs.insert(at, before);
            }
        }
        self.len -= 1;
        self.bytes -= u64::from(span.len);
        true
    }

    /// Empties the queue and releases its memory; what waited comes back in order, to be rejected (BEP 6) or
    /// forgotten.
    pub fn clear(&mut self) -> impl Iterator<Item = BlockSpan> + use<> {
        let runs = std::mem::take(self).runs;
        runs.into_iter().flat_map(|run| (0..run.count).filter_map(move |index| run.block(index)))
    }

    /// Releases memory that the waiting requests do not need; all of it when there are none. For connections that
    /// have gone idle: a busy one would only allocate again.
    pub fn compact(&mut self) {
        self.runs.shrink_to_fit();
    }

    /// The oldest request, left in its place.
    pub fn front(&self) -> Option<BlockSpan> {
        self.runs.front().map(|run| run.first)
    }

    /// What waits, oldest first, cut into parts of one piece that have `len` bytes at most, and hold one block each at
    /// least. Bytes, no longer requests: for whoever prepares them.
    pub fn parts(&self, len: u32) -> impl Iterator<Item = BlockSpan> {
        self.runs.iter().flat_map(move |run| {
            let blocks = (len / run.first.len.max(1)).max(1);
            (0..run.count).step_by(blocks as usize).filter_map(move |index| {
                let count = blocks.min(run.count - index);
                let first = run.block(index)?;
                Some(BlockSpan { len: first.len.checked_mul(count)?, ..first })
            })
        })
    }

    /// Requests waiting.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Bytes of memory held.
    pub fn allocated_bytes(&self) -> usize {
        self.runs.capacity() * size_of::<Run>()
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
        assert_eq!(queue.allocated_bytes(), 0);
    }

    #[test]
    fn the_request_above_the_bound_is_not_taken() {
        let mut queue = RequestQueue::new();
        for _ in 0..REQUEST_RUNS_MAX {
            assert_eq!(queue.push(span(1)), Pushed::Accepted);
        }
        assert_eq!(queue.push(span(2)), Pushed::Full);
        assert_eq!(queue.len(), REQUEST_RUNS_MAX);
        assert!(queue.cancel(span(1)));
        assert_eq!(queue.push(span(2)), Pushed::Accepted);
    }

    #[test]
    fn seconds_worth_of_blocks_in_order_take_some_dozen_kib() {
        let mut queue = RequestQueue::new();
        let block = |number: u32| BlockSpan {
            piece: PieceIndex(number / 16),
            begin: number % 16 * BLOCK_LEN,
            len: BLOCK_LEN,
        };
        for number in 0..66_000 {
            assert_eq!(queue.push(block(number)), Pushed::Accepted);
        }
        assert!(queue.allocated_bytes() <= 128 * 1024, "{}", queue.allocated_bytes());
        assert!((0..66_000).map(block).eq(queue.clear()));
    }

    #[test]
    fn cancels_that_cut_every_run_in_two_win_no_memory() {
        let mut queue = RequestQueue::new();
        let block = |number: u32| BlockSpan { piece: PieceIndex(0), begin: number, len: 1 };
        for number in 0..40_000 {
            assert_eq!(queue.push(block(number)), Pushed::Accepted);
        }
        for number in (1..40_000).step_by(2) {
            queue.cancel(block(number));
        }
        assert!(queue.runs.len() <= REQUEST_RUNS_MAX);
    }

    #[test]
    fn runs_end_where_numbers_do() {
        let mut queue = RequestQueue::new();
        let ends = [u32::MAX - 1, u32::MAX].map(|begin| BlockSpan { piece: PieceIndex(0), begin, len: 1 });
        let wide = BlockSpan { piece: PieceIndex(0), begin: 0, len: u32::MAX };
        let empty = BlockSpan { piece: PieceIndex(0), begin: 0, len: 0 };
        let all = [ends[0], ends[1], wide, BlockSpan { begin: u32::MAX, ..wide }, wide, empty, empty, empty];
        for span in all {
            assert_eq!(queue.push(span), Pushed::Accepted);
        }
        assert!(queue.cancel(empty));
        assert_eq!(queue.clear().collect::<Vec<_>>(), all[..7]);
    }

    #[test]
    fn a_batch_stops_before_the_request_that_does_not_fit() {
        let mut queue = RequestQueue::new();
        let _ = queue.push(span(5));
        assert_eq!(queue.pop_within(BLOCK_LEN), None);
        assert_eq!(queue.pop_within(BLOCK_LEN + 5), Some(span(5)));
        assert_eq!(queue.pop_within(u32::MAX), None);
    }

    /// Blocks that make runs, near-runs and doubles.
    fn any_span() -> impl Strategy<Value = BlockSpan> {
        (0u32..2, 0u32..6, 1u32..3).prop_map(|(piece, begin, len)| BlockSpan {
            piece: PieceIndex(piece),
            begin,
            len,
        })
    }

    proptest! {
        #[test]
        fn behaves_as_a_plain_list_would(steps in prop::collection::vec((0u8..12, any_span()), 0..400)) {
            let (mut queue, mut list) = (RequestQueue::new(), Vec::<BlockSpan>::new());
            for (step, mut span) in steps {
                match step {
                    0..=7 => {
                        // Half of them go on where the last one ended.
                        if let Some(last) = list.last().filter(|_| step < 4) {
                            span = BlockSpan { begin: last.begin + last.len, ..*last };
                        }
                        prop_assert_eq!(queue.push(span), Pushed::Accepted);
                        list.push(span);
                    }
                    8 => {
                        let first = (!list.is_empty()).then(|| list.remove(0));
                        prop_assert_eq!(queue.pop(), first);
                    }
                    9 | 10 => {
                        // One that is there, where there is one, and one that may be.
                        let there = list.get(list.len() / 2).copied().filter(|_| step == 9).unwrap_or(span);
                        let index = list.iter().position(|&queued| queued == there);
                        prop_assert_eq!(queue.cancel(there), index.is_some());
                        index.map(|index| list.remove(index));
                    }
                    _ if span.begin == 0 => prop_assert!(queue.clear().eq(list.drain(..))),
                    _ => queue.compact(),
                }
                prop_assert_eq!(queue.len(), list.len());
                prop_assert_eq!(queue.is_empty(), list.is_empty());
                prop_assert_eq!(queue.front(), list.first().copied());
                prop_assert_eq!(queue.queued_bytes(), list.iter().map(|span| u64::from(span.len)).sum::<u64>());
            }
        }
    }
}
