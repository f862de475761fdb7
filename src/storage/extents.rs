//! Which pieces may have been written at all.
//!
//! A sparse file knows its holes (lseek(2), SEEK_DATA and SEEK_HOLE). A piece with a hole was never written whole, so
//! after a crash only the others are worth hashing. File systems that do not tell show one extent of data, as
//! do those without holes; the answer is then every piece. Reads no content.

use super::error::StorageError;
use super::layout::{FileSpan, Layout};
use super::root::Root;
use super::selection::FileSelection;
use crate::bitfield::Bitfield;
use crate::units::PieceIndex;
use rustix::fd::OwnedFd;
use rustix::fs::SeekFrom;
use rustix::io::Errno;
use std::ops::Range;
use std::path::Path;

/// The wanted pieces every byte of which lies where something has been written, be it zeros; padding counts as
/// written. Files that are missing or cannot be opened have no such bytes. Only a root that cannot be opened is an error.
pub fn pieces_with_data(
    layout: &Layout,
    root: &Path,
    selection: &FileSelection,
) -> Result<Bitfield, StorageError> {
    let root = Root::open(root)?;
    let mut pieces = selection.wanted_pieces(layout);
    let piece_length = u64::from(layout.piece_length());
    for (index, file) in layout.stored_files().filter(|&(index, _)| selection.contains(index)) {
        let start = layout.start_of(index).unwrap_or_default();
        let mut remove = |hole: Range<u64>| {
            let (begin, end) = (start + hole.start, start + hole.end.min(file.len));
            for piece in begin / piece_length..end.div_ceil(piece_length) {
                pieces.remove(PieceIndex(piece as u32));
            }
        };
        match root.open_file(&file.path) {
            Ok((fd, state)) => holes(&fd, state.len.min(file.len), file.len, &mut remove),
            Err(_) => remove(0..file.len),
        }
    }
    let border = selection.border_pieces(layout);
    if let Some(path) = selection.parts_path()
        && border.count() > 0
    {
        let parts = root.open_file(path).ok().map(|(fd, _)| fd);
        for piece in (0..layout.piece_count()).map(PieceIndex).filter(|&piece| border.contains(piece)) {
            let has_data = |span: FileSpan| match selection.place(layout, span) {
                Some(place) if place.file != span.file => {
                    let end = place.offset + u64::from(span.len);
                    parts.as_ref().is_some_and(|fd| is_data(fd, place.offset..end))
                }
                _ => true,
            };
            if !layout.spans(layout.piece_span(piece)).all(has_data) {
                pieces.remove(piece);
            }
        }
    }
    Ok(pieces)
}

/// Calls `found` with every hole of a file of `len` bytes, one at its end that it would need for `due` included.
fn holes(fd: &OwnedFd, len: u64, due: u64, found: &mut dyn FnMut(Range<u64>)) {
    let mut position = 0;
    while position < len {
        // Behind the last data the kernel answers NXIO: a hole to the end.
        let data = match rustix::fs::seek(fd, SeekFrom::Data(position)) {
            Ok(data) => data.min(len),
            Err(Errno::NXIO) => len,
            // A file system that does not tell has no holes.
            Err(_) => position,
        };
        if data > position {
            found(position..data);
        }
        if data >= len {
            break;
        }
        let end = rustix::fs::seek(fd, SeekFrom::Hole(data)).unwrap_or(len);
        position = end.clamp(data + 1, len);
    }
    if due > len {
        found(len..due);
    }
}

/// Whether there is no hole among the bytes.
fn is_data(fd: &OwnedFd, bytes: Range<u64>) -> bool {
    let begins = match rustix::fs::seek(fd, SeekFrom::Data(bytes.start)) {
        Ok(data) => data == bytes.start,
        Err(errno) => errno != Errno::NXIO,
    };
    begins && rustix::fs::seek(fd, SeekFrom::Hole(bytes.start)).map_or(true, |hole| hole >= bytes.end)
}

#[cfg(test)]
mod tests;
