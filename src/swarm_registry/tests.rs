//! The registry against a list of peers that is searched from end to end.

use super::*;
use crate::limits::{PEERS_PER_ADDRESS_MAX, TRACKER_PEERS_MAX};
use crate::rng::Rng;
use crate::tracker_wire::{AddressFamily, compact_peers};
use proptest::prelude::*;
use std::collections::BTreeSet;

const LIFETIME: Duration = Duration::from_secs(100);

/// A peer as the oracle keeps it.
#[derive(Clone, Debug)]
struct Known {
    info_hash: InfoHash,
    address: SocketAddr,
    is_seed: bool,
    wants: bool,
    completed: bool,
    announced_secs: u64,
}

#[derive(Clone, Debug, Default)]
struct Oracle {
    peers: Vec<Known>,
    completed: [u32; 3],
}

impl Oracle {
    fn announce(&mut self, now: Instant, announce: &Announce) {
        let is_it = |peer: &Known| peer.info_hash == announce.info_hash && peer.address == announce.address;
        let old = self.peers.iter().position(is_it).map(|place| self.peers.remove(place));
        if announce.event == AnnounceEvent::Stopped || announce.address.port() == 0 {
            return;
        }
        let had_completed = old.is_some_and(|peer| peer.completed);
        let completes = announce.event == AnnounceEvent::Completed;
        if completes && !had_completed {
            self.completed[usize::from(announce.info_hash.0[0])] += 1;
        }
        self.peers.push(Known {
            info_hash: announce.info_hash,
            address: announce.address,
            is_seed: announce.is_seed,
            wants: wants(announce),
            completed: completes || had_completed && !wants(announce),
            announced_secs: now.as_secs(),
        });
    }

    fn expire(&mut self, now: Instant) {
        self.peers.retain(|peer| peer.announced_secs + LIFETIME.as_secs() >= now.as_secs());
    }

    /// Those who may be given to the asker, of its own family.
    fn candidates(&self, announce: &Announce) -> BTreeSet<SocketAddr> {
        let family = AddressFamily::of(announce.address.ip());
        self.peers
            .iter()
            .filter(|peer| peer.info_hash == announce.info_hash && peer.address != announce.address)
            .filter(|peer| AddressFamily::of(peer.address.ip()) == family)
            .filter(|peer| peer.wants || wants(announce))
            .map(|peer| peer.address)
            .collect()
    }

    fn figures(&self, info_hash: InfoHash) -> ScrapeEntry {
        let here = self.peers.iter().filter(|peer| peer.info_hash == info_hash);
        let seeds = here.clone().filter(|peer| peer.is_seed).count() as u32;
        let completed = self.completed[usize::from(info_hash.0[0])];
        let partial_seeds = here.clone().filter(|peer| !peer.wants && !peer.is_seed).count() as u32;
        ScrapeEntry { seeds, completed, leeches: here.count() as u32 - seeds, partial_seeds }
    }
}

fn wants(announce: &Announce) -> bool {
    !announce.is_seed && announce.event != AnnounceEvent::Paused
}

#[derive(Clone, Debug)]
enum Step {
    Announce(Announce),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let event = prop_oneof![
        4 => Just(AnnounceEvent::None),
        2 => Just(AnnounceEvent::Started),
        1 => Just(AnnounceEvent::Stopped),
        1 => Just(AnnounceEvent::Completed),
        1 => Just(AnnounceEvent::Paused),
    ];
    let address = (any::<bool>(), 1..60u8, 0..3u16).prop_map(|(v6, host, port)| {
        let ip: IpAddr =
            if v6 { [0x2001, 0, 0, host.into(), 0, 0, 0, 1].into() } else { [10, 0, 0, host].into() };
        SocketAddr::new(ip, port)
    });
    let announce = (0..3u8, address, any::<bool>(), event, 0..60usize).prop_map(
        |(hash, address, is_seed, event, wanted)| {
            let info_hash = InfoHash([hash; 20]);
            Step::Announce(Announce { info_hash, address, is_seed, event, wanted, both_families: false })
        },
    );
    prop_oneof![20 => announce, 1 => (0..60u64).prop_map(Step::Wait)]
}

