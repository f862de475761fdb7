//! Speaks to trackers over HTTP, HTTPS and UDP, as one client for all torrents of the process.
//!
//! A tracker is a stranger: everything it sends is bounded in bytes and time, its words are made safe before
//! they are shown, and passkeys are not shown at all (see [`secret_url`](crate::secret_url)). Certificates are always verified.
//! When to announce is the announcer's decision; [`driver`] joins the two for one torrent.
//!
//! Runs on one thread: inside tokio-uring's runtime or on a current-thread tokio with a `LocalSet`.
//! Deliberately absent: proxies, cookies, HTTP authentication, connection reuse (trackers
//! are asked twice an hour).

mod bounded;
mod coding;
pub mod driver;
mod gate;
mod names;
mod http;
mod target;
mod tls;
mod udp;

pub use driver::{Command, Identity, Progress, TrackerEvent, run_announcer};
pub use names::Names;

use crate::announcer::Failure;
use crate::id::InfoHash;
use crate::limits;
use crate::peer_list::Scope;
use crate::secret_url::redacted_words;
use crate::time::Duration;
use crate::tracker_wire::http::query::{AnnounceQuery, scrape_query};
use crate::tracker_wire::http::response::{self, ResponseError};
use crate::tracker_wire::{AddressFamily, AnnounceRequest, AnnounceResponse, ScrapeEntry};
use gate::{Gate, Pass, Verdict};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use target::{Scheme, Target};

/// The client's knobs. Times are shortened by tests only.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// Our IPv4 address towards trackers; `None` leaves it to the system.
    pub bind_v4: Option<Ipv4Addr>,
    /// Our IPv6 address towards trackers; `None` leaves it to the system.
    pub bind_v6: Option<Ipv6Addr>,
    /// A PEM file of root certificates trusted beside the built-in ones.
    pub trusted_pem: Option<PathBuf>,
    /// Root certificates (DER) trusted beside the built-in ones.
    pub trusted_der: Vec<Vec<u8>>,
    /// Time for a TCP connection. Default [`limits::TRACKER_CONNECT_TIMEOUT`].
    pub connect_timeout: Duration,
    /// Time for a whole HTTP exchange. Default [`limits::TRACKER_EXCHANGE_TIMEOUT`].
    pub exchange_timeout: Duration,
    /// First patience with a UDP tracker, doubling. Default [`limits::UDP_TRACKER_TIMEOUT`].
    pub udp_timeout: Duration,
    /// Repetitions of a UDP request. Default [`limits::UDP_TRACKER_REPEATS`].
    pub udp_repeats: u32,
    /// Requests begun at once. Default [`limits::TRACKER_REQUESTS_MAX`].
    pub requests_max: usize,
    /// Requests in flight to one host and family. Default [`limits::TRACKER_REQUESTS_PER_HOST_MAX`].
    pub requests_per_host_max: usize,
    /// What the resolver has said lately.
    pub names: Names,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            bind_v4: None,
            bind_v6: None,
            trusted_pem: None,
            trusted_der: Vec::new(),
            connect_timeout: limits::TRACKER_CONNECT_TIMEOUT,
            exchange_timeout: limits::TRACKER_EXCHANGE_TIMEOUT,
            udp_timeout: limits::UDP_TRACKER_TIMEOUT,
            udp_repeats: limits::UDP_TRACKER_REPEATS,
            requests_max: limits::TRACKER_REQUESTS_MAX,
            requests_per_host_max: limits::TRACKER_REQUESTS_PER_HOST_MAX,
            names: Names::default(),
        }
    }
}

impl ClientConfig {
    /// The defaults, with the root certificates that the environment's `SSL_CERT_FILE` names.
    pub fn from_environment() -> Self {
        Self { trusted_pem: std::env::var_os("SSL_CERT_FILE").map(PathBuf::from), ..Self::default() }
    }

    /// The same, but every connection leaves from `ip`; trackers are then spoken to by its family alone. An
    /// unspecified address (`0.0.0.0`, `::`) chooses the family and leaves the address to the system.
    #[must_use]
    pub fn bound_to(mut self, ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => self.bind_v4 = Some(ip),
            IpAddr::V6(ip) => self.bind_v6 = Some(ip),
        }
        self
    }

    /// The families that trackers are spoken to by: both, unless bound to an address of one.
    pub fn families(&self) -> Vec<AddressFamily> {
        match (self.bind_v4, self.bind_v6) {
            (Some(_), None) => vec![AddressFamily::V4],
            (None, Some(_)) => vec![AddressFamily::V6],
            _ => vec![AddressFamily::V4, AddressFamily::V6],
        }
    }

    /// Where a connection of `family` leaves from, any port.
    fn local(&self, family: AddressFamily) -> SocketAddr {
        let ip = match family {
            AddressFamily::V4 => IpAddr::V4(self.bind_v4.unwrap_or(Ipv4Addr::UNSPECIFIED)),
            AddressFamily::V6 => IpAddr::V6(self.bind_v6.unwrap_or(Ipv6Addr::UNSPECIFIED)),
        };
        SocketAddr::new(ip, 0)
    }
}

