//! A whole little swarm of torrent machines without workers: one seed and eight leeches that give each other what they
//! have, by facts and actions alone. Everybody gives one block a turn.

use super::*;
use crate::bitfield::Bitfield;
use crate::peer::{Stock, Wish, WishTerms};
use crate::peer_list::PeerListSettings;
use crate::picker::{Order, PieceShape};
use crate::units::BLOCK_LEN;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const PIECES: u32 = 40;
const BLOCKS: u32 = 4;
const PIPELINE: usize = 4;
const SEED: usize = 0;

struct Leech {
    machine: TorrentMachine,
    has: Bitfield,
    /// Blocks asked of each other, in order.
    asked: Vec<Vec<BlockSpan>>,
    interested: BTreeSet<usize>,
    gone: BTreeSet<usize>,
    /// By piece and block: whether it is there, and right.
    blocks: BTreeMap<PieceIndex, Vec<Option<bool>>>,
    satisfied: bool,
    banned: BTreeSet<usize>,
}

struct Swarm {
    now: Instant,
    rng: Rng,
    /// The first is the seed, whose machine does nothing.
    peers: Vec<Leech>,
    liar: Option<usize>,
    /// What each has still to do.
    actions: VecDeque<(usize, TorrentAction)>,
}

fn conn(other: usize) -> ConnId {
    ConnId { worker: 0, slot: other as u32, generation: 0 }
}

fn hashes(blocks: &[Option<bool>]) -> Vec<[u8; 20]> {
    blocks.iter().map(|right| [u8::from(*right == Some(true)); 20]).collect()
}

impl Swarm {
    fn new(seed: u64, liar: Option<usize>) -> Self {
        let mut rng = Rng::from_seed(seed);
        let total_len = u64::from(PIECES * BLOCKS * BLOCK_LEN);
        let shape = PieceShape { piece_count: PIECES, piece_length: BLOCKS * BLOCK_LEN, total_len };
        let peers = (0..9).map(|number| {
            let mut machine = TorrentMachine::new(TorrentParameters {
                role: Role::Leeching,
                slots: Slots::Fixed(4),
                piece_len: shape.piece_length,
                total_len,
            });
            machine.keep_members(PeerListSettings::new(PeerId([100; 20])));
            let has = if number == SEED { Bitfield::all(PIECES) } else { Bitfield::none(PIECES) };
            if number != SEED {
                let plan = DownloadPlan {
                    shape,
                    have: Bitfield::none(PIECES),
                    wanted: Bitfield::all(PIECES),
                    first: Bitfield::none(PIECES),
                    order: Order::RarestFirst,
                };
                machine.begin_download(&plan, &mut rng);
            }
            Leech {
                machine,
                has,
                asked: vec![Vec::new(); 9],
                interested: BTreeSet::new(),
                gone: BTreeSet::new(),
                blocks: BTreeMap::new(),
                satisfied: number == SEED,
                banned: BTreeSet::new(),
            }
        });
        let peers = peers.collect();
        let mut swarm = Self { now: START, rng, peers, liar, actions: VecDeque::new() };
        for me in 1..9 {
            for other in (0..9).filter(|&other| other != me) {
                let remote = IpAddr::from(Ipv4Addr::new(198, 18, other as u8, 1));
                let newcomer = Newcomer { remote, peer_id: PeerId([other as u8; 20]), dialled: None };
                let Swarm { peers, rng, now, .. } = &mut swarm;
                assert!(peers[me].machine.handle_newcomer(*now, conn(other), newcomer, rng));
                let stock = if other == SEED { Stock::All } else { Stock::None };
                peers[me].machine.handle_stock(*now, conn(other), stock, rng);
            }
            swarm.drain(me);
        }
        swarm
    }

    fn drain(&mut self, me: usize) {
        loop {
            while let Some(action) = self.peers[me].machine.poll_action() {
                self.actions.push_back((me, action));
            }
            let Some((who, action)) = self.actions.pop_front() else { return };
            self.obey(who, action);
            while let Some(action) = self.peers[who].machine.poll_action() {
                self.actions.push_back((who, action));
            }
        }
    }

