//! What must hold in every swarm at every moment, whatever its peers do and whatever goes wrong.
//!
//! Checks are off unless [`Swarm::check_every`] switches them on; then everything that is said is read off the lines
//! ([`Tap`]), and everything is counted anew after a fixed number of events, by means of their own where there are any.
//! The first violation ends the run.
//!
//! Deliberately absent: how good a swarm is. That everybody completes in the end is for whoever knows who can
//! ([`Drawn::run`](super::Drawn::run)).

use super::life::candidates_max;
use super::node::{Node, Packet, Seat};
use super::tap::Tap;
use super::terms::{Manner, PeerNumber};
use super::{Event, Swarm};
use crate::bitfield::Bitfield;
use crate::choker::Grant;
use crate::limits::{
    BLOCK_SILENCE_MAX, CONTROL_QUEUED_LEN_MAX, DIALLING_PER_TORRENT_MAX, REQUESTED_LEN_MAX,
    REQUESTS_QUEUED_MAX,
};
use crate::time::{Duration, Instant};
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

/// Events that lie ahead for each connection at most: its timers, those that were overtaken by earlier ones
/// included, and its end.
const EVENTS_PER_CONNECTION_MAX: usize = 64;
/// Events that lie ahead for each peer at most.
const EVENTS_PER_PEER_MAX: usize = 256;
/// Bytes of control that one event may add to a queue that is full: haves, rejects of a whole queue of requests.
const CONTROL_SLACK: usize = REQUESTS_QUEUED_MAX * 17;
/// What one event may make the machines do: so much by itself, so much for each connection, and one thing for each byte
/// of messages, of which the shortest has five.
const ACTIONS_MAX: u64 = 256;
const ACTIONS_PER_CONNECTION_MAX: u64 = 8;
/// Lines of a story that are kept: the last ones.
const STORY_LEN_MAX: usize = 400;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Property {
    /// Bytes of payload given are bytes received, in flight, or lost with a broken connection.
    BytesBalance,
    /// No block is sent to a peer that we choke, unless it is of a piece that is allowed fast (BEP 6).
    NoBlockWhileChoked,
    /// Nothing is offered, and nothing given, that was not verified and stored, or not offered on this connection.
    OnlyStoredOffered,
    /// Every block and every reject answers a request, and no request is answered twice (BEP 6).
    AnsweredOnce,
    /// What the product sends is what the product can read.
    Readable,
    /// Regular and optimistic slots are within their bounds, and connections are choked as the choker says.
    SlotsWithinBounds,
    /// The picker's availability of each piece is what a recount of the connections' stocks gives.
    Availability,
    /// A block is asked of two peers in the endgame or when the first is late, and never of three.
    AskedOnce,
    /// What the picker believes to be owed was asked, so that nothing is waited for in vain.
    OwedIsAsked,
    /// Every queue is within its bound.
    QueuesWithinBounds,
    /// What one event makes the machines do is bounded by their connections and by the bytes that it brought.
    WorkWithinBounds,
    /// Of two connections that two peers opened to each other one goes.
    OneConnection,
    /// Nobody is connected with a peer that is banned.
    BannedStayOut,
    /// Nobody is banned who did not send wrong bytes.
    OnlyLiarsBanned,
    /// Nobody who keeps to the protocol is closed for breaking it.
    NobodyWronged,
    /// Everybody who can complete does in bounded time once faults have stopped.
    EverybodyCompletes,
}

impl Property {
    /// In one sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::BytesBalance => "bytes given are received, in flight, or lost with a connection",
            Self::NoBlockWhileChoked => "no block is sent to a peer that is choked",
            Self::OnlyStoredOffered => "only what is verified and stored is offered and given",
            Self::AnsweredOnce => "every answer is to a request, and to another one each",
            Self::Readable => "what is sent can be read",
            Self::SlotsWithinBounds => "slots are within their bounds",
            Self::Availability => "availability equals a recount of the connections' stocks",
            Self::AskedOnce => "no block is asked twice outside the endgame",
            Self::OwedIsAsked => "what is believed to be owed was asked",
            Self::QueuesWithinBounds => "every queue is within its bound",
            Self::WorkWithinBounds => {
                "an event makes no more work than its bytes and connections account for"
            }
            Self::OneConnection => "of two connections that two peers opened to each other one goes",
            Self::BannedStayOut => "nobody is connected with a banned peer",
            Self::OnlyLiarsBanned => "only who sent wrong bytes is banned",
            Self::NobodyWronged => "nobody who keeps to the protocol is closed for breaking it",
            Self::EverybodyCompletes => "everybody who can complete does",
        }
    }
}

