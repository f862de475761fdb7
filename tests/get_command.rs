//! `seedring get` as a user runs it: what it refuses and with which words, what it prints, how it ends.

mod getting;

use getting::{Album, Run, get, get_in, seed, seedring};
use rustix::process::Signal;
use seedring::bitfield::Bitfield;
use seedring::secret_url::Keys;
use seedring::session::torrent_file::read_torrent;
use seedring::storage::{FileSelection, Resume, resume_path};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn album() -> Album {
    Album::new(3, 32 << 10, &[("one.flac", 300_001), ("notes.txt", 20_000), ("two.flac", 100_000)])
}

/// `seedring get` with these arguments and nothing else, in a folder of its own.
fn bare(arguments: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = seedring("get");
    command.args(arguments).current_dir(folder.path()).arg("--state-dir").arg(folder.path().join("state"));
    told(&mut command)
}

fn told(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().expect("it ends by itself"), text(stdout), text(stderr))
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for arguments in [
        &[][..],
        &["x.torrent", "y.torrent"],
        &["x.torrent", "--seed", "--seed-ratio", "2"],
        &["x.torrent", "--seed-ratio", "2", "--seed-time", "1h"],
        &["x.torrent", "--seed-ratio", "much"],
        &["x.torrent", "--seed-time", "soon"],
        &["x.torrent", "--peer", "somebody"],
        &["x.torrent", "--tracker", "gopher://example.org"],
        &["x.torrent", "--download-limit", "fast"],
        &["x.torrent", "--everything"],
        &["x.torrent", "--follow-links"],
    ] {
        let (code, out, err) = bare(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains("Usage") || err.contains("--help"), "{arguments:?}: {err}");
    }
}

#[test]
fn what_is_no_torrent_is_told_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let diary = folder.path().join("diary.torrent");
    fs::write(&diary, "my diary").unwrap();
    for (argument, part) in [
        ("missing.torrent", "missing.torrent"),
        (diary.to_str().unwrap(), "diary.torrent"),
        (folder.path().to_str().unwrap(), folder.path().to_str().unwrap()),
        ("magnet:?xt=urn:btih:abc", "is no info-hash"),
        ("magnet:?dn=name", "xt=urn:btih"),
        ("MAGNET:?xt=urn:btih:zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "is no info-hash"),
    ] {
        let (code, out, err) = bare(&[argument]);
        let is_link = argument.to_lowercase().starts_with("magnet:");
        assert_eq!((code, out.as_str()), (if is_link { 2 } else { 1 }, ""), "{argument}: {err}");
        assert!(err.starts_with("seedring: ") && err.lines().count() == 1, "{argument}: {err}");
        assert!(err.contains(part), "{argument}: {err}");
    }
}

#[test]
fn a_magnet_link_that_names_nobody_to_ask_says_so() {
    let (code, _, err) = bare(&["magnet:?xt=urn:btih:0123456789abcdef0123456789abcdef01234567"]);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("--peer") || err.contains("tracker"), "{err}");
}

#[test]
fn a_pattern_that_matches_nothing_downloads_nothing() {
    let album = album();
    for (pattern, part) in [("*.mkv", "seedring show --files"), ("[x", "is no pattern of file names")] {
        let (code, _, err) = told(get(&album, None).args(["--only", pattern]));
        assert_eq!(code, 2, "{err}");
        assert!(err.contains(part), "{err}");
        assert!(!album.path("out").exists() && !album.path("state").exists());
    }
}

#[test]
fn the_folder_is_made_and_events_tell_the_story() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let mut command = seedring("get");
    command.arg(album.path("album.torrent")).arg("-o").arg(album.path("far/away/out"));
    command.args(["--peer", &seed.address().to_string()]).arg("--state-dir").arg(album.path("state"));
    let (status, heard, said) = Run::start(&mut command).ended();
    assert!(status.success() && said.is_empty(), "{said}");
    album.assert_downloaded(&album.path("far/away/out"), |_| true);
    let names: Vec<_> = heard.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names.first(), Some(&"started"));
    assert!(names.contains(&"downloaded"), "{names:?}");
    let started = &heard[0];
    assert_eq!(started["name"], "album");
    assert_eq!(started["info_hash"], album.metainfo.info_hash().to_string());
    assert_eq!((&started["pieces"], &started["piece_count"]), (&0.into(), &13.into()));
    for status in heard.iter().filter(|event| event["event"] == "status") {
        assert!(status["download"].is_null() || status["download"]["left"].is_u64(), "{status}");
    }
}

