//! Downloads into more files than may be open, read back while they come.

use super::*;
use crate::id::InfoHash;
use crate::limits::FILES_PER_LOOK_MAX;
use crate::rng::Rng;
use crate::storage::{Evidence, LayoutFile, Subset, check_some, piece_hash};
use proptest::prelude::*;
use std::fs;
use std::time::SystemTime;

const PIECE_LEN: u32 = 16_384;

/// A torrent, and a folder that it is downloaded into.
struct Scratch {
    dir: tempfile::TempDir,
    layout: Arc<Layout>,
    bytes: Vec<u8>,
}

impl Scratch {
    fn of(lens: impl IntoIterator<Item = u64>) -> Self {
        let files = lens.into_iter().enumerate().map(|(number, len)| {
            let padding = number % 7 == 3;
            LayoutFile { path: format!("{}/{number}", number % 5).into(), len, padding }
        });
        let layout = Arc::new(Layout::new(PIECE_LEN, files).unwrap());
        let mut bytes = vec![0; layout.total_len() as usize];
        Rng::from_seed(layout.total_len()).fill(&mut bytes);
        for (number, file) in (0..).zip(layout.files()).filter(|(_, file)| file.padding) {
            let start = layout.start_of(FileIndex(number)).unwrap() as usize;
            bytes[start..start + file.len as usize].fill(0);
        }
        Self { dir: tempfile::tempdir().unwrap(), layout, bytes }
    }

    /// As somebody who has these pieces.
    fn create(
        &self,
        selection: &FileSelection,
        have: &Bitfield,
        files_max: usize,
    ) -> Result<Arc<ManyFiles>, StorageError> {
        let (layout, root) = (Arc::clone(&self.layout), self.dir.path());
        let evidence = Evidence { have, record: None, overwrite: false };
        let claims = Claims::of(&layout, root, selection, evidence)?;
        let durable = &Bitfield::none(layout.piece_count());
        let (known, shelf) = (Known { have, durable }, Shelf::new(files_max));
        let allocation = Allocation::Sparse;
        let created = ManyFiles::create(layout, root, selection, allocation, &claims, known, &shelf);
        created.map(|(content, _)| Arc::new(content))
    }

    fn create_new(&self, files_max: usize) -> Arc<ManyFiles> {
        self.create(&FileSelection::all(), &self.none(), files_max).unwrap()
    }

    fn none(&self) -> Bitfield {
        Bitfield::none(self.layout.piece_count())
    }

    fn pieces(&self) -> impl Iterator<Item = PieceIndex> + use<> {
        (0..self.layout.piece_count()).map(PieceIndex)
    }

    fn piece(&self, piece: PieceIndex) -> &[u8] {
        self.block(self.layout.piece_span(piece))
    }

    fn block(&self, block: BlockSpan) -> &[u8] {
        let begin = block.piece.0 as usize * PIECE_LEN as usize + block.begin as usize;
        &self.bytes[begin..begin + block.len as usize]
    }

    /// The pieces that are right on the disk.
    fn right(&self, selection: &FileSelection) -> Bitfield {
        let wanted = selection.wanted_pieces(&self.layout);
        let subset = Subset { pieces: &wanted, selection };
        let expected = |piece| Some(piece_hash(self.piece(piece)));
        let never = AtomicBool::new(false);
        check_some(&self.layout, self.dir.path(), subset, &expected, 1, &|_| {}, &never).unwrap().bitfield
    }

    fn path(&self, file: u32) -> PathBuf {
        self.dir.path().join(&self.layout.file(FileIndex(file)).unwrap().path)
    }
}

fn opened(content: &Arc<ManyFiles>, part: u32) -> Result<Arc<Content>, Refusal> {
    let (sender, answer) = std::sync::mpsc::channel();
    Arc::clone(content).open_later(part, Box::new(move |opened| drop(sender.send(opened))));
    answer.recv().unwrap()
}

fn read(content: &Arc<ManyFiles>, block: BlockSpan) -> Vec<u8> {
    // What others have open is given back at once.
    let part = loop {
        match opened(content, content.part_of(block)) {
            Ok(part) => break part,
            Err(refusal) => assert_eq!(refusal, Refusal::Full),
        }
    };
    let mut bytes = Vec::new();
    part.read_block(block, &mut bytes).unwrap();
    assert_eq!(part.slices(block).map(|slice| slice.len).sum::<usize>(), bytes.len());
    bytes
}

