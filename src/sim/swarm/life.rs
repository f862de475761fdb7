//! Coming and going: arrivals, departures, calls, and what the tracker is told.

use super::ledger::Leeching;
use super::node::{Node, Seat, SlotSet};
use super::terms::{ContentShape, Departure, Manner, PeerNumber, PeerTerms};
use super::{Event, INFO_HASH, Swarm, delay_between};
use crate::announcer::{Announcer, AnnouncerConfig, Failure, Terms};
use crate::bitfield::Bitfield;
use crate::choker::Role;
use crate::id::PeerId;
use crate::limits::{CANDIDATES_PER_TORRENT_MAX, DIALLED_PER_TORRENT_MAX, TRACKER_INTERVAL_DEFAULT};
use crate::peer::{PeerMachine, TorrentFacts};
use crate::peer_list::{Closed, PeerListSettings, Scope, Source};
use crate::picker::PieceShape;
use crate::rng::Rng;
use crate::swarm_registry::{Announce, SelectedPeers};
use crate::time::{Duration, Instant};
use crate::torrent::{DownloadPlan, TorrentMachine, TorrentParameters};
use crate::tracker_wire::{AddressFamily, AnnounceEvent, compact_peers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

/// Candidates that a peer knows for each connection that it opens: a third of production's proportion, since a quarter of
/// the memory of large swarms were candidates.
const CANDIDATES_PER_DIALLED: usize = CANDIDATES_PER_TORRENT_MAX / DIALLED_PER_TORRENT_MAX as usize / 3;
/// Peers that a tracker is asked for.
const PEERS_WANTED: usize = 50;

/// Time that a deserter stays.
const DESERTION_TIME: Duration = Duration::from_secs(15);

fn dial_below(connections_max: usize) -> usize {
    connections_max.div_ceil(2)
}

/// Candidates that a peer with so many connections at most knows at most.
pub(super) fn candidates_max(connections_max: usize) -> usize {
    dial_below(connections_max) * CANDIDATES_PER_DIALLED
}

impl Node {
    pub fn new(number: PeerNumber, terms: PeerTerms, shape: &ContentShape, rng: &mut Rng) -> Self {
        let facts = Self::facts(shape, &terms.have, false);
        let mut rng = Rng::from_seed(rng.next_u64());
        Self {
            number,
            peer_id: PeerId::generate(&mut rng),
            terms,
            online: false,
            gone: false,
            stay: 0,
            facts,
            machine: TorrentMachine::new(Self::parameters(shape, Role::Leeching, crate::choker::Slots::Auto)),
            announcer: None,
            rng,
            connections: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            pieces: BTreeMap::new(),
            fast_grants: BTreeSet::new(),
            ready: VecDeque::new(),
            scheduled: SlotSet::default(),
            idle: SlotSet::default(),
            gained: Vec::new(),
            uplink_busy: false,
            paid_until: Instant::ZERO,
            received_until: Instant::ZERO,
            downlink_free_at: Instant::ZERO,
            timer: None,
            announce_timer: None,
            draining: false,
            arrived_at: None,
            left_at: None,
            leeching: Leeching::default(),
            given: 0,
            taken: 0,
            wasted: 0,
            completed_at: None,
            banned: 0,
            trouble: super::fault::Trouble::default(),
            script: None,
        }
    }

    fn facts(shape: &ContentShape, have: &Bitfield, hides_stock: bool) -> Arc<TorrentFacts> {
        Arc::new(TorrentFacts {
            info_hash: INFO_HASH,
            piece_length: shape.piece_length,
            total_len: shape.total_len,
            have: have.clone().into(),
            info: None,
            satisfied: have.is_full().into(),
            private: false,
            hides_stock: hides_stock.into(),
        })
    }

    fn parameters(shape: &ContentShape, role: Role, slots: crate::choker::Slots) -> TorrentParameters {
        TorrentParameters { role, slots, piece_len: shape.piece_length, total_len: shape.total_len }
    }
}

impl Swarm {
    pub(super) fn arrive(&mut self, number: PeerNumber) {
        let (shape, policies) = (self.shape, self.policies);
        let node = &mut self.nodes[number.0 as usize];
        if node.online {
            return;
        }
        node.online = true;
        node.stay += 1;
        node.arrived_at = node.arrived_at.or(Some(self.now));
        node.left_at = None;
        // What it had when it left is what it comes back with.
        let have = node.facts.have.snapshot();
        let is_seed = have.is_full();
        if !is_seed {
            node.leeching.begin(self.now);
        }
        let hides = is_seed && policies.super_seed && node.completed_at.is_none();
        node.facts = Node::facts(&shape, &have, hides);
        let (role, slots) =
            if is_seed { (Role::Seeding, policies.seed_slots) } else { (Role::Leeching, policies.slots) };
        node.machine = TorrentMachine::new(Node::parameters(&shape, role, slots));
        node.machine.keep_members(PeerListSettings {
            own: vec![Node::address(number)],
            connections_max: policies.connections_max,
            dial_below: dial_below(policies.connections_max),
            candidates_max: candidates_max(policies.connections_max),
            ..PeerListSettings::new(node.peer_id)
        });
        if !policies.optimistic {
            node.machine.leave_out_optimistic_slot();
        }
        if hides {
            node.machine.begin_super_seed(shape.piece_count());
        }
        if !is_seed {
            let plan = DownloadPlan {
                shape: PieceShape {
                    piece_count: shape.piece_count(),
                    piece_length: shape.piece_length,
                    total_len: shape.total_len,
                },
                have: have.clone(),
                wanted: Bitfield::all(shape.piece_count()),
                first: Bitfield::none(shape.piece_count()),
                order: policies.order,
            };
            node.machine.begin_download(&plan, &mut node.rng);
        }
        let config = AnnouncerConfig { families: vec![AddressFamily::V4], ..AnnouncerConfig::default() };
        let tracker = vec![vec!["the tracker".into()]];
        node.announcer = Some(Announcer::new(&tracker, config, self.now, &mut node.rng));
        let (stay, departs) = (node.stay, node.terms.departs);
        have.iter().for_each(|piece| self.copies[piece.0 as usize] += 1);
        self.note(u64::from(number.0) << 8 | 1);
        match departs {
            // It has been away, or was dead then and stays away now.
            Departure::At { at, away } if at > self.now || away.is_none() => {
                self.events.put(at, Event::Leave(number, stay));
            }
            Departure::AfterCompletion(time) if is_seed => {
                self.events.put(self.now + time, Event::Leave(number, stay));
            }
            _ => {}
        }
        self.tell(|| format!("peer {} comes with {} pieces", number.0, have.count()));
        self.announce(number);
        self.drain(number);
    }

    pub(super) fn leave(&mut self, number: PeerNumber, stay: u32) {
        let node = &mut self.nodes[number.0 as usize];
        if !node.online || node.stay != stay {
            return;
        }
        if let Some(announcer) = &mut node.announcer {
            announcer.stop();
        }
        self.announce(number);
        let node = &mut self.nodes[number.0 as usize];
        node.online = false;
        node.left_at = Some(self.now);
        node.leeching.end(self.now);
        let seats: Vec<Seat> = node.open_slots().into_iter().map(|slot| node.seat(slot)).collect();
        for seat in seats {
            self.hang_up(seat);
        }
        let node = &mut self.nodes[number.0 as usize];
        node.lie_down();
        let back_at = match node.terms.departs {
            Departure::At { away: Some(away), .. } => Some(self.now + away),
            _ => None,
        };
        node.gone = back_at.is_none();
        let have = node.facts.have.snapshot();
        if back_at.is_none() && !have.is_full() && node.completed_at.is_none() {
            // It will never have everything.
            self.waiting -= 1;
        }
        have.iter().for_each(|piece| self.copies[piece.0 as usize] -= 1);
        self.tell(|| format!("peer {} leaves with {} pieces", number.0, have.count()));
        self.note(u64::from(number.0) << 8 | 2);
        if let Some(back_at) = back_at {
            self.events.put(back_at, Event::Arrive(number));
        }
    }

    /// Tells the tracker what is due to be told, and sets the time of the next.
    pub(super) fn announce(&mut self, number: PeerNumber) {
        let node = &mut self.nodes[number.0 as usize];
        let Some(announcer) = &mut node.announcer else { return };
        let mut selected = SelectedPeers::default();
        let mut found: Vec<SocketAddr> = Vec::new();
        while let Some(job) = announcer.poll_announce(self.now) {
            if self.now < self.tracker_silent_until {
                announcer.handle_failure(self.now, job.endpoint, Failure::Passing, &mut node.rng);
                continue;
            }
            let announce = Announce {
                info_hash: INFO_HASH,
                address: Node::address(number),
                is_seed: node.facts.wants_nothing(),
                event: job.event,
                wanted: if job.event == AnnounceEvent::Stopped { 0 } else { PEERS_WANTED },
                both_families: false,
            };
            self.registry.announce(self.now, &mut self.rng, &announce, &mut selected);
            found.extend(compact_peers(&selected.v4, AddressFamily::V4));
            let terms = Terms { interval: TRACKER_INTERVAL_DEFAULT, interval_min: None };
            announcer.handle_response(self.now, job.endpoint, terms);
        }
        let due = announcer.poll_timeout();
        let stay = node.stay;
        if let Some(due) = due
            && node.announce_timer.is_none_or(|timer| due < timer || timer <= self.now)
        {
            node.announce_timer = Some(due);
            self.events.put(due, Event::AnnounceTimer(number, stay));
        }
        for address in found {
            node.machine.handle_candidate(self.now, address, Source::Tracker(Scope::Global), &mut node.rng);
        }
    }

    pub(super) fn handle_announce_timer(&mut self, number: PeerNumber, stay: u32) {
        let node = &mut self.nodes[number.0 as usize];
        if node.online && node.stay == stay && node.announce_timer.is_some_and(|timer| timer <= self.now) {
            self.announce(number);
            self.drain(number);
        }
    }

    /// A peer calls another.
    pub(super) fn dial(&mut self, number: PeerNumber, address: SocketAddr) {
        let now = self.now;
        let node = &mut self.nodes[number.0 as usize];
        let machine = PeerMachine::outgoing(now, INFO_HASH, node.peer_id);
        let seat = node.admit(machine, address.ip(), Some(address));
        match Node::number_of(address).filter(|other| (other.0 as usize) < self.nodes.len()) {
            Some(other) => {
                let delay = delay_between(&self.nodes, number, other);
                self.events.put(now + delay, Event::Call(seat, other));
            }
            None => self.events.put(now, Event::Refusal(seat)),
        }
    }

    pub(super) fn handle_call(&mut self, from: Seat, to: PeerNumber) {
        let (now, delay) = (self.now, delay_between(&self.nodes, from.node, to));
        let node = &mut self.nodes[to.0 as usize];
        if !node.online {
            return self.events.put(now + delay, Event::Refusal(from));
        }
        let seat = node.admit(PeerMachine::incoming(now), Node::address(from.node).ip(), None);
        if let Some(connection) = node.connection(seat.slot, seat.generation) {
            connection.other = Some(from);
        }
        self.set_connection_timer(seat);
        self.plan_desertion(seat);
        self.events.put(now + delay, Event::Answer(from, Box::new(seat)));
    }

    pub(super) fn handle_answer(&mut self, seat: Seat, other: Seat) {
        let delay = delay_between(&self.nodes, seat.node, other.node);
        let node = &mut self.nodes[seat.node.0 as usize];
        match node.connection(seat.slot, seat.generation) {
            Some(connection) => {
                connection.other = Some(other);
                node.schedule(seat.slot);
                self.set_connection_timer(seat);
                self.plan_desertion(seat);
                self.start_uplink(seat.node);
            }
            None => self.events.put(self.now + delay, Event::Gone(other)),
        }
    }

    /// A deserter has a connection: it will not have it for long.
    fn plan_desertion(&mut self, seat: Seat) {
        if self.nodes[seat.node.0 as usize].terms.manner == Manner::Deserter {
            self.events.put(self.now + DESERTION_TIME, Event::Desertion(seat));
        }
    }

    pub(super) fn handle_desertion(&mut self, seat: Seat) {
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.connection(seat.slot, seat.generation) else { return };
        let Some(other) = connection.other else { return };
        self.close(seat, Closed::Normal);
        self.dial(seat.node, Node::address(other.node));
    }

    pub(super) fn handle_refusal(&mut self, seat: Seat) {
        let node = &mut self.nodes[seat.node.0 as usize];
        let Some(connection) = node.remove(seat) else { return };
        if let Some(address) = connection.dialled.filter(|_| node.online) {
            node.machine.handle_dial_failed(self.now, address, false, &mut node.rng);
            self.drain(seat.node);
        }
    }

    pub(super) fn handle_gone(&mut self, seat: Seat) {
        let node = &mut self.nodes[seat.node.0 as usize];
        if let Some(connection) = node.connection(seat.slot, seat.generation) {
            connection.other = None;
            self.close(seat, Closed::Normal);
        }
    }

    /// Closes a connection and tells everybody whom it concerns.
    pub(super) fn close(&mut self, seat: Seat, why: Closed) {
        let last = self.nodes[seat.node.0 as usize].connection(seat.slot, seat.generation);
        let last = last.map(|connection| connection.sample).unwrap_or_default();
        let Some((joined, dialled)) = self.hang_up(seat) else { return };
        let node = &mut self.nodes[seat.node.0 as usize];
        if joined {
            node.machine.handle_closed(self.now, seat.conn(), why, last, &mut node.rng);
        } else if let Some(address) = dialled {
            node.machine.handle_dial_failed(self.now, address, why == Closed::Ourselves, &mut node.rng);
        }
        self.drain(seat.node);
    }

    /// Takes a connection away; the other end hears of it. What is on its way to this end will be lost.
    fn hang_up(&mut self, seat: Seat) -> Option<(bool, Option<SocketAddr>)> {
        let node = &mut self.nodes[seat.node.0 as usize];
        let connection = node.remove(seat)?;
        self.note(u64::from(seat.node.0) << 32 | u64::from(seat.slot) << 8 | 4);
        if let Some(other) = connection.other {
            let delay = delay_between(&self.nodes, seat.node, other.node);
            // Behind everything that was said before.
            let at = (self.now + delay).max(self.nodes[other.node.0 as usize].downlink_free_at);
            self.events.put(at, Event::Gone(other));
        }
        Some((connection.joined, connection.dialled))
    }
}
