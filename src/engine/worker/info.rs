//! Info dictionaries that peers ask for (BEP 9): read again by a thread that may wait for a disk, kept for a minute.
//!
//! A peer was promised a piece of a dictionary that is not in memory: its connection waits with that piece alone, and goes on with
//! everything else. A dictionary that cannot be read any more is rejected. All dictionaries in a worker's memory together have
//! few megabytes, whatever peers ask for.

use super::super::message::ToWorker;
use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::super::supply::Supply;
use super::Worker;
use crate::id::InfoHash;
use crate::limits::{CONTENT_IDLE_TICKS, INFO_HELD_LEN_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The dictionaries that a worker has had brought here, or waits for.
#[derive(Debug, Default)]
pub(super) struct Infos {
    entries: BTreeMap<InfoHash, Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Bytes; zero until it is here.
    len: usize,
    /// Connections that wait for it.
    waiting: Vec<Key>,
    /// The tick in which it was last asked for.
    used: u64,
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Has the dictionary brought that this connection's peer was promised a piece of.
    pub(super) fn ask_for_info(&mut self, key: Key) {
        let torrent = self.connections.get(key).and_then(|connection| connection.torrent);
        let Some(shared) = torrent.and_then(|torrent| self.torrents.get(&torrent)).map(Arc::clone) else {
            return;
        };
        let Supply::OnDemand(source) = &shared.content else { return };
        let info_hash = shared.facts.info_hash;
        let none = Entry { len: 0, waiting: Vec::new(), used: 0 };
        let entry = self.infos.entries.entry(info_hash).or_insert(none);
        entry.used = self.ticks;
        if entry.len == 0 && !entry.waiting.is_empty() {
            if !entry.waiting.contains(&key) {
                if entry.waiting.len() > self.connections.len() {
                    // Connections come and go while a disk hangs.
                    entry.waiting.retain(|&waiter| self.connections.get(waiter).is_some());
                }
                entry.waiting.push(key);
            }
            return;
        }
        entry.len = 0;
        entry.waiting.push(key);
        let Some(address) = self.workers.get(usize::from(self.index)).cloned() else { return };
        // One answer for each torrent whose dictionary is being read: a bounded number.
        let source = Arc::clone(source);
        source.load_info(Box::new(move |bytes| address.answer(ToWorker::Info(shared, bytes))));
    }

    pub(super) fn handle_info(&mut self, info_hash: InfoHash, bytes: Option<Arc<[u8]>>) {
        let Some(mut entry) = self.infos.entries.remove(&info_hash) else { return };
        let waiting = std::mem::take(&mut entry.waiting);
        let info = self.torrents.get(&info_hash).and_then(|shared| shared.facts.info.as_ref());
        if let Some((info, bytes)) = info.zip(bytes) {
            entry.len = bytes.len();
            info.hold(bytes);
            self.infos.entries.insert(info_hash, entry);
            self.bound_infos(info_hash);
        }
        for key in waiting {
            let Some(connection) = self.connections.get_mut(key) else { continue };
            if connection.machine.wants_info() {
                connection.machine.reject_metadata();
            }
            self.schedule(key);
        }
    }

    /// Those that were asked for longest ago go while all together are too long; `newest` stays.
    fn bound_infos(&mut self, newest: InfoHash) {
        let mut len: usize = self.infos.entries.values().map(|entry| entry.len).sum();
        while len > INFO_HELD_LEN_MAX {
            let others =
                self.infos.entries.iter().filter(|(other, entry)| entry.len > 0 && **other != newest);
            let Some((&oldest, entry)) = others.min_by_key(|(_, entry)| entry.used) else { return };
            len -= entry.len;
            self.forget_info(oldest);
        }
    }

    /// Once a second: what nobody has asked for in a minute goes.
    pub(super) fn tend_infos(&mut self) {
        let before = self.ticks.saturating_sub(CONTENT_IDLE_TICKS);
        let idle = self.infos.entries.iter().filter(|(_, entry)| entry.len > 0 && entry.used < before);
        let idle: Vec<InfoHash> = idle.map(|(&info_hash, _)| info_hash).collect();
        for info_hash in idle {
            self.forget_info(info_hash);
        }
    }

    pub(super) fn forget_info(&mut self, info_hash: InfoHash) {
        if self.infos.entries.remove(&info_hash).is_some()
            && let Some(info) = self.torrents.get(&info_hash).and_then(|shared| shared.facts.info.as_ref())
        {
            info.release();
        }
    }
}
