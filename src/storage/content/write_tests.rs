//! Downloading into real folders, the hostile ones included.

use super::create::{Allocation, Created};
use super::tests::fetched;
use super::*;
use crate::bitfield::Bitfield;
use crate::id::InfoHash;
use crate::rng::Rng;
use crate::storage::{
    Claims, Evidence, Finisher, LayoutFile, PieceJob, PieceOutcome, Resume, Subset, check_some, piece_hash,
    pieces_with_data,
};
use crate::units::PieceIndex;
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

const INFO_HASH: InfoHash = InfoHash([9; 20]);

fn file(path: &str, len: u64) -> LayoutFile {
    LayoutFile { path: path.into(), len, padding: false }
}

fn layout(piece_length: u32, files: impl IntoIterator<Item = LayoutFile>) -> Arc<Layout> {
    Arc::new(Layout::new(piece_length, files).unwrap())
}

fn create(layout: &Arc<Layout>, root: &Path) -> Result<(Content, Created), StorageError> {
    create_some(layout, root, &FileSelection::all(), Allocation::Sparse)
}

/// As somebody who has no piece and writes over nothing but zeros.
fn create_some(
    layout: &Arc<Layout>,
    root: &Path,
    selection: &FileSelection,
    allocation: Allocation,
) -> Result<(Content, Created), StorageError> {
    let have = Bitfield::none(layout.piece_count());
    let evidence = Evidence { have: &have, record: None, overwrite: false };
    let claims = Claims::of(layout, root, selection, evidence)?;
    Content::create(Arc::clone(layout), root, selection, allocation, &claims)
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::from_seed(seed).fill(&mut bytes);
    bytes
}

#[test]
fn root_folders_and_files_are_made_where_the_user_said_and_nowhere_else() {
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path().join("real"), dir.path().join("link")).unwrap();
    fs::create_dir(dir.path().join("real")).unwrap();
    let padding = LayoutFile { padding: true, ..file(".pad/9", 1 << 40) };
    let layout = layout(1 << 24, [file("x/y/z", 5), file("x/empty", 0), padding, file("w", 7)]);
    let root = dir.path().join("link/deep/down");
    let (content, created) = create(&layout, &root).unwrap();
    assert_eq!(created, Created { made: 3, found: 0, unreserved: 0 });
    assert_eq!(fs::read(root.join("x/y/z")).unwrap(), [0; 5]);
    assert!(fs::read(root.join("x/empty")).unwrap().is_empty());
    assert_eq!(fs::metadata(root.join("w")).unwrap().permissions().mode() & 0o7111, 0);
    assert!(!root.join(".pad").exists(), "padding takes no disk");
    assert!(content.is_writable() && content.verify_files() == Ok(()));
    assert_eq!(create(&layout, &root).unwrap_err(), StorageError::InUse(root.join("x/y/z")));
    drop(content);
    let (_, again) = create(&layout, &root).unwrap();
    assert_eq!(again, Created { made: 0, found: 2, unreserved: 0 });
}

#[test]
fn no_link_is_followed_and_nothing_made_behind_it() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("there"), "precious").unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    symlink(outside.path().join("there"), dir.path().join("there")).unwrap();
    symlink(outside.path().join("new"), dir.path().join("dangling")).unwrap();
    symlink(".", dir.path().join("here")).unwrap();
    for path in ["folder/new", "folder/sub/new", "folder/there", "there", "dangling", "here/new"] {
        let refused = create(&layout(16, [file(path, 20)]), dir.path()).unwrap_err();
        assert!(matches!(refused, StorageError::SymbolicLink(_)), "{path}: {refused}");
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    assert_eq!(fs::read(outside.path().join("there")).unwrap(), b"precious");
    assert!(!dir.path().join("new").exists());
}

#[test]
fn a_folder_swapped_for_a_link_after_opening_changes_nothing_outside_and_is_noticed() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("f"), "precious").unwrap();
    let (content, _) = create(&layout(16, [file("folder/f", 8)]), dir.path()).unwrap();
    fs::rename(dir.path().join("folder"), dir.path().join("moved")).unwrap();
    symlink(outside.path(), dir.path().join("folder")).unwrap();
    content.write_piece(PieceIndex(0), b"download").unwrap();
    assert_eq!(fs::read(outside.path().join("f")).unwrap(), b"precious");
    assert_eq!(fs::read(dir.path().join("moved/f")).unwrap(), b"download");
    assert!(matches!(content.verify_files(), Err(StorageError::SymbolicLink(_))));
}

