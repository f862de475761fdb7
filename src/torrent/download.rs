//! The downloading half of a torrent's machine: which blocks are asked of whom, what becomes of whole pieces, who
//! lied, and what happens when the disk refuses.
//!
//! A connection tells how many blocks it has room for (its wish). A wish that cannot be granted at once stays open. It is
//! looked at again when blocks have become free, the wishes of peers that give first. An address prefix has a debt when it
//! left with blocks that it was asked for and had given none; it waits while others give. A piece whose blocks are all there is verified by the shell; only
//! then is it told to anybody. Invariant: a piece is offered only after it was verified and stored.
//!
//! When storage refuses a piece, nothing more is asked of anybody; the pieces that wait are tried again every
//! `STORAGE_RETRY_INTERVAL`, and once they are stored the download goes on.

use super::{TorrentAction, TorrentMachine};
use crate::bitfield::Bitfield;
use crate::choker::Role;
use crate::conviction::{Contributor, Convictions};
use crate::debts::{DebtTerms, Debts};
use crate::id::{AddressPrefix, ConnId, PeerId};
use crate::limits::{
    BLOCK_DEBT_TIME_MAX, BLOCK_DEBT_TIME_MIN, LONG_PIECES_IN_FLIGHT_LEN_MAX, PIECES_IN_FLIGHT_LEAST,
    PIECES_IN_FLIGHT_LEN_MAX, STORAGE_RETRY_INTERVAL, WISH_RETRY_INTERVAL,
};
use crate::peer::{Stock, Wish, WishTerms};
use crate::peer_list::BanReason;
use crate::picker::{Allowed, Order, Picker, PickerSettings, PieceShape, Priority, Received};
use crate::rng::Rng;
use crate::time::Instant;
use crate::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// What is to be downloaded.
#[derive(Clone, Debug)]
pub struct DownloadPlan {
    /// How the torrent is cut.
    pub shape: PieceShape,
    /// Pieces that are here.
    pub have: Bitfield,
    /// Pieces that are wanted, those that are here included.
    pub wanted: Bitfield,
    /// Pieces to have before the others.
    pub first: Bitfield,
    /// Which piece is begun first.
    pub order: Order,
}

/// What became of a piece that was given to storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PieceResult {
    /// It is right and stored.
    Verified {
        /// SHA-1 of its blocks, if they were wanted.
        block_hashes: Option<Vec<[u8; 20]>>,
    },
    /// Its hash is wrong.
    Failed {
        /// SHA-1 of its blocks.
        block_hashes: Vec<[u8; 20]>,
    },
    /// Storage refuses it; why, and what to do.
    Unwritable {
        /// For the user.
        reason: String,
    },
}

/// The downloading half.
#[derive(Debug)]
pub(super) struct Download {
    picker: Picker,
    convictions: Convictions,
    /// Who sent each block of the pieces in flight.
    contributors: BTreeMap<PieceIndex, Vec<Option<Contributor>>>,
    peers: BTreeMap<ConnId, (IpAddr, PeerId)>,
    /// Wishes that could not be granted yet.
    wishes: BTreeMap<ConnId, Wish>,
    /// Prefixes that left and owed blocks.
    debts: Debts,
    /// When those are looked at again who could be asked for more, if any could.
    wishes_at: Option<Instant>,
    /// Blocks may have become free for those who wait.
    has_supply: bool,
    /// Everything was asked of somebody when this was looked at last.
    in_endgame: bool,
    /// Pieces that storage refused, each with whether it is being tried again, and when the others are.
    unwritten: BTreeMap<PieceIndex, bool>,
    retry_at: Option<Instant>,
    scratch: Vec<BlockSpan>,
}

impl Download {
    pub fn new(plan: &DownloadPlan, rng: &mut Rng) -> Self {
        let in_flight = pieces_in_flight_max(plan.shape.piece_length);
        let settings = PickerSettings {
            order: plan.order,
            pieces_in_flight_max: in_flight,
            ..PickerSettings::default()
        };
        let priority = |piece| match (plan.wanted.contains(piece), plan.first.contains(piece)) {
            (false, _) => Priority::Skip,
            (true, true) => Priority::High,
            (true, false) => Priority::Normal,
        };
        Self {
            picker: Picker::new(plan.shape, &plan.have, priority, settings, rng),
            convictions: Convictions::new(),
            contributors: BTreeMap::new(),
            peers: BTreeMap::new(),
            wishes: BTreeMap::new(),
            debts: Debts::new(DebtTerms { first: BLOCK_DEBT_TIME_MIN, most: BLOCK_DEBT_TIME_MAX }),
            wishes_at: None,
            has_supply: false,
            in_endgame: false,
            unwritten: BTreeMap::new(),
            retry_at: None,
            scratch: Vec::new(),
        }
    }

