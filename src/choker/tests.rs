//! The choker against its definition, written as a list that is walked again for every slot.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use proptest::prelude::*;

const LENGTHS: TorrentLengths = TorrentLengths { piece_len: 1 << 20, total_len: 100 << 20 };
const NOW: Instant = Instant::from_nanos(86_400_000_000_000);

fn conn(number: u32) -> ConnId {
    ConnId { worker: 0, slot: number, generation: 0 }
}

fn prefix(number: u32) -> AddressPrefix {
    let [_, a, b, c] = number.to_be_bytes();
    AddressPrefix::V4([a, b, c])
}

fn ago(secs: u64) -> Instant {
    NOW - Duration::from_secs(secs)
}

/// An interested peer of its own prefix, choked for a minute, joined an hour ago.
fn peer(number: u32) -> PeerSnapshot {
    PeerSnapshot {
        conn: conn(number),
        prefix: prefix(number),
        joined_at: ago(3600),
        interested: true,
        upload_only: false,
        snubbed: false,
        grant: Grant::Choked,
        since: ago(60),
        uploaded_in_round: 0,
        downloaded_lately: 0,
        uploaded_in_turn: 0,
        taken_total: 0,
        reported_pieces: 1,
        passed_over: false,
    }
}

fn giver(number: u32, downloaded_lately: u64) -> PeerSnapshot {
    PeerSnapshot { downloaded_lately, ..peer(number) }
}

fn holder(number: u32, held_secs: u64) -> PeerSnapshot {
    PeerSnapshot { grant: Grant::Regular, since: ago(held_secs), uploaded_in_round: 1, ..peer(number) }
}

fn round(role: Role, slots: usize, peers: &[PeerSnapshot], seed: u64) -> Decisions {
    let mut out = Decisions::default();
    Choker::new(LENGTHS).round(NOW, role, slots, peers, &mut Rng::from_seed(seed), &mut out);
    out
}

fn regular(out: &Decisions, peers: &[PeerSnapshot]) -> Vec<u32> {
    let granted = peers.iter().zip(&out.grants).filter(|(_, grant)| **grant == Grant::Regular);
    granted.map(|(peer, _)| peer.conn.slot).collect()
}

#[test]
fn unchokes_the_four_interested_peers_that_gave_most() {
    let peers: Vec<_> =
        [(1, 10), (2, 60), (3, 20), (4, 50), (5, 30), (6, 40)].map(|(n, gave)| giver(n, gave)).into();
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!(regular(&out, &peers), [2, 4, 5, 6]);
    assert_eq!(out.ranking, [2, 4, 6, 5].map(conn));
    assert!(out.optimistic == [conn(1)] || out.optimistic == [conn(3)]);
    assert_eq!((out.unchoke.len(), out.choke.len()), (5, 0));
}

#[test]
fn a_better_giver_without_interest_is_unchoked_but_takes_no_slot() {
    let mut peers: Vec<_> = (1..=5).map(|n| giver(n, u64::from(n) * 10)).collect();
    peers[4].interested = false;
    peers.push(PeerSnapshot { interested: false, ..giver(6, 5) });
    peers.push(PeerSnapshot { interested: false, upload_only: true, ..giver(7, 1_000) });
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!(regular(&out, &peers), [1, 2, 3, 4]);
    assert_eq!(out.grants[4..], [Grant::Courtesy, Grant::Choked, Grant::Choked]);
}

#[test]
fn a_peer_that_snubbed_us_is_left_to_the_optimistic_slot() {
    let peers = [PeerSnapshot { snubbed: true, ..giver(1, 100) }, giver(2, 0)];
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!(out.grants, [Grant::Optimistic, Grant::Regular]);
    assert_eq!(round(Role::Seeding, 4, &peers, 1).grants, [Grant::Regular, Grant::Regular]);
}

