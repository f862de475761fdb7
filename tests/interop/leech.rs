//! `seedring get` under test: started with `--json`, its events read back, as often as wanted from where it stopped.

use crate::isolation::address;
use crate::process::Process;
use crate::seeder::{events, is, peer_address, seedring, served};
use crate::waiting::wait_for;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

/// Longest time for the small downloads of these tests, on a busy machine and in an unoptimised build.
const DOWNLOAD_TIMEOUT: Duration = Duration::from_secs(180);
/// SIGINT has to end it within this time.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A running `seedring get`. Dropping it kills it.
pub struct Leech {
    process: Process,
    who: String,
    /// The folder it saves to.
    pub saved: PathBuf,
}

impl Leech {
    /// Participant `number` downloads `source`, a torrent file or magnet link, with `arguments` added. What it has from an
    /// earlier start with the same number and scratch folder is there again.
    pub fn start<S: AsRef<OsStr>>(
        number: u8,
        source: impl AsRef<OsStr>,
        arguments: &[S],
        scratch: &Path,
    ) -> Self {
        let home = scratch.join(format!("leech {number}"));
        let saved = home.join("saved");
        std::fs::create_dir_all(&home).expect("a scratch folder takes folders");
        let log = home.join(format!("output-{}.log", std::fs::read_dir(&home).map_or(0, Iterator::count)));
        let mut command = seedring(&home);
        command
            .arg("get")
            .arg(source)
            .args(["--port", "0", "--workers", "1", "--no-pin", "--json", "--output"])
            .arg(&saved)
            .arg(format!("--bind={}", address(number)))
            .args(arguments);
        Self { process: Process::start(&mut command, log), who: format!("leech {number}"), saved }
    }

    /// All events it has printed so far.
    pub fn events(&self) -> Vec<serde_json::Value> {
        events(&self.process)
    }

    /// All it has printed so far, complaints too.
    pub fn printed(&self) -> String {
        self.process.printed()
    }

    /// Bytes of blocks that it has sent, as its last figures say.
    pub fn served(&self) -> u64 {
        served(&self.events())
    }

    /// Bytes that it still wants, as its last figures say; `None` before the first and when it has everything.
    pub fn left(&self) -> Option<u64> {
        self.events().iter().rev().find(|event| event["event"] == "status")?["download"]["left"].as_u64()
    }

    /// Waits for the first event of this name.
    pub fn wait_for_event(&mut self, name: &str) -> serde_json::Value {
        wait_for(&format!("the event {name:?} of {}", self.who), DOWNLOAD_TIMEOUT, || {
            if let Some(event) = self.events().into_iter().find(is(name)) {
                return Ok(event);
            }
            if let Some(status) = self.process.ended() {
                panic!("{} ended ({status}) without {name:?}:\n{}", self.who, self.process.last_words());
            }
            Err(self.process.last_words())
        })
    }

    /// Waits until it serves what it has, and tells where.
    pub fn peer_address(&mut self) -> String {
        peer_address(&self.wait_for_event("started"))
    }

    /// Waits until it has ended by itself.
    pub fn wait_until_ended(&mut self) -> ExitStatus {
        wait_for(&format!("{} to end by itself", self.who), DOWNLOAD_TIMEOUT, || {
            self.process.ended().ok_or_else(|| self.process.last_words())
        })
    }

    /// Waits until it has ended by itself, with everything and without a complaint of its exit code.
    pub fn wait_until_complete(&mut self) {
        let status = self.wait_until_ended();
        assert_eq!(status.code(), Some(0), "{}: {}", self.who, self.process.last_words());
        assert!(self.events().iter().any(is("downloaded")), "{}: {}", self.who, self.process.last_words());
    }

    /// Sends SIGINT and waits for its end.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.process.interrupt();
        wait_for(&format!("{} to end after SIGINT", self.who), STOP_TIMEOUT, || {
            self.process.ended().ok_or_else(|| self.process.last_words())
        })
    }
}
