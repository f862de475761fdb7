//! A leecher's choker among twenty peers that give for what they get, or do not, round by round and by seed (BEP 3,
//! and Cohen, "Incentives build robustness in BitTorrent", 2003).

use super::*;
use crate::limits::OPTIMISTIC_INTERVAL;
use crate::rng::Rng;
use std::collections::BTreeSet;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
/// Bytes that we upload in a round, shared evenly by those we unchoke.
const LINE: u64 = 10 << 20;

/// What a peer gives in a round.
#[derive(Clone, Copy, Debug)]
enum Gives {
    /// Nothing, ever.
    Nothing,
    /// What it took in the round before, up to its own line, and a trickle when it takes nothing.
    AsItTakes { line: u64 },
    /// So much in every round.
    Always(u64),
    /// So much in every other round.
    InTurns(u64),
}

struct Member {
    gives: Gives,
    taken: u64,
    taken_in_round: u64,
    given: u64,
    unchoked: bool,
    chokes: usize,
}

struct Swarm {
    machine: TorrentMachine,
    members: Vec<Member>,
    rng: Rng,
    round: u64,
    now: Instant,
}

fn conn(number: usize) -> ConnId {
    ConnId { worker: 0, slot: number as u32, generation: 0 }
}

impl Swarm {
    fn new(gives: &[Gives], seed: u64) -> Self {
        let parameters = TorrentParameters {
            role: Role::Leeching,
            slots: Slots::Auto,
            piece_len: 1 << 20,
            total_len: 1 << 40,
        };
        let mut swarm = Self {
            machine: TorrentMachine::new(parameters),
            members: Vec::new(),
            rng: Rng::from_seed(seed),
            round: 0,
            now: START,
        };
        gives.iter().for_each(|&gives| swarm.join(gives));
        swarm
    }

    fn join(&mut self, gives: Gives) {
        let number = self.members.len();
        let member = Member { gives, taken: 0, taken_in_round: 0, given: 0, unchoked: false, chokes: 0 };
        self.members.push(member);
        self.machine.handle_joined(self.now, conn(number), AddressPrefix::V4([10, 0, number as u8]));
        self.machine.handle_interest(self.now, conn(number), true);
        self.obey();
    }

    /// Runs to the next round of the choker, everybody taking and giving on the way.
    fn step(&mut self) {
        let end = self.now + CHOKE_ROUND_INTERVAL;
        loop {
            let due = self.machine.poll_timeout().expect("the torrent has peers");
            if due >= end {
                assert_eq!(due, end, "rounds come every ten seconds");
                break;
            }
            // In between empty slots are filled, and nobody is idle here.
            self.machine.handle_timeout(due, |_| PeerSample::default(), &mut self.rng);
            self.obey();
        }
        self.now = end;
        self.round += 1;
        let share = LINE / self.members.iter().filter(|member| member.unchoked).count().max(1) as u64;
        for member in &mut self.members {
            member.given += match member.gives {
                Gives::Nothing => 0,
                Gives::AsItTakes { line } => member.taken_in_round.clamp(line / 100, line),
                Gives::Always(bytes) => bytes,
                Gives::InTurns(bytes) => bytes * (self.round % 2),
            };
            member.taken_in_round = if member.unchoked { share } else { 0 };
            member.taken += member.taken_in_round;
        }
        let members = &self.members;
        let sample = |conn: ConnId| PeerSample {
            uploaded: members[conn.slot as usize].taken,
            downloaded: members[conn.slot as usize].given,
            reported_pieces: 1,
            ..PeerSample::default()
        };
        self.machine.handle_timeout(self.now, sample, &mut self.rng);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            let (TorrentAction::Unchoke(conn) | TorrentAction::Choke(conn)) = action else {
                panic!("only chokes are due: {action:?}")
            };
            let member = &mut self.members[conn.slot as usize];
            member.unchoked = action == TorrentAction::Unchoke(conn);
            member.chokes += usize::from(!member.unchoked);
        }
    }

    fn grant(&self, number: usize) -> Grant {
        self.machine.peers[&conn(number)].grant
    }

    fn regular(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|&number| self.grant(number) == Grant::Regular).collect()
    }
}

