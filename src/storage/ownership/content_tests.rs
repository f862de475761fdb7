//! Files in a download's way: whose they are, told from real files.

use super::*;
use crate::id::InfoHash;
use crate::rng::Rng;
use crate::storage::{Allocation, Content, FileIndex, Fingerprint, LayoutFile};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::Arc;

const INFO_HASH: InfoHash = InfoHash([3; 20]);
const PIECE: usize = 16 * 1024;

/// A torrent of these files below a folder of its own, and its bytes.
struct Scratch {
    dir: tempfile::TempDir,
    layout: Arc<Layout>,
    bytes: Vec<u8>,
}

fn scratch(files: &[(&str, usize)]) -> Scratch {
    in_pieces_of(PIECE, files)
}

fn in_pieces_of(piece: usize, files: &[(&str, usize)]) -> Scratch {
    let described =
        files.iter().map(|&(path, len)| LayoutFile { path: path.into(), len: len as u64, padding: false });
    let layout = Arc::new(Layout::new(piece as u32, described).unwrap());
    let mut bytes = vec![0; layout.total_len() as usize];
    Rng::from_seed(7).fill(&mut bytes);
    Scratch { dir: tempfile::tempdir().unwrap(), layout, bytes }
}

impl Scratch {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The torrent's bytes of one file.
    fn file(&self, index: u32) -> Vec<u8> {
        let start = self.layout.start_of(FileIndex(index)).unwrap() as usize;
        self.bytes[start..start + self.layout.files()[index as usize].len as usize].to_vec()
    }

    fn have(&self, pieces: &[u32]) -> Bitfield {
        let mut have = Bitfield::none(self.layout.piece_count());
        pieces.iter().for_each(|&piece| _ = have.insert(PieceIndex(piece)));
        have
    }

    fn claims(&self, evidence: Evidence<'_>) -> Result<Claims, StorageError> {
        Claims::of(&self.layout, self.dir.path(), &FileSelection::all(), evidence)
    }

    /// The permits of all files, with these pieces here and no record.
    fn judged(&self, pieces: &[u32]) -> Result<Vec<Permit>, StorageError> {
        let have = self.have(pieces);
        let claims = self.claims(Evidence { have: &have, record: None, overwrite: false })?;
        Ok((0..self.layout.files().len() as u32).map(|file| claims.of_file(FileIndex(file)).permit).collect())
    }

    /// What a run remembers that has just made the files.
    fn record(&self) -> Resume {
        let have = self.have(&[]);
        let claims = self.claims(Evidence { have: &have, record: None, overwrite: false }).unwrap();
        let (content, _) = Content::create(
            Arc::clone(&self.layout),
            self.dir.path(),
            &FileSelection::all(),
            Allocation::Sparse,
            &claims,
        )
        .unwrap();
        let folder = content.folder();
        Resume { folder, is_clean: false, ..Resume::clean(INFO_HASH, content.fingerprint(), have) }
    }
}

#[test]
fn a_strangers_file_shorter_equal_or_longer_is_refused_by_its_name() {
    let scratch = scratch(&[("disk.iso", 3 * PIECE)]);
    for (len, is_longer) in [(7, false), (3 * PIECE, false), (3 * PIECE + 1, true)] {
        fs::write(scratch.path("disk.iso"), vec![b'x'; len]).unwrap();
        let refused = scratch.judged(&[]).unwrap_err();
        assert_eq!(matches!(refused, StorageError::TooLong { .. }), is_longer, "{refused}");
        assert_eq!(matches!(refused, StorageError::NotOurs(_)), !is_longer, "{refused}");
        assert!(refused.to_string().contains("disk.iso") && refused.to_string().contains("--overwrite"));
        assert_eq!(fs::read(scratch.path("disk.iso")).unwrap(), vec![b'x'; len]);
    }
}

#[test]
fn nothing_is_made_beside_a_strangers_file_and_one_among_good_ones_is_enough() {
    let scratch = scratch(&[("a/one", 2 * PIECE), ("a/two", 2 * PIECE), ("a/three", PIECE)]);
    fs::create_dir(scratch.path("a")).unwrap();
    fs::write(scratch.path("a/one"), scratch.file(0)).unwrap();
    fs::write(scratch.path("a/two"), "somebody else's").unwrap();
    assert_eq!(scratch.judged(&[0, 1]), Err(StorageError::NotOurs(scratch.path("a/two"))));
    assert!(!scratch.path("a/three").exists());
    fs::remove_file(scratch.path("a/two")).unwrap();
    assert_eq!(scratch.judged(&[0, 1]), Ok(vec![Permit::Read, Permit::Make, Permit::Make]));
}

