//! A session: the engine, the embedded tracker, announces, torrents that are seeded or downloaded, and what the user
//! hears of all that.
//!
//! It lives on the service thread; payload never comes near it. Everything here may fail without losing
//! anything: faults stay with their content and are looked for every second, figures are read, not told.

mod announce_plan;
mod arrival;
mod completions;
mod departed;
mod embedded;
mod figures;
mod first_announces;
mod news;
mod terms;

pub use arrival::Arrival;
pub use embedded::{OwnTracker, announce_urls, reachable, reaches_nobody};
pub use terms::{
    DownloadStatus, Ending, SeedingSettings, Serving, SessionEvent, Status, TorrentStatus, Until,
};

use super::content::{Checked, ServedContent};
use super::metrics_server::{MetricsError, MetricsServer, Scrape, Scrapes};
use super::storage_sink::StorageSink;
use super::watch::{Watched, Watcher};
use crate::announcer::{Announcer, AnnouncerConfig};
use crate::bitfield::{Bitfield, SharedBitfield};
use crate::choker::Role;
use crate::clock;
use crate::engine::{Download, Engine, EngineEvent, SharedTorrent, TorrentCounts};
use crate::id::{InfoHash, PeerId};
use crate::limits::{ANNOUNCE_JITTER_PERCENT, FIRST_ANNOUNCE_SPREAD};
use crate::metainfo::{Magnet, Metainfo};
use crate::meter::Meter;
use crate::peer::{InfoDictionary, TorrentFacts};
use crate::peer_list::Source;
use crate::pipeline::{RateGate, burst_for};
use crate::rng::Rng;
use crate::secret_url::TrackerUrl;
use crate::storage::{Content, Finisher, Layout};
use crate::time::{Duration, Instant};
use crate::torrent::{DownloadPlan, TorrentParameters};
use crate::tracker_client::{
    ClientConfig, Command, Identity, Progress, TrackerClient, TrackerError, TrackerEvent, run_announcer,
};
use crate::tracker_wire::{AddressFamily, AnnounceEvent};
use announce_plan::{AnnouncePlan, Means, Told};
use completions::Completions;
use departed::{Departed, Failed, announce_after};
use embedded::EmbeddedTracker;
use figures::missing_len;
use first_announces::FirstAnnounces;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// Time between two looks at the figures.
const TICK_INTERVAL: Duration = Duration::from_secs(1);
/// Time the whole farewell may take: the contract is five seconds.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(3500);
/// Ticks between two looks at torrents without peers; a fault that the watcher finds is looked for at once.
const FULL_LOOK_TICKS: u32 = 60;
/// Candidates taken from one tracker's answer.
const CANDIDATES_PER_ANNOUNCE_MAX: usize = 200;
/// Completed downloads remembered for `--once`; above it the oldest names are forgotten and may count twice.
const COMPLETED_MAX: usize = 100_000;

/// A running session.
pub struct Seeding {
    settings: SeedingSettings,
    engine: Engine<Content>,
    engine_events: mpsc::Receiver<EngineEvent>,
    tracker: EmbeddedTracker,
    torrents: BTreeMap<InfoHash, Running>,
    client: Rc<TrackerClient>,
    families: Vec<AddressFamily>,
    tracker_events: (mpsc::Sender<TrackerEvent>, mpsc::Receiver<TrackerEvent>),
    working_trackers: BTreeMap<(InfoHash, TrackerUrl), bool>,
    watcher: Watcher,
    completed: Completions,
    first_announces: FirstAnnounces,
    departed: Departed,
    rate: Meter,
    download_rate: Meter,
    banned: u64,
    finisher: Arc<Finisher>,
    metrics: Option<Scrapes>,
    rng: Rng,
    has_served: bool,
    /// Torrents that cannot be served now.
    failed: Failed,
    /// When the session started, in seconds of Unix time.
    started_at: u64,
    /// Torrents may come as long as it runs.
    more_may_come: bool,
    ticks_to_full_look: u32,
}

