//! The tracker client against scripted trackers on loopback, kind and hostile ones.

use seedring::announcer::{Announcer, AnnouncerConfig};
use seedring::id::{InfoHash, PeerId};
use seedring::rng::Rng;
use seedring::time::Duration;
use seedring::tracker_client::{
    ClientConfig, Command, Identity, Progress, Retry, TrackerClient, TrackerError, TrackerEvent,
    run_announcer,
};
use seedring::tracker_wire::udp::{
    ConnectionId, Request, encode_announce_response, encode_connect_response, encode_error,
    encode_scrape_response, url_data,
};
use seedring::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, AnnounceResponse, ScrapeEntry};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, watch};

const V4: AddressFamily = AddressFamily::V4;
const V6: AddressFamily = AddressFamily::V6;
const GOOD: &[u8] = b"d8:intervali900e5:peers6:\x01\x02\x03\x04\x1a\xe1e";
const PASSKEY: &str = "0123456789abcdef0123456789abcdef";

fn request(event: AnnounceEvent) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: InfoHash([7; 20]),
        peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
        port: 6881,
        uploaded: 1,
        downloaded: 2,
        left: 3,
        event,
        key: 4,
        num_want: None,
    }
}

async fn announce(
    client: &TrackerClient,
    url: &str,
    family: AddressFamily,
    event: AnnounceEvent,
) -> Result<AnnounceResponse, TrackerError> {
    client.announce(url, family, &request(event)).await
}

fn client() -> TrackerClient {
    TrackerClient::new(ClientConfig::default()).unwrap()
}

fn impatient(milliseconds: u64) -> TrackerClient {
    let short = Duration::from_millis(milliseconds);
    TrackerClient::new(ClientConfig {
        exchange_timeout: short,
        udp_timeout: short,
        ..ClientConfig::default()
    })
    .unwrap()
}

fn ok(body: &[u8]) -> Vec<u8> {
    reply(&format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n", body.len()), body)
}

fn reply(head: &str, body: &[u8]) -> Vec<u8> {
    [head.as_bytes(), b"\r\n", body].concat()
}

fn redirect(location: &str) -> Vec<u8> {
    reply(&format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n"), b"")
}

/// What a scripted tracker says to one request.
#[derive(Clone)]
struct Script {
    first: Vec<u8>,
    /// Repeated until the client has gone.
    then_for_ever: Vec<u8>,
    /// Keep the connection open in silence at the end.
    hang: bool,
}

fn say(first: Vec<u8>) -> Script {
    Script { first, then_for_ever: Vec::new(), hang: false }
}

async fn perform<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    respond: impl Fn(&str) -> Script,
) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let script = respond(&head);
    let _ = stream.write_all(&script.first).await;
    if !script.then_for_ever.is_empty() {
        while stream.write_all(&script.then_for_ever).await.is_ok() {}
    }
    if script.hang {
        let _ = stream.read_u8().await;
    }
    let _ = stream.shutdown().await;
    Some(head)
}

/// Serves `respond` on `ip`; the requests' heads and their senders come back over the channel.
async fn http_tracker(
    ip: &str,
    respond: impl Fn(&str) -> Script + Send + Sync + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<(SocketAddr, String)>) {
    let listener = TcpListener::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (heads, seen) = mpsc::unbounded_channel();
    let respond = Arc::new(respond);
    tokio::spawn(async move {
        loop {
            let (stream, from) = listener.accept().await.unwrap();
            let (respond, heads) = (Arc::clone(&respond), heads.clone());
            tokio::spawn(async move {
                let head = perform(stream, |head| {
                    let _ = heads.send((from, head.to_owned()));
                    respond(head)
                });
                head.await
            });
        }
    });
    (address, seen)
}

/// The outcome of one announce to an HTTP tracker that always plays `script`.
async fn outcome(client: &TrackerClient, script: Script) -> Result<u32, TrackerError> {
    let (address, _seen) = http_tracker("127.0.0.1", move |_| script.clone()).await;
    let url = format!("http://{address}/announce");
    announce(client, &url, V4, AnnounceEvent::None).await.map(|response| response.interval_secs)
}