#[test]
fn what_is_no_file_stands_in_the_way_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    mknodat(CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    for (path, kind, due) in [
        ("fifo", "FIFO", "file"),
        ("folder", "folder", "file"),
        ("file/below", "file", "folder"),
        ("file/far/below", "file", "folder"),
        ("fifo/below", "FIFO", "folder"),
    ] {
        let refused = create(&layout(16, [file(path, 20)]), dir.path()).unwrap_err();
        let at = dir.path().join(path.split('/').next().unwrap());
        assert_eq!(refused, StorageError::WrongKind { path: at, kind, due });
    }
    assert!(matches!(create(&layout(16, []), &dir.path().join("file")), Err(StorageError::WrongKind { .. })));
}

#[test]
fn shorter_files_are_extended_and_longer_ones_never_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16, [file("f", 20), file("empty", 0)]);
    for allocation in [Allocation::Sparse, Allocation::Full] {
        fs::write(dir.path().join("f"), "kept").unwrap();
        let have = Bitfield::none(layout.piece_count());
        let evidence = Evidence { have: &have, record: None, overwrite: true };
        let claims = Claims::of(&layout, dir.path(), &FileSelection::all(), evidence).unwrap();
        let selection = FileSelection::all();
        let (_, created) =
            Content::create(Arc::clone(&layout), dir.path(), &selection, allocation, &claims).unwrap();
        assert_eq!(created.found, 1);
        assert_eq!(fs::read(dir.path().join("f")).unwrap(), *b"kept\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    }
    for (name, expected) in [("f", 20), ("empty", 0)] {
        fs::write(dir.path().join(name), [7; 21]).unwrap();
        let refused = create(&layout, dir.path()).unwrap_err();
        assert_eq!(refused, StorageError::TooLong { path: dir.path().join(name), expected, found: 21 });
        assert_eq!(fs::read(dir.path().join(name)).unwrap(), [7; 21]);
        fs::write(dir.path().join(name), []).unwrap();
    }
}

#[test]
fn space_is_taken_at_once_only_when_reserved() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(1 << 20, [file("f", 8 << 20)]);
    create(&layout, dir.path()).unwrap();
    let blocks = || fs::metadata(dir.path().join("f")).unwrap().blocks() * 512;
    assert!(blocks() < 1 << 20);
    let selection = FileSelection::all();
    let (_, created) = create_some(&layout, dir.path(), &selection, Allocation::Full).unwrap();
    assert!(blocks() >= 8 << 20 || created.unreserved == 1);
    let data = pieces_with_data(&layout, dir.path(), &selection).unwrap();
    assert_eq!(data.count(), 0, "reserved space is not written");
}

#[test]
fn only_the_right_bytes_of_a_piece_are_taken_and_only_while_downloading() {
    let dir = tempfile::tempdir().unwrap();
    let padding = LayoutFile { padding: true, ..file("pad", 4) };
    let layout = layout(16, [file("f", 12), padding, file("g", 5)]);
    let (content, _) = create(&layout, dir.path()).unwrap();
    let refused = |piece, bytes: &[u8]| content.write_piece(PieceIndex(piece), bytes).unwrap_err();
    assert!(matches!(refused(0, &[0; 15]), StorageError::NotThePiece { expected: 16, found: 15, .. }));
    assert!(matches!(refused(1, &[0; 16]), StorageError::NotThePiece { expected: 5, .. }));
    assert!(matches!(refused(2, &[]), StorageError::NotThePiece { expected: 0, .. }));
    assert_eq!(refused(0, &[7; 16]), StorageError::PaddingWithContent(PieceIndex(0)));
    assert_eq!(fs::read(dir.path().join("f")).unwrap(), [0; 12], "nothing of it was written");
    content.finish().unwrap();
    assert!(matches!(refused(1, &[0; 5]), StorageError::NotOpenForWriting(_)));
    let seeding = Content::open(Arc::clone(&layout), dir.path()).unwrap();
    let refused = seeding.write_piece(PieceIndex(1), &[0; 5]);
    assert!(matches!(refused, Err(StorageError::NotOpenForWriting(_))));
}

#[test]
fn files_may_become_younger_until_the_download_ends() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16, [file("f", 16)]);
    let (content, _) = create(&layout, dir.path()).unwrap();
    let other = fs::OpenOptions::new().write(true).open(dir.path().join("f")).unwrap();
    other.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(content.verify_files(), Ok(()));
    assert!(content.fingerprint().vouches_for(&Fingerprint::take(&layout, dir.path()).unwrap()));
    content.write_piece(PieceIndex(0), &[1; 16]).unwrap();
    assert_eq!((content.sync(), content.sync(), content.finish()), (Ok(()), Ok(()), Ok(())));
    assert_eq!(content.verify_files(), Ok(()));
    let clean = Resume::clean(INFO_HASH, content.fingerprint(), Bitfield::all(1));
    assert!(clean.vouches_for(INFO_HASH, &layout, dir.path()));
    other.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert!(matches!(content.verify_files(), Err(StorageError::Modified(_))));
    other.set_len(3).unwrap();
    assert!(matches!(content.verify_files(), Err(StorageError::Length { found: 3, .. })));
}

