//! Content that is open while peers ask for it: a worker's part.
//!
//! When a peer asks for the first block of a torrent, a thread that may wait for a disk opens the content. Meanwhile the
//! connection says what else it has to say. A worker lets content go that nobody has asked for in a minute. It also lets go
//! what has been idle longest when more files would be open than its share. Messages in flight hold their content
//! themselves, so letting go is always safe.

use super::super::message::{SharedTorrent, ToWorker};
use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::super::supply::{ContentSource, NotOpened, Supply};
use super::Worker;
use crate::id::InfoHash;
use crate::limits::CONTENT_IDLE_TICKS;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The contents that a worker holds open.
#[derive(Debug)]
pub(super) struct OnDemand<S> {
    /// By torrent and part.
    entries: BTreeMap<(InfoHash, u32), Entry<S>>,
    /// Files of all of them, those that are being opened included.
    files: usize,
    files_max: usize,
}

#[derive(Debug)]
struct Entry<S> {
    content: Option<Arc<S>>,
    files: usize,
    /// Connections that wait for it.
    waiting: Vec<Key>,
    /// The tick in which it was last asked for.
    used: u64,
    /// Too much was open: it is asked for again in the next tick.
    is_put_off: bool,
}

impl<S> OnDemand<S> {
    pub fn new(files_max: usize) -> Self {
        Self { entries: BTreeMap::new(), files: 0, files_max }
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Files held open, or being opened.
    pub fn files(&self) -> usize {
        self.files
    }

    fn remove(&mut self, info_hash: InfoHash) {
        let parts = self.entries.range((info_hash, 0)..=(info_hash, u32::MAX));
        let parts: Vec<(InfoHash, u32)> = parts.map(|(part, _)| *part).collect();
        for part in parts {
            self.files -= self.entries.remove(&part).map_or(0, |entry| entry.files);
        }
    }

    /// Lets go of what was last asked for before this tick; what somebody waits for stays.
    fn release_before(&mut self, tick: u64) {
        let files = &mut self.files;
        self.entries.retain(|_, entry| {
            let stays = entry.content.is_none() || entry.used >= tick;
            if !stays {
                *files -= entry.files;
            }
            stays
        });
    }

    /// Makes room for so many files more: the longer half of the idle goes first, then all that nobody asks for in this
    /// very tick.
    fn make_room(&mut self, files: usize, now: u64) {
        while self.files + files > self.files_max && self.give_way(now) {}
    }

    /// Lets the longer half of the idle go, or all that nobody asks for in this very tick when they are equally old; false
    /// when that was all.
    fn give_way(&mut self, now: u64) -> bool {
        let open = self.entries.values().filter(|entry| entry.content.is_some());
        let mut used: Vec<u64> = open.map(|entry| entry.used).collect();
        if used.is_empty() {
            return false;
        }
        let middle = used.len() / 2;
        let (_, &mut median, _) = used.select_nth_unstable(middle);
        let before = self.files;
        self.release_before(median);
        if self.files == before {
            self.release_before(now + 1);
            return false;
        }
        true
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// A part of the torrent's content; `None` while it is being opened for this connection, which is then scheduled again.
    pub(super) fn content_for(
        &mut self,
        key: Key,
        torrent: &Arc<SharedTorrent<S>>,
        part: u32,
    ) -> Option<Arc<S>> {
        let source = match &torrent.content {
            Supply::Open(content) => return Some(Arc::clone(content)),
            Supply::OnDemand(source) => source,
        };
        let info_hash = torrent.facts.info_hash;
        if let Some(entry) = self.on_demand.entries.get_mut(&(info_hash, part)) {
            entry.used = self.ticks;
            if entry.content.is_some() {
                return entry.content.clone();
            }
            if entry.waiting.len() > 2 * self.connections.len() {
                // Most of them have gone meanwhile, as they may while a device does not answer.
                entry.waiting.retain(|&waiter| self.connections.get(waiter).is_some());
            }
            entry.waiting.push(key);
        } else {
            let files = source.file_count(part);
            self.on_demand.make_room(files, self.ticks);
            let (waiting, used) = (vec![key], self.ticks);
            let entry = Entry { content: None, files, waiting, used, is_put_off: false };
            self.on_demand.files += files;
            self.on_demand.entries.insert((info_hash, part), entry);
            self.open(torrent, part, Arc::clone(source));
        }
        if let Some(connection) = self.connections.get_mut(key) {
            connection.opening = true;
        }
        None
    }

    fn open(&self, torrent: &Arc<SharedTorrent<S>>, part: u32, source: Arc<dyn ContentSource<S>>) {
        let Some(address) = self.workers.get(usize::from(self.index)) else { return };
        let (address, torrent) = (address.clone(), Arc::clone(torrent));
        // One answer for each part that is being opened: a bounded number.
        source.open(part, Box::new(move |opened| address.answer(ToWorker::Opened(torrent, part, opened))));
    }

    pub(super) fn handle_opened(
        &mut self,
        info_hash: InfoHash,
        part: u32,
        opened: Result<Arc<S>, NotOpened>,
    ) {
        let Some(entry) = self.on_demand.entries.get_mut(&(info_hash, part)) else { return };
        let waiting = match opened {
            Err(NotOpened::Later) => {
                entry.is_put_off = true;
                // Others hold what is missing, perhaps for ever: what is here may have to do.
                self.on_demand.give_way(self.ticks);
                return;
            }
            Err(NotOpened::Failed) => return self.fail_torrent(info_hash),
            Ok(content) => {
                entry.content = Some(content);
                std::mem::take(&mut entry.waiting)
            }
        };
        for key in waiting {
            if let Some(connection) = self.connections.get_mut(key) {
                connection.opening = false;
            }
            self.schedule(key);
        }
    }

    /// The torrent is gone; so are its connections.
    pub(super) fn forget_content(&mut self, info_hash: InfoHash) {
        self.on_demand.remove(info_hash);
    }

    /// Once a second: what is idle goes, what was put off is asked for again.
    pub(super) fn tend_content(&mut self) {
        if self.on_demand.is_empty() {
            return;
        }
        self.on_demand.release_before(self.ticks.saturating_sub(CONTENT_IDLE_TICKS));
        let put_off = self.on_demand.entries.iter_mut().filter(|(_, entry)| entry.is_put_off);
        let again: Vec<(InfoHash, u32)> = put_off
            .map(|(part, entry)| {
                entry.is_put_off = false;
                *part
            })
            .collect();
        for (info_hash, part) in again {
            let Some(torrent) = self.torrents.get(&info_hash) else { continue };
            if let Supply::OnDemand(source) = &torrent.content {
                self.open(torrent, part, Arc::clone(source));
            }
        }
    }
}
