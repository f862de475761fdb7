//! The info dictionary: what the info-hash names and peers check each other's pieces against.

use super::{MetainfoError, PathError, RelativePath, links};
use crate::bencode::{self, Value};
use crate::limits::{PIECE_LEN_MAX, PIECES_MAX, TORRENT_FILE_LEN_MAX};
use crate::units::{BLOCK_LEN, PieceIndex};

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
    pub(super) attributes: FileAttributes,
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
    pub fn parse(info_bytes: &[u8]) -> Result<Self, MetainfoError> {
        if info_bytes.len() as u64 > TORRENT_FILE_LEN_MAX {
            return Err(MetainfoError::TooLong);
        }
        Self::from_value(bencode::parse(info_bytes)?.root())
    }

    /// The one place where an info dictionary becomes an `Info`.
    pub(super) fn from_value(info: Value<'_, '_>) -> Result<Self, MetainfoError> {
        if info.kind() != bencode::Kind::Dict {
            return Err(MetainfoError::InfoMissing);
        }
        let v2 = info.lookup(b"meta version").and_then(Value::as_int).is_some_and(|version| version >= 2)
            || info.lookup(b"file tree").is_some();
        let Some(piece_hashes) = info.lookup(b"pieces").and_then(Value::as_bytes) else {
            return Err(if v2 { MetainfoError::V2Only } else { MetainfoError::PieceHashesMissing });
        };
        let piece_length = piece_length(info)?;
        let name = name(info)?;
        let (mut files, single_file) = match (info.lookup(b"length"), info.lookup(b"files")) {
            (Some(_), None) => (vec![file_entry(info, 0, name.clone())?], true),
            (None, Some(files)) => (file_entries(files, &name)?, false),
            _ => return Err(MetainfoError::FilesMissing),
        };
        let total_len = place(&mut files)?;
        check_piece_count(piece_hashes.len(), total_len, piece_length)?;
        refuse_shared_paths(&files)?;
        links::drop_unusable(&mut files);
        Ok(Self {
            name: name.as_str().to_owned(),
            piece_length,
            piece_hashes: piece_hashes.into(),
            files,
            total_len,
            single_file,
            private: info.lookup(b"private").and_then(Value::as_int) == Some(1),
            hybrid: v2,
            source: super::text(info, b"source"),
        })
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

fn piece_length(info: Value<'_, '_>) -> Result<u32, MetainfoError> {
    let value = info.lookup(b"piece length").and_then(Value::as_int);
    let value = value.ok_or(MetainfoError::PieceLengthMissing)?;
    u32::try_from(value)
        .ok()
        .filter(|&len| len > 0 && len <= PIECE_LEN_MAX && len.is_multiple_of(BLOCK_LEN))
        .ok_or(MetainfoError::PieceLength(value))
}

/// The torrent's name as a path of one component. `name.utf-8` is what old programs wrote beside a name in
/// the letters of their own system.
fn name(info: Value<'_, '_>) -> Result<RelativePath, MetainfoError> {
    let utf8 = info.lookup(b"name.utf-8").and_then(Value::as_str).map(str::as_bytes);
    let raw = utf8.or_else(|| info.lookup(b"name").and_then(Value::as_bytes));
    let raw = raw.ok_or(MetainfoError::NameMissing)?;
    RelativePath::from_components([raw])
        .map_err(|source| MetainfoError::Name { name: String::from_utf8_lossy(raw).into_owned(), source })
}

fn file_entries(files: Value<'_, '_>, name: &RelativePath) -> Result<Vec<FileEntry>, MetainfoError> {
    let files = files.as_list().ok_or(MetainfoError::FilesMissing)?;
    let mut entries = Vec::new();
    for (number, file) in files.enumerate() {
        if file.kind() != bencode::Kind::Dict {
            return Err(MetainfoError::FileMalformed(number));
        }
        let path = file_path(file, name).map_err(|source| MetainfoError::FilePath { number, source })?;
        let mut entry = file_entry(file, number, path)?;
        if entry.attributes.symlink.is_some() {
            entry.attributes.symlink = link_target(file, name);
            if entry.attributes.symlink.is_none() {
                continue;
            }
        }
        entries.push(entry);
    }
    if entries.is_empty() { Err(MetainfoError::NoFiles) } else { Ok(entries) }
}

/// Length and attributes. A link's target is filled in by the caller; a link has no bytes, whatever it says.
fn file_entry(file: Value<'_, '_>, number: usize, path: RelativePath) -> Result<FileEntry, MetainfoError> {
    let flags = file.lookup(b"attr").and_then(Value::as_bytes).unwrap_or_default();
    let len = file.lookup(b"length").and_then(Value::as_uint);
    let symlink = flags.contains(&b'l').then(|| path.clone());
    let len = if symlink.is_some() { 0 } else { len.ok_or(MetainfoError::FileLength(number))? };
    let attributes = FileAttributes {
        padding: flags.contains(&b'p'),
        executable: flags.contains(&b'x'),
        hidden: flags.contains(&b'h'),
        symlink,
    };
    Ok(FileEntry { path, len, offset: 0, attributes })
}

/// The torrent's name and the file's own path below it.
fn file_path(file: Value<'_, '_>, name: &RelativePath) -> Result<RelativePath, PathError> {
    let readable = |path: &Value<'_, '_>| {
        path.as_list().is_some_and(|mut parts| parts.all(|part| part.as_str().is_some()))
    };
    let path = file.lookup(b"path.utf-8").filter(readable).or_else(|| file.lookup(b"path"));
    let path = path.ok_or(PathError::Malformed)?;
    let below = below_name(path, name)?;
    if below == *name { Err(PathError::Empty) } else { Ok(below) }
}

fn link_target(file: Value<'_, '_>, name: &RelativePath) -> Option<RelativePath> {
    below_name(file.lookup(b"symlink path")?, name).ok()
}

fn below_name(path: Value<'_, '_>, name: &RelativePath) -> Result<RelativePath, PathError> {
    let parts: Option<Vec<&[u8]>> =
        path.as_list().ok_or(PathError::Malformed)?.map(Value::as_bytes).collect();
    let top = name.as_str().as_bytes();
    RelativePath::from_components(std::iter::once(top).chain(parts.ok_or(PathError::Malformed)?))
}

/// Sets the offsets; returns the total length.
fn place(files: &mut [FileEntry]) -> Result<u64, MetainfoError> {
    let mut offset: u64 = 0;
    for file in files {
        file.offset = offset;
        let end = offset.checked_add(file.len).filter(|&end| i64::try_from(end).is_ok());
        offset = end.ok_or(MetainfoError::LengthOverflow)?;
    }
    if offset == 0 { Err(MetainfoError::NoContent) } else { Ok(offset) }
}

fn check_piece_count(hashes_len: usize, total_len: u64, piece_length: u32) -> Result<(), MetainfoError> {
    if !hashes_len.is_multiple_of(20) {
        return Err(MetainfoError::PieceHashesRagged(hashes_len));
    }
    let hashes = hashes_len as u64 / 20;
    let pieces = total_len.div_ceil(u64::from(piece_length));
    if hashes != pieces {
        return Err(MetainfoError::PieceCount { hashes, pieces });
    }
    if pieces > u64::from(PIECES_MAX) { Err(MetainfoError::TooManyPieces(pieces)) } else { Ok(()) }
}

/// Padding is never stored, and programs give all padding of one length one path.
fn refuse_shared_paths(files: &[FileEntry]) -> Result<(), MetainfoError> {
    let stored = files.iter().filter(|file| !file.attributes.padding);
    let mut paths: Vec<&RelativePath> = stored.map(|file| &file.path).collect();
    paths.sort_unstable();
    for pair in paths.windows(2) {
        if pair[0] == pair[1] {
            return Err(MetainfoError::PathTwice(pair[0].clone()));
        }
        if pair[0].is_folder_of(pair[1]) {
            return Err(MetainfoError::FileIsFolder { file: pair[0].clone(), inside: pair[1].clone() });
        }
    }
    Ok(())
}
