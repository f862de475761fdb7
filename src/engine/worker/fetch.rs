//! Cold content: windows that have to be read from a disk before a send may touch them.
//!
//! A worker never waits for a disk: the kernel's own threads do, one for each window in flight. Each device has its own line and
//! a bounded number of windows in flight, so that a slow or silent device delays only those who ask for what lies on it.
//!
//! The line holds the windows of the blocks that are sent next, first come, first served. A window stands in it once, however
//! many connections wait for it. Windows of later blocks are read ahead only while the line is empty. So a peer that asks for
//! blocks all over a file gets what others leave, and nothing is read that was cancelled while it waited. Deliberately
//! absent: reading what nobody has asked for.

use super::super::ring::{Completion, Op, OpKind, Ring};
use super::super::slab::{Key, Slab};
use super::super::store::{BlockStore, ColdRange};
use super::{SharedTorrent, TimerOwner, ToWorker, Worker};
use crate::id::InfoHash;
use crate::limits::{
    FETCH_RETRY_MAX, FETCH_RETRY_MIN, FETCHES_PER_DEVICE_MAX, READ_AHEAD_BATCHES, READ_AHEAD_WINDOWS_MAX,
};
use crate::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::RawFd;
use std::sync::Arc;

/// Bytes of a place in a queue that is looked at to read ahead.
const READ_AHEAD_PART_LEN: u32 = 256 * 1024;

/// Whose a window is.
pub(super) type Owner<S> = (Arc<SharedTorrent<S>>, Arc<S>);

/// A window that is being read, or waits for that.
#[derive(Debug)]
struct Fetch<T> {
    /// Whose it is; keeps the file open and mapped.
    of: T,
    range: ColdRange,
    /// Connections whose next block lies in it; none for one that is read ahead.
    waiters: Vec<Key>,
    /// How often it has failed for want of memory or threads.
    failures: u32,
}

/// What a worker has read from its disks.
#[derive(Debug)]
pub(super) struct Fetches<T> {
    all: Slab<Fetch<T>>,
    by_window: BTreeMap<(RawFd, u64), Key>,
    /// By device; those that have nothing to do are not there.
    lines: BTreeMap<u64, Line>,
    /// Those that are in no line until some time has passed.
    put_off: BTreeSet<Key>,
}

#[derive(Debug, Default)]
struct Line {
    in_flight: usize,
    waiting: VecDeque<Key>,
}

impl<T> Default for Fetches<T> {
    fn default() -> Self {
        Self {
            all: Slab::default(),
            by_window: BTreeMap::new(),
            lines: BTreeMap::new(),
            put_off: BTreeSet::new(),
        }
    }
}

impl<T> Fetches<T> {
    /// The fetch of this window that is under way or waits.
    fn find(&self, range: &ColdRange) -> Option<Key> {
        self.by_window.get(&(range.file, range.offset)).copied()
    }

    /// Whether a window would be read at once.
    fn has_room(&self, device: u64) -> bool {
        self.lines
            .get(&device)
            .is_none_or(|line| line.waiting.is_empty() && line.in_flight < FETCHES_PER_DEVICE_MAX)
    }

    /// Puts a window, which is not there yet, at the end of its device's line.
    fn add(&mut self, of: T, range: ColdRange) -> Key {
        let key = self.all.insert_with(|_| Fetch { of, range, waiters: Vec::new(), failures: 0 });
        self.by_window.insert((range.file, range.offset), key);
        self.lines.entry(range.device).or_default().waiting.push_back(key);
        key
    }

