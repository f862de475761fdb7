//! The fetch over loopback against scripted peers.

use super::*;
use crate::id::{InfoHash, PeerId};
use crate::service;
use crate::tracker_client::ClientConfig;
use crate::units::BLOCK_LEN;
use crate::wire::{
    Answering, Decoder, DecoderLimits, EXTENSION_HANDSHAKE_ID, Encryption, ExtensionHandshake, ExtensionIds,
    HANDSHAKE_LEN, Handshake, METADATA_PIECE_LEN, Message, MetadataMessage, MseStream, Reserved, SkeyHash,
    encode,
};
use std::collections::BTreeMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The peer's own number for `ut_metadata`.
const THEIRS: u8 = 77;

/// An info dictionary of three pieces.
fn info() -> Vec<u8> {
    let hashes = vec![b'h'; 2_000 * 20];
    crate::bencode::dict(|info| {
        info.int("length", 2_000 * i64::from(BLOCK_LEN));
        info.bytes("name", "wanted");
        info.int("piece length", i64::from(BLOCK_LEN));
        info.bytes("pieces", hashes);
    })
}

fn identity() -> Identity {
    Identity { info_hash: InfoHash([0; 20]), peer_id: PeerId([b'u'; 20]), port: 6881, key: 1, num_want: None }
}

/// A peer that gives `info` to all who come and tells this length.
async fn give(listener: TcpListener, info: Vec<u8>, told_len: u32) {
    while let Ok((stream, _)) = listener.accept().await {
        let _ = give_to(stream, &info, told_len).await;
    }
}

async fn give_to(mut stream: TcpStream, info: &[u8], told_len: u32) -> std::io::Result<()> {
    let mut theirs = [0; HANDSHAKE_LEN];
    stream.read_exact(&mut theirs).await?;
    let theirs = Handshake::decode(&theirs).expect("we speak the protocol");
    let ours = Handshake { reserved: Reserved::OURS, peer_id: PeerId([b'p'; 20]), ..theirs };
    let mut output = ours.encode().to_vec();
    encode(&Message::Bitfield(&[0xff; 250]), &mut output);
    let told = ExtensionHandshake {
        ids: ExtensionIds { metadata: Some(THEIRS), ..ExtensionIds::default() },
        metadata_len: Some(told_len),
        ..ExtensionHandshake::default()
    };
    encode(&Message::Extended { id: EXTENSION_HANDSHAKE_ID, payload: &told.encode() }, &mut output);
    let mut decoder = Decoder::new(DecoderLimits::for_pieces(2_000));
    let (mut buffer, mut our_id) = (vec![0; 4096], None);
    loop {
        stream.write_all(&std::mem::take(&mut output)).await?;
        let len = stream.read(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        let mut input = &buffer[..len];
        while let Some(message) = decoder.decode(&mut input).expect("we speak the protocol") {
            match message {
                Message::Extended { id: 0, payload } => {
                    our_id = ExtensionHandshake::decode(payload).and_then(|told| told.ids.metadata);
                }
                Message::Extended { id: THEIRS, payload } => {
                    let Some(MetadataMessage::Request { piece }) = MetadataMessage::decode(payload) else {
                        panic!("only requests are expected");
                    };
                    let bytes = info.chunks(METADATA_PIECE_LEN as usize).nth(piece as usize);
                    let data = MetadataMessage::Data {
                        piece,
                        total_len: Some(told_len),
                        bytes: bytes.expect("only pieces that exist are asked for"),
                    };
                    let id = our_id.expect("the handshake comes first");
                    encode(&Message::Extended { id, payload: &data.encode() }, &mut output);
                }
                other => panic!("{other:?} is not expected of a peer without metadata"),
            }
        }
    }
}

/// A peer that gives `info`; its address.
async fn peer(info: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    let len = info.len() as u32;
    tokio::task::spawn_local(give(listener, info, len));
    address
}

/// A peer that is `plain` for those who come encrypted, and closes at once on everybody else.
async fn encrypting(plain: SocketAddr, info_hash: InfoHash) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = relay(stream, plain, info_hash, Encryption::Require, false).await;
        }
    });
    address
}

/// Takes the encrypted handshake off a connection. One that goes on in RC4 is an error where that is not wanted.
async fn relay(
    mut outside: TcpStream,
    plain: SocketAddr,
    info_hash: InfoHash,
    policy: Encryption,
    plaintext_only: bool,
) -> std::io::Result<()> {
    let mut inside = TcpStream::connect(plain).await?;
    let mut mse = MseStream::incoming(policy);
    let skeys = BTreeMap::from([(SkeyHash::of(&info_hash), info_hash)]);
    let mut pads = clock::random_rng();
    let (mut received, mut given) = (vec![0; 4096], vec![0; 4096]);
    loop {
        tokio::select! {
            len = outside.read(&mut received) => {
                let bytes = &mut received[..len?];
                if bytes.is_empty() {
                    return Ok(());
                }
                let mut answering = Answering { secret: clock::random_bytes, pads: &mut pads, skeys: &skeys };
                let Ok(wire) = mse.receive(bytes, &mut answering) else { return Ok(()) };
                if plaintext_only && mse.is_open() && mse.encrypts() {
                    return Err(std::io::ErrorKind::Unsupported.into());
                }
                inside.write_all(&wire.first).await?;
                inside.write_all(&bytes[wire.start..]).await?;
                let mut output = Vec::new();
                mse.poll_output(&mut output);
                outside.write_all(&output).await?;
            }
            len = inside.read(&mut given) => {
                let bytes = &mut given[..len?];
                mse.encrypt(bytes);
                outside.write_all(bytes).await?;
            }
        }
    }
}

