//! Both sides against each other, cut at every place, and against what no honest side sends.

use super::dh::{KEY_LEN, Secret};
use super::handshake::{MseHandshake, Progress, looks_encrypted};
use super::policy::{CryptoChoice, CryptoMethod, CryptoMethods, Encryption};
use super::session::{Established, Pads, Session, masked, request_mark};
use super::skey::{SkeyHash, SkeyLookup};
use super::{MseError, skey};
use crate::id::{InfoHash, PeerId};
use crate::limits::{MSE_INITIAL_PAYLOAD_LEN_MAX, MSE_PAD_LEN_MAX};
use crate::rng::Rng;
use crate::wire::{HANDSHAKE_LEN, Handshake, Reserved};
use proptest::prelude::*;
use std::collections::BTreeMap;

const TORRENT: InfoHash = InfoHash(*b"twenty bytes of hash");
const DIALS: [u8; 20] = [3; 20];
const LISTENS: [u8; 20] = [5; 20];
/// Bytes that a side may hold at any time, its output included: vectors grow to twice what they need.
const HELD_MAX: usize = 2 * (MSE_INITIAL_PAYLOAD_LEN_MAX + 2 * (KEY_LEN + MSE_PAD_LEN_MAX + 200));

fn torrents() -> BTreeMap<SkeyHash, InfoHash> {
    let others = (0..20).map(|byte| InfoHash([byte; 20]));
    others.chain([TORRENT]).map(|info_hash| (SkeyHash::of(&info_hash), info_hash)).collect()
}

fn our_handshake() -> [u8; HANDSHAKE_LEN] {
    Handshake { reserved: Reserved::OURS, info_hash: TORRENT, peer_id: PeerId([b'p'; 20]) }.encode()
}

fn pads(first_len: usize, second_len: usize) -> Pads {
    Pads { first_len, second_len, rng: Rng::from_seed(9) }
}

fn listener(policy: Encryption) -> MseHandshake {
    MseHandshake::incoming_with(LISTENS, pads(0, 0), policy.accepts().expect("encryption is accepted"))
}

fn output_of(side: &mut MseHandshake) -> Vec<u8> {
    let mut output = Vec::new();
    side.poll_output(&mut output);
    output
}

fn established(progress: Result<Progress, MseError>) -> Box<Established> {
    match progress {
        Ok(Progress::Established(established)) => established,
        other => panic!("the handshake is not established: {other:?}"),
    }
}

/// One direction of a line that delivers in parts of any length.
struct Line {
    bytes: Vec<u8>,
    rng: Rng,
    longest: usize,
}

impl Line {
    fn new(seed: u64, longest: usize) -> Self {
        Self { bytes: Vec::new(), rng: Rng::from_seed(seed), longest }
    }

    fn deliver(&mut self) -> Vec<u8> {
        let len = (1 + self.rng.index(self.longest)).min(self.bytes.len());
        self.bytes.drain(..len).collect()
    }
}

/// One side with what it has come to, and what it could read of the other's stream.
struct End {
    side: MseHandshake,
    established: Option<Box<Established>>,
    to_say: Vec<u8>,
    heard: Vec<u8>,
}

impl End {
    fn new(side: MseHandshake, to_say: &[u8]) -> Self {
        Self { side, established: None, to_say: to_say.to_vec(), heard: Vec::new() }
    }

    fn handle(&mut self, part: &[u8], skeys: &dyn SkeyLookup, line: &mut Line) {
        let mut input = part;
        if self.established.is_none() {
            let progress = self.side.handle_bytes(&mut input, skeys).expect("an honest peer");
            assert!(self.side.held() <= HELD_MAX);
            if let Progress::Established(mut established) = progress {
                self.heard.append(&mut established.initial_payload);
                self.established = Some(established);
            }
            self.side.poll_output(&mut line.bytes);
        }
        if let Some(established) = &mut self.established {
            let mut received = input.to_vec();
            established.decrypt.iter_mut().for_each(|cipher| cipher.apply(&mut received));
            self.heard.append(&mut received);
            established.encrypt.iter_mut().for_each(|cipher| cipher.apply(&mut self.to_say));
            line.bytes.append(&mut self.to_say);
        }
    }
}

fn talk(mut dials: End, mut listens: End, mut there: Line, mut back: Line) -> (End, End) {
    let skeys = torrents();
    dials.side.poll_output(&mut there.bytes);
    while !(there.bytes.is_empty() && back.bytes.is_empty()) {
        listens.handle(&there.deliver(), &skeys, &mut back);
        dials.handle(&back.deliver(), &skeys, &mut there);
    }
    (dials, listens)
}

