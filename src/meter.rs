//! Counting across cores: a connection's worker counts, whoever wants a rate reads and takes differences.
//!
//! Invariant: every number has one writer and only grows, so a reader needs no lock and no read-modify-write, and
//! a number read late is merely a little old. Rates, windows and clocks belong to the reader: two readers with
//! different windows do not disturb each other.
//!
//! Deliberately absent: a rate kept by the writer. It would put a clock and a division on the data path.

use crate::time::{Duration, Instant};
use crate::units::ByteRate;
use crossbeam::utils::CachePadded;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};

/// One connection's counters, shared by `Arc` between its worker, which alone writes, and any number of readers.
///
/// The whole struct is padded once: its fields have the same writer, so they may share a cache line, but two
/// connections of different workers may not.
///
/// All accesses are relaxed. A reader uses each number by itself, never concludes from one to another, and
/// coherence alone guarantees that successive reads of one atomic do not go backwards. What was counted before the
/// connection was announced to another core is visible there because the mailbox releases and acquires.
#[derive(Debug, Default)]
pub struct PeerCounters(CachePadded<Counters>);

#[derive(Debug, Default)]
struct Counters {
    uploaded: AtomicU64,
    downloaded: AtomicU64,
    reported_pieces: AtomicU32,
    interested: AtomicBool,
    upload_only: AtomicBool,
    heard_at: AtomicU64,
    /// Zero while something is asked for.
    unasked_since: AtomicU64,
    refused: AtomicU32,
}

/// What a connection's counters said at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerSample {
    /// Payload bytes the peer has taken from us since it joined.
    pub uploaded: u64,
    /// Payload bytes the peer has given us since it joined.
    pub downloaded: u64,
    /// Pieces the peer says it has.
    pub reported_pieces: u32,
    /// Whether the peer is interested in us.
    pub interested: bool,
    /// Whether the peer says it will not download (BEP 21).
    pub upload_only: bool,
    /// When something last came from the peer; zero before anything has.
    pub heard_at: Instant,
    /// Since when the peer has asked for nothing that it has not been sent; `None` while it has, or nothing is known.
    pub unasked_since: Option<Instant>,
    /// Requests that were refused because the peer was choked.
    pub refused: u32,
}

impl PeerSample {
    /// Notes whether the peer has asked for something that it has not been sent yet.
    pub fn follow_requests(&mut self, now: Instant, waiting: bool) {
        self.unasked_since = if waiting { None } else { self.unasked_since.or(Some(now)) };
    }
}

impl PeerCounters {
    /// Counters at zero.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts `bytes` of payload sent. Only the connection's own worker may call this.
    pub fn add_uploaded(&self, bytes: u64) {
        add(&self.0.uploaded, bytes);
    }

    /// Counts `bytes` of payload received. Only the connection's own worker may call this.
    pub fn add_downloaded(&self, bytes: u64) {
        add(&self.0.downloaded, bytes);
    }

    /// Notes how many pieces the peer says it has. Only the connection's own worker may call this.
    pub fn set_reported_pieces(&self, pieces: u32) {
        self.0.reported_pieces.store(pieces, Relaxed);
    }

    /// Notes the peer's interest. Only the connection's own worker may call this.
    pub fn set_interested(&self, interested: bool) {
        self.0.interested.store(interested, Relaxed);
    }

    /// Notes that the peer will not download (BEP 21). Only the connection's own worker may call this.
    pub fn set_upload_only(&self, upload_only: bool) {
        self.0.upload_only.store(upload_only, Relaxed);
    }

    /// Notes when something came from the peer. Only the connection's own worker may call this.
    pub fn set_heard_at(&self, at: Instant) {
        self.0.heard_at.store(at.as_nanos(), Relaxed);
    }

    /// Notes whether the peer has asked for something that it has not been sent yet. Only the connection's own worker may
    /// call this.
    pub fn follow_requests(&self, now: Instant, waiting: bool) {
        let since = self.0.unasked_since.load(Relaxed);
        if waiting != (since == 0) {
            self.0.unasked_since.store(if waiting { 0 } else { now.as_nanos().max(1) }, Relaxed);
        }
    }

