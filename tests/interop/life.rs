//! How `seedring seed` begins and ends: trackers are told, files are checked when they have to be.

use crate::clients::CLIENTS;
use crate::content::Content;
use crate::isolation::isolated;
use crate::scripted_tracker::{Answer, ScriptedTracker};
use crate::seeder::{EMBEDDED_TRACKER, Seeder};
use crate::waiting::wait_for;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::time::{Duration, SystemTime};

/// Longest time until the first announce: torrents announce themselves as soon as they serve.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(20);
const PIECE_LEN: usize = 256 * 1024;

#[test]
fn sigint_ends_it_in_time_and_the_tracker_is_told() {
    isolated("life::sigint_ends_it_in_time_and_the_tracker_is_told", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::single_file(&scratch.path().join("content"), PIECE_LEN, "file");
        let tracker = ScriptedTracker::start(Answer::NoPeers);
        let mut seeder = Seeder::start(&content.root, &["--tracker", &tracker.url()], scratch.path());
        wait_for("the first announce", ANNOUNCE_TIMEOUT, || {
            if tracker.events().is_empty() { Err("no announce".to_owned()) } else { Ok(()) }
        });
        let status = seeder.interrupt();
        assert_eq!(status.code(), Some(0), "the exit code after SIGINT");
        let events = tracker.events();
        assert_eq!(events.first().map(String::as_str), Some("started"), "{events:?}");
        assert_eq!(events.last().map(String::as_str), Some("stopped"), "{events:?}");
        assert!(!events.contains(&"completed".to_owned()), "it had everything from the start: {events:?}");
        assert!(tracker.values("left").iter().all(|left| left == "0"), "a seed has nothing left to download");
    });
}

#[test]
fn a_silent_tracker_does_not_delay_the_end() {
    isolated("life::a_silent_tracker_does_not_delay_the_end", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::single_file(&scratch.path().join("content"), PIECE_LEN, "file");
        let tracker = ScriptedTracker::start(Answer::Silence);
        let mut seeder = Seeder::start(&content.root, &["--tracker", &tracker.url()], scratch.path());
        wait_for("the first announce", ANNOUNCE_TIMEOUT, || {
            if tracker.events().is_empty() { Err("no announce".to_owned()) } else { Ok(()) }
        });
        assert_eq!(seeder.interrupt().code(), Some(0), "the exit code after SIGINT");
    });
}

#[test]
fn a_restart_serves_at_once_what_has_not_changed() {
    isolated("life::a_restart_serves_at_once_what_has_not_changed", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::multi_file(&scratch.path().join("content"));
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let arguments = ["--data", &data, "--tracker-port", "0"];

        let mut first = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        let torrent = first.torrent.clone();
        assert_eq!(first.interrupt().code(), Some(0));

        let mut second = Seeder::start(&torrent, &arguments, scratch.path());
        assert!(!second.has_checked(), "nothing has changed: {:?}", second.events());
        assert_eq!(second.interrupt().code(), Some(0));

        let changed = File::options().write(true).open(content.root.join("a/exactly one piece"));
        let an_hour_ago =
            SystemTime::UNIX_EPOCH + Duration::from_secs(seedring::clock::unix_seconds() - 3600);
        changed.and_then(|file| file.set_modified(an_hour_ago)).expect("a file of ours can be touched");
        let third = Seeder::start(&torrent, &arguments, scratch.path());
        assert!(third.has_checked(), "a file's time has changed: {:?}", third.events());
        assert_eq!(third.started["pieces"], third.started["piece_count"], "its bytes have not");
    });
}

#[test]
fn damaged_pieces_are_reported_and_not_served() {
    isolated("life::damaged_pieces_are_reported_and_not_served", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::single_file(&scratch.path().join("content"), 4 * PIECE_LEN, "file");
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let mut seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        let torrent = seeder.torrent.clone();
        // The torrent names the tracker's port, so the next run has to take the same one.
        let tracker = seeder.started["trackers"][0].as_str().and_then(|url| url.rsplit_once(':'));
        let port = tracker
            .and_then(|(_, rest)| rest.split('/').next())
            .expect("tracker addresses have ports")
            .to_owned();
        assert_eq!(seeder.interrupt().code(), Some(0));

        let original = fs::read(&content.root).expect("the content can be read");
        let file = File::options().write(true).open(&content.root).expect("the content can be written");
        let damaged = PIECE_LEN + 7;
        file.write_all_at(&[!original[damaged]], damaged as u64).expect("the content can be written");

        let seeder = Seeder::start(&torrent, &["--data", &data, "--tracker-port", &port], scratch.path());
        assert_eq!(seeder.started["pieces"], 3, "{}", seeder.started);
        let problems = seeder.started["problems"].as_array().expect("problems are a list");
        assert!(!problems.is_empty(), "the user is told: {}", seeder.started);

        // libtorrent, the first client, prints its progress as a fraction.
        let client = CLIENTS[0].start(&torrent, scratch.path());
        wait_for("libtorrent to have the three good pieces", Duration::from_secs(100), || {
            let printed = client.printed();
            printed.contains("\"progress\": 0.75").then_some(()).ok_or(printed)
        });
        let copy = fs::read(client.saved.join("file")).expect("libtorrent writes what it has");
        assert!(original[..PIECE_LEN] == copy[..PIECE_LEN], "the first piece is right");
        assert!(!client.printed().contains("failed hash check"), "no bad piece was sent");
    });
}
