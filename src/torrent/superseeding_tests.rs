//! A machine that super-seeds, and peers that pass on what they get, keep silent, or leave.

use super::*;
use crate::bitfield::Bitfield;
use crate::limits::{SUPERSEED_PATIENCE, SUPERSEED_STOCK_TIMEOUT};
use crate::peer::Stock;
use crate::peer_list::PeerListSettings;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const PIECES: u32 = 6;

struct Seed {
    machine: TorrentMachine,
    rng: Rng,
}

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

impl Seed {
    fn new() -> Self {
        let parameters = TorrentParameters {
            role: Role::Seeding,
            slots: Slots::Fixed(0),
            piece_len: 1 << 20,
            total_len: u64::from(PIECES) << 20,
        };
        let mut machine = TorrentMachine::new(parameters);
        machine.keep_members(PeerListSettings::new(PeerId([9; 20])));
        machine.begin_super_seed(PIECES);
        Self { machine, rng: Rng::from_seed(1) }
    }

    fn join(&mut self, now: Instant, slot: u8) {
        let newcomer =
            Newcomer { remote: IpAddr::from([11, 0, 0, slot]), peer_id: PeerId([slot; 20]), dialled: None };
        assert!(self.machine.handle_newcomer(now, conn(slot.into()), newcomer, &mut self.rng));
    }

    /// What is revealed to whom; `None` at the end stands for everything to everybody.
    fn shown(&mut self) -> Vec<Option<(u32, PieceIndex)>> {
        let actions = std::iter::from_fn(|| self.machine.poll_action());
        let shown = actions.map(|action| match action {
            TorrentAction::Reveal(conn, piece) => Some((conn.slot, piece)),
            TorrentAction::RevealAll => None,
            other => panic!("nothing else is due: {other:?}"),
        });
        shown.collect()
    }

    fn stock(&mut self, now: Instant, slot: u32, stock: Stock<'_>) -> Vec<Option<(u32, PieceIndex)>> {
        self.machine.handle_stock(now, conn(slot), stock, &mut self.rng);
        self.shown()
    }

    fn have(&mut self, now: Instant, slot: u32, piece: PieceIndex) -> Vec<Option<(u32, PieceIndex)>> {
        self.machine.handle_haves(now, conn(slot), &[piece], &mut self.rng);
        self.shown()
    }

    fn wait(&mut self, until: Instant) -> Vec<Option<(u32, PieceIndex)>> {
        let mut shown = Vec::new();
        while let Some(now) = self.machine.poll_timeout().filter(|&due| due <= until) {
            self.machine.handle_timeout(now, |_| PeerSample::default(), &mut self.rng);
            shown.extend(self.shown());
        }
        shown
    }
}

#[test]
fn each_peer_is_shown_another_piece_and_the_next_when_it_has_passed_that_on() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    seed.join(START, 2);
    assert_eq!(seed.shown(), [], "nothing before they have said what they have");
    let [Some((1, first))] = seed.stock(START, 1, Stock::None)[..] else { panic!("one piece for the first") };
    let [Some((2, second))] = seed.stock(START, 2, Stock::None)[..] else { panic!("one for the second") };
    assert_ne!(first, second);
    assert_eq!(seed.have(START, 1, first), [], "having it is not passing it on");
    let [Some((1, third))] = seed.have(START, 2, first)[..] else { panic!("the first has shared") };
    assert!(third != first && third != second);
    assert!(seed.machine.is_super_seeding());
}

#[test]
fn a_peer_alone_gets_piece_after_piece_and_then_it_is_over() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    let mut shown = seed.stock(START, 1, Stock::None);
    for _ in 1..PIECES {
        let [Some((1, piece))] = shown[..] else { panic!("{shown:?}") };
        shown = seed.have(START, 1, piece);
    }
    let [Some((1, last))] = shown[..] else { panic!("{shown:?}") };
    assert_eq!(seed.have(START, 1, last), [None]);
    assert!(!seed.machine.is_super_seeding());
    seed.join(START, 2);
    assert_eq!(seed.stock(START, 2, Stock::None), []);
    assert_eq!(seed.wait(START + SUPERSEED_PATIENCE * 3), []);
}

#[test]
fn who_keeps_silent_about_having_nothing_is_shown_a_piece_all_the_same() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    assert_eq!(seed.wait(START + SUPERSEED_STOCK_TIMEOUT).len(), 1);
}

#[test]
fn who_keeps_silent_about_what_it_has_got_is_known_by_what_was_sent() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    let [Some((1, piece))] = seed.stock(START, 1, Stock::None)[..] else { panic!("one piece") };
    seed.machine.handle_served(START, conn(1), piece);
    assert_eq!(seed.shown().len(), 1);
}

#[test]
fn what_a_newcomer_brings_is_not_shown_to_anybody() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    seed.join(START, 2);
    let mut has = Bitfield::all(PIECES);
    has.remove(PieceIndex(3));
    has.remove(PieceIndex(4));
    assert_eq!(seed.stock(START, 1, Stock::Some(&has)), [Some((1, PieceIndex(3)))]);
    assert_eq!(seed.stock(START, 2, Stock::None), [Some((2, PieceIndex(4)))]);
}

#[test]
fn a_seed_that_joins_ends_it() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    assert_eq!(seed.stock(START, 1, Stock::All).last(), Some(&None));
}

#[test]
fn without_peers_there_are_neither_tables_nor_timers() {
    let mut seed = Seed::new();
    seed.join(START, 1);
    seed.stock(START, 1, Stock::None);
    assert!(seed.machine.poll_timeout().is_some());
    seed.machine.handle_closed(START, conn(1), Closed::Normal, PeerSample::default(), &mut seed.rng);
    assert_eq!(seed.machine.super_seeding.as_ref().and_then(|half| half.poll_timeout()), None);
    seed.join(START, 2);
    assert_eq!(seed.stock(START, 2, Stock::None).len(), 1);
}
