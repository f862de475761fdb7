//! The production worker and encrypted peers: every policy, every method, faults of the ring, and peers that do not
//! take encryption or only pretend to.

use super::rig::{INFO_HASH, Rig, SimPeer, until};
use super::ring::Faults;
use crate::engine::message::ToWorker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::limits::{ENCRYPTED_BATCH_LEN_MAX, HANDSHAKE_TIMEOUT, MSE_ANSWERS_PER_PREFIX_MAX};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::wire::{CryptoMethods, Encryption, check_prefix};
use std::net::SocketAddr;
use std::os::fd::RawFd;

fn rig(seed: u64, policy: Encryption) -> Rig {
    Rig::encrypting(seed, Faults::default(), ZeroCopyMode::Always, policy)
}

/// All of them are unchoked, ask for so many blocks and get them.
fn serve(rig: &mut Rig, peers: &mut [SimPeer], blocks: usize) {
    until(rig, peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let mut rng = Rng::from_seed(blocks as u64);
    for peer in peers.iter_mut() {
        (0..blocks).for_each(|_| peer.ask(rig, &mut rng));
    }
    until(rig, peers, |_, peers| peers.iter().all(|peer| peer.blocks == blocks));
}

#[test]
fn an_encrypted_peer_is_served_over_a_faulty_ring() {
    for seed in 0..12 {
        let policy = [Encryption::Allow, Encryption::Prefer, Encryption::Require][seed as usize % 3];
        let mut rng = Rng::from_seed(seed);
        let faults = Faults {
            no_buffers: rng.below(300),
            refused_zero_copy: rng.below(500),
            busy_disk: rng.below(300),
            submissions_max: 1 + rng.index(20),
            delay_max: Duration::from_micros(rng.below(3000)),
            ..Faults::default()
        };
        let mut rig = Rig::encrypting(seed, faults, ZeroCopyMode::Always, policy);
        rig.content().evict();
        let mut peers = vec![
            SimPeer::joined_encrypted(&mut rig, CryptoMethods::RC4),
            SimPeer::joined_encrypted(&mut rig, CryptoMethods::BOTH),
        ];
        if policy != Encryption::Require {
            peers.push(SimPeer::joined_encrypted(&mut rig, CryptoMethods::PLAINTEXT));
            peers.push(SimPeer::joined(&mut rig));
        }
        serve(&mut rig, &mut peers, 120);
        let encrypts: Vec<bool> = peers.iter().map(SimPeer::encrypts).collect();
        let expected = [true, policy != Encryption::Allow, false, false];
        assert_eq!(encrypts, expected[..peers.len()], "{policy}");
        rig.stop();
    }
}

#[test]
fn rc4_goes_in_bounded_sends_with_a_copy_and_plaintext_payload_without() {
    for (offered, encrypts) in [(CryptoMethods::RC4, true), (CryptoMethods::BOTH, false)] {
        let mut rig = rig(1, Encryption::Allow);
        let mut peers = [SimPeer::joined_encrypted(&mut rig, offered)];
        serve(&mut rig, &mut peers, 150);
        let statistics = rig.statistics[0].snapshot();
        assert_eq!((peers[0].encrypts(), statistics.zero_copy_sends == 0), (encrypts, encrypts));
        assert!(
            !encrypts || statistics.sends * u64::from(ENCRYPTED_BATCH_LEN_MAX) >= statistics.payload_sent
        );
        rig.stop();
    }
}

#[test]
fn a_policy_refuses_what_it_does_not_take() {
    let mut strict = rig(2, Encryption::Require);
    let mut peers = [
        SimPeer::joined(&mut strict),
        SimPeer::joined_encrypted(&mut strict, CryptoMethods::PLAINTEXT),
        SimPeer::joined_encrypted(&mut strict, CryptoMethods::RC4),
    ];
    until(&mut strict, &mut peers, |rig, peers| !peers[2].choked && rig.worker.connection_count() == 1);
    assert_eq!(strict.statistics[0].snapshot().peer_faults, 2);
    assert!(peers[0].handshake.is_empty(), "who speaks plaintext learns nothing");
    strict.stop();

    let mut plain = rig(3, Encryption::Off);
    let mut peers = [SimPeer::joined_encrypted(&mut plain, CryptoMethods::BOTH), SimPeer::joined(&mut plain)];
    until(&mut plain, &mut peers, |rig, peers| !peers[1].choked && rig.worker.connection_count() == 1);
    plain.stop();
}

#[test]
fn noise_is_never_answered_beyond_one_key_and_ends_soon() {
    let mut rig = rig(4, Encryption::Allow);
    let mut rng = Rng::from_seed(4);
    for len in [1, 95, 96, 500, 627, 628, 5000] {
        let socket = rig.ring().dial();
        let mut noise = vec![0; len];
        rng.fill(&mut noise);
        rig.ring().peer_sends(socket, &noise);
        rig.run(20);
        let answer = rig.ring().peer_reads(socket);
        let answered = (96..628).contains(&len);
        assert!(if answered { (96..=608).contains(&answer.len()) } else { answer.is_empty() }, "{len}");
        assert_eq!(rig.ring().is_open(socket), len < 628, "{len} bytes of noise");
    }
    let end = rig.now() + HANDSHAKE_TIMEOUT;
    until(&mut rig, &mut [], |rig, _| rig.now() > end && rig.worker.connection_count() == 0);
    rig.stop();
}

fn call(rig: &mut Rig) -> RawFd {
    rig.address.post(ToWorker::Connect(INFO_HASH, "10.0.0.9:6881".parse().expect("an address"))).unwrap();
    rig.run(4);
    rig.ring().called()[0]
}

#[test]
fn a_peer_that_is_called_encrypted_and_takes_it_is_served() {
    for policy in [Encryption::Prefer, Encryption::Require] {
        let mut rig = rig(5, policy);
        let mut peers = {
            let socket = call(&mut rig);
            [SimPeer::on(&rig, socket)]
        };
        peers[0].takes_encryption(policy);
        peers[0].introduce(&mut rig);
        serve(&mut rig, &mut peers, 50);
        assert!(peers[0].encrypts());
        assert_eq!(rig.ring().called().len(), 1);
        rig.stop();
    }
}

#[test]
fn a_peer_that_ends_an_encrypted_call_is_called_once_more_in_plaintext() {
    let mut rig = rig(6, Encryption::Prefer);
    let first = call(&mut rig);
    let hello = rig.ring().peer_reads(first);
    assert!(hello.len() >= 96 && check_prefix(&hello).is_err());
    rig.ring().peer_closes(first);
    rig.run(10);
    assert_eq!(rig.ring().called().len(), 2);
    let second = rig.ring().called()[1];
    let mut peers = [SimPeer::on(&rig, second)];
    peers[0].introduce(&mut rig);
    serve(&mut rig, &mut peers, 20);
    rig.ring().peer_closes(second);
    until(&mut rig, &mut peers, |rig, _| rig.worker.connection_count() == 0);
    rig.run(20);
    assert_eq!(rig.ring().called().len(), 2, "nobody is called a third time");
    rig.stop();
}

#[test]
fn a_peer_that_ends_a_plaintext_call_is_called_once_more_encrypted() {
    let mut rig = rig(9, Encryption::Allow);
    let first = call(&mut rig);
    assert!(check_prefix(&rig.ring().peer_reads(first)).is_ok());
    rig.ring().peer_closes(first);
    rig.run(10);
    let second = rig.ring().called()[1];
    let mut peers = [SimPeer::on(&rig, second)];
    peers[0].takes_encryption(Encryption::Require);
    peers[0].introduce(&mut rig);
    serve(&mut rig, &mut peers, 20);
    assert!(peers[0].encrypts());
    rig.stop();
}

/// The peer called first says nothing, to whatever it is called with, and closes nothing.
#[test]
fn a_peer_that_is_silent_to_one_handshake_is_called_the_other_way_once() {
    for (policy, next) in [
        (Encryption::Allow, Some("encrypted")),
        (Encryption::Prefer, Some("plain")),
        (Encryption::Off, None),
        (Encryption::Require, None),
    ] {
        let mut rig = rig(10, policy);
        let first = call(&mut rig);
        let end = rig.now() + HANDSHAKE_TIMEOUT;
        until(&mut rig, &mut [], |rig, _| rig.now() > end && !rig.ring().is_open(first));
        rig.run(20);
        let calls = rig.ring().called().to_vec();
        let spoken = calls.get(1).map(|&second| {
            let hello = rig.ring().peer_reads(second);
            if check_prefix(&hello).is_ok() { "plain" } else { "encrypted" }
        });
        assert_eq!(spoken, next, "{policy}");
        let Some(&second) = calls.get(1) else { continue };
        // Silent again, in the middle of a handshake or before it: nobody is called a third time.
        if policy == Encryption::Allow {
            rig.ring().peer_sends(second, &[7; 100]);
        }
        let end = rig.now() + HANDSHAKE_TIMEOUT;
        until(&mut rig, &mut [], |rig, _| rig.now() > end && rig.worker.connection_count() == 0);
        rig.run(20);
        assert_eq!(rig.ring().called().len(), 2, "{policy}");
        rig.stop();
    }
}

#[test]
fn a_strict_caller_does_not_fall_back_to_plaintext() {
    let mut rig = rig(7, Encryption::Require);
    let first = call(&mut rig);
    rig.ring().peer_closes(first);
    until(&mut rig, &mut [], |rig, _| rig.worker.connection_count() == 0);
    rig.run(20);
    assert_eq!(rig.ring().called().len(), 1);
    rig.stop();
}

#[test]
fn a_call_that_nobody_takes_is_not_repeated() {
    for policy in [Encryption::Allow, Encryption::Prefer] {
        let faults = Faults { refused_connects: 1000, ..Faults::default() };
        let mut rig = Rig::encrypting(8, faults, ZeroCopyMode::Never, policy);
        call(&mut rig);
        rig.run(50);
        assert_eq!((rig.ring().called().len(), rig.worker.connection_count()), (1, 0));
        rig.stop();
    }
}

#[test]
fn keys_beyond_a_networks_share_wait_and_nobody_else_does() {
    const SHARE: usize = MSE_ANSWERS_PER_PREFIX_MAX as usize;
    let mut rig = rig(6, Encryption::Allow);
    let address = |number: u8| SocketAddr::from(([203, 0, 113, number], 1000));
    let busy = SimPeer::joined(&mut rig);
    let flood: Vec<RawFd> = (0..100).map(|number| rig.ring().dial_from(address(number))).collect();
    flood.iter().for_each(|&socket| rig.ring().peer_sends(socket, &[0x55; 96]));
    let mut answered = 0;
    let mut count = |rig: &mut Rig| {
        answered += flood.iter().filter(|&&socket| !rig.ring().peer_reads(socket).is_empty()).count();
        answered
    };
    let began = rig.now();
    for _ in 0..400 {
        rig.run(1);
        count(&mut rig);
        // Somebody always says something, so that time goes on slowly.
        rig.ring().peer_sends(busy.socket, &[0; 4]);
    }
    assert!(rig.worker.backlog_bytes() >= 100 - SHARE);
    assert!(rig.now() < began + Duration::from_millis(900));
    assert_eq!(count(&mut rig), SHARE);
    // Plaintext of the same network, and encryption of another.
    let mut others = [
        SimPeer::joined_from(&mut rig, address(200)),
        SimPeer::joined_encrypted(&mut rig, CryptoMethods::RC4),
    ];
    while others.iter().any(|peer| peer.choked) {
        rig.run(1);
        others.iter_mut().for_each(|peer| peer.read(&mut rig));
    }
    assert!(rig.now() < began + Duration::from_millis(950));
    serve(&mut rig, &mut others, 20);
    while count(&mut rig) < 100 {
        rig.run(1);
    }
    assert!(rig.now() < began + Duration::from_secs(4));
    assert_eq!(rig.worker.backlog_bytes(), 0);
    rig.stop();
}

/// Ten thousand connections a second, each with a public key and no more, from so many networks.
struct KeyFlood {
    networks: u32,
    began: Instant,
    sent: u32,
}

impl KeyFlood {
    const PER_SECOND: u64 = 10_000;

    fn pass(&mut self, rig: &mut Rig, until: Instant) {
        while rig.now() < until {
            self.turn(rig);
        }
    }

    fn turn(&mut self, rig: &mut Rig) {
        let due = rig.now().since(self.began).as_micros() as u64 * Self::PER_SECOND / 1_000_000;
        while u64::from(self.sent) < due {
            self.sent += 1;
            let [_, _, high, low] = (self.sent % self.networks).to_be_bytes();
            let address = SocketAddr::from(([20, high, low, self.sent as u8], 1000));
            let socket = rig.ring().dial_from(address);
            rig.ring().peer_sends(socket, &[0x55; 96]);
        }
        rig.run(1);
    }
}

#[test]
fn a_flood_of_keys_keeps_neither_encrypted_nor_plaintext_peers_out() {
    for networks in [20, 200] {
        // Half of these may be half open: a twentieth of a second's newcomers.
        let faults = Faults { connections_max: 1000, ..Faults::default() };
        let mut rig = Rig::encrypting(11, faults, ZeroCopyMode::Always, Encryption::Allow);
        let mut flood = KeyFlood { networks, began: rig.now(), sent: 0 };
        let mut until = rig.now() + Duration::from_millis(600);
        flood.pass(&mut rig, until);
        for round in 0..2 {
            let came = rig.now();
            let address = |number: u8| SocketAddr::from(([198, 51, 100 + number, round], 1000));
            let mut honest = [
                SimPeer::joined_from(&mut rig, address(1)),
                SimPeer::joined_encrypted_from(&mut rig, address(2), CryptoMethods::RC4),
            ];
            while honest.iter().any(|peer| peer.choked) {
                flood.turn(&mut rig);
                honest.iter_mut().for_each(|peer| peer.read(&mut rig));
                let took = rig.now().since(came);
                assert!(took < Duration::from_secs(2), "{networks} networks, round {round}: {took:?}");
            }
            until += Duration::from_millis(400);
            flood.pass(&mut rig, until);
        }
        let statistics = rig.statistics[0].snapshot();
        assert!(statistics.half_open <= 500);
        rig.stop();
    }
}
