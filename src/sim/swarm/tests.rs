//! Whole swarms, by seed.

use super::*;
use crate::bitfield::Bitfield;
use crate::units::ByteRate;

const SHAPE: ContentShape = ContentShape { piece_length: 64 * 1024, total_len: 40 * 64 * 1024 - 5000 };

fn rate(kilobytes: u64) -> ByteRate {
    ByteRate(kilobytes * 1000)
}

fn seed(up: u64) -> PeerTerms {
    PeerTerms::new(rate(up), Bitfield::all(SHAPE.piece_count()))
}

fn leech(up: u64) -> PeerTerms {
    PeerTerms::new(rate(up), Bitfield::none(SHAPE.piece_count()))
}

fn flash_crowd(leeches: usize) -> Vec<PeerTerms> {
    std::iter::once(seed(1000)).chain((0..leeches).map(|_| leech(500))).collect()
}

fn hour() -> Instant {
    Instant::ZERO + Duration::from_secs(3600)
}

#[test]
fn one_seed_and_one_leech_take_as_long_as_the_line() {
    let mut swarm = Swarm::new(1, SHAPE, Policies::default(), flash_crowd(1));
    assert!(swarm.run_until(hour()), "at {:?} after {}", swarm.now(), swarm.happened());
    let took = swarm.now().as_nanos() as f64 / 1e9;
    let bound = SHAPE.total_len as f64 / 1e6;
    assert!(took > bound && took < bound + 1.5, "{took} against {bound}");
}

#[test]
fn everybody_completes_and_equal_seeds_give_equal_runs() {
    let run = |seed| {
        let mut swarm = Swarm::new(seed, SHAPE, Policies::default(), flash_crowd(12));
        assert!(swarm.run_until(hour()));
        (swarm.trace(), swarm.now(), swarm.happened())
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).0, run(2).0);
}

#[test]
fn two_that_have_everything_part_once_all_is_said() {
    let mut swarm = Swarm::new(1, SHAPE, Policies::default(), flash_crowd(1));
    assert!(swarm.run_until(hour()));
    swarm.run_on(swarm.now() + Duration::from_secs(1));
    assert!(swarm.nodes.iter().all(|node| node.open_slots().is_empty()));
    assert_eq!(swarm.balance().in_flight, 0);
}
