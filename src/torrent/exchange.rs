//! Peer exchange in a torrent's machine (BEP 11): peers hear of each other from us, and we of others from them.
//!
//! What is told are the connections whose peers can be dialled, at most once a second for all peers that are due, so
//! that a swarm of ten thousand is not gone through for each of them. A private torrent keeps nothing of all this and
//! takes nothing in (BEP 27). The memory comes with the first peer that speaks of extensions and goes with the last
//! peer.

use super::{TorrentAction, TorrentMachine};
use crate::id::ConnId;
use crate::limits::PEX_BATCH_INTERVAL;
use crate::meter::PeerSample;
use crate::peer_list::Direction;
use crate::pex::{CurrentPeers, Pex, PexVerdict};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::{PexFlags, PexPeer};
use std::net::{IpAddr, SocketAddr};

/// Peer exchange, while there is anybody to exchange with.
#[derive(Debug)]
pub(super) struct Exchange {
    pex: Option<Box<Pex>>,
    /// When somebody is to be told something; kept here since it is asked for after every event.
    due_at: Option<Instant>,
    /// Nobody is told anything before this.
    not_before: Instant,
}

impl Exchange {
    pub fn new() -> Self {
        Self { pex: None, due_at: None, not_before: Instant::ZERO }
    }

    #[cfg(test)]
    pub fn is_made(&self) -> bool {
        self.pex.is_some()
    }

    pub fn joined(
        &mut self,
        now: Instant,
        conn: ConnId,
        remote: IpAddr,
        listening: Option<SocketAddr>,
        wants: bool,
    ) {
        let pex = self.pex.get_or_insert_with(|| Box::new(Pex::new(false)));
        pex.handle_joined(now, conn, remote, listening, wants);
        self.due_at = pex.poll_timeout();
    }

    pub fn left(&mut self, conn: ConnId, is_last: bool) {
        if is_last {
            self.pex = None;
            self.due_at = None;
        } else if let Some(pex) = &mut self.pex {
            pex.handle_closed(conn);
            self.due_at = pex.poll_timeout();
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        Some(self.due_at?.max(self.not_before))
    }
}

impl TorrentMachine {
    /// The payload of a `ut_pex` message has come from a peer.
    pub fn handle_exchange(&mut self, now: Instant, conn: ConnId, payload: &[u8], rng: &mut Rng) {
        let Some(pex) = &mut self.exchange.pex else { return };
        match pex.handle_message(now, conn, payload) {
            PexVerdict::Ignore => {}
            PexVerdict::Disconnect => self.actions.push_back(TorrentAction::CloseFlooder(conn)),
            PexVerdict::Use(message) => {
                // A peer that only uploads is of no use to one that wants nothing.
                let is_of_use =
                    |peer: &PexPeer| self.download.is_some() || !peer.flags.contains(PexFlags::UPLOAD_ONLY);
                let added: Vec<SocketAddr> =
                    message.added.iter().filter(|peer| is_of_use(peer)).map(|peer| peer.address).collect();
                for address in added {
                    self.handle_told_candidate(now, address, conn);
                }
                self.dial(now, rng);
            }
        }
    }

    /// Tells those peers what is new to them for whom it is time.
    pub(super) fn exchange(&mut self, now: Instant, mut sample: impl FnMut(ConnId) -> PeerSample) {
        if self.exchange.poll_timeout().is_none_or(|due| due > now) {
            return;
        }
        let Some(pex) = &mut self.exchange.pex else { return };
        let pieces = self.piece_count;
        let current = CurrentPeers::of(self.members.exchangeable().map(|(conn, address, direction)| {
            let sample = sample(conn);
            let flags = PexFlags::default().with(PexFlags::REACHABLE, direction == Direction::Outgoing).with(
                PexFlags::UPLOAD_ONLY,
                sample.upload_only || u64::from(sample.reported_pieces) >= pieces,
            );
            PexPeer { address, flags }
        }));
        while let Some(conn) = pex.poll_due(now) {
            if let Some(payload) = pex.message_for(now, conn, &current) {
                self.actions.push_back(TorrentAction::Exchange(conn, payload));
            }
        }
        self.exchange.due_at = pex.poll_timeout();
        self.exchange.not_before = now + PEX_BATCH_INTERVAL;
    }
}
