//! The ring as a trait of plain data: what the worker asks of the kernel, and what comes back.
//!
//! [`uring`](super::uring) is the one production implementation; the simulator has another that injects short
//! sends, resets, late notifications and full queues. Whoever implements this promises:
//!
//! * every pushed operation completes at least once, and exactly one of its completions is the last
//!   (`more == false`); what it referred to belongs to the kernel until then, after a cancel and after an
//!   error too;
//! * a full queue flushes, it never loses an operation and never panics.

use crate::time::{Duration, Instant};
use std::io;
use std::os::fd::RawFd;

/// What an operation was for. Travels through the kernel in `user_data`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum OpKind {
    /// Multishot accept on a listener; the slot is the listener's number.
    Accept,
    /// Multishot receive of one connection.
    Receive,
    /// A send of one connection; zero-copy sends complete twice.
    Send,
    /// The advice before a fetch; completes only where the kernel refused it, which makes the fetch slower.
    Advise,
    /// A fetch of content that is not in memory.
    Fetch,
    /// Somebody put something into the worker's mailbox.
    Doorbell,
    /// Cancellation of another operation; its own completion says nothing.
    Cancel,
    /// An outgoing connection attempt.
    Connect,
}

impl OpKind {
    const ALL: [Self; 8] = [
        Self::Accept,
        Self::Receive,
        Self::Send,
        Self::Advise,
        Self::Fetch,
        Self::Doorbell,
        Self::Cancel,
        Self::Connect,
    ];
}

/// Who asked: the kind of operation, the slot of its connection, and the slot's generation, so that a
/// completion that arrives after its connection has gone is recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tag {
    /// The kind of operation.
    pub kind: OpKind,
    /// Slot in the worker's slab, below 2^24.
    pub slot: u32,
    /// Generation of the slot when the operation was pushed.
    pub generation: u32,
}

impl Tag {
    /// The tag as 64 bits: 8 of kind, 24 of slot, 32 of generation.
    pub fn to_user_data(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.slot & 0x00ff_ffff) << 32 | u64::from(self.generation)
    }

    /// Reads back what [`to_user_data`](Self::to_user_data) wrote; `None` for an unknown kind.
    pub fn from_user_data(user_data: u64) -> Option<Self> {
        let kind = *OpKind::ALL.get((user_data >> 56) as usize)?;
        let slot = (user_data >> 32) as u32 & 0x00ff_ffff;
        Some(Self { kind, slot, generation: user_data as u32 })
    }
}

/// A message the kernel may read until the send's last completion.
#[derive(Clone, Copy, Debug)]
pub struct MessagePointer(*const libc::msghdr);

impl MessagePointer {
    /// Promises that `message`, its iovecs and what they point to stay mapped and unmoved until the last
    /// completion of the send it is pushed with.
    #[expect(unsafe_code, reason = "the promise the ring relies on is made here")]
    ///
    /// # Safety
    /// The caller keeps that promise. File-backed memory may lose its pages meanwhile (the send then fails
    /// with EFAULT), but the mapping itself must stay.
    pub unsafe fn new(message: *const libc::msghdr) -> Self {
        Self(message)
    }

    /// The pointer for the submission.
    pub fn as_ptr(self) -> *const libc::msghdr {
        self.0
    }
}

/// A socket address the kernel may read until the connect's completion.
#[derive(Clone, Copy, Debug)]
pub struct AddressPointer {
    pub(super) address: *const libc::sockaddr,
    pub(super) len: libc::socklen_t,
}

impl AddressPointer {
    /// Promises that `address` stays where it is until the connect has completed.
    #[expect(unsafe_code, reason = "the promise the ring relies on is made here")]
    ///
    /// # Safety
    /// The caller keeps that promise, and `len` bytes are readable there.
    pub unsafe fn new(address: *const libc::sockaddr, len: libc::socklen_t) -> Self {
        Self { address, len }
    }
}

/// A range of a mapping, page-aligned, that the kernel may bring into memory.
/// Nothing is read or written through it, so a range that is no longer mapped only fails.
#[derive(Clone, Copy, Debug)]
pub struct MappedRange {
    /// First byte in memory.
    pub address: *const u8,
    /// Number of bytes.
    pub len: u32,
}

