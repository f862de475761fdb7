//! Rules one by one, then small swarms: peers that trade among themselves, that leave, that say nothing.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use proptest::prelude::*;

const START: Instant = Instant::from_nanos(86_400_000_000_000);

fn conn(number: usize) -> ConnId {
    ConnId { worker: 0, slot: number as u32, generation: 0 }
}

fn prefix(number: usize) -> AddressPrefix {
    let [_, _, high, low] = (number as u32).to_be_bytes();
    AddressPrefix::of([11, high, low, 1].into())
}

/// Every peer that was shown a piece asks for it, and has received nothing lately.
const ASKING: Taking = Taking { taken: 0, asks: true };
const SILENT: Taking = Taking { taken: 0, asks: false };

fn at(secs: u64) -> Instant {
    START + Duration::from_secs(secs)
}

fn with_peers(pieces: u32, peers: usize) -> SuperSeed {
    let mut policy = SuperSeed::new(pieces);
    (0..peers).for_each(|number| policy.handle_joined(START, conn(number), prefix(number)));
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
    assert_eq!(wait(&mut policy, due - Duration::from_nanos(1), ASKING), []);
    policy.handle_timeout(due, |_| ASKING);
    assert_eq!(reveals(&mut policy, due), pairs(&[(0, 2)]));
}

#[test]
fn a_pieces_last_holder_that_leaves_makes_it_fresh_again() {
    let mut policy = with_peers(2, 2);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1)]));
    policy.handle_have(START, conn(0), PieceIndex(0));
    policy.handle_left(START, conn(0));
    policy.handle_have(at(1), conn(1), PieceIndex(1));
    assert_eq!(reveals(&mut policy, at(1)), pairs(&[(1, 0)]));
}

#[test]
fn when_all_are_shown_the_patient_wait_and_the_impatient_share() {
    let mut policy = with_peers(2, 3);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1)]));
    let due = START + SUPERSEED_PATIENCE;
    let mut taken = 0;
    let shown = wait_for(&mut policy, due - Duration::from_nanos(1), |_| {
        taken += 1;
        Taking { taken, asks: true }
    });
    assert_eq!(shown, [], "who takes a piece slowly is waited for");
    policy.handle_timeout(due, |_| ASKING);
    assert_eq!(reveals(&mut policy, due).len(), 3);
}

/// What is shown to whom until then, while the counters say this.
fn wait(policy: &mut SuperSeed, until: Instant, taking: Taking) -> Vec<(ConnId, PieceIndex)> {
    wait_for(policy, until, |_| taking)
}

fn wait_for(
    policy: &mut SuperSeed,
    until: Instant,
    mut taking: impl FnMut(ConnId) -> Taking,
) -> Vec<(ConnId, PieceIndex)> {
    let mut shown = Vec::new();
    while let Some(now) = policy.poll_timeout().filter(|&due| due <= until) {
        policy.handle_timeout(now, &mut taking);
        shown.extend(reveals(policy, now));
    }
    shown
}

#[test]
fn what_is_not_asked_for_within_seconds_is_shown_to_who_waits() {
    let mut policy = with_peers(2, 3);
    assert_eq!(reveals(&mut policy, START), pairs(&[(0, 0), (1, 1)]));
    let due = START + SUPERSEED_ASK_TIME;
    assert_eq!(wait(&mut policy, due, SILENT), pairs(&[(2, 0)]));
    assert!(policy.may_request(conn(0), PieceIndex(0)), "what was shown may still be asked for");
    // It was slow, no idler: with the piece it is waited for again.
    policy.handle_served(due, conn(0), PieceIndex(0));
    policy.handle_have(due, conn(1), PieceIndex(0));
    assert_eq!(reveals(&mut policy, due), pairs(&[(0, 1)]), "it had the piece and goes on");
}

