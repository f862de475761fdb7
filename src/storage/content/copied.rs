//! Files that are too many to be open at once, and so small that their bytes are held instead.

use super::Content;
use crate::bitfield::SharedBitfield;
use crate::storage::error::StorageError;
use crate::storage::layout::{FileIndex, Layout};
use crate::storage::parts::Part;
use crate::storage::piece_reader::read_exactly;
use crate::storage::root::{FileState, Root};
use crate::storage::selection::FileSelection;
use crate::units::{BlockSpan, PieceIndex};
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// A run of a torrent's bytes in memory, and the files they are from.
#[derive(Debug)]
pub(super) struct CopiedFiles {
    /// In order, without gaps. One, where all bytes are there; otherwise one for what each piece has in here.
    runs: Box<[Run]>,
    /// The files as they were when they were read, by number.
    states: Box<[(FileIndex, FileState)]>,
    device: u64,
}

/// Bytes that are there together, or are not.
#[derive(Debug)]
struct Run {
    begin: u64,
    end: u64,
    bytes: OnceLock<Box<[u8]>>,
}

impl CopiedFiles {
    /// Some of the torrent's bytes.
    pub(super) fn get(&self, begin: u64, len: u32) -> Option<&[u8]> {
        let run = self.runs.partition_point(|run| run.begin <= begin).checked_sub(1)?;
        let run = self.runs.get(run)?;
        let begin = usize::try_from(begin - run.begin).ok()?;
        run.bytes.get()?.get(begin..begin.checked_add(len as usize)?)
    }

    /// A file as it was when it was read.
    pub(super) fn opened_state(&self, file: FileIndex) -> Option<FileState> {
        let place = self.states.binary_search_by_key(&file, |(index, _)| *index).ok()?;
        self.states.get(place).map(|(_, state)| *state)
    }

    /// The device of the first file.
    pub(super) fn device(&self) -> Option<u64> {
        Some(self.device)
    }
}

impl Content {
    /// Reads a part of the torrent into memory, opening one of its files after the other, `due` as for `open_some`. It may wait
    /// for the disk.
    pub(in crate::storage) fn copy_part(
        layout: Arc<Layout>,
        root: &Path,
        due: impl Fn(FileIndex) -> Option<u64>,
        part: &Part,
    ) -> Result<Self, StorageError> {
        let root = Root::open_at_once(root)?;
        let len = usize::try_from(part.bytes.end - part.bytes.start).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len].into_boxed_slice();
        let mut states = Vec::with_capacity(part.stored);
        for (index, file) in layout.stored_files_of(part.files.clone()) {
            let Some(due) = due(index) else { continue };
            let (fd, state) = root.open_file(&file.path)?;
            let path = || root.full_path(&file.path);
            let short = |found| StorageError::Length { path: path(), expected: due, found };
            if state.len != due {
                return Err(short(state.len));
            }
            super::create::lock_to_read(&fd, &path())?;
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
        let Range { start: begin, end } = part.bytes;
        let runs = Box::new([Run { begin, end, bytes: bytes.into() }]);
        let device = states.first().map_or(0, |(_, state)| state.identity.0);
        content.copied = Some(CopiedFiles { runs, states: states.into_boxed_slice(), device });
        Ok(content)
    }

    /// A part of content that pieces still come for: those that are there are put in by [`Self::put_piece`], now or later.
    pub(in crate::storage) fn to_copy_into(
        layout: Arc<Layout>,
        root: Root,
        device: u64,
        bytes: &Range<u64>,
    ) -> Self {
        let piece_length = u64::from(layout.piece_length());
        let pieces = bytes.start / piece_length..bytes.end.div_ceil(piece_length);
        let runs = pieces.map(|piece| Run {
            begin: bytes.start.max(piece * piece_length),
            end: bytes.end.min((piece + 1) * piece_length),
            bytes: OnceLock::new(),
        });
        let runs = runs.collect();
        let mut content = Self::new(layout, root, FileSelection::all(), Vec::new(), false);
        content.copied = Some(CopiedFiles { runs, states: Box::default(), device });
        content
    }

    /// What lies in here of the `written` pieces and has not been put in, each at most the part's length.
    pub(in crate::storage) fn unread_blocks(
        &self,
        written: &SharedBitfield,
    ) -> impl Iterator<Item = BlockSpan> {
        let piece_length = u64::from(self.layout.piece_length());
        let runs = self.copied.iter().flat_map(|copied| &copied.runs);
        let unread = runs.filter(|run| run.bytes.get().is_none()).map(move |run| {
            let piece = run.begin / piece_length;
            let begin = (run.begin - piece * piece_length) as u32;
            BlockSpan { piece: PieceIndex(piece as u32), begin, len: (run.end - run.begin) as u32 }
        });
        unread.filter(|block| written.contains(block.piece))
    }

    /// Puts bytes of a piece in, from `begin` on, as many of them as lie in here.
    pub(in crate::storage) fn put_piece(&self, piece: PieceIndex, begin: u32, bytes: &[u8]) {
        let first = u64::from(piece.0) * u64::from(self.layout.piece_length()) + u64::from(begin);
        let end = first + bytes.len() as u64;
        let runs = self.copied.iter().flat_map(|copied| &copied.runs);
        for run in runs.filter(|run| first <= run.begin && run.end <= end) {
            let within = (run.begin - first) as usize..(run.end - first) as usize;
            // Somebody else may have put in the same.
            run.bytes.get_or_init(|| bytes.get(within).unwrap_or_default().into());
        }
    }
}