#[tokio::test(flavor = "current_thread")]
async fn announces_over_http_by_both_families() {
    for (ip, family, other) in [("127.0.0.1", V4, V6), ("::1", V6, V4)] {
        let (address, mut seen) = http_tracker(ip, |_| say(ok(GOOD))).await;
        let url = format!("http://{address}/announce?passkey={PASSKEY}");
        let response = client().announce(&url, family, &request(AnnounceEvent::Started)).await.unwrap();
        assert_eq!(response.interval_secs, 900);
        assert_eq!(response.peers, ["1.2.3.4:6881".parse().unwrap()]);
        let (_, head) = seen.recv().await.unwrap();
        assert!(head.starts_with(&format!("GET /announce?passkey={PASSKEY}&info_hash=%07")), "{head}");
        assert!(
            head.contains("event=started") && head.to_lowercase().contains(&format!("host: {address}\r\n"))
        );
        assert!(!head.to_lowercase().contains("accept-encoding"), "{head}");
        let nowhere = client().announce(&url, other, &request(AnnounceEvent::None)).await;
        assert!(matches!(nowhere, Err(TrackerError::NoAddress { .. })));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn leaves_from_the_address_it_is_bound_to() {
    let bound = ClientConfig::default().bound_to("127.0.0.2".parse().unwrap());
    let client = TrackerClient::new(bound).unwrap();
    let (address, mut seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
    let url = format!("http://{address}/announce");
    announce(&client, &url, V4, AnnounceEvent::None).await.unwrap();
    assert_eq!(seen.recv().await.unwrap().0.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
    let refused = announce(&client, &url, V6, AnnounceEvent::None).await;
    assert!(matches!(refused, Err(TrackerError::FamilyNotBound(_))));

    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let url = tracker.url();
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        assert_eq!(from.ip(), IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)));
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        tracker.answer(from, &asked).await;
    });
    response.unwrap();

    let elsewhere = ClientConfig::default().bound_to("192.0.2.1".parse().unwrap());
    let refused =
        TrackerClient::new(elsewhere).unwrap().announce(&url, V4, &request(AnnounceEvent::None)).await;
    assert!(matches!(refused, Err(TrackerError::Bind { .. })));
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_answers_without_end_are_cut() {
    let client = client();
    let filler = vec![b'x'; 64 * 1024];
    let close = |head: &str| Script { first: reply(head, b""), then_for_ever: filler.clone(), hang: false };
    let endless = outcome(&client, close("HTTP/1.1 200 OK\r\n")).await;
    assert!(matches!(endless, Err(TrackerError::TooLong { .. })), "{endless:?}");
    let lying = outcome(&client, close("HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n")).await;
    assert!(matches!(lying, Err(TrackerError::TooLong { .. })), "{lying:?}");
    let chunk = [b"8000\r\n".as_slice(), &[b'x'; 0x8000], b"\r\n"].concat();
    let chunked = reply("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"");
    let chunks = Script { first: chunked.clone(), then_for_ever: chunk, hang: false };
    let endless = outcome(&client, chunks).await;
    assert!(matches!(endless, Err(TrackerError::TooLong { .. })), "{endless:?}");
    // One byte a chunk: the overhead counts too.
    let crumbs =
        Script { first: chunked, then_for_ever: b"1;aaaaaaaaaaaaaaaaaaaaa\r\nx\r\n".to_vec(), hang: false };
    assert!(outcome(&client, crumbs).await.is_err());
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_storms_of_heads_are_cut() {
    let client = client();
    let storm = Script {
        first: Vec::new(),
        then_for_ever: b"HTTP/1.1 102 Processing\r\n\r\n".repeat(1000),
        hang: false,
    };
    let cut = outcome(&client, storm).await;
    assert!(matches!(cut, Err(TrackerError::TooLong { .. })), "{cut:?}");
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n", "y".repeat(1024 * 1024));
    assert!(matches!(outcome(&client, say(reply(&large, GOOD))).await, Err(TrackerError::Http(_))));
    let many = format!("HTTP/1.1 200 OK\r\n{}", "X: y\r\n".repeat(5000));
    assert!(matches!(outcome(&client, say(reply(&many, GOOD))).await, Err(TrackerError::Http(_))));
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_lies_about_lengths_and_encodings_are_errors() {
    let client = client();
    for (head, body, fine) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 999\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n", GOOD, false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"8000000000000000\r\nx".as_slice(), false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n", b"fffffffffffffffff\r\nx".as_slice(), false),
        ("HTTP/1.1 200 OK\r\n", b"<html>a page</html>".as_slice(), false),
        ("HTTP/1.1 200 OK\r\n", b"".as_slice(), false),
        ("SSH-2.0-x\r\n", GOOD, false),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n", GOOD, false),
        ("HTTP/1.1 500 Broken\r\n", b"<html>".as_slice(), false),
        ("HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\n", GOOD, true),
        ("HTTP/1.0 200 OK\r\n", GOOD, true),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n", GOOD, true),
    ] {
        let outcome = outcome(&client, say(reply(head, body))).await;
        assert_eq!(outcome.is_ok(), fine, "{head:?} {outcome:?}");
    }
    let gzip = say(reply("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n", b"\x1f\x8b\x08"));
    assert!(matches!(outcome(&client, gzip).await, Err(TrackerError::Encoded(_))));
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_45_silence_ends_in_a_timeout() {
    for first in [Vec::new(), b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nd8:".to_vec()] {
        let silent = Script { first, then_for_ever: Vec::new(), hang: true };
        let waited = outcome(&impatient(200), silent).await;
        assert!(matches!(waited, Err(TrackerError::Timeout(_))), "{waited:?}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_46_refusals_are_escaped_bounded_and_without_passkeys() {
    let reason = format!("\x1b[2Jpasskey {PASSKEY} <b>{}", "z ".repeat(40_000));
    let body = format!("d14:failure reason{}:{reason}8:retry ini5ee", reason.len());
    let error = outcome(&client(), say(ok(body.as_bytes()))).await.unwrap_err();
    let shown = error.to_string();
    assert!(!shown.contains(['\x1b', '<']) && !shown.contains(PASSKEY) && shown.len() < 1000, "{shown}");
    let TrackerError::Refused { retry, .. } = error else { panic!("{error:?}") };
    assert_eq!(retry, Some(Retry::In(Duration::from_secs(300))));
    // Some refuse with an error status and words together.
    let forbidden = say(reply("HTTP/1.1 403 Forbidden\r\n", b"d14:failure reason3:no!e"));
    assert!(matches!(outcome(&client(), forbidden).await, Err(TrackerError::Refused { .. })));

    for url in [
        format!("wss://t.example/{PASSKEY}"),
        format!("http://:x/{PASSKEY}/announce"),
        format!("udp://t.example/{PASSKEY}"),
    ] {
        let error = client().announce(&url, V4, &request(AnnounceEvent::None)).await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains(PASSKEY), "{error}");
    }
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_44_redirects_are_few_and_lead_to_trackers_only() {
    let client = client();
    let (address, _seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
    let good = outcome(&client, say(redirect(&format!("http://{address}/announce")))).await;
    assert_eq!(good.unwrap(), 900);
    let round = outcome(&client, say(redirect("/announce"))).await;
    assert!(matches!(round, Err(TrackerError::RedirectsTooMany)), "{round:?}");
    let admin = outcome(&client, say(redirect(&format!("http://{address}/admin?delete=all")))).await;
    assert!(matches!(admin, Err(TrackerError::LocalService { .. })), "{admin:?}");
    let cloud = outcome(&client, say(redirect("http://169.254.169.254/latest/meta-data/"))).await;
    assert!(matches!(cloud, Err(TrackerError::LocalService { .. })), "{cloud:?}");
    for location in
        ["file:///etc/passwd", "udp://127.0.0.1:1/announce", "gopher://127.0.0.1:1/announce", "http://"]
    {
        let other = outcome(&client, say(redirect(location))).await;
        assert!(matches!(other, Err(TrackerError::Redirect { .. })), "{other:?}");
    }
    let secret = outcome(&client, say(redirect(&format!("file:///{PASSKEY}")))).await.unwrap_err();
    assert!(!format!("{secret} {secret:?}").contains(PASSKEY), "{secret}");
}

#[tokio::test(flavor = "current_thread")]
async fn https_trusts_only_what_it_is_told_to_trust() {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use tokio_rustls::rustls::{ServerConfig, crypto};
    let generated = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let der = generated.cert.der().to_vec();
    let key = PrivateKeyDer::try_from(generated.signing_key.serialize_der()).unwrap();
    let settings = ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(der.clone())], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(settings));
    let (plain, mut plain_seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let downgrade = redirect(&format!("http://{plain}/announce"));
                let respond = |head: &str| {
                    say(if head.starts_with("GET /down/announce") { downgrade.clone() } else { ok(GOOD) })
                };
                perform(stream, respond).await;
            });
        }
    });
    let announce = async |client: &TrackerClient, host: &str, path: &str| {
        client.announce(&format!("https://{host}:{port}{path}"), V4, &request(AnnounceEvent::None)).await
    };
    let stranger = announce(&client(), "127.0.0.1", "/announce").await;
    assert!(matches!(stranger, Err(TrackerError::Tls { .. })), "{stranger:?}");
    let trusting =
        TrackerClient::new(ClientConfig { trusted_der: vec![der], ..ClientConfig::default() }).unwrap();
    assert_eq!(announce(&trusting, "127.0.0.1", "/announce").await.unwrap().interval_secs, 900);
    let misnamed = announce(&trusting, "127.0.0.2", "/announce").await;
    assert!(misnamed.is_err(), "{misnamed:?}");
    let misnamed = announce(&trusting, "localhost", "/announce").await;
    assert!(matches!(misnamed, Err(TrackerError::Tls { .. })), "{misnamed:?}");
    let downgrade = announce(&trusting, "127.0.0.1", "/down/announce").await;
    assert!(matches!(downgrade, Err(TrackerError::Redirect { .. })), "{downgrade:?}");
    assert!(plain_seen.try_recv().is_err(), "nothing was sent in the clear");
}

