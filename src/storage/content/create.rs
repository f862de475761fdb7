//! Opens a torrent's files for downloading into, and makes what is not there.
//!
//! What may be done with a file that is there was judged before ([`Claims`]); here that is done and nothing else, to the
//! very file that was judged. Files that lack no piece are opened for reading only. Padding is never on
//! disk (BEP 47). Invariant: nothing outside the root is opened, made or changed, whatever the torrent's paths and
//! the links in the root are.

use super::{Content, MappedFile};
use crate::storage::error::StorageError;
use crate::storage::layout::{FileIndex, Layout, LayoutFile};
use crate::storage::ownership::{Claim, Claims, Permit};
use crate::storage::root::{FileState, Root, birth_of, is_remote};
use crate::storage::selection::{FileSelection, Place, parts_index};
use rustix::fd::OwnedFd;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

/// What is done about the disk space of files before their bytes come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Allocation {
    /// Nothing: the files have their length at once and take space as pieces are written.
    #[default]
    Sparse,
    /// All of it is reserved at once (fallocate(2)), so that a full disk is told before the download and not during it.
    /// File systems that cannot reserve get sparse files.
    Full,
}

/// What [`Content::create`] found and made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Created {
    /// Files that were not there.
    pub made: u32,
    /// Files that were there and had bytes, which may be the torrent's.
    pub found: u32,
    /// Files whose space was to be reserved and could not be, since the file system does not do that.
    pub unreserved: u32,
}

impl Content {
    /// Opens the files of `layout` that are selected for downloading into, below the folder `root`, as `claims` permits, which
    /// were judged of the same; files and folders that are not there are made, `root` itself included. Takes one descriptor
    /// and one mapping a file that has bytes. What lacks a piece is locked against everybody who downloads or seeds it, the
    /// rest against those who download.
    ///
    /// # Errors
    /// Another process (or content) that downloads into the same files, or seeds what is to be written; a folder, FIFO or
    /// device in the way; a link on the way; a file that has come since the claims were judged; no permission; no space,
    /// with [`Allocation::Full`]; too many files for this process's limits. Files made until then remain.
    pub fn create(
        layout: Arc<Layout>,
        root: &Path,
        selection: &FileSelection,
        allocation: Allocation,
        claims: &Claims,
    ) -> Result<(Self, Created), StorageError> {
        let root = Root::create(root)?;
        let mut files: Vec<Option<MappedFile>> = (0..layout.files().len()).map(|_| None).collect();
        let mut parts_file = None;
        let keep = |place: Place<'_>, fd, state| {
            let birth = birth_of(&fd);
            // Where others keep the times, our own writing moves them later, too.
            let are_times_ours = claims.of_file(place.file).permit != Permit::Read && !is_remote(&fd);
            let mut file = MappedFile::map(fd, state, &root.full_path(place.path))?;
            file.birth = birth;
            if are_times_ours {
                file.tell_others_writes();
            }
            // What an earlier run wrote may be in memory alone, if that run was killed.
            file.is_unsynced.store(true, Relaxed);
            match files.get_mut(place.file.0 as usize) {
                Some(slot) => *slot = Some(file),
                None => parts_file = Some(file),
            }
            Ok(())
        };
        let created = create_files(&layout, &root, selection, allocation, claims, keep)?;
        let mut content = Self::new(layout, root, selection.clone(), files, true);
        content.parts_file = parts_file;
        Ok((content, created))
    }
}

