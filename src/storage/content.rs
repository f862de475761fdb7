//! A torrent's content, open and mapped: what every worker shares and sends from.
//!
//! Opened for seeding ([`Content::open`]) it is immutable but for two things that only ever grow more recent: which
//! windows were seen in the page cache, and the first fault anybody met. Opened for downloading (`Content::create`) it
//! takes pieces, too, until `Content::finish`; the files may then become younger. Invariant: every pointer handed out lies, with its
//! length, inside a mapping (or the zeros of padding) that lives as long as the `Content`. The pointers are
//! for the kernel alone. A file may shrink below its mapping at any time: the kernel then answers EFAULT where
//! a read from here would be SIGBUS, and the tail of the last page goes out as zeros without any error, so
//! [`Content::verify_files`] has to be asked from time to time, off the data cores.
//!
//! Closing and unmapping may hang with the disk, and whoever is the last to hold content may be a data core: content of a session
//! ([`Content::closed_elsewhere`]) is closed on a thread that may wait.
//!
//! Absent: any look at bytes, and files without bytes on disk (empty ones and padding), which are never opened.

use super::error::StorageError;
use super::file_threads::{drop_later, run_later};
use super::fingerprint::Fingerprint;
use super::layout::{FileIndex, FileSpan, Layout};
use super::mapped_file::MappedFile;
use super::ownership::{Aside, Claims};
use super::piece_reader::read_exactly;
use super::residency::{Presence, WINDOW_LEN};
use super::resume::BootId;
use super::root::{FileState, Root};
use super::selection::{FileSelection, parts_index};
use super::shelf::Room;
use crate::time::Instant;
use crate::units::{BLOCK_LEN, BlockSpan};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::AcqRel, Ordering::Acquire, Ordering::Release};
use std::sync::{Arc, OnceLock};

/// What padding reads as. One block: a longer span of padding becomes several slices of it.
static ZEROS: [u8; BLOCK_LEN as usize] = [0; BLOCK_LEN as usize];

/// A run of bytes for the kernel to send: an iovec without its type. Never to be read from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoSlicePtr {
    /// First byte.
    pub ptr: *const u8,
    /// Number of bytes, never zero.
    pub len: usize,
}

/// What the ring has to bring into memory before a send may touch a span: posix_fadvise(WILLNEED) of
/// `offset` and `len` on `fd`, then madvise(POPULATE_READ) of `len` bytes from `ptr`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PopulateRange {
    /// The file; one more than the torrent has for the parts file, for which spans may be asked as for the others.
    pub file: FileIndex,
    /// First byte in memory, at a page's beginning.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: u32,
    /// The file's descriptor, open as long as the `Content` lives.
    pub fd: RawFd,
    /// The device that the file system calls its own (`st_dev`).
    pub device: u64,
    /// First byte within the file.
    pub offset: u64,
}

/// The open content of one torrent.
#[derive(Debug)]
pub struct Content {
    layout: Arc<Layout>,
    root: Root,
    selection: FileSelection,
    /// By file index from `first_file` on; `None` for empty files, padding and what is not wanted.
    files: Box<[Option<MappedFile>]>,
    first_file: u32,
    /// What the selection leaves out of border pieces.
    parts_file: Option<MappedFile>,
    /// Bytes of files that are too many to be open.
    copied: Option<CopiedFiles>,
    fault: Arc<OnceLock<StorageError>>,
    /// The right to have its files open, of content that is opened on demand.
    room: Option<Room>,
    /// Whether pieces are being written: files then may become younger. Shared with whoever writes, of a part of content.
    is_writable: Arc<AtomicBool>,
    /// Whether the folders may have entries that a crash would lose.
    are_folders_unsynced: AtomicBool,
    /// Whoever holds it last need not wait for its files to close.
    is_closed_elsewhere: bool,
    /// Somebody looks why it cannot be read.
    is_suspected: AtomicBool,
    /// Files that may hold what is somebody else's.
    aside: Option<Aside>,
}