#[tokio::test(flavor = "current_thread")]
async fn scrapes_over_http_and_udp() {
    let mut body = Vec::new();
    let figures = ScrapeEntry { seeds: 1, completed: 2, leeches: 3 };
    seedring::tracker_wire::http::response::encode_scrape(&mut body, &mut vec![(InfoHash([7; 20]), figures)]);
    let (address, mut seen) = http_tracker("127.0.0.1", move |_| say(ok(&body))).await;
    let client = client();
    let url = format!("http://{address}/announce.php");
    assert_eq!(client.scrape(&url, V4, &[InfoHash([7; 20])]).await.unwrap(), [(InfoHash([7; 20]), figures)]);
    assert!(seen.recv().await.unwrap().1.starts_with("GET /scrape.php?info_hash=%07"));
    let nothing = client.scrape("http://1.1.1.1/x", V4, &[InfoHash([7; 20])]).await;
    assert!(matches!(nothing, Err(TrackerError::NoScrape)));

    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let url = tracker.url();
    let (entries, ()) = tokio::join!(client.scrape(&url, V4, &[InfoHash([7; 20])]), async {
        let (from, asked) = tracker.hear().await;
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        let Request::Scrape { transaction, .. } = Request::decode(&asked).unwrap() else { panic!() };
        tracker.send(from, |out| encode_scrape_response(out, transaction, [figures])).await;
    });
    assert_eq!(entries.unwrap(), [(InfoHash([7; 20]), figures)]);
}