#[test]
fn a_magnet_link_is_enough() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let magnet = format!("{}&x.pe={}", album.metainfo.magnet().link(Keys::Shown), seed.address());
    let mut command = seedring("get");
    command.arg(magnet).arg("-o").arg(album.path("out")).arg("--state-dir").arg(album.path("state"));
    let (status, _, said) = Run::start(&mut command).ended();
    assert!(status.success(), "{said}");
    album.assert_downloaded(&album.path("out"), |_| true);
    assert!(read_torrent(&album.path("album.torrent")).is_ok());
}

#[test]
fn pieces_that_are_no_whole_number_of_blocks_are_seeded_and_downloaded() {
    for (seed_number, piece_length) in [(1, 270_544), (2, 827_392), (3, 1_025), (4, 16_383)] {
        let album = Album::new(seed_number, piece_length, &[("one", 600_001), ("sub/two", 399_998)]);
        let seed = seed(&album, "100MB/s");
        let (status, _, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
        assert!(status.success() && said.is_empty(), "{piece_length}: {said}");
        album.assert_downloaded(&album.path("out"), |_| true);
    }
}

/// The album's files in the folder `store`, and three ways to link to them; each a folder to give as `--data`.
fn linked(album: &Album) -> [&'static str; 3] {
    fs::rename(album.path("seeded/album"), album.path("store")).unwrap();
    for folder in ["files/album/sub", "folder/album", "whole"] {
        fs::create_dir_all(album.path(folder)).unwrap();
    }
    for path in ["one", "sub/two"] {
        symlink(album.path("store").join(path), album.path("files/album").join(path)).unwrap();
    }
    fs::copy(album.path("store/one"), album.path("folder/album/one")).unwrap();
    symlink("../../store/sub", album.path("folder/album/sub")).unwrap();
    symlink(album.path("store"), album.path("whole/album")).unwrap();
    ["files", "folder", "whole"]
}

#[test]
fn content_behind_links_is_refused_at_once_or_followed_and_served_whole() {
    let album = Album::new(5, 32 << 10, &[("one", 100_000), ("sub/two", 50_000)]);
    for data in linked(&album) {
        let state = format!("state-{data}");
        let mut command = seedring("seed");
        command.arg(album.path("album.torrent")).arg("--data").arg(album.path(data));
        command.args(["--tracker-port", "0"]).arg("--state-dir").arg(album.path(&state));
        let (status, heard, said) = Run::start(&mut command).ended();
        assert!(!status.success() && heard.iter().all(|event| event["event"] != "started"), "{data}");
        let words = format!("{said} {heard:?}");
        assert!(words.contains("symbolic link") && words.contains("--follow-links"), "{data}: {words}");

        let mut seed = Run::start(command.arg("--follow-links"));
        assert_eq!(seed.started()["pieces"], 5, "{data}");
        let (status, _, said) = Run::start(&mut get_in(&album, Some(seed.address()), data)).ended();
        assert!(status.success(), "{data}: {said}");
        album.assert_downloaded(&album.path(data).join("out"), |_| true);
        // What was checked behind the links is remembered.
        seed.signal(Signal::INT);
        assert!(seed.ended().0.success(), "{data}");
        let mut again = Run::start(&mut command);
        again.started();
        assert_eq!(again.checked_len(), 0, "{data}");
    }
}

/// Without `--json`, which the tests otherwise give.
fn plain(album: &Album, seed: &Run) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    command.arg("get").arg(album.path("album.torrent")).arg("-o").arg(album.path("out"));
    command.arg("--state-dir").arg(album.path("state")).args(["--peer", &seed.address().to_string()]);
    command.args(["--bind", "127.0.0.1", "--port", "0", "--workers", "1", "--no-pin"]).stdin(Stdio::null());
    command
}

#[test]
fn plain_lines_have_no_colour_and_say_that_it_is_here() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    for colour in ["", "1"] {
        let (code, out, err) = told(plain(&album, &seed).env("NO_COLOR", colour));
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        assert!(!out.contains('\x1b') && out.contains("name        album\n"), "{out}");
        assert!(out.contains("downloaded  album\n"), "{out}");
        fs::remove_dir_all(album.path("out")).unwrap();
    }
}