struct Running {
    shared: Arc<SharedTorrent<Content>>,
    name: String,
    uploaded_before: u64,
    download: Option<Wanted>,
    stored: Arc<SharedBitfield>,
    progress: watch::Sender<Progress>,
    commands: mpsc::Sender<Command>,
    announcer: JoinHandle<()>,
}

/// What is wanted of a torrent that is downloaded.
struct Wanted {
    pieces: Bitfield,
    layout: Arc<Layout>,
    len: u64,
    /// When everything was here.
    done_at: Option<Instant>,
    /// Everything has come, and has to be looked at before it counts, since somebody else may have written there.
    is_doubtful: bool,
}

impl Seeding {
    /// A session without torrents. Must be called on the service thread.
    pub fn start(
        settings: SeedingSettings,
        engine: Engine<Content>,
        engine_events: mpsc::Receiver<EngineEvent>,
        tracker: OwnTracker,
    ) -> Result<Self, TrackerError> {
        let mut config = ClientConfig::from_environment();
        if let Some(bind) = settings.bind {
            config = config.bound_to(bind);
        }
        let families = config.families();
        let client = Rc::new(TrackerClient::new(config)?);
        let watcher = Watcher::start(settings.state_dir.clone());
        Ok(Self {
            settings,
            engine,
            engine_events,
            tracker: EmbeddedTracker::new(tracker),
            torrents: BTreeMap::new(),
            client,
            families,
            tracker_events: mpsc::channel(1024),
            working_trackers: BTreeMap::new(),
            watcher,
            completed: Completions::remembering(COMPLETED_MAX),
            first_announces: FirstAnnounces::default(),
            departed: Departed::default(),
            rate: Meter::new(),
            download_rate: Meter::new(),
            banned: 0,
            finisher: Arc::new(Finisher::start(storage_threads())),
            metrics: None,
            rng: clock::random_rng(),
            has_served: false,
            failed: Failed::default(),
            started_at: clock::unix_seconds(),
            more_may_come: false,
            ticks_to_full_look: 0,
        })
    }

    /// Answers whoever asks for metrics from now on, while [`Self::run`] runs.
    ///
    /// # Errors
    /// When the socket cannot be handed to the runtime.
    pub fn serve_metrics(&mut self, server: MetricsServer) -> Result<(), MetricsError> {
        self.metrics = Some(server.serve()?);
        Ok(())
    }

    /// Serves until `shutdown` is ready or there is nothing more to do. Torrents come through `arrivals` as
    /// they are found good; the channel's end says that no more will, and then the session ends with its last torrent. As long as
    /// it is open the session goes on without any, once it has served one or [`Arrival::Started`] has said that more may come.
    pub async fn run(
        &mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        shutdown: impl Future<Output = ()>,
        mut tell: impl FnMut(SessionEvent),
    ) -> Ending {
        let mut shutdown = std::pin::pin!(shutdown);
        let mut tick = tokio::time::interval(TICK_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut more_arrive, mut is_starting) = (true, true);
        let ending = loop {
            tokio::select! {
                () = &mut shutdown => break Ending::Asked,
                arrival = arrivals.recv(), if more_arrive => match arrival {
                    Some(Arrival::Started { more_may_come, waiting_for }) => {
                        is_starting = false;
                        self.more_may_come = more_may_come || !waiting_for.is_empty();
                        self.tell_ready(waiting_for, &mut tell);
                    }
                    Some(arrival) => self.handle_arrival(arrival, &mut tell),
                    None => {
                        more_arrive = false;
                        if std::mem::take(&mut is_starting) {
                            self.tell_ready(Vec::new(), &mut tell);
                        }
                    }
                },
                Some(event) = self.engine_events.recv() => self.handle_engine_event(event, &mut tell),
                Some(event) = self.tracker_events.1.recv() => self.handle_tracker_event(event, &mut tell),
                Some(done) = self.tracker.next_completed() => {
                    self.count_completed(done.info_hash, done.peer_id, &mut tell);
                }
                Some(scrape) = next_scrape(&mut self.metrics) => {
                    // Who asked may have left.
                    let _ = scrape.reply.send(self.metrics_text(scrape.format));
                }
                _ = tick.tick() => self.tick(&mut tell),
            }
            if let Some(why) = self.engine.failure() {
                break Ending::WorkerEnded(why.to_owned());
            }
            if self.settings.once.is_some_and(|wanted| self.completed.count() >= wanted) {
                break Ending::Served;
            }
            // What has been served once may come back, and so may what a folder is watched for.
            let may_come = more_arrive && (is_starting || self.has_served || self.more_may_come);
            if !may_come && self.torrents.is_empty() {
                break Ending::NothingLeft;
            }
            if !is_starting && self.has_given_enough() {
                break Ending::Downloaded;
            }
        };
        // The last figures of a run are those that count.
        if self.has_served || self.more_may_come {
            tell(SessionEvent::Ended(Box::new(self.status())));
        }
        ending
    }

