//! Any sequence of events, against an oracle that recounts everything after each of them; and whole swarms by seed.

use super::*;
use crate::rng::Rng;
use crate::units::BLOCK_LEN;
use proptest::prelude::{ProptestConfig, Strategy, any, prop, prop_oneof, proptest};
use std::collections::{BTreeMap, BTreeSet};

const PIECES: u32 = 12;
const PEERS: u32 = 5;
const IN_FLIGHT_MAX: usize = 4;

#[derive(Clone, Debug)]
enum Event {
    Join(u32),
    Leave(u32),
    Stock(u32, u16),
    All(u32),
    Have(u32, u32),
    DontHave(u32, u32),
    Rate(u32, u64),
    Snub(u32, bool),
    Pick(u32, usize),
    PickFast(u32, usize, u32),
    Receive(u32, usize),
    Return(u32, usize),
    Judge(u32, bool, bool),
    Lose(u32),
    Priority(u32, u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let peer = || 0..PEERS;
    let piece = || 0..PIECES;
    let event = prop_oneof![
        2 => peer().prop_map(Event::Join),
        1 => peer().prop_map(Event::Leave),
        2 => (peer(), any::<u16>()).prop_map(|(peer, bits)| Event::Stock(peer, bits)),
        1 => peer().prop_map(Event::All),
        3 => (peer(), piece()).prop_map(|(peer, piece)| Event::Have(peer, piece)),
        1 => (peer(), piece()).prop_map(|(peer, piece)| Event::DontHave(peer, piece)),
        1 => (peer(), prop::sample::select(vec![0, 50_000, 9_000_000])).prop_map(|(peer, rate)| Event::Rate(peer, rate)),
        1 => (peer(), any::<bool>()).prop_map(|(peer, snubbed)| Event::Snub(peer, snubbed)),
        8 => (peer(), 1_usize..6).prop_map(|(peer, count)| Event::Pick(peer, count)),
        1 => (peer(), 1_usize..6, piece()).prop_map(|(peer, count, piece)| Event::PickFast(peer, count, piece)),
        12 => (peer(), 0_usize..8).prop_map(|(peer, which)| Event::Receive(peer, which)),
        2 => (peer(), 0_usize..8).prop_map(|(peer, which)| Event::Return(peer, which)),
        5 => (piece(), any::<bool>(), any::<bool>()).prop_map(|(piece, good, alone)| Event::Judge(piece, good, alone)),
        1 => piece().prop_map(Event::Lose),
        1 => (piece(), 0_u8..4).prop_map(|(piece, priority)| Event::Priority(piece, priority)),
    ];
    prop::collection::vec(event, 0..250)
}

#[derive(Default)]
struct Stranger {
    pieces: BTreeSet<u32>,
    snubbed: bool,
    gave: bool,
    /// Blocks it owes, in the order asked.
    owed: Vec<BlockSpan>,
    told: bool,
}

/// The plainest picture of what a picker should know.
struct Oracle {
    shape: PieceShape,
    peers: BTreeMap<u32, Stranger>,
    verified: BTreeSet<u32>,
    priority: Vec<Priority>,
    in_flight: BTreeMap<u32, BTreeSet<u32>>,
    exclusive: BTreeSet<u32>,
    rarest_first: bool,
}

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 1, slot, generation: 3 }
}

impl Oracle {
    fn new(shape: PieceShape, rarest_first: bool) -> Self {
        Self {
            shape,
            peers: BTreeMap::new(),
            verified: BTreeSet::new(),
            priority: vec![Priority::Normal; PIECES as usize],
            in_flight: BTreeMap::new(),
            exclusive: BTreeSet::new(),
            rarest_first,
        }
    }

    fn wants(&self, piece: u32) -> bool {
        !self.verified.contains(&piece) && self.priority[piece as usize] != Priority::Skip
    }

    fn may_begin(&self, piece: u32) -> bool {
        self.wants(piece) && !self.in_flight.contains_key(&piece)
    }

    fn copies(&self, piece: u32) -> usize {
        self.peers.values().filter(|peer| peer.pieces.contains(&piece)).count()
    }

