//! How many requests are under way, in all and to one host, and which hosts are down.
//!
//! Ten thousand torrents may share one tracker. Their announces wait in line here, first for a slot of the
//! host, then for one of the whole client, so that a slow host does not hold the slots of the others. A host
//! that was unreachable many times in a row is down for a while: those in line fail at once and can go on to
//! their next tracker.

use super::TrackerError;
use crate::limits::{TRACKER_HOST_DOWN_TIME, TRACKER_HOST_FAILURES_MAX, TRACKER_HOSTS_MAX};
use crate::secret_url::redacted_host;
use crate::time::Instant;
use crate::tracker_wire::AddressFamily;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The gate of one client.
pub(super) struct Gate {
    total: Arc<Semaphore>,
    per_host: usize,
    hosts: RefCell<BTreeMap<(String, AddressFamily), Rc<Host>>>,
}

struct Host {
    slots: Arc<Semaphore>,
    failures: Cell<u32>,
    down_until: Cell<Instant>,
}

/// The right to one request; given back when dropped.
pub(super) struct Pass {
    host: Rc<Host>,
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Gate {
    pub(super) fn new(total: usize, per_host: usize) -> Self {
        let total = Arc::new(Semaphore::new(total.max(1)));
        Self { total, per_host: per_host.max(1), hosts: RefCell::default() }
    }

    /// Waits in line for `authority`.
    pub(super) async fn enter(&self, authority: String, family: AddressFamily) -> Result<Pass, TrackerError> {
        let host = self.host(&authority, family);
        let own = Arc::clone(&host.slots).acquire_owned().await;
        let total = Arc::clone(&self.total).acquire_owned().await;
        let (Ok(own), Ok(total)) = (own, total) else {
            unreachable!("nobody closes the gate's semaphores");
        };
        if crate::clock::now() < host.down_until.get() {
            return Err(TrackerError::HostDown { host: redacted_host(&authority) });
        }
        Ok(Pass { host, _permits: (own, total) })
    }

    fn host(&self, authority: &str, family: AddressFamily) -> Rc<Host> {
        let mut hosts = self.hosts.borrow_mut();
        if hosts.len() >= TRACKER_HOSTS_MAX {
            let now = crate::clock::now();
            hosts.retain(|_, host| Rc::strong_count(host) > 1 || host.down_until.get() > now);
        }
        let host = hosts.entry((authority.to_owned(), family)).or_insert_with(|| {
            let slots = Arc::new(Semaphore::new(self.per_host));
            Rc::new(Host { slots, failures: Cell::new(0), down_until: Cell::default() })
        });
        Rc::clone(host)
    }
}

impl Pass {
    /// What the request showed about its host.
    pub(super) fn report(&self, reachable: bool) {
        if reachable {
            self.host.failures.set(0);
            self.host.down_until.set(Instant::ZERO);
            return;
        }
        self.host.failures.set(self.host.failures.get().saturating_add(1));
        if self.host.failures.get() >= TRACKER_HOST_FAILURES_MAX {
            self.host.down_until.set(crate::clock::now() + TRACKER_HOST_DOWN_TIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::task::{Context, Poll, Waker};

    const V4: AddressFamily = AddressFamily::V4;

    fn try_enter(gate: &Gate, authority: &str) -> Poll<Result<Pass, TrackerError>> {
        let mut entering = std::pin::pin!(gate.enter(authority.to_owned(), V4));
        entering.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    fn entered(gate: &Gate, authority: &str) -> Pass {
        match try_enter(gate, authority) {
            Poll::Ready(Ok(pass)) => pass,
            _ => panic!("no free slot for {authority}"),
        }
    }

    #[test]
    fn a_slow_host_does_not_hold_the_slots_of_others() {
        let gate = Gate::new(3, 2);
        let slow = [entered(&gate, "slow:1"), entered(&gate, "slow:1")];
        assert!(try_enter(&gate, "slow:1").is_pending());
        let other = entered(&gate, "other:1");
        assert!(try_enter(&gate, "third:1").is_pending(), "three in all");
        drop(slow);
        let _third = entered(&gate, "third:1");
        drop(other);
    }

    #[test]
    fn a_host_that_is_down_is_not_waited_for_until_it_answers() {
        let gate = Gate::new(3, 2);
        let pass = entered(&gate, "dead:1");
        (1..TRACKER_HOST_FAILURES_MAX).for_each(|_| pass.report(false));
        drop(entered(&gate, "dead:1"));
        pass.report(false);
        assert!(matches!(try_enter(&gate, "dead:1"), Poll::Ready(Err(TrackerError::HostDown { .. }))));
        drop(entered(&gate, "other:1"));
        pass.report(true);
        drop(entered(&gate, "dead:1"));
    }

    #[test]
    fn hosts_that_nobody_waits_for_are_forgotten() {
        let gate = Gate::new(3, 2);
        (0..3 * TRACKER_HOSTS_MAX).for_each(|number| drop(entered(&gate, &format!("host:{number}"))));
        assert!(gate.hosts.borrow().len() <= TRACKER_HOSTS_MAX);
    }
}
