//! The queue between requests and the ring: blocks put into one message, which is sealed and emptied again.

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use seedring::engine::send_slot::{BLOCKS_PER_SEND_MAX, SendSlot};
use seedring::engine::store::Extent;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::piece_header;
use std::sync::Arc;

#[divan::bench(args = [1, 4, BLOCKS_PER_SEND_MAX])]
fn fill_seal_and_clear(bencher: Bencher<'_, '_>, blocks: usize) {
    let content = Arc::new(vec![0_u8; BLOCK_LEN as usize]);
    let extent = Extent { address: content.as_ptr(), len: content.len() };
    let mut slot = SendSlot::new();
    bencher.counter(ItemsCount::new(blocks)).bench_local(|| {
        for number in 0..blocks as u32 {
            let span = BlockSpan { piece: PieceIndex(number), begin: 0, len: BLOCK_LEN };
            slot.push_block(piece_header(span), black_box(&[extent]), &content);
        }
        black_box(slot.seal());
        slot.clear();
    });
}
