//! One connection's protocol state, sans-IO (BEP 3, 6, 9, 10, 21).
//!
//! Control bytes in, control bytes out, and *descriptions* of blocks: payload never passes through here. The
//! shell feeds [`PeerMachine::handle_bytes`] until it returns `None` with nothing left, acts on each event
//! before it goes on, and then drains [`poll_control`](PeerMachine::poll_control) and
//! [`poll_block`](PeerMachine::poll_block). Control bytes always go before blocks: a choke has cleared the
//! blocks it ends, an unchoke precedes the blocks it allows.
//!
//! The uploading side is whole. Of the downloading side the peer's messages are decoded, checked and stated;
//! the policy that asks for blocks is not here yet, so every block that arrives was never asked for.

mod allowed_fast;
mod facts;
mod machine;
#[cfg(test)]
mod tests;

pub use allowed_fast::allowed_fast_set;
pub use facts::{SpanFault, TorrentFacts};
pub use machine::{Identity, PeerError, PeerEvent, PeerMachine};
