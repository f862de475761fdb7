//! How many blocks to keep asked of one peer, and when to lose patience with it.
//!
//! In flight belongs what the line holds, rate times delay, and some more: a line that waits for our next request
//! is idle, while every block asked too early holds memory and is at stake when the peer chokes or leaves.
//!
//! - The delay is the least time seen between a request and its block: what lies above it is the queue that we made
//!   ourselves. The rate is the best of the last one or two seconds, so that a pause of our own does not count
//!   against the peer. The depth covers twice the delay, because lines are shared and the least is optimistic, and a
//!   margin: a tenth of a second of data while that is below 1 MiB, which outlives a short stall, but for faster
//!   peers 20 ms, which is what our own cores may come late.
//! - Before anything is known the depth starts at `REQUESTS_START` and doubles with each round trip, until the rate
//!   stops rising by a quarter (the slow start of TCP, the end of it as in BBR, Cardwell et al. 2016).
//! - A route can become longer, and the least delay of the past then starves the line for good. So every ten
//!   seconds without a new least the depth falls to half of what the line holds for one round trip, long enough to
//!   see the bare delay; that costs nothing but half a round trip (BBR's ProbeRTT).
//!
//! Blocks are matched to requests by count alone: a peer that answers out of order makes the delay a little wrong
//! and nothing else. That keeps the cost of a block at a few additions, and the memory constant.
//!
//! Invariant: the depth lies between one and the least of the peer's `reqq` and `REQUESTED_LEN_MAX`; what is asked on
//! its advice stays within it.
//!
//! Deliberately absent: which blocks are outstanding. Whoever sends the requests knows them.

#[cfg(test)]
mod tests;

use crate::limits::{
    REQUEST_LATE_MAX, REQUEST_LATE_MIN, REQUEST_LATE_START, REQUESTED_LEN_MAX, REQUESTED_TIME_MAX,
    REQUESTS_LEAST, REQUESTS_START, REQUESTS_TOLD_MAX, SNUB_TIMEOUT,
};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, ByteRate};

/// What the pipeline concluded about its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The peer owes us blocks and has sent none for `SNUB_TIMEOUT` (true), or has sent one again (false).
    Snubbed(bool),
    /// What is owed is late by several times of what rate and delay would let expect: it may be asked of others
    /// too. Said once for each batch of requests.
    Late,
}

/// Least time over which a rate is measured; shorter is the noise of one turn of our own loop.
const INTERVAL_MIN: Duration = Duration::from_millis(20);
/// Time over which the best rate is kept, once or twice; also the longest time over which one is measured.
const RATE_WINDOW: Duration = Duration::from_secs(1);
/// Time that our own cores may be late with the next requests.
const MARGIN_MIN: Duration = Duration::from_millis(20);
/// Margin of a peer that is slow enough for `MARGIN_LEN`.
const MARGIN_MAX: Duration = Duration::from_millis(100);
/// Bytes of margin that are cheap to ask of any peer.
const MARGIN_LEN: u64 = 1024 * 1024;
/// Time after which the least delay is to be seen again.
const DELAY_LIFETIME: Duration = Duration::from_secs(10);
/// Batches of requests whose times are remembered. Room is given by quarters of the depth, so that four are in
/// flight; those of a caller that asks in smaller steps share the last place.
const BATCHES: usize = 8;

/// Where the search for the right depth stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Doubling with each round trip.
    Start,
    /// Following rate and delay.
    Cruise,
    /// Waiting for one request to come back through a line that we keep half empty.
    Probe,
}

/// Requests that were sent at the same time.
#[derive(Clone, Copy, Debug, Default)]
struct Batch {
    /// Requests sent in all, with this batch.
    end: u64,
    sent_at: Instant,
}