    pub fn picker(&self) -> &Picker {
        &self.picker
    }

    fn is_halted(&self) -> bool {
        !self.unwritten.is_empty()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at.into_iter().chain(self.wishes_at).min()
    }

    /// Whether the connection's prefix left with a debt and somebody else gives.
    fn waits_for_debt(&self, now: Instant, conn: ConnId) -> bool {
        let prefix = self.peers.get(&conn).map(|&(ip, _)| AddressPrefix::of(ip));
        prefix.is_some_and(|prefix| self.debts.until(now, prefix).is_some())
            && !self.picker.has_given(conn)
            && self.picker.has_giver()
    }

    fn grant(&mut self, now: Instant, conn: ConnId, rng: &mut Rng, actions: &mut impl Extend<TorrentAction>) {
        let Some(wish) = self.wishes.get(&conn).filter(|_| !self.is_halted()) else { return };
        if self.waits_for_debt(now, conn) {
            return self.wishes_at = self.wishes_at.or(Some(now + WISH_RETRY_INTERVAL));
        }
        let allowed = match &wish.terms {
            WishTerms::Unchoked => Allowed::Unchoked,
            WishTerms::Suggested(pieces) => Allowed::Suggested(pieces),
            WishTerms::Fast(pieces) => Allowed::Fast(pieces),
        };
        self.scratch.clear();
        self.picker.pick(now, conn, wish.count as usize, allowed, rng, &mut self.scratch);
        let given_up = std::iter::from_fn(|| self.picker.poll_given_up());
        actions.extend(given_up.map(|(former, span)| TorrentAction::Cancel(former, span)));
        if self.scratch.is_empty() {
            if self.picker.has_given(conn) {
                self.wishes_at = self.wishes_at.or(Some(now + WISH_RETRY_INTERVAL));
            }
            return;
        }
        self.wishes.remove(&conn);
        // With the last block that nobody was asked for, the others may be asked of those who wait, too.
        let in_endgame = self.picker.is_in_endgame();
        self.has_supply |= in_endgame && !self.in_endgame;
        self.in_endgame = in_endgame;
        actions.extend([TorrentAction::Ask(conn, self.scratch.clone())]);
    }

    /// Everybody who waits is looked at; called when blocks may have become free.
    fn grant_all(&mut self, now: Instant, rng: &mut Rng, actions: &mut impl Extend<TorrentAction>) {
        if !std::mem::take(&mut self.has_supply) {
            return;
        }
        let mut waiting: Vec<ConnId> = self.wishes.keys().copied().collect();
        waiting.sort_by_key(|&conn| !self.picker.has_given(conn));
        for conn in waiting {
            self.grant(now, conn, rng, actions);
        }
    }
}

/// How many pieces of `len` bytes may be begun and not yet stored: a bound on memory.
fn pieces_in_flight_max(len: u32) -> usize {
    // Short pieces are counted as blocks: each has more around it than bytes.
    let len = u64::from(len.max(BLOCK_LEN));
    let least = PIECES_IN_FLIGHT_LEAST.min(LONG_PIECES_IN_FLIGHT_LEN_MAX / len).max(2);
    usize::try_from((PIECES_IN_FLIGHT_LEN_MAX / len).max(least)).unwrap_or(usize::MAX)
}

impl TorrentMachine {
    /// Begins to download. Those who have joined before are not known to the download, so there should be none.
    pub fn begin_download(&mut self, plan: &DownloadPlan, rng: &mut Rng) {
        let download = Download::new(plan, rng);
        self.role = if download.picker.is_complete() { Role::Seeding } else { Role::Leeching };
        self.download = (!download.picker.is_complete()).then(|| Box::new(download));
    }

    pub(super) fn download_joined(&mut self, conn: ConnId, remote: IpAddr, peer_id: PeerId) {
        if let Some(download) = &mut self.download {
            download.picker.handle_joined(conn);
            download.peers.insert(conn, (remote, peer_id));
        }
    }

    pub(super) fn download_left(&mut self, now: Instant, conn: ConnId) {
        if let Some(download) = &mut self.download {
            let owes = download.picker.owed_by(conn) > 0 && !download.picker.has_given(conn);
            download.picker.handle_left(conn);
            if let Some((ip, _)) = download.peers.remove(&conn).filter(|_| owes) {
                download.debts.charge(now, AddressPrefix::of(ip));
            }
            download.wishes.remove(&conn);
            download.has_supply = true;
        }
    }

    /// A peer said all in all what it has.
    pub fn handle_stock(&mut self, now: Instant, conn: ConnId, stock: Stock<'_>, rng: &mut Rng) {
        self.super_seed_stock(now, conn, stock);
        let Some(download) = &mut self.download else { return };
        match stock {
            Stock::None => {
                download.picker.handle_stock(conn, &Bitfield::none(download.picker.shape().piece_count))
            }
            Stock::Some(pieces) => download.picker.handle_stock(conn, pieces),
            Stock::All => download.picker.handle_all(conn),
        }
        self.settle(now, rng);
        self.grant_one(now, conn, rng);
    }

