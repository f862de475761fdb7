//! The content's folder, and the only way into it, for reading and for making what is not there.
//!
//! Files are opened relative to the folder with openat2(2): nothing below it may be a symbolic link or lead out,
//! so a torrent cannot make us serve what lies elsewhere, even while somebody renames folders. Whoever only looks
//! at a file is told by the same rule, so that nothing is promised that cannot be opened. The folder
//! itself may be reached through links, since the user named it. Opening never blocks (a FIFO would) and only
//! regular files pass. Where no descriptor is free, that is waited out unless the folder was opened at once.

use super::error::StorageError;
use super::shortage::{is_shortage, outlast};
use crate::limits::SHORTAGE_PATIENCE;
use crate::time::Duration;
use rustix::fd::{AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, StatxFlags};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Times an open is repeated when a rename elsewhere made the kernel unsure (openat2(2), EAGAIN).
const OPEN_RETRIES: usize = 16;
/// How files are opened that pieces are written into.
const WRITING: OFlags =
    OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Asks for a mount's number that is never given again (statx(2), since Linux 6.8).
const STATX_MNT_ID_UNIQUE: u32 = 0x4000;

/// An open folder below which content lies.
#[derive(Debug)]
pub(super) struct Root {
    dir: OwnedFd,
    path: PathBuf,
    /// For how long a shortage is waited out.
    patience: Duration,
}

impl Root {
    /// Opens the folder at `path`, following links to it.
    pub(super) fn open(path: &Path) -> Result<Self, StorageError> {
        Self::open_within(path, SHORTAGE_PATIENCE)
    }

    /// [`Self::open`] for who tries again later: a shortage is an error at once, here and below.
    pub(super) fn open_at_once(path: &Path) -> Result<Self, StorageError> {
        Self::open_within(path, Duration::ZERO)
    }

