//! A whole swarm, simulated: every peer is the product's own machines, and only lines and time are made up.
//!
//! A peer is a [`PeerMachine`](crate::peer::PeerMachine) for each connection and one
//! [`TorrentMachine`](crate::torrent::TorrentMachine) with picker, choker, peer list, peer exchange and convictions; the
//! tracker is the product's registry. Control bytes go through the real encoder and decoder; payload has a length and
//! no bytes. What the worker does between these machines in production (`engine/worker/{home,download,receive}`) is done
//! here by `talk`, on one core and without buffers.
//!
//! The line (`flow`): a peer sends one packet at a time at the rate of its uplink, its connections in turn, so that
//! those with something to send share it fairly, block by block, as TCP would on average. A packet arrives after the
//! delay of both ends, behind what else was sent to the receiver over its downlink. A connection has at most
//! [`WINDOW_LEN`](node::WINDOW_LEN) bytes on its way.
//!
//! A run is a function of its seed and its terms. [`Swarm::trace`] is a hash of it: who heard which packet when, what was
//! stored, who came, went and hung up.
//!
//! Deliberately absent: loss and congestion, bytes on disk, more than one torrent, encryption, IPv6, and what a worker
//! tells of its load: slots that follow it are those of a process that knows no limit of its line.

mod check;
#[cfg(test)]
mod check_tests;
mod drawn;
mod event_queue;
mod fault;
mod flow;
mod foresight;
mod hostile;
mod ledger;
mod life;
mod node;
mod scripted;
mod talk;
mod tap;
mod terms;
#[cfg(test)]
mod tests;

pub use check::{Property, Violation};
pub use drawn::{Drawn, Report};
pub use event_queue::EventQueue;
pub use fault::Fault;
pub use ledger::Ledger;
pub use terms::{ContentShape, Departure, Hostility, Manner, PeerNumber, PeerTerms, Policies};

use crate::id::InfoHash;
use crate::limits::TRACKER_INTERVAL_DEFAULT;
use crate::rng::Rng;
use crate::swarm_registry::SwarmRegistry;
use crate::time::{Duration, Instant};
use crate::units::PieceIndex;
use node::{Node, Packet, Seat};

/// The torrent that all share.
const INFO_HASH: InfoHash = InfoHash([0x5e; 20]);

/// Something that happens at a moment.
#[derive(Debug)]
enum Event {
    Arrive(PeerNumber),
    Leave(PeerNumber, u32),
    /// The uplink can send the next packet.
    Uplink(PeerNumber),
    /// A packet for this end is there.
    Packet(Seat, Box<Packet>),
    /// Something has arrived of what filled the window of this end.
    Window(Seat),
    /// A call arrives at a peer, from this end.
    Call(Seat, PeerNumber),
    /// The peer that was called has answered: its end of the connection.
    Answer(Seat, Box<Seat>),
    /// Nobody has answered.
    Refusal(Seat),
    /// The other end is closed.
    Gone(Seat),
    /// A deserter ends this connection, and begins another.
    Desertion(Seat),
    ConnectionTimer(Seat),
    Timer(PeerNumber, u32),
    AnnounceTimer(PeerNumber, u32),
    /// A piece has been hashed and stored, or found wrong.
    Stored(PeerNumber, u32, PieceIndex, bool),
    /// What was planned to go wrong does.
    Fault(u32),
}

/// Bytes of payload, of which none may get lost unseen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Handed to lines.
    pub sent: u64,
    /// Arrived.
    pub received: u64,
    /// On their way.
    pub in_flight: u64,
    /// Were on their way when their connection ended.
    pub lost: u64,
}

/// What became of one peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// When it came first; `None` when it has not.
    pub arrived_at: Option<Instant>,
    /// When it left; `None` while it is here, or has not come.
    pub left_at: Option<Instant>,
    /// When it had everything; `None` when it never had, or came with it.
    pub completed_at: Option<Instant>,
    /// How long it was here without having everything.
    pub leeched: Duration,
    /// Of that: how long its uplink was busy.
    pub busy: Duration,
    /// Bytes of payload that it gave meanwhile.
    pub given_leeching: u64,
    /// Bytes of payload that it gave.
    pub given: u64,
    /// Bytes of payload that it took, those of no use included.
    pub taken: u64,
    /// Of these: bytes that it had already, or that were wrong.
    pub wasted: u64,
    /// Pieces that it has.
    pub pieces: u32,
    /// Peers that it banned.
    pub banned: u32,
}

/// A swarm and its time.
#[derive(Debug)]
pub struct Swarm {
    now: Instant,
    events: EventQueue<Event>,
    nodes: Vec<Node>,
    shape: ContentShape,
    policies: Policies,
    registry: SwarmRegistry,
    rng: Rng,
    trace: u64,
    happened: u64,
    balance: Balance,
    /// How many peers that are here have each piece.
    copies: Vec<u32>,
    ledger: Ledger,
    waiting: usize,
    wrong_blocks: u32,
    /// Messages of the packet that is being sent.
    control: Vec<u8>,
    /// Memory of packets that have arrived, to be used again while it is in the caches.
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    spare: Vec<Box<Packet>>,
    /// Pieces told of by the packet that is being heard.
    found: Vec<PieceIndex>,
    faults: Vec<Fault>,
    tracker_silent_until: Instant,
    checks: Option<Box<check::Checks>>,
    /// What machines wanted done because of the event at hand, and the bytes of messages that it brought.
    acted: u64,
    heard: u64,
}

