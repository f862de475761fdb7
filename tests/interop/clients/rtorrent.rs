//! rTorrent in daemon mode. An event of its own tells that it has everything: it creates a file.
//! When it has everything from the start, the event is the end of its check.

use super::{Client, Download, Paths};
use crate::isolation::address;
use crate::process::{Process, client_command};
use std::fs;

pub const CLIENT: Client = Client { name: "rtorrent", address: address(5), creates_empty_files: true, start };

fn start(paths: &Paths) -> Download {
    let session = paths.home.join("session");
    fs::create_dir(&session).expect("a scratch folder takes folders");
    let finished = paths.home.join("finished");
    let settings = paths.home.join("rtorrent.rc");
    let encryption =
        if paths.wishes.encrypted { "allow_incoming,try_outgoing,require,require_RC4" } else { "none" };
    let text = format!(
        "system.daemon.set = true\n\
         session.path.set = {session}\n\
         directory.default.set = {saved}\n\
         network.bind_address.set = {address}\n\
         network.local_address.set = {address}\n\
         network.port_range.set = 30000-39999\n\
         network.port_random.set = yes\n\
         dht.mode.set = disable\n\
         protocol.pex.set = no\n\
         protocol.encryption.set = {encryption}\n\
         trackers.use_udp.set = yes\n\
         pieces.hash.on_completion.set = yes\n\
         method.set_key = event.download.{event}, tell, \"execute2 = touch, {finished}\"\n\
         log.open_file = \"log\", {log}\n\
         log.add_output = \"info\", \"log\"\n\
         log.add_output = \"connection_debug\", \"log\"\n\
         log.add_output = \"torrent_debug\", \"log\"\n\
         log.add_output = \"tracker_debug\", \"log\"\n\
         schedule2 = load, 0, 0, \"load.start = {torrent}\"\n",
        session = session.display(),
        event = if paths.wishes.seeds { "hash_done" } else { "finished" },
        address = CLIENT.address,
        saved = paths.saved.display(),
        finished = finished.display(),
        log = paths.log().display(),
        torrent = paths.source,
    );
    fs::write(&settings, text).expect("a scratch folder takes files");
    let mut command = client_command("rtorrent", &paths.home);
    command.arg("-n").arg("-o").arg(format!("import={}", settings.display()));
    Download {
        process: Process::start(&mut command, paths.log()),
        is_complete: Box::new(move |process| {
            if let Some(status) = process.ended() {
                panic!("rtorrent ended ({status}):\n{}", process.last_words());
            }
            finished.exists().then_some(()).ok_or_else(|| "incomplete".to_owned())
        }),
    }
}
