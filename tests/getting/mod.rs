//! What the tests of `seedring get` as a process share: a torrent with its bytes, a seed, and a run of `get` that can be
//! heard, ended and killed.
#![allow(dead_code, reason = "each test program uses a part of it")]

use rustix::process::{Pid, Signal, kill_process};
use seedring::bencode;
use seedring::bitfield::Bitfield;
use seedring::metainfo::Metainfo;
use seedring::rng::Rng;
use seedring::storage::{FileSelection, Layout, Subset, check_some, piece_hash};
use seedring::time::Duration;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;

pub mod mounts;
pub mod observer;

/// Time after which a test gives up waiting.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A torrent of the folder `album`, with its content.
pub struct Album {
    pub folder: tempfile::TempDir,
    pub metainfo: Metainfo,
    pub layout: Layout,
    /// All files one after the other.
    pub content: Vec<u8>,
    files: Vec<(String, usize)>,
}

impl Album {
    /// Random files of these lengths, in the folder `seeded`, and `album.torrent` beside it.
    pub fn new(seed: u64, piece_length: usize, files: &[(&str, usize)]) -> Self {
        Self::new_in(tempfile::tempdir().unwrap(), seed, piece_length, files)
    }

    /// The same where memory serves as a disk, if there is such a place: for very many files.
    pub fn new_in_memory(seed: u64, piece_length: usize, files: &[(&str, usize)]) -> Self {
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self::new_in(folder.unwrap(), seed, piece_length, files)
    }

    fn new_in(folder: tempfile::TempDir, seed: u64, piece_length: usize, files: &[(&str, usize)]) -> Self {
        let mut content = vec![0; files.iter().map(|(_, len)| len).sum()];
        Rng::from_seed(seed).fill(&mut content);
        let hashes: Vec<u8> = content.chunks(piece_length).flat_map(piece_hash).collect();
        let torrent = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                info.list("files", |list| {
                    for (path, len) in files {
                        list.dict(|file| {
                            file.int("length", *len as i64);
                            file.list("path", |parts| path.split('/').for_each(|part| parts.bytes(part)));
                        });
                    }
                });
                info.bytes("name", "album");
                info.int("piece length", piece_length as i64);
                info.bytes("pieces", hashes);
            });
        });
        fs::write(folder.path().join("album.torrent"), &torrent).unwrap();
        let metainfo = Metainfo::parse(&torrent).unwrap();
        let layout = Layout::of(metainfo.info()).unwrap();
        let files: Vec<_> = files.iter().map(|&(path, len)| (path.to_owned(), len)).collect();
        let album = Self { folder, metainfo, layout, content, files };
        for (path, bytes) in album.each_file() {
            let path = album.path("seeded/album").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        album
    }

    /// A path in the test's own folder.
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join(relative)
    }

    fn each_file(&self) -> impl Iterator<Item = (&str, &[u8])> {
        let mut rest = &self.content[..];
        self.files.iter().map(move |(path, len)| {
            let (bytes, behind) = rest.split_at(*len);
            rest = behind;
            (path.as_str(), bytes)
        })
    }

    /// The pieces that are right below `root`.
    pub fn right_pieces(&self, root: &Path, selection: &FileSelection) -> Bitfield {
        let wanted = selection.wanted_pieces(&self.layout);
        let expected = |piece| self.metainfo.info().piece_hash(piece);
        let subset = Subset { pieces: &wanted, selection };
        let never = AtomicBool::new(false);
        match check_some(&self.layout, root, subset, &expected, 1, &|_| {}, &never) {
            Ok(report) => report.bitfield,
            Err(_) => Bitfield::none(self.layout.piece_count()),
        }
    }

    /// Every file below `root` that `wants` names is there, byte for byte, and no other.
    pub fn assert_downloaded(&self, root: &Path, wants: impl Fn(&str) -> bool) {
        for (path, bytes) in self.each_file() {
            let there = fs::read(root.join("album").join(path)).ok();
            assert!(there.as_deref() == wants(path).then_some(bytes), "{path} is not what it should be");
        }
    }
}

/// A `seedring` of this build on loopback, one worker, whatever port is free.
pub fn seedring(command: &str) -> Command {
    let mut seedring = Command::new(env!("CARGO_BIN_EXE_seedring"));
    seedring.arg(command).stdin(Stdio::null());
    seedring.args(["--bind", "127.0.0.1", "--port", "0", "--workers", "1", "--no-pin", "--json"]);
    seedring
}

/// The same command in a process that may have so many descriptors.
pub fn with_descriptors(command: &Command, count: usize) -> Command {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -n {count} && exec \"$0\" \"$@\"")]);
    limited.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    limited
}

