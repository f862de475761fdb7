//! The content's folder, and the only way into it.
//!
//! Files are opened relative to the folder with openat2(2): nothing below it may be a symbolic link or lead out,
//! so a torrent cannot make us serve what lies elsewhere, even while somebody renames folders. The folder
//! itself may be reached through links, since the user named it. Opening never blocks (a FIFO would) and only
//! regular files pass.

use super::error::StorageError;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Times an open is repeated when a rename elsewhere made the kernel unsure (openat2(2), EAGAIN).
const OPEN_RETRIES: usize = 16;

/// An open folder below which content lies.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
}

impl Root {
    /// Opens the folder at `path`, following links to it.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| match errno {
            Errno::NOTDIR => StorageError::WrongKind { path: path.into(), kind: "file", due: "folder" },
            _ => StorageError::at("open", path, errno),
        })?;
        Ok(Self { dir, path: path.to_path_buf() })
    }

    /// The path that the user reads of a file below.
    pub(super) fn full_path(&self, relative: &Path) -> PathBuf {
        self.path.join(relative)
    }

    /// Opens a regular file for reading and says what it is.
    pub(super) fn open_file(&self, relative: &Path) -> Result<(OwnedFd, FileState), StorageError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0..OPEN_RETRIES;
        let fd = loop {
            match rustix::fs::openat2(&self.dir, relative, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) if tries.next().is_some() => {}
                Err(errno) => return Err(StorageError::at("open", &self.full_path(relative), errno)),
                Ok(fd) => break fd,
            }
        };
        let stat = rustix::fs::fstat(&fd)
            .map_err(|errno| StorageError::at("inspect", &self.full_path(relative), errno))?;
        Ok((fd, self.regular(relative, &stat)?))
    }

    /// What lies at the path now, without opening it or following a link at its end.
    pub(super) fn state(&self, relative: &Path) -> Result<FileState, StorageError> {
        let stat = rustix::fs::statat(&self.dir, relative, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| StorageError::at("inspect", &self.full_path(relative), errno))?;
        self.regular(relative, &stat)
    }

    fn regular(&self, relative: &Path, stat: &Stat) -> Result<FileState, StorageError> {
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => return Ok(FileState::of(stat)),
            FileType::Symlink => return Err(StorageError::SymbolicLink(self.full_path(relative))),
            FileType::Directory => "folder",
            FileType::Fifo => "FIFO",
            FileType::Socket => "socket",
            FileType::BlockDevice | FileType::CharacterDevice => "device",
            _ => "strange thing",
        };
        Err(StorageError::WrongKind { path: self.full_path(relative), kind, due: "file" })
    }
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    /// Bytes.
    pub(super) len: u64,
    /// Last write, seconds since 1970 and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Device and inode.
    pub(super) identity: (u64, u64),
}

impl FileState {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            identity: (stat.st_dev, stat.st_ino),
        }
    }
}
