//! The peer list's promises: whom it dials, which connection it keeps, and that nothing makes it grow.

mod model;
mod mutual;

use super::*;
use crate::limits::{
    ADDRESSES_PER_CONNECTION_MAX, CANDIDATES_PER_ADDRESS_MAX, CANDIDATES_PER_TELLER_MAX, DIAL_RETRY_MAX,
    DIAL_RETRY_QUICK, DUPLICATE_IDLE_TIME, PROTOCOL_ERROR_RETRY_MIN,
};
use crate::rng::Rng;
use crate::time::Duration;

const OWN: PeerId = PeerId([5; 20]);
const SMALL: PeerId = PeerId([1; 20]);
const GREAT: PeerId = PeerId([9; 20]);
const START: Instant = Instant::from_nanos(1_000_000_000);

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a literal address")
}

fn conn(slot: u32) -> ConnId {
    ConnId { worker: 0, slot, generation: 0 }
}

fn list() -> PeerList {
    PeerList::new(PeerListSettings::new(OWN))
}

fn rng() -> Rng {
    Rng::from_seed(1)
}

/// A list with one connection, dialled.
fn connected(remote: &str, peer_id: PeerId) -> PeerList {
    let mut list = list();
    assert!(list.add(START, address(remote), Source::User));
    assert_eq!(list.next_dial(START, &mut rng()), Some(address(remote)));
    assert_eq!(list.handle_connected(START, address(remote), conn(0), peer_id), Verdict::Keep);
    list
}

/// A tracker of the public network.
const TRACKER: Source = Source::Tracker(Scope::Global);

fn dials(list: &mut PeerList, now: Instant) -> Vec<SocketAddr> {
    let mut rng = rng();
    std::iter::from_fn(|| list.next_dial(now, &mut rng)).collect()
}

fn standing(list: &PeerList, text: &str) -> Option<Standing> {
    list.shown().find(|shown| shown.address == address(text)).map(|shown| shown.standing)
}

#[test]
fn the_users_peers_come_first_and_then_the_highest_priorities() {
    let mut list = list();
    let own = address("123.213.32.10:6881");
    list.handle_own_address(own);
    let others: Vec<_> = (11..30).map(|net| address(&format!("{net}.7.7.7:6881"))).collect();
    assert!(others.iter().all(|&other| list.add(START, other, TRACKER)));
    assert!(list.add(START, address("98.76.54.32:1"), Source::User));
    let dialled = dials(&mut list, START);
    assert_eq!(dialled[0], address("98.76.54.32:1"));
    let priorities: Vec<_> = dialled[1..].iter().map(|&other| canonical_priority(own, other)).collect();
    assert_eq!(priorities.len(), others.len());
    assert!(priorities.is_sorted_by(|one, next| one >= next));
}

#[test]
fn a_new_own_address_ranks_everybody_again() {
    let mut list = PeerList::new(PeerListSettings { dialling_max: 1, ..PeerListSettings::new(OWN) });
    let others: Vec<_> = (11..30).map(|net| address(&format!("{net}.7.7.7:6881"))).collect();
    assert!(others.iter().all(|&other| list.add(START, other, TRACKER)));
    let first = list.next_dial(START, &mut rng()).expect("nobody is waiting");
    let own = address("123.213.32.10:6881");
    list.handle_own_address(own);
    list.handle_dial_failed(START, first);
    let others = others.into_iter().filter(|&other| other != first);
    let best = others.max_by_key(|&other| canonical_priority(own, other));
    assert_eq!(list.next_dial(START, &mut rng()), best);
    list.candidates.check();
}

#[test]
fn who_is_near_may_name_what_is_near() {
    let mut far = connected("192.0.2.1:1", SMALL);
    assert!(!far.add_told(START, address("127.0.0.1:1"), conn(0)));
    assert!(far.add_told(START, address("192.0.2.2:1"), conn(0)));
    let mut near = connected("10.0.0.1:1", SMALL);
    assert!(near.add_told(START, address("192.168.0.1:1"), conn(0)));
    assert!(!near.add_told(START, address("127.0.0.1:1"), conn(0)));
    let mut here = connected("127.0.0.1:9", SMALL);
    assert!(here.add_told(START, address("127.0.0.1:1"), conn(0)));
    assert!(!here.add_told(START, address("127.0.0.1:2"), conn(1)));
    let mut allowed = PeerList::new(PeerListSettings { lan_allowed: true, ..PeerListSettings::new(OWN) });
    assert!(allowed.add(START, address("10.0.0.1:1"), Source::Pex));
}

