//! `seedring lab distribute` as a user runs it: by formula, simulated, and for real with processes on loopback.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn lab(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    command.args(["lab", "distribute"]).args(arguments).stdin(Stdio::null());
    command
}

fn told(arguments: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = lab(arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}

fn json(arguments: &[&str]) -> Value {
    let (code, out, err) = told(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// Processes whose command line names this folder.
fn processes_in(folder: &Path) -> usize {
    let folder = folder.to_str().unwrap().as_bytes();
    let lines =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(folder.len()).any(|part| part == folder)).count()
}

#[test]
fn the_textbooks_formulas_need_no_simulation() {
    let (code, out, err) = told(&["--preset", "textbook", "--runs", "0"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(out.lines().count(), 36, "{out}");
    let row = |peers: &str| out.lines().find(|line| line.trim_start().starts_with(peers)).unwrap().to_owned();
    assert!(row("1 ").contains("6:00 min   "), "{out}");
    assert!(row("30 ").contains("3:00:00 h") && row("30 ").contains("45:00 min"), "{out}");
}

#[test]
fn equal_seeds_give_equal_traces_in_every_process() {
    let arguments =
        ["--size", "4MB", "--server-up", "2MB/s", "--peer-up", "1MB/s", "--peers", "1,6", "--runs", "2"];
    let (once, again) = (json(&arguments), json(&arguments));
    assert_eq!(once, again);
    let traces: Vec<&str> = (0..2).filter_map(|run| once["rows"][1]["runs"][run]["trace"].as_str()).collect();
    assert!(traces.len() == 2 && traces[0] != traces[1], "{traces:?}");
    let other = json(&[&arguments[..], &["--seed", "7"]].concat());
    assert_ne!(other["rows"][1]["runs"][0]["trace"], once["rows"][1]["runs"][0]["trace"]);
}

#[test]
fn what_cannot_be_meant_or_done_is_told_before_anything_begins() {
    let some = ["--size", "1MB", "--server-up", "1MB/s", "--peer-up", "1MB/s"];
    let with = |more: &'static [&'static str]| [&some[..], more].concat();
    let large = ["--size", "15000TiB", "--server-up", "10TB/s", "--peer-up", "10TB/s", "--real", "2"];
    let long = ["--size", "100MB", "--server-up", "1kB/s", "--peer-up", "1kB/s", "--real", "2"];
    for (arguments, part) in [
        (with(&["--peers", "0"]), "no number of peers"),
        (with(&["--real", "0"]), "no number of real peers"),
        (with(&["--real", "65"]), "from 1 to 64"),
        (with(&["--real", "many"]), "no number of real peers"),
        (with(&["--with", "aria2"]), "--real"),
        (with(&["--real", "2", "--with", "netscape"]), "possible values"),
        (with(&["--real", "2", "--real-storage", "/nowhere at all"]), "cannot use"),
        (with(&["--plot", "/nowhere/figure.svg"]), "cannot write"),
        (with(&["--plot", "figure.pdf"]), "neither .svg nor .png"),
        (vec!["--preset", "no textbook"], "possible values"),
        (vec!["--size", "1MB", "--server-up", "0", "--peer-up", "1MB/s"], "nothing passes"),
        (vec!["--size", "1MB", "--server-up", "1MB/s", "--peer-up", "0"], "nothing passes"),
        (vec!["--size", "0", "--server-up", "1MB/s", "--peer-up", "1MB/s"], "above 0"),
        (vec!["--size", "17000000TiB", "--server-up", "1", "--peer-up", "1"], "16 EiB"),
        (vec!["--size", "15000000TiB", "--server-up", "1MB/s", "--peer-up", "1MB/s"], "more than ten years"),
        (large.to_vec(), "--real-storage"),
        (long.to_vec(), "smaller --size"),
    ] {
        let (code, out, err) = told(&arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains(part), "{arguments:?}: {err}");
    }
}

#[test]
fn a_rival_that_is_not_there_is_told_with_what_to_install() {
    let folder = tempfile::tempdir().unwrap();
    for (rival, part) in
        [("libtorrent", "pip install"), ("transmission", "package"), ("aria2", "package aria2")]
    {
        let mut command =
            lab(&["--size", "1MB", "--server-up", "1MB/s", "--peer-up", "1MB/s", "--real", "2"]);
        let output = command.args(["--with", rival]).env("PATH", folder.path()).output().unwrap();
        let err = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(rival) && err.contains(part), "{err}");
    }
}

#[test]
fn three_real_peers_and_a_real_server_are_measured_beside_what_was_predicted() {
    let folder = tempfile::tempdir().unwrap();
    let figure = folder.path().join("figure.svg");
    let copies = folder.path().join("copies");
    fs::create_dir(&copies).unwrap();
    let report = json(&[
        "--size",
        "2MB",
        "--server-up",
        "4MB/s",
        "--peer-up",
        "2MB/s",
        "--peer-down",
        "8MB/s",
        "--runs",
        "1",
        "--real",
        "3",
        "--real-storage",
        copies.to_str().unwrap(),
        "--plot",
        figure.to_str().unwrap(),
    ]);
    let row = &report["rows"][0];
    assert_eq!(row["peers"], 3);
    let (swarm, server) = (&row["measured"]["peer_to_peer"], &row["measured"]["client_server"]);
    assert_eq!((&swarm["ended"], &swarm["complete"]), (&"complete".into(), &3.into()), "{report}");
    for peer in swarm["peers"].as_array().unwrap() {
        assert!(peer["verified"] == true && peer["client"] == "seedring", "{peer}");
        assert!(peer["seconds"].as_f64().unwrap() > 0.0 && peer["cpu_seconds"].as_f64().is_some(), "{peer}");
    }
    // A copy has left the seed at least.
    assert!(swarm["seed_copies"].as_f64().unwrap() >= 1.0, "{swarm}");
    assert_eq!((&server["ended"], &server["verified"]), (&"complete".into(), &3.into()), "{report}");
    for predicted in ["client_server_seconds", "peer_to_peer_bound_seconds", "simulated_slowest_seconds"] {
        assert!(row[predicted].as_f64().unwrap() > 0.0, "{row}");
    }
    assert!(fs::read_to_string(&figure).unwrap().contains("measured"));
    assert_eq!(fs::read_dir(&copies).unwrap().count(), 0, "the copies are gone");
}

#[test]
fn who_has_had_enough_reads_what_is_known_and_nothing_is_left_behind() {
    let folder = tempfile::tempdir().unwrap();
    let mut command =
        lab(&["--size", "20MB", "--server-up", "200kB/s", "--peer-up", "200kB/s", "--runs", "0"]);
    command.args(["--real", "2", "--json", "--real-storage"]).arg(folder.path());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(said.any(|line| line.starts_with("real swarm of 2 peers")));
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let rest: Vec<String> = said.collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{rest:?}");
    assert!(rest.last().unwrap().contains("what was known"), "{rest:?}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let row = &report["rows"][0];
    assert_eq!(row["measured"]["peer_to_peer"]["ended"], "stopped", "{report}");
    assert!(row["client_server_seconds"].as_f64().unwrap() > 199.0, "{report}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the copies are gone");
    assert_eq!(processes_in(folder.path()), 0, "the peers are gone");
}
