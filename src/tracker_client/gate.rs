//! How many requests are under way, in all and to one host, and which hosts are down.
//!
//! Ten thousand torrents may share one tracker. Their announces wait in line here, first for a place of the host, then for
//! one of the whole client's passes. A pass is for the start of an exchange: whoever is not answered promptly gives it
//! back and waits without one, so that silent hosts hold no passes. Who waits so is bounded, too; above the bound the one
//! that has waited longest is given up.
//!
//! A host that has not answered yet gets one request, and the others once it has answered. One that stays silent for a
//! whole exchange at first, or that was unreachable many times in a row, is down for a while: those in line fail at once
//! and can go on to their next tracker. After that one request goes ahead to see, and nobody waits for it.

use super::TrackerError;
use crate::clock;
use crate::limits::{
    TRACKER_HOST_DOWN_TIME, TRACKER_HOST_FAILURES_MAX, TRACKER_HOSTS_MAX, TRACKER_PROMPT_TIME,
    TRACKER_SILENT_MAX,
};
use crate::secret_url::redacted_host;
use crate::time::Instant;
use crate::tracker_wire::AddressFamily;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

/// The gate of one client.
pub(super) struct Gate {
    passes: Arc<Semaphore>,
    per_host: usize,
    silent_max: usize,
    /// Those that wait without a pass, the oldest first; told when they are given up.
    silent: RefCell<BTreeMap<u64, oneshot::Sender<()>>>,
    serial: Cell<u64>,
    hosts: RefCell<BTreeMap<(String, AddressFamily), Rc<Host>>>,
}

struct Host {
    health: RefCell<Health>,
    per_host: usize,
    in_flight: Cell<usize>,
    in_line: Cell<usize>,
    line: Notify,
}

/// What is known of a host, without its requests.
#[derive(Clone, Copy, Debug, Default)]
struct Health {
    /// It has answered since it was last down.
    is_proven: bool,
    /// In a row.
    failures: u32,
    down_until: Instant,
}

/// What a request showed about its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered something.
    Alive,
    /// It could not be reached.
    Unreachable,
    /// Nothing came for a whole exchange.
    Silent,
    /// Nothing.
    Unknown,
}

/// The right to one request; given back when dropped.
pub(super) struct Pass {
    place: Place,
    permit: Cell<Option<OwnedSemaphorePermit>>,
}

/// One request in flight to a host.
struct Place(Rc<Host>);

impl Gate {
    pub(super) fn new(passes: usize, per_host: usize) -> Self {
        Self {
            passes: Arc::new(Semaphore::new(passes.max(1))),
            per_host: per_host.max(1),
            silent_max: TRACKER_SILENT_MAX,
            silent: RefCell::default(),
            serial: Cell::new(0),
            hosts: RefCell::default(),
        }
    }

    /// Waits in line for `authority`.
    pub(super) async fn enter(&self, authority: String, family: AddressFamily) -> Result<Pass, TrackerError> {
        let host = self.host(&authority, family);
        let Some(place) = Place::take(host).await else {
            return Err(TrackerError::HostDown { host: redacted_host(&authority) });
        };
        let Ok(permit) = Arc::clone(&self.passes).acquire_owned().await else {
            unreachable!("nobody closes the gate's semaphore");
        };
        if place.0.health.borrow().is_down(clock::now()) {
            return Err(TrackerError::HostDown { host: redacted_host(&authority) });
        }
        Ok(Pass { place, permit: Cell::new(Some(permit)) })
    }

    /// Carries `exchange` to its end. Its pass is given back when the end does not come promptly.
    pub(super) async fn carry<T>(
        &self,
        pass: &Pass,
        exchange: impl Future<Output = Result<T, TrackerError>>,
    ) -> Result<T, TrackerError> {
        let mut exchange = pin!(exchange);
        if let Ok(done) = timeout(TRACKER_PROMPT_TIME, exchange.as_mut()).await {
            return done;
        }
        let since = clock::now();
        let (waiting, given_up) = self.wait_without_pass();
        pass.permit.take();
        tokio::select! {
            biased;
            done = exchange => done,
            _ = given_up => {
                drop(waiting);
                Err(TrackerError::Outwaited(TRACKER_PROMPT_TIME + clock::now().since(since)))
            }
        }
    }

