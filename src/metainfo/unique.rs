//! A path of its own for every file: what cleaning, or the torrent itself, has made equal is told apart again.
//!
//! The file that comes first keeps the path. A later one gets a number before its extension, as `song.1.mp3`, the first
//! that is free; so does a file that would have to be a folder for others. The outcome depends on the paths and their
//! order alone. Costs nothing beyond a sort where all paths differ, which they do in all but a few torrents.
//!
//! Padding is left alone: it is never stored, and programs give all padding of one length one path.

use super::{FileEntry, MetainfoError, PathError, RelativePath};
use std::collections::{HashMap, HashSet};

/// Gives every file that is stored a path that no other has, and that is no folder of another.
///
/// # Errors
/// A path that has no room for a number.
pub(super) fn tell_apart(files: &mut [FileEntry]) -> Result<(), MetainfoError> {
    let stored = files.iter().filter(|file| !file.attributes.padding);
    let mut given: Vec<&RelativePath> = stored.map(|file| &file.path).collect();
    given.sort_unstable();
    let clash = |pair: &[&RelativePath]| pair[0] == pair[1] || pair[0].is_folder_of(pair[1]);
    if !given.windows(2).any(clash) {
        return Ok(());
    }
    given.dedup();
    let given: Vec<RelativePath> = given.into_iter().cloned().collect();
    let mut taken: HashSet<RelativePath> = HashSet::new();
    // The next number to try, shared by all paths that a number could make equal: so no number is tried twice in vain.
    let mut numbers: HashMap<String, u32> = HashMap::new();
    for (index, file) in files.iter_mut().enumerate().filter(|(_, file)| !file.attributes.padding) {
        if taken.contains(&file.path) || is_folder(&given, &file.path) {
            let number = numbers.entry(file.path.stem_of_numbers()).or_insert(1);
            file.path = loop {
                let numbered = file
                    .path
                    .numbered(*number)
                    .ok_or(MetainfoError::FilePath { number: index, source: PathError::TooLong })?;
                *number += 1;
                // A path that a file was given is never another's, even where that one comes later.
                let is_given = given.binary_search(&numbered).is_ok();
                if !is_given && !taken.contains(&numbered) && !is_folder(&given, &numbered) {
                    break numbered;
                }
            };
        }
        taken.insert(file.path.clone());
    }
    Ok(())
}

/// Whether any of the sorted paths lies below `path`. What lies below stands directly behind it.
fn is_folder(sorted: &[RelativePath], path: &RelativePath) -> bool {
    let behind = sorted.partition_point(|other| other <= path);
    sorted.get(behind).is_some_and(|next| path.is_folder_of(next))
}
