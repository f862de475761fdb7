//! SHA-1 of pieces in memory, alone and in four lanes.

use divan::Bencher;
use divan::counter::BytesCount;
use seedring::storage::{piece_hash, piece_hashes};

const PIECE_LEN: usize = super::size(256 * 1024, 16 * 1024) as usize;

#[divan::bench]
fn one_piece(bencher: Bencher<'_, '_>) {
    let piece = vec![7; PIECE_LEN];
    bencher.counter(BytesCount::new(PIECE_LEN)).bench_local(|| piece_hash(&piece));
}

#[divan::bench(args = [2, 4, 8])]
fn pieces_together(bencher: Bencher<'_, '_>, count: usize) {
    let pieces: Vec<Vec<u8>> = (0..count).map(|number| vec![number as u8; PIECE_LEN]).collect();
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    bencher.counter(BytesCount::new(count * PIECE_LEN)).bench_local(|| piece_hashes(&pieces));
}
