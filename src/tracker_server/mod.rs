//! A tracker over HTTP and UDP, IPv4 and IPv6: the I/O shell around the registry of swarms.
//!
//! `tracker` answers bytes with bytes, `sockets` listens, `udp` and `http` carry, `access` decides which torrents
//! are served, `proxy` who asks when a proxy stands in front, `house` looks after files. Everything runs on the service
//! thread; it needs a `LocalSet` and tokio's sockets and timers, nothing else. There are no CORS headers, no page names a
//! torrent, and no address is believed that a client claims.

mod access;
mod connection_id;
#[cfg(test)]
mod doors_tests;
mod house;
mod http;
mod metrics;
mod proxy;
mod sockets;
mod state;
mod tls;
mod tracker;
mod udp;

pub use access::{Access, AccessError, AccessList};
pub use house::TrackerNotice;
pub use ipnet::IpNet;
pub use state::StateError;
pub use tls::{TlsFiles, TlsFilesError};

use access::FileState;
use proxy::TrustedProxies;
use state::StateFile;

use crate::bind_patience::{a_second, bind_patiently, is_taken};
use crate::clock;
use crate::http_server::Connections;
use crate::id::{InfoHash, PeerId};
use crate::limits::{
    COMPLETED_REPORTS_MAX, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX, METRICS_CONNECTIONS_MAX,
    METRICS_CONNECTIONS_PER_ADDRESS_MAX, TRACKER_INTERVAL_DEFAULT, TRACKER_NOTICES_MAX,
};
use crate::swarm_registry::RegistryFigures;
use crate::time::Duration;
use crate::tracker_wire::ScrapeEntry;
use crate::units::Counted;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
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
    /// Proxies that are believed when they say whom they speak for.
    pub trusted_proxies: Vec<IpNet>,
    /// Speak TLS on all HTTP addresses, with this certificate.
    pub tls: Option<TlsFiles>,
    /// Where to serve the tracker's figures to a monitoring system.
    pub metrics: Option<SocketAddr>,
    /// Where to keep what the tracker knows over restarts.
    pub state: Option<PathBuf>,
    /// HTTP connections at once.
    pub http_connections_max: usize,
}

/// A tracker whose sockets are bound.
pub struct TrackerServer {
    sockets: sockets::Sockets,
    metrics: Option<TcpListener>,
    access: Access,
    /// The file's state before it was read.
    access_read: Option<FileState>,
    proxies: TrustedProxies,
    tls: Option<(TlsFiles, tokio_rustls::TlsAcceptor)>,
    state: Option<StateFile>,
    shared: Shared,
    notify: mpsc::Sender<TrackerNotice>,
    notices: Option<mpsc::Receiver<TrackerNotice>>,
    completed: Option<mpsc::Receiver<CompletedDownload>>,
    http_connections_max: usize,
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
    /// HTTP is spoken within TLS.
    pub secure: bool,
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
    /// Times that the tracker's state was written to its file.
    pub states_written: u64,
    /// Times that it could not be.
    pub states_not_written: u64,
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
    /// What only HTTP has was asked of a tracker without it.
    #[error("--tls and --trusted-proxy are for HTTP, and the tracker has no HTTP address to listen on")]
    NoHttp,
    /// The address for the metrics cannot be listened on.
    #[error("cannot serve metrics on {address}; name another address or port with --metrics")]
    Metrics {
        /// The address as it was given.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// The list of torrents is unusable.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The certificate is unusable.
    #[error(transparent)]
    Tls(#[from] TlsFilesError),
    /// The file for the tracker's state is somebody else's, or cannot be read or written.
    #[error(transparent)]
    State(#[from] StateError),
}

/// The tracker behind its sockets; every use is short and never waits.
type Shared = Arc<Mutex<Tracker>>;

impl TrackerConfig {
    /// Both protocols on `port` of every address, for every torrent.
    pub fn on_port(port: u16) -> Self {
        let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)]
            .map(|ip| (ip, port).into());
        Self { http: everywhere.to_vec(), udp: everywhere.to_vec(), ..Self::default() }
    }
}

impl Default for TrackerConfig {
    /// For every torrent, and with nowhere to listen.
    fn default() -> Self {
        Self {
            http: Vec::new(),
            udp: Vec::new(),
            interval: TRACKER_INTERVAL_DEFAULT,
            access: Access::All,
            trusted_proxies: Vec::new(),
            tls: None,
            metrics: None,
            state: None,
            http_connections_max: HTTP_CONNECTIONS_MAX,
        }
    }
}

impl TrackerServer {
    /// Binds all sockets and reads all files. Needs no runtime.
    ///
    /// A system without IPv6 is no error as long as something can be listened on, and a damaged file of the tracker's
    /// state is only told. One that cannot be written is an error.
    ///
    /// # Errors
    /// When an address is taken or not ours, or a file is unusable; the fault of who runs the tracker.
    pub fn bind(config: TrackerConfig) -> Result<Self, TrackerServerError> {
        if config.http.is_empty() && (config.tls.is_some() || !config.trusted_proxies.is_empty()) {
            return Err(TrackerServerError::NoHttp);
        }
        let access_read = config.access.file_state();
        let (reports, completed) = mpsc::channel(COMPLETED_REPORTS_MAX);
        let (notify, notices) = mpsc::channel(TRACKER_NOTICES_MAX);
        let mut tracker = Tracker::new(TrackerParts {
            interval: config.interval.max(Duration::from_secs(1)),
            access: config.access.load()?,
            secret: clock::random_bytes(),
            rng: clock::random_rng(),
            local_ip_towards: sockets::local_ip_towards,
            completed: Some(reports),
        });
        let tls = config.tls.map(|files| files.load().map(|acceptor| (files, acceptor))).transpose()?;
        let sockets = sockets::Sockets::bind(&config.http, &config.udp)?;
        let metrics = config.metrics.map(listen_for_metrics).transpose()?;
        let state = config.state.as_deref().map(StateFile::at);
        if let Some(state) = &state {
            if let Some(notice) = remember(&mut tracker, state)? {
                let _ = notify.try_send(notice);
            }
            // Not in five minutes, or at the end, when there is something to lose.
            state.try_to_write(clock::unix_seconds())?;
        }
        Ok(Self {
            sockets,
            metrics,
            access: config.access,
            access_read,
            proxies: TrustedProxies::new(config.trusted_proxies),
            tls,
            state,
            shared: Arc::new(Mutex::new(tracker)),
            notify,
            notices: Some(notices),
            completed: Some(completed),
            http_connections_max: config.http_connections_max,
        })
    }

