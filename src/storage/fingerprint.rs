//! What is remembered of a torrent across restarts, so that content checked once serves at once.
//!
//! A [`Fingerprint`] is each file's length and time of last write; when both are as they were, so is the content,
//! as every file system but a deceitful one promises. It has to be taken before the check that it
//! vouches for: what is written during the check then shows as a difference.
//!
//! A [`Resume`] keeps it with the pieces found right and the bytes uploaded, in one file of tagged records:
//! `"SEEDRING"`, version (u32), then records of tag (u32), length (u64) and payload, all little-endian,
//! and SHA-1 of everything before. Readers skip tags that they do not know, so new ones need no new version. A file that is
//! truncated, damaged, foreign or newer is a reason to check again, never a reason to fail.
//! Deliberately absent: device and inode numbers, since a restored backup is as good.

use super::error::StorageError;
use super::layout::{Layout, LayoutFile};
use super::root::{FileState, Root};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use crate::limits;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

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

/// The state of all files of a torrent that have bytes on disk, in its order; `None` for one that is missing
/// or no file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<FileStamp>>);

impl Fingerprint {
    /// Looks at every file, one system call each. Only a root that cannot be opened is an error.
    pub fn take(layout: &Layout, root: &Path) -> Result<Self, StorageError> {
        let root = Root::open(root)?;
        Ok(Self::of(layout.stored_files().map(|(_, file)| root.state(&file.path).ok())))
    }

    /// Of the states of the files that have bytes on disk, in the torrent's order.
    pub(super) fn of(states: impl Iterator<Item = Option<FileState>>) -> Self {
        Self(states.map(|state| state.map(FileStamp::of)).collect())
    }

    /// Whether every file is there and as it was.
    pub fn matches(&self, layout: &Layout, root: &Path) -> bool {
        self.0.iter().all(Option::is_some) && Self::take(layout, root).is_ok_and(|now| now == *self)
    }

    /// The first file that is not the same in both; both are of `layout`.
    pub(super) fn first_difference<'a>(&self, other: &Self, layout: &'a Layout) -> Option<&'a LayoutFile> {
        let mut pairs = self.0.iter().zip(&other.0).zip(layout.stored_files());
        pairs.find(|((one, other), _)| one != other).map(|(_, (_, file))| file)
    }
}

impl FileStamp {
    fn of(state: FileState) -> Self {
        Self { len: state.len, mtime_secs: state.mtime.0, mtime_nanos: state.mtime.1 }
    }
}

/// What is remembered of one torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Its files when they were checked.
    pub fingerprint: Fingerprint,
    /// The pieces that were right.
    pub verified: Bitfield,
    /// Bytes of pieces uploaded in all runs together.
    pub uploaded: u64,
    /// Bytes of pieces downloaded in all runs together.
    pub downloaded: u64,
}

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

const MAGIC: &[u8; 8] = b"SEEDRING";
const VERSION: u32 = 1;
const CHECKSUM_LEN: usize = 20;

const TAG_INFO_HASH: u32 = 1;
const TAG_PIECE_COUNT: u32 = 2;
const TAG_VERIFIED: u32 = 3;
const TAG_UPLOADED: u32 = 4;
const TAG_DOWNLOADED: u32 = 5;
const TAG_FILES: u32 = 6;

/// Bytes of one file's stamp: there or not, length, seconds, nanoseconds.
const STAMP_LEN: usize = 1 + 8 + 8 + 4;

impl Resume {
    /// Whether this is about the torrent as laid out here, every piece was right, and its files are as they were.
    pub fn vouches_for(&self, info_hash: InfoHash, layout: &Layout, root: &Path) -> bool {
        self.info_hash == info_hash
            && self.verified.len() == layout.piece_count()
            && self.verified.is_full()
            && self.fingerprint.matches(layout, root)
    }

    /// Writes the file, durably and all or nothing: a crash at any moment leaves the old one or the new one. Folders
    /// on the way are made. An old file that this version cannot read is kept beside, as `….bak`.
    pub fn save(&self, path: &Path) -> Result<(), StorageError> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let failed = |at: &Path, error: std::io::Error| {
            StorageError::at("write", at, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
        if !matches!(Self::load(path), Ok(_) | Err(ResumeProblem::Missing)) {
            // Best effort: what cannot be moved away is told by the rename below.
            let _ = std::fs::rename(path, with_suffix(path, ".bak"));
        }
        let temporary = with_suffix(path, ".tmp");
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &temporary, flags, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| StorageError::at("write", &temporary, errno))?;
        let mut file = File::from(fd);
        let written = file.write_all(&self.encode()).and_then(|()| file.sync_all());
        if let Err(error) = written.and_then(|()| std::fs::rename(&temporary, path)) {
            // The error matters, not whether the remains could be removed.
            let _ = std::fs::remove_file(&temporary);
            return Err(failed(path, error));
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

    /// The file's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        let mut record = |tag: u32, payload: &[u8]| {
            bytes.extend(tag.to_le_bytes());
            bytes.extend((payload.len() as u64).to_le_bytes());
            bytes.extend(payload);
        };
        record(TAG_INFO_HASH, &self.info_hash.0);
        record(TAG_PIECE_COUNT, &self.verified.len().to_le_bytes());
        record(TAG_VERIFIED, self.verified.as_bytes());
        record(TAG_UPLOADED, &self.uploaded.to_le_bytes());
        record(TAG_DOWNLOADED, &self.downloaded.to_le_bytes());
        let mut files = Vec::with_capacity(self.fingerprint.0.len() * STAMP_LEN);
        for stamp in &self.fingerprint.0 {
            let kept = stamp.unwrap_or(FileStamp { len: 0, mtime_secs: 0, mtime_nanos: 0 });
            files.push(u8::from(stamp.is_some()));
            files.extend(kept.len.to_le_bytes());
            files.extend(kept.mtime_secs.to_le_bytes());
            files.extend(kept.mtime_nanos.to_le_bytes());
        }
        record(TAG_FILES, &files);
        let checksum = super::hash::piece_hash(&bytes);
        bytes.extend(checksum);
        bytes
    }

