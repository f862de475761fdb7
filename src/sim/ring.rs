//! A ring without a kernel: sockets are queues, time is a number, and misfortune comes from the seed.
//!
//! It is as nasty as the contract of [`Ring`] allows: completions come late and out of order, receives lose
//! their buffers, connections break at any moment, zero-copy sends read their pages only when they say they
//! have let go of them, and a message's memory is read when its bytes leave and not before. Whoever frees or
//! reuses memory too early sends wrong bytes, and the peer notices.
#![expect(unsafe_code, reason = "reads messages as the kernel would")]

use crate::engine::ring::{
    BufferId, Completion, Ends, Entry, MessagePointer, Op, OpKind, Ring, Tag, TcpTimes, ZeroCopyUse,
};
use crate::limits::FETCHES_PER_DEVICE_MAX;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

const BUFFERS: u16 = 8;
const BUFFER_LEN: usize = 512;
const ACCEPTS_PER_TURN: usize = 16;

/// How likely each misfortune is, in thousandths, and how slow things are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A receive ends with ENOBUFS.
    pub no_buffers: u64,
    /// A connection breaks when something is sent.
    pub resets: u64,
    /// A send comes back short, as when the peer goes in its middle.
    pub short_sends: u64,
    /// A zero-copy send is refused.
    pub refused_zero_copy: u64,
    /// A zero-copy send turns out to have been copied.
    pub copied_zero_copy: u64,
    /// A read from disk fails for a passing reason.
    pub busy_disk: u64,
    /// A read from disk fails for good (EIO).
    pub broken_disk: u64,
    /// Reads from disk take up to this long on top.
    pub slow_disk: Duration,
    /// An outgoing connection is refused.
    pub refused_connects: u64,
    /// An outgoing connection is never answered.
    pub silent_connects: u64,
    /// Operations the submission queue holds; pushing into a full one flushes it. Zero for any number.
    pub submissions_max: usize,
    /// Connections that the worker may have; zero for more than any test makes.
    pub connections_max: usize,
    /// Connections for which there are descriptors: another one cannot be accepted (EMFILE). Zero for any number.
    pub descriptors_max: usize,
    /// Completions take up to this long.
    pub delay_max: Duration,
    /// The turn, counted from one, in which the kernel refuses the ring (EBADR); none for zero.
    pub breaks_in: u64,
    /// The turn in which the ring panics, as a mistake of ours would.
    pub panics_in: u64,
}

impl Faults {
    /// A bad day in all things but the disk, whose troubles are a rig's own.
    pub fn drawn(rng: &mut Rng) -> Self {
        Self {
            no_buffers: rng.below(200),
            resets: rng.below(10),
            short_sends: rng.below(10),
            refused_zero_copy: rng.below(100),
            copied_zero_copy: rng.below(1000),
            busy_disk: 0,
            broken_disk: 0,
            slow_disk: Duration::ZERO,
            refused_connects: rng.below(500),
            silent_connects: rng.below(400),
            submissions_max: rng.index(20),
            delay_max: Duration::from_micros(rng.below(5000)),
            connections_max: 0,
            descriptors_max: 0,
            breaks_in: 0,
            panics_in: 0,
        }
    }
}

