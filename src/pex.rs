//! Peer exchange (BEP 11): what to tell which peer, and whom to believe.
//!
//! Each connection is told which peers we are connected to, as the difference to what it was told before: at most one
//! message a minute, the first soon after it joined, 50 added and 50 dropped at most. Nobody is told of itself, and
//! addresses in local networks are told only to peers that are there. What is told is what lives: a peer that was
//! added is dropped once it is gone, and never both in one message.
//!
//! A peer that talks too often is not listened to, and closed when it does not stop; the same goes for messages that
//! contradict themselves. In a private torrent nothing is told and nothing is believed (BEP 27).
//!
//! Invariant: what is remembered is at most [`PEX_TOLD_MAX`] addresses a connection. In a larger swarm each peer is
//! told of another part of it. Deliberately absent: BEP 11's list of recently seen peers for swarms of seeds.
//!
//! Drain contract: after each call poll [`Pex::poll_due`] until it gives `None`, answering each connection by
//! [`Pex::message_for`]; then wait until [`Pex::poll_timeout`].

use crate::id::ConnId;
use crate::limits::{
    PEX_FIRST_DELAY, PEX_INTERVAL, PEX_INTERVAL_MIN, PEX_LOOK_INTERVAL, PEX_MESSAGES_FREE, PEX_OFFENCES_MAX,
    PEX_PEERS_MAX, PEX_TOLD_MAX,
};
use crate::peer_list::{PackedAddress, Scope, dialable};
use crate::time::Instant;
use crate::wire::{PexMessage, PexPeer};
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

/// Peer exchange of one torrent. See the module for the drain contract.
#[derive(Clone, Debug)]
pub struct Pex {
    private: bool,
    peers: BTreeMap<ConnId, Peer>,
    /// Whom to tell something when.
    due: BTreeSet<(Instant, ConnId)>,
    ignored: u64,
}

/// What to do with a message that a peer sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PexVerdict {
    /// Its added peers are candidates; those that only upload are none for a seed.
    Use(PexMessage),
    /// Nothing: it came too soon, contradicts itself, or the torrent is private.
    Ignore,
    /// Close the connection: there have been too many such messages.
    Disconnect,
}

/// The peers that we are connected to and can name, canonical, in order of address, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CurrentPeers(Vec<PexPeer>);

#[derive(Clone, Debug)]
struct Peer {
    scope: Scope,
    /// Where it accepts peers, when known.
    address: Option<SocketAddr>,
    /// Whether it understands `ut_pex`, and when to tell it something.
    next_at: Option<Instant>,
    told: Told,
    received: u32,
    used_at: Instant,
    offences: u32,
}

impl CurrentPeers {
    /// Takes the peers; those that cannot be dialled are left out.
    pub fn of(peers: impl IntoIterator<Item = PexPeer>) -> Self {
        let dialable =
            peers.into_iter().filter_map(|peer| Some(PexPeer { address: dialable(peer.address)?, ..peer }));
        let mut peers: Vec<_> = dialable.collect();
        peers.sort_unstable();
        peers.dedup_by_key(|peer| peer.address);
        Self(peers)
    }

    /// The peers in order of address.
    pub fn as_slice(&self) -> &[PexPeer] {
        &self.0
    }

    fn contains(&self, address: SocketAddr) -> bool {
        self.0.binary_search_by_key(&address, |peer| peer.address).is_ok()
    }
}

/// Canonical addresses in order, in no more bytes than they have on the wire: each of a torrent's peers is told of many
/// of its other peers.
#[derive(Clone, Debug, Default)]
struct Told {
    v4: Vec<[u8; 6]>,
    v6: Vec<[u8; 18]>,
}

impl Told {
    fn len(&self) -> usize {
        self.v4.len() + self.v6.len()
    }

    fn iter(&self) -> impl Iterator<Item = SocketAddr> {
        let v4 = self.v4.iter().map(|&bytes| PackedAddress::V4(bytes));
        v4.chain(self.v6.iter().map(|&bytes| PackedAddress::V6(bytes))).map(SocketAddr::from)
    }

