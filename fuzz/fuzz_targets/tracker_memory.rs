//! Pieces of a tracker's memory, read from a file: within the bounds, and the same when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::PEERS_PER_SWARM_MAX;
use seedring::swarm_registry::SwarmRegistry;
use seedring::time::{Duration, Instant};

const LIFETIME: Duration = Duration::from_secs(3630);

fn read(now: Instant, piece: &[u8]) -> Option<SwarmRegistry> {
    let mut registry = SwarmRegistry::new(LIFETIME);
    registry.read_piece(now, Duration::ZERO, piece, |_| true).ok()?;
    Some(registry)
}

fuzz_target!(|data: &[u8]| {
    let now = Instant::ZERO + Duration::from_secs(1_000_000);
    let Some(registry) = read(now, data) else { return };
    let figures = registry.figures();
    assert!(figures.leeches_v4 + figures.seeds_v4 <= figures.swarms * PEERS_PER_SWARM_MAX as u64);
    let mut written = Vec::new();
    registry.write_piece(now, None, usize::MAX, &mut written);
    let again = read(now, &written).expect("what was written can be read");
    assert_eq!(again.figures(), figures);
    let mut rewritten = Vec::new();
    again.write_piece(now, None, usize::MAX, &mut rewritten);
    assert_eq!(rewritten.len(), written.len());
});
