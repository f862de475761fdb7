//! The threads that look after files: have they changed under us, and what is to be remembered of them?
//!
//! They are threads of their own because a file system may hang, and neither payload nor trackers shall wait for it, nor the
//! torrents of another device, nor the end of the process: each device has one (`limits::DEVICE_LANES_MAX` of them at
//! most). Torrents with peers are looked at every two seconds, all others a few at a time.
//!
//! Of a torrent that is downloaded the resume file is written at each look at which there is something new, so that
//! a kill costs two seconds of pieces at most, and those are found again by a look at the files that were written to since.
//! About every half minute content and resume file are brought to the disk, so that a crash of the machine costs no
//! more than that; what is noted in between goes to a second record, so that the one on the disk is never lost. When
//! bringing content to the disk fails, what has come since the last time may be lost although memory still shows it
//! (the kernel tells once, and the next fsync(2) succeeds): the torrent then fails, and only what had been brought to
//! the disk before counts as here, until the next run has read the rest from there.

use super::content::ServedContent;
use crate::bitfield::{Bitfield, SharedBitfield};
use crate::clock;
use crate::engine::SharedTorrent;
use crate::id::InfoHash;
use crate::limits::{DEVICE_LANES_MAX, STORAGE_END_PATIENCE};
use crate::metainfo::Metainfo;
use crate::storage::{
    Content, FileSelection, Fingerprint, Resume, StorageError, remove_unused_parts, resume_path,
};
use crate::time::{Duration, Instant};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

const LOOK_INTERVAL: Duration = Duration::from_secs(2);
/// Torrents without peers looked at each time.
const IDLE_TORRENTS_PER_LOOK: usize = 50;
/// Looks between two times that downloads are brought to the disk.
const LOOKS_PER_SYNC: u32 = 15;
/// Bytes of new pieces that are brought to the disk at the end of a run; of more the page cache takes care, and the
/// next run looks at what it finds.
const SYNC_AT_END_LEN_MAX: u64 = 256 * 1024 * 1024;
/// Looks between two rounds of writing resume files of torrents that have uploaded something.
const LOOKS_PER_SAVE: u32 = 30;
/// Time after which a look at a torrent's files, which is a few system calls for each, is taken for one that hangs, once
/// the thread is to end.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);

/// A torrent to look after.
pub struct Watched {
    /// The torrent.
    pub shared: Arc<SharedTorrent<Content>>,
    /// Its files.
    pub content: ServedContent,
    /// Whether its resume file says all this already.
    pub is_noted: bool,
    /// Its files when they were checked.
    pub fingerprint: Fingerprint,
    /// The pieces that were right then.
    pub verified: Bitfield,
    /// Those of them that had been brought to the disk before.
    pub durable: Bitfield,
    /// The pieces that are right now: those, and what has been stored since. The engine, which may be gone by then, need
    /// not have heard of the last ones.
    pub stored: Arc<SharedBitfield>,
    /// Bytes uploaded in earlier runs.
    pub uploaded_before: u64,
    /// Bytes downloaded in earlier runs.
    pub downloaded_before: u64,
    /// The files that are wanted, of a torrent that is being downloaded.
    pub selection: Option<FileSelection>,
    /// The same torrent, for its hashes, of one that is being downloaded.
    pub metainfo: Option<Arc<Metainfo>>,
}

enum Message {
    Watch(Box<Watched>),
    Forget { info_hash: InfoHash },
    Finished { info_hash: InfoHash },
    LookAgain,
}

/// The threads, one for each device. Dropping it writes what is to be remembered and waits for that, unless a file system hangs.
pub struct Watcher {
    found: Arc<FoundOut>,
    state_dir: Option<PathBuf>,
    lanes: Mutex<Lanes>,
}

#[derive(Default)]
struct Lanes {
    by_device: BTreeMap<u64, Lane>,
    /// In which lane a torrent is looked after.
    of_torrent: BTreeMap<InfoHash, u64>,
}

/// The thread that looks after the torrents of one device.
struct Lane {
    shared: Arc<Shared>,
    messages: Sender<Message>,
    thread: JoinHandle<()>,
    /// Disconnected when the thread ends.
    end: Receiver<()>,
}

