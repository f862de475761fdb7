//! A load generator: many downloading connections against one seeder, ours or a rival's, and what they saw.
//!
//! It is meant to cost less CPU per byte than the seeder that it measures: each thread has one epoll, one
//! receive buffer for all its connections that stays in the second-level cache, parses in place and answers
//! what one receive brought with one send. Payload that is not verified can be discarded inside the kernel.
//! What is said and understood is `requester`'s, which knows no socket.
//!
//! Deliberately absent: uploading, more than one torrent, reconnecting. A connection that the
//! target closes is lost and reported.

mod content;
mod report;
mod requester;
mod tally;
mod worker;

pub use content::{Content, Order};
pub use report::{ConnectionSpread, ErrorCount, Latency, Reached, Report, Spread};
pub use requester::TargetFault;

use crate::clock;
use crate::id::InfoHash;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::units::ByteRate;
use crate::wire::CryptoMethods;
use report::{ConnectionOutcome, Measured};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tally::Tally;

/// What to ask of whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where the seeder listens.
    pub address: SocketAddr,
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its pieces.
    pub content: Content,
}

/// When a run is over: whichever comes first of this and the target giving up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Until {
    /// So long after the first unchoke.
    pub elapsed: Duration,
    /// So many bytes of blocks, over all connections.
    pub bytes: Option<u64>,
}

/// How to ask.
#[derive(Clone, Debug)]
pub struct Options {
    /// Connections, at least one.
    pub connections: usize,
    /// Requests in flight on each.
    pub depth: usize,
    /// When to stop.
    pub until: Until,
    /// Hash every piece.
    pub verify: bool,
    /// Order of pieces.
    pub order: Order,
    /// Bytes a second over all connections; `None` for as fast as it goes.
    pub rate: Option<ByteRate>,
    /// Threads, at least one.
    pub threads: usize,
    /// Cores to pin the threads to in turn; empty to leave them where the kernel puts them.
    pub pin: Vec<usize>,
    /// Seed of the order and of the peer ids.
    pub seed: u64,
    /// Loopback addresses 127.0.0.1 and following to connect from, to have more ports than one address has.
    pub source_addresses: u8,
    /// Handshakes that one thread has under way at a time. Small backlogs of listening sockets (libtorrent's
    /// has 5) drop what comes faster, and TCP tries again only a second later.
    pub burst: usize,
    /// Whether payload is discarded in the kernel instead of being copied out; `verify` copies all the same.
    pub discard: bool,
    /// Begin with an encrypted handshake and offer this; `None` for plaintext.
    pub encryption: Option<CryptoMethods>,
    /// Bytes of each socket's receive buffer; `None` for the kernel's own tuning.
    pub receive_buffer: Option<usize>,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A system call failed for our own reasons.
    #[error("{doing}")]
    System {
        /// What was being done.
        doing: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// More connections than this process may have open files.
    #[error(
        "{connections} connections need as many open files, but the hard limit is {limit}; raise it with ulimit -Hn"
    )]
    OpenFiles {
        /// Connections asked for.
        connections: usize,
        /// RLIMIT_NOFILE.
        limit: u64,
    },
    /// A thread cannot run on the core asked for.
    #[error("cannot pin a thread to core {core}")]
    Pin {
        /// The core.
        core: usize,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Source addresses exist on IPv4 loopback only.
    #[error("several source addresses work only towards 127.0.0.0/8, and the target is {0}")]
    SourceAddresses(IpAddr),
}

/// What the threads of one run share.
#[derive(Debug)]
pub(crate) struct Shared {
    stop: AtomicBool,
    bytes: AtomicU64,
    /// When any connection was first unchoked, in nanoseconds of `clock`; zero before.
    first_unchoke: AtomicU64,
}

impl Shared {
    const fn new() -> Self {
        Self { stop: AtomicBool::new(false), bytes: AtomicU64::new(0), first_unchoke: AtomicU64::new(0) }
    }

