//! Resume files: whole ones, and records with a right head and checksum around them. What is read is read again the
//! same; nothing is allocated from a number in the file.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::storage::Resume;

fuzz_target!(|data: &[u8]| {
    check(data);
    let mut whole = [b"SEEDRING\x01\0\0\0", data].concat();
    let checksum = sha1_smol::Sha1::from(&whole).digest().bytes();
    whole.extend_from_slice(&checksum);
    check(&whole);
});

fn check(bytes: &[u8]) {
    if let Ok(resume) = Resume::decode(bytes) {
        assert!(resume.verified.as_bytes().len() <= bytes.len());
        assert_eq!(Resume::decode(&resume.encode()), Ok(resume));
    }
}
