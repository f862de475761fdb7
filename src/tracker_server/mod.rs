//! A tracker over HTTP and UDP, IPv4 and IPv6: the I/O shell around the registry of swarms.
//!
//! `tracker` answers bytes with bytes, `sockets` listens, `udp` and `http` carry, `access` decides which torrents
//! are served. Everything runs on the service thread; it needs a `LocalSet` and tokio's sockets and timers,
//! nothing else. There are no CORS headers, no page names a torrent, and no claimed address is believed.

mod access;
mod connection_id;
mod http;
mod sockets;
mod tracker;
mod udp;

pub use access::{Access, AccessError, AccessList};

use access::FileState;

use crate::clock;
use crate::http_server::Connections;
use crate::id::{InfoHash, PeerId};
use crate::limits::{
    COMPLETED_REPORTS_MAX, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX, TRACKER_INTERVAL_DEFAULT,
};
use crate::swarm_registry::RegistryFigures;
use crate::time::Duration;
use crate::tracker_wire::ScrapeEntry;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracker::{Tracker, TrackerParts};

/// How a tracker is to be run.
#[derive(Clone, Debug)]
pub struct TrackerConfig {
    /// Where to listen for HTTP. All addresses with port zero, of both protocols, get one and the same free
    /// port.
    pub http: Vec<SocketAddr>,
    /// Where to listen for UDP.
    pub udp: Vec<SocketAddr>,
    /// Time between two announces of a client, at least a second.
    pub interval: Duration,
    /// Which torrents are served.
    pub access: Access,
}

/// A tracker whose sockets are bound.
pub struct TrackerServer {
    sockets: sockets::Sockets,
    access: Access,
    /// The file's state before it was read.
    access_read: Option<FileState>,
    shared: Shared,
    completed: Option<mpsc::Receiver<CompletedDownload>>,
}

/// Access to a running tracker, from any thread.
#[derive(Clone)]
pub struct TrackerHandle(Shared);

/// Where a tracker listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrackerAddress {
    /// Over which protocol.
    pub protocol: TrackerProtocol,
    /// The address with its real port.
    pub address: SocketAddr,
}

/// The two protocols of trackers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrackerProtocol {
    /// BEP 3.
    Http,
    /// BEP 15.
    Udp,
}

/// Somebody got his last piece, as he told the tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompletedDownload {
    /// The torrent.
    pub info_hash: InfoHash,
    /// The client's address. A client with addresses of both families may tell once from each.
    pub peer: SocketAddr,
    /// The client's name, by which these two are one.
    pub peer_id: PeerId,
}

/// What a tracker has done since its start, and what it knows now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrackerStatistics {
    /// Swarms and peers.
    pub swarms: RegistryFigures,
    /// Announces answered over HTTP.
    pub announces_http: u64,
    /// Announces answered over UDP.
    pub announces_udp: u64,
    /// Scrapes answered over HTTP.
    pub scrapes_http: u64,
    /// Scrapes answered over UDP.
    pub scrapes_udp: u64,
    /// Connection ids issued.
    pub connects: u64,
    /// Requests refused, and datagrams that were none.
    pub refused: u64,
}

/// Why a tracker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerServerError {
    /// An address cannot be listened on.
    #[error("cannot listen for {protocol} on {address}; choose another address or port for the tracker")]
    Bind {
        /// The protocol.
        protocol: TrackerProtocol,
        /// The address as it was given.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// No port is free for all sockets that shall share it.
    #[error("no port is free for both HTTP and UDP; name one")]
    NoSharedPort,
    /// Nothing to listen on.
    #[error("the tracker has neither an HTTP nor a UDP address to listen on")]
    NoAddress,
    /// The list of torrents is unusable.
    #[error(transparent)]
    Access(#[from] AccessError),
}

/// The tracker behind its sockets; every use is short and never waits.
type Shared = Arc<Mutex<Tracker>>;

impl TrackerConfig {
    /// Both protocols on `port` of every address, for every torrent.
    pub fn on_port(port: u16) -> Self {
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .map(|ip| (ip, port).into());
        Self {
            http: everywhere.to_vec(),
            udp: everywhere.to_vec(),
            interval: TRACKER_INTERVAL_DEFAULT,
            access: Access::All,
        }
    }
}

impl TrackerServer {
    /// Binds all sockets and reads the list of torrents. Needs no runtime.
    ///
    /// A system without IPv6 is no error as long as something can be listened on.
    ///
    /// # Errors
    /// When an address is taken or not ours, or the list is unusable; the fault of who runs the tracker.
    pub fn bind(config: TrackerConfig) -> Result<Self, TrackerServerError> {
        let access_read = config.access.file_state();
        let (reports, completed) = mpsc::channel(COMPLETED_REPORTS_MAX);
        let tracker = Tracker::new(TrackerParts {
            interval: config.interval.max(Duration::from_secs(1)),
            access: config.access.load()?,
            secret: clock::random_bytes(),
            rng: clock::random_rng(),
            local_ip_towards: sockets::local_ip_towards,
            completed: Some(reports),
        });
        Ok(Self {
            sockets: sockets::Sockets::bind(&config.http, &config.udp)?,
            access: config.access,
            access_read,
            shared: Arc::new(Mutex::new(tracker)),
            completed: Some(completed),
        })
    }

    /// Where the tracker listens, HTTP first.
    pub fn local_addrs(&self) -> Vec<TrackerAddress> {
        self.sockets.addresses()
    }

    /// A handle for who embeds the tracker.
    pub fn handle(&self) -> TrackerHandle {
        TrackerHandle(Arc::clone(&self.shared))
    }

    /// Reports of completed downloads, once; `None` at the second call. Reports that nobody takes are
    /// dropped.
    pub fn take_completed_downloads(&mut self) -> Option<mpsc::Receiver<CompletedDownload>> {
        self.completed.take()
    }

    /// Serves until `shutdown` is ready. Must run inside a `LocalSet` on a runtime with I/O and time.
    ///
    /// # Errors
    /// When the sockets cannot be handed to the runtime.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for socket in self.sockets.udp {
            tasks.spawn_local(udp::serve(tokio::net::UdpSocket::from_std(socket)?, Arc::clone(&self.shared)));
        }
        let connections = Connections::bounded(HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX);
        for listener in self.sockets.http {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn_local(http::serve(listener, Arc::clone(&self.shared), connections.clone()));
        }
        tasks.spawn_local(keep_house(self.shared, self.access, self.access_read));
        // None of the tasks ends by itself; dropping the set ends them all.
        shutdown.await;
        Ok(())
    }
}

