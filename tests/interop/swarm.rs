//! Swarms in which `seedring get` gives as it takes: with other clients, and with others of its kind.

use crate::clients::{CLIENTS, Client, Running};
use crate::content::Content;
use crate::isolation::{address, isolated};
use crate::leech::Leech;
use crate::opentracker::{Opentracker, free_port};
use crate::seeder::{EMBEDDED_TRACKER, Seeder, make_torrent};

/// The participant of the first leech; the others follow.
const FIRST_LEECH: u8 = 11;

#[test]
fn in_a_mixed_swarm_everybody_completes() {
    isolated("swarm::in_a_mixed_swarm_everybody_completes", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::multi_file(&scratch.join("content"));
        let port = free_port();
        let url = format!("udp://{}:{port}/announce", address(1));
        let (torrent, info_hash) = make_torrent(&content.root, &url, scratch);
        let _tracker = Opentracker::start(port, &info_hash, scratch);
        let data = content.root.parent().expect("the content lies in a folder").display().to_string();
        let limited = ["--data", &data, "--tracker", &url, "--upload-limit", "2MB/s"];
        let _seeder = Seeder::start(&torrent, &limited, scratch);
        let mut leeches: Vec<Leech> = (FIRST_LEECH..FIRST_LEECH + 3)
            .map(|number| Leech::start(number, &torrent, &["--seed"], scratch))
            .collect();
        let clients =
            CLIENTS.iter().filter(|client| ["libtorrent", "transmission", "aria2"].contains(&client.name));
        let mut running: Vec<(&Client, Running)> =
            clients.map(|client| (client, client.start(&torrent, scratch))).collect();
        for leech in &mut leeches {
            leech.wait_for_event("downloaded");
            content.assert_same(&leech.saved, true, "seedring get");
        }
        for (client, running) in &mut running {
            running.wait_until_complete();
            content.assert_same(&running.saved, client.creates_empty_files, client.name);
        }
        for leech in &mut leeches {
            assert_eq!(leech.interrupt().code(), Some(0), "everything was there: {}", leech.printed());
        }
    });
}

#[test]
fn eight_leeches_of_a_slow_seed_give_most_to_each_other() {
    isolated("swarm::eight_leeches_of_a_slow_seed_give_most_to_each_other", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let scratch = scratch.path();
        let content = Content::single_file(&scratch.join("content"), 6_000_011, "single file.bin");
        let limited =
            [&EMBEDDED_TRACKER[..], &["--upload-limit", "1MB/s", "--piece-length", "64KiB"]].concat();
        let mut seeder = Seeder::start(&content.root, &limited, scratch);
        let mut leeches: Vec<Leech> = (FIRST_LEECH..FIRST_LEECH + 8)
            .map(|number| Leech::start(number, &seeder.torrent, &["--seed"], scratch))
            .collect();
        for leech in &mut leeches {
            leech.wait_for_event("downloaded");
            content.assert_same(&leech.saved, true, "seedring get");
        }
        for leech in &mut leeches {
            assert_eq!(leech.interrupt().code(), Some(0), "everything was there: {}", leech.printed());
        }
        assert_eq!(seeder.interrupt().code(), Some(0));
        let served: Vec<u64> = leeches.iter().map(Leech::served).collect();
        let (by_leeches, by_seed) = (served.iter().sum::<u64>(), seeder.served());
        let share = by_leeches as f64 / (by_leeches + by_seed) as f64;
        eprintln!("the leeches gave {:.1} % of all bytes: {served:?}, the seed {by_seed}", share * 100.0);
        assert!(share > 0.6, "the leeches gave {by_leeches} bytes, the seed {by_seed}");
    });
}
