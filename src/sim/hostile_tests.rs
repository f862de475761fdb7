//! The worker among enemies, where only the simulator can go: storms, races, floods from many networks, calls
//! that nobody answers, and a home on another core that does not keep up.

use super::crew::PREFIX_CONNECTIONS_MAX;
use super::rig::{INFO_HASH, Rig, SimPeer, until};
use super::ring::Faults;
use crate::engine::message::{EngineEvent, ToWorker};
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::PeerId;
use crate::limits::{
    HALF_OPEN_PER_PREFIX_MAX, HALF_OPEN_PER_WORKER_MAX, HANDSHAKE_TIMEOUT, IDLE_TIMEOUT, KEEP_ALIVE_INTERVAL,
    SEND_STALL_TIMEOUT, SHORTAGE_RETRY_INTERVAL, WORDS_PER_SECOND_MAX,
};
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::ByteRate;
use crate::wire::{Handshake, Message, Reserved, encode};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;

fn rig(seed: u64, faults: Faults, mode: ZeroCopyMode) -> Rig {
    Rig::new(seed, faults, mode, None)
}

fn unchoked(rig: &mut Rig, count: usize) -> Vec<SimPeer> {
    let mut peers: Vec<SimPeer> = (0..count).map(|_| SimPeer::joined(rig)).collect();
    until(rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    peers
}

/// Every peer asks for so many blocks and gets them.
fn serve(rig: &mut Rig, peers: &mut [SimPeer], blocks: usize) {
    let mut rng = Rng::from_seed(blocks as u64);
    let wanted: Vec<usize> = peers.iter().map(|peer| peer.blocks + blocks).collect();
    for peer in peers.iter_mut() {
        (0..blocks).for_each(|_| peer.ask(rig, &mut rng));
    }
    until(rig, peers, |_, peers| peers.iter().zip(&wanted).all(|(peer, &wanted)| peer.blocks == wanted));
}

/// Turns until so much time has passed, while the peers keep their connections alive.
fn pass(rig: &mut Rig, peers: &mut [SimPeer], time: Duration) {
    let end = rig.now() + time;
    let mut said_at = rig.now();
    until(rig, peers, |rig, peers| {
        if rig.now() > said_at + Duration::from_secs(60) {
            said_at = rig.now();
            peers.iter().for_each(|peer| peer.say(rig, &[Message::KeepAlive]));
        }
        rig.now() >= end
    });
}

#[test]
fn who_comes_behind_an_attack_that_took_all_descriptors_is_served_as_soon_as_they_are_free() {
    const DESCRIPTORS: usize = 8;
    let faults = Faults { descriptors_max: DESCRIPTORS, ..Faults::default() };
    let mut rig = rig(1, faults, ZeroCopyMode::Never);
    // They are silent, and hold all that there is; two hundred more stand in line behind them.
    let attackers: Vec<RawFd> = (0..DESCRIPTORS + 200).map(|_| rig.ring().dial()).collect();
    pass(&mut rig, &mut [], Duration::from_millis(500));
    let told =
        rig.events.try_iter().filter(|event| matches!(event, EngineEvent::AcceptFailed { .. })).count();
    assert_eq!(told, 1);
    // They all go, and the honest peer is the last in line.
    attackers.iter().for_each(|&socket| rig.ring().peer_closes(socket));
    let before = rig.now();
    let mut peers = unchoked(&mut rig, 1);
    serve(&mut rig, &mut peers, 10);
    let waited = rig.now().since(before);
    assert!(waited < SHORTAGE_RETRY_INTERVAL.saturating_mul(2), "{waited:?}");
    assert!(!rig.events.try_iter().any(|event| matches!(event, EngineEvent::AcceptFailed { .. })));
    rig.stop();
}

#[test]
fn storms_of_missing_buffers_only_slow_things_down() {
    let faults = Faults { no_buffers: 900, ..Faults::default() };
    let mut rig = rig(1, faults, ZeroCopyMode::Never);
    let mut peers = unchoked(&mut rig, 5);
    serve(&mut rig, &mut peers, 100);
    rig.stop();
}

#[test]
fn a_submission_queue_of_one_loses_nothing() {
    let faults = Faults { submissions_max: 1, delay_max: Duration::from_millis(2), ..Faults::default() };
    for mode in [ZeroCopyMode::Always, ZeroCopyMode::Never] {
        let mut rig = rig(2, faults, mode);
        rig.content().evict();
        let mut peers = unchoked(&mut rig, 10);
        serve(&mut rig, &mut peers, 100);
        rig.stop();
    }
}

#[test]
fn zero_copy_sends_that_are_always_refused_are_sent_by_copy_and_pin_nothing() {
    let faults = Faults { refused_zero_copy: 1000, delay_max: Duration::from_millis(3), ..Faults::default() };
    let mut rig = rig(3, faults, ZeroCopyMode::Always);
    let mut peers = unchoked(&mut rig, 20);
    serve(&mut rig, &mut peers, 20);
    rig.run(100);
    assert_eq!(rig.worker.pinned_bytes(), 0);
    assert!(rig.statistics[0].snapshot().zero_copy_refused >= 20);
    rig.stop();
}

#[test]
fn notifications_that_come_after_their_connection_are_waited_for() {
    let mut rig = rig(4, Faults::default(), ZeroCopyMode::Always);
    let mut peers = unchoked(&mut rig, 10);
    rig.ring().faults.delay_max = Duration::from_millis(500);
    let mut rng = Rng::from_seed(4);
    let mut outlived = false;
    for round in 0..50 {
        for peer in &mut peers {
            (0..10).for_each(|_| peer.ask(&mut rig, &mut rng));
        }
        rig.run(20);
        peers.drain(..).for_each(|peer| rig.ring().peer_closes(peer.socket));
        for _ in 0..200 {
            rig.run(1);
            outlived |= rig.worker.connection_count() == 0 && rig.worker.in_flight_count() > 0;
        }
        rig.ring().faults.delay_max = Duration::from_millis(round * 10);
        peers = unchoked(&mut rig, 5);
    }
    assert!(outlived, "no notification came late");
    serve(&mut rig, &mut peers, 50);
    rig.stop();
}

#[test]
fn beyond_the_bound_of_half_open_connections_newcomers_replace_the_oldest() {
    let mut rig = rig(5, Faults::default(), ZeroCopyMode::Never);
    let silent: Vec<RawFd> = (0..HALF_OPEN_PER_WORKER_MAX + 100).map(|_| rig.ring().dial()).collect();
    rig.run(HALF_OPEN_PER_WORKER_MAX / 16 + 30);
    assert_eq!(rig.worker.connection_count(), HALF_OPEN_PER_WORKER_MAX);
    let (first, rest) = silent.split_at(100);
    assert!(first.iter().all(|&socket| !rig.ring().is_open(socket)));
    assert!(rest.iter().all(|&socket| rig.ring().is_open(socket)));
    let mut peers = unchoked(&mut rig, 1);
    serve(&mut rig, &mut peers, 10);
    pass(&mut rig, &mut peers, HANDSHAKE_TIMEOUT);
    assert_eq!((rig.worker.connection_count(), rig.statistics[0].snapshot().half_open), (1, 0));
    rig.stop();
}

fn address(network: u8, number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::new(203, 0, network, number as u8), 1000 + number as u16))
}

