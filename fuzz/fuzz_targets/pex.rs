//! Peer exchange messages: within the bounds, and the same when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::PEX_PEERS_MAX;
use seedring::wire::PexMessage;
use std::collections::BTreeSet;

fuzz_target!(|data: &[u8]| {
    let Ok(message) = PexMessage::decode(data) else { return };
    assert!(message.added.len() <= PEX_PEERS_MAX && message.dropped.len() <= PEX_PEERS_MAX);
    let added: BTreeSet<_> = message.added.iter().map(|peer| peer.address).collect();
    let dropped: BTreeSet<_> = message.dropped.iter().copied().collect();
    assert_eq!((added.len(), dropped.len()), (message.added.len(), message.dropped.len()));
    for address in added.iter().chain(&dropped) {
        assert!(address.port() != 0 && address.ip() == address.ip().to_canonical());
    }
    assert_eq!(PexMessage::decode(&message.encode()), Ok(message));
});
