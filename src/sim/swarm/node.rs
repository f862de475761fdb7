//! One peer of a simulated swarm: the product's machines, and the line they speak over.

use super::fault::Trouble;
use super::ledger::Leeching;
use super::scripted::Script;
use super::terms::{PeerNumber, PeerTerms};
use crate::announcer::Announcer;
use crate::id::{AddressPrefix, ConnId, PeerId};
use crate::meter::PeerSample;
use crate::peer::{PeerMachine, TorrentFacts};
use crate::rng::Rng;
use crate::time::Instant;
use crate::torrent::TorrentMachine;
use crate::units::{BlockSpan, PieceIndex};
use smallvec::SmallVec;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

/// The port that every simulated peer listens on.
pub const PORT: u16 = 6881;
/// Bytes of a connection that may be on their way: what a kernel would have in its buffers and the line.
pub const WINDOW_LEN: u64 = 256 * 1024;

/// A connection's place at one of its ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seat {
    pub node: PeerNumber,
    pub slot: u32,
    pub generation: u32,
}

impl Seat {
    /// As the product's machines know it.
    pub fn conn(self) -> ConnId {
        ConnId { worker: 0, slot: self.slot, generation: self.generation }
    }

    pub fn of(node: PeerNumber, conn: ConnId) -> Self {
        Self { node, slot: conn.slot, generation: conn.generation }
    }
}

/// What travels over a connection at once: messages, and perhaps a block behind them.
#[derive(Debug)]
pub struct Packet {
    /// Seldom more than a few messages.
    pub control: SmallVec<[u8; 48]>,
    pub block: Option<SimBlock>,
}

/// A block without its bytes.
#[derive(Clone, Copy, Debug)]
pub struct SimBlock {
    pub span: BlockSpan,
    /// What its bytes are: [`GOOD`], or another number for each wrong block.
    pub content: u32,
}

pub const MISSING: u32 = 0;
pub const GOOD: u32 = 1;
/// Of a hostile message that only says it is a block.
pub const NONSENSE: u32 = u32::MAX;

impl Packet {
    pub fn len(&self) -> u64 {
        let block = self.block.map_or(0, |block| u64::from(block.span.len) + 13);
        self.control.len() as u64 + block
    }
}

/// One end of a connection.
#[derive(Debug)]
pub struct Connection {
    /// How often the place was given.
    pub generation: u32,
    pub machine: PeerMachine,
    /// The other end, once it has answered.
    pub other: Option<Seat>,
    pub dialled: Option<SocketAddr>,
    pub remote: IpAddr,
    /// The torrent's machine knows of it.
    pub joined: bool,
    pub sample: PeerSample,
    /// When a block of use last came.
    pub gave_at: Instant,
    /// How many of the pieces that its node has gained the other end has been told of.
    pub told: usize,
    /// Bytes on their way to the other end.
    pub in_flight: u64,
    /// When what may still be on its way arrives, and how many bytes it has.
    pub line: VecDeque<(Instant, u64)>,
    /// It was late with what it owes.
    pub late: bool,
    /// To be closed once everything is said.
    pub parting: bool,
    pub timer: Option<Instant>,
    /// Blocks sent, for manners that change with time.
    pub blocks_sent: u32,
    /// Packets that carried malice.
    pub malice: u32,
}

/// A piece in flight: what has come of each block.
#[derive(Debug, Default)]
pub struct SimPiece {
    pub blocks: Vec<u32>,
}

#[derive(Debug)]
pub struct Node {
    pub number: PeerNumber,
    pub terms: PeerTerms,
    pub peer_id: PeerId,
    pub online: bool,
    /// It has left and will not come back.
    pub gone: bool,
    /// How often it came: what was meant for an earlier stay is void.
    pub stay: u32,
    pub facts: Arc<TorrentFacts>,
    pub machine: TorrentMachine,
    pub announcer: Option<Announcer>,
    pub rng: Rng,
    pub connections: Vec<Option<Box<Connection>>>,
    /// How often each place was given.
    pub generations: Vec<u32>,
    pub free: Vec<u32>,
    pub pieces: BTreeMap<PieceIndex, SimPiece>,
    pub fast_grants: BTreeSet<AddressPrefix>,
    /// Connections that stand in line for the uplink.
    pub ready: VecDeque<u32>,
    /// The same.
    pub scheduled: SlotSet,
    /// Connections that have nothing to say, and could.
    pub idle: SlotSet,
    /// Pieces verified since it came, in order.
    pub gained: Vec<PieceIndex>,
    pub uplink_busy: bool,
    /// When what was sent has been paid for, and what was received.
    pub paid_until: Instant,
    pub received_until: Instant,
    pub downlink_free_at: Instant,
    pub timer: Option<Instant>,
    pub announce_timer: Option<Instant>,
    pub draining: bool,
    pub arrived_at: Option<Instant>,
    pub left_at: Option<Instant>,
    pub leeching: Leeching,
    pub given: u64,
    pub taken: u64,
    pub wasted: u64,
    pub completed_at: Option<Instant>,
    pub banned: u32,
    pub trouble: Trouble,
    /// What it is going to say, when that is written down.
    pub script: Option<Script>,
}

