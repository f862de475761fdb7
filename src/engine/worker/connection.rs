//! One connection of a worker: its socket, its machine, and what of it is in the kernel's hands.

use super::super::piece_buffer::{BlockClaim, PieceBuffer};
use super::super::ring::{Ends, Op, OpKind, Ring, Tag};
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::super::zero_copy::ZeroCopyState;
use super::mail::Backlog;
use super::told::Told;
use super::waiting::Waits;
use super::{TimerOwner, Worker};
use crate::id::{AddressPrefix, ConnId, InfoHash, PeerId};
use crate::limits::{LINGER_LEN_MAX, LINGER_TIME, LINGER_TIME_AT_END, SEND_STALL_TIMEOUT};
use crate::meter::PeerCounters;
use crate::peer::{PeerMachine, Wish};
use crate::peer_list::Closed;
use crate::pipeline::BatchPolicy;
use crate::time::Instant;
use crate::units::BlockSpan;
use crate::wire::{Encryption, MseStream};
use socket2::SockAddr;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A connection. It is removed only when nothing of it is in flight.
#[derive(Debug)]
pub(super) struct Connection {
    pub socket: RawFd,
    pub ends: Ends,
    pub machine: PeerMachine,
    /// What stands between socket and machine while the connection may be or is encrypted.
    pub stream: Option<Box<MseStream>>,
    /// How the same peer is dialled once more when this connection, which we opened, ends before it has introduced itself.
    pub next_try: Option<Encryption>,
    /// Set once the handshake named one of our torrents.
    pub torrent: Option<InfoHash>,
    pub peer_id: PeerId,
    /// Exists from the handshake on; shared with the torrent's home core.
    pub counters: Option<Arc<PeerCounters>>,
    pub batch: BatchPolicy,
    pub zero_copy: ZeroCopyState,
    /// Where we are connecting to; the kernel reads it until that has succeeded or failed.
    pub connecting: Option<Box<SockAddr>>,
    /// The peer's listening address, when it was we who connected.
    pub dialled: Option<SocketAddr>,
    /// A multishot receive is armed.
    pub receiving: bool,
    /// Blocks are to come, so that receives take large buffers.
    pub bulk: bool,
    /// A send is in flight, since when.
    pub sending: Option<Instant>,
    /// That send has blocks.
    pub sending_blocks: bool,
    /// Its next block lies in a window that is not in memory: the fetch of that, which need not have begun.
    pub fetching: Option<Key>,
    /// It has met cold content, and may meet more of it further back in its queue.
    pub reads_ahead: bool,
    /// Its torrent's content is being opened.
    pub opening: bool,
    /// Waits in the ready queue.
    pub scheduled: bool,
    /// Waits for room in the worker's budget of copies; few control bytes go all the same.
    pub waits_for_copies: bool,
    /// Bytes that it has taken of what was encrypted for it; fewer again when it becomes slow.
    pub taken_encrypted: u64,
    /// Bytes of its queues beyond what is never too much, as they were counted last.
    pub queued_bytes: usize,
    /// When it was accepted, or last took a message whole.
    pub moved_at: Instant,
    /// Waits for a rate limit; control bytes go all the same.
    pub throttled: bool,
    /// Its place among those who wait for a rate limit, kept until it gets something.
    pub ticket: Option<u64>,
    /// Bytes already charged to the torrent's own limit and not sent.
    pub charged: u32,
    /// Its number among those that have not introduced themselves, while it is one.
    pub half_open: Option<u64>,
    /// The last tick in which it sent blocks; ticks count from one.
    pub active_in: u64,
    /// What its torrent's home was told of it.
    pub told: Told,
    /// What came from its peer and waits, while it does; nothing more is received then.
    pub backlog: Option<Box<Backlog>>,
    /// The tick in which its peer last spoke, and the words that it had said before that.
    pub spoke_in: u64,
    pub words_before: u64,
    /// The words that it has said by now.
    pub words_heard: u64,
    /// Buffers of pieces that blocks were asked of, by piece, with the number of those blocks.
    pub buffers: Vec<(Arc<PieceBuffer>, u32)>,
    /// The block that is arriving, and where it goes; nowhere when nobody wants it.
    pub arriving: Option<Arriving>,
    /// Blocks that came whole while somebody else was writing them.
    pub held: Vec<HeldBlock>,
    /// When the timer for what the peer owes is set.
    pub download_timer: Option<Instant>,
    /// A wish that waits for the download limit, or until it may be told.
    pub held_wish: Option<Wish>,
    /// Blocks charged to the download limit and not asked for.
    pub prepaid: u32,
    /// What the peer owes was told to be late.
    pub late: bool,
    /// It ends as soon as all has been said.
    pub parting: bool,
    pub closing: Option<Closing>,
    /// It has ended on our part, and so many bytes of the peer's are still read and thrown away until it ends on the peer's.
    pub lingers: Option<u64>,
    /// What its home is told of its end.
    pub why: Closed,
    /// What it waits for.
    pub waits: Waits,
}

