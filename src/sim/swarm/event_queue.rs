//! What happens next: events in order of time, those of one moment in the order in which they were put in.
//!
//! The order is total, so a run depends on nothing but what was put in.
//!
//! Only what happens within the present tick, or before, lies in a heap, which thereby stays small enough for the
//! nearest cache. The rest waits unsorted in a hierarchical timing wheel (Varghese and Lauck, "Hashed and Hierarchical
//! Timing Wheels", 1987): the slots of the lowest level are ticks, a slot of each further level is as long as the whole
//! level below. When the heap is empty, the next slot that is not is spread over the levels below it and the heap.

use crate::time::Instant;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

/// A tick has two to this power nanoseconds, about four milliseconds.
const TICK_BITS: u32 = 22;
/// Two to this power slots make a level, as many as a word has bits.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// As many levels as all ticks of time need.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;

/// Events that lie ahead.
#[derive(Debug)]
pub struct EventQueue<E> {
    /// All events of the present tick and before.
    heap: BinaryHeap<Entry<E>>,
    tick: u64,
    levels: [Level<E>; LEVELS],
    put: u64,
    len: usize,
}

/// Events by one digit of their tick, whose higher digits are those of the present tick.
#[derive(Debug)]
struct Level<E> {
    slots: Box<[Vec<Entry<E>>]>,
    /// The slots that hold something, one bit each. All of them lie ahead of the present tick's own digit.
    occupied: u64,
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
        let level = |_| Level { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: 0 };
        let levels = std::array::from_fn(level);
        Self { heap: BinaryHeap::new(), tick: 0, levels, put: 0, len: 0 }
    }

    /// Adds an event.
    pub fn put(&mut self, at: Instant, event: E) {
        let entry = Entry { at, number: self.put, event };
        self.put += 1;
        self.len += 1;
        self.place(entry);
    }

    /// Takes the next event if it is due at `limit` or before.
    pub fn take_until(&mut self, limit: Instant) -> Option<(Instant, E)> {
        if self.heap.is_empty() {
            self.advance();
        }
        if self.heap.peek()?.at > limit {
            return None;
        }
        self.len -= 1;
        self.heap.pop().map(|entry| (entry.at, entry.event))
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Option<(Instant, E)> {
        self.take_until(Instant::FAR_FUTURE)
    }

    /// Events that lie ahead.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing lies ahead.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn place(&mut self, entry: Entry<E>) {
        let tick = tick_of(entry.at);
        if tick <= self.tick {
            return self.heap.push(entry);
        }
        // The highest digit in which they differ.
        let level = ((tick ^ self.tick).ilog2() / SLOT_BITS) as usize;
        let slot = digit(tick, level);
        let level = &mut self.levels[level];
        level.slots[slot].push(entry);
        level.occupied |= 1 << slot;
    }

    /// Goes on to the next tick that has events, if there is one.
    fn advance(&mut self) {
        while self.heap.is_empty()
            && let Some(at) = self.levels.iter().position(|level| level.occupied != 0)
        {
            let level = &mut self.levels[at];
            let slot = level.occupied.trailing_zeros();
            level.occupied &= level.occupied - 1;
            let mut entries = std::mem::take(&mut level.slots[slot as usize]);
            let shift = at as u32 * SLOT_BITS;
            // The digits below are zero: the beginning of the slot.
            self.tick = (((self.tick >> shift) & !(SLOTS as u64 - 1)) | u64::from(slot)) << shift;
            entries.drain(..).for_each(|entry| self.place(entry));
            if at == 0 {
                // It will be wanted again soon.
                self.levels[at].slots[slot as usize] = entries;
            }
        }
    }
}

fn tick_of(at: Instant) -> u64 {
    at.as_nanos() >> TICK_BITS
}

fn digit(tick: u64, level: usize) -> usize {
    (tick >> (level as u32 * SLOT_BITS)) as usize % SLOTS
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

    /// Times that share slots of some level, and some that share nothing.
    fn any_time() -> impl Strategy<Value = u64> {
        (0_u64..20, 0_u32..64).prop_map(|(part, shift)| part << shift)
    }

    #[test]
    fn the_end_of_time_comes_last() {
        let mut queue = EventQueue::new();
        for at in [Instant::FAR_FUTURE, Instant::ZERO, Instant::from_nanos(u64::MAX - 1)] {
            queue.put(at, at);
        }
        let taken: Vec<_> = std::iter::from_fn(|| queue.take()).map(|(at, _)| at).collect();
        assert_eq!(taken, [Instant::ZERO, Instant::from_nanos(u64::MAX - 1), Instant::FAR_FUTURE]);
    }

    proptest! {
        #[test]
        fn events_come_by_time_and_then_as_they_were_put(
            steps in prop::collection::vec((any_time(), any::<bool>()), 0..200), limit in any_time(),
        ) {
            let (mut queue, mut expected, mut now) = (EventQueue::new(), Vec::new(), 0_u64);
            for (number, (time, takes)) in (0_u64..).zip(steps) {
                // Nothing is put into the past.
                let at = now.saturating_add(time);
                queue.put(Instant::from_nanos(at), number);
                expected.push((at, number));
                expected.sort_unstable();
                if takes {
                    let limit = now.saturating_add(limit);
                    let due = expected.first().copied().filter(|&(at, _)| at <= limit);
                    let taken = queue.take_until(Instant::from_nanos(limit));
                    prop_assert_eq!(taken.map(|(at, number)| (at.as_nanos(), number)), due);
                    if let Some((at, _)) = due {
                        now = at;
                        expected.remove(0);
                    }
                }
                prop_assert_eq!(queue.len(), expected.len());
            }
            let rest: Vec<_> =
                std::iter::from_fn(|| queue.take()).map(|(at, number)| (at.as_nanos(), number)).collect();
            prop_assert_eq!(rest, expected);
            prop_assert!(queue.is_empty());
        }
    }
}
