//! Content of more files than may be open, that is downloaded.
//!
//! All files are made, and locked once, before the first piece comes, one after the other; from then on each is open while
//! pieces are written to it, a bounded number at a time ([`Handles`]), and parts of the torrent are opened for peers who ask for
//! what is there already, or read into memory where their files are too many ([`Parts`]). A file that is opened again has to be as
//! it was when it was closed. One file stays open and locked as long as this lives, so that a second download into the same
//! files is refused: the first that lacks a piece. Invariants: a file is closed only when what was written to it is on the disk, or
//! its loss is known; a piece that was told to be there is in every copy of its part.
//! Absent: pieces themselves, and files without bytes on disk.

use super::content::{
    Allocation, Content, Created, create_files, lock_to_read, lock_to_write, may_keep, parts_of,
};
use super::error::StorageError;
use super::file_threads::{drop_later, run_later};
use super::fingerprint::Fingerprint;
use super::layout::{FileIndex, FileSpan, Layout};
use super::look_round::LookRound;
use super::ownership::{Aside, Claims, Permit};
use super::parts::{Part, Parts};
use super::piece_reader::read_exactly;
use super::resume::BootId;
use super::root::{FileState, Root, birth_of};
use super::selection::{FileSelection, Place, parts_index};
use super::shelf::{Answer, Refusal, Room, Shelf};
use super::shortage::tell_shortage;
use crate::bitfield::{Bitfield, SharedBitfield};
use crate::limits::WRITTEN_FILES_MAX;
use crate::units::{BlockSpan, PieceIndex};
use handles::{Handle, Handles};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

mod handles;

/// The files of one torrent that is downloaded, most of them closed.
#[derive(Debug)]
pub struct ManyFiles {
    layout: Arc<Layout>,
    root: Root,
    selection: FileSelection,
    device: u64,
    /// By file number, the parts file behind them: may it be written to?
    is_written: Box<[bool]>,
    /// Likewise: as it was when it was last closed, or looked at; `None` for what is not on the disk.
    states: Mutex<Box<[Option<FileState>]>>,
    /// Likewise: when it was made.
    births: Box<[Option<(i64, u32)>]>,
    handles: Handles,
    /// The file that keeps others from downloading into the same ones: one that lacks pieces, locked against everybody; where none
    /// does, one that others may read.
    guard: Option<Arc<Handle>>,
    /// Files to which an earlier run may have written what is in memory alone.
    unsynced: Mutex<BTreeSet<FileIndex>>,
    are_folders_unsynced: AtomicBool,
    /// The first file of which the disk has lost something.
    lost: OnceLock<StorageError>,
    /// Pieces whose bytes are in their files.
    written: SharedBitfield,
    is_writable: Arc<AtomicBool>,
    fault: Arc<OnceLock<StorageError>>,
    /// What is opened together to be read.
    parts: Parts,
    /// What is open of them, by number, while anybody holds it.
    open: Mutex<BTreeMap<u32, Weak<Content>>>,
    shelf: Shelf,
    /// The right to have files open that are written to.
    room: Option<Room>,
    next_look: LookRound,
    /// Files that may hold what is somebody else's.
    aside: Option<Aside>,
}

/// What is known of the pieces of content that is opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Those that are right.
    pub(super) have: &'a Bitfield,
    /// Those of them that have been brought to the disk.
    pub(super) durable: &'a Bitfield,
}

