//! From torrents that were named to torrents that are served: on all cores, and nothing is hashed that need not be.
//!
//! What an earlier run has checked goes to the session as soon as its resume file and the states of its files have been
//! read; what has to be checked waits until all others are served, and is then checked one after the other. Of a folder of
//! torrents no more are in memory at once than there are threads, and a few on their way. What came of each is told to the
//! [keeper](super::keep), who sees to it from then on.

use super::super::view::View;
use super::inputs::{Inputs, TorrentFile};
use super::keep::{ToKeeper, files_of, trackers_of};
use crate::session::content::Located;
use crate::session::seeding::Arrival;
use crossbeam::channel::Sender;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Torrents on their way to the session.
const ARRIVALS_MAX: usize = 64;

/// Hands torrents over to the session.
pub(super) struct Loader {
    arrivals: mpsc::Sender<Arrival>,
    cancel: Arc<AtomicBool>,
    pub view: Arc<View>,
}

impl Loader {
    /// A loader, and where what it hands over arrives.
    pub fn new(cancel: Arc<AtomicBool>, view: Arc<View>) -> (Arc<Self>, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        (Arc::new(Self { arrivals, cancel, view }), receiver)
    }

    /// Loads all that is there at the start, on threads of its own.
    pub fn start(
        self: Arc<Self>,
        located: Vec<Located>,
        inputs: Arc<Inputs>,
        keeper: Sender<ToKeeper>,
    ) -> std::io::Result<()> {
        let load = move || {
            if self.load(located, &inputs, &keeper) {
                self.send(Arrival::Started { more_may_come: !inputs.folders.is_empty() });
            }
        };
        std::thread::Builder::new().name("loader".to_owned()).spawn(load).map(drop)
    }

    /// False when nobody waits for it any more.
    fn load(&self, located: Vec<Located>, inputs: &Inputs, keeper: &Sender<ToKeeper>) -> bool {
        let named = |(number, located): (usize, Located)| {
            let path = located.torrent_file.clone().unwrap_or_default();
            (TorrentFile { path, group: inputs.folders.len() + number, stamp: None }, located)
        };
        let located = located.into_iter().enumerate().map(named);
        let (known, unchecked): (Vec<_>, Vec<_>) = located.partition(|(_, located)| !located.needs_check());
        let serve = |(torrent, located): (TorrentFile, Located)| self.serve(&torrent, located, keeper);
        if !known.into_iter().all(serve) {
            return false;
        }
        let Some(to_check) = self.load_known(inputs, keeper) else { return false };
        if !unchecked.into_iter().all(serve) {
            return false;
        }
        // Found anew, since ten thousand that wait would fill the memory.
        to_check.iter().all(|torrent| {
            self.find(inputs, torrent, keeper).is_none_or(|located| self.serve(torrent, located, keeper))
        })
    }

    /// Serves the torrents of a folder that need no check, on all cores; answers the others.
    fn load_known<'a>(&self, inputs: &'a Inputs, keeper: &Sender<ToKeeper>) -> Option<Vec<&'a TorrentFile>> {
        let next = AtomicUsize::new(0);
        let to_check = Mutex::new(Vec::new());
        let is_over = AtomicBool::new(false);
        let take = || inputs.torrent_files.get(next.fetch_add(1, Relaxed));
        let work = || {
            while let Some(torrent) = take() {
                let Some(located) = self.find(inputs, torrent, keeper) else { continue };
                if located.needs_check() {
                    to_check.lock().unwrap_or_else(PoisonError::into_inner).push(torrent);
                } else if !self.serve(torrent, located, keeper) {
                    return is_over.store(true, Relaxed);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        std::thread::scope(|scope| {
            for _ in 1..threads.min(inputs.torrent_files.len()) {
                // What cannot be started is done by those that could.
                let _ = std::thread::Builder::new().name("loader".to_owned()).spawn_scoped(scope, work);
            }
            work();
        });
        let mut to_check = to_check.into_inner().unwrap_or_else(PoisonError::into_inner);
        to_check.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        (!is_over.into_inner()).then_some(to_check)
    }

    /// One bad torrent among thousands is told and left out.
    fn find(&self, inputs: &Inputs, torrent: &TorrentFile, keeper: &Sender<ToKeeper>) -> Option<Located> {
        match inputs.find(&torrent.path) {
            Ok(located) => Some(located),
            Err(error) => {
                let told = super::super::with_causes(error.as_ref());
                self.view.complain(&told);
                let TorrentFile { path, group, stamp } = torrent.clone();
                // The keeper ends with the session.
                let _ = keeper.send(ToKeeper::Failed { path, group, stamp, told });
                None
            }
        }
    }

    /// Tells the keeper of a torrent, and hands it over.
    fn serve(&self, torrent: &TorrentFile, located: Located, keeper: &Sender<ToKeeper>) -> bool {
        let TorrentFile { path, group, stamp } = torrent.clone();
        let (info_hash, trackers) = (located.metainfo.info_hash(), trackers_of(&located.metainfo));
        let _ = keeper.send(ToKeeper::Serving { path, group, stamp, info_hash, trackers });
        self.deliver(located, keeper)
    }

    /// Checks a torrent where that is due, and hands it over; false when nobody waits for it any more.
    pub fn deliver(&self, located: Located, keeper: &Sender<ToKeeper>) -> bool {
        let info_hash = located.metainfo.info_hash();
        let needs_check = located.needs_check();
        // Before anything is read.
        let files = if needs_check { files_of(&located) } else { 0 };
        let progress = needs_check.then(|| {
            let info = located.metainfo.info();
            self.view.checking(info.name(), info_hash, info.total_len())
        });
        let on_progress = |bytes| progress.iter().for_each(|progress| progress.add(bytes));
        let arrival = Arrival::from_located(located, &on_progress, &self.cancel);
        drop(progress);
        if let Arrival::Failed { .. } = arrival {
            let _ = keeper.send(ToKeeper::Refused(info_hash, files));
        }
        self.send(arrival)
    }

    /// Hands something over; false when nobody waits for it any more.
    pub fn send(&self, arrival: Arrival) -> bool {
        !self.cancel.load(Relaxed) && self.arrivals.blocking_send(arrival).is_ok()
    }
}

/// A torrent that is to be checked, found anew by then.
pub(super) type ToCheck = (PathBuf, crate::id::InfoHash);
