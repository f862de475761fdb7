//! `seedring seed` as a user runs it: who hears of its torrents, what it shows of their trackers, and that nobody who
//! reads its output can hold it up.

mod getting;

use getting::{Run, seedring};
use rustix::process::Signal;
use seedring::bencode;
use seedring::metainfo::Metainfo;
use seedring::storage::piece_hash;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Keys as trackers give them, and one that is made up of letters alone.
const KEYS: [&str; 2] = ["0123456789abcdef0123456789abcdef", "qkzjxvwbnm"];

/// A tracker that answers every announce, and the paths it was asked for.
fn tracker() -> (SocketAddr, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, asked) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let mut lines = stream.by_ref().lines();
            let request = lines.next().unwrap().unwrap();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let body = "d8:intervali1800e5:peers0:e";
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            // Who asked may have lost patience.
            let _ = stream.into_inner().write_all(answer.as_bytes());
            if sender.send(request).is_err() {
                return;
            }
        }
    });
    (address, asked)
}

/// A torrent of one file with that content, beside that file.
fn torrent(folder: &Path, name: &str, private: bool, tracker: Option<&str>) -> Metainfo {
    let content = name.repeat(1000);
    let bytes = bencode::dict(|torrent| {
        if let Some(tracker) = tracker {
            torrent.bytes("announce", tracker);
        }
        torrent.dict("info", |info| {
            info.int("length", content.len() as i64);
            info.bytes("name", name);
            info.int("piece length", 32_768);
            info.bytes("pieces", piece_hash(content.as_bytes()));
            if private {
                info.int("private", 1);
            }
        });
    });
    fs::write(folder.join(name), content).unwrap();
    fs::write(folder.join(format!("{name}.torrent")), &bytes).unwrap();
    Metainfo::parse(&bytes).unwrap()
}

/// `seedring seed` in that folder.
fn seed(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = seedring("seed");
    command.args(arguments).current_dir(folder).args(["--tracker-port", "0"]);
    command.arg("--state-dir").arg(folder.join("state"));
    command
}

/// What was told and said until the end, which comes as soon as `done` has happened.
fn until(command: &mut Command, done: impl FnOnce(&mut Run)) -> (Vec<serde_json::Value>, String) {
    let mut run = Run::start(command);
    run.started();
    done(&mut run);
    run.signal(Signal::TERM);
    let (status, heard, said) = run.ended();
    assert!(status.success(), "{status}: {said}");
    (heard, said)
}

fn started(heard: &[serde_json::Value]) -> &serde_json::Value {
    heard.iter().find(|event| event["event"] == "started").expect("it started")
}

