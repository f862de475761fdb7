//! Whole torrent files: what is accepted keeps every promise of its module, and its magnet link leads back to it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::id::InfoHash;
use seedring::limits::{MAGNET_LEN_MAX, TRACKERS_PER_TORRENT_MAX, URL_LEN_MAX, WEB_SEEDS_PER_TORRENT_MAX};
use seedring::metainfo::{Info, Magnet, Metainfo};
use seedring::secret_url::Keys;
use seedring::units::PieceIndex;

fuzz_target!(|data: &[u8]| {
    let Ok(metainfo) = Metainfo::parse(data) else { return };
    seedring_fuzz::check_info(metainfo.info());
    assert_eq!(metainfo.info_hash(), InfoHash::of(metainfo.info_bytes()));
    let alone = Info::parse(metainfo.info_bytes()).expect("it was accepted inside the torrent file");
    assert_same(&alone, metainfo.info());

    let trackers = metainfo.tiers().concat();
    assert!(
        trackers.len() <= TRACKERS_PER_TORRENT_MAX && metainfo.url_list().len() <= WEB_SEEDS_PER_TORRENT_MAX
    );
    let web_seeds = metainfo.url_list().iter().map(|url| url.reveal());
    for address in trackers.iter().map(|url| url.reveal()).chain(web_seeds) {
        assert!(
            address.len() <= URL_LEN_MAX && !address.chars().any(|c| c.is_control() || c.is_whitespace())
        );
    }

    let magnet = metainfo.magnet();
    let link = magnet.link(Keys::Shown);
    if link.len() <= MAGNET_LEN_MAX {
        assert_eq!(Magnet::parse(&link), Ok(magnet.clone()));
    }
    let again = Metainfo::from_magnet(&magnet, metainfo.info_bytes()).expect("its own link names it");
    assert_eq!(again.info(), &alone);
});

/// The encoding that the file around the dictionary names helps to find files of other clients, and changes nothing else.
fn assert_same(alone: &Info, inside: &Info) {
    assert_eq!((alone.name(), alone.shape()), (inside.name(), inside.shape()));
    assert_eq!(alone.files(), inside.files());
    assert_eq!((alone.private(), alone.single_file()), (inside.private(), inside.single_file()));
    for piece in (0..alone.piece_count()).map(PieceIndex) {
        assert_eq!(alone.piece_hash(piece), inside.piece_hash(piece));
    }
    for file in alone.files() {
        let found = inside.spellings(file);
        assert!(alone.spellings(file).iter().all(|spelling| found.contains(spelling)));
    }
}