/// A block on its way in.
#[derive(Debug)]
pub(super) struct Arriving {
    pub span: BlockSpan,
    pub asked: bool,
    pub claim: Option<BlockClaim>,
    /// The block's bytes, when somebody else has claimed it.
    pub aside: Option<Vec<u8>>,
}

/// A whole block that waits for somebody else to give up the claim on it.
#[derive(Debug)]
pub(super) struct HeldBlock {
    pub span: BlockSpan,
    pub buffer: Arc<PieceBuffer>,
    pub bytes: Vec<u8>,
}

/// How a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closing {
    /// What was sent may still arrive: the peer is read on for a while, since a reset would destroy what it has not read.
    Gracefully,
    /// At once: the peer is gone or at fault, and the kernel need not keep what it has not read.
    Abruptly,
}

impl Connection {
    pub fn new(now: Instant, socket: RawFd, ends: Ends, machine: PeerMachine) -> Self {
        Self {
            socket,
            ends,
            machine,
            stream: None,
            next_try: None,
            torrent: None,
            peer_id: PeerId([0; 20]),
            counters: None,
            batch: BatchPolicy::new(),
            zero_copy: ZeroCopyState::default(),
            connecting: None,
            dialled: None,
            receiving: false,
            bulk: false,
            sending: None,
            sending_blocks: false,
            fetching: None,
            opening: false,
            reads_ahead: false,
            spoke_in: 0,
            words_before: 0,
            words_heard: 0,
            scheduled: false,
            waits_for_copies: false,
            taken_encrypted: 0,
            queued_bytes: 0,
            moved_at: now,
            throttled: false,
            ticket: None,
            charged: 0,
            half_open: None,
            active_in: 0,
            told: Told::default(),
            backlog: None,
            buffers: Vec::new(),
            arriving: None,
            held: Vec::new(),
            download_timer: None,
            held_wish: None,
            prepaid: 0,
            late: false,
            parting: false,
            closing: None,
            lingers: None,
            why: Closed::Normal,
            waits: Waits::default(),
        }
    }

    /// Something has to happen before a block can be sent.
    pub fn holds_blocks_back(&self) -> bool {
        self.throttled || self.opening || self.fetching.is_some() || self.waits_for_copies
    }

    pub fn prefix(&self) -> AddressPrefix {
        AddressPrefix::of(self.ends.remote.ip())
    }

