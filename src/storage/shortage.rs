//! Shortage: no descriptor, no memory, no thread. It is nobody's content's fault, and it passes.
//!
//! So it is waited out where somebody may wait, tried again later where not, and told once. Invariant: no shortage
//! becomes the fault of content ([`Content::fail`](super::Content::fail) refuses it), and none makes a file count as missing.

use crate::clock;
use crate::limits::{SHORTAGE_RETRY_INTERVAL, SHORTAGE_TOLD_INTERVAL};
use crate::time::{Duration, Instant};
use rustix::io::Errno;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};

/// When the user was told of a shortage last.
static TOLD: Mutex<Option<Instant>> = Mutex::new(None);

/// Whether an error of the kernel's is want of something that others will give back.
pub(super) fn is_shortage(errno: Errno) -> bool {
    matches!(errno, Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::AGAIN)
}

/// Whether an error of the standard library's is such a want.
pub fn is_shortage_of(error: &std::io::Error) -> bool {
    Errno::from_io_error(error).is_some_and(is_shortage)
}

/// Tells the user of a shortage, at most once in a while, whoever meets it.
pub fn tell_shortage(error: impl Display) {
    let now = clock::now();
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| now >= told + SHORTAGE_TOLD_INTERVAL) {
        *told = Some(now);
        tracing::warn!("{error}; what needs it waits until it is there");
    }
}

/// Tries something until it meets no shortage any more, for so long at most, and answers the last outcome. Waits, so not
/// for data cores.
pub fn outlast<T, E: Display>(
    patience: Duration,
    is_shortage: impl Fn(&E) -> bool,
    mut attempt: impl FnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut outcome = attempt();
    let begun = clock::now();
    while let Err(error) = &outcome
        && is_shortage(error)
        && clock::now().since(begun) < patience
    {
        tell_shortage(error);
        std::thread::park_timeout(SHORTAGE_RETRY_INTERVAL);
        outcome = attempt();
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_waited_for_and_nothing_else() {
        let mut tries = 0;
        let outcome = outlast(
            Duration::from_secs(60),
            |&errno| is_shortage(errno),
            || {
                tries += 1;
                if tries < 4 { Err(Errno::MFILE) } else { Ok(tries) }
            },
        );
        assert_eq!(outcome, Ok(4));
        let mut tries = 0;
        let outcome: Result<(), Errno> = outlast(
            Duration::from_secs(60),
            |&errno| is_shortage(errno),
            || {
                tries += 1;
                Err(Errno::NOENT)
            },
        );
        assert_eq!((outcome, tries), (Err(Errno::NOENT), 1));
        let never: Result<(), Errno> = outlast(Duration::ZERO, |_| true, || Err(Errno::NFILE));
        assert_eq!(never, Err(Errno::NFILE));
    }
}
