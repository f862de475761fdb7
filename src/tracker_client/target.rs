//! Where a tracker's address leads, and whether we may go there.
//!
//! A name is resolved once, the address class is judged on what it resolved to, and the connection goes to
//! exactly that address: a name that answers differently the second time gains nothing. A torrent file is
//! somebody else's text, so an address in it may not make us speak to services of this machine: on loopback
//! and link-local addresses only paths that look like a tracker's are asked.

use super::TrackerError;
use super::names::Names;
use crate::limits::{TRACKER_ADDRESSES_MAX, TRACKER_URL_LEN_MAX};
use crate::peer_list::{Scope, embedded_v4};
use crate::secret_url::{RedactedUrl, redacted_host};
use crate::tracker_wire::AddressFamily;
use crate::units::Counted;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use url::{Host, Url};

/// How a tracker is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    Udp,
    Http,
    Https,
}

/// A tracker's address, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: Url,
    pub(super) scheme: Scheme,
    /// A name, or an address without brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Target {
    pub(super) fn parse(text: &str) -> Result<Self, TrackerError> {
        let bad =
            |why: &str| TrackerError::BadUrl { url: RedactedUrl(text).to_string(), why: why.to_owned() };
        if text.len() > TRACKER_URL_LEN_MAX {
            let head = text.get(..64).unwrap_or_default();
            let url = RedactedUrl(head).to_string();
            return Err(TrackerError::BadUrl { url, why: format!("it has {}", Counted(text.len(), "byte")) });
        }
        Self::new(Url::parse(text).map_err(|error| bad(&error.to_string()))?)
    }

    pub(super) fn new(url: Url) -> Result<Self, TrackerError> {
        let bad = |why: &str| TrackerError::BadUrl {
            url: RedactedUrl(url.as_str()).to_string(),
            why: why.to_owned(),
        };
        let scheme = match url.scheme() {
            "udp" => Scheme::Udp,
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(TrackerError::UnknownScheme(other.to_owned())),
        };
        let host = match url.host() {
            Some(Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err(bad("it names no host")),
        };
        let port =
            url.port_or_known_default().filter(|&port| port != 0).ok_or_else(|| bad("it names no port"))?;
        Ok(Self { url, scheme, host, port })
    }

    /// Whom concurrent requests are counted against.
    pub(super) fn authority(&self) -> String {
        format!("{}:{}", self.host.to_ascii_lowercase(), self.port)
    }

    /// The addresses of `family`, at least one and at most [`TRACKER_ADDRESSES_MAX`], judged.
    pub(super) async fn resolve(
        &self,
        names: &Names,
        family: AddressFamily,
    ) -> Result<Vec<SocketAddr>, TrackerError> {
        let found: Vec<SocketAddr> = match self.host.parse::<IpAddr>() {
            Ok(ip) => vec![SocketAddr::new(ip, self.port)],
            Err(_) => names
                .lookup(&self.host, self.port, || lookup(self.host.clone(), self.port))
                .await
                .map_err(|source| TrackerError::Resolve { host: redacted_host(&self.host), source })?,
        };
        let mut addresses: Vec<SocketAddr> = found
            .into_iter()
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
            .filter(|address| AddressFamily::of(address.ip()) == family)
            .collect();
        addresses.dedup();
        addresses.truncate(TRACKER_ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(TrackerError::NoAddress { host: redacted_host(&self.host), family });
        }
        let own_machine = addresses.iter().find(|address| is_own_machine(address.ip()));
        if let Some(&address) = own_machine.filter(|_| self.scheme != Scheme::Udp && !self.is_tracker_path())
        {
            return Err(TrackerError::LocalService { address });
        }
        Ok(addresses)
    }

    /// The path and query, as HTTP requests and BEP 41 carry them.
    pub(super) fn path_and_query(&self) -> String {
        match self.url.query() {
            Some(query) => format!("{}?{query}", self.url.path()),
            None => self.url.path().to_owned(),
        }
    }

    /// Appends `query` behind a query that the address may have itself.
    pub(super) fn with_query(&self, query: &str) -> Self {
        let mut target = self.clone();
        let whole = match self.url.query() {
            Some(own) if !own.is_empty() => format!("{own}&{query}"),
            _ => query.to_owned(),
        };
        target.url.set_query(Some(&whole));
        target.url.set_fragment(None);
        target
    }

    /// The address to scrape (BEP 48): `scrape` in place of `announce` at the start of the last segment.
    pub(super) fn to_scrape(&self) -> Option<Self> {
        if self.scheme == Scheme::Udp {
            return Some(self.clone());
        }
        let (folder, last) = self.url.path().rsplit_once('/')?;
        let path = format!("{folder}/scrape{}", last.strip_prefix("announce")?);
        let mut target = self.clone();
        target.url.set_path(&path);
        Some(target)
    }

    fn is_tracker_path(&self) -> bool {
        let last = self.url.path().rsplit('/').next().unwrap_or_default();
        last.starts_with("announce") || last.starts_with("scrape")
    }
}

