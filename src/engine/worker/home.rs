//! The torrents at home on this core: their machines, fed with facts from all cores, and the pieces in flight.

use super::super::message::{EngineEvent, Fact, Order};
use super::super::piece_buffer::PieceBuffer;
use super::super::ring::Ring;
use super::super::store::BlockStore;
use super::{LoadSample, SharedTorrent, TimerOwner, ToWorker, Worker};
use crate::choker::Load;
use crate::id::{ConnId, InfoHash};
use crate::meter::PeerCounters;
use crate::peer_list::{Closed, PeerListSettings, Source};
use crate::time::{Duration, Instant};
use crate::torrent::{Newcomer, PieceResult, TorrentAction, TorrentMachine};
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// A torrent's machine, the counters of its connections, wherever these live, and its pieces in flight.
#[derive(Debug)]
pub(super) struct Home {
    machine: TorrentMachine,
    counters: BTreeMap<ConnId, Arc<PeerCounters>>,
    buffers: BTreeMap<PieceIndex, Arc<PieceBuffer>>,
    /// Buffers of pieces that are done, for the next ones.
    spare: Vec<Arc<PieceBuffer>>,
    /// The timer that is set, if one is.
    timer: Option<Instant>,
    /// What the machine wants is being carried out: what comes of that waits for its turn.
    draining: bool,
}

impl Home {
    fn buffer(&mut self, piece: PieceIndex, len: u32) -> Arc<PieceBuffer> {
        let spare = &mut self.spare;
        let buffer = self.buffers.entry(piece).or_insert_with(|| {
            let reused = spare.pop().and_then(|buffer| buffer.reuse(piece, len));
            reused.unwrap_or_else(|| Arc::new(PieceBuffer::new(piece, len)))
        });
        Arc::clone(buffer)
    }

    fn retire(&mut self, piece: PieceIndex) {
        // As many as were ever in flight, which the picker bounds.
        self.spare.extend(self.buffers.remove(&piece));
    }
}

