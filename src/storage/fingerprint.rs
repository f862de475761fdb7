//! What tells one state of a torrent's files from another.
//!
//! A [`Fingerprint`] is each file's length, time of last write and time of last change; when all are as they were, so is
//! the content. Anybody may set the time of last write back (`touch -d`, `cp -p`); nobody can that of last change (stat(2),
//! `st_ctime`), which therefore also moves when only the mode, the owner or the number of names has changed: that costs a
//! check. It has to be taken before the check that it vouches for: what is written during the check then shows as a
//! difference. Inode numbers are kept to tell the very file from another of the same path, and are no part of what
//! vouches: some file systems give a file another one from time to time.

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
    /// What an earlier version of the program did not keep.
    pub change: Option<FileChange>,
}

/// What nobody can put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Last change of the file or of its inode, whole seconds since 1970.
    pub ctime_secs: i64,
    /// Nanoseconds after those seconds.
    pub ctime_nanos: u32,
    /// The inode's number, which is given to another file once this one is gone.
    pub inode: u64,
    /// When the inode was made (statx(2), `stx_btime`), likewise: with the number it tells one file from all others. `None`
    /// where the file system does not tell, or an earlier version did not ask.
    pub birth: Option<(i64, u32)>,
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

    /// With the times at which the files were made, as far as they are told; in the order of [`Self::of`].
    pub(super) fn born(
        mut self,
        files: impl Iterator<Item = Option<(i64, u32)>>,
        parts: Option<(i64, u32)>,
    ) -> Self {
        let stamps = self.files.iter_mut().chain([&mut self.parts]);
        for (stamp, birth) in stamps.zip(files.chain([parts])) {
            if let Some(change) = stamp.as_mut().and_then(|stamp| stamp.change.as_mut()) {
                change.birth = birth;
            }
        }
        self
    }

    /// With former stamps where there is none; those of the files in the torrent's order, and that of the parts file.
    pub(super) fn with_former(mut self, former: impl Iterator<Item = Option<FileStamp>>) -> Self {
        let stamps = self.files.iter_mut().chain([&mut self.parts]);
        stamps.zip(former).for_each(|(stamp, former)| *stamp = stamp.or(former));
        self
    }

    /// Whether every file is there and as it was.
    pub fn matches(&self, layout: &Layout, root: &Path) -> bool {
        self.files.iter().all(Option::is_some)
            && Self::take(layout, root).is_ok_and(|now| self.vouches_for(&now))
    }

    /// Whether nothing was written since this was taken, as files are `now`: those that were there are as they were, those
    /// that were missing are missing. A change of which an earlier version kept nothing is not looked for.
    pub fn vouches_for(&self, now: &Self) -> bool {
        self.is_like(now, FileStamp::is_same)
    }

    /// Whether files are as long and as old as they were, whoever may have given them another mode or name meanwhile.
    pub fn is_as_old_as(&self, now: &Self) -> bool {
        self.is_like(now, FileStamp::is_as_old)
    }

    fn is_like(&self, now: &Self, is_like: impl Fn(FileStamp, FileStamp) -> bool) -> bool {
        let pairs = self.files.iter().chain([&self.parts]).zip(now.files.iter().chain([&now.parts]));
        let is_like = |pair| match pair {
            (Some(then), Some(now)) => is_like(then, now),
            (None, None) => true,
            _ => false,
        };
        self.files.len() == now.files.len() && pairs.map(|(then, now)| (*then, *now)).all(is_like)
    }

    /// The first file that is not as long or as old in both; both are of `layout`.
    pub(super) fn first_difference<'a>(&self, other: &Self, layout: &'a Layout) -> Option<&'a LayoutFile> {
        let is_as_old = |pair: (&Option<FileStamp>, &Option<FileStamp>)| match pair {
            (Some(one), Some(other)) => one.is_as_old(*other),
            (one, other) => one == other,
        };
        let mut pairs = self.files.iter().zip(&other.files).zip(layout.stored_files());
        pairs.find(|(pair, _)| !is_as_old(*pair)).map(|(_, (_, file))| file)
    }
}

impl FileStamp {
    /// Last write: seconds since 1970 and nanoseconds.
    pub(super) fn mtime(self) -> (i64, u32) {
        (self.mtime_secs, self.mtime_nanos)
    }

    /// Last change: seconds since 1970 and nanoseconds; `None` when that was not kept.
    pub(super) fn ctime(self) -> Option<(i64, u32)> {
        self.change.map(|change| (change.ctime_secs, change.ctime_nanos))
    }

    /// Whether this is of the very file, made when `birth` says, whatever was written to it since. A time that is not known on
    /// either side tells nothing.
    pub(super) fn is_of(self, file: FileState, birth: Option<(i64, u32)>) -> bool {
        self.change.is_some_and(|then| {
            then.inode == file.identity.1 && then.birth.zip(birth).is_none_or(|(then, now)| then == now)
        })
    }

    /// Whether this is of the very file, and nothing was written to it, nor was it otherwise changed, since.
    pub(super) fn is_untouched(self, file: FileState, birth: Option<(i64, u32)>) -> bool {
        self.is_of(file, birth) && self.is_same(Self::of(file))
    }

    /// Whether nothing was written since.
    pub(super) fn is_same(self, now: Self) -> bool {
        let is_unchanged = self.ctime().zip(now.ctime()).is_none_or(|(then, now)| then == now);
        self.is_as_old(now) && is_unchanged
    }

    fn is_as_old(self, now: Self) -> bool {
        self.len == now.len && self.mtime() == now.mtime()
    }

    fn of(state: FileState) -> Self {
        let (ctime_secs, ctime_nanos) = state.ctime;
        let change = Some(FileChange { ctime_secs, ctime_nanos, inode: state.identity.1, birth: None });
        Self { len: state.len, mtime_secs: state.mtime.0, mtime_nanos: state.mtime.1, change }
    }
}