    fn end(&mut self, piece: u32) {
        self.in_flight.remove(&piece);
        for peer in self.peers.values_mut() {
            peer.owed.retain(|span| span.piece.0 != piece);
        }
    }

    fn owners(&self, span: BlockSpan) -> Vec<u32> {
        self.peers.iter().filter(|(_, peer)| peer.owed.contains(&span)).map(|(&slot, _)| slot).collect()
    }

    /// Whether nothing that anybody has is left to be asked of anybody.
    fn is_endgame(&self) -> bool {
        let nothing_to_begin = (0..PIECES).all(|piece| !self.may_begin(piece) || self.copies(piece) == 0);
        nothing_to_begin
            && self.in_flight.iter().all(|(&piece, received)| {
                self.exclusive.contains(&piece)
                    || self.copies(piece) == 0
                    || (0..self.shape.blocks_of(PieceIndex(piece))).all(|block| {
                        let span = self
                            .shape
                            .span(PieceIndex(piece), block)
                            .expect("it is one of the piece's blocks");
                        received.contains(&block) || !self.owners(span).is_empty()
                    })
            })
    }

    /// Checks one answer block by block, and takes note of it.
    fn asked(&mut self, picker: &Picker, slot: u32, asked: &[BlockSpan], fast: Option<u32>) {
        for &span in asked {
            let piece = span.piece.0;
            let block = self.shape.block_of(span).expect("what is asked is a block");
            let stranger = &self.peers[&slot];
            let gave = stranger.gave;
            assert!(stranger.pieces.contains(&piece), "{span} asked of a peer that lacks it");
            assert!(self.wants(piece), "{span} is not wanted");
            assert!(fast.is_none_or(|fast| fast == piece), "{span} asked while choked");
            let owners = self.owners(span);
            // Who gives waits for nobody who never did. Time stands still here, so that nobody falls silent.
            let is_dormant = |owner: &u32| {
                let owner = &self.peers[owner];
                owner.snubbed || gave && !owner.gave
            };
            let is_full = self.in_flight.len() >= IN_FLIGHT_MAX;
            assert!(!owners.contains(&slot), "{span} asked of the same peer twice");
            match owners[..] {
                [] => {}
                [owner] => {
                    let may_be_rescued = is_full && is_dormant(&owner);
                    assert!(
                        self.peers[&owner].snubbed || may_be_rescued || self.is_endgame(),
                        "{span} asked twice for nothing"
                    )
                }
                [one, other] => {
                    let all_snubbed = self.peers[&one].snubbed && self.peers[&other].snubbed;
                    let dormant = [one, other].iter().filter(|owner| is_dormant(owner)).count();
                    let may_be_rescued = is_full && dormant == 2 || self.is_endgame() && dormant > 0;
                    assert!(all_snubbed || may_be_rescued, "{span} asked three times");
                    let gave_up = |slot: &u32| !picker.is_owed(conn(*slot), span);
                    let former: Vec<u32> = [one, other].into_iter().filter(gave_up).collect();
                    assert_eq!(former.len(), 1, "one of the two owes {span} no more");
                    assert!(is_dormant(&former[0]), "one that gives was given up for {span}");
                    let former = self.peers.get_mut(&former[0]).expect("it is there");
                    former.owed.retain(|&owed| owed != span);
                }
                _ => panic!("{span} was owed by three"),
            }
            if self.exclusive.contains(&piece) {
                let others = self.peers.iter().filter(|(other, peer)| {
                    let is_taken_over = gave && !peer.gave;
                    **other != slot
                        && !peer.snubbed
                        && !is_taken_over
                        && peer.owed.iter().any(|owed| owed.piece.0 == piece)
                });
                assert_eq!(others.count(), 0, "an exclusive piece asked of two");
            }
            if !self.in_flight.contains_key(&piece) {
                if self.rarest_first && fast.is_none() {
                    let key =
                        |piece: u32| (std::cmp::Reverse(self.priority[piece as usize]), self.copies(piece));
                    let best = self.peers[&slot]
                        .pieces
                        .iter()
                        .copied()
                        .filter(|&other| self.may_begin(other))
                        .map(key)
                        .min();
                    assert_eq!(Some(key(piece)), best, "{span} is not among the rarest");
                }
                self.in_flight.insert(piece, BTreeSet::new());
            }
            assert!(!self.in_flight[&piece].contains(&block), "{span} is here already");
            self.peers.get_mut(&slot).expect("it is there").owed.push(span);
            assert!(self.in_flight.len() <= IN_FLIGHT_MAX);
        }
    }

