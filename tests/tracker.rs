//! The tracker over real sockets on loopback: HTTP and UDP, IPv4 and IPv6, clients that behave and clients
//! that do not.

use seedring::id::{InfoHash, PeerId};
use seedring::limits::{HTTP_HEADERS_MAX, HTTP_REQUEST_LEN_MAX};
use seedring::service;
use seedring::time::Duration;
use seedring::tracker_client::{ClientConfig, TrackerClient};
use seedring::tracker_server::{
    Access, AccessList, TrackerAddress, TrackerConfig, TrackerHandle, TrackerProtocol, TrackerServer,
};
use seedring::tracker_wire::http::query::{AnnounceQuery, scrape_query};
use seedring::tracker_wire::http::response::{ResponseError, decode_announce, decode_scrape};
use seedring::tracker_wire::udp::{ConnectionId, Request, Response, TransactionId};
use seedring::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, ScrapeEntry};
use std::collections::BTreeSet;
use std::future::Future;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::oneshot;

const HASH: InfoHash = InfoHash(*b"\x00 &=%?#+\xff~abcdefghij");
const INTERVAL: Duration = Duration::from_secs(1234);

/// A running tracker and its one port.
struct Running {
    port: u16,
    handle: TrackerHandle,
}

impl Running {
    fn at(&self, ip: IpAddr) -> SocketAddr {
        (ip, self.port).into()
    }
}

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

/// Runs a tracker on loopback beside `client`, on the service thread's runtime.
fn with_tracker<F: Future>(access: Access, client: impl FnOnce(Running) -> F) -> F::Output {
    let both: Vec<SocketAddr> = vec![(V4, 0).into(), (V6, 0).into()];
    let config = TrackerConfig {
        http: both.clone(),
        udp: both,
        interval: INTERVAL,
        access,
        ..TrackerConfig::default()
    };
    let server = TrackerServer::bind(config).expect("loopback can be listened on");
    let addresses: Vec<TrackerAddress> = server.local_addrs();
    assert_eq!(addresses.iter().filter(|at| at.protocol == TrackerProtocol::Udp).count(), 2);
    let running = Running { port: addresses[0].address.port(), handle: server.handle() };
    service::run(async {
        let (stop, stopped) = oneshot::channel::<()>();
        let served = tokio::task::spawn_local(server.run(async {
            let _ = stopped.await;
        }));
        let result = client(running).await;
        drop(stop);
        served.await.expect("the tracker does not panic").expect("the tracker ends well");
        result
    })
    .expect("io_uring works here")
}

fn request(port: u16, left: u64) -> AnnounceRequest {
    AnnounceRequest {
        info_hash: HASH,
        peer_id: PeerId(*b"-SR0100-abcdefghijkl"),
        port,
        uploaded: 0,
        downloaded: 0,
        left,
        event: AnnounceEvent::Started,
        key: 7,
        num_want: None,
    }
}

/// Sends raw bytes and returns everything until the tracker closes.
async fn http(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.expect("the tracker listens");
    let mut response = Vec::new();
    // The tracker may close before it has read all, which is no failure of the test.
    let _ = stream.write_all(request).await;
    let _ = stream.read_to_end(&mut response).await;
    response
}

