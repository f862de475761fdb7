//! From torrents that were named to torrents that are served: on all cores, and nothing is hashed that need not be.
//!
//! What an earlier run has checked goes to the session as soon as its resume file and the states of its files have been
//! read; what has to be checked waits until all others are served, and is then [checked](crate::session::checks). Of a folder of
//! torrents no more are in memory at once than there are threads, and a few on their way. What came of each is told to the
//! [keeper](super::keep), who sees to it from then on.
//! A file system that hangs holds up only what lies on it: a [round](crate::session::load_round) says who goes on with what, and
//! "ready" comes when nothing is left but what does not answer.

use super::super::view::View;
use super::inputs::{Inputs, TorrentFile};
use super::keep::{ToKeeper, files_of, trackers_of};
use crate::clock;
use crate::limits::{LOADING_THREADS_MAX, SILENCE_TIME};
use crate::session::checks::{Checks, Pulse};
use crate::session::content::Located;
use crate::session::load_round::LoadRound;
use crate::session::mounts::Mounts;
use crate::session::seeding::Arrival;
use crate::session::torrent_file::read_torrent;
use crate::units::Counted;
use crossbeam::channel::Sender;
use std::num::NonZero;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;

/// Torrents on their way to the session.
const ARRIVALS_MAX: usize = 64;

/// Hands torrents over to the session.
pub(super) struct Loader {
    arrivals: mpsc::Sender<Arrival>,
    cancel: Arc<AtomicBool>,
    pub view: Arc<View>,
    pub checks: Checks,
}

impl Loader {
    /// A loader, and where what it hands over arrives.
    pub fn new(
        cancel: Arc<AtomicBool>,
        view: Arc<View>,
    ) -> std::io::Result<(Arc<Self>, mpsc::Receiver<Arrival>)> {
        let (arrivals, receiver) = mpsc::channel(ARRIVALS_MAX);
        Ok((Arc::new(Self { arrivals, cancel, view, checks: Checks::start()? }), receiver))
    }

    /// Loads all that is there at the start, on threads of its own.
    pub fn start(
        self: Arc<Self>,
        located: Vec<Located>,
        inputs: Arc<Inputs>,
        keeper: Sender<ToKeeper>,
    ) -> std::io::Result<()> {
        let load = move || {
            let more_may_come = !inputs.folders.is_empty();
            if let Some(waiting_for) = self.load(located, &inputs, &keeper) {
                self.send(Arrival::Started { more_may_come, waiting_for });
            }
        };
        std::thread::Builder::new().name("loader".to_owned()).spawn(load).map(drop)
    }

    /// Answers what does not; nothing when nobody waits for it any more.
    fn load(
        self: &Arc<Self>,
        located: Vec<Located>,
        inputs: &Arc<Inputs>,
        keeper: &Sender<ToKeeper>,
    ) -> Option<Vec<String>> {
        let named = |(number, located): (usize, Located)| {
            let path = located.torrent_file.clone().unwrap_or_default();
            (TorrentFile { path, group: inputs.folders.len() + number, stamp: None }, located)
        };
        let located = located.into_iter().enumerate().map(named);
        let (known, unchecked): (Vec<_>, Vec<_>) = located.partition(|(_, located)| !located.needs_check());
        let serve = |(torrent, located): (TorrentFile, Located)| self.serve(&torrent, located, keeper, None);
        if !known.into_iter().all(serve) {
            return None;
        }
        let loading = Loading::new(self, inputs, keeper);
        let places = loading.run();
        for (torrent, located) in unchecked {
            let (device, name) = (located.device(), located.metainfo.info().name().to_owned());
            let (loader, keeper) = (Arc::clone(self), keeper.clone());
            let check = move |pulse: &Pulse| _ = loader.serve(&torrent, located, &keeper, Some(pulse));
            self.checks.check_later(device, name, Box::new(check));
        }
        loading.begin_checks();
        let folders = inputs.silent_folders.iter().map(|folder| folder.display().to_string());
        let checks = self.checks.settle(SILENCE_TIME);
        let waiting_for = folders.chain(places).chain(checks).collect();
        (!self.cancel.load(Relaxed)).then_some(waiting_for)
    }