#[test]
fn a_private_torrent_takes_peers_from_its_tracker_and_the_user_alone() {
    let mut list = PeerList::new(PeerListSettings { private: true, ..PeerListSettings::new(OWN) });
    for source in [Source::Pex, Source::Dht, Source::Resume, Source::Incoming] {
        assert!(!list.add(START, address("192.0.2.1:1"), source));
    }
    assert!(list.add(START, address("192.0.2.1:1"), TRACKER));
    assert!(list.add(START, address("192.0.2.2:1"), Source::User));
    let remote = IpAddr::from([192, 0, 2, 3]);
    assert_eq!(
        list.handle_incoming(START, remote, Some(address("192.0.2.3:9")), conn(1), SMALL),
        Verdict::Keep
    );
    assert_eq!(list.candidates(), 2);
}

#[test]
fn caps_hold_and_waiting_has_no_end_while_there_is_no_room() {
    let settings = PeerListSettings { connections_max: 3, dialling_max: 2, ..PeerListSettings::new(OWN) };
    let mut list = PeerList::new(settings);
    for port in 1..=6 {
        assert!(list.add(START, SocketAddr::from(([192, 0, 2, 1], port)), Source::User));
    }
    assert_eq!(list.poll_timeout(), Some(START));
    let dialled = dials(&mut list, START);
    assert_eq!((dialled.len(), list.dialling(), list.poll_timeout()), (2, 2, None));
    assert_eq!(list.handle_connected(START, dialled[0], conn(0), SMALL), Verdict::Keep);
    assert_eq!(dials(&mut list, START).len(), 1);
    let remote = IpAddr::from([198, 51, 100, 1]);
    assert_eq!(list.handle_incoming(START, remote, None, conn(1), PeerId([30; 20])), Verdict::Keep);
    assert_eq!(list.handle_connected(START, dialled[1], conn(2), GREAT), Verdict::Keep);
    assert_eq!(list.handle_incoming(START, remote, None, conn(3), PeerId([31; 20])), Verdict::CloseNew);
    assert_eq!((list.connected(), list.dialling(), dials(&mut list, START)), (3, 1, Vec::new()));
    list.candidates.check();
}

#[test]
fn patience_grows_from_a_quick_retry_to_an_hour() {
    let mut list = list();
    let peer = address("192.0.2.1:1");
    list.add(START, peer, TRACKER);
    let mut now = START;
    for secs in [5, 15, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600, 3600] {
        assert_eq!(dials(&mut list, now), [peer]);
        list.handle_dial_failed(now, peer);
        let until = list.poll_timeout().expect("it is tried again");
        let patience = until.since(now);
        let least = Duration::from_secs(secs);
        assert!(patience >= least && patience <= least + least / 4, "{patience:?} for {secs} s");
        assert_eq!(dials(&mut list, until - Duration::from_nanos(1)), []);
        now = until;
    }
}

#[test]
fn a_long_connection_wipes_failures_out_and_a_short_one_is_a_failure() {
    for (lasted, why, least) in [
        (3600, Closed::Normal, DIAL_RETRY_QUICK),
        (1, Closed::Normal, limits::DIAL_RETRY_MIN),
        (3600, Closed::ProtocolError, PROTOCOL_ERROR_RETRY_MIN),
    ] {
        let mut list = connected("192.0.2.1:1", SMALL);
        let now = START + Duration::from_secs(lasted);
        list.handle_closed(now, conn(0), why);
        let patience = list.poll_timeout().expect("it is tried again").since(now);
        assert!(patience >= least && patience <= least + least / 4, "{patience:?} after {why:?}");
        assert_eq!(list.connected(), 0);
        list.handle_closed(now, conn(0), why);
    }
}

