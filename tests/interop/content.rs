//! What the swarms carry: files with reproducible bytes, and the comparison of what arrived.

use std::fs;
use std::path::{Path, PathBuf};

/// Files below a folder.
pub struct Content {
    /// The folder or single file that is seeded.
    pub root: PathBuf,
    /// The files' paths, beginning with the torrent's own name, and their lengths in bytes.
    files: Vec<(PathBuf, usize)>,
}

impl Content {
    /// One file of `len` bytes.
    pub fn single_file(folder: &Path, len: usize) -> Self {
        Self::create(folder, "single file.bin", vec![(PathBuf::from("single file.bin"), len)])
    }

    /// Everything that file layouts have to get right: files smaller than a piece and larger than several,
    /// boundaries inside pieces, empty files (first and last too), names beyond ASCII, spaces, and a path of
    /// 200 bytes.
    pub fn multi_file(folder: &Path) -> Self {
        let name = "Many files ☃";
        let mut files: Vec<(String, usize)> = vec![
            ("0 empty".into(), 0),
            ("1 byte".into(), 1),
            ("a/larger than several pieces.bin".into(), 1_300_007),
            ("a/empty between".into(), 0),
            ("a/exactly one piece".into(), 262_144),
            ("Übermut/日本語.txt".into(), 4_321),
            ("Übermut/naïve café €.dat".into(), 70_000),
            (long_path(200 - name.len() - 1), 33_333),
        ];
        files.extend((0..40).map(|number| (format!("many/{number:03}"), 100 + number * 997)));
        files.push(("zz empty at the end".into(), 0));
        let files = files.into_iter().map(|(path, len)| (Path::new(name).join(path), len)).collect();
        Self::create(folder, name, files)
    }

    fn create(folder: &Path, name: &str, files: Vec<(PathBuf, usize)>) -> Self {
        for (path, len) in &files {
            let path = folder.join(path);
            let parent = path.parent().expect("every file lies in the folder");
            fs::create_dir_all(parent).expect("a scratch folder takes folders");
            fs::write(&path, bytes_for(&path, *len)).expect("a scratch folder takes files");
        }
        Self { root: folder.join(name), files }
    }

    /// Bytes of all files together.
    pub fn len(&self) -> usize {
        self.files.iter().map(|(_, len)| len).sum()
    }

    /// Panics unless `folder` holds the same bytes. Not every client creates files without bytes:
    /// `with_empty_files` says whether they too have to be there.
    pub fn assert_same(&self, folder: &Path, with_empty_files: bool, who: &str) {
        let origin = self.root.parent().expect("the content lies in a scratch folder");
        for (path, len) in &self.files {
            if *len == 0 && !with_empty_files {
                continue;
            }
            let original =
                fs::read(origin.join(path)).expect("the seeded content stays where it was written");
            let copy = fs::read(folder.join(path))
                .unwrap_or_else(|error| panic!("{who} did not write {}: {error}", path.display()));
            assert!(
                original == copy,
                "{who}: {} differs ({} bytes of {len}), first at {:?}",
                path.display(),
                copy.len(),
                original.iter().zip(&copy).position(|(left, right)| left != right)
            );
        }
    }
}

/// A relative path of exactly `len` bytes.
fn long_path(len: usize) -> String {
    let mut path = String::new();
    while path.len() + 40 < len {
        path.push_str("a folder with a rather long name/");
    }
    let rest = len - path.len();
    path.extend(std::iter::repeat_n('x', rest));
    path
}

/// Bytes that depend on the path, so that no two files and no two pieces are alike.
fn bytes_for(path: &Path, len: usize) -> Vec<u8> {
    let seed = path.as_os_str().as_encoded_bytes().iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
    });
    let mut rng = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| rng.u8(..)).take(len).collect()
}
