//! Peers that hold slots and ask for nothing, beside one that asks: what each of them gets, second by second.

use super::*;
use crate::limits::{PASSED_OVER_TIME_MIN, SLOT_TRIALS_MAX};
use crate::rng::Rng;
use crate::time::Duration;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const STEP: Duration = Duration::from_millis(100);
const PIECE: u64 = 1 << 18;
const BLOCK: u64 = 16 * 1024;

/// What a peer does with its slots.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manner {
    /// Asks a round trip after it was unchoked, and takes so many bytes a second.
    Takes { round_trip: Duration, rate: u64 },
    /// Never asks.
    Idle,
    /// Asks one block in each turn.
    Drips,
    /// Asks for more than there is, and reads no more than a connection's buffers hold.
    ReadsNothing,
    /// Says that it wants nothing as soon as it may have it, and a second later that it does.
    Flips,
    /// Leaves and comes back as soon as it has held a slot for so long.
    Returns(Duration),
}

#[derive(Clone, Debug)]
struct Member {
    manner: Manner,
    conn: ConnId,
    prefix: AddressPrefix,
    unchoked_at: Option<Instant>,
    choked_at: Instant,
    flipped_at: Option<Instant>,
    sample: PeerSample,
    /// Asked in its present turn.
    asked: bool,
    knocked: bool,
    turns: u32,
    held: Duration,
}

struct Crowd {
    machine: TorrentMachine,
    members: Vec<Member>,
    rng: Rng,
    now: Instant,
    slots: usize,
    /// Most slots beyond those so far.
    most_extra: usize,
}

impl Crowd {
    fn new(role: Role, slots: usize) -> Self {
        let slots_setting = Slots::Fixed(slots);
        let lengths = (PIECE as u32, 1 << 34);
        let machine = TorrentMachine::new(TorrentParameters {
            role,
            slots: slots_setting,
            piece_len: lengths.0,
            total_len: lengths.1,
        });
        Self { machine, members: Vec::new(), rng: Rng::from_seed(1), now: START, slots, most_extra: 0 }
    }

    fn join(&mut self, manner: Manner) -> usize {
        let number = self.members.len() as u32;
        let [_, a, b, c] = number.to_be_bytes();
        let prefix = AddressPrefix::V4([a + 1, b, c]);
        self.members.push(Member {
            manner,
            conn: ConnId { worker: 0, slot: number, generation: 0 },
            prefix,
            unchoked_at: None,
            choked_at: self.now,
            flipped_at: None,
            sample: PeerSample::default(),
            asked: false,
            knocked: false,
            turns: 0,
            held: Duration::ZERO,
        });
        self.enter(number as usize);
        number as usize
    }

    fn enter(&mut self, number: usize) {
        let now = self.now;
        let member = &mut self.members[number];
        member.sample = PeerSample { reported_pieces: 1, unasked_since: Some(now), ..PeerSample::default() };
        (member.unchoked_at, member.choked_at, member.asked) = (None, now, false);
        self.machine.handle_joined(now, member.conn, member.prefix);
        self.machine.handle_interest(now, member.conn, true);
        self.obey();
    }

    fn obey(&mut self) {
        let now = self.now;
        while let Some(action) = self.machine.poll_action() {
            let (TorrentAction::Unchoke(conn) | TorrentAction::Choke(conn)) = action else {
                panic!("only chokes are due: {action:?}")
            };
            let member = &mut self.members[conn.slot as usize];
            assert_eq!(member.conn, conn);
            if action == TorrentAction::Unchoke(conn) {
                (member.unchoked_at, member.asked, member.knocked) = (Some(now), false, false);
                member.turns += 1;
            } else {
                (member.unchoked_at, member.choked_at) = (None, now);
                member.sample.follow_requests(now, false);
            }
        }
    }

