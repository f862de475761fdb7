//! Torrents that leave and come back under the same info-hash, with other content: what was on its way for the first
//! never meets the second.

use super::giver::{Manner, Truth};
use super::leech_rig::{INFO_HASH as LEECH_INFO_HASH, LeechRig, PIECE as LEECH_PIECE, PIECES};
use super::rig::{INFO_HASH, PIECE, Rig, SimPeer, TOTAL, seeded, until};
use super::ring::Faults;
use super::sink::SimSink;
use super::store::SimStore;
use crate::bitfield::Bitfield;
use crate::choker::Slots;
use crate::engine::message::{Download, EngineEvent, SharedTorrent, ToWorker, TorrentCounts};
use crate::engine::supply::{ContentSource, LoadedInfo, NotOpened, Opened, Supply};
use crate::engine::zero_copy::ZeroCopyMode;
use crate::peer::TorrentFacts;
use crate::picker::{Order, PieceShape};
use crate::pipeline::RateGate;
use crate::time::Duration;
use crate::torrent::DownloadPlan;
use crate::units::BlockSpan;
use crate::units::PieceIndex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

/// Content whose opening is asked for, and answered when the test says so.
#[derive(Default)]
struct SlowSource {
    opens: Mutex<Vec<Opened<SimStore>>>,
}

impl std::fmt::Debug for SlowSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SlowSource").finish_non_exhaustive()
    }
}

impl SlowSource {
    fn asked(&self) -> usize {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn answer(&self, opened: &Result<Arc<SimStore>, NotOpened>) {
        for open in std::mem::take(&mut *self.opens.lock().unwrap_or_else(PoisonError::into_inner)) {
            open(opened.clone());
        }
    }
}

impl ContentSource<SimStore> for SlowSource {
    fn part_of(&self, _block: BlockSpan) -> u32 {
        0
    }

    fn file_count(&self, _part: u32) -> usize {
        2
    }

    fn open(self: Arc<Self>, _part: u32, answer: Opened<SimStore>) {
        self.opens.lock().unwrap_or_else(PoisonError::into_inner).push(answer);
    }

    fn load_info(self: Arc<Self>, answer: LoadedInfo) {
        // Nobody asks for it.
        drop(answer);
    }

