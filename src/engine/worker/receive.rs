//! Bytes from a peer: into its machine, and what its machine says becomes deeds.

use super::super::message::EngineEvent;
use super::super::ring::{Completion, Ring};
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::connection::Closing;
use super::{ToWorker, Worker};
use crate::id::InfoHash;
use crate::limits::ALLOWED_FAST_GRANTS_MAX;
use crate::meter::PeerCounters;
use crate::peer::{Identity, OurExtension, PeerError, PeerEvent};
use crate::peer_list::Closed;
use crate::torrent::Newcomer;
use crate::wire::Handshake;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn handle_receive(&mut self, completion: Completion) {
        let key = Self::key_of(completion.tag);
        let mut rest = std::mem::take(&mut self.scratch);
        rest.clear();
        let mut event = Ok(None);
        if let Some(buffer) = completion.buffer {
            let mut bytes = self.ring.received(&buffer, completion.result.max(0) as usize);
            // Payload goes from here to where it belongs. What else there is are a few messages of some bytes, and copying
            // those frees the shared buffer before anything can go wrong.
            if let Some(connection) = self.connections.get_mut(key)
                && connection.is_downloading()
                && connection.stream.is_none()
                && connection.closing.is_none()
                && connection.backlog.is_none()
            {
                event = connection.take_blocks(self.now, &mut bytes, &mut self.arrived);
            }
            rest.extend_from_slice(bytes);
            self.ring.recycle(buffer);
        }
        self.handle_received(key, completion.result, completion.more, event, &mut rest);
        self.scratch = rest;
    }

    fn handle_received(
        &mut self,
        key: Key,
        result: i32,
        more: bool,
        event: Result<Option<PeerEvent>, PeerError>,
        bytes: &mut [u8],
    ) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.receiving = more;
        if connection.closing.is_some() {
            return self.hear_out(key, result, more);
        }
        match result {
            1.. => self.handle_raw_bytes(key, event, bytes),
            0 => {
                tracing::debug!(peer = %connection.ends.remote, "the peer ends the connection");
                return self.end(key, Closing::Gracefully);
            }
            // Without a buffer left, or ended by us to wait or to go on with larger buffers.
            errno if errno == -libc::ENOBUFS || errno == -libc::ECANCELED => {}
            errno => {
                let error = std::io::Error::from_raw_os_error(-errno);
                tracing::debug!(peer = %connection.ends.remote, %error, "the connection breaks");
                return self.end(key, Closing::Abruptly);
            }
        }
        let connection = self.connections.get(key).filter(|connection| connection.closing.is_none());
        if !more && connection.is_some_and(|connection| connection.backlog.is_none()) {
            self.arm_receive(key);
        }
    }

    /// The peer has ended the connection: it is closed when what came before has been acted on.
    fn end(&mut self, key: Key, how: Closing) {
        match self.connections.get_mut(key).and_then(|connection| connection.backlog.as_mut()) {
            Some(backlog) => backlog.ended = Some(how),
            None => self.close(key, how),
        }
    }

    /// `event` is what the bytes before these have led to.
    pub(super) fn handle_bytes(
        &mut self,
        key: Key,
        mut event: Result<Option<PeerEvent>, PeerError>,
        mut bytes: &[u8],
    ) {
        if let Some(backlog) = self.connections.get_mut(key).and_then(|it| it.backlog.as_mut()) {
            return backlog.bytes.extend_from_slice(bytes);
        }
        self.found.clear();
        loop {
            self.tell_arrived(key);
            if let Ok(next) = &event
                && let Some(home) = self.home_behind(key, next.as_ref())
            {
                self.wait_for_home(key, home, event.ok().flatten(), bytes);
                break;
            }
            match event {
                Ok(Some(event)) => self.handle_peer_event(key, event),
                Ok(None) if bytes.is_empty() => break,
                Ok(None) => {}
                Err(error) => return self.close_at_fault(key, &error),
            }
            let Some(connection) = self.connections.get_mut(key) else { return };
            if connection.closing.is_some() {
                return;
            }
            event = connection.take_blocks(self.now, &mut bytes, &mut self.arrived);
            if let Ok(None) = event {
                self.tell_arrived(key);
                break;
            }
        }
        if let Some(connection) = self.connections.get(key)
            && let Some(counters) = &connection.counters
        {
            counters.set_reported_pieces(connection.machine.piece_count());
            counters.set_upload_only(connection.machine.upload_only());
            counters.set_heard_at(self.now);
            counters.follow_requests(self.now, connection.machine.queued_blocks() > 0);
            counters.set_refused(connection.machine.refused());
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.waits.follow(self.now, connection.machine.queued_blocks());
        }
        self.tell_haves(key);
        self.settle_download(key);
        self.schedule(key);
        self.listen_less(key);
    }

    pub(super) fn close_at_fault(&mut self, key: Key, error: &dyn std::error::Error) {
        if let Some(connection) = self.connections.get(key) {
            tracing::debug!(peer = %connection.ends.remote, client = connection.machine.client(), %error, "closing");
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.why = Closed::ProtocolError;
        }
        self.statistics().peer_faults().add(1);
        self.close(key, Closing::Abruptly);
    }

    fn handle_peer_event(&mut self, key: Key, event: PeerEvent) {
        match event {
            PeerEvent::Handshake(handshake) => self.handle_handshake(key, handshake),
            PeerEvent::Interested(_) => self.tell_interest(key),
            PeerEvent::Complete { arrived } => self.handle_complete_peer(key, arrived),
            PeerEvent::ChokedByThem(choked) => self.handle_choked(key, choked),
            PeerEvent::Stock => self.tell_stock(key),
            PeerEvent::Have(piece) => self.found.push(piece),
            PeerEvent::Lost(piece) => self.tell_lost(key, piece),
            PeerEvent::Extensions => self.tell_addresses(key),
            PeerEvent::Extended(OurExtension::Pex) => self.tell_exchange(key),
            PeerEvent::Block { .. } => {}
        }
    }

    fn handle_handshake(&mut self, key: Key, handshake: Handshake) {
        // It understands what we speak.
        if let Some(connection) = self.connections.get_mut(key) {
            connection.next_try = None;
        }
        // A torrent we do not serve, or ourselves: close, and say nothing that tells one from the other.
        let Some(shared) = self.torrents.get(&handshake.info_hash).map(Arc::clone) else {
            let peer = self.connections.get(key).map(|connection| connection.ends.remote);
            tracing::debug!(?peer, torrent = %handshake.info_hash, "asks for a torrent that is not served");
            return self.close(key, Closing::Gracefully);
        };
        let dialled_for = self.connections.get(key).and_then(|connection| connection.torrent);
        let is_other = dialled_for.is_some_and(|torrent| torrent != handshake.info_hash);
        if handshake.peer_id == shared.peer_id
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.why = Closed::Ourselves;
        }
        if handshake.peer_id == shared.peer_id || is_other || self.stopping.is_some() {
            return self.close(key, Closing::Gracefully);
        }
        self.leave_half_open(key);
        let may_have_fast_pieces = self.grant_fast_pieces(key, handshake.info_hash);
        let Some(connection) = self.connections.get_mut(key) else { return };
        let counters = Arc::new(PeerCounters::new());
        let identity =
            Identity { peer_id: shared.peer_id, port: self.port, remote: connection.ends.remote.ip() };
        if !may_have_fast_pieces {
            connection.machine.withhold_fast_pieces();
        }
        connection.machine.accept(Arc::clone(&shared.facts), identity);
        connection.torrent = Some(handshake.info_hash);
        connection.peer_id = handshake.peer_id;
        connection.counters = Some(Arc::clone(&counters));
        let (remote, dialled) = (connection.ends.remote, connection.dialled.is_some());
        let client = connection.machine.client();
        tracing::debug!(peer = %remote, torrent = %handshake.info_hash, client, dialled, "joined");
        let newcomer = Newcomer {
            remote: connection.ends.remote.ip().to_canonical(),
            peer_id: handshake.peer_id,
            dialled: connection.dialled,
        };
        self.open_account(key, &shared);
        shared.counts.connections.fetch_add(1, Relaxed);
        let (torrent, conn) = (handshake.info_hash, self.conn_id(key));
        self.members.entry(torrent).or_default().insert(key);
        self.post(shared.home, ToWorker::Joined { torrent, conn, newcomer, counters });
    }

    /// Whether a newcomer may be granted allowed-fast pieces: once in a while for each prefix.
    fn grant_fast_pieces(&mut self, key: Key, torrent: InfoHash) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let grant = (torrent, connection.prefix());
        if self.fast_grants.len() >= ALLOWED_FAST_GRANTS_MAX || self.fast_grants.contains_key(&grant) {
            return false;
        }
        self.fast_grants.insert(grant, self.now);
        true
    }

    fn handle_complete_peer(&mut self, key: Key, arrived: bool) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(torrent) = connection.torrent else { return };
        let peer_id = connection.peer_id;
        // Who loses pieces and gets them again has got the last one once.
        if !std::mem::replace(&mut connection.told.complete, true) && !arrived {
            self.tell(EngineEvent::PeerComplete { torrent, peer_id });
        }
        self.tell_stock(key);
        // Two seeds have nothing to say to each other. One that has just become one may still be reading
        // our answers; it goes by itself, or by its silence.
        if arrived && self.torrents.get(&torrent).is_some_and(|shared| shared.facts.wants_nothing()) {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.why = Closed::Useless;
            }
            self.close(key, Closing::Gracefully);
        }
    }
}