    /// A peer has these pieces, too.
    pub fn handle_haves(&mut self, now: Instant, conn: ConnId, pieces: &[PieceIndex], rng: &mut Rng) {
        self.super_seed_haves(now, conn, pieces);
        let Some(download) = &mut self.download else { return };
        // What we have or do not want changes neither our interest nor what the peer can be asked for.
        if download.picker.handle_haves(conn, pieces) {
            self.settle(now, rng);
            self.grant_one(now, conn, rng);
        }
    }

    /// A peer has lost a piece (BEP 54). The blocks of it that it owes come back one by one.
    pub fn handle_lost(&mut self, now: Instant, conn: ConnId, piece: PieceIndex, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        if download.picker.handle_dont_have(conn, piece) {
            self.settle(now, rng);
        }
    }

    /// A connection has room for blocks, or no longer wants any (`None`).
    pub fn handle_wish(&mut self, now: Instant, conn: ConnId, wish: Option<Wish>, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        if !download.peers.contains_key(&conn) {
            return;
        }
        match wish {
            Some(wish) => {
                download.picker.handle_rate(conn, wish.rate);
                download.wishes.insert(conn, wish);
                self.grant_one(now, conn, rng);
            }
            None => {
                download.wishes.remove(&conn);
            }
        }
    }

    fn grant_one(&mut self, now: Instant, conn: ConnId, rng: &mut Rng) {
        if let Some(download) = &mut self.download {
            download.grant(now, conn, rng, &mut self.actions);
            download.grant_all(now, rng, &mut self.actions);
        }
    }

    /// A block is in its piece's buffer.
    pub fn handle_block(&mut self, now: Instant, conn: ConnId, span: BlockSpan, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        let (completes, cancel) = match download.picker.handle_received(conn, span) {
            Received::Block { completes, cancel } => (completes, cancel),
            Received::Duplicate => return,
            Received::Unwanted => return self.begin_anew(now, span.piece, rng),
        };
        let shape = download.picker.shape();
        if let (Some(&(ip, peer_id)), Some(block)) = (download.peers.get(&conn), shape.block_of(span)) {
            let blocks = download
                .contributors
                .entry(span.piece)
                .or_insert_with(|| vec![None; shape.blocks_of(span.piece) as usize]);
            if let Some(place) = blocks.get_mut(block as usize) {
                *place = Some(Contributor { ip, peer_id, conn });
            }
        }
        self.actions.extend(cancel.iter().map(|other| TorrentAction::Cancel(other, span)));
        if completes {
            let want_block_hashes = download.convictions.wants_hashes(span.piece);
            self.actions.push_back(TorrentAction::Verify { piece: span.piece, want_block_hashes });
        }
        self.settle(now, rng);
    }

    /// The buffer of a piece in flight has a block that is none of its piece: nobody could bring it again.
    fn begin_anew(&mut self, now: Instant, piece: PieceIndex, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        if download.picker.is_in_flight(piece) {
            download.picker.handle_failed(piece, false);
            download.contributors.remove(&piece);
            download.has_supply = true;
            self.actions.push_back(TorrentAction::Forget(piece));
            self.settle(now, rng);
        }
    }

    /// Blocks that were asked of a peer will not come.
    pub fn handle_returned(&mut self, now: Instant, conn: ConnId, spans: &[BlockSpan], rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        for &span in spans {
            download.picker.handle_returned(conn, span);
        }
        download.has_supply |= !spans.is_empty();
        self.settle(now, rng);
    }

    /// What a peer owes is late, so that it may be asked of others, too; or it has kept up again.
    pub fn handle_late(&mut self, now: Instant, conn: ConnId, late: bool, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        download.picker.handle_snubbed(conn, late);
        download.has_supply |= late;
        self.settle(now, rng);
    }

