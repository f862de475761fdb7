//! Why bytes are no torrent or no magnet link we can use. It is always their fault, so the messages say what
//! is wrong with them and, where there is something, what to do about it.

use crate::bencode::BencodeError;
use crate::id::InfoHash;
use crate::limits::{
    MAGNET_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN, PIECES_MAX,
    TORRENT_FILE_LEN_MAX,
};
use crate::units::Counted;

/// What is wrong with a torrent file or an info dictionary.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MetainfoError {
    /// More bytes than `TORRENT_FILE_LEN_MAX`.
    #[error("this torrent has more than {TORRENT_FILE_LEN_MAX} bytes, which no honest one needs")]
    TooLong,
    /// No bencode at all.
    #[error("this is no torrent, or a damaged one; fetch it again")]
    Bencode(#[from] BencodeError),
    /// The outermost value is something else.
    #[error("this is no torrent: its outermost value is no dictionary")]
    NotADictionary,
    /// There is no info dictionary.
    #[error("this is no torrent: it has no info dictionary")]
    InfoMissing,
    /// A v2 torrent (BEP 52) without a v1 part.
    #[error("v2 torrent not supported: it has no v1 part; ask its maker for a v1 or hybrid torrent")]
    V2Only,
    /// The name is missing or no string.
    #[error("the torrent has no name")]
    NameMissing,
    /// The piece length is missing or no integer.
    #[error("the torrent does not say how long its pieces are")]
    PieceLengthMissing,
    /// The piece length is out of range.
    #[error(
        "a piece length of {0} is not supported: pieces may have {PIECE_LEN_MIN} to {PIECE_LEN_MAX} bytes"
    )]
    PieceLength(i64),
    /// The piece hashes are missing or no string.
    #[error("the torrent has no piece hashes")]
    PieceHashesMissing,
    /// The string of hashes is not a multiple of 20 bytes.
    #[error("the torrent has {} of piece hashes, which is no multiple of 20", Counted(*.0, "byte"))]
    PieceHashesRagged(usize),
    /// The number of hashes and the total length contradict each other.
    #[error("the torrent has {} where its content has {}", Counted(*.hashes, "piece hash"), Counted(*.pieces, "piece"))]
    PieceCount {
        /// Hashes in the torrent.
        hashes: u64,
        /// Pieces by lengths.
        pieces: u64,
    },
    /// More pieces than `PIECES_MAX`.
    #[error("the torrent has {0} pieces; more than {PIECES_MAX} are not supported")]
    TooManyPieces(u64),
    /// Both `length` and `files`, or neither.
    #[error("the torrent has to be either one file or a list of files")]
    FilesMissing,
    /// The list of files is empty.
    #[error("the torrent's list of files is empty")]
    NoFiles,
    /// The files have no bytes.
    #[error("the torrent's files have no content at all")]
    NoContent,
    /// An entry of the list of files is no dictionary.
    #[error("file {0} of the torrent is no dictionary")]
    FileMalformed(usize),
    /// A file's length is missing, no integer or negative.
    #[error("file {0} of the torrent has no length, or a negative one")]
    FileLength(usize),
    /// The lengths add up to more than 2^63 - 1.
    #[error("the lengths of the torrent's files add up to more than there is")]
    LengthOverflow,
    /// A file's path cannot be used.
    #[error("the path of file {number} of the torrent cannot be used")]
    FilePath {
        /// Which, from zero.
        number: usize,
        /// Why.
        source: PathError,
    },
    /// The info dictionary is not the one its magnet link names.
    #[error("the info dictionary has hash {found} where {wanted} was asked for")]
    WrongInfoHash {
        /// What the magnet link names.
        wanted: InfoHash,
        /// What came.
        found: InfoHash,
    },
}

/// Why components make no path below the save folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PathError {
    /// There is none, or something else than strings.
    #[error("it is missing or malformed")]
    Malformed,
    /// Nothing usable is left.
    #[error("it is empty")]
    Empty,
    /// More components than `PATH_DEPTH_MAX`.
    #[error("it is more than {PATH_DEPTH_MAX} folders deep")]
    TooDeep,
    /// More bytes than `PATH_LEN_MAX`.
    #[error("it is longer than {PATH_LEN_MAX} bytes")]
    TooLong,
}

/// What is wrong with a magnet link.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MagnetError {
    /// It does not begin with `magnet:?`.
    #[error("this is no magnet link: it does not begin with magnet:?")]
    NotAMagnet,
    /// More bytes than `MAGNET_LEN_MAX`.
    #[error("this magnet link has more than {MAGNET_LEN_MAX} bytes, which no honest one needs")]
    TooLong,
    /// No `xt=urn:btih:` in it.
    #[error("the magnet link names no torrent: it has no xt=urn:btih: part")]
    InfoHashMissing,
    /// Only `xt=urn:btmh:` in it.
    #[error("v2 torrent not supported: the magnet link has no v1 info-hash (urn:btih)")]
    V2Only,
    /// Neither 40 hexadecimal nor 32 base32 digits.
    #[error("{0:?} is no info-hash: it takes 40 hexadecimal or 32 base32 digits")]
    InfoHashMalformed(String),
    /// Two different torrents in one link.
    #[error("the magnet link names two torrents, {0} and {1}")]
    TwoInfoHashes(InfoHash, InfoHash),
}