fn check_talk(offered: u32, prefer_rc4: bool, payload: bool, lens: [usize; 4], longest: usize, seed: u64) {
    let preferred = if prefer_rc4 { CryptoMethod::Rc4 } else { CryptoMethod::Plaintext };
    let choice = CryptoChoice { methods: CryptoMethods::BOTH, preferred };
    let (handshake, [a, b, c, d]) = (our_handshake(), lens);
    let offered = CryptoMethods(offered);
    let payload = payload.then_some(&handshake);
    let dials = MseHandshake::outgoing_with(DIALS, pads(a, b), TORRENT, offered, payload);
    let listens = MseHandshake::incoming_with(LISTENS, pads(c, d), choice);
    let (dials, listens) = talk(
        End::new(dials, b"from the side that dials"),
        End::new(listens, b"from the other side"),
        Line::new(seed, longest),
        Line::new(!seed, longest),
    );
    let mut said = payload.map_or_else(Vec::new, |payload| payload.to_vec());
    said.extend_from_slice(b"from the side that dials");
    assert_eq!(listens.heard, said);
    assert_eq!(dials.heard, b"from the other side");
    let expected = choice.select(offered).expect("both methods are accepted");
    for end in [dials, listens] {
        let established = end.established.expect("both sides agree");
        assert_eq!((established.method, established.info_hash), (expected, TORRENT));
        let encrypted = expected == CryptoMethod::Rc4;
        assert_eq!((established.encrypt.is_some(), established.decrypt.is_some()), (encrypted, encrypted));
    }
}

#[test]
fn pads_of_every_length_are_understood() {
    for len in 0..=MSE_PAD_LEN_MAX {
        let other = MSE_PAD_LEN_MAX - len;
        check_talk(1 + len as u32 % 3, len % 2 == 0, len % 5 != 0, [len, other, len, other], 700, len as u64);
    }
}

#[test]
fn every_byte_may_come_alone() {
    for (offered, prefer_rc4) in [(1, true), (2, false), (3, true), (3, false)] {
        check_talk(offered, prefer_rc4, true, [0; 4], 1, 1);
        check_talk(offered, prefer_rc4, false, [33; 4], 1, 1);
    }
}

#[test]
fn the_side_that_was_dialled_takes_a_stream_cut_in_two_at_any_place() {
    // What the dialling side says in all, learned by talking once.
    let handshake = our_handshake();
    let dial = || {
        let methods = CryptoMethods::RC4;
        MseHandshake::outgoing_with(DIALS, pads(7, 9), TORRENT, methods, Some(&handshake))
    };
    let (mut dials, mut listens, skeys) = (dial(), listener(Encryption::Require), torrents());
    let mut stream = output_of(&mut dials);
    assert!(matches!(listens.handle_bytes(&mut stream.as_slice(), &skeys), Ok(Progress::Pending)));
    let answer = output_of(&mut listens);
    assert!(matches!(dials.handle_bytes(&mut answer.as_slice(), &skeys), Ok(Progress::Pending)));
    dials.poll_output(&mut stream);
    let len = stream.len();
    stream.extend_from_slice(b"behind");
    for cut in 0..len {
        let mut listens = listener(Encryption::Require);
        let (mut one, mut other) = stream.split_at(cut);
        assert!(matches!(listens.handle_bytes(&mut one, &skeys), Ok(Progress::Pending)));
        assert!(one.is_empty());
        assert_eq!(listens.has_output(), cut >= KEY_LEN, "nothing is said before there is a key");
        let established = established(listens.handle_bytes(&mut other, &skeys));
        assert_eq!((established.initial_payload.as_slice(), other), (&handshake[..], &b"behind"[..]));
    }
}

proptest! {
    #[test]
    fn both_sides_agree_however_the_line_cuts(
        offered in 1..=3u32,
        prefer_rc4: bool,
        payload: bool,
        lens in prop::array::uniform4(0..=MSE_PAD_LEN_MAX),
        longest in 1..300usize,
        seed: u64,
    ) {
        check_talk(offered, prefer_rc4, payload, lens, longest, seed);
    }

    #[test]
    fn random_bytes_are_bounded_and_end_in_an_error(
        key in prop::collection::vec(any::<u8>(), KEY_LEN),
        bytes in prop::collection::vec(any::<u8>(), 532),
        part in 1..200usize,
        dials: bool,
    ) {
        let mut side = if dials {
            MseHandshake::outgoing(DIALS, &mut Rng::from_seed(1), TORRENT, CryptoMethods::BOTH, None)
        } else {
            listener(Encryption::Allow)
        };
        let mut result = Ok(Progress::Pending);
        for mut part in key.chunks(part).chain(bytes.chunks(part)) {
            if result.is_ok() {
                result = side.handle_bytes(&mut part, &torrents());
                prop_assert!(side.held() <= HELD_MAX);
            }
        }
        prop_assert!(matches!(result, Err(MseError::NoMark)));
        let mut more = b"more".as_slice();
        prop_assert!(matches!(side.handle_bytes(&mut more, &torrents()), Ok(Progress::Pending)));
        prop_assert_eq!(more, b"more");
    }

    #[test]
    fn any_request_behind_a_right_mark_is_bounded(
        request in prop::collection::vec(any::<u8>(), 0..300),
        constant: bool,
        payload_len: u16,
    ) {
        let mut request = request;
        if constant {
            let mut right = request_head(3, 0);
            right.extend_from_slice(&payload_len.to_be_bytes());
            request.splice(0..0, right);
        }
        let mut listens = listener(Encryption::Prefer);
        let stream = request_stream(&TORRENT, &request);
        let _ = listens.handle_bytes(&mut stream.as_slice(), &torrents());
        prop_assert!(listens.held() <= HELD_MAX);
    }
}

