//! The folder of a real run: random content that nothing compresses, and a place for every copy. It is removed when the
//! value is dropped; a process that is killed leaves it behind.

use super::RealError;
use crate::clock;
use crate::rng::Rng;
use crate::units::ByteSize;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// Bytes written or compared at once.
const CHUNK_LEN: usize = 1 << 20;
/// Bytes that have to be left besides the copies: logs, resume files, what a file system needs for itself.
const ROOM_BESIDES: u64 = 64 << 20;
/// The name of the content, and of every copy.
pub const CONTENT_NAME: &str = "content.bin";

/// Whether `copies` copies of `size` bytes have room in a folder, which has to be there.
///
/// # Errors
/// When it does not, or when they are more bytes than can be counted.
pub fn room_for(folder: &Path, copies: u64, size: u64) -> Result<(), RealError> {
    let unusable = |reason: io::Error| RealError::Folder { path: folder.to_owned(), reason };
    if !fs::metadata(folder).map_err(unusable)?.is_dir() {
        return Err(unusable(io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).map_err(|errno| unusable(errno.into()))?;
    let there = rustix::fs::statvfs(folder).map_err(|errno| unusable(errno.into()))?;
    let free = there.f_bavail.saturating_mul(there.f_frsize);
    let needed = copies.saturating_mul(size).saturating_add(ROOM_BESIDES);
    if needed > free {
        return Err(RealError::NoRoom {
            folder: folder.to_owned(),
            needed: ByteSize(needed),
            free: ByteSize(free),
        });
    }
    Ok(())
}

/// A folder with content in it.
#[derive(Debug)]
pub struct Ground {
    folder: PathBuf,
    size: u64,
}

impl Ground {
    /// Makes a folder below `below` and fills it with `size` random bytes. `None` when `cancel` came first.
    ///
    /// # Errors
    /// When files cannot be made or written there.
    pub fn new(below: &Path, size: u64, seed: u64, cancel: &AtomicBool) -> Result<Option<Self>, RealError> {
        let name = format!("seedring-lab-{:016x}", u64::from_ne_bytes(clock::random_bytes()));
        let folder = below.join(name);
        make_folder(&folder)?;
        let ground = Self { folder, size };
        let content = ground.content();
        let failed = |reason| RealError::Folder { path: content.clone(), reason };
        fs::create_dir(ground.folder.join("seeded")).map_err(failed)?;
        let mut file = File::create_new(&content).map_err(failed)?;
        let (mut rng, mut chunk, mut left) = (Rng::from_seed(seed), vec![0; CHUNK_LEN], size);
        while left > 0 {
            if cancel.load(Relaxed) {
                return Ok(None);
            }
            let len = usize::try_from(left).unwrap_or(CHUNK_LEN).min(CHUNK_LEN);
            rng.fill(&mut chunk[..len]);
            file.write_all(&chunk[..len]).map_err(failed)?;
            left -= len as u64;
        }
        Ok(Some(ground))
    }

    /// The original.
    pub fn content(&self) -> PathBuf {
        self.folder.join("seeded").join(CONTENT_NAME)
    }

    /// Bytes of it.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// A new folder for one participant.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn home(&self, name: &str) -> Result<PathBuf, RealError> {
        let home = self.folder.join(name);
        make_folder(&home)?;
        Ok(home)
    }

    /// Whether a copy is the original, byte for byte; the sentence says what is wrong with it.
    pub fn compare(&self, copy: &Path, cancel: &AtomicBool) -> Result<(), String> {
        let opened = |path: &Path| File::open(path).map_err(|error| format!("it cannot be read: {error}"));
        let (mut original, mut copied) = (opened(&self.content())?, opened(copy)?);
        let (mut expected, mut found) = (vec![0; CHUNK_LEN], vec![0; CHUNK_LEN]);
        let mut at = 0_u64;
        loop {
            if cancel.load(Relaxed) {
                return Err("it was not compared to its end".into());
            }
            let len = fill(&mut original, &mut expected).map_err(|error| error.to_string())?;
            let copied_len = fill(&mut copied, &mut found).map_err(|error| error.to_string())?;
            if expected[..len] != found[..copied_len] {
                return Err(format!("it differs from the original within the MiB from byte {at} on"));
            }
            if len == 0 {
                return Ok(());
            }
            at += len as u64;
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        // What cannot be removed stays below a name that says whose it is.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn make_folder(folder: &Path) -> Result<(), RealError> {
    fs::create_dir(folder).map_err(|reason| RealError::Folder { path: folder.to_owned(), reason })
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match file.read(&mut buffer[len..])? {
            0 => break,
            read => len += read,
        }
    }
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    static GO_ON: AtomicBool = AtomicBool::new(false);

    #[test]
    fn a_copy_is_the_original_or_it_is_told_where_it_differs() {
        let below = tempfile::tempdir().unwrap();
        let ground = Ground::new(below.path(), 3_000_001, 7, &GO_ON).unwrap().unwrap();
        let copy = ground.home("copy").unwrap().join(CONTENT_NAME);
        let mut bytes = fs::read(ground.content()).unwrap();
        assert_eq!(bytes.len(), 3_000_001);
        fs::write(&copy, &bytes).unwrap();
        assert_eq!(ground.compare(&copy, &GO_ON), Ok(()));
        bytes[2_500_000] ^= 1;
        fs::write(&copy, &bytes).unwrap();
        assert!(ground.compare(&copy, &GO_ON).unwrap_err().contains("byte 2097152"));
        fs::write(&copy, &bytes[..2_000_000]).unwrap();
        assert!(ground.compare(&copy, &GO_ON).is_err());
        assert!(ground.compare(&below.path().join("nothing"), &GO_ON).is_err());
    }

    #[test]
    fn nothing_is_left_behind() {
        let below = tempfile::tempdir().unwrap();
        drop(Ground::new(below.path(), 10, 7, &GO_ON).unwrap());
        assert!(Ground::new(below.path(), 10, 7, &AtomicBool::new(true)).unwrap().is_none());
        assert_eq!(fs::read_dir(below.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_does_not_fit_is_told_before_anything_is_written() {
        let below = tempfile::tempdir().unwrap();
        room_for(below.path(), 3, 1 << 10).unwrap();
        assert!(matches!(room_for(below.path(), u64::MAX, u64::MAX), Err(RealError::NoRoom { .. })));
        assert!(matches!(room_for(Path::new("/nowhere at all"), 1, 1), Err(RealError::Folder { .. })));
        assert!(matches!(room_for(Path::new("/proc/self/status"), 1, 1), Err(RealError::Folder { .. })));
    }
}
