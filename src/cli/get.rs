//! `seedring get`: a torrent or magnet link becomes files, and is given on while it comes.

use super::CommandError;
use super::create::tracker_url;
use super::engine_args::{EngineArgs, UnnamedPort, download_limit};
use super::output;
use super::show;
use super::view::View;
use crate::clock;
use crate::engine::{Engine, EngineEvent};
use crate::id::PeerId;
use crate::metainfo::{Magnet, Metainfo};
use crate::picker::Order;
use crate::secret_url::{Keys, TrackerUrl};
use crate::service;
use crate::session::downloading::{DownloadOptions, Planned};
use crate::session::magnet_fetch::{self, FetchOptions};
use crate::session::metrics_server::MetricsServer;
use crate::session::patterns::pattern_rule;
use crate::session::seeding::{
    Arrival, Ending, OwnTracker, Seeding, SeedingSettings, SessionEvent, Until, reachable,
};
use crate::session::torrent_file::{read_torrent, write_new_file};
use crate::storage::{Allocation, Content, default_state_dir, raise_file_limit};
use crate::time::Duration;
use crate::tracker_client::{ClientConfig, Identity, TrackerClient};
use crate::units::ByteRate;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::{mpsc, oneshot};

/// Download a torrent, and give it on while it comes.
///
/// Ends when everything is here, unless --seed, --seed-ratio or --seed-time say to go on. Stopped in the middle
/// (Ctrl-C, a crash, a full disk) it goes on from there when it is started again. Another client's copy is gone on with, too:
/// what is right of it stays, and a file in it that turns out to hold something else is kept as NAME.before-download.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seedring get debian.torrent -o /srv/iso\n  \
    seedring get \"magnet:?xt=urn:btih:...\" --seed-ratio 2\n  \
    seedring get album.torrent --only '*.flac' --seed")]
