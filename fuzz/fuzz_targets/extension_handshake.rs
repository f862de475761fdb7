//! Extension handshakes: within the bounds, and the same when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::{CLIENT_NAME_LEN_MAX, METADATA_LEN_MAX, REQUESTS_TOLD_MAX};
use seedring::wire::ExtensionHandshake;

fuzz_target!(|data: &[u8]| {
    let Some(handshake) = ExtensionHandshake::decode(data) else { return };
    assert!(handshake.requests_queued_max.is_none_or(|told| (1..=REQUESTS_TOLD_MAX).contains(&told)));
    assert!(handshake.metadata_len.is_none_or(|len| (1..=METADATA_LEN_MAX).contains(&len)));
    assert!(handshake.port != Some(0));
    if let Some(client) = &handshake.client {
        assert!(client.len() <= CLIENT_NAME_LEN_MAX && !client.chars().any(char::is_control));
    }
    assert_eq!(ExtensionHandshake::decode(&handshake.encode()), Some(handshake));
});
