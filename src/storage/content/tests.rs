//! Content over real files in a scratch folder, the hostile ones included.

use super::*;
use crate::storage::LayoutFile;
use crate::time::Duration;
use crate::units::PieceIndex;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use std::fs;
use std::path::PathBuf;

const NOW: Instant = Instant::from_nanos(86_400_000_000_000);

struct Scratch {
    dir: tempfile::TempDir,
    layout: Arc<Layout>,
}

/// `a` and `folder/b` of 5000 and 70,000 bytes around 3 of padding, an empty file, and 64 KiB pieces.
fn scratch() -> Scratch {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("folder")).unwrap();
    fs::write(dir.path().join("a"), bytes_of(1, 5000)).unwrap();
    fs::write(dir.path().join("folder/b"), bytes_of(2, 70_000)).unwrap();
    let file = |path: &str, len, padding| LayoutFile { path: path.into(), len, padding };
    let files = [
        file("a", 5000, false),
        file("empty", 0, false),
        file(".pad/40000", 40_000, true),
        file("folder/b", 70_000, false),
    ];
    Scratch { dir, layout: Arc::new(Layout::new(65_536, files).unwrap()) }
}

fn bytes_of(seed: u8, len: usize) -> Vec<u8> {
    (0..len).map(|index| (index % 251) as u8 ^ seed).collect()
}

impl Scratch {
    fn open(&self) -> Result<Content, StorageError> {
        Content::open(Arc::clone(&self.layout), self.dir.path())
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.dir.path().join(relative)
    }

    /// The torrent's bytes, read past the code under test.
    fn oracle(&self) -> Vec<u8> {
        [bytes_of(1, 5000), vec![0; 40_000], bytes_of(2, 70_000)].concat()
    }
}

/// The bytes that slices point to, fetched the way a send does: by the kernel, through a pipe.
pub(super) fn fetched(slices: impl Iterator<Item = IoSlicePtr>) -> Vec<u8> {
    let mut all = Vec::new();
    for slice in slices {
        let memory = fs::File::open("/proc/self/mem").unwrap();
        let mut part = vec![0; slice.len];
        std::os::unix::fs::FileExt::read_exact_at(&memory, &mut part, slice.ptr as u64).unwrap();
        all.extend(part);
    }
    all
}

#[test]
fn slices_point_to_the_torrents_bytes_in_order() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    let oracle = scratch.oracle();
    for (piece, begin, len) in [(0, 0, 65_536), (0, 4_999, 2), (0, 44_990, 20_000), (1, 0, 49_464), (1, 1, 1)]
    {
        let block = BlockSpan { piece: PieceIndex(piece), begin, len };
        let start = (piece * 65_536 + begin) as usize;
        let expected = &oracle[start..start + len as usize];
        assert!(fetched(content.slices(block)) == expected, "{block}");
        let mut read = vec![9];
        content.read_block(block, &mut read).unwrap();
        assert!(read[1..] == *expected && read[0] == 9, "{block}");
    }
}

#[test]
fn spans_that_the_content_does_not_have_get_no_pointer() {
    let content = scratch().open().unwrap();
    for (file, offset, len) in
        [(0, 0, 5001), (0, 5000, 1), (0, u64::MAX, 2), (2, 40_000, 1), (1, 0, 1), (4, 0, 1)]
    {
        let span = FileSpan { file: FileIndex(file), offset, len };
        assert_eq!(content.slice(span).count(), 0, "{span:?}");
        assert_eq!(content.windows(NOW, span).count(), 0, "{span:?}");
    }
}

#[test]
fn padding_and_empty_files_need_no_disk() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    assert!(!scratch.path(".pad").exists() && !scratch.path("empty").exists());
    let padding = FileSpan { file: FileIndex(2), offset: 0, len: 40_000 };
    assert_eq!(content.slice(padding).map(|slice| slice.len).collect::<Vec<_>>(), [16_384, 16_384, 7_232]);
    assert!(content.is_resident(NOW, FileIndex(2), 0, 40_000));
    assert!(content.windows(NOW, padding).next().is_none() && content.file_fd(FileIndex(1)).is_none());
}

#[test]
fn written_content_is_resident_and_populated_in_whole_windows_of_its_file() {
    let content = scratch().open().unwrap();
    assert!(content.is_block_resident(NOW, content.layout().piece_span(PieceIndex(0))));
    let span = FileSpan { file: FileIndex(3), offset: 20_000, len: 10 };
    let (range, presence) = content.windows(NOW, span).next().unwrap();
    assert_eq!(presence, Presence::Resident);
    assert_eq!((range.file, range.offset, range.len), (FileIndex(3), 0, 70_000));
    assert_eq!(range.ptr as usize % 4096, 0);
    content.mark_loading(span);
    assert!(!content.is_resident(NOW, FileIndex(3), 0, 1));
    content.mark_resident(NOW, FileSpan { file: range.file, offset: range.offset, len: range.len });
    assert!(content.is_resident(NOW + Duration::from_millis(1), FileIndex(3), 0, 1));
}

