//! Which files of a torrent are wanted, and where the bytes of the others go.
//!
//! A piece at the border of a wanted file may have bytes of a file that nobody wants. They are needed to check
//! the piece and to serve it, and the file itself is not to appear; so they go to one sparse parts file,
//! `.<info-hash>.parts` in the content's root folder, at the offset that they have in the string of all files.
//! Invariant: every byte of a wanted piece has exactly one place: its own file, the parts file, or padding,
//! which has none. When the selection changes, some bytes change their place without being moved; the pieces
//! that have such bytes count as not verified ([`FileSelection::kept_pieces`]).

use super::layout::{FileIndex, FileSpan, Layout};
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use crate::units::PieceIndex;
use std::path::{Path, PathBuf};

/// The files of a torrent that are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSelection(Option<Partial>);

/// A selection that leaves out at least one file.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Partial {
    /// By file index. Padding counts as left out.
    wanted: Box<[bool]>,
    parts: PathBuf,
}

/// Where a run of bytes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place<'a> {
    /// The file's number; one more than the torrent has for the parts file.
    pub(super) file: FileIndex,
    /// Below the root.
    pub(super) path: &'a Path,
    /// Bytes of the file.
    pub(super) file_len: u64,
    /// First byte within the file.
    pub(super) offset: u64,
}

impl FileSelection {
    /// Every file.
    pub fn all() -> Self {
        Self(None)
    }

    /// The files that `wants` says, by index; what it says of padding is ignored. The info-hash names the parts file.
    pub fn only(layout: &Layout, info_hash: InfoHash, mut wants: impl FnMut(FileIndex) -> bool) -> Self {
        let wanted = (0..).zip(layout.files()).map(|(index, file)| !file.padding && wants(FileIndex(index)));
        let wanted: Box<[bool]> = wanted.collect();
        if wanted.iter().zip(layout.files()).all(|(&wanted, file)| wanted || file.padding) {
            return Self::all();
        }
        Self(Some(Partial { wanted, parts: parts_path(info_hash) }))
    }

    /// Whether no file is left out.
    pub fn is_all(&self) -> bool {
        self.0.is_none()
    }

    /// Whether the file is wanted. Padding is only when everything is.
    pub fn contains(&self, file: FileIndex) -> bool {
        self.0.as_ref().is_none_or(|some| some.wanted.get(file.0 as usize).copied().unwrap_or(false))
    }

    /// Whether this is about as many files as the layout has.
    pub fn fits(&self, layout: &Layout) -> bool {
        self.0.as_ref().is_none_or(|some| some.wanted.len() == layout.files().len())
    }

    /// The pieces that have a byte of a wanted file.
    pub fn wanted_pieces(&self, layout: &Layout) -> Bitfield {
        if self.is_all() {
            return Bitfield::all(layout.piece_count());
        }
        self.pieces_of_files(layout, |file| self.contains(file))
    }

    /// The wanted pieces that lie partly in the parts file. None when every file is wanted.
    pub fn border_pieces(&self, layout: &Layout) -> Bitfield {
        if self.is_all() {
            return Bitfield::none(layout.piece_count());
        }
        let wanted = self.wanted_pieces(layout);
        let left_out = self.pieces_of_files(layout, |file| {
            !self.contains(file) && layout.file(file).is_some_and(|file| !file.padding)
        });
        intersection(&wanted, &left_out)
    }

    /// The wanted pieces all of whose bytes are where they were while `before` was the selection. What was
    /// verified of them then still is; of the others nothing is known.
    pub fn kept_pieces(&self, layout: &Layout, before: &Self) -> Bitfield {
        let mut kept = intersection(&self.wanted_pieces(layout), &before.wanted_pieces(layout));
        if self == before {
            return kept;
        }
        for (index, _) in layout.stored_files() {
            if self.contains(index) != before.contains(index) {
                for piece in layout.pieces_of(index) {
                    kept.remove(PieceIndex(piece));
                }
            }
        }
        kept
    }

    /// The parts file's path below the root; `None` when every file is wanted.
    pub fn parts_path(&self) -> Option<&Path> {
        self.0.as_ref().map(|some| some.parts.as_path())
    }

    /// Where a span's bytes are kept; `None` for padding and for what the layout does not have.
    pub(super) fn place<'a>(&'a self, layout: &'a Layout, span: FileSpan) -> Option<Place<'a>> {
        let file = layout.file(span.file).filter(|file| !file.padding)?;
        match &self.0 {
            Some(some) if !self.contains(span.file) => Some(Place {
                file: parts_index(layout),
                path: &some.parts,
                file_len: layout.total_len(),
                offset: layout.start_of(span.file)? + span.offset,
            }),
            _ => Some(Place { file: span.file, path: &file.path, file_len: file.len, offset: span.offset }),
        }
    }

    /// One bit a file, most significant bit first; `None` when every file is wanted.
    pub(super) fn bits(&self) -> Option<(u32, Vec<u8>)> {
        let some = self.0.as_ref()?;
        let mut bits = vec![0_u8; some.wanted.len().div_ceil(8)];
        for (index, _) in some.wanted.iter().enumerate().filter(|(_, wanted)| **wanted) {
            if let Some(byte) = bits.get_mut(index / 8) {
                *byte |= 0x80 >> (index % 8);
            }
        }
        Some((some.wanted.len() as u32, bits))
    }

    /// From [`Self::bits`]; `None` when there are too few or too many.
    pub(super) fn from_bits(info_hash: InfoHash, count: u32, bits: &[u8]) -> Option<Self> {
        if bits.len() != (count as usize).div_ceil(8) {
            return None;
        }
        let bit = |index: usize| bits.get(index / 8).is_some_and(|byte| byte & (0x80 >> (index % 8)) != 0);
        let wanted = (0..count as usize).map(bit).collect();
        Some(Self(Some(Partial { wanted, parts: parts_path(info_hash) })))
    }

    fn pieces_of_files(&self, layout: &Layout, mut takes: impl FnMut(FileIndex) -> bool) -> Bitfield {
        let mut pieces = Bitfield::none(layout.piece_count());
        for index in (0..layout.files().len() as u32).map(FileIndex) {
            if takes(index) {
                for piece in layout.pieces_of(index) {
                    pieces.insert(PieceIndex(piece));
                }
            }
        }
        pieces
    }
}

/// The number that the parts file has behind the torrent's files.
pub(super) fn parts_index(layout: &Layout) -> FileIndex {
    FileIndex(layout.files().len() as u32)
}

/// Where the parts file of a torrent lies below the root.
pub(super) fn parts_path(info_hash: InfoHash) -> PathBuf {
    format!(".{info_hash}.parts").into()
}

/// The pieces that are in both; empty when they are not of one torrent.
pub(super) fn intersection(one: &Bitfield, other: &Bitfield) -> Bitfield {
    pieces_where(one.len(), |piece| one.contains(piece) && other.contains(piece))
}

/// The pieces of `len` for which `takes` says so.
pub(super) fn pieces_where(len: u32, takes: impl Fn(PieceIndex) -> bool) -> Bitfield {
    let mut pieces = Bitfield::none(len);
    for piece in (0..len).map(PieceIndex).filter(|&piece| takes(piece)) {
        pieces.insert(piece);
    }
    pieces
}
