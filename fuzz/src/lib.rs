//! What several fuzz targets share: streams cut at places that the input chooses, and the promises that a validated info
//! dictionary and a tracker's words have to keep.

use seedring::limits::{
    PATH_COMPONENT_LEN_MAX, PATH_DEPTH_MAX, PATH_LEN_MAX, PIECE_LEN_MAX, PIECE_LEN_MIN, PIECES_MAX,
    TRACKER_MESSAGE_LEN_MAX,
};
use seedring::metainfo::{Info, RelativePath};
use seedring::rng::Rng;
use seedring::storage::Layout;
use seedring::units::PieceIndex;
use std::path::Component;

/// A stream in parts, most of them short.
pub struct Parts<'a> {
    rest: &'a [u8],
    rng: Rng,
}

impl<'a> Parts<'a> {
    /// Cuts `stream` at places that follow from `seed`.
    pub fn of(stream: &'a [u8], seed: u8) -> Self {
        Self { rest: stream, rng: Rng::from_seed(seed.into()) }
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let most = if self.rng.below(4) == 0 { 200 } else { 9 };
        let (part, rest) = self.rest.split_at(self.rest.len().min(1 + self.rng.index(most)));
        self.rest = rest;
        Some(part)
    }
}

/// The promises of `metainfo`, and that storage agrees with them.
pub fn check_info(info: &Info) {
    let piece_length = info.piece_length();
    assert!((1..=PIECE_LEN_MAX).contains(&piece_length));
    assert!(piece_length >= PIECE_LEN_MIN || info.piece_count() == 1);
    assert!((1..=PIECES_MAX).contains(&info.piece_count()));
    assert_eq!(u64::from(info.piece_count()), info.total_len().div_ceil(piece_length.into()));
    assert!(info.piece_hash(PieceIndex(info.piece_count() - 1)).is_some());
    assert_eq!(info.piece_hash(PieceIndex(info.piece_count())), None);

    let mut offset = 0;
    for file in info.files() {
        assert_eq!(file.offset(), offset);
        offset += file.len();
        check_path(file.path());
        file.attributes().symlink.iter().for_each(check_path);
        for path in info.spellings(file) {
            assert!(path.components().count() > 0);
            assert!(path.components().all(|component| matches!(component, Component::Normal(_))), "{path:?}");
        }
        assert!(info.single_file() || file.path().as_str().starts_with(&format!("{}/", info.name())));
    }
    assert_eq!(offset, info.total_len());
    let mut paths: Vec<_> =
        info.files().iter().filter(|file| !file.attributes().padding).map(|file| file.path()).collect();
    paths.sort_unstable();
    assert!(paths.windows(2).all(|pair| pair[0] != pair[1] && !pair[0].is_folder_of(pair[1])));

    let layout = Layout::of(info).expect("what metainfo accepts has a layout");
    assert_eq!((layout.piece_count(), layout.total_len()), (info.piece_count(), info.total_len()));
    for piece in [0, info.piece_count() / 2, info.piece_count() - 1, info.piece_count()].map(PieceIndex) {
        assert_eq!(layout.piece_len(piece), info.piece_len(piece));
        let spanned: u64 = layout.spans(layout.piece_span(piece)).map(|span| u64::from(span.len)).sum();
        assert_eq!(spanned, u64::from(info.piece_len(piece)));
    }
}

fn check_path(path: &RelativePath) {
    assert!(path.as_str().len() <= PATH_LEN_MAX && !path.as_str().chars().any(char::is_control));
    assert!((1..=PATH_DEPTH_MAX).contains(&path.components().count()));
    for component in path.as_path().components() {
        let Component::Normal(name) = component else { panic!("{path} leaves its folder") };
        assert!(name.len() <= PATH_COMPONENT_LEN_MAX);
    }
    assert_eq!(path.as_path().components().count(), path.components().count());
}

/// A tracker's words, made safe to show: bounded, nothing that commands a terminal or a page.
pub fn check_message(message: &str) {
    assert!(message.len() <= 6 * TRACKER_MESSAGE_LEN_MAX + '…'.len_utf8());
    assert!(!message.chars().any(|c| c.is_control() || matches!(c, '<' | '>' | '&')));
}
