//! Whole sessions against the machines behind the parsers: two peers of a simulated swarm say whatever messages, in
//! whatever order, beside a seed and a leech that are the product.
//!
//! Every property of simulated swarms holds meanwhile, among them that queues and work are bounded by what was said; the
//! leech completes all the same, in time.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::bitfield::Bitfield;
use seedring::sim::swarm::{ContentShape, Hostility, Manner, PeerNumber, PeerTerms, Policies, Swarm};
use seedring::time::{Duration, Instant};
use seedring::units::ByteRate;

/// Simulated time within which the leech has everything.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Events of a swarm for each byte of the scripts, and of one in which nobody says anything. More is work that somebody
/// makes for nothing.
const EVENTS_PER_BYTE_MAX: u64 = 4096;
const EVENTS_MAX: u64 = 200_000;

fuzz_target!(|data: &[u8]| {
    let Some((&[seed, flags, cut], script)) = data.split_first_chunk::<3>() else { return };
    let pieces = u32::from(flags & 0x1f) + 1;
    let total_len = u64::from(pieces) * 32_768 - u64::from(cut) * 64;
    let shape = ContentShape { piece_length: 32_768, total_len };
    let honest = |have| PeerTerms::new(ByteRate(1_000_000), have);
    let scripted = |have| PeerTerms { manner: Manner::Hostile(Hostility::Scripted), ..honest(have) };
    let has = if flags & 0x20 == 0 { Bitfield::none(pieces) } else { Bitfield::all(pieces) };
    let peers = vec![
        honest(Bitfield::all(pieces)),
        honest(Bitfield::none(pieces)),
        scripted(has),
        scripted(Bitfield::none(pieces)),
    ];
    let policies = Policies { super_seed: flags & 0x40 != 0, ..Policies::default() };
    let mut swarm = Swarm::new(u64::from(seed), shape, policies, peers);
    swarm.check_every(16);
    let (one, other) = script.split_at(script.len() / 2);
    swarm.give_script(PeerNumber(2), one.to_vec());
    swarm.give_script(PeerNumber(3), other.to_vec());
    swarm.run_on(Instant::ZERO + Duration::from_secs(120));
    while swarm.violation().is_none() && swarm.lacking().any(|peer| peer.0 == 1) {
        let until = swarm.now() + Duration::from_secs(60);
        swarm.run_on(until);
        assert!(swarm.now() < Instant::ZERO + PATIENCE, "the leech never completes");
    }
    assert_eq!(swarm.violation(), None);
    let bound = EVENTS_MAX + EVENTS_PER_BYTE_MAX * script.len() as u64;
    assert!(swarm.happened() <= bound, "{} events for {} bytes", swarm.happened(), script.len());
});
