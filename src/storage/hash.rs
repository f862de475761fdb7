//! Hashes pieces on all cores: to make a torrent, and to check content against one.
//!
//! Threads take short runs of pieces from one counter, so that each reads forward and all end together. The
//! hash itself is [`piece_hash`] of a piece's bytes, or `hash_lanes` of several pieces' bytes at once.
//! SHA-1 costs more than sending the same bytes, so this never runs on a data core while it serves. Absent:
//! BEP 52's SHA-256 trees.

use super::error::StorageError;
use super::fingerprint::Fingerprint;
use super::layout::{FileIndex, Layout};
use super::piece_reader::{FileTroubles, PieceReader};
use super::root::Root;
use super::selection::FileSelection;
use super::sha1_lanes::{LANES, hash_lanes};
use crate::bitfield::Bitfield;
use crate::limits;
use crate::units::PieceIndex;
use sha1::{Digest, Sha1};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Bytes of the run of pieces that a thread takes at a time: long enough for the disk to read ahead, short
/// enough (about 15 ms of hashing) for the threads to end together.
const RUN_LEN: u32 = 16 * 1024 * 1024;

/// Bytes of a piece above which pieces are hashed one at a time, because several buffers would be too large.
const LANE_LEN_MAX: u32 = 16 * 1024 * 1024;

/// SHA-1 of one piece, with the CPU's own instructions where it has them.
pub fn piece_hash(piece: &[u8]) -> [u8; 20] {
    Sha1::digest(piece).into()
}

/// SHA-1 of each message. Up to four of one length that stand together are hashed in four lanes, two and three of them,
/// too, since that is quicker than one by one.
pub fn piece_hashes(messages: &[&[u8]]) -> Vec<[u8; 20]> {
    let mut hashes = Vec::with_capacity(messages.len());
    for some in messages.chunks(LANES) {
        match some {
            [first, .., last] if some.iter().all(|message| message.len() == first.len()) => {
                let lanes = std::array::from_fn(|lane| some.get(lane).copied().unwrap_or(last));
                hashes.extend(hash_lanes(lanes).into_iter().take(some.len()));
            }
            _ => hashes.extend(some.iter().map(|message| piece_hash(message))),
        }
    }
    hashes
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckReport {
    /// The pieces whose bytes are right.
    pub bitfield: Bitfield,
    /// Files that are missing, of a wrong length or unreadable, in the torrent's order.
    pub problems: Vec<FileProblem>,
}

/// What is wrong with one file, apart from its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileProblem {
    /// The file.
    pub file: FileIndex,
    /// What is wrong.
    pub error: StorageError,
}

impl CheckReport {
    /// Whether every piece is right and every file as it should be.
    pub fn is_complete(&self) -> bool {
        self.bitfield.is_full() && self.problems.is_empty()
    }

    /// The same with pieces that are known to be right without a look at them.
    pub fn and_right(mut self, right: &Bitfield) -> Self {
        right.iter().for_each(|piece| _ = self.bitfield.insert(piece));
        self
    }

    /// Adds what is wrong with files that no look was taken at; of the others what was found first stays.
    pub fn add(&mut self, problems: &[FileProblem]) {
        let is_new =
            |problem: &&FileProblem| self.problems.binary_search_by_key(&problem.file, |it| it.file).is_err();
        let new: Vec<FileProblem> = problems.iter().filter(is_new).cloned().collect();
        self.problems.extend(new);
        self.problems.sort_unstable_by_key(|problem| problem.file);
    }

    /// Files that nothing is known against but that they share pieces with a bad file, and that file: it has a problem, or a bad
    /// piece that lies in it alone. Their own bytes may all be right.
    pub fn neighbours(&self, layout: &Layout) -> BTreeMap<FileIndex, FileIndex> {
        // Each bad piece with its files; padding is always as it should be.
        let bad = (0..layout.piece_count()).map(PieceIndex).filter(|&piece| !self.bitfield.contains(piece));
        let files_of = |piece| {
            let spans = layout.spans(layout.piece_span(piece));
            let files = spans.map(|span| span.file);
            files.filter(|&file| layout.file(file).is_some_and(|file| !file.padding)).collect()
        };
        let bad: Vec<Vec<FileIndex>> = bad.map(files_of).collect();
        let alone = bad.iter().filter(|files| files.len() == 1).flatten();
        let culprits: BTreeSet<FileIndex> =
            self.problems.iter().map(|problem| &problem.file).chain(alone).copied().collect();
        let mut neighbours = BTreeMap::new();
        let mut unexplained = BTreeSet::new();
        for files in &bad {
            let culprit = files.iter().find(|file| culprits.contains(file));
            for &file in files.iter().filter(|file| !culprits.contains(file)) {
                match culprit {
                    Some(&culprit) => _ = neighbours.entry(file).or_insert(culprit),
                    None => _ = unexplained.insert(file),
                }
            }
        }
        neighbours.retain(|file, _| !unexplained.contains(file));
        neighbours
    }

