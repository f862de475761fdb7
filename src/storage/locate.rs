//! From what the user points at to the folder that a layout's paths are relative to.
//!
//! People name the folder that holds the content, the content itself, or a renamed copy of it. What is there
//! decides: of the possible folders the first that has any of the torrent's files.

use super::error::StorageError;
use super::layout::{Layout, LayoutError, LayoutFile};
use super::root::Root;
use crate::metainfo::Info;
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Finds a torrent's content at `data`. Answers the folder that it lies in and its layout below that folder, whose
/// paths are the torrent's, or those of a renamed copy.
pub fn locate(info: &Info, data: &Path) -> Result<(Layout, PathBuf), StorageError> {
    find(Layout::of(info)?, info.name(), !info.single_file(), data)
}

/// `in_folder`: the torrent is a folder of files, whose paths begin with its name.
fn find(layout: Layout, name: &str, in_folder: bool, data: &Path) -> Result<(Layout, PathBuf), StorageError> {
    let at = |error: std::io::Error| {
        StorageError::at("find", data, Errno::from_io_error(&error).unwrap_or(Errno::IO))
    };
    // Resolved, because the user's own links may be followed, and because `.` has no name.
    let data = std::fs::canonicalize(data).map_err(at)?;
    let is_folder = data.is_dir();
    let not_content = || StorageError::NotContent { data: data.clone(), name: name.to_owned() };
    match (in_folder, is_folder) {
        (false, true) => Ok((layout, data)),
        (false, false) => match (data.parent(), data.file_name()) {
            (Some(parent), Some(file_name)) => {
                let renamed = with_paths(&layout, |_| file_name.into())?;
                Ok((renamed, parent.to_path_buf()))
            }
            _ => Err(not_content()),
        },
        (true, false) => Err(not_content()),
        (true, true) => {
            let inside = with_paths(&layout, |path| path.components().skip(1).collect())?;
            let is_named = data.file_name().is_some_and(|last| last == name);
            if holds_any_file(&layout, &data) {
                Ok((layout, data))
            } else if holds_any_file(&inside, &data) {
                Ok((inside, data))
            } else if data.join(name).is_dir() {
                Ok((layout, data))
            } else if is_named {
                Ok((inside, data))
            } else {
                Err(not_content())
            }
        }
    }
}

/// The same files under other paths.
fn with_paths(layout: &Layout, rename: impl Fn(&Path) -> PathBuf) -> Result<Layout, LayoutError> {
    let files = layout.files().iter().map(|file| {
        let path = if file.padding { file.path.clone() } else { rename(&file.path) };
        LayoutFile { path, ..file.clone() }
    });
    Layout::new(layout.piece_length(), files)
}

fn holds_any_file(layout: &Layout, root: &Path) -> bool {
    let Ok(root) = Root::open(root) else { return false };
    layout.stored_files().any(|(_, file)| root.state(&file.path).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(paths: &[&str]) -> Layout {
        let files = paths.iter().map(|&path| LayoutFile { path: path.into(), len: 1, padding: false });
        Layout::new(16, files).unwrap()
    }

    #[test]
    fn a_folder_is_found_in_its_parent_by_itself_and_renamed() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("album/disc")).unwrap();
        std::fs::write(base.join("album/disc/song"), "x").unwrap();
        let files = |name: &str| layout(&[&format!("{name}/gone"), &format!("{name}/disc/song")]);
        let found = |name: &str, data: &str| find(files(name), name, true, &base.join(data));
        let inside = layout(&["gone", "disc/song"]);
        assert_eq!(found("album", "").unwrap(), (files("album"), base.clone()));
        assert_eq!(found("album", "album").unwrap(), (inside.clone(), base.join("album")));
        assert_eq!(found("old name", "album").unwrap(), (inside, base.join("album")));
        assert!(matches!(found("old name", ""), Err(StorageError::NotContent { .. })));
        assert!(matches!(found("album", "album/disc/song"), Err(StorageError::NotContent { .. })));
        assert!(matches!(found("album", "nowhere"), Err(StorageError::Missing(_))));
    }

    #[test]
    fn a_folder_without_any_of_the_files_is_found_by_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        std::fs::create_dir(base.join("album")).unwrap();
        let files = || layout(&["album/song"]);
        assert_eq!(find(files(), "album", true, &base).unwrap(), (files(), base.clone()));
        let itself = find(files(), "album", true, &base.join("album")).unwrap();
        assert_eq!(itself, (layout(&["song"]), base.join("album")));
    }

    #[test]
    fn a_folder_inside_a_folder_of_the_same_name_is_not_mistaken() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("x/x")).unwrap();
        std::fs::write(base.join("x/x/a"), "x").unwrap();
        let found = find(layout(&["x/x/a"]), "x", true, &base.join("x")).unwrap();
        assert_eq!(found, (layout(&["x/a"]), base.join("x")));
    }

    #[test]
    fn a_single_file_is_found_in_its_folder_by_its_path_and_through_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let base = scratch.path().canonicalize().unwrap();
        std::fs::write(base.join("renamed.iso"), "x").unwrap();
        std::os::unix::fs::symlink("renamed.iso", base.join("link")).unwrap();
        let found = |data: &str| find(layout(&["image.iso"]), "image.iso", false, &base.join(data)).unwrap();
        assert_eq!(found(""), (layout(&["image.iso"]), base.clone()));
        assert_eq!(found("renamed.iso"), (layout(&["renamed.iso"]), base.clone()));
        assert_eq!(found("link"), (layout(&["renamed.iso"]), base.clone()));
    }
}
