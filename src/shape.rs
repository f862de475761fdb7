//! How a torrent's bytes are cut: into pieces of one length, of which the last may be shorter, and each piece into
//! blocks of 16 KiB, of which the last may be shorter (BEP 3).
//!
//! This is the one place with that arithmetic. A piece need not be a whole number of blocks: BEP 3 has no such rule, and
//! torrents with other lengths are about. Then every piece ends with a short block, and not the last one alone.

use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::ops::Range;

/// How a torrent is cut into pieces and blocks. What is asked beyond the last piece is nothing: zero, empty, `None`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PieceShape {
    /// Number of pieces.
    pub piece_count: u32,
    /// Bytes of every piece but the last.
    pub piece_length: u32,
    /// Bytes of all pieces together.
    pub total_len: u64,
}

impl PieceShape {
    /// `total_len` bytes in pieces of `piece_length` bytes. `None` when pieces have no bytes, or when there are more of
    /// them than 32 bits count.
    pub fn new(piece_length: u32, total_len: u64) -> Option<Self> {
        let whole = total_len.checked_div(u64::from(piece_length))?;
        let pieces = whole + u64::from(!total_len.is_multiple_of(u64::from(piece_length)));
        Some(Self { piece_count: u32::try_from(pieces).ok()?, piece_length, total_len })
    }

    /// Where `piece` begins in the string of all bytes.
    pub fn start_of(&self, piece: PieceIndex) -> u64 {
        u64::from(piece.0) * u64::from(self.piece_length)
    }

