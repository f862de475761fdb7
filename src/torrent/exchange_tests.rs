//! Machines that tell each other of peers (BEP 11), floods of it, and private torrents where there is none of it.

use super::*;
use crate::limits::{PEX_FIRST_DELAY, PEX_INTERVAL, PEX_OFFENCES_MAX, PEX_PEERS_MAX};
use crate::peer_list::{PeerListSettings, Scope, Source};
use crate::picker::{Order, PieceShape};
use crate::time::Duration;
use crate::wire::{PexFlags, PexMessage, PexPeer};

const START: Instant = Instant::from_nanos(86_400_000_000_000);

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([11, 0, 0, number], 6881))
}

fn peer_id(number: u8) -> PeerId {
    PeerId([number; 20])
}

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

struct Client {
    machine: TorrentMachine,
    rng: Rng,
}

impl Client {
    fn new(number: u8, private: bool) -> Self {
        let parameters = TorrentParameters {
            role: Role::Seeding,
            slots: Slots::Fixed(4),
            piece_len: 1 << 20,
            total_len: 1 << 24,
        };
        let mut machine = TorrentMachine::new(parameters);
        machine.keep_members(PeerListSettings { private, ..PeerListSettings::new(peer_id(number)) });
        Self { machine, rng: Rng::from_seed(u64::from(number)) }
    }

    fn leech(number: u8, private: bool) -> Self {
        let mut client = Self::new(number, private);
        let pieces = 16;
        let shape = PieceShape { piece_count: pieces, piece_length: 1 << 20, total_len: 1 << 24 };
        let plan = DownloadPlan {
            shape,
            have: crate::bitfield::Bitfield::none(pieces),
            wanted: crate::bitfield::Bitfield::all(pieces),
            first: crate::bitfield::Bitfield::none(pieces),
            order: Order::RarestFirst,
        };
        client.machine.begin_download(&plan, &mut client.rng);
        client
    }

    /// Connected with that client, which has dialled or was dialled, and knows each other's extensions.
    fn meet(&mut self, other: u8, dialled: bool) {
        let newcomer = Newcomer {
            remote: address(other).ip(),
            peer_id: peer_id(other),
            dialled: dialled.then(|| address(other)),
        };
        if dialled {
            self.machine.handle_candidate(
                START,
                address(other),
                Source::Tracker(Scope::Global),
                &mut self.rng,
            );
            assert_eq!(self.actions(), [TorrentAction::Dial(address(other))]);
        }
        let conn = conn(other.into());
        assert!(self.machine.handle_newcomer(START, conn, newcomer, &mut self.rng));
        self.machine.handle_told_address(START, conn, address(other).ip(), Some(6881), None, true);
    }

    fn actions(&mut self) -> Vec<TorrentAction> {
        std::iter::from_fn(|| self.machine.poll_action()).collect()
    }

    /// Lets time pass; who is told what meanwhile.
    fn until(&mut self, end: Instant, sample: impl Fn(ConnId) -> PeerSample) -> Vec<(ConnId, Vec<u8>)> {
        let mut told = Vec::new();
        while let Some(now) = self.machine.poll_timeout().filter(|&due| due <= end) {
            self.machine.handle_timeout(now, &sample, &mut self.rng);
            told.extend(self.actions().into_iter().filter_map(|action| match action {
                TorrentAction::Exchange(conn, payload) => Some((conn, payload)),
                _ => None,
            }));
        }
        told
    }

    fn hear(&mut self, now: Instant, payload: &[u8]) -> Vec<TorrentAction> {
        self.machine.handle_exchange(now, conn(2), payload, &mut self.rng);
        self.actions()
    }
}

fn added(peers: impl IntoIterator<Item = (SocketAddr, PexFlags)>) -> Vec<u8> {
    let added = peers.into_iter().map(|(address, flags)| PexPeer { address, flags }).collect();
    PexMessage { added, dropped: Vec::new() }.encode()
}

#[test]
fn two_peers_of_one_client_learn_of_each_other_and_of_its_end() {
    let mut middle = Client::new(2, false);
    middle.meet(1, false);
    middle.meet(3, true);
    let has_all = |of: ConnId| PeerSample {
        reported_pieces: if of == conn(1) { 16 } else { 3 },
        ..PeerSample::default()
    };
    let told = middle.until(START + PEX_FIRST_DELAY, has_all);
    let [(to_one, for_one), (to_three, for_three)] = &told[..] else { panic!("{told:?}") };
    assert_eq!((*to_one, *to_three), (conn(1), conn(3)));
    let flags_of = |payload: &[u8]| {
        let message = PexMessage::decode(payload).expect("our own message");
        message.added.iter().map(|peer| (peer.address, peer.flags)).collect::<Vec<_>>()
    };
    assert_eq!(flags_of(for_one), [(address(3), PexFlags::REACHABLE)]);
    assert_eq!(flags_of(for_three), [(address(1), PexFlags::UPLOAD_ONLY)]);

    // Who hears of it dials.
    let mut first = Client::leech(1, false);
    first.meet(2, true);
    first.actions();
    assert_eq!(first.hear(START + PEX_FIRST_DELAY, for_one), [TorrentAction::Dial(address(3))]);

    middle.machine.handle_closed(
        START + PEX_FIRST_DELAY,
        conn(3),
        Closed::Normal,
        PeerSample::default(),
        &mut middle.rng,
    );
    let told = middle.until(START + PEX_FIRST_DELAY + PEX_INTERVAL, has_all);
    let [(to, payload)] = &told[..] else { panic!("{told:?}") };
    let message = PexMessage::decode(payload).expect("our own message");
    assert_eq!((*to, message.added.len(), message.dropped), (conn(1), 0, vec![address(3)]));
}

