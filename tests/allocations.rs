//! The steady path of a worker allocates nothing per block: counted, not believed.
#![expect(unsafe_code, reason = "a counting allocator in place of the system's")]

mod support;

use seedring::engine::EngineConfig;
use seedring::id::InfoHash;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Message, PIECE_HEADER_LEN, encode};
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use support::{Leech, Rig, bytes_of};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes on to the system's allocator, unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, len: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract.
        unsafe { System.realloc(pointer, layout, len) }
    }
}

#[global_allocator]
static GLOBAL: Counting = Counting;

const BLOCKS_PER_ROUND: u32 = 64;
const ROUNDS: u32 = 400;

#[test]
fn blocks_are_served_without_allocating() {
    let rig = Rig::start_with(EngineConfig { workers: Some(1), ..EngineConfig::default() });
    let folder = tempfile::tempdir().unwrap();
    let torrent = rig.seed(folder.path(), &[("file", &bytes_of(1, 4 << 20))], InfoHash([1; 20]));
    let mut leech = Leech::join(&rig, &torrent);
    let mut requests = Vec::new();
    for block in 0..BLOCKS_PER_ROUND {
        let span = BlockSpan { piece: PieceIndex(block / 16), begin: block % 16 * BLOCK_LEN, len: BLOCK_LEN };
        encode(&Message::Request(span), &mut requests);
    }
    let mut answers = vec![0; BLOCKS_PER_ROUND as usize * (PIECE_HEADER_LEN + BLOCK_LEN as usize)];
    let mut round = |leech: &mut Leech| {
        leech.stream.write_all(&requests).unwrap();
        leech.stream.read_exact(&mut answers).unwrap();
    };
    // The first rounds fill pools and queues.
    (0..20).for_each(|_| round(&mut leech));
    let before = ALLOCATIONS.load(Relaxed);
    (0..ROUNDS).for_each(|_| round(&mut leech));
    let allocations = ALLOCATIONS.load(Relaxed) - before;
    // Once a second the worker looks at its load; nothing else may allocate.
    let blocks = u64::from(ROUNDS * BLOCKS_PER_ROUND);
    assert!(allocations < blocks / 100, "{allocations} allocations for {blocks} blocks");
}
