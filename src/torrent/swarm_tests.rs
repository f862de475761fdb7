//! A seed and its swarm in virtual time: thirty peers that join over the first minutes, take as fast as the seed's
//! line gives, flip their interest, leave. By seed, so that every run repeats.

use super::*;
use crate::rng::Rng;
use crate::time::Duration;

const START: Instant = Instant::from_nanos(86_400_000_000_000);
const STEP: Duration = Duration::from_millis(100);
const PEERS: usize = 30;
/// Bytes a second of the seed's line, shared evenly by the peers it serves.
const LINE: u64 = 8 << 20;

struct SwarmPeer {
    conn: ConnId,
    joins_at: Instant,
    leaves_at: Instant,
    present: bool,
    interested: bool,
    unchoked: bool,
    taken: u64,
    /// Waiting for its turn since then.
    waits_since: Option<Instant>,
    longest_wait: Duration,
}

struct Swarm {
    machine: TorrentMachine,
    peers: Vec<SwarmPeer>,
    rng: Rng,
    slots: usize,
    messages: usize,
}

impl Swarm {
    fn new(seed: u64, slots: usize) -> Self {
        let mut rng = Rng::from_seed(seed);
        let machine = TorrentMachine::new(TorrentParameters {
            role: Role::Seeding,
            slots: Slots::Fixed(slots),
            piece_len: 1 << 20,
            total_len: 1 << 40,
        });
        let mut peer = |number: usize| {
            // Every sixth leaves early; the others stay to the end.
            let leaves = if number.is_multiple_of(6) { 60 + rng.below(400) } else { 10_000 };
            SwarmPeer {
                conn: ConnId { worker: (number % 3) as u16, slot: number as u32, generation: 0 },
                joins_at: START + Duration::from_millis(rng.below(60_000)),
                leaves_at: START + Duration::from_secs(leaves),
                present: false,
                interested: false,
                unchoked: false,
                taken: 0,
                waits_since: None,
                longest_wait: Duration::ZERO,
            }
        };
        let peers = (0..PEERS).map(&mut peer).collect();
        Self { machine, peers, rng, slots, messages: 0 }
    }

    fn step(&mut self, now: Instant) {
        self.come_and_go(now);
        while self.machine.poll_timeout().is_some_and(|due| due <= now) {
            let sample = |conn: ConnId| PeerSample {
                uploaded: self.peers[conn.slot as usize].taken,
                reported_pieces: 1,
                ..PeerSample::default()
            };
            self.machine.handle_timeout(now, sample, &mut self.rng);
            self.obey(now);
        }
        let served = self.peers.iter().filter(|peer| peer.unchoked && peer.interested).count();
        assert!(served <= self.slots + 1, "{served} served at {now:?}");
        let share = LINE / 10 / served.max(1) as u64;
        for peer in self.peers.iter_mut().filter(|peer| peer.unchoked && peer.interested) {
            peer.taken += share;
        }
    }

    fn come_and_go(&mut self, now: Instant) {
        for number in 0..self.peers.len() {
            let flips = self.rng.below(600) == 0;
            let peer = &mut self.peers[number];
            let here = (peer.joins_at..peer.leaves_at).contains(&now);
            if here && !peer.present {
                let prefix = AddressPrefix::V4([10, 0, (number / 2) as u8]);
                self.machine.handle_joined(now, peer.conn, prefix);
                (peer.present, peer.interested, peer.waits_since) = (true, true, Some(now));
                self.machine.handle_interest(now, peer.conn, true);
            } else if !here && peer.present {
                (peer.present, peer.interested, peer.unchoked, peer.waits_since) =
                    (false, false, false, None);
                self.machine.handle_left(now, peer.conn);
            } else if here && flips {
                peer.interested = !peer.interested;
                peer.waits_since = (peer.interested && !peer.unchoked).then_some(now);
                self.machine.handle_interest(now, peer.conn, peer.interested);
            } else if here && !peer.interested {
                // Interest is lost for a step only, as when the last wanted piece came and the next have follows.
                peer.interested = true;
                peer.waits_since = (!peer.unchoked).then_some(now);
                self.machine.handle_interest(now, peer.conn, true);
            }
            self.obey(now);
        }
    }

    fn obey(&mut self, now: Instant) {
        while let Some(action) = self.machine.poll_action() {
            let (TorrentAction::Unchoke(conn) | TorrentAction::Choke(conn)) = action else {
                panic!("only chokes are due: {action:?}")
            };
            let peer = &mut self.peers[conn.slot as usize];
            let unchoke = action == TorrentAction::Unchoke(conn);
            assert!(peer.present && peer.unchoked != unchoke, "{action:?} says nothing new at {now:?}");
            peer.unchoked = unchoke;
            if let Some(since) = peer.waits_since.take() {
                peer.longest_wait = peer.longest_wait.max(now.since(since));
            }
            peer.waits_since = (!unchoke && peer.interested).then_some(now);
            self.messages += 1;
        }
    }
}

#[test]
fn a_seed_rotates_so_that_every_equal_peer_is_served() {
    for seed in 0..8 {
        let mut swarm = Swarm::new(seed, 4);
        let (mut now, end) = (START, START + Duration::from_secs(600));
        while now < end {
            swarm.step(now);
            now += STEP;
        }
        let stayed = || swarm.peers.iter().filter(|peer| peer.leaves_at > end);
        for peer in stayed() {
            let waited =
                peer.longest_wait.max(peer.waits_since.map_or(Duration::ZERO, |since| end.since(since)));
            assert!(waited < Duration::from_secs(240), "seed {seed}: {} waited {waited:?}", peer.conn);
        }
        let most = stayed().map(|peer| peer.taken).max().expect("most peers stay");
        let least = stayed().map(|peer| peer.taken).min().expect("most peers stay");
        assert!(least * 5 >= most, "seed {seed}: {least} and {most} bytes");
        // A round changes at most every slot and the optimistic one: five chokes, five unchokes.
        assert!(swarm.messages <= 60 * 10 + 2 * PEERS, "seed {seed}: {} messages", swarm.messages);
    }
}