#[test]
fn a_tracker_that_is_named_is_asked_as_well_but_never_for_a_private_torrent() {
    for (private, replace, own_hears, named_hears) in [
        (false, false, true, true),
        (true, false, true, false),
        (false, true, false, true),
        (true, true, false, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (own, own_asked) = tracker();
        let (named, named_asked) = tracker();
        torrent(folder.path(), "x", private, Some(&format!("http://{own}/announce")));
        let named = format!("http://{named}/announce");
        let mut command = seed(folder.path(), &["x.torrent", "--tracker", &named]);
        if replace {
            command.arg("--replace-trackers");
        }
        let (heard, _) = until(&mut command, |_| {
            for asked in [(own_hears, &own_asked), (named_hears, &named_asked)]
                .map(|(hears, asked)| hears.then_some(asked))
            {
                let first = asked.map(|asked| asked.recv_timeout(getting::PATIENCE).expect("it is asked"));
                assert!(first.is_none_or(|request| request.contains("event=started")));
            }
        });
        // All it has to say is said: what came besides came to those that had been told of it.
        for (asked, hears) in [(own_asked, own_hears), (named_asked, named_hears)] {
            assert_eq!(asked.try_iter().count() > 0, hears, "private {private}, replace {replace}");
        }
        let shown = started(&heard)["trackers"].to_string();
        assert_eq!(shown.contains(&named), named_hears, "private {private}, replace {replace}: {shown}");
        let notes = started(&heard)["notes"].to_string();
        assert_eq!(notes.contains("--replace-trackers"), private && !replace, "{notes}");
    }
}

/// An announce of a leech; what the tracker answers.
fn announce(tracker: &str, metainfo: &Metainfo) -> String {
    let address = tracker.strip_prefix("http://").and_then(|rest| rest.strip_suffix("/announce")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    let hash: String = metainfo.info_hash().0.iter().map(|byte| format!("%{byte:02x}")).collect();
    let query = format!("info_hash={hash}&peer_id={}&port=9&left=1&compact=1", "p".repeat(20));
    write!(stream, "GET /announce?{query} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn the_embedded_tracker_gives_out_what_is_public_and_has_no_other_and_nothing_that_is_private() {
    let folder = tempfile::tempdir().unwrap();
    let (own, own_asked) = tracker();
    let private = torrent(folder.path(), "private", true, Some(&format!("http://{own}/announce")));
    let (heard, _) = until(&mut seed(folder.path(), &["private.torrent"]), |_| {
        own_asked.recv_timeout(getting::PATIENCE).expect("its own tracker hears of it");
    });
    assert_eq!(started(&heard)["trackers"], serde_json::json!([]), "no other tracker runs");
    let names = serde_json::json!([format!("http://{own}/announce")]);
    assert_eq!(started(&heard)["own_trackers"], names);

    let public = torrent(folder.path(), "public", false, None);
    until(&mut seed(folder.path(), &["public.torrent", "private.torrent"]), |run| {
        while run.heard.iter().filter(|event| event["event"] == "started").count() < 2 {
            run.started();
        }
        let started =
            run.heard.iter().find(|told| told["event"] == "started" && told["name"] == "public").unwrap();
        let tracker = started["trackers"][0].as_str().unwrap();
        assert!(started["magnet"].as_str().unwrap().contains("&tr=http"), "{started}");
        assert!(started["notes"][0].as_str().unwrap().contains("names no tracker"), "{started}");
        assert!(announce(tracker, &public).contains("8:completei1e"));
        assert!(announce(tracker, &private).contains("does not serve this torrent"));
    });

    let (heard, _) = until(&mut seed(folder.path(), &["public.torrent", "--no-tracker"]), |_| {});
    let started = started(&heard);
    assert_eq!(started["trackers"], serde_json::json!([]));
    assert!(started["notes"][0].as_str().unwrap().contains("nobody can find it"), "{started}");
}

#[test]
fn a_private_torrent_without_a_tracker_is_refused_with_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    torrent(folder.path(), "x", true, None);
    for tracker in [None, Some("http://127.0.0.1:1/announce")] {
        let mut command = seed(folder.path(), &["x.torrent"]);
        command.args(tracker.map(|url| ["--tracker", url]).into_iter().flatten());
        let Output { status, stdout, .. } = command.output().unwrap();
        let told = String::from_utf8(stdout).unwrap();
        assert_eq!((status.code(), told.contains("--replace-trackers")), (Some(1), true), "{told}");
        let mut command = seedring("get");
        command.arg("x.torrent").args(["-o", "out", "--state-dir", "state"]).current_dir(folder.path());
        let Output { status, stderr, .. } = command.output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(
            (status.code(), said.contains("it is private and names no tracker")),
            (Some(1), true),
            "{said}"
        );
    }
}

#[test]
fn keys_are_shown_to_nobody_who_has_not_asked_for_them() {
    KEYS.iter().for_each(|key| shows_key_only_when_asked(key));
}

fn shows_key_only_when_asked(key: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("film"), "some bytes").unwrap();
    let (address, asked) = tracker();
    let plain = |command: &str, arguments: &[&str]| {
        let mut seedring = Command::new(env!("CARGO_BIN_EXE_seedring"));
        let Output { stdout, stderr, .. } =
            seedring.arg(command).args(arguments).current_dir(folder.path()).output().unwrap();
        String::from_utf8([stdout, stderr].concat()).unwrap()
    };
    let urls = [
        format!("http://{address}/{key}/announce"),
        format!("http://{address}/announce?passkey={key}"),
        format!("http://user:{key}@{address}/announce"),
        format!("udp://127.0.0.1:1/announce/{key}"),
    ];
    for url in &urls {
        for shown in [
            plain("create", &["film", "--tracker", url]),
            plain("create", &["film", "--tracker", url, "--json"]),
            plain("show", &["film.torrent"]),
            plain("show", &["film.torrent", "--json"]),
            plain("create", &["film", "--tracker", &format!("{url} x")]),
            plain("create", &["film", "--tracker", &url.replace("://", ":/")]),
            plain("create", &[url]),
            plain("show", &[url]),
            plain("check", &[url, "film"]),
            plain("get", &[url]),
            plain("seed", &["film", url]),
        ] {
            assert!(!shown.contains(key), "{shown}");
        }
        assert!(plain("show", &["film.torrent", "--show-keys"]).matches(key).count() == 2);
        assert!(
            fs::read(folder.path().join("film.torrent"))
                .unwrap()
                .windows(key.len())
                .any(|part| part == key.as_bytes())
        );
        for keys in [false, true] {
            let mut command = seed(folder.path(), &["film", "--tracker", url]);
            command.args(keys.then_some("--show-keys")).env("SEEDRING_LOG", "trace");
            let (heard, said) = until(&mut command, |run| {
                let event = run.wait_for("tracker");
                let tracker = event["tracker"].as_str().expect("it is named");
                assert_eq!(tracker == url, keys, "{tracker}");
                if url.starts_with("http") {
                    let request = asked.recv_timeout(getting::PATIENCE).expect("the tracker hears of it");
                    assert!(request.contains(key) || url.contains('@'), "{request}");
                }
            });
            let told = serde_json::to_string(&heard).unwrap();
            assert_eq!((told.contains(key), said.contains(key)), (keys, false), "{told}{said}");
        }
    }
}

#[test]
fn the_name_that_the_user_gives_the_embedded_tracker_stands_in_the_torrent() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("film"), "some bytes").unwrap();
    until(&mut seed(folder.path(), &["film", "--tracker-name", "seed.example"]), |_| {});
    let metainfo =
        seedring::session::torrent_file::read_torrent(&folder.path().join("film.torrent")).unwrap();
    assert!(metainfo.tiers().iter().flatten().all(|url| url.reveal().contains("://seed.example:")));
    assert_eq!(metainfo.tiers().len(), 2);
    for wrong in ["http://seed.example", "seed.example:80", "a/b", "a b", ""] {
        let output = seed(folder.path(), &["film", "--tracker-name", wrong]).stderr(Stdio::null()).output();
        assert_eq!(output.unwrap().status.code(), Some(2), "{wrong}");
    }
}

