//! The production worker through bad days, by seed: every byte that arrives is right and was asked for, nothing
//! is reused before the kernel has let go of it, and when the faults end everybody honest is served.

use super::rig::{INFO_HASH, PIECE, Rig, SimPeer, until};
use super::ring::Faults;
use crate::engine::message::EngineEvent;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::PeerId;
use crate::limits::{FETCHES_PER_DEVICE_MAX, HANDSHAKE_TIMEOUT};
use crate::pipeline::burst_for;
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use crate::wire::{CryptoMethods, Encryption, Handshake, Message, Reserved};
use std::os::fd::RawFd;

/// One run: peers come, ask, cancel, stall and go while everything that can go wrong does; then the faults end.
fn run_by_seed(seed: u64) {
    let mut rng = Rng::from_seed(seed);
    let slow_disk = Duration::from_millis(rng.below(3) * rng.below(200));
    let faults = Faults { busy_disk: rng.below(300), slow_disk, ..Faults::drawn(&mut rng) };
    let mode = [ZeroCopyMode::Auto, ZeroCopyMode::Always, ZeroCopyMode::Never][rng.index(3)];
    let limit = (rng.below(3) == 0).then_some(ByteRate(20_000_000));
    let mut rig = match [Encryption::Allow, Encryption::Prefer][rng.index(2)] {
        Encryption::Allow => Rig::new(seed, faults, mode, limit),
        other => Rig::encrypting(seed, faults, mode, other),
    };
    let evictions = rng.below(3) * 3;
    let mut peers: Vec<SimPeer> = Vec::new();
    for round in 0..300 {
        if round == 0 && evictions > 0 || rng.below(300) < evictions {
            rig.content().evict();
        }
        if peers.len() < 12 {
            peers.push(match rng.below(6) {
                methods @ 1..=3 => SimPeer::joined_encrypted(&mut rig, CryptoMethods(methods as u32)),
                _ => SimPeer::joined(&mut rig),
            });
        }
        for _ in 0..rng.below(6) {
            let peer = rng.index(peers.len());
            match rng.below(20) {
                0 => rig.ring().peer_closes(peers[peer].socket),
                1 => rig.ring().set_window(peers[peer].socket, 0),
                2 => rig.ring().set_window(peers[peer].socket, usize::MAX),
                3 => peers[peer].say(&mut rig, &[Message::NotInterested, Message::Interested]),
                4 => {
                    if let Some(span) = peers[peer].asked.last().copied() {
                        peers[peer].say(&mut rig, &[Message::Cancel(span)]);
                    }
                }
                _ if !peers[peer].choked && peers[peer].asked.len() < 500 => {
                    (0..rng.below(30)).for_each(|_| peers[peer].ask(&mut rig, &mut rng));
                }
                _ => {}
            }
        }
        let turns = rng.index(4) + 1;
        rig.run(turns);
        peers.iter_mut().for_each(|peer| peer.read(&mut rig));
        let keep: Vec<bool> = peers.iter().map(|peer| peer.is_open(&mut rig)).collect();
        let mut keep = keep.iter();
        peers.retain(|_| keep.next() == Some(&true));
    }
    rig.ring().faults = Faults::default();
    for peer in &mut peers {
        rig.ring().set_window(peer.socket, usize::MAX);
    }
    peers.push(SimPeer::joined(&mut rig));
    until(&mut rig, &mut peers, |_, peers| peers.last().is_some_and(|peer| !peer.choked));
    let last = peers.len() - 1;
    (0..100).for_each(|_| peers[last].ask(&mut rig, &mut rng));
    until(&mut rig, &mut peers, |rig, peers| {
        peers.iter().all(|peer| peer.asked.is_empty() || !peer.is_open(rig))
    });
    assert_eq!((peers[last].blocks, peers[last].rejects), (100, 0));
    rig.stop();
}

#[test]
fn bad_days_by_seed_send_no_wrong_byte_and_leave_nothing_behind() {
    for seed in 0..60 {
        let result = std::panic::catch_unwind(|| run_by_seed(seed));
        assert!(result.is_ok(), "failing seed: {seed}");
    }
}