/// A property that did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub property: Property,
    /// When that was found.
    pub at: Instant,
    /// At whose place.
    pub peer: PeerNumber,
    /// What exactly.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at.as_nanos() as f64 / 1e9;
        let sentence = self.property.sentence();
        write!(out, "at {seconds:.6} s, peer {}: not true that {sentence}: {}", self.peer.0, self.what)
    }
}

/// The checks of one run.
#[derive(Debug)]
pub(super) struct Checks {
    every: u32,
    until_next: u32,
    /// What is really on each peer's disk.
    stored: Vec<Bitfield>,
    /// By the end that speaks.
    pub taps: BTreeMap<Seat, Tap>,
    /// Whether each peer was in its endgame when it chose what it asks for now.
    endgame: Vec<bool>,
    violation: Option<Violation>,
    made: u64,
    story: Option<Vec<(Instant, String)>>,
}

type Finding = Result<(), (Property, PeerNumber, String)>;

impl Checks {
    /// A piece was verified and stored.
    pub fn store(&mut self, number: PeerNumber, piece: PieceIndex) {
        if let Some(stored) = self.stored.get_mut(number.0 as usize) {
            stored.insert(piece);
        }
    }

    /// Pieces are gone.
    pub fn lose(&mut self, number: PeerNumber, pieces: &[PieceIndex]) {
        if let Some(stored) = self.stored.get_mut(number.0 as usize) {
            pieces.iter().for_each(|&piece| _ = stored.remove(piece));
        }
    }

    fn find(&mut self, now: Instant, finding: Finding) {
        if let (Err((property, peer, what)), None) = (finding, &self.violation) {
            self.violation = Some(Violation { property, at: now, peer, what });
        }
    }

    /// A packet leaves `from` for `to`.
    pub fn sent(&mut self, now: Instant, from: Seat, to: Seat, packet: &Packet, sender: &Node) {
        let stored = &self.stored[from.node.0 as usize];
        let tap = self.taps.entry(from).or_insert_with(|| Tap::new(stored.len(), to));
        let said = tap.read(packet);
        // Who is hostile may say what it likes.
        if !sender.terms.manner.keeps_protocol() {
            return;
        }
        let mut finding = said.fault.map_or(Ok(()), |(property, what)| Err((property, from.node, what)));
        if let Some(piece) = said.offered.iter().find(|&&piece| !stored.contains(piece)) {
            let what = format!("{piece:?} offered to peer {}", to.node.0);
            finding = Err((Property::OnlyStoredOffered, from.node, what));
        }
        for span in said.answered {
            // A peer that has said nothing yet has asked for nothing.
            let was_asked =
                self.taps.get_mut(&to).is_some_and(|other| other.is_answered(span) || !other.is_readable());
            if !was_asked && finding.is_ok() {
                let what = format!("{span:?}, which peer {} does not wait for", to.node.0);
                finding = Err((Property::AnsweredOnce, from.node, what));
            }
        }
        self.find(now, finding);
    }

    /// A peer's machine is about to say what it wants, or the next of what it wants: that was chosen before.
    pub fn choosing(&mut self, node: &Node, is_first: bool) {
        let endgame = &mut self.endgame[node.number.0 as usize];
        *endgame = node.machine.is_in_endgame() || *endgame && !is_first;
    }

    /// Blocks are about to be asked of a peer.
    pub fn asked(&mut self, now: Instant, node: &Node, of: Seat, spans: &[BlockSpan]) {
        if self.endgame[node.number.0 as usize] || node.machine.is_in_endgame() {
            return;
        }
        for (slot, connection) in (0..).zip(&node.connections) {
            let Some(connection) = connection.as_ref().filter(|it| slot != of.slot && !it.late) else {
                continue;
            };
            // Nobody waits for who has given nothing, ever or lately.
            let silent = now.since(connection.gave_at) + Duration::from_millis(100) >= BLOCK_SILENCE_MAX;
            if connection.sample.downloaded == 0 || silent {
                continue;
            }
            let twice = connection.machine.asked().find(|span| spans.contains(span));
            if let Some(span) = twice.filter(|span| node.machine.is_owed(node.seat(slot).conn(), *span)) {
                let finding = (Property::AskedOnce, node.number, format!("{span:?} asked of two peers"));
                self.find(now, Err(finding));
            }
        }
    }

