//! Sentences about the picker, one behaviour each.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::BLOCK_LEN;
use std::collections::BTreeSet;

const NOW: Instant = Instant::ZERO;

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

fn shape(piece_count: u32, blocks: u32) -> PieceShape {
    let piece_length = blocks * BLOCK_LEN;
    // The last piece is short by most of a block.
    let total_len = u64::from(piece_count) * u64::from(piece_length) - 16_000;
    PieceShape { piece_count, piece_length, total_len }
}

fn settings(random_first: u32) -> PickerSettings {
    PickerSettings { random_first, ..PickerSettings::default() }
}

fn picker(piece_count: u32, blocks: u32, settings: PickerSettings) -> Picker {
    let none = Bitfield::none(piece_count);
    Picker::new(shape(piece_count, blocks), &none, |_| Priority::Normal, settings, &mut Rng::from_seed(1))
}

fn stock(piece_count: u32, pieces: impl IntoIterator<Item = u32>) -> Bitfield {
    let mut stock = Bitfield::none(piece_count);
    for piece in pieces {
        stock.insert(PieceIndex(piece));
    }
    stock
}

fn join(picker: &mut Picker, slot: u32, pieces: impl IntoIterator<Item = u32>) -> ConnId {
    picker.handle_joined(conn(slot));
    picker.handle_stock(conn(slot), &stock(picker.shape().piece_count, pieces));
    conn(slot)
}

fn join_seed(picker: &mut Picker, slot: u32) -> ConnId {
    picker.handle_joined(conn(slot));
    picker.handle_all(conn(slot));
    conn(slot)
}

fn ask(picker: &mut Picker, conn: ConnId, count: usize) -> Vec<BlockSpan> {
    ask_allowed(picker, conn, count, Allowed::Unchoked)
}

fn ask_allowed(picker: &mut Picker, conn: ConnId, count: usize, allowed: Allowed<'_>) -> Vec<BlockSpan> {
    let mut out = Vec::new();
    picker.pick(NOW, conn, count, allowed, &mut Rng::from_seed(7), &mut out);
    out
}

fn pieces_of(spans: &[BlockSpan]) -> BTreeSet<u32> {
    spans.iter().map(|span| span.piece.0).collect()
}

fn is_block(received: Received) -> bool {
    matches!(received, Received::Block { .. })
}

#[test]
fn the_last_block_of_the_last_piece_is_short() {
    let shape = shape(3, 2);
    assert_eq!(shape.piece_len(PieceIndex(2)), 2 * BLOCK_LEN - 16_000);
    assert_eq!(
        shape.span(PieceIndex(2), 1),
        Some(BlockSpan { piece: PieceIndex(2), begin: BLOCK_LEN, len: 384 })
    );
    assert_eq!((shape.span(PieceIndex(2), 2), shape.span(PieceIndex(3), 0)), (None, None));
    assert_eq!(shape.block_of(BlockSpan { piece: PieceIndex(1), begin: 0, len: 384 }), None);
    assert_eq!(shape.block_of(BlockSpan { piece: PieceIndex(0), begin: 5, len: BLOCK_LEN }), None);
}

#[test]
fn begins_the_rarest_piece_that_the_peer_has() {
    let mut picker = picker(8, 2, settings(0));
    let one = join(&mut picker, 1, 0..8);
    join(&mut picker, 2, 0..5);
    join(&mut picker, 3, [0, 1, 2, 3, 4, 6, 7]);
    assert_eq!(picker.rarest(), (1, 1));
    assert_eq!(pieces_of(&ask(&mut picker, one, 2)), BTreeSet::from([5]));
    assert_eq!(pieces_of(&ask(&mut picker, one, 4)), BTreeSet::from([6, 7]));
}

#[test]
fn begins_a_piece_of_high_priority_before_a_rarer_one() {
    let mut picker = picker(4, 2, settings(0));
    join(&mut picker, 2, [0, 1, 2]);
    let one = join(&mut picker, 1, 0..4);
    picker.set_priority(PieceIndex(1), Priority::High);
    picker.set_priority(PieceIndex(3), Priority::Low);
    assert_eq!(pieces_of(&ask(&mut picker, one, 2)), BTreeSet::from([1]));
    assert_eq!(pieces_of(&ask(&mut picker, one, 4)), BTreeSet::from([0, 2]));
    assert_eq!(pieces_of(&ask(&mut picker, one, 2)), BTreeSet::from([3]));
}