    fn compare(&self, picker: &mut Picker) {
        let copies: Vec<usize> = (0..PIECES).map(|piece| self.copies(piece)).collect();
        for piece in 0..PIECES {
            assert_eq!(picker.availability(PieceIndex(piece)) as usize, copies[piece as usize]);
            assert_eq!(picker.is_in_flight(PieceIndex(piece)), self.in_flight.contains_key(&piece));
        }
        let least = copies.iter().copied().min().unwrap_or(0);
        let rarest = copies.iter().filter(|&&count| count == least).count();
        assert_eq!(picker.rarest(), (least as u32, rarest as u32));
        let wanted: Vec<u32> = (0..PIECES).filter(|&piece| self.wants(piece)).collect();
        assert_eq!(picker.wanted_left() as usize, wanted.len());
        assert_eq!(picker.is_complete(), wanted.is_empty());
        let bytes: u64 = wanted.iter().map(|&piece| u64::from(self.shape.piece_len(PieceIndex(piece)))).sum();
        assert_eq!(picker.bytes_left(), bytes);
        assert_eq!(picker.pieces_in_flight(), self.in_flight.len());
        assert_eq!(picker.peers(), self.peers.len());
        for (&slot, peer) in &self.peers {
            let interesting = peer.pieces.iter().any(|&piece| self.wants(piece));
            assert_eq!(picker.is_interesting(conn(slot)), interesting);
            assert_eq!(picker.owed_by(conn(slot)) as usize, peer.owed.len());
        }
    }

    fn hear(&mut self, picker: &mut Picker) {
        while let Some((conn, interesting)) = picker.poll_interest() {
            let peer = self.peers.get_mut(&conn.slot).expect("nothing is told of those that left");
            assert_ne!(peer.told, interesting, "only changes are told");
            peer.told = interesting;
        }
        for (&slot, peer) in &self.peers {
            assert_eq!(peer.told, picker.is_interesting(conn(slot)));
        }
    }

    fn apply(&mut self, picker: &mut Picker, event: &Event, rng: &mut Rng) {
        match *event {
            Event::Join(slot) => {
                picker.handle_joined(conn(slot));
                self.peers.entry(slot).or_default();
            }
            Event::Leave(slot) => {
                picker.handle_left(conn(slot));
                self.peers.remove(&slot);
            }
            Event::Stock(slot, bits) => {
                let pieces: BTreeSet<u32> = (0..PIECES).filter(|piece| bits >> piece & 1 == 1).collect();
                let mut stock = Bitfield::none(PIECES);
                pieces.iter().for_each(|&piece| assert!(stock.insert(PieceIndex(piece))));
                picker.handle_stock(conn(slot), &stock);
                self.peers.entry(slot).and_modify(|peer| peer.pieces = pieces);
            }
            Event::All(slot) => {
                picker.handle_all(conn(slot));
                self.peers.entry(slot).and_modify(|peer| peer.pieces = (0..PIECES).collect());
            }
            Event::Have(slot, piece) => {
                let news = self.peers.get_mut(&slot).is_some_and(|peer| peer.pieces.insert(piece));
                assert_eq!(picker.handle_have(conn(slot), PieceIndex(piece)), news);
            }
            Event::DontHave(slot, piece) => {
                let had = self.peers.get_mut(&slot).is_some_and(|peer| peer.pieces.remove(&piece));
                assert_eq!(picker.handle_dont_have(conn(slot), PieceIndex(piece)), had);
            }
            Event::Rate(slot, rate) => picker.handle_rate(conn(slot), ByteRate(rate)),
            Event::Snub(slot, snubbed) => {
                picker.handle_snubbed(conn(slot), snubbed);
                self.peers.entry(slot).and_modify(|peer| peer.snubbed = snubbed);
            }
            Event::Pick(slot, count) => {
                let mut out = Vec::new();
                picker.pick(Instant::ZERO, conn(slot), count, Allowed::Unchoked, rng, &mut out);
                assert!(out.len() <= count);
                self.asked(picker, slot, &out, None);
            }
            Event::PickFast(slot, count, piece) => {
                let mut out = Vec::new();
                picker.pick(
                    Instant::ZERO,
                    conn(slot),
                    count,
                    Allowed::Fast(&[PieceIndex(piece)]),
                    rng,
                    &mut out,
                );
                self.asked(picker, slot, &out, Some(piece));
            }
            Event::Receive(slot, which) => self.receive(picker, slot, which),
            Event::Return(slot, which) => {
                let Some(peer) = self.peers.get_mut(&slot).filter(|peer| which < peer.owed.len()) else {
                    return;
                };
                picker.handle_returned(conn(slot), peer.owed.remove(which));
            }
            Event::Judge(piece, good, alone) => self.judge(picker, piece, good, alone),
            Event::Lose(piece) => {
                picker.handle_lost(PieceIndex(piece));
                self.verified.remove(&piece);
            }
            Event::Priority(piece, priority) => {
                let priority = priority_of(priority);
                let whole = self.is_whole(piece);
                let gives_up = priority == Priority::Skip && self.in_flight.contains_key(&piece) && !whole;
                assert_eq!(picker.set_priority(PieceIndex(piece), priority), gives_up);
                self.priority[piece as usize] = priority;
                if gives_up {
                    self.end(piece);
                }
            }
        }
    }

