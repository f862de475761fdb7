//! Keeps what is served in step with torrent files and content, as long as the session runs.
//!
//! A thread hears what folders list, what the session has lost and what the user wants, asks the [`Collection`] what is to be
//! done, and does nothing itself that may wait for a file system: looks run on the shelf's threads, a few for each group, and
//! [checks](crate::session::checks) on threads of their own. Nothing here waits for anything but the next message.

use super::inputs::Inputs;
use super::load::Loader;
use crate::clock;
use crate::id::InfoHash;
use crate::limits::{FOLDER_LIST_INTERVAL, SILENCE_TIME};
use crate::metainfo::Metainfo;
use crate::session::checks::Pulse;
use crate::session::collection::{Collection, Found, Gone, Look, Stamp, Verdict};
use crate::session::content::Located;
use crate::session::folder_watch::{FolderWatch, Listing};
use crate::session::seeding::Arrival;
use crate::time::Duration;
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::sync::Arc;

/// Time between two looks at the clock when nothing is due.
const IDLE_TIME: Duration = Duration::from_secs(3600);

/// What the keeper hears.
pub(super) enum ToKeeper {
    /// What a folder holds, or why that cannot be read.
    Listed(usize, Result<Listing, String>),
    /// A torrent is served from this file, or about to be.
    Serving { path: PathBuf, group: usize, stamp: Option<Stamp>, info_hash: InfoHash, trackers: u64 },
    /// The torrent of this file could not be served; the user was told why.
    Failed { path: PathBuf, group: usize, stamp: Option<Stamp>, told: String },
    /// A look has ended.
    Looked(Look, Result<Box<LookedAt>, String>),
    /// What was to be served is not, after all; its files were in that state.
    Refused(InfoHash, u64),
    /// The session has lost a torrent.
    Lost(InfoHash),
    /// Files have come of a torrent that is served without them.
    Changed(InfoHash),
    /// A torrent that was served is served anew.
    Renewed(InfoHash),
    /// The user wants all of it read again.
    Hangup,
    /// Nobody wants anything any more.
    End,
}

/// What a look has found.
pub(super) struct LookedAt {
    located: Located,
    /// The state of its files, and the device that they lie on, when it has to be checked.
    files: u64,
    device: u64,
}

/// What tells the trackers of a torrent from others.
pub(super) fn trackers_of(metainfo: &Metainfo) -> u64 {
    let mut hasher = DefaultHasher::new();
    metainfo.tiers().hash(&mut hasher);
    hasher.finish()
}

/// What tells the present state of files from others; a system call for each of them.
pub(super) fn files_of(located: &Located) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?}", located.files()).hash(&mut hasher);
    hasher.finish()
}

/// Begins to keep, and gives the way to tell it something.
pub(super) fn start(inputs: &Arc<Inputs>, loader: &Arc<Loader>) -> std::io::Result<Sender<ToKeeper>> {
    let (sender, receiver) = unbounded();
    let mut collection = Collection::default();
    for torrent in &inputs.torrent_files {
        collection.add_expected(torrent.path.clone(), torrent.group, torrent.stamp);
    }
    let mut watches = Vec::new();
    for (group, folder) in inputs.folders.iter().enumerate() {
        let sender = sender.clone();
        let hear = move |listing| {
            // It has ended.
            let _ = sender.send(ToKeeper::Listed(group, listing));
        };
        watches.push(FolderWatch::start(folder.clone(), hear)?);
    }
    let keeper = Keeper {
        collection,
        inputs: Arc::clone(inputs),
        loader: Arc::clone(loader),
        sender: sender.clone(),
        folders: inputs.folders.iter().map(|_| Folder::default()).collect(),
        watches,
    };
    std::thread::Builder::new().name("keeper".to_owned()).spawn(move || keeper.run(&receiver))?;
    Ok(sender)
}

/// What the user was told of a folder.
#[derive(Default)]
struct Folder {
    /// That it cannot be read.
    is_gone: bool,
    /// Folders in it.
    folders: usize,
}

struct Keeper {
    collection: Collection,
    inputs: Arc<Inputs>,
    loader: Arc<Loader>,
    sender: Sender<ToKeeper>,
    folders: Vec<Folder>,
    watches: Vec<FolderWatch>,
}