    /// A peer was closed for breaking the protocol.
    pub fn closed_at_fault(&mut self, now: Instant, by: &Node, whose: Option<&Node>, why: &str) {
        // The machine of a hostile peer does not know what else was said in its name.
        let keeps = |node: &Node| node.terms.manner.keeps_protocol();
        if let Some(other) = whose.filter(|other| keeps(by) && keeps(other)) {
            let what = format!("peer {} was closed: {why}", other.number.0);
            self.find(now, Err((Property::NobodyWronged, by.number, what)));
        }
    }

    /// Counts everything anew.
    fn recount(&mut self, swarm: &Swarm) -> Finding {
        self.made += 1;
        self.taps.retain(|seat, tap| swarm.peek(*seat).is_some() || swarm.peek(tap.partner).is_some());
        let packets = check_balance(swarm)?;
        let mut events = packets + swarm.faults.len();
        for (node, stored) in swarm.nodes.iter().zip(&self.stored) {
            let number = node.number;
            if node.facts.have.snapshot() != *stored {
                let what = "what it says it has is not what it has stored".to_owned();
                return Err((Property::OnlyStoredOffered, number, what));
            }
            events += EVENTS_PER_PEER_MAX + node.pieces.len();
            let connections = node.connections.iter().flatten();
            events += connections.count() * EVENTS_PER_CONNECTION_MAX;
            // Who is gone keeps no books.
            if node.online {
                check_slots(node, swarm.policies.optimistic)?;
                check_availability(node)?;
                check_asked(node)?;
                check_queues(node, swarm.policies.connections_max)?;
                check_partners(swarm, node)?;
            }
        }
        if swarm.events.len() > events {
            let what = format!("{} events lie ahead, where {events} are explained", swarm.events.len());
            return Err((Property::QueuesWithinBounds, PeerNumber(0), what));
        }
        Ok(())
    }
}

/// Packets on lines, if their payload is what the balance says.
fn check_balance(swarm: &Swarm) -> Result<usize, (Property, PeerNumber, String)> {
    let (mut packets, mut in_flight) = (0, 0);
    for event in swarm.events.iter() {
        if let Event::Packet(_, packet) = event {
            packets += 1;
            in_flight += packet.block.map_or(0, |block| u64::from(block.span.len));
        }
    }
    let balance = swarm.balance;
    let given: u64 = swarm.nodes.iter().map(|node| node.given).sum();
    let explained = balance.received + balance.in_flight + balance.lost;
    if balance.sent != explained || balance.in_flight != in_flight || given != balance.sent {
        let what = format!("{balance:?}, while {in_flight} are on lines and peers gave {given}");
        return Err((Property::BytesBalance, PeerNumber(0), what));
    }
    Ok(packets)
}

fn check_slots(node: &Node, has_optimistic: bool) -> Finding {
    let machine = &node.machine;
    let fault = |what: String| Err((Property::SlotsWithinBounds, node.number, what));
    let count = |grant| machine.grants().filter(|&(_, it)| it == grant).count();
    let (regular, optimistic) = (count(Grant::Regular), count(Grant::Optimistic));
    let slots = machine.slots();
    if regular > slots
        || regular != machine.slots_open()
        || regular + optimistic > slots + usize::from(has_optimistic)
    {
        let open = machine.slots_open();
        return fault(format!(
            "{regular} regular ({open} counted) and {optimistic} optimistic of {slots} slots"
        ));
    }
    if matches!(node.terms.manner, Manner::FreeRider | Manner::Mute) {
        return Ok(());
    }
    for (conn, grant) in machine.grants() {
        let connection = node.connections.get(conn.slot as usize).and_then(Option::as_ref);
        if connection.is_none_or(|it| it.machine.choked_by_us() != (grant == Grant::Choked)) {
            return fault(format!("the connection in slot {} is not {grant:?}", conn.slot));
        }
    }
    Ok(())
}

