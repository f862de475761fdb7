//! What is here already of a download whose selection of files is another than before.
//!
//! With the selection, bytes at the borders of files change their place: into files that are wanted now and were not, out of the
//! parts file, or into it. Pieces that are right where their bytes lay are taken along, each hashed before it counts, and only the
//! bytes that change their place are written. A parts file that no piece needs any more is removed. Where no record tells what the
//! selection was, it was the files that are there: another client's copy, or a download whose record is lost. Invariant: nothing is
//! removed before what it held is in its place and the download has brought that to the disk.

use super::download::DownloadContent;
use super::error::StorageError;
use super::extents::pieces_with_data;
use super::hash::piece_hash;
use super::layout::{FileIndex, FileSpan, Layout};
use super::piece_reader::{PieceReader, read_exactly};
use super::resume::Resume;
use super::root::Root;
use super::selection::{FileSelection, parts_path, pieces_where};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use crate::units::PieceIndex;
use rustix::fd::OwnedFd;
use rustix::fs::{FlockOperation, SeekFrom};
use rustix::io::Errno;
use std::path::Path;
use std::sync::atomic::AtomicBool;

/// How bytes lay before this run, and the pieces that may be right so and lie otherwise now.
#[derive(Clone, Debug)]
pub struct Former {
    selection: FileSelection,
    pieces: Bitfield,
}

impl Former {
    /// What lay otherwise below `root`, when the files of `selection` are wanted now; `None` when nothing did. Looks at files,
    /// reads no content, and has to be asked before any file is made.
    pub fn find(
        layout: &Layout,
        root: &Path,
        info_hash: InfoHash,
        selection: &FileSelection,
        record: Option<&Resume>,
    ) -> Option<Self> {
        let folder = Root::open(root).ok()?;
        let is_of_folder = |record: &&Resume| {
            record.selection.fits(layout) && record.folder.is_some() && record.folder == folder.folder()
        };
        let former = match record.filter(is_of_folder) {
            Some(record) => record.selection.clone(),
            None => FileSelection::only(layout, info_hash, |file| {
                let there = layout.file(file).and_then(|file| folder.look(&file.path).ok().flatten());
                there.is_some_and(|state| state.len > 0)
            }),
        };
        if former == *selection {
            return None;
        }
        let wanted = selection.wanted_pieces(layout);
        let with_data = pieces_with_data(layout, root, &former).ok()?;
        let has_moved = |span: FileSpan| former.is_elsewhere(selection, layout, span.file);
        let pieces = pieces_where(layout.piece_count(), |piece| {
            wanted.contains(piece)
                && with_data.contains(piece)
                && layout.spans(layout.piece_span(piece)).any(has_moved)
        });
        (pieces.count() > 0).then_some(Self { selection: former, pieces })
    }

    /// Files that were wanted, and lie where they lay.
    pub fn selection(&self) -> &FileSelection {
        &self.selection
    }

    /// The pieces; wanted now, and with bytes that lay elsewhere.
    pub fn pieces(&self) -> &Bitfield {
        &self.pieces
    }

    /// Leaves these pieces out: it is known of them what they are.
    pub fn without(mut self, known: &Bitfield) -> Option<Self> {
        known.iter().for_each(|piece| _ = self.pieces.remove(piece));
        (self.pieces.count() > 0).then_some(self)
    }

    /// Takes pieces along into `content`, which has been opened below `root` since. `right` were found right as they lay; those
    /// that still are, and could be written where their bytes lie now, are answered.
    pub fn take_along(
        &self,
        root: &Path,
        right: &Bitfield,
        expected: &dyn Fn(PieceIndex) -> Option<[u8; 20]>,
        content: &DownloadContent,
    ) -> Bitfield {
        let layout = content.layout();
        let mut taken = Bitfield::none(layout.piece_count());
        let Ok(root) = Root::open(root) else { return taken };
        let never = AtomicBool::new(false);
        let mut reader = PieceReader::new(layout, &root, &self.selection, &never);
        let mut bytes = Vec::new();
        for piece in right.iter() {
            bytes.resize(layout.piece_len(piece) as usize, 0);
            let is_right = reader.read(piece, &mut bytes) && expected(piece) == Some(piece_hash(&bytes));
            // What cannot be written now is downloaded, which tells why it cannot be.
            if is_right && content.move_piece(piece, &bytes, &self.selection).is_ok() {
                taken.insert(piece);
            }
        }
        taken
    }
}

impl FileSelection {
    /// Whether bytes of a file lie elsewhere when these files are selected than when those of `other` are.
    pub(super) fn is_elsewhere(&self, other: &Self, layout: &Layout, file: FileIndex) -> bool {
        self.contains(file) != other.contains(file) && layout.file(file).is_some_and(|file| !file.padding)
    }
}

/// Removes the torrent's parts file when no piece of the selected files lies in it, and nothing that is not in these files as
/// well. What has its name and holds anything else is somebody else's and stays, as does one that somebody else has open. To be
/// called when everything wanted is here.
///
/// # Errors
/// What the disk says.
pub fn remove_unused_parts(
    layout: &Layout,
    root: &Path,
    selection: &FileSelection,
    info_hash: InfoHash,
) -> Result<(), StorageError> {
    let root = Root::open(root)?;
    let path = parts_path(info_hash);
    if selection.border_pieces(layout).count() > 0 || root.look(&path)?.is_none() {
        return Ok(());
    }
    let (fd, state) = root.open_file(&path)?;
    if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(());
    }
    let read = |errno| StorageError::at("read", &root.full_path(&path), errno);
    if !holds_no_more(layout, &root, selection, &fd, state.len).map_err(read)? {
        tracing::warn!(path = %root.full_path(&path).display(), "a file with the name of a parts file holds something else; it stays");
        return Ok(());
    }
    root.remove_file(&path)
}

/// Whether every byte of a parts file of `len` bytes is zero or the one that the files have at its place.
fn holds_no_more(
    layout: &Layout,
    root: &Root,
    selection: &FileSelection,
    fd: &OwnedFd,
    len: u64,
) -> Result<bool, Errno> {
    let never = AtomicBool::new(false);
    let mut reader = PieceReader::new(layout, root, selection, &never);
    let piece_length = u64::from(layout.piece_length());
    let (mut there, mut here) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < len {
        // Behind the last data the kernel answers NXIO; a file system that does not tell has no holes.
        at = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => data.max(at),
            Err(Errno::NXIO) => return Ok(true),
            Err(_) => at,
        };
        let Some(piece) = u32::try_from(at / piece_length).ok().filter(|&piece| piece < layout.piece_count())
        else {
            return Ok(false);
        };
        let (start, piece_len) =
            (u64::from(piece) * piece_length, layout.piece_len(PieceIndex(piece)) as usize);
        there.clear();
        there.resize(piece_len, 0);
        here.resize(piece_len, 0);
        read_exactly(fd, &mut there, start)?;
        let is_here = reader.read(PieceIndex(piece), &mut here);
        if there.iter().zip(&here).any(|(&there, &here)| there != 0 && !(is_here && there == here)) {
            return Ok(false);
        }
        at = start + piece_len as u64;
    }
    Ok(true)
}
