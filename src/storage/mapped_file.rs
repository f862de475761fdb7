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
use std::sync::{Mutex, PoisonError, TryLockError};

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
    /// When it was made, of one that is open for a download.
    pub(super) birth: Option<(i64, u32)>,
    /// What our own writing left behind, of one that is written to.
    pub(super) wake: Option<Mutex<Wake>>,
}

/// What our own writing left behind in a file: whatever else is found there is somebody else's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wake {
    /// Last write and last change after our last write.
    times: [(i64, u32); 2],
    /// Somebody else has changed it meanwhile.
    pub(super) is_crossed: bool,
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
            birth: None,
            wake: None,
        })
    }

    /// From now on what others write is told from what is written through here.
    pub(super) fn tell_others_writes(&mut self) {
        self.wake = Some(Mutex::new(Wake { times: times(self.opened()), is_crossed: false }));
    }

    /// Does a write of ours: a change since the last one that was not ours is noticed. One at a time, as the kernel has it,
    /// too. What others write in the same instant, in the file system's clock, goes unnoticed.
    pub(super) fn write(&self, write: impl FnOnce(&OwnedFd) -> Result<(), Errno>) -> Result<(), Errno> {
        let Some(wake) = &self.wake else { return write(&self.fd) };
        let mut wake = wake.lock().unwrap_or_else(PoisonError::into_inner);
        wake.is_crossed |= times(self.state()?) != wake.times;
        let outcome = write(&self.fd);
        match self.state() {
            Ok(state) => wake.times = times(state),
            // Nothing is known of it any more.
            Err(_) => wake.is_crossed = true,
        }
        outcome
    }

    /// Whether somebody else has changed it since it was opened, as far as that can be told.
    pub(super) fn is_crossed(&self) -> bool {
        let Some(wake) = &self.wake else { return false };
        let mut wake = wake.lock().unwrap_or_else(PoisonError::into_inner);
        let is_as_left = || self.state().is_ok_and(|state| times(state) == wake.times);
        wake.is_crossed = wake.is_crossed || !is_as_left();
        wake.is_crossed
    }

    /// Whether that was found already. Looks at nothing and waits for nobody; true while that is being found out.
    pub(super) fn was_crossed(&self) -> bool {
        match self.wake.as_ref().map(Mutex::try_lock) {
            None => false,
            Some(Ok(wake)) => wake.is_crossed,
            Some(Err(TryLockError::Poisoned(wake))) => wake.into_inner().is_crossed,
            Some(Err(TryLockError::WouldBlock)) => true,
        }
    }

    /// All that is in it has been looked at while it was in this state, so that it may count as ours.
    pub(super) fn settle(&self, state: FileState) {
        if let Some(wake) = &self.wake {
            *wake.lock().unwrap_or_else(PoisonError::into_inner) =
                Wake { times: times(state), is_crossed: false };
        }
    }

    /// Nothing is known any more of who has written what.
    pub(super) fn doubt(&self) {
        if let Some(wake) = &self.wake {
            wake.lock().unwrap_or_else(PoisonError::into_inner).is_crossed = true;
        }
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

fn times(state: FileState) -> [(i64, u32); 2] {
    [state.mtime, state.ctime]
}