#[test]
fn a_good_piece_whole_inside_the_file_lets_the_download_go_on() {
    let scratch = scratch(&[("f", 3 * PIECE)]);
    let mut bytes = scratch.file(0);
    bytes[2 * PIECE] ^= 1;
    fs::write(scratch.path("f"), &bytes).unwrap();
    assert_eq!(scratch.judged(&[0, 1]), Ok(vec![Permit::Write]));
    // What another client has fetched of it is shorter.
    fs::write(scratch.path("f"), &bytes[..2 * PIECE]).unwrap();
    assert_eq!(scratch.judged(&[0, 1]), Ok(vec![Permit::Write]));
    fs::hard_link(scratch.path("f"), scratch.path("other name")).unwrap();
    assert_eq!(scratch.judged(&[0, 1]), Err(StorageError::OtherNames(scratch.path("f"))));
}

#[test]
fn a_beginning_that_everybody_has_does_not_make_a_file_ours() {
    // The text that each system brings, and the user's own lines behind it; the torrent's text goes on in another way.
    let scratch = in_pieces_of(1024, &[(".bashrc", 4096)]);
    for len in [3600, 4096] {
        let mut own = scratch.file(0)[..3072].to_vec();
        own.resize(len, b'#');
        fs::write(scratch.path(".bashrc"), &own).unwrap();
        let refused = Err(StorageError::NotOurs(scratch.path(".bashrc")));
        assert_eq!(scratch.judged(&[0, 1, 2]), refused, "{len}");
    }
    // Short pieces tell as much as long ones when there are enough of them.
    let scratch = in_pieces_of(1024, &[("f", 20 * 1024)]);
    let mut bytes = scratch.file(0);
    bytes[19 * 1024] ^= 1;
    fs::write(scratch.path("f"), &bytes).unwrap();
    assert_eq!(scratch.judged(&(0..19).collect::<Vec<_>>()), Ok(vec![Permit::Write]));
}

#[test]
fn good_pieces_that_many_files_have_say_nothing() {
    // An image that begins with zeros, as most do, and ends with a few bytes that are right by chance.
    let mut scratch = scratch(&[("disk.iso", 3 * PIECE + 3)]);
    scratch.bytes[..PIECE].fill(0);
    let mut stranger = vec![b'x'; 3 * PIECE + 3];
    stranger[..PIECE].fill(0);
    stranger[3 * PIECE..].copy_from_slice(&scratch.bytes[3 * PIECE..]);
    fs::write(scratch.path("disk.iso"), &stranger).unwrap();
    assert_eq!(scratch.judged(&[0, 3]), Err(StorageError::NotOurs(scratch.path("disk.iso"))));
}

#[test]
fn a_file_without_a_whole_piece_of_its_own_is_written_only_when_nothing_in_it_is_lost() {
    // `small` lies in the pieces 0 and 1, no piece lies in it.
    let scratch = scratch(&[("large", PIECE - 10), ("small", 20), ("more", 2 * PIECE)]);
    fs::write(scratch.path("large"), scratch.file(0)).unwrap();
    let mut small = scratch.file(1);
    fs::write(scratch.path("small"), &small).unwrap();
    assert_eq!(
        scratch.judged(&[0]),
        Err(StorageError::NotOurs(scratch.path("small"))),
        "its head alone says little"
    );
    small[10..].fill(0);
    fs::write(scratch.path("small"), &small).unwrap();
    assert_eq!(scratch.judged(&[0]), Ok(vec![Permit::Read, Permit::Write, Permit::Make]));
    assert_eq!(scratch.judged(&[]), Err(StorageError::NotOurs(scratch.path("large"))));
    fs::write(scratch.path("small"), []).unwrap();
    fs::write(scratch.path("large"), vec![0; PIECE - 10]).unwrap();
    assert_eq!(scratch.judged(&[]), Ok(vec![Permit::Write, Permit::Write, Permit::Make]));
}

#[test]
fn a_file_without_bytes_is_left_alone_whatever_lies_there() {
    let scratch = scratch(&[("empty", 0), ("f", PIECE)]);
    fs::write(scratch.path("empty"), "").unwrap();
    assert_eq!(scratch.judged(&[]), Ok(vec![Permit::Read, Permit::Make]));
    fs::write(scratch.path("empty"), "notes").unwrap();
    assert!(matches!(scratch.judged(&[]), Err(StorageError::TooLong { expected: 0, found: 5, .. })));
}

