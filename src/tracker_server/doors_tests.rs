//! One service with two doors: what is asked over HTTP and over UDP is answered alike, as far as both can say it.

use super::access::AccessList;
use super::tracker::{Tracker, TrackerParts};
use crate::id::{InfoHash, PeerId};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::tracker_wire::http::response::decode_announce;
use crate::tracker_wire::udp::{Request, Response, TransactionId};
use crate::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, ScrapeEntry};
use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

const HASH: InfoHash = InfoHash([b'h'; 20]);
const TRANSACTION: TransactionId = TransactionId(9);
/// Where the fields stand that the tests write themselves (BEP 15).
const LEFT_AT: usize = 64;
const EVENT_AT: usize = 80;
const IP_AT: usize = 84;
const KEY_AT: usize = 88;
const NUM_WANT_AT: usize = 92;
const PORT_AT: usize = 96;

/// What an asker learns, and what is known of the swarm afterwards.
#[derive(Debug, PartialEq)]
struct Told {
    interval_secs: u32,
    seeds: Option<u32>,
    leeches: Option<u32>,
    peers: BTreeSet<SocketAddr>,
    afterwards: ScrapeEntry,
}

/// A tracker that knows a seed and two leeches of each family.
fn tracker() -> Tracker {
    let mut tracker = Tracker::new(TrackerParts {
        interval: Duration::from_secs(1800),
        access: AccessList::All,
        secret: [3; 16],
        rng: Rng::from_seed(1),
        local_ip_towards: |_| None,
        completed: None,
    });
    for (host, left) in [(1, 0), (2, 5), (3, 5)] {
        for source in [format!("10.0.1.{host}:1"), format!("[2001:db8:1::{host}]:1")] {
            http(&mut tracker, &source, &format!("port=700{host}&left={left}"));
        }
    }
    tracker
}

fn http(tracker: &mut Tracker, source: &str, rest: &str) -> Told {
    let source: SocketAddr = source.parse().expect("an address");
    let query = format!("info_hash=hhhhhhhhhhhhhhhhhhhh&peer_id=-XX0001-pppppppppppp&{rest}");
    let body = tracker.answer_http_announce(Instant::ZERO, &query, source);
    let response = decode_announce(&body).expect("it is answered");
    // Only HTTP can carry peers of the other family.
    let family = AddressFamily::of(source.ip());
    let peers = response.peers.into_iter().filter(|peer| AddressFamily::of(peer.ip()) == family).collect();
    Told {
        interval_secs: response.interval_secs,
        seeds: response.seeds,
        leeches: response.leeches,
        peers,
        afterwards: tracker.scrape(HASH),
    }
}

/// Announces a leech at port 7001, after `alter` has had the bytes.
fn udp(tracker: &mut Tracker, source: &str, alter: impl FnOnce(&mut [u8])) -> Told {
    let source: SocketAddr = source.parse().expect("an address");
    let family = AddressFamily::of(source.ip());
    let mut exchange = |datagram: &[u8]| {
        let mut answer = Vec::new();
        tracker.answer_udp(Instant::ZERO, datagram, source, &mut answer);
        Response::decode(&answer, family).expect("it is answered")
    };
    let mut datagram = Vec::new();
    Request::Connect { transaction: TRANSACTION }.encode(&mut datagram);
    let Response::Connect { connection, .. } = exchange(&datagram) else { panic!("an id") };
    datagram.clear();
    let request = AnnounceRequest {
        info_hash: HASH,
        peer_id: PeerId(*b"-XX0001-pppppppppppp"),
        port: 7001,
        uploaded: 0,
        downloaded: 0,
        left: 5,
        event: AnnounceEvent::None,
        key: 0,
        num_want: None,
    };
    Request::Announce { connection, transaction: TRANSACTION, request, options: &[] }.encode(&mut datagram);
    alter(&mut datagram);
    let Response::Announce { response, .. } = exchange(&datagram) else { panic!("peers") };
    Told {
        interval_secs: response.interval_secs,
        seeds: response.seeds,
        leeches: response.leeches,
        peers: response.peers.into_iter().collect(),
        afterwards: tracker.scrape(HASH),
    }
}

/// Asks new trackers of each kind, from addresses of every kind. Returns what the one of IPv4 told.
fn alike(query: &str, alter: impl Fn(&mut [u8])) -> Told {
    let ask = |source: &str| {
        let over_http = http(&mut tracker(), source, query);
        let over_udp = udp(&mut tracker(), source, &alter);
        assert_eq!(over_http, over_udp, "{query} from {source}");
        over_http
    };
    ask("[2001:db8:1::99]:5");
    assert_eq!(ask("[::ffff:10.0.0.9]:5"), ask("10.0.0.9:5"));
    ask("10.0.0.9:5")
}

