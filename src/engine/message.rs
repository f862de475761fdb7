//! What workers tell each other, what the session tells them, and what they tell the session.

use super::piece_buffer::PieceBuffer;
use super::store::{BlockStore, PieceSink};
use super::supply::{NotOpened, Supply};
use crate::attribution::SharedWaits;
use crate::bitfield::Bitfield;
use crate::id::{ConnId, InfoHash, PeerId};
use crate::meter::PeerCounters;
use crate::peer::{Stock, TorrentFacts, Wish};
use crate::peer_list::{Closed, Source};
use crate::pipeline::RateGate;
use crate::torrent::{DownloadPlan, Newcomer, PieceResult, TorrentParameters};
use crate::units::{BlockSpan, PieceIndex};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// A torrent as all workers share it.
#[derive(Debug)]
pub struct SharedTorrent<S> {
    /// Shape and stock.
    pub facts: Arc<TorrentFacts>,
    /// Where its blocks lie.
    pub content: Supply<S>,
    /// The worker that runs its machine.
    pub home: u16,
    /// How the machine starts.
    pub parameters: TorrentParameters,
    /// What is to be downloaded, and where whole pieces go; `None` for a torrent that is only seeded.
    pub download: Option<Download>,
    /// Our name in its swarm.
    pub peer_id: PeerId,
    /// Its own upload limit.
    pub gate: RateGate,
    /// What is counted of it.
    pub counts: TorrentCounts,
}

/// What all workers count of a torrent.
#[derive(Debug, Default)]
pub struct TorrentCounts {
    /// Bytes of blocks sent, by all workers.
    pub uploaded: AtomicU64,
    /// Bytes of blocks received that were asked for, by all workers.
    pub downloaded: AtomicU64,
    /// Bytes of blocks received that nobody had asked for, or that failed their hash.
    pub wasted: AtomicU64,
    /// Connections that have finished their handshake, on all workers.
    pub connections: AtomicU64,
    /// What its connections have waited for, by all workers; told once a second.
    pub waited: SharedWaits,
}

/// What a torrent that is downloaded has in addition.
#[derive(Debug)]
pub struct Download {
    /// What is wanted.
    pub plan: DownloadPlan,
    /// Verifies and stores whole pieces.
    pub sink: Arc<dyn PieceSink>,
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
    /// Peers of a torrent at home here might be there.
    Candidates {
        /// The torrent.
        torrent: InfoHash,
        /// Where.
        addresses: Vec<SocketAddr>,
        /// Who says so.
        source: Source,
    },
    /// A connection attempt for a torrent at home here has not led through a handshake.
    DialFailed {
        /// The torrent.
        torrent: InfoHash,
        /// Where to.
        address: SocketAddr,
        /// We met ourselves there.
        ourselves: bool,
    },
    /// A connection somewhere has joined a torrent whose home is here.
    Joined {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
        /// Who it is.
        newcomer: Newcomer,
        /// What it has given and taken.
        counters: Arc<PeerCounters>,
    },
    /// Something happened on a connection of a torrent whose home is here.
    Fact {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
        /// What.
        fact: Fact,
    },
    /// It is gone.
    Left {
        /// The torrent.
        torrent: InfoHash,
        /// The connection.
        conn: ConnId,
        /// Why.
        why: Closed,
    },
    /// A part of content that this worker has asked for is open, or not. This and what follows may come when the torrent has gone and
    /// another one of its info-hash has come: so each names the very torrent that it is for.
    Opened(Arc<SharedTorrent<S>>, u32, Result<Arc<S>, NotOpened>),
    /// It is known why content could not be read that this worker sends or fetches.
    Unreadable(Arc<SharedTorrent<S>>),
    /// An info dictionary that this worker has asked for; `None` when it cannot be had.
    Info(Arc<SharedTorrent<S>>, Option<Arc<[u8]>>),
    /// Storage has dealt with a piece of a torrent at home here.
    Piece {
        /// The torrent.
        torrent: Arc<SharedTorrent<S>>,
        /// The piece.
        piece: PieceIndex,
        /// With what result.
        result: PieceResult,
    },
    /// The home core has decided about a connection here.
    Order {
        /// The connection.
        conn: ConnId,
        /// What it is to do.
        order: Order,
    },
    /// The same, several at once: they had to wait for room in the mailbox.
    Orders {
        /// The connection.
        conn: ConnId,
        /// What it is to do, in order.
        orders: Vec<Order>,
    },
    /// We have one more piece of this torrent: tell its peers here.
    Have(Arc<SharedTorrent<S>>, PieceIndex),
    /// We have more pieces of this torrent than were told here: compare, and tell its peers.
    CatchUp(Arc<SharedTorrent<S>>),
    /// Nothing more is to be downloaded of this torrent.
    Satisfied(Arc<SharedTorrent<S>>),
    /// Super-seeding of this torrent is over: its peers may know all that we have.
    RevealAll(Arc<SharedTorrent<S>>),
    /// Close everything and end.
    Stop,
}

