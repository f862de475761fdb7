//! How two peers meet: handshakes in any parts, of any protocol, on either side.

use super::*;

#[test]
fn a_handshake_in_single_bytes_is_a_handshake() {
    let mut talk = Talk { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
    let bytes = handshake(Reserved::OURS).encode();
    for byte in &bytes[..HANDSHAKE_LEN - 1] {
        assert_eq!(talk.feed(&[*byte]), Ok(vec![]));
    }
    assert!(!talk.machine.has_output(), "nothing is said to who has not introduced itself");
    let event = PeerEvent::Handshake(handshake(Reserved::OURS));
    assert_eq!(talk.feed(&bytes[HANDSHAKE_LEN - 1..]), Ok(vec![event]));
    assert!(!talk.machine.is_open());
    talk.machine.accept(Arc::new(facts()), identity());
    assert!(talk.machine.is_open());
}

#[test]
fn what_follows_a_handshake_in_the_same_bytes_is_not_lost() {
    let mut machine = PeerMachine::incoming(Instant::ZERO);
    let mut bytes = handshake(Reserved::OURS).encode().to_vec();
    encode(&Message::HaveNone, &mut bytes);
    encode(&Message::Interested, &mut bytes);
    let mut input = &bytes[..];
    let event = PeerEvent::Handshake(handshake(Reserved::OURS));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(event)));
    machine.accept(Arc::new(facts()), identity());
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(PeerEvent::Stock)));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(Some(PeerEvent::Interested(true))));
    assert_eq!(machine.handle_bytes(Instant::ZERO, &mut input), Ok(None));
    assert!(input.is_empty());
}

#[test]
fn another_protocol_is_refused_at_its_first_wrong_byte() {
    for (bytes, at) in [(&b"GET / HTTP/1.1\r\n"[..], 0), (b"\x13BitTorrent protocoL", 19), (&[0x16, 3, 1], 0)]
    {
        let mut talk = Talk { machine: PeerMachine::incoming(Instant::ZERO), now: Instant::ZERO };
        let error = talk.feed(bytes).unwrap_err();
        assert!(matches!(error, PeerError::Wire(WireError::WrongProtocol { at: found, .. }) if found == at));
    }
}

#[test]
fn an_outgoing_connection_introduces_itself_first_and_once() {
    let machine = PeerMachine::outgoing(Instant::ZERO, InfoHash([1; 20]), PeerId([2; 20]));
    let mut talk = Talk { machine, now: Instant::ZERO };
    let ours = Handshake { reserved: Reserved::OURS, info_hash: InfoHash([1; 20]), peer_id: PeerId([2; 20]) };
    let mut said = Vec::new();
    talk.machine.poll_control(&mut said);
    assert_eq!(said, ours.encode());
    assert_eq!(talk.feed(&handshake(FAST_ONLY).encode()).unwrap().len(), 1);
    talk.machine.accept(Arc::new(facts()), identity());
    assert_eq!(talk.heard(), [Message::Unknown { id: 5, len: 3 }]);
}
