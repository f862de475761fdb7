//! Makes a torrent from a file or folder: walk, hash, build.
//!
//! The walk is deterministic: files in the order of their path's bytes, component by component, so that the
//! same content has the same info-hash everywhere. Links are not followed and what is no regular file is
//! left out, each with a note, and so is what the user excludes or what systems leave behind ([`choice`]); a name that
//! is no UTF-8 cannot stand in a torrent and is an error.

mod choice;

pub use choice::Alike;

use crate::limits::PATH_DEPTH_MAX;
use crate::metainfo::builder::{BuildError, Builder, NewFile, default_piece_length};
use crate::metainfo::{Info, Metainfo};
use crate::secret_url::{TrackerUrl, WebSeedUrl};
use crate::storage::{self, Layout, StorageError};
use choice::Choice;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What a new torrent says beside its content.
#[derive(Clone, Debug, Default)]
pub struct MakeOptions {
    /// Trackers in tiers, best first.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Web seeds.
    pub web_seeds: Vec<WebSeedUrl>,
    /// Bytes of a piece, a power of two from 16 KiB to `PIECE_LEN_MAX`; by default after the content's length.
    pub piece_length: Option<u32>,
    /// Peers from the trackers only (BEP 27).
    pub private: bool,
    /// A text for people.
    pub comment: Option<String>,
    /// A mark that gives the same content another info-hash.
    pub source: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<u64>,
    /// Patterns of files and folders to leave out: of names at any depth, or, with a `/`, of paths below the folder.
    pub exclude: Vec<String>,
    /// Whether what systems and tools leave behind in folders (`.DS_Store`, `Thumbs.db`, `.git`) is shared, too.
    pub include_system_files: bool,
    /// A file to leave out even when it lies in the folder: the one the torrent is going to be written to.
    pub leave_out: Option<PathBuf>,
}

/// Content that has been looked at, not yet read.
#[derive(Debug)]
pub struct Plan {
    builder: Builder,
    draft: Info,
    root: PathBuf,
    left_out: Vec<LeftOut>,
    alike: Vec<Alike>,
}

/// Something in the folder that is not going to be in the torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// What.
    pub path: PathBuf,
    /// Why, as in `… is left out: it is a symbolic link`.
    pub reason: &'static str,
}

/// A new torrent.
#[derive(Debug)]
pub struct MadeTorrent {
    /// The torrent file's bytes.
    pub bytes: Vec<u8>,
    /// What they say.
    pub metainfo: Metainfo,
    /// The folder below which the paths of `metainfo`'s files lie.
    pub root: PathBuf,
}

