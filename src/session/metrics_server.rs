//! `GET /metrics`, and nothing else: a listener whose answers come out of the session's own loop, so that each
//! is of the moment it is asked for and nothing is prepared that nobody reads.
//!
//! No CORS header. A request that comes over loopback under a foreign host name is refused: a web page whose
//! name was turned into 127.0.0.1 could otherwise read the names of torrents (DNS rebinding).

use crate::bind_patience::{a_second, bind_patiently, is_taken};
use crate::exposition::Format;
use crate::http_server::{self, Answer, Connections, answer, plain, refuse_all_but_get};
use crate::limits::{METRICS_CONNECTIONS_MAX, METRICS_CONNECTIONS_PER_ADDRESS_MAX};
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use std::io;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Why there are no metrics; the fault of who named the address.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve metrics on {address}; name another address or port with --metrics")]
pub struct MetricsError {
    /// The address as it was given.
    pub address: SocketAddr,
    source: io::Error,
}

/// A bound listener that is not served yet.
#[derive(Debug)]
pub struct MetricsServer {
    listener: std::net::TcpListener,
    address: SocketAddr,
}

/// A request: the format that it wants, and where the text goes.
#[derive(Debug)]
pub(super) struct Scrape {
    pub format: Format,
    pub reply: oneshot::Sender<String>,
}

/// Requests that wait for the session's text. Dropping it ends the server.
#[derive(Debug)]
pub(super) struct Scrapes {
    requests: mpsc::Receiver<Scrape>,
    task: JoinHandle<()>,
}

impl MetricsServer {
    /// Listens on `address`; port 0 takes any free one. Needs no runtime.
    ///
    /// # Errors
    /// When the address is taken or not ours.
    pub fn bind(address: SocketAddr) -> Result<Self, MetricsError> {
        let bind = || std::net::TcpListener::bind(address);
        let bound = bind_patiently(bind, is_taken, a_second()).and_then(|listener| {
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            Ok(Self { listener, address })
        });
        bound.map_err(|source| MetricsError { address, source })
    }

    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves from now on. Must be called on the service thread.
    pub(super) fn serve(self) -> Result<Scrapes, MetricsError> {
        let Self { listener, address } = self;
        let listener =
            tokio::net::TcpListener::from_std(listener).map_err(|source| MetricsError { address, source })?;
        let (asks, requests) = mpsc::channel(METRICS_CONNECTIONS_MAX);
        let connections = Connections::bounded(METRICS_CONNECTIONS_MAX, METRICS_CONNECTIONS_PER_ADDRESS_MAX);
        let task =
            tokio::task::spawn_local(http_server::serve(listener, connections, move |request, source| {
                respond(request, source, asks.clone())
            }));
        Ok(Scrapes { requests, task })
    }
}

impl Scrapes {
    /// The next request; whoever gets it sends the text into it.
    pub async fn next(&mut self) -> Option<Scrape> {
        self.requests.recv().await
    }
}

impl Drop for Scrapes {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn respond<B>(request: Request<B>, source: SocketAddr, asks: mpsc::Sender<Scrape>) -> Answer {
    if let Some(refusal) = refuse(&request, source.ip()) {
        return refusal;
    }
    let format = Format::wanted(request.headers());
    let (reply, text) = oneshot::channel();
    // A session that ends drops the request, or no longer takes it.
    let _ = asks.send(Scrape { format, reply }).await;
    match text.await {
        Ok(text) => answer(StatusCode::OK, format.content_type(), text.into()),
        Err(_) => plain(StatusCode::SERVICE_UNAVAILABLE, "the session ends\n"),
    }
}

fn refuse<B>(request: &Request<B>, source: IpAddr) -> Option<Answer> {
    if let Some(refusal) = refuse_all_but_get(request) {
        return Some(refusal);
    }
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    if source.to_canonical().is_loopback() && host.is_some_and(|host| !is_local_name(host)) {
        let why = "over loopback ask by IP address or as localhost, not by another name\n";
        return Some(plain(StatusCode::FORBIDDEN, why));
    }
    (request.uri().path() != "/metrics").then(|| plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"))
}

/// Whether a Host header has an IP address or localhost, with or without a port.
fn is_local_name(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        // The colons of a bare IPv6 address are within brackets.
        Some((name, port)) if !port.ends_with(']') => (name, port),
        _ => (host, ""),
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    port.bytes().all(|byte| byte.is_ascii_digit())
        && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, path: &str, host: Option<&str>, source: &str) -> Option<StatusCode> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(host) = host {
            request = request.header(HOST, host);
        }
        let refusal = refuse(&request.body(()).unwrap(), source.parse().unwrap());
        refusal.map(|refusal| refusal.status())
    }

    #[test]
    fn only_get_of_metrics_is_served() {
        let ask = |method, path| status(method, path, Some("127.0.0.1:9100"), "127.0.0.1");
        assert_eq!(ask("GET", "/metrics"), None);
        assert_eq!(ask("GET", "/metrics?name=x"), None);
        assert_eq!(ask("POST", "/metrics"), Some(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(ask("GET", "/"), Some(StatusCode::NOT_FOUND));
    }

    #[test]
    fn a_foreign_name_over_loopback_is_refused() {
        let ask = |host, source| status("GET", "/metrics", host, source);
        for host in ["localhost", "LOCALHOST:9100", "[::1]:9100", "[::1]", "192.0.2.7"] {
            assert_eq!(ask(Some(host), "::1"), None, "{host}");
        }
        for host in ["rebound.example:9100", "localhost.example", "127.0.0.1.example", "localhost:x", ""] {
            assert_eq!(ask(Some(host), "127.0.0.1"), Some(StatusCode::FORBIDDEN), "{host}");
        }
        assert_eq!(ask(None, "127.0.0.1"), None);
        assert_eq!(ask(Some("seedbox.example:9100"), "192.0.2.7"), None);
        assert_eq!(ask(Some("rebound.example"), "::ffff:127.0.0.1"), Some(StatusCode::FORBIDDEN));
    }

    #[test]
    fn a_taken_address_is_named_with_its_cure() {
        let first = MetricsServer::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let error = MetricsServer::bind(first.address()).unwrap_err();
        assert_eq!(error.address, first.address());
        assert!(error.to_string().contains("--metrics"), "{error}");
    }
}
