//! The peer list: who could be a peer of one torrent, whom to dial next, and which of two connections to keep.
//!
//! Candidates come from trackers, peers, the user; how far each source is trusted decides who is forgotten first when
//! the list is full. Dialled are the user's own first, then those that failed least, then by canonical priority
//! (BEP 40). Failures are followed by growing patience. A private torrent dials only whom its tracker or the user
//! named (BEP 27). Addresses inside local networks are taken from peers and trackers only when these are there themselves.
//!
//! Peer ids are public, so that anybody can claim one: an id alone closes nothing. Two connections are one peer's when id
//! and address are the same, as far as ports are known those too; of different addresses both are kept. Even then no
//! connection that we opened is closed because of one that came: see [`PeerList::handle_listening_port`].
//!
//! Invariants: everything is bounded by `limits`; a candidate in use is never evicted; dialled and connected together
//! never exceed the settings by our own doing; every address is canonical.
//!
//! Drain contract: after each call poll [`PeerList::next_dial`] until it gives `None`, then wait until
//! [`PeerList::poll_timeout`]. Answer every dial with exactly one of [`PeerList::handle_connected`] and
//! [`PeerList::handle_dial_failed`], and tell the end of every connection by [`PeerList::handle_closed`].
//! Deliberately absent: displacing a connection because a newcomer has a higher priority, sockets, handshakes.

mod address;
mod bans;
mod candidates;
mod own;
mod priority;
mod terms;
#[cfg(test)]
mod scope_tests;
#[cfg(test)]
mod tests;

pub use address::{PackedAddress, Scope, dialable, embedded_v4, party};
pub use bans::BanReason;
pub use priority::canonical_priority;
pub use terms::{Closed, Direction, PeerListSettings, Shown, Source, Standing, Verdict};

use crate::id::{ConnId, PeerId};
use crate::limits;
use crate::rng::Rng;
use crate::time::Instant;
use bans::Bans;
use candidates::{Candidates, Place, Rank};
use own::OwnAddresses;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// The candidates and connections of one torrent. See the module for the drain contract.
#[derive(Clone, Debug)]
pub struct PeerList {
    settings: PeerListSettings,
    own: OwnAddresses,
    candidates: Candidates,
    connections: BTreeMap<ConnId, Connection>,
    by_name: BTreeSet<(PeerId, IpAddr, ConnId)>,
    bans: Bans,
}

#[derive(Clone, Debug)]
struct Connection {
    remote: IpAddr,
    peer_id: PeerId,
    direction: Direction,
    since: Instant,
    heard_at: Instant,
    /// Where the peer accepts connections: where we dialled it, or what it says.
    port: Option<u16>,
    /// It has given pieces that turned out right.
    proven: bool,
    /// Candidates that lead here, the one that was dialled first.
    addresses: Vec<SocketAddr>,
    /// Candidates that its peer named.
    told: u32,
}

impl PeerList {
    /// An empty list.
    pub fn new(settings: PeerListSettings) -> Self {
        let mut own = OwnAddresses::default();
        for &address in &settings.own {
            own.learn(address);
        }
        Self {
            settings,
            own,
            candidates: Candidates::default(),
            connections: BTreeMap::new(),
            by_name: BTreeSet::new(),
            bans: Bans::default(),
        }
    }

    /// Takes a candidate; false when it was known already or is not worth knowing. For what peers name use
    /// [`Self::add_told`].
    pub fn add(&mut self, now: Instant, address: SocketAddr, source: Source) -> bool {
        let teller = if let Source::Tracker(scope) = source { scope } else { Scope::Global };
        self.add_from(now, address, source, teller)
    }

    /// Takes a candidate that the peer of `conn` named (BEP 11); false when it was known already, is not worth knowing
    /// or is one too many of this peer's.
    pub fn add_told(&mut self, now: Instant, address: SocketAddr, conn: ConnId) -> bool {
        let Some(teller) = self.connections.get(&conn) else { return false };
        if teller.told >= limits::CANDIDATES_PER_TELLER_MAX {
            return false;
        }
        let added = self.add_from(now, address, Source::Pex, Scope::of(teller.remote));
        if let Some(teller) = self.connections.get_mut(&conn) {
            teller.told += u32::from(added);
        }
        added
    }

