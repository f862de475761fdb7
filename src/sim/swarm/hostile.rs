//! What a hostile peer says: well-formed messages that make no sense, floods, and bytes that are no messages.
//!
//! It behaves as the product does otherwise, and says so much more with each of its packets, for a while.
//!
//! Deliberately absent: hostile handshakes and encryption, which the level below and the fuzz targets have.

use super::node::Node;
use super::terms::Hostility;
use crate::bitfield::Bitfield;
use crate::peer::TorrentFacts;
use crate::rng::Rng;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{Message, PexFlags, PexMessage, PexPeer, encode};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Packets of a connection that carry malice.
pub const PACKETS_MAX: u32 = 120;
/// Messages of a flood in one packet.
const FLOOD: usize = 40;
/// The product's number for messages of peer exchange.
const PEX_ID: u8 = crate::peer::OUR_PEX_ID;

fn any_piece(rng: &mut Rng, facts: &TorrentFacts) -> PieceIndex {
    PieceIndex(rng.below(u64::from(facts.piece_count())) as u32)
}

/// A block of the content.
fn any_block(rng: &mut Rng, facts: &TorrentFacts) -> BlockSpan {
    let piece = any_piece(rng, facts);
    let block = rng.below(u64::from(facts.shape().blocks_of(piece))) as u32;
    facts.shape().span(piece, block).unwrap_or_default()
}

/// A number near the borders of what is allowed, or far away.
fn wild(rng: &mut Rng, border: u32) -> u32 {
    match rng.below(5) {
        0 => border,
        1 => border.wrapping_add(1 + rng.below(100) as u32),
        2 => u32::MAX - rng.below(20_000) as u32,
        3 => rng.next_u64() as u32,
        _ => 0,
    }
}

fn wild_span(rng: &mut Rng, facts: &TorrentFacts) -> BlockSpan {
    let mut span = any_block(rng, facts);
    match rng.below(4) {
        0 => span.piece = PieceIndex(wild(rng, facts.piece_count())),
        1 => span.begin = wild(rng, facts.piece_len(span.piece)),
        2 => span.begin += 1 + rng.below(100) as u32,
        _ => span.len = wild(rng, BLOCK_LEN),
    }
    span
}

/// A request that reaches behind the end, of its piece or of what a request may have.
fn behind_the_end(rng: &mut Rng, facts: &TorrentFacts) -> BlockSpan {
    let piece = PieceIndex(facts.piece_count().saturating_sub(1));
    let len = facts.piece_len(piece);
    let begin = len / BLOCK_LEN * BLOCK_LEN;
    match rng.below(4) {
        0 => BlockSpan { piece, begin, len: len - begin + 1 },
        1 => BlockSpan { piece, begin: begin.wrapping_add(BLOCK_LEN), len: BLOCK_LEN },
        2 => BlockSpan { piece: PieceIndex(piece.0 + 1), begin: 0, len: BLOCK_LEN },
        _ => BlockSpan { piece, begin: 0, len: crate::limits::REQUEST_LEN_MAX + 1 },
    }
}

fn nonsense<'a>(rng: &mut Rng, facts: &TorrentFacts) -> Message<'a> {
    let piece = PieceIndex(wild(rng, facts.piece_count()));
    match rng.below(8) {
        0 => Message::Have(piece),
        1 => Message::Suggest(piece),
        2 => Message::AllowedFast(piece),
        3 => Message::Cancel(wild_span(rng, facts)),
        4 => Message::Reject(wild_span(rng, facts)),
        5 => Message::Piece(wild_span(rng, facts)),
        6 => Message::Unknown { id: 99, len: wild(rng, 5) },
        _ => Message::Request(wild_span(rng, facts)),
    }
}

