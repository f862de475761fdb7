//! The info dictionary: what the info-hash names and peers check each other's pieces against.

use super::{MetainfoError, RelativePath};
use crate::units::PieceIndex;

/// A validated info dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    name: String,
    piece_length: u32,
    piece_hashes: Box<[u8]>,
    files: Vec<FileEntry>,
    total_len: u64,
    single_file: bool,
    private: bool,
    hybrid: bool,
    source: Option<String>,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    path: RelativePath,
    len: u64,
    offset: u64,
    attributes: FileAttributes,
}

/// What BEP 47 says about a file beyond its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileAttributes {
    /// Zeros that align the next file to a piece; never stored.
    pub padding: bool,
    /// To be made executable.
    pub executable: bool,
    /// Hidden on systems that have such a flag.
    pub hidden: bool,
    /// The file is a symbolic link to this path, relative to the save folder; it then has no bytes.
    pub symlink: Option<RelativePath>,
}

impl Info {
    /// Reads the raw bytes of an info dictionary.
    ///
    /// # Errors
    /// As [`Metainfo::parse`](super::Metainfo::parse).
    pub fn parse(_info_bytes: &[u8]) -> Result<Self, MetainfoError> {
        Err(MetainfoError::NotADictionary)
    }

    /// The torrent's name, fit to be a file's name: the single file's, or that of the folder of all files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of each piece but the last: a multiple of 16 KiB, at most `PIECE_LEN_MAX`.
    pub fn piece_length(&self) -> u32 {
        self.piece_length
    }

    /// Number of pieces: 1 to `PIECES_MAX`.
    pub fn piece_count(&self) -> u32 {
        // The constructor keeps the number of hashes at or below PIECES_MAX.
        (self.piece_hashes.len() / 20) as u32
    }

    /// Bytes of one piece; the last may be shorter. Zero beyond the last.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        let start = u64::from(piece.0) * u64::from(self.piece_length);
        let rest = self.total_len.saturating_sub(start);
        u32::try_from(rest).map_or(self.piece_length, |rest| rest.min(self.piece_length))
    }

    /// SHA-1 of one piece; `None` beyond the last.
    pub fn piece_hash(&self, piece: PieceIndex) -> Option<[u8; 20]> {
        let start = usize::try_from(piece.0).ok()?.checked_mul(20)?;
        self.piece_hashes.get(start..start + 20)?.try_into().ok()
    }

    /// The files in order of their offset; links that led nowhere are left out.
    pub fn files(&self) -> &[FileEntry] {
        &self.files
    }

    /// Bytes of all files, padding included: 1 to 2^63 - 1.
    pub fn total_len(&self) -> u64 {
        self.total_len
    }

    /// Whether the torrent is one file without a folder.
    pub fn single_file(&self) -> bool {
        self.single_file
    }

    /// Whether peers may come from the torrent's own trackers only (BEP 27).
    pub fn private(&self) -> bool {
        self.private
    }

    /// Whether the dictionary describes the same content for v2 (BEP 52) too, which we do not use.
    pub fn hybrid(&self) -> bool {
        self.hybrid
    }

    /// The site's mark that makes its info-hash differ from others'. Escape before showing.
    pub fn source(&self) -> Option<&str> {
        self.source.as_deref()
    }
}

impl FileEntry {
    /// Where the file lies, relative to the save folder: the torrent's name first when there is a folder.
    pub fn path(&self) -> &RelativePath {
        &self.path
    }

    /// Bytes of the file.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the file has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all files before this one.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Padding, executable, hidden, link.
    pub fn attributes(&self) -> &FileAttributes {
        &self.attributes
    }
}
