//! What the literature says of swarms like ours, in small: the laboratory must show it with every change of a policy. Larger
//! runs, with the figures of the papers beside ours, are under `benches/record`.

use super::bounds::Fluid;
use super::distribute::{PeerClass, Question};
use super::observe::{End, GroupReport, Observation};
use super::scenario::{Crowd, Scenario, Stay};
use crate::picker::Order;
use crate::sim::swarm::Policies;
use crate::time::Duration;
use crate::units::ByteRate;
use std::sync::atomic::AtomicBool;

const BLOCK: u64 = 16 * 1024;

fn crowd(scenario: Scenario, peers: u32, pieces: u32) -> Crowd {
    let crowd = scenario.crowd(u64::from(pieces) * BLOCK, ByteRate(40_000), ByteRate(10_000), peers);
    Crowd { pieces, ..crowd }
}

fn observe(crowd: &Crowd, policies: Policies, seed: u64) -> Observation {
    let run = Observation::of(crowd, policies, seed, &AtomicBool::new(false), |_| {});
    assert_eq!(run.end, End::Complete, "seed {seed} of {crowd:?}");
    run
}

fn product() -> Policies {
    Policies { seed_slots: crate::choker::Slots::Auto, ..Policies::default() }
}

fn group<'a>(run: &'a Observation, name: &str) -> &'a GroupReport {
    run.groups.iter().find(|group| group.name == name).unwrap()
}

#[test]
fn rarest_first_keeps_the_rarest_piece_near_the_mean_and_other_orders_do_not() {
    // Legout, Urvoy-Keller and Michiardi, IMC 2006.
    let mut crowd = crowd(Scenario::FlashCrowd, 12, 240);
    crowd.seed_up = ByteRate(120_000);
    let near = |order| {
        let run = observe(&crowd, Policies { order, ..product() }, 1);
        (run.rarest_to_mean.unwrap(), run.twice_at.unwrap())
    };
    let (rarest, random, sequential) =
        (near(Order::RarestFirst), near(Order::Random), near(Order::Sequential));
    assert!(
        rarest.0 > 1.5 * random.0 && rarest.0 > 2.0 * sequential.0,
        "{rarest:?} {random:?} {sequential:?}"
    );
    assert!(
        rarest.1 < 0.7 * random.1 && rarest.1 < 0.3 * sequential.1,
        "{rarest:?} {random:?} {sequential:?}"
    );
}

#[test]
fn whoever_gives_nothing_waits_longer() {
    // Legout, Liogkas, Kohler and Zhang, SIGMETRICS 2007.
    let run = observe(&crowd(Scenario::FreeRiders, 20, 240), product(), 1);
    let (givers, riders) = (group(&run, "peers").median.unwrap(), group(&run, "free-riders").median.unwrap());
    assert!(riders > 1.2 * givers, "{riders} against {givers}");
}

#[test]
fn fast_peers_trade_with_fast_peers() {
    // The same. How much more than at random is left to chance in so small a crowd, so three are asked.
    let more = |seed| {
        let run = observe(&crowd(Scenario::Classes, 20, 240), product(), seed);
        let fast = group(&run, "fast");
        assert!(fast.median < group(&run, "slow").median);
        fast.from_own.unwrap() - fast.from_own_at_random.unwrap()
    };
    let found: Vec<f64> = (1..=3).map(more).collect();
    assert!(found.iter().sum::<f64>() / 3.0 > 0.06, "{found:?}");
}

#[test]
fn leeches_of_a_flash_crowd_use_nine_tenths_of_their_uplinks() {
    // Bharambe, Herley and Padmanabhan, INFOCOM 2006.
    let run = observe(&crowd(Scenario::FlashCrowd, 16, 160), product(), 1);
    let uplinks = run.uplinks.unwrap();
    assert!((0.9..=1.0).contains(&uplinks), "{uplinks}");
}

#[test]
fn a_swarm_takes_less_than_a_server_and_grows_slower_than_its_peers() {
    // Yang and de Veciana, INFOCOM 2004; Kumar and Ross 2006.
    let class = PeerClass { name: "peers".into(), share: 1, up: ByteRate(160_000), down: None };
    let question = Question {
        // Pieces are as long as the product makes them: 48.
        size: 48 * 16 * BLOCK,
        server_up: ByteRate(640_000),
        classes: vec![class],
        delay: Duration::from_millis(10),
        bursts: false,
    };
    let time = |peers| {
        let run = question.simulate(peers, 1, product(), &AtomicBool::new(false)).unwrap();
        (run.slowest.unwrap(), question.fluid(peers).client_server().unwrap().as_secs_f64())
    };
    let (few, many) = (time(6), time(24));
    assert!(few.0 < few.1 && many.0 < many.1, "{few:?} {many:?}");
    // Four times the peers.
    assert!(many.0 < 2.0 * few.0, "{few:?} {many:?}");
}

#[test]
fn equal_seeds_give_equal_traces_in_every_scenario() {
    for scenario in Scenario::ALL {
        let crowd = crowd(scenario, 6, 12);
        let run = |seed| {
            let run = Observation::of(&crowd, product(), seed, &AtomicBool::new(false), |_| {});
            assert_ne!(run.end, End::Late, "{scenario:?} with seed {seed}");
            run
        };
        let one = run(1);
        assert_eq!(one, run(1), "{scenario:?}");
        assert_ne!(one.trace, run(2).trace, "{scenario:?}");
    }
}

#[test]
fn a_seed_that_leaves_too_early_is_no_fault_of_the_peers() {
    let mut crowd = crowd(Scenario::SeedLeaves, 5, 20);
    crowd.seed_goes_after = Some(500);
    let run = Observation::of(&crowd, product(), 1, &AtomicBool::new(false), |_| {});
    assert!(matches!(run.end, End::Lost(pieces) if pieces > 5), "{:?}", run.end);
    assert_eq!((run.completed, run.slowest), (0, None));
}

#[test]
fn peers_that_leave_come_back_and_finish() {
    let run = observe(&Crowd { leavers: 1000, ..crowd(Scenario::Churn, 8, 24) }, product(), 3);
    assert_eq!(run.completed, 8);
}

#[test]
fn what_leeches_send_fits_their_lines() {
    let crowd = Crowd { stay: Stay::For(Duration::ZERO), ..crowd(Scenario::FlashCrowd, 6, 24) };
    let run = observe(&crowd, product(), 1);
    let fluid: Fluid = crowd.fluid();
    assert!(run.uplinks.unwrap() <= run.busy.unwrap() && run.busy.unwrap() <= 1.001, "{run:?}");
    assert!(run.slowest.unwrap() + 10.0 > fluid.peer_to_peer().unwrap().as_secs_f64());
    assert!(run.peers.iter().all(|peer| peer.taken >= 1.0));
}
