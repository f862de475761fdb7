//! The storage threads: they hash pieces that have come whole, and write those that are right.
//!
//! A thread takes what waits, up to four pieces of one length, and hashes them in four lanes at the price of about
//! one and a half; for more to come it waits a millisecond at most. Invariant: bytes are hashed before they are written, a piece
//! whose hash is wrong is never written, and every job is answered exactly once, when the threads end, too. Each device has
//! threads of its own, so that one which hangs holds up nobody else's pieces.
//! Deliberately absent: what becomes of a failed piece, which is the torrent's to decide, and retries of a full disk.

use super::download::DownloadContent;
use super::error::StorageError;
use super::hash::piece_hashes;
use super::sha1_lanes::LANES;
use crate::clock;
use crate::limits::{DEVICE_LANES_MAX, STORAGE_END_PATIENCE};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, PieceIndex};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// Time that a piece waits for another one to be hashed with.
const BATCH_PATIENCE: Duration = Duration::from_millis(1);

/// Called with the answer, on a storage thread; it must be quick and must not wait.
pub type Reply = Box<dyn FnOnce(PieceOutcome) + Send>;

/// A piece that has come whole.
pub struct PieceJob {
    /// Where it goes.
    pub content: DownloadContent,
    /// The piece.
    pub piece: PieceIndex,
    /// Its bytes, as many as the piece has, which nobody changes until the answer.
    pub bytes: Arc<dyn AsRef<[u8]> + Send + Sync>,
    /// SHA-1 that it should have.
    pub expected: [u8; 20],
    /// Whether the blocks' hashes are wanted when the piece is right: to convict who sent others.
    pub want_block_hashes: bool,
    /// Gets the answer.
    pub reply: Reply,
}

/// What became of a piece.
#[derive(Debug, PartialEq, Eq)]
pub enum PieceOutcome {
    /// Right, and written (not yet brought to the disk).
    Verified {
        /// SHA-1 of each block of 16 KiB, the last perhaps shorter, if they were wanted.
        block_hashes: Option<Vec<[u8; 20]>>,
    },
    /// Wrong, and not written.
    Failed {
        /// SHA-1 of each block of 16 KiB, the last perhaps shorter.
        block_hashes: Vec<[u8; 20]>,
    },
    /// Right, and could not be written; the same content may be tried again later.
    Unwritable(StorageError),
}

/// What the storage threads have done so far.
#[derive(Debug, Default)]
pub struct FinisherCounters {
    bytes_hashed: AtomicU64,
    bytes_written: AtomicU64,
    cpu_nanos: AtomicU64,
}

impl FinisherCounters {
    /// Bytes of pieces hashed, those of single blocks not counted.
    pub fn bytes_hashed(&self) -> u64 {
        self.bytes_hashed.load(Relaxed)
    }

    /// Bytes of pieces written.
    pub fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Relaxed)
    }

    /// Processor time of the threads, in nanoseconds, user and system.
    pub fn cpu_nanos(&self) -> u64 {
        self.cpu_nanos.load(Relaxed)
    }
}

/// The storage threads. Dropping it answers what was submitted and waits for that, unless a device hangs.
#[derive(Debug)]
pub struct Finisher {
    thread_count: usize,
    /// By device, so that one which hangs holds up nobody else's pieces.
    lanes: Mutex<BTreeMap<u64, Lane>>,
    counters: Arc<FinisherCounters>,
}

/// The threads of one device.
#[derive(Debug)]
struct Lane {
    jobs: Sender<PieceJob>,
    joins: Vec<JoinHandle<()>>,
    /// Disconnected when all of its threads have ended.
    end: Receiver<()>,
    /// Jobs answered.
    answered: Arc<AtomicU64>,
    /// Content that lies there.
    root: PathBuf,
}

impl Finisher {
    /// `threads` of them for a device, at least one. They start with its first piece, so that who only seeds has none.
    pub fn start(threads: usize) -> Self {
        Self { thread_count: threads.max(1), lanes: Mutex::default(), counters: Arc::default() }
    }

    /// Hands a piece over; never waits. The answer comes from a storage thread, or at once, from this one, when no
    /// thread can be started. What waits is as little as pickers allow in flight.
    pub fn submit(&self, job: PieceJob) {
        let device = job.content.device();
        let mut lanes = self.lock();
        // Above the bound devices share.
        let lane = if lanes.len() < DEVICE_LANES_MAX || lanes.contains_key(&device) {
            device
        } else {
            let index = (device % DEVICE_LANES_MAX as u64) as usize;
            lanes.keys().nth(index).copied().unwrap_or(device)
        };
        let running = match lanes.entry(lane) {
            Entry::Occupied(running) => running.into_mut(),
            Entry::Vacant(vacant) => {
                let root = job.content.root_path().to_owned();
                match Lane::start(self.thread_count, root, &self.counters) {
                    Ok(started) => vacant.insert(started),
                    Err(error) => {
                        drop(lanes);
                        return (job.reply)(PieceOutcome::Unwritable(error));
                    }
                }
            }
        };
        // Its threads listen as long as it is here.
        let _ = running.jobs.send(job);
    }