fn assert_bounded(content: &ManyFiles, threads: usize) {
    assert!(content.handles.open_count() <= content.handles.files_max() + 2 * threads);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn pieces_in_any_order_are_read_back_at_once_by_who_has_opened_their_part_before(
        lens in prop::collection::vec(
            prop_oneof![Just(0_u64), 1..60_u64, 1000..20_000_u64, 100_000..400_000_u64], 20..160),
        files_max in 8_usize..400,
        only in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let scratch = Scratch::of(lens.into_iter().chain([100, 1]));
        let mut rng = Rng::from_seed(seed);
        let selection = if only {
            FileSelection::only(&scratch.layout, InfoHash([9; 20]), |_| rng.below(3) > 0)
        } else {
            FileSelection::all()
        };
        let content = scratch.create(&selection, &scratch.none(), files_max).unwrap();
        let wanted = selection.wanted_pieces(&scratch.layout);
        let mut order: Vec<PieceIndex> = wanted.iter().collect();
        rng.shuffle(&mut order);
        // Some parts are open, and held, before anything is there.
        let held: Vec<(PieceIndex, Arc<Content>)> = order.iter().step_by(5).filter_map(|&piece| {
            let part = content.part_of(scratch.layout.piece_span(piece));
            Some((piece, opened(&content, part).ok()?))
        }).take(2).collect();
        let half = order.len() / 2;
        std::thread::scope(|scope| {
            for some in [&order[..half], &order[half..]] {
                let (scratch, content) = (&scratch, &content);
                scope.spawn(move || {
                    for &piece in some {
                        content.write_piece(piece, scratch.piece(piece)).unwrap();
                        assert_bounded(content, 2);
                    }
                });
            }
        });
        for (piece, part) in held {
            let block = scratch.layout.piece_span(piece);
            let mut bytes = Vec::new();
            part.read_block(block, &mut bytes).unwrap();
            prop_assert!(bytes == scratch.block(block));
        }
        for is_finished in [false, true] {
            for &piece in &order {
                let block = scratch.layout.piece_span(piece);
                prop_assert!(read(&content, block) == scratch.block(block));
            }
            for _ in 0..64 {
                prop_assert_eq!(content.verify_files(), Ok(()));
            }
            if !is_finished {
                content.sync(&mut || {}).unwrap();
                content.finish().unwrap();
            }
        }
        prop_assert_eq!(scratch.right(&selection).count(), wanted.count());
        let now = Fingerprint::take_selected(&scratch.layout, scratch.dir.path(), &selection).unwrap();
        prop_assert!(content.fingerprint().vouches_for(&now));
        prop_assert!(content.write_piece(order[0], scratch.piece(order[0])).is_err(), "the writing has ended");
        prop_assert_eq!(content.fault(), None);
    }
}

#[test]
fn a_part_that_is_opened_while_its_pieces_are_written_lacks_none_of_them() {
    let scratch = Scratch::of((0..600).map(|_| 1000));
    let content = scratch.create_new(16);
    let told = SharedBitfield::from(scratch.none());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for piece in scratch.pieces() {
                content.write_piece(piece, scratch.piece(piece)).unwrap();
                told.insert(piece);
            }
        });
        for _ in 0..2 {
            scope.spawn(|| {
                while !told.is_full() {
                    for piece in scratch.pieces().filter(|&piece| told.contains(piece)) {
                        let block = scratch.layout.piece_span(piece);
                        assert!(read(&content, block) == scratch.block(block), "{piece:?}");
                    }
                }
            });
        }
    });
}

