//! Micro-benchmarks of what is done for each message, block, round or announce: what one of them costs, by itself and
//! with everything in the cache that fits there. Figures of wall time mean little without machine and load beside them;
//! what whole paths cost is `tools/versus`'s to say.
//!
//! `cargo bench --bench micro` measures. `cargo test --bench micro` runs each once in a small size, so that none rots.

mod announce;
mod availability;
mod choker;
mod hashing;
mod meter;
mod picker;
mod send_slot;
mod swarm;
mod wire;

fn main() {
    divan::main();
}

/// `full` where figures are wanted, `smoke` in a build without optimisation.
const fn size(full: u32, smoke: u32) -> u32 {
    if cfg!(debug_assertions) { smoke } else { full }
}
