//! `seedring create` and `seedring show` as a user runs them: exit codes, text, JSON.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

fn seedring(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_seedring")).current_dir(dir).args(args).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

/// A folder `album` with a link and an odd but honest name in it.
fn album() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("album/disc 2")).unwrap();
    fs::write(dir.path().join("album/Ünïcode – 東京.flac"), vec![7; 40_000]).unwrap();
    fs::write(dir.path().join("album/disc 2/01.flac"), "x").unwrap();
    symlink("disc 2", dir.path().join("album/link")).unwrap();
    dir
}

#[test]
fn what_create_writes_show_reads_and_check_finds_whole() {
    let dir = album();
    let flags = ["--tracker", "http://t/a", "--tracker", "udp://u:1", "--webseed", "http://w/", "--private"];
    let texts = ["--comment", "hé", "--source", "S", "--piece-length", "16KiB", "--json"];
    let (code, out, err) = seedring(dir.path(), &[&["create", "album"], &flags[..], &texts[..]].concat());
    assert_eq!(code, 0, "{err}");
    assert!(err.ends_with("album/link is left out: it is a symbolic link\n"), "{err}");
    let created = json(&out);
    assert_eq!((&created["torrent"], &created["piece_count"]), (&"album.torrent".into(), &3.into()));

    let (code, out, err) = seedring(dir.path(), &["show", "album.torrent", "--files", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    let shown = json(&out);
    for key in ["name", "info_hash", "length", "piece_length", "piece_count", "file_count", "magnet"] {
        assert_eq!(shown[key], created[key], "{key}");
    }
    assert_eq!(shown["trackers"], serde_json::json!([["http://t/a"], ["udp://u:1"]]));
    assert_eq!(
        (&shown["private"], &shown["comment"], &shown["source"]),
        (&true.into(), &"hé".into(), &"S".into())
    );
    assert_eq!(shown["files"][0]["path"], "album/disc 2/01.flac");
    assert_eq!(shown["files"][1]["path"], "album/Ünïcode – 東京.flac");

    let (code, out, _) = seedring(dir.path(), &["show", created["magnet"].as_str().unwrap(), "--json"]);
    assert_eq!((code, &json(&out)["info_hash"]), (0, &created["info_hash"]));
    assert_eq!(seedring(dir.path(), &["check", "album.torrent", "album"]).0, 0);
}

#[test]
fn a_second_create_replaces_its_torrent_and_nothing_else() {
    let dir = album();
    let (first, second) =
        (seedring(dir.path(), &["create", "album"]), seedring(dir.path(), &["create", "album"]));
    assert_eq!((first.0, second.0), (0, 0));
    assert!(!first.1.contains("(replaced)") && second.1.contains("album.torrent (replaced)\n"));

    fs::write(dir.path().join("album.torrent"), "my diary").unwrap();
    let (code, out, err) = seedring(dir.path(), &["create", "album"]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("exists and is no torrent") && err.contains("-o"), "{err}");
    assert_eq!(fs::read(dir.path().join("album.torrent")).unwrap(), b"my diary");
    let named = seedring(dir.path(), &["create", "album", "-o", "album.torrent"]);
    assert!(named.0 == 1 && named.2.contains("exists and is no torrent"), "{}", named.2);
    assert_eq!(fs::read(dir.path().join("album.torrent")).unwrap(), b"my diary");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn nothing_of_the_content_and_no_link_becomes_the_torrent() {
    let dir = album();
    fs::write(dir.path().join("movie.mkv"), "a film").unwrap();
    symlink("album/disc 2/01.flac", dir.path().join("song")).unwrap();
    assert_eq!(seedring(dir.path(), &["create", "movie.mkv", "-o", "album/other.torrent"]).0, 0);
    let other = fs::read(dir.path().join("album/other.torrent")).unwrap();
    for (args, says) in [
        (&["create", "movie.mkv", "-o", "movie.mkv"][..], "belongs to what the torrent is of"),
        (&["create", "album", "-o", "album/disc 2/01.flac"], "belongs to what the torrent is of"),
        (&["create", "album", "-o", "album/other.torrent"], "belongs to what the torrent is of"),
        (&["create", "album/other.torrent", "-o", "album/other.torrent"], "belongs to"),
        (&["create", "movie.mkv", "-o", "song"], "is a symbolic link"),
        (&["create", "movie.mkv", "-o", "/dev/null"], "where a file is due"),
    ] {
        let (code, out, err) = seedring(dir.path(), args);
        assert_eq!((code, out.as_str(), err.contains(says)), (1, "", true), "{args:?} {err}");
    }
    assert_eq!(fs::read(dir.path().join("movie.mkv")).unwrap(), b"a film");
    assert_eq!(fs::read(dir.path().join("album/disc 2/01.flac")).unwrap(), b"x");
    assert_eq!(fs::read(dir.path().join("album/other.torrent")).unwrap(), other);
    for replaced in [false, true] {
        let (_, out, _) = seedring(dir.path(), &["create", "movie.mkv", "--json"]);
        assert_eq!(json(&out)["replaced"], replaced);
    }
}

#[test]
fn a_folder_that_holds_its_own_torrent_keeps_its_info_hash() {
    let dir = album();
    let album = dir.path().join("album");
    let run = || json(&seedring(&album, &["create", ".", "--json"]).1)["info_hash"].clone();
    assert_eq!(run(), run());
    assert_eq!(seedring(dir.path(), &["check", "album/album.torrent", "album"]).0, 0);
}

#[test]
fn failures_are_one_sentence_and_exit_1_and_wrong_usage_exits_2() {
    let dir = album();
    fs::write(
        dir.path().join("v2.torrent"),
        "d4:infod9:file treede12:meta versioni2e4:name1:x12:piece lengthi16384eee",
    )
    .unwrap();
    for (args, says) in [
        (&["show", "missing.torrent"][..], "cannot read the torrent file missing.torrent"),
        (&["show", "album"], "cannot read the torrent file album"),
        (&["show", "v2.torrent"], "v2 torrent not supported"),
        (&["show", "magnet:?xt=urn:btmh:1220"], "v2 torrent not supported"),
        (&["create", "missing"], "missing"),
        (&["create", "/"], "root of the file system"),
        (&["create", "album", "-o", "missing/x.torrent"], "cannot write the torrent file missing/x.torrent"),
    ] {
        let (code, out, err) = seedring(dir.path(), args);
        assert_eq!(
            (code, out.as_str(), err.lines().last().unwrap().contains(says)),
            (1, "", true),
            "{args:?} {err}"
        );
    }
    assert_eq!(seedring(dir.path(), &["create", "album", "-o", "one.torrent"]).0, 0);
    for args in [
        &["create"][..],
        &["show"],
        &["create", "album", "--piece-length", "48KiB"],
        &["create", "album", "--piece-length", "8KiB"],
        &["create", "album", "--tracker", "somewhere"],
        // What no parser of arguments sees.
        &["show", "magnet:?dn=x"],
        &["create", "album", "--exclude", "["],
        &["seed", "album", "album", "--torrent", "x.torrent", "--bind", "127.0.0.1", "--port", "0"],
        &["bench", "nowhere", "x.torrent"],
        &["bench", "127.0.0.1:1", "x.torrent", "--verify", "--payload", "discard"],
        &["bench", "127.0.0.1:1", "x.torrent", "--bytes", "0"],
        &["get", "magnet:?dn=x", "--bind", "127.0.0.1", "--port", "0"],
        &["get", "one.torrent", "--only", "[", "--bind", "127.0.0.1", "--port", "0"],
        &["get", "one.torrent", "--first", "[", "--bind", "127.0.0.1", "--port", "0"],
        &["get", "one.torrent", "--only", "nothing", "--bind", "127.0.0.1", "--port", "0"],
        &["get", "one.torrent", "--download-limit", "0"],
        &["get", "one.torrent", "--upload-slots", "0"],
        &["get", "one.torrent", "--prefix-connections", "0"],
        &["get", "one.torrent", "--workers", "10000"],
        &["tracker", "--http", "none", "--udp", "none"],
    ] {
        assert_eq!(seedring(dir.path(), args).0, 2, "{args:?}");
    }
    assert!(!dir.path().join("album.torrent").exists());
}

#[test]
fn names_and_comments_cannot_command_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let torrent = b"d7:comment7:\x1b[2Jx\n\x074:infod6:lengthi1e4:name5:a\x1bc\rd12:piece lengthi16384e\
        6:pieces20:hhhhhhhhhhhhhhhhhhhh6:source3:\xc2\x9b!ee";
    fs::write(dir.path().join("x.torrent"), torrent).unwrap();
    for flags in [&[][..], &["--json"]] {
        let (code, out, err) = seedring(dir.path(), &[&["show", "x.torrent"], flags].concat());
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.chars().all(|c| c == '\n' || !c.is_control()), "{out:?}");
    }
    let (code, _, err) = seedring(dir.path(), &["show", "missing\x1b[31m"]);
    assert_eq!((code, err.contains('\x1b')), (1, false));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let dir = album();
    assert_eq!(seedring(dir.path(), &["create", "album"]).0, 0);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    let status = command.current_dir(dir.path()).args(["show", "album.torrent"]).stdout(Stdio::from(writer));
    assert!(status.status().unwrap().success());
}

#[test]
fn a_large_torrent_and_one_with_a_tail_are_shown() {
    let dir = tempfile::tempdir().unwrap();
    let pieces = 714_632;
    let mut torrent = format!("d4:infod6:lengthi{}e4:name7:archive", pieces as u64 * 16_384).into_bytes();
    torrent.extend(format!("12:piece lengthi16384e6:pieces{}:", pieces * 20).bytes());
    torrent.extend(vec![7; pieces * 20]);
    torrent.extend(b"ee");
    fs::write(dir.path().join("large.torrent"), &torrent).unwrap();
    let (code, out, err) = seedring(dir.path(), &["show", "large.torrent", "--json"]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!((&json(&out)["piece_count"], &json(&out)["ignored_bytes"]), (&pieces.into(), &().into()));

    assert_eq!(seedring(dir.path(), &["create", "large.torrent", "-o", "t.torrent"]).0, 0);
    let small = fs::read(dir.path().join("t.torrent")).unwrap();
    for tail in ["\n", "\r\n", " \t", "d4:infode"] {
        fs::write(dir.path().join("tailed.torrent"), [&small, tail.as_bytes()].concat()).unwrap();
        let (code, out, err) = seedring(dir.path(), &["show", "tailed.torrent"]);
        assert_eq!((code, err.as_str()), (0, ""));
        assert!(out.contains("note        ") && out.contains(" behind the torrent's end "), "{out}");
        assert_eq!(seedring(dir.path(), &["check", "tailed.torrent", "large.torrent"]).0, 0);
    }
}

#[test]
fn what_systems_leave_behind_is_left_out_and_names_that_are_alike_are_told() {
    let dir = album();
    for path in [".DS_Store", "Thumbs.db", "disc 2/x.nfo", "disc 2/01.FLAC", ".git/config"] {
        let path = dir.path().join("album").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "y").unwrap();
    }
    let shared = |options: &[&str]| {
        let (code, out, err) = seedring(dir.path(), &[&["create", "album", "--json"], options].concat());
        assert_eq!(code, 0, "{err}");
        (json(&out)["file_count"].as_u64().unwrap(), err)
    };
    let (files, err) = shared(&[]);
    assert_eq!(files, 4, "{err}");
    assert!(err.contains("Thumbs.db is left out") && err.contains("--include-system-files"), "{err}");
    let alike = "disc 2/01.FLAC and disc 2/01.flac differ in case only";
    assert!(err.contains(alike), "{err}");
    let (files, err) = shared(&["--include-system-files"]);
    assert!(files == 7 && !err.contains("Thumbs.db"), "{err}");
    let (files, err) = shared(&["--exclude", "*.nfo", "--exclude", "disc 2/*.FLAC"]);
    assert!(files == 2 && err.contains("x.nfo is left out: it is excluded") && !err.contains(alike), "{err}");
    let (code, _, err) = seedring(dir.path(), &["create", "album", "--exclude", "[x"]);
    assert!(code == 2 && err.contains("\"[x\" is no pattern of file names"), "{err}");
}
