//! What a connection has to know of its torrent: the shape, and what we have of it.

use super::info_dictionary::InfoDictionary;
use crate::bitfield::SharedBitfield;
use crate::id::InfoHash;
use crate::limits::{METADATA_LEN_MAX, REQUEST_LEN_MAX};
use crate::shape::PieceShape;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Shape and stock of one torrent.
#[derive(Debug)]
pub struct TorrentFacts {
    /// Its name in the swarm.
    pub info_hash: InfoHash,
    /// Bytes of each piece but the last.
    pub piece_length: u32,
    /// Bytes of all pieces.
    pub total_len: u64,
    /// The pieces we serve; the torrent's home core adds those that have been verified.
    pub have: SharedBitfield,
    /// The raw info dictionary, given to peers that ask for it (BEP 9); at most `METADATA_LEN_MAX` bytes. `None` when
    /// it is not served.
    pub info: Option<InfoDictionary>,
    /// Every piece that the user wants is here, so that nothing more is asked of anybody: a seed, or a partial seed
    /// (BEP 21).
    pub satisfied: AtomicBool,
    /// Peers come from its trackers alone (BEP 27).
    pub private: bool,
    /// We super-seed (BEP 16): who joins is told that we have nothing, and of pieces one by one. The torrent's home
    /// core ends it.
    pub hides_stock: AtomicBool,
}

/// Why a requested span is not one we serve (HOSTILE: never leads to a read).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpanFault {
    /// The piece's number is not below the torrent's number of pieces.
    #[error("piece is out of range")]
    PieceOutOfRange,
    /// We do not have the piece.
    #[error("piece is not here")]
    PieceMissing,
    /// Nothing or more than [`REQUEST_LEN_MAX`].
    #[error("length is zero or above 128 KiB")]
    Length,
    /// Begins in the middle of a block.
    #[error("does not begin at a block's border")]
    Unaligned,
    /// Reaches behind the piece's end.
    #[error("reaches behind the end of the piece")]
    BehindPiece,
}

impl TorrentFacts {
    /// Whether nothing more is to be downloaded.
    pub fn wants_nothing(&self) -> bool {
        self.satisfied.load(Relaxed) || self.have.is_full()
    }

    /// Whether peers hear of our pieces one by one.
    pub fn hides_stock(&self) -> bool {
        self.hides_stock.load(Relaxed)
    }

    /// Whether the torrent's home has to hear who has what: to choose what to ask for, or what to show.
    pub fn follows_stocks(&self) -> bool {
        !self.wants_nothing() || self.hides_stock()
    }

    /// Whether peers may be told of each other (BEP 11, 27).
    pub fn may_exchange_peers(&self) -> bool {
        !self.private
    }

    /// Pieces of the torrent.
    pub fn piece_count(&self) -> u32 {
        self.have.len()
    }

    /// How it is cut into pieces and blocks.
    pub fn shape(&self) -> PieceShape {
        PieceShape {
            piece_count: self.piece_count(),
            piece_length: self.piece_length,
            total_len: self.total_len,
        }
    }

    /// Bytes of a piece: the last one may be shorter; zero out of range.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.shape().piece_len(piece)
    }

    /// Bytes of the info dictionary that we give out. That of a private torrent comes from its tracker's site only.
    pub fn info_len(&self) -> Option<u32> {
        let info = self.info.as_ref().filter(|_| !self.private)?;
        Some(info.len()).filter(|len| (1..=METADATA_LEN_MAX).contains(len))
    }

    /// Whether `span` may be read and sent.
    pub fn check(&self, span: BlockSpan) -> Result<(), SpanFault> {
        if span.piece.0 >= self.piece_count() {
            return Err(SpanFault::PieceOutOfRange);
        }
        if span.len == 0 || span.len > REQUEST_LEN_MAX {
            return Err(SpanFault::Length);
        }
        if !span.begin.is_multiple_of(BLOCK_LEN) {
            return Err(SpanFault::Unaligned);
        }
        if !self.shape().contains(span) {
            return Err(SpanFault::BehindPiece);
        }
        if !self.have.contains(span.piece) {
            return Err(SpanFault::PieceMissing);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfield::Bitfield;
    use proptest::prelude::*;

    fn facts() -> TorrentFacts {
        let mut have = Bitfield::all(3);
        have.remove(PieceIndex(1));
        TorrentFacts {
            info_hash: InfoHash([1; 20]),
            piece_length: 32_768,
            total_len: 2 * 32_768 + 20_000,
            have: have.into(),
            info: None,
            satisfied: true.into(),
            private: false,
            hides_stock: false.into(),
        }
    }

    #[test]
    fn names_what_is_wrong_with_a_request() {
        let check = |piece, begin, len| facts().check(BlockSpan { piece: PieceIndex(piece), begin, len });
        assert_eq!(check(0, 16_384, 16_384), Ok(()));
        assert_eq!(check(2, 16_384, 20_000 - 16_384), Ok(()));
        assert_eq!(check(3, 0, 16_384), Err(SpanFault::PieceOutOfRange));
        assert_eq!(check(u32::MAX, 0, 16_384), Err(SpanFault::PieceOutOfRange));
        assert_eq!(check(0, 0, 0), Err(SpanFault::Length));
        assert_eq!(check(0, 0, REQUEST_LEN_MAX + 1), Err(SpanFault::Length));
        assert_eq!(check(0, 0, u32::MAX), Err(SpanFault::Length));
        assert_eq!(check(0, 1, 16_384), Err(SpanFault::Unaligned));
        assert_eq!(check(0, u32::MAX - 16_383, 16_384), Err(SpanFault::BehindPiece));
        assert_eq!(check(2, 16_384, 16_384), Err(SpanFault::BehindPiece));
        assert_eq!(check(1, 0, 16_384), Err(SpanFault::PieceMissing));
    }

    proptest! {
        #[test]
        fn whatever_passes_lies_inside_the_torrent(piece: u32, begin: u32, len: u32) {
            let (facts, span) = (facts(), BlockSpan { piece: PieceIndex(piece % 5), begin, len });
            if facts.check(span).is_ok() {
                let start = u64::from(span.piece.0) * 32_768 + u64::from(begin);
                prop_assert!(start + u64::from(len) <= facts.total_len);
                prop_assert!(len > 0);
            }
        }
    }
}