    fn fault(&self) -> Option<String> {
        None
    }
}

/// A torrent whose content is opened on demand.
fn slow(source: &Arc<SlowSource>) -> Arc<SharedTorrent<SimStore>> {
    let store = Arc::new(SimStore::new(0, TOTAL, PIECE));
    let torrent =
        Arc::into_inner(seeded(INFO_HASH, store, 0, Slots::Fixed(50))).expect("it is nobody else's");
    Arc::new(SharedTorrent { content: Supply::OnDemand(Arc::clone(source) as _), ..torrent })
}

/// The torrent leaves, and this one of the same info-hash comes.
fn replace(rig: &mut Rig, torrent: &Arc<SharedTorrent<SimStore>>) {
    rig.address.post(ToWorker::Remove(INFO_HASH)).expect("there is room in the mailbox");
    rig.address.post(ToWorker::Add(Arc::clone(torrent))).expect("there is room in the mailbox");
    rig.run(20);
}

/// A peer that has asked for everything, and waits.
fn asking(rig: &mut Rig) -> [SimPeer; 1] {
    let mut peers = [SimPeer::joined(rig)];
    until(rig, &mut peers, |_, peers| !peers[0].choked);
    peers[0].ask_for_all(rig);
    peers
}

/// What the peers of the rig compare with from now on.
fn expect_bytes_of(rig: &mut Rig, store: &Arc<SimStore>) {
    rig.torrent = seeded(INFO_HASH, Arc::clone(store), 0, Slots::Fixed(50));
}

fn no_failure(rig: &Rig) {
    while let Ok(event) = rig.events.try_recv() {
        assert!(!matches!(event, EngineEvent::TorrentFailed { .. }), "{event:?}");
    }
}

#[test]
fn content_opened_for_a_torrent_that_left_is_not_its_successors() {
    for answer_of_old in [true, false] {
        let mut rig = Rig::new(3, Faults::default(), ZeroCopyMode::Auto, None);
        let [first, second] = [(); 2].map(|()| Arc::new(SlowSource::default()));
        let [old, new] = [30, 40].map(|seed| Arc::new(SimStore::new(seed, TOTAL, PIECE)));
        replace(&mut rig, &slow(&first));
        expect_bytes_of(&mut rig, &old);
        let mut peers = asking(&mut rig);
        until(&mut rig, &mut peers, |_, _| first.asked() == 1);
        replace(&mut rig, &slow(&second));
        expect_bytes_of(&mut rig, &new);
        let mut peers = asking(&mut rig);
        until(&mut rig, &mut peers, |_, _| second.asked() == 1);
        first.answer(&if answer_of_old { Ok(old) } else { Err(NotOpened::Failed) });
        rig.run(200);
        peers[0].read(&mut rig);
        assert_eq!(peers[0].blocks, 0, "nothing is open of what the peer asks for");
        no_failure(&rig);
        second.answer(&Ok(new));
        until(&mut rig, &mut peers, |_, peers| peers[0].asked.is_empty());
        rig.stop();
    }
}

#[test]
fn a_read_that_fails_for_a_torrent_that_left_does_not_fail_its_successor() {
    let mut rig = Rig::new(5, Faults::default(), ZeroCopyMode::Auto, None);
    rig.content().evict();
    asking(&mut rig);
    rig.ring().faults = Faults { broken_disk: 1000, slow_disk: Duration::from_secs(5), ..Faults::default() };
    rig.run(20);
    let store = Arc::new(SimStore::new(50, TOTAL, PIECE));
    let old = Arc::clone(&rig.torrent);
    let new = seeded(INFO_HASH, Arc::clone(&store), 0, Slots::Fixed(50));
    replace(&mut rig, &new);
    rig.torrent = Arc::clone(&new);
    rig.ring().faults = Faults::default();
    let mut peers = asking(&mut rig);
    let end = rig.now() + Duration::from_secs(10);
    until(&mut rig, &mut peers, |rig, peers| peers[0].asked.is_empty() && rig.now() > end);
    let fault = |torrent: &SharedTorrent<SimStore>| torrent.content.fault();
    assert_eq!(
        (fault(&old).as_deref(), fault(&new)),
        (Some("errno 5"), None),
        "the read had begun, and failed"
    );
    no_failure(&rig);
    rig.stop();
}

#[test]
fn what_a_home_has_told_of_a_torrent_that_left_is_not_told_of_its_successor() {
    let mut rig = Rig::new(6, Faults::default(), ZeroCopyMode::Auto, None);
    let old = Arc::clone(&rig.torrent);
    let new = slow(&Arc::new(SlowSource::default()));
    replace(&mut rig, &new);
    rig.torrent = Arc::clone(&new);
    let mut peers = [SimPeer::joined(&mut rig)];
    // Two seeds part once nothing more is wanted, and only then.
    peers[0].say(&mut rig, &[crate::wire::Message::HaveAll]);
    until(&mut rig, &mut peers, |_, peers| !peers[0].choked);
    for stray in [
        ToWorker::Satisfied(Arc::clone(&old)),
        ToWorker::Have(Arc::clone(&old), PieceIndex(1)),
        ToWorker::RevealAll(old),
    ] {
        rig.address.post(stray).expect("there is room in the mailbox");
    }
    rig.run(200);
    peers[0].read(&mut rig);
    assert!(peers[0].is_open(&mut rig));
    rig.stop();
}

/// The rig's torrent leaves and comes back with nothing of it stored. Answers the storage that it had.
fn begin_anew(rig: &mut LeechRig) -> Arc<SimSink> {
    let old = &rig.torrent;
    let facts = Arc::new(TorrentFacts {
        info_hash: LEECH_INFO_HASH,
        piece_length: LEECH_PIECE,
        total_len: old.facts.total_len,
        have: Bitfield::none(PIECES).into(),
        info: None,
        satisfied: false.into(),
        private: false,
        hides_stock: false.into(),
    });
    let store = Arc::clone(&rig.truth.store);
    let sink = Arc::new(SimSink::new(Arc::clone(&store), Arc::clone(&facts)));
    let shape = PieceShape { piece_count: PIECES, piece_length: LEECH_PIECE, total_len: old.facts.total_len };
    let plan = DownloadPlan {
        shape,
        have: Bitfield::none(PIECES),
        wanted: Bitfield::all(PIECES),
        first: Bitfield::none(PIECES),
        order: Order::RarestFirst,
    };
    let torrent = Arc::new(SharedTorrent {
        facts: Arc::clone(&facts),
        content: Arc::clone(&store).into(),
        home: old.home,
        parameters: old.parameters,
        peer_id: old.peer_id,
        gate: RateGate::new(None, 0),
        download: Some(Download { plan, sink: Arc::clone(&sink) as _ }),
        counts: TorrentCounts::default(),
    });
    for message in [true, false] {
        // The home is told first.
        for worker in (0..rig.workers.len()).rev() {
            let add = || ToWorker::Add(Arc::clone(&torrent));
            rig.post(worker, if message { ToWorker::Remove(LEECH_INFO_HASH) } else { add() });
        }
    }
    rig.torrent = torrent;
    let truth = Truth { info_hash: LEECH_INFO_HASH, store, facts, sink, at_first: Bitfield::none(PIECES) };
    std::mem::replace(&mut rig.truth, truth).sink
}

#[test]
fn a_piece_stored_for_a_torrent_that_left_is_not_its_successors() {
    for workers in [1, 2] {
        let mut rig = LeechRig::new(8, Faults::default(), workers);
        rig.storage_answers = 0;
        rig.redials = true;
        rig.arrive(Manner::default(), Bitfield::all(PIECES));
        rig.until(|rig| rig.truth.sink.waiting() > 2);
        let old = begin_anew(&mut rig);
        rig.run(20);
        let late = old.waiting();
        let mut rng = crate::rng::Rng::from_seed(1);
        old.answer(late, &mut rng);
        rig.run(50);
        assert_eq!(
            rig.torrent.facts.have.count(),
            0,
            "{workers}: {late} pieces lie in files that are no more"
        );
        // It goes its own way, and stores every piece itself.
        rig.storage_answers = 1000;
        rig.complete();
        rig.stop();
    }
}

#[test]
fn bytes_sent_for_a_torrent_that_left_are_not_counted_as_its_successors() {
    let mut rig = Rig::new(9, Faults::default(), ZeroCopyMode::Always, None);
    let mut peers = asking(&mut rig);
    let socket = peers[0].socket;
    rig.ring().set_window(socket, 0);
    rig.run(20);
    let (old, store) = (Arc::clone(&rig.torrent), Arc::new(SimStore::new(60, TOTAL, PIECE)));
    let before = old.counts.uploaded.load(Relaxed);
    let new = seeded(INFO_HASH, store, 0, Slots::Fixed(50));
    replace(&mut rig, &new);
    rig.ring().set_window(socket, usize::MAX);
    rig.run(50);
    peers[0].read(&mut rig);
    assert_eq!(new.counts.uploaded.load(Relaxed), 0);
    assert!(old.counts.uploaded.load(Relaxed) >= before);
    rig.torrent = new;
    rig.stop();
}
