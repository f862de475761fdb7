//! Content that is closed until somebody asks for it.
//!
//! [`ShelvedContent`] remembers of each file what tells it from any other (length, last write, identity). Content is
//! opened only while all of that is so, and one opening serves everybody until nobody holds it any more. Invariant:
//! content that is open and content on the shelf share their fault, so whoever meets it first ends both.
//! Opening and closing may hang with its disk, so threads do it that may wait ([`file_threads`](super::file_threads)). What would be
//! more open files than are allowed is put off, and so is what meets a shortage.

use super::content::Content;
use super::error::StorageError;
use super::file_threads::{Job, run_later};
use super::fingerprint::Fingerprint;
use super::hash::FileProblem;
use super::layout::{FileIndex, Layout, LayoutFile};
use super::look_round::LookRound;
use super::parts::Parts;
use super::root::{FileState, Root};
use super::second_look::{Sameness, Sample};
use super::shortage::tell_shortage;
use crate::clock;
use crate::limits::{PART_FILES_MAX, ROOM_PATIENCE, TOUCHED_LOOK_INTERVAL};
use crate::time::Instant;
use crate::units::BlockSpan;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

/// Content of one torrent that is seeded, closed or open; perhaps not all of it.
#[derive(Debug)]
pub struct ShelvedContent {
    layout: Arc<Layout>,
    root: PathBuf,
    /// By file number, the files as they were when they were checked; `None` for those of which there is nothing.
    states: Mutex<Arc<[Option<FileState>]>>,
    /// What is wrong with files, in the torrent's order.
    problems: Vec<FileProblem>,
    /// The device of the first of them.
    device: u64,
    /// What is looked at when files have other numbers than before or were changed.
    sample: Sample,
    /// When that was last looked at because files were changed.
    touched_at: Mutex<Option<Instant>>,
    fault: Arc<OnceLock<StorageError>>,
    /// What is opened together.
    parts: Parts,
    /// What is open of them, by number, while anybody holds it.
    open: Mutex<BTreeMap<u32, Weak<Content>>>,
    shelf: Shelf,
    next_look: LookRound,
    newcomers_look: LookRound,
}

/// A file that has to be looked at again.
#[derive(Debug)]
enum News {
    /// It has another number than before.
    Renumbered(PathBuf),
    /// It was changed and not written to, as it seems.
    Touched(PathBuf),
}

/// Why content was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has a fault.
    Faulty,
    /// As much is open as may be, or can be.
    Full,
}

/// Takes what [`ShelvedContent::open_later`] has come to, on a thread of the shelf.
pub type Answer = Box<dyn FnOnce(Result<Arc<Content>, Refusal>) + Send>;

impl ShelvedContent {
    /// The content of `layout` below the folder `root`, as it is now. One system call a file; nothing is opened but
    /// the folder, and that not for long. A file that is missing, no file, or of a wrong length is a problem of its own: what of
    /// it is there is served, and has to stay as it is.
    ///
    /// # Errors
    /// The folder cannot be opened; a file is, or lies behind, a symbolic link, or may not be looked at.
    pub fn new(layout: Arc<Layout>, root: PathBuf, shelf: &Shelf) -> Result<Self, StorageError> {
        let folder = Root::open(&root)?;
        let mut problems = Vec::new();
        let mut states = vec![None; layout.files().len()];
        for (index, file) in layout.stored_files() {
            let mut note = |error| problems.push(FileProblem { file: index, error });
            let state = match folder.state(&file.path) {
                Ok(state) => state,
                // Another setting mends these for all of them at once.
                Err(error @ (StorageError::SymbolicLink(_) | StorageError::Denied(_))) => return Err(error),
                Err(error) => {
                    note(error);
                    continue;
                }
            };
            if state.len != file.len {
                let path = folder.full_path(&file.path);
                note(StorageError::Length { path, expected: file.len, found: state.len });
            }
            // Nothing can be mapped of a file without bytes.
            if let Some(slot) = states.get_mut(index.0 as usize) {
                *slot = Some(state).filter(|state| state.len > 0);
            }
        }
        let states: Arc<[Option<FileState>]> = states.into();
        let device = states.iter().flatten().next().map_or(0, |state| state.identity.0);
        let (states, sample, touched_at) = (Mutex::new(states), Sample::default(), Mutex::default());
        let (fault, open, shelf) = (Arc::default(), Mutex::default(), shelf.clone());
        let parts = Parts::of(&layout, shelf.part_files_max());
        let (next_look, newcomers_look) = (LookRound::default(), LookRound::default());
        Ok(Self {
            layout,
            root,
            states,
            problems,
            device,
            sample,
            touched_at,
            fault,
            parts,
            open,
            shelf,
            next_look,
            newcomers_look,
        })
    }

