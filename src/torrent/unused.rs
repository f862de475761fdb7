//! Slots that nobody makes use of: a peer that holds one and asks for nothing gives way to those who wait.
//!
//! While somebody waits for a slot, the holders are looked at once a second. A holder loses its slot when it has asked for nothing
//! for `SLOT_UNUSED_TIME` since it was unchoked, or for as long as it needs to receive what it took. It then stands behind
//! all others for minutes, each time for longer. When its prefix comes back, it stands there again (`crate::debts`).
//!
//! A slow peer must not look like one that never asks. When its request comes late, after it has lost the slot, it gets its place
//! in the line back, and more time in the next turn; this happens a few times at most. Each piece that a peer took makes up for
//! one slot that it left unused: it loses the slot, and no more. While we leech, a peer that gives loses no slot.
//!
//! A peer that asks and then reads nothing is judged in the same way, when not a byte has left in a whole turn although the line
//! has room. If the fault is ours, such as a disk that hangs, it meets all peers alike and changes no order among them.
//!
//! A long line of peers that never ask would keep an honest one waiting: they lose their slots few by few, each after a second.
//! So when most holders ask for nothing, twice in a row, more peers are tried at once than there are slots, and twice as many
//! more each second. That costs nothing, since they take nothing. As soon as as many of them ask as there are slots, all others
//! are choked and keep their place in the line.
//!
//! Deliberately absent: judging how fast a peer takes; a slow line is no fault.

use super::{Peer, TorrentAction, TorrentMachine};
use crate::choker::{Decisions, Grant, PeerSnapshot, Role};
use crate::debts::{DebtTerms, Debts};
use crate::id::{AddressPrefix, ConnId};
use crate::limits::{
    CHOKE_ROUND_INTERVAL, FILL_INTERVAL, PASSED_OVER_TIME_MAX, PASSED_OVER_TIME_MIN, SLOT_LATE_REQUEST_TIME,
    SLOT_LINE_RATE_MIN, SLOT_TRIALS_MAX, SLOT_UNUSED_DOUBLINGS_MAX, SLOT_UNUSED_TIME,
};
use crate::meter::PeerSample;
use crate::time::{Duration, Instant};

const TERMS: DebtTerms = DebtTerms { first: PASSED_OVER_TIME_MIN, most: PASSED_OVER_TIME_MAX };

/// What a peer makes of its slots.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Use {
    /// It stands behind all others until then.
    passed_over_until: Instant,
    /// Slots that it lost.
    lost: u32,
    /// Slots that it lost and had paid for by taking pieces.
    paid: u32,
    /// It said that it wants nothing, in a turn that began then, and has not been judged for it.
    unjudged: Option<Instant>,
    /// How often its patience was doubled.
    doublings: u32,
    /// Since when it had waited for its present or last turn.
    waited_since: Instant,
    /// When it lost its last slot, and requests that had been refused by then.
    lost_at: Option<(Instant, u32)>,
}

/// Slots beyond those that there are, while those who get slots do not ask.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trials {
    extra: usize,
    /// Looks in a row that found most holders without a request.
    unused: u32,
}

impl Trials {
    pub fn slots(self) -> usize {
        self.extra
    }

    /// A look at `holders` of slots found that so many never asked and so many do, while so many others wait.
    fn note(&mut self, slots: usize, holders: usize, idle: usize, asking: usize, waiting: usize) {
        if idle > 0 && idle * 2 >= holders && asking < slots && waiting > 0 {
            self.unused += 1;
            if self.unused > 1 && waiting > idle {
                self.extra = (self.extra * 2).max(slots).min(SLOT_TRIALS_MAX);
            }
        } else if idle > 0 || asking > 0 || waiting == 0 {
            *self = Self::default();
        }
    }
}

impl Use {
    pub fn is_passed_over(&self, now: Instant) -> bool {
        now < self.passed_over_until
    }

    /// It wants nothing any more, in a turn that began at `since`.
    pub fn give_back(&mut self, since: Instant) {
        self.unjudged = Some(since);
    }

