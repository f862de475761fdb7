//! Each check finds what it is for: something is broken by hand in a swarm where all held, and that is what is found.

use super::check::Property;
use super::node::{Connection, Packet, Seat, SimBlock};
use super::*;
use crate::bitfield::Bitfield;
use crate::peer_list::Closed;
use crate::units::{BLOCK_LEN, BlockSpan, ByteRate};
use crate::wire::{Message, encode};
use smallvec::{SmallVec, smallvec};
use std::sync::atomic::AtomicBool;

const SHAPE: ContentShape = ContentShape { piece_length: 64 * 1024, total_len: 60 * 64 * 1024 - 5000 };

/// One seed and five leeches in the middle of their work.
fn at_work() -> Swarm {
    let peer = |have| PeerTerms::new(ByteRate(100_000), have);
    let mut peers = vec![peer(Bitfield::all(SHAPE.piece_count()))];
    peers.extend((0..5).map(|_| peer(Bitfield::none(SHAPE.piece_count()))));
    let slots = crate::choker::Slots::Fixed(2);
    let policies = Policies { slots, seed_slots: slots, ..Policies::default() };
    let mut swarm = Swarm::new(1, SHAPE, policies, peers);
    swarm.check_every(1);
    swarm.run_on(Instant::ZERO + Duration::from_secs(15));
    assert_eq!(swarm.violation(), None);
    assert!(swarm.recounts() > 1000);
    swarm
}

/// What is found in a swarm that was broken.
fn found(mut swarm: Swarm) -> Option<Property> {
    swarm.run_on(swarm.now() + Duration::from_secs(1));
    swarm.violation().map(|violation| violation.property)
}

fn ends(swarm: &Swarm) -> Vec<(Seat, Seat)> {
    let ends = |node: &Node| {
        let seat = |slot| node.seat(slot);
        let with_other = |slot: u32| Some((seat(slot), node.connections[slot as usize].as_ref()?.other?));
        node.open_slots().into_iter().filter_map(with_other).collect::<Vec<_>>()
    };
    swarm.nodes.iter().flat_map(ends).collect()
}

/// An end of which that is true, and the other end.
fn end_where(swarm: &Swarm, is_it: impl Fn(&Node, &Connection) -> bool) -> (Seat, Seat) {
    let holds = |(seat, _): &(Seat, Seat)| {
        let node = &swarm.nodes[seat.node.0 as usize];
        node.connections[seat.slot as usize].as_ref().is_some_and(|connection| is_it(node, connection))
    };
    ends(swarm).into_iter().find(holds).expect("there is such a connection")
}

fn connection(swarm: &mut Swarm, seat: Seat) -> &mut Connection {
    swarm.nodes[seat.node.0 as usize].connection(seat.slot, seat.generation).expect("it is open")
}

fn missing_piece(node: &Node) -> PieceIndex {
    let missing = (0..SHAPE.piece_count()).map(PieceIndex).find(|&piece| !node.facts.have.contains(piece));
    missing.expect("it is a leech")
}

/// An end says something that its machine did not.
fn say(swarm: &mut Swarm, (from, to): (Seat, Seat), message: &Message<'_>) {
    let mut control = Vec::new();
    encode(message, &mut control);
    send(swarm, (from, to), Packet { control: control.into(), block: None });
}

fn send(swarm: &mut Swarm, (from, to): (Seat, Seat), packet: Packet) {
    if let Some(block) = packet.block {
        swarm.nodes[from.node.0 as usize].given += u64::from(block.span.len);
    }
    swarm.carry(from, to, packet, Duration::ZERO);
}

#[test]
fn bytes_that_vanish_are_missed() {
    let mut swarm = at_work();
    swarm.balance.received -= 1;
    assert_eq!(found(swarm), Some(Property::BytesBalance));
    let mut swarm = at_work();
    let len = u64::from(BLOCK_LEN);
    (swarm.balance.in_flight, swarm.balance.lost) = (swarm.balance.in_flight - len, swarm.balance.lost + len);
    assert_eq!(found(swarm), Some(Property::BytesBalance));
}

