//! What the picker's questions and events cost in the largest torrent that we take, with fifty peers of which each has
//! half the pieces.

use divan::{Bencher, black_box};
use seedring::bitfield::Bitfield;
use seedring::id::ConnId;
use seedring::limits::PIECES_MAX;
use seedring::picker::{Allowed, Picker, PickerSettings, PieceShape, Priority, Received};
use seedring::rng::Rng;
use seedring::time::Instant;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};

const PIECES: u32 = super::size(PIECES_MAX, 131_072);
const PEERS: u32 = 50;
const BLOCKS: u32 = 16;

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

fn half(rng: &mut Rng) -> Bitfield {
    let mut payload = vec![0; Bitfield::byte_len(PIECES)];
    rng.fill(&mut payload);
    Bitfield::from_wire(&payload, PIECES).expect("the largest torrent has no spare bits")
}

fn picker(peers: u32, rng: &mut Rng) -> Picker {
    let piece_length = BLOCKS * BLOCK_LEN;
    let total_len = u64::from(PIECES) * u64::from(piece_length);
    let shape = PieceShape { piece_count: PIECES, piece_length, total_len };
    let settings = PickerSettings { random_first: 0, ..PickerSettings::default() };
    let mut picker = Picker::new(shape, &Bitfield::none(PIECES), |_| Priority::Normal, settings, rng);
    for slot in 0..peers {
        picker.handle_joined(conn(slot));
        picker.handle_stock(conn(slot), &half(rng));
    }
    picker
}

/// Asks for a whole piece, receives and verifies it.
fn fetch(picker: &mut Picker, from: ConnId, rng: &mut Rng, out: &mut Vec<BlockSpan>) {
    out.clear();
    picker.pick(Instant::ZERO, from, BLOCKS as usize, Allowed::Unchoked, rng, out);
    for &span in out.iter() {
        if let Received::Block { completes: true, .. } = picker.handle_received(from, span) {
            picker.handle_verified(span.piece);
        }
    }
}

#[divan::bench(sample_count = 5, sample_size = 1)]
fn begin_a_torrent(bencher: Bencher<'_, '_>) {
    bencher.bench_local(|| black_box(picker(0, &mut Rng::from_seed(1))));
}

#[divan::bench]
fn have(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    (PEERS..2 * PEERS).for_each(|slot| picker.handle_joined(conn(slot)));
    bencher.bench_local(|| {
        let piece = PieceIndex(rng.below(u64::from(PIECES)) as u32);
        picker.handle_have(conn(PEERS + rng.below(u64::from(PEERS)) as u32), piece)
    });
}

#[divan::bench(sample_count = 20, sample_size = 1)]
fn bitfield_of_half_the_pieces(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    let (one, other) = (half(&mut rng), half(&mut rng));
    let mut turn = false;
    bencher.bench_local(|| {
        turn = !turn;
        picker.handle_stock(conn(0), if turn { &one } else { &other });
    });
}

#[divan::bench(args = [1_000, 10_000, 100_000])]
fn bitfield_of_few_pieces(bencher: Bencher<'_, '_>, pieces: u32) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    picker.handle_joined(conn(PEERS));
    let mut some = Bitfield::none(PIECES);
    (0..pieces).for_each(|step| _ = some.insert(PieceIndex(step * (PIECES / pieces))));
    let none = Bitfield::none(PIECES);
    let mut turn = false;
    bencher.bench_local(|| {
        turn = !turn;
        picker.handle_stock(conn(PEERS), if turn { &some } else { &none });
    });
}

#[divan::bench]
fn pick_a_block_and_return_it(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    let mut out = Vec::new();
    bencher.bench_local(|| {
        out.clear();
        picker.pick(Instant::ZERO, conn(1), 1, Allowed::Unchoked, &mut rng, &mut out);
        picker.handle_returned(conn(1), out[0]);
    });
}

#[divan::bench]
fn fetch_a_piece_of_sixteen_blocks(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    let mut out = Vec::new();
    bencher.bench_local(|| fetch(&mut picker, conn(rng.below(u64::from(PEERS)) as u32), &mut rng, &mut out));
}

/// The walk from the rarest piece on is in vain, and the peer's own pieces are gone through.
#[divan::bench]
fn fetch_a_piece_from_a_peer_with_few_common_ones(bencher: Bencher<'_, '_>) {
    let mut rng = Rng::from_seed(1);
    let mut picker = picker(PEERS, &mut rng);
    picker.handle_joined(conn(PEERS));
    let common = PIECES - 20_000;
    for piece in (common..PIECES).map(PieceIndex) {
        picker.handle_have(conn(PEERS), piece);
        (0..PEERS).for_each(|slot| _ = picker.handle_have(conn(slot), piece));
    }
    let mut out = Vec::new();
    bencher.bench_local(|| fetch(&mut picker, conn(PEERS), &mut rng, &mut out));
}