    // Relaxed everywhere: the values are only compared with bounds, nothing else is published through them.
    fn note_unchoke(&self, at: Instant) {
        let _ = self.first_unchoke.compare_exchange(0, at.as_nanos(), Ordering::Relaxed, Ordering::Relaxed);
    }

    fn note_bytes(&self, bytes: u64, until: Until) {
        let total = self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if until.bytes.is_some_and(|limit| total >= limit) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn first_unchoke(&self) -> Option<Instant> {
        match self.first_unchoke.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(Instant::from_nanos(nanos)),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Time between two calls of the caller's `tick`.
const TICK: Duration = Duration::from_millis(200);

/// Runs the load and tells what came of it. `tick` is called five times a second with the bytes received so far; when it
/// returns false the run ends early and is reported as usual.
///
/// # Errors
/// When the run could not be made. What the target did wrong is in the report ([`Report::complaint`]).
pub fn run(
    target: &Target,
    options: &Options,
    mut tick: impl FnMut(u64) -> bool,
) -> Result<Report, LoadError> {
    raise_open_files(options.connections)?;
    let is_loopback_v4 = matches!(target.address.ip(), IpAddr::V4(ip) if ip.is_loopback());
    if options.source_addresses > 1 && !is_loopback_v4 {
        return Err(LoadError::SourceAddresses(target.address.ip()));
    }
    let threads = options.threads.clamp(1, options.connections.max(1));
    let (shared, cpu_before, started) = (Shared::new(), clock::process_cpu_time(), clock::now());
    let mut rng = Rng::from_seed(options.seed);
    let mut tally = Tally::default();
    let mut outcomes: Vec<ConnectionOutcome> = Vec::new();
    let mut interrupted = false;
    std::thread::scope(|scope| -> Result<(), LoadError> {
        let (finished, wait) = std::sync::mpsc::channel::<()>();
        let workers: Vec<_> = (0..threads)
            .map(|index| {
                let share =
                    options.connections / threads + usize::from(index < options.connections % threads);
                let seat = worker::Seat {
                    connections: share,
                    first: index * options.connections / threads,
                    rate: options
                        .rate
                        .map(|rate| (rate.0 * share as u64 / options.connections as u64).max(1)),
                    core: options.pin.get(index % options.pin.len().max(1)).copied(),
                    rng: Rng::from_seed(rng.next_u64()),
                };
                let (shared, finished) = (&shared, finished.clone());
                scope.spawn(move || {
                    let outcome = worker::run(target, options, shared, seat);
                    drop(finished);
                    outcome
                })
            })
            .collect();
        drop(finished);
        // Nothing is ever sent: the channel closes when the last thread is done.
        while wait.recv_timeout(TICK) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
            if !tick(shared.bytes.load(Ordering::Relaxed)) {
                interrupted = true;
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
        for worker in workers {
            let (part, connections) = worker.join().expect("workers return errors, they do not panic")?;
            tally.add(&part);
            outcomes.extend(connections);
        }
        Ok(())
    })?;
    let finished = clock::now();
    let cpu = clock::process_cpu_time().saturating_sub(cpu_before);
    let measured = Measured { started, finished, tally: &tally, outcomes: &outcomes, cpu, interrupted };
    Ok(Report::new(target, options, &measured))
}

/// The source address of the connection with this number, when several are used.
fn source_address(options: &Options, index: usize) -> Option<Ipv4Addr> {
    (options.source_addresses > 1)
        .then(|| Ipv4Addr::new(127, 0, 0, 1 + (index % usize::from(options.source_addresses)) as u8))
}

fn raise_open_files(connections: usize) -> Result<(), LoadError> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 64;
    if limit.current.is_none_or(|current| current >= needed) {
        return Ok(());
    }
    limit.current = Some(needed);
    let hard = limit.maximum;
    // Above the hard limit only the superuser can go.
    limit.maximum = hard.map(|hard| hard.max(needed));
    setrlimit(Resource::Nofile, limit)
        .map_err(|_| LoadError::OpenFiles { connections, limit: hard.unwrap_or(u64::MAX) })
}
