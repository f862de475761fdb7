//! One worker: a thread, its ring, its listeners and its connections. Nothing on its data path takes a lock.
//!
//! A turn: hand queued operations to the kernel and wait; then act on completions, on the mailbox, on timers;
//! then build sends for connections that have something to say, a bounded number of bytes a turn. Time is
//! sampled once a turn. The worker is generic over the ring and the store, so the simulator drives the very
//! same code through short sends, resets, late notifications and full queues.

mod accept;
mod budget;
mod connection;
mod download;
mod encryption;
mod fetch;
mod half_open;
mod holdings;
mod home;
mod kernel_limits;
mod info;
mod key_line;
mod mail;
mod on_demand;
mod receive;
mod reveal;
mod send;
mod throttle;
mod told;
mod waiting;

use super::event_lanes::EventLanes;
use super::mailbox::{Address, Mailbox};
use super::message::{EngineEvent, SharedTorrent, ToWorker};
use super::outbox::Outbox;
use super::prefix_table::PrefixTable;
use super::ring::{Completion, Op, OpKind, Ring, Tag};
use super::send_slot::SendSlot;
use super::slab::{Key, Slab};
use super::statistics::WorkerStatistics;
use super::store::{BlockStore, ColdRange, Extent};
use super::timers::Timers;
use super::zero_copy::ZeroCopyPolicy;
use crate::bitfield::Bitfield;
use crate::id::{AddressPrefix, InfoHash};
use crate::limits::{ALLOWED_FAST_INTERVAL, RECOUNTED_PIECES_MAX, RECOUNTED_PIECES_PER_PREFIX_MAX};
use crate::pipeline::RateGate;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::units::{BlockSpan, PieceIndex};
use crate::wire::Encryption;
use accept::Listener;
use budget::Budget;
use connection::Connection;
use download::BlockEnd;
use encryption::EncryptionState;
use fetch::{Fetches, Owner};
use half_open::HalfOpen;
use holdings::Copies;
use home::Home;
use info::Infos;
use kernel_limits::KernelLimits;
use on_demand::OnDemand;
use send::InFlight;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use throttle::Throttle;
use waiting::Waiting;

/// Messages a worker reads per turn.
const MESSAGES_PER_TURN: usize = 256;
/// Time between two looks at the load.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Time until a message that found a full mailbox is posted again.
const REPOST_INTERVAL: Duration = Duration::from_millis(1);
/// Time a stopping worker waits for its connections and reads to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// What a worker is made of.
pub struct WorkerParts<R, S: BlockStore> {
    /// Its number, from zero.
    pub index: u16,
    /// Its ring.
    pub ring: R,
    /// Its listening sockets.
    pub listeners: Vec<OwnedFd>,
    /// The port peers can reach us on, for the extension handshake.
    pub port: u16,
    /// The address to connect from, if it is not to be any.
    pub bind: Option<IpAddr>,
    /// Its mailbox.
    pub mailbox: Mailbox<ToWorker<S>>,
    /// The mailboxes of all workers, its own included, by number.
    pub workers: Vec<Address<ToWorker<S>>>,
    /// Where events go.
    pub events: EventSink,
    /// The counters of all workers, its own included, by number.
    pub statistics: Arc<[WorkerStatistics]>,
    /// The upload limit of the whole process.
    pub gate: Arc<RateGate>,
    /// The download limit of the whole process.
    pub download_gate: Arc<RateGate>,
    /// Connections by address prefix, of all workers.
    pub prefixes: Arc<PrefixTable>,
    /// When sends go without a copy.
    pub zero_copy: ZeroCopyPolicy,
    /// What is encrypted.
    pub encryption: Encryption,
    /// Ask the kernel what limits connections.
    pub tcp_info: bool,
    /// Files that it may hold open for content that is opened on demand.
    pub open_files_max: usize,
    /// Connections that it may have: its share of the process's descriptors.
    pub connections_max: usize,
    /// Where the secrets of encrypted handshakes come from.
    pub secret: fn() -> [u8; 20],
    /// Randomness for the choker.
    pub rng: Rng,
}