#[test]
fn a_failure_is_told_once_and_in_the_words_of_a_download() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    fs::write(album.path("out"), "in the way").unwrap();
    let (code, _, err) = told(&mut plain(&album, &seed));
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("is a file where a folder is due"), "{err}");
    assert!(!err.contains("seeded") && err.lines().count() == 1, "{err}");
    assert_eq!(fs::read(album.path("out")).unwrap(), b"in the way");
}

#[test]
fn a_download_that_nobody_follows_any_more_ends_and_goes_on_when_it_is_started_again() {
    let album = album();
    let seed = seed(&album, "50KB/s");
    let mut child =
        get(&album, Some(seed.address())).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    drop(stdout);
    let status = child.wait().unwrap();
    let mut said = String::new();
    child.stderr.take().expect("it is piped").read_to_string(&mut said).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("the same command goes on from here"), "{said}");
    let seed = getting::seed(&album, "100MB/s");
    let (status, _, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
    assert!(status.success(), "{said}");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn a_limit_on_the_length_of_files_is_told_and_kills_nobody() {
    let album = album();
    let seedring = env!("CARGO_BIN_EXE_seedring");
    let script = "ulimit -f 256; exec \"$0\" \"$@\"";
    let get = get(&album, None);
    let mut limited = Command::new("sh");
    limited.args(["-c", script, seedring]).args(get.get_args()).stdin(Stdio::null());
    let (code, _, err) = told(&mut limited);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("ulimit -f"), "{err}");
}

/// What nobody may do, as the user nobody; root may do everything.
#[test]
fn a_folder_that_may_not_be_written_is_told_with_its_name() {
    let album = album();
    fs::create_dir(album.path("out")).unwrap();
    let out = album.path("out");
    let mut command = get(&album, None);
    if rustix::process::getuid().is_root() {
        let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
        // Nobody may have no way to where it was built.
        fs::copy(env!("CARGO_BIN_EXE_seedring"), album.path("seedring")).unwrap();
        open_to_all(album.folder.path());
        let mut as_nobody = Command::new("setpriv");
        as_nobody.args(nobody).arg(album.path("seedring")).args(command.get_args());
        command = as_nobody;
    } else {
        let mut permissions = fs::metadata(&out).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&out, permissions).unwrap();
    }
    let (code, _, err) = told(&mut command);
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("out") && err.contains("may not be written by this user"), "{err}");
}