#[test]
fn one_network_cannot_have_all_half_open_connections() {
    let mut rig = rig(6, Faults::default(), ZeroCopyMode::Never);
    for number in 0..HALF_OPEN_PER_PREFIX_MAX + 50 {
        rig.ring().dial_from(address(1, number));
    }
    rig.run(100);
    assert_eq!(rig.worker.connection_count(), HALF_OPEN_PER_PREFIX_MAX);
    assert_eq!(rig.statistics[0].snapshot().refused, 50);
    let mut other = [SimPeer::joined_from(&mut rig, address(2, 1))];
    until(&mut rig, &mut other, |_, peers| !peers[0].choked);
    pass(&mut rig, &mut other, HANDSHAKE_TIMEOUT);
    let mut late = [SimPeer::joined_from(&mut rig, address(1, 1))];
    until(&mut rig, &mut late, |_, peers| !peers[0].choked);
    rig.stop();
}

#[test]
fn one_network_cannot_have_all_connections_and_those_that_go_make_room() {
    let mut rig = rig(17, Faults::default(), ZeroCopyMode::Never);
    let mut peers = Vec::new();
    for number in 0..PREFIX_CONNECTIONS_MAX as usize {
        peers.push(SimPeer::joined_from(&mut rig, address(1, number)));
        if number % 100 == 99 {
            rig.run(50);
        }
    }
    assert_eq!(rig.worker.connection_count(), PREFIX_CONNECTIONS_MAX as usize);
    (0..20).for_each(|number| drop(SimPeer::joined_from(&mut rig, address(1, number))));
    rig.run(20);
    assert_eq!(rig.worker.connection_count(), PREFIX_CONNECTIONS_MAX as usize);
    assert_eq!(rig.statistics[0].snapshot().refused, 20);
    peers.drain(..20).for_each(|peer| rig.ring().peer_closes(peer.socket));
    rig.run(20);
    (0..30).for_each(|number| drop(SimPeer::joined_from(&mut rig, address(1, number))));
    rig.run(20);
    assert_eq!(rig.worker.connection_count(), PREFIX_CONNECTIONS_MAX as usize);
    assert_eq!(rig.statistics[0].snapshot().refused, 30);
    rig.stop();
}

