//! What the user of `seed` sees: who we are, then one live line on a terminal, a plain line now and then
//! elsewhere, or JSON.

use super::super::escape::{Plain, json};
use super::super::progress::{Progress, live_line};
use crate::id::InfoHash;
use crate::session::content::Located;
use crate::session::seeding::{Serving, SessionEvent, Status};
use crate::units::ByteSize;
use indicatif::ProgressBar;
use serde_json::{Value, json as object};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Mutex;

/// Seconds between two plain lines that say the same kind of thing.
const PLAIN_INTERVAL_SECS: u64 = 60;

/// The user's view of a session.
pub(super) struct View {
    json: bool,
    live: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peer_addresses: Vec<String>,
    trackers: Vec<String>,
    metrics: Option<String>,
    /// Torrents announced to the user so far.
    told: usize,
    seconds: u64,
    plain_told: Option<(u64, u64)>,
}

impl View {
    /// JSON lines, a live line, or plain lines, by what the user asked for and where it goes.
    pub fn new(json: bool) -> Self {
        Self { json, live: live_line(json), state: Mutex::default() }
    }

    /// Where peers, trackers and metrics are, before the first torrent is told.
    pub fn begin(&self, peers: &[SocketAddr], trackers: &[String], metrics: Option<SocketAddr>) {
        let mut state = self.state();
        state.peer_addresses = peers.iter().map(SocketAddr::to_string).collect();
        state.trackers = trackers.to_vec();
        state.metrics = metrics.map(|address| format!("http://{address}/metrics"));
    }

    /// A check begins; the bar lives as long as what is returned.
    pub fn checking(&self, located: &Located) -> Progress {
        let info = located.metainfo.info();
        let info_hash = located.metainfo.info_hash();
        if self.json {
            // A closed stdout is noticed by the next event of the session.
            let _ = self.line(&object!({
                "event": "checking", "name": info.name(), "info_hash": info_hash.to_string(), "length": info.total_len(),
            }));
        } else {
            eprintln!("checking {}", Plain(info.name()));
        }
        Progress::start("checking", info.total_len())
    }

    /// Something is wrong, and the rest goes on.
    pub fn complain(&self, text: &str) {
        if self.json {
            let _ = self.line(&object!({ "event": "warning", "message": text }));
        } else {
            self.above(|| eprintln!("seedring: {}", Plain(text)));
        }
    }

    /// Shows an event of the session.
    pub fn tell(&self, event: SessionEvent, torrent_files: &BTreeMap<InfoHash, PathBuf>) -> io::Result<()> {
        match event {
            SessionEvent::Serving(serving) => self.serving(&serving, torrent_files.get(&serving.info_hash)),
            SessionEvent::Status(status) => self.status(&status),
            SessionEvent::Failed { name, info_hash, reason } => {
                if self.json {
                    return self.line(&object!({
                        "event": "failed", "name": name, "info_hash": info_hash.to_string(), "reason": reason,
                    }));
                }
                self.above(|| eprintln!("seedring: {} is not seeded: {}", Plain(&name), Plain(&reason)));
                Ok(())
            }
            SessionEvent::Tracker { info_hash, tracker, error } => {
                if self.json {
                    return self.line(&object!({
                        "event": "tracker", "info_hash": info_hash.to_string(), "tracker": tracker, "error": error,
                    }));
                }
                let says = error.map_or("works".to_owned(), |error| format!("does not answer well: {error}"));
                self.above(|| eprintln!("tracker {} {}", Plain(&tracker), Plain(&says)));
                Ok(())
            }
            SessionEvent::Completed { info_hash, count } => {
                if self.json {
                    return self.line(&object!({
                        "event": "completed", "info_hash": info_hash.to_string(), "count": count,
                    }));
                }
                Ok(())
            }
            SessionEvent::Warning(text) => {
                self.complain(&text);
                Ok(())
            }
        }
    }

    fn serving(&self, serving: &Serving, torrent: Option<&PathBuf>) -> io::Result<()> {
        let (peer_addresses, trackers, metrics, first) = {
            let mut state = self.state();
            state.told += 1;
            (state.peer_addresses.clone(), state.trackers.clone(), state.metrics.clone(), state.told == 1)
        };
        let torrent = torrent.map(|path| path.to_string_lossy().into_owned());
        if self.json {
            return self.line(&object!({
                "event": "started",
                "name": serving.name,
                "info_hash": serving.info_hash.to_string(),
                "torrent": torrent,
                "magnet": serving.magnet,
                "peer_addresses": peer_addresses,
                "trackers": trackers,
                "metrics": metrics,
                "pieces": serving.pieces,
                "piece_count": serving.piece_count,
                "problems": serving.problems,
            }));
        }
        let mut text = format!("name        {}\n", Plain(&serving.name));
        text += &format!("info-hash   {}\n", serving.info_hash);
        if let Some(torrent) = torrent {
            text += &format!("torrent     {}\n", Plain(&torrent));
        }
        text += &format!("magnet      {}\n", serving.magnet);
        if serving.pieces < serving.piece_count {
            text += &format!(
                "pieces      {} of {} are good and are served\n",
                serving.pieces, serving.piece_count
            );
        }
        for problem in &serving.problems {
            text += &format!("problem     {}\n", Plain(problem));
        }
        if first {
            peer_addresses.iter().for_each(|address| text += &format!("peers       {address}\n"));
            trackers.iter().for_each(|tracker| text += &format!("tracker     {}\n", Plain(tracker)));
            metrics.iter().for_each(|url| text += &format!("metrics     {url}\n"));
        }
        self.print(&text)
    }

    fn status(&self, status: &Status) -> io::Result<()> {
        if self.json {
            let engine = serde_json::to_value(status.engine).unwrap_or(Value::Null);
            return self.line(&object!({
                "event": "status",
                "torrents": status.torrents,
                "peers": status.peers,
                "upload_rate": status.upload_rate.0,
                "served": status.served,
                "ratio": (status.ratio * 1000.0).round() / 1000.0,
                "completed": status.completed,
                "engine": engine,
            }));
        }
        let peers = if status.peers == 1 { "peer" } else { "peers" };
        let text = format!(
            "{} {peers} · {} · {} served · ratio {:.2} · {} completed",
            status.peers,
            status.upload_rate,
            ByteSize(status.served),
            status.ratio,
            status.completed,
        );
        if let Some(live) = &self.live {
            live.set_message(text);
            live.tick();
            return Ok(());
        }
        let due = {
            let mut state = self.state();
            state.seconds += 1;
            let now = (status.peers, status.served);
            let due =
                (state.seconds - 1).is_multiple_of(PLAIN_INTERVAL_SECS) && state.plain_told != Some(now);
            if due {
                state.plain_told = Some(now);
            }
            due
        };
        if due { self.print(&format!("{text}\n")) } else { Ok(()) }
    }

    /// The live line goes.
    pub fn end(&self) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
    }

    fn line(&self, value: &Value) -> io::Result<()> {
        let text = json(value).map_err(io::Error::from)?;
        self.print(&format!("{text}\n"))
    }

    fn print(&self, text: &str) -> io::Result<()> {
        let mut result = Ok(());
        self.above(|| {
            let mut out = io::stdout().lock();
            result = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        });
        result
    }

    /// Runs `print` with the live line out of the way.
    fn above(&self, print: impl FnOnce()) {
        match &self.live {
            Some(live) => live.suspend(print),
            None => print(),
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
