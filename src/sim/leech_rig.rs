//! A leech: one or two production workers on simulated rings, simulated storage, and peers that give.

use super::crew::{Crew, Terms};
use super::giver::{Giver, Manner, Truth};
use super::ring::{Faults, SimRing};
use super::sink::SimSink;
use super::store::SimStore;
use crate::bitfield::Bitfield;
use crate::choker::{Role, Slots};
use crate::engine::mailbox::Address;
use crate::engine::message::{Download, EngineEvent, SharedTorrent, ToWorker, TorrentCounts};
use crate::engine::ring::Ring;
use crate::engine::worker::Worker;
use crate::engine::zero_copy::ZeroCopyMode;
use crate::id::{InfoHash, PeerId};
use crate::peer::TorrentFacts;
use crate::peer_list::{Scope, Source};
use crate::picker::{Order, PieceShape};
use crate::pipeline::RateGate;
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use crate::torrent::{DownloadPlan, TorrentParameters};
use crate::units::{BLOCK_LEN, ByteRate};
use crate::wire::Encryption;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::Receiver;

pub const INFO_HASH: InfoHash = InfoHash([7; 20]);
pub const PIECE: u32 = 4 * BLOCK_LEN;
pub const PIECES: u32 = 13;
const TOTAL: usize = (PIECES as usize - 1) * PIECE as usize + 20_000;

pub struct LeechRig {
    pub workers: Vec<Worker<SimRing, SimStore>>,
    pub addresses: Vec<Address<ToWorker<SimStore>>>,
    pub torrent: Arc<SharedTorrent<SimStore>>,
    pub truth: Truth,
    pub givers: Vec<Giver>,
    pub satisfied: usize,
    pub refused: usize,
    pub recovered: usize,
    pub banned: Vec<IpAddr>,
    /// Chance of an answer of storage in a turn, in thousandths.
    pub storage_answers: u64,
    /// Peers that have gone call again.
    pub redials: bool,
    /// Workers that do not come to their turns.
    pub asleep: Vec<bool>,
    /// Whatever events come besides is of no interest.
    pub indifferent: bool,
    pub rng: Rng,
    events: Receiver<EngineEvent>,
    /// Sockets on which we call whose other end was found already, by worker.
    answered: Vec<usize>,
}

impl LeechRig {
    pub fn new(seed: u64, faults: Faults, workers: usize) -> Self {
        Self::with_mailboxes(seed, faults, workers, 64)
    }

    /// So many workers, the last of which is the torrent's home.
    pub fn with_mailboxes(seed: u64, faults: Faults, count: usize, mailbox_len: usize) -> Self {
        Self::resumed(seed, faults, count, mailbox_len, Bitfield::none(PIECES))
    }

    /// Another life of the rig of the same seed: its resume file names these pieces, and they are stored.
    pub fn resumed(seed: u64, faults: Faults, count: usize, mailbox_len: usize, at_first: Bitfield) -> Self {
        Self::build(seed, faults, count, mailbox_len, at_first, None)
    }

    /// Two workers that may take so much.
    pub fn limited(seed: u64, download_limit: ByteRate) -> Self {
        Self::build(seed, Faults::default(), 2, 64, Bitfield::none(PIECES), Some(download_limit))
    }