    fn is_quiet(&self) -> bool {
        !self.receiving && self.sending.is_none() && self.connecting.is_none()
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn conn_id(&self, key: Key) -> ConnId {
        ConnId { worker: self.index, slot: key.slot, generation: key.generation }
    }

    pub(super) fn tag(kind: OpKind, key: Key) -> Tag {
        Tag { kind, slot: key.slot, generation: key.generation }
    }

    pub(super) fn key_of(tag: Tag) -> Key {
        Key { slot: tag.slot, generation: tag.generation }
    }

    /// Takes a connected socket in; its first bytes will be a handshake.
    pub(super) fn open_connection(&mut self, socket: RawFd, ends: Ends, machine: PeerMachine) -> Key {
        let deadline = machine.poll_timeout();
        let connection = Connection::new(self.now, socket, ends, machine);
        let remote = ends.remote.ip();
        let key = self.connections.insert_with(|_| connection);
        let number = self.half_open.enter(remote, key);
        if let Some(connection) = self.connections.get_mut(key) {
            connection.half_open = Some(number);
        }
        self.statistics().connections().add(1);
        self.statistics().half_open().add(1);
        self.timers.set(deadline, TimerOwner::Connection(key));
        key
    }

    pub(super) fn arm_receive(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.receiving = true;
        let socket = connection.socket;
        let bulk = connection.bulk;
        self.ring.push(Op::Receive { socket, bulk }, Self::tag(OpKind::Receive, key));
    }

    /// The handshake is over, one way or the other.
    pub(super) fn leave_half_open(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(number) = connection.half_open.take() else { return };
        self.half_open.leave(connection.ends.remote.ip(), number);
        self.statistics().half_open().subtract(1);
    }

    pub(super) fn handle_connection_timeout(&mut self, key: Key) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        let stalled_at = connection.sending.map(|since| since + SEND_STALL_TIMEOUT);
        if stalled_at.is_some_and(|at| at <= self.now) {
            tracing::debug!(peer = %connection.ends.remote, "closing: it does not read what it asked for");
            return self.close(key, Closing::Abruptly);
        }
        let due = connection.machine.poll_timeout();
        if due > self.now {
            return self.timers.set(due.min(stalled_at.unwrap_or(due)), TimerOwner::Connection(key));
        }
        match connection.machine.handle_timeout(self.now) {
            Ok(()) => {
                let next =
                    connection.machine.poll_timeout().max(self.now + crate::time::Duration::from_millis(1));
                self.timers.set(next, TimerOwner::Connection(key));
                self.schedule(key);
            }
            Err(error) => {
                tracing::debug!(peer = %connection.ends.remote, %error, "closing");
                // Who says nothing to one handshake may answer another: it is called once more (`next_try`).
                self.close(key, Closing::Abruptly);
            }
        }
    }

    pub(super) fn close_connections(&mut self, which: impl Fn(&Connection) -> bool) {
        let keys: Vec<Key> =
            self.connections.keys().filter(|&key| self.connections.get(key).is_some_and(&which)).collect();
        for key in keys {
            self.close(key, Closing::Gracefully);
        }
    }