#[test]
fn who_passes_on_is_not_made_to_wait_for_those_who_do_not() {
    // 0 and 1 trade; 2 to 5 take what they are shown and keep it to themselves.
    let mut policy = with_peers(8, 6);
    assert_eq!(reveals(&mut policy, START).len(), 6);
    (2..6).for_each(|mute| policy.handle_served(START, conn(mute), PieceIndex(mute as u32)));
    let mut next = vec![(0, 0), (1, 1)];
    let mut now = START;
    let mut shown = 2;
    while let Some((number, piece)) = next.pop() {
        now += Duration::from_millis(100);
        let (from, to) = (conn(number), conn(1 - number));
        policy.handle_served(now, from, PieceIndex(piece));
        policy.handle_have(now, from, PieceIndex(piece));
        policy.handle_have(now, to, PieceIndex(piece));
        let more = reveals(&mut policy, now);
        let more = if more.is_empty() && next.is_empty() && !policy.is_over() {
            now = policy.poll_timeout().expect("they are to be shown what the others have");
            policy.handle_timeout(now, |_| SILENT);
            reveals(&mut policy, now)
        } else {
            more
        };
        shown += more.len();
        next.extend(more.into_iter().map(|(conn, piece)| (conn.slot as usize, piece.0)));
    }
    assert!(policy.is_over(), "{} unseen", policy.unseen());
    assert_eq!(shown, 8);
    assert!(now <= START + SUPERSEED_ASK_TIME + Duration::from_secs(2), "{:?}", now.since(START));
}

#[test]
fn who_has_idle_company_alone_is_shown_piece_after_piece() {
    let mut policy = with_peers(10, 4);
    assert_eq!(reveals(&mut policy, START).len(), 4);
    policy.handle_have(START, conn(0), PieceIndex(0));
    assert_eq!(reveals(&mut policy, START), []);
    let now = START + SUPERSEED_ASK_TIME;
    assert_eq!(wait(&mut policy, now, SILENT), pairs(&[(0, 4)]));
    for piece in 4..9 {
        policy.handle_have(now, conn(0), PieceIndex(piece));
        assert_eq!(reveals(&mut policy, now).len(), 1);
    }
}

#[test]
fn one_network_holds_no_more_than_its_share_unless_it_is_alone() {
    let mut policy = SuperSeed::new(40);
    let crowd = prefix(9);
    (0..30).for_each(|number| policy.handle_joined(START, conn(number), crowd));
    assert_eq!(reveals(&mut policy, START).len(), 30);
    let mut policy = SuperSeed::new(40);
    policy.handle_joined(START, conn(99), prefix(1));
    (0..30).for_each(|number| policy.handle_joined(START, conn(number), crowd));
    assert_eq!(reveals(&mut policy, START).len(), 1 + 10);
    policy.handle_left(START, conn(0));
    assert_eq!(reveals(&mut policy, START).len(), 1, "the next of them");
    policy.handle_left(START, conn(99));
    assert_eq!(reveals(&mut policy, START).len(), 19);
}

#[test]
fn two_hundred_idlers_of_one_network_hold_nothing_that_others_wait_for() {
    let mut policy = SuperSeed::new(64);
    (0..200).for_each(|number| policy.handle_joined(START, conn(number), prefix(7)));
    (200..202).for_each(|number| policy.handle_joined(START, conn(number), prefix(number)));
    reveals(&mut policy, START);
    let mut now = START;
    while !policy.is_over() && now < at(600) {
        now += Duration::from_millis(100);
        let shown: Vec<_> = wait(&mut policy, now, SILENT);
        assert!(shown.iter().filter(|(conn, _)| conn.slot < 200).count() <= 64);
        for number in [200, 201] {
            let of_it = policy.peers.get(&conn(number)).map(|peer| peer.state);
            if let Some(State::Shown(showing)) = of_it {
                policy.handle_have(now, conn(number), showing.piece);
                policy.handle_have(now, conn(401 - number), showing.piece);
            }
        }
        reveals(&mut policy, now);
    }
    assert!(now <= at(10), "{:?}", now.since(START));
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
            self.policy.handle_timeout(self.now, |_| ASKING);
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
            model.policy.handle_left(model.now, conn(number));
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
                    policy.handle_joined(now, conn, prefix(number));
                    has.insert(conn, BTreeSet::new());
                    shown.insert(conn, BTreeSet::new());
                }
                1 => {
                    policy.handle_left(now, conn);
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
            policy.handle_timeout(now, |_| if number % 2 == 0 { ASKING } else { SILENT });
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