/// A UDP tracker that a test plays by hand.
struct UdpTracker {
    socket: UdpSocket,
}

impl UdpTracker {
    async fn start(ip: &str) -> Self {
        Self { socket: UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap() }
    }

    fn url(&self) -> String {
        format!("udp://{}/announce?{PASSKEY}", self.socket.local_addr().unwrap())
    }

    async fn hear(&mut self) -> (SocketAddr, Vec<u8>) {
        let mut datagram = vec![0; 4096];
        let (len, from) = self.socket.recv_from(&mut datagram).await.unwrap();
        datagram.truncate(len);
        (from, datagram)
    }

    async fn send(&self, to: SocketAddr, encode: impl FnOnce(&mut Vec<u8>)) {
        let mut datagram = Vec::new();
        encode(&mut datagram);
        self.socket.send_to(&datagram, to).await.unwrap();
    }

    async fn connect(&self, to: SocketAddr, asked: &[u8]) {
        let Request::Connect { transaction } = Request::decode(asked).unwrap() else { panic!("{asked:?}") };
        self.send(to, |out| encode_connect_response(out, transaction, ConnectionId(99))).await;
    }

    async fn serve(&mut self) {
        loop {
            let (from, asked) = self.hear().await;
            match Request::decode(&asked).unwrap() {
                Request::Connect { .. } => self.connect(from, &asked).await,
                _ => {
                    self.answer(from, &asked).await;
                }
            }
        }
    }

