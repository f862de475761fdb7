//! The request pipeline on a simulated line, then any schedule at all.

use super::*;
use crate::limits::REQUESTS_UNTOLD_MAX;
use proptest::prelude::*;
use std::collections::VecDeque;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const BLOCK: u64 = BLOCK_LEN as u64;

/// A peer that answers in order, block after block at its rate, behind a line with a delay.
struct Line {
    pipeline: RequestPipeline,
    rate: u64,
    /// There and back.
    delay: Duration,
    /// Blocks arrive only at multiples of it; zero for at any time.
    turn: Duration,
    /// Until when the peer is busy with what was asked.
    busy_until: Instant,
    /// When the blocks asked for will arrive.
    arrivals: VecDeque<Instant>,
    now: Instant,
    most_outstanding: u32,
}

impl Line {
    fn new(rate: u64, delay: Duration, reqq: u32) -> Self {
        let mut pipeline = RequestPipeline::new(START, reqq);
        pipeline.handle_unchoked(START);
        let mut line = Self {
            pipeline,
            rate,
            delay,
            turn: Duration::ZERO,
            busy_until: START,
            arrivals: VecDeque::new(),
            now: START,
            most_outstanding: 0,
        };
        line.ask();
        line
    }

    fn ask(&mut self) {
        let room = self.pipeline.room();
        self.pipeline.handle_requested(self.now, room);
        for _ in 0..room {
            let begin = self.busy_until.max(self.now + self.delay / 2);
            self.busy_until = begin + time_of(BLOCK, self.rate);
            self.arrivals.push_back(self.next_turn(self.busy_until + self.delay / 2));
        }
        self.most_outstanding = self.most_outstanding.max(self.pipeline.outstanding());
    }

    fn next_turn(&self, at: Instant) -> Instant {
        let turn = self.turn.as_nanos() as u64;
        if turn == 0 { at } else { Instant::from_nanos(at.as_nanos().next_multiple_of(turn)) }
    }

    /// Runs for `span` and gives the bytes that came.
    fn run(&mut self, span: Duration) -> u64 {
        let (end, mut bytes) = (self.now + span, 0);
        while let Some(&at) = self.arrivals.front().filter(|&&at| at <= end) {
            self.arrivals.pop_front();
            self.now = at;
            bytes += BLOCK;
            self.pipeline.handle_block(at, BLOCK_LEN);
            self.ask();
        }
        self.now = end;
        bytes
    }
}

const DELAYS_MICROS: [u64; 6] = [100, 1_000, 10_000, 50_000, 100_000, 300_000];

#[test]
fn every_line_is_filled_after_the_slow_start() {
    for rate in [10_000, 100_000, 1_000_000, 12_500_000, 125_000_000, 1_000_000_000, 5_000_000_000] {
        for delay in DELAYS_MICROS.map(Duration::from_micros) {
            let mut line = Line::new(rate, delay, REQUESTS_TOLD_MAX);
            // Ten doublings reach the greatest depth; a slow peer needs its time for the first blocks.
            line.run(delay * 12 + time_of(12 * BLOCK, rate) + Duration::from_millis(300));
            let span = (delay * 40).max(Duration::from_millis(100)).max(time_of(200 * BLOCK, rate));
            let bytes = line.run(span);
            // The greatest depth bounds a long fat line; a quarter of it may wait for the next batch.
            let bound = rate_of(u64::from(REQUESTED_LEN_MAX) * 3 / 4, delay + time_of(BLOCK, rate));
            let possible = u128::from(rate.min(bound)) * span.as_nanos() / 1_000_000_000;
            let used = u128::from(bytes) * 100 / possible;
            assert!(used >= 95, "{rate} B/s, {delay:?}: {used} % at depth {}", line.pipeline.depth());
        }
    }
}