    fn build(
        seed: u64,
        faults: Faults,
        count: usize,
        mailbox_len: usize,
        at_first: Bitfield,
        download_limit: Option<ByteRate>,
    ) -> Self {
        let store = Arc::new(SimStore::new(seed, TOTAL, PIECE));
        let facts = Arc::new(TorrentFacts {
            info_hash: INFO_HASH,
            piece_length: PIECE,
            total_len: TOTAL as u64,
            have: at_first.clone().into(),
            info: None,
            satisfied: false.into(),
            private: false,
            hides_stock: false.into(),
        });
        let sink = Arc::new(SimSink::new(Arc::clone(&store), Arc::clone(&facts)));
        let shape = PieceShape { piece_count: PIECES, piece_length: PIECE, total_len: TOTAL as u64 };
        let plan = DownloadPlan {
            shape,
            have: at_first.clone(),
            wanted: Bitfield::all(PIECES),
            first: Bitfield::none(PIECES),
            order: Order::RarestFirst,
        };
        let torrent = Arc::new(SharedTorrent {
            facts: Arc::clone(&facts),
            content: Arc::clone(&store).into(),
            home: count as u16 - 1,
            parameters: TorrentParameters {
                role: Role::Leeching,
                slots: Slots::Fixed(4),
                piece_len: PIECE,
                total_len: TOTAL as u64,
            },
            peer_id: PeerId([9; 20]),
            gate: RateGate::new(None, 0),
            download: Some(Download { plan, sink: Arc::clone(&sink) as _ }),
            counts: TorrentCounts::default(),
        });
        let terms = Terms {
            seed,
            faults,
            mailbox_lens: &vec![mailbox_len; count],
            zero_copy: ZeroCopyMode::Auto,
            upload_limit: None,
            download_limit,
            encryption: Encryption::Allow,
        };
        let Crew { mut workers, addresses, events, .. } = Crew::gather(terms, &torrent);
        for worker in &mut workers {
            worker.ring_mut().buffer_len = 4096;
        }
        let mut rig = Self {
            workers,
            answered: vec![0; count],
            addresses,
            torrent,
            truth: Truth { info_hash: INFO_HASH, store, facts, sink, at_first },
            givers: Vec::new(),
            satisfied: 0,
            refused: 0,
            recovered: 0,
            banned: Vec::new(),
            storage_answers: 1000,
            redials: false,
            asleep: vec![false; count],
            indifferent: false,
            rng: Rng::from_seed(seed ^ 2),
            events,
        };
        rig.run(3);
        rig
    }

    pub fn now(&mut self) -> Instant {
        self.workers[0].ring_mut().now()
    }

    /// A peer appears and calls; gives its number.
    pub fn arrive(&mut self, manner: Manner, has: Bitfield) -> usize {
        let number = self.add(manner, has);
        self.call(number);
        number
    }

    /// A peer appears and waits to be called.
    pub fn add(&mut self, manner: Manner, has: Bitfield) -> usize {
        self.givers.push(Giver::new(self.givers.len(), manner, has));
        self.givers.len() - 1
    }

    /// The peer calls, on any worker.
    pub fn call(&mut self, number: usize) -> RawFd {
        let worker = self.rng.index(self.workers.len());
        self.call_on(number, worker)
    }

    /// The peer calls this worker.
    pub fn call_on(&mut self, number: usize, worker: usize) -> RawFd {
        let ring = self.workers[worker].ring_mut();
        let from = SocketAddr::new(self.givers[number].address.ip(), 40_000 + number as u16);
        let socket = ring.dial_from(from);
        self.givers[number].greet(worker, socket, ring, &self.truth);
        socket
    }

    /// The peer is named as a candidate by a tracker.
    pub fn name(&mut self, address: SocketAddr) {
        let addresses = vec![address];
        let message =
            ToWorker::Candidates { torrent: INFO_HASH, addresses, source: Source::Tracker(Scope::Global) };
        // A full mailbox: it is named another time.
        let _ = self.addresses[usize::from(self.torrent.home)].post(message);
    }

    pub fn post(&mut self, worker: usize, message: ToWorker<SimStore>) {
        self.addresses[worker].post(message).expect("there is room in the mailbox");
    }