    async fn answer(&self, to: SocketAddr, asked: &[u8]) -> AnnounceRequest {
        let Request::Announce { connection, transaction, request, options } = Request::decode(asked).unwrap()
        else {
            panic!("{asked:?}")
        };
        assert_eq!(connection, ConnectionId(99));
        assert_eq!(url_data(options), format!("/announce?{PASSKEY}").into_bytes());
        self.send(to, |out| announce_response(out, transaction)).await;
        request
    }
}

fn announce_response(out: &mut Vec<u8>, transaction: seedring::tracker_wire::udp::TransactionId) {
    encode_announce_response(out, transaction, 900, 6, 5);
    out.extend([1, 2, 3, 4, 0x1a, 0xe1]);
}

#[tokio::test(flavor = "current_thread")]
async fn announces_over_udp_and_names_the_connection_id_again() {
    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let (client, url) = (client(), tracker.url());
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::Started), async {
        let (from, asked) = tracker.hear().await;
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        assert_eq!(tracker.answer(from, &asked).await, request(AnnounceEvent::Started));
    });
    let response = response.unwrap();
    assert_eq!((response.interval_secs, response.seeds, response.leeches), (900, Some(5), Some(6)));
    assert_eq!(response.peers, ["1.2.3.4:6881".parse().unwrap()]);
    // Within the minute the id is named again.
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        tracker.answer(from, &asked).await;
    });
    response.unwrap();
    // A tracker that has forgotten the id gets a new one asked for.
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        let Request::Announce { transaction, .. } = Request::decode(&asked).unwrap() else { panic!() };
        tracker.send(from, |out| encode_error(out, transaction, "connection id unknown")).await;
        let (from, asked) = tracker.hear().await;
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        tracker.answer(from, &asked).await;
    });
    response.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn announces_over_udp_by_ipv6() {
    let mut tracker = UdpTracker::start("::1").await;
    let (client, url) = (client(), tracker.url());
    let (response, ()) = tokio::join!(announce(&client, &url, V6, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        let Request::Announce { transaction, .. } = Request::decode(&asked).unwrap() else { panic!() };
        let peer = [&[0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0x1a, 0xe1][..]].concat();
        tracker
            .send(from, |out| {
                encode_announce_response(out, transaction, 900, 0, 0);
                out.extend(&peer);
            })
            .await;
    });
    assert_eq!(response.unwrap().peers, ["[2001:db8::1]:6881".parse().unwrap()]);
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_42_datagrams_that_answer_nothing_are_waited_past() {
    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (client, url) = (client(), tracker.url());
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        tracker.connect(from, &asked).await;
        let (from, asked) = tracker.hear().await;
        let Request::Announce { transaction, .. } = Request::decode(&asked).unwrap() else { panic!() };
        let wrong = seedring::tracker_wire::udp::TransactionId(transaction.0 ^ 1);
        let mut forged = Vec::new();
        encode_error(&mut forged, transaction, "from elsewhere");
        stranger.send_to(&forged, from).await.unwrap();
        tracker.send(from, |_| {}).await;
        tracker.send(from, |out| out.extend([0; 7])).await;
        tracker.send(from, |out| encode_error(out, wrong, "another transaction")).await;
        tracker.send(from, |out| encode_connect_response(out, transaction, ConnectionId(1))).await;
        tracker
            .send(from, |out| {
                announce_response(out, transaction);
                out.push(0);
            })
            .await;
        tracker.answer(from, &asked).await;
    });
    assert_eq!(response.unwrap().interval_secs, 900);
}

