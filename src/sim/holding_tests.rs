//! Peers that ask for much and read nothing: what the worker holds for all of them stays within its budget, and honest peers
//! beside them are served all the same.

use super::rig::{INFO_HASH, PIECE, Rig, SimPeer, until};
use super::ring::Faults;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::PeerId;
use crate::limits::{
    COPIED_LEN_MAX, COPIED_PER_PREFIX_MAX, QUEUED_LEN_MAX, QUEUED_LEN_UNTROUBLED, STANDSTILL_TIME_MIN,
};
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{CryptoMethods, Encryption, Handshake, Message, Reserved, encode};
use std::net::SocketAddr;
use std::os::fd::RawFd;

fn rig(seed: u64) -> Rig {
    Rig::encrypting(seed, Faults::default(), ZeroCopyMode::Always, Encryption::Allow)
}

fn address(network: u8, number: u16) -> SocketAddr {
    SocketAddr::from(([203, 0, network, 1 + (number % 250) as u8], 1000 + number))
}

/// Encrypted peers that are unchoked.
fn encrypted(rig: &mut Rig, addresses: impl Iterator<Item = SocketAddr>) -> Vec<SimPeer> {
    let mut peers: Vec<SimPeer> =
        addresses.map(|address| SimPeer::joined_encrypted_from(rig, address, CryptoMethods::RC4)).collect();
    until(rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    peers
}

/// They ask for all pieces in blocks of this length, and read nothing.
fn ask_and_do_not_read(rig: &mut Rig, peers: &[SimPeer], len: u32) {
    let spans = (0..40).flat_map(|piece| {
        (0..PIECE).step_by(len as usize).map(move |begin| BlockSpan { piece: PieceIndex(piece), begin, len })
    });
    let requests: Vec<_> = spans.map(Message::Request).collect();
    for peer in peers {
        rig.ring().set_window(peer.socket, 0);
        peer.say(rig, &requests);
    }
}

/// The honest peer asks for so many blocks and gets them; how long that took. Something is said at each turn, so that
/// time goes on slowly.
fn serve(rig: &mut Rig, honest: &mut SimPeer, busy: &SimPeer, blocks: usize) -> Duration {
    let (began, mut rng, wanted) = (rig.now(), Rng::from_seed(9), honest.blocks + blocks);
    while honest.blocks < wanted {
        while honest.asked.len() < 40.min(wanted - honest.blocks) {
            honest.ask(rig, &mut rng);
        }
        rig.ring().peer_sends(busy.socket, &[0; 4]);
        rig.run(1);
        honest.read(rig);
        assert!(rig.worker.copied_bytes() <= COPIED_LEN_MAX + 2 * u64::from(BLOCK_LEN));
        assert!(rig.now() < began + Duration::from_secs(60), "{} of {wanted} blocks", honest.blocks);
    }
    rig.now().since(began)
}

fn pass(rig: &mut Rig, time: Duration) {
    let end = rig.now() + time;
    while rig.now() < end {
        rig.run(1);
    }
}

#[test]
fn an_encrypted_peer_is_served_quickly_beside_hundreds_that_do_not_read() {
    for len in [BLOCK_LEN, PIECE] {
        let mut rig = rig(1);
        let busy = SimPeer::joined(&mut rig);
        let mut honest = encrypted(&mut rig, [address(1, 1)].into_iter()).remove(0);
        let alone = serve(&mut rig, &mut honest, &busy, 400);
        // 250 pieces are more than the budget; of blocks of the usual length each holds one, since it has taken nothing.
        let idle = encrypted(&mut rig, (0..250).map(|number| address(2 + (number % 50) as u8, number)));
        ask_and_do_not_read(&mut rig, &idle, len);
        rig.run(400);
        let held = rig.worker.copied_bytes();
        assert!(held >= 250 * u64::from(BLOCK_LEN) && held <= COPIED_LEN_MAX, "{held}");
        let beside = serve(&mut rig, &mut honest, &busy, 400);
        assert!(beside.as_secs_f64() <= 5.0 * alone.as_secs_f64(), "{beside:?} beside {alone:?} alone");
        let mut newcomer = encrypted(&mut rig, [address(100, 1)].into_iter()).remove(0);
        let beside = serve(&mut rig, &mut newcomer, &busy, 400);
        assert!(beside.as_secs_f64() <= 5.0 * alone.as_secs_f64(), "{beside:?} beside {alone:?} alone");
        // One of a network whose share others hold waits until they have stood still for long enough, and no longer.
        let mut newcomer = encrypted(&mut rig, [address(2, 1000)].into_iter()).remove(0);
        let beside = serve(&mut rig, &mut newcomer, &busy, 400);
        assert!(beside <= STANDSTILL_TIME_MIN + Duration::from_secs(2), "{beside:?}");
        rig.stop();
    }
}

#[test]
fn who_waits_for_memory_gets_that_of_those_of_its_own_network_that_have_stood_still_for_longest() {
    let mut rig = rig(2);
    let busy = SimPeer::joined(&mut rig);
    // Pieces, with the headers of their messages.
    let fits = (COPIED_PER_PREFIX_MAX / u64::from(PIECE)) as u16 - 1;
    let first = encrypted(&mut rig, (0..fits).map(|number| address(1, number)));
    let elsewhere = encrypted(&mut rig, [address(2, 1)].into_iter());
    ask_and_do_not_read(&mut rig, &first, PIECE);
    ask_and_do_not_read(&mut rig, &elsewhere, PIECE);
    // Alone they may hold it, as who reads slowly does.
    pass(&mut rig, STANDSTILL_TIME_MIN * 2);
    assert!(first.iter().all(|peer| peer.is_open(&mut rig)));
    let mut honest = encrypted(&mut rig, [address(1, 200)].into_iter()).remove(0);
    let more = encrypted(&mut rig, (100..120).map(|number| address(1, number)));
    ask_and_do_not_read(&mut rig, &more, PIECE);
    rig.run(100);
    let took = serve(&mut rig, &mut honest, &busy, 400);
    assert!(took < Duration::from_secs(3), "{took:?}");
    // As many as it takes, and none of the later ones, which have had less time.
    let gone = first.iter().filter(|peer| !peer.is_open(&mut rig)).count();
    assert!((1..=40).contains(&gone), "{gone} went");
    assert!(more.iter().all(|peer| peer.is_open(&mut rig)));
    assert!(elsewhere[0].is_open(&mut rig));
    rig.stop();
}

#[test]
fn a_peer_that_reads_slowly_keeps_its_connection_while_nobody_needs_the_memory() {
    let mut rig = rig(3);
    let mut slow = encrypted(&mut rig, [address(1, 1)].into_iter());
    slow[0].ask_for_all(&mut rig);
    for _ in 0..20 {
        rig.ring().set_window(slow[0].socket, 0);
        pass(&mut rig, STANDSTILL_TIME_MIN);
        // A send of a quarter of a second's line would be a block.
        assert!(rig.worker.copied_bytes() <= 300 * 1024);
        rig.ring().set_window(slow[0].socket, 1);
        rig.run(2);
        slow[0].read(&mut rig);
    }
    assert!(slow[0].blocks >= 20 && slow[0].is_open(&mut rig));
    rig.ring().set_window(slow[0].socket, usize::MAX);
    until(&mut rig, &mut slow, |_, slow| slow[0].asked.is_empty());
    rig.stop();
}

/// Says hello without the fast extension, and interest.
fn join_without_rejects(rig: &mut Rig, address: SocketAddr) -> RawFd {
    let socket = rig.ring().dial_from(address);
    let mut peer_id = PeerId(*b"-XX0002-000000000000");
    peer_id.0[16..].copy_from_slice(&socket.to_be_bytes());
    let mut reserved = Reserved::OURS;
    reserved.0[7] = 0;
    let mut bytes = Handshake { reserved, info_hash: INFO_HASH, peer_id }.encode().to_vec();
    encode(&Message::Interested, &mut bytes);
    rig.ring().peer_sends(socket, &bytes);
    socket
}

#[test]
fn requests_of_all_that_do_not_read_stay_within_a_bound_and_the_longest_standing_go() {
    let mut rig = rig(4);
    let busy = SimPeer::joined(&mut rig);
    let idle: Vec<RawFd> =
        (0..80).map(|number| join_without_rejects(&mut rig, address((number % 50) as u8, number))).collect();
    rig.run(50);
    // Blocks in an order that makes each of them a run of its own.
    let mut requests = Vec::new();
    for number in 0..4200_u32 {
        let (piece, begin) = (PieceIndex(number % 40), number / 40 % 4 * BLOCK_LEN);
        encode(&Message::Request(BlockSpan { piece, begin, len: BLOCK_LEN }), &mut requests);
    }
    for &socket in &idle {
        rig.ring().set_window(socket, 0);
        rig.ring().peer_sends(socket, &requests);
    }
    let mut honest = encrypted(&mut rig, [address(100, 1)].into_iter()).remove(0);
    let mut most = 0;
    let end = rig.now() + STANDSTILL_TIME_MIN * 4;
    while rig.now() < end {
        rig.run(1);
        most = most.max(rig.worker.queued_bytes());
        // Queues grow by doubling, so each may be twice what it held when it was heard last.
        assert!(most <= 2 * QUEUED_LEN_MAX + idle.len() * QUEUED_LEN_UNTROUBLED, "{most}");
    }
    assert!(most > QUEUED_LEN_MAX / 2, "{most}: this is no flood");
    assert!(rig.worker.queued_bytes() <= QUEUED_LEN_MAX + idle.len() * QUEUED_LEN_UNTROUBLED);
    assert!(idle.iter().any(|&socket| !rig.ring().is_open(socket)), "nobody went");
    serve(&mut rig, &mut honest, &busy, 100);
    rig.stop();
}
