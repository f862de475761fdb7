//! How each program is told to take part: folders, address, limits, and what its lines mean.
//!
//! Discovery beyond the tracker is off in all of them (DHT, local discovery, peer exchange between rivals, port
//! mapping), and each listens on and connects from its own address. Peers stay when they have everything.

use super::RealError;
use super::control::Control;
use super::ground::CONTENT_NAME;
use super::participant::Word;
use crate::units::ByteRate;
use serde_json::{Value, json};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The port of Transmission's RPC at its address.
const RPC_PORT: u16 = 9091;
const LIBTORRENT_PEER: &str = include_str!("libtorrent_peer.py");

/// A program that takes part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// This one.
    #[default]
    Seedring,
    /// libtorrent (libtorrent-rasterbar), through its Python package.
    Libtorrent,
    /// Transmission's daemon.
    Transmission,
    /// aria2.
    Aria2,
}

/// Where one participant works, and within which limits.
#[derive(Clone, Debug)]
pub struct Place {
    /// Settings and logs.
    pub home: PathBuf,
    /// Where its copy goes.
    pub saved: PathBuf,
    pub address: Ipv4Addr,
    pub up: ByteRate,
    pub down: Option<ByteRate>,
}

impl Client {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Seedring => "seedring",
            Self::Libtorrent => "libtorrent",
            Self::Transmission => "transmission",
            Self::Aria2 => "aria2",
        }
    }

    /// Whether it is there.
    ///
    /// # Errors
    /// When it is not: what is missing and what to do.
    pub fn probe(self) -> Result<(), RealError> {
        let (program, arguments, why): (_, &[&str], _) = match self {
            Self::Seedring => return Ok(()),
            Self::Libtorrent => (
                "python3",
                &["-c", "import libtorrent"],
                "python3 cannot import it; `python3 -m pip install libtorrent` gets the package",
            ),
            Self::Transmission => (
                "transmission-daemon",
                &["--version"],
                "transmission-daemon does not run; install the package transmission-daemon",
            ),
            Self::Aria2 => ("aria2c", &["--version"], "aria2c does not run; install the package aria2"),
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            _ => Err(RealError::Missing { client: self.name(), why: why.to_owned() }),
        }
    }

    /// Whether it connects to loopback addresses.
    pub fn knows_loopback(self) -> bool {
        self != Self::Transmission
    }

    /// Whether it leaves files outside of its folders behind unless it ends by itself: Transmission names its session in
    /// the system's folder for temporary files.
    pub(super) fn clears_up(self) -> bool {
        self == Self::Transmission
    }

    /// The command of a leech, and what its lines mean.
    pub(super) fn leech(
        self,
        program: &Path,
        torrent: &Path,
        place: &Place,
    ) -> Result<(Command, Reader), RealError> {
        let leech: (Command, Reader) = match self {
            Self::Seedring => (seedring_leech(program, torrent, place), figures),
            Self::Libtorrent => (libtorrent(torrent, place), libtorrent_line),
            Self::Transmission => (transmission(place)?, |_| None),
            Self::Aria2 => (aria2(torrent, place), aria2_line),
        };
        Ok(leech)
    }

    /// What has to be asked, of a program that does not speak by itself.
    pub(super) fn control(self, torrent: &Path, place: &Place) -> Option<Control> {
        let address = SocketAddr::new(place.address.into(), RPC_PORT);
        (self == Self::Transmission).then(|| Control::new(address, torrent.to_owned()))
    }
}

/// What a line means.
pub(super) type Reader = fn(&str) -> Option<Word>;

/// Settings that would send what belongs to a run elsewhere.
const PROXIES: [&str; 6] =
    ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"];

/// A program in a home folder of its own, without anybody's settings.
fn at_home(program: impl AsRef<std::ffi::OsStr>, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.current_dir(home).env("LC_ALL", "C.UTF-8").env("HOME", home);
    let folders = ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"];
    for name in folders.iter().chain(&PROXIES) {
        command.env_remove(name);
    }
    command
}

/// The seed: it makes the torrent, and is its tracker. The torrent lies at `torrent` once it is ready.
pub(super) fn seedring_seed(program: &Path, content: &Path, torrent: &Path, place: &Place) -> Command {
    let mut command = seedring(program, place);
    command.arg("seed").arg(content).arg("--torrent").arg(torrent).args(["--tracker-port", "0"]);
    seedring_options(&mut command, place);
    command
}

fn seedring_leech(program: &Path, torrent: &Path, place: &Place) -> Command {
    let mut command = seedring(program, place);
    command.arg("get").arg(torrent).arg("--seed").arg("--output").arg(&place.saved);
    if let Some(down) = place.down {
        command.arg(format!("--download-limit={}B/s", down.0));
    }
    seedring_options(&mut command, place);
    command
}

fn seedring(program: &Path, place: &Place) -> Command {
    let mut command = at_home(program, &place.home);
    command.env_remove("SEEDRING_LOG");
    command
}

