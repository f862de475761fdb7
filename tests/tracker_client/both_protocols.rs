//! What holds for HTTP and UDP alike: the address it leaves from, and scrapes.

use crate::scripted::{GOOD, UdpTracker, V4, V6, announce, client, http_tracker, ok, request, say};
use seedring::id::InfoHash;
use seedring::tracker_client::{ClientConfig, TrackerClient, TrackerError};
use seedring::tracker_wire::udp::{Request, encode_scrape_response};
use seedring::tracker_wire::{AnnounceEvent, ScrapeEntry};
use std::net::{IpAddr, Ipv4Addr};

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
async fn scrapes_over_http_and_udp() {
    let mut body = Vec::new();
    let figures = ScrapeEntry { seeds: 1, completed: 2, leeches: 3, partial_seeds: 0 };
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