impl TrackerHandle {
    /// What the tracker has done and knows.
    pub fn statistics(&self) -> TrackerStatistics {
        lock(&self.0).statistics()
    }

    /// A torrent's figures.
    pub fn scrape(&self, info_hash: InfoHash) -> ScrapeEntry {
        lock(&self.0).scrape(info_hash)
    }

    /// Tells the tracker that this very machine seeds `info_hash` and accepts peers on `port` of all its addresses.
    /// It is then given to every leech under the address by which that leech reaches this machine, which no
    /// announce over loopback could say.
    pub fn host_seed(&self, info_hash: InfoHash, port: u16) {
        self.host_seed_at(info_hash, (Ipv4Addr::UNSPECIFIED, port).into());
    }

    /// The same for a seed that accepts peers at one address only: it is given to leeches of that address's
    /// family. An unspecified address means all of both families, as in [`Self::host_seed`].
    pub fn host_seed_at(&self, info_hash: InfoHash, listening: SocketAddr) {
        lock(&self.0).host(info_hash, Some(listening));
    }

    /// Takes [`Self::host_seed`] and [`Self::host_seed_at`] back.
    pub fn unhost_seed(&self, info_hash: InfoHash) {
        lock(&self.0).host(info_hash, None);
    }

    /// Serves these torrents from now on, and no others.
    pub fn set_access(&self, access: AccessList) {
        lock(&self.0).set_access(access);
    }

    /// Serves this torrent, too, from now on.
    pub fn admit(&self, info_hash: InfoHash) {
        lock(&self.0).admit(info_hash);
    }

    /// Takes [`Self::admit`] back.
    pub fn dismiss(&self, info_hash: InfoHash) {
        lock(&self.0).dismiss(info_hash);
    }

    /// Has the file of info-hashes read again within a second.
    pub fn reload_access(&self) {
        lock(&self.0).reload_wanted = true;
    }
}

impl TrackerStatistics {
    /// Announces answered.
    pub fn announces(&self) -> u64 {
        self.announces_http + self.announces_udp
    }

    /// Scrapes answered.
    pub fn scrapes(&self) -> u64 {
        self.scrapes_http + self.scrapes_udp
    }

    /// One flat JSON object. The names are stable.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "torrents": self.swarms.swarms,
            "seeds_v4": self.swarms.seeds_v4,
            "seeds_v6": self.swarms.seeds_v6,
            "leeches_v4": self.swarms.leeches_v4,
            "leeches_v6": self.swarms.leeches_v6,
            "completed": self.swarms.completed,
            "announces_http": self.announces_http,
            "announces_udp": self.announces_udp,
            "scrapes_http": self.scrapes_http,
            "scrapes_udp": self.scrapes_udp,
            "connects": self.connects,
            "refused": self.refused,
        })
    }
}

impl fmt::Display for TrackerStatistics {
    /// `3 torrents, 2 seeds, 1 leeches, 1 completed, 12 announces, 0 scrapes`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swarms = &self.swarms;
        write!(
            f,
            "{} torrents, {} seeds, {} leeches, {} completed, {} announces, {} scrapes",
            swarms.swarms,
            swarms.seeds(),
            swarms.leeches(),
            swarms.completed,
            self.announces(),
            self.scrapes(),
        )
    }
}

impl fmt::Display for TrackerProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "HTTP",
            Self::Udp => "UDP",
        })
    }
}

impl fmt::Display for TrackerAddress {
    /// The announce URL on this address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            TrackerProtocol::Http => "http",
            TrackerProtocol::Udp => "udp",
        };
        write!(f, "{scheme}://{}/announce", self.address)
    }
}

impl fmt::Debug for TrackerServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrackerServer").field("addresses", &self.local_addrs()).finish_non_exhaustive()
    }
}

impl fmt::Debug for TrackerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrackerHandle").field(&self.statistics()).finish()
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Tracker> {
    // A panic while it was held was ours; counters and swarms are still good enough to go on with.
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Once a second: forgets silent peers, and reads the list of torrents again when its file has changed.
async fn keep_house(shared: Shared, access: Access, mut read: Option<FileState>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        seconds.tick().await;
        let asked = {
            let mut tracker = lock(&shared);
            tracker.expire(clock::now());
            std::mem::take(&mut tracker.reload_wanted)
        };
        let present = access.file_state();
        if !asked && (present.is_none() || present == read) {
            continue;
        }
        read = present;
        let file = access.clone();
        match tokio::task::spawn_blocking(move || file.load()).await {
            Ok(Ok(list)) => {
                lock(&shared).set_access(list);
                tracing::info!("read the list of info-hashes again");
            }
            Ok(Err(error)) => tracing::warn!("the former list of info-hashes stays in force: {error}"),
            Err(error) => tracing::warn!("could not read the list of info-hashes: {error}"),
        }
    }
}