fn addresses(peers: &SelectedPeers) -> Vec<SocketAddr> {
    let v4 = compact_peers(&peers.v4, AddressFamily::V4);
    v4.chain(compact_peers(&peers.v6, AddressFamily::V6)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn agrees_with_a_plain_list(steps in prop::collection::vec(step(), 1..600), seed: u64) {
        let mut registry = SwarmRegistry::new(LIFETIME);
        let mut oracle = Oracle::default();
        let mut rng = Rng::from_seed(seed);
        let mut peers = SelectedPeers::default();
        let mut now = Instant::ZERO + Duration::from_secs(1000);
        for step in steps {
            match step {
                Step::Wait(secs) => {
                    now += Duration::from_secs(secs);
                    oracle.expire(now);
                    // Three times round: a sweep under way was begun at an earlier time.
                    let work = 3 * registry.expiry_work() + 10;
                    let mut done = 0;
                    while done < work {
                        done += registry.expire(now, 7).max(1);
                    }
                }
                Step::Announce(announce) => {
                    let announced = registry.announce(now, &mut rng, &announce, &mut peers);
                    oracle.announce(now, &announce);
                    let candidates = oracle.candidates(&announce);
                    let given = addresses(&peers);
                    let distinct: BTreeSet<SocketAddr> = given.iter().copied().collect();
                    prop_assert_eq!(distinct.len(), given.len());
                    prop_assert!(distinct.is_subset(&candidates));
                    if announce.event == AnnounceEvent::Stopped {
                        prop_assert!(given.is_empty());
                    } else {
                        prop_assert_eq!(given.len(), announce.wanted.min(candidates.len()));
                    }
                    prop_assert_eq!(announced.figures, oracle.figures(announce.info_hash));
                }
            }
            for hash in 0..3 {
                let info_hash = InfoHash([hash; 20]);
                prop_assert_eq!(registry.scrape(info_hash), oracle.figures(info_hash));
                if let Some(swarm) = registry.swarms.get(&info_hash) {
                    swarm.v4.check();
                    swarm.v6.check();
                    let seeds = swarm.v4.addresses().iter().filter(|(_, is_seed)| *is_seed).count();
                    prop_assert_eq!(seeds, swarm.v4.seeds());
                }
            }
            let figures = registry.figures();
            let seeds = oracle.peers.iter().filter(|peer| peer.is_seed).count() as u64;
            prop_assert_eq!((figures.seeds(), figures.peers()), (seeds, oracle.peers.len() as u64));
            prop_assert_eq!(figures.swarms, registry.swarms.len() as u64);
        }
    }
}

fn announce(address: &str, is_seed: bool) -> Announce {
    Announce {
        info_hash: InfoHash([1; 20]),
        address: address.parse().expect("the test writes addresses"),
        is_seed,
        event: AnnounceEvent::Started,
        wanted: TRACKER_PEERS_MAX,
        both_families: false,
    }
}

fn registry_with(count: u16) -> (SwarmRegistry, Rng, SelectedPeers, Instant) {
    let (mut registry, mut rng) = (SwarmRegistry::new(LIFETIME), Rng::from_seed(1));
    let (mut peers, now) = (SelectedPeers::default(), Instant::ZERO + LIFETIME + LIFETIME);
    for number in 0..count {
        let [high, low] = number.to_be_bytes();
        registry.announce(now, &mut rng, &announce(&format!("10.1.{high}.{low}:1"), false), &mut peers);
    }
    (registry, rng, peers, now)
}

#[test]
fn every_peer_is_as_likely_as_every_other() {
    let (mut registry, mut rng, mut peers, now) = registry_with(101);
    let asker = Announce { wanted: 10, ..announce("10.1.0.50:1", false) };
    let mut given = BTreeMap::new();
    for _ in 0..10_000 {
        registry.announce(now, &mut rng, &asker, &mut peers);
        assert_eq!(peers.v4.len(), 60);
        for peer in addresses(&peers) {
            *given.entry(peer).or_insert(0) += 1;
        }
    }
    assert_eq!(given.len(), 100);
    assert!(given.values().all(|count| (850..1150).contains(count)), "{given:?}");
}

#[test]
fn expired_peers_are_given_to_nobody_before_any_sweep() {
    let (mut registry, mut rng, mut peers, now) = registry_with(50);
    let later = now + LIFETIME + Duration::from_secs(1);
    registry.announce(later, &mut rng, &announce("10.9.9.9:1", false), &mut peers);
    assert_eq!(addresses(&peers), []);
    // The first pass ends the sweep that announces had begun.
    registry.expire(later, usize::MAX);
    registry.expire(later, usize::MAX);
    assert_eq!(registry.figures().peers(), 1);
}

#[test]
fn an_announce_sweeps_a_few_records_so_that_a_live_swarm_keeps_itself_clean() {
    let (mut registry, mut rng, mut peers, now) = registry_with(50);
    let later = now + LIFETIME + Duration::from_secs(1);
    for _ in 0..50 {
        registry.announce(later, &mut rng, &announce("10.9.9.9:1", false), &mut peers);
    }
    assert_eq!(registry.figures().peers(), 1);
}

#[test]
fn expiry_looks_at_no_more_than_it_may_and_goes_on_where_it_stopped() {
    let (mut registry, _, _, now) = registry_with(1000);
    let later = now + LIFETIME + Duration::from_secs(1);
    assert!(registry.expire(later, 100) <= 101);
    assert!((900..1000).contains(&registry.figures().peers()));
    for _ in 0..20 {
        registry.expire(later, 100);
    }
    assert_eq!(registry.figures(), RegistryFigures::default());
}

#[test]
fn http_fills_up_with_the_other_family() {
    let (mut registry, mut rng, mut peers, now) = registry_with(3);
    registry.announce(now, &mut rng, &announce("[2001:db8::1]:7", false), &mut peers);
    assert_eq!(peers, SelectedPeers::default());
    let asker = Announce { both_families: true, ..announce("[2001:db8::2]:7", true) };
    let announced = registry.announce(now, &mut rng, &asker, &mut peers);
    assert_eq!((peers.v4.len(), peers.v6.len()), (18, 18));
    assert_eq!(announced.figures, ScrapeEntry { seeds: 1, completed: 0, leeches: 4, partial_seeds: 0 });
}

#[test]
fn mapped_addresses_are_ipv4() {
    let (mut registry, mut rng, mut peers, now) = registry_with(0);
    registry.announce(now, &mut rng, &announce("[::ffff:10.0.0.1]:7", false), &mut peers);
    registry.announce(now, &mut rng, &announce("10.0.0.1:7", false), &mut peers);
    assert_eq!(registry.figures().leeches_v4, 1);
    assert_eq!(registry.figures().peers(), 1);
}

#[test]
fn an_address_with_too_many_peers_displaces_only_its_own_oldest() {
    let (mut registry, mut rng, mut peers, now) = registry_with(40);
    let many = PEERS_PER_ADDRESS_MAX as u16;
    for port in 1..=many + 30 {
        let later = now + Duration::from_secs(u64::from(port) / 10);
        registry.announce(later, &mut rng, &announce(&format!("10.7.7.7:{port}"), false), &mut peers);
    }
    assert_eq!(registry.figures().peers(), 40 + u64::from(many));
    registry.announce(now, &mut rng, &announce("10.7.7.8:1", false), &mut peers);
    let given = addresses(&peers);
    assert!(given.contains(&SocketAddr::from(([10, 7, 7, 7], many + 30))));
    assert!(!given.contains(&SocketAddr::from(([10, 7, 7, 7], 1))));
    for port in 1..=many + 30 {
        registry.announce(now, &mut rng, &announce(&format!("127.0.0.1:{port}"), false), &mut peers);
    }
    assert_eq!(registry.figures().peers(), 41 + u64::from(2 * many) + 30);
}

#[test]
fn a_completed_download_counts_once_and_outlives_its_peers() {
    let (mut registry, mut rng, mut peers, now) = registry_with(0);
    let completed = Announce { event: AnnounceEvent::Completed, ..announce("10.0.0.1:1", true) };
    assert!(registry.announce(now, &mut rng, &completed, &mut peers).completed_now);
    assert!(!registry.announce(now, &mut rng, &completed, &mut peers).completed_now);
    let stopped = Announce { event: AnnounceEvent::Stopped, ..completed };
    registry.announce(now, &mut rng, &stopped, &mut peers);
    assert_eq!(
        registry.scrape(completed.info_hash),
        ScrapeEntry { seeds: 0, completed: 1, leeches: 0, partial_seeds: 0 }
    );
    registry.expire(now + SWARM_LINGER, usize::MAX);
    assert_eq!(registry.figures().swarms, 0);
}

#[test]
fn who_only_looks_or_leaves_makes_no_swarm() {
    let (mut registry, mut rng, mut peers, now) = registry_with(0);
    let stopped = Announce { event: AnnounceEvent::Stopped, ..announce("10.0.0.1:1", true) };
    registry.announce(now, &mut rng, &stopped, &mut peers);
    registry.announce(now, &mut rng, &announce("10.0.0.1:0", false), &mut peers);
    assert_eq!(registry.figures(), RegistryFigures::default());
}

#[test]
fn the_last_info_hash_has_no_successor() {
    assert_eq!(successor(InfoHash([0xff; 20])), None);
    let mut next = [0; 20];
    next[18] = 1;
    let mut hash = [0; 20];
    hash[19] = 0xff;
    assert_eq!(successor(InfoHash(hash)), Some(InfoHash(next)));
}
