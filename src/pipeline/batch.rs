//! How many bytes one connection's next send may carry.
//!
//! Large sends are cheap for us and slow to take back: what is handed to the kernel can no longer be cancelled, and
//! while it drains the peer's other messages wait behind it. So the length follows three things: how fast the last
//! send drained, how many connections share the worker, and the rate limit.
//!
//! Invariant: the answer lies between `BATCH_LEN_MIN` and `BATCH_LEN_MAX`, or below when a rate limit asks for it,
//! but never below one block.

use crate::limits::{
    BATCH_LEN_MAX, BATCH_LEN_MIN, BATCH_LEN_START, BATCH_QUOTA_LEAST, BATCH_QUOTA_LEAST_CONNECTIONS,
    BATCH_QUOTA_WHOLE_CONNECTIONS, TURN_LEN_MAX, TURN_LEN_MIN, TURN_LEN_PER_CONNECTION,
};
use crate::time::Duration;
use crate::units::{BLOCK_LEN, ByteRate};

/// A send that drains faster than this leaves the line idle between two turns of the worker: send more at once.
const FAST_SEND: Duration = Duration::from_millis(50);
/// A send that drains slower than this holds haves, chokes and rejects back noticeably: send less at once.
pub const SLOW_SEND: Duration = Duration::from_millis(500);
/// A batch is at most this part of a second of the rate limit, so that limited uploads flow instead of pulsing.
const LIMIT_PARTS: u64 = 8;

/// One connection's batch length; four bytes.
#[derive(Clone, Copy, Debug)]
pub struct BatchPolicy {
    len: u32,
}

impl BatchPolicy {
    /// The policy of a connection that has not sent yet.
    pub const fn new() -> Self {
        Self { len: BATCH_LEN_START }
    }

    /// Learns that a send of `bytes` was taken whole by the kernel after `took`. A send far below the allowed
    /// length says nothing about a longer one, so it cannot raise the length.
    pub fn handle_sent(&mut self, bytes: u32, took: Duration) {
        if took > SLOW_SEND {
            self.len = (self.len / 2).max(BATCH_LEN_MIN);
        } else if took < FAST_SEND && bytes >= self.len / 2 {
            self.len = self.len.saturating_mul(2).min(BATCH_LEN_MAX);
        }
    }

    /// Bytes the next send may carry. `active` counts the worker's connections with something to send, this one
    /// included; `limit` is the rate limit that applies to it, `None` for no limit. The limit of zero is the rate
    /// gate's to enforce: here it gives one block.
    pub fn batch_len(&self, active: usize, limit: Option<ByteRate>) -> u32 {
        let free = self.len.min(quota(active));
        match limit {
            None => free,
            Some(rate) => {
                let share = u32::try_from(rate.0 / LIMIT_PARTS).unwrap_or(u32::MAX);
                free.min(share).max(BLOCK_LEN)
            }
        }
    }
}

impl Default for BatchPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Bytes each of `active` connections may send at once: whole while few are active, less when many are,
/// falling evenly between, in whole blocks.
fn quota(active: usize) -> u32 {
    let span = (BATCH_QUOTA_LEAST_CONNECTIONS - BATCH_QUOTA_WHOLE_CONNECTIONS) as u64;
    let over = (active.saturating_sub(BATCH_QUOTA_WHOLE_CONNECTIONS) as u64).min(span);
    let fall = u64::from(BATCH_LEN_MAX - BATCH_QUOTA_LEAST) * over / span;
    let blocks = (u64::from(BATCH_LEN_MAX) - fall) / u64::from(BLOCK_LEN);
    u32::try_from(blocks).map_or(BATCH_LEN_MAX, |blocks| blocks * BLOCK_LEN)
}

/// Bytes that a worker with so many active connections hands to the kernel before it looks at what has been received.
pub fn turn_len(active: usize) -> u64 {
    (active as u64).saturating_mul(TURN_LEN_PER_CONNECTION).clamp(TURN_LEN_MIN, TURN_LEN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_fast_line_reaches_the_whole_length_and_a_slow_one_the_least() {
        let mut policy = BatchPolicy::new();
        assert_eq!(policy.batch_len(1, None), BATCH_LEN_START);
        for _ in 0..4 {
            policy.handle_sent(policy.batch_len(1, None), Duration::from_millis(1));
        }
        assert_eq!(policy.batch_len(1, None), BATCH_LEN_MAX);
        policy.handle_sent(BATCH_LEN_MAX, Duration::from_millis(200));
        assert_eq!(policy.batch_len(1, None), BATCH_LEN_MAX);
        for _ in 0..9 {
            policy.handle_sent(policy.batch_len(1, None), Duration::from_secs(1));
        }
        assert_eq!(policy.batch_len(1, None), BATCH_LEN_MIN);
    }

    #[test]
    fn a_small_fast_send_does_not_raise_the_length() {
        let mut policy = BatchPolicy::new();
        policy.handle_sent(BLOCK_LEN, Duration::from_millis(1));
        assert_eq!(policy.batch_len(1, None), BATCH_LEN_START);
    }

    #[test]
    fn many_active_connections_shorten_each_others_sends() {
        assert_eq!((quota(0), quota(1), quota(64)), (BATCH_LEN_MAX, BATCH_LEN_MAX, BATCH_LEN_MAX));
        assert_eq!((quota(200), quota(usize::MAX)), (BATCH_QUOTA_LEAST, BATCH_QUOTA_LEAST));
        assert!((0..300).all(|active| quota(active) >= quota(active + 1)));
    }

    #[test]
    fn turns_grow_with_the_crowd_between_their_bounds() {
        assert_eq!(
            (turn_len(0), turn_len(64), turn_len(usize::MAX)),
            (TURN_LEN_MIN, TURN_LEN_MIN, TURN_LEN_MAX)
        );
        assert!((0..300).all(|active| turn_len(active) <= turn_len(active + 1)));
    }

    #[test]
    fn a_rate_limit_sends_an_eighth_of_a_second_but_at_least_a_block() {
        let policy = BatchPolicy::new();
        assert_eq!(policy.batch_len(1, Some(ByteRate(1_000_000))), 125_000);
        assert_eq!(policy.batch_len(1, Some(ByteRate(1_000))), BLOCK_LEN);
        assert_eq!(policy.batch_len(1, Some(ByteRate(u64::MAX))), BATCH_LEN_START);
    }

    proptest! {
        #[test]
        fn every_answer_lies_within_the_bounds(
            sends in prop::collection::vec((0..2 * BATCH_LEN_MAX, 0u64..2_000), 0..40),
            active in 0usize..1_000,
            limit in prop::option::of(any::<u64>()),
        ) {
            let mut policy = BatchPolicy::new();
            for (bytes, millis) in sends {
                policy.handle_sent(bytes, Duration::from_millis(millis));
            }
            let least = if limit.is_some() { BLOCK_LEN } else { BATCH_LEN_MIN };
            let len = policy.batch_len(active, limit.map(ByteRate));
            prop_assert!((least..=BATCH_LEN_MAX).contains(&len), "{len}");
        }
    }
}
