//! The assembly against honest peers, liars of every kind and peers that say nothing.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use proptest::prelude::*;

const LEN: u32 = 3 * METADATA_PIECE_LEN + 77;

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

fn info() -> Vec<u8> {
    let mut bytes = vec![0; LEN as usize];
    Rng::from_seed(9).fill(&mut bytes);
    bytes
}

fn piece_of(info: &[u8], piece: u32) -> Vec<u8> {
    info.chunks(METADATA_PIECE_LEN as usize).nth(piece as usize).unwrap_or_default().to_vec()
}

/// An assembly of `info()` with these peers, all of which tell the right length.
fn with_peers(slots: &[u32]) -> MetadataAssembly {
    let mut assembly = MetadataAssembly::new(InfoHash::of(&info()));
    for &slot in slots {
        assert!(assembly.handle_peer(conn(slot), LEN));
    }
    assembly
}

/// Asks one peer for all it is asked for, and lets it answer from `info`.
fn feed(assembly: &mut MetadataAssembly, now: Instant, slot: u32, info: &[u8]) -> Outcome {
    let mut last = Outcome::Useless;
    while let Some(piece) = assembly.pick(now, conn(slot)) {
        last = assembly.handle_data(conn(slot), piece, Some(info.len() as u32), &piece_of(info, piece));
        if last != Outcome::Kept {
            break;
        }
    }
    last
}