fn stock(rng: &mut Rng, facts: &TorrentFacts, out: &mut Vec<u8>) {
    let mut pieces = Bitfield::none(facts.piece_count());
    for _ in 0..rng.below(20) {
        pieces.insert(any_piece(rng, facts));
    }
    let mut bytes = pieces.as_bytes().to_vec();
    match rng.below(6) {
        0 => encode(&Message::HaveAll, out),
        1 => encode(&Message::HaveNone, out),
        2 => {
            bytes.push(0xff);
            encode(&Message::Bitfield(&bytes), out);
        }
        3 => {
            bytes.iter_mut().for_each(|byte| *byte = 0xff);
            encode(&Message::Bitfield(&bytes), out);
        }
        _ => encode(&Message::Bitfield(&bytes), out),
    }
}

fn exchange(rng: &mut Rng, out: &mut Vec<u8>) {
    let mut payload = vec![0; rng.index(60)];
    rng.fill(&mut payload);
    if rng.below(4) > 0 {
        let peer = |rng: &mut Rng| {
            let ip = match rng.below(4) {
                0 => Ipv4Addr::LOCALHOST,
                1 => Ipv4Addr::new(10, 0, 0, rng.next_u64() as u8),
                _ => Ipv4Addr::from_bits(rng.next_u64() as u32),
            };
            let port = if rng.below(4) == 0 { 0 } else { rng.next_u64() as u16 };
            PexPeer { address: SocketAddr::new(IpAddr::V4(ip), port), flags: PexFlags(rng.next_u64() as u8) }
        };
        let count = rng.below(70);
        let added = (0..count).map(|_| peer(rng)).collect();
        payload = PexMessage { added, dropped: Vec::new() }.encode();
    }
    encode(&Message::Extended { id: PEX_ID, payload: &payload }, out);
}

/// Appends something hostile; a block, too, that nobody has asked for.
pub(super) fn utter(
    hostility: Hostility,
    facts: &TorrentFacts,
    rng: &mut Rng,
    out: &mut Vec<u8>,
) -> Option<BlockSpan> {
    let mut flood = |rng: &mut Rng, message: &dyn Fn(&mut Rng) -> Message<'static>| {
        (0..1 + rng.index(FLOOD)).for_each(|_| encode(&message(rng), out));
    };
    match hostility {
        Hostility::Noise => {
            let mut noise = vec![0; 1 + rng.index(80)];
            rng.fill(&mut noise);
            out.extend_from_slice(&noise);
        }
        Hostility::Nonsense => encode(&nonsense(rng, facts), out),
        Hostility::BehindTheEnd => encode(&Message::Request(behind_the_end(rng, facts)), out),
        Hostility::Unsolicited => return Some(any_block(rng, facts)),
        Hostility::Haves => flood(rng, &|rng| Message::Have(any_piece(rng, facts))),
        Hostility::Cancels => flood(rng, &|rng| Message::Cancel(any_block(rng, facts))),
        Hostility::Requests => flood(rng, &|rng| Message::Request(any_block(rng, facts))),
        Hostility::Rejects => flood(rng, &|rng| match rng.below(3) {
            0 => Message::AllowedFast(any_piece(rng, facts)),
            _ => Message::Reject(any_block(rng, facts)),
        }),
        Hostility::Flips => flood(rng, &|rng| match rng.below(4) {
            0 => Message::Interested,
            1 => Message::NotInterested,
            2 => Message::Choke,
            _ => Message::Unchoke,
        }),
        Hostility::Stocks => stock(rng, facts, out),
        Hostility::Exchange => exchange(rng, out),
        Hostility::Scripted => {}
        Hostility::Extensions => {
            let mut payload = vec![b'd', b'1', b':', b'm', b'd'];
            payload.extend((0..rng.index(200)).map(|_| b"e0123456789:dilutm_pex-"[rng.index(23)]));
            encode(&Message::Extended { id: rng.below(5) as u8, payload: &payload }, out);
        }
    }
    None
}

impl Node {
    /// Whether a hostile peer has more to say on a connection.
    pub(super) fn is_hostile_on(&self, slot: u32) -> bool {
        let connection = self.connections.get(slot as usize).and_then(Option::as_ref);
        connection.is_some_and(|connection| connection.malice < PACKETS_MAX && connection.machine.is_open())
    }
}
