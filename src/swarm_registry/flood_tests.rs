//! Floods from one site and from many, beside honest peers that must find each other.

use super::*;
use crate::limits::{PEERS_PER_SITE_MAX, PEERS_PER_SWARM_MAX};
use crate::tracker_wire::{AddressFamily, compact_peers};

const LIFETIME: Duration = Duration::from_secs(1000);

/// A registry of small bounds under attack.
struct Scene {
    registry: SwarmRegistry,
    rng: Rng,
    now: Instant,
    peers: SelectedPeers,
    wanted: usize,
}

impl Scene {
    fn new(swarms: usize, peers: usize) -> Self {
        let mut registry = SwarmRegistry::keyed(LIFETIME, [9; 16]);
        registry.bounds = Bounds::of(swarms, peers);
        let (rng, now) = (Rng::from_seed(5), Instant::ZERO + LIFETIME * 3);
        Self { registry, rng, now, peers: SelectedPeers::default(), wanted: 200 }
    }

    fn announce(&mut self, info_hash: InfoHash, address: &str, event: AnnounceEvent) -> Vec<SocketAddr> {
        let address = address.parse().expect("the test writes addresses");
        self.announce_from(info_hash, address, event)
    }

    fn announce_from(
        &mut self,
        info_hash: InfoHash,
        address: SocketAddr,
        event: AnnounceEvent,
    ) -> Vec<SocketAddr> {
        let wanted = self.wanted;
        let announce = Announce { info_hash, address, is_seed: false, event, wanted, both_families: false };
        self.registry.announce(self.now, &mut self.rng, &announce, &mut self.peers);
        let v4 = compact_peers(&self.peers.v4, AddressFamily::V4);
        v4.chain(compact_peers(&self.peers.v6, AddressFamily::V6)).collect()
    }

    fn random_hash(&mut self) -> InfoHash {
        let mut bytes = [0; 20];
        self.rng.fill(&mut bytes);
        InfoHash(bytes)
    }

    /// `count` new swarms by `address`.
    fn flood(&mut self, address: &str, count: usize) {
        for _ in 0..count {
            let info_hash = self.random_hash();
            self.announce(info_hash, address, AnnounceEvent::Started);
        }
    }

    /// Whether two peers of a torrent find each other.
    fn meet(&mut self, info_hash: InfoHash, one: &str, two: &str) -> bool {
        self.announce(info_hash, one, AnnounceEvent::Started);
        let found_by_two = self.announce(info_hash, two, AnnounceEvent::Started);
        let found_by_one = self.announce(info_hash, one, AnnounceEvent::None);
        let has = |found: &[SocketAddr], peer: &str| found.contains(&peer.parse().expect("an address"));
        has(&found_by_two, one) && has(&found_by_one, two)
    }

    fn check(&self) {
        let registry = &self.registry;
        assert!(registry.swarms.len() <= registry.bounds.swarms);
        let peers: usize = registry.swarms.values().map(|swarm| swarm.v4.len() + swarm.v6.len()).sum();
        assert_eq!(registry.figures.peers() as usize, peers);
        assert!(peers <= registry.bounds.peers);
        assert_eq!(registry.figures.swarms as usize, registry.swarms.len());
        for swarm in registry.swarms.values() {
            swarm.v4.check();
            swarm.v6.check();
        }
    }
}

const OURS: InfoHash = InfoHash([0x42; 20]);

#[test]
fn one_address_founds_half_of_the_swarms_at_most_and_two_honest_peers_meet() {
    for flooder in ["10.6.6.6:1", "[2001:db8:bad::1]:1", "127.0.0.1:1", "[::1]:1"] {
        let mut scene = Scene::new(1000, 100_000);
        scene.flood(flooder, 5000);
        assert!((480..=501).contains(&scene.registry.swarms.len()), "{}", scene.registry.swarms.len());
        assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"), "beside {flooder}");
        scene.flood(flooder, 5000);
        assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"), "still beside {flooder}");
        scene.check();
    }
}

#[test]
fn neighbours_of_a_flooder_meet_too_and_stay_while_the_flood_goes_on() {
    let mut scene = Scene::new(1000, 100_000);
    scene.flood("10.6.6.6:1", 5000);
    assert!(scene.meet(OURS, "10.6.6.1:7", "10.6.6.2:7"));
    // Every swarm of the table is looked at many times meanwhile.
    scene.flood("10.6.6.6:1", 20_000);
    assert_eq!(scene.registry.scrape(OURS).leeches, 2);
    scene.check();
}

#[test]
fn who_was_first_in_a_swarm_of_others_does_not_take_it_along() {
    let mut scene = Scene::new(1000, 1_000_000);
    // The flooder founds ours, too, and all of its own swarms look busier.
    scene.announce(OURS, "10.6.6.6:1", AnnounceEvent::Started);
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    for _ in 0..3000 {
        let info_hash = scene.random_hash();
        for port in 1..=10 {
            scene.announce(info_hash, &format!("10.6.6.6:{port}"), AnnounceEvent::Started);
        }
    }
    assert_eq!(scene.registry.scrape(OURS).leeches, 3);
    scene.check();
}

