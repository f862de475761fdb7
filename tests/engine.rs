//! The engine on real sockets: blocks arrive byte for byte, warm and cold, and a file that fails takes its
//! own torrent down and nothing else.

mod support;

use seedring::engine::{EngineConfig, EngineEvent, ZeroCopyMode};
use seedring::id::{InfoHash, PeerId};
use seedring::time::Duration;
use seedring::units::{BLOCK_LEN, BlockSpan, PieceIndex};
use seedring::wire::{Handshake, Message, Reserved};
use std::io::{Read, Write};
use std::net::TcpStream;
use support::{Leech, Rig, bytes_of};

#[test]
fn serves_blocks_across_file_borders_byte_for_byte() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let (one, two) = (bytes_of(1, 700_001), bytes_of(2, 1_000_003));
    let torrent = rig.seed(folder.path(), &[("one", &one), ("empty", &[]), ("two", &two)], InfoHash([1; 20]));
    let mut leeches: Vec<Leech> = (0..5).map(|_| Leech::join(&rig, &torrent)).collect();
    for leech in &mut leeches {
        assert!(leech.download(&torrent) == [&one[..], &two].concat());
    }
    rig.wait_until("everything sent is counted", |rig| rig.payload_sent() >= 5 * 1_700_004);
    assert_eq!(rig.payload_sent(), 5 * 1_700_004);
}

#[test]
fn what_was_sent_before_we_part_arrives_although_the_peer_talks_on() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let content = bytes_of(7, 16 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([7; 20]));
    let mut leech = Leech::join(&rig, &torrent);
    let spans: Vec<BlockSpan> = (0..content.len() as u32 / BLOCK_LEN)
        .map(|block| {
            let (piece, begin) = (block * BLOCK_LEN / support::PIECE, block * BLOCK_LEN % support::PIECE);
            BlockSpan { piece: PieceIndex(piece), begin, len: BLOCK_LEN }
        })
        .take(40)
        .collect();
    // Less than the kernel keeps for one socket, and nothing of it is read.
    leech.ask(&spans);
    let asked = u64::from(BLOCK_LEN) * 40;
    rig.wait_until("it is sent", |rig| rig.payload_sent() >= asked);
    rig.engine.remove(torrent.facts.info_hash);
    let mut talking = leech.stream.try_clone().unwrap();
    // Until the other end is closed.
    let talks = std::thread::spawn(move || while talking.write_all(&[0; 4]).is_ok() {});
    let mut arrived = Vec::new();
    leech.take(&spans, &mut arrived);
    assert!(arrived == content[..asked as usize]);
    drop(leech);
    drop(rig);
    talks.join().unwrap();
}

#[test]
fn cold_content_is_fetched_before_a_send_touches_it() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap());
    let content = bytes_of(3, 16 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([2; 20]));
    let file = std::fs::File::open(folder.path().join("file")).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
    assert!(Leech::join(&rig, &torrent).download(&torrent) == content);
    let statistics = rig.engine.stop();
    assert_eq!(statistics.iter().map(|worker| worker.major_faults).sum::<u64>(), 0);
    assert!(statistics.iter().map(|worker| worker.cold_fetches).sum::<u64>() > 0, "nothing was cold");
}

#[test]
fn zero_copy_sends_arrive_whole_and_the_kernel_says_that_loopback_copied_them() {
    let config = EngineConfig { zero_copy: ZeroCopyMode::Always, ..EngineConfig::default() };
    let (rig, folder) = (Rig::start_with(config), tempfile::tempdir().unwrap());
    let content = bytes_of(6, 8 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([6; 20]));
    let mut leeches: Vec<Leech> = (0..3).map(|_| Leech::join(&rig, &torrent)).collect();
    for leech in &mut leeches {
        assert!(leech.download(&torrent) == content);
    }
    let statistics = rig.engine.stop();
    let sends: u64 = statistics.iter().map(|worker| worker.zero_copy_sends).sum();
    let copied: u64 = statistics.iter().map(|worker| worker.zero_copy_copied).sum();
    assert!(sends > 0 && copied > 0, "{copied} of {sends} copied");
}

#[test]
fn auto_never_tries_zero_copy_on_loopback() {
    let (rig, folder) = (Rig::start(), tempfile::tempdir().unwrap());
    let content = bytes_of(7, 4 << 20);
    let torrent = rig.seed(folder.path(), &[("file", &content)], InfoHash([7; 20]));
    rig.assert_serves(&torrent, &content);
    assert!(rig.engine.stop().iter().all(|worker| worker.zero_copy_sends == 0));
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

/// While another process may take the port between two looks at it, a port that nobody has is free at once.
#[test]
fn a_port_is_free_as_soon_as_its_engine_has_ended() {
    for round in 0..20 {
        let rig = Rig::start_with(EngineConfig { workers: Some(2), ..EngineConfig::default() });
        let address = rig.engine.addresses()[0];
        let peer = rig.dial();
        rig.engine.stop();
        // Without SO_REUSEPORT this fails while any socket of the engine listens.
        let listener = std::net::TcpListener::bind(address);
        assert!(listener.is_ok(), "round {round}: {listener:?}");
        drop(peer);
    }
}