    /// The next candidate to dial, which counts as being dialled from now on.
    pub fn next_dial(&mut self, now: Instant, rng: &mut Rng) -> Option<SocketAddr> {
        if !self.has_room() {
            return None;
        }
        while let Some(address) = self.candidates.first_waiting(now) {
            let mut candidate = self.candidates.take(address)?;
            candidate.place = match self.bans.until(now, address.ip(), candidate.peer_id.as_deref().copied())
            {
                Some(until) => Place::Waiting(until),
                None => Place::Ready(Rank {
                    not_from_user: candidate.source != Source::User,
                    failures: candidate.failures,
                    priority: Reverse(self.own.priority_of(address)),
                    tie: rng.next_u64() as u32,
                }),
            };
            self.candidates.put(address, candidate);
        }
        while let Some(address) = self.candidates.best() {
            let mut candidate = self.candidates.take(address)?;
            let banned = self.bans.until(now, address.ip(), candidate.peer_id.as_deref().copied());
            candidate.jitter = rng.next_u64() as u8;
            candidate.place = banned.map_or(Place::Dialling, Place::Waiting);
            self.candidates.put(address, candidate);
            if banned.is_none() {
                return Some(address);
            }
        }
        None
    }

    /// A dial came to nothing: no connection, or none that got through its handshake.
    pub fn handle_dial_failed(&mut self, now: Instant, address: SocketAddr) {
        let address = canonical(address);
        if !self.candidates.get(address).is_some_and(|candidate| candidate.place == Place::Dialling) {
            return;
        }
        if let Some(mut candidate) = self.candidates.take(address) {
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.place = Place::Waiting(now + candidate.patience());
            if !self.own.contains(address) {
                self.candidates.put(address, candidate);
            }
        }
    }

    /// The dial of `address` got through its handshake as `conn`.
    pub fn handle_connected(
        &mut self,
        now: Instant,
        address: SocketAddr,
        conn: ConnId,
        peer_id: PeerId,
    ) -> Verdict {
        let address = canonical(address);
        if peer_id == self.settings.own_id {
            self.candidates.take(address);
            self.handle_own_address(address);
            return Verdict::CloseNew;
        }
        if let Some(mut candidate) = self.candidates.take(address) {
            // What holds unless it is linked below: nothing came of the dial.
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.place = Place::Waiting(now + candidate.patience().max(limits::DIAL_RETRY_MIN));
            candidate.peer_id = Some(Box::new(peer_id));
            candidate.proven = true;
            self.candidates.put(address, candidate);
        }
        let port = Some(address.port());
        let verdict = self.admit(now, address.ip(), port, conn, peer_id, Direction::Outgoing);
        self.link(conn, address);
        verdict
    }

    /// A peer connected to us from `remote` as `conn`, and the handshake is complete. `listening` is the address it
    /// accepts peers at, when known already; else see [`Self::handle_listening_port`].
    ///
    /// A connection of the same peer that has been silent for [`limits::DUPLICATE_IDLE_TIME`] is closed in its favour.
    pub fn handle_incoming(
        &mut self,
        now: Instant,
        remote: IpAddr,
        listening: Option<SocketAddr>,
        conn: ConnId,
        peer_id: PeerId,
    ) -> Verdict {
        if peer_id == self.settings.own_id {
            return Verdict::CloseNew;
        }
        let verdict = self.admit(now, remote.to_canonical(), None, conn, peer_id, Direction::Incoming);
        if let Some(listening) = listening.filter(|_| verdict != Verdict::CloseNew)
            && self.handle_listening_port(now, conn, listening.port()).is_some()
        {
            return Verdict::CloseNew;
        }
        verdict
    }