#[test]
fn coming_back_does_not_bring_free_pieces_again() {
    let mut rig = rig(7, Faults::default(), ZeroCopyMode::Never);
    let mut granted = Vec::new();
    for (network, number) in [(1, 1), (1, 1), (1, 2), (2, 1)] {
        let mut peers = [SimPeer::joined_from(&mut rig, address(network, number))];
        until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
        granted.push(peers[0].fast_pieces > 0);
        rig.ring().peer_closes(peers[0].socket);
        until(&mut rig, &mut peers, |rig, _| rig.worker.connection_count() == 0);
    }
    assert_eq!(granted, [true, false, false, true]);
    rig.stop();
}

fn call(rig: &mut Rig, number: usize) {
    rig.address.post(ToWorker::Connect(INFO_HASH, address(3, number))).unwrap();
    rig.run(2);
}

#[test]
fn a_peer_that_is_called_and_answers_is_served() {
    let mut rig = rig(8, Faults::default(), ZeroCopyMode::Never);
    call(&mut rig, 1);
    call(&mut rig, 1);
    assert_eq!(rig.ring().called().len(), 1, "nobody is called twice");
    let socket = rig.ring().called()[0];
    let mut peers = [SimPeer::on(&rig, socket)];
    peers[0].introduce(&mut rig);
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    serve(&mut rig, &mut peers, 50);
    rig.ring().peer_closes(socket);
    until(&mut rig, &mut peers, |rig, _| rig.worker.connection_count() == 0);
    call(&mut rig, 1);
    assert_eq!(rig.ring().called().len(), 2, "who has gone may be called again");
    rig.stop();
}

#[test]
fn calls_refused_or_never_answered_leave_nothing_behind() {
    let faults = Faults { refused_connects: 300, silent_connects: 500, ..Faults::default() };
    for seed in 0..20 {
        let mut rig = rig(seed, faults, ZeroCopyMode::Never);
        rig.ring().faults.delay_max = Duration::from_millis(seed * 10);
        (0..50).for_each(|number| call(&mut rig, number));
        if seed % 2 == 0 {
            // Who took the call and said nothing is called the other way, once.
            pass(&mut rig, &mut [], HANDSHAKE_TIMEOUT * 2 + Duration::from_secs(1));
            assert_eq!(rig.worker.connection_count(), 0, "seed {seed}");
            assert_eq!(rig.statistics[0].snapshot().half_open, 0);
        }
        // Otherwise it stops in the middle of its calls.
        rig.stop();
    }
}