/// What a connection tells its torrent's home.
#[derive(Debug)]
pub enum Fact {
    /// Its peer wants blocks, or no longer does.
    Interest(bool),
    /// What its peer has, all in all.
    Stock(OwnedStock),
    /// Its peer has these pieces, too.
    Have(Vec<PieceIndex>),
    /// Its peer has lost this piece (BEP 54).
    Lost(PieceIndex),
    /// It has room for blocks, or no longer any.
    Wish(Option<Wish>),
    /// These blocks are in their pieces' buffers.
    Blocks(Vec<BlockSpan>),
    /// These blocks will not come.
    Returned(Vec<BlockSpan>),
    /// What its peer owes is late, or it has kept up again.
    Late(bool),
    /// Its peer has snubbed us (BEP 3), or given a block again.
    Snubbed(bool),
    /// What its peer told on extensions (BEP 10): the port on which it accepts connections, our address as it sees
    /// it, and whether it understands peer exchange.
    Addresses {
        /// The peer's address.
        remote: IpAddr,
        /// `p`.
        port: Option<u16>,
        /// `yourip`.
        ours: Option<IpAddr>,
        /// `ut_pex` has a number.
        exchanges: bool,
    },
    /// All of the piece that was revealed to its peer last has been sent (BEP 16).
    Served(PieceIndex),
    /// The payload of a `ut_pex` message has come (BEP 11).
    Exchange(Vec<u8>),
}

/// What a peer has, for travelling.
#[derive(Debug)]
pub enum OwnedStock {
    /// Nothing.
    None,
    /// These pieces.
    Some(Box<Bitfield>),
    /// Every piece.
    All,
}

impl OwnedStock {
    /// The same, lent.
    pub fn as_stock(&self) -> Stock<'_> {
        match self {
            Self::None => Stock::None,
            Self::Some(pieces) => Stock::Some(pieces),
            Self::All => Stock::All,
        }
    }
}

impl From<Stock<'_>> for OwnedStock {
    fn from(stock: Stock<'_>) -> Self {
        match stock {
            Stock::None => Self::None,
            Stock::Some(pieces) => Self::Some(Box::new(pieces.clone())),
            Stock::All => Self::All,
        }
    }
}

/// What a connection is to do.
#[derive(Debug)]
pub enum Order {
    /// Choke the peer, or no longer.
    Choke(bool),
    /// Tell the peer that it has something for us, or no longer.
    Interest(bool),
    /// Ask for these blocks, each to go into the buffer of its piece.
    Ask(Vec<(BlockSpan, Arc<PieceBuffer>)>),
    /// This block is no longer wanted of the peer.
    Cancel(BlockSpan),
    /// Send the peer this payload as a `ut_pex` message.
    Exchange(Vec<u8>),
    /// Tell the peer that we have this piece (BEP 16).
    Reveal(PieceIndex),
    /// Close: the peer floods us with peer exchange.
    CloseFlooder,
    /// Close.
    Close,
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
    /// Everything that was wanted of a torrent is here and stored.
    Satisfied {
        /// The torrent.
        torrent: InfoHash,
    },
    /// Storage refuses a torrent's pieces; it is tried again from time to time.
    StorageRefused {
        /// The torrent.
        torrent: InfoHash,
        /// Why, and what to do.
        reason: String,
    },
    /// Storage takes a torrent's pieces again.
    StorageRecovered {
        /// The torrent.
        torrent: InfoHash,
    },
    /// A peer was convicted of sending wrong data and is banned.
    Banned {
        /// The torrent.
        torrent: InfoHash,
        /// The peer's address.
        ip: IpAddr,
    },
    /// A worker has to do without new connections for a while.
    AcceptFailed {
        /// Why, and what to do.
        reason: String,
    },
}
