//! One connection's protocol state, sans-IO (BEP 3, 6, 9, 10, 21).
//!
//! Control bytes in, control bytes out, and *descriptions* of blocks: payload never passes through here. The
//! shell feeds [`PeerMachine::handle_bytes`] until it returns `None` with nothing left, acts on each event
//! before it goes on, and then drains [`poll_control`](PeerMachine::poll_control) and
//! [`poll_block`](PeerMachine::poll_block). Control bytes always go before blocks: a choke has cleared the
//! blocks it ends, an unchoke precedes the blocks it allows.
//!
//! The downloading half tells how many blocks there is room for ([`poll_wish`](PeerMachine::poll_wish)) and asks for
//! those that the torrent's home chooses ([`handle_assigned`](PeerMachine::handle_assigned)). When a block
//! arrives the machine stops behind its header, and the shell takes the payload to where it belongs.

mod allowed_fast;
mod download;
mod event;
mod facts;
mod hidden;
mod info_dictionary;
mod words;
mod machine;
#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod tests;

pub use allowed_fast::allowed_fast_set;
pub use download::{Wish, WishTerms};
pub use event::{OurExtension, PeerError, PeerEvent, Stock};
pub use facts::{SpanFault, TorrentFacts};
pub use info_dictionary::InfoDictionary;
pub use machine::{Identity, PeerMachine};
pub(crate) use machine::{OUR_DONT_HAVE_ID, OUR_PEX_ID};