#[test]
fn who_answers_a_call_for_another_torrent_is_left() {
    let mut rig = rig(9, Faults::default(), ZeroCopyMode::Never);
    call(&mut rig, 1);
    let socket = rig.ring().called()[0];
    let info_hash = crate::id::InfoHash([8; 20]);
    let wrong = Handshake { reserved: Reserved::OURS, info_hash, peer_id: PeerId([1; 20]) };
    rig.ring().peer_sends(socket, &wrong.encode());
    until(&mut rig, &mut [], |rig, _| rig.worker.connection_count() == 0);
    rig.stop();
}

#[test]
fn a_home_that_does_not_keep_up_loses_no_message() {
    let faults = Faults { delay_max: Duration::from_millis(1), ..Faults::default() };
    let mut rig = Rig::with_home(10, faults, ZeroCopyMode::Auto, None, Some(2));
    rig.home_sleeps = true;
    let mut peers: Vec<SimPeer> = (0..40).map(|_| SimPeer::joined(&mut rig)).collect();
    rig.run(200);
    assert_eq!(rig.worker.connection_count(), 40);
    // Those who join while the home has not heard of the others wait, and so does what they say.
    assert!((1..=4).contains(&rig.worker.unposted_count()), "{}", rig.worker.unposted_count());
    assert!(rig.worker.backlog_bytes() > 0);
    // Half of them go before their home has heard of them.
    for peer in peers.drain(20..) {
        rig.ring().peer_closes(peer.socket);
    }
    rig.run(100);
    rig.home_sleeps = false;
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    serve(&mut rig, &mut peers, 20);
    rig.stop();
}

#[test]
fn flipping_interest_costs_the_home_a_message_a_second() {
    let mut rig = Rig::with_home(11, Faults::default(), ZeroCopyMode::Never, None, Some(16));
    let mut peers = unchoked(&mut rig, 1);
    rig.home_sleeps = true;
    let began = rig.now();
    for _ in 0..200 {
        peers[0].say(&mut rig, &[Message::NotInterested, Message::Interested].repeat(50));
        rig.run(5);
    }
    let seconds = rig.now().since(began).as_secs() as usize;
    assert!(rig.worker.unposted_count() <= seconds + 1, "{} in {seconds} s", rig.worker.unposted_count());
    rig.home_sleeps = false;
    // What it says last is heard in the end.
    peers[0].say(&mut rig, &[Message::NotInterested, Message::Interested]);
    pass(&mut rig, &mut peers, Duration::from_secs(20));
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    serve(&mut rig, &mut peers, 5);
    rig.stop();
}

#[test]
fn the_last_word_about_interest_is_told_when_its_second_is_over() {
    let mut rig = Rig::with_home(18, Faults::default(), ZeroCopyMode::Never, None, Some(1));
    let mut peers = unchoked(&mut rig, 1);
    pass(&mut rig, &mut peers, Duration::from_secs(2));
    rig.home_sleeps = true;
    peers[0].say(&mut rig, &[Message::NotInterested]);
    rig.run(3);
    peers[0].say(&mut rig, &[Message::Interested]);
    rig.run(3);
    assert_eq!(rig.worker.unposted_count(), 0, "the first word fills the mailbox, the second is held back");
    pass(&mut rig, &mut peers, Duration::from_secs(2));
    assert_eq!(rig.worker.unposted_count(), 1);
    rig.stop();
}

#[test]
fn a_connection_without_traffic_holds_no_slot_and_no_buffer() {
    let mut rig = rig(12, Faults::default(), ZeroCopyMode::Never);
    let mut peers = unchoked(&mut rig, 10);
    serve(&mut rig, &mut peers, 200);
    pass(&mut rig, &mut peers, KEEP_ALIVE_INTERVAL * 2);
    assert_eq!(rig.worker.connection_count(), 10);
    assert_eq!((rig.worker.in_flight_count(), rig.ring().lent_buffers()), (0, 0));
    assert_eq!(rig.worker.buffered_bytes(), 0);
    serve(&mut rig, &mut peers, 10);
    rig.stop();
}

