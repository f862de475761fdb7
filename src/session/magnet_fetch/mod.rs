//! From a magnet link to a torrent: asks trackers for peers, and peers for the info dictionary (BEP 9).
//!
//! Runs on the service thread. One task for each connection, which share one [`MetadataAssembly`]; what is decided is
//! decided there. Whatever comes of it goes through [`Metainfo::from_magnet`], so that what peers send is judged like
//! any torrent file. Dropping the future ends everything that it has begun.
//!
//! The trackers are told nothing at the end: whoever goes on with the torrent announces it with the same peer id, as
//! the same client. Deliberately absent: DHT, incoming connections.

mod candidates;
mod stay;
mod talk;
#[cfg(test)]
mod tests;
mod transport;

pub use transport::Transport;

use crate::announcer::{Announcer, AnnouncerConfig};
use crate::clock;
use crate::limits::MAGNET_PATIENCE;
use crate::metadata::MetadataAssembly;
use crate::metainfo::{Magnet, Metainfo, MetainfoError};
use crate::secret_url::TrackerUrl;
use crate::time::{Duration, Instant};
use crate::tracker_client::{Command, Identity, Progress, TrackerClient, TrackerEvent, run_announcer};
use crate::units::Counted;
use crate::wire::Encryption;
use candidates::{Candidates, Source};
use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use talk::{Ended, talk};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

/// What a fetch may use.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Who we are to trackers and peers; the engine goes on under the same names. The info-hash is the magnet's.
    pub identity: Identity,
    /// Peers that the user names, dialled first.
    pub peers: Vec<SocketAddr>,
    /// Trackers that the user names, asked beside those of the link.
    pub trackers: Vec<TrackerUrl>,
    /// Where connections to peers leave from; `None` leaves it to the system.
    pub bind: Option<IpAddr>,
    /// Whether connections to peers are encrypted: the policy that the engine goes on with.
    pub encryption: Encryption,
    /// Time without a piece, or a peer that has any, after which it is given up. Default [`MAGNET_PATIENCE`].
    pub patience: Duration,
}

impl FetchOptions {
    /// Only what the link itself names.
    pub fn new(identity: Identity, encryption: Encryption) -> Self {
        Self {
            identity,
            peers: Vec::new(),
            trackers: Vec::new(),
            bind: None,
            encryption,
            patience: MAGNET_PATIENCE,
        }
    }
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FetchProgress {
    /// Addresses known.
    pub peers_known: usize,
    /// Addresses dialled so far.
    pub peers_tried: usize,
    /// Peers connected now that are of this torrent.
    pub peers_connected: usize,
    /// Pieces of the info dictionary that are here.
    pub pieces: u32,
    /// Pieces that it has, as far as a peer has said; zero while none has.
    pub piece_count: u32,
}

/// What a fetch has found.
#[derive(Debug)]
pub struct Fetched {
    /// The torrent, with the trackers and web seeds of the link.
    pub metainfo: Metainfo,
    /// Peers to dial: those that answered first.
    pub peers: Vec<SocketAddr>,
}

/// Why there is no torrent for the link.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The link's fault.
    #[error("the magnet link names neither a tracker nor a peer; add --tracker URL or --peer HOST:PORT")]
    NowhereToAsk,
    /// The trackers know nobody, or none answers.
    #[error(
        "no peer found for this magnet link{}; check its trackers, or name a peer with --peer",
        detail(.tracker_error.as_deref())
    )]
    NoPeers {
        /// What a tracker last complained of.
        tracker_error: Option<String>,
    },
    /// Nobody answers; the network or all of the peers are to blame.
    #[error("none of {} could be reached; check the network and the firewall, or try again later", Counted(*.tried, "peer"))]
    NobodyReached {
        /// Addresses dialled.
        tried: usize,
    },
    /// Peers are there, but give no info dictionary.
    #[error(
        "none of {} reached gave the torrent's info dictionary; wait for a seed, or use a .torrent file",
        Counted(*.reached, "peer")
    )]
    NobodyHasIt {
        /// Peers of this torrent that were reached.
        reached: usize,
    },
    /// Peers gave something else.
    #[error(
        "{} gave a wrong info dictionary and no other had the right one; try again later or elsewhere",
        Counted(*.liars, "peer")
    )]
    OnlyLies {
        /// Peers convicted.
        liars: usize,
    },
    /// The right bytes, but no torrent that can be used; its maker's fault.
    #[error("the magnet link leads to a torrent that cannot be used: {0}")]
    Unusable(#[from] MetainfoError),
}