#[test]
fn when_everybody_snubs_us_every_slot_is_optimistic() {
    let mut peers: Vec<_> = (1..=9).map(|n| PeerSnapshot { snubbed: true, ..peer(n) }).collect();
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!((out.optimistic.len(), out.unchoke.len(), out.ranking.len()), (5, 5, 0));
    peers[0].snubbed = false;
    peers[1].snubbed = false;
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!((regular(&out, &peers), out.optimistic.len()), (vec![1, 2], 3));
    peers[2].snubbed = false;
    peers[3].snubbed = false;
    let out = round(Role::Leeching, 4, &peers, 1);
    assert_eq!((regular(&out, &peers), out.optimistic.len()), (vec![1, 2, 3, 4], 1));
}

#[test]
fn without_the_optimistic_slot_only_slots_that_nobody_earned_are_given_at_random() {
    let mut choker = Choker::new(LENGTHS).without_optimistic_slot();
    choker.reset();
    let mut round = |peers: &[PeerSnapshot]| {
        let mut out = Decisions::default();
        choker.round(NOW, Role::Leeching, 4, peers, &mut Rng::from_seed(1), &mut out);
        (regular(&out, peers).len(), out.optimistic.len())
    };
    let mut peers: Vec<_> = (1..=9).map(|n| giver(n, 10)).collect();
    assert_eq!(round(&peers), (4, 0));
    peers.iter_mut().for_each(|peer| peer.snubbed = true);
    assert_eq!(round(&peers), (0, 4));
}

#[test]
fn several_optimistic_peers_keep_their_turn_and_then_all_give_way() {
    let (mut choker, mut rng, mut out) = (Choker::new(LENGTHS), Rng::from_seed(1), Decisions::default());
    let mut peers: Vec<_> = (1..=9).map(|n| PeerSnapshot { snubbed: true, ..peer(n) }).collect();
    let mut turns = Vec::new();
    for secs in (0..120).step_by(10) {
        choker.round(NOW + Duration::from_secs(secs), Role::Leeching, 3, &peers, &mut rng, &mut out);
        for (peer, &grant) in peers.iter_mut().zip(&out.grants) {
            peer.grant = grant;
        }
        let mut turn = out.optimistic.clone();
        turn.sort_unstable();
        turns.push(turn);
    }
    for turn in turns.chunks(3) {
        assert!(turn.iter().all(|holders| holders.len() == 4 && *holders == turn[0]), "{turns:?}");
    }
    for (one, next) in turns.iter().step_by(3).zip(turns.iter().skip(3).step_by(3)) {
        assert!(one.iter().all(|conn| !next.contains(conn)), "{turns:?}");
    }
}

#[test]
fn uninterested_peers_of_a_seed_are_choked() {
    let peers = [PeerSnapshot { interested: false, ..holder(1, 5) }, peer(2)];
    let out = round(Role::Seeding, 4, &peers, 1);
    assert_eq!((out.choke, out.unchoke), (vec![conn(1)], vec![conn(2)]));
}

#[test]
fn newcomers_are_three_times_as_likely() {
    let mut peers: Vec<_> = (1..=4).map(peer).collect();
    peers[3].joined_at = ago(20);
    let mut holders: Vec<_> = (10..14).map(|n| giver(n, 100)).collect();
    peers.append(&mut holders);
    let drawn = |seed| round(Role::Leeching, 4, &peers, seed).optimistic == [conn(4)];
    let times = (0..6_000).filter(|&seed| drawn(seed)).count();
    assert!((2_850..3_150).contains(&times), "{times} of 6000, three in six expected");
}

#[test]
fn many_addresses_of_one_prefix_are_no_likelier_than_one() {
    let mut peers: Vec<_> = (1..=20).map(|n| PeerSnapshot { prefix: prefix(1), ..peer(n) }).collect();
    peers.push(peer(99));
    peers.push(giver(100, 1));
    let drawn = |seed| round(Role::Leeching, 1, &peers, seed).optimistic == [conn(99)];
    let times = (0..2_000).filter(|&seed| drawn(seed)).count();
    assert!((900..1_100).contains(&times), "{times} of 2000, half expected");
}

