//! A rate limit that all cores share without a lock.
//!
//! The generic cell rate algorithm (ITU-T I.371, virtual scheduling): instead of a level that must be refilled, one
//! number says when the bytes already taken will have been paid for at the given rate, the theoretical arrival
//! time. Taking moves it ahead by the cost of the bytes; it may run ahead of now by the burst and no further. One
//! number means one compare-and-swap, and no clock ticks when nobody takes.
//!
//! Invariant: between any two instants no more is taken than rate x time + burst, save that one take longer than
//! the whole burst goes when everything is paid for, since otherwise it never could.
//!
//! All orderings are relaxed: nothing else is published through the gate, and every decision rests on the
//! modification order of this one atomic.

use crate::limits::RATE_RETRY_MAX;
use crate::time::Instant;
use crate::units::{BLOCK_LEN, ByteRate};
use crossbeam::utils::CachePadded;

#[cfg(loom)]
use loom::sync::atomic::{AtomicU64, Ordering::Relaxed};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A limit in bytes a second, shared by `Arc`. No limit, and a limit of nothing at all, are both expressible.
#[derive(Debug)]
pub struct RateGate {
    /// Contended: on a line of its own.
    paid_until: CachePadded<AtomicU64>,
    /// Bytes a second; `UNLIMITED` for no limit.
    rate: AtomicU64,
    /// Bytes.
    burst: AtomicU64,
}

const UNLIMITED: u64 = u64::MAX;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// The burst for a limit: a quarter of a second, so that a worker may come some milliseconds late and lose
/// nothing, and at least two blocks.
pub fn burst_for(limit: Option<ByteRate>) -> u64 {
    limit.map_or(0, |rate| (rate.0 / 4).max(2 * u64::from(BLOCK_LEN)))
}

impl RateGate {
    /// A gate with nothing taken yet. `limit` of `None` lets everything through, of zero nothing; `burst` is in
    /// bytes and usually `burst_for(limit)`.
    pub fn new(limit: Option<ByteRate>, burst: u64) -> Self {
        Self {
            paid_until: CachePadded::new(AtomicU64::new(0)),
            rate: AtomicU64::new(limit.map_or(UNLIMITED, |rate| rate.0)),
            burst: AtomicU64::new(burst),
        }
    }

    /// Takes `bytes`, or says when to ask again, which is never more than `RATE_RETRY_MAX` ahead so that a changed
    /// limit is noticed. Callable from any core; an unlimited gate costs one load. Costs are whole nanoseconds,
    /// rounded up: takes of a few bytes at gigabytes a second get less than the rate.
    pub fn try_take(&self, now: Instant, bytes: u32) -> Result<(), Instant> {
        let rate = self.rate.load(Relaxed);
        if rate == UNLIMITED || bytes == 0 {
            return Ok(());
        }
        if rate == 0 {
            return Err(now + RATE_RETRY_MAX);
        }
        let cost = nanos_up(u64::from(bytes), rate);
        let burst = nanos_down(self.burst.load(Relaxed), rate);
        let now_nanos = now.as_nanos();
        let mut paid_until = self.paid_until.load(Relaxed);
        loop {
            let from = paid_until.max(now_nanos);
            let needed = from.saturating_add(cost.min(burst));
            if needed > now_nanos.saturating_add(burst) {
                let retry = Instant::from_nanos(needed.saturating_sub(burst));
                return Err(retry.min(now + RATE_RETRY_MAX));
            }
            let next = from.saturating_add(cost);
            match self.paid_until.compare_exchange_weak(paid_until, next, Relaxed, Relaxed) {
                Ok(_) => return Ok(()),
                Err(found) => paid_until = found,
            }
        }
    }

