//! What the process takes of the machine, as the kernel tells it.
//!
//! Nothing here takes the lock of the process's memory, which a thread in a page fault on a hung device holds:
//! `/proc/self/statm` is counters (proc(5)).

use crate::clock;
use crate::time::Duration;
use rustix::process::{Resource, getrlimit};
use std::fs;

/// The figures of one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFigures {
    /// Processor time, user and system.
    pub cpu: Duration,
    /// When the session started, in seconds of Unix time.
    pub started_at: u64,
    /// Bytes of address space.
    pub virtual_len: u64,
    /// Bytes of it that are in memory.
    pub resident_len: u64,
    /// Open descriptors.
    pub open_files: u64,
    /// How many may be.
    pub open_files_max: u64,
}

impl ProcessFigures {
    /// Now; what the kernel does not tell is zero.
    pub fn now(started_at: u64) -> Self {
        let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut lens = pages
            .split(' ')
            .map(|count| count.parse::<u64>().unwrap_or(0).saturating_mul(rustix::param::page_size() as u64));
        let limit = getrlimit(Resource::Nofile).current;
        Self {
            cpu: clock::process_cpu_time(),
            started_at,
            virtual_len: lens.next().unwrap_or(0),
            resident_len: lens.next().unwrap_or(0),
            // Since Linux 6.2 the folder's length is the number of descriptors.
            open_files: fs::metadata("/proc/self/fd").map_or(0, |folder| folder.len()),
            open_files_max: limit.unwrap_or(u64::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_them() {
        let figures = ProcessFigures::now(7);
        assert!(figures.resident_len > 0 && figures.virtual_len > figures.resident_len, "{figures:?}");
        assert!(figures.open_files > 0 && figures.open_files <= figures.open_files_max, "{figures:?}");
        assert_eq!(figures.started_at, 7);
    }
}
