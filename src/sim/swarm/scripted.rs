//! A peer whose words are written down beforehand: whole messages, a packet of them at a time, for whoever searches for
//! the words that harm (the fuzz target `swarm_session`).
//!
//! A script is any bytes, and each byte means something. It names messages, the numbers in them, how often they are said
//! again, and where a packet ends.

use crate::bitfield::Bitfield;
use crate::peer::TorrentFacts;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use crate::wire::{Message, encode};

/// Bytes of one packet; what the script says beyond goes with the next one.
const PACKET_LEN_MAX: usize = 64 * 1024;

/// What a peer is going to say.
#[derive(Debug)]
pub struct Script {
    bytes: Vec<u8>,
    at: usize,
}

impl Script {
    /// A peer that says this.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    /// Whether everything has been said.
    pub fn is_over(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn byte(&mut self) -> u8 {
        let byte = self.bytes.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        byte
    }

    /// So many bytes as the next one says.
    fn some(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte());
        let from = self.at.min(self.bytes.len());
        let to = (from + len).min(self.bytes.len());
        self.at = to;
        self.bytes[from..to].to_vec()
    }

    /// A piece of the content, or one of those behind its end.
    fn piece(&mut self, facts: &TorrentFacts) -> PieceIndex {
        PieceIndex(u32::from(self.byte()) % (facts.piece_count() + 2))
    }

    /// A block of the content, or what is nearly one.
    fn span(&mut self, facts: &TorrentFacts) -> BlockSpan {
        let piece = self.piece(facts);
        let place = self.byte();
        let begin = u32::from(place & 0x0f) * BLOCK_LEN;
        let left =
            if piece.0 < facts.piece_count() { facts.piece_len(piece).saturating_sub(begin) } else { 0 };
        match place >> 4 {
            0xf => BlockSpan { piece, begin: begin + 1, len: BLOCK_LEN },
            0xe => BlockSpan { piece, begin, len: u32::MAX },
            0xd => BlockSpan { piece, begin, len: 0 },
            _ => BlockSpan { piece, begin, len: left.min(BLOCK_LEN) },
        }
    }

    /// Appends the messages of the next packet; a block that nobody may have asked for ends it.
    pub fn say(&mut self, facts: &TorrentFacts, out: &mut Vec<u8>) -> Option<BlockSpan> {
        let start = out.len();
        let mut last = out.len()..out.len();
        while !self.is_over() && out.len() - start < PACKET_LEN_MAX {
            let before = out.len();
            match self.byte() {
                0 => encode(&Message::Choke, out),
                1 => encode(&Message::Unchoke, out),
                2 => encode(&Message::Interested, out),
                3 => encode(&Message::NotInterested, out),
                4 => encode(&Message::Have(self.piece(facts)), out),
                5 => encode(&Message::Bitfield(&self.some()), out),
                6 => encode(&Message::Request(self.span(facts)), out),
                7 => return Some(self.span(facts)),
                8 => encode(&Message::Cancel(self.span(facts)), out),
                9 => encode(&Message::HaveAll, out),
                10 => encode(&Message::HaveNone, out),
                11 => encode(&Message::Reject(self.span(facts)), out),
                12 => encode(&Message::Suggest(self.piece(facts)), out),
                13 => encode(&Message::AllowedFast(self.piece(facts)), out),
                14 => {
                    let id = self.byte() % 6;
                    encode(&Message::Extended { id, payload: &self.some() }, out);
                }
                15 => {
                    let lost = self.piece(facts).0.to_be_bytes();
                    encode(&Message::Extended { id: crate::peer::OUR_DONT_HAVE_ID, payload: &lost }, out);
                }
                16 => {
                    let mut pieces = Bitfield::none(facts.piece_count());
                    let share = self.byte();
                    for piece in (0..facts.piece_count()).filter(|piece| piece % 8 < u32::from(share % 9)) {
                        pieces.insert(PieceIndex(piece));
                    }
                    encode(&Message::Bitfield(pieces.as_bytes()), out);
                }
                17 => encode(&Message::KeepAlive, out),
                18 => {
                    let hello = [&b"d1:md11:lt_donthavei7e11:ut_metadatai3e6:ut_pexi2eee"[..], b"de"];
                    encode(&Message::Extended { id: 0, payload: hello[usize::from(self.byte() & 1)] }, out);
                }
                // What was just said, many times.
                times @ 0xe0.. => {
                    let words = out[last.clone()].to_vec();
                    for _ in 0..1 << (times & 0x0f).min(11) {
                        if out.len() - start >= PACKET_LEN_MAX {
                            break;
                        }
                        out.extend_from_slice(&words);
                    }
                }
                // The end of the packet.
                0xc0.. => return None,
                _ => {}
            }
            last = before..out.len();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::super::{ContentShape, Hostility, Manner, PeerNumber, PeerTerms, Policies, Swarm};
    use crate::bitfield::Bitfield;
    use crate::rng::Rng;
    use crate::time::{Duration, Instant};
    use crate::units::ByteRate;

    /// A seed, a leech, and two that say what is written.
    fn swarm(scripts: [Vec<u8>; 2]) -> Swarm {
        let shape = ContentShape { piece_length: 65_536, total_len: 20 * 65_536 - 9_000 };
        let honest = |have| PeerTerms::new(ByteRate(2_000_000), have);
        let scripted = |have| PeerTerms { manner: Manner::Hostile(Hostility::Scripted), ..honest(have) };
        let peers = vec![
            honest(Bitfield::all(20)),
            honest(Bitfield::none(20)),
            scripted(Bitfield::none(20)),
            scripted(Bitfield::all(20)),
        ];
        let mut swarm = Swarm::new(1, shape, Policies::default(), peers);
        swarm.check_every(20);
        for (number, script) in (2..).map(PeerNumber).zip(scripts) {
            swarm.give_script(number, script);
        }
        swarm
    }

    #[test]
    fn whatever_is_said_everything_stays_within_its_bounds_and_the_honest_complete() {
        for seed in 0..60 {
            let mut rng = Rng::from_seed(seed);
            let scripts = [(); 2].map(|()| {
                // Small numbers are messages; one in eight is any byte, floods and ends of packets among them.
                let byte = |rng: &mut Rng| match rng.below(8) {
                    0 => rng.next_u64() as u8,
                    _ => rng.below(19) as u8,
                };
                (0..400).map(|_| byte(&mut rng)).collect()
            });
            let mut swarm = swarm(scripts);
            swarm.run_on(Instant::ZERO + Duration::from_secs(900));
            assert_eq!(swarm.violation(), None, "seed {seed}");
            let leech = swarm.outcomes().nth(1).expect("there are four");
            assert!(leech.completed_at.is_some(), "seed {seed}: the leech has {} pieces", leech.pieces);
        }
    }
}