    /// It made no use of a slot, after it has taken so many pieces.
    fn judge(&mut self, now: Instant, pieces: u64) {
        if pieces > u64::from(self.paid) {
            self.paid += 1;
            self.lost = 0;
        } else {
            self.passed_over_until = now + TERMS.after(self.lost);
            self.lost = self.lost.saturating_add(1);
        }
    }

    pub fn begin_turn(&mut self, waited_since: Instant) {
        self.waited_since = waited_since;
    }
}

impl Peer {
    pub(super) fn has_slot(&self) -> bool {
        matches!(self.grant, Grant::Regular | Grant::Optimistic)
    }

    fn taken_in_turn(&self, sample: &PeerSample) -> u64 {
        sample.uploaded.saturating_sub(self.taken_before_turn)
    }

    /// Whether it has asked for anything since it was unchoked.
    fn asks(&self, sample: &PeerSample) -> bool {
        sample.unasked_since.is_none_or(|at| at > self.since)
    }

    /// Whether it has asked for nothing for longer than its slot is kept for it.
    fn is_idle(&self, now: Instant, sample: &PeerSample) -> bool {
        let Some(unasked_since) = sample.unasked_since else { return false };
        let mut patience = SLOT_UNUSED_TIME * (1 << self.of_slots.doublings);
        if unasked_since > self.since {
            let receives = Duration::from_millis(self.taken_in_turn(sample) * 1000 / SLOT_LINE_RATE_MIN);
            patience = (patience + receives).min(CHOKE_ROUND_INTERVAL);
        }
        now >= unasked_since.max(self.since) + patience
    }

    /// A request that came after the slot was gone shows that it had wanted it.
    fn make_up(&mut self, now: Instant, sample: &PeerSample) {
        let Some((lost_at, refused)) = self.of_slots.lost_at else { return };
        if now > lost_at + SLOT_LATE_REQUEST_TIME || self.of_slots.doublings >= SLOT_UNUSED_DOUBLINGS_MAX {
            self.of_slots.lost_at = None;
        } else if sample.refused != refused && self.grant == Grant::Choked {
            self.of_slots.lost_at = None;
            self.of_slots.passed_over_until = Instant::ZERO;
            self.of_slots.lost = self.of_slots.lost.saturating_sub(1);
            self.of_slots.doublings += 1;
            self.since = self.of_slots.waited_since;
        }
    }
}

impl TorrentMachine {
    pub(super) fn use_of_newcomer(&self, now: Instant, prefix: AddressPrefix) -> Use {
        let debt = self.slot_debts.as_ref().and_then(|debts| debts.until(now, prefix));
        Use { passed_over_until: debt.unwrap_or(Instant::ZERO), ..Use::default() }
    }

    /// Has the holders of slots looked at, if anybody waits.
    pub(super) fn schedule_look(&mut self, now: Instant) {
        let somebody_waits = self.regular_open + self.optimistic_open < self.interested;
        if !somebody_waits && self.trials.slots() == 0 {
            self.look_at = None;
        } else if self.look_at.is_none() && self.regular_open + self.optimistic_open > 0 {
            self.look_at = Some(now.max(self.last_look + FILL_INTERVAL));
        }
    }

