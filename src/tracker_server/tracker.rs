//! What a tracker answers: requests come as bytes with their source, answers leave as bytes. No socket here,
//! and time is an argument.
//!
//! Until a UDP client has shown by its connection id that it receives at its address, no answer is longer
//! than the question (BEP 15; a tracker must not become a weapon). Addresses that clients claim are ignored.

use super::access::AccessList;
use super::connection_id::ConnectionIds;
use super::{CompletedDownload, TrackerStatistics};
use crate::id::InfoHash;
use crate::limits::{EXPIRY_WORK_MAX, TRACKER_PEERS_DEFAULT, TRACKER_PEERS_MAX, UDP_PEERS_V6_MAX};
use crate::rng::Rng;
use crate::swarm_registry::{Announce, Announced, DamagedPiece, SelectedPeers, SwarmRegistry};
use crate::time::{Duration, Instant};
use crate::tracker_wire::http::query::{AnnounceQuery, parse_scrape};
use crate::tracker_wire::http::response::{AnnounceAnswer, encode_failure, encode_scrape};
use crate::tracker_wire::udp::{self, Request};
use crate::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest, ScrapeEntry, push_compact_peer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use tokio::sync::mpsc;

const UNKNOWN_CONNECTION: &str = "connection id mismatch";
const NOT_SERVED: &str = "this tracker does not serve this torrent";

/// Bytes of the shortest UDP request that the error above answers: a scrape of one torrent.
const SHORTEST_UNPROVEN_LEN: usize = 36;
const _: () = assert!(8 + UNKNOWN_CONNECTION.len() <= SHORTEST_UNPROVEN_LEN);

/// A tracker without its sockets.
pub(super) struct Tracker {
    registry: SwarmRegistry,
    ids: ConnectionIds,
    rng: Rng,
    access: AccessList,
    interval: Duration,
    peers: SelectedPeers,
    counters: TrackerStatistics,
    hosted: BTreeMap<InfoHash, SocketAddr>,
    local_ip_towards: fn(IpAddr) -> Option<IpAddr>,
    completed: Option<mpsc::Sender<CompletedDownload>>,
    /// The list is to be read again.
    pub(super) reload_wanted: bool,
}

/// What a tracker is made of.
pub(super) struct TrackerParts {
    pub(super) interval: Duration,
    pub(super) access: AccessList,
    pub(super) secret: [u8; 16],
    pub(super) rng: Rng,
    /// The address under which this machine is reached from another.
    pub(super) local_ip_towards: fn(IpAddr) -> Option<IpAddr>,
    pub(super) completed: Option<mpsc::Sender<CompletedDownload>>,
}

impl Tracker {
    pub(super) fn new(parts: TrackerParts) -> Self {
        // Half a minute more, so that an announce may be late.
        let lifetime = parts.interval * 2 + Duration::from_secs(30);
        Self {
            registry: SwarmRegistry::keyed(lifetime, parts.secret),
            ids: ConnectionIds::new(&parts.secret),
            rng: parts.rng,
            access: parts.access,
            interval: parts.interval,
            peers: SelectedPeers::default(),
            counters: TrackerStatistics::default(),
            hosted: BTreeMap::new(),
            local_ip_towards: parts.local_ip_towards,
            completed: parts.completed,
            reload_wanted: false,
        }
    }