fn put(datagram: &mut [u8], at: usize, bytes: &[u8]) {
    datagram[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn every_event_is_answered_alike_and_an_unknown_one_as_none() {
    let figures =
        |seeds, completed, leeches, partial_seeds| ScrapeEntry { seeds, completed, leeches, partial_seeds };
    for (word, number, afterwards, peers) in [
        ("", 0, figures(2, 0, 5, 0), 3),
        ("&event=", 0, figures(2, 0, 5, 0), 3),
        ("&event=empty", 0, figures(2, 0, 5, 0), 3),
        ("&event=completed", 1, figures(2, 1, 5, 0), 3),
        ("&event=started", 2, figures(2, 0, 5, 0), 3),
        ("&event=stopped", 3, figures(2, 0, 4, 0), 0),
        // A partial seed is given nobody who wants nothing, either (BEP 21).
        ("&event=paused", 4, figures(2, 0, 5, 1), 2),
        ("&event=hello", 5, figures(2, 0, 5, 0), 3),
        ("&event=PAUSED", 77, figures(2, 0, 5, 0), 3),
        ("&event=%00", u32::MAX, figures(2, 0, 5, 0), 3),
    ] {
        let told = alike(&format!("port=7001&left=5{word}"), |datagram| {
            put(datagram, EVENT_AT, &u32::to_be_bytes(number));
        });
        assert_eq!((told.afterwards, told.peers.len()), (afterwards, peers), "{word}");
    }
}

#[test]
fn numbers_are_taken_alike() {
    for (wanted, number, peers) in [
        ("", -1, 3),
        ("&numwant=", -1, 3),
        ("&numwant=-1", -1, 3),
        ("&numwant=-7", -7, 3),
        ("&numwant=0", 0, 0),
        ("&numwant=2", 2, 2),
        ("&num_want=2", 2, 2),
        ("&numwant=2147483647", i32::MAX, 3),
    ] {
        let query = format!("port=7001&left=5{wanted}");
        let told = |source: &str| {
            let over_http = http(&mut tracker(), source, &query);
            let over_udp = udp(&mut tracker(), source, |datagram| {
                put(datagram, NUM_WANT_AT, &i32::to_be_bytes(number));
            });
            assert_eq!((over_http.peers.len(), over_udp.peers.len()), (peers, peers), "{wanted}");
        };
        told("10.0.0.9:5");
        told("[2001:db8:1::99]:5");
    }
    for (left, number, seeds) in [
        ("", u64::MAX, 2),
        ("&left=", u64::MAX, 2),
        ("&left=-1", u64::MAX, 2),
        ("&left=1", 1, 2),
        ("&left=0", 0, 3),
    ] {
        let told = alike(&format!("port=7001{left}"), |datagram| {
            put(datagram, LEFT_AT, &u64::to_be_bytes(number));
        });
        assert_eq!(told.seeds, Some(seeds), "{left}");
    }
}

#[test]
fn who_accepts_no_peers_is_answered_and_not_entered() {
    let told = alike("port=0&left=5", |datagram| put(datagram, PORT_AT, &[0, 0]));
    assert_eq!((told.afterwards.leeches, told.peers.len()), (4, 3));
}

#[test]
fn claimed_addresses_and_keys_are_ignored() {
    let plain = alike("port=7001&left=5", |_| {});
    for claim in ["ip=6.6.6.6", "ipv4=6.6.6.6:7", "ipv6=2001:db8:6::6", "key=DEADBEEF", "key=no+number"] {
        let told = alike(&format!("port=7001&left=5&{claim}"), |datagram| {
            put(datagram, IP_AT, &[6, 6, 6, 6]);
            put(datagram, KEY_AT, &[0xde, 0xad, 0xbe, 0xef]);
        });
        assert_eq!(told, plain, "{claim}");
    }
    // Who came by one door is found by the other, at the address it came from.
    let mut tracker = tracker();
    udp(&mut tracker, "10.0.0.9:5", |datagram| put(datagram, IP_AT, &[6, 6, 6, 6]));
    let found = http(&mut tracker, "10.0.0.8:5", "port=1&left=1&ip=7.7.7.7").peers;
    let at = |ip: [u8; 4], port| SocketAddr::new(IpAddr::from(ip), port);
    assert!(found.contains(&at([10, 0, 0, 9], 7001)), "{found:?}");
    let found = udp(&mut tracker, "10.0.0.7:5", |_| {}).peers;
    assert!(
        found.contains(&at([10, 0, 0, 8], 1)) && !found.iter().any(|peer| peer.ip() == IpAddr::from([7; 4]))
    );
}
