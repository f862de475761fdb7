//! `seedring seed` under test: started with `--json`, its events read back.

use crate::isolation::address;
use crate::process::{Process, client_command};
use crate::waiting::wait_for;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Longest time from start to serving the small contents of these tests, in an unoptimised build.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// SIGINT has to end it within this time.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running `seedring seed`. Dropping it kills it.
pub struct Seeder {
    process: Process,
    /// The torrent file that it wrote or was given.
    pub torrent: PathBuf,
    /// The event that told that it serves.
    pub started: serde_json::Value,
}

/// Arguments for the embedded tracker on a free port.
pub const EMBEDDED_TRACKER: [&str; 2] = ["--tracker-port", "0"];

/// Makes a torrent of `path` that names one tracker; the torrent file and the info-hash in hexadecimal.
pub fn make_torrent(path: &Path, tracker: &str, scratch: &Path) -> (PathBuf, String) {
    let torrent = scratch.join("made.torrent");
    let mut command = seedring(scratch);
    command.arg("create").arg(path).args(["--json", "--tracker", tracker, "--output"]).arg(&torrent);
    let output = command.output().expect("the binary under test can be started");
    let printed: serde_json::Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("create: {error}: {}", String::from_utf8_lossy(&output.stderr)));
    let info_hash = printed["info_hash"].as_str().expect("create tells the info-hash");
    (torrent, info_hash.to_owned())
}

/// `seedring` with its data folders in `home`.
pub fn seedring(home: &Path) -> std::process::Command {
    client_command(env!("CARGO_BIN_EXE_seedring"), home)
}

impl Seeder {
    /// Seeds `path` with `arguments` added and waits until it serves.
    pub fn start<S: AsRef<OsStr>>(path: &Path, arguments: &[S], scratch: &Path) -> Self {
        let home = scratch.join("seedring");
        std::fs::create_dir_all(&home).expect("a scratch folder takes folders");
        let mut command = seedring(&home);
        command
            .arg("seed")
            .arg(path)
            .args(["--port", "0", "--workers", "1", "--no-pin", "--json"])
            .arg(format!("--bind={}", address(1)))
            .args(arguments);
        let log = home.join(format!("output-{}.log", std::fs::read_dir(&home).map_or(0, Iterator::count)));
        let mut process = Process::start(&mut command, log);
        let started = wait_for("seedring to serve", START_TIMEOUT, || {
            if let Some(status) = process.ended() {
                panic!("seedring ended ({status}):\n{}", process.last_words());
            }
            events(&process).into_iter().find(is("started")).ok_or_else(|| process.last_words())
        });
        let torrent =
            PathBuf::from(started["torrent"].as_str().expect("the first event names the torrent file"));
        Self { process, torrent, started }
    }

    /// Where it takes peers' connections.
    pub fn peer_address(&self) -> String {
        peer_address(&self.started)
    }

    /// Bytes of blocks that it has sent, as its last figures say.
    pub fn served(&self) -> u64 {
        served(&self.events())
    }

    /// All events it has printed so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        events(&self.process)
    }

    /// Whether it checked content before it served it.
    pub fn has_checked(&self) -> bool {
        self.events().iter().any(is("checking"))
    }

    /// Sends SIGINT and waits for its end.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.process.interrupt();
        wait_for("seedring to end after SIGINT", STOP_TIMEOUT, || {
            self.process.ended().ok_or_else(|| self.process.last_words())
        })
    }
}

/// Where the sender of the event `started` takes peers' connections.
pub fn peer_address(started: &serde_json::Value) -> String {
    started["peer_addresses"][0].as_str().expect("it tells where it listens").to_owned()
}

/// Bytes of blocks sent, as the last figures among these events say.
pub fn served(events: &[serde_json::Value]) -> u64 {
    events
        .iter()
        .rev()
        .find(|event| event["event"] == "status")
        .map_or(0, |status| status["served"].as_u64().expect("every status has it"))
}

/// Whether an event has this name.
pub fn is(name: &str) -> impl Fn(&serde_json::Value) -> bool {
    move |event| event["event"] == name
}

/// The JSON lines among what was printed; diagnostics on stderr are none, and the last line may be half written.
pub fn events(process: &Process) -> Vec<serde_json::Value> {
    process.printed().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
