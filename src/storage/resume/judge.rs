//! What of a remembered download still holds.
//!
//! After a run that ended in order the fingerprint vouches, file by file. After one that did not, within one boot and mount
//! the page cache still has what the record says of a file, and after a restart of the machine, or storage that was pulled,
//! the disk has what had been synced; a file that was written or changed after the record is looked at as a whole, since
//! nobody can tell our own last pieces from what somebody else has put over the others. A crash of the machine may
//! forget the time of a write, so a file may then be older than the record, of the same folder and inode.
//! Pieces that lie where something was written may be right, too. Hashing them costs less than fetching them.
//! Invariant: nothing is trusted of a file that is missing, of a wrong length, another than the record is of, or written
//! to after it; of a hole, or of bytes whose place a changed selection has moved.

use super::super::error::StorageError;
use super::super::extents::pieces_with_data;
use super::super::fingerprint::{FileStamp, Fingerprint};
use super::super::layout::Layout;
use super::super::selection::{FileSelection, intersection, pieces_where};
use super::{BootId, Resume};
use crate::bitfield::Bitfield;
use crate::units::PieceIndex;
use std::path::Path;

/// What a record is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// These pieces are right, and no others.
    Trust(Bitfield),
    /// Some pieces are right, others may be.
    TrustAndLookAt {
        /// They are right.
        trusted: Bitfield,
        /// Wanted pieces that may be right: hash them. None of those that are trusted.
        candidates: Bitfield,
    },
    /// Nothing is known.
    CheckAll,
}

/// What a record says of content that is seeded, file by file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ByFile {
    /// These pieces were right, and all files that they lie in are as they were.
    pub right: Bitfield,
    /// Pieces of files that have changed, come or gone: nothing is known of them, and of no others.
    pub unknown: Bitfield,
    /// The first file that was there, as long as it has to be or not, and is there no more, or of another length.
    pub gone: Option<StorageError>,
}

impl Resume {
    /// What this says of all files below `root` when they are `now` so: what changes costs the pieces of its own files, and
    /// what has not changed is not read again, be it right or wrong. `None` when it vouches for nothing, since pieces were being
    /// written or it is of another layout. Looks at nothing.
    pub fn judge_by_file(&self, layout: &Layout, root: &Path, now: &Fingerprint) -> Option<ByFile> {
        let (piece_count, stored) = (layout.piece_count(), layout.stored_files().count());
        let fits = self.verified.len() == piece_count
            && self.selection.fits(layout)
            && self.fingerprint.files.len() == stored
            && now.files.len() == stored;
        if !self.is_clean || !fits {
            return None;
        }
        if self.fingerprint.vouches_for(now) {
            let (right, unknown) = (self.verified.clone(), Bitfield::none(piece_count));
            return Some(ByFile { right, unknown, gone: None });
        }
        // What lay in a parts file then is looked for in the files themselves.
        let kept = FileSelection::all().kept_pieces(layout, &self.selection);
        let mut right = intersection(&self.verified, &kept);
        let mut unknown =
            pieces_where(piece_count, |piece| self.verified.contains(piece) && !right.contains(piece));
        let mut gone = None;
        let stamps = self.fingerprint.files.iter().zip(&now.files);
        for ((index, file), (then, now)) in layout.stored_files().zip(stamps) {
            let is_as_it_was = match (then, now) {
                (Some(then), Some(now)) => then.is_same(*now),
                (then, now) => then == now,
            };
            if is_as_it_was {
                continue;
            }
            for piece in layout.pieces_of(index).map(PieceIndex) {
                right.remove(piece);
                unknown.insert(piece);
            }
            let path = root.join(&file.path);
            gone = gone.or(match (then, now) {
                (Some(_), None) => Some(StorageError::Missing(path)),
                (Some(then), Some(now)) if then.len == file.len && now.len != file.len => {
                    Some(StorageError::Length { path, expected: file.len, found: now.len })
                }
                _ => None,
            });
        }
        Some(ByFile { right, unknown, gone })
    }

    /// What this says of the torrent as laid out here, with the files that are selected now, which need not be those of
    /// then. To be asked before `Content::create` puts missing files there again. Looks at every file, and for
    /// holes; reads no content. The caller has compared the info-hash.
    pub fn judge(
        &self,
        layout: &Layout,
        root: &Path,
        selection: &FileSelection,
        boot_id: Option<BootId>,
    ) -> Verdict {
        let piece_count = layout.piece_count();
        let fits = self.verified.len() == piece_count
            && self.durable.len() == piece_count
            && self.selection.fits(layout)
            && self.fingerprint.files.len() == layout.stored_files().count();
        if !fits {
            return Verdict::CheckAll;
        }
        let now = match Fingerprint::take_selected(layout, root, selection) {
            Ok(now) => now,
            Err(StorageError::Missing(_)) => return Verdict::Trust(Bitfield::none(piece_count)),
            Err(_) => return Verdict::CheckAll,
        };
        let is_same_boot = boot_id.is_some() && boot_id == self.boot_id;
        let vouched = if self.is_clean || is_same_boot { &self.verified } else { &self.durable };
        let kept = intersection(vouched, &selection.kept_pieces(layout, &self.selection));
        let is_same_folder = self.folder.is_some() && std::fs::canonicalize(root).ok() == self.folder;
        let sound = self.sound_pieces(layout, selection, &now, (is_same_boot, is_same_folder), kept.clone());
        if self.is_clean && sound == kept && *selection == self.selection {
            return Verdict::Trust(sound);
        }
        let Ok(with_data) = pieces_with_data(layout, root, selection) else { return Verdict::CheckAll };
        // A file system that keeps zeros as holes hides right pieces there: they are looked at, not lost.
        let trusted = if self.is_clean { sound.clone() } else { intersection(&sound, &with_data) };
        let candidates = pieces_where(piece_count, |piece| {
            (with_data.contains(piece) || sound.contains(piece)) && !trusted.contains(piece)
        });
        Verdict::TrustAndLookAt { trusted, candidates }
    }

    /// `pieces` without those of files that are not what they were.
    fn sound_pieces(
        &self,
        layout: &Layout,
        selection: &FileSelection,
        now: &Fingerprint,
        (is_same_boot, is_same_folder): (bool, bool),
        mut pieces: Bitfield,
    ) -> Bitfield {
        let is_sound = |then: Option<FileStamp>, now: Option<FileStamp>, len: u64| {
            let Some((then, now)) = then.zip(now.filter(|now| now.len == len)) else { return false };
            if self.is_clean {
                return then.is_same(now);
            }
            let is_the_file = then.change.zip(now.change).is_some_and(|(then, now)| then.inode == now.inode);
            let times = |stamp: FileStamp| (stamp.mtime(), stamp.ctime());
            let (then, now) = (times(then), times(now));
            is_the_file
                && if is_same_boot {
                    now == then
                } else {
                    is_same_folder && now.0 <= then.0 && now.1 <= then.1
                }
        };
        let stamps = self.fingerprint.files.iter().zip(&now.files);
        for ((index, file), (then, now)) in layout.stored_files().zip(stamps) {
            if selection.contains(index) && !is_sound(*then, *now, file.len) {
                for piece in layout.pieces_of(index) {
                    pieces.remove(PieceIndex(piece));
                }
            }
        }
        if !is_sound(self.fingerprint.parts, now.parts, layout.total_len()) {
            let border = selection.border_pieces(layout);
            pieces = pieces_where(pieces.len(), |piece| pieces.contains(piece) && !border.contains(piece));
        }
        pieces
    }
}

#[cfg(test)]
mod tests;