#[test]
fn the_optimistic_slot_turns_after_thirty_seconds() {
    let (mut choker, mut rng, mut out) = (Choker::new(LENGTHS), Rng::from_seed(1), Decisions::default());
    let mut peers: Vec<_> = (1..=6).map(|n| giver(n, u64::from(n))).collect();
    let mut turns = Vec::new();
    for secs in (0..600).step_by(10) {
        let now = NOW + Duration::from_secs(secs);
        choker.round(now, Role::Leeching, 2, &peers, &mut rng, &mut out);
        for (peer, &grant) in peers.iter_mut().zip(&out.grants) {
            peer.grant = grant;
        }
        turns.push(*out.optimistic.first().expect("four peers are left out"));
    }
    for turn in turns.chunks(3) {
        assert!(turn.iter().all(|conn| *conn == turn[0]), "{turns:?}");
    }
    assert!(turns.chunks(3).zip(turns.chunks(3).skip(1)).all(|(one, next)| one[0] != next[0]), "{turns:?}");
}

#[test]
fn a_seeds_peer_keeps_its_slot_for_its_quantum() {
    let mut peers = vec![holder(1, 50), holder(2, 60), holder(3, 20), holder(4, 20), holder(5, 5)];
    peers[2].uploaded_in_turn = 3 << 20;
    peers[3].uploaded_in_round = 0;
    peers.extend((10..20).map(peer));
    let kept: Vec<_> = regular(&round(Role::Seeding, 5, &peers, 1), &peers);
    assert_eq!(kept, [1, 5, 10, 11, 12]);
}

#[test]
fn a_seed_serves_those_that_wait_longest_first() {
    let peers: Vec<_> = [(1, 20), (2, 90), (3, 40), (4, 70)]
        .map(|(n, secs)| PeerSnapshot { since: ago(secs), ..peer(n) })
        .into();
    assert_eq!(regular(&round(Role::Seeding, 2, &peers, 1), &peers), [2, 4]);
}

#[test]
fn slots_that_nobody_waits_for_stay_with_those_that_take_most() {
    let mut peers: Vec<_> = (1..=4).map(|n| holder(n, 100)).collect();
    peers[1].uploaded_in_round = 500;
    peers[3].uploaded_in_round = 900;
    assert_eq!(regular(&round(Role::Seeding, 2, &peers, 1), &peers), [2, 4]);
}

#[test]
fn three_peers_of_one_prefix_do_not_cut_the_others() {
    let mut peers: Vec<_> = (1..=3).map(|n| PeerSnapshot { prefix: prefix(7), ..holder(n, 5) }).collect();
    peers.extend((10..13).map(peer));
    assert_eq!(regular(&round(Role::Seeding, 4, &peers, 1), &peers), [1, 10, 11, 12]);
    assert_eq!(regular(&round(Role::Seeding, 5, &peers, 1), &peers), [1, 2, 10, 11, 12]);
}

#[test]
fn a_prefix_of_many_waits_its_turn_like_a_prefix_of_one() {
    let (mut choker, mut rng, mut out) = (Choker::new(LENGTHS), Rng::from_seed(1), Decisions::default());
    let mut peers: Vec<_> = (1..=20).map(|n| PeerSnapshot { prefix: prefix(1), ..peer(n) }).collect();
    peers.extend((101..=109).map(peer));
    let mut rounds_of_prefix = 0;
    for secs in (0..10_000).step_by(10) {
        let now = NOW + Duration::from_secs(secs);
        choker.round(now, Role::Seeding, 1, &peers, &mut rng, &mut out);
        for (peer, &grant) in peers.iter_mut().zip(&out.grants) {
            if (peer.grant == Grant::Choked) != (grant == Grant::Choked) {
                peer.since = now;
            }
            peer.grant = grant;
            rounds_of_prefix += usize::from(peer.prefix == prefix(1) && grant != Grant::Choked);
        }
    }
    assert!((180..=220).contains(&rounds_of_prefix), "{rounds_of_prefix} of 2000 turns, a tenth expected");
}

