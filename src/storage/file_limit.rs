//! The limit on open files. Every mapped file keeps its descriptor and every connection has one, and the
//! customary soft limit of 1024 exists for select(2), which nothing here calls; so the soft limit is raised to
//! the hard one (getrlimit(2)).

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_reaches_the_hard_one() {
        let raised = raise_file_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), raised);
    }
}
