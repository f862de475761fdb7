//! Content that is downloaded: open as a whole where its files are few, by parts where they are more than may be open.

use super::content::{Allocation, Content, Created};
use super::error::StorageError;
use super::fingerprint::Fingerprint;
use super::layout::Layout;
use super::many_files::{Known, ManyFiles};
use super::ownership::Claims;
use super::resume::BootId;
use super::selection::FileSelection;
use super::shelf::Shelf;
use crate::bitfield::Bitfield;
use crate::units::PieceIndex;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The files that pieces of one torrent are written into.
#[derive(Clone, Debug)]
pub enum DownloadContent {
    /// All of them are open and mapped as long as this lives.
    Open(Arc<Content>),
    /// Each is open while it is needed.
    ManyFiles(Arc<ManyFiles>),
}

/// Where a torrent is downloaded to, and what is known of that place.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    /// The folder.
    pub root: &'a Path,
    /// The files wanted.
    pub selection: &'a FileSelection,
    /// What is done about disk space.
    pub allocation: Allocation,
    /// What may be done with the files that are there.
    pub claims: &'a Claims,
    /// The pieces that are right.
    pub have: &'a Bitfield,
    /// Those of them that have been brought to the disk.
    pub durable: &'a Bitfield,
    /// Files that may be open at once.
    pub files_max: usize,
}

impl DownloadContent {
    /// Opens the selected files for downloading into, as [`Content::create`] says; of more than may be open at once only a few
    /// at a time.
    ///
    /// # Errors
    /// As there.
    pub fn create(layout: Arc<Layout>, target: Target<'_>) -> Result<(Self, Created), StorageError> {
        let Target { root, selection, allocation, claims, have, durable, files_max } = target;
        let wanted = layout.stored_files().filter(|&(file, _)| selection.contains(file)).count();
        // The folder has a descriptor, and so may the parts file.
        if wanted + 2 <= files_max {
            let (content, created) = Content::create(layout, root, selection, allocation, claims)?;
            let content = content.keeping(claims)?.closed_elsewhere();
            return Ok((Self::Open(Arc::new(content)), created));
        }
        let (known, shelf) = (Known { have, durable }, Shelf::new(files_max));
        let (content, created) =
            ManyFiles::create(layout, root, selection, allocation, claims, known, &shelf)?;
        Ok((Self::ManyFiles(Arc::new(content)), created))
    }

    /// Where pieces lie in files.
    pub fn layout(&self) -> &Arc<Layout> {
        match self {
            Self::Open(content) => content.layout(),
            Self::ManyFiles(content) => content.layout(),
        }
    }

    /// The device that most of it lies on, in the kernel's number; zero when it has no files.
    pub fn device(&self) -> u64 {
        match self {
            Self::Open(content) => content.device(),
            Self::ManyFiles(content) => content.device(),
        }
    }

    /// The folder that it lies in, as the user named it.
    pub fn root_path(&self) -> &Path {
        match self {
            Self::Open(content) => content.root_path(),
            Self::ManyFiles(content) => content.root_path(),
        }
    }

    /// The same without links; `None` when that cannot be told.
    pub fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Open(content) => content.folder(),
            Self::ManyFiles(content) => content.folder(),
        }
    }

    /// The life of the page cache that has what is written here.
    pub fn boot_id(&self) -> Option<BootId> {
        match self {
            Self::Open(content) => content.boot_id(),
            Self::ManyFiles(content) => content.boot_id(),
        }
    }

    /// The first fault that anybody met.
    pub fn fault(&self) -> Option<&StorageError> {
        match self {
            Self::Open(content) => content.fault(),
            Self::ManyFiles(content) => content.fault(),
        }
    }

    /// Reports a fault; true when it is the first, and thereby the one that stays. A shortage is none.
    pub fn fail(&self, fault: StorageError) -> bool {
        match self {
            Self::Open(content) => content.fail(fault),
            Self::ManyFiles(content) => content.fail(fault),
        }
    }

    /// Looks at every file, or, of more than may be open, at some, and at the others the next times. Not for data cores.
    ///
    /// # Errors
    /// What has changed.
    pub fn verify_files(&self) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.verify_files(),
            Self::ManyFiles(content) => content.verify_files(),
        }
    }

    /// The files as they are now.
    pub fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Open(content) => content.fingerprint(),
            Self::ManyFiles(content) => content.fingerprint(),
        }
    }

    /// Writes a piece, whose hash the caller has checked: see [`Content::write_piece`]. May wait for the disk.
    ///
    /// # Errors
    /// As there.
    pub fn write_piece(&self, piece: PieceIndex, bytes: &[u8]) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.write_piece(piece, bytes),
            Self::ManyFiles(content) => content.write_piece(piece, bytes),
        }
    }

    /// [`Self::write_piece`] of a piece that lies on the disk as it did while `former` was the selection: only what lies elsewhere
    /// now is written.
    pub(super) fn move_piece(
        &self,
        piece: PieceIndex,
        bytes: &[u8],
        former: &FileSelection,
    ) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.move_piece(piece, bytes, former),
            Self::ManyFiles(content) => content.move_piece(piece, bytes, former),
        }
    }

    /// Brings to the disk what was written: see [`Content::sync`]. It may take long with many files; `progressed` is called in
    /// between.
    ///
    /// # Errors
    /// As there.
    pub fn sync(&self, progressed: &mut dyn FnMut()) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.sync(),
            Self::ManyFiles(content) => content.sync(progressed),
        }
    }

    /// The pieces that somebody else may have written over since they were written: see
    /// [`Content::pieces_others_may_have_changed`]. Of more files than may be open each is compared when it is opened again
    /// instead.
    pub fn pieces_others_may_have_changed(&self) -> Bitfield {
        match self {
            Self::Open(content) => content.pieces_others_may_have_changed(),
            Self::ManyFiles(content) => Bitfield::none(content.layout().piece_count()),
        }
    }

    /// Whether somebody else was seen to write: see [`Content::have_others_written`].
    pub fn have_others_written(&self) -> bool {
        matches!(self, Self::Open(content) if content.have_others_written())
    }

    /// Reads again what somebody else may have written over: see [`Content::look_for_others`].
    ///
    /// # Errors
    /// As there.
    pub fn look_for_others(
        &self,
        here: &Bitfield,
        hash: impl Fn(PieceIndex) -> Option<[u8; 20]>,
    ) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.look_for_others(here, hash),
            Self::ManyFiles(_) => Ok(()),
        }
    }

    /// Where its folder is now when the path that the user named leads there no longer.
    pub fn moved_to(&self) -> Option<PathBuf> {
        match self {
            Self::Open(content) => content.moved_to(),
            Self::ManyFiles(content) => content.moved_to(),
        }
    }

    /// Ends the writing: see [`Content::finish`].
    ///
    /// # Errors
    /// As there.
    pub fn finish(&self) -> Result<(), StorageError> {
        match self {
            Self::Open(content) => content.finish(),
            Self::ManyFiles(content) => content.finish(),
        }
    }
}

impl From<Arc<Content>> for DownloadContent {
    fn from(content: Arc<Content>) -> Self {
        Self::Open(content)
    }
}