#[test]
fn a_peer_that_wants_encryption_is_heard_too() {
    let fetched = service::run(async {
        let info = info();
        let magnet = Magnet::new(InfoHash::of(&info));
        let peer = encrypting(peer(info).await, magnet.info_hash).await;
        let options = FetchOptions { peers: vec![peer], ..FetchOptions::new(identity(), Encryption::Allow) };
        fetch(&magnet, client(), options, &mut |_| {}).await
    });
    assert!(fetched.is_ok_and(|fetched| fetched.is_ok()));
}

/// What somebody who dials says first, for each of his connections; the peer ends each at once.
async fn first_words(policy: Encryption) -> Vec<&'static str> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
    let address = listener.local_addr().expect("a bound socket has an address");
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = Rc::clone(&heard);
    tokio::task::spawn_local(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut first = [0; 20];
            stream.read_exact(&mut first).await.expect("who dials introduces itself");
            hears.borrow_mut().push(if first == *b"\x13BitTorrent protocol" { "plain" } else { "encrypted" });
        }
    });
    let shared = Shared {
        identity: identity(),
        bind: None,
        encryption: policy,
        assembly: RefCell::new(MetadataAssembly::new(InfoHash([0; 20]))),
        turns: watch::Sender::new(0),
        found: RefCell::new(None),
        progressed_at: Cell::new(clock::now()),
        connected: Cell::new(0),
        others_wait: Cell::new(false),
    };
    assert_eq!(talk(Rc::new(shared), address, 1).await, Ended::Unreachable);
    heard.take()
}

#[test]
fn every_connection_obeys_the_policy_of_encryption() {
    let heard = service::run(async {
        let mut heard = Vec::new();
        for policy in [Encryption::Off, Encryption::Allow, Encryption::Prefer, Encryption::Require] {
            heard.push(first_words(policy).await);
        }
        heard
    });
    let expected: [&[&str]; 4] =
        [&["plain"], &["plain", "encrypted"], &["encrypted", "plain"], &["encrypted"]];
    assert_eq!(heard.expect("io_uring works"), expected);
}

#[test]
fn with_encryption_required_plaintext_payload_is_not_even_offered() {
    for (policy, is_fetched) in [(Encryption::Prefer, true), (Encryption::Require, false)] {
        let fetched = service::run(async {
            let info = info();
            let magnet = Magnet::new(InfoHash::of(&info));
            let plain = peer(info).await;
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
            let address = listener.local_addr().expect("a bound socket has an address");
            let (offers, mut offered) = mpsc::channel(1);
            let info_hash = magnet.info_hash;
            tokio::task::spawn_local(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    // It takes nothing but plaintext payload behind an encrypted handshake.
                    let ended = relay(stream, plain, info_hash, Encryption::Allow, true).await;
                    let _ = offers.try_send(ended.is_ok());
                }
            });
            let options = FetchOptions { peers: vec![address], ..FetchOptions::new(identity(), policy) };
            let mut tell = |_| {};
            tokio::select! {
                fetched = fetch(&magnet, client(), options, &mut tell) => fetched.is_ok(),
                Some(ended) = offered.recv() => { assert!(!ended, "nothing was said behind RC4"); false }
            }
        });
        assert_eq!(fetched.expect("io_uring works"), is_fetched, "{policy}");
    }
}

fn client() -> Rc<TrackerClient> {
    Rc::new(TrackerClient::new(ClientConfig::default()).expect("the defaults work"))
}

#[test]
fn a_liar_first_and_an_honest_peer_second_give_the_torrent() {
    let fetched = service::run(async {
        let info = info();
        let mut lie = info.clone();
        lie[30_000] ^= 1;
        let mut options = FetchOptions::new(identity(), Encryption::Allow);
        // One with the right length and a wrong byte, one with another length, the honest one named by the link.
        options.peers = vec![peer(lie.clone()).await, peer(lie[..20_000].to_vec()).await];
        let honest = peer(info.clone()).await;
        let magnet = Magnet {
            peers: vec![honest.to_string()],
            trackers: vec!["http://127.0.0.1:1/announce".into()],
            ..Magnet::new(InfoHash::of(&info))
        };
        let mut last = FetchProgress::default();
        let fetched = fetch(&magnet, client(), options, &mut |progress| last = progress).await;
        assert!(last.peers_tried == 3 && last.piece_count > 0, "{last:?}");
        let fetched = fetched.expect("the honest peer has everything");
        assert!(fetched.peers.contains(&honest));
        assert_eq!(fetched.metainfo.info_bytes(), info);
        fetched
    });
    let metainfo = fetched.expect("io_uring works").metainfo;
    assert_eq!((metainfo.info().name(), metainfo.tiers().len()), ("wanted", 1));
}