#[test]
fn thousands_of_sites_together_do_not_keep_a_newcomer_out() {
    let mut scene = Scene::new(2000, 100_000);
    for site in 0..4000_u32 {
        scene.flood(&format!("[2001:{site:x}::1]:1"), 3);
    }
    assert!(scene.registry.swarms.len() > 1900, "{}", scene.registry.swarms.len());
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    scene.check();
}

#[test]
fn a_site_founds_a_fixed_number_and_many_sites_fill_the_table() {
    for flooder in ["10.6.6.6:1", "[2001:db8:bad::1]:1", "127.0.0.1:1", "[::1]:1"] {
        let mut scene = Scene::new(4000, 100_000);
        scene.registry.bounds.swarms_of_site = 500;
        scene.flood(flooder, 5000);
        assert_eq!(scene.registry.swarms.len(), 500, "{flooder}");
        // What comes last is kept in place of its own.
        assert_eq!(scene.announce(OURS, flooder, AnnounceEvent::Started), []);
        assert!(scene.registry.scrape(OURS).leeches == 1 && scene.registry.swarms.len() == 500);
        for site in 0..12 {
            scene.flood(&format!("192.0.{site}.1:7"), 300);
        }
        assert!(scene.registry.swarms.len() > 3800, "{}", scene.registry.swarms.len());
        assert!(scene.meet(InfoHash([7; 20]), "198.51.100.1:7", "203.0.113.1:7"), "beside {flooder}");
        scene.check();
    }
}

#[test]
fn peers_of_a_site_have_a_fixed_number_and_renew_themselves_beyond_it() {
    let mut scene = Scene::new(4000, 100_000);
    scene.registry.bounds.peers_of_site = 300;
    for _ in 0..1000 {
        let info_hash = scene.random_hash();
        scene.announce(info_hash, "10.6.6.6:1", AnnounceEvent::Started);
    }
    assert_eq!(scene.registry.figures().peers(), 300);
    let known = *scene.registry.swarms.keys().next().expect("there are swarms");
    scene.announce(known, "10.6.6.6:1", AnnounceEvent::Completed);
    assert_eq!(scene.registry.scrape(known).completed, 1);
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    scene.check();
}

#[test]
fn all_sites_of_a_provider_have_half_of_the_table_and_push_nobody_out_who_has_less() {
    let mut scene = Scene::new(2000, 100_000);
    let of_box: Vec<InfoHash> = (0..300).map(|_| scene.random_hash()).collect();
    for &info_hash in &of_box {
        scene.announce(info_hash, "192.0.2.1:7", AnnounceEvent::Started);
    }
    for site in 0..10_000_u32 {
        scene.flood(&format!("[2001:db8:{site:x}::1]:1"), 1);
    }
    let swarms = scene.registry.swarms.len();
    assert!((1100..=1200).contains(&swarms), "{swarms}");
    assert!(of_box.iter().all(|&info_hash| scene.registry.scrape(info_hash).leeches == 1));
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    // Another customer of that provider is heard, too.
    assert!(scene.meet(InfoHash([9; 20]), "[2001:db8:a::7]:7", "[2001:db8:b::7]:7"));
    scene.check();
}

/// The seed box that all this must not hurt.
#[test]
fn one_address_with_a_hundred_thousand_torrents_is_served_in_full() {
    let mut scene = Scene::new(SWARMS_MAX, REGISTRY_PEERS_MAX);
    scene.registry.bounds.swarms_of_site = SWARMS_PER_SITE_MAX;
    scene.registry.bounds.peers_of_site = REGISTRY_PEERS_PER_SITE_MAX;
    for address in ["192.0.2.1:7", "[2001:db8::1]:7"] {
        scene.flood(address, 100_000);
    }
    assert_eq!((scene.registry.swarms.len(), scene.registry.figures().peers()), (200_000, 200_000));
}

#[test]
fn a_site_that_holds_much_is_not_displaced_by_one_that_holds_more() {
    let mut scene = Scene::new(1000, 100_000);
    let hashes: Vec<InfoHash> = (0..300).map(|_| scene.random_hash()).collect();
    for &info_hash in &hashes {
        scene.announce(info_hash, "192.0.2.1:7", AnnounceEvent::Started);
    }
    scene.flood("10.6.6.6:1", 20_000);
    assert!(hashes.iter().all(|&info_hash| scene.registry.scrape(info_hash).leeches == 1));
    // And one that comes later gets its part of what the flooder holds.
    for _ in 0..150 {
        let info_hash = scene.random_hash();
        scene.announce(info_hash, "198.51.100.1:7", AnnounceEvent::Started);
        assert_eq!(scene.registry.scrape(info_hash).leeches, 1);
    }
    scene.check();
}