/// Takes an event, or gives it back when the session has not kept up.
pub type EventSink = Box<dyn Fn(EngineEvent) -> Result<(), EngineEvent> + Send>;

/// A worker.
pub struct Worker<R: Ring, S: BlockStore> {
    index: u16,
    ring: R,
    listeners: Vec<Listener>,
    port: u16,
    bind: Option<IpAddr>,
    mailbox: Mailbox<ToWorker<S>>,
    workers: Vec<Address<ToWorker<S>>>,
    events: EventSink,
    all_statistics: Arc<[WorkerStatistics]>,
    gate: Arc<RateGate>,
    download_gate: Arc<RateGate>,
    prefixes: Arc<PrefixTable>,
    zero_copy: ZeroCopyPolicy,
    encryption: EncryptionState,
    connections_max: usize,
    rng: Rng,

    now: Instant,
    connections: Slab<Connection>,
    /// Those of them that are ending.
    closing: usize,
    torrents: BTreeMap<InfoHash, Arc<SharedTorrent<S>>>,
    on_demand: OnDemand<S>,
    infos: Infos,
    homes: BTreeMap<InfoHash, Home>,
    /// The torrents at home here that have peers: the others cost nothing.
    peopled: BTreeSet<InfoHash>,
    /// The connections of each torrent that have finished their handshake.
    members: BTreeMap<InfoHash, BTreeSet<Key>>,
    in_flight: Slab<InFlight<S>>,
    fetches: Fetches<Owner<S>>,
    #[expect(clippy::vec_box, reason = "a slot must not move between its sends: it moves by its box")]
    idle_slots: Vec<Box<SendSlot<S>>>,
    /// Connections with something to say, in the order in which they had it.
    ready: VecDeque<Key>,
    /// What was made for peers and the kernel has not taken.
    copies: Copies,
    /// Bytes of all connections' queues, each counted from `QUEUED_LEN_UNTROUBLED` on.
    queued_bytes: usize,
    /// Connections that wait for a rate limit.
    throttle: Throttle,
    /// Connections without a finished handshake.
    half_open: HalfOpen,
    /// Peers that we have connected to.
    dialled: BTreeSet<(InfoHash, SocketAddr)>,
    timers: Timers<TimerOwner>,
    /// Messages that found a full mailbox, by worker.
    outboxes: Vec<Outbox<S>>,
    /// How many of those have anything in them.
    behind: usize,
    /// Connections that wait for their home to hear what they have said, by worker, in the order in which they came.
    paused: Vec<VecDeque<Key>>,
    /// Messages posted to others so far.
    posted: u64,
    unsent_events: EventLanes,
    /// Pieces of torrents at home elsewhere that peers here were told of, or met when they came.
    passed_on: BTreeMap<InfoHash, Bitfield>,
    /// Recounts that may be asked for in this second, in pieces.
    recounts: Budget,
    /// Connections that are not read until the next tick: their peers have said too much in this one.
    talkative: Vec<Key>,
    /// Connections that have sent blocks in this tick, and in the one before.
    active: usize,
    active_before: usize,
    /// Ticks so far, this one included.
    ticks: u64,
    /// Who has been granted allowed-fast pieces lately.
    fast_grants: BTreeMap<(InfoHash, AddressPrefix), Instant>,
    load: LoadSample,
    waiting: Waiting<S>,
    kernel_limits: KernelLimits,
    /// When it was last told that there is no room for newcomers.
    shortage_told: Option<Instant>,
    /// The mailbox was not read to its end in the last turn.
    mail_waits: bool,
    stopping: Option<Instant>,

