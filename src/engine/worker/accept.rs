//! How connections come to be: accepted within bounds, or dialled.
#![expect(unsafe_code, reason = "promises that the address of a connect stays")]

use super::super::ring::{AddressPointer, Completion, Ends, Op, OpKind, Ring, Tag};
use super::super::store::BlockStore;
use super::connection::Closing;
use super::{EngineEvent, TimerOwner, ToWorker, Worker};
use crate::id::InfoHash;
use crate::limits::{
    DIALLED_PER_TORRENT_MAX, HALF_OPEN_PER_PREFIX_MAX, HALF_OPEN_PER_WORKER_MAX, SHORTAGE_RETRY_INTERVAL,
    SHORTAGE_TOLD_INTERVAL,
};
use crate::peer::PeerMachine;
use crate::wire::Encryption;
use socket2::SockAddr;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;

/// A listening socket. Closed when the worker ends, as soon as the kernel has let go of its accept: until then the port is
/// taken, even when this process is gone.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Option<OwnedFd>,
    /// The kernel has an accept of it.
    accepting: bool,
    /// There was no descriptor, or no memory, for a newcomer. It is tried again when one of our own connections has
    /// gone, and now and then, since others may have given something back.
    waits_for_room: bool,
}

impl Listener {
    pub fn new(socket: OwnedFd) -> Self {
        Self { socket: Some(socket), accepting: false, waits_for_room: false }
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn accept_tag(listener: usize) -> Tag {
        Tag { kind: OpKind::Accept, slot: listener as u32, generation: 0 }
    }

    pub(super) fn listen(&mut self, listener: usize) {
        if self.stopping.is_some() {
            return;
        }
        let Some(listening) = self.listeners.get_mut(listener) else { return };
        let Some(socket) = listening.socket.as_ref().map(AsRawFd::as_raw_fd) else { return };
        (listening.accepting, listening.waits_for_room) = (true, false);
        self.ring.push(Op::Accept { listener: socket }, Self::accept_tag(listener));
    }

    /// Goes on to accept with a listener that waits for room.
    pub(super) fn try_to_listen(&mut self, listener: usize) {
        if self.listeners.get(listener).is_some_and(|listener| listener.waits_for_room) {
            self.listen(listener);
        }
    }

    /// Closes a socket. Newcomers that waited for its descriptor are accepted at once: the line of those who come and go
    /// in an attack would hold up an honest one behind them for as many waits as it is long.
    pub(super) fn close_socket(&mut self, socket: RawFd, abrupt: bool) {
        self.ring.close(socket, abrupt);
        (0..self.listeners.len()).for_each(|listener| self.try_to_listen(listener));
    }

    /// Whether a listener is open.
    pub(super) fn is_listening(&self) -> bool {
        self.listeners.iter().any(|listener| listener.socket.is_some())
    }

    /// Takes no connection any more.
    pub(super) fn stop_listening(&mut self) {
        for listener in 0..self.listeners.len() {
            let target = Self::accept_tag(listener);
            if self.listeners.get(listener).is_some_and(|listener| listener.accepting) {
                self.ring.push(Op::Cancel { target }, Tag { kind: OpKind::Cancel, ..target });
            } else if let Some(listener) = self.listeners.get_mut(listener) {
                listener.socket = None;
            }
        }
    }

    pub(super) fn handle_accept(&mut self, completion: &Completion) {
        let listener = completion.tag.slot as usize;
        if !completion.more
            && let Some(listener) = self.listeners.get_mut(listener)
        {
            listener.accepting = false;
            if self.stopping.is_some() {
                listener.socket = None;
            }
        }
        if completion.result >= 0 {
            self.accept(completion.result);
            if !completion.more {
                self.listen(listener);
            }
            return;
        }
        if completion.more || self.stopping.is_some() {
            return;
        }
        match -completion.result {
            libc::ECONNABORTED | libc::EINTR | libc::EAGAIN => self.listen(listener),
            errno => {
                let error = io::Error::from_raw_os_error(errno);
                let cure = match errno {
                    libc::EMFILE => "; raise the limit of open files (ulimit -n)",
                    libc::ENFILE => "; raise the system's limit of open files (sysctl fs.file-max)",
                    _ => "",
                };
                if self.shortage_told.is_none_or(|told| self.now.since(told) >= SHORTAGE_TOLD_INTERVAL) {
                    self.shortage_told = Some(self.now);
                    let reason = format!("some new connections have to wait: {error}{cure}");
                    self.tell(EngineEvent::AcceptFailed { reason });
                }
                if let Some(listening) = self.listeners.get_mut(listener) {
                    listening.waits_for_room = true;
                }
                self.timers.set(self.now + SHORTAGE_RETRY_INTERVAL, TimerOwner::Accept(listener));
            }
        }
    }

    fn accept(&mut self, socket: RawFd) {
        let Some(ends) = self.ring.addresses(socket) else { return self.close_socket(socket, true) };
        if let Err(why) = self.make_room_for(&ends) {
            tracing::debug!(peer = %ends.remote, why, "refused");
            self.statistics().refused().add(1);
            return self.close_socket(socket, true);
        }
        tracing::debug!(peer = %ends.remote, "accepted");
        self.statistics().accepted().add(1);
        let key = self.open_connection(socket, ends, PeerMachine::incoming(self.now));
        let stream = self.incoming_stream();
        if let Some(connection) = self.connections.get_mut(key) {
            connection.stream = stream;
        }
        self.arm_receive(key);
    }

    /// Whether another connection fits, or why not. A newcomer beyond a bound replaces one that has not introduced
    /// itself, of the site that has most of those, so that silent connections cannot lock honest peers out.
    fn make_room_for(&mut self, ends: &Ends) -> Result<(), &'static str> {
        if self.stopping.is_some() {
            return Err("the session ends");
        }
        let is_full = self.connections.len() - self.closing >= self.connections_max;
        let first_to_go = self.half_open.first_to_go();
        if is_full && first_to_go.is_none() {
            return Err("there are as many connections as may be");
        }
        let of_site = self.half_open.of_site(ends.remote.ip());
        if of_site >= HALF_OPEN_PER_PREFIX_MAX && !ends.remote.ip().to_canonical().is_loopback() {
            return Err("too many from its address prefix have not introduced themselves");
        }
        if !self.prefixes.enter(ends.remote.ip()) {
            return Err("its address prefix has as many connections as it may have");
        }
        if (is_full || self.half_open_count() >= self.half_open_max())
            && let Some(first_to_go) = first_to_go
        {
            self.close(first_to_go, Closing::Abruptly);
        }
        Ok(())
    }

