//! The swarm laboratory: how long does it take to distribute a file to N peers?
//!
//! `bounds` answers by formula, `distribute` by simulating a swarm of the product's own machines
//! ([`sim::swarm`](crate::sim::swarm)). `scenario` draws crowds of all kinds, `observe` says how they fared. A run is a
//! function of its seed, but for those of `real`, which asks processes on this machine.

mod cores;
#[cfg(test)]
mod literature_tests;
mod middle;

pub use cores::run_all;
pub use middle::{middle, middle_and_last};

pub mod bounds;
pub mod distribute;
pub mod observe;
pub mod plot;
pub mod real;
pub mod scenario;
