//! opentracker, the tracker that most large public ones run, in place of the embedded one.
//!
//! Debian's build serves listed info-hashes only, so the torrent has to exist before the tracker starts.

use crate::isolation::address;
use crate::process::{Process, client_command};
use crate::waiting::wait_for;
use std::fs;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::time::Duration;

/// A running opentracker. Dropping it kills it.
pub struct Opentracker {
    _process: Process,
}

impl Opentracker {
    /// Starts one on `port` that serves `info_hash` (40 hexadecimal digits), and waits until it answers.
    pub fn start(port: u16, info_hash: &str, scratch: &Path) -> Self {
        let home = scratch.join("opentracker");
        fs::create_dir_all(&home).expect("a scratch folder takes folders");
        fs::write(home.join("whitelist"), format!("{info_hash}\n")).expect("a scratch folder takes files");
        // It refuses to work as root. In a user namespace of its own it is nobody, whoever runs the test.
        let mut command = client_command("unshare", &home);
        command.args(["--user", "opentracker", "-w", "whitelist", "-d"]).arg(&home);
        command.args(["-i", &address(1).to_string(), "-p", &port.to_string(), "-P", &port.to_string()]);
        let log = home.join("output.log");
        let mut process = Process::start(&mut command, log);
        wait_for("opentracker to answer", Duration::from_secs(20), || {
            if let Some(status) = process.ended() {
                panic!("opentracker ended ({status}):\n{}", process.last_words());
            }
            TcpStream::connect((address(1), port)).map(drop).map_err(|error| error.to_string())
        });
        Self { _process: process }
    }
}

/// A port of the seeder's address that is free for TCP and UDP; nobody else is in the namespace to take it.
pub fn free_port() -> u16 {
    let attempts = 0..100;
    attempts
        .filter_map(|_| {
            let tcp = TcpListener::bind((address(1), 0)).ok()?;
            let port = tcp.local_addr().ok()?.port();
            UdpSocket::bind((address(1), port)).ok().map(|_| port)
        })
        .next()
        .expect("an empty namespace has free ports")
}