    /// Tells the keeper of a torrent, and hands it over.
    fn serve(
        &self,
        torrent: &TorrentFile,
        located: Located,
        keeper: &Sender<ToKeeper>,
        pulse: Option<&Pulse>,
    ) -> bool {
        let TorrentFile { path, group, stamp } = torrent.clone();
        let (info_hash, trackers) = (located.metainfo.info_hash(), trackers_of(&located.metainfo));
        let _ = keeper.send(ToKeeper::Serving { path, group, stamp, info_hash, trackers });
        self.deliver(located, keeper, pulse, false)
    }

    /// Checks a torrent where that is due, and hands it over, in place of itself when it `is_anew`; false when nobody waits
    /// for it any more.
    pub fn deliver(
        &self,
        located: Located,
        keeper: &Sender<ToKeeper>,
        pulse: Option<&Pulse>,
        is_anew: bool,
    ) -> bool {
        let info_hash = located.metainfo.info_hash();
        let needs_check = located.needs_check();
        // Before anything is read.
        let files = if needs_check { files_of(&located) } else { 0 };
        let progress = needs_check.then(|| {
            let info = located.metainfo.info();
            self.view.checking(info.name(), info_hash, located.check_len())
        });
        let on_progress = |bytes| {
            progress.iter().for_each(|progress| progress.add(bytes));
            pulse.iter().for_each(|pulse| pulse.beat());
        };
        let arrival = Arrival::from_located(located, &on_progress, &self.cancel);
        drop(progress);
        let arrival = match arrival {
            Arrival::Failed { .. } => {
                let _ = keeper.send(ToKeeper::Refused(info_hash, files));
                if is_anew {
                    // What is served is served on.
                    return true;
                }
                arrival
            }
            Arrival::Ready(checked) if is_anew => Arrival::Anew(checked),
            other => other,
        };
        self.send(arrival)
    }

    /// Hands something over; false when nobody waits for it any more.
    pub fn send(&self, arrival: Arrival) -> bool {
        !self.cancel.load(Relaxed) && self.arrivals.blocking_send(arrival).is_ok()
    }
}

/// The torrents that are there at the start and not yet looked at, on their way.
struct Loading {
    loader: Arc<Loader>,
    inputs: Arc<Inputs>,
    keeper: Sender<ToKeeper>,
    mounts: Mounts,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    round: LoadRound,
    /// Threads started, and with that the number of each.
    threads: usize,
    /// Those that have to be checked, by number; `None` once checks have begun.
    to_check: Option<Vec<ToCheck>>,
    is_over: bool,
}

/// The number of a torrent, and what has to be known of it to check it in its turn.
struct ToCheck {
    number: usize,
    device: u64,
    name: String,
}

