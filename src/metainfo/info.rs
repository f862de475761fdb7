//! The info dictionary: what the info-hash names and peers check each other's pieces against.

use super::spelling::{self, RawPath};
use super::{MetainfoError, PathError, RelativePath, links, unique};
use crate::bencode::{self, Value};
use crate::id::InfoHash;
use crate::limits::{PIECE_LEN_MAX, PIECE_LEN_MIN, PIECES_MAX, TORRENT_FILE_LEN_MAX};
use crate::shape::PieceShape;
use crate::units::PieceIndex;
use encoding_rs::Encoding;
use std::path::PathBuf;

/// A validated info dictionary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Info {
    name: String,
    shape: PieceShape,
    piece_hashes: Box<[u8]>,
    files: Vec<FileEntry>,
    single_file: bool,
    private: bool,
    hybrid: bool,
    source: Option<String>,
    /// The encoding that the torrent file says its texts are in.
    encoding: Option<&'static Encoding>,
}

/// One file of a torrent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    pub(super) path: RelativePath,
    /// What the torrent has in place of `path`, when that is anything out of the ordinary.
    raw: Option<Box<RawPath>>,
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
        Self::from_value(bencode::parse(info_bytes)?.root(), None)
    }

    /// The one place where an info dictionary becomes an `Info`. `encoding` is what the torrent file around it says of
    /// itself; it changes no path, so that a torrent has the same ones however it was come by.
    pub(super) fn from_value(info: Value<'_, '_>, encoding: Option<&[u8]>) -> Result<Self, MetainfoError> {
        if info.kind() != bencode::Kind::Dict {
            return Err(MetainfoError::InfoMissing);
        }
        let v2 = info.lookup(b"meta version").and_then(Value::as_int).is_some_and(|version| version >= 2)
            || info.lookup(b"file tree").is_some();
        let Some(piece_hashes) = info.lookup(b"pieces").and_then(Value::as_bytes) else {
            return Err(if v2 { MetainfoError::V2Only } else { MetainfoError::PieceHashesMissing });
        };
        let piece_length = piece_length(info)?;
        let name = TorrentName::of(info)?;
        let (mut files, single_file) = match (info.lookup(b"length"), info.lookup(b"files")) {
            (Some(_), None) => (vec![file_entry(info, 0, name.path.clone(), name.raw_file())?], true),
            (None, Some(files)) => (file_entries(files, &name)?, false),
            _ => return Err(MetainfoError::FilesMissing),
        };
        let total_len = place(&mut files)?;
        let shape = shape(piece_hashes.len(), total_len, piece_length)?;
        unique::tell_apart(&mut files)?;
        links::drop_unusable(&mut files);
        Ok(Self {
            name: name.path.as_str().to_owned(),
            shape,
            piece_hashes: piece_hashes.into(),
            files,
            single_file,
            private: info.lookup(b"private").and_then(Value::as_int) == Some(1),
            hybrid: v2,
            source: super::text(info, b"source"),
            encoding: encoding.and_then(spelling::encoding_of),
        })
    }

    /// The torrent's name, fit to be a file's name: the single file's, or that of the folder of all files.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the content is cut into pieces and blocks.
    pub fn shape(&self) -> PieceShape {
        self.shape
    }

    /// Bytes of each piece but the last: `PIECE_LEN_MIN` to `PIECE_LEN_MAX`, of any length above zero when there is one
    /// piece only. Not always a multiple of 16 KiB.
    pub fn piece_length(&self) -> u32 {
        self.shape.piece_length
    }

    /// Number of pieces: 1 to `PIECES_MAX`.
    pub fn piece_count(&self) -> u32 {
        self.shape.piece_count
    }

    /// Bytes of one piece; the last may be shorter. Zero beyond the last.
    pub fn piece_len(&self, piece: PieceIndex) -> u32 {
        self.shape.piece_len(piece)
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

    /// Other paths under which another client may have saved `file`, one of this torrent's: raw bytes, other encodings,
    /// other ways to clean a name. All of them stay below the save folder; most files have none. Which of them is there, if
    /// any, only the disk can tell, and two files may share one.
    pub fn spellings(&self, file: &FileEntry) -> Vec<PathBuf> {
        file.raw.as_ref().map_or_else(Vec::new, |raw| raw.spellings(file.path.as_str(), self.encoding))
    }

    /// Bytes of all files, padding included: 1 to 2^63 - 1.
    pub fn total_len(&self) -> u64 {
        self.shape.total_len
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
        .filter(|len| (1..=PIECE_LEN_MAX).contains(len))
        .ok_or(MetainfoError::PieceLength(value))
}

/// The torrent's name.
struct TorrentName<'a> {
    /// Cleaned: a path of one component.
    path: RelativePath,
    plain: Option<&'a [u8]>,
    /// `name.utf-8` is what old programs wrote beside a name in the letters of their own system.
    utf8: Option<&'a [u8]>,
}

impl<'a> TorrentName<'a> {
    /// A name that names nothing, as `..`, gives way to the info-hash, as with other clients.
    fn of(info: Value<'_, 'a>) -> Result<Self, MetainfoError> {
        let plain = info.lookup(b"name").and_then(Value::as_bytes);
        let utf8 = info.lookup(b"name.utf-8").and_then(Value::as_str).map(str::as_bytes);
        let best = utf8.or(plain).ok_or(MetainfoError::NameMissing)?;
        let path = RelativePath::from_components([best]).or_else(|_| {
            let hash = InfoHash::of(info.raw()).to_string();
            RelativePath::from_components([hash.as_bytes()]).map_err(|_| MetainfoError::NameMissing)
        })?;
        Ok(Self { path, plain, utf8 })
    }