    /// The shell's answer to [`TorrentAction::Verify`].
    pub fn handle_piece(&mut self, now: Instant, piece: PieceIndex, result: PieceResult, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        let was_halted = download.is_halted();
        match result {
            PieceResult::Verified { block_hashes } => {
                download.unwritten.remove(&piece);
                let mut contributors = download.contributors.remove(&piece).unwrap_or_default();
                download.picker.handle_verified(piece);
                let guilty = block_hashes.map(|hashes| download.convictions.handle_verified(piece, &hashes));
                download.has_supply = true;
                self.actions.push_back(TorrentAction::Have(piece));
                contributors.dedup();
                contributors.iter().flatten().for_each(|contributor| self.members.proven(contributor.conn));
                self.convict(now, guilty.unwrap_or_default());
            }
            PieceResult::Failed { block_hashes } => {
                download.unwritten.remove(&piece);
                let contributors = download.contributors.remove(&piece).unwrap_or_default();
                let blocks: Option<Vec<_>> = block_hashes
                    .into_iter()
                    .zip(contributors)
                    .map(|(hash, who)| Some((hash, who?)))
                    .collect();
                let guilty = blocks
                    .map(|blocks| download.convictions.handle_failed(piece, &blocks))
                    .unwrap_or_default();
                // Who sent it all is known; otherwise the next try comes from one peer alone.
                download.picker.handle_failed(piece, guilty.is_empty());
                download.has_supply = true;
                self.actions.push_back(TorrentAction::Forget(piece));
                self.convict(now, guilty);
            }
            // Only what is still to be stored.
            PieceResult::Unwritable { .. } if !download.picker.is_in_flight(piece) => {}
            PieceResult::Unwritable { reason } => {
                download.unwritten.insert(piece, false);
                download.retry_at = Some(now + STORAGE_RETRY_INTERVAL);
                if !was_halted {
                    self.actions.push_back(TorrentAction::StorageRefused(reason));
                }
            }
        }
        self.tell_recovery(was_halted);
        self.settle(now, rng);
    }

    fn tell_recovery(&mut self, was_halted: bool) {
        if let Some(download) = &mut self.download
            && was_halted
            && !download.is_halted()
        {
            download.retry_at = None;
            self.actions.push_back(TorrentAction::StorageRecovered);
        }
    }

    fn convict(&mut self, now: Instant, guilty: Vec<Contributor>) {
        for Contributor { ip, peer_id, conn } in guilty {
            // Blocks of one peer in several pieces convict it as often; it is banned once.
            let is_new = !self.members.is_banned(now, ip, peer_id);
            let closing = self.members.ban(now, ip, peer_id, BanReason::WrongData);
            if is_new {
                self.actions.push_back(TorrentAction::Banned { ip, peer_id });
            }
            let with_liar = closing.iter().chain([&conn]).copied().collect::<BTreeSet<_>>();
            self.actions.extend(with_liar.into_iter().map(TorrentAction::Close));
        }
    }

    /// Looks again at those who could be asked for more.
    pub(super) fn retry_wishes(&mut self, now: Instant, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        if download.wishes_at.is_some_and(|at| at <= now) {
            download.wishes_at = None;
            download.has_supply = true;
            download.grant_all(now, rng, &mut self.actions);
        }
    }

    /// Tries to store again what storage refused.
    pub(super) fn retry_storage(&mut self, now: Instant) {
        let Some(download) = &mut self.download else { return };
        if download.retry_at.is_some_and(|at| at <= now) {
            // One answer sets the time anew; as long as none comes there is nothing to hurry for.
            download.retry_at = None;
            // A slow disk may owe the answer of an earlier try: no piece is given to it twice.
            for (&piece, tried) in download.unwritten.iter_mut().filter(|(_, tried)| !**tried) {
                *tried = true;
                let want_block_hashes = download.convictions.wants_hashes(piece);
                self.actions.push_back(TorrentAction::Verify { piece, want_block_hashes });
            }
        }
    }

    /// Says what has changed: interest in peers, blocks for those who wait, the end of it all.
    pub(super) fn settle(&mut self, now: Instant, rng: &mut Rng) {
        let Some(download) = &mut self.download else { return };
        while let Some((conn, interested)) = download.picker.poll_interest() {
            if !interested {
                download.wishes.remove(&conn);
            }
            self.actions.push_back(TorrentAction::Interest(conn, interested));
        }
        download.grant_all(now, rng, &mut self.actions);
        if download.picker.is_complete() {
            self.download = None;
            self.actions.push_back(TorrentAction::Satisfied);
            self.handle_complete(now);
        }
    }

    /// Whether pieces are still to be downloaded.
    pub fn is_downloading(&self) -> bool {
        self.download.is_some()
    }

    /// Copies of the torrent among the connected peers, as far as a download follows them.
    pub fn distributed_copies(&self) -> Option<f64> {
        self.download.as_ref().map(|download| download.picker.distributed_copies())
    }

    /// Pieces begun and not yet verified.
    pub fn pieces_in_flight(&self) -> usize {
        self.download.as_ref().map_or(0, |download| download.picker.pieces_in_flight())
    }
}

#[cfg(test)]
mod bound_tests {
    use super::pieces_in_flight_max;

    #[test]
    fn memory_is_bounded_and_long_pieces_still_flow() {
        for (len, pieces) in [
            (1, 4096),
            (1 << 10, 4096),
            (16 << 10, 4096),
            (256 << 10, 256),
            (16 << 20, 8),
            (64 << 20, 4),
            (256 << 20, 2),
        ] {
            assert_eq!(pieces_in_flight_max(len), pieces, "{len}");
        }
    }
}
