//! The tracker inside a session: bound when the first torrent needs it, and for nothing but what it was given.

use super::terms::SessionEvent;
use crate::id::InfoHash;
use crate::secret_url::TrackerUrl;
use crate::tracker_server::{
    AccessList, CompletedDownload, TrackerConfig, TrackerHandle, TrackerProtocol, TrackerServer,
};
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// What a session has of a tracker of its own.
#[derive(Debug, Default)]
pub enum OwnTracker {
    /// None.
    #[default]
    Never,
    /// It starts with the first torrent that needs it.
    WhenNeeded {
        /// How it is to be run.
        config: TrackerConfig,
        /// The name or address under which others reach it, in place of this machine's address.
        name: Option<String>,
    },
    /// It is there already, for torrents have been made with its addresses.
    Bound {
        /// It.
        server: TrackerServer,
        /// As above.
        name: Option<String>,
    },
}

/// The embedded tracker, in whatever state.
pub(super) struct EmbeddedTracker {
    waiting: Option<TrackerConfig>,
    running: Option<Running>,
    name: Option<String>,
    ports: BTreeSet<u16>,
}

struct Running {
    handle: TrackerHandle,
    urls: Vec<TrackerUrl>,
    completed: mpsc::Receiver<CompletedDownload>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<std::io::Result<()>>,
}

impl EmbeddedTracker {
    /// Runs what is bound. Must be called on the service thread.
    pub(super) fn new(own: OwnTracker) -> Self {
        let mut tracker = Self { waiting: None, running: None, name: None, ports: BTreeSet::new() };
        match own {
            OwnTracker::Never => {}
            OwnTracker::WhenNeeded { config, name } => {
                tracker.ports = config.http.iter().chain(&config.udp).map(SocketAddr::port).collect();
                (tracker.waiting, tracker.name) = (Some(config), name);
            }
            OwnTracker::Bound { server, name } => {
                tracker.name = name;
                tracker.run(server);
            }
        }
        tracker
    }

    /// Whether there is one, or there may be.
    pub(super) fn may_host(&self) -> bool {
        self.waiting.is_some() || self.running.is_some()
    }

    /// Starts it if it does not run. It is asked for nothing else afterwards when that fails.
    pub(super) fn start(&mut self) -> Option<SessionEvent> {
        let config = self.waiting.take()?;
        match TrackerServer::bind(config) {
            Ok(server) => {
                let alone = reaches_nobody(&server, self.name.as_deref());
                self.run(server);
                alone.map(|why| SessionEvent::Warning(why.to_owned()))
            }
            Err(error) => {
                let reason =
                    std::error::Error::source(&error).map_or(String::new(), |why| format!(": {why}"));
                Some(SessionEvent::Warning(format!(
                    "the embedded tracker does not start: {error}{reason}; without it nobody finds torrents that name \
                     no other (--tracker-port, --tracker)"
                )))
            }
        }
    }

    fn run(&mut self, mut server: TrackerServer) {
        let (stop, stopped) = oneshot::channel();
        let handle = server.handle();
        // Each torrent is admitted as it comes: it is no tracker for everybody's torrents.
        handle.set_access(AccessList::Allow(BTreeSet::new()));
        self.ports = server.local_addrs().iter().map(|listening| listening.address.port()).collect();
        let urls = announce_urls(&server, self.name.as_deref());
        let completed = server.take_completed_downloads().unwrap_or_else(|| mpsc::channel(1).1);
        let task = tokio::task::spawn_local(server.run(async {
            let _ = stopped.await;
        }));
        self.running = Some(Running { handle, urls, completed, stop, task });
    }

    /// The addresses that clients announce to; none while it does not run.
    pub(super) fn urls(&self) -> &[TrackerUrl] {
        self.running.as_ref().map_or(&[], |running| &running.urls)
    }

    /// Whether an address is its own.
    pub(super) fn is_named_by(&self, url: &TrackerUrl) -> bool {
        let Ok(url) = url::Url::parse(url.reveal()) else { return false };
        if !self.may_host() || !url.port_or_known_default().is_some_and(|port| self.ports.contains(&port)) {
            return false;
        }
        // Of schemes it does not know the parser gives every host as a name.
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let is_name = self.name.as_deref().is_some_and(|name| bare(name).eq_ignore_ascii_case(host));
        is_name || host == "localhost" || host.parse().is_ok_and(is_own_address)
    }

    /// Gives the torrent out from now on; to a whole one its seed is added, who listens at `seed`.
    pub(super) fn admit(&self, info_hash: InfoHash, seed: Option<SocketAddr>) {
        if let Some(running) = &self.running {
            running.handle.admit(info_hash);
            if let Some(listening) = seed {
                running.handle.host_seed_at(info_hash, listening);
            }
        }
    }

    /// Gives it out no longer.
    pub(super) fn dismiss(&self, info_hash: InfoHash) {
        if let Some(running) = &self.running {
            running.handle.unhost_seed(info_hash);
            running.handle.dismiss(info_hash);
        }
    }

    /// The next completed download; never while it does not run.
    pub(super) async fn next_completed(&mut self) -> Option<CompletedDownload> {
        match &mut self.running {
            Some(running) => running.completed.recv().await,
            None => std::future::pending().await,
        }
    }

