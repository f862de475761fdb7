//! What the tests on real sockets share: an engine on loopback and a leech with a blocking socket.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod held_device;
pub mod library;

use seedring::bitfield::Bitfield;
use seedring::choker::{Role, Slots};
use seedring::engine::{Engine, EngineConfig, EngineEvent, SharedTorrent, TorrentCounts};
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

/// Time after which a test gives up waiting.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a piece.
pub const PIECE: u32 = 256 * 1024;

/// Content that follows from a seed.
pub fn bytes_of(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    seedring::rng::Rng::from_seed(seed).fill(&mut bytes);
    bytes
}

/// An engine on loopback.
pub struct Rig {
    pub engine: Engine<Content>,
    pub events: Receiver<EngineEvent>,
}

impl Rig {
    pub fn start() -> Self {
        Self::start_with(EngineConfig::default())
    }

    /// With these settings, on loopback and any free port.
    pub fn start_with(config: EngineConfig) -> Self {
        let (sender, events) = channel();
        let config = EngineConfig { bind: Some(Ipv4Addr::LOCALHOST.into()), ..config };
        let make_sink = || {
            let sender = sender.clone();
            Box::new(move |event| sender.send(event).map_err(|unsent| unsent.0)) as _
        };
        Self { engine: Engine::start(&config, make_sink).unwrap(), events }
    }