/// Why a tracker gave no answer. Texts hold no passkeys and no control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrackerError {
    /// The torrent's fault: the address is none.
    #[error("{url} is no tracker's address: {why}")]
    BadUrl {
        /// The address, redacted.
        url: String,
        /// What is wrong with it.
        why: String,
    },
    /// The torrent's fault: only udp, http and https are spoken.
    #[error("trackers of scheme {0:?} are not supported; use udp, http or https")]
    UnknownScheme(String),
    /// The tracker's address derives no scrape address (BEP 48).
    #[error("the tracker cannot be scraped: its address does not end in /announce")]
    NoScrape,
    /// The name server knows no such host, or does not answer.
    #[error("cannot resolve {host}: {source}; check the name and the network")]
    Resolve {
        /// The name.
        host: String,
        /// The resolver's words.
        source: std::io::Error,
    },
    /// Nothing to worry about: the tracker is reachable by the other family only.
    #[error("{host} has no {} address", family_name(*.family))]
    NoAddress {
        /// The name.
        host: String,
        /// The family asked for.
        family: AddressFamily,
    },
    /// We are bound to an address of the other family.
    #[error("not announcing by {}: connections are bound to an address of the other family", family_name(*.0))]
    FamilyNotBound(AddressFamily),
    /// The torrent's fault: it points at a service of this machine that is no tracker.
    #[error("{address} is this machine, where only paths ending in /announce are asked")]
    LocalService {
        /// Where the address led.
        address: SocketAddr,
    },
    /// The address given with `--bind` is not one of this machine.
    #[error("cannot send from {local}: {source}; bind to an address of this machine")]
    Bind {
        /// Our address.
        local: IpAddr,
        /// The kernel's words.
        source: std::io::Error,
    },
    /// The tracker is down, or something between blocks us.
    #[error("cannot reach {address}: {source}")]
    Connect {
        /// The tracker.
        address: SocketAddr,
        /// The kernel's words.
        source: std::io::Error,
    },
    /// The tracker's certificate is not trusted, or it does not speak TLS.
    #[error("no secure connection to {host}: {why}")]
    Tls {
        /// The tracker.
        host: String,
        /// The TLS library's words, safe to show.
        why: String,
    },
    /// The tracker is down or overloaded.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The tracker is up, but has no answer to this very announce: it may not serve the torrent.
    #[error("it answers, but not to this: nothing within {} s; it may not serve this torrent", .0.as_secs())]
    Ignored(Duration),
    /// So many trackers are silent that this one was not waited for any longer.
    #[error("no answer within {} s, and too many other trackers are silent, too", .0.as_secs())]
    Outwaited(Duration),
    /// The tracker was unreachable many times in a row and is left alone for a minute.
    #[error("{host} was unreachable many times in a row; asking again in a minute")]
    HostDown {
        /// The tracker.
        host: String,
    },
    /// The tracker does not speak HTTP.
    #[error("the tracker's HTTP is broken: {0}")]
    Http(#[source] hyper::Error),
    /// The tracker answers with a page, an archive, or without end.
    #[error("the tracker's answer is longer than {limit} bytes")]
    TooLong {
        /// The bound.
        limit: usize,
    },
    /// The tracker encodes its answer in a way that we did not offer to read.
    #[error("the tracker's answer is encoded ({0:?}) although we asked for gzip or none")]
    Encoded(String),
    /// The tracker's compressed answer is broken.
    #[error("the tracker's answer cannot be decompressed: {0}")]
    Compressed(String),
    /// The tracker refuses in HTTP's terms.
    #[error("the tracker answers with HTTP status {0}")]
    Status(u16),
    /// The tracker redirects round and round.
    #[error("the tracker redirects more than {} times", limits::TRACKER_REDIRECTS_MAX)]
    RedirectsTooMany,
    /// The tracker redirects to something that is not allowed.
    #[error("the tracker redirects to {to}, which {why}")]
    Redirect {
        /// Where to, redacted.
        to: String,
        /// The reason.
        why: &'static str,
    },
    /// The tracker refuses in its own words.
    #[error("the tracker refuses: {reason}")]
    Refused {
        /// The words, safe to show.
        reason: String,
        /// When to come back (BEP 31).
        retry: Option<Retry>,
    },
    /// The tracker answers nonsense, or is none.
    #[error(transparent)]
    Answer(ResponseError),
    /// The user's fault: the file of trusted certificates holds none.
    #[error("{path}: {why}; name a PEM file of root certificates")]
    TrustedFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The TLS library refuses its own settings; our fault.
    #[error("TLS cannot be set up: {0}")]
    TlsSetup(String),
}