impl Content {
    /// Opens and maps every file of `layout` below the folder `root`. Each must be a regular file of exactly the
    /// length that the layout says. Takes one descriptor and one mapping a file; no content is read. While it is open nobody
    /// downloads into the files.
    pub fn open(layout: Arc<Layout>, root: &Path) -> Result<Self, StorageError> {
        let all = 0..u32::try_from(layout.files().len()).unwrap_or(u32::MAX);
        let lens = Arc::clone(&layout);
        Self::open_some(layout, root, |file| Some(lens.file(file)?.len), all)
    }

    /// [`Self::open`] of some files, by number, each of which is `due` to have so many bytes, which need not be what the layout
    /// says. Those of `None` are left out: their pieces have no bytes here.
    pub(super) fn open_some(
        layout: Arc<Layout>,
        root: &Path,
        due: impl Fn(FileIndex) -> Option<u64>,
        some: Range<u32>,
    ) -> Result<Self, StorageError> {
        let root = Root::open_at_once(root)?;
        let mut files: Vec<Option<MappedFile>> = some.clone().map(|_| None).collect();
        for (index, file) in layout.stored_files_of(some.clone()) {
            let Some(due) = due(index) else { continue };
            let (fd, state) = root.open_file(&file.path)?;
            let path = root.full_path(&file.path);
            if state.len != due {
                return Err(StorageError::Length { path, expected: due, found: state.len });
            }
            create::lock_to_read(&fd, &path)?;
            if let Some(slot) = files.get_mut((index.0 - some.start) as usize) {
                *slot = Some(MappedFile::map(fd, state, &path)?);
            }
        }
        let mut content = Self::new(layout, root, FileSelection::all(), files, false);
        content.first_file = some.start;
        Ok(content)
    }

    /// Maps files of a part of content that pieces still come for, which are open, and `is_writable` until that ends.
    pub(super) fn map_part(
        layout: Arc<Layout>,
        root: Root,
        selection: FileSelection,
        some: Range<u32>,
        opened: Vec<(FileIndex, OwnedFd, FileState)>,
        is_writable: &Arc<AtomicBool>,
    ) -> Result<Self, StorageError> {
        let mut files: Vec<Option<MappedFile>> = some.clone().map(|_| None).collect();
        let mut parts_file = None;
        for (index, fd, state) in opened {
            let path = layout.file(index).map_or_else(PathBuf::new, |file| root.full_path(&file.path));
            let file = Some(MappedFile::map(fd, state, &path)?);
            match index.0.checked_sub(some.start).and_then(|slot| files.get_mut(slot as usize)) {
                Some(slot) => *slot = file,
                None => parts_file = file,
            }
        }
        let mut content = Self::new(layout, root, selection, files, true);
        (content.parts_file, content.first_file) = (parts_file, some.start);
        content.is_writable = Arc::clone(is_writable);
        Ok(content)
    }

    /// From now on the files are to be as `states` says.
    pub(super) fn note(&self, states: impl Fn(FileIndex) -> Option<FileState>) {
        for (index, file) in self.mapped_files() {
            states(index).into_iter().for_each(|state| file.note(state));
        }
    }

    fn new(
        layout: Arc<Layout>,
        root: Root,
        selection: FileSelection,
        files: Vec<Option<MappedFile>>,
        is_writable: bool,
    ) -> Self {
        Self {
            layout,
            root,
            selection,
            files: files.into_boxed_slice(),
            first_file: 0,
            parts_file: None,
            copied: None,
            fault: Arc::default(),
            room: None,
            is_writable: Arc::new(AtomicBool::new(is_writable)),
            are_folders_unsynced: AtomicBool::new(is_writable),
            is_closed_elsewhere: false,
            is_suspected: AtomicBool::new(false),
            aside: None,
        }
    }