    fn tell_ready(&self, waiting_for: Vec<String>, tell: &mut impl FnMut(SessionEvent)) {
        if !self.torrents.is_empty() || self.more_may_come {
            tell(SessionEvent::Ready { torrents: self.torrents.len(), waiting_for });
        }
    }

    /// Tells trackers, closes connections, stores what is on its way, writes resume files. Within the five seconds of
    /// the contract. Answers the bytes wanted that are not here, after the last piece has been stored.
    ///
    /// # Errors
    /// What the user has to know of content that turns out bad at the last moment: the disk did not take it.
    pub async fn stop(mut self) -> Result<u64, String> {
        self.metrics = None;
        let torrents = std::mem::take(&mut self.torrents);
        let mut announcers: Vec<_> = std::mem::take(&mut self.departed).into_announcers().collect();
        let (mut left, mut names) = (Vec::new(), BTreeMap::new());
        for (info_hash, running) in torrents {
            running.report_progress();
            drop(running.commands);
            announcers.push(running.announcer);
            left.push((info_hash, running.shared, running.download.zip(Some(running.stored))));
            names.insert(info_hash, running.name);
        }
        let farewell = async {
            for announcer in announcers {
                // An announcer that panicked has nothing left to say.
                let _ = announcer.await;
            }
        };
        let events = async { while self.tracker_events.1.recv().await.is_some() {} };
        tokio::select! {
            _ = tokio::time::timeout(FAREWELL_TIMEOUT, farewell) => {}
            () = events => {}
        }
        let _ = tokio::time::timeout(Duration::from_millis(200), self.tracker.stop()).await;
        // In this order: nothing comes any more, what has come is stored, and then it is noted.
        let mut unanswered = self.engine.leave();
        for path in self.finisher.finish() {
            tracing::warn!(path = %path.display(), "its storage does not answer; what was to be written there was given up");
        }
        for (info_hash, ..) in &left {
            self.watcher.forget(*info_hash);
        }
        unanswered.extend(self.watcher.leave());
        for name in unanswered.iter().filter_map(|info_hash| names.get(info_hash)) {
            tracing::warn!(%name, "its storage does not answer; it was not waited for");
        }
        if let Some(fault) = left.iter().find_map(|(_, shared, _)| shared.content.fault()) {
            return Err(fault);
        }
        let missing = left.iter().filter_map(|(.., download)| {
            let (wanted, stored) = download.as_ref()?;
            let is_here = |piece| stored.contains(piece);
            Some(missing_len(&wanted.layout, &wanted.pieces, is_here))
        });
        Ok(missing.sum())
    }

    fn handle_arrival(&mut self, arrival: Arrival, tell: &mut impl FnMut(SessionEvent)) {
        match arrival {
            Arrival::Ready(checked) => self.add(*checked, false, tell),
            Arrival::Anew(checked) => {
                let info_hash = checked.metainfo.info_hash();
                // What has failed meanwhile is looked at again by whoever was told of that.
                if self.leave(info_hash).is_some() {
                    self.add(*checked, true, tell);
                    tell(SessionEvent::Renewed { info_hash });
                }
            }
            Arrival::LookAgain => self.watcher.look_again(),
            Arrival::Failed { name, info_hash, reason } => {
                self.failed.add(info_hash);
                tell(SessionEvent::Failed { name, info_hash, reason });
            }
            Arrival::Gone { info_hash, is_replaced } => self.take_away(info_hash, is_replaced, tell),
            // It is heard of where torrents come.
            Arrival::Started { .. } => {}
        }
    }