/// One operation for the kernel.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    /// Accept connections until cancelled; each completion's result is a new socket.
    Accept {
        /// Listening socket.
        listener: RawFd,
    },
    /// Receive until the peer closes; each completion brings a buffer.
    Receive {
        /// Connected socket.
        socket: RawFd,
        /// Much is expected, so that large buffers pay.
        bulk: bool,
    },
    /// Send a whole message (a short result means that the connection is broken).
    Send {
        /// Connected socket.
        socket: RawFd,
        /// What to send.
        message: MessagePointer,
        /// Whether the device may read our pages instead of a copy.
        zero_copy: bool,
    },
    /// Read a range of a mapped file into memory, on threads of the kernel's.
    Fetch {
        /// The file.
        file: RawFd,
        /// First byte in the file.
        offset: u64,
        /// The same bytes in memory.
        mapped: MappedRange,
    },
    /// Tell each time the doorbell rings.
    Doorbell {
        /// An eventfd.
        file: RawFd,
    },
    /// Connect a socket.
    Connect {
        /// Unconnected socket.
        socket: RawFd,
        /// Where to.
        address: AddressPointer,
    },
    /// Cancel the operation pushed with this tag.
    Cancel {
        /// Its tag.
        target: Tag,
    },
}

/// A receive buffer lent by the ring; give it back with [`Ring::recycle`].
#[derive(Debug, PartialEq, Eq)]
pub struct BufferId(pub u16);

/// What the kernel says about an operation.
#[derive(Debug, PartialEq, Eq)]
pub struct Completion {
    /// Who asked.
    pub tag: Tag,
    /// Bytes, a descriptor, or a negated errno.
    pub result: i32,
    /// More completions of the same operation follow.
    pub more: bool,
    /// The buffer of a receive.
    pub buffer: Option<BufferId>,
    /// This is the second completion of a zero-copy send: the kernel has let go of the pages. The result is
    /// then not a length.
    pub released: Option<ZeroCopyUse>,
}

/// What the kernel reports about a zero-copy send when it lets go of the pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroCopyUse {
    /// The device read our pages.
    Sent,
    /// Somebody on the way copied them after all.
    Copied,
}

/// The worker's way to the kernel.
pub trait Ring {
    /// Queues an operation; flushes when the queue is full.
    fn push(&mut self, op: Op, tag: Tag);

    /// Hands queued operations to the kernel, waits for a completion until `deadline` at most, and appends
    /// what has completed to `completions` (bounded work; more may follow in the next turn).
    fn turn(&mut self, deadline: Instant, completions: &mut Vec<Completion>) -> io::Result<()>;

    /// The time, sampled by the worker once per turn.
    fn now(&self) -> Instant;

    /// How the last [`turn`](Self::turn) went.
    fn last_entry(&self) -> Entry;

    /// Processor time this thread has used so far, for the busy fraction.
    fn processor_time(&self) -> Duration;

    /// The `len` received bytes in a lent buffer.
    fn received(&self, buffer: &BufferId, len: usize) -> &[u8];

    /// Gives a buffer back for further receives.
    fn recycle(&mut self, buffer: BufferId);

    /// Page faults of this thread that waited for a disk so far.
    fn major_faults(&self) -> u64;

    /// Closes a socket of this ring; nothing of it is in flight any more. An abrupt end drops what the peer
    /// has not read yet and resets the connection.
    fn close(&mut self, socket: RawFd, abrupt: bool);

    /// Ends a socket's directions, so that what is in flight on them completes; when only writing ends, the peer may be read on.
    fn shutdown(&mut self, socket: RawFd, which: std::net::Shutdown);

    /// Closes a socket of which something may be in flight, because the ring ends with it.
    fn abandon(&mut self, socket: RawFd);

    /// A socket to connect to `remote` with, bound to `local` where that is given.
    fn open_socket(
        &mut self,
        remote: std::net::SocketAddr,
        local: Option<std::net::IpAddr>,
    ) -> io::Result<RawFd>;

    /// What the kernel says has limited a connection so far; `None` where it says nothing.
    fn tcp_times(&self, socket: RawFd) -> Option<TcpTimes>;

    /// The two ends of a connected socket; `None` when it is gone already.
    fn addresses(&self, socket: RawFd) -> Option<Ends>;
}

/// How an entry into the kernel went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// When it began.
    pub began: Instant,
    /// Nothing had completed when all operations had been handed over, so that the thread may have slept.
    pub waited: bool,
}

/// Times of one connection in microseconds, as TCP counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpTimes {
    /// Something was to be sent, or had been and was not acknowledged.
    pub busy_micros: u64,
    /// Of these: the peer's receive window was full.
    pub peer_window_micros: u64,
    /// Of these: our send buffer was full.
    pub send_buffer_micros: u64,
}

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Our address.
    pub local: std::net::SocketAddr,
    /// The peer's address.
    pub remote: std::net::SocketAddr,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn tags_survive_the_kernel(kind in 0usize..8, slot in 0u32..1 << 24, generation: u32) {
            let tag = Tag { kind: OpKind::ALL[kind], slot, generation };
            prop_assert_eq!(Tag::from_user_data(tag.to_user_data()), Some(tag));
        }
    }

    #[test]
    fn an_unknown_kind_is_no_tag() {
        assert_eq!(Tag::from_user_data(u64::MAX), None);
    }
}
