//! `seedring seed`: files and folders become torrents, torrents are served until the user has had enough.

mod inputs;
mod keep;
mod load;

use super::CommandError;
use super::create::{ChoiceArgs, piece_length, tracker_url};
use super::engine_args::{EngineArgs, UnnamedPort};
use super::output;
use super::terminal::Terminal;
use super::view::View;
use crate::engine::{Engine, EngineEvent};
use crate::picker::Order;
use crate::secret_url::{Keys, TrackerUrl};
use crate::service;
use crate::session::content::Located;
use crate::session::metrics_server::MetricsServer;
use crate::session::seeding::{
    Ending, OwnTracker, Seeding, SeedingSettings, SessionEvent, Until, announce_urls, reachable,
    reaches_nobody,
};
use crate::storage::{Content, default_state_dir, descriptor_shares, raise_file_limit};
use crate::time::Duration;
use crate::tracker_server::{TrackerConfig, TrackerServer};
use crate::units::ByteRate;
use keep::ToKeeper;
use load::Loader;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::mpsc;

/// Seed files, folders or torrents, tracker included.
///
/// A file or folder is hashed and becomes NAME.torrent in the current folder. A .torrent is served from the
/// content under --data: at once when its files have not changed since they were last checked, otherwise
/// after a check. Give others the .torrent or the magnet link; SIGINT (Ctrl-C) or SIGTERM ends it cleanly,
/// and so does a reader of its output that goes away.
///
/// It goes on until then: content that vanishes is served again when it is back, files that were missing are served when they
/// come, and folders of --torrents are watched, empty ones, too. SIGHUP has folders, torrent files and content looked at again
/// at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  seedring seed holiday-videos\n  \
    seedring seed debian.torrent --data /srv/iso --upload-limit 50MB/s\n  \
    seedring seed --torrents /srv/torrents --data /srv/content --json")]
pub struct SeedArgs {
    /// Files or folders to share, or .torrent files whose content lies under --data
    #[arg(value_name = "PATH", required_unless_present = "torrents")]
    paths: Vec<PathBuf>,
    /// Where to write the .torrent of a file or folder; only a torrent is replaced there [default: NAME.torrent in the
    /// current folder]
    #[arg(long, value_name = "FILE")]
    torrent: Option<PathBuf>,
    /// The folder that holds the content of .torrent files [default: the folder of each .torrent]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Seed every .torrent in this folder, those that come, change or go later, too; folders in it are not looked into;
    /// repeatable
    #[arg(long, value_name = "DIR")]
    torrents: Vec<PathBuf>,
    /// A tracker to announce to, in place of the embedded one and besides those of the torrents; repeatable. Private
    /// torrents are announced to their own trackers only
    #[arg(long, value_name = "URL", value_parser = tracker_url)]
    tracker: Vec<TrackerUrl>,
    /// Announce to the --tracker given and to no other, private torrents included
    #[arg(long, requires = "tracker")]
    replace_trackers: bool,
    /// Start no embedded tracker
    #[arg(long)]
    no_tracker: bool,
    /// The name or IP under which others reach the embedded tracker, for torrents and magnet links [default: the address
    /// that this machine's default route leaves from]
    #[arg(long, value_name = "HOST", value_parser = tracker_host, conflicts_with_all = ["tracker", "no_tracker"])]
    tracker_name: Option<String>,
    /// Port of the embedded tracker, HTTP and UDP; 0 takes any free one
    #[arg(long, value_name = "N", default_value_t = 6969)]
    tracker_port: u16,
    #[command(flatten)]
    engine: EngineArgs,
    /// Upload limit of each torrent
    #[arg(long, value_name = "RATE")]
    torrent_upload_limit: Option<ByteRate>,
    /// Bytes of a piece of new torrents, a power of two from 16KiB to 256MiB [default: 256KiB, growing for
    /// large content]
    #[arg(long, value_name = "SIZE", value_parser = piece_length)]
    piece_length: Option<u32>,
    #[command(flatten)]
    choice: ChoiceArgs,
    /// Follow symbolic links in the content of torrents, which are your own: files, folders, or the whole of it
    #[arg(long)]
    follow_links: bool,
    /// Show each peer one piece at a time until the peers have all of them together (BEP 16): for the first and only
    /// seed on a slow line
    #[arg(long)]
    super_seed: bool,
    /// Show trackers and magnet links with the keys in them (passkeys, passwords); errors and the log never have them
    #[arg(long)]
    show_keys: bool,
    /// Print one JSON object a line: events, and the figures each second
    #[arg(long)]
    json: bool,
    /// Stop after N complete downloads by others
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    once: Option<u64>,
    /// Serve figures for Prometheus (OpenMetrics for who asks for it) at http://IP:PORT/metrics; port 0 takes any free one
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Where to remember what was checked [default: $XDG_STATE_HOME/seedring or ~/.local/state/seedring]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
}

/// Time after which a check that was told to break off and has not is taken for one that hangs.
const CHECK_PATIENCE: Duration = Duration::from_secs(1);

