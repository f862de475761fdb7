//! The limit on open files. Every mapped file keeps its descriptor and every connection has one, and the
//! customary soft limit of 1024 exists for select(2), which nothing here calls; so the soft limit is raised to
//! the hard one (getrlimit(2)).

use crate::limits::OPEN_FILES_MAX;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the limit as far as this process may by itself. Answers the files that may now be open;
/// `u64::MAX` without a limit.
pub fn raise_file_limit() -> Result<u64, Errno> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// Files that may be open for content at once, so that descriptors and mappings are left for everything else: half of
/// what the process may have, and at most [`OPEN_FILES_MAX`].
pub fn open_files_max() -> usize {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // vm.max_map_count; the kernel's own default where it cannot be read.
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let mappings = mappings.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_530_u64);
    let half = usize::try_from(descriptors.min(mappings) / 2).unwrap_or(usize::MAX);
    half.clamp(1, OPEN_FILES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let raised = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
    }
}
