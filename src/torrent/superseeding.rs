//! Super-seeding in a torrent's machine (BEP 16): which peer is shown which piece, until the peers have all of them
//! together.
//!
//! A newcomer is shown its first piece when it has said what it has, or kept silent about it for a moment: some
//! clients say nothing while they have nothing. The policy's tables exist only while there are peers.

use super::{TorrentAction, TorrentMachine};
use crate::bitfield::Bitfield;
use crate::id::{AddressPrefix, ConnId};
use crate::limits::SUPERSEED_STOCK_TIMEOUT;
use crate::meter::PeerSample;
use crate::peer::Stock;
use crate::superseed::{SuperSeed, Taking};
use crate::time::Instant;
use crate::units::PieceIndex;
use std::collections::BTreeMap;

/// The super-seeding half, until it is over.
#[derive(Debug)]
pub(super) struct SuperSeeding {
    piece_count: u32,
    policy: Option<Box<SuperSeed>>,
    /// Peers that have not said what they have, and until when they may.
    newcomers: BTreeMap<ConnId, (Instant, AddressPrefix)>,
}

impl SuperSeeding {
    fn policy(&mut self) -> &mut SuperSeed {
        self.policy.get_or_insert_with(|| Box::new(SuperSeed::new(self.piece_count)))
    }

    /// A newcomer's time of silence is over.
    fn settle_in(&mut self, now: Instant, conn: ConnId) {
        if let Some((_, prefix)) = self.newcomers.remove(&conn) {
            self.policy().handle_joined(now, conn, prefix);
        }
    }

    fn late_newcomers(&self, now: Instant) -> Vec<ConnId> {
        self.newcomers.iter().filter(|(_, (until, _))| *until <= now).map(|(&conn, _)| conn).collect()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let policy_at = self.policy.as_ref().and_then(|policy| policy.poll_timeout());
        self.newcomers.values().map(|&(until, _)| until).chain(policy_at).min()
    }
}

impl TorrentMachine {
    /// Begins to super-seed: whoever joins has been told that we have nothing. Those who have joined before are not
    /// known here, so there should be none.
    pub fn begin_super_seed(&mut self, piece_count: u32) {
        let super_seeding = SuperSeeding { piece_count, policy: None, newcomers: BTreeMap::new() };
        self.super_seeding = Some(Box::new(super_seeding));
    }

    /// Whether peers are still shown pieces one by one.
    pub fn is_super_seeding(&self) -> bool {
        self.super_seeding.is_some()
    }

    /// All of the piece that was revealed to a peer last has been sent to it.
    pub fn handle_served(&mut self, now: Instant, conn: ConnId, piece: PieceIndex) {
        if let Some(super_seeding) = &mut self.super_seeding {
            super_seeding.policy().handle_served(now, conn, piece);
            self.reveal(now);
        }
    }

    pub(super) fn super_seed_joined(&mut self, now: Instant, conn: ConnId, prefix: AddressPrefix) {
        if let Some(super_seeding) = &mut self.super_seeding {
            super_seeding.newcomers.insert(conn, (now + SUPERSEED_STOCK_TIMEOUT, prefix));
        }
    }

    pub(super) fn super_seed_left(&mut self, now: Instant, conn: ConnId, is_last: bool) {
        let Some(super_seeding) = &mut self.super_seeding else { return };
        super_seeding.newcomers.remove(&conn);
        if is_last {
            super_seeding.policy = None;
        } else if let Some(policy) = &mut super_seeding.policy {
            policy.handle_left(now, conn);
            self.reveal(now);
        }
    }

    pub(super) fn super_seed_stock(&mut self, now: Instant, conn: ConnId, stock: Stock<'_>) {
        let Some(super_seeding) = &mut self.super_seeding else { return };
        super_seeding.settle_in(now, conn);
        match stock {
            Stock::None => {}
            Stock::Some(pieces) => super_seeding.policy().handle_stock(now, conn, pieces),
            Stock::All => {
                let all = Bitfield::all(super_seeding.piece_count);
                super_seeding.policy().handle_stock(now, conn, &all);
            }
        }
        self.reveal(now);
    }

    pub(super) fn super_seed_haves(&mut self, now: Instant, conn: ConnId, pieces: &[PieceIndex]) {
        for &piece in pieces {
            // It may be over after any of them.
            let Some(super_seeding) = &mut self.super_seeding else { return };
            super_seeding.settle_in(now, conn);
            super_seeding.policy().handle_have(now, conn, piece);
            self.reveal(now);
        }
    }

    pub(super) fn super_seed_timeout(&mut self, now: Instant, sample: &mut impl FnMut(ConnId) -> PeerSample) {
        let Some(super_seeding) = &mut self.super_seeding else { return };
        for conn in super_seeding.late_newcomers(now) {
            super_seeding.settle_in(now, conn);
        }
        if let Some(policy) = &mut super_seeding.policy {
            policy.handle_timeout(now, |conn| {
                let sample = sample(conn);
                Taking { taken: sample.uploaded, asks: sample.unasked_since.is_none() }
            });
        }
        self.reveal(now);
    }

    /// Says what is to be shown to whom, or that it is all over.
    fn reveal(&mut self, now: Instant) {
        let Some(policy) = self.super_seeding.as_mut().and_then(|half| half.policy.as_mut()) else { return };
        while let Some((conn, piece)) = policy.poll_reveal(now) {
            self.actions.push_back(TorrentAction::Reveal(conn, piece));
        }
        if policy.is_over() {
            self.super_seeding = None;
            self.actions.push_back(TorrentAction::RevealAll);
        }
    }
}
