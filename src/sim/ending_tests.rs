//! How workers and connections end: a worker whose ring breaks is noticed, no socket is left open, and who is closed
//! is heard out, but not for ever.

use super::rig::{INFO_HASH, Rig, SimPeer, seeded};
use super::ring::{Faults, SimRing};
use super::store::SimStore;
use crate::choker::Slots;
use crate::engine::message::ToWorker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::engine::{Engine, EngineConfig, EngineEvent};
use crate::id::InfoHash;
use crate::limits::{LINGER_LEN_MAX, LINGER_TIME, LINGER_TIME_AT_END};
use crate::picker::Order;
use crate::service;
use crate::session::seeding::{Arrival, Ending, OwnTracker, Seeding, SeedingSettings, Until};
use crate::storage::Content;
use crate::time::Duration;
use crate::wire::Message;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use tokio::sync::mpsc;

/// Two workers, the second of which ends by itself after a while.
fn config() -> EngineConfig {
    EngineConfig {
        bind: Some(Ipv4Addr::LOCALHOST.into()),
        workers: Some(2),
        unpinned: true,
        ..EngineConfig::default()
    }
}

const BREAKS: Faults = faults(50, 0);
const PANICS: Faults = faults(0, 50);

const fn faults(breaks_in: u64, panics_in: u64) -> Faults {
    Faults {
        descriptors_max: 0,
        no_buffers: 0,
        resets: 0,
        short_sends: 0,
        refused_zero_copy: 0,
        copied_zero_copy: 0,
        busy_disk: 0,
        broken_disk: 0,
        slow_disk: Duration::ZERO,
        refused_connects: 0,
        silent_connects: 0,
        submissions_max: 0,
        connections_max: 0,
        delay_max: Duration::ZERO,
        breaks_in,
        panics_in,
    }
}

fn rings(
    faults: Faults,
) -> impl Fn(u16) -> Result<SimRing, crate::engine::ring_error::RingUnavailable> + Clone + Send {
    move |index| Ok(SimRing::new(1, if index == 1 { faults } else { Faults::default() }))
}

#[test]
fn a_worker_that_ends_by_itself_is_noticed_and_nobody_waits_for_it() {
    for (faults, why) in [(BREAKS, "refused its ring"), (PANICS, "panicked")] {
        let make_sink = || Box::new(|_: EngineEvent| Ok(())) as _;
        let engine = Engine::<SimStore>::start_on(&config(), make_sink, rings(faults)).unwrap();
        while engine.failure().is_none() {
            std::thread::yield_now();
        }
        let told = engine.failure().unwrap();
        assert!(told.contains("worker 1") && told.contains(why), "{told}");
        // More than a mailbox holds.
        let content = Arc::new(SimStore::new(1, 1, 1));
        for number in 0..5000_u32 {
            let mut info_hash = InfoHash([1; 20]);
            info_hash.0[..4].copy_from_slice(&number.to_be_bytes());
            let home = engine.home_of(info_hash);
            engine.add(&seeded(info_hash, Arc::clone(&content), home, Slots::Auto));
            engine.remove(info_hash);
        }
        assert!(engine.leave().is_empty());
    }
}

#[test]
fn a_session_ends_when_a_worker_does_and_says_why() {
    let settings = SeedingSettings {
        slots: Slots::Auto,
        torrent_upload_limit: None,
        trackers: Vec::new(),
        replace_trackers: false,
        bind: None,
        once: None,
        until: Until::Asked,
        peers: Vec::new(),
        peer_id: None,
        tracker_key: None,
        order: Order::RarestFirst,
        super_seed: false,
        state_dir: None,
    };
    let ending = service::run(async move {
        let (_events_in, events) = mpsc::channel(1);
        let make_sink = || Box::new(|_: EngineEvent| Ok(())) as _;
        let engine = Engine::<Content>::start_on(&config(), make_sink, rings(BREAKS)).unwrap();
        let mut session = Seeding::start(settings, engine, events, OwnTracker::Never).unwrap();
        let (_more, arrivals) = mpsc::channel::<Arrival>(1);
        let ending = session.run(arrivals, std::future::pending(), |_| {}).await;
        session.stop().await.unwrap();
        ending
    });
    let Ending::WorkerEnded(why) = ending.unwrap() else { panic!("it goes on") };
    assert!(why.contains("worker 1"), "{why}");
}

