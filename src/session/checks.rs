//! Checks of content: one at a time on each device, and those of different devices side by side.
//!
//! A check reads all of a torrent, so that two on one disk would only make its heads run; one whose disk hangs holds up what lies
//! on that disk and nothing else. Threads start when there is something to check, no more of them than
//! [`CHECKING_THREADS_MAX`], and wait for the next when they have done it. Invariant: of one device there is one check under
//! way at most.

use crate::limits::CHECKING_THREADS_MAX;
use crate::time::Duration;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A check; it tells its pulse of whatever it has read.
pub type Check = Box<dyn FnOnce(&Pulse) + Send>;

/// Tells a check that goes on from one that hangs.
#[derive(Clone, Debug, Default)]
pub struct Pulse(Arc<AtomicU64>);

impl Pulse {
    /// Something was read.
    pub fn beat(&self) {
        // Relaxed: only whether it moves is asked.
        self.0.fetch_add(1, Relaxed);
    }
}

/// What checks content; shared by whoever has something to check.
#[derive(Clone)]
pub struct Checks(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By device.
    waiting: BTreeMap<u64, VecDeque<(String, Check)>>,
    under_way: BTreeMap<u64, UnderWay>,
    threads: usize,
    idle: usize,
    /// Checks begun, and with that the number of each.
    begun: u64,
    ends: bool,
}

struct UnderWay {
    name: String,
    number: u64,
    pulse: Pulse,
}

impl Checks {
    /// With one thread; others come when they are needed.
    ///
    /// # Errors
    /// There is no thread.
    pub fn start() -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        shared.lock().threads = 1;
        spawn(&shared)?;
        Ok(Self(shared))
    }

    /// Checks something of that name on that device, in its turn. Never waits.
    pub fn check_later(&self, device: u64, name: String, check: Check) {
        let mut state = self.0.lock();
        state.waiting.entry(device).or_default().push_back((name, check));
        let free = state.waiting.keys().filter(|device| !state.under_way.contains_key(device)).count();
        if free > state.idle && state.threads < CHECKING_THREADS_MAX && spawn(&self.0).is_ok() {
            // What cannot be started is done by those that could.
            state.threads += 1;
        }
        drop(state);
        self.0.changed.notify_all();
    }

    /// Waits until nothing is left to check, or all checks under way have read nothing for so long, and answers the
    /// names of those and of what waits for them.
    pub fn settle(&self, patience: Duration) -> Vec<String> {
        let mut state = self.0.lock();
        loop {
            let before = state.seen();
            if state.ends || before == (Vec::new(), 0) {
                return Vec::new();
            }
            let (after, waited) =
                self.0.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if waited.timed_out() && state.seen() == before {
                let waiting = state.waiting.values().flatten().map(|(name, _)| name);
                return state.under_way.values().map(|it| &it.name).chain(waiting).cloned().collect();
            }
        }
    }

    /// Begins nothing more, and waits for the checks under way as long as they go on; those that have read nothing for so long
    /// are left behind, and their names answered. They were told to break off before.
    pub fn leave(&self, patience: Duration) -> Vec<String> {
        let mut state = self.0.lock();
        state.ends = true;
        state.waiting.clear();
        self.0.changed.notify_all();
        loop {
            let before = state.seen();
            if before.0.is_empty() {
                return Vec::new();
            }
            let (after, waited) =
                self.0.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = after;
            if waited.timed_out() && state.seen() == before {
                return state.under_way.values().map(|it| it.name.clone()).collect();
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What moves as long as anything does: the checks under way with their pulses, and how many wait.
    fn seen(&self) -> (Vec<(u64, u64)>, usize) {
        let pulses = self.under_way.values().map(|it| (it.number, it.pulse.0.load(Relaxed)));
        (pulses.collect(), self.waiting.values().map(VecDeque::len).sum())
    }

    /// The next check of a device that is free.
    fn next(&mut self) -> Option<(u64, Pulse, Check)> {
        let under_way = &self.under_way;
        let device = *self.waiting.keys().find(|device| !under_way.contains_key(device))?;
        let queue = self.waiting.get_mut(&device)?;
        let (name, check) = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&device);
        }
        self.begun += 1;
        let pulse = Pulse::default();
        self.under_way.insert(device, UnderWay { name, number: self.begun, pulse: pulse.clone() });
        Some((device, pulse, check))
    }
}