#[test]
fn blocks_that_come_in_bursts_still_fill_the_line() {
    for (rate, turn_millis) in [(10_000_000, 250), (1_000_000, 500), (125_000_000, 10), (1_000_000_000, 5)] {
        let mut line = Line::new(rate, Duration::from_millis(5), REQUESTS_TOLD_MAX);
        line.turn = Duration::from_millis(turn_millis);
        line.run(Duration::from_secs(12));
        let possible = rate * 10;
        let bytes = line.run(Duration::from_secs(10));
        assert!(bytes * 100 >= possible * 90, "{rate} B/s in {turn_millis} ms: {}", bytes * 100 / possible);
    }
}

#[test]
fn the_whole_state_of_a_peer_is_small() {
    assert!(size_of::<RequestPipeline>() <= 384, "{}", size_of::<RequestPipeline>());
}

#[test]
fn no_more_is_in_flight_than_a_few_seconds_of_the_rate() {
    for rate in [1_000, 10_000, 30_000, 100_000, 1_000_000, 10_000_000] {
        for delay in DELAYS_MICROS.map(Duration::from_micros) {
            let mut line = Line::new(rate, delay, REQUESTS_TOLD_MAX);
            line.run(time_of(40 * BLOCK, rate) + delay * 10);
            line.most_outstanding = 0;
            line.run(time_of(400 * BLOCK, rate) + delay * 100);
            let bytes = u64::from(line.most_outstanding) * BLOCK;
            let allowed = rate * 10 + 2 * BLOCK;
            assert!(bytes <= allowed, "{rate} B/s, {delay:?}: {} blocks", line.most_outstanding);
        }
    }
}

#[test]
fn a_slow_peer_is_not_flooded_even_at_first() {
    let mut line = Line::new(10_000, Duration::from_millis(50), REQUESTS_TOLD_MAX);
    line.run(Duration::from_secs(600));
    assert!(line.most_outstanding <= 2 * REQUESTS_START, "{}", line.most_outstanding);
    assert!((2..=5).contains(&line.pipeline.depth()), "{}", line.pipeline.depth());
}

#[test]
fn a_fast_local_peer_and_a_far_gigabit_reach_the_depth_they_need() {
    let mut local = Line::new(5_000_000_000, Duration::from_micros(200), REQUESTS_TOLD_MAX);
    local.run(Duration::from_millis(400));
    assert!(local.pipeline.depth() >= 256, "{}", local.pipeline.depth());
    let mut far = Line::new(125_000_000, Duration::from_millis(100), REQUESTS_TOLD_MAX);
    far.run(Duration::from_secs(3));
    assert!(far.pipeline.depth() >= 800, "{}", far.pipeline.depth());
}

#[test]
fn a_line_that_becomes_longer_is_filled_again() {
    let mut line = Line::new(50_000_000, Duration::from_millis(2), REQUESTS_TOLD_MAX);
    line.run(Duration::from_secs(15));
    line.delay = Duration::from_millis(200);
    line.run(Duration::from_secs(25));
    let bytes = line.run(Duration::from_secs(10));
    assert!(bytes >= 475_000_000, "{bytes}");
}

#[test]
fn a_peer_that_slows_down_is_soon_asked_for_less() {
    let mut line = Line::new(10_000_000, Duration::from_millis(20), REQUESTS_TOLD_MAX);
    line.run(Duration::from_secs(5));
    let before = line.pipeline.depth();
    line.rate = 100_000;
    line.run(Duration::from_secs(30));
    assert!(line.pipeline.depth() * 4 < before, "{} after {before}", line.pipeline.depth());
}

#[test]
fn measuring_the_delay_anew_does_not_let_the_depth_creep_up() {
    let mut line = Line::new(5_000_000, Duration::from_millis(30), REQUESTS_TOLD_MAX);
    line.run(Duration::from_secs(9));
    let before = line.pipeline.depth();
    line.run(Duration::from_secs(300));
    assert!(line.pipeline.depth() <= before + before / 4 + 1, "{} after {before}", line.pipeline.depth());
}

