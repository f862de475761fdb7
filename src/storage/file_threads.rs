//! Threads that may wait for a file system, so that nobody else has to.
//!
//! What opens, closes, unmaps or looks at files for somebody who must not wait is done here. Any of that may hang with its
//! disk: each file system has a line of its own, and no more than a few threads go into one, so that the others are
//! served. The threads are the process's; they start when there is something to do and end when there has been nothing for a
//! while. Invariant: whatever waits and may begin has a thread that is awake, is waking or starts.
//! Absent: an end. What hangs is left behind when the process ends.

use crate::limits::{FILE_THREADS_MAX, FILE_THREADS_PER_DEVICE_MAX};
use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Time for which a thread waits for the next thing to do.
const THREAD_IDLE_TIME: Duration = Duration::from_secs(10);

/// What is to be done; told false, when there are no threads, only to say so.
pub type Job = Box<dyn FnOnce(bool) + Send>;

static LINES: LazyLock<Arc<Lines>> = LazyLock::new(Arc::default);

/// Does something that may wait for a file system, `device`, and answers exactly once. Never waits.
pub(super) fn run_later(device: u64, job: Job) {
    LINES.add(device, Task::Job(job));
}

/// Drops something, which may wait for a file system, `device`. Never waits; without a thread it is kept until there is one.
pub(super) fn drop_later(device: u64, thing: Box<dyn Any + Send>) {
    LINES.add(device, Task::Drop(thing));
}

enum Task {
    Job(Job),
    Drop(Box<dyn Any + Send>),
}

#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    added: Condvar,
}

#[derive(Default)]
struct State {
    by_device: BTreeMap<u64, Line>,
    threads: usize,
    /// Threads that sleep. One that was woken counts until it is awake, and what it was woken for waits until then.
    idle: usize,
    /// Threads that have been started and have not come to take anything yet.
    starting: usize,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Task>,
    running: usize,
}

impl Lines {
    fn add(self: &Arc<Self>, device: u64, task: Task) {
        let mut state = self.lock();
        state.by_device.entry(device).or_default().waiting.push_back(task);
        if state.due() <= state.idle + state.starting || state.threads >= FILE_THREADS_MAX {
            drop(state);
            self.added.notify_one();
            return;
        }
        let lines = Arc::clone(self);
        let spawned = std::thread::Builder::new().name("files".to_owned()).spawn(move || lines.work());
        match spawned {
            Ok(_) => {
                state.threads += 1;
                state.starting += 1;
            }
            // Those that there are do it when they come to it.
            Err(_) if state.threads > 0 => {}
            Err(error) => {
                tracing::warn!(%error, "files cannot be opened: no thread could be started");
                let refused = state.take_jobs(device);
                drop(state);
                refused.into_iter().for_each(|job| job(false));
            }
        }
    }

