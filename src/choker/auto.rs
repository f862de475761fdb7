//! How many slots `--upload-slots auto` has while seeding.
//!
//! A seed on a fat line must not leave it idle because the textbook says four; a seed on a limit must not cut it
//! into crumbs. So slots follow demand while line and cores have room, and also when either is used up as long as a
//! slot's share is so large that it can be split; otherwise they stand still, and they give way slowly only when the
//! limit is used up and each slot's share has become too small to be of use.

use crate::limits::{REGULAR_SLOTS, SLOT_RATE_MIN, SLOT_RATE_PLENTY, UPLOAD_SLOTS_AUTO_MAX};
use crate::units::ByteRate;

/// Part of the limit or of a worker's time from which on it counts as used up.
const USED_UP: f64 = 0.9;

/// How busy the line and the cores are. The default is an idle process without a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Load {
    /// Bytes a second that the whole process uploads.
    pub upload_rate: ByteRate,
    /// The limit on that; `None` for no limit.
    pub upload_limit: Option<ByteRate>,
    /// Part of the time that the busiest worker works, 0 to 1.
    pub worker_busy: f32,
}

impl Load {
    /// Whether the process could upload more.
    pub fn has_room(&self) -> bool {
        f64::from(self.worker_busy) < USED_UP && !self.limit_is_used_up()
    }

    fn limit_is_used_up(&self) -> bool {
        self.upload_limit.is_some_and(|limit| self.upload_rate.0 as f64 >= USED_UP * limit.0 as f64)
    }

    /// Slots that the limit can fill at a useful rate each.
    fn slots_worth_having(&self) -> usize {
        let by_limit = self.upload_limit.map_or(u64::MAX, |limit| limit.0 / SLOT_RATE_MIN);
        usize::try_from(by_limit).unwrap_or(usize::MAX).clamp(REGULAR_SLOTS, UPLOAD_SLOTS_AUTO_MAX)
    }
}

/// What a torrent's peers want and get.
#[derive(Clone, Copy, Debug)]
pub struct SlotDemand {
    /// Slots the torrent has now.
    pub slots: usize,
    /// Interested peers, unchoked or not.
    pub interested: usize,
    /// What a slot's holder took on average since the last round. Between rounds, when it is not known, the
    /// greatest rate there is keeps the slots from shrinking.
    pub mean_slot_rate: ByteRate,
}

/// The number of slots from now on, between `REGULAR_SLOTS` and `UPLOAD_SLOTS_AUTO_MAX`.
pub fn auto_slots(load: &Load, demand: &SlotDemand) -> usize {
    let wanted = demand.interested.min(load.slots_worth_having());
    let slots = if load.has_room() {
        wanted.max(demand.slots.min(demand.interested))
    } else if load.limit_is_used_up() && demand.mean_slot_rate.0 < SLOT_RATE_MIN {
        demand.slots - (demand.slots / 10).max(1).min(demand.slots)
    } else {
        // What the torrent uploads, as far as it is known, is at most what the process uploads.
        let rate = demand.mean_slot_rate.0.saturating_mul(demand.slots as u64).min(load.upload_rate.0);
        let plentiful = usize::try_from(rate / SLOT_RATE_PLENTY).unwrap_or(usize::MAX);
        wanted.min(plentiful).max(demand.slots)
    };
    slots.clamp(REGULAR_SLOTS, UPLOAD_SLOTS_AUTO_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn load(rate: u64, limit: Option<u64>, worker_busy: f32) -> Load {
        Load { upload_rate: ByteRate(rate), upload_limit: limit.map(ByteRate), worker_busy }
    }

    fn demand(slots: usize, interested: usize, rate: u64) -> SlotDemand {
        SlotDemand { slots, interested, mean_slot_rate: ByteRate(rate) }
    }

    #[test]
    fn an_idle_line_opens_a_slot_for_everybody_at_once() {
        assert_eq!(auto_slots(&load(0, None, 0.1), &demand(4, 700, 0)), 700);
        assert_eq!(auto_slots(&load(0, None, 0.1), &demand(4, 1_000_000, 0)), UPLOAD_SLOTS_AUTO_MAX);
        assert_eq!(auto_slots(&load(0, None, 0.1), &demand(700, 1, 0)), REGULAR_SLOTS);
    }

    #[test]
    fn a_busy_core_or_line_does_not_open_more() {
        assert_eq!(auto_slots(&load(0, None, 0.95), &demand(20, 700, 1_000_000)), 20);
        assert_eq!(auto_slots(&load(95, Some(100), 0.1), &demand(20, 700, 1_000_000)), 20);
        assert_eq!(auto_slots(&load(9_500_000, Some(10_000_000), 0.1), &demand(80, 700, 118_750)), 80);
    }

    #[test]
    fn plenty_is_split_even_when_nothing_is_left() {
        let (gigabyte, unknown) = (1 << 30, u64::MAX);
        assert_eq!(auto_slots(&load(4 * gigabyte, None, 1.0), &demand(50, 200, unknown)), 200);
        assert_eq!(auto_slots(&load(4 * gigabyte, None, 1.0), &demand(50, 200, 80 << 20)), 200);
        // Another torrent takes nearly everything: the own share decides.
        assert_eq!(auto_slots(&load(4 * gigabyte, None, 1.0), &demand(50, 200, 1 << 19)), 100);
        assert_eq!(auto_slots(&load(10 << 20, Some(10 << 20), 0.1), &demand(20, 700, 512 << 10)), 40);
    }

    #[test]
    fn a_limit_cut_into_crumbs_closes_a_tenth_of_the_slots_but_keeps_four() {
        let used_up = load(1_000_000, Some(1_000_000), 0.1);
        assert_eq!(auto_slots(&used_up, &demand(200, 700, 5_000)), 180);
        assert_eq!(auto_slots(&used_up, &demand(5, 700, 5_000)), 4);
        assert_eq!(auto_slots(&used_up, &demand(4, 700, 5_000)), 4);
        assert_eq!(auto_slots(&load(0, Some(0), 0.0), &demand(4, 700, 0)), 4);
    }

    #[test]
    fn a_limit_opens_no_more_slots_than_it_can_fill() {
        assert_eq!(auto_slots(&load(0, Some(1 << 20), 0.1), &demand(4, 700, 0)), 64);
    }

    proptest! {
        #[test]
        fn slots_stay_within_their_bounds_and_shrink_by_a_tenth_at_most_while_wanted(
            rate in 0u64..1 << 40, limit in prop::option::of(0u64..1 << 40), busy in 0f32..1.0,
            slots in REGULAR_SLOTS..=UPLOAD_SLOTS_AUTO_MAX, more in 0usize..10_000, mean in 0u64..1 << 20,
        ) {
            let next = auto_slots(&load(rate, limit, busy), &demand(slots, slots + more, mean));
            prop_assert!((REGULAR_SLOTS..=UPLOAD_SLOTS_AUTO_MAX).contains(&next));
            prop_assert!(next + (slots / 10).max(1) >= slots);
        }
    }
}