/// Where we are certainly met ourselves. Other addresses of this machine are known once we have met us there.
fn own_addresses(bind: Option<IpAddr>, port: u16) -> Vec<SocketAddr> {
    let ips = match bind {
        Some(ip) if !ip.is_unspecified() => vec![ip],
        _ => vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()],
    };
    ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect()
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn settle_home(&mut self, torrent: &SharedTorrent<S>) {
        let mut machine = TorrentMachine::new(torrent.parameters);
        machine.keep_members(PeerListSettings {
            own: own_addresses(self.bind, self.port),
            own_port: Some(self.port).filter(|&port| port != 0),
            private: torrent.facts.private,
            ..PeerListSettings::new(torrent.peer_id)
        });
        if let Some(download) = &torrent.download {
            machine.begin_download(&download.plan, &mut self.rng);
        }
        if torrent.facts.hides_stock() {
            machine.begin_super_seed(torrent.facts.piece_count());
        }
        let home = Home {
            machine,
            counters: BTreeMap::new(),
            buffers: BTreeMap::new(),
            spare: Vec::new(),
            timer: None,
            draining: false,
        };
        self.homes.insert(torrent.facts.info_hash, home);
    }

    pub(super) fn home_joined(
        &mut self,
        torrent: InfoHash,
        conn: ConnId,
        newcomer: Newcomer,
        counters: Arc<PeerCounters>,
    ) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            if home.machine.handle_newcomer(self.now, conn, newcomer, &mut self.rng) {
                home.counters.insert(conn, counters);
                self.peopled.insert(torrent);
            }
            self.drain_home(torrent);
        }
    }

    pub(super) fn home_candidates(&mut self, torrent: InfoHash, addresses: &[SocketAddr], source: Source) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        for &address in addresses {
            home.machine.handle_candidate(self.now, address, source, &mut self.rng);
        }
        self.drain_home(torrent);
    }

    pub(super) fn home_dial_failed(&mut self, torrent: InfoHash, address: SocketAddr, ourselves: bool) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            home.machine.handle_dial_failed(self.now, address, ourselves, &mut self.rng);
            self.drain_home(torrent);
        }
    }

    pub(super) fn home_left(&mut self, torrent: InfoHash, conn: ConnId, why: Closed) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            let last = home.counters.remove(&conn).map(|counters| counters.sample()).unwrap_or_default();
            if home.counters.is_empty() {
                self.peopled.remove(&torrent);
            }
            home.machine.handle_closed(self.now, conn, why, last, &mut self.rng);
            self.drain_home(torrent);
        }
    }

    pub(super) fn home_fact(&mut self, torrent: InfoHash, conn: ConnId, fact: Fact) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        // What is still on its way from a connection that was closed as a duplicate says nothing any more.
        if !home.counters.contains_key(&conn) {
            return;
        }
        let (now, rng, machine) = (self.now, &mut self.rng, &mut home.machine);
        match fact {
            Fact::Interest(interested) => machine.handle_interest(now, conn, interested),
            Fact::Stock(stock) => machine.handle_stock(now, conn, stock.as_stock(), rng),
            Fact::Have(pieces) => machine.handle_haves(now, conn, &pieces, rng),
            Fact::Lost(piece) => machine.handle_lost(now, conn, piece, rng),
            Fact::Wish(wish) => machine.handle_wish(now, conn, wish, rng),
            Fact::Blocks(spans) => {
                for span in spans {
                    let is_done = home.buffers.get(&span.piece).is_some_and(|buffer| buffer.is_done(span));
                    if is_done {
                        machine.handle_block(now, conn, span, rng);
                    } else {
                        machine.handle_returned(now, conn, &[span], rng);
                    }
                }
            }
            Fact::Returned(spans) => machine.handle_returned(now, conn, &spans, rng),
            Fact::Late(late) => machine.handle_late(now, conn, late, rng),
            Fact::Served(piece) => machine.handle_served(now, conn, piece),
            Fact::Exchange(payload) => machine.handle_exchange(now, conn, &payload, rng),
            Fact::Snubbed(snubbed) => machine.handle_snubbed(conn, snubbed),
            Fact::Addresses { remote, port, ours, exchanges } => {
                machine.handle_told_address(now, conn, remote, port, ours, exchanges);
            }
        }
        self.drain_home(torrent);
    }

    pub(super) fn home_piece(&mut self, torrent: InfoHash, piece: PieceIndex, result: PieceResult) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        if let PieceResult::Verified { .. } = result {
            home.retire(piece);
            if let Some(shared) = self.torrents.get(&torrent) {
                // First of all: whoever hears of the piece finds that it may be served.
                shared.facts.have.insert(piece);
            }
        }
        home.machine.handle_piece(self.now, piece, result, &mut self.rng);
        self.drain_home(torrent);
    }

    pub(super) fn handle_home_timeout(&mut self, torrent: InfoHash) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        if home.timer.is_none_or(|timer| timer > self.now) {
            // One that was set before an earlier one took its place.
            return;
        }
        home.timer = None;
        if home.machine.poll_timeout().is_some_and(|due| due <= self.now) {
            let Home { machine, counters, .. } = home;
            let sample = |conn| counters.get(&conn).map(|counters| counters.sample()).unwrap_or_default();
            machine.handle_timeout(self.now, sample, &mut self.rng);
        }
        self.drain_home(torrent);
    }

    /// Carries out what the machine wants, and sets its timer. What connections on this core answer to that comes here
    /// again and only adds to the queue, so that the stack stays flat however many there are.
    fn drain_home(&mut self, torrent: InfoHash) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        if std::mem::replace(&mut home.draining, true) {
            return;
        }
        while let Some(action) = self.homes.get_mut(&torrent).and_then(|home| home.machine.poll_action()) {
            self.carry_out(torrent, action);
        }
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        home.draining = false;
        let Some(due) = home.machine.poll_timeout() else { return };
        if home.timer.is_none_or(|timer| due < timer) {
            home.timer = Some(due);
            self.timers.set(due, TimerOwner::Torrent(torrent));
        }
    }

    fn carry_out(&mut self, torrent: InfoHash, action: TorrentAction) {
        match action {
            TorrentAction::Unchoke(conn) => self.order(conn, Order::Choke(false)),
            TorrentAction::Choke(conn) => self.order(conn, Order::Choke(true)),
            TorrentAction::Interest(conn, interested) => self.order(conn, Order::Interest(interested)),
            TorrentAction::Ask(conn, spans) => self.ask(torrent, conn, spans),
            TorrentAction::Cancel(conn, span) => self.order(conn, Order::Cancel(span)),
            TorrentAction::Close(conn) => self.order(conn, Order::Close),
            TorrentAction::CloseFlooder(conn) => self.order(conn, Order::CloseFlooder),
            TorrentAction::Reveal(conn, piece) => self.order(conn, Order::Reveal(piece)),
            TorrentAction::RevealAll => {
                tracing::debug!(%torrent, "super-seeding is over: the peers have every piece between them");
                let Some(shared) = self.torrents.get(&torrent).map(Arc::clone) else { return };
                // First of all: who joins from now on is told everything at once.
                shared.facts.hides_stock.store(false, Relaxed);
                self.post_to_all(|| ToWorker::RevealAll(Arc::clone(&shared)));
            }
            TorrentAction::Exchange(conn, payload) => self.order(conn, Order::Exchange(payload)),
            TorrentAction::Verify { piece, want_block_hashes } => {
                self.verify(torrent, piece, want_block_hashes)
            }
            TorrentAction::Forget(piece) => {
                let Some(home) = self.homes.get_mut(&torrent) else { return };
                let len = home.buffers.get(&piece).map_or(0, |buffer| buffer.len() as u64);
                home.retire(piece);
                if let Some(shared) = self.torrents.get(&torrent) {
                    shared.counts.wasted.fetch_add(len, Relaxed);
                }
            }
            TorrentAction::Have(piece) => {
                let Some(shared) = self.torrents.get(&torrent).map(Arc::clone) else { return };
                self.post_to_all(|| ToWorker::Have(Arc::clone(&shared), piece));
            }
            TorrentAction::Dial(address) => {
                // Spread over the workers, as the kernel spreads those who come.
                let worker = usize::from(address.port()) % self.workers.len();
                self.post(worker as u16, ToWorker::Connect(torrent, address));
            }
            TorrentAction::Banned { ip, .. } => self.tell(EngineEvent::Banned { torrent, ip }),
            TorrentAction::StorageRefused(reason) => {
                self.tell(EngineEvent::StorageRefused { torrent, reason });
            }
            TorrentAction::StorageRecovered => self.tell(EngineEvent::StorageRecovered { torrent }),
            TorrentAction::Satisfied => {
                if let Some(home) = self.homes.get_mut(&torrent) {
                    (home.buffers, home.spare) = Default::default();
                }
                let Some(shared) = self.torrents.get(&torrent).map(Arc::clone) else { return };
                shared.facts.satisfied.store(true, Relaxed);
                self.post_to_all(|| ToWorker::Satisfied(Arc::clone(&shared)));
                self.tell(EngineEvent::Satisfied { torrent });
            }
        }
    }

    fn order(&mut self, conn: ConnId, order: Order) {
        self.post(conn.worker, ToWorker::Order { conn, order });
    }

    fn post_to_all(&mut self, message: impl Fn() -> ToWorker<S>) {
        for worker in 0..self.workers.len() {
            self.post(worker as u16, message());
        }
    }

    fn ask(&mut self, torrent: InfoHash, conn: ConnId, spans: Vec<BlockSpan>) {
        let Some(shared) = self.torrents.get(&torrent) else { return };
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        let into = |span: BlockSpan| (span, home.buffer(span.piece, shared.facts.piece_len(span.piece)));
        let asked = spans.into_iter().map(into).collect();
        self.order(conn, Order::Ask(asked));
    }

    fn verify(&mut self, torrent: InfoHash, piece: PieceIndex, want_block_hashes: bool) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        let Some(buffer) = home.buffers.get(&piece).map(Arc::clone) else { return };
        let Some(shared) = self.torrents.get(&torrent) else { return };
        let (Some(download), Some(address)) = (&shared.download, self.workers.get(usize::from(self.index)))
        else {
            return;
        };
        let (address, torrent) = (address.clone(), Arc::clone(shared));
        let reply = move |result| address.answer(ToWorker::Piece { torrent, piece, result });
        download.sink.submit(piece, buffer, want_block_hashes, Box::new(reply));
    }

    /// Tells the machines at home how busy line and core are. Only torrents with peers care.
    pub(super) fn tell_load(&mut self, elapsed: Duration, before: LoadSample, now: LoadSample) {
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let load = Load {
            upload_rate: ByteRate((now.payload.saturating_sub(before.payload) as f64 / seconds) as u64),
            upload_limit: self.gate.limit(),
            worker_busy: (now.busy.saturating_sub(before.busy).as_secs_f64() / seconds) as f32,
        };
        let with_peers: Vec<InfoHash> = self.peopled.iter().copied().collect();
        for torrent in with_peers {
            if let Some(home) = self.homes.get_mut(&torrent) {
                home.machine.handle_load(self.now, load);
            }
            self.drain_home(torrent);
        }
    }
}
