//! Info dictionaries from peer to peer (BEP 9), sans-IO: giving ours out without being drained, and putting a
//! stranger's together from peers that may lie.
//!
//! Both sides work on `wire::MetadataMessage`; sockets, connections and extension numbers are others' business.

mod assembly;
mod peer;
mod service;

pub use assembly::{AssemblyProgress, MetadataAssembly, Outcome};
pub use peer::{MetadataPeer, MetadataPeerError, PeerWord};
pub use service::{Answer, MetadataService, PieceToSend};
