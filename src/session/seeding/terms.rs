//! How a session is run, and what it tells.

use crate::attribution::WaitTimes;
use crate::choker::Slots;
use crate::engine::histogram::HistogramSummary;
use crate::engine::statistics::StatisticsSnapshot;
use crate::id::{InfoHash, PeerId};
use crate::metainfo::Magnet;
use crate::picker::Order;
use crate::secret_url::TrackerUrl;
use crate::time::Duration;
use crate::units::ByteRate;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// How a session is run.
#[derive(Clone, Debug)]
pub struct SeedingSettings {
    /// Slots of each torrent.
    pub slots: Slots,
    /// Upload limit of each torrent.
    pub torrent_upload_limit: Option<ByteRate>,
    /// Trackers told of every torrent that is not private, besides the torrent's own.
    pub trackers: Vec<TrackerUrl>,
    /// They take the place of the torrent's own, of private torrents, too.
    pub replace_trackers: bool,
    /// Address to announce from.
    pub bind: Option<IpAddr>,
    /// End after so many downloads by others.
    pub once: Option<u64>,
    /// When a session that downloads ends by itself.
    pub until: Until,
    /// Peers that the user names, for every torrent.
    pub peers: Vec<SocketAddr>,
    /// Our name in every swarm; one at random for each torrent when `None`.
    pub peer_id: Option<PeerId>,
    /// Our secret towards trackers; one at random for each torrent when `None`.
    pub tracker_key: Option<u32>,
    /// Which piece is begun first.
    pub order: Order,
    /// Super-seed the torrents that are whole (BEP 16).
    pub super_seed: bool,
    /// Where resume files lie; `None` to keep none.
    pub state_dir: Option<PathBuf>,
}

/// When a session ends by itself, once everything wanted is here.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Until {
    /// Never.
    #[default]
    Asked,
    /// At once.
    Downloaded,
    /// When so many bytes have been given for each byte of content that is here, in all runs together.
    Ratio(f64),
    /// After so long.
    Time(Duration),
}