#[test]
fn begins_in_sequence_when_asked_to() {
    let mut picker = picker(100, 1, PickerSettings { order: Order::Sequential, ..settings(4) });
    let one = join(&mut picker, 1, (0..100).filter(|piece| piece % 3 == 0));
    let asked: Vec<u32> = ask(&mut picker, one, 4).iter().map(|span| span.piece.0).collect();
    assert_eq!(asked, [0, 3, 6, 9]);
}

#[test]
fn begins_at_random_until_the_first_pieces_are_verified() {
    let first = |seed| {
        let mut picker = picker(50, 1, settings(4));
        let one = join(&mut picker, 1, 0..50);
        join(&mut picker, 2, 1..50);
        let mut out = Vec::new();
        picker.pick(NOW, one, 1, Allowed::Unchoked, &mut Rng::from_seed(seed), &mut out);
        out[0].piece
    };
    assert!((0..20).map(first).collect::<BTreeSet<_>>().len() > 5);
}

#[test]
fn finishes_what_it_began_before_it_begins_another() {
    let mut picker = picker(8, 4, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    let mut asked = ask(&mut picker, one, 2);
    asked.extend(ask(&mut picker, two, 1));
    asked.extend(ask(&mut picker, one, 1));
    assert_eq!(pieces_of(&asked).len(), 1);
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 4);
}

#[test]
fn a_fast_peer_does_not_join_a_slow_peers_piece_while_there_are_others() {
    let mut picker = picker(2, 4, settings(0));
    let (slow, fast) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    picker.handle_rate(slow, ByteRate(20_000));
    picker.handle_rate(fast, ByteRate(20_000_000));
    let slow_pieces = pieces_of(&ask(&mut picker, slow, 1));
    let own = pieces_of(&ask(&mut picker, fast, 4));
    assert!(own.is_disjoint(&slow_pieces));
    assert_eq!(pieces_of(&ask(&mut picker, fast, 3)), slow_pieces);
}

#[test]
fn a_seed_is_asked_for_what_only_seeds_have_before_it_finishes_what_others_have() {
    let mut picker = picker(4, 4, settings(0));
    let leech = join(&mut picker, 1, [0]);
    let begun = ask(&mut picker, leech, 2);
    begun.iter().for_each(|&span| picker.handle_returned(leech, span));
    let seed = join_seed(&mut picker, 2);
    let of_seed = ask(&mut picker, seed, 12);
    assert_eq!(pieces_of(&of_seed), BTreeSet::from([1, 2, 3]));
    // Nothing is left that only the seed has.
    assert_eq!(pieces_of(&ask(&mut picker, seed, 1)), BTreeSet::from([0]));
}

#[test]
fn a_seed_finishes_a_piece_of_high_priority_before_it_gives_a_rarer_one() {
    let mut picker = picker(4, 4, settings(0));
    picker.set_priority(PieceIndex(0), Priority::High);
    let leech = join(&mut picker, 1, [0]);
    let begun = ask(&mut picker, leech, 2);
    begun.iter().for_each(|&span| picker.handle_returned(leech, span));
    let seed = join_seed(&mut picker, 2);
    assert_eq!(pieces_of(&ask(&mut picker, seed, 4)), BTreeSet::from([0]));
}

#[test]
fn a_choked_connection_is_asked_for_allowed_pieces_alone() {
    let mut picker = picker(8, 2, settings(0));
    let one = join_seed(&mut picker, 1);
    let fast = [PieceIndex(3), PieceIndex(99)];
    assert_eq!(pieces_of(&ask_allowed(&mut picker, one, 8, Allowed::Fast(&fast))), BTreeSet::from([3]));
    assert!(ask_allowed(&mut picker, one, 8, Allowed::Fast(&fast)).is_empty());
    assert!(ask_allowed(&mut picker, one, 8, Allowed::Fast(&[])).is_empty());
    let asked = ask_allowed(&mut picker, one, 2, Allowed::Suggested(&[PieceIndex(6)]));
    assert_eq!(pieces_of(&asked), BTreeSet::from([6]));
}

