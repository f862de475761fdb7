//! Storage for whole pieces without a disk: it compares with the known bytes, keeps answers back, gives them out of
//! order, and refuses when told to.

use super::store::SimStore;
use crate::engine::piece_buffer::PieceBuffer;
use crate::engine::store::PieceSink;
use crate::peer::TorrentFacts;
use crate::rng::Rng;
use crate::torrent::PieceResult;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Storage whose answers come when [`answer`](Self::answer) is called, and never from within `submit`.
#[derive(Debug)]
pub struct SimSink {
    store: Arc<SimStore>,
    facts: Arc<TorrentFacts>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: Vec<Submitted>,
    stored: BTreeSet<PieceIndex>,
    failed: usize,
    refuses: bool,
    /// Of so many thousandths of the pieces the writing fails.
    fails: u64,
    /// Every buffer that was ever submitted.
    seen: Vec<Weak<PieceBuffer>>,
}

struct Submitted {
    piece: PieceIndex,
    bytes: Arc<PieceBuffer>,
    want_block_hashes: bool,
    reply: Box<dyn FnOnce(PieceResult) + Send>,
}

impl std::fmt::Debug for Submitted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Submitted").field("piece", &self.piece).finish_non_exhaustive()
    }
}

impl SimSink {
    /// Storage for the bytes of `store`.
    pub fn new(store: Arc<SimStore>, facts: Arc<TorrentFacts>) -> Self {
        Self { store, facts, state: Mutex::default() }
    }

    /// From now on every piece is refused, or no longer.
    pub fn set_refusing(&self, refuses: bool) {
        self.state().refuses = refuses;
    }

    /// From now on so many of a thousand writes fail, each for a reason of its own.
    pub fn set_failing(&self, thousandths: u64) {
        self.state().fails = thousandths;
    }

    /// Answers up to `count` pieces, in any order. Pieces without an answer are left.
    pub fn answer(&self, count: usize, rng: &mut Rng) {
        for _ in 0..count {
            let mut state = self.state();
            if state.waiting.is_empty() {
                return;
            }
            let chosen = rng.index(state.waiting.len());
            let one = state.waiting.swap_remove(chosen);
            let fails = rng.below(1000) < state.fails;
            let result = match self.judge(&mut state, &one, fails) {
                PieceResult::Unwritable { .. } if fails => {
                    let errno = [libc::EIO, libc::ENOSPC, libc::EROFS, libc::EDQUOT][rng.index(4)];
                    PieceResult::Unwritable { reason: std::io::Error::from_raw_os_error(errno).to_string() }
                }
                result => result,
            };
            drop(state);
            drop(one.bytes);
            (one.reply)(result);
        }
    }

    fn judge(&self, state: &mut State, one: &Submitted, fails: bool) -> PieceResult {
        let len = self.facts.piece_len(one.piece);
        let bytes = one.bytes.bytes().expect("only whole pieces are submitted");
        assert_eq!((one.bytes.piece(), bytes.len()), (one.piece, len as usize));
        let hashes = || -> Vec<[u8; 20]> {
            let blocks = bytes.chunks(BLOCK_LEN as usize);
            blocks.map(|block| sha1_smol::Sha1::from(block).digest().bytes()).collect()
        };
        if bytes != self.store.expected(BlockSpan { piece: one.piece, begin: 0, len }) {
            state.failed += 1;
            return PieceResult::Failed { block_hashes: hashes() };
        }
        if state.refuses || fails {
            return PieceResult::Unwritable { reason: "the disk is full".to_owned() };
        }
        assert!(state.stored.insert(one.piece), "piece {} is stored twice", one.piece);
        PieceResult::Verified { block_hashes: one.want_block_hashes.then(hashes) }
    }

    /// Whether the piece is stored.
    pub fn has(&self, piece: PieceIndex) -> bool {
        self.state().stored.contains(&piece)
    }

    /// The pieces that are stored.
    pub fn pieces(&self) -> Vec<PieceIndex> {
        self.state().stored.iter().copied().collect()
    }

    /// Pieces stored.
    pub fn stored(&self) -> usize {
        self.state().stored.len()
    }

    /// Pieces whose bytes were wrong.
    pub fn failed(&self) -> usize {
        self.state().failed
    }

    /// Pieces that wait for their answer.
    pub fn waiting(&self) -> usize {
        self.state().waiting.len()
    }

    /// Buffers that were submitted once and that somebody still holds.
    pub fn buffers_held(&self) -> usize {
        self.state().seen.iter().filter(|buffer| buffer.strong_count() > 0).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PieceSink for SimSink {
    fn submit(
        &self,
        piece: PieceIndex,
        bytes: Arc<PieceBuffer>,
        want_block_hashes: bool,
        reply: Box<dyn FnOnce(PieceResult) + Send>,
    ) {
        let mut state = self.state();
        assert!(!state.stored.contains(&piece), "piece {piece} is stored already");
        assert!(state.waiting.iter().all(|other| other.piece != piece), "piece {piece} is submitted twice");
        state.seen.push(Arc::downgrade(&bytes));
        state.waiting.push(Submitted { piece, bytes, want_block_hashes, reply });
    }
}
