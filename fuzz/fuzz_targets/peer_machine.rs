//! One connection's machine against a peer that says anything, and a shell that reads, chokes and waits as it likes.
//!
//! What we say is bounded and is itself the peer wire; blocks named for sending lie inside the torrent; and who speaks
//! the fast extension has every request answered once, by the block or by a reject (BEP 6).

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::bitfield::Bitfield;
use seedring::id::{InfoHash, PeerId};
use seedring::limits::{
    CLIENT_NAME_LEN_MAX, CONTROL_QUEUED_LEN_MAX, METADATA_REQUESTS_QUEUED_MAX, REQUEST_RUNS_MAX,
    REQUESTS_QUEUED_MAX,
};
use seedring::peer::{Identity, PeerError, PeerEvent, PeerMachine, TorrentFacts};
use seedring::time::{Duration, Instant};
use seedring::units::PieceIndex;
use seedring::wire::{Decoder, DecoderLimits, HANDSHAKE_LEN, Handshake, Message, Reserved};
use std::sync::Arc;

const INFO_HASH: InfoHash = InfoHash([7; 20]);
/// What may stand above the bound: the answers to one message, a choke with the rejects of a full queue.
const CONTROL_SLACK: usize = 1024 + 17 * REQUESTS_QUEUED_MAX;
/// Bytes that a script may send, so that floods of floods end in time.
const SENT_LEN_MAX: usize = 8 << 20;
/// What queue, control bytes and untold pieces may hold: runs of requests, twice for how vectors grow.
const BUFFERED_LEN_MAX: usize =
    2 * (16 * REQUEST_RUNS_MAX + CONTROL_QUEUED_LEN_MAX + CONTROL_SLACK + METADATA_SLACK);
/// A piece of the info dictionary, which comes on top.
const METADATA_SLACK: usize = 16_384 + 512;

fuzz_target!(|data: &[u8]| {
    let Some((&[flags, pieces], mut script)) = data.split_first_chunk::<2>() else { return };
    let mut connection = Connection::new(flags, u32::from(pieces) % 40 + 1);
    let mut last: &[u8] = &[];
    let mut sent = 0;
    while let Some((&step, rest)) = script.split_first() {
        script = rest;
        let ended = match step {
            // The peer sends so many of the bytes that follow.
            0..=0xdf => {
                let (bytes, rest) = script.split_at(script.len().min(usize::from(step) + 1));
                (last, script) = (bytes, rest);
                connection.receive(bytes).is_err()
            }
            // The same again, many times: floods.
            0xe0..=0xef => {
                let times = 1 << (step & 0x0f).min(12);
                sent += times * last.len();
                if sent > SENT_LEN_MAX {
                    break;
                }
                (0..times).any(|_| connection.receive(last).is_err())
            }
            0xf0..=0xf3 => {
                connection.choke(step & 1 == 0);
                false
            }
            0xf4..=0xf7 => {
                connection.read_control();
                false
            }
            0xf8..=0xfb => {
                (0..1 << (4 * (step & 3))).for_each(|_| connection.send_block());
                false
            }
            0xfc..=0xff => connection.wait(Duration::from_secs(1 << (2 * (step & 3)))).is_err(),
        };
        if ended {
            connection.read_control();
            return;
        }
    }
    connection.end();
});

struct Connection {
    machine: PeerMachine,
    facts: Arc<TorrentFacts>,
    now: Instant,
    fast: bool,
    /// Reads what the peer says, to count its requests.
    theirs: Decoder,
    /// Reads what we say.
    ours: Decoder,
    requests: usize,
    rejects: usize,
    blocks: usize,
    /// Messages of the shell's own making since the control bytes were last read.
    chokes: usize,
}