#[test]
fn what_an_earlier_run_wrote_is_brought_to_the_disk_too() {
    let dir = tempfile::tempdir().unwrap();
    let layout = layout(16, [file("f", 16)]);
    create(&layout, dir.path()).unwrap().0.write_piece(PieceIndex(0), &[1; 16]).unwrap();
    let have = Bitfield::all(1);
    let evidence = Evidence { have: &have, record: None, overwrite: false };
    let claims = Claims::of(&layout, dir.path(), &FileSelection::all(), evidence).unwrap();
    let selection = FileSelection::all();
    let (content, _) = Content::create(layout, dir.path(), &selection, Allocation::Sparse, &claims).unwrap();
    let is_unsynced = || content.files[0].as_ref().unwrap().is_unsynced.load(Acquire);
    assert!(is_unsynced());
    content.sync().unwrap();
    assert!(!is_unsynced());
}

#[test]
fn the_parts_file_is_watched_and_never_a_link() {
    let (outside, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let layout = layout(16, [file("a", 8), file("b", 8)]);
    let only_a = FileSelection::only(&layout, INFO_HASH, |file| file.0 == 0);
    let open = || create_some(&layout, dir.path(), &only_a, Allocation::Full);
    let parts = dir.path().join(only_a.parts_path().unwrap());
    symlink(outside.path().join("new"), &parts).unwrap();
    assert!(matches!(open(), Err(StorageError::SymbolicLink(_))));
    fs::remove_file(&parts).unwrap();
    let (content, _) = open().unwrap();
    assert!(content.fingerprint().parts.is_some());
    fs::remove_file(&parts).unwrap();
    assert!(matches!(content.verify_files(), Err(StorageError::Vanished(path)) if path == parts));
    assert!(outside.path().read_dir().unwrap().next().is_none() && !dir.path().join("b").exists());
    let only_nothing = FileSelection::only(&layout, INFO_HASH, |_| false);
    let none = create_some(&layout, dir.path(), &only_nothing, Allocation::Sparse).unwrap();
    assert!(none.0.files.iter().all(Option::is_none) && !parts.exists(), "made only when needed");
}

/// One file of an arbitrary torrent: its bytes, whether it is padding, whether it is wanted.
fn any_file() -> impl Strategy<Value = (u64, bool, bool)> {
    (0u64..40, prop::bool::weighted(0.2), prop::bool::weighted(0.7))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn pieces_in_any_order_become_the_files_and_can_be_served(
        piece_length in 1u32..24,
        files in prop::collection::vec(any_file(), 1..10),
        order in any::<u64>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let described = files.iter().zip(0..).map(|(&(len, padding, _), index)| {
            LayoutFile { path: format!("d{}/f{index}", index % 3).into(), len, padding }
        });
        let layout = layout(piece_length, described);
        let selection = FileSelection::only(&layout, INFO_HASH, |file| files[file.0 as usize].2);
        let mut string = random(order, layout.total_len() as usize);
        let mut start = 0;
        for &(len, padding, _) in &files {
            let end = start + len as usize;
            if padding {
                string[start..end].fill(0);
            }
            start = end;
        }
        let pieces: Vec<&[u8]> = string.chunks(piece_length as usize).collect();
        let (content, _) = create_some(&layout, dir.path(), &selection, Allocation::Sparse).unwrap();
        let wanted = selection.wanted_pieces(&layout);
        let mut turns: Vec<u32> = (0..layout.piece_count()).collect();
        let mut rng = Rng::from_seed(order);
        rng.shuffle(&mut turns);
        for piece in turns.into_iter().map(PieceIndex).filter(|&piece| wanted.contains(piece)) {
            content.write_piece(piece, pieces[piece.0 as usize]).unwrap();
        }
        content.sync().unwrap();
        content.finish().unwrap();
        prop_assert_eq!(content.verify_files(), Ok(()));

        let mut start = 0;
        for (index, file) in (0..).map(FileIndex).zip(layout.files()) {
            let there = fs::read(dir.path().join(&file.path)).ok();
            let is_due = !file.padding && selection.contains(index);
            let end = start + file.len as usize;
            prop_assert_eq!(there, is_due.then(|| string[start..end].to_vec()), "{:?}", index);
            start = end;
        }
        let has_border = selection.border_pieces(&layout).count() > 0;
        prop_assert_eq!(selection.parts_path().is_some_and(|path| dir.path().join(path).exists()), has_border);
        for (piece, bytes) in (0..).map(PieceIndex).zip(&pieces) {
            let touches_wanted = layout.spans(layout.piece_span(piece)).any(|span| {
                let (_, padding, wanted) = files[span.file.0 as usize];
                selection.is_all() || wanted && !padding
            });
            prop_assert_eq!(wanted.contains(piece), touches_wanted);
            if touches_wanted {
                let block = layout.piece_span(piece);
                let mut read = Vec::new();
                content.read_block(block, &mut read).unwrap();
                prop_assert_eq!(&read[..], *bytes);
                prop_assert_eq!(&fetched(content.slices(block))[..], *bytes);
                prop_assert!(content.is_block_resident(Instant::from_nanos(1 << 60), block));
            }
        }
        prop_assert_eq!(pieces_with_data(&layout, dir.path(), &selection).unwrap(), wanted.clone());
        let expected = |piece: PieceIndex| Some(piece_hash(pieces[piece.0 as usize]));
        let subset = Subset { pieces: &wanted, selection: &selection };
        let never = std::sync::atomic::AtomicBool::new(false);
        let report = check_some(&layout, dir.path(), subset, &expected, 2, &|_| {}, &never).unwrap();
        prop_assert_eq!(report.bitfield, wanted);
        prop_assert_eq!(report.problems, vec![]);
    }
}

const SMALL_DISK: &str = "SEEDRING_TEST_SMALL_DISK";

/// Runs the next test on a file system of 1 MiB in a mount namespace of its own, where this user may make one.
#[test]
fn a_full_disk_is_told_and_used_again_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let run = |script: &str| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--mount", "sh", "-c", script]).arg(std::env::current_exe().unwrap());
        unshare.args(["on_a_small_disk", "--ignored", "--nocapture"]).env(SMALL_DISK, dir.path()).output()
    };
    let mount = format!("mount -t tmpfs -o size=1m none \"${SMALL_DISK}\"");
    if !run(&mount).is_ok_and(|output| output.status.success()) {
        eprintln!("not tested: this user may not mount");
        return;
    }
    let output = run(&format!("{mount} && exec \"$0\" \"$@\"")).unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
    assert!(String::from_utf8_lossy(&said).contains("1 passed"), "{}", String::from_utf8_lossy(&said));
}

