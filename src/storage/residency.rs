//! Whether a file's bytes are in the page cache, so that a send does not block its worker on the disk.
//!
//! A window's pages are counted with cachestat(2), about 2 µs for 256 KiB, and a positive answer is kept for
//! about a second in one atomic a window. A kernel without cachestat (before 6.5), or one that refuses it for files
//! that the user may not write, is asked with preadv2(2) and RWF_NOWAIT for single bytes spread over the window; mincore(2)
//! would be no substitute, since it answers "resident" for everything when it refuses. Invariant: a window
//! whose read is under way is not resident, because the cache shows a page before its bytes have arrived; only
//! news of the end of such a read makes it so, since a disk may take any time.
//!
//! All atomics are relaxed: an old value costs one system call too many or one page fault, never a wrong byte.
#![expect(unsafe_code, reason = "cachestat(2) has no safe wrapper")]

use crate::time::Instant;
use rustix::fd::{AsRawFd, BorrowedFd};
use rustix::io::{Errno, ReadWriteFlags};
use std::io::IoSliceMut;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// Bytes of the unit in which residency is asked and content is brought into memory.
pub(super) const WINDOW_LEN: u64 = 256 * 1024;
/// Distance of the single bytes asked for where cachestat does not answer: four in a window, since pages come
/// and go in runs.
const PROBE_DISTANCE: u64 = 64 * 1024;
/// cachestat's number, the same on every architecture that io_uring workers run on.
const SYS_CACHESTAT: libc::c_long = 451;

/// log2 of the nanoseconds of a tick, 0.27 s; 31 bits of ticks last 18 years.
const TICK_SHIFT: u32 = 28;
/// Ticks for which a positive answer holds: about a second.
const RESIDENT_TICKS: u32 = 4;
/// Set in a window's mark while it is being read.
const LOADING: u32 = 1 << 31;

/// How a window stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// In memory.
    Resident,
    /// Somebody has begun to read it, and has not said that it is there.
    Loading,
    /// Not in memory, or not all of it.
    Absent,
}

/// What is known of one file's windows. Allocated when first asked.
#[derive(Debug, Default)]
pub(super) struct Residency {
    /// A window's mark: 0, or the tick of the last news plus one, and [`LOADING`].
    marks: OnceLock<Box<[AtomicU32]>>,
    /// Whether cachestat has refused this file.
    refused: AtomicBool,
}

impl Residency {
    /// Whether all windows that the bytes touch are resident. `file_len` is the mapped length, at least
    /// `offset + len`.
    pub(super) fn contains(
        &self,
        now: Instant,
        fd: BorrowedFd<'_>,
        file_len: u64,
        offset: u64,
        len: usize,
    ) -> bool {
        windows(offset, len)
            .all(|window| self.presence(now, fd, file_len, window as u64 * WINDOW_LEN) == Presence::Resident)
    }

    /// How the window stands that `offset` lies in.
    pub(super) fn presence(&self, now: Instant, fd: BorrowedFd<'_>, file_len: u64, offset: u64) -> Presence {
        let window = offset / WINDOW_LEN;
        let Some(mark) = self.marks(file_len).get(window as usize) else { return Presence::Absent };
        let (tick, known) = (tick(now), mark.load(Relaxed));
        if known & LOADING != 0 {
            return Presence::Loading;
        }
        if known != 0 && tick.wrapping_sub(known) & !LOADING < RESIDENT_TICKS {
            return Presence::Resident;
        }
        let begin = window * WINDOW_LEN;
        if !self.ask(fd, begin..(begin + WINDOW_LEN).min(file_len)) {
            return Presence::Absent;
        }
        // What was counted may be the empty pages of a read that has begun meanwhile.
        match mark.compare_exchange(known, tick, Relaxed, Relaxed) {
            Err(newer) if newer & LOADING != 0 => Presence::Loading,
            _ => Presence::Resident,
        }
    }

    pub(super) fn mark_loading(&self, file_len: u64, offset: u64, len: usize) {
        self.mark(file_len, offset, len, LOADING);
    }

    pub(super) fn mark_resident(&self, now: Instant, file_len: u64, offset: u64, len: usize) {
        self.mark(file_len, offset, len, tick(now));
    }

    fn mark(&self, file_len: u64, offset: u64, len: usize, value: u32) {
        for mark in self.marks(file_len).get(windows(offset, len)).unwrap_or_default() {
            mark.store(value, Relaxed);
        }
    }

    fn marks(&self, file_len: u64) -> &[AtomicU32] {
        self.marks.get_or_init(|| (0..file_len.div_ceil(WINDOW_LEN)).map(|_| AtomicU32::new(0)).collect())
    }

    fn ask(&self, fd: BorrowedFd<'_>, bytes: Range<u64>) -> bool {
        if !self.refused.load(Relaxed) {
            match cached_pages(fd, bytes.clone()) {
                Ok(pages) => return pages >= (bytes.end - bytes.start).div_ceil(page_len()),
                Err(_) => self.refused.store(true, Relaxed),
            }
        }
        has_probes(fd, bytes)
    }
}

/// The tick of `now`; zero, which means no news, only once in 18 years.
fn tick(now: Instant) -> u32 {
    ((now.as_nanos() >> TICK_SHIFT) as u32).wrapping_add(1) & !LOADING
}

fn windows(offset: u64, len: usize) -> Range<usize> {
    let end = offset.saturating_add(len as u64);
    (offset / WINDOW_LEN) as usize..end.div_ceil(WINDOW_LEN) as usize
}

