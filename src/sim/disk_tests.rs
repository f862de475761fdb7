//! Disks that fail under the production workers, and workers that stop at any write and come back: nothing wrong is
//! sent, nothing is offered that is not stored, and whoever can goes on.

use super::giver::Manner;
use super::leech_rig::{LeechRig, PIECES};
use super::rig::{INFO_HASH, Rig, SimPeer};
use super::ring::Faults;
use crate::bitfield::Bitfield;
use crate::engine::message::EngineEvent;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::rng::Rng;
use crate::time::Duration;

/// Whatever read it is that fails: the torrent fails once and says why, its connections end, and no byte was wrong, for
/// the peers compare them.
#[test]
fn a_disk_that_fails_at_any_read_ends_the_torrent_once() {
    for seed in 0..40 {
        let mut rng = Rng::from_seed(seed);
        let faults = Faults {
            slow_disk: Duration::from_millis(rng.below(50)),
            busy_disk: rng.below(200),
            ..Faults::drawn(&mut rng)
        };
        let mut rig =
            Rig::new(seed, Faults { resets: 0, short_sends: 0, ..faults }, ZeroCopyMode::Auto, None);
        rig.content().evict();
        let mut peers: Vec<SimPeer> = (0..3).map(|_| SimPeer::joined(&mut rig)).collect();
        for _ in 0..2000 {
            rig.run(1);
            peers.iter_mut().for_each(|peer| peer.read(&mut rig));
            if peers.iter().all(|peer| !peer.choked) {
                break;
            }
        }
        rig.ring().faults.broken_disk = 1 + rng.below(300);
        peers.iter_mut().for_each(|peer| peer.ask_for_all(&mut rig));
        let mut failed = 0;
        for _ in 0..20_000 {
            rig.run(1);
            peers.iter_mut().for_each(|peer| peer.read(&mut rig));
            while let Ok(event) = rig.events.try_recv() {
                if let EngineEvent::TorrentFailed { torrent, reason } = event {
                    assert_eq!((torrent, reason.as_str()), (INFO_HASH, "errno 5"), "seed {seed}");
                    failed += 1;
                }
            }
            let open = peers.iter().filter(|peer| peer.is_open(&mut rig)).count();
            if open == 0 || peers.iter().all(|peer| peer.asked.is_empty()) {
                break;
            }
        }
        let unserved = peers.iter().filter(|peer| !peer.asked.is_empty()).count();
        assert_eq!(failed, usize::from(unserved > 0), "seed {seed}: {unserved} peers were not served");
        rig.stop();
    }
}

/// EIO, ENOSPC, EROFS and a quota, each on whatever write: all of it is tried again, and nothing is lost or told early.
#[test]
fn writes_that_fail_for_whatever_reason_are_repeated_until_all_is_stored() {
    for seed in 0..20 {
        let mut rig = LeechRig::new(seed, Faults::default(), 1 + seed as usize % 2);
        rig.truth.sink.set_failing(300);
        rig.arrive(Manner { asks: 100, ..Manner::default() }, Bitfield::all(PIECES));
        rig.arrive(Manner { asks: 500, ..Manner::default() }, Bitfield::none(PIECES));
        rig.complete();
        assert_eq!(rig.refused, rig.recovered, "each refusal ends");
        rig.stop();
    }
}

/// The workers stop at the k-th write, for each k, whatever they were doing. In their next life they know what the
/// resume file names, which is what was stored when it was written, the last pieces perhaps not among it.
#[test]
fn whoever_stops_at_any_write_offers_what_is_stored_and_completes_in_its_next_life() {
    for write in 0..PIECES {
        let mut rng = Rng::from_seed(u64::from(write));
        let (seed, workers) = (rng.below(1000), 1 + rng.index(2));
        let faults = Faults { delay_max: Duration::from_micros(rng.below(3000)), ..Faults::default() };
        let mut named = Bitfield::none(PIECES);
        let mut lives = 0;
        while !named.is_full() && lives < 3 {
            let mut rig = LeechRig::resumed(seed + lives, faults, workers, 64, named.clone());
            rig.storage_answers = 200;
            rig.arrive(Manner { asks: 100, answers: 300, ..Manner::default() }, Bitfield::all(PIECES));
            rig.arrive(Manner { asks: 900, ..Manner::default() }, Bitfield::none(PIECES));
            let more = (write as usize).min((PIECES - named.count()) as usize);
            rig.until(|rig| rig.truth.sink.stored() >= more);
            let stored = rig.truth.sink.pieces();
            // Nothing is said or put in order any more.
            drop(rig);
            let lag = rng.index(stored.len() + 1) / 2;
            stored.iter().take(stored.len() - lag).for_each(|&piece| _ = named.insert(piece));
            lives += 1;
        }
        if named.is_full() {
            continue;
        }
        let mut rig = LeechRig::resumed(seed, faults, workers, 64, named.clone());
        rig.arrive(Manner { asks: 900, ..Manner::default() }, named);
        rig.arrive(Manner { asks: 100, ..Manner::default() }, Bitfield::all(PIECES));
        rig.complete();
        rig.stop();
    }
}