/// What the threads have found out, and the session has not asked for yet.
#[derive(Default)]
struct FoundOut {
    has_faults: AtomicBool,
    /// Torrents that lack pieces and of which files have come.
    changed: Mutex<BTreeSet<InfoHash>>,
    /// Downloads that have ended and been looked at.
    finished: Mutex<BTreeSet<InfoHash>>,
}

/// What a thread shows others.
#[derive(Default)]
struct Shared {
    found: Arc<FoundOut>,
    busy_with: Mutex<BusyWith>,
}

/// What a thread is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BusyWith {
    /// The torrent whose files it is at.
    torrent: Option<InfoHash>,
    /// Time after which that is taken for hung.
    patience: Duration,
    /// Counts such times, so that two of them can be told apart.
    count: u64,
}

impl Shared {
    /// Does something with a torrent's files, which may hang.
    fn at<T>(&self, torrent: InfoHash, patience: Duration, work: impl FnOnce() -> T) -> T {
        self.show(Some(torrent), patience);
        let done = work();
        self.show(None, patience);
        done
    }

    fn show(&self, torrent: Option<InfoHash>, patience: Duration) {
        let mut busy_with = self.busy_with.lock().unwrap_or_else(PoisonError::into_inner);
        *busy_with = BusyWith { torrent, patience, count: busy_with.count + 1 };
    }