    /// The same, with pieces to look at when its files have other numbers than before and are otherwise as they were.
    pub fn with_sample(self, sample: Sample) -> Self {
        Self { sample, ..self }
    }

    /// The files as they were last found. Never waits for a file system.
    fn states(&self) -> Arc<[Option<FileState>]> {
        Arc::clone(&self.states.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Files that were missing, no files, or of a wrong length when this was made, in the torrent's order.
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }

    /// The device of the first file that is there; 0 when none is.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// What opens it.
    pub fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// The files as they were when this was made, and have to be.
    pub fn fingerprint(&self) -> Fingerprint {
        let states = self.states();
        let of = |file: FileIndex| states.get(file.0 as usize).copied().flatten();
        Fingerprint::of(self.layout.stored_files().map(|(file, _)| of(file)), None)
    }

    /// The number of the part that has to be open for this block. A torrent of few files is one part.
    pub fn part_of(&self, block: BlockSpan) -> u32 {
        let piece = u64::from(block.piece.0) * u64::from(self.layout.piece_length());
        if self.parts.is_one() { 0 } else { self.parts.at(piece + u64::from(block.begin)) }
    }

    /// Descriptors that a part has when it is open: one for each file, and its folder's.
    pub fn file_count(&self, part: u32) -> usize {
        let part = self.parts.get(part);
        if part.is_copied { 2 } else { part.stored + 1 }
    }

    /// The first fault that anybody met. Content with a fault is not to be served any more.
    pub fn fault(&self) -> Option<&StorageError> {
        self.fault.get()
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays. A shortage is none.
    pub fn fail(&self, fault: StorageError) -> bool {
        !fault.is_shortage() && self.fault.set(fault).is_ok()
    }

    /// Whether every file is still there and as it was: one system call each, none of which opens or reads a file unless one
    /// has another number than before or was changed without being written to, as it seems. Of very many files only some are
    /// looked at, others the next time. Neither reports nor forgets a fault. Not for data cores.
    ///
    /// # Errors
    /// What has changed.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        self.verify_files_at(clock::now())
    }

    fn verify_files_at(&self, now: Instant) -> Result<(), StorageError> {
        let root = Root::open_at_once(&self.root)?;
        let found = |_, file: &LayoutFile| match root.state(&file.path) {
            Err(StorageError::Missing(path)) => Err(StorageError::Vanished(path)),
            other => other.map(Some),
        };
        match self.compare(self.next_look.next(self.file_numbers().end), found)? {
            Some(news) if self.may_look_again(now, &news) => self.look_again(&root, &news),
            _ => Ok(()),
        }
    }

    /// Whether there is something of files of which there was nothing: one system call for each of these; of very many only some are
    /// looked at, others the next time. Not for data cores.
    pub fn has_newcomers(&self) -> bool {
        let (states, files) = (self.states(), self.newcomers_look.next(self.file_numbers().end));
        let is_missing = |file: FileIndex| states.get(file.0 as usize).is_some_and(Option::is_none);
        let mut missing = self.layout.stored_files_of(files).filter(|&(file, _)| is_missing(file)).peekable();
        if missing.peek().is_none() {
            return false;
        }
        let Ok(root) = Root::open_at_once(&self.root) else { return false };
        missing.any(|(_, file)| root.state(&file.path).is_ok_and(|state| state.len > 0))
    }

    fn file_numbers(&self) -> Range<u32> {
        0..u32::try_from(self.layout.files().len()).unwrap_or(u32::MAX)
    }

    /// Compares files with what they were: the first that has to be looked at again, one with another number before one that
    /// was changed.
    fn compare(
        &self,
        files: Range<u32>,
        mut found: impl FnMut(FileIndex, &LayoutFile) -> Result<Option<FileState>, StorageError>,
    ) -> Result<Option<News>, StorageError> {
        let (mut renumbered, mut touched) = (None, None);
        let states = self.states();
        for (index, file) in self.layout.stored_files_of(files) {
            // What was not there is not looked for.
            let Some(expected) = states.get(index.0 as usize).copied().flatten() else { continue };
            let Some(found) = found(index, file)? else { continue };
            let path = || self.root.join(&file.path);
            match expected.compare(found, path)? {
                Sameness::Same => {}
                Sameness::Renumbered => _ = renumbered.get_or_insert_with(|| News::Renumbered(path())),
                Sameness::Touched => _ = touched.get_or_insert_with(|| News::Touched(path())),
            }
        }
        Ok(renumbered.or(touched))
    }

    /// Whether it is time to read pieces because of that. Somebody may change a file's mode or names over and over, which
    /// shall not keep the disk busy; what can be opened under its number has to be looked at before.
    fn may_look_again(&self, now: Instant, news: &News) -> bool {
        let mut touched_at = self.touched_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_soon = touched_at.is_some_and(|at| now < at + TOUCHED_LOOK_INTERVAL);
        match news {
            News::Renumbered(_) => true,
            News::Touched(_) if is_soon => false,
            News::Touched(_) => {
                *touched_at = Some(now);
                true
            }
        }
    }

    /// Looks at what some files hold that have other numbers than before, or were changed, and remembers how they are now.
    fn look_again(&self, root: &Root, news: &News) -> Result<(), StorageError> {
        let before = self.states();
        let files = before.iter().zip(self.layout.files());
        let states = files.map(|(before, file)| before.map(|_| root.state(&file.path)).transpose());
        let states = states.collect::<Result<Arc<[Option<FileState>]>, StorageError>>()?;
        // Once more: what has changed since the first look is no question of numbers.
        self.compare(self.file_numbers(), |file, _| Ok(states.get(file.0 as usize).copied().flatten()))?;
        if !self.sample.is_found(&self.layout, root)? {
            return Err(match news {
                News::Renumbered(path) => StorageError::Replaced(path.clone()),
                News::Touched(path) => StorageError::Modified(path.clone()),
            });
        }
        tracing::debug!(?news, "looked at again; it is what it was");
        *self.states.lock().unwrap_or_else(PoisonError::into_inner) = states;
        Ok(())
    }

    /// Opens a part of the content on a thread that may wait, or finds it open, and answers exactly once. Never waits.
    pub fn open_later(self: Arc<Self>, part: u32, answer: Answer) {
        run_later(
            self.device,
            Box::new(move |can_run| answer(if can_run { self.open(part) } else { Err(Refusal::Full) })),
        );
    }

    fn open(&self, part: u32) -> Result<Arc<Content>, Refusal> {
        if self.fault().is_some() {
            return Err(Refusal::Faulty);
        }
        // Held while opening, so that two who ask at once get the same.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = open.get(&part).and_then(Weak::upgrade) {
            return Ok(content);
        }
        open.retain(|_, content| content.strong_count() > 0);
        let room = self.shelf.room_for(self.file_count(part)).ok_or(Refusal::Full)?;
        match self.reopen(part, room) {
            Ok(content) => {
                tracing::debug!(folder = %self.root.display(), files = self.file_count(part), "content opened");
                let content = Arc::new(content);
                open.insert(part, Arc::downgrade(&content));
                Ok(content)
            }
            // Others hold what is missing here, and will give it back.
            Err(shortage) if shortage.is_shortage() => {
                tell_shortage(&shortage);
                Err(Refusal::Full)
            }
            Err(fault) => {
                tracing::debug!(folder = %self.root.display(), %fault, "content not opened");
                self.fail(fault);
                Err(Refusal::Faulty)
            }
        }
    }

