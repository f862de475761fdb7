//! What happens next: events in order of time, those of one moment in the order in which they were put in.
//!
//! The order is total, so a run depends on nothing but what was put in.
//!
//! Only what happens within the present tick, or before, is sorted; an event that is put there mostly belongs near the
//! end from which events are taken. The rest waits unsorted in a hierarchical timing wheel (Varghese and Lauck, "Hashed
//! and Hierarchical Timing Wheels", 1987): the slots of the lowest level are ticks, a slot of each further level is as long
//! as the whole level below. When few sorted events are left, the next slot that is not empty is spread over the levels
//! below it, so that the next events are known before it is their turn ([`EventQueue::ahead`]).

use crate::time::Instant;

/// A tick has two to this power nanoseconds, about a millisecond.
const TICK_BITS: u32 = 20;
/// Two to this power slots make a level, as many as a word has bits.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// As many levels as all ticks of time need.
const LEVELS: usize = (u64::BITS - TICK_BITS).div_ceil(SLOT_BITS) as usize;
/// Sorted events at least, while there are as many.
const AHEAD: usize = 16;

/// Events that lie ahead.
#[derive(Debug)]
pub struct EventQueue<E> {
    /// All events of the present tick and before, the next one last.
    sorted: Vec<Entry<E>>,
    /// When the event was that was taken last: time does not go back.
    now: Instant,
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

impl<E> Entry<E> {
    fn order(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl<E> EventQueue<E> {
    /// No events.
    pub fn new() -> Self {
        let level = |_| Level { slots: (0..SLOTS).map(|_| Vec::new()).collect(), occupied: 0 };
        let levels = std::array::from_fn(level);
        Self { sorted: Vec::new(), now: Instant::ZERO, tick: 0, levels, put: 0, len: 0 }
    }

    /// Adds an event. What should have happened already happens now.
    pub fn put(&mut self, at: Instant, event: E) {
        let at = at.max(self.now);
        let entry = Entry { at, number: self.put, event };
        self.put += 1;
        self.len += 1;
        if tick_of(at) > self.tick {
            return self.wait(entry);
        }
        // Of one moment it is the last.
        let place = self.sorted.partition_point(|other| other.at > at);
        self.sorted.insert(place, entry);
    }

    /// Takes the next event if it is due at `limit` or before.
    pub fn take_until(&mut self, limit: Instant) -> Option<(Instant, E)> {
        if self.sorted.len() < AHEAD {
            self.advance();
        }
        let entry = self.sorted.pop_if(|entry| entry.at <= limit)?;
        self.len -= 1;
        self.now = entry.at;
        Some((entry.at, entry.event))
    }

    /// Takes the next event.
    pub fn take(&mut self) -> Option<(Instant, E)> {
        self.take_until(Instant::FAR_FUTURE)
    }

    /// The event that comes after `count` others, as far as is known now.
    pub fn ahead(&self, count: usize) -> Option<&E> {
        self.sorted.iter().nth_back(count).map(|entry| &entry.event)
    }

    /// All events that lie ahead, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &E> {
        let waiting = self.levels.iter().flat_map(|level| &level.slots).flatten();
        self.sorted.iter().chain(waiting).map(|entry| &entry.event)
    }

    /// Events that lie ahead.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing lies ahead.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Puts an event of a later tick where it waits.
    fn wait(&mut self, entry: Entry<E>) {
        let tick = tick_of(entry.at);
        // The highest digit in which they differ.
        let level = ((tick ^ self.tick).ilog2() / SLOT_BITS) as usize;
        let slot = digit(tick, level);
        let level = &mut self.levels[level];
        level.slots[slot].push(entry);
        level.occupied |= 1 << slot;
    }

    /// Goes on to later ticks until enough events are sorted, or none are left.
    fn advance(&mut self) {
        while self.sorted.len() < AHEAD
            && let Some(at) = self.levels.iter().position(|level| level.occupied != 0)
        {
            let level = &mut self.levels[at];
            let slot = level.occupied.trailing_zeros();
            level.occupied &= level.occupied - 1;
            let mut entries = std::mem::take(&mut level.slots[slot as usize]);
            let shift = at as u32 * SLOT_BITS;
            // The digits below are zero: the beginning of the slot.
            self.tick = (((self.tick >> shift) & !(SLOTS as u64 - 1)) | u64::from(slot)) << shift;
            if at > 0 {
                let now = self.tick;
                let later = |entry: &mut Entry<E>| tick_of(entry.at) > now;
                entries.extract_if(.., later).for_each(|entry| self.wait(entry));
            }
            entries.sort_unstable_by_key(|entry| std::cmp::Reverse(entry.order()));
            // All of them come later than what is left.
            entries.append(&mut self.sorted);
            let emptied = std::mem::replace(&mut self.sorted, entries);
            if at == 0 {
                // The memory will be wanted again soon.
                self.levels[at].slots[slot as usize] = emptied;
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

    #[test]
    fn what_is_put_into_the_past_happens_now() {
        let mut queue = EventQueue::new();
        let at = Instant::from_nanos;
        queue.put(at(5), 1);
        queue.put(at(7), 2);
        assert_eq!(queue.take(), Some((at(5), 1)));
        queue.put(at(3), 3);
        assert_eq!(queue.take(), Some((at(5), 3)));
        assert_eq!(queue.take(), Some((at(7), 2)));
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
                prop_assert_eq!(queue.iter().count(), expected.len());
            }
            let rest: Vec<_> =
                std::iter::from_fn(|| queue.take()).map(|(at, number)| (at.as_nanos(), number)).collect();
            prop_assert_eq!(rest, expected);
            prop_assert!(queue.is_empty());
        }
    }
}
