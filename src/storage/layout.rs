//! How a torrent's bytes lie in its files.
//!
//! BEP 3 strings all files together and cuts the string into pieces, so a piece may cross any number of file
//! borders. A [`Layout`] is that arithmetic and nothing else: no disk, no hash. Its invariant: every span it
//! yields lies inside its file, and the spans of a block are exactly the block's bytes in order.
//! Absent: case-folding of paths, since Linux file systems tell `A` and `a` apart.

use crate::limits;
use crate::metainfo::Info;
use crate::shape::PieceShape;
use crate::units::{BlockSpan, PieceIndex};
use std::ops::Range;
use std::path::{Component, Path, PathBuf};

/// A file's number within its torrent, from zero, padding and empty files counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileIndex(pub u32);

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayoutFile {
    /// Where it lies below the content's root folder: relative, plain names only.
    pub path: PathBuf,
    /// Bytes.
    pub len: u64,
    /// Padding (BEP 47): zeros that stand between files and are never on disk.
    pub padding: bool,
}

/// A run of bytes inside one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileSpan {
    /// The file.
    pub file: FileIndex,
    /// First byte within the file.
    pub offset: u64,
    /// Number of bytes, never zero in what [`Layout::spans`] yields.
    pub len: u32,
}

/// Pieces and files of one torrent, and the way from the one to the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    files: Box<[LayoutFile]>,
    /// Where each file begins in the string of all files; ascending, equal for a run of empty files.
    starts: Box<[u64]>,
    shape: PieceShape,
}

/// Why files make no layout. All of them are faults of the torrent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// Pieces without bytes, or larger than we take.
    #[error("the torrent has pieces of {0} bytes; 1 to {max} are possible", max = limits::PIECE_LEN_MAX)]
    PieceLength(u32),
    /// The sum of the lengths leaves 63 bits, beyond which no file offset reaches.
    #[error("the torrent's files are longer together than a file system can hold")]
    TooLong,
    /// More pieces than we take.
    #[error("the torrent has {0} pieces; at most {max} are possible", max = limits::PIECES_MAX)]
    TooManyPieces(u64),
    /// More files than 32 bits count.
    #[error("the torrent has more files than can be counted")]
    TooManyFiles,
    /// A path that is empty, absolute or climbs.
    #[error("the torrent has a file with the unsafe path {0:?}")]
    UnsafePath(PathBuf),
    /// Two files of one path, or a file that is also another file's folder.
    #[error("the torrent's files {0:?} and {1:?} cannot both exist")]
    PathConflict(PathBuf, PathBuf),
}

impl Layout {
    /// The layout of `files`, in the torrent's order, cut into pieces of `piece_length` bytes.
    pub fn new(piece_length: u32, files: impl IntoIterator<Item = LayoutFile>) -> Result<Self, LayoutError> {
        if piece_length == 0 || piece_length > limits::PIECE_LEN_MAX {
            return Err(LayoutError::PieceLength(piece_length));
        }
        let files: Box<[LayoutFile]> = files.into_iter().collect();
        u32::try_from(files.len()).map_err(|_| LayoutError::TooManyFiles)?;
        let mut total_len = 0_u64;
        let mut starts = Vec::with_capacity(files.len());
        for file in &files {
            starts.push(total_len);
            total_len = total_len
                .checked_add(file.len)
                .filter(|&sum| i64::try_from(sum).is_ok())
                .ok_or(LayoutError::TooLong)?;
        }
        let shape = PieceShape::new(piece_length, total_len)
            .filter(|shape| shape.piece_count <= limits::PIECES_MAX)
            .ok_or_else(|| LayoutError::TooManyPieces(total_len.div_ceil(u64::from(piece_length))))?;
        check_paths(&files)?;
        Ok(Self { files, starts: starts.into_boxed_slice(), shape })
    }