impl Loading {
    fn new(loader: &Arc<Loader>, inputs: &Arc<Inputs>, keeper: &Sender<ToKeeper>) -> Arc<Self> {
        let round = LoadRound::new(inputs.torrent_files.len());
        Arc::new(Self {
            loader: Arc::clone(loader),
            inputs: Arc::clone(inputs),
            keeper: keeper.clone(),
            mounts: Mounts::now(),
            state: Mutex::new(State { round, threads: 0, to_check: Some(Vec::new()), is_over: false }),
            changed: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loads on all cores until nothing is left but what does not answer, which is told once and answered. Threads that wait
    /// for it go on when it does.
    fn run(self: &Arc<Self>) -> Vec<String> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut state = self.state();
        loop {
            let silent: Vec<_> = state.round.poll_silent(clock::now());
            for place in silent {
                self.loader.view.complain(&format!(
                    "{} does not answer; what lies there is served when it does",
                    place.display()
                ));
            }
            while state.round.to_do() > 0 && state.round.able() < cores.min(state.round.to_do()) {
                // What cannot be started is done by those that could.
                if !self.start_thread(&mut state) {
                    break;
                }
            }
            if state.is_over || state.round.able() == 0 {
                break;
            }
            let waited = self.changed.wait_timeout(state, SILENCE_TIME / 10);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        let places = state.round.silent_places().map(|place| place.display().to_string());
        let mut places: Vec<String> = places.collect();
        if state.round.to_do() > 0 {
            places.push(format!("threads, for {},", Counted(state.round.to_do(), "more torrent")));
        }
        places
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> bool {
        if state.round.able() + state.round.silent() >= LOADING_THREADS_MAX {
            return false;
        }
        let (number, loading) = (state.threads, Arc::clone(self));
        let work = move || loading.work(number);
        let started = std::thread::Builder::new().name("loader".to_owned()).spawn(work).is_ok();
        if started {
            state.threads += 1;
            state.round.begin(number);
        }
        started
    }

    /// One thread's life.
    fn work(self: &Arc<Self>, worker: usize) {
        while let Some(number) = self.take(worker) {
            let Some(torrent) = self.inputs.torrent_files.get(number) else { continue };
            let found = match self.find(worker, number, torrent) {
                None => continue,
                Some(Ok(located)) if located.needs_check() => {
                    let name = located.metainfo.info().name().to_owned();
                    Ok((Some((located.device(), name)), located))
                }
                Some(found) => found.map(|located| (None, located)),
            };
            self.state().round.leave(worker);
            let goes_on = match found {
                Ok((Some((device, name)), _)) => {
                    self.check_later(ToCheck { number, device, name });
                    true
                }
                Ok((None, located)) => self.loader.serve(torrent, located, &self.keeper, None),
                Err(error) => {
                    self.fail(torrent, error.as_ref());
                    true
                }
            };
            if !goes_on {
                self.state().is_over = true;
            }
        }
        self.changed.notify_all();
    }

    fn take(&self, worker: usize) -> Option<usize> {
        let mut state = self.state();
        if state.is_over {
            state.round.end(worker);
            return None;
        }
        state.round.take(worker)
    }

    /// Nothing when it lies where nobody answers.
    fn find(
        &self,
        worker: usize,
        number: usize,
        torrent: &TorrentFile,
    ) -> Option<Result<Located, super::super::CommandError>> {
        let enter = |path: &Path| {
            let place = self.mounts.of(path);
            self.state().round.enter(clock::now(), worker, &place, number)
        };
        if !enter(&torrent.path) {
            return None;
        }
        let metainfo = match read_torrent(&torrent.path) {
            Ok(metainfo) => metainfo,
            Err(error) => return Some(Err(error.into())),
        };
        if !enter(&self.inputs.data_of(&torrent.path).0.join(metainfo.info().name())) {
            return None;
        }
        Some(self.inputs.locate(&torrent.path, metainfo))
    }

    /// One bad torrent among thousands is told and left out.
    fn fail(&self, torrent: &TorrentFile, error: &(dyn std::error::Error + 'static)) {
        let told = super::super::with_causes(error);
        self.loader.view.complain(&told);
        let TorrentFile { path, group, stamp } = torrent.clone();
        // The keeper ends with the session.
        let _ = self.keeper.send(ToKeeper::Failed { path, group, stamp, told });
    }

    /// Checks a torrent when all others are served.
    fn check_later(self: &Arc<Self>, torrent: ToCheck) {
        let mut state = self.state();
        match &mut state.to_check {
            Some(to_check) => to_check.push(torrent),
            None => {
                drop(state);
                self.check(torrent);
            }
        }
    }

    /// Checks a torrent in its turn. It is found anew then, since ten thousand that wait would fill the memory.
    fn check(self: &Arc<Self>, torrent: ToCheck) {
        let (loading, number) = (Arc::clone(self), torrent.number);
        let check = move |pulse: &Pulse| {
            let Some(torrent) = loading.inputs.torrent_files.get(number) else { return };
            match loading.inputs.find(&torrent.path) {
                // Who does not wait any more has told the others.
                Ok(located) => _ = loading.loader.serve(torrent, located, &loading.keeper, Some(pulse)),
                Err(error) => loading.fail(torrent, error.as_ref()),
            }
        };
        self.loader.checks.check_later(torrent.device, torrent.name, Box::new(check));
    }

    /// Has all that has to be checked checked, in the order of their files, and what is found from now on at once.
    fn begin_checks(self: &Arc<Self>) {
        let to_check = self.state().to_check.take();
        let mut to_check = to_check.unwrap_or_default();
        to_check.sort_unstable_by_key(|it| it.number);
        to_check.into_iter().for_each(|it| self.check(it));
    }
}