    /// Reads the file's content.
    pub fn decode(bytes: &[u8]) -> Result<Self, ResumeProblem> {
        let damaged = || ResumeProblem::Damaged;
        if bytes.is_empty() {
            return Err(ResumeProblem::Damaged);
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(ResumeProblem::Foreign)?;
        let (version, _) = rest.split_first_chunk().ok_or_else(damaged)?;
        let version = u32::from_le_bytes(*version);
        if version > VERSION {
            return Err(ResumeProblem::Newer(version));
        }
        let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or_else(damaged)?;
        if super::hash::piece_hash(body) != *checksum {
            return Err(ResumeProblem::Damaged);
        }
        let records = Records::of(body.get(MAGIC.len() + 4..).ok_or_else(damaged)?).ok_or_else(damaged)?;
        let piece_count = u32::from_le_bytes(records.array(TAG_PIECE_COUNT).ok_or_else(damaged)?);
        let verified = records.payload(TAG_VERIFIED).ok_or_else(damaged)?;
        let files = records.payload(TAG_FILES).ok_or_else(damaged)?;
        Ok(Self {
            info_hash: InfoHash(records.array(TAG_INFO_HASH).ok_or_else(damaged)?),
            fingerprint: Fingerprint(decode_stamps(files).ok_or_else(damaged)?),
            verified: Bitfield::from_wire(verified, piece_count).map_err(|_| ResumeProblem::Damaged)?,
            uploaded: records.array(TAG_UPLOADED).map_or(0, u64::from_le_bytes),
            downloaded: records.array(TAG_DOWNLOADED).map_or(0, u64::from_le_bytes),
        })
    }
}

/// The records of a file's body, by tag.
struct Records<'a>(Vec<(u32, &'a [u8])>);

impl<'a> Records<'a> {
    fn of(mut body: &'a [u8]) -> Option<Self> {
        let mut records = Vec::new();
        while !body.is_empty() {
            let (tag, rest) = body.split_first_chunk()?;
            let (len, rest) = rest.split_first_chunk()?;
            let len = usize::try_from(u64::from_le_bytes(*len)).ok()?;
            let (payload, rest) = rest.split_at_checked(len)?;
            records.push((u32::from_le_bytes(*tag), payload));
            body = rest;
        }
        Some(Self(records))
    }

    fn payload(&self, tag: u32) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| *other == tag).map(|&(_, payload)| payload)
    }

    fn array<const N: usize>(&self, tag: u32) -> Option<[u8; N]> {
        self.payload(tag)?.try_into().ok()
    }
}

fn decode_stamps(bytes: &[u8]) -> Option<Vec<Option<FileStamp>>> {
    let (stamps, rest) = bytes.as_chunks::<STAMP_LEN>();
    if !rest.is_empty() {
        return None;
    }
    stamps
        .iter()
        .map(|stamp| {
            let (&is_there, rest) = stamp.split_first()?;
            let (len, rest) = rest.split_first_chunk()?;
            let (secs, rest) = rest.split_first_chunk()?;
            let kept = FileStamp {
                len: u64::from_le_bytes(*len),
                mtime_secs: i64::from_le_bytes(*secs),
                mtime_nanos: u32::from_le_bytes(rest.try_into().ok()?),
            };
            Some((is_there != 0).then_some(kept))
        })
        .collect()
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

fn state_dir(state_home: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |folder: OsString| Some(PathBuf::from(folder)).filter(|folder| folder.is_absolute());
    let state = state_home.and_then(absolute);
    let state = state.or_else(|| home.and_then(absolute).map(|home| home.join(".local/state")))?;
    Some(state.join("seedring"))
}

/// The file of a torrent in a folder of resume files.
pub fn resume_path(state_dir: &Path, info_hash: InfoHash) -> PathBuf {
    state_dir.join(format!("{info_hash}.resume"))
}

#[cfg(test)]
mod tests;
