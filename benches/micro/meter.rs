//! Counting a block, and looking at the counters.

use divan::{Bencher, black_box};
use seedring::meter::{Meter, PeerCounters};
use seedring::time::{Duration, Instant};
use seedring::units::BLOCK_LEN;

#[divan::bench]
fn count_a_block(bencher: Bencher<'_, '_>) {
    let counters = PeerCounters::new();
    bencher.bench_local(|| black_box(&counters).add_uploaded(u64::from(black_box(BLOCK_LEN))));
}

#[divan::bench]
fn look_at_a_peer(bencher: Bencher<'_, '_>) {
    let counters = PeerCounters::new();
    bencher.bench_local(|| black_box(&counters).sample());
}

#[divan::bench]
fn take_a_rate(bencher: Bencher<'_, '_>) {
    let (mut meter, mut now, mut bytes) = (Meter::new(), Instant::ZERO, 0);
    bencher.bench_local(|| {
        now += Duration::from_secs(1);
        bytes += 1 << 20;
        meter.handle_sample(now, bytes)
    });
}
