//! Super-seeding (BEP 16) between engines on real sockets: leeches get everything from a seed that says it has nothing,
//! and two of them together take hardly more than one copy of it.

mod support;

use seedring::bitfield::Bitfield;
use seedring::choker::{Role, Slots};
use seedring::engine::message::Download;
use seedring::engine::piece_buffer::PieceBuffer;
use seedring::engine::store::PieceSink;
use seedring::engine::{EngineEvent, SharedTorrent, TorrentCounts};
use seedring::id::{InfoHash, PeerId};
use seedring::peer::TorrentFacts;
use seedring::peer_list::Source;
use seedring::picker::{Order, PieceShape};
use seedring::pipeline::RateGate;
use seedring::storage::{Content, Layout, LayoutFile};
use seedring::torrent::{DownloadPlan, PieceResult, TorrentParameters};
use seedring::units::PieceIndex;
use std::path::Path;
use std::sync::Arc;
use support::{PATIENCE, PIECE, Rig};

const INFO_HASH: InfoHash = InfoHash([0x16; 20]);
const PIECES: u32 = 60;
const TOTAL: u64 = PIECES as u64 * PIECE as u64 - 1000;

/// Compares pieces with what they should be. The file they belong in holds the same bytes already.
#[derive(Debug)]
struct Comparison(Vec<u8>);

impl PieceSink for Comparison {
    fn submit(
        &self,
        piece: PieceIndex,
        buffer: Arc<PieceBuffer>,
        _: bool,
        reply: Box<dyn FnOnce(PieceResult) + Send>,
    ) {
        let begin = piece.0 as usize * PIECE as usize;
        let expected = &self.0[begin..self.0.len().min(begin + PIECE as usize)];
        assert!(buffer.bytes() == Some(expected), "piece {piece} is wrong");
        reply(PieceResult::Verified { block_hashes: None });
    }
}

/// Seed and leeches read the same file; what a leech may tell and send is what it has got.
fn client(folder: &Path, number: u8) -> (Rig, Arc<SharedTorrent<Content>>) {
    let is_seed = number == 0;
    let rig = Rig::start();
    let bytes = support::bytes_of(16, TOTAL as usize);
    std::fs::write(folder.join("file"), &bytes).unwrap();
    let layout = Arc::new(
        Layout::new(PIECE, [LayoutFile { path: "file".into(), len: TOTAL, padding: false }]).unwrap(),
    );
    let have = if is_seed { Bitfield::all(PIECES) } else { Bitfield::none(PIECES) };
    let plan = DownloadPlan {
        shape: PieceShape { piece_count: PIECES, piece_length: PIECE, total_len: TOTAL },
        have: have.clone(),
        wanted: Bitfield::all(PIECES),
        first: Bitfield::none(PIECES),
        order: Order::default(),
    };
    let torrent = Arc::new(SharedTorrent {
        facts: Arc::new(TorrentFacts {
            info_hash: INFO_HASH,
            piece_length: PIECE,
            total_len: TOTAL,
            have: have.into(),
            info: None,
            satisfied: is_seed.into(),
            private: false,
            hides_stock: is_seed.into(),
        }),
        content: Arc::new(Content::open(layout, folder).unwrap()).into(),
        home: rig.engine.home_of(INFO_HASH),
        parameters: TorrentParameters {
            role: if is_seed { Role::Seeding } else { Role::Leeching },
            slots: Slots::Auto,
            piece_len: PIECE,
            total_len: TOTAL,
        },
        peer_id: PeerId([number + 1; 20]),
        gate: RateGate::new(None, 0),
        download: (!is_seed).then(|| Download { plan, sink: Arc::new(Comparison(bytes)) }),
        counts: TorrentCounts::default(),
    });
    rig.engine.add(&torrent);
    (rig, torrent)
}

fn introduce(one: &Rig, other: &Rig) {
    one.engine.add_candidates(INFO_HASH, vec![other.engine.addresses()[0]], Source::User);
}

fn wait_for_everything(leech: &Rig) {
    let deadline = seedring::clock::now() + PATIENCE;
    loop {
        let left = deadline.since(seedring::clock::now());
        match leech.events.recv_timeout(left) {
            Ok(EngineEvent::Satisfied { .. }) => return,
            Ok(_) => {}
            Err(error) => panic!("not everything has come: {error}"),
        }
    }
}

#[test]
fn a_leech_alone_gets_everything_from_a_super_seed() {
    let folder = tempfile::tempdir().unwrap();
    let (seed, torrent) = client(folder.path(), 0);
    let (leech, _) = client(folder.path(), 1);
    introduce(&leech, &seed);
    wait_for_everything(&leech);
    seed.wait_until("super-seeding is over", |_| !torrent.facts.hides_stock());
    seed.wait_until("everything is counted", |seed| seed.payload_sent() >= TOTAL);
    assert_eq!(seed.payload_sent(), TOTAL);
}

#[test]
fn two_leeches_together_take_hardly_more_than_one_copy() {
    let folder = tempfile::tempdir().unwrap();
    let (seed, torrent) = client(folder.path(), 0);
    let leeches = [1, 2].map(|number| client(folder.path(), number).0);
    introduce(&leeches[0], &leeches[1]);
    leeches.iter().for_each(|leech| introduce(leech, &seed));
    leeches.iter().for_each(wait_for_everything);
    // The seed hears a moment later that they have everything.
    seed.wait_until("super-seeding is over", |_| !torrent.facts.hides_stock());
    let sent = seed.payload_sent();
    assert!(sent < TOTAL * 3 / 2, "{sent} bytes for a torrent of {TOTAL}");
}