    fn contains(&self, address: SocketAddr) -> bool {
        match PackedAddress::from(address) {
            PackedAddress::V4(bytes) => self.v4.binary_search(&bytes).is_ok(),
            PackedAddress::V6(bytes) => self.v6.binary_search(&bytes).is_ok(),
        }
    }

    /// Takes in all of `added` at once.
    fn extend(&mut self, added: &[PexPeer]) {
        let (v4, v6) = (self.v4.len(), self.v6.len());
        let count = added.iter().filter(|peer| peer.address.is_ipv4()).count();
        self.v4.reserve_exact(count);
        self.v6.reserve_exact(added.len() - count);
        for peer in added {
            match PackedAddress::from(peer.address) {
                PackedAddress::V4(bytes) => self.v4.push(bytes),
                PackedAddress::V6(bytes) => self.v6.push(bytes),
            }
        }
        if self.v4.len() > v4 {
            self.v4.sort_unstable();
        }
        if self.v6.len() > v6 {
            self.v6.sort_unstable();
        }
    }

    /// Forgets `addresses`, which are in order.
    fn remove(&mut self, addresses: &[SocketAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut gone = Self::default();
        for &address in addresses {
            match PackedAddress::from(address) {
                PackedAddress::V4(bytes) => gone.v4.push(bytes),
                PackedAddress::V6(bytes) => gone.v6.push(bytes),
            }
        }
        self.v4.retain(|bytes| gone.v4.binary_search(bytes).is_err());
        self.v6.retain(|bytes| gone.v6.binary_search(bytes).is_err());
    }
}

impl Pex {
    /// Peer exchange of a torrent that may be private.
    pub fn new(private: bool) -> Self {
        Self { private, peers: BTreeMap::new(), due: BTreeSet::new(), ignored: 0 }
    }

    /// A connection with a peer at `remote` has completed its extension handshake; `wants` says whether the peer
    /// understands `ut_pex`, `listening` where it accepts peers. Told again, it only brings these up to date.
    pub fn handle_joined(
        &mut self,
        now: Instant,
        conn: ConnId,
        remote: IpAddr,
        listening: Option<SocketAddr>,
        wants: bool,
    ) {
        let scope = Scope::of(remote);
        let peer = self.peers.entry(conn).or_insert_with(|| Peer {
            scope,
            address: None,
            next_at: None,
            told: Told::default(),
            received: 0,
            used_at: now,
            offences: 0,
        });
        peer.address = listening.and_then(dialable).or(peer.address);
        if !self.private && wants != peer.next_at.is_some() {
            if let Some(next_at) = peer.next_at.take() {
                self.due.remove(&(next_at, conn));
            }
            if wants {
                peer.next_at = Some(now + PEX_FIRST_DELAY);
                self.due.insert((now + PEX_FIRST_DELAY, conn));
            }
        }
    }

    /// A connection is gone.
    pub fn handle_closed(&mut self, conn: ConnId) {
        if let Some(next_at) = self.peers.remove(&conn).and_then(|peer| peer.next_at) {
            self.due.remove(&(next_at, conn));
        }
    }

    /// The payload of a `ut_pex` message for a connection that is due; `None` when it is not, or when there is
    /// nothing new to tell, and then it is due again some seconds later.
    pub fn message_for(&mut self, now: Instant, conn: ConnId, current: &CurrentPeers) -> Option<Vec<u8>> {
        let peer = self.peers.get_mut(&conn)?;
        let due_at = peer.next_at.filter(|&next_at| next_at <= now)?;
        self.due.remove(&(due_at, conn));
        let message = peer.difference(conn, current);
        let is_empty = message.added.is_empty() && message.dropped.is_empty();
        let next_at = now + if is_empty { PEX_LOOK_INTERVAL } else { PEX_INTERVAL };
        peer.next_at = Some(next_at);
        self.due.insert((next_at, conn));
        (!is_empty).then(|| message.encode())
    }