/// Somebody on loopback who takes connections and says nothing, or only who he is.
async fn silent(address: SocketAddr, is_introduced: bool) -> SocketAddr {
    let listener = TcpListener::bind(address).await.expect("all of 127/8 is this machine");
    let address = listener.local_addr().expect("a bound socket has an address");
    tokio::task::spawn_local(async move {
        let mut taken = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut theirs = [0; HANDSHAKE_LEN];
            if is_introduced && stream.read_exact(&mut theirs).await.is_ok() {
                let theirs = Handshake::decode(&theirs).expect("we speak the protocol");
                let ours = Handshake { reserved: Reserved::OURS, peer_id: PeerId([b's'; 20]), ..theirs };
                stream.write_all(&ours.encode()).await.expect("who dials reads");
            }
            taken.push(stream);
        }
    });
    address
}

#[test]
fn who_only_shakes_hands_leaves_when_somebody_else_waits() {
    let fetched = service::run(async {
        let info = info();
        let mut candidates = Vec::new();
        for host in 1..=60 {
            candidates.push(silent(SocketAddr::from(([127, 1, 1, host], 0)), host % 2 == 0).await);
        }
        candidates.push(peer(info.clone()).await);
        let magnet = Magnet {
            peers: candidates.iter().map(SocketAddr::to_string).collect(),
            ..Magnet::new(InfoHash::of(&info))
        };
        let options = FetchOptions::new(identity(), Encryption::Allow);
        let fetched = fetch(&magnet, client(), options, &mut |_| {}).await;
        fetched.expect("the last is honest").metainfo.info_bytes().to_vec()
    });
    assert_eq!(fetched.expect("io_uring works"), info());
}

#[test]
fn a_description_of_many_megabytes_comes_whole() {
    let fetched = service::run(async {
        let pieces = 714_632;
        let info = crate::bencode::dict(|info| {
            info.int("length", pieces * i64::from(BLOCK_LEN));
            info.bytes("name", "archive");
            info.int("piece length", i64::from(BLOCK_LEN));
            info.bytes("pieces", vec![b'h'; 20 * pieces as usize]);
        });
        assert!(info.len() > 14_000_000);
        let options = FetchOptions {
            peers: vec![peer(info.clone()).await],
            ..FetchOptions::new(identity(), Encryption::Allow)
        };
        let fetched = fetch(&Magnet::new(InfoHash::of(&info)), client(), options, &mut |_| {}).await;
        fetched.expect("the peer has all of it").metainfo.info().piece_count()
    });
    assert_eq!(fetched.expect("io_uring works"), 714_632);
}

#[test]
fn says_whose_fault_it_is_when_nothing_comes() {
    let ended = service::run(async {
        let info = info();
        let magnet = Magnet::new(InfoHash::of(&info));
        let hasty = || FetchOptions {
            patience: Duration::from_millis(300),
            ..FetchOptions::new(identity(), Encryption::Allow)
        };
        let nothing = fetch(&magnet, client(), hasty(), &mut |_| {}).await;
        assert!(matches!(nothing, Err(FetchError::NowhereToAsk)), "{nothing:?}");
        let tracker = Magnet { trackers: vec!["http://127.0.0.1:1/announce".into()], ..magnet.clone() };
        let nobody = fetch(&tracker, client(), hasty(), &mut |_| {}).await;
        assert!(matches!(nobody, Err(FetchError::NoPeers { tracker_error: Some(_) })), "{nobody:?}");
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let unreached =
            fetch(&magnet, client(), FetchOptions { peers: vec![closed], ..hasty() }, &mut |_| {}).await;
        assert!(matches!(unreached, Err(FetchError::NobodyReached { tried: 1 })), "{unreached:?}");
        let liar = FetchOptions { peers: vec![peer(vec![b'x'; 20_000]).await], ..hasty() };
        let lies = fetch(&magnet, client(), liar, &mut |_| {}).await;
        assert!(matches!(lies, Err(FetchError::OnlyLies { liars: 1 })), "{lies:?}");
        // The bytes are right, but they are no torrent.
        let useless = vec![b'x'; 20_000];
        let options = FetchOptions { peers: vec![peer(useless.clone()).await], ..hasty() };
        let unusable = fetch(&Magnet::new(InfoHash::of(&useless)), client(), options, &mut |_| {}).await;
        assert!(matches!(unusable, Err(FetchError::Unusable(_))), "{unusable:?}");
    });
    assert!(ended.is_ok());
}
