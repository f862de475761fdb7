//! The machine against its contract: one behaviour each, then any schedule at all.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;
use proptest::prelude::*;
use std::collections::BTreeSet;

const START: Instant = Instant::from_nanos(86_400_000_000_000);

fn conn(number: u32) -> ConnId {
    ConnId { worker: 0, slot: number, generation: 0 }
}

fn prefix(number: u32) -> AddressPrefix {
    let [_, a, b, c] = number.to_be_bytes();
    AddressPrefix::V4([a, b, c])
}

fn at(millis: u64) -> Instant {
    START + Duration::from_millis(millis)
}

fn machine(role: Role, slots: Slots) -> TorrentMachine {
    TorrentMachine::new(TorrentParameters { role, slots, piece_len: 1 << 20, total_len: 1 << 30 })
}

fn drain(machine: &mut TorrentMachine) -> Vec<TorrentAction> {
    std::iter::from_fn(|| machine.poll_action()).collect()
}

fn join_interested(machine: &mut TorrentMachine, now: Instant, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        machine.handle_joined(now, conn(number), prefix(number));
        machine.handle_interest(now, conn(number), true);
    }
}

fn idle(_: ConnId) -> PeerSample {
    PeerSample { reported_pieces: 1, ..PeerSample::default() }
}

fn unchokes(numbers: impl IntoIterator<Item = u32>) -> Vec<TorrentAction> {
    numbers.into_iter().map(|number| TorrentAction::Unchoke(conn(number))).collect()
}

#[test]
fn an_idle_torrent_is_small_and_has_no_timer() {
    assert!(size_of::<TorrentMachine>() < 500, "{}", size_of::<TorrentMachine>());
    let mut machine = machine(Role::Seeding, Slots::Auto);
    assert_eq!(machine.poll_timeout(), None);
    join_interested(&mut machine, START, 1..=50);
    assert!(machine.poll_timeout().is_some());
    (1..=50).for_each(|number| machine.handle_left(START, conn(number)));
    assert_eq!((machine.poll_timeout(), machine.poll_action()), (None, None));
    assert_eq!((machine.actions.capacity(), machine.slots()), (0, REGULAR_SLOTS));
}

#[test]
fn interest_is_answered_at_once_while_a_slot_is_free() {
    let mut machine = machine(Role::Seeding, Slots::Fixed(2));
    join_interested(&mut machine, START, 1..=3);
    assert_eq!(drain(&mut machine), unchokes([1, 2]));
    // Somebody waits: those who hold slots are looked at, and nobody is idle here.
    machine.handle_timeout(START, idle, &mut Rng::from_seed(1));
    assert_eq!((drain(&mut machine), machine.poll_timeout()), (vec![], Some(at(1_000))));
    machine.handle_left(at(100), conn(1));
    assert_eq!(machine.poll_timeout(), Some(at(100)));
    machine.handle_timeout(at(100), idle, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine), unchokes([3]));
    assert_eq!(machine.slots_open(), 2);
}

#[test]
fn a_newcomer_waits_for_a_slot_that_was_given_in_place_of_a_peer_that_snubs_us() {
    let mut machine = machine(Role::Leeching, Slots::Fixed(4));
    join_interested(&mut machine, START, 1..=5);
    (4..=5).for_each(|number| machine.handle_snubbed(conn(number), true));
    let mut rng = Rng::from_seed(1);
    let count =
        |machine: &TorrentMachine, wanted| machine.grants().filter(|&(_, grant)| grant == wanted).count();
    let open = |machine: &TorrentMachine| (count(machine, Grant::Regular), count(machine, Grant::Optimistic));
    machine.handle_timeout(at(10_000), idle, &mut rng);
    assert_eq!(open(&machine), (3, 2));
    join_interested(&mut machine, at(11_000), 6..=6);
    machine.handle_timeout(at(12_000), idle, &mut rng);
    assert_eq!(open(&machine), (3, 2));
    machine.handle_timeout(at(20_000), idle, &mut rng);
    assert_eq!(open(&machine), (4, 1));
    // With the holder its slot goes, too.
    let (holder, _) = machine.grants().find(|&(_, grant)| grant == Grant::Optimistic).unwrap();
    machine.handle_left(at(21_000), holder);
    assert_eq!(open(&machine), (4, 0));
}

#[test]
fn auto_answers_everybody_at_once_on_an_idle_line() {
    let mut machine = machine(Role::Seeding, Slots::Auto);
    join_interested(&mut machine, START, 1..=500);
    assert_eq!(drain(&mut machine), unchokes(1..=500));
}

