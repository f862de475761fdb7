//! Runs that depend on nothing but their own terms, on all cores at once.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

/// What `run` makes of each job, in the order of the jobs.
pub fn run_all<J: Sync, T: Send>(jobs: &[J], run: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::with_capacity(jobs.len())));
    let work = || {
        loop {
            let place = next.fetch_add(1, Relaxed);
            let Some(job) = jobs.get(place) else { break };
            let made = run(job);
            found.lock().unwrap_or_else(PoisonError::into_inner).push((place, made));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    std::thread::scope(|scope| (0..cores.min(jobs.len())).for_each(|_| drop(scope.spawn(work))));
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by_key(|&(place, _)| place);
    found.into_iter().map(|(_, made)| made).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_stands_in_the_order_of_the_jobs() {
        let jobs: Vec<u64> = (0..100).collect();
        assert!(run_all(&jobs, |job| job * job).into_iter().eq((0..100).map(|job| job * job)));
        assert!(run_all(&[0; 0], |job| *job).is_empty());
    }
}