#[test]
fn a_peer_that_took_the_torrent_twice_and_reports_nothing_comes_last() {
    let liar = PeerSnapshot { taken_total: 101 << 20, reported_pieces: 0, since: ago(900), ..peer(1) };
    let peers = [liar, peer(2), peer(3)];
    assert_eq!(regular(&round(Role::Seeding, 1, &peers, 1), &peers), [2]);
    assert!((0..50).all(|seed| round(Role::Seeding, 1, &peers, seed).optimistic == [conn(3)]));
    assert_eq!(regular(&round(Role::Seeding, 3, &peers, 1), &peers), [1, 2, 3]);
}

#[test]
fn a_peer_that_was_passed_over_comes_last_and_still_has_a_slot_that_nobody_else_wants() {
    let passed = PeerSnapshot { passed_over: true, since: ago(900), ..peer(1) };
    let peers = [passed, peer(2), peer(3)];
    assert_eq!(regular(&round(Role::Seeding, 1, &peers, 1), &peers), [2]);
    assert!((0..50).all(|seed| round(Role::Seeding, 1, &peers, seed).optimistic == [conn(3)]));
    assert_eq!(regular(&round(Role::Seeding, 3, &peers, 1), &peers), [1, 2, 3]);
    // While leeching who gives more comes first all the same.
    let peers = [PeerSnapshot { passed_over: true, ..giver(1, 50) }, giver(2, 20), giver(3, 0), giver(4, 0)];
    let peers = [peers[0], peers[1], PeerSnapshot { passed_over: true, ..peers[2] }, peers[3]];
    assert_eq!(regular(&round(Role::Leeching, 2, &peers, 1), &peers), [1, 2]);
    assert_eq!(regular(&round(Role::Leeching, 3, &peers, 1), &peers), [1, 2, 4]);
}

#[test]
fn no_slots_unchoke_nobody() {
    let peers = [giver(1, 5), holder(2, 5), PeerSnapshot { interested: false, ..giver(3, 9) }];
    for role in [Role::Leeching, Role::Seeding] {
        let out = round(role, 0, &peers, 1);
        assert_eq!((out.unchoke, out.choke, out.optimistic), (vec![], vec![conn(2)], vec![]));
    }
}

/// The definition: for every slot, walk all that are left and take the best by the rules in words.
fn naive(now: Instant, role: Role, slots: usize, peers: &[PeerSnapshot]) -> Vec<u32> {
    let holds = |prefix| {
        peers
            .iter()
            .any(|peer| peer.prefix == prefix && matches!(peer.grant, Grant::Regular | Grant::Optimistic))
    };
    let mut left: Vec<&PeerSnapshot> =
        peers.iter().filter(|peer| peer.interested && (role == Role::Seeding || !peer.snubbed)).collect();
    let mut chosen: Vec<&PeerSnapshot> = Vec::new();
    while chosen.len() < slots && !left.is_empty() {
        let merit = |peer: &PeerSnapshot| {
            let liar = peer.reported_pieces == 0 && peer.taken_total > LENGTHS.total_len;
            let optimistic = peers.iter().filter(|other| other.grant == Grant::Optimistic);
            let of_prefix =
                chosen.iter().copied().chain(optimistic).filter(|other| other.prefix == peer.prefix).count();
            let held = now.since(peer.since).as_secs();
            let over =
                peer.uploaded_in_turn >= 3 << 20 || held >= 60 || (held >= 10 && peer.uploaded_in_round == 0);
            let since = peer.since.as_nanos();
            let (given, stage) = match (role, peer.grant) {
                (Role::Leeching, Grant::Regular) => (peer.downloaded_lately, (0, since, 0)),
                (Role::Leeching, _) => (peer.downloaded_lately, (1, since, 0)),
                (Role::Seeding, Grant::Regular) if !over => (0, (0, since, 0)),
                (Role::Seeding, Grant::Choked) => {
                    (0, (1, if holds(peer.prefix) { now.as_nanos() } else { since }, 0))
                }
                (Role::Seeding, _) => (0, (2, 0, u64::MAX - peer.uploaded_in_round)),
            };
            (liar, u64::MAX - given, peer.passed_over, of_prefix, stage, since, peer.conn)
        };
        let best = (0..left.len()).min_by_key(|&index| merit(left[index])).expect("some are left");
        chosen.push(left.remove(best));
    }
    let mut numbers: Vec<u32> = chosen.iter().map(|peer| peer.conn.slot).collect();
    numbers.sort_unstable();
    numbers
}