    /// Appends the answer to a datagram to `out`, or nothing when it deserves none.
    pub(super) fn answer_udp(
        &mut self,
        now: Instant,
        datagram: &[u8],
        source: SocketAddr,
        out: &mut Vec<u8>,
    ) {
        let Ok(request) = Request::decode(datagram) else {
            self.counters.refused += 1;
            return;
        };
        match request {
            Request::Connect { transaction } => {
                self.counters.connects += 1;
                udp::encode_connect_response(out, transaction, self.ids.issue(now, source.ip()));
            }
            Request::Announce { connection, transaction, .. }
            | Request::Scrape { connection, transaction, .. }
                if !self.ids.proves(now, source.ip(), connection) =>
            {
                self.counters.refused += 1;
                udp::encode_error(out, transaction, UNKNOWN_CONNECTION);
            }
            Request::Announce { transaction, request, .. } => {
                if !self.access.admits(request.info_hash) {
                    tracing::debug!(client = %source, torrent = %request.info_hash, "announce refused: not served");
                    self.counters.refused += 1;
                    udp::encode_error(out, transaction, NOT_SERVED);
                    return;
                }
                self.counters.announces_udp += 1;
                let figures = self.announce(now, &request, source, false).figures;
                let interval_secs = self.interval_secs();
                udp::encode_announce_response(
                    out,
                    transaction,
                    interval_secs,
                    figures.leeches,
                    figures.seeds,
                );
                out.extend_from_slice(match AddressFamily::of(source.ip()) {
                    AddressFamily::V4 => &self.peers.v4,
                    AddressFamily::V6 => &self.peers.v6,
                });
            }
            Request::Scrape { transaction, info_hashes, .. } => {
                self.counters.scrapes_udp += 1;
                let entries = udp::info_hashes(info_hashes).map(|info_hash| self.scrape(info_hash));
                udp::encode_scrape_response(out, transaction, entries);
            }
        }
    }

    /// The body that answers an HTTP announce; a refusal is one too (BEP 3).
    pub(super) fn answer_http_announce(&mut self, now: Instant, query: &str, source: SocketAddr) -> Vec<u8> {
        let mut body = Vec::with_capacity(512);
        match AnnounceQuery::parse(query) {
            Err(error) => self.refuse(&mut body, &error.to_string()),
            Ok(query) if !self.access.admits(query.request.info_hash) => {
                let torrent = query.request.info_hash;
                tracing::debug!(client = %source, %torrent, "announce refused: not served");
                self.refuse(&mut body, NOT_SERVED);
            }
            Ok(query) => {
                self.counters.announces_http += 1;
                let figures = self.announce(now, &query.request, source, true).figures;
                let answer = AnnounceAnswer {
                    interval_secs: self.interval_secs(),
                    min_interval_secs: Some(self.interval_secs().div_ceil(2)),
                    figures,
                    peers_v4: &self.peers.v4,
                    peers_v6: &self.peers.v6,
                    external_ip: Some(source.ip().to_canonical()),
                    warning: None,
                };
                answer.encode(query.compact, &mut body);
            }
        }
        body
    }

    /// The body that answers an HTTP scrape.
    pub(super) fn answer_http_scrape(&mut self, query: &str) -> Vec<u8> {
        let mut body = Vec::with_capacity(512);
        match parse_scrape(query) {
            Err(error) => self.refuse(&mut body, &error.to_string()),
            Ok(info_hashes) => {
                self.counters.scrapes_http += 1;
                let mut files = info_hashes
                    .into_iter()
                    .filter(|&info_hash| self.access.admits(info_hash))
                    .map(|info_hash| (info_hash, self.scrape(info_hash)))
                    .collect();
                encode_scrape(&mut body, &mut files);
            }
        }
        body
    }

    /// Forgets silent peers, as much as the second since the last turn calls for.
    pub(super) fn expire(&mut self, now: Instant) {
        // Twice round within an interval.
        let whole = self.registry.expiry_work();
        let share = whole / (self.interval.as_secs() as usize / 2).max(1) + 64;
        self.registry.expire(now, share.min(EXPIRY_WORK_MAX));
    }

    /// Appends a piece of the tracker's memory; see [`SwarmRegistry::write_piece`].
    pub(super) fn write_piece(
        &self,
        now: Instant,
        after: Option<InfoHash>,
        len_wanted: usize,
        out: &mut Vec<u8>,
    ) -> Option<InfoHash> {
        self.registry.write_piece(now, after, len_wanted, out)
    }

    /// Enters a piece of an earlier run's memory, as far as the list admits it.
    pub(super) fn read_piece(
        &mut self,
        now: Instant,
        age: Duration,
        piece: &[u8],
    ) -> Result<(), DamagedPiece> {
        self.registry.read_piece(now, age, piece, |info_hash| self.access.admits(info_hash))
    }

    /// Forgets all swarms.
    pub(super) fn forget_all(&mut self) {
        self.registry.clear();
    }