#[test]
fn a_place_where_no_folder_or_file_can_be_made_is_named_with_what_to_do() {
    let album = album();
    for place in ["/proc/x", "/proc/x/y", "/proc"] {
        let mut command = seedring("get");
        command.arg(album.path("album.torrent")).args(["-o", place]);
        command.arg("--state-dir").arg(album.path("state"));
        let (code, _, err) = told(&mut command);
        assert_eq!(code, 1, "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
        assert!(err.contains("/proc") && err.contains("choose another folder"), "{err}");
    }
}

fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A path of the download and what lies there, which is nobody's but its owner's.
fn refused_and_kept(album: &Album, seed: &Run, path: &Path, bytes: &[u8], says: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    let (code, _, err) = told(&mut plain(album, seed));
    assert_eq!(code, 1, "{err}");
    assert_eq!(err.lines().filter(|line| !line.starts_with("checking ")).count(), 1, "{err}");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(err.contains(name) && err.contains(says) && err.contains("--overwrite"), "{err}");
    assert!(fs::read(path).unwrap() == bytes, "{} was written over", path.display());
}

#[test]
fn somebody_elses_file_is_left_alone_whatever_its_length_until_the_user_means_it() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let one = album.path("out/album/one.flac");
    for (len, says) in [(12, "is there already"), (300_001, "is there already"), (300_002, "is not cut off")]
    {
        refused_and_kept(&album, &seed, &one, &vec![b'x'; len], says);
        assert!(!album.path("out/album/two.flac").exists(), "nothing is made beside it");
    }
    let (code, _, err) = told(plain(&album, &seed).arg("--overwrite"));
    assert_eq!(code, 0, "{err}");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn one_foreign_file_among_good_ones_and_a_small_one_are_left_alone_as_well() {
    // No piece lies in both of the first two.
    let files = [("one.flac", 10 * (32 << 10)), ("notes.txt", 20_000), ("two.flac", 100_000)];
    let album = Album::new(3, 32 << 10, &files);
    let seed = seed(&album, "100MB/s");
    for (path, bytes) in [("one.flac", &b"somebody else's"[..]), ("notes.txt", b"my diary")] {
        let _ = fs::remove_dir_all(album.path("out"));
        fs::create_dir_all(album.path("out")).unwrap();
        let copied =
            Command::new("cp").arg("-r").arg(album.path("seeded/album")).arg(album.path("out")).status();
        assert!(copied.unwrap().success());
        refused_and_kept(&album, &seed, &album.path("out/album").join(path), bytes, "is there already");
    }
    // What another client has fetched half of goes on.
    let two = fs::read(album.path("seeded/album/two.flac")).unwrap();
    fs::write(album.path("out/album/two.flac"), &two[..70_000]).unwrap();
    fs::remove_file(album.path("out/album/notes.txt")).unwrap();
    let (code, _, err) = told(&mut plain(&album, &seed));
    assert_eq!(code, 0, "{err}");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn another_clients_copy_is_repaired_though_small_files_share_pieces_with_what_is_missing() {
    let files = [("one.flac", 300_001), ("cover.jpg", 5000), ("disc.cue", 700), ("two.flac", 200_000)];
    let album = Album::new(3, 32 << 10, &files);
    let seed = seed(&album, "100MB/s");
    let copy = |but: &str| {
        let _ = fs::remove_dir_all(album.path("out"));
        let _ = fs::remove_dir_all(album.path("state"));
        fs::create_dir_all(album.path("out/album")).unwrap();
        for (name, _) in files.iter().filter(|(name, _)| *name != but) {
            fs::copy(album.path("seeded/album").join(name), album.path("out/album").join(name)).unwrap();
        }
    };
    let names = || {
        let all = fs::read_dir(album.path("out/album")).unwrap();
        let mut names: Vec<_> = all.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    for missing in ["two.flac", "cover.jpg", "disc.cue", "one.flac"] {
        copy(missing);
        let (code, _, err) = told(&mut plain(&album, &seed));
        assert_eq!(code, 0, "without {missing}: {err}");
        album.assert_downloaded(&album.path("out"), |_| true);
        assert_eq!(names(), ["cover.jpg", "disc.cue", "one.flac", "two.flac"], "nothing was lost");
    }
    // Somebody has changed a line of it since.
    copy("two.flac");
    let mut cue = fs::read(album.path("out/album/disc.cue")).unwrap();
    cue[300] ^= 1;
    fs::write(album.path("out/album/disc.cue"), &cue).unwrap();
    let (code, _, err) = told(&mut plain(&album, &seed));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("disc.cue.before-download"), "{err}");
    assert_eq!(fs::read(album.path("out/album/disc.cue.before-download")).unwrap(), cue);
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn what_cannot_be_kept_is_not_lost_and_half_of_a_copy_is_not_left_behind() {
    let album = Album::new(3, 32 << 10, &[("one.flac", 100_000), ("book.bin", 400_000)]);
    let seed = seed(&album, "100MB/s");
    fs::create_dir_all(album.path("out/album")).unwrap();
    fs::copy(album.path("seeded/album/one.flac"), album.path("out/album/one.flac")).unwrap();
    // As long as it is to be, and something else; its copy is longer than this process may write.
    fs::write(album.path("out/album/book.bin"), vec![b'x'; 400_000]).unwrap();
    let get = get(&album, Some(seed.address()));
    let mut limited = Command::new("sh");
    limited.args(["-c", "ulimit -f 512; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_seedring")]);
    let mut run = Run::start(limited.args(get.get_args()).stdin(Stdio::null()));
    let refused = run.wait_for("storage_refused");
    assert!(refused["reason"].as_str().unwrap().contains("book.bin.before-download"), "{refused}");
    run.kill();
    assert_eq!(fs::read_dir(album.path("out/album")).unwrap().count(), 2);
    assert!(fs::read(album.path("out/album/book.bin")).unwrap() == vec![b'x'; 400_000]);
    let (code, _, err) = told(&mut plain(&album, &seed));
    assert_eq!(code, 0, "{err}");
    album.assert_downloaded(&album.path("out"), |_| true);
    assert!(fs::read(album.path("out/album/book.bin.before-download")).unwrap() == vec![b'x'; 400_000]);
}

#[test]
fn the_other_name_of_a_file_that_is_seeded_is_not_written_even_by_who_means_it() {
    let album = album();
    let seed = seed(&album, "100MB/s");
    let other = Album::new(4, 32 << 10, &[("one.flac", 300_001)]);
    fs::create_dir_all(album.path("out/album")).unwrap();
    fs::hard_link(other.path("seeded/album/one.flac"), album.path("out/album/one.flac")).unwrap();
    let before = fs::read(other.path("seeded/album/one.flac")).unwrap();
    for (option, says) in
        [("--sequential", "is there already"), ("--overwrite", "has other names (hard links)")]
    {
        let (code, _, err) = told(plain(&album, &seed).arg(option));
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("one.flac") && err.contains(says), "{err}");
        assert!(fs::read(other.path("seeded/album/one.flac")).unwrap() == before);
    }
}

#[test]
fn names_that_begin_with_a_dot_are_told_and_never_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("evil")).unwrap();
    fs::write(at("evil/.bashrc"), [b'e'; 300]).unwrap();
    let seedring = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
        told(command.args(arguments).current_dir(folder.path()).stdin(Stdio::null()))
    };
    assert_eq!(seedring(&["create", "evil/.bashrc", "-o", "e.torrent"]).0, 0);
    let (code, out, _) = seedring(&["show", "e.torrent", "--files"]);
    assert!(code == 0 && out.contains("hidden      .bashrc:") && out.contains(".bashrc (hidden)"), "{out}");
    let (_, out, _) = seedring(&["show", "e.torrent", "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap()["hidden_count"], 1);
    fs::create_dir(at("home")).unwrap();
    let network =
        ["--bind", "127.0.0.1", "--port", "0", "--workers", "1", "--no-pin", "--state-dir", "state"];
    for len in [120, 300] {
        let mut precious = b"precious".to_vec();
        precious.resize(len, b'\n');
        fs::write(at("home/.bashrc"), &precious).unwrap();
        let (code, _, err) = seedring(&[&["get", "e.torrent", "-o", "home"], &network[..]].concat());
        assert_eq!(code, 1, "{err}");
        assert!(
            err.contains("a name that begins with a dot") && err.contains(".bashrc is there already"),
            "{err}"
        );
        assert!(fs::read(at("home/.bashrc")).unwrap() == precious);
    }
}

/// Read-only content that is whole: as nobody, since root may write everything.
#[test]
fn content_that_is_whole_and_may_only_be_read_is_downloaded_already() {
    use std::os::unix::fs::PermissionsExt;
    let album = album();
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::rename(album.path("seeded"), album.path("out")).unwrap();
    for name in ["one.flac", "notes.txt", "two.flac"] {
        mode(&album.path("out/album").join(name), 0o444);
    }
    mode(&album.path("out/album"), 0o555);
    let get = get(&album, None);
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    if rustix::process::getuid().is_root() {
        fs::copy(env!("CARGO_BIN_EXE_seedring"), album.path("seedring")).unwrap();
        open_to_all(album.folder.path());
        fs::create_dir(album.path("state")).unwrap();
        mode(&album.path("state"), 0o777);
        command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(album.path("seedring"));
    }
    let (code, out, err) = told(command.args(get.get_args()).stdin(Stdio::null()));
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("\"event\":\"downloaded\""), "{out}");
    mode(&album.path("out/album"), 0o755);
    album.assert_downloaded(&album.path("out"), |_| true);
}