impl Swarm {
    /// Peers that are about to come.
    pub fn new(seed: u64, shape: ContentShape, policies: Policies, peers: Vec<PeerTerms>) -> Self {
        let mut rng = Rng::from_seed(seed);
        let mut events = EventQueue::new();
        let mut nodes = Vec::with_capacity(peers.len());
        for (number, terms) in (0..).map(PeerNumber).zip(peers) {
            events.put(terms.arrives, Event::Arrive(number));
            nodes.push(Node::new(number, terms, &shape, &mut rng));
        }
        let waiting = nodes.iter().filter(|node| !node.terms.have.is_full()).count();
        let classes = nodes.iter().map(|node| node.terms.class).max().map_or(0, |last| usize::from(last) + 1);
        Self {
            now: Instant::ZERO,
            events,
            nodes,
            shape,
            policies,
            registry: SwarmRegistry::new(TRACKER_INTERVAL_DEFAULT * 2),
            rng,
            trace: seed,
            happened: 0,
            balance: Balance::default(),
            copies: vec![0; shape.piece_count() as usize],
            ledger: Ledger::new(classes),
            waiting,
            wrong_blocks: 0,
            control: Vec::new(),
            spare: Vec::new(),
            found: Vec::new(),
            faults: Vec::new(),
            tracker_silent_until: Instant::ZERO,
            checks: None,
            acted: 0,
            heard: 0,
        }
    }

    /// A peer of the manner [`Hostility::Scripted`] says this: whole messages, as [`scripted`] reads any bytes.
    pub fn give_script(&mut self, peer: PeerNumber, script: Vec<u8>) {
        if let Some(node) = self.nodes.get_mut(peer.0 as usize) {
            node.script = Some(scripted::Script::new(script));
        }
    }

    /// Lets everything happen that is due until `limit`, or until everybody who came without everything has it. Whether
    /// that is so.
    pub fn run_until(&mut self, limit: Instant) -> bool {
        while self.waiting > 0 && self.step(limit) {}
        if self.waiting > 0 {
            self.now = self.now.max(limit);
        }
        self.waiting == 0
    }

    /// Lets everything happen that is due until `limit`.
    pub fn run_on(&mut self, limit: Instant) {
        while self.step(limit) {}
        if self.violation().is_none() {
            self.now = self.now.max(limit);
        }
    }

    fn step(&mut self, limit: Instant) -> bool {
        let Some((at, event)) = self.events.take_until(limit) else { return false };
        self.now = at;
        self.happened += 1;
        self.foresee();
        (self.acted, self.heard) = (0, 0);
        self.happen(event);
        self.check()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Uplink(node) => self.handle_uplink(node),
            Event::Packet(seat, packet) => {
                self.handle_packet(seat, &packet);
                self.spare.push(packet);
            }
            Event::Window(seat) => self.handle_window(seat),
            Event::ConnectionTimer(seat) => self.handle_connection_timer(seat),
            Event::Timer(node, stay) => self.handle_timer(node, stay),
            Event::Stored(node, stay, piece, good) => self.handle_stored(node, stay, piece, good),
            Event::Call(from, to) => self.handle_call(from, to),
            Event::Answer(seat, other) => self.handle_answer(seat, *other),
            Event::Refusal(seat) => self.handle_refusal(seat),
            Event::Gone(seat) => self.handle_gone(seat),
            Event::Desertion(seat) => self.handle_desertion(seat),
            Event::AnnounceTimer(node, stay) => self.handle_announce_timer(node, stay),
            Event::Arrive(node) => self.arrive(node),
            Event::Leave(node, stay) => self.leave(node, stay),
            Event::Fault(number) => self.handle_fault(number),
        }
    }

    fn note(&mut self, what: u64) {
        // Any mixture that depends on the order serves.
        let mixed = (self.trace ^ what ^ self.now.as_nanos()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.trace = mixed.rotate_left(29) ^ what;
    }

    /// The time it is.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A hash of what happened and when: equal for equal seeds and terms.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    /// Events that have happened.
    pub fn happened(&self) -> u64 {
        self.happened
    }

    /// Where all payload is.
    pub fn balance(&self) -> Balance {
        self.balance
    }

    /// How many of the peers that are here have each piece.
    pub fn copies(&self) -> &[u32] {
        &self.copies
    }

    /// Payload by the classes of givers and takers.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Peers that have not everything, those apart that have left for good.
    pub fn lacking(&self) -> impl Iterator<Item = PeerNumber> + '_ {
        let lacking = self.nodes.iter().filter(|node| !node.gone && !node.facts.have.is_full());
        lacking.map(|node| node.number)
    }

    /// What became of each peer.
    pub fn outcomes(&self) -> impl Iterator<Item = Outcome> + '_ {
        self.nodes.iter().map(|node| Outcome {
            arrived_at: node.arrived_at,
            left_at: node.left_at,
            completed_at: node.completed_at,
            leeched: node.leeching.time(self.now),
            busy: node.leeching.busy,
            given_leeching: node.leeching.given,
            given: node.given,
            taken: node.taken,
            wasted: node.wasted,
            pieces: node.facts.have.count(),
            banned: node.banned,
        })
    }
}

/// Time between two peers.
fn delay_between(nodes: &[Node], one: PeerNumber, other: PeerNumber) -> Duration {
    let delay =
        |number: PeerNumber| nodes.get(number.0 as usize).map_or(Duration::ZERO, |node| node.terms.delay);
    delay(one) + delay(other)
}
