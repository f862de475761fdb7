//! A torrent's content, open and mapped: what every worker shares and sends from.
//!
//! Immutable after [`Content::open`] but for two things that only ever grow more recent: which windows were seen
//! in the page cache, and the first fault anybody met. Invariant: every pointer handed out lies, with its
//! length, inside a mapping (or the zeros of padding) that lives as long as the `Content`. The pointers are
//! for the kernel alone. A file may shrink below its mapping at any time: the kernel then answers EFAULT where
//! a read from here would be SIGBUS, and the tail of the last page goes out as zeros without any error, so
//! [`Content::verify_files`] has to be asked from time to time, off the data cores.
//!
//! Absent: any look at bytes, and files without bytes on disk (empty ones and padding), which are never opened.

use super::error::StorageError;
use super::fingerprint::Fingerprint;
use super::layout::{FileIndex, FileSpan, Layout};
use super::piece_reader::read_exactly;
use super::residency::{Residency, WINDOW_LEN};
use super::root::{FileState, Root};
use crate::time::Instant;
use crate::units::{BLOCK_LEN, BlockSpan};
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use rustix::io::Errno;
use std::path::Path;
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
    /// The file.
    pub file: FileIndex,
    /// First byte in memory, at a page's beginning.
    pub ptr: *const u8,
    /// Number of bytes.
    pub len: usize,
    /// The file's descriptor, open as long as the `Content` lives.
    pub fd: RawFd,
    /// First byte within the file.
    pub offset: u64,
}

/// The open content of one torrent.
#[derive(Debug)]
pub struct Content {
    layout: Arc<Layout>,
    root: Root,
    /// By file index; `None` for empty files and padding.
    files: Box<[Option<MappedFile>]>,
    fault: OnceLock<StorageError>,
}

#[derive(Debug)]
struct MappedFile {
    map: MmapRaw,
    fd: OwnedFd,
    opened: FileState,
    residency: Residency,
}

