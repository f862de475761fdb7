//! The crate's modules that hold raw memory, with what they name; their tests stand beside them.
#![allow(dead_code, missing_docs, reason = "only a part of each module is under check")]

#[path = "../../../src/limits.rs"]
pub mod limits;
#[path = "../../../src/time.rs"]
pub mod time;
#[path = "../../../src/units.rs"]
pub mod units;

/// What the checked modules name of the peer wire.
pub mod wire {
    /// Bytes before the payload of a piece message.
    pub const PIECE_HEADER_LEN: usize = 13;
}

/// What the checked modules name of a torrent's machine.
pub mod torrent {
    /// Not made here.
    #[derive(Debug)]
    pub enum PieceResult {}
}

pub mod engine;
