//! When to tell which tracker what: the announce schedule of one torrent.
//!
//! Source: BEP 12 (tiers), BEP 3 (events, `interval`), BEP 31 (`retry in`), BEP 7 (both address families).
//! Each address family climbs its own ladder over the same trackers, because a tracker that is reachable by
//! IPv4 alone says nothing of the IPv6 half of a swarm. Within a ladder the first tracker that is not backing
//! off is the current one; only when it fails the next is asked, and a tier is left only when all of it failed.
//! Trackers that the user names beside those of the torrent have ladders of their own, of one rung each: they are
//! asked whatever the torrent's trackers answer, and these whatever they answer.
//!
//! Invariants: one announce in flight per tracker and family; the first thing a tracker hears is `started`;
//! `stopped` goes once, and only to trackers that answered a `started`.
//!
//! Drain contract: after each call poll [`Announcer::poll_announce`] until it gives `None`, then wait until
//! [`Announcer::poll_timeout`]. Deliberately absent: addresses, sockets, requests, scrapes.

mod ladder;
#[cfg(test)]
mod tests;

use crate::limits;
use crate::rng::Rng;
use crate::secret_url::TrackerUrl;
use crate::time::{Duration, Instant};
use crate::tracker_wire::{AddressFamily, AnnounceEvent};
use ladder::Ladder;

/// A tracker of one torrent, numbered in the order in which [`Announcer::new`] was given the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrackerIndex(pub u16);

/// One schedule entry: a tracker as reached over one address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The tracker.
    pub tracker: TrackerIndex,
    /// The family to reach it by: a tracker learns our address from the packet (BEP 7).
    pub family: AddressFamily,
}

/// An announce that is due now. Answer it with exactly one of the `handle_*` calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceJob {
    /// Whom to tell.
    pub endpoint: Endpoint,
    /// What to tell.
    pub event: AnnounceEvent,
}

/// What a tracker asked of our schedule in a good response. Any value is taken; the schedule clamps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `interval`: time between regular announces.
    pub interval: Duration,
    /// `min interval`: time below which even a client in need of peers stays silent.
    pub interval_min: Option<Duration>,
}

/// Why an announce gave nothing, as far as the schedule cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No answer, or a bad one: try again later, with growing patience.
    Passing,
    /// The tracker named the time after which to try again (BEP 31).
    RetryIn(Duration),
    /// The tracker has no address of this family: look again after the longest patience.
    NoAddress,
    /// It will never work: unknown scheme, or the tracker said `never` (BEP 31).
    Lasting,
}

/// How much of the tracker list is announced to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// The first working tracker of the first working tier (BEP 12).
    #[default]
    FirstWorking,
    /// The first working tracker of every tier, as seed-box users expect.
    EveryTier,
}

/// The schedule's knobs. The defaults suit the public network; tests choose shorter times.
#[derive(Clone, Debug)]
pub struct AnnouncerConfig {
    /// Shortest time between regular announces to one tracker, whatever it asks for. Default 60 s.
    pub interval_min: Duration,
    /// Longest time between regular announces, whatever the tracker asks for. Default 2 h.
    pub interval_max: Duration,
    /// Patience after the first failure; doubles with each. Default 15 s.
    pub retry_min: Duration,
    /// Longest patience, before a quarter of jitter. Default 30 min.
    pub retry_max: Duration,
    /// Part of the interval by which a regular announce may come late, in percent. Default 0; with many torrents more, so
    /// that they drift apart.
    pub jitter_percent: u32,
    /// How much of the list is announced to.
    pub reach: Reach,
    /// The families announced by. Default both.
    pub families: Vec<AddressFamily>,
}

impl Default for AnnouncerConfig {
    fn default() -> Self {
        Self {
            interval_min: limits::ANNOUNCE_INTERVAL_MIN,
            interval_max: limits::ANNOUNCE_INTERVAL_MAX,
            retry_min: limits::ANNOUNCE_RETRY_MIN,
            retry_max: limits::ANNOUNCE_RETRY_MAX,
            jitter_percent: 0,
            reach: Reach::FirstWorking,
            families: vec![AddressFamily::V4, AddressFamily::V6],
        }
    }
}

/// The announce schedule of one torrent. See the module for the drain contract.
#[derive(Clone, Debug)]
pub struct Announcer {
    urls: Vec<TrackerUrl>,
    ladders: Vec<Ladder>,
    config: AnnouncerConfig,
    rng: Rng,
    stopping: bool,
}

impl Announcer {
    /// A schedule over `tiers` whose first announce is due at `first_at`: the caller adds jitter there, so
    /// that many torrents do not announce at once. Repeated addresses count once, and those beyond
    /// [`limits::TRACKERS_PER_TORRENT_MAX`] are ignored.
    pub fn new(tiers: &[Vec<TrackerUrl>], config: AnnouncerConfig, first_at: Instant, rng: &mut Rng) -> Self {
        Self::beside(&[], tiers, config, first_at, rng)
    }

