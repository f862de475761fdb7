//! aria2. It ends by itself once it has everything, since it is told not to seed, unless it shall seed what it has.

use super::{Client, Download, Paths};
use crate::isolation::address;
use crate::process::{Process, client_command};

pub const CLIENT: Client = Client { name: "aria2", address: address(4), creates_empty_files: true, start };

fn start(paths: &Paths) -> Download {
    let mut command = client_command("aria2c", &paths.home);
    command
        // aria2 speaks to UDP trackers only with its DHT on; it knows no node, and there is no way out.
        .args(["--no-conf", "--enable-dht=true", "--dht-listen-port=20000-29999"])
        .arg(format!("--dht-file-path={}", paths.home.join("dht.dat").display()))
        .args(["--enable-dht6=false", "--bt-enable-lpd=false"])
        .args(["--enable-peer-exchange=false", "--disable-ipv6=true", "--file-allocation=none"])
        .args(if paths.wishes.seeds {
            ["--seed-ratio=0.0", "--check-integrity=true"]
        } else {
            ["--seed-time=0", "--check-integrity=false"]
        })
        .args(["--summary-interval=1", "--console-log-level=notice", "--listen-port=20000-29999"])
        .arg(format!("--interface={}", CLIENT.address))
        .arg(format!("--dir={}", paths.saved.display()))
        .args(paths.wishes.encrypted.then_some("--bt-force-encryption=true"))
        .arg(&paths.source);
    let seeds = paths.wishes.seeds;
    Download {
        process: Process::start(&mut command, paths.log()),
        is_complete: Box::new(move |process| match process.ended() {
            None if seeds && process.printed().contains("SEED(") => Ok(()),
            Some(status) if seeds => panic!("aria2 ended ({status}):\n{}", process.last_words()),
            Some(status) if status.success() => Ok(()),
            Some(status) => panic!("aria2 gave up ({status}):\n{}", process.last_words()),
            None => Err("it still runs".to_owned()),
        }),
    }
}
