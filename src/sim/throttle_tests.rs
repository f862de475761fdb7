//! Two torrents under one limit of the process, one of them with a limit of its own: what a block was charged to that, and
//! did not leave after all, is not lost to those who wait for it.

use super::rig::{INFO_HASH, Rig, SimPeer, seeded, until};
use super::ring::Faults;
use crate::choker::Slots;
use crate::engine::message::ToWorker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::InfoHash;
use crate::pipeline::burst_for;
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::{BLOCK_LEN, ByteRate};
use crate::wire::Message;
use std::sync::Arc;

const OTHER: InfoHash = InfoHash([8; 20]);
const OF_PROCESS: ByteRate = ByteRate(2_000_000);
const OF_TORRENT: ByteRate = ByteRate(250_000);
const PEERS_OF_OTHER: usize = 8;

/// What those do who keep asking and take nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Churn {
    Nothing,
    /// They take their request back, and ask for another block.
    Cancels,
    /// They take their request back, and ask again when they have been woken in vain.
    PausesAfterCancel,
}

fn two_torrents(of_process: ByteRate) -> Rig {
    let mut rig = Rig::new(1, Faults::default(), ZeroCopyMode::Never, Some(of_process));
    let content = Arc::clone(rig.content());
    rig.address
        .post(ToWorker::Add(seeded(OTHER, content, 0, Slots::Fixed(50))))
        .expect("it is read each turn");
    rig.run(3);
    rig
}

/// Bytes a second that an honest peer gets of the torrent with a limit of its own, beside churners of that torrent, while
/// peers of another one use up what the process may send.
fn rate_beside(churn: Churn) -> u64 {
    let mut rig = two_torrents(OF_PROCESS);
    let now = rig.now();
    rig.torrent.gate.set_limit(now, Some(OF_TORRENT), burst_for(Some(OF_TORRENT)));
    let mut rng = Rng::from_seed(1);
    // The honest one first, then those of the other torrent, then the churners.
    let mut peers = vec![SimPeer::joined_to(&mut rig, INFO_HASH)];
    peers.extend((0..PEERS_OF_OTHER).map(|_| SimPeer::joined_to(&mut rig, OTHER)));
    let churners = match churn {
        Churn::Nothing => 0,
        Churn::Cancels | Churn::PausesAfterCancel => 8,
    };
    peers.extend((0..churners).map(|_| SimPeer::joined_to(&mut rig, INFO_HASH)));
    until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
    let (began, before) = (rig.now(), peers[0].blocks);
    let end = began + Duration::from_secs(4);
    for turn in 0_u64.. {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.read(&mut rig);
            let is_churner = number > PEERS_OF_OTHER;
            if !is_churner {
                while !peer.choked && peer.asked.len() < 30 {
                    peer.ask(&mut rig, &mut rng);
                }
                continue;
            }
            match (churn, peer.asked.last().copied()) {
                (Churn::Cancels | Churn::PausesAfterCancel, Some(span)) => {
                    peer.say(&mut rig, &[Message::Cancel(span)]);
                }
                (Churn::PausesAfterCancel, None) if !turn.is_multiple_of(5) => {}
                (_, None) if !peer.choked => peer.ask(&mut rig, &mut rng),
                _ => {}
            }
        }
        rig.run(1);
        if rig.now() >= end {
            break;
        }
    }
    let seconds = rig.now().since(began).as_secs();
    let taken = (peers[0].blocks - before) as u64 * u64::from(BLOCK_LEN);
    peers.iter().for_each(|peer| rig.ring().peer_closes(peer.socket));
    rig.stop();
    taken / seconds
}

#[test]
fn what_was_charged_for_blocks_that_do_not_leave_pays_for_others() {
    let alone = rate_beside(Churn::Nothing);
    assert!(alone > 100_000, "{alone} B/s");
    for churn in [Churn::Cancels, Churn::PausesAfterCancel] {
        let beside = rate_beside(churn);
        assert!(beside * 2 > alone, "{churn:?}: {beside} of {alone} B/s");
    }
}

/// Whether a block may leave as far as the torrent's own limit goes.
fn has_room(rig: &mut Rig) -> bool {
    let now = rig.now();
    let has_room = rig.torrent.gate.try_take(now, BLOCK_LEN).is_ok();
    if has_room {
        rig.torrent.gate.give_back(BLOCK_LEN.into());
    }
    has_room
}

#[test]
fn what_was_charged_for_a_block_is_given_back_when_its_peer_leaves_or_no_longer_wants_it() {
    for leaves in [true, false] {
        let mut rig = two_torrents(ByteRate(100_000));
        // One block is all that the torrent may send, for the next hours.
        let now = rig.now();
        rig.torrent.gate.set_limit(now, Some(ByteRate(1)), BLOCK_LEN.into());
        let mut rng = Rng::from_seed(1);
        let mut peers: Vec<SimPeer> =
            (0..PEERS_OF_OTHER).map(|_| SimPeer::joined_to(&mut rig, OTHER)).collect();
        peers.push(SimPeer::joined_to(&mut rig, INFO_HASH));
        until(&mut rig, &mut peers, |_, peers| peers.iter().all(|peer| !peer.choked));
        for peer in &mut peers[..PEERS_OF_OTHER] {
            (0..200).for_each(|_| peer.ask(&mut rig, &mut rng));
        }
        rig.run(20);
        assert!(has_room(&mut rig));
        peers[PEERS_OF_OTHER].ask(&mut rig, &mut rng);
        until(&mut rig, &mut peers, |rig, _| !has_room(rig));
        assert_eq!(peers[PEERS_OF_OTHER].blocks, 0, "it is charged, and waits for the limit of the process");
        if leaves {
            rig.ring().peer_closes(peers[PEERS_OF_OTHER].socket);
        } else {
            let span = peers[PEERS_OF_OTHER].asked[0];
            peers[PEERS_OF_OTHER].say(&mut rig, &[Message::Cancel(span)]);
        }
        until(&mut rig, &mut peers, |rig, _| has_room(rig));
        assert_eq!(peers[PEERS_OF_OTHER].blocks, 0);
        peers.iter().for_each(|peer| rig.ring().peer_closes(peer.socket));
        rig.stop();
    }
}