    completions: Vec<Completion>,
    scratch: Vec<u8>,
    /// Blocks of the connection at hand that have just arrived, and whether they were written.
    arrived: Vec<(BlockSpan, BlockEnd)>,
    /// Pieces that the connection at hand has just been said to have.
    found: Vec<PieceIndex>,
    extents: Vec<Extent>,
    absent: Vec<ColdRange>,
}

#[derive(Clone, Copy, Debug, Default)]
struct LoadSample {
    at: Instant,
    busy: Duration,
    payload: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum TimerOwner {
    Connection(Key),
    Linger(Key),
    Throttled,
    Interest(Key),
    Addresses(Key),
    Stock(Key),
    Fetch(Key),
    Download(Key),
    Torrent(InfoHash),
    Accept(usize),
    Keys,
    Tick,
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// A worker that listens from its first turn on.
    pub fn new(parts: WorkerParts<R, S>) -> Self {
        let now = parts.ring.now();
        let mut worker = Self {
            index: parts.index,
            ring: parts.ring,
            listeners: parts.listeners.into_iter().map(Listener::new).collect(),
            port: parts.port,
            bind: parts.bind,
            mailbox: parts.mailbox,
            outboxes: parts.workers.iter().map(|_| Outbox::default()).collect(),
            behind: 0,
            paused: parts.workers.iter().map(|_| VecDeque::new()).collect(),
            posted: 0,
            passed_on: BTreeMap::new(),
            talkative: Vec::new(),
            recounts: Budget::new(RECOUNTED_PIECES_MAX, RECOUNTED_PIECES_PER_PREFIX_MAX),
            workers: parts.workers,
            events: parts.events,
            all_statistics: parts.statistics,
            gate: parts.gate,
            download_gate: parts.download_gate,
            prefixes: parts.prefixes,
            zero_copy: parts.zero_copy,
            encryption: EncryptionState::new(parts.encryption, parts.secret),
            connections_max: parts.connections_max,
            rng: parts.rng,
            now,
            connections: Slab::default(),
            closing: 0,
            torrents: BTreeMap::new(),
            infos: Infos::default(),
            on_demand: OnDemand::new(parts.open_files_max),
            homes: BTreeMap::new(),
            peopled: BTreeSet::new(),
            members: BTreeMap::new(),
            in_flight: Slab::default(),
            fetches: Fetches::default(),
            idle_slots: Vec::new(),
            ready: VecDeque::new(),
            copies: Copies::default(),
            queued_bytes: 0,
            throttle: Throttle::default(),
            half_open: HalfOpen::default(),
            dialled: BTreeSet::new(),
            timers: Timers::default(),
            unsent_events: EventLanes::default(),
            active: 0,
            active_before: 0,
            ticks: 1,
            fast_grants: BTreeMap::new(),
            load: LoadSample { at: now, ..LoadSample::default() },
            waiting: Waiting::default(),
            kernel_limits: KernelLimits::new(parts.tcp_info),
            shortage_told: None,
            mail_waits: false,
            stopping: None,
            completions: Vec::new(),
            scratch: Vec::new(),
            arrived: Vec::new(),
            found: Vec::new(),
            extents: Vec::new(),
            absent: Vec::new(),
        };
        for listener in 0..worker.listeners.len() {
            worker.listen(listener);
        }
        worker.watch_doorbell();
        worker.timers.set(now + TICK_INTERVAL, TimerOwner::Tick);
        worker
    }

    /// Runs until [`ToWorker::Stop`] has been obeyed. Answers the torrents whose storage has not done by then what was
    /// asked of it: the kernel then does not let this thread end before it has.
    pub fn run(mut self) -> io::Result<BTreeSet<InfoHash>> {
        while self.turn()? {}
        self.count_usage();
        Ok(self.fetches.owners().map(|(torrent, _)| torrent.facts.info_hash).collect())
    }

    /// One turn; false when the worker has ended.
    pub fn turn(&mut self) -> io::Result<bool> {
        let deadline = self.next_deadline();
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.turn(deadline, &mut completions)?;
        let before = std::mem::replace(&mut self.now, self.ring.now());
        self.count_turn(before);
        for completion in completions.drain(..) {
            self.handle_completion(completion);
        }
        self.completions = completions;
        self.read_mailbox();
        self.run_timers();
        self.send_ready();
        self.repost();
        Ok(!self.has_stopped())
    }

    fn next_deadline(&self) -> Instant {
        if !self.ready.is_empty() || self.mail_waits {
            return self.now;
        }
        let mut deadline = self.timers.next().unwrap_or(self.now + TICK_INTERVAL);
        if !self.unsent_events.is_empty() || self.behind > 0 {
            deadline = deadline.min(self.now + REPOST_INTERVAL);
        }
        self.stopping.map_or(deadline, |stop| deadline.min(stop))
    }

    fn handle_completion(&mut self, completion: Completion) {
        match completion.tag.kind {
            OpKind::Accept => self.handle_accept(&completion),
            OpKind::Receive => self.handle_receive(completion),
            OpKind::Send => self.handle_send(&completion),
            OpKind::Fetch => self.handle_fetched(&completion),
            OpKind::Doorbell => {
                self.mailbox.quiet();
                if !completion.more {
                    self.watch_doorbell();
                }
            }
            OpKind::Connect => self.handle_connect(&completion),
            OpKind::Advise | OpKind::Cancel => {}
        }
    }

    fn watch_doorbell(&mut self) {
        let tag = Tag { kind: OpKind::Doorbell, slot: 0, generation: 0 };
        self.ring.push(Op::Doorbell { file: self.mailbox.doorbell() }, tag);
    }

    fn read_mailbox(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.mailbox.read() else {
                self.mail_waits = false;
                return;
            };
            self.handle_message(message);
        }
        self.mail_waits = true;
    }