#[test]
fn a_block_for_a_choked_peer_is_seen_on_the_line() {
    let mut swarm = at_work();
    let ends = end_where(&swarm, |node, it| node.number.0 == 0 && it.machine.choked_by_us());
    let taps = &swarm.checks.as_ref().expect("they are on").taps;
    let fast = |piece| taps.get(&ends.0).is_some_and(|tap| tap.fast.contains(&piece));
    let piece = (0..SHAPE.piece_count()).map(PieceIndex).find(|&piece| !fast(piece));
    let span = BlockSpan { piece: piece.expect("few are allowed fast"), begin: 0, len: BLOCK_LEN };
    let block = Some(SimBlock { span, content: node::GOOD });
    send(&mut swarm, ends, Packet { control: SmallVec::new(), block });
    assert_eq!(found(swarm), Some(Property::NoBlockWhileChoked));
}

#[test]
fn an_offer_of_what_is_not_stored_is_seen_on_the_line_and_in_the_books() {
    let mut swarm = at_work();
    let ends = end_where(&swarm, |node, _| node.number.0 == 1);
    let piece = missing_piece(&swarm.nodes[1]);
    say(&mut swarm, ends, &Message::Have(piece));
    assert_eq!(found(swarm), Some(Property::OnlyStoredOffered));
    let swarm = at_work();
    let piece = missing_piece(&swarm.nodes[1]);
    swarm.nodes[1].facts.have.insert(piece);
    assert_eq!(found(swarm), Some(Property::OnlyStoredOffered));
}

#[test]
fn an_answer_to_no_request_is_seen_on_the_line() {
    let mut swarm = at_work();
    let ends = ends(&swarm)[0];
    say(&mut swarm, ends, &Message::Reject(BlockSpan { piece: PieceIndex(0), begin: 0, len: 77 }));
    assert_eq!(found(swarm), Some(Property::AnsweredOnce));
}

#[test]
fn bytes_that_are_no_messages_are_seen_on_the_line() {
    let mut swarm = at_work();
    let ends = ends(&swarm)[0];
    send(&mut swarm, ends, Packet { control: smallvec![0xff; 8], block: None });
    assert_eq!(found(swarm), Some(Property::Readable));
}

#[test]
fn an_unchoke_that_the_choker_knows_nothing_of_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.joined && it.machine.choked_by_us());
    connection(&mut swarm, seat).machine.handle_choke(false);
    assert_eq!(found(swarm), Some(Property::SlotsWithinBounds));
}

#[test]
fn a_have_that_is_counted_without_having_been_said_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |node, it| {
        node.number.0 > 0 && matches!(it.machine.stock(), crate::peer::Stock::Some(_))
    });
    let stock = connection(&mut swarm, seat).machine.stock();
    let crate::peer::Stock::Some(pieces) = stock else { unreachable!("it was chosen for that") };
    let lacks = (0..SHAPE.piece_count()).map(PieceIndex).find(|&piece| !pieces.contains(piece));
    let (now, lacks) = (swarm.now(), lacks.expect("it has some pieces"));
    let Node { machine, rng, .. } = &mut swarm.nodes[seat.node.0 as usize];
    machine.handle_haves(now, seat.conn(), &[lacks], rng);
    assert_eq!(found(swarm), Some(Property::Availability));
}

#[test]
fn a_block_that_is_asked_of_a_second_peer_is_found_outside_the_endgame() {
    let mut swarm = at_work();
    let (owing, _) = end_where(&swarm, |_, it| it.machine.outstanding() > 0);
    let span = connection(&mut swarm, owing).machine.asked().next().expect("something is under way");
    let now = swarm.now();
    let node = &swarm.nodes[owing.node.0 as usize];
    assert!(!node.machine.is_in_endgame());
    let other = node.open_slots().into_iter().find(|&slot| slot != owing.slot).expect("there are five peers");
    let other = node.seat(other);
    swarm.checks.as_mut().expect("they are on").asked(now, node, other, &[span]);
    assert_eq!(found(swarm), Some(Property::AskedOnce));
}

