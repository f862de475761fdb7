//! The engine's modules that hold raw memory.

#[path = "../../../src/engine/piece_buffer.rs"]
pub mod piece_buffer;
#[path = "../../../src/engine/ring.rs"]
pub mod ring;
#[path = "../../../src/engine/send_slot.rs"]
pub mod send_slot;
#[path = "../../../src/engine/slab.rs"]
pub mod slab;
#[path = "../../../src/engine/store.rs"]
pub mod store;
