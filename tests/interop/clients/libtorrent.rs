//! libtorrent (libtorrent-rasterbar), through its Python binding and libtorrent_client.py.

use super::{Client, Download, Paths};
use crate::isolation::address;
use crate::process::{Process, client_command};
use std::path::Path;

pub const CLIENT: Client =
    Client { name: "libtorrent", address: address(2), creates_empty_files: true, start };

fn start(paths: &Paths) -> Download {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = client_command(root.join("target/test-clients/venv/bin/python"), &paths.home);
    command
        .arg(root.join("tests/interop/libtorrent_client.py"))
        .arg(&paths.source)
        .arg(&paths.saved)
        .arg(CLIENT.address.to_string())
        // What it seeds it gives with RC4 only; what it takes may be plaintext behind an encrypted handshake.
        .args(paths.wishes.encrypted.then_some(if paths.wishes.seeds { "rc4" } else { "encrypted" }));
    Download {
        process: Process::start(&mut command, paths.log()),
        is_complete: Box::new(|process| {
            if let Some(status) = process.ended() {
                panic!("libtorrent ended ({status}):\n{}", process.last_words());
            }
            let complete = process.printed().lines().any(|line| line.contains("\"complete\": true"));
            complete.then_some(()).ok_or_else(|| "incomplete".to_owned())
        }),
    }
}
