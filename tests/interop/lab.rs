//! `seedring lab distribute --real` with other clients among the peers: everybody completes, and every copy is right.

use crate::isolation::isolated;
use std::path::Path;
use std::process::Command;

#[test]
fn the_laboratory_runs_swarms_with_aria2() {
    isolated("lab::the_laboratory_runs_swarms_with_aria2", || runs_with("aria2"));
}

#[test]
fn the_laboratory_runs_swarms_with_libtorrent() {
    isolated("lab::the_laboratory_runs_swarms_with_libtorrent", || runs_with("libtorrent"));
}

#[test]
fn the_laboratory_runs_swarms_with_transmission() {
    isolated("lab::the_laboratory_runs_swarms_with_transmission", || runs_with("transmission"));
}

fn runs_with(rival: &str) {
    let scratch = tempfile::tempdir().expect("a scratch folder");
    // libtorrent's Python comes first.
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-clients/venv/bin");
    let path = std::env::var("PATH").expect("programs are found by PATH");
    let output = Command::new(env!("CARGO_BIN_EXE_seedring"))
        .args([
            "lab",
            "distribute",
            "--size",
            "3MB",
            "--server-up",
            "4MB/s",
            "--peer-up",
            "2MB/s",
            "--runs",
            "1",
        ])
        .args(["--real", "3", "--with", rival, "--no-baseline", "--json", "--real-storage"])
        .arg(scratch.path())
        .env("PATH", format!("{}:{path}", python.display()))
        .output()
        .expect("the binary under test can be started");
    let complaints = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaints}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it prints JSON");
    let swarm = &report["rows"][0]["measured"]["peer_to_peer"];
    assert_eq!((&swarm["ended"], &swarm["complete"]), (&"complete".into(), &3.into()), "{report}");
    let peers = swarm["peers"].as_array().expect("peers are listed");
    assert!(peers.iter().all(|peer| peer["verified"] == true), "{report}");
    let clients: Vec<_> = peers.iter().filter_map(|peer| peer["client"].as_str()).collect();
    assert_eq!(clients, ["seedring", rival, "seedring"]);
    assert_eq!(std::fs::read_dir(scratch.path()).expect("a scratch folder can be listed").count(), 0);
}
