//! What an event of a simulated swarm costs, beside what the bare queue of events costs for as many of them. One thread,
//! so that wall time is CPU time where nothing else runs; items are events.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use seedring::choker::Slots;
use seedring::lab::distribute::{PeerClass, Question};
use seedring::rng::Rng;
use seedring::sim::swarm::{EventQueue, Policies};
use seedring::time::{Duration, Instant};
use seedring::units::ByteRate;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

const PEERS: u32 = super::size(1_000, 12);
/// As simulated a thousand pieces of eight blocks, at half of these rates.
const SIZE: u64 = super::size(1 << 28, 1 << 20) as u64;
/// Events that lie ahead at a time: each peer's uplink, some packets, its timers and those of its connections.
const PENDING: usize = PEERS as usize * 100;

/// As many peers as pieces share a file from one seed; how many events that takes.
fn share() -> u64 {
    let peers = PeerClass {
        name: "peers".into(),
        share: 1,
        up: ByteRate(1_000_000),
        down: Some(ByteRate(10_000_000)),
    };
    let question = Question {
        size: SIZE,
        server_up: ByteRate(20_000_000),
        classes: vec![peers],
        delay: Duration::from_millis(10),
        bursts: false,
    };
    let policies = Policies { seed_slots: Slots::Auto, ..Policies::default() };
    let run = question.simulate(PEERS, 1, policies, &AtomicBool::new(false));
    run.expect("nobody stops it").events
}

fn events() -> u64 {
    static EVENTS: OnceLock<u64> = OnceLock::new();
    *EVENTS.get_or_init(share)
}

#[divan::bench(sample_count = 1, sample_size = 1)]
fn thousand_peers_and_pieces(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(events())).bench_local(|| black_box(share()));
}

/// Takes an event and puts one, up to a tenth of a second ahead, over and over.
#[divan::bench(sample_count = 3, sample_size = 1)]
fn bare_queue_with_as_many_events(bencher: Bencher<'_, '_>) {
    let events = events();
    bencher.counter(ItemsCount::new(events)).bench_local(|| {
        let (mut rng, mut queue) = (Rng::from_seed(1), EventQueue::new());
        let ahead = |rng: &mut Rng| Duration::from_nanos(rng.below(100_000_000));
        (0..PENDING).for_each(|number| queue.put(Instant::ZERO + ahead(&mut rng), [number; 3]));
        for _ in 0..events {
            let Some((now, event)) = queue.take() else { break };
            queue.put(now + ahead(&mut rng), black_box(event));
        }
        queue.len()
    });
}
