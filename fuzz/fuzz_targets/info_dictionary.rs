//! Info dictionaries, as peers send them for a magnet link: what is accepted keeps every promise of its module.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::metainfo::Info;

fuzz_target!(|data: &[u8]| {
    if let Ok(info) = Info::parse(data) {
        seedring_fuzz::check_info(&info);
    }
});