    /// Counts a request that was refused before it came here.
    pub(super) fn count_refused(&mut self) {
        self.counters.refused += 1;
    }

    /// From now on `access` decides.
    pub(super) fn set_access(&mut self, access: AccessList) {
        self.access = access;
    }

    pub(super) fn admit(&mut self, info_hash: InfoHash) {
        match &mut self.access {
            AccessList::All => {}
            AccessList::Allow(list) => {
                list.insert(info_hash);
            }
            AccessList::Deny(list) => {
                list.remove(&info_hash);
            }
        }
    }

    /// Takes [`Self::admit`] back: the torrent is served no longer.
    pub(super) fn dismiss(&mut self, info_hash: InfoHash) {
        match &mut self.access {
            AccessList::All => {}
            AccessList::Allow(list) => {
                list.remove(&info_hash);
            }
            AccessList::Deny(list) => {
                list.insert(info_hash);
            }
        }
    }

    /// This machine seeds the torrent at `listening`; `None` when no longer.
    pub(super) fn host(&mut self, info_hash: InfoHash, listening: Option<SocketAddr>) {
        match listening {
            Some(listening) => self.hosted.insert(info_hash, listening),
            None => self.hosted.remove(&info_hash),
        };
    }

    /// A torrent's figures; zeroes for one that is not served.
    pub(super) fn scrape(&self, info_hash: InfoHash) -> ScrapeEntry {
        if !self.access.admits(info_hash) {
            return ScrapeEntry::default();
        }
        let mut entry = self.registry.scrape(info_hash);
        entry.seeds += u32::from(self.hosted.contains_key(&info_hash));
        entry
    }

    /// The state was written to its file, or was not.
    pub(super) fn count_state(&mut self, is_written: bool) {
        let TrackerStatistics { states_written, states_not_written, .. } = &mut self.counters;
        *if is_written { states_written } else { states_not_written } += 1;
    }

    /// All counters.
    pub(super) fn statistics(&self) -> TrackerStatistics {
        TrackerStatistics { swarms: self.registry.figures(), ..self.counters }
    }

    /// Enters the client and leaves the peers for it in `self.peers`.
    fn announce(
        &mut self,
        now: Instant,
        request: &AnnounceRequest,
        source: SocketAddr,
        both_families: bool,
    ) -> Announced {
        let family = AddressFamily::of(source.ip());
        let most = match family {
            AddressFamily::V6 if !both_families => UDP_PEERS_V6_MAX,
            AddressFamily::V4 | AddressFamily::V6 => TRACKER_PEERS_MAX,
        };
        let wanted = request.num_want.map_or(TRACKER_PEERS_DEFAULT, |wanted| wanted as usize).min(most);
        let hosted = self.hosted_peer(request, source).filter(|_| wanted > 0);
        // Our own seed is handed out already; entered too, it would count twice.
        let port = if self.is_hosted_seed(request, source) { 0 } else { request.port };
        let announce = Announce {
            info_hash: request.info_hash,
            address: SocketAddr::new(source.ip(), port),
            is_seed: request.left == 0,
            event: request.event,
            wanted: wanted - usize::from(hosted.is_some()),
            both_families,
        };
        let (left, event) = (request.left, request.event);
        tracing::debug!(client = %announce.address, torrent = %request.info_hash, ?event, left, "announce");
        let mut announced = self.registry.announce(now, &mut self.rng, &announce, &mut self.peers);
        if let Some(peer) = hosted {
            push_compact_peer(if peer.is_ipv4() { &mut self.peers.v4 } else { &mut self.peers.v6 }, peer);
        }
        announced.figures.seeds += u32::from(self.hosted.contains_key(&request.info_hash));
        if announced.completed_now
            && let Some(reports) = &self.completed
        {
            // A reader that falls behind still has the count.
            let _ = reports.try_send(CompletedDownload {
                info_hash: request.info_hash,
                peer: announce.address,
                peer_id: request.peer_id,
            });
        }
        announced
    }

