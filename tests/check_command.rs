//! `seedring check` as a user runs it: exit code, text, JSON.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A .torrent of the folder `album` with the files `one` (20,000 bytes) and `two` (30,000), pieces of 16 KiB, and
/// that folder, both in `dir`.
fn album(dir: &Path) {
    let (one, two) = (vec![1; 20_000], vec![2; 30_000]);
    fs::create_dir(dir.join("album")).unwrap();
    fs::write(dir.join("album/one"), &one).unwrap();
    fs::write(dir.join("album/two"), &two).unwrap();
    let all = [one, two].concat();
    let hashes: Vec<u8> =
        all.chunks(16_384).flat_map(|piece| sha1_smol::Sha1::from(piece).digest().bytes()).collect();
    let mut torrent = b"d4:infod5:filesl".to_vec();
    torrent.extend(b"d6:lengthi20000e4:pathl3:oneeed6:lengthi30000e4:pathl3:twoeee");
    torrent.extend(b"4:name5:album12:piece lengthi16384e6:pieces80:");
    torrent.extend(hashes);
    torrent.extend(b"ee");
    fs::write(dir.join("album.torrent"), torrent).unwrap();
}

fn check(dir: &Path, data: &str, options: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_seedring"));
    let command = command.current_dir(dir).args(["check", "album.torrent", data]).args(options);
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

#[test]
fn whole_content_is_found_by_either_name_and_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    album(dir.path());
    for data in [".", "album", "album/", "./album/."] {
        let (code, out, err) = check(dir.path(), data, &[]);
        assert_eq!((code, err.as_str()), (0, ""), "{data}");
        assert_eq!(out, "album: 4 of 4 pieces good, 48.8 KiB of 48.8 KiB\n");
    }
}

#[test]
fn incomplete_content_fails_and_names_files_and_reasons() {
    let dir = tempfile::tempdir().unwrap();
    album(dir.path());
    fs::remove_file(dir.path().join("album/two")).unwrap();
    let (code, out, err) = check(dir.path(), "album", &[]);
    assert_eq!(code, 1);
    assert!(out.starts_with("album: 1 of 4 pieces good, 16.0 KiB of 48.8 KiB\n"), "{out}");
    let lines = "  one: lacks only bytes at its border with two\n  two: 3 of 3 pieces bad\n";
    assert!(out.contains(lines), "{out}");
    assert!(out.contains("two is missing"), "{out}");
    assert!(err.contains("3 pieces are missing or wrong"), "{err}");
}