#[test]
fn reserved_space_and_zeros_are_nothing_to_lose_and_one_byte_at_the_end_is() {
    let scratch = scratch(&[("f", 70 * PIECE)]);
    let file = fs::File::create(scratch.path("f")).unwrap();
    file.set_len(70 * PIECE as u64).unwrap();
    assert_eq!(scratch.judged(&[]), Ok(vec![Permit::Write]));
    std::os::unix::fs::FileExt::write_all_at(&file, b"x", 70 * PIECE as u64 - 1).unwrap();
    assert_eq!(scratch.judged(&[]), Err(StorageError::NotOurs(scratch.path("f"))));
    assert_eq!(scratch.judged(&[69]), Ok(vec![Permit::Write]), "that byte lies in a good piece");
}

#[test]
fn a_record_names_the_very_file_in_the_very_folder_and_no_other() {
    let scratch = scratch(&[("f", 3 * PIECE)]);
    let record = scratch.record();
    let have = scratch.have(&[]);
    let judged = |record: &Resume| {
        let evidence = Evidence { have: &have, record: Some(record), overwrite: false };
        scratch.claims(evidence).map(|claims| claims.of_file(FileIndex(0)).permit)
    };
    let not_ours = Err(StorageError::NotOurs(scratch.path("f")));
    // As it was made; what is zero may be written anyway, so that this needs a byte, and a record that has seen it.
    let mut bytes = vec![0; 3 * PIECE];
    bytes[7] = 7;
    fs::write(scratch.path("f"), &bytes).unwrap();
    let seen = Resume {
        fingerprint: {
            let born = record.fingerprint.files[0].unwrap().change.unwrap().birth;
            let now = Fingerprint::take(&scratch.layout, scratch.dir.path()).unwrap();
            now.born([born].into_iter(), None)
        },
        ..record.clone()
    };
    assert_eq!(judged(&seen), Ok(Permit::Write));
    // The half of a piece that a kill has left, or what somebody has written over it: whose it is will show.
    fs::write(scratch.path("f"), vec![b'x'; 3 * PIECE]).unwrap();
    assert_eq!(judged(&record), Ok(Permit::WriteKeeping));
    assert_eq!(judged(&seen), Ok(Permit::WriteKeeping));
    let elsewhere = Resume { folder: Some("/elsewhere".into()), ..record.clone() };
    assert_eq!(judged(&elsewhere), not_ours);
    assert_eq!(judged(&Resume { folder: None, ..record.clone() }), not_ours);
    // Linked elsewhere while it comes, it is ours all the same.
    fs::hard_link(scratch.path("f"), scratch.path("watched")).unwrap();
    assert_eq!(judged(&record), Ok(Permit::WriteKeeping));
    // Another file of that name and length.
    fs::write(scratch.path("new"), vec![b'x'; 3 * PIECE]).unwrap();
    fs::rename(scratch.path("new"), scratch.path("f")).unwrap();
    assert_eq!(judged(&record), not_ours);
    fs::write(scratch.path("f"), "shorter").unwrap();
    assert_eq!(judged(&record), not_ours);
}

#[test]
fn who_says_overwrite_gets_shorter_and_longer_files_written_but_not_their_other_names() {
    for len in [5, 2 * PIECE, 2 * PIECE + 9] {
        let scratch = scratch(&[("f", 2 * PIECE)]);
        fs::write(scratch.path("f"), vec![b'x'; len]).unwrap();
        let have = scratch.have(&[]);
        let evidence = Evidence { have: &have, record: None, overwrite: true };
        let claims = scratch.claims(evidence).unwrap();
        let create = || {
            let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
            Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims)
        };
        let (content, _) = create().unwrap();
        content.write_piece(PieceIndex(0), &[1; PIECE]).unwrap();
        assert_eq!(fs::metadata(scratch.path("f")).unwrap().len(), 2 * PIECE as u64);
        drop(content);
        fs::write(scratch.path("f"), vec![b'x'; len]).unwrap();
        fs::hard_link(scratch.path("f"), scratch.path("g")).unwrap();
        assert_eq!(scratch.claims(evidence).unwrap_err(), StorageError::OtherNames(scratch.path("f")));
        assert_eq!(fs::read(scratch.path("g")).unwrap(), vec![b'x'; len]);
    }
}

