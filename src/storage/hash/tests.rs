//! Hashing real files in scratch folders against SHA-1 of another make.

use super::*;
use crate::storage::LayoutFile;
use proptest::prelude::*;
use std::fs;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

const NO_PROGRESS: &(dyn Fn(u64) + Sync) = &|_| {};

struct Scratch {
    dir: tempfile::TempDir,
    layout: Layout,
    hashes: Vec<[u8; 20]>,
}

/// Files of these lengths, `true` for padding, and the hashes of their pieces by the other implementation.
fn scratch(piece_length: u32, files: &[(u64, bool)]) -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let mut all = Vec::new();
    let mut described = Vec::new();
    for (index, &(len, padding)) in files.iter().enumerate() {
        let path = PathBuf::from(format!("f{index}"));
        let seed = index as u8;
        let bytes: Vec<u8> =
            (0..len).map(|byte| if padding { 0 } else { (byte % 239) as u8 ^ seed }).collect();
        if !padding {
            fs::write(dir.path().join(&path), &bytes).unwrap();
        }
        all.extend(bytes);
        described.push(LayoutFile { path, len, padding });
    }
    let sha1 = |piece: &[u8]| sha1_smol::Sha1::from(piece).digest().bytes();
    let hashes = all.chunks(piece_length as usize).map(sha1).collect();
    Scratch { dir, layout: Layout::new(piece_length, described).unwrap(), hashes }
}

impl Scratch {
    fn check(&self) -> CheckReport {
        let expected = |piece: PieceIndex| self.hashes.get(piece.0 as usize).copied();
        check(&self.layout, self.dir.path(), &expected, 2, NO_PROGRESS, &AtomicBool::new(false)).unwrap()
    }

    fn hash(&self) -> Result<Vec<[u8; 20]>, StorageError> {
        hash_pieces(&self.layout, self.dir.path(), 2, NO_PROGRESS)
    }

    fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(format!("f{file}"))
    }

    fn good(&self) -> Vec<u32> {
        let report = self.check();
        (0..self.layout.piece_count()).filter(|&piece| report.bitfield.contains(PieceIndex(piece))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn hashes_what_another_implementation_hashes(
        piece_length in 1u32..60,
        files in prop::collection::vec((0u64..100, prop::bool::weighted(0.2)), 0..8),
    ) {
        let scratch = scratch(piece_length, &files);
        prop_assert_eq!(scratch.hash().unwrap(), scratch.hashes.clone());
        prop_assert!(scratch.check().is_complete());
    }
}

#[test]
fn every_byte_is_reported_once_over_many_runs_and_threads() {
    // 40 pieces of 1 MiB are three runs.
    let scratch = scratch(1 << 20, &[(39 << 20, false), (77, false)]);
    let seen = AtomicU64::new(0);
    let progress = |bytes| {
        seen.fetch_add(bytes, Relaxed);
    };
    let hashes = hash_pieces(&scratch.layout, scratch.dir.path(), 3, &progress).unwrap();
    assert!(hashes == scratch.hashes);
    assert_eq!(seen.load(Relaxed), scratch.layout.total_len());
}

#[test]
fn a_single_wrong_byte_costs_its_piece_alone() {
    let scratch = scratch(10, &[(25, false), (25, false)]);
    let mut bytes = fs::read(scratch.path(1)).unwrap();
    bytes[7] ^= 1;
    fs::write(scratch.path(1), bytes).unwrap();
    assert_eq!(scratch.good(), [0, 1, 2, 4]);
    let report = scratch.check();
    assert!(report.problems.is_empty() && !report.is_complete());
    assert_eq!(report.bad_pieces_of(&scratch.layout, FileIndex(0)), 0);
    assert_eq!(report.bad_pieces_of(&scratch.layout, FileIndex(1)), 1);
}

#[test]
fn a_piece_without_a_hash_is_wrong() {
    let mut scratch = scratch(10, &[(25, false)]);
    scratch.hashes.truncate(2);
    assert_eq!(scratch.good(), [0, 1]);
}

#[test]
fn a_cancelled_check_says_so() {
    let scratch = scratch(10, &[(25, false)]);
    let cancelled =
        check(&scratch.layout, scratch.dir.path(), &|_| None, 0, NO_PROGRESS, &AtomicBool::new(true));
    assert_eq!(cancelled, Err(StorageError::Cancelled));
}

#[test]
fn large_pieces_get_fewer_threads_than_wanted() {
    let layout = |piece_length| {
        let file = LayoutFile { path: "f".into(), len: 1 << 40, padding: false };
        Layout::new(piece_length, [file]).unwrap()
    };
    let threads = |layout: &Layout, wanted| {
        let (root, cancel) = (Root::open(Path::new("/")).unwrap(), AtomicBool::new(false));
        let job = Job {
            layout,
            root,
            subset: None,
            on_progress: NO_PROGRESS,
            cancel: &cancel,
            ends_at_trouble: false,
        };
        job.thread_count(wanted)
    };
    assert_eq!(threads(&layout(256 << 20), 64), 4);
    assert_eq!(threads(&layout(16 << 20), 64), 16);
    assert_eq!(threads(&layout(1 << 20), 64), 64);
    assert!(threads(&layout(1 << 20), 0) >= 1);
}

// HOSTILE 54: missing, short, long, unreadable and strange files cost their own pieces, and are named.

#[test]
fn missing_and_short_files_cost_their_pieces_and_are_all_named() {
    let scratch = scratch(10, &[(25, false), (3, false), (22, false), (4, false), (16, false)]);
    fs::remove_file(scratch.path(1)).unwrap();
    fs::write(scratch.path(2), &fs::read(scratch.path(2)).unwrap()[..12]).unwrap();
    fs::remove_file(scratch.path(3)).unwrap();
    // Bytes 25..28 are missing, 40..50 cut off, 50..54 missing.
    assert_eq!(scratch.good(), [0, 1, 3, 6]);
    let problems = scratch.check().problems;
    let length = StorageError::Length { path: scratch.path(2), expected: 22, found: 12 };
    let expected = [
        FileProblem { file: FileIndex(1), error: StorageError::Missing(scratch.path(1)) },
        FileProblem { file: FileIndex(2), error: length },
        FileProblem { file: FileIndex(3), error: StorageError::Missing(scratch.path(3)) },
    ];
    assert_eq!(problems, expected);
    assert_eq!(scratch.hash(), Err(StorageError::Missing(scratch.path(1))));
}

#[test]
fn a_longer_file_has_good_pieces_but_is_no_complete_content() {
    let scratch = scratch(10, &[(25, false)]);
    let longer = [fs::read(scratch.path(0)).unwrap(), vec![1]].concat();
    fs::write(scratch.path(0), longer).unwrap();
    let report = scratch.check();
    assert!(report.bitfield.is_full() && !report.is_complete());
    assert!(matches!(
        report.problems[..],
        [FileProblem { error: StorageError::Length { found: 26, .. }, .. }]
    ));
    assert!(matches!(scratch.hash(), Err(StorageError::Length { .. })));
}

#[test]
fn fifos_folders_and_links_in_files_places_are_named_and_never_waited_for() {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let scratch = scratch(10, &[(10, false), (10, false), (10, false), (10, false)]);
    for file in 0..3 {
        fs::remove_file(scratch.path(file)).unwrap();
    }
    mknodat(CWD, scratch.path(0), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::create_dir(scratch.path(1)).unwrap();
    std::os::unix::fs::symlink(scratch.path(3), scratch.path(2)).unwrap();
    let problems = scratch.check().problems;
    assert_eq!(scratch.good(), [3]);
    assert!(matches!(problems[0].error, StorageError::WrongKind { kind: "FIFO", .. }));
    assert!(matches!(problems[1].error, StorageError::WrongKind { kind: "folder", .. }));
    assert_eq!(problems[2].error, StorageError::SymbolicLink(scratch.path(2)));
}

#[test]
fn a_file_written_to_while_it_is_hashed_makes_no_torrent() {
    let scratch = scratch(10, &[(25, false)]);
    let touch = |_| {
        let file = fs::OpenOptions::new().write(true).open(scratch.path(0)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    };
    let outcome = hash_pieces(&scratch.layout, scratch.dir.path(), 1, &touch);
    assert_eq!(outcome, Err(StorageError::Modified(scratch.path(0))));
}

#[test]
fn a_thousand_files_need_no_more_descriptors_than_threads() {
    let scratch = scratch(64, &[(10, false); 1000]);
    assert!(scratch.check().is_complete());
}
