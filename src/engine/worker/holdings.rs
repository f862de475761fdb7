//! Memory that peers who do not read make a worker hold, all connections together.
//!
//! Blocks go from the mapping and cost nothing while they wait. What is made in memory of ours does: blocks that were
//! encrypted or gathered, pieces of an info dictionary, many control bytes ([`Copies`]). They are made only when the worker's
//! budget has room for them. A connection that finds no room waits in line; the prefix that holds least is served first. The fuller
//! the budget, the shorter the messages, and a part of it is kept for prefixes that hold next to nothing. A peer that reads gives
//! its bytes back to the budget at once, so it never waits for long. Encrypted bytes cannot be thrown away without their
//! connection. So while others wait, the connection whose message has stood still longest is closed, after some seconds at least.
//!
//! A peer that reads has few requests and control bytes queued. When those of all connections are too many, connections that hold
//! many are read once a second, and those that have taken nothing for longest are closed.

use super::super::ring::Ring;
use super::super::slab::Key;
use super::super::store::BlockStore;
use super::Worker;
use super::connection::Closing;
use crate::id::AddressPrefix;
use crate::limits::{
    COPIED_LEN_MAX, COPIED_LEN_RESERVED, COPIED_PART_AT_ONCE, COPIED_PER_POOR_PREFIX_MAX,
    COPIED_PER_PREFIX_MAX, COPIED_PER_TAKEN, ENCRYPTED_BATCH_LEN_MAX, MESSAGE_LEN_UNCOUNTED, QUEUED_LEN_MAX,
    QUEUED_LEN_UNTROUBLED, STANDSTILL_TIME_MIN,
};
use crate::units::BLOCK_LEN;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Bytes of messages that were made in memory of ours and that the kernel has not taken, and who waits to have more made.
#[derive(Debug, Default)]
pub(super) struct Copies {
    held: u64,
    by_prefix: BTreeMap<AddressPrefix, u64>,
    /// Who waits, by prefix, in the order in which they came.
    lines: BTreeMap<AddressPrefix, VecDeque<Key>>,
    /// The prefixes with a line, those that hold least first.
    order: BTreeSet<(u64, AddressPrefix)>,
}

impl Copies {
    /// Bytes held for all.
    pub fn held(&self) -> u64 {
        self.held
    }

    fn held_by(&self, prefix: AddressPrefix) -> u64 {
        self.by_prefix.get(&prefix).copied().unwrap_or(0)
    }

    /// Bytes left for everybody.
    fn open(&self) -> u64 {
        (COPIED_LEN_MAX - COPIED_LEN_RESERVED).saturating_sub(self.held)
    }

    /// Bytes of a message that may be made for a peer of this prefix, `wanted` at most; none when not even `least` have room.
    pub fn grant(&self, prefix: AddressPrefix, least: u64, wanted: u64) -> Option<u64> {
        let held = self.held_by(prefix);
        let most = |left: u64, share: u64| {
            let room = left.min(share);
            (least <= room).then(|| few_lengths(wanted.min(left / COPIED_PART_AT_ONCE).min(room)).max(least))
        };
        let open = most(self.open(), COPIED_PER_PREFIX_MAX.saturating_sub(held));
        // Who holds nothing may have one message, however long its block.
        let share = COPIED_PER_POOR_PREFIX_MAX.saturating_sub(held).max(if held == 0 { least } else { 0 });
        let reserved = most(COPIED_LEN_MAX.saturating_sub(self.held), share);
        // None is less than any.
        open.max(reserved)
    }

    /// A message has been made.
    pub fn take(&mut self, prefix: AddressPrefix, len: u64) {
        let before = self.held_by(prefix);
        self.held += len;
        self.set(prefix, before, before + len);
    }

    /// The kernel has let go of it.
    pub fn give_back(&mut self, prefix: AddressPrefix, len: u64) {
        let before = self.held_by(prefix);
        self.held = self.held.saturating_sub(len);
        self.set(prefix, before, before.saturating_sub(len));
    }

