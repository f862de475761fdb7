//! The one file that reads clocks and entropy. Shells read here once per turn and pass the values down.
#![expect(clippy::disallowed_methods, reason = "this is the one clock file")]

use crate::rng::Rng;
use crate::time::{Duration, Instant};
use std::sync::OnceLock;

/// Monotonic time now. The origin lies one day before the first call, so that a deadline in the recent past
/// is representable.
pub fn now() -> Instant {
    static ORIGIN: OnceLock<std::time::Instant> = OnceLock::new();
    let elapsed = ORIGIN.get_or_init(std::time::Instant::now).elapsed();
    Instant::ZERO + Duration::from_secs(86_400) + elapsed
}

/// Seconds since 1970-01-01 UTC; zero when the system's clock stands before that.
pub fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// CPU time that this process has used so far, user and system, in all its threads.
pub fn process_cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// CPU time that the calling thread has used so far, user and system.
pub fn thread_cpu_time() -> Duration {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(spent.tv_sec).unwrap_or(0), u32::try_from(spent.tv_nsec).unwrap_or(0))
}

/// `N` bytes from the kernel's generator.
///
/// # Panics
/// When the kernel has no randomness to give, which Linux only does before it has booted.
pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("getrandom(2) cannot fail on a running Linux system");
    bytes
}

/// A generator with a seed from the kernel.
pub fn random_rng() -> Rng {
    Rng::from_seed(u64::from_ne_bytes(random_bytes()))
}