/// The ring of one simulated worker.
#[derive(Debug)]
pub struct SimRing {
    now: Instant,
    rng: Rng,
    /// What goes wrong from now on.
    pub faults: Faults,
    /// Bytes of a receive buffer.
    pub buffer_len: usize,
    /// Pushed, not yet handed to the kernel.
    submissions: Vec<Pending>,
    pending: Vec<Pending>,
    sockets: BTreeMap<RawFd, SimSocket>,
    arrivals: VecDeque<RawFd>,
    buffers: Vec<Option<Vec<u8>>>,
    next_socket: RawFd,
    closed: u64,
    called: Vec<RawFd>,
    last_entry: Entry,
    /// Operations pushed so far.
    pushed: u64,
    /// Turns so far that ended because their deadline had come.
    wakeups: u64,
    turns: u64,
    /// Sockets that were never closed, shared with who looks at it after the ring's end.
    left_open: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Pending {
    tag: Tag,
    ready_at: Instant,
    what: What,
}

#[derive(Debug)]
enum What {
    Accept,
    Receive {
        socket: RawFd,
    },
    Send {
        socket: RawFd,
        message: MessagePointer,
        zero_copy: bool,
        segment: u64,
    },
    /// The second completion of a zero-copy send: here its bytes are read.
    Release {
        socket: RawFd,
        message: MessagePointer,
        segment: u64,
        usage: ZeroCopyUse,
    },
    Result(i32),
    /// A connection attempt; without a result it waits for ever.
    Connect {
        socket: RawFd,
        result: Option<i32>,
    },
    /// The cancellation of what was pushed with this tag.
    Cancel(Tag),
    Doorbell,
}

#[derive(Debug, Default)]
struct SimSocket {
    /// From the peer, not yet received.
    inbound: VecDeque<u8>,
    /// To the peer, in the order of sending; a segment is empty until its bytes have been read.
    outbound: VecDeque<(u64, Option<Vec<u8>>)>,
    next_segment: u64,
    /// Bytes the peer has room for; sends wait while there is none.
    window: usize,
    broken: bool,
    peer_closed: bool,
    shut_down: bool,
    /// We send nothing any more.
    half_closed: bool,
    /// The peer does not end when we do.
    talks_on: bool,
    remote: Option<SocketAddr>,
}

impl SimRing {
    /// A ring whose misfortunes follow from `seed`.
    pub fn new(seed: u64, faults: Faults) -> Self {
        Self {
            now: Instant::ZERO + Duration::from_secs(1000),
            rng: Rng::from_seed(seed),
            faults,
            buffer_len: BUFFER_LEN,
            submissions: Vec::new(),
            pending: Vec::new(),
            sockets: BTreeMap::new(),
            arrivals: VecDeque::new(),
            buffers: (0..BUFFERS).map(|_| None).collect(),
            next_socket: 100,
            closed: 0,
            called: Vec::new(),
            last_entry: Entry::default(),
            pushed: 0,
            turns: 0,
            left_open: Arc::default(),
            wakeups: 0,
        }
    }

    /// A peer connects; returns its socket's number.
    pub fn dial(&mut self) -> RawFd {
        let socket = self.make_socket(None);
        self.arrivals.push_back(socket);
        socket
    }

    /// A peer connects from this address.
    pub fn dial_from(&mut self, address: SocketAddr) -> RawFd {
        let socket = self.make_socket(Some(address));
        self.arrivals.push_back(socket);
        socket
    }

    fn make_socket(&mut self, remote: Option<SocketAddr>) -> RawFd {
        let socket = self.next_socket;
        self.next_socket += 1;
        self.left_open.fetch_add(1, Relaxed);
        self.sockets.insert(socket, SimSocket { window: usize::MAX, remote, ..SimSocket::default() });
        socket
    }

    /// Sockets that the worker has opened to connect with, in order.
    pub fn called(&self) -> &[RawFd] {
        &self.called
    }

