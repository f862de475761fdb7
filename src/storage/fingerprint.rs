//! What tells one state of a torrent's files from another.
//!
//! A [`Fingerprint`] is each file's length and time of last write; when both are as they were, so is the content,
//! as every file system but a deceitful one promises. It has to be taken before the check that it
//! vouches for: what is written during the check then shows as a difference.
//! Deliberately absent: device and inode numbers, since a restored backup is as good.

use super::error::StorageError;
use super::layout::{FileIndex, Layout, LayoutFile};
use super::root::{FileState, Root};
use super::selection::FileSelection;
use std::path::Path;

/// The state of one file that has bytes on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// Bytes.
    pub len: u64,
    /// Last write, whole seconds since 1970.
    pub mtime_secs: i64,
    /// Last write, nanoseconds after those seconds.
    pub mtime_nanos: u32,
}

/// The state of all files of a torrent that have bytes on disk, and of its parts file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// In the torrent's order; `None` for one that is missing, no file, or not wanted.
    pub(super) files: Vec<Option<FileStamp>>,
    /// `None` when there is none.
    pub(super) parts: Option<FileStamp>,
}

impl Fingerprint {
    /// Looks at every file, one system call each. Only a root that cannot be opened is an error.
    pub fn take(layout: &Layout, root: &Path) -> Result<Self, StorageError> {
        Self::take_selected(layout, root, &FileSelection::all())
    }

    /// [`Self::take`] of the files that are selected, and of the parts file if there can be one.
    pub fn take_selected(
        layout: &Layout,
        root: &Path,
        selection: &FileSelection,
    ) -> Result<Self, StorageError> {
        let root = Root::open(root)?;
        let state = |(index, file): (FileIndex, &LayoutFile)| {
            if selection.contains(index) { root.state(&file.path).ok() } else { None }
        };
        let parts = selection.parts_path().filter(|_| selection.border_pieces(layout).count() > 0);
        let parts = parts.and_then(|path| root.state(path).ok());
        Ok(Self::of(layout.stored_files().map(state), parts))
    }

    /// Of the states of the files that have bytes on disk, in the torrent's order, and of the parts file.
    pub(super) fn of(states: impl Iterator<Item = Option<FileState>>, parts: Option<FileState>) -> Self {
        let files = states.map(|state| state.map(FileStamp::of)).collect();
        Self { files, parts: parts.map(FileStamp::of) }
    }

    /// Whether every file is there and as it was.
    pub fn matches(&self, layout: &Layout, root: &Path) -> bool {
        self.files.iter().all(Option::is_some) && Self::take(layout, root).is_ok_and(|now| now == *self)
    }

    /// The first file that is not the same in both; both are of `layout`.
    pub(super) fn first_difference<'a>(&self, other: &Self, layout: &'a Layout) -> Option<&'a LayoutFile> {
        let mut pairs = self.files.iter().zip(&other.files).zip(layout.stored_files());
        pairs.find(|((one, other), _)| one != other).map(|(_, (_, file))| file)
    }
}

impl FileStamp {
    /// Last write: seconds since 1970 and nanoseconds.
    pub(super) fn mtime(self) -> (i64, u32) {
        (self.mtime_secs, self.mtime_nanos)
    }

    fn of(state: FileState) -> Self {
        Self { len: state.len, mtime_secs: state.mtime.0, mtime_nanos: state.mtime.1 }
    }
}
