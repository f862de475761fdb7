//! `tools/soak` for some seconds, small: a seeder while clients come and go loses no byte and keeps no descriptor.

use std::path::Path;
use std::process::Command;

#[test]
fn a_short_soak_holds() {
    let program = Path::new(env!("CARGO_BIN_EXE_seedring"));
    let folder = program.parent().expect("a program lies in a folder");
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/soak"));
    command.arg("--smoke").arg("--programs").arg(folder).arg("--work").arg(env!("CARGO_TARGET_TMPDIR"));
    let output = command.output().expect("Python 3 is installed");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("holds ").count(), 5, "{said}");
}
