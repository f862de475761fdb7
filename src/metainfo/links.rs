//! Symbolic links of a torrent (BEP 47): only those stay that end at the torrent's own content.
//!
//! A link is dropped when it leads outside, to nothing, in a circle, or to a folder that it lies in itself.
//! Links have no bytes, so dropping one moves no offset.

use super::{FileEntry, RelativePath};

/// Links followed one after the other, as the kernel bounds it (ELOOP after 40).
const HOPS_MAX: usize = 40;

/// Removes the links that do not end at a file or folder of the torrent.
pub(super) fn drop_unusable(files: &mut Vec<FileEntry>) {
    if files.iter().all(|file| file.attributes.symlink.is_none()) {
        return;
    }
    let mut entries: Vec<(RelativePath, Option<RelativePath>)> = files
        .iter()
        .filter(|file| !file.attributes.padding)
        .map(|file| (file.path().clone(), file.attributes.symlink.clone()))
        .collect();
    entries.sort_unstable();
    files.retain(|file| file.attributes.symlink.is_none() || ends_at_content(&entries, file.path()));
}

/// Follows the link at `start` through `entries`, which are sorted by path.
fn ends_at_content(entries: &[(RelativePath, Option<RelativePath>)], start: &RelativePath) -> bool {
    let mut at = start;
    for _ in 0..=HOPS_MAX {
        match entries.binary_search_by(|(path, _)| path.cmp(at)) {
            Ok(found) => match &entries[found].1 {
                Some(target) => at = target,
                None => return true,
            },
            // A folder stands, by the order of paths, directly before what lies in it.
            Err(place) => {
                let folder = entries.get(place).is_some_and(|(path, _)| at.is_folder_of(path));
                return folder && !at.is_folder_of(start);
            }
        }
    }
    false
}
