//! The truth table of what a record is worth, over real files.

use super::*;
use crate::id::InfoHash;
use crate::storage::{Allocation, Claims, Content, Evidence, FileIndex, LayoutFile};
use std::fs;
use std::sync::Arc;

const INFO_HASH: InfoHash = InfoHash([6; 20]);
const LEN: usize = 1 << 16;
const THIS_BOOT: Option<BootId> = Some(BootId([1; 16]));
const OTHER_BOOT: Option<BootId> = Some(BootId([2; 16]));

/// Files of two pieces each, and of half a piece, so that piece 4 has bytes of `c` and of `d`.
struct Scratch {
    dir: tempfile::TempDir,
    layout: Arc<Layout>,
    content: Content,
}

fn pieces(numbers: &[u32]) -> Bitfield {
    pieces_where(6, |piece| numbers.contains(&piece.0))
}

fn scratch(selection: &FileSelection, written: &[u32]) -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let layout = Arc::new(layout());
    let have = pieces(&[]);
    let evidence = Evidence { have: &have, record: None, overwrite: false };
    let claims = Claims::of(&layout, dir.path(), selection, evidence).unwrap();
    let (content, _) =
        Content::create(Arc::clone(&layout), dir.path(), selection, Allocation::Sparse, &claims).unwrap();
    for &piece in written {
        content.write_piece(PieceIndex(piece), &[7; LEN]).unwrap();
    }
    Scratch { dir, layout, content }
}

fn layout() -> Layout {
    let file = |path: &str, len| LayoutFile { path: path.into(), len, padding: false };
    let len = LEN as u64;
    Layout::new(
        LEN as u32,
        [file("a", 2 * len), file("b", 2 * len), file("c", len / 2), file("d", 3 * len / 2)],
    )
    .unwrap()
}

fn only(files: &[u32]) -> FileSelection {
    FileSelection::only(&layout(), INFO_HASH, |file| files.contains(&file.0))
}

impl Scratch {
    /// What a run remembers that has verified the one and brought the other to the disk.
    fn resume(&self, verified: &[u32], durable: &[u32], is_clean: bool) -> Resume {
        let resume = Resume::clean(INFO_HASH, self.content.fingerprint(), pieces(verified));
        let (selection, folder) = (self.content.selection().clone(), self.content.folder());
        Resume { durable: pieces(durable), is_clean, boot_id: THIS_BOOT, folder, selection, ..resume }
    }

    fn judge(&self, resume: &Resume, boot_id: Option<BootId>) -> Verdict {
        resume.judge(&self.layout, self.dir.path(), self.content.selection(), boot_id)
    }
}

fn look_at(trusted: &[u32], candidates: &[u32]) -> Verdict {
    Verdict::TrustAndLookAt { trusted: pieces(trusted), candidates: pieces(candidates) }
}

#[test]
fn after_an_orderly_end_unchanged_files_are_trusted_whatever_the_boot() {
    let scratch = scratch(&FileSelection::all(), &[0, 2, 3]);
    let resume = scratch.resume(&[0, 2, 3], &[0, 2, 3], true);
    for boot_id in [THIS_BOOT, OTHER_BOOT, None] {
        assert_eq!(scratch.judge(&resume, boot_id), Verdict::Trust(pieces(&[0, 2, 3])));
    }
}

