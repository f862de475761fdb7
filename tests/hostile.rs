//! A seed among enemies, on real sockets: each of them gets a reject, silence or the end of its connection, and
//! after each of them an honest peer of the same engine still gets everything, byte for byte.

mod support;

use seedring::engine::{EngineConfig, EngineEvent, SharedTorrent};
use seedring::id::{InfoHash, PeerId};
use seedring::limits::{
    REJECTS_MAX, REQUEST_LEN_MAX, REQUEST_RUNS_MAX, REQUESTS_QUEUED_MAX, REQUESTS_WHILE_CHOKED_MAX,
};
use seedring::storage::{Content, raise_file_limit};
use seedring::time::Duration;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Encryption, Handshake, Message, Reserved, encode};
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use support::{Leech, PIECE, Rig, assert_ended, bytes_of};

const FAST: Reserved = Reserved([0, 0, 0, 0, 0, 0, 0, 0x04]);
const PLAIN: Reserved = Reserved::NONE;
/// Pieces of the torrent under attack.
const PIECES: u32 = 5;

struct Scene {
    rig: Rig,
    torrent: Arc<SharedTorrent<Content>>,
    content: Vec<u8>,
    _folder: tempfile::TempDir,
}

impl Scene {
    fn new() -> Self {
        Self::with(Encryption::Allow)
    }

    fn with(encryption: Encryption) -> Self {
        let rig = Rig::start_with(EngineConfig { encryption, ..EngineConfig::default() });
        let folder = tempfile::tempdir().unwrap();
        let content = bytes_of(7, PIECE as usize * (PIECES as usize - 1) + 100_000);
        let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([7; 20]));
        Self { rig, torrent, content, _folder: folder }
    }

    fn introduced(&self, reserved: Reserved) -> Leech {
        Leech::introduced(self.rig.dial(), &self.torrent, reserved)
    }

    fn unchoked(&self, reserved: Reserved) -> Leech {
        let mut leech = self.introduced(reserved);
        leech.say(&[Message::Interested]);
        leech.wait_for(|message| *message == Message::Unchoke);
        leech
    }

    fn assert_serves(&self) {
        self.rig.assert_serves(&self.torrent, &self.content);
    }
}

fn request(piece: u32, begin: u32, len: u32) -> BlockSpan {
    BlockSpan { piece: PieceIndex(piece), begin, len }
}

fn bad_requests() -> [BlockSpan; 10] {
    [
        request(PIECES, 0, BLOCK_LEN),
        request(u32::MAX, 0, BLOCK_LEN),
        request(0, PIECE - BLOCK_LEN, BLOCK_LEN + 1),
        request(0, PIECE, BLOCK_LEN),
        request(PIECES - 1, 98_304, BLOCK_LEN),
        request(0, 0, 0),
        request(0, 0, REQUEST_LEN_MAX + 1),
        request(0, 0, u32::MAX),
        request(0, 1, BLOCK_LEN),
        request(0, !(BLOCK_LEN - 1), u32::MAX),
    ]
}

/// What ends a connection, by name: after a handshake with these extensions, these bytes.
fn fatal() -> Vec<(String, Reserved, Vec<u8>)> {
    let mut cases = Vec::new();
    let mut case = |name: &str, reserved, messages: &[Message<'_>]| {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| encode(message, &mut bytes));
        cases.push((name.to_owned(), reserved, bytes));
    };
    let none = Message::Bitfield(&[0]);
    let out = PieceIndex(PIECES);
    case("a short bitfield", PLAIN, &[Message::Bitfield(&[])]);
    case("a long bitfield", PLAIN, &[Message::Bitfield(&[0; 300])]);
    case("spare bits", PLAIN, &[Message::Bitfield(&[0x01])]);
    case("two bitfields", PLAIN, &[none, none]);
    case("a bitfield after a have", PLAIN, &[Message::Have(PieceIndex(0)), none]);
    case("have none after a have", FAST, &[Message::Have(PieceIndex(0)), Message::HaveNone]);
    case("a have out of range", PLAIN, &[Message::Have(out)]);
    case("a suggestion out of range", FAST, &[Message::Suggest(out)]);
    case("an allowed-fast piece out of range", FAST, &[Message::AllowedFast(out)]);
    case("an unwanted block", PLAIN, &[Message::Piece(request(0, 0, BLOCK_LEN))]);
    case("have none without agreement", PLAIN, &[Message::HaveNone]);
    case("a reject without agreement", PLAIN, &[Message::Reject(request(0, 0, BLOCK_LEN))]);
    for span in bad_requests() {
        case(&format!("a request for {span} without rejects"), PLAIN, &[Message::Request(span)]);
        case(
            &format!("no end of requests for {span}"),
            FAST,
            &[Message::Request(span); REJECTS_MAX as usize + 1],
        );
    }
    let flood = vec![Message::Request(request(0, 0, BLOCK_LEN)); REQUESTS_WHILE_CHOKED_MAX as usize + 1];
    case("a flood of requests while choked", PLAIN, &flood);
    for id in (0..=21).chain([99, 255]) {
        cases.push((format!("4 GiB of message {id}"), FAST, vec![0xff, 0xff, 0xff, 0xff, id]));
        cases.push((format!("a wrong length of message {id}"), FAST, vec![0, 0x20, 0, 0, id]));
    }
    cases
}