    /// The same files, each under the path that `rename` gives it by its number; padding, which is never on disk, keeps its
    /// own. For content that is only read: two files may lie at one path, as they do where links lead both there.
    pub(super) fn moved(
        &self,
        mut rename: impl FnMut(FileIndex, &LayoutFile) -> PathBuf,
    ) -> Result<Self, LayoutError> {
        let mut moved = self.clone();
        for (index, file) in (0..).map(FileIndex).zip(&mut moved.files).filter(|(_, file)| !file.padding) {
            file.path = rename(index, file);
            if !is_plain(&file.path) {
                return Err(LayoutError::UnsafePath(std::mem::take(&mut file.path)));
            }
        }
        Ok(moved)
    }

    /// The layout of a torrent as its info dictionary has it, paths relative to the folder that content is saved in.
    pub fn of(info: &Info) -> Result<Self, LayoutError> {
        let files = info.files().iter().map(|file| LayoutFile {
            path: file.path().as_path().to_path_buf(),
            len: file.len(),
            padding: file.attributes().padding,
        });
        Self::new(info.piece_length(), files)
    }

    /// All files, in the torrent's order; [`FileIndex`] counts them.
    pub fn files(&self) -> &[LayoutFile] {
        &self.files
    }

    /// One file; `None` out of range.
    pub fn file(&self, file: FileIndex) -> Option<&LayoutFile> {
        self.files.get(file.0 as usize)
    }

    /// Where the file begins in the string of all files; `None` out of range.
    pub(super) fn start_of(&self, file: FileIndex) -> Option<u64> {
        self.starts.get(file.0 as usize).copied()
    }

    /// The files that have bytes on disk: neither empty nor padding.
    pub fn stored_files(&self) -> impl Iterator<Item = (FileIndex, &LayoutFile)> {
        self.stored_files_of(0..u32::try_from(self.files.len()).unwrap_or(u32::MAX))
    }

    /// Those of them that have these numbers.
    pub fn stored_files_of(&self, some: Range<u32>) -> impl Iterator<Item = (FileIndex, &LayoutFile)> {
        let (first, len) = (some.start, some.len());
        let numbered = (first..).map(FileIndex).zip(self.files.iter().skip(first as usize).take(len));
        numbered.filter(|(_, file)| file.len > 0 && !file.padding)
    }

    /// Number of pieces; zero for a torrent without bytes.
    pub fn piece_count(&self) -> u32 {
        self.shape.piece_count
    }

    /// Bytes of every piece but perhaps the last.
    pub fn piece_length(&self) -> u32 {
        self.shape.piece_length
    }

    /// Bytes of one piece; the last may be shorter. Zero out of range.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.shape.piece_len(piece)
    }

    /// Bytes of all files, padding counted.
    pub fn total_len(&self) -> u64 {
        self.shape.total_len
    }

    /// The whole piece as a span; empty out of range.
    pub fn piece_span(&self, piece: PieceIndex) -> BlockSpan {
        self.shape.whole(piece)
    }

    /// Numbers of the pieces that have bytes of `file`; empty for an empty file and out of range.
    pub fn pieces_of(&self, file: FileIndex) -> Range<u32> {
        let index = file.0 as usize;
        match (self.starts.get(index), self.files.get(index)) {
            (Some(&start), Some(file)) => self.shape.pieces_of(start..start + file.len),
            _ => 0..0,
        }
    }

    /// Whether the block has bytes at all and all of them lie inside its piece. Anything may be asked.
    pub fn contains(&self, block: BlockSpan) -> bool {
        self.shape.contains(block)
    }

    /// Where the block's bytes lie, in order, without allocating. Nothing for a block that this layout does not
    /// contain. One block has as many spans as files it touches, which for tiny files may be as many as bytes.
    pub fn spans(&self, block: BlockSpan) -> Spans<'_> {
        if !self.contains(block) {
            return Spans { layout: self, file: 0, position: 0, left: 0 };
        }
        let position = self.shape.start_of(block.piece) + u64::from(block.begin);
        // The last file that begins at or before the position: of several that begin there, all but the last
        // are empty.
        let file = self.starts.partition_point(|&start| start <= position).saturating_sub(1);
        Spans { layout: self, file, position, left: block.len }
    }
}

