//! Encrypted handshakes: against any bytes, and between two honest sides over a line that changes bytes.
//!
//! Cut anywhere, a stream has the same answers and the same end as in one part; what a side says is bounded; nothing is
//! said before there is a whole public key; and over a line that changes nothing both sides agree.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::id::{InfoHash, PeerId};
use seedring::limits::{MSE_INITIAL_PAYLOAD_LEN_MAX, MSE_PAD_LEN_MAX};
use seedring::rng::Rng;
use seedring::wire::{
    CryptoMethod, CryptoMethods, Encryption, Handshake, MseError, MseHandshake, Progress, Reserved, SkeyHash,
    looks_encrypted,
};
use seedring_fuzz::Parts;
use std::collections::BTreeMap;

const INFO_HASH: InfoHash = InfoHash([7; 20]);
const KEY_LEN: usize = 96;
/// All that a side ever says: key and pad, request and pad, our own handshake.
const SAID_LEN_MAX: usize = KEY_LEN + 40 + 8 + 4 + 2 + 2 + 68 + 2 * MSE_PAD_LEN_MAX;

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, seed, cuts], rest)) = data.split_first_chunk::<3>() else { return };
    let policy = [Encryption::Allow, Encryption::Prefer, Encryption::Require][usize::from(flags >> 4) % 3];
    let pair = Pair { policy, offered: CryptoMethods(u32::from(flags >> 2) % 4), seed };
    if flags & 1 == 0 {
        any_bytes(&pair, flags & 2 == 0, rest, cuts);
    } else {
        changed_bytes(&pair, rest, cuts);
    }
});

struct Pair {
    policy: Encryption,
    offered: CryptoMethods,
    seed: u8,
}

impl Pair {
    fn side(&self, dials: bool) -> MseHandshake {
        let mut rng = Rng::from_seed(u64::from(self.seed) * 2 + u64::from(dials));
        let mut secret = [0; 20];
        rng.fill(&mut secret);
        if dials {
            let (reserved, peer_id) = (Reserved::OURS, PeerId([1; 20]));
            let handshake = Handshake { reserved, info_hash: INFO_HASH, peer_id }.encode();
            let payload = (self.seed & 1 == 0).then_some(&handshake);
            MseHandshake::outgoing(secret, &mut rng, INFO_HASH, self.offered, payload)
        } else {
            MseHandshake::incoming(secret, &mut rng, self.policy.accepts().expect("encryption is accepted"))
        }
    }
}

/// How a side ended.
#[derive(Debug, PartialEq)]
struct End {
    said: Vec<u8>,
    taken: usize,
    error: Option<MseError>,
    established: Option<(CryptoMethod, Vec<u8>)>,
}

fn run<'p>(mut side: MseHandshake, parts: impl IntoIterator<Item = &'p [u8]>) -> End {
    let torrents = BTreeMap::from([(SkeyHash::of(&INFO_HASH), INFO_HASH)]);
    let mut end = End { said: Vec::new(), taken: 0, error: None, established: None };
    side.poll_output(&mut end.said);
    let said_first = end.said.len();
    for mut input in parts {
        let len = input.len();
        let progress = side.handle_bytes(&mut input, &torrents);
        end.taken += len - input.len();
        side.poll_output(&mut end.said);
        assert!(end.taken >= KEY_LEN || end.said.len() == said_first, "an answer to half a key");
        assert!(end.said.len() <= SAID_LEN_MAX);
        match progress {
            Ok(Progress::Pending) => {
                assert!(input.is_empty(), "bytes are left that a pending handshake wants")
            }
            Ok(Progress::Established(established)) => {
                assert_eq!(established.info_hash, INFO_HASH);
                assert!(established.initial_payload.len() <= MSE_INITIAL_PAYLOAD_LEN_MAX);
                let encrypted = established.method == CryptoMethod::Rc4;
                assert_eq!(
                    (established.encrypt.is_some(), established.decrypt.is_some()),
                    (encrypted, encrypted)
                );
                end.established = Some((established.method, established.initial_payload));
                break;
            }
            Err(error) => {
                end.error = Some(error);
                break;
            }
        }
    }
    end
}

fn any_bytes(pair: &Pair, dials: bool, stream: &[u8], cuts: u8) {
    let whole = run(pair.side(dials), [stream]);
    assert_eq!(whole, run(pair.side(dials), Parts::of(stream, cuts)));
    assert!(whole.established.is_none(), "nobody guesses a shared secret");
    if looks_encrypted(stream) == Some(false) {
        assert!(stream.starts_with(b"\x13BitTorrent protocol"));
    }
}

/// Each three bytes of `changes` change one byte of what one of the sides says.
fn changed_bytes(pair: &Pair, changes: &[u8], cuts: u8) {
    let change = |stream: &mut [u8], dials: bool| {
        let mut changed = false;
        for change in changes.chunks_exact(3) {
            let at = usize::from(change[0] & 0x7f) << 8 | usize::from(change[1]);
            if (change[0] & 0x80 == 0) == dials && at < stream.len() {
                stream[at] ^= change[2];
                changed |= change[2] != 0;
            }
        }
        changed
    };
    let mut keys = run(pair.side(true), []).said;
    let first_len = keys.len();
    change(&mut keys, true);
    let mut answer = run(pair.side(false), [keys.as_slice()]).said;
    change(&mut answer, false);

    let mut stream = run(pair.side(true), [answer.as_slice()]).said;
    let mut changed = change(&mut stream, true);
    let listener = run(pair.side(false), [stream.as_slice()]);
    assert_eq!(listener, run(pair.side(false), Parts::of(&stream, cuts)));

    let mut answers = listener.said.clone();
    changed |= change(&mut answers, false);
    let dialler = run(pair.side(true), Parts::of(&answers, cuts));
    assert_eq!(dialler, run(pair.side(true), [answers.as_slice()]));

    let choice = pair.policy.accepts().expect("encryption is accepted");
    if !changed && first_len < stream.len() {
        let method = choice.select(pair.offered);
        assert_eq!(listener.established.map(|(method, _)| method), method);
        assert_eq!(dialler.established.map(|(method, _)| method), method);
    }
}
