//! Holes in real files.

use super::*;
use crate::storage::LayoutFile;
use std::fs;
use std::os::unix::fs::FileExt;

const MIB: u64 = 1 << 20;

fn layout() -> Layout {
    let file = |path: &str, len, padding| LayoutFile { path: path.into(), len, padding };
    Layout::new(1 << 20, [file("a", 3 * MIB, false), file("pad", MIB, true), file("b", 2 * MIB, false)])
        .unwrap()
}

fn found(layout: &Layout, root: &Path) -> Vec<u32> {
    let pieces = pieces_with_data(layout, root, &FileSelection::all()).unwrap();
    (0..layout.piece_count()).filter(|&piece| pieces.contains(PieceIndex(piece))).collect()
}

#[test]
fn pieces_with_a_hole_or_a_missing_end_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let a = fs::File::create(dir.path().join("a")).unwrap();
    a.set_len(3 * MIB).unwrap();
    // Piece 3 is padding alone.
    assert_eq!(found(&layout(), dir.path()), [3]);
    a.write_all_at(&[1; 1 << 20], MIB).unwrap();
    a.write_all_at(&[1; 1 << 19], 2 * MIB).unwrap();
    fs::write(dir.path().join("b"), vec![0; 3 << 19]).unwrap();
    assert_eq!(found(&layout(), dir.path()), [1, 3, 4]);
    a.write_all_at(&[0; 1 << 19], 5 * MIB / 2).unwrap();
    assert_eq!(found(&layout(), dir.path()), [1, 2, 3, 4]);
    assert!(pieces_with_data(&layout(), &dir.path().join("gone"), &FileSelection::all()).is_err());
}
