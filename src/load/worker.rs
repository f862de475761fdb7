//! One thread of the load generator: sockets, epoll, and the clock once per ready connection.
//!
//! Level-triggered epoll with one receive per connection and turn keeps connections fair to each other
//! whatever the target sends. All connections share one receive buffer; nothing of a block is kept between
//! two turns but its place in the stream.

use super::content::Walk;
use super::report::{ConnectionOutcome, Ending};
use super::requester::{RequestPlan, Requester, TargetFault};
use super::tally::Tally;
use super::{LoadError, Options, Shared, Target, source_address};
use crate::clock;
use crate::id::{InfoHash, PeerId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::units::BLOCK_LEN;
use crate::wire::{Answering, MseStream, Received, SkeyHash};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

/// Bytes received with one call: fits the second-level cache of any server core beside the rest.
const RECEIVE_LEN: usize = 256 * 1024;
/// Bytes looked at when the payload behind them is going to be discarded.
const PEEK_LEN: usize = 512;
/// Events taken from epoll at once.
const EVENTS_MAX: usize = 256;
/// Time for the target to accept, to answer the handshake, and to unchoke or serve anybody at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// Longest wait, so that a stop by another thread is seen and keep-alives are sent.
const WAIT_MAX: Duration = Duration::from_millis(100);
/// Time between two looks at who needs a keep-alive.
const KEEP_ALIVE_ROUND: Duration = Duration::from_secs(10);

/// What one thread is to do.
#[derive(Debug)]
pub(super) struct Seat {
    /// Its connections.
    pub connections: usize,
    /// Number of its first connection in the whole run.
    pub first: usize,
    /// Its share of the rate, in bytes a second.
    pub rate: Option<u64>,
    /// The core to run on.
    pub core: Option<usize>,
    /// Where its peer ids and orders come from.
    pub rng: Rng,
}

/// Runs one thread's connections until the run is over, or none is left.
pub(super) fn run(
    target: &Target,
    options: &Options,
    shared: &Shared,
    seat: Seat,
) -> Result<(Tally, Vec<ConnectionOutcome>), LoadError> {
    if let Some(core) = seat.core {
        let mut cores = rustix::thread::CpuSet::new();
        if core < rustix::thread::CpuSet::MAX_CPU {
            cores.set(core);
        }
        rustix::thread::sched_setaffinity(None, &cores)
            .map_err(|error| LoadError::Pin { core, source: error.into() })?;
    }
    let now = clock::now();
    let mut worker = Worker {
        target,
        options,
        shared,
        epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| system("cannot create an epoll", e))?,
        connections: Vec::with_capacity(seat.connections),
        opening: 0,
        open: 0,
        received: vec![0; RECEIVE_LEN].into(),
        out: Vec::new(),
        tally: Tally::default(),
        outcomes: Vec::with_capacity(seat.connections),
        pacer: seat.rate.map(|rate| Pacer::new(now, rate)),
        waiting: VecDeque::new(),
        progress_at: now,
        keep_alive_at: now + KEEP_ALIVE_ROUND,
        seat,
    };
    worker.run()?;
    Ok((worker.tally, worker.outcomes))
}

fn system(doing: &'static str, error: Errno) -> LoadError {
    LoadError::System { doing, source: error.into() }
}

struct Worker<'a> {
    target: &'a Target,
    options: &'a Options,
    shared: &'a Shared,
    seat: Seat,
    epoll: OwnedFd,
    /// Indexed by what epoll hands back; `None` once lost.
    connections: Vec<Option<Connection>>,
    /// Connections that have begun and not yet completed their handshake.
    opening: usize,
    open: usize,
    received: Box<[u8]>,
    out: Vec<u8>,
    tally: Tally,
    outcomes: Vec<ConnectionOutcome>,
    pacer: Option<Pacer>,
    /// Connections that have room for requests and wait for the pacer.
    waiting: VecDeque<usize>,
    progress_at: Instant,
    keep_alive_at: Instant,
}

struct Connection {
    socket: OwnedFd,
    requester: Requester,
    /// Between socket and requester, when the connection is encrypted.
    stream: Option<MseStream>,
    /// What the socket has not yet taken.
    unsent: Vec<u8>,
    connecting: bool,
    wants_write: bool,
    is_waiting: bool,
    bytes_noted: u64,
    handshake_noted: bool,
    unchoke_noted: bool,
}