    fn open_within(path: &Path, patience: Duration) -> Result<Self, StorageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = || {
            rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(|errno| match errno {
                Errno::NOTDIR => StorageError::WrongKind { path: path.into(), kind: "file", due: "folder" },
                _ => StorageError::at("open", path, errno),
            })
        };
        let dir = outlast(patience, StorageError::is_shortage, open)?;
        Ok(Self { dir, path: path.to_path_buf(), patience })
    }

    /// Opens the folder at `path`, following links to it; makes it, and the folders on the way, when it is not there.
    pub(super) fn create(path: &Path) -> Result<Self, StorageError> {
        match Self::open(path) {
            Err(StorageError::Missing(_)) => {}
            other => return other,
        }
        std::fs::create_dir_all(path).map_err(|error| {
            let errno = Errno::from_io_error(&error).unwrap_or(Errno::IO);
            StorageError::writing("make", path, errno)
        })?;
        Self::open(path)
    }

    /// The folder's path as the user gave it.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder's own path, without links; `None` when it cannot be told.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        std::fs::canonicalize(&self.path).ok()
    }

    /// Where the folder is now when its path leads to it no longer; `None` when it does, or that cannot be told.
    pub(super) fn moved_to(&self) -> Option<PathBuf> {
        let identity = |stat: Stat| (stat.st_dev, stat.st_ino);
        let open = rustix::fs::fstat(&self.dir).map(identity).ok()?;
        if rustix::fs::stat(&self.path).map(identity) == Ok(open) {
            return None;
        }
        std::fs::read_link(format!("/proc/self/fd/{}", self.dir.as_raw_fd())).ok()
    }

    /// The number of the folder's mount, which is never given again until the machine restarts; before Linux 6.8 perhaps
    /// to a later mount. `None` when the kernel does not tell.
    pub(super) fn mount_id(&self) -> Option<u64> {
        let unique = StatxFlags::from_bits_retain(STATX_MNT_ID_UNIQUE);
        let stat = rustix::fs::statx(&self.dir, "", AtFlags::EMPTY_PATH, unique | StatxFlags::MNT_ID).ok()?;
        let told = unique | StatxFlags::MNT_ID;
        StatxFlags::from_bits_retain(stat.stx_mask).intersects(told).then_some(stat.stx_mnt_id)
    }

    /// The path that the user reads of a file below.
    pub(super) fn full_path(&self, relative: &Path) -> PathBuf {
        self.path.join(relative)
    }

    /// Opens a regular file for reading and says what it is.
    pub(super) fn open_file(&self, relative: &Path) -> Result<(OwnedFd, FileState), StorageError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = self
            .open_below(&self.dir, relative, flags, Mode::empty())
            .map_err(|errno| StorageError::at("open", &self.full_path(relative), errno))?;
        let state = self.regular_open(relative, &fd)?;
        Ok((fd, state))
    }

    /// What lies at the path, reached without a link; `None` when nothing does, or when a folder on the way is missing or is
    /// none. Nothing is opened: that of a device may have effects.
    pub(super) fn look(&self, relative: &Path) -> Result<Option<FileState>, StorageError> {
        let probe = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match self.open_below(&self.dir, relative, probe, Mode::empty()) {
            Ok(there) => self.regular_open(relative, &there).map(Some),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(StorageError::at("inspect", &self.full_path(relative), errno)),
        }
    }

    /// Makes a regular file and the folders on the way, and opens it for reading and writing. Modes are 0666 and 0777 less
    /// the user's umask.
    ///
    /// # Errors
    /// [`StorageError::NotOurs`] when something lies there: whatever it is, it has come since that was looked at.
    pub(super) fn make_file(&self, relative: &Path) -> Result<(OwnedFd, FileState), StorageError> {
        // What is no file, or no folder on the way, is named.
        self.look(relative)?;
        self.make_folders(relative)?;
        let flags = WRITING | OFlags::CREATE | OFlags::EXCL;
        let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
        let fd = self.open_below(&self.dir, relative, flags, mode).map_err(|errno| match errno {
            Errno::EXIST => StorageError::NotOurs(self.full_path(relative)),
            _ => StorageError::writing("make", &self.full_path(relative), errno),
        })?;
        let state = self.regular_open(relative, &fd)?;
        Ok((fd, state))
    }

    /// Opens a regular file that is there for reading and writing, and says what it is.
    pub(super) fn open_for_writing(&self, relative: &Path) -> Result<(OwnedFd, FileState), StorageError> {
        self.look(relative)?;
        let fd = self
            .open_below(&self.dir, relative, WRITING, Mode::empty())
            .map_err(|errno| StorageError::writing("open", &self.full_path(relative), errno))?;
        let state = self.regular_open(relative, &fd)?;
        Ok((fd, state))
    }

    /// Removes a file, reached without a link.
    pub(super) fn remove_file(&self, relative: &Path) -> Result<(), StorageError> {
        let folder =
            relative.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let name = relative.file_name().unwrap_or_default();
        self.open_below(&self.dir, folder, flags, Mode::empty())
            .and_then(|folder| rustix::fs::unlinkat(&folder, name, AtFlags::empty()))
            .map_err(|errno| StorageError::writing("remove", &self.full_path(relative), errno))
    }

    /// Makes the folders that a file lies in, one component after the other, each below the one before.
    fn make_folders(&self, relative: &Path) -> Result<(), StorageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder: Option<OwnedFd> = None;
        let mut path = PathBuf::new();
        for component in relative.parent().into_iter().flat_map(Path::components) {
            path.push(component);
            let failed = |errno| match errno {
                Errno::NOTDIR => self.not_a_folder(&path),
                _ => StorageError::writing("make", &self.full_path(&path), errno),
            };
            let name: &Path = component.as_ref();
            let parent = folder.as_ref().unwrap_or(&self.dir);
            let next = match self.open_below(parent, name, flags, Mode::empty()) {
                Err(Errno::NOENT) => {
                    match rustix::fs::mkdirat(parent, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
                        Ok(()) | Err(Errno::EXIST) => self.open_below(parent, name, flags, Mode::empty()),
                        Err(errno) => Err(errno),
                    }
                }
                other => other,
            };
            folder = Some(next.map_err(failed)?);
        }
        Ok(())
    }

    fn open_below(
        &self,
        dir: &OwnedFd,
        relative: &Path,
        flags: OFlags,
        mode: Mode,
    ) -> Result<OwnedFd, Errno> {
        outlast(self.patience, |&errno| is_shortage(errno), || open_below(dir, relative, flags, mode))
    }

    /// Brings a folder's entries to the disk.
    pub(super) fn sync_folder(&self, relative: &Path) -> Result<(), StorageError> {
        let relative = if relative.as_os_str().is_empty() { Path::new(".") } else { relative };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        self.open_below(&self.dir, relative, flags, Mode::empty())
            .and_then(rustix::fs::fsync)
            .map_err(|errno| StorageError::writing("write", &self.full_path(relative), errno))
    }

    fn not_a_folder(&self, relative: &Path) -> StorageError {
        match self.state(relative) {
            // A link answers NOTDIR, too, when only folders are asked for.
            Err(link @ StorageError::SymbolicLink(_)) => link,
            Err(StorageError::WrongKind { path, kind, .. }) => {
                StorageError::WrongKind { path, kind, due: "folder" }
            }
            _ => StorageError::WrongKind { path: self.full_path(relative), kind: "file", due: "folder" },
        }
    }

    fn regular_open(&self, relative: &Path, fd: &OwnedFd) -> Result<FileState, StorageError> {
        let stat = rustix::fs::fstat(fd)
            .map_err(|errno| StorageError::at("inspect", &self.full_path(relative), errno))?;
        self.regular(relative, &stat)
    }

    /// What lies at the path now, without opening it. Follows no link, as [`Self::open_file`] follows none.
    pub(super) fn state(&self, relative: &Path) -> Result<FileState, StorageError> {
        let stat = self
            .stat(relative)
            .map_err(|errno| StorageError::at("inspect", &self.full_path(relative), errno))?;
        self.regular(relative, &stat)
    }

    fn stat(&self, relative: &Path) -> Result<Stat, Errno> {
        let straight = || rustix::fs::statat(&self.dir, relative, AtFlags::SYMLINK_NOFOLLOW);
        // Nothing lies on the way to a file directly in the folder.
        if relative.components().nth(1).is_none() {
            return straight();
        }
        match self.open_below(
            &self.dir,
            relative,
            OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
            Mode::empty(),
        ) {
            // It may be a link itself, which is then told by its kind.
            Ok(fd) => rustix::fs::fstat(fd),
            // A shortage of descriptors says nothing about the file.
            Err(Errno::MFILE | Errno::NFILE) => straight(),
            Err(errno) => Err(errno),
        }
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

/// Opens what lies below a folder; no link on the way is followed.
fn open_below(dir: &OwnedFd, relative: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0..OPEN_RETRIES;
    loop {
        match rustix::fs::openat2(dir, relative, flags, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) if tries.next().is_some() => {}
            other => return other,
        }
    }
}