/// Downloads slowly until a record calls some pieces right, of which `is_enough` says whether they are; the run goes on.
fn half_way(album: &Album, is_enough: impl Fn(&Bitfield) -> bool) -> (Run, Run) {
    let seed = seed(album, "60KB/s");
    let mut run = Run::start(&mut get(album, Some(seed.address())));
    let record = resume_path(&album.path("state"), album.metainfo.info_hash());
    loop {
        run.wait_for("status");
        if Resume::load(&record).is_ok_and(|record| is_enough(&record.verified)) {
            return (seed, run);
        }
    }
}

#[test]
fn what_the_user_puts_in_the_place_of_a_killed_download_is_left_alone() {
    let album = Album::new(3, 16 << 10, &[("film", 1_000_000)]);
    let (film, precious) = (album.path("out/album/film"), vec![b'x'; 1_000_000]);
    for is_written_over in [true, false] {
        let _ = fs::remove_dir_all(album.path("out"));
        let (seed, mut run) = half_way(&album, |verified| verified.count() >= 2);
        run.kill();
        let ours = fs::metadata(&film).unwrap().ino();
        if is_written_over {
            // As cp(1) does.
            fs::write(&film, &precious).unwrap();
            assert_eq!(fs::metadata(&film).unwrap().ino(), ours);
        } else {
            // Some file systems give the number to the next file.
            fs::remove_file(&film).unwrap();
            let names: Vec<_> = (0..8).map(|number| album.path("out").join(format!("{number}"))).collect();
            names.iter().for_each(|name| fs::write(name, &precious).unwrap());
            let is_ours = |name: &&std::path::PathBuf| fs::metadata(name).unwrap().ino() == ours;
            fs::rename(names.iter().find(is_ours).unwrap_or(&names[0]), &film).unwrap();
        }
        let (code, _, err) = told(&mut plain(&album, &seed));
        assert_eq!(code, 1, "{err}");
        assert!(err.contains("film is there already"), "{err}");
        assert!(fs::read(&film).unwrap() == precious, "it was written over");
    }
}

