//! The engine: rings, connections and workers. All peer I/O happens here, and almost all unsafe code.

mod content_store;
mod doorbell;
mod event_lanes;
pub mod histogram;
pub mod listener;
pub mod mailbox;
pub mod message;
mod outbox;
pub mod piece_buffer;
pub mod prefix_table;
pub mod ring;
pub mod ring_error;
pub mod send_slot;
pub mod slab;
pub mod statistics;
pub mod store;
pub mod supply;
pub mod threads;
pub mod timers;
pub mod uring;
pub mod worker;
pub mod zero_copy;

pub use message::{Download, EngineEvent, SharedTorrent, TorrentCounts};
pub use threads::{Engine, EngineConfig, EngineError};
pub use zero_copy::ZeroCopyMode;