    /// Answers what was submitted, waits for that, and ends the threads. What is submitted afterwards starts new ones.
    /// Threads of a device that has written nothing for [`STORAGE_END_PATIENCE`] are left behind, and a folder there is
    /// answered.
    pub fn finish(&self) -> Vec<PathBuf> {
        let mut hung = Vec::new();
        // An answer may submit more, which starts threads again: until none does.
        loop {
            let lanes = std::mem::take(&mut *self.lock());
            if lanes.is_empty() {
                return hung;
            }
            // All of them first, so that none waits for another.
            let ending: Vec<Ending> = lanes.into_values().map(Lane::end).collect();
            hung.extend(ending.into_iter().filter_map(Ending::wait));
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Lane>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the threads have done so far.
    pub fn counters(&self) -> &Arc<FinisherCounters> {
        &self.counters
    }
}

impl Drop for Finisher {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Lane {
    fn start(count: usize, root: PathBuf, counters: &Arc<FinisherCounters>) -> Result<Self, StorageError> {
        let (jobs, queue) = unbounded();
        let (ended, end) = bounded(0);
        let (queue, answered) = (Arc::new(Mutex::new(queue)), Arc::new(AtomicU64::new(0)));
        let mut joins = Vec::with_capacity(count);
        for index in 0..count {
            let (queue, answered) = (Arc::clone(&queue), Arc::clone(&answered));
            let (counters, ended) = (Arc::clone(counters), ended.clone());
            let thread = std::thread::Builder::new().name(format!("storage-{index:02}"));
            let run = move || {
                work(&queue, &answered, &counters);
                drop::<Sender<()>>(ended);
            };
            match thread.spawn(run) {
                Ok(join) => joins.push(join),
                Err(error) if joins.is_empty() => {
                    let errno = Errno::from_io_error(&error).unwrap_or(Errno::AGAIN);
                    return Err(StorageError::NoThread(errno));
                }
                // Fewer have to do.
                Err(_) => break,
            }
        }
        Ok(Self { jobs, joins, end, answered, root })
    }

    /// Nothing more comes.
    fn end(self) -> Ending {
        let Self { jobs, joins, end, answered, root } = self;
        drop(jobs);
        let seen = answered.load(Relaxed);
        Ending { joins, end, answered, root, seen, seen_at: clock::now() }
    }
}

/// A lane to which nothing more comes.
struct Ending {
    joins: Vec<JoinHandle<()>>,
    end: Receiver<()>,
    answered: Arc<AtomicU64>,
    root: PathBuf,
    /// Jobs that had been answered then.
    seen: u64,
    seen_at: Instant,
}

impl Ending {
    /// Waits as long as something is written; its folder when nothing is.
    fn wait(mut self) -> Option<PathBuf> {
        loop {
            let left = STORAGE_END_PATIENCE.saturating_sub(clock::now().since(self.seen_at));
            match self.end.recv_timeout(left) {
                Err(RecvTimeoutError::Timeout) => {
                    let answered = self.answered.load(Relaxed);
                    if answered == self.seen {
                        return Some(self.root);
                    }
                    (self.seen, self.seen_at) = (answered, clock::now());
                }
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    for thread in self.joins {
                        // A thread that panicked has told so itself.
                        let _ = thread.join();
                    }
                    return None;
                }
            }
        }
    }
}

/// Answers jobs until nobody can submit any more.
fn work(queue: &Mutex<Receiver<PieceJob>>, answered: &AtomicU64, counters: &FinisherCounters) {
    let mut cpu_before = clock::thread_cpu_time();
    while let Some(batch) = next_batch(queue) {
        let hashes = hash_batch(&batch);
        for (job, hash) in batch.into_iter().zip(hashes) {
            finish(job, hash, counters);
            answered.fetch_add(1, Relaxed);
        }
        let cpu_now = clock::thread_cpu_time();
        let spent = cpu_now.saturating_sub(cpu_before).as_nanos();
        counters.cpu_nanos.fetch_add(u64::try_from(spent).unwrap_or(u64::MAX), Relaxed);
        cpu_before = cpu_now;
    }
}

/// Up to four pieces; `None` when no more will come. Whoever has one waits a little for the next, since four together
/// cost as much as one and a half: on a fast line they come within a millisecond, on a slow one the wait costs nothing.
fn next_batch(queue: &Mutex<Receiver<PieceJob>>) -> Option<Vec<PieceJob>> {
    // One thread gathers at a time, so that threads do not share out what belongs together.
    let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    let mut batch = Vec::with_capacity(LANES);
    batch.push(queue.recv().ok()?);
    while batch.len() < LANES {
        match queue.recv_timeout(BATCH_PATIENCE) {
            Ok(job) => batch.push(job),
            Err(_) => break,
        }
    }
    Some(batch)
}

/// SHA-1 of each job's bytes, in order.
fn hash_batch(batch: &[PieceJob]) -> Vec<[u8; 20]> {
    let messages: Vec<&[u8]> = batch.iter().map(|job| (*job.bytes).as_ref()).collect();
    piece_hashes(&messages)
}

fn block_hashes(bytes: &[u8]) -> Vec<[u8; 20]> {
    piece_hashes(&bytes.chunks(BLOCK_LEN as usize).collect::<Vec<_>>())
}

fn finish(job: PieceJob, hash: [u8; 20], counters: &FinisherCounters) {
    let bytes = (*job.bytes).as_ref();
    let len = bytes.len() as u64;
    counters.bytes_hashed.fetch_add(len, Relaxed);
    let outcome = if hash != job.expected {
        PieceOutcome::Failed { block_hashes: block_hashes(bytes) }
    } else {
        match job.content.write_piece(job.piece, bytes) {
            Ok(()) => {
                counters.bytes_written.fetch_add(len, Relaxed);
                let block_hashes = job.want_block_hashes.then(|| block_hashes(bytes));
                PieceOutcome::Verified { block_hashes }
            }
            Err(error) => PieceOutcome::Unwritable(error),
        }
    };
    // The bytes and the content are let go before the answer, so that whoever hears it may count on that.
    let PieceJob { content, bytes, reply, .. } = job;
    drop((content, bytes));
    reply(outcome);
}

#[cfg(test)]
mod tests;