impl ManyFiles {
    /// [`Content::create`] for content of any number of files, a few of which are open at a time.
    ///
    /// # Errors
    /// As there.
    pub(super) fn create(
        layout: Arc<Layout>,
        root: &Path,
        selection: &FileSelection,
        allocation: Allocation,
        claims: &Claims,
        known: Known<'_>,
        shelf: &Shelf,
    ) -> Result<(Self, Created), StorageError> {
        let root = Root::create(root)?;
        let slots = layout.files().len() + 1;
        let mut states: Box<[Option<FileState>]> = vec![None; slots].into();
        let mut is_written: Box<[bool]> = vec![false; slots].into();
        let mut births: Box<[Option<(i64, u32)>]> = vec![None; slots].into();
        let (mut unsynced, mut device) = (BTreeSet::new(), None);
        let (mut written, mut read) = (None, None);
        let keep = |place: Place<'_>, fd, state: FileState| {
            let (file, permit) = (place.file, claims.of_file(place.file).permit);
            device.get_or_insert(state.identity.0);
            states.get_mut(file.0 as usize).into_iter().for_each(|slot| *slot = Some(state));
            births.get_mut(file.0 as usize).into_iter().for_each(|slot| *slot = birth_of(&fd));
            is_written.get_mut(file.0 as usize).into_iter().for_each(|slot| *slot = permit != Permit::Read);
            let is_unsynced = |piece| known.have.contains(piece) && !known.durable.contains(piece);
            let mut pieces = layout.pieces_of(file).map(PieceIndex);
            if permit != Permit::Make && (file == parts_index(&layout) || pieces.any(is_unsynced)) {
                unsynced.insert(file);
            }
            match permit {
                Permit::Read => _ = read.get_or_insert(fd),
                _ => _ = written.get_or_insert((file, fd)),
            }
            Ok(())
        };
        let created = create_files(&layout, &root, selection, allocation, claims, keep)?;
        let handles = Handles::new((shelf.files_max() / 8).clamp(1, WRITTEN_FILES_MAX));
        let guard = match written {
            Some((file, fd)) => {
                Some(handles.get(file, || Ok::<_, StorageError>(Handle::new(fd)), |_, _, _| {})?)
            }
            None => read.map(|fd| Arc::new(Handle::new(fd))),
        };
        let aside = Aside::of(&layout, root.path(), selection, claims)?;
        let many = Self {
            parts: Parts::of(&layout, shelf.part_files_max()),
            written: known.have.clone().into(),
            layout,
            root,
            selection: selection.clone(),
            device: device.unwrap_or_default(),
            is_written,
            states: Mutex::new(states),
            births,
            room: shelf.room_for(handles.files_max()),
            handles,
            guard,
            unsynced: Mutex::new(unsynced),
            are_folders_unsynced: AtomicBool::new(true),
            lost: OnceLock::new(),
            is_writable: Arc::new(AtomicBool::new(true)),
            fault: Arc::default(),
            open: Mutex::default(),
            shelf: shelf.clone(),
            next_look: LookRound::default(),
            aside,
        };
        Ok((many, created))
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The device of its first file.
    pub fn device(&self) -> u64 {
        self.device
    }

    /// The folder that it lies in, as the user named it.
    pub(super) fn root_path(&self) -> &Path {
        self.root.path()
    }

