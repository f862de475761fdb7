//! `seedring tracker` as a process: what it prints, and how it ends.

use rustix::process::{Pid, Signal, kill_process};
use seedring::id::{InfoHash, PeerId};
use seedring::tracker_client::{ClientConfig, TrackerClient};
use seedring::tracker_wire::{AddressFamily, AnnounceEvent, AnnounceRequest};
use std::io::{BufRead, BufReader, Lines, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

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
    let other = tempfile::NamedTempFile::new().expect("a scratch file");
    std::fs::write(other.path(), "precious\n").expect("it can be written");
    let other = other.path().to_str().expect("its name is text");
    for (arguments, code, text) in [
        (&["--http", "none", "--udp", "127.0.0.1:0", "--tls", list, list][..], 1, "no HTTP address"),
        (&["--http", "none", "--udp", "127.0.0.1:0", "--trusted-proxy", "::1"], 1, "no HTTP address"),
        (&["--http", "127.0.0.1:0", "--udp", "none", "--tls", list, list], 1, "holds no certificate"),
        (&["--http", "127.0.0.1:0", "--udp", "none", "--state", other], 1, "is left alone"),
        // The folder of processes takes no file from anybody; the second has no folder at all.
        (
            &["--http", "127.0.0.1:0", "--udp", "none", "--state", "/proc/state"],
            1,
            "cannot write the tracker's state",
        ),
        (
            &["--http", "127.0.0.1:0", "--udp", "none", "--state", "/proc/no/where"],
            1,
            "cannot write the tracker's state",
        ),
        (&["--http", "127.0.0.1:0", "--udp", "none", "--metrics", &address], 1, address.as_str()),
        (&["--trusted-proxy", "10.0.0.0/99"], 2, "write an IP"),
        (&["--tls", list], 2, "2 values required"),
        (&["--http", &address, "--udp", "none"], 1, address.as_str()),
        (&["--http", "none", "--udp", "none"], 2, "neither an HTTP nor a UDP address"),
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
    assert_eq!(std::fs::read(other).expect("it is still there"), b"precious\n");
}

/// A tracker over HTTP alone that prints JSON.
struct Http {
    child: Child,
    address: String,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Http {
    fn start(arguments: &[&str]) -> Self {
        let mut child = tracker(&[&["--http", "127.0.0.1:0", "--udp", "none", "--json"], arguments].concat());
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let first = lines.next().expect("it prints").expect("it prints text");
        let first: serde_json::Value = serde_json::from_str(&first).expect("each line is an object");
        let address = first["address"].as_str().expect("it says where it listens").to_owned();
        Self { child, address, lines }
    }

    /// The next object of this kind.
    fn event(&mut self, name: &str) -> serde_json::Value {
        let objects = self.lines.by_ref().map(|line| {
            let line = line.expect("it prints text");
            serde_json::from_str::<serde_json::Value>(&line).expect("each line is an object")
        });
        objects.into_iter().find(|object| object["event"] == name).expect("it prints that")
    }

    fn get(&self, target: &str, headers: &str) -> String {
        get(&self.address, target, headers)
    }

    /// The answer to a leech at `port`, as text.
    fn announce(&self, port: u16, headers: &str) -> String {
        let id = format!("-XX0001-aaaaaaaa{port}");
        self.get(
            &format!("/announce?info_hash=hhhhhhhhhhhhhhhhhhhh&peer_id={id}&port={port}&left=5&compact=0"),
            headers,
        )
    }

    fn hangup(&self) {
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("our child may be signalled");
    }

    fn end(self) {
        assert!(end(self.child, Signal::TERM).success());
    }
}

fn get(address: &str, target: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens there");
    write!(stream, "GET {target} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{headers}\r\n")
        .expect("it reads");
    let mut response = Vec::new();
    stream.read_to_end(&mut response).expect("it answers");
    String::from_utf8_lossy(&response).into_owned()
}

#[test]
fn a_proxy_that_is_trusted_says_who_asks() {
    let third_answer = |arguments: &[&str], header: &str| {
        let tracker = Http::start(arguments);
        let mut answer = String::new();
        for number in 1..=3 {
            answer = tracker.announce(7000 + number, &format!("{header}198.51.100.{number}\r\n"));
        }
        tracker.end();
        answer
    };
    for header in ["X-Forwarded-For: ", "X-Forwarded-For: 6.6.6.6, ", "Forwarded: for=6.6.6.6,for="] {
        let trusting = third_answer(&["--trusted-proxy", "::1", "--trusted-proxy", "127.0.0.0/8"], header);
        assert!(trusting.contains("2:ip12:198.51.100.14:porti7001e"), "{trusting}");
        assert!(trusting.contains("2:ip12:198.51.100.24:porti7002e"), "{trusting}");
        let plain = third_answer(&[], header);
        assert!(plain.contains("2:ip9:127.0.0.14:porti7001e") && !plain.contains("198.51"), "{plain}");
    }
    let tracker = Http::start(&["--trusted-proxy", "127.0.0.1"]);
    let refused = tracker.announce(7001, "X-Forwarded-For: unknown\r\n");
    assert!(refused.contains("14:failure reason"), "{refused}");
    let refused = tracker.announce(7001, "X-Forwarded-For: 198.51.100.1\r\nForwarded: for=6.6.6.6\r\n");
    assert!(refused.contains("14:failure reason"), "{refused}");
    let own = tracker.announce(7002, "");
    assert!(own.contains("8:completei0e") && !own.contains("failure"), "{own}");
    tracker.end();
}

#[test]
fn a_restart_remembers_the_swarms_and_a_damaged_memory_is_told() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let path = folder.path().join("tracker.state");
    let arguments = ["--state", path.to_str().expect("its name is text")];
    let first = Http::start(&arguments);
    first.announce(7001, "");
    first.end();
    let mut second = Http::start(&arguments);
    let told = second.event("state_read");
    assert_eq!((&told["torrents"], &told["peers"]), (&1.into(), &1.into()));
    let answer = second.announce(7002, "");
    assert!(answer.contains("porti7001e"), "{answer}");
    second.end();

    let mut bytes = std::fs::read(&path).expect("it was written");
    let middle = bytes.len() - 40;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("it can be written");
    let mut third = Http::start(&arguments);
    third.event("state_not_read");
    let answer = third.announce(7003, "");
    assert!(!answer.contains("porti7001e"), "{answer}");
    third.end();
    let mut fourth = Http::start(&arguments);
    assert_eq!(fourth.event("state_read")["peers"], 1);
    // Somebody puts something else there meanwhile.
    std::fs::write(&path, "precious").expect("it can be written");
    kill_process(Pid::from_child(&fourth.child), Signal::TERM).expect("our child may be signalled");
    fourth.event("state_not_written");
    fourth.child.wait().expect("it ends");
    assert_eq!(std::fs::read(&path).expect("it is still there"), b"precious");
}

#[test]
fn each_reload_says_what_came_of_it() {
    let list = tempfile::NamedTempFile::new().expect("a scratch file");
    let write = |text: &str| std::fs::write(list.path(), text).expect("it can be written");
    write("# nothing\n");
    let mut tracker = Http::start(&["--allow", list.path().to_str().expect("its name is text")]);
    tracker.hangup();
    assert_eq!(tracker.event("list_read")["torrents"], 0);
    write(&format!("{}\n", "68".repeat(20)));
    // It looks by itself each second.
    assert_eq!(tracker.event("list_read")["torrents"], 1);
    assert!(tracker.announce(7001, "").contains("8:completei0e"));
    write("nonsense\n");
    let kept = tracker.event("list_kept");
    assert!(kept["message"].as_str().expect("it says why").contains("line 1"), "{kept}");
    assert!(tracker.announce(7001, "").contains("8:completei0e"));
    tracker.end();
    let mut plain = Http::start(&[]);
    plain.hangup();
    plain.event("nothing_to_read");
    plain.end();
}

#[test]
fn figures_are_served_to_prometheus() {
    let mut tracker = Http::start(&["--metrics", "127.0.0.1:0"]);
    let at = tracker.event("metrics")["address"].as_str().expect("it says where").to_owned();
    tracker.announce(7001, "");
    let text = get(&at, "/metrics", "");
    assert!(text.contains("\r\ncontent-type: text/plain; version=0.0.4"), "{text}");
    assert!(text.contains("\nseedring_tracker_announces_total{protocol=\"http\"} 1\n"), "{text}");
    assert!(text.contains("\nseedring_tracker_peers{family=\"ipv4\",role=\"leech\"} 1\n"), "{text}");
    let text = get(&at, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
    assert!(text.ends_with("# EOF\n"), "{text}");
    assert!(get(&at, "/announce", "").starts_with("HTTP/1.1 404"));
    tracker.end();
}

/// Writes a new certificate for 127.0.0.1 and its key; returns the certificate as it is trusted.
fn certify(certificate: &Path, key: &Path) -> Vec<u8> {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("it can be made");
    std::fs::write(certificate, made.cert.pem()).expect("it can be written");
    std::fs::write(key, made.signing_key.serialize_pem()).expect("it can be written");
    made.cert.der().to_vec()
}

/// Whether an announce over HTTPS succeeds for who trusts this certificate alone.
fn announces_over_tls(address: &str, trusted: &[u8]) -> bool {
    let config = ClientConfig { trusted_der: vec![trusted.to_vec()], ..ClientConfig::default() };
    let client = TrackerClient::new(config).expect("the certificate can be trusted");
    let request = AnnounceRequest {
        info_hash: InfoHash([7; 20]),
        peer_id: PeerId([b'p'; 20]),
        port: 7001,
        uploaded: 0,
        downloaded: 0,
        left: 1,
        event: AnnounceEvent::Started,
        key: 0,
        num_want: None,
    };
    let url = format!("https://{address}/announce");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
    runtime.block_on(client.announce(&url, AddressFamily::V4, &request)).is_ok()
}

#[test]
fn https_is_spoken_with_a_certificate_that_a_reload_replaces() {
    let folder = tempfile::tempdir().expect("a scratch folder");
    let (certificate, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let first = certify(&certificate, &key);
    let names = [&certificate, &key].map(|path| path.to_str().expect("its name is text"));
    let mut tracker = Http::start(&["--tls", names[0], names[1]]);
    assert!(announces_over_tls(&tracker.address, &first));
    let second = certify(&certificate, &key);
    assert!(announces_over_tls(&tracker.address, &first), "nobody has asked for the new one yet");
    tracker.hangup();
    tracker.event("certificate_read");
    assert!(announces_over_tls(&tracker.address, &second));
    assert!(!announces_over_tls(&tracker.address, &first));
    std::fs::write(&key, "no key").expect("it can be written");
    tracker.hangup();
    let kept = tracker.event("certificate_kept");
    assert!(kept["message"].as_str().expect("it says why").contains("holds no private key"), "{kept}");
    assert!(announces_over_tls(&tracker.address, &second));
    // Who speaks plainly is not answered, and holds up nobody.
    let mut plain = TcpStream::connect(&tracker.address).expect("it listens");
    plain.write_all(b"GET / HTTP/1.0\r\n\r\n").expect("a new connection takes bytes");
    let mut response = Vec::new();
    let _ = plain.read_to_end(&mut response);
    assert!(!response.starts_with(b"HTTP"), "{response:?}");
    assert!(announces_over_tls(&tracker.address, &second));
    tracker.end();
}