    fn is_whole(&self, piece: u32) -> bool {
        let blocks = self.shape.blocks_of(PieceIndex(piece)) as usize;
        self.in_flight.get(&piece).is_some_and(|received| received.len() == blocks)
    }

    fn receive(&mut self, picker: &mut Picker, slot: u32, which: usize) {
        let Some(peer) = self.peers.get_mut(&slot).filter(|peer| which < peer.owed.len()) else { return };
        let span = peer.owed.remove(which);
        let others: BTreeSet<ConnId> = self.owners(span).into_iter().map(conn).collect();
        match picker.handle_received(conn(slot), span) {
            Received::Block { completes, cancel } => {
                let block = self.shape.block_of(span).expect("what was asked is a block");
                let received = self.in_flight.get_mut(&span.piece.0).expect("it was asked");
                assert!(received.insert(block));
                self.peers.get_mut(&slot).expect("it is there").gave = true;
                assert_eq!(cancel.iter().collect::<BTreeSet<_>>(), others);
                self.peers.values_mut().for_each(|peer| peer.owed.retain(|&owed| owed != span));
                assert_eq!(completes, self.is_whole(span.piece.0));
            }
            Received::Unwanted => assert!(self.exclusive.contains(&span.piece.0)),
            Received::Duplicate => panic!("the first of those asked to send {span} was told that we have it"),
        }
    }

