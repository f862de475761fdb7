//! Reads whole pieces into a buffer, across file borders, for hashing.
//!
//! By pread(2), never through a mapping: a file that shrinks gives a short read and not SIGBUS, and hashing a
//! terabyte leaves no mapped memory behind. Each reader keeps one file open at a time, so descriptors are as few as
//! readers, however many files there are. Invariant: a file that cannot be read is noted and costs its own
//! pieces, nothing else.

use super::error::StorageError;
use super::layout::{FileIndex, Layout, LayoutFile};
use super::root::Root;
use crate::units::PieceIndex;
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use rustix::io::Errno;
use std::collections::BTreeMap;

/// What is wrong with files, by file; the first trouble of each.
pub(super) type FileTroubles = BTreeMap<FileIndex, StorageError>;

/// One thread's way to a torrent's bytes.
pub(super) struct PieceReader<'a> {
    layout: &'a Layout,
    root: &'a Root,
    /// The file opened last; no descriptor when that failed.
    open: Option<(FileIndex, Option<OwnedFd>)>,
    troubles: FileTroubles,
}

impl<'a> PieceReader<'a> {
    pub(super) fn new(layout: &'a Layout, root: &'a Root) -> Self {
        Self { layout, root, open: None, troubles: FileTroubles::new() }
    }

    /// Fills `buffer`, which is as long as the piece, with the piece. False when some of it cannot be read; why is
    /// noted by file. Even then every file of the piece is looked at, so that none goes unnamed.
    pub(super) fn read(&mut self, piece: PieceIndex, buffer: &mut [u8]) -> bool {
        let mut is_complete = true;
        let mut rest = buffer;
        for span in self.layout.spans(self.layout.piece_span(piece)) {
            let Some(file) = self.layout.file(span.file) else { return false };
            let Some((part, behind)) = std::mem::take(&mut rest).split_at_mut_checked(span.len as usize)
            else {
                return false;
            };
            rest = behind;
            if file.padding {
                part.fill(0);
                continue;
            }
            let read = match self.opened(span.file, file) {
                Some(fd) if is_complete => read_exactly(fd, part, span.offset),
                Some(_) => Ok(None),
                None => {
                    is_complete = false;
                    Ok(None)
                }
            };
            let trouble = match read {
                Ok(None) => continue,
                Ok(Some(end)) => StorageError::Length {
                    path: self.root.full_path(&file.path),
                    expected: file.len,
                    found: end,
                },
                Err(errno) => StorageError::at("read", &self.root.full_path(&file.path), errno),
            };
            is_complete = false;
            self.note(span.file, trouble);
        }
        is_complete
    }

    /// What was wrong with files.
    pub(super) fn into_troubles(self) -> FileTroubles {
        self.troubles
    }

    fn opened(&mut self, index: FileIndex, file: &LayoutFile) -> Option<&OwnedFd> {
        if self.open.as_ref().is_none_or(|(open, _)| *open != index) {
            // The old file is closed before the new one is opened, not after.
            self.open = None;
            let fd = match self.root.open_file(&file.path) {
                Ok((fd, state)) => {
                    if state.len != file.len {
                        let (path, expected) = (self.root.full_path(&file.path), file.len);
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

/// Fills `buffer` from `offset` on, however short the single reads. `Some(end)` when the file ends before, at
/// `end`.
pub(super) fn read_exactly(
    fd: &OwnedFd,
    mut buffer: &mut [u8],
    mut offset: u64,
) -> Result<Option<u64>, Errno> {
    while !buffer.is_empty() {
        match rustix::io::pread(fd, &mut *buffer, offset) {
            Ok(0) => return Ok(Some(offset)),
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