/// `seedring get` of an album from a seed into the folder `out`, with its resume files in `state`.
pub fn get(album: &Album, seed: Option<SocketAddr>) -> Command {
    get_in(album, seed, "")
}

/// [`get`] in the folder `below` of the test's own.
pub fn get_in(album: &Album, seed: Option<SocketAddr>, below: &str) -> Command {
    let mut command = seedring("get");
    command.arg(album.path("album.torrent")).arg("-o").arg(album.path(below).join("out"));
    command.arg("--state-dir").arg(album.path(below).join("state"));
    if let Some(seed) = seed {
        command.args(["--peer", &seed.to_string()]);
    }
    command
}

/// Serves an album's content, at this rate.
pub fn seed(album: &Album, upload_limit: &str) -> Run {
    let mut command = seedring("seed");
    command.arg(album.path("album.torrent")).arg("--data").arg(album.path("seeded"));
    command.args(["--tracker-port", "0", "--upload-slots", "1000", "--upload-limit", upload_limit]);
    let mut run = Run::start(command.arg("--state-dir").arg(album.path("state-of-seed")));
    run.started();
    run
}

/// A process that tells events, killed at the latest when this is dropped.
pub struct Run {
    child: Child,
    events: Receiver<serde_json::Value>,
    /// The events heard so far.
    pub heard: Vec<serde_json::Value>,
    stderr: Option<JoinHandle<String>>,
}

impl Run {
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, events) = channel();
        let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            // A line that a kill has cut in two is the last one.
            let told = stdout.lines().map_while(Result::ok);
            for event in told.map_while(|line| serde_json::from_str(&line).ok()) {
                if sender.send(event).is_err() {
                    return;
                }
            }
        });
        let mut pipe = child.stderr.take().expect("it is piped");
        let stderr = std::thread::spawn(move || {
            let mut said = String::new();
            pipe.read_to_string(&mut said).map(|_| said).unwrap_or_default()
        });
        Self { child, events, heard: Vec::new(), stderr: Some(stderr) }
    }

    /// The next event of this name.
    pub fn wait_for(&mut self, name: &str) -> serde_json::Value {
        if let Some(event) = self.next_of(&[name], PATIENCE) {
            return event;
        }
        let said = self.end_and_stderr();
        panic!("no {name:?} came, but {:?}; it said: {said}", self.heard)
    }

    /// The next event with one of these names, of those that come until then.
    pub fn next_of(&mut self, names: &[&str], patience: Duration) -> Option<serde_json::Value> {
        let deadline = seedring::clock::now() + patience;
        loop {
            let left = deadline.since(seedring::clock::now());
            match self.events.recv_timeout(left) {
                Ok(event) => {
                    self.heard.push(event.clone());
                    if names.iter().any(|name| event["event"] == *name) {
                        return Some(event);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return None,
            }
        }
    }

    /// Waits until it has started; where it listens.
    pub fn started(&mut self) -> serde_json::Value {
        self.wait_for("started")
    }

    /// Where it listens, once it has started.
    pub fn address(&self) -> SocketAddr {
        let started = self.heard.iter().find(|event| event["event"] == "started").expect("it has started");
        started["peer_addresses"][0].as_str().unwrap().parse().unwrap()
    }

    /// Bytes that had to be checked, as far as heard.
    pub fn checked_len(&self) -> u64 {
        let checking = self.heard.iter().find(|event| event["event"] == "checking");
        checking.map_or(0, |event| event["length"].as_u64().unwrap())
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child may be signalled");
    }

    /// As `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The process's number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, when it does within that time.
    pub fn ends_within(&mut self, patience: Duration) -> Option<ExitStatus> {
        let deadline = seedring::clock::now() + patience;
        loop {
            let status = self.child.try_wait().unwrap();
            if status.is_some() || seedring::clock::now() >= deadline {
                return status;
            }
            // Until it has closed its pipe, this waits; from then on it looks now and then.
            self.next_of(&[], Duration::from_millis(100));
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for its own end, and hears the rest; what it said on stderr.
    pub fn ended(mut self) -> (ExitStatus, Vec<serde_json::Value>, String) {
        while self.next_of(&[], PATIENCE).is_some() {}
        let status = self.child.wait().unwrap();
        let said = self.stderr.take().expect("asked once").join().unwrap();
        (status, std::mem::take(&mut self.heard), said)
    }

    fn end_and_stderr(&mut self) -> String {
        self.kill();
        self.stderr.take().map_or(String::new(), |stderr| stderr.join().unwrap())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