    fn judge(&mut self, picker: &mut Picker, piece: u32, good: bool, alone: bool) {
        if !self.is_whole(piece) {
            return;
        }
        if good {
            picker.handle_verified(PieceIndex(piece));
            self.verified.insert(piece);
            self.exclusive.remove(&piece);
        } else {
            picker.handle_failed(PieceIndex(piece), alone);
            if alone {
                self.exclusive.insert(piece);
            }
        }
        self.end(piece);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn whatever_happens_the_picker_knows_what_a_recount_would_give(
        events in events(),
        order in 0..3_u8,
        blocks in 1_u32..5,
        seed in any::<u64>(),
    ) {
        let order = [Order::RarestFirst, Order::Sequential, Order::Random][usize::from(order)];
        let piece_length = blocks * BLOCK_LEN;
        let total_len = u64::from(PIECES) * u64::from(piece_length) - 9_000;
        let shape = PieceShape { piece_count: PIECES, piece_length, total_len };
        let settings = PickerSettings { order, pieces_in_flight_max: IN_FLIGHT_MAX, random_first: 0 };
        let mut rng = Rng::from_seed(seed);
        let mut picker = Picker::new(shape, &Bitfield::none(PIECES), |_| Priority::Normal, settings, &mut rng);
        let mut oracle = Oracle::new(shape, order == Order::RarestFirst);
        for (step, event) in events.iter().enumerate() {
            oracle.apply(&mut picker, event, &mut rng);
            oracle.compare(&mut picker);
            // Every other time several changes gather before they are asked for.
            if step % 2 == 0 {
                oracle.hear(&mut picker);
            }
        }
        oracle.hear(&mut picker);

        // Whatever came before: with one seed that answers, everything completes.
        oracle.apply(&mut picker, &Event::Join(PEERS), &mut rng);
        oracle.apply(&mut picker, &Event::All(PEERS), &mut rng);
        for slot in 0..PEERS {
            oracle.apply(&mut picker, &Event::Leave(slot), &mut rng);
        }
        for _ in 0..PIECES * blocks * 2 {
            oracle.apply(&mut picker, &Event::Pick(PEERS, 3), &mut rng);
            for _ in 0..3 {
                oracle.apply(&mut picker, &Event::Receive(PEERS, 0), &mut rng);
            }
            for piece in 0..PIECES {
                oracle.apply(&mut picker, &Event::Judge(piece, true, false), &mut rng);
            }
            oracle.compare(&mut picker);
        }
        assert!(picker.is_complete());
    }
}

/// A swarm of one seed and several leeches that all take one block a turn from a random other. Gives, over all turns,
/// the mean share of the rarest piece's copies in those of the average piece.
fn spread(order: Order, seed: u64) -> f64 {
    const COUNT: u32 = 40;
    const LEECHES: u32 = 12;
    let shape = PieceShape {
        piece_count: COUNT,
        piece_length: BLOCK_LEN,
        total_len: u64::from(COUNT) * u64::from(BLOCK_LEN),
    };
    let mut rng = Rng::from_seed(seed);
    let mut have: Vec<Bitfield> = (0..LEECHES).map(|_| Bitfield::none(COUNT)).collect();
    have.push(Bitfield::all(COUNT));
    let mut pickers: Vec<Picker> = (0..LEECHES)
        .map(|me| {
            let settings = PickerSettings { order, ..PickerSettings::default() };
            let mut picker = Picker::new(shape, &have[me as usize], |_| Priority::Normal, settings, &mut rng);
            for other in (0..=LEECHES).filter(|&other| other != me) {
                picker.handle_joined(conn(other));
                picker.handle_stock(conn(other), &have[other as usize]);
            }
            picker
        })
        .collect();
    let (mut sum, mut turns) = (0.0, 0.0);
    while pickers.iter().any(|picker| !picker.is_complete()) {
        assert!(turns < 10_000.0, "the swarm stands still with seed {seed}");
        for me in 0..LEECHES {
            let from = rng.below(u64::from(LEECHES) + 1) as u32;
            let mut out = Vec::new();
            pickers[me as usize].pick(Instant::ZERO, conn(from), 1, Allowed::Unchoked, &mut rng, &mut out);
            for span in out {
                assert!(have[from as usize].contains(span.piece));
                pickers[me as usize].handle_received(conn(from), span);
                pickers[me as usize].handle_verified(span.piece);
                have[me as usize].insert(span.piece);
                for other in (0..LEECHES).filter(|&other| other != me) {
                    pickers[other as usize].handle_have(conn(me), span.piece);
                }
            }
        }
        let copies =
            (0..COUNT).map(|piece| have.iter().filter(|have| have.contains(PieceIndex(piece))).count());
        let mean = copies.clone().sum::<usize>() as f64 / f64::from(COUNT);
        sum += copies.min().unwrap_or(0) as f64 / mean;
        turns += 1.0;
    }
    sum / turns
}

#[test]
fn rarest_first_keeps_the_rarest_piece_closer_to_the_mean_than_a_sequence_does() {
    let mean = |order| (0..10).map(|seed| spread(order, seed)).sum::<f64>() / 10.0;
    let (rarest, sequence) = (mean(Order::RarestFirst), mean(Order::Sequential));
    assert!(rarest > 1.3 * sequence, "{rarest} against {sequence}");
}
