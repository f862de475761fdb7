//! What goes wrong with content on disk, said so that the reader knows whose fault it is and what to do.
//!
//! Causes are kept as error numbers, not as `io::Error`, so that one error can stand in a torrent's state, in a
//! report and in a log at the same time.

use super::layout::LayoutError;
use super::shortage::is_shortage;
use crate::units::{Counted, PieceIndex};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Whose fault it is, which decides between pausing a torrent and ending the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The torrent's content on disk, or the disk. Other torrents go on.
    Disk,
    /// The machine's limits or the user's settings. It will meet every torrent.
    Config,
    /// The torrent itself.
    Torrent,
}

/// Why content cannot be served, hashed or checked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StorageError {
    /// Nothing at that path.
    #[error("{} is missing; put it back, or name the folder that holds it", .0.display())]
    Missing(PathBuf),
    /// The file was there when the torrent was added.
    #[error("{} has vanished since it was added; put it back", .0.display())]
    Vanished(PathBuf),
    /// Another file has taken its place.
    #[error("{} has been replaced by another file since it was added; check the torrent again", .0.display())]
    Replaced(PathBuf),
    /// Written to since it was added.
    #[error("{} has been modified since it was added; check the torrent again", .0.display())]
    Modified(PathBuf),
    /// Not as long as the torrent says.
    #[error("{} has {} where the torrent has {expected}; restore it, or make a new torrent", .path.display(), Counted(*.found, "byte"))]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the torrent says.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A folder, FIFO, socket or device where a file is due.
    #[error("{} is a {kind} where a {due} is due; move it away and restore the content", .path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What lies there.
        kind: &'static str,
        /// What should lie there.
        due: &'static str,
    },
    /// A symbolic link on the way; following it could lead out of the content's folder.
    #[error("{} is, or lies behind, a symbolic link, which is not followed inside a torrent's folder; put the file itself there (`seed` and `check`: or use --follow-links)", .0.display())]
    SymbolicLink(PathBuf),
    /// No permission.
    #[error("{} may not be read by this user; change its permissions", .0.display())]
    Denied(PathBuf),
    /// The process has as many files open as it may.
    #[error("too many open files at {}; raise the limit (ulimit -n, or LimitNOFILE= of the service)", .0.display())]
    TooManyOpenFiles(PathBuf),
    /// The process has as many mappings as it may, or no address space is left.
    #[error("no room to map {}; raise the limits (sysctl vm.max_map_count, ulimit -v)", .0.display())]
    TooManyMappings(PathBuf),
    /// The kernel has no memory for it.
    #[error("no memory is left to open {}; free some, or raise the limit (MemoryMax= of the service)", .0.display())]
    NoMemory(PathBuf),
    /// The disk is full.
    #[error("no space left to write {}; free some", .0.display())]
    NoSpace(PathBuf),
    /// No permission to write.
    #[error("{} may not be written by this user; change its permissions, or choose another folder", .0.display())]
    NotWritable(PathBuf),
    /// The file system takes no writes, perhaps since it met an error.
    #[error("{} lies on a file system that is mounted read-only; mount it for writing, or choose another folder", .0.display())]
    ReadOnly(PathBuf),
    /// The kernel could not bring written bytes to the disk. It keeps none that it could not write, so they may be lost
    /// even when a second try succeeds.
    #[error("{} could not be brought to the disk, so that some of it may be lost; check the disk and its free space, then start again: what is there will be checked", .path.display())]
    Unsynced {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// Pieces of it were right when they were written, and are not any more.
    #[error("{} was written to by another program while it was downloaded, and is not what the torrent has; end that program, then start again: what is wrong is downloaded anew", .0.display())]
    WrittenByOthers(PathBuf),
    /// The file system takes no new folders or files there, as /proc.
    #[error("{} cannot be made, since its file system takes no new files or folders there; choose another folder", .0.display())]
    NotMade(PathBuf),
    /// Larger than the file system, or a limit of the process, takes.
    #[error("{} is larger than its file system or this process (ulimit -f) allows; choose another folder", .0.display())]
    TooLarge(PathBuf),
    /// A file in a download's way that has more bytes than the torrent's.
    #[error("{} has {} where the torrent has {expected}, and is not cut off; move it away, choose another folder, or say --overwrite", .path.display(), Counted(*.found, "byte"))]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Bytes that the torrent says.
        expected: u64,
        /// Bytes on disk.
        found: u64,
    },
    /// A file in a download's way of which nothing says that it is ours.
    #[error("{} is there already and is not this torrent's, so it is left as it is; move it away, choose another folder, or say --overwrite", .0.display())]
    NotOurs(PathBuf),
    /// A file in a download's way that has other names (hard links).
    #[error("{} has other names (hard links), whose content would change with it; put a copy in its place, or choose another folder", .0.display())]
    OtherNames(PathBuf),
    /// Another process downloads into it, or seeds what would be written.
    #[error("{} is being seeded, or downloaded into, by another process; end that one, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// Content that was opened for seeding, or whose download has ended.
    #[error("{} is open for reading only; add the torrent again to download into it", .0.display())]
    NotOpenForWriting(PathBuf),
    /// Bytes that are not as long as the piece, or no piece of this torrent.
    #[error("a buffer of {} is no piece {piece}, which has {expected}", Counted(*.found, "byte"))]
    NotThePiece {
        /// The piece.
        piece: PieceIndex,
        /// Bytes that it has; zero when the torrent has no such piece.
        expected: u32,
        /// Bytes that were given.
        found: usize,
    },
    /// The torrent declares a file as padding that has bytes other than zero, so it cannot be left out.
    #[error("the torrent's piece {0} has content in what is declared as padding; it cannot be kept")]
    PaddingWithContent(PieceIndex),
    /// Anything else the kernel says.
    #[error("cannot {action} {}; check the disk and its file system", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// The data given is not this torrent's: neither its file or folder nor what holds it.
    #[error("{} does not hold {name:?}; name the content itself or the folder that holds it", .data.display())]
    NotContent {
        /// Where the user pointed.
        data: PathBuf,
        /// The torrent's name.
        name: String,
    },
    /// The torrent's files make no sense.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// No thread could be had.
    #[error("cannot start a thread to hash with; raise the limit (ulimit -u, or TasksMax= of the service)")]
    NoThread(#[source] Errno),
    /// The caller asked to stop.
    #[error("stopped before the end")]
    Cancelled,
}

