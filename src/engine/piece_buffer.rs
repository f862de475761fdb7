//! A piece in flight: its bytes in memory, gathered block by block by whichever workers receive them.
//!
//! Each block is claimed before it is written, by one connection at a time; in the endgame the second to bring a
//! block finds it done and throws its bytes away, or finds it claimed, keeps its bytes aside and says that it has them
//! (`contest`): who holds the claim gives it up then. A claim that is dropped before its end frees the block.
//! Once all blocks are done nobody writes any more and everybody may read. Invariant: a byte is only ever
//! written through the one claim on its block, and only read when every block is done, which is never undone.
#![expect(unsafe_code, reason = "disjoint parts of one buffer are written from several threads")]

use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::cell::UnsafeCell;
use std::sync::Arc;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU8, AtomicU32, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

const FREE: u8 = 0;
const CLAIMED: u8 = 1;
const DONE: u8 = 2;
/// Claimed, and somebody else has the block whole.
const CONTESTED: u8 = 3;

/// The bytes of one piece, on their way.
pub struct PieceBuffer {
    piece: PieceIndex,
    bytes: UnsafeCell<Box<[u8]>>,
    /// By block.
    states: Box<[AtomicU8]>,
    missing: AtomicU32,
    /// One for each block, entered by whoever touches its bytes: loom refuses what the states do not order.
    #[cfg(loom)]
    touched: Box<[loom::cell::UnsafeCell<()>]>,
}

// SAFETY: the bytes are written only through claims, of which there is one a block, and read only when no claim can
// be had any more; the states order both.
unsafe impl Sync for PieceBuffer {}

/// The right to write one block. Dropped before [`finish`](Self::finish), it leaves the block free.
#[derive(Debug)]
pub struct BlockClaim {
    buffer: Arc<PieceBuffer>,
    block: u32,
    filled: u32,
    len: u32,
}

impl PieceBuffer {
    /// A buffer for a piece of `len` bytes.
    pub fn new(piece: PieceIndex, len: u32) -> Self {
        let blocks = len.div_ceil(BLOCK_LEN);
        Self {
            piece,
            bytes: UnsafeCell::new(vec![0; len as usize].into_boxed_slice()),
            states: (0..blocks).map(|_| AtomicU8::new(FREE)).collect(),
            missing: AtomicU32::new(blocks),
            #[cfg(loom)]
            touched: (0..blocks).map(|_| loom::cell::UnsafeCell::new(())).collect(),
        }
    }

    /// The same memory for another piece of the same length; nobody else may hold the buffer.
    #[cfg(not(loom))]
    pub fn reuse(mut self: Arc<Self>, piece: PieceIndex, len: u32) -> Option<Arc<Self>> {
        let own = Arc::get_mut(&mut self)?;
        if own.bytes.get_mut().len() != len as usize {
            return None;
        }
        own.piece = piece;
        own.states.iter_mut().for_each(|state| *state.get_mut() = FREE);
        *own.missing.get_mut() = own.states.len() as u32;
        Some(self)
    }

    /// The piece.
    pub fn piece(&self) -> PieceIndex {
        self.piece
    }

    /// Bytes of the piece.
    pub fn len(&self) -> usize {
        // SAFETY: only the slice's length is read, which never changes while the buffer is shared.
        unsafe { (&raw const **self.bytes.get()).len() }
    }

    /// Whether the piece has no bytes, which no piece of a torrent is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Claims a block; `None` when it is another's, done, or not a block of this piece.
    pub fn claim(self: &Arc<Self>, span: BlockSpan) -> Option<BlockClaim> {
        let end = (span.begin as usize).checked_add(span.len as usize)?;
        let whole = span.begin.is_multiple_of(BLOCK_LEN)
            && (end == self.len() || span.len == BLOCK_LEN)
            && span.len <= BLOCK_LEN;
        if span.piece != self.piece || !whole || end > self.len() || span.len == 0 {
            return None;
        }
        let block = span.begin / BLOCK_LEN;
        // Acquire: what the one before wrote has ended before we write.
        let claimed = self.states.get(block as usize)?.compare_exchange(
            FREE,
            CLAIMED,
            Ordering::Acquire,
            Ordering::Relaxed,
        );
        claimed.ok()?;
        Some(BlockClaim { buffer: Arc::clone(self), block, filled: 0, len: span.len })
    }