#[test]
fn begins_no_more_pieces_than_may_be_in_flight_until_one_is_verified() {
    let mut picker = picker(8, 2, PickerSettings { pieces_in_flight_max: 2, ..settings(0) });
    let one = join_seed(&mut picker, 1);
    let asked = ask(&mut picker, one, 100);
    assert_eq!((asked.len(), picker.pieces_in_flight()), (4, 2));
    for &span in &asked {
        picker.handle_received(one, span);
    }
    assert!(ask(&mut picker, one, 100).is_empty(), "pieces that wait for their verification count");
    picker.handle_verified(asked[0].piece);
    assert_eq!(ask(&mut picker, one, 100).len(), 2);
}

#[test]
fn in_the_endgame_the_slowest_peers_blocks_are_asked_again_and_the_loser_is_cancelled() {
    let mut picker = picker(2, 2, settings(0));
    let (slow, fast, third) =
        (join_seed(&mut picker, 1), join_seed(&mut picker, 2), join_seed(&mut picker, 3));
    picker.handle_rate(slow, ByteRate(100_000));
    picker.handle_rate(fast, ByteRate(300_000));
    let of_slow = ask(&mut picker, slow, 2);
    assert_eq!(ask(&mut picker, fast, 2).len(), 2);
    let again = ask(&mut picker, third, 2);
    assert_eq!(again.iter().collect::<BTreeSet<_>>(), of_slow.iter().collect());
    let Received::Block { cancel, .. } = picker.handle_received(third, again[0]) else {
        panic!("it was missing")
    };
    assert_eq!(cancel.iter().collect::<Vec<_>>(), [slow]);
    assert_eq!(picker.handle_received(slow, again[0]), Received::Duplicate);
    assert_eq!((picker.owed_by(slow), picker.owed_by(third)), (1, 1));
}

#[test]
fn a_block_is_owed_by_two_at_most() {
    let mut picker = picker(1, 2, settings(0));
    for slot in 0..4 {
        join_seed(&mut picker, slot);
    }
    let asked: Vec<usize> = (0..4).map(|slot| ask(&mut picker, conn(slot), 10).len()).collect();
    assert_eq!(asked, [2, 2, 0, 0]);
}

#[test]
fn blocks_of_a_snubbed_peer_are_asked_of_others_before_a_piece_is_begun() {
    let mut picker = picker(8, 4, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    let owed = ask(&mut picker, one, 4);
    picker.handle_snubbed(one, true);
    assert_eq!(ask(&mut picker, two, 4), owed);
    assert!(pieces_of(&ask(&mut picker, two, 4)).is_disjoint(&pieces_of(&owed)));
    assert!(is_block(picker.handle_received(one, owed[0])), "what comes late is welcome");
}

/// Found by simulated swarms: two peers that never give held the last blocks for ever.
#[test]
fn blocks_that_two_snubbed_peers_owe_are_asked_of_a_third_and_a_fourth() {
    let mut picker = picker(1, 4, settings(0));
    let peers: Vec<ConnId> = (0..5).map(|slot| join_seed(&mut picker, slot)).collect();
    let owed = ask(&mut picker, peers[0], 4);
    assert_eq!(ask(&mut picker, peers[1], 4).len(), 4, "the endgame asks them of a second");
    picker.handle_snubbed(peers[0], true);
    assert!(ask(&mut picker, peers[2], 4).is_empty());
    for (snubs, next) in [(1, 3), (3, 4)] {
        picker.handle_snubbed(peers[snubs], true);
        let asked: BTreeSet<u32> = ask(&mut picker, peers[next], 4).iter().map(|span| span.begin).collect();
        assert_eq!(asked.len(), 4);
        let given_up: Vec<_> = std::iter::from_fn(|| picker.poll_given_up()).collect();
        assert_eq!(given_up.len(), 4, "one of the two is told for each block: {given_up:?}");
        assert!(given_up.iter().all(|&(conn, span)| !picker.is_owed(conn, span)));
    }
    assert_eq!(peers.iter().map(|&peer| picker.owed_by(peer)).sum::<u32>(), 8, "no more than two each");
    assert!(is_block(picker.handle_received(peers[0], owed[0])), "what comes late is welcome");
    let cancelled = picker.handle_received(peers[4], owed[1]);
    assert!(matches!(cancelled, Received::Block { completes: false, cancel } if cancel.iter().count() == 1));
}

/// A picker with one peer that has given a block, and so many that have not.
fn with_newcomers(picker: &mut Picker, newcomers: u32) -> ConnId {
    let giver = join_seed(picker, 0);
    let first = ask(picker, giver, 1);
    assert!(is_block(picker.handle_received(giver, first[0])));
    (1..=newcomers).for_each(|slot| _ = join_seed(picker, slot));
    giver
}

#[test]
fn who_gives_waits_for_no_block_of_those_that_never_gave() {
    let mut picker = picker(2, 4, settings(0));
    let giver = with_newcomers(&mut picker, 6);
    let owed: usize = (1..=6).map(|slot| ask(&mut picker, conn(slot), 8).len()).sum();
    assert_eq!(owed, 14, "two owe each of the seven blocks");
    let asked = ask(&mut picker, giver, 8);
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 7);
    let given_up: Vec<_> = std::iter::from_fn(|| picker.poll_given_up()).collect();
    assert_eq!(given_up.len(), 7, "one of the two is told for each");
    assert!(given_up.iter().all(|&(conn, span)| conn != giver && !picker.is_owed(conn, span)));
    for &span in &asked {
        let Received::Block { cancel, .. } = picker.handle_received(giver, span) else {
            panic!("it was missing")
        };
        assert_eq!(cancel.iter().count(), 1, "the other is cancelled");
    }
    assert!((1..=6).all(|slot| picker.owed_by(conn(slot)) == 0));
}