/// Opens or makes the selected files one after the other, and the parts file behind them, and hands each that has bytes
/// over, open and locked. The rest as for [`Content::create`].
pub(in crate::storage) fn create_files(
    layout: &Layout,
    root: &Root,
    selection: &FileSelection,
    allocation: Allocation,
    claims: &Claims,
    mut keep: impl FnMut(Place<'_>, OwnedFd, FileState) -> Result<(), StorageError>,
) -> Result<Created, StorageError> {
    let mut created = Created::default();
    let wanted = (0..).map(FileIndex).zip(layout.files());
    for (file, LayoutFile { path, len, .. }) in
        wanted.filter(|&(index, file)| !file.padding && selection.contains(index))
    {
        let claim = claims.of_file(file);
        if let Some((fd, state)) = open(root, path, *len, claim, allocation, &mut created)? {
            keep(Place { file, path, file_len: *len, offset: 0 }, fd, state)?;
        }
    }
    if let Some(path) = selection.parts_path()
        && selection.border_pieces(layout).count() > 0
    {
        let (file, file_len) = (parts_index(layout), layout.total_len());
        let (claim, mut ignored) = (claims.of_file(file), Created::default());
        if let Some((fd, state)) = open(root, path, file_len, claim, Allocation::Sparse, &mut ignored)? {
            keep(Place { file, path, file_len, offset: 0 }, fd, state)?;
        }
    }
    Ok(created)
}

/// Opens or makes one file of `len` bytes; nothing for one without bytes.
fn open(
    root: &Root,
    relative: &Path,
    len: u64,
    claim: Claim,
    allocation: Allocation,
    created: &mut Created,
) -> Result<Option<(OwnedFd, FileState)>, StorageError> {
    let path = root.full_path(relative);
    let (fd, state) = match claim.permit {
        Permit::Make => root.make_file(relative)?,
        Permit::Read => root.open_file(relative)?,
        Permit::Write | Permit::WriteKeeping | Permit::KeepAndWrite | Permit::CutOff | Permit::Replace => {
            root.open_for_writing(relative)?
        }
    };
    let is_new = claim.permit == Permit::Make;
    if !is_new && claim.identity != Some(state.identity) {
        return Err(StorageError::Replaced(path));
    }
    let is_written = claim.permit != Permit::Read;
    if is_written {
        lock_to_write(&fd, &path)?
    } else {
        lock_to_read(&fd, &path)?
    }
    created.made += u32::from(is_new);
    created.found += u32::from(state.len > 0);
    let failed = |errno| StorageError::writing("extend", &path, errno);
    if state.len > len {
        if claim.permit != Permit::CutOff {
            return Err(StorageError::TooLong { path, expected: len, found: state.len });
        }
        rustix::fs::ftruncate(&fd, len).map_err(failed)?;
    }
    if len == 0 {
        return Ok(None);
    }
    if is_written {
        let is_reserved = allocation == Allocation::Full && reserve(&fd, len).map_err(failed)?;
        created.unreserved += u32::from(allocation == Allocation::Full && !is_reserved);
        if state.len < len && !is_reserved {
            rustix::fs::ftruncate(&fd, len).map_err(failed)?;
        }
    }
    let stat = rustix::fs::fstat(&fd).map_err(|errno| StorageError::at("inspect", &path, errno))?;
    let state = FileState::of(&stat);
    if state.len != len {
        return Err(StorageError::Length { path, expected: len, found: state.len });
    }
    Ok(Some((fd, state)))
}

/// Keeps others from downloading into the file, and from seeding it, as long as it is open. The lock is the file's (flock(2)),
/// so it holds under every name. A file system without locks goes without.
pub(in crate::storage) fn lock_to_write(fd: &OwnedFd, path: &Path) -> Result<(), StorageError> {
    lock(fd, path, FlockOperation::NonBlockingLockExclusive)
}

/// Keeps others from downloading into the file as long as it is open; any number may read it. In place of a lock to write,
/// it lets others in that read.
pub(in crate::storage) fn lock_to_read(fd: &OwnedFd, path: &Path) -> Result<(), StorageError> {
    lock(fd, path, FlockOperation::NonBlockingLockShared)
}

fn lock(fd: &OwnedFd, path: &Path, operation: FlockOperation) -> Result<(), StorageError> {
    match rustix::fs::flock(fd, operation) {
        Err(Errno::WOULDBLOCK) => Err(StorageError::InUse(path.into())),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Reserves a file's space and extends it; false where the file system does not do that.
fn reserve(fd: &OwnedFd, len: u64) -> Result<bool, Errno> {
    loop {
        match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}
