//! `seedring seed --json` says why a peer is not faster: it does not read, it is within a limit, it is choked, or its
//! blocks are not in memory.

use rustix::process::{Pid, Signal, kill_process};
use seedring::id::InfoHash;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Handshake, Message, Reserved, encode};
use serde_json::Value;
use socket2::{Domain, Socket, Type};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

const CONTENT_LEN: u32 = 16 << 20;
const PIECE_LEN: u32 = 256 << 10;
/// Seconds, each with a status, after which a test gives up.
const PATIENCE: usize = 60;
const SECOND: u64 = 1_000_000_000;

/// A seed as a process, and what it tells.
struct Seed {
    child: Child,
    events: Box<dyn Iterator<Item = Value>>,
    address: SocketAddr,
    info_hash: String,
}

impl Seed {
    fn start(folder: &Path, arguments: &[&str]) -> Self {
        let mut content = vec![0; CONTENT_LEN as usize];
        seedring::rng::Rng::from_seed(1).fill(&mut content);
        std::fs::write(folder.join("film"), content).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
        command.args(["seed", "film", "--bind", "127.0.0.1", "--port", "0", "--tracker-port", "0", "--json"]);
        command.args(["--workers", "1", "--no-pin", "--piece-length", "256KiB"]).args(arguments);
        command.arg("--state-dir").arg(folder.join("state")).current_dir(folder);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut events = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let started = events.find(|event| event["event"] == "started").expect("it starts");
        let address = started["peer_addresses"][0].as_str().expect("it listens").parse().unwrap();
        let info_hash = started["info_hash"].as_str().expect("it has one").to_owned();
        // The torrent is told before the workers have it, which they do by the next figures.
        events.find(|event| event["event"] == "status").expect("figures come each second");
        Self { child, events: Box::new(events), address, info_hash }
    }

    /// A peer that has joined and is interested, with a small receive buffer.
    fn join(&self, number: u8) -> Peer {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(64 << 10).unwrap();
        socket.connect(&self.address.into()).unwrap();
        let mut stream = TcpStream::from(socket);
        let info_hash = InfoHash::from_hex(&self.info_hash).expect("it is one");
        let mut peer_id = seedring::id::PeerId(*b"-XX0000-000000000000");
        peer_id.0[19] = number;
        let handshake = Handshake { reserved: Reserved::NONE, info_hash, peer_id };
        stream.write_all(&handshake.encode()).unwrap();
        stream.read_exact(&mut [0; 68]).unwrap();
        let peer = Peer(stream);
        peer.say(&[Message::Interested]);
        peer
    }

    /// Waits for a status of which `is_so` holds.
    fn wait_until(&mut self, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for event in self.events.by_ref().filter(|event| event["event"] == "status").take(PATIENCE) {
            if is_so(&event) {
                return event;
            }
            last = event;
        }
        panic!("it never came to that: {what}: {last}");
    }

    /// Waits until connections have waited for seconds, nearly all of them for this.
    fn wait_until_limited_by(&mut self, cause: &str) -> Value {
        self.wait_until(cause, |status| {
            let total: u64 = CAUSES.map(|cause| waited(status, cause)).iter().sum();
            let waited = waited(status, cause);
            waited > 3 * SECOND / 2 && waited > total / 10 * 7
        })
    }
}

const CAUSES: [&str; 6] = ["disk", "window", "choke", "limit", "cpu", "asking"];

fn waited(status: &Value, cause: &str) -> u64 {
    status["engine"][format!("waited_{cause}_nanos")].as_u64().expect("it is told")
}

impl Drop for Seed {
    fn drop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("our child may be signalled");
        self.child.wait().expect("it ends");
    }
}

struct Peer(TcpStream);

impl Peer {
    fn say(&self, messages: &[Message<'_>]) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        (&self.0).write_all(&bytes).unwrap();
    }

    /// Reads messages until the one that allows to ask.
    fn wait_for_unchoke(&mut self) {
        loop {
            let mut len = [0; 4];
            self.0.read_exact(&mut len).unwrap();
            let mut message = vec![0; u32::from_be_bytes(len) as usize];
            self.0.read_exact(&mut message).unwrap();
            if message == [1] {
                return;
            }
        }
    }

    fn ask_for_everything(&self) {
        let spans = (0..CONTENT_LEN).step_by(BLOCK_LEN as usize).map(|at| {
            let piece = PieceIndex(at / PIECE_LEN);
            Message::Request(BlockSpan { piece, begin: at % PIECE_LEN, len: BLOCK_LEN })
        });
        self.say(&spans.collect::<Vec<_>>());
    }
}

fn assert_torrent_tells_it_too(seed: &Seed, status: &Value, cause: &str) {
    let torrent = &status["busiest"][0];
    assert_eq!(torrent["info_hash"], seed.info_hash.as_str());
    assert_eq!(torrent["waited_nanos"][cause].as_u64(), Some(waited(status, cause)));
}

#[test]
fn a_peer_that_does_not_read_is_limited_by_its_window() {
    let folder = tempfile::tempdir().unwrap();
    let mut seed = Seed::start(folder.path(), &["--tcp-info"]);
    let mut peer = seed.join(1);
    peer.wait_for_unchoke();
    peer.ask_for_everything();
    let status = seed.wait_until_limited_by("window");
    assert_torrent_tells_it_too(&seed, &status, "window");
    // The kernel says the same.
    let tcp = |what: &str| status["engine"][format!("tcp_{what}_nanos")].as_u64().expect("it is told");
    assert!(tcp("peer_window") > 0 && tcp("peer_window") <= tcp("busy"), "{status}");
}

#[test]
fn a_peer_within_a_limit_is_limited_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut seed = Seed::start(folder.path(), &["--upload-limit", "100kB/s"]);
    let mut peer = seed.join(1);
    peer.wait_for_unchoke();
    peer.ask_for_everything();
    let mut reading = peer.0.try_clone().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
    let status = seed.wait_until_limited_by("limit");
    assert_torrent_tells_it_too(&seed, &status, "limit");
    drop(seed);
    // A reset or an end: the seed has gone.
    let _ = reader.join().unwrap();
}

#[test]
fn peers_without_a_slot_are_limited_by_the_choker() {
    let folder = tempfile::tempdir().unwrap();
    let mut seed = Seed::start(folder.path(), &["--upload-slots", "1"]);
    let peers: Vec<Peer> = (0..12).map(|number| seed.join(number)).collect();
    let status = seed.wait_until_limited_by("choke");
    assert_torrent_tells_it_too(&seed, &status, "choke");
    drop(peers);
}

#[test]
fn blocks_that_are_not_in_memory_are_told_as_the_disks() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut seed = Seed::start(folder.path(), &[]);
    let file = std::fs::File::open(folder.path().join("film")).unwrap();
    file.sync_all().unwrap();
    let mut peer = seed.join(1);
    peer.wait_for_unchoke();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    peer.ask_for_everything();
    let mut reading = peer.0.try_clone().unwrap();
    let reader = std::thread::spawn(move || std::io::copy(&mut reading, &mut std::io::sink()));
    let status = seed.wait_until("it reads from disk", |status| waited(status, "disk") > 0);
    let fetches = &status["histograms"]["cold_fetch_nanos"];
    assert!(
        fetches["count"].as_u64() > Some(0) && fetches["p50"].as_u64() <= fetches["p99"].as_u64(),
        "{fetches}"
    );
    let requests = &status["histograms"]["request_nanos"];
    assert!(requests["max"].as_u64() > Some(0), "{requests}");
    drop(seed);
    // A reset or an end: the seed has gone.
    let _ = reader.join().unwrap();
}
