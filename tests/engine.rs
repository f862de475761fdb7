//! The engine on real sockets: blocks arrive byte for byte, warm and cold, and a file that fails takes its
//! own torrent down and nothing else.

use seedring::bitfield::Bitfield;
use seedring::choker::{Role, Slots};
use seedring::engine::{Engine, EngineConfig, EngineEvent, SharedTorrent};
use seedring::id::{InfoHash, PeerId};
use seedring::peer::TorrentFacts;
use seedring::pipeline::RateGate;
use seedring::storage::{Content, Layout, LayoutFile};
use seedring::time::Duration;
use seedring::torrent::TorrentParameters;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Decoder, DecoderLimits, Handshake, Message, Reserved, encode};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

const PIECE: u32 = 256 * 1024;

fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    seedring::rng::Rng::from_seed(seed).fill(&mut bytes);
    bytes
}

struct Rig {
    engine: Engine<Content>,
    events: Receiver<EngineEvent>,
}

impl Rig {
    fn start() -> Self {
        let (sender, events) = channel();
        let config = EngineConfig { bind: Some(Ipv4Addr::LOCALHOST.into()), ..EngineConfig::default() };
        let make_sink = || {
            let sender = sender.clone();
            Box::new(move |event| sender.send(event).map_err(|unsent| unsent.0)) as _
        };
        Self { engine: Engine::start(&config, make_sink).unwrap(), events }
    }

    fn seed(&self, root: &Path, files: &[(&str, &[u8])], info_hash: InfoHash) -> Arc<SharedTorrent<Content>> {
        for (name, bytes) in files {
            std::fs::write(root.join(name), bytes).unwrap();
        }
        let files = files.iter().map(|(name, bytes)| LayoutFile {
            path: name.into(),
            len: bytes.len() as u64,
            padding: false,
        });
        let layout = Arc::new(Layout::new(PIECE, files).unwrap());
        let facts = TorrentFacts {
            info_hash,
            piece_length: PIECE,
            total_len: layout.total_len(),
            have: Bitfield::all(layout.piece_count()),
        };
        let torrent = Arc::new(SharedTorrent {
            facts: Arc::new(facts),
            content: Arc::new(Content::open(Arc::clone(&layout), root).unwrap()),
            home: self.engine.home_of(info_hash),
            parameters: TorrentParameters {
                role: Role::Seeding,
                slots: Slots::Fixed(100),
                piece_len: PIECE,
                total_len: layout.total_len(),
            },
            peer_id: PeerId(*b"-SR0100-000000000000"),
            gate: RateGate::new(None, 0),
            uploaded: 0.into(),
            connections: 0.into(),
        });
        self.engine.add(&torrent);
        torrent
    }
}