    pub fn run(&mut self, turns: usize) {
        for _ in 0..turns {
            for (worker, _) in self.workers.iter_mut().zip(&self.asleep).filter(|(_, asleep)| !**asleep) {
                assert!(worker.turn().unwrap(), "a worker ended by itself");
            }
            if self.rng.below(1000) < self.storage_answers {
                self.truth.sink.answer(4, &mut self.rng);
            }
            self.answer_calls();
            for giver in &mut self.givers {
                if let Some((worker, _)) = giver.connection {
                    giver.act(self.workers[worker].ring_mut(), &self.truth, &mut self.rng);
                }
            }
            if self.redials && self.rng.below(20) == 0 {
                let number = self.rng.index(self.givers.len());
                if self.givers[number].connection.is_none() {
                    self.call(number);
                }
            }
            self.hear_events();
        }
    }

    fn answer_calls(&mut self) {
        for (worker, answered) in self.answered.iter_mut().enumerate() {
            let ring = self.workers[worker].ring_mut();
            while let Some(&socket) = ring.called().get(*answered) {
                *answered += 1;
                let Some(ends) = ring.addresses(socket) else { continue };
                let free = |giver: &&mut Giver| giver.address == ends.remote && giver.connection.is_none();
                match self.givers.iter_mut().find(free) {
                    Some(giver) => giver.greet(worker, socket, ring, &self.truth),
                    None => ring.peer_closes(socket),
                }
            }
        }
    }

    fn hear_events(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            match event {
                EngineEvent::Satisfied { .. } => self.satisfied += 1,
                EngineEvent::StorageRefused { .. } => self.refused += 1,
                EngineEvent::StorageRecovered { .. } => self.recovered += 1,
                EngineEvent::Banned { ip, .. } => self.banned.push(ip),
                EngineEvent::PeerComplete { .. } => {}
                other => assert!(self.indifferent, "unexpected {other:?}"),
            }
        }
    }

    /// Turns until `done`, with a generous bound.
    #[track_caller]
    pub fn until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..60_000 {
            if done(self) {
                return;
            }
            self.run(1);
        }
        panic!(
            "it never came to that: {} pieces stored, {} wait, asked {:?}",
            self.truth.sink.stored(),
            self.truth.sink.waiting(),
            self.givers.iter().map(|giver| (giver.connection, giver.asked.len())).collect::<Vec<_>>(),
        );
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        self.until(|rig| rig.now() >= end);
    }

    #[track_caller]
    pub fn complete(&mut self) {
        self.until(|rig| rig.satisfied > 0);
        self.run(50);
        let stored = self.truth.sink.stored() + self.truth.at_first.count() as usize;
        assert_eq!((self.satisfied, stored), (1, PIECES as usize));
        assert!(self.torrent.facts.have.is_full() && self.torrent.facts.wants_nothing());
    }

    /// Requests that the peers have heard.
    pub fn requests(&self) -> usize {
        self.givers.iter().map(|giver| giver.requests).sum()
    }

    /// Ends the workers; nothing may be left in anybody's hands.
    pub fn stop(mut self) {
        for worker in &mut self.workers {
            worker.ring_mut().faults = Faults::default();
        }
        self.redials = false;
        self.storage_answers = 1000;
        self.run(50);
        let unposted: usize = self.workers.iter().map(Worker::unposted_count).sum();
        assert_eq!(unposted, 0);
        for address in &self.addresses {
            address.post(ToWorker::Stop).expect("there is room in the mailbox");
        }
        for _ in 0..10_000 {
            let running =
                self.workers.iter_mut().filter_map(|worker| worker.turn().unwrap().then_some(())).count();
            self.truth.sink.answer(4, &mut self.rng);
            if running == 0 {
                break;
            }
        }
        for worker in &mut self.workers {
            assert_eq!((worker.connection_count(), worker.in_flight_count()), (0, 0));
            let ring = worker.ring_mut();
            assert_eq!((ring.open_sockets(), ring.lent_buffers()), (0, 0));
        }
        assert_eq!(self.torrent.counts.connections.load(Relaxed), 0);
        self.workers.clear();
        assert_eq!(self.truth.sink.buffers_held(), 0);
    }
}