fn page_len() -> u64 {
    rustix::param::page_size() as u64
}

/// Pages of `bytes` that the page cache has, those whose reads are under way included.
fn cached_pages(fd: BorrowedFd<'_>, bytes: Range<u64>) -> Result<u64, Errno> {
    #[repr(C)]
    struct CachestatRange {
        offset: u64,
        len: u64,
    }
    #[repr(C)]
    #[derive(Default)]
    struct Cachestat {
        cache: u64,
        dirty: u64,
        writeback: u64,
        evicted: u64,
        recently_evicted: u64,
    }
    let range = CachestatRange { offset: bytes.start, len: bytes.end - bytes.start };
    let mut answer = Cachestat::default();
    // SAFETY: both pointers are to live values of the layout that cachestat(2) gives, the second one writable
    // and not aliased; the descriptor is borrowed for the call; the kernel keeps nothing afterwards.
    let result =
        unsafe { libc::syscall(SYS_CACHESTAT, fd.as_raw_fd(), &raw const range, &raw mut answer, 0_u32) };
    if result == 0 {
        return Ok(answer.cache);
    }
    Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
}

/// Whether single bytes all over `bytes` can be read without waiting.
fn has_probes(fd: BorrowedFd<'_>, bytes: Range<u64>) -> bool {
    let last = bytes.end.saturating_sub(1);
    let spread = bytes.step_by(PROBE_DISTANCE as usize);
    spread.chain([last]).all(|offset| {
        let mut byte = [0];
        let read = rustix::io::preadv2(fd, &mut [IoSliceMut::new(&mut byte)], offset, ReadWriteFlags::NOWAIT);
        read == Ok(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Duration;
    use rustix::fd::AsFd;
    use std::fs::File;
    use std::io::Write;

    const FILE_LEN: u64 = 3 * WINDOW_LEN + 100;

    /// A file whose pages were just written and are therefore in the cache.
    fn cached_file() -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; FILE_LEN as usize]).unwrap();
        file
    }

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(86_400_000 + millis)
    }

    #[test]
    fn written_pages_are_resident_to_the_last_byte() {
        let (file, residency) = (cached_file(), Residency::default());
        for (offset, len) in [(0, 1), (0, FILE_LEN as usize), (FILE_LEN - 1, 1), (WINDOW_LEN - 1, 2)] {
            assert!(residency.contains(at(0), file.as_fd(), FILE_LEN, offset, len), "{offset}+{len}");
        }
    }

    #[test]
    fn holes_that_were_never_read_are_absent_and_news_lasts_about_a_second() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(FILE_LEN).unwrap();
        let residency = Residency::default();
        let asked = |now| residency.contains(now, file.as_fd(), FILE_LEN, WINDOW_LEN + 5, 1);
        assert!(!asked(at(0)));
        residency.mark_resident(at(0), FILE_LEN, WINDOW_LEN + 5, 1);
        assert!(asked(at(0)) && asked(at(700)));
        assert!(!asked(at(1200)));
        assert!(!residency.contains(at(0), file.as_fd(), FILE_LEN, 0, 1), "its neighbour stays absent");
    }

    #[test]
    fn a_window_that_is_being_read_is_not_resident_until_it_is_said_to_be() {
        let (file, residency) = (cached_file(), Residency::default());
        let asked = |now| residency.contains(now, file.as_fd(), FILE_LEN, 0, 10);
        residency.mark_loading(FILE_LEN, 0, 10);
        assert!(!asked(at(0)) && !asked(at(3_600_000)), "a disk may take any time");
        assert_eq!(residency.presence(at(1), file.as_fd(), FILE_LEN, 100), Presence::Loading);
        assert_eq!(residency.presence(at(1), file.as_fd(), FILE_LEN, WINDOW_LEN), Presence::Resident);
        residency.mark_resident(at(6001), FILE_LEN, 0, 10);
        assert!(asked(at(6002)));
    }

    #[test]
    fn single_bytes_stand_in_where_cachestat_is_refused() {
        let (file, residency) = (cached_file(), Residency::default());
        residency.refused.store(true, Relaxed);
        assert!(residency.contains(at(0), file.as_fd(), FILE_LEN, 0, FILE_LEN as usize));
        let absent = tempfile::tempfile().unwrap();
        absent.set_len(FILE_LEN).unwrap();
        assert_eq!(cached_pages(absent.as_fd(), 0..FILE_LEN), Ok(0));
        assert!(!has_probes(absent.as_fd(), FILE_LEN..FILE_LEN + 1), "nothing lies behind the end");
    }

    #[test]
    fn evicted_pages_are_absent_until_they_are_read_again() {
        let file = cached_file();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        if cached_pages(file.as_fd(), 0..FILE_LEN) != Ok(0) {
            return; // A file system in memory (tmpfs) has nowhere to evict to.
        }
        let residency = Residency::default();
        let asked = |now| residency.contains(now, file.as_fd(), FILE_LEN, 0, FILE_LEN as usize);
        assert!(!asked(at(0)));
        assert_eq!(rustix::io::pread(&file, &mut vec![0; FILE_LEN as usize], 0), Ok(FILE_LEN as usize));
        assert!(asked(at(1)), "absence is not remembered");
    }

    #[test]
    fn counts_pages_of_parts_and_tails() {
        let file = cached_file();
        let pages = |bytes| cached_pages(file.as_fd(), bytes);
        assert_eq!(pages(0..WINDOW_LEN), Ok(WINDOW_LEN / page_len()));
        assert_eq!(pages(3 * WINDOW_LEN..FILE_LEN), Ok(1));
    }
}