#[test]
fn what_comes_between_the_judgement_and_the_making_is_left_alone() {
    let scratch = scratch(&[("f", PIECE), ("g", PIECE)]);
    fs::write(scratch.path("g"), vec![0; PIECE]).unwrap();
    let have = scratch.have(&[]);
    let claims = scratch.claims(Evidence { have: &have, record: None, overwrite: true }).unwrap();
    let create = || {
        let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
        Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims).map(|_| ())
    };
    fs::write(scratch.path("f"), "new").unwrap();
    assert_eq!(create(), Err(StorageError::NotOurs(scratch.path("f"))));
    symlink("g", scratch.path("link")).unwrap();
    fs::rename(scratch.path("link"), scratch.path("f")).unwrap();
    assert_eq!(create(), Err(StorageError::SymbolicLink(scratch.path("f"))));
    fs::remove_file(scratch.path("f")).unwrap();
    fs::write(scratch.path("new"), "another").unwrap();
    fs::rename(scratch.path("new"), scratch.path("g")).unwrap();
    assert_eq!(create(), Err(StorageError::Replaced(scratch.path("g"))));
    assert_eq!(fs::read(scratch.path("g")).unwrap(), b"another");
}

#[test]
fn links_folders_and_devices_are_named() {
    let scratch = scratch(&[("f", PIECE)]);
    symlink("elsewhere", scratch.path("f")).unwrap();
    assert_eq!(scratch.judged(&[]), Err(StorageError::SymbolicLink(scratch.path("f"))));
    fs::remove_file(scratch.path("f")).unwrap();
    fs::create_dir(scratch.path("f")).unwrap();
    assert!(matches!(scratch.judged(&[]), Err(StorageError::WrongKind { kind: "folder", .. })));
}

#[test]
fn who_seeds_and_who_downloads_keep_each_other_out_under_every_name_of_a_file() {
    let scratch = scratch(&[("f", 2 * PIECE)]);
    fs::write(scratch.path("f"), scratch.file(0)).unwrap();
    let create = |have: &[u32]| {
        let have = scratch.have(have);
        let claims = scratch.claims(Evidence { have: &have, record: None, overwrite: true })?;
        let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
        Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims)
    };
    let open = || Content::open(Arc::clone(&scratch.layout), scratch.dir.path());
    let in_use = StorageError::InUse(scratch.path("f"));
    let seeding = open().unwrap();
    assert!(open().is_ok(), "any number may seed it");
    assert_eq!(create(&[0]).unwrap_err(), in_use);
    assert!(create(&[0, 1]).is_ok(), "what lacks nothing is not written");
    drop(seeding);
    let (download, _) = create(&[0]).unwrap();
    assert_eq!(open().unwrap_err(), in_use);
    download.finish().unwrap();
    assert!(open().is_ok(), "nobody writes any more");
    // The same inode by another path.
    let other = tempfile::tempdir_in(scratch.dir.path()).unwrap();
    fs::hard_link(scratch.path("f"), other.path().join("f")).unwrap();
    let _elsewhere = Content::open(Arc::clone(&scratch.layout), other.path()).unwrap();
    drop(download);
    fs::remove_file(other.path().join("f")).unwrap();
    assert_eq!(create(&[0]).unwrap_err(), in_use);
}

