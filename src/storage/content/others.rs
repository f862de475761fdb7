//! What others write into files while they are downloaded.
//!
//! Nobody can be kept from it. Each write of ours looks at the file's times before and after, so that a change in between is
//! somebody else's; at the end the pieces of such files are read again, and a few of all others. What is not noticed: a change in
//! the same instant of the file system's clock as one of ours, and on file systems whose times a server keeps all that the few
//! pieces do not show. Invariant: as long as a piece may have been written over, no record calls it right.

use super::Content;
use crate::bitfield::Bitfield;
use crate::storage::error::StorageError;
use crate::storage::hash::piece_hash;
use crate::storage::layout::FileIndex;
use crate::storage::second_look::Sample;
use crate::storage::selection::{intersection, parts_index};
use crate::units::PieceIndex;

impl Content {
    /// The pieces with bytes in files that somebody else has changed since they were opened for downloading, or since
    /// [`Self::look_for_others`] has found them right. A system call for each file.
    pub fn pieces_others_may_have_changed(&self) -> Bitfield {
        let mut pieces = Bitfield::none(self.layout.piece_count());
        for (index, _) in self.mapped_files().filter(|(_, file)| file.is_crossed()) {
            if index == parts_index(&self.layout) {
                self.selection.border_pieces(&self.layout).iter().for_each(|piece| _ = pieces.insert(piece));
            } else {
                self.layout.pieces_of(index).for_each(|piece| _ = pieces.insert(PieceIndex(piece)));
            }
        }
        pieces
    }

    /// Whether somebody else was seen to write while pieces were written. Asks no file system, so that anybody may ask.
    pub fn have_others_written(&self) -> bool {
        self.mapped_files().any(|(_, file)| file.was_crossed())
    }