    /// The same, whose files are closed on a thread that may wait for them, whoever holds it last.
    pub fn closed_elsewhere(mut self) -> Self {
        self.is_closed_elsewhere = true;
        self
    }

    /// The same, which keeps what files hold before any of it is lost, where `claims` says that this is due.
    ///
    /// # Errors
    /// The folder cannot be opened, or what has to be kept cannot be.
    pub fn keeping(mut self, claims: &Claims) -> Result<Self, StorageError> {
        self.aside = Aside::of(&self.layout, self.root.path(), &self.selection, claims)?;
        Ok(self)
    }

    /// The device that most of it lies on, in the kernel's number; zero when it has no files.
    pub fn device(&self) -> u64 {
        let mapped = self.mapped_files().next().map(|(_, file)| file.identity.0);
        mapped.or_else(|| self.copied.as_ref()?.device()).unwrap_or(0)
    }

    /// The same, sharing its fault with whoever opened it, whose leave to have files open it keeps.
    pub(super) fn with_fault(mut self, fault: Arc<OnceLock<StorageError>>, room: Room) -> Self {
        (self.fault, self.room) = (fault, Some(room));
        self.closed_elsewhere()
    }

    /// A file as it was when it was opened.
    pub(super) fn opened_state(&self, file: FileIndex) -> Option<FileState> {
        match &self.copied {
            Some(copied) => copied.opened_state(file),
            None => self.file(file).map(MappedFile::opened),
        }
    }

    fn file(&self, file: FileIndex) -> Option<&MappedFile> {
        if file == parts_index(&self.layout) {
            return self.parts_file.as_ref();
        }
        self.files.get(file.0.checked_sub(self.first_file)? as usize)?.as_ref()
    }

    /// Every file that is open, the parts file last.
    fn mapped_files(&self) -> impl Iterator<Item = (FileIndex, &MappedFile)> {
        let parts = self.parts_file.iter().map(|file| (parts_index(&self.layout), file));
        let files = (self.first_file..).map(FileIndex).zip(&self.files);
        files.filter_map(|(index, file)| Some((index, file.as_ref()?))).chain(parts)
    }

    /// The folder that it lies in, as the user named it.
    pub fn root_path(&self) -> &Path {
        self.root.path()
    }

