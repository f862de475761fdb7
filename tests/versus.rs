//! Keeps the instrument working: `tools/versus` goes through all its rows in tiny sizes, without rivals, with the
//! program under test. What it measures that way means nothing; that every row yields runs, and that tables, verdicts and plots can
//! be made of them, is the point. A row that hangs is ended by the instrument itself, within the limit given here.

use std::path::Path;
use std::process::Command;

#[test]
fn every_row_of_the_instrument_works_in_tiny_sizes() {
    let programs = Path::new(env!("CARGO_BIN_EXE_seedring")).parent().expect("a program lies in a folder");
    let output = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tools/versus"))
        .args(["--smoke", "--limit", "120", "--programs"])
        .arg(programs)
        .output()
        .expect("tools/versus can be started: it needs python3");
    let (told, complained) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}\n{complained}");
    assert!(told.contains("smoke run: "), "{told}");
    assert!(!told.contains(" 0 runs"), "a row yielded nothing: {told}\n{complained}");
}
