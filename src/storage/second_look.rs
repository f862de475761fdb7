//! Files of which something is new that may mean nothing.
//!
//! Some file systems (FUSE without `use_ino`, a network mount that came back) number a file anew when the kernel has
//! forgotten it. Length, last write and last change of the inode are then as they were. And the time of the last change
//! alone moves when a file gets another mode, owner or name, but also when it is written to and the time of the last write
//! is set back (`touch -r`). Such a file is looked at: a few pieces of the torrent, read as they are now, have to be right.
//! That notices what changes much of a torrent, and not a single piece among thousands; the next start, which has the
//! torrent's hashes at hand, checks the file whole. Deliberately absent: any trust in numbers that are equal while the time
//! of the last write or the length is not.

use super::error::StorageError;
use super::hash::piece_hash;
use super::layout::Layout;
use super::piece_reader::PieceReader;
use super::root::{FileState, Root};
use super::selection::FileSelection;
use crate::bitfield::Bitfield;
use crate::limits::{SECOND_LOOK_LEN_MAX, SECOND_LOOK_PIECES_MAX};
use crate::units::PieceIndex;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// Some pieces of a torrent that were right, with their hashes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample(Box<[(PieceIndex, [u8; 20])]>);

impl Sample {
    /// A few of the `right` pieces, the first and the last among them, as many as may be read.
    pub fn of(layout: &Layout, right: &Bitfield, hash: impl Fn(PieceIndex) -> Option<[u8; 20]>) -> Self {
        let fitting = SECOND_LOOK_LEN_MAX / u64::from(layout.piece_length()).max(1);
        let wanted = usize::try_from(fitting).unwrap_or(usize::MAX).clamp(1, SECOND_LOOK_PIECES_MAX);
        let count = right.count() as usize;
        let steps = wanted.min(count).saturating_sub(1).max(1);
        // The positions among those that are right, rising, the first of them zero and the last of them the last.
        let places = (0..wanted.min(count)).map(|step| step * (count - 1) / steps);
        let mut pieces = right.iter().enumerate();
        let chosen = places.filter_map(|place| pieces.find(|(position, _)| *position == place));
        Self(chosen.filter_map(|(_, piece)| Some((piece, hash(piece)?))).collect())
    }

    /// Which pieces they are.
    pub(super) fn pieces(&self) -> impl Iterator<Item = PieceIndex> {
        self.0.iter().map(|(piece, _)| *piece)
    }

    /// Whether the files below `root` have these pieces. They are opened for that. It may take long.
    ///
    /// # Errors
    /// A shortage, after which nothing is known.
    pub(super) fn is_found(&self, layout: &Layout, root: &Root) -> Result<bool, StorageError> {
        let selection = FileSelection::all();
        // Who asks tries again later.
        let is_impatient = AtomicBool::new(true);
        let mut reader = PieceReader::new(layout, root, &selection, &is_impatient);
        let is_found = self.0.iter().all(|&(piece, hash)| {
            let mut bytes = vec![0; layout.piece_len(piece) as usize];
            reader.read(piece, &mut bytes) && piece_hash(&bytes) == hash
        });
        match reader.into_troubles().into_values().find(StorageError::is_shortage) {
            Some(shortage) => Err(shortage),
            None => Ok(is_found),
        }
    }
}

/// Whether a file is the one that it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sameness {
    /// It is.
    Same,
    /// It has another number, and nothing else is new: it has to be looked at again.
    Renumbered,
    /// It is as long as it was and its last write is as old, but it was changed since: it has to be looked at again.
    Touched,
}

impl FileState {
    /// Compares a file with what it was; `path` is for errors.
    ///
    /// # Errors
    /// What has changed.
    pub(super) fn compare(self, now: Self, path: impl Fn() -> PathBuf) -> Result<Sameness, StorageError> {
        if now.identity != self.identity {
            let is_as_it_was = (now.len, now.mtime, now.ctime) == (self.len, self.mtime, self.ctime);
            return if is_as_it_was { Ok(Sameness::Renumbered) } else { Err(StorageError::Replaced(path())) };
        }
        if now.len != self.len {
            return Err(StorageError::Length { path: path(), expected: self.len, found: now.len });
        }
        if now.mtime != self.mtime {
            return Err(StorageError::Modified(path()));
        }
        Ok(if now.ctime == self.ctime { Sameness::Same } else { Sameness::Touched })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LayoutFile;

    const PIECE: u32 = 16_384;

    fn layout(len: u64, piece_length: u32) -> Layout {
        Layout::new(piece_length, [LayoutFile { path: "one".into(), len, padding: false }]).unwrap()
    }

    fn chosen(pieces: u32, piece_length: u32, right: &Bitfield) -> Vec<u32> {
        let layout = layout(u64::from(pieces) * u64::from(piece_length), piece_length);
        let sample = Sample::of(&layout, right, |piece| Some([piece.0 as u8; 20]));
        sample.0.iter().map(|(piece, _)| piece.0).collect()
    }

    #[test]
    fn a_sample_is_spread_over_the_pieces_that_are_right_and_bounded() {
        assert_eq!(chosen(100, PIECE, &Bitfield::all(100)), [0, 33, 66, 99]);
        assert_eq!(chosen(3, PIECE, &Bitfield::all(3)), [0, 1, 2]);
        assert_eq!(chosen(1, PIECE, &Bitfield::all(1)), [0]);
        assert_eq!(chosen(9, PIECE, &Bitfield::none(9)), [0; 0]);
        let mut some = Bitfield::none(50);
        [7, 8, 20, 21, 40].into_iter().for_each(|piece| _ = some.insert(PieceIndex(piece)));
        assert_eq!(chosen(50, PIECE, &some), [7, 8, 20, 40]);
        // Of long pieces only what may be read.
        assert_eq!(chosen(9, 256 * 1024 * 1024, &Bitfield::all(9)), [0]);
        assert_eq!(chosen(9, 32 * 1024 * 1024, &Bitfield::all(9)), [0, 8]);
    }

    #[test]
    fn a_number_alone_may_be_new_and_nothing_else_with_it() {
        let was =
            FileState { len: 5, mtime: (7, 8), ctime: (9, 10), identity: (1, 2), has_other_names: false };
        let compare = |now: FileState| was.compare(now, PathBuf::new);
        assert_eq!(compare(was), Ok(Sameness::Same));
        // Another mode or name, or a write whose time was set back.
        assert_eq!(compare(FileState { ctime: (11, 0), ..was }), Ok(Sameness::Touched));
        for changed in
            [FileState { mtime: (7, 9), ctime: (11, 0), ..was }, FileState { mtime: (7, 9), ..was }]
        {
            assert!(matches!(compare(changed), Err(StorageError::Modified(_))), "{changed:?}");
        }
        for identity in [(1, 3), (2, 2)] {
            let renumbered = FileState { identity, ..was };
            assert_eq!(compare(renumbered), Ok(Sameness::Renumbered));
            for other in [
                FileState { len: 6, ..renumbered },
                FileState { mtime: (7, 9), ..renumbered },
                FileState { ctime: (9, 11), ..renumbered },
            ] {
                assert!(matches!(compare(other), Err(StorageError::Replaced(_))), "{other:?}");
            }
        }
    }
}