#[test]
fn content_that_may_only_be_read_and_lacks_nothing_is_opened() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch(&[("f", 2 * PIECE), ("g", PIECE)]);
    fs::write(scratch.path("f"), scratch.file(0)).unwrap();
    fs::set_permissions(scratch.path("f"), fs::Permissions::from_mode(0o444)).unwrap();
    let have = scratch.have(&[0, 1]);
    let claims = scratch.claims(Evidence { have: &have, record: None, overwrite: false }).unwrap();
    let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
    let (content, created) =
        Content::create(layout, scratch.dir.path(), &all, Allocation::Full, &claims).unwrap();
    assert_eq!((created.made, created.found), (1, 1));
    assert!(content.write_piece(PieceIndex(0), &[1; PIECE]).is_err(), "it is open for reading");
    content.write_piece(PieceIndex(2), &scratch.file(1)).unwrap();
    assert_eq!((content.sync(), content.finish(), content.verify_files()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(fs::read(scratch.path("f")).unwrap(), scratch.file(0));
}

/// `album` with two large files that share pieces with three small ones: the piece 3 has the ends of both and all of these.
fn shared() -> Scratch {
    let scratch = scratch(&[
        ("album/large", 3 * PIECE + 100),
        ("album/cover", 5000),
        ("album/cue", 700),
        ("album/nfo", 300),
        ("album/more", 4 * PIECE),
    ]);
    fs::create_dir(scratch.path("album")).unwrap();
    for (index, file) in (0..).zip(scratch.layout.files()) {
        fs::write(scratch.dir.path().join(&file.path), scratch.file(index)).unwrap();
    }
    scratch
}

#[test]
fn files_beside_proven_ones_that_are_as_long_as_they_are_to_be_are_written_and_others_are_refused() {
    let scratch = shared();
    fs::remove_file(scratch.path("album/more")).unwrap();
    let keeping = Permit::WriteKeeping;
    let expected = vec![Permit::Write, keeping, keeping, keeping, Permit::Make];
    assert_eq!(scratch.judged(&[0, 1, 2]), Ok(expected), "another client's copy without a file");
    // Nothing of the folder is proven.
    assert_eq!(scratch.judged(&[]), Err(StorageError::NotOurs(scratch.path("album/large"))));
    // Of another length it is nobody's but its owner's, shorter or longer.
    for bytes in [&b"notes"[..], &[b'x'; 699]] {
        fs::write(scratch.path("album/cue"), bytes).unwrap();
        assert_eq!(scratch.judged(&[0, 1, 2]), Err(StorageError::NotOurs(scratch.path("album/cue"))));
    }
    fs::write(scratch.path("album/cue"), [b'x'; 701]).unwrap();
    assert!(matches!(scratch.judged(&[0, 1, 2]), Err(StorageError::TooLong { .. })));
    fs::write(scratch.path("album/cue"), scratch.file(2)).unwrap();
    fs::hard_link(scratch.path("album/cue"), scratch.path("other name")).unwrap();
    assert_eq!(scratch.judged(&[0, 1, 2]), Err(StorageError::OtherNames(scratch.path("album/cue"))));
}

#[test]
fn the_beginning_of_a_file_that_is_right_as_far_as_can_be_told_goes_on_beside_proven_ones() {
    // Its own pieces are too short to tell whose it is, and those of the other are not.
    let scratch = in_pieces_of(1024, &[("album/one", 20 * 1024), ("album/two", 4096)]);
    fs::create_dir(scratch.path("album")).unwrap();
    fs::write(scratch.path("album/one"), scratch.file(0)).unwrap();
    fs::write(scratch.path("album/two"), &scratch.file(1)[..2500]).unwrap();
    let (mut have, path): (Vec<u32>, _) = ((0..22).collect(), scratch.path("album/two"));
    assert_eq!(scratch.judged(&have), Ok(vec![Permit::Read, Permit::WriteKeeping]));
    have.retain(|piece| *piece != 21);
    assert_eq!(scratch.judged(&have), Err(StorageError::NotOurs(path)));
}

#[test]
fn what_a_doubtful_file_holds_is_kept_aside_once_before_it_is_lost_and_what_is_right_is_not() {
    let scratch = shared();
    let mut edited = scratch.file(2);
    edited[699] ^= 1;
    fs::write(scratch.path("album/cue"), &edited).unwrap();
    let mut empty = scratch.file(3);
    empty[100..].fill(0);
    fs::write(scratch.path("album/nfo"), &empty).unwrap();
    // Something is kept there already, and it stays.
    fs::write(scratch.path("album/cue.before-download"), "older").unwrap();
    let have = scratch.have(&[0, 1, 2, 4, 5, 6]);
    let claims = scratch.claims(Evidence { have: &have, record: None, overwrite: false }).unwrap();
    let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
    let (content, _) =
        Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims).unwrap();
    let content = content.keeping(&claims).unwrap();
    let folder = content.folder();
    // Until then nothing calls it ours.
    let record =
        Resume { folder, is_clean: false, ..Resume::clean(INFO_HASH, content.fingerprint(), have.clone()) };
    let again = scratch.claims(Evidence { have: &have, record: Some(&record), overwrite: false }).unwrap();
    assert_eq!(again.of_file(FileIndex(2)).permit, Permit::WriteKeeping);
    assert_eq!(again.of_file(FileIndex(4)).permit, Permit::Write, "the record names it");
    for _ in 0..2 {
        content.write_piece(PieceIndex(3), &scratch.bytes[3 * PIECE..4 * PIECE]).unwrap();
    }
    assert_eq!(fs::read(scratch.path("album/cue.before-download-2")).unwrap(), edited);
    assert_eq!(fs::read(scratch.path("album/cue.before-download")).unwrap(), b"older");
    assert_eq!(fs::read(scratch.path("album/cue")).unwrap(), scratch.file(2));
    assert_eq!(fs::read_dir(scratch.path("album")).unwrap().count(), 7, "nothing else is kept");
    let record = Resume { fingerprint: content.fingerprint(), ..record };
    let again = scratch.claims(Evidence { have: &have, record: Some(&record), overwrite: false }).unwrap();
    assert_eq!(again.of_file(FileIndex(2)).permit, Permit::Write, "now it is");
}