#[test]
fn who_never_gave_is_no_third_and_who_gives_does_not_wait_for_pieces_that_others_began() {
    let mut picker = picker(8, 4, PickerSettings { pieces_in_flight_max: 3, ..settings(0) });
    let giver = with_newcomers(&mut picker, 4);
    let owed: BTreeSet<_> = (1..=4).flat_map(|slot| ask(&mut picker, conn(slot), 8)).collect();
    assert_eq!((owed.len(), picker.pieces_in_flight()), (11, 3), "no further piece may be begun");
    assert!(!picker.is_in_endgame());
    let late = join_seed(&mut picker, 9);
    assert!(ask(&mut picker, late, 8).is_empty());
    let asked: BTreeSet<_> = ask(&mut picker, giver, 20).into_iter().collect();
    assert_eq!(asked, owed);
    assert_eq!(picker.poll_given_up(), None, "there was room for one more to owe each");
    // What peers owe that give is not asked again before the endgame.
    let other = join_seed(&mut picker, 10);
    assert!(is_block(picker.handle_received(giver, *asked.first().unwrap())));
    picker.handle_snubbed(giver, false);
    assert!(ask(&mut picker, other, 8).is_empty());
}

#[test]
fn who_gave_once_and_then_nothing_does_not_keep_its_blocks_from_those_who_give() {
    let mut picker = picker(1, 8, settings(0));
    let at = |millis| NOW + Duration::from_millis(millis);
    let ask_at = |picker: &mut Picker, now, conn, count| {
        let mut out = Vec::new();
        picker.pick(now, conn, count, Allowed::Unchoked, &mut Rng::from_seed(1), &mut out);
        out
    };
    let peers: Vec<ConnId> = (0..3).map(|slot| join_seed(&mut picker, slot)).collect();
    for &peer in &peers {
        let first = ask_at(&mut picker, at(0), peer, 1);
        assert!(is_block(picker.handle_received(peer, first[0])));
    }
    // Two drip: they take the rest between them.
    let owed = ask_at(&mut picker, at(200), peers[0], 5);
    assert_eq!(ask_at(&mut picker, at(200), peers[1], 5).len(), 5);
    assert!(ask_at(&mut picker, at(1000), peers[2], 5).is_empty(), "a second is no silence");
    assert!(is_block(picker.handle_received(peers[0], owed[0])));
    let asked = ask_at(&mut picker, at(2500), peers[2], 5);
    assert_eq!(asked.len(), 4, "the other was silent");
    assert!(asked.iter().all(|&span| picker.is_owed(peers[0], span) && !picker.is_owed(peers[1], span)));
}

