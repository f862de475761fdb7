//! Making torrent files (BEP 3, 12, 19, 27, 47): from names, lengths and hashes to canonical bytes.
//!
//! Whatever is built has been read back by [`Metainfo::parse`] with the same paths, so nobody gets a torrent
//! from here that this program itself would refuse or lay out differently.

use super::{FileAttributes, Info, Metainfo, MetainfoError};
use crate::bencode::{self, DictWriter};
use crate::limits::{NEW_TORRENT_FILE_LEN_MAX, NEW_TORRENT_PIECES_WANTED, PIECE_LEN_MAX};
use crate::secret_url::{TrackerUrl, WebSeedUrl};
use crate::units::BLOCK_LEN;

/// Bytes of a piece when the content is of ordinary size.
pub const PIECE_LENGTH_USUAL: u32 = 256 * 1024;
/// Bytes of a piece beyond which we rather have many pieces: a peer shares a piece only when it is whole.
const PIECE_LENGTH_WANTED_MAX: u32 = 16 * 1024 * 1024;
/// Pieces whose hashes fill half of the longest torrent file; the other half is for names.
const PIECES_FIT_MAX: u64 = NEW_TORRENT_FILE_LEN_MAX / 2 / 20;

/// What a new torrent says, hashes apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Builder {
    /// The file's name, or that of the folder of all files.
    pub name: String,
    /// The files in the order of their bytes.
    pub files: Vec<NewFile>,
    /// Bytes of a piece; see [`default_piece_length`].
    pub piece_length: u32,
    /// Trackers in tiers, best first.
    pub tiers: Vec<Vec<TrackerUrl>>,
    /// Web seeds.
    pub web_seeds: Vec<WebSeedUrl>,
    /// Peers from the trackers only (BEP 27).
    pub private: bool,
    /// A text for people.
    pub comment: Option<String>,
    /// A mark that gives the same content another info-hash.
    pub source: Option<String>,
    /// Seconds since 1970.
    pub creation_date: Option<u64>,
    /// The program's name.
    pub created_by: Option<String>,
}

/// A file of a new torrent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewFile {
    /// Components below the torrent's name; none when the torrent is this one file.
    pub path: Vec<String>,
    /// Bytes.
    pub len: u64,
    /// To be made executable.
    pub executable: bool,
    /// Zeros that only align the next file.
    pub padding: bool,
}

/// Why no torrent can be made. The fault is in what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// Not a power of two from 16 KiB to `PIECE_LEN_MAX`.
    #[error("a piece length of {0} bytes is not possible; choose a power of two from 16KiB to 256MiB")]
    PieceLength(u32),
    /// A name that clients would change.
    #[error("{path:?} has characters in its name that clients would change to {becomes:?}; rename it")]
    NameChanges {
        /// As given.
        path: String,
        /// As a torrent would have it.
        becomes: String,
    },
    /// More names and hashes than fit a torrent file.
    #[error(
        "the torrent file would have more than {NEW_TORRENT_FILE_LEN_MAX} bytes, which many clients refuse; choose longer pieces or share fewer files at once"
    )]
    TooLong,
    /// The torrent would be unusable.
    #[error("these files make no torrent that others could use")]
    Unusable(#[source] MetainfoError),
}

impl From<MetainfoError> for BuildError {
    fn from(error: MetainfoError) -> Self {
        if error == MetainfoError::TooLong { Self::TooLong } else { Self::Unusable(error) }
    }
}

/// The piece length for content of `total_len` bytes: 256 KiB, and for large content so much that the number
/// of pieces stays around 40,000 (from 640 GiB on more pieces, from 4 TiB on longer ones, so that the torrent file
/// stays as short as clients want it).
pub fn default_piece_length(total_len: u64) -> u32 {
    let mut len = PIECE_LENGTH_USUAL;
    let pieces = |len: u32| total_len.div_ceil(u64::from(len));
    while (pieces(len) > NEW_TORRENT_PIECES_WANTED && len < PIECE_LENGTH_WANTED_MAX)
        || (pieces(len) > PIECES_FIT_MAX && len < PIECE_LEN_MAX)
    {
        len *= 2;
    }
    len
}

/// Whether new torrents may have pieces of `piece_length` bytes.
///
/// # Errors
/// It is no power of two from 16 KiB to `PIECE_LEN_MAX`.
pub fn check_piece_length(piece_length: u32) -> Result<(), BuildError> {
    if piece_length.is_power_of_two() && (BLOCK_LEN..=PIECE_LEN_MAX).contains(&piece_length) {
        Ok(())
    } else {
        Err(BuildError::PieceLength(piece_length))
    }
}

impl Builder {
    /// The info dictionary with zeros as hashes: files, paths and offsets as the torrent will have them, to
    /// find the bytes that are to be hashed. Its info-hash means nothing.
    ///
    /// # Errors
    /// As [`Self::build`].
    pub fn draft(&self) -> Result<Info, BuildError> {
        check_piece_length(self.piece_length)?;
        // A sum that overflows has more pieces than fit, too.
        let total_len = self.files.iter().fold(0_u64, |sum, file| sum.saturating_add(file.len));
        let pieces = total_len.div_ceil(u64::from(self.piece_length));
        if pieces > NEW_TORRENT_FILE_LEN_MAX / 20 {
            return Err(BuildError::TooLong);
        }
        let info_bytes = self.info_bytes(&vec![[0; 20]; pieces as usize]);
        refuse_long(&info_bytes)?;
        let info = Info::parse(&info_bytes)?;
        self.refuse_changed_names(&info)?;
        Ok(info)
    }

