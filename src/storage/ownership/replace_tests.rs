//! Whole files that take the place of their own kind, and leave everything else as it is.

use super::*;
use std::fs;
use std::os::unix::fs::symlink;

const TORRENT: &[u8] =
    b"d4:infod6:lengthi1e4:name5:album12:piece lengthi16384e6:pieces20:hhhhhhhhhhhhhhhhhhhhee";

fn torrent<'a>(path: &'a Path, content: &'a Path) -> Place<'a> {
    Place { path, kind: FileKind::Torrent, content: Some(content) }
}

fn figure(path: &Path) -> Place<'_> {
    Place { path, kind: FileKind::Figure, content: None }
}

#[test]
fn a_torrent_replaces_a_torrent_and_nothing_else_and_leaves_nothing_beside() {
    let dir = tempfile::tempdir().unwrap();
    let (path, content) = (dir.path().join("x.torrent"), Path::new("/nowhere"));
    assert_eq!(replace_file(torrent(&path, content), TORRENT, true).unwrap(), Permit::Make);
    assert_eq!(replace_file(torrent(&path, content), TORRENT, true).unwrap(), Permit::Replace);
    for precious in [&b"my diary"[..], b"", b"d4:infode"] {
        fs::write(&path, precious).unwrap();
        let refused = replace_file(torrent(&path, content), TORRENT, true).unwrap_err();
        assert!(refused.to_string().contains("exists and is no torrent"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), precious);
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn no_link_is_written_through_or_replaced_and_no_folder_or_device() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("real.torrent"), TORRENT).unwrap();
    symlink("real.torrent", at("link")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    fs::create_dir(at("folder")).unwrap();
    for name in ["link", "dangling"] {
        let refused = replace_file(torrent(&at(name), dir.path()), b"new", true);
        assert!(matches!(refused, Err(WriteError::Link(_))), "{name}");
        assert!(at(name).symlink_metadata().unwrap().is_symlink());
    }
    assert!(!at("nowhere").exists());
    for path in [at("folder"), "/dev/null".into()] {
        let refused = replace_file(torrent(&path, dir.path()), b"new", true);
        assert!(matches!(refused, Err(WriteError::NoFile { .. })));
    }
    for path in [Path::new("/"), &at("missing/x"), Path::new("")] {
        assert!(replace_file(torrent(path, dir.path()), b"new", true).is_err(), "{}", path.display());
    }
    assert_eq!(fs::read(at("real.torrent")).unwrap(), TORRENT);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
}

#[test]
fn nothing_inside_the_content_is_replaced_but_its_own_torrent() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("album/torrents")).unwrap();
    let content = at("album");
    for (name, is_own) in [("album/album.torrent", true), ("album/torrents/of other things", false)] {
        let bytes = String::from_utf8_lossy(TORRENT).into_owned();
        let bytes = if is_own { bytes } else { bytes.replace("5:album", "5:other") };
        fs::write(at(name), &bytes).unwrap();
        let written = replace_file(torrent(&at(name), &content), TORRENT, true);
        assert_eq!(matches!(written, Ok(Permit::Replace)), is_own, "{name}");
        assert_eq!(matches!(written, Err(WriteError::Content(_))), !is_own, "{name}");
        if !is_own {
            assert_eq!(fs::read(at(name)).unwrap(), bytes.as_bytes());
        }
    }
    // A torrent of one file: that file itself, which may be a torrent, and by a way around.
    fs::write(at("x.torrent"), TORRENT).unwrap();
    for path in [at("x.torrent"), at("album/../x.torrent")] {
        let refused = replace_file(torrent(&path, &at("x.torrent")), b"new", true);
        assert!(matches!(refused, Err(WriteError::Content(_))));
    }
    assert_eq!(fs::read(at("x.torrent")).unwrap(), TORRENT);
}

#[test]
fn a_figure_replaces_those_that_we_made_and_no_photograph() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holiday.png");
    for precious in [&b"\x89PNG\r\n\x1a\nIHDR"[..], b"<svg width=\"1\"></svg>", b""] {
        fs::write(&path, precious).unwrap();
        assert!(matches!(replace_file(figure(&path), b"new", false), Err(WriteError::NotOurs { .. })));
        assert_eq!(fs::read(&path).unwrap(), precious);
    }
    fs::write(&path, format!("<svg>\n<!-- {} -->", FileKind::FIGURE_MARK)).unwrap();
    assert_eq!(replace_file(figure(&path), b"new", false).unwrap(), Permit::Replace);
    assert_eq!(fs::read(&path).unwrap(), b"new");
}

#[test]
fn what_came_after_the_look_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (path, beside) = (dir.path().join("x.torrent"), dir.path().join("beside"));
    fs::write(&beside, TORRENT).unwrap();
    fs::write(&path, "my diary").unwrap();
    assert!(rename_new(&beside, &path).is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists));
    assert!(matches!(put(&beside, torrent(&path, Path::new("/nowhere"))), Err(WriteError::NotOurs { .. })));
    assert_eq!(fs::read(&path).unwrap(), b"my diary");
}

#[test]
fn looking_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.torrent");
    assert_eq!(look_at_place(torrent(&path, dir.path())).unwrap(), Permit::Make);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
