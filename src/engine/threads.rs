//! The engine's threads: one worker per core, started together or not at all.

use super::listener::{ListenError, Port, listen};
use super::mailbox::{Address, mailbox};
use super::message::{SharedTorrent, ToWorker};
use super::prefix_table::PrefixTable;
use super::ring::Ring;
use super::ring_error::RingUnavailable;
use super::statistics::{HistogramsSnapshot, StatisticsSnapshot, WorkerStatistics};
use super::store::BlockStore;
use super::uring::Uring;
use super::worker::{EventSink, Worker, WorkerParts};
use super::zero_copy::{ZeroCopyMode, ZeroCopyPolicy};
use crate::clock;
use crate::id::InfoHash;
use crate::limits::{CONNECTIONS_PER_PREFIX_MAX, CONNECTIONS_PER_WORKER_MAX};
use crate::peer_list::Source;
use crate::pipeline::{RateGate, burst_for};
use crate::storage::descriptor_shares;
use crate::time::Duration;
use crate::units::ByteRate;
use crate::wire::Encryption;
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

/// Messages a worker's mailbox holds.
const MAILBOX_LEN: usize = 4096;
/// Time between two tries to post into a full mailbox.
const POST_RETRY_INTERVAL: Duration = Duration::from_millis(1);
/// Time for a worker to end, several times what it takes when its own time is over.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// Part of RLIMIT_MEMLOCK that zero-copy sends may pin, in percent.
const PINNED_PERCENT: u64 = 75;

/// How the engine is set up.
#[derive(Clone, Debug, Default)]
pub struct EngineConfig {
    /// Address to listen on; `None` for all of both families.
    pub bind: Option<IpAddr>,
    /// Port to listen on.
    pub port: Port,
    /// Worker threads; `None` for one per core this process may use.
    pub workers: Option<usize>,
    /// Leave the threads unpinned.
    pub unpinned: bool,
    /// Upload limit of the whole process.
    pub upload_limit: Option<ByteRate>,
    /// Download limit of the whole process.
    pub download_limit: Option<ByteRate>,
    /// When sends go without a copy.
    pub zero_copy: ZeroCopyMode,
    /// What is encrypted.
    pub encryption: Encryption,
    /// Ask the kernel once a second what limits the connections that send.
    pub tcp_info: bool,
    /// Files open for content that is opened on demand, of all workers; `None` for as many as [`crate::storage::open_files_max`]
    /// says.
    pub open_files_max: Option<usize>,
    /// Connections of one address prefix (/24, /64); `None` for [`CONNECTIONS_PER_PREFIX_MAX`].
    pub prefix_connections_max: Option<u32>,
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No io_uring.
    #[error(transparent)]
    Ring(#[from] RingUnavailable),
    /// No port.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// No thread, or no descriptor.
    #[error(
        "cannot start a worker thread: {0}; raise the limits of processes and open files (ulimit -u, ulimit -n)"
    )]
    Thread(#[source] io::Error),
}

/// Running workers. Dropping it stops them.
pub struct Engine<S: BlockStore> {
    workers: Vec<Address<ToWorker<S>>>,
    threads: Vec<WorkerThread>,
    statistics: Arc<[WorkerStatistics]>,
    gate: Arc<RateGate>,
    addresses: Vec<SocketAddr>,
    /// Why a worker has ended that was not told to: the first one.
    failure: Arc<OnceLock<String>>,
}

struct WorkerThread {
    handle: JoinHandle<()>,
    /// Told at its end, which torrents' storage has not answered.
    end: mpsc::Receiver<BTreeSet<InfoHash>>,
}

impl<S: BlockStore> Engine<S> {
    /// Listens and starts all workers. `make_sink` makes each worker's way to the session.
    pub fn start(config: &EngineConfig, make_sink: impl Fn() -> EventSink) -> Result<Self, EngineError> {
        Self::start_on(config, make_sink, |_| Uring::new())
    }