    fn wait_for(&mut self, key: Key, waiter: Key) {
        if let Some(fetch) = self.all.get_mut(key) {
            fetch.waiters.push(waiter);
        }
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whose windows are being read, or wait for that.
    pub fn owners(&self) -> impl Iterator<Item = &T> {
        self.all.values().map(|fetch| &fetch.of)
    }

    /// Takes the first in line, if it may begin now. It counts as in flight until [`Self::end`].
    fn begin(&mut self, device: u64) -> Option<Key> {
        let line = self.lines.get_mut(&device).filter(|line| line.in_flight < FETCHES_PER_DEVICE_MAX)?;
        let key = line.waiting.pop_front()?;
        line.in_flight += 1;
        Some(key)
    }

    /// Takes out what [`Self::begin`] had begun.
    fn end(&mut self, key: Key) -> Option<Fetch<T>> {
        let fetch = self.all.remove(key)?;
        self.by_window.remove(&(fetch.range.file, fetch.range.offset));
        if !self.put_off.remove(&key) {
            self.free_place(fetch.range.device);
        }
        Some(fetch)
    }

    fn free_place(&mut self, device: u64) {
        if let Some(line) = self.lines.get_mut(&device) {
            line.in_flight -= 1;
            if line.in_flight == 0 && line.waiting.is_empty() {
                self.lines.remove(&device);
            }
        }
    }

    /// Takes what [`Self::begin`] had begun out of its line for a time that doubles with each failure: the time.
    fn put_off(&mut self, key: Key) -> Option<Duration> {
        let fetch = self.all.get_mut(key)?;
        let pause = (FETCH_RETRY_MIN * (1 << fetch.failures.min(10))).min(FETCH_RETRY_MAX);
        fetch.failures += 1;
        let device = fetch.range.device;
        self.put_off.insert(key);
        self.free_place(device);
        Some(pause)
    }

    /// Puts it at the end of its line again; its device.
    fn take_up(&mut self, key: Key) -> Option<u64> {
        let device = self.all.get(key)?.range.device;
        self.put_off.remove(&key).then(|| {
            self.lines.entry(device).or_default().waiting.push_back(key);
            device
        })
    }
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Has a window read, unless that is under way; the connection sends no blocks until it is there.
    pub(super) fn fetch(
        &mut self,
        connection: Key,
        torrent: &Arc<SharedTorrent<S>>,
        content: &Arc<S>,
        range: ColdRange,
    ) {
        let found = self.fetches.find(&range);
        let key =
            found.unwrap_or_else(|| self.fetches.add((Arc::clone(torrent), Arc::clone(content)), range));
        self.forget_gone_waiters(key);
        self.fetches.wait_for(key, connection);
        if let Some(connection) = self.connections.get_mut(connection) {
            connection.fetching = Some(key);
            connection.reads_ahead = true;
            connection.waits.handle_fetch(self.now);
        }
        self.begin_fetches(range.device);
    }

    /// While a disk hangs, connections come and go that wait for it.
    fn forget_gone_waiters(&mut self, key: Key) {
        if let Some(fetch) = self.fetches.all.get_mut(key)
            && fetch.waiters.len() > self.connections.len()
        {
            fetch.waiters.retain(|&waiter| self.connections.get(waiter).is_some());
        }
    }

    /// Begins to read what lies further back in the queue of a connection that has met cold content, up to
    /// `batch_len` times a few, while its disks have nothing more urgent to do.
    pub(super) fn read_ahead(
        &mut self,
        key: Key,
        torrent: &Arc<SharedTorrent<S>>,
        content: &Arc<S>,
        batch_len: u64,
    ) {
        let Some(connection) = self.connections.get_mut(key).filter(|it| it.reads_ahead) else { return };
        let mut room = batch_len * READ_AHEAD_BATCHES;
        let mut absent = std::mem::take(&mut self.absent);
        for part in connection.machine.next_parts(READ_AHEAD_PART_LEN).take(READ_AHEAD_WINDOWS_MAX) {
            content.find_absent(self.now, part, &mut absent);
            room = room.saturating_sub(part.len.into());
            if room == 0 {
                break;
            }
        }
        // Warm again, until its next block is not.
        connection.reads_ahead = !absent.is_empty();
        for range in absent.drain(..) {
            if self.fetches.has_room(range.device) && self.fetches.find(&range).is_none() {
                self.fetches.add((Arc::clone(torrent), Arc::clone(content)), range);
                self.begin_fetches(range.device);
            }
        }
        self.absent = absent;
    }

    fn begin_fetches(&mut self, device: u64) {
        while let Some(key) = self.fetches.begin(device) {
            let Some(fetch) = self.fetches.all.get(key) else { continue };
            let wanted = |&waiter: &Key| {
                let connection = self.connections.get(waiter).filter(|it| it.closing.is_none());
                connection.is_some_and(|connection| connection.machine.next_block().is_some())
            };
            let is_unwanted = !fetch.waiters.is_empty() && !fetch.waiters.iter().any(wanted);
            if is_unwanted || self.stopping.is_some() {
                self.end_fetch(key);
                continue;
            }
            let ColdRange { file, offset, mapped, .. } = fetch.range;
            fetch.of.1.handle_fetching(&fetch.range);
            self.statistics().cold_fetches().add(1);
            self.statistics().cold_bytes().add(u64::from(mapped.len));
            self.ring.push(Op::Fetch { file, offset, mapped }, Self::tag(OpKind::Fetch, key));
        }
    }

    fn end_fetch(&mut self, key: Key) -> Option<Fetch<Owner<S>>> {
        let fetch = self.fetches.end(key)?;
        for &waiter in &fetch.waiters {
            if let Some(connection) = self.connections.get_mut(waiter) {
                connection.fetching = None;
                self.count_fetched(waiter);
                self.schedule(waiter);
            }
        }
        Some(fetch)
    }

    /// Tells this worker that it is known why a torrent's content cannot be read.
    pub(super) fn when_unreadable(&self, torrent: &Arc<SharedTorrent<S>>) -> Box<dyn FnOnce() + Send> {
        let (address, torrent) = (self.workers.get(usize::from(self.index)).cloned(), Arc::clone(torrent));
        Box::new(move || {
            if let Some(address) = address {
                address.answer(ToWorker::Unreadable(torrent));
            }
        })
    }

    pub(super) fn handle_unreadable(&mut self, torrent: InfoHash) {
        if self.torrents.get(&torrent).is_some_and(|shared| shared.content.fault().is_some()) {
            self.fail_torrent(torrent);
        }
    }

    pub(super) fn handle_fetched(&mut self, completion: &Completion) {
        let key = Self::key_of(completion.tag);
        let errno = (completion.result < 0).then_some(-completion.result);
        if matches!(errno, Some(libc::EAGAIN | libc::ENOMEM | libc::EINTR)) && self.stopping.is_none() {
            return self.put_off_fetch(key, errno);
        }
        let Some(fetch) = self.end_fetch(key) else { return };
        let (torrent, content) = &fetch.of;
        if content.handle_fetched(self.now, &fetch.range, errno) {
            let told = self.when_unreadable(torrent);
            content.handle_unreadable(Some(&fetch.range), errno.unwrap_or(libc::EIO), told);
        }
        self.begin_fetches(fetch.range.device);
    }

    /// The kernel is short of memory or threads: asked at once it would say so again.
    fn put_off_fetch(&mut self, key: Key, errno: Option<i32>) {
        let Some(pause) = self.fetches.put_off(key) else { return };
        self.timers.set(self.now + pause, TimerOwner::Fetch(key));
        let Some(fetch) = self.fetches.all.get(key) else { return };
        fetch.of.1.handle_fetched(self.now, &fetch.range, errno);
        self.begin_fetches(fetch.range.device);
    }

    pub(super) fn handle_fetch_timeout(&mut self, key: Key) {
        if let Some(device) = self.fetches.take_up(key) {
            self.begin_fetches(device);
        }
    }

    /// The worker ends: nobody waits for these any more.
    pub(super) fn give_up_put_off(&mut self) {
        for key in std::mem::take(&mut self.fetches.put_off) {
            self.fetches.put_off.insert(key);
            self.end_fetch(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ring::MappedRange;
    use super::*;
    use proptest::prelude::*;

    fn window(device: u64, number: u64) -> ColdRange {
        let mapped = MappedRange { address: std::ptr::null(), len: READ_AHEAD_PART_LEN };
        ColdRange { file: device as RawFd, device, index: 0, offset: number, mapped }
    }

    #[test]
    fn a_device_that_never_answers_delays_no_other() {
        let mut fetches = Fetches::default();
        for number in 0..1000 {
            fetches.add((), window(1, number));
        }
        let hung: Vec<Key> = std::iter::from_fn(|| fetches.begin(1)).collect();
        assert_eq!(hung.len(), FETCHES_PER_DEVICE_MAX);
        assert!(!fetches.has_room(1) && fetches.has_room(2));
        for number in 0..100 {
            let key = fetches.add((), window(2, number));
            assert_eq!(fetches.begin(2), Some(key));
            assert!(fetches.end(key).is_some());
        }
        assert_eq!(fetches.begin(1), None);
        fetches.end(hung[0]);
        assert!(fetches.begin(1).is_some() && fetches.begin(1).is_none());
    }

    proptest! {
        /// Against lists: begun in order, at most so many at once, each window once, nothing left behind.
        #[test]
        fn lines_are_first_come_first_served_and_bounded(
            steps in prop::collection::vec((0u8..3, 0u64..3, 0u64..80), 1..600),
        ) {
            let mut fetches = Fetches::default();
            let mut waiting: Vec<(u64, Key)> = Vec::new();
            let mut begun: Vec<(u64, Key)> = Vec::new();
            for (step, device, number) in steps {
                match step {
                    0 => {
                        let range = window(device, number);
                        let known = waiting.iter().chain(&begun).find(|(of, key)| {
                            *of == device && fetches.all.get(*key).is_some_and(|it| it.range.offset == number)
                        });
                        prop_assert_eq!(fetches.find(&range), known.map(|(_, key)| *key));
                        if known.is_none() {
                            waiting.push((device, fetches.add((), range)));
                        }
                    }
                    1 => {
                        let in_flight = begun.iter().filter(|(of, _)| *of == device).count();
                        let first = waiting.iter().position(|(of, _)| *of == device);
                        prop_assert_eq!(
                            fetches.has_room(device),
                            first.is_none() && in_flight < FETCHES_PER_DEVICE_MAX
                        );
                        let first = first.filter(|_| in_flight < FETCHES_PER_DEVICE_MAX);
                        let expected = first.map(|at| waiting.remove(at));
                        prop_assert_eq!(fetches.begin(device), expected.map(|(_, key)| key));
                        begun.extend(expected);
                    }
                    _ if !begun.is_empty() => {
                        let (_, key) = begun.swap_remove(number as usize % begun.len());
                        prop_assert!(fetches.end(key).is_some());
                    }
                    _ => {}
                }
            }
            for device in 0..3 {
                while let Some(key) = begun.pop().map(|(_, key)| key).or_else(|| fetches.begin(device)) {
                    prop_assert!(fetches.end(key).is_some());
                }
            }
            prop_assert!(fetches.all.is_empty() && fetches.by_window.is_empty() && fetches.lines.is_empty());
        }
    }
}
