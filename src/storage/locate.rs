//! From what the user points at to the folder that a layout's paths are relative to.
//!
//! People name the folder that holds the content, the content itself, or a renamed copy of it. What is there
//! decides: of the possible folders the first that has any of the torrent's files; of the names that clients give a
//! file, the first that is there.
//!
//! Links are not followed, unless the user says that they are his own: then they are followed once, here, and the layout
//! that comes of it leads to the files themselves.

use super::error::StorageError;
use super::layout::{FileIndex, Layout, LayoutError, LayoutFile};
use super::root::Root;
use crate::metainfo::Info;
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

/// What is done about symbolic links below the folder that the user names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Links {
    /// Nothing behind one is the torrent's.
    #[default]
    Refuse,
    /// The user's own lead to the content, which is then taken from where it lies. What is found is fixed: a link that
    /// is changed later leads nowhere else.
    Follow,
}

/// Finds a torrent's content at `data`. Answers the folder that it lies in and its layout below that folder, whose
/// paths are the torrent's, those of a renamed copy, or those that other clients or the user's links give the files.
///
/// # Errors
/// Nothing is there, or nothing of the torrent's.
pub fn locate(info: &Info, data: &Path, links: Links) -> Result<(Layout, PathBuf), StorageError> {
    let (layout, root) = Search { spellings: &|file| spellings(info, file), links }.find(
        Layout::of(info)?,
        info.name(),
        !info.single_file(),
        data,
    )?;
    match links {
        Links::Refuse => Ok((layout, root)),
        Links::Follow => resolve(&layout, &root),
    }
}

/// The layout of a torrent in the folder `root`: files that are there under the spelling of another client have it, all
/// others the torrent's own paths. No link is followed.
///
/// # Errors
/// The torrent makes no layout.
pub fn layout_in(info: &Info, root: &Path) -> Result<Layout, LayoutError> {
    Search { spellings: &|file| spellings(info, file), links: Links::Refuse }.spelled(
        Layout::of(info)?,
        root,
        0,
    )
}

fn spellings(info: &Info, file: FileIndex) -> Vec<PathBuf> {
    info.files().get(file.0 as usize).map_or_else(Vec::new, |file| info.spellings(file))
}

/// A search for a torrent's files.
struct Search<'a> {
    /// Other paths of a file, from the torrent's name on.
    spellings: &'a dyn Fn(FileIndex) -> Vec<PathBuf>,
    links: Links,
}