/// The runs of bytes that make up one block; see [`Layout::spans`].
#[derive(Clone, Debug)]
pub struct Spans<'a> {
    layout: &'a Layout,
    file: usize,
    position: u64,
    left: u32,
}

impl Iterator for Spans<'_> {
    type Item = FileSpan;

    fn next(&mut self) -> Option<FileSpan> {
        while self.left > 0 {
            let (start, file) = (*self.layout.starts.get(self.file)?, self.layout.files.get(self.file)?);
            let offset = self.position - start;
            let len = (file.len - offset).min(u64::from(self.left)) as u32;
            let index = FileIndex(self.file as u32);
            self.position += u64::from(len);
            self.left -= len;
            self.file += 1;
            if len > 0 {
                return Some(FileSpan { file: index, offset, len });
            }
        }
        None
    }
}

fn check_paths(files: &[LayoutFile]) -> Result<(), LayoutError> {
    let stored = files.iter().filter(|file| !file.padding);
    let mut paths: Vec<&Path> = stored.map(|file| file.path.as_path()).collect();
    if let Some(unsafe_path) = paths.iter().find(|path| !is_plain(path)) {
        return Err(LayoutError::UnsafePath(unsafe_path.to_path_buf()));
    }
    // Paths order by component, so whatever lies below a path stands right behind it.
    paths.sort_unstable();
    match paths.windows(2).find(|pair| pair[1].starts_with(pair[0])) {
        Some(pair) => Err(LayoutError::PathConflict(pair[0].to_path_buf(), pair[1].to_path_buf())),
        None => Ok(()),
    }
}

