//! Rules one by one, then small swarms: peers that trade among themselves, that leave, that say nothing.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use proptest::prelude::*;

const START: Instant = Instant::from_nanos(86_400_000_000_000);

fn conn(number: usize) -> ConnId {
    ConnId { worker: 0, slot: number as u32, generation: 0 }
}

fn at(secs: u64) -> Instant {
    START + Duration::from_secs(secs)
}

fn with_peers(pieces: u32, peers: usize) -> SuperSeed {
    let mut policy = SuperSeed::new(pieces);
    (0..peers).for_each(|number| policy.handle_joined(START, conn(number)));
    policy
}

fn reveals(policy: &mut SuperSeed, now: Instant) -> Vec<(ConnId, PieceIndex)> {
    std::iter::from_fn(|| policy.poll_reveal(now)).collect()
}

fn pairs(list: &[(usize, u32)]) -> Vec<(ConnId, PieceIndex)> {
    list.iter().map(|&(number, piece)| (conn(number), PieceIndex(piece))).collect()
}

#[test]
fn each_peer_is_shown_one_piece_of_its_own() {
    let mut policy = with_peers(10, 3);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1), (2, 2)]));
    assert!(policy.may_request(conn(1), PieceIndex(1)));
    assert!(!policy.may_request(conn(1), PieceIndex(0)) && !policy.may_request(conn(7), PieceIndex(0)));
}

#[test]
fn the_next_is_shown_when_the_piece_is_seen_at_another() {
    let mut policy = with_peers(10, 2);
    reveals(&mut policy, START);
    policy.handle_have(at(1), conn(0), PieceIndex(0));
    assert_eq!(reveals(&mut policy, at(1)), []);
    policy.handle_have(at(2), conn(1), PieceIndex(0));
    assert_eq!(reveals(&mut policy, at(2)), pairs(&[(0, 2)]));
    assert!(policy.may_request(conn(0), PieceIndex(0)), "what was shown may still be asked for");
}

#[test]
fn pieces_that_a_peer_brought_are_not_shown() {
    let mut policy = with_peers(4, 2);
    let mut stock = Bitfield::none(4);
    stock.insert(PieceIndex(0));
    stock.insert(PieceIndex(2));
    policy.handle_stock(START, conn(0), &stock);
    policy.handle_stock(START, conn(1), &Bitfield::all(5));
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 1), (1, 3)]));
    assert_eq!(policy.unseen(), 2);
}

#[test]
fn a_peer_alone_goes_on_as_soon_as_it_has_the_piece() {
    let mut policy = with_peers(3, 1);
    for piece in 0..3 {
        assert_eq!(reveals(&mut policy, START), pairs(&[(0, piece)]));
        policy.handle_have(START, conn(0), PieceIndex(piece));
    }
    assert!(policy.is_over() && policy.may_request(conn(5), PieceIndex(2)));
    assert_eq!((policy.poll_timeout(), policy.poll_reveal(START)), (None, None));
}

#[test]
fn a_peer_that_never_says_have_goes_on_when_served_or_after_the_patience() {
    let mut policy = with_peers(3, 1);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0)]));
    policy.handle_served(at(5), conn(0), PieceIndex(0));
    assert_eq!(reveals(&mut policy, at(5)), pairs(&[(0, 1)]));
    let due = at(5) + SUPERSEED_PATIENCE;
    assert_eq!(policy.poll_timeout(), Some(due));
    policy.handle_timeout(due);
    assert_eq!(reveals(&mut policy, due), pairs(&[(0, 2)]));
}

#[test]
fn a_pieces_last_holder_that_leaves_makes_it_fresh_again() {
    let mut policy = with_peers(2, 2);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1)]));
    policy.handle_have(START, conn(0), PieceIndex(0));
    policy.handle_left(conn(0));
    policy.handle_have(at(1), conn(1), PieceIndex(1));
    assert_eq!(reveals(&mut policy, at(1)), pairs(&[(1, 0)]));
}

