//! Pieces into files, and files onto the disk.
//!
//! By pwrite(2): a full or broken disk is an error number that costs one piece's write, and the same content can be
//! tried again when there is room. Any number of threads may write different pieces at once. What was written is
//! in the page cache, from which it is served at once; [`Content::sync`] brings it to the disk. Invariant: only whole
//! pieces are written, and padding never is.

use super::Content;
use super::create::lock_to_read;
use crate::storage::error::StorageError;
use crate::storage::layout::{FileIndex, FileSpan, Layout};
use crate::storage::selection::FileSelection;
use crate::units::PieceIndex;
use rustix::fd::AsFd;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};

impl Content {
    /// Writes a piece, whose hash the caller has checked. May wait for the disk.
    ///
    /// # Errors
    /// Bytes that are no such piece, or content where padding is declared; content that is not open for writing; what
    /// the disk says. Parts of the piece may have been written then; writing it again is safe.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), StorageError> {
        self.write_where(piece, bytes, |_| true)
    }

    /// [`Self::write_piece`] of a piece that lies on the disk as it did while `former` was the selection: only what lies elsewhere
    /// now is written.
    pub(in crate::storage) fn move_piece(
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
            match self.mapped(span) {
                _ if !is_due(span.file) => {}
                Some((file, offset)) => {
                    let slot = self.slot_of(span).unwrap_or(span.file);
                    let place = |offset| FileSpan { file: slot, offset, len: span.len };
                    self.aside.as_ref().map_or(Ok(()), |aside| aside.before_writing(place(offset), part))?;
                    // Set before, too: bytes that an error leaves behind are no reason to forget the file.
                    file.is_unsynced.store(true, Release);
                    let outcome = file.write(|fd| write_exactly(fd, part, offset));
                    file.is_unsynced.store(true, Release);
                    outcome
                        .map_err(|errno| StorageError::writing("write", &self.full_path(span.file), errno))?;
                }
                None if self.is_padding(span) => {}
                None => return Err(StorageError::NotOpenForWriting(self.full_path(span.file))),
            }
        }
        Ok(())
    }

    /// Brings to the disk what was written since the last call (fsync(2), since the time of the last write has to hold, too:
    /// a record goes by it), and, the first time, the folders' new entries. Pieces whose `write_piece` had returned before this was called are durable when it succeeds, unless
    /// it has ever answered [`StorageError::Unsynced`]: the kernel tells once that it has lost something. Waits for
    /// the disk.
    pub fn sync(&self) -> Result<(), StorageError> {
        for (index, file) in self.mapped_files() {
            if file.is_unsynced.swap(false, AcqRel)
                && let Err(errno) = rustix::fs::fsync(&file.fd)
            {
                file.is_unsynced.store(true, Release);
                return Err(StorageError::Unsynced { path: self.full_path(index), errno });
            }
        }
        if self.are_folders_unsynced.load(Acquire) {
            self.sync_folders()?;
            self.are_folders_unsynced.store(false, Release);
        }
        Ok(())
    }

    fn sync_folders(&self) -> Result<(), StorageError> {
        let folders: BTreeSet<&Path> = self
            .mapped_files()
            .flat_map(|(index, _)| self.relative_path(index).ancestors().skip(1))
            .collect();
        folders.into_iter().try_for_each(|folder| self.root.sync_folder(folder))
    }

    /// Ends the writing: from now on the files are to be as they are now, and [`Self::verify_files`] tells who changes
    /// them. Nothing may be writing any more when this is called; what is written afterwards is refused.
    pub fn finish(&self) -> Result<(), StorageError> {
        for (index, file) in self.mapped_files() {
            let state =
                file.state().map_err(|errno| StorageError::at("inspect", &self.full_path(index), errno))?;
            file.note(state);
            // Nobody writes any more: those who seed the file may come in. Held is held already.
            let _ = lock_to_read(&file.fd, &self.full_path(index));
        }
        // Last, so that who finds the writing ended finds the new states, too.
        self.is_writable.store(false, Release);
        Ok(())
    }

    /// Whether pieces can be written.
    pub fn is_writable(&self) -> bool {
        self.is_writable.load(Acquire)
    }
}

/// Whether these bytes can be kept as this piece, looked at first, so that what cannot leaves nothing behind.
pub(in crate::storage) fn may_keep(
    layout: &Layout,
    piece: PieceIndex,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let due = layout.piece_len(piece);
    if due == 0 || due as usize != bytes.len() {
        return Err(StorageError::NotThePiece { piece, expected: due, found: bytes.len() });
    }
    let is_padding = |span: FileSpan| layout.file(span.file).is_some_and(|file| file.padding);
    let has_content =
        |(span, part): (FileSpan, &[u8])| is_padding(span) && part.iter().any(|&byte| byte != 0);
    if parts_of(layout, piece, bytes).any(has_content) {
        return Err(StorageError::PaddingWithContent(piece));
    }
    Ok(())
}

/// A piece's bytes, file by file.
pub(in crate::storage) fn parts_of<'a>(
    layout: &'a Layout,
    piece: PieceIndex,
    mut bytes: &'a [u8],
) -> impl Iterator<Item = (FileSpan, &'a [u8])> {
    layout.spans(layout.piece_span(piece)).map(move |span| {
        let (part, behind) = bytes.split_at_checked(span.len as usize).unwrap_or_default();
        bytes = behind;
        (span, part)
    })
}

/// Writes all of `bytes` from `offset` on, however short the single writes.
pub(in crate::storage) fn write_exactly(
    fd: impl AsFd,
    mut bytes: &[u8],
    mut offset: u64,
) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(&fd, bytes, offset) {
            // A write of nothing without an error has no reason to ever end.
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                offset += count as u64;
                bytes = bytes.get(count..).unwrap_or_default();
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