    fn handle_message(&mut self, message: ToWorker<S>) {
        match message {
            ToWorker::Add(torrent) => self.add_torrent(torrent),
            ToWorker::Remove(info_hash) => self.remove_torrent(info_hash),
            ToWorker::Connect(info_hash, address) => self.connect(info_hash, address),
            ToWorker::Candidates { torrent, addresses, source } => {
                self.home_candidates(torrent, &addresses, source);
            }
            ToWorker::DialFailed { torrent, address, ourselves } => {
                self.home_dial_failed(torrent, address, ourselves);
            }
            ToWorker::Joined { torrent, conn, newcomer, counters } => {
                self.home_joined(torrent, conn, newcomer, counters);
            }
            ToWorker::Fact { torrent, conn, fact } => self.home_fact(torrent, conn, fact),
            ToWorker::Left { torrent, conn, why } => self.home_left(torrent, conn, why),
            ToWorker::Piece { torrent, piece, result } => {
                self.if_served(&torrent, |worker, torrent| worker.home_piece(torrent, piece, result));
            }
            ToWorker::Info(torrent, bytes) => {
                self.if_served(&torrent, |worker, torrent| worker.handle_info(torrent, bytes));
            }
            ToWorker::Opened(torrent, part, opened) => {
                self.if_served(&torrent, |worker, torrent| worker.handle_opened(torrent, part, opened));
            }
            ToWorker::Unreadable(torrent) => self.if_served(&torrent, Self::handle_unreadable),
            ToWorker::Order { conn, order } => self.handle_order(conn, order),
            ToWorker::Orders { conn, orders } => self.handle_orders(conn, orders),
            ToWorker::Have(torrent, piece) => {
                self.if_served(&torrent, |worker, torrent| worker.handle_have_ours(torrent, piece));
            }
            ToWorker::CatchUp(torrent) => self.if_served(&torrent, Self::handle_catch_up),
            ToWorker::RevealAll(torrent) => self.if_served(&torrent, Self::reveal_all),
            ToWorker::Satisfied(torrent) => self.if_served(&torrent, Self::handle_satisfied),
            ToWorker::Stop => self.stop(),
        }
    }