    fn add(&mut self, mut checked: Checked, is_renewed: bool, tell: &mut impl FnMut(SessionEvent)) {
        let info = checked.metainfo.info();
        let info_hash = checked.metainfo.info_hash();
        let name = info.name().to_owned();
        if self.torrents.contains_key(&info_hash) {
            return tell(SessionEvent::Warning(format!("{name} was named twice and is served once")));
        }
        let plan = match self.announce_plan(&checked) {
            Ok(plan) => plan,
            Err(reason) => {
                self.failed.add(info_hash);
                return tell(SessionEvent::Failed { name, info_hash, reason: reason.to_owned() });
            }
        };
        if plan.hosted {
            self.tracker.start().into_iter().for_each(&mut *tell);
        }
        self.failed.remove(info_hash);
        let departed = self.departed.take(info_hash);
        let is_back = departed.is_some();
        // Its resume file may not have been written yet.
        checked.uploaded = checked.uploaded.max(departed.as_ref().map_or(0, |(uploaded, _)| *uploaded));
        let piece_count = info.piece_count();
        let complete = checked.verified.is_full();
        let layout = Arc::clone(checked.content.layout());
        let wanted = checked.selection.as_ref().map(|selection| selection.wanted_pieces(&layout));
        let every = Bitfield::all(piece_count);
        let left =
            missing_len(&layout, wanted.as_ref().unwrap_or(&every), |piece| checked.verified.contains(piece));
        let is_download = wanted.is_some() && left > 0;
        let serving = Box::new(Serving {
            name: name.clone(),
            info_hash,
            torrent_file: checked.torrent_file.clone(),
            magnet: self.magnet(&checked.metainfo, &plan),
            trackers: self.trackers_besides(&plan).cloned().collect(),
            pieces: checked.verified.count(),
            piece_count,
            problems: checked.problems,
            own_trackers: plan.tiers.concat(),
            notes: plan.notes.clone(),
            left: if is_download { left } else { 0 },
            is_back,
            is_renewed,
        });
        let stored: Arc<SharedBitfield> = Arc::new(checked.verified.clone().into());
        let metainfo = Arc::new(checked.metainfo);
        let info = metainfo.info();
        let download = wanted.as_ref().filter(|_| is_download).and_then(|wanted| {
            let ServedContent::Download(content) = &checked.content else { return None };
            let content = content.clone();
            let shape = info.shape();
            let (have, wanted) = (checked.verified.clone(), wanted.clone());
            let first = checked.first.clone().unwrap_or_else(|| Bitfield::none(piece_count));
            let plan = DownloadPlan { shape, have, wanted, first, order: self.settings.order };
            let finisher = Arc::clone(&self.finisher);
            let sink = StorageSink::new(content, Arc::clone(&metainfo), finisher, Arc::clone(&stored));
            Some(Download { plan, sink: Arc::new(sink) })
        });
        let info_dictionary = match (&checked.content, &checked.torrent_file) {
            (ServedContent::OnDemand(_), Some(_)) => {
                let len = u32::try_from(metainfo.info_bytes().len()).unwrap_or(u32::MAX);
                InfoDictionary::absent(len)
            }
            _ => metainfo.info_bytes().into(),
        };
        let shared = Arc::new(SharedTorrent {
            facts: Arc::new(TorrentFacts {
                info_hash,
                piece_length: info.piece_length(),
                total_len: info.total_len(),
                have: checked.verified.clone().into(),
                info: Some(info_dictionary),
                satisfied: (!is_download).into(),
                private: info.private(),
                hides_stock: (self.settings.super_seed && checked.verified.is_full()).into(),
            }),
            content: checked.content.supply(info_hash, checked.torrent_file.as_deref()),
            home: self.engine.home_of(info_hash),
            parameters: TorrentParameters {
                role: if is_download { Role::Leeching } else { Role::Seeding },
                slots: self.settings.slots,
                piece_len: info.piece_length(),
                total_len: info.total_len(),
            },
            peer_id: self.settings.peer_id.unwrap_or_else(|| PeerId::generate(&mut self.rng)),
            gate: RateGate::new(
                self.settings.torrent_upload_limit,
                burst_for(self.settings.torrent_upload_limit),
            ),
            download,
            counts: TorrentCounts::default(),
        });
        self.engine.add(&shared);
        // A peer that hears of it may come at once.
        tell(SessionEvent::Serving(serving));
        self.has_served = true;
        self.watcher.watch(Watched {
            shared: Arc::clone(&shared),
            content: checked.content,
            is_noted: checked.is_noted,
            fingerprint: checked.fingerprint,
            verified: checked.verified,
            durable: checked.durable,
            stored: Arc::clone(&stored),
            uploaded_before: checked.uploaded,
            downloaded_before: checked.downloaded,
            selection: checked.selection,
            metainfo: wanted.is_some().then_some(metainfo),
        });
        if wanted.is_some() && !is_download {
            self.watcher.finished(info_hash);
        }
        if plan.dials_named && !self.settings.peers.is_empty() {
            self.engine.add_candidates(info_hash, self.settings.peers.clone(), Source::User);
        }
        if plan.hosted {
            let ip = self.settings.bind.unwrap_or(Ipv4Addr::UNSPECIFIED.into());
            self.tracker.admit(info_hash, complete.then(|| SocketAddr::new(ip, self.port())));
        }
        let progress = watch::Sender::new(Progress { uploaded: 0, downloaded: 0, left, partial: false });
        let stopping = departed.map(|(_, stopping)| stopping);
        let (commands, announcer) = self.announce(plan, &shared, progress.subscribe(), stopping);
        let uploaded_before = checked.uploaded;
        let download = wanted.map(|pieces| Wanted {
            len: missing_len(&layout, &pieces, |_| false),
            layout: Arc::clone(&layout),
            pieces,
            done_at: (!is_download).then(clock::now),
            is_doubtful: false,
        });
        if download.is_some() && !is_download {
            tell(SessionEvent::Downloaded { name: name.clone(), info_hash });
        }
        let running =
            Running { shared, name, uploaded_before, download, stored, progress, commands, announcer };
        running.report_progress();
        if running.progress.borrow().partial {
            // A fresh channel has room.
            let _ = running.commands.try_send(Command::Paused);
        }
        self.torrents.insert(info_hash, running);
    }