/// One peer's request pipeline: constant size, no allocation, integers only.
#[derive(Clone, Debug)]
pub struct RequestPipeline {
    reqq: u32,
    phase: Phase,
    /// In blocks, without the peer's `reqq`.
    depth: u32,
    /// Requests sent, and requests answered or lost, since the connection began.
    requested: u64,
    settled: u64,
    /// The measurement under way: its begin, its bytes, and the request with which its round trip ends.
    interval_at: Instant,
    interval_bytes: u64,
    interval_end: u64,
    /// Best rates, in bytes a second, of the window before and of the present one, and when that began.
    best_before: u64,
    best: u64,
    window_at: Instant,
    /// Rate of the round trip before, in the slow start.
    start_rate: u64,
    /// The request whose delay is being measured, and when it was sent.
    sample: Option<(u64, Instant)>,
    /// The least delay, and when it was seen.
    delay: Option<(Duration, Instant)>,
    batches: [Batch; BATCHES],
    batches_len: usize,
    /// The batch that was called late.
    late_end: u64,
    unchoked: bool,
    /// Since when the peer could have sent a block and did not.
    waiting_since: Instant,
    snubbed: bool,
    verdicts: [Option<Verdict>; 2],
}

impl RequestPipeline {
    /// The pipeline of a peer that chokes us and owes nothing. `peer_reqq` is in requests; use
    /// `REQUESTS_UNTOLD_MAX` until the peer says how many it takes.
    pub fn new(now: Instant, peer_reqq: u32) -> Self {
        Self {
            reqq: peer_reqq.clamp(1, REQUESTS_TOLD_MAX),
            phase: Phase::Start,
            depth: REQUESTS_START,
            requested: 0,
            settled: 0,
            interval_at: now,
            interval_bytes: 0,
            interval_end: 0,
            best_before: 0,
            best: 0,
            window_at: now,
            start_rate: 0,
            sample: None,
            delay: None,
            batches: [Batch::default(); BATCHES],
            batches_len: 0,
            late_end: 0,
            unchoked: false,
            waiting_since: now,
            snubbed: false,
            verdicts: [None; 2],
        }
    }

    /// The peer said how many requests it takes (`reqq`, BEP 10). Zero counts as one. True when that is news.
    pub fn handle_reqq(&mut self, reqq: u32) -> bool {
        let reqq = reqq.clamp(1, REQUESTS_TOLD_MAX);
        std::mem::replace(&mut self.reqq, reqq) != reqq
    }

    /// `count` requests were sent.
    pub fn handle_requested(&mut self, now: Instant, count: u32) {
        if count == 0 {
            return;
        }
        if self.outstanding() == 0 {
            self.waiting_since = now;
            self.begin_interval(now);
        }
        let first = self.requested + 1;
        self.requested += u64::from(count);
        if self.interval_end < first && self.interval_bytes == 0 {
            self.interval_end = self.requested;
        }
        if self.sample.is_none() && (self.phase != Phase::Probe || self.outstanding() <= self.depth()) {
            self.sample = Some((first, now));
        }
        self.note_batch(now);
    }

    /// One of the blocks we asked for arrived, `bytes` long. Blocks that we did not ask for, or that were counted
    /// as lost before, do not belong here; they change nothing.
    pub fn handle_block(&mut self, now: Instant, bytes: u32) {
        if self.outstanding() == 0 {
            return;
        }
        self.settled += 1;
        self.waiting_since = now;
        self.interval_bytes += u64::from(bytes);
        self.forget_batches();
        if self.snubbed {
            self.snubbed = false;
            self.tell(Verdict::Snubbed(false));
        }
        self.measure_delay(now);
        self.measure_rate(now);
    }

    /// `count` requests will not be answered: rejected, cancelled, or thrown away with a choke.
    pub fn handle_lost(&mut self, count: u32) {
        self.settled += u64::from(count.min(self.outstanding()));
        self.sample = None;
        self.forget_batches();
    }

    /// The peer unchoked us. What its line held before may be gone, so the search begins anew, at half the depth.
    pub fn handle_unchoked(&mut self, now: Instant) {
        if !self.unchoked {
            self.unchoked = true;
            self.waiting_since = now;
            self.phase = Phase::Start;
            self.start_rate = 0;
            self.depth = (self.depth / 2).max(REQUESTS_START).min(self.depth.max(REQUESTS_LEAST));
        }
    }

    /// The peer choked us. Requests that it threw away by that are to be told by `handle_lost`.
    pub fn handle_choked(&mut self) {
        self.unchoked = false;
    }