    fn act(&mut self, number: usize) {
        let now = self.now;
        let member = &mut self.members[number];
        let conn = member.conn;
        let held = member.unchoked_at.map(|at| now.since(at));
        match (member.manner, held) {
            (Manner::Takes { round_trip, rate }, Some(held)) if held >= round_trip => {
                member.asked = true;
                member.sample.follow_requests(now, true);
                member.sample.uploaded += rate / 10;
                member.sample.downloaded += 0;
            }
            // Its request is still on its way.
            (Manner::Takes { round_trip, .. }, None)
                if !member.asked && !member.knocked && now.since(member.choked_at) >= round_trip / 2 =>
            {
                member.knocked = true;
                member.sample.refused += u32::from(member.turns > 0);
            }
            (Manner::Drips, Some(_)) if !member.asked => {
                member.asked = true;
                member.sample.uploaded += BLOCK;
                member.sample.follow_requests(now, true);
                member.sample.follow_requests(now + Duration::from_millis(1), false);
            }
            (Manner::ReadsNothing, Some(_)) => {
                member.sample.uploaded = 4 * PIECE;
                member.sample.follow_requests(now, true);
            }
            (Manner::Flips, Some(held))
                if held >= Duration::from_millis(900) && member.flipped_at.is_none() =>
            {
                member.flipped_at = Some(now);
                self.machine.handle_interest(now, conn, false);
            }
            (Manner::Flips, _) if member.flipped_at.is_some_and(|at| now.since(at).as_secs() >= 1) => {
                member.flipped_at = None;
                self.machine.handle_interest(now, conn, true);
            }
            (Manner::Returns(after), Some(held)) if held >= after => {
                let (conn, sample) = (member.conn, member.sample);
                self.machine.handle_closed(now, conn, Closed::Normal, sample, &mut self.rng);
                self.obey();
                self.members[number].conn.generation += 1;
                self.enter(number);
            }
            _ => {}
        }
        self.obey();
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            (0..self.members.len()).for_each(|number| self.act(number));
            let unchoked = self.members.iter_mut().filter(|member| member.unchoked_at.is_some());
            unchoked.for_each(|member| member.held += STEP);
            let open = self.machine.grants().filter(|(_, grant)| *grant == Grant::Regular).count();
            assert!(open <= self.machine.slots(), "{open} slots");
            let extra = self.machine.slots() - self.slots;
            assert!(extra <= SLOT_TRIALS_MAX);
            self.most_extra = self.most_extra.max(extra);
            while self.machine.poll_timeout().is_some_and(|due| due <= self.now) {
                let members = &self.members;
                let sample = |conn: ConnId| {
                    let member = &members[conn.slot as usize];
                    if member.conn == conn { member.sample } else { PeerSample::default() }
                };
                self.machine.handle_timeout(self.now, sample, &mut self.rng);
                self.obey();
            }
        }
    }

    fn taken(&self, number: usize) -> u64 {
        self.members[number].sample.uploaded
    }
}

const HONEST: Manner = Manner::Takes { round_trip: Duration::from_millis(200), rate: 1_000_000 };
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn an_honest_peer_behind_hundreds_who_never_ask_waits_for_seconds() {
    for (idle, seconds) in [(0, 1), (10, 4), (100, 8), (200, 11), (500, 16)] {
        let mut crowd = Crowd::new(Role::Seeding, 4);
        (0..idle).for_each(|_| _ = crowd.join(Manner::Idle));
        let honest = crowd.join(HONEST);
        crowd.pass(Duration::from_secs(seconds));
        assert!(crowd.taken(honest) > 0, "behind {idle}");
        // It has a slot for good: the others are last in line for minutes.
        let before = crowd.taken(honest);
        crowd.pass(MINUTE);
        let taken = crowd.taken(honest) - before;
        assert!(taken >= 55 * 1_000_000, "behind {idle}: {taken} bytes of 60 MB");
    }
}

#[test]
fn of_more_who_ask_than_there_are_slots_the_first_keep_theirs() {
    let mut crowd = Crowd::new(Role::Seeding, 4);
    (0..40).for_each(|_| _ = crowd.join(Manner::Idle));
    let first = crowd.join(HONEST);
    (0..30).for_each(|_| _ = crowd.join(HONEST));
    crowd.pass(Duration::from_secs(10));
    assert!(crowd.most_extra > 0, "more are tried while nobody asks");
    assert_eq!(crowd.machine.slots(), 4, "and no longer once they ask");
    crowd.pass(MINUTE * 20);
    // In the long run no more are served than there are slots, with the optimistic one; and everybody's share is alike.
    let held: Vec<Duration> = crowd.members[first..].iter().map(|member| member.held).collect();
    let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
    assert!(*least * 2 >= *most, "{held:?}");
    assert!(held.iter().sum::<Duration>() <= Duration::from_secs(20 * 60 * 5 + 120), "{held:?}");
}

#[test]
fn a_crowd_that_asks_is_served_in_as_many_slots_as_there_are() {
    let mut crowd = Crowd::new(Role::Seeding, 4);
    (0..100).for_each(|_| _ = crowd.join(HONEST));
    crowd.pass(MINUTE * 10);
    assert_eq!(crowd.most_extra, 0);
}

#[test]
fn a_crowd_that_holds_slots_and_never_asks_costs_an_honest_peer_a_minute_once() {
    for manner in [
        Manner::Idle,
        Manner::Flips,
        Manner::Returns(Duration::from_millis(500)),
        Manner::Returns(Duration::from_secs(3)),
    ] {
        let mut crowd = Crowd::new(Role::Seeding, 4);
        (0..100).for_each(|_| _ = crowd.join(manner));
        let honest = crowd.join(HONEST);
        // A hundred stand before it; those who come and go are tried one by one.
        crowd.pass(MINUTE);
        assert!(crowd.taken(honest) > 0, "{manner:?}");
        let before = crowd.taken(honest);
        crowd.pass(MINUTE * 5);
        let taken = crowd.taken(honest) - before;
        assert!(taken >= 200 * 1_000_000, "{manner:?}: {taken} bytes of 300 MB");
    }
}