#[test]
fn a_block_that_is_waited_for_in_vain_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.machine.outstanding() > 0);
    let span = connection(&mut swarm, seat).machine.asked().last().expect("something is under way");
    connection(&mut swarm, seat).machine.handle_brought(span);
    assert_eq!(found(swarm), Some(Property::OwedIsAsked));
}

#[test]
fn events_that_pile_up_are_found() {
    let mut swarm = at_work();
    let later = swarm.now() + Duration::from_secs(3600);
    let nobody = Seat { node: PeerNumber(0), slot: 0, generation: 0 };
    (0..50_000).for_each(|_| swarm.events.put(later, Event::Refusal(nobody)));
    assert_eq!(found(swarm), Some(Property::QueuesWithinBounds));
}

#[test]
fn a_second_connection_with_one_peer_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.joined);
    let (number, remote) = (seat.node, connection(&mut swarm, seat).remote);
    let other = swarm.nodes[number.0 as usize].open_slots().into_iter().find(|&slot| slot != seat.slot);
    let other = swarm.nodes[number.0 as usize].seat(other.expect("there are five peers"));
    for seat in [seat, other] {
        let end = connection(&mut swarm, seat);
        (end.remote, end.dialled) = (remote, Some(std::net::SocketAddr::new(remote, super::node::PORT)));
    }
    assert_eq!(found(swarm), Some(Property::OneConnection));
}

fn ban(swarm: &mut Swarm, by: PeerNumber, ip: std::net::IpAddr) {
    let whose = Node::number_of(std::net::SocketAddr::new(ip, super::node::PORT)).expect("a peer's address");
    let (now, peer_id) = (swarm.now(), swarm.nodes[whose.0 as usize].peer_id);
    swarm.nodes[by.0 as usize].machine.ban_for_tests(now, ip, peer_id);
}

#[test]
fn a_ban_that_leaves_a_connection_open_or_meets_an_honest_peer_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.joined);
    let remote = connection(&mut swarm, seat).remote;
    ban(&mut swarm, seat.node, remote);
    assert_eq!(found(swarm), Some(Property::BannedStayOut));
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.joined);
    let remote = connection(&mut swarm, seat).remote;
    swarm.close(seat, Closed::Normal);
    ban(&mut swarm, seat.node, remote);
    assert_eq!(found(swarm), Some(Property::OnlyLiarsBanned));
}

#[test]
fn an_honest_peer_that_is_thrown_out_is_found() {
    let mut swarm = at_work();
    let (seat, _) = end_where(&swarm, |_, it| it.joined);
    swarm.hear(seat, &Packet { control: smallvec![0xff; 8], block: None });
    assert_eq!(found(swarm), Some(Property::NobodyWronged));
}

#[test]
fn a_swarm_without_all_pieces_is_found_not_to_complete() {
    let mut drawn = Drawn::from_seed(1);
    drawn.peers.truncate(1);
    drawn.peers[0].have.remove(PieceIndex(0));
    drawn.faults.clear();
    drawn.limit = drawn.calm_at + Duration::from_secs(60);
    let report = drawn.run(true, &AtomicBool::new(false)).expect("nobody cancels");
    assert_eq!(report.violation.map(|violation| violation.property), Some(Property::EverybodyCompletes));
    assert!(!report.story.is_empty());
}

#[test]
fn checks_change_nothing_of_what_happens() {
    let trace = |every: Option<u32>| {
        let drawn = Drawn::from_seed(5);
        let mut swarm = Swarm::new(5, drawn.shape, drawn.policies, drawn.peers.clone());
        every.into_iter().for_each(|every| swarm.check_every(every));
        swarm.run_on(Instant::ZERO + Duration::from_secs(300));
        swarm.trace()
    };
    assert_eq!(trace(None), trace(Some(1)));
}
