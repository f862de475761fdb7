//! Torrent files: from a stranger's bytes to values the rest of the house may trust.
//!
//! [`Metainfo::parse`] is the one way in for a whole torrent file, [`Info::parse`] the one way in for an info
//! dictionary, whichever way it came (torrent file, peers, magnet link). What they return keeps these
//! promises: every path stays below the save folder and no two files share one; offsets and lengths add up to
//! `total_len`; there is exactly one hash for each piece.
//!
//! Sources: BEP 3, 12 (tiers), 19 (web seeds), 27 (private), 47 (padding, attributes, symbolic links),
//! 9 and 53 (magnet links). Deliberately absent: BEP 52 (v2); hybrid torrents are read as what they are in v1.

mod address;
pub mod builder;
mod error;
mod info;
mod links;
mod magnet;
mod path;
mod selection;
mod spelling;
mod unique;

pub use error::{MagnetError, MetainfoError, PathError};
pub use info::{FileAttributes, FileEntry, Info};
pub use magnet::Magnet;
pub use path::RelativePath;
pub use selection::FileSelection;

use crate::bencode::{self, Value};
use crate::id::InfoHash;
use crate::limits::{TORRENT_FILE_LEN_MAX, TRACKERS_PER_TORRENT_MAX, WEB_SEEDS_PER_TORRENT_MAX};
use crate::secret_url::{TrackerUrl, WebSeedUrl};

/// A torrent file's content.
#[derive(Clone, Debug)]
pub struct Metainfo {
    info: Info,
    info_hash: InfoHash,
    info_bytes: Box<[u8]>,
    tiers: Vec<Vec<TrackerUrl>>,
    url_list: Vec<WebSeedUrl>,
    comment: Option<String>,
    created_by: Option<String>,
    creation_date: Option<u64>,
    trailing_len: usize,
}

impl Metainfo {
    /// Reads a whole torrent file.
    ///
    /// # Errors
    /// Whatever makes the torrent unusable; the message says what. Odd data that does no harm (trackers that
    /// are no URL, a negative date, bytes behind the end) is left out instead.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetainfoError> {
        if bytes.len() as u64 > TORRENT_FILE_LEN_MAX {
            return Err(MetainfoError::TooLong);
        }
        let (document, trailing) = bencode::parse_prefix(bytes)?;
        let root = document.root();
        if root.kind() != bencode::Kind::Dict {
            return Err(MetainfoError::NotADictionary);
        }
        let info = root.lookup(b"info").ok_or(MetainfoError::InfoMissing)?;
        Ok(Self {
            info: Info::from_value(info, root.lookup(b"encoding").and_then(Value::as_bytes))?,
            info_hash: InfoHash::of(info.raw()),
            info_bytes: info.raw().into(),
            tiers: tiers(root),
            url_list: url_list(root),
            comment: text(root, b"comment.utf-8").or_else(|| text(root, b"comment")),
            created_by: text(root, b"created by"),
            creation_date: root.lookup(b"creation date").and_then(Value::as_uint),
            trailing_len: trailing.len(),
        })
    }

    /// The torrent that a magnet link names, from the info dictionary that peers sent for it (BEP 9).
    ///
    /// # Errors
    /// The bytes are not those the link names, or make no usable torrent.
    pub fn from_magnet(magnet: &Magnet, info_bytes: &[u8]) -> Result<Self, MetainfoError> {
        let found = InfoHash::of(info_bytes);
        if found != magnet.info_hash {
            return Err(MetainfoError::WrongInfoHash { wanted: magnet.info_hash, found });
        }
        Ok(Self {
            info: Info::parse(info_bytes)?,
            info_hash: found,
            info_bytes: info_bytes.into(),
            tiers: magnet.trackers.iter().map(|tracker| vec![tracker.clone()]).collect(),
            url_list: magnet.web_seeds.clone(),
            comment: None,
            created_by: None,
            creation_date: None,
            trailing_len: 0,
        })
    }

    /// The magnet link that leads to this torrent.
    pub fn magnet(&self) -> Magnet {
        Magnet {
            info_hash: self.info_hash,
            name: Some(self.info.name().to_owned()),
            trackers: self.tiers.concat(),
            web_seeds: self.url_list.clone(),
            total_len: Some(self.info.total_len()),
            peers: Vec::new(),
            selected: None,
            hybrid: false,
        }
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
    pub fn tiers(&self) -> &[Vec<TrackerUrl>] {
        &self.tiers
    }

    /// Addresses of web seeds (BEP 19).
    pub fn url_list(&self) -> &[WebSeedUrl] {
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

    /// Bytes behind the torrent's end in its file. They are ignored: tools and transfers leave line ends and worse there,
    /// and the info-hash is over the info dictionary alone.
    pub fn trailing_len(&self) -> usize {
        self.trailing_len
    }

    /// When the torrent was made, in seconds since 1970.
    pub fn creation_date(&self) -> Option<u64> {
        self.creation_date
    }
}

/// `announce-list` when it has a usable address, else `announce` (BEP 12).
fn tiers(root: Value<'_, '_>) -> Vec<Vec<TrackerUrl>> {
    let mut seen: Vec<&str> = Vec::new();
    let mut tiers = Vec::new();
    for value in root.lookup(b"announce-list").and_then(Value::as_list).into_iter().flatten() {
        // Some programs write one flat list.
        let alone = value.as_bytes().is_some().then_some(value);
        let mut tier = Vec::new();
        let addresses = value.as_list().into_iter().flatten().chain(alone);
        for address in addresses.filter_map(Value::as_bytes).filter_map(address::usable) {
            if seen.len() < TRACKERS_PER_TORRENT_MAX && !seen.contains(&address) {
                seen.push(address);
                tier.push(address.into());
            }
        }
        if !tier.is_empty() {
            tiers.push(tier);
        }
    }
    if tiers.is_empty() {
        let announce = root.lookup(b"announce").and_then(Value::as_bytes).and_then(address::usable);
        tiers.extend(announce.map(|address| vec![address.into()]));
    }
    tiers
}

/// One address or a list of them (BEP 19).
fn url_list(root: Value<'_, '_>) -> Vec<WebSeedUrl> {
    let Some(value) = root.lookup(b"url-list") else { return Vec::new() };
    let mut urls: Vec<WebSeedUrl> = Vec::new();
    let list = value.as_list().into_iter().flatten();
    for url in list.chain([value]).filter_map(Value::as_bytes).filter_map(address::usable) {
        if urls.len() < WEB_SEEDS_PER_TORRENT_MAX && urls.iter().all(|known| known.reveal() != url) {
            urls.push(url.into());
        }
    }
    urls
}

/// A text that is for people only; unreadable bytes are replaced, an empty text is none.
fn text(dict: Value<'_, '_>, key: &[u8]) -> Option<String> {
    let bytes = dict.lookup(key)?.as_bytes()?;
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes).into_owned())
}

#[cfg(test)]
mod tests;