#[test]
fn completed_downloads_of_nobody_do_not_fill_the_table_for_a_day() {
    let mut scene = Scene::new(1000, 100_000);
    for _ in 0..5000 {
        let info_hash = scene.random_hash();
        scene.announce(info_hash, "10.6.6.6:1", AnnounceEvent::Completed);
        scene.announce(info_hash, "10.6.6.6:1", AnnounceEvent::Stopped);
    }
    assert!((480..=501).contains(&scene.registry.swarms.len()), "{}", scene.registry.swarms.len());
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    scene.check();
}

#[test]
fn one_address_holds_half_of_all_peers_at_most_and_two_honest_peers_meet() {
    for flooder in ["10.6.6.6", "[2001:db8:bad::1]", "127.0.0.1"] {
        let mut scene = Scene::new(100_000, 2000);
        for _ in 0..200 {
            let info_hash = scene.random_hash();
            for port in 1..=60 {
                scene.announce(info_hash, &format!("{flooder}:{port}"), AnnounceEvent::Started);
            }
        }
        assert!((990..=1001).contains(&scene.registry.figures().peers()), "{:?}", scene.registry.figures());
        assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"), "beside {flooder}");
        scene.check();
    }
}

#[test]
fn a_full_table_of_peers_has_room_for_who_holds_little() {
    let mut scene = Scene::new(100_000, 2000);
    for site in 0..400_u32 {
        for host in 0..10 {
            scene.announce(
                InfoHash([site as u8; 20]),
                &format!("10.{}.{}.{host}:1", site / 256, site % 256),
                AnnounceEvent::Started,
            );
        }
    }
    assert!(scene.registry.figures().peers() > 1950, "{:?}", scene.registry.figures());
    assert!(scene.meet(OURS, "192.0.2.1:7", "198.51.100.1:7"));
    scene.check();
}

#[test]
fn a_site_has_a_bounded_part_of_one_swarm() {
    let mut scene = Scene::new(1000, 1_000_000);
    for network in 0..1000_u32 {
        scene.announce(OURS, &format!("[2001:db8:bad:{network:x}::1]:1"), AnnounceEvent::Started);
        scene.announce(OURS, &format!("10.6.6.{}:{}", network % 256, 1 + network), AnnounceEvent::Started);
    }
    assert_eq!(scene.registry.figures().leeches_v6, PEERS_PER_SITE_MAX as u64);
    assert_eq!(scene.registry.figures().leeches_v4, PEERS_PER_SITE_MAX as u64);
    scene.check();
}

#[test]
fn a_swarm_that_loopback_has_filled_takes_newcomers_from_elsewhere() {
    let mut scene = Scene { wanted: 0, ..Scene::new(1000, 1_000_000) };
    for number in 0..PEERS_PER_SWARM_MAX as u32 + 1000 {
        let ip = [127, 0, 0, (number >> 16) as u8 + 1];
        let address = SocketAddr::from((ip, (number & 0xffff) as u16));
        scene.announce_from(OURS, address, AnnounceEvent::Started);
    }
    assert_eq!(scene.registry.figures().peers(), PEERS_PER_SWARM_MAX as u64);
    for host in 1..=200 {
        scene.announce(OURS, &format!("192.0.2.{host}:7"), AnnounceEvent::Started);
    }
    let swarm = &scene.registry.swarms[&OURS];
    let of_elsewhere = swarm.v4.addresses().iter().filter(|(address, _)| address[0] == 192).count();
    assert!(of_elsewhere >= 195, "{of_elsewhere} of 200");
    scene.check();
}

#[test]
fn nothing_is_held_when_everybody_has_gone() {
    let mut scene = Scene::new(300, 1000);
    for round in 0..2000_u32 {
        let info_hash = scene.random_hash();
        let event = if round % 3 == 0 { AnnounceEvent::Completed } else { AnnounceEvent::Started };
        for host in 0..4 {
            let site = round % 40;
            scene.announce(info_hash, &format!("10.0.{site}.{host}:1"), event);
            scene.announce(info_hash, &format!("[2001:db8:{site:x}::{host}]:1"), AnnounceEvent::Paused);
            scene.announce(OURS, &format!("10.0.{site}.{host}:1"), event);
        }
        scene.now += Duration::from_millis(100);
        scene.registry.expire(scene.now, 50);
    }
    scene.check();
    scene.now += SWARM_LINGER + LIFETIME;
    for _ in 0..100 {
        scene.registry.expire(scene.now, 1000);
    }
    let completed = scene.registry.figures().completed;
    assert_eq!(scene.registry.figures(), RegistryFigures { completed, ..RegistryFigures::default() });
    scene.registry.founded.check_empty();
    scene.registry.present.check_empty();
}