#[test]
fn untouched_files_verify() {
    let content = scratch().open().unwrap();
    assert!(content.fault().is_none());
    // The scratch folder is gone by now, which is what a vanished file looks like.
    assert!(matches!(content.verify_files(), Err(StorageError::Vanished(_))));
    let scratch = scratch();
    assert_eq!(scratch.open().unwrap().verify_files(), Ok(()));
}

#[test]
fn opened_files_have_the_fingerprint_that_was_taken_before_unless_they_changed() {
    let scratch = scratch();
    let taken = Fingerprint::take(&scratch.layout, scratch.dir.path()).unwrap();
    assert_eq!(scratch.open().unwrap().fingerprint(), taken);
    let file = fs::OpenOptions::new().write(true).open(scratch.path("a")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_ne!(scratch.open().unwrap().fingerprint(), taken);
}

#[test]
fn the_first_fault_stays() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    assert!(content.fail(StorageError::Vanished("x".into())));
    assert!(!content.fail(StorageError::Cancelled));
    assert_eq!(content.fault(), Some(&StorageError::Vanished("x".into())));
}

// HOSTILE 54: what lies on disk is not what the torrent says.

#[test]
fn a_file_of_another_length_or_none_is_refused_by_name() {
    let scratch = scratch();
    fs::write(scratch.path("a"), b"short").unwrap();
    let length = StorageError::Length { path: scratch.path("a"), expected: 5000, found: 5 };
    assert_eq!(scratch.open().unwrap_err(), length);
    fs::remove_file(scratch.path("a")).unwrap();
    assert_eq!(scratch.open().unwrap_err(), StorageError::Missing(scratch.path("a")));
    let nowhere = Content::open(Arc::clone(&scratch.layout), &scratch.path("nowhere"));
    assert_eq!(nowhere.unwrap_err(), StorageError::Missing(scratch.path("nowhere")));
    let file_as_root = Content::open(Arc::clone(&scratch.layout), &scratch.path("folder/b"));
    assert!(matches!(file_as_root.unwrap_err(), StorageError::WrongKind { kind: "file", due: "folder", .. }));
}

#[test]
fn a_fifo_folder_or_socket_in_a_files_place_is_refused_without_blocking() {
    let scratch = scratch();
    let path = scratch.path("a");
    fs::remove_file(&path).unwrap();
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    assert!(matches!(scratch.open().unwrap_err(), StorageError::WrongKind { kind: "FIFO", .. }));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(scratch.open().unwrap_err(), StorageError::WrongKind { kind: "folder", .. }));
    fs::remove_dir(&path).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let message = scratch.open().unwrap_err().to_string();
    assert!(message.contains("socket"), "{message}");
}

#[test]
fn an_unreadable_file_is_the_users_to_mend() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = scratch();
    fs::set_permissions(scratch.path("a"), fs::Permissions::from_mode(0o0)).unwrap();
    match scratch.open() {
        Err(error) => {
            assert_eq!(error, StorageError::Denied(scratch.path("a")));
            assert!(error.to_string().contains("permissions"));
        }
        // Root reads everything.
        Ok(_) => assert!(rustix::process::geteuid().is_root()),
    }
}

#[test]
fn a_file_that_shrinks_grows_changes_vanishes_or_is_replaced_is_told_apart() {
    let len = |content: &Content| match content.verify_files() {
        Err(StorageError::Length { expected, found, .. }) => (expected, found),
        other => panic!("{other:?}"),
    };
    let scratch = scratch();
    let content = scratch.open().unwrap();
    let file = || fs::OpenOptions::new().write(true).open(scratch.path("a")).unwrap();
    file().set_len(100).unwrap();
    assert_eq!(len(&content), (5000, 100));
    file().set_len(6000).unwrap();
    assert_eq!(len(&content), (5000, 6000));
    file().set_len(5000).unwrap();
    file().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(content.verify_files(), Err(StorageError::Modified(scratch.path("a"))));
    fs::rename(scratch.path("a"), scratch.path("moved")).unwrap();
    assert_eq!(content.verify_files(), Err(StorageError::Vanished(scratch.path("a"))));
    fs::write(scratch.path("a"), bytes_of(1, 5000)).unwrap();
    assert_eq!(content.verify_files(), Err(StorageError::Replaced(scratch.path("a"))));
    fs::remove_file(scratch.path("a")).unwrap();
    mknodat(CWD, scratch.path("a"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    assert!(matches!(content.verify_files(), Err(StorageError::WrongKind { kind: "FIFO", .. })));
    fs::remove_file(scratch.path("a")).unwrap();
    std::os::unix::fs::symlink("moved", scratch.path("a")).unwrap();
    assert_eq!(content.verify_files(), Err(StorageError::SymbolicLink(scratch.path("a"))));
}

#[test]
fn truncation_under_a_mapping_is_efault_to_the_kernel_and_a_named_fault_here() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    fs::OpenOptions::new().write(true).open(scratch.path("folder/b")).unwrap().set_len(10).unwrap();
    let behind = FileSpan { file: FileIndex(3), offset: 60_000, len: 100 };
    let (range, _) = content.windows(NOW, behind).next().unwrap();
    let pointer = content.slice(behind).next().unwrap().ptr;
    let memory = fs::File::open("/proc/self/mem").unwrap();
    let touched = std::os::unix::fs::FileExt::read_at(&memory, &mut [0; 100], pointer as u64);
    assert!(touched.is_err(), "no signal, an error");
    let length = StorageError::Length { path: scratch.path("folder/b"), expected: 70_000, found: 10 };
    let block = BlockSpan { piece: PieceIndex(1), begin: 100, len: 100 };
    let mut bytes = vec![7];
    assert_eq!(content.read_block(block, &mut bytes), Err(length.clone()), "not where the reading began");
    assert_eq!(bytes, [7]);
    assert_eq!(content.fail_unreadable(Some(range.file), Errno::FAULT), Some(&length));
    assert_eq!(content.fault(), Some(&length));
}

#[test]
fn a_read_error_without_any_change_of_the_file_is_told_as_it_is() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    let fault = content.fail_unreadable(Some(FileIndex(0)), Errno::IO).cloned();
    assert_eq!(fault, Some(StorageError::Io { action: "read", path: scratch.path("a"), errno: Errno::IO }));
}