/// One GET; the status line with the headers, and the body.
async fn get(address: SocketAddr, target: &str) -> (String, Vec<u8>) {
    let request = format!("GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
    let response = http(address, request.as_bytes()).await;
    let end = response.windows(4).position(|window| window == b"\r\n\r\n").expect("headers end");
    (String::from_utf8_lossy(&response[..end]).into_owned(), response[end + 4..].to_vec())
}

async fn announce_http(address: SocketAddr, request: AnnounceRequest) -> Vec<u8> {
    let query = AnnounceQuery::new(request).to_query();
    let (head, body) = get(address, &format!("/announce?{query}")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body
}

struct UdpClient {
    socket: UdpSocket,
    family: AddressFamily,
}

impl UdpClient {
    async fn new(address: SocketAddr) -> Self {
        let anywhere: SocketAddr = (if address.is_ipv4() { V4 } else { V6 }, 0).into();
        let socket = UdpSocket::bind(anywhere).await.expect("a free port");
        socket.connect(address).await.expect("loopback");
        Self { socket, family: AddressFamily::of(address.ip()) }
    }

    async fn send(&self, request: &Request<'_>) -> usize {
        let mut datagram = Vec::new();
        request.encode(&mut datagram);
        self.socket.send(&datagram).await.expect("loopback");
        datagram.len()
    }

    async fn receive(&self) -> (usize, Response) {
        let mut datagram = [0; 4096];
        let len = self.socket.recv(&mut datagram).await.expect("the tracker answers");
        (len, Response::decode(&datagram[..len], self.family).expect("a response"))
    }

    async fn connect(&self) -> ConnectionId {
        self.send(&Request::Connect { transaction: TransactionId(1) }).await;
        match self.receive().await.1 {
            Response::Connect { transaction: TransactionId(1), connection } => connection,
            other => panic!("{other:?}"),
        }
    }

    async fn announce(&self, request: AnnounceRequest) -> Response {
        let (connection, transaction) = (self.connect().await, TransactionId(2));
        self.send(&Request::Announce { connection, transaction, request, options: &[] }).await;
        self.receive().await.1
    }
}

#[test]
fn peers_of_both_protocols_meet_in_one_swarm_per_address_family() {
    with_tracker(Access::All, |tracker| async move {
        for ip in [V4, V6] {
            let address = tracker.at(ip);
            let first = decode_announce(&announce_http(address, request(1001, 0)).await).unwrap();
            assert_eq!((first.seeds, first.leeches, first.interval_secs), (Some(1), Some(0), 1234));
            assert_eq!(first.external_ip, Some(ip));
            assert_eq!(first.peers, []);
            let client = UdpClient::new(address).await;
            let Response::Announce { response, .. } = client.announce(request(1002, 5)).await else {
                panic!("an announce response");
            };
            assert_eq!(response.peers, [(ip, 1001).into()]);
            assert_eq!((response.seeds, response.leeches), (Some(1), Some(1)));
            let third = decode_announce(&announce_http(address, request(1003, 0)).await).unwrap();
            assert_eq!(third.peers, [(ip, 1002).into()], "a seed is given no seed");
            // Leave no peer behind for the other family, which HTTP would fill up with.
            for port in 1001..=1003 {
                let stopped = AnnounceRequest { event: AnnounceEvent::Stopped, ..request(port, 0) };
                announce_http(address, stopped).await;
            }
        }
        assert_eq!(tracker.handle.statistics().swarms.peers(), 0);
        assert_eq!(tracker.handle.statistics().announces_udp, 2);
    });
}

#[test]
fn udp_answers_leave_from_the_address_that_was_asked() {
    let everywhere = (Ipv4Addr::UNSPECIFIED, 0).into();
    let config = TrackerConfig { udp: vec![everywhere], ..TrackerConfig::on_port(0) };
    let server = TrackerServer::bind(TrackerConfig { http: Vec::new(), ..config }).expect("a free port");
    let port = server.local_addrs()[0].address.port();
    service::run(server.run(async {
        // A connected socket hears nobody but the address it asked.
        for asked in [[127, 0, 0, 1], [127, 0, 0, 2], [127, 9, 9, 9]] {
            UdpClient::new((asked, port).into()).await.connect().await;
        }
    }))
    .expect("io_uring works here")
    .expect("the tracker ends well");
}

#[test]
fn scrapes_count_completed_downloads_over_both_protocols() {
    with_tracker(Access::All, |tracker| async move {
        let completed = AnnounceRequest { event: AnnounceEvent::Completed, ..request(1, 0) };
        announce_http(tracker.at(V4), completed).await;
        announce_http(tracker.at(V4), request(2, 9)).await;
        let figures = ScrapeEntry { seeds: 1, completed: 1, leeches: 1, partial_seeds: 0 };
        let other = InfoHash([9; 20]);

        let query = scrape_query(&[other, HASH]);
        let (_, body) = get(tracker.at(V6), &format!("/scrape?{query}")).await;
        assert_eq!(decode_scrape(&body), Ok(vec![(HASH, figures), (other, ScrapeEntry::default())]));

        let client = UdpClient::new(tracker.at(V4)).await;
        let (connection, transaction) = (client.connect().await, TransactionId(3));
        let info_hashes = [other.0, HASH.0].concat();
        client.send(&Request::Scrape { connection, transaction, info_hashes: &info_hashes }).await;
        let expected = Response::Scrape { transaction, entries: vec![ScrapeEntry::default(), figures] };
        assert_eq!(client.receive().await.1, expected);
        assert_eq!(tracker.handle.scrape(HASH), figures);
    });
}

#[test]
fn our_own_client_understands_our_own_tracker() {
    with_tracker(Access::All, |tracker| async move {
        let client = TrackerClient::new(ClientConfig::default()).expect("the defaults work");
        for (ip, family) in [(V4, AddressFamily::V4), (V6, AddressFamily::V6)] {
            for scheme in ["http", "udp"] {
                let url = format!("{scheme}://{}/announce", tracker.at(ip));
                let seed = client.announce(&url, family, &request(1, 0)).await.expect("it is served");
                assert_eq!((seed.seeds, seed.interval_secs), (Some(1), 1234), "{url}");
                let leech = client.announce(&url, family, &request(2, 9)).await.expect("it is served");
                assert!(leech.peers.contains(&(ip, 1).into()), "{url}");
                let figures = client.scrape(&url, family, &[HASH]).await.expect("it is served");
                let scraped = ScrapeEntry { seeds: 1, completed: 0, leeches: 1, partial_seeds: 0 };
                assert_eq!(figures, [(HASH, scraped)], "{url}");
                for port in [1, 2] {
                    let stopped = AnnounceRequest { event: AnnounceEvent::Stopped, ..request(port, 0) };
                    client.announce(&url, family, &stopped).await.expect("it is served");
                }
            }
        }
        assert_eq!(tracker.handle.statistics().swarms.peers(), 0);
    });
}

#[test]
fn dictionary_lists_are_given_to_who_asks_for_them() {
    with_tracker(Access::All, |tracker| async move {
        announce_http(tracker.at(V4), request(1001, 0)).await;
        announce_http(tracker.at(V6), request(1001, 0)).await;
        let query = AnnounceQuery { compact: false, ..AnnounceQuery::new(request(1002, 1)) }.to_query();
        let (_, body) = get(tracker.at(V4), &format!("/announce?{query}")).await;
        let peers = b"5:peersld2:ip9:127.0.0.14:porti1001eed2:ip3:::14:porti1001eee";
        assert!(body.windows(peers.len()).any(|window| window == peers), "{}", body.escape_ascii());
    });
}

#[test]
fn a_connection_carries_many_announces() {
    with_tracker(Access::All, |tracker| async move {
        let query = AnnounceQuery::new(request(1, 1)).to_query();
        let one = format!("GET /announce?{query} HTTP/1.1\r\nHost: t\r\n\r\n");
        let last = format!("GET /announce?{query} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n");
        let response = http(tracker.at(V4), (one.repeat(9) + &last).as_bytes()).await;
        assert_eq!(String::from_utf8_lossy(&response).matches("HTTP/1.1 200").count(), 10);
        assert_eq!(tracker.handle.statistics().announces_http, 10);
    });
}

#[test]
fn pages_for_people_tell_sums_and_no_headers_let_other_sites_read_them() {
    with_tracker(Access::All, |tracker| async move {
        announce_http(tracker.at(V4), request(1, 1)).await;
        let (head, body) = get(tracker.at(V4), "/").await;
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains("1 torrent, 0 seeds, 1 leech"), "{text}");
        assert!(!head.to_lowercase().contains("access-control"), "{head}");
        let (head, body) = get(tracker.at(V4), "/stats").await;
        let stats: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&stats["leeches_v4"], &stats["announces_http"]), (&1.into(), &1.into()));
        assert!(head.contains("application/json"));
        assert!(get(tracker.at(V4), "/nothing").await.0.starts_with("HTTP/1.1 404"));
    });
}

