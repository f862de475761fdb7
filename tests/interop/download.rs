//! `seedring get` from the clients that people use: each of them is the only seed of a swarm of its own.

use crate::clients::{CLIENTS, Running};
use crate::content::{Content, PADDING};
use crate::isolation::isolated;
use crate::leech::Leech;
use crate::seeder::Seeder;
use crate::standalone_tracker::StandaloneTracker;
use std::fs;
use std::path::{Path, PathBuf};

/// The participant of the first leech; the others follow.
const FIRST_LEECH: u8 = 11;
/// The same of those who have nothing but a magnet link. Transmission 3 remembers who was a seed by the address alone,
/// and closes connections from there: no address may leech twice.
const FIRST_LEECH_BY_MAGNET: u8 = 21;

/// Panics unless a leech has ended well with the same bytes, empty files too, and without files that only pad.
fn assert_complete(leech: &mut Leech, content: &Content, from: &str) {
    leech.wait_until_complete();
    content.assert_same(&leech.saved, true, &format!("downloaded from {from}"));
    let name = content.root.file_name().expect("content has a name");
    assert!(!leech.saved.join(name).join(PADDING).exists(), "padding is not written: from {from}");
}

#[test]
fn it_downloads_from_each_client_alone_by_torrent_and_by_magnet_link() {
    isolated("download::it_downloads_from_each_client_alone_by_torrent_and_by_magnet_link", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::multi_file(&scratch.join("content"));
        let tracker = StandaloneTracker::start(scratch);
        let torrent_of = |who: &str| {
            let torrent = scratch.join(format!("{who}.torrent"));
            content.make_padded_torrent(&tracker.url, who, &torrent);
            torrent
        };
        let mut seeds: Vec<(&str, PathBuf, Running)> = Vec::new();
        for client in &CLIENTS {
            let torrent = torrent_of(client.name);
            let running = client.start_seeding(&torrent, &content, scratch);
            seeds.push((client.name, torrent, running));
        }
        let own = torrent_of("seedring");
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let _seeder = Seeder::start(&own, &["--data", &data, "--tracker", &tracker.url], scratch);
        for (_, _, running) in &mut seeds {
            running.wait_until_complete();
        }
        let mut swarms: Vec<(&str, &Path)> =
            seeds.iter().map(|(who, torrent, _)| (*who, &**torrent)).collect();
        swarms.push(("seedring", &own));

        let mut leeches: Vec<(&str, Leech)> = (FIRST_LEECH..)
            .zip(&swarms)
            .map(|(number, (who, torrent))| (*who, Leech::start(number, torrent, &[""; 0], scratch)))
            .collect();
        for (who, leech) in &mut leeches {
            assert_complete(leech, &content, who);
            eprintln!("downloaded from {who} by torrent");
        }
        // By then nobody has the info dictionary but the client.
        let mut leeches: Vec<(&str, Leech)> = (FIRST_LEECH_BY_MAGNET..)
            .zip(&swarms)
            .map(|(number, (who, torrent))| {
                let bytes = fs::read(torrent).expect("a torrent file of ours");
                let link = seedring::metainfo::Metainfo::parse(&bytes)
                    .expect("a good torrent")
                    .magnet()
                    .link(seedring::secret_url::Keys::Shown);
                (*who, Leech::start(number, link, &[""; 0], scratch))
            })
            .collect();
        for (who, leech) in &mut leeches {
            assert_complete(leech, &content, who);
            eprintln!("downloaded from {who} by magnet link");
        }
    });
}

#[test]
fn it_downloads_encrypted_and_gives_encrypted() {
    isolated("download::it_downloads_encrypted_and_gives_encrypted", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::multi_file(&scratch.join("content"));
        let tracker = StandaloneTracker::start(scratch);
        let clients =
            || CLIENTS.iter().filter(|client| ["libtorrent", "transmission"].contains(&client.name));
        let mut swarms = Vec::new();
        for client in clients() {
            let torrent = scratch.join(format!("{}.torrent", client.name));
            content.make_padded_torrent(&tracker.url, client.name, &torrent);
            let seed = client.start_seeding_encrypted(&torrent, &content, scratch);
            swarms.push((client, torrent, seed));
        }
        for (_, _, seed) in &mut swarms {
            seed.wait_until_complete();
        }
        let mut leeches: Vec<(&str, Leech)> = (FIRST_LEECH..)
            .zip(&swarms)
            .map(|(number, (client, torrent, _))| {
                (client.name, Leech::start(number, torrent, &["--encryption", "require", "--seed"], scratch))
            })
            .collect();
        for (who, leech) in &mut leeches {
            leech.wait_for_event("downloaded");
            content.assert_same(&leech.saved, true, &format!("downloaded encrypted from {who}"));
        }
        // The seeds go, and the same clients download from those who were leeches.
        let torrents: Vec<PathBuf> = swarms.into_iter().map(|(_, torrent, _)| torrent).collect();
        let back = scratch.join("back");
        let mut running: Vec<_> = clients()
            .zip(&torrents)
            .map(|(client, torrent)| (client, client.start_encrypted(torrent, &back)))
            .collect();
        for (client, running) in &mut running {
            running.wait_until_complete();
            content.assert_same(&running.saved, client.creates_empty_files, client.name);
        }
        for (_, leech) in &mut leeches {
            assert_eq!(leech.interrupt().code(), Some(0), "everything was there: {}", leech.printed());
        }
    });
}
