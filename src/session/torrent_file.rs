//! Torrent files on disk: read with a bound, written whole or not at all.

use crate::clock;
use crate::limits::TORRENT_FILE_LEN_MAX;
use crate::metainfo::{Metainfo, MetainfoError};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Why a torrent file cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TorrentFileError {
    /// The file cannot be read.
    #[error("cannot read the torrent file {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The file is no torrent that can be used.
    #[error("{} cannot be used", .path.display())]
    Unusable {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: MetainfoError,
    },
    /// The file cannot be written.
    #[error("cannot write the torrent file {}", .path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Reads a torrent file; of a larger one than `TORRENT_FILE_LEN_MAX` no more than that.
///
/// # Errors
/// It cannot be read, or is no usable torrent.
pub fn read_torrent(path: &Path) -> Result<Metainfo, TorrentFileError> {
    let failed = |source| TorrentFileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(failed)?;
    file.take(TORRENT_FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Metainfo::parse(&bytes).map_err(|source| TorrentFileError::Unusable { path: path.to_owned(), source })
}

/// Writes `bytes` to `path`, in place of what may lie there: first beside it, then by one rename, so that
/// nobody ever sees half a torrent.
///
/// # Errors
/// Whatever the file system refuses; nothing is left behind.
pub fn write_torrent(path: &Path, bytes: &[u8]) -> Result<(), TorrentFileError> {
    let failed = |source| TorrentFileError::Write { path: path.to_owned(), source };
    let Some(name) = path.file_name() else {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "this path names no file")));
    };
    // The name's own length may be the most a name can have, so it is not part of the other one.
    let [a, b, c, d] = clock::random_bytes();
    let beside = path.with_file_name(format!(".seedring-{a:02x}{b:02x}{c:02x}{d:02x}.torrent.part"));
    let result = write_new(&beside, bytes).and_then(|()| std::fs::rename(&beside, path.with_file_name(name)));
    if result.is_err() {
        // It is gone or was never there; the first error is the one to tell.
        let _ = std::fs::remove_file(&beside);
    }
    result.map_err(failed)
}

/// Writes a file that was not there, folders on the way included. A file that is there is left alone.
///
/// # Errors
/// Whatever the file system refuses.
pub fn write_new_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    write_new(path, bytes)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create_new(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TORRENT: &[u8] =
        b"d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee";

    #[test]
    fn writes_whole_files_over_old_ones_and_leaves_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.torrent");
        std::fs::write(&path, "old").unwrap();
        write_torrent(&path, TORRENT).unwrap();
        assert_eq!(read_torrent(&path).unwrap().info().name(), "x");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn failures_say_which_file_and_leave_nothing_beside() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("folder");
        std::fs::create_dir_all(occupied.join("inside")).unwrap();
        assert!(matches!(write_torrent(&occupied, TORRENT), Err(TorrentFileError::Write { .. })));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        assert!(write_torrent(Path::new("/"), TORRENT).is_err());
        assert!(write_torrent(&folder.path().join("missing/x"), TORRENT).is_err());
        assert!(matches!(read_torrent(&occupied), Err(TorrentFileError::Read { .. })));
        assert!(matches!(read_torrent(Path::new("/dev/null")), Err(TorrentFileError::Unusable { .. })));
        let endless = read_torrent(Path::new("/dev/zero")).unwrap_err();
        assert!(matches!(endless, TorrentFileError::Unusable { source: MetainfoError::TooLong, .. }));
    }
}
