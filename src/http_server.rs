//! HTTP towards strangers: connections bounded in number, time and bytes. What is answered is the caller's.
//!
//! The embedded tracker and the metrics are served through it. Requests have no body, and only GET is meant; a
//! connection that sends slowly, or never ends, is closed. When all seats are taken, the oldest connection of the site
//! (/24 of IPv4, /48 of IPv6) that has most of them goes, not the newcomer. There is no CORS header.

use crate::id::Site;
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
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

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
    /// Whose connections are bounded as a whole only.
    shared: Rc<dyn Fn(IpAddr) -> bool>,
}

#[derive(Default)]
struct Counts {
    by_owner: BTreeMap<IpAddr, usize>,
    by_site: BTreeMap<Site, usize>,
    /// Those who are told when they have to go, by site and age.
    seated: BTreeMap<(Site, u64), Taken>,
    serial: u64,
}

/// A seat as the table knows it.
struct Taken {
    owner: IpAddr,
    leave: Rc<Notify>,
}

/// One counted connection; uncounted when dropped.
struct Seat {
    counts: Rc<RefCell<Counts>>,
    key: (Site, u64),
    leave: Rc<Notify>,
}

/// Serves one listener for ever: each request that arrives whole is given to `respond` with its source. Must run
/// inside a `LocalSet` on a runtime with I/O and time.
pub async fn serve<R, F>(listener: TcpListener, connections: Connections, respond: R)
where
    R: Fn(Request<Incoming>, SocketAddr) -> F + Clone + 'static,
    F: Future<Output = Answer> + 'static,
{
    serve_maybe_tls(listener, connections, None, respond).await;
}

/// What TLS connections are accepted with; whoever holds a clone may replace it at any time.
pub type Tls = Rc<RefCell<TlsAcceptor>>;

