//! What workers tell each other, what the session tells them, and what they tell the session.

use super::store::BlockStore;
use crate::id::{AddressPrefix, ConnId, InfoHash, PeerId};
use crate::meter::PeerCounters;
use crate::peer::TorrentFacts;
use crate::pipeline::RateGate;
use crate::torrent::TorrentParameters;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A torrent as all workers share it.
#[derive(Debug)]
pub struct SharedTorrent<S> {
    /// Shape and stock.
    pub facts: Arc<TorrentFacts>,
    /// Where its blocks lie.
    pub content: Arc<S>,
    /// The worker that runs its machine.
    pub home: u16,
    /// How the machine starts.
    pub parameters: TorrentParameters,
    /// Our name in its swarm.
    pub peer_id: PeerId,
    /// Its own upload limit.
    pub gate: RateGate,
    /// Bytes of blocks sent, by all workers.
    pub uploaded: AtomicU64,
    /// Connections that have finished their handshake, on all workers.
    pub connections: AtomicU64,
}

/// To a worker.
#[derive(Debug)]
pub enum ToWorker<S: BlockStore> {
    /// Serve this torrent.
    Add(Arc<SharedTorrent<S>>),
    /// Serve it no longer and close its connections.
    Remove(InfoHash),
    /// Try to connect to this peer.
    Connect(InfoHash, SocketAddr),
    /// A connection somewhere has joined a torrent whose home is here.
    Joined {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
        /// Where its peer comes from.
        prefix: AddressPrefix,
        /// What it has given and taken.
        counters: Arc<PeerCounters>,
    },
    /// Its peer wants blocks, or no longer does.
    Interest {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
        /// Whether it wants blocks.
        interested: bool,
    },
    /// It is gone.
    Left {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
    },
    /// The home core has decided about a connection here.
    Choke {
        /// The connection.
        conn: ConnId,
        /// Whether it is choked.
        choke: bool,
    },
    /// Close everything and end.
    Stop,
}

/// From a worker to the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineEvent {
    /// A peer got its last piece while connected to us.
    PeerComplete {
        /// The torrent.
        torrent: InfoHash,
        /// The peer's name for itself.
        peer_id: PeerId,
    },
    /// The torrent's content cannot be served any more.
    TorrentFailed {
        /// The torrent.
        torrent: InfoHash,
        /// Why, and what to do.
        reason: String,
    },
    /// A worker has to do without new connections for a while.
    AcceptFailed {
        /// Why, and what to do.
        reason: String,
    },
}
