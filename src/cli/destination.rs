//! Where the torrent file of new content goes, decided and judged before hours of hashing, not after. Only a
//! torrent is replaced unasked: another file of the default name is somebody's work.

use super::CommandError;
use crate::session::torrent_file::read_torrent;
use rustix::fs::Access;
use std::path::{Path, PathBuf};

/// A place for a torrent file that can be written to.
#[derive(Debug)]
pub(super) struct Destination {
    /// The file.
    pub path: PathBuf,
    /// Whether something lies there that is going to be replaced.
    pub replaces: bool,
}

impl Destination {
    /// Where the torrent of `content` goes when the user `named` a file, a folder or nothing; `option` is what the
    /// user would name it with.
    ///
    /// # Errors
    /// The content has no name, a file that is no torrent would be replaced unasked, or nothing can be written
    /// there.
    pub fn of(content: &Path, named: Option<&Path>, option: &str) -> Result<Self, CommandError> {
        let path = path_of(content, named)?;
        // Whatever lies there, even a link to nowhere.
        let replaces = path.symlink_metadata().is_ok();
        if replaces && named != Some(&path) && read_torrent(&path).is_err() {
            let path = path.display();
            return Err(
                format!("{path} exists and is no torrent; name the file to write with {option}").into()
            );
        }
        refuse_unwritable_folder(&path, option)?;
        Ok(Self { path, replaces })
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
    fn replaces_torrents_and_what_it_was_told_to_replace() {
        let folder = tempfile::tempdir().unwrap();
        let content = folder.path().join("content");
        fs::write(&content, "x").unwrap();
        let torrent = folder.path().join("content.torrent");
        let by_default = || Destination::of(&content, Some(folder.path()), "--torrent");
        assert!(!by_default().unwrap().replaces);
        fs::write(&torrent, TORRENT).unwrap();
        assert!(by_default().unwrap().replaces);
        fs::write(&torrent, "my diary").unwrap();
        let refusal = by_default().unwrap_err().to_string();
        assert!(refusal.contains("is no torrent") && refusal.ends_with("with --torrent"), "{refusal}");
        assert!(Destination::of(&content, Some(&torrent), "--torrent").unwrap().replaces);
    }
}
