//! Who is asked for what while some give and others only owe: one download, and peers that say only what they are told to.

use super::*;
use crate::bitfield::Bitfield;
use crate::limits::{BLOCK_DEBT_TIME_MIN, WISH_RETRY_INTERVAL};
use crate::peer::{Stock, Wish, WishTerms};
use crate::peer_list::PeerListSettings;
use crate::picker::{Order, PieceShape};
use crate::time::Duration;
use crate::units::BLOCK_LEN;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const BLOCKS: u32 = 4;

fn conn(number: usize) -> ConnId {
    ConnId { worker: 0, slot: number as u32, generation: 0 }
}

struct Bare {
    machine: TorrentMachine,
    now: Instant,
    rng: Rng,
}

impl Bare {
    fn new(pieces: u32) -> Self {
        let mut rng = Rng::from_seed(1);
        let total_len = u64::from(pieces * BLOCKS * BLOCK_LEN);
        let shape = PieceShape { piece_count: pieces, piece_length: BLOCKS * BLOCK_LEN, total_len };
        let mut machine = TorrentMachine::new(TorrentParameters {
            role: Role::Leeching,
            slots: Slots::Fixed(4),
            piece_len: shape.piece_length,
            total_len,
        });
        machine.keep_members(PeerListSettings::new(PeerId([100; 20])));
        let plan = DownloadPlan {
            shape,
            have: Bitfield::none(pieces),
            wanted: Bitfield::all(pieces),
            first: Bitfield::none(pieces),
            order: Order::RarestFirst,
        };
        machine.begin_download(&plan, &mut rng);
        Self { machine, now: START, rng }
    }

    fn join(&mut self, number: usize, remote: [u8; 4]) {
        let newcomer = Newcomer { remote: remote.into(), peer_id: PeerId([number as u8; 20]), dialled: None };
        assert!(self.machine.handle_newcomer(self.now, conn(number), newcomer, &mut self.rng));
        self.machine.handle_stock(self.now, conn(number), Stock::All, &mut self.rng);
    }

    /// The blocks that are asked of each now.
    fn asked(&mut self) -> BTreeMap<usize, Vec<BlockSpan>> {
        let mut asked = BTreeMap::<usize, Vec<BlockSpan>>::new();
        while let Some(action) = self.machine.poll_action() {
            if let TorrentAction::Ask(of, spans) = action {
                asked.entry(of.slot as usize).or_default().extend(spans);
            }
        }
        asked
    }

    fn wish(&mut self, number: usize, count: u32) -> Vec<BlockSpan> {
        let wish = Wish { count, rate: ByteRate(0), terms: WishTerms::Unchoked };
        self.machine.handle_wish(self.now, conn(number), Some(wish), &mut self.rng);
        self.asked().remove(&number).unwrap_or_default()
    }

    fn give_one(&mut self, number: usize) {
        let span = self.wish(number, 1)[0];
        self.machine.handle_block(self.now, conn(number), span, &mut self.rng);
    }

    fn leave(&mut self, number: usize) {
        let last = PeerSample::default();
        self.machine.handle_closed(self.now, conn(number), Closed::Normal, last, &mut self.rng);
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= end) {
            self.now = self.now.max(due);
            self.machine.handle_timeout(self.now, |_| PeerSample::default(), &mut self.rng);
        }
        self.now = end;
    }
}

#[test]
fn a_prefix_that_left_with_blocks_owed_waits_while_somebody_gives() {
    for somebody_gives in [true, false] {
        let mut bare = Bare::new(20);
        bare.join(0, [192, 0, 2, 1]);
        if somebody_gives {
            bare.give_one(0);
        }
        bare.join(1, [198, 51, 100, 1]);
        assert_eq!(bare.wish(1, 8).len(), 8);
        bare.leave(1);
        // It comes back at once, from the address beside its own.
        bare.join(2, [198, 51, 100, 2]);
        assert_eq!(bare.wish(2, 8).len(), if somebody_gives { 0 } else { 8 });
        bare.join(3, [203, 0, 113, 1]);
        assert_eq!(bare.wish(3, 8).len(), 8, "others do not wait for it");
        if somebody_gives {
            bare.pass(BLOCK_DEBT_TIME_MIN - Duration::from_secs(1));
            assert!(!bare.asked().contains_key(&2));
            bare.pass(WISH_RETRY_INTERVAL + Duration::from_secs(1));
            assert_eq!(bare.asked()[&2].len(), 8, "a debt ends");
        }
    }
}

#[test]
fn who_was_asked_for_nothing_or_gave_leaves_no_debt() {
    let mut bare = Bare::new(20);
    bare.join(0, [192, 0, 2, 1]);
    bare.give_one(0);
    bare.join(1, [198, 51, 100, 1]);
    bare.leave(1);
    bare.join(2, [198, 51, 100, 1]);
    bare.give_one(2);
    assert_eq!(bare.wish(2, 4).len(), 4);
    bare.leave(2);
    bare.join(3, [198, 51, 100, 1]);
    assert_eq!(bare.wish(3, 4).len(), 4);
}

#[test]
fn what_becomes_free_goes_to_those_who_give_first() {
    let mut bare = Bare::new(1);
    // Two give and owe all the rest; one that gives and two that do not wait for more.
    for number in [4, 5, 9] {
        bare.join(number, [192, 0, number as u8, 1]);
        bare.give_one(number);
    }
    assert_eq!((bare.wish(4, 8).len(), bare.wish(5, 8).len()), (1, 1));
    for number in [1, 2] {
        bare.join(number, [192, 0, number as u8, 1]);
        assert_eq!(bare.wish(number, 8), []);
    }
    assert_eq!(bare.wish(9, 8), []);
    bare.leave(4);
    let asked = bare.asked();
    assert_eq!(asked.keys().copied().collect::<Vec<_>>(), [9], "{asked:?}");
}

#[test]
fn a_block_that_two_keep_to_themselves_is_asked_of_a_third_within_seconds() {
    let mut bare = Bare::new(1);
    for number in [1, 2, 3] {
        bare.join(number, [192, 0, number as u8, 1]);
        bare.give_one(number);
    }
    bare.now += Duration::from_secs(1);
    assert_eq!((bare.wish(1, 8).len(), bare.wish(2, 8).len(), bare.wish(3, 8).len()), (1, 1, 0));
    bare.pass(Duration::from_secs(5));
    assert_eq!(bare.asked().keys().copied().collect::<Vec<_>>(), [3]);
}