    /// Asks whoever has claimed the block, if anybody has, to give it up.
    pub fn contest(&self, span: BlockSpan) {
        if span.piece == self.piece
            && let Some(state) = self.states.get((span.begin / BLOCK_LEN) as usize)
        {
            // Only a hint, which orders nothing: the block's next claim does.
            let _ = state.compare_exchange(CLAIMED, CONTESTED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Whether the block is here whole.
    pub fn is_done(&self, span: BlockSpan) -> bool {
        let state = self.states.get((span.begin / BLOCK_LEN) as usize);
        span.piece == self.piece && state.is_some_and(|state| state.load(Ordering::Acquire) == DONE)
    }

    /// The piece's bytes, once all blocks are done.
    pub fn bytes(&self) -> Option<&[u8]> {
        // Acquire pairs with the release of each `finish`: they form one chain of read-modify-writes.
        if self.missing.load(Ordering::Acquire) > 0 {
            return None;
        }
        #[cfg(loom)]
        self.touched.iter().for_each(|block| block.with(|_| ()));
        // SAFETY: all blocks are done, so that no claim exists and none can be had; `reuse` needs the only handle.
        Some(unsafe { &**self.bytes.get() })
    }
}

impl AsRef<[u8]> for PieceBuffer {
    /// The whole piece, or nothing while it is not complete.
    fn as_ref(&self) -> &[u8] {
        self.bytes().unwrap_or_default()
    }
}

impl std::fmt::Debug for PieceBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PieceBuffer")
            .field("piece", &self.piece)
            .field("missing", &self.missing)
            .finish_non_exhaustive()
    }
}

impl BlockClaim {
    /// Appends payload to the block; what goes beyond its end is left out.
    pub fn write(&mut self, payload: &[u8]) {
        let len = payload.len().min((self.len - self.filled) as usize);
        let start = self.block as usize * BLOCK_LEN as usize + self.filled as usize;
        #[cfg(loom)]
        self.buffer.touched[self.block as usize].with_mut(|_| ());
        // SAFETY: `start + len` lies inside the block, the block inside the buffer, and the claim is the only one on
        // this block, so that nobody else reads or writes these bytes.
        unsafe {
            let base = (&raw mut **self.buffer.bytes.get()).cast::<u8>();
            std::ptr::copy_nonoverlapping(payload.as_ptr(), base.add(start), len);
        }
        self.filled += len as u32;
    }

    /// Whether somebody else has the block whole and waits for this claim to be dropped.
    pub fn is_contested(&self) -> bool {
        self.buffer.states[self.block as usize].load(Ordering::Relaxed) == CONTESTED
    }