    /// Takes slots from those who make no use of them, for those who wait.
    pub(super) fn look_at_slots(&mut self, now: Instant, sample: &mut impl FnMut(ConnId) -> PeerSample) {
        (self.look_at, self.last_look) = (None, now);
        let mut waiting = 0;
        let piece_len = self.choker.piece_len().max(1);
        for (&conn, peer) in &mut self.peers {
            if let Some(turn) = peer.of_slots.unjudged.take() {
                let sample = sample(conn);
                if sample.unasked_since.is_some_and(|at| at <= turn) {
                    peer.of_slots.judge(now, sample.uploaded / piece_len);
                }
            }
            if peer.of_slots.lost_at.is_some() {
                peer.make_up(now, &sample(conn));
            }
            let waits = peer.interested && peer.grant == Grant::Choked;
            waiting += usize::from(waits && !peer.of_slots.is_passed_over(now));
        }
        let (mut idle, mut asking) = (Vec::new(), 0);
        for (&conn, peer) in self.peers.iter().filter(|(_, peer)| peer.has_slot()) {
            let sample = sample(conn);
            let gives = self.role == Role::Leeching && sample.downloaded > peer.given_before_last;
            if !gives && peer.is_idle(now, &sample) {
                idle.push((conn, sample));
            } else if peer.grant == Grant::Regular {
                asking += usize::from(peer.asks(&sample));
            }
        }
        let was_trying = self.trials.slots() > 0;
        if self.role == Role::Seeding {
            let holders = self.regular_open + self.optimistic_open;
            self.trials.note(self.slots, holders, idle.len(), asking, waiting);
        }
        idle.truncate(waiting);
        for (conn, sample) in idle {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            let before = peer.grant;
            peer.of_slots.judge(now, sample.uploaded / piece_len);
            peer.of_slots.lost_at = Some((now, sample.refused));
            peer.grant_from(now, Grant::Choked);
            self.actions.push_back(TorrentAction::Choke(conn));
            self.free_slot(now, before);
            if before == Grant::Regular {
                // At once: those who wait have waited long enough.
                self.fill_at = Some(now);
            }
        }
        if was_trying && self.trials.slots() == 0 {
            self.end_trials(now, sample);
        }
    }

    /// As many keep their slots as there are: who asks before who does not yet, and of those the first to come.
    fn end_trials(&mut self, now: Instant, sample: &mut impl FnMut(ConnId) -> PeerSample) {
        let holders = self.peers.iter().filter(|(_, peer)| peer.grant == Grant::Regular);
        let mut holders: Vec<_> =
            holders.map(|(&conn, peer)| (!peer.asks(&sample(conn)), peer.since, conn)).collect();
        holders.sort_unstable();
        for (_, _, conn) in holders.split_off(self.slots.min(holders.len())) {
            let Some(peer) = self.peers.get_mut(&conn) else { continue };
            peer.grant_from(now, Grant::Choked);
            peer.since = peer.of_slots.waited_since;
            self.regular_open -= 1;
            self.actions.push_back(TorrentAction::Choke(conn));
        }
    }

    /// Judges those whose turn a round has ended and who have not taken a byte in it, although they asked.
    pub(super) fn judge_turns(&mut self, now: Instant, snapshots: &[PeerSnapshot], decisions: &Decisions) {
        if self.role != Role::Seeding || !self.load.has_room() {
            return;
        }
        let piece_len = self.choker.piece_len().max(1);
        for (snapshot, &grant) in snapshots.iter().zip(&decisions.grants) {
            let took_nothing =
                snapshot.uploaded_in_turn == 0 && now.since(snapshot.since) >= CHOKE_ROUND_INTERVAL;
            if took_nothing
                && grant == Grant::Choked
                && let Some(peer) = self.peers.get_mut(&snapshot.conn).filter(|peer| peer.has_slot())
            {
                peer.of_slots.judge(now, snapshot.taken_total / piece_len);
            }
        }
    }

    /// What a peer has made of its slot until its connection ended.
    pub(super) fn note_last_use(&mut self, now: Instant, conn: ConnId, last: PeerSample) {
        let somebody_waits = self.regular_open + self.optimistic_open < self.interested;
        let piece_len = self.choker.piece_len().max(1);
        let Some(peer) = self.peers.get_mut(&conn).filter(|_| somebody_waits) else { return };
        let turn = peer.of_slots.unjudged.or(peer.has_slot().then_some(peer.since));
        if turn.is_some_and(|turn| last.unasked_since.is_some_and(|at| at <= turn)) {
            peer.of_slots.judge(now, last.uploaded / piece_len);
        }
    }

    /// A peer has left: its prefix takes over that others come first.
    pub(super) fn charge_for_slots(&mut self, now: Instant, peer: &Peer) {
        if peer.of_slots.is_passed_over(now) {
            self.slot_debts.get_or_insert_with(|| Box::new(Debts::new(TERMS))).charge(now, peer.prefix);
        }
    }
}