#[test]
fn a_seed_does_not_dial_seeds_and_a_leech_does() {
    let payload = added([(address(7), PexFlags::UPLOAD_ONLY), (address(8), PexFlags::REACHABLE)]);
    let mut seed = Client::new(1, false);
    seed.meet(2, true);
    assert_eq!(seed.hear(START, &payload), [TorrentAction::Dial(address(8))]);
    let mut leech = Client::leech(1, false);
    leech.meet(2, true);
    let dialled = leech.hear(START, &payload);
    assert_eq!(dialled.len(), 2, "{dialled:?}");
}

#[test]
fn in_a_private_torrent_nothing_goes_out_and_nothing_is_believed() {
    let mut client = Client::leech(1, true);
    client.meet(2, true);
    client.meet(3, true);
    assert_eq!(client.until(START + PEX_INTERVAL * 3, |_| PeerSample::default()), []);
    assert_eq!(client.hear(START, &added([(address(9), PexFlags::REACHABLE)])), []);
    assert!(!client.machine.exchange.is_made(), "nothing is kept");
}

#[test]
fn a_flood_is_closed_and_names_few_candidates() {
    let mut client = Client::leech(1, false);
    client.meet(2, true);
    let mut closed_after = None;
    let mut dialled = 0;
    for number in 0..1000_u16 {
        let [high, low] = number.to_be_bytes();
        let many = (0..200).map(|host| (SocketAddr::from(([11, 1 + high, low, host], 6881)), PexFlags(0)));
        let actions = client.hear(START + Duration::from_millis(number.into()), &added(many));
        dialled += actions.iter().filter(|action| matches!(action, TorrentAction::Dial(_))).count();
        if actions.contains(&TorrentAction::CloseFlooder(conn(2))) {
            closed_after = Some(u32::from(number) + 1);
            break;
        }
    }
    let closed_after = closed_after.expect("a flood ends");
    assert!(closed_after <= PEX_OFFENCES_MAX + 4, "{closed_after}");
    assert!(dialled <= 3 * PEX_PEERS_MAX, "{dialled}");
}

#[test]
fn nonsense_own_and_local_addresses_and_port_zero_are_never_dialled() {
    let mut client = Client::leech(1, false);
    client.meet(2, true);
    client.machine.members.list_for_tests().handle_own_address(address(1));
    let bad =
        ["127.0.0.1:80", "192.168.0.1:80", "10.1.1.1:80", "224.0.0.1:80", "11.0.0.5:0", "11.0.0.1:6881"];
    let bad = bad.map(|text| (text.parse().expect("a literal address"), PexFlags::REACHABLE));
    assert_eq!(client.hear(START, &added(bad)), []);
    assert_eq!(client.hear(START + PEX_INTERVAL, b"d5:added6:abcdef7:added.f2:..e"), []);
    assert_eq!(client.hear(START + PEX_INTERVAL * 2, b"x"), []);
}

#[test]
fn the_last_peer_takes_the_memory_with_it() {
    let mut client = Client::new(1, false);
    client.meet(2, false);
    assert!(client.machine.exchange.is_made());
    client.machine.handle_closed(START, conn(2), Closed::Normal, PeerSample::default(), &mut client.rng);
    assert!(!client.machine.exchange.is_made());
}

#[test]
fn a_peer_that_is_heard_of_keeps_its_place() {
    let mut client = Client::leech(1, false);
    client.meet(2, false);
    let later = START + crate::limits::DUPLICATE_IDLE_TIME + Duration::from_secs(1);
    let heard = later - Duration::from_secs(30);
    client.until(later, |_| PeerSample { heard_at: heard, ..PeerSample::default() });
    let again = Newcomer { remote: address(2).ip(), peer_id: peer_id(2), dialled: None };
    // Anybody may come under that name: who is heard of is not closed for it.
    assert!(client.machine.handle_newcomer(later, conn(9), again, &mut client.rng));
    assert_eq!(client.machine.poll_action(), None);
    // Silent for as long again, it is.
    let silent = heard + crate::limits::DUPLICATE_IDLE_TIME;
    assert!(client.machine.handle_newcomer(silent, conn(10), again, &mut client.rng));
    assert_eq!(client.machine.poll_action(), Some(TorrentAction::Close(conn(2))));
}
