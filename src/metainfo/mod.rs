//! Torrent files: from a stranger's bytes to values the rest of the house may trust.
//!
//! [`Metainfo::parse`] is the one way in for a whole torrent file, [`Info::parse`] the one way in for an info
//! dictionary, whichever way it came (torrent file, peers, magnet link). What they return keeps these
//! promises: every path stays below the save folder and no two files share one; offsets and lengths add up to
//! `total_len`; there is exactly one hash for each piece.
//!
//! Sources: BEP 3, 12 (tiers), 19 (web seeds), 27 (private), 47 (padding, attributes, symbolic links),
//! 9 (magnet links). Deliberately absent: BEP 52 (v2); hybrid torrents are read as what they are in v1.

mod error;
mod info;
mod path;

pub use error::MetainfoError;
pub use info::{FileAttributes, FileEntry, Info};
pub use path::RelativePath;

use crate::id::InfoHash;

/// A torrent file's content.
#[derive(Clone, Debug)]
pub struct Metainfo {
    info: Info,
    info_hash: InfoHash,
    info_bytes: Box<[u8]>,
    tiers: Vec<Vec<String>>,
    url_list: Vec<String>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<u64>,
}

impl Metainfo {
    /// Reads a whole torrent file.
    ///
    /// # Errors
    /// Whatever makes the torrent unusable; the message says what. Odd data that does no harm (trackers that
    /// are no URL, a negative date) is left out instead.
    pub fn parse(_bytes: &[u8]) -> Result<Self, MetainfoError> {
        Err(MetainfoError::NotADictionary)
    }

    /// The info dictionary.
    pub fn info(&self) -> &Info {
        &self.info
    }

    /// The torrent's name among peers and trackers.
    pub fn info_hash(&self) -> InfoHash {
        self.info_hash
    }

    /// The raw bytes that `info_hash` is the hash of, as ut_metadata (BEP 9) hands them out.
    pub fn info_bytes(&self) -> &[u8] {
        &self.info_bytes
    }

    /// Tracker addresses in tiers (BEP 12), best tier first; `announce` alone makes one tier of one.
    pub fn tiers(&self) -> &[Vec<String>] {
        &self.tiers
    }

    /// Addresses of web seeds (BEP 19).
    pub fn url_list(&self) -> &[String] {
        &self.url_list
    }

    /// Free text of whoever made the torrent. Escape before showing.
    pub fn comment(&self) -> Option<&str> {
        self.comment.as_deref()
    }

    /// The program that made the torrent. Escape before showing.
    pub fn created_by(&self) -> Option<&str> {
        self.created_by.as_deref()
    }

    /// When the torrent was made, in seconds since 1970.
    pub fn creation_date(&self) -> Option<u64> {
        self.creation_date
    }
}