    /// Opens and maps every file of a part, or reads them, each of which has to be as it was.
    fn reopen(&self, part: u32, room: Room) -> Result<Content, StorageError> {
        let states = self.states();
        let due = |file: FileIndex| Some(states.get(file.0 as usize)?.as_ref()?.len);
        let (layout, part) = (Arc::clone(&self.layout), self.parts.get(part));
        let opened = if part.is_copied {
            Content::copy_part(layout, &self.root, due, part)
        } else {
            Content::open_some(layout, &self.root, due, part.files.clone())
        };
        let content = opened.map_err(|error| match error {
            StorageError::Missing(path) => StorageError::Vanished(path),
            other => other,
        })?;
        if let Some(news) = self.compare(part.files.clone(), |file, _| Ok(content.opened_state(file)))?
            && self.may_look_again(clock::now(), &news)
        {
            self.look_again(&Root::open_at_once(&self.root)?, &news)?;
        }
        Ok(content.with_fault(Arc::clone(&self.fault), room))
    }
}

/// The device that content lies on: that of the first file which is there, and of its folder when none is. A few system calls.
pub fn device_of(layout: &Layout, root: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let of_file = Root::open(root).ok().and_then(|folder| {
        layout.stored_files().find_map(|(_, file)| Some(folder.state(&file.path).ok()?.identity.0))
    });
    of_file.or_else(|| std::fs::metadata(root).ok().map(|folder| folder.dev())).unwrap_or_default()
}

