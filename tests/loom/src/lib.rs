//! The crate's modules whose memory orderings loom checks, with what they name; the checks stand beside them.
#![allow(dead_code, unused_imports, reason = "only a part of each module is under check")]

#[path = "../../../src/engine/doorbell.rs"]
pub mod doorbell;
#[path = "../../../src/limits.rs"]
pub mod limits;
#[path = "../../../src/meter.rs"]
pub mod meter;
#[path = "../../../src/engine/piece_buffer.rs"]
pub mod piece_buffer;
#[path = "../../../src/pipeline/rate_gate.rs"]
pub mod rate_gate;
#[path = "../../../src/time.rs"]
pub mod time;
#[path = "../../../src/units.rs"]
pub mod units;