    /// The same, and each of `others` is announced to as well, whatever becomes of all the rest. They count first
    /// against the bound, and one that stands in `tiers`, too, is asked as one of `others`.
    pub fn beside(
        others: &[TrackerUrl],
        tiers: &[Vec<TrackerUrl>],
        config: AnnouncerConfig,
        first_at: Instant,
        rng: &mut Rng,
    ) -> Self {
        let mut urls: Vec<TrackerUrl> = Vec::new();
        let mut enter = |url: &TrackerUrl| {
            let index = urls.len();
            (index < limits::TRACKERS_PER_TORRENT_MAX && !urls.contains(url)).then(|| {
                urls.push(url.clone());
                TrackerIndex(index as u16)
            })
        };
        let mut orders: Vec<Vec<(TrackerIndex, u32)>> =
            others.iter().filter_map(|url| Some(vec![(enter(url)?, 0)])).collect();
        let mut order = Vec::new();
        for (tier, members) in (0..).zip(tiers) {
            let start = order.len();
            order.extend(members.iter().filter_map(|url| Some((enter(url)?, tier))));
            rng.shuffle(&mut order[start..]);
        }
        orders.push(order);
        let ladders_of = |&family: &AddressFamily| {
            orders.iter().map(move |order| Ladder::new(family, order, first_at)).collect::<Vec<_>>()
        };
        let ladders = config.families.iter().flat_map(ladders_of).collect();
        let rng = Rng::from_seed(rng.next_u64());
        Self { urls, ladders, config, rng, stopping: false }
    }

    /// The tracker answered well. Answers nobody waits for are ignored.
    pub fn handle_response(&mut self, now: Instant, endpoint: Endpoint, terms: Terms) {
        let (low, high) = (self.config.interval_min, self.config.interval_max.max(self.config.interval_min));
        let regular = terms.interval.clamp(low, high);
        let pause = terms.interval_min.map_or(regular, |pause| pause.clamp(low, high));
        let due = regular.max(pause);
        let late_max = due.as_nanos() * u128::from(self.config.jitter_percent) / 100;
        let late = self.rng.below(u64::try_from(late_max).unwrap_or(u64::MAX).saturating_add(1));
        if let Some(ladder) = self.ladder(endpoint) {
            ladder.handle_response(endpoint.tracker, now + pause, now + due + Duration::from_nanos(late));
        }
    }

    /// The tracker did not answer, or refused.
    pub fn handle_failure(&mut self, now: Instant, endpoint: Endpoint, failure: Failure, rng: &mut Rng) {
        let (low, high) = (self.config.retry_min, self.config.retry_max.max(self.config.retry_min));
        let Some(ladder) = self.ladder(endpoint) else { return };
        let patience = match failure {
            Failure::Passing => {
                let doublings = ladder.failures(endpoint.tracker).min(16);
                let patience = low.saturating_mul(1 << doublings).min(high);
                let jitter_nanos = u64::try_from(patience.as_nanos() / 4).unwrap_or(u64::MAX);
                Some(patience + Duration::from_nanos(rng.below(jitter_nanos)))
            }
            Failure::RetryIn(patience) => Some(patience.clamp(low, limits::ANNOUNCE_RETRY_IN_MAX.max(low))),
            Failure::NoAddress => Some(high),
            Failure::Lasting => None,
        };
        ladder.handle_failure(
            endpoint.tracker,
            patience.map_or(Instant::FAR_FUTURE, |patience| now + patience),
        );
    }

    /// The announce was given up before it left this machine; the tracker is not to blame.
    pub fn handle_cancelled(&mut self, endpoint: Endpoint) {
        if let Some(ladder) = self.ladder(endpoint) {
            ladder.handle_cancelled(endpoint.tracker);
        }
    }

    /// The torrent is complete: trackers that know us as a leech are told at once. A torrent that was complete
    /// from the start never calls this (BEP 3).
    pub fn completed(&mut self) {
        self.ladders.iter_mut().for_each(Ladder::completed);
    }

    /// The torrent wants nothing more although pieces are missing, from the start or from now on: HTTP trackers are told
    /// once, at once, since they count us as a leech until then (BEP 21). UDP has no word for it.
    pub fn paused(&mut self) {
        let urls = &self.urls;
        let hears_of_it = |tracker: TrackerIndex| {
            urls.get(usize::from(tracker.0)).is_some_and(|url| {
                !url.reveal().get(..4).is_some_and(|scheme| scheme.eq_ignore_ascii_case("udp:"))
            })
        };
        self.ladders.iter_mut().for_each(|ladder| ladder.paused(hears_of_it));
    }

    /// Peers are wanted before the next regular announce: announces as early as the trackers' `min interval`
    /// allows.
    pub fn hurry(&mut self, now: Instant) {
        self.ladders.iter_mut().for_each(|ladder| ladder.hurry(now));
    }

    /// The torrent leaves the swarm. From now on only `stopped` is announced, once, to trackers that know us, after the
    /// `completed` that they are owed;
    /// a `started` still in flight is followed by its `stopped` when it is answered.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// The next announce that is due, if any.
    pub fn poll_announce(&mut self, now: Instant) -> Option<AnnounceJob> {
        let (stopping, reach) = (self.stopping, self.config.reach);
        self.ladders.iter_mut().find_map(|ladder| {
            if stopping { ladder.poll_stopped() } else { ladder.poll_announce(now, reach) }
        })
    }

    /// When to poll again if nothing happens before; `None` to wait for an answer or a command only.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.stopping {
            return None;
        }
        let reach = self.config.reach;
        self.ladders.iter().filter_map(|ladder| ladder.poll_timeout(reach)).min()
    }

    /// The address of `tracker`; `None` for an index of another torrent.
    pub fn url(&self, tracker: TrackerIndex) -> Option<&TrackerUrl> {
        self.urls.get(usize::from(tracker.0))
    }

    /// Whether [`stop`](Self::stop) was called and nothing is left to tell or to wait for.
    pub fn is_stopped(&self) -> bool {
        self.stopping && self.ladders.iter().all(Ladder::is_idle_and_unknown)
    }

    fn ladder(&mut self, endpoint: Endpoint) -> Option<&mut Ladder> {
        let Endpoint { tracker, family } = endpoint;
        self.ladders.iter_mut().find(|ladder| ladder.family() == family && ladder.has(tracker))
    }
}