#[test]
fn who_reads_nothing_for_minutes_is_left_however_alive_it_says_it_is() {
    let mut rig = rig(13, Faults::default(), ZeroCopyMode::Never);
    let mut peers = unchoked(&mut rig, 2);
    let mut rng = Rng::from_seed(13);
    rig.ring().set_window(peers[0].socket, 0);
    (0..100).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    pass(&mut rig, &mut peers, SEND_STALL_TIMEOUT - Duration::from_secs(20));
    assert_eq!(rig.worker.connection_count(), 2);
    pass(&mut rig, &mut peers, KEEP_ALIVE_INTERVAL + Duration::from_secs(30));
    assert!(!peers[0].is_open(&mut rig) && peers[1].is_open(&mut rig));
    serve(&mut rig, &mut peers[1..], 10);
    rig.stop();
}

#[test]
fn who_says_nothing_for_minutes_is_left() {
    let mut rig = rig(14, Faults::default(), ZeroCopyMode::Never);
    let mut peers = unchoked(&mut rig, 1);
    let end = rig.now() + IDLE_TIMEOUT + Duration::from_secs(1);
    until(&mut rig, &mut peers, |rig, _| rig.now() >= end);
    assert_eq!(rig.worker.connection_count(), 0);
    rig.stop();
}

#[test]
fn who_says_more_than_anybody_has_to_say_is_read_a_second_later_and_loses_nothing() {
    let mut rig = rig(17, Faults::default(), ZeroCopyMode::Never);
    let mut peers = unchoked(&mut rig, 2);
    let talk = [Message::NotInterested, Message::Interested];
    let rounds = 400_000;
    let mut bytes = Vec::new();
    talk.iter().for_each(|message| encode(message, &mut bytes));
    rig.ring().peer_sends(peers[0].socket, &bytes.repeat(rounds));
    let before = rig.now();
    // The other is served meanwhile, and everything is heard in the end: the last word counts.
    serve(&mut rig, &mut peers[1..], 100);
    until(&mut rig, &mut peers, |rig, peers| rig.ring().unreceived(peers[0].socket) == 0);
    let seconds = rig.now().since(before).as_secs();
    assert!(seconds + 2 >= 2 * rounds as u64 / WORDS_PER_SECOND_MAX, "all was read in {seconds} s");
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    serve(&mut rig, &mut peers, 10);
    rig.stop();
}

#[test]
fn connections_count_as_active_in_each_second_in_which_they_send() {
    let mut rig = Rig::new(15, Faults::default(), ZeroCopyMode::Never, Some(ByteRate(10_000_000)));
    let mut peers = unchoked(&mut rig, 20);
    for _ in 0..5 {
        let end = rig.now() + Duration::from_millis(1100);
        while rig.now() < end {
            serve(&mut rig, &mut peers, 2);
        }
        assert_eq!(rig.worker.active_count(), 20);
    }
    pass(&mut rig, &mut peers, Duration::from_secs(3));
    assert_eq!(rig.worker.active_count(), 0);
    rig.stop();
}

#[test]
fn a_torrent_that_is_removed_takes_its_connections_along_and_can_come_back() {
    let mut rig = Rig::with_home(16, Faults::default(), ZeroCopyMode::Always, None, Some(4));
    for _ in 0..3 {
        let mut peers = unchoked(&mut rig, 5);
        let mut rng = Rng::from_seed(16);
        peers.iter_mut().for_each(|peer| (0..50).for_each(|_| peer.ask(&mut rig, &mut rng)));
        rig.run(3);
        rig.tell(|_| ToWorker::Remove(INFO_HASH));
        until(&mut rig, &mut peers, |rig, _| rig.worker.connection_count() == 0);
        assert_eq!(rig.torrent.counts.connections.load(std::sync::atomic::Ordering::Relaxed), 0);
        rig.tell(|torrent| ToWorker::Add(Arc::clone(torrent)));
    }
    let mut peers = unchoked(&mut rig, 5);
    serve(&mut rig, &mut peers, 50);
    rig.stop();
}
