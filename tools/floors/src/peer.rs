//! What every framed floor answers a peer: the handshake, everything unchoked at once, and a queue of requests.

use crate::Outcome;
use seedring::metainfo::Metainfo;
use seedring::units::BlockSpan;
use seedring::wire::{self, Decoder, DecoderLimits, HANDSHAKE_LEN, Handshake, Message, Reserved};
use std::collections::VecDeque;

/// One peer's side of the wire.
pub struct Peer {
    /// The handshake as far as it has arrived; `None` after it.
    opening: Option<Vec<u8>>,
    decoder: Decoder,
    /// What it has asked for and not yet been sent.
    pub requests: VecDeque<BlockSpan>,
}

impl Peer {
    pub fn new(metainfo: &Metainfo) -> Self {
        Self {
            opening: Some(Vec::new()),
            decoder: Decoder::new(DecoderLimits::for_pieces(metainfo.info().piece_count())),
            requests: VecDeque::new(),
        }
    }

    /// Takes received bytes; appends to `out` what is to be said at once.
    pub fn handle_bytes(&mut self, mut input: &[u8], metainfo: &Metainfo, out: &mut Vec<u8>) -> Outcome<()> {
        if let Some(opening) = &mut self.opening {
            let (head, rest) = input.split_at(input.len().min(HANDSHAKE_LEN - opening.len()));
            opening.extend_from_slice(head);
            input = rest;
            let Ok(bytes) = <&[u8; HANDSHAKE_LEN]>::try_from(opening.as_slice()) else { return Ok(()) };
            let theirs = Handshake::decode(bytes)?;
            let mut reserved = Reserved::NONE;
            reserved.0[7] = Reserved::OURS.0[7];
            let mut peer_id = theirs.peer_id;
            peer_id.0.reverse();
            let ours = Handshake { reserved, info_hash: metainfo.info_hash(), peer_id };
            out.extend_from_slice(&ours.encode());
            wire::encode(&Message::HaveAll, out);
            wire::encode(&Message::Unchoke, out);
            self.opening = None;
        }
        while let Some(message) = self.decoder.decode(&mut input)? {
            if let Message::Request(span) = message {
                if offset(metainfo, span) + u64::from(span.len) > metainfo.info().total_len() {
                    return Err("a request beyond the end".into());
                }
                self.requests.push_back(span);
            }
        }
        Ok(())
    }
}

/// Where a block lies in the content.
pub fn offset(metainfo: &Metainfo, span: BlockSpan) -> u64 {
    u64::from(span.piece.0) * u64::from(metainfo.info().piece_length()) + u64::from(span.begin)
}
