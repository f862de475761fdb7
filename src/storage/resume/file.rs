//! Resume files on disk: written all or nothing, read with suspicion.

use super::super::error::StorageError;
use super::Resume;
use crate::id::InfoHash;
use crate::limits;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Why a file tells nothing; the torrent is then checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeProblem {
    /// None there: the first time.
    #[error("no resume file")]
    Missing,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(StorageError),
    /// Longer than any that is written.
    #[error("the resume file has {0} bytes, more than any that is written")]
    TooLong(u64),
    /// Not one of ours.
    #[error("not a resume file")]
    Foreign,
    /// Written by a later version of the program.
    #[error("the resume file has the newer format {0}")]
    Newer(u32),
    /// Truncated or altered.
    #[error("the resume file is damaged")]
    Damaged,
}

impl Resume {
    /// Writes the file, durably and all or nothing: a crash at any moment leaves the old one or the new one. Folders
    /// on the way are made. An old file that this version cannot read is kept beside, as `….bak`. Waits for the disk;
    /// one file is not to be written by two threads at once.
    pub fn save(&self, path: &Path) -> Result<(), StorageError> {
        self.write(path, true)
    }

    /// [`Self::save`] without waiting for the disk: outlives this process's end, however sudden, but of a crash of the
    /// machine the file may come out damaged or old.
    pub fn save_quick(&self, path: &Path) -> Result<(), StorageError> {
        self.write(path, false)
    }

    fn write(&self, path: &Path, is_durable: bool) -> Result<(), StorageError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |at: &Path, error: std::io::Error| {
            StorageError::writing("write", at, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        if !matches!(Self::load(path), Ok(_) | Err(ResumeProblem::Missing)) {
            // Best effort: what cannot be moved away is told by the rename below.
            let _ = std::fs::rename(path, with_suffix(path, ".bak"));
        }
        let temporary = with_suffix(path, ".tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| StorageError::writing("write", &temporary, errno))?;
        let mut file = File::from(fd);
        let written = file.write_all(&self.encode());
        let synced = written.and_then(|()| if is_durable { file.sync_all() } else { Ok(()) });
        if let Err(error) = synced.and_then(|()| std::fs::rename(&temporary, path)) {
            // The error matters, not whether the remains could be removed.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed(path, error));
        }
        if !is_durable {
            return Ok(());
        }
        // The rename itself is durable when the folder is.
        File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| failed(folder, error))
    }

    /// Reads the file.
    pub fn load(path: &Path) -> Result<Self, ResumeProblem> {
        let unreadable = |errno| match StorageError::at("read", path, errno) {
            StorageError::Missing(_) => ResumeProblem::Missing,
            error => ResumeProblem::Unreadable(error),
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, path, flags, Mode::empty()).map_err(unreadable)?;
        let mut bytes = Vec::new();
        File::from(fd)
            .take(limits::RESUME_FILE_LEN_MAX + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
        if bytes.len() as u64 > limits::RESUME_FILE_LEN_MAX {
            return Err(ResumeProblem::TooLong(bytes.len() as u64));
        }
        Self::decode(&bytes)
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// Where resume files lie unless the user says otherwise: `seedring` below `$XDG_STATE_HOME`, or below
/// `~/.local/state` (XDG Base Directory Specification). `None` for a user without a home, who then has nowhere
/// safe to keep them: in a folder that all may write to, others could vouch for content that was never checked.
pub fn default_state_dir() -> Option<PathBuf> {
    state_dir(std::env::var_os("XDG_STATE_HOME"), std::env::var_os("HOME"))
}

pub(super) fn state_dir(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |folder: OsString| Some(PathBuf::from(folder)).filter(|folder| folder.is_absolute());
    let state = state_home.and_then(absolute);
    let state = state.or_else(|| home.and_then(absolute).map(|home| home.join(".local/state")))?;
    Some(state.join("seedring"))
}

/// The file of a torrent in a folder of resume files.
pub fn resume_path(state_dir: &Path, info_hash: InfoHash) -> PathBuf {
    state_dir.join(format!("{info_hash}.resume"))
}