    /// A peer sent the payload of a `ut_pex` message.
    pub fn handle_message(&mut self, now: Instant, conn: ConnId, payload: &[u8]) -> PexVerdict {
        let Some(peer) = self.peers.get_mut(&conn) else { return PexVerdict::Ignore };
        let free = peer.received < PEX_MESSAGES_FREE;
        peer.received = peer.received.saturating_add(1);
        let in_time = free || now.since(peer.used_at) >= PEX_INTERVAL_MIN;
        // What will not be listened to is not even read.
        let message = (in_time && !self.private).then(|| PexMessage::decode(payload).ok()).flatten();
        if let Some(message) = message {
            peer.used_at = now;
            peer.offences = peer.offences.saturating_sub(1);
            return PexVerdict::Use(message);
        }
        self.ignored += 1;
        peer.offences += 1;
        if peer.offences > PEX_OFFENCES_MAX { PexVerdict::Disconnect } else { PexVerdict::Ignore }
    }

    /// A connection whose message is due; the same one until [`Self::message_for`] was asked for it.
    pub fn poll_due(&self, now: Instant) -> Option<ConnId> {
        self.due.first().filter(|(at, _)| *at <= now).map(|&(_, conn)| conn)
    }

    /// When the next message is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// Messages not listened to, of all connections so far.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }
}

impl Peer {
    /// What the peer has to hear to know `current`; noted as told.
    fn difference(&mut self, conn: ConnId, current: &CurrentPeers) -> PexMessage {
        let peers = current.as_slice();
        let (address, scope) = (self.address, self.scope);
        let may_hear =
            |peer: &PexPeer| Some(peer.address) != address && Scope::of(peer.address.ip()) <= scope;
        // Mostly nothing is new.
        let all = peers.iter().filter(|peer| may_hear(peer));
        if self.told.iter().eq(all.map(|peer| peer.address)) {
            return PexMessage::default();
        }
        let gone = self.told.iter().filter(|&address| !current.contains(address));
        let dropped: Vec<_> = gone.take(PEX_PEERS_MAX).collect();
        self.told.remove(&dropped);
        // Each connection begins elsewhere, so that in a large swarm not everybody hears of the same peers.
        let begin = (conn.slot as usize).wrapping_mul(PEX_PEERS_MAX) % peers.len().max(1);
        let (behind, ahead) = peers.split_at(begin);
        let room = PEX_TOLD_MAX.saturating_sub(self.told.len()).min(PEX_PEERS_MAX);
        let fresh =
            ahead.iter().chain(behind).filter(|peer| may_hear(peer) && !self.told.contains(peer.address));
        let mut added: Vec<_> = fresh.take(room).copied().collect();
        self.told.extend(&added);
        added.sort_unstable();
        PexMessage { added, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::time::Duration;
    use crate::wire::PexFlags;
    use proptest::prelude::*;

    const START: Instant = Instant::from_nanos(1_000_000_000);
    const ONE: ConnId = ConnId { worker: 0, slot: 1, generation: 0 };

    fn peer(number: u16) -> PexPeer {
        let [high, low] = number.to_be_bytes();
        PexPeer { address: SocketAddr::from(([11, 0, high, low], 6881)), flags: PexFlags::REACHABLE }
    }

    fn swarm(numbers: impl IntoIterator<Item = u16>) -> CurrentPeers {
        CurrentPeers::of(numbers.into_iter().map(peer))
    }

    fn remote() -> IpAddr {
        IpAddr::from([11, 9, 9, 9])
    }

    fn joined() -> Pex {
        let mut pex = Pex::new(false);
        pex.handle_joined(START, ONE, remote(), None, true);
        pex
    }

    /// What the peer is told at the next time that something is due.
    fn told(pex: &mut Pex, current: &CurrentPeers) -> PexMessage {
        let now = pex.poll_timeout().expect("the peer understands");
        assert_eq!(pex.poll_due(now), Some(ONE));
        let message = pex.message_for(now, ONE, current);
        assert_eq!(pex.poll_due(now), None);
        message.map(|payload| PexMessage::decode(&payload).expect("our own message")).unwrap_or_default()
    }

    #[test]
    fn the_first_message_comes_soon_and_the_next_a_minute_later() {
        let mut pex = joined();
        let current = swarm([1, 2]);
        assert_eq!(pex.message_for(START, ONE, &current), None);
        let first_at = START + PEX_FIRST_DELAY;
        assert_eq!(pex.poll_timeout(), Some(first_at));
        assert_eq!(told(&mut pex, &current).added, [peer(1), peer(2)]);
        assert_eq!(pex.poll_timeout(), Some(first_at + PEX_INTERVAL));
        assert_eq!(pex.message_for(first_at + Duration::from_secs(59), ONE, &swarm([3])), None);
        let message = told(&mut pex, &swarm([2, 3]));
        assert_eq!((message.added, message.dropped), (vec![peer(3)], vec![peer(1).address]));
        let before = pex.poll_timeout();
        assert_eq!(told(&mut pex, &swarm([2, 3])), PexMessage::default());
        assert_eq!(pex.poll_timeout(), before.map(|at| at + PEX_LOOK_INTERVAL));
    }

    #[test]
    fn nobody_is_told_of_itself_nor_of_what_is_local_to_us() {
        let mut pex = joined();
        pex.handle_joined(START, ONE, remote(), Some(peer(1).address), true);
        let local = ["127.0.0.1:1", "10.0.0.1:1", "[fd00::1]:1"].map(|text| PexPeer {
            address: text.parse().expect("a literal address"),
            flags: PexFlags::default(),
        });
        let current = CurrentPeers::of([peer(1), peer(2)].into_iter().chain(local));
        assert_eq!(told(&mut pex, &current).added, [peer(2)]);
        let mut pex = Pex::new(false);
        pex.handle_joined(START, ONE, IpAddr::from([10, 0, 0, 9]), None, true);
        assert_eq!(told(&mut pex, &current).added.len(), 4);
    }

    #[test]
    fn in_a_private_torrent_nothing_is_told_and_nothing_believed() {
        let mut pex = Pex::new(true);
        pex.handle_joined(START, ONE, remote(), None, true);
        assert_eq!(
            (pex.poll_timeout(), pex.message_for(START + PEX_INTERVAL, ONE, &swarm([1]))),
            (None, None)
        );
        let payload = PexMessage { added: vec![peer(1)], dropped: Vec::new() }.encode();
        for minute in 0..u64::from(PEX_OFFENCES_MAX) {
            let now = START + PEX_INTERVAL * u32::try_from(minute).expect("small");
            assert_eq!(pex.handle_message(now, ONE, &payload), PexVerdict::Ignore);
        }
        assert_eq!(pex.handle_message(START, ONE, &payload), PexVerdict::Disconnect);
    }

    #[test]
    fn who_does_not_understand_is_told_nothing_and_who_leaves_is_forgotten() {
        let mut pex = Pex::new(false);
        pex.handle_joined(START, ONE, remote(), None, false);
        assert_eq!(pex.poll_timeout(), None);
        pex.handle_joined(START, ONE, remote(), None, true);
        assert!(pex.poll_timeout().is_some());
        pex.handle_joined(START, ONE, remote(), None, false);
        assert_eq!(pex.poll_timeout(), None);
        pex.handle_joined(START, ONE, remote(), None, true);
        pex.handle_closed(ONE);
        assert_eq!((pex.poll_timeout(), pex.peers.len()), (None, 0));
        assert_eq!(pex.handle_message(START, ONE, b"de"), PexVerdict::Ignore);
    }

    #[test]
    fn a_peer_that_talks_too_often_is_not_heard_and_then_closed() {
        let mut pex = joined();
        let payload = PexMessage { added: vec![peer(1)], dropped: Vec::new() }.encode();
        let mut hear = |secs| pex.handle_message(START + Duration::from_secs(secs), ONE, &payload);
        // One at once, one at the peer's own minute, and from then on once a minute, give or take.
        for secs in [1, 3, 58, 120, 176] {
            assert!(matches!(hear(secs), PexVerdict::Use(_)), "after {secs} s");
        }
        for _ in 0..PEX_OFFENCES_MAX {
            assert_eq!(hear(200), PexVerdict::Ignore);
        }
        assert!(matches!(hear(240), PexVerdict::Use(_)));
        assert_eq!(hear(241), PexVerdict::Ignore);
        assert_eq!(hear(242), PexVerdict::Disconnect);
        assert_eq!(pex.ignored(), u64::from(PEX_OFFENCES_MAX) + 2);
    }

    #[test]
    fn broken_messages_count_like_frequent_ones() {
        let mut pex = joined();
        for round in 0..PEX_OFFENCES_MAX {
            assert_eq!(pex.handle_message(START + PEX_INTERVAL * round, ONE, b"le"), PexVerdict::Ignore);
        }
        let late = START + PEX_INTERVAL * 100;
        assert_eq!(pex.handle_message(late, ONE, b"d5:added1:xe"), PexVerdict::Disconnect);
    }

    #[test]
    fn in_a_large_swarm_memory_is_bounded_and_peers_hear_of_different_parts() {
        let current = swarm(0..5000);
        let mut begins = BTreeSet::new();
        for slot in 0..10 {
            let conn = ConnId { slot, ..ONE };
            let mut pex = Pex::new(false);
            pex.handle_joined(START, conn, remote(), None, true);
            let mut told = 0;
            for minute in 1..20 {
                let payload = pex.message_for(START + PEX_INTERVAL * minute, conn, &current);
                let message = payload.map(|payload| PexMessage::decode(&payload).expect("our own message"));
                let message = message.unwrap_or_default();
                told += message.added.len();
                begins.extend(message.added.first().map(|peer| peer.address).filter(|_| minute == 1));
            }
            assert_eq!(told, PEX_TOLD_MAX);
        }
        assert_eq!(begins.len(), 10);
    }

    proptest! {
        /// A peer that applies every message knows the swarm as it was, as far as bounds allow.
        #[test]
        fn who_applies_the_messages_knows_the_swarm(seed: u64) {
            let (mut rng, mut pex) = (Rng::from_seed(seed), joined());
            let (mut alive, mut known) = (BTreeSet::new(), BTreeSet::new());
            for _ in 0..30 {
                for _ in 0..rng.index(60) {
                    let number = rng.below(150) as u16;
                    if !alive.remove(&number) {
                        alive.insert(number);
                    }
                }
                let message = told(&mut pex, &swarm(alive.iter().copied()));
                prop_assert!(message.added.len() <= PEX_PEERS_MAX && message.dropped.len() <= PEX_PEERS_MAX);
                for address in &message.dropped {
                    prop_assert!(known.remove(address), "only what was added is dropped");
                    prop_assert!(!message.added.iter().any(|peer| peer.address == *address));
                }
                for peer in &message.added {
                    prop_assert!(known.insert(peer.address), "nothing is added twice");
                }
            }
            let last = swarm(alive);
            for _ in 0..10 {
                let message = told(&mut pex, &last);
                known.retain(|address| !message.dropped.contains(address));
                known.extend(message.added.iter().map(|peer| peer.address));
            }
            prop_assert!(known.iter().copied().eq(last.as_slice().iter().map(|peer| peer.address)));
        }

        #[test]
        fn any_messages_at_any_time_are_survived(
            messages in prop::collection::vec((0..100u64, prop::collection::vec(any::<u8>(), 0..60)), 0..40),
        ) {
            let mut pex = joined();
            let mut now = START;
            for (secs, payload) in messages {
                now += Duration::from_secs(secs);
                let _ = pex.handle_message(now, ONE, &payload);
            }
        }
    }
}
