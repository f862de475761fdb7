//! The production workers as a leech, among peers that give well or badly: what is wrong is never told or stored, and
//! whoever can complete does.

use super::giver::Manner;
use super::leech_rig::{INFO_HASH, LeechRig, PIECES};
use super::ring::Faults;
use crate::bitfield::Bitfield;
use crate::engine::message::ToWorker;
use crate::rng::Rng;
use crate::time::Duration;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};

const BLOCKS: usize = (PIECES as usize - 1) * 4 + 2;

fn all() -> Bitfield {
    Bitfield::all(PIECES)
}

fn some(rng: &mut Rng) -> Bitfield {
    let mut pieces = Bitfield::none(PIECES);
    for piece in (0..PIECES).filter(|_| rng.below(2) == 0) {
        pieces.insert(PieceIndex(piece));
    }
    pieces
}

#[test]
fn one_seed_gives_everything_and_nothing_is_asked_twice() {
    for workers in [1, 2] {
        let mut rig = LeechRig::new(1, Faults::default(), workers);
        rig.arrive(Manner::default(), all());
        rig.complete();
        assert_eq!(rig.requests(), BLOCKS);
        rig.stop();
    }
}

fn bad_manner(rng: &mut Rng) -> Manner {
    let one_in = |rng: &mut Rng, chance, most| if rng.below(chance) == 0 { rng.below(most) } else { 0 };
    Manner {
        answers: 50 + rng.below(950),
        lies: one_in(rng, 4, 300),
        rejects: one_in(rng, 4, 500),
        chokes: one_in(rng, 3, 100),
        unchokes: 20 + rng.below(900),
        leaves: one_in(rng, 4, 20),
        unasked: one_in(rng, 6, 100),
        asks: one_in(rng, 3, 200),
        fast: rng.below(3) > 0,
        reqq: (rng.below(3) == 0).then(|| 1 + rng.below(20) as u32),
    }
}

/// One run: peers give badly on a bad day, and the disk refuses now and then; then all that ends.
fn run_by_seed(seed: u64) {
    let mut rng = Rng::from_seed(seed);
    let faults = Faults::drawn(&mut rng);
    let workers = 1 + rng.index(2);
    let mailbox_len = [4, 64][rng.index(2)];
    let mut rig = LeechRig::with_mailboxes(seed, faults, workers, mailbox_len);
    rig.redials = true;
    rig.storage_answers = 20 + rng.below(980);
    for worker in &mut rig.workers {
        worker.ring_mut().buffer_len = 200 + rng.index(20_000);
    }
    for _ in 0..3 + rng.index(6) {
        let manner = bad_manner(&mut rng);
        let has = if rng.below(3) == 0 { all() } else { some(&mut rng) };
        let number = if rng.below(2) == 0 { rig.arrive(manner, has) } else { rig.add(manner, has) };
        if rng.below(4) == 0 {
            rig.givers[number].fast_pieces = rig.givers[number].has.iter().take(3).collect();
        }
    }
    for _ in 0..rng.below(300) {
        match rng.below(30) {
            0 => rig.truth.sink.set_refusing(true),
            1..4 => rig.truth.sink.set_refusing(false),
            4 => {
                let number = rng.index(rig.givers.len());
                rig.givers[number].silent = rng.below(2) == 0;
            }
            5 => {
                let number = rng.index(rig.givers.len());
                rig.name(rig.givers[number].address);
            }
            6..9 => {
                let number = rng.index(rig.givers.len());
                let piece = PieceIndex(rng.below(u64::from(PIECES)) as u32);
                if let Some((worker, _)) = rig.givers[number].connection {
                    rig.givers[number].gain(rig.workers[worker].ring_mut(), piece);
                }
            }
            _ => {}
        }
        rig.run(rng.index(6) + 1);
    }
    rig.truth.sink.set_refusing(false);
    rig.storage_answers = 1000;
    for worker in &mut rig.workers {
        worker.ring_mut().faults = Faults::default();
    }
    let liars: Vec<_> = rig
        .givers
        .iter()
        .filter(|giver| giver.lied > 0 || giver.manner.lies > 0)
        .map(|giver| giver.address.ip())
        .collect();
    rig.arrive(Manner::default(), all());
    rig.complete();
    for ip in &rig.banned {
        assert!(liars.contains(ip), "{ip} is banned and has not lied");
    }
    rig.stop();
}