    /// Ends the block; true when all its bytes had been written.
    pub fn finish(self) -> bool {
        let whole = self.filled == self.len;
        if whole {
            let this = std::mem::ManuallyDrop::new(self);
            // A swap and not a store: like every change of a state it comes after the one before, a contest included.
            this.buffer.states[this.block as usize].swap(DONE, Ordering::Release);
            this.buffer.missing.fetch_sub(1, Ordering::AcqRel);
            // SAFETY: `this` is never used or dropped again, so that its handle is moved out once.
            drop(unsafe { std::ptr::read(&raw const this.buffer) });
        }
        whole
    }
}

impl Drop for BlockClaim {
    fn drop(&mut self) {
        self.buffer.states[self.block as usize].swap(FREE, Ordering::Release);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const PIECE: PieceIndex = PieceIndex(7);

    fn span(begin: u32, len: u32) -> BlockSpan {
        BlockSpan { piece: PIECE, begin, len }
    }

    #[test]
    fn a_block_has_one_writer_and_is_written_once() {
        let buffer = Arc::new(PieceBuffer::new(PIECE, BLOCK_LEN + 10));
        let mut first = buffer.claim(span(0, BLOCK_LEN)).unwrap();
        assert!(buffer.claim(span(0, BLOCK_LEN)).is_none());
        first.write(&[1; 100]);
        drop(first);
        let mut again = buffer.claim(span(0, BLOCK_LEN)).unwrap();
        again.write(&[2; BLOCK_LEN as usize + 5]);
        assert!(again.finish());
        assert!(buffer.claim(span(0, BLOCK_LEN)).is_none() && buffer.bytes().is_none());
        let mut last = buffer.claim(span(BLOCK_LEN, 10)).unwrap();
        last.write(&[3; 4]);
        last.write(&[4; 6]);
        assert!(last.finish());
        let bytes = buffer.bytes().unwrap();
        assert!(bytes[..BLOCK_LEN as usize].iter().all(|&byte| byte == 2));
        assert_eq!(bytes[BLOCK_LEN as usize..], [3, 3, 3, 3, 4, 4, 4, 4, 4, 4]);
    }

    #[test]
    fn what_is_no_block_of_the_piece_cannot_be_claimed() {
        let buffer = Arc::new(PieceBuffer::new(PIECE, BLOCK_LEN + 10));
        for wrong in [
            span(1, 9),
            span(0, 10),
            span(BLOCK_LEN, 11),
            span(BLOCK_LEN, 9),
            span(2 * BLOCK_LEN, 10),
            span(0, 0),
        ] {
            assert!(buffer.claim(wrong).is_none(), "{wrong}");
        }
        assert!(buffer.claim(BlockSpan { piece: PieceIndex(8), begin: 0, len: BLOCK_LEN }).is_none());
        assert!(buffer.claim(span(u32::MAX - 3, u32::MAX)).is_none());
    }

    #[test]
    fn an_unfinished_block_stays_free_and_memory_is_reused_by_its_only_holder() {
        let buffer = Arc::new(PieceBuffer::new(PIECE, 10));
        let mut claim = buffer.claim(span(0, 10)).unwrap();
        claim.write(&[1; 9]);
        assert!(!claim.finish());
        let mut claim = buffer.claim(span(0, 10)).unwrap();
        claim.write(&[1; 10]);
        assert!(claim.finish() && buffer.bytes().is_some());
        assert!(Arc::clone(&buffer).reuse(PieceIndex(1), 10).is_none());
        let buffer = buffer.reuse(PieceIndex(1), 10).unwrap();
        assert_eq!((buffer.piece(), buffer.bytes()), (PieceIndex(1), None));
        assert!(buffer.reuse(PieceIndex(1), 11).is_none());
    }

    #[test]
    fn a_contested_claim_knows_it_and_leaves_the_block_to_the_other() {
        let buffer = Arc::new(PieceBuffer::new(PIECE, 2 * BLOCK_LEN));
        buffer.contest(span(0, BLOCK_LEN));
        let mut slow = buffer.claim(span(0, BLOCK_LEN)).unwrap();
        let other = buffer.claim(span(BLOCK_LEN, BLOCK_LEN)).unwrap();
        slow.write(&[1; 100]);
        assert!(!slow.is_contested());
        buffer.contest(span(0, BLOCK_LEN));
        assert!(slow.is_contested() && !other.is_contested());
        assert!(buffer.claim(span(0, BLOCK_LEN)).is_none());
        drop(slow);
        let mut quick = buffer.claim(span(0, BLOCK_LEN)).unwrap();
        assert!(!quick.is_contested());
        quick.write(&[2; BLOCK_LEN as usize]);
        buffer.contest(span(0, BLOCK_LEN));
        assert!(quick.finish() && buffer.is_done(span(0, BLOCK_LEN)));
        buffer.contest(span(0, BLOCK_LEN));
        assert!(buffer.is_done(span(0, BLOCK_LEN)));
    }

    #[test]
    fn many_threads_fill_one_piece_and_each_block_counts_once() {
        const BLOCKS: u32 = if cfg!(miri) { 3 } else { 64 };
        let buffer = Arc::new(PieceBuffer::new(PIECE, BLOCKS * BLOCK_LEN));
        let finished = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for thread in 0..4_u8 {
                let (buffer, finished) = (&buffer, &finished);
                scope.spawn(move || {
                    for block in 0..BLOCKS {
                        if let Some(mut claim) = buffer.claim(span(block * BLOCK_LEN, BLOCK_LEN)) {
                            claim.write(&[thread + 1; BLOCK_LEN as usize]);
                            finished.fetch_add(u32::from(claim.finish()), Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!(finished.into_inner(), BLOCKS);
        let blocks = buffer.bytes().unwrap().chunks(BLOCK_LEN as usize);
        blocks.for_each(|block| assert!(block[0] > 0 && block.iter().all(|&byte| byte == block[0])));
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;

    const PIECE: PieceIndex = PieceIndex(7);
    const FIRST: BlockSpan = BlockSpan { piece: PIECE, begin: 0, len: BLOCK_LEN };
    const LAST: BlockSpan = BlockSpan { piece: PIECE, begin: BLOCK_LEN, len: 2 };

    /// Claims a block and writes `byte` to the whole of it; whether the claim was to be had.
    fn fill(buffer: &Arc<PieceBuffer>, span: BlockSpan, byte: u8) -> bool {
        let Some(mut claim) = buffer.claim(span) else { return false };
        claim.write(&[byte; BLOCK_LEN as usize][..span.len as usize]);
        assert!(claim.finish());
        true
    }

    #[test]
    fn loom_who_sees_the_last_block_done_sees_what_was_written_to_all() {
        loom::model(|| {
            let buffer = Arc::new(PieceBuffer::new(PIECE, BLOCK_LEN + 2));
            let other = {
                let buffer = buffer.clone();
                loom::thread::spawn(move || {
                    assert!(fill(&buffer, LAST, 2));
                    buffer.bytes().map(|bytes| (bytes[0], bytes[BLOCK_LEN as usize + 1]))
                })
            };
            assert!(fill(&buffer, FIRST, 1));
            let seen = buffer.bytes().map(|bytes| (bytes[0], bytes[BLOCK_LEN as usize + 1]));
            let seen_there = other.join().expect("the other does not panic");
            assert!([seen, seen_there].contains(&Some((1, 2))), "the last to end sees the whole piece");
            assert!([seen, seen_there].iter().all(|seen| seen.is_none_or(|bytes| bytes == (1, 2))));
        });
    }

    #[test]
    fn loom_a_block_that_two_bring_is_written_by_one() {
        loom::model(|| {
            let buffer = Arc::new(PieceBuffer::new(PIECE, 2));
            let span = BlockSpan { len: 2, ..FIRST };
            let other = {
                let buffer = buffer.clone();
                loom::thread::spawn(move || fill(&buffer, span, 2))
            };
            let here = fill(&buffer, span, 1);
            let there = other.join().expect("the other does not panic");
            assert!(here != there, "one of them writes the block, and only one");
            assert_eq!(buffer.bytes(), Some(&[if here { 1 } else { 2 }; 2][..]));
        });
    }

    #[test]
    fn loom_a_claim_that_is_given_up_leaves_the_block_to_the_next_whole() {
        loom::model(|| {
            let buffer = Arc::new(PieceBuffer::new(PIECE, 2));
            let span = BlockSpan { len: 2, ..FIRST };
            let slow = {
                let buffer = buffer.clone();
                loom::thread::spawn(move || {
                    let mut claim = buffer.claim(span).expect("the first to come");
                    claim.write(&[1]);
                    drop(claim);
                })
            };
            // Whether the other has given up by now or not, nothing it wrote is taken for the block.
            buffer.contest(span);
            slow.join().expect("the other does not panic");
            assert!(!buffer.is_done(span) && buffer.bytes().is_none());
            assert!(fill(&buffer, span, 2));
            assert_eq!(buffer.bytes(), Some(&[2; 2][..]));
        });
    }

    #[test]
    fn loom_contesting_never_undoes_a_block_that_is_done() {
        loom::model(|| {
            let buffer = Arc::new(PieceBuffer::new(PIECE, 2));
            let span = BlockSpan { len: 2, ..FIRST };
            let other = {
                let buffer = buffer.clone();
                loom::thread::spawn(move || buffer.contest(span))
            };
            assert!(fill(&buffer, span, 1));
            other.join().expect("the other does not panic");
            buffer.contest(span);
            assert!(buffer.is_done(span) && buffer.claim(span).is_none());
        });
    }
}