    /// Number of pieces with bytes of `file` that are wrong or unreadable.
    pub fn bad_pieces_of(&self, layout: &Layout, file: FileIndex) -> u32 {
        let pieces = layout.pieces_of(file);
        pieces.filter(|&piece| !self.bitfield.contains(PieceIndex(piece))).count() as u32
    }
}

/// The hash of every piece, in order. Ends at the first file that is missing, of another length than the
/// layout says, unreadable, or written to while it is hashed. `threads` of 0 is one for every core; `on_progress` receives
/// the bytes hashed since its last call, on any thread.
pub fn hash_pieces(
    layout: &Layout,
    root: &Path,
    threads: usize,
    on_progress: &(dyn Fn(u64) + Sync),
) -> Result<Vec<[u8; 20]>, StorageError> {
    let before = Fingerprint::take(layout, root)?;
    let cancel = AtomicBool::new(false);
    let root = Root::open(root)?;
    let job = Job { layout, root, subset: None, on_progress, cancel: &cancel, ends_at_trouble: true };
    let (mut hashes, troubles) = job.run(threads, &|_, hash| Some(hash))?;
    if let Some((_, trouble)) = troubles.into_iter().next() {
        return Err(trouble);
    }
    if let Some(file) = before.first_difference(&Fingerprint::take(layout, job.root.path())?, layout) {
        return Err(StorageError::Modified(job.root.full_path(&file.path)));
    }
    hashes.sort_unstable_by_key(|&(piece, _)| piece);
    Ok(hashes.into_iter().map(|(_, hash)| hash).collect())
}

/// Which pieces are right. `expected` gives a piece's hash, on any thread; a piece without one counts as wrong.
/// Files that are missing, short or unreadable cost their pieces and are reported; only a root that
/// cannot be opened, or `cancel` becoming true, is an error. The rest as in [`hash_pieces`].
pub fn check(
    layout: &Layout,
    root: &Path,
    expected: &(dyn Fn(PieceIndex) -> Option<[u8; 20]> + Sync),
    threads: usize,
    on_progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<CheckReport, StorageError> {
    check_job(layout, root, None, expected, threads, (on_progress, cancel))
}

/// Some pieces of a torrent of which perhaps not all files are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Subset<'a> {
    /// The pieces.
    pub pieces: &'a Bitfield,
    /// The wanted files; bytes of others are looked for in the parts file.
    pub selection: &'a FileSelection,
}

/// [`check`] of some pieces; all others count as wrong without being looked at.
pub fn check_some(
    layout: &Layout,
    root: &Path,
    subset: Subset<'_>,
    expected: &(dyn Fn(PieceIndex) -> Option<[u8; 20]> + Sync),
    threads: usize,
    on_progress: &(dyn Fn(u64) + Sync),
    cancel: &AtomicBool,
) -> Result<CheckReport, StorageError> {
    check_job(layout, root, Some(subset), expected, threads, (on_progress, cancel))
}

fn check_job(
    layout: &Layout,
    root: &Path,
    subset: Option<Subset<'_>>,
    expected: &(dyn Fn(PieceIndex) -> Option<[u8; 20]> + Sync),
    threads: usize,
    (on_progress, cancel): (&(dyn Fn(u64) + Sync), &AtomicBool),
) -> Result<CheckReport, StorageError> {
    let job = Job { layout, root: Root::open(root)?, subset, on_progress, cancel, ends_at_trouble: false };
    let is_good = |piece, hash| (expected(piece) == Some(hash)).then_some(());
    let (good, troubles) = job.run(threads, &is_good)?;
    if cancel.load(Relaxed) {
        return Err(StorageError::Cancelled);
    }
    let mut bitfield = Bitfield::none(layout.piece_count());
    for (piece, ()) in good {
        bitfield.insert(piece);
    }
    let problems = troubles.into_iter().map(|(file, error)| FileProblem { file, error }).collect();
    Ok(CheckReport { bitfield, problems })
}

struct Job<'a> {
    layout: &'a Layout,
    root: Root,
    /// `None`: all pieces.
    subset: Option<Subset<'a>>,
    on_progress: &'a (dyn Fn(u64) + Sync),
    cancel: &'a AtomicBool,
    ends_at_trouble: bool,
}

/// What is made of a piece's hash; `None` leaves the piece out of the result.
type Visit<'a, T> = &'a (dyn Fn(PieceIndex, [u8; 20]) -> Option<T> + Sync);