#[test]
fn ten_free_riders_among_twenty_get_less_than_the_optimistic_share() {
    for seed in 0..20 {
        let mut gives = vec![Gives::Nothing; 10];
        gives.extend((1..=10).map(|n| Gives::AsItTakes { line: n << 18 }));
        let mut swarm = Swarm::new(&gives, seed);
        (0..100).for_each(|_| swarm.step());
        let taken = |range: std::ops::Range<usize>| -> u64 {
            swarm.members[range].iter().map(|member| member.taken).sum()
        };
        let (free, all) = (taken(0..10), taken(0..20));
        assert!(free * 5 <= all, "seed {seed}: free-riders got {} of 100", free * 100 / all);
        assert!(swarm.regular().iter().all(|&number| number >= 10), "seed {seed}: {:?}", swarm.regular());
    }
}

#[test]
fn a_peer_that_gives_as_well_as_it_takes_rises_into_the_four() {
    for seed in 0..20 {
        let mut gives = vec![Gives::Always(LINE / 20); 4];
        gives.extend([Gives::Nothing; 5]);
        let mut swarm = Swarm::new(&gives, seed);
        (0..10).for_each(|_| swarm.step());
        assert_eq!(swarm.regular(), [0, 1, 2, 3], "seed {seed}");
        swarm.join(Gives::AsItTakes { line: LINE });
        let rounds = (1..=100).find(|_| {
            swarm.step();
            swarm.grant(9) == Grant::Regular
        });
        // It waits for its turn in the optimistic slot, one of six, and then for its gifts to be counted.
        assert!(rounds.is_some_and(|rounds| rounds <= 60), "seed {seed}: {rounds:?} rounds");
        (0..20).for_each(|_| swarm.step());
        assert_eq!(swarm.grant(9), Grant::Regular, "seed {seed}: it stays among the four");
    }
}

#[test]
fn giving_in_bursts_does_not_make_the_slots_flutter() {
    // One of every two rounds brings nothing from the bursting peers; over two rounds they give more than the rest.
    let mut gives = vec![Gives::InTurns(1_000); 4];
    gives.extend([Gives::Always(300); 4]);
    let mut swarm = Swarm::new(&gives, 1);
    (0..4).for_each(|_| swarm.step());
    let before: usize = swarm.members[..4].iter().map(|member| member.chokes).sum();
    for _ in 0..50 {
        swarm.step();
        assert_eq!(swarm.regular(), [0, 1, 2, 3]);
    }
    let after: usize = swarm.members[..4].iter().map(|member| member.chokes).sum();
    assert_eq!(before, after);
}

#[test]
fn a_giver_that_stops_is_replaced_within_two_rounds() {
    let mut gives = vec![Gives::Always(1_000); 4];
    gives.extend([Gives::Always(500); 4]);
    let mut swarm = Swarm::new(&gives, 1);
    (0..5).for_each(|_| swarm.step());
    swarm.members[2].gives = Gives::Nothing;
    (0..2).for_each(|_| swarm.step());
    assert!(!swarm.regular().contains(&2), "{:?}", swarm.regular());
}

#[test]
fn the_optimistic_slot_goes_round_so_that_everybody_is_tried() {
    let mut gives = vec![Gives::Always(1_000); 4];
    gives.extend([Gives::Nothing; 6]);
    let mut swarm = Swarm::new(&gives, 3);
    let (mut tried, mut last, mut since) = (BTreeSet::new(), None, START);
    for _ in 0..300 {
        swarm.step();
        let holder = (4..10).find(|&number| swarm.grant(number) == Grant::Optimistic);
        if holder != last {
            assert!(last.is_none() || swarm.now.since(since) == OPTIMISTIC_INTERVAL);
            (last, since) = (holder, swarm.now);
        }
        tried.extend(holder);
    }
    assert_eq!(tried.len(), 6, "{tried:?}");
}

#[test]
fn a_leecher_whom_everybody_snubs_tries_five_at_once() {
    let mut swarm = Swarm::new(&[Gives::Nothing; 12], 1);
    swarm.step();
    (0..12).for_each(|number| swarm.machine.handle_snubbed(conn(number), true));
    swarm.step();
    assert_eq!(swarm.members.iter().filter(|member| member.unchoked).count(), 5);
    assert_eq!(swarm.machine.slots_open(), 0);
    // One gives again: it gets a slot, the others share what is left.
    swarm.machine.handle_snubbed(conn(7), false);
    swarm.members[7].gives = Gives::Always(1_000);
    swarm.step();
    assert_eq!(swarm.grant(7), Grant::Regular);
    assert_eq!(swarm.members.iter().filter(|member| member.unchoked).count(), 5);
}