#[test]
fn bad_days_by_seed_end_with_a_whole_torrent_and_leave_nothing_behind() {
    let seeds = std::env::var("SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60);
    for seed in 0..seeds {
        let result = std::panic::catch_unwind(|| run_by_seed(seed));
        assert!(result.is_ok(), "failing seed: {seed}");
    }
}

/// Runs the tests' scenes on one core and on two.
fn on_one_core_and_two(mut scene: impl FnMut(LeechRig) -> LeechRig) {
    for workers in [1, 2] {
        scene(LeechRig::new(7, Faults::default(), workers)).stop();
    }
}

#[test]
fn one_liar_among_honest_peers_is_banned_alone_and_everybody_completes() {
    on_one_core_and_two(|mut rig| {
        let liar = rig.arrive(Manner { lies: 500, ..Manner::default() }, all());
        for _ in 0..4 {
            rig.arrive(Manner { answers: 300, ..Manner::default() }, all());
        }
        rig.complete();
        assert!(rig.givers[liar].lied > 0 && rig.truth.sink.failed() > 0);
        let liar = rig.givers[liar].address.ip();
        assert!(rig.banned.iter().all(|&ip| ip == liar) && !rig.banned.is_empty(), "{:?}", rig.banned);
        rig
    });
}

#[test]
fn a_liar_that_is_banned_is_not_let_in_again() {
    on_one_core_and_two(|mut rig| {
        let liar = rig.arrive(Manner { lies: 1000, ..Manner::default() }, all());
        rig.until(|rig| !rig.banned.is_empty() && rig.givers[liar].connection.is_none());
        rig.call(liar);
        rig.until(|rig| rig.givers[liar].connection.is_none());
        rig.arrive(Manner::default(), all());
        rig.complete();
        rig
    });
}

#[test]
fn storage_that_refuses_is_told_once_and_the_download_goes_on_when_it_recovers() {
    on_one_core_and_two(|mut rig| {
        rig.truth.sink.set_refusing(true);
        let seed = rig.arrive(Manner { answers: 300, ..Manner::default() }, all());
        rig.until(|rig| rig.refused > 0);
        rig.pass(Duration::from_secs(30));
        let asked = rig.givers[seed].requests;
        rig.pass(Duration::from_secs(30));
        assert_eq!((rig.refused, rig.recovered, rig.givers[seed].requests), (1, 0, asked));
        rig.truth.sink.set_refusing(false);
        rig.complete();
        assert_eq!((rig.refused, rig.recovered), (1, 1));
        rig
    });
}

#[test]
fn who_snubs_keeps_nothing_from_arriving_by_others() {
    on_one_core_and_two(|mut rig| {
        let mute = rig.arrive(Manner::default(), all());
        rig.until(|rig| rig.givers[mute].asked.len() > 2);
        rig.givers[mute].silent = true;
        rig.arrive(Manner::default(), all());
        rig.complete();
        rig
    });
}

#[test]
fn who_stalls_in_the_middle_of_a_block_does_not_keep_it_from_others() {
    on_one_core_and_two(|mut rig| {
        let mute = rig.arrive(Manner { answers: 0, ..Manner::default() }, all());
        rig.until(|rig| rig.givers[mute].asked.len() > 2);
        let (worker, socket) = rig.givers[mute].connection.expect("it is connected");
        let mut bytes = Vec::new();
        crate::wire::encode(&crate::wire::Message::Piece(rig.givers[mute].asked[0]), &mut bytes);
        bytes.extend([0; 100]);
        rig.workers[worker].ring_mut().peer_sends(socket, &bytes);
        let quick = rig.arrive(Manner::default(), all());
        let mut dribbled = rig.now();
        rig.until(|rig| {
            if rig.now() > dribbled + Duration::from_secs(20) {
                dribbled = rig.now();
                rig.workers[worker].ring_mut().peer_sends(socket, &[0]);
            }
            rig.satisfied > 0
        });
        rig.complete();
        let requests = rig.givers[quick].requests;
        assert!(requests <= BLOCKS + 10, "{requests} requests");
        rig
    });
}

#[test]
fn a_choking_peer_gives_its_allowed_fast_pieces() {
    on_one_core_and_two(|mut rig| {
        let manner = Manner { unchokes: 0, ..Manner::default() };
        let giver = rig.add(manner, all());
        rig.givers[giver].fast_pieces = vec![PieceIndex(3), PieceIndex(5)];
        rig.call(giver);
        rig.until(|rig| rig.truth.sink.stored() == 2);
        assert!(rig.truth.sink.has(PieceIndex(3)) && rig.truth.sink.has(PieceIndex(5)));
        assert_eq!(rig.givers[giver].requests, 8);
        rig.givers[giver].manner.unchokes = 1000;
        rig.complete();
        rig
    });
}

#[test]
fn who_unchokes_and_rejects_everything_is_left_and_others_give() {
    on_one_core_and_two(|mut rig| {
        let manner = Manner { rejects: 1000, ..Manner::default() };
        let rejecter = rig.arrive(manner, all());
        rig.until(|rig| rig.givers[rejecter].connection.is_none());
        rig.call(rejecter);
        rig.arrive(Manner::default(), all());
        rig.complete();
        rig
    });
}

#[test]
fn in_the_end_the_slow_are_helped_and_what_they_owe_is_cancelled() {
    on_one_core_and_two(|mut rig| {
        let slow = rig.arrive(Manner { answers: 1, ..Manner::default() }, all());
        rig.until(|rig| !rig.givers[slow].asked.is_empty());
        rig.arrive(Manner::default(), all());
        let began = rig.now();
        rig.complete();
        let took = rig.now().since(began);
        assert!(took < Duration::from_secs(5), "{took:?}");
        assert!(rig.givers[slow].cancels > 0);
        rig
    });
}

#[test]
fn blocks_that_nobody_asked_for_are_thrown_away_and_too_many_end_the_connection() {
    on_one_core_and_two(|mut rig| {
        let giver = rig.arrive(Manner { unasked: 300, ..Manner::default() }, all());
        rig.until(|rig| rig.truth.sink.stored() > 0);
        let wrong = BlockSpan { piece: PieceIndex(1), begin: 0, len: BLOCK_LEN };
        let flood = rig.arrive(Manner { answers: 0, ..Manner::default() }, all());
        rig.until(|rig| rig.givers[flood].wanted || rig.satisfied > 0);
        for _ in 0..400 {
            let Some((worker, _)) = rig.givers[flood].connection else { break };
            rig.givers[flood].send(rig.workers[worker].ring_mut(), &rig.truth, wrong, false);
        }
        rig.until(|rig| rig.givers[flood].connection.is_none());
        rig.complete();
        assert!(rig.banned.is_empty() && rig.givers[giver].given >= BLOCKS);
        rig
    });
}

#[test]
fn blocks_after_a_choke_and_of_wrong_length_do_no_harm() {
    on_one_core_and_two(|mut rig| {
        let giver = rig.arrive(Manner { answers: 0, fast: false, ..Manner::default() }, all());
        rig.until(|rig| rig.givers[giver].asked.len() >= 4);
        let asked = rig.givers[giver].asked.clone();
        let (worker, _) = rig.givers[giver].connection.expect("it is connected");
        rig.givers[giver].manner.unchokes = 0;
        rig.givers[giver].choke(rig.workers[worker].ring_mut());
        for &span in &asked {
            rig.givers[giver].send(rig.workers[worker].ring_mut(), &rig.truth, span, true);
            let short = BlockSpan { len: span.len - 1, ..span };
            rig.givers[giver].send(rig.workers[worker].ring_mut(), &rig.truth, short, true);
        }
        rig.run(200);
        rig.givers[giver].manner = Manner { fast: false, ..Manner::default() };
        rig.complete();
        rig
    });
}

#[test]
fn of_two_connections_of_one_peer_one_is_kept() {
    on_one_core_and_two(|mut rig| {
        let first = rig.arrive(Manner { answers: 300, ..Manner::default() }, all());
        let twin = rig.add(Manner { answers: 300, ..Manner::default() }, all());
        rig.givers[twin].peer_id = rig.givers[first].peer_id;
        rig.givers[twin].address = rig.givers[first].address;
        rig.until(|rig| rig.givers[first].given > 3);
        rig.call(twin);
        rig.until(|rig| rig.givers[twin].connection.is_none() || rig.givers[first].connection.is_none());
        rig.complete();
        rig
    });
}

#[test]
fn ourselves_are_met_once_and_left() {
    on_one_core_and_two(|mut rig| {
        let ourselves = rig.add(Manner::default(), Bitfield::none(PIECES));
        rig.givers[ourselves].peer_id = rig.torrent.peer_id;
        let address = rig.givers[ourselves].address;
        rig.name(address);
        rig.until(|rig| rig.givers[ourselves].connection.is_some());
        rig.until(|rig| rig.givers[ourselves].connection.is_none());
        rig.call(ourselves);
        rig.until(|rig| rig.givers[ourselves].connection.is_none());
        for _ in 0..10 {
            rig.name(address);
            rig.pass(Duration::from_secs(60));
            assert!(rig.givers[ourselves].connection.is_none(), "it was dialled again");
        }
        rig.arrive(Manner::default(), all());
        rig.complete();
        rig
    });
}

#[test]
fn a_torrent_that_is_removed_in_the_middle_lets_go_of_everything() {
    on_one_core_and_two(|mut rig| {
        rig.storage_answers = 0;
        for _ in 0..3 {
            rig.arrive(Manner { answers: 300, ..Manner::default() }, all());
        }
        rig.until(|rig| rig.truth.sink.waiting() > 1);
        (0..rig.workers.len()).for_each(|worker| rig.post(worker, ToWorker::Remove(INFO_HASH)));
        rig.until(|rig| rig.givers.iter().all(|giver| giver.connection.is_none()));
        rig.storage_answers = 1000;
        rig.run(20);
        assert_eq!((rig.satisfied, rig.truth.sink.buffers_held()), (0, 0));
        rig
    });
}

#[test]
fn peers_are_dialled_and_those_who_gain_pieces_are_asked_for_them() {
    on_one_core_and_two(|mut rig| {
        let giver = rig.add(Manner::default(), Bitfield::none(PIECES));
        let address = rig.givers[giver].address;
        rig.name(address);
        rig.until(|rig| rig.givers[giver].connection.is_some());
        for piece in (0..PIECES).map(PieceIndex) {
            rig.run(30);
            let (worker, _) = rig.givers[giver].connection.expect("it stays");
            rig.givers[giver].gain(rig.workers[worker].ring_mut(), piece);
        }
        rig.complete();
        rig
    });
}

#[test]
fn a_peer_that_takes_one_request_is_never_asked_for_two() {
    on_one_core_and_two(|mut rig| {
        rig.arrive(Manner { reqq: Some(1), ..Manner::default() }, all());
        rig.complete();
        rig
    });
}