    /// Writes the files into `root` and serves them as one torrent.
    pub fn seed(
        &self,
        root: &Path,
        files: &[(&str, &[u8])],
        info_hash: InfoHash,
    ) -> Arc<SharedTorrent<Content>> {
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
            have: Bitfield::all(layout.piece_count()).into(),
            info: None,
            satisfied: true.into(),
            private: false,
            hides_stock: false.into(),
        };
        let torrent = Arc::new(SharedTorrent {
            facts: Arc::new(facts),
            content: Arc::new(Content::open(Arc::clone(&layout), root).unwrap()).into(),
            home: self.engine.home_of(info_hash),
            parameters: TorrentParameters {
                role: Role::Seeding,
                slots: Slots::Fixed(1000),
                piece_len: PIECE,
                total_len: layout.total_len(),
            },
            peer_id: PeerId(*b"-SR0100-000000000000"),
            gate: RateGate::new(None, 0),
            download: None,
            counts: TorrentCounts::default(),
        });
        self.engine.add(&torrent);
        torrent
    }

    /// A socket connected to the engine.
    pub fn dial(&self) -> TcpStream {
        let stream = TcpStream::connect(self.engine.addresses()[0]).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Whatever has happened: an honest peer still gets everything, byte for byte.
    pub fn assert_serves(&self, torrent: &SharedTorrent<Content>, content: &[u8]) {
        assert!(Leech::join(self, torrent).download(torrent) == content);
    }

    /// Waits for what the workers' figures will say: they are counted a moment after the bytes have gone.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Self) -> bool) {
        let deadline = seedring::clock::now() + PATIENCE;
        while !is_so(self) {
            assert!(seedring::clock::now() < deadline, "it never came to that: {what}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    /// Bytes of blocks sent so far.
    pub fn payload_sent(&self) -> u64 {
        self.engine.statistics().iter().map(|worker| worker.payload_sent).sum()
    }
}

/// A leech with a blocking socket.
pub struct Leech {
    pub stream: TcpStream,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Leech {
    /// Joins and waits until it may ask.
    pub fn join(rig: &Rig, torrent: &SharedTorrent<Content>) -> Self {
        let mut leech = Self::introduced(rig.dial(), torrent, Reserved::OURS);
        leech.say(&[Message::HaveNone, Message::Interested]);
        leech.wait_for(|message| matches!(message, Message::Unchoke));
        leech
    }

    /// Exchanges handshakes, with these extensions, and says nothing more.
    pub fn introduced(stream: TcpStream, torrent: &SharedTorrent<Content>, reserved: Reserved) -> Self {
        Self::meeting(stream, torrent.facts.info_hash, torrent.facts.piece_count(), reserved)
    }

    /// [`Self::introduced`] for a torrent of which these are known.
    pub fn meeting(stream: TcpStream, info_hash: InfoHash, piece_count: u32, reserved: Reserved) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let decoder = Decoder::new(DecoderLimits::for_pieces(piece_count));
        let mut leech = Self { stream, decoder, unread: Vec::new() };
        // Each is a peer of its own: two connections with one peer id are one peer's, and one of them goes.
        let mut peer_id = PeerId(*b"-XX0000-000000000000");
        let port = leech.stream.local_addr().unwrap().port();
        peer_id.0[18..].copy_from_slice(&port.to_be_bytes());
        let handshake = Handshake { reserved, info_hash, peer_id };
        leech.stream.write_all(&handshake.encode()).unwrap();
        let mut answer = [0; 68];
        leech.stream.read_exact(&mut answer).unwrap();
        assert_eq!(Handshake::decode(&answer).unwrap().info_hash, info_hash);
        leech
    }

    pub fn say(&mut self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.stream.write_all(&bytes).unwrap();
    }

    /// Reads on until a message is as wanted; the others are passed over.
    pub fn wait_for(&mut self, wanted: impl Fn(&Message<'_>) -> bool) {
        self.hear(|message| wanted(message).then_some(()));
    }

    /// Reads on until a message says something; the others are passed over.
    pub fn hear<T>(&mut self, mut said: impl FnMut(&Message<'_>) -> Option<T>) -> T {
        loop {
            let mut input = &self.unread[..];
            while let Some(message) = self.decoder.decode(&mut input).unwrap() {
                if let Some(said) = said(&message) {
                    let rest = input.to_vec();
                    self.unread = rest;
                    return said;
                }
            }
            self.unread.clear();
            self.fill();
        }
    }

    /// Reads on to the answer of a request and over it; true for a block as for a reject.
    pub fn skip_to_answer(&mut self) -> bool {
        self.wait_for(|message| matches!(message, Message::Piece(_) | Message::Reject(_)));
        while self.decoder.payload_remaining() > 0 {
            if self.unread.is_empty() {
                self.fill();
            }
            let mut input = &self.unread[..];
            self.decoder.take_payload(&mut input);
            self.unread = input.to_vec();
        }
        true
    }

    pub fn fill(&mut self) {
        let mut buffer = [0; 65_536];
        let read = self.stream.read(&mut buffer).unwrap();
        assert_ne!(read, 0, "the seed closed the connection");
        self.unread.extend_from_slice(&buffer[..read]);
    }

    /// Reads until the engine has ended the connection, properly or by a reset.
    pub fn assert_ended(mut self, why: &str) {
        assert_ended(&mut self.stream, why);
    }

    /// Asks for everything at once and reads the answers in order.
    pub fn download(&mut self, torrent: &SharedTorrent<Content>) -> Vec<u8> {
        let mut content = Vec::new();
        for piece in 0..torrent.facts.piece_count() {
            let len = torrent.facts.piece_len(PieceIndex(piece));
            let spans: Vec<BlockSpan> = (0..len)
                .step_by(BLOCK_LEN as usize)
                .map(|begin| BlockSpan { piece: PieceIndex(piece), begin, len: BLOCK_LEN.min(len - begin) })
                .collect();
            self.ask(&spans);
            self.take(&spans, &mut content);
        }
        content
    }

    pub fn ask(&mut self, spans: &[BlockSpan]) {
        self.say(&spans.iter().map(|&span| Message::Request(span)).collect::<Vec<_>>());
    }

    /// Reads these blocks, which have been asked for in this order, and appends their bytes.
    pub fn take(&mut self, spans: &[BlockSpan], content: &mut Vec<u8>) {
        for &span in spans {
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
}

/// Reads until the engine has ended the connection, properly or by a reset.
pub fn assert_ended(stream: &mut TcpStream, why: &str) {
    let mut buffer = vec![0; 65_536];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("the connection goes on after {why}: {error}"),
        }
    }
}