/// What the user may want to hear.
#[derive(Clone, Debug)]
pub enum SessionEvent {
    /// Everything wanted of a torrent is here.
    Downloaded {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
    },
    /// Storage refuses a torrent's pieces; it is tried again until it takes them.
    StorageRefused {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
        /// Why, and what to do.
        reason: String,
    },
    /// Storage takes them again.
    StorageRecovered {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A peer sent wrong data and is banned.
    Banned {
        /// The torrent.
        info_hash: InfoHash,
        /// The peer's address.
        ip: IpAddr,
    },
    /// A torrent is served from now on.
    Serving(Box<Serving>),
    /// Every torrent that was there at the start is served, was told to have failed, or waits for what does not answer. Not told
    /// when none is served and none may come.
    Ready {
        /// Torrents served.
        torrents: usize,
        /// What does not answer: folders, file systems, and torrents whose checks wait for a disk.
        waiting_for: Vec<String>,
    },
    /// A torrent's content has failed, or could not be opened.
    Failed {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
        /// Why, and what to do.
        reason: String,
    },
    /// A torrent that was served has just failed; its content may come back.
    Lost {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// Files have come of a torrent that is served without them: told each time that they are seen.
    Changed {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A torrent that was served is served anew, since it was checked again.
    Renewed {
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A torrent is served no longer as it was: another torrent file, or a changed one, has taken the place of its own.
    Replaced {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A torrent is served no longer: the user has taken its torrent file away.
    Removed {
        /// The torrent's name.
        name: String,
        /// The torrent.
        info_hash: InfoHash,
    },
    /// A tracker's answer is worth a line: the first good one, the first bad one after a good one.
    Tracker {
        /// The torrent.
        info_hash: InfoHash,
        /// The tracker.
        tracker: TrackerUrl,
        /// Its complaint; `None` when it works.
        error: Option<String>,
    },
    /// Somebody has everything.
    Completed {
        /// The torrent.
        info_hash: InfoHash,
        /// Downloads completed by others so far, in all torrents.
        count: u64,
    },
    /// No new connections for a while.
    Warning(String),
    /// The figures of this second.
    Status(Box<Status>),
    /// The last figures of a run.
    Ended(Box<Status>),
}

/// A torrent as it begins to be served.
#[derive(Clone, Debug)]
pub struct Serving {
    /// Its name.
    pub name: String,
    /// The torrent.
    pub info_hash: InfoHash,
    /// Where its torrent file lies, if that is known.
    pub torrent_file: Option<PathBuf>,
    /// Its magnet link, with the trackers that it is announced to.
    pub magnet: Magnet,
    /// The trackers that know of it because the user named them, or because they run here.
    pub trackers: Vec<TrackerUrl>,
    /// Pieces that are right.
    pub pieces: u32,
    /// Pieces of the torrent.
    pub piece_count: u32,
    /// Files that are missing or damaged.
    pub problems: Vec<String>,
    /// The trackers that its torrent file names and it is announced to.
    pub own_trackers: Vec<TrackerUrl>,
    /// What the user has to know of who finds it, each a sentence.
    pub notes: Vec<&'static str>,
    /// Bytes still to be downloaded.
    pub left: u64,
    /// Whether it was served before in this run, and had left.
    pub is_back: bool,
    /// Whether it was served until now, and files of it have come or changed.
    pub is_renewed: bool,
}

/// The session's figures at one moment.
#[derive(Clone, Debug)]
pub struct Status {
    /// Torrents served.
    pub torrents: usize,
    /// Peers that have finished their handshake.
    pub peers: u64,
    /// Bytes of blocks a second, smoothed.
    pub upload_rate: ByteRate,
    /// Bytes of blocks sent in this run.
    pub served: u64,
    /// Bytes sent in this run, for each byte of content that is seeded.
    pub ratio_of_run: f64,
    /// Bytes of blocks sent in all runs, of the torrents that are seeded now.
    pub served_in_all_runs: u64,
    /// The same for each byte of content.
    pub ratio: f64,
    /// Downloads completed by others.
    pub completed: u64,
    /// What is being downloaded; `None` when everything wanted is here.
    pub download: Option<DownloadStatus>,
    /// Bytes received for nothing: sent twice or unasked, or of pieces that failed their hash.
    pub wasted: u64,
    /// Connections that were banned for sending wrong data.
    pub banned: u64,
    /// The workers' counters, added up.
    pub engine: StatisticsSnapshot,
    /// The workers' histograms, added up, by name.
    pub histograms: Vec<(&'static str, HistogramSummary)>,
    /// Torrents with peers, those with the most first, up to [`STATUS_TORRENTS_MAX`](crate::limits::STATUS_TORRENTS_MAX).
    pub busiest: Vec<TorrentStatus>,
}

/// One torrent's figures at one moment.
#[derive(Clone, Copy, Debug)]
pub struct TorrentStatus {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Peers that have finished their handshake.
    pub peers: u64,
    /// Bytes of blocks sent in this run.
    pub uploaded: u64,
    /// Bytes wanted and bytes of them that are not here, of a torrent that is downloaded.
    pub download: Option<(u64, u64)>,
    /// What its connections have waited for.
    pub waited: WaitTimes,
}

/// How far downloads are, added up.
#[derive(Clone, Copy, Debug, Default)]
pub struct DownloadStatus {
    /// Bytes wanted.
    pub wanted: u64,
    /// Bytes of those that are not here yet.
    pub left: u64,
    /// Bytes of blocks a second, smoothed.
    pub rate: ByteRate,
    /// Time until everything is here at this rate; `None` while nothing comes.
    pub eta: Option<Duration>,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The user asked for it.
    Asked,
    /// As many downloads as were wanted have been completed.
    Served,
    /// A worker has ended by itself, for this reason.
    WorkerEnded(String),
    /// There is no torrent that could be served, and none may come.
    NothingLeft,
    /// Everything is downloaded, and was given on as far as was wanted.
    Downloaded,
}