    /// Our own seed of the torrent, under the address by which the asker reaches this machine.
    fn hosted_peer(&self, request: &AnnounceRequest, source: SocketAddr) -> Option<SocketAddr> {
        let &listening = self.hosted.get(&request.info_hash)?;
        if request.left == 0 || request.event == AnnounceEvent::Stopped {
            return None;
        }
        let asker = source.ip().to_canonical();
        let ip =
            if listening.ip().is_unspecified() { (self.local_ip_towards)(asker)? } else { listening.ip() };
        let seed = SocketAddr::new(ip.to_canonical(), listening.port());
        (AddressFamily::of(seed.ip()) == AddressFamily::of(asker)).then_some(seed)
    }

    /// Whether it is our own seed that announces, from whichever of this machine's addresses.
    fn is_hosted_seed(&self, request: &AnnounceRequest, source: SocketAddr) -> bool {
        let ip = source.ip().to_canonical();
        let hosted = self.hosted.get(&request.info_hash);
        hosted.is_some_and(|listening| listening.port() == request.port)
            && (self.local_ip_towards)(ip) == Some(ip)
    }

    fn refuse(&mut self, body: &mut Vec<u8>, reason: &str) {
        self.counters.refused += 1;
        encode_failure(body, reason);
    }

    fn interval_secs(&self) -> u32 {
        u32::try_from(self.interval.as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PeerId;
    use crate::tracker_wire::http::response::{ResponseError, decode_announce, decode_scrape};
    use crate::tracker_wire::udp::{ConnectionId, Response, TransactionId};
    use std::collections::BTreeSet;

    const HASH: InfoHash = InfoHash([1; 20]);
    const TRANSACTION: TransactionId = TransactionId(77);
    const V4: AddressFamily = AddressFamily::V4;

    fn tracker(access: AccessList) -> Tracker {
        Tracker::new(TrackerParts {
            interval: Duration::from_secs(1800),
            access,
            secret: [3; 16],
            rng: Rng::from_seed(1),
            local_ip_towards: |_| Some(IpAddr::from([192, 168, 0, 1])),
            completed: None,
        })
    }

    fn request(port: u16, left: u64) -> AnnounceRequest {
        AnnounceRequest {
            info_hash: HASH,
            peer_id: PeerId([2; 20]),
            port,
            uploaded: 0,
            downloaded: 0,
            left,
            event: AnnounceEvent::Started,
            key: 0,
            num_want: None,
        }
    }

    fn exchange(tracker: &mut Tracker, now: Instant, request: &Request<'_>, source: &str) -> Vec<u8> {
        let (mut datagram, mut answer) = (Vec::new(), Vec::new());
        request.encode(&mut datagram);
        tracker.answer_udp(now, &datagram, source.parse().expect("an address"), &mut answer);
        answer
    }

    fn connect(tracker: &mut Tracker, now: Instant, source: &str) -> ConnectionId {
        let answer = exchange(tracker, now, &Request::Connect { transaction: TRANSACTION }, source);
        assert_eq!(answer.len(), udp::CONNECT_LEN);
        match Response::decode(&answer, V4) {
            Ok(Response::Connect { connection, transaction: TRANSACTION }) => connection,
            other => panic!("{other:?}"),
        }
    }

    fn announce(connection: ConnectionId, request: AnnounceRequest) -> Request<'static> {
        Request::Announce { connection, transaction: TRANSACTION, request, options: &[] }
    }

    #[test]
    fn hostile_43_only_who_receives_at_its_address_is_entered_and_nobody_is_sent_more_than_it_sent() {
        let mut tracker = tracker(AccessList::All);
        let now = Instant::ZERO + Duration::from_secs(10_000);
        let connection = connect(&mut tracker, now, "10.0.0.1:1000");
        let forged = announce(connection, request(1, 1));
        let answer = exchange(&mut tracker, now, &forged, "10.0.0.2:1000");
        assert!(answer.len() <= udp::ANNOUNCE_LEN);
        assert!(matches!(Response::decode(&answer, V4), Ok(Response::Error { .. })));
        let later = now + Duration::from_secs(240);
        let answer = exchange(&mut tracker, later, &forged, "10.0.0.1:1000");
        assert!(matches!(Response::decode(&answer, V4), Ok(Response::Error { .. })));
        let scrape = Request::Scrape { connection, transaction: TRANSACTION, info_hashes: &HASH.0 };
        assert!(exchange(&mut tracker, later, &scrape, "10.0.0.1:1000").len() <= SHORTEST_UNPROVEN_LEN);
        assert_eq!(tracker.statistics().swarms.peers(), 0);
        assert_eq!(tracker.statistics().refused, 3);

        let answer = exchange(&mut tracker, now, &forged, "10.0.0.1:2000");
        assert!(matches!(Response::decode(&answer, V4), Ok(Response::Announce { .. })));
        assert_eq!(tracker.statistics().swarms.leeches_v4, 1);
    }

    #[test]
    fn hostile_43_the_source_address_counts_and_no_other() {
        let mut tracker = tracker(AccessList::All);
        let now = Instant::ZERO;
        let source = "10.0.0.1:1000".parse().unwrap();
        let query = AnnounceQuery::new(request(5, 1)).to_query() + "&ip=6.6.6.6&ipv4=6.6.6.6:1";
        let body = tracker.answer_http_announce(now, &query, source);
        let response = decode_announce(&body).unwrap();
        assert_eq!(response.external_ip, Some(source.ip()));
        let other = AnnounceQuery::new(request(6, 1)).to_query();
        let body = tracker.answer_http_announce(now, &other, "10.0.0.2:1".parse().unwrap());
        assert_eq!(decode_announce(&body).unwrap().peers, ["10.0.0.1:5".parse().unwrap()]);
    }

    #[test]
    fn hostile_43_a_scrape_of_many_is_cut_at_seventy_four() {
        let mut tracker = tracker(AccessList::All);
        let connection = connect(&mut tracker, Instant::ZERO, "10.0.0.1:1");
        let info_hashes = vec![1; 20 * 100];
        let scrape = Request::Scrape { connection, transaction: TRANSACTION, info_hashes: &info_hashes };
        let answer = exchange(&mut tracker, Instant::ZERO, &scrape, "10.0.0.1:1");
        let Ok(Response::Scrape { entries, .. }) = Response::decode(&answer, V4) else { panic!("a scrape") };
        assert_eq!(entries.len(), 74);
    }

    #[test]
    fn udp_answers_stay_within_what_every_path_carries() {
        let mut tracker = tracker(AccessList::All);
        for host in 1..=300u16 {
            let source = format!("[2001:db8:0:{host:x}::1]:1");
            let connection = connect(&mut tracker, Instant::ZERO, &source);
            let wanted = AnnounceRequest { num_want: Some(1000), ..request(9, 1) };
            let answer = exchange(&mut tracker, Instant::ZERO, &announce(connection, wanted), &source);
            assert!(answer.len() <= 1232, "{}", answer.len());
            let source = format!("10.0.{}.{}:1", host / 256, host % 256);
            let connection = connect(&mut tracker, Instant::ZERO, &source);
            let wanted = AnnounceRequest { num_want: Some(1000), ..request(9, 1) };
            let answer = exchange(&mut tracker, Instant::ZERO, &announce(connection, wanted), &source);
            assert!(answer.len() <= 1232, "{}", answer.len());
        }
    }

    #[test]
    fn garbage_is_met_with_silence() {
        let mut tracker = tracker(AccessList::All);
        let mut out = Vec::new();
        for len in 0..200 {
            tracker.answer_udp(Instant::ZERO, &vec![0xee; len], "10.0.0.1:1".parse().unwrap(), &mut out);
        }
        assert!(out.is_empty());
    }

    #[test]
    fn torrents_that_are_not_allowed_are_refused_and_their_figures_hidden() {
        let mut tracker = tracker(AccessList::Deny(BTreeSet::from([HASH])));
        tracker.host(HASH, Some("0.0.0.0:1".parse().unwrap()));
        let source = "10.0.0.1:1";
        let connection = connect(&mut tracker, Instant::ZERO, source);
        let answer = exchange(&mut tracker, Instant::ZERO, &announce(connection, request(1, 1)), source);
        let Ok(Response::Error { message, .. }) = Response::decode(&answer, V4) else { panic!("an error") };
        assert_eq!(message, NOT_SERVED);
        let query = AnnounceQuery::new(request(1, 1)).to_query();
        let body = tracker.answer_http_announce(Instant::ZERO, &query, source.parse().unwrap());
        assert_eq!(decode_announce(&body), Err(ResponseError::Failure(NOT_SERVED.into())));
        let body = tracker.answer_http_scrape(&crate::tracker_wire::http::query::scrape_query(&[HASH]));
        assert_eq!(decode_scrape(&body), Ok(vec![]));
        assert_eq!(tracker.scrape(HASH), ScrapeEntry::default());
    }

    #[test]
    fn a_torrent_that_is_dismissed_is_refused_again() {
        let mut tracker = tracker(AccessList::Allow(BTreeSet::new()));
        let source = "10.0.0.1:1".parse().unwrap();
        let mut is_served = |change: fn(&mut Tracker, InfoHash)| {
            change(&mut tracker, HASH);
            let query = AnnounceQuery::new(request(1, 1)).to_query();
            decode_announce(&tracker.answer_http_announce(Instant::ZERO, &query, source)).is_ok()
        };
        let changes: [fn(&mut Tracker, InfoHash); 3] = [|_, _| {}, Tracker::admit, Tracker::dismiss];
        assert_eq!(changes.map(&mut is_served), [false, true, false]);
    }

    #[test]
    fn a_hosted_seed_is_given_under_the_address_the_asker_reaches() {
        let mut tracker = tracker(AccessList::All);
        tracker.host(HASH, Some("[::]:6881".parse().unwrap()));
        let source = "192.168.0.7:1".parse().unwrap();
        let mut ask = |left| {
            let query = AnnounceQuery::new(request(5, left)).to_query();
            decode_announce(&tracker.answer_http_announce(Instant::ZERO, &query, source)).unwrap()
        };
        let response = ask(1);
        assert_eq!(response.peers, ["192.168.0.1:6881".parse().unwrap()]);
        assert_eq!((response.seeds, response.leeches), (Some(1), Some(1)));
        assert_eq!(ask(0).peers, []);
    }

    #[test]
    fn a_hosted_seed_bound_to_one_address_is_given_under_that_one_to_its_family() {
        let mut tracker = tracker(AccessList::All);
        tracker.host(HASH, Some("10.9.9.9:6881".parse().unwrap()));
        for (source, expected) in [("192.168.0.7:1", Some("10.9.9.9:6881")), ("[2001:db8::1]:1", None)] {
            let query = AnnounceQuery::new(AnnounceRequest { port: 0, ..request(5, 1) }).to_query();
            let body = tracker.answer_http_announce(Instant::ZERO, &query, source.parse().unwrap());
            let peers = decode_announce(&body).unwrap().peers;
            assert_eq!(peers.first().copied(), expected.map(|peer| peer.parse().unwrap()));
        }
    }

    #[test]
    fn a_hosted_seed_that_announces_too_counts_once() {
        let mut tracker = tracker(AccessList::All);
        tracker.host(HASH, Some("0.0.0.0:6881".parse().unwrap()));
        for source in ["192.168.0.1:1", "192.168.0.2:1"] {
            let query = AnnounceQuery::new(request(6881, 0)).to_query();
            tracker.answer_http_announce(Instant::ZERO, &query, source.parse().unwrap());
        }
        assert_eq!(tracker.scrape(HASH).seeds, 2);
        assert_eq!(tracker.statistics().swarms.seeds_v4, 1);
    }

    #[test]
    fn completed_downloads_are_reported() {
        let (sender, mut reports) = mpsc::channel(1);
        let mut tracker = tracker(AccessList::All);
        tracker.completed = Some(sender);
        let query = AnnounceRequest { event: AnnounceEvent::Completed, ..request(5, 0) };
        let query = AnnounceQuery::new(query).to_query();
        tracker.answer_http_announce(Instant::ZERO, &query, "10.0.0.1:1".parse().unwrap());
        let report = reports.try_recv().unwrap();
        assert_eq!((report.info_hash, report.peer), (HASH, "10.0.0.1:5".parse().unwrap()));
        assert_eq!(
            tracker.scrape(HASH),
            ScrapeEntry { seeds: 1, completed: 1, leeches: 0, partial_seeds: 0 }
        );
    }
}
