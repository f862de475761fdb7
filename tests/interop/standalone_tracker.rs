//! `seedring tracker`: any info-hash, told to nobody else.

use crate::isolation::address;
use crate::process::Process;
use crate::seeder::{events, seedring};
use crate::waiting::wait_for;
use std::path::Path;
use std::time::Duration;

/// A running tracker. Dropping it kills it.
pub struct StandaloneTracker {
    _process: Process,
    /// Where to announce to.
    pub url: String,
}

impl StandaloneTracker {
    /// Starts one on a free port, over HTTP, and waits until it listens.
    pub fn start(scratch: &Path) -> Self {
        let home = scratch.join("tracker");
        std::fs::create_dir_all(&home).expect("a scratch folder takes folders");
        let mut command = seedring(&home);
        command.args(["tracker", "--json", "--udp", "none", "--http"]).arg(format!("{}:0", address(1)));
        let mut process = Process::start(&mut command, home.join("output.log"));
        let url = wait_for("the tracker to listen", Duration::from_secs(30), || {
            if let Some(status) = process.ended() {
                panic!("the tracker ended ({status}):\n{}", process.last_words());
            }
            let listening = events(&process).into_iter().find(|event| event["event"] == "listening");
            listening
                .and_then(|event| Some(event["url"].as_str()?.to_owned()))
                .ok_or_else(|| process.last_words())
        });
        Self { _process: process, url }
    }
}