    /// A thread's life.
    fn work(&self) {
        let mut state = self.lock();
        state.starting -= 1;
        loop {
            if let Some((device, task)) = state.begin() {
                drop(state);
                // A panic has told of itself; what is counted here has to stay right.
                let _ = catch_unwind(AssertUnwindSafe(|| match task {
                    Task::Job(job) => job(true),
                    Task::Drop(thing) => drop(thing),
                }));
                state = self.lock();
                state.end(device);
                continue;
            }
            state.idle += 1;
            let (again, waited) =
                self.added.wait_timeout(state, THREAD_IDLE_TIME).unwrap_or_else(PoisonError::into_inner);
            state = again;
            state.idle -= 1;
            if waited.timed_out() && state.due() == 0 {
                state.threads -= 1;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// How many of those that wait may begin.
    fn due(&self) -> usize {
        self.waiting.len().min(FILE_THREADS_PER_DEVICE_MAX.saturating_sub(self.running))
    }
}

impl State {
    fn due(&self) -> usize {
        self.by_device.values().map(Line::due).sum()
    }

    fn begin(&mut self) -> Option<(u64, Task)> {
        let (&device, line) = self.by_device.iter_mut().find(|(_, line)| line.due() > 0)?;
        let task = line.waiting.pop_front()?;
        line.running += 1;
        Some((device, task))
    }

    fn end(&mut self, device: u64) {
        if let Some(line) = self.by_device.get_mut(&device) {
            line.running -= 1;
            if line.running == 0 && line.waiting.is_empty() {
                self.by_device.remove(&device);
            }
        }
    }

    /// Takes out what waits for an answer.
    fn take_jobs(&mut self, device: u64) -> Vec<Job> {
        let Some(line) = self.by_device.get_mut(&device) else { return Vec::new() };
        let mut jobs = Vec::new();
        let mut kept = VecDeque::new();
        for task in line.waiting.drain(..) {
            match task {
                Task::Job(job) => jobs.push(job),
                Task::Drop(_) => kept.push_back(task),
            }
        }
        line.waiting = kept;
        jobs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, channel};

    const PATIENCE: Duration = Duration::from_secs(30);

    /// Lines with so many threads that have nothing to do.
    fn with_idle_threads(count: usize) -> Arc<Lines> {
        let lines = Arc::new(Lines::default());
        let (release, released) = channel::<()>();
        let released = Arc::new(Mutex::new(released));
        for device in 0..count as u64 {
            let released = Arc::clone(&released);
            lines.add(1000 + device, Task::Job(Box::new(move |_| _ = released.lock().unwrap().recv())));
        }
        drop(release);
        while lines.lock().idle < count {
            std::thread::yield_now();
        }
        lines
    }

    /// Something that tells when it is done.
    fn telling(lines: &Arc<Lines>, device: u64) -> Receiver<bool> {
        let (sender, done) = channel();
        lines.add(device, Task::Job(Box::new(move |can_run| _ = sender.send(can_run))));
        done
    }

    /// Something that goes on until the answer is dropped.
    fn hanging(lines: &Arc<Lines>, device: u64) -> std::sync::mpsc::Sender<()> {
        let (release, released) = channel::<()>();
        lines.add(device, Task::Job(Box::new(move |_| _ = released.recv())));
        release
    }

    #[test]
    fn a_job_behind_one_that_hangs_does_not_wait_for_a_third() {
        for idle in 0..3 {
            let lines = with_idle_threads(idle);
            let hung = hanging(&lines, 1);
            assert_eq!(telling(&lines, 2).recv_timeout(PATIENCE), Ok(true), "{idle} threads slept");
            drop(hung);
        }
    }

    #[test]
    fn devices_that_hang_delay_no_other_however_much_is_asked_of_them() {
        let lines = with_idle_threads(1);
        let hung: Vec<_> = (0..6).flat_map(|device| (0..20).map(move |_| device)).collect();
        let hung: Vec<_> = hung.into_iter().map(|device| hanging(&lines, device)).collect();
        for round in 0..50 {
            assert_eq!(telling(&lines, 77).recv_timeout(PATIENCE), Ok(true), "{round}");
        }
        assert!(lines.lock().threads <= 6 * FILE_THREADS_PER_DEVICE_MAX + 2, "{}", lines.lock().threads);
        drop(hung);
    }

    #[test]
    fn what_is_dropped_is_dropped_on_another_thread_and_a_panic_ends_no_thread() {
        struct Tells(std::sync::mpsc::Sender<std::thread::ThreadId>);
        impl Drop for Tells {
            fn drop(&mut self) {
                let _ = self.0.send(std::thread::current().id());
            }
        }
        let lines = with_idle_threads(1);
        lines.add(5, Task::Job(Box::new(|_| std::panic::resume_unwind(Box::new(())))));
        let (sender, dropped) = channel();
        lines.add(5, Task::Drop(Box::new(Tells(sender))));
        assert_ne!(dropped.recv_timeout(PATIENCE).unwrap(), std::thread::current().id());
        while lines.lock().by_device.contains_key(&5) {
            std::thread::yield_now();
        }
    }
}
