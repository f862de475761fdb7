//! One thread, one ring, one mapped file: what a seeder on io_uring cannot cost less than.
//!
//! One multishot accept, one multishot receive for each connection into one provided-buffer ring, one SENDMSG for
//! what a connection has queued (a block, when its peer asks for one at a time), at most one in flight for each.
//! SINGLE_ISSUER | DEFER_TASKRUN and nothing else: no timers, no bounds, no statistics.
#![expect(unsafe_code, reason = "submissions, the provided-buffer ring and messages in flight are addresses")]

use crate::peer::{Peer, offset};
use crate::{BATCH_LEN, Outcome, Serve, map, print_cost};
use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, cqueue, opcode, squeue};
use memmap2::MmapMut;
use seedring::clock;
use seedring::metainfo::Metainfo;
use seedring::wire::{self, PIECE_HEADER_LEN};
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};

const SUBMISSIONS: u32 = 1024;
const COMPLETIONS: u32 = 8192;
const BUFFERS: u16 = 512;
const BUFFER_LEN: usize = 4096;
const GROUP: u16 = 0;
/// What an operation was for, in the upper half of its user data; the lower half is the connection.
const ACCEPT: u64 = 0;
const RECEIVE: u64 = 1;
const SEND: u64 = 2;

struct Connection {
    socket: OwnedFd,
    peer: Peer,
    /// What goes before the next blocks.
    control: Vec<u8>,
    message: Message,
    sending: bool,
}

/// A message in the kernel's hands; boxed parts, so that it may move between sends but not during one.
struct Message {
    header: Box<libc::msghdr>,
    headers: Vec<[u8; PIECE_HEADER_LEN]>,
    control: Vec<u8>,
    vectors: Vec<libc::iovec>,
    len: usize,
}

/// Listens, prints the address, serves until the last connection has closed, prints the cost.
pub fn run(serve: &Serve) -> Outcome<()> {
    let metainfo = Metainfo::parse(&std::fs::read(&serve.torrent)?)?;
    let content = map(&File::open(&serve.data)?)?;
    if content.len() as u64 != metainfo.info().total_len() {
        return Err("the file has another length than the torrent says".into());
    }
    let listener = TcpListener::bind(serve.listen)?;
    println!("listening on {}", listener.local_addr()?);
    let mut builder = IoUring::<squeue::Entry, cqueue::Entry>::builder();
    builder.setup_single_issuer().setup_defer_taskrun().setup_cqsize(COMPLETIONS);
    let ring = builder.build(SUBMISSIONS)?;
    let buffers = Buffers::register(&ring)?;
    let mut seeder = Seeder { ring, buffers, metainfo, content, connections: Vec::new(), open: 0, bytes: 0 };
    seeder.push(opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).build(), ACCEPT << 32);
    let (mut started, mut cpu_before) = (clock::now(), clock::process_cpu_time());
    let mut completions = Vec::new();
    while serve.stay || seeder.connections.is_empty() || seeder.open > 0 {
        match seeder.ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        completions.extend(seeder.ring.completion());
        if seeder.connections.is_empty() {
            (started, cpu_before) = (clock::now(), clock::process_cpu_time());
        }
        for completion in completions.drain(..) {
            seeder.handle(&completion)?;
        }
    }
    let cpu = clock::process_cpu_time().saturating_sub(cpu_before).as_secs_f64();
    print_cost("ring", seeder.bytes, cpu, clock::now().since(started).as_secs_f64());
    Ok(())
}

struct Seeder {
    ring: IoUring,
    buffers: Buffers,
    metainfo: Metainfo,
    content: memmap2::Mmap,
    connections: Vec<Option<Connection>>,
    open: usize,
    bytes: u64,
}

impl Seeder {
    fn push(&mut self, entry: squeue::Entry, user_data: u64) {
        let entry = entry.user_data(user_data);
        // SAFETY: what the entry points to stays until its last completion: a connection's message is not
        // touched while `sending` is set.
        while unsafe { self.ring.submission().push(&entry) }.is_err() {
            // What is wrong with an operation is told by its completion.
            let _ = self.ring.submit();
        }
    }