    /// Bytes of `piece`: fewer for the last one perhaps, zero for one out of range.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        if piece.0 >= self.piece_count {
            return 0;
        }
        let rest = self.total_len.saturating_sub(self.start_of(piece));
        u32::try_from(rest).unwrap_or(u32::MAX).min(self.piece_length)
    }

    /// All of `piece`; empty out of range.
    pub fn whole(&self, piece: PieceIndex) -> BlockSpan {
        BlockSpan { piece, begin: 0, len: self.piece_len(piece) }
    }

    /// Whether the span has bytes at all, and all of them lie inside its piece. Anything may be asked.
    pub fn contains(&self, span: BlockSpan) -> bool {
        let end = u64::from(span.begin) + u64::from(span.len);
        span.len > 0 && end <= u64::from(self.piece_len(span.piece))
    }

    /// Numbers of the pieces that have any of these bytes of the string of all bytes.
    pub fn pieces_of(&self, bytes: Range<u64>) -> Range<u32> {
        let (start, end) = (bytes.start, bytes.end.min(self.total_len));
        if start >= end || self.piece_length == 0 {
            return 0..0;
        }
        let length = u64::from(self.piece_length);
        // Inside the content, so that both are numbers of pieces.
        (start / length) as u32..end.div_ceil(length) as u32
    }

    /// Blocks of `piece`, the last of which may be short.
    pub fn blocks_of(&self, piece: PieceIndex) -> u32 {
        self.piece_len(piece).div_ceil(BLOCK_LEN)
    }

    /// Bytes of a block on average, in a piece that is not the last; at least one.
    pub fn mean_block_len(&self) -> u32 {
        let blocks = self.piece_length.div_ceil(BLOCK_LEN).max(1);
        self.piece_length.div_ceil(blocks).max(1)
    }

    /// The block that begins at `begin`, which is a block's border; `None` at the piece's end and beyond it.
    pub fn block_at(&self, piece: PieceIndex, begin: u32) -> Option<BlockSpan> {
        let rest = self.piece_len(piece).checked_sub(begin)?;
        (rest > 0).then(|| BlockSpan { piece, begin, len: rest.min(BLOCK_LEN) })
    }

    /// The bytes of a piece's block number `block`; `None` out of range.
    pub fn span(&self, piece: PieceIndex, block: u32) -> Option<BlockSpan> {
        self.block_at(piece, block.checked_mul(BLOCK_LEN)?)
    }

    /// The number of the block that `span` is, within its piece; `None` when it is not exactly one of our blocks.
    pub fn block_of(&self, span: BlockSpan) -> Option<u32> {
        let block = span.begin / BLOCK_LEN;
        (self.span(span.piece, block) == Some(span)).then_some(block)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn pieces_that_are_no_whole_number_of_blocks_end_with_a_short_one_each() {
        for (piece_length, last_block) in [(270_544, 8_400), (827_392, 8_192)] {
            let shape = PieceShape::new(piece_length, 1_000_000).unwrap();
            let first = PieceIndex(0);
            assert_eq!(shape.piece_len(first), piece_length);
            let blocks = shape.blocks_of(first);
            assert_eq!(shape.span(first, blocks - 1).map(|span| span.len), Some(last_block));
            assert_eq!(shape.span(first, blocks - 2).map(|span| span.len), Some(BLOCK_LEN));
            assert_eq!(shape.span(first, blocks), None);
        }
    }

    #[test]
    fn blocks_are_on_average_as_long_as_their_piece_shared_out() {
        let mean = |piece_length| PieceShape::new(piece_length, 1 << 20).unwrap().mean_block_len();
        assert_eq!([1, 1_024, BLOCK_LEN, 4 * BLOCK_LEN].map(mean), [1, 1_024, BLOCK_LEN, BLOCK_LEN]);
        assert_eq!([BLOCK_LEN + 2, 270_544].map(mean), [BLOCK_LEN / 2 + 1, 15_915]);
    }

    #[test]
    fn what_cannot_be_counted_is_no_shape() {
        assert_eq!(PieceShape::new(0, 5), None);
        assert_eq!(PieceShape::new(1, 1 << 32), None);
        assert_eq!(PieceShape::new(u32::MAX, u64::MAX), None);
        assert_eq!(PieceShape::new(1, 0).map(|shape| shape.piece_count), Some(0));
    }

    #[test]
    fn nothing_overflows_at_the_ends_of_the_numbers() {
        let shape = PieceShape::new(1 << 28, u64::from(u32::MAX) << 28).unwrap();
        for piece in [0, u32::MAX - 1, u32::MAX].map(PieceIndex) {
            for number in [0, 1, u32::MAX / BLOCK_LEN, u32::MAX] {
                let span = BlockSpan { piece, begin: number, len: number };
                let _ = (shape.contains(span), shape.block_of(span), shape.span(piece, number));
                let _ = (shape.block_at(piece, number), shape.start_of(piece));
            }
        }
        assert_eq!(shape.pieces_of(0..u64::MAX), 0..u32::MAX);
        assert_eq!(shape.pieces_of(u64::MAX - 1..u64::MAX), 0..0);
    }

    proptest! {
        /// The oracle writes down every byte: its piece, and its block there.
        #[test]
        fn agrees_with_bytes_that_are_numbered_one_by_one(
            piece_length in prop_oneof![1u32..50, BLOCK_LEN - 2..BLOCK_LEN + 3, 2 * BLOCK_LEN + 1..3 * BLOCK_LEN],
            total_len in 0u64..100_000,
            asked in 0u32..8,
            begin in 0u32..40_000,
            len in 0u32..20_000,
        ) {
            let shape = PieceShape::new(piece_length, total_len).unwrap();
            let bytes: Vec<u64> = (0..total_len).collect();
            let pieces: Vec<&[u64]> = bytes.chunks(piece_length as usize).collect();
            prop_assert_eq!(shape.piece_count as usize, pieces.len());
            let piece = PieceIndex(asked);
            let oracle = pieces.get(asked as usize).copied().unwrap_or_default();
            prop_assert_eq!(shape.piece_len(piece) as usize, oracle.len());
            if let Some(&first) = oracle.first() {
                prop_assert_eq!(shape.start_of(piece), first);
            }
            let blocks: Vec<&[u64]> = oracle.chunks(BLOCK_LEN as usize).collect();
            prop_assert_eq!(shape.blocks_of(piece) as usize, blocks.len());
            for (number, block) in (0..).zip(&blocks) {
                let span = shape.span(piece, number).unwrap();
                prop_assert_eq!(u64::from(span.begin), block[0] - oracle[0]);
                prop_assert_eq!(span.len as usize, block.len());
                prop_assert_eq!(shape.block_of(span), Some(number));
                prop_assert!(shape.contains(span));
            }
            prop_assert_eq!(shape.span(piece, blocks.len() as u32), None);
            let span = BlockSpan { piece, begin, len };
            let inside = oracle.get(begin as usize..(begin + len) as usize).is_some_and(|bytes| !bytes.is_empty());
            prop_assert_eq!(shape.contains(span), inside);
            let range = u64::from(begin)..u64::from(begin) + u64::from(len);
            let touched: Vec<u32> = (0..)
                .zip(&pieces)
                .filter(|(_, bytes)| bytes.iter().any(|byte| range.contains(byte)))
                .map(|(number, _)| number)
                .collect();
            prop_assert_eq!(shape.pieces_of(range).collect::<Vec<_>>(), touched);
        }
    }
}
