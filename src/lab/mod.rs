//! The swarm laboratory: how long does it take to distribute a file to N peers?
//!
//! `bounds` answers by formula, `distribute` by simulating a swarm of the product's own machines
//! ([`sim::swarm`](crate::sim::swarm)). A run is a function of its seed.

pub mod bounds;
pub mod distribute;
pub mod plot;