    /// Begins the end of a connection: its operations complete soon, then it is removed.
    pub(super) fn close(&mut self, key: Key, how: Closing) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        if connection.closing.is_some() {
            return;
        }
        connection.closing = Some(how);
        self.closing += 1;
        let (socket, torrent, joined) =
            (connection.socket, connection.torrent, connection.counters.is_some());
        if connection.connecting.is_some() {
            connection.next_try = None;
        }
        // Who is dialled once more has not failed yet.
        let dialled = connection.dialled.filter(|_| connection.next_try.is_none());
        let why = connection.why;
        let (peer, has_joined) = (connection.ends.remote, connection.counters.is_some());
        tracing::debug!(%peer, torrent = ?connection.torrent, has_joined, ?why, ?how, "left");
        // An unfinished block is free for others from now on.
        connection.arriving = None;
        connection.buffers = Vec::new();
        connection.held = Vec::new();
        connection.backlog = None;
        if connection.connecting.is_some() {
            let target = Self::tag(OpKind::Connect, key);
            self.ring.push(Op::Cancel { target }, Tag { kind: OpKind::Cancel, ..target });
        }
        self.end_socket(key, socket, how == Closing::Gracefully && joined);
        self.leave_half_open(key);
        self.give_back_prepaid(key);
        self.give_back_charged(key);
        self.close_account(key);
        if let Some(torrent) = torrent.filter(|_| joined)
            && let Some(shared) = self.torrents.get(&torrent)
        {
            shared.counts.connections.fetch_sub(1, Relaxed);
            let (home, conn) = (shared.home, self.conn_id(key));
            if let Some(keys) = self.members.get_mut(&torrent) {
                keys.remove(&key);
            }
            self.post(home, super::ToWorker::Left { torrent, conn, why });
        } else if let Some((torrent, address)) = torrent.zip(dialled) {
            self.tell_dial_failed(torrent, address, why == Closed::Ourselves);
        }
        self.remove_if_quiet(key);
    }

    /// Ends our part of a connection, and the peer's with it unless it may be heard out.
    fn end_socket(&mut self, key: Key, socket: RawFd, may_linger: bool) {
        let has_room = self.connections.len() < self.connections_max;
        let Some(connection) = self.connections.get_mut(key) else { return };
        if !(may_linger && has_room && connection.receiving) {
            return self.ring.shutdown(socket, Shutdown::Both);
        }
        connection.lingers = Some(LINGER_LEN_MAX);
        self.ring.shutdown(socket, Shutdown::Write);
        let patience = if self.stopping.is_some() { LINGER_TIME_AT_END } else { LINGER_TIME };
        self.timers.set(self.now + patience, TimerOwner::Linger(key));
    }

    /// Bytes of a peer that is only heard out, or the end of that.
    pub(super) fn hear_out(&mut self, key: Key, result: i32, more: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(left) = connection.lingers else { return self.remove_if_quiet(key) };
        let heard = u64::try_from(result).unwrap_or(0);
        let goes_on = result > 0 || result == -libc::ENOBUFS || result == -libc::ECANCELED;
        connection.lingers = left.checked_sub(heard).filter(|_| goes_on);
        if connection.lingers.is_some() && !more {
            self.arm_receive(key);
        } else if connection.lingers.is_none() && more {
            let socket = connection.socket;
            self.ring.shutdown(socket, Shutdown::Both);
        }
        self.remove_if_quiet(key);
    }

    /// A connection that was heard out long enough ends.
    pub(super) fn cut(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && connection.lingers.take().is_some()
        {
            let socket = connection.socket;
            self.ring.shutdown(socket, Shutdown::Both);
        }
    }

    /// The worker ends: nobody is heard out for long any more.
    pub(super) fn hurry_lingering(&mut self) {
        for key in self.connections.keys().collect::<Vec<_>>() {
            if self.connections.get(key).is_some_and(|connection| connection.lingers.is_some()) {
                self.timers.set(self.now + LINGER_TIME_AT_END, TimerOwner::Linger(key));
            }
        }
    }

    /// Removes a closing connection once the kernel has let go of its operations.
    pub(super) fn remove_if_quiet(&mut self, key: Key) {
        let Some(connection) = self.connections.get(key) else { return };
        let Some(how) = connection.closing else { return };
        if !connection.is_quiet() {
            return;
        }
        // Pages that zero-copy sends pin are only released when the peer has read them, or on a reset.
        let abrupt = how == Closing::Abruptly || connection.zero_copy.has_unnotified();
        let socket = connection.socket;
        self.prefixes.leave(connection.ends.remote.ip());
        let removed = self.connections.remove(key);
        self.closing -= 1;
        self.close_socket(socket, abrupt);
        self.statistics().connections().subtract(1);
        self.queued_bytes -= removed.as_ref().map_or(0, |connection| connection.queued_bytes);
        if let Some(connection) = removed
            && let Some((torrent, address)) = connection.torrent.zip(connection.dialled)
        {
            self.dialled.remove(&(torrent, address));
            if let Some(policy) = connection.next_try {
                self.connect_as(torrent, address, policy, None);
            }
        }
    }
}
