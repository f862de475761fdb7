//! The trackers of a torrent in the order in which one address family asks them (BEP 12).
//!
//! Invariant: entries are sorted by tier; within a tier, those that answered last stand in front.

use super::{AnnounceJob, Endpoint, Reach, TrackerIndex};
use crate::time::Instant;
use crate::tracker_wire::{AddressFamily, AnnounceEvent};

/// One family's trackers, best first.
#[derive(Clone, Debug)]
pub(super) struct Ladder {
    family: AddressFamily,
    entries: Vec<Entry>,
}

/// One tracker as this family knows it.
#[derive(Clone, Debug)]
struct Entry {
    tracker: TrackerIndex,
    tier: u32,
    in_flight: Option<AnnounceEvent>,
    /// The next regular announce, or the next attempt after a failure.
    due: Instant,
    /// The end of `min interval`.
    not_before: Instant,
    /// Failures in a row; above zero the entry is backing off until `due`.
    failures: u32,
    /// It answered a `started` and has not been told `stopped`.
    knows_us: bool,
    /// It believes that we leech, and we do no longer.
    owes_completed: bool,
    /// It believes that we still want something, and we do not.
    owes_paused: bool,
}

impl Ladder {
    pub(super) fn new(family: AddressFamily, order: &[(TrackerIndex, u32)], first_at: Instant) -> Self {
        let entries = order
            .iter()
            .map(|&(tracker, tier)| Entry {
                tracker,
                tier,
                in_flight: None,
                due: first_at,
                not_before: first_at,
                failures: 0,
                knows_us: false,
                owes_completed: false,
                owes_paused: false,
            })
            .collect();
        Self { family, entries }
    }

    pub(super) fn handle_response(&mut self, tracker: TrackerIndex, not_before: Instant, due: Instant) {
        let Some(position) = self.position(tracker) else { return };
        let entry = &mut self.entries[position];
        match entry.in_flight.take() {
            None | Some(AnnounceEvent::Stopped) => return,
            Some(AnnounceEvent::Started) => entry.knows_us = true,
            Some(AnnounceEvent::Completed) => entry.owes_completed = false,
            Some(AnnounceEvent::Paused) => entry.owes_paused = false,
            Some(AnnounceEvent::None) => {}
        }
        (entry.failures, entry.not_before, entry.due) = (0, not_before, due);
        // BEP 12: the tracker that worked is asked first from now on.
        let tier = entry.tier;
        let front = self.entries.partition_point(|entry| entry.tier < tier);
        self.entries[front..=position].rotate_right(1);
    }

    pub(super) fn handle_failure(&mut self, tracker: TrackerIndex, retry_at: Instant) {
        let Some(position) = self.position(tracker) else { return };
        let entry = &mut self.entries[position];
        match entry.in_flight.take() {
            None | Some(AnnounceEvent::Stopped) => return,
            // It never knew us as a leech; the next `started` says that nothing is left.
            Some(AnnounceEvent::Started) => entry.owes_completed = false,
            Some(_) => {}
        }
        entry.failures = entry.failures.saturating_add(1);
        entry.due = retry_at;
    }

    pub(super) fn handle_cancelled(&mut self, tracker: TrackerIndex) {
        if let Some(position) = self.position(tracker) {
            self.entries[position].in_flight = None;
        }
    }

    pub(super) fn completed(&mut self) {
        for entry in &mut self.entries {
            entry.owes_completed |= entry.knows_us || entry.in_flight == Some(AnnounceEvent::Started);
        }
    }

    pub(super) fn paused(&mut self, hears_of_it: impl Fn(TrackerIndex) -> bool) {
        for entry in &mut self.entries {
            entry.owes_paused |= hears_of_it(entry.tracker);
        }
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        for entry in self.entries.iter_mut().filter(|entry| entry.failures == 0 && entry.in_flight.is_none())
        {
            entry.due = entry.due.min(entry.not_before.max(now));
        }
    }

