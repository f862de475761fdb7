//! What the user of `seed` and `get` sees: who we are, then one live line on a terminal, a plain line now and then
//! elsewhere, or JSON.

use super::create::left_out;
use super::escape::{Plain, json};
use super::limited::Limited;
use super::log::Budget;
use super::output;
use super::progress::{Progress, add_line, live_line};
use crate::attribution::{Cause, WaitTimes};
use crate::clock;
use crate::id::InfoHash;
use crate::limits::NEWS_OF_STRANGERS_MAX;
use crate::secret_url::{Keys, TrackerUrl};
use crate::session::magnet_fetch::FetchProgress;
use crate::session::seeding::{DownloadStatus, Serving, SessionEvent, Status, TorrentStatus};
use crate::units::{ByteSize, Counted};
use indicatif::{FormattedDuration, ProgressBar};
use serde_json::{Value, json as object};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;

/// Seconds between two plain lines that say the same kind of thing.
const PLAIN_INTERVAL_SECS: u64 = 60;
/// Seconds between two plain lines when nothing happens.
const TOTALS_INTERVAL_SECS: u64 = 300;
/// Torrents described one by one to people; of the others only those with something wrong.
const TORRENTS_TOLD_MAX: usize = 10;
/// Trackers of one torrent that are told, without `--json`.
const OWN_TRACKERS_TOLD_MAX: usize = 3;
/// What trackers have said that is not said again when they say it of another torrent; above it all is forgotten.
const TRACKER_NEWS_MAX: usize = 256;

/// The user's view of a session.
pub(super) struct View {
    json: bool,
    keys: Keys,
    live: Option<ProgressBar>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    peer_addresses: Vec<String>,
    /// The user has read which trackers are used besides those of torrents.
    trackers_told: bool,
    metrics: Option<String>,
    /// Torrents announced to the user so far.
    told: usize,
    /// Torrents of whose notes the user has not read.
    notes_untold: usize,
    seconds: u64,
    plain_told: Option<(u64, u64)>,
    limited: Limited,
    /// The live line has a second one.
    two_lines: bool,
    /// What the user has read of trackers.
    tracker_news: BTreeSet<(String, String)>,
    fetching_told: bool,
    strangers: Strangers,
}

/// What is told of strangers, who can cause as much of it as they like.
struct Strangers(Budget);

impl Default for Strangers {
    fn default() -> Self {
        Self(Budget::new(NEWS_OF_STRANGERS_MAX))
    }
}

impl State {
    /// Whether a tracker's word is worth a line: all are while there are few torrents, then each but once.
    fn is_news(&mut self, tracker: &str, says: &str) -> bool {
        if self.tracker_news.len() >= TRACKER_NEWS_MAX {
            self.tracker_news.clear();
        }
        let is_new = self.tracker_news.insert((tracker.to_owned(), says.to_owned()));
        is_new || self.told <= TORRENTS_TOLD_MAX
    }
}

impl View {
    /// JSON lines, a live line, or plain lines, by what the user asked for and where it goes.
    pub fn new(json: bool, keys: Keys) -> Self {
        if json {
            output::begin_json();
        }
        Self { json, keys, live: live_line(json), state: Mutex::default() }
    }

    /// Where peers and metrics are, before the first torrent is told.
    pub fn begin(&self, peers: &[SocketAddr], metrics: Option<SocketAddr>) {
        let mut state = self.state();
        state.peer_addresses = peers.iter().map(SocketAddr::to_string).collect();
        state.metrics = metrics.map(|address| format!("http://{address}/metrics"));
    }

    /// The torrent file of new content was written, in place of an older one or of nothing.
    pub fn wrote_torrent(&self, path: &Path, replaced: bool) {
        let torrent = path.to_string_lossy();
        if self.json {
            self.line(&object!({ "event": "torrent", "torrent": torrent, "replaced": replaced }));
        } else if replaced {
            self.say(format_args!("{} is replaced", Plain(&torrent)));
        }
    }