/// Why no torrent can be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MakeError {
    /// A file or folder cannot be looked at.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// Not a file, not a folder, or the root of the file system.
    #[error("{} is neither a file nor a folder that could be shared", .0.display())]
    NotShareable(PathBuf),
    /// The name is not UTF-8.
    #[error("the name of {0:?} is not UTF-8, which torrents require; rename it")]
    NameNotUtf8(PathBuf),
    /// Deeper than `PATH_DEPTH_MAX` folders.
    #[error("{} lies more than {PATH_DEPTH_MAX} folders deep", .0.display())]
    TooDeep(PathBuf),
    /// No bytes to share.
    #[error("{} has no content to share: there is not one byte in it", .0.display())]
    NoContent(PathBuf),
    /// A file was written to, replaced or taken away between the first look at it and its last byte.
    #[error("{} changed while it was hashed; try again when nothing writes to it any more", .0.display())]
    Changed(PathBuf),
    /// What is to be excluded is no pattern.
    #[error("{pattern:?} is no pattern of file names: {reason}")]
    Pattern {
        /// As given.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The torrent cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The content cannot be read.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Plan {
    /// Looks at the file or folder at `path`, following links in `path` itself, but none below.
    ///
    /// # Errors
    /// There is nothing to share, something cannot be looked at, or a name cannot stand in a torrent.
    pub fn of(path: &Path, options: MakeOptions) -> Result<Self, MakeError> {
        let read = |source| MakeError::Read { path: path.to_owned(), source };
        let path = fs::canonicalize(path).map_err(read)?;
        let (Some(name), Some(root)) = (path.file_name(), path.parent()) else {
            return Err(MakeError::NotShareable(path));
        };
        let leave_out = options.leave_out.as_deref().and_then(absolute);
        let choice = Choice::new(&options.exclude, options.include_system_files)?;
        let mut walk = Walk { files: Vec::new(), left_out: Vec::new(), leave_out, choice };
        let name = utf8(name, &path)?;
        let metadata = fs::metadata(&path).map_err(read)?;
        if metadata.is_file() {
            walk.files.push(new_file(Vec::new(), &metadata));
        } else if metadata.is_dir() {
            walk.folder(&path)?;
        } else {
            return Err(MakeError::NotShareable(path));
        }
        let total_len: u64 = walk.files.iter().map(|file| file.len).sum();
        if total_len == 0 {
            return Err(MakeError::NoContent(path));
        }
        let alike = choice::alike(&walk.files);
        let builder = Builder {
            name,
            files: walk.files,
            piece_length: options.piece_length.unwrap_or_else(|| default_piece_length(total_len)),
            tiers: options.tiers,
            web_seeds: options.web_seeds,
            private: options.private,
            comment: options.comment,
            source: options.source,
            creation_date: options.creation_date,
            created_by: Some(concat!("seedring ", env!("CARGO_PKG_VERSION")).to_owned()),
        };
        let draft = builder.draft()?;
        Ok(Self { builder, draft, root: root.to_owned(), left_out: walk.left_out, alike })
    }

    /// Bytes to hash.
    pub fn total_len(&self) -> u64 {
        self.draft.total_len()
    }

    /// What the folder has that the torrent will not have.
    pub fn left_out(&self) -> &[LeftOut] {
        &self.left_out
    }

    /// Names that are one on systems that do not tell their letters apart.
    pub fn alike(&self) -> &[Alike] {
        &self.alike
    }

    /// Hashes the content on `threads` threads (0: one for every core) and builds the torrent. `on_progress`
    /// receives the bytes hashed since its last call, on any thread.
    ///
    /// # Errors
    /// The content cannot be read, or has changed since it was looked at.
    pub fn hash(self, threads: usize, on_progress: &(dyn Fn(u64) + Sync)) -> Result<MadeTorrent, MakeError> {
        let layout = Layout::of(&self.draft).map_err(StorageError::from)?;
        let hashes =
            storage::hash_pieces(&layout, &self.root, threads, on_progress).map_err(unless_changed)?;
        let (bytes, metainfo) = self.builder.build(&hashes)?;
        Ok(MadeTorrent { bytes, metainfo, root: self.root })
    }
}

/// Every file was there when the folder was looked at, so what is wrong with one now has happened since.
fn unless_changed(error: StorageError) -> MakeError {
    match error {
        StorageError::Modified(path)
        | StorageError::Missing(path)
        | StorageError::Vanished(path)
        | StorageError::Replaced(path)
        | StorageError::SymbolicLink(path)
        | StorageError::WrongKind { path, .. }
        | StorageError::Length { path, .. } => MakeError::Changed(path),
        other => MakeError::Storage(other),
    }
}

/// A walk through one folder.
struct Walk {
    files: Vec<NewFile>,
    left_out: Vec<LeftOut>,
    leave_out: Option<PathBuf>,
    choice: Choice,
}

impl Walk {
    /// Finds the files below `top` and puts them in order.
    fn folder(&mut self, top: &Path) -> Result<(), MakeError> {
        let mut folders = vec![(top.to_owned(), Vec::new())];
        while let Some((folder, below)) = folders.pop() {
            let read = |source| MakeError::Read { path: folder.clone(), source };
            for entry in fs::read_dir(&folder).map_err(read)? {
                let entry = entry.map_err(read)?;
                let path = entry.path();
                let metadata =
                    entry.metadata().map_err(|source| MakeError::Read { path: path.clone(), source })?;
                let relative = path.strip_prefix(top).unwrap_or(&path);
                if let Some(reason) = self.reason_against(&path, relative, &metadata) {
                    self.left_out.push(LeftOut { path, reason });
                    continue;
                }
                let mut parts: Vec<String> = below.clone();
                parts.push(utf8(&entry.file_name(), &path)?);
                if parts.len() >= PATH_DEPTH_MAX {
                    return Err(MakeError::TooDeep(path));
                }
                if metadata.is_dir() {
                    folders.push((path, parts));
                } else {
                    self.files.push(new_file(parts, &metadata));
                }
            }
        }
        self.files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        self.left_out.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(())
    }