impl StorageError {
    /// Whose fault it is.
    pub fn blame(&self) -> Blame {
        match self {
            Self::TooManyOpenFiles(_)
            | Self::TooManyMappings(_)
            | Self::NoMemory(_)
            | Self::Denied(_)
            | Self::NotContent { .. }
            | Self::NotWritable(_)
            | Self::NotMade(_)
            | Self::InUse(_)
            | Self::NotOurs(_)
            | Self::OtherNames(_)
            | Self::NotOpenForWriting(_)
            | Self::NoThread(_)
            | Self::Cancelled => Blame::Config,
            Self::Layout(_) | Self::NotThePiece { .. } | Self::PaddingWithContent(_) => Blame::Torrent,
            _ => Blame::Disk,
        }
    }

    /// Whether it is want of descriptors, memory or threads, which passes: never the fault of what met it.
    pub fn is_shortage(&self) -> bool {
        match self {
            Self::TooManyOpenFiles(_) | Self::TooManyMappings(_) | Self::NoMemory(_) | Self::NoThread(_) => {
                true
            }
            Self::Io { errno, .. } => is_shortage(*errno),
            _ => false,
        }
    }

    /// The message, and what the kernel said where that is apart.
    pub fn with_cause(&self) -> String {
        match std::error::Error::source(self) {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }

    /// [`Self::at`] for what changes the file or folder.
    pub(super) fn writing(action: &'static str, path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::ACCESS | Errno::PERM => Self::NotWritable(path.to_path_buf()),
            Errno::ROFS => Self::ReadOnly(path.to_path_buf()),
            Errno::FBIG => Self::TooLarge(path.to_path_buf()),
            Errno::NOTDIR => Self::WrongKind { path: path.to_path_buf(), kind: "file", due: "folder" },
            Errno::ISDIR => Self::WrongKind { path: path.to_path_buf(), kind: "folder", due: "file" },
            Errno::NOENT | Errno::OPNOTSUPP | Errno::NOSYS if action == "make" => {
                Self::NotMade(path.to_path_buf())
            }
            _ => Self::at(action, path, errno),
        }
    }