#[test]
fn after_an_orderly_end_a_changed_file_costs_its_pieces_which_are_looked_at() {
    let scratch = scratch(&FileSelection::all(), &[0, 2, 3]);
    let resume = scratch.resume(&[0, 2, 3], &[0, 2, 3], true);
    let file = fs::OpenOptions::new().write(true).open(scratch.dir.path().join("b")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(scratch.judge(&resume, OTHER_BOOT), look_at(&[0], &[2, 3]));
}

#[test]
fn within_a_boot_what_was_verified_is_trusted_as_long_as_nothing_was_written_after() {
    let scratch = scratch(&FileSelection::all(), &[0, 1, 2, 4]);
    let resume = scratch.resume(&[0, 2, 4], &[0], false);
    assert_eq!(scratch.judge(&resume, THIS_BOOT), look_at(&[0, 2, 4], &[1]));
    // Into `d`, where piece 4 has bytes, too.
    scratch.content.write_piece(PieceIndex(5), &[9; LEN]).unwrap();
    assert_eq!(scratch.judge(&resume, THIS_BOOT), look_at(&[0, 2], &[1, 4, 5]));
}

#[test]
fn what_somebody_writes_after_the_note_is_looked_at_even_when_the_time_was_put_back() {
    for (is_clean, boot_id) in
        [(false, THIS_BOOT), (false, OTHER_BOOT), (true, THIS_BOOT), (true, OTHER_BOOT)]
    {
        let scratch = scratch(&FileSelection::all(), &[0, 1, 2, 3]);
        let resume = scratch.resume(&[0, 1, 2, 3], &[0, 1, 2, 3], is_clean);
        let file = fs::OpenOptions::new().write(true).open(scratch.dir.path().join("b")).unwrap();
        let before = file.metadata().unwrap().modified().unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"CORRUPT", 5).unwrap();
        file.set_modified(before).unwrap();
        assert_eq!(scratch.judge(&resume, boot_id), look_at(&[0, 1], &[2, 3]), "{is_clean}");
    }
}

#[test]
fn a_record_says_nothing_of_another_folder_or_of_another_file_of_that_name() {
    let scratch = scratch(&FileSelection::all(), &[0, 1, 2, 3]);
    let resume = scratch.resume(&[0, 1, 2, 3], &[0, 1, 2, 3], false);
    let elsewhere = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c", "d"] {
        fs::copy(scratch.dir.path().join(name), elsewhere.path().join(name)).unwrap();
    }
    for boot_id in [THIS_BOOT, OTHER_BOOT] {
        let judged = resume.judge(&scratch.layout, elsewhere.path(), scratch.content.selection(), boot_id);
        assert_eq!(judged, look_at(&[], &[0, 1, 2, 3, 4, 5]));
    }
    // Older than the record, as a copy that keeps times: with another inode.
    let copy = fs::File::open(elsewhere.path().join("a")).unwrap();
    copy.set_modified(std::time::UNIX_EPOCH).unwrap();
    fs::rename(elsewhere.path().join("a"), scratch.dir.path().join("a")).unwrap();
    for boot_id in [THIS_BOOT, OTHER_BOOT] {
        assert_eq!(scratch.judge(&resume, boot_id), look_at(&[2, 3], &[0, 1]));
    }
    let moved = Resume { folder: Some("/elsewhere".into()), ..resume };
    assert_eq!(scratch.judge(&moved, OTHER_BOOT), look_at(&[], &[0, 1, 2, 3]));
}

#[test]
fn after_a_restart_of_the_machine_only_what_the_disk_had_is_trusted() {
    let scratch = scratch(&FileSelection::all(), &[0, 1, 2]);
    let resume = scratch.resume(&[0, 2], &[0], false);
    assert_eq!(scratch.judge(&resume, OTHER_BOOT), look_at(&[0], &[1, 2]));
    assert_eq!(scratch.judge(&resume, None), look_at(&[0], &[1, 2]));
    let unknown = Resume { boot_id: None, ..resume };
    assert_eq!(scratch.judge(&unknown, None), look_at(&[0], &[1, 2]));
}

#[test]
fn missing_short_and_long_files_cost_their_pieces_only() {
    for (is_clean, boot_id) in [(true, OTHER_BOOT), (false, THIS_BOOT), (false, OTHER_BOOT)] {
        let all = &[0, 1, 2, 3, 4, 5];
        let scratch = scratch(&FileSelection::all(), all);
        let resume = scratch.resume(all, all, is_clean);
        let path = |name: &str| scratch.dir.path().join(name);
        fs::remove_file(path("a")).unwrap();
        assert_eq!(scratch.judge(&resume, boot_id), look_at(&[2, 3, 4, 5], &[]));
        let b = fs::OpenOptions::new().write(true).open(path("b")).unwrap();
        b.set_len(LEN as u64).unwrap();
        assert_eq!(scratch.judge(&resume, boot_id), look_at(&[4, 5], &[2]));
        b.set_len(9 * LEN as u64).unwrap();
        let Verdict::TrustAndLookAt { trusted, .. } = scratch.judge(&resume, boot_id) else { panic!() };
        assert_eq!(trusted, pieces(&[4, 5]));
        fs::remove_dir_all(scratch.dir.path()).unwrap();
        assert_eq!(scratch.judge(&resume, boot_id), Verdict::Trust(pieces(&[])));
    }
}