#[test]
fn auto_opens_more_as_soon_as_a_used_up_line_has_room() {
    let mut machine = machine(Role::Seeding, Slots::Auto);
    let used_up = Load { worker_busy: 0.99, ..Load::default() };
    machine.handle_load(START, used_up);
    join_interested(&mut machine, START, 1..=20);
    assert_eq!(drain(&mut machine), unchokes(1..=4));
    machine.handle_load(at(1_000), Load::default());
    machine.handle_timeout(at(1_000), idle, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine).len(), 16);
}

#[test]
fn auto_has_four_slots_while_leeching_and_grows_when_complete() {
    let mut machine = machine(Role::Leeching, Slots::Auto);
    join_interested(&mut machine, START, 1..=20);
    assert_eq!(drain(&mut machine), unchokes(1..=4));
    machine.handle_complete(at(100));
    machine.handle_timeout(at(100), idle, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine), unchokes(5..=20));
}

#[test]
fn no_slots_unchoke_nobody_at_any_time() {
    let mut machine = machine(Role::Seeding, Slots::Fixed(0));
    join_interested(&mut machine, START, 1..=5);
    machine.handle_timeout(at(10_000), idle, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine), []);
    machine.handle_slots(at(10_500), Slots::Fixed(3));
    machine.handle_timeout(at(10_500), idle, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine), unchokes(1..=3));
}

#[test]
fn a_better_giver_that_becomes_interested_takes_the_slot_of_the_worst() {
    let mut machine = machine(Role::Leeching, Slots::Fixed(2));
    join_interested(&mut machine, START, 1..=2);
    machine.handle_joined(START, conn(3), prefix(3));
    let gave = |conn: ConnId| PeerSample { downloaded: u64::from(conn.slot) * 1_000, ..idle(conn) };
    machine.handle_timeout(at(10_000), gave, &mut Rng::from_seed(1));
    assert_eq!(drain(&mut machine), unchokes([1, 2, 3]));
    machine.handle_interest(at(11_000), conn(3), true);
    assert_eq!(drain(&mut machine), [TorrentAction::Choke(conn(1))]);
    assert_eq!(machine.slots_open(), 2);
}

#[test]
fn interest_flips_a_thousand_times_a_second_cause_no_extra_unchokes() {
    for slots in [2, 4, 20] {
        let (mut machine, mut rng) = (machine(Role::Seeding, Slots::Fixed(slots)), Rng::from_seed(1));
        join_interested(&mut machine, START, 1..=10);
        machine.handle_joined(START, conn(99), prefix(99));
        let mut told = Vec::new();
        for millis in 0..60_000 {
            machine.handle_interest(at(millis), conn(99), millis % 2 == 0);
            if machine.poll_timeout().is_some_and(|due| due <= at(millis)) {
                machine.handle_timeout(at(millis), idle, &mut rng);
            }
            told.extend(drain(&mut machine).into_iter().filter(|action| {
                matches!(action, TorrentAction::Unchoke(other) | TorrentAction::Choke(other) if *other == conn(99))
            }));
        }
        assert!(told.len() <= 24, "{} messages in a minute with {slots} slots", told.len());
    }
}

#[test]
fn peers_that_come_and_go_cause_one_look_a_second_at_those_that_wait() {
    let (mut machine, mut rng) = (machine(Role::Seeding, Slots::Fixed(4)), Rng::from_seed(1));
    join_interested(&mut machine, START, 1..=1_000);
    let (mut looks, mut told) = (0, 0);
    for step in 1..=900u32 {
        let now = at(u64::from(step) * 10);
        machine.handle_left(now, conn(step));
        if machine.poll_timeout().is_some_and(|due| due <= now) {
            machine.handle_timeout(now, idle, &mut rng);
            looks += 1;
        }
        told += drain(&mut machine).len();
    }
    assert!((8..=10).contains(&looks), "{looks} looks in nine seconds");
    assert!((32..=44).contains(&told), "{told} messages in nine seconds");
}

#[test]
fn a_moment_without_interest_does_not_cost_the_place_in_the_line() {
    let mut machine = machine(Role::Seeding, Slots::Fixed(1));
    join_interested(&mut machine, START, 1..=2);
    join_interested(&mut machine, at(500), 3..=9);
    machine.handle_interest(at(600), conn(2), false);
    machine.handle_interest(at(700), conn(2), true);
    let takes = |conn| PeerSample { uploaded: 3 << 20, ..idle(conn) };
    machine.handle_timeout(at(10_000), takes, &mut Rng::from_seed(1));
    assert!(drain(&mut machine).contains(&TorrentAction::Unchoke(conn(2))));
    assert_eq!(machine.peers[&conn(2)].grant, Grant::Regular);
}

