//! Messages of `ut_metadata`: within the bounds, and the same when written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::limits::METADATA_LEN_MAX;
use seedring::wire::{METADATA_PIECE_LEN, MetadataMessage};

fuzz_target!(|data: &[u8]| {
    let Some(message) = MetadataMessage::decode(data) else { return };
    if let MetadataMessage::Data { total_len, bytes, .. } = message {
        assert!(total_len.is_none_or(|len| (1..=METADATA_LEN_MAX).contains(&len)));
        assert!(bytes.len() <= METADATA_PIECE_LEN as usize && data.ends_with(bytes));
    }
    assert_eq!(MetadataMessage::decode(&message.encode()), Some(message));
});