/// A pipe that is full, so that whoever writes to it waits: its end to read, and the one to write.
fn full_pipe() -> (std::io::PipeReader, std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let (reader, mut writer) = std::io::pipe().unwrap();
    let waits = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, waits | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    fcntl_setfl(&writer, waits).unwrap();
    (reader, writer)
}

/// A peer that introduces itself, is answered, and leaves.
fn join(peer: SocketAddr, metainfo: &Metainfo) {
    let mut stream = TcpStream::connect(peer).unwrap();
    stream.set_read_timeout(Some(getting::PATIENCE)).unwrap();
    stream.write_all(b"\x13BitTorrent protocol\0\0\0\0\0\0\0\0").unwrap();
    stream.write_all(&metainfo.info_hash().0).unwrap();
    stream.write_all(&[b'p'; 20]).unwrap();
    let mut answer = [0; 68];
    stream.read_exact(&mut answer).expect("a handshake is answered");
}

fn ended_well(mut child: std::process::Child) {
    let deadline = seedring::clock::now() + getting::PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return assert!(status.success(), "{status}");
        }
        if seedring::clock::now() >= deadline {
            child.kill().unwrap();
            panic!("it does not end");
        }
        std::thread::park_timeout(seedring::time::Duration::from_millis(20));
    }
}

fn end(child: &std::process::Child) {
    let process = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(process, Signal::TERM).expect("our child may be signalled");
}

