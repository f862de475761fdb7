//! `seedring lab swarm` as a user runs it: exit codes, table, JSON, figures, and a stop half-way.

use std::fs;
use std::process::{Command, Stdio};

fn swarm(args: &str) -> (i32, String, String) {
    let words = ["lab", "swarm"].into_iter().chain(args.split_whitespace());
    let output = Command::new(env!("CARGO_BIN_EXE_seedring")).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

const SMALL: &str = "--peers 4 --size 320kB --peer-up 20kB/s --seed-up 40kB/s --runs 2";

#[test]
fn policies_are_compared_on_the_same_seeds_and_runs_repeat() {
    let args = format!("{SMALL} --order rarest,sequential --json");
    let (code, out, err) = swarm(&args);
    assert_eq!(code, 0, "{err}");
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    let policies = report["policies"].as_array().unwrap();
    let seeds = |row: &serde_json::Value| [row["runs"][0]["seed"].clone(), row["runs"][1]["seed"].clone()];
    assert_eq!((policies.len(), seeds(&policies[0])), (2, seeds(&policies[1])));
    assert_ne!(policies[0]["runs"][0]["trace"], policies[1]["runs"][0]["trace"]);
    assert_eq!(policies[0]["runs"][0]["end"], "complete");
    assert_eq!(swarm(&args).1, out);
}

#[test]
fn the_table_names_policies_and_groups_and_figures_are_written() {
    let dir = tempfile::tempdir().unwrap();
    for figure in ["diversity", "completion", "fairness", "uplinks"] {
        let file = dir.path().join(figure).with_extension("svg");
        let args =
            format!("{SMALL} --scenario free-riders --slots 2,4 --figure {figure} --plot {}", file.display());
        let (code, out, err) = swarm(&args);
        assert_eq!(code, 0, "{err}");
        for word in ["2 slots", "4 slots", "free-riders", "rarest/mean", "8/8"] {
            assert!(out.contains(word), "{word} in\n{out}");
        }
        let drawn = fs::read_to_string(&file).unwrap();
        assert!(drawn.contains("seconds") && drawn.contains("4 slots"), "{drawn}");
    }
}

#[test]
fn nonsense_ends_with_a_sentence_and_exit_code_2() {
    for (args, word) in [
        ("--scenario stampede", "flash-crowd"),
        ("--peers 0", "peers"),
        ("--size 99999999TiB", "16 EiB"),
        ("--peer-up 0", "above 0"),
        ("--free-riders 80% --liars 30%", "more than all"),
        ("--size 1TiB --peer-up 1", "30 days"),
        ("--order best", "rarest"),
        ("--plot /nowhere/figure.svg", "cannot write"),
    ] {
        let (code, out, err) = swarm(args);
        assert_eq!((code, out.as_str()), (2, ""), "{args}: {err}");
        assert!(err.contains(word), "{args}: {err}");
    }
}

#[test]
fn a_stop_prints_what_is_known_so_far() {
    let args = "lab swarm --peers 60 --size 1GiB --runs 50";
    let mut child = Command::new(env!("CARGO_BIN_EXE_seedring"))
        .args(args.split_whitespace())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let catches_interrupts = || {
        let text = fs::read_to_string(&status).unwrap_or_default();
        let mask = text.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim();
        u64::from_str_radix(mask, 16).is_ok_and(|mask| mask & 2 != 0)
    };
    while !catches_interrupts() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be stopped");
        std::thread::yield_now();
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(out.contains("60 peers") && err.contains("stopped"), "{out}{err}");
}