#[test]
fn room_comes_in_quarters() {
    let mut pipeline = RequestPipeline::new(START, 100);
    assert_eq!((pipeline.depth(), pipeline.room()), (8, 8));
    pipeline.handle_requested(START, 8);
    assert_eq!(pipeline.room(), 0);
    pipeline.handle_lost(1);
    assert_eq!(pipeline.room(), 0);
    pipeline.handle_lost(1);
    assert_eq!(pipeline.room(), 2);
    pipeline.handle_reqq(0);
    assert_eq!((pipeline.depth(), pipeline.room()), (1, 0));
    pipeline.handle_lost(100);
    assert_eq!((pipeline.outstanding(), pipeline.room()), (0, 1));
}

#[test]
fn a_block_that_nobody_asked_for_changes_nothing() {
    let mut pipeline = RequestPipeline::new(START, 100);
    (0..50).for_each(|_| pipeline.handle_block(START, BLOCK_LEN));
    assert_eq!((pipeline.outstanding(), pipeline.depth(), pipeline.rate()), (0, 8, ByteRate(0)));
}

fn verdicts(pipeline: &mut RequestPipeline, now: Instant) -> Vec<Verdict> {
    pipeline.handle_timeout(now);
    std::iter::from_fn(|| pipeline.poll_verdict()).collect()
}

#[test]
fn only_an_unchoked_debtor_that_is_silent_for_a_minute_snubs_us() {
    for (unchoked, owes, silent, snubbed) in [
        (true, true, 60, true),
        (true, true, 59, false),
        (true, false, 600, false),
        (false, true, 600, false),
        (false, false, 600, false),
    ] {
        let mut pipeline = RequestPipeline::new(START, 100);
        if unchoked {
            pipeline.handle_unchoked(START);
        }
        pipeline.handle_requested(START, u32::from(owes));
        let told = verdicts(&mut pipeline, START + Duration::from_secs(silent));
        let case = (unchoked, owes, silent);
        assert_eq!(told.contains(&Verdict::Snubbed(true)), snubbed, "{case:?}");
        assert_eq!(pipeline.is_snubbed(), snubbed, "{case:?}");
        assert_eq!(pipeline.depth(), if snubbed { 1 } else { 8 }, "{case:?}");
    }
}

#[test]
fn a_minute_counts_from_the_last_block_or_the_first_request() {
    let mut pipeline = RequestPipeline::new(START, 100);
    pipeline.handle_unchoked(START);
    let first = START + Duration::from_secs(100);
    pipeline.handle_requested(first, 8);
    let block = first + Duration::from_secs(50);
    pipeline.handle_block(block, BLOCK_LEN);
    let told = verdicts(&mut pipeline, block + Duration::from_secs(59));
    assert!(!told.contains(&Verdict::Snubbed(true)));
    assert_eq!(pipeline.poll_timeout(), Some(block + SNUB_TIMEOUT));
    assert_eq!(verdicts(&mut pipeline, block + SNUB_TIMEOUT), [Verdict::Snubbed(true)]);
    assert_eq!(pipeline.poll_timeout(), None);
}

#[test]
fn a_snub_lasts_until_the_next_block_whatever_chokes_come_between() {
    let mut pipeline = RequestPipeline::new(START, 100);
    pipeline.handle_unchoked(START);
    pipeline.handle_requested(START, 8);
    let now = START + SNUB_TIMEOUT;
    assert_eq!(verdicts(&mut pipeline, now), [Verdict::Late, Verdict::Snubbed(true)]);
    pipeline.handle_choked();
    pipeline.handle_lost(8);
    pipeline.handle_unchoked(now);
    assert_eq!((pipeline.depth(), pipeline.room()), (1, 1));
    pipeline.handle_requested(now, 1);
    pipeline.handle_block(now + Duration::from_millis(10), BLOCK_LEN);
    assert_eq!(pipeline.poll_verdict(), Some(Verdict::Snubbed(false)));
    assert_eq!(pipeline.poll_verdict(), None);
    assert!(pipeline.depth() >= REQUESTS_LEAST);
}

