//! Content without a disk: a block's bytes are known, its residency is drawn from the seed, its disk can fail.

use crate::engine::ring::MappedRange;
use crate::engine::store::{BlockStore, ColdRange, Extent, Readiness};
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::BlockSpan;
use std::collections::BTreeSet;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Content in memory.
#[derive(Debug)]
pub struct SimStore {
    /// The number of its one file, which no other store has.
    file: RawFd,
    bytes: Vec<u8>,
    piece_length: u32,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Windows that are in memory; all of them when `None`.
    resident: Option<BTreeSet<u64>>,
    /// Windows that are being read.
    loading: BTreeSet<u64>,
    fault: Option<String>,
}

/// The number of the next store's file.
static FILES: AtomicI32 = AtomicI32::new(1000);

/// Bytes of the unit in which content becomes resident.
const WINDOW_LEN: u64 = 64 * 1024;

impl SimStore {
    /// `len` bytes drawn from `seed`, all of them in memory.
    pub fn new(seed: u64, len: usize, piece_length: u32) -> Self {
        let mut bytes = vec![0; len];
        Rng::from_seed(seed).fill(&mut bytes);
        let file = FILES.fetch_add(1, Relaxed);
        Self { file, bytes, piece_length, state: Mutex::default() }
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

    fn windows(&self, span: BlockSpan) -> std::ops::Range<u64> {
        let start = self.start(span) as u64;
        start / WINDOW_LEN..(start + u64::from(span.len)).div_ceil(WINDOW_LEN)
    }

    fn cold(&self, window: u64) -> ColdRange {
        let mapped = MappedRange { address: self.bytes.as_ptr(), len: WINDOW_LEN as u32 };
        ColdRange { file: self.file, device: 1, index: 0, offset: window * WINDOW_LEN, mapped }
    }

    fn start(&self, span: BlockSpan) -> usize {
        span.piece.0 as usize * self.piece_length as usize + span.begin as usize
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn has(&self, window: u64) -> bool {
        !self.loading.contains(&window)
            && self.resident.as_ref().is_none_or(|resident| resident.contains(&window))
    }
}

impl BlockStore for SimStore {
    fn gather(&self, _now: Instant, span: BlockSpan, extents: &mut Vec<Extent>) -> Readiness {
        let state = self.state();
        if state.fault.is_some() {
            return Readiness::Failed;
        }
        let bytes = self.expected(span);
        if let Some(window) = self.windows(span).find(|window| !state.has(*window)) {
            return Readiness::Cold(self.cold(window));
        }
        // Two extents, so that a message has more of them than blocks.
        let (head, tail) = bytes.split_at(bytes.len() / 2);
        for part in [head, tail].into_iter().filter(|part| !part.is_empty()) {
            extents.push(Extent { address: part.as_ptr(), len: part.len() });
        }
        Readiness::Ready
    }

    fn find_absent(&self, _now: Instant, span: BlockSpan, absent: &mut Vec<ColdRange>) {
        let state = self.state();
        let windows = self.windows(span).filter(|it| !state.has(*it) && !state.loading.contains(it));
        absent.extend(windows.map(|window| self.cold(window)));
    }

    fn handle_fetching(&self, range: &ColdRange) {
        let is_new = self.state().loading.insert(range.offset / WINDOW_LEN);
        assert!(is_new, "one worker reads a window twice at once");
    }

    fn handle_fetched(&self, _now: Instant, range: &ColdRange, errno: Option<i32>) -> bool {
        let mut state = self.state();
        let window = range.offset / WINDOW_LEN;
        assert!(state.loading.remove(&window), "nobody had begun to read that");
        match errno {
            None => {
                if let Some(resident) = &mut state.resident {
                    resident.insert(window);
                }
            }
            Some(libc::EAGAIN) => {}
            Some(_) => return true,
        }
        false
    }

    fn handle_unreadable(
        self: &Arc<Self>,
        _at: Option<&ColdRange>,
        errno: i32,
        told: Box<dyn FnOnce() + Send>,
    ) {
        self.fail(&format!("errno {errno}"));
        told();
    }

    fn read(&self, span: BlockSpan, bytes: &mut Vec<u8>) -> Readiness {
        bytes.extend_from_slice(self.expected(span));
        Readiness::Ready
    }

    fn fault(&self) -> Option<String> {
        self.state().fault.clone()
    }
}