    /// The torrent file's bytes and what they say when read back.
    ///
    /// # Errors
    /// The piece length is out of range, a name cannot be kept, or the torrent would not be usable: no
    /// content, a wrong number of hashes, two files with one path.
    pub fn build(&self, piece_hashes: &[[u8; 20]]) -> Result<(Vec<u8>, Metainfo), BuildError> {
        check_piece_length(self.piece_length)?;
        let info_bytes = self.info_bytes(piece_hashes);
        let bytes = bencode::dict(|torrent| {
            if let Some(announce) = self.tiers.iter().flatten().next() {
                torrent.bytes("announce", announce.reveal());
            }
            if self.tiers.iter().flatten().count() > 1 {
                torrent.list("announce-list", |tiers| {
                    for tier in self.tiers.iter().filter(|tier| !tier.is_empty()) {
                        tiers.list(|list| tier.iter().for_each(|address| list.bytes(address.reveal())));
                    }
                });
            }
            text(torrent, "comment", self.comment.as_deref());
            text(torrent, "created by", self.created_by.as_deref());
            if let Some(date) = self.creation_date.and_then(|date| i64::try_from(date).ok()) {
                torrent.int("creation date", date);
            }
            torrent.raw("info", &info_bytes);
            if !self.web_seeds.is_empty() {
                torrent
                    .list("url-list", |list| self.web_seeds.iter().for_each(|url| list.bytes(url.reveal())));
            }
        });
        refuse_long(&bytes)?;
        let metainfo = Metainfo::parse(&bytes)?;
        self.refuse_changed_names(metainfo.info())?;
        Ok((bytes, metainfo))
    }

    fn info_bytes(&self, piece_hashes: &[[u8; 20]]) -> Vec<u8> {
        bencode::dict(|info| {
            match self.files.as_slice() {
                [file] if file.path.is_empty() => file_keys(info, file),
                files => info.list("files", |list| {
                    for file in files {
                        list.dict(|entry| {
                            file_keys(entry, file);
                            entry.list("path", |path| file.path.iter().for_each(|part| path.bytes(part)));
                        });
                    }
                }),
            }
            info.bytes("name", &self.name);
            info.int("piece length", i64::from(self.piece_length));
            info.bytes("pieces", piece_hashes.as_flattened());
            if self.private {
                info.int("private", 1);
            }
            text(info, "source", self.source.as_deref());
        })
    }

    fn refuse_changed_names(&self, info: &Info) -> Result<(), BuildError> {
        for (file, entry) in self.files.iter().zip(info.files()) {
            let given = std::iter::once(&self.name).chain(&file.path).map(String::as_str);
            if !given.clone().eq(entry.path().components()) {
                let path = given.collect::<Vec<_>>().join("/");
                return Err(BuildError::NameChanges { path, becomes: entry.path().to_string() });
            }
        }
        Ok(())
    }
}

fn refuse_long(bytes: &[u8]) -> Result<(), BuildError> {
    if bytes.len() as u64 > NEW_TORRENT_FILE_LEN_MAX { Err(BuildError::TooLong) } else { Ok(()) }
}

fn file_keys(dict: &mut DictWriter<'_>, file: &NewFile) {
    let attributes =
        FileAttributes { padding: file.padding, executable: file.executable, ..FileAttributes::default() };
    let flags: String = [(attributes.padding, 'p'), (attributes.executable, 'x')]
        .into_iter()
        .filter_map(|(set, flag)| set.then_some(flag))
        .collect();
    text(dict, "attr", Some(&flags));
    // A length beyond i64 becomes one that the reader refuses.
    dict.int("length", i64::try_from(file.len).unwrap_or(-1));
}