impl Content {
    /// Opens and maps every file of `layout` below the folder `root`. Each must be a regular file of exactly the
    /// length that the layout says. Takes one descriptor and one mapping a file; no content is read.
    pub fn open(layout: Arc<Layout>, root: &Path) -> Result<Self, StorageError> {
        let root = Root::open(root)?;
        let mut files: Vec<Option<MappedFile>> = layout.files().iter().map(|_| None).collect();
        for (index, file) in layout.stored_files() {
            let mapped = MappedFile::open(&root, &file.path, file.len)?;
            if let Some(slot) = files.get_mut(index.0 as usize) {
                *slot = Some(mapped);
            }
        }
        Ok(Self { layout, root, files: files.into_boxed_slice(), fault: OnceLock::new() })
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// Where a span's bytes lie in memory: one slice of a mapping, or for padding one slice of zeros a block.
    /// Nothing for a span that this content does not have.
    pub fn slice(&self, span: FileSpan) -> impl Iterator<Item = IoSlicePtr> + use<> {
        let (ptr, step) = match self.mapped(span) {
            Some(file) => (file.at(span.offset), span.len),
            None => (ZEROS.as_ptr(), BLOCK_LEN),
        };
        let mut left = if self.has(span) { span.len } else { 0 };
        std::iter::from_fn(move || {
            let len = left.min(step);
            left -= len;
            (len > 0).then_some(IoSlicePtr { ptr, len: len as usize })
        })
    }

    /// Where a block's bytes lie in memory, in order. Nothing for a block that the layout does not contain.
    /// A block over tiny files has as many slices as files, which may be more than one send takes (IOV_MAX).
    pub fn slices(&self, block: BlockSpan) -> impl Iterator<Item = IoSlicePtr> {
        self.layout.spans(block).flat_map(|span| self.slice(span))
    }

    /// The files as they were when they were opened. Equal to a fingerprint taken before a check, it says that what is
    /// mapped here is what was checked.
    pub fn fingerprint(&self) -> Fingerprint {
        let indices = self.layout.stored_files().map(|(index, _)| index.0 as usize);
        let opened = indices.map(|index| self.files.get(index)?.as_ref().map(|file| file.opened));
        Fingerprint::of(opened)
    }

    /// Whether a send of these bytes would find all of them in memory, as far as can be known: pages may be
    /// evicted between the answer and the send. Asked in windows of 256 KiB; a positive
    /// answer is kept for about a second, so the usual cost is one load a window, else one system call.
    pub fn is_resident(&self, now: Instant, file: FileIndex, offset: u64, len: u32) -> bool {
        let span = FileSpan { file, offset, len };
        match self.mapped(span) {
            Some(file) => {
                file.residency.contains(now, file.fd.as_fd(), file.opened.len, offset, len as usize)
            }
            None => true,
        }
    }

    /// [`Self::is_resident`] for all of a block.
    pub fn is_block_resident(&self, now: Instant, block: BlockSpan) -> bool {
        self.layout.spans(block).all(|span| self.is_resident(now, span.file, span.offset, span.len))
    }

    /// Notes that the span's windows are being brought into memory. Until [`Self::mark_resident`], or for a few
    /// seconds, they count as absent even when the page cache shows pages, whose reads may not have ended.
    pub fn mark_loading(&self, now: Instant, span: FileSpan) {
        if let Some(file) = self.mapped(span) {
            file.residency.mark_loading(now, file.opened.len, span.offset, span.len as usize);
        }
    }

    /// Notes that the span's windows, as [`Self::populate_range`] named them, are in memory now.
    pub fn mark_resident(&self, now: Instant, span: FileSpan) {
        if let Some(file) = self.mapped(span) {
            file.residency.mark_resident(now, file.opened.len, span.offset, span.len as usize);
        }
    }

    /// What to bring into memory before sending the span: its windows whole, so that the next blocks of the
    /// piece are there too. `None` for padding and for a span that this content does not have.
    pub fn populate_range(&self, span: FileSpan) -> Option<PopulateRange> {
        let file = self.mapped(span)?;
        let begin = span.offset / WINDOW_LEN * WINDOW_LEN;
        let end = (span.offset + u64::from(span.len)).next_multiple_of(WINDOW_LEN).min(file.opened.len);
        let len = usize::try_from(end - begin).ok()?;
        Some(PopulateRange {
            file: span.file,
            ptr: file.at(begin),
            len,
            fd: file.fd.as_raw_fd(),
            offset: begin,
        })
    }

    /// The descriptor of a file; `None` for empty files, padding and out of range.
    pub fn file_fd(&self, file: FileIndex) -> Option<BorrowedFd<'_>> {
        self.files.get(file.0 as usize)?.as_ref().map(|file| file.fd.as_fd())
    }

    /// Appends a block's bytes to `bytes`, read with pread(2): for a block over more files than one send takes.
    /// It may wait for the disk. On an error `bytes` is as it was.
    pub fn read_block(&self, block: BlockSpan, bytes: &mut Vec<u8>) -> Result<(), StorageError> {
        let before = bytes.len();
        let outcome = self.layout.spans(block).try_for_each(|span| {
            let begin = bytes.len();
            bytes.resize(begin + span.len as usize, 0);
            let part = bytes.get_mut(begin..).unwrap_or_default();
            match self.mapped(span) {
                Some(file) => read_exactly(&file.fd, part, span.offset)
                    .map_err(|errno| self.read_error(span.file, errno))?
                    .map_or(Ok(()), |found| Err(self.short(span.file, found))),
                None => Ok(()),
            }
        });
        if outcome.is_err() {
            bytes.truncate(before);
        }
        outcome
    }

    /// Reports that the kernel could not read content: with the file when it is known, which it is for a read from
    /// the disk and not for a send (EFAULT). Looks at the files for the reason, so not for every completion
    /// but for the first; answers the fault that stays.
    pub fn fail_unreadable(&self, file: Option<FileIndex>, errno: Errno) -> &StorageError {
        self.fault.get_or_init(|| {
            let found = match file {
                Some(file) => self.verify_file(file),
                None => self.verify_files(),
            };
            found.err().unwrap_or_else(|| match file {
                Some(file) => self.read_error(file, errno),
                None => StorageError::at("read", &self.root.full_path(Path::new("")), errno),
            })
        })
    }