    /// The same without links; `None` when that cannot be told.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.root.folder()
    }

    pub(super) fn moved_to(&self) -> Option<PathBuf> {
        self.root.moved_to()
    }

    /// The life of the page cache that has what is written here.
    pub(super) fn boot_id(&self) -> Option<BootId> {
        BootId::of_root(&self.root)
    }

    /// The first fault that anybody met. Content with a fault is not to be served any more.
    pub fn fault(&self) -> Option<&StorageError> {
        self.fault.get()
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays. A shortage is none.
    pub(super) fn fail(&self, fault: StorageError) -> bool {
        !fault.is_shortage() && self.fault.set(fault).is_ok()
    }

    /// Writes a piece, as [`Content::write_piece`] does; its files are opened for that.
    pub(super) fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_where(piece, bytes, |_| true)
    }

    /// [`Self::write_piece`] of a piece that lies on the disk as it did while `former` was the selection: only what lies elsewhere
    /// now is written.
    pub(super) fn move_piece(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        former: &FileSelection,
    ) -> Result<(), StorageError> {
        self.write_where(piece, bytes, |file| former.is_elsewhere(&self.selection, &self.layout, file))
    }

    /// Writes the bytes of a piece that belong to files of which `is_due` says so.
    fn write_where(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        is_due: impl Fn(FileIndex) -> bool,
    ) -> Result<(), StorageError> {
        if !self.is_writable.load(Acquire) {
            return Err(StorageError::NotOpenForWriting(self.root.full_path(Path::new(""))));
        }
        may_keep(&self.layout, piece, bytes)?;
        for (span, part) in parts_of(&self.layout, piece, bytes) {
            // Padding has no place.
            let Some(place) = self.selection.place(&self.layout, span) else { continue };
            if !is_due(span.file) {
                // An earlier run may have left it in memory.
                self.lock_unsynced().insert(place.file);
                continue;
            }
            let there = FileSpan { file: place.file, offset: place.offset, len: span.len };
            self.aside.as_ref().map_or(Ok(()), |aside| aside.before_writing(there, part))?;
            let handle = self.handles.get(place.file, || self.open_to_write(place), self.closing())?;
            handle
                .write(part, place.offset)
                .map_err(|errno| StorageError::writing("write", &self.root.full_path(place.path), errno))?;
        }
        // In this order: whoever reads a part meanwhile finds the piece, or is found.
        self.written.insert(piece);
        let first = u64::from(piece.0) * u64::from(self.layout.piece_length());
        let last = self.parts.at(first + u64::from(self.layout.piece_len(piece)));
        // The ends of requests lie in the part before, too.
        let parts = self.parts.at(first).saturating_sub(1)..=last;
        let open: Vec<Arc<Content>> =
            self.lock_open().range(parts).filter_map(|(_, content)| content.upgrade()).collect();
        open.iter().for_each(|content| content.put_piece(piece, 0, bytes));
        Ok(())
    }

    /// Opens a file that was closed, and locks it again, if nobody has written to it meanwhile.
    fn open_to_write(&self, place: Place<'_>) -> Result<Handle, StorageError> {
        let path = self.root.full_path(place.path);
        if !self.is_written.get(place.file.0 as usize).copied().unwrap_or(false) {
            return Err(StorageError::NotOpenForWriting(path));
        }
        let open = || {
            let (fd, _) = self.root.open_for_writing(place.path).map_err(vanished)?;
            // Another program that holds it for a while makes the piece wait; that is no fault.
            lock_to_write(&fd, &path)?;
            let state = stat(&fd, &path)?;
            self.compare_closed(place.file, state, &path)?;
            Ok(Handle::new(fd))
        };
        open().inspect_err(|error| self.fail_if_changed(error))
    }

    /// What is done with a file before it is closed.
    fn closing(&self) -> impl FnMut(FileIndex, &Handle, Result<(), Errno>) {
        |file, handle, synced| {
            if let Err(errno) = synced {
                self.lose(file, errno);
            }
            self.note(file, handle);
        }
    }

    fn lose(&self, file: FileIndex, errno: Errno) {
        let _ = self.lost.set(StorageError::Unsynced { path: self.full_path(file), errno });
    }

    /// From now on the file is to be as it is now.
    fn note(&self, file: FileIndex, handle: &Handle) {
        let Ok(state) = stat(&handle.fd, Path::new("")) else { return };
        self.lock_states().get_mut(file.0 as usize).into_iter().for_each(|slot| *slot = Some(state));
    }

    /// Whether a file is as it was when it was closed. Another number alone is none of the user's doing: some file systems
    /// give one to every file that they have forgotten, and nobody can set the time of the last change.
    fn compare_closed(&self, file: FileIndex, found: FileState, path: &Path) -> Result<(), StorageError> {
        match self.state(file) {
            Some(noted) => noted.compare(found, || path.to_owned()).map(drop),
            None => Err(StorageError::Replaced(path.to_owned())),
        }
    }

    /// Whether a file is the one that it was, and, once nobody writes any more, as it was.
    fn compare(&self, file: FileIndex, found: FileState, path: &Path) -> Result<(), StorageError> {
        // Asked first: once the writing has ended, the states of then are there.
        if !self.is_writable.load(Acquire) {
            return self.compare_closed(file, found, path);
        }
        let Some(noted) = self.state(file) else { return Err(StorageError::Replaced(path.to_owned())) };
        if found.len != noted.len {
            return Err(StorageError::Length {
                path: path.to_owned(),
                expected: noted.len,
                found: found.len,
            });
        }
        let is_untouched = (found.mtime, found.ctime) == (noted.mtime, noted.ctime);
        if found.identity != noted.identity && !is_untouched {
            return Err(StorageError::Replaced(path.to_owned()));
        }
        Ok(())
    }

    /// What has become of a file that others have changed is the content's fault, and no reason to try again.
    fn fail_if_changed(&self, error: &StorageError) {
        if matches!(
            error,
            StorageError::Vanished(_)
                | StorageError::Replaced(_)
                | StorageError::Modified(_)
                | StorageError::Length { .. }
                | StorageError::SymbolicLink(_)
                | StorageError::WrongKind { .. }
        ) {
            self.fail(error.clone());
        }
    }

    /// Brings to the disk what was written since the last call, as [`Content::sync`] does; `progressed` is called in between.
    pub(super) fn sync(&self, progressed: &mut dyn FnMut()) -> Result<(), StorageError> {
        loop {
            let Some(file) = self.lock_unsynced().pop_first() else { break };
            // A file that cannot be opened is told by who looks after them.
            if let Ok((fd, _)) = self.root.open_file(self.relative_path(file))
                && let Err(errno) = rustix::fs::fsync(&fd)
            {
                self.lose(file, errno);
            }
            progressed();
        }
        self.handles.sync(|file, outcome| {
            outcome.unwrap_or_else(|errno| self.lose(file, errno));
            progressed();
        });
        if let Some(lost) = self.lost.get() {
            return Err(lost.clone());
        }
        if self.are_folders_unsynced.load(Acquire) {
            for folder in self.folders() {
                self.root.sync_folder(folder)?;
                progressed();
            }
            self.are_folders_unsynced.store(false, Release);
        }
        Ok(())
    }

    /// The folders that its files lie in, and those on the way.
    fn folders(&self) -> BTreeSet<&Path> {
        let states = self.lock_states();
        let stored = (0..).map(FileIndex).zip(states.iter()).filter(|(_, state)| state.is_some());
        let parents: BTreeSet<&Path> =
            stored.filter_map(|(file, _)| self.relative_path(file).parent()).collect();
        parents.into_iter().flat_map(Path::ancestors).collect()
    }

    /// Ends the writing, as [`Content::finish`] does.
    pub(super) fn finish(&self) -> Result<(), StorageError> {
        self.handles.close_all(self.closing());
        self.handles.each(|file, handle| self.note(file, handle));
        if let Some(handle) = &self.guard {
            // Nobody writes any more: those who seed the files may come in. Held is held already.
            let _ = lock_to_read(&handle.fd, self.root.path());
        }
        let states = self.lock_states().clone();
        let open: Vec<Arc<Content>> = self.lock_open().values().filter_map(Weak::upgrade).collect();
        open.iter().for_each(|content| content.note(|file| states.get(file.0 as usize).copied().flatten()));
        // Last, so that who finds the writing ended finds the new states, too.
        self.is_writable.store(false, Release);
        self.lost.get().cloned().map_or(Ok(()), Err)
    }

    /// The files as they were when they were closed, and those that are open as they are now.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut open = Vec::new();
        self.handles.each(|file, handle| open.push((file, stat(&handle.fd, Path::new("")).ok())));
        let mut states = self.lock_states().clone();
        for (file, state) in open {
            states.get_mut(file.0 as usize).into_iter().for_each(|slot| *slot = state);
        }
        // Whose it is will be asked again as long as it may be somebody else's.
        let aside = self.aside.as_ref().filter(|_| self.is_writable.load(Acquire));
        let is_doubtful = |file| aside.is_some_and(|aside| aside.is_doubtful(file));
        let of =
            |file: FileIndex| states.get(file.0 as usize).copied().flatten().filter(|_| !is_doubtful(file));
        let birth = |file: FileIndex| self.births.get(file.0 as usize).copied().flatten();
        let (numbers, parts) =
            (|| self.layout.stored_files().map(|(file, _)| file), parts_index(&self.layout));
        let fingerprint =
            Fingerprint::of(numbers().map(of), of(parts)).born(numbers().map(birth), birth(parts));
        match aside {
            Some(aside) => fingerprint.with_former(numbers().chain([parts]).map(|file| aside.noted(file))),
            None => fingerprint,
        }
    }

    /// Looks at some of the files, at others the next time: a few system calls each, none of which reads content. Neither
    /// reports nor forgets a fault. Not for data cores.
    pub(super) fn verify_files(&self) -> Result<(), StorageError> {
        let slots = self.layout.files().len() as u32 + 1;
        for file in self.next_look.next(slots).map(FileIndex) {
            if self.state(file).is_none() {
                continue;
            }
            let path = self.relative_path(file);
            let found = self.root.state(path).map_err(vanished)?;
            self.compare(file, found, &self.root.full_path(path))?;
        }
        Ok(())
    }

    /// The number of the part that has to be open for this block.
    pub fn part_of(&self, block: BlockSpan) -> u32 {
        let piece = u64::from(block.piece.0) * u64::from(self.layout.piece_length());
        self.parts.at(piece + u64::from(block.begin))
    }

    /// Descriptors that a part has when it is open: its folder's, one for each file, and that of the parts file.
    pub fn file_count(&self, part: u32) -> usize {
        let part = self.parts.get(part);
        if part.is_copied { 2 } else { part.stored + 1 + usize::from(!self.selection.is_all()) }
    }

    /// Opens a part to be read on a thread that may wait, or finds it open, and answers exactly once. Never waits.
    pub fn open_later(self: Arc<Self>, part: u32, answer: Answer) {
        run_later(
            self.device,
            Box::new(move |can_run| answer(if can_run { self.open(part) } else { Err(Refusal::Full) })),
        );
    }

    fn open(&self, number: u32) -> Result<Arc<Content>, Refusal> {
        if self.fault().is_some() {
            return Err(Refusal::Faulty);
        }
        if let Some(content) = self.lock_open().get(&number).and_then(Weak::upgrade) {
            return Ok(content);
        }
        let room = self.shelf.room_for(self.file_count(number)).ok_or(Refusal::Full)?;
        self.open_part(number, room).map_err(|error| {
            tracing::debug!(folder = %self.root.path().display(), %error, "part not opened");
            if error.is_shortage() {
                // Others hold what is missing here, and will give it back.
                tell_shortage(&error);
                return Refusal::Full;
            }
            self.fail(error);
            Refusal::Faulty
        })
    }

    fn open_part(&self, number: u32, room: Room) -> Result<Arc<Content>, StorageError> {
        let part = self.parts.get(number);
        // Who asks tries again later.
        let root = || Root::open_at_once(self.root.path());
        let content = if part.is_copied {
            Content::to_copy_into(Arc::clone(&self.layout), root()?, self.device, &part.bytes)
        } else {
            self.map(part, root()?)?
        };
        let content = Arc::new(content.with_fault(Arc::clone(&self.fault), room));
        let root = root()?;
        loop {
            let mut open = self.lock_open();
            if let Some(other) = open.get(&number).and_then(Weak::upgrade) {
                return Ok(other);
            }
            let unread: Vec<BlockSpan> = content.unread_blocks(&self.written).collect();
            if unread.is_empty() {
                open.retain(|_, content| content.strong_count() > 0);
                open.insert(number, Arc::downgrade(&content));
                return Ok(content);
            }
            drop(open);
            let mut last = None;
            for block in unread {
                let bytes = self.read(&root, block, &mut last)?;
                content.put_piece(block.piece, block.begin, &bytes);
            }
        }
    }

    /// Opens and maps the files of a part.
    fn map(&self, part: &Part, root: Root) -> Result<Content, StorageError> {
        let (mut places, mut needs_parts_file) = (Vec::with_capacity(part.stored), false);
        for (file, _) in self.layout.stored_files_of(part.files.clone()) {
            match self.state(file) {
                Some(_) => places.push((file, self.relative_path(file))),
                None => needs_parts_file |= !self.selection.contains(file),
            }
        }
        let parts_file = parts_index(&self.layout);
        if needs_parts_file && self.state(parts_file).is_some() {
            places.push((parts_file, self.relative_path(parts_file)));
        }
        let mut opened = Vec::with_capacity(places.len());
        for (file, path) in places {
            let (fd, state) = root.open_file(path).map_err(vanished)?;
            self.compare(file, state, &root.full_path(path))?;
            opened.push((file, fd, state));
        }
        let (layout, selection) = (Arc::clone(&self.layout), self.selection.clone());
        Content::map_part(layout, root, selection, part.files.clone(), opened, &self.is_writable)
    }

    /// Reads what has been written, one file after the other; `last` is the one that is open.
    fn read(
        &self,
        root: &Root,
        block: BlockSpan,
        last: &mut Option<(FileIndex, OwnedFd)>,
    ) -> Result<Vec<u8>, StorageError> {
        let mut bytes = vec![0; block.len as usize];
        let mut rest = bytes.as_mut_slice();
        for span in self.layout.spans(block) {
            let (part, behind) =
                std::mem::take(&mut rest).split_at_mut_checked(span.len as usize).unwrap_or_default();
            rest = behind;
            let Some(place) = self.selection.place(&self.layout, span) else { continue };
            let path = root.full_path(place.path);
            if last.as_ref().is_none_or(|(file, _)| *file != place.file) {
                *last = None;
                let (fd, state) = root.open_file(place.path).map_err(vanished)?;
                self.compare(place.file, state, &path)?;
                *last = Some((place.file, fd));
            }
            let Some((_, fd)) = last else { continue };
            let read = read_exactly(fd, part, place.offset);
            if let Some(found) = read.map_err(|errno| StorageError::at("read", &path, errno))? {
                return Err(StorageError::Length { path, expected: place.file_len, found });
            }
        }
        Ok(bytes)
    }

    fn state(&self, file: FileIndex) -> Option<FileState> {
        self.lock_states().get(file.0 as usize).copied().flatten()
    }

    /// Where a file lies below the root; the parts file for the number behind the torrent's.
    fn relative_path(&self, file: FileIndex) -> &Path {
        let parts = || self.selection.parts_path().unwrap_or(Path::new(""));
        self.layout.file(file).map_or_else(parts, |file| &file.path)
    }

    fn full_path(&self, file: FileIndex) -> PathBuf {
        self.root.full_path(self.relative_path(file))
    }

    fn lock_states(&self) -> MutexGuard<'_, Box<[Option<FileState>]>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_open(&self) -> MutexGuard<'_, BTreeMap<u32, Weak<Content>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_unsynced(&self) -> MutexGuard<'_, BTreeSet<FileIndex>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ManyFiles {
    fn drop(&mut self) {
        // The last to hold it may be a data core.
        let files = (self.handles.take(), self.guard.take());
        self.room.iter().for_each(Room::begin_closing);
        drop_later(self.device, Box::new((files, self.room.take())));
    }
}

fn stat(fd: &OwnedFd, path: &Path) -> Result<FileState, StorageError> {
    let stat = rustix::fs::fstat(fd).map_err(|errno| StorageError::at("inspect", path, errno))?;
    Ok(FileState::of(&stat))
}

/// A file that is missing was there before.
fn vanished(error: StorageError) -> StorageError {
    match error {
        StorageError::Missing(path) => StorageError::Vanished(path),
        other => other,
    }
}

#[cfg(test)]
mod tests;