    /// Charges `bytes` that are under way already, whatever the limit says: later takes wait for them.
    pub fn charge(&self, now: Instant, bytes: u64) {
        let rate = self.rate.load(Relaxed);
        if bytes == 0 || rate == UNLIMITED || rate == 0 {
            return;
        }
        let cost = nanos_up(bytes, rate);
        let mut paid_until = self.paid_until.load(Relaxed);
        loop {
            let next = paid_until.max(now.as_nanos()).saturating_add(cost);
            match self.paid_until.compare_exchange_weak(paid_until, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(found) => paid_until = found,
            }
        }
    }

    /// Gives back what was taken and not used. Nobody gets more for it than the burst allows.
    pub fn give_back(&self, bytes: u64) {
        let rate = self.rate.load(Relaxed);
        if bytes == 0 || rate == UNLIMITED || rate == 0 {
            return;
        }
        let cost = nanos_down(bytes, rate);
        let mut paid_until = self.paid_until.load(Relaxed);
        while let Err(found) = self.paid_until.compare_exchange_weak(
            paid_until,
            paid_until.saturating_sub(cost),
            Relaxed,
            Relaxed,
        ) {
            paid_until = found;
        }
    }

    /// Changes the limit. What is taken but not yet paid for is carried over in bytes, so that a raised limit acts
    /// at once. A take that runs at the same moment may still be charged at the old rate. One caller at a time.
    pub fn set_limit(&self, now: Instant, limit: Option<ByteRate>, burst: u64) {
        let new_rate = limit.map_or(UNLIMITED, |rate| rate.0);
        let old_rate = self.rate.swap(new_rate, Relaxed);
        self.burst.store(burst, Relaxed);
        let mut paid_until = self.paid_until.load(Relaxed);
        loop {
            let debt_nanos = paid_until.saturating_sub(now.as_nanos());
            let debt = if matches!(old_rate, 0 | UNLIMITED) || matches!(new_rate, 0 | UNLIMITED) {
                0
            } else {
                let bytes = u128::from(debt_nanos) * u128::from(old_rate) / NANOS_PER_SECOND;
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX).min(burst);
                nanos_up(bytes, new_rate)
            };
            let next = now.as_nanos().saturating_add(debt);
            match self.paid_until.compare_exchange_weak(paid_until, next, Relaxed, Relaxed) {
                Ok(_) => return,
                Err(found) => paid_until = found,
            }
        }
    }

    /// The limit; `None` for no limit.
    pub fn limit(&self) -> Option<ByteRate> {
        let rate = self.rate.load(Relaxed);
        (rate != UNLIMITED).then_some(ByteRate(rate))
    }
}

