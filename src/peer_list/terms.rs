//! What is asked of a peer list, and what it answers with.

use super::Scope;
use crate::id::{ConnId, PeerId};
use crate::limits;
use crate::time::Instant;
use std::net::SocketAddr;

/// Who named a candidate; the order is from the least to the most trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Another peer (BEP 11).
    Pex,
    /// A stranger (BEP 5).
    Dht,
    /// A connection of an earlier run.
    Resume,
    /// The peer itself, when it connected to us.
    Incoming,
    /// A tracker whose address carries so far.
    Tracker(Scope),
    /// The user, by a magnet link or an option.
    User,
}

/// The knobs of one torrent's peer list.
#[derive(Clone, Debug)]
pub struct PeerListSettings {
    /// Our own name: who has it is ourselves, and it settles simultaneous dialling.
    pub own_id: PeerId,
    /// Addresses that we listen on, as far as known; never dialled.
    pub own: Vec<SocketAddr>,
    /// The port we accept peers on; makes our own address of what peers tell us by `yourip`.
    pub own_port: Option<u16>,
    /// Connections of the torrent, both directions. At it newcomers are closed.
    pub connections_max: usize,
    /// Connections of the torrent, both directions, at which there is no more dialling.
    pub dial_below: usize,
    /// Connections being dialled at once.
    pub dialling_max: usize,
    /// Candidates known.
    pub candidates_max: usize,
    /// Take addresses in local networks from any peer and tracker, not only from local ones.
    pub lan_allowed: bool,
    /// The torrent is private (BEP 27).
    pub private: bool,
}

impl PeerListSettings {
    /// The defaults of `limits` for a public torrent.
    pub fn new(own_id: PeerId) -> Self {
        Self {
            own_id,
            own: Vec::new(),
            own_port: None,
            connections_max: usize::MAX,
            dial_below: usize::try_from(limits::DIALLED_PER_TORRENT_MAX).unwrap_or(usize::MAX),
            dialling_max: limits::DIALLING_PER_TORRENT_MAX,
            candidates_max: limits::CANDIDATES_PER_TORRENT_MAX,
            lan_allowed: false,
            private: false,
        }
    }
}

/// What to do with a connection whose handshake is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// It is one of ours now.
    Keep,
    /// Close it; the list has forgotten it already.
    CloseNew,
    /// It is one of ours now, in place of this one of the same peer: close that; the list has forgotten it already.
    CloseOld(ConnId),
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// Either side was done, or the line broke.
    Normal,
    /// The peer broke the protocol.
    ProtocolError,
    /// We are both seeds: not dialled again until [`PeerList::handle_seeding_ended`](super::PeerList::handle_seeding_ended), unless the peer comes itself.
    Useless,
    /// It led to ourselves.
    Ourselves,
}

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// We dialled: the peer is reachable.
    Outgoing,
    /// The peer dialled.
    Incoming,
}

/// Where a candidate stands, for show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Not dialled before this.
    Waiting(Instant),
    /// Dialled as soon as there is room.
    Ready,
    /// A seed like us.
    Shelved,
    /// Being dialled.
    Dialling,
    /// Leads to this connection.
    Connected(ConnId),
}

/// One candidate, for show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its address.
    pub address: SocketAddr,
    /// The most trusted who named it.
    pub source: Source,
    /// Attempts in a row that came to nothing.
    pub failures: u16,
    /// Where it stands.
    pub standing: Standing,
}