    /// [`Self::start`] on rings of another making; each worker's thread makes its own, by the worker's number.
    pub fn start_on<R: Ring>(
        config: &EngineConfig,
        make_sink: impl Fn() -> EventSink,
        make_ring: impl Fn(u16) -> Result<R, RingUnavailable> + Clone + Send + 'static,
    ) -> Result<Self, EngineError> {
        let shares = descriptor_shares();
        let cores = usable_cores();
        let count = config.workers.unwrap_or(cores.len()).clamp(1, usize::from(u16::MAX));
        let listeners = listen(config.bind, config.port, count)?;
        let port = listeners.addresses.first().map_or(0, SocketAddr::port);
        let statistics: Arc<[WorkerStatistics]> = (0..count).map(|_| WorkerStatistics::default()).collect();
        // One prefix does not get all connections that there are for peers.
        let of_prefix = u32::try_from((shares.peers / 2).max(1)).unwrap_or(u32::MAX);
        let of_prefix = of_prefix.min(config.prefix_connections_max.unwrap_or(CONNECTIONS_PER_PREFIX_MAX));
        let prefixes = Arc::new(PrefixTable::new(of_prefix));
        let gate = Arc::new(RateGate::new(config.upload_limit, burst_for(config.upload_limit)));
        let limit = config.download_limit;
        let download_gate = Arc::new(RateGate::new(limit, burst_for(limit)));
        let mut mailboxes = Vec::new();
        let mut workers = Vec::new();
        for _ in 0..count {
            let (mailbox, address) = mailbox(MAILBOX_LEN).map_err(EngineError::Thread)?;
            mailboxes.push(mailbox);
            workers.push(address);
        }
        let mut engine = Self {
            workers,
            threads: Vec::new(),
            statistics: Arc::clone(&statistics),
            gate: Arc::clone(&gate),
            addresses: listeners.addresses,
            failure: Arc::default(),
        };
        let open_files_max = config.open_files_max.unwrap_or(shares.content) / count;
        let connections_max = (shares.peers / count).clamp(1, CONNECTIONS_PER_WORKER_MAX);
        let (ready, started) = mpsc::channel();
        for (index, (mailbox, listeners)) in mailboxes.into_iter().zip(listeners.sockets).enumerate() {
            let ready = ready.clone();
            let core = cores.get(index % cores.len().max(1)).copied().filter(|_| !config.unpinned);
            let zero_copy = ZeroCopyPolicy::new(config.zero_copy, pinned_max(count));
            let (workers, events) = (engine.workers.clone(), make_sink());
            let (bind, encryption, tcp_info) = (config.bind, config.encryption, config.tcp_info);
            let (statistics, gate) = (Arc::clone(&statistics), Arc::clone(&gate));
            let download_gate = Arc::clone(&download_gate);
            let prefixes = Arc::clone(&prefixes);
            let (ended, end) = mpsc::channel();
            let (make_ring, failure) = (make_ring.clone(), Arc::clone(&engine.failure));
            let thread = std::thread::Builder::new().name(format!("worker-{index:02}")).spawn(move || {
                // Without a core of its own the worker runs all the same, only less evenly.
                let _ = core.map(pin_to);
                let ring = match make_ring(index as u16) {
                    Ok(ring) => ring,
                    Err(error) => return drop(ready.send(Err(error))),
                };
                let parts = WorkerParts {
                    index: index as u16,
                    ring,
                    listeners,
                    port,
                    bind,
                    mailbox,
                    workers,
                    events,
                    statistics,
                    gate,
                    download_gate,
                    prefixes,
                    zero_copy,
                    encryption,
                    tcp_info,
                    open_files_max,
                    connections_max,
                    secret: clock::random_bytes,
                    rng: clock::random_rng(),
                };
                let worker = Worker::new(parts);
                let _ = ready.send(Ok(()));
                drop(ready);
                let vigil = Vigil { index, failure: Some(failure) };
                match worker.run() {
                    Ok(unanswered) => {
                        vigil.end();
                        // Nobody hears it of an engine that was not started after all.
                        drop(ended.send(unanswered));
                    }
                    Err(error) => vigil.fail(&error),
                }
            });
            let handle = thread.map_err(EngineError::Thread)?;
            engine.threads.push(WorkerThread { handle, end });
        }
        drop(ready);
        for result in started {
            result?;
        }
        Ok(engine)
    }

    /// Why a worker has ended by itself, once one has: its torrents then have nobody who unchokes or picks, so that the rest is
    /// of little use.
    pub fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Where peers reach us.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Number of workers.
    pub fn worker_count(&self) -> usize {
        self.workers.len()
    }

    /// The home core of a torrent: spread evenly, the same in every run.
    pub fn home_of(&self, info_hash: InfoHash) -> u16 {
        let [high, low, ..] = info_hash.0;
        (usize::from(u16::from_be_bytes([high, low])) % self.workers.len()) as u16
    }

    /// Serves a torrent on all workers.
    pub fn add(&self, torrent: &Arc<SharedTorrent<S>>) {
        // The home first: what another worker says about the torrent then finds it there.
        let home = usize::from(torrent.home);
        let others = (0..self.workers.len()).filter(|&worker| worker != home);
        for worker in std::iter::once(home).chain(others) {
            self.post(worker, ToWorker::Add(Arc::clone(torrent)));
        }
    }

    /// Serves a torrent no longer.
    pub fn remove(&self, info_hash: InfoHash) {
        for worker in 0..self.workers.len() {
            self.post(worker, ToWorker::Remove(info_hash));
        }
    }