/// Relative, not empty, and names only: no `..`, no root, no NUL.
fn is_plain(path: &Path) -> bool {
    path.components().next().is_some()
        && path.components().all(|component| matches!(component, Component::Normal(_)))
        && !path.as_os_str().as_encoded_bytes().contains(&0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(path: &str, len: u64) -> LayoutFile {
        LayoutFile { path: path.into(), len, padding: false }
    }

    fn layout_of(piece_length: u32, lens: &[u64]) -> Layout {
        let files = lens.iter().enumerate().map(|(index, &len)| file(&format!("f{index}"), len));
        Layout::new(piece_length, files).unwrap()
    }

    #[test]
    fn a_torrent_without_bytes_has_no_pieces() {
        let layout = layout_of(4, &[0, 0]);
        assert_eq!((layout.piece_count(), layout.total_len()), (0, 0));
        assert_eq!(layout.spans(layout.piece_span(PieceIndex(0))).count(), 0);
        assert_eq!(layout.stored_files().count(), 0);
    }

    #[test]
    fn refuses_sums_that_overflow_and_counts_beyond_the_bound() {
        let files = || [file("a", u64::MAX), file("b", 1)];
        assert_eq!(Layout::new(1 << 20, files()), Err(LayoutError::TooLong));
        let half = [file("a", 1 << 62), file("b", 1 << 62)];
        assert_eq!(Layout::new(1 << 20, half), Err(LayoutError::TooLong));
        let pieces = u64::from(limits::PIECES_MAX) + 1;
        assert_eq!(Layout::new(1, [file("a", pieces)]), Err(LayoutError::TooManyPieces(pieces)));
        assert_eq!(Layout::new(0, []), Err(LayoutError::PieceLength(0)));
        assert_eq!(Layout::new(u32::MAX, []), Err(LayoutError::PieceLength(u32::MAX)));
    }

    #[test]
    fn refuses_paths_that_leave_the_root() {
        for path in ["", "/etc/passwd", "..", "a/../../b", "a/..", ".", "./a", "a\0b"] {
            let refused = Layout::new(4, [file(path, 1)]);
            assert_eq!(refused, Err(LayoutError::UnsafePath(path.into())), "{path:?}");
        }
    }

    #[test]
    fn refuses_files_that_cannot_both_exist() {
        for (one, other) in [("a", "a"), ("a", "a/b"), ("a", "a/b/c"), ("x/y", "x/y/z")] {
            let between = [file("a.txt", 1), file("a-b", 1), file("b", 1)];
            for pair in [[file(one, 1), file(other, 0)], [file(other, 0), file(one, 1)]] {
                let refused = Layout::new(4, pair.into_iter().chain(between.clone()));
                assert_eq!(refused, Err(LayoutError::PathConflict(one.into(), other.into())));
            }
        }
        let padding = || LayoutFile { path: ".pad/3".into(), len: 3, padding: true };
        assert!(Layout::new(4, [file("a", 1), padding(), file("b", 1), padding()]).is_ok());
    }

    #[test]
    fn no_request_overflows_the_range_check() {
        let layout = layout_of(16, &[40]);
        let block = |piece, begin, len| BlockSpan { piece: PieceIndex(piece), begin, len };
        assert!(layout.contains(block(2, 0, 8)));
        for outside in [
            block(2, 0, 9),
            block(2, 8, 1),
            block(3, 0, 1),
            block(0, 16, 1),
            block(0, 0, 0),
            block(0, u32::MAX, u32::MAX),
            block(u32::MAX, u32::MAX, u32::MAX),
        ] {
            assert!(!layout.contains(outside), "{outside}");
            assert_eq!(layout.spans(outside).count(), 0, "{outside}");
        }
    }

    /// Every byte of the torrent in order, as the file it lies in and its offset there.
    fn bytes_of(lens: &[u64]) -> Vec<(u32, u64)> {
        lens.iter().zip(0..).flat_map(|(&len, file)| (0..len).map(move |offset| (file, offset))).collect()
    }

    proptest! {
        #[test]
        fn spans_are_the_bytes_one_by_one(
            piece_length in 1u32..20,
            lens in prop::collection::vec(0u64..12, 0..20),
            piece in 0u32..30,
            begin in 0u32..24,
            len in 0u32..24,
        ) {
            let layout = layout_of(piece_length, &lens);
            let bytes = bytes_of(&lens);
            let pieces: Vec<&[(u32, u64)]> = bytes.chunks(piece_length as usize).collect();
            prop_assert_eq!(layout.piece_count() as usize, pieces.len());
            prop_assert_eq!(layout.total_len() as usize, bytes.len());
            let oracle_piece = pieces.get(piece as usize).copied().unwrap_or_default();
            prop_assert_eq!(layout.piece_len(PieceIndex(piece)) as usize, oracle_piece.len());

            let block = BlockSpan { piece: PieceIndex(piece), begin, len };
            let range = begin as usize..begin as usize + len as usize;
            let oracle = oracle_piece.get(range).filter(|bytes| !bytes.is_empty());
            prop_assert_eq!(layout.contains(block), oracle.is_some());
            let spans: Vec<FileSpan> = layout.spans(block).collect();
            let got: Vec<(u32, u64)> = spans
                .iter()
                .flat_map(|span| (0..u64::from(span.len)).map(move |byte| (span.file.0, span.offset + byte)))
                .collect();
            prop_assert_eq!(&got[..], oracle.unwrap_or_default());
            prop_assert!(spans.iter().all(|span| span.len > 0));
            prop_assert!(spans.windows(2).all(|pair| pair[0].file < pair[1].file));
        }

        #[test]
        fn pieces_of_a_file_are_those_with_its_bytes(
            piece_length in 1u32..20,
            lens in prop::collection::vec(0u64..40, 0..8),
        ) {
            let layout = layout_of(piece_length, &lens);
            for file in 0..=lens.len() as u32 {
                let oracle: Vec<u32> = (0..layout.piece_count())
                    .filter(|&piece| {
                        let span = layout.piece_span(PieceIndex(piece));
                        layout.spans(span).any(|span| span.file == FileIndex(file))
                    })
                    .collect();
                prop_assert_eq!(layout.pieces_of(FileIndex(file)).collect::<Vec<u32>>(), oracle);
            }
        }
    }
}