#[test]
fn a_list_is_read_again_when_it_changes_and_when_it_is_asked_for() {
    let mut file = tempfile::NamedTempFile::new().expect("a scratch file");
    writeln!(file, "# nothing yet").expect("it can be written");
    with_tracker(Access::AllowFile(file.path().to_owned()), |tracker| async move {
        let refused = decode_announce(&announce_http(tracker.at(V4), request(1, 1)).await);
        assert!(matches!(refused, Err(ResponseError::Failure(_))), "{refused:?}");
        let client = UdpClient::new(tracker.at(V4)).await;
        assert!(matches!(client.announce(request(1, 1)).await, Response::Error { .. }));

        writeln!(file, "{HASH} # ours").expect("it can be written");
        // The tracker looks at the file each second.
        while !matches!(client.announce(request(1, 1)).await, Response::Announce { .. }) {}

        // A bad list leaves the former one in force.
        std::fs::write(file.path(), "nonsense\n").expect("it can be written");
        tracker.handle.reload();
        assert!(matches!(client.announce(request(1, 1)).await, Response::Announce { .. }));
        std::fs::write(file.path(), "").expect("it can be written");
        tracker.handle.reload();
        while matches!(client.announce(request(1, 1)).await, Response::Announce { .. }) {}
    });
}