    /// The peer of `conn` says on which port it accepts peers (`p` of BEP 10), so that it is dialled there when the
    /// connection is gone, and not before. Gives the connection when it is to be closed; the list has forgotten it then.
    ///
    /// When two peers have dialled each other, one of the two connections is too many: that which the side with the
    /// lesser peer id opened. The side that it came to closes it, and knows by the port that it leads to the same peer as
    /// its own; the other side waits for that. So a false port closes nothing but the connection it was told on.
    #[must_use]
    pub fn handle_listening_port(&mut self, now: Instant, conn: ConnId, port: u16) -> Option<ConnId> {
        let connection = self.connections.get_mut(&conn)?;
        let address = dialable(SocketAddr::new(connection.remote, port))?;
        if connection.direction == Direction::Incoming {
            connection.port = Some(port);
        }
        let (peer_id, remote, direction) = (connection.peer_id, connection.remote, connection.direction);
        let is_twin = |twin: &ConnId| {
            let twin = self.connections.get(twin);
            twin.is_some_and(|twin| twin.direction == Direction::Outgoing && twin.port == Some(port))
        };
        if direction == Direction::Incoming
            && self.settings.own_id > peer_id
            && self.named(peer_id, remote).any(|twin| is_twin(&twin))
        {
            self.forget(conn);
            return Some(conn);
        }
        if self.candidates.get(address).is_none() {
            self.add_from(now, address, Source::Incoming, Scope::Loopback);
        }
        self.link(conn, address);
        None
    }