#[test]
fn who_downloads_into_the_same_files_is_refused_and_who_seeds_one_makes_its_piece_wait() {
    let scratch = Scratch::of((0..100).map(|_| 5000));
    let content = scratch.create_new(20);
    let first = PieceIndex(0);
    content.write_piece(first, scratch.piece(first)).unwrap();
    let mut have = scratch.none();
    have.insert(first);
    // The file that lacks nothing is only read, and the others are there.
    let again = scratch.create(&FileSelection::all(), &have, 20);
    assert!(matches!(again, Err(StorageError::InUse(_))), "{again:?}");
    let seeded = fs::File::open(scratch.path(50)).unwrap();
    rustix::fs::flock(&seeded, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
    let piece = PieceIndex(scratch.layout.pieces_of(FileIndex(50)).start);
    let in_use = content.write_piece(piece, scratch.piece(piece));
    assert_eq!((in_use, content.fault()), (Err(StorageError::InUse(scratch.path(50))), None));
    drop(seeded);
    content.write_piece(piece, scratch.piece(piece)).unwrap();
    // Once the writing has ended everybody may read.
    content.finish().unwrap();
    let first = fs::File::open(scratch.path(0)).unwrap();
    rustix::fs::flock(&first, rustix::fs::FlockOperation::NonBlockingLockShared).unwrap();
}

#[test]
fn a_file_that_others_change_while_it_is_closed_is_a_fault_and_is_not_written_to() {
    let changes: [fn(&Path); 5] = [
        |path| {
            fs::File::options().write(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap()
        },
        |path| fs::File::options().write(true).open(path).unwrap().set_len(7).unwrap(),
        |path| fs::remove_file(path).unwrap(),
        |path| {
            fs::remove_file(path).unwrap();
            fs::write(path, [0; 5000]).unwrap();
        },
        |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        },
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let scratch = Scratch::of((0..100).map(|_| 5000));
        let content = scratch.create_new(20);
        change(&scratch.path(50));
        let before = fs::symlink_metadata(scratch.path(50)).ok().map(|it| it.modified().unwrap());
        let piece = PieceIndex(scratch.layout.pieces_of(FileIndex(50)).start);
        let refused = content.write_piece(piece, scratch.piece(piece)).unwrap_err();
        assert_eq!(content.fault(), Some(&refused), "{number}");
        let after = fs::symlink_metadata(scratch.path(50)).ok().map(|it| it.modified().unwrap());
        assert_eq!(before, after, "{number}");
        assert_eq!(opened(&content, 0).unwrap_err(), Refusal::Faulty);
    }
}

#[test]
fn what_changes_and_nobody_writes_is_found_by_who_looks_after_the_files() {
    let scratch = Scratch::of((0..9000).map(|_| 10));
    let content = scratch.create_new(50);
    let looks = 9000_u32.div_ceil(FILES_PER_LOOK_MAX) + 1;
    let look = || (0..looks).map(|_| content.verify_files()).find(Result::is_err);
    assert_eq!(look(), None);
    fs::remove_file(scratch.path(8999)).unwrap();
    assert_eq!(look(), Some(Err(StorageError::Vanished(scratch.path(8999)))));
}

#[test]
fn what_an_earlier_run_may_have_left_in_memory_is_brought_to_the_disk_first() {
    let scratch = Scratch::of((0..100).map(|_| 5000));
    let all = FileSelection::all();
    let content = scratch.create_new(20);
    assert!(content.lock_unsynced().is_empty(), "files that were made have nothing");
    scratch.pieces().take(10).for_each(|piece| content.write_piece(piece, scratch.piece(piece)).unwrap());
    drop(content);
    let have = scratch.right(&all);
    assert_eq!(have.count(), 10);
    // Closing happens elsewhere.
    let content = loop {
        match scratch.create(&all, &have, 20) {
            Err(StorageError::InUse(_)) => std::thread::yield_now(),
            other => break other.unwrap(),
        }
    };
    let stored = scratch.layout.stored_files();
    let expected: BTreeSet<FileIndex> = stored
        .map(|(file, _)| file)
        .filter(|&file| scratch.layout.pieces_of(file).any(|piece| piece < 10))
        .collect();
    assert_eq!(*content.lock_unsynced(), expected);
    let mut steps = 0;
    content.sync(&mut || steps += 1).unwrap();
    assert!(steps > expected.len() && content.lock_unsynced().is_empty());
    for piece in scratch.pieces().filter(|&piece| !have.contains(piece)) {
        content.write_piece(piece, scratch.piece(piece)).unwrap();
    }
    content.finish().unwrap();
    assert!(scratch.right(&all).is_full());
}
