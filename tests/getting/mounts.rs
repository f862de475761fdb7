//! File systems of a test's own, in a mount namespace that ends with it.
//!
//! Tests that need them are ignored; one test runs them all where it may mount, and says so where it may not.

use std::path::Path;
use std::process::Command;

const INSIDE: &str = "SEEDRING_TEST_HAS_ITS_OWN_MOUNTS";
/// What a test says that could not be run here; `.config/nextest.toml` has it shown.
const NOT_TESTED: &str = "not tested";

/// Runs this program's ignored tests in a mount namespace, where this user may make one.
pub fn run_ignored_tests() {
    let run = |script: &str| {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        unshare.args(["--ignored", "--nocapture"]).env(INSIDE, "1").output()
    };
    if !run("mount -t tmpfs none /mnt").is_ok_and(|output| output.status.success()) {
        eprintln!("{NOT_TESTED}: this user may not mount");
        return;
    }
    let output = run("exec \"$0\" \"$@\"").unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("test result: ok") && !said.contains(" 0 passed"), "{said}");
    said.lines().filter(|line| line.contains(NOT_TESTED)).for_each(|line| eprintln!("{line}"));
}

/// Whether [`run_ignored_tests`] runs this.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs a command that has to succeed.
pub fn sh(script: &str, folder: &Path) {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A loop device, given back at the end.
pub struct Device(pub String);

impl Device {
    /// Of a file; none where there are no such devices.
    pub fn of(image: &Path) -> Option<Self> {
        let attached = Command::new("losetup").args(["-f", "--show"]).arg(image).output().unwrap();
        if !attached.status.success() {
            eprintln!("{NOT_TESTED}: {}", String::from_utf8_lossy(&attached.stderr));
            return None;
        }
        Some(Self(String::from_utf8(attached.stdout).unwrap().trim().to_owned()))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // While something still uses it, the kernel keeps it until that ends.
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}
