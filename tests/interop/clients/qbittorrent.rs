//! qBittorrent without a window, asked through its web interface.

use super::{Client, Download, Paths};
use crate::http;
use crate::isolation::address;
use crate::process::{Process, client_command};
use std::fs;
use std::net::SocketAddr;

/// The port of its web interface; the namespace holds one qBittorrent only.
const WEB_PORT: u16 = 8099;

pub const CLIENT: Client =
    Client { name: "qbittorrent", address: address(6), creates_empty_files: true, start };

fn start(paths: &Paths) -> Download {
    let settings = paths.home.join("qBittorrent/config");
    fs::create_dir_all(&settings).expect("a scratch folder takes folders");
    // The whitelist of subnets lets this test in without a password.
    // 1: required, 0: allowed, as it is by default.
    let encryption = u8::from(paths.wishes.encrypted);
    let text = format!(
        "[LegalNotice]\nAccepted=true\n\
         [BitTorrent]\n\
         Session\\DHTEnabled=false\nSession\\LSDEnabled=false\nSession\\PeXEnabled=false\n\
         Session\\Encryption={encryption}\nSession\\BTProtocol=TCP\nSession\\Interface=lo\nSession\\InterfaceAddress={address}\n\
         Session\\MultiConnectionsPerIp=true\nSession\\DefaultSavePath={saved}\n\
         [Network]\nPortForwardingEnabled=false\n\
         [Preferences]\n\
         WebUI\\Address={address}\nWebUI\\AuthSubnetWhitelist={address}/32\n\
         WebUI\\AuthSubnetWhitelistEnabled=true\nWebUI\\HostHeaderValidation=false\nWebUI\\UseUPnP=false\n\
         Connection\\UPnP=false\nConnection\\ResolvePeerCountries=false\n",
        address = CLIENT.address,
        saved = paths.saved.display(),
    );
    fs::write(settings.join("qBittorrent.conf"), text).expect("a scratch folder takes files");
    let mut command = client_command("qbittorrent-nox", &paths.home);
    command
        .arg(format!("--profile={}", paths.home.display()))
        .arg(format!("--webui-port={WEB_PORT}"))
        .arg(format!("--save-path={}", paths.saved.display()))
        .args(["--add-paused=false", "--skip-dialog=true"])
        .arg(&paths.source);
    Download { process: Process::start(&mut command, paths.log()), is_complete: Box::new(|_| probe()) }
}

fn probe() -> Result<(), String> {
    let address = SocketAddr::from((CLIENT.address, WEB_PORT));
    let answer = http::request(address, "GET /api/v2/torrents/info", "", b"")
        .map_err(|error| format!("its web interface does not answer: {error}"))?;
    let json: serde_json::Value =
        serde_json::from_str(&answer.body).map_err(|error| format!("{error}: {}", answer.body))?;
    // "UP" in the state's name: it has everything and the check of it is over.
    let seeds = json[0]["state"]
        .as_str()
        .is_some_and(|state| state.ends_with("UP") && !state.starts_with("checking"));
    if seeds && json[0]["progress"].as_f64() == Some(1.0) { Ok(()) } else { Err(answer.body) }
}