pub struct GetArgs {
    /// The .torrent file or magnet link
    #[arg(value_name = "TORRENT|MAGNET", value_hint = clap::ValueHint::FilePath)]
    torrent: String,
    /// The folder to save in; made if it is not there
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    #[arg(long, value_name = "GLOB", help = concat!("Only the files that match, as '*.mkv' or 'extras/*'; repeatable. ", pattern_rule!()))]
    only: Vec<String>,
    /// Files to have before the others, by a pattern as that of --only; repeatable
    #[arg(long, value_name = "GLOB")]
    first: Vec<String>,
    /// A peer to ask, besides those that trackers name; repeatable. Not for private torrents
    #[arg(long, value_name = "IP:PORT")]
    peer: Vec<SocketAddr>,
    /// A tracker to announce to, besides those of the torrent; repeatable. A private torrent is announced to its own
    /// trackers only
    #[arg(long, value_name = "URL", value_parser = tracker_url)]
    tracker: Vec<TrackerUrl>,
    /// Announce to the --tracker given and to no other, a private torrent, too
    #[arg(long, requires = "tracker")]
    replace_trackers: bool,
    /// When everything is here, go on seeding until told to stop
    #[arg(long, conflicts_with_all = ["seed_ratio", "seed_time"])]
    seed: bool,
    /// When everything is here, go on until so many times its size was given to others
    #[arg(long, value_name = "X", value_parser = ratio, conflicts_with = "seed_time")]
    seed_ratio: Option<f64>,
    /// When everything is here, go on for so long, as 90s, 30m, 12h or 7d
    #[arg(long, value_name = "TIME", value_parser = duration)]
    seed_time: Option<Duration>,
    /// Download limit, as 10MB/s
    #[arg(long, value_name = "RATE", value_parser = download_limit)]
    download_limit: Option<ByteRate>,
    /// Take pieces in order, to play while downloading; slower for everybody
    #[arg(long)]
    sequential: bool,
    /// Write over files in the way that are not this torrent's, and cut off those that are longer
    #[arg(long)]
    overwrite: bool,
    /// Reserve all disk space first, so that a full disk is told before the download
    #[arg(long)]
    preallocate: bool,
    #[command(flatten)]
    engine: EngineArgs,
    /// Show trackers and magnet links with the keys in them (passkeys, passwords); errors and the log never have them
    #[arg(long)]
    show_keys: bool,
    /// Print one JSON object a line: events, and the figures each second
    #[arg(long)]
    json: bool,
    /// Serve figures for Prometheus (OpenMetrics for who asks for it) at http://IP:PORT/metrics; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Where to remember what is here [default: $XDG_STATE_HOME/seedring or ~/.local/state/seedring]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Time for which a download waits until the description of its torrent has been written down.
const REMEMBERING_PATIENCE: Duration = Duration::from_secs(1);
/// Time after which a check that was told to break off and has not is taken for one that hangs.
const CHECK_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(args: GetArgs) -> Result<(), CommandError> {
    // A low limit is told by the error of whatever needs more.
    let _ = raise_file_limit();
    let source = Source::read(&args.torrent)?;
    let view = Arc::new(View::new(args.json, Keys::shown_if(args.show_keys)));
    let metrics = args.metrics.map(MetricsServer::bind).transpose()?;
    let (engine, engine_events) = args.engine.start(args.download_limit, UnnamedPort::OrAny)?;
    if let Some(text) = args.engine.port_taken_instead(&engine) {
        view.complain(&text);
    }
    service::run(get(args, source, engine, engine_events, metrics, view))?
}

/// What the user named.
enum Source {
    Torrent(Box<Metainfo>),
    Magnet(Box<Magnet>),
}

impl Source {
    fn read(text: &str) -> Result<Self, CommandError> {
        if text.len() >= 7 && text.as_bytes()[..7].eq_ignore_ascii_case(b"magnet:") {
            return Ok(Self::Magnet(Box::new(Magnet::parse(text)?)));
        }
        Ok(Self::Torrent(Box::new(read_torrent(Path::new(text))?)))
    }
}

async fn get(
    args: GetArgs,
    source: Source,
    engine: Engine<Content>,
    engine_events: mpsc::Receiver<EngineEvent>,
    metrics: Option<MetricsServer>,
    view: Arc<View>,
) -> Result<(), CommandError> {
    let mut shutdown = std::pin::pin!(output::asked_to_end(service::shutdown_or_hangup()?));
    let state_dir = args.state_dir.clone().or_else(default_state_dir);
    let mut rng = clock::random_rng();
    // The fetch of a magnet link's description and the download are one client to trackers.
    let (peer_id, tracker_key) = (PeerId::generate(&mut rng), rng.next_u64() as u32);
    let listening = engine.addresses().to_vec();
    let port = listening.first().map_or(0, SocketAddr::port);
    let metrics_address = metrics.as_ref().map(|metrics| reachable(metrics.address()));
    view.begin(&listening, metrics_address);
    let mut peers = args.peer.clone();
    let (metainfo, only_indices) = match source {
        Source::Torrent(metainfo) => (*metainfo, None),
        Source::Magnet(magnet) => {
            peers.extend(magnet.peers.iter().filter_map(|peer| peer.parse::<SocketAddr>().ok()));
            let known = state_dir.as_deref().map(|folder| info_path(folder, &magnet));
            let found = match known.clone() {
                Some(path) => {
                    let of = magnet.clone();
                    let found = service::apart(move || remembered(&path, &of))?;
                    tokio::select! {
                        found = found => found.flatten(),
                        () = &mut shutdown => {
                            return Err("stopped before the state folder had answered".into());
                        }
                    }
                }
                None => None,
            };
            let metainfo = match found {
                Some(metainfo) => metainfo,
                None => {
                    let identity = Identity {
                        info_hash: magnet.info_hash,
                        peer_id,
                        port,
                        key: tracker_key,
                        num_want: None,
                    };
                    let mut options = FetchOptions::new(identity, args.engine.encryption);
                    (options.peers, options.trackers, options.bind) =
                        (peers.clone(), args.tracker.clone(), args.engine.bind);
                    let mut config = ClientConfig::from_environment();
                    if let Some(bind) = args.engine.bind {
                        config = config.bound_to(bind);
                    }
                    let client = Rc::new(TrackerClient::new(config)?);
                    let mut tell = |progress| view.fetching(progress);
                    let fetched = tokio::select! {
                        fetched = magnet_fetch::fetch(&magnet, client, options, &mut tell) => fetched?,
                        () = &mut shutdown => return Err("stopped before the torrent's description was here".into()),
                    };
                    peers.extend(fetched.peers);
                    if let Some(path) = known {
                        // Without it the next start asks peers again.
                        let bytes = fetched.metainfo.info_bytes().to_vec();
                        let written = service::apart(move || write_new_file(&path, &bytes).is_ok())?;
                        let _ = tokio::time::timeout(REMEMBERING_PATIENCE, written).await;
                    }
                    fetched.metainfo
                }
            };
            let file_count = u32::try_from(metainfo.info().files().len()).unwrap_or(u32::MAX);
            if metainfo.info().private() {
                // Only now it is known to be; whom the link named is not dialled any more.
                peers.clone_from(&args.peer);
            }
            let selected = magnet.selected.as_ref().filter(|_| args.only.is_empty());
            (metainfo, selected.map(|selected| selected.indices(file_count).collect()))
        }
    };
    if let Some(first) = show::hidden(&metainfo).next() {
        let told = show::told_hidden(first, show::hidden(&metainfo).count());
        view.complain(&format!("hidden files: {told}"));
    }
    let options = DownloadOptions {
        root: args.output.clone(),
        only: args.only.clone(),
        first: args.first.clone(),
        only_indices,
        allocation: if args.preallocate { Allocation::Full } else { Allocation::Sparse },
        overwrite: args.overwrite,
        state_dir: state_dir.clone(),
        open_files_max: None,
    };
    let planning = service::apart(move || Planned::new(metainfo, options))?;
    let planned = tokio::select! {
        planned = planning => planned.ok_or("what is here could not be looked at")??,
        () = &mut shutdown => {
            let folder = args.output.display();
            return Err(format!("stopped before {folder} or the state folder had answered").into());
        }
    };
    let settings = SeedingSettings {
        slots: args.engine.upload_slots,
        torrent_upload_limit: None,
        trackers: args.tracker,
        replace_trackers: args.replace_trackers,
        bind: args.engine.bind,
        once: None,
        until: match (args.seed, args.seed_ratio, args.seed_time) {
            (true, ..) => Until::Asked,
            (_, Some(ratio), _) => Until::Ratio(ratio),
            (_, _, Some(time)) => Until::Time(time),
            _ => Until::Downloaded,
        },
        peers,
        peer_id: Some(peer_id),
        tracker_key: Some(tracker_key),
        order: if args.sequential { Order::Sequential } else { Order::RarestFirst },
        super_seed: false,
        state_dir,
    };
    let cancel = Arc::new(AtomicBool::new(false));
    let (arrivals, checked) = open(planned, Arc::clone(&cancel), Arc::clone(&view))?;
    let mut session = Seeding::start(settings, engine, engine_events, OwnTracker::Never)?;
    if let Some(metrics) = metrics {
        session.serve_metrics(metrics)?;
    }
    let (mut failed, mut has_begun) = (None, false);
    let ending = session
        .run(arrivals, shutdown, |event| {
            has_begun |= matches!(event, SessionEvent::Serving(_));
            if let SessionEvent::Failed { reason, .. } = &event {
                failed = Some(reason.clone());
                if !args.json {
                    // It is the last thing that the user reads.
                    return;
                }
            }
            view.tell(event);
        })
        .await;
    cancel.store(true, Relaxed);
    view.end();
    let left = session.stop().await;
    match ending {
        Ending::WorkerEnded(why) => Err(why.into()),
        Ending::NothingLeft => Err(failed.unwrap_or_else(|| "nothing is left to do".to_owned()).into()),
        Ending::Asked if !has_begun => {
            // Its other end goes with the thread.
            let hangs = tokio::time::timeout(CHECK_PATIENCE, checked).await.is_err();
            let why = match hangs {
                true => format!("{} or the state folder does not answer", args.output.display()),
                false => "it was not yet known what is here".to_owned(),
            };
            Err(format!("stopped before the download began: {why}; the same command starts again").into())
        }
        // What was downloaded is no use when the disk did not take it.
        Ending::Asked | Ending::Served | Ending::Downloaded => match left? {
            0 => Ok(()),
            left => {
                let left = crate::units::ByteSize(left);
                Err(format!("stopped with {left} to go; the same command goes on from here").into())
            }
        },
    }
}

/// Where the description of a magnet link's torrent is remembered, so that the next start need not ask for it.
fn info_path(state_dir: &Path, magnet: &Magnet) -> PathBuf {
    state_dir.join(format!("{}.info", magnet.info_hash))
}

/// What was remembered; whatever it is, it is believed only when its hash is the link's.
fn remembered(path: &Path, magnet: &Magnet) -> Option<Metainfo> {
    let bytes = std::fs::read(path).ok()?;
    Metainfo::from_magnet(magnet, &bytes).ok()
}

/// Checks what has to be checked and opens the files, on a thread of its own. What is returned besides is ready when that
/// has ended.
fn open(
    planned: Planned,
    cancel: Arc<AtomicBool>,
    view: Arc<View>,
) -> std::io::Result<(mpsc::Receiver<Arrival>, oneshot::Receiver<()>)> {
    let (arrivals, receiver) = mpsc::channel(1);
    let (ended, has_ended) = oneshot::channel::<()>();
    std::thread::Builder::new().name("checker".to_owned()).spawn(move || {
        let (name, info_hash) = (planned.metainfo.info().name().to_owned(), planned.metainfo.info_hash());
        let len = planned.check_len();
        let progress = (len > 0).then(|| view.checking(&name, info_hash, len));
        let on_progress = |bytes| progress.iter().for_each(|progress| progress.add(bytes));
        let arrival = match planned.open(&on_progress, &cancel) {
            Ok(checked) => Arrival::Ready(Box::new(checked)),
            Err(error) => Arrival::Failed { name, info_hash, reason: super::with_causes(&error) },
        };
        drop(progress);
        if !cancel.load(Relaxed) {
            // The session may have ended already.
            let _ = arrivals.blocking_send(arrival);
        }
        drop(ended);
    })?;
    Ok((receiver, has_ended))
}

fn ratio(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|ratio: &f64| ratio.is_finite() && *ratio >= 0.0)
        .ok_or("write a number, as 1.5".to_owned())
}

fn duration(text: &str) -> Result<Duration, String> {
    let complaint = || "write a number and a unit, as 90s, 30m, 12h or 7d".to_owned();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| complaint())?;
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return Err(complaint()),
    };
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(complaint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_ratios_are_read_as_people_write_them() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("5", 5)] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        assert!(["", "h", "1w", "-1s", "99999999999999999999d"].iter().all(|text| duration(text).is_err()));
        assert_eq!(ratio("1.5"), Ok(1.5));
        assert!(["-1", "inf", "nan", "x"].iter().all(|text| ratio(text).is_err()));
    }
}