    /// The error for `errno`, met when trying to `action` (a verb) the file or folder at `path`.
    pub(super) fn at(action: &'static str, path: &Path, errno: Errno) -> Self {
        let path = path.to_path_buf();
        match errno {
            Errno::NOENT | Errno::NOTDIR => Self::Missing(path),
            Errno::ACCESS | Errno::PERM => Self::Denied(path),
            // BENEATH answers XDEV when a path would leave the root.
            Errno::LOOP | Errno::XDEV => Self::SymbolicLink(path),
            Errno::NXIO => Self::WrongKind { path, kind: "socket or device", due: "file" },
            Errno::MFILE | Errno::NFILE => Self::TooManyOpenFiles(path),
            Errno::NOMEM => Self::NoMemory(path),
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace(path),
            _ => Self::Io { action, path, errno },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_names_the_file_and_one_line_says_what_to_do() {
        let path = Path::new("/srv/film.mkv");
        for (errno, part) in [
            (Errno::NOENT, "is missing"),
            (Errno::ACCESS, "permissions"),
            (Errno::MFILE, "ulimit -n"),
            (Errno::LOOP, "symbolic link"),
            (Errno::NXIO, "socket or device"),
            (Errno::NOSPC, "no space"),
            (Errno::IO, "check the disk"),
            (Errno::STALE, "check the disk"),
        ] {
            let message = StorageError::at("read", path, errno).to_string();
            assert!(message.contains("/srv/film.mkv") && message.contains(part), "{message}");
            assert!(!message.contains('\n') && !message.ends_with('.'), "{message}");
        }
    }

    #[test]
    fn errors_of_writing_say_what_to_do() {
        let path = Path::new("/srv/film.mkv");
        for (errno, part) in [
            (Errno::ACCESS, "may not be written"),
            (Errno::ROFS, "mount it for writing"),
            (Errno::NOSPC, "free some"),
            (Errno::DQUOT, "free some"),
            (Errno::FBIG, "ulimit -f"),
            (Errno::NOENT, "is missing"),
            (Errno::IO, "cannot write /srv/film.mkv; check the disk"),
        ] {
            let message = StorageError::writing("write", path, errno).to_string();
            assert!(message.contains("/srv/film.mkv") && message.contains(part), "{message}");
        }
        let not_made = StorageError::writing("make", path, Errno::NOENT);
        assert!(not_made.to_string().contains("choose another folder"), "{not_made}");
        assert_eq!(not_made.blame(), Blame::Config);
        assert_eq!(StorageError::writing("write", path, Errno::ROFS).blame(), Blame::Disk);
        assert_eq!(StorageError::writing("write", path, Errno::ACCESS).blame(), Blame::Config);
        assert_eq!(StorageError::PaddingWithContent(PieceIndex(1)).blame(), Blame::Torrent);
    }

    #[test]
    fn want_of_what_others_give_back_is_a_shortage_and_nothing_else_is() {
        let path = Path::new("x");
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN, Errno::NOBUFS] {
            assert!(StorageError::at("open", path, errno).is_shortage(), "{errno}");
            assert!(StorageError::writing("write", path, errno).is_shortage(), "{errno}");
        }
        for errno in [Errno::IO, Errno::NOENT, Errno::NOSPC, Errno::ACCESS, Errno::STALE, Errno::FAULT] {
            assert!(!StorageError::at("open", path, errno).is_shortage(), "{errno}");
        }
        assert!(StorageError::NoThread(Errno::AGAIN).is_shortage());
    }

    #[test]
    fn limits_are_the_users_to_mend_and_files_the_disks() {
        let path = Path::new("x");
        assert_eq!(StorageError::at("open", path, Errno::MFILE).blame(), Blame::Config);
        assert_eq!(StorageError::at("read", path, Errno::IO).blame(), Blame::Disk);
        assert_eq!(StorageError::from(LayoutError::TooLong).blame(), Blame::Torrent);
    }
}
