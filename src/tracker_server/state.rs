//! The tracker's memory in a file, so that a restart does not lose the swarms.
//!
//! The file begins with a line that says what it is, then when it was written, then the registry in pieces with their
//! lengths, then a SHA-1 of all that. It is written beside its place and put there whole, so that a crash leaves the former
//! one. A file that does not begin so is somebody else's and is never replaced, as
//! [`may_write`](crate::storage::may_write) decides; a damaged one of ours is told and not used.
//!
//! Everything here blocks and belongs on a thread of its own.

use crate::limits::{STATE_PIECE_LEN, STATE_PIECE_LEN_MAX};
use crate::storage::{InTheWay, WholeFile, may_write};
use crate::swarm_registry::DamagedPiece;
use crate::time::Duration;
use sha1::{Digest, Sha1};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How files of any version begin.
const OURS: &[u8] = b"seedring tracker state ";
/// How files of this version begin.
const MAGIC: &[u8] = b"seedring tracker state 1\n";

/// Why a tracker's memory is not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The system refuses; the fault of who named the file, or of its disk.
    #[error("cannot {what} the tracker's state {}: {source}; see to it, or name another file with --state", .path.display())]
    Io {
        /// Read or write.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// There is something else; the fault of who named it.
    #[error("{} is no file of this tracker and is left alone; name another with --state", .0.display())]
    NotOurs(PathBuf),
    /// A later version wrote it.
    #[error("{} was written by a newer version and is left alone; name another with --state", .0.display())]
    Newer(PathBuf),
    /// It is ours, and broken.
    #[error("the tracker's state {} is damaged and not used; it begins anew", .0.display())]
    Damaged(PathBuf),
}

/// The file that a tracker keeps its memory in.
#[derive(Clone, Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// Held by whoever writes: the last writing may begin before one that was given up has ended.
    writing: Arc<Mutex<()>>,
}

/// A file that is being written, not at its place yet.
pub(super) struct NewState {
    file: StateFile,
    beside: PathBuf,
    out: BufWriter<Hashing>,
}

/// Hashes what goes through it into a file.
struct Hashing {
    file: File,
    hasher: Sha1,
}

impl StateFile {
    /// The file at `path`; of a link, the one that it leads to.
    pub(super) fn at(path: &Path) -> Self {
        Self { path: path.canonicalize().unwrap_or_else(|_| path.to_owned()), writing: Arc::default() }
    }

