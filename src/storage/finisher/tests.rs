//! Right, wrong and unwritable pieces, by any number of threads.

use super::*;
use crate::bitfield::Bitfield;
use crate::storage::{Allocation, Claims, Content, Evidence, FileSelection, Layout, LayoutFile, piece_hash};
use std::sync::mpsc;

const PIECES: u32 = 60;
/// Not a multiple of a block, and the last piece is shorter.
const PIECE_LEN: u32 = 40_000;

struct Scratch {
    dir: tempfile::TempDir,
    layout: Arc<Layout>,
    content: Arc<Content>,
}

fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    let len = u64::from(PIECES * PIECE_LEN) - 7;
    let layout =
        Arc::new(Layout::new(PIECE_LEN, [LayoutFile { path: "f".into(), len, padding: false }]).unwrap());
    let (all, have) = (FileSelection::all(), Bitfield::none(PIECES));
    let evidence = Evidence { have: &have, record: None, overwrite: false };
    let claims = Claims::of(&layout, dir.path(), &all, evidence).unwrap();
    let (content, _) =
        Content::create(Arc::clone(&layout), dir.path(), &all, Allocation::Sparse, &claims).unwrap();
    Scratch { dir, layout, content: Arc::new(content) }
}

impl Scratch {
    fn bytes(&self, piece: u32) -> Vec<u8> {
        let len = self.layout.piece_len(PieceIndex(piece)) as usize;
        (0..len).map(|index| (index as u32 * 31 + piece) as u8 | 1).collect()
    }

    fn job(&self, piece: u32, reply: impl FnOnce(PieceOutcome) + Send + 'static) -> PieceJob {
        let bytes = self.bytes(piece);
        PieceJob {
            content: Arc::clone(&self.content).into(),
            piece: PieceIndex(piece),
            expected: piece_hash(&bytes),
            bytes: Arc::new(bytes),
            want_block_hashes: piece.is_multiple_of(2),
            reply: Box::new(reply),
        }
    }
}

fn oracle_blocks(bytes: &[u8]) -> Vec<[u8; 20]> {
    bytes.chunks(16_384).map(|block| sha1_smol::Sha1::from(block).digest().bytes()).collect()
}

#[test]
fn every_piece_is_answered_once_and_only_right_ones_are_written() {
    for threads in [1, 2, 5] {
        let scratch = scratch();
        let finished = Arc::new(finished_content());
        let finisher = Finisher::start(threads);
        let (answer, answers) = mpsc::channel();
        for piece in 0..PIECES {
            let answer = answer.clone();
            let mut job = scratch.job(piece, move |outcome| answer.send((piece, outcome)).unwrap());
            match piece % 3 {
                1 => job.expected[0] ^= 1,
                2 => job.content = Arc::clone(&finished).into(),
                _ => {}
            }
            finisher.submit(job);
        }
        drop(answer);
        let counters = Arc::clone(finisher.counters());
        drop(finisher);
        let mut outcomes: Vec<(u32, PieceOutcome)> = answers.iter().collect();
        outcomes.sort_by_key(|(piece, _)| *piece);
        assert_eq!(outcomes.len(), PIECES as usize);
        let file = std::fs::read(scratch.dir.path().join("f")).unwrap();
        for ((piece, outcome), there) in outcomes.into_iter().zip(file.chunks(PIECE_LEN as usize)) {
            let bytes = scratch.bytes(piece);
            let blocks = oracle_blocks(&bytes);
            match piece % 3 {
                0 => {
                    let block_hashes = piece.is_multiple_of(2).then_some(blocks);
                    assert_eq!(outcome, PieceOutcome::Verified { block_hashes }, "{piece}");
                    assert!(there == bytes);
                }
                1 => {
                    assert_eq!(outcome, PieceOutcome::Failed { block_hashes: blocks }, "{piece}");
                    assert!(there.iter().all(|&byte| byte == 0), "{piece} was written");
                }
                _ => {
                    let refused =
                        PieceOutcome::Unwritable(StorageError::NotOpenForWriting(Default::default()));
                    assert_eq!(std::mem::discriminant(&outcome), std::mem::discriminant(&refused));
                }
            }
        }
        assert_eq!(counters.bytes_hashed(), u64::from(PIECES * PIECE_LEN) - 7);
        assert_eq!(counters.bytes_written(), u64::from(PIECES / 3 * PIECE_LEN));
        assert!(counters.cpu_nanos() > 0);
    }
}

fn finished_content() -> Content {
    let scratch = scratch();
    scratch.content.finish().unwrap();
    Arc::into_inner(scratch.content).unwrap()
}

#[test]
fn any_number_of_pieces_is_taken_while_none_is_answered() {
    let scratch = scratch();
    let finisher = Finisher::start(1);
    let (answer, answers) = mpsc::channel();
    let (release, held) = mpsc::channel::<()>();
    finisher.submit(scratch.job(0, move |_| held.recv().unwrap()));
    let bytes: Arc<Vec<u8>> = Arc::new(scratch.bytes(1));
    for _ in 0..10_000 {
        let answer = answer.clone();
        // The hash need not be right.
        finisher.submit(PieceJob {
            content: Arc::clone(&scratch.content).into(),
            piece: PieceIndex(1),
            bytes: Arc::clone(&bytes) as Arc<dyn AsRef<[u8]> + Send + Sync>,
            expected: [0; 20],
            want_block_hashes: false,
            reply: Box::new(move |_| answer.send(()).unwrap()),
        });
    }
    release.send(()).unwrap();
    drop((finisher, answer));
    assert_eq!(answers.iter().count(), 10_000);
}

#[test]
fn a_finisher_that_gets_no_piece_starts_no_thread() {
    let finisher = Finisher::start(3);
    assert!(finisher.lock().is_empty());
}