fn check_availability(node: &Node) -> Finding {
    if !node.machine.is_downloading() {
        return Ok(());
    }
    let piece_count = node.facts.piece_count();
    let mut counts = vec![0_u32; piece_count as usize];
    for connection in node.connections.iter().flatten().filter(|connection| connection.joined) {
        match connection.machine.stock() {
            crate::peer::Stock::None => {}
            crate::peer::Stock::All => counts.iter_mut().for_each(|count| *count += 1),
            crate::peer::Stock::Some(pieces) => {
                pieces.iter().for_each(|piece| counts[piece.0 as usize] += 1);
            }
        }
    }
    for (piece, count) in (0..piece_count).map(PieceIndex).zip(counts) {
        let known = node.machine.availability(piece);
        if known != Some(count) {
            let what = format!("{piece:?} is counted {known:?} times, and {count} peers have it");
            return Err((Property::Availability, node.number, what));
        }
    }
    Ok(())
}

fn check_asked(node: &Node) -> Finding {
    let mut asked: Vec<BlockSpan> = Vec::new();
    for (slot, connection) in (0..).zip(&node.connections) {
        let Some(connection) = connection.as_ref().filter(|connection| connection.joined) else { continue };
        let conn = node.seat(slot).conn();
        let before = asked.len();
        asked.extend(connection.machine.asked().filter(|&span| node.machine.is_owed(conn, span)));
        let (owed, open) = (node.machine.owed_by(conn), asked.len() - before);
        if node.machine.is_downloading() && owed as usize != open {
            let what = format!("{owed} blocks owed by the peer in slot {slot}, which was asked for {open}");
            return Err((Property::OwedIsAsked, node.number, what));
        }
    }
    asked.sort_unstable_by_key(|span| (span.piece, span.begin));
    let thrice = asked.windows(3).find(|spans| spans[0] == spans[2]);
    thrice.map_or(Ok(()), |spans| {
        Err((Property::AskedOnce, node.number, format!("{:?} asked of three peers", spans[0])))
    })
}

fn check_queues(node: &Node, connections_max: usize) -> Finding {
    let bound = |what: &str, is: usize, most: usize| {
        let fault = || (Property::QueuesWithinBounds, node.number, format!("{is} {what}, of {most} at most"));
        if is > most { Err(fault()) } else { Ok(()) }
    };
    for connection in node.connections.iter().flatten() {
        let machine = &connection.machine;
        bound("requests queued", machine.queued_blocks(), REQUESTS_QUEUED_MAX)?;
        let control = machine.control_queued_len();
        bound("bytes of control queued", control, CONTROL_QUEUED_LEN_MAX + CONTROL_SLACK)?;
        bound("requests under way", machine.outstanding(), (REQUESTED_LEN_MAX / BLOCK_LEN) as usize)?;
    }
    if let Some(members) = node.machine.member_counts() {
        bound("candidates", members.candidates, candidates_max(connections_max))?;
        bound("dials", members.dialling, DIALLING_PER_TORRENT_MAX)?;
        bound("connections", members.connected, connections_max)?;
    }
    let joined = node.connections.iter().flatten().filter(|connection| connection.joined).count();
    bound("connections joined", joined, connections_max)?;
    let pieces = node.pieces.len();
    bound("pieces in flight", pieces, node.machine.pieces_in_flight_max().unwrap_or(pieces))
}