    /// Notes how many requests were refused because the peer was choked. Only the connection's own worker may call this.
    pub fn set_refused(&self, requests: u32) {
        self.0.refused.store(requests, Relaxed);
    }

    /// Payload bytes sent so far.
    pub fn uploaded(&self) -> u64 {
        self.0.uploaded.load(Relaxed)
    }

    /// Payload bytes received so far.
    pub fn downloaded(&self) -> u64 {
        self.0.downloaded.load(Relaxed)
    }

    /// All of them at one look; each number by itself is true, together they may be a few messages apart.
    pub fn sample(&self) -> PeerSample {
        PeerSample {
            uploaded: self.uploaded(),
            downloaded: self.downloaded(),
            reported_pieces: self.0.reported_pieces.load(Relaxed),
            interested: self.0.interested.load(Relaxed),
            upload_only: self.0.upload_only.load(Relaxed),
            heard_at: Instant::from_nanos(self.0.heard_at.load(Relaxed)),
            unasked_since: Some(self.0.unasked_since.load(Relaxed))
                .filter(|&at| at != 0)
                .map(Instant::from_nanos),
            refused: self.0.refused.load(Relaxed),
        }
    }
}

/// A load and a store instead of `fetch_add`: with one writer nothing can come between them, and a plain store
/// costs a twentieth of a locked instruction.
fn add(counter: &AtomicU64, bytes: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(bytes), Relaxed);
}

/// A counter's value at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateSample {
    /// When it was read.
    pub at: Instant,
    /// Bytes counted until then.
    pub bytes: u64,
}

impl RateSample {
    /// Mean rate between `earlier` and this sample; zero when no time has passed or the counter started anew.
    pub fn rate_since(self, earlier: Self) -> ByteRate {
        let nanos = self.at.since(earlier.at).as_nanos();
        if nanos == 0 {
            return ByteRate(0);
        }
        let bytes = u128::from(self.bytes.saturating_sub(earlier.bytes));
        ByteRate(u64::try_from(bytes * 1_000_000_000 / nanos).unwrap_or(u64::MAX))
    }
}

/// A reader's view of one growing counter: the rate since the last look, and a smoothed one for people.
///
/// The smoothed rate is an exponentially weighted mean whose weights follow the time between looks, so it does not
/// depend on how regularly the reader comes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    last: Option<RateSample>,
    smoothed: Option<f64>,
}

/// Time after which a past rate weighs 1/e in the smoothed one: calm for the eye, settled within ten seconds.
const SMOOTHING: Duration = Duration::from_secs(3);

impl Meter {
    /// A meter that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the counter's value and returns the rate since the last look. The first look gives zero, as does a
    /// second one at the same instant, which changes nothing.
    pub fn handle_sample(&mut self, now: Instant, bytes: u64) -> ByteRate {
        let sample = RateSample { at: now, bytes };
        let Some(last) = self.last else {
            self.last = Some(sample);
            return ByteRate(0);
        };
        if now <= last.at {
            return ByteRate(0);
        }
        let rate = sample.rate_since(last);
        let weight = 1.0 - (-now.since(last.at).as_secs_f64() / SMOOTHING.as_secs_f64()).exp();
        let before = self.smoothed.unwrap_or(rate.0 as f64);
        self.smoothed = Some(before + weight * (rate.0 as f64 - before));
        self.last = Some(sample);
        rate
    }

    /// The smoothed rate; zero before the second look.
    pub fn smoothed(&self) -> ByteRate {
        ByteRate(self.smoothed.unwrap_or(0.0).round() as u64)
    }

