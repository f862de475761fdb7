//! Drives the announcer of one torrent: sends what is due, tells the session what came back.
//!
//! One future for each torrent; their requests share the client's gate. An announce counts as done when its
//! event has been taken from the channel, so a slow session slows the announces and nothing piles up.

use super::{TrackerClient, TrackerError};
use crate::announcer::{AnnounceJob, Announcer, Endpoint, Terms};
use crate::clock;
use crate::id::{InfoHash, PeerId};
use crate::limits;
use crate::peer_list::Scope;
use crate::rng::Rng;
use crate::secret_url::TrackerUrl;
use crate::time::{Duration, Instant};
use crate::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, AnnounceResponse};
use std::cell::Cell;
use std::collections::BTreeMap;
use std::rc::Rc;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};

/// What of an announce never changes while a torrent runs.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// The torrent.
    pub info_hash: InfoHash,
    /// Our name.
    pub peer_id: PeerId,
    /// Where peers reach us.
    pub port: u16,
    /// Our secret towards trackers, by which they know us again after our address changed.
    pub key: u32,
    /// Peers wanted; `None` leaves it to the tracker.
    pub num_want: Option<u32>,
}

/// A torrent's figures since its `started`, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Given to others.
    pub uploaded: u64,
    /// Taken from others.
    pub downloaded: u64,
    /// Still missing.
    pub left: u64,
    /// What is missing is not wanted: a partial seed (BEP 21).
    pub partial: bool,
}

/// What the session tells the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// The last piece arrived. Not for torrents that were complete from the start.
    Completed,
    /// Nothing more is wanted although pieces are missing (BEP 21).
    Paused,
    /// Peers are wanted before the next regular announce.
    Hurry,
    /// The torrent leaves the swarm. A closed channel says the same.
    Stop,
}

/// What became of one announce.
#[derive(Debug)]
pub struct TrackerEvent {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The tracker.
    pub tracker: TrackerUrl,
    /// How it was reached.
    pub family: AddressFamily,
    /// What was told.
    pub event: AnnounceEvent,
    /// How far the address carries that answered, and so whom it may name; the farthest when none did.
    pub scope: Scope,
    /// Its answer with the peers found, or why there is none; see [`TrackerError::is_family_absent`] for the
    /// errors that are no fault.
    pub outcome: Result<AnnounceResponse, TrackerError>,
}

/// Announces one torrent until it is stopped; then tells those trackers that know us, all at once and within
/// [`limits::TRACKER_STOP_TIMEOUT`]. Needs a `LocalSet` (tokio-uring's runtime has one).
pub async fn run_announcer(
    client: Rc<TrackerClient>,
    mut announcer: Announcer,
    identity: Identity,
    progress: watch::Receiver<Progress>,
    mut commands: mpsc::Receiver<Command>,
    events: mpsc::Sender<TrackerEvent>,
) {
    let mut driver = Driver {
        client,
        identity,
        progress,
        events,
        rng: clock::random_rng(),
        running: JoinSet::new(),
        in_flight: BTreeMap::new(),
        tracker_ids: BTreeMap::new(),
        serial: 0,
        leaving: watch::Sender::new(false),
    };
    loop {
        driver.launch_due(&mut announcer);
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Completed) => announcer.completed(),
                Some(Command::Paused) => announcer.paused(),
                Some(Command::Hurry) => announcer.hurry(clock::now()),
                Some(Command::Stop) | None => break,
            },
            Some(done) = driver.running.join_next() => driver.settle(&mut announcer, done.ok()),
            () = sleep_until(announcer.poll_timeout()) => {}
        }
    }
    announcer.stop();
    driver.leaving.send_replace(true);
    driver.give_up_what_can_wait(&mut announcer);
    let farewell = async {
        loop {
            driver.launch_due(&mut announcer);
            match driver.running.join_next().await {
                Some(done) => driver.settle(&mut announcer, done.ok()),
                None => return,
            }
        }
    };
    // Trackers that are silent at the deadline find out by themselves: we no longer announce.
    let _ = tokio::time::timeout(limits::TRACKER_STOP_TIMEOUT, farewell).await;
}

struct Driver {
    client: Rc<TrackerClient>,
    identity: Identity,
    progress: watch::Receiver<Progress>,
    events: mpsc::Sender<TrackerEvent>,
    rng: Rng,
    running: JoinSet<Done>,
    in_flight: BTreeMap<Endpoint, InFlight>,
    /// What trackers want to hear again (BEP 3).
    tracker_ids: BTreeMap<Endpoint, Vec<u8>>,
    serial: u64,
    /// From now on nobody waits for the session to take an event.
    leaving: watch::Sender<bool>,
}

struct InFlight {
    /// Tells this announce from an earlier one to the same tracker that was given up.
    serial: u64,
    event: AnnounceEvent,
    /// It is out of the line and may have left this machine.
    sent: Rc<Cell<bool>>,
    abort: AbortHandle,
}

struct Done {
    serial: u64,
    endpoint: Endpoint,
    outcome: Result<Terms, crate::announcer::Failure>,
    tracker_id: Option<Vec<u8>>,
}

