//! Files that are open to be written to, a bounded number at a time.
//!
//! What was written to a file is brought to the disk before the file is closed: the kernel tells whoever has a file open that
//! it has lost something, and once it has forgotten the file nobody. Those that have been idle longest are closed,
//! many at once, so that one journal entry of the file system serves them all. Invariant: a file is open once at most
//! in here, since a lock of our own (flock(2)) would keep us out; whoever wants one that is being opened or closed waits.

use crate::storage::content::write_exactly;
use crate::storage::layout::FileIndex;
use rustix::fd::OwnedFd;
use rustix::fs::Advice;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::num::NonZero;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// A file that is open to be written to.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) fd: OwnedFd,
    /// What has been written and not been brought to the disk lies in here.
    unsynced: Mutex<Option<Range<u64>>>,
}

impl Handle {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, unsynced: Mutex::default() }
    }

    /// Writes all of it. Even after an error some of it may be written.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> Result<(), Errno> {
        let range = offset..offset + bytes.len() as u64;
        // Before and after: whoever brings it to the disk meanwhile may miss it.
        self.note_unsynced(range.clone());
        let outcome = write_exactly(&self.fd, bytes, offset);
        self.note_unsynced(range);
        outcome
    }

    fn note_unsynced(&self, range: Range<u64>) {
        let mut unsynced = self.lock();
        let all = match unsynced.take() {
            Some(before) => before.start.min(range.start)..before.end.max(range.end),
            None => range,
        };
        *unsynced = Some(all);
    }

    /// Has the kernel begin to write what it has not, without waiting for that (posix_fadvise(2), DONTNEED). Advice only.
    fn begin_sync(&self) {
        let range = self.lock().clone();
        if let Some(range) = range {
            let len = NonZero::new(range.end - range.start);
            let _ = rustix::fs::fadvise(&self.fd, range.start, len, Advice::DontNeed);
        }
    }

    /// Brings to the disk what was written before.
    pub(super) fn sync(&self) -> Result<(), Errno> {
        let Some(range) = self.lock().take() else { return Ok(()) };
        let outcome = rustix::fs::fsync(&self.fd);
        if outcome.is_err() {
            self.note_unsynced(range);
        }
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Option<Range<u64>>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The files that are open.
#[derive(Debug)]
pub(super) struct Handles {
    files_max: usize,
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    slots: BTreeMap<FileIndex, Slot>,
    uses: u64,
}

#[derive(Debug)]
enum Slot {
    /// Somebody opens or closes it.
    Busy,
    Open {
        handle: Arc<Handle>,
        used: u64,
    },
}

impl Handles {
    /// At most so many are open, and two more for each thread that asks for them at once.
    pub(super) fn new(files_max: usize) -> Self {
        Self { files_max: files_max.max(1), table: Mutex::default(), changed: Condvar::new() }
    }

    /// The file's handle, opened by `open` where it is not open; those that have to go before are closed by `close`, with all
    /// that was written to them on the disk or its failure told. Waits for the disk.
    pub(super) fn get<E>(
        &self,
        file: FileIndex,
        open: impl FnOnce() -> Result<Handle, E>,
        close: impl FnMut(FileIndex, &Handle, Result<(), Errno>),
    ) -> Result<Arc<Handle>, E> {
        let mut table = self.lock();
        loop {
            table.uses += 1;
            let uses = table.uses;
            match table.slots.get_mut(&file) {
                Some(Slot::Open { handle, used }) => {
                    *used = uses;
                    return Ok(Arc::clone(handle));
                }
                Some(Slot::Busy) => {
                    table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
                None => break,
            }
        }
        let leaving = if table.slots.len() < self.files_max { Vec::new() } else { table.begin_closing(1) };
        table.slots.insert(file, Slot::Busy);
        drop(table);
        self.close(leaving, close);
        let opened = open().map(Arc::new);
        let mut table = self.lock();
        match &opened {
            Ok(handle) => {
                let (handle, used) = (Arc::clone(handle), table.uses);
                table.slots.insert(file, Slot::Open { handle, used });
            }
            Err(_) => _ = table.slots.remove(&file),
        }
        drop(table);
        self.changed.notify_all();
        opened
    }

    /// Brings to the disk what was written to any of them before, to those that are being closed, too. They stay open.
    pub(super) fn sync(&self, mut told: impl FnMut(FileIndex, Result<(), Errno>)) {
        let files: Vec<FileIndex> = self.lock().slots.keys().copied().collect();
        // One after the other: who is held cannot be closed meanwhile.
        for file in files {
            let mut table = self.lock();
            let handle = loop {
                match table.slots.get(&file) {
                    None => break None,
                    Some(Slot::Open { handle, .. }) => break Some(Arc::clone(handle)),
                    Some(Slot::Busy) => {
                        table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(table);
            if let Some(handle) = handle {
                told(file, handle.sync());
            }
        }
    }

    /// Looks at every handle. What is being opened or closed is left out.
    pub(super) fn each(&self, mut look: impl FnMut(FileIndex, &Handle)) {
        for (&file, slot) in &self.lock().slots {
            if let Slot::Open { handle, .. } = slot {
                look(file, handle);
            }
        }
    }

    /// How many may be open.
    pub(super) fn files_max(&self) -> usize {
        self.files_max
    }

    /// Closes all that nobody holds.
    pub(super) fn close_all(&self, close: impl FnMut(FileIndex, &Handle, Result<(), Errno>)) {
        let leaving = self.lock().begin_closing(usize::MAX);
        self.close(leaving, close);
    }

    /// Takes out every handle, without a word to the disk.
    pub(super) fn take(&mut self) -> Vec<Arc<Handle>> {
        let slots = std::mem::take(&mut self.lock().slots);
        let open = |slot| match slot {
            Slot::Open { handle, .. } => Some(handle),
            Slot::Busy => None,
        };
        slots.into_values().filter_map(open).collect()
    }

    fn close(
        &self,
        leaving: Vec<(FileIndex, Arc<Handle>)>,
        mut close: impl FnMut(FileIndex, &Handle, Result<(), Errno>),
    ) {
        if leaving.is_empty() {
            return;
        }
        leaving.iter().for_each(|(_, handle)| handle.begin_sync());
        let mut closed = Vec::with_capacity(leaving.len());
        for (file, handle) in leaving {
            close(file, &handle, handle.sync());
            closed.push(file);
        }
        let mut table = self.lock();
        closed.iter().for_each(|file| _ = table.slots.remove(file));
        drop(table);
        self.changed.notify_all();
    }

    #[cfg(test)]
    pub(super) fn open_count(&self) -> usize {
        self.lock().slots.len()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    /// Takes out the longer idle half of those that nobody holds, `least` of them where there are as many.
    fn begin_closing(&mut self, least: usize) -> Vec<(FileIndex, Arc<Handle>)> {
        let mut idle: Vec<(u64, FileIndex)> = Vec::new();
        for (&file, slot) in &self.slots {
            // Nobody else can take hold of it meanwhile.
            if let Slot::Open { handle, used } = slot
                && Arc::strong_count(handle) == 1
            {
                idle.push((*used, file));
            }
        }
        idle.sort_unstable();
        idle.truncate((idle.len() / 2).max(least));
        let mut leaving = Vec::with_capacity(idle.len());
        for (_, file) in idle {
            if let Some(Slot::Open { handle, .. }) = self.slots.insert(file, Slot::Busy) {
                leaving.push((file, handle));
            }
        }
        leaving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use std::path::Path;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

    fn open(folder: &Path, file: FileIndex) -> Result<Handle, std::io::Error> {
        let path = folder.join(file.0.to_string());
        Ok(Handle::new(std::fs::OpenOptions::new().read(true).write(true).open(path)?.into()))
    }

    #[test]
    fn many_threads_share_few_handles_and_no_file_is_opened_twice_at_once() {
        const FILES: u32 = 40;
        let folder = tempfile::tempdir().unwrap();
        for file in 0..FILES {
            std::fs::write(folder.path().join(file.to_string()), [0; 64]).unwrap();
        }
        let handles = Handles::new(6);
        let open_now: Vec<AtomicUsize> = (0..FILES).map(|_| AtomicUsize::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..8_u64 {
                let (handles, open_now, folder) = (&handles, &open_now, folder.path());
                scope.spawn(move || {
                    let mut rng = crate::rng::Rng::from_seed(thread);
                    for _ in 0..300 {
                        let file = FileIndex(rng.below(u64::from(FILES)) as u32);
                        let count = |file: FileIndex| &open_now[file.0 as usize];
                        let opened = || {
                            assert_eq!(count(file).fetch_add(1, Relaxed), 0, "open already");
                            open(folder, file)
                        };
                        let closed = |file, _: &Handle, synced: Result<(), Errno>| {
                            assert_eq!(synced, Ok(()));
                            assert_eq!(count(file).fetch_sub(1, Relaxed), 1);
                        };
                        let handle = handles.get(file, opened, closed).unwrap();
                        handle.write(&[thread as u8 + 1; 8], thread * 8).unwrap();
                        assert!(handles.open_count() <= 6 + 2 * 8);
                    }
                });
            }
        });
        handles.close_all(|_, _, synced| assert_eq!(synced, Ok(())));
        assert_eq!(handles.open_count(), 0);
        let file = std::fs::File::open(folder.path().join("0")).unwrap();
        let mut bytes = [0; 64];
        file.read_exact_at(&mut bytes, 0).unwrap();
        for (at, byte) in bytes.iter().enumerate() {
            assert!(*byte == 0 || usize::from(*byte) == at / 8 + 1);
        }
    }

    #[test]
    fn what_is_held_is_not_closed_and_what_could_not_be_opened_may_be_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        for file in 0..9 {
            std::fs::write(folder.path().join(file.to_string()), []).unwrap();
        }
        let handles = Handles::new(2);
        let get = |file| handles.get(FileIndex(file), || open(folder.path(), FileIndex(file)), |_, _, _| {});
        let held = get(0).unwrap();
        for file in 1..9 {
            get(file).unwrap();
            assert!(handles.open_count() <= 2);
            assert!(Arc::ptr_eq(&held, &get(0).unwrap()));
        }
        assert!(get(99).is_err() && get(99).is_err());
        handles.sync(|_, synced| assert_eq!(synced, Ok(())));
        drop(held);
        handles.close_all(|_, _, _| {});
        assert_eq!(handles.open_count(), 0);
    }
}