#[test]
fn a_reader_of_stdout_that_stops_holds_up_neither_announces_nor_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = tracker();
    torrent(folder.path(), "x", false, Some(&format!("http://{address}/announce")));
    let (_reader, writer) = full_pipe();
    let child = seed(folder.path(), &["x.torrent"]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let heard = |event: &str| {
        let request = asked.recv_timeout(getting::PATIENCE).expect("it is announced");
        assert!(request.contains(event), "{request}");
    };
    heard("event=started");
    end(&child);
    heard("event=stopped");
    ended_well(child);
}

#[test]
fn a_reader_of_the_log_that_stops_holds_up_no_peer() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = tracker();
    let metainfo = torrent(folder.path(), "x", false, Some(&format!("http://{address}/announce")));
    let (_reader, writer) = full_pipe();
    let mut command = seed(folder.path(), &["x.torrent"]);
    let mut child =
        command.env("SEEDRING_LOG", "trace").stdout(Stdio::piped()).stderr(writer).spawn().unwrap();
    let mut events = BufReader::new(child.stdout.take().unwrap()).lines();
    let started = loop {
        let event: serde_json::Value = serde_json::from_str(&events.next().unwrap().unwrap()).unwrap();
        if event["event"] == "started" {
            break event;
        }
    };
    let peer: SocketAddr = started["peer_addresses"][0].as_str().unwrap().parse().unwrap();
    for _ in 0..50 {
        TcpStream::connect(peer).unwrap().write_all(b"what the log has a word for").unwrap();
    }
    join(peer, &metainfo);
    asked.recv_timeout(getting::PATIENCE).expect("it is announced");
    end(&child);
    // The rest is read, so that nothing but stderr is stuck.
    events.for_each(drop);
    ended_well(child);
}

#[test]
fn a_reader_of_stdout_that_goes_away_is_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let (address, _asked) = tracker();
    torrent(folder.path(), "x", false, Some(&format!("http://{address}/announce")));
    let mut json = seed(folder.path(), &["x.torrent"]);
    let mut plain = Command::new(env!("CARGO_BIN_EXE_seedring"));
    plain.args(["seed", "x.torrent", "--bind", "127.0.0.1", "--port", "0", "--workers", "1", "--no-pin"]);
    plain.args(["--state-dir", "state"]).current_dir(folder.path());
    for command in [&mut json, &mut plain] {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut first = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
        assert!(!first.is_empty());
        ended_well(child);
    }
}

#[test]
fn a_run_that_nobody_watched_ends_with_its_totals() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = tracker();
    torrent(folder.path(), "x", false, Some(&format!("http://{address}/announce")));
    let mut plain = Command::new(env!("CARGO_BIN_EXE_seedring"));
    plain.args(["seed", "x.torrent", "--bind", "127.0.0.1", "--port", "0", "--workers", "1", "--no-pin"]);
    plain.args(["--state-dir", "state"]).current_dir(folder.path());
    let child = plain.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    asked.recv_timeout(getting::PATIENCE).expect("it is announced");
    end(&child);
    let output = child.wait_with_output().unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}");
    assert_eq!(told.lines().last(), Some("in all      0 B served · ratio 0.00 · 0 completed"), "{told}");
}

#[test]
fn the_log_says_who_comes_and_goes_and_what_is_announced() {
    let folder = tempfile::tempdir().unwrap();
    let (address, asked) = tracker();
    let metainfo = torrent(folder.path(), "x", false, Some(&format!("http://{address}/announce")));
    let mut command = seed(folder.path(), &["x.torrent"]);
    let (_, said) = until(command.env("SEEDRING_LOG", "debug"), |run| {
        join(run.address(), &metainfo);
        asked.recv_timeout(getting::PATIENCE).expect("it is announced");
        run.wait_for("tracker");
    });
    for word in ["accepted", "joined", "left", "announced"] {
        let line = said.lines().find(|line| line.contains(word)).unwrap_or_default();
        assert!(line.contains("127.0.0.1"), "{word} is not told: {said}");
    }
}
