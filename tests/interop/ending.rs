//! How `seedring get` ends: by itself when it has given enough, in time when it is told to, and what the next start finds.

use crate::content::Content;
use crate::isolation::isolated;
use crate::leech::Leech;
use crate::scripted_tracker::{Answer, ScriptedTracker};
use crate::seeder::{EMBEDDED_TRACKER, Seeder, is, make_torrent};
use crate::waiting::wait_for;
use std::time::Duration;

/// Nobody listens there: peers are named by hand.
const NO_TRACKER: &str = "http://10.45.0.1:9/announce";
const LEN: usize = 4_000_037;

#[test]
fn it_ends_when_it_has_given_enough_or_stayed_long_enough() {
    isolated("ending::it_ends_when_it_has_given_enough_or_stayed_long_enough", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::single_file(&scratch.join("content"), LEN, "file");
        let (torrent, _) = make_torrent(&content.root, NO_TRACKER, scratch);
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let mut seeder = Seeder::start(&torrent, &["--data", &data, "--tracker", NO_TRACKER], scratch);
        let of_seed = seeder.peer_address();
        let until = ["--peer", &of_seed, "--seed-ratio", "0.4"];
        let mut giver = Leech::start(11, &torrent, &until, scratch);
        let mut stayer = Leech::start(12, &torrent, &["--peer", &of_seed, "--seed-time", "3s"], scratch);
        giver.wait_for_event("downloaded");
        stayer.wait_until_complete();
        assert_eq!(seeder.interrupt().code(), Some(0));

        let of_giver = giver.peer_address();
        let slowly = ["--peer", &of_giver, "--download-limit", "800KB/s"];
        let mut taker = Leech::start(13, &torrent, &slowly, scratch);
        giver.wait_until_complete();
        content.assert_same(&giver.saved, true, "a leech that gave on");
        content.assert_same(&stayer.saved, true, "a leech that stayed");
        let given = giver.served() as f64 / LEN as f64;
        assert!(given < 0.9, "it ended by itself, not because all was taken: {given}");
        // The figures of the last second may be missing; the next start's are whole.
        assert!(taker.left().is_some_and(|left| left < LEN as u64), "{}", taker.printed());
        let status = taker.interrupt();
        assert_eq!(status.code(), Some(1), "not everything is there: {}", taker.printed());
    });
}

#[test]
fn sigint_in_the_middle_ends_it_in_time_and_the_next_start_goes_on() {
    isolated("ending::sigint_in_the_middle_ends_it_in_time_and_the_next_start_goes_on", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::single_file(&scratch.join("content"), LEN, "file");
        let seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch);
        let slowly = ["--download-limit", "700KB/s"];
        let mut first = Leech::start(11, &seeder.torrent, &slowly, scratch);
        wait_for("a third to be there", Duration::from_secs(60), || match first.left() {
            Some(left) if left < LEN as u64 * 2 / 3 => Ok(()),
            left => Err(format!("{left:?} bytes are left")),
        });
        let status = first.interrupt();
        assert_eq!(status.code(), Some(1), "not everything is there: {}", first.printed());
        let printed = first.printed();
        assert!(printed.contains("to go; the same command goes on from here"), "{printed}");

        let tracker = ScriptedTracker::start(Answer::NoPeers);
        let told = ["--tracker", &tracker.url(), "--peer", &seeder.peer_address()];
        let mut second = Leech::start(11, &seeder.torrent, &told, scratch);
        second.wait_until_complete();
        assert_eq!(tracker.events(), ["started", "completed", "stopped"], "though it leaves at once");
        let started = second.wait_for_event("started");
        assert!(started["pieces"].as_u64() > Some(3), "what was there is there again: {started}");
        assert!(
            !second.events().iter().any(is("checking")),
            "nothing has to be checked: {}",
            second.printed()
        );
        content.assert_same(&second.saved, true, "a leech that was stopped");

        let mut third = Leech::start(11, &seeder.torrent, &[""; 0], scratch);
        third.wait_until_complete();
        assert!(!third.events().iter().any(is("checking")), "nothing has changed: {}", third.printed());
    });
}