/// Runs the command.
pub fn run(args: SeedArgs) -> Result<(), CommandError> {
    // A low limit is told by the error of whatever needs more.
    let _ = raise_file_limit();
    let view = View::new(args.json, Keys::shown_if(args.show_keys));
    let metrics = args.metrics.map(MetricsServer::bind).transpose()?;
    let (engine, engine_events) = args.engine.start(None, UnnamedPort::OrFail)?;
    let tracker = own_tracker(&args)?;
    let trackers = match &tracker {
        OwnTracker::Bound { server, name } => {
            if let Some(why) = reaches_nobody(server, name.as_deref()) {
                view.complain(why);
            }
            announce_urls(server, name.as_deref())
        }
        OwnTracker::WhenNeeded { .. } | OwnTracker::Never => args.tracker.clone(),
    };
    let state_dir = args.state_dir.clone().or_else(default_state_dir);
    let (inputs, located) = inputs::gather(&args, &trackers, state_dir.as_deref(), &view)?;
    let peers: Vec<SocketAddr> = engine.addresses().iter().copied().map(reachable).collect();
    let metrics_address = metrics.as_ref().map(|metrics| reachable(metrics.address()));
    view.begin(&peers, metrics_address);
    let settings = SeedingSettings {
        slots: args.engine.upload_slots,
        torrent_upload_limit: args.torrent_upload_limit,
        trackers: args.tracker,
        replace_trackers: args.replace_trackers,
        bind: args.engine.bind,
        once: args.once,
        until: Until::Asked,
        peers: Vec::new(),
        peer_id: None,
        tracker_key: None,
        order: Order::RarestFirst,
        super_seed: args.super_seed,
        state_dir,
    };
    let sockets = Sockets { tracker, metrics };
    service::run(serve(settings, engine, engine_events, sockets, (inputs, located), view))?
}

/// What listens beside the engine.
struct Sockets {
    tracker: OwnTracker,
    metrics: Option<MetricsServer>,
}

async fn serve(
    settings: SeedingSettings,
    engine: Engine<Content>,
    engine_events: mpsc::Receiver<EngineEvent>,
    sockets: Sockets,
    (inputs, located): (inputs::Inputs, Vec<Located>),
    view: View,
) -> Result<(), CommandError> {
    let terminal = Terminal::at_start();
    let signal = output::asked_to_end(service::shutdown_signal()?);
    let mut hangups = service::hangups()?;
    let (inputs, view) = (Arc::new(inputs), Arc::new(view));
    let cancel = Arc::new(AtomicBool::new(false));
    let (loader, arrivals) = Loader::new(Arc::clone(&cancel), Arc::clone(&view))?;
    let checks = loader.checks.clone();
    let keeper = keep::start(&inputs, &loader)?;
    loader.start(located, inputs, keeper.clone())?;
    let reload = (keeper.clone(), Arc::clone(&view));
    let hangup = async move {
        let (keeper, view) = reload;
        while hangups.recv().await.is_some() && !terminal.is_gone() {
            view.reloading();
            // It ends after this.
            let _ = keeper.send(ToKeeper::Hangup);
        }
    };
    let shutdown = async {
        tokio::select! {
            () = signal => {}
            () = hangup => {}
        }
    };
    let mut session = Seeding::start(settings, engine, engine_events, sockets.tracker)?;
    if let Some(metrics) = sockets.metrics {
        session.serve_metrics(metrics)?;
    }
    let ending = session
        .run(arrivals, shutdown, |event| {
            // What was lost is looked for from now on, and what has come is looked at.
            let to_keeper = match &event {
                SessionEvent::Lost { info_hash } => Some(ToKeeper::Lost(*info_hash)),
                SessionEvent::Changed { info_hash } => Some(ToKeeper::Changed(*info_hash)),
                SessionEvent::Renewed { info_hash } => Some(ToKeeper::Renewed(*info_hash)),
                _ => None,
            };
            to_keeper.into_iter().for_each(|message| _ = keeper.send(message));
            view.tell(event);
        })
        .await;
    cancel.store(true, Relaxed);
    // It may be waiting for nobody any more.
    let _ = keeper.send(ToKeeper::End);
    view.end();
    // A fault of content that nobody seeds any more harms nobody.
    let _ = session.stop().await;
    for name in checks.leave(CHECK_PATIENCE) {
        tracing::warn!(%name, "its storage does not answer; its check was not waited for");
    }
    match ending {
        Ending::WorkerEnded(why) => Err(why.into()),
        Ending::NothingLeft => Err("no torrent is left to seed; the lines above say why".into()),
        Ending::Asked | Ending::Served | Ending::Downloaded => Ok(()),
    }
}

/// The embedded tracker: bound at once where torrents are made, since its addresses stand in them; otherwise when one
/// needs it.
fn own_tracker(args: &SeedArgs) -> Result<OwnTracker, CommandError> {
    if args.no_tracker || !args.tracker.is_empty() {
        return Ok(OwnTracker::Never);
    }
    let mut config = TrackerConfig::on_port(args.tracker_port);
    if let Some(bind) = args.engine.bind {
        let address = SocketAddr::new(bind, args.tracker_port);
        (config.http, config.udp) = (vec![address], vec![address]);
    }
    // What strangers open here is not to be missing elsewhere.
    config.http_connections_max = descriptor_shares().http;
    let name = args.tracker_name.clone();
    if !inputs::makes_torrents(args) {
        return Ok(OwnTracker::WhenNeeded { config, name });
    }
    let server = TrackerServer::bind(config).map_err(|error| {
        let cure = "name another port with --tracker-port, or a tracker with --tracker, or have none with --no-tracker";
        format!("the embedded tracker does not start: {}; {cure}", super::with_causes(&error))
    })?;
    Ok(OwnTracker::Bound { server, name })
}

/// A host as it stands in an address, without scheme, port and path.
fn tracker_host(text: &str) -> Result<String, String> {
    let is_v6 = text.trim_matches(['[', ']']).parse::<std::net::Ipv6Addr>().is_ok();
    let host = if is_v6 { format!("[{}]", text.trim_matches(['[', ']'])) } else { text.to_owned() };
    match url::Url::parse(&format!("http://{host}/")) {
        Ok(url) if url.host_str() == Some(&host.to_ascii_lowercase()) && url.path() == "/" => Ok(host),
        _ => Err("write a name or an IP only, as seed.example or 192.0.2.7".to_owned()),
    }
}