fn later(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

#[test]
fn one_honest_peer_gives_it_piece_by_piece() {
    let mut assembly = with_peers(&[1]);
    assert_eq!(assembly.progress(), AssemblyProgress { peers: 1, pieces: 0, piece_count: 4 });
    assert_eq!(assembly.pick(Instant::ZERO, conn(1)), Some(0));
    assert_eq!(assembly.pick(Instant::ZERO, conn(1)), None, "one request at a time");
    let first = piece_of(&info(), 0);
    assert_eq!(assembly.handle_data(conn(1), 0, None, &first), Outcome::Kept);
    assert_eq!(assembly.handle_data(conn(1), 0, None, &first), Outcome::Useless);
    assert_eq!(assembly.progress().pieces, 1);
    assert_eq!(feed(&mut assembly, Instant::ZERO, 1, &info()), Outcome::Complete(info().into()));
}

#[test]
fn peers_share_the_work_and_a_silent_one_is_asked_around() {
    let mut assembly = with_peers(&[1, 2]);
    assert_eq!(assembly.pick(Instant::ZERO, conn(1)), Some(0));
    assert_eq!(assembly.pick(Instant::ZERO, conn(2)), Some(1));
    assert_eq!(assembly.poll_timeout(), Some(Instant::ZERO + METADATA_LATE));
    assert_eq!(assembly.handle_data(conn(2), 1, Some(LEN), &piece_of(&info(), 1)), Outcome::Kept);
    assert_eq!(assembly.pick(later(1), conn(2)), Some(2));
    assert_eq!(assembly.handle_data(conn(2), 2, Some(LEN), &piece_of(&info(), 2)), Outcome::Kept);
    assert_eq!(assembly.pick(later(1), conn(2)), Some(3));
    assert_eq!(assembly.handle_data(conn(2), 3, Some(LEN), &piece_of(&info(), 3)), Outcome::Kept);
    assert_eq!(assembly.pick(later(1), conn(2)), Some(0), "it gives, and the other has given nothing");
    assert_eq!(assembly.pick(later(1), conn(2)), None);
    assert_eq!(assembly.poll_timeout(), Some(later(2)));
    assert_eq!(assembly.pick(later(2), conn(2)), None);
    assert_eq!(assembly.poll_timeout(), Some(later(1) + METADATA_LATE));
    assert_eq!(assembly.pick(later(3), conn(2)), None);
    assert_eq!(assembly.poll_timeout(), Some(Instant::ZERO + METADATA_REQUEST_TIMEOUT));
    // What comes late is as good.
    let complete = Outcome::Complete(info().into());
    assert_eq!(assembly.handle_data(conn(1), 0, Some(LEN), &piece_of(&info(), 0)), complete);
}

#[test]
fn those_who_come_in_turn_and_give_nothing_hold_no_piece() {
    let mut assembly = with_peers(&[]);
    // Every quarter of a second one leaves and another comes; all of them are looked at before the honest one.
    for (newcomer, quarter) in (1000..).zip(0..200) {
        let now = Instant::ZERO + Duration::from_millis(250) * quarter;
        assembly.handle_left(conn(newcomer - 20));
        assert!(assembly.handle_peer(conn(newcomer), LEN));
        for other in (newcomer - 19..=newcomer).rev() {
            assembly.pick(now, conn(other));
        }
        if quarter == 10 {
            assert!(assembly.handle_peer(conn(1), LEN));
        }
        if feed(&mut assembly, now, 1, &info()) == Outcome::Complete(info().into()) {
            assert!(quarter < 40, "after {quarter} quarters of a second");
            return;
        }
    }
    panic!("it never comes");
}

#[test]
fn a_wrong_length_is_put_together_apart_and_does_not_block_the_right_one() {
    let mut assembly = with_peers(&[2]);
    let lie = vec![7; 5];
    assert!(assembly.handle_peer(conn(1), 5));
    assert!(!assembly.handle_peer(conn(3), 0) && !assembly.handle_peer(conn(3), METADATA_LEN_MAX + 1));
    let wrong = Outcome::Wrong { convicted: Some(conn(1)), suspects: vec![] };
    assert_eq!(feed(&mut assembly, Instant::ZERO, 1, &lie), wrong);
    assert_eq!(assembly.pick(Instant::ZERO, conn(1)), None);
    assert_eq!(feed(&mut assembly, Instant::ZERO, 2, &info()), Outcome::Complete(info().into()));
}

// HOSTILE 17
#[test]
fn after_a_wrong_hash_each_gives_everything_and_the_liar_is_found() {
    let mut assembly = with_peers(&[1, 2]);
    let lie = vec![0; LEN as usize];
    let piece = assembly.pick(Instant::ZERO, conn(1)).unwrap();
    assert_eq!(assembly.handle_data(conn(1), piece, Some(LEN), &piece_of(&lie, piece)), Outcome::Kept);
    let wrong = Outcome::Wrong { convicted: None, suspects: vec![conn(1), conn(2)] };
    assert_eq!(feed(&mut assembly, Instant::ZERO, 2, &info()), wrong);
    assert_eq!((assembly.held_len(), assembly.progress().pieces), (0, 0));
    // Both are suspects, and both give all of it now.
    assert_eq!([1, 2].map(|slot| assembly.pick(Instant::ZERO, conn(slot))), [Some(0), Some(0)]);
    assembly.handle_data(conn(1), 0, None, &piece_of(&lie, 0));
    assert_eq!(assembly.handle_data(conn(2), 0, None, &piece_of(&info(), 0)), Outcome::Kept);
    let convicted = Outcome::Wrong { convicted: Some(conn(1)), suspects: vec![] };
    assert_eq!(feed(&mut assembly, Instant::ZERO, 1, &lie), convicted);
    assert_eq!(feed(&mut assembly, Instant::ZERO, 2, &info()), Outcome::Complete(info().into()));
}

#[test]
fn a_feeder_that_goes_silent_keeps_nobody_back_and_its_pieces_are_not_mixed_with_others() {
    let mut assembly = with_peers(&[1, 2]);
    let lie = vec![0; LEN as usize];
    let piece = assembly.pick(Instant::ZERO, conn(1)).unwrap();
    assembly.handle_data(conn(1), piece, None, &piece_of(&lie, piece));
    assert!(matches!(feed(&mut assembly, Instant::ZERO, 2, &info()), Outcome::Wrong { .. }));
    let piece = assembly.pick(Instant::ZERO, conn(1)).unwrap();
    assembly.handle_data(conn(1), piece, None, &piece_of(&lie, piece));
    assert!(assembly.pick(Instant::ZERO, conn(1)).is_some());
    assert_eq!(feed(&mut assembly, Instant::ZERO, 2, &info()), Outcome::Complete(info().into()));
}

#[test]
fn of_a_long_dictionary_one_feeder_is_replaced_when_it_stops_and_memory_stays_bounded() {
    let len = METADATA_FED_LEN_MAX as u32 + 1;
    let pieces = metadata_piece_count(len);
    let mut assembly = MetadataAssembly::new(InfoHash([0; 20]));
    for slot in [1, 2] {
        assert!(assembly.handle_peer(conn(slot), len));
    }
    let give = |assembly: &mut MetadataAssembly, slot, piece| {
        assembly.handle_data(conn(slot), piece, None, &vec![slot as u8; piece_len(len, piece)])
    };
    let piece = assembly.pick(Instant::ZERO, conn(1)).unwrap();
    assert_eq!(give(&mut assembly, 1, piece), Outcome::Kept);
    for _ in 2..pieces {
        let piece = assembly.pick(Instant::ZERO, conn(2)).unwrap();
        assert_eq!(give(&mut assembly, 2, piece), Outcome::Kept);
    }
    let piece = assembly.pick(Instant::ZERO, conn(2)).unwrap();
    assert!(matches!(give(&mut assembly, 2, piece), Outcome::Wrong { convicted: None, .. }));
    // The first by name, until it has stopped.
    for turn in 0..3 {
        assert_eq!(assembly.pick(later(10 * turn), conn(2)), None);
        assert!(assembly.pick(later(10 * turn), conn(1)).is_some());
    }
    assert_eq!(assembly.pick(later(30), conn(2)), Some(0));
    assert!(assembly.held_len() <= len as usize);
}

#[test]
fn many_slow_liars_do_not_keep_an_honest_peer_back() {
    let slots: Vec<u32> = (1..=50).collect();
    let mut assembly = with_peers(&slots);
    let lie = vec![0; LEN as usize];
    // All take part in the first, which is wrong.
    let first: Vec<u32> = slots.iter().map_while(|&slot| assembly.pick(Instant::ZERO, conn(slot))).collect();
    for (piece, slot) in first.iter().zip(&slots) {
        assembly.handle_data(conn(*slot), *piece, None, &piece_of(&lie, *piece));
    }
    // Each is asked for everything; the liars take their time, and the honest one, the last by name, does not.
    for &slot in &slots {
        assert_eq!(assembly.pick(Instant::ZERO, conn(slot)), Some(0), "peer {slot}");
    }
    assert_eq!(assembly.handle_data(conn(50), 0, None, &piece_of(&info(), 0)), Outcome::Kept);
    assert_eq!(feed(&mut assembly, Instant::ZERO, 50, &info()), Outcome::Complete(info().into()));
}

// HOSTILE 33
#[test]
fn who_rejects_is_asked_more_and_more_seldom() {
    let mut assembly = with_peers(&[1]);
    let mut asked = 0;
    for second in 0..3600 {
        if let Some(piece) = assembly.pick(later(second), conn(1)) {
            asked += 1;
            assembly.handle_reject(later(second), conn(1), piece);
        }
    }
    assert!((5..=40).contains(&asked), "{asked}");
}

#[test]
fn data_of_the_wrong_shape_is_thrown_away() {
    let mut assembly = with_peers(&[1]);
    for (piece, total_len, len) in
        [(0, Some(LEN + 1), 16_384), (0, None, 16_383), (1, None, 16_384), (9, None, 0)]
    {
        assert_eq!(assembly.pick(later(100 * u64::from(piece)), conn(1)), Some(0));
        assert_eq!(assembly.handle_data(conn(1), piece, total_len, &vec![0; len]), Outcome::Useless);
        assembly.handle_data(conn(1), 0, None, &[]);
    }
    assert_eq!(assembly.handle_data(conn(2), 0, None, &[]), Outcome::Useless);
    assert_eq!(assembly.held_len(), 0);
}

// HOSTILE 32
#[test]
fn many_lengths_share_one_bound_of_memory() {
    let mut assembly = MetadataAssembly::new(InfoHash::of(&info()));
    for slot in 0..METADATA_PEERS_MAX as u32 + 10 {
        assert_eq!(
            assembly.handle_peer(conn(slot), METADATA_LEN_MAX - slot),
            slot < METADATA_PEERS_MAX as u32
        );
    }
    let bytes = vec![0; METADATA_PIECE_LEN as usize];
    for turn in 0..700 {
        for slot in 0..METADATA_PEERS_MAX as u32 {
            if let Some(piece) = assembly.pick(later(turn), conn(slot)) {
                assembly.handle_data(conn(slot), piece, None, &bytes);
            }
        }
        assert!(assembly.held_len() <= METADATA_HELD_LEN_MAX);
    }
    assert!(assembly.held_len() > 0);
}

// HOSTILE 32
#[test]
fn who_tells_great_lengths_and_drips_keeps_the_right_one_out_for_minutes_only() {
    let mut assembly = MetadataAssembly::new(InfoHash::of(&info()));
    let honest_len = METADATA_LEN_MAX / 2 + 4;
    let lengths =
        [METADATA_LEN_MAX / 2, METADATA_LEN_MAX / 2 + 1, METADATA_LEN_MAX / 2 + 2, METADATA_LEN_MAX / 2 + 3];
    for (slot, len) in (1..).zip(lengths) {
        assert!(assembly.handle_peer(conn(slot), len));
    }
    assert!(assembly.handle_peer(conn(9), honest_len));
    let bytes = vec![0; METADATA_PIECE_LEN as usize];
    let (mut asked_at, mut given) = (None, 0);
    // The honest peer gives ten pieces a second, the others one in nine seconds.
    for second in 0..1800 {
        for slot in (1..=4).filter(|_| second % 9 == 0) {
            if let Some(piece) = assembly.pick(later(second), conn(slot)) {
                assembly.handle_data(conn(slot), piece, None, &bytes);
            }
        }
        for _ in 0..10 {
            if let Some(piece) = assembly.pick(later(second), conn(9)) {
                asked_at.get_or_insert(second);
                given += u32::from(assembly.handle_data(conn(9), piece, None, &bytes) == Outcome::Kept);
            }
        }
        assert!(assembly.held_len() <= METADATA_HELD_LEN_MAX);
    }
    assert!(asked_at.is_some_and(|second| second <= 180), "{asked_at:?}");
    // All but the last of its pieces, which would be judged, came in one go.
    assert!(given >= metadata_piece_count(honest_len) - 1, "{given}");
}

#[test]
fn a_slow_dictionary_is_left_in_peace_while_nobody_waits() {
    let mut assembly = with_peers(&[1]);
    for (turn, piece) in [0, 1].into_iter().enumerate() {
        let now = later(600 * turn as u64);
        assert_eq!(assembly.pick(now, conn(1)), Some(piece));
        assembly.handle_data(conn(1), piece, None, &piece_of(&info(), piece));
    }
    assert_eq!(feed(&mut assembly, later(1800), 1, &info()), Outcome::Complete(info().into()));
}

#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    /// Tells the right length and sends other bytes.
    Forger,
    /// Tells this length and sends as many bytes.
    WrongLength(u32),
    Rejecter,
    Silent,
    /// Honest, but every other piece is forged.
    Mixed,
}