impl Search<'_> {
    /// `in_folder`: the torrent is a folder of files, whose paths begin with its name.
    fn find(
        &self,
        layout: Layout,
        name: &str,
        in_folder: bool,
        data: &Path,
    ) -> Result<(Layout, PathBuf), StorageError> {
        let at = |error: std::io::Error| {
            StorageError::at("find", data, Errno::from_io_error(&error).unwrap_or(Errno::IO))
        };
        // Resolved, because the user's own links may be followed, and because `.` has no name.
        let data = std::fs::canonicalize(data).map_err(at)?;
        let is_folder = data.is_dir();
        let not_content = || StorageError::NotContent { data: data.clone(), name: name.to_owned() };
        match (in_folder, is_folder) {
            (false, true) => Ok((self.spelled(layout, &data, 0)?, data)),
            (false, false) => match (data.parent(), data.file_name()) {
                (Some(parent), Some(file_name)) => {
                    let renamed = layout.moved(|_, _| file_name.into())?;
                    Ok((renamed, parent.to_path_buf()))
                }
                _ => Err(not_content()),
            },
            (true, false) => Err(not_content()),
            (true, true) => {
                let inside = layout.moved(|_, file| file.path.components().skip(1).collect())?;
                let is_named = data.file_name().is_some_and(|last| last == name);
                let (layout, inside) = (self.spelled(layout, &data, 0)?, self.spelled(inside, &data, 1)?);
                if self.holds_any_file(&layout, &data) {
                    Ok((layout, data))
                } else if self.holds_any_file(&inside, &data) {
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

    /// The layout with files under the spellings that are there, where their own paths are not. `skipped` components
    /// of a spelling stand for folders above `root`.
    fn spelled(&self, layout: Layout, root: &Path, skipped: usize) -> Result<Layout, LayoutError> {
        let Ok(look) = Look::at(root, self.links) else { return Ok(layout) };
        let mut own: Option<HashSet<PathBuf>> = None;
        let mut found: BTreeMap<FileIndex, PathBuf> = BTreeMap::new();
        for (index, file) in layout.stored_files() {
            let spellings = (self.spellings)(index);
            if spellings.is_empty() || look.len(&file.path).is_some() {
                continue;
            }
            // A path that is another file's own is never taken from it, nor one that two would share.
            let own =
                own.get_or_insert_with(|| layout.files().iter().map(|file| file.path.clone()).collect());
            let below = spellings.iter().map(|path| path.components().skip(skipped).collect::<PathBuf>());
            let there =
                below.filter(|path| !own.contains(path)).filter_map(|path| Some((look.len(&path)?, path)));
            // Of several the one that is as long as the torrent's comes first.
            if let Some((_, path)) = there.min_by_key(|(len, _)| *len != file.len) {
                own.insert(path.clone());
                found.insert(index, path);
            }
        }
        if found.is_empty() {
            return Ok(layout);
        }
        let spelled =
            layout.moved(|index, file| found.remove(&index).unwrap_or_else(|| file.path.clone()))?;
        // A file that lies where another has its folder is none of the torrent's.
        Ok(Layout::new(spelled.piece_length(), spelled.files().iter().cloned()).unwrap_or(layout))
    }

    fn holds_any_file(&self, layout: &Layout, root: &Path) -> bool {
        let Ok(look) = Look::at(root, self.links) else { return false };
        layout.stored_files().any(|(_, file)| look.len(&file.path).is_some())
    }
}

/// A look into a folder, by the rule that its files would be opened by.
enum Look {
    Strict(Root),
    Following(PathBuf),
}

impl Look {
    fn at(root: &Path, links: Links) -> Result<Self, StorageError> {
        match links {
            Links::Refuse => Root::open(root).map(Self::Strict),
            Links::Follow => Ok(Self::Following(root.to_owned())),
        }
    }

    /// Bytes of the regular file at the path; `None` when there is none.
    fn len(&self, path: &Path) -> Option<u64> {
        match self {
            Self::Strict(root) => root.state(path).ok().map(|state| state.len),
            Self::Following(root) => std::fs::metadata(root.join(path))
                .ok()
                .filter(std::fs::Metadata::is_file)
                .map(|file| file.len()),
        }
    }
}

/// The same content, each file taken from where it really lies: below the folder that all of them have in common.
fn resolve(layout: &Layout, root: &Path) -> Result<(Layout, PathBuf), StorageError> {
    let real = |file: &LayoutFile| {
        let path = root.join(&file.path);
        // What is not there is told by the path that it should have.
        std::fs::canonicalize(&path).unwrap_or(path)
    };
    let places: BTreeMap<FileIndex, PathBuf> =
        layout.stored_files().map(|(index, file)| (index, real(file))).collect();
    let mut shared = root.to_owned();
    while !places.values().all(|place| place.starts_with(&shared)) {
        if !shared.pop() {
            break;
        }
    }
    let moved = layout.moved(|index, file| {
        let place = places.get(&index).and_then(|place| place.strip_prefix(&shared).ok());
        place.map_or_else(|| file.path.clone(), Path::to_owned)
    })?;
    Ok((moved, shared))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const NO_SPELLINGS: &dyn Fn(FileIndex) -> Vec<PathBuf> = &|_| Vec::new();

    fn find(
        layout: Layout,
        name: &str,
        in_folder: bool,
        data: &Path,
    ) -> Result<(Layout, PathBuf), StorageError> {
        Search { spellings: NO_SPELLINGS, links: Links::Refuse }.find(layout, name, in_folder, data)
    }

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

    fn scratch() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let base = folder.path().canonicalize().unwrap();
        (folder, base)
    }

    #[test]
    fn a_file_is_found_under_any_spelling_and_its_own_path_comes_first() {
        let (_folder, base) = scratch();
        std::fs::create_dir(base.join("top")).unwrap();
        let spellings = |file: FileIndex| match file.0 {
            0 => vec!["top/dropped".into(), "top/raw".into()],
            1 => vec!["top/raw".into(), "top/other".into()],
            _ => Vec::new(),
        };
        let search = Search { spellings: &spellings, links: Links::Refuse };
        let files = || layout(&["top/a_", "top/b_", "top/c"]);
        let found = |data: &Path| search.find(files(), "top", true, data).unwrap().0;
        std::fs::write(base.join("top/raw"), "x").unwrap();
        assert_eq!(found(&base), layout(&["top/raw", "top/b_", "top/c"]), "no two share one");
        assert_eq!(found(&base.join("top")), layout(&["raw", "b_", "c"]));
        std::fs::write(base.join("top/dropped"), "of another length").unwrap();
        assert_eq!(found(&base), layout(&["top/raw", "top/b_", "top/c"]), "the length decides");
        std::fs::write(base.join("top/other"), "x").unwrap();
        std::fs::write(base.join("top/a_"), "x").unwrap();
        assert_eq!(found(&base), layout(&["top/a_", "top/raw", "top/c"]));
        std::fs::write(base.join("top/b_"), "x").unwrap();
        assert_eq!(found(&base), files());
    }

    #[test]
    fn a_link_is_looked_at_as_it_would_be_opened() {
        let (_folder, base) = scratch();
        std::fs::create_dir_all(base.join("store/sub")).unwrap();
        std::fs::create_dir(base.join("top")).unwrap();
        std::fs::write(base.join("store/sub/c"), "x").unwrap();
        symlink(base.join("store/sub"), base.join("top/sub")).unwrap();
        symlink(base.join("store/sub/c"), base.join("top/a")).unwrap();
        let root = Root::open(&base).unwrap();
        for path in ["top/a", "top/sub/c"].map(Path::new) {
            let (looked, opened) = (root.state(path).unwrap_err(), root.open_file(path).unwrap_err());
            assert!(matches!(looked, StorageError::SymbolicLink(_)), "{looked}");
            assert_eq!(looked, opened);
        }
        assert!(root.state(Path::new("store/sub/c")).is_ok());
    }

    #[test]
    fn links_of_the_users_own_lead_to_the_files_themselves() {
        let (_folder, base) = scratch();
        std::fs::create_dir_all(base.join("store/deep/sub")).unwrap();
        std::fs::write(base.join("store/deep/sub/c"), "x").unwrap();
        std::fs::write(base.join("store/b"), "x").unwrap();
        std::fs::create_dir(base.join("top")).unwrap();
        symlink("../store/deep/sub", base.join("top/sub")).unwrap();
        symlink("../store/b", base.join("top/a")).unwrap();
        symlink("a", base.join("top/b")).unwrap();
        symlink("top", base.join("all")).unwrap();
        for (name, data) in [("top", "top"), ("top", ""), ("all", "all"), ("all", "")] {
            let files = layout(
                &["a", "b", "sub/c", "gone"]
                    .map(|path| format!("{name}/{path}"))
                    .each_ref()
                    .map(|path| &**path),
            );
            let search = Search { spellings: NO_SPELLINGS, links: Links::Follow };
            let (found, root) = search.find(files, name, true, &base.join(data)).unwrap();
            let (found, root) = resolve(&found, &root).unwrap();
            let paths: Vec<PathBuf> = found.files().iter().map(|file| root.join(&file.path)).collect();
            let real = |path: &str| base.join(path);
            assert_eq!(paths[..3], ["store/b", "store/b", "store/deep/sub/c"].map(real), "{name} {data}");
            assert!(paths[3].ends_with("gone") && root == base);
            let strict = Root::open(&root).unwrap();
            assert!(found.files()[..3].iter().all(|file| strict.open_file(&file.path).is_ok()));
        }
    }
}