impl Driver {
    fn launch_due(&mut self, announcer: &mut Announcer) {
        let now = clock::now();
        while let Some(AnnounceJob { endpoint, event }) = announcer.poll_announce(now) {
            let Some(url) = announcer.url(endpoint.tracker).cloned() else { continue };
            self.serial += 1;
            let sent = Rc::new(Cell::new(false));
            let announce = Announce {
                client: Rc::clone(&self.client),
                identity: self.identity,
                progress: self.progress.clone(),
                events: self.events.clone(),
                leaving: self.leaving.subscribe(),
                sent: Rc::clone(&sent),
                tracker_id: self.tracker_ids.get(&endpoint).cloned(),
                serial: self.serial,
                endpoint,
                event,
                url,
            };
            let abort = self.running.spawn_local(announce.run());
            self.in_flight.insert(endpoint, InFlight { serial: self.serial, event, sent, abort });
        }
    }

    /// `None` is an announce that was given up.
    fn settle(&mut self, announcer: &mut Announcer, done: Option<Done>) {
        let Some(done) = done else { return };
        if self.in_flight.get(&done.endpoint).is_none_or(|in_flight| in_flight.serial != done.serial) {
            return;
        }
        self.in_flight.remove(&done.endpoint);
        if let Some(id) = done.tracker_id {
            self.tracker_ids.insert(done.endpoint, id);
        }
        match done.outcome {
            Ok(terms) => announcer.handle_response(clock::now(), done.endpoint, terms),
            Err(failure) => announcer.handle_failure(clock::now(), done.endpoint, failure, &mut self.rng),
        }
    }

    /// Before the farewells: only a `started` that may have arrived is worth its answer, since without it we
    /// would not know whom to tell, and a `completed`, which would be counted twice if it were told again.
    fn give_up_what_can_wait(&mut self, announcer: &mut Announcer) {
        self.in_flight.retain(|&endpoint, in_flight| {
            let counts = matches!(in_flight.event, AnnounceEvent::Started | AnnounceEvent::Completed);
            let worth_it = in_flight.sent.get() && counts;
            if !worth_it {
                in_flight.abort.abort();
                announcer.handle_cancelled(endpoint);
            }
            worth_it
        });
    }
}

/// One announce on its way.
struct Announce {
    client: Rc<TrackerClient>,
    identity: Identity,
    progress: watch::Receiver<Progress>,
    events: mpsc::Sender<TrackerEvent>,
    leaving: watch::Receiver<bool>,
    sent: Rc<Cell<bool>>,
    tracker_id: Option<Vec<u8>>,
    serial: u64,
    endpoint: Endpoint,
    event: AnnounceEvent,
    url: TrackerUrl,
}

impl Announce {
    async fn run(mut self) -> Done {
        let (outcome, scope) = match self.exchange().await {
            Ok((response, scope)) => (Ok(response), scope),
            Err(error) => (Err(error), Scope::Global),
        };
        let (serial, endpoint) = (self.serial, self.endpoint);
        let done = match &outcome {
            Ok(response) => {
                let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds));
                let interval_min = response.min_interval_secs.map(seconds);
                let terms = Terms { interval: seconds(response.interval_secs), interval_min };
                Done { serial, endpoint, outcome: Ok(terms), tracker_id: response.tracker_id.clone() }
            }
            Err(error) => Done { serial, endpoint, outcome: Err(error.failure()), tracker_id: None },
        };
        match &outcome {
            Ok(response) => tracing::debug!(
                torrent = %self.identity.info_hash, tracker = ?self.url, family = ?endpoint.family, event = ?self.event,
                peers = response.peers.len(), seeds = ?response.seeds, leeches = ?response.leeches,
                interval = response.interval_secs, "announced"
            ),
            Err(error) => tracing::debug!(
                torrent = %self.identity.info_hash, tracker = ?self.url, family = ?endpoint.family, event = ?self.event,
                %error, "not announced"
            ),
        }
        let event = TrackerEvent {
            info_hash: self.identity.info_hash,
            tracker: self.url.clone(),
            family: endpoint.family,
            event: self.event,
            scope,
            outcome,
        };
        tokio::select! {
            biased;
            permit = self.events.reserve() => if let Ok(permit) = permit {
                permit.send(event);
            },
            _ = self.leaving.wait_for(|&leaving| leaving) => {}
        }
        done
    }

    async fn exchange(&self) -> Result<(AnnounceResponse, Scope), TrackerError> {
        let admitted = self.client.admit(self.url.reveal(), self.endpoint.family).await?;
        self.sent.set(true);
        let progress = *self.progress.borrow();
        let stopped = self.event == AnnounceEvent::Stopped;
        let event = match self.event {
            AnnounceEvent::None if progress.partial => AnnounceEvent::Paused,
            event => event,
        };
        let request = AnnounceRequest {
            info_hash: self.identity.info_hash,
            peer_id: self.identity.peer_id,
            port: self.identity.port,
            uploaded: progress.uploaded,
            downloaded: progress.downloaded,
            left: progress.left,
            event,
            key: self.identity.key,
            num_want: if stopped { Some(0) } else { self.identity.num_want },
        };
        // Boxed, so that the thousands that wait in line do not carry the room for TLS.
        Box::pin(self.client.announce_admitted(&admitted, &request, self.tracker_id.clone())).await
    }
}

async fn sleep_until(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep(instant.since(clock::now())).await,
        None => std::future::pending().await,
    }
}
