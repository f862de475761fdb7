//! The production ring: the only file of the workers that knows the `io_uring` crate.
//!
//! Set up as SINGLE_ISSUER | DEFER_TASKRUN with a completion queue of 8192. Deferred task work runs at most
//! about twenty items an entry, so a turn enters again until nothing new comes, a bounded number of times
//! (the kernel's TASKRUN flag says whether to try at all, it is no reason to spin). Receives are multishot
//! into one provided-buffer ring per worker, so an idle connection owns no buffer.
#![expect(unsafe_code, reason = "submissions, the provided-buffer ring and received bytes")]

use super::ring::{BufferId, Completion, Ends, Entry, Op, OpKind, Ring, Tag, TcpTimes, ZeroCopyUse};
use super::ring_error::RingUnavailable;
use crate::clock;
use crate::limits::{FETCH_THREADS_MAX, UNSENT_LEN_MAX};
use crate::time::{Duration, Instant};
use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::MmapMut;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU16, Ordering};

const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 8192;
const ROUNDS_PER_TURN: usize = 16;
/// Buffers for what most peers send: requests of 17 bytes.
const SMALL: BufferShape = BufferShape { group: 0, count: 512, len: 4096 };
/// Buffers for blocks: four and their headers with one receive. Their memory is touched only when blocks come.
const BULK: BufferShape = BufferShape { group: 1, count: 64, len: 65_536 + 128 };
/// Marks the number of a bulk buffer.
const BULK_BIT: u16 = 1 << 15;
/// `IORING_NOTIF_USAGE_ZC_COPIED` of io_uring.h.
const NOTIFICATION_COPIED: u32 = 1 << 31;
/// `IORING_SEND_ZC_REPORT_USAGE` of io_uring.h.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;

/// A ring of the kernel's.
pub struct Uring {
    ring: IoUring,
    small: ProvidedBuffers,
    bulk: ProvidedBuffers,
    last_entry: Entry,
    /// Operations that found the queue full while the kernel took nothing; they go first. As many as there are
    /// connections and reads, each of which has a few.
    unsubmitted: VecDeque<Submission>,
}

/// An operation, and the advice that goes before it.
struct Submission {
    advice: Option<squeue::Entry>,
    entry: squeue::Entry,
}