    fn set(&mut self, prefix: AddressPrefix, before: u64, after: u64) {
        if after == 0 {
            self.by_prefix.remove(&prefix);
        } else {
            self.by_prefix.insert(prefix, after);
        }
        if self.order.remove(&(before, prefix)) {
            self.order.insert((after, prefix));
        }
    }

    /// Puts a connection at the end of its prefix's line.
    pub fn wait(&mut self, prefix: AddressPrefix, key: Key) {
        self.lines.entry(prefix).or_default().push_back(key);
        self.order.insert((self.held_by(prefix), prefix));
    }

    /// Whether nobody waits.
    pub fn is_line_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Takes the first in line out of it, if a block has room now.
    pub fn next(&mut self) -> Option<Key> {
        let &(held, prefix) = self.order.first()?;
        self.grant(prefix, BLOCK_LEN.into(), BLOCK_LEN.into())?;
        let line = self.lines.get_mut(&prefix)?;
        let key = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&prefix);
            self.order.remove(&(held, prefix));
        }
        key
    }

    /// Whether those of this prefix hold up others, or each other.
    fn holds_up(&self, prefix: AddressPrefix) -> bool {
        self.lines.contains_key(&prefix) || !self.lines.is_empty() && self.open() < u64::from(BLOCK_LEN)
    }

    /// Takes those out of all lines that wait no more.
    fn retain(&mut self, waits: impl Fn(Key) -> bool) {
        self.lines.retain(|&prefix, line| {
            line.retain(|&key| waits(key));
            let goes_on = !line.is_empty();
            if !goes_on {
                self.order.remove(&(self.by_prefix.get(&prefix).copied().unwrap_or(0), prefix));
            }
            goes_on
        });
    }

    /// Connections that wait, some of which may have gone.
    fn waiting(&self) -> usize {
        self.lines.values().map(VecDeque::len).sum()
    }
}

/// So many bytes or fewer: one, two, four, eight blocks, or sixteen, so that memory that is freed fits what is made next.
fn few_lengths(len: u64) -> u64 {
    (len / u64::from(BLOCK_LEN)).checked_ilog2().map_or(len, |log| u64::from(BLOCK_LEN) << log)
}

/// Bytes of blocks that may be encrypted at once for who has taken so many: one block at first, and more only for who reads.
pub(super) fn encrypted_len(taken: u64) -> u64 {
    (taken / COPIED_PER_TAKEN).clamp(BLOCK_LEN.into(), ENCRYPTED_BATCH_LEN_MAX.into())
}

impl<R: Ring, S: BlockStore> Worker<R, S> {
    /// Whether the control bytes of a connection may be made a message now; waits in line otherwise.
    pub(super) fn may_say(&mut self, key: Key) -> bool {
        let Some(connection) = self.connections.get(key) else { return false };
        let len = connection.machine.control_len();
        if len <= MESSAGE_LEN_UNCOUNTED {
            return true;
        }
        let len = len as u64;
        let granted = self.copies.grant(connection.prefix(), len, len);
        if granted.is_none() {
            self.wait_for_copies(key);
        }
        granted.is_some()
    }

    /// Bytes of blocks that may be copied for a connection now, `wanted` at most and one block at least; waits in line if
    /// there is no room even for that.
    pub(super) fn copied_len(&mut self, key: Key, wanted: u64) -> Option<u64> {
        let connection = self.connections.get(key)?;
        let least = u64::from(connection.machine.next_block()?.len);
        let granted = self.copies.grant(connection.prefix(), least, wanted.max(least));
        if granted.is_none() {
            self.wait_for_copies(key);
        }
        granted
    }

