//! Files that are too many to be open at once, and so small that their bytes are held instead.

use super::Content;
use crate::storage::error::StorageError;
use crate::storage::layout::{FileIndex, Layout};
use crate::storage::parts::Part;
use crate::storage::piece_reader::read_exactly;
use crate::storage::root::{FileState, Root};
use crate::storage::selection::FileSelection;
use std::path::Path;
use std::sync::Arc;

/// A run of a torrent's bytes in memory, and the files they are from.
#[derive(Debug)]
pub(super) struct CopiedFiles {
    /// Where the run begins in the torrent.
    begin: u64,
    bytes: Box<[u8]>,
    /// The files as they were when they were read, by number.
    states: Box<[(FileIndex, FileState)]>,
}

impl CopiedFiles {
    /// Some of the torrent's bytes.
    pub(super) fn get(&self, begin: u64, len: u32) -> Option<&[u8]> {
        let begin = usize::try_from(begin.checked_sub(self.begin)?).ok()?;
        self.bytes.get(begin..begin.checked_add(len as usize)?)
    }

    /// A file as it was when it was read.
    pub(super) fn opened_state(&self, file: FileIndex) -> Option<FileState> {
        let place = self.states.binary_search_by_key(&file, |(index, _)| *index).ok()?;
        self.states.get(place).map(|(_, state)| *state)
    }

    /// The device of the first file.
    pub(super) fn device(&self) -> Option<u64> {
        self.states.first().map(|(_, state)| state.identity.0)
    }
}

impl Content {
    /// Reads a part of the torrent into memory, opening one of its files after the other, `due` as for `open_some`. It may wait
    /// for the disk.
    pub(in crate::storage) fn copy_part(
        layout: Arc<Layout>,
        root: &Path,
        due: impl IntoIterator<Item = Option<u64>>,
        part: &Part,
    ) -> Result<Self, StorageError> {
        let root = Root::open_at_once(root)?;
        let len = usize::try_from(part.bytes.end - part.bytes.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len].into_boxed_slice();
        let mut states = Vec::with_capacity(part.stored);
        let all = layout.stored_files().zip(due);
        for ((index, file), due) in all.filter(|((index, _), _)| part.files.contains(&index.0)) {
            let Some(due) = due else { continue };
            let (fd, state) = root.open_file(&file.path)?;
            let path = || root.full_path(&file.path);
            let short = |found| StorageError::Length { path: path(), expected: due, found };
            if state.len != due {
                return Err(short(state.len));
            }
            states.push((index, state));
            // What of the file lies in the part: all of it, but at the part's two ends.
            let start = layout.start_of(index).unwrap_or_default();
            let (begin, end) = (start.max(part.bytes.start), (start + due.min(file.len)).min(part.bytes.end));
            let within = (begin - part.bytes.start) as usize..(end.max(begin) - part.bytes.start) as usize;
            let Some(its) = bytes.get_mut(within) else { continue };
            let read = read_exactly(&fd, its, begin - start);
            if let Some(found) = read.map_err(|errno| StorageError::at("read", &path(), errno))? {
                return Err(short(found));
            }
        }
        let mut content = Self::new(layout, root, FileSelection::all(), Vec::new(), false);
        let (begin, states) = (part.bytes.start, states.into_boxed_slice());
        content.copied = Some(CopiedFiles { begin, bytes, states });
        Ok(content)
    }
}
