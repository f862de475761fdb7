//! HTTP towards strangers: connections bounded in number, time and bytes. What is answered is the caller's.
//!
//! The embedded tracker and the metrics are served through it. Requests have no body, and only GET is meant; a
//! connection that sends slowly, or never ends, is closed. There is no TLS and no CORS header.

use crate::limits::{
    HTTP_CLOSING_TIMEOUT, HTTP_CONNECTION_TIMEOUT, HTTP_HEADERS_MAX, HTTP_REQUEST_LEN_MAX,
    HTTP_REQUEST_TIMEOUT,
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
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// Time to wait after an accept that failed for want of something, such as descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is answered to a request.
pub type Answer = Response<Full<Bytes>>;

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

/// Connections that are open, counted by who opened them; listeners that share it share its bounds.
#[derive(Clone)]
pub struct Connections {
    counts: Rc<RefCell<Counts>>,
    total_max: usize,
    per_owner_max: usize,
}

#[derive(Default)]
struct Counts {
    total: usize,
    by_owner: BTreeMap<IpAddr, usize>,
}

/// One counted connection; uncounted when dropped.
struct Seat {
    counts: Rc<RefCell<Counts>>,
    owner: IpAddr,
}

/// Serves one listener for ever: each request that arrives whole is given to `respond` with its source. Must run
/// inside a `LocalSet` on a runtime with I/O and time.
pub async fn serve<R, F>(listener: TcpListener, connections: Connections, respond: R)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F + Clone + 'static,
    F: Future<Output = Answer>,
{
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, source)) => {
                // Without a seat the stream is dropped, which closes it.
                if let Some(seat) = connections.seat(source.ip()) {
                    let respond = respond.clone();
                    tasks.spawn_local(async move {
                        serve_connection(stream, source, respond, PATIENCE).await;
                        drop(seat);
                    });
                }
            }
            Err(error) => {
                tracing::debug!("could not accept an HTTP connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection<R, F>(stream: TcpStream, source: SocketAddr, respond: R, patience: Patience)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Answer>,
{
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request, source);
        async move { Ok::<_, Infallible>(response.await) }
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

/// The refusal of every method but GET; `None` for a GET.
pub fn refuse_all_but_get<B>(request: &Request<B>) -> Option<Answer> {
    if request.method() == Method::GET {
        return None;
    }
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET is served\n");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
    Some(response)
}

/// Text for people.
pub fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    answer(status, "text/plain; charset=utf-8", text.into())
}

/// A whole answer, which nobody is to keep or to take for another type than its own.
pub fn answer(status: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

impl Connections {
    /// None open yet. At most `total_max` at once, and `per_owner_max` of one IPv4 address or /64 of IPv6; from
    /// loopback only the former counts.
    pub fn bounded(total_max: usize, per_owner_max: usize) -> Self {
        Self { counts: Rc::default(), total_max, per_owner_max }
    }

    /// A seat for a connection from `ip`; `None` when there are too many.
    fn seat(&self, ip: IpAddr) -> Option<Seat> {
        let owner = owner(ip);
        let mut counts = self.counts.borrow_mut();
        let of_owner = counts.by_owner.get(&owner).copied().unwrap_or(0);
        let is_crowded = of_owner >= self.per_owner_max && !owner.is_loopback();
        if is_crowded || counts.total >= self.total_max {
            return None;
        }
        counts.total += 1;
        counts.by_owner.insert(owner, of_owner + 1);
        Some(Seat { counts: Rc::clone(&self.counts), owner })
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("total_max", &self.total_max).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut counts = self.counts.borrow_mut();
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const LONG: Duration = Duration::from_secs(600);
    const SHORT: Duration = Duration::from_millis(20);

    /// Serves one connection with `patience` beside `client`, and ends when both have.
    fn with_connection<F: Future>(patience: Patience, client: impl FnOnce(TcpStream) -> F) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime starts").block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
            let stream = TcpStream::connect(listener.local_addr().expect("it is bound")).await;
            let (served, source) = listener.accept().await.expect("one connects");
            let respond = |_: Request<Incoming>, _: SocketAddr| {
                std::future::ready(plain(StatusCode::OK, "some words of an answer\n"))
            };
            let server = serve_connection(served, source, respond, patience);
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
        let connections = Connections::bounded(100, 7);
        let seat = |ip: &str| connections.seat(ip.parse().expect("an address"));
        let seats: Vec<Seat> = (0..7).filter_map(|_| seat("192.0.2.1")).collect();
        assert_eq!(seats.len(), 7);
        assert!(seat("192.0.2.1").is_none());
        assert!(seat("::ffff:192.0.2.1").is_none());
        assert!(seat("192.0.2.2").is_some());
        drop(seats);
        assert!(seat("192.0.2.1").is_some());
        assert_eq!(connections.counts.borrow().total, 0);
        assert!(connections.counts.borrow().by_owner.is_empty());
    }

    #[test]
    fn hostile_45_the_number_of_connections_is_bounded() {
        let connections = Connections::bounded(20, 7);
        let loopback = IpAddr::V6(Ipv6Addr::LOCALHOST);
        let seats: Vec<Seat> = (0..=20).filter_map(|_| connections.seat(loopback)).collect();
        assert_eq!(seats.len(), 20);
    }
}