fn manner() -> impl Strategy<Value = Manner> {
    prop_oneof![
        Just(Manner::Honest),
        Just(Manner::Forger),
        (1..LEN * 2).prop_map(Manner::WrongLength),
        Just(Manner::Rejecter),
        Just(Manner::Silent),
        Just(Manner::Mixed),
    ]
}

proptest! {
    // HOSTILE 17, 33
    #[test]
    fn with_one_honest_peer_the_right_bytes_come_and_never_wrong_ones(
        manners in prop::collection::vec(manner(), 0..8),
        honest_at in 0..8usize,
        seed: u64,
    ) {
        let (info, mut rng) = (info(), Rng::from_seed(seed));
        let mut manners = manners;
        manners.insert(honest_at.min(manners.len()), Manner::Honest);
        let mut assembly = MetadataAssembly::new(InfoHash::of(&info));
        for (slot, manner) in manners.iter().enumerate() {
            let len = if let Manner::WrongLength(len) = manner { *len } else { LEN };
            assembly.handle_peer(conn(slot as u32), len);
        }
        let mut now = Instant::ZERO;
        let mut found = None;
        for _ in 0..4_000 {
            now += Duration::from_millis(rng.below(2_000));
            let slot = rng.index(manners.len());
            let manner = manners[slot];
            let Some(piece) = assembly.pick(now, conn(slot as u32)) else { continue };
            let len = if let Manner::WrongLength(len) = manner { len } else { LEN };
            let right = piece_of(&info, piece);
            let forged = vec![1; piece_len(len, piece)];
            let bytes = match manner {
                Manner::Honest => right,
                Manner::Forger | Manner::WrongLength(_) => forged,
                Manner::Mixed => if rng.below(2) == 0 { right } else { forged },
                Manner::Silent => continue,
                Manner::Rejecter => {
                    assembly.handle_reject(now, conn(slot as u32), piece);
                    continue;
                }
            };
            match assembly.handle_data(conn(slot as u32), piece, Some(len), &bytes) {
                Outcome::Complete(bytes) => {
                    found = Some(bytes);
                    break;
                }
                Outcome::Wrong { convicted: Some(liar), .. } => {
                    prop_assert!(!matches!(manners[liar.slot as usize], Manner::Honest));
                }
                _ => {}
            }
            prop_assert!(assembly.held_len() <= METADATA_HELD_LEN_MAX);
        }
        prop_assert_eq!(found.as_deref(), Some(&info[..]));
    }

    #[test]
    fn any_words_in_any_order_give_the_right_bytes_or_none(
        steps in prop::collection::vec((0..6u8, 0..5u32, 0..6u32, 0..4u32, any::<bool>()), 0..400),
    ) {
        let info = info();
        let mut assembly = MetadataAssembly::new(InfoHash::of(&info));
        let mut now = Instant::ZERO;
        for (kind, slot, piece, length, forged) in steps {
            let len = [LEN, LEN, LEN - 1, 20_000][length as usize];
            match kind {
                0 => { assembly.handle_peer(conn(slot), len); }
                1 => assembly.handle_left(conn(slot)),
                2 => assembly.handle_reject(now, conn(slot), piece),
                3 => now += Duration::from_secs(u64::from(piece)),
                _ => {
                    let piece = assembly.pick(now, conn(slot)).unwrap_or(piece);
                    let mut bytes = piece_of(&info, piece);
                    if forged { bytes.iter_mut().for_each(|byte| *byte ^= 1); }
                    if let Outcome::Complete(found) = assembly.handle_data(conn(slot), piece, Some(LEN), &bytes) {
                        prop_assert_eq!(&found[..], &info[..]);
                    }
                }
            }
            let asked: Vec<_> = assembly.peers.values().filter(|peer| peer.is_asked()).collect();
            prop_assert!(asked.len() <= 5);
            prop_assert!(assembly.poll_timeout().is_some() || asked.is_empty());
        }
    }
}
