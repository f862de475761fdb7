//! Why there is no ring, in one sentence with its cure.
//!
//! io_uring_setup(2) says little: EPERM is a sysctl or a seccomp filter, ENOMEM the locked-memory limit, ENOSYS
//! an old kernel or one built without it. The sentence is a function of the errno and of what the system says
//! about itself, so it can be tested without breaking a machine.

use std::io;

/// io_uring cannot be used. The text says why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RingUnavailable(String);

/// What of the system explains a refusal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingSystem {
    /// `/proc/sys/kernel/io_uring_disabled`: 0 allowed, 1 for a group only, 2 for nobody; `None` when absent.
    pub io_uring_disabled: Option<u8>,
    /// RLIMIT_MEMLOCK in bytes; `None` for unlimited.
    pub locked_memory: Option<u64>,
}

impl RingUnavailable {
    /// The sentence for a failed set-up on this system.
    pub fn from_setup(error: &io::Error) -> Self {
        let io_uring_disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled")
            .ok()
            .and_then(|text| text.trim().parse().ok());
        let locked_memory = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        explain_ring_setup_error(error, RingSystem { io_uring_disabled, locked_memory })
    }
}

/// The sentence for a failed set-up on a system like `system`.
pub fn explain_ring_setup_error(error: &io::Error, system: RingSystem) -> RingUnavailable {
    RingUnavailable(match (error.raw_os_error(), system.io_uring_disabled) {
        (Some(libc::EPERM), Some(disabled @ 1..)) => format!(
            "io_uring is switched off on this system (kernel.io_uring_disabled = {disabled}); \
             allow it with: sysctl kernel.io_uring_disabled=0"
        ),
        (Some(libc::EPERM | libc::EACCES), _) => "io_uring is forbidden, most likely by a seccomp filter; in a \
             container allow the io_uring system calls (docker: --security-opt seccomp=unconfined or a profile \
             of your own)"
            .to_owned(),
        (Some(libc::ENOSYS), _) => "this kernel has no io_uring, or a seccomp filter hides it; \
             Linux 6.1 or newer, built with CONFIG_IO_URING, is needed"
            .to_owned(),
        (Some(libc::EINVAL), _) => "this kernel's io_uring is too old: Linux 6.1 or newer is needed".to_owned(),
        (Some(libc::ENOMEM), _) => {
            let limit = system.locked_memory.map_or("unlimited".to_owned(), |bytes| format!("{} KiB", bytes / 1024));
            format!(
                "too little memory may be locked for io_uring (the limit is {limit}); raise it with: ulimit -l 65536, \
                 or LimitMEMLOCK=64M in a systemd unit"
            )
        }
        (Some(libc::EMFILE), _) => {
            "too many files are open for an io_uring; raise the limit with: ulimit -n 65536".to_owned()
        }
        _ => format!("io_uring could not be set up: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(errno: i32, io_uring_disabled: Option<u8>, locked_memory: Option<u64>) -> String {
        let system = RingSystem { io_uring_disabled, locked_memory };
        explain_ring_setup_error(&io::Error::from_raw_os_error(errno), system).to_string()
    }

    #[test]
    fn every_refusal_names_its_cure() {
        assert!(explain(libc::EPERM, Some(2), None).contains("sysctl kernel.io_uring_disabled=0"));
        assert!(explain(libc::EPERM, Some(0), None).contains("seccomp"));
        assert!(explain(libc::EPERM, None, None).contains("seccomp"));
        assert!(explain(libc::ENOSYS, None, None).contains("Linux 6.1"));
        assert!(explain(libc::EINVAL, Some(0), None).contains("too old"));
        assert!(explain(libc::ENOMEM, Some(0), Some(65_536)).contains("64 KiB"));
        assert!(explain(libc::ENOMEM, Some(0), Some(65_536)).contains("ulimit -l"));
        assert!(explain(libc::EMFILE, Some(0), None).contains("ulimit -n"));
        assert!(explain(libc::EIO, Some(0), None).contains("could not be set up"));
    }
}