/// As [`serve`], over TLS when `tls` is given. A handshake has as long as a request's head.
pub async fn serve_maybe_tls<R, F>(
    listener: TcpListener,
    connections: Connections,
    tls: Option<Tls>,
    respond: R,
) where
    R: Fn(Request<Incoming>, SocketAddr) -> F + Clone + 'static,
    F: Future<Output = Answer> + 'static,
{
    let mut tasks = JoinSet::new();
    loop {
        while tasks.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, source)) => {
                // Without a seat the stream is dropped, which closes it.
                if let Some(seat) = connections.seat(source.ip()) {
                    let (respond, tls) = (respond.clone(), tls.clone());
                    tasks.spawn_local(async move {
                        tokio::select! {
                            () = seat.leave.notified() => {}
                            () = serve_stream(stream, source, tls, respond, PATIENCE) => {}
                        }
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

async fn serve_stream<R, F>(
    stream: TcpStream,
    source: SocketAddr,
    tls: Option<Tls>,
    respond: R,
    patience: Patience,
) where
    R: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Answer>,
{
    let _ = stream.set_nodelay(true);
    let Some(tls) = tls else { return serve_connection(stream, source, respond, patience).await };
    let acceptor = tls.borrow().clone();
    match tokio::time::timeout(patience.request, acceptor.accept(stream)).await {
        // Boxed, so that plain connections do not carry the room for TLS.
        Ok(Ok(stream)) => Box::pin(serve_connection(stream, source, respond, patience)).await,
        Ok(Err(error)) => tracing::debug!("{source} did not get through the TLS handshake: {error}"),
        Err(_) => tracing::debug!("{source} did not finish the TLS handshake"),
    }
}

async fn serve_connection<S, R, F>(stream: S, source: SocketAddr, respond: R, patience: Patience)
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Fn(Request<Incoming>, SocketAddr) -> F,
    F: Future<Output = Answer>,
{
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
        Self { counts: Rc::default(), total_max, per_owner_max, shared: Rc::new(|ip| ip.is_loopback()) }
    }

    /// The same, where only the former counts for addresses that `is_shared` names, too: many people's proxies.
    #[must_use]
    pub fn with_shared(mut self, is_shared: impl Fn(IpAddr) -> bool + 'static) -> Self {
        self.shared = Rc::new(move |ip| ip.is_loopback() || is_shared(ip));
        self
    }

    /// A seat for a connection from `ip`; `None` when its owner has too many. When all are taken, the oldest of the site
    /// with most of them loses his.
    fn seat(&self, ip: IpAddr) -> Option<Seat> {
        let owner = owner(ip);
        let mut counts = self.counts.borrow_mut();
        let of_owner = counts.by_owner.get(&owner).copied().unwrap_or(0);
        if of_owner >= self.per_owner_max && !(self.shared)(ip.to_canonical()) {
            return None;
        }
        if counts.seated.len() >= self.total_max {
            counts.free_one();
        }
        counts.serial += 1;
        let (key, leave) = ((Site::of(ip), counts.serial), Rc::new(Notify::new()));
        counts.seated.insert(key, Taken { owner, leave: Rc::clone(&leave) });
        *counts.by_owner.entry(owner).or_insert(0) += 1;
        *counts.by_site.entry(key.0).or_insert(0) += 1;
        Some(Seat { counts: Rc::clone(&self.counts), key, leave })
    }
}

impl Counts {
    fn free_one(&mut self) {
        let Some((&site, _)) = self.by_site.iter().max_by_key(|&(_, &count)| count) else { return };
        let oldest = self.seated.range((site, 0)..=(site, u64::MAX)).next().map(|(&key, _)| key);
        if let Some(taken) = oldest.and_then(|oldest| self.free(oldest)) {
            taken.leave.notify_one();
        }
    }

    /// Takes a seat out of all counts, if it is still in them.
    fn free(&mut self, key: (Site, u64)) -> Option<Taken> {
        let taken = self.seated.remove(&key)?;
        count_down(&mut self.by_owner, &taken.owner);
        count_down(&mut self.by_site, &key.0);
        Some(taken)
    }
}

fn count_down<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("total_max", &self.total_max).finish_non_exhaustive()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.counts.borrow_mut().free(self.key);
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
            let server = serve_stream(served, source, None, respond, patience);
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
        let counts = connections.counts.borrow();
        assert!(counts.by_owner.is_empty() && counts.by_site.is_empty() && counts.seated.is_empty());
    }

    #[test]
    fn hostile_45_when_all_seats_are_taken_the_site_with_most_of_them_loses_its_oldest() {
        let connections = Connections::bounded(20, 7);
        let seat = |ip: &str| connections.seat(ip.parse().expect("an address")).expect("nobody is kept out");
        let seats: Vec<Seat> = (0..20).map(|_| seat("::1")).collect();
        let (honest, other) = (seat("192.0.2.1"), seat("198.51.100.1"));
        assert_eq!(connections.counts.borrow().seated.len(), 20);
        assert_eq!(connections.counts.borrow().by_site[&Site::of(Ipv6Addr::LOCALHOST.into())], 18);
        // The newest of a flood do not push out who holds little.
        let flood: Vec<Seat> = (0..100).map(|_| seat("::1")).collect();
        let seated = |seat: &Seat| connections.counts.borrow().seated.contains_key(&seat.key);
        assert!(seated(&honest) && seated(&other));
        assert!(!seats.iter().any(seated) && seated(&flood[99]));
        // Networks of one site count together.
        let networks: Vec<Seat> =
            (0..100).map(|network| seat(&format!("2001:db8:bad:{network:x}::1"))).collect();
        assert!(seated(&honest) && seated(&other) && seated(&networks[99]));
        drop((seats, flood, networks, honest, other));
        assert!(connections.counts.borrow().seated.is_empty());
    }

    #[test]
    fn hostile_45_who_loses_his_seat_is_closed_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let local = tokio::task::LocalSet::new();
        local.block_on(&runtime.expect("a runtime starts"), async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
            let address = listener.local_addr().expect("it is bound");
            let respond =
                |_: Request<Incoming>, _: SocketAddr| std::future::ready(plain(StatusCode::OK, "yes"));
            tokio::task::spawn_local(serve(listener, Connections::bounded(3, 2), respond));
            let mut silent = Vec::new();
            for _ in 0..3 {
                silent.push(TcpStream::connect(address).await.expect("it listens"));
            }
            let mut honest = TcpStream::connect(address).await.expect("it listens");
            honest.write_all(b"GET / HTTP/1.0\r\n\r\n").await.expect("a new connection takes bytes");
            let mut response = Vec::new();
            honest.read_to_end(&mut response).await.expect("it answers");
            assert!(response.ends_with(b"yes"));
            assert_eq!(silent[0].read(&mut [0; 9]).await.expect("it was closed in order"), 0);
        });
    }

    #[test]
    fn proxies_may_be_exempted_from_the_bound_of_one_address() {
        let proxy: IpAddr = [192, 0, 2, 1].into();
        let connections = Connections::bounded(100, 2).with_shared(move |ip| ip == proxy);
        let seats: Vec<Option<Seat>> = (0..9).map(|_| connections.seat(proxy)).collect();
        assert!(seats.iter().all(Option::is_some));
        let others: Vec<Option<Seat>> = (0..3).map(|_| connections.seat([192, 0, 2, 2].into())).collect();
        assert!(others[1].is_some() && others[2].is_none());
    }
}