    /// Reads again, of the pieces that are `here`, those that somebody else may have changed, and a few of the others, a bounded
    /// number. To be asked at the end of a download, when nothing is written any more. It may take long.
    ///
    /// # Errors
    /// [`StorageError::WrittenByOthers`] when one is not right any more, what the disk says when one cannot be read; no file
    /// then counts as ours before it is looked at again.
    pub fn look_for_others(
        &self,
        here: &Bitfield,
        hash: impl Fn(PieceIndex) -> Option<[u8; 20]>,
    ) -> Result<(), StorageError> {
        let states: Vec<_> = self.mapped_files().map(|(_, file)| (file, file.state())).collect();
        let suspects = intersection(here, &self.pieces_others_may_have_changed());
        let some = Sample::of(&self.layout, here, &hash);
        let mut bytes = Vec::new();
        for piece in suspects.iter().chain(some.pieces()) {
            let span = self.layout.piece_span(piece);
            bytes.clear();
            let is_right =
                self.read_block(span, &mut bytes).map(|()| Some(piece_hash(&bytes)) == hash(piece));
            if is_right == Ok(true) {
                continue;
            }
            // Another program that wrote there may have written to the other files, too.
            self.mapped_files().for_each(|(_, file)| file.doubt());
            let named = self.layout.spans(span).next().map_or(FileIndex(0), |span| span.file);
            return Err(is_right
                .err()
                .unwrap_or_else(|| StorageError::WrittenByOthers(self.full_path(named))));
        }
        // What comes after the states were taken shows as a difference.
        for (file, state) in states {
            state.into_iter().for_each(|state| file.settle(state));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::storage::{Allocation, Claims, Evidence, FileSelection, Layout, LayoutFile};
    use std::fs;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    const PIECE: usize = 1 << 14;

    struct Download {
        dir: tempfile::TempDir,
        content: Content,
        bytes: Vec<u8>,
    }

    /// Two files of eight pieces each, of which nothing is here.
    fn download() -> Download {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| LayoutFile { path: name.into(), len: 8 * PIECE as u64, padding: false };
        let layout = Arc::new(Layout::new(PIECE as u32, ["a", "b"].map(file)).unwrap());
        let (none, all) = (Bitfield::none(16), FileSelection::all());
        let evidence = Evidence { have: &none, record: None, overwrite: false };
        let claims = Claims::of(&layout, dir.path(), &all, evidence).unwrap();
        let (content, _) = Content::create(layout, dir.path(), &all, Allocation::Sparse, &claims).unwrap();
        let mut bytes = vec![0; 16 * PIECE];
        Rng::from_seed(5).fill(&mut bytes);
        Download { dir, content, bytes }
    }

    impl Download {
        fn piece(&self, piece: u32) -> &[u8] {
            &self.bytes[piece as usize * PIECE..][..PIECE]
        }

        fn write(&self, pieces: impl IntoIterator<Item = u32>) {
            pieces
                .into_iter()
                .for_each(|piece| self.content.write_piece(PieceIndex(piece), self.piece(piece)).unwrap());
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir.path().join(name)
        }

        /// Somebody else writes there, in an instant that is not ours.
        fn cross(&self, name: &str, bytes: &[u8], at: u64) {
            let file = fs::OpenOptions::new().write(true).open(self.path(name)).unwrap();
            file.write_all_at(bytes, at).unwrap();
            file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(9)).unwrap();
        }

        fn look(&self) -> Result<(), StorageError> {
            self.content.look_for_others(&Bitfield::all(16), |piece| Some(piece_hash(self.piece(piece.0))))
        }

        fn suspects(&self) -> Vec<u32> {
            self.content.pieces_others_may_have_changed().iter().map(|piece| piece.0).collect()
        }
    }

    #[test]
    fn our_own_writing_leaves_nothing_to_be_looked_at() {
        let download = download();
        download.write(0..16);
        download.content.sync().unwrap();
        assert_eq!((download.suspects(), download.content.have_others_written()), (vec![], false));
        assert_eq!(download.look(), Ok(()));
    }

    #[test]
    fn what_somebody_writes_between_our_writes_costs_the_pieces_of_that_file_and_is_found() {
        let download = download();
        download.write(0..10);
        download.cross("a", b"somebody else's", 2 * PIECE as u64 + 5);
        // Ours hide his times again.
        download.write(10..16);
        download.write([7]);
        assert!(download.content.have_others_written());
        assert_eq!(download.suspects(), (0..8).collect::<Vec<_>>());
        assert_eq!(download.look(), Err(StorageError::WrittenByOthers(download.path("a"))));
        assert_eq!(download.suspects(), (0..16).collect::<Vec<_>>(), "nothing is believed any more");
        download.write([2]);
        assert_eq!((download.look(), download.suspects()), (Ok(()), vec![]));
    }

    #[test]
    fn what_somebody_writes_after_our_last_write_is_found() {
        let download = download();
        download.write(0..16);
        download.cross("b", b"x", 6 * PIECE as u64 + 1);
        assert!(!download.content.have_others_written(), "nobody has looked yet");
        assert_eq!(download.look(), Err(StorageError::WrittenByOthers(download.path("b"))));
    }

    #[test]
    fn who_changes_no_byte_costs_a_look_and_nothing_else() {
        let download = download();
        download.write(0..8);
        fs::hard_link(download.path("a"), download.path("other name")).unwrap();
        download.cross("a", &[], 0);
        download.write(8..16);
        assert_eq!(download.suspects(), (0..8).collect::<Vec<_>>());
        assert_eq!((download.look(), download.suspects()), (Ok(()), vec![]));
    }

    #[test]
    fn a_few_pieces_are_looked_at_in_any_case() {
        let download = download();
        download.write(0..16);
        // In the same instant as a write of ours.
        let file = fs::OpenOptions::new().write(true).open(download.path("a")).unwrap();
        let wake = download.content.file(FileIndex(0)).unwrap();
        wake.write(|_| file.write_all_at(b"x", 0).map_err(|_| rustix::io::Errno::IO)).unwrap();
        assert_eq!(download.suspects(), [0; 0]);
        assert_eq!(download.look(), Err(StorageError::WrittenByOthers(download.path("a"))));
    }
}
