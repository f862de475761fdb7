//! `seedring tracker` as a process: what it prints, and how it ends.

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Stdio};

fn tracker(arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_seedring"))
        .arg("tracker")
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

fn end(mut child: Child, signal: Signal) -> ExitStatus {
    kill_process(Pid::from_child(&child), signal).expect("our child may be signalled");
    child.wait().expect("it ends")
}

#[test]
fn prints_where_it_listens_serves_there_and_ends_well_at_either_signal() {
    for signal in [Signal::INT, Signal::TERM] {
        let mut child = tracker(&["--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--interval", "2m"]);
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut next = || lines.next().expect("it prints").expect("it prints text");
        let http = next();
        let address = http.strip_prefix("listening on http://").expect("HTTP comes first");
        let address = address.strip_suffix("/announce").expect("it is the announce URL");
        assert_eq!(next(), format!("listening on udp://{address}/announce"));

        let mut stream = TcpStream::connect(address).expect("it listens there");
        let query = "info_hash=aaaaaaaaaaaaaaaaaaaa&peer_id=bbbbbbbbbbbbbbbbbbbb&port=1&left=0";
        write!(stream, "GET /announce?{query} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
            .expect("it reads");
        let mut response = String::new();
        stream.read_to_string(&mut response).expect("it answers");
        assert!(response.contains("8:intervali120e"), "{response}");

        assert!(end(child, signal).success());
    }
}

#[test]
fn prints_json_when_asked() {
    let mut child = tracker(&["--http", "127.0.0.1:0", "--udp", "none", "--json"]);
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let objects: Vec<serde_json::Value> = lines
        .take(2)
        .map(|line| serde_json::from_str(&line.expect("it prints text")).expect("each line is an object"))
        .collect();
    assert_eq!((&objects[0]["event"], &objects[0]["protocol"]), (&"listening".into(), &"http".into()));
    assert_eq!((&objects[1]["event"], &objects[1]["torrents"]), (&"status".into(), &0.into()));
    end(child, Signal::TERM);
}

#[test]
fn says_whose_fault_it_is_when_it_does_not_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    let list = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(list.path(), "not a hash\n").expect("it can be written");
    let list = list.path().to_str().expect("its name is text");
    for (arguments, code, text) in [
        (&["--http", &address, "--udp", "none"][..], 1, address.as_str()),
        (&["--http", "none", "--udp", "none"], 1, "neither an HTTP nor a UDP address"),
        (&["--http", "127.0.0.1:0", "--udp", "none", "--allow", list], 1, "line 1"),
        (&["--http", "here"], 2, "write IP:PORT"),
        (&["--interval", "3 weeks"], 2, "the units are s, m, h"),
        (&["--allow", list, "--deny", list], 2, "cannot be used with"),
    ] {
        let output = tracker(arguments).wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(text), "{stderr}");
    }
}
