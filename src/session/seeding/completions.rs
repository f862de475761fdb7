//! Downloads that others have completed, each counted once.

use crate::id::{InfoHash, PeerId};
use std::collections::{BTreeSet, VecDeque};

/// Who has completed what, as far as that is remembered.
#[derive(Debug)]
pub(super) struct Completions {
    known: BTreeSet<(InfoHash, PeerId)>,
    /// The same, the oldest first.
    order: VecDeque<(InfoHash, PeerId)>,
    known_max: usize,
    count: u64,
}

impl Completions {
    /// Remembers so many; above that the oldest are forgotten, and may count twice.
    pub fn remembering(known_max: usize) -> Self {
        Self { known: BTreeSet::new(), order: VecDeque::new(), known_max, count: 0 }
    }

    /// Downloads completed so far.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Counts one; false when it has been counted.
    pub fn add(&mut self, torrent: InfoHash, peer_id: PeerId) -> bool {
        let name = (torrent, peer_id);
        if !self.known.insert(name) {
            return false;
        }
        self.order.push_back(name);
        if self.order.len() > self.known_max
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.count += 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(number: u8) -> (InfoHash, PeerId) {
        (InfoHash([number; 20]), PeerId([number; 20]))
    }

    #[test]
    fn the_oldest_is_forgotten_whatever_it_is_called() {
        for order in [[1, 2, 3, 4], [4, 3, 2, 1], [2, 4, 1, 3]] {
            let mut completions = Completions::remembering(3);
            for number in order {
                let (torrent, peer) = name(number);
                assert!(completions.add(torrent, peer));
            }
            for number in &order[1..] {
                let (torrent, peer) = name(*number);
                assert!(!completions.add(torrent, peer), "{number} of {order:?} is known");
            }
            let (torrent, peer) = name(order[0]);
            assert!(completions.add(torrent, peer));
            assert_eq!(completions.count(), 5);
        }
    }
}