    /// A check begins; the bar lives as long as what is returned.
    pub fn checking(&self, name: &str, info_hash: InfoHash, len: u64) -> Progress {
        if self.json {
            self.line(&object!({
                "event": "checking", "name": name, "info_hash": info_hash.to_string(), "length": len,
            }));
        } else {
            self.say(format_args!("checking {}", Plain(name)));
        }
        Progress::start("checking", len)
    }

    /// The description of a magnet link's torrent is being asked for.
    pub fn fetching(&self, progress: FetchProgress) {
        let FetchProgress { peers_known, peers_connected, pieces, piece_count, .. } = progress;
        if self.json {
            self.line(&object!({
                "event": "fetching", "peers_known": peers_known, "peers": peers_connected,
                "pieces": pieces, "piece_count": piece_count,
            }));
        } else if let Some(live) = &self.live {
            live.set_message(format!(
                "asking {peers_connected} of {} what the torrent is",
                Counted(peers_known, "peer")
            ));
            live.tick();
        } else if !std::mem::replace(&mut self.state().fetching_told, true) {
            output::err(format_args!("asking peers what the torrent is"));
        }
    }

    /// Something is wrong, and the rest goes on.
    pub fn complain(&self, text: &str) {
        if self.json {
            self.line(&object!({ "event": "warning", "message": text }));
        } else {
            self.say(format_args!("seedring: {}", Plain(text)));
        }
    }

    /// The user has asked for everything to be looked at again.
    pub fn reloading(&self) {
        if self.json {
            self.line(&object!({ "event": "reloading" }));
        } else {
            self.say(format_args!("looking again at folders, torrent files and content that is missing"));
        }
    }

    /// Shows an event of the session.
    pub fn tell(&self, event: SessionEvent) {
        match event {
            SessionEvent::Serving(serving) => self.serving(&serving),
            SessionEvent::Ready { torrents, waiting_for } => self.ready(torrents, &waiting_for),
            SessionEvent::Status(status) => self.status(&status),
            SessionEvent::Ended(status) => self.ended(&status),
            SessionEvent::Failed { name, info_hash, reason } => {
                if self.json {
                    return self.line(&object!({
                        "event": "failed", "name": name, "info_hash": info_hash.to_string(), "reason": reason,
                    }));
                }
                self.say(format_args!("seedring: {} is not seeded: {}", Plain(&name), Plain(&reason)));
            }
            // That it has failed was told.
            SessionEvent::Lost { .. } => {}
            // It is looked at, and then told to have started.
            SessionEvent::Changed { .. } | SessionEvent::Renewed { .. } => {}
            SessionEvent::Removed { name, info_hash } => {
                if self.json {
                    return self.line(&object!({
                        "event": "removed", "name": name, "info_hash": info_hash.to_string(),
                    }));
                }
                self.say(format_args!(
                    "seedring: {} is seeded no longer: its torrent file is gone",
                    Plain(&name)
                ));
            }
            SessionEvent::Replaced { name, info_hash } => {
                if self.json {
                    return self.line(&object!({
                        "event": "replaced", "name": name, "info_hash": info_hash.to_string(),
                    }));
                }
                self.say(format_args!(
                    "seedring: {}: its torrent file was changed, or another has taken its place",
                    Plain(&name)
                ));
            }
            SessionEvent::Tracker { info_hash, tracker, error } => {
                let tracker = tracker.shown(self.keys);
                if self.json {
                    return self.line(&object!({
                        "event": "tracker", "info_hash": info_hash.to_string(), "tracker": tracker, "error": error,
                    }));
                }
                let says = error.map_or("works".to_owned(), |error| format!("does not answer well: {error}"));
                if !self.state().is_news(&tracker, &says) {
                    return;
                }
                self.say(format_args!("tracker {} {}", Plain(&tracker), Plain(&says)));
            }
            SessionEvent::Completed { info_hash, count } => {
                if self.json && self.may_tell_of_strangers() {
                    self.line(&object!({
                        "event": "completed", "info_hash": info_hash.to_string(), "count": count,
                    }));
                }
            }
            SessionEvent::Downloaded { name, info_hash } => {
                if self.json {
                    return self.line(&object!({
                        "event": "downloaded", "name": name, "info_hash": info_hash.to_string(),
                    }));
                }
                self.print(&format!("downloaded  {}\n", Plain(&name)))
            }
            SessionEvent::StorageRefused { name, info_hash, reason } => {
                if self.json {
                    return self.line(&object!({
                        "event": "storage_refused", "name": name, "info_hash": info_hash.to_string(),
                        "reason": reason,
                    }));
                }
                let goes_on = "the download waits and goes on by itself";
                self.say(format_args!("seedring: {}: {}; {goes_on}", Plain(&name), Plain(&reason)));
            }
            SessionEvent::StorageRecovered { name, info_hash } => {
                if self.json {
                    return self.line(&object!({
                        "event": "storage_recovered", "name": name, "info_hash": info_hash.to_string(),
                    }));
                }
                self.say(format_args!("seedring: {}: pieces can be stored again", Plain(&name)));
            }
            SessionEvent::Banned { info_hash, ip } => {
                if !self.may_tell_of_strangers() {
                    return;
                }
                if self.json {
                    return self.line(&object!({
                        "event": "banned", "info_hash": info_hash.to_string(), "address": ip.to_string(),
                    }));
                }
                self.say(format_args!("seedring: a peer at {ip} sent wrong data and is banned"));
            }
            SessionEvent::Warning(text) => {
                self.complain(&text);
            }
        }
    }

