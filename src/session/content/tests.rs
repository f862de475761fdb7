//! Content of which a part is not what it was, from real files.

use super::*;
use crate::bencode;
use crate::rng::Rng;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

const PIECE: usize = 16 << 10;

/// A torrent of the folder `album` with three files of ten pieces less three bytes each, so that all of them share pieces.
struct Scratch {
    dir: tempfile::TempDir,
    torrent: Vec<u8>,
    content: Vec<u8>,
}

const NAMES: [&str; 3] = ["a", "b", "c"];
const LEN: usize = 10 * PIECE - 3;

impl Scratch {
    fn new() -> Self {
        let mut content = vec![0; 3 * LEN];
        Rng::from_seed(5).fill(&mut content);
        let hashes: Vec<u8> = content.chunks(PIECE).flat_map(storage::piece_hash).collect();
        let torrent = bencode::dict(|torrent| {
            torrent.dict("info", |info| {
                info.list("files", |list| {
                    for name in NAMES {
                        list.dict(|file| {
                            file.int("length", LEN as i64);
                            file.list("path", |parts| parts.bytes(name));
                        });
                    }
                });
                info.bytes("name", "album");
                info.int("piece length", PIECE as i64);
                info.bytes("pieces", hashes);
            });
        });
        let scratch = Self { dir: tempfile::tempdir().unwrap(), torrent, content };
        fs::create_dir(scratch.dir.path().join("album")).unwrap();
        NAMES.into_iter().for_each(|name| scratch.write(name));
        scratch
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("album").join(name)
    }

    fn bytes(&self, name: &str) -> &[u8] {
        let place = NAMES.iter().position(|it| *it == name).unwrap();
        &self.content[place * LEN..][..LEN]
    }

    fn write(&self, name: &str) {
        fs::write(self.path(name), self.bytes(name)).unwrap();
    }

    fn find(&self) -> Located {
        let metainfo = Metainfo::parse(&self.torrent).unwrap();
        let (state, shelf) = (self.dir.path().join("state"), Shelf::new(100));
        Located::find(metainfo, self.dir.path(), Links::Refuse, Some(&state), &shelf).unwrap()
    }

    /// Checks what is there and notes it as a session does; the pieces that are right, the bytes read and the problems.
    fn check(&self) -> (u32, u64, Vec<String>) {
        let (read, never) = (AtomicU64::new(0), AtomicBool::new(false));
        let located = self.find();
        let expected = located.check_len();
        let checked = located.check(&|bytes| _ = read.fetch_add(bytes, Relaxed), &never).unwrap();
        assert_eq!(read.load(Relaxed), expected, "it is said before");
        let resume =
            Resume::clean(checked.metainfo.info_hash(), checked.fingerprint, checked.verified.clone());
        let path = resume_path(&self.dir.path().join("state"), checked.metainfo.info_hash());
        resume.save(&path).unwrap();
        (checked.verified.count(), expected, checked.problems)
    }
}

const PIECES: u64 = 30;

fn pieces(count: u64) -> u64 {
    count * PIECE as u64
}

#[test]
fn a_file_that_comes_goes_or_changes_costs_a_look_at_its_own_pieces_and_no_others() {
    let scratch = Scratch::new();
    fs::remove_file(scratch.path("b")).unwrap();
    let (right, read, _) = scratch.check();
    assert_eq!((right, read), (19, 3 * LEN as u64), "nothing was known");
    assert_eq!(scratch.check().1, 0, "what is missing still is no reason to read anything");
    scratch.write("b");
    let (right, read, problems) = scratch.check();
    // The last piece of all is shorter, and none of `b`.
    assert_eq!((u64::from(right), read, problems), (PIECES, pieces(11), vec![]));
    // In place, with a byte wrong in the middle: it costs one piece.
    let mut wrong = scratch.bytes("a").to_vec();
    wrong[3 * PIECE] ^= 1;
    fs::write(scratch.path("a"), &wrong).unwrap();
    let (right, read, problems) = scratch.check();
    assert_eq!((u64::from(right), read), (PIECES - 1, pieces(10)));
    assert_eq!(problems, ["album/a: damaged: 1 of 10 pieces"]);
    assert_eq!(scratch.check(), (right, 0, problems), "wrong pieces are remembered to be wrong");
}

#[test]
fn what_was_there_and_is_gone_or_shorter_is_named_and_what_was_missing_before_is_not() {
    let scratch = Scratch::new();
    fs::remove_file(scratch.path("b")).unwrap();
    scratch.check();
    assert_eq!(scratch.find().find_files(), Ok(()));
    fs::rename(scratch.path("a"), scratch.path("away")).unwrap();
    assert_eq!(scratch.find().find_files(), Err(StorageError::Missing(scratch.path("a"))));
    fs::write(scratch.path("a"), &scratch.bytes("a")[..PIECE]).unwrap();
    assert!(matches!(scratch.find().find_files(), Err(StorageError::Length { .. })));
    fs::rename(scratch.path("away"), scratch.path("a")).unwrap();
    assert_eq!(scratch.find().find_files(), Ok(()));
    // Where nothing could be noted, what is right of it is served.
    fs::remove_dir_all(scratch.dir.path().join("state")).unwrap();
    fs::remove_file(scratch.path("a")).unwrap();
    assert_eq!(scratch.find().find_files(), Ok(()));
}

#[test]
fn neighbours_of_a_missing_or_damaged_file_are_told_with_it_and_not_as_damaged() {
    let scratch = Scratch::new();
    fs::remove_file(scratch.path("b")).unwrap();
    let (_, _, problems) = scratch.check();
    assert_eq!(problems.len(), 1, "{problems:?}");
    let told = "only the bytes at the border lack: album/a, album/c";
    assert!(problems[0].contains("b is missing") && problems[0].ends_with(told), "{problems:?}");
    // Damaged from its middle to its end.
    let mut wrong = scratch.bytes("b").to_vec();
    wrong[5 * PIECE..].fill(7);
    fs::write(scratch.path("b"), &wrong).unwrap();
    let (_, _, problems) = scratch.check();
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("album/b: damaged: 6 of 11 pieces"), "{problems:?}");
    assert!(problems[0].ends_with("lack: album/c"), "{problems:?}");
    // Both are damaged, and the piece that they share is no excuse for either.
    let mut wrong = scratch.bytes("c").to_vec();
    wrong[5 * PIECE] ^= 1;
    fs::write(scratch.path("c"), &wrong).unwrap();
    let (_, _, problems) = scratch.check();
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(problems.iter().all(|problem| !problem.contains("lack")), "{problems:?}");
}

#[test]
fn nothing_that_was_read_by_somebody_else_is_taken_for_right() {
    let scratch = Scratch::new();
    scratch.check();
    let located = scratch.find();
    // After the look, before the check.
    let mut wrong = scratch.bytes("c").to_vec();
    wrong[5] ^= 1;
    fs::remove_file(scratch.path("a")).unwrap();
    scratch.write("a");
    let again = scratch.find();
    fs::write(scratch.path("c"), &wrong).unwrap();
    let never = AtomicBool::new(false);
    assert!(!located.needs_check());
    assert_eq!(
        again.check(&|_| {}, &never).unwrap_err(),
        StorageError::Modified(scratch.dir.path().to_owned())
    );
}
