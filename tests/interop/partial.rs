//! A part of a torrent: what is selected, what must not be there, and what others hear of such a seed (BEP 21).

use crate::content::Content;
use crate::isolation::{address, isolated};
use crate::leech::Leech;
use crate::scripted_peer::Conversation;
use crate::scripted_tracker::{Answer, ScriptedTracker};
use crate::seeder::{Seeder, make_torrent};
use crate::waiting::wait_for;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time until a tracker hears of a change.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(30);

/// All files below a folder, sorted.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of ours can be read") {
            let path = entry.expect("an entry can be read").path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

#[test]
fn selected_files_come_alone_and_are_given_on() {
    isolated("partial::selected_files_come_alone_and_are_given_on", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::multi_file(&scratch.join("content"));
        let tracker = ScriptedTracker::start(Answer::NoPeers);
        let (torrent, info_hash) = make_torrent(&content.root, &tracker.url(), scratch);
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let mut seeder = Seeder::start(&torrent, &["--data", &data, "--tracker", &tracker.url()], scratch);
        // Files that share their first and last piece with others, in two folders.
        let only = ["--only", "Übermut/*", "--only", "many/01?", "--seed", "--peer"];
        let is_selected = |path: &Path| {
            let path = path.to_string_lossy();
            path.contains("/Übermut/") || path.contains("/many/01")
        };
        let wanted: Vec<PathBuf> =
            content.files().iter().map(|(path, _)| path.clone()).filter(|path| is_selected(path)).collect();

        let of_seed = seeder.peer_address();
        let mut first = Leech::start(11, &torrent, &[&only[..], &[&of_seed]].concat(), scratch);
        first.wait_for_event("downloaded");
        wait_for("the tracker to hear of a partial seed", ANNOUNCE_TIMEOUT, || {
            let events = tracker.events();
            if events.iter().any(|event| event == "paused") { Ok(()) } else { Err(format!("{events:?}")) }
        });
        assert!(!tracker.events().contains(&"completed".to_owned()), "it has not everything");
        assert_eq!(seeder.interrupt().code(), Some(0));

        // By now it is the only one that has anything.
        let of_first = first.peer_address();
        let piece_count = seeder.started["piece_count"].as_u64().and_then(|count| u32::try_from(count).ok());
        let piece_count = piece_count.expect("it tells the number of pieces");
        let told = Conversation::start(&of_first, &info_hash, piece_count, address(30));
        assert!(told.extensions.upload_only, "it wants nothing more and says so: {:?}", told.extensions);

        let mut second = Leech::start(12, &torrent, &[&only[..], &[&of_first]].concat(), scratch);
        second.wait_for_event("downloaded");
        wait_for("the first to tell that it has served", ANNOUNCE_TIMEOUT, || {
            if first.served() > 0 { Ok(()) } else { Err(first.printed()) }
        });
        for leech in [&mut first, &mut second] {
            let who = "a leech of some files";
            content.assert_same_files(&leech.saved, is_selected, who);
            let mut expected: Vec<PathBuf> = wanted.iter().map(|path| leech.saved.join(path)).collect();
            // The other ends of shared pieces, without which nobody could be given those pieces.
            expected.push(leech.saved.join(format!(".{info_hash}.parts")));
            expected.sort();
            assert_eq!(files_below(&leech.saved), expected, "no unselected file lies there");
            assert_eq!(leech.interrupt().code(), Some(0), "all that is wanted is there: {}", leech.printed());
        }
    });
}