/// When a tracker that refused wants to be asked again (BEP 31).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// After this time.
    In(Duration),
    /// Never.
    Never,
}

impl TrackerError {
    /// What the announce schedule makes of it.
    pub fn failure(&self) -> Failure {
        match self {
            _ if self.is_family_absent() => Failure::NoAddress,
            Self::BadUrl { .. } | Self::UnknownScheme(_) | Self::LocalService { .. } | Self::NoScrape => {
                Failure::Lasting
            }
            Self::Refused { retry: Some(Retry::Never), .. } => Failure::Lasting,
            Self::Refused { retry: Some(Retry::In(patience)), .. } => Failure::RetryIn(*patience),
            _ => Failure::Passing,
        }
    }

    /// Whether there is merely no way by this address family, on the tracker's side or on ours: nothing that a
    /// user has to hear of while the other family works.
    pub fn is_family_absent(&self) -> bool {
        match self {
            Self::NoAddress { .. } | Self::FamilyNotBound(_) => true,
            Self::Connect { address, source } => {
                address.is_ipv6() && source.kind() == std::io::ErrorKind::NetworkUnreachable
            }
            Self::Bind { source, .. } => source.raw_os_error() == Some(libc::EAFNOSUPPORT),
            _ => false,
        }
    }

    /// What it shows about the host.
    fn verdict(&self) -> Verdict {
        match self {
            Self::Timeout(_) => Verdict::Silent,
            Self::Connect { .. } | Self::Resolve { .. } => Verdict::Unreachable,
            Self::Outwaited(_) => Verdict::Unknown,
            _ => Verdict::Alive,
        }
    }
}

/// Speaks to trackers. One for the process, shared by all torrents.
pub struct TrackerClient {
    config: ClientConfig,
    gate: Gate,
    tls: tokio_rustls::TlsConnector,
    links: udp::Links,
}

impl TrackerClient {
    /// A client. Opens nothing yet.
    ///
    /// # Errors
    /// When the file of trusted certificates cannot be used; the user's fault.
    pub fn new(config: ClientConfig) -> Result<Self, TrackerError> {
        Ok(Self {
            gate: Gate::new(config.requests_max, config.requests_per_host_max),
            tls: tls::connector(&config)?,
            links: udp::Links::default(),
            config,
        })
    }

    /// Announces to the tracker at `url` by `family`, after waiting in line.
    ///
    /// # Errors
    /// When no good answer came; see [`TrackerError`] for whose fault it is.
    pub async fn announce(
        &self,
        url: &str,
        family: AddressFamily,
        request: &AnnounceRequest,
    ) -> Result<AnnounceResponse, TrackerError> {
        let admitted = self.admit(url, family).await?;
        self.announce_admitted(&admitted, request, None).await.map(|(response, _)| response)
    }

    /// Asks the tracker at `url` for the figures of at most [`limits::UDP_SCRAPE_HASHES_MAX`] torrents. It may
    /// leave some out.
    ///
    /// # Errors
    /// As [`announce`](Self::announce), and when the tracker's address derives no scrape address.
    pub async fn scrape(
        &self,
        url: &str,
        family: AddressFamily,
        info_hashes: &[InfoHash],
    ) -> Result<Vec<(InfoHash, ScrapeEntry)>, TrackerError> {
        let info_hashes = info_hashes.get(..limits::UDP_SCRAPE_HASHES_MAX).unwrap_or(info_hashes);
        if info_hashes.is_empty() {
            // A scrape of nothing would ask an HTTP tracker for everything.
            return Ok(Vec::new());
        }
        let admitted = self.admit(url, family).await?;
        let target = admitted.target.to_scrape().ok_or(TrackerError::NoScrape)?;
        let answer = self.gate.carry(&admitted.pass, async {
            if target.scheme == Scheme::Udp {
                let alive = || admitted.pass.report(Verdict::Alive);
                let entries = self.links.scrape(&self.config, &target, family, info_hashes, &alive).await;
                return entries.map(|entries| info_hashes.iter().copied().zip(entries).collect());
            }
            let target = target.with_query(&scrape_query(info_hashes));
            let body = http::exchange(&self.config, &self.tls, target, family).await;
            body.and_then(|body| body.read(response::decode_scrape))
        });
        admitted.report(answer.await)
    }