    /// Does something with a torrent, unless it has gone. Another torrent of the same info-hash, which has come back with
    /// other content, is not the one that is meant.
    fn if_served(&mut self, torrent: &Arc<SharedTorrent<S>>, act: impl FnOnce(&mut Self, InfoHash)) {
        let info_hash = torrent.facts.info_hash;
        if self.torrents.get(&info_hash).is_some_and(|served| Arc::ptr_eq(served, torrent)) {
            act(self, info_hash);
        }
    }

    fn add_torrent(&mut self, torrent: Arc<SharedTorrent<S>>) {
        let info_hash = torrent.facts.info_hash;
        if torrent.home == self.index {
            self.settle_home(&torrent);
        } else if torrent.download.is_some() {
            self.passed_on.insert(info_hash, torrent.facts.have.snapshot());
        }
        self.members.insert(info_hash, BTreeSet::new());
        self.encryption.add(info_hash);
        self.torrents.insert(info_hash, torrent);
    }

    fn remove_torrent(&mut self, info_hash: InfoHash) {
        // Connections first: they sign off from the torrent they still find here.
        self.close_connections(|connection| connection.torrent == Some(info_hash));
        self.encryption.remove(info_hash);
        self.forget_info(info_hash);
        self.torrents.remove(&info_hash);
        self.members.remove(&info_hash);
        self.passed_on.remove(&info_hash);
        self.homes.remove(&info_hash);
        self.peopled.remove(&info_hash);
        self.forget_content(info_hash);
    }

    fn stop(&mut self) {
        self.stopping = Some(self.now + STOP_TIMEOUT);
        self.stop_listening();
        self.hurry_lingering();
        self.close_connections(|_| true);
        self.give_up_put_off();
    }

    fn has_stopped(&self) -> bool {
        self.stopping.is_some_and(|deadline| {
            let is_idle = self.connections.is_empty() && self.in_flight.is_empty();
            self.now >= deadline || (is_idle && self.fetches.is_empty() && !self.is_listening())
        })
    }

    fn run_timers(&mut self) {
        while let Some(owner) = self.timers.poll(self.now) {
            match owner {
                TimerOwner::Connection(key) => self.handle_connection_timeout(key),
                TimerOwner::Linger(key) => self.cut(key),
                TimerOwner::Throttled => self.handle_unthrottled(),
                TimerOwner::Interest(key) => self.handle_interest_timeout(key),
                TimerOwner::Addresses(key) => self.handle_addresses_timeout(key),
                TimerOwner::Stock(key) => self.handle_stock_timeout(key),
                TimerOwner::Fetch(key) => self.handle_fetch_timeout(key),
                TimerOwner::Download(key) => self.handle_download_timeout(key),
                TimerOwner::Torrent(info_hash) => self.handle_home_timeout(info_hash),
                TimerOwner::Accept(listener) => self.try_to_listen(listener),
                TimerOwner::Keys => self.answer_keys(),
                TimerOwner::Tick => self.tick(),
            }
        }
    }

    /// Once a second: how busy is this core, how busy is the line? Then tell the torrents at home here.
    fn tick(&mut self) {
        let elapsed = self.now.since(self.load.at);
        let busy = self.count_usage();
        let payload = self.all_statistics.iter().map(|worker| worker.snapshot().payload_sent).sum::<u64>();
        let sample = LoadSample { at: self.now, busy, payload };
        self.tell_load(elapsed, self.load, sample);
        self.load = sample;
        self.tell_waits();
        self.ask_kernel();
        self.give_up_contested();
        self.tend_content();
        self.tend_infos();
        self.recounts.renew();
        self.ticks += 1;
        self.tend_holdings();
        self.listen_again();
        self.active_before = std::mem::take(&mut self.active);
        self.fast_grants.retain(|_, granted_at| self.now < *granted_at + ALLOWED_FAST_INTERVAL);
        self.timers.set(self.now + TICK_INTERVAL, TimerOwner::Tick);
    }