#[test]
fn a_seed_is_not_dialled_again_until_we_want_pieces() {
    let mut list = connected("192.0.2.1:1", SMALL);
    list.handle_closed(START, conn(0), Closed::Useless);
    assert_eq!((standing(&list, "192.0.2.1:1"), list.poll_timeout()), (Some(Standing::Shelved), None));
    assert!(!list.add(START, address("192.0.2.1:1"), TRACKER));
    assert_eq!(dials(&mut list, START + DIAL_RETRY_MAX * 100), []);
    list.handle_seeding_ended(START);
    assert_eq!(dials(&mut list, START), [address("192.0.2.1:1")]);
}

#[test]
fn who_turns_out_to_be_ourselves_is_not_met_again() {
    let mut list = list();
    let ours = address("192.0.2.1:1");
    list.add(START, ours, TRACKER);
    assert_eq!(dials(&mut list, START), [ours]);
    assert_eq!(list.handle_incoming(START, ours.ip(), None, conn(1), OWN), Verdict::CloseNew);
    assert_eq!(list.handle_connected(START, ours, conn(0), OWN), Verdict::CloseNew);
    assert_eq!((list.candidates(), list.connected(), list.dialling()), (0, 0, 0));
    assert!(!list.add(START, ours, TRACKER));
    // Found out only later.
    let mut list = connected("192.0.2.1:1", SMALL);
    list.handle_closed(START, conn(0), Closed::Ourselves);
    assert!(list.candidates() == 0 && !list.add(START, ours, Source::User));
}

#[test]
fn a_banned_peer_is_closed_refused_and_not_dialled_until_its_time_is_over() {
    let mut list = connected("192.0.2.1:1", SMALL);
    list.add(START, address("192.0.2.1:2"), Source::User);
    let ip = address("192.0.2.1:1").ip();
    assert_eq!(list.ban(START, ip, SMALL, BanReason::WrongData), [conn(0)]);
    list.handle_closed(START, conn(0), Closed::ProtocolError);
    assert!(list.is_banned(START, ip, Some(SMALL)) && list.bans(START).count() == 1);
    assert_eq!(list.handle_incoming(START, ip, None, conn(1), SMALL), Verdict::CloseNew);
    let end = START + limits::BAN_TIME_MIN;
    // Who else is at that address is not to blame.
    assert_eq!(dials(&mut list, end - Duration::from_secs(1)), [address("192.0.2.1:2")]);
    assert_eq!(dials(&mut list, end), [address("192.0.2.1:1")]);
    assert!(!list.is_banned(end, ip, Some(SMALL)));
}

#[test]
fn a_liar_is_banned_and_its_neighbours_at_one_address_are_not() {
    for remote in ["11.9.9.9", "2001:db8::9", "10.0.0.9", "127.0.0.1"] {
        let ip: IpAddr = remote.parse().expect("a literal address");
        let mut list = list();
        let name = |number: u8| PeerId([number; 20]);
        for number in 1..=3_u8 {
            assert_eq!(
                list.handle_incoming(START, ip, None, conn(number.into()), name(number)),
                Verdict::Keep
            );
        }
        // The third has given right pieces, the second has not yet.
        list.handle_proven(conn(3));
        assert_eq!(list.ban(START, ip, name(1), BanReason::WrongData), [conn(1)]);
        list.handle_closed(START, conn(1), Closed::ProtocolError);
        assert_eq!(list.handle_incoming(START, ip, None, conn(4), name(4)), Verdict::Keep);
        assert_eq!(list.ban(START, ip, name(5), BanReason::WrongData), []);
        assert!(!list.is_banned(START, ip, None), "two names are not the address");
        let closed = list.ban(START, ip, name(6), BanReason::WrongData);
        if ip.is_loopback() {
            assert_eq!(closed, []);
            continue;
        }
        assert_eq!(closed, [conn(2), conn(4)], "the third name is; who has given right pieces stays");
        assert_eq!(list.handle_incoming(START, ip, None, conn(7), name(7)), Verdict::CloseNew);
    }
}

#[test]
fn who_lies_in_the_name_of_another_does_not_get_it_closed() {
    let ip = IpAddr::from([192, 0, 2, 1]);
    let mut list = list();
    assert_eq!(list.handle_incoming(START, ip, None, conn(0), SMALL), Verdict::Keep);
    list.handle_proven(conn(0));
    assert_eq!(list.handle_incoming(START, ip, None, conn(1), SMALL), Verdict::Keep);
    assert_eq!(list.ban(START, ip, SMALL, BanReason::WrongData), [conn(1)]);
}