    /// Starts announcing a torrent to its trackers. The one embedded here has been told of whole torrents; a
    /// torrent with missing pieces announces there as everywhere, since it is no seed.
    fn announce(
        &mut self,
        plan: AnnouncePlan,
        shared: &SharedTorrent<Content>,
        progress: watch::Receiver<Progress>,
        stopping: Option<JoinHandle<()>>,
    ) -> (mpsc::Sender<Command>, JoinHandle<()>) {
        let is_told =
            |url: &TrackerUrl| plan.hosted && shared.facts.have.is_full() && self.tracker.is_named_by(url);
        let mut tiers = plan.tiers;
        tiers.iter_mut().for_each(|tier| tier.retain(|url| !is_told(url)));
        let config = AnnouncerConfig {
            families: self.families.clone(),
            jitter_percent: ANNOUNCE_JITTER_PERCENT,
            ..AnnouncerConfig::default()
        };
        let jitter = Duration::from_nanos(self.rng.below(FIRST_ANNOUNCE_SPREAD.as_nanos() as u64));
        let turn = self.first_announces.turn(clock::now()) + jitter;
        let announcer = Announcer::beside(&plan.others, &tiers, config, turn, &mut self.rng);
        let identity = Identity {
            info_hash: shared.facts.info_hash,
            peer_id: shared.peer_id,
            port: self.port(),
            key: self.settings.tracker_key.unwrap_or_else(|| self.rng.next_u64() as u32),
            num_want: None,
        };
        let (commands, receiver) = mpsc::channel(4);
        let events = self.tracker_events.0.clone();
        let client = Rc::clone(&self.client);
        let announcing = run_announcer(client, announcer, identity, progress, receiver, events);
        (commands, tokio::task::spawn_local(announce_after(stopping, announcing)))
    }