    /// The peer sends bytes.
    pub fn peer_sends(&mut self, socket: RawFd, bytes: &[u8]) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.inbound.extend(bytes);
        }
    }

    /// Bytes that the peer has sent and nobody has received.
    pub fn unreceived(&self, socket: RawFd) -> usize {
        self.sockets.get(&socket).map_or(0, |socket| socket.inbound.len())
    }

    /// The peer reads what has arrived in order.
    pub fn peer_reads(&mut self, socket: RawFd) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(socket) = self.sockets.get_mut(&socket) {
            while let Some((_, Some(_))) = socket.outbound.front() {
                bytes
                    .extend(socket.outbound.pop_front().and_then(|(_, segment)| segment).unwrap_or_default());
            }
        }
        bytes
    }

    /// The peer stops reading (0), or goes on.
    pub fn set_window(&mut self, socket: RawFd, window: usize) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.window = window;
        }
    }

    /// The peer goes on sending when we have ended our part.
    pub fn talk_on(&mut self, socket: RawFd) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.talks_on = true;
        }
    }

    /// The peer closes its end.
    pub fn peer_closes(&mut self, socket: RawFd) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.peer_closed = true;
        }
    }

    /// Whether our end is still open.
    pub fn is_open(&self, socket: RawFd) -> bool {
        self.sockets.get(&socket).is_some_and(|socket| !socket.half_closed)
    }

    /// The number of sockets that are open, also after the ring's end.
    pub fn left_open(&self) -> Arc<AtomicUsize> {
        Arc::clone(&self.left_open)
    }

    /// Sockets not closed yet.
    pub fn open_sockets(&self) -> usize {
        self.sockets.len()
    }

    /// Operations pushed so far.
    pub fn pushed(&self) -> u64 {
        self.pushed
    }

    /// Turns so far that ended because their deadline had come.
    pub fn wakeups(&self) -> u64 {
        self.wakeups
    }

    /// Receive buffers lent and not given back.
    pub fn lent_buffers(&self) -> usize {
        self.buffers.iter().flatten().count()
    }

    fn happens(&mut self, thousandths: u64) -> bool {
        self.rng.below(1000) < thousandths
    }

    fn delay(&mut self) -> Instant {
        let nanos = self.faults.delay_max.as_nanos() as u64;
        self.now + Duration::from_nanos(self.rng.below(nanos + 1))
    }

    /// What became of one pending operation: completions, and whether it stays pending.
    fn advance(&mut self, pending: &mut Pending, out: &mut Vec<Completion>) -> bool {
        let tag = pending.tag;
        let mut say =
            |result, more, buffer, released| out.push(Completion { tag, result, more, buffer, released });
        match &pending.what {
            What::Accept => {
                let taken = self.sockets.len() - self.arrivals.len();
                let room = match self.faults.descriptors_max {
                    0 => usize::MAX,
                    most => most.saturating_sub(taken),
                };
                let goes_on = room >= self.arrivals.len().min(ACCEPTS_PER_TURN);
                for socket in self.arrivals.drain(..self.arrivals.len().min(ACCEPTS_PER_TURN).min(room)) {
                    say(socket, true, None, None);
                }
                if !goes_on {
                    say(-libc::EMFILE, false, None, None);
                }
                goes_on
            }
            What::Doorbell => {
                // The worker looks into its mailbox every turn; now and then it is called for nothing.
                if self.rng.below(100) == 0 {
                    say(1, true, None, None);
                }
                true
            }
            What::Result(result) | What::Connect { result: Some(result), .. } => {
                say(*result, false, None, None);
                false
            }
            What::Connect { result: None, .. } => true,
            What::Cancel(_) => {
                say(0, false, None, None);
                false
            }
            &What::Receive { socket } => {
                let starved = self.happens(self.faults.no_buffers);
                let buffer_len = self.buffer_len;
                let free = self.buffers.iter().position(Option::is_none);
                let Some(socket) = self.sockets.get_mut(&socket) else {
                    unreachable!("closed while receiving")
                };
                if socket.broken {
                    say(-libc::ECONNRESET, false, None, None);
                    return false;
                }
                if socket.shut_down || (socket.inbound.is_empty() && socket.peer_closed) {
                    say(0, false, None, None);
                    return false;
                }
                if socket.inbound.is_empty() {
                    return true;
                }
                let Some(free) = free.filter(|_| !starved) else {
                    say(-libc::ENOBUFS, false, None, None);
                    return false;
                };
                let len = 1 + self.rng.index(socket.inbound.len().min(buffer_len));
                self.buffers[free] = Some(socket.inbound.drain(..len).collect());
                say(len as i32, true, Some(BufferId(free as u16)), None);
                true
            }
            &What::Send { socket: number, message, zero_copy, segment } => {
                let (resets, short) =
                    (self.happens(self.faults.resets), self.happens(self.faults.short_sends));
                let refused = zero_copy && self.happens(self.faults.refused_zero_copy);
                let usage = if self.happens(self.faults.copied_zero_copy) {
                    ZeroCopyUse::Copied
                } else {
                    ZeroCopyUse::Sent
                };
                let ready_at = self.delay();
                let Some(socket) = self.sockets.get_mut(&number) else {
                    unreachable!("closed while sending")
                };
                socket.broken |= resets;
                let bytes = read_message(message);
                let failed = if refused {
                    Some(-libc::ENOMEM)
                } else if socket.broken || socket.half_closed {
                    Some(-libc::EPIPE)
                } else if socket.window == 0 {
                    return true;
                } else {
                    None
                };
                if let Some(errno) = failed {
                    // A refusal may come before there is anything to let go of: then nothing follows.
                    let follows = zero_copy && !(refused && ready_at.as_nanos().is_multiple_of(2));
                    socket.fill(segment, Vec::new());
                    say(errno, follows, None, None);
                    if !follows {
                        return false;
                    }
                } else if short && bytes.len() > 1 {
                    socket.broken = true;
                    let part = bytes[..bytes.len() / 2].to_vec();
                    say(part.len() as i32, zero_copy, None, None);
                    socket.fill(segment, part);
                } else {
                    say(bytes.len() as i32, zero_copy, None, None);
                    if !zero_copy {
                        socket.fill(segment, bytes);
                    }
                }
                if zero_copy {
                    pending.ready_at = ready_at;
                    pending.what = What::Release { socket: number, message, segment, usage };
                }
                zero_copy
            }
            &What::Release { socket, message, segment, usage } => {
                if let Some(socket) = self.sockets.get_mut(&socket) {
                    socket.fill(segment, read_message(message));
                }
                say(0, false, None, Some(usage));
                false
            }
        }
    }

    /// The kernel takes what was pushed, in order. A cancel finds what is there by then; it may lose the race
    /// against a connection that has just come about.
    fn flush(&mut self) {
        for one in std::mem::take(&mut self.submissions) {
            if let What::Cancel(target) = one.what {
                let wins = self.rng.below(2) == 0;
                for pending in self.pending.iter_mut().filter(|pending| pending.tag == target) {
                    match &mut pending.what {
                        What::Accept | What::Receive { .. } => {
                            pending.what = What::Result(-libc::ECANCELED);
                        }
                        What::Connect { result, .. } if wins || result.is_none() => {
                            *result = Some(-libc::ECANCELED);
                        }
                        _ => {}
                    }
                }
            }
            self.pending.push(one);
        }
    }

    fn is_stalled(&self, what: &What) -> bool {
        match what {
            What::Accept => self.arrivals.is_empty(),
            _ => false,
        }
    }
}

