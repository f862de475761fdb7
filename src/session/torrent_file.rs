//! Torrent files on disk: read with a bound, written whole or not at all, and over nothing but torrents.

use crate::limits::{SHORTAGE_PATIENCE, TORRENT_FILE_LEN_MAX};
use crate::metainfo::{Metainfo, MetainfoError};
use crate::storage::{FileKind, Permit, Place, WriteError, is_shortage_of, outlast, replace_file};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
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
    /// The file cannot be written, or what lies there is not to be replaced.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Reads a torrent file; of a larger one than `TORRENT_FILE_LEN_MAX` no more than that.
///
/// # Errors
/// It cannot be read, or is no usable torrent.
pub fn read_torrent(path: &Path) -> Result<Metainfo, TorrentFileError> {
    let failed = |source| TorrentFileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = outlast(SHORTAGE_PATIENCE, is_shortage_of, || open_file(path)).map_err(failed)?;
    file.take(TORRENT_FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
    Metainfo::parse(&bytes).map_err(|source| TorrentFileError::Unusable { path: path.to_owned(), source })
}

/// Opens what is a file. Anything else might be waited for without end, or have none: a pipe, a terminal, `/dev/zero`.
fn open_file(path: &Path) -> io::Result<File> {
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or_default();
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    let kind = file.metadata()?.file_type();
    // A folder says so itself when it is read.
    if kind.is_file() || kind.is_dir() {
        return Ok(file);
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a pipe or a device, and no file"))
}

/// Where the torrent file of `content` may go, as [`replace_file`] and what asks before it see that.
pub fn place_of<'a>(path: &'a Path, content: &'a Path) -> Place<'a> {
    Place { path, kind: FileKind::Torrent, content: Some(content) }
}

/// Writes the torrent of `content` to `path`: first beside it, then by one rename, so that nobody ever sees half a torrent.
/// True when another torrent was replaced.
///
/// # Errors
/// Something else than a torrent lies there, a link, or a part of the content; whatever the file system refuses. Nothing
/// is left behind.
pub fn write_torrent(path: &Path, bytes: &[u8], content: &Path) -> Result<bool, TorrentFileError> {
    Ok(replace_file(place_of(path, content), bytes, true)? == Permit::Replace)
}

/// Writes a file that was not there, folders on the way included. A file that is there is left alone.
///
/// # Errors
/// Whatever the file system refuses.
pub fn write_new_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
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
    fn writes_whole_torrents_over_old_ones_and_nothing_else_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.torrent");
        let content = Path::new("/nowhere");
        assert!(!write_torrent(&path, TORRENT, content).unwrap());
        assert!(write_torrent(&path, TORRENT, content).unwrap());
        assert_eq!(read_torrent(&path).unwrap().info().name(), "x");
        std::fs::write(&path, "old").unwrap();
        assert!(matches!(write_torrent(&path, TORRENT, content), Err(TorrentFileError::Write(_))));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_no_file_is_neither_waited_for_nor_read_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("pipe.torrent");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let endless = folder.path().join("zero.torrent");
        std::os::unix::fs::symlink("/dev/zero", &endless).unwrap();
        for path in [&fifo, &endless] {
            let error = read_torrent(path).unwrap_err();
            assert!(
                matches!(&error, TorrentFileError::Read { source, .. } if source.to_string().contains("no file")),
                "{error}"
            );
        }
    }

    #[test]
    fn failures_say_which_file() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("folder");
        std::fs::create_dir_all(occupied.join("inside")).unwrap();
        assert!(matches!(read_torrent(&occupied), Err(TorrentFileError::Read { .. })));
        let (empty, long) = (folder.path().join("empty"), folder.path().join("long"));
        File::create(&empty).unwrap();
        assert!(matches!(read_torrent(&empty), Err(TorrentFileError::Unusable { .. })));
        File::create(&long).unwrap().set_len(TORRENT_FILE_LEN_MAX + 1).unwrap();
        let endless = read_torrent(&long).unwrap_err();
        assert!(matches!(endless, TorrentFileError::Unusable { source: MetainfoError::TooLong, .. }));
    }
}
