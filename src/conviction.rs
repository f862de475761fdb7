//! Who sent the wrong block of a piece that failed its hash.
//!
//! A failed piece of several contributors proves only that one of them lied. What each of them sent is remembered as
//! a hash of each block; when the piece has been fetched again and verified, the blocks whose hashes differ name
//! their senders. A failed piece that one connection sent whole convicts it at once.
//!
//! Invariant: nobody is convicted on suspicion. A contributor is guilty only when bytes that came over its own
//! connection differ from bytes that the torrent's hash has verified, or when all bytes of a failed piece were its.
//! What is remembered is bounded; at the bound the oldest piece is forgotten, which may spare a liar but accuses
//! nobody. Deliberately absent: the bans, and the hashing.

use crate::id::{ConnId, PeerId};
use crate::limits::SUSPECT_BLOCKS_MAX;
use crate::units::PieceIndex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;

/// Who sent a block. The connection is what counts; address and name say whom to ban.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Contributor {
    /// The address the connection was with.
    pub ip: IpAddr,
    /// The peer's name for itself.
    pub peer_id: PeerId,
    /// The connection.
    pub conn: ConnId,
}

/// What is remembered of failed pieces.
#[derive(Clone, Debug, Default)]
pub struct Convictions {
    suspects: BTreeMap<PieceIndex, BTreeSet<Suspect>>,
    /// The pieces of `suspects`, the first to fail first.
    order: VecDeque<PieceIndex>,
    blocks: usize,
}

/// One block that was part of a failed piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Suspect {
    /// Place of the block within its piece.
    block: usize,
    hash: [u8; 20],
    contributor: Contributor,
}

impl Convictions {
    /// No failed piece yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A piece failed its hash; `blocks` are all its blocks in order, each with its SHA-1 and who sent it. Gives the
    /// contributor when there was only one, who is guilty. Otherwise the blocks are remembered.
    #[must_use]
    pub fn handle_failed(
        &mut self,
        piece: PieceIndex,
        blocks: &[([u8; 20], Contributor)],
    ) -> Vec<Contributor> {
        let Some((_, first)) = blocks.first() else { return Vec::new() };
        if blocks.iter().all(|(_, contributor)| contributor.conn == first.conn) {
            return vec![*first];
        }
        self.make_room(blocks.len());
        let suspects = self.suspects.entry(piece).or_insert_with(|| {
            self.order.push_back(piece);
            BTreeSet::new()
        });
        for (block, &(hash, contributor)) in blocks.iter().enumerate().take(SUSPECT_BLOCKS_MAX) {
            self.blocks += usize::from(suspects.insert(Suspect { block, hash, contributor }));
        }
        Vec::new()
    }

    /// Whether [`Self::handle_verified`] could convict somebody by the hashes of this piece's blocks.
    pub fn wants_hashes(&self, piece: PieceIndex) -> bool {
        self.suspects.contains_key(&piece)
    }

    /// A piece that failed before is verified; `hashes` are those of all its blocks in order. Gives everybody who once
    /// sent something else, in order, each connection once, and forgets the piece.
    #[must_use]
    pub fn handle_verified(&mut self, piece: PieceIndex, hashes: &[[u8; 20]]) -> Vec<Contributor> {
        let suspects = self.forget(piece);
        let guilty = suspects.iter().filter(|suspect| {
            // A block that is not there proves nothing.
            hashes.get(suspect.block).is_some_and(|hash| *hash != suspect.hash)
        });
        let mut guilty: Vec<_> = guilty.map(|suspect| suspect.contributor).collect();
        guilty.sort_unstable();
        guilty.dedup_by_key(|contributor| contributor.conn);
        guilty
    }

    /// Blocks remembered.
    pub fn suspects(&self) -> usize {
        self.blocks
    }

    /// Forgets the oldest pieces until `blocks` more fit.
    fn make_room(&mut self, blocks: usize) {
        while self.blocks + blocks.min(SUSPECT_BLOCKS_MAX) > SUSPECT_BLOCKS_MAX
            && let Some(&oldest) = self.order.front()
        {
            self.forget(oldest);
        }
    }