impl Connection {
    fn new(flags: u8, pieces: u32) -> Self {
        let mut reserved = Reserved::OURS;
        reserved.0[7] = if flags & 1 == 0 { 0x04 } else { 0 };
        reserved.0[5] = if flags & 2 == 0 { 0x10 } else { 0 };
        let mut have = if flags & 4 == 0 { Bitfield::all(pieces) } else { Bitfield::none(pieces) };
        if flags & 8 != 0 {
            have.remove(PieceIndex(0));
            have.insert(PieceIndex(1));
        }
        let facts = Arc::new(TorrentFacts {
            info_hash: INFO_HASH,
            piece_length: 32_768,
            total_len: u64::from(pieces - 1) * 32_768 + 20_000,
            have: have.into(),
            info: (flags & 64 == 0).then(|| vec![b'i'; 16_384 * usize::from(flags & 7) + 100].into()),
            satisfied: true.into(),
            private: false,
            hides_stock: false.into(),
        });
        let now = Instant::ZERO;
        let (ours, theirs) = (PeerId([b'o'; 20]), PeerId([b't'; 20]));
        let mut machine = if flags & 16 == 0 {
            PeerMachine::incoming(now)
        } else {
            PeerMachine::outgoing(now, INFO_HASH, ours)
        };
        let handshake = Handshake { reserved, info_hash: INFO_HASH, peer_id: theirs };
        let event = machine.handle_bytes(now, &mut handshake.encode().as_slice());
        assert_eq!(event, Ok(Some(PeerEvent::Handshake(handshake))));
        let remote = if flags & 32 == 0 { [10, 0, 0, 1].into() } else { [0xfd; 16].into() };
        machine.accept(facts.clone(), Identity { peer_id: ours, port: 6881, remote });
        let mut control = Vec::new();
        machine.poll_control(&mut control);
        let limits = DecoderLimits::for_pieces(pieces);
        let mut connection = Self {
            machine,
            facts,
            now,
            fast: reserved.fast(),
            theirs: Decoder::new(limits),
            ours: Decoder::new(limits),
            requests: 0,
            rejects: 0,
            blocks: 0,
            chokes: 0,
        };
        connection.check_control(&control[HANDSHAKE_LEN..]);
        connection
    }

    fn receive(&mut self, mut bytes: &[u8]) -> Result<(), PeerError> {
        let whole = bytes;
        loop {
            let before = bytes.len();
            match self.machine.handle_bytes(self.now, &mut bytes)? {
                Some(_) => assert!(bytes.len() < before, "an event costs bytes"),
                None if bytes.is_empty() => break,
                None => assert!(bytes.len() < before, "bytes are taken or refused"),
            }
        }
        if let Some(client) = self.machine.client() {
            assert!(client.len() <= CLIENT_NAME_LEN_MAX);
        }
        let mut input = whole;
        while let Ok(Some(message)) = self.theirs.decode(&mut input) {
            self.requests += usize::from(matches!(message, Message::Request(_)));
        }
        assert!(self.machine.buffered_bytes() <= BUFFERED_LEN_MAX + 10 * self.chokes);
        Ok(())
    }

    fn choke(&mut self, choke: bool) {
        self.machine.handle_choke(choke);
        self.chokes += 1;
    }

    fn read_control(&mut self) {
        for _ in 0..=METADATA_REQUESTS_QUEUED_MAX {
            let mut control = Vec::new();
            self.machine.poll_control(&mut control);
            let slack = CONTROL_SLACK + METADATA_SLACK + 5 * self.chokes;
            assert!(control.len() <= CONTROL_QUEUED_LEN_MAX + slack);
            self.chokes = 0;
            self.check_control(&control);
        }
        assert!(!self.machine.has_control());
    }

    fn check_control(&mut self, mut control: &[u8]) {
        while let Some(message) = self.ours.decode(&mut control).expect("what we say is the peer wire") {
            match message {
                Message::Reject(_) => self.rejects += 1,
                Message::Piece(_) => panic!("blocks do not pass through control"),
                _ => {}
            }
        }
        assert!(self.ours.is_between_messages(), "control bytes are whole messages");
        assert!(self.fast || self.rejects == 0);
    }

    fn send_block(&mut self) {
        let next = self.machine.next_block();
        let block = self.machine.poll_block();
        assert_eq!(next, block);
        if let Some(block) = block {
            assert_eq!(self.facts.check(block), Ok(()));
            self.machine.handle_sent(self.now);
            self.blocks += 1;
        }
    }

    fn wait(&mut self, time: Duration) -> Result<(), PeerError> {
        self.now += time;
        self.machine.handle_timeout(self.now)
    }

    fn end(mut self) {
        self.read_control();
        let answered = self.blocks;
        while self.machine.next_block().is_some() {
            self.send_block();
        }
        // Who knows no rejects may have more queued than it was told, in runs whose number is bounded.
        assert!(!self.fast || self.blocks - answered <= REQUESTS_QUEUED_MAX);
        assert!(self.blocks + self.rejects <= self.requests);
        if self.fast {
            assert_eq!(self.requests, self.rejects + self.blocks);
        }
        assert!(!self.machine.has_output());
    }
}