#[test]
fn an_exclusive_piece_does_not_wait_for_a_lead_that_never_gave() {
    // Half of it is asked of one that never gave, or all of it.
    for count in [2, 4] {
        let mut picker = picker(1, 4, settings(0));
        let giver = with_newcomers(&mut picker, 2);
        for span in ask(&mut picker, giver, 3) {
            assert!(is_block(picker.handle_received(giver, span)));
        }
        picker.handle_failed(PieceIndex(0), true);
        let of_newcomer = ask(&mut picker, conn(1), count);
        assert_eq!((of_newcomer.len(), ask(&mut picker, conn(2), 4).len()), (count, 0));
        let of_giver = ask(&mut picker, giver, 8);
        assert_eq!(of_giver.len(), 4);
        assert!(is_block(picker.handle_received(conn(1), of_newcomer[0])), "what it was asked for counts");
        for span in of_giver.into_iter().filter(|&span| span != of_newcomer[0]) {
            assert!(is_block(picker.handle_received(giver, span)));
        }
    }
}

#[test]
fn what_was_returned_is_asked_again() {
    let mut picker = picker(1, 4, settings(0));
    let one = join_seed(&mut picker, 1);
    let asked = ask(&mut picker, one, 4);
    picker.handle_returned(one, asked[2]);
    picker.handle_returned(one, asked[2]);
    assert_eq!(ask(&mut picker, one, 4), [asked[2]]);
    picker.handle_left(one);
    assert_eq!(picker.owed_by(one), 0);
    let two = join_seed(&mut picker, 2);
    assert_eq!(ask(&mut picker, two, 9).len(), 4);
}