    /// Who may know of a torrent.
    fn announce_plan(&self, checked: &Checked) -> Result<AnnouncePlan, &'static str> {
        let tiers = checked.metainfo.tiers();
        let told = Told {
            private: checked.metainfo.info().private(),
            made_here: checked.made_here,
            tiers,
            names_embedded: tiers.iter().flatten().any(|url| self.tracker.is_named_by(url)),
        };
        let means = Means {
            trackers: &self.settings.trackers,
            replace: self.settings.replace_trackers,
            embedded: self.tracker.may_host(),
            peers: !self.settings.peers.is_empty(),
        };
        announce_plan::plan(told, means)
    }

    /// The trackers that the user named for a torrent, and the one that runs here and gives it out.
    fn trackers_besides<'a>(&'a self, plan: &'a AnnouncePlan) -> impl Iterator<Item = &'a TrackerUrl> {
        plan.others.iter().chain(if plan.hosted { self.tracker.urls() } else { &[] })
    }

    /// The link that leads to a torrent, with all trackers that know of it.
    fn magnet(&self, metainfo: &Metainfo, plan: &AnnouncePlan) -> Magnet {
        let mut trackers = plan.tiers.concat();
        for url in self.trackers_besides(plan) {
            if !trackers.contains(url) {
                trackers.push(url.clone());
            }
        }
        Magnet { trackers, ..metainfo.magnet() }
    }

    fn port(&self) -> u16 {
        self.engine.addresses().first().map_or(0, SocketAddr::port)
    }

    /// Whether everything is downloaded and given on as far as was wanted.
    fn has_given_enough(&self) -> bool {
        !self.torrents.is_empty()
            && self.torrents.values().all(|running| {
                let Some(wanted) = &running.download else { return false };
                let Some(done_at) = wanted.done_at else { return false };
                match self.settings.until {
                    Until::Asked => false,
                    Until::Downloaded => true,
                    Until::Ratio(ratio) => running.total_uploaded() as f64 >= ratio * wanted.len as f64,
                    Until::Time(time) => clock::now().since(done_at) >= time,
                }
            })
    }

    fn tick(&mut self, tell: &mut impl FnMut(SessionEvent)) {
        // One look at each torrent's counters; more only at those that somebody is interested in.
        let every = self.ticks_to_full_look == 0 || self.watcher.has_found_faults();
        self.ticks_to_full_look = if every { FULL_LOOK_TICKS } else { self.ticks_to_full_look - 1 };
        let mut failed = Vec::new();
        for (info_hash, running) in &self.torrents {
            if running.is_lively() || every {
                running.report_progress();
                failed.extend(running.shared.content.fault().map(|fault| (*info_hash, fault)));
            }
        }
        for (info_hash, reason) in failed {
            self.fail(info_hash, reason, tell);
        }
        for info_hash in self.watcher.take_finished() {
            self.handle_finished(info_hash, tell);
        }
        for info_hash in self.watcher.take_changed() {
            tell(SessionEvent::Changed { info_hash });
        }
        // The first thing the user hears is a torrent, or why there is none.
        if self.has_served || self.more_may_come {
            tell(SessionEvent::Status(Box::new(self.status())));
        }
    }
}

/// Threads that hash and store pieces: one a core, since a fast line needs nearly a core for each gigabyte a second.
fn storage_threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

async fn next_scrape(metrics: &mut Option<Scrapes>) -> Option<Scrape> {
    match metrics {
        Some(metrics) => metrics.next().await,
        None => None,
    }
}
