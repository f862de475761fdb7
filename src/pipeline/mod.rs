//! The uploading side's policy: which requests wait, how much the next send carries, and when the rate limit lets
//! it go. Plain data in, decisions out.
//!
//! Deliberately absent: the downloading side's request pipeline, and any order but the peer's own. Blocks go out
//! in the order in which they were asked for (BEP 3); a peer that wants another order cancels.

mod batch;
mod rate_gate;
mod requests;

pub use batch::BatchPolicy;
pub use rate_gate::{RateGate, burst_for};
pub use requests::{Pushed, RequestQueue};