/// A set of places.
#[derive(Debug, Default)]
pub struct SlotSet(Vec<u64>);

impl SlotSet {
    pub fn contains(&self, slot: u32) -> bool {
        self.0.get(slot as usize / 64).is_some_and(|word| word >> (slot % 64) & 1 != 0)
    }

    pub fn insert(&mut self, slot: u32) {
        let word = slot as usize / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (slot % 64);
    }

    pub fn remove(&mut self, slot: u32) {
        if let Some(word) = self.0.get_mut(slot as usize / 64) {
            *word &= !(1 << (slot % 64));
        }
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Takes out the lowest from `from` on.
    pub fn take_from(&mut self, from: u32) -> Option<u32> {
        let first = from as usize / 64;
        for (at, word) in self.0.iter_mut().enumerate().skip(first) {
            let rest = if at == first { *word & (u64::MAX << (from % 64)) } else { *word };
            if rest != 0 {
                let bit = rest.trailing_zeros();
                *word &= !(1 << bit);
                return Some(at as u32 * 64 + bit);
            }
        }
        None
    }
}

impl Connection {
    /// Whether messages wait for the other end, of `gained` pieces those that it has not been told of included.
    pub fn has_control(&self, gained: usize) -> bool {
        self.told < gained && self.machine.is_open() || self.machine.has_control()
    }

    /// Whether anything waits for the other end.
    pub fn has_output(&self, gained: usize) -> bool {
        self.has_control(gained) || self.machine.has_output()
    }

    /// Forgets what has arrived by `now`.
    pub fn settle_line(&mut self, now: Instant) {
        while let Some((_, len)) = self.line.pop_front_if(|&mut (at, _)| at <= now) {
            self.in_flight -= len;
        }
    }

    /// Whether this is the one that the product's machines know by that name.
    pub fn is(&self, conn: ConnId) -> bool {
        self.generation == conn.generation
    }
}

impl Node {
    pub fn address(number: PeerNumber) -> SocketAddr {
        // A prefix for each: prefixes share slots, and these are no neighbours.
        let [_, a, b, c] = number.0.to_be_bytes();
        SocketAddr::new(Ipv4Addr::new(11 + a, b, c, 1).into(), PORT)
    }

    pub fn number_of(address: SocketAddr) -> Option<PeerNumber> {
        let IpAddr::V4(ip) = address.ip() else { return None };
        let [a, b, c, last] = ip.octets();
        let number = u32::from_be_bytes([0, a.checked_sub(11)?, b, c]);
        (last == 1 && address.port() == PORT).then_some(PeerNumber(number))
    }

    pub fn connection(&mut self, slot: u32, generation: u32) -> Option<&mut Connection> {
        let connection = self.connections.get_mut(slot as usize)?.as_deref_mut();
        connection.filter(|connection| connection.generation == generation)
    }

    pub fn seat(&self, slot: u32) -> Seat {
        let generation = self.generations.get(slot as usize).copied().unwrap_or(0);
        Seat { node: self.number, slot, generation }
    }

    pub fn open_slots(&self) -> Vec<u32> {
        (0..)
            .zip(&self.connections)
            .filter(|(_, connection)| connection.is_some())
            .map(|(slot, _)| slot)
            .collect()
    }

    /// Gives a connection a place.
    pub fn admit(&mut self, machine: PeerMachine, remote: IpAddr, dialled: Option<SocketAddr>) -> Seat {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.generations.push(0);
            self.connections.len() as u32 - 1
        });
        self.generations[slot as usize] += 1;
        let connection = Connection {
            generation: self.generations[slot as usize],
            machine,
            other: None,
            dialled,
            remote,
            joined: false,
            sample: PeerSample::default(),
            gave_at: Instant::ZERO,
            told: 0,
            in_flight: 0,
            line: VecDeque::new(),
            late: false,
            parting: false,
            timer: None,
            blocks_sent: 0,
            malice: 0,
        };
        self.connections[slot as usize] = Some(Box::new(connection));
        self.seat(slot)
    }

    /// Takes a connection away; its place is free for another.
    pub fn remove(&mut self, seat: Seat) -> Option<Box<Connection>> {
        self.connection(seat.slot, seat.generation)?;
        self.free.push(seat.slot);
        self.idle.remove(seat.slot);
        self.connections[seat.slot as usize].take()
    }
}