#[test]
fn a_peer_is_told_everything_and_then_served() {
    let mut rig = Rig::new(1, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    assert_eq!(peers[0].messages, [14, 20]);
    let mut rng = Rng::from_seed(1);
    (0..200).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    until(&mut rig, &mut peers, |_, peers| peers[0].asked.is_empty());
    assert_eq!(peers[0].blocks, 200);
    let sends = rig.statistics[0].snapshot().sends;
    assert!(sends < 30, "200 requests became {sends} sends");
    rig.stop();
}

#[test]
fn an_upload_limit_is_kept_and_used() {
    let limit = ByteRate(5_000_000);
    let mut rig = Rig::new(2, Faults::default(), ZeroCopyMode::Never, Some(limit));
    assert_limited(&mut rig, limit);
    rig.stop();
}

#[test]
fn a_torrents_own_limit_is_kept_and_used_below_that_of_the_process() {
    let limit = ByteRate(3_000_000);
    let mut rig = Rig::new(8, Faults::default(), ZeroCopyMode::Never, Some(ByteRate(50_000_000)));
    let now = rig.now();
    rig.torrent.gate.set_limit(now, Some(limit), burst_for(Some(limit)));
    assert_limited(&mut rig, limit);
    rig.stop();
}

/// Two greedy peers together get the limit: not much more, not much less.
fn assert_limited(rig: &mut Rig, limit: ByteRate) {
    let mut peers = [SimPeer::joined(rig), SimPeer::joined(rig)];
    until(rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let (mut rng, began) = (Rng::from_seed(2), rig.now());
    for peer in &mut peers {
        (0..800).for_each(|_| peer.ask(rig, &mut rng));
    }
    until(rig, &mut peers, |_, peers| peers.iter().all(|peer| peer.asked.is_empty()));
    let seconds = rig.now().since(began).as_secs_f64();
    let rate = rig.statistics[0].snapshot().payload_sent as f64 / seconds;
    assert!(rate < limit.0 as f64 * 1.1 + burst_for(Some(limit)) as f64 / seconds, "{rate}");
    assert!(rate > limit.0 as f64 * 0.8, "{rate}");
}

#[test]
fn a_limit_is_shared_by_those_who_wait_for_it() {
    let mut rig = Rig::new(7, Faults::default(), ZeroCopyMode::Never, Some(ByteRate(2_000_000)));
    let mut peers: Vec<SimPeer> = (0..10).map(|_| SimPeer::joined(&mut rig)).collect();
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let mut rng = Rng::from_seed(7);
    for peer in &mut peers {
        (0..900).for_each(|_| peer.ask(&mut rig, &mut rng));
    }
    until(&mut rig, &mut peers, |_, peers| peers.iter().map(|peer| peer.blocks).sum::<usize>() > 2000);
    let blocks: Vec<usize> = peers.iter().map(|peer| peer.blocks).collect();
    assert!(blocks.iter().all(|&blocks| (150..=250).contains(&blocks)), "{blocks:?}");
    rig.stop();
}

#[test]
fn half_open_connections_end_in_time_and_leave_no_slot_behind() {
    let mut rig = Rig::new(3, Faults::default(), ZeroCopyMode::Auto, None);
    let silent: Vec<RawFd> = (0..2000).map(|_| rig.ring().dial()).collect();
    rig.run(140);
    assert_eq!(rig.worker.connection_count(), 2000);
    let mut good = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut good, |_, peers| !peers[0].choked);
    let started = rig.now();
    let mut rng = Rng::from_seed(3);
    until(&mut rig, &mut good, |rig, _| rig.now() > started + HANDSHAKE_TIMEOUT);
    rig.run(10);
    assert_eq!(rig.worker.connection_count(), 1);
    assert!(silent.iter().all(|&socket| !rig.ring().is_open(socket)));
    good[0].ask(&mut rig, &mut rng);
    until(&mut rig, &mut good, |_, peers| peers[0].blocks == 1);
    rig.stop();
}

#[test]
fn one_byte_at_a_time_is_a_handshake_too() {
    let mut rig = Rig::new(4, Faults::default(), ZeroCopyMode::Auto, None);
    let peer = SimPeer::new(&mut rig);
    let handshake = Handshake { reserved: Reserved::OURS, info_hash: INFO_HASH, peer_id: PeerId([1; 20]) };
    for byte in handshake.encode() {
        rig.ring().peer_sends(peer.socket, &[byte]);
        rig.run(2);
    }
    let mut peers = [peer];
    peers[0].say(&mut rig, &[Message::HaveNone, Message::Interested]);
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.stop();
}

#[test]
fn a_failing_content_ends_its_connections_and_tells_why() {
    let mut rig = Rig::new(5, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.content().fail("the disk is gone");
    let mut rng = Rng::from_seed(5);
    peers[0].ask(&mut rig, &mut rng);
    until(&mut rig, &mut peers, |rig, peers| !peers[0].is_open(rig));
    rig.run(2);
    let expected = EngineEvent::TorrentFailed { torrent: INFO_HASH, reason: "the disk is gone".to_owned() };
    assert_eq!(rig.events.try_recv(), Ok(expected));
    rig.stop();
}

#[test]
fn windows_that_a_peer_has_asked_for_are_read_side_by_side_and_each_once() {
    let faults = Faults { slow_disk: Duration::from_millis(100), ..Faults::default() };
    let mut rig = Rig::new(9, faults, ZeroCopyMode::Never, None);
    rig.content().evict();
    let mut peers: Vec<SimPeer> = (0..3).map(|_| SimPeer::joined(&mut rig)).collect();
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let began = rig.now();
    for peer in &mut peers {
        peer.ask_for_all(&mut rig);
    }
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| peer.asked.is_empty()));
    let windows = rig.content().len().div_ceil(PIECE as usize) as u64;
    assert_eq!(rig.statistics[0].snapshot().cold_fetches, windows);
    let took = rig.now().since(began);
    assert!(took < Duration::from_millis(100) * (windows as u32 / 4), "one after the other: {took:?}");
    rig.stop();
}