#[test]
fn on_loopback_a_ban_holds_for_one_peer_id() {
    let mut list = connected("127.0.0.1:1", SMALL);
    let ip = address("127.0.0.1:1").ip();
    assert_eq!(list.handle_incoming(START, ip, None, conn(1), GREAT), Verdict::Keep);
    assert_eq!(list.ban(START, ip, SMALL, BanReason::WrongData), [conn(0)]);
    list.handle_closed(START, conn(0), Closed::ProtocolError);
    list.add(START, address("127.0.0.1:2"), Source::Tracker(Scope::Loopback));
    assert_eq!(dials(&mut list, START + PROTOCOL_ERROR_RETRY_MIN * 2), [address("127.0.0.1:2")]);
    assert!(list.is_banned(START, ip, Some(SMALL)) && !list.is_banned(START, ip, Some(GREAT)));
}

#[test]
fn a_name_that_somebody_else_took_first_keeps_nobody_out() {
    // The squatter came before, at another address, at another port of the same one, or without a word about its port.
    for (squatter, incoming) in [("192.0.2.9:7", false), ("192.0.2.1:7", false), ("192.0.2.1:7", true)] {
        for own_id in [SMALL, GREAT] {
            let name = PeerId([5; 20]);
            let mut list = PeerList::new(PeerListSettings::new(own_id));
            let (squatter, owner) = (address(squatter), address("192.0.2.1:1"));
            if incoming {
                assert_eq!(list.handle_incoming(START, squatter.ip(), None, conn(0), name), Verdict::Keep);
            } else {
                list.add(START, squatter, Source::User);
                assert_eq!(dials(&mut list, START), [squatter]);
                assert_eq!(list.handle_connected(START, squatter, conn(0), name), Verdict::Keep);
            }
            list.add(START, owner, TRACKER);
            assert_eq!(dials(&mut list, START), [owner]);
            assert_eq!(list.handle_connected(START, owner, conn(1), name), Verdict::Keep);
            // It says now that it is the owner: that closes nobody but itself.
            let closed = list.handle_listening_port(START, conn(0), owner.port());
            assert_eq!(closed, (incoming && own_id == GREAT).then_some(conn(0)));
            assert_eq!(standing(&list, "192.0.2.1:1"), Some(Standing::Connected(conn(1))));
            // The other way round, a seeder: the owner comes to it.
            for (number, remote) in [(2, owner.ip()), (3, "192.0.2.77".parse().expect("an address"))] {
                assert_eq!(list.handle_incoming(START, remote, None, conn(number), name), Verdict::Keep);
            }
            assert_eq!(list.handle_listening_port(START, conn(2), 99), None);
            list.candidates.check();
        }
    }
}

#[test]
fn of_two_connections_one_way_the_older_is_closed_only_when_it_is_silent() {
    let remote = IpAddr::from([192, 0, 2, 1]);
    let mut list = list();
    assert_eq!(list.handle_incoming(START, remote, None, conn(0), SMALL), Verdict::Keep);
    let silent = START + DUPLICATE_IDLE_TIME;
    // Anybody can claim a name: from elsewhere it displaces nobody.
    let elsewhere = IpAddr::from([192, 0, 2, 2]);
    assert_eq!(list.handle_incoming(silent, elsewhere, None, conn(1), SMALL), Verdict::Keep);
    assert_eq!(list.handle_incoming(silent, remote, None, conn(2), SMALL), Verdict::CloseOld(conn(0)));
    list.handle_closed(silent, conn(0), Closed::Normal);
    let later = silent + DUPLICATE_IDLE_TIME;
    list.handle_heard(later, conn(2));
    assert_eq!(list.handle_incoming(later, remote, None, conn(3), SMALL), Verdict::Keep);
    assert_eq!(list.connected(), 3);
}