fn detail(tracker_error: Option<&str>) -> String {
    tracker_error.map_or_else(String::new, |error| format!(" ({error})"))
}

/// What all connections share.
struct Shared {
    identity: Identity,
    bind: Option<IpAddr>,
    encryption: Encryption,
    assembly: RefCell<MetadataAssembly>,
    /// Goes up when there may be something new to ask for.
    turns: watch::Sender<u64>,
    found: RefCell<Option<Box<[u8]>>>,
    progressed_at: Cell<Instant>,
    connected: Cell<usize>,
    /// Somebody else could be dialled, were there room.
    others_wait: Cell<bool>,
}

impl Shared {
    fn note_change(&self) {
        self.turns.send_modify(|turn| *turn = turn.wrapping_add(1));
    }

    fn note_progress(&self) {
        self.progressed_at.set(clock::now());
        self.note_change();
    }
}

/// Fetches the torrent that `magnet` names. Must run inside [`service::run`](crate::service::run) or another
/// `LocalSet`. `tell` hears how far it is, about once a second and at each change.
///
/// # Errors
/// See [`FetchError`]: whose fault it is and what to do.
pub async fn fetch(
    magnet: &Magnet,
    client: Rc<TrackerClient>,
    options: FetchOptions,
    tell: &mut impl FnMut(FetchProgress),
) -> Result<Fetched, FetchError> {
    let identity = Identity { info_hash: magnet.info_hash, ..options.identity };
    let mut candidates = Candidates::new(clock::now());
    candidates.add(Source::User, options.peers.iter().copied());
    if options.trackers.is_empty()
        && magnet.trackers.is_empty()
        && magnet.peers.is_empty()
        && options.peers.is_empty()
    {
        return Err(FetchError::NowhereToAsk);
    }
    let shared = Rc::new(Shared {
        identity,
        bind: options.bind,
        encryption: options.encryption,
        assembly: RefCell::new(MetadataAssembly::new(magnet.info_hash)),
        turns: watch::Sender::new(0),
        found: RefCell::new(None),
        progressed_at: Cell::new(clock::now()),
        connected: Cell::new(0),
        others_wait: Cell::new(false),
    });
    let mut beside = JoinSet::new();
    let (tracker_events, _commands) =
        announce(&mut beside, client, (&options.trackers, &magnet.trackers), identity);
    let (names_sender, names) = mpsc::channel(1);
    let peers = magnet.peers.clone();
    beside.spawn_local(async move {
        for peer in peers {
            // A name that resolves to nothing is one peer less.
            let addresses = tokio::net::lookup_host(peer).await.map(Iterator::collect).unwrap_or_default();
            if names_sender.send(addresses).await.is_err() {
                return;
            }
        }
    });
    let mut fetch = Fetch { shared, candidates, talks: JoinSet::new(), tracker_error: None, liars: 0 };
    let bytes = fetch.run(tracker_events, names, options.patience, tell).await?;
    let metainfo = Metainfo::from_magnet(magnet, &bytes)?;
    Ok(Fetched { metainfo, peers: fetch.candidates.into_best_first() })
}

