//! Transmission's daemon, asked through its RPC.

use super::{Client, Download, Paths};
use crate::http;
use crate::isolation::address;
use crate::process::{Process, client_command};
use std::fs;
use std::net::SocketAddr;

/// Its control port; the namespace holds one Transmission only.
const RPC_PORT: u16 = 9091;

pub const CLIENT: Client =
    Client { name: "transmission", address: address(3), creates_empty_files: false, start };

fn start(paths: &Paths) -> Download {
    let watched = paths.home.join("watched");
    fs::create_dir(&watched).expect("a scratch folder takes folders");
    let settings = serde_json::json!({
        "bind-address-ipv4": CLIENT.address.to_string(),
        "bind-address-ipv6": "::1",
        // 2: required, 1: preferred, as it is by default.
        "encryption": if paths.wishes.encrypted { 2 } else { 1 },
        "dht-enabled": false,
        "lpd-enabled": false,
        "pex-enabled": false,
        "utp-enabled": false,
        "port-forwarding-enabled": false,
        "peer-port-random-on-start": true,
        "download-dir": paths.saved,
        "incomplete-dir-enabled": false,
        "rename-partial-files": false,
        "rpc-enabled": true,
        "rpc-bind-address": CLIENT.address.to_string(),
        "rpc-port": RPC_PORT,
        "rpc-whitelist-enabled": false,
        "rpc-authentication-required": false,
        "rpc-host-whitelist-enabled": false,
    });
    fs::write(paths.home.join("settings.json"), settings.to_string()).expect("a scratch folder takes files");
    let mut command = client_command("transmission-daemon", &paths.home);
    command.args(["--foreground", "--log-error", "--config-dir"]).arg(&paths.home);
    let process = Process::start(&mut command, paths.log());
    let mut control = Control { session: String::new(), torrent: Some(paths.source.clone()) };
    Download { process, is_complete: Box::new(move |_| control.probe()) }
}

/// Its RPC: JSON over HTTP, with a session id that the first answer tells.
struct Control {
    session: String,
    /// The torrent, until Transmission has taken it.
    torrent: Option<String>,
}

impl Control {
    fn probe(&mut self) -> Result<(), String> {
        if let Some(torrent) = self.torrent.clone() {
            self.call("torrent-add", &serde_json::json!({ "filename": torrent }))?;
            self.torrent = None;
        }
        let fields = ["percentDone", "leftUntilDone", "errorString", "peersConnected", "trackerStats"];
        let answer = self.call("torrent-get", &serde_json::json!({ "fields": fields }))?;
        let torrent = &answer["torrents"][0];
        // While it checks what it has, nothing may be left although the fields are not yet filled in.
        let complete = torrent["leftUntilDone"] == 0 && torrent["percentDone"].as_f64() == Some(1.0);
        if complete { Ok(()) } else { Err(torrent.to_string()) }
    }

    /// One call; its arguments as the daemon answers them.
    fn call(&mut self, method: &str, arguments: &serde_json::Value) -> Result<serde_json::Value, String> {
        let body = serde_json::json!({ "method": method, "arguments": arguments }).to_string();
        let fields = format!("X-Transmission-Session-Id: {}\r\n", self.session);
        let address = SocketAddr::from((CLIENT.address, RPC_PORT));
        let answer = http::request(address, "POST /transmission/rpc", &fields, body.as_bytes())
            .map_err(|error| format!("its RPC does not answer: {error}"))?;
        if let Some(session) = answer.field("X-Transmission-Session-Id")
            && answer.status == 409
        {
            session.clone_into(&mut self.session);
            return Err("its RPC has told the session id".to_owned());
        }
        let mut json: serde_json::Value =
            serde_json::from_str(&answer.body).map_err(|error| error.to_string())?;
        if json["result"] == "success" { Ok(json["arguments"].take()) } else { Err(json.to_string()) }
    }
}
