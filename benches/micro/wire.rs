//! Decoder and encoder: requests as a seeder reads them, blocks as a leech does, haves as both do.

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Decoder, DecoderLimits, Message, encode, piece_header};

const PIECES: u32 = 1000;
const MESSAGES: u32 = 1000;
/// Bytes of one read from a socket; messages are cut by its end.
const READ_LEN: usize = 16 * 1024;

fn span(number: u32) -> BlockSpan {
    BlockSpan { piece: PieceIndex(number % PIECES), begin: number % 16 * BLOCK_LEN, len: BLOCK_LEN }
}

fn stream(message: impl Fn(u32) -> Message<'static>) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..MESSAGES).for_each(|number| encode(&message(number), &mut bytes));
    bytes
}

/// Number of messages in a stream that comes in reads.
fn decode(bytes: &[u8]) -> u32 {
    let mut decoder = Decoder::new(DecoderLimits::for_pieces(PIECES));
    let mut messages = 0;
    for mut input in bytes.chunks(READ_LEN) {
        loop {
            while let Some(message) = decoder.decode(&mut input).expect("the stream is well formed") {
                black_box(message);
                messages += 1;
            }
            if decoder.payload_remaining() == 0 || decoder.take_payload(&mut input).is_empty() {
                break;
            }
        }
    }
    messages
}

#[divan::bench]
fn decode_requests(bencher: Bencher<'_, '_>) {
    let bytes = stream(|number| Message::Request(span(number)));
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| assert_eq!(decode(&bytes), MESSAGES));
}

#[divan::bench]
fn decode_haves(bencher: Bencher<'_, '_>) {
    let bytes = stream(|number| Message::Have(PieceIndex(number % PIECES)));
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| assert_eq!(decode(&bytes), MESSAGES));
}

#[divan::bench]
fn decode_blocks(bencher: Bencher<'_, '_>) {
    const BLOCKS: u32 = 64;
    let mut bytes = Vec::new();
    for number in 0..BLOCKS {
        bytes.extend_from_slice(&piece_header(span(number)));
        bytes.resize(bytes.len() + BLOCK_LEN as usize, 0);
    }
    let payload = BytesCount::new(BLOCKS * BLOCK_LEN);
    bencher.counter(payload).bench_local(|| assert_eq!(decode(&bytes), BLOCKS));
}

#[divan::bench]
fn encode_requests(bencher: Bencher<'_, '_>) {
    let mut out = Vec::new();
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        out.clear();
        (0..MESSAGES).for_each(|number| encode(&Message::Request(span(number)), &mut out));
        black_box(&out);
    });
}

#[divan::bench]
fn encode_headers_of_blocks(bencher: Bencher<'_, '_>) {
    bencher.counter(ItemsCount::new(MESSAGES)).bench_local(|| {
        (0..MESSAGES).for_each(|number| _ = black_box(piece_header(black_box(span(number)))));
    });
}
