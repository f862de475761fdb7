//! Seedring: a BitTorrent seeder engine and peer on io_uring.
//!
//! The modules stand here in the order of the house's floors: a module names only modules above
//! its own line. `tests/layering.rs` keeps that true. ARCHITECTURE.md draws the floors.

// 0 · vocabulary
pub mod units;
pub mod shape;
pub mod time;
pub mod rng;
pub mod id;
pub mod bitfield;
pub mod limits;
pub mod prefetch;
pub mod secret_url;

// 1 · bytes <-> values
pub mod bencode;
pub mod metainfo;
pub mod wire;
pub mod tracker_wire;

// 2a · policy: plain data in, decisions out
pub mod meter;
pub mod attribution;
pub mod debts;
pub mod choker;
pub mod picker;
pub mod peer_list;
pub mod pex;
pub mod conviction;
pub mod pipeline;
pub mod superseed;
pub mod announcer;

// 2b · protocol state machines
pub mod metadata;
pub mod peer;
pub mod torrent;
pub mod swarm_registry;

// 3 · storage, and the clock and entropy that shells pass down
pub mod clock;
pub mod bind_patience;
pub mod storage;

// 4 · all peer I/O
pub mod engine;

// 5 · I/O shells beside the engine
pub mod service;
pub mod datagrams;
pub mod http_server;
pub mod exposition;
pub mod tracker_client;
pub mod tracker_server;
pub mod load;

// 6 · what runs for the user
pub mod session;

// 7 · the simulator, and what is asked of it: seen by nobody but the command line
pub mod sim;
pub mod lab;

// the command line itself
pub mod cli;