    /// Waits until nobody else writes.
    pub(super) fn lock(&self) -> MutexGuard<'_, ()> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file and hands out its pieces in order, each with its age. False when there is none yet.
    ///
    /// # Errors
    /// When it is not ours, damaged, or cannot be read. Pieces that were handed out before the damage was found are not to
    /// be used.
    pub(super) fn read(
        &self,
        unix_now: u64,
        mut take: impl FnMut(Duration, &[u8]) -> Result<(), DamagedPiece>,
    ) -> Result<bool, StateError> {
        let Some(file) = self.open_ours()? else { return Ok(false) };
        let mut reader = BufReader::new(file);
        let mut hasher = Sha1::new();
        let mut next = |reader: &mut BufReader<File>, bytes: &mut [u8]| {
            reader.read_exact(bytes)?;
            hasher.update(&*bytes);
            io::Result::Ok(())
        };
        let mut magic = [0; MAGIC.len()];
        let mut number = [0; 8];
        let mut piece = Vec::new();
        let mut all = || {
            next(&mut reader, &mut magic)?;
            next(&mut reader, &mut number)?;
            // A clock that was put back makes nobody older, or younger.
            let age = Duration::from_secs(unix_now.saturating_sub(u64::from_le_bytes(number)));
            loop {
                next(&mut reader, &mut number)?;
                let len = usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX);
                if len == 0 {
                    break;
                }
                if len > STATE_PIECE_LEN_MAX {
                    return Err(io::Error::from(io::ErrorKind::InvalidData));
                }
                piece.resize(len, 0);
                next(&mut reader, &mut piece)?;
                take(age, &piece).map_err(|damaged| io::Error::new(io::ErrorKind::InvalidData, damaged))?;
            }
            Ok(())
        };
        let read = all();
        let mut told = [0; 20];
        let read = read.and_then(|()| reader.read_exact(&mut told));
        match read {
            Ok(()) if hasher.finalize().as_slice() == told => Ok(true),
            Err(source)
                if !matches!(source.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData) =>
            {
                Err(StateError::Io { what: "read", path: self.path.clone(), source })
            }
            _ => Err(StateError::Damaged(self.path.clone())),
        }
    }

    /// Whether the file could be written now. Changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn try_to_write(&self, unix_now: u64) -> Result<(), StateError> {
        let mut new = self.create(unix_now)?;
        new.out.flush().map_err(|source| self.failed(source))
    }

    /// Begins a new file beside the present one.
    pub(super) fn create(&self, unix_now: u64) -> Result<NewState, StateError> {
        self.open_ours()?;
        let mut name = std::ffi::OsString::from(".");
        name.push(self.path.file_name().unwrap_or_default());
        name.push(".new");
        let beside = self.path.with_file_name(name);
        let failed = |source| self.failed(source);
        // Left by a run that was killed while it wrote.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside).map_err(failed)?;
        let hashing = Hashing { file, hasher: Sha1::new() };
        let mut new =
            NewState { file: self.clone(), beside, out: BufWriter::with_capacity(STATE_PIECE_LEN, hashing) };
        new.put(MAGIC)?;
        new.put(&unix_now.to_le_bytes())?;
        Ok(new)
    }

    /// The file, when it is one of ours of this version; `None` when there is none, or an empty one.
    fn open_ours(&self) -> Result<Option<File>, StateError> {
        let unreadable = |source| StateError::Io { what: "read", path: self.path.clone(), source };
        // Without waiting for a writer, should it be a pipe.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&self.path);
        let mut file = match file {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file.map_err(unreadable)?,
        };
        let mut head = Vec::new();
        let found = if file.metadata().map_err(unreadable)?.is_file() {
            (&file).take(MAGIC.len() as u64).read_to_end(&mut head).map_err(unreadable)?;
            // In an empty file there is nothing to lose.
            InTheWay::Whole(WholeFile {
                is_of_the_kind: head.is_empty() || head.starts_with(OURS),
                is_content: false,
            })
        } else {
            InTheWay::NoFile("folder or device")
        };
        may_write(found).map_err(|_| StateError::NotOurs(self.path.clone()))?;
        if head.is_empty() {
            return Ok(None);
        }
        if head != MAGIC {
            return Err(StateError::Newer(self.path.clone()));
        }
        io::Seek::rewind(&mut file).map_err(unreadable)?;
        Ok(Some(file))
    }

    fn failed(&self, source: io::Error) -> StateError {
        StateError::Io { what: "write", path: self.path.clone(), source }
    }
}

impl NewState {
    /// Appends a piece, which must not be empty.
    pub(super) fn piece(&mut self, piece: &[u8]) -> Result<(), StateError> {
        self.put(&(piece.len() as u64).to_le_bytes())?;
        self.put(piece)
    }