#[test]
fn when_all_are_shown_the_patient_wait_and_the_impatient_share() {
    let mut policy = with_peers(2, 3);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1)]));
    let due = policy.poll_timeout().expect("three peers wait");
    policy.handle_timeout(due);
    assert_eq!(reveals(&mut policy, due).len(), 3);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Seeding {
    Plain,
    Super,
}

/// Peers that give each other a piece in five seconds, and a seed that gives two a second. Each peer knows what a few
/// neighbours have, and takes what is rarest among them. Counts the pieces that the seed sent.
struct Model {
    pieces: u32,
    has: Vec<BTreeSet<u32>>,
    present: Vec<bool>,
    neighbours: Vec<Vec<usize>>,
    rng: Rng,
    policy: SuperSeed,
    shown: Vec<BTreeSet<u32>>,
    uploaded: u32,
    seeding: Seeding,
    silent: bool,
    now: Instant,
}

impl Model {
    fn new(seeding: Seeding, pieces: u32, peers: usize, seed: u64) -> Self {
        let mut rng = Rng::from_seed(seed);
        let neighbours = (0..peers)
            .map(|own| {
                let mut others: Vec<usize> = (0..peers).filter(|&other| other != own).collect();
                rng.shuffle(&mut others);
                others.truncate(4);
                others
            })
            .collect();
        Self {
            pieces,
            has: vec![BTreeSet::new(); peers],
            present: vec![true; peers],
            neighbours,
            rng,
            policy: with_peers(pieces, peers),
            shown: vec![BTreeSet::new(); peers],
            uploaded: 0,
            seeding,
            silent: false,
            now: START,
        }
    }

    fn all_out(&self) -> bool {
        (0..self.pieces).all(|piece| {
            self.has.iter().zip(&self.present).any(|(has, present)| *present && has.contains(&piece))
        })
    }

    /// Of the pieces that `number` lacks and that `offered` has the rarest among its neighbours.
    fn rarest(&mut self, number: usize, offered: &BTreeSet<u32>) -> Option<u32> {
        let mut wanted: Vec<u32> = offered.difference(&self.has[number]).copied().collect();
        self.rng.shuffle(&mut wanted);
        let seen = |piece: &u32| {
            self.neighbours[number].iter().filter(|&&other| self.has[other].contains(piece)).count()
        };
        wanted.into_iter().min_by_key(seen)
    }

    fn give(&mut self, number: usize, piece: u32) {
        if self.has[number].insert(piece) && !self.silent {
            self.policy.handle_have(self.now, conn(number), PieceIndex(piece));
        }
    }

    fn second(&mut self) {
        self.now += Duration::from_secs(1);
        if self.policy.poll_timeout().is_some_and(|due| due <= self.now) {
            self.policy.handle_timeout(self.now);
        }
        while let Some((conn, piece)) = self.policy.poll_reveal(self.now) {
            assert!(self.shown[conn.slot as usize].insert(piece.0), "shown twice");
        }
        let whole: BTreeSet<u32> = (0..self.pieces).collect();
        let mut order: Vec<usize> = (0..self.has.len()).filter(|&number| self.present[number]).collect();
        self.rng.shuffle(&mut order);
        let mut slots = 2;
        for &number in &order {
            let offered = match self.seeding {
                Seeding::Plain => whole.clone(),
                Seeding::Super if self.policy.is_over() => whole.clone(),
                Seeding::Super => self.shown[number].clone(),
            };
            if slots > 0
                && let Some(piece) = self.rarest(number, &offered)
            {
                self.uploaded += 1;
                slots -= 1;
                self.give(number, piece);
            }
        }
        for &number in &order {
            let takers = self.neighbours[number].clone();
            if self.rng.below(5) > 0 {
                continue;
            }
            let taker = takers[self.rng.index(takers.len())..].iter().find(|&&other| self.present[other]);
            let offered = self.has[number].clone();
            if let Some(&taker) = taker
                && let Some(piece) = self.rarest(taker, &offered)
            {
                self.give(taker, piece);
            }
        }
    }