impl Uring {
    /// Sets a ring up for the calling thread, which alone may use it from now on.
    pub fn new() -> Result<Self, RingUnavailable> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(SUBMISSIONS)
            .map_err(|error| RingUnavailable::from_setup(&error))?;
        // A disk that does not answer holds its fetches' threads; the default of four a core would be gone at once,
        // for all disks. Where that cannot be set it stays so.
        let _ = ring.submitter().register_iowq_max_workers(&mut [FETCH_THREADS_MAX, 0]);
        let register = |shape| {
            ProvidedBuffers::register(&ring, shape).map_err(|error| RingUnavailable::from_setup(&error))
        };
        let (small, bulk) = (register(SMALL)?, register(BULK)?);
        Ok(Self { ring, small, bulk, last_entry: Entry::default(), unsubmitted: VecDeque::new() })
    }

    fn entry(op: Op) -> squeue::Entry {
        match op {
            Op::Accept { listener } => {
                opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build()
            }
            Op::Receive { socket, bulk } => {
                let shape = if bulk { BULK } else { SMALL };
                opcode::RecvMulti::new(Fd(socket), shape.group).build()
            }
            Op::Send { socket, message, zero_copy: false } => {
                opcode::SendMsg::new(Fd(socket), message.as_ptr())
                    .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
                    .build()
            }
            Op::Send { socket, message, zero_copy: true } => {
                // Without MSG_EOR the notifications of a busy stream chain for ever.
                opcode::SendMsgZc::new(Fd(socket), message.as_ptr())
                    .ioprio(SEND_ZC_REPORT_USAGE)
                    .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL | libc::MSG_EOR) as u32)
                    .build()
            }
            Op::Fetch { mapped, .. } => {
                opcode::Madvise::new(mapped.address.cast(), mapped.len as _, libc::MADV_POPULATE_READ).build()
            }
            Op::Doorbell { file } => opcode::PollAdd::new(Fd(file), libc::POLLIN as u32).multi(true).build(),
            Op::Connect { socket, address } => {
                opcode::Connect::new(Fd(socket), address.address, address.len).build()
            }
            Op::Cancel { target } => {
                opcode::AsyncCancel2::new(CancelBuilder::user_data(target.to_user_data()).all()).build()
            }
        }
    }

    /// What goes before a populate: the advice starts all reads at once, where populating alone would read page by
    /// page. Linked, so that one thread of the kernel's does both; a refusal does not break the link.
    fn advice(file: RawFd, offset: u64, len: u32, tag: Tag) -> squeue::Entry {
        opcode::Fadvise::new(Fd(file), i64::from(len) as _, libc::POSIX_FADV_WILLNEED)
            .offset(offset)
            .build()
            .flags(squeue::Flags::IO_HARDLINK | squeue::Flags::SKIP_SUCCESS)
            .user_data(Tag { kind: OpKind::Advise, ..tag }.to_user_data())
    }

    /// False when the queue is full.
    fn try_push(&mut self, submission: &Submission) -> bool {
        let mut queue = self.ring.submission();
        // SAFETY: what the entries point to stays valid until their last completion: messages and
        // addresses by the promise their pointer types were made with, the rest holds no pointers
        // or only addresses that the kernel checks.
        let pushed = unsafe {
            match &submission.advice {
                // Both or none: a link does not reach over two submissions.
                Some(advice) => queue.push_multiple(&[advice.clone(), submission.entry.clone()]),
                None => queue.push(&submission.entry),
            }
        };
        pushed.is_ok()
    }

    /// Pushes what had found a full queue, in order. Where the kernel takes nothing now, the rest waits for the next turn,
    /// which reaps completions first.
    fn push_unsubmitted(&mut self) {
        while let Some(submission) = self.unsubmitted.pop_front() {
            if self.try_push(&submission) {
                continue;
            }
            self.submit();
            if !self.try_push(&submission) {
                return self.unsubmitted.push_front(submission);
            }
        }
    }

    fn submit(&mut self) {
        // EBUSY and EAGAIN mean that completions have to be reaped first; the next turn does.
        // Whatever is wrong with a single operation is told by its completion.
        let _ = self.ring.submit();
    }

    /// Hands so many operations over and has the kernel do what it has put off for us, without waiting.
    fn get_events(&mut self, queued: u32) -> io::Result<usize> {
        const GETEVENTS: u32 = 1;
        // SAFETY: no argument is passed.
        unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued, 0, GETEVENTS, None) }
    }

    fn reap(&mut self, completions: &mut Vec<Completion>) {
        for entry in self.ring.completion() {
            if let Some(tag) = Tag::from_user_data(entry.user_data()) {
                completions.push(completion_of(tag, &entry));
            }
        }
    }
}

/// What the next turn mends is no error.
fn told(entered: io::Result<usize>) -> io::Result<()> {
    match entered {
        Ok(_) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN) => Ok(()),
            _ => Err(error),
        },
    }
}

fn completion_of(tag: Tag, entry: &cqueue::Entry) -> Completion {
    let (flags, result) = (entry.flags(), entry.result());
    let released = cqueue::notif(flags).then_some(if result as u32 & NOTIFICATION_COPIED != 0 {
        ZeroCopyUse::Copied
    } else {
        ZeroCopyUse::Sent
    });
    Completion {
        tag,
        result,
        more: cqueue::more(flags),
        buffer: cqueue::buffer_select(flags).map(BufferId),
        released,
    }
}