/// Time that `bytes` take at `rate`, rounded up.
fn nanos_up(bytes: u64, rate: u64) -> u64 {
    let nanos = (u128::from(bytes) * NANOS_PER_SECOND).div_ceil(u128::from(rate.max(1)));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

/// Time that `bytes` take at `rate`, rounded down.
fn nanos_down(bytes: u64, rate: u64) -> u64 {
    let nanos = u128::from(bytes) * NANOS_PER_SECOND / u128::from(rate.max(1));
    u64::try_from(nanos).unwrap_or(u64::MAX)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::time::Duration;
    use proptest::prelude::*;

    const START: Instant = Instant::from_nanos(86_400_000_000_000);

    #[test]
    fn what_is_given_back_may_be_taken_again_and_brings_nobody_more_than_the_burst() {
        let gate = RateGate::new(Some(ByteRate(1000)), 500);
        let take_all = || (0..10_000).filter(|_| gate.try_take(START, 10).is_ok()).count();
        assert_eq!(take_all(), 50);
        gate.give_back(200);
        assert_eq!(take_all(), 20);
        gate.give_back(u64::MAX);
        assert_eq!(take_all(), 50);
        gate.charge(START, 1000);
        assert_eq!((take_all(), gate.try_take(START + Duration::from_millis(1000), 10).is_ok()), (0, false));
        assert!(gate.try_take(START + Duration::from_millis(1020), 10).is_ok());
        RateGate::new(None, 0).give_back(1);
        RateGate::new(Some(ByteRate(0)), 0).give_back(1);
    }

    #[test]
    fn no_limit_lets_everything_through_and_a_limit_of_zero_nothing() {
        let gate = RateGate::new(None, 0);
        assert!((0..1_000).all(|_| gate.try_take(START, u32::MAX).is_ok()));
        gate.set_limit(START, Some(ByteRate(0)), 1 << 20);
        assert_eq!(gate.try_take(START, 1), Err(START + RATE_RETRY_MAX));
        assert_eq!(gate.limit(), Some(ByteRate(0)));
        gate.set_limit(START, None, 0);
        assert_eq!(gate.try_take(START, 1), Ok(()));
    }

    #[test]
    fn a_raised_limit_acts_at_once() {
        let gate = RateGate::new(Some(ByteRate(1_000)), 100_000);
        assert!(gate.try_take(START, 100_000).is_ok());
        assert!(gate.try_take(START, 1_000).is_err());
        gate.set_limit(START, Some(ByteRate(1_000_000)), 100_000);
        let retry = gate.try_take(START, 1_000).expect_err("the burst is used up");
        assert_eq!(retry, START + Duration::from_millis(1));
        assert!(gate.try_take(retry, 1_000).is_ok());
    }

    #[test]
    fn a_take_longer_than_the_burst_goes_when_all_is_paid_for() {
        let gate = RateGate::new(Some(ByteRate(1_000)), 10);
        assert!(gate.try_take(START, 500).is_ok());
        let later = START + Duration::from_millis(490);
        assert!(gate.try_take(later, 500).is_err());
        assert!(gate.try_take(START + Duration::from_millis(500), 500).is_ok());
    }

    proptest! {
        /// The oracle keeps every take and adds up every window that ends with the newest.
        #[test]
        fn no_window_ever_holds_more_than_rate_times_time_and_the_burst(
            rate in 1_000u64..10_000_000,
            burst in 1_000u64..1_000_000,
            schedule in prop::collection::vec((0u64..200_000_000, 1u32..1_000), 1..150),
        ) {
            let gate = RateGate::new(Some(ByteRate(rate)), burst);
            let (mut now, mut taken) = (START, Vec::new());
            for (wait, bytes) in schedule {
                now += Duration::from_nanos(wait);
                if gate.try_take(now, bytes).is_ok() {
                    taken.push((now, u128::from(bytes)));
                }
                let mut sum = 0;
                for &(then, bytes) in taken.iter().rev() {
                    sum += bytes;
                    let earned = now.since(then).as_nanos() * u128::from(rate) / NANOS_PER_SECOND;
                    prop_assert!(sum <= earned + u128::from(burst) + 1);
                }
            }
        }

        #[test]
        fn a_greedy_taker_gets_the_rate(rate in 100_000u64..2_000_000_000, bytes in 1_000u32..1_048_576) {
            let gate = RateGate::new(Some(ByteRate(rate)), burst_for(Some(ByteRate(rate))));
            let span = Duration::from_secs_f64(200.0 * f64::from(bytes) / rate as f64);
            let (mut now, end, mut taken) = (START, START + span, 0u64);
            while now < end {
                match gate.try_take(now, bytes) {
                    Ok(()) => taken += u64::from(bytes),
                    Err(retry) => {
                        prop_assert!(retry > now);
                        now = retry;
                    }
                }
            }
            prop_assert!(taken as f64 >= 0.95 * 200.0 * f64::from(bytes), "{taken}");
        }
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    #[test]
    fn loom_two_takers_cannot_both_have_the_last_of_the_burst() {
        loom::model(|| {
            let gate = Arc::new(RateGate::new(Some(ByteRate(1_000)), 100));
            let now = Instant::from_nanos(1_000_000_000_000);
            let other = {
                let gate = gate.clone();
                loom::thread::spawn(move || gate.try_take(now, 60).is_ok())
            };
            let mine = gate.try_take(now, 60).is_ok();
            let theirs = other.join().expect("the other taker does not panic");
            assert!(mine ^ theirs);
        });
    }
}