    fn reason_against(&self, path: &Path, relative: &Path, metadata: &Metadata) -> Option<&'static str> {
        if metadata.is_symlink() {
            Some("it is a symbolic link")
        } else if !metadata.is_dir() && !metadata.is_file() {
            Some("it is neither a file nor a folder")
        } else if self.leave_out.as_deref() == Some(path) {
            Some("it is where the torrent file goes")
        } else {
            self.choice.reason_against(relative)
        }
    }
}

fn new_file(path: Vec<String>, metadata: &Metadata) -> NewFile {
    NewFile {
        path,
        len: metadata.len(),
        executable: metadata.permissions().mode() & 0o100 != 0,
        padding: false,
    }
}

fn utf8(name: &OsStr, path: &Path) -> Result<String, MakeError> {
    name.to_str().map(str::to_owned).ok_or_else(|| MakeError::NameNotUtf8(path.to_owned()))
}

/// The path as the walk will meet it; the file itself need not exist.
fn absolute(path: &Path) -> Option<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Some(fs::canonicalize(folder).ok()?.join(path.file_name()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::PieceIndex;
    use std::os::unix::ffi::OsStrExt;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = folder.path().join("top").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        folder
    }

    fn paths(info: &Info) -> Vec<&str> {
        info.files().iter().map(|file| file.path().as_str()).collect()
    }

    #[test]
    fn makes_a_torrent_of_a_folder_in_the_order_of_bytes() {
        let first = vec![1; 20_000];
        let folder =
            folder(&[("b.bin", &[2; 100]), ("B", &[3; 7]), ("a/z", &first), ("a.x", b""), ("é", b"e")]);
        let options = MakeOptions { piece_length: Some(16 * 1024), private: true, ..MakeOptions::default() };
        let plan = Plan::of(&folder.path().join("top"), options).unwrap();
        let (total, done) = (plan.total_len(), AtomicU64::new(0));
        let made = plan.hash(0, &|bytes| _ = done.fetch_add(bytes, Relaxed)).unwrap();
        let info = made.metainfo.info();
        assert_eq!(paths(info), ["top/B", "top/a/z", "top/a.x", "top/b.bin", "top/é"]);
        assert_eq!((total, done.load(Relaxed), info.private()), (20_108, 20_108, true));
        let content = [&[3; 7][..], &first, &[2; 100], b"e"].concat();
        for (number, piece) in content.chunks(16 * 1024).enumerate() {
            let expected = sha1_smol::Sha1::from(piece).digest().bytes();
            assert_eq!(info.piece_hash(PieceIndex(number as u32)), Some(expected));
        }
        assert!(info.files().iter().all(|file| made.root.join(file.path()).is_file()));
        assert_eq!(Metainfo::parse(&made.bytes).unwrap().info(), info);
    }

    #[test]
    fn makes_a_torrent_of_one_file() {
        let folder = folder(&[("one", b"content")]);
        let made = Plan::of(&folder.path().join("top/./one"), MakeOptions::default()).unwrap();
        let made = made.hash(1, &|_| {}).unwrap();
        assert!(made.metainfo.info().single_file());
        assert_eq!(paths(made.metainfo.info()), ["one"]);
        assert_eq!(made.root, fs::canonicalize(folder.path().join("top")).unwrap());
    }

    #[test]
    fn leaves_out_links_and_its_own_output_and_says_so() {
        let folder = folder(&[("file", b"x"), ("old.torrent", b"old")]);
        let top = folder.path().join("top");
        std::os::unix::fs::symlink("/etc/passwd", top.join("link")).unwrap();
        std::os::unix::fs::symlink(".", top.join("loop")).unwrap();
        let options = MakeOptions { leave_out: Some(top.join("old.torrent")), ..MakeOptions::default() };
        let plan = Plan::of(&top, options).unwrap();
        let names: Vec<_> = plan.left_out().iter().map(|left| left.path.file_name().unwrap()).collect();
        assert_eq!(names, ["link", "loop", "old.torrent"]);
        assert_eq!(paths(&plan.draft), ["top/file"]);
    }

    #[test]
    fn leaves_out_what_is_excluded_and_what_systems_leave_behind() {
        let content: &[u8] = b"x";
        let folder = folder(&[
            ("a.mkv", content),
            ("a.nfo", content),
            ("sub/b.nfo", content),
            ("sub/.DS_Store", content),
            (".git/config", content),
            ("sub/c", content),
        ]);
        let top = folder.path().join("top");
        let options = MakeOptions { exclude: vec!["*.nfo".to_owned()], ..MakeOptions::default() };
        let plan = Plan::of(&top, options.clone()).unwrap();
        assert_eq!(paths(&plan.draft), ["top/a.mkv", "top/sub/c"]);
        let names: Vec<_> = plan.left_out().iter().map(|left| left.path.file_name().unwrap()).collect();
        assert_eq!(names, [".git", "a.nfo", ".DS_Store", "b.nfo"]);
        let plan = Plan::of(&top, MakeOptions { include_system_files: true, ..options }).unwrap();
        assert_eq!(paths(&plan.draft), ["top/.git/config", "top/a.mkv", "top/sub/.DS_Store", "top/sub/c"]);
        let everything = MakeOptions { exclude: vec!["*".to_owned()], ..MakeOptions::default() };
        assert!(matches!(Plan::of(&top, everything).unwrap_err(), MakeError::NoContent(_)));
        // What the user names himself is meant.
        assert!(Plan::of(&top.join("sub/.DS_Store"), MakeOptions::default()).is_ok());
    }

    #[test]
    fn a_file_that_changes_while_it_is_hashed_is_told_as_that() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 5] = [
            ("grows", |path| {
                let file = fs::OpenOptions::new().append(true).open(path).unwrap();
                io::Write::write_all(&mut &file, b"more").unwrap();
            }),
            ("shrinks", |path| fs::OpenOptions::new().write(true).open(path).unwrap().set_len(5).unwrap()),
            ("is rewritten", |path| {
                let bytes = fs::read(path).unwrap();
                fs::write(path, bytes).unwrap();
                let file = fs::OpenOptions::new().write(true).open(path).unwrap();
                file.set_modified(std::time::UNIX_EPOCH).unwrap();
            }),
            ("is taken away", |path| fs::remove_file(path).unwrap()),
            ("gives way to a link", |path| {
                fs::remove_file(path).unwrap();
                std::os::unix::fs::symlink("/dev/zero", path).unwrap();
            }),
        ];
        for (how, change) in changes {
            for (changed, other) in [("a", "b"), ("b", "a")] {
                let folder = folder(&[("a", &[1; 100_000]), ("b", &[2; 100_000])]);
                let top = folder.path().join("top");
                let options = MakeOptions { piece_length: Some(16 * 1024), ..MakeOptions::default() };
                let plan = Plan::of(&top, options).unwrap();
                let (once, path) = (std::sync::Once::new(), top.join(changed));
                let outcome = plan.hash(1, &|_| once.call_once(|| change(&path)));
                let error = outcome.unwrap_err();
                assert!(
                    matches!(&error, MakeError::Changed(path) if path.ends_with(changed)),
                    "{how}: {error:?}"
                );
                assert!(error.to_string().contains("changed while it was hashed"), "{other}");
            }
        }
    }

    #[test]
    fn says_what_cannot_be_shared() {
        let plan = |path: &Path| Plan::of(path, MakeOptions::default()).unwrap_err();
        let folder = folder(&[("empty", b"")]);
        let top = folder.path().join("top");
        assert!(matches!(plan(&top), MakeError::NoContent(_)));
        assert!(matches!(plan(&top.join("missing")), MakeError::Read { .. }));
        assert!(matches!(plan(Path::new("/")), MakeError::NotShareable(_)));
        assert!(matches!(plan(Path::new("/dev/null")), MakeError::NotShareable(_)));
        fs::write(top.join("line\nend"), b"x").unwrap();
        assert!(matches!(plan(&top), MakeError::Build(BuildError::NameChanges { .. })));
        fs::write(top.join(OsStr::from_bytes(b"\xff")), b"x").unwrap();
        assert!(matches!(plan(&top), MakeError::NameNotUtf8(_)));
    }
}