#[test]
fn who_asks_a_block_and_then_nothing_is_found_out_too() {
    let mut crowd = Crowd::new(Role::Seeding, 4);
    (0..60).for_each(|_| _ = crowd.join(Manner::Drips));
    let honest = crowd.join(HONEST);
    crowd.pass(MINUTE * 2);
    assert!(crowd.taken(honest) > 0);
    let before = crowd.taken(honest);
    crowd.pass(MINUTE * 5);
    let taken = crowd.taken(honest) - before;
    assert!(taken >= 150 * 1_000_000, "{taken} bytes of 300 MB");
}

#[test]
fn who_asks_and_reads_nothing_is_found_out_once_its_buffers_are_full() {
    let mut crowd = Crowd::new(Role::Seeding, 4);
    (0..40).for_each(|_| _ = crowd.join(Manner::ReadsNothing));
    let honest = crowd.join(HONEST);
    // What fills the buffers counts as taken, and pays for some turns.
    crowd.pass(MINUTE * 12);
    let before = crowd.taken(honest);
    assert!(before > 0);
    crowd.pass(MINUTE * 5);
    let taken = crowd.taken(honest) - before;
    assert!(taken >= 100 * 1_000_000, "{taken} bytes of 300 MB");
}

#[test]
fn nobody_loses_a_slot_that_nobody_waits_for() {
    let mut crowd = Crowd::new(Role::Seeding, 4);
    (0..4).for_each(|_| _ = crowd.join(Manner::Idle));
    crowd.pass(MINUTE * 10);
    assert!(crowd.members.iter().all(|member| member.unchoked_at.is_some() && member.turns == 1));
    // Who comes then need not wait for the next round.
    let honest = crowd.join(HONEST);
    crowd.pass(Duration::from_millis(1500));
    assert!(crowd.members[honest].unchoked_at.is_some());
}

#[test]
fn a_slow_line_and_a_long_round_trip_are_no_fault() {
    for (round_trip, rate) in
        [(100, 5_000), (900, 20_000), (1_900, 50_000), (3_500, 1_000_000), (6_000, 100_000)]
    {
        let mut crowd = Crowd::new(Role::Seeding, 4);
        let slow = Manner::Takes { round_trip: Duration::from_millis(round_trip), rate };
        let slow = crowd.join(slow);
        (0..12).for_each(|_| _ = crowd.join(HONEST));
        crowd.pass(MINUTE * 15);
        let held = crowd.members[slow].held;
        let others = crowd.members[slow + 1..].iter().map(|member| member.held).min().unwrap_or_default();
        assert!(held * 2 >= others, "{round_trip} ms, {rate} B/s: {held:?}, the others {others:?}");
        assert!(crowd.taken(slow) > 0);
        assert!(!crowd.machine.peers[&crowd.members[slow].conn].of_slots.is_passed_over(crowd.now));
    }
}

#[test]
fn a_prefix_that_left_with_a_debt_is_last_in_line_until_it_ends() {
    let mut crowd = Crowd::new(Role::Seeding, 1);
    let idle = crowd.join(Manner::Returns(Duration::from_millis(500)));
    let honest = crowd.join(Manner::Takes { round_trip: Duration::ZERO, rate: 10_000_000 });
    (0..4).for_each(|_| _ = crowd.join(HONEST));
    crowd.pass(Duration::from_secs(5));
    assert!(crowd.members[honest].unchoked_at.is_some());
    assert_eq!(crowd.members[idle].conn.generation, 1);
    assert!(crowd.machine.peers[&crowd.members[idle].conn].of_slots.is_passed_over(crowd.now));
    crowd.pass(PASSED_OVER_TIME_MIN);
    assert!(!crowd.machine.peers[&crowd.members[idle].conn].of_slots.is_passed_over(crowd.now));
    crowd.members.clone().iter().for_each(|member| crowd.machine.handle_left(crowd.now, member.conn));
    assert!(crowd.machine.slot_debts.is_none(), "a torrent without peers remembers nothing");
}

#[test]
fn while_leeching_who_gives_keeps_its_slot_whatever_it_asks_for() {
    let mut crowd = Crowd::new(Role::Leeching, 4);
    let givers: Vec<usize> = (0..4).map(|_| crowd.join(Manner::Idle)).collect();
    (0..6).for_each(|_| _ = crowd.join(Manner::Idle));
    let honest = crowd.join(HONEST);
    for _ in 0..3000 {
        givers.iter().for_each(|&giver| crowd.members[giver].sample.downloaded += 10_000);
        crowd.pass(STEP);
    }
    let has_slot = |number: &usize| crowd.machine.peers[&crowd.members[*number].conn].grant == Grant::Regular;
    assert!(givers.iter().all(has_slot));
    // The optimistic slot is not kept by those who never ask either.
    assert!(crowd.taken(honest) > 30 * 1_000_000, "{}", crowd.taken(honest));
}