    /// Those without a handshake never have more than half of what there is.
    fn half_open_max(&self) -> usize {
        HALF_OPEN_PER_WORKER_MAX.min(self.connections_max.div_ceil(2))
    }

    fn half_open_count(&self) -> usize {
        self.statistics().half_open().value() as usize
    }

    /// Opens a connection to a peer, unless there is one already or there are enough; its home then hears that it
    /// failed.
    pub(super) fn connect(&mut self, info_hash: InfoHash, remote: SocketAddr) {
        let policy = self.encryption.policy;
        self.connect_as(info_hash, remote, policy, policy.second_try());
    }

    /// The same as `policy` dials, and once more as `next_try` does when the peer ends that before it has introduced
    /// itself.
    pub(super) fn connect_as(
        &mut self,
        info_hash: InfoHash,
        remote: SocketAddr,
        policy: Encryption,
        next_try: Option<Encryption>,
    ) {
        let is_dialled = self.try_connect(info_hash, remote, policy, next_try);
        tracing::debug!(peer = %remote, torrent = %info_hash, is_dialled, "dialling");
        if !is_dialled {
            self.tell_dial_failed(info_hash, remote, false);
        }
    }

    pub(super) fn tell_dial_failed(&mut self, torrent: InfoHash, address: SocketAddr, ourselves: bool) {
        if let Some(home) = self.torrents.get(&torrent).map(|shared| shared.home) {
            self.post(home, ToWorker::DialFailed { torrent, address, ourselves });
        }
    }

    fn try_connect(
        &mut self,
        info_hash: InfoHash,
        remote: SocketAddr,
        policy: Encryption,
        next_try: Option<Encryption>,
    ) -> bool {
        let Some(shared) = self.torrents.get(&info_hash) else { return false };
        let enough = shared.counts.connections.load(Relaxed) >= DIALLED_PER_TORRENT_MAX
            || self.connections.len() >= self.connections_max
            || self.half_open_count() >= self.half_open_max().div_ceil(2);
        if enough
            || self.stopping.is_some()
            || remote.port() == 0
            || self.dialled.contains(&(info_hash, remote))
        {
            return false;
        }
        let machine = PeerMachine::outgoing(self.now, info_hash, shared.peer_id);
        let local = self.bind.filter(|bind| bind.is_ipv4() == remote.is_ipv4());
        if self.bind.is_some() && local.is_none() {
            return false;
        }
        if !self.prefixes.enter(remote.ip()) {
            return false;
        }
        let Ok(socket) = self.ring.open_socket(remote, local) else {
            self.prefixes.leave(remote.ip());
            return false;
        };
        let unbound = SocketAddr::new(remote.ip(), 0);
        let key = self.open_connection(socket, Ends { local: unbound, remote }, machine);
        let Some(connection) = self.connections.get_mut(key) else { return false };
        let target = connection.connecting.insert(Box::new(SockAddr::from(remote)));
        // SAFETY: the address is boxed and stays with the connection, which is not removed before the connect
        // has completed.
        let address = unsafe { AddressPointer::new(target.as_ptr().cast(), target.len()) };
        connection.torrent = Some(info_hash);
        connection.dialled = Some(remote);
        connection.next_try = next_try;
        self.encrypt_outgoing(key, info_hash, policy);
        self.dialled.insert((info_hash, remote));
        self.ring.push(Op::Connect { socket, address }, Self::tag(OpKind::Connect, key));
        true
    }

    pub(super) fn handle_connect(&mut self, completion: &Completion) {
        let key = Self::key_of(completion.tag);
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.connecting = None;
        let socket = connection.socket;
        if connection.closing.is_some() {
            return self.remove_if_quiet(key);
        }
        match self.ring.addresses(socket).filter(|_| completion.result == 0) {
            Some(ends) => connection.ends.local = ends.local,
            None => {
                let error = io::Error::from_raw_os_error(-completion.result.min(0));
                tracing::debug!(peer = %connection.ends.remote, %error, "not reached");
                connection.next_try = None;
                return self.close(key, Closing::Abruptly);
            }
        }
        self.arm_receive(key);
        self.schedule(key);
    }
}