    fn handle(&mut self, completion: &cqueue::Entry) -> Outcome<()> {
        let index = completion.user_data() as u32 as usize;
        match completion.user_data() >> 32 {
            ACCEPT => self.accept(completion.result())?,
            RECEIVE => {
                let buffer = cqueue::buffer_select(completion.flags());
                let received = self.receive(index, completion.result(), buffer);
                if let Some(buffer) = buffer {
                    self.buffers.provide(buffer);
                }
                match received {
                    Ok(()) if !cqueue::more(completion.flags()) => self.arm(index),
                    Ok(()) => {}
                    Err(_) => self.close(index),
                }
            }
            _ => {
                let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
                connection.sending = false;
                if usize::try_from(completion.result()) == Ok(connection.message.len) {
                    self.bytes += connection.message.len as u64;
                    self.send(index);
                } else {
                    self.close(index);
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, result: i32) -> Outcome<()> {
        if result < 0 {
            return Err(std::io::Error::from_raw_os_error(-result).into());
        }
        // SAFETY: the kernel has just opened this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(result) };
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        self.connections.push(Some(Connection {
            socket,
            peer: Peer::new(&self.metainfo),
            control: Vec::new(),
            message: Message::new(),
            sending: false,
        }));
        self.open += 1;
        self.arm(self.connections.len() - 1);
        Ok(())
    }

    fn arm(&mut self, index: usize) {
        if let Some(connection) = &self.connections[index] {
            let entry = opcode::RecvMulti::new(Fd(connection.socket.as_raw_fd()), GROUP).build();
            self.push(entry, RECEIVE << 32 | index as u64);
        }
    }

    fn receive(&mut self, index: usize, result: i32, buffer: Option<u16>) -> Outcome<()> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        if result == -libc::ENOBUFS {
            return Ok(());
        }
        let (1.., Some(buffer)) = (result, buffer) else { return Err("closed".into()) };
        let bytes = self.buffers.bytes(buffer, result as usize);
        connection.peer.handle_bytes(bytes, &self.metainfo, &mut connection.control)?;
        self.send(index);
        Ok(())
    }

    fn send(&mut self, index: usize) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        if connection.sending || connection.control.is_empty() && connection.peer.requests.is_empty() {
            return;
        }
        let message = &mut connection.message;
        message.clear();
        std::mem::swap(&mut message.control, &mut connection.control);
        message.push(message.control.as_ptr(), message.control.len());
        let mut payload_len = 0;
        // The headers must not move once their addresses are taken.
        message.headers.reserve(connection.peer.requests.len());
        while payload_len < BATCH_LEN
            && let Some(span) = connection.peer.requests.pop_front()
        {
            payload_len += span.len as usize;
            message.headers.push(wire::piece_header(span));
            let header = &message.headers[message.headers.len() - 1];
            message.push(header.as_ptr(), PIECE_HEADER_LEN);
            let at = offset(&self.metainfo, span) as usize;
            message.push(self.content[at..at + span.len as usize].as_ptr(), span.len as usize);
        }
        message.header.msg_iov = message.vectors.as_mut_ptr();
        message.header.msg_iovlen = message.vectors.len() as _;
        let header: *const libc::msghdr = &raw const *message.header;
        let entry = opcode::SendMsg::new(Fd(connection.socket.as_raw_fd()), header)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL) as u32)
            .build();
        connection.sending = true;
        self.push(entry, SEND << 32 | index as u64);
    }

    /// Ends a connection. Its place is not used again, and a message still in flight stays.
    fn close(&mut self, index: usize) {
        if let Some(connection) = self.connections[index].take() {
            self.open -= 1;
            let _ = rustix::net::shutdown(&connection.socket, rustix::net::Shutdown::Both);
            if connection.sending {
                std::mem::forget(connection.message);
            }
        }
    }
}

impl Message {
    fn new() -> Self {
        Self {
            // SAFETY: all-zero bytes are a valid msghdr: null pointers and zero lengths.
            header: Box::new(unsafe { std::mem::zeroed() }),
            headers: Vec::new(),
            control: Vec::new(),
            vectors: Vec::new(),
            len: 0,
        }
    }

    fn clear(&mut self) {
        self.headers.clear();
        self.control.clear();
        self.vectors.clear();
        self.len = 0;
    }

    fn push(&mut self, address: *const u8, len: usize) {
        if len > 0 {
            self.vectors.push(libc::iovec { iov_base: address.cast_mut().cast(), iov_len: len });
            self.len += len;
        }
    }
}

/// The buffers that all receives share.
struct Buffers {
    ring: MmapMut,
    bytes: MmapMut,
    tail: u16,
}

impl Buffers {
    fn register(ring: &IoUring) -> Outcome<Self> {
        let mut entries = MmapMut::map_anon(usize::from(BUFFERS) * size_of::<BufRingEntry>())?;
        let bytes = MmapMut::map_anon(usize::from(BUFFERS) * BUFFER_LEN)?;
        // SAFETY: the mapping is page-aligned and large enough, and the ring's descriptor is closed before it.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(entries.as_mut_ptr() as u64, BUFFERS, GROUP, 0)
        }?;
        let mut buffers = Self { ring: entries, bytes, tail: 0 };
        for index in 0..BUFFERS {
            buffers.provide(index);
        }
        Ok(buffers)
    }

    fn provide(&mut self, index: u16) {
        let base = self.ring.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the position is below the number of entries; the kernel reads an entry once the tail has passed it.
        let entry = unsafe { &mut *base.add(usize::from(self.tail & (BUFFERS - 1))) };
        entry.set_addr(self.bytes[usize::from(index) * BUFFER_LEN..].as_ptr() as u64);
        entry.set_len(BUFFER_LEN as u32);
        entry.set_bid(index);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `base` is the start of the registered ring, whose tail the kernel only reads.
        let tail = unsafe { &*BufRingEntry::tail(base).cast::<AtomicU16>() };
        tail.store(self.tail, Ordering::Release);
    }

    fn bytes(&self, index: u16, len: usize) -> &[u8] {
        let start = usize::from(index) * BUFFER_LEN;
        &self.bytes[start..start + len.min(BUFFER_LEN)]
    }
}