impl Ring for Uring {
    fn push(&mut self, op: Op, tag: Tag) {
        let entry = Self::entry(op).user_data(tag.to_user_data());
        let advice = match op {
            Op::Fetch { file, offset, mapped } => Some(Self::advice(file, offset, mapped.len, tag)),
            _ => None,
        };
        let submission = Submission { advice, entry };
        if !self.unsubmitted.is_empty() || !self.try_push(&submission) {
            self.unsubmitted.push_back(submission);
            self.push_unsubmitted();
        }
    }

    fn turn(&mut self, deadline: Instant, completions: &mut Vec<Completion>) -> io::Result<()> {
        self.last_entry = Entry { began: clock::now(), waited: false };
        self.push_unsubmitted();
        // What is handed over often completes at once. Only when nothing has is there something to wait for, and the
        // worker knows then that its sends did not go through.
        let queued = self.ring.submission().len() as u32;
        if queued > 0 {
            told(self.get_events(queued))?;
        }
        if self.ring.completion().is_empty() {
            self.last_entry.waited = true;
            let timeout = Timespec::from(deadline.since(self.last_entry.began));
            let arguments = SubmitArgs::new().timespec(&timeout);
            told(self.ring.submitter().submit_with_args(1, &arguments))?;
        }
        for _ in 0..ROUNDS_PER_TURN {
            let before = completions.len();
            self.reap(completions);
            if completions.len() == before || !self.ring.submission().taskrun() {
                break;
            }
            if self.get_events(0).is_err() {
                break;
            }
        }
        Ok(())
    }

    fn last_entry(&self) -> Entry {
        self.last_entry
    }

    fn now(&self) -> Instant {
        clock::now()
    }

    fn processor_time(&self) -> Duration {
        let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(used.tv_sec.unsigned_abs(), used.tv_nsec as u32)
    }

    fn received(&self, buffer: &BufferId, len: usize) -> &[u8] {
        match buffer.0 & BULK_BIT {
            0 => self.small.bytes(buffer.0, len),
            _ => self.bulk.bytes(buffer.0 & !BULK_BIT, len),
        }
    }

    fn recycle(&mut self, buffer: BufferId) {
        match buffer.0 & BULK_BIT {
            0 => self.small.provide(buffer.0),
            _ => self.bulk.provide(buffer.0 & !BULK_BIT),
        }
    }

    fn major_faults(&self) -> u64 {
        // SAFETY: all-zero bytes are a valid rusage.
        let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
        // SAFETY: the kernel writes into a rusage of ours.
        let result = unsafe { libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage) };
        if result == 0 { usage.ru_majflt.unsigned_abs() } else { 0 }
    }

    fn close(&mut self, socket: RawFd, abrupt: bool) {
        // SAFETY: the worker owns the socket, closes it once, and nothing of it is in flight.
        let socket = unsafe { OwnedFd::from_raw_fd(socket) };
        if abrupt {
            // When this fails the connection ends slowly instead.
            let _ = socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO));
        }
    }

    fn abandon(&mut self, socket: RawFd) {
        self.close(socket, true);
    }

    fn shutdown(&mut self, socket: RawFd, which: std::net::Shutdown) {
        // SAFETY: the worker owns the socket and has not closed it.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        // ENOTCONN: the peer was faster.
        let _ = socket2::SockRef::from(&socket).shutdown(which);
    }

    fn open_socket(&mut self, remote: SocketAddr, local: Option<IpAddr>) -> io::Result<RawFd> {
        let socket = Socket::new(Domain::for_address(remote), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_notsent_lowat(UNSENT_LEN_MAX)?;
        if let Some(local) = local {
            socket.bind(&SocketAddr::new(local, 0).into())?;
        }
        Ok(OwnedFd::from(socket).into_raw_fd())
    }

    fn tcp_times(&self, socket: RawFd) -> Option<TcpTimes> {
        // SAFETY: all-zero bytes are a valid tcp_info.
        let mut info: libc::tcp_info = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::tcp_info>() as libc::socklen_t;
        let info_pointer = (&raw mut info).cast();
        // SAFETY: the kernel writes no more than `len` bytes into a tcp_info of ours. An older kernel writes fewer.
        let result = unsafe {
            libc::getsockopt(socket, libc::IPPROTO_TCP, libc::TCP_INFO, info_pointer, &raw mut len)
        };
        (result == 0).then_some(TcpTimes {
            busy_micros: info.tcpi_busy_time,
            peer_window_micros: info.tcpi_rwnd_limited,
            send_buffer_micros: info.tcpi_sndbuf_limited,
        })
    }

    fn addresses(&self, socket: RawFd) -> Option<Ends> {
        // SAFETY: the worker owns the socket and has not closed it.
        let socket = unsafe { BorrowedFd::borrow_raw(socket) };
        let socket = socket2::SockRef::from(&socket);
        Some(Ends {
            local: socket.local_addr().ok()?.as_socket()?,
            remote: socket.peer_addr().ok()?.as_socket()?,
        })
    }
}

