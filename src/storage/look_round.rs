//! Which files are looked at next, where a look at all of them would cost too much.

use crate::limits::FILES_PER_LOOK_MAX;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// How many looks there have been.
#[derive(Debug, Default)]
pub(super) struct LookRound(AtomicU32);

impl LookRound {
    /// The numbers of those of `count` files that are looked at now; all come in turn.
    pub(super) fn next(&self, count: u32) -> Range<u32> {
        let looks = count.div_ceil(FILES_PER_LOOK_MAX).max(1);
        let first = self.0.fetch_add(1, Relaxed) % looks * FILES_PER_LOOK_MAX;
        first..first.saturating_add(FILES_PER_LOOK_MAX).min(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_files_are_looked_at_each_time_and_of_many_each_in_its_turn() {
        for count in [0, 1, FILES_PER_LOOK_MAX] {
            let round = LookRound::default();
            assert_eq!([round.next(count), round.next(count)], [0..count, 0..count]);
        }
        let count = 2 * FILES_PER_LOOK_MAX + 7;
        let round = LookRound::default();
        for _ in 0..3 {
            let looked_at: Vec<u32> = (0..3).flat_map(|_| round.next(count)).collect();
            assert!(looked_at.into_iter().eq(0..count));
        }
    }
}
