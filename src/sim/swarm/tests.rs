//! Whole swarms, by seed.

use super::*;
use crate::bitfield::Bitfield;
use crate::choker::Slots;
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

/// Seconds that a download from one seed takes beside so many that pretend to be seeds.
fn time_beside(pretenders: usize, manner: Manner) -> f64 {
    time_from(1000, 30, pretenders, manner, 1000)
}

/// Seconds that a download of `secs` seconds from a seed of `up` kB/s takes beside so many others of `their_up`.
fn time_from(up: u64, secs: u64, others: usize, manner: Manner, their_up: u64) -> f64 {
    let shape = ContentShape { piece_length: 256 * 1024, total_len: secs * 1000 * up };
    let all = |up| PeerTerms::new(rate(up), Bitfield::all(shape.piece_count()));
    let mut peers = vec![all(up), PeerTerms::new(rate(100), Bitfield::none(shape.piece_count()))];
    // A block may leave before it is paid for, so that slow ones look fast at first.
    let burst = Duration::from_millis(if their_up < 100 { 1_700 } else { 0 });
    peers.extend((0..others).map(|_| PeerTerms { manner, burst, ..all(their_up) }));
    let mut swarm = Swarm::new(1, shape, Policies::default(), peers);
    assert!(swarm.run_until(hour()), "with {others}");
    swarm.now().as_nanos() as f64 / 1e9
}

#[test]
fn many_that_take_requests_and_give_nothing_hardly_slow_a_download_from_one_seed() {
    let alone = time_beside(0, Manner::Honest);
    for manner in [Manner::Deserter, Manner::Staller] {
        for pretenders in [5, 20, 60] {
            let took = time_beside(pretenders, manner);
            assert!(took <= 1.5 * alone, "{took} s beside {pretenders} of {manner:?}, {alone} s alone");
        }
    }
}

#[test]
fn many_that_give_a_block_now_and_then_hardly_slow_a_download_from_one_fast_seed() {
    let alone = time_from(16_000, 4, 0, Manner::Honest, 0);
    for (drips, theirs) in [(5, 10), (10, 10), (15, 10), (60, 10), (60, 3), (60, 40)] {
        let took = time_from(16_000, 4, drips, Manner::Honest, theirs);
        assert!(took <= 1.2 * alone, "{took} s beside {drips} of {theirs} kB/s, {alone} s alone");
    }
}

/// Seconds that two honest leeches, which come a moment after the others, need to get everything of a seed.
fn time_of_two_beside(others: usize, manner: Manner, super_seed: bool) -> f64 {
    let shape = ContentShape { piece_length: 64 * 1024, total_len: 300 * 64 * 1024 };
    let peer = |up| PeerTerms::new(rate(up), Bitfield::none(shape.piece_count()));
    let come = Instant::ZERO + Duration::from_secs(2);
    let mut peers = vec![PeerTerms::new(rate(500), Bitfield::all(shape.piece_count()))];
    peers.extend((0..2).map(|_| PeerTerms { arrives: come, ..peer(500) }));
    peers.extend((0..others).map(|_| PeerTerms { manner, ..peer(500) }));
    let policies =
        Policies { super_seed, seed_slots: Slots::Auto, connections_max: 400, ..Policies::default() };
    let mut swarm = Swarm::new(1, shape, policies, peers);
    let mut until = come;
    let done = |swarm: &Swarm| swarm.outcomes().skip(1).take(2).all(|leech| leech.completed_at.is_some());
    while !done(&swarm) && until < come + Duration::from_secs(600) {
        until += Duration::from_millis(100);
        swarm.run_on(until);
    }
    until.since(come).as_secs_f64()
}

#[test]
fn who_asks_for_nothing_keeps_nothing_of_a_super_seed_from_others() {
    let alone = time_of_two_beside(0, Manner::Honest, true);
    for others in [5, 40, 120] {
        // What is lost is lost between the two: each has others that want its slots.
        let took = time_of_two_beside(others, Manner::Idler, true);
        assert!(took <= 2.0 * alone, "{took} s beside {others}, {alone} s alone");
    }
}

#[test]
fn who_takes_and_passes_nothing_on_keeps_no_more_of_a_super_seed_than_of_another() {
    for others in [10, 20] {
        let plain = time_of_two_beside(others, Manner::Mute, false);
        let took = time_of_two_beside(others, Manner::Mute, true);
        assert!(took <= 1.5 * plain, "{took} s beside {others}, {plain} s of a seed that shows all");
    }
}
