//! Announces over UDP: connection ids, both families, loss, and datagrams that answer nothing.

use crate::scripted::{PASSKEY, UdpTracker, V4, V6, announce, announce_response, client, impatient, request};
use seedring::tracker_client::{ClientConfig, TrackerClient, TrackerError};
use seedring::tracker_wire::AnnounceEvent;
use seedring::tracker_wire::udp::{
    ConnectionId, Request, encode_announce_response, encode_connect_response, encode_error,
};
use std::rc::Rc;
use tokio::net::UdpSocket;

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
async fn silent_trackers_do_not_keep_a_good_one_waiting() {
    let mut good = UdpTracker::start("127.0.0.1").await;
    let mut silent = Vec::new();
    for _ in 0..7 {
        silent.push(UdpTracker::start("127.0.0.1").await);
    }
    let client = TrackerClient::new(ClientConfig { requests_max: 5, ..ClientConfig::default() }).unwrap();
    let (client, url) = (Rc::new(client), good.url());
    tokio::task::LocalSet::new()
        .run_until(async {
            let mut waiting = tokio::task::JoinSet::new();
            for url in silent.iter().flat_map(|tracker| vec![tracker.url(); 20]) {
                let client = Rc::clone(&client);
                waiting.spawn_local(async move {
                    announce(&client, &url, V4, AnnounceEvent::Started).await.is_ok()
                });
            }
            let mut torrents = tokio::task::JoinSet::new();
            for _ in 0..100 {
                let (client, url) = (Rc::clone(&client), url.clone());
                torrents.spawn_local(async move {
                    announce(&client, &url, V4, AnnounceEvent::Started).await.is_ok()
                });
            }
            tokio::select! {
                answered = torrents.join_all() => assert!(answered.into_iter().all(|fine| fine)),
                () = good.serve() => unreachable!("it serves for ever"),
            }
            assert!(waiting.try_join_next().is_none(), "the silent ones are still waited for");
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn a_tracker_that_ignores_one_torrent_is_not_taken_for_dead() {
    let mut tracker = UdpTracker::start("127.0.0.1").await;
    let (client, url) = (impatient(50), tracker.url());
    let ignored = tokio::select! {
        ignored = announce(&client, &url, V4, AnnounceEvent::None) => ignored,
        () = async {
            loop {
                let (from, asked) = tracker.hear().await;
                if matches!(Request::decode(&asked), Ok(Request::Connect { .. })) {
                    tracker.connect(from, &asked).await;
                }
            }
        } => unreachable!("it listens for ever"),
    };
    assert!(matches!(ignored, Err(TrackerError::Ignored(_))), "{ignored:?}");
    let served = tokio::select! {
        served = announce(&client, &url, V4, AnnounceEvent::None) => served,
        () = tracker.serve() => unreachable!("it serves for ever"),
    };
    served.unwrap();
}