    /// The name in the letters of its maker's system.
    fn plain(&self) -> &'a [u8] {
        self.plain.or(self.utf8).unwrap_or_default()
    }

    /// The spellings of a single file, which has the torrent's name.
    fn raw_file(&self) -> Option<Box<RawPath>> {
        RawPath::of(vec![self.plain()], self.utf8.map(|name| vec![name]), self.path.as_str())
    }

    /// The path of a file below the name, and its spellings. Padding needs no path of its own.
    fn path_of(
        &self,
        file: Value<'_, 'a>,
        is_padding: bool,
    ) -> Result<(RelativePath, Option<Box<RawPath>>), PathError> {
        let plain = file.lookup(b"path").and_then(parts);
        let is_readable = |path: &Value<'_, '_>| {
            path.as_list().is_some_and(|mut parts| parts.all(|part| part.as_str().is_some()))
        };
        let utf8 = file.lookup(b"path.utf-8").filter(is_readable).and_then(parts);
        let Some(best) = utf8.as_ref().or(plain.as_ref()) else {
            let padding = self.below([b".pad".as_slice(), b"0"])?;
            return if is_padding { Ok((padding, None)) } else { Err(PathError::Malformed) };
        };
        let mut path = self.below(best.iter().copied())?;
        if path == self.path {
            path = self.below([b"_".as_slice()])?;
        }
        let with = |name: &'a [u8], parts: Vec<&'a [u8]>| std::iter::once(name).chain(parts).collect();
        let utf8 = match (self.utf8, utf8) {
            (None, None) => None,
            (name, parts) => {
                let parts = parts.or_else(|| plain.clone()).unwrap_or_default();
                Some(with(name.unwrap_or(self.plain()), parts))
            }
        };
        let plain = plain.map(|parts| with(self.plain(), parts)).or_else(|| utf8.clone());
        let raw = plain.and_then(|plain| RawPath::of(plain, utf8, path.as_str()));
        Ok((path, raw.filter(|_| !is_padding)))
    }

    /// Where a link leads, when that is below the name: one that climbs is none of ours.
    fn link_target(&self, file: Value<'_, 'a>) -> Option<RelativePath> {
        let parts = parts(file.lookup(b"symlink path")?)?;
        if parts.iter().any(|part| *part == b"..") { None } else { self.below(parts).ok() }
    }

    fn below<'p>(&'p self, parts: impl IntoIterator<Item = &'p [u8]>) -> Result<RelativePath, PathError> {
        RelativePath::from_components(std::iter::once(self.path.as_str().as_bytes()).chain(parts))
    }
}

/// The components of a path; `None` when it is no list of strings.
fn parts<'a>(path: Value<'_, 'a>) -> Option<Vec<&'a [u8]>> {
    path.as_list()?.map(Value::as_bytes).collect()
}

fn file_entries(files: Value<'_, '_>, name: &TorrentName<'_>) -> Result<Vec<FileEntry>, MetainfoError> {
    let files = files.as_list().ok_or(MetainfoError::FilesMissing)?;
    let mut entries = Vec::new();
    for (number, file) in files.enumerate() {
        if file.kind() != bencode::Kind::Dict {
            return Err(MetainfoError::FileMalformed(number));
        }
        let is_padding = flags(file).contains(&b'p');
        let path = name.path_of(file, is_padding);
        let (path, raw) = path.map_err(|source| MetainfoError::FilePath { number, source })?;
        let mut entry = file_entry(file, number, path, raw)?;
        if entry.attributes.symlink.is_some() {
            entry.attributes.symlink = name.link_target(file);
            if entry.attributes.symlink.is_none() {
                continue;
            }
        }
        entries.push(entry);
    }
    if entries.is_empty() { Err(MetainfoError::NoFiles) } else { Ok(entries) }
}

fn flags<'a>(file: Value<'_, 'a>) -> &'a [u8] {
    file.lookup(b"attr").and_then(Value::as_bytes).unwrap_or_default()
}

/// Length and attributes. A link's target is filled in by the caller; a link has no bytes, whatever it says.
fn file_entry(
    file: Value<'_, '_>,
    number: usize,
    path: RelativePath,
    raw: Option<Box<RawPath>>,
) -> Result<FileEntry, MetainfoError> {
    let flags = flags(file);
    let len = file.lookup(b"length").and_then(Value::as_uint);
    let symlink = flags.contains(&b'l').then(|| path.clone());
    let len = if symlink.is_some() { 0 } else { len.ok_or(MetainfoError::FileLength(number))? };
    let attributes = FileAttributes {
        padding: flags.contains(&b'p'),
        executable: flags.contains(&b'x'),
        hidden: flags.contains(&b'h'),
        symlink,
    };
    Ok(FileEntry { path, raw, len, offset: 0, attributes })
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

/// Pieces and hashes have to agree. A single piece is as long as its content, whatever the torrent calls its length.
fn shape(hashes_len: usize, total_len: u64, piece_length: u32) -> Result<PieceShape, MetainfoError> {
    if !hashes_len.is_multiple_of(20) {
        return Err(MetainfoError::PieceHashesRagged(hashes_len));
    }
    let hashes = hashes_len as u64 / 20;
    let pieces = total_len.div_ceil(u64::from(piece_length));
    if hashes != pieces {
        return Err(MetainfoError::PieceCount { hashes, pieces });
    }
    if pieces > 1 && piece_length < PIECE_LEN_MIN {
        return Err(MetainfoError::PieceLength(piece_length.into()));
    }
    PieceShape::new(piece_length, total_len)
        .filter(|shape| shape.piece_count <= PIECES_MAX)
        .ok_or(MetainfoError::TooManyPieces(pieces))
}