    /// Ends it; resolves when its sockets are closed.
    pub(super) async fn stop(self) {
        if let Some(running) = self.running {
            let _ = running.stop.send(());
            let _ = running.task.await;
        }
    }
}

/// The addresses that clients are to announce to: under `name` if there is one, else under this machine's own.
pub fn announce_urls(tracker: &TrackerServer, name: Option<&str>) -> Vec<TrackerUrl> {
    let mut urls: Vec<TrackerUrl> = Vec::new();
    for listening in tracker.local_addrs() {
        let scheme = match listening.protocol {
            TrackerProtocol::Http => "http",
            TrackerProtocol::Udp => "udp",
        };
        let address = reachable(listening.address);
        let place = match name {
            Some(name) => format!("{}:{}", bracketed(name), address.port()),
            None if address.ip().is_unspecified() => continue,
            None => address.to_string(),
        };
        let url = TrackerUrl::from(format!("{scheme}://{place}/announce"));
        if !urls.contains(&url) {
            urls.push(url);
        }
    }
    urls
}

/// Why nobody on another machine finds the tracker under [`announce_urls`], and what to do, if that is so although it
/// listens for them.
pub fn reaches_nobody(tracker: &TrackerServer, name: Option<&str>) -> Option<&'static str> {
    let listens_for_all =
        tracker.local_addrs().iter().any(|listening| listening.address.ip().is_unspecified());
    let is_alone = tracker.local_addrs().iter().all(|listening| {
        let ip = reachable(listening.address).ip();
        ip.is_loopback() || ip.is_unspecified()
    });
    (name.is_none() && listens_for_all && is_alone).then_some(
        "this machine has no route to others, so torrents and magnet links name 127.0.0.1 as their tracker, which \
         nobody else reaches; say with --tracker-name HOST how others reach it",
    )
}

/// Where others reach a socket that listens on all addresses of IPv4, and on all of IPv6 where there is no way by IPv4:
/// of IPv6 addresses a machine has many, and the one that its default route leaves from is the best guess.
pub fn reachable(listening: SocketAddr) -> SocketAddr {
    let v4 = || address_towards((Ipv4Addr::new(192, 0, 2, 1), 9).into());
    let v6 = || address_towards((Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1), 9).into());
    let ip = match listening.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => v4().unwrap_or(match v6() {
            // The same port listens there, too.
            Some(_) => return listening,
            None => Ipv4Addr::LOCALHOST.into(),
        }),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) if v4().is_none() => v6().unwrap_or(listening.ip()),
        ip => ip,
    };
    SocketAddr::new(ip, listening.port())
}

/// The address under which others most likely reach this machine: the one its default route leaves from. Nothing is
/// sent. The addresses asked for belong to nobody (RFC 5737, RFC 3849).
fn address_towards(nobody: SocketAddr) -> Option<IpAddr> {
    let any: IpAddr =
        if nobody.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(nobody).ok()?;
    let ip = socket.local_addr().ok()?.ip();
    (!ip.is_unspecified() && !ip.is_loopback()).then_some(ip)
}

fn bare(name: &str) -> &str {
    name.trim_matches(['[', ']'])
}

/// As it stands in an address: IPv6 in brackets.
fn bracketed(name: &str) -> String {
    match bare(name).parse::<Ipv6Addr>() {
        Ok(ip) => format!("[{ip}]"),
        Err(_) => name.to_owned(),
    }
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_own_address(ip: IpAddr) -> bool {
    ip.is_loopback() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(name: Option<&str>) -> EmbeddedTracker {
        let config = TrackerConfig::on_port(6969);
        EmbeddedTracker::new(OwnTracker::WhenNeeded { config, name: name.map(str::to_owned) })
    }

    #[test]
    fn its_own_addresses_are_known_before_it_runs() {
        let tracker = waiting(Some("seed.example"));
        for (url, ours) in [
            ("http://127.0.0.1:6969/announce", true),
            ("udp://[::1]:6969/announce", true),
            ("http://localhost:6969/announce", true),
            ("udp://Seed.Example:6969/announce", true),
            ("http://127.0.0.1:6970/announce", false),
            ("http://192.0.2.1:6969/announce", false),
            ("http://other.example:6969/announce", false),
            ("nonsense", false),
        ] {
            assert_eq!(tracker.is_named_by(&url.into()), ours, "{url}");
            assert!(!EmbeddedTracker::new(OwnTracker::Never).is_named_by(&url.into()));
        }
    }

    #[test]
    fn the_name_that_the_user_gives_stands_in_its_addresses() {
        let loopback: SocketAddr = (Ipv4Addr::LOCALHOST, 0).into();
        let config = TrackerConfig { http: vec![loopback], udp: vec![loopback], ..TrackerConfig::on_port(0) };
        let server = TrackerServer::bind(config).unwrap();
        let port = server.local_addrs()[0].address.port();
        for (name, place) in [
            (None, "127.0.0.1"),
            (Some("seed.example"), "seed.example"),
            (Some("2001:db8::7"), "[2001:db8::7]"),
            (Some("[2001:db8::7]"), "[2001:db8::7]"),
        ] {
            let expected =
                ["http", "udp"].map(|scheme| TrackerUrl::from(format!("{scheme}://{place}:{port}/announce")));
            assert_eq!(announce_urls(&server, name), expected);
        }
    }
}