/// When an open file was made, seconds since 1970 and nanoseconds; `None` where the file system does not tell.
pub(super) fn birth_of(fd: &OwnedFd) -> Option<(i64, u32)> {
    let stat = rustix::fs::statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BTIME).ok()?;
    let is_told = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    is_told.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// Magic numbers (statfs(2)) of file systems whose files' times others keep: FUSE, NFS, SMB, 9P, Ceph, AFS.
const REMOTE: [u32; 8] =
    [0x6573_5546, 0x6969, 0x517B, 0xFF53_4D42, 0xFE53_4D42, 0x0102_1997, 0x00C3_6400, 0x6B41_4653];

/// Whether somebody else than this kernel keeps a file's times; also when that cannot be told.
pub(super) fn is_remote(fd: &OwnedFd) -> bool {
    rustix::fs::fstatfs(fd).map_or(true, |stat| REMOTE.contains(&(stat.f_type as u32)))
}

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    /// Bytes.
    pub(super) len: u64,
    /// Last write, seconds since 1970 and nanoseconds.
    pub(super) mtime: (i64, u32),
    /// Last change of the inode, likewise; nobody can set it.
    pub(super) ctime: (i64, u32),
    /// Device and inode.
    pub(super) identity: (u64, u64),
    /// Whether it has other names (hard links).
    pub(super) has_other_names: bool,
}

impl FileState {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            len: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            ctime: (stat.st_ctime, u32::try_from(stat.st_ctime_nsec).unwrap_or(0)),
            identity: (stat.st_dev, stat.st_ino),
            has_other_names: stat.st_nlink > 1,
        }
    }
}
