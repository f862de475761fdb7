//! From torrents that were named to torrents that are served: on all cores, and nothing is hashed that need not be.
//!
//! What an earlier run has checked goes to the session as soon as its resume file and the states of its files have been
//! read; what has to be checked waits until all others are served, and is then checked one after the other. Of a folder of
//! torrents no more are in memory at once than there are threads, and a few on their way.

use super::super::view::View;
use super::inputs::Inputs;
use crate::session::content::Located;
use crate::session::seeding::Arrival;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc;

/// Torrents on their way to the session.
const ARRIVALS_MAX: usize = 64;

/// Loads on threads of its own; the end of the channel says that all is loaded.
pub(super) fn start(
    inputs: Inputs,
    cancel: Arc<AtomicBool>,
    view: Arc<View>,
) -> std::io::Result<mpsc::Receiver<Arrival>> {
    let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
    let loader = Loader { arrivals, cancel, view };
    std::thread::Builder::new().name("checker".to_owned()).spawn(move || loader.load(inputs))?;
    Ok(receiver)
}

struct Loader {
    arrivals: mpsc::Sender<Arrival>,
    cancel: Arc<AtomicBool>,
    view: Arc<View>,
}

impl Loader {
    fn load(&self, mut inputs: Inputs) {
        let (known, unchecked): (Vec<Located>, Vec<Located>) =
            std::mem::take(&mut inputs.located).into_iter().partition(|located| !located.needs_check());
        if !known.into_iter().all(|located| self.deliver(located)) {
            return;
        }
        let to_check = self.load_known(&inputs);
        if !unchecked.into_iter().all(|located| self.deliver(located)) {
            return;
        }
        for torrent in to_check {
            // Found anew, since ten thousand that wait would fill the memory.
            if let Some(located) = self.find(&inputs, &torrent)
                && !self.deliver(located)
            {
                return;
            }
        }
    }

    /// Serves the torrents of a folder that need no check, on all cores; answers the others.
    fn load_known(&self, inputs: &Inputs) -> Vec<PathBuf> {
        let next = AtomicUsize::new(0);
        let to_check = Mutex::new(Vec::new());
        let take = || inputs.torrent_files.get(next.fetch_add(1, Relaxed));
        let work = || {
            while let Some(torrent) = take() {
                let Some(located) = self.find(inputs, torrent) else { continue };
                if located.needs_check() {
                    to_check.lock().unwrap_or_else(PoisonError::into_inner).push(torrent.clone());
                } else if !self.deliver(located) {
                    return;
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
        to_check.sort_unstable();
        to_check
    }

    /// One bad torrent among thousands is told and left out.
    fn find(&self, inputs: &Inputs, torrent: &Path) -> Option<Located> {
        let found = inputs.find(torrent);
        if let Err(error) = &found {
            self.view.complain(&super::super::with_causes(error.as_ref()));
        }
        found.ok()
    }

    /// Checks a torrent where that is due, and hands it over; false when nobody waits for it any more.
    fn deliver(&self, located: Located) -> bool {
        let progress = located.needs_check().then(|| {
            let info = located.metainfo.info();
            self.view.checking(info.name(), located.metainfo.info_hash(), info.total_len())
        });
        let on_progress = |bytes| progress.iter().for_each(|progress| progress.add(bytes));
        let arrival = Arrival::from_located(located, &on_progress, &self.cancel);
        drop(progress);
        !self.cancel.load(Relaxed) && self.arrivals.blocking_send(arrival).is_ok()
    }
}
