//! The simulator: the production worker on a ring and a store of our own making, deterministic by seed.
//!
//! [`ring::SimRing`] injects what kernels and networks do on bad days; [`store::SimStore`] is content whose every
//! byte is known and whose disk can be slow or broken; [`sink::SimSink`] takes downloaded pieces, or refuses them.
//!
//! [`swarm::Swarm`] is one level up: a whole swarm of the product's machines on simulated lines, without rings.

#[cfg(test)]
mod crew;
#[cfg(test)]
mod disk_tests;
#[cfg(test)]
mod encrypted_tests;
#[cfg(test)]
mod ending_tests;
#[cfg(test)]
mod flood_tests;
#[cfg(test)]
mod giver;
#[cfg(test)]
mod holding_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod idle_tests;
#[cfg(test)]
mod leech_rig;
#[cfg(test)]
mod leech_tests;
#[cfg(test)]
mod return_tests;
#[cfg(test)]
mod rig;
pub mod ring;
pub mod sink;
pub mod store;
pub mod swarm;
#[cfg(test)]
mod throttle_tests;
#[cfg(test)]
mod waiting_tests;
#[cfg(test)]
mod worker_tests;