fn check_partners(swarm: &Swarm, node: &Node) -> Finding {
    let joined = node.connections.iter().flatten().filter(|connection| connection.joined);
    let node_at = |ip: IpAddr| {
        let number = Node::number_of(std::net::SocketAddr::new(ip, super::node::PORT))?;
        swarm.nodes.get(number.0 as usize)
    };
    // With each partner: connections that we opened, and whether one is there that the side with the lesser name opened
    // and that has told where it leads to.
    let mut partners: BTreeMap<IpAddr, (u32, bool)> = BTreeMap::new();
    for connection in joined {
        let (opened, is_too_much) = partners.entry(connection.remote).or_default();
        if connection.dialled.is_some() {
            *opened += 1;
        } else {
            let is_lesser = node_at(connection.remote).is_some_and(|other| other.peer_id < node.peer_id);
            *is_too_much |= is_lesser && connection.machine.theirs().is_some_and(|it| it.port.is_some());
        }
    }
    let twice = partners.iter().find(|(_, (opened, is_too_much))| opened + u32::from(*is_too_much) > 1);
    if let Some((ip, _)) = twice.filter(|(_, (opened, _))| *opened > 0) {
        let what = format!("two connections with {ip}");
        return Err((Property::OneConnection, node.number, what));
    }
    for (ip, name) in node.machine.banned(swarm.now) {
        let whose = node_at(ip);
        let is_connected = node.connections.iter().flatten().any(|it| it.joined && it.remote == ip);
        if is_connected && whose.is_some_and(|whose| name == Some(whose.peer_id)) {
            return Err((Property::BannedStayOut, node.number, format!("{ip} is banned and connected")));
        }
        if whose.is_some_and(|whose| !may_be_banned(whose.terms.manner)) {
            return Err((Property::OnlyLiarsBanned, node.number, format!("{ip} is banned")));
        }
    }
    Ok(())
}

/// Whether a peer of that manner sends wrong bytes.
fn may_be_banned(manner: Manner) -> bool {
    matches!(manner, Manner::Liar(_)) || !manner.keeps_protocol()
}

impl Swarm {
    /// Checks everything after each run of so many events from now on, and what is said always. To be called before
    /// anything has happened.
    pub fn check_every(&mut self, events: u32) {
        self.checks = Some(Box::new(Checks {
            every: events.max(1),
            until_next: 0,
            stored: self.nodes.iter().map(|node| node.facts.have.snapshot()).collect(),
            taps: BTreeMap::new(),
            endgame: vec![false; self.nodes.len()],
            violation: None,
            made: 0,
            story: None,
        }));
    }

    /// Remembers what happens, in words. Only with checks.
    pub fn keep_story(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.story = Some(Vec::new());
        }
    }

    /// What happened, in words: the last of it.
    pub fn story(&self) -> &[(Instant, String)] {
        self.checks.as_ref().and_then(|checks| checks.story.as_deref()).unwrap_or_default()
    }

    /// The property that did not hold, if one did not.
    pub fn violation(&self) -> Option<&Violation> {
        self.checks.as_ref()?.violation.as_ref()
    }

    /// How often everything was counted anew.
    pub fn recounts(&self) -> u64 {
        self.checks.as_ref().map_or(0, |checks| checks.made)
    }

    /// Adds to the story, if one is kept.
    pub(super) fn tell(&mut self, words: impl FnOnce() -> String) {
        if let Some(checks) = &mut self.checks
            && let Some(story) = &mut checks.story
        {
            if story.len() >= 2 * STORY_LEN_MAX {
                story.drain(..STORY_LEN_MAX);
            }
            story.push((self.now, words()));
        }
    }

    /// Counts everything anew, now.
    pub(super) fn recount(&mut self) {
        if let Some(checks) = &mut self.checks {
            checks.until_next = 0;
        }
        self.check();
    }

    /// After each event, while there are checks; false when something did not hold.
    pub(super) fn check(&mut self) -> bool {
        let Some(mut checks) = self.checks.take() else { return true };
        checks.find(self.now, self.judge_work());
        if checks.until_next == 0 {
            checks.until_next = checks.every;
            let finding = checks.recount(self);
            checks.find(self.now, finding);
        }
        checks.until_next -= 1;
        let holds = checks.violation.is_none();
        self.checks = Some(checks);
        holds
    }

    fn judge_work(&self) -> Finding {
        let connections = self.policies.connections_max as u64;
        if self.acted <= ACTIONS_MAX + ACTIONS_PER_CONNECTION_MAX * connections + self.heard {
            return Ok(());
        }
        let what = format!("{} actions after {} bytes of messages", self.acted, self.heard);
        Err((Property::WorkWithinBounds, PeerNumber(0), what))
    }

    /// The connection at an end, if it still is.
    fn peek(&self, seat: Seat) -> Option<&super::node::Connection> {
        let node = self.nodes.get(seat.node.0 as usize)?;
        let is_it = node.generations.get(seat.slot as usize) == Some(&seat.generation);
        node.connections.get(seat.slot as usize).filter(|_| is_it)?.as_deref()
    }
}
