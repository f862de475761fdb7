//! Peer exchange between engines on real sockets: who knows whom is all that is set up, the rest they tell each other.

mod support;

use seedring::bitfield::Bitfield;
use seedring::choker::{Role, Slots};
use seedring::engine::message::Download;
use seedring::engine::piece_buffer::PieceBuffer;
use seedring::engine::store::PieceSink;
use seedring::engine::{SharedTorrent, TorrentCounts};
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
use std::sync::atomic::Ordering::Relaxed;
use support::{PIECE, Rig};

const INFO_HASH: InfoHash = InfoHash([0x11; 20]);

/// Nothing is ever downloaded here, for nobody is unchoked.
#[derive(Debug)]
struct Nowhere;

impl PieceSink for Nowhere {
    fn submit(&self, _: PieceIndex, _: Arc<PieceBuffer>, _: bool, _: Box<dyn FnOnce(PieceResult) + Send>) {}
}

/// A client that has some pieces, wants all or none of the others, and gives nothing.
struct Member {
    rig: Rig,
    torrent: Arc<SharedTorrent<Content>>,
}

impl Member {
    fn new(folder: &Path, number: u8, wants: bool) -> Self {
        let rig = Rig::start();
        let bytes = support::bytes_of(1, 8 * PIECE as usize);
        std::fs::write(folder.join("file"), &bytes).unwrap();
        let file = LayoutFile { path: "file".into(), len: bytes.len() as u64, padding: false };
        let layout = Arc::new(Layout::new(PIECE, [file]).unwrap());
        let (piece_count, total_len) = (layout.piece_count(), layout.total_len());
        let mut have = Bitfield::none(piece_count);
        have.insert(PieceIndex(number.into()));
        let plan = DownloadPlan {
            shape: PieceShape { piece_count, piece_length: PIECE, total_len },
            have: have.clone(),
            wanted: Bitfield::all(piece_count),
            first: Bitfield::none(piece_count),
            order: Order::default(),
        };
        let torrent = Arc::new(SharedTorrent {
            facts: Arc::new(TorrentFacts {
                info_hash: INFO_HASH,
                piece_length: PIECE,
                total_len,
                have: have.into(),
                info: None,
                satisfied: (!wants).into(),
                private: false,
                hides_stock: false.into(),
            }),
            content: Arc::new(Content::open(layout, folder).unwrap()).into(),
            home: rig.engine.home_of(INFO_HASH),
            parameters: TorrentParameters {
                role: Role::Seeding,
                slots: Slots::Fixed(0),
                piece_len: PIECE,
                total_len,
            },
            peer_id: PeerId([number; 20]),
            gate: RateGate::new(None, 0),
            download: wants.then(|| Download { plan, sink: Arc::new(Nowhere) }),
            counts: TorrentCounts::default(),
        });
        rig.engine.add(&torrent);
        Self { rig, torrent }
    }

    fn knows(&self, other: &Self) {
        let address = other.rig.engine.addresses()[0];
        self.rig.engine.add_candidates(INFO_HASH, vec![address], Source::User);
    }

    fn connections(&self) -> u64 {
        self.torrent.counts.connections.load(Relaxed)
    }
}

#[test]
fn who_knows_one_peer_learns_of_the_next_and_connects_to_it() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two, three] =
        [(1, true), (2, false), (3, false)].map(|(number, wants)| Member::new(folder.path(), number, wants));
    one.knows(&two);
    two.knows(&three);
    one.rig.wait_until("the first has found the third", |_| one.connections() == 2);
    three.rig.wait_until("the third has found the first", |_| three.connections() == 2);
}