    pub(super) fn poll_announce(&mut self, now: Instant, reach: Reach) -> Option<AnnounceJob> {
        let position = self.current(now, reach).find(|&position| self.entries[position].due() <= now)?;
        Some(self.launch(position))
    }

    pub(super) fn poll_stopped(&mut self) -> Option<AnnounceJob> {
        let ready = |entry: &Entry| entry.knows_us && entry.in_flight.is_none();
        let position = self.entries.iter().position(ready)?;
        let entry = &mut self.entries[position];
        if entry.owes_completed && entry.failures == 0 {
            // Who leaves as soon as everything is there has completed it all the same.
            return Some(self.launch(position));
        }
        entry.knows_us = false;
        entry.in_flight = Some(AnnounceEvent::Stopped);
        let endpoint = Endpoint { tracker: entry.tracker, family: self.family };
        Some(AnnounceJob { endpoint, event: AnnounceEvent::Stopped })
    }

    /// The earliest of: an entry on the way down the ladder ends its back-off, the current one is due.
    pub(super) fn poll_timeout(&self, reach: Reach) -> Option<Instant> {
        let mut earliest = Instant::FAR_FUTURE;
        let mut settled_tier = None;
        for entry in &self.entries {
            if settled_tier.is_some_and(|tier| reach == Reach::FirstWorking || tier == entry.tier) {
                continue;
            }
            if entry.in_flight.is_none() {
                earliest = earliest.min(entry.due());
            }
            if entry.in_flight.is_some() || entry.failures == 0 {
                settled_tier = Some(entry.tier);
            }
        }
        (earliest < Instant::FAR_FUTURE).then_some(earliest)
    }

    pub(super) fn failures(&self, tracker: TrackerIndex) -> u32 {
        self.position(tracker).map_or(0, |position| self.entries[position].failures)
    }

    pub(super) fn has(&self, tracker: TrackerIndex) -> bool {
        self.position(tracker).is_some()
    }

    pub(super) fn family(&self) -> AddressFamily {
        self.family
    }

    pub(super) fn is_idle_and_unknown(&self) -> bool {
        self.entries.iter().all(|entry| entry.in_flight.is_none() && !entry.knows_us)
    }

    /// Positions of the trackers to ask: of all, or of each tier, the first that is not backing off. One that
    /// is being asked already holds its place, so that nobody below is asked meanwhile.
    fn current(&self, now: Instant, reach: Reach) -> impl Iterator<Item = usize> + '_ {
        let mut settled_tier = None;
        self.entries.iter().enumerate().filter_map(move |(position, entry)| {
            let settled = settled_tier.is_some_and(|tier| reach == Reach::FirstWorking || tier == entry.tier);
            if settled || entry.is_backing_off(now) {
                return None;
            }
            settled_tier = Some(entry.tier);
            entry.in_flight.is_none().then_some(position)
        })
    }

    fn launch(&mut self, position: usize) -> AnnounceJob {
        let entry = &mut self.entries[position];
        let event = match (entry.knows_us, entry.owes_completed, entry.owes_paused) {
            (false, ..) => AnnounceEvent::Started,
            (true, true, _) => AnnounceEvent::Completed,
            (true, false, true) => AnnounceEvent::Paused,
            (true, false, false) => AnnounceEvent::None,
        };
        entry.in_flight = Some(event);
        AnnounceJob { endpoint: Endpoint { tracker: entry.tracker, family: self.family }, event }
    }

    fn position(&self, tracker: TrackerIndex) -> Option<usize> {
        self.entries.iter().position(|entry| entry.tracker == tracker)
    }
}

impl Entry {
    /// When it is to be asked, were it the current one. `completed` and the first `paused` do not wait for the interval.
    fn due(&self) -> Instant {
        let tell_now = (self.owes_completed || self.owes_paused) && self.knows_us && self.failures == 0;
        if tell_now { Instant::ZERO } else { self.due }
    }

    fn is_backing_off(&self, now: Instant) -> bool {
        self.failures > 0 && self.in_flight.is_none() && self.due > now
    }
}