#[test]
fn a_folder_is_proven_by_pieces_over_several_small_files_as_well_and_not_by_zeros() {
    let mut scratch = in_pieces_of(2 * PIECE, &[("a/1", PIECE), ("a/2", PIECE), ("a/3", PIECE), ("a/4", 9)]);
    fs::create_dir(scratch.path("a")).unwrap();
    let write = |scratch: &Scratch| {
        for index in 0..4 {
            fs::write(scratch.path(&format!("a/{}", index + 1)), scratch.file(index)).unwrap();
        }
    };
    write(&scratch);
    fs::remove_file(scratch.path("a/4")).unwrap();
    let expected = vec![Permit::Read, Permit::Read, Permit::WriteKeeping, Permit::Make];
    assert_eq!(scratch.judged(&[0]), Ok(expected));
    scratch.bytes[..2 * PIECE].fill(0);
    write(&scratch);
    assert_eq!(scratch.judged(&[0]), Err(StorageError::NotOurs(scratch.path("a/3"))));
}

#[test]
fn a_doubtful_file_that_cannot_be_looked_at_is_not_written_and_is_tried_again() {
    let scratch = shared();
    let mut edited = scratch.file(2);
    edited[5] ^= 1;
    fs::write(scratch.path("album/cue"), &edited).unwrap();
    let have = scratch.have(&[0, 1, 2, 4, 5, 6]);
    let claims = scratch.claims(Evidence { have: &have, record: None, overwrite: false }).unwrap();
    let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
    let (content, _) =
        Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims).unwrap();
    let content = content.keeping(&claims).unwrap();
    // Somebody puts a folder in its place; then the file is back.
    fs::rename(scratch.path("album/cue"), scratch.path("away")).unwrap();
    fs::create_dir(scratch.path("album/cue")).unwrap();
    let piece = &scratch.bytes[3 * PIECE..4 * PIECE];
    for _ in 0..2 {
        assert!(content.write_piece(PieceIndex(3), piece).is_err());
    }
    assert_eq!(fs::read(scratch.path("away")).unwrap(), edited);
    assert_eq!(fs::read_dir(scratch.path("album")).unwrap().count(), 5);
    fs::remove_dir(scratch.path("album/cue")).unwrap();
    fs::rename(scratch.path("away"), scratch.path("album/cue")).unwrap();
    content.write_piece(PieceIndex(3), piece).unwrap();
    assert_eq!(fs::read(scratch.path("album/cue.before-download")).unwrap(), edited);
}

/// Four files of which the second is wanted: it shares its first and its last piece with others.
fn with_borders() -> (Scratch, FileSelection, PathBuf) {
    let files = [("a/0", PIECE + 100), ("a/1", 4 * PIECE), ("a/2", 30_000), ("a/3", 10)];
    let scratch = in_pieces_of(2 * PIECE, &files);
    let only = FileSelection::only(&scratch.layout, INFO_HASH, |file| file == FileIndex(1));
    let parts = scratch.path(only.parts_path().unwrap().to_str().unwrap());
    (scratch, only, parts)
}

fn judge_parts(
    scratch: &Scratch,
    only: &FileSelection,
    have: &[u32],
    record: Option<&Resume>,
) -> Result<Permit, StorageError> {
    let have = scratch.have(have);
    let evidence = Evidence { have: &have, record, overwrite: false };
    let claims = Claims::of(&scratch.layout, scratch.dir.path(), only, evidence)?;
    Ok(claims.of_file(parts_index(&scratch.layout)).permit)
}

