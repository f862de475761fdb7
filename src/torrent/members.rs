//! Who belongs to a torrent's swarm here and who may: candidates, duplicates, bans.
//!
//! The list is made with the first address or the first peer, for there may be ten thousand torrents without any.

use super::{TorrentAction, TorrentMachine};
use crate::id::{AddressPrefix, ConnId, PeerId};
use crate::peer_list::{BanReason, Closed, Direction, PeerList, PeerListSettings, Source, Verdict};
use crate::rng::Rng;
use crate::time::Instant;
use std::net::{IpAddr, SocketAddr};

/// A peer whose handshake is complete.
#[derive(Clone, Copy, Debug)]
pub struct Newcomer {
    /// Its address.
    pub remote: IpAddr,
    /// Its name for itself.
    pub peer_id: PeerId,
    /// Where we dialled it, if it was we.
    pub dialled: Option<SocketAddr>,
}

#[derive(Debug)]
pub(super) struct Members {
    settings: Option<PeerListSettings>,
    pub(super) list: Option<Box<PeerList>>,
}

impl Members {
    pub fn new() -> Self {
        Self { settings: None, list: None }
    }

    fn list(&mut self) -> Option<&mut PeerList> {
        if self.list.is_none() {
            self.list = Some(Box::new(PeerList::new(self.settings.clone()?)));
        }
        self.list.as_deref_mut()
    }

    #[cfg(test)]
    pub fn list_for_tests(&mut self) -> &mut PeerList {
        self.list().expect("the test keeps members")
    }

    pub fn is_private(&self) -> bool {
        self.settings.as_ref().is_some_and(|settings| settings.private)
    }

    pub fn ban(&mut self, now: Instant, ip: IpAddr, peer_id: PeerId, reason: BanReason) -> Vec<ConnId> {
        self.list().map(|list| list.ban(now, ip, peer_id, reason)).unwrap_or_default()
    }

    /// The peer has given right pieces.
    pub fn proven(&mut self, conn: ConnId) {
        if let Some(list) = &mut self.list {
            list.handle_proven(conn);
        }
    }

    pub fn is_banned(&self, now: Instant, ip: IpAddr, peer_id: PeerId) -> bool {
        self.list.as_ref().is_some_and(|list| list.is_banned(now, ip, Some(peer_id)))
    }

    pub fn left(&mut self, now: Instant, conn: ConnId, why: Closed) {
        if let Some(list) = &mut self.list {
            list.handle_closed(now, conn, why);
        }
    }

    /// Something came from the peer at that time.
    pub fn heard(&mut self, at: Instant, conn: ConnId) {
        if let Some(list) = &mut self.list {
            list.handle_heard(at, conn);
        }
    }

    /// Connections with peers that can be dialled somewhere.
    pub fn exchangeable(&self) -> impl Iterator<Item = (ConnId, SocketAddr, Direction)> {
        self.list.iter().flat_map(|list| list.exchangeable())
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        self.list.as_ref()?.poll_timeout()
    }
}

impl TorrentMachine {
    /// From now on the machine dials candidates and settles duplicates and bans.
    pub fn keep_members(&mut self, settings: PeerListSettings) {
        self.members.settings = Some(settings);
    }

    /// A peer might be there.
    pub fn handle_candidate(&mut self, now: Instant, address: SocketAddr, source: Source, rng: &mut Rng) {
        if let Some(list) = self.members.list() {
            list.add(now, address, source);
        }
        self.dial(now, rng);
    }

    /// A peer told of another (BEP 11).
    pub fn handle_told_candidate(&mut self, now: Instant, address: SocketAddr, teller: ConnId) {
        if let Some(list) = self.members.list() {
            list.add_told(now, address, teller);
        }
    }

    /// A dial did not get through its handshake, or met ourselves at its other end.
    pub fn handle_dial_failed(&mut self, now: Instant, address: SocketAddr, ourselves: bool, rng: &mut Rng) {
        if let Some(list) = self.members.list() {
            list.handle_dial_failed(now, address);
            if ourselves {
                list.handle_own_address(address);
            }
        }
        self.dial(now, rng);
    }

    /// A peer has finished its handshake: it joins, unless it is known already, banned, or ourselves. Then it is to be
    /// closed, and no more is to be told of it.
    pub fn handle_newcomer(&mut self, now: Instant, conn: ConnId, newcomer: Newcomer, rng: &mut Rng) -> bool {
        let Newcomer { remote, peer_id, dialled } = newcomer;
        let verdict = match (self.members.list(), dialled) {
            (Some(list), Some(address)) => list.handle_connected(now, address, conn, peer_id),
            (Some(list), None) => list.handle_incoming(now, remote, None, conn, peer_id),
            (None, _) => Verdict::Keep,
        };
        match verdict {
            Verdict::CloseNew => {
                self.actions.push_back(TorrentAction::Close(conn));
                self.dial(now, rng);
                return false;
            }
            Verdict::CloseOld(old) => self.actions.push_back(TorrentAction::Close(old)),
            Verdict::Keep => {}
        }
        self.handle_joined(now, conn, AddressPrefix::of(remote));
        self.download_joined(conn, remote, peer_id);
        self.super_seed_joined(now, conn, AddressPrefix::of(newcomer.remote));
        self.dial(now, rng);
        true
    }

    /// A peer has told its extensions: the port on which it accepts connections (BEP 10 `p`), our address as it sees
    /// it, and whether it understands peer exchange.
    pub fn handle_told_address(
        &mut self,
        now: Instant,
        conn: ConnId,
        remote: IpAddr,
        port: Option<u16>,
        ours: Option<IpAddr>,
        exchanges: bool,
    ) {
        let Some(list) = self.members.list() else { return };
        if let Some(closing) = port.and_then(|port| list.handle_listening_port(now, conn, port)) {
            return self.actions.push_back(TorrentAction::Close(closing));
        }
        if let Some(ours) = ours {
            list.handle_your_address(remote, ours);
        }
        let listening = list.address_of(conn);
        if self.peers.contains_key(&conn) && !self.members.is_private() {
            self.exchange.joined(now, conn, remote, listening, exchanges);
        }
    }

    /// Dials whom the list wants dialled.
    pub(super) fn dial(&mut self, now: Instant, rng: &mut Rng) {
        let Some(list) = &mut self.members.list else { return };
        while let Some(address) = list.next_dial(now, rng) {
            self.actions.push_back(TorrentAction::Dial(address));
        }
    }
}