/// How many buffers of which length a group has; the count is a power of two.
#[derive(Clone, Copy, Debug)]
struct BufferShape {
    group: u16,
    count: u16,
    len: usize,
}

impl BufferShape {
    /// The number under which the kernel and the worker know a buffer.
    fn id(self, index: u16) -> u16 {
        if self.group == BULK.group { index | BULK_BIT } else { index }
    }
}

/// The buffers that receives of a worker share. Ring entries and bytes lie in one anonymous mapping each.
struct ProvidedBuffers {
    shape: BufferShape,
    ring: MmapMut,
    bytes: MmapMut,
    tail: u16,
}

impl ProvidedBuffers {
    fn register(ring: &IoUring, shape: BufferShape) -> io::Result<Self> {
        let mut entries = MmapMut::map_anon(usize::from(shape.count) * size_of::<BufRingEntry>())?;
        let bytes = MmapMut::map_anon(usize::from(shape.count) * shape.len)?;
        // SAFETY: the mapping is page-aligned, large enough, and lives as long as the ring: both are fields
        // of `Uring`, and the kernel drops its registration with the ring's descriptor, which is the field
        // dropped first.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.as_mut_ptr() as u64,
                shape.count,
                shape.group,
                0,
            )
        }?;
        let mut buffers = Self { shape, ring: entries, bytes, tail: 0 };
        for index in 0..shape.count {
            buffers.provide(index);
        }
        Ok(buffers)
    }

    fn provide(&mut self, index: u16) {
        let BufferShape { count, len, .. } = self.shape;
        let position = usize::from(self.tail & (count - 1));
        let base = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        let address = self.bytes.as_ptr() as u64 + u64::from(index % count) * len as u64;
        // SAFETY: `position` is below the number of entries, and the kernel does not read an entry before
        // the tail has passed it.
        let entry = unsafe { &mut *base.add(position) };
        entry.set_addr(address);
        entry.set_len(len as u32);
        entry.set_bid(self.shape.id(index));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the start of the registered ring.
        let tail = unsafe { BufRingEntry::tail(base) }.cast::<AtomicU16>();
        // SAFETY: the tail is two aligned bytes that the kernel only reads. Release: the entry comes first.
        unsafe { &*tail }.store(self.tail, Ordering::Release);
    }

    fn bytes(&self, index: u16, len: usize) -> &[u8] {
        let start = usize::from(index % self.shape.count) * self.shape.len;
        &self.bytes[start..start + len.min(self.shape.len)]
    }
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring").field("descriptor", &self.ring.as_raw_fd()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn more_operations_than_both_queues_hold_all_complete() {
        const OPERATIONS: u32 = 2 * COMPLETIONS + 100;
        let mut ring = Uring::new().unwrap();
        let target = Tag { kind: OpKind::Receive, slot: 7, generation: 7 };
        for generation in 0..OPERATIONS {
            // Nothing is there to cancel: each completes at once.
            ring.push(Op::Cancel { target }, Tag { kind: OpKind::Cancel, slot: 1, generation });
        }
        let (mut completions, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        while seen.len() < OPERATIONS as usize {
            ring.turn(clock::now() + Duration::from_secs(20), &mut completions).unwrap();
            assert!(!completions.is_empty(), "{} of {OPERATIONS} completed", seen.len());
            seen.extend(completions.drain(..).map(|completion| completion.tag.generation));
        }
        assert_eq!(seen.len(), OPERATIONS as usize);
    }

    #[test]
    fn what_the_kernel_does_not_take_waits_and_is_not_lost() {
        const OPERATIONS: u32 = 2 * SUBMISSIONS + 100;
        let mut ring = Uring::new().unwrap();
        let target = Tag { kind: OpKind::Receive, slot: 7, generation: 7 };
        // A ring of one thread takes nothing from another: each of its submits fails.
        std::thread::scope(|scope| {
            let ring = &mut ring;
            scope.spawn(move || {
                for generation in 0..OPERATIONS {
                    ring.push(Op::Cancel { target }, Tag { kind: OpKind::Cancel, slot: 1, generation });
                }
            });
        });
        assert_eq!(ring.unsubmitted.len(), (OPERATIONS - SUBMISSIONS) as usize);
        let (mut completions, mut seen) = (Vec::new(), std::collections::BTreeSet::new());
        while seen.len() < OPERATIONS as usize {
            ring.turn(clock::now() + Duration::from_secs(20), &mut completions).unwrap();
            assert!(!completions.is_empty(), "{} of {OPERATIONS} completed", seen.len());
            seen.extend(completions.drain(..).map(|completion| completion.tag.generation));
        }
        assert!(ring.unsubmitted.is_empty());
    }

    #[test]
    fn accepts_and_receives_through_shared_buffers() {
        let mut ring = Uring::new().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let tag = |kind| Tag { kind, slot: 1, generation: 2 };
        ring.push(Op::Accept { listener: listener.as_raw_fd() }, tag(OpKind::Accept));
        let mut completions = Vec::new();
        ring.turn(clock::now(), &mut completions).unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        while completions.is_empty() {
            ring.turn(clock::now() + Duration::from_secs(5), &mut completions).unwrap();
        }
        let accepted = completions.pop().unwrap();
        assert_eq!((accepted.tag, accepted.more), (tag(OpKind::Accept), true));
        let socket = accepted.result;
        assert_eq!(ring.addresses(socket).unwrap().remote, client.local_addr().unwrap());

        for shape in [SMALL, BULK] {
            ring.push(Op::Receive { socket, bulk: shape.group == BULK.group }, tag(OpKind::Receive));
            // More rounds than there are buffers: each one has to come back.
            for round in 0..u32::from(shape.count) * 2 {
                client.write_all(&round.to_be_bytes()).unwrap();
                while completions.is_empty() {
                    ring.turn(clock::now() + Duration::from_secs(5), &mut completions).unwrap();
                }
                for completion in completions.drain(..) {
                    assert!(completion.more);
                    let buffer = completion.buffer.unwrap();
                    assert_eq!(ring.received(&buffer, completion.result as usize), round.to_be_bytes());
                    ring.recycle(buffer);
                }
            }
            if shape.group == SMALL.group {
                ring.push(Op::Cancel { target: tag(OpKind::Receive) }, tag(OpKind::Cancel));
            } else {
                ring.shutdown(socket, std::net::Shutdown::Both);
            }
            let mut ended = false;
            while !ended {
                ring.turn(clock::now() + Duration::from_secs(5), &mut completions).unwrap();
                ended = completions.drain(..).any(|it| it.tag.kind == OpKind::Receive && !it.more);
            }
        }
        ring.close(socket, false);
    }
}
