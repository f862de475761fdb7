//! What a load generator has to know about a torrent: its pieces' lengths and hashes, and an order to ask in.
//!
//! [`Walk`] gives each connection its own order over all pieces in constant memory, so that twenty thousand
//! connections cost no twenty thousand shuffled lists: a keyed Feistel network over the next even number of
//! bits, applied until the result lies below the number of pieces (cycle walking; Black and Rogaway,
//! "Ciphers with Arbitrary Finite Domains", 2002). Good enough to defeat read-ahead, no cipher.

use crate::metainfo::Info;
use crate::shape::PieceShape;
use crate::units::{BlockSpan, PieceIndex};
use sha1::{Digest, Sha1};

/// The pieces of a torrent that is asked for.
#[derive(Clone, Debug)]
pub struct Content {
    shape: PieceShape,
    hashes: Box<[[u8; 20]]>,
}

impl Content {
    /// `None` when there is no byte to ask for, or not one hash for each piece.
    pub fn new(piece_length: u32, total_len: u64, hashes: Box<[[u8; 20]]>) -> Option<Self> {
        let shape = PieceShape::new(piece_length, total_len)?;
        let is_whole = total_len > 0 && shape.piece_count as usize == hashes.len();
        is_whole.then_some(Self { shape, hashes })
    }

    /// From a torrent's info dictionary; `None` when it has no byte to ask for.
    pub fn of(info: &Info) -> Option<Self> {
        let hashes = (0..info.piece_count()).map(|piece| info.piece_hash(PieceIndex(piece)));
        Self::new(info.piece_length(), info.total_len(), hashes.collect::<Option<_>>()?)
    }

    /// Number of pieces, at least one.
    pub fn pieces(&self) -> u32 {
        self.shape.piece_count
    }

    /// Bytes of all pieces.
    pub const fn total_len(&self) -> u64 {
        self.shape.total_len
    }

    /// Bytes of one piece; zero out of range.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.shape.piece_len(piece)
    }

    /// The block of a piece that begins at `begin`; `None` at the piece's end.
    pub fn block(&self, piece: PieceIndex, begin: u32) -> Option<BlockSpan> {
        self.shape.block_at(piece, begin)
    }

    /// Whether the bytes are the piece's.
    pub fn verify(&self, piece: PieceIndex, bytes: &[u8]) -> bool {
        self.hashes.get(piece.0 as usize).is_some_and(|hash| Sha1::digest(bytes).as_slice() == hash)
    }
}

/// In which order a connection asks for pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// A different random order for each connection and pass.
    Random,
    /// From the first piece to the last.
    Sequential,
}

/// One connection's way over all pieces, again and again.
#[derive(Clone, Debug)]
pub struct Walk {
    pieces: u32,
    order: Order,
    key: u64,
    next: u32,
}

impl Walk {
    /// A walk over `pieces` pieces, which must not be zero. Walks of different `key` differ.
    pub const fn new(pieces: u32, order: Order, key: u64) -> Self {
        Self { pieces, order, key, next: 0 }
    }

    /// The next piece. Each piece comes once in every pass.
    pub fn next_piece(&mut self) -> PieceIndex {
        let place = self.next;
        let piece = match self.order {
            Order::Sequential => place,
            Order::Random => self.permuted(place),
        };
        self.next += 1;
        if self.next >= self.pieces {
            self.next = 0;
            self.key = mix(self.key, 1);
        }
        PieceIndex(piece)
    }

    fn permuted(&self, place: u32) -> u32 {
        let half_bits = (u32::BITS - self.pieces.saturating_sub(1).leading_zeros()).div_ceil(2).max(1);
        let mask = (1u64 << half_bits) - 1;
        let mut value = u64::from(place);
        loop {
            let (mut left, mut right) = (value >> half_bits, value & mask);
            for round in 0..4 {
                (left, right) = (right, left ^ (mix(self.key ^ (round << 60), right) & mask));
            }
            value = left << half_bits | right;
            // The domain is less than four times too large, so this ends after few rounds.
            if value < u64::from(self.pieces) {
                return value as u32;
            }
        }
    }
}

/// The finaliser of SplitMix64 (Steele, Lea, Flood 2014) over both arguments.
const fn mix(key: u64, value: u64) -> u64 {
    let mut z = key.wrapping_add(value.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::BLOCK_LEN;
    use proptest::prelude::*;

    #[test]
    fn the_last_piece_and_its_last_block_are_as_short_as_they_are() {
        let content = Content::new(40_000, 100_000, vec![[0; 20]; 3].into()).unwrap();
        assert_eq!(content.piece_len(PieceIndex(1)), 40_000);
        assert_eq!(content.piece_len(PieceIndex(2)), 20_000);
        assert_eq!(content.piece_len(PieceIndex(3)), 0);
        assert_eq!(content.block(PieceIndex(2), 0).map(|span| span.len), Some(BLOCK_LEN));
        assert_eq!(content.block(PieceIndex(2), BLOCK_LEN).map(|span| span.len), Some(3_616));
        assert_eq!(content.block(PieceIndex(2), 2 * BLOCK_LEN), None);
        assert_eq!(content.block(PieceIndex(u32::MAX), 0), None);
    }

    #[test]
    fn a_torrent_without_bytes_or_with_too_few_hashes_is_no_content() {
        assert!(Content::new(16_384, 0, Box::new([])).is_none());
        assert!(Content::new(0, 5, Box::new([])).is_none());
        assert!(Content::new(16_384, 16_385, vec![[0; 20]; 1].into()).is_none());
    }

    #[test]
    fn pieces_are_verified_by_their_hash() {
        let content = Content::new(4, 4, vec![Sha1::digest(b"data").into()].into()).unwrap();
        assert!(content.verify(PieceIndex(0), b"data"));
        assert!(!content.verify(PieceIndex(0), b"Data"));
        assert!(!content.verify(PieceIndex(1), b"data"));
    }

    proptest! {
        #[test]
        fn every_pass_visits_every_piece_once(pieces in 1..3000u32, key: u64, random: bool) {
            let order = if random { Order::Random } else { Order::Sequential };
            let mut walk = Walk::new(pieces, order, key);
            let mut passes: Vec<Vec<u32>> =
                (0..2).map(|_| (0..pieces).map(|_| walk.next_piece().0).collect()).collect();
            prop_assert!(!random || pieces < 20 || passes[0] != passes[1], "each pass has its own order");
            for pass in &mut passes {
                pass.sort_unstable();
                prop_assert!(pass.iter().copied().eq(0..pieces));
            }
        }
    }
}
