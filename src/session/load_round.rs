//! Who loads which torrent next, so that a file system that hangs holds up only the torrents that lie on it.
//!
//! Pure: it is told when a worker enters a place (a file system) and when it comes back, and says which places are silent. Torrents
//! of a silent place are put aside until a worker comes back from there. A worker in a silent place does not count, so another
//! one may be started in its stead. Deliberately absent: any file system, any thread, any clock.

use crate::limits::SILENCE_TIME;
use crate::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

/// Torrents that are to be loaded, by number.
#[derive(Debug, Default)]
pub struct LoadRound {
    to_do: VecDeque<usize>,
    /// Of silent places.
    aside: BTreeMap<PathBuf, Vec<usize>>,
    /// What each worker is at.
    workers: BTreeMap<usize, Work>,
    /// Places that were told to be silent.
    told: BTreeSet<PathBuf>,
}

#[derive(Debug)]
enum Work {
    /// Somewhere that does not hang.
    Here,
    In {
        place: PathBuf,
        since: Instant,
        is_silent: bool,
    },
}

impl LoadRound {
    /// So many torrents, numbered from 0.
    pub fn new(count: usize) -> Self {
        Self { to_do: (0..count).collect(), ..Self::default() }
    }

    /// There is a worker more.
    pub fn begin(&mut self, worker: usize) {
        self.workers.insert(worker, Work::Here);
    }

    /// There is a worker less.
    pub fn end(&mut self, worker: usize) {
        self.workers.remove(&worker);
    }

    /// The next torrent for a worker; it ends when there is none.
    pub fn take(&mut self, worker: usize) -> Option<usize> {
        match self.to_do.pop_front() {
            Some(torrent) => {
                self.workers.insert(worker, Work::Here);
                Some(torrent)
            }
            None => {
                self.workers.remove(&worker);
                None
            }
        }
    }

    /// A worker wants to go to a place for a torrent. False when that is silent: then the torrent is put aside.
    pub fn enter(&mut self, now: Instant, worker: usize, place: &Path, torrent: usize) -> bool {
        self.leave(worker);
        if let Some(aside) = self.aside.get_mut(place) {
            aside.push(torrent);
            return false;
        }
        let work = Work::In { place: place.to_owned(), since: now, is_silent: false };
        self.workers.insert(worker, work);
        true
    }

    /// A worker has come back from where it was. What was put aside for that place is loaded after all.
    pub fn leave(&mut self, worker: usize) {
        let Some(Work::In { place, is_silent: true, .. }) = self.workers.insert(worker, Work::Here) else {
            return;
        };
        self.to_do.extend(self.aside.remove(&place).unwrap_or_default());
    }

    /// Places from which somebody should have been back by now, each once.
    pub fn poll_silent(&mut self, now: Instant) -> Vec<PathBuf> {
        let mut news = Vec::new();
        for work in self.workers.values_mut() {
            let Work::In { place, since, is_silent } = work else { continue };
            if *is_silent || now.since(*since) < SILENCE_TIME {
                continue;
            }
            *is_silent = true;
            self.aside.entry(place.clone()).or_default();
            if self.told.insert(place.clone()) {
                news.push(place.clone());
            }
        }
        news
    }

    /// Workers that are in no silent place.
    pub fn able(&self) -> usize {
        self.workers.values().filter(|work| !matches!(work, Work::In { is_silent: true, .. })).count()
    }

    /// Workers in silent places.
    pub fn silent(&self) -> usize {
        self.workers.len() - self.able()
    }

    /// Torrents that nobody has begun.
    pub fn to_do(&self) -> usize {
        self.to_do.len()
    }

    /// Silent places.
    pub fn silent_places(&self) -> impl Iterator<Item = &Path> {
        self.aside.keys().map(PathBuf::as_path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    const SLOW: &str = "/slow";

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn torrents_of_a_silent_place_are_put_aside_and_loaded_when_somebody_is_back_from_there() {
        let mut round = LoadRound::new(4);
        assert_eq!(round.take(0), Some(0));
        assert!(round.enter(at(0), 0, Path::new(SLOW), 0));
        assert_eq!(round.take(1), Some(1));
        assert!(round.enter(at(1), 1, Path::new("/fast"), 1));
        assert!(round.poll_silent(at(1)).is_empty());
        round.leave(1);
        assert_eq!(round.poll_silent(at(60)), [Path::new(SLOW)]);
        assert!(round.poll_silent(at(61)).is_empty(), "it is told once");
        assert_eq!((round.able(), round.silent()), (1, 1));
        assert_eq!(round.take(1), Some(2));
        assert!(!round.enter(at(61), 1, Path::new(SLOW), 2));
        assert_eq!(round.take(1), Some(3));
        assert!(round.enter(at(61), 1, Path::new("/fast"), 3));
        round.leave(1);
        assert_eq!(round.take(1), None);
        assert_eq!(round.silent_places().collect::<Vec<_>>(), [Path::new(SLOW)]);
        round.leave(0);
        assert_eq!(round.silent_places().count(), 0);
        assert_eq!(round.take(0), Some(2), "what was put aside");
        assert!(round.enter(at(62), 0, Path::new(SLOW), 2));
        round.leave(0);
        assert_eq!(round.take(0), None);
        assert_eq!((round.able(), round.silent(), round.to_do()), (0, 0, 0));
    }

    #[test]
    fn who_comes_back_from_a_place_that_is_silent_again_frees_what_waits_for_it() {
        let mut round = LoadRound::new(3);
        for worker in 0..2 {
            let torrent = round.take(worker).unwrap();
            assert!(round.enter(at(0), worker, Path::new(SLOW), torrent));
        }
        assert_eq!(round.poll_silent(at(60)), [Path::new(SLOW)]);
        assert_eq!(round.take(2), Some(2));
        assert!(!round.enter(at(60), 2, Path::new(SLOW), 2));
        round.leave(0);
        // One of two is back: it answers, whatever the other waits for.
        assert_eq!(round.take(0), Some(2));
        assert!(round.enter(at(61), 0, Path::new(SLOW), 2));
        assert!(round.poll_silent(at(120)).is_empty(), "it was told");
        assert_eq!((round.able(), round.silent()), (1, 2));
    }
}