/// Opens content for all torrents of a process, and counts what is open.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    files_max: usize,
    files: Mutex<Files>,
    closed: Condvar,
}

#[derive(Default)]
struct Files {
    /// Files and folders that are open.
    open: usize,
    /// Those of them that nobody holds any more.
    closing: usize,
}

/// The right to have some files open; given back when dropped.
pub(super) struct Room {
    shelf: Arc<Inner>,
    files: usize,
    is_closing: AtomicBool,
}

impl Shelf {
    /// At most `files_max` files and folders are open at once.
    pub fn new(files_max: usize) -> Self {
        Self(Arc::new(Inner { files_max, files: Mutex::default(), closed: Condvar::new() }))
    }

    /// Files and folders that may be open at once.
    pub(super) fn files_max(&self) -> usize {
        self.0.files_max
    }

    /// Files that are opened together, so that several peers' parts may be open at once on every core.
    pub(super) fn part_files_max(&self) -> usize {
        (self.0.files_max / 16).clamp(1, PART_FILES_MAX)
    }

    /// Files and folders that are open.
    pub fn open_files(&self) -> usize {
        self.0.lock().open
    }

    /// Waits a little for what is being closed.
    pub(super) fn room_for(&self, files: usize) -> Option<Room> {
        let is_full = |counted: &mut Files| {
            counted.closing > 0 && counted.open > 0 && counted.open + files > self.0.files_max
        };
        let waited = self.0.closed.wait_timeout_while(self.0.lock(), ROOM_PATIENCE, is_full);
        let (mut counted, _) = waited.unwrap_or_else(PoisonError::into_inner);
        if counted.open > 0 && counted.open + files > self.0.files_max {
            return None;
        }
        counted.open += files;
        drop(counted);
        Some(Room { shelf: Arc::clone(&self.0), files, is_closing: AtomicBool::new(false) })
    }

