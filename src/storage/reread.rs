//! Lets the page cache forget pieces, so that the next look at them is a look at the disk.
//!
//! After a failed write-back the kernel keeps showing the pages that it could not write as if it had
//! (fsync(2), "Errors"), until memory is short: a hash of them proves nothing. What is still to be written
//! stays, and is no lie: it will be brought to the disk, or an error told. Advice only (posix_fadvise(2)): a file
//! system that keeps its pages is read as it is.

use super::hash::Subset;
use super::layout::Layout;
use super::root::Root;
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use std::num::NonZero;
use std::path::Path;

/// Lets the page cache forget the pieces of `subset`, as far as they are on the disk. Reads nothing; files that cannot
/// be opened have nothing to forget.
pub fn forget_cached(layout: &Layout, root: &Path, subset: Subset<'_>) {
    let Ok(root) = Root::open(root) else { return };
    let mut open: Option<(u32, Option<OwnedFd>)> = None;
    for piece in subset.pieces.iter() {
        for span in layout.spans(layout.piece_span(piece)) {
            let Some(place) = subset.selection.place(layout, span) else { continue };
            if open.as_ref().is_none_or(|(index, _)| *index != place.file.0) {
                open = Some((place.file.0, root.open_file(place.path).ok().map(|(fd, _)| fd)));
            }
            if let Some((_, Some(fd))) = &open {
                // Whole pages only are forgotten, so those at both ends are named whole.
                let begin = place.offset & !(PAGE - 1);
                let end = (place.offset + u64::from(span.len)).next_multiple_of(PAGE);
                let _ = rustix::fs::fadvise(fd, begin, NonZero::new(end - begin), Advice::DontNeed);
            }
        }
    }
}

/// Bytes of the largest page in use anywhere.
const PAGE: u64 = 64 * 1024;
