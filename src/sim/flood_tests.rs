//! Floods of everything that a peer can have its torrent's home told, on one core, while the torrent is at home on another:
//! what waits between them stays small, and an honest peer beside them gives as quickly as alone.

use super::giver::Manner;
use super::leech_rig::{INFO_HASH, LeechRig, PIECES};
use super::ring::Faults;
use crate::bitfield::Bitfield;
use crate::engine::message::{Fact, OwnedStock};
use crate::id::PeerId;
use crate::time::Duration;
use crate::units::{BlockSpan, ByteRate, PieceIndex};
use crate::wire::{Handshake, Message, PexMessage, Reserved, encode};
use std::net::SocketAddr;
use std::os::fd::RawFd;

/// Connections that flood at once. Of those that give nothing of what they are asked there is one: which blocks others are
/// asked for in its place is not the question here.
const FLOODERS: usize = 4;

/// What a flooder says once.
type First = fn(&mut Vec<u8>);
/// What it says in a turn, by their number.
type More = fn(u32, &mut Vec<u8>);

/// What a flooder does.
#[derive(Clone, Copy)]
enum Flood {
    /// Says the first once, and then, in each turn, what the second adds.
    Words(First, More),
    /// The same without the fast extension, after a bitfield of everything.
    PlainWords(More),
    /// Behaves like this when it is asked for blocks.
    Manner(Manner),
    /// Comes, introduces itself, and goes.
    Churn,
}

/// One of each kind, in turn: a kind that is not named here does not compile.
fn next(fact: Option<&Fact>) -> Option<Fact> {
    Some(match fact {
        None => Fact::Interest(true),
        Some(Fact::Interest(_)) => Fact::Stock(OwnedStock::None),
        Some(Fact::Stock(_)) => Fact::Have(Vec::new()),
        Some(Fact::Have(_)) => Fact::Lost(PieceIndex(0)),
        Some(Fact::Lost(_)) => Fact::Wish(None),
        Some(Fact::Wish(_)) => Fact::Blocks(Vec::new()),
        Some(Fact::Blocks(_)) => Fact::Returned(Vec::new()),
        Some(Fact::Returned(_)) => Fact::Late(true),
        Some(Fact::Late(_)) => Fact::Snubbed(true),
        Some(Fact::Snubbed(_)) => {
            let remote = [0, 0, 0, 0].into();
            Fact::Addresses { remote, port: None, ours: None, exchanges: true }
        }
        Some(Fact::Addresses { .. }) => Fact::Served(PieceIndex(0)),
        Some(Fact::Served(_)) => Fact::Exchange(Vec::new()),
        Some(Fact::Exchange(_)) => return None,
    })
}