fn text(dict: &mut DictWriter<'_>, key: &str, value: Option<&str>) {
    if let Some(value) = value.filter(|value| !value.is_empty()) {
        dict.bytes(key, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PIECES_MAX;
    use proptest::prelude::*;

    fn file(path: &[&str], len: u64) -> NewFile {
        NewFile { path: path.iter().map(|&part| part.to_owned()).collect(), len, ..NewFile::default() }
    }

    fn builder(files: Vec<NewFile>) -> Builder {
        Builder { name: "top".to_owned(), files, piece_length: 32 * 1024, ..Builder::default() }
    }

    #[test]
    fn pieces_grow_with_the_content() {
        let gib = 1 << 30;
        let cases = [
            (0, 256),
            (5 * gib, 256),
            (20 * gib, 512),
            (640 * gib, 16 * 1024),
            (4096 * gib, 16 * 1024),
            (8192 * gib, 32 * 1024),
        ];
        for (len, kib) in cases {
            assert_eq!(default_piece_length(len), kib * 1024, "{len}");
        }
        for shift in 10..48 {
            let len = default_piece_length(1 << shift);
            assert!(
                check_piece_length(len).is_ok() && (1_u64 << shift).div_ceil(len.into()) <= PIECES_MAX.into()
            );
        }
    }

    #[test]
    fn refuses_piece_lengths_that_are_no_power_of_two_in_range() {
        for piece_length in [0, 1, 8192, 48 * 1024, PIECE_LEN_MAX * 2] {
            let odd = Builder { piece_length, ..builder(vec![file(&[], 5)]) };
            assert_eq!(odd.draft(), Err(BuildError::PieceLength(piece_length)));
            assert_eq!(odd.build(&[[0; 20]]).unwrap_err(), BuildError::PieceLength(piece_length));
        }
    }

    #[test]
    fn refuses_names_that_would_change_and_files_nobody_can_use() {
        for files in
            [vec![file(&["a\nb"], 5)], vec![file(&["a"], 1), file(&["a"], 1)], vec![file(&[".."], 1)]]
        {
            assert!(matches!(builder(files).draft(), Err(BuildError::NameChanges { .. })));
        }
        let unusable = [vec![], vec![file(&["a"], 0)]];
        for files in unusable {
            assert!(matches!(builder(files).draft(), Err(BuildError::Unusable(_))));
        }
        assert!(matches!(builder(vec![file(&[], 5)]).build(&[]), Err(BuildError::Unusable(_))));
    }

    #[test]
    fn refuses_torrent_files_longer_than_clients_read() {
        let error = BuildError::TooLong;
        for files in [vec![file(&[], 1 << 40)], vec![file(&["a"], u64::MAX), file(&["b"], u64::MAX)]] {
            assert_eq!(builder(files).draft(), Err(error.clone()), "hashes");
        }
        let names = (0..60_000).map(|n| file(&[&format!("{n:0>200}")], 1)).collect();
        assert_eq!(builder(names).draft(), Err(error), "names");
    }

    #[test]
    fn says_everything_in_canonical_order() {
        let full = Builder {
            tiers: vec![vec!["http://a/".into()], vec!["http://b/".into()]],
            web_seeds: vec!["http://w/".into()],
            private: true,
            comment: Some("c".to_owned()),
            source: Some("s".to_owned()),
            creation_date: Some(7),
            created_by: Some("p".to_owned()),
            ..builder(vec![NewFile { executable: true, ..file(&[], 5) }])
        };
        let (bytes, metainfo) = full.build(&[*b"hhhhhhhhhhhhhhhhhhhh"]).unwrap();
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "d8:announce9:http://a/13:announce-listll9:http://a/el9:http://b/ee7:comment1:c10:created by1:p\
             13:creation datei7e4:infod4:attr1:x6:lengthi5e4:name3:top12:piece lengthi32768e\
             6:pieces20:hhhhhhhhhhhhhhhhhhhh7:privatei1e6:source1:se8:url-listl9:http://w/ee"
        );
        assert!(metainfo.info().single_file() && metainfo.info().files()[0].attributes().executable);
        assert_eq!(metainfo.tiers(), full.tiers);
    }

    proptest! {
        #[test]
        fn what_is_built_reads_back(
            lens in prop::collection::vec((0_u64..100_000, any::<bool>(), "[a-zé. ]{1,40}"), 1..20),
            shift in 14_u32..20, private: bool, comment in prop::option::of("\\PC{1,30}"))
        {
            let files: Vec<_> = lens
                .iter()
                .enumerate()
                .map(|(n, (len, executable, name))| NewFile {
                    path: vec![format!("{name}{n}"), format!("{n}.bin")],
                    len: *len,
                    executable: *executable,
                    padding: false,
                })
                .collect();
            let total: u64 = files.iter().map(|file| file.len).sum();
            prop_assume!(total > 0);
            let made = Builder { piece_length: 1 << shift, private, comment, ..builder(files) };
            let pieces = total.div_ceil(1 << shift);
            let hashes: Vec<[u8; 20]> = (0..pieces).map(|n| [n as u8; 20]).collect();
            let (bytes, metainfo) = made.build(&hashes).unwrap();
            let info = metainfo.info();
            let draft = made.draft().unwrap();
            prop_assert_eq!(info.files(), draft.files());
            prop_assert_eq!(u64::from(info.piece_count()), pieces);
            prop_assert_eq!((info.total_len(), info.private()), (total, private));
            prop_assert_eq!(metainfo.comment(), made.comment.as_deref());
            prop_assert_eq!(info.piece_hash(crate::units::PieceIndex(0)), Some(hashes[0]));
            let mut offset = 0;
            for (file, entry) in made.files.iter().zip(info.files()) {
                prop_assert_eq!((entry.offset(), entry.len()), (offset, file.len));
                prop_assert_eq!(entry.attributes().executable, file.executable);
                offset += file.len;
            }
            prop_assert_eq!(crate::id::InfoHash::of(metainfo.info_bytes()), metainfo.info_hash());
            let again = Metainfo::parse(&bytes).unwrap();
            prop_assert_eq!(again.info(), info);
        }
    }
}
