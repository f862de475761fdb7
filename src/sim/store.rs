//! Content without a disk: a block's bytes are known, its residency is drawn from the seed, its disk can fail.

use crate::engine::ring::MappedRange;
use crate::engine::store::{BlockStore, ColdRange, Extent, Readiness};
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::BlockSpan;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Content in memory.
#[derive(Debug)]
pub struct SimStore {
    bytes: Vec<u8>,
    piece_length: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Windows that are in memory; all of them when `None`.
    resident: Option<BTreeSet<u64>>,
    fault: Option<String>,
}

/// Bytes of the unit in which content becomes resident.
const WINDOW_LEN: u64 = 64 * 1024;

impl SimStore {
    /// `len` bytes drawn from `seed`, all of them in memory.
    pub fn new(seed: u64, len: usize, piece_length: u32) -> Self {
        let mut bytes = vec![0; len];
        Rng::from_seed(seed).fill(&mut bytes);
        Self { bytes, piece_length, state: Mutex::default() }
    }

    /// Puts everything out of memory.
    pub fn evict(&self) {
        self.state().resident = Some(BTreeSet::new());
    }

    /// The bytes of a block.
    pub fn expected(&self, span: BlockSpan) -> &[u8] {
        let start = self.start(span);
        &self.bytes[start..start + span.len as usize]
    }

    /// Makes the content fail at its next use.
    pub fn fail(&self, reason: &str) {
        self.state().fault.get_or_insert_with(|| reason.to_owned());
    }

    /// All bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn start(&self, span: BlockSpan) -> usize {
        span.piece.0 as usize * self.piece_length as usize + span.begin as usize
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlockStore for SimStore {
    fn gather(&self, _now: Instant, span: BlockSpan, extents: &mut Vec<Extent>) -> Readiness {
        let state = self.state();
        if state.fault.is_some() {
            return Readiness::Failed;
        }
        let bytes = self.expected(span);
        let start = self.start(span) as u64;
        for window in start / WINDOW_LEN..(start + u64::from(span.len)).div_ceil(WINDOW_LEN) {
            if state.resident.as_ref().is_some_and(|resident| !resident.contains(&window)) {
                let offset = window * WINDOW_LEN;
                let mapped = MappedRange { address: self.bytes.as_ptr(), len: WINDOW_LEN as u32 };
                return Readiness::Cold(ColdRange { file: 1000, index: 0, offset, mapped });
            }
        }
        // Two extents, so that a message has more of them than blocks.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
            extents.push(Extent { address: part.as_ptr(), len: part.len() });
        }
        Readiness::Ready
    }

    fn handle_fetched(&self, _now: Instant, range: &ColdRange, errno: Option<i32>) {
        match errno {
            None => {
                if let Some(resident) = &mut self.state().resident {
                    resident.insert(range.offset / WINDOW_LEN);
                }
            }
            Some(libc::EAGAIN) => {}
            Some(errno) => self.fail(&format!("errno {errno}")),
        }
    }

    fn handle_unreadable(&self) {
        self.fail("unreadable");
    }

    fn read(&self, span: BlockSpan, bytes: &mut Vec<u8>) -> Readiness {
        bytes.extend_from_slice(self.expected(span));
        Readiness::Ready
    }

    fn fault(&self) -> Option<String> {
        self.state().fault.clone()
    }
}
