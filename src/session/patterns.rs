//! Patterns of file names, as `--exclude`, `--only` and `--first` take them: one rule for all.
//!
//! A pattern without a `/` matches the name of a file or folder, however deep it lies; one with a `/` matches the path from the
//! torrent's folder on. A folder stands for everything in it. `*` and `?` stand for letters other than `/`, `**` for any. Pure.

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use std::path::Path;

/// The rule, for the help of options that take patterns.
macro_rules! pattern_rule {
    () => {
        "A pattern without a `/` matches names of files and folders at any depth, one with a `/` the path from the torrent's \
         folder on; a folder stands for all that is in it; `*` and `?` stand for letters other than `/`, `**` for any letters"
    };
}
pub(crate) use pattern_rule;

/// Some patterns.
#[derive(Clone, Debug)]
pub struct Patterns {
    /// Of names, wherever they are.
    names: GlobSet,
    /// Of paths from the torrent's folder on.
    paths: GlobSet,
}

/// A text that is no pattern; the user's fault.
#[derive(Debug, PartialEq, Eq)]
pub struct NoPattern {
    /// As given.
    pub pattern: String,
    /// What is wrong with it.
    pub reason: String,
}

impl Patterns {
    /// Of these texts.
    ///
    /// # Errors
    /// The first that is none.
    pub fn new(patterns: &[String]) -> Result<Self, NoPattern> {
        let (paths, names): (Vec<&String>, Vec<&String>) =
            patterns.iter().partition(|pattern| pattern.trim_end_matches('/').contains('/'));
        Ok(Self { names: globs(&names)?, paths: globs(&paths)? })
    }

    /// Whether one of them matches the file or folder at this path, which begins below the torrent's folder, or a folder that it
    /// lies in.
    pub fn matches(&self, inside: &Path) -> bool {
        inside.ancestors().any(|part| {
            let Some(name) = part.file_name() else { return false };
            self.names.is_match(name) || self.paths.is_match(part)
        })
    }

    /// Whether one with a `/` matches the path, which begins with the torrent's own folder, or a folder on it but that one.
    pub fn matches_with_folder(&self, path: &Path) -> bool {
        path.ancestors().any(|part| part.components().nth(1).is_some() && self.paths.is_match(part))
    }
}

fn globs(patterns: &[&String]) -> Result<GlobSet, NoPattern> {
    let failed =
        |pattern: String, error: &globset::Error| NoPattern { pattern, reason: error.kind().to_string() };
    let mut set = GlobSetBuilder::new();
    for &pattern in patterns {
        // A folder is often written with a `/` behind it, a path from the top with one before it.
        let bare = pattern.trim_end_matches('/').trim_start_matches('/');
        let glob = GlobBuilder::new(bare).literal_separator(true).build();
        set.add(glob.map_err(|error| failed(pattern.clone(), &error))?);
    }
    set.build().map_err(|error| {
        failed(patterns.iter().map(|pattern| pattern.as_str()).collect::<Vec<_>>().join(" "), &error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_without_a_slash_is_of_names_at_any_depth_and_one_with_a_slash_of_the_whole_path() {
        let is_matched = |pattern: &str, path: &str| {
            Patterns::new(&[pattern.to_owned()]).unwrap().matches(Path::new(path))
        };
        for (pattern, path) in [
            ("*.mkv", "a.mkv"),
            ("*.mkv", "season 1/deep/a.mkv"),
            ("extras", "extras/deep/a.txt"),
            ("extras/", "deep/extras/a.txt"),
            ("/a.txt", "a.txt"),
            ("season ?/*.mkv", "season 1/a.mkv"),
            ("extras/*", "extras/deep/a.txt"),
            ("**/a.*", "one/two/a.txt"),
            ("**/a.*", "a.txt"),
        ] {
            assert!(is_matched(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*.mkv", "a.mkv.txt"),
            ("/a.txt", "deep/a.txt"),
            ("season ?/*.mkv", "season 10/a.mkv"),
            ("season ?/*.mkv", "season 1/deep/a.mkv"),
            ("extras/*", "deep/extras/a.txt"),
            ("a", "b/c"),
        ] {
            assert!(!is_matched(pattern, path), "{pattern} {path}");
        }
        assert_eq!(Patterns::new(&["*".to_owned(), "[x".to_owned()]).unwrap_err().pattern, "[x");
    }

    #[test]
    fn the_torrents_own_folder_may_stand_before_a_path_and_is_no_name_that_matches() {
        let patterns = |pattern: &str| Patterns::new(&[pattern.to_owned()]).unwrap();
        let path = Path::new("album/extras/a.txt");
        assert!(patterns("album/extras/*").matches_with_folder(path));
        assert!(patterns("album/extras").matches_with_folder(path));
        assert!(!patterns("alb*").matches_with_folder(path) && !patterns("/alb*").matches_with_folder(path));
        assert!(!patterns("*.txt").matches_with_folder(path), "that is asked of the path inside");
    }
}
