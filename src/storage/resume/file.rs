//! Resume files on disk: written all or nothing, read with suspicion.
//!
//! A torrent has two records: `….resume`, which is brought to the disk before it counts, and `….resume.quick`, which is
//! written every few seconds without waiting for the disk. A file that takes another's place by a rename without that wait may
//! be empty after a power failure (XFS, ext4 with `noauto_da_alloc`), so the quick one never takes the place of the other.
//! Each has a number, and of those that can be read the later counts.

use super::super::error::StorageError;
use super::super::ownership::{
    FileKind, Place, WriteError, look_at_place, put_aside, remove_record, replace_file,
};
use super::super::shortage::{is_shortage, is_shortage_of, outlast};
use super::Resume;
use crate::id::InfoHash;
use crate::limits::{self, SHORTAGE_PATIENCE};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
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
    /// Writes the record, durably and all or nothing: a crash at any moment leaves the old one or the new one. Folders
    /// on the way are made. What lies there and is no record that can be read is kept beside, as `….bak`, or
    /// `….bak-2` and so on where somebody else's file has that name. Waits for the
    /// disk; one record is not to be written by two threads at once.
    pub fn save(&self, path: &Path) -> Result<(), StorageError> {
        self.write(path, path, true)?;
        // Older, and no use any more; should it come back after a crash, its number says so.
        remove_record(&quick_path(path));
        Ok(())
    }

    /// [`Self::save`] without waiting for the disk, beside the durable record: outlives this process's end, however sudden;
    /// after a crash of the machine it may be damaged or old, and the durable one counts.
    pub fn save_quick(&self, path: &Path) -> Result<(), StorageError> {
        self.write(path, &quick_path(path), false)
    }

    /// Writes to `to` a record that is later than both of `path`'s.
    fn write(&self, path: &Path, to: &Path, is_durable: bool) -> Result<(), StorageError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |at: &Path, error: &std::io::Error| {
            StorageError::writing("write", at, Errno::from_io_error(error).unwrap_or(Errno::IO))
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        let [durable, quick] = [path.to_path_buf(), quick_path(path)].map(|path| load_one(&path));
        let latest = [&durable, &quick].into_iter().flatten().map(|(_, serial)| *serial).max();
        let serial = latest.unwrap_or_default().saturating_add(1);
        let place = Place { path: to, kind: FileKind::Record, content: None };
        if look_at_place(place).is_err() {
            // Best effort: what cannot be moved away is told below.
            let _ = put_aside(to);
        }
        let bytes = self.encode_numbered(serial);
        let is_short =
            |error: &WriteError| matches!(error, WriteError::Io { source, .. } if is_shortage_of(source));
        match outlast(SHORTAGE_PATIENCE, is_short, || replace_file(place, &bytes, is_durable)) {
            Ok(_) => Ok(()),
            Err(WriteError::Io { source, .. }) => Err(failed(to, &source)),
            Err(_) => Err(failed(to, &Errno::EXIST.into())),
        }
    }

    /// Reads the records of a torrent, and answers the later one that can be read.
    pub fn load(path: &Path) -> Result<Self, ResumeProblem> {
        match (load_one(path), load_one(&quick_path(path))) {
            (Ok((durable, serial)), Ok((quick, quick_serial))) => {
                Ok(if quick_serial > serial { quick } else { durable })
            }
            (Ok((only, _)), Err(_)) | (Err(_), Ok((only, _))) => Ok(only),
            (Err(ResumeProblem::Missing), Err(problem)) | (Err(problem), Err(_)) => Err(problem),
        }
    }
}

/// Reads one record, and its number.
fn load_one(path: &Path) -> Result<(Resume, u64), ResumeProblem> {
    let unreadable = |errno| match StorageError::at("read", path, errno) {
        StorageError::Missing(_) => ResumeProblem::Missing,
        error => ResumeProblem::Unreadable(error),
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    // A record that cannot be read would cost a check of everything.
    let open = || rustix::fs::openat(CWD, path, flags, Mode::empty());
    let fd = outlast(SHORTAGE_PATIENCE, |&errno| is_shortage(errno), open).map_err(unreadable)?;
    let mut bytes = Vec::new();
    File::from(fd)
        .take(limits::RESUME_FILE_LEN_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
    if bytes.len() as u64 > limits::RESUME_FILE_LEN_MAX {
        return Err(ResumeProblem::TooLong(bytes.len() as u64));
    }
    Resume::decode_numbered(&bytes)
}

/// The record that is written without waiting for the disk, beside the other.
fn quick_path(path: &Path) -> PathBuf {
    with_suffix(path, ".quick")
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

/// The durable record of a torrent in a folder of resume files; the quick one lies beside it.
pub fn resume_path(state_dir: &Path, info_hash: InfoHash) -> PathBuf {
    state_dir.join(format!("{info_hash}.resume"))
}
