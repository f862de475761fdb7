//! Reads whole pieces into a buffer, across file borders, for hashing.
//!
//! By pread(2), never through a mapping: a file that shrinks gives a short read and not SIGBUS, and hashing a
//! terabyte leaves no mapped memory behind. Each reader keeps one file open at a time, so descriptors are as few as
//! readers, however many files there are. Invariant: a file that cannot be read is noted and costs its own
//! pieces, nothing else.

use super::error::StorageError;
use super::layout::{FileIndex, Layout};
use super::root::{FileState, Root};
use super::selection::{FileSelection, Place};
use super::shortage::{is_shortage, outlast};
use crate::time::Duration;
use crate::units::PieceIndex;
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// What is wrong with files, by file; the first trouble of each.
pub(super) type FileTroubles = BTreeMap<FileIndex, StorageError>;

/// One thread's way to a torrent's bytes.
pub(super) struct PieceReader<'a> {
    layout: &'a Layout,
    root: &'a Root,
    selection: &'a FileSelection,
    /// The file opened last; no descriptor when that failed.
    open: Option<(FileIndex, Option<OwnedFd>)>,
    troubles: FileTroubles,
    cancel: &'a AtomicBool,
}

impl<'a> PieceReader<'a> {
    /// A shortage is waited out until `cancel` becomes true.
    pub(super) fn new(
        layout: &'a Layout,
        root: &'a Root,
        selection: &'a FileSelection,
        cancel: &'a AtomicBool,
    ) -> Self {
        Self { layout, root, selection, open: None, troubles: FileTroubles::new(), cancel }
    }

    /// Fills `buffer`, which is as long as the piece, with the piece. False when some of it cannot be read; why is
    /// noted by file. Even then every file of the piece is looked at, so that none goes unnamed.
    pub(super) fn read(&mut self, piece: PieceIndex, buffer: &mut [u8]) -> bool {
        let mut is_complete = true;
        let mut rest = buffer;
        for span in self.layout.spans(self.layout.piece_span(piece)) {
            let Some((part, behind)) = std::mem::take(&mut rest).split_at_mut_checked(span.len as usize)
            else {
                return false;
            };
            rest = behind;
            let Some(place) = self.selection.place(self.layout, span) else {
                // Padding: the layout has every span that it yields.
                part.fill(0);
                continue;
            };
            let cancel = self.cancel;
            let read = match self.opened(place) {
                Some(fd) if is_complete => outlast(
                    Duration::MAX,
                    |&errno| is_shortage(errno) && !cancel.load(Relaxed),
                    || read_exactly(fd, &mut *part, place.offset),
                ),
                Some(_) => Ok(None),
                None => {
                    is_complete = false;
                    Ok(None)
                }
            };
            let trouble = match read {
                Ok(None) => continue,
                Ok(Some(found)) => StorageError::Length {
                    path: self.root.full_path(place.path),
                    expected: place.file_len,
                    found,
                },
                Err(errno) => StorageError::at("read", &self.root.full_path(place.path), errno),
            };
            is_complete = false;
            self.note(place.file, trouble);
        }
        is_complete
    }

    /// What was wrong with files.
    pub(super) fn into_troubles(self) -> FileTroubles {
        self.troubles
    }

    fn opened(&mut self, place: Place<'_>) -> Option<&OwnedFd> {
        let index = place.file;
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            // The old file is closed before the new one is opened, not after.
            self.open = None;
            let may_pass = |error: &StorageError| error.is_shortage() && !self.cancel.load(Relaxed);
            let fd = match outlast(Duration::MAX, may_pass, || self.root.open_file(place.path)) {
                Ok((fd, state)) => {
                    if state.len != place.file_len {
                        let (path, expected) = (self.root.full_path(place.path), place.file_len);
                        self.note(index, StorageError::Length { path, expected, found: state.len });
                    }
                    // Advice only: a file system that takes none is read all the same.
                    let _ = rustix::fs::fadvise(&fd, 0, None, Advice::Sequential);
                    Some(fd)
                }
                Err(trouble) => {
                    self.note(index, trouble);
                    None
                }
            };
            self.open = Some((index, fd));
        }
        self.open.as_ref()?.1.as_ref()
    }

    fn note(&mut self, file: FileIndex, trouble: StorageError) {
        self.troubles.entry(file).or_insert(trouble);
    }
}

/// Fills `buffer` from `offset` on, however short the single reads. `Some(len)` when the file ends before: it has
/// so many bytes, which may be far less than where the reading began.
pub(super) fn read_exactly(
    fd: &OwnedFd,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> Result<Option<u64>, Errno> {
    while !buffer.is_empty() {
        match rustix::io::pread(fd, &mut *buffer, offset) {
            Ok(0) => {
                let len = rustix::fs::fstat(fd).map_or(offset, |stat| FileState::of(&stat).len);
                // It may have grown again meanwhile.
                return Ok(Some(len.min(offset)));
            }
            Ok(count) => {
                offset += count as u64;
                buffer = buffer.get_mut(count..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(None)
}
