//! What a swarm is made of: its content, its peers with their lines and manners, and the policies of all.

use crate::bitfield::Bitfield;
use crate::choker::Slots;
use crate::picker::Order;
use crate::time::{Duration, Instant};
use crate::units::ByteRate;

/// One participant, by its place in the list that the swarm was made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerNumber(pub u32);

/// How a peer behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// As the product does.
    #[default]
    Honest,
    /// Takes and never unchokes anybody.
    FreeRider,
    /// The same, and tells nobody what it has got since it came.
    Mute,
    /// Is interested and never asks for anything.
    Idler,
    /// Unchokes, takes requests and sends no block.
    Staller,
    /// Unchokes, takes requests and sends no block; leaves after a while, and comes back at once.
    Deserter,
    /// Sends wrong bytes in so many of a thousand blocks.
    Liar(u16),
    /// Sends bytes that are no messages behind its fourth block on a connection, and behind every further one.
    Garbler,
    /// Says something hostile of this kind with everything that it sends.
    Hostile(Hostility),
}

impl Manner {
    /// What it says that the product would not.
    pub fn hostility(self) -> Option<Hostility> {
        match self {
            Self::Hostile(hostility) => Some(hostility),
            _ => None,
        }
    }

    /// Whether every message it sends is one that the product would send.
    pub fn keeps_protocol(self) -> bool {
        !matches!(self, Self::Garbler | Self::Hostile(_))
    }
}

/// What a hostile peer says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hostility {
    /// Bytes drawn at random.
    Noise,
    /// Messages whose numbers lie outside the content.
    Nonsense,
    /// Requests behind the end of the last piece, and for more than a request may ask.
    BehindTheEnd,
    /// Blocks that nobody has asked for, with wrong bytes.
    Unsolicited,
    /// Haves for whatever piece, again and again.
    Haves,
    /// Cancels of what it never asked for.
    Cancels,
    /// More requests than anybody could serve, choked or not.
    Requests,
    /// Rejects of whatever block, and fast pieces that it does not give.
    Rejects,
    /// Interest and chokes that change with every message.
    Flips,
    /// Bitfields at any time, of any length.
    Stocks,
    /// Peer exchange with addresses of nobody, of the local network and of its own invention.
    Exchange,
    /// Extension handshakes that contradict themselves.
    Extensions,
    /// What is written down for it ([`Swarm::give_script`](super::Swarm::give_script)).
    Scripted,
}

impl Hostility {
    /// All that need nothing written down.
    pub const ALL: [Self; 12] = [
        Self::Noise,
        Self::Nonsense,
        Self::BehindTheEnd,
        Self::Unsolicited,
        Self::Haves,
        Self::Cancels,
        Self::Requests,
        Self::Rejects,
        Self::Flips,
        Self::Stocks,
        Self::Exchange,
        Self::Extensions,
    ];
}

/// When a peer goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Departure {
    /// Never.
    #[default]
    Never,
    /// So long after it has everything.
    AfterCompletion(Duration),
    /// At that moment, with whatever it has; it comes back after `away` if that is given.
    At {
        /// When.
        at: Instant,
        /// How long it stays away.
        away: Option<Duration>,
    },
    /// When so many copies of the content, in thousandths, have left it: 1050 for 1.05 copies.
    AfterCopies(u32),
}

/// One participant.
#[derive(Clone, Debug)]
pub struct PeerTerms {
    /// Bytes a second it can send, shared fairly among its connections.
    pub up: ByteRate,
    /// Bytes a second it can receive; `None` for no bound.
    pub down: Option<ByteRate>,
    /// After a pause, so much time's worth of its rates passes at once, as through a limit that a program keeps; a line has
    /// none.
    pub burst: Duration,
    /// Time of a byte from its line into the net: two peers are apart by the sum of theirs.
    pub delay: Duration,
    /// How it behaves.
    pub manner: Manner,
    /// Of which class it is; payload is counted by class. Classes are small numbers.
    pub class: u8,
    /// The pieces it comes with.
    pub have: Bitfield,
    /// When it comes.
    pub arrives: Instant,
    /// When it goes.
    pub departs: Departure,
}

impl PeerTerms {
    /// An honest peer that is there from the start and stays.
    pub fn new(up: ByteRate, have: Bitfield) -> Self {
        Self {
            up,
            down: None,
            burst: Duration::ZERO,
            delay: Duration::from_millis(10),
            manner: Manner::Honest,
            class: 0,
            have,
            arrives: Instant::ZERO,
            departs: Departure::Never,
        }
    }
}

/// What all peers of a swarm do alike.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    /// Which piece a leech begins first.
    pub order: Order,
    /// Regular slots of a leech.
    pub slots: Slots,
    /// Regular slots of a seed.
    pub seed_slots: Slots,
    /// Everybody has an optimistic slot besides the regular ones (BEP 3).
    pub optimistic: bool,
    /// Peers that come with everything super-seed (BEP 16).
    pub super_seed: bool,
    /// Connections of a peer, both directions, at most; it dials while it has less than half as many.
    pub connections_max: usize,
}

impl Default for Policies {
    fn default() -> Self {
        Self {
            order: Order::RarestFirst,
            slots: Slots::Auto,
            seed_slots: Slots::Fixed(4),
            optimistic: true,
            super_seed: false,
            connections_max: 80,
        }
    }
}

/// The content that a swarm shares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentShape {
    /// Bytes of each piece but the last, a multiple of a block.
    pub piece_length: u32,
    /// Bytes of all, not zero.
    pub total_len: u64,
}

impl ContentShape {
    /// Number of pieces.
    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.total_len.div_ceil(u64::from(self.piece_length.max(1)))).unwrap_or(u32::MAX)
    }
}
