//! A torrent's machine on its home core: who is in its swarm here, and who of them is unchoked.
//!
//! Contract: after every `handle_*` drain `poll_action` until `None`, then ask `poll_timeout` and call
//! `handle_timeout` no earlier than it says. A torrent without peers has no timer.

use crate::choker::{Load, Role, Slots};
use crate::id::{AddressPrefix, ConnId};
use crate::meter::PeerSample;
use crate::rng::Rng;
use crate::time::Instant;
use std::collections::VecDeque;

/// What the machine wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TorrentAction {
    /// Tell the peer it may request.
    Unchoke(ConnId),
    /// Tell the peer it may no longer request.
    Choke(ConnId),
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

/// The uploading side of one torrent.
#[derive(Debug)]
pub struct TorrentMachine {
    parameters: TorrentParameters,
    actions: VecDeque<TorrentAction>,
}

impl TorrentMachine {
    /// A torrent without peers.
    pub fn new(parameters: TorrentParameters) -> Self {
        Self { parameters, actions: VecDeque::new() }
    }

    /// A peer finished its handshake, choked and not interested.
    pub fn handle_joined(&mut self, _now: Instant, _conn: ConnId, _prefix: AddressPrefix) {}

    /// A peer became interested, or no longer is.
    pub fn handle_interest(&mut self, _now: Instant, conn: ConnId, interested: bool) {
        if interested {
            self.actions.push_back(TorrentAction::Unchoke(conn));
        }
    }

    /// A peer's connection is gone. No action for it comes afterwards.
    pub fn handle_left(&mut self, _now: Instant, conn: ConnId) {
        self.actions.retain(|action| {
            let (TorrentAction::Unchoke(other) | TorrentAction::Choke(other)) = action;
            *other != conn
        });
    }

    /// The last piece has been verified: from now on we seed.
    pub fn handle_complete(&mut self, _now: Instant) {
        self.parameters.role = Role::Seeding;
    }

    /// The process's load changed; to be told about once a second, cheap.
    pub fn handle_load(&mut self, _load: Load) {}

    /// Time has come. `sample` reads a connection's counters (zeros when it is already gone).
    pub fn handle_timeout(
        &mut self,
        _now: Instant,
        _sample: impl FnMut(ConnId) -> PeerSample,
        _rng: &mut Rng,
    ) {
    }

    /// What is to be done next; `None` when all is said.
    pub fn poll_action(&mut self) -> Option<TorrentAction> {
        self.actions.pop_front()
    }

    /// When `handle_timeout` is due; `None` while nothing waits for time.
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