    fn wait_for_copies(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key)
            && !std::mem::replace(&mut connection.waits_for_copies, true)
        {
            self.copies.wait(connection.prefix(), key);
        }
    }

    /// The kernel has let go of a message that was counted.
    pub(super) fn give_back_copies(&mut self, prefix: AddressPrefix, len: u64) {
        if len > 0 {
            self.copies.give_back(prefix, len);
            self.call_copies(1 + len / u64::from(BLOCK_LEN));
        }
    }

    /// Lets so many try who wait in line.
    fn call_copies(&mut self, most: u64) {
        for _ in 0..most {
            let Some(key) = self.copies.next() else { return };
            if let Some(connection) = self.connections.get_mut(key) {
                connection.waits_for_copies = false;
                self.schedule(key);
            }
        }
    }

    /// Counts what a connection's queues hold beyond what is never too much.
    pub(super) fn weigh(&mut self, key: Key) {
        if let Some(connection) = self.connections.get_mut(key) {
            let now = connection.machine.upload_bytes().saturating_sub(QUEUED_LEN_UNTROUBLED);
            let before = std::mem::replace(&mut connection.queued_bytes, now);
            self.queued_bytes = (self.queued_bytes + now).saturating_sub(before);
        }
    }

    /// Whether a connection is to be read only once a second, because all of them hold too much, and this one more than little.
    pub(super) fn holds_too_much(&self, key: Key) -> bool {
        self.queued_bytes > QUEUED_LEN_MAX && self.connections.get(key).is_some_and(|it| it.queued_bytes > 0)
    }

    /// Once a second: who holds memory and does not move makes room for those who wait.
    pub(super) fn tend_holdings(&mut self) {
        if !self.copies.is_line_empty() {
            let connections = &self.connections;
            self.copies.retain(|key| connections.get(key).is_some_and(|it| it.closing.is_none()));
            self.end_standing_messages();
            self.call_copies(self.copies.waiting() as u64);
        }
        if self.queued_bytes > QUEUED_LEN_MAX {
            self.end_standing_queues();
        }
    }

    fn end_standing_messages(&mut self) {
        let mut missing = self.copies.waiting() as u64 * u64::from(BLOCK_LEN);
        let mut standing: Vec<_> = self
            .in_flight
            .values()
            .filter(|message| message.counted > 0 && self.copies.holds_up(message.prefix))
            .filter_map(|message| {
                let since = self.connections.get(message.connection)?.sending?;
                (self.now >= since + STANDSTILL_TIME_MIN).then_some((
                    since,
                    message.connection,
                    message.counted,
                ))
            })
            .collect();
        standing.sort_unstable();
        for (_, key, len) in standing {
            if missing == 0 {
                return;
            }
            missing = missing.saturating_sub(len);
            self.end_for_memory(key);
        }
    }

    fn end_standing_queues(&mut self) {
        let mut excess = self.queued_bytes.saturating_sub(QUEUED_LEN_MAX / 8 * 7);
        let mut standing: Vec<_> = self
            .connections
            .keys()
            .filter_map(|key| {
                let connection = self.connections.get(key)?;
                let stands = self.now >= connection.moved_at + STANDSTILL_TIME_MIN;
                (stands && connection.queued_bytes > 0 && connection.closing.is_none()).then_some((
                    connection.moved_at,
                    key,
                    connection.queued_bytes,
                ))
            })
            .collect();
        standing.sort_unstable();
        for (_, key, len) in standing {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(len);
            self.end_for_memory(key);
        }
    }

    fn end_for_memory(&mut self, key: Key) {
        if let Some(connection) = self.connections.get(key) {
            tracing::debug!(peer = %connection.ends.remote, "closing: it holds memory that others wait for, and does not read");
        }
        self.close(key, Closing::Abruptly);
    }

    /// Bytes that connections' queues hold beyond that, for tests and statistics.
    pub fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    /// Bytes of messages in memory of ours that the kernel has not taken, for tests and statistics.
    pub fn copied_bytes(&self) -> u64 {
        self.copies.held()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: u64 = BLOCK_LEN as u64;

    fn prefix(number: u16) -> AddressPrefix {
        let [high, low] = number.to_be_bytes();
        AddressPrefix::V4([198, high, low])
    }

    fn key(slot: u32) -> Key {
        Key { slot, generation: 0 }
    }

    /// One after the other takes what it is granted until nobody of the prefix is granted anything; the lengths.
    fn fill(copies: &mut Copies, prefix: AddressPrefix, wanted: u64) -> Vec<u64> {
        std::iter::from_fn(|| {
            let granted = copies.grant(prefix, BLOCK, wanted)?;
            copies.take(prefix, granted);
            Some(granted)
        })
        .collect()
    }

    #[test]
    fn one_prefix_gets_its_share_in_ever_shorter_messages_and_many_leave_the_reserve_to_the_poor() {
        let mut copies = Copies::default();
        let lens = fill(&mut copies, prefix(0), 16 * BLOCK);
        assert!(lens[0] == 8 * BLOCK && lens.is_sorted_by(|one, next| one >= next), "{lens:?}");
        assert!((COPIED_PER_PREFIX_MAX - BLOCK..=COPIED_PER_PREFIX_MAX).contains(&copies.held()));
        (1..6).for_each(|number| drop(fill(&mut copies, prefix(number), 16 * BLOCK)));
        let full = copies.held();
        assert!((COPIED_LEN_MAX - COPIED_LEN_RESERVED - BLOCK..COPIED_LEN_MAX).contains(&full), "{full}");
        // A prefix that holds nothing has room for one block, however long.
        let granted = copies.grant(prefix(100), BLOCK, 16 * BLOCK).unwrap();
        assert!((BLOCK..=8 * BLOCK).contains(&granted), "{granted}");
        assert_eq!(copies.grant(prefix(100), 8 * BLOCK, 16 * BLOCK), Some(8 * BLOCK));
        assert_eq!(copies.grant(prefix(0), BLOCK, BLOCK), None);
    }

    #[test]
    fn the_prefix_that_holds_least_is_first_in_line_and_each_line_goes_in_order() {
        let mut copies = Copies::default();
        copies.take(prefix(1), 3 * BLOCK);
        copies.take(prefix(2), BLOCK);
        copies.wait(prefix(1), key(10));
        copies.wait(prefix(2), key(20));
        copies.wait(prefix(2), key(21));
        assert_eq!(copies.next(), Some(key(20)));
        copies.take(prefix(2), 4 * BLOCK);
        assert_eq!(copies.next(), Some(key(10)));
        assert_eq!(copies.next(), Some(key(21)));
        assert!(copies.next().is_none() && copies.is_line_empty() && copies.order.is_empty());
    }

    #[test]
    fn who_has_taken_more_gets_more_at_once() {
        assert_eq!((encrypted_len(0), encrypted_len(u64::MAX)), (BLOCK, ENCRYPTED_BATCH_LEN_MAX.into()));
        assert_eq!(encrypted_len(COPIED_PER_TAKEN * 5 * BLOCK), 5 * BLOCK);
    }

    proptest! {
        #[test]
        fn the_budget_holds_and_who_waits_is_called_once_there_is_room(
            steps in prop::collection::vec((0u16..40, 1u64..=8, 1u64..=16, any::<bool>()), 0..800),
        ) {
            let mut copies = Copies::default();
            let mut held: Vec<(AddressPrefix, u64)> = Vec::new();
            let mut waiting = 0;
            for (slot, (number, least, wanted, gives)) in (0..).zip(steps) {
                let prefix = prefix(number);
                if gives && !held.is_empty() {
                    let (prefix, len) = held.swap_remove(usize::from(number) % held.len());
                    copies.give_back(prefix, len);
                } else if let Some(len) = copies.grant(prefix, least * BLOCK, wanted.max(least) * BLOCK) {
                    prop_assert!((least * BLOCK..=wanted.max(least) * BLOCK).contains(&len));
                    copies.take(prefix, len);
                    held.push((prefix, len));
                } else {
                    copies.wait(prefix, key(slot));
                    waiting += 1;
                }
                prop_assert!(copies.held() <= COPIED_LEN_MAX);
                prop_assert_eq!(copies.held(), held.iter().map(|&(_, len)| len).sum::<u64>());
                prop_assert_eq!(copies.waiting(), waiting);
            }
            for (prefix, len) in held.drain(..) {
                copies.give_back(prefix, len);
            }
            let called = std::iter::from_fn(|| copies.next()).count();
            prop_assert_eq!((called, copies.held(), copies.by_prefix.len()), (waiting, 0, 0));
            prop_assert!(copies.order.is_empty());
        }
    }
}
