//! One thread, one epoll, one mapped file: requests in, coalesced batches out, nothing else.

use crate::peer::{Peer, offset};
use crate::{BATCH_LEN, Outcome, Serve, map, print_cost};
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags};
use seedring::clock;
use seedring::metainfo::Metainfo;
use seedring::units::BlockSpan;
use seedring::wire::{self, PIECE_HEADER_LEN};
use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSlice;
use std::net::{TcpListener, TcpStream};

const RECEIVE_LEN: usize = 64 * 1024;
/// What epoll hands back for the listener.
const LISTENER: u64 = u64::MAX;

/// The system call that sends.
#[derive(Clone, Copy, Debug)]
pub enum Method {
    Writev,
    Sendmsg,
    Sendfile,
}

struct Seeder {
    method: Method,
    metainfo: Metainfo,
    file: File,
    content: memmap2::Mmap,
    epoll: std::os::fd::OwnedFd,
    connections: Vec<Option<Connection>>,
    /// Connections with something to send and, as far as is known, room to send it.
    runnable: VecDeque<usize>,
    received: Vec<u8>,
    bytes: u64,
}

struct Connection {
    socket: TcpStream,
    peer: Peer,
    /// The batch under way, and how much of it is sent.
    batch: Vec<([u8; PIECE_HEADER_LEN], BlockSpan)>,
    batch_sent: usize,
    is_runnable: bool,
    wants_write: bool,
}

/// Listens, prints the address, serves until the last connection has closed, prints the cost.
pub fn run(serve: &Serve, method: Method) -> Outcome<()> {
    let metainfo = Metainfo::parse(&std::fs::read(&serve.torrent)?)?;
    let file = File::open(&serve.data)?;
    let content = map(&file)?;
    if content.len() as u64 != metainfo.info().total_len() {
        return Err("the file has another length than the torrent says".into());
    }
    let listener = TcpListener::bind(serve.listen)?;
    listener.set_nonblocking(true)?;
    println!("listening on {}", listener.local_addr()?);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
    let mut seeder = Seeder {
        method,
        metainfo,
        file,
        content,
        epoll,
        connections: Vec::new(),
        runnable: VecDeque::new(),
        received: vec![0; RECEIVE_LEN],
        bytes: 0,
    };
    let (mut started, mut cpu_before) = (clock::now(), clock::process_cpu_time());
    let mut events: Vec<epoll::Event> = Vec::with_capacity(256);
    while serve.stay || seeder.connections.is_empty() || seeder.connections.iter().any(Option::is_some) {
        events.clear();
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        let timeout = if seeder.runnable.is_empty() { None } else { Some(&at_once) };
        match epoll::wait(&seeder.epoll, rustix::buffer::spare_capacity(&mut events), timeout) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if seeder.connections.is_empty() {
            (started, cpu_before) = (clock::now(), clock::process_cpu_time());
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => seeder.accept(&listener)?,
                index => seeder.handle_event(index as usize, event.flags),
            }
        }
        // One batch for each runnable connection in a turn.
        for _ in 0..seeder.runnable.len() {
            let Some(index) = seeder.runnable.pop_front() else { break };
            if let Some(connection) = seeder.connections[index].as_mut() {
                connection.is_runnable = false;
                let sent = seeder.send_batch(index);
                seeder.settle(index, sent);
            }
        }
    }
    let cpu = clock::process_cpu_time().saturating_sub(cpu_before).as_secs_f64();
    let seconds = clock::now().since(started).as_secs_f64();
    print_cost(&format!("{method:?}").to_lowercase(), seeder.bytes, cpu, seconds);
    Ok(())
}

impl Seeder {
    fn accept(&mut self, listener: &TcpListener) -> Outcome<()> {
        loop {
            let socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            socket.set_nonblocking(true)?;
            socket.set_nodelay(true)?;
            let data = epoll::EventData::new_u64(self.connections.len() as u64);
            epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
            self.connections.push(Some(Connection {
                socket,
                peer: Peer::new(&self.metainfo),
                batch: Vec::new(),
                batch_sent: 0,
                is_runnable: false,
                wants_write: false,
            }));
        }
    }