prop_compose! {
    fn any_peer()(
        network in 0u32..6, flags in any::<(bool, bool)>(), interested in prop::bool::weighted(0.8),
        grant in 0u8..5, secs in 0u64..100, bytes in (0u64..3, 0u64..3, 0u64..5), liar in prop::bool::weighted(0.1),
        passed_over in prop::bool::weighted(0.2),
    ) -> PeerSnapshot {
        PeerSnapshot {
            prefix: prefix(network),
            interested,
            snubbed: flags.0,
            upload_only: flags.1,
            grant: match (grant, interested) {
                (0 | 1, true) => Grant::Regular,
                (0 | 1, false) => Grant::Courtesy,
                _ => Grant::Choked,
            },
            since: ago(secs),
            uploaded_in_round: bytes.0,
            downloaded_lately: bytes.1,
            uploaded_in_turn: bytes.2 << 20,
            taken_total: if liar { 200 << 20 } else { 0 },
            reported_pieces: u32::from(!liar),
            passed_over,
            ..peer(0)
        }
    }
}

proptest! {
    #[test]
    fn a_round_chooses_as_the_definition_does(
        mut peers in prop::collection::vec(any_peer(), 0..30), slots in 0usize..8, seeding: bool, seed: u64,
        optimistic in 0usize..60,
    ) {
        if let Some(peer) = peers.get_mut(optimistic).filter(|peer| peer.interested) {
            peer.grant = Grant::Optimistic;
        }
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.conn.slot = number as u32;
        }
        let role = if seeding { Role::Seeding } else { Role::Leeching };
        let out = round(role, slots, &peers, seed);
        prop_assert_eq!(regular(&out, &peers), naive(NOW, role, slots, &peers));
        let count = |grant| out.grants.iter().filter(|&&other| other == grant).count();
        prop_assert!(count(Grant::Courtesy) <= slots);
        prop_assert_eq!(count(Grant::Optimistic), out.optimistic.len());
        let left_out = peers.iter().zip(&out.grants)
            .filter(|(peer, grant)| peer.interested && **grant != Grant::Regular).count();
        let wanted = if slots == 0 { 0 } else { 1 + slots - count(Grant::Regular) };
        prop_assert_eq!(out.optimistic.len(), left_out.min(wanted));
        prop_assert!(seeding || wanted < 2 || out.optimistic.len() == left_out || peers.iter().any(|peer| peer.snubbed));
        for (peer, &grant) in peers.iter().zip(&out.grants) {
            let (was, is) = (peer.grant != Grant::Choked, grant != Grant::Choked);
            prop_assert_eq!(out.unchoke.contains(&peer.conn), !was && is);
            prop_assert_eq!(out.choke.contains(&peer.conn), was && !is);
        }
    }

    #[test]
    fn filling_takes_only_waiting_peers_and_leaves_no_slot_empty_while_one_waits(
        mut peers in prop::collection::vec(any_peer(), 0..30), free in 0usize..8, seeding: bool,
    ) {
        for (number, peer) in peers.iter_mut().enumerate() {
            peer.conn.slot = number as u32;
        }
        let role = if seeding { Role::Seeding } else { Role::Leeching };
        let chosen = Choker::new(LENGTHS).fill(NOW, role, free, &peers);
        let waits = |peer: &&PeerSnapshot| {
            peer.interested && peer.grant == Grant::Choked && (seeding || !peer.snubbed)
        };
        prop_assert_eq!(chosen.len(), free.min(peers.iter().filter(waits).count()));
        prop_assert!(chosen.iter().all(|conn| peers.iter().filter(waits).any(|peer| peer.conn == *conn)));
    }
}
