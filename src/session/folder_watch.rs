//! The torrent files of a folder, listed whenever something in it changes, and from time to time.
//!
//! A thread of its own lists them, since a folder may hang with its file system. inotify(7) tells at once what this machine
//! does. On a network mount it does not tell what other machines do, so the folder is also listed every few seconds. A
//! folder that cannot be read says nothing of what it holds. Nor does a folder that is empty because another file system lies
//! there now, as after an unmount.

use super::collection::Stamp;
use crate::clock;
use crate::limits::{FOLDER_LIST_INTERVAL, FOLDER_LIST_SHARE};
use crate::time::{Duration, Instant};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::fs::inotify;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Time without a change after which a folder that changes is listed.
const QUIET_TIME: Duration = Duration::from_millis(100);
/// Times that it is waited for that.
const QUIET_WAITS_MAX: usize = 20;

/// What a folder holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Its torrent files.
    pub files: BTreeMap<PathBuf, Stamp>,
    /// Folders in it, into which nobody looks.
    pub folders: usize,
    /// The device that it lies on.
    device: u64,
}

/// Whether a path is a torrent file's by its name.
pub fn is_torrent_name(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("torrent"))
}

/// Lists a folder. It may wait for a disk.
///
/// # Errors
/// When it cannot be read.
pub fn list(folder: &Path) -> io::Result<Listing> {
    let mut listing = Listing { device: std::fs::metadata(folder)?.dev(), ..Listing::default() };
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        // What has gone meanwhile, or leads nowhere, is not there.
        let Ok(metadata) = std::fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            listing.folders += 1;
        } else if metadata.is_file() && is_torrent_name(&path) {
            let mtime = (metadata.mtime(), metadata.mtime_nsec());
            listing.files.insert(path, Stamp { len: metadata.len(), mtime, inode: metadata.ino() });
        }
    }
    Ok(listing)
}

/// A folder that is listed again and again. Dropping it ends that, without waiting.
#[derive(Debug)]
pub struct FolderWatch {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Somebody wants something.
    bell: OwnedFd,
    ends: AtomicBool,
    /// When the listing under way began.
    listing_since: Mutex<Option<Instant>>,
}

impl Shared {
    fn listing(&self, since: Option<Instant>) {
        *self.listing_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn ring(&self) {
        // A full counter has rung.
        let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
    }
}

impl FolderWatch {
    /// Lists `folder` at once and from then on, on a thread of its own, and tells `hear`.
    ///
    /// # Errors
    /// No thread, or no descriptor.
    pub fn start(
        folder: PathBuf,
        hear: impl Fn(Result<Listing, String>) + Send + 'static,
    ) -> io::Result<Self> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared { bell, ends: AtomicBool::new(false), listing_since: Mutex::default() });
        let seen = Arc::clone(&shared);
        std::thread::Builder::new().name("folder".to_owned()).spawn(move || watch(&folder, &seen, &hear))?;
        Ok(Self { shared })
    }

    /// Since when it has been waited for the folder, if it is.
    pub fn listing_since(&self) -> Option<Instant> {
        *self.shared.listing_since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lists it now.
    pub fn look_now(&self) {
        self.shared.ring();
    }
}

impl Drop for FolderWatch {
    fn drop(&mut self) {
        self.shared.ends.store(true, Relaxed);
        self.shared.ring();
    }
}

fn watch(folder: &Path, shared: &Shared, hear: &dyn Fn(Result<Listing, String>)) {
    let notifier = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK);
    if let Err(error) = &notifier {
        tracing::debug!(%error, "changes of the folder are seen when it is listed the next time");
    }
    let notifier = notifier.ok();
    // Of the last listing with a file.
    let mut device = None;
    while !shared.ends.load(Relaxed) {
        let began = clock::now();
        shared.listing(Some(began));
        if let Some(notifier) = &notifier {
            // Each time, since the folder may be another one by now. Where that cannot be, there is the next listing.
            let _ = inotify::add_watch(notifier, folder, watched());
        }
        let listing = list(folder).map_err(|error| error.to_string()).and_then(|listing| {
            let is_left = listing.files.is_empty() && device.is_some_and(|device| device != listing.device);
            if is_left { Err("it is another file system's now, and empty".to_owned()) } else { Ok(listing) }
        });
        if let Ok(listing) = &listing
            && !listing.files.is_empty()
        {
            device = Some(listing.device);
        }
        shared.listing(None);
        hear(listing);
        let took = clock::now().since(began);
        wait(notifier.as_ref(), shared, FOLDER_LIST_INTERVAL.max(took * FOLDER_LIST_SHARE));
    }
}