#[test]
fn what_another_program_writes_into_a_download_is_not_called_downloaded_and_is_mended_by_the_next_run() {
    let album = Album::new(3, 16 << 10, &[("film", 600_000)]);
    let (_seed, run) = half_way(&album, |verified| verified.count() >= 2);
    let all = FileSelection::all();
    let here = album.right_pieces(&album.path("out"), &all).iter().next().unwrap();
    let film = fs::OpenOptions::new().write(true).open(album.path("out/album/film")).unwrap();
    film.write_all_at(b"somebody else's", u64::from(here.0) * (16 << 10)).unwrap();
    let (status, heard, said) = run.ended();
    assert!(!status.success(), "{heard:?}");
    assert!(said.contains("film was written to by another program"), "{said}");
    assert!(heard.iter().all(|event| event["event"] != "downloaded"), "{heard:?}");
    let seed = seed(&album, "100MB/s");
    let (status, _, said) = Run::start(&mut get(&album, Some(seed.address()))).ended();
    assert!(status.success(), "{said}");
    album.assert_downloaded(&album.path("out"), |_| true);
    assert!(!album.path("out/album/film.before-download").exists());
}

#[test]
fn a_file_that_only_its_times_show_to_be_touched_is_downloaded_all_the_same() {
    let album = Album::new(3, 16 << 10, &[("film", 400_000)]);
    let (_seed, run) = half_way(&album, |verified| verified.count() >= 2);
    fs::hard_link(album.path("out/album/film"), album.path("watched")).unwrap();
    let (status, heard, said) = run.ended();
    assert!(status.success() && said.is_empty(), "{said}");
    assert!(heard.iter().any(|event| event["event"] == "downloaded"), "{heard:?}");
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn a_finished_file_that_was_altered_since_is_kept_before_it_is_mended() {
    let album = Album::new(3, 16 << 10, &[("disk.img", 600_000)]);
    let seed = seed(&album, "100MB/s");
    assert_eq!(told(&mut plain(&album, &seed)).0, 0);
    let image = album.path("out/album/disk.img");
    let file = fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(b"what a machine has written", 50_000).unwrap();
    let used = fs::read(&image).unwrap();
    let (code, _, err) = told(&mut plain(&album, &seed));
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("disk.img.before-download"), "{err}");
    assert!(fs::read(album.path("out/album/disk.img.before-download")).unwrap() == used);
    album.assert_downloaded(&album.path("out"), |_| true);
}

#[test]
fn a_limit_on_open_files_that_nothing_can_be_done_with_is_told_and_not_waited_out() {
    let album = album();
    let get = get(&album, None);
    let limited = |limit: &str| {
        let mut limited = Command::new("sh");
        limited.args([
            "-c",
            &format!("ulimit {limit} && exec \"$0\" \"$@\""),
            env!("CARGO_BIN_EXE_seedring"),
        ]);
        limited.args(get.get_args()).stdin(Stdio::null());
        told(&mut limited)
    };
    let (code, _, err) = limited("-n 20");
    assert_eq!(code, 1, "{err}");
    assert!(err.contains("needs 24 at least") && err.contains("ulimit -n"), "{err}");
}