#[test]
fn what_was_cancelled_while_it_waited_for_a_slow_disk_is_not_read() {
    let faults = Faults { slow_disk: Duration::from_secs(600), ..Faults::default() };
    let mut rig = Rig::new(10, faults, ZeroCopyMode::Never, None);
    rig.content().evict();
    let mut peers: Vec<SimPeer> = (0..=FETCHES_PER_DEVICE_MAX).map(|_| SimPeer::joined(&mut rig)).collect();
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let fetches = |rig: &Rig| rig.statistics[0].snapshot().cold_fetches;
    let spans = (0..).map(|piece| BlockSpan { piece: PieceIndex(piece), begin: 0, len: 4000 });
    for (peer, span) in peers.iter_mut().zip(spans) {
        peer.say(&mut rig, &[Message::Request(span)]);
        peer.asked.push(span);
        rig.run(2);
    }
    assert_eq!(fetches(&rig), FETCHES_PER_DEVICE_MAX as u64, "the disk is full");
    let last = &peers[FETCHES_PER_DEVICE_MAX];
    last.say(&mut rig, &[Message::Cancel(last.asked[0])]);
    rig.run(20);
    // Who goes does not wait for the disk.
    rig.ring().peer_closes(peers[0].socket);
    until(&mut rig, &mut peers, |rig, peers| !peers[0].is_open(rig));
    let now = rig.now();
    until(&mut rig, &mut peers, |rig, _| rig.now() > now + Duration::from_secs(650));
    assert_eq!(fetches(&rig), FETCHES_PER_DEVICE_MAX as u64);
    rig.stop();
}

#[test]
fn a_flood_of_requests_ends_the_connection_within_bounded_memory() {
    let mut rig = Rig::new(6, Faults::default(), ZeroCopyMode::Auto, None);
    let mut peers = [SimPeer::joined(&mut rig)];
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    rig.ring().set_window(peers[0].socket, 0);
    let mut rng = Rng::from_seed(6);
    (0..3000).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    for _ in 0..20_000 {
        rig.run(1);
        if !rig.ring().is_open(peers[0].socket) {
            return rig.stop();
        }
    }
    panic!("the flood was tolerated");
}