#[test]
fn a_parts_file_is_not_ours_by_its_name() {
    let (scratch, only, parts) = with_borders();
    assert_eq!(judge_parts(&scratch, &only, &[], None), Ok(Permit::Make));
    let precious = vec![b'x'; 5_000];
    for len in [1, 5_000, scratch.bytes.len(), scratch.bytes.len() + 1] {
        fs::write(&parts, vec![b'x'; len]).unwrap();
        assert!(judge_parts(&scratch, &only, &[], None).is_err(), "{len}");
        // Good pieces elsewhere say nothing of it.
        assert!(judge_parts(&scratch, &only, &[1], None).is_err(), "{len}");
    }
    fs::remove_file(&parts).unwrap();
    fs::write(scratch.path("precious"), &precious).unwrap();
    fs::hard_link(scratch.path("precious"), &parts).unwrap();
    assert_eq!(judge_parts(&scratch, &only, &[], None), Err(StorageError::NotOurs(parts.clone())));
    fs::write(&parts, vec![0; 5_000]).unwrap();
    assert_eq!(judge_parts(&scratch, &only, &[], None), Err(StorageError::OtherNames(parts)));
}

#[test]
fn a_parts_file_is_ours_when_a_record_names_it_a_good_piece_lies_in_it_or_nothing_is_lost() {
    let (scratch, only, parts) = with_borders();
    let none = scratch.have(&[]);
    let evidence = Evidence { have: &none, record: None, overwrite: false };
    let claims = Claims::of(&scratch.layout, scratch.dir.path(), &only, evidence).unwrap();
    let sparse = Allocation::Sparse;
    let (content, _) =
        Content::create(Arc::clone(&scratch.layout), scratch.dir.path(), &only, sparse, &claims).unwrap();
    let record = Resume {
        folder: content.folder(),
        is_clean: false,
        selection: only.clone(),
        ..Resume::clean(INFO_HASH, content.fingerprint(), none.clone())
    };
    drop(content);
    // Zeros.
    assert_eq!(judge_parts(&scratch, &only, &[], None), Ok(Permit::Write));
    // The last of its pieces is under way.
    let mut bytes = scratch.bytes.clone();
    bytes[5 * PIECE + 200..5 * PIECE + 300].fill(7);
    fs::write(&parts, &bytes).unwrap();
    assert_eq!(judge_parts(&scratch, &only, &[], Some(&record)), Ok(Permit::WriteKeeping));
    assert_eq!(judge_parts(&scratch, &only, &[], None), Err(StorageError::NotOurs(parts.clone())));
    // The first is good once the file that it shares is there, and has more than a block in the parts file.
    fs::create_dir_all(scratch.path("a")).unwrap();
    fs::write(scratch.path("a/1"), scratch.file(1)).unwrap();
    assert_eq!(judge_parts(&scratch, &only, &[0], None), Ok(Permit::Write));
    // Another file of the same length.
    let other = scratch.path("other");
    fs::write(&other, &bytes).unwrap();
    fs::rename(&other, &parts).unwrap();
    assert_eq!(judge_parts(&scratch, &only, &[], Some(&record)), Err(StorageError::NotOurs(parts)));
}

/// A record of the one file `f` that calls these pieces right, the first of them brought to the disk, in this boot or another.
fn noted(scratch: &Scratch, right: &[u32], is_same_boot: bool, is_clean: bool) -> Resume {
    let (verified, durable) = (scratch.have(right), scratch.have(if is_clean { right } else { &right[..1] }));
    let boot_id = is_same_boot.then(|| crate::storage::BootId::of(scratch.dir.path())).flatten();
    Resume { verified, durable, boot_id, is_clean, ..scratch.record() }
}

fn judge_noted(scratch: &Scratch, have: &[u32], record: &Resume) -> Result<Permit, StorageError> {
    let have = scratch.have(have);
    let claims = scratch.claims(Evidence { have: &have, record: Some(record), overwrite: false })?;
    Ok(claims.of_file(FileIndex(0)).permit)
}

#[test]
fn a_file_that_was_given_the_number_of_ours_is_not_ours() {
    let scratch = scratch(&[("f", 3 * PIECE)]);
    let record = scratch.record();
    fs::write(scratch.path("f"), vec![b'x'; 3 * PIECE]).unwrap();
    let born = |birth| {
        let mut record = record.clone();
        let stamp = record.fingerprint.files[0].as_mut().unwrap();
        stamp.change.as_mut().unwrap().birth = birth;
        record
    };
    let not_ours = Err(StorageError::NotOurs(scratch.path("f")));
    if record.fingerprint.files[0].unwrap().change.unwrap().birth.is_some() {
        assert_eq!(judge_noted(&scratch, &[], &born(Some((1, 2)))), not_ours);
    }
    // An earlier version did not ask: nothing else speaks against it, and nothing is lost.
    assert_eq!(judge_noted(&scratch, &[], &born(None)), Ok(Permit::WriteKeeping));
}