    /// The files that are wanted; all of them for content that was opened for seeding.
    pub fn selection(&self) -> &FileSelection {
        &self.selection
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Where a span's bytes lie in memory: one slice of a mapping, or for padding one slice of zeros a block.
    /// Nothing for a span that this content does not have.
    pub fn slice(&self, span: FileSpan) -> impl Iterator<Item = IoSlicePtr> + use<> {
        let (ptr, step, mut left) = match self.mapped(span) {
            Some((file, offset)) => (file.at(offset), span.len, span.len),
            None if self.is_padding(span) => (ZEROS.as_ptr(), BLOCK_LEN, span.len),
            None => (ZEROS.as_ptr(), BLOCK_LEN, 0),
        };
        std::iter::from_fn(move || {
            let len = left.min(step);
            left -= len;
            (len > 0).then_some(IoSlicePtr { ptr, len: len as usize })
        })
    }

    /// Where a block's bytes lie in memory, in order. Nothing for a block that the layout does not contain.
    /// A block over tiny files has as many slices as files, which may be more than one send takes (IOV_MAX).
    pub fn slices(&self, block: BlockSpan) -> impl Iterator<Item = IoSlicePtr> {
        let copied =
            self.copied_bytes(block).map(|bytes| IoSlicePtr { ptr: bytes.as_ptr(), len: bytes.len() });
        let spans = self.copied.is_none().then(|| self.layout.spans(block));
        copied.into_iter().chain(spans.into_iter().flatten().flat_map(|span| self.slice(span)))
    }

    /// A block's bytes, of files that were read into memory.
    fn copied_bytes(&self, block: BlockSpan) -> Option<&[u8]> {
        let copied = self.copied.as_ref().filter(|_| self.layout.contains(block))?;
        let begin = u64::from(block.piece.0) * u64::from(self.layout.piece_length()) + u64::from(block.begin);
        copied.get(begin, block.len)
    }

    /// The files as they were when they were opened, or, while pieces are written, as they are now. Equal to a
    /// fingerprint taken before a check, it says that what is mapped here is what was checked.
    pub fn fingerprint(&self) -> Fingerprint {
        let is_writable = self.is_writable.load(Acquire);
        let state = |index: FileIndex| {
            let file = self.file(index)?;
            if is_writable {
                // Whose it is will be asked again as long as it may be somebody else's.
                let is_doubtful = self.aside.as_ref().is_some_and(|aside| aside.is_doubtful(index));
                file.state().ok().filter(|_| !is_doubtful)
            } else {
                Some(file.opened())
            }
        };
        let files = self.layout.stored_files().map(|(index, _)| state(index));
        let birth = |index: FileIndex| self.file(index)?.birth;
        let (births, parts) =
            (self.layout.stored_files().map(|(index, _)| birth(index)), parts_index(&self.layout));
        let fingerprint = Fingerprint::of(files, state(parts)).born(births, birth(parts));
        let Some(aside) = self.aside.as_ref().filter(|_| is_writable) else { return fingerprint };
        let numbers = self.layout.stored_files().map(|(index, _)| index).chain([parts]);
        fingerprint.with_former(numbers.map(|index| aside.noted(index)))
    }

    /// The folder that it lies in, without links; `None` when that cannot be told.
    pub fn folder(&self) -> Option<PathBuf> {
        self.root.folder()
    }

    /// Where its folder is now when the path that the user named leads there no longer.
    pub fn moved_to(&self) -> Option<PathBuf> {
        self.root.moved_to()
    }

    /// The life of the page cache that has what is written here.
    pub fn boot_id(&self) -> Option<BootId> {
        BootId::of_root(&self.root)
    }

    /// Whether a send of these bytes would find all of them in memory, as far as can be known: pages may be
    /// evicted between the answer and the send. Asked in windows of 256 KiB; a positive
    /// answer is kept for about a second, so the usual cost is one load a window, else one system call.
    pub fn is_resident(&self, now: Instant, file: FileIndex, offset: u64, len: u32) -> bool {
        let span = FileSpan { file, offset, len };
        match self.mapped(span) {
            Some((file, offset)) => {
                file.residency.contains(now, file.fd.as_fd(), file.len, offset, len as usize)
            }
            None => true,
        }
    }

    /// [`Self::is_resident`] for all of a block.
    pub fn is_block_resident(&self, now: Instant, block: BlockSpan) -> bool {
        self.layout.spans(block).all(|span| self.is_resident(now, span.file, span.offset, span.len))
    }

    /// Notes that the span's windows are being brought into memory. Until [`Self::mark_resident`] they are not resident
    /// even when the page cache shows pages, whose reads may not have ended.
    pub fn mark_loading(&self, span: FileSpan) {
        if let Some((file, offset)) = self.mapped(span) {
            file.residency.mark_loading(file.len, offset, span.len as usize);
        }
    }

    /// Notes that the span's windows are in memory now.
    pub fn mark_resident(&self, now: Instant, span: FileSpan) {
        if let Some((file, offset)) = self.mapped(span) {
            file.residency.mark_resident(now, file.len, offset, span.len as usize);
        }
    }

    /// The windows that the span touches, in order and whole, so that what is brought into memory for one block serves
    /// the next ones of the piece too, and how each stands. None for padding and for a span that this content
    /// does not have.
    pub fn windows(
        &self,
        now: Instant,
        span: FileSpan,
    ) -> impl Iterator<Item = (PopulateRange, Presence)> + use<'_> {
        let mapped = self.mapped(span).zip(self.slot_of(span)).filter(|_| span.len > 0);
        mapped.into_iter().flat_map(move |((file, offset), slot)| {
            let first = offset / WINDOW_LEN * WINDOW_LEN;
            (first..offset + u64::from(span.len)).step_by(WINDOW_LEN as usize).map(move |begin| {
                let range = PopulateRange {
                    file: slot,
                    ptr: file.at(begin),
                    len: (file.len - begin).min(WINDOW_LEN) as u32,
                    fd: file.fd.as_raw_fd(),
                    device: file.identity.0,
                    offset: begin,
                };
                (range, file.residency.presence(now, file.fd.as_fd(), file.len, begin))
            })
        })
    }

