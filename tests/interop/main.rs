//! `seedring seed` against the unmodified clients that people use: libtorrent, Transmission, aria2, rTorrent
//! and qBittorrent, through the embedded tracker and through opentracker.
//!
//! tools/install-test-clients installs them; a test that misses one fails and says so. Each test runs in
//! network and process namespaces of its own (isolation.rs). Discovery beyond trackers is off everywhere.

mod clients;
mod content;
mod http;
mod isolation;
mod process;
mod seeder;
mod waiting;

use clients::{CLIENTS, Client, Running};
use content::Content;
use isolation::isolated;
use seeder::Seeder;
use std::path::Path;

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
        let seeder = Seeder::start(&content.root, &["--tracker-port", "0"], scratch.path());
        all_clients_download(&seeder.torrent, &content, scratch.path());
    });
}