#[test]
#[ignore = "runs on the small disk that another test mounts"]
fn on_a_small_disk() {
    let Some(disk) = std::env::var_os(SMALL_DISK).map(PathBuf::from) else { return };
    const LEN: usize = 256 * 1024;
    let layout = layout(LEN as u32, [file("f", 8 * LEN as u64)]);
    let full = create_some(&layout, &disk, &FileSelection::all(), Allocation::Full);
    assert_eq!(full.err(), Some(StorageError::NoSpace(disk.join("f"))));
    fs::remove_file(disk.join("f")).unwrap();
    fs::write(disk.join("filler"), vec![1; LEN]).unwrap();
    let (content, _) = create(&layout, &disk).unwrap();
    let content = Arc::new(content);
    let finisher = Finisher::start(1);
    let finish = |piece: u32| {
        let (answer, outcome) = std::sync::mpsc::channel();
        let bytes = random(u64::from(piece), LEN);
        let job = PieceJob {
            content: Arc::clone(&content).into(),
            piece: PieceIndex(piece),
            expected: piece_hash(&bytes),
            bytes: Arc::new(bytes),
            want_block_hashes: false,
            reply: Box::new(move |outcome| answer.send(outcome).unwrap()),
        };
        finisher.submit(job);
        outcome.recv().unwrap()
    };
    let verified = PieceOutcome::Verified { block_hashes: None };
    let room = (0..8).take_while(|&piece| finish(piece) == verified).count() as u32;
    assert!((1..4).contains(&room), "{room}");
    assert_eq!(finish(room), PieceOutcome::Unwritable(StorageError::NoSpace(disk.join("f"))));
    assert_eq!(content.fault(), None);
    fs::remove_file(disk.join("filler")).unwrap();
    assert_eq!(finish(room), verified);
    for piece in 0..=room {
        let mut read = Vec::new();
        content.read_block(layout.piece_span(PieceIndex(piece)), &mut read).unwrap();
        assert!(read == random(u64::from(piece), LEN));
    }
}