    /// The last look.
    pub fn last(&self) -> Option<RateSample> {
        self.last
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    #[test]
    fn one_connection_takes_one_padded_unit() {
        assert_eq!(size_of::<PeerCounters>(), size_of::<CachePadded<u8>>());
    }

    #[test]
    fn a_sample_says_what_was_counted() {
        let counters = PeerCounters::new();
        counters.add_uploaded(5);
        counters.add_uploaded(7);
        counters.add_downloaded(1);
        counters.set_reported_pieces(3);
        counters.set_interested(true);
        counters.set_heard_at(at(9));
        let expected = PeerSample {
            uploaded: 12,
            downloaded: 1,
            reported_pieces: 3,
            interested: true,
            upload_only: false,
            heard_at: at(9),
            unasked_since: None,
            refused: 0,
        };
        assert_eq!(counters.sample(), expected);
    }

    #[test]
    fn a_peer_asks_for_nothing_since_its_last_request_was_answered() {
        let (counters, mut sample) = (PeerCounters::new(), PeerSample::default());
        for (millis, waiting, since) in
            [(1, false, Some(1)), (2, false, Some(1)), (3, true, None), (4, true, None), (5, false, Some(5))]
        {
            counters.follow_requests(at(millis), waiting);
            sample.follow_requests(at(millis), waiting);
            assert_eq!(counters.sample().unasked_since, since.map(at), "{millis}");
            assert_eq!(sample.unasked_since, since.map(at), "{millis}");
        }
        counters.set_refused(7);
        assert_eq!(counters.sample().refused, 7);
    }

    #[test]
    fn rates_are_differences_between_looks() {
        let mut meter = Meter::new();
        assert_eq!(meter.handle_sample(at(0), 1_000), ByteRate(0));
        assert_eq!(meter.handle_sample(at(500), 2_000), ByteRate(2_000));
        assert_eq!(meter.handle_sample(at(500), 9_000), ByteRate(0));
        assert_eq!(meter.handle_sample(at(2_500), 2_000), ByteRate(0));
    }

    #[test]
    fn the_smoothed_rate_forgets_a_stopped_upload_within_half_a_minute() {
        let mut meter = Meter::new();
        for second in 0..10 {
            meter.handle_sample(at(second * 1_000), second * 1_000_000);
        }
        assert_eq!(meter.smoothed(), ByteRate(1_000_000));
        for second in 10..40 {
            meter.handle_sample(at(second * 1_000), 9_000_000);
        }
        assert!(meter.smoothed().0 < 100, "{}", meter.smoothed());
    }

    proptest! {
        #[test]
        fn the_smoothed_rate_stays_between_the_slowest_and_the_fastest_look(
            steps in prop::collection::vec((1u64..5_000, 0u64..1_000_000_000), 1..50),
        ) {
            let (mut meter, mut millis, mut bytes) = (Meter::new(), 0, 0);
            meter.handle_sample(at(0), 0);
            let (mut slowest, mut fastest) = (u64::MAX, 0);
            for (wait, more) in steps {
                (millis, bytes) = (millis + wait, bytes + more);
                let rate = meter.handle_sample(at(millis), bytes).0;
                (slowest, fastest) = (slowest.min(rate), fastest.max(rate));
                let smoothed = meter.smoothed().0;
                prop_assert!(smoothed + 1 >= slowest && smoothed <= fastest + 1, "{slowest} {smoothed} {fastest}");
            }
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;
    use loom::sync::atomic::Ordering::{Acquire, Release};

    #[test]
    fn loom_a_reader_never_sees_a_counter_go_backwards() {
        loom::model(|| {
            let counters = Arc::new(PeerCounters::new());
            let writer = {
                let counters = counters.clone();
                loom::thread::spawn(move || {
                    counters.add_uploaded(1);
                    counters.add_uploaded(2);
                })
            };
            let first = counters.uploaded();
            let second = counters.uploaded();
            assert!(first <= second && [0, 1, 3].contains(&first) && [0, 1, 3].contains(&second));
            writer.join().expect("the writer does not panic");
            assert_eq!(counters.uploaded(), 3);
        });
    }

    #[test]
    fn loom_a_core_that_learns_of_a_connection_sees_what_was_counted_before() {
        loom::model(|| {
            let counters = Arc::new(PeerCounters::new());
            let announced = Arc::new(AtomicBool::new(false));
            let worker = {
                let (counters, announced) = (counters.clone(), announced.clone());
                loom::thread::spawn(move || {
                    counters.add_uploaded(5);
                    announced.store(true, Release);
                    counters.add_uploaded(1);
                })
            };
            if announced.load(Acquire) {
                assert!(counters.uploaded() >= 5);
            }
            worker.join().expect("the worker does not panic");
            assert_eq!(counters.uploaded(), 6);
        });
    }
}