    /// Requests in flight that are wanted now.
    pub fn depth(&self) -> u32 {
        if self.snubbed {
            return 1;
        }
        let depth = match self.phase {
            Phase::Start | Phase::Cruise => self.depth,
            Phase::Probe => self.probe_depth(),
        };
        depth.min(self.reqq)
    }

    /// Requests to send now: none until a quarter of the depth is free or nothing is in flight, so that they go in
    /// batches.
    pub fn room(&self) -> u32 {
        let (depth, outstanding) = (self.depth(), self.outstanding());
        let free = depth.saturating_sub(outstanding);
        if outstanding == 0 || free.saturating_mul(4) >= depth { free } else { 0 }
    }

    /// Requests that the peer takes on top of those in flight, whether they are worth sending now or not.
    pub fn acceptable(&self) -> u32 {
        self.reqq.saturating_sub(self.outstanding())
    }

    /// Requests that are sent and neither answered nor lost.
    pub fn outstanding(&self) -> u32 {
        u32::try_from(self.requested - self.settled).unwrap_or(u32::MAX)
    }

    /// What the peer gives, measured over the last second or two; zero before anything came.
    pub fn rate(&self) -> ByteRate {
        ByteRate(self.best_rate())
    }

    /// Whether the peer has snubbed us.
    pub fn is_snubbed(&self) -> bool {
        self.snubbed
    }