    /// Counts what the kernel says this thread has used; its processor time.
    fn count_usage(&self) -> Duration {
        let busy = self.ring.processor_time();
        self.statistics().busy_nanos().set(u64::try_from(busy.as_nanos()).unwrap_or(u64::MAX));
        self.statistics().major_faults().set(self.ring.major_faults());
        busy
    }

    fn statistics(&self) -> &WorkerStatistics {
        &self.all_statistics[usize::from(self.index)]
    }

    fn tell(&mut self, event: EngineEvent) {
        self.unsent_events.push(event);
    }

    /// The content of this torrent has failed: its connections go, the other torrents do not notice.
    fn fail_torrent(&mut self, info_hash: InfoHash) {
        let Some(torrent) = self.torrents.get(&info_hash) else { return };
        let reason = torrent.content.fault().unwrap_or_else(|| "its content could not be read".to_owned());
        self.tell(EngineEvent::TorrentFailed { torrent: info_hash, reason });
        self.remove_torrent(info_hash);
    }

    /// Connections held, for tests and statistics.
    pub fn connection_count(&self) -> usize {
        self.connections.len()
    }

    /// Sends the kernel has not let go of, for tests.
    pub fn in_flight_count(&self) -> usize {
        self.in_flight.len()
    }

    /// Bytes of zero-copy sends that the kernel has not let go of.
    pub fn pinned_bytes(&self) -> u64 {
        self.zero_copy.pinned()
    }

    /// Bytes that connections hold for what they are asked and have to say, for tests and statistics.
    pub fn buffered_bytes(&self) -> usize {
        self.connections.values().map(|connection| connection.machine.buffered_bytes()).sum()
    }

    /// Files held open for content that is opened on demand, for tests.
    pub fn open_file_count(&self) -> usize {
        self.on_demand.files()
    }

    /// Messages that wait for room in other workers' mailboxes, for tests and statistics.
    pub fn unposted_count(&self) -> usize {
        self.outboxes.iter().map(Outbox::len).sum()
    }

    /// Messages posted to other workers so far, for tests and statistics.
    pub fn posted_count(&self) -> u64 {
        self.posted
    }

    /// Bytes received from peers that wait until their homes have heard the rest, for tests and statistics.
    pub fn backlog_bytes(&self) -> usize {
        self.connections
            .values()
            .filter_map(|connection| connection.backlog.as_ref())
            .map(|it| it.bytes.len())
            .sum()
    }

    /// Connections that have sent blocks lately.
    pub fn active_count(&self) -> usize {
        self.active.max(self.active_before)
    }

    /// The ring, for the simulator.
    pub fn ring_mut(&mut self) -> &mut R {
        &mut self.ring
    }
}

impl<R: Ring, S: BlockStore> Drop for Worker<R, S> {
    fn drop(&mut self) {
        // A worker that ends at its deadline, or by an error, has sockets left, and some that were accepted and not looked at.
        let mut completions = std::mem::take(&mut self.completions);
        if !std::thread::panicking() {
            // What the kernel refuses now matters no more.
            let _ = self.ring.turn(self.now, &mut completions);
        }
        let accepted = completions.iter().filter(|it| it.tag.kind == OpKind::Accept && it.result >= 0);
        let accepted = accepted.map(|completion| completion.result);
        for socket in self.connections.values().map(|connection| connection.socket).chain(accepted) {
            self.ring.abandon(socket);
        }
        // Whatever the kernel may still read must outlive the ring; it is only ever a stopping process that
        // leaves sends behind.
        if !self.in_flight.is_empty() {
            std::mem::forget(std::mem::take(&mut self.in_flight));
        }
    }
}

impl<R: Ring, S: BlockStore> std::fmt::Debug for Worker<R, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("index", &self.index)
            .field("connections", &self.connections.len())
            .field("torrents", &self.torrents.len())
            .finish_non_exhaustive()
    }
}
