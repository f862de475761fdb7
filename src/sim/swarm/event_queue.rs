//! What happens next: events in order of time, those of one moment in the order in which they were put in.
//!
//! The order is total, so a run depends on nothing but what was put in.

use crate::time::Instant;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// Events that lie ahead.
#[derive(Debug)]
pub struct EventQueue<E> {
    heap: BinaryHeap<Entry<E>>,
    put: u64,
}

#[derive(Debug)]
struct Entry<E> {
    at: Instant,
    number: u64,
    event: E,
}

impl<E> EventQueue<E> {
    /// No events.
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), put: 0 }
    }

    /// Adds an event.
    pub fn put(&mut self, at: Instant, event: E) {
        self.heap.push(Entry { at, number: self.put, event });
        self.put += 1;
    }

    /// When the next event is due.
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Option<(Instant, E)> {
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// Events that lie ahead.
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Whether nothing lies ahead.
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Ord for Entry<E> {
    /// The earliest is the greatest, since the heap gives the greatest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<E> PartialOrd for Entry<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Entry<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Entry<E> {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn events_come_by_time_and_then_as_they_were_put(times in prop::collection::vec(0_u64..20, 0..200)) {
            let mut queue = EventQueue::new();
            for (number, &time) in times.iter().enumerate() {
                queue.put(Instant::from_nanos(time), number);
            }
            let mut expected: Vec<_> = times.iter().copied().zip(0..).collect();
            expected.sort_unstable();
            let taken: Vec<_> =
                std::iter::from_fn(|| queue.take()).map(|(at, number)| (at.as_nanos(), number)).collect();
            prop_assert_eq!(taken, expected);
        }
    }
}