/// Starts to announce as a leech; the command channel has to live as long as that is wanted.
fn announce(
    beside: &mut JoinSet<()>,
    client: Rc<TrackerClient>,
    (others, own): (&[TrackerUrl], &[TrackerUrl]),
    identity: Identity,
) -> (mpsc::Receiver<TrackerEvent>, mpsc::Sender<Command>) {
    let (events_sender, events) = mpsc::channel(16);
    let (commands_sender, commands) = mpsc::channel(1);
    let tiers: Vec<Vec<TrackerUrl>> = own.iter().map(|tracker| vec![tracker.clone()]).collect();
    let config = AnnouncerConfig::default();
    let announcer = Announcer::beside(others, &tiers, config, clock::now(), &mut clock::random_rng());
    // How much is left nobody knows yet, but it is not nothing.
    let (_, progress) = watch::channel(Progress { uploaded: 0, downloaded: 0, left: 1, partial: false });
    beside.spawn_local(run_announcer(client, announcer, identity, progress, commands, events_sender));
    (events, commands_sender)
}

struct Fetch {
    shared: Rc<Shared>,
    candidates: Candidates,
    talks: JoinSet<(SocketAddr, Ended)>,
    tracker_error: Option<String>,
    liars: usize,
}

impl Fetch {
    async fn run(
        &mut self,
        mut tracker_events: mpsc::Receiver<TrackerEvent>,
        mut names: mpsc::Receiver<Vec<SocketAddr>>,
        patience: Duration,
        tell: &mut impl FnMut(FetchProgress),
    ) -> Result<Box<[u8]>, FetchError> {
        let mut turns = self.shared.turns.subscribe();
        let mut told = None;
        loop {
            if let Some(bytes) = self.shared.found.borrow_mut().take() {
                return Ok(bytes);
            }
            let now = clock::now();
            let deadline = self.shared.progressed_at.get() + patience;
            if now >= deadline {
                return Err(self.failure());
            }
            while let Some(address) = self.candidates.next(now) {
                let (shared, serial) = (Rc::clone(&self.shared), self.candidates.dials());
                self.talks.spawn_local(async move { (address, talk(shared, address, serial).await) });
            }
            let others_wait = self.candidates.has_waiting(now);
            if self.shared.others_wait.replace(others_wait) != others_wait {
                self.shared.note_change();
            }
            let progress = self.progress();
            if told.replace(progress) != Some(progress) {
                tell(progress);
            }
            tokio::select! {
                Some(event) = tracker_events.recv() => self.handle_tracker_event(event),
                Some(addresses) = names.recv() => self.candidates.add(Source::Link, addresses),
                Some(talk) = self.talks.join_next() => {
                    if let Ok((address, ended)) = talk {
                        self.liars += usize::from(ended == Ended::Liar);
                        self.candidates.handle_end(clock::now(), address, ended);
                    }
                }
                _ = turns.changed() => {}
                () = tokio::time::sleep(deadline.since(now).min(Duration::from_secs(1))) => {}
            }
        }
    }

    fn handle_tracker_event(&mut self, event: TrackerEvent) {
        match event.outcome {
            Ok(response) => self.candidates.add(Source::Tracker(event.scope), response.peers),
            Err(error) if error.is_family_absent() => {}
            Err(error) => self.tracker_error = Some(error.to_string()),
        }
    }

    fn progress(&self) -> FetchProgress {
        let assembly = self.shared.assembly.borrow().progress();
        FetchProgress {
            peers_known: self.candidates.known(),
            peers_tried: self.candidates.tried(),
            peers_connected: self.shared.connected.get(),
            pieces: assembly.pieces,
            piece_count: assembly.piece_count,
        }
    }

    fn failure(&self) -> FetchError {
        let reached = self.candidates.reached() + self.shared.connected.get();
        if self.candidates.known() == 0 {
            FetchError::NoPeers { tracker_error: self.tracker_error.clone() }
        } else if self.liars > 0 {
            FetchError::OnlyLies { liars: self.liars }
        } else if reached > 0 {
            FetchError::NobodyHasIt { reached }
        } else {
            FetchError::NobodyReached { tried: self.candidates.tried() }
        }
    }
}