#[test]
fn a_worker_whose_ring_breaks_leaves_no_socket_open() {
    let mut rig = Rig::new(3, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers: Vec<SimPeer> = (0..5).map(|_| SimPeer::joined(&mut rig)).collect();
    rig.run(50);
    for peer in &mut peers {
        // What is sent stays in flight.
        rig.ring().set_window(peer.socket, 0);
        peer.ask_for_all(&mut rig);
    }
    rig.run(20);
    // One that nobody has accepted yet.
    rig.ring().dial();
    let left_open = rig.ring().left_open();
    assert_eq!(left_open.load(Relaxed), 6);
    drop(rig);
    assert_eq!(left_open.load(Relaxed), 0);
}

#[test]
fn who_talks_on_when_we_have_ended_is_heard_out_within_bounds() {
    for is_fast in [false, true] {
        let mut rig = Rig::new(4, Faults::default(), ZeroCopyMode::Auto, None);
        let peer = SimPeer::joined(&mut rig);
        rig.run(50);
        rig.ring().talk_on(peer.socket);
        rig.address.post(ToWorker::Remove(INFO_HASH)).unwrap();
        rig.run(20);
        assert!(!peer.is_open(&mut rig), "our part has ended");
        assert_eq!(rig.worker.connection_count(), 1, "the peer's has not");
        let (began, mut said) = (rig.now(), 0);
        while rig.worker.connection_count() > 0 {
            if is_fast {
                rig.ring().buffer_len = 1 << 20;
                rig.ring().peer_sends(peer.socket, &[0; 1 << 16]);
                said += 1 << 16;
            } else {
                peer.say(&mut rig, &[Message::KeepAlive]);
            }
            rig.run(1);
        }
        let took = rig.now().since(began);
        assert!(took <= LINGER_TIME + Duration::from_secs(1), "{took:?}");
        if is_fast {
            assert!(said < 4 * LINGER_LEN_MAX, "{said}");
        }
        rig.stop();
    }
}

#[test]
fn at_the_end_nobody_is_heard_out_for_long() {
    let mut rig = Rig::new(5, Faults::default(), ZeroCopyMode::Auto, None);
    let peers: Vec<SimPeer> = (0..3).map(|_| SimPeer::joined(&mut rig)).collect();
    rig.run(50);
    peers.iter().for_each(|peer| rig.ring().talk_on(peer.socket));
    let began = rig.now();
    rig.address.post(ToWorker::Stop).unwrap();
    while rig.worker.turn().unwrap() {}
    assert_eq!(rig.worker.connection_count(), 0);
    assert!(rig.now().since(began) <= LINGER_TIME_AT_END + Duration::from_millis(300));
}

#[test]
fn above_the_bound_of_connections_who_says_nothing_gives_way() {
    const CONNECTIONS_MAX: usize = 100;
    let faults = Faults { connections_max: CONNECTIONS_MAX, ..Faults::default() };
    let mut rig = Rig::new(6, faults, ZeroCopyMode::Auto, None);
    let silent: Vec<SimPeer> = (0..2 * CONNECTIONS_MAX).map(|_| SimPeer::new(&mut rig)).collect();
    rig.run(500);
    assert!(rig.worker.connection_count() <= CONNECTIONS_MAX, "{}", rig.worker.connection_count());
    let mut newcomer = SimPeer::joined(&mut rig);
    rig.run(100);
    newcomer.read(&mut rig);
    assert!(!newcomer.handshake.is_empty() && newcomer.is_open(&mut rig));
    let open = silent.iter().filter(|peer| peer.is_open(&mut rig)).count();
    assert!(open < CONNECTIONS_MAX, "{open}");
    rig.stop();
}
