//! The peer list's promises: whom it dials, which connection it keeps, and that nothing makes it grow.

use super::*;

const OWN: PeerId = PeerId([5; 20]);
const SMALL: PeerId = PeerId([1; 20]);
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

/// A list with one connection, dialled.
fn connected(remote: &str, peer_id: PeerId) -> PeerList {
    let mut list = list();
    assert!(list.add(START, address(remote), Source::User));
    assert_eq!(list.next_dial(START, &mut Rng::from_seed(1)), Some(address(remote)));
    assert_eq!(list.handle_connected(START, address(remote), conn(0), peer_id), Verdict::Keep);
    list
}

#[test]
fn every_set_agrees_with_every_candidate_after_a_connection() {
    connected("192.0.2.1:1", SMALL).candidates.check();
}
