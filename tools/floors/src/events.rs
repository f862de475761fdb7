//! The least that a simulation by events can cost: a binary heap from which the earliest event is taken and into which
//! another is put, over and over, in order of time and then of coming.

use crate::Outcome;
use seedring::clock;
use seedring::rng::Rng;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// How many events.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Events taken
    #[arg(long, default_value_t = 20_000_000)]
    count: u64,
    /// Events that lie ahead at a time
    #[arg(long, default_value_t = 100_000)]
    pending: usize,
}

/// An event lies up to a tenth of a second ahead.
const AHEAD_MAX: u64 = 100_000_000;

/// Goes through them and prints one line of JSON.
pub fn run(events: &Events) -> Outcome<()> {
    let mut rng = Rng::from_seed(1);
    // What happens takes three words, as a simulated packet does.
    let mut heap: BinaryHeap<Reverse<(u64, u64, [u64; 3])>> = BinaryHeap::new();
    let mut put = 0;
    for _ in 0..events.pending.max(1) {
        heap.push(Reverse((rng.below(AHEAD_MAX), put, [put; 3])));
        put += 1;
    }
    let (cpu_before, mut sum) = (clock::process_cpu_time(), 0);
    for _ in 0..events.count {
        let Some(Reverse((at, _, [what, ..]))) = heap.pop() else { break };
        sum ^= what;
        heap.push(Reverse((at + rng.below(AHEAD_MAX), put, [put; 3])));
        put += 1;
    }
    let cpu = (clock::process_cpu_time() - cpu_before).as_secs_f64();
    println!(
        "{{\"events\":{},\"pending\":{},\"cpu_seconds\":{cpu:.3},\"sum\":{sum}}}",
        events.count, events.pending
    );
    Ok(())
}