    /// Seconds until all pieces are out, at most `limit`.
    fn run(&mut self, limit: u32) -> Option<u32> {
        (0..limit).find(|_| {
            self.second();
            self.all_out()
        })
    }
}

#[test]
fn the_first_copy_costs_hardly_more_than_one_copy_and_less_than_plain_seeding() {
    let (mut sent, mut sent_plainly) = (0, 0);
    for seed in 0..5 {
        for (seeding, sum) in [(Seeding::Super, &mut sent), (Seeding::Plain, &mut sent_plainly)] {
            let mut model = Model::new(seeding, 200, 20, seed);
            assert!(model.run(10_000).is_some(), "seed {seed}: the swarm never has all");
            *sum += model.uploaded;
        }
    }
    assert!(sent * 10 <= 5 * 200 * 12, "{sent} pieces sent for five copies of 200");
    assert!(sent * 11 < sent_plainly * 10, "{sent} against {sent_plainly}");
}

#[test]
fn nobody_is_stuck_however_few_or_silent_the_peers_are() {
    for (peers, silent) in [(2, false), (3, false), (2, true), (10, true)] {
        let mut model = Model::new(Seeding::Super, 20, peers, 1);
        model.silent = silent;
        let limit = 25 * u32::try_from(SUPERSEED_PATIENCE.as_secs()).expect("a minute or so");
        assert!(model.run(limit).is_some(), "{peers} peers, silent {silent}");
    }
}

#[test]
fn leavers_take_nothing_with_them_for_good() {
    for seed in 0..5 {
        let mut model = Model::new(Seeding::Super, 60, 12, seed);
        for number in 0..9 {
            (0..5).for_each(|_| model.second());
            model.present[number] = false;
            model.has[number].clear();
            model.policy.handle_left(conn(number));
        }
        assert!(model.run(10_000).is_some(), "seed {seed}");
    }
}

proptest! {
    /// The oracle recounts everything from the messages.
    #[test]
    fn whatever_peers_say_the_numbers_are_true_and_no_wait_is_endless(
        pieces in 1u32..12, events in prop::collection::vec((0u8..6, 0usize..5, 0u32..14, 0u64..40), 0..200),
    ) {
        let mut policy = SuperSeed::new(pieces);
        let mut has: BTreeMap<ConnId, BTreeSet<u32>> = BTreeMap::new();
        let mut shown: BTreeMap<ConnId, BTreeSet<u32>> = BTreeMap::new();
        let (mut now, mut over) = (START, false);
        for (event, number, piece, wait) in events {
            now += Duration::from_secs(wait);
            let (conn, index) = (conn(number), PieceIndex(piece));
            match event {
                0 => {
                    policy.handle_joined(now, conn);
                    has.insert(conn, BTreeSet::new());
                    shown.insert(conn, BTreeSet::new());
                }
                1 => {
                    policy.handle_left(conn);
                    has.remove(&conn);
                    shown.remove(&conn);
                }
                2 => policy.handle_served(now, conn, index),
                _ => {
                    policy.handle_have(now, conn, index);
                    if let Some(has) = has.get_mut(&conn).filter(|_| piece < pieces) {
                        has.insert(piece);
                    }
                }
            }
            policy.handle_timeout(now);
            while let Some((conn, piece)) = policy.poll_reveal(now) {
                prop_assert!(!policy.is_over());
                prop_assert!(!has.values().any(|has| has.contains(&piece.0)), "a seen piece is shown");
                let shown = shown.get_mut(&conn).expect("only those present are shown pieces");
                prop_assert!(shown.insert(piece.0), "shown twice");
            }
            let unseen = (0..pieces).filter(|piece| !has.values().any(|has| has.contains(piece))).count();
            over |= unseen == 0;
            prop_assert_eq!(policy.is_over(), over);
            if !over {
                prop_assert_eq!(policy.unseen() as usize, unseen);
                prop_assert_eq!(policy.poll_timeout().is_some(), !has.is_empty());
                prop_assert!(policy.poll_timeout().is_none_or(|due| due > now));
            }
        }
    }
}