    /// When `handle_timeout` is to be called, `None` while nothing is owed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let late = self.late_at();
        let snub = self.snub_at();
        match (late, snub) {
            (Some(late), Some(snub)) => Some(late.min(snub)),
            (late, snub) => late.or(snub),
        }
    }

    /// Looks whether the peer has become late or snubs us. Calling too early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.late_at().is_some_and(|at| at <= now) {
            self.late_end = self.batches[0].end;
            self.tell(Verdict::Late);
        }
        if self.snub_at().is_some_and(|at| at <= now) {
            self.snubbed = true;
            self.tell(Verdict::Snubbed(true));
        }
    }

    /// The next conclusion that was not told yet. To be asked after `handle_timeout` and `handle_block`.
    pub fn poll_verdict(&mut self) -> Option<Verdict> {
        let verdict = self.verdicts[0].take();
        self.verdicts.swap(0, 1);
        verdict
    }

    /// One place for each kind of verdict is enough: a newer word on snubbing takes the place of the older.
    fn tell(&mut self, verdict: Verdict) {
        let same = |other: &Option<Verdict>| {
            other.is_some_and(|other| std::mem::discriminant(&other) == std::mem::discriminant(&verdict))
        };
        let place = self.verdicts.iter().position(same);
        let place = place.or_else(|| self.verdicts.iter().position(Option::is_none));
        if let Some(place) = place {
            self.verdicts[place] = Some(verdict);
        }
    }

    fn snub_at(&self) -> Option<Instant> {
        let waits = self.unchoked && !self.snubbed && self.outstanding() > 0;
        waits.then(|| self.waiting_since + SNUB_TIMEOUT)
    }

    fn late_at(&self) -> Option<Instant> {
        let oldest = self.batches[..self.batches_len].first()?;
        (oldest.end != self.late_end).then(|| oldest.sent_at + self.patience())
    }

    /// Time that the oldest request has: four times what the depth takes at the present rate.
    fn patience(&self) -> Duration {
        let (rate, Some((delay, _))) = (self.best_rate(), self.delay) else { return REQUEST_LATE_START };
        if rate == 0 {
            return REQUEST_LATE_START;
        }
        let blocks = u64::from(self.depth.min(self.reqq)) * u64::from(BLOCK_LEN);
        let drain = time_of(blocks, rate).max(delay.saturating_mul(2));
        drain.saturating_mul(4).clamp(REQUEST_LATE_MIN, REQUEST_LATE_MAX)
    }

    fn note_batch(&mut self, now: Instant) {
        let batch = Batch { end: self.requested, sent_at: now };
        let newest = self.batches_len.checked_sub(1).map(|index| &mut self.batches[index]);
        match newest {
            Some(newest) if newest.sent_at == now || self.batches_len == BATCHES => *newest = batch,
            _ => {
                self.batches[self.batches_len] = batch;
                self.batches_len += 1;
            }
        }
    }

    fn forget_batches(&mut self) {
        let done =
            self.batches[..self.batches_len].iter().take_while(|batch| batch.end <= self.settled).count();
        if done > 0 {
            self.batches.copy_within(done..self.batches_len, 0);
            self.batches_len -= done;
        }
    }

    fn measure_delay(&mut self, now: Instant) {
        let Some((request, sent_at)) = self.sample.filter(|&(request, _)| request <= self.settled) else {
            return;
        };
        debug_assert!(request <= self.requested);
        self.sample = None;
        let seen = now.since(sent_at);
        let is_least = self.delay.is_none_or(|(least, _)| seen <= least);
        if is_least || self.phase == Phase::Probe {
            self.delay = Some((seen, now));
        }
        if self.phase == Phase::Probe {
            self.phase = Phase::Cruise;
        }
    }

    fn begin_interval(&mut self, now: Instant) {
        self.interval_at = now;
        self.interval_bytes = 0;
        self.interval_end = self.requested;
    }

    fn measure_rate(&mut self, now: Instant) {
        let took = now.since(self.interval_at);
        let round_trip = self.settled >= self.interval_end;
        if !(took >= INTERVAL_MIN && round_trip || took >= RATE_WINDOW) {
            return;
        }
        let rate = rate_of(self.interval_bytes, took);
        if now.since(self.window_at) >= RATE_WINDOW {
            self.best_before = std::mem::take(&mut self.best);
            self.window_at = now;
        }
        self.best = self.best.max(rate);
        self.begin_interval(now);
        self.adapt(now, rate);
    }

    /// Draws the conclusions from one more measured rate.
    fn adapt(&mut self, now: Instant, rate: u64) {
        match self.phase {
            Phase::Start if rate >= self.start_rate.saturating_add(self.start_rate / 4) => {
                self.start_rate = rate;
                self.depth = self.depth.saturating_mul(2).min(most_blocks());
            }
            Phase::Start | Phase::Cruise => {
                self.phase = Phase::Cruise;
                self.depth = self.cruise_depth();
                if self.delay.is_some_and(|(_, seen_at)| now.since(seen_at) >= DELAY_LIFETIME) {
                    self.phase = Phase::Probe;
                    self.sample = None;
                }
            }
            Phase::Probe => {}
        }
    }

    fn best_rate(&self) -> u64 {
        self.best.max(self.best_before)
    }

    /// Twice what the line holds, and the margin.
    fn cruise_depth(&self) -> u32 {
        let rate = self.best_rate();
        let Some((delay, _)) = self.delay else { return self.depth };
        let margin = time_of(MARGIN_LEN, rate).clamp(MARGIN_MIN, MARGIN_MAX);
        let time = delay.saturating_mul(2).saturating_add(margin).min(REQUESTED_TIME_MAX);
        blocks_in(rate, time).clamp(REQUESTS_LEAST, most_blocks())
    }

    /// Half of what the line holds.
    fn probe_depth(&self) -> u32 {
        let delay = self.delay.map_or(Duration::ZERO, |(delay, _)| delay);
        blocks_in(self.best_rate(), delay / 2).clamp(REQUESTS_LEAST, self.depth.max(REQUESTS_LEAST))
    }
}

const fn most_blocks() -> u32 {
    REQUESTED_LEN_MAX / BLOCK_LEN
}

/// Bytes a second.
fn rate_of(bytes: u64, took: Duration) -> u64 {
    let rate = u128::from(bytes) * 1_000_000_000 / took.as_nanos().max(1);
    u64::try_from(rate).unwrap_or(u64::MAX)
}

/// Time that `bytes` take at `rate`.
fn time_of(bytes: u64, rate: u64) -> Duration {
    let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Blocks that come in `time` at `rate`, rounded up.
fn blocks_in(rate: u64, time: Duration) -> u32 {
    let blocks = (u128::from(rate) * time.as_nanos()).div_ceil(1_000_000_000 * u128::from(BLOCK_LEN));
    u32::try_from(blocks).unwrap_or(u32::MAX)
}
