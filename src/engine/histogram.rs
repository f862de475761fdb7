//! How often which value: counts by size, one writer, any reader.
//!
//! Four buckets for each power of two, so a quantile is at most a quarter too high; maximum and sum are exact. To
//! record a value costs a count of leading zeros and three plain stores; readers see a moment that is not one
//! instant's, which is good enough for figures. Deliberately absent: hdrhistogram's locking and resizing, and a way
//! to forget: whoever wants the last minute takes differences.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets for each power of two, as a power of two.
const PARTS_LOG: u32 = 2;
/// Powers of two from which on all values are in the last bucket: 2^40 nanoseconds are 18 minutes.
const EXPONENTS: u32 = 40;
/// Buckets: the values below four have one each.
const BUCKETS: usize = ((EXPONENTS - PARTS_LOG + 1) << PARTS_LOG) as usize;

/// Counts of one worker.
#[derive(Debug)]
pub struct Histogram {
    counts: [AtomicU64; BUCKETS],
    sum: AtomicU64,
    max: AtomicU64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            sum: AtomicU64::new(0),
            max: AtomicU64::new(0),
        }
    }
}

impl Histogram {
    /// Counts a value. Only one thread may.
    pub(super) fn record(&self, value: u64) {
        let add = |to: &AtomicU64, amount: u64| to.store(to.load(Relaxed).wrapping_add(amount), Relaxed);
        add(&self.counts[bucket_of(value)], 1);
        add(&self.sum, value);
        if value > self.max.load(Relaxed) {
            self.max.store(value, Relaxed);
        }
    }

    /// All counts now.
    pub fn snapshot(&self) -> HistogramSnapshot {
        HistogramSnapshot {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum: self.sum.load(Relaxed),
            max: self.max.load(Relaxed),
        }
    }
}

/// Counts at one moment, of one worker or added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistogramSnapshot {
    counts: Vec<u64>,
    sum: u64,
    max: u64,
}

/// What there is to say about a histogram in five numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct HistogramSummary {
    /// Values recorded.
    pub count: u64,
    /// Their sum.
    pub sum: u64,
    /// Half of them are no larger; up to a quarter too high.
    pub p50: u64,
    /// All but a hundredth of them are no larger; up to a quarter too high.
    pub p99: u64,
    /// The largest.
    pub max: u64,
}

impl HistogramSnapshot {
    /// Number of values recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum; wraps.
    pub fn sum(&self) -> u64 {
        self.sum
    }

    /// How many were below 2^`exponent`; for exponents of two and more.
    pub fn count_below(&self, exponent: u32) -> u64 {
        let end = if exponent >= EXPONENTS { BUCKETS } else { bucket_of(1 << exponent) };
        self.counts.iter().take(end).sum()
    }

    /// The end of the bucket in which the value lies that `percent` of all do not exceed.
    pub fn quantile(&self, percent: u64) -> u64 {
        let count = self.count();
        let wanted = (u128::from(count) * u128::from(percent)).div_ceil(100).max(1);
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if seen >= wanted {
                return last_of(bucket).min(self.max);
            }
        }
        self.max
    }

    /// The five numbers.
    pub fn summary(&self) -> HistogramSummary {
        let (p50, p99) = (self.quantile(50), self.quantile(99));
        HistogramSummary { count: self.count(), sum: self.sum, p50, p99, max: self.max }
    }
}

impl std::ops::AddAssign<&Self> for HistogramSnapshot {
    fn add_assign(&mut self, other: &Self) {
        self.counts.resize(BUCKETS, 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(sum, count)| *sum += count);
        self.sum = self.sum.wrapping_add(other.sum);
        self.max = self.max.max(other.max);
    }
}

fn bucket_of(value: u64) -> usize {
    let Some(exponent) = value.checked_ilog2().filter(|&exponent| exponent >= PARTS_LOG) else {
        return value as usize;
    };
    let shift = exponent - PARTS_LOG;
    let bucket = (u64::from(shift) << PARTS_LOG) + (value >> shift);
    usize::try_from(bucket).unwrap_or(usize::MAX).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn last_of(bucket: usize) -> u64 {
    const PARTS: u64 = 1 << PARTS_LOG;
    let bucket = bucket as u64;
    if bucket >= BUCKETS as u64 - 1 {
        return u64::MAX;
    }
    if bucket < PARTS {
        return bucket;
    }
    let shift = bucket / PARTS - 1;
    ((bucket % PARTS + PARTS + 1) << shift) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(last_of(bucket)), bucket);
            assert_eq!(bucket_of(last_of(bucket) + 1), bucket + 1);
        }
        assert_eq!(bucket_of(u64::MAX), BUCKETS - 1);
    }

    proptest! {
        #[test]
        fn quantiles_are_those_of_the_sorted_values_or_a_quarter_more(
            values in proptest::collection::vec(0u64..1 << 39, 1..300),
            exponent in 2u32..45,
        ) {
            let (one, two) = (Histogram::default(), Histogram::default());
            for (index, &value) in values.iter().enumerate() {
                if index % 3 == 0 { one.record(value) } else { two.record(value) }
            }
            let mut sum = HistogramSnapshot::default();
            sum += &one.snapshot();
            sum += &two.snapshot();
            let mut sorted = values.clone();
            sorted.sort_unstable();
            prop_assert_eq!(sum.count(), values.len() as u64);
            prop_assert_eq!(sum.sum(), values.iter().sum::<u64>());
            prop_assert_eq!(sum.summary().max, sorted[sorted.len() - 1]);
            for percent in [50, 99, 100] {
                let exact = sorted[(sorted.len() * percent as usize).div_ceil(100) - 1];
                let told = sum.quantile(percent);
                prop_assert!(told >= exact && told <= exact + exact / 4, "{} of {}", told, exact);
            }
            let below = values.iter().filter(|&&value| value < 1 << exponent).count();
            prop_assert_eq!(sum.count_below(exponent), below as u64);
        }
    }

    #[test]
    fn nothing_recorded_is_all_zeros() {
        assert_eq!(Histogram::default().snapshot().summary(), HistogramSummary::default());
        assert_eq!(HistogramSnapshot::default().summary(), HistogramSummary::default());
    }
}
