//! Who is unchoked (types; the rounds follow).

use crate::id::{AddressPrefix, ConnId};
use crate::time::Instant;
use crate::units::ByteRate;

/// How many peers of a torrent are unchoked at once, besides the optimistic one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slots {
    /// So many. Zero unchokes nobody, not even optimistically.
    Fixed(usize),
    /// Four while leeching; while seeding as many as line and core have room for.
    Auto,
}

/// What the torrent does, which decides what earns a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// We want pieces: slots go to those that give.
    Leeching,
    /// We have every piece: slots go round.
    Seeding,
}

/// How busy the line and the cores are. The default is an idle process without a limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Bytes a second that the whole process uploads.
    pub upload_rate: ByteRate,
    /// The limit on that; `None` for no limit.
    pub upload_limit: Option<ByteRate>,
    /// Part of the time that the busiest worker works, 0 to 1.
    pub worker_busy: f32,
}

/// A peer as the choker sees it at one moment.
#[derive(Clone, Copy, Debug)]
pub struct PeerSnapshot {
    /// The peer's connection.
    pub conn: ConnId,
    /// Where it comes from.
    pub prefix: AddressPrefix,
    /// When it joined.
    pub joined_at: Instant,
}