#[test]
fn a_shortage_is_never_the_fault_of_content() {
    let scratch = scratch();
    let content = scratch.open().unwrap();
    let path = scratch.path("a");
    for errno in [Errno::MFILE, Errno::NFILE, Errno::NOMEM, Errno::AGAIN] {
        assert!(!content.fail(StorageError::at("open", &path, errno)), "{errno}");
        assert_eq!(content.fail_unreadable(Some(FileIndex(0)), errno), None, "{errno}");
    }
    assert_eq!(content.fault(), None);
    assert!(content.fail(StorageError::Vanished(path)));
}

#[test]
fn why_content_cannot_be_read_is_found_out_on_another_thread() {
    let scratch = scratch();
    let content = Arc::new(scratch.open().unwrap());
    fs::remove_file(scratch.path("a")).unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    let tell = Box::new(move || sender.send(std::thread::current().id()).unwrap());
    content.fail_unreadable_later(None, Errno::FAULT, tell);
    assert_ne!(told.recv().unwrap(), std::thread::current().id());
    assert_eq!(content.fault(), Some(&StorageError::Vanished(scratch.path("a"))));
}

#[test]
fn content_of_a_session_is_closed_on_another_thread() {
    let scratch = scratch();
    let content = scratch.open().unwrap().closed_elsewhere();
    let is_open = || {
        let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
        open.filter_map(|entry| fs::read_link(entry.path()).ok()).any(|file| file == scratch.path("a"))
    };
    assert!(is_open());
    // All that its device's line may do at once hangs: whoever drops content is not held up by that.
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(std::sync::Mutex::new(released));
    for _ in 0..crate::limits::FILE_THREADS_PER_DEVICE_MAX {
        let released = Arc::clone(&released);
        let hang = move |_| _ = released.lock().unwrap().recv();
        crate::storage::file_threads::run_later(content.device(), Box::new(hang));
    }
    drop(content);
    assert!(is_open());
    drop(release);
    while is_open() {
        std::thread::yield_now();
    }
}

// HOSTILE 9 and 11: nothing below the root is followed out of it.

#[test]
fn symbolic_links_below_the_root_are_refused_by_name_and_the_root_may_be_one() {
    let scratch = scratch();
    fs::rename(scratch.path("a"), scratch.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("elsewhere", scratch.path("a")).unwrap();
    assert_eq!(scratch.open().unwrap_err(), StorageError::SymbolicLink(scratch.path("a")));
    fs::rename(scratch.path("elsewhere"), scratch.path("a")).unwrap();
    fs::rename(scratch.path("folder"), scratch.path("real")).unwrap();
    std::os::unix::fs::symlink("real", scratch.path("folder")).unwrap();
    assert_eq!(scratch.open().unwrap_err(), StorageError::SymbolicLink(scratch.path("folder/b")));
    fs::remove_file(scratch.path("folder")).unwrap();
    std::os::unix::fs::symlink(scratch.path("folder"), scratch.path("folder")).unwrap();
    assert_eq!(scratch.open().unwrap_err(), StorageError::SymbolicLink(scratch.path("folder/b")));
    fs::remove_file(scratch.path("folder")).unwrap();
    fs::rename(scratch.path("real"), scratch.path("folder")).unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(scratch.dir.path(), outside.path().join("link")).unwrap();
    assert!(Content::open(Arc::clone(&scratch.layout), &outside.path().join("link")).is_ok());
}

// HOSTILE 10 (b): `a` and `a/b` never come as far as the disk.

#[test]
fn a_file_where_a_folder_is_due_is_missing_content() {
    let scratch = scratch();
    fs::remove_dir_all(scratch.path("folder")).unwrap();
    fs::write(scratch.path("folder"), "x").unwrap();
    assert_eq!(scratch.open().unwrap_err(), StorageError::Missing(scratch.path("folder/b")));
}
