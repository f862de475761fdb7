//! A torrent's machine on its home core: who is in its swarm here, and who of them is unchoked.
//!
//! Workers tell it facts, it answers with unchokes and chokes. It runs the choker's round every ten seconds while it
//! has peers, and fills slots that fall empty in between. Between rounds a fact costs a look-up in an ordered
//! table; looking at all waiting peers happens at most once a second, whatever the peers do.
//!
//! Contract: after every `handle_*` drain `poll_action` until `None`, then ask `poll_timeout` and call
//! `handle_timeout` no earlier than it says. A torrent without peers has no timer and holds no memory beyond the
//! struct, for there may be ten thousand of them.
//!
//! Invariant: the interested peers that hold regular slots are never more than the slots of the last round or the
//! last growth since, with those in which peers are tried (`unused`), and `regular_open` counts them.
//!
//! A torrent that is downloaded has a downloading half (`download`): picker, wishes, convictions. `members` knows who
//! could be a peer and who may not. Deliberately absent: sockets, clocks, other cores, payload.

mod audit;
mod download;
mod exchange;
mod members;
mod superseeding;
mod unused;

#[cfg(test)]
mod exchange_tests;
#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod giving_tests;
#[cfg(test)]
mod leech_tests;
#[cfg(test)]
mod superseeding_tests;
#[cfg(test)]
mod swarm_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod unused_tests;

use crate::choker::{
    Choker, Decisions, Grant, Load, PeerSnapshot, Role, SlotDemand, Slots, TorrentLengths, auto_slots,
};
use crate::debts::Debts;
use crate::id::{AddressPrefix, ConnId, PeerId};
use crate::limits::{CHOKE_ROUND_INTERVAL, FILL_INTERVAL, REGULAR_SLOTS};
use crate::meter::{PeerSample, RateSample};
use crate::peer_list::Closed;
use crate::prefetch::Distance;
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use download::Download;
use exchange::Exchange;
use members::Members;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use superseeding::SuperSeeding;
use unused::{Trials, Use};

pub use audit::MemberCounts;
pub use download::{DownloadPlan, PieceResult};
pub use members::Newcomer;

/// What the machine wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TorrentAction {
    /// Tell the peer it may request.
    Unchoke(ConnId),
    /// Tell the peer it may no longer request.
    Choke(ConnId),
    /// Tell the peer that it has something for us, or no longer.
    Interest(ConnId, bool),
    /// Ask the peer for these blocks.
    Ask(ConnId, Vec<BlockSpan>),
    /// Tell the peer that the block is no longer wanted of it.
    Cancel(ConnId, BlockSpan),
    /// All blocks of the piece are there: compare its hash and store it. Answer with
    /// [`TorrentMachine::handle_piece`].
    Verify {
        /// The piece.
        piece: PieceIndex,
        /// Answer with the hashes of its blocks, too.
        want_block_hashes: bool,
    },
    /// The bytes of the piece are worthless; it will be asked for anew.
    Forget(PieceIndex),
    /// The piece is verified and stored: tell every peer.
    Have(PieceIndex),
    /// Close the connection.
    Close(ConnId),
    /// Close the connection: the peer floods us with peer exchange, or with nonsense in its place.
    CloseFlooder(ConnId),
    /// Send the peer this payload as a `ut_pex` message (BEP 11).
    Exchange(ConnId, Vec<u8>),
    /// Tell the peer, and only this one, that we have the piece (BEP 16).
    Reveal(ConnId, PieceIndex),
    /// Super-seeding is over: tell every peer every piece.
    RevealAll,
    /// Connect to this address. Answer by a newcomer, or with [`TorrentMachine::handle_dial_failed`].
    Dial(SocketAddr),
    /// A peer was convicted of sending wrong data. Its connections are closed by actions of their own.
    Banned {
        /// Its address.
        ip: IpAddr,
        /// Its name for itself.
        peer_id: PeerId,
    },
    /// Storage refuses pieces: why, and what to do. Nothing is asked of anybody until it takes them.
    StorageRefused(String),
    /// Storage takes pieces again.
    StorageRecovered,
    /// Everything that was wanted is here.
    Satisfied,
}

impl TorrentAction {
    /// The connection it is about, if it is about one.
    fn conn(&self) -> Option<ConnId> {
        match self {
            Self::Unchoke(conn)
            | Self::Choke(conn)
            | Self::Interest(conn, _)
            | Self::Ask(conn, _)
            | Self::Cancel(conn, _)
            | Self::Close(conn)
            | Self::CloseFlooder(conn)
            | Self::Exchange(conn, _)
            | Self::Reveal(conn, _) => Some(*conn),
            _ => None,
        }
    }
}