impl Keeper {
    fn run(mut self, messages: &Receiver<ToKeeper>) {
        loop {
            self.look();
            self.tell_of_silent_folders();
            let now = clock::now();
            // Folders are looked at as often as they are listed.
            let idle_time = if self.watches.is_empty() { IDLE_TIME } else { FOLDER_LIST_INTERVAL };
            let due = self.collection.poll_timeout().map_or(idle_time, |due| due.since(now));
            // What is due and may not begin begins when another look has ended, which is told.
            let time = if due.is_zero() { idle_time } else { due.min(idle_time) };
            match messages.recv_timeout(time) {
                Ok(ToKeeper::End) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    /// Begins what looks are due.
    fn look(&mut self) {
        while let Some(look) = self.collection.poll_look(clock::now()) {
            let (inputs, sender) = (Arc::clone(&self.inputs), self.sender.clone());
            // A group's looks are a device of their own for the shelf: one that hangs holds none of the others.
            let device = u64::MAX - 1 - look.group as u64;
            let run = move |can_run: bool| {
                let found = if can_run {
                    inputs.find(&look.path).map_err(|error| super::super::with_causes(error.as_ref()))
                } else {
                    Err("no thread could be started".to_owned())
                };
                let found = found.and_then(|located| {
                    let needs_check = located.needs_check();
                    if needs_check && look.was_served {
                        // Part of what has vanished is no reason to read all the rest: it may come back as it was. What was
                        // there is known from the resume file.
                        located.find_files().map_err(|error| error.to_string())?;
                    }
                    let (files, device) =
                        if needs_check { (files_of(&located), located.device()) } else { (0, 0) };
                    Ok(Box::new(LookedAt { located, files, device }))
                });
                // The keeper may have ended.
                let _ = sender.send(ToKeeper::Looked(look, found));
            };
            self.inputs.shelf.run_later(device, Box::new(run));
        }
    }

    fn handle(&mut self, message: ToKeeper) {
        let now = clock::now();
        match message {
            ToKeeper::Listed(group, listing) => self.handle_listed(group, listing),
            ToKeeper::Serving { path, group, stamp, info_hash, trackers } => {
                self.collection.add_served(path, group, stamp, info_hash, trackers);
            }
            ToKeeper::Failed { path, group, stamp, told } => {
                self.collection.add_failed(now, path, group, stamp, told);
            }
            ToKeeper::Looked(look, Ok(found)) => self.handle_found(&look, *found),
            ToKeeper::Looked(look, Err(why)) => {
                if self.collection.handle_not_found(now, &look, &why) {
                    self.loader.view.complain(&why);
                }
            }
            ToKeeper::Refused(info_hash, files) => {
                self.collection.handle_refused(now, info_hash, Some(files));
            }
            ToKeeper::Lost(info_hash) => self.collection.handle_lost(now, info_hash),
            ToKeeper::Changed(info_hash) => self.collection.handle_changed(now, info_hash),
            ToKeeper::Renewed(info_hash) => self.collection.handle_renewed(info_hash),
            ToKeeper::Hangup => {
                self.collection.handle_hangup(now);
                self.watches.iter().for_each(FolderWatch::look_now);
                self.loader.send(Arrival::LookAgain);
            }
            // It has ended the loop.
            ToKeeper::End => {}
        }
    }

    fn handle_listed(&mut self, group: usize, listing: Result<Listing, String>) {
        let (Some(folder), Some(path)) = (self.folders.get_mut(group), self.inputs.folders.get(group)) else {
            return;
        };
        let (path, view) = (path.display(), &self.loader.view);
        let listing = match listing {
            Ok(listing) => listing,
            Err(why) => {
                if !std::mem::replace(&mut folder.is_gone, true) {
                    view.complain(&format!(
                        "cannot read the folder {path}: {why}; what it held is served on"
                    ));
                }
                return;
            }
        };
        if std::mem::take(&mut folder.is_gone) {
            view.complain(&format!("the folder {path} can be read again"));
        }
        if listing.folders > std::mem::replace(&mut folder.folders, listing.folders) {
            let text =
                format!("torrents in folders below {path} are not looked for; name those folders, too");
            view.complain(&text);
        }
        for gone in self.collection.handle_listing(clock::now(), group, &listing.files) {
            self.loader.take_away(gone);
        }
    }

    fn handle_found(&mut self, look: &Look, LookedAt { located, files, device }: LookedAt) {
        let found = Found {
            info_hash: located.metainfo.info_hash(),
            trackers: trackers_of(&located.metainfo),
            needs_check: located.needs_check(),
            files,
        };
        let (verdict, gone) = self.collection.handle_found(clock::now(), look, found);
        if let Some(gone) = gone {
            self.loader.take_away(gone);
        }
        match verdict {
            Verdict::Leave => {}
            Verdict::Double => {
                let served = self.collection.served_from(found.info_hash).unwrap_or(&look.path);
                let name = located.metainfo.info().name();
                self.loader.view.duplicate(&look.path, served, name, found.info_hash);
            }
            // It looks at no file any more.
            Verdict::Serve => _ = self.loader.deliver(located, &self.sender, None, false),
            Verdict::Check | Verdict::CheckAnew => {
                let is_anew = verdict == Verdict::CheckAnew;
                let name = located.metainfo.info().name().to_owned();
                self.check(device, name, look.path.clone(), (found.info_hash, is_anew));
            }
        }
    }
}

impl Keeper {
    /// Checks a torrent in its turn, which may be served meanwhile.
    fn check(&self, device: u64, name: String, path: PathBuf, (info_hash, is_anew): (InfoHash, bool)) {
        let (loader, inputs, answers) =
            (Arc::clone(&self.loader), Arc::clone(&self.inputs), self.sender.clone());
        let check = move |pulse: &Pulse| {
            // Found anew, since many that wait would fill the memory.
            let found = inputs.find(&path).ok().filter(|it| it.metainfo.info_hash() == info_hash);
            match found {
                Some(located) => _ = loader.deliver(located, &answers, Some(pulse), is_anew),
                // It has changed since: it is looked at again. The keeper may have ended.
                None => _ = answers.send(ToKeeper::Refused(info_hash, 0)),
            }
        };
        self.loader.checks.check_later(device, name, Box::new(check));
    }

    /// Tells of folders that do not answer, each once.
    fn tell_of_silent_folders(&mut self) {
        let now = clock::now();
        let all = self.folders.iter_mut().zip(&self.watches).zip(&self.inputs.folders);
        for ((folder, watch), path) in all {
            let is_silent = watch.listing_since().is_some_and(|since| now.since(since) >= SILENCE_TIME);
            if is_silent && !std::mem::replace(&mut folder.is_gone, true) {
                self.loader.view.complain(&format!(
                    "the folder {} does not answer; what it held is served on",
                    path.display()
                ));
            }
        }
    }
}

impl Loader {
    /// Has a torrent served no longer.
    fn take_away(&self, gone: Gone) {
        self.send(Arrival::Gone { info_hash: gone.info_hash, is_replaced: gone.is_replaced });
    }
}
