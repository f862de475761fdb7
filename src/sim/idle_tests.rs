//! What torrents cost while nobody asks for them: nothing. Counted in operations and in times that a worker asks to be
//! woken, on a clock of the simulator's.

use super::rig::{INFO_HASH, Rig, SimPeer, seeded, until};
use super::ring::Faults;
use crate::choker::Slots;
use crate::engine::message::ToWorker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::InfoHash;
use crate::limits::IDLE_TIMEOUT;
use crate::time::Duration;
use std::sync::Arc;

const TORRENTS: u16 = 500;
/// Seconds that are counted.
const SECONDS: u64 = 120;

fn info_hash(number: u16) -> InfoHash {
    let mut info_hash = InfoHash([0xee; 20]);
    info_hash.0[..2].copy_from_slice(&number.to_be_bytes());
    info_hash
}

/// A worker with many torrents and without peers.
fn busy_shelf() -> Rig {
    let mut rig = Rig::new(1, Faults::default(), ZeroCopyMode::Auto, None);
    let content = Arc::clone(rig.torrent.content.always_open().expect("the rig opens it once and for all"));
    for number in 0..TORRENTS {
        let torrent = seeded(info_hash(number), Arc::clone(&content), 0, Slots::Auto);
        rig.address.post(ToWorker::Add(torrent)).expect("it is read each turn");
        rig.run(1);
    }
    rig
}

/// Operations and wakeups of so many seconds.
fn count(rig: &mut Rig, seconds: u64) -> (u64, u64) {
    let (pushed, wakeups) = (rig.ring().pushed(), rig.ring().wakeups());
    let end = rig.now() + Duration::from_secs(seconds);
    while rig.now() < end {
        rig.run(1);
    }
    (rig.ring().pushed() - pushed, rig.ring().wakeups() - wakeups)
}

/// Nothing is submitted, and the only timer is the one that looks once a second how busy the core is.
fn assert_idle(rig: &mut Rig) {
    let (pushed, wakeups) = count(rig, SECONDS);
    assert_eq!(pushed, 0);
    assert!(wakeups <= SECONDS, "{wakeups} wakeups in {SECONDS} seconds");
}

#[test]
fn torrents_without_peers_cost_no_operation_and_no_timer() {
    let mut rig = busy_shelf();
    assert_idle(&mut rig);
    rig.stop();
}

#[test]
fn torrents_cost_nothing_any_more_when_their_peers_have_left() {
    let mut rig = busy_shelf();
    for info_hash in (0..TORRENTS).step_by(50).map(info_hash).chain([INFO_HASH]) {
        let mut peers = [SimPeer::joined_to(&mut rig, info_hash)];
        until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
        peers[0].ask_for_all(&mut rig);
        until(&mut rig, &mut peers, |_, peers| peers[0].asked.is_empty());
        rig.ring().peer_closes(peers[0].socket);
        until(&mut rig, &mut peers, |rig, peers| !peers[0].is_open(rig));
    }
    assert_eq!(rig.worker.connection_count(), 0);
    // Timers of who has gone may still run out once.
    count(&mut rig, 2 * IDLE_TIMEOUT.as_secs());
    assert_idle(&mut rig);
    rig.stop();
}
