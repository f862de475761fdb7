//! The limit on open files, and who gets which share of it. Every mapped file keeps its descriptor and every connection has one, and the
//! customary soft limit of 1024 exists for select(2), which nothing here calls; so the soft limit is raised to
//! the hard one (getrlimit(2)). What strangers open has a share of its own, so that content, logs and resume files never go
//! without because of them.

use crate::limits::{DESCRIPTORS_KEPT_PART, HTTP_CONNECTIONS_MAX, OPEN_FILES_MAX};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that a process has open without any content or peer: the standard streams, sockets of an embedded tracker, what its
/// runtime needs.
const OWN_DESCRIPTORS: usize = 16;
/// Those of a worker: a ring, a doorbell, two listeners.
const OWN_DESCRIPTORS_PER_CORE: usize = 4;

/// Raises the limit as far as this process may by itself. Answers the files that may now be open;
/// `u64::MAX` without a limit.
pub fn raise_file_limit() -> Result<u64, Errno> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?;
    }
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// The least that a process with so many workers can do anything with.
pub fn descriptors_needed(workers: usize) -> u64 {
    // A file and its folder, a peer, whoever speaks HTTP.
    let least = 4;
    (OWN_DESCRIPTORS + OWN_DESCRIPTORS_PER_CORE * workers + least) as u64
}

/// Who may have how many descriptors. What is left is for everything else: trackers that are asked, logs, resume files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DescriptorShares {
    /// Files of content that is opened on demand.
    pub content: usize,
    /// Connections with peers.
    pub peers: usize,
    /// HTTP connections to the embedded tracker and to the metrics.
    pub http: usize,
}

/// The shares of what this process may have, in its limit on open files and in mappings.
pub fn descriptor_shares() -> DescriptorShares {
    let descriptors = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // vm.max_map_count; the kernel's own default where it cannot be read.
    let mappings = std::fs::read_to_string("/proc/sys/vm/max_map_count");
    let mappings = mappings.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_530_u64);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let own = OWN_DESCRIPTORS + OWN_DESCRIPTORS_PER_CORE * cores;
    share_out(
        usize::try_from(descriptors).unwrap_or(usize::MAX).saturating_sub(own),
        usize::try_from(mappings).unwrap_or(usize::MAX),
    )
}

fn share_out(descriptors: usize, mappings: usize) -> DescriptorShares {
    // A file and its folder is the least that content can do with.
    let content = (descriptors / 2).min(mappings / 2).clamp(2, OPEN_FILES_MAX);
    let http = (descriptors / 16).clamp(1, HTTP_CONNECTIONS_MAX);
    let kept = descriptors / DESCRIPTORS_KEPT_PART;
    let peers = descriptors.saturating_sub(content + http + kept).max(1);
    DescriptorShares { content, peers, http }
}

/// Files that may be open for content at once: its share of the descriptors.
pub fn open_files_max() -> usize {
    descriptor_shares().content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_leave_something_to_everybody_whatever_there_is() {
        for descriptors in [0, 1, 5, 10, 40, 64, 100, 1000, 4096, 20_000, 1 << 20, usize::MAX] {
            let DescriptorShares { content, peers, http } = share_out(descriptors, 65_530);
            assert!(content >= 2 && peers >= 1 && http >= 1, "{descriptors}");
            assert!(content <= OPEN_FILES_MAX && http <= HTTP_CONNECTIONS_MAX, "{descriptors}");
            if descriptors > 8 {
                let kept = descriptors - content - peers - http;
                assert!(kept >= descriptors / DESCRIPTORS_KEPT_PART, "{descriptors}: {kept} are kept");
            }
        }
        assert_eq!(share_out(1 << 20, 1000).content, 500, "a file has a mapping, too");
    }

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let raised = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
    }
}
