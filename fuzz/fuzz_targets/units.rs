//! Sizes, rates, info-hashes and policies as people write them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::id::InfoHash;
use seedring::units::{ByteRate, ByteSize};
use seedring::wire::Encryption;

fuzz_target!(|text: &str| {
    if let Ok(ByteSize(size)) = text.parse() {
        assert_eq!(size.to_string().parse(), Ok(ByteSize(size)));
        assert_eq!(format!("{text}/s").parse(), Ok(ByteRate(size)));
        assert!(ByteSize(size).to_string().len() <= 10);
    }
    if let Some(hash) = InfoHash::from_hex(text) {
        assert_eq!(hash.to_string(), text.to_ascii_lowercase());
    }
    if let Ok(policy) = text.parse::<Encryption>() {
        assert_eq!(policy.to_string(), text);
    }
});