    /// A torrent file that has come has a torrent that is served already, from another.
    pub fn duplicate(&self, path: &Path, served: &Path, name: &str, info_hash: InfoHash) {
        let (path, served) = (path.to_string_lossy(), served.to_string_lossy());
        if self.json {
            return self.line(&object!({
                "event": "duplicate", "name": name, "info_hash": info_hash.to_string(), "torrent": path,
                "served_from": served,
            }));
        }
        self.say(format_args!(
            "seedring: {} is the same torrent as {}; it is served once",
            Plain(&path),
            Plain(&served)
        ));
    }

    /// Whether one more line about strangers may be told in this second; says how many were not.
    fn may_tell_of_strangers(&self) -> bool {
        let admitted = self.state().strangers.0.admit(clock::now());
        if let Some(left_out) = admitted.filter(|&left_out| left_out > 0) {
            if self.json {
                self.line(&object!({ "event": "left_out", "lines": left_out }));
            } else {
                self.say(format_args!("seedring: left out here: {}", Counted(left_out, "more such line")));
            }
        }
        admitted.is_some()
    }

    fn ready(&self, torrents: usize, waiting_for: &[String]) {
        if self.json {
            return self.line(&object!({
                "event": "ready", "torrents": torrents, "waiting_for": waiting_for,
            }));
        }
        match torrents {
            0 if !waiting_for.is_empty() => self.print("ready       no torrent yet\n"),
            0 => self.print("ready       no torrent yet; those that come into the folder are seeded\n"),
            1 => {}
            _ => self.print(&format!("ready       {}\n", Counted(torrents, "torrent"))),
        }
        for what in waiting_for {
            self.print(&format!("waiting     for {}, which does not answer\n", Plain(what)));
        }
        let untold = self.state().notes_untold;
        if untold > 0 {
            self.print(&format!("note        so it is with {untold} more; --json says which\n"));
        }
    }