#[test]
fn facts_about_unknown_peers_change_nothing() {
    let mut machine = machine(Role::Seeding, Slots::Fixed(4));
    machine.handle_interest(START, conn(7), true);
    machine.handle_left(START, conn(7));
    machine.handle_snubbed(conn(7), true);
    machine.handle_timeout(START, idle, &mut Rng::from_seed(1));
    assert_eq!((machine.poll_action(), machine.poll_timeout()), (None, None));
}

/// Follows the actions as the peers would and checks the bounds after every call.
struct Watcher {
    machine: TorrentMachine,
    interested: BTreeSet<ConnId>,
    unchoked: BTreeSet<ConnId>,
    /// Since when a slot could have been given on.
    could_fill_since: Option<Instant>,
}

impl Watcher {
    fn check(&mut self, now: Instant) -> Result<(), TestCaseError> {
        while let Some(action) = self.machine.poll_action() {
            match action {
                TorrentAction::Unchoke(conn) => {
                    prop_assert!(self.unchoked.insert(conn), "{conn} unchoked twice")
                }
                TorrentAction::Choke(conn) => {
                    prop_assert!(self.unchoked.remove(&conn), "{conn} choked twice")
                }
                other => prop_assert!(false, "a seed without candidates wants {other:?}"),
            }
        }
        let served = self.unchoked.intersection(&self.interested).count();
        let slots = self.machine.slots();
        prop_assert!(served <= slots + 1, "{served} served with {slots} slots");
        prop_assert!(self.machine.slots_open() <= slots);
        prop_assert_eq!(self.machine.interested(), self.interested.len());
        let could_fill = served < slots && served < self.interested.len();
        self.could_fill_since = self.could_fill_since.or(Some(now)).filter(|_| could_fill);
        let idle_for = self.could_fill_since.map_or(Duration::ZERO, |since| now.since(since));
        prop_assert!(idle_for <= FILL_INTERVAL, "a slot stood empty for {idle_for:?}");
        Ok(())
    }

    fn advance(&mut self, now: Instant, seed: u64) -> Result<(), TestCaseError> {
        while let Some(due) = self.machine.poll_timeout().filter(|&due| due <= now) {
            self.machine.handle_timeout(due, idle, &mut Rng::from_seed(seed));
            prop_assert!(
                self.machine.poll_timeout().is_none_or(|next| next > due),
                "a timer does not advance"
            );
            self.check(due)?;
        }
        Ok(())
    }
}

proptest! {
    #[test]
    fn under_any_schedule_slots_are_kept_and_none_stands_empty_for_long(
        steps in prop::collection::vec((0u8..10, 0u32..12, 0u64..1_500), 1..200),
        slots in 0usize..6, auto: bool, seeding: bool, seed: u64,
    ) {
        let role = if seeding { Role::Seeding } else { Role::Leeching };
        let slots = if auto { Slots::Auto } else { Slots::Fixed(slots) };
        let mut watcher = Watcher {
            machine: machine(role, slots),
            interested: BTreeSet::new(),
            unchoked: BTreeSet::new(),
            could_fill_since: None,
        };
        let (mut now, mut joined) = (START, BTreeSet::new());
        for (step, number, wait) in steps {
            now += Duration::from_millis(wait);
            watcher.advance(now, seed)?;
            let conn = conn(number);
            match step {
                0..=2 => {
                    if joined.insert(conn) {
                        watcher.machine.handle_joined(now, conn, prefix(number / 2));
                    }
                }
                3 => {
                    watcher.machine.handle_left(now, conn);
                    for set in [&mut joined, &mut watcher.interested, &mut watcher.unchoked] {
                        set.remove(&conn);
                    }
                }
                4..=7 => {
                    watcher.machine.handle_interest(now, conn, true);
                    if joined.contains(&conn) {
                        watcher.interested.insert(conn);
                    }
                }
                8 => {
                    watcher.machine.handle_interest(now, conn, false);
                    watcher.interested.remove(&conn);
                }
                _ => {
                    let worker_busy = if number % 2 == 0 { 0.0 } else { 0.95 };
                    watcher.machine.handle_load(now, Load { worker_busy, ..Load::default() });
                }
            }
            watcher.check(now)?;
        }
        prop_assert_eq!(watcher.machine.peers(), joined.len());
        prop_assert_eq!(watcher.machine.poll_timeout().is_some(), !joined.is_empty());
    }
}