    fn obey(&mut self, me: usize, action: TorrentAction) {
        let (now, Self { peers, rng, actions, .. }) = (self.now, &mut *self);
        let leech = &mut peers[me];
        match action {
            TorrentAction::Interest(of, true) => {
                leech.interested.insert(of.slot as usize);
                Self::wish(leech, now, of.slot as usize, rng);
            }
            TorrentAction::Interest(of, false) => {
                leech.interested.remove(&(of.slot as usize));
            }
            TorrentAction::Ask(of, spans) => {
                for span in &spans {
                    leech.blocks.entry(span.piece).or_insert_with(|| vec![None; BLOCKS as usize]);
                }
                leech.asked[of.slot as usize].extend(spans);
            }
            TorrentAction::Cancel(of, span) => {
                leech.asked[of.slot as usize].retain(|&asked| asked != span);
                Self::wish(leech, now, of.slot as usize, rng);
            }
            TorrentAction::Verify { piece, want_block_hashes } => {
                let blocks = leech.blocks[&piece].clone();
                let right = blocks.iter().all(|&block| block == Some(true));
                let block_hashes = hashes(&blocks);
                let result = match right {
                    true => PieceResult::Verified { block_hashes: want_block_hashes.then_some(block_hashes) },
                    false => PieceResult::Failed { block_hashes },
                };
                leech.machine.handle_piece(now, piece, result, rng);
            }
            TorrentAction::Forget(piece) => {
                // What still comes for the old buffer is lost with it.
                leech.blocks.remove(&piece);
                leech.asked.iter_mut().for_each(|asked| asked.retain(|span| span.piece != piece));
            }
            TorrentAction::Have(piece) => {
                assert!(leech.has.insert(piece), "told twice");
                for other in (1..9).filter(|&other| other != me) {
                    if !peers[other].gone.contains(&me) {
                        peers[other].machine.handle_haves(now, conn(me), &[piece], rng);
                    }
                    while let Some(action) = peers[other].machine.poll_action() {
                        actions.push_back((other, action));
                    }
                }
            }
            TorrentAction::Close(of) => {
                let other = of.slot as usize;
                leech.gone.insert(other);
                leech.interested.remove(&other);
                leech.asked[other].clear();
                leech.machine.handle_closed(now, of, Closed::Normal, PeerSample::default(), rng);
            }
            TorrentAction::Banned { peer_id, .. } => {
                assert!(leech.banned.insert(peer_id.0[0] as usize), "a peer is banned once");
            }
            TorrentAction::Satisfied => assert!(!std::mem::replace(&mut leech.satisfied, true)),
            other => {
                assert!(matches!(other, TorrentAction::Unchoke(_) | TorrentAction::Choke(_)), "{other:?}")
            }
        }
    }

    fn wish(leech: &mut Leech, now: Instant, of: usize, rng: &mut Rng) {
        let room = PIPELINE.saturating_sub(leech.asked[of].len());
        if leech.interested.contains(&of) && room > 0 {
            let wish = Wish { count: room as u32, rate: ByteRate(10_000), terms: WishTerms::Unchoked };
            leech.machine.handle_wish(now, conn(of), Some(wish), rng);
        }
    }

    /// Everybody gives one block to somebody who has asked for one.
    fn turn(&mut self) {
        self.now += crate::time::Duration::from_millis(100);
        for giver in 0..9 {
            let askers: Vec<usize> = (1..9).filter(|&me| !self.peers[me].asked[giver].is_empty()).collect();
            if askers.is_empty() {
                continue;
            }
            let me = askers[self.rng.index(askers.len())];
            let right = self.liar != Some(giver) || self.rng.below(2) == 0;
            let has = self.peers[giver].has.clone();
            let (now, Self { peers, rng, .. }) = (self.now, &mut *self);
            let leech = &mut peers[me];
            let span = leech.asked[giver].remove(0);
            assert!(has.contains(span.piece), "{span} was asked of a peer without it");
            let block = (span.begin / BLOCK_LEN) as usize;
            let block = leech.blocks.get_mut(&span.piece).map(|blocks| &mut blocks[block]);
            if let Some(block) = block.filter(|block| block.is_none()) {
                *block = Some(right);
                leech.machine.handle_block(now, conn(giver), span, rng);
            } else {
                leech.machine.handle_returned(now, conn(giver), &[span], rng);
            }
            Self::wish(leech, now, giver, rng);
            self.drain(me);
        }
    }

    /// Turns until everybody has everything.
    fn run(&mut self) -> u32 {
        let done = |swarm: &Self| swarm.peers.iter().all(|leech| leech.satisfied && leech.has.is_full());
        let turns = (0..10_000).find(|_| {
            self.turn();
            done(self)
        });
        turns.unwrap_or_else(|| {
            let state = self.peers.iter().map(|leech| {
                let asked: Vec<usize> = leech.asked.iter().map(Vec::len).collect();
                (leech.has.count(), asked, leech.interested.clone(), leech.gone.clone())
            });
            panic!("not everybody completes: {:?}", state.collect::<Vec<_>>())
        })
    }
}

#[test]
fn a_seed_that_gives_each_block_little_more_than_once_serves_eight() {
    for seed in 0..10 {
        let turns = Swarm::new(seed, None).run();
        // The seed alone needs one turn for each block; every leech then gets one a turn.
        assert!(turns < PIECES * BLOCKS * 2, "seed {seed}: {turns} turns");
    }
}

