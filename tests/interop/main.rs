//! `seedring seed` and `seedring get` against the unmodified clients that people use: libtorrent, Transmission, aria2,
//! rTorrent and qBittorrent, through the embedded tracker and through opentracker.
//!
//! tools/install-test-clients installs them; a test that misses one fails and says so. Each test runs in
//! network and process namespaces of its own (isolation.rs). Discovery beyond trackers is off everywhere.

mod clients;
mod content;
mod download;
mod ending;
mod http;
mod isolation;
mod lab;
mod leech;
mod liar;
mod life;
#[path = "../../tools/floors/src/nocopy/mod.rs"]
mod nocopy;
mod nocopy_device;
mod opentracker;
mod partial;
mod process;
mod scripted_peer;
mod scripted_tracker;
mod seeder;
mod standalone_tracker;
mod swarm;
mod waiting;

use clients::{CLIENTS, Client, Running};
use content::Content;
use isolation::{address, isolated};
use opentracker::{Opentracker, free_port};
use seeder::{EMBEDDED_TRACKER, Seeder, make_torrent};
use std::fs;
use std::path::Path;
use std::time::Duration;

/// Bytes of the single file: no whole number of blocks, some dozen pieces.
const SINGLE_FILE_LEN: usize = 4_000_037;

/// Longest time that one client may take over the file beyond 32 bits.
const LARGE_DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(30 * 60);

/// Every client downloads from one seeder at the same time.
fn all_clients_download(torrent: &Path, content: &Content, scratch: &Path) {
    let mut running: Vec<(&Client, Running)> =
        CLIENTS.iter().map(|client| (client, client.start(torrent, scratch))).collect();
    for (client, running) in &mut running {
        running.wait_until_complete();
        content.assert_same(&running.saved, client.creates_empty_files, client.name);
    }
}

#[test]
fn all_clients_at_once_download_a_folder_through_the_embedded_tracker() {
    isolated("all_clients_at_once_download_a_folder_through_the_embedded_tracker", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::multi_file(&scratch.path().join("content"));
        let seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        all_clients_download(&seeder.torrent, &content, scratch.path());
    });
}

#[test]
fn all_clients_at_once_download_with_nothing_but_the_magnet_link() {
    isolated("all_clients_at_once_download_with_nothing_but_the_magnet_link", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        // Some pieces of metadata: an info dictionary of more than 16 KiB.
        let content = Content::many_files(&scratch.path().join("content"), 600);
        let seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        let magnet = seeder.started["magnet"].as_str().expect("the first event has the magnet link");
        let start = |client: &'static Client| (client, client.start_on_magnet(magnet, scratch.path()));
        let mut running: Vec<(&Client, Running)> = CLIENTS.iter().map(start).collect();
        for (client, running) in &mut running {
            running.wait_until_complete();
            content.assert_same(&running.saved, client.creates_empty_files, client.name);
        }
    });
}

/// Clients that take no plaintext download from a seeder with this policy.
fn all_clients_download_encrypted(policy: &str) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let content = Content::multi_file(&scratch.path().join("content"));
    let seeder =
        Seeder::start(&content.root, &["--tracker-port", "0", "--encryption", policy], scratch.path());
    let start = |client: &'static Client| (client, client.start_encrypted(&seeder.torrent, scratch.path()));
    let mut running: Vec<(&Client, Running)> = CLIENTS.iter().map(start).collect();
    for (client, running) in &mut running {
        running.wait_until_complete();
        content.assert_same(&running.saved, client.creates_empty_files, client.name);
    }
}

#[test]
fn all_clients_that_require_encryption_download_from_a_seeder_that_allows_it() {
    isolated("all_clients_that_require_encryption_download_from_a_seeder_that_allows_it", || {
        all_clients_download_encrypted("allow");
    });
}

