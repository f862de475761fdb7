//! A write beyond the limit on the length of files is an error, not the end of the process.
//!
//! For it the kernel sends SIGXFSZ (setrlimit(2), RLIMIT_FSIZE), which kills by default; ignored, the write answers
//! EFBIG, which is told like a full disk.
#![expect(unsafe_code, reason = "a signal is to be ignored, for which there is no safe call")]

/// Ignores SIGXFSZ from now on, in every thread.
pub fn outlive_file_size_limit() {
    // SAFETY: SIG_IGN is no handler, so no code of ours runs in a signal's context. It fails only for signals that do
    // not exist or cannot be ignored.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}