/// A leech with a blocking socket.
struct Leech {
    stream: TcpStream,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Leech {
    fn join(rig: &Rig, torrent: &SharedTorrent<Content>) -> Self {
        let stream = TcpStream::connect(rig.engine.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let decoder = Decoder::new(DecoderLimits::for_pieces(torrent.facts.piece_count()));
        let mut leech = Self { stream, decoder, unread: Vec::new() };
        let handshake = Handshake {
            reserved: Reserved::OURS,
            info_hash: torrent.facts.info_hash,
            peer_id: PeerId(*b"-XX0000-000000000000"),
        };
        leech.stream.write_all(&handshake.encode()).unwrap();
        leech.say(&[Message::HaveNone, Message::Interested]);
        let mut answer = [0; 68];
        leech.stream.read_exact(&mut answer).unwrap();
        assert_eq!(Handshake::decode(&answer).unwrap().info_hash, torrent.facts.info_hash);
        leech.wait_for(|message| matches!(message, Message::Unchoke));
        leech
    }

    fn say(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.stream.write_all(&bytes).unwrap();
    }

    fn wait_for(&mut self, wanted: impl Fn(&Message<'_>) -> bool) {
        loop {
            let mut input = &self.unread[..];
            while let Some(message) = self.decoder.decode(&mut input).unwrap() {
                if wanted(&message) {
                    let rest = input.to_vec();
                    self.unread = rest;
                    return;
                }
            }
            self.unread.clear();
            self.fill();
        }
    }

    fn fill(&mut self) {
        let mut buffer = [0; 65_536];
        let read = self.stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the seed closed the connection");
        self.unread.extend_from_slice(&buffer[..read]);
    }

    /// Asks for everything at once and reads the answers in order.
    fn download(&mut self, torrent: &SharedTorrent<Content>) -> Vec<u8> {
        let mut content = Vec::new();
        for piece in 0..torrent.facts.piece_count() {
            let len = torrent.facts.piece_len(PieceIndex(piece));
            let spans: Vec<BlockSpan> = (0..len)
                .step_by(BLOCK_LEN as usize)
                .map(|begin| BlockSpan { piece: PieceIndex(piece), begin, len: BLOCK_LEN.min(len - begin) })
                .collect();
            self.say(&spans.iter().map(|&span| Message::Request(span)).collect::<Vec<_>>());
            for span in spans {
                self.wait_for(|message| *message == Message::Piece(span));
                while self.decoder.payload_remaining() > 0 {
                    if self.unread.is_empty() {
                        self.fill();
                    }
                    let mut input = &self.unread[..];
                    content.extend_from_slice(self.decoder.take_payload(&mut input));
                    self.unread = input.to_vec();
                }
            }
        }
        content
    }
}

#[test]
fn serves_blocks_across_file_borders_byte_for_byte() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let (one, two) = (bytes_of(1, 700_001), bytes_of(2, 1_000_003));
    let torrent = rig.seed(folder.path(), &[("one", &one), ("empty", &[]), ("two", &two)], InfoHash([1; 20]));
    let mut leeches: Vec<Leech> = (0..5).map(|_| Leech::join(&rig, &torrent)).collect();
    for leech in &mut leeches {
        assert!(leech.download(&torrent) == [&one[..], &two].concat());
    }
    let sent: u64 = rig.engine.statistics().iter().map(|worker| worker.payload_sent).sum();
    assert_eq!(sent, 5 * 1_700_004);
}

#[test]
fn cold_content_is_fetched_before_a_send_touches_it() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let content = bytes_of(3, 4 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([2; 20]));
    let file = std::fs::File::open(folder.path().join("file")).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(Leech::join(&rig, &torrent).download(&torrent) == content);
    let statistics = rig.engine.statistics();
    assert!(statistics.iter().map(|worker| worker.cold_fetches).sum::<u64>() > 0, "nothing was cold");
    assert_eq!(statistics.iter().map(|worker| worker.major_faults).sum::<u64>(), 0);
}

#[test]
fn a_file_that_shrinks_stops_its_torrent_and_no_other() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let (bad, good) = (bytes_of(4, 2 << 20), bytes_of(5, 1 << 20));
    let shrinking = rig.seed(folder.path(), &[("bad", &bad)], InfoHash([3; 20]));
    let healthy = rig.seed(folder.path(), &[("good", &good)], InfoHash([4; 20]));
    let (mut victim, mut bystander) = (Leech::join(&rig, &shrinking), Leech::join(&rig, &healthy));
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("bad")).unwrap();
    file.set_len(0).unwrap();
    let span = BlockSpan { piece: PieceIndex(4), begin: 0, len: BLOCK_LEN };
    victim.say(&[Message::Request(span)]);
    let event = rig.events.recv_timeout(Duration::from_secs(20)).unwrap();
    let EngineEvent::TorrentFailed { torrent, reason } = event else { panic!("{event:?}") };
    assert_eq!(torrent, InfoHash([3; 20]));
    assert!(reason.contains("bad has 0 bytes where the torrent has 2097152"), "{reason}");
    assert!(bystander.download(&healthy) == good);
}

#[test]
fn an_unknown_torrent_is_answered_with_silence_and_the_end() {
    let rig = Rig::start();
    let mut stream = TcpStream::connect(rig.engine.addresses()[0]).unwrap();
    let handshake =
        Handshake { reserved: Reserved::OURS, info_hash: InfoHash([9; 20]), peer_id: PeerId([1; 20]) };
    stream.write_all(&handshake.encode()).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert!(answer.is_empty());
}