#[test]
fn what_is_late_is_said_once_for_each_batch() {
    let mut line = Line::new(1_000_000, Duration::from_millis(20), REQUESTS_TOLD_MAX);
    line.run(Duration::from_secs(5));
    let due = line.pipeline.poll_timeout().expect("blocks are owed");
    let patience = due.since(line.now);
    assert!(patience <= REQUEST_LATE_MIN && patience > Duration::from_secs(4), "{patience:?}");
    assert_eq!(verdicts(&mut line.pipeline, due - Duration::from_nanos(1)), []);
    assert_eq!(verdicts(&mut line.pipeline, due), [Verdict::Late]);
    assert_eq!(verdicts(&mut line.pipeline, due), []);
    let next = line.pipeline.poll_timeout().expect("the peer may still snub us");
    assert!(next > due && next <= line.now + SNUB_TIMEOUT, "{next:?}");
}

#[test]
fn a_slow_peer_that_delivers_at_its_rate_is_never_late() {
    for rate in [3_000, 10_000, 50_000, 1_000_000] {
        let mut line = Line::new(rate, Duration::from_millis(50), REQUESTS_UNTOLD_MAX);
        // The first requests, sent before the rate is known, may be too many for the slowest.
        line.run(time_of(40 * BLOCK, rate));
        for _ in 0..300 {
            line.run(Duration::from_secs(1));
            let told = verdicts(&mut line.pipeline, line.now);
            assert_eq!(told, [], "{rate} B/s at depth {}", line.pipeline.depth());
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Ask,
    AskAnyway(u32),
    Block(u32),
    Lost(u32),
    Unchoked,
    Choked,
    Reqq(u32),
    Timeout,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => Just(Event::Ask),
        1 => (0u32..20).prop_map(Event::AskAnyway),
        10 => (0u32..=BLOCK_LEN).prop_map(Event::Block),
        1 => (0u32..20).prop_map(Event::Lost),
        1 => Just(Event::Unchoked),
        1 => Just(Event::Choked),
        1 => any::<u32>().prop_map(Event::Reqq),
        2 => Just(Event::Timeout),
    ]
}

proptest! {
    #[test]
    fn depth_and_room_stay_within_their_bounds_whatever_comes(
        reqq: u32, events in prop::collection::vec((any_event(), 0u32..4, 0u64..3_000_000_000), 0..300),
    ) {
        let mut pipeline = RequestPipeline::new(START, reqq);
        let (mut now, mut allowed, mut owed) = (START, reqq.clamp(1, REQUESTS_TOLD_MAX), 0u32);
        for (event, scale, wait) in events {
            // From nanoseconds to seconds, so that bursts and silences both occur.
            now += Duration::from_nanos(wait / [1, 1_000, 1_000_000, u64::MAX][scale as usize]);
            match event {
                Event::Ask => {
                    let room = pipeline.room();
                    pipeline.handle_requested(now, room);
                    owed += room;
                    prop_assert!(room == 0 || owed <= allowed);
                }
                Event::AskAnyway(count) => {
                    pipeline.handle_requested(now, count);
                    owed += count;
                }
                Event::Block(bytes) => {
                    pipeline.handle_block(now, bytes);
                    owed = owed.saturating_sub(1);
                }
                Event::Lost(count) => {
                    pipeline.handle_lost(count);
                    owed = owed.saturating_sub(count);
                }
                Event::Unchoked => pipeline.handle_unchoked(now),
                Event::Choked => pipeline.handle_choked(),
                Event::Reqq(reqq) => {
                    pipeline.handle_reqq(reqq);
                    allowed = reqq.clamp(1, REQUESTS_TOLD_MAX);
                }
                Event::Timeout => {
                    pipeline.handle_timeout(now);
                    prop_assert!(pipeline.poll_timeout().is_none_or(|at| at > now));
                    while pipeline.poll_verdict().is_some() {}
                }
            }
            prop_assert_eq!(pipeline.outstanding(), owed);
            prop_assert!((1..=allowed.min(most_blocks())).contains(&pipeline.depth()));
            prop_assert!(pipeline.room() <= pipeline.depth());
            prop_assert!(pipeline.poll_timeout().is_none() || owed > 0);
        }
    }
}
