//! What the simulator's checks ask of a torrent's machine: its books, to be compared with a recount.
//!
//! Nothing here changes anything, and production asks none of it.

use super::TorrentMachine;
use crate::choker::Grant;
use crate::id::{ConnId, PeerId};
use crate::time::Instant;
use crate::units::{BlockSpan, PieceIndex};
use std::net::IpAddr;

/// How many peers a torrent's list knows, dials and is connected with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberCounts {
    /// Addresses known.
    pub candidates: usize,
    /// Addresses being dialled.
    pub dialling: usize,
    /// Connections, both directions.
    pub connected: usize,
}

impl TorrentMachine {
    /// By what right each peer is unchoked.
    pub fn grants(&self) -> impl Iterator<Item = (ConnId, Grant)> {
        self.peers.iter().map(|(&conn, peer)| (conn, peer.grant))
    }

    /// Peers that have the piece, as far as a download follows them.
    pub fn availability(&self, piece: PieceIndex) -> Option<u32> {
        self.download.as_ref().map(|download| download.picker().availability(piece))
    }

    /// Whether a download is in its endgame.
    pub fn is_in_endgame(&self) -> bool {
        self.download.as_ref().is_some_and(|download| download.picker().is_in_endgame())
    }

    /// Blocks that the download believes the peer to owe.
    pub fn owed_by(&self, conn: ConnId) -> u32 {
        self.download.as_ref().map_or(0, |download| download.picker().owed_by(conn))
    }

    /// Whether the download believes the peer to owe this block.
    pub fn is_owed(&self, conn: ConnId, span: BlockSpan) -> bool {
        self.download.as_ref().is_some_and(|download| download.picker().is_owed(conn, span))
    }

    /// Pieces that may be begun and not verified at once, while there is a download.
    pub fn pieces_in_flight_max(&self) -> Option<usize> {
        self.download.as_ref().map(|download| download.picker().pieces_in_flight_max())
    }

    /// The peer list's numbers, once there is one.
    pub fn member_counts(&self) -> Option<MemberCounts> {
        let list = self.members.list.as_ref()?;
        let (candidates, dialling, connected) = (list.candidates(), list.dialling(), list.connected());
        Some(MemberCounts { candidates, dialling, connected })
    }

    /// Who is banned: addresses and names; no name where it is the whole address.
    pub fn banned(&self, now: Instant) -> Vec<(IpAddr, Option<PeerId>)> {
        self.members.list.iter().flat_map(|list| list.bans(now)).map(|(ip, name, ..)| (ip, name)).collect()
    }

    /// Bans a peer and closes nothing.
    #[cfg(test)]
    pub fn ban_for_tests(&mut self, now: Instant, ip: IpAddr, peer_id: PeerId) {
        self.members.ban(now, ip, peer_id, crate::peer_list::BanReason::WrongData);
    }
}
