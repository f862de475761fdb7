//! Writes a file whole, in place of one of its own kind or of nothing: torrent files, figures, resume records.
//!
//! First beside it, then by one rename, so that nobody ever sees half of it, and what is refused is as it was. What
//! lies there is judged again right before the rename: hashing may have taken hours.

use super::super::resume::Resume;
use super::{InTheWay, Permit, Refused, WholeFile, may_write};
use crate::clock;
use crate::limits::{ASIDE_NAMES_MAX, FIGURE_MARK_WITHIN, RESUME_FILE_LEN_MAX, TORRENT_FILE_LEN_MAX};
use crate::metainfo::Metainfo;
use rustix::fs::{CWD, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// What is written whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A torrent file: replaces whatever can be read as one.
    Torrent,
    /// A figure: replaces those that bear our mark ([`FileKind::FIGURE_MARK`] within their first bytes).
    Figure,
    /// A resume record: replaces one that can be read.
    Record,
    /// What a kill has left of a record's writing, or a record of another version: replaces what begins as records do.
    AnyRecord,
}

/// Where a file is to be written.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The path.
    pub path: &'a Path,
    /// What is written there.
    pub kind: FileKind,
    /// The file or folder that the torrent is of; `None` for what has no content.
    pub content: Option<&'a Path>,
}

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A link is there.
    #[error("{} is a symbolic link, which is not written through; name the file itself", .0.display())]
    Link(PathBuf),
    /// A folder or device is there.
    #[error("{} is a {kind} where a file is due; name another", .path.display())]
    NoFile {
        /// The path.
        path: PathBuf,
        /// What is there.
        kind: &'static str,
    },
    /// Something else is there.
    #[error("{} exists and is no {kind}; it is left alone, name another file", .path.display())]
    NotOurs {
        /// The path.
        path: PathBuf,
        /// What would have been replaced.
        kind: &'static str,
    },
    /// It belongs to what the torrent is of.
    #[error("{} belongs to what the torrent is of; name a file outside of that", .0.display())]
    Content(PathBuf),
    /// What the kernel said.
    #[error("cannot write {}", .path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

impl FileKind {
    /// What stands near the beginning of every figure of ours, in a comment of an SVG and in one of a PNG.
    pub const FIGURE_MARK: &'static str = "made by seedring";

    fn name(self) -> &'static str {
        match self {
            Self::Torrent => "torrent",
            Self::Figure => "figure made by seedring",
            Self::Record | Self::AnyRecord => "resume record",
        }
    }

    /// Whether a file with these first bytes is one of this kind.
    fn takes(self, bytes: &[u8]) -> bool {
        match self {
            Self::Torrent => Metainfo::parse(bytes).is_ok(),
            Self::Figure => {
                let mark = Self::FIGURE_MARK.as_bytes();
                bytes.windows(mark.len()).any(|part| part == mark)
            }
            Self::Record => Resume::decode(bytes).is_ok(),
            Self::AnyRecord => Resume::may_begin_with(bytes),
        }
    }

    /// Bytes that are read to tell.
    fn len_to_read(self) -> u64 {
        match self {
            Self::Torrent => TORRENT_FILE_LEN_MAX + 1,
            Self::Figure => FIGURE_MARK_WITHIN,
            Self::Record | Self::AnyRecord => RESUME_FILE_LEN_MAX + 1,
        }
    }
}

/// Whether a file could be written there now. Changes nothing.
///
/// # Errors
/// Why not.
pub fn look_at_place(place: Place<'_>) -> Result<Permit, WriteError> {
    let found = in_the_way(place).map_err(|source| place.failed(source))?;
    may_write(found).map_err(|refused| place.refused(refused))
}

/// Writes `bytes` there, all or nothing; says whether something was replaced. `durably`: with that, file and name are on
/// the disk before it returns.
///
/// # Errors
/// Why not; nothing is changed then, and nothing left beside.
pub fn replace_file(place: Place<'_>, bytes: &[u8], durably: bool) -> Result<Permit, WriteError> {
    look_at_place(place)?;
    let beside = place.beside();
    let written = write_new(&beside, bytes, durably).map_err(|source| place.failed(source));
    let placed = written.and_then(|()| put(&beside, place));
    if placed.is_err() {
        // It is gone or was never there; the first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    } else if durably {
        // The name is durable when the folder is.
        let synced = File::open(folder_of(place.path)).and_then(|folder| folder.sync_all());
        synced.map_err(|source| place.failed(source))?;
    }
    placed
}

