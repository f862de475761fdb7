//! What the swarms carry: files with reproducible bytes, and the comparison of what arrived.

use seedring::metainfo::builder::{Builder, NewFile};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// The folder of files that only pad.
pub const PADDING: &str = ".pad";

/// Files below a folder.
pub struct Content {
    /// The folder or single file that is seeded.
    pub root: PathBuf,
    /// The files' paths, beginning with the torrent's own name, and the bytes written to them.
    files: Vec<(PathBuf, usize)>,
}

impl Content {
    /// One file of `len` bytes.
    pub fn single_file(folder: &Path, len: usize, name: &str) -> Self {
        Self::create(folder, name, vec![(PathBuf::from(name), len)])
    }

    /// One file of `len` bytes that is mostly hole: every 64 MiB, and at the very end, stand bytes that name
    /// their place. It passes all limits of 32 bits without filling the disk.
    pub fn sparse_file(folder: &Path, len: u64) -> Self {
        let content = Self::single_file(folder, 0, "large.bin");
        let file = File::options().write(true).open(&content.root).expect("the file was just created");
        file.set_len(len).expect("the file system takes large sparse files");
        for place in (0..len).step_by(64 << 20).chain([len - 8]) {
            file.write_all_at(&place.to_be_bytes(), place).expect("the disk has room for a few pages");
        }
        Self { root: content.root, files: vec![(PathBuf::from("large.bin"), 1)] }
    }

    /// So many small files that the torrent's info dictionary has several pieces of its own (BEP 9).
    pub fn many_files(folder: &Path, count: usize) -> Self {
        let name = "many files";
        let files = (0..count).map(|number| {
            let path = format!("{name}/file number {number:04} with a rather long name");
            (PathBuf::from(path), 500 + number)
        });
        Self::create(folder, name, files.collect())
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

    /// The files' paths, beginning with the torrent's own name, and their lengths.
    pub fn files(&self) -> &[(PathBuf, usize)] {
        &self.files
    }

    /// Copies all files into `folder`, with those that pad (see [`Self::make_padded_torrent`]): clients that do not know
    /// what padding is want to see it.
    pub fn copy_to(&self, folder: &Path) {
        let origin = self.root.parent().expect("the content lies in a scratch folder");
        for (path, _) in &self.files {
            let copy = folder.join(path);
            fs::create_dir_all(copy.parent().expect("every file lies in a folder"))
                .expect("a scratch folder");
            fs::copy(origin.join(path), copy).expect("a scratch folder takes files");
        }
        let padding = self.root.join(PADDING);
        if padding.exists() {
            let copies = folder.join(self.root.file_name().expect("content has a name")).join(PADDING);
            fs::create_dir_all(&copies).expect("a scratch folder takes folders");
            for file in fs::read_dir(padding).expect("a folder of ours").map(|file| file.expect("an entry")) {
                fs::copy(file.path(), copies.join(file.file_name())).expect("a scratch folder takes files");
            }
        }
    }

    /// Makes a torrent in which every file begins with a piece of its own, since zeros stand between them (BEP 47).
    /// `mark` gives the same content an info-hash of its own.
    pub fn make_padded_torrent(&self, tracker: &str, mark: &str, torrent: &Path) {
        const PIECE_LEN: usize = 32 * 1024;
        let origin = self.root.parent().expect("the content lies in a scratch folder");
        let padding = self.root.join(PADDING);
        fs::create_dir_all(&padding).expect("a scratch folder takes folders");
        let (mut bytes, mut files) = (Vec::new(), Vec::new());
        for (path, len) in &self.files {
            let components =
                path.iter().skip(1).map(|component| component.to_str().expect("UTF-8").to_owned());
            bytes.extend(fs::read(origin.join(path)).expect("the content can be read"));
            files.push(NewFile { path: components.collect(), len: *len as u64, ..NewFile::default() });
            let gap = bytes.len().next_multiple_of(PIECE_LEN) - bytes.len();
            if gap > 0 {
                let name = format!("{}-{gap}", files.len());
                fs::write(padding.join(&name), vec![0; gap]).expect("a scratch folder takes files");
                bytes.resize(bytes.len() + gap, 0);
                let path = vec![PADDING.to_owned(), name];
                files.push(NewFile { path, len: gap as u64, padding: true, executable: false });
            }
        }
        let hashes: Vec<[u8; 20]> =
            bytes.chunks(PIECE_LEN).map(|piece| sha1_smol::Sha1::from(piece).digest().bytes()).collect();
        let name = self.root.file_name().and_then(|name| name.to_str()).expect("content has a UTF-8 name");
        let builder = Builder {
            name: name.to_owned(),
            files,
            piece_length: u32::try_from(PIECE_LEN).expect("a small number"),
            tiers: vec![vec![tracker.into()]],
            source: Some(mark.to_owned()),
            ..Builder::default()
        };
        let (bytes, _) = builder.build(&hashes).expect("a good torrent");
        fs::write(torrent, bytes).expect("a scratch folder takes files");
    }

    /// Panics unless `folder` holds the same bytes. Not every client creates files without bytes:
    /// `with_empty_files` says whether they too have to be there.
    pub fn assert_same(&self, folder: &Path, with_empty_files: bool, who: &str) {
        let lens: BTreeMap<&Path, usize> = self.files.iter().map(|(path, len)| (&**path, *len)).collect();
        self.assert_same_files(folder, |path| with_empty_files || lens[path] > 0, who);
    }

    /// The same for some files, by their paths beginning with the torrent's own name.
    pub fn assert_same_files(&self, folder: &Path, is_meant: impl Fn(&Path) -> bool, who: &str) {
        let origin = self.root.parent().expect("the content lies in a scratch folder");
        for (path, _) in self.files.iter().filter(|(path, _)| is_meant(path)) {
            assert_same_bytes(&origin.join(path), &folder.join(path), who);
        }
    }
}

/// Compares two files block by block, since one may be larger than memory.
fn assert_same_bytes(original: &Path, copy: &Path, who: &str) {
    let open =
        |path: &Path| File::open(path).unwrap_or_else(|error| panic!("{who}: {}: {error}", path.display()));
    let (mut left, mut right) = (open(original), open(copy));
    let lens = [&left, &right].map(|file| file.metadata().expect("an open file has a length").len());
    assert_eq!(lens[0], lens[1], "{who}: length of {}", copy.display());
    let mut buffers = [vec![0; 1 << 20], vec![0; 1 << 20]];
    let mut place = 0;
    while place < lens[0] {
        let step = usize::try_from(lens[0] - place).map_or(1 << 20, |rest| rest.min(1 << 20));
        left.read_exact(&mut buffers[0][..step]).expect("the seeded content stays as it was written");
        right.read_exact(&mut buffers[1][..step]).expect("the copy has the same length");
        assert!(
            buffers[0][..step] == buffers[1][..step],
            "{who}: {} differs after byte {place}",
            copy.display()
        );
        place += step as u64;
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
