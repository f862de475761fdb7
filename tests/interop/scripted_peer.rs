//! Peers that say what a test has them say: one that only listens to the first words, and one that lies.

use crate::isolation::address;
use seedring::id::{InfoHash, PeerId};
use seedring::units::{BlockSpan, PieceIndex};
use seedring::wire::{
    Decoder, DecoderLimits, EXTENSION_HANDSHAKE_ID, ExtensionHandshake, HANDSHAKE_LEN, Handshake, Message,
    Reserved, encode,
};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest silence of a peer on this machine.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A connection after the handshakes.
pub struct Conversation {
    stream: TcpStream,
    decoder: Decoder,
    unread: Vec<u8>,
    /// What the other side has told in its extension handshake.
    pub extensions: ExtensionHandshake,
}

impl Conversation {
    /// Connects, exchanges handshakes and waits for the extension handshake.
    pub fn start(peer: &str, info_hash: &str, piece_count: u32, own: Ipv4Addr) -> Self {
        let peer: SocketAddr = peer.parse().expect("peers tell addresses");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("there are descriptors");
        socket.bind(&SocketAddr::from((own, 0)).into()).expect("the namespace has this address");
        socket.connect(&peer.into()).expect("the peer listens");
        let info_hash = InfoHash::from_hex(info_hash).expect("40 hexadecimal digits");
        Self::introduce(socket.into(), info_hash, piece_count)
            .expect("the peer answers as BEP 3 and 10 have it")
    }

    fn introduce(mut stream: TcpStream, info_hash: InfoHash, piece_count: u32) -> io::Result<Self> {
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let peer_id = PeerId(*b"-XX0000-scriptedpeer");
        stream.write_all(&Handshake { reserved: Reserved::OURS, info_hash, peer_id }.encode())?;
        let mut answer = [0; HANDSHAKE_LEN];
        stream.read_exact(&mut answer)?;
        let answer = Handshake::decode(&answer).map_err(io::Error::other)?;
        if answer.info_hash != info_hash {
            return Err(io::Error::other("the peer speaks of another torrent"));
        }
        let decoder = Decoder::new(DecoderLimits::for_pieces(piece_count));
        let mut conversation =
            Self { stream, decoder, unread: Vec::new(), extensions: ExtensionHandshake::default() };
        let ours = ExtensionHandshake::default().encode();
        conversation
            .say(&[Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &ours }, Message::HaveNone])?;
        conversation.extensions = conversation.wait_for(|message| match message {
            Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload } => ExtensionHandshake::decode(payload),
            _ => None,
        })?;
        Ok(conversation)
    }

    fn say(&mut self, messages: &[Message<'_>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        self.stream.write_all(&bytes)
    }

    /// Reads on until a message gives what is wanted; the others are passed over.
    fn wait_for<T>(&mut self, wanted: impl Fn(&Message<'_>) -> Option<T>) -> io::Result<T> {
        loop {
            let mut input = &self.unread[..];
            while let Some(message) = self.decoder.decode(&mut input).map_err(io::Error::other)? {
                if let Some(found) = wanted(&message) {
                    self.unread = input.to_vec();
                    return Ok(found);
                }
            }
            self.unread.clear();
            let mut buffer = [0; 65_536];
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.unread.extend_from_slice(&buffer[..read]);
        }
    }
}

/// A peer that says it has everything and sends other bytes than were asked for. Dropping it ends its threads.
pub struct Liar {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    lies: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    /// Starts one as this participant. It waits for others to connect.
    pub fn start(participant: u8, info_hash: &str, piece_count: u32) -> Self {
        let listener =
            TcpListener::bind((address(participant), 0)).expect("an empty namespace has free ports");
        let address = listener.local_addr().expect("a listener has an address");
        let info_hash = InfoHash::from_hex(info_hash).expect("40 hexadecimal digits");
        let (over, lies) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = std::thread::spawn({
            let (over, lies) = (Arc::clone(&over), Arc::clone(&lies));
            move || {
                for stream in listener.incoming() {
                    if over.load(Relaxed) {
                        return;
                    }
                    let (Ok(stream), lies) = (stream, Arc::clone(&lies)) else { continue };
                    // Ends with the connection: whoever finds out closes it.
                    std::thread::spawn(move || lie(stream, info_hash, piece_count, &lies));
                }
            }
        });
        Self { address, over, lies, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Wrong blocks sent so far.
    pub fn lies(&self) -> u64 {
        self.lies.load(Relaxed)
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        // Wakes the thread from its accept.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers every request with wrong bytes until the other side has had enough.
fn lie(stream: TcpStream, info_hash: InfoHash, piece_count: u32, lies: &AtomicU64) -> io::Result<()> {
    let mut conversation = Conversation::introduce(stream, info_hash, piece_count)?;
    // It has said that it has nothing; now it has everything, piece by piece.
    let haves: Vec<Message<'_>> = (0..piece_count).map(|piece| Message::Have(PieceIndex(piece))).collect();
    conversation.say(&haves)?;
    conversation.say(&[Message::Unchoke])?;
    loop {
        let span: BlockSpan = conversation.wait_for(|message| match message {
            Message::Request(span) => Some(*span),
            _ => None,
        })?;
        conversation.say(&[Message::Piece(span)])?;
        conversation.stream.write_all(&vec![0xBA; span.len as usize])?;
        lies.fetch_add(1, Relaxed);
    }
}