    fn serving(&self, serving: &Serving) {
        let (peer_addresses, metrics, told) = {
            let mut state = self.state();
            state.told += 1;
            (state.peer_addresses.clone(), state.metrics.clone(), state.told)
        };
        let first = told == 1;
        let shown = |trackers: &[TrackerUrl]| -> Vec<String> {
            trackers.iter().map(|tracker| tracker.shown(self.keys)).collect()
        };
        let (trackers, own_trackers) = (shown(&serving.trackers), shown(&serving.own_trackers));
        let magnet = serving.magnet.link(self.keys);
        let torrent = serving.torrent_file.as_ref().map(|path| path.to_string_lossy().into_owned());
        if self.json {
            return self.line(&object!({
                "event": "started",
                "name": serving.name,
                "info_hash": serving.info_hash.to_string(),
                "torrent": torrent,
                "magnet": magnet,
                "peer_addresses": peer_addresses,
                "trackers": trackers,
                "own_trackers": own_trackers,
                "metrics": metrics,
                "pieces": serving.pieces,
                "piece_count": serving.piece_count,
                "problems": serving.problems,
                "notes": serving.notes,
                "back": serving.is_back,
            }));
        }
        if serving.is_renewed {
            return self.say(format_args!(
                "seedring: files of {} have come; {} of {} good now and served",
                Plain(&serving.name),
                serving.pieces,
                Counted(serving.piece_count, "piece")
            ));
        }
        if serving.is_back && serving.problems.is_empty() {
            return self.say(format_args!("seedring: {} is seeded again", Plain(&serving.name)));
        }
        if told > TORRENTS_TOLD_MAX && serving.problems.is_empty() && serving.left == 0 {
            self.state().notes_untold += usize::from(!serving.notes.is_empty());
            return;
        }
        let mut text = format!("name        {}\n", Plain(&serving.name));
        text += &format!("info-hash   {}\n", serving.info_hash);
        if let Some(torrent) = torrent {
            text += &format!("torrent     {}\n", Plain(&torrent));
        }
        text += &format!("magnet      {magnet}{}\n", left_out(&serving.magnet, self.keys));
        if serving.left > 0 {
            let (here, of) = (serving.pieces, serving.piece_count);
            text += &format!("pieces      {here} of {of} are here, {} to go\n", ByteSize(serving.left));
        } else if serving.pieces < serving.piece_count {
            text += &format!(
                "pieces      {} of {} are good and are served\n",
                serving.pieces, serving.piece_count
            );
        }
        // Those that run here, or were named for all, stand below.
        let own: Vec<&String> = own_trackers.iter().filter(|url| !trackers.contains(url)).collect();
        let named = own.iter().take(OWN_TRACKERS_TOLD_MAX);
        named.for_each(|url| text += &format!("announced   to {}\n", Plain(url)));
        if own.len() > OWN_TRACKERS_TOLD_MAX {
            let more = own.len() - OWN_TRACKERS_TOLD_MAX;
            text += &format!("announced   to {more} more of its trackers; `seedring show` lists them\n");
        }
        for problem in &serving.problems {
            text += &format!("problem     {}\n", Plain(problem));
        }
        for note in &serving.notes {
            text += &format!("note        {note}\n");
        }
        if first {
            peer_addresses.iter().for_each(|address| text += &format!("peers       {address}\n"));
            metrics.iter().for_each(|url| text += &format!("metrics     {url}\n"));
        }
        if !trackers.is_empty() && !std::mem::replace(&mut self.state().trackers_told, true) {
            trackers.iter().for_each(|tracker| text += &format!("tracker     {}\n", Plain(tracker)));
        }
        self.print(&text)
    }

    fn status(&self, status: &Status) {
        if self.json {
            let value = |histogram| serde_json::to_value(histogram).unwrap_or(Value::Null);
            let engine = serde_json::to_value(status.engine).unwrap_or(Value::Null);
            let histograms: serde_json::Map<String, Value> = status
                .histograms
                .iter()
                .map(|&(name, histogram)| (name.to_owned(), value(histogram)))
                .collect();
            let busiest: Vec<Value> = status.busiest.iter().map(torrent_figures).collect();
            return self.line(&object!({
                "event": "status",
                "torrents": status.torrents,
                "peers": status.peers,
                "upload_rate": status.upload_rate.0,
                "served": status.served,
                "ratio_of_run": thousandths(status.ratio_of_run),
                "served_in_all_runs": status.served_in_all_runs,
                "ratio": thousandths(status.ratio),
                "completed": status.completed,
                "wasted": status.wasted,
                "banned": status.banned,
                "download": status.download.map(|download| object!({
                    "wanted": download.wanted,
                    "left": download.left,
                    "rate": download.rate.0,
                    "eta_seconds": download.eta.map(|eta| eta.as_secs()),
                })),
                "engine": engine,
                "histograms": histograms,
                "busiest": busiest,
            }));
        }
        let limited =
            self.state().limited.handle(status.engine.waited()).filter(|_| status.download.is_none());
        let peers = Counted(status.peers, "peer");
        let text = match status.download {
            Some(download) => downloading(status, download, peers),
            None => {
                format!("{peers} · {} · {}", status.upload_rate, given(status))
            }
        };
        if let Some(live) = &self.live {
            if limited.is_some() && !std::mem::replace(&mut self.state().two_lines, true) {
                add_line(live);
            }
            live.set_prefix(limited.unwrap_or_default());
            live.set_message(text);
            live.tick();
            return;
        }
        let due = {
            let mut state = self.state();
            state.seconds += 1;
            let now = (status.peers, status.served + status.engine.payload_received);
            let before = state.seconds - 1;
            let due = before.is_multiple_of(TOTALS_INTERVAL_SECS)
                || (before.is_multiple_of(PLAIN_INTERVAL_SECS) && state.plain_told != Some(now));
            if due {
                state.plain_told = Some(now);
            }
            due
        };
        let limited = limited.map_or(String::new(), |limited| format!(" · {limited}"));
        if due {
            self.print(&format!("{text}{limited}\n"));
        }
    }