    fn wait_without_pass(&self) -> (Waiting<'_>, oneshot::Receiver<()>) {
        let mut silent = self.silent.borrow_mut();
        if silent.len() >= self.silent_max
            && let Some((_, oldest)) = silent.pop_first()
        {
            let _ = oldest.send(());
        }
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        let (give_up, given_up) = oneshot::channel();
        silent.insert(serial, give_up);
        (Waiting { gate: self, serial }, given_up)
    }

    fn host(&self, authority: &str, family: AddressFamily) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if hosts.len() >= TRACKER_HOSTS_MAX {
            let now = clock::now();
            hosts.retain(|_, host| Rc::strong_count(host) > 1 || host.health.borrow().is_down(now));
        }
        let host = hosts.entry((authority.to_owned(), family)).or_insert_with(|| {
            Rc::new(Host {
                health: RefCell::default(),
                per_host: self.per_host,
                in_flight: Cell::new(0),
                in_line: Cell::new(0),
                line: Notify::new(),
            })
        });
        Rc::clone(host)
    }
}

/// One that waits without a pass; out of the list when dropped.
struct Waiting<'a> {
    gate: &'a Gate,
    serial: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.gate.silent.borrow_mut().remove(&self.serial);
    }
}

impl Pass {
    /// What the request showed about its host.
    pub(super) fn report(&self, verdict: Verdict) {
        let host = &self.place.0;
        let is_down = {
            let mut health = host.health.borrow_mut();
            health.learn(clock::now(), verdict);
            health.is_doubtful()
        };
        if is_down {
            host.line.notify_waiters();
        } else {
            host.line.notify_one();
        }
    }
}

impl Place {
    /// The next place of `host`, first come, first served; `None` when the host is down.
    async fn take(host: Rc<Host>) -> Option<Self> {
        if host.in_line.get() > 0 || !host.has_room() {
            let _in_line = InLine::join(&host);
            while !host.has_room() {
                if host.health.borrow().is_doubtful() {
                    return None;
                }
                host.line.notified().await;
            }
        }
        host.in_flight.set(host.in_flight.get() + 1);
        let place = Self(host);
        if place.0.has_room() {
            // Several places may have become free together.
            place.0.line.notify_one();
        }
        Some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.in_flight.set(self.0.in_flight.get() - 1);
        self.0.line.notify_one();
    }
}

/// Somebody who waits for a place.
struct InLine<'a>(&'a Host);

impl<'a> InLine<'a> {
    fn join(host: &'a Host) -> Self {
        host.in_line.set(host.in_line.get() + 1);
        Self(host)
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.in_line.set(self.0.in_line.get() - 1);
    }
}

impl Host {
    fn has_room(&self) -> bool {
        let most = if self.health.borrow().is_proven { self.per_host } else { 1 };
        self.in_flight.get() < most
    }
}

impl Health {
    fn is_down(&self, now: Instant) -> bool {
        now < self.down_until
    }

    /// It was down and has not answered since.
    fn is_doubtful(&self) -> bool {
        self.failures >= TRACKER_HOST_FAILURES_MAX
    }

    fn learn(&mut self, now: Instant, verdict: Verdict) {
        match verdict {
            Verdict::Alive => *self = Self { is_proven: true, ..Self::default() },
            Verdict::Unknown => {}
            Verdict::Silent if !self.is_proven => self.go_down(now),
            Verdict::Silent | Verdict::Unreachable => {
                self.failures = self.failures.saturating_add(1);
                if self.is_doubtful() {
                    self.go_down(now);
                }
            }
        }
    }

