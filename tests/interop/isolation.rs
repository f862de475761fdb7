//! Runs a test's body in a network and process namespace of its own.
//!
//! Three reasons. Nothing a client sends can leave the machine. All ports are free, whatever else runs here.
//! And Transmission 3 never connects to 127.0.0.0/8 ("martian" addresses) and knows one peer per address,
//! so every participant needs an address of its own; the namespace's loopback device carries all of them.
//!
//! The test process starts itself once more under `unshare`; when that process ends, the kernel ends
//! everything that was started in its namespace.

use std::io::{BufRead, BufReader};
use std::net::Ipv4Addr;
use std::process::Command;

/// Participants that can have an address of their own.
const PARTICIPANTS: u8 = 30;

/// The address (RFC 1918) of one participant, from 1 to [`PARTICIPANTS`]: 1 is the seeder and its tracker, up to 9 are
/// the clients, the others are whoever a test calls for.
pub const fn address(participant: u8) -> Ipv4Addr {
    assert!(0 < participant && participant <= PARTICIPANTS);
    Ipv4Addr::new(10, 45, 0, participant)
}

const INSIDE: &str = "SEEDRING_INTEROP_INSIDE";

/// Runs `body` of the test called `test` in fresh namespaces. Panics when the body does.
pub fn isolated(test: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let itself = std::env::current_exe().expect("a running test has an executable");
    let addresses: Vec<String> =
        (1..=PARTICIPANTS).map(|number| format!("ip addr add {}/32 dev lo", address(number))).collect();
    let addresses = addresses.join(" && ");
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command
        .args(["--net", "--pid", "--fork", "--kill-child", "--", "sh", "-c"])
        .arg(format!("ip link set lo up && {addresses} && exec \"$@\""))
        .args(["sh".as_ref(), itself.as_os_str()])
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, "1");
    let (reader, writer) = std::io::pipe().expect("there are descriptors for a pipe");
    command.stdout(writer.try_clone().expect("there is a descriptor more")).stderr(writer);
    let mut child =
        command.spawn().unwrap_or_else(|error| panic!("cannot start unshare (package util-linux): {error}"));
    // It holds the pipe's other end open, which would keep the end of the text from coming.
    drop(command);
    // Passed on line by line: a long test tells how far it is.
    let mut text = String::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.expect("a pipe can be read");
        let line = String::from_utf8_lossy(&line);
        eprintln!("{line}");
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait().expect("a child of ours can be waited for");
    assert!(status.success(), "in its own namespaces the test failed ({status})");
    assert!(text.contains("1 passed"), "no test is called {test:?}");
}