#[test]
fn one_peer_in_two_networks_has_a_connection_in_each_and_is_dialled_in_neither() {
    let mut list = connected("192.0.2.1:1", SMALL);
    for number in 1..10 {
        let other = address(&format!("[2001:db8:0:{number}::1]:1"));
        list.add(START, other, Source::User);
        assert_eq!(dials(&mut list, START), [other]);
        assert_eq!(list.handle_connected(START, other, conn(number), SMALL), Verdict::Keep);
        assert_eq!(standing(&list, &other.to_string()), Some(Standing::Connected(conn(number))));
    }
    assert_eq!((list.connected(), dials(&mut list, START + DIAL_RETRY_MAX)), (10, Vec::new()));
    list.candidates.check();
}

#[test]
fn a_connection_has_few_addresses_of_its_own() {
    let mut list = list();
    let remote = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(list.handle_incoming(START, remote, None, conn(0), SMALL), Verdict::Keep);
    for port in 1..20 {
        assert_eq!(list.handle_listening_port(START, conn(0), port), None);
    }
    let linked = list.shown().filter(|shown| shown.standing == Standing::Connected(conn(0))).count();
    assert_eq!(linked, ADDRESSES_PER_CONNECTION_MAX);
    list.handle_closed(START, conn(0), Closed::Normal);
    assert!(!list.shown().any(|shown| matches!(shown.standing, Standing::Connected(_))));
    list.candidates.check();
}

#[test]
fn who_comes_to_us_and_says_where_it_listens_is_dialled_once_it_has_gone() {
    let mut list = list();
    let remote = IpAddr::from([192, 0, 2, 1]);
    assert_eq!(list.handle_incoming(START, remote, None, conn(0), SMALL), Verdict::Keep);
    assert_eq!(list.handle_listening_port(START, conn(0), 0), None);
    assert_eq!(list.candidates(), 0);
    assert_eq!(list.handle_listening_port(START, conn(0), 6881), None);
    assert_eq!(standing(&list, "192.0.2.1:6881"), Some(Standing::Connected(conn(0))));
    let exchanged: Vec<_> = list.exchangeable().collect();
    assert_eq!(exchanged, [(conn(0), address("192.0.2.1:6881"), Direction::Incoming)]);
    assert_eq!(dials(&mut list, START), []);
    let now = START + Duration::from_secs(3600);
    list.handle_closed(now, conn(0), Closed::Normal);
    assert_eq!(dials(&mut list, now + DIAL_RETRY_QUICK * 2), [address("192.0.2.1:6881")]);
    assert_eq!(list.proven().count(), 0, "we have never reached it");
}

#[test]
fn a_flood_neither_grows_the_list_nor_drives_better_candidates_out() {
    let settings = PeerListSettings { candidates_max: 100, ..PeerListSettings::new(OWN) };
    let mut list = PeerList::new(settings);
    let trusted: Vec<_> = (31..=50).map(|net| address(&format!("{net}.1.1.1:1"))).collect();
    let user = address("21.1.1.1:1");
    assert!(trusted.iter().all(|&peer| list.add(START, peer, TRACKER)));
    assert!(list.add(START, user, Source::User));
    let mut rng = rng();
    for _ in 0..1_000_000 {
        let [a, b, c, d, e, f, ..] = rng.next_u64().to_be_bytes();
        list.add(START, SocketAddr::from(([a, b, c, d], u16::from_be_bytes([e, f]))), Source::Pex);
    }
    assert_eq!(list.candidates(), 100);
    assert!(trusted.iter().chain([&user]).all(|&peer| list.candidates.get(peer).is_some()));
    list.candidates.check();
}

#[test]
fn one_address_and_one_teller_have_few_candidates() {
    let mut list = connected("198.51.100.1:1", SMALL);
    for port in 1..=100 {
        list.add(START, SocketAddr::from(([192, 0, 2, 1], port)), TRACKER);
        list.add(START, SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, port], 7)), Source::Dht);
    }
    assert_eq!(list.candidates(), 1 + 2 * CANDIDATES_PER_ADDRESS_MAX);
    let before = list.candidates();
    for number in 0..2000_u16 {
        let [b, c] = number.to_be_bytes();
        list.add_told(START, SocketAddr::from(([11, b, c, 1], 6881)), conn(0));
    }
    assert_eq!(list.candidates() - before, CANDIDATES_PER_TELLER_MAX as usize);
}