fn say(out: &mut Vec<u8>, messages: &[Message<'_>]) {
    messages.iter().for_each(|message| encode(message, out));
}

fn have_all(out: &mut Vec<u8>) {
    say(out, &[Message::HaveAll]);
}

fn have_none(out: &mut Vec<u8>) {
    say(out, &[Message::HaveNone]);
}

fn all_of_them(out: &mut Vec<u8>) {
    say(out, &[Message::Bitfield(Bitfield::all(PIECES).as_bytes())]);
}

fn extended(out: &mut Vec<u8>, id: u8, payload: &[u8]) {
    say(out, &[Message::Extended { id, payload }]);
}

/// BEP 54, by our number for it.
fn dont_have(out: &mut Vec<u8>, piece: u32) {
    extended(out, 4, &piece.to_be_bytes());
}

/// The floods that would have the home told such a fact with each message.
fn floods_of(fact: &Fact) -> Vec<Flood> {
    match fact {
        Fact::Interest(_) => vec![Flood::Words(have_none, |_, out| {
            say(out, &[Message::Interested, Message::NotInterested].repeat(30));
        })],
        Fact::Stock(_) => vec![
            Flood::Words(have_all, |round, out| {
                dont_have(out, round % PIECES);
                have_all(out);
            }),
            Flood::Words(have_none, |round, out| {
                let mut stock = Bitfield::none(PIECES);
                for piece in 0..=round % PIECES {
                    stock.insert(PieceIndex(piece));
                }
                say(out, &[Message::Bitfield(stock.as_bytes())]);
            }),
        ],
        Fact::Have(_) => vec![
            Flood::Words(have_none, |_, out| {
                (0..PIECES).for_each(|piece| say(out, &[Message::Have(PieceIndex(piece))].repeat(3)));
            }),
            Flood::Words(have_none, |round, out| {
                say(out, &[Message::Have(PieceIndex(round % PIECES))]);
                dont_have(out, round % PIECES);
            }),
        ],
        Fact::Lost(_) => vec![Flood::Words(have_all, |round, out| {
            for piece in [0, 1, round % PIECES] {
                dont_have(out, piece);
                say(out, &[Message::Have(PieceIndex(piece))]);
            }
        })],
        Fact::Wish(_) => vec![
            Flood::PlainWords(|_, out| say(out, &[Message::Unchoke, Message::Choke].repeat(30))),
            // It takes now more, now fewer requests.
            Flood::PlainWords(|_, out| {
                say(out, &[Message::Unchoke]);
                for _ in 0..20 {
                    extended(out, 0, b"d4:reqqi300ee");
                    extended(out, 0, b"d4:reqqi301ee");
                }
                say(out, &[Message::Choke]);
            }),
            Flood::Words(have_all, |round, out| {
                let piece = PieceIndex(round % PIECES);
                say(out, &[Message::AllowedFast(piece), Message::Suggest(piece)].repeat(30));
            }),
        ],
        Fact::Blocks(_) => vec![
            Flood::Words(have_all, |round, out| {
                let span = BlockSpan { piece: PieceIndex(round % PIECES), begin: 0, len: 1 };
                for _ in 0..20 {
                    say(out, &[Message::Piece(span)]);
                    out.push(0);
                }
            }),
            Flood::Manner(Manner { unasked: 500, ..Manner::default() }),
        ],
        Fact::Returned(_) => vec![Flood::Manner(Manner { rejects: 1000, ..Manner::default() })],
        Fact::Late(_) | Fact::Snubbed(_) => vec![Flood::Manner(Manner { answers: 0, ..Manner::default() })],
        Fact::Addresses { .. } => vec![Flood::Words(have_none, |round, out| {
            for port in 0..30 {
                extended(out, 0, format!("d1:pi{}ee", 1 + port + round % 1000).as_bytes());
            }
        })],
        // Super-seeding or not, what was sent is told once for each piece that its peer was shown.
        Fact::Served(_) => vec![Flood::Words(have_none, |round, out| {
            let span = BlockSpan { piece: PieceIndex(round % PIECES), begin: 0, len: 16_384 };
            say(out, &[Message::Interested, Message::Request(span), Message::Cancel(span)]);
        })],
        Fact::Exchange(_) => vec![
            Flood::Words(have_none, |round, out| {
                if round == 0 {
                    extended(out, 0, b"d1:md6:ut_pexi1eee");
                }
                extended(out, 1, &PexMessage::default().encode());
            }),
            Flood::Words(have_none, |_, out| extended(out, 1, &[0; 16_000])),
        ],
    }
}

/// Connections on the first worker that flood, and come again when they are closed.
struct Flooders {
    flood: Flood,
    sockets: Vec<Option<(RawFd, u32)>>,
    calls: u32,
    /// Bytes said.
    said: usize,
}

impl Flooders {
    fn new(rig: &mut LeechRig, flood: Flood) -> Self {
        if let Flood::Manner(manner) = flood {
            let gives = manner.answers > 0 && manner.rejects < 1000;
            for _ in 0..if gives { FLOODERS } else { 1 } {
                let number = rig.add(manner, Bitfield::all(PIECES));
                rig.call_on(number, 0);
            }
        }
        Self { flood, sockets: vec![None; FLOODERS], calls: 0, said: 0 }
    }

    fn turn(&mut self, rig: &mut LeechRig) {
        let (first, more): (First, More) = match self.flood {
            Flood::Words(first, more) => (first, more),
            Flood::PlainWords(more) => (all_of_them, more),
            Flood::Churn => (have_all, |_, _| {}),
            Flood::Manner(_) => return,
        };
        let ring = rig.workers[0].ring_mut();
        for (number, place) in self.sockets.iter_mut().enumerate() {
            let mut bytes = Vec::new();
            let (socket, rounds) = place.filter(|(socket, _)| ring.is_open(*socket)).unwrap_or_else(|| {
                self.calls += 1;
                let socket = ring.dial_from(SocketAddr::from(([203, 0, number as u8, 1], 9000)));
                let mut peer_id = PeerId(*b"-YY0001-000000000000");
                peer_id.0[12..16].copy_from_slice(&self.calls.to_be_bytes());
                peer_id.0[19] = number as u8;
                let mut reserved = Reserved::OURS;
                if matches!(self.flood, Flood::PlainWords(_)) {
                    reserved.0[7] = 0;
                }
                bytes.extend(Handshake { reserved, info_hash: INFO_HASH, peer_id }.encode());
                first(&mut bytes);
                (socket, 0)
            });
            ring.peer_reads(socket);
            more(rounds, &mut bytes);
            self.said += bytes.len();
            ring.peer_sends(socket, &bytes);
            if matches!(self.flood, Flood::Churn) && rounds > 3 {
                ring.peer_closes(socket);
            }
            *place = Some((socket, rounds + 1));
        }
    }
}

struct Outcome {
    took: Duration,
    /// Messages from core to core, both ways.
    posted: u64,
    unposted_max: usize,
    said: usize,
    calls: u32,
}

/// An honest peer on the first worker gives all that is to be had, to a torrent at home on the second.
fn download_beside(flood: Option<Flood>, mailbox_len: usize) -> Outcome {
    let mut rig = LeechRig::with_mailboxes(3, Faults::default(), 2, mailbox_len);
    rig.indifferent = true;
    let mut flooders = flood.map(|flood| Flooders::new(&mut rig, flood));
    for _ in 0..20 {
        flooders.iter_mut().for_each(|flooders| flooders.turn(&mut rig));
        rig.run(1);
    }
    // Somebody always says something, so that time goes on as slowly with floods and without.
    let busy = rig.add(Manner { unchokes: 0, ..Manner::default() }, Bitfield::none(PIECES));
    let busy = rig.call_on(busy, 0);
    let honest = rig.add(Manner::default(), Bitfield::all(PIECES));
    rig.call_on(honest, 0);
    let began = rig.now();
    let mut unposted_max = 0;
    let mut turns = 0;
    rig.until(|rig| {
        turns += 1;
        rig.givers[honest].silent = turns % 30 != 0;
        rig.workers[0].ring_mut().peer_sends(busy, &[0; 4]);
        flooders.iter_mut().for_each(|flooders| flooders.turn(rig));
        let unposted: usize = rig.workers.iter().map(|worker| worker.unposted_count()).sum();
        unposted_max = unposted_max.max(unposted);
        rig.satisfied > 0
    });
    let took = rig.now().since(began);
    let posted = rig.workers.iter().map(|worker| worker.posted_count()).sum();
    rig.complete();
    for place in flooders.iter().flat_map(|flooders| &flooders.sockets) {
        place.iter().for_each(|&(socket, _)| rig.workers[0].ring_mut().peer_closes(socket));
    }
    rig.run(100);
    rig.stop();
    let (said, calls) = flooders.map_or((0, 0), |flooders| (flooders.said, flooders.calls));
    Outcome { took, posted, unposted_max, said, calls }
}

/// All floods, with the name of the fact each is about.
fn floods() -> Vec<(String, Flood)> {
    let facts = std::iter::successors(next(None), |fact| next(Some(fact)));
    let of_facts = facts.flat_map(|fact| {
        let name = format!("{fact:?}");
        floods_of(&fact).into_iter().map(move |flood| (name.clone(), flood))
    });
    of_facts.chain([("connections".to_owned(), Flood::Churn)]).collect()
}

#[test]
fn whatever_peers_flood_an_honest_one_beside_them_gives_as_quickly_and_little_crosses_between_cores() {
    let alone = download_beside(None, 16);
    for (name, flood) in floods() {
        let beside = download_beside(Some(flood), 16);
        let story = format!(
            "{name}: {:?} beside {:?} alone, {} messages beside {}, {} unposted, {} calls, {} bytes",
            beside.took,
            alone.took,
            beside.posted,
            alone.posted,
            beside.unposted_max,
            beside.calls,
            beside.said
        );
        assert!(beside.took.as_secs_f64() <= 1.5 * alone.took.as_secs_f64(), "{story}");
        assert!(beside.unposted_max <= 16 + 2 * FLOODERS, "{story}");
        // Some for each connection that comes and goes (an exchange of peers may be a dozen), and in a second for each that
        // stays.
        let most = 2 * alone.posted + 24 * u64::from(beside.calls) + 100 * FLOODERS as u64;
        assert!(beside.posted <= most, "{story}");
    }
}

#[test]
fn while_its_home_sleeps_no_flood_fills_a_workers_memory() {
    for (name, flood) in floods() {
        let mut rig = LeechRig::with_mailboxes(4, Faults::default(), 2, 4);
        rig.indifferent = true;
        let mut flooders = Flooders::new(&mut rig, flood);
        rig.asleep[1] = true;
        for _ in 0..2000 {
            flooders.turn(&mut rig);
            rig.run(1);
            // One event of one connection, and the end of each that had joined.
            let unposted = rig.workers[0].unposted_count();
            assert!(unposted <= 16 + 2 * FLOODERS, "{name}: {unposted}");
            // What the receive buffers hold, twice.
            let bytes = rig.workers[0].backlog_bytes();
            assert!(bytes <= 2 * 8 * 4096, "{name}: {bytes} bytes");
        }
        rig.asleep[1] = false;
        let honest = rig.add(Manner::default(), Bitfield::all(PIECES));
        rig.call_on(honest, 0);
        rig.complete();
        for place in &flooders.sockets {
            place.iter().for_each(|&(socket, _)| rig.workers[0].ring_mut().peer_closes(socket));
        }
        rig.run(100);
        rig.stop();
    }
}

#[test]
fn a_worker_that_sleeps_hears_of_all_new_pieces_in_one_word() {
    let mut rig = LeechRig::with_mailboxes(5, Faults::default(), 2, 2);
    let leech = rig.add(Manner::default(), Bitfield::none(PIECES));
    rig.call_on(leech, 0);
    rig.run(100);
    let seed = rig.add(Manner::default(), Bitfield::all(PIECES));
    rig.call_on(seed, 1);
    rig.asleep[0] = true;
    rig.until(|rig| rig.satisfied > 0);
    // The mailbox has two messages; of 13 pieces one word waits, and another that the download is done.
    assert!(rig.workers[1].unposted_count() <= 4, "{}", rig.workers[1].unposted_count());
    rig.asleep[0] = false;
    rig.complete();
    rig.until(|rig| rig.givers[leech].told.is_full());
    rig.stop();
}

#[test]
fn a_download_limit_is_not_spent_on_wishes_that_come_to_nothing() {
    let time = |flood: Option<Flood>| {
        let mut rig = LeechRig::limited(6, ByteRate(400_000));
        let mut flooders = flood.map(|flood| Flooders::new(&mut rig, flood));
        let seed = rig.add(Manner::default(), Bitfield::all(PIECES));
        rig.call_on(seed, 0);
        let began = rig.now();
        rig.until(|rig| {
            flooders.iter_mut().for_each(|flooders| flooders.turn(rig));
            rig.satisfied > 0
        });
        let took = rig.now().since(began);
        rig.complete();
        for place in flooders.iter().flat_map(|flooders| &flooders.sockets) {
            place.iter().for_each(|&(socket, _)| rig.workers[0].ring_mut().peer_closes(socket));
        }
        rig.run(100);
        rig.stop();
        took
    };
    let alone = time(None);
    assert!(alone > Duration::from_millis(1500), "{alone:?}");
    let beside = time(Some(Flood::PlainWords(|_, out| say(out, &[Message::Unchoke, Message::Choke]))));
    assert!(beside.as_secs_f64() <= 1.2 * alone.as_secs_f64(), "{beside:?} beside {alone:?} alone");
    assert!(beside.as_secs_f64() >= 0.9 * alone.as_secs_f64(), "{beside:?} beside {alone:?} alone");
}