    fn forget(&mut self, piece: PieceIndex) -> BTreeSet<Suspect> {
        let suspects = self.suspects.remove(&piece).unwrap_or_default();
        self.order.retain(|&other| other != piece);
        self.blocks -= suspects.len();
        suspects
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use proptest::prelude::*;

    fn contributor(number: u8) -> Contributor {
        Contributor {
            ip: IpAddr::from([192, 0, 2, number]),
            peer_id: PeerId([number; 20]),
            conn: ConnId { worker: 0, slot: number.into(), generation: 0 },
        }
    }

    /// The true hash of a block, and as many false ones as wanted.
    fn hash(block: usize, lie: u8) -> [u8; 20] {
        let mut hash = [lie; 20];
        hash[0] = block as u8;
        hash
    }

    const PIECE: PieceIndex = PieceIndex(7);

    #[test]
    fn who_sent_a_failed_piece_alone_is_guilty_at_once() {
        let mut convictions = Convictions::new();
        let blocks = [(hash(0, 0), contributor(1)), (hash(1, 0), contributor(1))];
        assert_eq!(convictions.handle_failed(PIECE, &blocks), [contributor(1)]);
        assert!(!convictions.wants_hashes(PIECE));
        assert_eq!(convictions.handle_failed(PIECE, &[]), []);
    }

    #[test]
    fn of_several_only_the_one_whose_block_differs_is_guilty() {
        let mut convictions = Convictions::new();
        let blocks =
            [(hash(0, 0), contributor(1)), (hash(1, 66), contributor(2)), (hash(2, 0), contributor(3))];
        assert_eq!(convictions.handle_failed(PIECE, &blocks), []);
        assert!(convictions.wants_hashes(PIECE) && !convictions.wants_hashes(PieceIndex(8)));
        let verified = [hash(0, 0), hash(1, 0), hash(2, 0)];
        assert_eq!(convictions.handle_verified(PIECE, &verified), [contributor(2)]);
        assert_eq!((convictions.wants_hashes(PIECE), convictions.suspects()), (false, 0));
    }

    #[test]
    fn one_name_on_two_connections_is_not_one_contributor() {
        let mut convictions = Convictions::new();
        let again = Contributor { conn: ConnId { worker: 1, slot: 1, generation: 1 }, ..contributor(1) };
        let blocks = [(hash(0, 9), contributor(1)), (hash(1, 0), again)];
        assert_eq!(convictions.handle_failed(PIECE, &blocks), []);
        assert_eq!(convictions.handle_verified(PIECE, &[hash(0, 0), hash(1, 0)]), [contributor(1)]);
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_piece_is_forgotten_first() {
        let mut convictions = Convictions::new();
        let blocks: Vec<_> =
            (0..1024).map(|block| (hash(block, 1), contributor((block % 2) as u8))).collect();
        let fit = SUSPECT_BLOCKS_MAX / blocks.len();
        for piece in 0..=u32::try_from(fit).expect("small") {
            assert_eq!(convictions.handle_failed(PieceIndex(piece), &blocks), []);
            assert!(convictions.suspects() <= SUSPECT_BLOCKS_MAX);
        }
        assert!(!convictions.wants_hashes(PieceIndex(0)) && convictions.wants_hashes(PieceIndex(1)));
        let huge: Vec<_> = (0..2 * SUSPECT_BLOCKS_MAX)
            .map(|block| (hash(block, 1), contributor((block % 2) as u8)))
            .collect();
        assert_eq!(convictions.handle_failed(PieceIndex(1), &huge), []);
        assert_eq!(convictions.suspects(), SUSPECT_BLOCKS_MAX);
    }

    #[test]
    fn a_piece_may_fail_for_ever_within_the_bound() {
        let mut convictions = Convictions::new();
        for round in 0..100_u8 {
            let blocks: Vec<_> =
                (0..1024).map(|block| (hash(block, round), contributor((block % 2) as u8))).collect();
            assert_eq!(convictions.handle_failed(PIECE, &blocks), []);
            assert!(convictions.suspects() <= SUSPECT_BLOCKS_MAX);
        }
    }

    proptest! {
        /// Pieces are fetched from random peers, of whom some lie about some blocks, until they verify.
        #[test]
        fn every_liar_of_a_failed_block_is_convicted_and_nobody_else(seed: u64, liars in 0..6_u8) {
            const PEERS: u8 = 12;
            let mut rng = Rng::from_seed(seed);
            let mut convictions = Convictions::new();
            let (mut convicted, mut lied) = (BTreeSet::new(), BTreeSet::new());
            for piece in (0..6).map(PieceIndex) {
                let blocks = 1 + rng.index(8);
                for attempt in 0.. {
                    let alone = (attempt % 2 == 1).then(|| rng.below(PEERS.into()) as u8);
                    let sent: Vec<_> = (0..blocks)
                        .map(|block| {
                            let peer = alone.unwrap_or_else(|| rng.below(PEERS.into()) as u8);
                            // After some attempts everybody is honest, so that the piece verifies.
                            let lie = if peer < liars && attempt < 8 { rng.below(3) as u8 } else { 0 };
                            (hash(block, lie), contributor(peer))
                        })
                        .collect();
                    let wrong = sent.iter().enumerate().filter(|(block, (sent, _))| *sent != hash(*block, 0));
                    let wrong: Vec<_> = wrong.map(|(_, (_, contributor))| *contributor).collect();
                    lied.extend(&wrong);
                    if wrong.is_empty() {
                        let hashes: Vec<_> = sent.iter().map(|(hash, _)| *hash).collect();
                        let guilty = convictions.handle_verified(piece, &hashes);
                        convicted.extend(guilty);
                        break;
                    }
                    convicted.extend(convictions.handle_failed(piece, &sent));
                    prop_assert!(convicted.is_subset(&lied));
                }
            }
            prop_assert_eq!(convicted, lied);
            prop_assert_eq!(convictions.suspects(), 0);
        }
    }
}