/// What a dialling side would say that sends `request` behind the torrent's name.
fn request_stream(info_hash: &InfoHash, request: &[u8]) -> Vec<u8> {
    let secret = Secret::new(&DIALS);
    let shared = secret.shared(&Secret::new(&LISTENS).public_key()).expect("a sound key");
    let mut stream = secret.public_key().to_vec();
    stream.extend_from_slice(&request_mark(&shared));
    stream.extend_from_slice(&masked(SkeyHash::of(info_hash).0, &shared));
    let mut session = Session::new(true, &shared, *info_hash);
    session.encrypt_to(request, &mut stream);
    stream
}

/// Verification constant, provided methods and the length of a pad.
fn request_head(provided: u32, pad_len: u16) -> Vec<u8> {
    let mut head = vec![0; 8];
    head.extend_from_slice(&provided.to_be_bytes());
    head.extend_from_slice(&pad_len.to_be_bytes());
    head
}

/// What `policy` says to a dialling side with that request.
fn refusal(policy: Encryption, info_hash: &InfoHash, request: &[u8]) -> MseError {
    let stream = request_stream(info_hash, request);
    listener(policy).handle_bytes(&mut stream.as_slice(), &torrents()).expect_err("it is refused")
}

#[test]
fn a_request_that_is_none_is_refused_as_soon_as_it_is_there() {
    let unknown = InfoHash([0xee; 20]);
    assert_eq!(refusal(Encryption::Allow, &unknown, &[]), MseError::UnknownTorrent);
    assert_eq!(refusal(Encryption::Allow, &TORRENT, &[1; 14]), MseError::WrongConstant);
    for (policy, provided) in [(Encryption::Allow, 0), (Encryption::Prefer, 4), (Encryption::Require, 1)] {
        let accepted = policy.accepts().expect("encryption is accepted").methods;
        let error = MseError::NoCommonMethod { provided: CryptoMethods(provided), accepted };
        assert_eq!(refusal(policy, &TORRENT, &request_head(provided, 0)), error);
    }
    assert_eq!(refusal(Encryption::Allow, &TORRENT, &request_head(3, 513)), MseError::PadLength { len: 513 });
    let mut long = request_head(3, 0);
    long.extend_from_slice(&u16::MAX.to_be_bytes());
    assert_eq!(refusal(Encryption::Allow, &TORRENT, &long), MseError::InitialPayloadLength { len: u16::MAX });
}

#[test]
fn unknown_methods_beside_known_ones_do_no_harm() {
    let mut request = request_head(0xffff_ffff, 0);
    request.extend_from_slice(&[0, 0]);
    let stream = request_stream(&TORRENT, &request);
    let progress = listener(Encryption::Prefer).handle_bytes(&mut stream.as_slice(), &torrents());
    assert_eq!(established(progress).method, CryptoMethod::Rc4);
}

#[test]
fn the_most_initial_payload_is_taken_and_decrypted() {
    let payload: Vec<u8> = (0..MSE_INITIAL_PAYLOAD_LEN_MAX).map(|at| at as u8).collect();
    for provided in [1, 2] {
        let mut request = request_head(provided, 0);
        request.extend_from_slice(&(payload.len() as u16).to_be_bytes());
        request.extend_from_slice(&payload);
        let stream = request_stream(&TORRENT, &request);
        let progress = listener(Encryption::Allow).handle_bytes(&mut stream.as_slice(), &torrents());
        assert_eq!(established(progress).initial_payload, payload);
    }
}

