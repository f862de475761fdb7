//! Resume files that round-trip, and everything a crash, a disk or another version can make of them.

use super::codec::{CHECKSUM_LEN, MAGIC, VERSION};
use super::file::state_dir;
use super::*;
use crate::storage::{FileChange, FileStamp, LayoutFile};
use crate::units::PieceIndex;
use proptest::prelude::*;
use rustix::fs::{CWD, Mode};
use std::fs;

fn resume() -> Resume {
    let mut verified = Bitfield::none(13);
    verified.insert(PieceIndex(12));
    let change = Some(FileChange { ctime_secs: -6, ctime_nanos: 1, inode: 12, birth: Some((3, 4)) });
    let stamp = FileStamp { len: 77, mtime_secs: -5, mtime_nanos: 999_999_999, change };
    let info_hash = InfoHash([7; 20]);
    Resume {
        info_hash,
        fingerprint: Fingerprint { files: vec![Some(stamp), None], parts: Some(stamp) },
        verified,
        durable: Bitfield::none(13),
        is_clean: false,
        boot_id: Some(BootId([8; 16])),
        folder: Some("/some/where".into()),
        selection: FileSelection::from_bits(info_hash, 2, &[0x40]).unwrap(),
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
    assert!(!taken.matches(&layout, dir.path()), "a time that was put back has been changed");
    let taken = Fingerprint::take(&layout, dir.path()).unwrap();
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
    let whole = Resume::clean(info_hash, fingerprint, Bitfield::all(2));
    assert!(whole.vouches_for(info_hash, &layout, dir.path()));
    assert!(!whole.vouches_for(InfoHash([2; 20]), &layout, dir.path()));
    let unclean = Resume { is_clean: false, ..whole.clone() };
    assert!(!unclean.vouches_for(info_hash, &layout, dir.path()));
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
fn what_an_earlier_version_wrote_is_clean_durable_and_of_all_files() {
    let stamp = FileStamp { len: 1, mtime_secs: 2, mtime_nanos: 3, change: None };
    let fingerprint = Fingerprint { files: vec![Some(stamp)], parts: None };
    let now = Resume::clean(InfoHash([7; 20]), fingerprint, Bitfield::all(9));
    let bytes = now.encode();
    // The head, and the records of tags 1 to 6.
    let mut earlier = bytes[..12].to_vec();
    let mut rest = &bytes[12..bytes.len() - CHECKSUM_LEN];
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(12 + rest[4] as usize);
        if rest[0] <= 6 {
            earlier.extend(record);
        }
        rest = behind;
    }
    assert!(earlier.len() < bytes.len() - CHECKSUM_LEN);
    let checksum = crate::storage::piece_hash(&earlier);
    earlier.extend(checksum);
    assert_eq!(Resume::decode(&earlier), Ok(now));
}

#[test]
fn a_quick_save_loads_again_and_lies_beside_the_durable_one_until_that_is_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.resume");
    let numbered = |uploaded| Resume { uploaded, ..resume() };
    numbered(1).save_quick(&path).unwrap();
    assert_eq!((Resume::load(&path), path.exists()), (Ok(numbered(1)), false));
    numbered(2).save(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(numbered(2)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "the quick one is no use any more");
    numbered(3).save_quick(&path).unwrap();
    numbered(4).save_quick(&path).unwrap();
    let durable = fs::read(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(numbered(4)));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    // What a power failure makes of a quick one.
    for lost in [&b""[..], &durable[..durable.len() / 2], b"\0\0\0\0"] {
        fs::write(dir.path().join("x.resume.quick"), lost).unwrap();
        assert_eq!(Resume::load(&path), Ok(numbered(2)));
    }
    numbered(5).save_quick(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(numbered(5)));
    // The removal of an older quick one may be lost as well.
    let quick = fs::read(dir.path().join("x.resume.quick")).unwrap();
    numbered(6).save(&path).unwrap();
    fs::write(dir.path().join("x.resume.quick"), quick).unwrap();
    assert_eq!(Resume::load(&path), Ok(numbered(6)));
    // And the durable one may be a later version's.
    fs::write(&path, b"what is this?").unwrap();
    assert_eq!(Resume::load(&path), Ok(numbered(5)));
}

#[test]
fn a_record_is_written_through_no_link_and_into_no_other_name_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let (path, precious) = (dir.path().join("x.resume"), dir.path().join("precious"));
    fs::write(&precious, "diary").unwrap();
    std::os::unix::fs::symlink(&precious, &path).unwrap();
    fs::hard_link(&precious, dir.path().join("x.resume.tmp")).unwrap();
    fs::hard_link(&precious, dir.path().join("x.resume.quick")).unwrap();
    resume().save_quick(&path).unwrap();
    resume().save(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(resume()));
    assert_eq!(fs::read(&precious).unwrap(), b"diary");
}