    /// The descriptor of a file; `None` for empty files, padding and out of range.
    pub fn file_fd(&self, file: FileIndex) -> Option<BorrowedFd<'_>> {
        self.file(file).map(|file| file.fd.as_fd())
    }

    /// Appends a block's bytes to `bytes`, read with pread(2): for a block over more files than one send takes.
    /// It may wait for the disk. On an error `bytes` is as it was.
    pub fn read_block(&self, block: BlockSpan, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
        if let Some(copied) = self.copied_bytes(block) {
            bytes.extend_from_slice(copied);
            return Ok(());
        }
        let before = bytes.len();
        let outcome = self.layout.spans(block).try_for_each(|span| {
            let begin = bytes.len();
            bytes.resize(begin + span.len as usize, 0);
            let part = bytes.get_mut(begin..).unwrap_or_default();
            match self.mapped(span) {
                Some((file, offset)) => read_exactly(&file.fd, part, offset)
                    .map_err(|errno| self.read_error(span.file, errno))?
                    .map_or(Ok(()), |found| Err(self.short(span.file, found))),
                None if self.is_padding(span) => Ok(()),
                None => Err(StorageError::Missing(self.full_path(span.file))),
            }
        });
        if outcome.is_err() {
            bytes.truncate(before);
        }
        outcome
    }

    /// Reports that the kernel could not read content: with the file when it is known, which it is for a read from
    /// the disk and not for a send (EFAULT). Looks at the files for the reason, so not for data cores; answers the fault
    /// that stays, or none when it was a shortage.
    pub fn fail_unreadable(&self, file: Option<FileIndex>, errno: Errno) -> Option<&StorageError> {
        if self.fault().is_none() {
            let found = match file {
                Some(file) => self.verify_file(file),
                None => self.verify_files(),
            };
            let found = found.err().filter(|error| !error.is_shortage());
            self.fail(found.unwrap_or_else(|| match file {
                Some(file) => self.read_error(file, errno),
                None => StorageError::at("read", &self.root.full_path(Path::new("")), errno),
            }));
        }
        self.fault()
    }

    /// [`Self::fail_unreadable`] on a thread that may wait; `told` is called there when its fault is known. While somebody
    /// looks already, nobody else does, and only that one is told.
    pub fn fail_unreadable_later(
        self: &Arc<Self>,
        file: Option<FileIndex>,
        errno: Errno,
        told: Box<dyn FnOnce() + Send>,
    ) {
        if self.is_suspected.swap(true, AcqRel) {
            return;
        }
        let content = Arc::clone(self);
        let look = move |can_run| {
            if can_run {
                content.fail_unreadable(file, errno);
                told();
            }
            content.is_suspected.store(false, Release);
        };
        run_later(self.device(), Box::new(look));
    }

    /// The first fault that anybody reported. Content with a fault is not to be served any more.
    pub fn fault(&self) -> Option<&StorageError> {
        self.fault.get()
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays. A shortage is none.
    pub fn fail(&self, fault: StorageError) -> bool {
        !fault.is_shortage() && self.fault.set(fault).is_ok()
    }

    /// Looks at every file: two system calls each, none of which reads content. Neither reports nor forgets a
    /// fault. Not for data cores.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        self.mapped_files().try_for_each(|(index, _)| self.verify_file(index))
    }

    /// Whether the file is still the one that was opened, as long and (unless pieces are being written) as old, and
    /// still lies at its path.
    pub fn verify_file(&self, file: FileIndex) -> Result<(), StorageError> {
        let Some(mapped) = self.file(file) else { return Ok(()) };
        let path = || self.full_path(file);
        // Asked first: once the writing has ended, the states of then are there.
        let may_be_younger = self.is_writable.load(Acquire);
        let opened = mapped.opened();
        let open = mapped.state().map_err(|errno| StorageError::at("inspect", &path(), errno))?;
        if open.len != opened.len {
            return Err(StorageError::Length { path: path(), expected: opened.len, found: open.len });
        }
        let there = match self.root.state(self.relative_path(file)) {
            Err(StorageError::Missing(path)) => return Err(StorageError::Vanished(path)),
            other => other?,
        };
        // What has another number and is otherwise what we have open, to the nanosecond, is that.
        let is_open = (there.len, there.mtime, there.ctime) == (open.len, open.mtime, open.ctime);
        if there.identity != opened.identity && !is_open {
            return Err(StorageError::Replaced(path()));
        }
        if open.mtime != opened.mtime && !may_be_younger {
            return Err(StorageError::Modified(path()));
        }
        Ok(())
    }

    fn read_error(&self, file: FileIndex, errno: Errno) -> StorageError {
        StorageError::at("read", &self.full_path(file), errno)
    }

    fn short(&self, file: FileIndex, found: u64) -> StorageError {
        let expected = self.layout.file(file).map_or(self.layout.total_len(), |file| file.len);
        StorageError::Length { path: self.full_path(file), expected, found }
    }

    /// Where a file lies below the root; the parts file for a number behind the torrent's.
    fn relative_path(&self, file: FileIndex) -> &Path {
        let parts = || self.selection.parts_path().unwrap_or(Path::new(""));
        self.layout.file(file).map_or_else(parts, |file| &file.path)
    }

    fn full_path(&self, file: FileIndex) -> PathBuf {
        self.root.full_path(self.relative_path(file))
    }

    /// The mapping that has the span's bytes, and the offset there. `None` for padding and for a span that this content
    /// does not have.
    fn mapped(&self, span: FileSpan) -> Option<(&MappedFile, u64)> {
        if let Some(file) = self.file(span.file) {
            return file.has(span.offset, span.len).then_some((file, span.offset));
        }
        let end = span.offset.checked_add(u64::from(span.len))?;
        self.layout.file(span.file).filter(|file| end <= file.len)?;
        let place = self.selection.place(&self.layout, span)?;
        let file = self.file(place.file)?;
        file.has(place.offset, span.len).then_some((file, place.offset))
    }

    /// The number of the file that [`Self::mapped`] finds.
    fn slot_of(&self, span: FileSpan) -> Option<FileIndex> {
        match self.file(span.file) {
            Some(_) => Some(span.file),
            None => self.selection.place(&self.layout, span).map(|place| place.file),
        }
    }

    fn is_padding(&self, span: FileSpan) -> bool {
        let end = span.offset.checked_add(u64::from(span.len));
        let file = self.layout.file(span.file);
        file.is_some_and(|file| file.padding && end.is_some_and(|end| end <= file.len))
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        if self.is_closed_elsewhere {
            self.room.iter().for_each(Room::begin_closing);
            let device = self.device();
            // In this order: the files are closed before others may be opened in their place.
            let files = (std::mem::take(&mut self.files), self.parts_file.take());
            drop_later(device, Box::new((files, self.room.take())));
        }
    }
}

mod copied;
mod create;
mod others;
mod write;

use copied::CopiedFiles;

pub use create::{Allocation, Created};
pub(super) use create::{create_files, lock_to_read, lock_to_write};
pub(super) use write::{may_keep, parts_of, write_exactly};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod write_tests;
