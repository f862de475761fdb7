//! Strangers at full speed for twenty seconds each, against a process of two workers: it takes no more memory for any of
//! them than 64 MiB, and serves an honest peer meanwhile. So does a tracker.

mod getting;

use getting::{Album, Run};
use seedring::bencode;
use seedring::id::{InfoHash, PeerId};
use seedring::rng::Rng;
use seedring::time::Duration;
use seedring::units::PieceIndex;
use seedring::wire::{Answering, CryptoMethods, Handshake, Message, MseStream, Reserved, encode};
use socket2::{Domain, Socket, Type};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{JoinHandle, park_timeout};

/// Time that each of them has.
const FLOOD_TIME: Duration = Duration::from_secs(20);
/// Bytes of memory that the process may take meanwhile.
const GROWTH_MAX: u64 = 64 << 20;
const PIECE_LEN: usize = 16 * 1024;

/// A torrent of 2,048 pieces.
fn album() -> Album {
    Album::new(5, PIECE_LEN, &[("a", 20 << 20), ("b", 12 << 20)])
}

/// A `seedring` of this build on loopback, two workers, any port.
fn seedring(command: &str) -> Command {
    let mut seedring = Command::new(env!("CARGO_BIN_EXE_seedring"));
    seedring.arg(command).stdin(Stdio::null());
    seedring.args(["--bind", "127.0.0.1", "--port", "0", "--workers", "2", "--no-pin", "--json"]);
    seedring
}

/// Seeds the album.
fn seed(album: &Album) -> Run {
    let mut command = seedring("seed");
    command.arg(album.path("album.torrent")).arg("--data").arg(album.path("seeded"));
    command.args(["--tracker-port", "0", "--upload-slots", "1000"]);
    let mut run = Run::start(command.arg("--state-dir").arg(album.path("state-of-seed")));
    run.started();
    run
}

/// Downloads the album, below `name`, from these.
fn get(album: &Album, name: &str, from: &[SocketAddr]) -> Command {
    let mut command = seedring("get");
    command.arg(album.path("album.torrent")).arg("-o").arg(album.path(name).join("out"));
    command.arg("--state-dir").arg(album.path(name).join("state"));
    for address in from {
        command.args(["--peer", &address.to_string()]);
    }
    command
}

/// Downloads the album as an honest peer does.
fn be_honest(album: &Album, name: &str, from: SocketAddr) {
    let (status, heard, said) = Run::start(&mut get(album, name, &[from])).ended();
    assert!(status.success(), "{name}: {said} {:?}", heard.last());
    album.assert_downloaded(&album.path(name).join("out"), |_| true);
}

/// Anonymous memory of a process, in bytes.
fn memory_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("the kernel tells it");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    kib * 1024
}

/// The peer wire's form of some messages.
fn bytes_of(messages: &[Message<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    messages.iter().for_each(|message| encode(message, &mut bytes));
    bytes
}

/// Strangers, each on a thread of its own, until they are told to end.
struct Strangers {
    stop: Arc<AtomicBool>,
    /// Bytes that they could say, and times that they came.
    said: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

/// What one of them has.
#[derive(Clone)]
struct Stranger {
    number: u64,
    stop: Arc<AtomicBool>,
    said: Arc<AtomicU64>,
    handshake: [u8; 68],
}

impl Strangers {
    /// So many, each of which does `deed` again and again.
    fn start(album: &Album, count: u64, deed: impl Fn(&Stranger) + Send + Sync + 'static) -> Self {
        let (stop, said) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let deed = Arc::new(deed);
        let threads = (0..count)
            .map(|number| {
                let mut peer_id = PeerId(*b"-XX0000-stranger0000");
                peer_id.0[16..].copy_from_slice(format!("{number:04}").as_bytes());
                let info_hash = album.metainfo.info_hash();
                let handshake = Handshake { reserved: Reserved::OURS, info_hash, peer_id }.encode();
                let stranger =
                    Stranger { number, stop: Arc::clone(&stop), said: Arc::clone(&said), handshake };
                let deed = Arc::clone(&deed);
                std::thread::spawn(move || {
                    while stranger.goes_on() {
                        deed(&stranger);
                    }
                })
            })
            .collect();
        Self { stop, said, threads }
    }

    /// Lets them do it for their time; what the process has taken at most, which is no more than it may.
    fn watch(&self, what: &str, process: u32, before: u64, growth_max: u64) {
        let end = seedring::clock::now() + FLOOD_TIME;
        let mut most = 0;
        while seedring::clock::now() < end {
            most = most.max(memory_of(process));
            assert!(
                most <= before + growth_max,
                "{what}: {} MiB before, {} MiB after {} bytes",
                before >> 20,
                most >> 20,
                self.said.load(Relaxed)
            );
            park_timeout(Duration::from_millis(50));
        }
        assert!(self.said.load(Relaxed) > 0, "{what}: nobody could say anything");
        println!(
            "{what}: {} KiB before, {} KiB at most, {} said",
            before >> 10,
            most >> 10,
            self.said.load(Relaxed)
        );
    }
}

impl Drop for Strangers {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| {
            let _ = thread.join();
        });
    }
}