#[test]
fn a_weak_public_key_is_refused_without_an_answer() {
    let mut one = [0; KEY_LEN];
    one[KEY_LEN - 1] = 1;
    for key in [[0; KEY_LEN], one, [0xff; KEY_LEN]] {
        let mut listens = listener(Encryption::Allow);
        let result = listens.handle_bytes(&mut key.as_slice(), &torrents());
        assert!(matches!(result, Err(MseError::WeakPublicKey)));
        assert!(!listens.has_output());
        let mut rng = Rng::from_seed(1);
        let mut dials = MseHandshake::outgoing(DIALS, &mut rng, TORRENT, CryptoMethods::BOTH, None);
        output_of(&mut dials);
        let result = dials.handle_bytes(&mut key.as_slice(), &torrents());
        assert!(matches!(result, Err(MseError::WeakPublicKey)));
        assert!(!dials.has_output());
    }
}

/// What our dialling side that offers `offered` says to an answer with `selected` and a pad of `pad_len`.
fn answered(offered: CryptoMethods, selected: u32, pad_len: u16) -> Result<Progress, MseError> {
    let mut dials = MseHandshake::outgoing_with(DIALS, pads(0, 0), TORRENT, offered, None);
    let listens = Secret::new(&LISTENS);
    let shared = listens.shared(&Secret::new(&DIALS).public_key()).expect("a sound key");
    let mut stream = listens.public_key().to_vec();
    Session::new(false, &shared, TORRENT).encrypt_to(&request_head(selected, pad_len), &mut stream);
    dials.handle_bytes(&mut stream.as_slice(), &torrents())
}

#[test]
fn a_selection_that_was_not_offered_is_refused() {
    for (offered, selected) in
        [(3, 0), (3, 3), (3, 4), (2, 1), (1, 2), (2, 3)].map(|(a, b)| (CryptoMethods(a), CryptoMethods(b)))
    {
        let error = answered(offered, selected.0, 0).expect_err("it is refused");
        assert_eq!(error, MseError::NotOffered { selected, offered });
    }
    assert_eq!(
        answered(CryptoMethods::BOTH, 2, 600).expect_err("it is refused"),
        MseError::PadLength { len: 600 }
    );
    assert_eq!(established(answered(CryptoMethods::BOTH, 1, 0)).method, CryptoMethod::Plaintext);
}

#[test]
fn a_listener_never_says_more_than_its_key_and_pad_to_who_does_not_know_the_torrent() {
    for seed in 0..20 {
        let mut rng = Rng::from_seed(seed);
        let choice = Encryption::Allow.accepts().expect("encryption is accepted");
        let mut listens = MseHandshake::incoming(LISTENS, &mut rng, choice);
        let stream = request_stream(&InfoHash([0xee; 20]), &[0; 600]);
        assert!(listens.handle_bytes(&mut stream.as_slice(), &torrents()).is_err());
        assert!(output_of(&mut listens).len() <= KEY_LEN + MSE_PAD_LEN_MAX);
    }
}

#[test]
fn drawn_pads_have_all_lengths_and_nothing_beyond() {
    let mut rng = Rng::from_seed(4);
    let lens: Vec<usize> = (0..20_000).map(|_| Pads::draw(&mut rng).first_len).collect();
    assert_eq!((lens.iter().min(), lens.iter().max()), (Some(&0), Some(&MSE_PAD_LEN_MAX)));
}

#[test]
fn the_first_bytes_tell_a_plaintext_handshake() {
    let plain = our_handshake();
    for len in 0..=plain.len() {
        assert_eq!(looks_encrypted(&plain[..len]), (len >= 20).then_some(false));
    }
    assert_eq!(looks_encrypted(b"GET"), Some(true));
    assert_eq!(looks_encrypted(b"\x13BitTorrent protocoL"), Some(true));
    let public_key = Secret::new(&DIALS).public_key();
    assert_eq!(looks_encrypted(&public_key[..1]), Some(true));
}

#[test]
fn the_whole_exchange_is_that_of_an_independent_computation() {
    // The hashes that the other side must find, by Python's hashlib over the same secrets.
    let shared = Secret::new(&DIALS).shared(&Secret::new(&LISTENS).public_key()).expect("a sound key");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(hex(&request_mark(&shared)), REQ1);
    assert_eq!(hex(&masked(SkeyHash::of(&TORRENT).0, &shared)), MASKED);
    assert_eq!(hex(&skey::hash(b"keyA", &[&shared, &TORRENT.0])), KEY_A);
    let stream = request_stream(&TORRENT, &request_head(3, 0));
    assert_eq!(hex(&stream[KEY_LEN + 40..]), REQUEST);
}

const REQ1: &str = "4e5563cccb903075d581669caef8b65fecbc67a5";
const MASKED: &str = "c4367985ef23a1caded21395dde9e7197187b420";
const KEY_A: &str = "4695fdb49bc97853790f64b6948ab41b11ef189f";
const REQUEST: &str = "f611afc52e9856f56e88034f896c";
