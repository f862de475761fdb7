//! Magnet links: bounded, and the same link when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::{
    MAGNET_LEN_MAX, MAGNET_PEERS_MAX, TRACKERS_PER_TORRENT_MAX, WEB_SEEDS_PER_TORRENT_MAX,
};
use seedring::metainfo::Magnet;
use seedring::secret_url::Keys;

fuzz_target!(|data: &[u8]| {
    let Ok(magnet) = Magnet::parse(data) else { return };
    assert!(magnet.trackers.len() <= TRACKERS_PER_TORRENT_MAX);
    assert!(magnet.web_seeds.len() <= WEB_SEEDS_PER_TORRENT_MAX);
    assert!(magnet.peers.len() <= MAGNET_PEERS_MAX);

    let without_keys = Magnet::parse(magnet.link(Keys::Hidden)).expect("shorter, and still a link");
    assert!(!without_keys.holds_key());

    let link = magnet.link(Keys::Shown);
    assert!(link.bytes().all(|byte| byte.is_ascii_graphic()));
    if link.len() <= MAGNET_LEN_MAX {
        // A v2 info-hash is noted, not kept.
        let expected = Magnet { hybrid: false, ..magnet };
        assert_eq!(link.parse::<Magnet>(), Ok(expected));
    }
});
