//! Which torrents a tracker serves: all, only those of a list, or all but those of a list.
//!
//! A list is a text file with one info-hash a line in hexadecimal; a `#` begins a comment, empty lines are
//! skipped. A bad line refuses the whole file, so that a typing error neither opens nor closes a tracker.

use crate::id::InfoHash;
use crate::limits::ACCESS_FILE_LEN_MAX;
use std::collections::BTreeSet;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The torrents that are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AccessList {
    /// Every torrent.
    #[default]
    All,
    /// These only.
    Allow(BTreeSet<InfoHash>),
    /// Every torrent but these.
    Deny(BTreeSet<InfoHash>),
}

/// Where the list comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// A list in the program's hands; [`AccessList::All`] by default.
    #[default]
    All,
    /// A fixed list.
    Fixed(AccessList),
    /// A file of allowed info-hashes, read again when it changes.
    AllowFile(PathBuf),
    /// A file of denied info-hashes, read again when it changes.
    DenyFile(PathBuf),
}

/// Why a list cannot be used; the fault of who runs the tracker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The file cannot be read.
    #[error("cannot read the list of info-hashes {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file is too large.
    #[error("the list of info-hashes {} has more than {ACCESS_FILE_LEN_MAX} bytes", .0.display())]
    TooLarge(PathBuf),
    /// A line holds no info-hash.
    #[error("line {line} of {} is no info-hash of 40 hexadecimal digits: {text:?}", .path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Counted from one.
        line: usize,
        /// What stands there, at most 60 characters.
        text: String,
    },
}

impl AccessList {
    /// Whether the torrent is served.
    pub fn admits(&self, info_hash: InfoHash) -> bool {
        match self {
            Self::All => true,
            Self::Allow(list) => list.contains(&info_hash),
            Self::Deny(list) => !list.contains(&info_hash),
        }
    }
}

impl AccessList {
    /// Info-hashes in the list.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::All => 0,
            Self::Allow(list) | Self::Deny(list) => list.len(),
        }
    }
}

impl Access {
    /// The list as it stands now.
    ///
    /// # Errors
    /// When a file cannot be read or has a bad line.
    pub fn load(&self) -> Result<AccessList, AccessError> {
        Ok(match self {
            Self::All => AccessList::All,
            Self::Fixed(list) => list.clone(),
            Self::AllowFile(path) => AccessList::Allow(read_list(path)?),
            Self::DenyFile(path) => AccessList::Deny(read_list(path)?),
        })
    }

    /// Whether it is read from a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self, Self::AllowFile(_) | Self::DenyFile(_))
    }

    /// What tells one state of the file from another: when it was changed, and its length, since two changes
    /// may fall into one tick of the file system's clock. `None` without a file, or while there is none.
    pub(super) fn file_state(&self) -> Option<FileState> {
        match self {
            Self::All | Self::Fixed(_) => None,
            Self::AllowFile(path) | Self::DenyFile(path) => {
                let metadata = path.metadata().ok()?;
                Some(FileState { modified: metadata.modified().ok()?, len: metadata.len() })
            }
        }
    }
}

/// A file's state as far as it can be seen from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileState {
    modified: SystemTime,
    len: u64,
}

fn read_list(path: &Path) -> Result<BTreeSet<InfoHash>, AccessError> {
    let unreadable = |source| AccessError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(ACCESS_FILE_LEN_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > ACCESS_FILE_LEN_MAX {
        return Err(AccessError::TooLarge(path.to_owned()));
    }
    parse_list(&String::from_utf8_lossy(&bytes)).map_err(|(line, text)| AccessError::BadLine {
        path: path.to_owned(),
        line,
        text,
    })
}

fn parse_list(text: &str) -> Result<BTreeSet<InfoHash>, (usize, String)> {
    let mut list = BTreeSet::new();
    for (number, line) in (1..).zip(text.lines()) {
        let content = line.split('#').next().unwrap_or_default().trim();
        if content.is_empty() {
            continue;
        }
        match InfoHash::from_hex(content) {
            Some(info_hash) => list.insert(info_hash),
            None => return Err((number, content.chars().take(60).collect())),
        };
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_comments_and_bad_lines_have_numbers() {
        let hash = InfoHash([0xab; 20]);
        let list = parse_list(&format!("# ours\r\n\n  {hash} # the second\r\n{hash}\n")).unwrap();
        assert_eq!(list, BTreeSet::from([hash]));
        assert_eq!(parse_list(&format!("{hash}\nabc\n")), Err((2, "abc".into())));
        assert_eq!(parse_list(""), Ok(BTreeSet::new()));
    }

    #[test]
    fn an_empty_allow_list_admits_nothing_and_an_empty_deny_list_everything() {
        let (one, two) = (InfoHash([1; 20]), InfoHash([2; 20]));
        assert!(AccessList::All.admits(one));
        assert!(!AccessList::Allow(BTreeSet::new()).admits(one));
        assert!(AccessList::Deny(BTreeSet::new()).admits(one));
        assert!(AccessList::Allow(BTreeSet::from([one])).admits(one));
        assert!(!AccessList::Deny(BTreeSet::from([one])).admits(one));
        assert!(AccessList::Deny(BTreeSet::from([one])).admits(two));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Access::AllowFile("/nonexistent/list".into()).load().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/list"));
    }
}