#[test]
fn all_clients_that_require_encryption_download_from_a_seeder_that_requires_it() {
    isolated("all_clients_that_require_encryption_download_from_a_seeder_that_requires_it", || {
        all_clients_download_encrypted("require");
    });
}

#[test]
fn each_client_alone_downloads_a_single_file() {
    isolated("each_client_alone_downloads_a_single_file", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content =
            Content::single_file(&scratch.path().join("content"), SINGLE_FILE_LEN, "single file.bin");
        let seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        for client in &CLIENTS {
            // Dropped at the end of its turn, so that the next one has nobody but the seeder.
            let mut running = client.start(&seeder.torrent, scratch.path());
            running.wait_until_complete();
            content.assert_same(&running.saved, true, client.name);
        }
    });
}

#[test]
fn each_client_alone_downloads_from_a_super_seed() {
    isolated("each_client_alone_downloads_from_a_super_seed", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content =
            Content::single_file(&scratch.path().join("content"), SINGLE_FILE_LEN, "single file.bin");
        for client in &CLIENTS {
            // A new one for each client: the first that has everything ends the mode.
            let arguments = [&EMBEDDED_TRACKER[..], &["--super-seed"]].concat();
            let seeder = Seeder::start(&content.root, &arguments, scratch.path());
            let mut running = client.start(&seeder.torrent, scratch.path());
            running.wait_until_complete();
            content.assert_same(&running.saved, true, client.name);
        }
    });
}

#[test]
fn all_clients_at_once_download_from_a_super_seed() {
    isolated("all_clients_at_once_download_from_a_super_seed", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content =
            Content::single_file(&scratch.path().join("content"), SINGLE_FILE_LEN, "single file.bin");
        let arguments = [&EMBEDDED_TRACKER[..], &["--super-seed"]].concat();
        let seeder = Seeder::start(&content.root, &arguments, scratch.path());
        all_clients_download(&seeder.torrent, &content, scratch.path());
    });
}

/// All clients download with `scheme://…/announce` of opentracker as the only tracker.
fn all_clients_download_through_opentracker(scheme: &str) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    let content = Content::single_file(&scratch.path().join("content"), SINGLE_FILE_LEN, "single file.bin");
    let port = free_port();
    let url = format!("{scheme}://{}:{port}/announce", address(1));
    let (torrent, info_hash) = make_torrent(&content.root, &url, scratch.path());
    let _tracker = Opentracker::start(port, &info_hash, scratch.path());
    let data = content.root.parent().expect("the content lies in a folder").display().to_string();
    let _seeder = Seeder::start(&torrent, &["--data", &data, "--tracker", &url], scratch.path());
    all_clients_download(&torrent, &content, scratch.path());
}

#[test]
fn all_clients_download_through_opentracker_over_http() {
    isolated("all_clients_download_through_opentracker_over_http", || {
        all_clients_download_through_opentracker("http");
    });
}

#[test]
fn all_clients_download_through_opentracker_over_udp() {
    isolated("all_clients_download_through_opentracker_over_udp", || {
        all_clients_download_through_opentracker("udp");
    });
}

#[test]
#[ignore = "5 GiB: run by tools/big-file"]
fn each_client_downloads_a_file_beyond_32_bits() {
    isolated("each_client_downloads_a_file_beyond_32_bits", || {
        let scratch = tempfile::tempdir().expect("a scratch folder");
        let content = Content::sparse_file(&scratch.path().join("content"), 5 << 30);
        let seeder = Seeder::start(&content.root, &EMBEDDED_TRACKER, scratch.path());
        for client in &CLIENTS {
            eprintln!("{} starts", client.name);
            let mut running = client.start(&seeder.torrent, scratch.path());
            running.wait_until_complete_within(LARGE_DOWNLOAD_TIMEOUT);
            content.assert_same(&running.saved, true, client.name);
            // The disk shall hold one copy at a time.
            fs::remove_dir_all(&running.saved).expect("a scratch folder can be emptied");
        }
    });
}
