//! How much is on its way. Uploading: which requests wait, how much the next send carries, and when the rate limit
//! lets it go. Downloading: how many blocks to keep asked of one peer. Plain data in, decisions out.
//!
//! Deliberately absent: which blocks to ask for, which is the picker's; and any order of uploads but the peer's
//! own. Blocks go out in the order in which they were asked for (BEP 3); a peer that wants another order cancels.

mod batch;
mod depth;
mod rate_gate;
mod requests;

pub use batch::{BatchPolicy, SLOW_SEND, turn_len};
pub use depth::{RequestPipeline, Verdict};
pub use rate_gate::{RateGate, burst_for};
pub use requests::{Pushed, RequestQueue};
