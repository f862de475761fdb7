//! The list in step with a plain vector.

use super::*;
use crate::rng::Rng;
use proptest::prelude::*;

/// What the oracle knows of a candidate.
#[derive(Clone, Debug)]
struct Known {
    address: SocketAddr,
    source: Source,
    failures: u16,
    not_before: Instant,
    state: KnownState,
    age: usize,
    proven: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum KnownState {
    Idle,
    Dialling,
    Connected(ConnId),
}

const CANDIDATES: usize = 12;

/// Keeps the list in step with a plain vector, and says where they part.
struct Oracle {
    list: PeerList,
    known: Vec<Known>,
    own: SocketAddr,
    adds: usize,
}

impl Oracle {
    fn new() -> Self {
        let own = address("123.213.32.10:6881");
        let settings = PeerListSettings {
            own: vec![own],
            connections_max: 6,
            dialling_max: 3,
            candidates_max: CANDIDATES,
            ..PeerListSettings::new(OWN)
        };
        Self { list: PeerList::new(settings), known: Vec::new(), own, adds: 0 }
    }

    fn add(&mut self, now: Instant, address: SocketAddr, source: Source) {
        let added = self.list.add(now, address, source);
        if let Some(known) = self.known.iter_mut().find(|known| known.address == address) {
            assert!(!added);
            known.source = known.source.max(source);
            return;
        }
        self.adds += 1;
        let state = KnownState::Idle;
        let newcomer =
            Known { address, source, failures: 0, not_before: now, state, age: self.adds, proven: false };
        if self.known.len() >= CANDIDATES {
            let worth = |known: &Known| (known.proven, Reverse(known.failures), known.source, known.age);
            let evictable = |known: &&Known| known.state == KnownState::Idle && known.source != Source::User;
            let worst = self.known.iter().filter(evictable).min_by_key(|known| worth(known)).cloned();
            let gives_way =
                worst.filter(|worst| newcomer.source == Source::User || worth(worst) < worth(&newcomer));
            let Some(victim) = gives_way else {
                assert!(!added);
                return;
            };
            self.known.retain(|known| known.address != victim.address);
        }
        assert!(added);
        self.known.push(newcomer);
    }

    fn dial(&mut self, now: Instant, rng: &mut Rng) {
        let dialled = self.list.next_dial(now, rng);
        let count =
            |wanted: fn(KnownState) -> bool| self.known.iter().filter(|known| wanted(known.state)).count();
        let dialling = count(|state| state == KnownState::Dialling);
        let in_use = dialling + self.list.connected();
        let eligible = |known: &&Known| known.state == KnownState::Idle && known.not_before <= now;
        let rank = |known: &Known| {
            let priority = canonical_priority(self.own, known.address);
            (known.source != Source::User, known.failures, Reverse(priority))
        };
        let best = self.known.iter().filter(eligible).map(rank).min();
        let best = best.filter(|_| dialling < 3 && in_use < 6);
        let got = self.known.iter().find(|known| Some(known.address) == dialled);
        assert_eq!(got.map(rank), best);
        assert!(got.is_none_or(|got| eligible(&got)));
        if let Some(got) = self.known.iter_mut().find(|known| Some(known.address) == dialled) {
            got.state = KnownState::Dialling;
        }
    }

    /// Takes over how long the list waits, which is drawn, and checks that it is long enough.
    fn rest(&mut self, now: Instant, address: SocketAddr, least: Duration) {
        let shown = self.list.shown().find(|shown| shown.address == address).expect("it was in use");
        let known = self.known.iter_mut().find(|known| known.address == address).expect("it was in use");
        let Standing::Waiting(until) = shown.standing else { panic!("{shown:?} does not wait") };
        assert!(until >= now + least && until <= now + least + least / 4);
        (known.not_before, known.state, known.failures) = (until, KnownState::Idle, shown.failures);
    }

    fn check(&self) {
        self.list.candidates.check();
        assert!(self.list.candidates() <= CANDIDATES && self.list.connected() <= 6);
        assert!(self.list.shown().map(|shown| shown.address).eq({
            let mut addresses: Vec<_> = self.known.iter().map(|known| known.address).collect();
            addresses.sort_unstable();
            addresses
        }));
    }
}

proptest! {
    /// Candidates come, are dialled, fail, connect and go; a plain vector says what should happen.
    #[test]
    fn the_list_does_what_a_plain_vector_would(seed: u64) {
        const SOURCES: [Source; 5] =
            [Source::Pex, Source::Dht, Source::Resume, Source::Tracker(Scope::Global), Source::User];
        let (mut rng, mut oracle, mut now) = (Rng::from_seed(seed), Oracle::new(), START);
        for step in 0..300_u32 {
            now += Duration::from_millis(rng.below(20_000));
            match rng.below(6) {
                0 | 1 => {
                    let ip = [11 + rng.below(30) as u8, rng.below(2) as u8, 3, 4];
                    let source = SOURCES[rng.index(SOURCES.len() - usize::from(step % 8 != 0))];
                    oracle.add(now, SocketAddr::from((ip, 6881)), source);
                }
                2 | 3 => oracle.dial(now, &mut rng),
                4 => {
                    let dialling: Vec<_> =
                        oracle.known.iter().filter(|known| known.state == KnownState::Dialling).cloned().collect();
                    let Some(known) = dialling.get(rng.index(dialling.len())) else { continue };
                    if rng.below(2) == 0 {
                        oracle.list.handle_dial_failed(now, known.address);
                        let least = match known.failures + 1 {
                            1 => DIAL_RETRY_QUICK,
                            more => (Duration::from_secs(15) * 2_u32.pow(u32::from(more - 2))).min(DIAL_RETRY_MAX),
                        };
                        oracle.rest(now, known.address, least);
                    } else {
                        let mut peer_id = PeerId([0; 20]);
                        rng.fill(&mut peer_id.0);
                        let verdict = oracle.list.handle_connected(now, known.address, conn(step), peer_id);
                        prop_assert_eq!(verdict, Verdict::Keep);
                        for other in oracle.known.iter_mut().filter(|other| other.address == known.address) {
                            (other.state, other.proven) = (KnownState::Connected(conn(step)), true);
                        }
                    }
                }
                _ => {
                    let connected: Vec<_> = oracle.known.iter().filter_map(|known| match known.state {
                        KnownState::Connected(conn) => Some((known.address, conn)),
                        _ => None,
                    }).collect();
                    let Some(&(address, conn)) = connected.get(rng.index(connected.len())) else { continue };
                    // Long enough to have been a success.
                    now += limits::CONNECTION_STABLE_TIME;
                    oracle.list.handle_closed(now, conn, Closed::Normal);
                    oracle.rest(now, address, DIAL_RETRY_QUICK);
                    let failures = oracle.known.iter().find(|known| known.address == address);
                    prop_assert_eq!(failures.map(|known| known.failures), Some(0));
                }
            }
            oracle.check();
        }
    }
}