fn spawn(shared: &Arc<Shared>) -> io::Result<()> {
    let shared = Arc::clone(shared);
    std::thread::Builder::new().name("checker".to_owned()).spawn(move || run(&shared)).map(drop)
}

fn run(shared: &Shared) {
    let mut state = shared.lock();
    while !state.ends {
        if let Some((device, pulse, check)) = state.next() {
            drop(state);
            // What it panicked with stands on stderr; it takes no other check with it.
            let _ = catch_unwind(AssertUnwindSafe(|| check(&pulse)));
            state = shared.lock();
            state.under_way.remove(&device);
            shared.changed.notify_all();
        } else {
            state.idle += 1;
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// A check that hangs until it is told to go on, and says when it begins.
    fn hanging(begun: &Sender<u64>, number: u64) -> (Check, Sender<()>) {
        let (begun, (go_on, told)) = (begun.clone(), channel());
        let check = move |_: &Pulse| {
            begun.send(number).unwrap();
            let _ = Receiver::<()>::recv(&told);
        };
        (Box::new(check), go_on)
    }

    const SOON: Duration = Duration::from_millis(1);

    #[test]
    fn a_check_that_hangs_holds_up_those_of_its_device_and_no_others() {
        let checks = Checks::start().unwrap();
        let (begun, begins) = channel();
        let (check, go_on) = hanging(&begun, 0);
        checks.check_later(7, "hangs".to_owned(), check);
        assert_eq!(begins.recv(), Ok(0));
        for number in 1..4 {
            let begun = begun.clone();
            let check = move |_: &Pulse| begun.send(number).unwrap();
            checks.check_later(if number == 1 { 7 } else { 8 }, format!("of {number}"), Box::new(check));
        }
        assert_eq!((begins.recv(), begins.recv()), (Ok(2), Ok(3)));
        assert_eq!(checks.settle(SOON), ["hangs", "of 1"]);
        go_on.send(()).unwrap();
        assert_eq!(begins.recv(), Ok(1));
        assert_eq!(checks.settle(Duration::from_secs(60)), [""; 0]);
    }

    #[test]
    fn threads_are_bounded_and_what_hangs_is_left_behind_by_name() {
        let checks = Checks::start().unwrap();
        let (begun, begins) = channel();
        let mut held = Vec::new();
        for device in 0..2 * CHECKING_THREADS_MAX as u64 {
            let (check, go_on) = hanging(&begun, device);
            checks.check_later(device, format!("{device}"), check);
            held.push(go_on);
        }
        for _ in 0..CHECKING_THREADS_MAX {
            begins.recv().unwrap();
        }
        assert_eq!(checks.0.lock().threads, CHECKING_THREADS_MAX);
        assert_eq!(checks.settle(SOON).len(), held.len());
        assert_eq!(checks.leave(SOON).len(), CHECKING_THREADS_MAX);
        drop(held);
        assert!(begins.try_recv().is_err(), "nothing more is begun");
    }

    #[test]
    fn a_check_that_panics_frees_its_device() {
        let checks = Checks::start().unwrap();
        let (begun, begins) = channel();
        checks.check_later(1, "ends early".to_owned(), Box::new(|_| panic!("as the test wants")));
        checks.check_later(1, "is next".to_owned(), Box::new(move |_| begun.send(()).unwrap()));
        assert_eq!(begins.recv(), Ok(()));
    }
}