    /// Peers of a torrent might be at these addresses; its home dials whom it wants.
    pub fn add_candidates(&self, torrent: InfoHash, addresses: Vec<SocketAddr>, source: Source) {
        if let Some(home) = self.workers.get(usize::from(self.home_of(torrent))) {
            // A full mailbox means that there is enough to do without more peers.
            let _ = home.post(ToWorker::Candidates { torrent, addresses, source });
        }
    }

    /// What the workers have counted, by worker.
    pub fn statistics(&self) -> Vec<StatisticsSnapshot> {
        self.statistics.iter().map(WorkerStatistics::snapshot).collect()
    }

    /// The workers' histograms, by worker.
    pub fn histograms(&self) -> Vec<HistogramsSnapshot> {
        self.statistics.iter().map(WorkerStatistics::histograms).collect()
    }

    /// Ends all workers and gives their final counters, by worker.
    pub fn stop(self) -> Vec<StatisticsSnapshot> {
        let statistics = Arc::clone(&self.statistics);
        drop(self);
        statistics.iter().map(WorkerStatistics::snapshot).collect()
    }

    /// Ends all workers, and says which torrents' storage has not done in time what was asked of it. The threads that
    /// wait for it are left behind; they end when it answers, or with the process.
    pub fn leave(mut self) -> BTreeSet<InfoHash> {
        self.end()
    }

    /// Posts from a thread that may wait, as long as the worker lives.
    fn post(&self, worker: usize, mut message: ToWorker<S>) {
        let Some(address) = self.workers.get(worker) else { return };
        let has_ended = || self.threads.get(worker).is_none_or(|thread| thread.handle.is_finished());
        while let Err(back) = address.post(message)
            && !has_ended()
        {
            message = back;
            std::thread::park_timeout(POST_RETRY_INTERVAL);
        }
    }

    fn end(&mut self) -> BTreeSet<InfoHash> {
        for worker in 0..self.threads.len() {
            self.post(worker, ToWorker::Stop);
        }
        let mut unanswered = BTreeSet::new();
        for (index, thread) in self.threads.drain(..).enumerate() {
            match thread.end.recv_timeout(STOP_PATIENCE) {
                // Its thread ends when the kernel has given up its reads, for which that waits, too.
                Ok(torrents) if !torrents.is_empty() => unanswered.extend(torrents),
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    tracing::warn!("worker {index} does not end: it waits for the kernel");
                }
                Ok(_) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    // A worker that panicked has said so on stderr.
                    let _ = thread.handle.join();
                }
            }
        }
        unanswered
    }

    /// Changes the upload limit of the whole process.
    pub fn set_upload_limit(&self, limit: Option<ByteRate>) {
        self.gate.set_limit(clock::now(), limit, burst_for(limit));
    }
}

impl<S: BlockStore> Drop for Engine<S> {
    fn drop(&mut self) {
        for torrent in self.end() {
            tracing::warn!(%torrent, "its storage does not answer; its last reads were given up");
        }
    }
}

impl<S: BlockStore> std::fmt::Debug for Engine<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

/// Tells why a worker ends that was not told to. A panic, too, drops it.
struct Vigil {
    index: usize,
    failure: Option<Arc<OnceLock<String>>>,
}

impl Vigil {
    /// It was told to end.
    fn end(mut self) {
        self.failure = None;
    }

    fn fail(mut self, error: &io::Error) {
        self.tell(format!(
            "worker {} has ended, since the kernel refused its ring ({error}), so nothing is served any more; start again",
            self.index
        ));
    }

    fn tell(&mut self, why: String) {
        if let Some(failure) = self.failure.take() {
            tracing::debug!("{why}");
            // Another worker may have been first.
            let _ = failure.set(why);
        }
    }
}

impl Drop for Vigil {
    fn drop(&mut self) {
        self.tell(format!(
            "worker {} has panicked, so nothing is served any more; this is a mistake in seedring: report what stands above, \
             and start again",
            self.index
        ));
    }
}

/// The cores this process may run on.
fn usable_cores() -> Vec<usize> {
    let allowed = sched_getaffinity(None).unwrap_or_default();
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
    if cores.is_empty() { vec![0] } else { cores }
}

fn pin_to(core: usize) -> rustix::io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set)
}

/// Bytes each worker may pin. Root and CAP_IPC_LOCK are not limited by the kernel, so the bound is generous.
fn pinned_max(workers: usize) -> u64 {
    const UNLIMITED: u64 = 1 << 30;
    let limit = getrlimit(Resource::Memlock).current.unwrap_or(UNLIMITED);
    let allowed = if rustix::process::geteuid().is_root() { UNLIMITED } else { limit };
    allowed.min(UNLIMITED) / 100 * PINNED_PERCENT / workers as u64
}
