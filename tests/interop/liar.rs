//! A peer that sends wrong data among honest ones: nobody keeps what it sent, and nobody else is banned for it.

use crate::content::Content;
use crate::isolation::{address, isolated};
use crate::leech::Leech;
use crate::scripted_peer::Liar;
use crate::seeder::{EMBEDDED_TRACKER, Seeder, is};

/// The participant that lies.
const LIAR: u8 = 30;
/// The participant of the first leech; the others follow.
const FIRST_LEECH: u8 = 11;

#[test]
fn a_liar_alone_is_banned_and_everybody_completes() {
    isolated("liar::a_liar_alone_is_banned_and_everybody_completes", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::single_file(&scratch.join("content"), 4_000_037, "single file.bin");
        let limited =
            [&EMBEDDED_TRACKER[..], &["--upload-limit", "1MB/s", "--piece-length", "64KiB"]].concat();
        let seeder = Seeder::start(&content.root, &limited, scratch);
        let info_hash = seeder.started["info_hash"].as_str().expect("it tells the info-hash");
        let liar = Liar::start(LIAR, info_hash, 4_000_037_u32.div_ceil(64 * 1024));
        let peer = liar.address().to_string();
        let mut leeches: Vec<Leech> = (FIRST_LEECH..FIRST_LEECH + 3)
            .map(|number| Leech::start(number, &seeder.torrent, &["--seed", "--peer", &peer], scratch))
            .collect();
        for leech in &mut leeches {
            leech.wait_for_event("downloaded");
            content.assert_same(&leech.saved, true, "a leech that was lied to");
        }
        let mut bans = 0;
        for leech in &mut leeches {
            let banned: Vec<_> = leech.events().into_iter().filter(is("banned")).collect();
            for banned in &banned {
                assert_eq!(banned["address"], address(LIAR).to_string(), "only the liar lies");
            }
            assert!(banned.len() <= 1, "it is banned once: {banned:?}");
            bans += banned.len();
            assert_eq!(leech.interrupt().code(), Some(0), "everything was there: {}", leech.printed());
        }
        eprintln!("{} lies, {bans} bans", liar.lies());
        assert!(liar.lies() > 0 && bans > 0, "{} lies, {bans} bans", liar.lies());
    });
}