impl Worker<'_> {
    fn run(&mut self) -> Result<(), LoadError> {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(EVENTS_MAX);
        loop {
            let now = clock::now();
            self.start_connections(now)?;
            if self.is_over(now) {
                break;
            }
            self.serve_waiting(now);
            self.keep_alive(now);
            events.clear();
            let wait = self.wait_limit(now);
            let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: i64::from(wait.subsec_nanos()) };
            match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(system("cannot wait for the connections", error)),
            }
            for event in &events {
                self.handle_event(event.data.u64() as usize, event.flags);
            }
        }
        let now = clock::now();
        for index in 0..self.connections.len() {
            self.close(index, now, Ending::Finished);
        }
        Ok(())
    }

    fn is_over(&self, now: Instant) -> bool {
        let until = self.options.until;
        let elapsed = self.shared.first_unchoke().is_some_and(|first| now.since(first) >= until.elapsed);
        let all_lost = self.open == 0 && self.connections.len() == self.seat.connections;
        let waits_for_bytes = until.bytes.is_some() || self.shared.first_unchoke().is_none();
        let bored = waits_for_bytes && now.since(self.progress_at) > PATIENCE;
        elapsed || all_lost || bored || self.shared.stopped()
    }

    /// Until the next thing that no socket announces.
    fn wait_limit(&self, now: Instant) -> Duration {
        let mut wait = WAIT_MAX;
        if let Some(first) = self.shared.first_unchoke() {
            wait = wait.min((first + self.options.until.elapsed).since(now));
        }
        if let Some(pacer) = &self.pacer
            && !self.waiting.is_empty()
        {
            wait = wait.min(pacer.time_to_next(now));
        }
        wait
    }

    fn start_connections(&mut self, now: Instant) -> Result<(), LoadError> {
        while self.connections.len() < self.seat.connections && self.opening < self.options.burst.max(1) {
            let index = self.connections.len();
            let plan = RequestPlan {
                pieces: self.target.content.pieces(),
                depth: self.options.depth,
                verify: self.options.verify,
            };
            let walk = Walk::new(plan.pieces, self.options.order, self.seat.rng.next_u64());
            let peer_id = PeerId::generate(&mut self.seat.rng);
            let requester = Requester::new(now, self.target.info_hash, peer_id, walk, &plan);
            match self.connect(self.seat.first + index) {
                Ok(socket) => {
                    let interest = epoll::EventFlags::IN | epoll::EventFlags::OUT;
                    epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(index as u64), interest)
                        .map_err(|error| system("cannot watch a connection", error))?;
                    self.opening += 1;
                    self.open += 1;
                    self.connections.push(Some(Connection {
                        socket,
                        requester,
                        stream: None,
                        unsent: Vec::new(),
                        connecting: true,
                        handshake_noted: false,
                        wants_write: true,
                        is_waiting: false,
                        bytes_noted: 0,
                        unchoke_noted: false,
                    }));
                }
                Err(error) => {
                    self.outcomes.push(ConnectionOutcome::new(&requester, now, Ending::of_io(error)));
                    self.connections.push(None);
                }
            }
        }
        Ok(())
    }

    fn connect(&self, number: usize) -> Result<OwnedFd, Errno> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with, sockopt};
        let family = if self.target.address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(family, SocketType::STREAM, flags, None)?;
        // A request must not wait for the acknowledgement of the one before it.
        sockopt::set_tcp_nodelay(&socket, true)?;
        // Before the connection, since TCP's window scale is settled with the first packet.
        if let Some(len) = self.options.receive_buffer {
            sockopt::set_socket_recv_buffer_size(&socket, len)?;
        }
        if let Some(source) = source_address(self.options, number) {
            bind(&socket, &SocketAddr::from((source, 0)))?;
        }
        match connect(&socket, &self.target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
            Err(error) => Err(error),
        }
    }

    fn handle_event(&mut self, index: usize, flags: epoll::EventFlags) {
        let Some(Some(connection)) = self.connections.get_mut(index) else { return };
        self.out.clear();
        let result = if connection.connecting {
            self.handle_connected(index)
        } else {
            let readable = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
            let received = if flags.intersects(readable) { self.receive(index) } else { Ok(()) };
            received.and_then(|()| self.say(index, clock::now()))
        };
        if let Err(ending) = result {
            self.close(index, clock::now(), ending);
        }
    }

    fn handle_connected(&mut self, index: usize) -> Result<(), Ending> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        connection.connecting = false;
        rustix::net::sockopt::socket_error(&connection.socket)
            .map_err(Ending::of_io)?
            .map_err(Ending::of_io)?;
        let now = clock::now();
        connection.requester.handle_connected(now, &mut self.out);
        if let Some(offered) = self.options.encryption
            && let Some(handshake) = self.out.first_chunk()
        {
            let (info_hash, rng) = (self.target.info_hash, &mut self.seat.rng);
            connection.stream =
                Some(MseStream::outgoing(clock::random_bytes(), rng, info_hash, offered, handshake));
            self.out.clear();
        }
        self.send_out(index)
    }

    /// One receive, parsed in place.
    fn receive(&mut self, index: usize) -> Result<(), Ending> {
        if self.options.discard && !self.options.verify && self.options.encryption.is_none() {
            return self.receive_discarding(index);
        }
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        let len = match rustix::net::recv(&connection.socket, &mut self.received[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Err(Ending::ClosedByTarget),
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(Ending::of_io(error)),
        };
        let (mut first, mut start) = (Vec::new(), 0);
        if let Some(stream) = &mut connection.stream {
            // Who has dialled is asked for no torrent.
            let skeys = BTreeMap::<SkeyHash, InfoHash>::new();
            let secret = clock::random_bytes;
            let mut answering = Answering { secret, pads: &mut self.seat.rng, skeys: &skeys };
            let received = stream.receive(&mut self.received[..len], &mut answering);
            Received { first, start } = received.map_err(TargetFault::from)?;
        }
        let (now, content, tally) = (clock::now(), &self.target.content, &mut self.tally);
        connection.requester.handle_bytes(now, &first, content, tally, &mut self.out)?;
        connection.requester.handle_bytes(now, &self.received[start..len], content, tally, &mut self.out)?;
        Ok(())
    }

    /// Receives headers into memory and payload into nowhere, until the socket is dry or a batch is done.
    fn receive_discarding(&mut self, index: usize) -> Result<(), Ending> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        let mut quota = RECEIVE_LEN;
        while quota > 0 {
            let discardable = connection.requester.discardable() as usize;
            let (want, flags) = if discardable > 0 {
                (discardable, RecvFlags::TRUNC)
            } else {
                (PEEK_LEN, RecvFlags::empty())
            };
            let want = want.min(RECEIVE_LEN);
            // With TRUNC the kernel writes nothing: TCP counts the bytes and drops them (tcp(7)).
            let len = match rustix::net::recv(&connection.socket, &mut self.received[..want], flags) {
                Ok((_, 0)) => return Err(Ending::ClosedByTarget),
                Ok((_, len)) => len,
                Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
                Err(error) => return Err(Ending::of_io(error)),
            };
            let now = clock::now();
            if discardable > 0 {
                connection.requester.handle_discarded(now, len as u32, &mut self.tally);
            } else {
                let bytes = &self.received[..len];
                let (content, tally) = (&self.target.content, &mut self.tally);
                connection.requester.handle_bytes(now, bytes, content, tally, &mut self.out)?;
            }
            if len < want {
                return Ok(());
            }
            quota = quota.saturating_sub(len);
        }
        Ok(())
    }

    /// Notes progress, asks for what there is room for, and sends it together with what `out` holds already.
    fn say(&mut self, index: usize, now: Instant) -> Result<(), Ending> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        let gained = connection.requester.bytes() - connection.bytes_noted;
        if gained > 0 {
            connection.bytes_noted += gained;
            self.progress_at = now;
            self.shared.note_bytes(gained, self.options.until);
        }
        if !connection.handshake_noted && connection.requester.milestones().handshaken.is_some() {
            connection.handshake_noted = true;
            self.opening -= 1;
        }
        if !connection.unchoke_noted
            && let Some(at) = connection.requester.milestones().unchoked
        {
            connection.unchoke_noted = true;
            self.progress_at = now;
            self.shared.note_unchoke(at);
        }
        let budget = self.pacer.as_mut().map_or(usize::MAX, |pacer| pacer.budget(now));
        let asked = connection.requester.poll_requests(now, &self.target.content, budget, &mut self.out);
        if let Some(pacer) = &mut self.pacer {
            pacer.spend(asked);
            if !connection.is_waiting && connection.requester.requests_wanted() > 0 {
                connection.is_waiting = true;
                self.waiting.push_back(index);
            }
        }
        self.send_out(index)
    }

    /// Sends what was left over and `out`; keeps the rest and watches for room when the socket is full.
    fn send_out(&mut self, index: usize) -> Result<(), Ending> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        if let Some(stream) = &mut connection.stream {
            stream.encrypt(&mut self.out);
            let mut handshake = Vec::new();
            stream.poll_output(&mut handshake);
            self.out.splice(..0, handshake);
        }
        let is_backlogged = !connection.unsent.is_empty();
        if is_backlogged {
            connection.unsent.append(&mut self.out);
        }
        let bytes = if is_backlogged { &connection.unsent } else { &self.out };
        let sent = if bytes.is_empty() {
            0
        } else {
            match rustix::net::send(&connection.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => sent,
                Err(Errno::AGAIN | Errno::INTR) => 0,
                Err(error) => return Err(Ending::of_io(error)),
            }
        };
        if is_backlogged {
            connection.unsent.drain(..sent);
        } else {
            connection.unsent.extend_from_slice(&self.out[sent..]);
        }
        self.out.clear();
        let wants_write = !connection.unsent.is_empty();
        if wants_write != connection.wants_write {
            connection.wants_write = wants_write;
            let mut interest = epoll::EventFlags::IN;
            interest.set(epoll::EventFlags::OUT, wants_write);
            let data = epoll::EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &connection.socket, data, interest).map_err(Ending::of_io)?;
        }
        Ok(())
    }

    /// Lets the connections that wait for the pacer ask, in turn.
    fn serve_waiting(&mut self, now: Instant) {
        for _ in 0..self.waiting.len() {
            if self.pacer.as_mut().is_none_or(|pacer| pacer.budget(now) == 0) {
                return;
            }
            let Some(index) = self.waiting.pop_front() else { return };
            if let Some(connection) = self.connections[index].as_mut() {
                connection.is_waiting = false;
                self.out.clear();
                if let Err(ending) = self.say(index, now) {
                    self.close(index, now, ending);
                }
            }
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        if now < self.keep_alive_at {
            return;
        }
        self.keep_alive_at = now + KEEP_ALIVE_ROUND;
        for index in 0..self.connections.len() {
            let Some(connection) = self.connections[index].as_mut() else { continue };
            let begun = connection.requester.milestones();
            if begun.handshaken.is_none() && now.since(begun.started) > PATIENCE {
                self.close(index, now, Ending::NoHandshake);
                continue;
            }
            self.out.clear();
            connection.requester.poll_keep_alive(now, &mut self.out);
            if let Err(ending) = self.send_out(index) {
                self.close(index, now, ending);
            }
        }
    }

    fn close(&mut self, index: usize, now: Instant, ending: Ending) {
        if let Some(connection) = self.connections[index].take() {
            self.open -= 1;
            self.opening -= usize::from(!connection.handshake_noted);
            self.outcomes.push(ConnectionOutcome::new(&connection.requester, now, ending));
        }
    }
}

