//! A tracker's answer to an announce, without its sockets: one swarm of many peers, and many swarms of few.

use divan::Bencher;
use seedring::id::InfoHash;
use seedring::rng::Rng;
use seedring::swarm_registry::{Announce, SelectedPeers, SwarmRegistry};
use seedring::time::{Duration, Instant};
use seedring::tracker_wire::AnnounceEvent;
use std::net::Ipv4Addr;

const WANTED: usize = 50;

fn announce(number: u32, swarms: u32) -> Announce {
    let mut info_hash = [0; 20];
    Rng::from_seed(u64::from(number % swarms)).fill(&mut info_hash);
    let [_, high, middle, low] = (number / swarms).to_be_bytes();
    Announce {
        info_hash: InfoHash(info_hash),
        address: (Ipv4Addr::new(10, high, middle, low), 6881).into(),
        is_seed: number.is_multiple_of(4),
        event: AnnounceEvent::None,
        wanted: WANTED,
        both_families: false,
    }
}

fn announces(bencher: Bencher<'_, '_>, swarms: u32, peers: u32) {
    let mut registry = SwarmRegistry::new(Duration::from_secs(3600));
    let (mut rng, now) = (Rng::from_seed(1), Instant::ZERO + Duration::from_secs(10_000));
    let mut given = SelectedPeers::default();
    for number in 0..peers {
        registry.announce(now, &mut rng, &announce(number, swarms), &mut given);
    }
    bencher.bench_local(|| {
        let asker = announce(rng.below(u64::from(peers)) as u32, swarms);
        registry.announce(now, &mut rng, &asker, &mut given)
    });
}

#[divan::bench]
fn one_swarm_of_many(bencher: Bencher<'_, '_>) {
    announces(bencher, 1, super::size(50_000, 500));
}

#[divan::bench]
fn many_swarms_of_few(bencher: Bencher<'_, '_>) {
    announces(bencher, super::size(10_000, 100), super::size(160_000, 1_600));
}