impl Job<'_> {
    /// Reads every piece on `threads` threads. Answers what `visit` made of those that could be read, in no
    /// order, and what was wrong with files.
    fn run<T: Send>(
        &self,
        threads: usize,
        visit: Visit<'_, T>,
    ) -> Result<(Vec<(PieceIndex, T)>, FileTroubles), StorageError> {
        let next = AtomicU32::new(0);
        let work = || self.work(&next, visit);
        let outcome = crossbeam::thread::scope(|scope| {
            let start = |_| scope.builder().name("hash".into()).spawn(|_| work());
            // What cannot be started is done by those that could, and without any by this thread.
            let started: Vec<_> =
                (0..self.thread_count(threads)).map_while(|index| start(index).ok()).collect();
            if started.is_empty() {
                return vec![Ok(work())];
            }
            started.into_iter().map(|thread| thread.join()).collect()
        });
        let mut pieces = Vec::new();
        let mut troubles = FileTroubles::new();
        for joined in outcome.unwrap_or_else(|panic| resume_unwind(panic)) {
            let (some, more) = joined.unwrap_or_else(|panic| resume_unwind(panic));
            pieces.extend(some);
            for (file, trouble) in more {
                troubles.entry(file).or_insert(trouble);
            }
        }
        Ok((pieces, troubles))
    }

    fn work<T>(&self, next: &AtomicU32, visit: Visit<'_, T>) -> (Vec<(PieceIndex, T)>, FileTroubles) {
        let piece_count = self.layout.piece_count();
        let run = (RUN_LEN / self.layout.piece_length()).max(self.lanes() as u32);
        let every_file = FileSelection::all();
        let selection = self.subset.map_or(&every_file, |subset| subset.selection);
        let mut reader = PieceReader::new(self.layout, &self.root, selection, self.cancel);
        let mut batch = Batch::new(self.lanes(), self.layout.piece_len(PieceIndex(0)));
        let mut made = Vec::new();
        // Relaxed: the counter only hands out numbers; results travel by joining the threads. PIECES_MAX, threads
        // and runs are far too small together to overflow it.
        'runs: while let first = next.fetch_add(run, Relaxed)
            && first < piece_count
        {
            for piece in (first..first.saturating_add(run).min(piece_count)).map(PieceIndex) {
                if self.cancel.load(Relaxed) {
                    break 'runs;
                }
                if self.subset.is_some_and(|subset| !subset.pieces.contains(piece)) {
                    continue;
                }
                let len = self.layout.piece_len(piece);
                if batch.read(&mut reader, piece, len) {
                    if batch.is_full() {
                        batch.hash_into(visit, &mut made);
                    }
                } else if self.ends_at_trouble {
                    next.store(piece_count, Relaxed);
                    break 'runs;
                }
                (self.on_progress)(u64::from(len));
            }
        }
        batch.hash_into(visit, &mut made);
        (made, reader.into_troubles())
    }

    /// Pieces that one thread hashes together.
    fn lanes(&self) -> usize {
        if self.layout.piece_length() <= LANE_LEN_MAX { LANES } else { 1 }
    }

    /// Threads to use: as many as wanted, but no more than there are pieces or than buffers may be had.
    fn thread_count(&self, wanted: usize) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let wanted = if wanted == 0 { cores() } else { wanted };
        let each = u64::from(self.layout.piece_length()) * self.lanes() as u64;
        let buffers = limits::HASH_BUFFERS_LEN_MAX / each;
        wanted.min(self.layout.piece_count() as usize).min(buffers as usize).max(1)
    }
}

/// Pieces read by one thread that wait to be hashed together.
struct Batch {
    buffers: Vec<Vec<u8>>,
    /// Each with its number of bytes, which lie in the buffer of the same index.
    pieces: Vec<(PieceIndex, u32)>,
}

impl Batch {
    fn new(lanes: usize, len: u32) -> Self {
        Self { buffers: vec![vec![0; len as usize]; lanes], pieces: Vec::with_capacity(lanes) }
    }

    fn is_full(&self) -> bool {
        self.pieces.len() == self.buffers.len()
    }

    /// Reads a piece into the next free buffer; false when it cannot be read. Only while not full.
    fn read(&mut self, reader: &mut PieceReader<'_>, piece: PieceIndex, len: u32) -> bool {
        let buffer =
            self.buffers.get_mut(self.pieces.len()).and_then(|buffer| buffer.get_mut(..len as usize));
        let is_read = buffer.is_some_and(|buffer| reader.read(piece, buffer));
        if is_read {
            self.pieces.push((piece, len));
        }
        is_read
    }

    /// Hashes what was read, and forgets it.
    fn hash_into<T>(&mut self, visit: Visit<'_, T>, made: &mut Vec<(PieceIndex, T)>) {
        let pieces = self.pieces.iter().zip(&self.buffers);
        let bytes: Vec<&[u8]> =
            pieces.map(|(&(_, len), buffer)| buffer.get(..len as usize).unwrap_or_default()).collect();
        for (&(piece, _), hash) in self.pieces.iter().zip(piece_hashes(&bytes)) {
            made.extend(visit(piece, hash).map(|result| (piece, result)));
        }
        self.pieces.clear();
    }
}

#[cfg(test)]
mod tests;
