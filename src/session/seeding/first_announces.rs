//! When the first announce of each torrent goes out: spread over those that wait for theirs.

use crate::limits::FIRST_ANNOUNCE_SPREAD;
use crate::time::Instant;

/// The queue of first announces, which are never more than so many a second.
#[derive(Debug, Default)]
pub(super) struct FirstAnnounces {
    next: Instant,
}

impl FirstAnnounces {
    /// The turn of a torrent that comes now: at once when nobody waits.
    pub fn turn(&mut self, now: Instant) -> Instant {
        let turn = self.next.max(now);
        self.next = turn + FIRST_ANNOUNCE_SPREAD;
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    #[test]
    fn ten_thousand_at_once_are_spread_and_who_comes_later_waits_for_nobody() {
        let mut queue = FirstAnnounces::default();
        let start = Instant::ZERO + Duration::from_secs(1000);
        let turns: Vec<Instant> = (0..10_000).map(|_| queue.turn(start)).collect();
        assert_eq!(turns.first(), Some(&start));
        assert!(
            turns.is_sorted() && turns.windows(2).all(|two| two[1].since(two[0]) == FIRST_ANNOUNCE_SPREAD)
        );
        // One whose check ended when half of them were through waits for the other half, and no longer.
        let middle = start + Duration::from_secs(100);
        assert_eq!(queue.turn(middle), start + Duration::from_secs(200));
        let later = start + Duration::from_secs(3600);
        assert_eq!(queue.turn(later), later);
        assert_eq!(queue.turn(later), later + FIRST_ANNOUNCE_SPREAD);
    }
}