impl SimSocket {
    /// The bytes of a segment have been read. Only the first reading counts.
    fn fill(&mut self, number: u64, bytes: Vec<u8>) {
        if let Some((_, segment)) =
            self.outbound.iter_mut().find(|(of, segment)| *of == number && segment.is_none())
        {
            *segment = Some(bytes);
        }
    }
}

fn read_message(message: MessagePointer) -> Vec<u8> {
    // SAFETY: the promise of `MessagePointer`: all of it stays until the last completion, which is yet to come.
    let message = unsafe { &*message.as_ptr() };
    let mut bytes = Vec::new();
    for index in 0..message.msg_iovlen {
        // SAFETY: as above; `index` is below the message's number of vectors.
        let vector = unsafe { &*message.msg_iov.add(index) };
        if vector.iov_len > 0 {
            // SAFETY: as above. The simulated store's bytes are plain memory.
            bytes.extend(unsafe { std::slice::from_raw_parts(vector.iov_base.cast::<u8>(), vector.iov_len) });
        }
    }
    bytes
}

impl Ring for SimRing {
    fn push(&mut self, op: Op, tag: Tag) {
        let what = match op {
            Op::Accept { .. } => What::Accept,
            Op::Receive { socket, .. } => What::Receive { socket },
            Op::Send { socket, message, zero_copy } => {
                let Some(state) = self.sockets.get_mut(&socket) else {
                    unreachable!("send on a closed socket")
                };
                let segment = state.next_segment;
                state.next_segment += 1;
                state.outbound.push_back((segment, None));
                What::Send { socket, message, zero_copy, segment }
            }
            Op::Fetch { .. } if self.happens(self.faults.busy_disk) => What::Result(-libc::EAGAIN),
            Op::Fetch { .. } if self.happens(self.faults.broken_disk) => What::Result(-libc::EIO),
            Op::Connect { socket, .. } => {
                let refused = self.happens(self.faults.refused_connects);
                let silent = self.happens(self.faults.silent_connects);
                let result = if refused { -libc::ECONNREFUSED } else { 0 };
                What::Connect { socket, result: (!silent).then_some(result) }
            }
            Op::Fetch { .. } => What::Result(0),
            Op::Doorbell { .. } => What::Doorbell,
            Op::Cancel { target } => What::Cancel(target),
        };
        if self.faults.submissions_max > 0 && self.submissions.len() >= self.faults.submissions_max {
            self.flush();
        }
        let ready_at = match op {
            Op::Fetch { .. } => {
                let slow = self.faults.slow_disk.as_nanos() as u64;
                self.delay() + Duration::from_nanos(self.rng.below(slow + 1))
            }
            _ => self.delay(),
        };
        self.pushed += 1;
        self.submissions.push(Pending { tag, ready_at, what });
        let fetches = self.pending.iter().chain(&self.submissions).filter(|it| it.tag.kind == OpKind::Fetch);
        assert!(fetches.count() <= FETCHES_PER_DEVICE_MAX, "too much asked of one disk");
    }