    fn go_down(&mut self, now: Instant) {
        let down_until = now + TRACKER_HOST_DOWN_TIME;
        *self = Self { is_proven: false, failures: TRACKER_HOST_FAILURES_MAX, down_until };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use std::task::{Context, Poll, Waker};

    const V4: AddressFamily = AddressFamily::V4;
    /// How long an exchange with a silent UDP tracker lasts.
    const SILENCE: Duration = Duration::from_secs(15 + 30 + 60);

    fn try_enter(gate: &Gate, authority: &str) -> Poll<Result<Pass, TrackerError>> {
        let mut entering = pin!(gate.enter(authority.to_owned(), V4));
        entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn entered(gate: &Gate, authority: &str) -> Pass {
        match try_enter(gate, authority) {
            Poll::Ready(Ok(pass)) => pass,
            _ => panic!("no free place for {authority}"),
        }
    }

    fn proven(gate: &Gate, authority: &str) {
        entered(gate, authority).report(Verdict::Alive);
    }

    fn is_down(gate: &Gate, authority: &str) -> bool {
        matches!(try_enter(gate, authority), Poll::Ready(Err(TrackerError::HostDown { .. })))
    }

    #[test]
    fn a_slow_host_does_not_hold_the_places_of_others() {
        let gate = Gate::new(3, 2);
        ["slow:1", "other:1", "third:1"].iter().for_each(|host| proven(&gate, host));
        let slow = [entered(&gate, "slow:1"), entered(&gate, "slow:1")];
        assert!(try_enter(&gate, "slow:1").is_pending());
        let other = entered(&gate, "other:1");
        assert!(try_enter(&gate, "third:1").is_pending(), "three in all");
        drop(slow);
        let _third = entered(&gate, "third:1");
        drop(other);
    }

    #[test]
    fn a_host_that_has_not_answered_yet_gets_one_request() {
        let gate = Gate::new(10, 3);
        let first = entered(&gate, "new:1");
        assert!(try_enter(&gate, "new:1").is_pending());
        first.report(Verdict::Alive);
        let _others = [entered(&gate, "new:1"), entered(&gate, "new:1")];
        assert!(try_enter(&gate, "new:1").is_pending(), "three to one host");
    }

    #[test]
    fn a_host_that_is_down_is_not_waited_for_until_it_answers() {
        let gate = Gate::new(3, 2);
        let pass = entered(&gate, "dead:1");
        (1..TRACKER_HOST_FAILURES_MAX).for_each(|_| pass.report(Verdict::Unreachable));
        assert!(try_enter(&gate, "dead:1").is_pending(), "it may have been chance");
        pass.report(Verdict::Unreachable);
        assert!(is_down(&gate, "dead:1"));
        drop(entered(&gate, "other:1"));
        pass.report(Verdict::Alive);
        drop(entered(&gate, "dead:1"));
    }

    #[test]
    fn one_request_goes_ahead_when_the_down_time_ends_and_nobody_waits_for_it() {
        let gate = Gate::new(50, 8);
        entered(&gate, "dead:1").report(Verdict::Silent);
        assert!(is_down(&gate, "dead:1"));
        let host = gate.host("dead:1", V4);
        host.health.borrow_mut().down_until = Instant::ZERO;
        let ahead = entered(&gate, "dead:1");
        assert!((0..20).all(|_| is_down(&gate, "dead:1")));
        ahead.report(Verdict::Alive);
        let all: Vec<Pass> = (0..7).map(|_| entered(&gate, "dead:1")).collect();
        assert!(try_enter(&gate, "dead:1").is_pending());
        drop((ahead, all));
    }

    #[test]
    fn a_proven_host_may_be_silent_now_and_then() {
        let mut health = Health::default();
        health.learn(Instant::ZERO, Verdict::Alive);
        for _ in 1..TRACKER_HOST_FAILURES_MAX {
            health.learn(Instant::ZERO, Verdict::Silent);
            health.learn(Instant::ZERO, Verdict::Unknown);
            assert!(!health.is_doubtful());
        }
        health.learn(Instant::ZERO, Verdict::Silent);
        assert!(health.is_doubtful() && health.is_down(Instant::ZERO));
        assert!(!health.is_down(Instant::ZERO + TRACKER_HOST_DOWN_TIME));
    }

    #[test]
    fn hosts_that_nobody_waits_for_are_forgotten() {
        let gate = Gate::new(3, 2);
        (0..3 * TRACKER_HOSTS_MAX).for_each(|number| drop(entered(&gate, &format!("host:{number}"))));
        assert!(gate.hosts.borrow().len() <= TRACKER_HOSTS_MAX);
    }

    /// One announce: nothing for a long time, or an answer at once. Returns when it came to its end, in simulated time.
    async fn announce(gate: Rc<Gate>, authority: &'static str) -> Option<tokio::time::Instant> {
        let pass = gate.enter(authority.to_owned(), V4).await.ok()?;
        let is_silent = authority.starts_with("silent");
        let answer = gate.carry(&pass, async {
            if is_silent {
                tokio::time::sleep(SILENCE).await;
                return Err(TrackerError::Timeout(SILENCE));
            }
            Ok(())
        });
        let answer = answer.await;
        pass.report(answer.as_ref().err().map_or(Verdict::Alive, TrackerError::verdict));
        answer.ok().map(|()| tokio::time::Instant::now())
    }

    const SILENT: [&str; 7] =
        ["silent:1", "silent:2", "silent:3", "silent:4", "silent:5", "silent:6", "silent:7"];

    /// A hundred torrents with seven silent trackers and a good one, the good one asked last.
    async fn answers_of_the_good_one(gate: Rc<Gate>) -> Vec<Duration> {
        let begin = tokio::time::Instant::now();
        let (mut silent, mut good) = (tokio::task::JoinSet::new(), tokio::task::JoinSet::new());
        for authority in SILENT.iter().flat_map(|&authority| [authority; 100]) {
            silent.spawn_local(announce(Rc::clone(&gate), authority));
        }
        for _ in 0..100 {
            good.spawn_local(announce(Rc::clone(&gate), "good:1"));
        }
        let answers = good.join_all().await;
        assert!(!silent.is_empty(), "the silent ones are still waited for");
        answers.into_iter().map(|at| at.expect("the good one answers") - begin).collect()
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn silent_hosts_do_not_keep_a_good_one_waiting() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let gate = Rc::new(Gate::new(50, 8));
                let answers = answers_of_the_good_one(Rc::clone(&gate)).await;
                assert!(answers.iter().all(|&after| after < Duration::from_secs(2)), "{answers:?}");
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn hosts_that_fall_silent_do_not_keep_a_good_one_waiting_either() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let gate = Rc::new(Gate::new(50, 8));
                SILENT.iter().for_each(|host| proven(&gate, host));
                let answers = answers_of_the_good_one(Rc::clone(&gate)).await;
                assert!(answers.iter().all(|&after| after < Duration::from_secs(3)), "{answers:?}");
            })
            .await;
    }

    #[tokio::test(flavor = "current_thread", start_paused = true)]
    async fn who_has_waited_longest_is_given_up_when_too_many_wait() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let gate = Rc::new(Gate { silent_max: 2, ..Gate::new(2, 8) });
                let mut waiting = Vec::new();
                for authority in &SILENT[..4] {
                    let gate = Rc::clone(&gate);
                    waiting.push(tokio::task::spawn_local(async move {
                        let pass = gate.enter((*authority).to_owned(), V4).await?;
                        gate.carry(&pass, std::future::pending::<Result<(), TrackerError>>()).await
                    }));
                    tokio::time::sleep(TRACKER_PROMPT_TIME / 4).await;
                }
                for given_up in waiting.drain(..2) {
                    let outcome = given_up.await.expect("it does not panic");
                    assert!(matches!(outcome, Err(TrackerError::Outwaited(_))), "{outcome:?}");
                }
                assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
                assert_eq!(gate.silent.borrow().len(), 2);
                waiting.iter().for_each(tokio::task::JoinHandle::abort);
                while !gate.silent.borrow().is_empty() {
                    tokio::task::yield_now().await;
                }
            })
            .await;
    }
}
