//! Addresses that are taken for a moment: by a process that is ending, whose sockets the kernel has yet to close.
//!
//! The kernel frees what an io_uring holds after the process is gone, so that who starts again at once finds the port
//! taken by nobody. It is tried for about a second; who really listens there keeps it.

use crate::clock;
use crate::limits::{BIND_PATIENCE, BIND_RETRY_INTERVAL};
use std::io;

/// Binds, and again while the address is taken and `wait` answers true; the last error when it no longer does.
///
/// # Errors
/// What `bind` says: at once when it is anything else than that the address is taken.
pub fn bind_patiently<T, E>(
    mut bind: impl FnMut() -> Result<T, E>,
    is_taken: impl Fn(&E) -> bool,
    mut wait: impl FnMut() -> bool,
) -> Result<T, E> {
    loop {
        match bind() {
            Err(error) if is_taken(&error) && wait() => {}
            other => return other,
        }
    }
}

/// Waits a little each time, and answers false when [`BIND_PATIENCE`] is over. It blocks, so it is nothing for workers.
pub fn a_second() -> impl FnMut() -> bool {
    let mut end = None;
    move || {
        let now = clock::now();
        if now >= *end.get_or_insert(now + BIND_PATIENCE) {
            return false;
        }
        std::thread::park_timeout(BIND_RETRY_INTERVAL);
        true
    }
}

/// Whether the kernel says that somebody has the address.
pub fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often an address was tried that is taken so many times, and what came of it.
    fn tried(taken: usize, kind: io::ErrorKind, patience: usize) -> (usize, Result<(), io::ErrorKind>) {
        let (mut tries, mut waits) = (0, 0);
        let bind = || {
            tries += 1;
            if tries > taken { Ok(()) } else { Err(io::Error::from(kind)) }
        };
        let wait = || {
            waits += 1;
            waits <= patience
        };
        let bound = bind_patiently(bind, is_taken, wait).map_err(|error| error.kind());
        (tries, bound)
    }

    #[test]
    fn an_address_that_becomes_free_is_taken_and_one_that_does_not_is_given_up() {
        assert_eq!(tried(0, io::ErrorKind::AddrInUse, 50), (1, Ok(())));
        assert_eq!(tried(7, io::ErrorKind::AddrInUse, 50), (8, Ok(())));
        assert_eq!(tried(99, io::ErrorKind::AddrInUse, 50), (51, Err(io::ErrorKind::AddrInUse)));
    }

    #[test]
    fn any_other_error_is_told_at_once() {
        for kind in [io::ErrorKind::PermissionDenied, io::ErrorKind::AddrNotAvailable] {
            assert_eq!(tried(7, kind, 50), (1, Err(kind)));
        }
    }
}