/// Moves what is no record that can be read out of a record's way, to `….bak`, or `….bak-2` and so on when somebody else's file
/// has that name.
///
/// # Errors
/// No name is free, or it cannot be moved.
pub(in crate::storage) fn put_aside(path: &Path) -> io::Result<()> {
    for number in 1..=ASIDE_NAMES_MAX {
        let mut name = path.as_os_str().to_owned();
        name.push(".bak");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        let to = Path::new(&name);
        let moved = match look_at_place(Place { path: to, kind: FileKind::AnyRecord, content: None }) {
            Ok(Permit::Replace) => std::fs::rename(path, to),
            Ok(_) => rename_new(path, to),
            Err(WriteError::Io { source, .. }) => Err(source),
            Err(_) => continue,
        };
        match moved {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            moved => return moved,
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes a record, or what a kill has left of one, and nothing else; whether nothing is there now.
pub(in crate::storage) fn remove_record(path: &Path) -> bool {
    match look_at_place(Place { path, kind: FileKind::AnyRecord, content: None }) {
        Ok(Permit::Replace) => std::fs::remove_file(path).is_ok(),
        other => other.is_ok(),
    }
}

/// Puts what was written beside into its place, as far as that is allowed now.
fn put(beside: &Path, place: Place<'_>) -> Result<Permit, WriteError> {
    let mut tries = 0..2;
    loop {
        let permit = look_at_place(place)?;
        let renamed = match permit {
            Permit::Replace => std::fs::rename(beside, place.path),
            _ => rename_new(beside, place.path),
        };
        match renamed {
            Ok(()) => return Ok(permit),
            // Somebody made it since it was looked at.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && tries.next().is_some() => {}
            Err(source) => return Err(place.failed(source)),
        }
    }
}

/// Renames to a name that nothing has.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system that does not know how: a second name is refused where one is, too.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
            std::fs::hard_link(from, to)?;
            std::fs::remove_file(from)
        }
        other => other.map_err(io::Error::from),
    }
}

/// Writes a file that was not there.
///
/// # Errors
/// Whatever the file system refuses.
fn write_new(path: &Path, bytes: &[u8], durably: bool) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    if durably { file.sync_all() } else { Ok(()) }
}

fn in_the_way(place: Place<'_>) -> io::Result<InTheWay> {
    // What is no file is not even opened: that of a device may have effects.
    let kind = match rustix::fs::lstat(place.path) {
        Err(Errno::NOENT) => return Ok(InTheWay::Nothing),
        Err(errno) => return Err(errno.into()),
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
    };
    Ok(match kind {
        FileType::RegularFile => {
            let bytes = first_bytes(place.path, place.kind.len_to_read())?;
            let is_of_the_kind = place.kind.takes(&bytes);
            InTheWay::Whole(WholeFile { is_of_the_kind, is_content: place.is_content(&bytes) })
        }
        FileType::Symlink => InTheWay::Link,
        FileType::Directory => InTheWay::NoFile("folder"),
        _ => InTheWay::NoFile("device, FIFO or socket"),
    })
}

fn first_bytes(path: &Path, len: u64) -> io::Result<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let mut bytes = Vec::new();
    file.take(len).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Place<'_> {
    /// Whether the file there belongs to the content: is it, or lies inside it and is no torrent of its name.
    fn is_content(self, bytes: &[u8]) -> bool {
        let Some(content) = self.content.and_then(|content| std::fs::canonicalize(content).ok()) else {
            return false;
        };
        let Ok(folder) = std::fs::canonicalize(folder_of(self.path)) else { return false };
        let Some(name) = self.path.file_name() else { return false };
        if folder.join(name) == content {
            return true;
        }
        let is_of_it = || {
            Metainfo::parse(bytes)
                .is_ok_and(|torrent| content.file_name().is_some_and(|name| name == torrent.info().name()))
        };
        folder.starts_with(&content) && !is_of_it()
    }

    /// Where it is written first, under a name that nothing has. The name's own length may be the most a name can have, so it is
    /// not part of this one; but records are written all the time, and a kill is not to leave a file behind each time, so their
    /// name is the same each time, unless somebody else's file has it.
    fn beside(self) -> PathBuf {
        if self.kind == FileKind::Record {
            let mut name = self.path.as_os_str().to_owned();
            name.push(".tmp");
            // What an earlier run left, removed rather than written into: it may have other names.
            if remove_record(Path::new(&name)) {
                return name.into();
            }
        }
        let [a, b, c, d] = clock::random_bytes();
        self.path.with_file_name(format!(".seedring-{a:02x}{b:02x}{c:02x}{d:02x}.part"))
    }

    fn failed(self, source: io::Error) -> WriteError {
        WriteError::Io { path: self.path.to_owned(), source }
    }

    fn refused(self, refused: Refused) -> WriteError {
        let path = self.path.to_owned();
        match refused {
            Refused::Link => WriteError::Link(path),
            Refused::NoFile(kind) => WriteError::NoFile { path, kind },
            Refused::Content => WriteError::Content(path),
            Refused::NotOurs | Refused::TooLong | Refused::OtherNames => {
                WriteError::NotOurs { path, kind: self.kind.name() }
            }
        }
    }
}

#[cfg(test)]
#[path = "replace_tests.rs"]
mod tests;