    /// Where the tracker listens, HTTP first.
    pub fn local_addrs(&self) -> Vec<TrackerAddress> {
        let mut addresses = self.sockets.addresses();
        for address in &mut addresses {
            address.secure = self.tls.is_some() && address.protocol == TrackerProtocol::Http;
        }
        addresses
    }

    /// Where the metrics are served, with the real port.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics.as_ref()?.local_addr().ok()
    }

    /// What there is to tell about the tracker's files, once; `None` at the second call. What nobody takes is dropped.
    pub fn take_notices(&mut self) -> Option<mpsc::Receiver<TrackerNotice>> {
        self.notices.take()
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
        let (shared, notify) = (self.shared, self.notify);
        let mut tasks = JoinSet::new();
        for socket in self.sockets.udp {
            tasks.spawn_local(udp::serve(tokio::net::UdpSocket::from_std(socket)?, Arc::clone(&shared)));
        }
        let proxies = Rc::new(self.proxies);
        let trusting = Rc::clone(&proxies);
        let tls = self.tls.map(|(files, acceptor)| (files, Rc::new(RefCell::new(acceptor))));
        let service = http::Service {
            shared: Arc::clone(&shared),
            connections: Connections::bounded(self.http_connections_max, HTTP_CONNECTIONS_PER_ADDRESS_MAX)
                .with_shared(move |ip| trusting.trusts(ip)),
            proxies,
            tls: tls.as_ref().map(|(_, acceptor)| Rc::clone(acceptor)),
        };
        for listener in self.sockets.http {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn_local(http::serve(listener, service.clone()));
        }
        if let Some(listener) = self.metrics {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let connections =
                Connections::bounded(METRICS_CONNECTIONS_MAX, METRICS_CONNECTIONS_PER_ADDRESS_MAX);
            tasks.spawn_local(http::serve_metrics(listener, Arc::clone(&shared), connections));
        }
        tasks.spawn_local(house::expire(Arc::clone(&shared)));
        let files = house::Files { access: self.access, access_read: self.access_read, tls };
        tasks.spawn_local(house::read_again(Arc::clone(&shared), files, notify.clone()));
        if let Some(state) = &self.state {
            tasks.spawn_local(house::write_state(Arc::clone(&shared), state.clone(), notify.clone()));
        }
        // None of the tasks ends by itself; dropping the set ends them all.
        shutdown.await;
        drop(tasks);
        if let Some(state) = &self.state {
            house::write_last_state(&shared, state, &notify).await;
        }
        Ok(())
    }
}

fn listen_for_metrics(address: SocketAddr) -> Result<TcpListener, TrackerServerError> {
    let bound = bind_patiently(|| TcpListener::bind(address), is_taken, a_second()).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.map_err(|source| TrackerServerError::Metrics { address, source })
}

/// Lets the tracker know what an earlier run knew. A damaged file is told; one that is not ours is an error.
fn remember(tracker: &mut Tracker, state: &StateFile) -> Result<Option<TrackerNotice>, StateError> {
    let now = clock::now();
    match state.read(clock::unix_seconds(), |age, piece| tracker.read_piece(now, age, piece)) {
        Ok(false) => Ok(None),
        Ok(true) => {
            let swarms = tracker.statistics().swarms;
            Ok(Some(TrackerNotice::StateRead { torrents: swarms.swarms, peers: swarms.peers() }))
        }
        Err(error @ StateError::Damaged(_)) => {
            tracker.forget_all();
            Ok(Some(TrackerNotice::StateNotRead(error)))
        }
        Err(error) => Err(error),
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

    /// Has the file of info-hashes and the certificate read again within a second.
    pub fn reload(&self) {
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
            "states_written": self.states_written,
            "states_not_written": self.states_not_written,
        })
    }
}

impl fmt::Display for TrackerStatistics {
    /// `3 torrents, 2 seeds, 1 leech, 1 completed, 12 announces, 0 scrapes`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let swarms = &self.swarms;
        write!(
            f,
            "{}, {}, {}, {} completed, {}, {}",
            Counted(swarms.swarms, "torrent"),
            Counted(swarms.seeds(), "seed"),
            Counted(swarms.leeches(), "leech"),
            swarms.completed,
            Counted(self.announces(), "announce"),
            Counted(self.scrapes(), "scrape"),
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
            TrackerProtocol::Http if self.secure => "https",
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