    /// The first fault that anybody reported. Content with a fault is not to be served any more.
    pub fn fault(&self) -> Option<&StorageError> {
        self.fault.get()
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays.
    pub fn fail(&self, fault: StorageError) -> bool {
        self.fault.set(fault).is_ok()
    }

    /// Looks at every file: two system calls each, none of which reads content. Neither reports nor forgets a
    /// fault. Not for data cores.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        (0..self.files.len()).try_for_each(|index| self.verify_file(FileIndex(index as u32)))
    }

    /// Whether the file is still the one that was opened, as long and as old, and still lies at its path.
    pub fn verify_file(&self, file: FileIndex) -> Result<(), StorageError> {
        let index = file.0 as usize;
        let (Some(Some(mapped)), Some(described)) = (self.files.get(index), self.layout.file(file)) else {
            return Ok(());
        };
        let path = || self.root.full_path(&described.path);
        let stat =
            rustix::fs::fstat(&mapped.fd).map_err(|errno| StorageError::at("inspect", &path(), errno))?;
        let open = FileState::of(&stat);
        if open.len != mapped.opened.len {
            let (expected, found) = (mapped.opened.len, open.len);
            return Err(StorageError::Length { path: path(), expected, found });
        }
        let there = match self.root.state(&described.path) {
            Err(StorageError::Missing(path)) => return Err(StorageError::Vanished(path)),
            other => other?,
        };
        if there.identity != mapped.opened.identity {
            return Err(StorageError::Replaced(path()));
        }
        if open.mtime != mapped.opened.mtime {
            return Err(StorageError::Modified(path()));
        }
        Ok(())
    }

    fn read_error(&self, file: FileIndex, errno: Errno) -> StorageError {
        let relative = self.layout.file(file).map_or(Path::new(""), |file| &file.path);
        StorageError::at("read", &self.root.full_path(relative), errno)
    }

    fn short(&self, file: FileIndex, found: u64) -> StorageError {
        let (relative, expected) =
            self.layout.file(file).map_or((Path::new(""), 0), |file| (&file.path, file.len));
        StorageError::Length { path: self.root.full_path(relative), expected, found }
    }

    /// The mapping of a span that lies inside its file and has bytes on disk.
    fn mapped(&self, span: FileSpan) -> Option<&MappedFile> {
        let file = self.files.get(span.file.0 as usize)?.as_ref()?;
        self.has(span).then_some(file)
    }

    fn has(&self, span: FileSpan) -> bool {
        let end = span.offset.checked_add(u64::from(span.len));
        self.layout.file(span.file).is_some_and(|file| end.is_some_and(|end| end <= file.len))
    }
}

impl MappedFile {
    fn open(root: &Root, relative: &Path, len: u64) -> Result<Self, StorageError> {
        let path = || root.full_path(relative);
        let (fd, opened) = root.open_file(relative)?;
        if opened.len != len {
            return Err(StorageError::Length { path: path(), expected: len, found: opened.len });
        }
        let failed = |error: std::io::Error| match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) | None => StorageError::TooManyMappings(path()),
            Some(errno) => StorageError::at("map", &path(), errno),
        };
        let map_len = usize::try_from(len).map_err(|_| StorageError::TooManyMappings(path()))?;
        let map = MmapOptions::new().len(map_len).map_raw_read_only(&fd).map_err(failed)?;
        // Without this a single absent page makes the kernel read megabytes around it.
        map.advise(Advice::Random).map_err(failed)?;
        Ok(Self { map, fd, opened, residency: Residency::default() })
    }

    /// The address of a byte inside the mapping. Computing it reads nothing.
    fn at(&self, offset: u64) -> *const u8 {
        self.map.as_ptr().wrapping_add(offset as usize)
    }
}

#[cfg(test)]
mod tests;