#[test]
fn an_exclusive_piece_takes_blocks_of_one_connection_at_a_time() {
    let mut picker = picker(1, 4, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    for span in ask(&mut picker, one, 4) {
        picker.handle_received(one, span);
    }
    picker.handle_failed(PieceIndex(0), true);
    let asked = ask(&mut picker, one, 2);
    assert!(ask(&mut picker, two, 4).is_empty());
    assert_eq!(picker.handle_received(two, asked[0]), Received::Unwanted);
    assert!(is_block(picker.handle_received(one, asked[0])));
    picker.handle_returned(one, asked[1]);
    assert_eq!(ask(&mut picker, two, 4).len(), 3);
    assert_eq!(picker.handle_received(one, asked[1]), Received::Unwanted);
}

/// Found by simulated swarms: a peer that was snubbed when the piece was begun anew kept it for ever.
#[test]
fn an_exclusive_piece_does_not_wait_for_a_peer_that_was_snubbed_before() {
    let mut picker = picker(1, 4, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    for span in ask(&mut picker, two, 4) {
        picker.handle_received(two, span);
    }
    picker.handle_snubbed(one, true);
    picker.handle_failed(PieceIndex(0), true);
    let asked = ask(&mut picker, one, 4);
    assert_eq!((asked.len(), ask(&mut picker, two, 4).len()), (4, 4));
    assert!(asked.iter().all(|&span| is_block(picker.handle_received(two, span))));
}

#[test]
fn an_exclusive_piece_does_not_wait_for_a_connection_that_owes_nothing_of_it() {
    let mut picker = picker(1, 4, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    for span in ask(&mut picker, one, 4) {
        picker.handle_received(one, span);
    }
    picker.handle_failed(PieceIndex(0), true);
    let asked = ask(&mut picker, one, 1);
    assert!(is_block(picker.handle_received(one, asked[0])));
    assert_eq!(ask(&mut picker, two, 4).len(), 3);
}

#[test]
fn a_late_block_of_an_exclusive_piece_counts_after_somebody_else_took_over() {
    let mut picker = picker(1, 2, settings(0));
    let (one, two) = (join_seed(&mut picker, 1), join_seed(&mut picker, 2));
    for span in ask(&mut picker, one, 2) {
        picker.handle_received(one, span);
    }
    picker.handle_failed(PieceIndex(0), true);
    let asked = ask(&mut picker, one, 2);
    picker.handle_snubbed(one, true);
    assert_eq!(ask(&mut picker, two, 2).len(), 2);
    assert!(is_block(picker.handle_received(one, asked[0])));
    assert_eq!(picker.handle_received(two, asked[0]), Received::Duplicate);
}

#[test]
fn skipping_a_piece_gives_up_its_blocks() {
    let mut picker = picker(2, 2, settings(0));
    let one = join(&mut picker, 1, [0]);
    let asked = ask(&mut picker, one, 2);
    assert_eq!(picker.poll_interest(), Some((one, true)));
    assert!(picker.set_priority(PieceIndex(0), Priority::Skip));
    assert_eq!((picker.pieces_in_flight(), picker.owed_by(one)), (0, 0));
    assert_eq!(picker.handle_received(one, asked[0]), Received::Unwanted);
    assert_eq!((picker.poll_interest(), picker.poll_interest()), (Some((one, false)), None));
    picker.set_priority(PieceIndex(0), Priority::Low);
    assert_eq!(ask(&mut picker, one, 9), asked);
}

#[test]
fn a_piece_that_was_lost_is_wanted_again() {
    let mut picker = picker(2, 1, settings(0));
    let one = join_seed(&mut picker, 1);
    picker.handle_verified(PieceIndex(0));
    picker.handle_verified(PieceIndex(1));
    assert!(picker.is_complete() && !picker.is_interesting(one) && picker.bytes_left() == 0);
    picker.handle_lost(PieceIndex(1));
    assert!(!picker.is_complete() && picker.is_interesting(one));
    assert_eq!(pieces_of(&ask(&mut picker, one, 5)), BTreeSet::from([1]));
}

#[test]
fn copies_are_those_of_the_rarest_piece_and_the_share_of_the_others() {
    let mut picker = picker(4, 1, settings(0));
    assert_eq!(picker.distributed_copies(), 0.0);
    join_seed(&mut picker, 1);
    join(&mut picker, 2, [0, 1, 2]);
    assert_eq!((picker.rarest(), picker.distributed_copies()), ((1, 1), 1.75));
    assert_eq!((picker.availability(PieceIndex(0)), picker.availability(PieceIndex(3))), (2, 1));
    assert_eq!((picker.peers(), picker.seeds()), (2, 1));
    picker.handle_have(conn(2), PieceIndex(3));
    assert_eq!((picker.seeds(), picker.distributed_copies()), (2, 2.0));
}

#[test]
fn nonsense_changes_nothing() {
    let mut picker = picker(4, 1, settings(0));
    let (one, stranger) = (join(&mut picker, 1, [0]), conn(9));
    let out_of_range = PieceIndex(u32::MAX);
    picker.handle_stock(one, &Bitfield::all(5));
    picker.handle_stock(stranger, &Bitfield::all(4));
    assert!(!picker.handle_have(one, out_of_range) && !picker.handle_have(one, PieceIndex(0)));
    assert!(!picker.handle_dont_have(one, out_of_range) && !picker.handle_dont_have(one, PieceIndex(1)));
    assert!(!picker.handle_have(stranger, PieceIndex(0)));
    picker.handle_verified(out_of_range);
    picker.handle_failed(out_of_range, true);
    picker.handle_failed(PieceIndex(2), true);
    picker.handle_lost(PieceIndex(2));
    assert!(!picker.set_priority(out_of_range, Priority::High));
    picker.handle_returned(one, BlockSpan { piece: out_of_range, begin: u32::MAX, len: u32::MAX });
    let span = BlockSpan { piece: PieceIndex(0), begin: 0, len: BLOCK_LEN };
    assert_eq!(picker.handle_received(one, span), Received::Unwanted);
    assert_eq!(picker.handle_received(stranger, span), Received::Unwanted);
    assert!(ask(&mut picker, stranger, 5).is_empty());
    assert_eq!((picker.availability(out_of_range), picker.availability(PieceIndex(0))), (0, 1));
}

#[test]
fn a_peer_with_few_common_pieces_is_found_its_own_behind_the_walks_bound() {
    let count = 20_000;
    let mut picker = picker(count, 1, settings(0));
    join(&mut picker, 1, 0..count - 1);
    join(&mut picker, 2, 10_000..count);
    let few = join(&mut picker, 3, [5, 12_000, 12_001, 19_999]);
    assert_eq!(pieces_of(&ask(&mut picker, few, 1)), BTreeSet::from([5]));
    assert_eq!(pieces_of(&ask(&mut picker, few, 1)), BTreeSet::from([19_999]));
    assert_eq!(ask(&mut picker, few, 9).len(), 2);
}