    fn handle_event(&mut self, index: usize, flags: epoll::EventFlags) {
        let mut result = Ok(true);
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
            result = self.receive(index).map(|()| true);
        }
        self.settle(index, result);
    }

    /// After an action: closes, waits for room (`Ok(false)`), or goes on with what there is to send.
    fn settle(&mut self, index: usize, result: Outcome<bool>) {
        let Some(connection) = self.connections[index].as_mut() else { return };
        let Ok(has_room) = result else {
            self.connections[index] = None;
            return;
        };
        let has_work = !connection.batch.is_empty() || !connection.peer.requests.is_empty();
        let wants_write = has_work && !has_room;
        if wants_write != connection.wants_write {
            connection.wants_write = wants_write;
            let mut interest = epoll::EventFlags::IN;
            interest.set(epoll::EventFlags::OUT, wants_write);
            let data = epoll::EventData::new_u64(index as u64);
            if epoll::modify(&self.epoll, &connection.socket, data, interest).is_err() {
                self.connections[index] = None;
                return;
            }
        }
        if has_work && has_room && !connection.is_runnable {
            connection.is_runnable = true;
            self.runnable.push_back(index);
        }
    }

    fn receive(&mut self, index: usize) -> Outcome<()> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(()) };
        let len = match rustix::net::recv(&connection.socket, &mut self.received[..], RecvFlags::empty()) {
            Ok((_, 0)) => return Err("closed".into()),
            Ok((len, _)) => len,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut out = Vec::new();
        connection.peer.handle_bytes(&self.received[..len], &self.metainfo, &mut out)?;
        if !out.is_empty() {
            // Some seventy bytes fit the empty buffer of a new socket.
            rustix::net::send(&connection.socket, &out, SendFlags::NOSIGNAL)?;
        }
        Ok(())
    }

    /// Sends one batch or the rest of one; false when the socket is full.
    fn send_batch(&mut self, index: usize) -> Outcome<bool> {
        let Some(connection) = self.connections[index].as_mut() else { return Ok(true) };
        if connection.batch.is_empty() {
            let mut len = 0;
            while len < BATCH_LEN
                && let Some(span) = connection.peer.requests.pop_front()
            {
                len += span.len as usize;
                connection.batch.push((wire::piece_header(span), span));
            }
            connection.batch_sent = 0;
        }
        let start = |span: &BlockSpan| offset(&self.metainfo, *span);
        let whole: usize =
            connection.batch.iter().map(|(_, span)| PIECE_HEADER_LEN + span.len as usize).sum();
        if let Method::Sendfile = self.method {
            return connection.send_by_file(&self.file, start, &mut self.bytes);
        }
        let mut slices = Vec::with_capacity(2 * connection.batch.len());
        let mut skip = connection.batch_sent;
        for (header, span) in &connection.batch {
            let begin = start(span) as usize;
            for part in [&header[..], &self.content[begin..begin + span.len as usize]] {
                let skipped = skip.min(part.len());
                skip -= skipped;
                if skipped < part.len() {
                    slices.push(IoSlice::new(&part[skipped..]));
                }
            }
        }
        let result = match self.method {
            Method::Sendmsg => {
                let mut none = SendAncillaryBuffer::default();
                rustix::net::sendmsg(&connection.socket, &slices, &mut none, SendFlags::NOSIGNAL)
            }
            _ => rustix::io::writev(&connection.socket, &slices),
        };
        let sent = match result {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        connection.batch_sent += sent;
        self.bytes += sent as u64;
        if connection.batch_sent < whole {
            return Ok(false);
        }
        connection.batch.clear();
        Ok(true)
    }
}

impl Connection {
    /// The batch, block by block: header with MSG_MORE, body from the page cache.
    fn send_by_file(
        &mut self,
        file: &File,
        start: impl Fn(&BlockSpan) -> u64,
        bytes: &mut u64,
    ) -> Outcome<bool> {
        while let Some((header, span)) = self.batch.first() {
            let result = if self.batch_sent < PIECE_HEADER_LEN {
                let flags = SendFlags::NOSIGNAL | SendFlags::MORE;
                rustix::net::send(&self.socket, &header[self.batch_sent..], flags)
            } else {
                let done = self.batch_sent - PIECE_HEADER_LEN;
                let mut offset = start(span) + done as u64;
                rustix::fs::sendfile(&self.socket, file, Some(&mut offset), span.len as usize - done)
            };
            let sent = match result {
                Ok(sent) => sent,
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            };
            self.batch_sent += sent;
            *bytes += sent as u64;
            if self.batch_sent == PIECE_HEADER_LEN + span.len as usize {
                self.batch.remove(0);
                self.batch_sent = 0;
            }
        }
        Ok(true)
    }
}
