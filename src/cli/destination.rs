//! Where the torrent file of new content goes, decided and judged before hours of hashing, not after. Only a torrent is
//! ever replaced, wherever the user said: any other file is somebody's work.

use super::CommandError;
use crate::session::torrent_file::place_of;
use crate::storage::{WriteError, look_at_place};
use rustix::fs::Access;
use std::path::{Path, PathBuf};

/// A place for a torrent file that can be written to.
#[derive(Debug)]
pub(super) struct Destination {
    /// The file.
    pub path: PathBuf,
}

impl Destination {
    /// Where the torrent of `content` goes when the user `named` a file, a folder or nothing; `option` is what the
    /// user would name it with.
    ///
    /// # Errors
    /// The content has no name, something lies there that is not to be replaced, or nothing can be written there.
    pub fn of(content: &Path, named: Option<&Path>, option: &str) -> Result<Self, CommandError> {
        let path = path_of(content, named)?;
        if let Err(refused) = look_at_place(place_of(&path, content)) {
            return Err(match refused {
                WriteError::Io { .. } => super::with_causes(&refused).into(),
                _ => format!("{refused} with {option}").into(),
            });
        }
        refuse_unwritable_folder(&path, option)?;
        Ok(Self { path })
    }

    /// The path without links and ways around, by which two places are told to be one; the file need not be there.
    pub fn absolute(&self) -> PathBuf {
        absolute(&self.path)
    }
}

/// The path without links and ways around, but for a link that the file itself is.
pub(super) fn absolute(path: &Path) -> PathBuf {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match (folder.canonicalize(), path.file_name()) {
        (Ok(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

/// As the user said, into the folder the user named, or into the current one.
fn path_of(content: &Path, named: Option<&Path>) -> Result<PathBuf, CommandError> {
    let folder = match named {
        Some(path) if !path.is_dir() => return Ok(path.to_owned()),
        folder => folder.unwrap_or(Path::new("")),
    };
    let content = content.canonicalize().map_err(|error| {
        format!("cannot read {}: {error}; name an existing file or folder", content.display())
    })?;
    let name = content.file_name().ok_or("the root of the file system has no name to share it under")?;
    let mut file_name = name.to_owned();
    file_name.push(".torrent");
    Ok(folder.join(file_name))
}

fn refuse_unwritable_folder(path: &Path, option: &str) -> Result<(), CommandError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    rustix::fs::access(folder, Access::WRITE_OK | Access::EXEC_OK).map_err(|errno| {
        format!("cannot write the torrent file {}: {errno}; name another with {option}", path.display())
            .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const TORRENT: &str =
        "d4:infod6:lengthi1e4:name1:x12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee";

    #[test]
    fn lies_where_the_user_said_or_in_the_current_folder() {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        fs::write(&content, "x").unwrap();
        assert_eq!(path_of(&content, Some(Path::new("x.torrent"))).unwrap(), Path::new("x.torrent"));
        assert_eq!(path_of(&content, None).unwrap(), Path::new("content.torrent"));
        let inside = folder.path().join("content.torrent");
        assert_eq!(path_of(&content, Some(folder.path())).unwrap(), inside);
        assert!(path_of(Path::new("/"), None).is_err());
        assert!(path_of(&folder.path().join("missing"), None).is_err());
    }

    #[test]
    fn replaces_torrents_and_nothing_else_even_where_the_user_said() {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        fs::write(&content, "x").unwrap();
        let torrent = folder.path().join("content.torrent");
        let at = |named: &Path| Destination::of(&content, Some(named), "--torrent");
        for named in [folder.path(), &torrent] {
            let _ = fs::remove_file(&torrent);
            assert!(at(named).is_ok());
            fs::write(&torrent, TORRENT).unwrap();
            assert!(at(named).is_ok());
            fs::write(&torrent, "my diary").unwrap();
            let refusal = at(named).unwrap_err().to_string();
            assert!(refusal.contains("is no torrent") && refusal.ends_with("with --torrent"), "{refusal}");
        }
        for (named, says) in
            [(content.as_path(), "belongs to"), (Path::new("/proc/self/exe"), "symbolic link")]
        {
            let refusal = at(named).unwrap_err().to_string();
            assert!(refusal.contains(says), "{refusal}");
        }
    }

    #[test]
    fn places_are_the_same_by_every_way_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        fs::create_dir(base.join("a")).unwrap();
        std::os::unix::fs::symlink("a", base.join("b")).unwrap();
        for path in ["a/x.torrent", "b/x.torrent", "a/../a/./x.torrent"] {
            assert_eq!(absolute(&base.join(path)), base.join("a/x.torrent"));
        }
    }
}
