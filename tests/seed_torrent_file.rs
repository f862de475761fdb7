//! The torrent file that `seedring seed FOLDER` writes: over what it may be written, that this is told, and that it stays
//! out of the folder's own content.

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

/// Seeds until it serves, then ends it; the event that told that it serves, and whether a torrent was replaced before.
fn started(folder: &Path, below: &str, arguments: &[&str]) -> serde_json::Value {
    let mut child = seed(folder, below, arguments).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let mut events = lines.map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap());
    let written = events.find(|event| event["event"] == "torrent").expect("a torrent is written");
    let mut started = events.find(|event| event["event"] == "started").expect("it starts");
    started["replaced"] = written["replaced"].clone();
    kill_process(Pid::from_child(&child), Signal::TERM).expect("our child may be signalled");
    // Nobody reads on, so what it still tells must have room in the pipe: it is a line or two.
    assert!(child.wait().expect("it ends").success());
    started
}

/// Runs until it refuses; what it says.
fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = seed(folder, "", arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{said}");
    said
}

#[test]
fn a_file_that_is_no_torrent_is_never_replaced() {
    let folder = album();
    let diary = folder.path().join("album.torrent");
    fs::write(&diary, "my diary").unwrap();
    for arguments in [&["album"][..], &["album", "--torrent", "album.torrent"]] {
        let said = refused(folder.path(), arguments);
        assert!(said.contains("album.torrent exists and is no torrent"), "{said}");
        assert!(said.contains("--torrent"), "{said}");
        assert_eq!(fs::read(&diary).unwrap(), b"my diary");
    }
    fs::remove_file(&diary).unwrap();
    for replaced in [false, true] {
        let told = started(folder.path(), "", &["album"]);
        assert_eq!(told["replaced"], replaced, "{told}");
    }
}

#[test]
fn a_film_that_is_shared_is_never_its_own_torrent() {
    let folder = album();
    let film = folder.path().join("movie.mkv");
    fs::write(&film, "a film").unwrap();
    fs::hard_link(&film, folder.path().join("other name")).unwrap();
    std::os::unix::fs::symlink("movie.mkv", folder.path().join("link")).unwrap();
    for (named, says) in [
        ("movie.mkv", "belongs to what the torrent is of"),
        ("./album/../movie.mkv", "belongs to what the torrent is of"),
        ("other name", "is no torrent"),
        ("link", "is a symbolic link"),
    ] {
        let said = refused(folder.path(), &["movie.mkv", "--torrent", named]);
        assert!(said.contains(says), "{said}");
        assert_eq!(fs::read(&film).unwrap(), b"a film");
    }
    let said = refused(folder.path(), &["album", "--torrent", "album/song.flac"]);
    assert!(said.contains("belongs to what the torrent is of"), "{said}");
    assert_eq!(fs::read(folder.path().join("album/song.flac")).unwrap(), b"some bytes");
}

#[test]
fn two_contents_of_one_torrent_file_are_refused_before_anything_is_written() {
    let folder = album();
    fs::create_dir_all(folder.path().join("b/album")).unwrap();
    fs::write(folder.path().join("b/album/song.flac"), "other bytes").unwrap();
    let said = refused(folder.path(), &["album", "b/album"]);
    assert!(
        said.contains("album.torrent") && said.contains("b/album") && said.contains("--torrent"),
        "{said}"
    );
    assert!(!folder.path().join("album.torrent").exists());
    // A torrent that is named to be seeded is not the place for another.
    started(folder.path(), "", &["album"]);
    let before = fs::read(folder.path().join("album.torrent")).unwrap();
    let said = refused(folder.path(), &["./album.torrent", "b/album"]);
    assert!(said.contains("both have"), "{said}");
    assert_eq!(fs::read(folder.path().join("album.torrent")).unwrap(), before);
    started(folder.path(), "", &["album", "./b/../album"]);
}

#[test]
fn a_torrent_written_into_the_shared_folder_is_not_shared_the_next_time() {
    let folder = album();
    let run = || started(folder.path(), "album", &["."])["info_hash"].clone();
    let first = run();
    assert!(folder.path().join("album/album.torrent").exists());
    assert_eq!(run(), first);
}