impl Stranger {
    fn goes_on(&self) -> bool {
        !self.stop.load(Relaxed)
    }

    /// A connection that has said hello; none when it is refused.
    fn dial(&self, address: SocketAddr) -> Option<TcpStream> {
        let stream = TcpStream::connect(address).ok()?;
        self.greet(stream)
    }

    /// Says hello on a connection.
    fn greet(&self, mut stream: TcpStream) -> Option<TcpStream> {
        let moment = Some(std::time::Duration::from_millis(100));
        stream.set_write_timeout(moment).ok()?;
        stream.set_read_timeout(moment).ok()?;
        stream.write_all(&self.handshake).ok()?;
        self.said.fetch_add(68, Relaxed);
        Some(stream)
    }

    /// Says the same for ever, and takes in whatever is answered; until the other end has had enough.
    fn flood(&self, stream: &mut TcpStream, bytes: &[u8]) {
        let mut answer = vec![0; 65_536];
        let mut rest = bytes;
        let _ = stream.set_nonblocking(true);
        while self.goes_on() {
            let mut moved = false;
            match stream.write(rest) {
                Ok(0) => return,
                Ok(len) => {
                    self.said.fetch_add(len as u64, Relaxed);
                    rest = &rest[len..];
                    rest = if rest.is_empty() { bytes } else { rest };
                    moved = true;
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            match stream.read(&mut answer) {
                Ok(0) => return,
                Ok(_) => moved = true,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
            if !moved {
                park_timeout(Duration::from_millis(1));
            }
        }
    }
}

/// So many strangers each say `first`, and then `again` for ever, to a seed.
fn flood_a_seed(what: &str, strangers: u64, first: &[Message<'_>], again: &[Message<'_>]) {
    let (first, again) = (bytes_of(first), bytes_of(again));
    attack_a_seed(what, strangers, move |stranger, seed| {
        let Some(mut stream) = stranger.dial(seed) else { return };
        if stream.write_all(&first).is_ok() {
            stranger.flood(&mut stream, &again);
        }
    });
}

/// So many strangers do this to a seed, and its memory is watched.
fn watch_a_seed(
    what: &str,
    strangers: u64,
    deed: impl Fn(&Stranger, SocketAddr) + Send + Sync + 'static,
) -> (Album, Run, Strangers) {
    let album = album();
    let seed = seed(&album);
    let address = seed.address();
    be_honest(&album, "before", address);
    let before = memory_of(seed.id());
    let strangers = Strangers::start(&album, strangers, move |stranger| deed(stranger, address));
    strangers.watch(what, seed.id(), before, GROWTH_MAX);
    (album, seed, strangers)
}

/// So many strangers do this to a seed, which serves an honest peer meanwhile.
fn attack_a_seed(what: &str, strangers: u64, deed: impl Fn(&Stranger, SocketAddr) + Send + Sync + 'static) {
    let (album, seed, _strangers) = watch_a_seed(what, strangers, deed);
    be_honest(&album, "beside", seed.address());
}

#[test]
fn extension_handshakes_without_end_take_no_memory() {
    let hello = |port| {
        let mut dictionary = Vec::new();
        dictionary.extend_from_slice(&bencode::dict(|dict| dict.int("p", port)));
        dictionary
    };
    let told: Vec<Vec<u8>> = std::iter::once(b"de".to_vec()).chain((1..64).map(hello)).collect();
    let again: Vec<_> =
        told.iter().cycle().take(4096).map(|payload| Message::Extended { id: 0, payload }).collect();
    flood_a_seed("extension handshakes", 4, &[], &again);
}

#[test]
fn interest_that_flips_without_end_takes_no_memory() {
    let again = [Message::Interested, Message::NotInterested].repeat(4096);
    flood_a_seed("interest", 4, &[Message::HaveNone], &again);
}

#[test]
fn pieces_that_are_had_and_lost_without_end_take_no_memory() {
    let mut again = Vec::new();
    let lost: Vec<[u8; 4]> = (0..2048_u32).map(u32::to_be_bytes).collect();
    for (piece, payload) in (0..).zip(&lost) {
        again.push(Message::Have(PieceIndex(piece)));
        again.push(Message::Extended { id: 3, payload });
        again.push(Message::Extended { id: 4, payload });
    }
    flood_a_seed("lost pieces", 8, &[Message::HaveNone], &again);
}

#[test]
fn requests_and_cancels_without_end_take_no_memory() {
    let spans = (0..2048).map(|piece| seedring::units::BlockSpan {
        piece: PieceIndex(piece),
        begin: 0,
        len: PIECE_LEN as u32,
    });
    let again: Vec<_> = spans.flat_map(|span| [Message::Request(span), Message::Cancel(span)]).collect();
    flood_a_seed("requests", 8, &[Message::HaveNone, Message::Interested], &again);
}

#[test]
fn key_exchanges_without_end_take_no_memory() {
    attack_a_seed("key exchanges", 8, |stranger, seed| {
        let Ok(mut stream) = TcpStream::connect(seed) else { return };
        let mut noise = [0; 96];
        Rng::from_seed(stranger.said.load(Relaxed) + stranger.number).fill(&mut noise);
        let moment = Some(std::time::Duration::from_millis(20));
        let _ = stream.set_read_timeout(moment);
        let _ = stream.write_all(&noise);
        let _ = stream.read(&mut [0; 700]);
        stranger.said.fetch_add(96, Relaxed);
    });
}

/// How long an honest peer stands in line beside them is asked where time is simulated: here all come from one prefix.
#[test]
fn peers_that_hold_slots_and_never_ask_take_no_memory() {
    watch_a_seed("slots", 100, |stranger, seed| {
        let Some(mut stream) = stranger.dial(seed) else {
            return park_timeout(std::time::Duration::from_millis(50));
        };
        if stream.write_all(&bytes_of(&[Message::HaveNone, Message::Interested])).is_ok() {
            stranger.flood(&mut stream, &bytes_of(&[Message::KeepAlive]));
        }
    });
}

/// Asks in three ways for what has to be made in memory, reads nothing, and comes again when it is closed: blocks in RC4, pieces
/// of the info dictionary, and blocks in an order that makes a long list of them.
fn ask_and_read_nothing(stranger: &Stranger, seed: SocketAddr, place: u64) -> Option<TcpStream> {
    // Each four of them have a network of their own.
    let from = SocketAddr::from(([127, 1, (place / 4) as u8, 1], 0));
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.bind(&from.into()).ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.connect(&seed.into()).ok()?;
    let mut stream = TcpStream::from(socket);
    let _ = stream.set_read_timeout(Some(std::time::Duration::from_millis(500)));
    let _ = stream.set_write_timeout(Some(std::time::Duration::from_millis(100)));
    let mut handshake = stranger.handshake;
    handshake[60..].copy_from_slice(&(place << 32 | stranger.said.load(Relaxed)).to_be_bytes());
    let mut asked = bytes_of(&[Message::HaveNone, Message::Interested]);
    let block = |number: u32| {
        let piece = PieceIndex(number % 2048);
        Message::Request(seedring::units::BlockSpan { piece, begin: 0, len: PIECE_LEN as u32 })
    };
    let encrypts = place.is_multiple_of(2);
    match place % 4 {
        _ if encrypts => {
            let mut pads = Rng::from_seed(place);
            let info_hash = InfoHash(handshake[28..48].try_into().expect("twenty bytes"));
            let mut encryption =
                MseStream::outgoing([3; 20], &mut pads, info_hash, CryptoMethods::RC4, &handshake);
            let (mut answer, mut heard) = ([0; 4096], Vec::new());
            while !encryption.is_open() {
                heard.clear();
                encryption.poll_output(&mut heard);
                stream.write_all(&heard).ok()?;
                let len = stream.read(&mut answer).ok().filter(|&len| len > 0)?;
                let nobody = BTreeMap::new();
                let mut answering = Answering { secret: || [4; 20], pads: &mut pads, skeys: &nobody };
                encryption.receive(&mut answer[..len], &mut answering).ok()?;
            }
            (0..900).for_each(|number| asked.extend(bytes_of(&[block(number)])));
            encryption.encrypt(&mut asked);
        }
        1 => {
            asked.extend_from_slice(&handshake_of_extensions());
            (0..3).for_each(|piece| {
                let payload = format!("d8:msg_typei0e5:piecei{piece}ee");
                asked.extend(bytes_of(&[Message::Extended { id: 2, payload: payload.as_bytes() }]));
            });
            (0..900).for_each(|number| asked.extend(bytes_of(&[block(number)])));
            stream.write_all(&handshake).ok()?;
        }
        _ => {
            // Without the fast extension (BEP 6).
            handshake[27] = 0;
            asked = bytes_of(&[Message::Interested]);
            stream.write_all(&handshake).ok()?;
            stream.write_all(&asked).ok()?;
            // It is to be unchoked when it asks.
            park_timeout(std::time::Duration::from_millis(200));
            asked = bytes_of(&(0..8000).map(|number| block(number * 7)).collect::<Vec<_>>());
        }
    }
    if encrypts {
        park_timeout(std::time::Duration::from_millis(50));
    }
    stream.write_all(&asked).ok()?;
    stranger.said.fetch_add(asked.len() as u64, Relaxed);
    Some(stream)
}

/// Our own numbers of extended messages, so that pieces of the info dictionary are sent at all.
fn handshake_of_extensions() -> Vec<u8> {
    bytes_of(&[Message::Extended { id: 0, payload: b"d1:md11:ut_metadatai2eee" }])
}

#[test]
fn peers_that_ask_for_much_and_read_nothing_take_no_memory() {
    const EACH: u64 = 80;
    attack_a_seed("unread answers", 6, |stranger, seed| {
        let mut unread: Vec<Option<TcpStream>> = (0..EACH).map(|_| None).collect();
        while stranger.goes_on() {
            for (place, connection) in unread.iter_mut().enumerate().filter(|_| stranger.goes_on()) {
                let ended = connection.as_ref().is_none_or(|stream| {
                    let _ = stream.set_nonblocking(true);
                    stream.take_error().ok().flatten().is_some()
                        || stream
                            .peek(&mut [0])
                            .is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
                });
                if ended {
                    *connection = ask_and_read_nothing(stranger, seed, stranger.number * EACH + place as u64);
                }
            }
            park_timeout(std::time::Duration::from_millis(20));
        }
    });
}

#[test]
fn connections_that_say_nothing_take_no_memory() {
    attack_a_seed("idle connections", 8, |stranger, seed| {
        let mut idle = Vec::new();
        while stranger.goes_on() {
            match TcpStream::connect(seed) {
                Ok(stream) if idle.len() < 200 => idle.push(stream),
                _ => idle.clear(),
            }
            stranger.said.fetch_add(1, Relaxed);
        }
    });
}

/// So many strangers that `get` dials do this to it, beside an honest seed.
fn attack_a_download(
    what: &str,
    strangers: u64,
    upload_limit: &str,
    deed: impl Fn(&Stranger, TcpStream) + Send + Sync + 'static,
) {
    let album = album();
    let seed = getting::seed(&album, upload_limit);
    let listeners: Vec<TcpListener> =
        (0..strangers).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port is free")).collect();
    let mut peers: Vec<SocketAddr> =
        listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
    for listener in &listeners {
        listener.set_nonblocking(true).expect("a listener may wait elsewhere");
    }
    peers.push(seed.address());
    let strangers = Strangers::start(&album, strangers, move |stranger| {
        let Ok((stream, _)) = listeners[stranger.number as usize].accept() else {
            return park_timeout(std::time::Duration::from_millis(5));
        };
        let _ = stream.set_nonblocking(false);
        if let Some(stream) = stranger.greet(stream) {
            deed(stranger, stream);
        }
    });
    let mut victim = Run::start(&mut get(&album, "beside", &peers));
    victim.started();
    let before = memory_of(victim.id());
    strangers.watch(what, victim.id(), before, GROWTH_MAX);
    let (status, heard, said) = victim.ended();
    assert!(status.success(), "{what}: {said} {:?}", heard.last());
    album.assert_downloaded(&album.path("beside/out"), |_| true);
}

#[test]
fn chokes_without_end_take_no_memory_of_a_download() {
    let again = bytes_of(&[Message::Unchoke, Message::Choke].repeat(4096));
    attack_a_download("chokes", 2, "1MB/s", move |stranger, mut stream| {
        if stream.write_all(&bytes_of(&[Message::HaveAll])).is_ok() {
            stranger.flood(&mut stream, &again);
        }
    });
}

#[test]
fn peer_exchange_without_end_takes_no_memory_of_a_download() {
    let exchange = |seed| {
        let mut added = [0; 300];
        Rng::from_seed(seed).fill(&mut added);
        bencode::dict(|dict| {
            dict.bytes("added", added);
        })
    };
    let payloads: Vec<Vec<u8>> = (0..500).map(exchange).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| Message::Extended { id: 1, payload }).collect();
    let again = bytes_of(&messages);
    attack_a_download("peer exchange", 2, "1MB/s", move |stranger, mut stream| {
        if stream.write_all(&bytes_of(&[Message::HaveAll])).is_ok() {
            stranger.flood(&mut stream, &again);
        }
    });
}

#[test]
fn haves_and_losses_without_end_take_no_memory_of_a_download() {
    let lost: Vec<[u8; 4]> = (0..2048_u32).map(u32::to_be_bytes).collect();
    let mut messages = Vec::new();
    for (piece, payload) in (0..).zip(&lost) {
        messages.push(Message::Have(PieceIndex(piece)));
        messages.extend((1..=4).map(|id| Message::Extended { id, payload }));
    }
    let again = bytes_of(&messages);
    attack_a_download("haves and losses", 4, "1MB/s", move |stranger, mut stream| {
        if stream.write_all(&bytes_of(&[Message::HaveNone, Message::Unchoke])).is_ok() {
            stranger.flood(&mut stream, &again);
        }
    });
}

#[test]
fn peers_that_promise_and_give_nothing_take_no_memory_of_a_download() {
    attack_a_download("promises", 20, "1MB/s", |stranger, mut stream| {
        if stream.write_all(&bytes_of(&[Message::HaveAll, Message::Unchoke])).is_err() {
            return;
        }
        let (end, mut asked) = (seedring::clock::now() + Duration::from_secs(2), [0; 65_536]);
        while stranger.goes_on() && seedring::clock::now() < end {
            if matches!(stream.read(&mut asked), Ok(0)) {
                return;
            }
        }
    });
}

#[test]
fn announces_of_torrents_that_nobody_has_take_no_memory_of_a_tracker() {
    let album = album();
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    command.args(["tracker", "--http", "none", "--udp", "127.0.0.1:0", "--json"]).stdin(Stdio::null());
    let mut tracker = Run::start(&mut command);
    let listening = tracker.wait_for("listening");
    let address: SocketAddr =
        listening["address"].as_str().unwrap_or_else(|| panic!("{listening}")).parse().expect("an address");
    let before = memory_of(tracker.id());
    let strangers = Strangers::start(&album, 2, move |stranger| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket.connect(address).expect("loopback is there");
        let _ = socket.set_read_timeout(Some(std::time::Duration::from_millis(200)));
        let mut hello = 0x0417_2710_1980_u64.to_be_bytes().to_vec();
        hello.extend_from_slice(&[0; 8]);
        let mut answer = [0; 2048];
        if socket.send(&hello).is_err() || socket.recv(&mut answer).is_err() {
            return;
        }
        let mut announce = [0; 98];
        announce[..8].copy_from_slice(&answer[8..16]);
        announce[11] = 1;
        announce[96..].copy_from_slice(&7001_u16.to_be_bytes());
        let mut rng = Rng::from_seed(stranger.number + 1);
        for turn in 0..5_000_000 {
            if !stranger.goes_on() {
                return;
            }
            rng.fill(&mut announce[16..56]);
            if socket.send(&announce).is_ok() {
                stranger.said.fetch_add(98, Relaxed);
            }
            // Now and then it hears an answer, so that the tracker is not just skipped.
            if turn % 64 == 63 {
                let _ = socket.recv(&mut answer);
            }
        }
    });
    strangers.watch("announces", tracker.id(), before, GROWTH_MAX);
}