#[tokio::test(flavor = "current_thread")]
async fn hostile_42_an_error_of_64_kb_is_cut_and_escaped() {
    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let (client, url) = (client(), tracker.url());
    let (response, ()) = tokio::join!(announce(&client, &url, V4, AnnounceEvent::None), async {
        let (from, asked) = tracker.hear().await;
        let Request::Connect { transaction } = Request::decode(&asked).unwrap() else { panic!() };
        let text = format!("\x1b[31m{PASSKEY} {}", "no ".repeat(21_000));
        tracker.send(from, |out| encode_error(out, transaction, &text)).await;
    });
    let error = response.unwrap_err();
    assert!(matches!(error, TrackerError::Refused { .. }), "{error:?}");
    let shown = error.to_string();
    assert!(!shown.contains('\x1b') && !shown.contains(PASSKEY) && shown.len() < 1000, "{shown}");
}

#[tokio::test(flavor = "current_thread")]
async fn udp_repeats_a_lost_request_and_gives_up_in_the_end() {
    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let (client, url) = (impatient(300), tracker.url());
    let response = tokio::select! {
        response = announce(&client, &url, V4, AnnounceEvent::None) => response,
        () = async {
            let _lost = tracker.hear().await;
            tracker.serve().await;
        } => unreachable!("it serves for ever"),
    };
    response.unwrap();
    let silent = UdpTracker::start("127.0.0.1").await;
    let given_up = impatient(20).announce(&silent.url(), V4, &request(AnnounceEvent::None)).await;
    assert!(matches!(given_up, Err(TrackerError::Timeout(_))), "{given_up:?}");
    let url = silent.url();
    drop(silent);
    let closed = announce(&client, &url, V4, AnnounceEvent::None).await;
    assert!(matches!(closed, Err(TrackerError::Connect { .. })), "{closed:?}");
}

#[tokio::test(flavor = "current_thread")]
async fn many_torrents_share_a_few_requests_to_one_tracker() {
    const AT_ONCE: usize = 5;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/announce", listener.local_addr().unwrap());
    // Nobody is answered before as many as may are asking; one more would show in the count.
    let everybody = Arc::new(tokio::sync::Barrier::new(AT_ONCE));
    let asking = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let (everybody, asking) = (Arc::clone(&everybody), Arc::clone(&asking));
            tokio::spawn(async move {
                let before = asking.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                assert!(before < AT_ONCE);
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                everybody.wait().await;
                asking.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
                let body = if before < AT_ONCE { GOOD } else { b"too many" };
                let _ = stream.write_all(&ok(body)).await;
            });
        }
    });
    let config = ClientConfig { requests_per_host_max: AT_ONCE, ..ClientConfig::default() };
    let client = Rc::new(TrackerClient::new(config).unwrap());
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut torrents = tokio::task::JoinSet::new();
            for _ in 0..20 * AT_ONCE {
                let (client, url) = (Rc::clone(&client), url.clone());
                torrents.spawn_local(async move {
                    announce(&client, &url, V4, AnnounceEvent::None).await.is_ok()
                });
            }
            assert!(torrents.join_all().await.into_iter().all(|fine| fine));
        })
        .await;
}