    /// Waits in line for the tracker at `url`.
    async fn admit(&self, url: &str, family: AddressFamily) -> Result<Admitted, TrackerError> {
        if !self.config.families().contains(&family) {
            return Err(TrackerError::FamilyNotBound(family));
        }
        let target = Target::parse(url)?;
        let pass = self.gate.enter(target.authority(), family).await?;
        Ok(Admitted { pass, target, family })
    }

    /// The answer, and how far the address carries that it came from.
    async fn announce_admitted(
        &self,
        admitted: &Admitted,
        request: &AnnounceRequest,
        tracker_id: Option<Vec<u8>>,
    ) -> Result<(AnnounceResponse, Scope), TrackerError> {
        let Admitted { pass, target, family } = admitted;
        let answer = self.gate.carry(pass, async {
            if target.scheme == Scheme::Udp {
                let alive = || pass.report(Verdict::Alive);
                return self.links.announce(&self.config, target, *family, request, &alive).await;
            }
            let query = AnnounceQuery { tracker_id, ..AnnounceQuery::new(request.clone()) };
            let target = target.with_query(&query.to_query());
            let body = http::exchange(&self.config, &self.tls, target, *family).await;
            body.and_then(|body| Ok((body.read(response::decode_announce)?, body.from)))
        });
        admitted.report(answer.await).map(|(mut response, from)| {
            response.warning = response.warning.map(|warning| admitted.redacted(&warning));
            (response, Scope::of(from))
        })
    }
}

/// A request whose turn has come.
struct Admitted {
    pass: Pass,
    target: Target,
    family: AddressFamily,
}

impl Admitted {
    fn report<T>(&self, answer: Result<T, TrackerError>) -> Result<T, TrackerError> {
        self.pass.report(answer.as_ref().err().map_or(Verdict::Alive, TrackerError::verdict));
        // Words of others leave the client here, and by the warning of a good answer.
        answer.map_err(|error| match error {
            TrackerError::Refused { reason, retry } => {
                TrackerError::Refused { reason: self.redacted(&reason), retry }
            }
            TrackerError::Tls { host, why } => TrackerError::Tls { host, why: self.redacted(&why) },
            other => other,
        })
    }

    fn redacted(&self, words: &str) -> String {
        redacted_words(words, self.target.url.as_str())
    }
}

fn family_name(family: AddressFamily) -> &'static str {
    match family {
        AddressFamily::V4 => "IPv4",
        AddressFamily::V6 => "IPv6",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn failures_tell_the_schedule_how_long_to_wait() {
        let connect = |address: &str, code| TrackerError::Connect {
            address: address.parse().unwrap(),
            source: io::Error::from_raw_os_error(code),
        };
        let refused = |retry| TrackerError::Refused { reason: String::new(), retry };
        let hour = Duration::from_secs(3600);
        for (error, failure) in [
            (connect("[2001:db8::1]:80", libc::ENETUNREACH), Failure::NoAddress),
            (connect("192.0.2.1:80", libc::ENETUNREACH), Failure::Passing),
            (connect("[2001:db8::1]:80", libc::ECONNREFUSED), Failure::Passing),
            (TrackerError::FamilyNotBound(AddressFamily::V6), Failure::NoAddress),
            (TrackerError::UnknownScheme("wss".to_owned()), Failure::Lasting),
            (TrackerError::Timeout(hour), Failure::Passing),
            (refused(None), Failure::Passing),
            (refused(Some(Retry::In(hour))), Failure::RetryIn(hour)),
            (refused(Some(Retry::Never)), Failure::Lasting),
        ] {
            assert_eq!(error.failure(), failure, "{error}");
        }
    }

    #[test]
    fn the_bound_address_chooses_the_family() {
        let bound = |ip: &str| ClientConfig::default().bound_to(ip.parse().unwrap()).families();
        assert_eq!(bound("192.0.2.1"), [AddressFamily::V4]);
        assert_eq!(bound("2001:db8::1"), [AddressFamily::V6]);
        assert_eq!(ClientConfig::default().families(), [AddressFamily::V4, AddressFamily::V6]);
    }
}
