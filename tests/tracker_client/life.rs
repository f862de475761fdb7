//! A torrent's whole life as its trackers hear of it, from started to stopped.

use crate::scripted::{GOOD, Script, V4, V6, announce, client, http_tracker, ok, request, say};
use seedring::announcer::{Announcer, AnnouncerConfig};
use seedring::rng::Rng;
use seedring::secret_url::TrackerUrl;
use seedring::time::Duration;
use seedring::tracker_client::{
    Command, Identity, Progress, TrackerClient, TrackerError, TrackerEvent, run_announcer,
};
use seedring::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest};
use std::net::SocketAddr;
use std::rc::Rc;
use tokio::sync::{mpsc, watch};

/// The handles of a running announcer.
struct Running {
    progress: watch::Sender<Progress>,
    commands: mpsc::Sender<Command>,
    events: mpsc::Receiver<TrackerEvent>,
    done: tokio::task::JoinHandle<()>,
}

fn run(
    client: TrackerClient,
    tiers: &[Vec<TrackerUrl>],
    families: Vec<AddressFamily>,
    room: usize,
) -> Running {
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
    let (progress, watching) =
        watch::channel(Progress { uploaded: 0, downloaded: 0, left: 10, partial: false });
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
    let tiers =
        [vec![format!("http://{dead}/announce").into()], vec![format!("http://{address}/announce").into()]];
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
    running.progress.send_replace(Progress { uploaded: 1, downloaded: 10, left: 0, partial: false });
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
            let tiers = [
                vec![format!("http://{address}/announce").into()],
                vec![format!("http://{other}/announce").into()],
            ];
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
            let mut running =
                run(client(), &[vec![format!("http://{address}/announce").into()]], vec![V4], 16);
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
            let mut running =
                run(client(), &[vec![format!("http://{address}/announce").into()]], vec![V4], 16);
            assert!(running.events.recv().await.unwrap().outcome.is_ok());
            running.commands.send(Command::Stop).await.unwrap();
            while !seen.recv().await.unwrap().1.contains("event=stopped") {}
            running.done.await.unwrap();
        })
        .await;
}

#[tokio::test(flavor = "current_thread")]
async fn the_projects_own_tracker_understands_its_own_client() {
    use seedring::tracker_server::{TrackerConfig, TrackerProtocol, TrackerServer};
    let listen: Vec<SocketAddr> = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let interval = Duration::from_secs(600);
    let config = TrackerConfig { http: listen.clone(), udp: listen, interval, ..TrackerConfig::default() };
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
