//! Keeping count of who has what, through the picker that keeps it: a peer's news, and the questions about it.

use divan::{Bencher, black_box};
use seedring::bitfield::Bitfield;
use seedring::id::ConnId;
use seedring::picker::{Picker, PickerSettings, PieceShape, Priority};
use seedring::rng::Rng;
use seedring::units::{BLOCK_LEN, PieceIndex};

const PEERS: u32 = 50;
/// Pieces of a torrent of 25 GB.
const PIECES: u32 = super::size(100_000, 2_000);

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

/// Every peer has about half of the pieces.
fn picker(rng: &mut Rng) -> Picker {
    let shape = PieceShape {
        piece_count: PIECES,
        piece_length: 16 * BLOCK_LEN,
        total_len: u64::from(PIECES) * 16 * u64::from(BLOCK_LEN),
    };
    let none = Bitfield::none(PIECES);
    let mut picker = Picker::new(shape, &none, |_| Priority::Normal, PickerSettings::default(), rng);
    for slot in 0..PEERS {
        picker.handle_joined(conn(slot));
        picker.handle_stock(conn(slot), &half(rng));
    }
    picker
}

fn half(rng: &mut Rng) -> Bitfield {
    let mut some = Bitfield::none(PIECES);
    (0..PIECES).filter(|_| rng.below(2) == 0).for_each(|piece| _ = some.insert(PieceIndex(piece)));
    some
}

#[divan::bench]
fn have_and_loss_of_a_piece(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(&mut rng);
    picker.handle_joined(conn(PEERS));
    bencher.bench_local(|| {
        let piece = PieceIndex(rng.below(u64::from(PIECES)) as u32);
        picker.handle_have(conn(PEERS), piece);
        picker.handle_dont_have(conn(PEERS), piece)
    });
}

#[divan::bench]
fn copies_of_a_piece(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let picker = picker(&mut rng);
    bencher.bench_local(|| picker.availability(PieceIndex(rng.below(u64::from(PIECES)) as u32)));
}

#[divan::bench]
fn distributed_copies(bencher: Bencher<'_, '_>) {
    let picker = picker(&mut Rng::from_seed(1));
    bencher.bench_local(|| black_box(&picker).distributed_copies());
}

#[divan::bench(sample_size = 1)]
fn a_peer_with_half_the_pieces_joins_and_leaves(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(&mut rng);
    let stock = half(&mut rng);
    bencher.bench_local(|| {
        picker.handle_joined(conn(PEERS));
        picker.handle_stock(conn(PEERS), &stock);
        picker.handle_left(conn(PEERS));
    });
}
