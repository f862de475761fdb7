//! What connections wait for is what holds them up: a peer that does not read, a limit, a choke, a disk.

use super::rig::{Rig, SimPeer, until};
use super::ring::Faults;
use crate::attribution::{Cause, WaitTimes};
use crate::engine::zero_copy::ZeroCopyMode;
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::ByteRate;
use std::sync::atomic::Ordering::Relaxed;

/// Time that each test lets pass, and the least that its cause must have of it.
const TIME: Duration = Duration::from_secs(20);
const LEAST: Duration = Duration::from_secs(15);

fn rig_of(seed: u64, limit: Option<ByteRate>) -> Rig {
    Rig::new(seed, Faults::default(), ZeroCopyMode::Never, limit)
}

fn pass(rig: &mut Rig, peers: &mut [SimPeer]) {
    let began = rig.now();
    until(rig, peers, |rig, _| rig.now() > began + TIME);
}

fn unchoked(rig: &mut Rig) -> [SimPeer; 1] {
    let mut peers = [SimPeer::joined(rig)];
    until(rig, &mut peers, |_, peers| !peers[0].choked);
    peers
}

/// Ends the rig; `cause` has most of the time, and worker and torrent tell the same.
fn assert_waited(rig: Rig, cause: Cause) -> WaitTimes {
    let (statistics, torrent) = (rig.statistics.clone(), rig.torrent.clone());
    rig.stop();
    let waited = statistics[0].snapshot().waited();
    assert!(waited.of(cause) >= LEAST.as_nanos() as u64, "{waited:?}");
    assert!(waited.of(cause) > waited.total() / 10 * 9, "{waited:?}");
    assert_eq!(torrent.counts.waited.times(), waited);
    waited
}

#[test]
fn a_peer_that_does_not_read_waits_for_its_window() {
    let mut rig = rig_of(1, None);
    let mut peers = unchoked(&mut rig);
    rig.ring().set_window(peers[0].socket, 0);
    let mut rng = Rng::from_seed(1);
    (0..50).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    pass(&mut rig, &mut peers);
    rig.ring().set_window(peers[0].socket, usize::MAX);
    assert_waited(rig, Cause::Window);
}

#[test]
fn a_peer_within_a_limit_waits_for_the_limit() {
    let mut rig = rig_of(2, Some(ByteRate(500_000)));
    let mut peers = unchoked(&mut rig);
    let mut rng = Rng::from_seed(2);
    (0..900).for_each(|_| peers[0].ask(&mut rig, &mut rng));
    pass(&mut rig, &mut peers);
    assert_waited(rig, Cause::Limit);
}

#[test]
fn an_interested_peer_without_a_slot_waits_for_the_choker() {
    let mut rig = rig_of(3, None);
    let mut peers: Vec<SimPeer> = (0..200).map(|_| SimPeer::joined(&mut rig)).collect();
    pass(&mut rig, &mut peers);
    let choked = peers.iter().filter(|peer| peer.choked).count() as u64;
    let waited = rig.statistics[0].snapshot().waited();
    assert!(choked >= 100, "{choked}");
    assert!(waited.of(Cause::Choke) > waited.of(Cause::Asking), "{waited:?}");
    assert_eq!(waited.total(), waited.of(Cause::Choke) + waited.of(Cause::Asking), "{waited:?}");
    rig.stop();
}

#[test]
fn a_peer_that_asks_for_what_the_disk_does_not_give_waits_for_the_disk() {
    let mut rig = rig_of(4, None);
    let mut peers = unchoked(&mut rig);
    rig.content().evict();
    rig.ring().faults.busy_disk = 1000;
    rig.ring().faults.delay_max = Duration::from_millis(20);
    let mut rng = Rng::from_seed(4);
    peers[0].ask(&mut rig, &mut rng);
    pass(&mut rig, &mut peers);
    // A disk that says it is short of memory is not asked without a pause, and not given up.
    let tries = rig.statistics[0].snapshot().cold_fetches;
    assert!((8..20).contains(&tries), "{tries} tries");
    rig.ring().faults.busy_disk = 0;
    until(&mut rig, &mut peers, |_, peers| peers[0].blocks == 1);
    assert_eq!(rig.statistics[0].histograms().cold_fetch_nanos.count(), 1);
    assert_waited(rig, Cause::Disk);
}

#[test]
fn an_unchoked_peer_that_asks_for_nothing_waits_for_itself() {
    let mut rig = rig_of(5, None);
    let mut peers = unchoked(&mut rig);
    pass(&mut rig, &mut peers);
    assert_waited(rig, Cause::Asking);
}

#[test]
fn a_peer_that_has_left_waits_for_nothing() {
    let mut rig = rig_of(6, None);
    let mut peers = unchoked(&mut rig);
    rig.ring().peer_closes(peers[0].socket);
    until(&mut rig, &mut peers, |rig, _| rig.torrent.counts.connections.load(Relaxed) == 0);
    let waited = rig.statistics[0].snapshot().waited();
    pass(&mut rig, &mut []);
    assert_eq!(rig.statistics[0].snapshot().waited(), waited);
    rig.stop();
}

#[test]
fn requests_are_timed_until_their_blocks_have_gone() {
    let mut rig = rig_of(7, None);
    let mut peers = unchoked(&mut rig);
    let mut rng = Rng::from_seed(7);
    for _ in 0..20 {
        (0..10).for_each(|_| peers[0].ask(&mut rig, &mut rng));
        until(&mut rig, &mut peers, |_, peers| peers[0].asked.is_empty());
    }
    let histograms = rig.statistics[0].histograms();
    let (requests, batches) = (histograms.request_nanos, histograms.send_batch_bytes);
    assert!(requests.count() >= 20 && requests.summary().max < 100_000_000, "{:?}", requests.summary());
    assert_eq!(batches.sum(), rig.statistics[0].snapshot().payload_sent);
    assert!(histograms.turn_nanos.count() > 20 && histograms.entry_nanos.count() > 20);
    rig.stop();
}