/// What a torrent's machine needs to know about its torrent.
#[derive(Clone, Copy, Debug)]
pub struct TorrentParameters {
    /// Whether we seed from the start.
    pub role: Role,
    /// Slots to share out.
    pub slots: Slots,
    /// Bytes of a piece.
    pub piece_len: u32,
    /// Bytes of all pieces together.
    pub total_len: u64,
}

/// The uploading side of one torrent. The module's text has the contract.
#[derive(Debug)]
pub struct TorrentMachine {
    role: Role,
    slots_setting: Slots,
    /// Slots now: the setting's, or what auto came to.
    slots: usize,
    load: Load,
    choker: Choker,
    peers: BTreeMap<ConnId, Peer>,
    interested: usize,
    regular_open: usize,
    optimistic_open: usize,
    /// Holders of regular slots that yield to a better giver, the next to yield last. Only while leeching.
    yielding: Vec<ConnId>,
    round_at: Option<Instant>,
    last_round: Instant,
    fill_at: Option<Instant>,
    last_fill: Instant,
    look_at: Option<Instant>,
    last_look: Instant,
    trials: Trials,
    /// Prefixes that left after they had made no use of a slot.
    slot_debts: Option<Box<Debts>>,
    actions: VecDeque<TorrentAction>,
    download: Option<Box<Download>>,
    members: Members,
    exchange: Exchange,
    super_seeding: Option<Box<SuperSeeding>>,
    piece_count: u64,
}

#[derive(Clone, Copy, Debug)]
struct Peer {
    prefix: AddressPrefix,
    joined_at: Instant,
    interested: bool,
    snubbed: bool,
    grant: Grant,
    /// Begin of the turn, or of the wait. Interest lost and found again does not move it: a peer's place in the line
    /// follows from when it was last served.
    since: Instant,
    /// What it makes of its slots.
    of_slots: Use,
    considered_at: Option<Instant>,
    /// Whether the last round found that it gives more than the worst holder of a slot.
    may_displace: bool,
    /// The counters at the last round.
    last: PeerSample,
    /// Bytes it had given at the round before the last.
    given_before_last: u64,
    /// Bytes it had taken when its turn began, as far as the last round knew.
    taken_before_turn: u64,
}

impl TorrentMachine {
    /// A torrent without peers.
    pub fn new(parameters: TorrentParameters) -> Self {
        let lengths = TorrentLengths { piece_len: parameters.piece_len, total_len: parameters.total_len };
        Self {
            role: parameters.role,
            slots_setting: parameters.slots,
            slots: slots_at_first(parameters.slots),
            load: Load::default(),
            choker: Choker::new(lengths),
            peers: BTreeMap::new(),
            interested: 0,
            regular_open: 0,
            optimistic_open: 0,
            yielding: Vec::new(),
            round_at: None,
            last_round: Instant::ZERO,
            fill_at: None,
            last_fill: Instant::ZERO,
            look_at: None,
            last_look: Instant::ZERO,
            trials: Trials::default(),
            slot_debts: None,
            actions: VecDeque::new(),
            download: None,
            members: Members::new(),
            exchange: Exchange::new(),
            super_seeding: None,
            piece_count: parameters.total_len.div_ceil(u64::from(parameters.piece_len.max(1))),
        }
    }

    /// Leaves the optimistic slot out; for comparison in the laboratory.
    pub fn leave_out_optimistic_slot(&mut self) {
        self.choker = self.choker.clone().without_optimistic_slot();
    }

    /// A peer finished its handshake; it is choked and not interested. Its counters start at zero.
    pub fn handle_joined(&mut self, now: Instant, conn: ConnId, prefix: AddressPrefix) {
        self.handle_left(now, conn);
        if self.peers.is_empty() {
            self.last_round = now;
            self.round_at = Some(now + CHOKE_ROUND_INTERVAL);
        }
        let peer = Peer {
            prefix,
            joined_at: now,
            interested: false,
            snubbed: false,
            grant: Grant::Choked,
            since: now,
            of_slots: self.use_of_newcomer(now, prefix),
            considered_at: None,
            may_displace: false,
            last: PeerSample::default(),
            given_before_last: 0,
            taken_before_turn: 0,
        };
        self.peers.insert(conn, peer);
    }