    /// Brings the whole to the disk and to its place.
    pub(super) fn finish(mut self) -> Result<(), StateError> {
        self.put(&0_u64.to_le_bytes())?;
        self.flush_and_sum().map_err(|source| self.file.failed(source))?;
        // Somebody may have put another file there meanwhile.
        self.file.open_ours()?;
        let moved = std::fs::rename(&self.beside, &self.file.path).and_then(|()| {
            let folder = self.file.path.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        moved.map_err(|source| self.file.failed(source))
    }

    fn flush_and_sum(&mut self) -> io::Result<()> {
        self.out.flush()?;
        let hashing = self.out.get_mut();
        let sum = hashing.hasher.clone().finalize();
        hashing.file.write_all(&sum)?;
        hashing.file.sync_all()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), StateError> {
        self.out.write_all(bytes).map_err(|source| self.file.failed(source))
    }
}

impl Drop for NewState {
    fn drop(&mut self) {
        // Nothing lies there any more when it has been finished.
        let _ = std::fs::remove_file(&self.beside);
    }
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn written(path: &Path, pieces: &[&[u8]]) -> Result<(), StateError> {
        let mut new = StateFile::at(path).create(1000)?;
        for piece in pieces {
            new.piece(piece)?;
        }
        new.finish()
    }

    fn read(path: &Path) -> Result<Option<Vec<Vec<u8>>>, StateError> {
        let mut pieces = Vec::new();
        let found = StateFile::at(path).read(1007, |age, piece| {
            assert_eq!(age, Duration::from_secs(7));
            pieces.push(piece.to_vec());
            Ok(())
        });
        Ok(found?.then_some(pieces))
    }

    #[test]
    fn what_was_written_is_read_again_with_its_age() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        assert_eq!(read(&path).unwrap(), None);
        written(&path, &[]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![]));
        let long = vec![7; STATE_PIECE_LEN + 5];
        written(&path, &[b"one", &long]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![b"one".to_vec(), long]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600, "addresses of peers are nobody's business");
    }

    #[test]
    fn every_damage_is_noticed_and_the_file_still_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        written(&path, &[b"some piece", b"another"]).unwrap();
        let whole = fs::read(&path).unwrap();
        for place in MAGIC.len() + 8..whole.len() {
            let mut damaged = whole.clone();
            damaged[place] ^= 0x10;
            fs::write(&path, &damaged).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged(_))), "at {place}");
            fs::write(&path, &whole[..place]).unwrap();
            assert!(matches!(read(&path), Err(StateError::Damaged(_))), "cut at {place}");
        }
        written(&path, &[b"new"]).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![b"new".to_vec()]));
    }

    #[test]
    fn files_of_others_are_neither_read_nor_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        for theirs in [&b"#!/bin/sh\n"[..], b"s", b"seedring resume 1\n", &[0; 4096]] {
            fs::write(&path, theirs).unwrap();
            assert!(matches!(read(&path), Err(StateError::NotOurs(_))));
            assert!(matches!(written(&path, &[b"x"]), Err(StateError::NotOurs(_))));
            assert_eq!(fs::read(&path).unwrap(), theirs);
        }
        fs::write(&path, b"seedring tracker state 2\nwho knows").unwrap();
        assert!(matches!(read(&path), Err(StateError::Newer(_))));
        assert!(matches!(written(&path, &[b"x"]), Err(StateError::Newer(_))));
        // One that takes the place while ours is being written.
        fs::remove_file(&path).unwrap();
        let mut new = StateFile::at(&path).create(1000).unwrap();
        new.piece(b"x").unwrap();
        fs::write(&path, b"somebody else's").unwrap();
        assert!(matches!(new.finish(), Err(StateError::NotOurs(_))));
        assert_eq!(fs::read(&path).unwrap(), b"somebody else's");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(matches!(read(folder.path()), Err(StateError::NotOurs(_))));
        // An empty file holds nothing that could be lost.
        fs::write(&path, b"").unwrap();
        written(&path, &[b"x"]).unwrap();
    }

    #[test]
    fn a_link_stays_one() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        written(&real, &[b"one"]).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        written(&link, &[b"two"]).unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(read(&real).unwrap(), Some(vec![b"two".to_vec()]));
    }

    #[test]
    fn a_file_that_cannot_be_written_says_so_and_leaves_the_former_one() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no folder").join("state");
        assert!(matches!(written(&missing, &[]), Err(StateError::Io { what: "write", .. })));
        assert!(matches!(StateFile::at(&missing).try_to_write(1), Err(StateError::Io { what: "write", .. })));
        let path = folder.path().join("state");
        written(&path, &[b"one"]).unwrap();
        drop(StateFile::at(&path).create(1000).unwrap());
        StateFile::at(&path).try_to_write(1).unwrap();
        assert_eq!(read(&path).unwrap(), Some(vec![b"one".to_vec()]));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
