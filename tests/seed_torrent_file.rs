//! The torrent file that `seedring seed FOLDER` writes: over what it may be written, and that it stays out of the
//! folder's own content.

use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

/// A folder `album` with one file in it, in a folder of its own.
fn album() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("album")).unwrap();
    fs::write(folder.path().join("album/song.flac"), "some bytes").unwrap();
    folder
}

/// `seedring seed` run in `below`, a folder of `folder`.
fn seed(folder: &Path, below: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    command.arg("seed").args(arguments).current_dir(folder.join(below)).stdin(Stdio::null());
    command.args(["--bind", "127.0.0.1", "--port", "0", "--tracker-port", "0", "--workers", "1", "--no-pin"]);
    // The addresses in the torrent are no part of the info-hash, so ports that change do no harm.
    command.arg("--json").arg("--state-dir").arg(folder.join("state"));
    command
}

/// Seeds until it serves, then ends it; the event that told that it serves.
fn started(folder: &Path, below: &str, arguments: &[&str]) -> serde_json::Value {
    let mut child = seed(folder, below, arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let started = events.find(|event| event["event"] == "started").expect("it starts");
    kill_process(Pid::from_child(&child), Signal::TERM).expect("our child may be signalled");
    // Nobody reads on, so what it still tells must have room in the pipe: it is a line or two.
    assert!(child.wait().expect("it ends").success());
    started
}

#[test]
fn a_file_that_is_no_torrent_is_not_replaced_unasked() {
    let folder = album();
    let diary = folder.path().join("album.torrent");
    fs::write(&diary, "my diary").unwrap();
    let output = seed(folder.path(), "", &["album"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    assert!(said.contains("album.torrent exists and is no torrent"), "{said}");
    assert!(said.contains("--torrent"), "{said}");
    assert_eq!(fs::read(&diary).unwrap(), b"my diary");

    started(folder.path(), "", &["album", "--torrent", "album.torrent"]);
    assert_ne!(fs::read(&diary).unwrap(), b"my diary", "the user named it");
    started(folder.path(), "", &["album"]);
}

#[test]
fn a_torrent_written_into_the_shared_folder_is_not_shared_the_next_time() {
    let folder = album();
    let run = || started(folder.path(), "album", &["."])["info_hash"].clone();
    let first = run();
    assert!(folder.path().join("album/album.torrent").exists());
    assert_eq!(run(), first);
}