    /// A peer became interested, or no longer is. May be told as often as the peer says so: it costs a look-up, and
    /// no more than one message a second.
    pub fn handle_interest(&mut self, now: Instant, conn: ConnId, interested: bool) {
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.interested == interested {
            return;
        }
        peer.interested = interested;
        if interested {
            self.interested += 1;
            let is_choked = peer.grant == Grant::Choked;
            self.grow();
            if is_choked {
                self.consider(now, conn);
            } else {
                self.readmit(now, conn);
            }
        } else {
            self.interested -= 1;
            let before = peer.grant;
            if peer.has_slot() {
                peer.of_slots.give_back(peer.since);
            }
            if before != Grant::Choked {
                // Left unchoked: should it be interested again before the slot is given on, nothing was lost.
                peer.grant = Grant::Courtesy;
            }
            self.free_slot(now, before);
        }
        self.schedule_look(now);
    }

    /// A peer owes us blocks for over a minute, or has given one again (BEP 3).
    pub fn handle_snubbed(&mut self, conn: ConnId, snubbed: bool) {
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.snubbed = snubbed;
        }
    }

    /// A peer's connection is gone. No action for it comes afterwards.
    pub fn handle_left(&mut self, now: Instant, conn: ConnId) {
        let Some(peer) = self.peers.remove(&conn) else { return };
        self.actions.retain(|action| action.conn() != Some(conn));
        self.download_left(now, conn);
        self.exchange.left(conn, self.peers.is_empty());
        self.super_seed_left(now, conn, self.peers.is_empty());
        self.interested -= usize::from(peer.interested);
        self.free_slot(now, peer.grant);
        self.charge_for_slots(now, &peer);
        if self.peers.is_empty() {
            self.choker.reset();
            self.slots = slots_at_first(self.slots_setting);
            self.yielding = Vec::new();
            self.actions.shrink_to_fit();
            self.round_at = None;
            self.fill_at = None;
            self.look_at = None;
            self.trials = Trials::default();
            self.slot_debts = None;
        }
    }

    /// A peer's connection is gone, and why; `last` is what its counters said at the end.
    pub fn handle_closed(
        &mut self,
        now: Instant,
        conn: ConnId,
        why: Closed,
        last: PeerSample,
        rng: &mut Rng,
    ) {
        self.note_last_use(now, conn, last);
        self.members.left(now, conn, why);
        self.handle_left(now, conn);
        self.settle(now, rng);
        self.dial(now, rng);
    }

    /// The last piece has been verified: from now on we seed.
    pub fn handle_complete(&mut self, now: Instant) {
        self.role = Role::Seeding;
        self.yielding = Vec::new();
        self.grow();
        self.schedule_fill(now);
    }

    /// The user changed the slots. Fewer hold from the next round on, more at once.
    pub fn handle_slots(&mut self, now: Instant, slots: Slots) {
        self.slots_setting = slots;
        self.slots = match slots {
            Slots::Fixed(count) => count,
            Slots::Auto => self.slots.max(REGULAR_SLOTS),
        };
        self.grow();
        self.schedule_fill(now);
    }

    /// The process's load, to be told about once a second while the torrent has peers.
    pub fn handle_load(&mut self, now: Instant, load: Load) {
        self.load = load;
        self.grow();
        self.schedule_fill(now);
    }

    /// Time has come. `sample` reads a connection's counters (zeros when it is already gone).
    pub fn handle_timeout(
        &mut self,
        now: Instant,
        mut sample: impl FnMut(ConnId) -> PeerSample,
        rng: &mut Rng,
    ) {
        self.exchange(now, &mut sample);
        self.super_seed_timeout(now, &mut sample);
        let fills = self.fill_at.is_some_and(|at| at <= now);
        if fills || self.look_at.is_some_and(|at| at <= now) {
            self.look_at_slots(now, &mut sample);
        }
        if self.round_at.is_some_and(|at| at <= now) {
            self.round(now, sample, rng);
        } else if fills || self.fill_at.is_some_and(|at| at <= now) {
            self.fill(now);
        }
        self.schedule_look(now);
        self.retry_storage(now);
        self.retry_wishes(now, rng);
        self.dial(now, rng);
    }

    /// What is to be done next; `None` when all is said.
    pub fn poll_action(&mut self) -> Option<TorrentAction> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` is due; `None` while there are no peers.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let retry_at = self.download.as_ref().and_then(|download| download.poll_timeout());
        let members_at = self.members.poll_timeout();
        let exchange_at = self.exchange.poll_timeout();
        let reveal_at = self.super_seeding.as_ref().and_then(|half| half.poll_timeout());
        let of_ours = self.round_at.into_iter().chain(self.fill_at).chain(self.look_at);
        of_ours.chain(retry_at).chain(members_at).chain(exchange_at).chain(reveal_at).min()
    }

    /// Asks for the memory that news from a peer will need.
    pub fn prefetch(&self, conn: ConnId, distance: Distance) {
        if let Some(download) = &self.download {
            download.picker().prefetch(conn, distance);
        }
    }

    /// Peers in the swarm here.
    pub fn peers(&self) -> usize {
        self.peers.len()
    }

    /// Interested peers.
    pub fn interested(&self) -> usize {
        self.interested
    }

    /// Regular slots in use.
    pub fn slots_open(&self) -> usize {
        self.regular_open
    }

    /// Regular slots there are, with those in which peers are tried because others never ask.
    pub fn slots(&self) -> usize {
        self.slots + self.trials.slots()
    }

    /// What the torrent does.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The choker's round: everybody is looked at, everything may change.
    fn round(&mut self, now: Instant, mut sample: impl FnMut(ConnId) -> PeerSample, rng: &mut Rng) {
        let mut snapshots = Vec::with_capacity(self.peers.len());
        for (&conn, peer) in &mut self.peers {
            let sample = sample(conn);
            if sample.heard_at > peer.last.heard_at {
                self.members.heard(sample.heard_at, conn);
            }
            snapshots.push(peer.snapshot(now, conn, sample));
            peer.given_before_last = peer.last.downloaded;
            peer.last = sample;
        }
        self.slots = self.slots_for_round(now, &snapshots);
        let mut decisions = Decisions::default();
        self.choker.round(now, self.role, self.slots + self.trials.slots(), &snapshots, rng, &mut decisions);
        self.judge_turns(now, &snapshots, &decisions);
        for (peer, &grant) in self.peers.values_mut().zip(&decisions.grants) {
            peer.grant_from(now, grant);
            peer.may_displace = grant == Grant::Courtesy;
        }
        self.regular_open = decisions.grants.iter().filter(|&&grant| grant == Grant::Regular).count();
        self.optimistic_open = decisions.optimistic.len();
        self.yielding = decisions.ranking;
        // Chokes first, so that not even for a moment more than the slots are unchoked.
        self.actions.extend(decisions.choke.into_iter().map(TorrentAction::Choke));
        self.actions.extend(decisions.unchoke.into_iter().map(TorrentAction::Unchoke));
        self.last_round = now;
        self.round_at = Some(now + CHOKE_ROUND_INTERVAL);
        self.fill_at = None;
    }

    fn slots_for_round(&self, now: Instant, peers: &[PeerSnapshot]) -> usize {
        match (self.slots_setting, self.role) {
            (Slots::Fixed(count), _) => count,
            (Slots::Auto, Role::Leeching) => REGULAR_SLOTS,
            (Slots::Auto, Role::Seeding) => {
                let taken = peers.iter().filter(|peer| peer.grant == Grant::Regular);
                let bytes = taken.map(|peer| peer.uploaded_in_round).sum::<u64>();
                let whole = RateSample { at: now, bytes };
                let rate = whole.rate_since(RateSample { at: self.last_round, bytes: 0 });
                let mean_slot_rate = ByteRate(rate.0 / self.regular_open.max(1) as u64);
                let demand = SlotDemand { slots: self.slots, interested: self.interested, mean_slot_rate };
                auto_slots(&self.load, &demand)
            }
        }
    }

    /// Regular slots that stand empty. Those are not that were given to optimistic peers in place of some that snub us,
    /// until the next round.
    fn regular_free(&self) -> usize {
        let in_place = self.optimistic_open.saturating_sub(self.choker.extra_slots());
        (self.slots + self.trials.slots()).saturating_sub(self.regular_open + in_place)
    }

    /// Somebody who had that grant has no slot any more.
    fn free_slot(&mut self, now: Instant, before: Grant) {
        match before {
            Grant::Regular => self.regular_open -= 1,
            Grant::Optimistic => self.optimistic_open -= 1,
            Grant::Choked | Grant::Courtesy => return,
        }
        self.schedule_fill(now);
    }

    /// Between rounds auto only opens slots; how much the present ones carry is not known, so none is closed.
    fn grow(&mut self) {
        if (self.slots_setting, self.role) == (Slots::Auto, Role::Seeding) {
            let mean_slot_rate = ByteRate(u64::MAX);
            let demand = SlotDemand { slots: self.slots, interested: self.interested, mean_slot_rate };
            self.slots = self.slots.max(auto_slots(&self.load, &demand));
        }
    }

    /// Gives a free slot to a peer that just became interested, unless others wait for the same slot: then the
    /// fill that is already due decides among all.
    fn consider(&mut self, now: Instant, conn: ConnId) {
        let (free, role) = (self.regular_free(), self.role);
        if free == 0 || self.fill_at.is_some() {
            return;
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if peer.considered_at.is_some_and(|at| now < at + FILL_INTERVAL) {
            self.schedule_fill(now);
            return;
        }
        peer.considered_at = Some(now);
        let snapshot = peer.snapshot(now, conn, peer.last);
        let chosen = self.choker.fill(now, role, free, &[snapshot]);
        self.admit(now, &chosen);
    }

    /// Gives a slot back to a peer that is still unchoked but had lost its interest. While leeching it was left
    /// unchoked for giving more than others, one of which yields; otherwise it waits like everybody.
    fn readmit(&mut self, now: Instant, conn: ConnId) {
        let mut has_slot = self.regular_free() > 0;
        let may_displace =
            self.peers.get_mut(&conn).is_some_and(|peer| std::mem::take(&mut peer.may_displace));
        while may_displace
            && !has_slot
            && let Some(other) = self.yielding.pop()
        {
            let Some(holder) = self.peers.get_mut(&other) else { continue };
            if other != conn && holder.grant == Grant::Regular {
                holder.grant_from(now, Grant::Choked);
                self.regular_open -= 1;
                self.actions.push_back(TorrentAction::Choke(other));
                has_slot = true;
            }
        }
        let Some(peer) = self.peers.get_mut(&conn) else { return };
        if has_slot {
            peer.grant = Grant::Regular;
            self.regular_open += 1;
        } else {
            peer.grant_from(now, Grant::Choked);
            self.actions.push_back(TorrentAction::Choke(conn));
        }
    }

    /// Looks at all peers for slots that stand empty.
    fn fill(&mut self, now: Instant) {
        self.fill_at = None;
        self.last_fill = now;
        let free = self.regular_free();
        if free == 0 {
            return;
        }
        let snapshots: Vec<PeerSnapshot> =
            self.peers.iter().map(|(&conn, peer)| peer.snapshot(now, conn, peer.last)).collect();
        let chosen = self.choker.fill(now, self.role, free, &snapshots);
        self.admit(now, &chosen);
    }

    fn admit(&mut self, now: Instant, chosen: &[ConnId]) {
        for &conn in chosen {
            if let Some(peer) = self.peers.get_mut(&conn) {
                if peer.grant == Grant::Choked {
                    self.actions.push_back(TorrentAction::Unchoke(conn));
                }
                peer.grant_from(now, Grant::Regular);
                peer.considered_at = Some(now);
                self.regular_open += 1;
            }
        }
    }

    /// Has all waiting peers looked at, if slots stand empty and anybody waits: now, or a second after the last
    /// time.
    fn schedule_fill(&mut self, now: Instant) {
        if self.regular_free() > 0 && self.regular_open < self.interested && self.fill_at.is_none() {
            self.fill_at = Some(now.max(self.last_fill + FILL_INTERVAL));
        }
    }
}

impl Peer {
    fn snapshot(&self, now: Instant, conn: ConnId, sample: PeerSample) -> PeerSnapshot {
        PeerSnapshot {
            conn,
            prefix: self.prefix,
            joined_at: self.joined_at,
            interested: self.interested,
            upload_only: sample.upload_only,
            snubbed: self.snubbed,
            grant: self.grant,
            since: self.since,
            uploaded_in_round: sample.uploaded.saturating_sub(self.last.uploaded),
            downloaded_lately: sample.downloaded.saturating_sub(self.given_before_last),
            uploaded_in_turn: sample.uploaded.saturating_sub(self.taken_before_turn),
            taken_total: sample.uploaded,
            reported_pieces: sample.reported_pieces,
            passed_over: self.of_slots.is_passed_over(now),
        }
    }

    /// Takes a new grant. A turn or a wait begins where one did not already run.
    fn grant_from(&mut self, now: Instant, grant: Grant) {
        let was_choked = self.grant == Grant::Choked;
        let is_choked = grant == Grant::Choked;
        if was_choked != is_choked {
            if was_choked {
                self.of_slots.begin_turn(self.since);
            }
            self.since = now;
            self.taken_before_turn = self.last.uploaded;
        }
        self.grant = grant;
    }
}

fn slots_at_first(setting: Slots) -> usize {
    match setting {
        Slots::Fixed(count) => count,
        Slots::Auto => REGULAR_SLOTS,
    }
}
