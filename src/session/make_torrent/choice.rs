//! Which files of a folder belong into its torrent, and which of their names will not stay apart elsewhere.
//!
//! What systems and tools leave behind in folders without being asked is nobody's content: it is left out unless the
//! user wants it. What the user excludes is left out in any case. Names that only Linux tells apart are told, since on
//! other systems one file replaces the other there.

use super::MakeError;
use crate::metainfo::builder::NewFile;
use crate::session::patterns::{NoPattern, Patterns};
use icu_normalizer::ComposingNormalizerBorrowed;
use std::collections::HashMap;
use std::path::Path;

/// Names of files and folders that no user has made, with any letters.
const SYSTEM_NAMES: [&str; 22] = [
    // macOS
    ".ds_store",
    ".apdisk",
    ".appledouble",
    ".documentrevisions-v100",
    ".fseventsd",
    ".spotlight-v100",
    ".temporaryitems",
    ".trashes",
    // Windows
    "thumbs.db",
    "ehthumbs.db",
    "ehthumbs_vista.db",
    "desktop.ini",
    "$recycle.bin",
    "system volume information",
    // Linux desktops, file systems and storage boxes
    ".directory",
    ".thumbnails",
    "lost+found",
    "@eadir",
    // Version control
    ".git",
    ".hg",
    ".svn",
    ".bzr",
];
/// How such names begin when the rest of them differs: companions of files on macOS, open files that were deleted
/// over NFS and FUSE, and waste baskets of Linux desktops.
const SYSTEM_PREFIXES: [&str; 4] = ["._", ".nfs0", ".fuse_hidden", ".trash-"];

/// What the user wants of a folder.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    excluded: Patterns,
    with_system_files: bool,
}

impl Choice {
    /// Leaves out what matches one of the patterns.
    pub(super) fn new(exclude: &[String], with_system_files: bool) -> Result<Self, MakeError> {
        let failed = |NoPattern { pattern, reason }| MakeError::Pattern { pattern, reason };
        Ok(Self { excluded: Patterns::new(exclude).map_err(failed)?, with_system_files })
    }

    /// Why a file or folder is left out, with everything in it; `None` when it is not. `relative` begins below the
    /// folder that is shared.
    pub(super) fn reason_against(&self, relative: &Path) -> Option<&'static str> {
        let name = Path::new(relative.file_name()?);
        if self.excluded.matches(relative) {
            return Some("it is excluded");
        }
        if !self.with_system_files && is_system_name(&name.to_string_lossy()) {
            return Some("systems and tools leave such behind; --include-system-files shares it");
        }
        None
    }
}

fn is_system_name(name: &str) -> bool {
    let name = name.to_lowercase();
    SYSTEM_NAMES.contains(&name.as_str()) || SYSTEM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Two paths that are one on systems which do not tell their letters apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alike {
    /// The one that comes first in the torrent.
    pub first: String,
    /// The other.
    pub second: String,
    /// In what alone they differ, as in `… differ in case only`.
    pub difference: &'static str,
}

/// The paths that differ in case or in Unicode normalisation only, files and folders alike, each with the first of its
/// kind; in order.
pub(super) fn alike(files: &[NewFile]) -> Vec<Alike> {
    let normalizer = ComposingNormalizerBorrowed::new_nfc();
    let mut seen: HashMap<String, String> = HashMap::new();
    let mut found = Vec::new();
    let mut last: &[String] = &[];
    for file in files {
        // Folders that were looked at with the file before need no second look: files stand in order.
        let known = file.path.iter().zip(last).take_while(|(one, other)| one == other).count();
        for depth in known + 1..=file.path.len() {
            let path = file.path[..depth].join("/");
            let composed = normalizer.normalize(&path).into_owned();
            let folded = normalizer.normalize(&composed.to_lowercase()).into_owned();
            let first = seen.entry(folded).or_insert_with(|| path.clone());
            if *first != path {
                let same_letters = normalizer.normalize(first) == composed.as_str();
                let difference = if same_letters { "Unicode normalisation" } else { "case" };
                found.push(Alike { first: first.clone(), second: path, difference });
            }
        }
        last = &file.path;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<NewFile> {
        let mut files: Vec<NewFile> = paths
            .iter()
            .map(|path| NewFile { path: path.split('/').map(str::to_owned).collect(), ..NewFile::default() })
            .collect();
        files.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        files
    }

    #[test]
    fn patterns_leave_out_names_at_any_depth_and_paths_from_the_top() {
        let patterns = ["*.nfo", "extras/", "disc ?/*.log", "/top.txt"].map(str::to_owned);
        let choice = Choice::new(&patterns, false).unwrap();
        let is_out = |path: &str| choice.reason_against(Path::new(path)).is_some();
        for out in ["a.nfo", "deep/er/a.nfo", "extras", "deep/extras", "disc 1/x.log", "top.txt"] {
            assert!(is_out(out), "{out}");
        }
        for kept in
            ["a.nfo.txt", "extras.txt", "x.log", "disc 1/deep/x.log", "disc 10/x.log", "deep/disc 1/x.log"]
        {
            assert!(!is_out(kept), "{kept}");
        }
        let error = Choice::new(&["[x".to_owned()], false).unwrap_err();
        assert!(matches!(error, MakeError::Pattern { pattern, .. } if pattern == "[x"));
    }

    #[test]
    fn what_systems_leave_behind_is_left_out_unless_wanted() {
        let [usual, all] = [false, true].map(|wanted| Choice::new(&[], wanted).unwrap());
        for name in [
            ".DS_Store",
            "Thumbs.db",
            "THUMBS.DB",
            "desktop.ini",
            ".git",
            "._song.mp3",
            "$RECYCLE.BIN",
            ".Trash-1000",
        ] {
            let path = Path::new("deep").join(name);
            assert!(usual.reason_against(&path).is_some() && all.reason_against(&path).is_none(), "{name}");
        }
        for name in [".gitignore", ".hidden", "thumbs.db.txt", "git", ".github", "desktop.ini.bak"] {
            assert_eq!(usual.reason_against(Path::new(name)), None, "{name}");
        }
    }

    #[test]
    fn names_that_only_linux_tells_apart_are_told_once() {
        let told = |paths: &[&str]| -> Vec<(String, String, &'static str)> {
            alike(&files(paths))
                .into_iter()
                .map(|alike| (alike.first, alike.second, alike.difference))
                .collect()
        };
        let pair = |first: &str, second: &str, how| vec![(first.to_owned(), second.to_owned(), how)];
        assert_eq!(told(&["a", "b", "A"]), pair("A", "a", "case"));
        assert_eq!(told(&["Sub/x", "sub/y", "sub/z"]), pair("Sub", "sub", "case"));
        assert_eq!(told(&["e\u{301}", "\u{e9}"]), pair("e\u{301}", "\u{e9}", "Unicode normalisation"));
        assert_eq!(told(&["E\u{301}", "\u{e9}"]), pair("E\u{301}", "\u{e9}", "case"));
        assert_eq!(told(&["a/b", "a b", "ab", "a/c", "ä", "a"]), vec![]);
    }
}