    fn turn(&mut self, deadline: Instant, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.turns += 1;
        assert!(self.turns != self.faults.panics_in, "the ring was told to panic");
        if self.turns == self.faults.breaks_in {
            return Err(io::Error::from_raw_os_error(libc::EBADR));
        }
        self.flush();
        let before = completions.len();
        let mut pending = std::mem::take(&mut self.pending);
        self.rng.shuffle(&mut pending);
        pending.retain_mut(|one| {
            one.ready_at > self.now || self.is_stalled(&one.what) || self.advance(one, completions)
        });
        pending.append(&mut self.pending);
        self.pending = pending;
        let idle = completions.len() == before;
        self.last_entry = Entry { began: self.now, waited: idle };
        let step = Duration::from_micros(1 + self.rng.below(500));
        self.now = if idle {
            (self.now + step).max(deadline.min(self.now + Duration::from_millis(50)))
        } else {
            self.now + step
        };
        self.wakeups += u64::from(idle && self.now >= deadline);
        Ok(())
    }

    fn now(&self) -> Instant {
        self.now
    }

    fn last_entry(&self) -> Entry {
        self.last_entry
    }

    fn processor_time(&self) -> Duration {
        Duration::ZERO
    }

    fn received(&self, buffer: &BufferId, len: usize) -> &[u8] {
        self.buffers[usize::from(buffer.0)].as_ref().map_or(&[], |bytes| &bytes[..len])
    }

    fn recycle(&mut self, buffer: BufferId) {
        self.buffers[usize::from(buffer.0)] = None;
    }

    fn major_faults(&self) -> u64 {
        0
    }

    fn close(&mut self, socket: RawFd, _abrupt: bool) {
        let in_flight = self.pending.iter().chain(&self.submissions).any(|pending| match pending.what {
            What::Receive { socket: of }
            | What::Send { socket: of, .. }
            | What::Connect { socket: of, .. } => of == socket,
            _ => false,
        });
        assert!(!in_flight, "closed with something in flight");
        assert!(self.sockets.remove(&socket).is_some(), "closed twice");
        self.left_open.fetch_sub(1, Relaxed);
        self.closed += 1;
    }

    fn shutdown(&mut self, socket: RawFd, which: std::net::Shutdown) {
        if let Some(socket) = self.sockets.get_mut(&socket) {
            socket.half_closed = true;
            socket.shut_down |= which == std::net::Shutdown::Both;
            // An honest peer ends, too.
            socket.peer_closed |= !socket.talks_on;
        }
    }

    fn abandon(&mut self, socket: RawFd) {
        assert!(self.sockets.remove(&socket).is_some(), "closed twice");
        self.left_open.fetch_sub(1, Relaxed);
    }

    fn open_socket(&mut self, remote: SocketAddr, _local: Option<IpAddr>) -> io::Result<RawFd> {
        let socket = self.make_socket(Some(remote));
        self.called.push(socket);
        Ok(socket)
    }

    fn tcp_times(&self, _socket: RawFd) -> Option<TcpTimes> {
        None
    }

    fn addresses(&self, socket: RawFd) -> Option<Ends> {
        let port = socket as u16;
        let given = self.sockets.get(&socket).and_then(|socket| socket.remote);
        // Not loopback, so that zero copy is tried.
        Some(Ends {
            local: SocketAddr::from((Ipv4Addr::new(192, 0, 2, 1), 6881)),
            // Each from a prefix of its own.
            remote: given.unwrap_or_else(|| {
                SocketAddr::from((Ipv4Addr::new(198, (socket >> 8) as u8, socket as u8, 1), port))
            }),
        })
    }
}
