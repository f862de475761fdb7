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
    /// What the first event told.
    pub started: serde_json::Value,
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

    /// All events it has printed so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        events(&self.process)
    }

    /// Sends SIGINT and waits for its end.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.process.interrupt();
        wait_for("seedring to end after SIGINT", STOP_TIMEOUT, || {
            self.process.ended().ok_or_else(|| self.process.last_words())
        })
    }
}

/// Whether an event has this name.
pub fn is(name: &str) -> impl Fn(&serde_json::Value) -> bool {
    move |event| event["event"] == name
}

/// The JSON lines among what was printed; diagnostics on stderr are none, and the last line may be half written.
fn events(process: &Process) -> Vec<serde_json::Value> {
    process.printed().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}
