//! How long a connection keeps its place: long while nobody else wants it, and while others wait only for as long as it
//! gets on. Pure.
//!
//! While others wait, each step that is the peer's (to introduce itself, to tell a length, to give a piece that it was
//! asked for) has [`MAGNET_STEP_TIMEOUT`], and all of them together [`MAGNET_STAY`] and [`MAGNET_STAY_PER_PIECE`] for each
//! piece given: a peer that drips leaves, too. One that has left is dialled again after those that waited.

use crate::limits::{
    HANDSHAKE_TIMEOUT, MAGNET_IDLE_TIMEOUT, MAGNET_STAY, MAGNET_STAY_PER_PIECE, MAGNET_STEP_TIMEOUT,
};
use crate::time::Instant;

/// What one connection has come to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stay {
    /// The address was dialled; several connections may follow from that, one for each way to encrypt.
    dialled_at: Instant,
    opened_at: Instant,
    /// The latest step of the peer.
    step_at: Instant,
    /// The piece that it owes was asked for.
    asked_at: Option<Instant>,
    is_introduced: bool,
    has_told: bool,
    pieces: u32,
}

impl Stay {
    /// A connection that begins now, of an address that was dialled at `dialled_at`.
    pub(super) fn new(dialled_at: Instant, now: Instant) -> Self {
        Self {
            dialled_at,
            opened_at: now,
            step_at: now,
            asked_at: None,
            is_introduced: false,
            has_told: false,
            pieces: 0,
        }
    }

    /// The handshake is complete.
    pub(super) fn introduced(&mut self, now: Instant) {
        (self.is_introduced, self.step_at) = (true, now);
    }

    /// The peer says that it has the dictionary. Only the first time is a step.
    pub(super) fn told(&mut self, now: Instant) {
        if !self.has_told {
            (self.has_told, self.step_at) = (true, now);
        }
    }

    /// A piece was asked for.
    pub(super) fn asked(&mut self, now: Instant) {
        self.asked_at = Some(now);
    }

    /// The peer does not give the piece, and owes nothing now.
    pub(super) fn rejected(&mut self) {
        self.asked_at = None;
    }

    /// A piece came that was wanted.
    pub(super) fn gave(&mut self, now: Instant) {
        self.asked_at = None;
        self.step_at = now;
        self.pieces = self.pieces.saturating_add(1);
    }

    /// When the connection has to go, if nothing comes until then.
    pub(super) fn until(&self, others_wait: bool) -> Instant {
        let alone = if self.is_introduced {
            self.step_at + MAGNET_IDLE_TIMEOUT
        } else {
            self.opened_at + HANDSHAKE_TIMEOUT
        };
        if !others_wait {
            return alone;
        }
        let whole = self.dialled_at + MAGNET_STAY + MAGNET_STAY_PER_PIECE.saturating_mul(self.pieces);
        let is_its_turn = !self.has_told || self.asked_at.is_some();
        let step = is_its_turn.then(|| self.step_at.max(self.asked_at.unwrap_or(self.step_at)));
        let step = step.map_or(whole, |since| since + MAGNET_STEP_TIMEOUT);
        alone.min(whole).min(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    #[test]
    fn nobody_is_hurried_while_nobody_waits() {
        let mut stay = Stay::new(at(0), at(0));
        assert_eq!(stay.until(false), at(0) + HANDSHAKE_TIMEOUT);
        stay.introduced(at(1));
        assert_eq!(stay.until(false), at(1) + MAGNET_IDLE_TIMEOUT);
        stay.told(at(2));
        stay.asked(at(3));
        assert_eq!(stay.until(false), at(2) + MAGNET_IDLE_TIMEOUT);
    }

    #[test]
    fn who_is_silent_goes_when_others_wait_and_who_gives_stays() {
        let mut stay = Stay::new(at(0), at(0));
        assert_eq!(stay.until(true), at(0) + MAGNET_STEP_TIMEOUT, "no handshake");
        stay.introduced(at(1));
        assert_eq!(stay.until(true), at(1) + MAGNET_STEP_TIMEOUT, "no length");
        stay.told(at(2));
        assert_eq!(stay.until(true), at(0) + MAGNET_STAY, "nothing is asked of it");
        stay.asked(at(3));
        assert_eq!(stay.until(true), at(3) + MAGNET_STEP_TIMEOUT, "no piece");
        for second in 4..100 {
            stay.gave(at(second));
            stay.asked(at(second));
            assert_eq!(stay.until(true), at(second) + MAGNET_STEP_TIMEOUT);
        }
    }

    #[test]
    fn who_says_the_same_again_or_drips_goes_all_the_same() {
        // Lengths told over and over.
        let mut stay = Stay::new(at(0), at(0));
        stay.introduced(at(0));
        let ends = (1..1_000).find(|&second| {
            stay.told(at(second));
            at(second) >= stay.until(true)
        });
        assert!(at(ends.unwrap()) <= at(0) + MAGNET_STAY);
        // Just in time for each piece.
        let mut stay = Stay::new(at(0), at(0));
        stay.introduced(at(0));
        stay.told(at(0));
        let mut now = at(0);
        while now < stay.until(true) {
            stay.asked(now);
            now += MAGNET_STEP_TIMEOUT - Duration::from_millis(1);
            stay.gave(now);
        }
        assert!(now < at(60), "{now:?}");
    }

    #[test]
    fn a_second_connection_of_one_dial_has_no_time_of_its_own() {
        let stay = Stay::new(at(0), at(12));
        assert_eq!(stay.until(true), at(0) + MAGNET_STAY);
    }
}
