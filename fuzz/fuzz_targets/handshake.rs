//! Handshakes: a beginning is refused exactly when no handshake can begin so, and what is read is all there was.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::wire::{HANDSHAKE_LEN, Handshake, check_prefix};

fuzz_target!(|data: &[u8]| {
    let beginning = &data[..data.len().min(HANDSHAKE_LEN)];
    let mut refused = None;
    for len in 0..=beginning.len() {
        let verdict = check_prefix(&beginning[..len]).err();
        assert!(refused.is_none() || verdict == refused, "a refusal does not change with what follows");
        refused = verdict;
    }
    let Ok(bytes) = <&[u8; HANDSHAKE_LEN]>::try_from(beginning) else { return };
    match Handshake::decode(bytes) {
        Ok(handshake) => assert_eq!(handshake.encode(), *bytes),
        Err(error) => assert_eq!(Some(error), refused),
    }
});