fn seedring_options(command: &mut Command, place: &Place) {
    command.args(["--port", "0", "--workers", "1", "--no-pin", "--json"]);
    command.arg(format!("--bind={}", place.address)).arg(format!("--upload-limit={}B/s", place.up.0));
    command.arg("--state-dir").arg(place.home.join("state"));
}

/// What a line of this program's own means.
pub(super) fn figures(line: &str) -> Option<Word> {
    let event: Value = serde_json::from_str(line).ok()?;
    match event["event"].as_str()? {
        "started" => Some(Word::Ready),
        "downloaded" => Some(Word::Complete),
        "status" => event["served"].as_u64().map(Word::Given),
        _ => None,
    }
}

fn libtorrent(torrent: &Path, place: &Place) -> Command {
    let mut command = Command::new("python3");
    // Python finds its packages through the user's home folder.
    command.current_dir(&place.home).args(["-c", LIBTORRENT_PEER]).arg(torrent).arg(&place.saved);
    let down = place.down.map_or(0, |rate| rate.0);
    command.arg(place.address.to_string()).args([place.up.0, down].map(|rate| rate.to_string()));
    command
}

fn libtorrent_line(line: &str) -> Option<Word> {
    match line.trim().split_once(' ') {
        None => (line.trim() == "complete").then_some(Word::Complete),
        Some((word, given)) => given.parse().ok().filter(|_| word == "given").map(Word::Given),
    }
}

fn aria2(torrent: &Path, place: &Place) -> Command {
    let mut command = at_home("aria2c", &place.home);
    command.args(["--no-conf", "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false"]);
    command.args(["--enable-peer-exchange=false", "--disable-ipv6=true", "--file-allocation=none"]);
    command.args(["--seed-ratio=0.0", "--check-integrity=false", "--summary-interval=0", "--no-proxy=*"]);
    // It says nothing by itself while it goes on seeding.
    command.args(["--on-bt-download-complete=/bin/echo", "--console-log-level=warn"]);
    command.args(["--show-console-readout=false", "--enable-color=false"]);
    command.args(["--listen-port=20000-29999", "--bt-max-peers=0"]);
    command.arg(format!("--interface={}", place.address)).arg(format!("--dir={}", place.saved.display()));
    command.arg(format!("--max-overall-upload-limit={}", place.up.0));
    command.arg(format!("--max-overall-download-limit={}", place.down.map_or(0, |rate| rate.0)));
    command.arg(torrent);
    command
}

/// Its hook has printed a number in hexadecimal, how many files, and the first one's path.
fn aria2_line(line: &str) -> Option<Word> {
    let (number, path) = line.trim().split_once(" 1 ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_number && path.ends_with(CONTENT_NAME)).then_some(Word::Complete)
}

fn transmission(place: &Place) -> Result<Command, RealError> {
    // In units of 1000 bytes a second.
    let thousands = |rate: ByteRate| (rate.0 / 1000).max(1);
    let settings = json!({
        "bind-address-ipv4": place.address.to_string(), "bind-address-ipv6": "::1",
        "peer-port-random-on-start": true, "dht-enabled": false, "lpd-enabled": false, "pex-enabled": false,
        "utp-enabled": false, "port-forwarding-enabled": false, "download-dir": place.saved,
        "incomplete-dir-enabled": false, "rename-partial-files": false, "trash-original-torrent-files": false,
        "ratio-limit-enabled": false, "idle-seeding-limit-enabled": false,
        "rpc-enabled": true, "rpc-bind-address": place.address.to_string(), "rpc-port": RPC_PORT,
        "rpc-whitelist-enabled": false, "rpc-host-whitelist-enabled": false, "rpc-authentication-required": false,
        "speed-limit-up-enabled": true, "speed-limit-up": thousands(place.up),
        "speed-limit-down-enabled": place.down.is_some(), "speed-limit-down": place.down.map_or(0, thousands),
    });
    let path = place.home.join("settings.json");
    fs::write(&path, settings.to_string()).map_err(|reason| RealError::Folder { path, reason })?;
    let mut command = at_home("transmission-daemon", &place.home);
    command.args(["--foreground", "--log-error", "--config-dir"]).arg(&place.home);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_and_others_passed_over() {
        assert_eq!(figures(r#"{"event":"downloaded","name":"x"}"#), Some(Word::Complete));
        assert_eq!(figures(r#"{"event":"status","served":7}"#), Some(Word::Given(7)));
        assert_eq!(libtorrent_line("complete\n"), Some(Word::Complete));
        assert_eq!(libtorrent_line("given 17\n"), Some(Word::Given(17)));
        let line = "02948d8f21c0a3b7 1 /tmp/x/content.bin\n";
        assert_eq!(aria2_line(line), Some(Word::Complete));
        for line in ["", "{}", "given", "given much", "[1]", "{\"event\":7}", "[NOTICE] 1 /content.bin"] {
            assert_eq!(
                (figures(line), libtorrent_line(line), aria2_line(line)),
                (None, None, None),
                "{line}"
            );
        }
    }
}