#[test]
fn pieces_spread_so_that_the_rarest_is_not_far_behind_the_mean() {
    for seed in 0..10 {
        let mut swarm = Swarm::new(seed, None);
        (0..PIECES * BLOCKS).for_each(|_| swarm.turn());
        let copies =
            |piece| swarm.peers[1..].iter().filter(|leech| leech.has.contains(PieceIndex(piece))).count();
        let copies: Vec<usize> = (0..PIECES).map(copies).collect();
        // What the seed has given out by then is nearly all that it had time for, and nearly everybody has it.
        let given_out = copies.iter().filter(|&&count| count > 0).count();
        let rare = copies.iter().filter(|&&count| (1..4).contains(&count)).count();
        assert!(given_out * 2 > PIECES as usize && rare * 4 <= given_out, "seed {seed}: {copies:?}");
    }
}

#[test]
fn a_liar_is_convicted_by_those_it_lied_to_and_nobody_else_is() {
    for seed in 0..10 {
        let mut swarm = Swarm::new(seed, Some(3));
        swarm.run();
        let banned: BTreeSet<usize> =
            swarm.peers.iter().flat_map(|leech| leech.banned.iter().copied()).collect();
        assert_eq!(banned, BTreeSet::from([3]), "seed {seed}");
    }
}

#[test]
fn storage_that_is_slow_to_answer_is_given_no_piece_twice() {
    let mut rng = Rng::from_seed(1);
    let total_len = u64::from(2 * BLOCK_LEN);
    let shape = PieceShape { piece_count: 2, piece_length: BLOCK_LEN, total_len };
    let mut machine = TorrentMachine::new(TorrentParameters {
        role: Role::Leeching,
        slots: Slots::Fixed(4),
        piece_len: BLOCK_LEN,
        total_len,
    });
    let (have, wanted, first) = (Bitfield::none(2), Bitfield::all(2), Bitfield::none(2));
    machine.begin_download(&DownloadPlan { shape, have, wanted, first, order: Order::RarestFirst }, &mut rng);
    machine.keep_members(PeerListSettings::new(PeerId([100; 20])));
    let remote = IpAddr::from(Ipv4Addr::new(198, 18, 1, 1));
    let newcomer = Newcomer { remote, peer_id: PeerId([1; 20]), dialled: None };
    assert!(machine.handle_newcomer(START, conn(1), newcomer, &mut rng));
    machine.handle_stock(START, conn(1), Stock::All, &mut rng);
    let wish = Wish { count: 2, rate: ByteRate(10_000), terms: WishTerms::Unchoked };
    machine.handle_wish(START, conn(1), Some(wish), &mut rng);
    for piece in [0, 1] {
        let span = BlockSpan { piece: PieceIndex(piece), begin: 0, len: BLOCK_LEN };
        machine.handle_block(START, conn(1), span, &mut rng);
    }
    let given = |machine: &mut TorrentMachine| -> Vec<u32> {
        let actions = std::iter::from_fn(|| machine.poll_action());
        let pieces = actions.filter_map(|action| match action {
            TorrentAction::Verify { piece, .. } => Some(piece.0),
            _ => None,
        });
        pieces.collect()
    };
    let refused = || PieceResult::Unwritable { reason: "no space".into() };
    let mut now = START;
    let retry = |machine: &mut TorrentMachine, now: &mut Instant, rng: &mut Rng| {
        *now += crate::limits::STORAGE_RETRY_INTERVAL;
        machine.handle_timeout(*now, |_| PeerSample::default(), rng);
    };
    assert_eq!(given(&mut machine), [0, 1]);
    machine.handle_piece(now, PieceIndex(0), refused(), &mut rng);
    retry(&mut machine, &mut now, &mut rng);
    assert_eq!(given(&mut machine), [0]);
    // The second is refused while the first is being tried.
    machine.handle_piece(now, PieceIndex(1), refused(), &mut rng);
    retry(&mut machine, &mut now, &mut rng);
    assert_eq!(given(&mut machine), [1]);
    for piece in [0, 1] {
        machine.handle_piece(now, PieceIndex(piece), PieceResult::Verified { block_hashes: None }, &mut rng);
    }
    let told: Vec<_> = std::iter::from_fn(|| machine.poll_action()).collect();
    let has = |wanted: fn(&TorrentAction) -> bool| told.iter().any(wanted);
    assert!(has(|action| matches!(action, TorrentAction::StorageRecovered)), "{told:?}");
    assert!(has(|action| matches!(action, TorrentAction::Satisfied)), "{told:?}");
    // What is stored is not halted for by a refusal that comes late.
    machine.handle_piece(now, PieceIndex(0), refused(), &mut rng);
    assert!(machine.poll_action().is_none());
}