#[test]
fn a_record_is_no_witness_for_a_file_whose_noted_pieces_are_all_wrong() {
    let scratch = scratch(&[("f", 4 * PIECE)]);
    for (is_same_boot, is_clean) in [(true, false), (false, false), (true, true), (false, true)] {
        let record = noted(&scratch, &[1, 2], is_same_boot, is_clean);
        fs::write(scratch.path("f"), vec![b'x'; 4 * PIECE]).unwrap();
        let refused = judge_noted(&scratch, &[], &record);
        assert_eq!(refused, Err(StorageError::NotOurs(scratch.path("f"))), "{is_same_boot} {is_clean}");
        fs::remove_file(scratch.path("f")).unwrap();
    }
}

#[test]
fn after_a_kill_the_noted_pieces_are_witnesses_and_what_a_disk_has_lost_is_no_reason_against_it() {
    let scratch = scratch(&[("f", 4 * PIECE)]);
    // The disk has the first, and the page cache had the second, too.
    let [this_boot, other_boot] = [true, false].map(|same| noted(&scratch, &[1, 2], same, false));
    let mut bytes = vec![0; 4 * PIECE];
    bytes[PIECE..3 * PIECE].copy_from_slice(&scratch.bytes[PIECE..3 * PIECE]);
    bytes[4 * PIECE - 1] = 9;
    fs::write(scratch.path("f"), &bytes).unwrap();
    for record in [&this_boot, &other_boot] {
        assert_eq!(judge_noted(&scratch, &[1, 2], record), Ok(Permit::Write));
    }
    // What was not on the disk yet may be anything after a power failure, and nothing but right before that.
    bytes[2 * PIECE] ^= 1;
    fs::write(scratch.path("f"), &bytes).unwrap();
    assert_eq!(judge_noted(&scratch, &[1], &other_boot), Ok(Permit::Write));
    assert_eq!(judge_noted(&scratch, &[1], &this_boot), Ok(Permit::KeepAndWrite));
    // A disk that has lost even what it had called written: zeros are nobody's.
    bytes[PIECE..3 * PIECE].fill(0);
    fs::write(scratch.path("f"), &bytes).unwrap();
    for record in [&this_boot, &other_boot] {
        assert_eq!(judge_noted(&scratch, &[], record), Ok(Permit::WriteKeeping));
    }
}

#[test]
fn a_finished_file_that_was_used_and_altered_since_is_kept_before_it_is_made_what_it_was() {
    let scratch = scratch(&[("f", 4 * PIECE)]);
    let record = noted(&scratch, &[0, 1, 2, 3], true, true);
    let mut used = scratch.file(0);
    used[2 * PIECE] ^= 1;
    fs::write(scratch.path("f"), &used).unwrap();
    for record in [record.clone(), Resume { folder: None, ..record }] {
        let have = scratch.have(&[0, 1, 3]);
        let claims =
            scratch.claims(Evidence { have: &have, record: Some(&record), overwrite: false }).unwrap();
        assert_eq!(claims.of_file(FileIndex(0)).permit, Permit::KeepAndWrite);
        let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
        let (content, _) =
            Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims).unwrap();
        let content = content.keeping(&claims).unwrap();
        assert!(content.fingerprint().files[0].is_some(), "nothing is doubtful any more");
        drop(content);
        assert_eq!(fs::read(scratch.path("f.before-download")).unwrap(), used);
        fs::remove_file(scratch.path("f.before-download")).unwrap();
    }
}

#[test]
fn a_file_that_may_be_somebody_elses_is_noted_as_it_was_noted_before_until_something_is_written() {
    let scratch = scratch(&[("f", 4 * PIECE)]);
    let record = scratch.record();
    fs::write(scratch.path("f"), vec![b'x'; 4 * PIECE]).unwrap();
    let have = scratch.have(&[]);
    let claims = scratch.claims(Evidence { have: &have, record: Some(&record), overwrite: false }).unwrap();
    let (layout, all) = (Arc::clone(&scratch.layout), FileSelection::all());
    let (content, _) =
        Content::create(layout, scratch.dir.path(), &all, Allocation::Sparse, &claims).unwrap();
    let content = content.keeping(&claims).unwrap();
    assert_eq!(content.fingerprint(), record.fingerprint);
    content.write_piece(PieceIndex(1), &scratch.bytes[PIECE..2 * PIECE]).unwrap();
    assert_eq!(fs::read(scratch.path("f.before-download")).unwrap(), vec![b'x'; 4 * PIECE]);
    assert_ne!(content.fingerprint(), record.fingerprint);
}