    fn busy_with(&self) -> BusyWith {
        *self.busy_with.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watcher {
    /// Looks after files from the first torrent on; resume files go to `state_dir`. Without a thread to be had, nobody
    /// looks, and the user is told.
    pub fn start(state_dir: Option<PathBuf>) -> Self {
        Self { found: Arc::default(), state_dir, lanes: Mutex::default() }
    }

    /// Whether content was found faulty since this was asked last.
    pub fn has_found_faults(&self) -> bool {
        self.found.has_faults.swap(false, AcqRel)
    }

    /// Torrents that are served without some of their pieces, and of which files have come that were missing; each again and
    /// again as long as it is so.
    pub fn take_changed(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut *self.found.changed.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Downloads that have ended ([`Self::finished`]) and in which nothing was found to be wrong, since this was asked last.
    pub fn take_finished(&self) -> BTreeSet<InfoHash> {
        std::mem::take(&mut *self.found.finished.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Looks at the files of all torrents now, not a few at a time.
    pub fn look_again(&self) {
        let lanes = self.lock();
        // Nobody listens only when the thread has panicked.
        lanes.by_device.values().for_each(|lane| _ = lane.messages.send(Message::LookAgain));
    }

    /// Looks after a torrent from now on.
    pub fn watch(&self, torrent: Watched) {
        let (device, info_hash) = (torrent.content.device(), torrent.shared.facts.info_hash);
        let mut lanes = self.lock();
        // Above the bound devices share.
        let lane = if lanes.by_device.len() < DEVICE_LANES_MAX || lanes.by_device.contains_key(&device) {
            device
        } else {
            let index = (device % DEVICE_LANES_MAX as u64) as usize;
            lanes.by_device.keys().nth(index).copied().unwrap_or(device)
        };
        if let Entry::Vacant(vacant) = lanes.by_device.entry(lane) {
            match Lane::start(self.state_dir.clone(), Arc::clone(&self.found)) {
                Ok(started) => _ = vacant.insert(started),
                Err(error) => {
                    return tracing::warn!(%error, "files are not watched: no thread could be started");
                }
            }
        }
        lanes.of_torrent.insert(info_hash, lane);
        lanes.send(info_hash, Message::Watch(Box::new(torrent)));
    }

    /// Writes a torrent's resume file and looks after it no longer.
    pub fn forget(&self, info_hash: InfoHash) {
        let mut lanes = self.lock();
        lanes.send(info_hash, Message::Forget { info_hash });
        lanes.of_torrent.remove(&info_hash);
    }

    /// All that was wanted of a torrent has been stored: it is brought to the disk and from then on watched as content
    /// that nobody writes.
    pub fn finished(&self, info_hash: InfoHash) {
        self.lock().send(info_hash, Message::Finished { info_hash });
    }

    /// Ends the threads when they have written what is to be remembered. One that hangs at a torrent's files is left
    /// behind, with nothing written any more of what lies on that device, and the torrent is answered.
    pub fn leave(self) -> Vec<InfoHash> {
        self.end()
    }

    fn end(&self) -> Vec<InfoHash> {
        let lanes = std::mem::take(&mut self.lock().by_device);
        // All of them first, so that none waits for another.
        let ending: Vec<_> = lanes.into_values().map(Lane::end).collect();
        ending.into_iter().filter_map(Ending::wait).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.end();
    }
}

impl Lanes {
    fn send(&self, torrent: InfoHash, message: Message) {
        let lane = self.of_torrent.get(&torrent).and_then(|lane| self.by_device.get(lane));
        if let Some(lane) = lane {
            // Nobody listens only when the thread has panicked.
            let _ = lane.messages.send(message);
        }
    }
}

impl Lane {
    fn start(state_dir: Option<PathBuf>, found: Arc<FoundOut>) -> std::io::Result<Self> {
        let (messages, receiver) = unbounded();
        let (ended, end) = bounded(0);
        let shared = Arc::new(Shared { found, busy_with: Mutex::default() });
        let shown = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("watcher".to_owned()).spawn(move || {
            Watch { shared: shown, state_dir, torrents: BTreeMap::new(), next: None, looks: 0 }
                .run(&receiver);
            drop::<Sender<()>>(ended);
        })?;
        Ok(Self { shared, messages, thread, end })
    }

    /// Nothing more is asked of it.
    fn end(self) -> Ending {
        let Self { shared, messages, thread, end } = self;
        drop(messages);
        let seen = shared.busy_with();
        Ending { shared, thread, end, seen, seen_at: clock::now() }
    }
}

/// A lane of which nothing more is asked.
struct Ending {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    end: Receiver<()>,
    /// What it was at, and since when it is known to be at that.
    seen: BusyWith,
    seen_at: Instant,
}

impl Ending {
    /// Waits for it unless it hangs; then the torrent at whose files it does.
    fn wait(mut self) -> Option<InfoHash> {
        loop {
            let patience = self.seen.patience.max(LOOK_PATIENCE);
            match self.end.recv_timeout(patience.saturating_sub(clock::now().since(self.seen_at))) {
                Err(RecvTimeoutError::Timeout) => {
                    let now_at = self.shared.busy_with();
                    if now_at == self.seen && now_at.torrent.is_some() {
                        return now_at.torrent;
                    }
                    (self.seen, self.seen_at) = (now_at, clock::now());
                }
                Ok(()) | Err(RecvTimeoutError::Disconnected) => {
                    // What it panicked with stands on stderr.
                    let _ = self.thread.join();
                    return None;
                }
            }
        }
    }
}

struct Watch {
    shared: Arc<Shared>,
    state_dir: Option<PathBuf>,
    torrents: BTreeMap<InfoHash, Kept>,
    /// Where the round of idle torrents goes on.
    next: Option<InfoHash>,
    looks: u32,
}

/// A torrent, and what has been written of it.
struct Kept {
    torrent: Box<Watched>,
    uploaded: u64,
    /// Of a torrent that is being downloaded.
    download: Option<Saved>,
}

/// How far the resume file of a download is.
struct Saved {
    selection: FileSelection,
    /// Pieces that were here at the last writing.
    pieces: u32,
    /// Pieces that have been brought to the disk.
    durable: Bitfield,
    /// Bringing content to the disk has failed once, so that what is only in memory may be lost. It stays so.
    doubtful: bool,
}

impl Watch {
    fn run(mut self, messages: &Receiver<Message>) {
        let shared = Arc::clone(&self.shared);
        loop {
            match messages.recv_timeout(LOOK_INTERVAL) {
                Ok(Message::Watch(torrent)) => {
                    let info_hash = torrent.shared.facts.info_hash;
                    shared.at(info_hash, STORAGE_END_PATIENCE, || self.watch(torrent));
                }
                Ok(Message::Forget { info_hash }) => {
                    if let Some(mut kept) = self.torrents.remove(&info_hash) {
                        shared.at(info_hash, STORAGE_END_PATIENCE, || self.save_last(&mut kept));
                    }
                }
                Ok(Message::Finished { info_hash }) => {
                    shared.at(info_hash, STORAGE_END_PATIENCE, || self.finish(info_hash));
                }
                Ok(Message::LookAgain) => self.look_at_files(|_, _| true),
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn watch(&mut self, mut torrent: Box<Watched>) {
        let download = torrent.selection.take().map(|selection| Saved {
            selection,
            pieces: 0,
            durable: torrent.durable.clone(),
            doubtful: false,
        });
        let is_download = download.is_some();
        let mut kept = Kept { uploaded: torrent.uploaded_before, torrent, download };
        if is_download {
            // Pieces of an earlier run that were never brought to the disk are brought there first of all.
            self.sync(&mut kept);
        } else if !kept.torrent.is_noted {
            // It has just been checked, which took longer than this.
            self.save(&kept, true);
        }
        self.torrents.insert(kept.torrent.shared.facts.info_hash, kept);
    }

    fn look(&mut self) {
        self.looks += 1;
        let from = self.next.unwrap_or(InfoHash([0; 20]));
        let mut idle: Vec<InfoHash> = self
            .torrents
            .range(from..)
            .map(|(info_hash, _)| *info_hash)
            .take(IDLE_TORRENTS_PER_LOOK + 1)
            .collect();
        self.next = (idle.len() > IDLE_TORRENTS_PER_LOOK).then(|| idle.pop()).flatten();
        self.look_at_files(|info_hash, torrent| {
            torrent.shared.counts.connections.load(Relaxed) > 0 || idle.binary_search(info_hash).is_ok()
        });
        let is_due = self.looks.is_multiple_of(LOOKS_PER_SAVE);
        let syncs = self.looks.is_multiple_of(LOOKS_PER_SYNC);
        let mut torrents = std::mem::take(&mut self.torrents);
        for (info_hash, kept) in &mut torrents {
            let note = || {
                if kept.download.is_some() {
                    if syncs { self.sync(kept) } else { self.save_progress(kept) }
                } else if is_due && kept.uploaded != kept.total_uploaded() {
                    kept.uploaded = kept.total_uploaded();
                    // Ten thousand waits for the disk would last minutes, and what a crash costs are figures.
                    self.save(kept, false);
                }
            };
            self.shared.at(*info_hash, STORAGE_END_PATIENCE, note);
        }
        self.torrents = torrents;
    }

    /// Looks at the files of the torrents that `is_due` says.
    fn look_at_files(&self, is_due: impl Fn(&InfoHash, &Watched) -> bool) {
        for (info_hash, Kept { torrent, download, .. }) in &self.torrents {
            if torrent.content.fault().is_some() || !is_due(info_hash, torrent) {
                continue;
            }
            let lacks_pieces = download.is_none() && !torrent.verified.is_full();
            let look = || {
                torrent.content.verify_files()?;
                Ok(lacks_pieces && torrent.content.has_newcomers())
            };
            match self.shared.at(*info_hash, LOOK_PATIENCE, look) {
                Ok(false) => {}
                Ok(true) => {
                    let changed = &self.shared.found.changed;
                    changed.lock().unwrap_or_else(PoisonError::into_inner).insert(*info_hash);
                }
                Err(fault) => {
                    // The session finds it with the content within a second. A shortage is none: the next look finds out more.
                    let is_new = torrent.content.fail(fault);
                    self.shared.found.has_faults.fetch_or(is_new, Release);
                }
            }
        }
    }

    /// Writes the resume file of content that nobody writes.
    fn save(&self, kept: &Kept, durably: bool) {
        let torrent = &kept.torrent;
        let (fingerprint, verified) = (torrent.fingerprint.clone(), torrent.verified.clone());
        let clean = Resume::clean(torrent.shared.facts.info_hash, fingerprint, verified);
        self.write(
            Resume { uploaded: kept.total_uploaded(), downloaded: kept.total_downloaded(), ..clean },
            durably,
        );
    }

    /// Notes quickly which pieces of a download are here, when there are more than at the last time.
    fn save_progress(&self, kept: &mut Kept) {
        let count = kept.torrent.stored.count();
        if let Some(resume) = kept.resume_of_download(false, None)
            && let Some(saved) = &mut kept.download
            && std::mem::replace(&mut saved.pieces, count) != count
        {
            self.write(resume, false);
        }
    }

    /// Brings a download to the disk and notes durably which pieces are there.
    fn sync(&self, kept: &mut Kept) {
        // What is verified now was written before now.
        let pieces = kept.torrent.stored.snapshot();
        let info_hash = kept.torrent.shared.facts.info_hash;
        let mut progressed = || self.shared.show(Some(info_hash), STORAGE_END_PATIENCE);
        let synced = match &kept.torrent.content {
            ServedContent::Download(content) => content.sync(&mut progressed),
            // Nobody writes it.
            ServedContent::OnDemand(_) => Ok(()),
        };
        let Some(saved) = &mut kept.download else { return };
        match synced {
            Ok(()) if saved.doubtful => {}
            Ok(()) => saved.durable = pieces,
            Err(error @ StorageError::Unsynced { .. }) => {
                saved.doubtful = true;
                // The session tells the user.
                kept.torrent.content.fail(error);
                self.shared.found.has_faults.store(true, Release);
            }
            Err(error) => tracing::warn!(%error, "downloaded pieces could not be brought to the disk"),
        }
        saved.pieces = kept.torrent.stored.count();
        if let Some(resume) = kept.resume_of_download(false, None) {
            self.write(resume, true);
        }
    }

    /// A torrent leaves: what is to be remembered of it is written. A download ends clean when bringing the rest to the
    /// disk does not take long.
    fn save_last(&self, kept: &mut Kept) {
        let Some(saved) = &kept.download else {
            if kept.uploaded != kept.total_uploaded() {
                self.save(kept, false);
            }
            return;
        };
        let facts = &kept.torrent.shared.facts;
        let new = u64::from(kept.torrent.stored.count().saturating_sub(saved.durable.count()));
        // First of all what is known already: bringing the rest to the disk may take longer than anybody waits.
        let few = new * u64::from(facts.piece_length) <= SYNC_AT_END_LEN_MAX;
        self.save_progress(kept);
        if few {
            self.sync(kept);
            let is_clean = kept.download.as_ref().is_some_and(|saved| !saved.doubtful);
            let fingerprint = kept.torrent.fingerprint_now();
            if let Some(resume) = kept.resume_of_download(is_clean, Some(fingerprint)) {
                // Of a torrent that failed something may still be written.
                let is_clean = resume.is_clean && resume.verified == resume.durable;
                self.write(Resume { is_clean, ..resume }, true);
            }
        }
    }

    fn finish(&mut self, info_hash: InfoHash) {
        let Some(mut kept) = self.torrents.remove(&info_hash) else { return };
        self.sync(&mut kept);
        let looked = match &kept.torrent.content {
            // Of what was all here nothing was written.
            ServedContent::Download(content)
                if kept.torrent.stored.count() > kept.torrent.verified.count() =>
            {
                let info = kept.torrent.metainfo.as_ref().map(|metainfo| metainfo.info());
                content.look_for_others(&kept.torrent.stored.snapshot(), |piece| info?.piece_hash(piece))
            }
            _ => Ok(()),
        };
        if let ServedContent::Download(content) = &kept.torrent.content
            && let Some(folder) = content.moved_to()
        {
            let named = content.root_path().display();
            tracing::warn!(folder = %folder.display(), "{named} was moved while it was downloaded into; what has come lies there");
        }
        if let Err(error) = looked {
            kept.torrent.content.fail(error);
            self.shared.found.has_faults.store(true, Release);
        }
        let finished = match &kept.torrent.content {
            ServedContent::Download(content) => content.finish(),
            ServedContent::OnDemand(_) => Ok(()),
        };
        if let Err(error) = &finished {
            tracing::warn!(%error, "the downloaded files could not be looked at");
        }
        let saved = kept.download.as_ref();
        if let (ServedContent::Download(content), Some(saved)) =
            (&kept.torrent.content, saved.filter(|it| !it.doubtful))
        {
            let removed =
                remove_unused_parts(content.layout(), content.root_path(), &saved.selection, info_hash);
            if let Err(error) = removed {
                tracing::warn!(%error, "what the download needs no more could not be removed");
            }
        }
        let fingerprint = kept.torrent.fingerprint_now();
        let is_clean = finished.is_ok()
            && kept.download.as_ref().is_some_and(|saved| !saved.doubtful)
            && kept.torrent.others_pieces().count() == 0;
        if let Some(resume) = kept.resume_of_download(is_clean, Some(fingerprint.clone())) {
            self.write(resume, true);
        }
        kept.torrent.fingerprint = fingerprint;
        kept.torrent.verified = kept.torrent.stored.snapshot();
        // Whole content is remembered as seeding remembers it. Of some files the selection has to be remembered, too,
        // even when every piece has a byte of one of them.
        let is_whole = kept.download.as_ref().is_some_and(|saved| saved.selection.is_all());
        if is_clean && is_whole && kept.torrent.verified.is_full() {
            kept.download = None;
        }
        if kept.torrent.content.fault().is_none() {
            self.shared.found.finished.lock().unwrap_or_else(PoisonError::into_inner).insert(info_hash);
        }
        self.torrents.insert(info_hash, kept);
    }

    fn write(&self, resume: Resume, durably: bool) {
        let Some(state_dir) = &self.state_dir else { return };
        let path = resume_path(state_dir, resume.info_hash);
        let written = if durably { resume.save(&path) } else { resume.save_quick(&path) };
        if let Err(error) = written {
            tracing::warn!(%error, "what was checked will be checked again: no resume file could be written");
        }
    }
}

impl Watched {
    /// The files as they were when they were opened, or, while pieces are written, as they are now.
    fn fingerprint_now(&self) -> Fingerprint {
        match &self.content {
            ServedContent::Download(content) => content.fingerprint(),
            ServedContent::OnDemand(content) => content.fingerprint(),
        }
    }

    /// The pieces that somebody else may have written over since they were stored.
    fn others_pieces(&self) -> Bitfield {
        match &self.content {
            ServedContent::Download(content) => content.pieces_others_may_have_changed(),
            ServedContent::OnDemand(_) => Bitfield::none(self.verified.len()),
        }
    }
}

impl Kept {
    fn total_uploaded(&self) -> u64 {
        self.torrent.uploaded_before + self.torrent.shared.counts.uploaded.load(Relaxed)
    }

    fn total_downloaded(&self) -> u64 {
        self.torrent.downloaded_before + self.torrent.shared.counts.downloaded.load(Relaxed)
    }

    fn resume_of_download(&self, is_clean: bool, fingerprint: Option<Fingerprint>) -> Option<Resume> {
        let saved = self.download.as_ref()?;
        let shared = &self.torrent.shared;
        // Before the look at the files: what is written after it changes them again.
        let here = self.torrent.stored.snapshot();
        let fingerprint = fingerprint.unwrap_or_else(|| self.torrent.fingerprint_now());
        // After that look: who writes later changes the files' times again.
        let others = self.torrent.others_pieces();
        let without = |pieces: &Bitfield| {
            let mut pieces = pieces.clone();
            others.iter().for_each(|piece| _ = pieces.remove(piece));
            pieces
        };
        Some(Resume {
            info_hash: shared.facts.info_hash,
            fingerprint,
            verified: without(if saved.doubtful { &saved.durable } else { &here }),
            durable: without(&saved.durable),
            is_clean: is_clean && others.count() == 0,
            boot_id: match &self.torrent.content {
                ServedContent::Download(content) => content.boot_id(),
                ServedContent::OnDemand(_) => None,
            },
            folder: match &self.torrent.content {
                ServedContent::Download(content) => content.folder(),
                ServedContent::OnDemand(_) => None,
            },
            selection: saved.selection.clone(),
            uploaded: self.total_uploaded(),
            downloaded: self.total_downloaded(),
        })
    }
}
