//! Resume files that round-trip, and everything a crash, a disk or another version can make of them.

use super::*;
use crate::units::PieceIndex;
use proptest::prelude::*;
use std::fs;

fn resume() -> Resume {
    let mut verified = Bitfield::none(13);
    verified.insert(PieceIndex(12));
    let stamp = FileStamp { len: 77, mtime_secs: -5, mtime_nanos: 999_999_999 };
    Resume {
        info_hash: InfoHash([7; 20]),
        fingerprint: Fingerprint(vec![Some(stamp), None]),
        verified,
        uploaded: u64::MAX,
        downloaded: 3,
    }
}

fn two_files() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let files = ["a", "b"].map(|name| {
        fs::write(dir.path().join(name), name).unwrap();
        LayoutFile { path: name.into(), len: 1, padding: false }
    });
    (dir, Layout::new(1, files).unwrap())
}

#[test]
fn saved_state_loads_again_and_folders_are_made() {
    let dir = tempfile::tempdir().unwrap();
    let path = resume_path(&dir.path().join("deep/down"), InfoHash([7; 20]));
    assert_eq!(Resume::load(&path), Err(ResumeProblem::Missing));
    resume().save(&path).unwrap();
    let more = Resume { uploaded: 9, ..resume() };
    more.save(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(more));
    assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing temporary is left");
}

#[test]
fn unchanged_files_match_and_any_change_does_not() {
    let (dir, layout) = two_files();
    let taken = Fingerprint::take(&layout, dir.path()).unwrap();
    assert!(taken.matches(&layout, dir.path()));
    let file = fs::OpenOptions::new().write(true).open(dir.path().join("b")).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    file.set_modified(mtime - std::time::Duration::from_nanos(1)).unwrap();
    assert!(!taken.matches(&layout, dir.path()));
    file.set_modified(mtime).unwrap();
    assert!(taken.matches(&layout, dir.path()));
    file.set_len(2).unwrap();
    file.set_modified(mtime).unwrap();
    assert!(!taken.matches(&layout, dir.path()));
    fs::remove_file(dir.path().join("b")).unwrap();
    assert!(!taken.matches(&layout, dir.path()));
    let without = Fingerprint::take(&layout, dir.path()).unwrap();
    assert!(!without.matches(&layout, dir.path()), "what is missing is never vouched for");
}

#[test]
fn vouches_only_for_its_own_torrent_checked_whole() {
    let (dir, layout) = two_files();
    let info_hash = InfoHash([1; 20]);
    let fingerprint = Fingerprint::take(&layout, dir.path()).unwrap();
    let verified = Bitfield::all(2);
    let whole = Resume { info_hash, fingerprint, verified, uploaded: 0, downloaded: 0 };
    assert!(whole.vouches_for(info_hash, &layout, dir.path()));
    assert!(!whole.vouches_for(InfoHash([2; 20]), &layout, dir.path()));
    let mut part = whole.clone();
    part.verified.remove(PieceIndex(1));
    assert!(!part.vouches_for(info_hash, &layout, dir.path()));
    let other_count = Resume { verified: Bitfield::all(3), ..whole };
    assert!(!other_count.vouches_for(info_hash, &layout, dir.path()));
}

// HOSTILE 53: truncated, empty, damaged, foreign, newer files.

#[test]
fn every_truncation_and_every_flipped_bit_is_noticed() {
    let bytes = resume().encode();
    assert_eq!(Resume::decode(&bytes), Ok(resume()));
    for len in 0..bytes.len() {
        assert!(Resume::decode(&bytes[..len]).is_err(), "{len}");
    }
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(Resume::decode(&flipped).is_err(), "{bit}");
    }
}

#[test]
fn newer_formats_are_named_and_unknown_records_skipped() {
    let mut newer = resume().encode();
    newer[8] = 2;
    assert_eq!(Resume::decode(&newer), Err(ResumeProblem::Newer(2)));
    assert_eq!(Resume::decode(b"d8:announce"), Err(ResumeProblem::Foreign));
    assert_eq!(Resume::decode(b""), Err(ResumeProblem::Damaged));
    let mut extended = resume().encode();
    extended.truncate(extended.len() - CHECKSUM_LEN);
    extended.extend([99, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 42]);
    let checksum = crate::storage::piece_hash(&extended);
    extended.extend(checksum);
    assert_eq!(Resume::decode(&extended), Ok(resume()));
}

#[test]
fn an_old_file_that_cannot_be_read_is_kept_beside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.resume");
    let mut newer = resume().encode();
    newer[8] = 2;
    fs::write(&path, &newer).unwrap();
    resume().save(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(resume()));
    assert_eq!(fs::read(dir.path().join("x.resume.bak")).unwrap(), newer);
}

#[test]
fn a_fifo_or_folder_in_its_place_is_never_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(Resume::load(&path).is_err());
    assert!(matches!(Resume::load(dir.path()), Err(ResumeProblem::Unreadable(_))));
}

#[test]
fn a_crash_between_write_and_rename_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.resume");
    resume().save(&path).unwrap();
    // What a crash in the middle of the next save leaves behind.
    fs::write(dir.path().join("x.resume.tmp"), b"half").unwrap();
    assert_eq!(Resume::load(&path), Ok(resume()));
    resume().save(&path).unwrap();
    assert!(!dir.path().join("x.resume.tmp").exists());
}

#[test]
fn state_lies_where_the_xdg_specification_says() {
    let of = |state: Option<&str>, home: Option<&str>| state_dir(state.map(Into::into), home.map(Into::into));
    assert_eq!(of(Some("/s"), Some("/h")), Some("/s/seedring".into()));
    assert_eq!(of(Some("relative"), Some("/h")), Some("/h/.local/state/seedring".into()));
    assert_eq!(of(None, Some("/h")), Some("/h/.local/state/seedring".into()));
    assert_eq!(of(Some(""), Some("")), None);
}

proptest! {
    #[test]
    fn every_state_round_trips(
        uploaded: u64,
        downloaded: u64,
        pieces in 0u32..100,
        stamps in prop::collection::vec(prop::option::of((any::<u64>(), any::<i64>(), any::<u32>())), 0..9),
    ) {
        let stamps = stamps.into_iter().map(|stamp| {
            stamp.map(|(len, mtime_secs, mtime_nanos)| FileStamp { len, mtime_secs, mtime_nanos })
        });
        let fingerprint = Fingerprint(stamps.collect());
        let verified = Bitfield::all(pieces);
        let state = Resume { info_hash: InfoHash([3; 20]), fingerprint, verified, uploaded, downloaded };
        prop_assert_eq!(Resume::decode(&state.encode()), Ok(state));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(mut body in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = Vec::from(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.append(&mut body);
        let checksum = crate::storage::piece_hash(&bytes);
        bytes.extend(checksum);
        let _ = Resume::decode(&bytes);
    }
}