    /// The totals of a run, which are the last that is told of it.
    fn ended(&self, status: &Status) {
        if self.json {
            return self.status(status);
        }
        self.end();
        let received = match status.engine.payload_received {
            0 => String::new(),
            received => format!("{} received · ", ByteSize(received)),
        };
        self.print(&format!("in all      {received}{}\n", given(status)));
    }

    /// The live line goes.
    pub fn end(&self) {
        if let Some(live) = &self.live {
            live.finish_and_clear();
        }
    }

    fn line(&self, value: &Value) {
        // Nothing of ours has a shape that JSON cannot have.
        if let Ok(text) = json(value) {
            self.print(&format!("{text}\n"));
        }
    }

    fn print(&self, text: &str) {
        self.above(|| output::out(text));
    }

    /// A line on stderr.
    fn say(&self, line: std::fmt::Arguments<'_>) {
        self.above(|| output::err(line));
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

/// What was given to others: in this run, and in all of them where there were others.
fn given(status: &Status) -> String {
    let (served, completed) = (ByteSize(status.served), status.completed);
    if status.served_in_all_runs > status.served {
        let all = ByteSize(status.served_in_all_runs);
        // Short enough for a terminal of eighty columns.
        return format!(
            "{served} served, {all} in all runs (ratio {:.2}) · {completed} completed",
            status.ratio
        );
    }
    format!("{served} served · ratio {:.2} · {completed} completed", status.ratio_of_run)
}

fn thousandths(ratio: f64) -> f64 {
    (ratio * 1000.0).round() / 1000.0
}

/// One torrent's figures.
fn torrent_figures(torrent: &TorrentStatus) -> Value {
    object!({
        "info_hash": torrent.info_hash.to_string(),
        "peers": torrent.peers,
        "uploaded": torrent.uploaded,
        "waited_nanos": by_cause(&torrent.waited),
    })
}

fn by_cause(waited: &WaitTimes) -> serde_json::Map<String, Value> {
    Cause::ALL.into_iter().map(|cause| (cause.name().to_owned(), waited.of(cause).into())).collect()
}

/// How far the download is, as a bar and in words.
fn downloading(status: &Status, download: DownloadStatus, peers: Counted<u64>) -> String {
    const BAR_LEN: u64 = 20;
    let done = download.wanted.saturating_sub(download.left);
    let of =
        |whole: u64| (u128::from(done) * u128::from(whole) / u128::from(download.wanted.max(1))) as usize;
    let (filled, percent) = (of(BAR_LEN), of(100));
    let bar =
        format!("{}{}", "█".repeat(filled), "░".repeat(BAR_LEN as usize - filled.min(BAR_LEN as usize)));
    let eta =
        download.eta.map_or_else(|| "waiting".to_owned(), |eta| format!("{} left", FormattedDuration(eta)));
    format!(
        "{bar} {percent} % of {} · {} · {peers} · {eta} · up {}",
        ByteSize(download.wanted),
        download.rate,
        status.upload_rate,
    )
}
