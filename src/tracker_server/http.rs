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

/// How long a connection may take.
#[derive(Clone, Copy)]
struct Patience {
    /// For a request's line and headers, and between two requests.
    request: Duration,
    /// Until it is asked to end.
    connection: Duration,
    /// Until it is cut.
    closing: Duration,
}

const PATIENCE: Patience = Patience {
    request: HTTP_REQUEST_TIMEOUT,
    connection: HTTP_CONNECTION_TIMEOUT,
    closing: HTTP_CLOSING_TIMEOUT,
};

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
                    let shared = Shared::clone(&shared);
                    tasks.spawn_local(async move {
                        serve_connection(stream, source, shared, PATIENCE).await;
                        drop(seat);
                    });
                }
            }
            Err(error) => {
                tracing::debug!("the tracker could not accept a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, source: SocketAddr, shared: Shared, patience: Patience) {
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(&shared, &request, source);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.request)
        .max_buf_size(HTTP_REQUEST_LEN_MAX)
        .max_headers(HTTP_HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if tokio::time::timeout(patience.connection, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = tokio::time::timeout(patience.closing, connection).await;
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
    use crate::rng::Rng;
    use crate::tracker_server::AccessList;
    use crate::tracker_server::tracker::{Tracker, TrackerParts};
    use std::sync::{Arc, Mutex};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(20);

    /// Serves one connection with `patience` beside `client`, and ends when both have.
    fn with_connection<F: Future>(patience: Patience, client: impl FnOnce(TcpStream) -> F) {
        let tracker = Tracker::new(TrackerParts {
            interval: LONG,
            access: AccessList::All,
            secret: [0; 16],
            rng: Rng::from_seed(1),
            local_ip_towards: |_| None,
            completed: None,
        });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
            let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).await;
            let (served, source) = listener.accept().await.expect("one connects");
            let server = serve_connection(served, source, Arc::new(Mutex::new(tracker)), patience);
            tokio::join!(server, client(stream.expect("it is listened on")));
        });
    }

    #[test]
    fn hostile_45_a_request_that_does_not_end_is_cut_off() {
        let patience = Patience { request: SHORT, connection: LONG, closing: LONG };
        with_connection(patience, |mut stream| async move {
            stream.write_all(b"GET /announce?info_ha").await.expect("a new connection takes bytes");
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response).await;
            assert!(!response.starts_with(b"HTTP/1.1 2"));
        });
    }

    #[test]
    fn hostile_45_a_connection_without_requests_is_closed() {
        let patience = Patience { request: LONG, connection: SHORT, closing: SHORT };
        with_connection(patience, |mut stream| async move {
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response).await;
            assert!(response.is_empty());
        });
    }

    #[test]
    fn hostile_45_a_client_that_asks_without_end_and_never_reads_is_closed() {
        let patience = Patience { request: LONG, connection: SHORT, closing: SHORT };
        with_connection(patience, |mut stream| async move {
            // Ends only because the other side closes.
            while stream.write_all(&b"GET /stats HTTP/1.1\r\n\r\n".repeat(100)).await.is_ok() {}
        });
    }

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