    /// Runs something that may wait for a file system, `device`, on a thread that may. Never waits.
    pub fn run_later(&self, device: u64, job: Job) {
        run_later(device, job);
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Room {
    /// Nobody holds the files any more.
    pub(super) fn begin_closing(&self) {
        if !self.is_closing.swap(true, Relaxed) {
            self.shelf.lock().closing += self.files;
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut counted = self.shelf.lock();
        counted.open -= self.files;
        if self.is_closing.load(Relaxed) {
            counted.closing -= self.files;
        }
        drop(counted);
        self.shelf.closed.notify_all();
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shelf").field("open_files", &self.open_files()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("files", &self.files).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bitfield::Bitfield;
    use crate::time::Duration;
    use std::fs;
    use std::time::SystemTime;

    fn shelved(folder: &Path, name: &str, shelf: &Shelf) -> Arc<ShelvedContent> {
        fs::write(folder.join(name), [7; 100]).unwrap();
        let file = LayoutFile { path: name.into(), len: 100, padding: false };
        let layout = Arc::new(Layout::new(16_384, [file]).unwrap());
        Arc::new(ShelvedContent::new(layout, folder.to_owned(), shelf).unwrap())
    }

    fn opened(content: &Arc<ShelvedContent>) -> Result<Arc<Content>, Refusal> {
        let (sender, answer) = std::sync::mpsc::channel();
        Arc::clone(content).open_later(0, Box::new(move |opened| drop(sender.send(opened))));
        answer.recv().unwrap()
    }

    #[test]
    fn one_opening_serves_everybody_and_ends_with_the_last_who_holds_it() {
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(3));
        let [one, other] = ["one", "other"].map(|name| shelved(folder.path(), name, &shelf));
        assert_eq!(shelf.open_files(), 0);
        let first = opened(&one).unwrap();
        assert!(Arc::ptr_eq(&first, &opened(&one).unwrap()));
        assert_eq!(shelf.open_files(), 2, "the file and its folder");
        assert_eq!(opened(&other).unwrap_err(), Refusal::Full);
        assert_eq!(other.fault(), None, "it is not to blame");
        drop(first);
        // What is being closed is waited for.
        let second = opened(&other).unwrap();
        assert_eq!(shelf.open_files(), 2);
        drop(second);
    }

    #[test]
    fn files_that_are_missing_or_of_a_wrong_length_are_problems_and_the_others_are_served() {
        // All of its files are one part.
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(16 * 9));
        let lens = [
            ("whole", Some(100)),
            ("missing", None),
            ("short", Some(60)),
            ("empty", Some(0)),
            ("long", Some(150)),
        ];
        for (name, len) in lens {
            len.iter().for_each(|&len| fs::write(folder.path().join(name), vec![7; len]).unwrap());
        }
        let files = lens.map(|(name, _)| LayoutFile { path: name.into(), len: 100, padding: false });
        let layout = Arc::new(Layout::new(16_384, files).unwrap());
        let content = ShelvedContent::new(layout, folder.path().to_owned(), &shelf).unwrap();
        let problems: Vec<u32> = content.problems().iter().map(|problem| problem.file.0).collect();
        assert_eq!((problems, content.verify_files()), (vec![1, 2, 3, 4], Ok(())));
        assert!(!content.has_newcomers(), "of an empty file there is still nothing");
        let content = Arc::new(content);
        let open = opened(&content).unwrap();
        // Small files are read together; those that are whole are there byte for byte.
        let bytes = |begin, len| {
            let block = crate::units::BlockSpan { piece: crate::units::PieceIndex(0), begin, len };
            open.slices(block).map(|slice| slice.len).sum::<usize>()
        };
        assert_eq!([bytes(0, 100), bytes(200, 60), bytes(400, 100)], [100, 60, 100]);
        assert_eq!(open.verify_files(), Ok(()));
        // What comes back has to be checked; what goes, or changes, is a fault.
        fs::write(folder.path().join("missing"), [7; 100]).unwrap();
        assert_eq!((content.verify_files(), open.verify_files()), (Ok(()), Ok(())));
        assert!(content.has_newcomers());
        fs::write(folder.path().join("short"), [7; 100]).unwrap();
        assert!(content.verify_files().is_err() && open.verify_files().is_err());
    }

    #[test]
    fn a_file_that_changed_while_it_was_closed_is_not_served() {
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
        let content = shelved(folder.path(), "one", &shelf);
        assert_eq!(content.verify_files(), Ok(()));
        let file = fs::OpenOptions::new().write(true).open(folder.path().join("one")).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
        assert!(matches!(content.verify_files(), Err(StorageError::Modified(_))));
        assert_eq!(opened(&content).unwrap_err(), Refusal::Faulty);
        assert!(matches!(content.fault(), Some(StorageError::Modified(_))));
    }

    /// What a file system does that has forgotten its files' numbers: all of them are others.
    fn number_anew(content: &ShelvedContent) {
        let renumbered = |state: &Option<FileState>| {
            let FileState { identity: (device, inode), .. } = state.unwrap();
            Some(FileState { identity: (device, inode + 1), ..state.unwrap() })
        };
        let mut states = content.states.lock().unwrap();
        *states = states.iter().map(renumbered).collect();
    }

    #[test]
    fn files_that_are_numbered_anew_are_looked_at_again_and_served() {
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
        let content = shelved(folder.path(), "one", &shelf);
        let hash = crate::storage::piece_hash(&[7; 100]);
        for hashes in [vec![hash], vec![]] {
            let sample = Sample::of(content.layout(), &Bitfield::all(1), |piece| {
                hashes.get(piece.0 as usize).copied()
            });
            let content = shelved(folder.path(), "one", &shelf);
            let content = Arc::new(Arc::into_inner(content).unwrap().with_sample(sample));
            number_anew(&content);
            assert_eq!(content.verify_files(), Ok(()));
            number_anew(&content);
            assert!(opened(&content).is_ok());
            assert_eq!((content.fault(), content.verify_files()), (None, Ok(())));
        }
    }

    #[test]
    fn files_that_are_numbered_anew_and_hold_something_else_are_not_served() {
        for through_opening in [true, false] {
            let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
            let content = shelved(folder.path(), "one", &shelf);
            let sample = Sample::of(content.layout(), &Bitfield::all(1), |_| Some([1; 20]));
            let content = Arc::new(Arc::into_inner(content).unwrap().with_sample(sample));
            number_anew(&content);
            if through_opening {
                assert_eq!(opened(&content).unwrap_err(), Refusal::Faulty);
                assert!(matches!(content.fault(), Some(StorageError::Replaced(_))));
            } else {
                assert!(matches!(content.verify_files(), Err(StorageError::Replaced(_))));
            }
        }
    }

    /// Changes a file's bytes, and sets the time of its last write back.
    fn write_secretly(path: &Path, bytes: &[u8]) {
        let file = fs::File::options().write(true).open(path).unwrap();
        let before = file.metadata().unwrap();
        std::io::Write::write_all(&mut &file, bytes).unwrap();
        file.set_modified(before.modified().unwrap()).unwrap();
    }

    #[test]
    fn a_file_that_was_changed_and_has_its_time_put_back_is_not_served_on() {
        for through_opening in [true, false] {
            let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
            let content = shelved(folder.path(), "one", &shelf);
            let hash = crate::storage::piece_hash(&[7; 100]);
            let sample = Sample::of(content.layout(), &Bitfield::all(1), |_| Some(hash));
            let content = Arc::new(Arc::into_inner(content).unwrap().with_sample(sample));
            write_secretly(&folder.path().join("one"), &[0; 100]);
            if through_opening {
                assert_eq!(opened(&content).unwrap_err(), Refusal::Faulty);
                assert!(matches!(content.fault(), Some(StorageError::Modified(_))));
            } else {
                assert!(matches!(content.verify_files(), Err(StorageError::Modified(_))));
            }
        }
    }

    #[test]
    fn files_with_another_mode_or_name_are_looked_at_once_a_minute_and_served() {
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
        let content = shelved(folder.path(), "one", &shelf);
        let hash = crate::storage::piece_hash(&[7; 100]);
        let sample = Sample::of(content.layout(), &Bitfield::all(1), |_| Some(hash));
        let content = Arc::into_inner(content).unwrap().with_sample(sample);
        let (path, start) = (folder.path().join("one"), clock::now());
        let ctime = || content.states()[0].unwrap().ctime;
        let mut noted = ctime();
        for (change, seconds, is_looked_at) in
            [(true, 0, true), (true, 1, false), (false, 59, false), (false, 60, true), (false, 61, false)]
        {
            if change {
                let other_name = folder.path().join(format!("name {seconds}"));
                fs::hard_link(&path, other_name).unwrap();
            }
            assert_eq!(content.verify_files_at(start + Duration::from_secs(seconds)), Ok(()));
            assert_eq!(std::mem::replace(&mut noted, ctime()) != ctime(), is_looked_at, "{seconds} s");
        }
    }

    #[test]
    fn a_fault_of_what_is_open_is_a_fault_of_what_lies_on_the_shelf() {
        let (folder, shelf) = (tempfile::tempdir().unwrap(), Shelf::new(8));
        let content = shelved(folder.path(), "one", &shelf);
        let open = opened(&content).unwrap();
        assert!(content.fail(StorageError::Vanished("one".into())));
        assert!(open.fault().is_some());
    }
}
