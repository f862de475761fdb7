//! One open and mapped file of a torrent's content.
//!
//! Invariant: the mapping is as long as the file is due to be and never changes; what the file really is can
//! only be asked. Mapped for reading even when the file is open for writing: writes go through pwrite(2), so a
//! full disk is an error number and not a SIGBUS.

use super::error::StorageError;
use super::residency::Residency;
use super::root::FileState;
use memmap2::{Advice, MmapOptions, MmapRaw};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct MappedFile {
    map: MmapRaw,
    pub(super) fd: OwnedFd,
    /// Bytes, mapped and due.
    pub(super) len: u64,
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// As it was when it was opened, or when its download ended.
    noted: Mutex<FileState>,
    pub(super) residency: Residency,
    /// Written to since it was last brought to the disk, as far as is known.
    pub(super) is_unsynced: AtomicBool,
}

impl MappedFile {
    /// Maps an open file of the length that `state` says, which is not zero. `path` is for errors.
    pub(super) fn map(fd: OwnedFd, state: FileState, path: &Path) -> Result<Self, StorageError> {
        let failed = |error: std::io::Error| match Errno::from_io_error(&error) {
            Some(Errno::NOMEM) | None => StorageError::TooManyMappings(path.into()),
            Some(errno) => StorageError::at("map", path, errno),
        };
        let map_len = usize::try_from(state.len).map_err(|_| StorageError::TooManyMappings(path.into()))?;
        let map = MmapOptions::new().len(map_len).map_raw_read_only(&fd).map_err(failed)?;
        // Without this a single absent page makes the kernel read megabytes around it.
        map.advise(Advice::Random).map_err(failed)?;
        Ok(Self {
            map,
            fd,
            len: state.len,
            identity: state.identity,
            noted: Mutex::new(state),
            residency: Residency::default(),
            is_unsynced: AtomicBool::new(false),
        })
    }

    /// The address of a byte inside the mapping. Computing it reads nothing.
    pub(super) fn at(&self, offset: u64) -> *const u8 {
        self.map.as_ptr().wrapping_add(offset as usize)
    }

    /// Whether the bytes lie inside the mapping.
    pub(super) fn has(&self, offset: u64, len: u32) -> bool {
        offset.checked_add(u64::from(len)).is_some_and(|end| end <= self.len)
    }

    /// The file as it was when it was opened, or when its download ended.
    pub(super) fn opened(&self) -> FileState {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file as it is now.
    pub(super) fn state(&self) -> Result<FileState, Errno> {
        rustix::fs::fstat(&self.fd).map(|stat| FileState::of(&stat))
    }

    /// From now on the file is to be as it is now.
    pub(super) fn note(&self, state: FileState) {
        *self.noted.lock().unwrap_or_else(PoisonError::into_inner) = FileState { len: self.len, ..state };
    }
}
