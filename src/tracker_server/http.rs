//! The HTTP side: connections bounded in number, time and bytes, and four paths.
//!
//! `/announce` and `/scrape` answer clients, `/` and `/stats` people and scripts, with sums only. Requests
//! have no body; a connection that sends slowly, or never ends, is closed.

use super::{Shared, TrackerStatistics, lock};
use crate::clock;
use crate::limits::{
    HTTP_CLOSING_TIMEOUT, HTTP_CONNECTION_TIMEOUT, HTTP_CONNECTIONS_MAX, HTTP_CONNECTIONS_PER_ADDRESS_MAX,
    HTTP_HEADERS_MAX, HTTP_REQUEST_LEN_MAX, HTTP_REQUEST_TIMEOUT,
};
use crate::time::Duration;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Time to wait after an accept that failed for want of something, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that are open, counted by who opened them.
#[derive(Clone, Default)]
pub(super) struct Connections(Rc<RefCell<Counts>>);

#[derive(Default)]
struct Counts {
    total: usize,
    by_owner: BTreeMap<IpAddr, usize>,
}

/// One counted connection; uncounted when dropped.
struct Seat {
    connections: Connections,
    owner: IpAddr,
}

/// Serves one listener for ever.
pub(super) async fn serve(listener: TcpListener, shared: Shared, connections: Connections) {
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, source)) => {
                // Without a seat the stream is dropped, which closes it.
                if let Some(seat) = connections.seat(source.ip()) {
                    tasks.spawn_local(serve_connection(stream, source, Rc::new(seat), shared.clone()));
                }
            }
            Err(error) => {
                tracing::debug!("the tracker could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, source: SocketAddr, _seat: Rc<Seat>, shared: Shared) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&shared, &request, source);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_REQUEST_TIMEOUT)
        .max_buf_size(HTTP_REQUEST_LEN_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if tokio::time::timeout(HTTP_CONNECTION_TIMEOUT, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(HTTP_CLOSING_TIMEOUT, connection).await;
    }
}

fn respond(shared: &Shared, request: &Request<Incoming>, source: SocketAddr) -> Response<Full<Bytes>> {
    if request.method() != Method::GET {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return response;
    }
    let query = request.uri().query().unwrap_or_default();
    match request.uri().path() {
        "/announce" => bencoded(lock(shared).answer_http_announce(clock::now(), query, source)),
        "/scrape" => bencoded(lock(shared).answer_http_scrape(query)),
        "/" => plain(StatusCode::OK, summary(&lock(shared).statistics())),
        "/stats" => json(&lock(shared).statistics()),
        _ => plain(StatusCode::NOT_FOUND, "a tracker answers at /announce and /scrape\n"),
    }
}

fn bencoded(body: Vec<u8>) -> Response<Full<Bytes>> {
    // BEP 3 has no media type of its own; trackers say text/plain.
    answer(StatusCode::OK, "text/plain", body.into())
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    answer(status, "text/plain; charset=utf-8", text.into())
}

fn json(statistics: &TrackerStatistics) -> Response<Full<Bytes>> {
    answer(StatusCode::OK, "application/json", format!("{}\n", statistics.to_json()).into())
}

fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

fn summary(statistics: &TrackerStatistics) -> String {
    format!("seedring {} tracker: {statistics}\n", env!("CARGO_PKG_VERSION"))
}

impl Connections {
    /// A seat for a connection from `ip`; `None` when there are too many.
    fn seat(&self, ip: IpAddr) -> Option<Seat> {
        let owner = owner(ip);
        let mut counts = self.0.borrow_mut();
        let of_owner = counts.by_owner.get(&owner).copied().unwrap_or(0);
        let is_crowded = of_owner >= HTTP_CONNECTIONS_PER_ADDRESS_MAX && !owner.is_loopback();
        if is_crowded || counts.total >= HTTP_CONNECTIONS_MAX {
            return None;
        }
        counts.total += 1;
        counts.by_owner.insert(owner, of_owner + 1);
        Some(Seat { connections: self.clone(), owner })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.connections.0.borrow_mut();
        counts.total -= 1;
        if let Some(count) = counts.by_owner.get_mut(&self.owner) {
            *count -= 1;
            if *count == 0 {
                counts.by_owner.remove(&self.owner);
            }
        }
    }
}

/// Whose connection it is: the address of IPv4, the /64 network of IPv6.
fn owner(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) if !ip.is_loopback() => {
            IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)))
        }
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_45_one_address_has_a_bounded_number_of_connections() {
        let connections = Connections::default();
        let seat = |ip: &str| connections.seat(ip.parse().expect("an address"));
        let seats: Vec<Seat> =
            (0..HTTP_CONNECTIONS_PER_ADDRESS_MAX).filter_map(|_| seat("192.0.2.1")).collect();
        assert_eq!(seats.len(), HTTP_CONNECTIONS_PER_ADDRESS_MAX);
        assert!(seat("192.0.2.1").is_none());
        assert!(seat("::ffff:192.0.2.1").is_none());
        assert!(seat("192.0.2.2").is_some());
        drop(seats);
        assert!(seat("192.0.2.1").is_some());
        assert_eq!(connections.0.borrow().total, 0);
        assert!(connections.0.borrow().by_owner.is_empty());
    }

    #[test]
    fn hostile_45_the_number_of_connections_is_bounded() {
        let connections = Connections::default();
        let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let seats: Vec<Seat> =
            (0..=HTTP_CONNECTIONS_MAX).filter_map(|_| connections.seat(loopback)).collect();
        assert_eq!(seats.len(), HTTP_CONNECTIONS_MAX);
    }
}