/// A token bucket in bytes: requests are paid for when they are sent. Holds 50 ms and a block at most.
#[derive(Debug)]
struct Pacer {
    rate: u64,
    nanobytes: i128,
    refilled_at: Instant,
}

const NANO: i128 = 1_000_000_000;

impl Pacer {
    const fn new(now: Instant, rate: u64) -> Self {
        Self { rate, nanobytes: 0, refilled_at: now }
    }

    /// Blocks that may be asked for now.
    fn budget(&mut self, now: Instant) -> usize {
        let elapsed = now.since(self.refilled_at).as_nanos() as i128;
        self.refilled_at = self.refilled_at.max(now);
        let depth = self.rate as i128 * NANO / 20 + i128::from(BLOCK_LEN) * NANO;
        self.nanobytes = (self.nanobytes + elapsed * self.rate as i128).min(depth);
        usize::try_from(self.nanobytes / (i128::from(BLOCK_LEN) * NANO)).unwrap_or(0)
    }

    fn spend(&mut self, blocks: usize) {
        self.nanobytes -= blocks as i128 * i128::from(BLOCK_LEN) * NANO;
    }

    /// Until a block may be asked for, as far as is known without a refill; at least 100 µs.
    fn time_to_next(&self, now: Instant) -> Duration {
        let missing = i128::from(BLOCK_LEN) * NANO - self.nanobytes;
        let nanos = u64::try_from(missing.max(0) / i128::from(self.rate.max(1))).unwrap_or(u64::MAX);
        (self.refilled_at + Duration::from_nanos(nanos)).since(now).max(Duration::from_micros(100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pacer_grants_its_rate_whatever_the_steps() {
        let rate = 100 * u64::from(BLOCK_LEN);
        for step_micros in [100, 7_000, 49_000] {
            let mut now = Instant::from_nanos(5);
            let mut pacer = Pacer::new(now, rate);
            let mut granted = 0;
            while now.as_secs() < 10 {
                let blocks = pacer.budget(now);
                pacer.spend(blocks);
                granted += blocks;
                now += Duration::from_micros(step_micros);
            }
            assert!((995..=1000).contains(&granted), "{granted} blocks in steps of {step_micros} µs");
        }
    }

    #[test]
    fn the_pacer_does_not_save_up_idle_time() {
        let mut pacer = Pacer::new(Instant::ZERO, 100 * u64::from(BLOCK_LEN));
        assert_eq!(pacer.budget(Instant::ZERO + Duration::from_secs(60)), 6);
    }

    #[test]
    fn the_pacer_names_the_time_of_the_next_block() {
        let mut pacer = Pacer::new(Instant::ZERO, u64::from(BLOCK_LEN));
        assert_eq!(pacer.budget(Instant::ZERO), 0);
        assert_eq!(pacer.time_to_next(Instant::ZERO), Duration::from_secs(1));
        assert_eq!(pacer.budget(Instant::ZERO + Duration::from_secs(1)), 1);
    }
}