#[test]
fn the_boot_has_an_id_and_nonsense_is_none() {
    assert!(BootId::current().is_some() && BootId::current() == BootId::current());
    let here = BootId::of(Path::new("."));
    assert!(here.is_some() && here == BootId::of(Path::new("..")) && here != BootId::of(Path::new("/proc")));
    assert_eq!(BootId::of(Path::new("not-there")), None);
    let id = BootId::parse("01020304-0506-0708-090a-0b0c0d0e0f10").unwrap();
    assert_eq!(id.0, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    assert_eq!([BootId::parse(""), BootId::parse("+1020304-0506-0708-090a-0b0c0d0e0f10")], [None; 2]);
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
    let whole = resume().encode();
    for half in [&whole[..100], &whole[..5], &[], &[0; 40]] {
        fs::write(dir.path().join("x.resume.tmp"), half).unwrap();
        assert_eq!(Resume::load(&path), Ok(resume()));
        resume().save(&path).unwrap();
        assert!(!dir.path().join("x.resume.tmp").exists());
    }
}

#[test]
fn somebody_elses_files_beside_a_record_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (path, at) = (dir.path().join("x.resume"), |name: &str| dir.path().join(name));
    let own = [
        ("x.resume.bak", "older diary"),
        ("x.resume.tmp", "notes"),
        ("x.resume.quick.tmp", "more"),
        ("x.resume.quick.bak", "letters"),
    ];
    own.iter().for_each(|(name, bytes)| fs::write(at(name), bytes).unwrap());
    fs::write(&path, "diary").unwrap();
    fs::write(at("x.resume.quick"), "a poem").unwrap();
    resume().save_quick(&path).unwrap();
    resume().save(&path).unwrap();
    resume().save_quick(&path).unwrap();
    assert_eq!(Resume::load(&path), Ok(resume()));
    for (name, bytes) in own.iter().chain(&[("x.resume.bak-2", "diary"), ("x.resume.quick.bak-2", "a poem")])
    {
        assert_eq!(fs::read_to_string(at(name)).unwrap(), *bytes, "{name}");
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 8, "nothing temporary is left");
    fs::write(at("x.resume.quick"), "a letter").unwrap();
    resume().save(&path).unwrap();
    assert_eq!(
        fs::read(at("x.resume.quick")).unwrap(),
        b"a letter",
        "no quick record is there to be removed"
    );
    // A record of a later version takes the place of one that was put aside before, and of nothing else.
    let newer = |number| {
        let mut newer = resume().encode();
        newer[8] = number;
        newer
    };
    for number in [2, 3] {
        fs::write(&path, newer(number)).unwrap();
        resume().save(&path).unwrap();
    }
    assert_eq!(fs::read(at("x.resume.bak-3")).unwrap(), newer(3));
    assert!(!at("x.resume.bak-4").exists());
}

#[test]
fn a_record_without_the_times_of_birth_is_read_as_one_that_does_not_know_them() {
    let bytes = resume().encode();
    let mut earlier = bytes[..12].to_vec();
    let mut rest = &bytes[12..bytes.len() - CHECKSUM_LEN];
    while !rest.is_empty() {
        let (record, behind) = rest.split_at(12 + rest[4] as usize);
        if rest[0] <= 15 {
            earlier.extend(record);
        }
        rest = behind;
    }
    let checksum = crate::storage::piece_hash(&earlier);
    earlier.extend(checksum);
    let mut expected = resume();
    let stamps = expected.fingerprint.files.iter_mut().chain([&mut expected.fingerprint.parts]);
    stamps.flatten().for_each(|stamp| stamp.change.as_mut().unwrap().birth = None);
    assert_ne!(expected, resume());
    assert_eq!(Resume::decode(&earlier), Ok(expected));
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
        (uploaded, downloaded, is_clean) in any::<(u64, u64, bool)>(),
        (pieces, durable) in (0u32..100, 0u32..100),
        stamps in prop::collection::vec(
            prop::option::of((any::<u64>(), any::<i64>(), any::<u32>(), any::<Option<(i64, u32, u64, Option<(i64, u32)>)>>())),
            0..9,
        ),
        folder: Option<String>,
        boot_id: Option<[u8; 16]>,
        wanted: Option<Vec<u8>>,
    ) {
        let stamps = stamps.into_iter().map(|stamp| {
            stamp.map(|(len, mtime_secs, mtime_nanos, change)| {
                let change = change.map(|(ctime_secs, ctime_nanos, inode, birth)| FileChange {
                    ctime_secs,
                    ctime_nanos,
                    inode,
                    birth,
                });
                FileStamp { len, mtime_secs, mtime_nanos, change }
            })
        });
        let files: Vec<_> = stamps.collect();
        let fingerprint = Fingerprint { parts: files.last().copied().flatten(), files };
        let info_hash = InfoHash([3; 20]);
        let mut state = Resume::clean(info_hash, fingerprint, Bitfield::all(pieces));
        state.durable.remove(PieceIndex(durable));
        state.boot_id = boot_id.map(BootId);
        state.folder = folder.map(Into::into);
        if let Some(bits) = wanted {
            state.selection = FileSelection::from_bits(info_hash, bits.len() as u32 * 8, &bits).unwrap();
        }
        let state = Resume { uploaded, downloaded, is_clean, ..state };
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