/// The handles of a running announcer.
struct Running {
    progress: watch::Sender<Progress>,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<TrackerEvent>,
    done: tokio::task::JoinHandle<()>,
}

fn run(client: TrackerClient, tiers: &[Vec<String>], families: Vec<AddressFamily>, room: usize) -> Running {
    let short = Duration::from_millis(20);
    let config = AnnouncerConfig {
        interval_min: short,
        interval_max: short,
        retry_min: short,
        families,
        ..AnnouncerConfig::default()
    };
    let now = seedring::clock::now();
    let announcer = Announcer::new(tiers, config, now, &mut Rng::from_seed(1));
    let wanted = request(AnnounceEvent::None);
    let identity = Identity {
        info_hash: wanted.info_hash,
        peer_id: wanted.peer_id,
        port: wanted.port,
        key: wanted.key,
        num_want: Some(30),
    };
    let (progress, watching) = watch::channel(Progress { uploaded: 0, downloaded: 0, left: 10 });
    let (commands, listening) = mpsc::channel(4);
    let (sender, events) = mpsc::channel(room);
    let driver = run_announcer(Rc::new(client), announcer, identity, watching, listening, sender);
    Running { progress, commands, events, done: tokio::task::spawn_local(driver) }
}

/// Started, regular, completed, stopped, as an HTTP tracker sees them.
async fn a_life() {
    let (address, mut seen) =
        http_tracker("127.0.0.1", |_| say(ok(b"d8:intervali1e10:tracker id3:abce"))).await;
    // Bound, so that nobody else gets the port, but not listening.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = closed.local_addr().unwrap();
    let tiers = [vec![format!("http://{dead}/announce")], vec![format!("http://{address}/announce")]];
    let mut running = run(client(), &tiers, vec![V4], 16);
    let started = seen.recv().await.unwrap().1;
    assert!(
        started.contains("event=started") && started.contains("left=10") && started.contains("numwant=30")
    );
    let failed = running.events.recv().await.unwrap();
    assert!(matches!(failed.outcome, Err(TrackerError::Connect { .. })), "{failed:?}");
    let worked = running.events.recv().await.unwrap();
    assert!(worked.outcome.is_ok() && worked.event == AnnounceEvent::Started, "{worked:?}");
    let regular = seen.recv().await.unwrap().1;
    assert!(!regular.contains("event=") && regular.contains("trackerid=abc"), "{regular}");
    running.progress.send_replace(Progress { uploaded: 1, downloaded: 10, left: 0 });
    running.commands.send(Command::Completed).await.unwrap();
    let mut drain = running.events;
    tokio::spawn(async move { while drain.recv().await.is_some() {} });
    loop {
        let head = seen.recv().await.unwrap().1;
        if head.contains("event=completed") {
            assert!(head.contains("left=0") && head.contains("downloaded=10"), "{head}");
            break;
        }
    }
    running.commands.send(Command::Stop).await.unwrap();
    running.done.await.unwrap();
    let mut farewells =
        std::iter::from_fn(|| seen.try_recv().ok()).filter(|(_, head)| head.contains("event=stopped"));
    assert!(farewells.next().unwrap().1.contains("numwant=0"));
    assert!(farewells.next().is_none(), "once is enough");
}

#[tokio::test(flavor = "current_thread")]
async fn a_torrents_life_is_told_to_the_tracker() {
    tokio::task::LocalSet::new().run_until(a_life()).await;
}

#[test]
fn a_torrents_life_is_told_inside_the_service_threads_runtime() {
    tokio_uring::start(a_life());
}

