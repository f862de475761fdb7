//! Deadlines of one worker, soonest first.
//!
//! Deadlines are lazy: a timer that fires asks its owner for the deadline that holds now and is set again when
//! that lies ahead, so moving a deadline back costs nothing and each owner needs one timer at a time.

use crate::time::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Timers for owners named by `T`.
#[derive(Debug)]
pub struct Timers<T: Ord> {
    heap: BinaryHeap<Reverse<(Instant, T)>>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new() }
    }
}

impl<T: Ord> Timers<T> {
    /// Sets a timer.
    pub fn set(&mut self, at: Instant, owner: T) {
        self.heap.push(Reverse((at, owner)));
    }

    /// When the next timer fires.
    pub fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes a timer that has fired by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, owner))| owner)
    }

    /// Timers set.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether none is set.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn fires_in_order_and_not_before_time() {
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut timers = Timers::default();
        timers.set(at(3), "third");
        timers.set(at(1), "first");
        timers.set(at(2), "second");
        assert_eq!((timers.next(), timers.poll(Instant::ZERO)), (Some(at(1)), None));
        assert_eq!(
            (timers.poll(at(2)), timers.poll(at(2)), timers.poll(at(2))),
            (Some("first"), Some("second"), None)
        );
        assert_eq!(timers.len(), 1);
    }
}