/// Asks the system's resolver on a thread of its own. A runtime's blocking pool would hold up the end of the
/// process until the resolver's last time-out; nobody waits for this thread. There are no more of them than
/// requests under way, and those that the resolver keeps from the last minute.
async fn lookup(host: String, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let (answer, found) = tokio::sync::oneshot::channel();
    std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The one who asked may have lost patience.
        let _ = answer.send(addresses);
    })?;
    found.await.unwrap_or_else(|_| Err(std::io::Error::other("the resolver's thread died")))
}

/// Loopback, link-local and unspecified: this machine, and the metadata services of clouds.
fn is_own_machine(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.octets()[0] == 0,
        IpAddr::V6(ip) => match embedded_v4(ip) {
            Some(ip) => is_own_machine(IpAddr::V4(ip)),
            None => ip.is_loopback() || ip.is_unicast_link_local() || ip.is_unspecified(),
        },
    }
}

/// Whether `ip` belongs to this machine or this site rather than to the public network.
pub(super) fn is_inward(ip: IpAddr) -> bool {
    is_own_machine(ip)
        || Scope::of(ip) != Scope::Global
        || match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.is_multicast(),
            IpAddr::V6(ip) => ip.is_multicast() || embedded_v4(ip).is_some_and(|ip| is_inward(ip.into())),
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_apart() {
        let target = Target::parse("udp://[::1]:6969/announce?x=1").unwrap();
        assert_eq!((target.scheme, target.host.as_str(), target.port), (Scheme::Udp, "::1", 6969));
        assert_eq!(target.path_and_query(), "/announce?x=1");
        let target = Target::parse("HTTPS://Tracker.Example/announce").unwrap();
        assert_eq!((target.scheme, target.authority().as_str()), (Scheme::Https, "tracker.example:443"));
        let portless = Target::parse("udp://t.example/announce").unwrap_err();
        assert!(portless.to_string().contains("no port"));
        assert!(matches!(Target::parse("wss://t.example/"), Err(TrackerError::UnknownScheme(_))));
        assert!(matches!(Target::parse("file:///etc/passwd"), Err(TrackerError::UnknownScheme(_))));
        assert!(matches!(Target::parse("nonsense"), Err(TrackerError::BadUrl { .. })));
        let long = format!("http://t.example/{}", "x".repeat(TRACKER_URL_LEN_MAX));
        assert!(matches!(Target::parse(&long), Err(TrackerError::BadUrl { .. })));
    }

    #[test]
    fn hostile_45_line_breaks_in_an_address_do_not_reach_the_request() {
        let target = Target::parse("http://t.example/announce\r\nEvil: 1\r\n?pass\r\nkey=a b").unwrap();
        let sent = target.with_query("info_hash=%0d").path_and_query();
        assert!(!sent.contains(['\r', '\n', ' ']), "{sent}");
    }

    #[test]
    fn queries_are_joined_and_scrapes_derived() {
        let target = Target::parse("http://t.example/x/announce.php?passkey=1#frag").unwrap();
        assert_eq!(target.with_query("a=%00").path_and_query(), "/x/announce.php?passkey=1&a=%00");
        assert_eq!(target.to_scrape().unwrap().path_and_query(), "/x/scrape.php?passkey=1");
        assert!(Target::parse("http://t.example/a").unwrap().to_scrape().is_none());
    }

    #[test]
    fn hostile_44_address_classes_are_told_apart_even_in_disguise() {
        for inward in [
            "127.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "192.168.0.1",
            "169.254.169.254",
            "100.64.0.1",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "::10.0.0.1",
        ] {
            assert!(is_inward(inward.parse().unwrap()), "{inward}");
        }
        for public in ["1.1.1.1", "100.128.0.1", "172.32.0.1", "2606:4700::1", "64:ff9b::101:101"] {
            assert!(!is_inward(public.parse().unwrap()), "{public}");
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn hostile_44_services_of_this_machine_are_not_asked() {
        for url in
            ["http://127.0.0.1:1/admin", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0:1/x"]
        {
            let refused = Target::parse(url).unwrap().resolve(&Names::default(), AddressFamily::V4).await;
            assert!(matches!(refused, Err(TrackerError::LocalService { .. })), "{url}");
        }
        let asked = Target::parse("http://127.0.0.1:1/key/announce.php").unwrap();
        assert_eq!(
            asked.resolve(&Names::default(), AddressFamily::V4).await.unwrap(),
            ["127.0.0.1:1".parse().unwrap()]
        );
        assert!(matches!(
            asked.resolve(&Names::default(), AddressFamily::V6).await,
            Err(TrackerError::NoAddress { .. })
        ));
        let named = Target::parse("http://localhost:1/announce").unwrap();
        assert_eq!(
            named.resolve(&Names::default(), AddressFamily::V4).await.unwrap(),
            ["127.0.0.1:1".parse().unwrap()]
        );
    }
}
