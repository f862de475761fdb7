//! Lists of info-hashes for a tracker, read from a file as users give them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use seedring::tracker_server::{Access, AccessError, AccessList};
use std::path::PathBuf;
use std::sync::LazyLock;

/// One file for this process, written anew for each input.
static FILE: LazyLock<PathBuf> =
    LazyLock::new(|| std::env::temp_dir().join(format!("seedring-access-list-{}", std::process::id())));

fuzz_target!(|data: &[u8]| {
    std::fs::write(&*FILE, data).expect("the folder for temporary files can be written");
    match Access::AllowFile(FILE.clone()).load() {
        Ok(AccessList::Allow(list)) => {
            let written: String = list.iter().map(|hash| format!("{hash} # one\n")).collect();
            std::fs::write(&*FILE, written).expect("the folder for temporary files can be written");
            let again = Access::DenyFile(FILE.clone()).load();
            assert_eq!(again.ok(), Some(AccessList::Deny(list)));
        }
        Ok(other) => panic!("a file of allowed info-hashes became {other:?}"),
        Err(AccessError::BadLine { line, text, .. }) => {
            assert!(line <= data.len() && text.chars().count() <= 60);
        }
        Err(error) => panic!("the file cannot be read: {error}"),
    }
});
