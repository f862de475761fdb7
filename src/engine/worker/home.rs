//! The torrents at home on this core: their machines, fed with facts from all cores.

use super::super::ring::Ring;
use super::super::store::BlockStore;
use super::{LoadSample, TimerOwner, ToWorker, Worker};
use crate::choker::Load;
use crate::id::{AddressPrefix, ConnId, InfoHash};
use crate::meter::PeerCounters;
use crate::time::{Duration, Instant};
use crate::torrent::{TorrentAction, TorrentMachine, TorrentParameters};
use crate::units::ByteRate;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A torrent's machine and the counters of its connections, wherever these live.
#[derive(Debug)]
pub(super) struct Home {
    machine: TorrentMachine,
    counters: BTreeMap<ConnId, Arc<PeerCounters>>,
    /// The timer that is set, if one is.
    timer: Option<Instant>,
}

impl Home {
    pub fn new(parameters: TorrentParameters) -> Self {
        Self { machine: TorrentMachine::new(parameters), counters: BTreeMap::new(), timer: None }
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    pub(super) fn home_joined(
        &mut self,
        torrent: InfoHash,
        conn: ConnId,
        prefix: AddressPrefix,
        counters: Arc<PeerCounters>,
    ) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            home.counters.insert(conn, counters);
            home.machine.handle_joined(self.now, conn, prefix);
            self.drain_home(torrent);
        }
    }

    pub(super) fn home_interest(&mut self, torrent: InfoHash, conn: ConnId, interested: bool) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            home.machine.handle_interest(self.now, conn, interested);
            self.drain_home(torrent);
        }
    }

    pub(super) fn home_left(&mut self, torrent: InfoHash, conn: ConnId) {
        if let Some(home) = self.homes.get_mut(&torrent) {
            home.counters.remove(&conn);
            home.machine.handle_left(self.now, conn);
            self.drain_home(torrent);
        }
    }

    pub(super) fn handle_home_timeout(&mut self, torrent: InfoHash) {
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        home.timer = None;
        if home.machine.poll_timeout().is_some_and(|due| due <= self.now) {
            let Home { machine, counters, .. } = home;
            let sample = |conn| counters.get(&conn).map(|counters| counters.sample()).unwrap_or_default();
            machine.handle_timeout(self.now, sample, &mut self.rng);
        }
        self.drain_home(torrent);
    }

    /// Carries out what the machine wants, and sets its timer.
    fn drain_home(&mut self, torrent: InfoHash) {
        while let Some(action) = self.homes.get_mut(&torrent).and_then(|home| home.machine.poll_action()) {
            let (conn, choke) = match action {
                TorrentAction::Unchoke(conn) => (conn, false),
                TorrentAction::Choke(conn) => (conn, true),
            };
            self.post(conn.worker, ToWorker::Choke { conn, choke });
        }
        let Some(home) = self.homes.get_mut(&torrent) else { return };
        let Some(due) = home.machine.poll_timeout() else { return };
        if home.timer.is_none_or(|timer| due < timer) {
            home.timer = Some(due);
            self.timers.set(due, TimerOwner::Torrent(torrent));
        }
    }

    /// Tells the machines at home how busy line and core are. Only torrents with peers care.
    pub(super) fn tell_load(&mut self, elapsed: Duration, before: LoadSample, now: LoadSample) {
        let seconds = elapsed.as_secs_f64().max(f64::MIN_POSITIVE);
        let load = Load {
            upload_rate: ByteRate((now.payload.saturating_sub(before.payload) as f64 / seconds) as u64),
            upload_limit: self.gate.limit(),
            worker_busy: (now.busy.saturating_sub(before.busy).as_secs_f64() / seconds) as f32,
        };
        let with_peers: Vec<InfoHash> = self
            .homes
            .iter_mut()
            .filter(|(_, home)| !home.counters.is_empty())
            .map(|(info_hash, home)| {
                home.machine.handle_load(self.now, load);
                *info_hash
            })
            .collect();
        for torrent in with_peers {
            self.drain_home(torrent);
        }
    }

    pub(super) fn choke(&mut self, conn: ConnId, choke: bool) {
        let key = super::Key { slot: conn.slot, generation: conn.generation };
        if let Some(connection) = self.connections.get_mut(key) {
            connection.machine.handle_choke(choke);
            self.schedule(key);
        }
    }
}