#[test]
fn an_embedding_seeder_is_handed_out_and_told_of_completed_downloads() {
    let config = TrackerConfig {
        http: vec![(V4, 0).into()],
        udp: vec![(V4, 0).into()],
        interval: INTERVAL,
        access: Access::Fixed(AccessList::Allow(BTreeSet::from([HASH]))),
        ..TrackerConfig::default()
    };
    let mut server = TrackerServer::bind(config).unwrap();
    let mut completed = server.take_completed_downloads().expect("the first taker gets them");
    assert!(server.take_completed_downloads().is_none());
    let (address, handle) = (server.local_addrs()[0].address, server.handle());
    handle.host_seed(HASH, 6881);
    service::run(async {
        let client = async {
            let response = decode_announce(&announce_http(address, request(1, 1)).await).unwrap();
            assert_eq!(response.peers, [(V4, 6881).into()]);
            let done = AnnounceRequest { event: AnnounceEvent::Completed, ..request(1, 0) };
            announce_http(address, done).await;
            let report = completed.recv().await.expect("the tracker runs");
            assert_eq!((report.info_hash, report.peer), (HASH, (V4, 1).into()));
        };
        server.run(client).await.expect("the tracker ends with its shutdown");
    })
    .expect("io_uring works here");
}

#[test]
fn hostile_43_an_unproven_udp_source_is_sent_no_more_than_it_sent() {
    with_tracker(Access::All, |tracker| async move {
        for ip in [V4, V6] {
            let client = UdpClient::new(tracker.at(ip)).await;
            let (connection, transaction) = (ConnectionId(1), TransactionId(2));
            let info_hashes = [1; 20 * 74];
            let announce =
                Request::Announce { connection, transaction, request: request(1, 1), options: &[] };
            let scrape = Request::Scrape { connection, transaction, info_hashes: &info_hashes };
            let short = Request::Scrape { connection, transaction, info_hashes: &info_hashes[..20] };
            for request in [announce, scrape, short] {
                let sent = client.send(&request).await;
                let (received, response) = client.receive().await;
                assert!(received <= sent, "{received} bytes for {sent}");
                assert!(matches!(response, Response::Error { .. }));
            }
            // Nothing at all for garbage and empty datagrams: the next answer is that of the connect.
            for len in [0, 1, 15, 16, 97, 2000] {
                client.socket.send(&vec![0xff; len]).await.expect("loopback");
            }
            client.connect().await;
        }
        assert_eq!(tracker.handle.statistics().swarms.peers(), 0);
    });
}

#[test]
fn hostile_45_requests_are_bounded_in_bytes_headers_and_method() {
    with_tracker(Access::All, |tracker| async move {
        let address = tracker.at(V4);
        let long =
            format!("GET /announce?{} HTTP/1.1\r\nHost: t\r\n\r\n", "x".repeat(4 * HTTP_REQUEST_LEN_MAX));
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "x".repeat(4 * HTTP_REQUEST_LEN_MAX));
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(HTTP_HEADERS_MAX + 1));
        for request in [long, endless, many] {
            let response = String::from_utf8_lossy(&http(address, request.as_bytes()).await).into_owned();
            assert!(response.is_empty() || response.starts_with("HTTP/1.1 4"), "{response}");
        }
        let post =
            "POST /announce HTTP/1.1\r\nHost: t\r\nContent-Length: 9999999999\r\nConnection: close\r\n\r\nx";
        let response = String::from_utf8_lossy(&http(address, post.as_bytes()).await).into_owned();
        assert!(response.starts_with("HTTP/1.1 405"), "{response}");
        for garbage in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..], b"\r\n\r\n\r\n", b"GET\r\n\r\n"]
        {
            let mut stream = TcpStream::connect(address).await.expect("the tracker listens");
            let _ = stream.write_all(garbage).await;
            let _ = stream.shutdown().await;
            let mut response = Vec::new();
            let _ = stream.read_to_end(&mut response).await;
            assert!(!response.starts_with(b"HTTP/1.1 2"));
        }
        // All of this left the tracker at work.
        assert!(decode_announce(&announce_http(address, request(1, 1)).await).is_ok());
    });
}

#[test]
fn hostile_45_a_connection_that_says_nothing_holds_up_nobody() {
    with_tracker(Access::All, |tracker| async move {
        let mut silent = Vec::new();
        for _ in 0..200 {
            let mut stream = TcpStream::connect(tracker.at(V4)).await.expect("the tracker listens");
            stream.write_all(b"GET /ann").await.expect("a new connection takes bytes");
            silent.push(stream);
        }
        assert!(decode_announce(&announce_http(tracker.at(V4), request(1, 1)).await).is_ok());
    });
}

#[test]
fn refusals_reach_clients_as_failure_reasons_made_safe() {
    with_tracker(Access::All, |tracker| async move {
        let (head, body) = get(tracker.at(V4), "/announce?info_hash=%3Cscript%3E&peer_id=x&port=1").await;
        assert!(head.starts_with("HTTP/1.1 200"));
        let reason = "info_hash has 8 bytes in place of 20".to_owned();
        assert_eq!(decode_announce(&body), Err(ResponseError::Failure(reason)));
        assert!(matches!(
            decode_scrape(&get(tracker.at(V4), "/scrape").await.1),
            Err(ResponseError::Failure(_))
        ));
    });
}