#[test]
fn a_verified_piece_in_a_hole_is_looked_at_after_a_disorderly_end() {
    let scratch = scratch(&FileSelection::all(), &[0]);
    let resume = scratch.resume(&[0, 3], &[0, 3], false);
    assert_eq!(scratch.judge(&resume, THIS_BOOT), look_at(&[0], &[3]));
}

#[test]
fn a_changed_selection_costs_the_pieces_whose_bytes_would_move() {
    let scratch = scratch(&only(&[0, 2]), &[0, 1, 4]);
    let resume = scratch.resume(&[0, 1, 4], &[0, 1, 4], true);
    assert_eq!(scratch.judge(&resume, OTHER_BOOT), Verdict::Trust(pieces(&[0, 1, 4])));
    let with = |files: &[u32]| resume.judge(&scratch.layout, scratch.dir.path(), &only(files), OTHER_BOOT);
    // Piece 4 is half in the parts file, and `d` is not there.
    assert_eq!(with(&[0, 2, 3]), look_at(&[0, 1], &[]));
    assert_eq!(with(&[2]), look_at(&[4], &[]));
    assert_eq!(with(&[0, 1, 2]), look_at(&[0, 1, 4], &[]));
    fs::remove_file(scratch.dir.path().join(only(&[0]).parts_path().unwrap())).unwrap();
    assert_eq!(with(&[0, 2]), look_at(&[0, 1], &[]));
}

#[test]
fn a_record_of_another_shape_is_worth_nothing() {
    let scratch = scratch(&FileSelection::all(), &[0]);
    let resume = scratch.resume(&[0], &[0], true);
    let short = Resume { durable: Bitfield::none(5), ..resume.clone() };
    assert_eq!(scratch.judge(&short, THIS_BOOT), Verdict::CheckAll);
    let fewer = Layout::new(LEN as u32, [LayoutFile { path: "a".into(), len: LEN as u64, padding: false }]);
    let selection = FileSelection::only(&fewer.unwrap(), INFO_HASH, |_| false);
    assert_eq!(scratch.judge(&Resume { selection, ..resume }, THIS_BOOT), Verdict::CheckAll);
    assert!(only(&[1]).contains(FileIndex(1)) && !only(&[1]).contains(FileIndex(9)));
}

#[test]
fn a_crash_of_the_machine_may_forget_the_time_of_a_write_and_nothing_else_may() {
    let scratch = scratch(&FileSelection::all(), &[0, 2, 3]);
    let resume = scratch.resume(&[0, 2, 3], &[0, 2, 3], false);
    // The record's own times moved on by a second: the files are older than it.
    let mut later = resume.clone();
    for stamp in later.fingerprint.files.iter_mut().flatten() {
        stamp.mtime_secs += 1;
        stamp.change.as_mut().unwrap().ctime_secs += 1;
    }
    assert_eq!(scratch.judge(&later, OTHER_BOOT), look_at(&[0, 2, 3], &[]));
    assert_eq!(scratch.judge(&later, THIS_BOOT), look_at(&[], &[0, 2, 3]));
    // What an earlier version wrote tells no file from another.
    let mut earlier = resume;
    earlier.fingerprint.files.iter_mut().flatten().for_each(|stamp| stamp.change = None);
    assert_eq!(scratch.judge(&earlier, THIS_BOOT), look_at(&[], &[0, 2, 3]));
    let clean = Resume { is_clean: true, ..earlier };
    assert_eq!(scratch.judge(&clean, OTHER_BOOT), Verdict::Trust(pieces(&[0, 2, 3])));
}