#[test]
fn whoever_breaks_the_protocol_is_alone_with_the_damage() {
    let scene = Scene::new();
    for (name, reserved, bytes) in fatal() {
        let mut enemy = scene.introduced(reserved);
        // It may be gone before it has said everything.
        let _ = enemy.stream.write_all(&bytes);
        enemy.assert_ended(&name);
    }
    scene.assert_serves();
    let faults: u64 = scene.rig.engine.statistics().iter().map(|worker| worker.peer_faults).sum();
    assert_eq!(faults, fatal().len() as u64);
}

#[test]
fn other_protocols_and_other_torrents_are_answered_with_silence_and_the_end() {
    // Where encrypted handshakes are taken, any bytes might begin one, and silence lasts until the handshake's time is up.
    let scene = Scene::with(Encryption::Off);
    let stranger = Handshake { reserved: FAST, info_hash: InfoHash([8; 20]), peer_id: PeerId([1; 20]) };
    let ourselves =
        Handshake { info_hash: scene.torrent.facts.info_hash, peer_id: scene.torrent.peer_id, ..stranger };
    let handshakes = [stranger.encode(), ourselves.encode()];
    for words in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", &[0xff; 68], &handshakes[0], &handshakes[1]]
    {
        let mut stream = scene.rig.dial();
        let _ = stream.write_all(words);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert_eq!(answer, b"");
    }
    scene.assert_serves();
}

#[test]
fn noise_in_place_of_an_encrypted_handshake_is_answered_with_one_key_at_most_and_the_end() {
    let scene = Scene::new();
    let mut one = vec![0; 96];
    one[95] = 1;
    let mut cases: Vec<Vec<u8>> =
        vec![vec![0; 96], one, vec![0xff; 96], vec![0; 4096], b"GET / ".repeat(200)];
    cases.extend((1..20).map(|seed| bytes_of(seed, 628 + 100 * seed as usize)));
    for noise in &cases {
        let mut stream = scene.rig.dial();
        // It may be gone before everything is said.
        let _ = stream.write_all(noise);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || (96..=608).contains(&answer.len()), "{} bytes", answer.len());
    }
    scene.rig.wait_until("every fault is counted", |rig| {
        rig.engine.statistics().iter().map(|worker| worker.peer_faults).sum::<u64>() == cases.len() as u64
    });
    scene.assert_serves();
}

#[test]
fn a_seed_that_requires_encryption_tells_a_plaintext_peer_nothing() {
    let scene = Scene::with(Encryption::Require);
    let mut stream = scene.rig.dial();
    let info_hash = scene.torrent.facts.info_hash;
    let handshake = Handshake { reserved: FAST, info_hash, peer_id: PeerId([1; 20]) };
    let _ = stream.write_all(&handshake.encode());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
}

#[test]
fn a_bad_request_is_rejected_and_the_next_good_one_served() {
    let scene = Scene::new();
    let mut enemy = scene.unchoked(FAST);
    for span in bad_requests() {
        enemy.say(&[Message::Request(span)]);
        enemy.wait_for(|message| *message == Message::Reject(span));
    }
    assert!(enemy.download(&scene.torrent) == scene.content);
    scene.assert_serves();
}

#[test]
fn cancels_of_anything_at_any_time_are_harmless() {
    let scene = Scene::new();
    let mut enemy = scene.unchoked(FAST);
    let cancels: Vec<_> = bad_requests().into_iter().map(Message::Cancel).collect();
    for begin in (0..PIECE).step_by(BLOCK_LEN as usize) {
        let span = request(0, begin, BLOCK_LEN);
        enemy.say(&[&cancels[..], &[Message::Cancel(span), Message::Request(span)]].concat());
        enemy.say(&[Message::Cancel(span), Message::Cancel(span)]);
    }
    // Of each request one answer: its block or a reject. Both kinds of peers remain in step afterwards.
    let mut answers = 0;
    while answers < PIECE / BLOCK_LEN {
        answers += u32::from(enemy.skip_to_answer());
    }
    assert!(enemy.download(&scene.torrent) == scene.content);
    scene.assert_serves();
}

#[test]
fn flipping_interest_and_garbage_in_extensions_disturb_nobody() {
    let scene = Scene::new();
    let mut enemy = scene.unchoked(Reserved::OURS);
    let flips = [Message::NotInterested, Message::Interested].repeat(50_000);
    enemy.say(&flips);
    let garbage: [&[u8]; 6] = [
        b"",
        b"d1:md6:ut_pexi256e11:ut_metadatai-1eee",
        b"d4:reqqi-1e1:v4:\xff\xfe\x1b[e",
        b"d13:metadata_sizei99999999999ee",
        b"d99999999999:",
        &[b'l'; 16_000],
    ];
    for payload in garbage {
        enemy.say(&[Message::Extended { id: 0, payload }, Message::Extended { id: 3, payload }]);
    }
    assert!(enemy.download(&scene.torrent) == scene.content);
    scene.assert_serves();
}