#[test]
fn json_is_one_object_with_the_incomplete_files() {
    let dir = tempfile::tempdir().unwrap();
    album(dir.path());
    let mut two = fs::read(dir.path().join("album/two")).unwrap();
    two[29_999] ^= 1;
    fs::write(dir.path().join("album/two"), two).unwrap();
    let (code, out, _) = check(dir.path(), ".", &["--json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 1);
    assert_eq!((out.lines().count(), &report["complete"]), (1, &false.into()));
    assert_eq!((&report["good_pieces"], &report["good_length"]), (&3.into(), &49_152.into()));
    let file = serde_json::json!({
        "path": "album/two", "length": 30_000, "piece_count": 3, "bad_pieces": 1, "neighbour_of": null,
        "problem": null,
    });
    assert_eq!(report["incomplete_files"], serde_json::json!([file]));
}

#[test]
fn data_of_something_else_and_no_torrent_are_told_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    album(dir.path());
    fs::create_dir(dir.path().join("other")).unwrap();
    let (code, out, err) = check(dir.path(), "other", &[]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains("does not hold \"album\"") && err.lines().count() == 1, "{err}");
    fs::write(dir.path().join("album.torrent"), "hello").unwrap();
    let (code, _, err) = check(dir.path(), "album", &[]);
    assert!(code == 1 && err.contains("album.torrent"), "{err}");
}

/// A .torrent of the folder `top` with one file of 100 bytes at this path, with these entries in its info dictionary
/// and around it.
fn torrent_of(path: &[&[u8]], utf8: Option<&str>, around: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let content = vec![7; 100];
    let hash = sha1_smol::Sha1::from(&content).digest().bytes();
    let string = |bytes: &[u8]| [format!("{}:", bytes.len()).as_bytes(), bytes].concat();
    let mut info = b"d5:filesld6:lengthi100e4:pathl".to_vec();
    path.iter().for_each(|part| info.extend(string(part)));
    info.extend(b"e");
    if let Some(name) = utf8 {
        info.extend([b"10:path.utf-8l".to_vec(), string(name.as_bytes()), b"e".to_vec()].concat());
    }
    info.extend(b"ee4:name3:top12:piece lengthi16384e6:pieces20:");
    info.extend(hash);
    info.extend(b"e");
    ([b"d", around, b"4:info", &info[..], b"e"].concat(), content)
}

#[test]
fn what_other_clients_saved_under_their_own_spelling_is_found() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let gbk = b"\xc9\xe7\xc7\xf8";
    let koi8 = b"\xf0\xd2\xc9\xd7\xc5\xd4.mp3";
    let koi8_says: &[u8] = b"8:encoding6:KOI8-R";
    /// The path in the torrent, its `path.utf-8`, what else the torrent says, the name on disk.
    type Case<'a> = (&'a [&'a [u8]], Option<&'a str>, &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 14] = [
        (&[b"Beyonc\xe9.flac"], None, b"", b"Beyonc\xe9.flac"),
        (&[b"Beyonc\xe9.flac"], None, b"", b"Beyonc_.flac"),
        (&[b"Beyonc\xe9.flac"], None, b"", "Beyoncé.flac".as_bytes()),
        (&[b"Beyonc\xe9.flac"], None, b"", "Beyonc\u{fffd}.flac".as_bytes()),
        (&[gbk], None, b"", gbk),
        (&[gbk], None, b"", "社区".as_bytes()),
        (&[gbk], Some("社区"), b"", gbk),
        (&[koi8], None, koi8_says, "Привет.mp3".as_bytes()),
        (&[b"test\\.file"], None, b"", b"test\\.file"),
        (&[b"test\\.file"], None, b"", b"test.file"),
        (&[b"test\\.file"], None, b"", b"test_.file"),
        (&[b"a: b?"], None, b"", b"a_ b_"),
        (&[b"", b"..", b"x"], None, b"", b"x"),
        (&[b"a\x01b"], None, b"", b"a_b"),
    ];
    for (path, utf8, around, saved) in cases {
        let dir = tempfile::tempdir().unwrap();
        let (torrent, content) = torrent_of(path, utf8, around);
        fs::write(dir.path().join("album.torrent"), torrent).unwrap();
        fs::create_dir(dir.path().join("top")).unwrap();
        fs::write(dir.path().join("top").join(OsStr::from_bytes(saved)), content).unwrap();
        for data in [".", "top"] {
            let (code, out, err) = check(dir.path(), data, &[]);
            assert_eq!((code, err.as_str()), (0, ""), "{:?}: {out}", saved.escape_ascii().to_string());
        }
    }
}

#[test]
fn links_in_the_content_are_followed_only_when_they_are_the_users_own() {
    let dir = tempfile::tempdir().unwrap();
    album(dir.path());
    fs::rename(dir.path().join("album"), dir.path().join("store")).unwrap();
    std::os::unix::fs::symlink("store", dir.path().join("album")).unwrap();
    fs::create_dir_all(dir.path().join("files/album")).unwrap();
    for name in ["one", "two"] {
        let target = Path::new("../../store").join(name);
        std::os::unix::fs::symlink(target, dir.path().join("files/album").join(name)).unwrap();
    }
    for data in [".", "files", "files/album"] {
        let (code, out, err) = check(dir.path(), data, &[]);
        assert_eq!(code, 1, "{data}: {out}");
        assert!(out.contains("symbolic link") && out.contains("--follow-links"), "{data}: {out} {err}");
        assert_eq!(check(dir.path(), data, &["--follow-links"]).0, 0, "{data}");
    }
    // The folder itself may be named through a link.
    assert_eq!(check(dir.path(), "album", &[]).0, 0);
}