    /// The peer of `conn` has given a piece that turned out right: no verdict about somebody else closes it.
    pub fn handle_proven(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.proven = true;
        }
    }

    /// Something came from the peer of `conn`, keep-alives included. Told at least once a minute for a connection that
    /// lives, a second one of the same peer cannot take its place.
    pub fn handle_heard(&mut self, now: Instant, conn: ConnId) {
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.heard_at = now;
        }
    }

    /// A connection ended. Unknown ones are ignored, among them those that a [`Verdict`] closed.
    pub fn handle_closed(&mut self, now: Instant, conn: ConnId, why: Closed) {
        let Some(connection) = self.forget(conn) else { return };
        let stable = now.since(connection.since) >= limits::CONNECTION_STABLE_TIME;
        for address in connection.addresses {
            let Some(mut candidate) = self.candidates.take(address) else { continue };
            candidate.failures = match why {
                Closed::Normal | Closed::Useless if stable => 0,
                // A peer that throws us out at once is full or does not want us: that is no time for a quick retry.
                _ => candidate.failures.saturating_add(1).max(2),
            };
            // Another connection may lead there that could not say so while this one did.
            let twin = self.named(connection.peer_id, connection.remote).find(|twin| {
                self.connections.get(twin).is_some_and(|twin| twin.port == Some(address.port()))
            });
            if let Some(twin) = twin.filter(|_| why != Closed::Ourselves && address.ip() == connection.remote)
            {
                candidate.place = Place::Waiting(now);
                self.candidates.put(address, candidate);
                self.link(twin, address);
                continue;
            }
            candidate.place = match why {
                Closed::Normal => Place::Waiting(now + candidate.patience()),
                Closed::ProtocolError => {
                    Place::Waiting(now + candidate.patience().max(limits::PROTOCOL_ERROR_RETRY_MIN))
                }
                Closed::Useless => Place::Shelved,
                Closed::Ourselves => {
                    self.own.learn(address);
                    continue;
                }
            };
            self.candidates.put(address, candidate);
        }
        if why == Closed::Ourselves {
            self.rank_again(now);
        }
    }

    /// We want pieces again (a check found some missing, more files are wanted): seeds are worth dialling.
    pub fn handle_seeding_ended(&mut self, now: Instant) {
        for address in self.candidates.shelved().collect::<Vec<_>>() {
            self.wait_until(now, address);
        }
    }

    /// Bans the peer, and gives the connections that are to be closed with it: those that the ban holds for, unless they
    /// have given right pieces. Of these the caller closes the ones that were convicted themselves. A ban holds for the
    /// peer's name at its address, and for the whole address when it is the third name there.
    #[must_use]
    pub fn ban(&mut self, now: Instant, ip: IpAddr, peer_id: PeerId, reason: BanReason) -> Vec<ConnId> {
        self.bans.ban(now, ip, peer_id, reason);
        let banned = self.connections.iter().filter(|(_, connection)| {
            !connection.proven && self.bans.until(now, connection.remote, Some(connection.peer_id)).is_some()
        });
        banned.map(|(&conn, _)| conn).collect()
    }

    /// Whether a ban holds for the peer. Before the handshake there is no peer id, and only bans of whole addresses hold.
    pub fn is_banned(&self, now: Instant, ip: IpAddr, peer_id: Option<PeerId>) -> bool {
        self.bans.until(now, ip, peer_id).is_some()
    }

    /// The bans that hold: address, name unless it is the whole address that is banned, end and reason.
    pub fn bans(&self, now: Instant) -> impl Iterator<Item = (IpAddr, Option<PeerId>, Instant, BanReason)> {
        self.bans.holding(now)
    }

    /// An address is certainly ours: we listen there, or met ourselves there.
    pub fn handle_own_address(&mut self, address: SocketAddr) {
        let changed = self.own.learn(address);
        let address = canonical(address);
        let idle = self.candidates.get(address).is_some_and(|candidate| {
            matches!(candidate.place, Place::Waiting(_) | Place::Ready(_) | Place::Shelved)
        });
        if idle {
            self.candidates.take(address);
        }
        if changed {
            self.rank_again(Instant::ZERO);
        }
    }

    /// A peer at `voter` says that it sees us at `seen` (`yourip` of BEP 10). Believed when peers of several networks
    /// agree, and only when the port we listen on is known.
    pub fn handle_your_address(&mut self, voter: IpAddr, seen: IpAddr) {
        if let Some(port) = self.settings.own_port
            && let Some(ip) = self.own.vote(voter, seen)
        {
            self.handle_own_address(SocketAddr::new(ip, port));
        }
    }

    /// When [`Self::next_dial`] may have something new; `None` while nothing but another call can change that.
    /// May lie in the past, which means now.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.has_room() { self.candidates.next_at() } else { None }
    }

    /// Connections, both directions.
    pub fn connected(&self) -> usize {
        self.connections.len()
    }

    /// Candidates being dialled.
    pub fn dialling(&self) -> usize {
        self.candidates.dialling()
    }

    /// Candidates known, those in use included.
    pub fn candidates(&self) -> usize {
        self.candidates.len()
    }

    /// The candidates in order of address, for show.
    pub fn shown(&self) -> impl Iterator<Item = Shown> {
        self.candidates.iter().map(|(address, candidate)| Shown {
            address,
            source: candidate.source,
            failures: candidate.failures,
            standing: match candidate.place {
                Place::Waiting(until) => Standing::Waiting(until),
                Place::Ready(_) => Standing::Ready,
                Place::Shelved => Standing::Shelved,
                Place::Dialling => Standing::Dialling,
                Place::Connected(conn) => Standing::Connected(conn),
            },
        })
    }

    /// Each connection whose peer can be dialled somewhere, with that address: what peer exchange may tell others.
    pub fn exchangeable(&self) -> impl Iterator<Item = (ConnId, SocketAddr, Direction)> {
        self.connections.iter().filter_map(|(&conn, connection)| {
            connection.addresses.first().map(|&address| (conn, address, connection.direction))
        })
    }

    /// Where the peer of a connection can be dialled, when known.
    pub fn address_of(&self, conn: ConnId) -> Option<SocketAddr> {
        self.connections.get(&conn)?.addresses.first().copied()
    }

    /// Addresses where there has been a connection, in order of address: worth trying first in the next run.
    pub fn proven(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().filter(|(_, candidate)| candidate.proven).map(|(address, _)| address)
    }

    fn has_room(&self) -> bool {
        let dialling = self.candidates.dialling();
        dialling < self.settings.dialling_max
            && dialling + self.connections.len() < self.settings.dial_below.min(self.settings.connections_max)
    }

    fn add_from(&mut self, now: Instant, address: SocketAddr, source: Source, teller: Scope) -> bool {
        let Some(address) = dialable(address) else { return false };
        if self.own.contains(address) || (self.settings.private && source < Source::Tracker(Scope::Global)) {
            return false;
        }
        let is_hearsay = matches!(source, Source::Pex | Source::Dht | Source::Tracker(_));
        if is_hearsay && !self.settings.lan_allowed && !teller.may_name(address.ip()) {
            return false;
        }
        if let Some(known) = self.candidates.get(address) {
            if known.source < source
                && let Some(mut candidate) = self.candidates.take(address)
            {
                candidate.source = source;
                if matches!(candidate.place, Place::Ready(_)) {
                    candidate.place = Place::Waiting(now);
                }
                self.candidates.put(address, candidate);
            }
            return false;
        }
        let candidate = self.candidates.fresh(source, Place::Waiting(now));
        let room = self.candidates.make_room(address, &candidate, self.settings.candidates_max);
        if room {
            self.candidates.put(address, candidate);
        }
        room
    }

    fn admit(
        &mut self,
        now: Instant,
        remote: IpAddr,
        port: Option<u16>,
        conn: ConnId,
        peer_id: PeerId,
        direction: Direction,
    ) -> Verdict {
        if self.bans.until(now, remote, Some(peer_id)).is_some() {
            return Verdict::CloseNew;
        }
        let mut connection = Connection {
            remote,
            peer_id,
            direction,
            since: now,
            heard_at: now,
            port,
            proven: false,
            addresses: Vec::new(),
            told: 0,
        };
        let replaced = self.named(peer_id, remote).find(|earlier| {
            self.connections.get(earlier).is_some_and(|earlier| {
                let one_peer = earlier.port.zip(port).is_none_or(|(one, other)| one == other);
                let silent = now.since(earlier.heard_at) >= limits::DUPLICATE_IDLE_TIME;
                let too_many = direction == Direction::Outgoing
                    && earlier.direction == Direction::Incoming
                    && earlier.port == port
                    && self.settings.own_id > peer_id;
                one_peer && silent || too_many
            })
        });
        let verdict = match replaced {
            Some(old) => {
                if let Some(earlier) = self.forget(old) {
                    connection.told = earlier.told;
                    self.move_addresses(earlier.addresses, conn, &mut connection);
                }
                Verdict::CloseOld(old)
            }
            None if self.connections.len() >= self.settings.connections_max => return Verdict::CloseNew,
            None => Verdict::Keep,
        };
        self.by_name.insert((peer_id, remote, conn));
        self.connections.insert(conn, connection);
        verdict
    }

    /// The connections of one address whose peers go by this name, oldest worker and place first.
    fn named(&self, peer_id: PeerId, remote: IpAddr) -> impl Iterator<Item = ConnId> {
        let (first, last) = (
            ConnId { worker: 0, slot: 0, generation: 0 },
            ConnId { worker: u16::MAX, slot: u32::MAX, generation: u32::MAX },
        );
        self.by_name.range((peer_id, remote, first)..=(peer_id, remote, last)).map(|&(_, _, conn)| conn)
    }

    fn forget(&mut self, conn: ConnId) -> Option<Connection> {
        let connection = self.connections.remove(&conn)?;
        self.by_name.remove(&(connection.peer_id, connection.remote, conn));
        Some(connection)
    }

    fn move_addresses(&mut self, addresses: Vec<SocketAddr>, conn: ConnId, connection: &mut Connection) {
        for address in addresses {
            if let Some(mut candidate) = self.candidates.take(address) {
                candidate.place = Place::Connected(conn);
                self.candidates.put(address, candidate);
                connection.addresses.push(address);
            }
        }
    }

    /// Notes that `address` leads to `conn`, unless it is in use for something else or `conn` has enough of them.
    fn link(&mut self, conn: ConnId, address: SocketAddr) {
        let Some(connection) = self.connections.get_mut(&conn) else { return };
        let idle = self.candidates.get(address).is_some_and(|candidate| {
            matches!(candidate.place, Place::Waiting(_) | Place::Ready(_) | Place::Shelved)
        });
        if !idle || connection.addresses.len() >= limits::ADDRESSES_PER_CONNECTION_MAX {
            return;
        }
        if let Some(mut candidate) = self.candidates.take(address) {
            candidate.place = Place::Connected(conn);
            candidate.peer_id = Some(Box::new(connection.peer_id));
            self.candidates.put(address, candidate);
            // Mostly the only one.
            connection.addresses.reserve_exact(1);
            connection.addresses.push(address);
        }
    }

    fn wait_until(&mut self, until: Instant, address: SocketAddr) {
        if let Some(mut candidate) = self.candidates.take(address) {
            candidate.place = Place::Waiting(until);
            self.candidates.put(address, candidate);
        }
    }

    /// Our own address has changed, and with it every priority.
    fn rank_again(&mut self, now: Instant) {
        for address in self.candidates.ready().collect::<Vec<_>>() {
            self.wait_until(now, address);
        }
    }
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