#[test]
fn thousands_who_say_nothing_and_hundreds_who_read_nothing_stop_nobody() {
    raise_file_limit().unwrap();
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let content = bytes_of(8, 24 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([8; 20]));
    let mut greedy: Vec<Leech> = (0..200).map(|_| Leech::join(&rig, &torrent)).collect();
    let blocks = torrent.facts.total_len.div_ceil(u64::from(BLOCK_LEN)) as usize;
    let everything: Vec<_> = (0..blocks.min(REQUESTS_QUEUED_MAX) as u32)
        .map(|number| number * BLOCK_LEN)
        .map(|at| Message::Request(request(at / PIECE, at % PIECE, BLOCK_LEN)))
        .collect();
    greedy.iter_mut().for_each(|leech| leech.say(&everything));
    let mut silent: Vec<_> = (0..2000).map(|_| rig.dial()).collect();
    for (number, stream) in silent.iter_mut().enumerate() {
        stream.write_all(&b"\x13BitTorrent protocol"[..number % 20]).unwrap();
    }
    // A drop from each, so that every send in flight moves a little while the honest ones are served.
    let mut drop = [0];
    greedy.iter_mut().for_each(|leech| leech.stream.read_exact(&mut drop).unwrap());
    let before = rig.payload_sent();
    for _ in 0..3 {
        rig.assert_serves(&torrent, &content);
        greedy.iter_mut().for_each(|leech| leech.stream.read_exact(&mut drop).unwrap());
    }
    let served = 3 * content.len() as u64;
    rig.wait_until("what was received is counted", |rig| rig.payload_sent() - before >= served);
    let refused: u64 = rig.engine.statistics().iter().map(|worker| worker.refused).sum();
    assert_eq!(refused, 0);
    // Their time is up sooner or later, and nothing of them remains.
    silent.iter_mut().for_each(|stream| assert_ended(stream, "a handshake that never ends"));
    rig.assert_serves(&torrent, &content);
    let half_open = |rig: &Rig| rig.engine.statistics().iter().map(|worker| worker.half_open).sum::<u64>();
    rig.wait_until("nobody is half open", |rig| half_open(rig) == 0);
    // The greedy are still connected: they are slow, not at fault.
    greedy.iter_mut().for_each(|leech| leech.stream.read_exact(&mut drop).unwrap());
}

#[test]
fn requests_beyond_the_announced_queue_end_the_connection() {
    let scene = Scene::new();
    let mut enemy = scene.unchoked(PLAIN);
    let flood = vec![Message::Request(request(0, 0, REQUEST_LEN_MAX)); REQUEST_RUNS_MAX + 1000];
    let mut bytes = Vec::new();
    flood.iter().for_each(|message| encode(message, &mut bytes));
    let _ = enemy.stream.write_all(&bytes);
    enemy.assert_ended("1 GB asked for at once");
    scene.assert_serves();
}

fn turn_into_fifo(path: &Path) {
    std::fs::remove_file(path).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
}

#[test]
fn whatever_becomes_of_a_file_stops_only_its_own_torrent() {
    type Damage = (&'static str, fn(&Path));
    let damages: [Damage; 6] = [
        ("deleted", |path| std::fs::remove_file(path).unwrap()),
        ("replaced", |path| {
            let other = path.with_extension("new");
            std::fs::copy(path, &other).unwrap();
            std::fs::rename(other, path).unwrap();
        }),
        ("truncated", |path| {
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(100).unwrap();
        }),
        ("emptied", |path| drop(std::fs::File::create(path).unwrap())),
        ("a fifo", turn_into_fifo),
        ("a directory", |path| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    let scene = Scene::new();
    for (number, (name, damage)) in damages.into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let info_hash = InfoHash([100 + number as u8; 20]);
        let content = bytes_of(number as u64, PIECE as usize);
        let victim = scene.rig.seed(folder.path(), &[("file", &content)], info_hash);
        let mut leech = Leech::join(&scene.rig, &victim);
        assert!(leech.download(&victim) == content);
        let opened = victim.content.always_open().unwrap();
        assert_eq!(opened.verify_files(), Ok(()), "before it was {name}");
        damage(&folder.path().join("file"));
        let fault = opened.verify_files().expect_err(name);
        opened.fail(fault);
        leech.say(&[Message::Request(request(0, 0, BLOCK_LEN))]);
        leech.assert_ended(name);
        let event = scene.rig.events.recv_timeout(Duration::from_secs(20)).unwrap();
        let EngineEvent::TorrentFailed { torrent, reason } = event else { panic!("{event:?}") };
        assert_eq!(torrent, info_hash);
        assert!(reason.contains("file"), "{name}: {reason}");
        scene.assert_serves();
    }
}