#[tokio::test(flavor = "current_thread")]
async fn stopping_does_not_wait_for_a_session_that_no_longer_listens() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let (address, mut seen) = http_tracker("127.0.0.1", |_| say(ok(GOOD))).await;
            let (other, mut other_seen) = http_tracker("::1", |_| say(ok(GOOD))).await;
            let tiers =
                [vec![format!("http://{address}/announce")], vec![format!("http://{other}/announce")]];
            // Room for one event, and nobody takes it.
            let running = run(client(), &tiers, vec![V4, V6], 1);
            assert!(seen.recv().await.unwrap().1.contains("event=started"));
            assert!(other_seen.recv().await.unwrap().1.contains("event=started"));
            while running.events.capacity() > 0 {
                tokio::task::yield_now().await;
            }
            drop(running.commands);
            running.done.await.unwrap();
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_tracker_that_never_heard_of_us_is_not_told_that_we_left() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let refusal = b"d14:failure reason2:noe";
            let (address, mut seen) = http_tracker("127.0.0.1", |_| say(ok(refusal))).await;
            let mut running = run(client(), &[vec![format!("http://{address}/announce")]], vec![V4], 16);
            assert!(running.events.recv().await.unwrap().outcome.is_err());
            running.commands.send(Command::Stop).await.unwrap();
            running.done.await.unwrap();
            while let Ok((_, head)) = seen.try_recv() {
                assert!(!head.contains("event=stopped"), "{head}");
            }
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn leaving_does_not_wait_for_ever_for_a_tracker_that_fell_silent() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let (address, mut seen) = http_tracker("127.0.0.1", |head| Script {
                first: if head.contains("event=stopped") { Vec::new() } else { ok(GOOD) },
                then_for_ever: Vec::new(),
                hang: true,
            })
            .await;
            let mut running = run(client(), &[vec![format!("http://{address}/announce")]], vec![V4], 16);
            assert!(running.events.recv().await.unwrap().outcome.is_ok());
            running.commands.send(Command::Stop).await.unwrap();
            while !seen.recv().await.unwrap().1.contains("event=stopped") {}
            running.done.await.unwrap();
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_projects_own_tracker_understands_its_own_client() {
    use seedring::tracker_server::{Access, TrackerConfig, TrackerProtocol, TrackerServer};
    let listen: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let interval = Duration::from_secs(600);
    let config = TrackerConfig { http: listen.clone(), udp: listen, interval, access: Access::All };
    let server = TrackerServer::bind(config).unwrap();
    let addresses = server.local_addrs();
    let client = client();
    let clients = async {
        for address in &addresses {
            let scheme = if address.protocol == TrackerProtocol::Udp { "udp" } else { "http" };
            let url = format!("{scheme}://{}/announce", address.address);
            let family = AddressFamily::of(address.address.ip());
            let response = announce(&client, &url, family, AnnounceEvent::Started).await.unwrap();
            assert_eq!(u64::from(response.interval_secs), interval.as_secs(), "{url}");
            let mut seed = AnnounceRequest { port: 7000, left: 0, ..request(AnnounceEvent::Started) };
            seed.peer_id.0[19] = b'!';
            client.announce(&url, family, &seed).await.unwrap();
            let response = announce(&client, &url, family, AnnounceEvent::None).await.unwrap();
            assert!(response.peers.iter().any(|peer| peer.port() == 7000), "{url} {response:?}");
            let figures = client.scrape(&url, family, &[seed.info_hash]).await.unwrap();
            assert!(figures[0].1.seeds >= 1 && figures[0].1.leeches >= 1, "{url} {figures:?}");
            seed.event = AnnounceEvent::Stopped;
            client.announce(&url, family, &seed).await.unwrap();
            let response = announce(&client, &url, family, AnnounceEvent::None).await.unwrap();
            assert!(response.peers.iter().all(|peer| peer.port() != 7000), "{url} {response:?}");
        }
    };
    tokio::task::LocalSet::new()
        .run_until(async {
            tokio::select! {
                ended = server.run(std::future::pending()) => panic!("{ended:?}"),
                () = clients => {}
            }
        })
        .await;
}