fn watched() -> inotify::WatchFlags {
    use inotify::WatchFlags as Flags;
    Flags::CLOSE_WRITE
        | Flags::CREATE
        | Flags::MOVE
        | Flags::DELETE
        | Flags::DELETE_SELF
        | Flags::MOVE_SELF
        | Flags::ATTRIB
}

/// Waits until something has happened and nothing more does, or the time is over.
fn wait(notifier: Option<&OwnedFd>, shared: &Shared, time: Duration) {
    if !is_told(notifier, &shared.bell, time) {
        return;
    }
    for _ in 0..QUIET_WAITS_MAX {
        if !is_told(notifier, &shared.bell, QUIET_TIME) {
            return;
        }
    }
}

/// Whether anybody tells anything within this time; what was told is read.
fn is_told(notifier: Option<&OwnedFd>, bell: &OwnedFd, time: Duration) -> bool {
    let mut descriptors = vec![PollFd::new(bell, PollFlags::IN)];
    descriptors.extend(notifier.map(|notifier| PollFd::new(notifier, PollFlags::IN)));
    let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
    match poll(&mut descriptors, Some(&time)) {
        Ok(0) => return false,
        Ok(_) | Err(Errno::INTR) => {}
        // It is listed too often rather than never, and no more often than that.
        Err(_) => std::thread::park_timeout(QUIET_TIME),
    }
    let _ = rustix::io::read(bell, &mut [0; 8]);
    if let Some(notifier) = notifier {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut events = inotify::Reader::new(notifier, &mut buffer);
        while events.next().is_ok() {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::sync::mpsc;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_folder_is_listed_whenever_a_torrent_file_comes_changes_or_goes() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two) = (folder.path().join("one.torrent"), folder.path().join("two.TORRENT"));
        fs::write(&one, "first").unwrap();
        fs::write(folder.path().join("diary.txt"), "mine").unwrap();
        fs::create_dir(folder.path().join("below.torrent")).unwrap();
        let (sender, listings) = mpsc::channel();
        let watch =
            FolderWatch::start(folder.path().to_owned(), move |told| drop(sender.send(told))).unwrap();
        let until = |is_so: &dyn Fn(&Listing) -> bool| {
            let deadline = clock::now() + PATIENCE;
            loop {
                let left = deadline.since(clock::now());
                let listing = listings.recv_timeout(left).expect("it is listed again").unwrap();
                if is_so(&listing) {
                    return listing;
                }
            }
        };
        let first = until(&|_| true);
        assert_eq!((first.files.len(), first.folders), (1, 1));
        fs::write(&two, "second").unwrap();
        until(&|listing| listing.files.len() == 2);
        fs::write(&one, "first, and more").unwrap();
        until(&|listing| listing.files.get(&one).is_some_and(|stamp| stamp.len == 15));
        fs::remove_file(&two).unwrap();
        until(&|listing| listing.files.len() == 1);
        watch.look_now();
        until(&|listing| listing.files.len() == 1);
    }

    #[test]
    fn a_folder_that_is_gone_says_so_and_tells_of_its_return() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("torrents");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("one.torrent"), "first").unwrap();
        let (sender, listings) = mpsc::channel();
        let watch = FolderWatch::start(folder.clone(), move |told| drop(sender.send(told))).unwrap();
        let until = |is_so: &dyn Fn(&Result<Listing, String>) -> bool| {
            let mut listing = listings.recv_timeout(PATIENCE).expect("it is listed");
            while !is_so(&listing) {
                // Nobody tells of a folder that is made where there is none.
                watch.look_now();
                listing = listings.recv_timeout(PATIENCE).expect("it is listed again");
            }
        };
        until(&|listing| listing.as_ref().is_ok_and(|listing| listing.files.len() == 1));
        fs::rename(&folder, scratch.path().join("away")).unwrap();
        until(&Result::is_err);
        fs::rename(scratch.path().join("away"), &folder).unwrap();
        until(&|listing| listing.as_ref().is_ok_and(|listing| listing.files.len() == 1));
    }
}
